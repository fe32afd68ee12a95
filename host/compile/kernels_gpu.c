/* The GPU family. */
#include "compile/kernels_family.h"

#include "base/error.h"

int kernels_gpu_conv(const struct kernel_target *target, const struct conv_sizes *sizes, struct conv_use *use) {
    (void)target;
    (void)sizes;
    (void)use;
    return error_set(RETORT_EUNSUPPORTED, "the GPU family has no conv yet");
}

int kernels_gpu_conv_backward_data(const struct kernel_target *target, const struct conv_sizes *sizes,
                                   struct conv_use *use) {
    (void)target;
    (void)sizes;
    (void)use;
    return error_set(RETORT_EUNSUPPORTED, "the GPU family has no conv_backward_data yet");
}

int kernels_gpu_conv_backward_weight(const struct kernel_target *target, const struct conv_sizes *sizes,
                                     struct conv_use *use) {
    (void)target;
    (void)sizes;
    (void)use;
    return error_set(RETORT_EUNSUPPORTED, "the GPU family has no conv_backward_weight yet");
}

int kernels_gpu_matmul(const struct kernel_target *target, const struct matmul_sizes *sizes, struct matmul_use *use) {
    (void)target;
    (void)sizes;
    (void)use;
    return error_set(RETORT_EUNSUPPORTED, "the GPU family has no matmul yet");
}
