#include "bench/measure.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

#include <math.h>
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

static void add_kernel(struct text *text, const char *name, const struct kernel_use *use) {
    if (use->file)
        text_printf(text, "#define NAME %s\n%s%s\n#undef NAME\n", name, use->parameters, kernels_text(use->file));
}

static int build(struct device *device, const struct kernel_target *target, const struct conv_use *use,
                 struct device_program **program) {
    int status = RETORT_OK;
    struct text text;
    text_init(&text);
    kernels_preamble(&text, target->lanes);
    add_kernel(&text, "pack", &use->pack);
    add_kernel(&text, "product", &use->main);
    add_kernel(&text, "finish", &use->finish);
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory writing kernels");
    TRY(device_program_create(device, text_get(&text), "", program));
done:
    text_finish(&text);
    return status;
}

/* Times a kernel on its buffers, after one launch that leaves what the next kernel reads. Nothing for no kernel. */
static int time_kernel(struct device *device, struct device_program *program, const char *name,
                       const struct kernel_use *use, struct device_buffer *const *buffers, int count, double budget,
                       double *total) {
    int status = RETORT_OK;
    struct device_kernel *kernel = NULL;
    double seconds;
    if (!use->file) return RETORT_OK;
    TRY(device_kernel_create(program, name, &kernel));
    for (int i = 0; i < count; i++) TRY(device_kernel_set_buffer(kernel, (unsigned)i, buffers[i], 0));
    TRY(device_launch(device, kernel, use->global, use->local));
    TRY(device_time_launch(device, kernel, use->global, use->local, budget, &seconds));
    *total += seconds;
done:
    device_kernel_destroy(kernel);
    return status;
}

void use_operands_finish(struct use_operands *operands) {
    if (!operands) return;
    for (int i = 0; i < MOST_OPERANDS; i++) operand_finish(&operands->of[i]);
}

int measure_use(struct device *device, const struct kernel_target *target, const struct conv_use *use, double budget,
                struct use_operands *operands, struct bench_kernel_result *result) {
    int status = RETORT_OK;
    const int count = operands->count, first_packed = use->packed_floats ? count - operands->packed : count;
    struct device_program *program = NULL;
    struct device_buffer *buffers[MOST_OPERANDS] = {NULL}, *packed[MOST_OPERANDS] = {NULL}, *work = NULL;
    struct device_buffer *product[MOST_OPERANDS];
    double seconds = 0;
    for (int i = 0; i < count; i++) {
        struct operand *operand = &operands->of[i];
        size_t bytes = operand->count * sizeof *operand->values;
        for (size_t k = 0; i < operands->results && k < operand->count; k++) operand->values[k] = NAN;
        TRY(device_buffer_create(device, bytes, "operand", &buffers[i]));
        TRY(device_write(device, buffers[i], 0, bytes, operand->values));
        product[i] = buffers[i];
    }
    TRY(device_buffer_create(device, use->work_floats * sizeof(float), "parts of a product", &work));
    TRY(build(device, target, use, &program));
    for (int i = first_packed; i < count; i++) {
        TRY(device_buffer_create(device, use->packed_floats * sizeof(float), "packed operand", &packed[i]));
        product[i] = packed[i];
        TRY(time_kernel(device, program, "pack", &use->pack, (struct device_buffer *[]){packed[i], buffers[i]}, 2,
                        budget, &seconds));
    }
    if (use->finish.file) product[0] = work;
    TRY(time_kernel(device, program, "product", &use->main, product, count, budget, &seconds));
    TRY(time_kernel(device, program, "finish", &use->finish, (struct device_buffer *[]){buffers[0], work}, 2, budget,
                    &seconds));
    for (int i = 0; i < operands->results; i++)
        TRY(device_read(device, buffers[i], 0, operands->of[i].count * sizeof(float), operands->of[i].values));
    result->file = use->main.file;
    result->seconds = seconds;
done:
    device_program_destroy(program);
    device_buffer_destroy(work);
    for (int i = 0; i < count; i++) {
        device_buffer_destroy(packed[i]);
        device_buffer_destroy(buffers[i]);
    }
    return status;
}
