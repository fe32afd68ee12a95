/* The graph: values of every operation on examples worked out by hand, identities, sharing, refusals, the verifier. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "graph/graph.h"

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

#define LIST(...)    ((const double[]){__VA_ARGS__})
#define INDICES(...) ((const int64_t[]){__VA_ARGS__})

/* Values given to the inputs made by `given`, in graph order. */
static const double *given_values[16];

static struct node *given(enum dtype dtype, struct shape shape, const double *values) {
    char name[16];
    int place = 0;
    for (int i = 0; i < graph_count(graph); i++) place += graph_node(graph, i)->op == OP_INPUT;
    given_values[place] = values;
    snprintf(name, sizeof name, "x%d", place);
    return graph_input(graph, name, dtype, shape);
}

#define FLOATS(shape, ...) given(FLOAT32, shape, LIST(__VA_ARGS__))
#define INTS(shape, ...)   given(INT32, shape, LIST(__VA_ARGS__))

static void expect(struct node *node, struct shape shape, const double *values) {
    char name[16];
    double got[256];
    assert_ok(graph_status(graph));
    assert_non_null(node);
    assert_true(shape_equal(node->shape, shape));
    assert_in_range(shape_count(shape), 1, 256);
    double *outputs[64] = {0}, *scratch = calloc(64 * 256, sizeof *scratch);
    int place = graph_output_count(graph);
    assert_in_range(place, 0, 63);
    snprintf(name, sizeof name, "y%d", place);
    graph_output(graph, name, node);
    for (int i = 0; i < place; i++) outputs[i] = scratch + 256 * i;
    outputs[place] = got;
    assert_ok(graph_verify(graph));
    assert_ok(graph_evaluate(graph, given_values, outputs));
    free(scratch);
    for (int64_t i = 0; i < shape_count(shape); i++)
        if (!(fabs(got[i] - values[i]) <= 1e-12 * (1 + fabs(values[i]))))
            fail_msg("%s: element %d is %.17g, expected %.17g", op_info(node->op)->name, (int)i, got[i], values[i]);
}

static void test_elementwise(void **state) {
    (void)state;
    struct shape s = SHAPE(3);
    struct node *a = FLOATS(s, -1, 0.5, 2), *b = FLOATS(s, 4, 0.5, -2), *p = FLOATS(s, 0.25, 1, 4);
    expect(node_exp(a), s, LIST(exp(-1), exp(0.5), exp(2)));
    expect(node_log(p), s, LIST(log(0.25), 0, log(4)));
    expect(node_sqrt(p), s, LIST(0.5, 1, 2));
    expect(node_reciprocal(p), s, LIST(4, 1, 0.25));
    expect(node_tanh(a), s, LIST(tanh(-1), tanh(0.5), tanh(2)));
    expect(node_erf(a), s, LIST(-0.84270079294971486934, 0.52049987781304653768, 0.99532226501895273416));
    expect(node_sin(a), s, LIST(sin(-1), sin(0.5), sin(2)));
    expect(node_cos(a), s, LIST(cos(-1), cos(0.5), cos(2)));
    expect(node_cast(node_scale(a, 1.9), INT32), s, LIST(-1, 0, 3));
    expect(node_add(a, b), s, LIST(3, 1, 0));
    expect(node_subtract(a, b), s, LIST(-5, 0, 4));
    expect(node_multiply(a, b), s, LIST(-4, 0.25, -4));
    expect(node_divide(a, b), s, LIST(-0.25, 1, -1));
    expect(node_max(a, b), s, LIST(4, 0.5, 2));
    expect(node_compare(a, b, COMPARE_LESS), s, LIST(1, 0, 0));
    expect(node_compare(a, b, COMPARE_LESS_EQUAL), s, LIST(1, 1, 0));
    expect(node_compare(a, b, COMPARE_EQUAL), s, LIST(0, 1, 0));
    expect(node_select(node_compare(a, b, COMPARE_LESS), p, b), s, LIST(0.25, 0.5, -2));
    expect(node_negate(a), s, LIST(1, -0.5, -2));
    expect(node_square(a), s, LIST(1, 0.25, 4));
    expect(node_shift(a, 10), s, LIST(9, 10.5, 12));
    expect(node_add_stretched(FLOATS(SHAPE(2, 1), 1, 2), FLOATS(SHAPE(1, 3), 10, 20, 30)), SHAPE(2, 3),
           LIST(11, 21, 31, 12, 22, 32));
    expect(node_multiply(INTS(SHAPE(2), 3, -4), INTS(SHAPE(2), 5, 6)), SHAPE(2), LIST(15, -24));
}

static void test_index_maps(void **state) {
    (void)state;
    struct node *x = FLOATS(SHAPE(2, 3), 1, 2, 3, 4, 5, 6);
    expect(node_broadcast(FLOATS(SHAPE(2, 1), 8, 9), SHAPE(2, 3)), SHAPE(2, 3), LIST(8, 8, 8, 9, 9, 9));
    expect(node_broadcast_scalar(FLOATS(SCALAR_SHAPE, 7), SHAPE(2, 2)), SHAPE(2, 2), LIST(7, 7, 7, 7));
    expect(node_reshape(x, SHAPE(3, 2)), SHAPE(3, 2), LIST(1, 2, 3, 4, 5, 6));
    expect(node_transpose(x), SHAPE(3, 2), LIST(1, 4, 2, 5, 3, 6));
    struct node *cube = FLOATS(SHAPE(2, 2, 3), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
    expect(node_permute(cube, (int[]){2, 0, 1}), SHAPE(3, 2, 2), LIST(0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11));
    expect(node_slice(x, INDICES(1, 0), INDICES(1, 2), SHAPE(1, 2)), SHAPE(1, 2), LIST(4, 6));
    expect(node_pad(FLOATS(SHAPE(1, 2), 8, 9), INDICES(1, 0), INDICES(1, 2), SHAPE(2, 4)), SHAPE(2, 4),
           LIST(0, 0, 0, 0, 8, 0, 9, 0));
    expect(node_reverse(x, 1), SHAPE(2, 3), LIST(4, 5, 6, 1, 2, 3));
    expect(node_reverse(x, 3), SHAPE(2, 3), LIST(6, 5, 4, 3, 2, 1));
    struct node *column = FLOATS(SHAPE(2, 1), -1, -2);
    expect(node_concat((struct node *[]){x, column, x}, 3, 1), SHAPE(2, 7),
           LIST(1, 2, 3, -1, 1, 2, 3, 4, 5, 6, -2, 4, 5, 6));
    expect(node_one_hot(INTS(SHAPE(3), 1, -1, 2), 3), SHAPE(3, 3), LIST(0, 1, 0, 0, 0, 0, 0, 0, 1));
    expect(graph_iota(graph, SHAPE(2, 3), 1), SHAPE(2, 3), LIST(0, 1, 2, 0, 1, 2));
    expect(graph_iota(graph, SHAPE(2, 3), 0), SHAPE(2, 3), LIST(0, 0, 0, 1, 1, 1));
    expect(graph_constant(graph, 2.5, SHAPE(2)), SHAPE(2), LIST(2.5, 2.5));
    /* Odd sizes: the last row and column are dropped. */
    struct node *image = FLOATS(SHAPE(1, 3, 5), 1, 2, 3, 4, 99, 5, 6, 7, 8, 99, 99, 99, 99, 99, 99);
    expect(node_average_pool(image, 2), SHAPE(1, 1, 2), LIST(3.5, 5.5));
    expect(node_average_pool_transpose(FLOATS(SHAPE(1, 2), 4, 8), 2, 3, 5), SHAPE(3, 5),
           LIST(1, 1, 2, 2, 0, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0));
}

static void test_reductions(void **state) {
    (void)state;
    struct node *x = FLOATS(SHAPE(2, 3), 1, 5, 5, -4, -5, -6);
    expect(node_reduce_sum(x, 1), SHAPE(1, 3), LIST(-3, 0, -1));
    expect(node_reduce_sum(x, 2), SHAPE(2, 1), LIST(11, -15));
    expect(node_reduce_mean(x, 3), SHAPE(1, 1), LIST(-4.0 / 6));
    expect(node_reduce_max(x, 2), SHAPE(2, 1), LIST(5, -4));
    expect(node_reduce_max(x, 3), SHAPE(1, 1), LIST(5));
    expect(node_sum_all(x), SCALAR_SHAPE, LIST(-4));
    expect(node_argmax(x, 1), SHAPE(2, 1), LIST(1, 0));
    expect(node_argmax(x, 0), SHAPE(1, 3), LIST(0, 0, 0));
}

static void test_products(void **state) {
    (void)state;
    struct node *a = FLOATS(SHAPE(2, 3), 1, 2, 3, 4, 5, 6), *b = FLOATS(SHAPE(3, 2), 1, 0, -1, 2, 3, 1);
    const double *product = LIST(8, 7, 17, 16);
    expect(node_matmul(a, b, false, false), SHAPE(2, 2), product);
    expect(node_matmul(node_transpose(a), b, true, false), SHAPE(2, 2), product);
    expect(node_matmul(a, node_transpose(b), false, true), SHAPE(2, 2), product);
    expect(node_matmul(node_transpose(a), node_transpose(b), true, true), SHAPE(2, 2), product);
    expect(node_matmul(FLOATS(SHAPE(2, 1, 2), 1, 2, 3, 4), FLOATS(SHAPE(2, 2, 1), 5, 6, 7, 8), false, false),
           SHAPE(2, 1, 1), LIST(17, 53));
    /* Two channels of 3 x 3, one kernel each of 2 x 2. */
    struct node *x = FLOATS(SHAPE(1, 2, 3, 3), 1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 0, 0, 0, 1, 0, 0, 0, 1);
    struct node *w = FLOATS(SHAPE(1, 2, 2, 2), 1, 0, 0, -1, 2, 0, 0, 1);
    expect(node_conv(x, w, 1, 0), SHAPE(1, 1, 2, 2), LIST(-4 + 3, -4, -4, -4 + 3));
    expect(node_conv(x, w, 2, 1), SHAPE(1, 1, 2, 2), LIST(-1 + 1, -3, -7, 5 - 9 + 2 + 1));
    struct node *y = FLOATS(SHAPE(1, 1, 2, 2), 1, 2, 3, 4);
    expect(node_conv_backward_data(y, w, 1, 0, 3, 3), SHAPE(1, 2, 3, 3),
           LIST(1, 2, 0, 3, 4 - 1, -2, 0, -3, -4, 2, 4, 0, 6, 8 + 1, 2, 0, 3, 4));
    expect(node_conv_backward_weight(x, y, 1, 0, 2, 2), SHAPE(1, 2, 2, 2),
           LIST(1 + 4 + 12 + 20, 2 + 6 + 15 + 24, 4 + 10 + 21 + 32, 5 + 12 + 24 + 36, 1 + 4, 3, 2, 1 + 4));
    /* A strided convolution that ignores the last column: its adjoint gives zeros there. */
    expect(node_conv_backward_data(FLOATS(SHAPE(1, 1, 1, 1), 2), FLOATS(SHAPE(1, 1, 1, 1), 3), 2, 0, 1, 2),
           SHAPE(1, 1, 1, 2), LIST(6, 0));
}

static void test_rows_and_images(void **state) {
    (void)state;
    struct node *x = FLOATS(SHAPE(3, 2), 1, 2, 3, 4, 5, 6), *rows = INTS(SHAPE(4), 2, 0, 2, 7);
    expect(node_gather_rows(x, rows), SHAPE(4, 2), LIST(5, 6, 1, 2, 5, 6, 0, 0));
    expect(node_gather_rows(INTS(SHAPE(3), 7, 8, 9), rows), SHAPE(4), LIST(9, 7, 9, 0));
    expect(node_scatter_rows(FLOATS(SHAPE(4, 1), 1, 2, 3, 4), rows, 3), SHAPE(3, 1), LIST(2, 0, 4));
    struct node *image = FLOATS(SHAPE(1, 1, 2, 3), 1, 2, 3, 4, 5, 6);
    expect(node_sample(image, FLOATS(SHAPE(1, 2, 3), 1, 0, 0, 0, 1, 0)), SHAPE(1, 1, 2, 3), LIST(1, 2, 3, 4, 5, 6));
    /* Half a column to the right: means of neighbours, and half of the last column. */
    struct node *half = FLOATS(SHAPE(1, 2, 3), 1, 0, 0.5, 0, 1, 0);
    expect(node_sample(image, half), SHAPE(1, 1, 2, 3), LIST(1.5, 2.5, 1.5, 4.5, 5.5, 3));
    expect(node_sample_transpose(image, half), SHAPE(1, 1, 2, 3), LIST(0.5, 1.5, 2.5, 2, 4.5, 5.5));
    /* Mirrored. */
    expect(node_sample(image, FLOATS(SHAPE(1, 2, 3), -1, 0, 0, 0, 1, 0)), SHAPE(1, 1, 2, 3), LIST(3, 2, 1, 6, 5, 4));
}

static void test_random(void **state) {
    (void)state;
    uint32_t words[8], key[2] = {5, 0x80000001u};
    for (uint32_t block = 0; block < 2; block++)
        philox4x32((uint32_t[4]){block, 0, 0, 77}, key, words + (size_t)4 * block);
    double uniform[7], normal[7];
    for (int i = 0; i < 7; i++) {
        uniform[i] = (words[i] >> 8) / 16777216.0;
        double radius = sqrt(-2 * log(((words[i & ~1] >> 8) + 1) / 16777216.0));
        double angle = 2 * acos(-1) * (words[i | 1] >> 8) / 16777216.0;
        normal[i] = radius * (i & 1 ? sin(angle) : cos(angle));
    }
    /* The second half of the seed does not fit int32 as a positive number. */
    struct node *seed = INTS(SHAPE(2), 5, -2147483647);
    expect(graph_random(seed, RANDOM_UNIFORM01, 77, SHAPE(7)), SHAPE(7), uniform);
    expect(graph_random(seed, RANDOM_NORMAL01, 77, SHAPE(7)), SHAPE(7), normal);
}

static void test_eigh(void **state) {
    (void)state;
    enum { K = 9 };
    double matrix[K * K], result[(K + 1) * K], *outputs[] = {result};
    const double *inputs[] = {matrix};
    struct random random = random_begin(3, RANDOM_TEST, 0);
    for (int i = 0; i < K; i++)
        for (int j = 0; j <= i; j++) matrix[i * K + j] = matrix[j * K + i] = random_normal(&random);
    graph_output(graph, "eigen", node_eigh(graph_input(graph, "matrix", FLOAT32, SHAPE(K, K))));
    assert_ok(graph_evaluate(graph, inputs, outputs));
    for (int v = 0; v < K; v++) {
        const double *vector = result + (v + 1) * K;
        assert_true(v == 0 || fabs(result[v]) <= fabs(result[v - 1]));
        for (int i = 0; i < K; i++) {
            double product = 0;
            for (int j = 0; j < K; j++) product += matrix[i * K + j] * vector[j];
            assert_true(fabs(product - result[v] * vector[i]) < 1e-13);
        }
        for (int w = 0; w <= v; w++) {
            double product = 0;
            for (int i = 0; i < K; i++) product += vector[i] * result[(w + 1) * K + i];
            assert_true(fabs(product - (v == w)) < 1e-13);
        }
    }
}

static void test_identities(void **state) {
    (void)state;
    struct shape s = SHAPE(2, 3);
    struct node *x = graph_input(graph, "x", FLOAT32, s), *y = graph_input(graph, "y", FLOAT32, s);
    struct node *zero = graph_constant(graph, 0, s), *one = graph_constant(graph, 1, s);
    int64_t origin[2] = {0, 0}, unit[2] = {1, 1};
    assert_ptr_equal(node_add(x, zero), x);
    assert_ptr_equal(node_add(zero, x), x);
    assert_ptr_equal(node_subtract(x, zero), x);
    assert_ptr_equal(node_subtract(x, x), zero);
    assert_ptr_equal(node_multiply(one, x), x);
    assert_ptr_equal(node_multiply(x, zero), zero);
    assert_ptr_equal(node_divide(x, one), x);
    assert_ptr_equal(node_negate(node_negate(x)), x);
    assert_ptr_equal(node_add(x, node_negate(y)), node_subtract(x, y));
    assert_ptr_equal(node_scale(node_scale(x, 4), 0.25), x);
    assert_ptr_equal(node_negate(node_scale(x, 4)), node_scale(x, -4));
    assert_ptr_equal(node_exp(zero), one);
    assert_ptr_equal(node_add(one, one), graph_constant(graph, 2, s));
    assert_ptr_equal(node_select(one, x, y), x);
    assert_ptr_equal(node_select(y, x, x), x);
    assert_ptr_equal(node_cast(x, FLOAT32), x);
    assert_ptr_equal(node_stop_gradient(zero), zero);
    assert_ptr_equal(node_reshape(node_reshape(x, SHAPE(6)), s), x);
    assert_ptr_equal(node_reshape(zero, SHAPE(6)), graph_constant(graph, 0, SHAPE(6)));
    assert_ptr_equal(node_broadcast(x, s), x);
    assert_ptr_equal(node_broadcast(graph_constant(graph, 1, SHAPE(1, 3)), s), one);
    assert_ptr_equal(node_transpose(node_transpose(x)), x);
    assert_ptr_equal(node_permute(x, (int[]){0, 1}), x);
    assert_ptr_equal(node_transpose(node_reshape(x, SHAPE(1, 6))), node_reshape(x, SHAPE(6, 1)));
    assert_ptr_equal(node_slice(x, origin, unit, s), x);
    assert_ptr_equal(node_pad(x, origin, unit, s), x);
    assert_ptr_equal(node_slice(node_pad(x, unit, unit, SHAPE(4, 5)), unit, unit, s), x);
    assert_ptr_equal(node_slice(node_slice(x, INDICES(0, 1), unit, SHAPE(2, 2)), INDICES(1, 1), unit, SHAPE(1, 1)),
                     node_slice(x, INDICES(1, 2), unit, SHAPE(1, 1)));
    struct node *both = node_concat((struct node *[]){x, y}, 2, 0);
    assert_ptr_equal(node_slice(both, INDICES(2, 0), unit, s), y);
    assert_ptr_equal(node_concat(&x, 1, 1), x);
    assert_ptr_equal(node_reverse(node_reverse(x, 3), 3), x);
    assert_ptr_equal(node_reduce_sum(node_reshape(x, SHAPE(6, 1)), 2), node_reshape(x, SHAPE(6, 1)));
    assert_ptr_equal(node_reduce_sum(one, 3), graph_constant(graph, 6, SHAPE(1, 1)));
    struct node *column = graph_input(graph, "column", FLOAT32, SHAPE(2, 1));
    assert_ptr_equal(node_reduce_sum(node_broadcast(column, s), 2), node_scale(column, 3));
    assert_ptr_equal(node_reduce_max(node_broadcast(column, s), 2), column);
    assert_ptr_equal(node_reduce_sum(node_scale(x, 5), 3), node_scale(node_reduce_sum(x, 3), 5));
    assert_ptr_equal(node_reduce_sum(node_negate(x), 1), node_negate(node_reduce_sum(x, 1)));
    assert_ptr_equal(node_matmul(x, zero, false, true), graph_constant(graph, 0, SHAPE(2, 2)));
    assert_ptr_equal(node_average_pool(one, 2), graph_constant(graph, 1, SHAPE(1, 1)));
    /* Integers do not wrap while folding. */
    struct node *big = graph_constant_int(graph, INT32_MAX, SHAPE(1));
    assert_int_equal(node_add(big, graph_constant_int(graph, 1, SHAPE(1)))->op, OP_ADD);
    assert_ptr_equal(node_add(x, x), node_scale(x, 2));
    assert_ok(graph_verify(graph));
}

/* --- identities keep values: programs at random, each step also done by the reference alone, unfolded --- */

enum { POOL = 40, POOL_ELEMENTS = 96, PROGRAM_STEPS = 120 };

struct pool {
    struct random random;
    int count;
    struct node *nodes[POOL];
    double *values[POOL];
};

static int64_t pick(struct pool *pool, int64_t bound) {
    return random_below(&pool->random, (uint32_t)bound);
}

static void pool_add(struct pool *pool, struct node *node, double *values) {
    /* A full pool forgets one of its later members; the first ones are inputs and constants. */
    int place = pool->count < POOL ? pool->count++ : POOL / 2 + (int)pick(pool, POOL / 2);
    free(pool->values[place]);
    pool->nodes[place] = node;
    pool->values[place] = values;
}

/* Another member of the same shape, often itself. */
static int pick_like(struct pool *pool, int member) {
    for (int tries = 0; tries < 10; tries++) {
        int other = (int)pick(pool, pool->count);
        if (shape_equal(pool->nodes[other]->shape, pool->nodes[member]->shape)) return other;
    }
    return member;
}

/* An operation on one member and others of its shape, with attributes that fit. */
static void draft_step(struct pool *pool, int member, struct node *draft, int *operands) {
    static const enum op ops[] = {OP_TANH,       OP_STOP_GRADIENT, OP_CAST,      OP_ADD,    OP_ADD,     OP_SUBTRACT,
                                  OP_SUBTRACT,   OP_MULTIPLY,      OP_MAX,       OP_SELECT, OP_DIVIDE,  OP_BROADCAST,
                                  OP_RESHAPE,    OP_PERMUTE,       OP_SLICE,     OP_PAD,    OP_REVERSE, OP_CONCAT,
                                  OP_REDUCE_SUM, OP_REDUCE_SUM,    OP_REDUCE_MAX};
    struct shape shape = pool->nodes[member]->shape;
    struct attributes *attributes = &draft->attributes;
    draft->op = ops[pick(pool, (int64_t)(sizeof ops / sizeof ops[0]))];
    int count = op_info(draft->op)->inputs, source[MAX_RANK], first = member;
    draft->input_count = count < 0 ? 1 + (int)pick(pool, 3) : count;
    draft->shape = shape;
    for (int i = 0; i < draft->input_count; i++) operands[i] = i == 0 ? first : pick_like(pool, member);
    if (draft->input_count == 2 && pick(pool, 2)) { /* either way round */
        operands[0] = operands[1];
        operands[1] = first;
    }
    switch (draft->op) {
    case OP_SELECT:
        operands[0] = (int)pick(pool, 2) ? member : pick_like(pool, member);
        break;
    case OP_BROADCAST:
        for (int d = 0; d < shape.rank; d++)
            if (shape.size[d] == 1 && pick(pool, 2)) draft->shape.size[d] = 1 + pick(pool, 3);
        break;
    case OP_RESHAPE:
        /* Two dimensions become one, or ones are put in front and behind. */
        if (shape.rank >= 2 && pick(pool, 2)) {
            draft->shape.rank--;
            draft->shape.size[shape.rank - 2] *= shape.size[shape.rank - 1];
        } else if (shape.rank <= 2) {
            draft->shape = (struct shape){.rank = shape.rank + 2, .size = {1, 1, 1, 1}};
            for (int d = 0; d < shape.rank; d++) draft->shape.size[d + 1] = shape.size[d];
        }
        break;
    case OP_PERMUTE:
        for (int d = 0; d < shape.rank; d++) {
            int place = (int)pick(pool, d + 1);
            source[d] = source[place];
            source[place] = d;
        }
        for (int d = 0; d < shape.rank; d++) attributes->start[d] = source[d];
        break;
    case OP_SLICE:
        for (int d = 0; d < shape.rank; d++) {
            attributes->start[d] = pick(pool, shape.size[d]);
            attributes->step[d] = 1 + pick(pool, 2);
            int64_t most = (shape.size[d] - 1 - attributes->start[d]) / attributes->step[d] + 1;
            draft->shape.size[d] = most - (pick(pool, 2) ? pick(pool, most) : 0);
            if (pick(pool, 2)) attributes->start[d] = 0, attributes->step[d] = 1, draft->shape.size[d] = shape.size[d];
        }
        break;
    case OP_PAD:
        for (int d = 0; d < shape.rank; d++) {
            attributes->start[d] = pick(pool, 2);
            attributes->step[d] = 1 + pick(pool, 2);
            draft->shape.size[d] = attributes->start[d] + (shape.size[d] - 1) * attributes->step[d] + 1 + pick(pool, 2);
        }
        break;
    case OP_REVERSE:
    case OP_REDUCE_SUM:
    case OP_REDUCE_MAX:
        attributes->axes = (uint32_t)pick(pool, (int64_t)1 << shape.rank);
        break;
    case OP_CONCAT:
        attributes->axis = (int)pick(pool, shape.rank);
        break;
    default:
        break;
    }
}

static void run_program(uint64_t seed) {
    struct pool pool = {.random = random_begin(seed, RANDOM_TEST, 0)};
    struct graph *program;
    const double *inputs[3];
    const struct shape shapes[] = {SHAPE(2, 3), SHAPE(2, 1, 3), SHAPE(4)};
    const double constants[] = {0, 1, -2};
    assert_ok(graph_create(&program));
    for (int i = 0; i < 3; i++) {
        char name[8];
        double *values = calloc(POOL_ELEMENTS, sizeof *values);
        for (int j = 0; j < POOL_ELEMENTS; j++) values[j] = random_normal(&pool.random);
        snprintf(name, sizeof name, "x%d", i);
        inputs[i] = values;
        pool_add(&pool, graph_input(program, name, FLOAT32, shapes[i]), values);
        for (int k = 0; k < 3; k++) {
            double *same = calloc(POOL_ELEMENTS, sizeof *same);
            for (int j = 0; j < POOL_ELEMENTS; j++) same[j] = constants[k];
            pool_add(&pool, graph_constant(program, constants[k], shapes[i]), same);
        }
    }
    for (int step = 0; step < PROGRAM_STEPS; step++) {
        struct node draft = {0}, *nodes[3];
        int operands[3];
        const double *operand_values[3];
        draft_step(&pool, (int)pick(&pool, pool.count), &draft, operands);
        for (int i = 0; i < draft.input_count; i++) {
            nodes[i] = pool.nodes[operands[i]];
            operand_values[i] = pool.values[operands[i]];
        }
        draft.inputs = nodes;
        const char *words = op_info(draft.op)->infer(&draft);
        if (words || shape_count(draft.shape) > POOL_ELEMENTS || shape_count(draft.shape) < 1) continue;
        double *values = calloc(POOL_ELEMENTS, sizeof *values);
        op_info(draft.op)->reference(&draft, operand_values, values);
        bool tame = true;
        for (int64_t i = 0; i < shape_count(draft.shape); i++) tame &= fabs(values[i]) < 1e3;
        if (!tame) { /* also NaN: x / 0 */
            free(values);
            continue;
        }
        struct node *built = node_rebuild(program, &draft, nodes);
        assert_ok(graph_status(program));
        assert_true(shape_equal(built->shape, draft.shape) && built->dtype == FLOAT32);
        pool_add(&pool, built, values);
    }
    double *outputs[POOL];
    for (int i = 0; i < pool.count; i++) {
        char name[8];
        snprintf(name, sizeof name, "y%d", i);
        graph_output(program, name, pool.nodes[i]);
        outputs[i] = calloc(POOL_ELEMENTS, sizeof *outputs[i]);
    }
    assert_ok(graph_verify(program));
    assert_ok(graph_evaluate(program, inputs, outputs));
    for (int i = 0; i < pool.count; i++) {
        for (int64_t j = 0; j < shape_count(pool.nodes[i]->shape); j++)
            if (!(fabs(outputs[i][j] - pool.values[i][j]) <= 1e-7))
                fail_msg("program %d: member %d (%s), element %d is %.12g, expected %.12g", (int)seed, i,
                         op_info(pool.nodes[i]->op)->name, (int)j, outputs[i][j], pool.values[i][j]);
        free(outputs[i]);
    }
    for (int i = 0; i < pool.count; i++) free(pool.values[i]);
    graph_destroy(program);
}

static void test_identities_keep_values(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 300; seed++) run_program(seed);
}

static void test_sharing(void **state) {
    (void)state;
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(2)), *y = graph_input(graph, "y", FLOAT32, SHAPE(2));
    assert_ptr_not_equal(x, y);
    assert_ptr_equal(graph_input(graph, "x", FLOAT32, SHAPE(2)), x);
    assert_ptr_equal(node_add(x, y), node_add(y, x));
    assert_ptr_not_equal(node_subtract(x, y), node_subtract(y, x));
    assert_ptr_not_equal(node_compare(x, y, COMPARE_LESS), node_compare(x, y, COMPARE_EQUAL));
    assert_ptr_not_equal(graph_constant(graph, 1, SHAPE(2)), graph_constant(graph, 1, SHAPE(3)));
    assert_ptr_not_equal(graph_constant(graph, 1, SHAPE(2)), graph_constant_int(graph, 1, SHAPE(2)));
    struct node *sum = x;
    for (int i = 0; i < 2000; i++) sum = node_sin(node_add(sum, y));
    int count = graph_count(graph);
    sum = x;
    for (int i = 0; i < 2000; i++) sum = node_sin(node_add(sum, y));
    assert_int_equal(graph_count(graph), count);
    assert_ok(graph_verify(graph));
}

/* Builds something wrong in a fresh graph; the message has to contain `words`. */
#define REFUSED(expression, words)                                                                               \
    do {                                                                                                         \
        struct graph *kept = graph;                                                                              \
        assert_ok(graph_create(&graph));                                                                         \
        struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(2, 3));                                          \
        struct node *n = graph_input(graph, "n", INT32, SHAPE(2, 3));                                            \
        struct node *image = graph_input(graph, "image", FLOAT32, SHAPE(2, 3, 4, 4));                            \
        (void)x, (void)n, (void)image;                                                                           \
        assert_null(expression);                                                                                 \
        assert_int_equal(graph_status(graph), RETORT_EINVAL);                                                    \
        if (!strstr(retort_error_message(), words)) fail_msg("%s: \"%s\"", #expression, retort_error_message()); \
        assert_null(node_exp(node_add(NULL, x)));                                                                \
        assert_int_equal(graph_verify(graph), RETORT_EINVAL);                                                    \
        graph_destroy(graph);                                                                                    \
        graph = kept;                                                                                            \
    } while (0)

static void test_refusals(void **state) {
    (void)state;
    int64_t huge = INT64_MAX;
    REFUSED(node_add(x, node_reshape(x, SHAPE(3, 2))), "add [2,3] [3,2]: operands must have equal types and shapes");
    REFUSED(node_add(x, graph_constant(graph, 0, SHAPE(3, 2))), "equal types and shapes");
    REFUSED(node_add(x, n), "equal types");
    REFUSED(node_exp(n), "exp int32 [2,3]: operands must be float32");
    REFUSED(node_divide(n, n), "float32");
    REFUSED(graph_input(graph, "x", INT32, SHAPE(2, 3)), "\"x\" is asked for with two types");
    REFUSED(graph_input(graph, "z", FLOAT32, SHAPE(2, 0)), "sizes must be at least 1");
    REFUSED(graph_input(graph, "z", FLOAT32, SHAPE(2, -3)), "sizes must be at least 1");
    REFUSED(graph_constant(graph, 0, SHAPE(1 << 24, 1 << 24)), "fewer than 2^48");
    REFUSED(graph_constant(graph, 0, SHAPE(huge, huge)), "fewer than 2^48");
    REFUSED(graph_constant(graph, 0, ((struct shape){.rank = 7})), "rank must be 0 to 6");
    REFUSED(graph_constant(graph, 0, ((struct shape){.rank = -1})), "rank must be 0 to 6");
    REFUSED(graph_iota(graph, SHAPE(2), 1), "no such dimension");
    REFUSED(graph_random(n, RANDOM_NORMAL01, 1, SHAPE(2)), "seed must be int32 [2]");
    REFUSED(node_broadcast(x, SHAPE(2, 6)), "only dimensions of size 1");
    REFUSED(node_broadcast(x, SHAPE(2, 2, 3)), "ranks differ");
    REFUSED(node_broadcast_scalar(x, SHAPE(2, 3)), "numbers of elements differ");
    REFUSED(node_add_stretched(x, graph_constant(graph, 1, SHAPE(1, 4))), "only dimensions of size 1");
    REFUSED(node_reshape(x, SHAPE(7)), "numbers of elements differ");
    REFUSED(node_reshape(x, SHAPE(-2, -3)), "sizes must be at least 1");
    REFUSED(node_permute(x, (int[]){0, 0}), "not a permutation");
    REFUSED(node_permute(x, (int[]){0, 40}), "not a permutation");
    REFUSED(node_transpose(image), "must have rank 2, and has 4");
    REFUSED(node_slice(x, INDICES(0, 1), INDICES(1, 2), SHAPE(1, 2)), "the slice leaves its operand");
    REFUSED(node_slice(x, INDICES(0, -1), INDICES(1, 1), SHAPE(1, 1)), "the slice leaves its operand");
    REFUSED(node_slice(x, INDICES(0, 1), INDICES(1, INT64_MAX), SHAPE(1, 2)), "the slice leaves its operand");
    REFUSED(node_pad(x, INDICES(0, 1), INDICES(1, 1), SHAPE(2, 3)), "the operand leaves the padded shape");
    REFUSED(node_reverse(x, 4), "no such dimension");
    REFUSED(node_concat((struct node *[]){x, image}, 2, 0), "differ in type or rank");
    REFUSED(node_concat((struct node *[]){x, graph_constant(graph, 1, SHAPE(2, 4))}, 2, 0), "another dimension");
    REFUSED(node_concat((struct node *[]){x, x}, 2, 2), "no such dimension");
    REFUSED(node_one_hot(x, 3), "the index must be int32");
    REFUSED(node_one_hot(n, 0), "sizes must be at least 1");
    REFUSED(node_average_pool(image, 5), "the window exceeds the image");
    REFUSED(node_average_pool(image, 0), "at least 1");
    REFUSED(node_average_pool_transpose(image, 2, 8, 10), "does not pool");
    REFUSED(node_reduce_sum(x, 4), "no such dimension");
    REFUSED(node_argmax(x, -1), "no such dimension");
    REFUSED(node_matmul(x, x, false, false), "matmul [2,3] [2,3]: inner sizes differ");
    REFUSED(node_matmul(x, image, false, false), "rank 2");
    REFUSED(node_conv(image, graph_constant(graph, 1, SHAPE(2, 4, 3, 3)), 1, 1), "channels differ");
    REFUSED(node_conv(image, graph_constant(graph, 1, SHAPE(2, 3, 7, 7)), 1, 1), "exceeds the padded image");
    REFUSED(node_conv(image, graph_constant(graph, 1, SHAPE(2, 3, 3, 3)), 0, 1), "stride must be at least 1");
    REFUSED(node_conv_backward_data(image, graph_constant(graph, 1, SHAPE(3, 3, 3, 3)), 1, 1, 5, 4), "of this size");
    REFUSED(node_conv_backward_data(image, graph_constant(graph, 1, SHAPE(3, 3, 3, 3)), 1, 1, huge, huge), "sizes");
    REFUSED(node_conv_backward_weight(image, image, 1, 1, 5, 3), "of this size");
    REFUSED(node_conv_backward_weight(image, image, 1, 1, INT64_MIN, 3), "sizes");
    REFUSED(node_gather_rows(x, x), "row numbers must be int32");
    REFUSED(node_scatter_rows(x, graph_constant_int(graph, 0, SHAPE(3)), 9), "one row number for each row");
    REFUSED(node_sample(image, x), "the map must be [N,2,3]");
    REFUSED(node_eigh(x), "square");
    REFUSED(node_eigh(graph_constant(graph, 1, SHAPE(129, 129))), "128");
}

static void test_failures_stay(void **state) {
    (void)state;
    graph_output(graph, "nothing", NULL);
    assert_int_equal(graph_status(graph), RETORT_EINVAL);
    assert_string_equal(retort_error_message(), "graph output \"nothing\" is no node");
    assert_null(graph_fail(graph, RETORT_EUNSUPPORTED, "later"));
    error_clear();
    assert_int_equal(graph_status(graph), RETORT_EINVAL);
    assert_string_equal(retort_error_message(), "graph output \"nothing\" is no node");
    assert_int_equal(graph_evaluate(graph, NULL, NULL), RETORT_EINVAL);
}

static void test_two_graphs(void **state) {
    (void)state;
    struct graph *other;
    assert_ok(graph_create(&other));
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(2)), *y = graph_input(other, "y", FLOAT32, SHAPE(2));
    assert_null(node_add(x, y));
    assert_int_equal(graph_status(graph), RETORT_EINVAL);
    graph_output(other, "x", x);
    assert_int_equal(graph_status(other), RETORT_EINVAL);
    graph_destroy(other);
}

/* The verifier sees each way of breaking a node, and the graph is fine again when the node is mended. */
static void test_verifier(void **state) {
    (void)state;
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(2, 3)), *sum = node_reduce_sum(x, 2);
    struct node *difference = node_subtract(node_sin(x), x);
    graph_output(graph, "sum", sum);
    assert_ok(graph_verify(graph));
#define BROKEN(place, value)                                  \
    do {                                                      \
        __typeof__(place) kept = place;                       \
        place = value;                                        \
        assert_int_equal(graph_verify(graph), RETORT_EINVAL); \
        place = kept;                                         \
        assert_ok(graph_verify(graph));                       \
    } while (0)
    BROKEN(sum->shape.size[0], 3);
    BROKEN(sum->shape.rank, 9);
    BROKEN(sum->dtype, INT32);
    BROKEN(sum->attributes.axes, 8);
    BROKEN(sum->attributes.axes, 1);
    BROKEN(sum->index, 0);
    BROKEN(sum->graph, NULL);
    BROKEN(sum->name, "sum");
    BROKEN(sum->op, OP_COUNT);
    BROKEN(sum->op, OP_ADD);
    BROKEN(sum->inputs[0], sum);
    BROKEN(sum->inputs[0], NULL);
    BROKEN(sum->inputs[0], difference);
    BROKEN(difference->inputs[1], sum);
    BROKEN(difference->input_count, 1);
    BROKEN(x->name, NULL);
}

static void test_printer(void **state) {
    (void)state;
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(2, 3));
    struct node *y = node_reduce_max(node_scale(x, 0.5), 2);
    graph_output(graph, "best", y);
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    graph_print(graph, stream);
    fclose(stream);
    assert_string_equal(text, "%0 = input [2,3] \"x\"\n"
                              "%1 = constant [2,3] 0.5\n"
                              "%2 = multiply [2,3] %0 %1\n"
                              "%3 = reduce_max [2,1] %2 axes=1\n"
                              "output \"best\" = %3\n");
    free(text);
}

static void test_costs(void **state) {
    (void)state;
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(2, 3, 8, 8));
    struct node *w = graph_input(graph, "w", FLOAT32, SHAPE(5, 3, 3, 3)), *y = node_conv(x, w, 1, 1);
    double expected = 2.0 * 2 * 5 * 8 * 8 * 3 * 9;
    assert_true(op_info(OP_CONV)->cost(y) == expected);
    assert_true(op_info(OP_CONV)->cost(node_conv_backward_data(y, w, 1, 1, 8, 8)) == expected);
    assert_true(op_info(OP_CONV)->cost(node_conv_backward_weight(x, y, 1, 1, 3, 3)) == expected);
    struct node *a = graph_input(graph, "a", FLOAT32, SHAPE(4, 2)), *b = graph_input(graph, "b", FLOAT32, SHAPE(4, 3));
    assert_true(op_info(OP_MATMUL)->cost(node_matmul(a, b, true, false)) == 2.0 * 2 * 3 * 4);
}

/* Nodes are found by operation, attributes and operands, sums in either order; nothing is built. */
static void test_finding(void **state) {
    (void)state;
    struct graph *other;
    assert_ok(graph_create(&other));
    struct node *their_x = graph_input(other, "x", FLOAT32, SHAPE(2, 3));
    assert_null(node_find(graph, their_x, NULL)); /* an empty graph */
    struct node *y = graph_input(graph, "y", FLOAT32, SHAPE(2, 3)), *x = graph_input(graph, "x", FLOAT32, SHAPE(2, 3));
    struct node *sum = node_add(x, y), *total = node_reduce_sum(sum, 1u << 1);
    int count = graph_count(graph);
    struct node *their_y = graph_input(other, "y", FLOAT32, SHAPE(2, 3)), *their_sum = node_add(their_x, their_y);
    assert_ptr_equal(node_find(graph, their_x, NULL), x);
    assert_ptr_equal(node_find(graph, their_y, NULL), y);
    assert_ptr_equal(node_find(graph, their_sum, (struct node *[]){x, y}), sum);
    assert_ptr_equal(node_find(graph, their_sum, (struct node *[]){y, x}), sum);
    assert_null(node_find(graph, their_sum, (struct node *[]){x, x}));
    assert_null(node_find(graph, node_multiply(their_x, their_y), (struct node *[]){x, y}));
    assert_ptr_equal(node_find(graph, node_reduce_sum(their_sum, 1u << 1), &sum), total);
    assert_null(node_find(graph, node_reduce_sum(their_sum, 1u << 0), &sum));
    assert_null(node_find(graph, graph_input(other, "z", FLOAT32, SHAPE(2, 3)), NULL));
    assert_null(node_find(graph, graph_input_opaque(other, "o", FLOAT32, SHAPE(2, 3)), NULL));
    assert_int_equal(graph_count(graph), count);
    graph_destroy(other);
}

/* Whatever attribute differs, at the largest rank too, the nodes are two. */
static void test_every_attribute_tells(void **state) {
    (void)state;
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(2, 3, 4, 5, 6, 7));
    const int64_t start[] = {1, 2, 3, 4, 5, 6}, step[] = {1, 2, 1, 2, 1, 2};
    struct node *pad = node_pad(x, start, step, SHAPE(20, 20, 20, 20, 20, 20));
    assert_non_null(pad);
    assert_ptr_equal(node_find(graph, pad, &x), pad);
    for (size_t i = 0; i < sizeof(struct attributes); i++) {
        struct node other = *pad;
        ((unsigned char *)&other.attributes)[i] ^= 1;
        assert_null(node_find(graph, &other, &x));
    }
    for (int d = 0; d < MAX_RANK; d++) {
        struct node other = *pad;
        other.shape.size[d]++;
        assert_null(node_find(graph, &other, &x));
    }
}

/* What is opaque stays so in copies, and is no plain input. */
static void test_opaque(void **state) {
    (void)state;
    struct graph *copy;
    assert_ok(graph_create(&copy));
    struct node *x = graph_input_opaque(graph, "x", FLOAT32, SHAPE(2));
    assert_ptr_equal(graph_input_opaque(graph, "x", FLOAT32, SHAPE(2)), x);
    graph_output_opaque(graph, "result", x);
    graph_output(graph, "again", x);
    assert_true(graph_output_is_opaque(graph, 0) && !graph_output_is_opaque(graph, 1));
    assert_false(graph_output_is_opaque(graph, 2));
    struct node *rebuilt = node_rebuild(copy, x, NULL);
    assert_true(rebuilt->attributes.opaque);
    for (int i = 0; i < 2; i++) graph_output_copy(copy, graph, i, rebuilt);
    const char *name;
    graph_output_at(copy, 0, &name);
    assert_string_equal(name, "result");
    assert_true(graph_output_is_opaque(copy, 0) && !graph_output_is_opaque(copy, 1));
    assert_ok(graph_verify(copy));
    graph_destroy(copy);
    assert_null(graph_input(graph, "x", FLOAT32, SHAPE(2)));
    assert_int_equal(graph_status(graph), RETORT_EINVAL);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_elementwise),
        TEST(test_index_maps),
        TEST(test_reductions),
        TEST(test_products),
        TEST(test_rows_and_images),
        TEST(test_random),
        TEST(test_eigh),
        TEST(test_identities),
        cmocka_unit_test(test_identities_keep_values),
        TEST(test_sharing),
        TEST(test_refusals),
        TEST(test_failures_stay),
        TEST(test_two_graphs),
        TEST(test_verifier),
        TEST(test_printer),
        TEST(test_costs),
        TEST(test_finding),
        TEST(test_opaque),
        TEST(test_every_attribute_tells),
    };
    return cmocka_run_group_tests_name("graph", tests, NULL, NULL);
}
