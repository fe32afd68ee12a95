/* The meta-loss of back-propagation through training: the mean cross-entropy of a batch of real images at the weights
 * as they are now, and its gradient by these weights, which is the window's terminal adjoint. A pass (unroll/pass.h).
 */
#ifndef RETORT_UNROLL_META_H
#define RETORT_UNROLL_META_H

#include "nn/nn.h"
#include "unroll/pass.h"

struct meta_spec {
    const struct network *network;
    int64_t batch; /* r: real images */
    bool augment;  /* they go through node_sample by a map each */
};

/* The row for unroll_create; the spec is borrowed for the life of the unroll. */
struct pass_spec meta_pass(const struct meta_spec *spec);
/* images [r,C,H,W], labels [r], maps [r,6] with augment. */
int meta_upload(struct pass *pass, const float *images, const int32_t *labels, const float *maps);
int meta_run(struct pass *pass);                                  /* does not wait */
struct place meta_lambda(const struct pass *pass);                /* the gradient by the weights [p] */
int meta_read(struct pass *pass, double *loss, double *accuracy); /* accuracy in percent of the batch */

#endif
