/* The outer optimiser: Adam on the host over the variables of the set, with clipping by the running norm. */
#ifndef RETORT_DISTILL_OUTER_H
#define RETORT_DISTILL_OUTER_H

#include <stdbool.h>
#include <stdint.h>

/* One variable with its moments; values are the caller's. All of it is part of a checkpoint. */
struct outer_variable {
    int64_t count;
    float *values; /* borrowed */
    float *m, *v;  /* owned */
};

int outer_variable_init(struct outer_variable *variable, float *values, int64_t count);
void outer_variable_finish(struct outer_variable *variable); /* NULL-safe, zeroes */

/* Adam with betas 0.9, 0.999 and eps 1e-8 (Kingma and Ba, 2015). t counts from 1. */
void outer_adam(struct outer_variable *variable, const float *gradient, double lr, int t);

/* The running mean of the gradient's norm, e <- 0.9 e + 0.1 |g| (the first norm starts it), and the factor that brings
 * the gradient to at most 2 e. *mean NaN: not begun. */
double outer_clip(double *mean, double norm);

#endif
