/* Tuning the convolutions and matrix products of some work within a time: what `retort tune` does, and `retort run` on
 * a GPU of which nothing is known yet. */
#ifndef RETORT_COMMAND_TUNER_H
#define RETORT_COMMAND_TUNER_H

#include "bench/bench.h"

#define TUNE_SECONDS 60 /* for a GPU, unless told otherwise */

struct tuner_spec {
    struct kernel_target target;
    struct kernel_demand *list; /* sorted by the tuner: what takes most of the arithmetic comes first */
    size_t count;
    bool quick;       /* fewer choices and shorter measurements */
    double seconds;   /* for all together; 0: as long as it takes */
    const char *path; /* the file to remember choices in; "": none are kept */
    const volatile int *interrupt;
    /* Told of each class that was tuned; NULL: nobody is. A status below 0 ends the tuning with it. */
    int (*tell)(void *user, const struct kernel_demand *demand, const struct tune_result *result);
    void *user;
};
/* Sums over the launches of all classes tuned. */
struct tuner_total {
    double built_in, best; /* seconds of all launches once */
    int tuned, found, wrong;
};
/* Takes products out of the list, and its count, where there is but one way to compute them. Each choice is remembered
 * as soon as it is found, and each that is bad; at the end, that the device was tuned. RETORT_EINTERRUPTED keeps what
 * was found. */
int tuner_run(struct tuner_spec *spec, struct tuner_total *total);

#endif
