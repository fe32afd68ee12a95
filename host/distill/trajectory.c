/* Matching trajectories (MTT: Cazenavette et al., "Dataset distillation by matching training trajectories", CVPR 2022).
 * A step takes an expert (experts.h) at an epoch i, trains from theta_0 = theta*_i on J steps of SGD on the set, and
 * pulls the end to where the expert was K epochs later, theta*_{i+K}, by the loss of expert_loss.h. The derivative goes
 * back through the J steps exactly. With `hessian: none` theta_t counts as constant in each gradient (TESLA: Cui et
 * al., "Scaling up dataset distillation to ImageNet-1K with constant memory", ICML 2023, as released):
 * dS = -alpha sum over t of (dg_t / dS)^T dL / dtheta_J, which is not the derivative of L. */
#include "base/error.h"
#include "distill/expert_loss.h"
#include "distill/experts.h"
#include "distill/method.h"
#include "unroll/unroll.h"

#include <stdlib.h>
#include <string.h>

struct trajectory_spec {
    int steps, epochs, max_start, batch;
    int prune, hessian; /* enum prune, enum hessian */
    double epsilon;
    bool augment, flip;
    const char *experts;
};

static const char *const prunes[] = {
    [PRUNE_NONE] = "none", [PRUNE_RATIO] = "ratio", [PRUNE_DISTANCE] = "distance", NULL};
/* Their order is that of `hessian_of`. */
static const char *const hessians[] = {"exact", "none", NULL};

#define AT(member) offsetof(struct trajectory_spec, member)
static const struct schema_key keys[] = {
    {"method.steps", KEY_INT, AT(steps), .least = 1, .most = 1e5, .standard = "30",
     .help = "J: steps on the set, all of which are stored: 2 p floats each."},
    {"method.epochs", KEY_INT, AT(epochs), .least = 1, .most = EXPERT_MOST_EPOCHS, .standard = "2",
     .help = "K: epochs of the expert that these steps are to make up for."},
    {"method.max_start", KEY_INT, AT(max_start), .least = 1, .most = EXPERT_MOST_EPOCHS, .standard = "20",
     .help = "A step starts from the expert after 0 to max_start - 1 epochs."},
    {"method.batch", KEY_INT, AT(batch), .least = 1, .most = KEY_WHOLE, .zero = "all", .standard = "all",
     .help = "Images of the set in one of its steps; it must divide their number. Each is seen once before any is "
             "seen again."},
    {"method.experts", KEY_PATH, AT(experts), .standard = "experts",
     .help = "The folder of expert trajectories, relative to this descriptor; `retort experts` makes it."},
    {"method.hessian", KEY_CHOICE, AT(hessian), .words = hessians, .standard = "exact",
     .help = "The derivative through the steps: exact (MTT), or without second derivatives by the weights (TESLA)."},
    {"method.prune", KEY_CHOICE, AT(prune), .words = prunes, .standard = "none",
     .help = "DDPP, in two readings, a parameter of the student against the expert's at the target: ratio of the "
             "smaller to the larger magnitude, 0 where signs differ; or their distance over how far the expert went."},
    {"method.epsilon", KEY_REAL, AT(epsilon), .least = 0, .most = KEY_UNBOUNDED, .open = OPEN_LEAST, .standard = "0.1",
     .help = "prune: parameters are dropped from the loss whose ratio is below it (it must be below 1), or whose "
             "distance is above it (at 1, those no nearer to the target than where the expert began)."},
    {"method.augment", KEY_BOOL, AT(augment), .standard = "true",
     .help = "Differentiable Siamese augmentation, one family a step and parameters for each image; of experts too."},
    {"method.flip", KEY_BOOL, AT(flip), .standard = "true",
     .help = "Mirroring is one of its families; not for digits."},
};
static const struct key_default defaults[] = {
    {"set.init", "real"},       {"inner.optimizer", "sgd"},  {"inner.lr", "0.01"},      {"inner.learn_lr", "true"},
    {"outer.optimizer", "sgd"}, {"outer.lr", "100"},         {"outer.momentum", "0.5"}, {"outer.lr_inner", "1e-3"},
    {"outer.clip", "false"},    {"evaluate.protocol", "dc"},
};

struct trajectory {
    const struct distill_problem *problem;
    const struct trajectory_spec *spec;
    struct set *set;
    struct expert_loss loss; /* a pass of the unroll */
    struct unroll *unroll;
    int64_t batch;
    float *start, *target; /* [p] */
    int32_t *rows;         /* [J, batch] */
    float *maps, *colours; /* likewise */
    uint32_t *order;       /* [n] */
    double *lr;            /* [J] */
    struct arena arena;
};

static int64_t batch_of(const struct trajectory_spec *spec, int64_t count) {
    return spec->batch ? spec->batch : count;
}

static enum hessian hessian_of(const struct trajectory_spec *spec) {
    return spec->hessian ? HESSIAN_NONE : HESSIAN_EXACT;
}

static int check(const struct distill_problem *problem, const char **key) {
    int status = RETORT_OK;
    const struct trajectory_spec *spec = problem->method_spec;
    *key = "method.epsilon";
    if (spec->prune == PRUNE_RATIO && spec->epsilon >= 1)
        RAISE(RETORT_EINVAL, "found %g, but a ratio of magnitudes is at most 1; make it smaller", spec->epsilon);
    *key = "method.max_start";
    if (spec->max_start - 1 + spec->epochs > EXPERT_MOST_EPOCHS)
        RAISE(RETORT_EINVAL, "targets reach epoch %d, but experts have at most %d", spec->max_start - 1 + spec->epochs,
              EXPERT_MOST_EPOCHS);
    *key = "method.batch";
    if (problem->network) {
        int64_t count = (int64_t)problem->network->classes * problem->set.ipc;
        if (batch_of(spec, count) > count || count % batch_of(spec, count))
            RAISE(RETORT_EINVAL, "batches of %d do not divide the %lld images of the set", spec->batch,
                  (long long)count);
    }
done:
    return status;
}

static void wish(const void *values, struct expert_wish *wish) {
    const struct trajectory_spec *spec = values;
    *wish = (struct expert_wish){.folder = spec->experts,
                                 .augment = spec->augment,
                                 .flip = spec->flip,
                                 .epochs = spec->max_start - 1 + spec->epochs};
}

/* --- making one --- */
static void destroy(void *instance) {
    struct trajectory *t = instance;
    if (!t) return;
    unroll_destroy(t->unroll);
    arena_finish(&t->arena);
    free(t);
}

static int allocate(struct trajectory *t) {
    size_t p = (size_t)t->problem->network->theta_count, J = (size_t)t->spec->steps, rows = J * (size_t)t->batch;
    t->start = arena_array(&t->arena, p, sizeof *t->start);
    t->target = arena_array(&t->arena, p, sizeof *t->target);
    t->rows = arena_array(&t->arena, rows, sizeof *t->rows);
    t->maps = arena_array(&t->arena, rows, MAP_SIZE * sizeof *t->maps);
    t->colours = arena_array(&t->arena, rows, COLOUR_SIZE * sizeof *t->colours);
    t->order = arena_array(&t->arena, (size_t)t->set->count, sizeof *t->order);
    t->lr = arena_array(&t->arena, J, sizeof *t->lr);
    return t->arena.failed ? error_set(RETORT_ENOMEM, "out of memory for %zu steps and weights", J) : RETORT_OK;
}

static int create(const struct distill_problem *problem, struct set *set, void **instance) {
    int status = RETORT_OK;
    struct trajectory *t = calloc(1, sizeof *t);
    if (!t) RAISE(RETORT_ENOMEM, "out of memory preparing to match trajectories");
    *t = (struct trajectory){.problem = problem, .spec = problem->method_spec, .set = set};
    arena_init(&t->arena);
    t->batch = batch_of(t->spec, set->count);
    TRY(allocate(t));
    t->loss = (struct expert_loss){problem->network->theta_count, (enum prune)t->spec->prune, t->spec->epsilon};
    const struct pass_spec loss = expert_loss_pass(&t->loss);
    const struct unroll_spec spec = {.network = problem->network,
                                     .optimizer = problem->inner.optimizer,
                                     .set_count = set->count,
                                     .batch = t->batch,
                                     .augment = t->spec->augment,
                                     .colour = t->spec->augment,
                                     .max_window = t->spec->steps,
                                     .no_hessian = hessian_of(t->spec) == HESSIAN_NONE,
                                     .steps = t->spec->steps,
                                     .passes = &loss,
                                     .pass_count = 1,
                                     .frozen = problem->frozen,
                                     .plan_only = problem->plan_only,
                                     .interrupt = problem->interrupt};
    TRY(unroll_create(problem->library, &spec, &t->unroll));
    *instance = t;
    t = NULL;
done:
    destroy(t);
    return status;
}

static const struct unroll *unroll_of(const void *instance) {
    return ((const struct trajectory *)instance)->unroll;
}

/* --- a step --- */
/* The set, and rows and augmentation of its steps. */
static int upload(struct trajectory *t, uint32_t draw) {
    int status = RETORT_OK;
    const struct distill_problem *problem = t->problem;
    const struct network *net = problem->network;
    const int64_t n = t->set->count, count = t->spec->steps * t->batch;
    struct random rows = random_begin(problem->seed, RANDOM_INNER_BATCH, draw);
    struct random maps = random_begin(problem->seed, RANDOM_AUGMENT_INNER, draw);
    for (int64_t i = 0; i < count; i++) {
        if (t->batch < n && i % n == 0) random_choose(&rows, (uint32_t)n, (uint32_t)n, t->order);
        t->rows[i] = (int32_t)(t->batch < n ? t->order[i % n] : i % n);
    }
    for (int j = 0; j < t->spec->steps; j++) {
        t->lr[j] = set_inner_lr(t->set);
        if (t->spec->augment)
            siamese_draw(&maps, t->spec->flip, net->height, net->width, t->batch, t->maps + j * t->batch * MAP_SIZE,
                         t->colours + j * t->batch * COLOUR_SIZE);
    }
    TRY(unroll_set(t->unroll, 0, t->set->images, NULL, t->set->hard_labels));
    TRY(unroll_upload_steps(
        t->unroll,
        &(struct unroll_steps){
            .first = 1, .count = t->spec->steps, .lr = t->lr, .rows = t->rows, .maps = t->maps, .colour = t->colours}));
done:
    return status;
}

static int take_step(void *instance, struct turn turn, struct metrics *metrics) {
    int status = RETORT_OK;
    struct trajectory *t = instance;
    const struct trajectory_spec *spec = t->spec;
    const struct expert_source *experts = t->problem->experts;
    struct pass *pass = unroll_pass(t->unroll, 0);
    struct unroll_gradient gradient = {.images = t->set->image_gradient};
    double loss;
    int64_t kept;
    if (!experts) RAISE(RETORT_EINVAL, "there are no experts; train them first: retort experts DESCRIPTOR");
    struct random pick = random_begin(t->problem->seed, RANDOM_EXPERT_PICK, turn.draw);
    int expert = (int)random_below(&pick, (uint32_t)experts->networks);
    int epoch = (int)random_below(&pick, (uint32_t)spec->max_start);
    TRY(experts->read(experts->context, expert, epoch, t->start));
    TRY(experts->read(experts->context, expert, epoch + spec->epochs, t->target));
    TRY(upload(t, turn.draw));
    TRY(expert_loss_upload(pass, t->start, t->target));
    TRY(unroll_begin_from(t->unroll, t->start));
    TRY(unroll_window(t->unroll, 0, spec->steps, false));
    TRY(pass_run(pass));
    TRY(expert_loss_read(pass, &loss, &kept));
    if (kept == 0)
        RAISE(RETORT_ENUMERIC, "method.prune drops all parameters; %s method.epsilon",
              spec->prune == PRUNE_RATIO ? "lower" : "raise");
    TRY(unroll_backward(t->unroll, expert_loss_lambda(pass), hessian_of(spec), &gradient));
    /* By the chain rule to the logarithm. */
    if (t->set->variables[SET_LOG_LR].count)
        t->set->variables[SET_LOG_LR].gradient[0] = (float)(gradient.lr * set_inner_lr(t->set));
    metric_real(metrics, "loss", loss);
    metric_whole(metrics, "start", epoch);
    metric_real(metrics, "dropped", 1 - (double)kept / (double)t->loss.theta_count);
done:
    return status;
}

/* Experts need not be there: what steps take does not depend on the weights. */
static int forecast(void *instance, double enough, double *seconds) {
    int status = RETORT_OK;
    struct trajectory *t = instance;
    const uint64_t seed = distill_seed(t->problem->seed, RANDOM_WEIGHTS, 1);
    struct pass *pass = unroll_pass(t->unroll, 0);
    struct unroll_gradient gradient = {.images = t->set->image_gradient};
    double loss, window;
    for (int64_t i = 0; i < t->problem->network->theta_count; i++) t->start[i] = 1;
    memset(t->target, 0, (size_t)t->problem->network->theta_count * sizeof *t->target);
    TRY(upload(t, 1));
    TRY(expert_loss_upload(pass, t->start, t->target));
    TRY(unroll_begin(t->unroll, &seed));
    TRY(unroll_time_pass(t->unroll, pass, enough, &loss));
    TRY(unroll_time_window(t->unroll, seed, t->spec->steps, expert_loss_lambda(pass), hessian_of(t->spec), enough,
                           &gradient, &window));
    *seconds = loss + window;
done:
    return status;
}

const struct method method_trajectory = {
    .name = "trajectory",
    .summary = "Trajectory matching: training on the set leads where epochs of training on real images do.",
    .keys = keys,
    .key_count = sizeof keys / sizeof *keys,
    .spec_size = sizeof(struct trajectory_spec),
    .defaults = defaults,
    .default_count = sizeof defaults / sizeof *defaults,
    .learns = 1u << SET_LOG_LR,
    .remedy = "lower outer.lr, outer.lr_inner or inner.lr",
    .check = check,
    .experts = wish,
    .create = create,
    .unroll = unroll_of,
    .destroy = destroy,
    .step = take_step,
    .forecast = forecast,
};
