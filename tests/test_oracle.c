/* The mathematics end to end, before any kernel: the cases of ../shared/oracle, and of tests/oracle those of
 * distribution matching, replayed in double precision with the reference interpreter. Training, losses, the step-replay
 * meta-gradient, Hessian eigenvalues and the matching loss's gradient must agree with an independent framework's to the
 * precision of doubles. The matching loss is short enough to be compiled here too, for both families of kernels. */
#include "graphs.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/augmentation.h"
#include "base/file.h"
#include "compile/executable.h"
#include "data/data.h"
#include "nn/nn.h"
#include "optimizer/optimizer.h"
#include "transform/transform.h"

/* What case.yaml says, of each case. */
struct oracle {
    const char *name;
    int channels, side, classes, steps, window;
    bool soft;
    struct network_spec network;
    struct optimizer_spec optimizer;
};

/* Doubles reach 1e-15 on most, 1e-13 on the longest. */
#define TOLERANCE 1e-11

#define MLP(depth, width) \
    { NETWORK_MLP, depth, width, NORM_NONE, 0, ACTIVATION_RELU, POOL_AVERAGE }
#define CONVNET(depth, width, norm, activation) \
    { NETWORK_CONVNET, depth, width, norm, 0, activation, POOL_AVERAGE }
#define SGD(lr, momentum, decay) \
    { OPTIMIZER_SGD, lr, 0, 0, 0, momentum, decay }
#define ADAM(lr) \
    { OPTIMIZER_ADAM, lr, 0.9, 0.999, 1e-8, 0, 0 }

static const struct oracle oracles[] = {
    {"mlp-gd", 1, 4, 3, 5, 5, false, MLP(1, 6), SGD(0.05, 0, 0)},
    {"convnet-nonorm-gd", 1, 8, 4, 8, 8, false, CONVNET(2, 6, NORM_NONE, ACTIVATION_RELU), SGD(0.05, 0, 0)},
    {"convnet-sgd", 1, 8, 10, 12, 7, false, CONVNET(2, 8, NORM_INSTANCE, ACTIVATION_RELU), SGD(0.01, 0.9, 0.0005)},
    {"convnet-adam", 3, 16, 5, 20, 8, false, CONVNET(3, 8, NORM_INSTANCE, ACTIVATION_RELU), ADAM(0.001)},
    {"convnet-adam-soft", 3, 8, 6, 15, 10, true, CONVNET(2, 8, NORM_INSTANCE, ACTIVATION_RELU), ADAM(0.001)},
    {"convnet-28-soft", 1, 28, 10, 10, 10, true, CONVNET(3, 8, NORM_INSTANCE, ACTIVATION_LEAKY_RELU),
     SGD(0.01, 0.9, 0.0005)},
    {"convnet-swish-32", 3, 32, 10, 24, 14, false, CONVNET(3, 20, NORM_INSTANCE, ACTIVATION_SWISH), ADAM(0.001)},
};

/* --- files --- */

struct array {
    double *values;
    int64_t count, rows; /* elements, and the first dimension */
};

static bool find_case(const char *name, char folder[FILE_PATH_MAX]) {
    const char *source = getenv("RETORT_SOURCE");
    snprintf(folder, FILE_PATH_MAX, "%s/../shared/oracle/%s", source ? source : ".", name);
    return folder_exists(folder);
}

static struct array read_array(const char *folder, const char *name) {
    char path[FILE_PATH_MAX];
    struct npy npy;
    assert_ok(path_join(folder, name, path));
    assert_ok(npy_read(path, &npy));
    struct array array = {.count = npy_count(&npy), .rows = npy.size[0]};
    array.values = calloc((size_t)array.count, sizeof *array.values);
    for (int64_t i = 0; i < array.count; i++) {
        switch (npy.type) {
        case NPY_FLOAT32:
            array.values[i] = ((const float *)npy.data)[i];
            break;
        case NPY_FLOAT64:
            array.values[i] = ((const double *)npy.data)[i];
            break;
        case NPY_INT32:
            array.values[i] = ((const int32_t *)npy.data)[i];
            break;
        default:
            fail_msg("%s is of another type than a case's arrays are", path);
        }
    }
    npy_finish(&npy);
    return array;
}

static void expect_array(const char *folder, const char *name, const double *values, int64_t count) {
    struct array expected = read_array(folder, name);
    assert_int_equal(expected.count, count);
    double error = relative_error(values, expected.values, count);
    if (!(error < TOLERANCE)) fail_msg("%s of %s is off by %.3g", name, folder, error);
    free(expected.values);
}

/* --- graphs --- */

struct problem {
    const struct oracle *oracle;
    struct network network;
    int state_count;
    int64_t p, synthetic, batch, real;
    struct graph *step, *meta, *back;
};

static const char *const state_names[] = {"state0", "state1"}, *const next_names[] = {"next0", "next1"};
static const char *const lambda_names[] = {"lambda0", "lambda1"}, *const adjoint_names[] = {"adjoint0", "adjoint1"};

static struct shape images_shape(const struct oracle *oracle, int64_t count) {
    return SHAPE(count, oracle->channels, oracle->side, oracle->side);
}

/* The inner loss on the rows of a batch, and its gradients by theta, the images and (soft) the labels. */
static struct node *inner_loss(const struct problem *problem, struct graph *graph, struct node *wrt[3],
                               struct node *gradients[3]) {
    const struct oracle *oracle = problem->oracle;
    int64_t n = problem->synthetic;
    struct node *theta = graph_input(graph, "theta", FLOAT32, SHAPE(problem->p));
    struct node *images = graph_input(graph, "syn_x", FLOAT32, images_shape(oracle, n));
    struct node *labels = oracle->soft ? graph_input(graph, "syn_y", FLOAT32, SHAPE(n, oracle->classes))
                                       : graph_input(graph, "syn_y", INT32, SHAPE(n));
    struct node *rows = graph_input(graph, "rows", INT32, SHAPE(problem->batch));
    struct network_pass pass = {theta, node_gather_rows(images, rows), NULL};
    struct node *logits = network_logits(graph, &problem->network, &pass, NULL, NULL);
    struct node *answers = node_gather_rows(labels, rows);
    struct node *loss = oracle->soft ? loss_soft(graph, logits, answers) : loss_hard(graph, logits, answers);
    wrt[0] = theta;
    wrt[1] = images;
    wrt[2] = labels;
    assert_ok(graph_status(graph));
    assert_ok(transform_vjp(loss, NULL, wrt, oracle->soft ? 3 : 2, gradients));
    return loss;
}

static void problem_create(const struct oracle *oracle, const struct array *synthetic, const struct array *batches,
                           const struct array *real, struct problem *problem) {
    *problem = (struct problem){.oracle = oracle,
                                .state_count = optimizer_state_count(&oracle->optimizer),
                                .synthetic = synthetic->rows,
                                .batch = batches->count / batches->rows,
                                .real = real->rows};
    assert_ok(network_describe(&oracle->network, oracle->channels, oracle->side, oracle->side, oracle->classes,
                               &problem->network));
    int64_t p = problem->p = problem->network.theta_count;
    struct node *wrt[3], *gradients[3], *tangents[3], *state[2], *next[2], *lambda_state[2], *adjoint[2], *after;

    assert_ok(graph_create(&problem->step));
    struct graph *graph = problem->step;
    struct node *loss = inner_loss(problem, graph, wrt, gradients);
    struct node *scalars = graph_input(graph, "scalars", FLOAT32, SHAPE(OPTIMIZER_SCALARS));
    for (int i = 0; i < problem->state_count; i++) state[i] = graph_input(graph, state_names[i], FLOAT32, SHAPE(p));
    optimizer_update(graph, &oracle->optimizer, scalars, wrt[0], state, gradients[0], &after, next);
    graph_output(graph, "loss", loss);
    graph_output(graph, "norm", node_sqrt(node_sum_all(node_square(gradients[0]))));
    graph_output(graph, "after", after);
    for (int i = 0; i < problem->state_count; i++) graph_output(graph, next_names[i], next[i]);
    assert_ok(graph_verify(graph));

    assert_ok(graph_create(&problem->meta));
    graph = problem->meta;
    struct node *theta = graph_input(graph, "theta", FLOAT32, SHAPE(p));
    struct network_pass pass = {theta, graph_input(graph, "real_x", FLOAT32, images_shape(oracle, problem->real)),
                                NULL};
    loss = loss_hard(graph, network_logits(graph, &problem->network, &pass, NULL, NULL),
                     graph_input(graph, "real_y", INT32, SHAPE(problem->real)));
    assert_ok(transform_vjp(loss, NULL, &theta, 1, gradients));
    graph_output(graph, "loss", loss);
    graph_output(graph, "lambda", gradients[0]);
    assert_ok(graph_verify(graph));

    assert_ok(graph_create(&problem->back));
    graph = problem->back;
    inner_loss(problem, graph, wrt, gradients);
    scalars = graph_input(graph, "scalars", FLOAT32, SHAPE(OPTIMIZER_SCALARS));
    struct node *lambda = graph_input(graph, "lambda", FLOAT32, SHAPE(p)), *a_g, *d_lr;
    for (int i = 0; i < problem->state_count; i++) {
        next[i] = graph_input(graph, next_names[i], FLOAT32, SHAPE(p));
        lambda_state[i] = graph_input(graph, lambda_names[i], FLOAT32, SHAPE(p));
    }
    optimizer_adjoint(graph, &oracle->optimizer, scalars, wrt[0], next, gradients[0], lambda, lambda_state, &a_g,
                      adjoint, &d_lr);
    assert_ok(graph_status(graph));
    assert_ok(transform_jvp(gradients, oracle->soft ? 3 : 2, wrt, &a_g, 1, tangents));
    struct node *moved = node_add(tangents[0], node_scale(a_g, oracle->optimizer.weight_decay));
    graph_output(graph, "before", node_add(lambda, moved));
    graph_output(graph, "dsyn_x", tangents[1]);
    if (oracle->soft) graph_output(graph, "dsyn_y", tangents[2]);
    for (int i = 0; i < problem->state_count; i++) graph_output(graph, adjoint_names[i], adjoint[i]);
    assert_ok(graph_verify(graph));
    /* Simplified graphs are what is compiled, so they are what is tested. */
    struct graph **graphs[] = {&problem->step, &problem->meta, &problem->back};
    for (int i = 0; i < 3; i++) {
        struct graph *simple;
        assert_ok(transform_simplify(*graphs[i], &simple));
        graph_destroy(*graphs[i]);
        *graphs[i] = simple;
    }
}

static void problem_destroy(struct problem *problem) {
    graph_destroy(problem->step);
    graph_destroy(problem->meta);
    graph_destroy(problem->back);
}

/* --- a case --- */

static double *zeros(int64_t count) {
    return calloc((size_t)count, sizeof(double));
}

static void scalars_exactly(const struct optimizer_spec *spec, int t, double row[OPTIMIZER_SCALARS]) {
    bool adam = spec->kind == OPTIMIZER_ADAM;
    row[0] = spec->lr;
    row[1] = adam ? 1 - pow(spec->beta1, t) : 1;
    row[2] = adam ? 1 - pow(spec->beta2, t) : 1;
    row[3] = 0;
}

/* Entries of biases that have no effect are noise in the expected weights: they are left out on both sides. */
static void expect_theta(const struct problem *problem, const char *folder, const double *theta) {
    struct array expected = read_array(folder, "expect_theta_end.npy");
    double *own = zeros(problem->p);
    assert_int_equal(expected.count, problem->p);
    memcpy(own, theta, (size_t)problem->p * sizeof *own);
    for (int i = 0; i < problem->network.parameter_count; i++) {
        const struct network_parameter *parameter = &problem->network.parameters[i];
        for (int64_t j = 0; parameter->dead && j < parameter->count; j++)
            own[parameter->offset + j] = expected.values[parameter->offset + j] = 0;
    }
    double error = relative_error(own, expected.values, problem->p);
    if (!(error < TOLERANCE)) fail_msg("end weights of %s are off by %.3g", folder, error);
    free(expected.values);
    free(own);
}

/* Eigenvalues of the Hessian at theta0 on the whole synthetic set, from its columns. */
static void check_eigenvalues(const struct problem *problem, const char *folder, double *theta, double *images,
                              double *labels) {
    struct array expected = read_array(folder, "expect_hessian_eigenvalues.npy");
    struct problem whole = *problem;
    struct graph *graph;
    struct node *wrt[3], *gradients[3], *column;
    int64_t p = problem->p;
    double *rows = zeros(problem->synthetic), *direction = zeros(p), *hessian = zeros(p * p);
    double *eigen = zeros((p + 1) * p);
    whole.batch = problem->synthetic;
    for (int64_t i = 0; i < whole.batch; i++) rows[i] = (double)i;
    assert_ok(graph_create(&graph));
    inner_loss(&whole, graph, wrt, gradients);
    struct node *tangent = graph_input(graph, "direction", FLOAT32, SHAPE(p));
    assert_ok(transform_jvp(gradients, 1, wrt, &tangent, 1, &column));
    graph_output(graph, "column", column);
    for (int64_t i = 0; i < p; i++) {
        direction[i] = 1;
        evaluate(graph, BINDINGS({"theta", theta}, {"syn_x", images}, {"syn_y", labels}, {"rows", rows},
                                 {"direction", direction}, {"column", hessian + i * p}));
        direction[i] = 0;
    }
    graph_destroy(graph);
    assert_ok(graph_create(&graph));
    graph_output(graph, "eigen", node_eigh(graph_input(graph, "hessian", FLOAT32, SHAPE(p, p))));
    evaluate(graph, BINDINGS({"hessian", hessian}, {"eigen", eigen}));
    graph_destroy(graph);
    double error = relative_error(eigen, expected.values, expected.count);
    if (!(error < TOLERANCE)) fail_msg("Hessian eigenvalues of %s are off by %.3g", folder, error);
    free(expected.values);
    free(rows);
    free(direction);
    free(hessian);
    free(eigen);
}

static void check_case(const struct oracle *oracle) {
    char folder[FILE_PATH_MAX];
    if (!find_case(oracle->name, folder)) {
        print_message("# ../shared/oracle/%s is absent\n", oracle->name);
        skip();
    }
    struct array theta0 = read_array(folder, "theta0.npy"), batches = read_array(folder, "batches.npy");
    struct array syn_x = read_array(folder, "syn_x.npy"), syn_y = read_array(folder, "syn_y.npy");
    struct array real_x = read_array(folder, "real_x.npy"), real_y = read_array(folder, "real_y.npy");
    struct problem problem;
    problem_create(oracle, &syn_x, &batches, &real_x, &problem);
    int64_t p = problem.p, steps = oracle->steps;
    assert_int_equal(theta0.count, p);
    assert_int_equal(batches.rows, steps);

    /* theta and the state after each step, one after another. */
    double *theta = zeros((steps + 1) * p), *state = zeros(2 * (steps + 1) * p), *loss = zeros(steps);
    double *norm = zeros(steps), scalars[OPTIMIZER_SCALARS], outer;
    memcpy(theta, theta0.values, (size_t)p * sizeof *theta);
    for (int64_t t = 1; t <= steps; t++) {
        scalars_exactly(&oracle->optimizer, (int)t, scalars);
        double *before = state + 2 * (t - 1) * p, *after = state + 2 * t * p;
        evaluate(problem.step,
                 BINDINGS({"theta", theta + (t - 1) * p}, {"syn_x", syn_x.values}, {"syn_y", syn_y.values},
                          {"rows", batches.values + (t - 1) * problem.batch}, {"scalars", scalars},
                          {"loss", &loss[t - 1]}, {"norm", &norm[t - 1]}, {"after", theta + t * p}, {"state0", before},
                          {"state1", before + p}, {"next0", after}, {"next1", after + p}));
    }
    expect_array(folder, "expect_inner_loss.npy", loss, steps);
    expect_array(folder, "expect_grad_norm.npy", norm, steps);
    expect_theta(&problem, folder, theta + steps * p);

    double *lambda = zeros(p), *lambda_state = zeros(2 * p), *before = zeros(p), *adjoint = zeros(2 * p);
    double *dx = zeros(syn_x.count), *dy = zeros(syn_y.count), *share_x = zeros(syn_x.count);
    double *share_y = zeros(syn_y.count);
    evaluate(problem.meta, BINDINGS({"theta", theta + steps * p}, {"real_x", real_x.values}, {"real_y", real_y.values},
                                    {"loss", &outer}, {"lambda", lambda}));
    expect_array(folder, "expect_outer_loss.npy", &outer, 1);
    for (int64_t t = steps; t > steps - oracle->window; t--) {
        scalars_exactly(&oracle->optimizer, (int)t, scalars);
        evaluate(problem.back,
                 BINDINGS({"theta", theta + (t - 1) * p}, {"syn_x", syn_x.values}, {"syn_y", syn_y.values},
                          {"rows", batches.values + (t - 1) * problem.batch}, {"scalars", scalars}, {"lambda", lambda},
                          {"next0", state + 2 * t * p}, {"next1", state + (2 * t + 1) * p}, {"lambda0", lambda_state},
                          {"lambda1", lambda_state + p}, {"before", before}, {"dsyn_x", share_x}, {"dsyn_y", share_y},
                          {"adjoint0", adjoint}, {"adjoint1", adjoint + p}));
        memcpy(lambda, before, (size_t)p * sizeof *lambda);
        memcpy(lambda_state, adjoint, 2 * (size_t)p * sizeof *lambda_state);
        for (int64_t i = 0; i < syn_x.count; i++) dx[i] += share_x[i];
        for (int64_t i = 0; i < syn_y.count; i++) dy[i] += share_y[i];
    }
    expect_array(folder, "expect_dsyn_x.npy", dx, syn_x.count);
    if (oracle->soft) expect_array(folder, "expect_dsyn_y.npy", dy, syn_y.count);

    char path[FILE_PATH_MAX];
    assert_ok(path_join(folder, "expect_hessian_eigenvalues.npy", path));
    enum { LARGEST_EIGH = 128 };
    if (file_exists(path) && p <= LARGEST_EIGH) check_eigenvalues(&problem, folder, theta, syn_x.values, syn_y.values);

    double *owned[] = {theta0.values, batches.values, syn_x.values, syn_y.values, real_x.values, real_y.values,
                       theta,         state,          loss,         norm,         lambda,        lambda_state,
                       before,        adjoint,        dx,           dy,           share_x,       share_y};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) free(owned[i]);
    problem_destroy(&problem);
}

static void test_case(void **state) {
    check_case(*state);
}

/* --- distribution matching: tests/oracle/dm-*, made by make_dm_cases.py there --- */

struct matching {
    const char *name;
    int channels, height, width, classes;
    struct network_spec network;
    double loss_tolerance, gradient_tolerance; /* of float32: 30 times the other framework's own error in it */
};
static const struct matching matchings[] = {
    {"dm-instance", 3, 8, 6, 6, CONVNET(2, 6, NORM_INSTANCE, ACTIVATION_RELU), 5.4e-6, 1.8e-5},
    {"dm-batch", 2, 7, 9, 6, CONVNET(2, 5, NORM_BATCH, ACTIVATION_SWISH), 3.6e-6, 2.0e-5},
};

/* The mean features of each class [K,F] of augmented images. */
static struct node *mean_features(struct graph *graph, const struct network *network, struct node *theta,
                                  struct node *images, struct node *maps, struct node *colour) {
    struct network_pass pass = {theta, siamese_apply(graph, images, maps, colour), NULL};
    struct node *features = network_features(graph, network, &pass);
    int64_t classes = network->classes;
    assert_ok(graph_status(graph));
    struct shape grouped = SHAPE(classes, features->shape.size[0] / classes, features->shape.size[1]);
    return node_reduce_mean(node_reshape(features, grouped), 1u << 1);
}

/* The same graph compiled, in float32. The last two bindings are the loss and its gradient. */
static void expect_compiled(struct library *library, const struct graph *graph, const struct binding *bindings,
                            const char *folder, double loss_tolerance, double gradient_tolerance) {
    struct device *device = library_device(library);
    struct executable *executable;
    struct device_buffer *buffers[BINDINGS_MOST];
    int count = 0;
    assert_ok(executable_create(library, graph, "matching", &executable));
    assert_ok(library_build(library));
    for (; bindings[count].name; count++) {
        int slot = executable_slot(executable, bindings[count].name);
        size_t bytes = executable_slot_bytes(executable, slot);
        float *values = malloc(bytes);
        for (size_t i = 0; i < bytes / sizeof *values; i++) values[i] = (float)bindings[count].values[i];
        assert_ok(device_buffer_create(device, bytes, bindings[count].name, &buffers[count]));
        assert_ok(device_write(device, buffers[count], 0, bytes, values));
        assert_ok(executable_bind_slot(executable, slot, buffers[count], 0));
        free(values);
    }
    assert_ok(executable_enqueue(executable));
    for (int k = count - 2; k < count; k++) {
        bool is_loss = k == count - 2;
        struct array expected = read_array(folder, is_loss ? "expect_loss.npy" : "expect_dsyn_x.npy");
        float *values = malloc((size_t)expected.count * sizeof *values);
        assert_ok(device_read(device, buffers[k], 0, (size_t)expected.count * sizeof *values, values));
        double *got = zeros(expected.count);
        for (int64_t i = 0; i < expected.count; i++) got[i] = (double)values[i];
        double error = relative_error(got, expected.values, expected.count);
        print_message("# %s, compiled: %s %.2g off\n", folder, bindings[k].name, error);
        if (!(error < (is_loss ? loss_tolerance : gradient_tolerance)))
            fail_msg("%s of %s is off by %.3g, compiled", bindings[k].name, folder, error);
        free(expected.values);
        free(values);
        free(got);
    }
    for (int k = 0; k < count; k++) device_buffer_destroy(buffers[k]);
    executable_destroy(executable);
}

static void test_matching(void **state) {
    const struct matching *matching = *state;
    const char *source = getenv("RETORT_SOURCE");
    char folder[FILE_PATH_MAX];
    snprintf(folder, sizeof folder, "%s/tests/oracle/%s", source ? source : ".", matching->name);
    struct array theta0 = read_array(folder, "theta0.npy"), maps = read_array(folder, "maps.npy");
    struct array real = read_array(folder, "real_x.npy"), synthetic = read_array(folder, "syn_x.npy");
    struct array colour = read_array(folder, "colour.npy");
    struct network network;
    assert_ok(network_describe(&matching->network, matching->channels, matching->height, matching->width,
                               matching->classes, &network));
    assert_int_equal(theta0.count, network.theta_count);
    struct graph *graph;
    assert_ok(graph_create(&graph));
    int64_t k = matching->classes, c = matching->channels, h = matching->height, w = matching->width;
    struct node *theta = graph_input(graph, "theta", FLOAT32, SHAPE(theta0.count)), *gradient;
    struct node *m = graph_input(graph, "maps", FLOAT32, SHAPE(k, 2, 3));
    struct node *tints = graph_input(graph, "colour", FLOAT32, SHAPE(k, COLOUR_SIZE));
    struct node *x = graph_input(graph, "real_x", FLOAT32, SHAPE(real.rows, c, h, w));
    struct node *s = graph_input(graph, "syn_x", FLOAT32, SHAPE(synthetic.rows, c, h, w));
    struct node *difference = node_subtract(mean_features(graph, &network, theta, x, m, tints),
                                            mean_features(graph, &network, theta, s, m, tints));
    struct node *loss = node_sum_all(node_square(difference));
    assert_ok(transform_vjp(loss, NULL, &s, 1, &gradient));
    graph_output(graph, "loss", loss);
    graph_output(graph, "dsyn_x", gradient);
    double value, *dx = zeros(synthetic.count);
    const struct binding bindings[] = {{"theta", theta0.values},
                                       {"maps", maps.values},
                                       {"colour", colour.values},
                                       {"real_x", real.values},
                                       {"syn_x", synthetic.values},
                                       {"loss", &value},
                                       {"dsyn_x", dx},
                                       {0}};
    evaluate(graph, bindings);
    expect_array(folder, "expect_loss.npy", &value, 1);
    expect_array(folder, "expect_dsyn_x.npy", dx, synthetic.count);

    struct device *device;
    if (device_open("cpu", &device) < 0) {
        print_message("# no CPU device: not compiled\n");
    } else {
        struct graph *simple;
        assert_ok(transform_simplify(graph, &simple));
        for (enum family family = FAMILY_CPU; family <= FAMILY_GPU; family++) {
            struct library *library;
            assert_ok(library_create(device, family, &library));
            expect_compiled(library, simple, bindings, folder, matching->loss_tolerance, matching->gradient_tolerance);
            library_destroy(library);
        }
        graph_destroy(simple);
        device_close(device);
    }
    graph_destroy(graph);
    double *owned[] = {theta0.values, maps.values, real.values, synthetic.values, colour.values, dx};
    for (size_t i = 0; i < sizeof owned / sizeof owned[0]; i++) free(owned[i]);
}

int main(void) {
    enum { TRAINED = sizeof oracles / sizeof oracles[0], MATCHED = sizeof matchings / sizeof matchings[0] };
    struct CMUnitTest tests[TRAINED + MATCHED];
    for (size_t i = 0; i < TRAINED; i++)
        tests[i] = (struct CMUnitTest){oracles[i].name, test_case, NULL, NULL, (void *)&oracles[i]};
    for (size_t i = 0; i < MATCHED; i++)
        tests[TRAINED + i] = (struct CMUnitTest){matchings[i].name, test_matching, NULL, NULL, (void *)&matchings[i]};
    return cmocka_run_group_tests_name("oracle", tests, NULL, NULL);
}
