/* Rewriting a graph into forms that the later passes like: prepare.c, and factor.c, which moves factors out of rows. */
#ifndef RETORT_COMPILE_PREPARE_H
#define RETORT_COMPILE_PREPARE_H

#include "graph/graph.h"

int prepare_graph(const struct graph *graph, struct graph **prepared);

/* `node` on these inputs, where factors that are constant along rows can be moved out of it; else NULL. */
struct node *factored(struct graph *graph, const struct node *node, struct node *const *inputs);

#endif
