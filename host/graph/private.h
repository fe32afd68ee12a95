/* What the files of this module share.
 *
 *     builders.c   what callers call: puts a draft together
 *     ops.c        the operation table: checks the draft and works out its type and shape
 *     fold.c       replaces the draft where an identity makes it needless
 *     graph.c      finds its equal among the nodes, or stores it
 *     reference.c  what each operation computes
 *
 * A draft is a struct node that is in no graph yet: op, attributes and inputs, and dtype and shape where the operation
 * is told them. */
#ifndef RETORT_GRAPH_PRIVATE_H
#define RETORT_GRAPH_PRIVATE_H

#include "graph/graph.h"

/* Checks, folds, shares or stores a draft. The draft's inputs may be reordered. */
struct node *graph_build(struct graph *graph, struct node *draft);

/* Works out type and shape; NULL, or words saying what does not fit. */
const char *op_check(struct node *draft);
/* A node equal to the checked draft, or NULL where it has to be stored. */
struct node *fold(struct graph *graph, const struct node *draft);
/* Whether every element of a node is known to be the same number, and which. */
bool node_is_constant(const struct node *node, double *value);
bool node_is_zero(const struct node *node);

void reference_constant(const struct node *node, const double *const *inputs, double *out);
void reference_iota(const struct node *node, const double *const *inputs, double *out);
void reference_random(const struct node *node, const double *const *inputs, double *out);
void reference_unary(const struct node *node, const double *const *inputs, double *out);
void reference_binary(const struct node *node, const double *const *inputs, double *out);
void reference_select(const struct node *node, const double *const *inputs, double *out);
void reference_broadcast(const struct node *node, const double *const *inputs, double *out);
void reference_reshape(const struct node *node, const double *const *inputs, double *out);
void reference_permute(const struct node *node, const double *const *inputs, double *out);
void reference_slice(const struct node *node, const double *const *inputs, double *out);
void reference_pad(const struct node *node, const double *const *inputs, double *out);
void reference_reverse(const struct node *node, const double *const *inputs, double *out);
void reference_concat(const struct node *node, const double *const *inputs, double *out);
void reference_one_hot(const struct node *node, const double *const *inputs, double *out);
void reference_average_pool(const struct node *node, const double *const *inputs, double *out);
void reference_average_pool_transpose(const struct node *node, const double *const *inputs, double *out);
void reference_reduce(const struct node *node, const double *const *inputs, double *out);
void reference_argmax(const struct node *node, const double *const *inputs, double *out);
void reference_matmul(const struct node *node, const double *const *inputs, double *out);
void reference_conv(const struct node *node, const double *const *inputs, double *out);
void reference_conv_backward_data(const struct node *node, const double *const *inputs, double *out);
void reference_conv_backward_weight(const struct node *node, const double *const *inputs, double *out);
void reference_gather_rows(const struct node *node, const double *const *inputs, double *out);
void reference_scatter_rows(const struct node *node, const double *const *inputs, double *out);
void reference_sample(const struct node *node, const double *const *inputs, double *out);
void reference_sample_transpose(const struct node *node, const double *const *inputs, double *out);
void reference_eigh(const struct node *node, const double *const *inputs, double *out);

#endif
