/* Benchmarks: speeds of this device at what distillation asks of it. Random data, nothing is read or written. */
#ifndef RETORT_BENCH_BENCH_H
#define RETORT_BENCH_BENCH_H

#include "compile/trial.h"
#include "compile/wisdom.h"

/* --- whole outer steps: prefix, window, meta-loss and exact backward of ConvNet-3 with instance norm under Adam --- */
struct bench_step_spec {
    int image[3];       /* channels, height, width */
    int ipc;            /* images per class, of 10 classes; the inner batch is the whole set */
    int prefix, window; /* plain inner steps, then those differentiated */
    int real;           /* images of the meta-loss */
    int width;          /* of the network */
    int reps;           /* outer steps timed, after a first one that is timed apart; at least 1 */
    uint64_t memory;    /* ceiling over device memory in bytes; 0: none */
    enum family family;
    bool profile;   /* device time per kernel of the steps timed */
    FILE *launches; /* where to list every launch before the steps; NULL: nowhere */
};
struct bench_step_result {
    double seconds_min, seconds_median; /* of the steps timed */
    double processor_seconds;           /* of the step that took the least, all cores together */
    double first_seconds;               /* of the first step */
    double build_seconds;               /* planning, building kernels, allocating */
    double flops;                       /* operations of a step, convolutions counted as plain sums of products */
    int kept_steps;                     /* of the window: those that keep values for the backward pass */
    char plan[200];                     /* unroll_describe's words */
    double loss, accuracy;              /* of the real batch after the steps: equal settings, equal numbers */
    uint64_t peak_device_bytes;
    uint64_t peak_resident_bytes;  /* of this process so far */
    struct device_profile profile; /* the caller's, for device_profile_finish */
};
/* The convolutions and matrix products that such a step launches, by classes, as they are without wisdom. The array is
 * the caller's to free(). */
int bench_step_classes(struct device *device, const struct bench_step_spec *spec, struct kernel_demand **list,
                       size_t *count);
/* Writes what a device that need not be present would be given for such a step: the text of the program (NULL: not
 * wanted), and every launch. Nothing is built or allocated. */
int bench_step_kernels(struct device *device, const struct bench_step_spec *spec, FILE *program, FILE *launches);
int bench_step(struct device *device, const struct bench_step_spec *spec, struct bench_step_result *result);

/* The same steps kept ready, for those who time them by turns; `reps`, `profile` and `launches` are not looked at. */
struct bench_steps;
int bench_steps_create(struct device *device, const struct bench_step_spec *spec, struct bench_steps **steps);
void bench_steps_destroy(struct bench_steps *steps);               /* NULL-safe */
int bench_steps_outer(struct bench_steps *steps, double *seconds); /* of one */
/* Of one inner step, from as many as pass in about `enough` seconds. */
int bench_steps_inner(struct bench_steps *steps, double enough, double *seconds);
double bench_steps_loss(const struct bench_steps *steps); /* of the real images after the last outer step */
/* Operations of an outer step, or of an inner one. */
double bench_steps_flops(const struct bench_steps *steps, bool inner);

/* --- single kernels, as the kernel choice serves them --- */
struct bench_kernel_result {
    const char *file; /* of cl/: the kernel that does most of the work; or the library that does it */
    const char *way;  /* of a convolution: its row in the kernel choice */
    double seconds;   /* of one product, with packing before it and adding up after it */
    double flops;     /* plain sums of products */
    double error;     /* largest difference from double precision over the largest right value */
};
/* Every element of the product is checked. */
int bench_gemm(struct device *device, const struct kernel_target *target, const struct matmul_sizes *sizes,
               struct bench_kernel_result *result);

enum bench_conv_pass { BENCH_FORWARD, BENCH_BACKWARD_DATA, BENCH_BACKWARD_WEIGHT };
/* A 3x3 convolution with stride 1 and padding 1 of `batch` square images. A few hundred elements are checked,
 * and that nothing is written outside the result, twice the same. */
struct bench_conv_spec {
    enum bench_conv_pass pass;
    int64_t batch, channels, outputs, side;
};
int bench_conv(struct device *device, const struct kernel_target *target, const struct bench_conv_spec *spec,
               struct bench_kernel_result *result);
/* As bench_step_kernels, for one convolution and both its derivatives; the spec's pass is not looked at. */
int bench_conv_kernels(struct device *device, enum family family, const struct bench_conv_spec *spec, FILE *program,
                       FILE *launches);

/* --- tuning: the fastest right choice for a class of convolutions or matrix products --- */
struct tune_task {
    struct kernel_class class;
    struct kernel_choice choice;
};
/* Measures choices in this process. The first right result of a class is what those after it are compared with, until
 * another class is measured. RETORT_EINVAL where the kernels do not allow the choice; that a kernel cannot be built or
 * run, or a library fails its test (gemm.h), is a fault of the result. */
struct tune_bench;
int tune_bench_create(struct device *device, const struct kernel_target *target, struct tune_bench **bench);
void tune_bench_destroy(struct tune_bench *bench); /* NULL-safe */
int tune_bench_measure(struct tune_bench *bench, const struct tune_task *task, const struct trial_limits *limits,
                       struct trial_result *result);

struct tune_spec {
    struct kernel_class class;
    bool joined;    /* other launches join it with others, so that its method must be one that can */
    bool quick;     /* fewer tiles */
    double seconds; /* for each kernel of each choice, about */
    double ends;    /* the clock_seconds() by which to be done, but not before the built-in choice and another have been
                       measured; 0: when all is measured */
    double deadline;    /* the clock_seconds() after which nothing more is measured, whatever is known; 0: none */
    struct wisdom *bad; /* whose bad choices are not tried; NULL: none */
    const volatile int *interrupt; /* stops the search when it becomes non-zero; NULL: nothing does */
    /* tune_bench_measure here, or in another process. RETORT_EINTERRUPTED ends the search: what was found and not
     * confirmed is dropped. */
    int (*measure)(void *user, const struct tune_task *task, const struct trial_limits *limits,
                   struct trial_result *result);
    /* Told of each choice that is not right; NULL: nobody is. */
    void (*refuse)(void *user, const struct kernel_class *class, const struct kernel_choice *choice, const char *fault);
    void *user;
};
struct tune_result {
    bool better;                 /* than the built-in choice, by more than the noise, measured twice */
    bool cut_short;              /* by the clock or an interrupt */
    struct kernel_choice choice; /* where it is better */
    double built_in_seconds, best_seconds;
    int tried, wrong;   /* choices measured; those of them whose result was wrong, which are never taken */
    double worst_error; /* of all tried, from double precision */
};
/* Every choice is checked, each element, against the built-in kernel, and a few hundred against double precision.
 * Calls nothing of the device but spec->measure. RETORT_EDEVICE where the built-in kernel is wrong itself. */
int bench_tune(const struct kernel_target *target, const struct tune_spec *spec, struct tune_result *result);

/* Instance norm, activation and pooling of feature maps that overflow every cache (where memory allows): one visit of
 * each plane, limited by memory. The time is that of the one kernel doing it. RETORT_EDEVICE where the driver's clock
 * is wrong. */
struct bench_rows_result {
    int64_t batch, channels, side;
    double seconds, bytes; /* bytes: maps read and maps written */
};
int bench_rows(struct device *device, enum family family, struct bench_rows_result *result);

/* Images of spectra and spectra of images, one after the other, by matrix products and by the library for Fourier
 * transforms; difference: the largest one between the two over the largest value, NaN without the library. Where the
 * library is in the build and cannot be taken, a warning says why. */
struct bench_frequency_times {
    double least, median; /* seconds */
};
struct bench_frequency_result {
    bool has_library; /* it transforms these sides, and is right */
    struct bench_frequency_times products, library;
    double difference;
};
struct dct_shape; /* distill/dct.h */
int bench_frequency(struct device *device, enum family family, const struct dct_shape *shape,
                    struct bench_frequency_result *result);

/* What it costs to start a kernel that does next to nothing: seconds each of many that are queued together, and of one
 * that is waited for. RETORT_EDEVICE where launches get lost. */
int bench_launch(struct device *device, double *queued, double *waited);

#endif
