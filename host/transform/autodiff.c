/* Reverse and forward mode: the walk over the graph; what each operation does is in rules.c. */
#include "transform/transform.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"
#include "transform/rules.h"

/* A graph that one of these nodes belongs to, where `known` is NULL. */
static struct graph *find_graph(struct graph *known, struct node *const *nodes, int count) {
    for (int i = 0; i < count && !known; i++)
        if (nodes[i]) known = nodes[i]->graph;
    return known;
}

/* Refuses missing nodes, first with the words that their builder left in the graph. */
static int check_nodes(const struct graph *graph, struct node *const *nodes, int count, const char *what) {
    int status = RETORT_OK;
    if (graph) TRY(graph_status(graph));
    for (int i = 0; i < count; i++) {
        if (!nodes[i]) RAISE(RETORT_EINVAL, "derivative: %s %d is missing", what, i);
        if (nodes[i]->graph != graph) RAISE(RETORT_EINVAL, "derivative: %s %d belongs to another graph", what, i);
    }
done:
    return status;
}

static int same_kind(const struct node *direction, const struct node *node, const char *what) {
    char own[160], other[160];
    if (direction->dtype == FLOAT32 && node->dtype == FLOAT32 && shape_equal(direction->shape, node->shape))
        return RETORT_OK;
    shape_print(direction->shape, own, sizeof own);
    shape_print(node->shape, other, sizeof other);
    return error_set(RETORT_EINVAL, "derivative: a %s must be float32 and shaped like its node, got %s for %s", what,
                     own, other);
}

/* Marks the nodes whose derivative by one of `roots` need not be zero. */
static void mark_dependent(const struct graph *graph, int count, struct node *const *roots, int root_count,
                           bool *depends) {
    for (int i = 0; i < root_count; i++) depends[roots[i]->index] = roots[i]->dtype == FLOAT32;
    for (int i = 0; i < count; i++) {
        const struct node *node = graph_node(graph, i);
        if (node->dtype != FLOAT32 || rule_of(node->op)->constant) continue;
        for (int j = 0; j < node->input_count; j++) depends[i] |= depends[node->inputs[j]->index];
    }
}

static struct node *no_rule(const struct node *node) {
    return graph_fail(node->graph, RETORT_EUNSUPPORTED, "operation %s has no derivative rule", op_info(node->op)->name);
}

/* --- reverse mode --- */

/* One contribution to the adjoint of a node. */
struct term {
    struct node *node;
    struct term *next;
};

/* The dimension along which a node is its operand with zeros before and behind; -1 where it is something else. */
static int padded_axis(const struct node *node) {
    int axis = -1;
    if (node->op != OP_PAD) return -1;
    for (int d = 0; d < node->shape.rank; d++) {
        int64_t size = node->inputs[0]->shape.size[d];
        if (size == node->shape.size[d]) continue;
        if (axis >= 0 || (node->attributes.step[d] != 1 && size > 1)) return -1;
        axis = d;
    }
    return axis;
}

static int compare_starts(const void *a, const void *b) {
    const struct node *first = *(struct node *const *)a, *second = *(struct node *const *)b;
    int axis = padded_axis(first);
    int64_t difference = first->attributes.start[axis] - second->attributes.start[axis];
    return (difference > 0) - (difference < 0);
}

/* Where several terms are adjoints of slices that do not overlap (the parameters of a network in the vector of all its
 * weights), they are joined end to end, which costs a copy, rather than summed as full vectors. Returns the shorter
 * list. */
static struct term *join_slices(struct arena *arena, struct term *terms) {
    int axis = -1, count = 0, pieces = 0;
    for (const struct term *term = terms; term; term = term->next) {
        int own = padded_axis(term->node);
        if (axis < 0) axis = own;
        if (axis >= 0 && own == axis) count++;
    }
    if (count < 2) return terms;
    struct node **pads = arena_array(arena, (size_t)count, sizeof *pads);
    struct node **parts = arena_array(arena, 2 * (size_t)count + 1, sizeof *parts);
    struct term *joined = arena_alloc(arena, sizeof *joined);
    if (!pads || !parts || !joined) return terms;

    count = 0;
    for (const struct term *term = terms; term; term = term->next)
        if (padded_axis(term->node) == axis) pads[count++] = term->node;
    qsort(pads, (size_t)count, sizeof *pads, compare_starts);
    struct shape gap = pads[0]->shape;
    int64_t at = 0, end = gap.size[axis];
    for (int i = 0; i <= count; i++) {
        int64_t start = i < count ? pads[i]->attributes.start[axis] : end;
        if (start < at) return terms;
        gap.size[axis] = start - at;
        if (start > at) parts[pieces++] = graph_constant(pads[0]->graph, 0, gap);
        if (i == count) break;
        parts[pieces++] = pads[i]->inputs[0];
        at = start + pads[i]->inputs[0]->shape.size[axis];
    }
    *joined = (struct term){node_concat(parts, pieces, axis), NULL};
    for (struct term *term = terms, *next; term; term = next) {
        next = term->next;
        if (padded_axis(term->node) == axis) continue;
        term->next = joined->next;
        joined->next = term;
    }
    return joined;
}

static struct node *sum_terms(struct arena *arena, struct term *terms) {
    struct node *sum = NULL;
    for (const struct term *term = join_slices(arena, terms); term; term = term->next)
        sum = sum_or_either(sum, term->node);
    return sum;
}

int transform_vjp(struct node *output, struct node *cotangent, struct node *const *wrt, int count,
                  struct node **gradients) {
    int status = RETORT_OK;
    struct graph *graph = find_graph(find_graph(NULL, &output, 1), wrt, count);
    struct arena arena;
    arena_init(&arena);
    TRY(check_nodes(graph, &output, 1, "output"));
    TRY(check_nodes(graph, wrt, count, "variable"));
    if (!cotangent && shape_count(output->shape) != 1)
        RAISE(RETORT_EINVAL, "derivative: an output of several elements needs a cotangent");
    if (!cotangent) cotangent = graph_constant(graph, 1, output->shape);
    TRY(check_nodes(graph, &cotangent, 1, "cotangent"));
    TRY(same_kind(cotangent, output, "cotangent"));
    for (int i = 0; i < count; i++) TRY(same_kind(wrt[i], wrt[i], "variable"));

    int nodes = graph_count(graph);
    bool *depends = arena_array(&arena, (size_t)nodes, sizeof *depends);
    struct term **terms = arena_array(&arena, (size_t)nodes, sizeof(struct term *));
    struct node **adjoints = arena_array(&arena, (size_t)nodes, sizeof(struct node *));
    struct term *seed = arena_alloc(&arena, sizeof *seed);
    if (arena.failed) RAISE(RETORT_ENOMEM, "out of memory for a derivative");
    mark_dependent(graph, output->index + 1, wrt, count, depends);
    *seed = (struct term){cotangent, NULL};
    terms[output->index] = seed;

    for (int i = output->index; i >= 0; i--) {
        struct node *node = graph_node(graph, i);
        if (!terms[i] || !depends[i]) continue;
        struct node *adjoint = adjoints[i] = sum_terms(&arena, terms[i]);
        const struct rule *rule = rule_of(node->op);
        if (rule->constant) continue;
        for (int j = 0; j < node->input_count; j++) {
            int operand = node->inputs[j]->index;
            if (!depends[operand]) continue;
            struct node *share = rule->vjp ? rule->vjp(node, adjoint, j) : no_rule(node);
            if (!share) continue;
            struct term *term = arena_alloc(&arena, sizeof *term);
            if (!term) RAISE(RETORT_ENOMEM, "out of memory for a derivative");
            *term = (struct term){share, terms[operand]};
            terms[operand] = term;
        }
        TRY(graph_status(graph));
    }
    TRY(graph_status(graph));
    if (arena.failed) RAISE(RETORT_ENOMEM, "out of memory for a derivative");
    for (int i = 0; i < count; i++) {
        struct node *adjoint = adjoints[wrt[i]->index];
        gradients[i] = adjoint ? adjoint : zeros_like(wrt[i]);
    }
    status = graph_status(graph);
done:
    arena_finish(&arena);
    return status;
}

/* --- forward mode --- */

int transform_jvp(struct node *const *outputs, int output_count, struct node *const *inputs,
                  struct node *const *tangents, int input_count, struct node **out_tangents) {
    int status = RETORT_OK;
    struct graph *graph = find_graph(find_graph(NULL, outputs, output_count), inputs, input_count);
    struct arena arena;
    arena_init(&arena);
    TRY(check_nodes(graph, outputs, output_count, "output"));
    TRY(check_nodes(graph, inputs, input_count, "variable"));
    TRY(check_nodes(graph, tangents, input_count, "tangent"));
    for (int i = 0; i < input_count; i++) TRY(same_kind(tangents[i], inputs[i], "tangent"));
    if (output_count < 1) goto done;

    int nodes = 0, operand_limit = 0;
    for (int i = 0; i < output_count; i++)
        if (outputs[i]->index >= nodes) nodes = outputs[i]->index + 1;
    for (int i = 0; i < nodes; i++)
        if (graph_node(graph, i)->input_count > operand_limit) operand_limit = graph_node(graph, i)->input_count;
    bool *depends = arena_array(&arena, (size_t)graph_count(graph), sizeof *depends);
    bool *needed = arena_array(&arena, (size_t)nodes, sizeof *needed);
    struct node **moved = arena_array(&arena, (size_t)graph_count(graph), sizeof(struct node *));
    struct node **operands = arena_array(&arena, (size_t)operand_limit, sizeof(struct node *));
    if (arena.failed) RAISE(RETORT_ENOMEM, "out of memory for a derivative");
    mark_dependent(graph, nodes, inputs, input_count, depends);
    for (int i = 0; i < output_count; i++) needed[outputs[i]->index] = true;
    for (int i = nodes - 1; i >= 0; i--)
        for (int j = 0; needed[i] && j < graph_node(graph, i)->input_count; j++)
            needed[graph_node(graph, i)->inputs[j]->index] = true;
    for (int i = 0; i < input_count; i++) moved[inputs[i]->index] = tangents[i];

    for (int i = 0; i < nodes; i++) {
        struct node *node = graph_node(graph, i);
        const struct rule *rule = rule_of(node->op);
        if (!depends[i] || !needed[i] || moved[i] || rule->constant) continue;
        bool any = false;
        for (int j = 0; j < node->input_count; j++) any |= (operands[j] = moved[node->inputs[j]->index]) != NULL;
        if (!any) continue;
        moved[i] = rule->jvp ? rule->jvp(node, operands) : no_rule(node);
        TRY(graph_status(graph));
    }
    for (int i = 0; i < output_count; i++) {
        struct node *tangent = moved[outputs[i]->index];
        out_tangents[i] = tangent ? tangent : zeros_like(outputs[i]);
    }
    status = graph_status(graph);
done:
    arena_finish(&arena);
    return status;
}
