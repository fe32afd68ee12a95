/* The small kernels, for both families: changes of layout, rows, sampling, the eigenproblem. */
#include "compile/kernels_family.h"

#include "base/error.h"

int kernels_relayout(const struct kernel_target *target, int64_t n, int64_t c, int64_t h, int64_t w, enum layout from,
                     enum layout to, struct kernel_use *use) {
    (void)target, (void)n, (void)c, (void)h, (void)w, (void)from, (void)to, (void)use;
    return error_set(RETORT_EUNSUPPORTED, "no relayout kernel yet");
}

int kernels_scatter_rows(const struct kernel_target *target, int64_t rows, int64_t width, int64_t count,
                         struct kernel_use *use) {
    (void)target, (void)rows, (void)width, (void)count, (void)use;
    return error_set(RETORT_EUNSUPPORTED, "no scatter_rows kernel yet");
}

int kernels_sample(const struct kernel_target *target, int64_t n, int64_t c, int64_t h, int64_t w, bool transpose,
                   struct kernel_use *use) {
    (void)target, (void)n, (void)c, (void)h, (void)w, (void)transpose, (void)use;
    return error_set(RETORT_EUNSUPPORTED, "no sample kernel yet");
}

int kernels_eigh(const struct kernel_target *target, int64_t k, struct kernel_use *use) {
    (void)target, (void)k, (void)use;
    return error_set(RETORT_EUNSUPPORTED, "no eigh kernel yet");
}
