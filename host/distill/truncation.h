/* Which inner steps are back-propagated: where the window ends and how long it is, per outer step.
 *
 * Inner steps count from 1 to T; a window of w steps with end N covers N - w + 1 .. N. Norms n_t are those of the inner
 * loss's gradient at step t of a probe run, changes are c_t = |n_t - n_{t-1}| with c_1 = 0.
 *
 *   fixed     N = T, w = W
 *   forward   N = W at first; moves on by W after `patience` outer steps without a better meta-loss, up to T
 *   random    start uniform in 0 .. T - W, w = W (RaT-BPTT)
 *   dynamic   three stages (AT-BPTT); the paper leaves three readings open:
 *
 *     literal        Eq. 5 to 7 as printed.
 *                    N by softmax(n / tau) early, uniform in the middle, by (1 - P) / (T - 1) late;
 *                    w = W - d + 2 d eta(N), eta = softmax(c / tau)
 *     released       What the authors' public code does, which draws the START.
 *                    early:  start by softmax(n / tau), w by the rank of the change there
 *                    middle: start uniform, w = W + d
 *                    late:   start by softmax(n / tau), mirrored: counted back from T; w = W - d
 *     standardised   z: the norms with mean 0 and variance 1.
 *                    N by softmax(z / tau) early, uniform in the middle, by softmax(-z / tau) late;
 *                    w = W - d + 2 d (c_N - min c) / (max c - min c)
 *
 * The stage moves on when enough epochs brought too little (Eq. 8): counters add up, the second one starts at the first
 * switch. */
#ifndef RETORT_DISTILL_TRUNCATION_H
#define RETORT_DISTILL_TRUNCATION_H

#include "base/random.h"
#include "distill/bptt.h"

/* All of it is part of a checkpoint. */
struct truncation_state {
    int stage;                 /* enum stage */
    int count[2];              /* epochs of small gain: before the first switch, since it */
    int epoch_steps;           /* outer steps of the current epoch */
    double epoch_sum;          /* of their training accuracies */
    double accuracy, previous; /* running accuracy of this and the last epoch; NaN: none yet */
    int stage_steps[3];        /* outer steps spent in each stage */
    int forward_end;           /* forward: N; 0: not begun */
    int stale;                 /* forward: outer steps without a better loss */
    double best;               /* forward: the best loss at this position */
};

void truncation_begin(struct truncation_state *state);

/* Whether this outer step's choice needs the norms of a probe. */
bool truncation_needs_norms(const struct bptt_spec *method, const struct truncation_state *state);
/* Whether a fresh probe is to be taken before outer step `step` (from 1): every `probe_every` steps while norms are
 * needed, and where they are needed again after a stage without. */
bool truncation_needs_probe(const struct bptt_spec *method, const struct truncation_state *state, int step);

struct window_choice {
    int end, window; /* N and w, 1 <= w <= N <= T */
};
/* norms: [T], or NULL where not needed. probability: [T], becomes P_trunc(t) of the step. scratch: [2 T]. */
struct window_choice truncation_choose(const struct bptt_spec *method, int T, const struct truncation_state *state,
                                       struct random *random, const double *norms, double *probability,
                                       double *scratch);

/* What the outer steps of a run will be on the average, for forecasts: the run is played through, with norms that stay
 * as they are, a meta-loss that is noise, and a training accuracy that gains much in every other epoch, which is how
 * the stages of real runs go (docs/results.md): the noise of the accuracy moves them, not its trend. */
struct truncation_outlook {
    double probes;      /* share of outer steps that begin with a probe of the whole inner run */
    double end, window; /* means of N and w */
};
/* norms: [T], also where the truncation needs none. probability: [T]; scratch: [2 T]. */
struct truncation_outlook truncation_foresee(const struct bptt_spec *method, int T, int outer_steps, int period,
                                             uint64_t seed, const double *norms, double *probability, double *scratch);

/* After an outer step: its meta-loss and training accuracy in percent. `period` outer steps make an epoch, `epochs` of
 * them the whole run. */
void truncation_advance(const struct bptt_spec *method, int T, struct truncation_state *state, double loss,
                        double accuracy, int period, double epochs);

#endif
