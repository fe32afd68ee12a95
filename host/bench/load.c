#include "bench/load.h"

#include "base/error.h"
#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The triad of a convolution. */
#define TRIAD(prefix, title, soon, ...)                                                                   \
    {prefix "-forward", title ", forward", LOAD_CONVOLUTION, soon, .conv = {BENCH_FORWARD, __VA_ARGS__}}, \
        {prefix "-to-data", title ", to the data", LOAD_CONVOLUTION, soon,                                \
         .conv = {BENCH_BACKWARD_DATA, __VA_ARGS__}},                                                     \
    {                                                                                                     \
        prefix "-to-weights", title ", to the weights", LOAD_CONVOLUTION, soon, .conv = {                 \
            BENCH_BACKWARD_WEIGHT,                                                                        \
            __VA_ARGS__                                                                                   \
        }                                                                                                 \
    }
/* ConvNet-3 of the width; narrow ones on Fashion-MNIST's images, wide ones on CIFAR's. Few inner steps, so that slow
 * devices end. */
#define STEPS(channels, side, per_class, of_width) \
    { .image = {channels, side, side}, .ipc = per_class, .prefix = 4, .window = 4, .real = 256, .width = of_width }
#define OUTER(name, title, soon, ...)                                                      \
    {"outer-" name, "outer step, " title, LOAD_OUTER, soon, .step = STEPS(__VA_ARGS__)}, { \
        "inner-" name, "inner step, " title, LOAD_INNER, soon, .step = STEPS(__VA_ARGS__)  \
    }

const struct load loads[LOADS] = {
    /* What matters most comes first: whoever stops early has it. */
    /* clang-format off */
    OUTER("32-1", "width 32, 1 per class", true, 1, 28, 1, 32),
    OUTER("32-10", "width 32, 10 per class", false, 1, 28, 10, 32),
    OUTER("128-1", "width 128, 1 per class", false, 3, 32, 1, 128),
    OUTER("128-10", "width 128, 10 per class", false, 3, 32, 10, 128),
    /* clang-format on */
    {"launch", "launch of a kernel, of many queued", LOAD_LAUNCH, true},
    {"launch-waited", "launch of a kernel, waited for", LOAD_LAUNCH, true, .waited = true},
    {"product-square", "product of 1024 x 1024 matrices", LOAD_PRODUCT, true, .product = {1, 1024, 1024, 1024}},
    {"product-dense", "dense layer, 100 x 2048 by 2048 x 10", LOAD_PRODUCT, false,
     .product = {1, 100, 10, 2048, false, true}},
    TRIAD("conv-wide", "convolution 128 > 128, 64 images of 16 x 16", true, 64, 128, 128, 16),
    TRIAD("conv-narrow", "convolution 32 > 32, 10 images of 14 x 14", false, 10, 32, 32, 14),
    {"rows", "norm, activation, pooling, a GB of maps", LOAD_ROWS, true},
};

const struct load *load_find(const char *name) {
    for (size_t i = 0; i < LOADS; i++)
        if (strcmp(loads[i].name, name) == 0) return &loads[i];
    return NULL;
}

struct load_bench {
    struct device *device;
    struct kernel_target target;
    char products[GEMM_WORDS];
    bool quick;
    struct load load;          /* the current one, at its sizes; name NULL: none */
    struct bench_steps *steps; /* of the last load that had some, and what they are */
    struct bench_step_spec steps_spec;
    double flops, bytes; /* of one, as kernels told; NaN */
    const char *way;
};

int load_bench_create(struct device *device, enum family family, bool quick, struct load_bench **bench) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    struct load_bench *fresh = calloc(1, sizeof *fresh);
    if (!fresh) RAISE(RETORT_ENOMEM, "out of memory");
    fresh->device = device;
    fresh->quick = quick;
    fresh->target = kernels_target(device_traits(device), family);
    wisdom_path(path);
    TRY(wisdom_load(path, &fresh->target, &fresh->target.wisdom));
    TRY(kernels_settle_gemm(&fresh->target, device, fresh->products));
    *bench = fresh;
    fresh = NULL;
done:
    load_bench_destroy(fresh);
    return status;
}

void load_bench_destroy(struct load_bench *bench) {
    if (!bench) return;
    bench_steps_destroy(bench->steps);
    wisdom_destroy(bench->target.wisdom);
    free(bench);
}

const struct kernel_target *load_bench_target(const struct load_bench *bench) {
    return &bench->target;
}

const char *load_bench_products(const struct load_bench *bench) {
    return bench->products;
}

/* Sizes at which every kernel runs, and that is all. */
static void make_small(struct load *load) {
    struct matmul_sizes *product = &load->product;
    product->m = product->n = product->k = 64;
    load->conv.batch = 2;
    load->conv.channels = load->conv.outputs = load->conv.side = 8;
    load->step = (struct bench_step_spec){.image = {1, 8, 8}, .ipc = 1, .window = 1, .real = 10, .width = 4};
}

static bool same_steps(const struct bench_step_spec *a, const struct bench_step_spec *b) {
    return memcmp(a->image, b->image, sizeof a->image) == 0 && a->ipc == b->ipc && a->prefix == b->prefix
           && a->window == b->window && a->real == b->real && a->width == b->width;
}

/* The steps of the load, which are there if the last load had the same, and one of each that is not timed: many drivers
 * build a kernel to its end when it is first launched. */
static int prepare_steps(struct load_bench *bench, double *build_seconds) {
    int status = RETORT_OK;
    struct bench_step_spec spec = bench->load.step;
    double seconds, before = device_build_seconds(bench->device);
    spec.family = bench->target.family;
    *build_seconds = NAN;
    if (bench->steps && same_steps(&spec, &bench->steps_spec)) return RETORT_OK;
    bench_steps_destroy(bench->steps);
    bench->steps = NULL;
    device_reset_peak(bench->device);
    TRY(bench_steps_create(bench->device, &spec, &bench->steps));
    bench->steps_spec = spec;
    TRY(bench_steps_outer(bench->steps, &seconds));
    double loss = bench_steps_loss(bench->steps); /* wrong kernels are no measure */
    if (!isfinite(loss)) RAISE(RETORT_EDEVICE, "its result is wrong: the loss of the real images is %g", loss);
    *build_seconds = device_build_seconds(bench->device) - before;
done:
    return status;
}

int load_begin(struct load_bench *bench, const struct load *load, double *build_seconds) {
    int status = RETORT_OK;
    double seconds = NAN;
    bench->load = *load;
    bench->flops = bench->bytes = NAN;
    bench->way = NULL;
    if (bench->quick) make_small(&bench->load);
    if (load->kind == LOAD_INNER || load->kind == LOAD_OUTER) {
        TRY(prepare_steps(bench, &seconds));
    } else {
        bench_steps_destroy(bench->steps);
        bench->steps = NULL;
        device_reset_peak(bench->device);
    }
    *build_seconds = seconds;
done:
    if (status < 0) bench->load.name = NULL;
    return status;
}

static int turn_outer(struct load_bench *bench, double *seconds, int *count) {
    const double enough = bench->quick ? 0.01 : 0.1;
    int status = RETORT_OK, steps = 0;
    double begun = clock_seconds(), taken, one;
    do {
        TRY(bench_steps_outer(bench->steps, &one));
        taken = clock_seconds() - begun;
        steps++;
    } while (taken < enough);
    *seconds = taken / steps;
    *count = steps;
done:
    return status;
}

static double floats(double count) {
    return 4 * count;
}

static int turn_kernel(struct load_bench *bench, double *seconds) {
    int status = RETORT_OK;
    struct bench_kernel_result result = {0};
    if (bench->load.kind == LOAD_PRODUCT) {
        const struct matmul_sizes *s = &bench->load.product;
        TRY(bench_gemm(bench->device, &bench->target, s, &result));
        bench->bytes = floats((double)(s->m * s->k + s->k * s->n + s->m * s->n));
    } else {
        const struct bench_conv_spec *s = &bench->load.conv;
        TRY(bench_conv(bench->device, &bench->target, s, &result));
        bench->bytes = floats((double)(s->batch * (s->channels + s->outputs) * s->side * s->side)
                              + 9.0 * (double)(s->channels * s->outputs));
    }
    bench->flops = result.flops;
    bench->way = result.way ? result.way : result.file;
    *seconds = result.seconds;
done:
    return status;
}

static int turn_rows(struct load_bench *bench, double *seconds) {
    int status = RETORT_OK;
    struct bench_rows_result result;
    TRY(bench_rows(bench->device, bench->target.family, &result));
    /* How many images there are follows from the caches: what is compared is the time of as many as a GB. */
    bench->bytes = 1e9;
    *seconds = result.seconds / result.bytes * 1e9;
done:
    return status;
}

int load_turn(struct load_bench *bench, double *seconds, int *count) {
    int status = RETORT_OK;
    double queued, waited;
    if (!bench->load.name) RAISE(RETORT_EINVAL, "no load was begun");
    *count = 0;
    switch (bench->load.kind) {
    case LOAD_PRODUCT:
    case LOAD_CONVOLUTION:
        TRY(turn_kernel(bench, seconds));
        break;
    case LOAD_ROWS:
        TRY(turn_rows(bench, seconds));
        break;
    case LOAD_LAUNCH:
        TRY(bench_launch(bench->device, &queued, &waited));
        *seconds = bench->load.waited ? waited : queued;
        break;
    case LOAD_INNER:
        TRY(bench_steps_inner(bench->steps, bench->quick ? 0.01 : 0.1, seconds));
        break;
    case LOAD_OUTER:
        TRY(turn_outer(bench, seconds, count));
        break;
    }
done:
    return status;
}

/* One outer step with the clock of every kernel on. */
static int profile_step(struct load_bench *bench, const struct device_peaks *peaks, struct load_facts *facts) {
    int status = RETORT_OK;
    struct device_profile profile = {0};
    double seconds, bytes = 0, arithmetic = 0, memory = 0;
    TRY(device_profile_begin(bench->device));
    status = bench_steps_outer(bench->steps, &seconds);
    int ended = device_profile_end(bench->device, &profile);
    TRY(status);
    TRY(ended);
    for (size_t i = 0; i < profile.count; i++) {
        const struct device_profile_row *row = &profile.rows[i];
        bytes += row->bytes;
        if (row->flops / peaks->flops > row->bytes / peaks->bytes)
            arithmetic += row->seconds;
        else
            memory += row->seconds;
    }
    facts->bytes = bytes;
    facts->arithmetic = arithmetic;
    facts->memory = memory;
done:
    device_profile_finish(&profile);
    return status;
}

int load_end(struct load_bench *bench, const struct device_peaks *peaks, struct load_facts *facts) {
    int status = RETORT_OK;
    if (!bench->load.name) RAISE(RETORT_EINVAL, "no load was begun");
    bool inner = bench->load.kind == LOAD_INNER, outer = bench->load.kind == LOAD_OUTER;
    struct load_facts fresh = {bench->flops, bench->bytes, NAN, NAN, NAN, bench->way};
    if (inner || outer) fresh.flops = bench_steps_flops(bench->steps, inner);
    if (outer) fresh.device_bytes = (double)device_peak_bytes(bench->device);
    if (outer && peaks) TRY(profile_step(bench, peaks, &fresh));
    *facts = fresh;
done:
    return status;
}
