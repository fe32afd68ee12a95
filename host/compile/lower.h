/* From steps to launches: text is written for fused kernels, and hand-written ones are chosen for operations. */
#ifndef RETORT_COMPILE_LOWER_H
#define RETORT_COMPILE_LOWER_H

#include "compile/schedule.h"

/* Adds the launches of all steps to the list of the layouts. */
int lower_steps(const struct schedule *schedule, struct launch_list *list);

#endif
