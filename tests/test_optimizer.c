/* Optimisers: updates against their formulas written out here; the step-replay adjoint against differences of an
 * unrolled training run; zero second moments. */
#include "graphs.h"

#include <stdio.h>
#include <stdlib.h>

#include "optimizer/optimizer.h"
#include "transform/transform.h"

enum { P = 5, S = 4, STEPS = 12, WINDOW = 7 };

static const struct optimizer_spec specs[] = {
    {.kind = OPTIMIZER_SGD, .lr = 0.1},
    {.kind = OPTIMIZER_SGD, .lr = 0.1, .weight_decay = 0.05},
    {.kind = OPTIMIZER_SGD, .lr = 0.05, .momentum = 0.9, .weight_decay = 0.05},
    {.kind = OPTIMIZER_ADAM, .lr = 0.1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
    {.kind = OPTIMIZER_ADAM, .lr = 0.1, .beta1 = 0.8, .beta2 = 0.9, .eps = 1e-3, .weight_decay = 0.05},
};

static void scalars_exactly(const struct optimizer_spec *spec, double lr, int t, double row[OPTIMIZER_SCALARS]) {
    bool adam = spec->kind == OPTIMIZER_ADAM;
    row[0] = lr;
    row[1] = adam ? 1 - pow(spec->beta1, t) : 1;
    row[2] = adam ? 1 - pow(spec->beta2, t) : 1;
    row[3] = 0;
}

static void test_scalars(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++)
        for (int t = 1; t < 3000; t = 3 * t + 1) {
            float row[OPTIMIZER_SCALARS];
            double exact[OPTIMIZER_SCALARS];
            optimizer_scalars(&specs[i], 0.25, t, row);
            scalars_exactly(&specs[i], 0.25, t, exact);
            for (int j = 0; j < OPTIMIZER_SCALARS; j++) assert_true(row[j] == (float)exact[j]);
        }
    assert_int_equal(optimizer_state_count(&specs[1]), 0);
    assert_int_equal(optimizer_state_count(&specs[2]), 1);
    assert_int_equal(optimizer_state_count(&specs[3]), 2);
}

/* --- a toy to be trained: loss(theta, s) = sum exp(0.3 theta) s' + (theta . w(s))^2, s' and w of size P made of s ---
 */

static struct node *toy_loss(struct node *theta, struct node *s) {
    struct node *last = node_slice(s, (int64_t[]){S - 1}, (int64_t[]){1}, SHAPE(1));
    struct node *stretched = node_concat((struct node *[]){s, last}, 2, 0);
    struct node *first = node_sum_all(node_multiply(node_exp(node_scale(theta, 0.3)), node_square(stretched)));
    struct node *second = node_square(node_sum_all(node_multiply(theta, node_sin(stretched))));
    return node_add(first, second);
}

/* The graphs of one step, of the loss at the end, and of one step back. */
struct toy {
    const struct optimizer_spec *spec;
    int state_count;
    struct graph *step, *end, *back;
};

static const char *const state_names[] = {"state0", "state1"}, *const next_names[] = {"next0", "next1"};
static const char *const lambda_names[] = {"lambda0", "lambda1"}, *const adjoint_names[] = {"adjoint0", "adjoint1"};

static void toy_create(const struct optimizer_spec *spec, struct toy *toy) {
    *toy = (struct toy){.spec = spec, .state_count = optimizer_state_count(spec)};
    struct node *state[OPTIMIZER_MAX_STATE], *next[OPTIMIZER_MAX_STATE], *wrt[2], *gradients[2], *after;

    assert_ok(graph_create(&toy->step));
    struct graph *graph = toy->step;
    struct node *theta = graph_input(graph, "theta", FLOAT32, SHAPE(P)),
                *s = graph_input(graph, "s", FLOAT32, SHAPE(S));
    struct node *scalars = graph_input(graph, "scalars", FLOAT32, SHAPE(OPTIMIZER_SCALARS));
    for (int i = 0; i < toy->state_count; i++) state[i] = graph_input(graph, state_names[i], FLOAT32, SHAPE(P));
    assert_ok(transform_vjp(toy_loss(theta, s), NULL, &theta, 1, gradients));
    optimizer_update(graph, spec, scalars, theta, state, gradients[0], &after, next);
    graph_output(graph, "after", after);
    for (int i = 0; i < toy->state_count; i++) graph_output(graph, next_names[i], next[i]);
    assert_ok(graph_verify(graph));

    assert_ok(graph_create(&toy->end));
    graph = toy->end;
    theta = graph_input(graph, "theta", FLOAT32, SHAPE(P));
    struct node *loss = node_sum_all(node_square(node_shift(theta, -0.3)));
    assert_ok(transform_vjp(loss, NULL, &theta, 1, gradients));
    graph_output(graph, "loss", loss);
    graph_output(graph, "lambda", gradients[0]);

    assert_ok(graph_create(&toy->back));
    graph = toy->back;
    theta = wrt[0] = graph_input(graph, "theta", FLOAT32, SHAPE(P));
    s = wrt[1] = graph_input(graph, "s", FLOAT32, SHAPE(S));
    scalars = graph_input(graph, "scalars", FLOAT32, SHAPE(OPTIMIZER_SCALARS));
    struct node *lambda = graph_input(graph, "lambda", FLOAT32, SHAPE(P)), *a_g, *d_lr;
    struct node *lambda_state[OPTIMIZER_MAX_STATE], *adjoint[OPTIMIZER_MAX_STATE], *tangents[2];
    for (int i = 0; i < toy->state_count; i++) {
        state[i] = graph_input(graph, next_names[i], FLOAT32, SHAPE(P));
        lambda_state[i] = graph_input(graph, lambda_names[i], FLOAT32, SHAPE(P));
    }
    assert_ok(transform_vjp(toy_loss(theta, s), NULL, wrt, 2, gradients));
    optimizer_adjoint(graph, spec, scalars, theta, state, gradients[0], lambda, lambda_state, &a_g, adjoint, &d_lr);
    assert_ok(graph_status(graph));
    /* Along a_g the gradients move by H a_g and by the mixed term. */
    assert_ok(transform_jvp(gradients, 2, &theta, &a_g, 1, tangents));
    graph_output(graph, "before", node_add(lambda, node_add(tangents[0], node_scale(a_g, spec->weight_decay))));
    graph_output(graph, "ds", tangents[1]);
    graph_output(graph, "d_lr", d_lr);
    for (int i = 0; i < toy->state_count; i++) graph_output(graph, adjoint_names[i], adjoint[i]);
    assert_ok(graph_verify(graph));
}

static void toy_destroy(struct toy *toy) {
    graph_destroy(toy->step);
    graph_destroy(toy->end);
    graph_destroy(toy->back);
}

/* A run of STEPS steps, of which those from `from` on use s and lr, the earlier ones s0 and lr0. */
struct run {
    double theta[STEPS + 1][P], state[STEPS + 1][OPTIMIZER_MAX_STATE][P], loss, lambda[P];
};

static void toy_run(const struct toy *toy, double *s0, double lr0, double *s, double lr, struct run *run) {
    for (int t = 1; t <= STEPS; t++) {
        bool late = t > STEPS - WINDOW;
        double scalars[OPTIMIZER_SCALARS];
        scalars_exactly(toy->spec, late ? lr : lr0, t, scalars);
        evaluate(toy->step,
                 BINDINGS({"theta", run->theta[t - 1]}, {"s", late ? s : s0}, {"scalars", scalars},
                          {"after", run->theta[t]}, {"state0", run->state[t - 1][0]}, {"state1", run->state[t - 1][1]},
                          {"next0", run->state[t][0]}, {"next1", run->state[t][1]}));
    }
    evaluate(toy->end, BINDINGS({"theta", run->theta[STEPS]}, {"loss", &run->loss}, {"lambda", run->lambda}));
}

static void check_toy(const struct optimizer_spec *spec) {
    struct toy toy;
    struct run run = {0}, moved = {0};
    struct random random = random_begin(21, RANDOM_TEST, 0);
    double s[S], ds[S] = {0}, d_lr = 0, lambda[P], lambda_state[OPTIMIZER_MAX_STATE][P] = {{0}};
    toy_create(spec, &toy);
    fill_normal(&random, run.theta[0], P, 0.5);
    memcpy(moved.theta[0], run.theta[0], sizeof run.theta[0]);
    fill_normal(&random, s, S, 0.7);
    toy_run(&toy, s, spec->lr, s, spec->lr, &run);

    memcpy(lambda, run.lambda, sizeof lambda);
    for (int t = STEPS; t > STEPS - WINDOW; t--) {
        double scalars[OPTIMIZER_SCALARS], before[P], adjoint[OPTIMIZER_MAX_STATE][P], share[S], share_lr;
        scalars_exactly(spec, spec->lr, t, scalars);
        evaluate(toy.back,
                 BINDINGS({"theta", run.theta[t - 1]}, {"s", s}, {"scalars", scalars}, {"lambda", lambda},
                          {"next0", run.state[t][0]}, {"next1", run.state[t][1]}, {"lambda0", lambda_state[0]},
                          {"lambda1", lambda_state[1]}, {"before", before}, {"ds", share}, {"d_lr", &share_lr},
                          {"adjoint0", adjoint[0]}, {"adjoint1", adjoint[1]}));
        memcpy(lambda, before, sizeof lambda);
        memcpy(lambda_state, adjoint, sizeof lambda_state);
        for (int i = 0; i < S; i++) ds[i] += share[i];
        d_lr += share_lr;
    }

    const double step = 1e-5;
    double differences[S], loss[2], difference_lr;
    for (int i = 0; i < S; i++) {
        for (int side = 0; side < 2; side++) {
            double s_moved[S];
            memcpy(s_moved, s, sizeof s);
            s_moved[i] += side ? step : -step;
            toy_run(&toy, s, spec->lr, s_moved, spec->lr, &moved);
            loss[side] = moved.loss;
        }
        differences[i] = (loss[1] - loss[0]) / (2 * step);
    }
    for (int side = 0; side < 2; side++) {
        toy_run(&toy, s, spec->lr, s, spec->lr + (side ? step : -step), &moved);
        loss[side] = moved.loss;
    }
    difference_lr = (loss[1] - loss[0]) / (2 * step);
    if (!(relative_error(ds, differences, S) < 1e-6))
        fail_msg("kind %d momentum %g: ds off by %g", spec->kind, spec->momentum, relative_error(ds, differences, S));
    if (!(relative_error(&d_lr, &difference_lr, 1) < 1e-6))
        fail_msg("kind %d momentum %g: d_lr %.12g, difference %.12g", spec->kind, spec->momentum, d_lr, difference_lr);
    toy_destroy(&toy);
}

static void test_adjoints(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) check_toy(&specs[i]);
}

/* The updates as PyTorch documents them. */
static void test_updates(void **state) {
    (void)state;
    for (size_t k = 0; k < sizeof specs / sizeof specs[0]; k++) {
        const struct optimizer_spec *spec = &specs[k];
        struct random random = random_begin(22, RANDOM_TEST, 0);
        struct graph *graph;
        double theta[P], gradient[P], before[2][P], after[P], next[2][P], scalars[OPTIMIZER_SCALARS];
        fill_normal(&random, theta, P, 1);
        fill_normal(&random, gradient, P, 1);
        fill_normal(&random, before[0], P, 1);
        for (int i = 0; i < P; i++) before[1][i] = random_uniform(&random);
        assert_ok(graph_create(&graph));
        struct node *x = graph_input(graph, "theta", FLOAT32, SHAPE(P)), *new_theta, *new_state[2];
        struct node *row = graph_input(graph, "scalars", FLOAT32, SHAPE(OPTIMIZER_SCALARS)), *own_state[2];
        for (int i = 0; i < 2; i++) own_state[i] = graph_input(graph, state_names[i], FLOAT32, SHAPE(P));
        struct node *g = graph_input(graph, "gradient", FLOAT32, SHAPE(P));
        optimizer_update(graph, spec, row, x, own_state, g, &new_theta, new_state);
        graph_output(graph, "after", new_theta);
        for (int i = 0; i < optimizer_state_count(spec); i++) graph_output(graph, next_names[i], new_state[i]);
        const int t = 3;
        scalars_exactly(spec, spec->lr, t, scalars);
        evaluate(graph, BINDINGS({"theta", theta}, {"gradient", gradient}, {"scalars", scalars}, {"after", after},
                                 {"state0", before[0]}, {"state1", before[1]}, {"next0", next[0]}, {"next1", next[1]}));
        for (int i = 0; i < P; i++) {
            double d = gradient[i] + spec->weight_decay * theta[i], expected;
            if (spec->kind == OPTIMIZER_ADAM) {
                double m = spec->beta1 * before[0][i] + (1 - spec->beta1) * d;
                double v = spec->beta2 * before[1][i] + (1 - spec->beta2) * d * d;
                assert_true(fabs(next[0][i] - m) < 1e-14 && fabs(next[1][i] - v) < 1e-14);
                expected =
                    theta[i]
                    - spec->lr * (m / (1 - pow(spec->beta1, t))) / (sqrt(v / (1 - pow(spec->beta2, t))) + spec->eps);
            } else {
                double u = (optimizer_state_count(spec) ? spec->momentum * before[0][i] : 0) + d;
                if (optimizer_state_count(spec)) assert_true(fabs(next[0][i] - u) < 1e-14);
                expected = theta[i] - spec->lr * u;
            }
            assert_true(fabs(after[i] - expected) < 1e-14);
        }
        graph_destroy(graph);
    }
}

/* Weights that never had a gradient: v = m = g = 0. Every node of the adjoint stays finite there, not only its results,
 * and the neighbours are not disturbed. */
static void test_zero_second_moments(void **state) {
    (void)state;
    const struct optimizer_spec *spec = &specs[3];
    struct graph *graph;
    assert_ok(graph_create(&graph));
    double theta[P] = {0.1, 0.2, 0.3, 0.4, 0.5}, gradient[P] = {0, 0.5, 0, -0.25, 0}, v[P] = {0, 1e-4, 0, 1e-6, 0};
    double m[P] = {0, 0.01, 0, -0.002, 0}, lambda[P] = {1, 2, 3, 4, 5}, lambda0[P] = {0.1, 0.2, 0.3, 0.4, 0.5};
    double lambda1[P] = {5, 4, 3, 2, 1}, scalars[OPTIMIZER_SCALARS];
    const char *const names[] = {"theta", "gradient", "m", "v", "lambda", "lambda0", "lambda1"};
    struct node *x[7], *a_g, *adjoint[2], *d_lr;
    for (int i = 0; i < 7; i++) x[i] = graph_input(graph, names[i], FLOAT32, SHAPE(P));
    struct node *row = graph_input(graph, "scalars", FLOAT32, SHAPE(OPTIMIZER_SCALARS));
    optimizer_adjoint(graph, spec, row, x[0], (struct node *[]){x[2], x[3]}, x[1], x[4], (struct node *[]){x[5], x[6]},
                      &a_g, adjoint, &d_lr);
    assert_ok(graph_status(graph));
    struct binding bindings[64] = {
        {"theta", theta},     {"gradient", gradient}, {"m", m}, {"v", v}, {"lambda", lambda}, {"lambda0", lambda0},
        {"lambda1", lambda1}, {"scalars", scalars}};
    static double values[64][P];
    static char value_names[64][16];
    int count = graph_count(graph), bound = 8;
    assert_in_range(count, 9, 64 - 8);
    for (int i = 0; i < count; i++) {
        struct node *node = graph_node(graph, i);
        if (node->dtype != FLOAT32 || node->op == OP_INPUT) continue;
        assert_in_range(shape_count(node->shape), 1, P);
        snprintf(value_names[i], sizeof value_names[i], "node%d", i);
        graph_output(graph, value_names[i], node);
        bindings[bound++] = (struct binding){value_names[i], values[i]};
    }
    scalars_exactly(spec, spec->lr, 4, scalars);
    static double *outputs[64];
    const double *inputs[8];
    for (int i = 0; i < 8; i++) inputs[i] = bindings[i].values;
    for (int i = 8; i < bound; i++) outputs[i - 8] = bindings[i].values;
    assert_ok(graph_evaluate(graph, inputs, outputs));
    for (int i = 0; i < count; i++)
        for (int64_t j = 0; j < shape_count(graph_node(graph, i)->shape); j++)
            if (!isfinite(values[i][j]))
                fail_msg("node %d (%s) is %g", i, op_info(graph_node(graph, i)->op)->name, values[i][j]);

    for (int i = 0; i < P; i++) {
        double c1 = 1 - pow(spec->beta1, 4), c2 = 1 - pow(spec->beta2, 4), r = sqrt(v[i] / c2);
        double a_m = lambda0[i] - spec->lr * lambda[i] / (c1 * (r + spec->eps)), a_v = lambda1[i];
        if (v[i] > 0) a_v += spec->lr * (m[i] / c1) * lambda[i] / (2 * r * c2 * (r + spec->eps) * (r + spec->eps));
        double expected = (1 - spec->beta1) * a_m + 2 * (1 - spec->beta2) * gradient[i] * a_v;
        assert_true(fabs(values[a_g->index][i] - expected) <= 1e-12 * fabs(expected));
        assert_true(fabs(values[adjoint[0]->index][i] - spec->beta1 * a_m) <= 1e-12 * fabs(a_m));
        assert_true(fabs(values[adjoint[1]->index][i] - spec->beta2 * a_v) <= 1e-12 * fabs(a_v));
    }
    graph_destroy(graph);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_updates),
        cmocka_unit_test(test_adjoints),
        cmocka_unit_test(test_zero_second_moments),
    };
    return cmocka_run_group_tests_name("optimizer", tests, NULL, NULL);
}
