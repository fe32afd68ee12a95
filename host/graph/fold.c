/* Identities: what is not worth a node. Every rule keeps the value up to rounding, taking numbers to be finite
 * (x * 0 is 0). */
#include "graph/private.h"

#include <math.h>
#include <string.h>

bool node_is_constant(const struct node *node, double *value) {
    if (!node || node->op != OP_CONSTANT) return false;
    *value = node->attributes.value;
    return true;
}

static bool is_number(const struct node *node, double number) {
    double value;
    return node_is_constant(node, &value) && value == number;
}

bool node_is_zero(const struct node *node) {
    return is_number(node, 0);
}

/* The draft's type and shape filled with one number. */
static struct node *filled(struct graph *graph, const struct node *draft, double value) {
    return graph_build(
        graph, &(struct node){
                   .op = OP_CONSTANT, .dtype = draft->dtype, .shape = draft->shape, .attributes = {.value = value}});
}

static bool is_negation(const struct node *node) {
    return node->op == OP_SUBTRACT && node_is_zero(node->inputs[0]);
}

/* Elementwise arithmetic on constants: the reference knows the answer. */
static struct node *fold_constants(struct graph *graph, const struct node *draft) {
    double values[3], result;
    const double *operands[3] = {&values[0], &values[1], &values[2]};
    for (int i = 0; i < draft->input_count; i++)
        if (!node_is_constant(draft->inputs[i], &values[i])) return NULL;
    struct node scalar = *draft;
    scalar.shape = SCALAR_SHAPE;
    op_info(draft->op)->reference(&scalar, operands, &result);
    /* Devices differ in what they do when an integer overflows: that is left to them. */
    if (draft->dtype == INT32 && !(result >= INT32_MIN && result <= INT32_MAX)) return NULL;
    return filled(graph, draft, result);
}

static struct node *fold_arithmetic(struct graph *graph, const struct node *draft) {
    struct node *a = draft->inputs[0], *b = draft->inputs[1];
    double inner, outer;
    bool scaled = a->op == OP_MULTIPLY && node_is_constant(a->inputs[1], &inner) && a->dtype == FLOAT32;
    switch (draft->op) {
    case OP_ADD:
        if (node_is_zero(b)) return a;
        if (is_negation(b)) return node_subtract(a, b->inputs[1]);
        if (is_negation(a)) return node_subtract(b, a->inputs[1]);
        return a == b ? node_scale(a, 2) : NULL;
    case OP_SUBTRACT:
        if (node_is_zero(b)) return a;
        if (a == b) return filled(graph, draft, 0);
        if (is_negation(b)) return node_add(a, b->inputs[1]);
        if (!node_is_zero(a)) return NULL;
        if (b->op == OP_SUBTRACT) return node_subtract(b->inputs[1], b->inputs[0]);
        if (b->op == OP_MULTIPLY && node_is_constant(b->inputs[1], &inner) && b->dtype == FLOAT32)
            return node_scale(b->inputs[0], -inner);
        return NULL;
    case OP_MULTIPLY:
        if (!node_is_constant(b, &outer)) return NULL;
        if (outer == 0) return b;
        if (outer == 1) return a;
        if (scaled) return node_scale(a->inputs[0], inner * outer);
        if (is_negation(a) && a->dtype == FLOAT32) return node_scale(a->inputs[1], -outer);
        return NULL;
    case OP_DIVIDE:
        if (node_is_zero(a) || is_number(b, 1)) return a;
        return NULL;
    default:
        return a == b ? a : NULL; /* max */
    }
}

/* Dimensions of `shape` among `axes` that hold more than one element. */
static uint32_t real_axes(struct shape shape, uint32_t axes) {
    for (int d = 0; d < shape.rank; d++)
        if (shape.size[d] == 1) axes &= ~(1u << d);
    return axes;
}

static struct node *fold_reduce(struct graph *graph, const struct node *draft) {
    struct node *x = draft->inputs[0];
    uint32_t axes = real_axes(x->shape, draft->attributes.axes);
    bool sum = draft->op == OP_REDUCE_SUM;
    double value;
    if (!axes) return x;
    if (node_is_constant(x, &value)) {
        double count = (double)shape_count(x->shape) / (double)shape_count(draft->shape);
        return filled(graph, draft, sum ? value * count : value);
    }
    if (axes != draft->attributes.axes) return sum ? node_reduce_sum(x, axes) : node_reduce_max(x, axes);
    /* A factor or a sign is cheaper after the sum. */
    if (sum && x->op == OP_MULTIPLY && node_is_constant(x->inputs[1], &value))
        return node_scale(node_reduce_sum(x->inputs[0], axes), value);
    if (sum && is_negation(x)) return node_negate(node_reduce_sum(x->inputs[1], axes));
    if (x->op != OP_BROADCAST) return NULL;
    /* Dimensions that were stretched and are reduced again: a factor for a sum, nothing for a maximum. */
    struct node *narrow = x->inputs[0];
    double factor = 1;
    for (int d = 0; d < x->shape.rank; d++)
        if (narrow->shape.size[d] != x->shape.size[d] && (axes >> d & 1)) factor *= (double)x->shape.size[d];
    if (factor == 1) return NULL;
    if (!sum) return node_broadcast(node_reduce_max(narrow, axes), draft->shape);
    return node_broadcast(node_scale(node_reduce_sum(narrow, axes), factor), draft->shape);
}

static struct node *fold_permute(const struct node *draft) {
    struct node *x = draft->inputs[0];
    int source[MAX_RANK], previous = -1;
    bool moves = false; /* a dimension that holds more than one element */
    for (int d = 0; d < draft->shape.rank; d++) {
        source[d] = (int)draft->attributes.start[d];
        if (draft->shape.size[d] == 1) continue;
        moves |= source[d] < previous;
        previous = source[d];
    }
    if (!moves) return node_reshape(x, draft->shape);
    if (x->op != OP_PERMUTE) return NULL;
    for (int d = 0; d < draft->shape.rank; d++) source[d] = (int)x->attributes.start[source[d]];
    return node_permute(x->inputs[0], source);
}

static struct node *fold_slice(const struct node *draft) {
    struct node *x = draft->inputs[0];
    const struct attributes *a = &draft->attributes, *b = &x->attributes;
    int rank = draft->shape.rank;
    if (shape_equal(draft->shape, x->shape)) return x;
    int64_t start[MAX_RANK], step[MAX_RANK];
    if (x->op == OP_SLICE) {
        for (int d = 0; d < rank; d++) {
            start[d] = b->start[d] + a->start[d] * b->step[d];
            step[d] = draft->shape.size[d] == 1 ? 1 : a->step[d] * b->step[d];
        }
        return node_slice(x->inputs[0], start, step, draft->shape);
    }
    if (x->op == OP_PAD && shape_equal(draft->shape, x->inputs[0]->shape)
        && memcmp(a->start, b->start, sizeof a->start) == 0 && memcmp(a->step, b->step, sizeof a->step) == 0)
        return x->inputs[0];
    if (x->op == OP_CONCAT) {
        int axis = b->axis;
        int64_t first = a->start[axis], last = first + (draft->shape.size[axis] - 1) * a->step[axis], at = 0;
        for (int i = 0; i < x->input_count; at += x->inputs[i++]->shape.size[axis]) {
            if (first < at || last >= at + x->inputs[i]->shape.size[axis]) continue;
            memcpy(start, a->start, sizeof start);
            start[axis] -= at;
            return node_slice(x->inputs[i], start, a->step, draft->shape);
        }
    }
    return NULL;
}

/* Operations that give zeros for zeros in any of their first `operands` operands. */
static struct node *fold_zeros(struct graph *graph, const struct node *draft, int operands) {
    for (int i = 0; i < operands; i++)
        if (node_is_zero(draft->inputs[i])) return filled(graph, draft, 0);
    return NULL;
}

/* Index maps that give equal elements for equal elements. */
static struct node *fold_uniform(struct graph *graph, const struct node *draft) {
    double value;
    return node_is_constant(draft->inputs[0], &value) ? filled(graph, draft, value) : NULL;
}

struct node *fold(struct graph *graph, const struct node *draft) {
    if (op_info(draft->op)->pointwise) {
        struct node *folded = fold_constants(graph, draft);
        if (folded) return folded;
    }
    struct node *x = draft->input_count ? draft->inputs[0] : NULL, *folded;
    switch (draft->op) {
    case OP_CAST:
        return x->dtype == draft->dtype ? x : NULL;
    case OP_STOP_GRADIENT:
        return x->op == OP_STOP_GRADIENT ? x : NULL;
    case OP_ADD:
    case OP_SUBTRACT:
    case OP_MULTIPLY:
    case OP_DIVIDE:
    case OP_MAX:
        return fold_arithmetic(graph, draft);
    case OP_SELECT:
        if (x->op == OP_CONSTANT) return draft->inputs[node_is_zero(x) ? 2 : 1];
        return draft->inputs[1] == draft->inputs[2] ? draft->inputs[1] : NULL;
    case OP_BROADCAST:
        if ((folded = fold_uniform(graph, draft))) return folded;
        if (shape_equal(x->shape, draft->shape)) return x;
        return x->op == OP_BROADCAST ? node_broadcast(x->inputs[0], draft->shape) : NULL;
    case OP_RESHAPE:
        if ((folded = fold_uniform(graph, draft))) return folded;
        if (shape_equal(x->shape, draft->shape)) return x;
        return x->op == OP_RESHAPE ? node_reshape(x->inputs[0], draft->shape) : NULL;
    case OP_PERMUTE:
        folded = fold_uniform(graph, draft);
        return folded ? folded : fold_permute(draft);
    case OP_SLICE:
        folded = fold_uniform(graph, draft);
        return folded ? folded : fold_slice(draft);
    case OP_PAD:
        return shape_equal(x->shape, draft->shape) ? x : fold_zeros(graph, draft, 1);
    case OP_REVERSE: {
        if ((folded = fold_uniform(graph, draft))) return folded;
        uint32_t axes = real_axes(x->shape, draft->attributes.axes);
        if (x->op == OP_REVERSE) return node_reverse(x->inputs[0], axes ^ x->attributes.axes);
        if (!axes) return x;
        return axes != draft->attributes.axes ? node_reverse(x, axes) : NULL;
    }
    case OP_CONCAT: {
        double value = NAN;
        if (draft->input_count == 1) return x;
        if (!node_is_constant(x, &value)) return NULL;
        for (int i = 1; i < draft->input_count; i++)
            if (!is_number(draft->inputs[i], value)) return NULL;
        return filled(graph, draft, value);
    }
    case OP_AVERAGE_POOL:
        return draft->attributes.window == 1 ? x : fold_uniform(graph, draft);
    case OP_AVERAGE_POOL_TRANSPOSE:
        return draft->attributes.window == 1 ? x : fold_zeros(graph, draft, 1);
    case OP_REDUCE_SUM:
    case OP_REDUCE_MAX:
        return fold_reduce(graph, draft);
    case OP_GATHER_ROWS:
        return fold_uniform(graph, draft);
    case OP_SCATTER_ROWS:
    case OP_SAMPLE:
    case OP_SAMPLE_TRANSPOSE:
        return fold_zeros(graph, draft, 1);
    case OP_MATMUL:
    case OP_CONV:
    case OP_CONV_BACKWARD_DATA:
    case OP_CONV_BACKWARD_WEIGHT:
        return fold_zeros(graph, draft, 2);
    default:
        return NULL;
    }
}
