/* How the fused steps run: which kernels they become, how much of the work each work-item does, and in which phases. */
#ifndef RETORT_COMPILE_SCHEDULE_H
#define RETORT_COMPILE_SCHEDULE_H

#include "compile/layout.h"

/* One pass over a row: the reductions and results whose operands are known by then, all with the same inner sizes. */
struct phase {
    const struct shape *shape;
    struct node **nodes;
    size_t count;
    int window; /* of a kernel that holds its elements: side of the window of them at each place */
};

/* A sum over each row that is taken in parts: by the group's node, and where the partial sums are, [rows, parts]. */
struct partial {
    struct node *node;
    struct value *value;
};

/* A result of a kernel that goes over arrays: a node, or partial sums of its elements, one a chunk. */
struct flat {
    struct node *node;
    struct value *target;
    bool sum;
};

enum fused_kind {
    FUSED_ROWS,
    FUSED_FLAT,
    FUSED_TOTALS, /* adds up partial sums: `flats` has them, `totals` the places of the sums, `after` what else it does
                   */
};

/* One kernel of generated text. */
struct fused {
    enum fused_kind kind;
    const struct step *step;
    const char *what; /* for prints and profiles */
    double flops;
    bool shared;   /* work-items of a group share rows and arrays; false: each has its own */
    int items;     /* work-items of a work-group */
    size_t groups; /* work-groups */
    /* rows */
    ARRAY(struct phase) phases;
    size_t members;     /* how many nodes are computed */
    int64_t rows, each; /* rows in all, and those that are visited one after another */
    int row_items;      /* work-items that share a row, a power of two; 1: each has its own */
    bool row_first;     /* neighbouring work-items are in neighbouring rows: memory runs across rows */
    int held;           /* places of a row whose elements a work-item holds in registers from phase to phase; 0: it goes
                           over its share in a loop in each phase */
    struct shape places;      /* held: the row in places; in a phase each is a window of elements */
    bool last;                /* the step's last kernel, which stores the results with one value a row */
    struct partial *partials; /* those that it leaves, then those of earlier kernels that it adds up */
    size_t left_count, known_count;
    /* arrays */
    struct flat *flats;
    struct value **totals;
    size_t flat_count;
    struct flat *after; /* results of one element that wait for totals */
    size_t after_count;
    int64_t chunk; /* neighbouring elements that a work-group computes; of a row, where there are parts */
    int lanes;     /* of the vectors that they are computed in */
    int64_t parts; /* partial sums to add up; parts of a row, 0: it is not cut */
};

struct schedule {
    struct arena arena;
    const struct layouts *layouts;
    ARRAY(struct fused) kernels; /* in the order of the steps; a step has one or more after each other */
};

/* Whether a shape has more than one element along the inner dimensions; how many it has. */
bool has_inner(const struct shape *shape, uint32_t inner);
int64_t inner_count(const struct shape *shape, uint32_t inner);
/* Whether this kernel of a step over rows stores this result of it. */
bool stores_result(const struct fused *kernel, const struct node *node);

/* The layouts are borrowed; partial sums become values of their list. */
int schedule_create(const struct layouts *layouts, struct schedule *schedule);
void schedule_finish(struct schedule *schedule);
/* RETORT_EUNSUPPORTED where a kernel asks for more than the device has, or a result is not computed just once. */
int schedule_check(const struct schedule *schedule);
void schedule_print(const struct schedule *schedule, FILE *stream);

#endif
