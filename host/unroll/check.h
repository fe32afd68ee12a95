/* One small truncated-BPTT problem with everything given, taken through the same path as a run: for `retort check`. */
#ifndef RETORT_UNROLL_CHECK_H
#define RETORT_UNROLL_CHECK_H

#include "compile/executable.h"
#include "nn/nn.h"
#include "optimizer/optimizer.h"

struct team;
/* The problem. Arrays are borrowed, sizes were checked by the caller, row numbers lie in the set. */
struct check_case {
    struct network network;
    struct optimizer_spec optimizer;
    int steps;  /* N: the meta-loss is taken after this many inner steps */
    int window; /* W: the last W of the N are back-propagated */
    int64_t synthetic_count, batch_count, real_count;
    const float *theta0;           /* [p] */
    const float *synthetic_images; /* [n,C,H,W] */
    const float *soft_labels;      /* [n,K], or NULL */
    const int32_t *hard_labels;    /* [n], or NULL */
    const int32_t *batches;        /* [N,b]: rows of the set at each inner step */
    const float *real_images;      /* [r,C,H,W] */
    const int32_t *real_labels;    /* [r] */
    int eigenvalue_count;          /* k: eigenvalues of the inner loss's Hessian wanted; 0: none */
    struct team *team;             /* its members divide every batch among them (unroll.h); NULL: nobody does */
    const int *shares;             /* [members of the team], or NULL: equal */
};

/* The answers, owned. */
struct check_result {
    double *inner_loss; /* [N] */
    double *grad_norm;  /* [N], before weight decay */
    float *theta_end;   /* [p] */
    double outer_loss;
    float *dsyn_x;       /* [n,C,H,W] */
    float *dsyn_y;       /* [n,K], or NULL with hard labels */
    double *eigenvalues; /* [k] at theta0, the whole set as the batch, no weight decay, largest magnitude first */
};

int check_case(struct library *library, const struct check_case *problem, struct check_result *result);
void check_result_finish(struct check_result *result); /* NULL-safe, zeroes */

#endif
