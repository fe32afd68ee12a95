/* The small kernels, for both families: changes of layout, rows, sampling, the eigenproblem. */
#include "compile/kernels_family.h"

#include "base/error.h"

int kernels_relayout(const struct kernel_target *target, int64_t n, int64_t c, int64_t h, int64_t w, enum layout from,
                     enum layout to, struct kernel_plan *plan) {
    int status = RETORT_OK;
    struct kernel_use use;
    struct kernel_plan fresh = {0};
    int64_t lanes = target->lanes;
    TRY(kernels_check_target(target));
    TRY(kernels_check_count("relayout", n, c, h, w));
    int64_t blocks = divide_up(c, lanes);
    TRY(kernels_check_count("relayout", n, blocks * lanes, h, w));
    if (from != to && lanes > 1) {
        enum { SPAN = 256 }; /* pixels: V planes of them and their block stay in the first-level cache */
        kernel_use_begin(&use, "relayout.cl");
        kernel_use_define(&use, "TO_BLOCKED", to == LAYOUT_BLOCKED);
        kernel_use_define(&use, "CHANNELS", c);
        kernel_use_define(&use, "PIXELS", h * w);
        kernel_use_define(&use, "SPAN", SPAN);
        kernel_use_launch(&use, (size_t)divide_up(h * w, SPAN), (size_t)blocks, (size_t)n, 1, 1, 1);
        plan_launch(&fresh, &use, 1, 2, (struct plan_operand[]){PLAN_RESULT(0), PLAN_INPUT(0)});
    }
    *plan = fresh;
done:
    return status;
}

int kernels_scatter_rows(const struct kernel_target *target, int64_t rows, int64_t width, int64_t count,
                         struct kernel_plan *plan) {
    enum { FEW_ROWS = 64 };
    int status = RETORT_OK;
    bool cpu = target->family == FAMILY_CPU;
    TRY(kernels_check_target(target));
    TRY(kernels_check_count("scattered rows", rows, width, 1, 1));
    TRY(kernels_check_count("scatter_rows result", count, width, 1, 1));
    TRY(kernels_check_count("scatter_rows indices", count + rows, 1, 1, 1));
    struct kernel_plan fresh = {0};
    struct kernel_use use;
    struct plan_operand index = PLAN_INPUT(1);
    bool listed = rows > FEW_ROWS;
    if (listed) {
        /* One of a CPU's work-items makes the list as fast as memory is read; a GPU has one for each row. */
        int64_t own = cpu ? count : 1;
        kernel_use_begin(&use, "scatter_list.cl");
        kernel_use_define(&use, "COUNT", count);
        kernel_use_define(&use, "ROWS", rows);
        kernel_use_define(&use, "OWN", own);
        if (cpu)
            kernel_use_launch(&use, 1, 1, 1, 1, 1, 1);
        else
            kernel_use_launch_items(&use, target, count, 1);
        index = plan_pack(&fresh, &use, (size_t)(count + rows), 1, 1);
    }
    /* A CPU's work-item takes a long run of a row, a GPU's one element. */
    int64_t span = cpu ? 1024 : 1;
    kernel_use_begin(&use, "scatter_rows.cl");
    kernel_use_define(&use, "LISTED", listed);
    kernel_use_define(&use, "COUNT", count);
    kernel_use_define(&use, "WIDTH", width);
    kernel_use_define(&use, "ROWS", rows);
    kernel_use_define(&use, "SPAN", span);
    if (cpu)
        kernel_use_launch(&use, (size_t)divide_up(width, span), (size_t)count, 1, 1, 1, 1);
    else
        kernel_use_launch_items(&use, target, width, count);
    plan_launch(&fresh, &use, 1, 3, (struct plan_operand[]){PLAN_RESULT(0), PLAN_INPUT(0), index})->share = 1;
    *plan = fresh;
done:
    return status;
}

int kernels_sample(const struct kernel_target *target, int64_t n, int64_t c, int64_t h, int64_t w, bool transpose,
                   struct kernel_plan *plan) {
    int status = RETORT_OK;
    TRY(kernels_check_target(target));
    TRY(kernels_check_count("sampled images", n, c, h, w));
    /* Gathering tests many outputs for each pixel, but every pixel is a work-item: for GPUs, which have so many. */
    bool gather = transpose && target->family == FAMILY_GPU;
    struct kernel_use use;
    kernel_use_begin(&use, "sample.cl");
    kernel_use_define(&use, "TRANSPOSE", transpose);
    kernel_use_define(&use, "GATHER", gather);
    kernel_use_define(&use, "CHANNELS", c);
    kernel_use_define(&use, "CHANNELS_AT_ONCE", min_of(c, 4));
    kernel_use_define(&use, "HEIGHT", h);
    kernel_use_define(&use, "WIDTH", w);
    if (transpose && !gather)
        kernel_use_launch(&use, (size_t)(n * c), 1, 1, 1, 1, 1);
    else
        kernel_use_launch_items(&use, target, h * w, n);
    struct kernel_plan fresh = {0};
    plan_launch(&fresh, &use, 1, 3, (struct plan_operand[]){PLAN_RESULT(0), PLAN_INPUT(0), PLAN_INPUT(1)})->share = 1;
    *plan = fresh;
done:
    return status;
}

int kernels_eigh(const struct kernel_target *target, int64_t k, struct kernel_plan *plan) {
    int status = RETORT_OK;
    TRY(kernels_check_target(target));
    if (k < 1 || k > KERNELS_EIGH_MAX)
        RAISE(RETORT_EUNSUPPORTED, "eigenproblem of a %lldx%lld matrix: 1 to %d are possible", (long long)k,
              (long long)k, KERNELS_EIGH_MAX);
    struct kernel_use use;
    kernel_use_begin(&use, "eigh.cl");
    kernel_use_define(&use, "K", k);
    kernel_use_launch(&use, 1, 1, 1, 1, 1, 1);
    struct kernel_plan fresh = {0};
    plan_launch(&fresh, &use, 1, 2, (struct plan_operand[]){PLAN_RESULT(0), PLAN_INPUT(0)})->share = 1;
    *plan = fresh;
done:
    return status;
}
