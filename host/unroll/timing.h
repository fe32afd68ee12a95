/* What the parts of an outer step take on this device when it does nothing else, measured: for forecasts.
 *
 * Each function takes as many repetitions or steps as pass in about `enough` seconds, so that start-up costs and the
 * clock's grain weigh little; one at least, however long it takes. The quickest of three such trials counts. They use
 * the unroll's weights, its window and the sums of its passes, which every outer step begins anew, and change nothing
 * else. Where a team divides the unroll's batches all members call them, and the leader's clock counts for all. */
#ifndef RETORT_UNROLL_TIMING_H
#define RETORT_UNROLL_TIMING_H

#include "unroll/pass.h"
#include "unroll/window.h"

#include <stdbool.h>
#include <stdint.h>

struct unroll;

/* Seconds of one inner step. The tables of `most` steps are uploaded; each trial begins from fresh weights, so that the
 * steps stay what they are in a run. With `probe` as unroll_train records norms: those of the last trial, whose
 * steps *taken tells (may be NULL), can be read by unroll_read_probe. */
int unroll_time_steps(struct unroll *unroll, uint64_t seed, int most, bool probe, double enough, double *seconds,
                      int *taken);
/* Seconds of storing a window of `window` steps and going back through it. Where that takes longer than `enough`, of
 * fewer steps, scaled by their operations. `gradient` is overwritten. HESSIAN_LANCZOS wants a factor. */
int unroll_time_window(struct unroll *unroll, uint64_t seed, int window, struct place terminal, enum hessian hessian,
                       double enough, struct unroll_gradient *gradient, double *seconds);
/* Seconds of one run of a pass, whose inputs are there. */
int unroll_time_pass(struct unroll *unroll, struct pass *pass, double enough, double *seconds);

#endif
