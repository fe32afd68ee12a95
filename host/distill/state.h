/* What a checkpoint holds, as rows: each owner of state adds where its numbers and arrays lie, and one pair of
 * functions saves and loads them all.
 *
 * The file is an .npz: the numbers together as float64 [count] in the member `numbers`, in the order in which they were
 * added (so the order is part of the format), and each array as a member of its own. */
#ifndef RETORT_DISTILL_STATE_H
#define RETORT_DISTILL_STATE_H

#include "base/memory.h"
#include "data/data.h"

struct state_number {
    int *whole; /* one of the two, or neither: */
    double *real;
    double same;      /* then the file must have this value, */
    const char *what; /* which is called so: "seed" */
};

struct state_array {
    const char *name; /* a literal */
    enum npy_type type;
    int64_t count;
    void *data; /* borrowed: read by state_save, written by state_load */
};

struct state {
    ARRAY(struct state_number) numbers;
    ARRAY(struct state_array) arrays;
    bool failed; /* out of memory: a row is missing; state_save and state_load say so */
};
void state_finish(struct state *state); /* NULL-safe, zeroes */

void state_whole(struct state *state, int *value);
void state_real(struct state *state, double *value);
void state_same(struct state *state, double value, const char *what);
/* Arrays of count 0 are left out. */
void state_array(struct state *state, const char *name, enum npy_type type, int64_t count, void *data);

/* Atomically. */
int state_save(const struct state *state, const char *path);
/* Everything is read and checked before anything is changed: RETORT_EFORMAT where it is not a file of these rows. */
int state_load(const struct state *state, const char *path);

#endif
