#include "compile/trial.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/random.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- operands --- */
int operand_fill(struct operand *operand, size_t count, uint32_t stream) {
    enum { DRAWN = 65521 }; /* then they come again: a prime, so that they never do so a row or a plane apart */
    operand->values = calloc(count, sizeof *operand->values);
    if (!operand->values) return error_set(RETORT_ENOMEM, "out of memory for an operand of %zu numbers", count);
    operand->count = count;
    struct random random = random_begin(1, RANDOM_TEST, stream);
    for (size_t i = 0; i < count; i++)
        operand->values[i] = i < DRAWN ? (float)random_normal(&random) : operand->values[i - DRAWN];
    return RETORT_OK;
}

void plan_operands_finish(struct plan_operands *operands) {
    if (!operands) return;
    for (int i = 0; i < MOST_OPERANDS; i++) free(operands->of[i].values);
    *operands = (struct plan_operands){0};
}

/* --- a plan in memory of its own --- */
enum { GUARD = 1024 }; /* floats, before and after */

struct guarded {
    struct device_buffer *buffer;
    size_t count; /* between the zones */
};

struct plan_run {
    struct device *device;
    const struct kernel_plan *plan;
    struct plan_operands *operands;
    struct guarded memory[MOST_OPERANDS], scratch[PLAN_SCRATCHES];
    struct device_kernel *kernels[PLAN_LAUNCHES]; /* one a launch: arguments differ. NULL: a call */
    struct device_buffer *call_scratch;           /* what the most demanding call needs; NULL: none */
};

/* "t3_0_conv_cpu_cl": the file is there for messages of drivers and for profiles. */
enum { NAME_SIZE = 80 };
static void name_kernel(const struct kernel_plan *plan, const char *prefix, int use, char name[NAME_SIZE]) {
    snprintf(name, NAME_SIZE, "%s%d_%s", prefix, use, plan->uses[use].file);
    for (char *c = name; *c; c++)
        if (*c == '.') *c = '_';
}

void plan_write(const struct kernel_plan *plan, const char *prefix, struct text *text) {
    for (int i = 0; i < plan->use_count; i++) {
        char name[NAME_SIZE];
        name_kernel(plan, prefix, i, name);
        kernels_append(text, name, &plan->uses[i]);
    }
}

/* Zones and numbers at once; `values` NULL: NaN throughout. */
static int write_guarded(struct device *device, const struct guarded *memory, const float *values) {
    int status = RETORT_OK;
    size_t count = memory->count + 2 * GUARD;
    float *all = malloc(count * sizeof *all);
    if (!all) RAISE(RETORT_ENOMEM, "out of memory for an operand of %zu numbers", memory->count);
    for (size_t i = 0; i < count; i++) all[i] = NAN;
    if (values) memcpy(all + GUARD, values, memory->count * sizeof *all);
    TRY(device_write(device, memory->buffer, 0, count * sizeof *all, all));
done:
    free(all);
    return status;
}

static int create_guarded(struct device *device, size_t count, const float *values, const char *what,
                          struct guarded *memory) {
    int status = RETORT_OK;
    memory->count = count;
    TRY(device_buffer_create(device, (count + 2 * GUARD) * sizeof(float), what, &memory->buffer));
    TRY(write_guarded(device, memory, values));
done:
    return status;
}

static int check_guards(struct device *device, const struct guarded *memory, bool *intact) {
    int status = RETORT_OK;
    float zone[GUARD];
    for (int end = 0; end < 2; end++) {
        TRY(device_read(device, memory->buffer, end ? (GUARD + memory->count) * sizeof *zone : 0, sizeof zone, zone));
        for (int i = 0; i < GUARD; i++) *intact &= isnan(zone[i]);
    }
done:
    return status;
}

static struct guarded operand_memory(const struct plan_run *run, const struct plan_operand *operand) {
    return PLAN_PICK(operand, run->memory, run->memory + run->operands->results, run->scratch);
}

/* Whether a kernel runs in groups of its size, its launch will say: Mesa 22.3's rusticl allows every kernel 32 items
 * when asked, those too that require 64, and runs them. */
static int create_kernel(struct plan_run *run, struct device_program *program, const char *prefix, int i) {
    int status = RETORT_OK;
    const struct plan_launch *launch = &run->plan->launches[i];
    struct device_kernel *kernel;
    char name[NAME_SIZE];
    name_kernel(run->plan, prefix, launch->use, name);
    TRY(device_kernel_create(program, name, &run->kernels[i]));
    kernel = run->kernels[i];
    for (int k = 0; k < launch->count; k++) {
        const struct plan_operand *operand = &launch->operands[k];
        TRY(device_kernel_set_buffer(kernel, (unsigned)k, operand_memory(run, operand).buffer,
                                     GUARD + operand->offset));
    }
done:
    return status;
}

static int create_call_scratch(struct plan_run *run) {
    size_t most = 0;
    for (int i = 0; i < run->plan->launch_count; i++) {
        const struct plan_launch *launch = &run->plan->launches[i];
        if (launch->use == PLAN_CALL && launch->call.scratch > most) most = launch->call.scratch;
    }
    return most ? device_buffer_create(run->device, most, "scratch memory", &run->call_scratch) : RETORT_OK;
}

/* One launch, a kernel's or a library's. */
static int put_on_queue(struct plan_run *run, int i) {
    const struct plan_launch *launch = &run->plan->launches[i];
    const struct kernel_use *use = plan_use(run->plan, launch);
    struct gemm_place places[GEMM_OPERANDS];
    if (use) return device_launch(run->device, run->kernels[i], use->global, use->local);
    for (int k = 0; k < launch->count; k++)
        places[k] =
            (struct gemm_place){operand_memory(run, &launch->operands[k]).buffer, GUARD + launch->operands[k].offset};
    return device_gemm(run->device, &launch->call, places, run->call_scratch);
}

int plan_run_create(struct device *device, struct device_program *program, const char *prefix,
                    const struct kernel_plan *plan, struct plan_operands *operands, struct plan_run **run) {
    int status = RETORT_OK;
    struct plan_run *fresh = calloc(1, sizeof *fresh);
    if (!fresh) RAISE(RETORT_ENOMEM, "out of memory trying kernels");
    *fresh = (struct plan_run){.device = device, .plan = plan, .operands = operands};
    for (int i = 0; i < operands->count; i++) {
        const float *values = i < operands->results ? NULL : operands->of[i].values;
        TRY(create_guarded(device, operands->of[i].count, values, "operand", &fresh->memory[i]));
    }
    for (int i = 0; i < plan->scratch_count; i++)
        TRY(create_guarded(device, plan->scratch[i], NULL, "scratch memory", &fresh->scratch[i]));
    for (int i = 0; i < plan->launch_count; i++)
        if (plan->launches[i].use != PLAN_CALL) TRY(create_kernel(fresh, program, prefix, i));
    TRY(create_call_scratch(fresh));
    *run = fresh;
    fresh = NULL;
done:
    plan_run_destroy(fresh);
    return status;
}

void plan_run_destroy(struct plan_run *run) {
    if (!run) return;
    for (int i = 0; i < PLAN_LAUNCHES; i++) device_kernel_destroy(run->kernels[i]);
    for (int i = 0; i < PLAN_SCRATCHES; i++) device_buffer_destroy(run->scratch[i].buffer);
    for (int i = 0; i < MOST_OPERANDS; i++) device_buffer_destroy(run->memory[i].buffer);
    device_buffer_destroy(run->call_scratch);
    free(run);
}

uint64_t plan_run_spilled(const struct plan_run *run) {
    uint64_t most = 0;
    for (int i = 0; i < run->plan->launch_count; i++) {
        uint64_t bytes = run->kernels[i] ? device_kernel_spilled(run->kernels[i]) : 0;
        if (bytes > most) most = bytes;
    }
    return most;
}

int plan_run_once(struct plan_run *run, double *seconds, bool *intact) {
    int status = RETORT_OK;
    struct plan_operands *operands = run->operands;
    for (int i = 0; i < operands->results; i++) TRY(write_guarded(run->device, &run->memory[i], NULL));
    TRY(device_finish(run->device));
    double begun = clock_seconds();
    for (int i = 0; i < run->plan->launch_count; i++) TRY(put_on_queue(run, i));
    TRY(device_finish(run->device));
    *seconds = clock_seconds() - begun;
    *intact = true;
    for (int i = 0; i < operands->count; i++) TRY(check_guards(run->device, &run->memory[i], intact));
    for (int i = 0; i < run->plan->scratch_count; i++) TRY(check_guards(run->device, &run->scratch[i], intact));
    for (int i = 0; i < operands->results; i++)
        TRY(device_read(run->device, run->memory[i].buffer, GUARD * sizeof(float),
                        operands->of[i].count * sizeof(float), operands->of[i].values));
done:
    return status;
}

struct timed {
    struct plan_run *run;
    int launch;
};

static int queue_timed(void *what) {
    const struct timed *timed = what;
    return put_on_queue(timed->run, timed->launch);
}

int plan_run_time(struct plan_run *run, double budget, double *seconds) {
    int status = RETORT_OK;
    double sum = 0;
    for (int i = 0; i < run->plan->launch_count; i++) {
        double one;
        TRY(device_time(run->device, queue_timed, &(struct timed){run, i}, budget, &one));
        sum += one;
    }
    *seconds = sum;
done:
    return status;
}

/* --- the right results --- */
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

enum { PLACES = 256, CORNERS = 16 };

struct trial {
    struct kernel_class class;
    struct tensor tensors[MOST_OPERANDS]; /* as the operands: results, then what they are computed from */
    struct plan_operands operands;
    int64_t places[2][PLACES][4];
    double right[2][PLACES];
    int place_count;
    float *first[2]; /* the first right results; NULL: there were none */
    double first_error;
    struct kernel_plan plan;
    double allowed; /* error of the plan's row */
};

/* One element of the product of one pair of operands, in double precision. */
static double right_value(const struct kernel_class *class, const struct tensor *a, const struct tensor *b,
                          const int64_t at[4]) {
    const struct conv_sizes *s = &class->sizes;
    const struct matmul_sizes *p = &class->product;
    double sum = 0;
    for (int64_t k = 0; k < p->k; k++)
        sum += tensor_at(a, 0, at[1], p->transpose_a ? k : at[2], p->transpose_a ? at[2] : k)
               * tensor_at(b, 0, at[1], p->transpose_b ? at[3] : k, p->transpose_b ? k : at[3]);
    if (class_is_product(class)) return sum;
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
static double right_sum(const struct trial *trial, int result, const int64_t at[4]) {
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

/* The corners of the result, then places drawn. Fewer of a backward-weight over very many pixels. */
static void compute_right(struct trial *trial) {
    const struct conv_sizes *s = &trial->class.sizes;
    struct random random = random_begin(2, RANDOM_TEST, 0);
    int64_t terms = trial->class.pass == CONV_BACKWARD_WEIGHT ? s->n * s->oh * s->ow : 1;
    int64_t most = ((int64_t)1 << 24) / terms;
    trial->place_count = most > PLACES ? PLACES : most < 4 * CORNERS ? 4 * CORNERS : (int)most;
    for (int r = 0; r < trial->operands.results; r++)
        for (int i = 0; i < trial->place_count; i++) {
            const struct tensor *out = &trial->tensors[r];
            const int64_t sizes[4] = {out->n, out->c, out->h, out->w};
            int64_t *at = trial->places[r][i];
            for (int d = 0; d < 4; d++)
                at[d] = i >= CORNERS ? random_below(&random, (uint32_t)sizes[d]) : i >> d & 1 ? sizes[d] - 1 : 0;
            trial->right[r][i] = right_sum(trial, r, at);
        }
}

/* --- a trial --- */
static void place_convolution(const struct kernel_target *target, struct trial *trial) {
    const struct conv_sizes *s = &trial->class.sizes;
    const struct conv_terms *terms = &trial->class.terms;
    const bool weight = trial->class.pass == CONV_BACKWARD_WEIGHT, forward = trial->class.pass == CONV_FORWARD;
    const struct tensor x = {NULL, s->n, s->c,
                             s->h, s->w, kernels_conv_layout(target, s->c) == LAYOUT_BLOCKED ? target->lanes : 1};
    const struct tensor y = {NULL,  s->n,  s->o,
                             s->oh, s->ow, kernels_conv_layout(target, s->o) == LAYOUT_BLOCKED ? target->lanes : 1};
    const struct tensor w = {NULL, s->o, s->c, s->kh, s->kw, 1};
    struct plan_operands *operands = &trial->operands;
    operands->results = weight ? 1 : terms->outputs;
    operands->count = operands->results + (weight ? 2 * terms->inputs : terms->inputs + terms->weights);
    for (int i = 0; i < operands->count; i++) {
        int input = i - operands->results;
        if (weight)
            trial->tensors[i] = input < 0 ? w : input % 2 ? y : x;
        else
            trial->tensors[i] = input < 0 ? (forward ? y : x) : input >= terms->inputs ? w : forward ? x : y;
    }
}

/* The matrices of a batch as the channels of one image. */
static void place_product(struct trial *trial) {
    const struct matmul_sizes *p = &trial->class.product;
    trial->operands.results = 1;
    trial->operands.count = 3;
    trial->tensors[0] = (struct tensor){NULL, 1, p->batch, p->m, p->n, 1};
    trial->tensors[1] =
        (struct tensor){NULL, 1, p->batch, p->transpose_a ? p->k : p->m, p->transpose_a ? p->m : p->k, 1};
    trial->tensors[2] =
        (struct tensor){NULL, 1, p->batch, p->transpose_b ? p->n : p->k, p->transpose_b ? p->k : p->n, 1};
}

int trial_create(const struct kernel_target *target, const struct kernel_class *class, struct trial **trial) {
    int status = RETORT_OK;
    struct trial *fresh = calloc(1, sizeof *fresh);
    if (!fresh) RAISE(RETORT_ENOMEM, "out of memory");
    TRY(kernels_plan(target, class, &fresh->plan)); /* refuses sizes that make no sense */
    fresh->class = *class;
    if (class_is_product(class))
        place_product(fresh);
    else
        place_convolution(target, fresh);
    struct plan_operands *operands = &fresh->operands;
    for (int i = 0; i < operands->count; i++) {
        struct tensor *tensor = &fresh->tensors[i];
        TRY(operand_fill(&operands->of[i], tensor_count(tensor), (uint32_t)i));
        clear_padding(tensor, operands->of[i].values);
        tensor->values = operands->of[i].values;
    }
    compute_right(fresh);
    *trial = fresh;
    return RETORT_OK;
done:
    trial_destroy(fresh);
    return status;
}

void trial_destroy(struct trial *trial) {
    if (!trial) return;
    plan_operands_finish(&trial->operands);
    free(trial->first[0]);
    free(trial->first[1]);
    free(trial);
}

int trial_plan(struct trial *trial, const struct kernel_target *target) {
    int status = kernels_plan(target, &trial->class, &trial->plan);
    if (status < 0) return status;
    trial->allowed = kernels_variant(kernels_choice(target, &trial->class).variant)->error;
    /* A library adds up all terms one after another, whose rounding errors grow as the square root of their count over
     * the sum, which grows likewise. */
    trial->allowed *= fmax(1, sqrt((double)trial->class.product.k / 256));
    return status;
}

const struct kernel_plan *trial_planned(const struct trial *trial) {
    return &trial->plan;
}

static double larger(double difference, double got, double right) {
    return isnan(got) ? INFINITY : fmax(difference, fabs(got - right));
}

static void compare(const struct trial *trial, struct trial_result *result) {
    for (int r = 0; r < trial->operands.results; r++) {
        const struct operand *got = &trial->operands.of[r];
        double difference = 0, departure = 0, largest = 0;
        for (int i = 0; i < trial->place_count; i++) {
            const int64_t *at = trial->places[r][i];
            difference =
                larger(difference, tensor_at(&trial->tensors[r], at[0], at[1], at[2], at[3]), trial->right[r][i]);
            largest = fmax(largest, fabs(trial->right[r][i]));
        }
        for (size_t i = 0; trial->first[r] && i < got->count; i++)
            departure = larger(departure, got->values[i], trial->first[r][i]);
        result->error = fmax(result->error, difference / largest);
        result->departure = fmax(result->departure, departure / largest);
    }
}

static int keep_first(struct trial *trial) {
    for (int r = 0; r < trial->operands.results; r++) {
        const struct operand *got = &trial->operands.of[r];
        trial->first[r] = malloc(got->count * sizeof *got->values);
        if (!trial->first[r]) return error_set(RETORT_ENOMEM, "out of memory for a result of %zu numbers", got->count);
        memcpy(trial->first[r], got->values, got->count * sizeof *got->values);
    }
    trial->first_error = trial->allowed;
    return RETORT_OK;
}

/* Twice, with equal bytes, nothing written outside, and the right numbers. */
static int check(struct trial *trial, struct plan_run *run, struct trial_result *result) {
    int status = RETORT_OK;
    uint64_t hash[2] = {0, 0};
    bool intact[2];
    for (int turn = 0; turn < 2; turn++) {
        TRY(plan_run_once(run, &result->once, &intact[turn]));
        for (int r = 0; r < trial->operands.results; r++)
            hash[turn] =
                hash_fast(trial->operands.of[r].values, trial->operands.of[r].count * sizeof(float), hash[turn]);
    }
    compare(trial, result);
    if (!intact[0] || !intact[1])
        result->fault = "it writes outside its memory";
    else if (hash[0] != hash[1])
        result->fault = "it gives other numbers each time";
    else if (!(result->error <= trial->allowed))
        result->fault = "its result is wrong";
    else if (!(result->departure <= trial->allowed + trial->first_error))
        result->fault = "its result is not that of the built-in kernel";
    else if (!trial->first[0])
        TRY(keep_first(trial));
done:
    return status;
}

int trial_check(struct trial *trial, struct device *device, struct device_program *program, const char *prefix,
                const struct trial_limits *limits, struct trial_result *result) {
    int status = RETORT_OK;
    struct trial_result fresh = {0};
    struct plan_run *run = NULL;
    TRY(plan_run_create(device, program, prefix, &trial->plan, &trial->operands, &run));
    fresh.spills = !limits->spill && plan_run_spilled(run) > 0;
    if (fresh.spills)
        fresh.fault = "it spills registers";
    else {
        if (limits->tell) limits->tell(limits->user, "running");
        TRY(check(trial, run, &fresh));
        if (!fresh.fault && limits->seconds > 0 && !(limits->once > 0 && fresh.once > limits->once))
            TRY(plan_run_time(run, limits->seconds, &fresh.seconds));
    }
    *result = fresh;
done:
    plan_run_destroy(run);
    return status;
}

int trial_run(struct trial *trial, struct device *device, const struct kernel_target *target,
              const struct trial_limits *limits, struct trial_result *result) {
    int status = RETORT_OK;
    struct device_program *program = NULL;
    struct text text;
    text_init(&text);
    TRY(trial_plan(trial, target));
    kernels_preamble(&text, target->lanes);
    plan_write(&trial->plan, "k", &text);
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory writing kernels");
    if (limits->tell) limits->tell(limits->user, "building");
    status = device_program_create(device, text_get(&text), "", &program);
    if (status == RETORT_OK) status = trial_check(trial, device, program, "k", limits, result);
    if (status == RETORT_EDEVICE) {
        log_debug("%s", retort_error_message());
        error_clear();
        *result = (struct trial_result){.fault = "the driver cannot build or run it", .failed = true};
        status = RETORT_OK;
    }
done:
    device_program_destroy(program);
    text_finish(&text);
    return status;
}

/* --- words --- */
void kernel_class_describe(const struct kernel_class *class, char words[KERNEL_WORDS]) {
    static const char *const passes[] = {"convolution", "convolution to data", "convolution to weights"};
    const struct conv_sizes *s = &class->sizes;
    const struct matmul_sizes *p = &class->product;
    if (class_is_product(class))
        snprintf(words, KERNEL_WORDS, "product, %" PRId64 " x %" PRId64 "%s by %" PRId64 " x %" PRId64 "%s, %" PRId64,
                 p->m, p->k, p->transpose_a ? "'" : "", p->k, p->n, p->transpose_b ? "'" : "", p->batch);
    else
        snprintf(words, KERNEL_WORDS,
                 "%s, %" PRId64 " > %" PRId64 " channels, %" PRId64 " x %" PRId64 ", images of %" PRId64 " x %" PRId64
                 "%s",
                 passes[class->pass], s->c, s->o, s->kh, s->kw, s->h, s->w,
                 class->terms.inputs + class->terms.weights > 2 ? ", joined" : "");
}

void kernel_choice_describe(const struct kernel_choice *choice, char words[KERNEL_WORDS]) {
    const struct kernel_variant *variant = kernels_variant(choice->variant);
    int length = snprintf(words, KERNEL_WORDS, "%s", choice->variant ? choice->variant : "nothing");
    for (int i = 0; variant && i < variant->numbers && choice->parameters[0] && length < KERNEL_WORDS - 1; i++)
        length += snprintf(words + length, KERNEL_WORDS - (size_t)length, " %d", choice->parameters[i]);
}
