/* Optimisers of the inner loop as graphs over the flat vectors: one update, and its exact adjoint.
 *
 * The state of a weight vector theta [p] is 0, 1 or 2 further vectors [p]: SGD none, momentum u, Adam m and v. */
#ifndef RETORT_OPTIMIZER_OPTIMIZER_H
#define RETORT_OPTIMIZER_OPTIMIZER_H

#include "graph/graph.h"

enum optimizer_kind { OPTIMIZER_SGD, OPTIMIZER_ADAM }; /* SGD with momentum 0 keeps no state */

struct optimizer_spec {
    enum optimizer_kind kind;
    double lr;
    double beta1, beta2, eps; /* Adam */
    double momentum;          /* SGD */
    double weight_decay;      /* coupled: g + wd theta, for both kinds */
};

#define OPTIMIZER_MAX_STATE 2

/* Number of state vectors: 0, 1 or 2. */
int optimizer_state_count(const struct optimizer_spec *spec);

/* Numbers that change from step to step, read by the device from a row of OPTIMIZER_SCALARS floats per step, so that
 * one compiled step serves all: lr, 1 - beta1^t, 1 - beta2^t, and one spare (0). t counts from 1. */
#define OPTIMIZER_SCALARS 4
void optimizer_scalars(const struct optimizer_spec *spec, double lr, int t, float row[OPTIMIZER_SCALARS]);

/* One step: theta [p] and state[] -> new_theta and new_state[], with g = gradient + wd theta. scalars: float [4].
 * Adam: m' = b1 m + (1 - b1) g, v' = b2 v + (1 - b2) g^2, theta' = theta - lr mhat / (sqrt(vhat) + eps).
 * SGD:  u' = mu u + g, theta' = theta - lr u'. */
void optimizer_update(struct graph *graph, const struct optimizer_spec *spec, struct node *scalars, struct node *theta,
                      struct node *const *state, struct node *gradient, struct node **new_theta,
                      struct node **new_state);

/* The adjoint of one step, replayed (design section 5; Deng and Russakovsky 2022 for momentum). In: theta before the
 * step, the state AFTER it (new_state), the loss gradient g before weight decay, adjoints of the new theta and the new
 * state. Out: a_g [p] (adjoint of g + wd theta), adjoints of the old state, and d_lr (rank 0), the step's share of the
 * derivative by the learning rate. The adjoint of the old theta is lambda_theta + (H + wd) a_g, which the caller
 * completes with the Hessian-vector product. Where v is 0 its term is 0, never NaN. */
void optimizer_adjoint(struct graph *graph, const struct optimizer_spec *spec, struct node *scalars, struct node *theta,
                       struct node *const *new_state, struct node *gradient, struct node *lambda_theta,
                       struct node *const *lambda_new_state, struct node **a_g, struct node **lambda_state,
                       struct node **d_lr);

#endif
