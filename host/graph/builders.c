/* The builder functions: each puts a draft together and lets the graph check, fold and store it. */
#include "graph/private.h"

#include <stdlib.h>

#include "base/error.h"

static struct node *build(struct node *draft) {
    return draft->inputs[0] ? graph_build(draft->inputs[0]->graph, draft) : NULL;
}

/* A draft with one operand, or more. The operand list lives as long as the call's full expression. */
#define OPERANDS(...)                                                                     \
    .input_count = (int)(sizeof((struct node *[]){__VA_ARGS__}) / sizeof(struct node *)), \
    .inputs = (struct node *[]) {                                                         \
        __VA_ARGS__                                                                       \
    }

static void copy_indices(int64_t *to, const int64_t *from, int rank) {
    for (int d = 0; d < rank && d < MAX_RANK; d++) to[d] = from[d];
}

/* --- sources --- */

struct node *graph_constant(struct graph *graph, double value, struct shape shape) {
    return graph_build(graph, &(struct node){.op = OP_CONSTANT, .shape = shape, .attributes = {.value = value}});
}

struct node *graph_constant_int(struct graph *graph, int32_t value, struct shape shape) {
    return graph_build(
        graph, &(struct node){.op = OP_CONSTANT, .dtype = INT32, .shape = shape, .attributes = {.value = value}});
}

struct node *graph_iota(struct graph *graph, struct shape shape, int axis) {
    return graph_build(graph, &(struct node){.op = OP_IOTA, .shape = shape, .attributes = {.axis = axis}});
}

struct node *graph_random(struct node *seed, enum distribution distribution, uint32_t stream, struct shape shape) {
    return build(&(struct node){
        .op = OP_RANDOM, .shape = shape, OPERANDS(seed), .attributes = {.kind = distribution, .stream = stream}});
}

/* --- elementwise --- */

static struct node *unary(enum op op, struct node *x) {
    return build(&(struct node){.op = op, OPERANDS(x)});
}

static struct node *binary(enum op op, struct node *a, struct node *b) {
    return build(&(struct node){.op = op, OPERANDS(a, b)});
}

struct node *node_exp(struct node *x) {
    return unary(OP_EXP, x);
}

struct node *node_log(struct node *x) {
    return unary(OP_LOG, x);
}

struct node *node_sqrt(struct node *x) {
    return unary(OP_SQRT, x);
}

struct node *node_reciprocal(struct node *x) {
    return unary(OP_RECIPROCAL, x);
}

struct node *node_tanh(struct node *x) {
    return unary(OP_TANH, x);
}

struct node *node_erf(struct node *x) {
    return unary(OP_ERF, x);
}

struct node *node_sin(struct node *x) {
    return unary(OP_SIN, x);
}

struct node *node_cos(struct node *x) {
    return unary(OP_COS, x);
}

struct node *node_cast(struct node *x, enum dtype dtype) {
    return build(&(struct node){.op = OP_CAST, .dtype = dtype, OPERANDS(x)});
}

struct node *node_stop_gradient(struct node *x) {
    return unary(OP_STOP_GRADIENT, x);
}

struct node *node_add(struct node *a, struct node *b) {
    return binary(OP_ADD, a, b);
}

struct node *node_subtract(struct node *a, struct node *b) {
    return binary(OP_SUBTRACT, a, b);
}

struct node *node_multiply(struct node *a, struct node *b) {
    return binary(OP_MULTIPLY, a, b);
}

struct node *node_divide(struct node *a, struct node *b) {
    return binary(OP_DIVIDE, a, b);
}

struct node *node_max(struct node *a, struct node *b) {
    return binary(OP_MAX, a, b);
}

struct node *node_compare(struct node *a, struct node *b, enum comparison comparison) {
    return build(&(struct node){.op = OP_COMPARE, OPERANDS(a, b), .attributes = {.kind = comparison}});
}

struct node *node_select(struct node *condition, struct node *a, struct node *b) {
    return build(&(struct node){.op = OP_SELECT, OPERANDS(condition, a, b)});
}

/* `value` in the type and shape of x. */
static struct node *constant_like(struct node *x, double value) {
    return graph_build(
        x->graph,
        &(struct node){.op = OP_CONSTANT, .dtype = x->dtype, .shape = x->shape, .attributes = {.value = value}});
}

struct node *node_negate(struct node *x) {
    return x ? node_subtract(constant_like(x, 0), x) : NULL;
}

struct node *node_square(struct node *x) {
    return node_multiply(x, x);
}

struct node *node_scale(struct node *x, double factor) {
    return x ? node_multiply(x, constant_like(x, factor)) : NULL;
}

struct node *node_shift(struct node *x, double term) {
    return x ? node_add(x, constant_like(x, term)) : NULL;
}

/* a op b, each stretched where it has size 1 and the other has not. */
static struct node *stretched(enum op op, struct node *a, struct node *b) {
    if (!a || !b) return NULL;
    struct shape shape = a->shape;
    if (b->shape.rank == shape.rank)
        for (int d = 0; d < shape.rank; d++)
            if (shape.size[d] == 1) shape.size[d] = b->shape.size[d];
    return binary(op, node_broadcast(a, shape), node_broadcast(b, shape));
}

struct node *node_add_stretched(struct node *a, struct node *b) {
    return stretched(OP_ADD, a, b);
}

struct node *node_subtract_stretched(struct node *a, struct node *b) {
    return stretched(OP_SUBTRACT, a, b);
}

struct node *node_multiply_stretched(struct node *a, struct node *b) {
    return stretched(OP_MULTIPLY, a, b);
}

/* --- index maps --- */

struct node *node_broadcast(struct node *x, struct shape shape) {
    return build(&(struct node){.op = OP_BROADCAST, .shape = shape, OPERANDS(x)});
}

struct node *node_broadcast_scalar(struct node *x, struct shape shape) {
    struct shape ones = {.rank = shape.rank};
    for (int d = 0; d < shape.rank && d < MAX_RANK; d++) ones.size[d] = 1;
    return node_broadcast(node_reshape(x, ones), shape);
}

struct node *node_reshape(struct node *x, struct shape shape) {
    return build(&(struct node){.op = OP_RESHAPE, .shape = shape, OPERANDS(x)});
}

struct node *node_permute(struct node *x, const int *source) {
    struct node draft = {.op = OP_PERMUTE, OPERANDS(x)};
    for (int d = 0; x && d < x->shape.rank; d++) draft.attributes.start[d] = source[d];
    return build(&draft);
}

struct node *node_transpose(struct node *x) {
    if (x && x->shape.rank != 2)
        return graph_fail(x->graph, RETORT_EINVAL, "transpose: the operand must have rank 2, and has %d",
                          x->shape.rank);
    return node_permute(x, (const int[]){1, 0});
}

static struct node *strided(enum op op, struct node *x, const int64_t *start, const int64_t *step, struct shape shape) {
    struct node draft = {.op = op, .shape = shape, OPERANDS(x)};
    copy_indices(draft.attributes.start, start, shape.rank);
    copy_indices(draft.attributes.step, step, shape.rank);
    return build(&draft);
}

struct node *node_slice(struct node *x, const int64_t *start, const int64_t *step, struct shape shape) {
    return strided(OP_SLICE, x, start, step, shape);
}

struct node *node_pad(struct node *x, const int64_t *start, const int64_t *step, struct shape shape) {
    return strided(OP_PAD, x, start, step, shape);
}

struct node *node_reverse(struct node *x, uint32_t axes) {
    return build(&(struct node){.op = OP_REVERSE, OPERANDS(x), .attributes = {.axes = axes}});
}

struct node *node_concat(struct node *const *parts, int count, int axis) {
    struct node *first = NULL;
    for (int i = 0; i < count; i++) {
        if (!parts[i]) return NULL;
        first = parts[0];
    }
    return first ? node_rebuild(
               first->graph, &(struct node){.op = OP_CONCAT, .input_count = count, .attributes = {.axis = axis}}, parts)
                 : NULL;
}

struct node *node_one_hot(struct node *index, int64_t depth) {
    struct node draft = {.op = OP_ONE_HOT, OPERANDS(index)};
    if (index) {
        draft.shape = index->shape;
        if (draft.shape.rank < MAX_RANK) draft.shape.size[draft.shape.rank++] = depth;
    }
    return build(&draft);
}

struct node *node_average_pool(struct node *x, int window) {
    return build(&(struct node){.op = OP_AVERAGE_POOL, OPERANDS(x), .attributes = {.window = window}});
}

struct node *node_average_pool_transpose(struct node *x, int window, int64_t height, int64_t width) {
    struct node draft = {.op = OP_AVERAGE_POOL_TRANSPOSE, OPERANDS(x), .attributes = {.window = window}};
    if (x) draft.shape = x->shape;
    if (draft.shape.rank >= 2) {
        draft.shape.size[draft.shape.rank - 2] = height;
        draft.shape.size[draft.shape.rank - 1] = width;
    }
    return build(&draft);
}

/* --- reductions --- */

struct node *node_reduce_sum(struct node *x, uint32_t axes) {
    return build(&(struct node){.op = OP_REDUCE_SUM, OPERANDS(x), .attributes = {.axes = axes}});
}

struct node *node_reduce_max(struct node *x, uint32_t axes) {
    return build(&(struct node){.op = OP_REDUCE_MAX, OPERANDS(x), .attributes = {.axes = axes}});
}

struct node *node_reduce_mean(struct node *x, uint32_t axes) {
    struct node *sum = node_reduce_sum(x, axes);
    return sum ? node_scale(sum, (double)shape_count(sum->shape) / (double)shape_count(x->shape)) : NULL;
}

struct node *node_sum_all(struct node *x) {
    return x ? node_reshape(node_reduce_sum(x, (1u << x->shape.rank) - 1), SCALAR_SHAPE) : NULL;
}

struct node *node_argmax(struct node *x, int axis) {
    return build(&(struct node){.op = OP_ARGMAX, OPERANDS(x), .attributes = {.axis = axis}});
}

/* --- products --- */

struct node *node_matmul(struct node *a, struct node *b, bool transpose_a, bool transpose_b) {
    return build(&(struct node){
        .op = OP_MATMUL, OPERANDS(a, b), .attributes = {.transpose_a = transpose_a, .transpose_b = transpose_b}});
}

static struct node *convolution(enum op op, struct node *a, struct node *b, int stride, int padding, int64_t height,
                                int64_t width) {
    struct node draft = {.op = op, OPERANDS(a, b), .attributes = {.stride = stride, .padding = padding}};
    /* Numbers and channels follow from the operands. */
    if (op != OP_CONV) draft.shape = (struct shape){.rank = 4, .size = {0, 0, height, width}};
    return build(&draft);
}

struct node *node_conv(struct node *x, struct node *w, int stride, int padding) {
    return convolution(OP_CONV, x, w, stride, padding, 0, 0);
}

struct node *node_conv_backward_data(struct node *y, struct node *w, int stride, int padding, int64_t height,
                                     int64_t width) {
    return convolution(OP_CONV_BACKWARD_DATA, y, w, stride, padding, height, width);
}

struct node *node_conv_backward_weight(struct node *x, struct node *y, int stride, int padding, int64_t kernel_height,
                                       int64_t kernel_width) {
    return convolution(OP_CONV_BACKWARD_WEIGHT, x, y, stride, padding, kernel_height, kernel_width);
}

/* --- rows and images --- */

struct node *node_gather_rows(struct node *x, struct node *rows) {
    return binary(OP_GATHER_ROWS, x, rows);
}

struct node *node_scatter_rows(struct node *y, struct node *rows, int64_t count) {
    return build(&(struct node){.op = OP_SCATTER_ROWS, .shape = {.rank = 1, .size = {count}}, OPERANDS(y, rows)});
}

struct node *node_sample(struct node *image, struct node *map) {
    return binary(OP_SAMPLE, image, map);
}

struct node *node_sample_transpose(struct node *image, struct node *map) {
    return binary(OP_SAMPLE_TRANSPOSE, image, map);
}

struct node *node_eigh(struct node *matrix) {
    return unary(OP_EIGH, matrix);
}
