/* The kernel choice: checks what is asked for, then leaves it to the family. */
#include "compile/kernels_family.h"

#include "base/error.h"
#include "compile/wisdom.h"

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
    if (lanes == 1) text_append(text, kernels_text("rows_gpu.cl"));
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

static bool is_single(const struct conv_class *class) {
    return class->terms.inputs == 1 && class->terms.outputs == 1 && class->terms.weights == 1 && class->terms.mask == 1;
}

/* Whether the compiler may ask for a launch of these terms. */
static bool terms_fit(const struct conv_class *class) {
    const struct conv_terms *t = &class->terms;
    if (is_single(class)) return true;
    if (class->pass == CONV_BACKWARD_WEIGHT) return t->outputs == 1 && t->inputs == 2 && t->weights == 2 && !t->mask;
    unsigned allowed = 0;
    for (int o = 0; o < t->outputs && o < 2; o++)
        for (int i = 0; i < t->inputs && i < 2; i++)
            for (int w = 0; w < t->weights && w < 2; w++) allowed |= 1u << ((o * 2 + i) * 2 + w);
    return t->outputs >= 1 && t->outputs <= 2 && t->inputs >= 1 && t->inputs <= 2 && t->weights >= 1 && t->weights <= 2
           && t->mask && !(t->mask & ~allowed);
}

bool kernels_conv_fits(const struct kernel_target *target, const struct conv_class *class,
                       const struct conv_choice *choice) {
    if (target->family != FAMILY_CPU || !terms_fit(class)) return false;
    if (check_conv(target, &class->sizes) < 0) {
        error_clear();
        return false;
    }
    bool own = !choice->tile[0] && !choice->tile[1] && !choice->tile[2];
    for (int i = 0; i < 3; i++)
        if (!own && (choice->tile[i] < 1 || choice->tile[i] > 4096)) return false;
    if (choice->method) return kernels_winograd_fits(target, class, choice);
    return is_single(class) && (own || kernels_direct_fits(target, class, choice));
}

struct conv_choice kernels_conv_choice(const struct kernel_target *target, const struct conv_class *class) {
    const struct conv_choice *known = target->direct ? NULL : wisdom_find(target->wisdom, class);
    if (known && kernels_conv_fits(target, class, known)) return *known;
    if (is_single(class)) return (struct conv_choice){.method = kernels_winograd(target, class->pass, &class->sizes)};
    /* Joined convolutions for which nothing is known use the method chosen for the single one, whose choice let them be
     * joined. */
    struct conv_class single = {class->pass, class->sizes, CONV_SINGLE};
    int method = kernels_winograd(target, class->pass, &class->sizes);
    return (struct conv_choice){.method = method ? method : kernels_conv_choice(target, &single).method};
}

int kernels_conv_candidates(const struct kernel_target *target, const struct conv_class *class, int method,
                            struct conv_choice list[CONV_CANDIDATES]) {
    int tiles[CONV_CANDIDATES - 1][3], count = 0;
    list[0] = (struct conv_choice){.method = method};
    if (!kernels_conv_fits(target, class, &list[0])) return 0;
    int found = method ? kernels_winograd_tiles(target, class->pass, tiles, CONV_CANDIDATES - 1)
                       : kernels_direct_tiles(target, class, tiles, CONV_CANDIDATES - 1);
    count++;
    for (int i = 0; i < found; i++) {
        struct conv_choice choice = {method, {tiles[i][0], tiles[i][1], tiles[i][2]}};
        if (kernels_conv_fits(target, class, &choice)) list[count++] = choice;
    }
    return count;
}

int kernels_conv_plan(const struct kernel_target *target, const struct conv_class *class, struct conv_use *use) {
    enum layout x = kernels_conv_layout(target, class->sizes.c), y = kernels_conv_layout(target, class->sizes.o);
    if (!is_single(class)) return kernels_conv_joined(target, class->pass, &class->sizes, &class->terms, use);
    switch (class->pass) {
    case CONV_FORWARD:
        return kernels_conv(target, &class->sizes, x, y, use);
    case CONV_BACKWARD_DATA:
        return kernels_conv_backward_data(target, &class->sizes, x, y, use);
    default:
        return kernels_conv_backward_weight(target, &class->sizes, x, y, use);
    }
}

bool kernels_conv_joins(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *sizes) {
    struct conv_class single = {pass, *sizes, CONV_SINGLE};
    return target->family == FAMILY_CPU && check_conv(target, sizes) == RETORT_OK
           && kernels_conv_layout(target, sizes->c) == LAYOUT_BLOCKED
           && kernels_conv_layout(target, sizes->o) == LAYOUT_BLOCKED && kernels_conv_choice(target, &single).method;
}

int kernels_conv_joined(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *sizes,
                        const struct conv_terms *terms, struct conv_use *use) {
    int status = RETORT_OK;
    struct conv_use chosen = {0};
    struct conv_class class = {pass, *sizes, *terms};
    TRY(check_conv(target, sizes));
    struct conv_choice choice = kernels_conv_choice(target, &class);
    if (!choice.method) RAISE(RETORT_EINVAL, "convolutions of these sizes cannot be joined");
    kernels_winograd_plan(target, &class, &choice, &chosen);
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
