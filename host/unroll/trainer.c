#include "unroll/trainer.h"

#include "unroll/private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- the set --- */
int unroll_set_rows(struct unroll *u, int set, int64_t first, int64_t count, const float *images,
                    const float *soft_labels, const int32_t *hard_labels) {
    int status = RETORT_OK;
    size_t image = (size_t)u->image_elements * FLOAT;
    size_t label = (u->spec.soft_labels ? (size_t)u->spec.network->classes : 1) * FLOAT;
    const void *labels = u->spec.soft_labels ? (const void *)soft_labels : hard_labels;
    struct place image_place = memory_item(&u->memory[BUFFER_SET_IMAGES], set),
                 label_place = memory_item(&u->memory[BUFFER_SET_LABELS], set);
    if (!labels) RAISE(RETORT_EINVAL, "the set's labels are not of the kind that was compiled");
    if (first < 0 || count < 0 || first > u->spec.set_count - count)
        RAISE(RETORT_EINVAL, "rows %lld to %lld of a set of %lld", (long long)first, (long long)(first + count),
              (long long)u->spec.set_count);
    TRY(device_write(u->device, image_place.buffer, image_place.offset + (size_t)first * image, (size_t)count * image,
                     images));
    TRY(device_write(u->device, label_place.buffer, label_place.offset + (size_t)first * label, (size_t)count * label,
                     labels));
done:
    return status;
}

int unroll_set(struct unroll *u, int set, const float *images, const float *soft_labels, const int32_t *hard_labels) {
    return unroll_set_rows(u, set, 0, u->spec.set_count, images, soft_labels, hard_labels);
}

struct place unroll_set_images(const struct unroll *u) {
    return place_of(u, BUFFER_SET_IMAGES);
}

/* --- tables --- */
size_t table_row_bytes(const struct unroll *u, enum buffer_id table) {
    size_t b = (size_t)u->spec.batch * (size_t)u->networks;
    switch (table) {
    case BUFFER_SCALARS:
        return OPTIMIZER_SCALARS * FLOAT;
    case BUFFER_ROWS:
        return b * sizeof(int32_t);
    case BUFFER_MAPS:
        return u->spec.augment ? b * MAP_SIZE * FLOAT : 0;
    case BUFFER_COLOUR:
        return u->spec.colour ? b * COLOUR_SIZE * FLOAT : 0;
    default:
        return FLOAT; /* losses, norms */
    }
}

struct place table_row(const struct unroll *u, enum buffer_id table, int step) {
    return place_after(place_of(u, table), (size_t)step * table_row_bytes(u, table));
}

/* Tables of a longer run than any before it. */
static int grow_tables(struct unroll *u, int count) {
    int status = RETORT_OK;
    if (count <= u->table_rows) goto done;
    u->table_rows = u->uploaded = 0;
    for (int i = BUFFER_SCALARS; i <= BUFFER_NORMS; i++) {
        const char *what = u->memory[i].what;
        size_t bytes = (size_t)count * table_row_bytes(u, (enum buffer_id)i);
        memory_finish(&u->memory[i]);
        memory_size(&u->memory[i], what, bytes, 1, device_traits(u->device)->max_allocation);
        TRY(memory_create(&u->memory[i], u->device));
    }
    u->table_rows = count;
done:
    return status;
}

static int write_table(struct unroll *u, enum buffer_id table, int count, const void *rows) {
    return device_write(u->device, place_of(u, table).buffer, 0, (size_t)count * table_row_bytes(u, table), rows);
}

/* Of a table with something for each row of a batch: this member's part of each step's. */
static int write_own_rows(struct unroll *u, enum buffer_id table, int count, const void *rows) {
    int status = RETORT_OK;
    char *taken = NULL;
    if (u->spec.batch == u->whole_batch) return write_table(u, table, count, rows);
    size_t own = table_row_bytes(u, table), row = own / (size_t)u->spec.batch;
    size_t whole = row * (size_t)u->whole_batch, first = row * (size_t)share_first(&u->share, u->whole_batch);
    taken = malloc((size_t)count * own + 1);
    if (!taken) RAISE(RETORT_ENOMEM, "out of memory for %d steps", count);
    for (size_t i = 0; i < (size_t)count; i++) memcpy(taken + i * own, (const char *)rows + i * whole + first, own);
    TRY(write_table(u, table, count, taken));
done:
    free(taken);
    return status;
}

int unroll_upload_steps(struct unroll *u, const struct unroll_steps *steps) {
    int status = RETORT_OK;
    int count = steps->count;
    float *scalars = calloc((size_t)count * OPTIMIZER_SCALARS + 1, FLOAT);
    if (!scalars) RAISE(RETORT_ENOMEM, "out of memory for %d steps", count);
    for (int i = 0; i < count; i++) {
        float *row = scalars + (size_t)i * OPTIMIZER_SCALARS;
        optimizer_scalars(&u->spec.optimizer, steps->lr ? steps->lr[i] : u->spec.optimizer.lr, steps->first + i, row);
        row[3] = steps->weights ? steps->weights[i] : 1.0f;
    }
    TRY(grow_tables(u, count));
    TRY(write_table(u, BUFFER_SCALARS, count, scalars));
    TRY(write_own_rows(u, BUFFER_ROWS, count, steps->rows));
    if (u->spec.augment) TRY(write_own_rows(u, BUFFER_MAPS, count, steps->maps));
    if (u->spec.colour) TRY(write_own_rows(u, BUFFER_COLOUR, count, steps->colour));
    if (count > u->uploaded) u->uploaded = count;
done:
    free(scalars);
    return status;
}

/* --- places in the store --- */
struct place theta_of(const struct unroll *u, int network, int slot) {
    return memory_item(&u->memory[BUFFER_STORE], (int64_t)slot * u->networks + network);
}

struct place state_of(const struct unroll *u, int network, int slot, int state) {
    return place_after(theta_of(u, network, slot), aligned((size_t)u->p * FLOAT) * (size_t)(1 + state));
}

struct place stats_of(const struct unroll *u, int network, int slot) {
    return state_of(u, network, slot, u->states);
}

struct place unroll_theta(const struct unroll *u) {
    return theta_at(u, u->current);
}

/* --- training --- */
static int begin(struct unroll *u, int network) {
    int status = RETORT_OK;
    float *stats = NULL;
    for (int i = 0; i < u->states; i++) {
        struct place state = state_of(u, network, 0, i);
        TRY(device_fill_zero(u->device, state.buffer, state.offset, (size_t)u->p * FLOAT));
    }
    if (u->q) {
        /* Running means 0, running variances 1, as PyTorch starts; block by block mean then variance. */
        int64_t width = u->q / (2 * u->spec.network->spec.depth);
        struct place place = stats_of(u, network, 0);
        stats = calloc((size_t)u->q, FLOAT);
        if (!stats) RAISE(RETORT_ENOMEM, "out of memory for running statistics");
        for (int64_t i = 0; i < u->q; i++) stats[i] = i / width % 2 ? 1.0f : 0.0f;
        TRY(device_write(u->device, place.buffer, place.offset, (size_t)u->q * FLOAT, stats));
    }
done:
    free(stats);
    return status;
}

int unroll_begin(struct unroll *u, const uint64_t *seeds) {
    int status = RETORT_OK;
    struct run *run = &u->runs[RUN_INITIAL];
    int32_t halves[UNROLL_MOST_NETWORKS][2];
    u->current = u->window_count = 0;
    for (int k = 0; k < u->networks; k++) {
        halves[k][0] = (int32_t)(uint32_t)seeds[k];
        halves[k][1] = (int32_t)(uint32_t)(seeds[k] >> 32);
        TRY(begin(u, k));
        TRY(bind_of(run, k, SLOT_THETA, theta_of(u, k, 0)));
    }
    TRY(device_write(u->device, place_of(u, BUFFER_SEED).buffer, 0, sizeof *halves * (size_t)u->networks, halves));
    TRY(executable_enqueue(run->executable));
done:
    return status;
}

int unroll_begin_from(struct unroll *u, const float *theta) {
    int status = RETORT_OK;
    u->current = u->window_count = 0;
    for (int k = 0; k < u->networks; k++) {
        struct place place = theta_of(u, k, 0);
        TRY(begin(u, k));
        TRY(device_write(u->device, place.buffer, place.offset, (size_t)u->p * FLOAT, theta + k * u->p));
    }
done:
    return status;
}

int unroll_read_theta(struct unroll *u, float *theta) {
    int status = RETORT_OK;
    for (int k = 0; k < u->networks; k++) {
        struct place place = theta_of(u, k, u->current);
        TRY(device_read(u->device, place.buffer, place.offset, (size_t)u->p * FLOAT, theta + k * u->p));
    }
done:
    return status;
}

/* --- the whole state --- */
int64_t unroll_state_count(const struct unroll *u) {
    return u->p * (1 + u->states) + u->q;
}

/* Its pieces: weights, then the optimiser's vectors, then statistics, in a slot of the store. Floats of it; 0 past the
 * end. */
static int64_t state_piece(const struct unroll *u, int slot, int i, struct place *place) {
    *place = i ? i <= u->states ? state_at(u, slot, i - 1) : stats_at(u, slot) : theta_at(u, slot);
    return i <= u->states ? u->p : i == u->states + 1 ? u->q : 0;
}

int unroll_read_state(struct unroll *u, float *state) {
    int status = RETORT_OK;
    struct place place;
    int64_t count;
    for (int i = 0; (count = state_piece(u, u->current, i, &place)) > 0; i++) {
        TRY(device_read(u->device, place.buffer, place.offset, (size_t)count * FLOAT, state));
        state += count;
    }
done:
    return status;
}

int unroll_begin_from_state(struct unroll *u, const float *state) {
    int status = RETORT_OK;
    struct place place;
    int64_t count;
    u->current = u->window_count = 0;
    for (int i = 0; (count = state_piece(u, 0, i, &place)) > 0; i++) {
        TRY(device_write(u->device, place.buffer, place.offset, (size_t)count * FLOAT, state));
        state += count;
    }
done:
    return status;
}

int unroll_take_stats(struct unroll *u, struct place stats) {
    struct place own = stats_at(u, u->current);
    return device_copy(u->device, own.buffer, own.offset, stats.buffer, stats.offset, (size_t)u->q * FLOAT);
}

int bind_batch(struct unroll *u, struct run *run, int network, int step, int part) {
    int status = RETORT_OK;
    size_t first = (size_t)network * (size_t)u->spec.batch + (size_t)part * (size_t)(u->spec.batch / u->inner_splits);
    TRY(bind_of(run, network, SLOT_ROWS, place_after(table_row(u, BUFFER_ROWS, step), first * sizeof(int32_t))));
    if (u->spec.augment)
        TRY(bind_of(run, network, SLOT_MAPS, place_after(table_row(u, BUFFER_MAPS, step), first * MAP_SIZE * FLOAT)));
    if (u->spec.colour)
        TRY(bind_of(run, network, SLOT_COLOUR,
                    place_after(table_row(u, BUFFER_COLOUR, step), first * COLOUR_SIZE * FLOAT)));
done:
    return status;
}

/* Where micro-batch `part` of a step leaves the values it keeps. */
static struct place kept_at(const struct unroll *u, int in_window, int part) {
    if (in_window < 0 || in_window >= u->kept_steps) return place_of(u, BUFFER_KEPT_SPARE);
    return place_after(memory_item(&u->memory[BUFFER_KEPT], in_window), u->kept_part_bytes * (size_t)part);
}

/* Binds what a network's gradient reads and writes. The last micro-batch writes where the gradient belongs, the others
 * the sum so far, to and fro between the two of a pair; with several networks a batch is whole. */
static int bind_gradient(struct unroll *u, struct run *run, int network, int step, int from, int to, int part,
                         int in_window) {
    int status = RETORT_OK;
    const struct memory *sum = &u->memory[BUFFER_SUM];
    struct place whole = memory_item(&u->memory[BUFFER_GRADIENTS], in_window < 0 ? network : in_window);
    bool last = part == u->inner_splits - 1;
    TRY(bind_of(run, network, SLOT_THETA, theta_of(u, network, from)));
    TRY(bind_batch(u, run, network, step, part));
    TRY(bind_of(run, network, SLOT_GRADIENT, last ? whole : memory_item(sum, part & 1)));
    if (part) TRY(bind_of(run, network, SLOT_GRADIENT_IN, memory_item(sum, (part - 1) & 1)));
    if (u->q) {
        TRY(bind_of(run, network, SLOT_STATS, stats_of(u, network, from)));
        TRY(bind_of(run, network, SLOT_NEW_STATS, stats_of(u, network, to)));
    }
done:
    return status;
}

/* The gradient of micro-batch `part`, and with a probe its loss, which goes where the gradient goes. */
static int gradient_part(struct unroll *u, int step, int from, int to, int part, int in_window, bool probe) {
    int status = RETORT_OK;
    struct run *run = &u->runs[probe ? (part ? RUN_PROBE_MORE : RUN_PROBE) : (part ? RUN_GRADIENT_MORE : RUN_GRADIENT)];
    const struct memory *loss = &u->memory[BUFFER_LOSS_SUM];
    bool last = part == u->inner_splits - 1;
    for (int k = 0; k < u->networks; k++) TRY(bind_gradient(u, run, k, step, from, to, part, in_window));
    TRY(kept_bind(run->executable, &run->kept, kept_at(u, in_window, part)));
    if (probe) {
        TRY(bind(run, SLOT_LOSS, last ? table_row(u, BUFFER_LOSSES, step) : memory_item(loss, part & 1)));
        if (part) TRY(bind(run, SLOT_LOSS_IN, memory_item(loss, (part - 1) & 1)));
        TRY(bind(run, SLOT_NORM, table_row(u, BUFFER_NORMS, step)));
    }
    TRY(executable_enqueue(run->executable));
done:
    return status;
}

/* All members' gradients become the batch's, before any of them updates its weights; losses likewise. A norm is that of
 * the sum, which the host has. */
static int add_members(struct unroll *u, int step, int in_window, bool probe) {
    int status = RETORT_OK;
    struct place norm_place = table_row(u, BUFFER_NORMS, step);
    const struct span sums[] = {{memory_item(&u->memory[BUFFER_GRADIENTS], in_window < 0 ? 0 : in_window), u->p},
                                {table_row(u, BUFFER_LOSSES, step), 1}};
    if (!is_divided(u)) goto done;
    TRY(sum_over_team(u, sums, probe ? 2 : 1));
    if (!probe) goto done;
    double squares = 0;
    for (int64_t i = 0; i < u->p; i++) squares += (double)u->exchange[i] * u->exchange[i];
    float norm = (float)sqrt(squares);
    TRY(device_write(u->device, norm_place.buffer, norm_place.offset, sizeof norm, &norm));
done:
    return status;
}

int inner_step(struct unroll *u, int step, int from, int to, int in_window, bool probe) {
    int status = RETORT_OK;
    struct run *update = &u->runs[RUN_UPDATE];
    for (int part = 0; part < u->inner_splits; part++) {
        TRY(check_interrupt(u));
        TRY(gradient_part(u, step, from, to, part, in_window, probe));
    }
    TRY(add_members(u, step, in_window, probe));
    TRY(bind(update, SLOT_SCALARS, table_row(u, BUFFER_SCALARS, step)));
    for (int k = 0; k < u->networks; k++) {
        TRY(bind_of(update, k, SLOT_THETA, theta_of(u, k, from)));
        TRY(bind_of(update, k, SLOT_GRADIENT,
                    memory_item(&u->memory[BUFFER_GRADIENTS], in_window < 0 ? k : in_window)));
        TRY(bind_of(update, k, SLOT_NEW_THETA, theta_of(u, k, to)));
        for (int i = 0; i < u->states; i++) {
            TRY(bind_of(update, k, SLOT_STATE + (enum slot)i, state_of(u, k, from, i)));
            TRY(bind_of(update, k, SLOT_NEW_STATE + (enum slot)i, state_of(u, k, to, i)));
        }
    }
    TRY(executable_enqueue(update->executable));
    if (step % 8 == 7) TRY(device_flush(u->device));
done:
    return status;
}

int check_steps(const struct unroll *u, int from, int count) {
    if (from >= 0 && count >= 0 && from + count <= u->uploaded) return RETORT_OK;
    return error_set(RETORT_EINVAL, "steps %d to %d were not uploaded", from, from + count);
}

int unroll_train(struct unroll *u, int from, int count, bool probe) {
    int status = RETORT_OK;
    TRY(check_steps(u, from, count));
    if (probe && u->networks > 1) RAISE(RETORT_EINVAL, "steps of several networks cannot be probed");
    for (int i = 0; i < count; i++) {
        int to = u->current == 0;
        TRY(inner_step(u, from + i, u->current, to, -1, probe));
        u->current = to;
    }
done:
    return status;
}

int unroll_read_probe(struct unroll *u, int count, double *losses, double *norms) {
    int status = RETORT_OK;
    float *values = malloc(((size_t)count + 1) * FLOAT);
    if (!values) RAISE(RETORT_ENOMEM, "out of memory for %d steps", count);
    for (int pass = 0; pass < 2; pass++) {
        double *out = pass ? norms : losses;
        if (!out || !count) continue;
        struct place table = place_of(u, pass ? BUFFER_NORMS : BUFFER_LOSSES);
        TRY(device_read(u->device, table.buffer, 0, (size_t)count * FLOAT, values));
        for (int i = 0; i < count; i++) out[i] = values[i];
    }
done:
    free(values);
    return status;
}

/* --- tests --- */
int unroll_test(struct unroll *u, const float *images, const int32_t *labels, int64_t count, int64_t *correct) {
    int status = RETORT_OK;
    int64_t batch = u->spec.test_batch, size = u->image_elements, total[UNROLL_MOST_NETWORKS] = {0};
    struct run *run = &u->runs[RUN_TEST];
    int32_t *padded = malloc((size_t)(batch + 1) * sizeof *padded);
    if (!padded) RAISE(RETORT_ENOMEM, "out of memory for a test batch");
    for (int k = 0; k < u->networks; k++) {
        TRY(bind_of(run, k, SLOT_THETA, theta_of(u, k, u->current)));
        TRY(bind_of(run, k, SLOT_CORRECT, place_after(place_of(u, BUFFER_TEST_CORRECT), (size_t)k * FLOAT)));
        if (u->q) TRY(bind_of(run, k, SLOT_STATS, stats_of(u, k, u->current)));
    }
    for (int64_t first = 0; first < count; first += batch) {
        int64_t here = count - first < batch ? count - first : batch;
        float got[UNROLL_MOST_NETWORKS];
        TRY(check_interrupt(u));
        for (int64_t i = 0; i < batch; i++) padded[i] = i < here ? labels[first + i] : -1;
        TRY(device_write(u->device, place_of(u, BUFFER_TEST_IMAGES).buffer, 0, (size_t)(here * size) * FLOAT,
                         images + first * size));
        TRY(device_write(u->device, place_of(u, BUFFER_TEST_LABELS).buffer, 0, (size_t)batch * sizeof *padded, padded));
        TRY(executable_enqueue(run->executable));
        TRY(device_read(u->device, place_of(u, BUFFER_TEST_CORRECT).buffer, 0, FLOAT * (size_t)u->networks, got));
        for (int k = 0; k < u->networks; k++) total[k] += (int64_t)(got[k] + 0.5f);
    }
    memcpy(correct, total, sizeof *total * (size_t)u->networks);
done:
    free(padded);
    return status;
}
