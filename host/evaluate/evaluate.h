/* What a set is worth: fresh networks trained on it and tested, by a named protocol.
 *
 * BPTT protocol (RaT-BPTT, AT-BPTT): the inner optimiser, its mini-batches and augmentation; tested at several numbers
 * of steps. The field reports the best of them, chosen on the test set; with a held-out split of train the choice is
 * made there instead. Every result says which.
 * DC protocol (DC, DSA, DM, MTT): SGD 0.01, momentum 0.9, weight decay 5e-4, batches of 256, epochs 0 .. E, rate x 0.1
 * after epoch E / 2 + 1; E = 1000 with the DSA augmentation, 300 without; the last network is tested.
 *
 * Network i of every row starts from the same weights, so rows are compared in pairs. Everything follows from the seed;
 * nothing depends on how long a step takes or where a run is cut into chunks. */
#ifndef RETORT_EVALUATE_EVALUATE_H
#define RETORT_EVALUATE_EVALUATE_H

#include "compile/executable.h"
#include "data/data.h"
#include "distill/distill.h"
#include "nn/nn.h"
#include "unroll/unroll.h"

enum protocol { PROTOCOL_BPTT, PROTOCOL_DC };
#define EVALUATE_MAX_CHECKPOINTS 8
struct evaluate_spec {
    enum protocol protocol;
    int networks;
    int at_once; /* of them trained as one batch; 0: as many as the device has room for beside starting launches */
    int steps[EVALUATE_MAX_CHECKPOINTS]; /* bptt: rising numbers of steps at which to test; dc: ignored */
    int step_count;
    int dc_epochs;   /* dc: E; 0: 1000 with augmentation, 300 without */
    bool dc_augment; /* dc: the DSA augmentation colour, crop, cutout, flip (off on digits), scale, rotate */
    bool dc_flip;
    bool full_data; /* also train on all of train, a reference row */
};

/* A set to train on: images in network space, rows grouped by class. Borrowed arrays. */
struct training_set {
    int64_t count;
    int classes, ipc; /* ipc 0: not equally many of each class; steps go through all of it in batches of at most 256 */
    const float *images;
    const float *soft_labels;   /* [count, classes] or NULL */
    const int32_t *hard_labels; /* [count] or NULL */
};

/* How each row's training was planned on the device; one that was not has no test batch. */
struct evaluate_plans {
    struct unroll_plan set, random, full;
    double seconds; /* that all of them will take, by a few steps and a test of each; 0: not known */
    uint64_t bytes; /* on the device, of the one that needs most */
};

struct evaluate_problem {
    struct library *library;
    const struct network *network;
    struct inner_spec inner;     /* bptt */
    double inner_lr;             /* the learned rate, or inner.optimizer.lr */
    struct augment_spec augment; /* bptt */
    const struct dataset *test;
    const struct dataset *holdout; /* count 0: none */
    struct evaluate_spec spec;
    uint64_t seed;
    struct division division; /* networks are divided among the members of a team, which call the same functions */
    const struct evaluate_plans *frozen; /* plans to take, where there are; NULL: none */
    const volatile int *interrupt; /* non-zero: leave with RETORT_EINTERRUPTED within about a second; may be NULL */
};

/* Percent correct. sd with n - 1 (NaN for one network). */
struct accuracy {
    int networks, checkpoints;
    int steps[EVALUATE_MAX_CHECKPOINTS];
    double *runs;        /* [networks][checkpoints] on the test set; owned */
    int chosen;          /* the checkpoint reported */
    bool chosen_on_test; /* true: as the field does; false: on the held-out split, or there was nothing to choose */
    double mean, sd;     /* of the networks at the chosen checkpoint */
    double best_on_test; /* mean at the checkpoint that is best on the test set, whatever was chosen */
};
void accuracy_finish(struct accuracy *accuracy); /* NULL-safe, zeroes */

/* All three: RETORT_EINVAL where set, data and specification do not go together, RETORT_EINTERRUPTED, and whatever the
 * device says. `what` names the row on the progress line. */
int evaluate_set(const struct evaluate_problem *problem, const struct training_set *set, const char *what,
                 struct accuracy *accuracy);
/* A random subset of train of the same size under the same protocol; each network gets its own draw of the subset. A
 * class with fewer than `ipc` images gives all it has; a warning says so. */
int evaluate_random(const struct evaluate_problem *problem, const struct dataset *train, int ipc,
                    struct accuracy *accuracy);
/* All of train, in the fewest equal batches of at most 256; the DC protocol ends after about 20000 steps of it. */
int evaluate_full(const struct evaluate_problem *problem, const struct dataset *train, struct accuracy *accuracy);

/* All that can be known before there is a set: checks what the rows of a run need (the set, the random subset of its
 * size, all of train where the specification asks for it), finds room for them under the device's ceiling and builds
 * their kernels, which the library keeps; nothing else stays on the device. Of the set only counts are read, and which
 * kind of labels is not NULL; steps on zeros tell the time that all will take. */
int evaluate_plan(const struct evaluate_problem *problem, const struct training_set *set, const struct dataset *train,
                  struct evaluate_plans *plans);

/* "bptt: Adam 0.001, augmented by flip or rotation, 3 networks, steps 300 600, best step chosen on the test set": for
 * results and screens. */
void evaluate_describe(const struct evaluate_problem *problem, char *text, size_t size);

#endif
