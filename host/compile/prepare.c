/* Rewrites a graph into forms the later passes like, through the builders, which share and fold on the way:
 * - what nothing needs is left out, stop-gradients (values as they are) disappear;
 * - sums over whole planes and more ([N,C,H,W] over N, H, W) go plane by plane first, so that they join row kernels. */
#include "compile/prepare.h"

#include "base/error.h"
#include "base/memory.h"
#include "transform/transform.h"

#include <stdlib.h>
#include <string.h>

#define PLANE      (1u << 2 | 1u << 3)
#define MOST_PARTS 16

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
        map[i] = node->op == OP_INPUT ? node_rebuild(fresh, node, NULL) : rebuild(fresh, node, inputs);
    }
    for (int i = 0; i < graph_output_count(graph); i++)
        graph_output_copy(fresh, graph, i, map[graph_output_at(graph, i, NULL)->index]);
    TRY(graph_status(fresh));
    TRY(graph_verify(fresh));
    TRY(transform_simplify(fresh, prepared)); /* without the nodes that were built on trial */
done:
    graph_destroy(fresh);
    free(map);
    free(inputs);
    free(live);
    return status;
}
