/* Tables of steps from a plan: every entry is a function of the network's seed and the step, so that it does not matter
 * how many steps are uploaded at once. */
#include "evaluate/plan.h"

#include "base/error.h"

#include <stdlib.h>

#define TABLE_BYTES (1 << 20)

bool plan_augments(const struct plan *plan) {
    return plan->dsa || plan->augment.flip || plan->augment.rotate;
}

void describe_optimizer(const struct optimizer_spec *optimizer, struct text *text) {
    text_printf(text, "%s %.3g", optimizer->kind == OPTIMIZER_ADAM ? "Adam" : "SGD", optimizer->lr);
    if (optimizer->kind == OPTIMIZER_SGD && optimizer->momentum > 0)
        text_printf(text, ", momentum %g", optimizer->momentum);
    if (optimizer->weight_decay > 0) text_printf(text, ", weight decay %g", optimizer->weight_decay);
}

static size_t step_bytes(const struct plan *plan) {
    size_t image = sizeof(int32_t) + (plan_augments(plan) ? MAP_SIZE : 0) * sizeof(float)
                   + (plan->dsa ? COLOUR_SIZE : 0) * sizeof(float);
    return (size_t)plan->batch * image;
}

int tables_capacity(const struct plan *plan, int most) {
    size_t fit = TABLE_BYTES / step_bytes(plan);
    return fit < 1 ? 1 : fit < (size_t)most ? (int)fit : most;
}

int tables_init(struct tables *tables, const struct plan *plan, int capacity, int networks, int height, int width) {
    int status = RETORT_OK;
    struct tables fresh = {.plan = plan, .capacity = capacity, .networks = networks, .height = height, .width = width};
    size_t steps = (size_t)capacity, images = steps * (size_t)networks * (size_t)plan->batch;
    bool whole = true;
    whole &= (fresh.rows = calloc(images, sizeof *fresh.rows)) != NULL;
    whole &= (fresh.lr = calloc(steps, sizeof *fresh.lr)) != NULL;
    if (plan_augments(plan)) whole &= (fresh.maps = calloc(images * MAP_SIZE, sizeof *fresh.maps)) != NULL;
    if (plan->dsa) whole &= (fresh.colour = calloc(images * COLOUR_SIZE, sizeof *fresh.colour)) != NULL;
    for (int k = 0; k < networks && !plan->per_class; k++) {
        fresh.walks[k].epoch = -1;
        fresh.walks[k].order = calloc((size_t)plan->input.count, sizeof *fresh.walks[k].order);
        whole &= fresh.walks[k].order != NULL;
    }
    if (!whole)
        RAISE(RETORT_ENOMEM, "out of memory for the tables of %d steps with batches of %lld of %d networks", capacity,
              (long long)plan->batch, networks);
    *tables = fresh;
    return RETORT_OK;
done:
    tables_finish(&fresh);
    return status;
}

void tables_finish(struct tables *tables) {
    if (!tables) return;
    free(tables->rows);
    free(tables->maps);
    free(tables->colour);
    free(tables->lr);
    for (int k = 0; k < UNROLL_MOST_NETWORKS; k++) free(tables->walks[k].order);
    *tables = (struct tables){0};
}

/* The rows of one step of the walk. */
static void walk_rows(struct walk *walk, const struct plan *plan, uint64_t seed, int64_t step, int32_t *rows) {
    int64_t count = plan->input.count, epoch = step / plan->epoch_steps;
    if (epoch != walk->epoch || seed != walk->seed) {
        struct random random = random_begin(seed, RANDOM_INNER_BATCH, (uint32_t)epoch);
        random_choose(&random, (uint32_t)count, (uint32_t)count, walk->order);
        walk->epoch = epoch;
        walk->seed = seed;
    }
    epoch_rows(walk->order, count, step % plan->epoch_steps, plan->batch, rows);
}

/* A network's entries of a step, which are entries `at` and on. */
static int fill_step(struct tables *tables, int network, uint64_t seed, int step, int64_t at) {
    int status = RETORT_OK;
    const struct plan *plan = tables->plan;
    struct random batches = random_begin(seed, RANDOM_INNER_BATCH, (uint32_t)step);
    struct random augments = random_begin(seed, RANDOM_AUGMENT_INNER, (uint32_t)step);
    if (plan->per_class)
        TRY(rows_draw(&batches, plan->input.classes, plan->input.ipc, plan->classes_chosen, plan->per_class,
                      tables->rows + at));
    else
        walk_rows(&tables->walks[network], plan, seed, step - 1, tables->rows + at);
    if (plan->dsa)
        siamese_draw(&augments, plan->dsa_flip, tables->height, tables->width, plan->batch,
                     tables->maps + at * MAP_SIZE, tables->colour + at * COLOUR_SIZE);
    else if (tables->maps)
        augment_draw(&plan->augment, &augments, plan->batch, tables->maps + at * MAP_SIZE);
done:
    return status;
}

int tables_fill(struct tables *tables, const uint64_t *seeds, int first, int count) {
    int status = RETORT_OK;
    const struct plan *plan = tables->plan;
    for (int i = 0; i < count; i++) {
        int step = first + i;
        for (int k = 0; k < tables->networks; k++)
            TRY(fill_step(tables, k, seeds[k], step, ((int64_t)i * tables->networks + k) * plan->batch));
        tables->lr[i] = plan->optimizer.lr * (plan->drop && step > plan->drop ? 0.1 : 1);
    }
done:
    return status;
}
