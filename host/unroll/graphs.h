/* The graphs that an unroll compiles, and the names of what they read and write. */
#ifndef RETORT_UNROLL_GRAPHS_H
#define RETORT_UNROLL_GRAPHS_H

#include "unroll/unroll.h"

/* Inputs and results. Those of optimiser states are a run each, state i at SLOT_STATE + i. */
enum slot {
    SLOT_THETA,
    SLOT_STATE,
    SLOT_STATE_LAST = SLOT_STATE + OPTIMIZER_MAX_STATE - 1,
    SLOT_NEW_THETA,
    SLOT_NEW_STATE,
    SLOT_NEW_STATE_LAST = SLOT_NEW_STATE + OPTIMIZER_MAX_STATE - 1,
    SLOT_STATS,
    SLOT_NEW_STATS,
    SLOT_SCALARS,
    SLOT_SEED,
    SLOT_SET_IMAGES,
    SLOT_SET_LABELS,
    SLOT_ROWS,
    SLOT_MAPS,
    SLOT_COLOUR,
    SLOT_GRADIENT,
    SLOT_GRADIENT_IN,
    SLOT_LOSS,
    SLOT_LOSS_IN,
    SLOT_NORM,
    SLOT_A_G,
    SLOT_LAMBDA,
    SLOT_OUT_LAMBDA,
    SLOT_LAMBDA_STATE,
    SLOT_LAMBDA_STATE_LAST = SLOT_LAMBDA_STATE + OPTIMIZER_MAX_STATE - 1,
    SLOT_OUT_LAMBDA_STATE,
    SLOT_OUT_LAMBDA_STATE_LAST = SLOT_OUT_LAMBDA_STATE + OPTIMIZER_MAX_STATE - 1,
    SLOT_DLR,
    SLOT_OUT_DLR,
    SLOT_DS,
    SLOT_OUT_DS,
    SLOT_DY,
    SLOT_OUT_DY,
    SLOT_IMAGE_TANGENTS,
    SLOT_LABEL_TANGENTS,
    SLOT_IMAGES,
    SLOT_LABELS,
    SLOT_CORRECT,
    SLOT_BASIS,
    SLOT_VECTORS,
    SLOT_VECTOR,
    SLOT_EIGENVALUES,
    SLOT_PRODUCT,
    SLOT_PRODUCT_IN,
    SLOT_PROJECTION,
    SLOT_PROJECTIONS,
    SLOT_NORMS,
    SLOT_NEXT,
    SLOT_COUNT
};
extern const char *const slot_names[SLOT_COUNT];
#define VECTOR(n) SHAPE(n)

/* For builders: an input and a result of a slot's name; and the end, the graph or NULL with the message set. */
struct node *slot_input(struct graph *graph, enum slot slot, enum dtype type, struct shape shape);
void slot_output(struct graph *graph, enum slot slot, struct node *node);
struct graph *graph_finish(struct graph *graph, int status);

/* What one of several graphs of a kind is for. */
enum graph_flag {
    GRAPH_MORE = 1,        /* gradient: adds to what earlier parts of the batch left */
    GRAPH_PROBE = 2,       /* gradient: with loss and norm */
    GRAPH_KEEP = 4,        /* gradient, product: values on the way are handed from one to the other */
    GRAPH_COMPACT = 8,     /* product: a part's tangents row by row instead of their addition to the set's gradient */
    GRAPH_LOW_RANK = 16,   /* product: by the low-rank factor of the Hessian */
    GRAPH_NO_HESSIAN = 32, /* product: mixed derivatives only */
};
struct graph_form {
    int64_t count; /* rows of a part of the batch */
    double share;  /* a part's share of the whole batch, of all members of a team: the loss is scaled by it */
    unsigned flags;
};

/* Each builds one graph; NULL after a failure, the error message then being set. */
typedef struct graph *graph_builder(const struct unroll_spec *spec, const struct graph_form *form);

/* seed -> theta */
graph_builder graph_initial;
/* theta, stats?, set images, set labels, rows, maps?, colour?, gradient in? -> gradient, new stats?, loss?, norm?. With
 * GRAPH_KEEP also opaque results "kept 0", "kept 1", ..., which the product with GRAPH_KEEP reads instead of computing
 * them again; which they are depends on neither GRAPH_MORE nor GRAPH_PROBE. */
graph_builder graph_gradient;
/* theta, state 0.., gradient, scalars -> new theta, new state 0.. */
graph_builder graph_update;
/* theta, new state 0.., gradient, scalars, lambda, lambda 0.., dlr -> a_g, out lambda, out lambda 0.., out dlr; without
 * weight decay lambda passes unchanged and there is no "out lambda" */
graph_builder graph_adjoint;
/* theta, set ..., a_g, scalars, lambda, dS, dy? -> out lambda, out dS, out dy?; where compact -> out lambda, image
 * tangents [count,C,H,W], label tangents? [count,K]; low-rank also reads basis, eigenvalues and (Adam) new state 1 */
graph_builder graph_product;
/* rows, scalars, image tangents [b,C,H,W], label tangents? [b,K], dS, dy? -> out dS, out dy?: all parts' tangents are
 * added to the set's gradient at once */
graph_builder graph_scatter;
/* theta, stats?, images, labels -> correct */
graph_builder graph_test;

/* Lanczos. seed -> vector; product -> vector; theta, set ..., vector, product in -> product; basis, product ->
 * projection [m+1], next, norm; basis, projections, norms -> vectors, eigenvalues. */
graph_builder graph_lanczos_start;
graph_builder graph_lanczos_unit;
graph_builder graph_lanczos_product;
graph_builder graph_lanczos_next;
graph_builder graph_lanczos_finish;

#endif
