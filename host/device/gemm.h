/* Matrix products by a library, CLBlast, where the build has it (Meson's option `clblast`).
 *
 * Such libraries choose kernels by the name of the device, and their choices have been wrong: the products of CLBlast
 * 1.5.3 are silently wrong for some of its own parameters. So one is trusted on a device once it has passed a test
 * there (device_gemm_trust), and everybody can do without. */
#ifndef RETORT_DEVICE_GEMM_H
#define RETORT_DEVICE_GEMM_H

#include "device/device.h"

/* c [batch,m,n] = alpha a x b + beta c in float32, dense and row-major, each matrix of a batch behind the one before.
 * Stored a: [batch,m,k], or [batch,k,m] where transpose_a; b: [batch,k,n] or [batch,n,k]. With beta 0 c is only
 * written. */
struct gemm {
    size_t batch, m, n, k;
    bool transpose_a, transpose_b;
    float alpha, beta;
    size_t scratch; /* bytes that the library uses beside the operands: device_gemm_plan tells */
};
enum gemm_operand { GEMM_C, GEMM_A, GEMM_B, GEMM_OPERANDS };
/* Elements of an operand, all matrices of the batch. */
size_t gemm_elements(const struct gemm *gemm, enum gemm_operand operand);
double gemm_flops(const struct gemm *gemm); /* a multiply-add counts two */

struct gemm_place {
    struct device_buffer *buffer;
    uint64_t offset; /* in elements */
};

/* "CLBlast 1.5.3", or NULL where the build has none. */
const char *device_gemm_library(void);
/* Makes the library ready and tests it, once for a device: RETORT_OK where all its products were right. RETORT_EDEVICE
 * names the first wrong one; RETORT_EUNSUPPORTED where the build has no library, or the device is only described. The
 * library's kernels are compiled here: up to 10 seconds on GPUs, a minute on CPUs, if the driver has not kept them. */
int device_gemm_trust(struct device *device);
/* Sets gemm->scratch, wherever in their buffers the operands will lie. */
int device_gemm_plan(struct device *device, struct gemm *gemm);
/* Queues a product whose scratch was planned. `scratch` may be NULL where none is needed. RETORT_EINVAL where an
 * operand goes past the end of its buffer, RETORT_ELIMIT where it ends behind element 2^31, to which the library
 * counts. */
int device_gemm(struct device *device, const struct gemm *gemm, const struct gemm_place places[GEMM_OPERANDS],
                struct device_buffer *scratch);

/* The test: odd sizes, all transposes, odd offsets, alpha and beta, batches, one product so large that the library cuts
 * it up, each surrounded by guards. Elements must be within (k + 8) 2^-23 sum |a||b| of double precision, and nothing
 * else may change. RETORT_EDEVICE with the first wrong product. `multiply` is device_gemm, or another one to be tested.
 */
typedef int gemm_function(struct device *device, const struct gemm *gemm, const struct gemm_place places[GEMM_OPERANDS],
                          struct device_buffer *scratch);
int device_gemm_test(struct device *device, gemm_function *multiply);

#endif
