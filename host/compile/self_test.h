/* Whether a device computes convolutions and matrix products rightly by the kernels that were chosen for it. Drivers
 * miscompile a kernel now and then, on every vendor's devices, and no message tells. */
#ifndef RETORT_COMPILE_SELF_TEST_H
#define RETORT_COMPILE_SELF_TEST_H

#include "compile/kernels.h"

/* A class of convolutions or matrix products as an executable computes it, by kernels. */
struct class_use {
    struct kernel_class class;
    struct kernel_choice choice;
    bool tested;
};

/* Tests those not tested yet on a few images or small matrices, each distinct kernel once (compile/trial.h). A choice
 * that fails is bad in `wisdom` from now on, with a warning that says what is taken instead; *refused is how many
 * failed: executables that were compiled before must be compiled again. RETORT_EDEVICE where nothing is left to compute
 * a class by; RETORT_ELIMIT where there is no memory to test in, or with `skip` what there is none for is not tested.
 */
int kernels_self_test(struct device *device, const struct kernel_target *target, struct wisdom *wisdom,
                      struct class_use *uses, size_t count, bool skip, int *refused);

#endif
