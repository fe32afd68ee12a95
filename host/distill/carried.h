/* Weights that a trajectory carries from one outer step to the next, for methods that match several times on one
 * network. An outer step may be refused after it has trained the network; so what it leaves counts only once the set is
 * updated: `now` is what a step begins from, and a checkpoint holds; `left` what the step at hand leaves. */
#ifndef RETORT_DISTILL_CARRIED_H
#define RETORT_DISTILL_CARRIED_H

#include "distill/state.h"
#include "unroll/unroll.h"

struct carried {
    struct unroll *unroll;
    int trajectories;
    int64_t count; /* unroll_state_count: weights, the optimiser's state, running statistics; 0: nothing is carried */
    float *now;    /* [trajectories, count] */
    double *left;  /* [trajectories, count] */
};

/* RETORT_ENOMEM. `wanted` false: every step begins anew. */
int carried_init(struct carried *carried, struct unroll *unroll, int trajectories, bool wanted);
void carried_finish(struct carried *carried); /* NULL-safe, zeroes */
/* What the trajectory's last step left, onto the device; and what this one leaves, from there. */
int carried_take(struct carried *carried, int trajectory);
int carried_leave(struct carried *carried, int trajectory);
/* For the method's rows `left`, `advance` and `state`. */
double *carried_left(struct carried *carried, int64_t *count);
void carried_advance(struct carried *carried);
void carried_state(struct carried *carried, struct state *state);

#endif
