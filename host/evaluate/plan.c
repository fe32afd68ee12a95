/* Tables of steps from a plan: every entry is a function of the network's seed and the step, so that it does not matter
 * how many steps are uploaded at once. */
#include "evaluate/plan.h"

#include "base/error.h"

#include <stdlib.h>

#define TABLE_BYTES (1 << 20)

bool plan_augments(const struct plan *plan) {
    return plan->dsa || plan->augment.flip || plan->augment.rotate;
}

void plan_walk(struct plan *plan, int64_t most) {
    plan->epoch_steps = (plan->input.count + most - 1) / most;
    plan->batch = (plan->input.count + plan->epoch_steps - 1) / plan->epoch_steps;
}

void describe_optimizer(const struct optimizer_spec *optimizer, struct text *text) {
    text_printf(text, "%s %.3g", optimizer->kind == OPTIMIZER_ADAM ? "Adam" : "SGD", optimizer->lr);
    if (optimizer->kind == OPTIMIZER_SGD && optimizer->momentum > 0)
        text_printf(text, ", momentum %g", optimizer->momentum);
    if (optimizer->weight_decay > 0) text_printf(text, ", weight decay %g", optimizer->weight_decay);
}

int tables_init(struct tables *tables, const struct plan *plan, int capacity, int height, int width) {
    bool augments = plan_augments(plan);
    size_t batch = (size_t)plan->batch;
    size_t step_bytes =
        batch
        * (sizeof(int32_t) + (augments ? MAP_SIZE : 0) * sizeof(float) + (plan->dsa ? COLOUR_SIZE : 0) * sizeof(float));
    if (step_bytes * (size_t)capacity > TABLE_BYTES) capacity = (int)(TABLE_BYTES / step_bytes);
    if (capacity < 1) capacity = 1;
    struct tables fresh = {.plan = plan, .capacity = capacity, .height = height, .width = width, .epoch = -1};
    size_t steps = (size_t)capacity;
    fresh.rows = calloc(steps * batch, sizeof *fresh.rows);
    fresh.lr = calloc(steps, sizeof *fresh.lr);
    if (augments) fresh.maps = calloc(steps * batch * MAP_SIZE, sizeof *fresh.maps);
    if (plan->dsa) fresh.colour = calloc(steps * batch * COLOUR_SIZE, sizeof *fresh.colour);
    if (!plan->per_class) fresh.order = calloc((size_t)plan->input.count, sizeof *fresh.order);
    if (!fresh.rows || !fresh.lr || (augments && !fresh.maps) || (plan->dsa && !fresh.colour)
        || (!plan->per_class && !fresh.order)) {
        tables_finish(&fresh);
        return error_set(RETORT_ENOMEM, "out of memory for the tables of %d steps with batches of %lld", capacity,
                         (long long)plan->batch);
    }
    *tables = fresh;
    return RETORT_OK;
}

void tables_finish(struct tables *tables) {
    if (!tables) return;
    free(tables->rows);
    free(tables->maps);
    free(tables->colour);
    free(tables->lr);
    free(tables->order);
    *tables = (struct tables){0};
}

/* The rows of one step of the walk. An epoch whose last batch is not full takes the missing ones from its beginning. */
static void walk(struct tables *tables, uint64_t seed, int64_t step, int32_t *rows) {
    const struct plan *plan = tables->plan;
    int64_t count = plan->input.count, epoch = step / plan->epoch_steps, batch = step % plan->epoch_steps;
    if (epoch != tables->epoch || seed != tables->seed) {
        struct random random = random_begin(seed, RANDOM_INNER_BATCH, (uint32_t)epoch);
        random_choose(&random, (uint32_t)count, (uint32_t)count, tables->order);
        tables->epoch = epoch;
        tables->seed = seed;
    }
    for (int64_t i = 0; i < plan->batch; i++) rows[i] = (int32_t)tables->order[(batch * plan->batch + i) % count];
}

int tables_fill(struct tables *tables, uint64_t seed, int first, int count) {
    int status = RETORT_OK;
    const struct plan *plan = tables->plan;
    for (int i = 0; i < count; i++) {
        int step = first + i;
        int32_t *rows = tables->rows + i * plan->batch;
        struct random batches = random_begin(seed, RANDOM_INNER_BATCH, (uint32_t)step);
        struct random augments = random_begin(seed, RANDOM_AUGMENT_INNER, (uint32_t)step);
        if (plan->per_class)
            TRY(rows_draw(&batches, plan->input.classes, plan->input.ipc, plan->classes_chosen, plan->per_class, rows));
        else
            walk(tables, seed, step - 1, rows);
        if (plan->dsa)
            siamese_draw(&augments, plan->dsa_flip, tables->height, tables->width, plan->batch,
                         tables->maps + i * plan->batch * MAP_SIZE, tables->colour + i * plan->batch * COLOUR_SIZE);
        else if (tables->maps)
            augment_draw(&plan->augment, &augments, plan->batch, tables->maps + i * plan->batch * MAP_SIZE);
        tables->lr[i] = plan->optimizer.lr * (plan->drop && step > plan->drop ? 0.1 : 1);
    }
done:
    return status;
}
