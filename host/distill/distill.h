/* Distillation: a set, a method that finds gradients for it, and the outer optimiser that follows them. Make one, take
 * outer steps, save and load its whole state. method.h says what a method is. */
#ifndef RETORT_DISTILL_DISTILL_H
#define RETORT_DISTILL_DISTILL_H

#include "compile/executable.h"
#include "data/data.h"
#include "distill/division.h"
#include "distill/metric.h"
#include "distill/set.h"
#include "nn/nn.h"
#include "optimizer/optimizer.h"

/* The descriptor's `inner` section: a training run on the set, as methods differentiate and the evaluation repeats. */
struct inner_spec {
    int steps; /* T: of a whole run */
    struct optimizer_spec optimizer;
    bool learn_lr;       /* the inner learning rate is an outer variable too */
    int batch_per_class; /* images of each chosen class per inner step; 0: all (ipc) */
    int batch_classes;   /* classes per inner step; 0: all */
};

struct outer_spec {
    int steps;
    enum optimizer_kind optimizer;  /* adam: 0.9, 0.999, 1e-8 */
    double momentum;                /* sgd */
    double lr, lr_labels, lr_inner; /* of the images, the soft labels, the inner learning rate's logarithm */
    int real_batch;
    int meta_batch;              /* K: trajectories (networks, each with draws of its own) that a step averages over;
                                    0: one */
    bool clip;                   /* to twice the running mean (0.9) of the gradient's norm; images only */
    struct augment_spec augment; /* on synthetic and real images alike */
};

struct method;
struct expert_source;
/* Everything a method needs. Pointers are borrowed and must outlive it. */
struct distill_problem {
    struct library *library; /* on the device, whose ceiling is set */
    const struct dataset *train;
    const struct normalisation *normalisation; /* of train; NULL: none */
    const struct network *network;
    struct inner_spec inner;
    struct set_spec set;
    const int32_t *rows; /* SET_INDICES: [row_count] rows of train, ipc of each class in any order */
    int64_t row_count;
    struct outer_spec outer;
    const struct method *method;
    const void *method_spec; /* the values of its keys, method->spec_size bytes */
    uint64_t seed;
    const struct expert_source *experts; /* what the method's `experts` wants; NULL: there are none, and no step is
                                            taken */
    enum dct_way dct;                    /* who makes images of coefficients (dct.h) */
    struct division division;
    const struct unroll_plan *frozen; /* the plan to take (distill_plan of an earlier one); NULL: look for one */
    bool plan_only;                   /* nothing is allocated or built, and no step can be taken: for distill_unroll */
    const volatile int *interrupt;    /* non-zero: leave a step with RETORT_EINTERRUPTED; may be NULL */
};

/* Whether the settings go together as far as that can be told without library, data and network, which may be NULL:
 * RETORT_EINVAL with words, and in *key the descriptor's key that they concern. */
int distill_check(const struct distill_problem *problem, const char **key);

struct distill;
/* Draws the set, then lets the method plan (micro-batches under the ceiling), compile and build. RETORT_ELIMIT where
 * the ceiling cannot be met, with the least that could. */
int distill_create(const struct distill_problem *problem, struct distill **distill);
void distill_destroy(struct distill *distill); /* NULL-safe */
/* What was chosen for the method's training run on creation, or taken; only the compute units where it has none. */
struct unroll_plan;
void distill_plan(const struct distill *distill, struct unroll_plan *plan);
/* Its training run, for what unroll.h tells of one; NULL where the method has none. */
struct unroll;
const struct unroll *distill_unroll(const struct distill *distill);
/* Before the first step, for all members of the division's team: the leader's start to all (set_share). */
int distill_share_start(struct distill *distill);
enum dct_way distill_dct(const struct distill *distill); /* set_dct */
/* Rows of device memory that making images of what is stored takes; NULL past the end. */
struct memory;
const struct memory *distill_set_memory(const struct distill *distill, int i);
/* Before the first step, of one that is not divided: seconds that an outer step will take on the average of the whole
 * run, from trials of about `enough` seconds each (method.h). The steps to come are not changed by it. */
int distill_forecast(struct distill *distill, double enough, double *seconds);
/* One outer step, which all members of a team take together, and after which the sets of all hold the same bytes.
 * *metrics, valid until the next call: outer_step, what the method tells, on the average of the trajectories, then
 * gradient_norm (by what the set stores, before clipping), inner_lr (before the step) and seconds. RETORT_ENUMERIC
 * where loss or gradient is not finite, RETORT_EINTERRUPTED where the problem's interrupt was seen on the way, by this
 * member or another; whatever fails, the state is then as before the step. */
int distill_step(struct distill *distill, const struct metrics **metrics);
int distill_steps_done(const struct distill *distill);
/* The set as it is: images [n,C,H,W]; soft labels [n,K] or hard labels [n], the other pointer may be NULL. */
int64_t distill_set_count(const struct distill *distill);
int distill_read_set(struct distill *distill, float *images, float *soft_labels, int32_t *hard_labels);
double distill_inner_lr(const struct distill *distill);
/* The whole state between two outer steps, one .npz, written atomically. A loaded state continues bit for bit. A state
 * of another problem (sizes, seed, method) is refused: RETORT_EFORMAT. */
int distill_save(struct distill *distill, const char *path);
int distill_load(struct distill *distill, const char *path);
/* Adds what the method has to say at the end. */
void distill_results(const struct distill *distill, struct metrics *results);

#endif
