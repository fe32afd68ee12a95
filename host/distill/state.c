#include "distill/state.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

void state_finish(struct state *state) {
    if (!state) return;
    array_finish(&state->numbers);
    array_finish(&state->arrays);
    state->failed = false;
}

static void add_number(struct state *state, struct state_number row) {
    if (!array_push(&state->numbers, row)) state->failed = true;
}

void state_whole(struct state *state, int *value) {
    add_number(state, (struct state_number){.whole = value});
}

void state_real(struct state *state, double *value) {
    add_number(state, (struct state_number){.real = value});
}

void state_same(struct state *state, double value, const char *what) {
    add_number(state, (struct state_number){.same = value, .what = what});
}

void state_array(struct state *state, const char *name, enum npy_type type, int64_t count, void *data) {
    struct state_array row = {name, type, count, data};
    if (count && !array_push(&state->arrays, row)) state->failed = true;
}

static size_t element(enum npy_type type) {
    return type == NPY_FLOAT64 || type == NPY_INT64 ? 8 : type == NPY_UINT8 ? 1 : 4;
}

int state_save(const struct state *state, const char *path) {
    int status = RETORT_OK;
    size_t count = state->arrays.count + 1;
    int64_t number_count = (int64_t)state->numbers.count;
    double *numbers = calloc(state->numbers.count + 1, sizeof *numbers);
    struct npy_member *members = calloc(count, sizeof *members);
    if (state->failed || !numbers || !members) RAISE(RETORT_ENOMEM, "out of memory writing %s", path);
    for (size_t i = 0; i < state->numbers.count; i++) {
        const struct state_number *row = &state->numbers.items[i];
        numbers[i] = row->whole ? *row->whole : row->real ? *row->real : row->same;
    }
    members[0] = (struct npy_member){"numbers", NPY_FLOAT64, 1, &number_count, numbers};
    for (size_t i = 0; i < state->arrays.count; i++) {
        const struct state_array *row = &state->arrays.items[i];
        members[i + 1] = (struct npy_member){row->name, row->type, 1, &row->count, row->data};
    }
    TRY(npz_write(path, members, count));
done:
    free(numbers);
    free(members);
    return status;
}

static int read_array(const char *path, const char *name, enum npy_type type, int64_t count, struct npy *loaded) {
    int status = RETORT_OK;
    TRY(npy_read_member(path, name, loaded));
    if (loaded->type != type || loaded->rank != 1 || loaded->size[0] != count)
        RAISE(RETORT_EFORMAT, "%s: %s is not of this run (%lld values expected)", path, name, (long long)count);
done:
    return status;
}

int state_load(const struct state *state, const char *path) {
    int status = RETORT_OK;
    size_t count = state->arrays.count;
    struct npy *loaded = calloc(count + 1, sizeof *loaded); /* the numbers last */
    if (state->failed || !loaded) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
    TRY(read_array(path, "numbers", NPY_FLOAT64, (int64_t)state->numbers.count, &loaded[count]));
    const double *numbers = loaded[count].data;
    for (size_t i = 0; i < state->numbers.count; i++) {
        const struct state_number *row = &state->numbers.items[i];
        if (row->what && numbers[i] != row->same)
            RAISE(RETORT_EFORMAT, "%s: the state of a run with another %s", path, row->what);
    }
    for (size_t i = 0; i < count; i++) {
        const struct state_array *row = &state->arrays.items[i];
        TRY(read_array(path, row->name, row->type, row->count, &loaded[i]));
    }
    for (size_t i = 0; i < count; i++) {
        const struct state_array *row = &state->arrays.items[i];
        memcpy(row->data, loaded[i].data, (size_t)row->count * element(row->type));
    }
    for (size_t i = 0; i < state->numbers.count; i++) {
        const struct state_number *row = &state->numbers.items[i];
        if (row->whole) *row->whole = (int)numbers[i];
        if (row->real) *row->real = numbers[i];
    }
done:
    for (size_t i = 0; loaded && i <= count; i++) npy_finish(&loaded[i]);
    free(loaded);
    return status;
}
