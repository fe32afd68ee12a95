/* The GPU family: the convolution triad and the matrix product as one tiled product (cl/product_gpu.cl). */
#include "compile/kernels_family.h"

#include "base/error.h"

enum product { MATMUL, FORWARD, BACKWARD_DATA, BACKWARD_WEIGHT };

enum {
    WORK_MAX = 4,        /* rows and columns of a work-item's tile: 16 sums and 8 operands fit every GPU's registers */
    GROUPS_WANTED = 256, /* work-groups that a backward-weight should have at least, to fill a GPU */
    PARTS_MAX = 64,
    PART_DEPTH = 256, /* the least sum worth a work-group of its own; a multiple of the kernel's DEPTH */
};

/* out [m,n] = A [m,k] B [k,n], `layers` times side by side. */
static void begin_product(const struct kernel_target *target, enum product product, int64_t m, int64_t n, int64_t k,
                          int64_t layers, int64_t plane, struct kernel_use *use) {
    int64_t side = 16, work_m = WORK_MAX, work_n = WORK_MAX;
    while (side > 1 && (size_t)(side * side) > target->traits->max_work_group) side /= 2;
    while (work_m > 1 && side * (work_m / 2) >= m) work_m /= 2;
    while (work_n > 1 && side * (work_n / 2) >= n) work_n /= 2;
    /* A large tile reads less, but idle compute units cost more: two groups for each, if smaller tiles can give them.
     */
    while (work_m * work_n > 1
           && layers * divide_up(m, side * work_m) * divide_up(n, side * work_n)
                  < 2 * (int64_t)target->traits->compute_units) {
        if (work_m > work_n)
            work_m /= 2;
        else
            work_n /= 2;
    }
    kernel_use_begin(use, "product_gpu.cl");
    kernel_use_define(use, "MATMUL", product == MATMUL);
    kernel_use_define(use, "FORWARD", product == FORWARD);
    kernel_use_define(use, "BACKWARD_DATA", product == BACKWARD_DATA);
    kernel_use_define(use, "BACKWARD_WEIGHT", product == BACKWARD_WEIGHT);
    kernel_use_define(use, "M", m);
    kernel_use_define(use, "N", n);
    kernel_use_define(use, "K", k);
    kernel_use_define(use, "PLANE", plane);
    kernel_use_define(use, "SIDE", side);
    kernel_use_define(use, "WORK_M", work_m);
    kernel_use_define(use, "WORK_N", work_n);
    kernel_use_launch(use, (size_t)(divide_up(n, side * work_n) * side), (size_t)(divide_up(m, side * work_m) * side),
                      (size_t)layers, (size_t)side, (size_t)side, 1);
}

static void define_conv(const struct conv_sizes *sizes, bool b_along_k, struct kernel_use *use) {
    kernel_use_define(use, "A_ALONG_M", 0);
    kernel_use_define(use, "B_ALONG_K", b_along_k);
    kernel_use_define(use, "CHANNELS", sizes->c);
    kernel_use_define(use, "OUTPUTS", sizes->o);
    kernel_use_define(use, "IN_H", sizes->h);
    kernel_use_define(use, "IN_W", sizes->w);
    kernel_use_define(use, "OUT_H", sizes->oh);
    kernel_use_define(use, "OUT_W", sizes->ow);
    kernel_use_define(use, "KERNEL_H", sizes->kh);
    kernel_use_define(use, "KERNEL_W", sizes->kw);
    kernel_use_define(use, "STRIDE", sizes->stride);
    kernel_use_define(use, "PADDING", sizes->padding);
}

static int plan_forward(const struct kernel_target *target, const struct conv_sizes *sizes, struct product_use *use) {
    int64_t pixels = sizes->oh * sizes->ow;
    begin_product(target, FORWARD, sizes->o, sizes->n * pixels, sizes->c * sizes->kh * sizes->kw, 1, pixels,
                  &use->main);
    define_conv(sizes, false, &use->main);
    return RETORT_OK;
}

static int plan_backward_data(const struct kernel_target *target, const struct conv_sizes *sizes,
                              struct product_use *use) {
    int64_t pixels = sizes->h * sizes->w;
    begin_product(target, BACKWARD_DATA, sizes->c, sizes->n * pixels, sizes->o * sizes->kh * sizes->kw, 1, pixels,
                  &use->main);
    define_conv(sizes, false, &use->main);
    return RETORT_OK;
}

static int plan_backward_weight(const struct kernel_target *target, const struct conv_sizes *sizes,
                                struct product_use *use) {
    int64_t m = sizes->o, n = sizes->c * sizes->kh * sizes->kw, k = sizes->n * sizes->oh * sizes->ow;
    /* How the sum is cut decides its rounding, so it follows from the sizes alone. */
    int64_t tiles = divide_up(m, 16 * WORK_MAX) * divide_up(n, 16 * WORK_MAX);
    int64_t parts = min_of(min_of(divide_up(GROUPS_WANTED, tiles), PARTS_MAX), divide_up(k, PART_DEPTH));
    int64_t k_per_part = round_up(divide_up(k, parts), PART_DEPTH);
    parts = divide_up(k, k_per_part);
    begin_product(target, BACKWARD_WEIGHT, m, n, k, parts, n, &use->main);
    define_conv(sizes, true, &use->main);
    kernel_use_define(&use->main, "K_PER_PART", k_per_part);
    if (parts > 1) {
        use->work_floats = (size_t)(parts * m * n);
        kernel_use_begin(&use->finish, "sum_parts_gpu.cl");
        kernel_use_define(&use->finish, "COUNT", m * n);
        kernel_use_define(&use->finish, "PARTS", parts);
        kernel_use_launch_items(&use->finish, target, m * n, 1);
    }
    return RETORT_OK;
}

int kernels_gpu_conv(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *sizes,
                     struct product_use *use) {
    return (pass == CONV_FORWARD         ? plan_forward
            : pass == CONV_BACKWARD_DATA ? plan_backward_data
                                         : plan_backward_weight)(target, sizes, use);
}

int kernels_gpu_matmul(const struct kernel_target *target, const struct matmul_sizes *sizes, struct product_use *use) {
    begin_product(target, MATMUL, sizes->m, sizes->n, sizes->k, sizes->batch, sizes->n, &use->main);
    kernel_use_define(&use->main, "A_ALONG_M", sizes->transpose_a);
    kernel_use_define(&use->main, "B_ALONG_K", sizes->transpose_b);
    return RETORT_OK;
}
