/* The derivative rules, written with the builders, so that they can be differentiated again. */
#include "transform/rules.h"

#include "base/error.h"

struct node *zeros_like(struct node *x) {
    return graph_constant(x->graph, 0, x->shape);
}

struct node *sum_or_either(struct node *a, struct node *b) {
    return a && b ? node_add(a, b) : a ? a : b;
}

static struct node *or_zeros(struct node *tangent, struct node *like) {
    return tangent ? tangent : zeros_like(like);
}

/* --- one operand, elementwise: both modes multiply by the slope --- */

static struct node *slope(struct node *node) {
    struct node *x = node->inputs[0];
    switch (node->op) {
    case OP_EXP:
        return node;
    case OP_LOG:
        return node_reciprocal(x);
    case OP_SQRT:
        return node_scale(node_reciprocal(node), 0.5);
    case OP_RECIPROCAL:
        return node_negate(node_square(node));
    case OP_TANH:
        return node_shift(node_negate(node_square(node)), 1);
    case OP_ERF:
        return node_scale(node_exp(node_negate(node_square(x))), 1.12837916709551257390); /* 2 / sqrt(pi) */
    case OP_SIN:
        return node_cos(x);
    case OP_COS:
        return node_negate(node_sin(x));
    default:
        return graph_fail(node->graph, RETORT_EUNSUPPORTED, "%s has no slope", op_info(node->op)->name);
    }
}

static struct node *unary_vjp(struct node *node, struct node *g, int operand) {
    (void)operand;
    return node_multiply(g, slope(node));
}

static struct node *unary_jvp(struct node *node, struct node **t) {
    return node_multiply(t[0], slope(node));
}

/* --- linear operations: the tangent goes through the operation itself --- */

/* The operation with one operand replaced. */
static struct node *with_operand(struct node *node, int operand, struct node *replacement) {
    struct node *inputs[2] = {node->inputs[0], node->input_count > 1 ? node->inputs[1] : NULL};
    inputs[operand] = replacement;
    return node_rebuild(node->graph, node, inputs);
}

/* Linear in the first operand; others are row numbers or a map. */
static struct node *linear_jvp(struct node *node, struct node **t) {
    return t[0] ? with_operand(node, 0, t[0]) : NULL;
}

/* Linear in each of two operands. */
static struct node *bilinear_jvp(struct node *node, struct node **t) {
    return sum_or_either(t[0] ? with_operand(node, 0, t[0]) : NULL, t[1] ? with_operand(node, 1, t[1]) : NULL);
}

/* --- two or three operands, elementwise --- */

static struct node *add_vjp(struct node *node, struct node *g, int operand) {
    (void)node, (void)operand;
    return g;
}

static struct node *add_jvp(struct node *node, struct node **t) {
    (void)node;
    return sum_or_either(t[0], t[1]);
}

static struct node *subtract_vjp(struct node *node, struct node *g, int operand) {
    (void)node;
    return operand == 0 ? g : node_negate(g);
}

static struct node *subtract_jvp(struct node *node, struct node **t) {
    (void)node;
    if (!t[1]) return t[0];
    return t[0] ? node_subtract(t[0], t[1]) : node_negate(t[1]);
}

static struct node *multiply_vjp(struct node *node, struct node *g, int operand) {
    return node_multiply(g, node->inputs[1 - operand]);
}

static struct node *divide_vjp(struct node *node, struct node *g, int operand) {
    struct node *share = node_divide(g, node->inputs[1]);
    return operand == 0 ? share : node_negate(node_multiply(share, node));
}

static struct node *divide_jvp(struct node *node, struct node **t) {
    struct node *rest = t[1] ? node_multiply(node, t[1]) : NULL;
    return node_divide(subtract_jvp(node, (struct node *[]){t[0], rest}), node->inputs[1]);
}

/* 1 where the maximum came from its first operand. */
static struct node *max_choice(struct node *node) {
    return node_compare(node->inputs[1], node->inputs[0], COMPARE_LESS_EQUAL);
}

static struct node *max_vjp(struct node *node, struct node *g, int operand) {
    struct node *zeros = zeros_like(g);
    return node_select(max_choice(node), operand == 0 ? g : zeros, operand == 0 ? zeros : g);
}

static struct node *max_jvp(struct node *node, struct node **t) {
    return node_select(max_choice(node), or_zeros(t[0], node), or_zeros(t[1], node));
}

static struct node *select_vjp(struct node *node, struct node *g, int operand) {
    struct node *zeros = zeros_like(g);
    if (operand == 0) return NULL; /* the condition */
    return node_select(node->inputs[0], operand == 1 ? g : zeros, operand == 1 ? zeros : g);
}

static struct node *select_jvp(struct node *node, struct node **t) {
    if (!t[1] && !t[2]) return NULL;
    return node_select(node->inputs[0], or_zeros(t[1], node), or_zeros(t[2], node));
}

/* --- index maps --- */

static struct node *broadcast_vjp(struct node *node, struct node *g, int operand) {
    uint32_t stretched = 0;
    for (int d = 0; d < node->shape.rank; d++)
        if (node->inputs[operand]->shape.size[d] != node->shape.size[d]) stretched |= 1u << d;
    return node_reduce_sum(g, stretched);
}

static struct node *reshape_vjp(struct node *node, struct node *g, int operand) {
    return node_reshape(g, node->inputs[operand]->shape);
}

static struct node *permute_vjp(struct node *node, struct node *g, int operand) {
    (void)operand;
    int inverse[MAX_RANK] = {0};
    for (int d = 0; d < node->shape.rank; d++) inverse[node->attributes.start[d]] = d;
    return node_permute(g, inverse);
}

static struct node *slice_vjp(struct node *node, struct node *g, int operand) {
    return node_pad(g, node->attributes.start, node->attributes.step, node->inputs[operand]->shape);
}

static struct node *pad_vjp(struct node *node, struct node *g, int operand) {
    return node_slice(g, node->attributes.start, node->attributes.step, node->inputs[operand]->shape);
}

static struct node *reverse_vjp(struct node *node, struct node *g, int operand) {
    (void)operand;
    return node_reverse(g, node->attributes.axes);
}

static struct node *concat_vjp(struct node *node, struct node *g, int operand) {
    int64_t start[MAX_RANK] = {0}, step[MAX_RANK] = {1, 1, 1, 1, 1, 1};
    for (int i = 0; i < operand; i++)
        start[node->attributes.axis] += node->inputs[i]->shape.size[node->attributes.axis];
    return node_slice(g, start, step, node->inputs[operand]->shape);
}

static struct node *concat_jvp(struct node *node, struct node **t) {
    for (int i = 0; i < node->input_count; i++) t[i] = or_zeros(t[i], node->inputs[i]);
    return node_rebuild(node->graph, node, t);
}

static struct node *average_pool_vjp(struct node *node, struct node *g, int operand) {
    struct shape shape = node->inputs[operand]->shape;
    return node_average_pool_transpose(g, node->attributes.window, shape.size[shape.rank - 2],
                                       shape.size[shape.rank - 1]);
}

static struct node *average_pool_transpose_vjp(struct node *node, struct node *g, int operand) {
    (void)operand;
    return node_average_pool(g, node->attributes.window);
}

/* --- reductions --- */

static struct node *reduce_sum_vjp(struct node *node, struct node *g, int operand) {
    return node_broadcast(g, node->inputs[operand]->shape);
}

/* 1 where a maximum was found (the first place on ties), 0 elsewhere: the reduced dimensions are brought to the end and
 * taken as one, so that argmax can say where. */
static struct node *reduce_max_choice(struct node *node) {
    struct shape shape = node->inputs[0]->shape, moved = {.rank = shape.rank};
    int source[MAX_RANK], inverse[MAX_RANK], place = 0;
    int64_t reduced = 1;
    for (int last = 0; last < 2; last++)
        for (int d = 0; d < shape.rank; d++) {
            if ((int)(node->attributes.axes >> d & 1) != last) continue;
            if (last) reduced *= shape.size[d];
            moved.size[place] = shape.size[d];
            inverse[d] = place;
            source[place++] = d;
        }
    int64_t rows = shape_count(shape) / reduced;
    struct node *x = node_reshape(node_permute(node->inputs[0], source), SHAPE(rows, reduced));
    struct node *choice = node_one_hot(node_reshape(node_argmax(x, 1), SHAPE(rows)), reduced);
    return node_permute(node_reshape(choice, moved), inverse);
}

static struct node *reduce_max_vjp(struct node *node, struct node *g, int operand) {
    return node_multiply(node_broadcast(g, node->inputs[operand]->shape), reduce_max_choice(node));
}

static struct node *reduce_max_jvp(struct node *node, struct node **t) {
    return node_reduce_sum(node_multiply(t[0], reduce_max_choice(node)), node->attributes.axes);
}

/* --- products --- */

/* With A = a or its transpose, B likewise, Y = A B: the adjoint of A is G B^T, that of B is A^T G. */
static struct node *matmul_vjp(struct node *node, struct node *g, int operand) {
    struct node *a = node->inputs[0], *b = node->inputs[1];
    bool ta = node->attributes.transpose_a, tb = node->attributes.transpose_b;
    if (operand == 0) return ta ? node_matmul(b, g, tb, true) : node_matmul(g, b, false, !tb);
    return tb ? node_matmul(g, a, true, ta) : node_matmul(a, g, !ta, false);
}

/* The convolutions are one trilinear form, sum x w y, with one of the three taken out: the operands are the other two,
 * the cotangent stands for the one taken out, and the adjoint of an operand is the convolution that gives it. */
static struct node *conv_vjp(struct node *node, struct node *g, int operand) {
    static const enum { X, W, Y } roles[3][2] = {{X, W}, {Y, W}, {X, Y}};
    int op = node->op == OP_CONV ? 0 : node->op == OP_CONV_BACKWARD_DATA ? 1 : 2;
    struct node *factors[3] = {g, g, g};
    for (int i = 0; i < 2; i++) factors[roles[op][i]] = node->inputs[i];
    int stride = node->attributes.stride, padding = node->attributes.padding;
    const int64_t *size = node->inputs[operand]->shape.size;
    switch (roles[op][operand]) {
    case X:
        return node_conv_backward_data(factors[Y], factors[W], stride, padding, size[2], size[3]);
    case W:
        return node_conv_backward_weight(factors[X], factors[Y], stride, padding, size[2], size[3]);
    default:
        return node_conv(factors[X], factors[W], stride, padding);
    }
}

/* --- rows and images --- */

static struct node *gather_rows_vjp(struct node *node, struct node *g, int operand) {
    return node_scatter_rows(g, node->inputs[1], node->inputs[operand]->shape.size[0]);
}

static struct node *scatter_rows_vjp(struct node *node, struct node *g, int operand) {
    (void)operand;
    return node_gather_rows(g, node->inputs[1]);
}

static struct node *sample_vjp(struct node *node, struct node *g, int operand) {
    if (operand == 1) return NULL; /* the map */
    return node->op == OP_SAMPLE ? node_sample_transpose(g, node->inputs[1]) : node_sample(g, node->inputs[1]);
}

/* --- the table --- */

#define CONSTANT_RULE \
    { .constant = true }
#define UNARY_RULE \
    { false, unary_vjp, unary_jvp }

static const struct rule table[OP_COUNT] = {
    [OP_INPUT] = CONSTANT_RULE,
    [OP_CONSTANT] = CONSTANT_RULE,
    [OP_IOTA] = CONSTANT_RULE,
    [OP_RANDOM] = CONSTANT_RULE,
    [OP_CAST] = CONSTANT_RULE, /* one side of it is an integer */
    [OP_STOP_GRADIENT] = CONSTANT_RULE,
    [OP_COMPARE] = CONSTANT_RULE,
    [OP_ONE_HOT] = CONSTANT_RULE,
    [OP_ARGMAX] = CONSTANT_RULE,

    [OP_EXP] = UNARY_RULE,
    [OP_LOG] = UNARY_RULE,
    [OP_SQRT] = UNARY_RULE,
    [OP_RECIPROCAL] = UNARY_RULE,
    [OP_TANH] = UNARY_RULE,
    [OP_ERF] = UNARY_RULE,
    [OP_SIN] = UNARY_RULE,
    [OP_COS] = UNARY_RULE,

    [OP_ADD] = {false, add_vjp, add_jvp},
    [OP_SUBTRACT] = {false, subtract_vjp, subtract_jvp},
    [OP_MULTIPLY] = {false, multiply_vjp, bilinear_jvp},
    [OP_DIVIDE] = {false, divide_vjp, divide_jvp},
    [OP_MAX] = {false, max_vjp, max_jvp},
    [OP_SELECT] = {false, select_vjp, select_jvp},

    [OP_BROADCAST] = {false, broadcast_vjp, linear_jvp},
    [OP_RESHAPE] = {false, reshape_vjp, linear_jvp},
    [OP_PERMUTE] = {false, permute_vjp, linear_jvp},
    [OP_SLICE] = {false, slice_vjp, linear_jvp},
    [OP_PAD] = {false, pad_vjp, linear_jvp},
    [OP_REVERSE] = {false, reverse_vjp, linear_jvp},
    [OP_CONCAT] = {false, concat_vjp, concat_jvp},
    [OP_AVERAGE_POOL] = {false, average_pool_vjp, linear_jvp},
    [OP_AVERAGE_POOL_TRANSPOSE] = {false, average_pool_transpose_vjp, linear_jvp},

    [OP_REDUCE_SUM] = {false, reduce_sum_vjp, linear_jvp},
    [OP_REDUCE_MAX] = {false, reduce_max_vjp, reduce_max_jvp},

    [OP_MATMUL] = {false, matmul_vjp, bilinear_jvp},
    [OP_CONV] = {false, conv_vjp, bilinear_jvp},
    [OP_CONV_BACKWARD_DATA] = {false, conv_vjp, bilinear_jvp},
    [OP_CONV_BACKWARD_WEIGHT] = {false, conv_vjp, bilinear_jvp},

    [OP_GATHER_ROWS] = {false, gather_rows_vjp, linear_jvp},
    [OP_SCATTER_ROWS] = {false, scatter_rows_vjp, linear_jvp},
    [OP_SAMPLE] = {false, sample_vjp, linear_jvp},
    [OP_SAMPLE_TRANSPOSE] = {false, sample_vjp, linear_jvp},

    [OP_EIGH] = {0}, /* none: see the header of the graph */
};

const struct rule *rule_of(enum op op) {
    return &table[op];
}
