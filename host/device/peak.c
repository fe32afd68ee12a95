/* What a device can do at best: multiply-adds per second and bytes copied per second, by kernels that do nothing else.
 */
#include "device/internal.h"

#include "base/log.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* CHAINS independent sums hide the latency of a multiply-add on every device we know, and stay in 16 registers. */
enum { CHAINS = 12, TURNS = 20000 };
#define BUDGET 0.3 /* seconds for each of the two */

/* FLOATV: what a work-item computes with at once. */
static const char source[] =
    "#ifdef FP_FAST_FMAF\n"
    "#define FMA(a, b, c) fma(a, b, c)\n"
    "#else\n"
    "#define FMA(a, b, c) ((a) * (b) + (c))\n"
    "#endif\n"
    "kernel void multiply_add(global float *y, ulong y0) {\n"
    "    const FLOATV a = y[y0], b = y[y0 + 1];\n"
    "    FLOATV sum[CHAINS];\n"
    "    _Pragma(\"unroll\") for (int i = 0; i < CHAINS; i++) sum[i] = i;\n"
    "    for (int k = 0; k < TURNS; k++) {\n"
    "        _Pragma(\"unroll\") for (int i = 0; i < CHAINS; i++) sum[i] = FMA(sum[i], a, b);\n"
    "    }\n"
    "    FLOATV total = 0;\n"
    "    _Pragma(\"unroll\") for (int i = 0; i < CHAINS; i++) total += sum[i];\n"
    "    ((global FLOATV *)(y + y0))[1 + get_global_id(0)] = total;\n"
    "}\n"
    /* A run of memory for each work-item of a CPU, neighbours side by side on a GPU. */
    "kernel void copy(global float *y, ulong y0, global const float *x, ulong x0) {\n"
    "    global FLOATV *to = (global FLOATV *)(y + y0);\n"
    "    global const FLOATV *from = (global const FLOATV *)(x + x0);\n"
    "    ulong first = (ulong)get_group_id(0) * RUN * get_local_size(0) + get_local_id(0);\n"
    "    for (int k = 0; k < RUN; k++) to[first + k * get_local_size(0)] = from[first + k * get_local_size(0)];\n"
    "}\n";

int device_time(struct device *device, int (*queue)(void *what), void *what, double budget, double *seconds) {
    enum { ROUNDS_LEAST = 5, REPEATS_MOST = 1000 };
    const double round_least = 2e-3;
    int status = RETORT_OK;
    double best = INFINITY, begun = clock_seconds();
    for (int round = 0, repeats = 1; round < ROUNDS_LEAST || clock_seconds() - begun < budget; round++) {
        double start = clock_seconds();
        for (int i = 0; i < repeats; i++) TRY(queue(what));
        TRY(device_finish(device));
        double taken = clock_seconds() - start;
        if (taken < round_least && repeats < REPEATS_MOST) {
            repeats *= 4;
            round = -1;
            continue;
        }
        best = fmin(best, taken / repeats);
    }
    *seconds = best;
done:
    return status;
}

struct timed_launch {
    struct device *device;
    struct device_kernel *kernel;
    const size_t *global, *local;
};

static int launch_timed(void *what) {
    const struct timed_launch *timed = what;
    return device_launch(timed->device, timed->kernel, timed->global, timed->local);
}

int device_time_launch(struct device *device, struct device_kernel *kernel, const size_t global[3],
                       const size_t local[3], double budget, double *seconds) {
    struct timed_launch timed = {device, kernel, global, local};
    return device_time(device, launch_timed, &timed, budget, seconds);
}

/* How the two kernels are launched: work-groups of one item with whole vectors, or many items with small ones. */
struct shape {
    unsigned lanes, run; /* run: vectors that an item copies */
    size_t group, groups;
};

static int measure_flops(struct device *device, struct device_program *program, const struct shape *shape,
                         double *flops) {
    int status = RETORT_OK;
    struct device_buffer *buffer = NULL;
    struct device_kernel *kernel = NULL;
    const float factors[2] = {0.5f, 1.0f};
    const size_t items = shape->group * shape->groups, global[3] = {items, 1, 1}, local[3] = {shape->group, 1, 1};
    double seconds;
    TRY(device_buffer_create(device, (items + 1) * shape->lanes * sizeof(float), "peak measurement", &buffer));
    TRY(device_write(device, buffer, 0, sizeof factors, factors));
    TRY(device_kernel_create(program, "multiply_add", &kernel));
    TRY(device_kernel_set_buffer(kernel, 0, buffer, 0));
    TRY(device_time_launch(device, kernel, global, local, BUDGET, &seconds));
    *flops = 2.0 * CHAINS * TURNS * shape->lanes * (double)items / seconds;
done:
    device_kernel_destroy(kernel);
    device_buffer_destroy(buffer);
    return status;
}

/* Bytes of each of the two buffers: out of every cache, where memory allows. What GPUs say of their caches does not
 * help, for it may be the first level of one unit or the sum of all; the last level of large ones is 128 MB. */
static size_t copy_bytes(const struct device *device, size_t unit) {
    const struct device_traits *traits = &device->traits;
    uint64_t least = traits->kind == DEVICE_CPU ? 64 << 20 : 512 << 20;
    uint64_t wanted = traits->cache > least / 4 ? 4 * traits->cache : least;
    uint64_t most =
        device->ceiling && device->ceiling < traits->global_memory ? device->ceiling : traits->global_memory;
    uint64_t room = most > device->bytes ? most - device->bytes : 0;
    if (wanted > room / 4) wanted = room / 4;
    if (wanted > traits->max_allocation) wanted = traits->max_allocation;
    return wanted > unit ? (size_t)(wanted / unit * unit) : unit;
}

static int measure_copy(struct device *device, struct device_program *program, const struct shape *shape,
                        double *bytes) {
    int status = RETORT_OK;
    struct device_buffer *from = NULL, *to = NULL;
    struct device_kernel *kernel = NULL;
    const size_t unit = shape->run * shape->lanes * shape->group * sizeof(float), size = copy_bytes(device, unit);
    const size_t global[3] = {size / unit * shape->group, 1, 1}, local[3] = {shape->group, 1, 1};
    double seconds;
    TRY(device_buffer_create(device, size, "peak measurement", &from));
    TRY(device_buffer_create(device, size, "peak measurement", &to));
    TRY(device_fill_zero(device, from, 0, size));
    TRY(device_kernel_create(program, "copy", &kernel));
    TRY(device_kernel_set_buffer(kernel, 0, to, 0));
    TRY(device_kernel_set_buffer(kernel, 1, from, 0));
    TRY(device_time_launch(device, kernel, global, local, BUDGET, &seconds));
    *bytes = 2.0 * (double)size / seconds;
done:
    device_kernel_destroy(kernel);
    device_buffer_destroy(to);
    device_buffer_destroy(from);
    return status;
}

int device_measure_peaks(struct device *device, struct device_peaks *peaks) {
    int status = RETORT_OK;
    const struct device_traits *traits = &device->traits;
    bool cpu = traits->kind == DEVICE_CPU;
    struct shape shape = {.lanes = cpu ? traits->vector_width : 4,
                          .run = cpu ? 1024 : 16,
                          .group = cpu                            ? 1
                                   : traits->max_work_group < 256 ? traits->max_work_group
                                                                  : 256,
                          .groups = (size_t)traits->compute_units * 16};
    struct device_program *program = NULL;
    struct device_peaks measured;
    struct text text;
    text_init(&text);
    text_printf(&text, "#define FLOATV float%u\n#define CHAINS %d\n#define TURNS %d\n#define RUN %u\n%s", shape.lanes,
                CHAINS, TURNS, shape.run, source);
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory measuring the peaks of %s", traits->name);
    TRY(device_program_create(device, text_get(&text), "", &program));
    TRY(measure_flops(device, program, &shape, &measured.flops));
    TRY(measure_copy(device, program, &shape, &measured.bytes));
    *peaks = measured;
done:
    if (status < 0) error_context("measuring the peaks");
    device_program_destroy(program);
    text_finish(&text);
    return status;
}
