#include "bench/measure.h"

#include "base/error.h"
#include "base/random.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A tensor of images as it lies in memory; also weights, always plain. */
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

enum { CHECKED = 256 };

struct conv_trial {
    struct conv_class class;
    struct tensor tensors[MOST_OPERANDS]; /* as the operands: results, then what they are computed from */
    struct plan_operands operands;
    int64_t places[2][CHECKED][4];
    double right[2][CHECKED];
    float *first[2]; /* the results of the first measurement; NULL: there was none */
};

/* One element of the product of one pair of operands, in double precision. */
static double right_value(const struct conv_class *class, const struct tensor *a, const struct tensor *b,
                          const int64_t at[4]) {
    const struct conv_sizes *s = &class->sizes;
    double sum = 0;
    switch (class->pass) {
    case CONV_FORWARD:
        for (int64_t c = 0; c < s->c; c++)
            for (int64_t ky = 0; ky < s->kh; ky++)
                for (int64_t kx = 0; kx < s->kw; kx++)
                    sum +=
                        tensor_at(a, at[0], c, at[2] * s->stride - s->padding + ky, at[3] * s->stride - s->padding + kx)
                        * tensor_at(b, at[1], c, ky, kx);
        return sum;
    case CONV_BACKWARD_DATA:
        for (int64_t o = 0; o < s->o; o++)
            for (int64_t ky = 0; ky < s->kh; ky++)
                for (int64_t kx = 0; kx < s->kw; kx++) {
                    int64_t y = at[2] + s->padding - ky, x = at[3] + s->padding - kx;
                    if (y % s->stride == 0 && x % s->stride == 0)
                        sum += tensor_at(a, at[0], o, y / s->stride, x / s->stride) * tensor_at(b, o, at[1], ky, kx);
                }
        return sum;
    default:
        for (int64_t n = 0; n < s->n; n++)
            for (int64_t y = 0; y < s->oh; y++)
                for (int64_t x = 0; x < s->ow; x++)
                    sum += tensor_at(b, n, at[0], y, x)
                           * tensor_at(a, n, at[1], y * s->stride - s->padding + at[2],
                                       x * s->stride - s->padding + at[3]);
        return sum;
    }
}

/* One element of a result: the sum of its terms. */
static double right_sum(const struct conv_trial *trial, int result, const int64_t at[4]) {
    const struct conv_terms *terms = &trial->class.terms;
    const struct tensor *inputs = trial->tensors + trial->operands.results;
    double sum = 0;
    for (int i = 0; i < terms->inputs; i++) {
        if (trial->class.pass == CONV_BACKWARD_WEIGHT)
            sum += right_value(&trial->class, inputs + 2 * i, inputs + 2 * i + 1, at);
        for (int w = 0; w < terms->weights && trial->class.pass != CONV_BACKWARD_WEIGHT; w++)
            if (terms->mask >> ((result * 2 + i) * 2 + w) & 1)
                sum += right_value(&trial->class, inputs + i, inputs + terms->inputs + w, at);
    }
    return sum;
}

static void compute_right(struct conv_trial *trial) {
    struct random random = random_begin(2, RANDOM_TEST, 0);
    for (int r = 0; r < trial->operands.results; r++)
        for (int i = 0; i < CHECKED; i++) {
            const struct tensor *out = &trial->tensors[r];
            int64_t *at = trial->places[r][i];
            at[0] = random_below(&random, (uint32_t)out->n);
            at[1] = random_below(&random, (uint32_t)out->c);
            at[2] = random_below(&random, (uint32_t)out->h);
            at[3] = random_below(&random, (uint32_t)out->w);
            trial->right[r][i] = right_sum(trial, r, at);
        }
}

int conv_trial_create(const struct kernel_target *target, const struct conv_class *class, struct conv_trial **trial) {
    int status = RETORT_OK;
    const struct conv_sizes *s = &class->sizes;
    const struct conv_terms *terms = &class->terms;
    bool weight = class->pass == CONV_BACKWARD_WEIGHT, forward = class->pass == CONV_FORWARD;
    struct kernel_plan plan;
    struct conv_trial *fresh = calloc(1, sizeof *fresh);
    if (!fresh) RAISE(RETORT_ENOMEM, "out of memory");
    TRY(kernels_conv(target, class, &plan)); /* refuses sizes that make no sense */
    fresh->class = *class;
    const struct tensor x = {NULL, s->n, s->c,
                             s->h, s->w, kernels_conv_layout(target, s->c) == LAYOUT_BLOCKED ? target->lanes : 1};
    const struct tensor y = {NULL,  s->n,  s->o,
                             s->oh, s->ow, kernels_conv_layout(target, s->o) == LAYOUT_BLOCKED ? target->lanes : 1};
    const struct tensor w = {NULL, s->o, s->c, s->kh, s->kw, 1};
    struct plan_operands *operands = &fresh->operands;
    operands->results = weight ? 1 : terms->outputs;
    operands->count = operands->results + (weight ? 2 * terms->inputs : terms->inputs + terms->weights);
    for (int i = 0; i < operands->count; i++) {
        int input = i - operands->results;
        struct tensor *tensor = &fresh->tensors[i];
        if (weight)
            *tensor = input < 0 ? w : input % 2 ? y : x;
        else
            *tensor = input < 0 ? (forward ? y : x) : input >= terms->inputs ? w : forward ? x : y;
        TRY(operand_fill(&operands->of[i], tensor_count(tensor), (uint32_t)i));
        clear_padding(tensor, operands->of[i].values);
        tensor->values = operands->of[i].values;
    }
    compute_right(fresh);
    *trial = fresh;
    return RETORT_OK;
done:
    conv_trial_destroy(fresh);
    return status;
}

void conv_trial_destroy(struct conv_trial *trial) {
    if (!trial) return;
    plan_operands_finish(&trial->operands);
    free(trial->first[0]);
    free(trial->first[1]);
    free(trial);
}

static double larger(double difference, double got, double right) {
    return isnan(got) ? INFINITY : fmax(difference, fabs(got - right));
}

int conv_trial_measure(struct conv_trial *trial, struct device *device, const struct kernel_target *target,
                       double seconds, struct bench_kernel_result *result) {
    int status = RETORT_OK;
    struct kernel_plan plan;
    struct bench_kernel_result fresh = {0};
    const struct conv_sizes *s = &trial->class.sizes;
    const struct conv_terms *terms = &trial->class.terms;
    TRY(kernels_conv(target, &trial->class, &plan));
    TRY(measure_plan(device, target, &plan, seconds, &trial->operands, &fresh));
    fresh.way = kernels_conv_choice(target, &trial->class).variant;
    int products = trial->class.pass == CONV_BACKWARD_WEIGHT ? terms->inputs : __builtin_popcount(terms->mask);
    fresh.flops = 2.0 * products * (double)(s->kh * s->kw) * (double)(s->n * s->oh * s->ow) * (double)(s->c * s->o);
    for (int r = 0; r < trial->operands.results; r++) {
        const struct operand *got = &trial->operands.of[r];
        double difference = 0, departure = 0, largest = 0;
        for (int i = 0; i < CHECKED; i++) {
            const int64_t *at = trial->places[r][i];
            difference =
                larger(difference, tensor_at(&trial->tensors[r], at[0], at[1], at[2], at[3]), trial->right[r][i]);
            largest = fmax(largest, fabs(trial->right[r][i]));
        }
        for (size_t i = 0; trial->first[r] && i < got->count; i++)
            departure = larger(departure, got->values[i], trial->first[r][i]);
        fresh.error = fmax(fresh.error, difference / largest);
        fresh.departure = fmax(fresh.departure, departure / largest);
        if (trial->first[r]) continue;
        trial->first[r] = malloc(got->count * sizeof *got->values);
        if (!trial->first[r]) RAISE(RETORT_ENOMEM, "out of memory for a result of %zu numbers", got->count);
        memcpy(trial->first[r], got->values, got->count * sizeof *got->values);
    }
    *result = fresh;
done:
    return status;
}

int bench_conv(struct device *device, const struct kernel_target *target, const struct bench_conv_spec *spec,
               struct bench_kernel_result *result) {
    int status = RETORT_OK;
    const int64_t side = spec->side;
    static const enum conv_pass passes[] = {CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHT};
    const struct conv_class class = {
        passes[spec->pass],
        {spec->batch, spec->channels, side, side, spec->outputs, 3, 3, side, side, .stride = 1, .padding = 1},
        CONV_SINGLE};
    struct conv_trial *trial = NULL;
    TRY(conv_trial_create(target, &class, &trial));
    TRY(conv_trial_measure(trial, device, target, BENCH_SECONDS, result));
done:
    conv_trial_destroy(trial);
    return status;
}

static int compile_pass(struct library *library, const struct bench_conv_spec *spec, enum bench_conv_pass pass,
                        struct executable **executable) {
    int status = RETORT_OK;
    static const char *const labels[] = {"convolution", "convolution to data", "convolution to weights"};
    const int64_t side = spec->side;
    struct graph *graph = NULL;
    TRY(graph_create(&graph));
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(spec->batch, spec->channels, side, side));
    struct node *w = graph_input(graph, "w", FLOAT32, SHAPE(spec->outputs, spec->channels, 3, 3));
    struct node *y = graph_input(graph, "y", FLOAT32, SHAPE(spec->batch, spec->outputs, side, side));
    graph_output(graph, "result",
                 pass == BENCH_FORWARD         ? node_conv(x, w, 1, 1)
                 : pass == BENCH_BACKWARD_DATA ? node_conv_backward_data(y, w, 1, 1, side, side)
                                               : node_conv_backward_weight(x, y, 1, 1, 3, 3));
    TRY(graph_status(graph));
    TRY(executable_create(library, graph, labels[pass], executable));
done:
    graph_destroy(graph);
    return status;
}

int bench_conv_kernels(struct device *device, enum family family, const struct bench_conv_spec *spec, FILE *program,
                       FILE *launches) {
    int status = RETORT_OK;
    struct library *library = NULL;
    struct executable *executables[BENCH_BACKWARD_WEIGHT + 1] = {NULL};
    TRY(library_create_with(device, family, NULL, &library));
    for (enum bench_conv_pass pass = BENCH_FORWARD; pass <= BENCH_BACKWARD_WEIGHT; pass++) {
        TRY(compile_pass(library, spec, pass, &executables[pass]));
        executable_print(executables[pass], true, launches);
    }
    if (program) TRY(library_write_program(library, program));
done:
    for (int i = 0; i <= BENCH_BACKWARD_WEIGHT; i++) executable_destroy(executables[i]);
    library_destroy(library);
    return status;
}
