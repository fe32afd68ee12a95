/* Convolutions that one launch computes: which are joined, and the terms of their launch. */
#include "compile/convolution.h"

#include "base/error.h"

enum conv_pass convolution_pass(const struct node *node) {
    if (node->op == OP_ADD) node = node->inputs[0];
    return node->op == OP_CONV                 ? CONV_FORWARD
           : node->op == OP_CONV_BACKWARD_DATA ? CONV_BACKWARD_DATA
                                               : CONV_BACKWARD_WEIGHT;
}

static bool is_single(const struct node *node) {
    return node->op == OP_CONV || node->op == OP_CONV_BACKWARD_DATA || node->op == OP_CONV_BACKWARD_WEIGHT;
}

bool is_convolution(const struct grouping *g, const struct node *node) {
    return g->role[node->index] == ROLE_LIBRARY && (is_single(node) || node->op == OP_ADD);
}

/* The convolutions that a convolution or a sum of them is made of. */
static int terms_of(const struct node *node, const struct node *terms[TERMS]) {
    if (node->op != OP_ADD) {
        terms[0] = node;
        return 1;
    }
    terms[0] = node->inputs[0];
    terms[1] = node->inputs[1];
    return 2;
}

static struct conv_sizes sizes_of(const struct node *node) {
    const struct shape *a = &node->inputs[0]->shape, *b = &node->inputs[1]->shape;
    enum conv_pass pass = convolution_pass(node);
    const struct shape *x = pass == CONV_BACKWARD_DATA ? &node->shape : a;
    const struct shape *w = pass == CONV_BACKWARD_WEIGHT ? &node->shape : b;
    const struct shape *y = pass == CONV_FORWARD ? &node->shape : pass == CONV_BACKWARD_DATA ? a : b;
    return (struct conv_sizes){.n = x->size[0],
                               .c = x->size[1],
                               .h = x->size[2],
                               .w = x->size[3],
                               .o = w->size[0],
                               .kh = w->size[2],
                               .kw = w->size[3],
                               .oh = y->size[2],
                               .ow = y->size[3],
                               .stride = node->attributes.stride,
                               .padding = node->attributes.padding};
}

static bool same_sizes(const struct node *a, const struct node *b) {
    return a->op == b->op && shape_equal(a->shape, b->shape) && shape_equal(a->inputs[0]->shape, b->inputs[0]->shape)
           && shape_equal(a->inputs[1]->shape, b->inputs[1]->shape) && a->attributes.stride == b->attributes.stride
           && a->attributes.padding == b->attributes.padding;
}

static bool can_join(const struct grouping *g, const struct node *a, const struct node *b) {
    struct conv_sizes sizes = sizes_of(a);
    return same_sizes(a, b) && kernels_conv_joins(&g->target, convolution_pass(a), &sizes);
}

void convolution_sums(struct grouping *g, const bool *is_output) {
    for (int i = 0; i < g->node_count; i++) {
        const struct node *sum = graph_node(g->graph, i);
        if (sum->op != OP_ADD || g->role[i] == ROLE_DEAD) continue;
        const struct node *a = sum->inputs[0], *b = sum->inputs[1];
        bool theirs = a != b && g->user_count[a->index] == 1 && g->user_count[b->index] == 1;
        if (!theirs || is_output[a->index] || is_output[b->index]) continue;
        if (!is_single(a) || !is_single(b) || !can_join(g, a, b)) continue;
        if (g->role[a->index] == ROLE_INLINE || g->role[b->index] == ROLE_INLINE) continue;
        g->role[i] = ROLE_LIBRARY;
        g->role[a->index] = g->role[b->index] = ROLE_INLINE;
    }
}

/* Finds an operand's place in the list, adding it if it is new; false where the list is full. */
static bool enter(const struct node *operand, const struct node *operands[TERMS], int *count, int *at) {
    for (*at = 0; *at < *count; ++*at)
        if (operands[*at] == operand) return true;
    if (*count == TERMS) return false;
    operands[(*count)++] = operand;
    return true;
}

/* The convolutions of a group as terms of two lists of operands; false where they have too many operands for one
 * launch. */
static bool collect_terms(const struct node *const *members, size_t count, struct conv_terms *terms,
                          const struct node *inputs[TERMS], const struct node *weights[TERMS]) {
    *terms = (struct conv_terms){0};
    for (size_t o = 0; o < count; o++) {
        const struct node *parts[TERMS];
        int part_count = terms_of(members[o], parts), input, weight;
        for (int k = 0; k < part_count; k++) {
            if (terms->outputs == TERMS || !enter(parts[k]->inputs[0], inputs, &terms->inputs, &input)
                || !enter(parts[k]->inputs[1], weights, &terms->weights, &weight))
                return false;
            terms->mask |= 1u << ((terms->outputs * TERMS + input) * TERMS + weight);
        }
        terms->outputs++;
    }
    return true;
}

bool convolutions_join(const struct grouping *g, const struct group *a, const struct group *b) {
    struct conv_terms terms;
    const struct node *inputs[TERMS], *weights[TERMS], *first[TERMS], *second[TERMS];
    if (a->members.count != 1 || b->members.count != 1) return false;
    const struct node *members[] = {a->members.items[0], b->members.items[0]};
    if (!is_convolution(g, members[0]) || !is_convolution(g, members[1])) return false;
    if (convolution_pass(members[0]) == CONV_BACKWARD_WEIGHT) return false;
    int count = terms_of(members[0], first) + terms_of(members[1], second);
    return can_join(g, first[0], second[0]) && collect_terms(members, 2, &terms, inputs, weights)
           && terms.inputs + terms.weights < 2 * count;
}

int convolution_join(const struct grouping *g, const struct group *group, struct joined *joined) {
    int status = RETORT_OK;
    const struct node *const *members = (const struct node *const *)group->members.items;
    const struct node *parts[TERMS];
    int count = terms_of(members[0], parts);
    struct joined fresh = {.class = {.pass = convolution_pass(members[0]), .sizes = sizes_of(parts[0])}};
    const struct conv_sizes *sizes = &fresh.class.sizes;
    enum layout x = kernels_conv_layout(&g->target, sizes->c), y = kernels_conv_layout(&g->target, sizes->o);
    double cost = op_info(parts[0]->op)->cost(parts[0]);
    if (fresh.class.pass == CONV_BACKWARD_WEIGHT) {
        fresh.class.terms = count == 1 ? CONV_SINGLE : (struct conv_terms){1, TERMS, TERMS, 0};
        fresh.from = x, fresh.second = y, fresh.to = LAYOUT_PLAIN;
        fresh.input_count = fresh.weight_count = count;
        for (int k = 0; k < count; k++) {
            fresh.inputs[k] = parts[k]->inputs[0];
            fresh.weights[k] = parts[k]->inputs[1];
        }
        fresh.flops = cost * count;
    } else {
        if (!collect_terms(members, group->members.count, &fresh.class.terms, fresh.inputs, fresh.weights))
            RAISE(RETORT_EUNSUPPORTED, "cannot compile: convolutions with too many operands in one launch");
        fresh.from = fresh.class.pass == CONV_FORWARD ? x : y;
        fresh.to = fresh.class.pass == CONV_FORWARD ? y : x;
        fresh.second = LAYOUT_PLAIN;
        fresh.input_count = fresh.class.terms.inputs;
        fresh.weight_count = fresh.class.terms.weights;
        fresh.flops = cost * __builtin_popcount(fresh.class.terms.mask);
    }
    *joined = fresh;
done:
    return status;
}
