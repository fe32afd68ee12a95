/* Building plans of hand-written kernels, and their text. */
#include "compile/plan.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void kernel_use_begin(struct kernel_use *use, const char *file) {
    memset(use, 0, sizeof *use);
    use->file = file;
}

void kernel_use_define(struct kernel_use *use, const char *name, int64_t value) {
    size_t used = strlen(use->parameters);
    int written =
        snprintf(use->parameters + used, sizeof use->parameters - used, "#define %s %" PRId64 "\n", name, value);
    assert(written > 0 && (size_t)written < sizeof use->parameters - used);
    (void)written;
}

void kernel_use_launch(struct kernel_use *use, size_t x, size_t y, size_t z, size_t local_x, size_t local_y,
                       size_t local_z) {
    memcpy(use->global, (size_t[3]){x, y, z}, sizeof use->global);
    memcpy(use->local, (size_t[3]){local_x, local_y, local_z}, sizeof use->local);
}

int plan_scratch(struct kernel_plan *plan, size_t elements) {
    assert(plan->scratch_count < PLAN_SCRATCHES);
    plan->scratch[plan->scratch_count] = elements;
    return plan->scratch_count++;
}

static int use_number(struct kernel_plan *plan, const struct kernel_use *use) {
    for (int i = 0; i < plan->use_count; i++)
        if (memcmp(&plan->uses[i], use, sizeof *use) == 0) return i;
    assert(plan->use_count < PLAN_USES);
    plan->uses[plan->use_count] = *use;
    return plan->use_count++;
}

struct plan_launch *plan_launch(struct kernel_plan *plan, const struct kernel_use *use, int outputs, int count,
                                const struct plan_operand *operands) {
    assert(plan->launch_count < PLAN_LAUNCHES && count <= PLAN_OPERANDS);
    struct plan_launch *launch = &plan->launches[plan->launch_count++];
    *launch = (struct plan_launch){.use = use_number(plan, use), .outputs = outputs, .count = count};
    memcpy(launch->operands, operands, (size_t)count * sizeof *operands);
    return launch;
}

struct plan_operand plan_pack(struct kernel_plan *plan, const struct kernel_use *use, size_t elements, int input,
                              int count) {
    struct plan_operand operands[PLAN_OPERANDS] = {PLAN_SCRATCH(plan_scratch(plan, elements))};
    for (int k = 0; k < count; k++) operands[1 + k] = PLAN_INPUT(input + k);
    plan_launch(plan, use, 1, 1 + count, operands)->packs = true;
    return operands[0];
}

struct plan_launch *plan_call(struct kernel_plan *plan, const struct gemm *gemm) {
    assert(plan->launch_count < PLAN_LAUNCHES);
    struct plan_launch *launch = &plan->launches[plan->launch_count++];
    *launch = (struct plan_launch){.use = PLAN_CALL,
                                   .call = *gemm,
                                   .operands = {PLAN_RESULT(0), PLAN_INPUT(0), PLAN_INPUT(1)},
                                   .outputs = 1,
                                   .count = GEMM_OPERANDS,
                                   .share = 1};
    return launch;
}

const struct kernel_use *plan_use(const struct kernel_plan *plan, const struct plan_launch *launch) {
    return launch->use == PLAN_CALL ? NULL : &plan->uses[launch->use];
}

void kernels_preamble(struct text *text, int lanes) {
    text_printf(text, "#define V %d\n%s\n%s\n%s\n", lanes, kernels_text("preamble.cl"), kernels_text("winograd.cl"),
                kernels_text("fused.cl"));
    if (lanes == 1) text_append(text, kernels_text("rows_gpu.cl"));
}

void kernels_append(struct text *text, const char *name, const struct kernel_use *use) {
    text_printf(text, "#define NAME %s\n%s%s", name, use->parameters, kernels_text(use->file));
}
