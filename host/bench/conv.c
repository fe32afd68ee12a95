#include "bench/measure.h"

#include "base/error.h"
#include "base/random.h"

#include <math.h>
#include <string.h>

/* A tensor of images as it lies in memory; also the weights [O,C,3,3], always plain. */
struct tensor {
    const float *values;
    int64_t n, c, h, w, lanes; /* lanes 1: plain */
};

static size_t tensor_count(const struct tensor *t) {
    return (size_t)(t->n * ((t->c + t->lanes - 1) / t->lanes * t->lanes) * t->h * t->w);
}

static size_t tensor_index(const struct tensor *t, int64_t n, int64_t c, int64_t h, int64_t w) {
    int64_t blocks = (t->c + t->lanes - 1) / t->lanes;
    return (size_t)((((n * blocks + c / t->lanes) * t->h + h) * t->w + w) * t->lanes + c % t->lanes);
}

/* 0 outside the image. */
static double tensor_at(const struct tensor *t, int64_t n, int64_t c, int64_t h, int64_t w) {
    return h < 0 || w < 0 || h >= t->h || w >= t->w ? 0 : t->values[tensor_index(t, n, c, h, w)];
}

/* Lanes past the channels are zero wherever blocked tensors are. */
static void clear_padding(const struct tensor *t, float *values) {
    int64_t padded = (t->c + t->lanes - 1) / t->lanes * t->lanes;
    for (int64_t n = 0; n < t->n; n++)
        for (int64_t c = t->c; c < padded; c++)
            for (int64_t pixel = 0; pixel < t->h * t->w; pixel++)
                values[tensor_index(t, n, c, pixel / t->w, pixel % t->w)] = 0;
}

/* One element [i,j,k,l] of the result of a pass, in double precision. */
static double right_value(enum bench_conv_pass pass, const struct tensor *x, const struct tensor *w,
                          const struct tensor *y, const int64_t at[4]) {
    double sum = 0;
    switch (pass) {
    case BENCH_FORWARD:
        for (int64_t c = 0; c < x->c; c++)
            for (int tap = 0; tap < 9; tap++)
                sum += tensor_at(x, at[0], c, at[2] + tap / 3 - 1, at[3] + tap % 3 - 1)
                       * tensor_at(w, at[1], c, tap / 3, tap % 3);
        return sum;
    case BENCH_BACKWARD_DATA:
        for (int64_t o = 0; o < y->c; o++)
            for (int tap = 0; tap < 9; tap++)
                sum += tensor_at(y, at[0], o, at[2] - tap / 3 + 1, at[3] - tap % 3 + 1)
                       * tensor_at(w, o, at[1], tap / 3, tap % 3);
        return sum;
    default:
        for (int64_t n = 0; n < x->n; n++)
            for (int64_t pixel = 0; pixel < y->h * y->w; pixel++)
                sum += tensor_at(y, n, at[0], pixel / y->w, pixel % y->w)
                       * tensor_at(x, n, at[1], pixel / y->w + at[2] - 1, pixel % y->w + at[3] - 1);
        return sum;
    }
}

static double check(enum bench_conv_pass pass, const struct tensor *x, const struct tensor *w, const struct tensor *y) {
    enum { CHECKED = 256 };
    const struct tensor *out = pass == BENCH_FORWARD ? y : pass == BENCH_BACKWARD_DATA ? x : w;
    struct random random = random_begin(2, RANDOM_TEST, 0);
    double difference = 0, largest = 0;
    for (int i = 0; i < CHECKED; i++) {
        const int64_t at[4] = {random_below(&random, (uint32_t)out->n), random_below(&random, (uint32_t)out->c),
                               random_below(&random, (uint32_t)out->h), random_below(&random, (uint32_t)out->w)};
        double right = right_value(pass, x, w, y, at), got = tensor_at(out, at[0], at[1], at[2], at[3]);
        difference = fmax(difference, isnan(got) ? INFINITY : fabs(got - right));
        largest = fmax(largest, fabs(right));
    }
    return difference / largest;
}

int bench_conv(struct device *device, const struct kernel_target *target, const struct bench_conv_spec *spec,
               struct bench_kernel_result *result) {
    int status = RETORT_OK;
    const int64_t n = spec->batch, c = spec->channels, o = spec->outputs, side = spec->side;
    const struct conv_sizes sizes = {n, c, side, side, o, 3, 3, side, side, .stride = 1, .padding = 1};
    const enum layout lx = kernels_conv_layout(target, c), ly = kernels_conv_layout(target, o);
    struct tensor x = {NULL, n, c, side, side, lx == LAYOUT_BLOCKED ? target->lanes : 1};
    struct tensor y = {NULL, n, o, side, side, ly == LAYOUT_BLOCKED ? target->lanes : 1}, w = {NULL, o, c, 3, 3, 1};
    struct tensor *order[3]; /* result, first and second operand */
    struct operand operands[3] = {0};
    struct bench_kernel_result fresh = {0};
    struct conv_use use;
    switch (spec->pass) {
    case BENCH_FORWARD:
        TRY(kernels_conv(target, &sizes, lx, ly, &use));
        memcpy(order, (struct tensor *[]){&y, &x, &w}, sizeof order);
        break;
    case BENCH_BACKWARD_DATA:
        TRY(kernels_conv_backward_data(target, &sizes, lx, ly, &use));
        memcpy(order, (struct tensor *[]){&x, &y, &w}, sizeof order);
        break;
    default:
        TRY(kernels_conv_backward_weight(target, &sizes, lx, ly, &use));
        memcpy(order, (struct tensor *[]){&w, &x, &y}, sizeof order);
        break;
    }
    for (int i = 0; i < 3; i++) {
        TRY(operand_fill(&operands[i], tensor_count(order[i]), (uint32_t)i));
        clear_padding(order[i], operands[i].values);
        order[i]->values = operands[i].values;
    }
    TRY(measure_use(device, target, &use, operands, &fresh));
    fresh.flops = 2.0 * 9 * (double)(n * side * side) * (double)(c * o);
    fresh.error = check(spec->pass, &x, &w, &y);
    *result = fresh;
done:
    for (int i = 0; i < 3; i++) operand_finish(&operands[i]);
    return status;
}
