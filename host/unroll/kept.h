/* Places for the values that the gradient of a window's step keeps for the backward step (graph_gradient_keeping).
 *
 * The first steps of a window have a place each, as many as there is room for. The gradient of any other step writes to
 * one spare place that nobody reads, so that one gradient serves all steps. */
#ifndef RETORT_UNROLL_KEPT_H
#define RETORT_UNROLL_KEPT_H

#include "compile/executable.h"

/* What shares a buffer begins at multiples of 128 bytes: a line of every cache, a vector of every device. */
static inline size_t aligned(size_t bytes) {
    return (bytes + 127) / 128 * 128;
}

struct kept {
    int value_count; /* kept for each micro-batch; 0: nothing is kept */
    int step_count;  /* steps of a window that have a place */
    int parts;       /* micro-batches of a step */
    size_t part_bytes;
    struct device_buffer **steps; /* [step_count] */
    struct device_buffer *spare;
};

/* What a product that reads kept values asks for; no places yet. */
void kept_plan(struct kept *kept, const struct executable *reading, int parts);
/* How many steps can have a place where so many bytes are free. */
int kept_steps_in(const struct kept *kept, const struct device_traits *traits, uint64_t free_bytes);
size_t kept_bytes(const struct kept *kept); /* of all places */
int kept_allocate(struct kept *kept, struct device *device);
void kept_finish(struct kept *kept); /* zeroes */
/* Binds the kept values of an executable to the place of micro-batch `part` of a step of the window, from 0; to the
 * spare place where that step has none, or is no step of the window (-1). */
int kept_bind(const struct kept *kept, struct executable *executable, int step, int part);

#endif
