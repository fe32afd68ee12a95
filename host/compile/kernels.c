/* The kernel choice: checks what is asked for, then leaves it to the family. */
#include "compile/kernels_family.h"

#include "base/error.h"

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

void kernel_use_launch_items(struct kernel_use *use, const struct kernel_target *target, int64_t items, int64_t y) {
    enum { GROUP = 64 }; /* a multiple of the width every GPU issues in */
    size_t group = target->traits->max_work_group < GROUP ? target->traits->max_work_group : GROUP;
    kernel_use_launch(use, (size_t)round_up(items, (int64_t)group), (size_t)y, 1, group, 1, 1);
}

int kernels_check_count(const char *what, int64_t a, int64_t b, int64_t c, int64_t d) {
    int64_t count;
    if (a <= 0 || b <= 0 || c <= 0 || d <= 0)
        return error_set(RETORT_EINVAL,
                         "%s [%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "]: every size must be positive", what, a,
                         b, c, d);
    if (__builtin_mul_overflow(a, b, &count) || __builtin_mul_overflow(count, c, &count)
        || __builtin_mul_overflow(count, d, &count) || count > INT32_MAX)
        return error_set(RETORT_ELIMIT,
                         "%s [%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64
                         "] has more than 2^31 - 1 elements: use smaller batches",
                         what, a, b, c, d);
    return RETORT_OK;
}

int kernels_check_target(const struct kernel_target *target) {
    bool lanes_fit = target->family == FAMILY_GPU   ? target->lanes == 1
                     : target->family == FAMILY_CPU ? target->lanes == 4 || target->lanes == 8 || target->lanes == 16
                                                    : false;
    if (!lanes_fit)
        return error_set(RETORT_EINVAL, "kernel family %d with %d lanes: CPU takes 4, 8 or 16, GPU 1", target->family,
                         target->lanes);
    return RETORT_OK;
}

void kernels_preamble(struct text *text, int lanes) {
    text_printf(text, "#define V %d\n%s\n%s\n%s\n", lanes, kernels_text("preamble.cl"), kernels_text("winograd.cl"),
                kernels_text("fused.cl"));
}

static int check_conv(const struct kernel_target *target, const struct conv_sizes *s) {
    int status = RETORT_OK;
    TRY(kernels_check_target(target));
    int64_t v = target->lanes;
    if (s->c > INT32_MAX || s->o > INT32_MAX)
        RAISE(RETORT_ELIMIT, "convolution with %" PRId64 " and %" PRId64 " channels: at most 2^31 - 1", s->c, s->o);
    TRY(kernels_check_count("convolution input", s->n, round_up(s->c, v), s->h, s->w));
    TRY(kernels_check_count("convolution output", s->n, round_up(s->o, v), s->oh, s->ow));
    TRY(kernels_check_count("convolution weights", round_up(s->o, v), round_up(s->c, v), s->kh, s->kw));
    if (s->stride < 1 || s->stride > INT16_MAX || s->padding < 0 || s->padding > INT16_MAX)
        RAISE(RETORT_EINVAL, "convolution with stride %d and padding %d: stride is 1 to 32767, padding 0 to 32767",
              s->stride, s->padding);
    int64_t below = s->h + 2 * s->padding - s->kh, right = s->w + 2 * s->padding - s->kw;
    if (below < 0 || right < 0 || s->oh != below / s->stride + 1 || s->ow != right / s->stride + 1)
        RAISE(RETORT_EINVAL,
              "convolution of %" PRId64 "x%" PRId64 " by %" PRId64 "x%" PRId64
              " with stride %d and padding %d does not give %" PRId64 "x%" PRId64,
              s->h, s->w, s->kh, s->kw, s->stride, s->padding, s->oh, s->ow);
done:
    return status;
}

struct kernel_target kernels_target(const struct device_traits *traits, enum family family) {
    if (family == FAMILY_AUTO) family = traits->kind == DEVICE_CPU ? FAMILY_CPU : FAMILY_GPU;
    return (struct kernel_target){
        .traits = traits, .family = family, .lanes = family == FAMILY_CPU ? (int)traits->vector_width : 1};
}

enum layout kernels_conv_layout(const struct kernel_target *target, int64_t channels) {
    /* An image of 1 or 3 channels would be mostly padding in a block of 16; it is also what the outside hands in and
     * takes out, so plain saves a relayout too. */
    return target->lanes == 1 || channels <= 4 ? LAYOUT_PLAIN : LAYOUT_BLOCKED;
}

int kernels_conv(const struct kernel_target *target, const struct conv_sizes *sizes, enum layout x, enum layout y,
                 struct conv_use *use) {
    int status = RETORT_OK;
    TRY(check_conv(target, sizes));
    struct conv_use chosen = {0};
    TRY(target->family == FAMILY_GPU ? kernels_gpu_conv(target, sizes, &chosen)
                                     : kernels_cpu_conv(target, sizes, x, y, &chosen));
    *use = chosen;
done:
    return status;
}

int kernels_conv_backward_data(const struct kernel_target *target, const struct conv_sizes *sizes, enum layout x,
                               enum layout y, struct conv_use *use) {
    int status = RETORT_OK;
    TRY(check_conv(target, sizes));
    struct conv_use chosen = {0};
    TRY(target->family == FAMILY_GPU ? kernels_gpu_conv_backward_data(target, sizes, &chosen)
                                     : kernels_cpu_conv_backward_data(target, sizes, x, y, &chosen));
    *use = chosen;
done:
    return status;
}

int kernels_conv_backward_weight(const struct kernel_target *target, const struct conv_sizes *sizes, enum layout x,
                                 enum layout y, struct conv_use *use) {
    int status = RETORT_OK;
    TRY(check_conv(target, sizes));
    struct conv_use chosen = {0};
    TRY(target->family == FAMILY_GPU ? kernels_gpu_conv_backward_weight(target, sizes, &chosen)
                                     : kernels_cpu_conv_backward_weight(target, sizes, x, y, &chosen));
    *use = chosen;
done:
    return status;
}

bool kernels_conv_joins(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *sizes) {
    struct winograd_task task;
    return target->family == FAMILY_CPU && check_conv(target, sizes) == RETORT_OK
           && kernels_conv_layout(target, sizes->c) == LAYOUT_BLOCKED
           && kernels_conv_layout(target, sizes->o) == LAYOUT_BLOCKED && kernels_winograd(target, pass, sizes, &task);
}

int kernels_conv_joined(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *sizes,
                        const struct conv_terms *terms, struct conv_use *use) {
    int status = RETORT_OK;
    struct conv_use chosen = {0};
    struct winograd_task task;
    TRY(check_conv(target, sizes));
    int tile = kernels_winograd(target, pass, sizes, &task);
    if (!tile) RAISE(RETORT_EINVAL, "convolutions of these sizes cannot be joined");
    if (pass == CONV_BACKWARD_WEIGHT)
        kernels_winograd_backward_weight(target, &task, tile, terms, &chosen);
    else
        kernels_winograd_conv(target, &task, tile, terms, &chosen);
    *use = chosen;
done:
    return status;
}

int kernels_matmul(const struct kernel_target *target, const struct matmul_sizes *sizes, struct matmul_use *use) {
    int status = RETORT_OK;
    TRY(kernels_check_target(target));
    TRY(kernels_check_count("matmul operand a", sizes->batch, sizes->m, sizes->k, 1));
    TRY(kernels_check_count("matmul operand b", sizes->batch, sizes->k, sizes->n, 1));
    TRY(kernels_check_count("matmul result", sizes->batch, sizes->m, sizes->n, 1));
    struct matmul_use chosen = {0};
    TRY(target->family == FAMILY_GPU ? kernels_gpu_matmul(target, sizes, &chosen)
                                     : kernels_cpu_matmul(target, sizes, &chosen));
    *use = chosen;
done:
    return status;
}
