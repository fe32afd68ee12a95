/* Benchmarks: speeds of this device at what distillation asks of it. Random data, nothing is read or written. */
#ifndef RETORT_BENCH_BENCH_H
#define RETORT_BENCH_BENCH_H

#include "compile/executable.h"

/* --- whole outer steps: prefix, window, meta-loss and exact backward of ConvNet-3 with instance norm under Adam --- */
struct bench_step_spec {
    int image[3];       /* channels, height, width */
    int ipc;            /* images per class, of 10 classes; the inner batch is the whole set */
    int prefix, window; /* plain inner steps, then those differentiated */
    int real;           /* images of the meta-loss */
    int width;          /* of the network */
    int reps;           /* outer steps timed, after a first one that is timed apart; at least 1 */
    enum family family;
    bool profile;   /* device time per kernel of the steps timed */
    FILE *launches; /* where to list every launch before the steps; NULL: nowhere */
};
struct bench_step_result {
    double seconds_min, seconds_median; /* of the steps timed */
    double processor_seconds;           /* the least of a step, all cores together */
    double first_seconds;               /* of the first step */
    double build_seconds;               /* planning, building kernels, allocating */
    double flops;                       /* operations of a step, convolutions counted as plain sums of products */
    double loss, accuracy;              /* of the real batch after the steps: equal settings, equal numbers */
    uint64_t peak_device_bytes;
    uint64_t peak_resident_bytes;  /* of this process so far */
    struct device_profile profile; /* the caller's, for device_profile_finish */
};
int bench_step(struct device *device, const struct bench_step_spec *spec, struct bench_step_result *result);

#endif
