/* Measuring kernels in a child process, the program itself as `retort tune-worker`: a kernel that makes the driver
 * crash or hang ends the child, and another one goes on.
 *
 * The child reads a line a choice from standard input, and writes lines to standard output:
 *
 *     > SECONDS ONCE SPILL <tab> what wisdom_write_task writes
 *     < ready                      once, when the device is open
 *     < building                   before a driver's compiler is called
 *     < testing                    before a library is tested (gemm.h)
 *     < running                    before launches
 *     < result ERROR DEPARTURE ONCE SECONDS SPILLS FAILED <tab> what is wrong, or nothing
 *     < failed STATUS <tab> message
 *
 * It ends when its standard input does. */
#ifndef RETORT_COMMAND_WORKER_H
#define RETORT_COMMAND_WORKER_H

#include "bench/bench.h"

struct worker;
/* The target's device, which the child opens itself when it is first needed. `interrupt` ends all waiting. */
int worker_create(const struct kernel_target *target, const volatile int *interrupt, struct worker **worker);
void worker_destroy(struct worker *worker); /* NULL-safe; ends the child at once */
/* From now on nothing is waited for after this time of clock_seconds(); 0: no such time. */
void worker_set_end(struct worker *worker, double end);
/* tune_bench_measure in the child. Its end, or silence of ten seconds (sixty while it builds, three minutes while a
 * library is tested), is a fault of the choice. RETORT_EINTERRUPTED at the end that was set, or when interrupted. The
 * words of a fault are the worker's until it measures again. */
int worker_measure(struct worker *worker, const struct tune_task *task, const struct trial_limits *limits,
                   struct trial_result *result);

#endif
