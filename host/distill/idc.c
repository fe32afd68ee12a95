/* Condensation on networks that learn from real data: IDC (Kim et al., "Dataset condensation via efficient
 * synthetic-data parameterization", ICML 2022), and Acc-DD (Zhang et al., "Accelerating dataset distillation via model
 * augmentation", CVPR 2023), which is IDC from other weights.
 *
 * An iteration has `matches` outer steps. It begins with fresh weights or, in Acc-DD, with those of one of a few
 * networks after some epochs of real data, moved in two random directions whose filters have the norms of theirs:
 * theta + a1 d1 + a2 d2. Each step matches, class by class,
 *
 *     L = sum over classes c, over the weights of convolutions, of |g_c - h_c|^2   (or of the absolute differences)
 *
 * g_c and h_c being the gradients on real and on synthetic images under the same augmentation; before each step but the
 * first of an iteration the network learns from some real images under CutMix.
 *
 * The released code updates a set's images class by class, with momentum 0.5 for each of these updates. Of K of them
 * only one has a gradient for an image; what follows it moves on by momentum alone, so that together they are one step
 * at the rate 2 (1 - 0.5^K) times theirs with momentum 0.5^K. Hence the defaults: no momentum, and twice their rate. */
#include "data/data.h"
#include "distill/carried.h"
#include "distill/matching.h"
#include "distill/method.h"
#include "distill/real_training.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

enum models { MODELS_FRESH, MODELS_EARLY };
struct idc_spec {
    int matches, real_per_class, set_per_class, real_images;
    int distance, models, networks, epochs;
    double perturb[2], cutmix;
    bool augment;
};

static const char *const distances[] = {"squared", "absolute", NULL}; /* from DISTANCE_SQUARED on */
static const char *const models[] = {[MODELS_FRESH] = "fresh", [MODELS_EARLY] = "early", NULL};

#define AT(member) offsetof(struct idc_spec, member)
static const struct schema_key keys[] = {
    {"method.matches", KEY_INT, AT(matches), .least = 1, .most = 1e6, .standard = "100",
     .help = "Outer steps of an iteration, which begins with new weights."},
    {"method.real_per_class", KEY_INT, AT(real_per_class), .least = 1, .most = 1e6, .standard = "64",
     .help = "Real images of a class in one outer step; a class that has fewer gives all."},
    {"method.set_per_class", KEY_INT, AT(set_per_class), .least = 1, .most = 1e6, .standard = "128",
     .help = "Images of a class of the set in one outer step, at most; drawn anew in each."},
    {"method.distance", KEY_CHOICE, AT(distance), .words = distances, .standard = "squared",
     .help = "Of gradients by the weights of convolutions: the sum of squared or of absolute differences."},
    {"method.augment", KEY_BOOL, AT(augment), .standard = "true",
     .help = "Colours, one of crop, scale and rotation, and cutout, alike for all images of a class."},
    {"method.real_images", KEY_INT, AT(real_images), .least = 0, .most = KEY_WHOLE, .standard = "2000",
     .help = "Real images, in batches of 64, that the network learns from between two matches; 0: it does not learn."},
    {"method.cutmix", KEY_REAL, AT(cutmix), .least = 0, .most = 1, .standard = "0.5",
     .help = "Probability that such a batch is mixed by CutMix."},
    {"method.models", KEY_CHOICE, AT(models), .words = models, .standard = "fresh",
     .help = "Weights that an iteration begins with: fresh ones (IDC), or early ones (Acc-DD)."},
    {"method.networks", KEY_INT, AT(networks), .least = 1, .most = 1000, .standard = "5",
     .help = "early: networks to choose from."},
    {"method.epochs", KEY_INT, AT(epochs), .least = 1, .most = 10000, .standard = "2",
     .help = "early: epochs of real data that each has learnt from."},
    {"method.perturb", KEY_REALS, AT(perturb), .least = 0, .most = 1, .items = 2, .standard = "[0, 0]",
     .help = "Least and most of |a1|, |a2|, by which weights are moved in random directions; Acc-DD: [0.01, 0.09]."},
};
static const struct key_default defaults[] = {
    {"set.init", "real"},      {"outer.optimizer", "sgd"},     {"outer.lr", "0.01"},       {"outer.momentum", "0"},
    {"outer.clip", "false"},   {"evaluate.protocol", "dc"},    {"inner.optimizer", "sgd"}, {"inner.lr", "0.01"},
    {"inner.momentum", "0.9"}, {"inner.weight_decay", "5e-4"},
};

struct idc {
    const struct distill_problem *problem;
    const struct idc_spec *spec;
    struct set *set;
    struct unroll *unroll;
    struct matching matching;
    struct carried carried;
    struct real_training training;
    uint32_t *chosen;
    float *theta, *moved; /* [p] */
    struct arena arena;
};

static int check(const struct distill_problem *problem, const char **key) {
    int status = RETORT_OK;
    const struct idc_spec *spec = problem->method_spec;
    *key = "method.perturb";
    if (spec->perturb[0] > spec->perturb[1])
        RAISE(RETORT_EINVAL, "the least, %g, is more than the most, %g", spec->perturb[0], spec->perturb[1]);
    *key = "method.real_images";
    if (spec->real_images && spec->real_images < REAL_TRAINING_BATCH)
        RAISE(RETORT_EINVAL, "found %d, expected %d or more, for the network learns from batches of %d; or 0",
              spec->real_images, REAL_TRAINING_BATCH, REAL_TRAINING_BATCH);
    if (spec->models == MODELS_EARLY && !spec->real_images)
        RAISE(RETORT_EINVAL, "early networks learn from real images, so 0 of them are too few; take 2000");
    if (problem->train && spec->real_images > problem->train->count)
        RAISE(RETORT_EINVAL, "found %d, but the training data has only %lld images; make it at most that",
              spec->real_images, (long long)problem->train->count);
done:
    return status;
}

/* --- making one --- */
static void destroy(void *instance) {
    struct idc *m = instance;
    if (!m) return;
    carried_finish(&m->carried);
    real_training_finish(&m->training);
    matching_finish(&m->matching);
    unroll_destroy(m->unroll);
    arena_finish(&m->arena);
    free(m);
}

static int allocate(struct idc *m) {
    m->chosen = arena_array(&m->arena, (size_t)m->set->ipc, sizeof *m->chosen);
    m->theta = arena_array(&m->arena, (size_t)m->problem->network->theta_count, sizeof *m->theta);
    m->moved = arena_array(&m->arena, (size_t)m->problem->network->theta_count, sizeof *m->moved);
    return m->arena.failed ? error_set(RETORT_ENOMEM, "out of memory for weights") : RETORT_OK;
}

static int create(const struct distill_problem *problem, struct set *set, void **instance) {
    int status = RETORT_OK;
    struct pass_spec passes[MATCHING_PASSES];
    struct idc *m = calloc(1, sizeof *m);
    if (!m) RAISE(RETORT_ENOMEM, "out of memory preparing condensation");
    const struct idc_spec *spec = m->spec = problem->method_spec;
    arena_init(&m->arena);
    m->problem = problem;
    m->set = set;
    const struct matching_spec matching = {
        .network = problem->network,
        .real = spec->real_per_class,
        .set = set->ipc < spec->set_per_class ? set->ipc : spec->set_per_class,
        .augment = spec->augment ? siamese_apply_composed : NULL,
        .distance = (enum gradient_distance)(DISTANCE_SQUARED + spec->distance),
    };
    m->training = (struct real_training){.problem = problem,
                                         .steps = spec->real_images / REAL_TRAINING_BATCH,
                                         .cutmix = spec->cutmix,
                                         .augment = spec->augment,
                                         .networks = spec->models == MODELS_EARLY ? spec->networks : 0,
                                         .epochs = spec->epochs};
    TRY(allocate(m));
    TRY(real_training_init(&m->training));
    struct unroll_spec unroll = method_unroll(problem);
    unroll.passes = passes;
    TRY(matching_init(&m->matching, &matching, passes, &unroll.pass_count));
    real_training_unroll(&m->training, &unroll);
    TRY(unroll_create(problem->library, &unroll, &m->unroll));
    m->training.unroll = m->matching.unroll = m->unroll;
    TRY(carried_init(&m->carried, m->unroll, problem->outer.meta_batch, spec->matches > 1));
    *instance = m;
    m = NULL;
done:
    destroy(m);
    return status;
}

static const struct unroll *unroll_of(const void *instance) {
    return ((const struct idc *)instance)->unroll;
}

/* --- weights that an iteration begins with --- */
static int begin(struct idc *m, uint32_t draw) {
    int status = RETORT_OK;
    const struct network *net = m->problem->network;
    const uint64_t seed = distill_seed(m->problem->seed, RANDOM_WEIGHTS, draw);
    struct random random = random_begin(m->problem->seed, RANDOM_PERTURBATION, draw);
    const float *theta = m->theta;
    if (m->training.networks) {
        TRY(real_training_early(&m->training));
        theta = m->training.early + (int64_t)random_below(&random, (uint32_t)m->training.networks) * net->theta_count;
    } else {
        TRY(unroll_begin(m->unroll, &seed));
        if (m->spec->perturb[1] == 0) goto done;
        TRY(unroll_read_theta(m->unroll, m->theta));
    }
    perturb(net, &random, m->spec->perturb, theta, m->moved);
    TRY(unroll_begin_from(m->unroll, m->moved));
done:
    return status;
}

/* --- a step --- */
/* One class: its loss, and the derivative by its images that were chosen. */
static int match_class(struct idc *m, struct random *random, uint32_t draw, int class, double *loss) {
    int status = RETORT_OK;
    const struct set *set = m->set;
    struct matching *matching = &m->matching;
    const size_t size = (size_t)set->image_size, first = (size_t) class * (size_t)set->ipc;
    const size_t chosen = (size_t)matching->spec.set;
    struct matching_batch batch = {class, 0, matching->images, matching->maps, matching->colours};
    siamese_draw_class_composed(m->problem->seed, draw, class, set->height, set->width, matching->maps,
                                matching->colours);
    matching_spread(matching);
    TRY(dataset_draw_class(m->problem->train, random, class, matching->spec.real, matching->images, &batch.different));
    TRY(matching_real(matching, &batch));
    random_choose(random, (uint32_t)set->ipc, (uint32_t)chosen, m->chosen);
    for (size_t i = 0; i < chosen; i++)
        memcpy(matching->images + i * size, set->images + (first + m->chosen[i]) * size, size * sizeof(float));
    batch.different = (int64_t)chosen;
    TRY(matching_set(matching, &batch));
    TRY(matching_compare(matching, MATCHING_CLASS, 1, 1, loss));
    TRY(matching_pull(matching, m->chosen, set->image_gradient + first * size));
done:
    return status;
}

static int match_classes(struct idc *m, uint32_t draw, double *loss) {
    int status = RETORT_OK;
    const struct set *set = m->set;
    double one;
    struct random random = random_begin(m->problem->seed, RANDOM_REAL_BATCH, draw);
    memset(set->image_gradient, 0, (size_t)(set->count * set->image_size) * sizeof *set->image_gradient);
    for (int class = 0; class < set->classes; class ++) {
        TRY(match_class(m, &random, draw, class, &one));
        *loss += one;
    }
done:
    return status;
}

static int take_step(void *instance, struct turn turn, struct metrics *metrics) {
    int status = RETORT_OK;
    struct idc *m = instance;
    int match = (turn.step - 1) % m->spec->matches;
    double loss = 0;
    if (match) {
        TRY(carried_take(&m->carried, turn.trajectory));
        if (m->training.steps) TRY(real_training_step(&m->training, turn.draw, (match - 1) * m->training.steps));
    } else {
        TRY(begin(m, turn.draw));
    }
    TRY(match_classes(m, turn.draw, &loss));
    TRY(carried_leave(&m->carried, turn.trajectory));
    metric_real(metrics, "loss", loss);
    metric_whole(metrics, "match", match + 1);
done:
    return status;
}

static int match_once(void *instance) {
    double loss = 0;
    return match_classes(instance, 1, &loss);
}

static int learn_once(void *instance) {
    return real_training_step(&((struct idc *)instance)->training, 1, 0);
}

/* Early networks would take long to make; fresh weights are matched as fast. */
static int forecast(void *instance, double enough, double *seconds) {
    int status = RETORT_OK;
    struct idc *m = instance;
    const double matches = m->spec->matches, early = (double)real_training_early_chunks(&m->training);
    double match, chunk = 0;
    TRY(unroll_begin(m->unroll, &(uint64_t){1}));
    TRY(method_time(match_once, m, enough / 2, &match));
    if (m->training.steps) TRY(method_time(learn_once, m, enough / 2, &chunk));
    *seconds = match + ((matches - 1) / matches + early / m->problem->outer.steps) * chunk;
done:
    return status;
}

static double *left(void *instance, int64_t *count) {
    return carried_left(&((struct idc *)instance)->carried, count);
}

static void advance(void *instance, const struct metrics *metrics) {
    (void)metrics;
    carried_advance(&((struct idc *)instance)->carried);
}

static void state(void *instance, struct state *rows) {
    struct idc *m = instance;
    carried_state(&m->carried, rows);
    real_training_state(&m->training, rows);
}

const struct method method_idc = {
    .name = "idc",
    .summary = "Gradients on networks that learn from real images: IDC, and Acc-DD from early networks.",
    .keys = keys,
    .key_count = sizeof keys / sizeof *keys,
    .spec_size = sizeof(struct idc_spec),
    .defaults = defaults,
    .default_count = sizeof defaults / sizeof *defaults,
    .remedy = "lower outer.lr",
    .check = check,
    .create = create,
    .destroy = destroy,
    .unroll = unroll_of,
    .step = take_step,
    .forecast = forecast,
    .advance = advance,
    .left = left,
    .state = state,
};
