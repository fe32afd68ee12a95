/* Row fusion: which nodes share a kernel. Nodes are visited in topological order; a node joins the group of one of its
 * operands where the rows agree and no path would leave the group and come back, otherwise it starts a group. */
#include "compile/internal.h"

#include <stdlib.h>
#include <string.h>

#define PLANE_INNER (1u << 2 | 1u << 3)

bool is_elementwise(const struct node *node) {
    switch (node->op) {
    case OP_EXP:
    case OP_LOG:
    case OP_SQRT:
    case OP_RECIPROCAL:
    case OP_TANH:
    case OP_ERF:
    case OP_SIN:
    case OP_COS:
    case OP_CAST:
    case OP_ADD:
    case OP_SUBTRACT:
    case OP_MULTIPLY:
    case OP_DIVIDE:
    case OP_MAX:
    case OP_COMPARE:
    case OP_SELECT:
        return true;
    default:
        return false;
    }
}

static bool is_reduction(const struct node *node) {
    return node->op == OP_REDUCE_SUM || node->op == OP_REDUCE_MAX || node->op == OP_ARGMAX;
}

static uint32_t reduced_axes(const struct node *node) {
    return node->op == OP_ARGMAX ? 1u << node->attributes.axis : node->attributes.axes;
}

/* A slice of whole leading rows: contiguous in plain memory. */
static bool is_contiguous_slice(const struct node *node) {
    const struct shape *from = &node->inputs[0]->shape;
    for (int d = 0; d < node->shape.rank; d++) {
        bool whole =
            node->attributes.start[d] == 0 && node->attributes.step[d] == 1 && node->shape.size[d] == from->size[d];
        if (d == 0 ? node->attributes.step[d] != 1 : !whole) return false;
    }
    return true;
}

/* A reshape that only inserts or removes dimensions of size 1. */
static bool is_unit_reshape(const struct node *node) {
    const struct shape *to = &node->shape, *from = &node->inputs[0]->shape;
    int i = 0, j = 0;
    for (;;) {
        while (i < to->rank && to->size[i] == 1) i++;
        while (j < from->rank && from->size[j] == 1) j++;
        if (i == to->rank || j == from->rank) return i == to->rank && j == from->rank;
        if (to->size[i++] != from->size[j++]) return false;
    }
}

static bool is_contiguous_concat(const struct node *node) {
    for (int d = 0; d < node->attributes.axis; d++)
        if (node->shape.size[d] != 1) return false;
    return true;
}

bool lanes_can_inline(const struct node *node) {
    const int64_t *size = node->shape.size;
    switch (node->op) {
    case OP_CONSTANT:
    case OP_IOTA:
    case OP_AVERAGE_POOL_TRANSPOSE:
        return true;
    case OP_BROADCAST:
    case OP_GATHER_ROWS:
        return true;
    case OP_SLICE:
    case OP_PAD:
        return node->shape.rank == 4 && node->attributes.start[1] == 0 && node->attributes.step[1] == 1
               && size[1] == node->inputs[0]->shape.size[1];
    case OP_REVERSE:
        return node->shape.rank == 4 && !(node->attributes.axes & 1u << 1);
    case OP_CONCAT:
        return node->shape.rank == 4 && node->attributes.axis != 1;
    case OP_RESHAPE:
        return node->shape.rank != 4 || size[1] == 1; /* unit reshapes; the channel must not move */
    default:
        return is_elementwise(node);
    }
}

/* --- bit sets of groups --- */
static bool needs(const struct grouping *g, int group, int other) {
    return g->groups[group].needs[other / 64] >> (other % 64) & 1;
}

/* `group` comes to depend on `other` and all that it needs, and so do all groups that depend on `group`. */
static void add_need(struct grouping *g, int group, int other) {
    if (group == other || needs(g, group, other)) return;
    for (int k = 0; k < g->group_count; k++) {
        if (k != group && !needs(g, k, group)) continue;
        for (int w = 0; w < g->words; w++) g->groups[k].needs[w] |= g->groups[other].needs[w];
        g->groups[k].needs[other / 64] |= (uint64_t)1 << (other % 64);
    }
}

/* --- roles --- */
static void find_users(struct grouping *g) {
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < g->node_count; i++) {
            const struct node *node = graph_node(g->graph, i);
            if (g->role[i] == ROLE_DEAD) continue;
            for (int k = 0; k < node->input_count; k++) {
                int operand = node->inputs[k]->index;
                if (pass) g->users[operand][g->user_count[operand]] = i;
                g->user_count[operand]++;
            }
        }
        for (int i = 0; i < g->node_count && !pass; i++) {
            g->users[i] = arena_array(&g->arena, (size_t)g->user_count[i] + 1, sizeof(int));
            g->user_count[i] = 0;
        }
        if (g->arena.failed) return;
    }
}

static void find_roles(struct grouping *g, const bool *is_output) {
    /* Small values that are only stretched into larger ones are evaluated where they are read. */
    bool *small = arena_array(&g->arena, (size_t)g->node_count, sizeof *small);
    if (!small) return;
    for (int i = g->node_count - 1; i >= 0; i--) {
        const struct node *node = graph_node(g->graph, i);
        small[i] = is_elementwise(node) && !is_output[i] && g->user_count[i] > 0;
        for (int k = 0; k < g->user_count[i] && small[i]; k++) {
            const struct node *user = graph_node(g->graph, g->users[i][k]);
            bool stretched = user->op == OP_BROADCAST && shape_count(user->shape) > shape_count(node->shape);
            small[i] = stretched || small[user->index];
        }
    }
    for (int i = 0; i < g->node_count; i++) {
        const struct node *node = graph_node(g->graph, i);
        if (g->role[i] == ROLE_DEAD) continue;
        enum role operand = node->input_count ? g->role[node->inputs[0]->index] : ROLE_DEAD;
        bool placed =
            operand == ROLE_INPUT || operand == ROLE_VIEW || operand == ROLE_LIBRARY || operand == ROLE_CONCAT;
        switch (node->op) {
        case OP_INPUT:
            g->role[i] = ROLE_INPUT;
            break;
        case OP_CONSTANT:
        case OP_IOTA:
        case OP_BROADCAST:
        case OP_PERMUTE:
        case OP_PAD:
        case OP_REVERSE:
        case OP_ONE_HOT:
        case OP_AVERAGE_POOL_TRANSPOSE:
        case OP_GATHER_ROWS:
            g->role[i] = ROLE_INLINE;
            break;
        case OP_RESHAPE:
            g->role[i] = is_unit_reshape(node) && !placed ? ROLE_INLINE : ROLE_VIEW;
            break;
        case OP_SLICE:
            g->role[i] = ROLE_INLINE;
            if (is_contiguous_slice(node))
                if (operand == ROLE_INPUT || operand == ROLE_VIEW || (node->shape.rank == 1 && operand != ROLE_INLINE))
                    g->role[i] = ROLE_VIEW;
            break;
        case OP_CONCAT:
            g->role[i] = is_contiguous_concat(node) ? ROLE_CONCAT : ROLE_INLINE;
            break;
        case OP_MATMUL:
        case OP_CONV:
        case OP_CONV_BACKWARD_DATA:
        case OP_CONV_BACKWARD_WEIGHT:
        case OP_SCATTER_ROWS:
        case OP_SAMPLE:
        case OP_SAMPLE_TRANSPOSE:
        case OP_EIGH:
            g->role[i] = ROLE_LIBRARY;
            break;
        default:
            g->role[i] = small[i] ? ROLE_INLINE : ROLE_MEMBER;
        }
    }
    /* What a hand-written kernel or a view reads must be in memory. */
    for (int i = 0; i < g->node_count; i++) {
        if (g->role[i] != ROLE_INLINE) continue;
        for (int k = 0; k < g->user_count[i]; k++) {
            enum role user = g->role[g->users[i][k]];
            if (user == ROLE_LIBRARY || user == ROLE_VIEW) g->role[i] = ROLE_MEMBER;
        }
    }
    for (int i = 0; i < g->node_count; i++) {
        if (g->role[i] != ROLE_MEMBER) continue;
        g->stored[i] = is_output[i];
        for (int k = 0; k < g->user_count[i]; k++) {
            enum role user = g->role[g->users[i][k]];
            if (user == ROLE_LIBRARY || user == ROLE_VIEW || user == ROLE_CONCAT) g->stored[i] = true;
        }
    }
}

/* --- recomputation --- */
struct leaves {
    const struct node *full[3];
    int count, visited;
};

/* Counts the full-size tensors that would be read to compute `node` afresh; false: too many, or not worth it. */
static bool count_leaves(const struct grouping *g, const struct node *node, int64_t full, struct leaves *leaves) {
    if (++leaves->visited > 40) return false;
    enum role role = g->role[node->index];
    bool big = shape_count(node->shape) * 4 > full;
    bool inside = role == ROLE_INLINE || (role == ROLE_MEMBER && is_elementwise(node) && big);
    if (inside) {
        for (int k = 0; k < node->input_count; k++)
            if (!count_leaves(g, node->inputs[k], full, leaves)) return false;
        return true;
    }
    if (!big) return true;
    for (int k = 0; k < leaves->count; k++)
        if (leaves->full[k] == node) return true;
    if (leaves->count == 2) return false;
    leaves->full[leaves->count++] = node;
    return true;
}

bool is_recomputed(const struct grouping *g, const struct node *node, int reader_group) {
    int i = node->index;
    if (g->role[i] != ROLE_MEMBER || g->group_of[i] == reader_group || g->stored[i] || !is_elementwise(node))
        return false;
    if (node->shape.rank != 4) return false; /* vectors and matrices: memory is cheap, chains are long */
    struct leaves leaves = {0};
    return count_leaves(g, node, shape_count(node->shape), &leaves);
}

/* --- joining --- */
/* Whether rows of an inline node are the rows of its operand. */
static bool keeps_rows(const struct node *node, uint32_t inner) {
    const struct node *operand = node->inputs[0];
    switch (node->op) {
    case OP_BROADCAST:
    case OP_SLICE:
    case OP_PAD:
        for (int d = 0; d < node->shape.rank; d++) {
            if (inner >> d & 1) continue;
            if (node->shape.size[d] != operand->shape.size[d]) return false;
            if (node->op != OP_BROADCAST && (node->attributes.start[d] != 0 || node->attributes.step[d] != 1))
                return false;
        }
        return true;
    case OP_REVERSE:
        return !(node->attributes.axes & ~inner);
    case OP_AVERAGE_POOL_TRANSPOSE:
        return inner == PLANE_INNER;
    default:
        return is_elementwise(node);
    }
}

enum path { PATH_NONE, PATH_ALIGNED, PATH_BROKEN };

/* How `node`, read by a would-be member of `group`, reaches members of that group. */
static enum path path_to(const struct grouping *g, const struct node *node, int group, uint32_t inner) {
    int i = node->index;
    bool through = false;
    switch (g->role[i]) {
    case ROLE_INPUT:
    case ROLE_LIBRARY:
    case ROLE_CONCAT:
    case ROLE_DEAD:
        return PATH_NONE;
    case ROLE_VIEW:
        while (g->role[node->index] == ROLE_VIEW) node = node->inputs[0];
        return g->group_of[node->index] == group ? PATH_BROKEN : PATH_NONE;
    case ROLE_MEMBER:
        if (g->group_of[i] == group) return PATH_ALIGNED;
        if (!is_recomputed(g, node, group)) return PATH_NONE;
        through = true;
        break;
    case ROLE_INLINE:
        through = keeps_rows(node, inner);
        break;
    }
    enum path path = PATH_NONE;
    for (int k = 0; k < node->input_count; k++) {
        enum path one = path_to(g, node->inputs[k], group, inner);
        if (one == PATH_BROKEN || (one == PATH_ALIGNED && !through)) return PATH_BROKEN;
        if (one == PATH_ALIGNED) path = PATH_ALIGNED;
    }
    return path;
}

/* The groups whose stored results a member of `group` (or -1) reads through `node`. */
static void collect(const struct grouping *g, const struct node *node, int group, uint64_t *read) {
    int i = node->index;
    switch (g->role[i]) {
    case ROLE_INPUT:
    case ROLE_DEAD:
        return;
    case ROLE_VIEW:
        collect(g, node->inputs[0], -1, read);
        return;
    case ROLE_MEMBER:
        if (g->group_of[i] == group) return;
        if (!is_recomputed(g, node, group)) break;
        /* fall through */
    case ROLE_INLINE:
        for (int k = 0; k < node->input_count; k++) collect(g, node->inputs[k], group, read);
        return;
    case ROLE_CONCAT:
    case ROLE_LIBRARY:
        break;
    }
    if (g->group_of[i] >= 0) read[g->group_of[i] / 64] |= (uint64_t)1 << (g->group_of[i] % 64);
}

static int node_lanes(const struct grouping *g, const struct node *node) {
    bool plane = node->shape.rank == 4 && (!is_reduction(node) || reduced_axes(node) == PLANE_INNER);
    return plane && kernels_conv_layout(&g->target, node->shape.size[1]) == LAYOUT_BLOCKED ? g->target.lanes : 1;
}

/* Shape after a reduction is the row's; for the others the node's own. */
static bool shapes_fit(const struct group *group, const struct node *node, uint32_t inner) {
    const struct shape *shape = is_reduction(node) ? &node->inputs[0]->shape : &node->shape;
    for (int d = 0; d < group->rank; d++) {
        bool is_inner = inner >> d & 1;
        if (group->plane && is_inner) continue;
        if (shape->size[d] == group->size[d]) continue;
        if (!is_inner || shape->size[d] != 1) return false;
    }
    return true;
}

static bool can_join(const struct grouping *g, const struct node *node, int number, uint64_t *read) {
    const struct group *group = &g->groups[number];
    if (group->members.count == 0 || group->rank != node->shape.rank || group->lanes != node_lanes(g, node))
        return false;
    if (g->role[group->members.items[0]->index] != ROLE_MEMBER) return false;
    uint32_t inner = group->inner;
    if (is_reduction(node)) {
        if (group->inner_known && group->inner != reduced_axes(node)) return false;
        inner = reduced_axes(node);
    } else if (node->op == OP_AVERAGE_POOL && !group->plane)
        return false;
    if (!shapes_fit(group, node, inner)) return false;
    for (int k = 0; k < node->input_count; k++)
        if (path_to(g, node->inputs[k], number, inner) == PATH_BROKEN) return false;
    memset(read, 0, (size_t)g->words * sizeof *read);
    for (int k = 0; k < node->input_count; k++) collect(g, node->inputs[k], number, read);
    for (int other = 0; other < g->group_count; other++)
        if (read[other / 64] >> (other % 64) & 1 && (other == number || needs(g, other, number))) return false;
    return true;
}

static int new_group(struct grouping *g, const struct node *node) {
    if (g->group_count == g->group_capacity) return -1;
    struct group *group = &g->groups[g->group_count];
    const struct shape *shape = is_reduction(node) ? &node->inputs[0]->shape : &node->shape;
    *group = (struct group){.rank = shape->rank, .lanes = node_lanes(g, node)};
    memcpy(group->size, shape->size, sizeof group->size);
    group->needs = arena_array(&g->arena, (size_t)g->words, sizeof *group->needs);
    if (is_reduction(node)) {
        group->inner = reduced_axes(node);
        group->inner_known = true;
    } else if (shape->rank == 4) {
        group->inner = PLANE_INNER;
        group->inner_known = true;
    }
    group->plane = group->rank == 4 && group->inner == PLANE_INNER;
    return g->group_count++;
}

static bool enter(struct grouping *g, struct node *node, int number, const uint64_t *read) {
    struct group *group = &g->groups[number];
    if (!array_push(&group->members, node)) return false;
    g->group_of[node->index] = number;
    if (is_reduction(node) && !group->inner_known) {
        group->inner = reduced_axes(node);
        group->inner_known = true;
    }
    for (int other = 0; other < g->group_count; other++)
        if (read[other / 64] >> (other % 64) & 1) add_need(g, number, other);
    return true;
}

/* Two groups as one, where neither depends on the other in any way. */
static void try_merge(struct grouping *g, int into, int from) {
    struct group *a = &g->groups[into], *b = &g->groups[from];
    if (into == from || needs(g, into, from) || needs(g, from, into)) return;
    if (a->rank != b->rank || a->lanes != b->lanes || a->plane != b->plane || a->inner_known != b->inner_known
        || a->inner != b->inner)
        return;
    for (int d = 0; d < a->rank; d++)
        if (a->size[d] != b->size[d] && !(a->plane && a->inner >> d & 1)) return;
    for (size_t k = 0; k < b->members.count; k++) {
        if (!array_push(&a->members, b->members.items[k])) return;
        g->group_of[b->members.items[k]->index] = into;
    }
    b->members.count = 0;
    /* Everything that needed either now needs both, and what each needs. */
    for (int k = 0; k < g->group_count; k++) {
        if (k != into && !needs(g, k, into) && !needs(g, k, from)) continue;
        for (int w = 0; w < g->words; w++) g->groups[k].needs[w] |= a->needs[w] | b->needs[w];
        if (k != into) g->groups[k].needs[into / 64] |= (uint64_t)1 << (into % 64);
        g->groups[k].needs[from / 64] &= ~((uint64_t)1 << (from % 64));
    }
}

/* Groups of members that `node` reads, through inline nodes and recomputed members; latest first. */
static void find_candidates(const struct grouping *g, const struct node *node, int *found, int *count, int depth) {
    if (depth > 12) return;
    for (int k = 0; k < node->input_count; k++) {
        const struct node *operand = node->inputs[k];
        enum role role = g->role[operand->index];
        if (role == ROLE_MEMBER) {
            int group = g->group_of[operand->index], at = 0;
            while (at < *count && found[at] != group) at++;
            if (at == *count && *count < 16) found[(*count)++] = group;
            if (is_recomputed(g, operand, -1)) find_candidates(g, operand, found, count, depth + 1);
        } else if (role == ROLE_INLINE)
            find_candidates(g, operand, found, count, depth + 1);
    }
}

static int place_node(struct grouping *g, struct node *node, uint64_t *read);

/* Inline operands that lanes cannot read get memory of their own. */
static int settle_operands(struct grouping *g, const struct node *node, uint64_t *read) {
    int status = RETORT_OK;
    for (int k = 0; k < node->input_count; k++) {
        struct node *operand = node->inputs[k];
        if (g->role[operand->index] != ROLE_INLINE) continue;
        TRY(settle_operands(g, operand, read));
        if (!lanes_can_inline(operand)) {
            g->role[operand->index] = ROLE_MEMBER;
            g->stored[operand->index] = true;
            TRY(place_node(g, operand, read));
        }
    }
done:
    return status;
}

static int place_node(struct grouping *g, struct node *node, uint64_t *read) {
    int status = RETORT_OK;
    int chosen = -1, found[16], count = 0;
    enum role role = g->role[node->index];
    if (role == ROLE_MEMBER) {
        bool index_map = !is_elementwise(node) && !is_reduction(node) && node->op != OP_AVERAGE_POOL;
        if (!index_map && node_lanes(g, node) > 1) TRY(settle_operands(g, node, read));
        find_candidates(g, node, found, &count, 0);
        for (int pick = 0; pick < count && !index_map; pick++) {
            int best = -1;
            for (int k = 0; k < count; k++)
                if (found[k] >= 0 && (best < 0 || found[k] > found[best])) best = k;
            if (best < 0) break;
            int number = found[best];
            if (chosen < 0 && can_join(g, node, number, read)) {
                chosen = number;
                if (!enter(g, node, number, read)) RAISE(RETORT_ENOMEM, "out of memory grouping operations");
            } else if (chosen >= 0)
                try_merge(g, chosen, number);
            found[best] = -1;
        }
    }
    if (chosen < 0) {
        chosen = new_group(g, node);
        if (chosen < 0 || !g->groups[chosen].needs) RAISE(RETORT_ENOMEM, "out of memory grouping operations");
        /* An index map that became a kernel evaluates whatever it reads one element at a time. */
        if (role == ROLE_MEMBER && g->groups[chosen].lanes > 1 && !is_reduction(node) && node->op != OP_AVERAGE_POOL
            && !is_elementwise(node)) {
            bool fits = lanes_can_inline(node);
            if (fits) TRY(settle_operands(g, node, read));
            if (!fits) g->groups[chosen].lanes = 1;
        }
        memset(read, 0, (size_t)g->words * sizeof *read);
        for (int k = 0; k < node->input_count; k++) collect(g, node->inputs[k], chosen, read);
        if (!enter(g, node, chosen, read)) RAISE(RETORT_ENOMEM, "out of memory grouping operations");
    }
done:
    return status;
}

/* Marks the members that readers outside their group take from memory. */
static void mark_stored(struct grouping *g, int group, const struct node *node) {
    for (int k = 0; k < node->input_count; k++) {
        const struct node *operand = node->inputs[k];
        enum role role = g->role[operand->index];
        if (role == ROLE_INLINE || (role == ROLE_MEMBER && is_recomputed(g, operand, group)))
            mark_stored(g, group, operand);
        else if (role == ROLE_MEMBER && g->group_of[operand->index] != group)
            g->stored[operand->index] = true;
    }
}

int grouping_create(const struct graph *graph, const struct kernel_target *target, struct grouping *g) {
    int status = RETORT_OK;
    *g = (struct grouping){.graph = graph, .target = *target, .node_count = graph_count(graph)};
    arena_init(&g->arena);
    size_t count = (size_t)g->node_count;
    g->group_capacity = g->node_count + 1;
    g->words = g->group_capacity / 64 + 1;
    g->role = arena_array(&g->arena, count, sizeof *g->role);
    g->group_of = arena_array(&g->arena, count, sizeof *g->group_of);
    g->stored = arena_array(&g->arena, count, sizeof *g->stored);
    g->users = arena_array(&g->arena, count, sizeof *g->users);
    g->user_count = arena_array(&g->arena, count, sizeof *g->user_count);
    g->groups = arena_array(&g->arena, (size_t)g->group_capacity, sizeof *g->groups);
    bool *is_output = arena_array(&g->arena, count, sizeof *is_output);
    uint64_t *read = arena_array(&g->arena, (size_t)g->words, sizeof *read);
    if (g->arena.failed) RAISE(RETORT_ENOMEM, "out of memory grouping %d operations", g->node_count);
    for (size_t i = 0; i < count; i++) g->group_of[i] = -1;
    for (int i = 0; i < graph_output_count(graph); i++) is_output[graph_output_at(graph, i, NULL)->index] = true;
    for (int i = g->node_count - 1; i >= 0; i--) {
        const struct node *node = graph_node(graph, i);
        if (is_output[i] && g->role[i] == ROLE_DEAD) g->role[i] = ROLE_MEMBER;
        if (g->role[i] == ROLE_DEAD) continue;
        for (int k = 0; k < node->input_count; k++) g->role[node->inputs[k]->index] = ROLE_MEMBER;
    }
    find_users(g);
    if (!g->arena.failed) find_roles(g, is_output);
    if (g->arena.failed) RAISE(RETORT_ENOMEM, "out of memory grouping %d operations", g->node_count);
    for (int i = 0; i < g->node_count; i++) {
        enum role role = g->role[i];
        bool placed = g->group_of[i] >= 0;
        if (!placed && (role == ROLE_MEMBER || role == ROLE_LIBRARY || role == ROLE_CONCAT))
            TRY(place_node(g, graph_node(graph, i), read));
    }
    for (int i = 0; i < g->node_count; i++)
        if (g->group_of[i] >= 0)
            mark_stored(g, g->group_of[i], graph_node(graph, i));
        else if (is_output[i] && g->role[i] == ROLE_INLINE)
            mark_stored(g, -1, graph_node(graph, i));
done:
    if (status < 0) grouping_finish(g);
    return status;
}

void grouping_finish(struct grouping *g) {
    for (int i = 0; i < g->group_count; i++) array_finish(&g->groups[i].members);
    arena_finish(&g->arena);
    *g = (struct grouping){0};
}
