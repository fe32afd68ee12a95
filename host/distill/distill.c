/* What all methods share: the set, the update by the gradients that a method leaves, checkpoints, counting.
 *
 * Every draw is a function of (seed, purpose, outer step), so a resumed run sees the same ones. */
#include "distill/distill.h"

#include "base/error.h"
#include "base/log.h"
#include "distill/method.h"
#include "unroll/unroll.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct distill {
    struct distill_problem problem;
    const struct method *method;
    void *instance; /* the method's */
    struct set set;
    int steps_done;
    double mean_norm; /* for clipping; NaN: not begun */
    struct metrics metrics;
};

uint64_t distill_seed(uint64_t seed, enum random_stream stream, int step) {
    struct random random = random_begin(seed, stream, (uint32_t)step);
    uint64_t high = random_bits(&random);
    return high << 32 | random_bits(&random);
}

static int check_parameters(const struct set_spec *set, const struct network *network) {
    int status = RETORT_OK;
    struct set_storage storage;
    if (set->parameters != PARAMETERS_FREQUENCY) {
        if (set->budget)
            RAISE(RETORT_EINVAL, "only set.parameters.kind frequency has a budget; pixels store set.ipc images");
        goto done;
    }
    if (!set->budget)
        RAISE(RETORT_EINVAL, "found nothing, expected the storage of a class in images: 1, with set.ipc 16, holds 16 "
                             "images in the room of one");
    if (set->budget > set->ipc)
        RAISE(RETORT_EINVAL, "room for %d images of a class, but set.ipc is only %d; make it at most that", set->budget,
              set->ipc);
    if (network) TRY(set_storage(set, network->classes, network->channels, network->height, network->width, &storage));
done:
    return status;
}

int distill_check(const struct distill_problem *problem, const char **key) {
    int status = RETORT_OK;
    const struct method *method = problem->method;
    *key = "set.labels";
    if (problem->set.labels == LABELS_SOFT && !(method->learns & 1u << SET_SOFT_LABELS))
        RAISE(RETORT_EINVAL, "method %s does not learn labels; take hard", method->name);
    *key = "inner.learn_lr";
    if (problem->inner.learn_lr && !(method->learns & 1u << SET_LOG_LR))
        RAISE(RETORT_EINVAL, "method %s does not learn the inner learning rate; leave it out", method->name);
    *key = "set.parameters.budget";
    TRY(check_parameters(&problem->set, problem->network));
    if (method->check) TRY(method->check(problem, key));
done:
    return status;
}

int distill_create(const struct distill_problem *problem, struct distill **out) {
    int status = RETORT_OK;
    const char *key = NULL;
    struct distill *d = calloc(1, sizeof *d);
    if (!d) RAISE(RETORT_ENOMEM, "out of memory preparing the distillation");
    d->problem = *problem;
    d->method = problem->method;
    d->mean_norm = NAN;
    status = distill_check(&d->problem, &key);
    if (status < 0) error_context("%s", key);
    TRY(status);
    TRY(set_begin(&d->problem, &d->set));
    TRY(d->method->create(&d->problem, &d->set, &d->instance));
    *out = d;
    d = NULL;
done:
    distill_destroy(d);
    return status;
}

void distill_destroy(struct distill *d) {
    if (!d) return;
    d->method->destroy(d->instance);
    set_finish(&d->set);
    metrics_finish(&d->metrics);
    free(d);
}

void distill_plan(const struct distill *d, struct unroll_plan *plan) {
    *plan =
        (struct unroll_plan){.compute_units = (int)device_traits(library_device(d->problem.library))->compute_units};
    if (d->method->unroll) unroll_plan(d->method->unroll(d->instance), plan);
}

const struct unroll *distill_unroll(const struct distill *d) {
    return d->method->unroll ? d->method->unroll(d->instance) : NULL;
}

enum dct_way distill_dct(const struct distill *d) {
    return set_dct(&d->set);
}

const struct memory *distill_set_memory(const struct distill *d, int i) {
    return set_memory(&d->set, i);
}

/* The first is slower than those that follow, so that it counts only where it took long. */
static int time_steps(struct distill *d, double enough, double *seconds) {
    int status = RETORT_OK;
    int steps = 0;
    double begun = clock_seconds(), first = 0, all = 0;
    while (all < enough && steps < d->problem.outer.steps) {
        metrics_clear(&d->metrics);
        TRY(d->method->step(d->instance, ++steps, &d->metrics));
        all = clock_seconds() - begun;
        if (steps == 1) first = all;
    }
    *seconds = steps > 1 ? (all - first) / (steps - 1) : all;
done:
    return status;
}

int distill_forecast(struct distill *d, double enough, double *seconds) {
    int status = RETORT_OK;
    double step, begun = clock_seconds();
    TRY(set_decode(&d->set));
    TRY(set_pull(&d->set));
    double both = clock_seconds() - begun;
    TRY(d->method->forecast ? d->method->forecast(d->instance, enough, &step) : time_steps(d, enough, &step));
    *seconds = step + both;
done:
    return status;
}

/* --- one outer step --- */
static double norm_of(const float *x, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* Refuses a step whose numbers would spoil the set, with all that is known of it. */
static int check_finite(const struct distill *d) {
    int status = RETORT_OK;
    struct text told;
    text_init(&told);
    bool finite = true;
    for (size_t i = 0; i < d->metrics.rows.count; i++) {
        const struct metric *row = &d->metrics.rows.items[i];
        if (strcmp(row->name, "loss") == 0) finite &= isfinite(row->number);
        if (row->type == METRIC_WHOLE || row->type == METRIC_REAL)
            text_printf(&told, "%s%s %g", told.length ? ", " : "", row->name, row->number);
    }
    for (int i = 0; i < SET_VARIABLES; i++) {
        const struct outer_variable *variable = &d->set.variables[i];
        double norm = norm_of(variable->gradient, variable->count);
        finite &= isfinite(norm);
        if (!isfinite(norm)) text_printf(&told, ", |d loss / d %s| %g", variable->name, norm);
    }
    if (!finite)
        RAISE(RETORT_ENUMERIC, "the step's loss or gradient is not finite (%s): %s", text_get(&told),
              d->method->remedy);
done:
    text_finish(&told);
    return status;
}

static void update(struct distill *d, double norm, int step) {
    const struct outer_spec *outer = &d->problem.outer;
    struct outer_variable *stored = &d->set.variables[SET_STORED];
    if (outer->clip) {
        float factor = (float)outer_clip(&d->mean_norm, norm);
        for (int64_t i = 0; i < stored->count; i++) stored->gradient[i] *= factor;
    }
    for (int i = 0; i < SET_VARIABLES; i++) outer_update(&d->set.variables[i], outer->optimizer, outer->momentum, step);
}

int distill_step(struct distill *d, const struct metrics **metrics) {
    int status = RETORT_OK;
    const struct outer_variable *stored = &d->set.variables[SET_STORED];
    double begun = clock_seconds(), inner_lr = set_inner_lr(&d->set);
    int step = d->steps_done + 1;
    metrics_clear(&d->metrics);
    metric_whole(&d->metrics, "outer_step", step);
    TRY(set_decode(&d->set));
    TRY(d->method->step(d->instance, step, &d->metrics));
    TRY(set_pull(&d->set));
    double norm = norm_of(stored->gradient, stored->count);
    metric_real(&d->metrics, "gradient_norm", norm);
    metric_real(&d->metrics, "inner_lr", inner_lr);
    if (d->metrics.failed) RAISE(RETORT_ENOMEM, "out of memory for the metrics");
    TRY(check_finite(d));
    update(d, norm, step);
    if (d->method->advance) d->method->advance(d->instance);
    d->steps_done = step;
    metric_real(&d->metrics, "seconds", clock_seconds() - begun);
    *metrics = &d->metrics;
done:
    return status;
}

/* --- what there is to know --- */
int distill_steps_done(const struct distill *d) {
    return d->steps_done;
}

int64_t distill_set_count(const struct distill *d) {
    return d->set.count;
}

double distill_inner_lr(const struct distill *d) {
    return set_inner_lr(&d->set);
}

void distill_results(const struct distill *d, struct metrics *results) {
    if (d->method->results) d->method->results(d->instance, results);
}

int distill_read_set(struct distill *d, float *images, float *soft_labels, int32_t *hard_labels) {
    int status = RETORT_OK;
    struct set *set = &d->set;
    TRY(set_decode(set));
    memcpy(images, set->images, (size_t)(set->count * set->image_size) * sizeof *images);
    if (soft_labels && set->soft_labels)
        memcpy(soft_labels, set->soft_labels, (size_t)(set->count * set->classes) * sizeof *soft_labels);
    if (hard_labels) memcpy(hard_labels, set->hard_labels, (size_t)set->count * sizeof *hard_labels);
done:
    return status;
}

/* --- checkpoints --- */
/* The order of the numbers is that of the files: steps and norm first, then the method's, the seed last. */
static void collect(struct distill *d, struct state *state) {
    state_whole(state, &d->steps_done);
    state_real(state, &d->mean_norm);
    if (d->method->state) d->method->state(d->instance, state);
    state_same(state, (double)d->problem.seed, "seed");
    set_state(&d->set, state);
}

int distill_save(struct distill *d, const char *path) {
    int status = RETORT_OK;
    struct state state = {0};
    collect(d, &state);
    if (d->method->save) TRY(d->method->save(d->instance));
    TRY(state_save(&state, path));
done:
    state_finish(&state);
    return status;
}

int distill_load(struct distill *d, const char *path) {
    int status = RETORT_OK;
    struct state state = {0};
    collect(d, &state);
    TRY(state_load(&state, path));
    TRY(set_loaded(&d->set));
    if (d->method->load) TRY(d->method->load(d->instance));
done:
    state_finish(&state);
    return status;
}
