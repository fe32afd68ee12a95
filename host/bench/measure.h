/* Timing the kernels of one operation on random operands. */
#ifndef RETORT_BENCH_MEASURE_H
#define RETORT_BENCH_MEASURE_H

#include "bench/bench.h"
#include "compile/trial.h"

#define BENCH_SECONDS 0.1 /* for each kernel of a benchmark */

/* The file of the kernel that does most of a plan's arithmetic. */
const char *plan_main_file(const struct kernel_plan *plan);
/* Builds and times the launches of a plan on its operands for about `seconds` each kernel; reads the results, which
 * begin as NaN. Sets result->file and result->seconds. */
int measure_plan(struct device *device, const struct kernel_target *target, const struct kernel_plan *plan,
                 double seconds, struct plan_operands *operands, struct bench_kernel_result *result);

#endif
