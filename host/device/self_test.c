/* Small programs whose results the host knows: whether a device's compiler and queue can be trusted at all. */
#include "device/internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 192, GROUP = 32 }; /* elements per result, a multiple of GROUP; the most in a work-group */

/* Each kernel writes COUNT floats at an offset, from COUNT floats at another. Results are exact in float32, except
 * those of `functions`. */
static const char source[] =
    "kernel void arithmetic(global float *y, ulong y0, global const float *x, ulong x0) {\n"
    "    int i = get_global_id(0);\n"
    "    float a = x[x0 + i];\n"
    "    y[y0 + i] = fma(a, 3.0f, 0.5f) - a / 4.0f;\n"
    "}\n"
    "kernel void functions(global float *y, ulong y0, global const float *x, ulong x0) {\n"
    "    int i = get_global_id(0);\n"
    "    float a = fabs(x[x0 + i]) + 1.0f;\n"
    "    y[y0 + i] = exp(-a) + log(a) + sqrt(a) + tanh(a) + sin(a);\n"
    "}\n"
    "kernel void vectors(global float *y, ulong y0, global const float *x, ulong x0) {\n"
    "    int i = get_global_id(0);\n"
    "    if (i % 16) return;\n"
    "    float16 a = vload16(0, x + x0 + i);\n"
    "    float16 b = select(a, (float16)(-1.0f), a < (float16)(0.0f));\n"
    "    b.lo = b.lo.s76543210;\n"
    "    vstore16(b, 0, y + y0 + i);\n"
    "}\n"
    "kernel void loops(global float *y, ulong y0, global const float *x, ulong x0) {\n"
    "    int i = get_global_id(0);\n"
    "    float sum = 0.0f;\n"
    "    for (int j = 0; j <= i; j++)\n"
    "        if (j % 3 != 1) sum += x[x0 + j];\n"
    "    y[y0 + i] = sum;\n"
    "}\n"
    "kernel void long_loop(global float *y, ulong y0, global const float *x, ulong x0) {\n"
    "    int i = get_global_id(0);\n"
    "    uint sum = (uint)i;\n"
    "    if (i == 0)\n"
    "        for (int j = 0; j < (int)x[x0] + 70000; j++) sum = sum * 1664525u + 1013904223u;\n"
    "    y[y0 + i] = (float)(sum >> 8);\n"
    "}\n"
    "kernel void integers(global float *y, ulong y0, global const float *x, ulong x0) {\n"
    "    int i = get_global_id(0);\n"
    "    int a = (int)x[x0 + i] - 7;\n"
    "    uint b = mul_hi(0xD2511F53u, (uint)i * 0x9E3779B9u) ^ (uint)a;\n"
    "    y[y0 + i] = (float)(a / 5 + a % 5 + (int)(b >> 20));\n"
    "}\n"
    /* A group for 32 elements, of as many items as the device allows. */
    "kernel void local_sum(global float *y, ulong y0, global const float *x, ulong x0) {\n"
    "    local float tile[32];\n"
    "    int first = get_local_id(0), items = get_local_size(0), block = get_group_id(0) * 32;\n"
    "    for (int i = first; i < 32; i += items) tile[i] = x[x0 + block + i];\n"
    "    barrier(CLK_LOCAL_MEM_FENCE);\n"
    "    for (int half_size = 16; half_size > 0; half_size /= 2) {\n"
    "        for (int i = first; i < half_size; i += items) tile[i] += tile[i + half_size];\n"
    "        barrier(CLK_LOCAL_MEM_FENCE);\n"
    "    }\n"
    "    for (int i = first; i < 32; i += items) y[y0 + block + i] = tile[0] + (float)i;\n"
    "}\n"
    "kernel void chain(global float *y, ulong y0, global const float *x, ulong x0) {\n"
    "    int i = get_global_id(0);\n"
    "    y[y0 + i] = x[x0 + (i + 1) % 192] + 1.0f;\n"
    "}\n";

static void expect_arithmetic(const float *x, float *y) {
    for (int i = 0; i < COUNT; i++) y[i] = x[i] * 3.0f + 0.5f - x[i] / 4.0f;
}

static void expect_functions(const float *x, float *y) {
    for (int i = 0; i < COUNT; i++) {
        double a = fabs(x[i]) + 1;
        y[i] = (float)(exp(-a) + log(a) + sqrt(a) + tanh(a) + sin(a));
    }
}

static void expect_vectors(const float *x, float *y) {
    for (int i = 0; i < COUNT; i++) {
        float a = i % 16 < 8 ? x[i / 16 * 16 + 7 - i % 16] : x[i];
        y[i] = a < 0 ? -1 : a;
    }
}

static void expect_loops(const float *x, float *y) {
    float sum = 0;
    for (int i = 0; i < COUNT; i++) {
        if (i % 3 != 1) sum += x[i];
        y[i] = sum;
    }
}

/* More turns than a 16-bit counter has: Mesa's llvmpipe leaves loops after 65535. */
static void expect_long_loop(const float *x, float *y) {
    for (int i = 0; i < COUNT; i++) {
        uint32_t sum = (uint32_t)i;
        if (i == 0)
            for (int j = 0; j < (int)x[0] + 70000; j++) sum = sum * 1664525u + 1013904223u;
        y[i] = (float)(sum >> 8);
    }
}

static void expect_integers(const float *x, float *y) {
    for (int i = 0; i < COUNT; i++) {
        int a = (int)x[i] - 7;
        uint32_t b = (uint32_t)((uint64_t)0xD2511F53u * ((uint32_t)i * 0x9E3779B9u) >> 32) ^ (uint32_t)a;
        y[i] = (float)(a / 5 + a % 5 + (int)(b >> 20));
    }
}

static void expect_local_sum(const float *x, float *y) {
    for (int i = 0; i < COUNT; i++) {
        float sum = 0;
        for (int j = 0; j < GROUP; j++) sum += x[i / GROUP * GROUP + j];
        y[i] = sum + (float)(i % GROUP);
    }
}

static void expect_chain(const float *x, float *y) {
    for (int i = 0; i < COUNT; i++) y[i] = x[(i + 64) % COUNT] + 64;
}

static const struct {
    const char *kernel;
    void (*expect)(const float *x, float *y);
    float tolerance; /* relative */
    int repeats;     /* the result of one launch is the input of the next */
    bool by_group;   /* a group for GROUP elements, not an item for each */
} tests[] = {
    {"arithmetic", expect_arithmetic, 0, 1, false}, {"functions", expect_functions, 1e-5f, 1, false},
    {"vectors", expect_vectors, 0, 1, false},       {"loops", expect_loops, 0, 1, false},
    {"long_loop", expect_long_loop, 0, 1, false},   {"integers", expect_integers, 0, 1, false},
    {"local_sum", expect_local_sum, 0, 1, true},    {"chain", expect_chain, 0, 64, false},
};

static int run_test(struct device *device, struct device_program *program, struct device_buffer *buffer, size_t test) {
    int status = RETORT_OK;
    struct device_kernel *kernel = NULL;
    float x[COUNT], y[COUNT], expected[COUNT];
    size_t global[3] = {COUNT, 1, 1}, local[3] = {GROUP, 1, 1};
    for (int i = 0; i < COUNT; i++) x[i] = (float)((i * 37 + 11) % 64 - 20); /* small integers: sums are exact */
    tests[test].expect(x, expected);
    TRY(device_kernel_create(program, tests[test].kernel, &kernel));
    /* Groups of one will do: kernels for CPUs want no more. */
    while (local[0] > device_kernel_largest_group(kernel)) local[0] /= 2;
    if (tests[test].by_group) global[0] = COUNT / GROUP * local[0];
    TRY(device_write(device, buffer, 4, sizeof x, x)); /* two slots, at elements 1 and 1 + COUNT */
    for (int i = 0; i < tests[test].repeats; i++) {
        TRY(device_kernel_set_buffer(kernel, 0, buffer, 1 + (i % 2 ? 0 : COUNT)));
        TRY(device_kernel_set_buffer(kernel, 1, buffer, 1 + (i % 2 ? COUNT : 0)));
        TRY(device_launch(device, kernel, global, local));
    }
    TRY(device_read(device, buffer, 4 * (size_t)(1 + (tests[test].repeats % 2 ? COUNT : 0)), sizeof y, y));
    for (int i = 0; i < COUNT; i++)
        if (!(fabsf(y[i] - expected[i]) <= tests[test].tolerance * fabsf(expected[i])))
            RAISE(RETORT_EDEVICE, "%s computes element %d of the self-test `%s` as %.9g, expected %.9g",
                  device->traits.name, i, tests[test].kernel, y[i], expected[i]);
done:
    device_kernel_destroy(kernel);
    return status;
}

int device_self_test(struct device *device) {
    int status = RETORT_OK;
    struct device_program *program = NULL;
    struct device_buffer *buffer = NULL;
    TRY(device_program_create(device, source, "", &program));
    TRY(device_buffer_create(device, (2 * COUNT + 2) * sizeof(float), "self-test", &buffer));
    for (size_t i = 0; i < sizeof tests / sizeof *tests; i++) TRY(run_test(device, program, buffer, i));
done:
    device_buffer_destroy(buffer);
    device_program_destroy(program);
    return status;
}
