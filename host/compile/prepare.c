/* Rewrites a graph into forms the later passes like, through the builders, which share and fold on the way:
 * - what nothing needs is left out, stop-gradients (values as they are) disappear;
 * - sums over whole planes and more ([N,C,H,W] over N, H, W) go plane by plane first, so that they join row kernels;
 * - sums of vectors padded side by side (the gradient of slices of theta) become one concatenation. */
#include "compile/internal.h"
#include "transform/transform.h"

#include <stdlib.h>
#include <string.h>

#define PLANE      (1u << 2 | 1u << 3)
#define MAX_PIECES 256
#define MOST_PARTS 16

struct piece {
    struct node *node; /* rank 1; NULL: zeros */
    int64_t begin, count;
};

/* The vectors padded into a sum, or false where it is anything else. */
static bool collect_pieces(struct node *sum, struct piece *pieces, int *count) {
    if (sum->op == OP_ADD)
        return collect_pieces(sum->inputs[0], pieces, count) && collect_pieces(sum->inputs[1], pieces, count);
    if (sum->op != OP_PAD || sum->shape.rank != 1 || sum->attributes.step[0] != 1 || *count == MAX_PIECES) return false;
    pieces[(*count)++] = (struct piece){
        .node = sum->inputs[0], .begin = sum->attributes.start[0], .count = sum->inputs[0]->shape.size[0]};
    return true;
}

static int by_begin(const void *a, const void *b) {
    const struct piece *x = a, *y = b;
    return x->begin < y->begin ? -1 : x->begin > y->begin;
}

static struct node *side_by_side(struct graph *graph, struct node *sum) {
    struct piece pieces[MAX_PIECES];
    struct node *parts[2 * MAX_PIECES + 1];
    int count = 0, part_count = 0;
    if (sum->op != OP_ADD && sum->op != OP_PAD) return sum;
    if (sum->shape.rank != 1 || !collect_pieces(sum, pieces, &count) || count < 2) return sum;
    qsort(pieces, (size_t)count, sizeof *pieces, by_begin);
    int64_t at = 0;
    for (int k = 0; k < count; k++) {
        struct node *piece = pieces[k].node;
        while (k + 1 < count && pieces[k + 1].begin == pieces[k].begin && pieces[k + 1].count == pieces[k].count)
            piece = node_add(piece, pieces[++k].node);
        if (pieces[k].begin < at) return sum; /* they overlap */
        if (pieces[k].begin > at) parts[part_count++] = graph_constant(graph, 0, SHAPE(pieces[k].begin - at));
        parts[part_count++] = piece;
        at = pieces[k].begin + pieces[k].count;
    }
    if (at < sum->shape.size[0]) parts[part_count++] = graph_constant(graph, 0, SHAPE(sum->shape.size[0] - at));
    return node_concat(parts, part_count, 0);
}

/* Is a sum of pads only, so that it is rewritten where something else reads it. */
static bool is_padded_sum(struct node *node) {
    struct piece pieces[MAX_PIECES];
    int count = 0;
    return node && (node->op == OP_ADD || node->op == OP_PAD) && node->shape.rank == 1
           && collect_pieces(node, pieces, &count);
}

/* Kernels take a limited number of operands: long rows of parts are joined in stages. */
static struct node *concat_in_stages(struct node **parts, int count, int axis) {
    while (count > MOST_PARTS) {
        int stages = 0;
        for (int k = 0; k < count; k += MOST_PARTS)
            parts[stages++] = node_concat(parts + k, count - k < MOST_PARTS ? count - k : MOST_PARTS, axis);
        count = stages;
    }
    return node_concat(parts, count, axis);
}

static struct node *plane_sum(struct graph *graph, struct node *x) {
    const struct node sum = {.op = OP_REDUCE_SUM, .dtype = FLOAT32, .attributes = {.axes = PLANE}, .input_count = 1};
    struct node *better = factored(graph, &sum, &x);
    return better ? better : node_reduce_sum(x, PLANE);
}

static struct node *rebuild(struct graph *graph, const struct node *node, struct node **inputs) {
    if (node->op == OP_STOP_GRADIENT) return inputs[0];
    bool waits = node->op == OP_ADD && is_padded_sum(inputs[0]) && is_padded_sum(inputs[1]);
    for (int k = 0; k < node->input_count && !waits; k++)
        if (inputs[k]) inputs[k] = side_by_side(graph, inputs[k]);
    uint32_t axes = node->attributes.axes;
    if (node->op == OP_REDUCE_SUM && node->shape.rank == 4 && (axes & PLANE) == PLANE && axes != PLANE)
        return node_reduce_sum(plane_sum(graph, inputs[0]), axes & ~PLANE);
    if (node->op == OP_CONCAT) return concat_in_stages(inputs, node->input_count, node->attributes.axis);
    struct node *better = factored(graph, node, inputs);
    return better ? better : node_rebuild(graph, node, inputs);
}

int prepare_graph(const struct graph *graph, struct graph **prepared) {
    int status = RETORT_OK;
    int count = graph_count(graph), widest = 0;
    struct graph *fresh = NULL;
    for (int i = 0; i < count; i++)
        if (graph_node(graph, i)->input_count > widest) widest = graph_node(graph, i)->input_count;
    struct node **map = calloc((size_t)count + 1, sizeof *map), **inputs = calloc((size_t)widest + 1, sizeof *inputs);
    bool *live = calloc((size_t)count + 1, sizeof *live);
    if (!map || !live || !inputs) RAISE(RETORT_ENOMEM, "out of memory preparing a graph of %d operations", count);
    TRY(graph_status(graph));
    TRY(graph_create(&fresh));
    for (int i = 0; i < graph_output_count(graph); i++) live[graph_output_at(graph, i, NULL)->index] = true;
    for (int i = count - 1; i >= 0; i--) {
        const struct node *node = graph_node(graph, i);
        live[i] |= node->op == OP_INPUT; /* inputs are part of the interface */
        for (int k = 0; live[i] && k < node->input_count; k++) live[node->inputs[k]->index] = true;
    }
    for (int i = 0; i < count; i++) {
        const struct node *node = graph_node(graph, i);
        if (!live[i]) continue;
        for (int k = 0; k < node->input_count; k++) inputs[k] = map[node->inputs[k]->index];
        map[i] = node->op == OP_INPUT ? graph_input(fresh, node->name, node->dtype, node->shape)
                                      : rebuild(fresh, node, inputs);
    }
    for (int i = 0; i < graph_output_count(graph); i++) {
        const char *name;
        struct node *node = map[graph_output_at(graph, i, &name)->index];
        graph_output(fresh, name, node ? side_by_side(fresh, node) : NULL);
    }
    TRY(graph_status(fresh));
    TRY(graph_verify(fresh));
    TRY(transform_simplify(fresh, prepared)); /* leaves out what was tried and not used */
done:
    graph_destroy(fresh);
    free(map);
    free(inputs);
    free(live);
    return status;
}
