#include "bench/measure.h"

#include "base/error.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>

static double *doubles(const struct operand *operand) {
    double *values = calloc(operand->count, sizeof *values);
    for (size_t i = 0; values && i < operand->count; i++) values[i] = operand->values[i];
    return values;
}

static int check(const struct matmul_sizes *s, const struct operand operands[3], double *error) {
    int status = RETORT_OK;
    double *got = doubles(&operands[0]), *a = doubles(&operands[1]), *b = doubles(&operands[2]);
    double *right = calloc(operands[0].count, sizeof *right), difference = 0, largest = 0;
    if (!got || !a || !b || !right) RAISE(RETORT_ENOMEM, "out of memory checking a matrix product");
    for (int64_t i = 0; i < s->batch; i++)
        cblas_dgemm(CblasRowMajor, s->transpose_a ? CblasTrans : CblasNoTrans,
                    s->transpose_b ? CblasTrans : CblasNoTrans, (int)s->m, (int)s->n, (int)s->k, 1, a + i * s->m * s->k,
                    (int)(s->transpose_a ? s->m : s->k), b + i * s->k * s->n, (int)(s->transpose_b ? s->k : s->n), 0,
                    right + i * s->m * s->n, (int)s->n);
    for (size_t i = 0; i < operands[0].count; i++) {
        difference = fmax(difference, isnan(got[i]) ? INFINITY : fabs(got[i] - right[i]));
        largest = fmax(largest, fabs(right[i]));
    }
    *error = difference / largest;
done:
    free(right);
    free(b);
    free(a);
    free(got);
    return status;
}

int bench_gemm(struct device *device, const struct kernel_target *target, const struct matmul_sizes *sizes,
               struct bench_kernel_result *result) {
    int status = RETORT_OK;
    struct use_operands operands = {.results = 1, .count = 3, .packed = 1};
    struct bench_kernel_result fresh = {0};
    struct matmul_use use;
    const int64_t m = sizes->m, n = sizes->n, k = sizes->k;
    TRY(kernels_matmul(target, sizes, &use));
    const struct conv_use launches = {use.packed_floats, use.pack, use.work_floats, use.main, use.finish};
    const int64_t count[3] = {m * n, m * k, k * n};
    for (int i = 0; i < 3; i++) TRY(operand_fill(&operands.of[i], (size_t)(sizes->batch * count[i]), (uint32_t)i));
    TRY(measure_use(device, target, &launches, BENCH_SECONDS, &operands, &fresh));
    fresh.flops = 2.0 * (double)sizes->batch * (double)m * (double)n * (double)k;
    TRY(check(sizes, operands.of, &fresh.error));
    *result = fresh;
done:
    use_operands_finish(&operands);
    return status;
}
