#include "distill/matching.h"

#include "base/augmentation.h"
#include "base/error.h"
#include "transform/transform.h"

#include <string.h>

/* The passes in their order. Behind them come, where the spec asks for them, the sums of gradients, then the statistics
 * of batch norm. */
enum { REAL, SET, COMPARE, PULL, ALWAYS, SUMS = ALWAYS };
/* Values of REAL, SET and PULL, in the order of their tables: those that a network does not have are left out, so that
 * their places are looked up by `at`. */
enum value { THETA, IMAGES, TARGETS, MAPS, COLOURS, STATS, GRADIENT, ALONG, RESULT, VALUES };
_Static_assert((int)VALUES == (int)MATCHING_VALUES, "room for the values of a pass");
/* Those of COMPARE, of the sums, and of the statistics. */
enum { COMPARED_G, COMPARED_H, FACTORS, A, LOSS, COMPARED };
enum { ADDED_G, ADDED_H, SUM_G, SUM_H, ADDED };
enum { FROZEN_THETA, FROZEN_IMAGES, STATS_BEFORE, NEW_STATS, FROZEN };

static const struct pass_value all_values[VALUES] = {
    [THETA] = {"theta", PASS_THETA},
    [IMAGES] = {"images", PASS_UPLOAD, true},
    [TARGETS] = {"targets", PASS_UPLOAD, true},
    [MAPS] = {"maps", PASS_UPLOAD, true},
    [COLOURS] = {"colours", PASS_UPLOAD, true},
    [STATS] = {"stats", PASS_BOUND},
    [GRADIENT] = {"gradient", PASS_SUM},
    [ALONG] = {"along", PASS_BOUND},
    [RESULT] = {"result", PASS_RESULT, true},
};

static bool has(const struct matching_spec *spec, int pass, enum value value) {
    switch (value) {
    case MAPS:
    case COLOURS:
        return spec->augment;
    case STATS:
        return spec->frozen > 0;
    case GRADIENT:
        return pass != PULL;
    case ALONG:
    case RESULT:
        return pass == PULL;
    default:
        return true;
    }
}

/* The place of a value in a pass's table; past its end for VALUES. */
static int at(const struct matching_spec *spec, int pass, enum value value) {
    int place = 0;
    for (int i = 0; i < (int)value; i++) place += has(spec, pass, (enum value)i);
    return place;
}

static int freeze_pass(const struct matching_spec *spec) {
    return ALWAYS + spec->means;
}

/* --- graphs --- */
static struct graph *finish(struct graph *graph, int status) {
    if (status >= 0) status = graph_status(graph);
    if (status >= 0) return graph;
    graph_destroy(graph);
    return NULL;
}

static struct graph *build_images(const struct matching_spec *spec, int64_t count, bool pull) {
    const struct network *net = spec->network;
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    struct node *theta = graph_input(graph, "theta", FLOAT32, SHAPE(net->theta_count)), *gradient = NULL;
    struct node *given = graph_input(graph, "images", FLOAT32, SHAPE(count, net->channels, net->height, net->width));
    struct node *targets = graph_input(graph, "targets", FLOAT32, SHAPE(count, net->classes)), *images = given;
    if (spec->augment)
        images = spec->augment(graph, given, graph_input(graph, "maps", FLOAT32, SHAPE(count, 2, 3)),
                               graph_input(graph, "colours", FLOAT32, SHAPE(count, COLOUR_SIZE)));
    struct network_pass pass = {.theta = theta, .images = images};
    if (spec->frozen) pass.stats_in = graph_input(graph, "stats", FLOAT32, SHAPE(net->stats_count));
    struct node *loss = loss_soft(graph, network_logits(graph, net, &pass, NULL, NULL), targets);
    int status = transform_vjp(loss, NULL, pull ? &given : &theta, 1, &gradient);
    if (status >= 0 && pull) {
        struct node *along = graph_input(graph, "along", FLOAT32, SHAPE(net->theta_count)), *tangent = NULL;
        status = transform_jvp(&gradient, 1, &theta, &along, 1, &tangent);
        if (status >= 0) graph_output(graph, "result", tangent);
    } else if (status >= 0) {
        struct node *before = graph_input(graph, "gradient", FLOAT32, SHAPE(net->theta_count));
        graph_output(graph, "out gradient", node_add(before, gradient));
    }
    return finish(graph, status);
}

static struct graph *build_gradient(const void *context, int64_t count) {
    return build_images(context, count, false);
}

static struct graph *build_pull(const void *context, int64_t count) {
    return build_images(context, count, true);
}

static struct node *factor(struct node *factors, int i, struct shape shape) {
    return node_broadcast_scalar(node_slice(factors, (int64_t[]){i}, (int64_t[]){1}, SHAPE(1)), shape);
}

static struct graph *build_compare(const void *context, int64_t count) {
    const struct matching_spec *spec = context;
    struct shape vector = SHAPE(spec->network->theta_count);
    struct graph *graph;
    (void)count;
    if (graph_create(&graph) < 0) return NULL;
    struct node *g = graph_input(graph, "g", FLOAT32, vector), *h = graph_input(graph, "h", FLOAT32, vector);
    struct node *factors = graph_input(graph, "factors", FLOAT32, SHAPE(2)), *a = NULL;
    struct node *scale = factor(factors, 0, vector);
    struct node *loss =
        gradient_distance(spec->distance, spec->network, node_multiply(g, scale), node_multiply(h, scale));
    if (loss) loss = node_multiply(loss, factor(factors, 1, loss->shape));
    int status = loss ? transform_vjp(loss, NULL, &h, 1, &a) : graph_status(graph);
    if (status >= 0) {
        graph_output(graph, "a", a);
        graph_output(graph, "loss", loss);
    }
    return finish(graph, status);
}

static struct graph *build_add(const void *context, int64_t count) {
    const struct matching_spec *spec = context;
    static const char *const names[][3] = {{"g", "sum g", "out sum g"}, {"h", "sum h", "out sum h"}};
    struct shape vector = SHAPE(spec->network->theta_count);
    struct graph *graph;
    (void)count;
    if (graph_create(&graph) < 0) return NULL;
    for (int i = 0; i < 2; i++)
        graph_output(graph, names[i][2],
                     node_add(graph_input(graph, names[i][0], FLOAT32, vector),
                              graph_input(graph, names[i][1], FLOAT32, vector)));
    return finish(graph, RETORT_OK);
}

static struct graph *build_freeze(const void *context, int64_t count) {
    const struct matching_spec *spec = context;
    const struct network *net = spec->network;
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    struct node *stats = graph_input(graph, "stats", FLOAT32, SHAPE(net->stats_count)), *new_stats = NULL;
    struct network_pass pass = {
        .theta = graph_input(graph, "theta", FLOAT32, SHAPE(net->theta_count)),
        .images = graph_input(graph, "images", FLOAT32, SHAPE(count, net->channels, net->height, net->width))};
    (void)network_logits(graph, net, &pass, stats, &new_stats);
    graph_output(graph, "new stats", new_stats);
    return finish(graph, RETORT_OK);
}

/* --- passes --- */
static struct pass_spec image_pass(struct matching *m, int pass) {
    static const char *const labels[] = {
        [REAL] = "gradient on real images", [SET] = "gradient on the set", [PULL] = "set's gradient"};
    const struct matching_spec *spec = &m->spec;
    for (int i = 0; i < VALUES; i++) {
        if (!has(spec, pass, (enum value)i)) continue;
        struct pass_value *value = &m->values[pass][at(spec, pass, (enum value)i)];
        *value = all_values[i];
        /* What the set's gradient is taken by lies there already. */
        if (pass == PULL && value->source == PASS_UPLOAD) value->source = PASS_BOUND;
    }
    return (struct pass_spec){.label = labels[pass],
                              .build = pass == PULL ? build_pull : build_gradient,
                              .context = spec,
                              .batch = pass == REAL ? spec->real : spec->set,
                              .values = m->values[pass],
                              .value_count = at(spec, pass, VALUES)};
}

static int64_t larger(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int allocate(struct matching *m) {
    const struct network *net = m->spec.network;
    const size_t size = (size_t)net->channels * (size_t)net->height * (size_t)net->width;
    arena_init(&m->arena);
    m->rows = larger(m->spec.real, m->spec.set);
    m->images = arena_array(&m->arena, (size_t)larger(m->rows, m->spec.frozen) * size, sizeof *m->images);
    m->maps = arena_array(&m->arena, (size_t)m->rows, MAP_SIZE * sizeof *m->maps);
    m->colours = arena_array(&m->arena, (size_t)m->rows, COLOUR_SIZE * sizeof *m->colours);
    m->labels = arena_array(&m->arena, (size_t)m->rows, sizeof *m->labels);
    m->gradient = arena_array(&m->arena, (size_t)m->spec.set * size, sizeof *m->gradient);
    return m->arena.failed ? error_set(RETORT_ENOMEM, "out of memory for batches of %lld images", (long long)m->rows)
                           : RETORT_OK;
}

void matching_finish(struct matching *m) {
    if (!m) return;
    arena_finish(&m->arena);
    *m = (struct matching){0};
}

void matching_spread(struct matching *m) {
    for (int64_t i = 1; i < m->rows; i++) {
        memcpy(m->maps + i * MAP_SIZE, m->maps, MAP_SIZE * sizeof *m->maps);
        memcpy(m->colours + i * COLOUR_SIZE, m->colours, COLOUR_SIZE * sizeof *m->colours);
    }
}

int matching_init(struct matching *m, const struct matching_spec *given, struct pass_spec passes[MATCHING_PASSES],
                  int *pass_count) {
    static const struct pass_value compared[COMPARED] = {[COMPARED_G] = {"g", PASS_BOUND},
                                                         [COMPARED_H] = {"h", PASS_BOUND},
                                                         [FACTORS] = {"factors", PASS_UPLOAD},
                                                         [A] = {"a", PASS_RESULT},
                                                         [LOSS] = {"loss", PASS_RESULT}};
    static const struct pass_value added[ADDED] = {[ADDED_G] = {"g", PASS_BOUND},
                                                   [ADDED_H] = {"h", PASS_BOUND},
                                                   [SUM_G] = {"sum g", PASS_SUM},
                                                   [SUM_H] = {"sum h", PASS_SUM}};
    static const struct pass_value frozen[FROZEN] = {[FROZEN_THETA] = {"theta", PASS_THETA},
                                                     [FROZEN_IMAGES] = {"images", PASS_UPLOAD, true},
                                                     [STATS_BEFORE] = {"stats", PASS_STATS},
                                                     [NEW_STATS] = {"new stats", PASS_RESULT}};
    int count = ALWAYS;
    const struct matching_spec *spec = &m->spec;
    *m = (struct matching){.spec = *given};
    passes[REAL] = image_pass(m, REAL);
    passes[SET] = image_pass(m, SET);
    passes[COMPARE] = (struct pass_spec){"comparison of gradients", build_compare, spec, 1, compared, COMPARED};
    passes[PULL] = image_pass(m, PULL);
    if (spec->means) passes[count++] = (struct pass_spec){"sums of gradients", build_add, spec, 1, added, ADDED};
    if (spec->frozen)
        passes[count++] =
            (struct pass_spec){"statistics of batch norm", build_freeze, spec, spec->frozen, frozen, FROZEN};
    *pass_count = count;
    return allocate(m);
}

static struct pass *pass_of(const struct matching *m, int pass) {
    return unroll_pass(m->unroll, pass);
}

static struct place value_of(const struct matching *m, int pass, enum value value) {
    return pass_result(pass_of(m, pass), at(&m->spec, pass, value));
}

/* --- a class --- */
static int upload(struct matching *m, int pass, const struct matching_batch *batch) {
    int status = RETORT_OK;
    const struct matching_spec *spec = &m->spec;
    struct pass *p = pass_of(m, pass);
    TRY(pass_upload(p, at(spec, pass, IMAGES), batch->images));
    for (int64_t i = 0; i < batch->different; i++) m->labels[i] = batch->label;
    TRY(pass_upload_targets(p, at(spec, pass, TARGETS), m->labels, batch->different, spec->network->classes));
    if (spec->augment) {
        TRY(pass_upload(p, at(spec, pass, MAPS), batch->maps));
        TRY(pass_upload(p, at(spec, pass, COLOURS), batch->colours));
    }
done:
    return status;
}

static int bind_stats(struct matching *m, int pass) {
    if (!m->spec.frozen) return RETORT_OK;
    return pass_bind(pass_of(m, pass), at(&m->spec, pass, STATS),
                     pass_result(pass_of(m, freeze_pass(&m->spec)), NEW_STATS));
}

static int run_gradient(struct matching *m, int pass, const struct matching_batch *batch) {
    int status = RETORT_OK;
    TRY(pass_begin(pass_of(m, pass)));
    TRY(upload(m, pass, batch));
    TRY(bind_stats(m, pass));
    TRY(pass_run(pass_of(m, pass)));
done:
    return status;
}

int matching_freeze(struct matching *m, const struct dataset *train, struct random *random) {
    int status = RETORT_OK;
    const struct network *net = m->spec.network;
    const int64_t each = m->spec.frozen / net->classes, size = (int64_t)net->channels * net->height * net->width;
    int64_t different;
    if (!m->spec.frozen) goto done;
    for (int class = 0; class < net->classes; class ++)
        TRY(dataset_draw_class(train, random, class, each, m->images + class * each * size, &different));
    struct pass *pass = pass_of(m, freeze_pass(&m->spec));
    TRY(pass_upload(pass, FROZEN_IMAGES, m->images));
    TRY(pass_run(pass));
    TRY(unroll_take_stats(m->unroll, pass_result(pass, NEW_STATS)));
done:
    return status;
}

int matching_real(struct matching *m, const struct matching_batch *batch) {
    return run_gradient(m, REAL, batch);
}

int matching_set(struct matching *m, const struct matching_batch *batch) {
    return run_gradient(m, SET, batch);
}

int matching_show(struct matching *m, const struct matching_batch *batch) {
    return upload(m, SET, batch);
}

int matching_begin_sums(struct matching *m) {
    return pass_begin(pass_of(m, SUMS));
}

int matching_add(struct matching *m) {
    int status = RETORT_OK;
    struct pass *add = pass_of(m, SUMS);
    TRY(pass_bind(add, ADDED_G, value_of(m, REAL, GRADIENT)));
    TRY(pass_bind(add, ADDED_H, value_of(m, SET, GRADIENT)));
    TRY(pass_run(add));
done:
    return status;
}

int matching_compare(struct matching *m, enum matching_of of, double scale, double weight, double *loss) {
    int status = RETORT_OK;
    struct pass *compare = pass_of(m, COMPARE), *add = of == MATCHING_SUMS ? pass_of(m, SUMS) : NULL;
    const float factors[] = {(float)scale, (float)weight};
    float got;
    TRY(pass_bind(compare, COMPARED_G, add ? pass_result(add, SUM_G) : value_of(m, REAL, GRADIENT)));
    TRY(pass_bind(compare, COMPARED_H, add ? pass_result(add, SUM_H) : value_of(m, SET, GRADIENT)));
    TRY(pass_upload(compare, FACTORS, factors));
    TRY(pass_run(compare));
    TRY(pass_read(compare, LOSS, &got));
    *loss = got;
done:
    return status;
}

int matching_pull(struct matching *m, const uint32_t *rows, float *gradient) {
    int status = RETORT_OK;
    const struct matching_spec *spec = &m->spec;
    const struct network *net = spec->network;
    const int64_t size = (int64_t)net->channels * net->height * net->width;
    struct pass *pull = pass_of(m, PULL);
    for (int value = IMAGES; value <= COLOURS; value++)
        if (has(spec, PULL, (enum value)value))
            TRY(pass_bind(pull, at(spec, PULL, (enum value)value), value_of(m, SET, (enum value)value)));
    TRY(bind_stats(m, PULL));
    TRY(pass_bind(pull, at(spec, PULL, ALONG), pass_result(pass_of(m, COMPARE), A)));
    TRY(pass_run(pull));
    TRY(pass_read(pull, at(spec, PULL, RESULT), m->gradient));
    for (int64_t i = 0; i < spec->set; i++) {
        float *row = gradient + (rows ? (int64_t)rows[i] : i) * size;
        for (int64_t k = 0; k < size; k++) row[k] += m->gradient[i * size + k];
    }
done:
    return status;
}
