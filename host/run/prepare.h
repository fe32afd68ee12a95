/* What is done before the first step of a run: everything is planned, compiled, tested and allocated, so that what
 * cannot work fails at once, and the steps do nothing but compute. */
#ifndef RETORT_RUN_PREPARE_H
#define RETORT_RUN_PREPARE_H

#include "evaluate/evaluate.h"
#include "run/run_folder.h"

/* Plans the evaluation, whose failure would come only at the end, and makes the method, by kernels that this device
 * computes rightly: where the self-test refuses some, all is planned anew. A frozen plan is taken, another is written
 * to *plan. The session has kernels; `interrupt` as in distill_problem. */
int prepare_run(const struct descriptor *descriptor, struct session *session, struct run_plan *plan,
                const volatile int *interrupt, struct distill **distill);

/* Settings that do not go with the data, or cannot be divided among the session's team: RETORT_EINVAL with the key. */
int prepare_check(const struct descriptor *descriptor, const struct session *session);

struct kernel_demand;
/* The convolutions and matrix products that distilling by a descriptor launches: library_classes, once everything is
 * planned. The session has kernels. */
int prepare_classes(const struct descriptor *descriptor, const struct session *session, struct kernel_demand **list,
                    size_t *count);

#endif
