/* The trainer: a set on the device, tables of what changes from step to step, weights with their optimiser's state,
 * plain steps, tests.
 *
 * A step reads rows of the set. Everything that changes from step to step (rows, augmentation maps, learning rate, bias
 * corrections) is uploaded beforehand as tables and read by the device at an offset; the inner loop allocates nothing,
 * compiles nothing and waits for the device only where too much work would queue. */
#ifndef RETORT_UNROLL_TRAINER_H
#define RETORT_UNROLL_TRAINER_H

#include "unroll/memory.h"

struct unroll;

/* Uploads a set: images [n,C,H,W] in network space; soft [n,K] or hard [n] labels as the spec says. Its number is 0, or
 * that of its network where each has its own. */
int unroll_set(struct unroll *unroll, int set, const float *images, const float *soft_labels,
               const int32_t *hard_labels);
/* Uploads `count` rows of it, from row `first`: for real sets that are not in one piece on the host. */
int unroll_set_rows(struct unroll *unroll, int set, int64_t first, int64_t count, const float *images,
                    const float *soft_labels, const int32_t *hard_labels);
struct place unroll_set_images(const struct unroll *unroll); /* where it lies, for passes */

/* Tables for the next `count` steps, which are inner steps first .. first + count - 1 (from 1) of their run. With
 * several networks (k of them, as the plan says) each has its own rows, maps and colours. Where a team divides the rows
 * of a batch, each member is given those of whole batches and takes its own. */
struct unroll_steps {
    int first, count;
    const double *lr;     /* [count], or NULL: the optimiser's */
    const int32_t *rows;  /* [count, k, b] */
    const float *maps;    /* [count, k, b, 6] with augment */
    const float *colour;  /* [count, k, b, 8] with colour: brightness added, saturation and contrast factors (about the
                             image's per-pixel channel mean, and its overall mean), cutout centre row and column, cutout
                             half height and half width in pixels (<= 0: none), one spare */
    const float *weights; /* [count]: factor on each step's share of the set's gradient, or NULL: 1 */
};
int unroll_upload_steps(struct unroll *unroll, const struct unroll_steps *steps);

/* Fresh weights from a seed for each network, or given ones [k, p]; zero optimiser state. */
int unroll_begin(struct unroll *unroll, const uint64_t *seeds);
int unroll_begin_from(struct unroll *unroll, const float *theta);
/* All that the next step goes by: weights, the optimiser's state, running statistics, one after another. Floats of it;
 * as it is now; and steps begun from it. Of one network alone. */
int64_t unroll_state_count(const struct unroll *unroll);
int unroll_read_state(struct unroll *unroll, float *state);
int unroll_begin_from_state(struct unroll *unroll, const float *state);
/* Running statistics [q] from a place on the device, which stays as it is. */
int unroll_take_stats(struct unroll *unroll, struct place stats);
/* Runs uploaded steps from .. from + count - 1 (index into the tables). With `probe` also records loss and gradient
 * norm of each step, to be had from unroll_read_probe. Does not wait for the last of them. */
int unroll_train(struct unroll *unroll, int from, int count, bool probe);
/* losses, norms: [count] of the last probed steps, by table index from 0; either may be NULL. */
int unroll_read_probe(struct unroll *unroll, int count, double *losses, double *norms);
int unroll_read_theta(struct unroll *unroll, float *theta); /* [k, p] */
struct place unroll_theta(const struct unroll *unroll);     /* the weights [p] as they are now, until the next step */
/* Number of correct answers [k] of each network's current weights over count images (running statistics for batch
 * norm). */
int unroll_test(struct unroll *unroll, const float *images, const int32_t *labels, int64_t count, int64_t *correct);

#endif
