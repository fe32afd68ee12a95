/* Values that the gradient of a window's step keeps for the backward step (GRAPH_KEEP), and where they lie.
 *
 * The first steps of a window have a place each, as many as there is room for. The gradient of any other step writes to
 * one spare place that is never read, so that one gradient serves all steps. */
#ifndef RETORT_UNROLL_KEPT_H
#define RETORT_UNROLL_KEPT_H

#include "compile/executable.h"
#include "unroll/memory.h"

/* An executable's slots for kept values. */
struct kept_slots {
    int *items;
    int count;
};
int kept_find(const struct executable *executable, struct kept_slots *slots);
void kept_finish(struct kept_slots *slots); /* zeroes */
/* Of the values of a micro-batch together. */
size_t kept_bytes(const struct executable *executable, const struct kept_slots *slots);
/* Binds the values one after another from `place`. */
int kept_bind(struct executable *executable, const struct kept_slots *slots, struct place place);

#endif
