/* How the fused steps run: which kernels they become, how much of the work each work-item does, and in which phases. */
#ifndef RETORT_COMPILE_SCHEDULE_H
#define RETORT_COMPILE_SCHEDULE_H

#include "compile/layout.h"

/* One pass over a row: the reductions and results whose operands are known by then, all with the same inner sizes. */
struct phase {
    const struct shape *shape;
    struct node **nodes;
    size_t count;
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
    FUSED_TOTALS, /* adds up partial sums: `flats` has them, `totals` the places of the sums */
};

/* One kernel of generated text. */
struct fused {
    enum fused_kind kind;
    const struct step *step;
    const char *what; /* for prints and profiles */
    double flops;
    int items;     /* work-items of a work-group: those that own a row, or neighbouring elements, together */
    size_t groups; /* work-groups */
    /* rows */
    ARRAY(struct phase) phases;
    size_t members;     /* how many nodes are computed */
    int64_t rows, each; /* rows in all, and those that a work-group visits one after another */
    /* arrays */
    struct flat *flats;
    struct value **totals;
    size_t flat_count;
    int64_t chunk; /* neighbouring elements that a work-group computes */
    int lanes;     /* of the vectors that they are computed in */
    int64_t parts; /* partial sums to add up */
};

struct schedule {
    struct arena arena;
    const struct layouts *layouts;
    ARRAY(struct fused) kernels; /* in the order of the steps; a step has one or more after each other */
};

/* Whether a shape has more than one element along the inner dimensions. */
bool has_inner(const struct shape *shape, uint32_t inner);

/* The layouts are borrowed; partial sums become values of their list. */
int schedule_create(const struct layouts *layouts, struct schedule *schedule);
void schedule_finish(struct schedule *schedule);
/* RETORT_EUNSUPPORTED where a kernel asks for more than the device has, or a result is not computed just once. */
int schedule_check(const struct schedule *schedule);
void schedule_print(const struct schedule *schedule, FILE *stream);

#endif
