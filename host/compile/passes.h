/* The passes that turn a graph into launches, in order. */
#ifndef RETORT_COMPILE_PASSES_H
#define RETORT_COMPILE_PASSES_H

#include "compile/launch.h"

/* Compiles a graph for a target into `list`, which the caller finishes. The list keeps no pointer to the graph. With
 * RETORT_PASSES in the environment, a list of names such as "group,layout" or "all", what these passes leave is printed
 * to standard error, for those who work on the compiler. */
int compile_graph(const struct graph *graph, const struct kernel_target *target, const char *label,
                  struct launch_list *list);

#endif
