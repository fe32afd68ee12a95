/* What becomes of each node, and what kernels read through nodes that have no memory. */
#ifndef RETORT_COMPILE_ROLES_H
#define RETORT_COMPILE_ROLES_H

#include "compile/group.h"

#define PLANE_INNER (1u << 2 | 1u << 3)

bool is_elementwise(const struct node *node);
/* How opaque inputs and results lie: as convolutions leave them, so that handing one over moves nothing. */
enum layout opaque_layout(const struct grouping *grouping, const struct node *node);
/* The node whose elements, in this order, `node` has: itself, or what was reshaped into it. */
const struct node *reshaped_root(const struct grouping *grouping, const struct node *node);
/* Whether a kernel of the group with this number (-1: a copy) reads the node from memory. */
bool is_loaded(const struct grouping *grouping, int group, const struct node *node);
/* Whether the node is a reduction that the group computes. */
bool is_own_reduction(const struct grouping *grouping, int group, const struct node *node);
/* The dimension along which operand k is read where the node is read along `lane` as a vector of neighbours; -1: none,
 * so that one value serves all lanes. */
int operand_lane(const struct node *node, int k, int lane);

/* --- for grouping --- */
/* Fill `users` and `user_count`; `role`, `stored` for what is known of it by then, and `near_blocks`. Both leave the
 * arena's `failed` set when out of memory. */
void find_users(struct grouping *g);
void find_roles(struct grouping *g, const bool *is_output);
bool is_reduction(const struct node *node);
uint32_t reduced_axes(const struct node *node);
/* A reshape that only inserts or removes dimensions of size 1. */
bool is_unit_reshape(const struct node *node);
/* A member that evaluates its operands at other indices than its own. */
bool is_index_map(const struct node *node);
bool is_blockable(const struct grouping *g, const struct node *node);
/* Lanes of the kernel that computes a member. Elementwise work on plain tensors (weights, say) gives plain tensors. */
int node_lanes(const struct grouping *g, const struct node *node);
/* A member of another group that is cheaper to compute again from memory than to store and load. */
bool is_recomputed(const struct grouping *g, const struct node *node, int reader_group);

#endif
