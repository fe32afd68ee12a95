/* Matrix products as calls of a library, CLBlast: who computes them on a device, and why. */
#include "compile/kernels_family.h"

#include "base/error.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

bool matmul_clblast_applies(const struct kernel_target *target, const struct matmul_sizes *sizes) {
    (void)sizes;
    return target->calls != NULL;
}

int matmul_clblast_plan(const struct kernel_target *target, const struct matmul_sizes *sizes,
                        struct kernel_plan *plan) {
    int status = RETORT_OK;
    struct gemm gemm = {.batch = (size_t)sizes->batch,
                        .m = (size_t)sizes->m,
                        .n = (size_t)sizes->n,
                        .k = (size_t)sizes->k,
                        .transpose_a = sizes->transpose_a,
                        .transpose_b = sizes->transpose_b,
                        .alpha = 1};
    TRY(device_gemm_plan(target->calls, &gemm));
    plan_call(plan, &gemm);
done:
    return status;
}

/* Whom the rows' rules ask: our own kernels. On CPUs CLBlast's are slower by far; on GPUs it may win large products,
 * but nobody has measured yet where, and measuring is to decide. */
static void explain_auto(const struct kernel_target *target, char words[GEMM_WORDS]) {
    const char *library = device_gemm_library();
    if (!library)
        snprintf(words, GEMM_WORDS, "own kernels; this build has no CLBlast");
    else if (target->traits->kind == DEVICE_CPU)
        snprintf(words, GEMM_WORDS, "own kernels, which are faster on CPUs; %s with device.gemm: clblast", library);
    else
        snprintf(words, GEMM_WORDS, "own kernels; %s with device.gemm: clblast (`retort bench gemm` compares the two)",
                 library);
}

int kernels_settle_gemm(struct kernel_target *target, struct device *device, char words[GEMM_WORDS]) {
    const char *asked = target->gemm ? target->gemm : "auto";
    target->calls = NULL;
    if (strcmp(asked, "auto") == 0)
        explain_auto(target, words);
    else if (strcmp(asked, "own") == 0)
        snprintf(words, GEMM_WORDS, "own kernels, as asked");
    else if (strcmp(asked, "clblast") != 0)
        return error_set(RETORT_EINVAL,
                         "matrix products by \"%s\" (RETORT_GEMM in the environment?): expected auto, "
                         "clblast or own",
                         asked);
    else if (device_gemm_trust(device) < 0) {
        snprintf(words, GEMM_WORDS, "own kernels; %s", retort_error_message());
        log_warning("device.gemm: clblast: matrix products by own kernels instead: %s", retort_error_message());
        error_clear();
    } else {
        target->calls = device;
        snprintf(words, GEMM_WORDS, "%s, as asked, which has passed its test", device_gemm_library());
    }
    return RETORT_OK;
}
