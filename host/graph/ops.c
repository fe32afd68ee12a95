/* The operation table: name, operands, type and shape rule, reference, cost. */
#include "graph/private.h"

#include <math.h>
#include <string.h>

/* --- type and shape rules --- */

static const char *const equal_operands = "operands must have equal types and shapes";
static const char *const float_operand = "operands must be float32";
static const char *const rank4 = "operands must have rank 4";

static bool is_float(const struct node *x) {
    return x->dtype == FLOAT32;
}

static const char *infer_told(struct node *node) {
    (void)node;
    return NULL;
}

static const char *infer_constant(struct node *node) {
    double value = node->attributes.value;
    if (node->dtype == INT32 && !(value >= INT32_MIN && value <= INT32_MAX && value == trunc(value)))
        return "value is no 32-bit integer";
    return NULL;
}

static const char *infer_iota(struct node *node) {
    int axis = node->attributes.axis;
    node->dtype = INT32;
    if (axis < 0 || axis >= node->shape.rank) return "no such dimension";
    return node->shape.size[axis] > (int64_t)1 << 31 ? "indices exceed 32 bits" : NULL;
}

static const char *infer_random(struct node *node) {
    const struct node *seed = node->inputs[0];
    int kind = node->attributes.kind;
    node->dtype = FLOAT32;
    if (seed->dtype != INT32 || !shape_equal(seed->shape, SHAPE(2))) return "seed must be int32 [2]";
    return kind == RANDOM_UNIFORM01 || kind == RANDOM_NORMAL01 ? NULL : "no such distribution";
}

static const char *infer_any(struct node *node) {
    node->dtype = node->inputs[0]->dtype;
    node->shape = node->inputs[0]->shape;
    return NULL;
}

static const char *infer_unary(struct node *node) {
    infer_any(node);
    return is_float(node->inputs[0]) ? NULL : float_operand;
}

static const char *infer_cast(struct node *node) {
    node->shape = node->inputs[0]->shape;
    return NULL;
}

static const char *infer_binary(struct node *node) {
    const struct node *a = node->inputs[0], *b = node->inputs[1];
    infer_any(node);
    return a->dtype == b->dtype && shape_equal(a->shape, b->shape) ? NULL : equal_operands;
}

static const char *infer_divide(struct node *node) {
    const char *words = infer_binary(node);
    return words ? words : infer_unary(node);
}

static const char *infer_compare(struct node *node) {
    const char *words = infer_binary(node);
    int kind = node->attributes.kind;
    node->dtype = FLOAT32;
    if (kind != COMPARE_LESS && kind != COMPARE_LESS_EQUAL && kind != COMPARE_EQUAL) return "no such comparison";
    return words;
}

static const char *infer_select(struct node *node) {
    const struct node *condition = node->inputs[0], *a = node->inputs[1], *b = node->inputs[2];
    node->dtype = a->dtype;
    node->shape = a->shape;
    if (a->dtype != b->dtype || !shape_equal(a->shape, b->shape)) return equal_operands;
    return shape_equal(condition->shape, a->shape) ? NULL : "the condition must have its operands' shape";
}

static const char *infer_broadcast(struct node *node) {
    struct shape from = node->inputs[0]->shape, to = node->shape;
    node->dtype = node->inputs[0]->dtype;
    if (from.rank != to.rank) return "ranks differ";
    for (int d = 0; d < to.rank; d++)
        if (from.size[d] != to.size[d] && from.size[d] != 1) return "only dimensions of size 1 can be stretched";
    return NULL;
}

static const char *infer_reshape(struct node *node) {
    node->dtype = node->inputs[0]->dtype;
    return shape_count(node->shape) == shape_count(node->inputs[0]->shape) ? NULL : "numbers of elements differ";
}

static const char *infer_permute(struct node *node) {
    struct shape from = node->inputs[0]->shape;
    uint32_t seen = 0;
    infer_any(node);
    for (int d = 0; d < from.rank; d++) {
        int64_t source = node->attributes.start[d];
        if (source < 0 || source >= from.rank || (seen >> source & 1)) return "not a permutation of the dimensions";
        seen |= 1u << source;
        node->shape.size[d] = from.size[source];
    }
    return NULL;
}

/* Whether `count` indices start, start + step, ... lie inside a dimension of size `size`. */
static bool indices_fit(int64_t start, int64_t step, int64_t count, int64_t size) {
    return start >= 0 && start < size && step >= 1 && count >= 1 && count - 1 <= (size - 1 - start) / step;
}

static const char *infer_slice(struct node *node) {
    struct shape from = node->inputs[0]->shape, to = node->shape;
    node->dtype = node->inputs[0]->dtype;
    if (from.rank != to.rank) return "ranks differ";
    for (int d = 0; d < to.rank; d++)
        if (!indices_fit(node->attributes.start[d], node->attributes.step[d], to.size[d], from.size[d]))
            return "the slice leaves its operand";
    return NULL;
}

static const char *infer_pad(struct node *node) {
    struct shape from = node->inputs[0]->shape, to = node->shape;
    node->dtype = node->inputs[0]->dtype;
    if (from.rank != to.rank) return "ranks differ";
    for (int d = 0; d < to.rank; d++)
        if (!indices_fit(node->attributes.start[d], node->attributes.step[d], from.size[d], to.size[d]))
            return "the operand leaves the padded shape";
    return NULL;
}

static const char *infer_reverse(struct node *node) {
    infer_any(node);
    return node->attributes.axes >> node->shape.rank ? "no such dimension" : NULL;
}

static const char *infer_concat(struct node *node) {
    int axis = node->attributes.axis;
    if (node->input_count < 1) return "nothing to join";
    infer_any(node);
    if (axis < 0 || axis >= node->shape.rank) return "no such dimension";
    for (int i = 1; i < node->input_count; i++) {
        const struct node *part = node->inputs[i];
        struct shape expected = node->shape;
        if (part->dtype != node->dtype || part->shape.rank != expected.rank) return "parts differ in type or rank";
        expected.size[axis] = part->shape.size[axis];
        if (!shape_equal(part->shape, expected))
            return "parts differ in another dimension than the one they join along";
        node->shape.size[axis] += part->shape.size[axis];
    }
    return NULL;
}

static const char *infer_one_hot(struct node *node) {
    struct shape index = node->inputs[0]->shape;
    node->dtype = FLOAT32;
    if (node->inputs[0]->dtype != INT32) return "the index must be int32";
    if (index.rank == MAX_RANK || node->shape.rank != index.rank + 1) return "the result must have one more dimension";
    memcpy(node->shape.size, index.size, (size_t)index.rank * sizeof index.size[0]);
    return NULL;
}

static const char *infer_average_pool(struct node *node) {
    struct shape *shape = &node->shape;
    int window = node->attributes.window;
    infer_any(node);
    if (!is_float(node->inputs[0])) return float_operand;
    if (shape->rank < 2) return "the operand must have rank 2 or more";
    if (window < 1) return "the window must be at least 1";
    shape->size[shape->rank - 2] /= window;
    shape->size[shape->rank - 1] /= window;
    return shape_count(*shape) < 1 ? "the window exceeds the image" : NULL;
}

static const char *infer_average_pool_transpose(struct node *node) {
    struct shape from = node->inputs[0]->shape, to = node->shape;
    int window = node->attributes.window, rank = from.rank;
    node->dtype = FLOAT32;
    if (!is_float(node->inputs[0])) return float_operand;
    if (rank < 2 || to.rank != rank) return "ranks differ or are below 2";
    if (window < 1) return "the window must be at least 1";
    for (int d = 0; d < rank; d++)
        if (from.size[d] != (d < rank - 2 ? to.size[d] : to.size[d] / window))
            return "the result's size does not pool to the operand's";
    return NULL;
}

static const char *infer_reduce(struct node *node) {
    uint32_t axes = node->attributes.axes;
    infer_any(node);
    if (!is_float(node->inputs[0])) return float_operand;
    if (axes >> node->shape.rank) return "no such dimension";
    for (int d = 0; d < node->shape.rank; d++)
        if (axes >> d & 1) node->shape.size[d] = 1;
    return NULL;
}

static const char *infer_argmax(struct node *node) {
    int axis = node->attributes.axis;
    infer_any(node);
    node->dtype = INT32;
    if (!is_float(node->inputs[0])) return float_operand;
    if (axis < 0 || axis >= node->shape.rank) return "no such dimension";
    node->shape.size[axis] = 1;
    return NULL;
}

static const char *infer_matmul(struct node *node) {
    struct shape a = node->inputs[0]->shape, b = node->inputs[1]->shape;
    bool ta = node->attributes.transpose_a, tb = node->attributes.transpose_b;
    node->dtype = FLOAT32;
    node->shape = a;
    if (!is_float(node->inputs[0]) || !is_float(node->inputs[1])) return float_operand;
    if (a.rank != b.rank || a.rank < 2 || a.rank > 3) return "operands must both have rank 2, or both rank 3";
    if (a.rank == 3 && a.size[0] != b.size[0]) return "batch sizes differ";
    int row = a.rank - 2, column = a.rank - 1;
    if (a.size[ta ? row : column] != b.size[tb ? column : row]) return "inner sizes differ";
    node->shape.size[row] = a.size[ta ? column : row];
    node->shape.size[column] = b.size[tb ? row : column];
    return NULL;
}

/* Checks x [N,C,H,W], w [O,C,KH,KW] against each other and gives y [N,O,OH,OW]. */
static const char *conv_shape(const struct node *node, struct shape x, struct shape w, struct shape *y) {
    int64_t stride = node->attributes.stride, padding = node->attributes.padding;
    if (x.rank != 4 || w.rank != 4) return rank4;
    if (stride < 1 || padding < 0) return "stride must be at least 1, padding at least 0";
    if (x.size[1] != w.size[1]) return "channels differ";
    if (x.size[2] + 2 * padding < w.size[2] || x.size[3] + 2 * padding < w.size[3])
        return "the kernel exceeds the padded image";
    *y = SHAPE(x.size[0], w.size[0], (x.size[2] + 2 * padding - w.size[2]) / stride + 1,
               (x.size[3] + 2 * padding - w.size[3]) / stride + 1);
    return NULL;
}

static const char *infer_conv(struct node *node) {
    node->dtype = FLOAT32;
    if (!is_float(node->inputs[0]) || !is_float(node->inputs[1])) return float_operand;
    return conv_shape(node, node->inputs[0]->shape, node->inputs[1]->shape, &node->shape);
}

static const char *infer_conv_backward_data(struct node *node) {
    struct shape y = node->inputs[0]->shape, w = node->inputs[1]->shape, forward;
    node->dtype = FLOAT32;
    if (!is_float(node->inputs[0]) || !is_float(node->inputs[1])) return float_operand;
    if (y.rank != 4 || w.rank != 4 || node->shape.rank != 4) return rank4;
    node->shape.size[0] = y.size[0];
    node->shape.size[1] = w.size[1];
    const char *words = conv_shape(node, node->shape, w, &forward);
    if (words) return words;
    return shape_equal(forward, y) ? NULL : "an image of this size does not give such a convolution";
}

static const char *infer_conv_backward_weight(struct node *node) {
    struct shape x = node->inputs[0]->shape, y = node->inputs[1]->shape, forward;
    node->dtype = FLOAT32;
    if (!is_float(node->inputs[0]) || !is_float(node->inputs[1])) return float_operand;
    if (x.rank != 4 || y.rank != 4 || node->shape.rank != 4) return rank4;
    node->shape.size[0] = y.size[1];
    node->shape.size[1] = x.size[1];
    const char *words = conv_shape(node, x, node->shape, &forward);
    if (words) return words;
    return shape_equal(forward, y) ? NULL : "a kernel of this size does not give such a convolution";
}

static const char *infer_gather_rows(struct node *node) {
    const struct node *rows = node->inputs[1];
    infer_any(node);
    if (node->shape.rank < 1) return "the operand must have rows";
    if (rows->dtype != INT32 || rows->shape.rank != 1) return "row numbers must be int32 of rank 1";
    node->shape.size[0] = rows->shape.size[0];
    return NULL;
}

static const char *infer_scatter_rows(struct node *node) {
    const struct node *y = node->inputs[0], *rows = node->inputs[1];
    struct shape shape = y->shape;
    node->dtype = FLOAT32;
    if (!is_float(y)) return float_operand;
    if (shape.rank < 1) return "the operand must have rows";
    if (rows->dtype != INT32 || rows->shape.rank != 1) return "row numbers must be int32 of rank 1";
    if (rows->shape.size[0] != shape.size[0]) return "one row number for each row is needed";
    shape.size[0] = node->shape.size[0];
    node->shape = shape;
    return NULL;
}

static const char *infer_sample(struct node *node) {
    const struct node *image = node->inputs[0], *map = node->inputs[1];
    infer_any(node);
    if (!is_float(image) || !is_float(map)) return float_operand;
    if (image->shape.rank != 4) return "the image must have rank 4";
    return shape_equal(map->shape, SHAPE(image->shape.size[0], 2, 3)) ? NULL : "the map must be [N,2,3]";
}

static const char *infer_eigh(struct node *node) {
    struct shape shape = node->inputs[0]->shape;
    infer_any(node);
    if (!is_float(node->inputs[0])) return float_operand;
    if (shape.rank != 2 || shape.size[0] != shape.size[1]) return "the matrix must be square";
    if (shape.size[0] > 128) return "the matrix must not exceed 128 x 128";
    node->shape.size[0] = shape.size[0] + 1;
    return NULL;
}

/* --- costs --- */

static double cost_none(const struct node *node) {
    (void)node;
    return 0;
}

static double cost_result(const struct node *node) {
    return (double)shape_count(node->shape);
}

static double cost_operand(const struct node *node) {
    return (double)shape_count(node->inputs[0]->shape);
}

static double cost_matmul(const struct node *node) {
    struct shape a = node->inputs[0]->shape;
    int64_t inner = a.size[node->attributes.transpose_a ? a.rank - 2 : a.rank - 1];
    return 2.0 * (double)shape_count(node->shape) * (double)inner;
}

/* The three convolutions cost the same: for each element of y, a multiply-add for each weight of one output channel. */
static double cost_conv(const struct node *node) {
    const struct shape *w, *y;
    switch (node->op) {
    case OP_CONV:
        w = &node->inputs[1]->shape, y = &node->shape;
        break;
    case OP_CONV_BACKWARD_DATA:
        w = &node->inputs[1]->shape, y = &node->inputs[0]->shape;
        break;
    default:
        w = &node->shape, y = &node->inputs[1]->shape;
        break;
    }
    return 2.0 * (double)shape_count(*y) * (double)(w->size[1] * w->size[2] * w->size[3]);
}

static double cost_sample(const struct node *node) {
    return 8.0 * (double)shape_count(node->shape);
}

/* About ten sweeps of k^2 / 2 rotations, each of three rows or columns. */
static double cost_eigh(const struct node *node) {
    double k = (double)node->shape.size[1];
    return 90.0 * k * k * k;
}

/* --- the table --- */

#define SOURCE(rule, function, inputs)    inputs, false, rule, function, cost_none
#define UNARY                             1, true, infer_unary, reference_unary, cost_result
#define BINARY(rule)                      2, true, rule, reference_binary, cost_result
#define INDEX_MAP(rule, function, inputs) inputs, false, rule, function, cost_none

static const struct op_info table[OP_COUNT] = {
    [OP_INPUT] = {"input", SOURCE(infer_told, NULL, 0)},
    [OP_CONSTANT] = {"constant", SOURCE(infer_constant, reference_constant, 0)},
    [OP_IOTA] = {"iota", SOURCE(infer_iota, reference_iota, 0)},
    [OP_RANDOM] = {"random", SOURCE(infer_random, reference_random, 1)},

    [OP_EXP] = {"exp", UNARY},
    [OP_LOG] = {"log", UNARY},
    [OP_SQRT] = {"sqrt", UNARY},
    [OP_RECIPROCAL] = {"reciprocal", UNARY},
    [OP_TANH] = {"tanh", UNARY},
    [OP_ERF] = {"erf", UNARY},
    [OP_SIN] = {"sin", UNARY},
    [OP_COS] = {"cos", UNARY},
    [OP_CAST] = {"cast", 1, true, infer_cast, reference_unary, cost_none},
    [OP_STOP_GRADIENT] = {"stop_gradient", 1, true, infer_any, reference_unary, cost_none},

    [OP_ADD] = {"add", BINARY(infer_binary)},
    [OP_SUBTRACT] = {"subtract", BINARY(infer_binary)},
    [OP_MULTIPLY] = {"multiply", BINARY(infer_binary)},
    [OP_DIVIDE] = {"divide", BINARY(infer_divide)},
    [OP_MAX] = {"max", BINARY(infer_binary)},
    [OP_COMPARE] = {"compare", BINARY(infer_compare)},
    [OP_SELECT] = {"select", 3, true, infer_select, reference_select, cost_result},

    [OP_BROADCAST] = {"broadcast", INDEX_MAP(infer_broadcast, reference_broadcast, 1)},
    [OP_RESHAPE] = {"reshape", INDEX_MAP(infer_reshape, reference_reshape, 1)},
    [OP_PERMUTE] = {"permute", INDEX_MAP(infer_permute, reference_permute, 1)},
    [OP_SLICE] = {"slice", INDEX_MAP(infer_slice, reference_slice, 1)},
    [OP_PAD] = {"pad", INDEX_MAP(infer_pad, reference_pad, 1)},
    [OP_REVERSE] = {"reverse", INDEX_MAP(infer_reverse, reference_reverse, 1)},
    [OP_CONCAT] = {"concat", INDEX_MAP(infer_concat, reference_concat, -1)},
    [OP_ONE_HOT] = {"one_hot", INDEX_MAP(infer_one_hot, reference_one_hot, 1)},
    [OP_AVERAGE_POOL] = {"average_pool", 1, false, infer_average_pool, reference_average_pool, cost_operand},
    [OP_AVERAGE_POOL_TRANSPOSE] = {"average_pool_transpose", 1, false, infer_average_pool_transpose,
                                   reference_average_pool_transpose, cost_operand},

    [OP_REDUCE_SUM] = {"reduce_sum", 1, false, infer_reduce, reference_reduce, cost_operand},
    [OP_REDUCE_MAX] = {"reduce_max", 1, false, infer_reduce, reference_reduce, cost_operand},
    [OP_ARGMAX] = {"argmax", 1, false, infer_argmax, reference_argmax, cost_operand},

    [OP_MATMUL] = {"matmul", 2, false, infer_matmul, reference_matmul, cost_matmul},
    [OP_CONV] = {"conv", 2, false, infer_conv, reference_conv, cost_conv},
    [OP_CONV_BACKWARD_DATA] = {"conv_backward_data", 2, false, infer_conv_backward_data, reference_conv_backward_data,
                               cost_conv},
    [OP_CONV_BACKWARD_WEIGHT] = {"conv_backward_weight", 2, false, infer_conv_backward_weight,
                                 reference_conv_backward_weight, cost_conv},

    [OP_GATHER_ROWS] = {"gather_rows", INDEX_MAP(infer_gather_rows, reference_gather_rows, 2)},
    [OP_SCATTER_ROWS] = {"scatter_rows", 2, false, infer_scatter_rows, reference_scatter_rows, cost_operand},
    [OP_SAMPLE] = {"sample", 2, false, infer_sample, reference_sample, cost_sample},
    [OP_SAMPLE_TRANSPOSE] = {"sample_transpose", 2, false, infer_sample, reference_sample_transpose, cost_sample},
    [OP_EIGH] = {"eigh", 1, false, infer_eigh, reference_eigh, cost_eigh},
};

const struct op_info *op_info(enum op op) {
    return op >= 0 && op < OP_COUNT ? &table[op] : NULL;
}

static const char *const bad_sizes = "sizes must be at least 1, and elements fewer than 2^48";

const char *op_check(struct node *draft) {
    const struct op_info *info = op_info(draft->op);
    if (!info) return "no such operation";
    if (info->inputs >= 0 && draft->input_count != info->inputs) return "wrong number of operands";
    if (draft->dtype != FLOAT32 && draft->dtype != INT32) return "no such type";
    if (draft->shape.rank < 0 || draft->shape.rank > MAX_RANK) return "rank must be 0 to 6";
    /* A size that the rule fills in is still 0. */
    for (int d = 0; d < draft->shape.rank; d++)
        if (draft->shape.size[d] < 0 || draft->shape.size[d] >> 48) return bad_sizes;
    const char *words = info->infer(draft);
    if (words) return words;
    return shape_count(draft->shape) < 1 ? bad_sizes : NULL;
}
