#include "bench/measure.h"

#include "base/error.h"

const char *plan_main_file(const struct kernel_plan *plan) {
    const struct plan_launch *most = &plan->launches[0];
    for (int i = 1; i < plan->launch_count; i++)
        if (plan->launches[i].share > most->share) most = &plan->launches[i];
    const struct kernel_use *use = plan_use(plan, most);
    return use ? use->file : device_gemm_library();
}

int measure_plan(struct device *device, const struct kernel_target *target, const struct kernel_plan *plan,
                 double budget, struct plan_operands *operands, struct bench_kernel_result *result) {
    int status = RETORT_OK;
    struct device_program *program = NULL;
    struct plan_run *run = NULL;
    struct text text;
    double once;
    bool intact;
    text_init(&text);
    kernels_preamble(&text, target->lanes);
    plan_write(plan, "k", &text);
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory writing kernels");
    if (plan->use_count) TRY(device_program_create(device, text_get(&text), "", &program));
    TRY(plan_run_create(device, program, "k", plan, operands, &run));
    TRY(plan_run_once(run, &once, &intact));
    if (!intact) RAISE(RETORT_EDEVICE, "%s writes outside its memory", plan_main_file(plan));
    TRY(plan_run_time(run, budget, &result->seconds));
    result->file = plan_main_file(plan);
done:
    plan_run_destroy(run);
    device_program_destroy(program);
    text_finish(&text);
    return status;
}
