/* Whether a device computes what the compiler writes for it: a backward step of a small network, which holds kernels of
 * every kind, against double precision. Drivers compute wrong numbers now and then, on every vendor's devices, and
 * kernels merged from several are what they have most trouble with. */
#ifndef RETORT_UNROLL_SELF_TEST_H
#define RETORT_UNROLL_SELF_TEST_H

#include "compile/kernels.h"
#include "nn/nn.h"

/* The largest error of a result over its largest value; INFINITY where something is not finite. The network is like
 * `like` in all but its sizes. RETORT_EDEVICE and others where it cannot be built or run. */
int unroll_self_test(struct device *device, const struct kernel_target *target, const struct network *like,
                     double *error);
/* What rounding explains, and some more. */
#define UNROLL_SELF_TEST_ERROR 1e-3

#endif
