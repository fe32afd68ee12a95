/* Matrix products by CLBlast, through its C interface. */
#include "device/gemm.h"

#include "device/internal.h"

#include "base/log.h"

#include <inttypes.h>

size_t gemm_elements(const struct gemm *gemm, enum gemm_operand operand) {
    size_t matrix = operand == GEMM_C ? gemm->m * gemm->n : operand == GEMM_A ? gemm->m * gemm->k : gemm->k * gemm->n;
    return gemm->batch * matrix;
}

double gemm_flops(const struct gemm *gemm) {
    return 2.0 * (double)gemm->batch * (double)gemm->m * (double)gemm->n * (double)gemm->k;
}

#ifdef RETORT_CLBLAST /* its version, as the build found it: the library itself does not tell */
#include <clblast_c.h>

#define LIBRARY "CLBlast " RETORT_CLBLAST

const char *device_gemm_library(void) {
    return LIBRARY;
}

static int check(struct device *device, int code, const struct gemm *gemm) {
    if (code == CLBlastSuccess) return RETORT_OK;
    if (code > -1000)
        return opencl_check_queue(device, code, "multiplying %zu x %zu by %zu x %zu with " LIBRARY, gemm->m, gemm->k,
                                  gemm->k, gemm->n);
    return error_set(RETORT_EDEVICE,
                     LIBRARY
                     " cannot multiply %zu x %zu by %zu x %zu on %s: its status %d; with device.gemm: own it is "
                     "not asked",
                     gemm->m, gemm->k, gemm->k, gemm->n, device->traits.name, code);
}

/* Before 1.6.3 the kernel that passes rows by shuffles (GEMMK 1) computes wrong numbers wherever its tile is no square,
 * and the library takes it on some devices of every vendor. There this row is used on all devices: one that every
 * device can run (64 items, 6 KiB of local memory) and that compilers for GPUs keep in registers (4 x 8 sums an item).
 * The size from which on the kernel is used instead of the direct one was measured for the row that this one replaces.
 */
static int choose_kernels(struct device *device) {
    if (!RETORT_CLBLAST_OVERRIDE) return RETORT_OK;
    static const char *names[] = {"GEMMK", "KREG", "KWG", "KWI", "MDIMA", "MDIMC", "MWG", "NDIMB",
                                  "NDIMC", "NWG",  "SA",  "SB",  "STRM",  "STRN",  "VWM", "VWN"};
    static const size_t row[] = {0, 1, 16, 2, 8, 8, 32, 8, 8, 64, 1, 1, 0, 0, 4, 4};
    static const char *least_name[] = {"XGEMM_MIN_INDIRECT_SIZE"};
    static const size_t least[] = {512}; /* the third root of m n k */
    _Static_assert(sizeof names / sizeof *names == sizeof row / sizeof *row, "a value for each name");
    int code =
        CLBlastOverrideParameters(device->id, "Xgemm", CLBlastPrecisionSingle, sizeof row / sizeof *row, names, row);
    if (code == CLBlastSuccess)
        code = CLBlastOverrideParameters(device->id, "GemmRoutine", CLBlastPrecisionSingle, 1, least_name, least);
    if (code == CLBlastSuccess) return RETORT_OK;
    return error_set(RETORT_EDEVICE, LIBRARY " does not take other parameters for its products on %s: its status %d",
                     device->traits.name, code);
}

/* How the library is asked. Its kernels write columns; so it computes the transpose of c, c' = b' a', whose columns are
 * our rows. */
struct question {
    CLBlastTranspose transpose_a, transpose_b;
    size_t row_a, row_b; /* elements from a stored row to the next */
};

static struct question ask(const struct gemm *g) {
    return (struct question){.transpose_a = g->transpose_a ? CLBlastTransposeYes : CLBlastTransposeNo,
                             .transpose_b = g->transpose_b ? CLBlastTransposeYes : CLBlastTransposeNo,
                             .row_a = g->transpose_a ? g->m : g->k,
                             .row_b = g->transpose_b ? g->k : g->n};
}

int device_gemm_plan(struct device *device, struct gemm *gemm) {
    int status = RETORT_OK;
    const struct question q = ask(gemm);
    size_t bytes = 0;
    /* An operand at the beginning of its buffer may need no copy; the others do. */
    TRY(check(device,
              CLBlastSGemmTempBufferSize(CLBlastLayoutColMajor, q.transpose_b, q.transpose_a, gemm->n, gemm->m, gemm->k,
                                         1, q.row_b, 1, q.row_a, 1, gemm->n, &device->queue, &bytes),
              gemm));
    gemm->scratch = bytes;
done:
    return status;
}

static int check_place(const struct gemm *gemm, enum gemm_operand operand, const struct gemm_place *place) {
    static const char *const names[GEMM_OPERANDS] = {"c", "a", "b"};
    uint64_t end = place->offset + gemm_elements(gemm, operand);
    if (end > place->buffer->bytes / sizeof(float))
        return error_set(RETORT_EINVAL, "operand %s of a product ends at element %" PRIu64 " of a buffer of %zu bytes",
                         names[operand], end, place->buffer->bytes);
    if (end > INT32_MAX)
        return error_set(RETORT_ELIMIT,
                         "operand %s of a product ends at element %" PRIu64 ", and " LIBRARY
                         " counts to 2^31: make the run smaller, or set device.gemm: own",
                         names[operand], end);
    return RETORT_OK;
}

/* Large products go to kernels that want copies of the operands. Those of a batch would be allocated by the library in
 * every call; one by one they lie in our scratch memory, and are large enough to fill the device alone. `event`, where
 * it is no NULL, is that of the last launch. */
static int multiply(struct device *device, const struct gemm *g, const struct gemm_place *places, cl_mem scratch,
                    cl_event *event) {
    const struct question q = ask(g);
    cl_mem c = places[GEMM_C].buffer->memory, a = places[GEMM_A].buffer->memory, b = places[GEMM_B].buffer->memory;
    const size_t c0 = places[GEMM_C].offset, a0 = places[GEMM_A].offset, b0 = places[GEMM_B].offset;
    if (!scratch && g->batch > 1)
        return CLBlastSgemmStridedBatched(CLBlastLayoutColMajor, q.transpose_b, q.transpose_a, g->n, g->m, g->k,
                                          g->alpha, b, b0, q.row_b, g->k * g->n, a, a0, q.row_a, g->m * g->k, g->beta,
                                          c, c0, g->n, g->m * g->n, g->batch, &device->queue, event);
    if (!scratch)
        return CLBlastSgemm(CLBlastLayoutColMajor, q.transpose_b, q.transpose_a, g->n, g->m, g->k, g->alpha, b, b0,
                            q.row_b, a, a0, q.row_a, g->beta, c, c0, g->n, &device->queue, event);
    int code = CLBlastSuccess;
    for (size_t i = 0; i < g->batch && code == CLBlastSuccess; i++)
        code = CLBlastSgemmWithTempBuffer(CLBlastLayoutColMajor, q.transpose_b, q.transpose_a, g->n, g->m, g->k,
                                          g->alpha, b, b0 + i * g->k * g->n, q.row_b, a, a0 + i * g->m * g->k, q.row_a,
                                          g->beta, c, c0 + i * g->m * g->n, g->n, &device->queue,
                                          i + 1 == g->batch ? event : NULL, scratch);
    return code;
}

int device_gemm(struct device *device, const struct gemm *gemm, const struct gemm_place places[GEMM_OPERANDS],
                struct device_buffer *scratch) {
    static const char name[] = "clblast_sgemm";
    int status = RETORT_OK;
    double bytes = 0;
    cl_event begin = NULL, end = NULL;
    for (enum gemm_operand i = GEMM_C; i < GEMM_OPERANDS; i++) {
        TRY(check_place(gemm, i, &places[i]));
        bytes += (double)sizeof(float) * (double)gemm_elements(gemm, i);
    }
    if (gemm->scratch && (!scratch || scratch->bytes < gemm->scratch))
        RAISE(RETORT_EINVAL, "a product needs %zu bytes of scratch memory", gemm->scratch);
    /* A product may be several launches, of which the library tells the last: a marker tells when they begin. */
    if (device->profile)
        TRY(opencl_check_queue(device, clEnqueueMarkerWithWaitList(device->queue, 0, NULL, &begin), "marking %s",
                               name));
    int code = multiply(device, gemm, places, gemm->scratch ? scratch->memory : NULL, begin ? &end : NULL);
    if (code == CLBlastSuccess && device->synchronous) code = clFinish(device->queue);
    TRY(check(device, code, gemm));
    if (begin) {
        cl_event before = begin;
        begin = NULL;
        TRY(profile_add(device, name, gemm_flops(gemm), bytes, before, end));
    }
    TRY(queue_grew(device, name, gemm_flops(gemm), bytes));
done:
    if (begin && end) clReleaseEvent(end);
    if (begin) clReleaseEvent(begin);
    return status;
}

void gemm_forget(struct device *device) {
    /* The library keeps programs, which keep their context, until the process ends or it is told. */
    if (device->gemm != GEMM_UNTRIED) CLBlastClearCache();
}

#else /* without the library */
static const char nowhere[] = "this build has no CLBlast: install it (on Debian libclblast-dev) and build again";

const char *device_gemm_library(void) {
    return NULL;
}

static int choose_kernels(struct device *device) {
    (void)device;
    return error_set(RETORT_EUNSUPPORTED, "%s", nowhere);
}

int device_gemm_plan(struct device *device, struct gemm *gemm) {
    (void)gemm;
    return choose_kernels(device);
}

int device_gemm(struct device *device, const struct gemm *gemm, const struct gemm_place places[GEMM_OPERANDS],
                struct device_buffer *scratch) {
    (void)gemm, (void)places, (void)scratch;
    return choose_kernels(device);
}

void gemm_forget(struct device *device) {
    (void)device;
}
#endif

int device_gemm_trust(struct device *device) {
    int status = RETORT_OK;
    if (device->gemm == GEMM_RIGHT) return RETORT_OK;
    if (device->gemm == GEMM_WRONG)
        return error_set(RETORT_EDEVICE, "%s has failed its test on %s before", device_gemm_library(),
                         device->traits.name);
    TRY(device_check_present(device, "a library's matrix products"));
    double begun = clock_seconds();
    uint64_t peak = device->peak;
    output_divert(); /* compilers are at work */
    status = choose_kernels(device);
    if (status == RETORT_OK) {
        device->gemm = GEMM_WRONG;
        status = device_gemm_test(device, device_gemm);
        if (status == RETORT_OK) device->gemm = GEMM_RIGHT;
    }
    output_restore();
    device->peak = peak; /* the memory of runs is what counts */
    device->build_seconds += clock_seconds() - begun;
done:
    return status;
}
