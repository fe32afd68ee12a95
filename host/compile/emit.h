/* What the writers of kernel text share: emit.c chooses how a group is computed, emit_rows.c writes row kernels,
 * emit_flat.c elementwise kernels over whole arrays and sums of them, emit_expression.c the expressions in both. */
#ifndef RETORT_COMPILE_EMIT_H
#define RETORT_COMPILE_EMIT_H

#include "compile/internal.h"

#define FAMILY_GPU_LOCAL 64 /* work-items of a work-group, GPU family */

/* Where an element is: one C expression a dimension. */
struct index {
    int rank;
    const char *at[MAX_RANK];
    uint32_t inner;   /* dimensions whose expression depends on the position inside the row */
    int lane;         /* dimension whose expression is the first of a vector of lanes; -1: none */
    const char *flat; /* not NULL: the linear index instead of all the above */
};

struct expr {
    const char *name;
    bool lane, is_int;
};

struct memo {
    const struct node *node;
    const char *key;
    struct expr expr;
};

struct emitter {
    struct lowering *lowering;
    const struct grouping *grouping;
    int group; /* number, or -1 for a copy */
    int lanes;
    struct arena arena;
    struct text row, body;
    ARRAY(struct memo) row_memo;
    ARRAY(struct memo) body_memo;
    struct expr *reductions; /* by node index: the variable of a finished reduction; name NULL: not yet */
    bool whole;              /* reductions that are not variables here are in memory */
    struct value *buffers[LAUNCH_MAX_BUFFERS];
    int buffer_count, output_count;
    int variables;
    int scratch_rows; /* GPU family: floats of local memory for each work-item */
    int *level;       /* by node index: level_of() where known, else -1 */
    double flops;     /* of the launch: the operations that its kernel does for the group */
    const char *failure;
};

int emitter_init(struct emitter *e, struct lowering *lowering, int group, int lanes);
void emitter_finish(struct emitter *e);
/* Empties the loop body, for the next loop. */
void body_begin(struct emitter *e);
/* The number of the kernel argument for a value, which is added if it is new. Outputs must be added first. */
int buffer_number(struct emitter *e, struct value *value);
/* GPU family: writes the sums over a work-group of the variables `prefix` with these numbers. */
void emit_group_sums(struct emitter *e, struct text *text, const char *prefix, const int *numbers, int count);
/* Adds the launch of a kernel: its arguments are the emitter's buffers, its body `head` and `code`. */
int finish_launch(struct emitter *e, const struct text *code, const char *head, size_t global, size_t local,
                  const char *what);

/* --- emit_expression.c --- */
/* Writes the statements that compute a node at an index, once per place. */
struct expr emit(struct emitter *e, struct node *node, const struct index *at);
/* Writes into `text` the statement that stores a node's value at an index. */
void emit_store(struct emitter *e, struct text *text, struct node *node, const struct index *at, struct expr x);
/* A vector where one is wanted, from a scalar. */
const char *widened(struct emitter *e, struct expr x, bool lane);
/* Whether this kernel computes the node as a product that can go into an addition. */
bool is_product(const struct emitter *e, const struct node *node);
/* Whether a fused kernel of this group reads the node from memory. */
bool is_loaded(const struct emitter *e, const struct node *node);
bool is_own_reduction(const struct emitter *e, const struct node *node);
/* How many reductions of this group must be finished before the node can be evaluated. */
int level_of(struct emitter *e, const struct node *node);

/* --- emit_rows.c --- */
/* Adds the launch of a kernel of rows: `nodes`, those of them that are stored going to their values. */
int emit_rows(struct emitter *e, const struct group *group, uint32_t inner, struct node *const *nodes,
              size_t node_count);

/* --- emit_flat.c --- */
/* A result of a flat kernel: a node that goes into plain memory, or one whose sum is wanted: then partial sums go
 * there, flat_parts() of them. */
struct flat {
    struct node *node;
    struct value *target;
    bool sum;
};
/* Whether a node can be evaluated element by element in a loop over `count` elements; how many partial sums such a loop
 * leaves; and the launch of a kernel of such loops. */
bool flat_fits(const struct emitter *e, const struct node *node, int64_t count);
int64_t flat_parts(const struct emitter *e, int64_t count);
int emit_flat(struct emitter *e, const struct flat *flats, size_t count);
/* Whether a group is elementwise work on long arrays and sums over all of their elements; and its launches. */
bool whole_fits(struct emitter *e, const struct group *group);
int emit_whole(struct lowering *lowering, const struct group *group);

#endif
