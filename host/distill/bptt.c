/* Distillation by back-propagation through a truncated inner training run. One outer step: fresh weights; where the
 * truncation asks for it a probe of the whole inner run for its gradient norms; the choice of the window; the
 * meta-gradient (unroll); clipping; Adam on images, soft labels and the logarithm of the inner learning rate.
 *
 * Every draw is a function of (seed, purpose, outer step), so a resumed run sees the same ones. */
#include "distill/distill.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "distill/outer.h"
#include "distill/truncation.h"
#include "unroll/meta.h"
#include "unroll/unroll.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct distill {
    struct distill_problem problem;
    struct meta_spec meta; /* the meta-loss, a pass of the unroll */
    struct unroll *unroll;
    int64_t image_count, image_size; /* n; C H W */
    int batch;                       /* rows per inner step */
    int period;                      /* outer steps that make an epoch */
    double epochs;

    /* the state that a checkpoint holds */
    float *images, *soft_labels; /* soft_labels NULL: hard ones */
    float log_lr;
    int steps_done;
    struct outer_variable variables[3]; /* images, labels, log_lr; those not optimised have count 0 */
    double mean_norm;
    struct truncation_state truncation;

    /* per outer step */
    int32_t *hard_labels, *rows, *real_labels;
    float *maps, *real_images, *real_maps, *image_gradient, *label_gradient, *again, *weights;
    double *norms, *probability, *scratch, *lr;
    float *factor; /* lanczos: room for the factor on its way to and from a checkpoint */
    int64_t factor_count;
    struct arena arena;
};

static bool augments(const struct augment_spec *augment) {
    return augment->flip || augment->rotate;
}

static uint64_t derived_seed(uint64_t seed, enum random_stream stream, int step) {
    struct random random = random_begin(seed, stream, (uint32_t)step);
    uint64_t high = random_bits(&random);
    return high << 32 | random_bits(&random);
}

static int longest_window(const struct method_spec *method) {
    int longest = method->window + (method->truncation == TRUNCATION_DYNAMIC ? method->range : 0);
    return longest < method->steps ? longest : method->steps;
}

/* --- the first set --- */
static int draw_set(struct distill *d) {
    int status = RETORT_OK;
    const struct distill_problem *problem = &d->problem;
    int64_t classes = problem->network->classes, ipc = problem->set.ipc;
    struct random random = random_begin(problem->seed, RANDOM_SYNTHETIC, 0);
    for (int64_t i = 0; i < d->image_count; i++) d->hard_labels[i] = (int32_t)(i / ipc);
    if (problem->set.init == SET_REAL)
        TRY(dataset_draw_per_class(problem->train, &random, (int)ipc, d->images, d->hard_labels));
    else
        for (int64_t i = 0; i < d->image_count; i++) {
            float *image = d->images + i * d->image_size;
            double norm = 0;
            for (int64_t k = 0; k < d->image_size; k++) {
                image[k] = (float)random_normal(&random);
                norm += (double)image[k] * image[k];
            }
            for (int64_t k = 0; k < d->image_size; k++) image[k] = (float)(image[k] / sqrt(norm));
        }
    for (int64_t i = 0; d->soft_labels && i < d->image_count; i++) d->soft_labels[i * classes + d->hard_labels[i]] = 1;
done:
    return status;
}

int distill_create(const struct distill_problem *problem, struct distill **out) {
    int status = RETORT_OK;
    const struct network *net = problem->network;
    const struct method_spec *method = &problem->method;
    struct distill *d = calloc(1, sizeof *d);
    if (!d) RAISE(RETORT_ENOMEM, "out of memory preparing the distillation");
    arena_init(&d->arena);
    d->problem = *problem;
    int per_class = problem->inner.batch_per_class ? problem->inner.batch_per_class : problem->set.ipc;
    int classes = problem->inner.batch_classes ? problem->inner.batch_classes : net->classes;
    if (per_class > problem->set.ipc)
        RAISE(RETORT_EINVAL, "inner.batch.per_class is %d, but set.ipc is only %d", per_class, problem->set.ipc);
    if (classes > net->classes)
        RAISE(RETORT_EINVAL, "inner.batch.classes is %d, but the data has only %d classes", classes, net->classes);
    if (method->truncation == TRUNCATION_DYNAMIC && method->window + method->range > method->steps)
        RAISE(RETORT_EINVAL, "method.window + method.range is %d, more than method.steps, %d",
              method->window + method->range, method->steps);
    if (problem->outer.real_batch > problem->train->count)
        RAISE(RETORT_EINVAL, "outer.real_batch is %d, but the training data has only %lld images",
              problem->outer.real_batch, (long long)problem->train->count);
    d->image_count = (int64_t)net->classes * problem->set.ipc;
    d->image_size = (int64_t)net->channels * net->height * net->width;
    d->batch = per_class * classes;
    d->log_lr = (float)log(problem->inner.optimizer.lr);
    d->mean_norm = NAN;
    truncation_begin(&d->truncation);
    d->period = method->stage_period;
    if (!d->period) {
        int64_t pass = problem->train->count / problem->outer.real_batch, most = problem->outer.steps / 50;
        d->period = (int)(pass < most ? pass : most);
    }
    if (d->period < 1) d->period = 1;
    d->epochs = (double)problem->outer.steps / d->period;

    size_t n = (size_t)d->image_count, size = (size_t)d->image_size, T = (size_t)method->steps,
           k = (size_t)net->classes;
    size_t b = (size_t)d->batch, r = (size_t)problem->outer.real_batch;
    bool soft = problem->set.labels == LABELS_SOFT;
    d->images = arena_array(&d->arena, n * size, sizeof(float));
    d->soft_labels = soft ? arena_array(&d->arena, n * k, sizeof(float)) : NULL;
    d->hard_labels = arena_array(&d->arena, n, sizeof(int32_t));
    d->rows = arena_array(&d->arena, T * b, sizeof(int32_t));
    d->maps = arena_array(&d->arena, T * b, 6 * sizeof(float));
    d->real_images = arena_array(&d->arena, r * size, sizeof(float));
    d->real_labels = arena_array(&d->arena, r, sizeof(int32_t));
    d->real_maps = arena_array(&d->arena, r, 6 * sizeof(float));
    d->image_gradient = arena_array(&d->arena, n * size, sizeof(float));
    d->again = arena_array(&d->arena, n * size, sizeof(float));
    d->label_gradient = arena_array(&d->arena, n * k, sizeof(float));
    d->weights = arena_array(&d->arena, T, sizeof(float));
    d->norms = arena_array(&d->arena, T, sizeof(double));
    d->probability = arena_array(&d->arena, T, sizeof(double));
    d->scratch = arena_array(&d->arena, 2 * T, sizeof(double));
    d->lr = arena_array(&d->arena, T, sizeof(double));
    if (d->arena.failed) RAISE(RETORT_ENOMEM, "out of memory for a set of %zu images", n);
    TRY(draw_set(d));
    TRY(outer_variable_init(&d->variables[0], d->images, d->image_count * d->image_size));
    TRY(outer_variable_init(&d->variables[1], d->soft_labels, soft ? d->image_count * net->classes : 0));
    TRY(outer_variable_init(&d->variables[2], &d->log_lr, problem->inner.learn_lr ? 1 : 0));
    bool augment = augments(&problem->outer.augment);
    d->meta = (struct meta_spec){.network = net, .batch = problem->outer.real_batch, .augment = augment};
    const struct pass_spec meta = meta_pass(&d->meta);
    const struct unroll_spec spec = {.network = net,
                                     .optimizer = problem->inner.optimizer,
                                     .set_count = d->image_count,
                                     .batch = d->batch,
                                     .soft_labels = soft,
                                     .augment = augment,
                                     .passes = &meta,
                                     .pass_count = 1,
                                     .max_window = longest_window(method),
                                     .steps = method->steps,
                                     .rank = method->hessian == HESSIAN_LANCZOS ? method->rank : 0};
    TRY(unroll_create(problem->library, &spec, &d->unroll));
    d->factor_count = unroll_factor_count(d->unroll);
    d->factor = arena_array(&d->arena, (size_t)d->factor_count, sizeof(float));
    if (!d->factor) RAISE(RETORT_ENOMEM, "out of memory for a Hessian of rank %d", spec.rank);
    char text[200];
    unroll_describe(d->unroll, text, sizeof text);
    log_debug("distillation: %s", text);
    *out = d;
    d = NULL;
done:
    distill_destroy(d);
    return status;
}

void distill_destroy(struct distill *d) {
    if (!d) return;
    unroll_destroy(d->unroll);
    for (int i = 0; i < 3; i++) outer_variable_finish(&d->variables[i]);
    arena_finish(&d->arena);
    free(d);
}

/* --- one outer step --- */
static int draw_inner(struct distill *d, int step) {
    int status = RETORT_OK;
    const struct distill_problem *problem = &d->problem;
    int per_class = problem->inner.batch_per_class ? problem->inner.batch_per_class : problem->set.ipc;
    int classes = d->batch / per_class;
    struct random rows = random_begin(problem->seed, RANDOM_INNER_BATCH, (uint32_t)step);
    struct random maps = random_begin(problem->seed, RANDOM_AUGMENT_INNER, (uint32_t)step);
    for (int t = 0; t < problem->method.steps; t++) {
        TRY(rows_draw(&rows, problem->network->classes, problem->set.ipc, classes, per_class,
                      d->rows + (size_t)t * (size_t)d->batch));
        augment_draw(&problem->outer.augment, &maps, d->batch, d->maps + (size_t)t * (size_t)d->batch * 6);
        d->lr[t] = distill_inner_lr(d);
    }
done:
    return status;
}

static int draw_real(struct distill *d, int step) {
    int status = RETORT_OK;
    const struct distill_problem *problem = &d->problem;
    struct random rows = random_begin(problem->seed, RANDOM_REAL_BATCH, (uint32_t)step);
    struct random maps = random_begin(problem->seed, RANDOM_AUGMENT_REAL, (uint32_t)step);
    TRY(dataset_draw(problem->train, &rows, problem->outer.real_batch, d->real_images, d->real_labels));
    augment_draw(&problem->outer.augment, &maps, problem->outer.real_batch, d->real_maps);
done:
    return status;
}

static double norm_of(const float *x, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)x[i] * x[i];
    return sqrt(sum);
}

static double cosine(const float *a, const float *b, int64_t count) {
    double product = 0;
    for (int64_t i = 0; i < count; i++) product += (double)a[i] * b[i];
    return product / (norm_of(a, count) * norm_of(b, count));
}

/* The meta-gradient of the chosen window into the gradient buffers. */
static int compute_gradient(struct distill *d, int step, const struct window_choice *choice, uint64_t seed,
                            struct distill_metrics *metrics) {
    int status = RETORT_OK;
    const struct method_spec *method = &d->problem.method;
    struct pass *meta = unroll_pass(d->unroll, 0);
    int prefix = choice->end - choice->window;
    struct unroll_gradient gradient = {.images = d->image_gradient, .labels = d->label_gradient};
    bool lanczos = method->hessian == HESSIAN_LANCZOS;
    bool refresh = lanczos && (step - 1) % method->refresh == 0;
    TRY(meta_upload(meta, d->real_images, d->real_labels, d->real_maps));
    TRY(unroll_begin(d->unroll, seed));
    TRY(unroll_train(d->unroll, 0, prefix, false));
    TRY(unroll_window(d->unroll, prefix, choice->window, false));
    TRY(meta_run(meta));
    TRY(unroll_backward(d->unroll, meta_lambda(meta), lanczos && !refresh ? HESSIAN_LANCZOS : HESSIAN_EXACT,
                        &gradient));
    TRY(meta_read(meta, &metrics->loss, &metrics->accuracy));
    if (refresh) {
        TRY(unroll_lanczos(d->unroll, choice->end - 1, derived_seed(d->problem.seed, RANDOM_LANCZOS, step)));
        memcpy(d->again, d->image_gradient, (size_t)(d->image_count * d->image_size) * sizeof *d->again);
        TRY(unroll_backward(d->unroll, meta_lambda(meta), HESSIAN_LANCZOS, &gradient));
        metrics->cosine = cosine(d->image_gradient, d->again, d->image_count * d->image_size);
    }
    metrics->gradient_norm = norm_of(d->image_gradient, d->image_count * d->image_size);
    double labels = d->soft_labels ? norm_of(d->label_gradient, d->variables[1].count) : 0;
    if (!isfinite(metrics->loss) || !isfinite(metrics->gradient_norm) || !isfinite(labels) || !isfinite(gradient.lr))
        RAISE(RETORT_ENUMERIC,
              "the meta-gradient is not finite (meta-loss %g, norm %g) with a window of %d steps ending at step %d: "
              "lower "
              "inner.lr or outer.lr, or shorten method.window",
              metrics->loss, metrics->gradient_norm, choice->window, choice->end);
    if (d->variables[2].count) {
        /* By the chain rule to the logarithm. */
        float log_gradient = (float)(gradient.lr * distill_inner_lr(d));
        outer_adam(&d->variables[2], &log_gradient, d->problem.outer.lr, step);
    }
done:
    return status;
}

int distill_step(struct distill *d, struct distill_metrics *metrics) {
    int status = RETORT_OK;
    const struct distill_problem *problem = &d->problem;
    const struct method_spec *method = &problem->method;
    double begun = clock_seconds();
    int step = d->steps_done + 1;
    bool dynamic = method->truncation == TRUNCATION_DYNAMIC;
    struct distill_metrics fresh = {.outer_step = step,
                                    .stage = dynamic ? d->truncation.stage : -1,
                                    .inner_lr = distill_inner_lr(d),
                                    .cosine = NAN};
    uint64_t seed = derived_seed(problem->seed, RANDOM_WEIGHTS, step);
    TRY(draw_inner(d, step));
    TRY(draw_real(d, step));
    TRY(unroll_set(d->unroll, d->images, d->soft_labels, d->hard_labels));
    struct unroll_steps table = {.first = 1, .count = method->steps, .lr = d->lr, .rows = d->rows, .maps = d->maps};
    TRY(unroll_upload_steps(d->unroll, &table));
    const double *norms = truncation_needs_norms(method, &d->truncation) ? d->norms : NULL;
    /* A probe is kept for probe_every outer steps; it is part of the checkpoint. */
    if (norms && (step - 1) % method->probe_every == 0) {
        TRY(unroll_begin(d->unroll, seed));
        TRY(unroll_train(d->unroll, 0, method->steps, true));
        TRY(unroll_read_probe(d->unroll, method->steps, NULL, d->norms));
        for (int t = 0; t < method->steps; t++)
            if (!isfinite(d->norms[t]))
                RAISE(RETORT_ENUMERIC,
                      "the inner training diverges: the gradient's norm at step %d is not finite; lower inner.lr",
                      t + 1);
    }
    struct random random = random_begin(problem->seed, RANDOM_TRUNCATION, (uint32_t)step);
    struct window_choice choice = truncation_choose(method, &d->truncation, &random, norms, d->probability, d->scratch);
    fresh.end = choice.end;
    fresh.window = choice.window;
    if (method->weight_by_probability) {
        /* Times T, so that uniform weights are 1; the outer Adam would not see a common factor anyway. */
        for (int t = 0; t < method->steps; t++) d->weights[t] = (float)(d->probability[t] * method->steps);
        table.weights = d->weights;
        TRY(unroll_upload_steps(d->unroll, &table));
    }
    TRY(compute_gradient(d, step, &choice, seed, &fresh));
    if (problem->outer.clip) {
        float factor = (float)outer_clip(&d->mean_norm, fresh.gradient_norm);
        for (int64_t i = 0; i < d->variables[0].count; i++) d->image_gradient[i] *= factor;
    }
    outer_adam(&d->variables[0], d->image_gradient, problem->outer.lr, step);
    outer_adam(&d->variables[1], d->label_gradient, problem->outer.lr, step);
    for (int64_t i = 0; i < d->variables[1].count; i++) d->soft_labels[i] = fmaxf(d->soft_labels[i], 0);
    truncation_advance(method, &d->truncation, fresh.loss, fresh.accuracy, d->period, d->epochs);
    d->steps_done = step;
    fresh.seconds = clock_seconds() - begun;
    *metrics = fresh;
done:
    return status;
}

/* --- what there is to know --- */
int distill_steps_done(const struct distill *d) {
    return d->steps_done;
}

int64_t distill_set_count(const struct distill *d) {
    return d->image_count;
}

double distill_inner_lr(const struct distill *d) {
    return d->problem.inner.learn_lr ? exp(d->log_lr) : d->problem.inner.optimizer.lr;
}

void distill_stage_steps(const struct distill *d, int steps[3]) {
    memcpy(steps, d->truncation.stage_steps, sizeof d->truncation.stage_steps);
}

int distill_read_set(struct distill *d, float *images, float *soft_labels, int32_t *hard_labels) {
    memcpy(images, d->images, (size_t)(d->image_count * d->image_size) * sizeof *images);
    if (soft_labels && d->soft_labels)
        memcpy(soft_labels, d->soft_labels, (size_t)d->variables[1].count * sizeof *soft_labels);
    if (hard_labels) memcpy(hard_labels, d->hard_labels, (size_t)d->image_count * sizeof *hard_labels);
    return RETORT_OK;
}

/* --- checkpoints: one .npz with the arrays, the numbers, and the norms of the last probe --- */
#define NUMBERS      16
#define STATE_ARRAYS 13

static void to_numbers(const struct distill *d, double numbers[NUMBERS]) {
    const struct truncation_state *t = &d->truncation;
    const double values[NUMBERS] = {d->steps_done,  d->mean_norm,      t->stage,          t->count[0],
                                    t->count[1],    t->epoch_steps,    t->epoch_sum,      t->accuracy,
                                    t->previous,    t->stage_steps[0], t->stage_steps[1], t->stage_steps[2],
                                    t->forward_end, t->stale,          t->best,           (double)d->problem.seed};
    memcpy(numbers, values, sizeof values);
}

static void from_numbers(struct distill *d, const double numbers[NUMBERS]) {
    struct truncation_state *t = &d->truncation;
    d->steps_done = (int)numbers[0];
    d->mean_norm = numbers[1];
    t->stage = (int)numbers[2];
    t->count[0] = (int)numbers[3];
    t->count[1] = (int)numbers[4];
    t->epoch_steps = (int)numbers[5];
    t->epoch_sum = numbers[6];
    t->accuracy = numbers[7];
    t->previous = numbers[8];
    for (int i = 0; i < 3; i++) t->stage_steps[i] = (int)numbers[9 + i];
    t->forward_end = (int)numbers[12];
    t->stale = (int)numbers[13];
    t->best = numbers[14];
}

/* The arrays of a state, as they are saved and loaded. */
struct state_array {
    const char *name;
    void *data;
    enum npy_type type;
    int64_t count;
};

static int state_arrays(struct distill *d, double numbers[NUMBERS], struct state_array arrays[STATE_ARRAYS]) {
    static const char *const names[3][3] = {
        {"images", "images_m", "images_v"}, {"labels", "labels_m", "labels_v"}, {"log_lr", "log_lr_m", "log_lr_v"}};
    int count = 0;
    arrays[count++] = (struct state_array){"numbers", numbers, NPY_FLOAT64, NUMBERS};
    arrays[count++] = (struct state_array){"norms", d->norms, NPY_FLOAT64, d->problem.method.steps};
    arrays[count++] = (struct state_array){"hard_labels", d->hard_labels, NPY_INT32, d->image_count};
    if (d->factor_count) arrays[count++] = (struct state_array){"factor", d->factor, NPY_FLOAT32, d->factor_count};
    for (int i = 0; i < 3; i++) {
        struct outer_variable *variable = &d->variables[i];
        float *data[3] = {variable->values, variable->m, variable->v};
        for (int k = 0; k < 3 && variable->count; k++)
            arrays[count++] = (struct state_array){names[i][k], data[k], NPY_FLOAT32, variable->count};
    }
    return count;
}

int distill_save(struct distill *d, const char *path) {
    double numbers[NUMBERS];
    struct state_array arrays[STATE_ARRAYS];
    struct npy_member members[STATE_ARRAYS];
    to_numbers(d, numbers);
    if (d->factor_count) {
        int status = unroll_read_factor(d->unroll, d->factor);
        if (status < 0) return status;
    }
    int count = state_arrays(d, numbers, arrays);
    for (int i = 0; i < count; i++)
        members[i] = (struct npy_member){.name = arrays[i].name,
                                         .type = arrays[i].type,
                                         .rank = 1,
                                         .size = &arrays[i].count,
                                         .data = arrays[i].data};
    return npz_write(path, members, (size_t)count);
}

int distill_load(struct distill *d, const char *path) {
    int status = RETORT_OK;
    double numbers[NUMBERS];
    struct state_array arrays[STATE_ARRAYS];
    struct npy loaded[STATE_ARRAYS] = {{0}};
    int count = state_arrays(d, numbers, arrays);
    /* Everything is read and checked before anything is changed. */
    for (int i = 0; i < count; i++) {
        TRY(npy_read_member(path, arrays[i].name, &loaded[i]));
        if (loaded[i].type != arrays[i].type || loaded[i].rank != 1 || loaded[i].size[0] != arrays[i].count)
            RAISE(RETORT_EFORMAT, "%s: %s is not of this run (%lld values expected)", path, arrays[i].name,
                  (long long)arrays[i].count);
    }
    if (((const double *)loaded[0].data)[15] != (double)d->problem.seed)
        RAISE(RETORT_EFORMAT, "%s: the state of a run with another seed", path);
    for (int i = 0; i < count; i++) {
        size_t element = arrays[i].type == NPY_FLOAT64 ? 8 : 4;
        memcpy(arrays[i].data, loaded[i].data, (size_t)arrays[i].count * element);
    }
    from_numbers(d, numbers);
    if (d->factor_count) TRY(unroll_write_factor(d->unroll, d->factor));
done:
    for (int i = 0; i < count; i++) npy_finish(&loaded[i]);
    return status;
}
