/* Timing the kernels of one operation on random operands. */
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

/* Builds and times the launches of a plan on its operands, results first, for about `seconds` each kernel; reads the
 * results, which begin as NaN. Sets result->file, that of the kernel that does most of the arithmetic, and
 * result->seconds. */
enum { MOST_OPERANDS = 6 };
struct plan_operands {
    struct operand of[MOST_OPERANDS];
    int results, count;
};
int measure_plan(struct device *device, const struct kernel_target *target, const struct kernel_plan *plan,
                 double seconds, struct plan_operands *operands, struct bench_kernel_result *result);
void plan_operands_finish(struct plan_operands *operands); /* NULL-safe */

/* --- a class of convolutions, measured by one choice after another on the same operands --- */
struct conv_trial;
int conv_trial_create(const struct kernel_target *target, const struct conv_class *class, struct conv_trial **trial);
void conv_trial_destroy(struct conv_trial *trial); /* NULL-safe */
/* Plans, times and checks the class as the target chooses: against double precision at a few hundred places, and
 * against the first measurement at all. */
int conv_trial_measure(struct conv_trial *trial, struct device *device, const struct kernel_target *target,
                       double seconds, struct bench_kernel_result *result);

#endif
