/* Networks that learn from real images while a set is distilled: some images under CutMix and augmentation at a time,
 * and early networks, those after a few epochs of all of them. */
#ifndef RETORT_DISTILL_REAL_TRAINING_H
#define RETORT_DISTILL_REAL_TRAINING_H

#include "distill/distill.h"
#include "distill/state.h"
#include "unroll/unroll.h"

enum { REAL_TRAINING_BATCH = 64 };

struct real_training {
    const struct distill_problem *problem;
    struct unroll *unroll; /* of real_training_unroll */
    int steps;             /* of a chunk: training steps whose images are uploaded at once */
    double cutmix;         /* probability that a batch is mixed */
    bool augment;          /* by siamese_draw_composed, for each image */

    /* Early networks: how many there are to be, epochs of each, and how many there are already. */
    int networks, epochs, ready;
    float *early; /* [networks, p] */

    float *images, *labels, *maps, *colours; /* of a chunk */
    int32_t *hard, *rows;
    uint32_t *order;
    struct arena arena;
};

/* Takes problem, steps, cutmix, augment, networks (0: no early ones) and epochs from *training. RETORT_ENOMEM. */
int real_training_init(struct real_training *training);
void real_training_finish(struct real_training *training); /* NULL-safe, zeroes */
/* Fills in what an unroll needs for it: set, batch, labels, augmentation. */
void real_training_unroll(const struct real_training *training, struct unroll_spec *spec);

/* The unroll's weights learn from `steps` batches of different real images, drawn by `draw`; `before`: steps that they
 * have taken. */
int real_training_step(struct real_training *training, uint32_t draw, int before);
/* Makes the early networks that are not there yet, from the seed alone, so that it does not matter who makes them and
 * when: it may be called in each step. */
int real_training_early(struct real_training *training);
int64_t real_training_early_chunks(const struct real_training *training); /* that all of them learn from */
/* moved = theta + a1 d1 + a2 d2, [p]: each of |a| is uniform between range[0] and range[1], of either sign, or 0 where
 * range[1] is; each filter (row of weights of rank > 1) of a direction d is as long as theta's. Li et al., "Visualizing
 * the loss landscape of neural nets", NeurIPS 2018, normalise so. */
void perturb(const struct network *network, struct random *random, const double range[2], const float *theta,
             float *moved);
/* What a checkpoint holds of them. */
void real_training_state(struct real_training *training, struct state *state);

#endif
