/* What the method `bptt` can be told: back-propagation through a truncated inner training run, with fixed, forward and
 * random truncation (RaT-BPTT, Feng et al., ICLR 2024) and dynamic truncation (AT-BPTT, Li et al., NeurIPS 2025). */
#ifndef RETORT_DISTILL_BPTT_H
#define RETORT_DISTILL_BPTT_H

#include "unroll/window.h"

#include <stdbool.h>

enum truncation { TRUNCATION_FIXED, TRUNCATION_FORWARD, TRUNCATION_RANDOM, TRUNCATION_DYNAMIC };
enum reading { READING_LITERAL, READING_RELEASED, READING_STANDARDISED };
enum stage { STAGE_EARLY, STAGE_MIDDLE, STAGE_LATE, STAGES };

/* The descriptor's `method` section. W and d as in the papers; T is inner.steps. */
struct bptt_spec {
    int window; /* W: back-propagated steps */
    enum truncation truncation;
    int patience;         /* forward: outer steps without a better loss before the window moves */
    enum reading reading; /* dynamic: which reading of the paper's formulas */
    int range;            /* d: the window is in [W - d, W + d] */
    double temperature;   /* tau of the position's (and the literal window's) softmax */
    int probe_every;      /* outer steps between probes of the gradient norms */
    int stage_period;     /* outer steps that make an epoch; 0: one pass over the data, at most outer.steps / 50 */
    double stage_m, stage_x, stage_n, stage_y; /* percentage points, fraction of all epochs, likewise (Eq. 8) */
    double accuracy_smoothing;  /* weight of the past in the running training accuracy that the stages watch; 0: none */
    bool weight_by_probability; /* Eq. 13's weights P_trunc(i) inside the window */
    enum hessian hessian;
    int rank, refresh; /* lanczos: rank of the approximation, outer steps between refreshes */
};

#endif
