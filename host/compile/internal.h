/* How a graph becomes launches. The passes, in order, each in its file:
 *
 *   prepare.c  rewrites the graph into forms the later passes like; factor.c moves factors out of rows
 *   group.c    decides which nodes share a kernel (row fusion)
 *   lower.c    gives values their storage and layout, and writes the list of launches; emit.c and emit_*.c write the
 *              text of fused kernels, kernels.c chooses hand-written ones; convolution.c joins convolutions
 *   merge.c    makes one launch of small ones that do not wait for each other
 *   memory.c   places values in the arena by lifetime
 *
 * Fusion in one paragraph. A fused kernel visits rows: its outer dimensions are those that are not reduced, its inner
 * ones those that are (planes H x W of a [N,C,H,W] tensor, rows of a matrix). One work-item (CPU; a work-group on GPUs)
 * owns a row and passes over it in phases: a phase computes the reductions whose operands are known by then, and stores
 * what is wanted outside. Elementwise values are recomputed in each phase from the row's inputs, which stay in cache.
 * Index maps (broadcast, slice, pad, pooling's transpose, ...) never become kernels of their own unless something that
 * is not fused wants their result: they turn into index arithmetic where they are read. */
#ifndef RETORT_COMPILE_INTERNAL_H
#define RETORT_COMPILE_INTERNAL_H

#include "base/error.h"
#include "base/memory.h"
#include "compile/executable.h"
#include "compile/kernels.h"

/* --- prepare.c --- */
int prepare_graph(const struct graph *graph, struct graph **prepared);

/* --- factor.c --- */
/* `node` on these inputs, where factors that are constant along rows can be moved out of it; else NULL. */
struct node *factored(struct graph *graph, const struct node *node, struct node *const *inputs);

/* --- group.c --- */
enum role {
    ROLE_DEAD,    /* nothing needs it */
    ROLE_INPUT,   /* bound by the caller */
    ROLE_INLINE,  /* no memory, no kernel: evaluated wherever it is read */
    ROLE_VIEW,    /* another name for (a part of) its operand's plain memory */
    ROLE_MEMBER,  /* computed in a fused kernel; stored if something outside reads it */
    ROLE_CONCAT,  /* contiguous pieces side by side; the pieces are computed in place where possible */
    ROLE_LIBRARY, /* a hand-written kernel */
};

/* A kernel to be: a fused group, one library operation, or one concatenation. */
struct group {
    int rank;
    int64_t size[MAX_RANK]; /* of the outer dimensions; of the inner ones where all members agree (not planes) */
    uint32_t inner;         /* mask of inner (reduced) dimensions */
    bool inner_known;       /* false while a purely elementwise group has not chosen */
    bool plane;             /* rank 4, inner = {2, 3}, members may differ in height and width */
    int lanes;              /* channels per vector: V for planes kept blocked, else 1 */
    ARRAY(struct node *) members;
    uint64_t *needs; /* bit set: the groups this one depends on, transitively */
    uint64_t *loads; /* bit set: the nodes its members read from memory */
    uint64_t
        *inside; /* bit set: the nodes its kernel evaluates: members, and what they read inline or computed again */
    bool done;   /* lower.c: has been given its place in the launch order */
};

struct grouping {
    struct arena arena;
    const struct graph *graph;
    struct kernel_target target;
    int node_count;
    enum role *role;
    int *group_of;     /* by node index; -1: none */
    bool *stored;      /* member: its value is wanted in memory */
    bool *near_blocks; /* computed from planes that are kept in blocks */
    int **users;       /* by node index: user_count indices */
    int *user_count;
    struct group *groups;
    int group_count, group_capacity, words; /* words: of a bit set of groups or nodes */
};

int grouping_create(const struct graph *graph, const struct kernel_target *target, struct grouping *grouping);
void grouping_finish(struct grouping *grouping);

bool is_elementwise(const struct node *node);
/* How opaque inputs and results lie: as convolutions leave them, so that handing one over moves nothing. */
enum layout opaque_layout(const struct grouping *grouping, const struct node *node);
/* A member of another group that is cheaper to compute again from memory than to store and load. */
bool is_recomputed(const struct grouping *grouping, const struct node *node, int reader_group);
/* The node whose elements, in this order, `node` has: itself, or what was reshaped into it. */
const struct node *reshaped_root(const struct grouping *grouping, const struct node *node);
/* Whether an inline node can be evaluated with channels as vector lanes. */
bool lanes_can_inline(const struct node *node);

/* --- values and launches (lower.c) --- */
struct value {
    const struct node *node; /* NULL: scratch */
    enum layout layout;
    size_t floats;
    int slot;             /* >= 0: external; the binding's number */
    struct value *parent; /* storage inside another value */
    size_t offset;        /* in elements: inside the parent, or of the arena (memory.c) */
    int first, last;      /* launches that write and read it */
    bool is_int;
    bool input; /* external and read-only */
};

/* A pointer and an offset each: what every device takes (CL_DEVICE_MAX_PARAMETER_SIZE is 1024 bytes at least). */
#define LAUNCH_MAX_BUFFERS 64
struct launch {
    char *text; /* kernel text with NAME for its name */
    size_t global[3], local[3];
    struct value **buffers; /* argument order: outputs, then inputs */
    int buffer_count, output_count;
    const char *what; /* for prints: "fused 12 nodes", "conv_cpu.cl" */
    double flops;
    int kernel; /* number in the library */
    struct device_kernel *handle;
};

struct slot {
    const char *name;
    bool output;
    struct value *value;
    struct device_buffer *buffer;
    size_t offset; /* in bytes */
};

struct lowering {
    struct arena arena;
    const struct grouping *grouping;
    struct kernel_target target;
    struct value **plain, **blocked; /* by node index */
    ARRAY(struct value *) values;
    ARRAY(struct launch *) launches;
    ARRAY(struct conv_class) convolutions; /* those among them, merged ones too */
    ARRAY(struct slot) slots;
    size_t arena_floats;
};

int lowering_create(const struct grouping *grouping, struct lowering *lowering);
void lowering_finish(struct lowering *lowering);
/* The value holding a node in memory, following views; adds a re-layout launch where only the other layout exists.
 * NULL when out of memory or not materialised (a bug caught by the caller). */
struct value *lowering_value(struct lowering *lowering, const struct node *node, enum layout layout);
/* The value whose storage a value lies in, itself maybe, and where in it, in elements. */
struct value *value_root(struct value *value, size_t *offset);
/* What a launch must move at least: each of its buffers once. */
double launch_bytes(const struct launch *launch);
/* New plain memory, for a node or (NULL) for use inside a kernel or between two. NULL when out of memory. */
struct value *lowering_scratch(struct lowering *lowering, const struct node *node, size_t floats);

/* A launch of a hand-written kernel: its results first among the buffers. NULL when out of memory. */
struct launch *lowering_launch(struct lowering *lowering, const struct kernel_use *use, struct value *const *buffers,
                               int outputs, int count, double flops);
/* The result of packing `from` (weights, a matrix), of this launch or of an earlier one. NULL when out of memory. */
struct value *lowering_packed(struct lowering *lowering, const struct kernel_use *use, size_t floats,
                              struct value *from);

/* --- convolution.c --- */
/* One of the convolutions, or a sum of two that is one operation for the later passes (convolution_sums). */
bool is_convolution(const struct grouping *grouping, const struct node *node);
enum conv_pass convolution_pass(const struct node *node);
/* Makes sums of two convolutions one operation where the kernels can. After the roles are known, before groups. */
void convolution_sums(struct grouping *grouping, const bool *is_output);
/* Whether two groups are convolutions that one launch can compute, and that share an input or weights. */
bool convolutions_join(const struct grouping *grouping, const struct group *a, const struct group *b);
/* Adds the launches of a group of convolutions; its members' values exist. */
int lower_convolutions(struct lowering *lowering, const struct group *group);

/* --- emit.c --- */
/* Adds the launch of a fused group; its stored members' values exist. */
int emit_group(struct lowering *lowering, const struct group *group);
/* Evaluates nodes of any role (inline, constants, inputs, ...), each into plain memory; together where possible. */
int emit_copies(struct lowering *lowering, struct node *const *nodes, struct value *const *targets, size_t count);

/* --- merge.c --- */
/* Makes one launch of small ones that do not wait for each other (CPU family). Before memory is planned. */
int merge_launches(struct lowering *lowering);

/* --- memory.c --- */
int memory_plan(struct lowering *lowering, size_t alignment_floats);

#endif
