/* Inner training on the device: plain steps, and exact meta-gradients through a window of them by step replay.
 *
 * What a training needs is compiled and allocated together, by one creation, because batches are split until all of it
 * fits. Its rooms, each with a header:
 *
 *     trainer.h   the set and the step tables; weights and optimiser; plain steps; tests
 *     window.h    steps that are stored, and the backward pass through them
 *     lanczos.h   the low-rank Hessian
 *     pass.h      a method's own graphs with their buffers; meta.h is the meta-loss
 *     timing.h    what these take, for forecasts
 *
 * The members of a team (team/team.h) can divide every batch among them: each has an unroll of its own, on its own
 * device, and calls the same functions in the same order with the same arguments, whole tables and batches. Each
 * computes its own rows; steps, passes and backward passes add up what they leave, so that results are those of whole
 * batches and have the same bytes at all members.
 *
 * graphs.h has the mathematics, fit.h the choice of parts, memory.h the rows of device memory. */
#ifndef RETORT_UNROLL_UNROLL_H
#define RETORT_UNROLL_UNROLL_H

#include "compile/executable.h"
#include "nn/nn.h"
#include "optimizer/optimizer.h"
#include "unroll/lanczos.h"
#include "unroll/pass.h"
#include "unroll/timing.h"
#include "unroll/trainer.h"
#include "unroll/window.h"

#include <stdio.h>

/* What creation chose, as numbers that a run can write down. Given back to a later creation (`frozen`) they rule in
 * place of the search, so that a resumed run computes with the same kernels on the same parts, to the bit. */
struct unroll_plan {
    int networks;                  /* trained at once, as one batch */
    int inner_splits, meta_splits; /* parts of the inner batch, and of the largest batch of a pass; 1: whole. Where a
                                      team divides batches, of a member's rows of them. */
    int64_t test_batch;            /* images per launch of a test; 0: no tests */
    int kept_steps;                /* steps of the longest window that keep values for their backward step */
    int compute_units;             /* of the device, as kernels were chosen for (device_set_units) */
};

enum { UNROLL_MAX_PASSES = 8, UNROLL_MOST_NETWORKS = 8 };
/* What is compiled. Pointers are borrowed for the life of the unroll. */
struct unroll_spec {
    const struct network *network;
    struct optimizer_spec optimizer;
    int64_t set_count;  /* n: images of the set on the device, synthetic or real */
    int64_t batch;      /* b: rows of it per inner step; 0: no training, for methods that only draw weights */
    int networks;       /* to train with nothing but the seed (and the rows and maps that follow from it) between them:
                           as many of them at once, as one batch, as leave the device no idler than starting launches
                           does, UNROLL_MOST_NETWORKS at most; 0: one. Only without window and passes. */
    int at_once;        /* exactly so many at once; 0: as the device asks */
    bool own_sets;      /* each network at once has a set of its own */
    bool soft_labels;   /* the set's labels are float [n,K]; otherwise int32 [n] */
    bool augment;       /* images of a step go through node_sample by per-image maps */
    bool colour;        /* and through the DSA colour and cutout parameters (training only; see unroll_steps) */
    int max_window;     /* longest window (store size); 0: training only */
    bool no_hessian;    /* backward passes are all HESSIAN_NONE */
    int rank;           /* Lanczos rank, at most LANCZOS_MAX_RANK; 0: no low-rank Hessian */
    int steps;          /* of the longest run that is uploaded at once, to plan memory for its tables; 0: not counted */
    int64_t test_batch; /* images per launch of unroll_test, or fewer where they do not fit; 0: no tests wanted */
    const struct pass_spec *passes; /* [pass_count], read during creation only */
    int pass_count;
    struct team *team; /* whose members divide the rows of every batch among them; NULL: nobody divides */
    const int *shares; /* [members of the team], whole numbers from 1: of b rows a member has about b times its share /
                          the sum of all, one after another in the order of the members. NULL: equal. Read during
                          creation only; the same at all members. */
    const struct unroll_plan *frozen; /* the plan to take; NULL: look for one. Read during creation only. */
    bool plan_only;                   /* allocate and build nothing: for unroll_plan, _describe, _print and _flops */
    const volatile int *interrupt; /* where it becomes non-zero, steps and passes leave with RETORT_EINTERRUPTED, within
                                      about a second; may be NULL */
};

struct unroll;
/* Compiles and builds everything. It splits the batches of passes and of inner steps into micro-batches, and makes the
 * test batch smaller, until all fits: under the device's ceiling, in its memory, each buffer within its largest
 * allocation, each tensor below 2^31 elements. Batch norm cannot be split. RETORT_ELIMIT otherwise, with what does not
 * fit and the least number of bytes. Room that a ceiling leaves then holds results of convolutions of as many steps of
 * the window as fit, whose backward steps need not compute them again; without a ceiling none are kept. What is chosen
 * follows from the spec, the ceiling, the device and what is allocated on it. A frozen plan is taken as it is:
 * RETORT_ELIMIT where it does not fit, RETORT_EINVAL where it does not go with the spec or was made for another number
 * of compute units than the device is set to. Creation exchanges nothing with a team. RETORT_EINVAL where a member
 * would have no row of a batch, and of what cannot be divided: batch norm, several networks, a low-rank Hessian, passes
 * with a result or a bound value for each row. */
int unroll_create(struct library *library, const struct unroll_spec *spec, struct unroll **unroll);
void unroll_destroy(struct unroll *unroll);                              /* NULL-safe */
void unroll_plan(const struct unroll *unroll, struct unroll_plan *plan); /* what was chosen, or taken */
struct pass *unroll_pass(struct unroll *unroll, int i);                  /* of the spec's passes; the unroll's */
/* "inner batch 10 in 1, meta-loss batch 256 in 2, values kept of 12 of 20 window steps, 34.1 MB": what was chosen.
 * Divided: "inner batch 10 in 1, rows 0 to 4 here, ...". */
void unroll_describe(const struct unroll *unroll, char *text, size_t size);
uint64_t unroll_bytes(const struct unroll *unroll); /* on the device, scratch memory included */
int unroll_kept_steps(const struct unroll *unroll); /* of the longest window; the first ones */
/* For benchmarks: a line for each thing compiled (launches, scratch memory, operations), or its whole list of launches.
 */
void unroll_print(const struct unroll *unroll, bool launches, FILE *stream);
/* Device memory by what it holds, scratch memory last; false past the end. `what` lives as long as the unroll. */
struct memory_use {
    const char *of, *what; /* of: the label of the pass whose it is; NULL: the training's */
    uint64_t bytes;        /* 0: none of it is wanted, and it may have no name */
    int buffers;
};
bool unroll_memory_use(const struct unroll *unroll, int i, struct memory_use *use);
/* The same as lines. */
void unroll_print_memory(const struct unroll *unroll, FILE *stream);
/* Operations of one outer step, each convolution counted as its plain sum of products; of a member its own. */
double unroll_flops(const struct unroll *unroll, int prefix, int window);
/* Launches of one outer step with the exact Hessian, initial weights included. */
int unroll_launches(const struct unroll *unroll, int prefix, int window);

#endif
