/* Distillation by back-propagation through a truncated inner training run. One step: fresh weights; where the
 * truncation asks for it a probe of the whole inner run for its gradient norms; the choice of the window; the
 * meta-gradient (unroll) by images, soft labels and the logarithm of the inner learning rate. */
#include "distill/bptt.h"

#include "base/error.h"
#include "base/log.h"
#include "distill/method.h"
#include "distill/truncation.h"
#include "team/team.h"
#include "unroll/meta.h"
#include "unroll/unroll.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- its keys --- */
static const char *const truncations[] = {[TRUNCATION_FIXED] = "fixed",
                                          [TRUNCATION_FORWARD] = "forward",
                                          [TRUNCATION_RANDOM] = "random",
                                          [TRUNCATION_DYNAMIC] = "dynamic",
                                          NULL};
static const char *const readings[] = {
    [READING_LITERAL] = "literal", [READING_RELEASED] = "released", [READING_STANDARDISED] = "standardised", NULL};
static const char *const hessians[] = {
    [HESSIAN_EXACT] = "exact", [HESSIAN_LANCZOS] = "lanczos", [HESSIAN_NONE] = "none", NULL};
static const char *const stages[STAGES] = {[STAGE_EARLY] = "early", [STAGE_MIDDLE] = "middle", [STAGE_LATE] = "late"};

#define AT(member) offsetof(struct bptt_spec, member)
static const struct schema_key keys[] = {
    {"method.window", KEY_INT, AT(window), .least = 1, .most = 1e6, .standard = "40",
     .help = "W: back-propagated steps."},
    {"method.truncation", KEY_CHOICE, AT(truncation), .words = truncations, .standard = "dynamic",
     .help = "Where the window lies: at the end, moving forward, at random (RaT-BPTT), or dynamic (AT-BPTT)."},
    {"method.patience", KEY_INT, AT(patience), .least = 1, .most = KEY_WHOLE, .standard = "60",
     .help = "forward: outer steps without a better loss before the window moves on."},
    {"method.reading", KEY_CHOICE, AT(reading), .words = readings, .standard = "standardised",
     .help = "dynamic: the paper's formulas to the letter, as its released code computes them, or standardised."},
    {"method.range", KEY_INT, AT(range), .least = 0, .most = 1e6, .standard = "10",
     .help = "dynamic, d: the window is between W - d and W + d."},
    {"method.temperature", KEY_REAL, AT(temperature), .least = 0, .most = KEY_UNBOUNDED, .open = OPEN_LEAST,
     .standard = "1", .help = "dynamic, tau: of the softmax over gradient norms."},
    {"method.probe_every", KEY_INT, AT(probe_every), .least = 1, .most = KEY_WHOLE, .standard = "1",
     .help = "dynamic: outer steps between probes of the gradient norms."},
    {"method.stage_period", KEY_INT, AT(stage_period), .least = 1, .most = KEY_WHOLE, .zero = "auto",
     .standard = "auto",
     .help = "dynamic: outer steps that make an epoch; auto: one pass over the data, at most outer.steps / 50."},
    {"method.stage.M", KEY_REAL, AT(stage_m), .least = -100, .most = 100, .standard = "1.5",
     .help = "An epoch counts towards the middle stage when accuracy gained less than M points (Eq. 8)."},
    {"method.stage.X", KEY_REAL, AT(stage_x), .least = 0, .most = 1, .standard = "0.05",
     .help = "The middle stage begins after X of all epochs counted."},
    {"method.stage.N", KEY_REAL, AT(stage_n), .least = -100, .most = 100, .standard = "1.0",
     .help = "An epoch counts towards the late stage when accuracy gained less than N points."},
    {"method.stage.Y", KEY_REAL, AT(stage_y), .least = 0, .most = 1, .standard = "0.04",
     .help = "The late stage begins after Y of all epochs counted."},
    {"method.stage.smoothing", KEY_REAL, AT(accuracy_smoothing), .least = 0, .most = 1, .open = OPEN_MOST,
     .standard = "0", .help = "Weight of the past in the running training accuracy that the stages watch."},
    {"method.weight_by_probability", KEY_BOOL, AT(weight_by_probability), .standard = "false",
     .help = "dynamic: weigh the steps of the window by their probability (Eq. 13)."},
    {"method.hessian", KEY_CHOICE, AT(hessian), .words = hessians, .standard = "exact",
     .help = "Exact Hessian-vector products, a low-rank approximation by Lanczos, or none: first-order terms alone."},
    {"method.rank", KEY_INT, AT(rank), .least = 1, .most = LANCZOS_MAX_RANK, .standard = "16",
     .help = "lanczos: rank of the approximation."},
    {"method.refresh", KEY_INT, AT(refresh), .least = 1, .most = KEY_WHOLE, .standard = "20",
     .help = "lanczos: outer steps between refreshes."},
};

/* Images of each class, and classes, in the mini-batch of an inner step. */
static int per_class_of(const struct distill_problem *problem) {
    return problem->inner.batch_per_class ? problem->inner.batch_per_class : problem->set.ipc;
}

static int classes_of(const struct distill_problem *problem) {
    return problem->inner.batch_classes ? problem->inner.batch_classes : problem->network->classes;
}

static int check_data(const struct distill_problem *problem, const char **key) {
    int status = RETORT_OK, classes = problem->network->classes;
    *key = "inner.batch.classes";
    if (classes_of(problem) > classes)
        RAISE(RETORT_EINVAL, "found %d, but the data has only %d classes", classes_of(problem), classes);
    *key = "outer.real_batch";
    if (problem->outer.real_batch > problem->train->count)
        RAISE(RETORT_EINVAL, "found %d, but the training data has only %lld images; set outer.real_batch: %lld",
              problem->outer.real_batch, (long long)problem->train->count, (long long)problem->train->count);
done:
    return status;
}

/* What looks at a whole batch cannot be computed from some of its rows. The unroll says so too, but after devices were
 * tried. */
static int check_rows(const struct distill_problem *problem, const char **key) {
    int status = RETORT_OK, members = team_size(problem->division.team);
    const struct bptt_spec *spec = problem->method_spec;
    *key = "device.divide";
    if (problem->division.what != DIVIDE_ROWS || members == 1) goto done;
    if (spec->hessian == HESSIAN_LANCZOS)
        RAISE(RETORT_EINVAL, "rows cannot be divided under a low-rank Hessian; take method.hessian: exact");
    if (problem->network && problem->network->stats_count)
        RAISE(RETORT_EINVAL,
              "rows cannot be divided under batch norm; take another network.norm, or outer.meta_batch: %d or more, "
              "whose trajectories are divided",
              members);
done:
    return status;
}

static int check(const struct distill_problem *problem, const char **key) {
    int status = RETORT_OK;
    const struct bptt_spec *spec = problem->method_spec;
    int steps = problem->inner.steps, reach = spec->truncation == TRUNCATION_DYNAMIC ? spec->range : 0;
    *key = "method.window";
    if (spec->window > steps)
        RAISE(RETORT_EINVAL, "a window of %d does not fit into inner.steps %d; make it at most that", spec->window,
              steps);
    *key = "method.range";
    if (reach >= spec->window)
        RAISE(RETORT_EINVAL, "windows reach down to method.window - range = %d - %d, below 1; make range smaller",
              spec->window, reach);
    if (spec->window + reach > steps)
        RAISE(RETORT_EINVAL,
              "windows reach up to method.window + range = %d + %d, past inner.steps %d; make one of them smaller",
              spec->window, reach, steps);
    *key = "method.hessian";
    if (spec->hessian == HESSIAN_LANCZOS && problem->outer.meta_batch > 1)
        RAISE(RETORT_EINVAL, "a low-rank Hessian is of one trajectory, but outer.meta_batch is %d; take exact",
              problem->outer.meta_batch);
    TRY(check_rows(problem, key));
    if (problem->train) TRY(check_data(problem, key));
done:
    return status;
}

/* --- making one --- */
struct bptt {
    const struct distill_problem *problem;
    const struct bptt_spec *spec;
    struct set *set;
    struct meta_spec meta; /* the meta-loss, a pass of the unroll */
    struct unroll *unroll;
    int batch;  /* rows per inner step */
    int period; /* outer steps that make an epoch */
    double epochs;

    /* the state that a checkpoint holds */
    struct truncation_state truncation;
    double *norms; /* [meta_batch, T] of the last probe of each trajectory */
    float *factor; /* lanczos: room for the factor on its way to and from a checkpoint */
    int64_t factor_count;

    /* per outer step */
    int32_t *rows, *real_labels;
    float *maps, *real_images, *real_maps, *again, *weights;
    double *probability, *scratch, *lr;
    double loss, accuracy, cosine; /* cosine: lanczos, to the exact meta-gradient, where measured; else NaN */
    struct arena arena;
};

static bool augments(const struct augment_spec *augment) {
    return augment->flip || augment->rotate;
}

static int longest_window(const struct bptt_spec *spec, int steps) {
    int longest = spec->window + (spec->truncation == TRUNCATION_DYNAMIC ? spec->range : 0);
    return longest < steps ? longest : steps;
}

static int epoch_period(const struct distill_problem *problem, const struct bptt_spec *spec) {
    int64_t period = spec->stage_period;
    if (!period) {
        int64_t pass = problem->train->count / problem->outer.real_batch, most = problem->outer.steps / 50;
        period = pass < most ? pass : most;
    }
    return period < 1 ? 1 : (int)period;
}

static void destroy(void *instance) {
    struct bptt *b = instance;
    if (!b) return;
    unroll_destroy(b->unroll);
    arena_finish(&b->arena);
    free(b);
}

static int allocate(struct bptt *b) {
    size_t n = (size_t)b->set->count, size = (size_t)b->set->image_size, T = (size_t)b->problem->inner.steps;
    size_t rows = (size_t)b->batch, r = (size_t)b->problem->outer.real_batch;
    b->rows = arena_array(&b->arena, T * rows, sizeof(int32_t));
    b->maps = arena_array(&b->arena, T * rows, MAP_SIZE * sizeof(float));
    b->real_images = arena_array(&b->arena, r * size, sizeof(float));
    b->real_labels = arena_array(&b->arena, r, sizeof(int32_t));
    b->real_maps = arena_array(&b->arena, r, MAP_SIZE * sizeof(float));
    b->again = arena_array(&b->arena, n * size, sizeof(float));
    b->weights = arena_array(&b->arena, T, sizeof(float));
    b->norms = arena_array(&b->arena, (size_t)b->problem->outer.meta_batch * T, sizeof(double));
    b->probability = arena_array(&b->arena, T, sizeof(double));
    b->scratch = arena_array(&b->arena, 2 * T, sizeof(double));
    b->lr = arena_array(&b->arena, T, sizeof(double));
    return b->arena.failed ? error_set(RETORT_ENOMEM, "out of memory for inner runs of %zu steps", T) : RETORT_OK;
}

static int create(const struct distill_problem *problem, struct set *set, void **instance) {
    int status = RETORT_OK;
    const struct network *net = problem->network;
    struct bptt *b = calloc(1, sizeof *b);
    if (!b) RAISE(RETORT_ENOMEM, "out of memory preparing the distillation");
    arena_init(&b->arena);
    b->problem = problem;
    b->spec = problem->method_spec;
    b->set = set;
    b->batch = per_class_of(problem) * classes_of(problem);
    truncation_begin(&b->truncation);
    b->period = epoch_period(problem, b->spec);
    b->epochs = (double)problem->outer.steps / b->period;
    TRY(allocate(b));
    bool augment = augments(&problem->outer.augment), by_rows = problem->division.what == DIVIDE_ROWS;
    b->meta = (struct meta_spec){.network = net, .batch = problem->outer.real_batch, .augment = augment};
    const struct pass_spec meta = meta_pass(&b->meta);
    const struct unroll_spec spec = {.network = net,
                                     .optimizer = problem->inner.optimizer,
                                     .set_count = set->count,
                                     .batch = b->batch,
                                     .soft_labels = set->soft_labels != NULL,
                                     .augment = augment,
                                     .passes = &meta,
                                     .pass_count = 1,
                                     .max_window = longest_window(b->spec, problem->inner.steps),
                                     .no_hessian = b->spec->hessian == HESSIAN_NONE,
                                     .steps = problem->inner.steps,
                                     .rank = b->spec->hessian == HESSIAN_LANCZOS ? b->spec->rank : 0,
                                     .team = by_rows ? problem->division.team : NULL,
                                     .shares = by_rows ? problem->division.shares : NULL,
                                     .frozen = problem->frozen,
                                     .plan_only = problem->plan_only,
                                     .interrupt = problem->interrupt};
    TRY(unroll_create(problem->library, &spec, &b->unroll));
    b->factor_count = unroll_factor_count(b->unroll);
    b->factor = arena_array(&b->arena, (size_t)b->factor_count, sizeof(float));
    if (!b->factor) RAISE(RETORT_ENOMEM, "out of memory for a Hessian of rank %d", spec.rank);
    *instance = b;
    b = NULL;
done:
    destroy(b);
    return status;
}

static const struct unroll *unroll_of(const void *instance) {
    return ((const struct bptt *)instance)->unroll;
}

/* --- one outer step --- */
static int draw_inner(struct bptt *b, uint32_t draw) {
    int status = RETORT_OK;
    const struct distill_problem *problem = b->problem;
    int per_class = per_class_of(problem), classes = classes_of(problem);
    struct random rows = random_begin(problem->seed, RANDOM_INNER_BATCH, draw);
    struct random maps = random_begin(problem->seed, RANDOM_AUGMENT_INNER, draw);
    for (int t = 0; t < problem->inner.steps; t++) {
        TRY(rows_draw(&rows, problem->network->classes, problem->set.ipc, classes, per_class,
                      b->rows + (size_t)t * (size_t)b->batch));
        augment_draw(&problem->outer.augment, &maps, b->batch, b->maps + (size_t)t * (size_t)b->batch * MAP_SIZE);
        b->lr[t] = set_inner_lr(b->set);
    }
done:
    return status;
}

static int draw_real(struct bptt *b, uint32_t draw) {
    int status = RETORT_OK;
    const struct distill_problem *problem = b->problem;
    struct random rows = random_begin(problem->seed, RANDOM_REAL_BATCH, draw);
    struct random maps = random_begin(problem->seed, RANDOM_AUGMENT_REAL, draw);
    TRY(dataset_draw(problem->train, &rows, problem->outer.real_batch, b->real_images, b->real_labels));
    augment_draw(&problem->outer.augment, &maps, problem->outer.real_batch, b->real_maps);
done:
    return status;
}

static double *norms_of(const struct bptt *b, int trajectory) {
    return b->norms + (size_t)trajectory * (size_t)b->problem->inner.steps;
}

/* Probes serve probe_every outer steps. */
static double *norms_left(void *instance, int64_t *count) {
    const struct bptt *b = instance;
    bool serve = b->spec->truncation == TRUNCATION_DYNAMIC && b->spec->probe_every > 1;
    *count = serve ? b->problem->inner.steps : 0;
    return b->norms;
}

/* Everything that the step draws and that does not depend on its window, onto the device. */
static int upload_draws(struct bptt *b, uint32_t draw, struct unroll_steps *table) {
    int status = RETORT_OK;
    TRY(draw_inner(b, draw));
    TRY(draw_real(b, draw));
    TRY(unroll_set(b->unroll, 0, b->set->images, b->set->soft_labels, b->set->hard_labels));
    *table = (struct unroll_steps){
        .first = 1, .count = b->problem->inner.steps, .lr = b->lr, .rows = b->rows, .maps = b->maps};
    TRY(unroll_upload_steps(b->unroll, table));
    TRY(meta_upload(unroll_pass(b->unroll, 0), b->real_images, b->real_labels, b->real_maps));
done:
    return status;
}

/* The gradient norms [T] of a whole inner run from the step's weights, for the truncation. */
static int probe(struct bptt *b, uint64_t seed, double *norms) {
    int status = RETORT_OK;
    int steps = b->problem->inner.steps;
    TRY(unroll_begin(b->unroll, &seed));
    TRY(unroll_train(b->unroll, 0, steps, true));
    TRY(unroll_read_probe(b->unroll, steps, NULL, norms));
    for (int t = 0; t < steps; t++)
        if (!isfinite(norms[t]))
            RAISE(RETORT_ENUMERIC,
                  "the inner training diverges: the gradient's norm at step %d is not finite; lower inner.lr", t + 1);
done:
    return status;
}

static double dot(const float *x, const float *y, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += (double)x[i] * y[i];
    return sum;
}

static double cosine(const float *x, const float *y, int64_t count) {
    return dot(x, y, count) / (sqrt(dot(x, x, count)) * sqrt(dot(y, y, count)));
}

/* Where the meta-gradient goes. */
static struct unroll_gradient gradient_of(struct set *set) {
    const struct outer_variable *labels = &set->variables[SET_SOFT_LABELS];
    return (struct unroll_gradient){.images = set->image_gradient, .labels = labels->count ? labels->gradient : NULL};
}

/* The meta-gradient of the chosen window, by the set's images and its other variables. */
static int compute_gradient(struct bptt *b, struct turn turn, const struct window_choice *choice, uint64_t seed) {
    int status = RETORT_OK;
    const struct bptt_spec *spec = b->spec;
    struct unroll_gradient gradient = gradient_of(b->set);
    struct pass *meta = unroll_pass(b->unroll, 0);
    int prefix = choice->end - choice->window;
    int64_t values = b->set->count * b->set->image_size;
    bool refresh = spec->hessian == HESSIAN_LANCZOS && (turn.step - 1) % spec->refresh == 0;
    b->cosine = NAN;
    TRY(unroll_begin(b->unroll, &seed));
    TRY(unroll_train(b->unroll, 0, prefix, false));
    TRY(unroll_window(b->unroll, prefix, choice->window, false));
    TRY(meta_run(meta));
    TRY(unroll_backward(b->unroll, meta_lambda(meta), refresh ? HESSIAN_EXACT : spec->hessian, &gradient));
    TRY(meta_read(meta, &b->loss, &b->accuracy));
    if (refresh) {
        TRY(unroll_lanczos(b->unroll, choice->end - 1, distill_seed(b->problem->seed, RANDOM_LANCZOS, turn.draw)));
        memcpy(b->again, gradient.images, (size_t)values * sizeof *b->again);
        TRY(unroll_backward(b->unroll, meta_lambda(meta), HESSIAN_LANCZOS, &gradient));
        b->cosine = cosine(gradient.images, b->again, values);
    }
    /* By the chain rule to the logarithm. */
    b->set->variables[SET_LOG_LR].gradient[0] = (float)(gradient.lr * set_inner_lr(b->set));
done:
    return status;
}

static int take_step(void *instance, struct turn turn, struct metrics *metrics) {
    int status = RETORT_OK;
    struct bptt *b = instance;
    const struct distill_problem *problem = b->problem;
    const struct bptt_spec *spec = b->spec;
    int steps = problem->inner.steps;
    uint64_t seed = distill_seed(problem->seed, RANDOM_WEIGHTS, turn.draw);
    struct unroll_steps table;
    TRY(upload_draws(b, turn.draw, &table));
    double *norms = truncation_needs_norms(spec, &b->truncation) ? norms_of(b, turn.trajectory) : NULL;
    /* A probe is kept for probe_every outer steps; it is part of the checkpoint. */
    if (truncation_needs_probe(spec, &b->truncation, turn.step)) TRY(probe(b, seed, norms));
    struct random random = random_begin(problem->seed, RANDOM_TRUNCATION, turn.draw);
    struct window_choice choice =
        truncation_choose(spec, steps, &b->truncation, &random, norms, b->probability, b->scratch);
    if (spec->weight_by_probability) {
        /* Times T, so that uniform weights are 1; the outer Adam would not see a common factor anyway. */
        for (int t = 0; t < steps; t++) b->weights[t] = (float)(b->probability[t] * steps);
        table.weights = b->weights;
        TRY(unroll_upload_steps(b->unroll, &table));
    }
    TRY(compute_gradient(b, turn, &choice, seed));
    metric_real(metrics, "loss", b->loss);
    metric_real(metrics, "accuracy", b->accuracy);
    metric_text(metrics, "stage", spec->truncation == TRUNCATION_DYNAMIC ? stages[b->truncation.stage] : NULL);
    metric_whole(metrics, "end", choice.end);
    metric_whole(metrics, "window", choice.window);
    metric_real(metrics, "cosine", b->cosine);
done:
    return status;
}

static void advance(void *instance, const struct metrics *metrics) {
    struct bptt *b = instance;
    truncation_advance(b->spec, b->problem->inner.steps, &b->truncation, metric_number(metrics, "loss"),
                       metric_number(metrics, "accuracy"), b->period, b->epochs);
}

/* --- what the steps of a run will take --- */
/* Seconds of the window with its way back, averaged over steps that refresh the low-rank Hessian and those between. */
static int time_window(struct bptt *b, uint64_t seed, int window, double enough, double *seconds) {
    int status = RETORT_OK;
    const struct bptt_spec *spec = b->spec;
    struct unroll_gradient gradient = gradient_of(b->set);
    struct place lambda = meta_lambda(unroll_pass(b->unroll, 0));
    enum hessian hessian = spec->hessian == HESSIAN_LANCZOS ? HESSIAN_EXACT : spec->hessian;
    double low, begun;
    TRY(unroll_time_window(b->unroll, seed, window, lambda, hessian, enough, &gradient, seconds));
    if (spec->hessian != HESSIAN_LANCZOS) goto done;
    begun = clock_seconds();
    TRY(unroll_lanczos(b->unroll, 0, seed));
    TRY(device_finish(library_device(b->problem->library)));
    double factor = clock_seconds() - begun;
    TRY(unroll_time_window(b->unroll, seed, window, lambda, HESSIAN_LANCZOS, enough, &gradient, &low));
    /* A refresh goes back exactly, makes the factor, and goes back by it. */
    *seconds = low + (*seconds + factor) / spec->refresh;
done:
    return status;
}

/* Norms of a whole probe where there was time for it, all alike where there was not. */
static int foresee(struct bptt *b, int probed, struct truncation_outlook *outlook) {
    int status = RETORT_OK;
    const struct distill_problem *problem = b->problem;
    int T = problem->inner.steps;
    double *norms = calloc((size_t)T, sizeof *norms);
    if (!norms) RAISE(RETORT_ENOMEM, "out of memory for inner runs of %d steps", T);
    if (probed == T) TRY(unroll_read_probe(b->unroll, T, NULL, norms));
    for (int t = 0; t < T; t++)
        if (!isfinite(norms[t])) norms[t] = 0;
    *outlook = truncation_foresee(b->spec, T, problem->outer.steps, b->period, problem->seed, norms, b->probability,
                                  b->scratch);
done:
    free(norms);
    return status;
}

static int forecast(void *instance, double enough, double *seconds) {
    int status = RETORT_OK;
    struct bptt *b = instance;
    struct device *device = library_device(b->problem->library);
    const uint64_t seed = distill_seed(b->problem->seed, RANDOM_WEIGHTS, 1);
    int T = b->problem->inner.steps, probed = 0;
    struct unroll_steps table;
    struct truncation_outlook outlook;
    double probe = 0, step, meta, window;
    double begun = clock_seconds();
    TRY(upload_draws(b, 1, &table));
    TRY(unroll_begin(b->unroll, &seed));
    TRY(device_finish(device));
    double draws = clock_seconds() - begun;
    if (b->spec->truncation == TRUNCATION_DYNAMIC)
        TRY(unroll_time_steps(b->unroll, seed, T, true, enough, &probe, &probed));
    TRY(foresee(b, probed, &outlook));
    TRY(unroll_time_steps(b->unroll, seed, T, false, enough, &step, NULL));
    TRY(unroll_time_pass(b->unroll, unroll_pass(b->unroll, 0), enough, &meta));
    TRY(time_window(b, seed, (int)lrint(outlook.window), enough, &window));
    log_debug(
        "foreseen: windows of %.1f steps up to step %.1f, %.2f probes; seconds: draws %.4f, a probed step %.5f, a "
        "step %.5f, the meta-loss %.4f, a window %.4f",
        outlook.window, outlook.end, outlook.probes, draws, probe, step, meta, window);
    *seconds = draws + outlook.probes * T * probe + (outlook.end - outlook.window) * step + meta + window;
done:
    return status;
}

/* --- what is kept and told --- */
static void add_state(void *instance, struct state *state) {
    struct bptt *b = instance;
    struct truncation_state *t = &b->truncation;
    state_whole(state, &t->stage);
    state_whole(state, &t->count[0]);
    state_whole(state, &t->count[1]);
    state_whole(state, &t->epoch_steps);
    state_real(state, &t->epoch_sum);
    state_real(state, &t->accuracy);
    state_real(state, &t->previous);
    for (int i = 0; i < STAGES; i++) state_whole(state, &t->stage_steps[i]);
    state_whole(state, &t->forward_end);
    state_whole(state, &t->stale);
    state_real(state, &t->best);
    state_array(state, "norms", NPY_FLOAT64, (int64_t)b->problem->outer.meta_batch * b->problem->inner.steps, b->norms);
    state_array(state, "factor", NPY_FLOAT32, b->factor_count, b->factor);
}

static int save(void *instance) {
    struct bptt *b = instance;
    return b->factor_count ? unroll_read_factor(b->unroll, b->factor) : RETORT_OK;
}

static int load(void *instance) {
    struct bptt *b = instance;
    return b->factor_count ? unroll_write_factor(b->unroll, b->factor) : RETORT_OK;
}

static void add_results(const void *instance, struct metrics *results) {
    const struct bptt *b = instance;
    metric_text(results, "truncation", truncations[b->spec->truncation]);
    if (b->spec->truncation != TRUNCATION_DYNAMIC) {
        metric_none(results, "stages");
        return;
    }
    metric_whole(results, "stages.early", b->truncation.stage_steps[STAGE_EARLY]);
    metric_whole(results, "stages.middle", b->truncation.stage_steps[STAGE_MIDDLE]);
    metric_whole(results, "stages.late", b->truncation.stage_steps[STAGE_LATE]);
}

const struct method method_bptt = {
    .name = "bptt",
    .summary = "Truncated back-propagation through the inner training run.",
    .keys = keys,
    .key_count = sizeof keys / sizeof *keys,
    .spec_size = sizeof(struct bptt_spec),
    .learns = 1u << SET_SOFT_LABELS | 1u << SET_LOG_LR,
    .divides_rows = true,
    .remedy = "lower inner.lr or outer.lr, or shorten method.window",
    .check = check,
    .create = create,
    .unroll = unroll_of,
    .destroy = destroy,
    .step = take_step,
    .advance = advance,
    .left = norms_left,
    .forecast = forecast,
    .state = add_state,
    .save = save,
    .load = load,
    .results = add_results,
};
