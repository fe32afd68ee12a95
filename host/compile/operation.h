/* The plans of operations that hand-written kernels compute. */
#ifndef RETORT_COMPILE_OPERATION_H
#define RETORT_COMPILE_OPERATION_H

#include "compile/group.h"
#include "compile/plan.h"

/* The plan of a group of role ROLE_LIBRARY: of one operation, or of convolutions that are joined. Its inputs are the
 * nodes' operands; of convolutions as convolution_join() lists them. */
int operation_plan(const struct grouping *grouping, const struct group *group, struct kernel_plan *plan);

/* Of an OP_MATMUL. */
struct matmul_sizes matmul_sizes_of(const struct node *node);

#endif
