#include "distill/set_training.h"

#include "base/error.h"
#include "data/data.h"

enum { MOST_BATCH = 256 };
enum { THETA, IMAGES, TARGETS, LOSS, VALUES };

static struct graph *build_loss(const void *context, int64_t count) {
    const struct network *net = ((const struct set_training *)context)->problem->network;
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    struct network_pass pass = {
        .theta = graph_input(graph, "theta", FLOAT32, SHAPE(net->theta_count)),
        .images = graph_input(graph, "images", FLOAT32, SHAPE(count, net->channels, net->height, net->width))};
    struct node *targets = graph_input(graph, "targets", FLOAT32, SHAPE(count, net->classes));
    struct node *loss = loss_soft(graph, network_logits(graph, net, &pass, NULL, NULL), targets);
    graph_output(graph, "out loss", node_add(loss, graph_input(graph, "loss", FLOAT32, SCALAR_SHAPE)));
    if (graph_status(graph) >= 0) return graph;
    graph_destroy(graph);
    return NULL;
}

static int allocate(struct set_training *t) {
    size_t steps = (size_t)t->most_epochs * (size_t)t->epoch_steps, rows = steps * (size_t)t->batch;
    size_t size = (size_t)t->set->image_size, watched = (size_t)t->watch;
    t->rows = arena_array(&t->arena, rows, sizeof *t->rows);
    t->order = arena_array(&t->arena, (size_t)t->set->count, sizeof *t->order);
    t->maps = arena_array(&t->arena, t->augment ? rows : 0, MAP_SIZE * sizeof *t->maps);
    t->colours = arena_array(&t->arena, t->augment ? rows : 0, COLOUR_SIZE * sizeof *t->colours);
    t->images = arena_array(&t->arena, watched * size, sizeof *t->images);
    t->labels = arena_array(&t->arena, watched, sizeof *t->labels);
    return t->arena.failed ? error_set(RETORT_ENOMEM, "out of memory for %zu steps of training", steps) : RETORT_OK;
}

int set_training_init(struct set_training *t, struct unroll_spec *spec, struct pass_spec *passes) {
    arena_init(&t->arena);
    if (!t->most_epochs) return RETORT_OK;
    epoch_divide(t->set->count, MOST_BATCH, &t->epoch_steps, &t->batch);
    spec->set_count = t->set->count;
    spec->batch = t->batch;
    spec->augment = spec->colour = t->augment;
    spec->steps = (int)(t->most_epochs * t->epoch_steps);
    if (t->watch > t->problem->train->count) t->watch = t->problem->train->count;
    if (t->watch) {
        t->values[THETA] = (struct pass_value){"theta", PASS_THETA};
        t->values[IMAGES] = (struct pass_value){"images", PASS_UPLOAD, true};
        t->values[TARGETS] = (struct pass_value){"targets", PASS_UPLOAD, true};
        t->values[LOSS] = (struct pass_value){"loss", PASS_SUM};
        t->watch_pass = spec->pass_count;
        passes[spec->pass_count++] =
            (struct pass_spec){"loss on real images", build_loss, t, t->watch, t->values, VALUES};
    }
    return allocate(t);
}

void set_training_finish(struct set_training *t) {
    if (!t) return;
    arena_finish(&t->arena);
    *t = (struct set_training){0};
}

/* --- one run --- */
static void draw_steps(struct set_training *t, uint32_t draw, int epochs) {
    const struct network *net = t->problem->network;
    struct random rows = random_begin(t->problem->seed, RANDOM_INNER_BATCH, draw);
    struct random augments = random_begin(t->problem->seed, RANDOM_AUGMENT_INNER, draw);
    int64_t n = t->set->count, at = 0;
    for (int epoch = 0; epoch < epochs; epoch++) {
        random_choose(&rows, (uint32_t)n, (uint32_t)n, t->order);
        for (int64_t step = 0; step < t->epoch_steps; step++, at += t->batch) {
            epoch_rows(t->order, n, step, t->batch, t->rows + at);
            if (t->augment)
                siamese_draw(&augments, t->flip, net->height, net->width, t->batch, t->maps + at * MAP_SIZE,
                             t->colours + at * COLOUR_SIZE);
        }
    }
}

static int show_real(struct set_training *t, uint32_t draw) {
    int status = RETORT_OK;
    struct pass *pass = unroll_pass(t->unroll, t->watch_pass);
    struct random random = random_begin(t->problem->seed, RANDOM_WATCHED_BATCH, draw);
    TRY(dataset_draw(t->problem->train, &random, t->watch, t->images, t->labels));
    TRY(pass_upload(pass, IMAGES, t->images));
    TRY(pass_upload_targets(pass, TARGETS, t->labels, t->watch, t->set->classes));
done:
    return status;
}

static int real_loss(struct set_training *t, float *loss) {
    int status = RETORT_OK;
    struct pass *pass = unroll_pass(t->unroll, t->watch_pass);
    TRY(pass_begin(pass));
    TRY(pass_run(pass));
    TRY(pass_read(pass, LOSS, loss));
done:
    return status;
}

int set_training_run(struct set_training *t, uint32_t draw, int epochs, int *taken) {
    int status = RETORT_OK;
    float before = 0, now = 0;
    int epoch = 0;
    draw_steps(t, draw, epochs);
    TRY(unroll_set(t->unroll, 0, t->set->images, NULL, t->set->hard_labels));
    TRY(unroll_upload_steps(t->unroll, &(struct unroll_steps){.first = 1,
                                                              .count = (int)(epochs * t->epoch_steps),
                                                              .rows = t->rows,
                                                              .maps = t->maps,
                                                              .colour = t->colours}));
    if (t->watch) {
        TRY(show_real(t, draw));
        TRY(real_loss(t, &before));
    }
    for (bool rises = false; epoch < epochs && !rises; epoch++) {
        TRY(unroll_train(t->unroll, (int)(epoch * t->epoch_steps), (int)t->epoch_steps, false));
        if (!t->watch) continue;
        TRY(real_loss(t, &now));
        rises = now > before;
        before = now;
    }
    *taken = epoch;
done:
    return status;
}
