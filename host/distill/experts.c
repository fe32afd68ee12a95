#include "distill/experts.h"

#include "base/error.h"
#include "distill/method.h"
#include "unroll/unroll.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Real images are uploaded some steps at a time: data may be larger than the device's memory. */
enum { MOST_STEPS = 16, MOST_BYTES = 64 << 20 };

struct experts {
    const struct dataset *train;
    const struct network *network;
    struct expert_spec spec;
    struct unroll *unroll;
    int64_t batch, image_size;
    int per_epoch, steps; /* steps of an epoch; of those that are uploaded at once */
    uint32_t *order;      /* [count]: rows of train */
    float *images, *maps, *colours;
    int32_t *labels, *rows;
    struct arena arena;
};

static int allocate(struct experts *e) {
    size_t rows = (size_t)e->steps * (size_t)e->batch;
    e->order = arena_array(&e->arena, (size_t)e->train->count, sizeof *e->order);
    e->images = arena_array(&e->arena, rows * (size_t)e->image_size, sizeof *e->images);
    e->labels = arena_array(&e->arena, rows, sizeof *e->labels);
    e->rows = arena_array(&e->arena, rows, sizeof *e->rows);
    e->maps = arena_array(&e->arena, rows, MAP_SIZE * sizeof *e->maps);
    e->colours = arena_array(&e->arena, rows, COLOUR_SIZE * sizeof *e->colours);
    if (e->arena.failed) return error_set(RETORT_ENOMEM, "out of memory for batches of %lld images", (long long)rows);
    for (size_t i = 0; i < rows; i++) e->rows[i] = (int32_t)i;
    return RETORT_OK;
}

int experts_create(struct library *library, const struct dataset *train, const struct network *network,
                   const struct expert_spec *spec, const volatile int *interrupt, struct experts **experts) {
    int status = RETORT_OK;
    struct experts *e = calloc(1, sizeof *e);
    if (!e) RAISE(RETORT_ENOMEM, "out of memory preparing experts");
    *e = (struct experts){.train = train, .network = network, .spec = *spec};
    arena_init(&e->arena);
    if (train->count < 1) RAISE(RETORT_EINVAL, "the data have no training images");
    e->batch = spec->batch < train->count ? spec->batch : train->count;
    e->image_size = (int64_t)train->channels * train->height * train->width;
    e->per_epoch = (int)(train->count / e->batch);
    int64_t fit = MOST_BYTES / (e->batch * e->image_size * (int64_t)sizeof(float));
    e->steps = fit < 1 ? 1 : fit < MOST_STEPS ? (int)fit : MOST_STEPS;
    if (e->steps > e->per_epoch) e->steps = e->per_epoch;
    TRY(allocate(e));
    const struct unroll_spec training = {.network = network,
                                         .optimizer = {.kind = OPTIMIZER_SGD, .lr = spec->lr},
                                         .set_count = e->steps * e->batch,
                                         .batch = e->batch,
                                         .augment = spec->augment,
                                         .colour = spec->augment,
                                         .steps = e->steps,
                                         .interrupt = interrupt};
    TRY(unroll_create(library, &training, &e->unroll));
    *experts = e;
    e = NULL;
done:
    experts_destroy(e);
    return status;
}

void experts_destroy(struct experts *e) {
    if (!e) return;
    unroll_destroy(e->unroll);
    arena_finish(&e->arena);
    free(e);
}

/* Steps first .. first + count - 1 of an epoch in the present order: their images, and their tables. */
static int upload(struct experts *e, struct random *random, int first, int count) {
    int status = RETORT_OK;
    int64_t rows = count * e->batch, begin = first * e->batch;
    for (int64_t i = 0; i < rows; i++) dataset_copy_row(e->train, e->order[begin + i], i, e->images, e->labels);
    for (int t = 0; e->spec.augment && t < count; t++)
        siamese_draw(random, e->spec.flip, e->network->height, e->network->width, e->batch,
                     e->maps + t * e->batch * MAP_SIZE, e->colours + t * e->batch * COLOUR_SIZE);
    TRY(unroll_set_rows(e->unroll, 0, 0, rows, e->images, NULL, e->labels));
    TRY(unroll_upload_steps(
        e->unroll,
        &(struct unroll_steps){.first = 1, .count = count, .rows = e->rows, .maps = e->maps, .colour = e->colours}));
done:
    return status;
}

static int train_epoch(struct experts *e, uint32_t draw) {
    int status = RETORT_OK;
    struct random rows = random_begin(e->spec.seed, RANDOM_EXPERT_ORDER, draw);
    struct random maps = random_begin(e->spec.seed, RANDOM_EXPERT_AUGMENT, draw);
    random_choose(&rows, (uint32_t)e->train->count, (uint32_t)e->train->count, e->order);
    for (int first = 0; first < e->per_epoch; first += e->steps) {
        int count = e->per_epoch - first < e->steps ? e->per_epoch - first : e->steps;
        TRY(upload(e, &maps, first, count));
        TRY(unroll_train(e->unroll, 0, count, false));
    }
done:
    return status;
}

int experts_train(struct experts *e, int number, float *thetas, void (*told)(void *user, int epoch), void *user) {
    int status = RETORT_OK;
    const int64_t p = e->network->theta_count;
    const uint64_t seed = distill_seed(e->spec.seed, RANDOM_EXPERT, (uint32_t)number);
    TRY(unroll_begin(e->unroll, &seed));
    TRY(unroll_read_theta(e->unroll, thetas));
    for (int epoch = 1; epoch <= e->spec.epochs; epoch++) {
        float *theta = thetas + epoch * p;
        /* Numbered so that more epochs change nothing of those before. */
        TRY(train_epoch(e, (uint32_t)number * (EXPERT_MOST_EPOCHS + 1) + (uint32_t)epoch));
        TRY(unroll_read_theta(e->unroll, theta));
        for (int64_t i = 0; i < p; i++)
            if (!isfinite(theta[i]))
                RAISE(RETORT_ENUMERIC, "expert %d diverges in epoch %d: its weights are not finite", number, epoch);
        if (told) told(user, epoch);
    }
done:
    return status;
}

int experts_forecast(struct experts *e, double *seconds) {
    static const double enough = 0.5;
    int status = RETORT_OK;
    const uint64_t seed = distill_seed(e->spec.seed, RANDOM_EXPERT, 0);
    struct random maps = random_begin(e->spec.seed, RANDOM_EXPERT_AUGMENT, 0);
    double step;
    for (int64_t i = 0; i < e->train->count; i++) e->order[i] = (uint32_t)i;
    TRY(upload(e, &maps, 0, e->steps));
    TRY(unroll_time_steps(e->unroll, seed, e->steps, false, enough, &step, NULL));
    *seconds = step * e->per_epoch * e->spec.epochs;
done:
    return status;
}
