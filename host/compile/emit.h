/* The text of fused kernels: emit.c begins and ends a kernel, emit_rows.c writes those that go over rows, emit_flat.c
 * those that go over whole arrays, emit_expression.c the expressions in both. Everything is decided by then: the
 * layouts say where values lie, the schedule how the work is divided. */
#ifndef RETORT_COMPILE_EMIT_H
#define RETORT_COMPILE_EMIT_H

#include "base/memory.h"
#include "compile/schedule.h"

/* Where an element is: one C expression a dimension. */
struct index {
    int rank;
    const char *at[MAX_RANK];
    uint32_t inner;   /* dimensions whose expression depends on the position inside the row */
    int lane;         /* dimension whose expression is the first of a vector of lanes; -1: none */
    const char *flat; /* not NULL: the linear index instead of all the above */
};

/* "(x3) * 2 + 1", the index of element 1 of the window of 2 elements at the place x3, as text and as what it is made
 * of. */
struct window_element {
    const char *text, *place;
    int window, element;
};

struct expr {
    const char *name;
    bool lane, is_int;
};

/* A blocked image tensor of which each row is one plane: so many floats, behind those of the row before. */
struct plane {
    int buffer;
    int64_t floats;
};

struct memo {
    const struct node *node;
    const char *key;
    struct expr expr;
};

/* Vectors of V lanes, or in the GPU family, where V is 1, of four neighbours. */
struct vector {
    const char *type, *int_type, *load, *load_int, *store, *store_int, *to_int, *to_float;
};

struct emitter {
    const struct fused *kernel;
    const struct step *step;
    const struct grouping *grouping;
    const struct kernel_target *target;
    int lanes;
    const struct vector *vector; /* how the text calls vectors of so many lanes */
    struct arena arena;
    struct text row, body;
    ARRAY(struct plane) planes; /* what the body reads of those */
    ARRAY(struct memo) row_memo;
    ARRAY(struct memo) body_memo;
    ARRAY(struct memo) held_memo;                 /* what the work-item has in registers, from loop to loop */
    struct text held;                             /* its declarations */
    ARRAY(struct window_element) window_elements; /* all that there are so far */
    struct expr *reductions; /* by node index: the variable of a finished reduction; name NULL: not yet */
    struct value *buffers[LAUNCH_MAX_BUFFERS];
    int buffer_count, output_count;
    int variables;
    int scratch_rows[2]; /* floats of local memory for each work-item, in two areas that are used by turns */
    int turn;            /* the area that is next */
    const char *failure;
};

/* Adds the launch of a kernel of the schedule. */
int emit_fused(const struct schedule *schedule, const struct fused *kernel, struct launch_list *list);

/* --- emit.c --- */
/* Empties the loop body and what it reads, for the next loop. */
void body_begin(struct emitter *e);
/* The number of the kernel argument for a value, which is added if it is new. Outputs must be added first. */
int buffer_number(struct emitter *e, struct value *value);
/* Writes the sums, over the work-items that share a row (or an array), of the variables `prefix` with these numbers. */
void emit_sums(struct emitter *e, struct text *text, const char *prefix, const int *numbers, int count);
/* The next area of local memory, of so many floats for each work-item, as the last arguments of a reduction. */
const char *scratch_arguments(struct emitter *e, int floats);
/* Writes the declarations of that memory, and of the variables that those arguments name. */
void emit_scratch(const struct emitter *e, struct text *text);

/* --- emit_expression.c --- */
/* Writes the statements that compute a node at an index, once per place. */
struct expr emit(struct emitter *e, struct node *node, const struct index *at);
/* Writes into `text` the statement that stores a node's value at an index. */
void emit_store(struct emitter *e, struct text *text, struct node *node, const struct index *at, struct expr x);
/* The index of an element of the window of `window` elements along a dimension that is at a place. */
const char *window_element(struct emitter *e, const char *place, int window, int element);
/* A vector where one is wanted, from a scalar. */
const char *widened(struct emitter *e, struct expr x, bool lane);
/* Whether this kernel computes the node as a product that can go into an addition. */
bool is_product(const struct emitter *e, const struct node *node);

/* --- emit_rows.c and emit_flat.c: what stands before the code of a kernel, and the code --- */
void emit_rows(struct emitter *e, struct text *head, struct text *code);
void emit_flat(struct emitter *e, struct text *head, struct text *code);
void emit_totals(struct emitter *e, struct text *head, struct text *code);

#endif
