/* Evaluating a set that exists: what `retort eval` and include/retort/evaluate.h do. */
#ifndef RETORT_RUN_EVALUATION_H
#define RETORT_RUN_EVALUATION_H

#include "retort/evaluate.h"
#include "run/schema.h"

/* What is to be evaluated, and how. */
struct evaluation_request {
    const char *set;    /* what set_find finds; with `labels` a .npy file of images */
    const char *labels; /* a .npy file, or NULL */
    const char *with;   /* a descriptor instead of the set's own recipe, or NULL */
    const char *text;   /* or its text, whose paths start at `folder` */
    const char *folder;
    const struct schema_override *overrides;
    size_t override_count;
    const volatile int *interrupt;
};
int evaluation_compute(const struct evaluation_request *request, struct retort_evaluation **evaluation);

#endif
