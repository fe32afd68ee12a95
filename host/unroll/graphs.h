/* The graphs an unroll compiles. Names of inputs and outputs are those used in unroll.c's bindings. */
#ifndef RETORT_UNROLL_GRAPHS_H
#define RETORT_UNROLL_GRAPHS_H

#include "unroll/unroll.h"

/* Each builds one graph; NULL after a failure, the error message then being set. `batch` is that of one micro-batch,
 * `share` its share of the whole batch (the loss is scaled by it). */

/* seed -> theta */
struct graph *graph_initial(const struct unroll_spec *spec);
/* theta, stats?, set images, set labels, rows, maps?, colour?, gradient in? -> gradient, new stats?, loss?, norm? */
struct graph *graph_gradient(const struct unroll_spec *spec, int64_t batch, double share, bool accumulate, bool probe);
/* theta, state 0.., gradient, scalars -> new theta, new state 0.. */
struct graph *graph_update(const struct unroll_spec *spec);
/* theta, new state 0.., gradient, scalars, lambda, lambda 0.., dlr -> a_g, out lambda, out lambda 0.., out dlr; without
 * weight decay lambda passes unchanged and there is no "out lambda" */
struct graph *graph_adjoint(const struct unroll_spec *spec);
/* theta, set ..., a_g, scalars, lambda, dS, dy? -> out lambda, out dS, out dy?; with lanczos also basis, eigenvalues,
 * (Adam) new state 1, `first` telling whether this micro-batch adds the low-rank product. */
struct graph *graph_product(const struct unroll_spec *spec, int64_t batch, double share, bool lanczos, bool first);
/* The gradient and the exact product where the values of a step are kept between the two: the gradient has opaque
 * results more, "kept 0", "kept 1", ..., the product reads them instead of computing them again. Which they are depends
 * on neither `accumulate` nor `probe`. */
struct graph *graph_gradient_keeping(const struct unroll_spec *spec, int64_t batch, double share, bool accumulate,
                                     bool probe);
struct graph *graph_product_reading(const struct unroll_spec *spec, int64_t batch, double share);
/* theta, images, targets, labels, maps?, lambda, loss, correct -> out lambda, out loss, out correct. Targets carry the
 * weight of their row: batch / meta_batch for a real one, 0 for padding, whose label is -1. */
struct graph *graph_meta(const struct unroll_spec *spec, int64_t batch);
/* theta, stats?, images, labels -> correct */
struct graph *graph_test(const struct unroll_spec *spec);

/* Lanczos. seed -> vector;  theta, set ..., vector, product in -> product;  basis, product, -> projection [m+1], next,
 * norm; basis, alpha, beta -> vectors, eigenvalues. */
struct graph *graph_lanczos_start(const struct unroll_spec *spec);
struct graph *graph_lanczos_unit(const struct unroll_spec *spec);
struct graph *graph_lanczos_product(const struct unroll_spec *spec, int64_t batch, double share);
struct graph *graph_lanczos_next(const struct unroll_spec *spec);
struct graph *graph_lanczos_finish(const struct unroll_spec *spec);

#endif
