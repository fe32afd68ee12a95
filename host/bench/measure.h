/* Timing the kernels of one use on random operands. */
#ifndef RETORT_BENCH_MEASURE_H
#define RETORT_BENCH_MEASURE_H

#include "bench/bench.h"

struct operand {
    float *values; /* as it lies on the device */
    size_t count;
};
/* Allocates and fills with normal numbers; `stream` tells one operand from another. RETORT_ENOMEM. */
int operand_fill(struct operand *operand, size_t count, uint32_t stream);
void operand_finish(struct operand *operand); /* NULL-safe */

/* Builds and times what a use launches on (result, first, second operand); reads the result. Matrix products are uses
 * of the same form. Sets result->file and result->seconds. */
int measure_use(struct device *device, const struct kernel_target *target, const struct conv_use *use,
                struct operand operands[3], struct bench_kernel_result *result);

#endif
