/* What all methods share: the set, the update by the gradients that a method leaves, checkpoints, counting.
 *
 * Every draw is a function of (seed, purpose, outer step), so a resumed run sees the same ones. */
#include "distill/distill.h"

#include "base/error.h"
#include "base/log.h"
#include "distill/method.h"
#include "distill/tiles.h"
#include "team/team.h"
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
    double mean_norm;             /* for clipping; NaN: not begun */
    struct metrics metrics, told; /* told: by the trajectory at hand */

    struct deal turns;     /* trajectories: what each member brings */
    int count;             /* that this one computes: its own, or all of them where rows are divided */
    int64_t gradient_size; /* elements of the gradients of all variables */
    float *gradients;      /* [count, gradient_size] */
    double *numbers, *all; /* of metrics: [count, ROWS], [meta_batch, ROWS] */
    struct arena arena;
};

uint64_t distill_seed(uint64_t seed, enum random_stream stream, uint32_t draw) {
    struct random random = random_begin(seed, stream, draw);
    uint64_t high = random_bits(&random);
    return high << 32 | random_bits(&random);
}

struct unroll_spec method_unroll(const struct distill_problem *problem) {
    return (struct unroll_spec){.network = problem->network,
                                .optimizer = problem->inner.optimizer,
                                .frozen = problem->frozen,
                                .plan_only = problem->plan_only,
                                .interrupt = problem->interrupt};
}

static int check_frequency(const struct set_spec *set, const char **key) {
    int status = RETORT_OK;
    *key = "set.parameters.budget";
    if (!set->budget)
        RAISE(RETORT_EINVAL, "found nothing, expected the storage of a class in images: 1, with set.ipc 16, holds 16 "
                             "images in the room of one");
    if (set->budget > set->ipc)
        RAISE(RETORT_EINVAL, "room for %d images of a class, but set.ipc is only %d; make it at most that", set->budget,
              set->ipc);
done:
    return status;
}

static int check_tiles(const struct distill_problem *problem, const char **key) {
    int status = RETORT_OK;
    *key = "data.normalise";
    if (!tiles_allow(problem->normalisation))
        RAISE(RETORT_EINVAL, "tiles store pixels of each channel by itself, which %s mixes; take mean_sd or none",
              normalise_words[problem->normalisation->kind]);
    *key = "set.parameters.factor";
    if (!problem->set.factor)
        RAISE(RETORT_EINVAL, "found nothing, expected the tiles along a side: 2 makes four images of each stored one");
done:
    return status;
}

static int check_parameters(const struct distill_problem *problem, const char **key) {
    int status = RETORT_OK;
    const struct set_spec *set = &problem->set;
    const struct network *net = problem->network;
    struct set_storage storage;
    const bool frequency = set->parameters == PARAMETERS_FREQUENCY, tiles = set->parameters == PARAMETERS_TILES;
    *key = "set.init";
    if (set->init == SET_MIX && !tiles)
        RAISE(RETORT_EINVAL, "only set.parameters.kind tiles has tiles to mix images in; take real");
    *key = "set.parameters.factor";
    if (set->factor && !tiles) RAISE(RETORT_EINVAL, "only set.parameters.kind tiles has a factor; leave it out");
    *key = "set.parameters.budget";
    if (set->budget && !frequency)
        RAISE(RETORT_EINVAL, "only set.parameters.kind frequency has a budget; others store set.ipc images");
    if (frequency) TRY(check_frequency(set, key));
    if (tiles) TRY(check_tiles(problem, key));
    if (net) TRY(set_storage(set, net->classes, net->channels, net->height, net->width, &storage));
done:
    return status;
}

static int check_division(const struct distill_problem *problem, const char **key) {
    int status = RETORT_OK, members = team_size(problem->division.team);
    bool rows = problem->division.what == DIVIDE_ROWS;
    *key = "outer.meta_batch";
    if (members > 1 && !rows && problem->outer.meta_batch < members)
        RAISE(RETORT_EINVAL, "%d trajectories cannot be divided among %d devices: make it %d or more%s",
              problem->outer.meta_batch, members, members,
              problem->method->divides_rows ? ", or set device.divide: rows" : "");
    *key = "device.divide";
    if (members > 1 && rows && !problem->method->divides_rows)
        RAISE(RETORT_EINVAL,
              "method %s does not divide the rows of its batches; set outer.meta_batch: %d or more, whose trajectories "
              "are divided",
              problem->method->name, members);
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
    TRY(check_division(problem, key));
    TRY(check_parameters(problem, key));
    if (method->check) TRY(method->check(problem, key));
done:
    return status;
}

static int deal_turns(struct distill *d) {
    int status = RETORT_OK, members = team_size(d->problem.division.team), all = d->problem.outer.meta_batch;
    TRY(division_deal(&d->problem.division, all, 1, &d->turns));
    d->count = d->turns.count;
    if (d->problem.division.what != DIVIDE_ROWS) goto done;
    for (int i = 0; i < members; i++) d->turns.counts[i] = i ? 0 : all;
    d->turns.first = 0;
    d->count = all;
done:
    return status;
}

/* What one trajectory's turn leaves is kept for the sum over all. */
enum { MOST_METRICS = 32 };
static int make_room(struct distill *d) {
    int status = RETORT_OK;
    TRY(deal_turns(d));
    for (int i = 0; i < SET_VARIABLES; i++) d->gradient_size += d->set.variables[i].count;
    d->gradients = arena_array(&d->arena, (size_t)d->count * (size_t)d->gradient_size, sizeof *d->gradients);
    d->numbers = arena_array(&d->arena, (size_t)d->count * MOST_METRICS, sizeof *d->numbers);
    d->all = arena_array(&d->arena, (size_t)d->problem.outer.meta_batch * MOST_METRICS, sizeof *d->all);
    if (d->arena.failed) RAISE(RETORT_ENOMEM, "out of memory for the gradients of %d trajectories", d->count);
done:
    return status;
}

int distill_create(const struct distill_problem *problem, struct distill **out) {
    int status = RETORT_OK;
    const char *key = NULL;
    struct distill *d = calloc(1, sizeof *d);
    if (!d) RAISE(RETORT_ENOMEM, "out of memory preparing the distillation");
    d->problem = *problem;
    if (!d->problem.outer.meta_batch) d->problem.outer.meta_batch = 1;
    d->method = problem->method;
    d->mean_norm = NAN;
    arena_init(&d->arena);
    status = distill_check(&d->problem, &key);
    if (status < 0) error_context("%s", key);
    TRY(status);
    TRY(set_begin(&d->problem, &d->set));
    TRY(make_room(d));
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
    metrics_finish(&d->told);
    deal_finish(&d->turns);
    arena_finish(&d->arena);
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

int distill_share_start(struct distill *d) {
    return set_share(&d->set, d->problem.division.team);
}

enum dct_way distill_dct(const struct distill *d) {
    return set_dct(&d->set);
}

const struct memory *distill_set_memory(const struct distill *d, int i) {
    return set_memory(&d->set, i);
}

static struct turn turn_of(const struct distill *d, int step, int trajectory) {
    return (struct turn){step, trajectory,
                         ((uint32_t)step - 1) * (uint32_t)d->problem.outer.meta_batch + (uint32_t)trajectory + 1};
}

/* The steps of a run in turn, for their time. */
struct stepping {
    struct distill *distill;
    int steps;
};

static int take_next(void *context) {
    struct stepping *stepping = context;
    struct distill *d = stepping->distill;
    metrics_clear(&d->metrics);
    return d->method->step(d->instance, turn_of(d, stepping->steps++ % d->problem.outer.steps + 1, 0), &d->metrics);
}

int method_time(int (*part)(void *context), void *context, double enough, double *seconds) {
    int status = RETORT_OK;
    int parts = 0;
    double begun = clock_seconds(), first = 0, all = 0;
    while (all < enough) {
        TRY(part(context));
        all = clock_seconds() - begun;
        if (++parts == 1) first = all;
    }
    *seconds = parts > 1 ? (all - first) / (parts - 1) : all;
done:
    return status;
}

int distill_forecast(struct distill *d, double enough, double *seconds) {
    int status = RETORT_OK;
    struct stepping stepping = {d, 0};
    double trajectory, begun = clock_seconds();
    TRY(set_decode(&d->set));
    double decode = clock_seconds() - begun;
    begun = clock_seconds();
    TRY(set_pull(&d->set));
    double pull = clock_seconds() - begun;
    TRY(d->method->forecast ? d->method->forecast(d->instance, enough, &trajectory)
                            : method_time(take_next, &stepping, enough, &trajectory));
    *seconds = decode + d->problem.outer.meta_batch * (trajectory + pull);
done:
    return status;
}

/* --- one outer step --- */
static double norm_of(const float *x, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)x[i] * x[i];
    return sqrt(sum);
}

/* --- trajectories --- */
/* Takes this member's trajectories, one after another, and keeps what each leaves. */
static int take_turns(struct distill *d, int step) {
    int status = RETORT_OK;
    for (int k = 0; k < d->count; k++) {
        float *row = d->gradients + (size_t)k * (size_t)d->gradient_size;
        metrics_clear(&d->told);
        TRY(d->method->step(d->instance, turn_of(d, step, d->turns.first + k), &d->told));
        TRY(set_pull(&d->set));
        if (d->told.failed || d->told.rows.count > MOST_METRICS)
            RAISE(RETORT_ENOMEM, "no room for the %zu values of a step", d->told.rows.count);
        for (int i = 0; i < SET_VARIABLES; i++) {
            const struct outer_variable *variable = &d->set.variables[i];
            if (variable->count) memcpy(row, variable->gradient, (size_t)variable->count * sizeof *row);
            row += variable->count;
        }
        for (size_t i = 0; i < d->told.rows.count; i++)
            d->numbers[(size_t)k * d->told.rows.count + i] = d->told.rows.items[i].number;
    }
done:
    return status;
}

/* Leaves the mean of all trajectories' gradients, added in their order, where a single one's would be. */
static int average_gradients(struct distill *d) {
    int status = RETORT_OK;
    const float *row = d->gradients, share = 1.0f / (float)d->problem.outer.meta_batch;
    TRY(team_sum(d->problem.division.team, d->turns.counts, d->gradients, d->gradient_size, d->gradients));
    for (int i = 0; i < SET_VARIABLES; i++) {
        const struct outer_variable *variable = &d->set.variables[i];
        for (int64_t v = 0; v < variable->count; v++) variable->gradient[v] = share * row[v];
        row += variable->count;
    }
done:
    return status;
}

/* Numbers are averaged; words are those of the last trajectory, since only what all share has words. */
static int average_metrics(struct distill *d) {
    int status = RETORT_OK, K = d->problem.outer.meta_batch;
    size_t count = d->told.rows.count;
    TRY(team_collect(d->problem.division.team, d->turns.counts, count * sizeof *d->numbers, d->numbers, d->all));
    for (size_t i = 0; i < count; i++) {
        struct metric row = d->told.rows.items[i];
        double sum = 0;
        for (int k = 0; k < K; k++) sum += d->all[(size_t)k * count + i];
        row.number = sum / K;
        if (row.type == METRIC_WHOLE && row.number != floor(row.number)) row.type = METRIC_REAL;
        if (!array_push(&d->metrics.rows, row)) d->metrics.failed = true;
    }
done:
    return status;
}

/* What the method keeps of each trajectory, to all members. */
static int share_left(struct distill *d) {
    int64_t count = 0;
    double *rows = d->method->left ? d->method->left(d->instance, &count) : NULL;
    if (!count) return RETORT_OK;
    size_t bytes = (size_t)count * sizeof *rows;
    double *mine = malloc((size_t)d->count * bytes);
    if (!mine) return error_set(RETORT_ENOMEM, "out of memory for %d trajectories", d->count);
    memcpy(mine, rows + (size_t)d->turns.first * (size_t)count, (size_t)d->count * bytes);
    int status = team_collect(d->problem.division.team, d->turns.counts, bytes, mine, rows);
    free(mine);
    return status;
}

static int compute_gradients(struct distill *d, int step) {
    int status = RETORT_OK;
    TRY(set_decode(&d->set));
    TRY(take_turns(d, step));
    TRY(average_gradients(d));
    TRY(average_metrics(d));
    TRY(share_left(d));
done:
    return status;
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
    TRY(compute_gradients(d, step));
    double norm = norm_of(stored->gradient, stored->count);
    metric_real(&d->metrics, "gradient_norm", norm);
    metric_real(&d->metrics, "inner_lr", inner_lr);
    if (d->metrics.failed) RAISE(RETORT_ENOMEM, "out of memory for the metrics");
    TRY(check_finite(d));
    update(d, norm, step);
    if (d->method->advance) d->method->advance(d->instance, &d->metrics);
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
