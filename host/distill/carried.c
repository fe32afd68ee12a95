#include "distill/carried.h"

#include "base/error.h"

#include <stdlib.h>

int carried_init(struct carried *c, struct unroll *unroll, int trajectories, bool wanted) {
    int status = RETORT_OK;
    struct carried fresh = {.unroll = unroll, .trajectories = trajectories};
    if (wanted) {
        fresh.count = unroll_state_count(unroll);
        fresh.now = calloc((size_t)trajectories * (size_t)fresh.count, sizeof *fresh.now);
        fresh.left = calloc((size_t)trajectories * (size_t)fresh.count, sizeof *fresh.left);
        if (!fresh.now || !fresh.left) {
            carried_finish(&fresh);
            RAISE(RETORT_ENOMEM, "out of memory for the weights of %d trajectories", trajectories);
        }
    }
    *c = fresh;
done:
    return status;
}

void carried_finish(struct carried *c) {
    if (!c) return;
    free(c->now);
    free(c->left);
    *c = (struct carried){0};
}

int carried_take(struct carried *c, int trajectory) {
    return unroll_begin_from_state(c->unroll, c->now + trajectory * c->count);
}

int carried_leave(struct carried *c, int trajectory) {
    int status = RETORT_OK;
    float *state = NULL;
    if (!c->count) goto done;
    state = malloc((size_t)c->count * sizeof *state);
    if (!state) RAISE(RETORT_ENOMEM, "out of memory for weights");
    TRY(unroll_read_state(c->unroll, state));
    for (int64_t i = 0; i < c->count; i++) c->left[trajectory * c->count + i] = state[i];
done:
    free(state);
    return status;
}

double *carried_left(struct carried *c, int64_t *count) {
    *count = c->count;
    return c->left;
}

void carried_advance(struct carried *c) {
    for (int64_t i = 0; i < c->trajectories * c->count; i++) c->now[i] = (float)c->left[i];
}

void carried_state(struct carried *c, struct state *state) {
    state_array(state, "weights", NPY_FLOAT32, c->trajectories * c->count, c->now);
}
