/* Where values lie and how: the layout of each value in memory, and the steps that compute them, in order. */
#ifndef RETORT_COMPILE_LAYOUT_H
#define RETORT_COMPILE_LAYOUT_H

#include "compile/group.h"
#include "compile/launch.h"

enum step_kind {
    STEP_RELAYOUT,  /* a value from one layout to the other */
    STEP_FUSED,     /* a fused group, or copies: text is generated */
    STEP_OPERATION, /* hand-written kernels */
};

/* How a fused kernel visits its elements. */
enum form {
    FORM_ROWS,  /* row by row, in phases */
    FORM_FLAT,  /* element by element, all operands and results in plain memory */
    FORM_WHOLE, /* the same with sums over all elements, which are finished between launches */
};

/* A node and the value that holds it, or is to hold it. */
struct result {
    struct node *node;
    struct value *value;
};

/* What a step takes from memory. A node may be read in both layouts, each once. */
struct read {
    const struct node *node;
    enum layout wanted;  /* blocked: as vectors of neighbouring channels */
    struct value *value; /* in the wanted layout, or in the other where reading that is cheaper than a relayout */
};

struct step {
    enum step_kind kind;
    int group;                    /* its number; -1: relayouts and copies */
    struct value *from, *to;      /* of a relayout */
    enum form form;               /* of a fused kernel */
    struct shape rows;            /* FORM_ROWS: outer and inner sizes; planes of members may differ */
    uint32_t inner;               /* FORM_ROWS: mask of the inner dimensions */
    int lanes;                    /* channels per vector of a fused kernel */
    ARRAY(struct result) results; /* in memory, in the order of the group's members */
    ARRAY(struct read) reads;
};

struct layouts {
    struct arena arena;
    const struct grouping *grouping;
    struct launch_list *list;                /* its values, and its slots */
    struct value **plain, **blocked, **home; /* by node index; home: where its kernel writes it */
    ARRAY(struct step) steps;
    int *output_slot;             /* by node index: computed in place there; -1: not */
    struct placement *placements; /* by node index: places in concatenations */
    unsigned char *seen;          /* by node index, while reads are entered */
};

/* Creates the values in `list`, which is empty, and the steps. The grouping is borrowed. */
int layouts_create(const struct grouping *grouping, struct launch_list *list, struct layouts *layouts);
void layouts_finish(struct layouts *layouts);
/* RETORT_EUNSUPPORTED where a step reads what no step before it leaves there. */
int layouts_check(const struct layouts *layouts);
void layouts_print(const struct layouts *layouts, FILE *stream); /* a line a step: what it reads and leaves, and how */

/* The value that a step reads a node from; NULL where the layout pass has not entered the read (a bug). */
struct value *step_value(const struct step *step, const struct node *node, enum layout wanted);
/* Where a step leaves a node; NULL: nowhere. */
struct value *step_result(const struct step *step, const struct node *node);

#endif
