/* The outer optimiser on the host: Adam or SGD with momentum over the variables of the set, and clipping by the running
 * norm. */
#ifndef RETORT_DISTILL_OUTER_H
#define RETORT_DISTILL_OUTER_H

#include "optimizer/optimizer.h"

#include <stdint.h>

/* One variable of the set with the room for its update. */
struct outer_variable {
    const char *name; /* in checkpoints: NAME, NAME_m, NAME_v; a literal */
    int64_t count;    /* 0: it is not learned */
    float *values;    /* borrowed; part of a checkpoint, as m and v */
    float *gradient;  /* owned; the method leaves it there each step */
    float *m, *v;     /* owned. Adam: the moments. SGD: m is the velocity, v NULL */
    double lr;
    double least, most; /* values are kept between them; infinite to begin with */
};

int outer_variable_init(struct outer_variable *variable, const char *name, float *values, int64_t count, double lr,
                        enum optimizer_kind kind);
void outer_variable_finish(struct outer_variable *variable); /* NULL-safe, zeroes */

/* One update by the gradient that lies in the variable; t counts from 1.
 * Adam: betas 0.9, 0.999 and eps 1e-8 (Kingma and Ba, 2015). SGD: m <- momentum m + g, x <- x - lr m. */
void outer_update(struct outer_variable *variable, enum optimizer_kind kind, double momentum, int t);

/* The running mean of the gradient's norm, e <- 0.9 e + 0.1 |g| (the first norm starts it), and the factor that brings
 * the gradient to at most 2 e. *mean NaN: not begun. */
double outer_clip(double *mean, double norm);

#endif
