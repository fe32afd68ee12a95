/* Timing the kernels of one use on random operands. */
#ifndef RETORT_BENCH_MEASURE_H
#define RETORT_BENCH_MEASURE_H

#include "bench/bench.h"

#define BENCH_SECONDS 0.1 /* for each kernel of a benchmark */

struct operand {
    float *values; /* as it lies on the device */
    size_t count;
};
/* Allocates and fills with normal numbers; `stream` tells one operand from another. RETORT_ENOMEM. */
int operand_fill(struct operand *operand, size_t count, uint32_t stream);
void operand_finish(struct operand *operand); /* NULL-safe */

/* Builds and times what a use launches on its operands, results first, for about `seconds` each kernel; reads the
 * results, which begin as NaN. The last `packed` operands go through `pack` where there is one. Matrix products are
 * uses of the same form. Sets result->file and result->seconds. */
enum { MOST_OPERANDS = 6 };
struct use_operands {
    struct operand of[MOST_OPERANDS];
    int results, count, packed;
};
int measure_use(struct device *device, const struct kernel_target *target, const struct conv_use *use, double seconds,
                struct use_operands *operands, struct bench_kernel_result *result);
void use_operands_finish(struct use_operands *operands); /* NULL-safe */

/* --- a class of convolutions, measured by one choice after another on the same operands --- */
struct conv_trial;
int conv_trial_create(const struct kernel_target *target, const struct conv_class *class, struct conv_trial **trial);
void conv_trial_destroy(struct conv_trial *trial); /* NULL-safe */
/* Plans, times and checks the class as the target chooses: against double precision at a few hundred places, and
 * against the first measurement at all. */
int conv_trial_measure(struct conv_trial *trial, struct device *device, const struct kernel_target *target,
                       double seconds, struct bench_kernel_result *result);

#endif
