/* Convolutions as launches. The derivatives of a convolution come in families: y = x * w with its tangent
 * y' = x' * w + x * w', the same backwards, and sums of two backward-weights. A sum of two convolutions becomes one
 * operation, and operations that share an input or weights one launch, wherever the kernels can: then operands are
 * read and transformed once. */
#include "compile/internal.h"

enum { TERMS = 2 };

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

static bool convolution_launch(struct lowering *l, const struct conv_class *class, const struct conv_use *use,
                               struct value *const *buffers, int outputs, int count, double flops) {
    return lowering_launch(l, &use->main, buffers, outputs, count, flops) && array_push(&l->convolutions, *class);
}

static int lower_backward_weight(struct lowering *l, const struct node *node) {
    int status = RETORT_OK;
    const struct node *parts[TERMS];
    int count = terms_of(node, parts), buffer_count = 1;
    const struct conv_class class = {CONV_BACKWARD_WEIGHT, sizes_of(parts[0]),
                                     count == 1 ? CONV_SINGLE : (struct conv_terms){1, TERMS, TERMS, 0}};
    enum layout x = kernels_conv_layout(&l->target, class.sizes.c), y = kernels_conv_layout(&l->target, class.sizes.o);
    struct conv_use use = {0};
    TRY(kernels_conv_plan(&l->target, &class, &use));
    struct value *out = lowering_value(l, node, LAYOUT_PLAIN), *buffers[1 + 2 * TERMS] = {out};
    double flops = 0;
    for (int k = 0; k < count; k++) {
        buffers[buffer_count++] = lowering_value(l, parts[k]->inputs[0], x);
        buffers[buffer_count++] = lowering_value(l, parts[k]->inputs[1], y);
        flops += op_info(parts[k]->op)->cost(parts[k]);
    }
    for (int k = 0; k < buffer_count; k++)
        if (!buffers[k]) return RETORT_EUNSUPPORTED; /* lowering_value has said why */
    if (use.work_floats) buffers[0] = lowering_scratch(l, NULL, use.work_floats);
    if (!buffers[0] || !convolution_launch(l, &class, &use, buffers, 1, buffer_count, flops)
        || (use.work_floats && !lowering_launch(l, &use.finish, (struct value *[]){out, buffers[0]}, 1, 2, 0)))
        RAISE(RETORT_ENOMEM, "out of memory compiling %s", op_info(parts[0]->op)->name);
done:
    return status;
}

int lower_convolutions(struct lowering *l, const struct group *group) {
    int status = RETORT_OK;
    const struct node *const *members = (const struct node *const *)group->members.items;
    const struct node *parts[TERMS], *inputs[TERMS], *weights[TERMS];
    struct conv_use use = {0};
    if (convolution_pass(members[0]) == CONV_BACKWARD_WEIGHT) return lower_backward_weight(l, members[0]);
    terms_of(members[0], parts);
    struct conv_class class = {.pass = convolution_pass(members[0]), .sizes = sizes_of(parts[0])};
    enum layout x = kernels_conv_layout(&l->target, class.sizes.c), y = kernels_conv_layout(&l->target, class.sizes.o);
    enum layout from = class.pass == CONV_FORWARD ? x : y, to = class.pass == CONV_FORWARD ? y : x;
    if (!collect_terms(members, group->members.count, &class.terms, inputs, weights))
        RAISE(RETORT_EUNSUPPORTED, "cannot compile: convolutions with too many operands in one launch");
    TRY(kernels_conv_plan(&l->target, &class, &use));
    const struct conv_terms terms = class.terms;
    struct value *buffers[3 * TERMS];
    int count = 0;
    for (int k = 0; k < terms.outputs; k++) buffers[count++] = lowering_value(l, members[k], to);
    for (int k = 0; k < terms.inputs; k++) buffers[count++] = lowering_value(l, inputs[k], from);
    for (int k = 0; k < terms.weights; k++) {
        struct value *plain = lowering_value(l, weights[k], LAYOUT_PLAIN);
        buffers[count++] = plain && use.packed_floats ? lowering_packed(l, &use.pack, use.packed_floats, plain) : plain;
    }
    double flops = op_info(parts[0]->op)->cost(parts[0]) * __builtin_popcount(terms.mask);
    for (int k = 0; k < count; k++)
        if (!buffers[k]) return l->arena.failed ? RETORT_ENOMEM : RETORT_EUNSUPPORTED; /* lowering_value has said why */
    struct value *out = buffers[0];
    if (use.finish.file) buffers[0] = lowering_scratch(l, NULL, use.work_floats);
    if (!buffers[0] || !convolution_launch(l, &class, &use, buffers, terms.outputs, count, flops)
        || (use.finish.file && !lowering_launch(l, &use.finish, (struct value *[]){out, buffers[0]}, 1, 2, 0)))
        RAISE(RETORT_ENOMEM, "out of memory compiling %s", op_info(parts[0]->op)->name);
done:
    return status;
}
