/* Distribution matching (Zhao and Bilen, "Dataset condensation with distribution matching", WACV 2023): with fresh
 * weights in each outer step, never trained,
 *
 *     L = sum over classes c of | mean over real x of phi(A_c x)  -  mean over the set's s of phi(A_c s) |^2
 *
 * phi is the network without its head, A_c one differentiable Siamese augmentation of all images of the class. Three
 * passes make a step: the mean features of real images [K,F]; those of the set; and, d being twice their difference,
 * the derivative by s of the sum over rows i of share_i <d_class(i), phi(A s_i)>. A mean is a sum of rows with a share
 * each, so batches may be in parts. Batch norm looks at a whole batch: it sees all classes in one, as published. */
#include "data/data.h"
#include "distill/method.h"

#include "base/error.h"
#include "transform/transform.h"
#include "unroll/unroll.h"

#include <stdlib.h>
#include <string.h>

struct dm_spec {
    int real_per_class;
    bool augment, flip;
};

#define AT(member) offsetof(struct dm_spec, member)
static const struct schema_key keys[] = {
    {"method.real_per_class", KEY_INT, AT(real_per_class), .least = 1, .most = 1e6, .standard = "256",
     .help = "Real images of a class in one outer step; a class that has fewer gives all."},
    {"method.augment", KEY_BOOL, AT(augment), .standard = "true",
     .help = "One differentiable Siamese augmentation a class and step, of real and synthetic images alike."},
    {"method.flip", KEY_BOOL, AT(flip), .standard = "true",
     .help = "Mirroring is one of its families; not for digits."},
};
static const struct key_default defaults[] = {
    {"set.init", "real"},      {"outer.optimizer", "sgd"}, {"outer.lr", "1"},
    {"outer.momentum", "0.5"}, {"outer.clip", "false"},    {"evaluate.protocol", "dc"},
};

/* The passes, and the values of each, in the order of pass_spec's tables; those from REAL_MEANS on are BACK's alone. */
enum { REAL, SET, BACK, PASSES };
enum { THETA, IMAGES, SHARES, MAPS, COLOURS, RESULT, REAL_MEANS, SET_MEANS, LOSS, VALUES };

struct dm {
    const struct distill_problem *problem;
    const struct dm_spec *spec;
    struct set *set;
    struct unroll *unroll;
    struct dm_pass {
        const struct dm *dm;
        int pass;
    } passes[PASSES];
    int real_classes;                        /* of a batch of real images: one, or all under batch norm */
    float *images, *shares, *maps, *colours; /* of the rows of a batch */
    struct arena arena;
};

/* --- graphs --- */
static struct graph *build(const void *context, int64_t count) {
    const struct dm_pass *pass = context;
    const struct network *net = pass->dm->problem->network;
    struct shape means = SHAPE(net->classes, net->features),
                 size = SHAPE(count, net->channels, net->height, net->width);
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    struct node *theta = graph_input(graph, "theta", FLOAT32, SHAPE(net->theta_count)), *gradient = NULL;
    struct node *given = graph_input(graph, "images", FLOAT32, size);
    struct node *shares = graph_input(graph, "shares", FLOAT32, SHAPE(count, net->classes));
    struct node *images = siamese_apply(graph, given, graph_input(graph, "maps", FLOAT32, SHAPE(count, 2, 3)),
                                        graph_input(graph, "colours", FLOAT32, SHAPE(count, COLOUR_SIZE)));
    struct node *features = network_features(graph, net, &(struct network_pass){.theta = theta, .images = images});
    int status = RETORT_OK;
    if (pass->pass == BACK) {
        struct node *difference =
            node_subtract(graph_input(graph, "set", FLOAT32, means), graph_input(graph, "real", FLOAT32, means));
        struct node *pull = node_matmul(shares, node_scale(difference, 2), false, false);
        status = transform_vjp(features, pull, &given, 1, &gradient);
        if (status >= 0) graph_output(graph, "result", gradient);
        graph_output(graph, "loss", node_sum_all(node_square(difference)));
    } else {
        struct node *before = graph_input(graph, "result", FLOAT32, means);
        graph_output(graph, "out result", node_add(node_matmul(shares, features, true, false), before));
    }
    if (status >= 0) status = graph_status(graph);
    if (status >= 0) return graph;
    graph_destroy(graph);
    return NULL;
}

static struct pass_spec pass_spec(struct dm *m, int pass) {
    static const char *const labels[PASSES] = {"features of real images", "features of the set", "set's gradient"};
    static const struct pass_value forward[] = {
        {"theta", PASS_THETA},       {"images", PASS_UPLOAD, true},  {"shares", PASS_UPLOAD, true},
        {"maps", PASS_UPLOAD, true}, {"colours", PASS_UPLOAD, true}, {"result", PASS_SUM},
    };
    static const struct pass_value back[] = {
        {"theta", PASS_THETA},      {"images", PASS_BOUND, true},  {"shares", PASS_BOUND, true},
        {"maps", PASS_BOUND, true}, {"colours", PASS_BOUND, true}, {"result", PASS_RESULT, true},
        {"real", PASS_BOUND},       {"set", PASS_BOUND},           {"loss", PASS_RESULT},
    };
    m->passes[pass] = (struct dm_pass){m, pass};
    int64_t batch = pass == REAL ? (int64_t)m->real_classes * m->spec->real_per_class : m->set->count;
    return pass == BACK ? (struct pass_spec){labels[pass], build, &m->passes[pass], batch, back, VALUES}
                        : (struct pass_spec){labels[pass], build, &m->passes[pass], batch, forward, REAL_MEANS};
}

/* --- making one --- */
static void destroy(void *instance) {
    struct dm *m = instance;
    if (!m) return;
    unroll_destroy(m->unroll);
    arena_finish(&m->arena);
    free(m);
}

static int create(const struct distill_problem *problem, struct set *set, void **instance) {
    int status = RETORT_OK;
    const struct network *net = problem->network;
    struct dm *m = calloc(1, sizeof *m);
    if (!m) RAISE(RETORT_ENOMEM, "out of memory preparing distribution matching");
    *m = (struct dm){.problem = problem, .spec = problem->method_spec, .set = set};
    arena_init(&m->arena);
    m->real_classes = net->stats_count ? net->classes : 1;
    size_t real = (size_t)m->real_classes * (size_t)m->spec->real_per_class, n = (size_t)set->count;
    size_t rows = real > n ? real : n;
    m->images = arena_array(&m->arena, real * (size_t)set->image_size, sizeof(float));
    m->shares = arena_array(&m->arena, rows * (size_t)net->classes, sizeof(float));
    m->maps = arena_array(&m->arena, rows * MAP_SIZE, sizeof(float));
    m->colours = arena_array(&m->arena, rows * COLOUR_SIZE, sizeof(float));
    if (m->arena.failed) RAISE(RETORT_ENOMEM, "out of memory for batches of %zu images", rows);
    const struct pass_spec passes[PASSES] = {pass_spec(m, REAL), pass_spec(m, SET), pass_spec(m, BACK)};
    const struct unroll_spec spec = {.network = net,
                                     .passes = passes,
                                     .pass_count = PASSES,
                                     .frozen = problem->frozen,
                                     .plan_only = problem->plan_only,
                                     .interrupt = problem->interrupt};
    TRY(unroll_create(problem->library, &spec, &m->unroll));
    *instance = m;
    m = NULL;
done:
    destroy(m);
    return status;
}

static const struct unroll *unroll_of(const void *instance) {
    return ((const struct dm *)instance)->unroll;
}

/* --- a step --- */
/* Rows first .. first + count - 1 of a batch are images of the class, `different` of them, the others repetitions that
 * have no share in the mean. */
static void fill_rows(struct dm *m, uint32_t draw, int class, int64_t first, int64_t count, int64_t different) {
    const struct network *net = m->problem->network;
    float map[MAP_SIZE] = {1, 0, 0, 0, 1, 0}, colour[COLOUR_SIZE] = {[COLOUR_SATURATION] = 1, [COLOUR_CONTRAST] = 1};
    if (m->spec->augment)
        siamese_draw_class(m->problem->seed, draw, class, m->spec->flip, net->height, net->width, map, colour);
    for (int64_t i = first; i < first + count; i++) {
        for (int k = 0; k < net->classes; k++)
            m->shares[i * net->classes + k] = k == class && i - first < different ? 1 / (float)different : 0;
        memcpy(m->maps + i * MAP_SIZE, map, sizeof map);
        memcpy(m->colours + i * COLOUR_SIZE, colour, sizeof colour);
    }
}

static int upload(struct dm *m, struct pass *pass, const float *images) {
    const void *data[] = {[IMAGES] = images, [SHARES] = m->shares, [MAPS] = m->maps, [COLOURS] = m->colours};
    int status = RETORT_OK;
    for (int value = IMAGES; value <= COLOURS; value++) TRY(pass_upload(pass, value, data[value]));
done:
    return status;
}

/* The mean features of real images: class by class, or all in one batch. */
static int run_real(struct dm *m, struct pass *pass, uint32_t draw) {
    int status = RETORT_OK;
    const struct dataset *train = m->problem->train;
    int64_t per_class = m->spec->real_per_class, different;
    struct random random = random_begin(m->problem->seed, RANDOM_REAL_BATCH, draw);
    TRY(pass_begin(pass));
    for (int class = 0; class < train->classes; class ++) {
        int64_t first = class % m->real_classes * per_class;
        TRY(dataset_draw_class(train, &random, class, per_class, m->images + first * m->set->image_size, &different));
        fill_rows(m, draw, class, first, per_class, different);
        if ((class + 1) % m->real_classes) continue;
        TRY(upload(m, pass, m->images));
        TRY(pass_run(pass));
    }
done:
    return status;
}

static int take_step(void *instance, struct turn turn, struct metrics *metrics) {
    int status = RETORT_OK;
    struct dm *m = instance;
    struct set *set = m->set;
    struct pass *real = unroll_pass(m->unroll, REAL), *features = unroll_pass(m->unroll, SET);
    struct pass *back = unroll_pass(m->unroll, BACK);
    float loss;
    const uint64_t seed = distill_seed(m->problem->seed, RANDOM_WEIGHTS, turn.draw);
    TRY(unroll_begin(m->unroll, &seed));
    TRY(run_real(m, real, turn.draw));
    for (int class = 0; class < set->classes; class ++)
        fill_rows(m, turn.draw, class, (int64_t) class * set->ipc, set->ipc, set->ipc);
    TRY(upload(m, features, set->images));
    TRY(pass_begin(features));
    TRY(pass_run(features));
    for (int value = IMAGES; value <= COLOURS; value++) TRY(pass_bind(back, value, pass_result(features, value)));
    TRY(pass_bind(back, REAL_MEANS, pass_result(real, RESULT)));
    TRY(pass_bind(back, SET_MEANS, pass_result(features, RESULT)));
    TRY(pass_run(back));
    TRY(pass_read(back, RESULT, set->image_gradient));
    TRY(pass_read(back, LOSS, &loss));
    metric_real(metrics, "loss", loss);
done:
    return status;
}

const struct method method_dm = {
    .name = "dm",
    .summary = "Distribution matching: the mean features of real and synthetic images under random networks.",
    .keys = keys,
    .key_count = sizeof keys / sizeof *keys,
    .spec_size = sizeof(struct dm_spec),
    .defaults = defaults,
    .default_count = sizeof defaults / sizeof *defaults,
    .remedy = "lower outer.lr",
    .create = create,
    .unroll = unroll_of,
    .destroy = destroy,
    .step = take_step,
};
