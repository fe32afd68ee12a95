/* Rebuilding a graph without what its results do not need. */
#include "transform/transform.h"

#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"

int transform_simplify(const struct graph *graph, struct graph **simplified) {
    int status = RETORT_OK;
    int count = graph_count(graph), operand_limit = 0;
    struct graph *fresh = NULL;
    struct arena arena;
    arena_init(&arena);
    TRY(graph_status(graph));
    TRY(graph_create(&fresh));
    for (int i = 0; i < count; i++)
        if (graph_node(graph, i)->input_count > operand_limit) operand_limit = graph_node(graph, i)->input_count;
    bool *live = arena_array(&arena, (size_t)count, sizeof *live);
    struct node **rebuilt = arena_array(&arena, (size_t)count, sizeof(struct node *));
    struct node **operands = arena_array(&arena, (size_t)operand_limit, sizeof(struct node *));
    if (arena.failed) RAISE(RETORT_ENOMEM, "out of memory for simplifying a graph");

    for (int i = 0; i < graph_output_count(graph); i++) live[graph_output_at(graph, i, NULL)->index] = true;
    for (int i = count - 1; i >= 0; i--) {
        const struct node *node = graph_node(graph, i);
        live[i] |= node->op == OP_INPUT;
        for (int j = 0; live[i] && j < node->input_count; j++) live[node->inputs[j]->index] = true;
    }
    for (int i = 0; i < count; i++) {
        const struct node *node = graph_node(graph, i);
        if (!live[i]) continue;
        for (int j = 0; j < node->input_count; j++) operands[j] = rebuilt[node->inputs[j]->index];
        rebuilt[i] = node_rebuild(fresh, node, operands);
    }
    for (int i = 0; i < graph_output_count(graph); i++) {
        const char *name;
        const struct node *node = graph_output_at(graph, i, &name);
        graph_output(fresh, name, rebuilt[node->index]);
    }
    TRY(graph_verify(fresh));
    *simplified = fresh;
    fresh = NULL;
done:
    graph_destroy(fresh);
    arena_finish(&arena);
    return status;
}
