/* A network that learns from the set as it is, epoch by epoch (epoch_divide of data.h: in batches of at most 256
 * images), between the steps that change the set. */
#ifndef RETORT_DISTILL_SET_TRAINING_H
#define RETORT_DISTILL_SET_TRAINING_H

#include "distill/distill.h"
#include "unroll/unroll.h"

struct set_training {
    const struct distill_problem *problem;
    const struct set *set;
    struct unroll *unroll;
    int most_epochs; /* of a run; 0: there is no training */
    int64_t watch;   /* real images by whose loss a run ends early: after the first epoch that raises it; 0: none */
    bool augment;    /* by siamese_draw, a family a batch and parameters for each image */
    bool flip;

    int64_t batch, epoch_steps;
    int watch_pass;
    struct pass_value values[4];
    int32_t *rows, *labels;
    float *maps, *colours, *images;
    uint32_t *order;
    struct arena arena;
};

/* Takes problem, set, most_epochs, watch, augment and flip from *training, and fills in what an unroll needs for it:
 * set and batch, and where it watches one pass more, behind those that `passes` (the spec's) holds already. *training
 * stays where it is for the life of the unroll. RETORT_ENOMEM. */
int set_training_init(struct set_training *training, struct unroll_spec *spec, struct pass_spec *passes);
void set_training_finish(struct set_training *training); /* NULL-safe, zeroes */
/* Draws by `draw`, and trains for `epochs`; *taken: how many they were, fewer where it watches. The unroll's weights go
 * on from where they are. */
int set_training_run(struct set_training *training, uint32_t draw, int epochs, int *taken);

#endif
