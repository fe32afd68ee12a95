/* Convolutions that one launch computes. The derivatives of a convolution come in families: y = x * w with its tangent
 * y' = x' * w + x * w', the same backwards, and sums of two backward-weights. A sum of two convolutions becomes one
 * operation, and operations that share an input or weights one launch, wherever the kernels can: then operands are
 * read and transformed once. */
#ifndef RETORT_COMPILE_CONVOLUTION_H
#define RETORT_COMPILE_CONVOLUTION_H

#include "compile/group.h"

enum { TERMS = 2 };

/* One of the convolutions, or a sum of two that is one operation for the later passes (convolution_sums). */
bool is_convolution(const struct grouping *grouping, const struct node *node);
enum conv_pass convolution_pass(const struct node *node);
/* Makes sums of two convolutions one operation where the kernels can. After the roles are known, before groups. */
void convolution_sums(struct grouping *grouping, const bool *is_output);
/* Whether two groups are convolutions that one launch can compute, and that share an input or weights. */
bool convolutions_join(const struct grouping *grouping, const struct group *a, const struct group *b);

/* A group of convolutions as one launch. */
struct joined {
    struct kernel_class class;
    int input_count, weight_count;
    const struct node *inputs[TERMS], *weights[TERMS]; /* of backward-weight: pairs of x and y */
    enum layout from, to;                              /* layouts of the inputs and of the results */
    enum layout second;                                /* of `weights` as they are read */
    double flops;
};
/* RETORT_EUNSUPPORTED where they have too many operands for one launch: a group made by convolutions_join has not. */
int convolution_join(const struct grouping *grouping, const struct group *group, struct joined *joined);

#endif
