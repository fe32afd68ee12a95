/* Which nodes share a kernel: the roles of nodes, and groups of them.
 *
 * Fusion in one paragraph. A fused kernel visits rows: its outer dimensions are those that are not reduced, its inner
 * ones those that are (planes H x W of a [N,C,H,W] tensor, rows of a matrix). One work-item, or several together, own a
 * row and pass over it in phases: a phase computes the reductions whose operands are known by then, and stores what is
 * wanted outside. Elementwise values are recomputed in each phase from the row's inputs, which stay in cache. Index
 * maps (broadcast, slice, pad, pooling's transpose, ...) never become kernels of their own unless something that is not
 * fused wants their result: they turn into index arithmetic where they are read. */
#ifndef RETORT_COMPILE_GROUP_H
#define RETORT_COMPILE_GROUP_H

#include "base/memory.h"
#include "compile/kernels.h"
#include "graph/graph.h"

#include <stdio.h>

/* A pointer and an offset each: what every device takes (CL_DEVICE_MAX_PARAMETER_SIZE is 1024 bytes at least). */
#define LAUNCH_MAX_BUFFERS 64

enum role {
    ROLE_DEAD,    /* nothing needs it */
    ROLE_INPUT,   /* bound by the caller */
    ROLE_INLINE,  /* no memory, no kernel: evaluated wherever it is read */
    ROLE_VIEW,    /* another name for (a part of) its operand's plain memory */
    ROLE_MEMBER,  /* computed in a fused kernel; stored if something outside reads it */
    ROLE_CONCAT,  /* contiguous pieces side by side; the pieces are computed in place where possible */
    ROLE_LIBRARY, /* a hand-written kernel */
};

/* A kernel to be: a fused group, one hand-written operation or several that are joined, or one concatenation. */
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
/* RETORT_EUNSUPPORTED where a node has no place, or groups wait for each other. */
int grouping_check(const struct grouping *grouping);
void grouping_print(const struct grouping *grouping, FILE *stream); /* a line a group, with the roles of its nodes */

#endif
