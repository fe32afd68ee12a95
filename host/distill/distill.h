/* Distillation methods behind one small interface: make one, take outer steps, save and load its whole state.
 *
 * The methods here back-propagate through a truncated inner training run (BPTT): fixed, forward and random truncation
 * (RaT-BPTT, Feng et al., ICLR 2024) and dynamic truncation (AT-BPTT, Li et al., NeurIPS 2025). */
#ifndef RETORT_DISTILL_DISTILL_H
#define RETORT_DISTILL_DISTILL_H

#include "compile/executable.h"
#include "data/data.h"
#include "nn/nn.h"
#include "optimizer/optimizer.h"
#include "unroll/window.h"

/* The descriptor's `inner` section: the training run that is differentiated. */
struct inner_spec {
    struct optimizer_spec optimizer;
    bool learn_lr;       /* the inner learning rate is an outer variable too */
    int batch_per_class; /* images of each chosen class per inner step; 0: all (ipc) */
    int batch_classes;   /* classes per inner step; 0: all */
};

enum set_init { SET_NOISE, SET_REAL };        /* N(0,1) scaled to unit norm per image; random real images */
enum set_labels { LABELS_HARD, LABELS_SOFT }; /* soft: learned raw positive values, started one-hot, clamped at 0 */
struct set_spec {
    int ipc; /* images per class */
    enum set_init init;
    enum set_labels labels;
};

enum truncation { TRUNCATION_FIXED, TRUNCATION_FORWARD, TRUNCATION_RANDOM, TRUNCATION_DYNAMIC };
enum reading { READING_LITERAL, READING_RELEASED, READING_STANDARDISED };
/* The descriptor's `method` section. T, W and d as in the papers. */
struct method_spec {
    int steps;  /* T: inner steps of a whole run */
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

struct outer_spec {
    int steps;
    double lr; /* Adam (0.9, 0.999, 1e-8) on images, labels and the inner learning rate's logarithm */
    int real_batch;
    bool clip;                   /* to twice the running mean (0.9) of the meta-gradient's norm; images only */
    struct augment_spec augment; /* on synthetic and real images alike */
};

/* Everything a method needs. Pointers are borrowed and must outlive it. */
struct distill_problem {
    struct library *library; /* on the device, whose ceiling is set */
    const struct dataset *train;
    const struct network *network;
    struct inner_spec inner;
    struct set_spec set;
    struct method_spec method;
    struct outer_spec outer;
    uint64_t seed;
};

enum stage { STAGE_EARLY, STAGE_MIDDLE, STAGE_LATE };
/* What one outer step tells. Values that do not apply are NaN or -1. */
struct distill_metrics {
    int outer_step;        /* 1, 2, ... */
    double loss, accuracy; /* meta-loss and percent correct on the real batch */
    enum stage stage;      /* -1 unless dynamic */
    int end, window;       /* N and W* of this step */
    double gradient_norm;  /* of the image gradient before clipping */
    double inner_lr;
    double cosine; /* lanczos: to the exact meta-gradient, where measured; else NaN */
    double seconds;
};

struct distill;
/* Plans (micro-batches under the ceiling), creates and builds executables, draws the initial set. RETORT_ELIMIT where
 * the ceiling cannot be met, with the least that could. */
int distill_create(const struct distill_problem *problem, struct distill **distill);
void distill_destroy(struct distill *distill); /* NULL-safe */
/* One outer step; RETORT_ENUMERIC where loss or gradient is not finite (the set is then as before the step). */
int distill_step(struct distill *distill, struct distill_metrics *metrics);
int distill_steps_done(const struct distill *distill);
/* The set as it is: images [n,C,H,W]; soft labels [n,K] or hard labels [n], the other pointer may be NULL. */
int64_t distill_set_count(const struct distill *distill);
int distill_read_set(struct distill *distill, float *images, float *soft_labels, int32_t *hard_labels);
double distill_inner_lr(const struct distill *distill);
/* The whole state between two outer steps, one .npz, written atomically. A loaded state continues bit for bit. A state
 * of another problem (sizes, seed, method) is refused: RETORT_EFORMAT. */
int distill_save(struct distill *distill, const char *path);
int distill_load(struct distill *distill, const char *path);
/* Outer steps spent in each stage so far (dynamic truncation). */
void distill_stage_steps(const struct distill *distill, int steps[3]);

#endif
