#include "bench/measure.h"

#include "base/error.h"
#include "base/memory.h"
#include "base/random.h"

#include <stdlib.h>

#define BUDGET 0.1 /* seconds for each kernel */

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
                       const struct kernel_use *use, struct device_buffer *const *buffers, unsigned count,
                       double *total) {
    int status = RETORT_OK;
    struct device_kernel *kernel = NULL;
    double seconds;
    if (!use->file) return RETORT_OK;
    TRY(device_kernel_create(program, name, &kernel));
    for (unsigned i = 0; i < count; i++) TRY(device_kernel_set_buffer(kernel, i, buffers[i], 0));
    TRY(device_launch(device, kernel, use->global, use->local));
    TRY(device_time_launch(device, kernel, use->global, use->local, BUDGET, &seconds));
    *total += seconds;
done:
    device_kernel_destroy(kernel);
    return status;
}

int measure_use(struct device *device, const struct kernel_target *target, const struct conv_use *use,
                struct operand operands[3], struct bench_kernel_result *result) {
    int status = RETORT_OK;
    struct device_program *program = NULL;
    struct device_buffer *buffers[3] = {NULL}, *packed = NULL, *work = NULL;
    double seconds = 0;
    for (int i = 0; i < 3; i++) {
        size_t bytes = operands[i].count * sizeof *operands[i].values;
        TRY(device_buffer_create(device, bytes, "operand", &buffers[i]));
        TRY(device_write(device, buffers[i], 0, bytes, operands[i].values));
    }
    TRY(device_buffer_create(device, use->packed_floats * sizeof(float), "packed operand", &packed));
    TRY(device_buffer_create(device, use->work_floats * sizeof(float), "parts of a product", &work));
    TRY(build(device, target, use, &program));
    struct device_buffer *second = use->packed_floats ? packed : buffers[2],
                         *out = use->finish.file ? work : buffers[0];
    struct device_buffer *pack[] = {packed, buffers[2]}, *product[] = {out, buffers[1], second},
                         *finish[] = {buffers[0], work};
    TRY(time_kernel(device, program, "pack", &use->pack, pack, 2, &seconds));
    TRY(time_kernel(device, program, "product", &use->main, product, 3, &seconds));
    TRY(time_kernel(device, program, "finish", &use->finish, finish, 2, &seconds));
    TRY(device_read(device, buffers[0], 0, operands[0].count * sizeof *operands[0].values, operands[0].values));
    result->file = use->main.file;
    result->seconds = seconds;
done:
    device_program_destroy(program);
    device_buffer_destroy(work);
    device_buffer_destroy(packed);
    for (int i = 0; i < 3; i++) device_buffer_destroy(buffers[i]);
    return status;
}
