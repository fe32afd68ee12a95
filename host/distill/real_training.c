#include "distill/real_training.h"

#include "base/error.h"
#include "base/log.h"
#include "data/data.h"
#include "distill/method.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = REAL_TRAINING_BATCH };

static size_t chunk_rows(const struct real_training *t) {
    return (size_t)t->steps * BATCH;
}

int real_training_init(struct real_training *t) {
    const struct network *net = t->problem->network;
    const size_t rows = chunk_rows(t), size = (size_t)net->channels * (size_t)net->height * (size_t)net->width;
    arena_init(&t->arena);
    t->images = arena_array(&t->arena, rows * size, sizeof(float));
    t->labels = arena_array(&t->arena, rows * (size_t)net->classes, sizeof(float));
    t->maps = arena_array(&t->arena, rows, MAP_SIZE * sizeof(float));
    t->colours = arena_array(&t->arena, rows, COLOUR_SIZE * sizeof(float));
    t->hard = arena_array(&t->arena, rows, sizeof(int32_t));
    t->rows = arena_array(&t->arena, rows, sizeof(int32_t));
    if (t->networks) {
        t->order = arena_array(&t->arena, (size_t)t->problem->train->count, sizeof(uint32_t));
        t->early = arena_array(&t->arena, (size_t)t->networks * (size_t)net->theta_count, sizeof(float));
    }
    return t->arena.failed ? error_set(RETORT_ENOMEM, "out of memory for %zu real images", rows) : RETORT_OK;
}

void real_training_finish(struct real_training *t) {
    if (!t) return;
    arena_finish(&t->arena);
    *t = (struct real_training){0};
}

void real_training_unroll(const struct real_training *t, struct unroll_spec *spec) {
    spec->set_count = (int64_t)chunk_rows(t);
    spec->batch = t->steps ? BATCH : 0;
    spec->soft_labels = true;
    spec->augment = spec->colour = t->augment;
    spec->steps = t->steps;
}

/* Takes the steps by the images and hard labels that are there. The order of CutMix and augmentation is the other way
 * round than in IDC's released code: what is mixed is augmented as one image. */
static int learn(struct real_training *t, struct random *random, int first) {
    int status = RETORT_OK;
    const struct network *net = t->problem->network;
    const struct cutmix_shape shape = {BATCH, net->channels, net->height, net->width, net->classes};
    const size_t K = (size_t)net->classes, size = (size_t)net->channels * (size_t)net->height * (size_t)net->width;
    memset(t->labels, 0, chunk_rows(t) * K * sizeof *t->labels);
    for (size_t i = 0; i < chunk_rows(t); i++) {
        t->labels[i * K + (size_t)t->hard[i]] = 1;
        t->rows[i] = (int32_t)i;
    }
    for (size_t row = 0; row < chunk_rows(t); row += BATCH) {
        if (random_uniform(random) < t->cutmix)
            TRY(cutmix_apply(random, &shape, t->images + row * size, t->labels + row * K));
        if (t->augment)
            siamese_draw_composed(random, net->height, net->width, BATCH, t->maps + row * MAP_SIZE,
                                  t->colours + row * COLOUR_SIZE);
    }
    TRY(unroll_set(t->unroll, 0, t->images, t->labels, NULL));
    TRY(unroll_upload_steps(
        t->unroll, &(struct unroll_steps){
                       .first = first, .count = t->steps, .rows = t->rows, .maps = t->maps, .colour = t->colours}));
    TRY(unroll_train(t->unroll, 0, t->steps, false));
done:
    return status;
}

int real_training_step(struct real_training *t, uint32_t draw, int before) {
    int status = RETORT_OK;
    struct random random = random_begin(t->problem->seed, RANDOM_REAL_TRAINING, draw);
    TRY(dataset_draw(t->problem->train, &random, (int64_t)chunk_rows(t), t->images, t->hard));
    TRY(learn(t, &random, before + 1));
done:
    return status;
}

/* --- early networks --- */
static size_t epoch_chunks(const struct real_training *t) {
    return (size_t)t->problem->train->count / chunk_rows(t);
}

int64_t real_training_early_chunks(const struct real_training *t) {
    return t->networks ? (int64_t)t->networks * t->epochs * (int64_t)epoch_chunks(t) : 0;
}

/* All images in random order, but for those at its end that fill no chunk. */
static int learn_epoch(struct real_training *t, struct random *random, int epoch, struct progress *progress) {
    int status = RETORT_OK;
    const struct dataset *train = t->problem->train;
    const size_t rows = chunk_rows(t), chunks = epoch_chunks(t);
    random_choose(random, (uint32_t)train->count, (uint32_t)train->count, t->order);
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        for (size_t i = 0; i < rows; i++)
            dataset_copy_row(train, t->order[chunk * rows + i], (int64_t)i, t->images, t->hard);
        TRY(learn(t, random, (int)((size_t)epoch * chunks + chunk) * t->steps + 1));
        progress_update(progress, progress->done + 1, NULL);
    }
done:
    return status;
}

int real_training_early(struct real_training *t) {
    int status = RETORT_OK;
    const int64_t p = t->problem->network->theta_count, chunks = real_training_early_chunks(t);
    struct progress progress;
    if (t->ready == t->networks) return RETORT_OK;
    progress_begin(&progress, "learning early networks", chunks * t->ready / t->networks, chunks);
    for (; t->ready < t->networks; t->ready++) {
        struct random random = random_begin(t->problem->seed, RANDOM_EARLY_TRAINING, (uint32_t)t->ready);
        const uint64_t seed = distill_seed(t->problem->seed, RANDOM_EARLY_WEIGHTS, (uint32_t)t->ready);
        TRY(unroll_begin(t->unroll, &seed));
        for (int epoch = 0; epoch < t->epochs; epoch++) TRY(learn_epoch(t, &random, epoch, &progress));
        TRY(unroll_read_theta(t->unroll, t->early + t->ready * p));
    }
done:
    progress_end(&progress);
    return status;
}

/* --- moved weights --- */
static void add_direction(const struct network *net, struct random *random, double factor, const float *theta,
                          float *moved) {
    for (int i = 0; i < net->parameter_count; i++) {
        const struct network_parameter *parameter = &net->parameters[i];
        int64_t filters = parameter->shape.size[0], size = parameter->count / filters;
        for (int64_t f = 0; f < filters && parameter->shape.rank > 1; f++) {
            const float *own = theta + parameter->offset + f * size;
            float *to = moved + parameter->offset + f * size;
            struct random again = *random;
            double squares = 0, drawn = 0;
            for (int64_t k = 0; k < size; k++) {
                double d = random_normal(random);
                drawn += d * d;
                squares += (double)own[k] * own[k];
            }
            double scale = drawn > 0 ? factor * sqrt(squares / drawn) : 0;
            for (int64_t k = 0; k < size; k++) to[k] += (float)(scale * random_normal(&again));
        }
    }
}

void perturb(const struct network *net, struct random *random, const double range[2], const float *theta,
             float *moved) {
    memcpy(moved, theta, (size_t)net->theta_count * sizeof *moved);
    for (int i = 0; i < 2 && range[1] > 0; i++) {
        double size = range[0] + (range[1] - range[0]) * random_uniform(random);
        add_direction(net, random, random_below(random, 2) ? size : -size, theta, moved);
    }
}

void real_training_state(struct real_training *t, struct state *state) {
    if (!t->networks) return;
    state_whole(state, &t->ready);
    state_array(state, "early", NPY_FLOAT32, t->networks * t->problem->network->theta_count, t->early);
}
