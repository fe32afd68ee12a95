/* Matrix products as calls of a library, CLBlast: who computes them on a device, and why. */
#include "compile/kernels_family.h"

#include "base/error.h"
#include "base/log.h"
#include "compile/wisdom.h"

#include <stdio.h>
#include <string.h>

int product_call_plan(const struct kernel_target *target, const struct kernel_class *class, const int *parameters,
                      struct kernel_plan *plan) {
    int status = RETORT_OK;
    const struct matmul_sizes *sizes = &class->product;
    (void)parameters;
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

bool kernels_may_call(const struct kernel_target *target) {
    const char *asked = target->gemm ? target->gemm : "auto";
    return device_gemm_library() && strcmp(asked, "own") != 0
           && (target->traits->kind == DEVICE_GPU || strcmp(asked, "clblast") == 0);
}

/* Without measurements: our own kernels. On CPUs CLBlast's are slower by far; on GPUs it may win large products. */
static void explain_own(const struct kernel_target *target, char words[GEMM_WORDS]) {
    const char *library = device_gemm_library();
    if (!library)
        snprintf(words, GEMM_WORDS, "own kernels; this build has no CLBlast");
    else if (wisdom_refuses_library(target->wisdom))
        snprintf(words, GEMM_WORDS, "own kernels; %s crashed, hung or was wrong here when it was measured", library);
    else if (target->traits->kind == DEVICE_CPU)
        snprintf(words, GEMM_WORDS, "own kernels, which are faster on CPUs; %s with device.gemm: clblast", library);
    else
        snprintf(words, GEMM_WORDS,
                 "own kernels; %s where `retort tune` finds it faster, or with device.gemm: clblast (`retort bench "
                 "gemm` compares the two)",
                 library);
}

/* The library's test, if it has not been known to be bad before. */
static int trust(const struct kernel_target *target, struct device *device) {
    if (wisdom_refuses_library(target->wisdom))
        return error_set(RETORT_EDEVICE, "%s is known to be bad on %s: it crashed, hung or computed wrongly there",
                         device_gemm_library() ? device_gemm_library() : "CLBlast", target->traits->name);
    return device_gemm_trust(device);
}

int kernels_settle_gemm(struct kernel_target *target, struct device *device, char words[GEMM_WORDS]) {
    const char *asked = target->gemm ? target->gemm : "auto";
    const bool by_wisdom = strcmp(asked, "auto") == 0;
    const int measured = by_wisdom && device_gemm_library() ? wisdom_library_classes(target->wisdom) : 0;
    target->calls = NULL;
    if (by_wisdom && !measured)
        explain_own(target, words);
    else if (strcmp(asked, "own") == 0)
        snprintf(words, GEMM_WORDS, "own kernels, as asked");
    else if (!by_wisdom && strcmp(asked, "clblast") != 0)
        return error_set(RETORT_EINVAL,
                         "matrix products by \"%s\" (RETORT_GEMM in the environment?): expected auto, "
                         "clblast or own",
                         asked);
    else if (trust(target, device) < 0) {
        snprintf(words, GEMM_WORDS, "own kernels; %s", retort_error_message());
        log_warning("device.gemm: %s: matrix products by own kernels instead: %s", asked, retort_error_message());
        error_clear();
    } else {
        target->calls = device;
        if (by_wisdom)
            snprintf(words, GEMM_WORDS,
                     "%s, which has passed its test, for %d size%s of products that it was measured to be faster for; "
                     "own kernels for others",
                     device_gemm_library(), measured, measured == 1 ? "" : "s");
        else
            snprintf(words, GEMM_WORDS, "%s, as asked, which has passed its test", device_gemm_library());
    }
    return RETORT_OK;
}
