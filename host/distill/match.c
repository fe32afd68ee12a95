/* Gradient matching: DC (Zhao, Mopuri and Bilen, "Dataset condensation with gradient matching", ICLR 2021), DSA (Zhao
 * and Bilen, ICML 2021), DCC (Lee et al., "Dataset condensation with contrastive signals", ICML 2022), EGM (Jiang et
 * al., "Delving into effective gradient matching", 2022). With g_c, h_c the gradients by theta on real and on synthetic
 * images of class c (under one Siamese augmentation of both: DSA),
 *
 *     L = intra sum over c of D(g_c, h_c)  +  inter D(mean of all g_c, mean of all h_c)
 *     D = sum over weights of rank > 1, over output rows, of 1 - cos   (and the length of the difference: EGM)
 *
 * An iteration has `outer` outer steps. It begins with fresh weights; before each step but its first they learn from
 * the set, as it is then, for `inner` epochs. */
#include "data/data.h"
#include "distill/carried.h"
#include "distill/loops.h"
#include "distill/matching.h"
#include "distill/method.h"
#include "distill/set_training.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

enum { FROZEN_PER_CLASS = 16 };
struct match_spec {
    int row, adaptive;
    double intra, inter; /* inter -1: the number of classes */
    int warmup[2], outer, inner, real_per_class;
    bool augment, flip;
};

static const char *const rows[] = {[DISTANCE_COSINE] = "cosine", [DISTANCE_COSINE_NORM] = "cosine_norm", NULL};
static const char *const adaptives[] = {
    [ADAPTIVE_NONE] = "none", [ADAPTIVE_LOSS] = "loss", [ADAPTIVE_TABLE] = "table", NULL};

#define AT(member) offsetof(struct match_spec, member)
static const struct schema_key keys[] = {
    {"method.row", KEY_CHOICE, AT(row), .words = rows, .standard = "cosine",
     .help =
         "Distance of two rows of weights' gradients: 1 - cosine, or that and the length of their difference (EGM)."},
    {"method.intra", KEY_REAL, AT(intra), .least = 0, .most = KEY_UNBOUNDED, .standard = "1",
     .help = "Weight of the match class by class."},
    {"method.inter", KEY_REAL, AT(inter), .least = 0, .most = KEY_UNBOUNDED, .zero = "classes", .standard = "0",
     .help = "Weight of the match of means over all classes (DCC: 1 without intra); classes: their number (EGM)."},
    {"method.warmup", KEY_INTS, AT(warmup), .least = 0, .most = KEY_WHOLE, .items = 2, .standard = "[0, 0]",
     .help = "Iterations, and matches in each of them, that match class by class alone; DCC: [250, 10]."},
    {"method.outer", KEY_INT, AT(outer), .least = 1, .most = 1e6, .zero = "auto", .standard = "auto",
     .help = "Matches, that is outer steps, of an iteration; auto: as published for set.ipc 1, 10, 20, 30, 40, 50."},
    {"method.inner", KEY_INT, AT(inner), .least = 1, .most = 1e6, .zero = "auto", .standard = "auto",
     .help =
         "Epochs of the set that the network learns between two matches, at most where adaptive says loss; auto: as "
         "published."},
    {"method.adaptive", KEY_CHOICE, AT(adaptive), .words = adaptives, .standard = "none",
     .help =
         "EGM: learning ends with the epoch that raises the loss on real images; or the published table of epochs."},
    {"method.real_per_class", KEY_INT, AT(real_per_class), .least = 1, .most = 1e6, .standard = "256",
     .help = "Real images of a class in one match; a class that has fewer gives all."},
    {"method.augment", KEY_BOOL, AT(augment), .standard = "false",
     .help = "DSA: one differentiable Siamese augmentation a class and match; the network learns under it, too."},
    {"method.flip", KEY_BOOL, AT(flip), .standard = "true",
     .help = "Mirroring is one of its families; not for digits."},
};
static const struct key_default defaults[] = {
    {"set.init", "real"},    {"outer.optimizer", "sgd"}, {"outer.lr", "0.1"},  {"outer.momentum", "0.5"},
    {"outer.clip", "false"}, {"inner.optimizer", "sgd"}, {"inner.lr", "0.01"}, {"evaluate.protocol", "dc"},
};

struct match {
    const struct distill_problem *problem;
    const struct match_spec *spec;
    struct set *set;
    struct unroll *unroll;
    struct loops loops;
    double inter; /* its weight */
    struct matching matching;
    struct set_training training;
    struct carried carried;
    int epochs; /* of all inner training so far */
};

static int check(const struct distill_problem *problem, const char **key) {
    int status = RETORT_OK;
    const struct match_spec *spec = problem->method_spec;
    struct loops loops;
    *key = "method.intra";
    if (spec->intra == 0 && spec->inter == 0)
        RAISE(RETORT_EINVAL, "neither classes nor their means would be matched; give intra or inter a weight");
    *key = "method.inner";
    if (spec->adaptive == ADAPTIVE_TABLE && spec->inner)
        RAISE(RETORT_EINVAL, "adaptive: table says the epochs; leave inner out, or take adaptive: loss");
    if (!spec->outer) *key = "method.outer";
    TRY(loops_settle((enum adaptive)spec->adaptive, spec->outer, spec->inner, problem->set.ipc, &loops));
done:
    return status;
}

/* --- making one --- */
static void destroy(void *instance) {
    struct match *m = instance;
    if (!m) return;
    carried_finish(&m->carried);
    set_training_finish(&m->training);
    unroll_destroy(m->unroll);
    matching_finish(&m->matching);
    free(m);
}

static int create(const struct distill_problem *problem, struct set *set, void **instance) {
    int status = RETORT_OK;
    const struct network *net = problem->network;
    const struct match_spec *spec = problem->method_spec;
    const struct matching_spec matching = {.network = net,
                                           .real = spec->real_per_class,
                                           .set = set->ipc,
                                           .augment = spec->augment ? siamese_apply : NULL,
                                           .means = spec->inter != 0,
                                           .frozen = net->stats_count ? FROZEN_PER_CLASS * net->classes : 0,
                                           .distance = (enum gradient_distance)spec->row};
    struct pass_spec passes[MATCHING_PASSES + 1];
    struct unroll_spec unroll = method_unroll(problem);
    struct match *m = calloc(1, sizeof *m);
    if (!m) RAISE(RETORT_ENOMEM, "out of memory preparing gradient matching");
    *m = (struct match){.problem = problem, .spec = spec, .set = set};
    m->inter = spec->inter < 0 ? set->classes : spec->inter;
    TRY(loops_settle((enum adaptive)spec->adaptive, spec->outer, spec->inner, set->ipc, &m->loops));
    m->training = (struct set_training){.problem = problem,
                                        .set = set,
                                        .most_epochs = loops_most(&m->loops),
                                        .watch = spec->adaptive == ADAPTIVE_LOSS ? spec->real_per_class : 0,
                                        .augment = spec->augment,
                                        .flip = spec->flip};
    unroll.passes = passes;
    TRY(matching_init(&m->matching, &matching, passes, &unroll.pass_count));
    TRY(set_training_init(&m->training, &unroll, passes));
    TRY(unroll_create(problem->library, &unroll, &m->unroll));
    m->matching.unroll = m->training.unroll = m->unroll;
    TRY(carried_init(&m->carried, m->unroll, problem->outer.meta_batch, m->loops.outer > 1));
    *instance = m;
    m = NULL;
done:
    destroy(m);
    return status;
}

static const struct unroll *unroll_of(const void *instance) {
    return ((const struct match *)instance)->unroll;
}

/* --- a step --- */
static int64_t first_of(const struct match *m, int class) {
    return (int64_t) class * m->set->ipc * m->set->image_size;
}

/* The set's images of a class, under the augmentation that its real ones have. */
static struct matching_batch batch_of(struct match *m, uint32_t draw, int class) {
    const struct network *net = m->problem->network;
    struct matching *matching = &m->matching;
    if (m->spec->augment) {
        siamese_draw_class(m->problem->seed, draw, class, m->spec->flip, net->height, net->width, matching->maps,
                           matching->colours);
        matching_spread(matching);
    }
    const float *images = m->set->images + first_of(m, class);
    return (struct matching_batch){class, m->set->ipc, images, matching->maps, matching->colours};
}

static int match_classes(struct match *m, uint32_t draw, double intra, bool means, double *loss) {
    int status = RETORT_OK;
    struct random random = random_begin(m->problem->seed, RANDOM_REAL_BATCH, draw);
    if (means) TRY(matching_begin_sums(&m->matching));
    for (int class = 0; class < m->set->classes; class ++) {
        double one;
        struct matching_batch own = batch_of(m, draw, class), real = own;
        real.images = m->matching.images;
        TRY(dataset_draw_class(m->problem->train, &random, class, m->spec->real_per_class, m->matching.images,
                               &real.different));
        TRY(matching_real(&m->matching, &real));
        TRY(matching_set(&m->matching, &own));
        if (means) TRY(matching_add(&m->matching));
        if (intra == 0) continue;
        TRY(matching_compare(&m->matching, MATCHING_CLASS, 1, intra, &one));
        TRY(matching_pull(&m->matching, NULL, m->set->image_gradient + first_of(m, class)));
        *loss += one;
    }
done:
    return status;
}

static int match_means(struct match *m, uint32_t draw, double weight, double *loss) {
    int status = RETORT_OK;
    double one;
    TRY(matching_compare(&m->matching, MATCHING_SUMS, 1.0 / m->set->classes, weight, &one));
    for (int class = 0; class < m->set->classes; class ++) {
        struct matching_batch own = batch_of(m, draw, class);
        TRY(matching_show(&m->matching, &own));
        TRY(matching_pull(&m->matching, NULL, m->set->image_gradient + first_of(m, class)));
    }
    *loss += one;
done:
    return status;
}

static int match_all(struct match *m, uint32_t draw, double intra, double inter, double *loss) {
    int status = RETORT_OK;
    struct set *set = m->set;
    struct random frozen = random_begin(m->problem->seed, RANDOM_FROZEN_BATCH, draw);
    TRY(matching_freeze(&m->matching, m->problem->train, &frozen));
    memset(set->image_gradient, 0, (size_t)(set->count * set->image_size) * sizeof *set->image_gradient);
    TRY(match_classes(m, draw, intra, inter != 0, loss));
    if (inter != 0) TRY(match_means(m, draw, inter, loss));
done:
    return status;
}

static int take_step(void *instance, struct turn turn, struct metrics *metrics) {
    int status = RETORT_OK;
    struct match *m = instance;
    const struct match_spec *spec = m->spec;
    int iteration = (turn.step - 1) / m->loops.outer, match = (turn.step - 1) % m->loops.outer, epochs = 0;
    const uint64_t seed = distill_seed(m->problem->seed, RANDOM_WEIGHTS, turn.draw);
    bool warms_up = iteration < spec->warmup[0] && match < spec->warmup[1];
    double loss = 0;
    if (match) {
        TRY(carried_take(&m->carried, turn.trajectory));
        TRY(set_training_run(&m->training, turn.draw, loops_epochs(&m->loops, match), &epochs));
    } else {
        TRY(unroll_begin(m->unroll, &seed));
    }
    TRY(match_all(m, turn.draw, warms_up ? 1 : spec->intra, warms_up ? 0 : m->inter, &loss));
    TRY(carried_leave(&m->carried, turn.trajectory));
    metric_real(metrics, "loss", loss);
    metric_whole(metrics, "inner_epochs", epochs);
done:
    return status;
}

static int match_once(void *instance) {
    const struct match *m = instance;
    double loss = 0;
    return match_all(instance, 1, m->spec->intra, m->inter, &loss);
}

static int learn_once(void *instance) {
    int epochs;
    return set_training_run(&((struct match *)instance)->training, 1, 1, &epochs);
}

static int forecast(void *instance, double enough, double *seconds) {
    int status = RETORT_OK;
    struct match *m = instance;
    double match, epoch = 0;
    TRY(unroll_begin(m->unroll, &(uint64_t){1}));
    TRY(method_time(match_once, m, enough / 2, &match));
    if (m->loops.outer > 1) TRY(method_time(learn_once, m, enough / 2, &epoch));
    *seconds = match + loops_mean(&m->loops) * epoch;
done:
    return status;
}

static double *left(void *instance, int64_t *count) {
    return carried_left(&((struct match *)instance)->carried, count);
}

static void advance(void *instance, const struct metrics *metrics) {
    struct match *m = instance;
    carried_advance(&m->carried);
    m->epochs += (int)(metric_number(metrics, "inner_epochs") * m->problem->outer.meta_batch + 0.5);
}

static void state(void *instance, struct state *state) {
    struct match *m = instance;
    state_whole(state, &m->epochs);
    carried_state(&m->carried, state);
}

static void results(const void *instance, struct metrics *results) {
    metric_whole(results, "inner_epochs", ((const struct match *)instance)->epochs);
}

const struct method method_match = {
    .name = "match",
    .summary = "Gradients on real and on synthetic images, made alike: DC, DSA, DCC, EGM.",
    .keys = keys,
    .key_count = sizeof keys / sizeof *keys,
    .spec_size = sizeof(struct match_spec),
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
    .results = results,
};
