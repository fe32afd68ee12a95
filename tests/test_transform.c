/* Derivatives: for every operation, on awkward shapes and three orders deep, forward mode against central differences
 * and reverse mode against forward mode by inner product. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "nn/nn.h"
#include "transform/transform.h"

enum { MOST_VARIABLES = 3, MOST_INPUTS = 64, MOST_OUTPUTS = 64, ORDERS = 3 };

#define FLAT(axis) (1u << (axis))

/* What is differentiated: a function of up to three float variables. */
struct example {
    const char *name;
    struct node *(*build)(struct node **x);
    int variables;
    struct shape shapes[MOST_VARIABLES];
    bool positive; /* variables are drawn from 0.5 to 2 */
};

/* --- the functions --- */

static struct node *build_exp(struct node **x) {
    return node_exp(x[0]);
}
static struct node *build_log(struct node **x) {
    return node_log(x[0]);
}
static struct node *build_sqrt(struct node **x) {
    return node_sqrt(x[0]);
}
static struct node *build_reciprocal(struct node **x) {
    return node_reciprocal(x[0]);
}
static struct node *build_tanh(struct node **x) {
    return node_tanh(x[0]);
}
static struct node *build_erf(struct node **x) {
    return node_erf(x[0]);
}
static struct node *build_sin(struct node **x) {
    return node_sin(x[0]);
}
static struct node *build_cos(struct node **x) {
    return node_cos(x[0]);
}
static struct node *build_add(struct node **x) {
    return node_add(node_sin(x[0]), node_cos(x[1]));
}
static struct node *build_subtract(struct node **x) {
    return node_subtract(node_sin(x[0]), node_cos(x[1]));
}
static struct node *build_negate(struct node **x) {
    return node_negate(node_sin(x[0]));
}
static struct node *build_multiply(struct node **x) {
    return node_multiply(x[0], x[1]);
}
static struct node *build_cube(struct node **x) {
    return node_multiply(x[0], node_square(x[0]));
}
static struct node *build_divide(struct node **x) {
    return node_divide(x[0], x[1]);
}
static struct node *build_divide_by(struct node **x) {
    return node_divide(graph_constant(x[0]->graph, 2, x[0]->shape), x[0]);
}
static struct node *build_max(struct node **x) {
    return node_square(node_max(x[0], node_sin(x[1])));
}
static struct node *build_relu(struct node **x) {
    return node_max(graph_constant(x[0]->graph, 0, x[0]->shape), node_multiply(x[0], x[1]));
}
static struct node *build_select(struct node **x) {
    return node_select(node_compare(x[0], x[1], COMPARE_LESS), node_square(x[0]), node_multiply(x[0], x[1]));
}
static struct node *build_broadcast(struct node **x) {
    return node_multiply_stretched(x[0], x[1]);
}
static struct node *build_reshape(struct node **x) {
    return node_sin(node_reshape(x[0], SHAPE(shape_count(x[0]->shape), 1)));
}
static struct node *build_permute(struct node **x) {
    return node_sin(node_permute(x[0], (int[]){2, 0, 1}));
}
static struct node *build_slice(struct node **x) {
    return node_exp(node_slice(x[0], (int64_t[]){1, 0}, (int64_t[]){1, 2}, SHAPE(2, 3)));
}
static struct node *build_slices(struct node **x) {
    /* Two neighbours, a gap, and two that overlap. */
    struct node *a = node_slice(x[0], (int64_t[]){0}, (int64_t[]){1}, SHAPE(2));
    struct node *b = node_slice(x[0], (int64_t[]){2}, (int64_t[]){1}, SHAPE(2));
    struct node *c = node_slice(x[1], (int64_t[]){1}, (int64_t[]){1}, SHAPE(2));
    struct node *d = node_slice(x[1], (int64_t[]){2}, (int64_t[]){1}, SHAPE(2));
    return node_add(node_multiply(node_sin(a), b), node_multiply(node_exp(c), d));
}
static struct node *build_pad(struct node **x) {
    return node_exp(node_pad(x[0], (int64_t[]){1, 0}, (int64_t[]){1, 2}, SHAPE(4, 7)));
}
static struct node *build_reverse(struct node **x) {
    return node_multiply(x[0], node_reverse(node_sin(x[0]), 5));
}
static struct node *build_concat(struct node **x) {
    return node_sin(node_concat((struct node *[]){x[0], x[1], node_square(x[0]), x[2]}, 4, 1));
}
static struct node *build_average_pool(struct node **x) {
    return node_average_pool(node_exp(x[0]), 2);
}
static struct node *build_average_pool_transpose(struct node **x) {
    return node_sin(node_average_pool_transpose(x[0], 2, 5, 4));
}
static struct node *build_reduce_sum(struct node **x) {
    return node_square(node_reduce_sum(node_sin(x[0]), FLAT(0) | FLAT(2)));
}
static struct node *build_reduce_mean(struct node **x) {
    return node_exp(node_reduce_mean(x[0], FLAT(1)));
}
static struct node *build_sum_all(struct node **x) {
    return node_exp(node_sum_all(node_sin(x[0])));
}
static struct node *build_reduce_max(struct node **x) {
    return node_exp(node_reduce_max(node_sin(x[0]), FLAT(1)));
}
static struct node *build_reduce_max_first(struct node **x) {
    return node_exp(node_reduce_max(x[0], FLAT(0)));
}
static struct node *build_reduce_max_several(struct node **x) {
    return node_exp(node_reduce_max(x[0], FLAT(0) | FLAT(2)));
}
static struct node *build_reduce_max_all(struct node **x) {
    return node_square(node_reduce_max(x[0], FLAT(0) | FLAT(1) | FLAT(2)));
}
static struct node *build_matmul(struct node **x) {
    return node_matmul(x[0], x[1], false, false);
}
static struct node *build_matmul_a(struct node **x) {
    return node_matmul(x[0], x[1], true, false);
}
static struct node *build_matmul_b(struct node **x) {
    return node_matmul(x[0], x[1], false, true);
}
static struct node *build_matmul_ab(struct node **x) {
    return node_matmul(x[0], x[1], true, true);
}
static struct node *build_gram(struct node **x) {
    return node_matmul(x[0], x[0], false, true);
}
static struct node *build_conv(struct node **x) {
    return node_conv(x[0], x[1], 1, 1);
}
static struct node *build_conv_strided(struct node **x) {
    return node_conv(x[0], x[1], 2, 0);
}
static struct node *build_conv_self(struct node **x) {
    return node_conv(x[0], node_sin(x[0]), 1, 2);
}
static struct node *build_conv_data(struct node **x) {
    return node_conv_backward_data(x[0], x[1], 2, 1, 6, 5);
}
static struct node *build_conv_weight(struct node **x) {
    return node_conv_backward_weight(x[0], x[1], 2, 1, 3, 2);
}
/* One node in both places, where a rule must not take the one for the other. */
static struct node *build_conv_weight_self(struct node **x) {
    return node_conv_backward_weight(x[0], x[0], 1, 1, 3, 3);
}
static struct node *row_numbers(struct graph *graph) {
    struct node *iota = graph_iota(graph, SHAPE(4), 0); /* 0 1 2 3 -> 1 3 1 3 */
    struct node *two = graph_constant_int(graph, 2, SHAPE(4)), *one = graph_constant_int(graph, 1, SHAPE(4));
    struct node *high = node_select(node_compare(iota, one, COMPARE_LESS_EQUAL), iota, node_subtract(iota, two));
    return node_add(node_multiply(high, two), one);
}
static struct node *build_gather_rows(struct node **x) {
    return node_gather_rows(node_sin(x[0]), row_numbers(x[0]->graph));
}
static struct node *build_scatter_rows(struct node **x) {
    return node_exp(node_scatter_rows(x[0], row_numbers(x[0]->graph), 5));
}
/* A small turn and shift; the map is a constant even where a variable reaches it. */
static struct node *sampling_map(struct node *x) {
    struct graph *graph = x->graph;
    struct node *rows[2] = {graph_constant(graph, 0.8, SHAPE(x->shape.size[0], 2, 2)),
                            graph_constant(graph, 0.3, SHAPE(x->shape.size[0], 2, 1))};
    return node_concat(rows, 2, 2);
}
static struct node *build_sample(struct node **x) {
    return node_sample(node_sin(x[0]), sampling_map(x[0]));
}
static struct node *build_sample_transpose(struct node **x) {
    return node_exp(node_sample_transpose(x[0], sampling_map(x[0])));
}
/* Every part of the Siamese augmentation at once, for two groups of images. */
static struct node *build_siamese(struct node **x) {
    static const double values[8] = {0.3, 1.6, 0.7, 1, 0.5, 1, 1, 0};
    struct node *column[8], *group[2], *map = sampling_map(x[0]);
    for (int i = 0; i < 8; i++) column[i] = graph_constant(x[0]->graph, values[i], SHAPE(1, 1));
    group[0] = node_concat(column, 8, 1);
    group[1] = node_shift(group[0], 0.25);
    map = node_slice(map, (int64_t[]){0, 0, 0}, (int64_t[]){1, 1, 1}, SHAPE(2, 2, 3));
    return siamese_apply(x[0]->graph, node_sin(x[0]), map, node_concat(group, 2, 0));
}
static struct node *build_cross_entropy(struct node **x) {
    struct node *shifted = node_subtract_stretched(x[0], node_stop_gradient(node_reduce_max(x[0], FLAT(1))));
    struct node *total = node_log(node_reduce_sum(node_exp(shifted), FLAT(1)));
    return node_sum_all(node_multiply(x[1], node_subtract_stretched(shifted, total)));
}
static struct node *build_normalisation(struct node **x) {
    struct node *centred = node_subtract_stretched(x[0], node_reduce_mean(x[0], FLAT(2) | FLAT(3)));
    struct node *variance = node_reduce_mean(node_square(centred), FLAT(2) | FLAT(3));
    struct node *scale = node_reciprocal(node_sqrt(node_shift(variance, 1e-5)));
    return node_multiply_stretched(node_multiply_stretched(centred, scale), x[1]);
}

#define ONE(...)    \
    1, {            \
        __VA_ARGS__ \
    }
#define TWO(...)    \
    2, {            \
        __VA_ARGS__ \
    }
#define THREE(...)  \
    3, {            \
        __VA_ARGS__ \
    }
#define S(...)                           \
    {                                    \
        (int)SHAPE_COUNT(__VA_ARGS__), { \
            __VA_ARGS__                  \
        }                                \
    }
#define SCALAR \
    { 0 }

static const struct example examples[] = {
    {"exp", build_exp, ONE(S(3, 5))},
    {"log", build_log, ONE(S(17)), true},
    {"sqrt", build_sqrt, ONE(S(2, 1, 3)), true},
    {"reciprocal", build_reciprocal, ONE(S(7)), true},
    {"tanh", build_tanh, ONE(SCALAR)},
    {"erf", build_erf, ONE(S(15))},
    {"sin", build_sin, ONE(S(1))},
    {"cos", build_cos, ONE(S(3, 1))},
    {"add", build_add, TWO(S(5), S(5))},
    {"subtract", build_subtract, TWO(S(5), S(5))},
    {"negate", build_negate, ONE(S(5))},
    {"multiply", build_multiply, TWO(S(3, 3), S(3, 3))},
    {"cube", build_cube, ONE(S(6))},
    {"divide", build_divide, TWO(S(7), S(7)), true},
    {"divide a constant", build_divide_by, ONE(S(7)), true},
    {"max", build_max, TWO(S(9), S(9))},
    {"relu", build_relu, TWO(S(3, 3), S(3, 3))},
    {"select", build_select, TWO(S(11), S(11))},
    {"broadcast", build_broadcast, TWO(S(3, 1, 4), S(1, 5, 4))},
    {"broadcast of one", build_broadcast, TWO(S(1, 1, 1), S(2, 1, 3))},
    {"reshape", build_reshape, ONE(S(2, 3, 5))},
    {"reshape of a scalar", build_reshape, ONE(SCALAR)},
    {"permute", build_permute, ONE(S(2, 3, 4))},
    {"permute with ones", build_permute, ONE(S(1, 3, 1))},
    {"slice", build_slice, ONE(S(3, 5))},
    {"slices", build_slices, TWO(S(4), S(5))},
    {"pad", build_pad, ONE(S(2, 3))},
    {"reverse", build_reverse, ONE(S(3, 1, 4))},
    {"concat", build_concat, THREE(S(2, 3), S(2, 1), S(2, 2))},
    {"average_pool", build_average_pool, ONE(S(2, 3, 5, 4))},
    {"average_pool to one", build_average_pool, ONE(S(1, 1, 3, 2))},
    {"average_pool_transpose", build_average_pool_transpose, ONE(S(3, 2, 2))},
    {"reduce_sum", build_reduce_sum, ONE(S(3, 2, 5))},
    {"reduce_sum of ones", build_reduce_sum, ONE(S(1, 2, 1))},
    {"reduce_mean", build_reduce_mean, ONE(S(3, 7))},
    {"sum_all", build_sum_all, ONE(S(3, 2, 2))},
    {"reduce_max", build_reduce_max, ONE(S(4, 7))},
    {"reduce_max over the first", build_reduce_max_first, ONE(S(3, 2, 4))},
    {"reduce_max over several", build_reduce_max_several, ONE(S(3, 2, 5))},
    {"reduce_max over all", build_reduce_max_all, ONE(S(3, 1, 5))},
    {"matmul", build_matmul, TWO(S(3, 5), S(5, 2))},
    {"matmul in batches", build_matmul, TWO(S(2, 3, 5), S(2, 5, 1))},
    {"matmul, a transposed", build_matmul_a, TWO(S(5, 3), S(5, 2))},
    {"matmul, b transposed", build_matmul_b, TWO(S(2, 3, 5), S(2, 2, 5))},
    {"matmul, both transposed", build_matmul_ab, TWO(S(2, 5, 3), S(2, 4, 5))},
    {"matmul with itself", build_gram, ONE(S(3, 4))},
    {"conv", build_conv, TWO(S(2, 3, 4, 5), S(2, 3, 3, 3))},
    {"conv on one pixel", build_conv, TWO(S(1, 1, 1, 1), S(2, 1, 3, 3))},
    {"conv, stride 2", build_conv_strided, TWO(S(1, 2, 6, 5), S(3, 2, 3, 2))},
    {"conv with itself", build_conv_self, ONE(S(2, 2, 3, 3))},
    {"conv_backward_data", build_conv_data, TWO(S(1, 2, 3, 3), S(2, 3, 3, 2))},
    {"conv_backward_weight", build_conv_weight, TWO(S(1, 3, 6, 5), S(1, 2, 3, 3))},
    {"conv_backward_weight with itself", build_conv_weight_self, ONE(S(2, 2, 4, 4))},
    {"gather_rows", build_gather_rows, ONE(S(4, 3))},
    {"scatter_rows", build_scatter_rows, ONE(S(4, 1, 3))},
    {"sample", build_sample, ONE(S(2, 1, 3, 5))},
    {"sample_transpose", build_sample_transpose, ONE(S(1, 2, 4, 3))},
    {"siamese", build_siamese, ONE(S(4, 2, 3, 4))},
    {"cross entropy", build_cross_entropy, TWO(S(3, 4), S(3, 4))},
    {"normalisation", build_normalisation, TWO(S(2, 2, 3, 3), S(1, 2, 1, 1))},
};

/* --- the check --- */

/* One graph under test: named inputs with values, and results. */
struct bench {
    struct graph *graph;
    struct random random;
    int inputs, outputs;
    struct node *input[MOST_INPUTS], *output[MOST_OUTPUTS];
    double *value[MOST_INPUTS];
};

static struct node *bench_input(struct bench *bench, struct shape shape, bool positive) {
    char name[16];
    assert_in_range(bench->inputs, 0, MOST_INPUTS - 1);
    int64_t count = shape_count(shape);
    double *value = bench->value[bench->inputs] = calloc((size_t)count, sizeof *value);
    for (int64_t i = 0; i < count; i++)
        value[i] = positive ? 0.5 + 1.5 * random_uniform(&bench->random) : random_normal(&bench->random);
    snprintf(name, sizeof name, "x%d", bench->inputs);
    return bench->input[bench->inputs++] = graph_input(bench->graph, name, FLOAT32, shape);
}

static int bench_output(struct bench *bench, struct node *node) {
    char name[16];
    assert_in_range(bench->outputs, 0, MOST_OUTPUTS - 1);
    snprintf(name, sizeof name, "y%d", bench->outputs);
    graph_output(bench->graph, name, node);
    assert_ok(graph_status(bench->graph));
    bench->output[bench->outputs] = node;
    return bench->outputs++;
}

/* Values of all results, in one allocation; result i at results[i]. */
static void bench_evaluate(const struct bench *bench, double **results) {
    size_t total = 0;
    for (int i = 0; i < bench->outputs; i++) total += (size_t)shape_count(bench->output[i]->shape);
    results[0] = calloc(total, sizeof **results);
    for (int i = 1; i < bench->outputs; i++) results[i] = results[i - 1] + shape_count(bench->output[i - 1]->shape);
    assert_ok(graph_evaluate(bench->graph, (const double *const *)bench->value, results));
}

static void bench_move(struct bench *bench, const int *inputs, const int *tangents, int count, double step) {
    for (int j = 0; j < count; j++)
        for (int64_t i = 0; i < shape_count(bench->input[inputs[j]]->shape); i++)
            bench->value[inputs[j]][i] += step * bench->value[tangents[j]][i];
}

static double dot(const double *a, const double *b, int64_t count, double *magnitude) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        sum += a[i] * b[i];
        *magnitude += fabs(a[i] * b[i]);
    }
    return sum;
}

/* What one order of derivative put into the bench. */
struct order {
    int functions, first_value, first_tangent_value, first_gradient; /* results */
    int directions[MOST_VARIABLES], cotangents[MOST_VARIABLES];      /* inputs */
};

/* Builds the derivatives of `functions` by the variables; the gradients become the next order's functions. */
static void build_order(struct bench *bench, struct node **x, int variables, struct node **functions, int *count,
                        struct order *order) {
    struct node *direction[MOST_VARIABLES], *tangent[MOST_VARIABLES], *gradient[MOST_VARIABLES], *sum = NULL;
    order->functions = *count;
    for (int j = 0; j < variables; j++) {
        order->directions[j] = bench->inputs;
        direction[j] = bench_input(bench, x[j]->shape, false);
    }
    assert_ok(transform_jvp(functions, *count, x, direction, variables, tangent));
    order->first_value = bench->outputs;
    for (int k = 0; k < *count; k++) bench_output(bench, functions[k]);
    order->first_tangent_value = bench->outputs;
    for (int k = 0; k < *count; k++) bench_output(bench, tangent[k]);
    for (int k = 0; k < *count; k++) {
        order->cotangents[k] = bench->inputs;
        struct node *product =
            node_sum_all(node_multiply(functions[k], bench_input(bench, functions[k]->shape, false)));
        sum = sum ? node_add(sum, product) : product;
    }
    assert_ok(transform_vjp(sum, NULL, x, variables, gradient));
    order->first_gradient = bench->outputs;
    for (int j = 0; j < variables; j++) {
        assert_true(shape_equal(gradient[j]->shape, x[j]->shape));
        bench_output(bench, gradient[j]);
        functions[j] = gradient[j];
    }
    *count = variables;
}

static bool op_seen[OP_COUNT];

static void check_example(const struct example *example) {
    struct bench bench = {.random = random_begin(11, RANDOM_TEST, 0)};
    struct node *x[MOST_VARIABLES], *functions[MOST_VARIABLES];
    struct order orders[ORDERS];
    int place[MOST_VARIABLES] = {0, 1, 2}, count = 1;
    assert_ok(graph_create(&bench.graph));
    for (int j = 0; j < example->variables; j++) x[j] = bench_input(&bench, example->shapes[j], example->positive);
    functions[0] = example->build(x);
    assert_ok(graph_status(bench.graph));
    for (int order = 0; order < ORDERS; order++)
        build_order(&bench, x, example->variables, functions, &count, &orders[order]);
    assert_ok(graph_verify(bench.graph));
    for (int i = 0; i < graph_count(bench.graph); i++) op_seen[graph_node(bench.graph, i)->op] = true;

    double *here[MOST_OUTPUTS], *above[MOST_OUTPUTS], *below[MOST_OUTPUTS];
    bench_evaluate(&bench, here);
    for (int number = 0; number < ORDERS; number++) {
        const struct order *order = &orders[number];
        const double step = 1e-5;
        bench_move(&bench, place, order->directions, example->variables, step);
        bench_evaluate(&bench, above);
        bench_move(&bench, place, order->directions, example->variables, -2 * step);
        bench_evaluate(&bench, below);
        bench_move(&bench, place, order->directions, example->variables, step);
        double forward = 0, reverse = 0, magnitude = 1;
        for (int k = 0; k < order->functions; k++) {
            int value = order->first_value + k, tangent = order->first_tangent_value + k;
            int64_t elements = shape_count(bench.output[value]->shape);
            double scale = 1;
            for (int64_t i = 0; i < elements; i++) scale = fmax(scale, fabs(here[tangent][i]));
            for (int64_t i = 0; i < elements; i++) {
                double difference = (above[value][i] - below[value][i]) / (2 * step);
                if (!(fabs(difference - here[tangent][i]) <= 1e-6 * scale))
                    fail_msg("%s, order %d: tangent %.12g, difference %.12g", example->name, number + 1,
                             here[tangent][i], difference);
            }
            forward += dot(here[tangent], bench.value[order->cotangents[k]], elements, &magnitude);
        }
        for (int j = 0; j < example->variables; j++)
            reverse += dot(here[order->first_gradient + j], bench.value[order->directions[j]], shape_count(x[j]->shape),
                           &magnitude);
        if (!(fabs(forward - reverse) <= 1e-10 * magnitude))
            fail_msg("%s, order %d: forward %.15g, reverse %.15g", example->name, number + 1, forward, reverse);
        free(above[0]);
        free(below[0]);
    }
    free(here[0]);
    for (int i = 0; i < bench.inputs; i++) free(bench.value[i]);
    graph_destroy(bench.graph);
}

static void test_every_operation(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) check_example(&examples[i]);
    for (int op = 0; op < OP_COUNT; op++) {
        bool elsewhere = op == OP_CAST || op == OP_RANDOM || op == OP_EIGH; /* test_constants, test_no_rule */
        if (!op_seen[op] && !elsewhere) fail_msg("no example has the operation %s", op_info((enum op)op)->name);
    }
}

/* --- what has no derivative, or none to speak of --- */

static struct graph *graph;

static int set_up(void **state) {
    (void)state;
    return graph_create(&graph);
}

static int tear_down(void **state) {
    (void)state;
    graph_destroy(graph);
    return 0;
}

static void test_constants(void **state) {
    (void)state;
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(3)), *t = graph_input(graph, "t", FLOAT32, SHAPE(3));
    struct node *seed = node_cast(node_slice(x, (int64_t[]){0}, (int64_t[]){1}, SHAPE(2)), INT32);
    struct node *functions[] = {
        node_stop_gradient(node_exp(x)),
        node_cast(node_cast(x, INT32), FLOAT32),
        node_compare(x, node_sin(x), COMPARE_LESS),
        node_one_hot(node_argmax(x, 0), 3),
        graph_random(seed, RANDOM_NORMAL01, 1, SHAPE(3)),
        graph_input(graph, "other", FLOAT32, SHAPE(3)),
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        struct node *gradient, *tangent;
        assert_ok(transform_vjp(node_sum_all(functions[i]), NULL, &x, 1, &gradient));
        assert_ok(transform_jvp(&functions[i], 1, &x, &t, 1, &tangent));
        assert_int_equal(gradient->op, OP_CONSTANT);
        assert_true(gradient->attributes.value == 0 && shape_equal(gradient->shape, SHAPE(3)));
        assert_int_equal(tangent->op, OP_CONSTANT);
        assert_true(tangent->attributes.value == 0 && shape_equal(tangent->shape, functions[i]->shape));
    }
}

static void test_no_rule(void **state) {
    (void)state;
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(3, 3)), *gradient = NULL, *tangent = NULL;
    struct node *eigen = node_eigh(x), *stopped = node_eigh(node_stop_gradient(x));
    assert_ok(transform_vjp(node_sum_all(stopped), NULL, &x, 1, &gradient));
    assert_ok(transform_jvp(&stopped, 1, &x, &x, 1, &tangent));
    gradient = NULL;
    assert_int_equal(transform_vjp(node_sum_all(eigen), NULL, &x, 1, &gradient), RETORT_EUNSUPPORTED);
    assert_string_equal(retort_error_message(), "operation eigh has no derivative rule");
    assert_null(gradient);
    assert_int_equal(transform_jvp(&eigen, 1, &x, &x, 1, &tangent), RETORT_EUNSUPPORTED);
}

static void test_bad_input(void **state) {
    (void)state;
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(3)), *n = graph_input(graph, "n", INT32, SHAPE(3));
    struct node *y = node_exp(x), *two = graph_constant(graph, 1, SHAPE(2)), *missing = NULL, *out;
    assert_int_equal(transform_vjp(y, NULL, &x, 1, &out), RETORT_EINVAL);
    assert_int_equal(transform_vjp(y, two, &x, 1, &out), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "got [2] for [3]"));
    assert_int_equal(transform_vjp(y, y, &n, 1, &out), RETORT_EINVAL);
    assert_int_equal(transform_vjp(y, y, &missing, 1, &out), RETORT_EINVAL);
    assert_int_equal(transform_vjp(NULL, NULL, &x, 1, &out), RETORT_EINVAL);
    assert_int_equal(transform_jvp(&y, 1, &x, &two, 1, &out), RETORT_EINVAL);
    assert_int_equal(transform_jvp(&missing, 1, &x, &x, 1, &out), RETORT_EINVAL);
    assert_ok(graph_status(graph));
    /* A builder's failure comes through as it was. */
    struct node *broken = node_add(x, two);
    assert_int_equal(transform_vjp(broken, NULL, &x, 1, &out), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "add [3] [2]"));
}

/* Values of one float node at given inputs, in graph order. */
static void values_of(struct node *node, const double *const *inputs, double *values) {
    static int number;
    char name[24];
    double *outputs[16] = {0}, scratch[16][64];
    int place = graph_output_count(node->graph);
    snprintf(name, sizeof name, "value%d", number++);
    graph_output(node->graph, name, node);
    for (int i = 0; i < place; i++) outputs[i] = scratch[i];
    outputs[place] = values;
    assert_ok(graph_evaluate(node->graph, inputs, outputs));
}

static void test_ties_and_kinks(void **state) {
    (void)state;
    const double zeros[4] = {0}, *inputs[] = {zeros};
    double values[4];
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(4)), *zero = graph_constant(graph, 0, SHAPE(4)), *gradient;
    /* The constant comes first and wins: a rectifier's derivative at zero is zero. */
    assert_ok(transform_vjp(node_sum_all(node_max(zero, x)), NULL, &x, 1, &gradient));
    values_of(gradient, inputs, values);
    assert_true(values[0] == 0);
    assert_ok(transform_vjp(node_sum_all(node_max(x, zero)), NULL, &x, 1, &gradient));
    values_of(gradient, inputs, values);
    assert_true(values[0] == 1);
    assert_ok(transform_vjp(node_sum_all(node_reduce_max(x, 1)), NULL, &x, 1, &gradient));
    values_of(gradient, inputs, values);
    assert_true(values[0] == 1 && values[1] == 0 && values[2] == 0 && values[3] == 0);
    assert_ok(transform_vjp(node_sum_all(node_sqrt(x)), NULL, &x, 1, &gradient));
    values_of(gradient, inputs, values);
    assert_true(isinf(values[0]));
}

/* A variable in the middle: what lies before it does not matter, what depends on it through another variable does. */
static void test_inner_variables(void **state) {
    (void)state;
    const double at[1] = {0.7}, *inputs[] = {at};
    double values[1];
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(1)), *y = node_sin(x), *z = node_exp(y);
    struct node *variables[] = {x, y, z}, *gradients[3];
    assert_ok(transform_vjp(z, NULL, variables, 3, gradients));
    values_of(gradients[0], inputs, values);
    assert_true(fabs(values[0] - exp(sin(0.7)) * cos(0.7)) < 1e-15);
    values_of(gradients[1], inputs, values);
    assert_true(fabs(values[0] - exp(sin(0.7))) < 1e-15);
    assert_true(gradients[2]->op == OP_CONSTANT && gradients[2]->attributes.value == 1);
    struct node *tangent, *one = graph_constant(graph, 1, SHAPE(1));
    assert_ok(transform_jvp(&z, 1, &y, &one, 1, &tangent));
    assert_ptr_equal(tangent, z);
}

/* The gradient of a vector read in slices is one join, with zeros where nothing reads it. */
static void test_slices_are_joined(void **state) {
    (void)state;
    struct node *theta = graph_input(graph, "theta", FLOAT32, SHAPE(20)), *gradient;
    struct node *sum = graph_constant(graph, 0, SCALAR_SHAPE);
    const int64_t starts[] = {12, 0, 4}, sizes[] = {6, 4, 5};
    for (int i = 0; i < 3; i++) {
        struct node *slice = node_slice(theta, &starts[i], (int64_t[]){1}, SHAPE(sizes[i]));
        sum = node_add(sum, node_sum_all(node_exp(node_reshape(slice, SHAPE(1, sizes[i])))));
    }
    assert_ok(transform_vjp(sum, NULL, &theta, 1, &gradient));
    assert_int_equal(gradient->op, OP_CONCAT);
    assert_int_equal(gradient->input_count, 5);
    for (int i = 0; i < 5; i++) assert_int_equal(gradient->inputs[i]->op == OP_CONSTANT, i == 2 || i == 4);
}

static void test_simplify(void **state) {
    (void)state;
    const double numbers[3] = {1, 2, 3}, *inputs[] = {numbers, numbers, numbers};
    double before[3], after[3];
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(3));
    struct node *dead = node_exp(graph_input(graph, "unused", FLOAT32, SHAPE(3)));
    struct node *y = node_sin(node_multiply(x, graph_input(graph, "y", FLOAT32, SHAPE(3))));
    for (int i = 0; i < 10; i++) dead = node_exp(dead);
    graph_output(graph, "result", y);
    graph_output(graph, "again", y);
    struct graph *small;
    assert_ok(transform_simplify(graph, &small));
    assert_int_equal(graph_count(small), 5);
    const char *name;
    assert_int_equal(graph_output_count(small), 2);
    assert_ptr_equal(graph_output_at(small, 0, &name), graph_output_at(small, 1, NULL));
    assert_string_equal(name, "result");
    assert_string_equal(graph_node(small, 1)->name, "unused");
    assert_ok(graph_evaluate(graph, inputs, (double *[]){before, before}));
    assert_ok(graph_evaluate(small, inputs, (double *[]){after, after}));
    assert_memory_equal(before, after, sizeof before);
    graph_destroy(small);
    node_add(x, graph_constant(graph, 1, SHAPE(4)));
    small = NULL;
    assert_int_equal(transform_simplify(graph, &small), RETORT_EINVAL);
    assert_null(small);
}

/* --- values handed from one graph to another --- */
static bool is_sine_or_cosine(const struct node *node) {
    return node->op == OP_SIN || node->op == OP_COS;
}

static struct graph *new_graph(void) {
    struct graph *fresh;
    assert_ok(graph_create(&fresh));
    return fresh;
}

/* What both share: sin x, cos(sin x + exp y). The operands of the sum come in either order. */
static struct node *shared_part(struct graph *g, bool exp_first, struct node **sine) {
    struct node *x = graph_input(g, "x", FLOAT32, SHAPE(3)), *y = graph_input(g, "y", FLOAT32, SHAPE(3));
    struct node *e = exp_first ? node_exp(y) : NULL;
    *sine = node_sin(x);
    if (!exp_first) e = node_exp(y);
    return node_cos(node_add(*sine, e));
}

static void evaluate_into(const struct graph *g, const double *const *inputs, double *const *outputs) {
    for (int i = 0; i < graph_output_count(g); i++)
        for (int k = 0; k < 3; k++) outputs[i][k] = NAN;
    assert_ok(graph_evaluate(g, inputs, outputs));
}

static int count_of(const struct graph *g, enum op op) {
    int count = 0;
    for (int i = 0; i < graph_count(g); i++) count += graph_node(g, i)->op == op;
    return count;
}

static void test_keep(void **state) {
    (void)state;
    struct graph *producer = new_graph(), *consumer = new_graph(), *keeping, *reading;
    struct node *sine;
    struct node *cosine = shared_part(producer, false, &sine);
    graph_output(producer, "square", node_square(cosine));
    node_sin(node_tanh(cosine)); /* nothing needs it: the producer does not compute it */
    graph_input(producer, "other", FLOAT32, SHAPE(4));
    node_cos(graph_input(producer, "other", FLOAT32, SHAPE(4)));

    cosine = shared_part(consumer, true, &sine);
    struct node *other = graph_input(consumer, "other", FLOAT32, SHAPE(3));
    struct node *last = node_add(node_sin(node_tanh(cosine)), node_cos(other)); /* the producer has neither */
    graph_output(consumer, "last", last);
    assert_ok(transform_keep(producer, consumer, is_sine_or_cosine, &keeping, &reading));
    /* The sine that only led to the kept cosine is not kept. */
    const char *name;
    assert_int_equal(graph_output_count(keeping), 2);
    assert_int_equal(graph_output_at(keeping, 1, &name)->op, OP_COS);
    assert_string_equal(name, "kept 0");
    assert_true(graph_output_is_opaque(keeping, 1) && !graph_output_is_opaque(keeping, 0));
    assert_int_equal(count_of(keeping, OP_TANH), 0);
    assert_int_equal(count_of(reading, OP_EXP), 0);
    assert_int_equal(count_of(reading, OP_COS), 1);
    assert_int_equal(count_of(reading, OP_SIN), 1);
    /* Inputs stay, needed or not. */
    assert_int_equal(count_of(reading, OP_INPUT), 4);
    const double x[3] = {0.3, -1, 2}, y[3] = {1, 0.5, -2}, z[4] = {3, 1, 4, 1};
    double squares[2][3], kept[3], direct[3], read[3];
    evaluate_into(producer, (const double *[]){x, y, z}, (double *[]){squares[0]});
    evaluate_into(keeping, (const double *[]){x, y, z}, (double *[]){squares[1], kept});
    evaluate_into(consumer, (const double *[]){x, y, z}, (double *[]){direct});
    const double *values[4];
    int count = 0;
    for (int i = 0; i < graph_count(reading); i++) {
        const struct node *node = graph_node(reading, i);
        if (node->op != OP_INPUT) continue;
        assert_true(node->attributes.opaque == (strcmp(node->name, "kept 0") == 0));
        values[count++] = node->attributes.opaque ? kept : *node->name == 'x' ? x : *node->name == 'y' ? y : z;
    }
    evaluate_into(reading, values, (double *[]){read});
    assert_memory_equal(squares[0], squares[1], sizeof squares[0]);
    assert_memory_equal(direct, read, sizeof direct);
    graph_destroy(keeping);
    graph_destroy(reading);

    /* Where the consumer needs the sine too, both are kept, the later one first. */
    graph_output(consumer, "sine", node_exp(sine));
    assert_ok(transform_keep(producer, consumer, is_sine_or_cosine, &keeping, &reading));
    assert_int_equal(graph_output_count(keeping), 3);
    assert_int_equal(graph_output_at(keeping, 1, NULL)->op, OP_COS);
    assert_int_equal(graph_output_at(keeping, 2, NULL)->op, OP_SIN);
    assert_int_equal(count_of(reading, OP_INPUT), 5);
    assert_int_equal(count_of(reading, OP_SIN), 1);
    /* Rebuilt graphs are as opaque. */
    struct graph *again;
    assert_ok(transform_simplify(keeping, &again));
    for (int i = 0; i < 3; i++) assert_int_equal(graph_output_is_opaque(again, i), i > 0);
    graph_destroy(again);
    graph_destroy(keeping);
    graph_destroy(reading);
    keeping = reading = NULL;
    graph_input_opaque(consumer, "x", FLOAT32, SHAPE(3));
    assert_int_equal(transform_keep(producer, consumer, is_sine_or_cosine, &keeping, &reading), RETORT_EINVAL);
    assert_true(!keeping && !reading);
    graph_destroy(producer);
    graph_destroy(consumer);
}

/* --- several times over --- */
static bool is_y(const char *input) {
    return strcmp(input, "y") == 0;
}

static void test_repeat(void **state) {
    (void)state;
    struct graph *once = new_graph(), *repeated;
    struct node *sine;
    struct node *cosine = shared_part(once, false, &sine);
    graph_output(once, "cosine", cosine);
    graph_output(once, "exp", node_exp(graph_input(once, "y", FLOAT32, SHAPE(3))));
    node_tanh(sine); /* nothing needs it */
    assert_ok(transform_repeat(once, 3, is_y, &repeated));
    /* y, three x; what follows from y alone is there once. */
    assert_int_equal(count_of(repeated, OP_INPUT), 4);
    assert_int_equal(count_of(repeated, OP_EXP), 1);
    assert_int_equal(count_of(repeated, OP_COS), 3);
    assert_int_equal(count_of(repeated, OP_TANH), 0);
    assert_int_equal(graph_output_count(repeated), 6);
    const double x[3][3] = {{0.3, -1, 2}, {1, 2, 3}, {-5, 0, 0.1}}, y[3] = {1, 0.5, -2};
    const double *values[4];
    double alone[2][3], together[6][3], *outputs[6];
    for (int i = 0; i < 6; i++) outputs[i] = together[i];
    for (int i = 0, count = 0; i < graph_count(repeated); i++) {
        const struct node *node = graph_node(repeated, i);
        if (node->op == OP_INPUT)
            values[count++] = !strcmp(node->name, "y")      ? y
                              : !strcmp(node->name, "x")    ? x[0]
                              : !strcmp(node->name, "x #1") ? x[1]
                                                            : x[2];
    }
    evaluate_into(repeated, values, outputs);
    for (int copy = 0; copy < 3; copy++) {
        char text[TRANSFORM_NAME];
        const char *name;
        evaluate_into(once, (const double *[]){x[copy], y}, (double *[]){alone[0], alone[1]});
        for (int i = 0; i < 2; i++) {
            graph_output_at(repeated, 2 * copy + i, &name);
            assert_string_equal(name, transform_copy_name(i ? "exp" : "cosine", copy, text));
            assert_memory_equal(together[2 * copy + i], alone[i], sizeof alone[i]);
        }
    }
    graph_destroy(repeated);
    repeated = NULL;
    graph_input_opaque(once, "kept", FLOAT32, SHAPE(3));
    assert_int_equal(transform_repeat(once, 2, is_y, &repeated), RETORT_EUNSUPPORTED);
    assert_null(repeated);
    graph_destroy(once);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_operation),
        TEST(test_constants),
        TEST(test_no_rule),
        TEST(test_bad_input),
        TEST(test_ties_and_kinks),
        TEST(test_inner_variables),
        TEST(test_slices_are_joined),
        TEST(test_simplify),
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_repeat),
    };
    return cmocka_run_group_tests_name("transform", tests, NULL, NULL);
}
