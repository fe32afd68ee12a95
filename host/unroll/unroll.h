/* Inner training on the device: plain steps, and exact meta-gradients through a window of them by step replay.
 *
 * A step reads rows of a set that lies on the device. Everything that changes from step to step (rows, augmentation
 * maps, learning rate, bias corrections) is uploaded beforehand as tables and read by the device at an offset; the
 * inner loop allocates nothing, compiles nothing and never waits for the host.
 *
 * Store of the window, per step: theta before it, optimiser state before it, and the gradient in it; where a memory
 * ceiling leaves room also values on the way to that gradient, which are computed again otherwise. Backward visits
 * the steps in reverse: the optimiser's adjoint gives a_g, one forward-over-reverse pass along a_g gives the
 * Hessian-vector product and the mixed derivatives by images and labels (../docs/architecture.md has the recursion). */
#ifndef RETORT_UNROLL_UNROLL_H
#define RETORT_UNROLL_UNROLL_H

#include "compile/executable.h"
#include "nn/nn.h"
#include "optimizer/optimizer.h"

#include <stdio.h>

/* What creation chose, as numbers that a run can write down. Given back to a later creation (`frozen`) they rule in
 * place of the search, so that a resumed run computes with the same kernels on the same parts, to the bit. */
struct unroll_plan {
    int inner_splits, meta_splits; /* parts of the inner batch and of the meta-loss batch; 1: whole */
    int64_t test_batch;            /* images per launch of a test; 0: no tests */
    int kept_steps;                /* steps of the longest window that keep values for their backward step */
    int compute_units;             /* of the device, as kernels were chosen for (device_set_units) */
};

/* The largest rank of a low-rank Hessian: one work-item solves its small eigenproblem, in private memory. */
#define UNROLL_MAX_RANK 127

/* What is compiled. Pointers are borrowed for the life of the unroll. */
struct unroll_spec {
    const struct network *network;
    struct optimizer_spec optimizer;
    int64_t set_count;  /* n: images of the set on the device */
    int64_t batch;      /* b: rows of it per inner step */
    bool soft_labels;   /* the set's labels are float [n,K]; otherwise int32 [n] */
    bool augment;       /* images of a step go through node_sample by per-image maps */
    bool colour;        /* and through the DSA colour and cutout parameters (training only; see unroll_steps) */
    int64_t meta_batch; /* r: real images of the meta-loss; 0: no meta-gradients wanted, training only */
    bool meta_augment;  /* the real images go through node_sample too */
    int max_window;     /* longest window (store size); 0: training only */
    int steps;          /* of the longest run that is uploaded at once, to plan memory for its tables; 0: not counted */
    int rank;           /* Lanczos rank, at most UNROLL_MAX_RANK; 0: exact Hessian only */
    int64_t test_batch; /* images per launch of unroll_test, or fewer under a ceiling; 0: no tests wanted */
    const struct unroll_plan *frozen; /* the plan to take; NULL: look for one. Read during creation only. */
};

struct unroll;
/* Compiles and builds everything. Under the device's ceiling it splits the meta-loss batch and the inner batch into
 * micro-batches, and makes the test batch smaller, until all fits; batch norm cannot be split. RETORT_ELIMIT with the
 * least number of bytes otherwise. Room that the ceiling leaves then holds results of convolutions of as many steps of
 * the window as fit, whose backward steps need not compute them again; without a ceiling none are kept. What is chosen
 * follows from the spec, the ceiling, the device and what is allocated on it. A frozen plan is taken as it is:
 * RETORT_ELIMIT where it does not fit under the ceiling, RETORT_EINVAL where it does not go with the spec or was made
 * for another number of compute units than the device is set to. */
int unroll_create(struct library *library, const struct unroll_spec *spec, struct unroll **unroll);
void unroll_destroy(struct unroll *unroll);                              /* NULL-safe */
void unroll_plan(const struct unroll *unroll, struct unroll_plan *plan); /* what was chosen, or taken */
/* "inner batch 10 in 1, meta-loss batch 256 in 2, values kept of 12 of 20 window steps, 34.1 MB": what was chosen. */
void unroll_describe(const struct unroll *unroll, char *text, size_t size);
int unroll_kept_steps(const struct unroll *unroll); /* of the longest window; the first ones */
/* For benchmarks: a line for each thing compiled (launches, scratch memory, operations), or its whole list of launches.
 */
void unroll_print(const struct unroll *unroll, bool launches, FILE *stream);
/* Operations of one outer step, each convolution counted as its plain sum of products. */
double unroll_flops(const struct unroll *unroll, int prefix, int window);

/* Uploads the set: images [n,C,H,W] in network space; soft [n,K] or hard [n] labels as the spec says. */
int unroll_set(struct unroll *unroll, const float *images, const float *soft_labels, const int32_t *hard_labels);

/* Tables for the next `count` steps, which are inner steps first .. first + count - 1 (from 1) of their run. */
struct unroll_steps {
    int first, count;
    const double *lr;     /* [count], or NULL: the optimiser's */
    const int32_t *rows;  /* [count, b] */
    const float *maps;    /* [count, b, 6] with augment */
    const float *colour;  /* [count, b, 8] with colour: brightness added, saturation and contrast factors (about the
                             image's per-pixel channel mean, and its overall mean), cutout centre row and column, cutout
                             half height and half width in pixels (<= 0: none), one spare */
    const float *weights; /* [count]: factor on each step's share of the set's gradient, or NULL: 1 */
};
int unroll_upload_steps(struct unroll *unroll, const struct unroll_steps *steps);

/* --- plain training --- */
/* Fresh weights from a seed, or given ones [p]; zero optimiser state. */
int unroll_begin(struct unroll *unroll, uint64_t seed);
int unroll_begin_from(struct unroll *unroll, const float *theta);
/* Runs uploaded steps from .. from + count - 1 (index into the tables). With `probe` also records loss and gradient
 * norm of each step, to be had from unroll_read_probe. Does not wait. */
int unroll_train(struct unroll *unroll, int from, int count, bool probe);
/* losses, norms: [count] of the last probed steps, by table index from 0. */
int unroll_read_probe(struct unroll *unroll, int count, double *losses, double *norms);
int unroll_read_theta(struct unroll *unroll, float *theta);
/* Number of correct answers of the current weights over count images (running statistics for batch norm). */
int unroll_test(struct unroll *unroll, const float *images, const int32_t *labels, int64_t count, int64_t *correct);

/* --- meta-gradients --- */
struct unroll_meta {
    int prefix, window;    /* table steps 0 .. prefix - 1 are plain, prefix .. prefix + window - 1 differentiated */
    const float *images;   /* real batch [r,C,H,W] */
    const int32_t *labels; /* [r] */
    const float *maps;     /* [r,6] with meta_augment */
    bool lanczos;          /* use the low-rank factor of unroll_lanczos in place of the exact Hessian */
    bool probe;            /* record losses and norms too */
};
struct unroll_gradient {
    double loss;     /* meta-loss */
    double accuracy; /* percent of the real batch */
    float *images;   /* [n,C,H,W]; caller's memory */
    float *labels;   /* [n,K]; caller's memory; NULL: not wanted or hard labels */
    double lr;       /* derivative by the learning rate, common to all steps */
};
/* Runs prefix, window and backward from the current begin. */
int unroll_meta_gradient(struct unroll *unroll, const struct unroll_meta *meta, struct unroll_gradient *gradient);
/* Only the backward pass again, with the other Hessian, from the same stored window and meta-loss gradient: for the
 * cosine between low-rank and exact. */
int unroll_backward_again(struct unroll *unroll, const struct unroll_meta *meta, struct unroll_gradient *gradient);

/* Lanczos at the weights as they are now, on the rows of table step `step`: builds the rank-k factor that lanczos
 * meta-gradients use until the next call. Recurrence with full reorthogonalisation and the small eigenproblem run on
 * the device (Golub and Van Loan, Matrix Computations, section 10.1). `seed`: of the start vector. */
int unroll_lanczos(struct unroll *unroll, int step, uint64_t seed);
/* The factor's eigenvalues, largest magnitude first: [rank]. */
int unroll_read_eigenvalues(struct unroll *unroll, float *eigenvalues);
/* The factor as numbers, for checkpoints: count 0 without Lanczos. */
int64_t unroll_factor_count(const struct unroll *unroll);
int unroll_read_factor(struct unroll *unroll, float *factor);
int unroll_write_factor(struct unroll *unroll, const float *factor);

#endif
