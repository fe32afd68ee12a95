/* The loss of trajectory matching, as a pass of one row. With theta the weights as they are, s where they began and b
 * the expert's at the target,
 *
 *     L = |m (theta - b)|^2 / |m (s - b)|^2
 *
 * m is 1, or (DDPP: Li et al., "Dataset distillation using parameter pruning", IEICE Trans. Fundamentals 2024) 0 for
 * parameters in which student and expert are too unlike; constant for the derivative. The letter's rule is not in the
 * open: there are two readings. */
#ifndef RETORT_DISTILL_EXPERT_LOSS_H
#define RETORT_DISTILL_EXPERT_LOSS_H

#include "unroll/pass.h"

enum prune {
    PRUNE_NONE,
    PRUNE_RATIO,    /* drops where min(|theta|, |b|) / max(|theta|, |b|), 0 for opposite signs, is below epsilon */
    PRUNE_DISTANCE, /* drops where |theta - b| / |b - s| is above epsilon */
};

struct expert_loss {
    int64_t theta_count; /* p */
    enum prune prune;
    double epsilon;
};

struct pass_spec expert_loss_pass(const struct expert_loss *spec); /* borrows it for the life of the pass */
int expert_loss_upload(struct pass *pass, const float *start, const float *target); /* [p] each */
/* *kept: how many parameters the mask keeps. */
int expert_loss_read(struct pass *pass, double *loss, int64_t *kept);
struct place expert_loss_lambda(const struct pass *pass); /* dL/dtheta [p], of the last run */

#endif
