#include "bench/measure.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

int operand_fill(struct operand *operand, size_t count, uint32_t stream) {
    operand->values = calloc(count, sizeof *operand->values);
    if (!operand->values) return error_set(RETORT_ENOMEM, "out of memory for an operand of %zu numbers", count);
    operand->count = count;
    struct random random = random_begin(1, RANDOM_TEST, stream);
    for (size_t i = 0; i < count; i++) operand->values[i] = (float)random_normal(&random);
    return RETORT_OK;
}

void operand_finish(struct operand *operand) {
    if (!operand) return;
    free(operand->values);
    *operand = (struct operand){0};
}

static int build(struct device *device, const struct kernel_target *target, const struct kernel_plan *plan,
                 struct device_program **program) {
    int status = RETORT_OK;
    struct text text;
    text_init(&text);
    kernels_preamble(&text, target->lanes);
    for (int i = 0; i < plan->use_count; i++) {
        char name[16];
        snprintf(name, sizeof name, "k%d", i);
        kernels_append(&text, name, &plan->uses[i]);
    }
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory writing kernels");
    TRY(device_program_create(device, text_get(&text), "", program));
done:
    text_finish(&text);
    return status;
}

/* Times the i-th launch of a plan, after one launch that leaves what the next reads. */
static int time_launch(struct device *device, struct device_program *program, const struct kernel_plan *plan, int i,
                       struct device_buffer *const *operands, int results, struct device_buffer *const *scratch,
                       double budget, double *total) {
    int status = RETORT_OK;
    struct device_kernel *kernel = NULL;
    const struct plan_launch *launch = &plan->launches[i];
    const struct kernel_use *use = plan_use(plan, launch);
    char name[16];
    double seconds;
    snprintf(name, sizeof name, "k%d", launch->use);
    TRY(device_kernel_create(program, name, &kernel));
    for (int k = 0; k < launch->count; k++) {
        const struct plan_operand *operand = &launch->operands[k];
        struct device_buffer *buffer = PLAN_PICK(operand, operands, operands + results, scratch);
        TRY(device_kernel_set_buffer(kernel, (unsigned)k, buffer, operand->offset));
    }
    TRY(device_launch(device, kernel, use->global, use->local));
    TRY(device_time_launch(device, kernel, use->global, use->local, budget, &seconds));
    *total += seconds;
done:
    device_kernel_destroy(kernel);
    return status;
}

struct timed_call {
    struct device *device;
    const struct gemm *gemm;
    struct gemm_place places[GEMM_OPERANDS];
    struct device_buffer *scratch;
};

static int call_timed(void *what) {
    const struct timed_call *timed = what;
    return device_gemm(timed->device, timed->gemm, timed->places, timed->scratch);
}

/* Times the i-th launch of a plan, a library's product, after one that leaves what the next reads. */
static int time_call(struct device *device, const struct plan_launch *launch, struct device_buffer *const *operands,
                     int results, struct device_buffer *const *scratch, double budget, double *total) {
    int status = RETORT_OK;
    struct timed_call timed = {.device = device, .gemm = &launch->call};
    double seconds;
    for (int k = 0; k < launch->count; k++) {
        const struct plan_operand *operand = &launch->operands[k];
        timed.places[k].buffer = PLAN_PICK(operand, operands, operands + results, scratch);
        timed.places[k].offset = operand->offset;
    }
    if (timed.gemm->scratch) TRY(device_buffer_create(device, timed.gemm->scratch, "scratch memory", &timed.scratch));
    TRY(call_timed(&timed));
    TRY(device_time(device, call_timed, &timed, budget, &seconds));
    *total += seconds;
done:
    device_buffer_destroy(timed.scratch);
    return status;
}

void plan_operands_finish(struct plan_operands *operands) {
    if (!operands) return;
    for (int i = 0; i < MOST_OPERANDS; i++) operand_finish(&operands->of[i]);
}

int measure_plan(struct device *device, const struct kernel_target *target, const struct kernel_plan *plan,
                 double budget, struct plan_operands *operands, struct bench_kernel_result *result) {
    int status = RETORT_OK;
    struct device_program *program = NULL;
    struct device_buffer *buffers[MOST_OPERANDS] = {NULL}, *scratch[PLAN_SCRATCHES] = {NULL};
    double seconds = 0, share = -1;
    for (int i = 0; i < operands->count; i++) {
        struct operand *operand = &operands->of[i];
        size_t bytes = operand->count * sizeof *operand->values;
        for (size_t k = 0; i < operands->results && k < operand->count; k++) operand->values[k] = NAN;
        TRY(device_buffer_create(device, bytes, "operand", &buffers[i]));
        TRY(device_write(device, buffers[i], 0, bytes, operand->values));
    }
    for (int i = 0; i < plan->scratch_count; i++)
        TRY(device_buffer_create(device, plan->scratch[i] * sizeof(float), "scratch memory", &scratch[i]));
    if (plan->use_count) TRY(build(device, target, plan, &program));
    for (int i = 0; i < plan->launch_count; i++) {
        const struct plan_launch *launch = &plan->launches[i];
        const struct kernel_use *use = plan_use(plan, launch);
        TRY(use ? time_launch(device, program, plan, i, buffers, operands->results, scratch, budget, &seconds)
                : time_call(device, launch, buffers, operands->results, scratch, budget, &seconds));
        if (launch->share <= share) continue;
        share = launch->share;
        result->file = use ? use->file : device_gemm_library();
    }
    for (int i = 0; i < operands->results; i++)
        TRY(device_read(device, buffers[i], 0, operands->of[i].count * sizeof(float), operands->of[i].values));
    result->seconds = seconds;
done:
    device_program_destroy(program);
    for (int i = 0; i < plan->scratch_count; i++) device_buffer_destroy(scratch[i]);
    for (int i = 0; i < operands->count; i++) device_buffer_destroy(buffers[i]);
    return status;
}
