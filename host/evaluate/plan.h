/* What a protocol makes of a set: one training run, said in plain values, and the tables that feed it to the device.
 * Private to this module. */
#ifndef RETORT_EVALUATE_PLAN_H
#define RETORT_EVALUATE_PLAN_H

#include "base/memory.h"
#include "evaluate/evaluate.h"

/* What is trained on, as far as a protocol asks. */
struct plan_input {
    int64_t count;    /* images */
    int classes, ipc; /* ipc 0: not equally many of each class */
    bool all_of_train;
};

struct plan {
    struct plan_input input;
    struct optimizer_spec optimizer;
    int64_t batch;
    int classes_chosen, per_class; /* a batch draws so many classes and images of each (rows_draw); 0: batches walk
                                      through a random order of all images, a new one each epoch */
    int64_t epoch_steps;           /* of that walk */
    struct augment_spec augment;   /* all off: none */
    bool dsa, dsa_flip;            /* DSA in its place */
    int checkpoints, steps[EVALUATE_MAX_CHECKPOINTS]; /* when to test; the last is the end of the run */
    int drop; /* after this step the rate is a tenth and the momentum forgotten; 0: never */
};

bool plan_augments(const struct plan *plan);

/* RETORT_EINVAL where the specification cannot be followed. */
int plan_bptt(const struct evaluate_problem *problem, const struct plan_input *input, struct plan *plan);
int plan_dc(const struct evaluate_problem *problem, const struct plan_input *input, struct plan *plan);
void describe_bptt(const struct evaluate_problem *problem, struct text *text);
void describe_dc(const struct evaluate_problem *problem, struct text *text);
/* "SGD 0.01, momentum 0.9, weight decay 0.0005" */
void describe_optimizer(const struct optimizer_spec *optimizer, struct text *text);

/* --- tables of steps, as unroll_upload_steps takes them --- */
/* A network's walk in one epoch: its order of all images. */
struct walk {
    uint32_t *order; /* [count] */
    uint64_t seed;
    int64_t epoch; /* -1: none yet */
};
struct tables {
    const struct plan *plan;
    int capacity; /* steps */
    int networks;
    int height, width;
    int32_t *rows; /* [capacity, networks, batch] */
    float *maps;   /* [capacity, networks, batch, MAP_SIZE] where the plan augments */
    float *colour; /* [capacity, networks, batch, COLOUR_SIZE] with DSA */
    double *lr;    /* [capacity] */
    struct walk walks[UNROLL_MOST_NETWORKS];
};
/* How many steps there are tables for: `most`, or fewer where they would take more than a megabyte a network. */
int tables_capacity(const struct plan *plan, int most);
/* The plan is borrowed. */
int tables_init(struct tables *tables, const struct plan *plan, int capacity, int networks, int height, int width);
void tables_finish(struct tables *tables); /* NULL-safe, zeroes */
/* Steps first .. first + count - 1 (from 1) of the networks' runs with these seeds [networks]. The entries of a network
 * and step depend on its seed and the step only. */
int tables_fill(struct tables *tables, const uint64_t *seeds, int first, int count);

/* --- statistics --- */
/* Fills the rest of an accuracy whose networks, checkpoints, steps and runs are set. holdout: percent correct on the
 * held-out split, shaped as `runs`, or NULL where there is none. */
void accuracy_choose(struct accuracy *accuracy, const double *holdout);

#endif
