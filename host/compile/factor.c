/* Factors that are the same all over a row: moved out of products, choices and sums, where they cost a multiplication
 * for every element, to where they cost one for every row.
 *
 *     (x s) (y t)              ->  (x y) (s t)
 *     (x s + y t) r            ->  x (s r) + y (t r)          where it is added to something
 *     select(c, x s, 0)        ->  select(c, x, 0) s
 *     sum(x s)                 ->  sum(x) s
 *     sum(x s + y t)           ->  sum(x) s + sum(y) t        likewise where products and choices stand round the sum
 *
 * s and t are stretched along the whole row (the plane of [N,C,H,W]). The last rule matters most: in the derivatives of
 * norms s and t depend on sums over the same row, so that sum(x s + y t) could only be taken in a further pass over it,
 * while sum(x) and sum(y) join an earlier one, or turn out to be there already. A difference x - t is never taken
 * apart: it is more exact where t is the mean of x. */
#include "compile/prepare.h"

#include "base/error.h"
#include "base/memory.h"

#include <math.h>

#define TERMS_MAX 8
#define DEPTH_MAX 12

/* scale * factor * rest. */
struct term {
    double scale;
    struct node *factor; /* of size 1 along the row; NULL: 1 */
    struct node *rest;   /* whole rows; NULL: 1 */
};

struct sum {
    struct term terms[TERMS_MAX];
    int count;
    bool factored; /* some term has a factor that depends on the row */
};

static bool is_constant(const struct node *node, double *value) {
    if (!node || node->op != OP_CONSTANT) return false;
    *value = node->attributes.value;
    return true;
}

static bool is_zero(const struct node *node) {
    double value;
    return is_constant(node, &value) && value == 0;
}

static uint32_t row_axes(const struct shape *shape) {
    uint32_t axes = 0;
    for (int d = 2; d < shape->rank; d++) axes |= 1u << d;
    return axes;
}

static bool is_stretched(const struct node *node) {
    if (node->op != OP_BROADCAST || node->shape.rank < 4) return false;
    for (int d = 2; d < node->shape.rank; d++)
        if (node->inputs[0]->shape.size[d] != 1) return false;
    return true;
}

static struct node *product(struct node *a, struct node *b) {
    if (!a || !b) return a ? a : b;
    return shape_equal(a->shape, b->shape) ? node_multiply(a, b) : node_multiply_stretched(a, b);
}

/* Takes the outermost factors off a node. In a graph rebuilt by these rules there are no others. */
static struct term split(struct node *node) {
    struct term term = {.scale = 1, .rest = node};
    double value;
    for (;;) {
        struct node *x = term.rest, *a = x->input_count ? x->inputs[0] : NULL;
        if (is_constant(x, &value)) {
            term.scale *= value;
            term.rest = NULL;
        } else if (is_stretched(x)) {
            term.factor = product(term.factor, a);
            term.rest = NULL;
        } else if (x->op == OP_SUBTRACT && is_zero(a)) {
            term.scale = -term.scale;
            term.rest = x->inputs[1];
            continue;
        } else if (x->op == OP_MULTIPLY && is_constant(x->inputs[1], &value)) {
            term.scale *= value;
            term.rest = a;
            continue;
        } else if (x->op == OP_MULTIPLY && (is_stretched(a) || is_stretched(x->inputs[1]))) {
            bool first = is_stretched(a);
            term.factor = product(term.factor, x->inputs[first ? 0 : 1]->inputs[0]);
            term.rest = x->inputs[first];
            continue;
        }
        return term;
    }
}

static struct node *joined(struct graph *graph, const struct term *term, struct shape shape) {
    if (!term->factor && !term->rest) return graph_constant(graph, term->scale, shape);
    if (!term->factor) return node_scale(term->rest, term->scale);
    struct node *factor = node_broadcast(node_scale(term->factor, term->scale), shape);
    return term->rest ? node_multiply(term->rest, factor) : factor;
}

static struct node *factored_product(struct graph *graph, struct node *a, struct node *b) {
    struct term x = split(a), y = split(b);
    if (!x.factor && !y.factor) return NULL;
    struct term whole = {x.scale * y.scale, product(x.factor, y.factor), product(x.rest, y.rest)};
    return joined(graph, &whole, a->shape);
}

/* The product of two operands by these rules. */
static struct node *multiplied(struct graph *graph, struct node *a, struct node *b) {
    struct node *factored = factored_product(graph, a, b);
    return factored ? factored : node_multiply(a, b);
}

static struct node *factored_choice(struct graph *graph, struct node *condition, struct node *a, struct node *b) {
    bool first = is_zero(b);
    if (!first && !is_zero(a)) return NULL;
    struct term term = split(first ? a : b);
    if (!term.rest || (!term.factor && term.scale == 1)) return NULL;
    term.rest = node_select(condition, first ? term.rest : a, first ? b : term.rest);
    return joined(graph, &term, a->shape);
}

/* --- sums --- */
static struct node *row_sum(struct graph *graph, struct node *x, uint32_t axes);

static double row_count(const struct shape *shape) {
    double count = 1;
    for (int d = 2; d < shape->rank; d++) count *= (double)shape->size[d];
    return count;
}

/* scale * node, with the scales inside it taken out. */
static struct term scaled(struct node *node, double scale) {
    struct term term = {.scale = scale, .rest = node};
    double value;
    for (;;) {
        struct node *x = term.rest;
        if (x && x->op == OP_SUBTRACT && is_zero(x->inputs[0])) {
            term.scale = -term.scale;
            term.rest = x->inputs[1];
        } else if (x && x->op == OP_MULTIPLY && is_constant(x->inputs[1], &value)) {
            term.scale *= value;
            term.rest = x->inputs[0];
        } else
            return term;
    }
}

/* Adds scale * factor * node to the sum, split into terms wherever that brings out a factor; with `deep`, products and
 * choices are split too. False where the sum would have too many terms. */
static bool expand(struct graph *graph, struct node *node, double scale, struct node *factor, bool deep, int depth,
                   struct sum *sum);

/* x + t or x - t, where t is stretched along the row and x is not a sum of factored terms. */
static bool is_offset(struct graph *graph, enum op op, struct node *const *inputs, int depth) {
    struct sum sum = {0};
    if (op != OP_ADD && op != OP_SUBTRACT) return false;
    bool first = is_stretched(inputs[0]);
    return (first || is_stretched(inputs[1])) && expand(graph, inputs[first], 1, NULL, false, depth + 1, &sum)
           && !sum.factored;
}

/* Whether x - t sums to zero: t is the mean of x. */
static bool is_centred(struct graph *graph, struct node *node) {
    if (node->op != OP_SUBTRACT || !is_offset(graph, node->op, node->inputs, 0) || !is_stretched(node->inputs[1]))
        return false;
    struct node *x = node->inputs[0], *mean = node->inputs[1]->inputs[0];
    struct term sum = scaled(row_sum(graph, x, row_axes(&x->shape)), 1), other = scaled(mean, row_count(&x->shape));
    return sum.rest && sum.rest == other.rest && fabs(sum.scale - other.scale) <= 1e-12 * fabs(sum.scale);
}

static bool add_term(struct sum *sum, double scale, struct node *factor, struct node *rest) {
    if (sum->count == TERMS_MAX) return false;
    sum->terms[sum->count++] = (struct term){scale, factor, rest};
    return true;
}

static bool expand_addition(struct graph *graph, const struct node *x, double scale, struct node *factor, bool deep,
                            int depth, struct sum *sum) {
    struct sum whole = *sum;
    whole.factored = false;
    if (!expand(graph, x->inputs[0], scale, factor, deep, depth + 1, &whole)
        || !expand(graph, x->inputs[1], x->op == OP_ADD ? scale : -scale, factor, deep, depth + 1, &whole)
        || !whole.factored)
        return false;
    *sum = whole;
    return true;
}

/* One operand of a product, or what a choice leaves where the other is zero, taken apart. */
static bool expand_inside(struct graph *graph, struct node *x, int operand, double scale, struct node *factor,
                          int depth, struct sum *sum) {
    struct sum inner = {0}, whole = *sum;
    if (!expand(graph, x->inputs[operand], 1, NULL, true, depth + 1, &inner) || inner.count < 2 || !inner.factored)
        return false;
    whole.factored = true;
    for (int i = 0; i < inner.count; i++) {
        const struct term *term = &inner.terms[i];
        struct node *part = NULL;
        if (!term->rest) return false;
        if (x->op == OP_MULTIPLY)
            part = multiplied(graph, term->rest, x->inputs[!operand]);
        else
            part = node_select(x->inputs[0], operand == 1 ? term->rest : x->inputs[1],
                               operand == 2 ? term->rest : x->inputs[2]);
        if (!part || !expand(graph, part, scale * term->scale, product(factor, term->factor), true, depth + 1, &whole))
            return false;
    }
    *sum = whole;
    return true;
}

static bool expand(struct graph *graph, struct node *node, double scale, struct node *factor, bool deep, int depth,
                   struct sum *sum) {
    struct term term = split(node);
    struct node *x = term.rest;
    scale *= term.scale;
    factor = product(factor, term.factor);
    sum->factored |= term.factor != NULL;
    if (!x || depth > DEPTH_MAX) return add_term(sum, scale, factor, x);
    switch (x->op) {
    case OP_ADD:
    case OP_SUBTRACT:
        if (!is_offset(graph, x->op, x->inputs, depth) && expand_addition(graph, x, scale, factor, deep, depth, sum))
            return true;
        break;
    case OP_MULTIPLY:
        if (deep && expand_inside(graph, x, 0, scale, factor, depth, sum)) return true;
        if (deep && expand_inside(graph, x, 1, scale, factor, depth, sum)) return true;
        break;
    case OP_SELECT:
        if (deep && is_zero(x->inputs[2]) && expand_inside(graph, x, 1, scale, factor, depth, sum)) return true;
        if (deep && is_zero(x->inputs[1]) && expand_inside(graph, x, 2, scale, factor, depth, sum)) return true;
        break;
    default:
        break;
    }
    return add_term(sum, scale, factor, x);
}

/* Merges terms that differ in their factors alone. */
static void collect(struct graph *graph, struct sum *sum) {
    int count = 0;
    for (int i = 0; i < sum->count; i++) {
        struct term *term = &sum->terms[i];
        int at = 0;
        while (at < count && sum->terms[at].rest != term->rest) at++;
        if (at == count) {
            sum->terms[count++] = *term;
            continue;
        }
        struct term *first = &sum->terms[at];
        if (!first->factor && !term->factor) {
            first->scale += term->scale;
            continue;
        }
        struct node *known = first->factor ? first->factor : term->factor;
        struct node *a = first->factor ? first->factor : graph_constant(graph, 1, known->shape);
        struct node *b = term->factor ? term->factor : graph_constant(graph, 1, known->shape);
        first->factor = node_add_stretched(node_scale(a, first->scale), node_scale(b, term->scale));
        first->scale = 1;
    }
    sum->count = count;
}

/* a + b or a - b as one sum of few terms, what is constant along the row first. */
static struct node *factored_addition(struct graph *graph, const struct node *node, struct node *const *inputs) {
    enum { FEW = 5 };
    struct sum sum = {0};
    double sign = node->op == OP_ADD ? 1 : -1;
    if (is_offset(graph, node->op, inputs, 0)) return NULL;
    if (!expand(graph, inputs[0], 1, NULL, false, 1, &sum) || !expand(graph, inputs[1], sign, NULL, false, 1, &sum))
        return NULL;
    int before = sum.count;
    if (!sum.factored) return NULL;
    collect(graph, &sum);
    if ((before == 2 && sum.count == 2) || sum.count > FEW) return NULL;
    struct node *total = NULL;
    for (int pass = 0; pass < 3; pass++)
        for (int i = 0; i < sum.count; i++) {
            const struct term *term = &sum.terms[i];
            int rank = !term->rest ? 0 : !term->factor ? 1 : 2;
            if (rank != pass) continue;
            struct node *part = joined(graph, term, inputs[0]->shape);
            total = total ? node_add(total, part) : part;
        }
    return total;
}

static struct node *factored_sum(struct graph *graph, struct node *x, uint32_t axes) {
    struct sum sum = {0};
    struct shape narrow = x->shape;
    for (int d = 2; d < narrow.rank; d++) narrow.size[d] = 1;
    if (is_centred(graph, x)) return graph_constant(graph, 0, narrow);
    if (!expand(graph, x, 1, NULL, true, 0, &sum) || !sum.factored) return NULL;
    struct node *total = NULL;
    for (int i = 0; i < sum.count; i++) {
        const struct term *term = &sum.terms[i];
        struct node *part =
            term->rest ? row_sum(graph, term->rest, axes) : graph_constant(graph, row_count(&x->shape), narrow);
        if (term->factor) part = node_multiply_stretched(part, term->factor);
        part = node_scale(part, term->scale);
        total = total ? node_add(total, part) : part;
    }
    return total;
}

static struct node *row_sum(struct graph *graph, struct node *x, uint32_t axes) {
    struct node *sum = factored_sum(graph, x, axes);
    return sum ? sum : node_reduce_sum(x, axes);
}

struct node *factored(struct graph *graph, const struct node *node, struct node *const *inputs) {
    if (node->dtype != FLOAT32) return NULL;
    for (int k = 0; k < node->input_count; k++)
        if (!inputs[k] || inputs[k]->shape.rank < 4) return NULL;
    switch (node->op) {
    case OP_MULTIPLY:
        return factored_product(graph, inputs[0], inputs[1]);
    case OP_SELECT:
        return factored_choice(graph, inputs[0], inputs[1], inputs[2]);
    case OP_ADD:
    case OP_SUBTRACT:
        return factored_addition(graph, node, inputs);
    case OP_REDUCE_SUM:
        return node->attributes.axes == row_axes(&inputs[0]->shape)
                   ? factored_sum(graph, inputs[0], node->attributes.axes)
                   : NULL;
    default:
        return NULL;
    }
}
