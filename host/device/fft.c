/* DCTs by clFFT, through its C interface. */
#include "device/fft.h"

#include "device/internal.h"

#include "base/log.h"
#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

bool device_fft_takes(int length) {
    static const int primes[] = {2, 3, 5, 7, 11, 13};
    if (length < 2) return false;
    for (size_t i = 0; i < sizeof primes / sizeof *primes; i++)
        while (length % primes[i] == 0) length /= primes[i];
    return length == 1;
}

#ifdef RETORT_CLFFT /* its version, as the build found it */
#include <clFFT.h>

#define LIBRARY "clFFT " RETORT_CLFFT

const char *device_fft_library(void) {
    return LIBRARY;
}

/* A pass over ROWS rows of LENGTH values, PER_PLANE of a plane. `rows` holds them in pairs of complex numbers, the
 * first of a pair as real parts; `turns` has for each frequency k the cosine and the sine of pi k / (2 LENGTH), times
 * what makes the transform orthonormal. With V the FFT of the row in its other order, its spectrum is
 *
 *     X[k] = cosine Re V[k] + sine Im V[k]     and     X[LENGTH - k] = sine Re V[k] - cosine Im V[k]
 *
 * which BACK turns round. A result that is transposed is written by columns of its plane. */
static const char source[] =
    "#define ORDER(i) (2 * (i) < LENGTH ? 2 * (i) : 2 * (LENGTH - (i)) - 1)\n"
    "#define TRANSPOSED(r, i) (((r) / PER_PLANE * LENGTH + (i)) * PER_PLANE + (r) % PER_PLANE)\n"
    "#define AT(r, i) (TRANSPOSE ? TRANSPOSED(r, i) : (r) * LENGTH + (i))\n"
    "kernel void TAKE(global float *rows, ulong rows0, global const float *x, ulong x0, global const float *turns,\n"
    "                 ulong turns0) {\n"
    "    const uint i = get_global_id(0), pair = get_global_id(1);\n"
    "    const int two = 2 * pair + 1 < ROWS;\n"
    "    x += x0 + 2 * pair * LENGTH;\n"
    "    float2 z;\n"
    "    if (BACK) {\n"
    "        const uint other = i ? LENGTH - i : 0;\n"
    "        const float2 turn = vload2(i, turns + turns0) * (i ? 0.5f * LENGTH : LENGTH);\n"
    "        const float a = x[i], a_other = i ? x[other] : 0;\n"
    "        const float b = two ? x[LENGTH + i] : 0, b_other = two && i ? x[LENGTH + other] : 0;\n"
    "        z.x = turn.x * a + turn.y * a_other - (turn.y * b - turn.x * b_other);\n"
    "        z.y = turn.y * a - turn.x * a_other + (turn.x * b + turn.y * b_other);\n"
    "    } else\n"
    "        z = (float2)(x[ORDER(i)], two ? x[LENGTH + ORDER(i)] : 0);\n"
    "    vstore2(z, pair * LENGTH + i, rows + rows0);\n"
    "}\n"
    "kernel void GIVE(global float *y, ulong y0, global const float *rows, ulong rows0, global const float *turns,\n"
    "                 ulong turns0) {\n"
    "    const uint i = get_global_id(0), pair = get_global_id(1), r = 2 * pair;\n"
    "    const float2 z = vload2(pair * LENGTH + i, rows + rows0);\n"
    "    const uint to = BACK ? ORDER(i) : i;\n"
    "    float2 value = z;\n"
    "    if (!BACK) {\n"
    "        const float2 other = vload2(pair * LENGTH + (i ? LENGTH - i : 0), rows + rows0);\n"
    "        const float2 turn = 0.5f * vload2(i, turns + turns0);\n"
    "        value.x = turn.x * (z.x + other.x) + turn.y * (z.y - other.y);\n"
    "        value.y = turn.x * (z.y + other.y) + turn.y * (other.x - z.x);\n"
    "    }\n"
    "    y[y0 + AT(r, to)] = value.x;\n"
    "    if (r + 1 < ROWS) y[y0 + AT(r + 1, to)] = value.y;\n"
    "}\n"
    "#undef ORDER\n"
    "#undef AT\n"
    "#undef TRANSPOSED\n";
static const char *const own_macros[] = {"TAKE", "GIVE", "LENGTH", "PER_PLANE", "ROWS", "BACK", "TRANSPOSE"};

/* Rows along one axis: along a plane's width, or its height. */
struct axis {
    size_t length, rows, pairs; /* rows of all planes; two and two, the last one perhaps alone */
    clfftPlanHandle plan;
    bool planned;                /* false: there is none, or it is the other axis's */
    struct device_buffer *turns; /* [length,2] */
};
enum { ACROSS, DOWN, AXES };

struct device_dct {
    struct device *device;
    struct axis axes[AXES];
    struct device_program *program;
    struct device_kernel *take[2][2], *give[2][2]; /* by way, forward or back, and pass */
    struct device_buffer *rows, *scratch;          /* scratch: what the library wants beside; NULL: nothing */
    bool entered;
};

/* The library is one for the process: it is set up for the first transform and taken down, with all programs that it
 * keeps and the contexts that those keep, behind the last. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int users;

static int check(struct device *device, clfftStatus code, const char *what) {
    if (code == CLFFT_SUCCESS) return RETORT_OK;
    if (code < CLFFT_BUGCHECK) return opencl_check_queue(device, (cl_int)code, "%s with " LIBRARY, what);
    return error_set(RETORT_EDEVICE, LIBRARY " fails on %s, %s: its status %d", device->traits.name, what, (int)code);
}

static int enter(struct device_dct *dct) {
    int status = RETORT_OK;
    const clfftSetupData setup = {clfftVersionMajor, clfftVersionMinor, clfftVersionPatch, 0};
    if (users == 0) TRY(check(dct->device, clfftSetup(&setup), "preparing it"));
    users++;
    dct->entered = true;
done:
    return status;
}

/* --- making one --- */
static int plan_axis(struct device_dct *dct, struct axis *axis) {
    int status = RETORT_OK;
    static const char what[] = "planning transforms";
    struct device *device = dct->device;
    size_t stride = 1;
    TRY(check(device, clfftCreateDefaultPlan(&axis->plan, device->context, CLFFT_1D, &axis->length), what));
    axis->planned = true;
    TRY(check(device, clfftSetPlanPrecision(axis->plan, CLFFT_SINGLE), what));
    TRY(check(device, clfftSetLayout(axis->plan, CLFFT_COMPLEX_INTERLEAVED, CLFFT_COMPLEX_INTERLEAVED), what));
    TRY(check(device, clfftSetResultLocation(axis->plan, CLFFT_INPLACE), what));
    TRY(check(device, clfftSetPlanInStride(axis->plan, CLFFT_1D, &stride), what));
    TRY(check(device, clfftSetPlanOutStride(axis->plan, CLFFT_1D, &stride), what));
    TRY(check(device, clfftSetPlanDistance(axis->plan, axis->length, axis->length), what));
    TRY(check(device, clfftSetPlanBatchSize(axis->plan, axis->pairs), what));
    TRY(check(device, clfftBakePlan(axis->plan, 1, &device->queue, NULL, NULL), "compiling transforms"));
done:
    return status;
}

/* Also what the library keeps while it works. */
static int plan(struct device_dct *dct, size_t *scratch) {
    int status = RETORT_OK;
    output_divert(); /* compilers are at work */
    pthread_mutex_lock(&lock);
    TRY(enter(dct));
    for (int i = 0; i < AXES; i++) {
        struct axis *axis = &dct->axes[i];
        size_t bytes = 0;
        if (i > 0 && axis->length == dct->axes[0].length && axis->pairs == dct->axes[0].pairs)
            axis->plan = dct->axes[0].plan;
        else
            TRY(plan_axis(dct, axis));
        TRY(check(dct->device, clfftGetTmpBufSize(axis->plan, &bytes), "planning transforms"));
        if (bytes > *scratch) *scratch = bytes;
    }
done:
    pthread_mutex_unlock(&lock);
    output_restore();
    return status;
}

static int make_turns(struct device_dct *dct, struct axis *axis) {
    int status = RETORT_OK;
    const size_t bytes = 2 * axis->length * sizeof(float);
    float *turns = malloc(bytes);
    if (!turns) RAISE(RETORT_ENOMEM, "out of memory for cosines");
    for (size_t k = 0; k < axis->length; k++) {
        const double angle = M_PI * (double)k / (2.0 * (double)axis->length);
        const double scale = sqrt((k ? 2.0 : 1.0) / (double)axis->length);
        turns[2 * k] = (float)(scale * cos(angle));
        turns[2 * k + 1] = (float)(scale * sin(angle));
    }
    TRY(device_buffer_create(dct->device, bytes, "cosines of transforms", &axis->turns));
    TRY(device_write(dct->device, axis->turns, 0, bytes, turns));
done:
    free(turns);
    return status;
}

/* Forward the rows come first, back the columns do. */
static struct axis *axis_of(struct device_dct *dct, bool back, int pass) {
    return &dct->axes[back == (pass == 0) ? DOWN : ACROSS];
}

static int build(struct device_dct *dct, size_t planes) {
    int status = RETORT_OK;
    char name[32];
    struct text text;
    text_init(&text);
    for (int back = 0; back < 2; back++)
        for (int pass = 0; pass < 2; pass++) {
            const struct axis *axis = axis_of(dct, back, pass);
            text_printf(&text,
                        "#define TAKE dct_take_%d\n#define GIVE dct_give_%d\n#define LENGTH %zu\n#define PER_PLANE "
                        "%zu\n#define ROWS %zu\n#define BACK %d\n#define TRANSPOSE %d\n%s",
                        2 * back + pass, 2 * back + pass, axis->length, axis->rows / planes, axis->rows, back,
                        pass == 0, source);
            for (size_t i = 0; i < sizeof own_macros / sizeof *own_macros; i++)
                text_printf(&text, "#undef %s\n", own_macros[i]);
        }
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory writing kernels");
    TRY(device_program_create(dct->device, text_get(&text), "", &dct->program));
    for (int back = 0; back < 2; back++)
        for (int pass = 0; pass < 2; pass++) {
            const struct axis *axis = axis_of(dct, back, pass);
            const double bytes = 2.0 * sizeof(float) * (double)axis->rows * (double)axis->length;
            struct device_kernel **kernels[] = {&dct->take[back][pass], &dct->give[back][pass]};
            for (int i = 0; i < 2; i++) {
                snprintf(name, sizeof name, "dct_%s_%d", i ? "give" : "take", 2 * back + pass);
                TRY(device_kernel_create(dct->program, name, kernels[i]));
                TRY(device_kernel_set_buffer(*kernels[i], i ? 1 : 0, dct->rows, 0));
                TRY(device_kernel_set_buffer(*kernels[i], 2, axis->turns, 0));
                device_kernel_set_work(*kernels[i], 0, bytes);
            }
        }
done:
    text_finish(&text);
    return status;
}

int device_dct_create(struct device *device, int64_t planes, int height, int width, struct device_dct **out) {
    int status = RETORT_OK;
    size_t scratch = 0, pairs = 0;
    double begun = clock_seconds();
    struct device_dct *dct = NULL;
    TRY(device_check_present(device, "a library's Fourier transforms"));
    if (!device_fft_takes(height) || !device_fft_takes(width))
        RAISE(RETORT_EUNSUPPORTED,
              LIBRARY " does not transform planes of %d x %d: sides are at least 2, without a prime factor above 13",
              height, width);
    if (!(dct = calloc(1, sizeof *dct))) RAISE(RETORT_ENOMEM, "out of memory preparing transforms");
    dct->device = device;
    const int sides[AXES] = {[ACROSS] = width, [DOWN] = height};
    for (int i = 0; i < AXES; i++) {
        struct axis *axis = &dct->axes[i];
        axis->length = (size_t)sides[i];
        axis->rows = (size_t)planes * (size_t)sides[1 - i];
        axis->pairs = (axis->rows + 1) / 2;
        if (axis->pairs * axis->length > pairs) pairs = axis->pairs * axis->length;
        TRY(make_turns(dct, axis));
    }
    TRY(device_buffer_create(device, pairs * 2 * sizeof(float), "rows of transforms", &dct->rows));
    TRY(plan(dct, &scratch));
    if (scratch) TRY(device_buffer_create(device, scratch, "scratch memory of transforms", &dct->scratch));
    device->build_seconds += clock_seconds() - begun; /* what follows counts by itself */
    TRY(build(dct, (size_t)planes));
    *out = dct;
    dct = NULL;
done:
    device_dct_destroy(dct);
    return status;
}

void device_dct_destroy(struct device_dct *dct) {
    if (!dct) return;
    device_drain(dct->device); /* plans have no owner but us */
    for (int i = 0; i < 4; i++) {
        device_kernel_destroy(dct->take[i / 2][i % 2]);
        device_kernel_destroy(dct->give[i / 2][i % 2]);
    }
    device_program_destroy(dct->program);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < AXES; i++) {
        if (dct->axes[i].planned) clfftDestroyPlan(&dct->axes[i].plan);
        device_buffer_destroy(dct->axes[i].turns);
    }
    if (dct->entered && --users == 0) clfftTeardown();
    pthread_mutex_unlock(&lock);
    device_buffer_destroy(dct->rows);
    device_buffer_destroy(dct->scratch);
    free(dct);
}

uint64_t device_dct_bytes(const struct device_dct *dct) {
    uint64_t bytes = device_buffer_size(dct->rows) + (dct->scratch ? device_buffer_size(dct->scratch) : 0);
    for (int i = 0; i < AXES; i++) bytes += device_buffer_size(dct->axes[i].turns);
    return bytes;
}

/* --- running one --- */
/* The library's part of a pass: `rows` in place. */
static int transform(struct device_dct *dct, const struct axis *axis, bool back) {
    static const char name[] = "clfft";
    int status = RETORT_OK;
    struct device *device = dct->device;
    cl_event begin = NULL, end = NULL;
    const double values = (double)axis->pairs * (double)axis->length, bytes = 4.0 * sizeof(float) * values;
    const double flops = 5 * values * log2((double)axis->length);
    if (device->profile)
        TRY(opencl_check_queue(device, clEnqueueMarkerWithWaitList(device->queue, 0, NULL, &begin), "marking %s",
                               name));
    clfftStatus code = clfftEnqueueTransform(axis->plan, back ? CLFFT_BACKWARD : CLFFT_FORWARD, 1, &device->queue, 0,
                                             NULL, begin ? &end : NULL, &dct->rows->memory, NULL,
                                             dct->scratch ? dct->scratch->memory : NULL);
    if (code == CLFFT_SUCCESS && device->synchronous) code = (clfftStatus)clFinish(device->queue);
    TRY(check(device, code, "transforming rows"));
    if (begin) {
        cl_event before = begin;
        begin = NULL;
        TRY(profile_add(device, name, flops, bytes, before, end));
    }
    TRY(queue_grew(device, name, flops, bytes));
done:
    if (begin && end) clReleaseEvent(end);
    if (begin) clReleaseEvent(begin);
    return status;
}

int device_dct(struct device_dct *dct, bool back, struct device_buffer *from, struct device_buffer *to) {
    int status = RETORT_OK;
    for (int pass = 0; pass < 2; pass++) {
        const struct axis *axis = axis_of(dct, back, pass);
        struct device_kernel *take = dct->take[back][pass], *give = dct->give[back][pass];
        const size_t global[3] = {axis->length, axis->pairs, 1}, local[3] = {0};
        const size_t bytes = axis->rows * axis->length * sizeof(float);
        if (from == to || device_buffer_size(from) < bytes || device_buffer_size(to) < bytes)
            RAISE(RETORT_EINVAL, "a transform needs two buffers of %zu bytes", bytes);
        TRY(device_kernel_set_buffer(take, 1, pass ? to : from, 0));
        TRY(device_kernel_set_buffer(give, 0, to, 0));
        TRY(device_launch(dct->device, take, global, local));
        TRY(transform(dct, axis, back));
        TRY(device_launch(dct->device, give, global, local));
    }
done:
    return status;
}

#else /* without the library */
static int unsupported(void) {
    return error_set(RETORT_EUNSUPPORTED,
                     "this build has no clFFT: install it (on Debian libclfft-dev) and build again");
}

const char *device_fft_library(void) {
    return NULL;
}

int device_dct_create(struct device *device, int64_t planes, int height, int width, struct device_dct **dct) {
    (void)device, (void)planes, (void)height, (void)width, (void)dct;
    return unsupported();
}

void device_dct_destroy(struct device_dct *dct) {
    (void)dct;
}

uint64_t device_dct_bytes(const struct device_dct *dct) {
    (void)dct;
    return 0;
}

int device_dct(struct device_dct *dct, bool back, struct device_buffer *from, struct device_buffer *to) {
    (void)dct, (void)back, (void)from, (void)to;
    return unsupported();
}
#endif
