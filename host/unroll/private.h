/* What the files of the unroll module share: the structure behind the opaque name, and how its rooms reach it. */
#ifndef RETORT_UNROLL_PRIVATE_H
#define RETORT_UNROLL_PRIVATE_H

#include "base/augmentation.h"
#include "base/error.h"
#include "team/team.h"
#include "unroll/fit.h"
#include "unroll/graphs.h"
#include "unroll/kept.h"
#include "unroll/unroll.h"

#define FLOAT sizeof(float)

/* --- who has which rows --- */
/* Of a batch of b rows those from floor(b before / of) to floor(b until / of) are this member's; 0, 1 and 1 where
 * nobody divides. */
struct share {
    int64_t before, until, of;
};
static inline int64_t share_first(const struct share *share, int64_t batch) {
    return batch * share->before / share->of;
}
static inline int64_t share_count(const struct share *share, int64_t batch) {
    return batch * share->until / share->of - share_first(share, batch);
}

/* --- what is compiled --- */
enum run_id {
    RUN_INITIAL,
    RUN_GRADIENT,
    RUN_GRADIENT_MORE,
    RUN_PROBE,
    RUN_PROBE_MORE,
    RUN_UPDATE,
    RUN_ADJOINT,
    RUN_PRODUCT,
    RUN_PRODUCT_READING,
    RUN_PRODUCT_LOW,
    RUN_PRODUCT_MIXED,
    RUN_SCATTER,
    RUN_TEST,
    RUN_LANCZOS_START,
    RUN_LANCZOS_UNIT,
    RUN_LANCZOS_PRODUCT,
    RUN_LANCZOS_NEXT,
    RUN_LANCZOS_FINISH,
    RUN_COUNT
};
struct run {
    struct executable *executable;              /* NULL: not wanted */
    int slot[UNROLL_MOST_NETWORKS][SLOT_COUNT]; /* of each network; -1: it has none of the name, or all share it */
    struct kept_slots kept;
};

/* --- what has device memory --- */
enum buffer_id {
    /* trainer */
    BUFFER_STORE,      /* slots of theta, states, stats, each with an item a network. Window step i reads slot base + i
                          and writes the next */
    BUFFER_GRADIENTS,  /* of window step i; of a plain step the first, or an item a network */
    BUFFER_SUM,        /* pair: gradient or Hessian product so far, of a batch in parts */
    BUFFER_LOSS_SUM,   /* pair: loss so far */
    BUFFER_SET_IMAGES, /* with own sets an item a network; labels too */
    BUFFER_SET_LABELS,
    BUFFER_SEED,
    BUFFER_SCALARS, /* tables, a row a step */
    BUFFER_ROWS,
    BUFFER_MAPS,
    BUFFER_COLOUR,
    BUFFER_LOSSES,
    BUFFER_NORMS,
    BUFFER_TEST_IMAGES,
    BUFFER_TEST_LABELS,
    BUFFER_TEST_CORRECT,
    /* window; all but the tangents and a_g are pairs */
    BUFFER_LAMBDA,
    BUFFER_LAMBDA_STATE,
    BUFFER_LAMBDA_STATE_LAST = BUFFER_LAMBDA_STATE + OPTIMIZER_MAX_STATE - 1,
    BUFFER_DLR,
    BUFFER_DS,
    BUFFER_DY,
    BUFFER_A_G,
    BUFFER_IMAGE_TANGENTS, /* of a batch in parts, before they are added to the set's gradient */
    BUFFER_LABEL_TANGENTS,
    BUFFER_KEPT, /* of the first steps of the window */
    BUFFER_KEPT_SPARE,
    /* Lanczos */
    BUFFER_BASIS,
    BUFFER_VECTORS,
    BUFFER_PROJECTIONS,
    BUFFER_BETA,
    BUFFER_EIGENVALUES,
    BUFFER_COUNT
};

struct pass {
    struct unroll *unroll;
    struct pass_spec spec;
    int64_t first, rows; /* this member's of the spec's batch: what is split into parts */
    int64_t part_rows;
    int parts;
    struct executable *executable;
    int in[PASS_MAX_VALUES], out[PASS_MAX_VALUES]; /* slots; out: of sums */
    size_t row_bytes[PASS_MAX_VALUES];             /* of a row; without rows of all */
    struct memory memory[PASS_MAX_VALUES];
    struct place bound[PASS_MAX_VALUES];
};

struct unroll {
    struct unroll_spec spec; /* batch: this member's rows; test_batch: as was planned */
    struct share share;
    int64_t whole_batch; /* rows of an inner step at all members together */
    struct library *library;
    struct device *device;
    int64_t p, q;
    int states;
    int64_t image_elements;
    struct run runs[RUN_COUNT];
    struct memory memory[BUFFER_COUNT];
    struct pass passes[UNROLL_MAX_PASSES];

    /* the plan */
    int networks;
    int inner_splits, pass_splits;
    bool keeping;
    int kept_steps;
    size_t kept_part_bytes;

    int current;                   /* slot of the weights as they are now */
    int table_rows;                /* steps there is room for in the tables */
    int uploaded;                  /* steps whose tables are there */
    int window_base, window_count; /* of the stored window: slot of its first step, steps */
    int window_first;              /* and the table step of that */
    bool has_factor;

    /* values on their way to and from the other members */
    float *exchange;
    int64_t exchange_room;
};

/* --- fit.c --- */
void unroll_size_memory(struct unroll *u); /* all rows of memory that the plan as it is asks for */
/* Rows of memory and executables one after another, passes included; NULL past the end. */
struct memory *unroll_memory(struct unroll *u, int i);

/* --- binding --- */
/* A slot that the executable has: of a network, and of the only one. */
static inline int bind_of(struct run *run, int network, enum slot slot, struct place place) {
    return executable_bind_slot(run->executable, run->slot[network][slot], place.buffer, place.offset);
}
static inline int bind(struct run *run, enum slot slot, struct place place) {
    return bind_of(run, 0, slot, place);
}
/* Reads a pair's value and writes its next one. */
int bind_pair(struct unroll *u, struct run *run, enum slot in, enum slot out, enum buffer_id pair);
static inline struct place place_of(const struct unroll *u, enum buffer_id id) {
    return memory_item(&u->memory[id], 0);
}
int check_interrupt(const struct unroll *u);

/* --- division.c --- */
/* Finds this member's share, and refuses what cannot be divided. Before anything is sized or compiled. */
int divide(struct unroll *u, const struct unroll_spec *spec);
bool is_divided(const struct unroll *u);
/* Whether what is there before a sum over the team is another member's to bring along, so that it counts once. */
bool brings_nothing(const struct unroll *u);
/* Floats on the device. */
struct span {
    struct place place;
    int64_t count;
};
/* Puts, in place of what each member has there, the sum over the team. Nothing happens where nobody divides; otherwise
 * the sums stay in u->exchange too, one span after another, until the next. Called by all. */
int sum_over_team(struct unroll *u, const struct span *spans, int count);

/* --- trainer.c --- */
size_t table_row_bytes(const struct unroll *u, enum buffer_id table); /* of all networks */
/* Of a network in a slot of the store; the first or only one where none is named. */
struct place theta_of(const struct unroll *u, int network, int slot);
struct place state_of(const struct unroll *u, int network, int slot, int state);
struct place stats_of(const struct unroll *u, int network, int slot);
static inline struct place theta_at(const struct unroll *u, int slot) {
    return theta_of(u, 0, slot);
}
static inline struct place state_at(const struct unroll *u, int slot, int state) {
    return state_of(u, 0, slot, state);
}
static inline struct place stats_at(const struct unroll *u, int slot) {
    return stats_of(u, 0, slot);
}
struct place table_row(const struct unroll *u, enum buffer_id table, int step);
/* Rows, maps and colours of a network for micro-batch `part` of table step `step`. */
int bind_batch(struct unroll *u, struct run *run, int network, int step, int part);
int check_steps(const struct unroll *u, int from, int count);
/* One inner step by table step `step`, from one slot to another. in_window: its place in the window, from 0; -1 outside
 * it. */
int inner_step(struct unroll *u, int step, int from, int to, int in_window, bool probe);

/* --- pass.c --- */
void pass_init(struct unroll *u, struct pass *pass, const struct pass_spec *spec);
int pass_compile(struct pass *pass, int64_t most_rows); /* anew, in parts of so many rows at most */
void pass_size_memory(struct pass *pass, uint64_t max_allocation);
void pass_finish(struct pass *pass);

#endif
