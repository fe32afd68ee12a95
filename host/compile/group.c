/* Row fusion: which nodes share a kernel. Nodes are visited in topological order; a node joins the group of one of its
 * operands where the rows agree and no path would leave the group and come back, otherwise it starts a group. */
#include "compile/group.h"

#include "base/error.h"
#include "compile/convolution.h"
#include "compile/roles.h"

#include <stdlib.h>
#include <string.h>

/* --- bit sets --- */
static bool bit(const uint64_t *set, int i) {
    return set[i / 64] >> (i % 64) & 1;
}

static void bit_set(uint64_t *set, int i) {
    set[i / 64] |= (uint64_t)1 << (i % 64);
}

static bool needs(const struct grouping *g, int group, int other) {
    return bit(g->groups[group].needs, other);
}

/* `group` comes to depend on `other` and all that it needs, and so do all groups that depend on `group`. */
static void add_need(struct grouping *g, int group, int other) {
    if (group == other || needs(g, group, other)) return;
    for (int k = 0; k < g->group_count; k++) {
        if (k != group && !needs(g, k, group)) continue;
        for (int w = 0; w < g->words; w++) g->groups[k].needs[w] |= g->groups[other].needs[w];
        bit_set(g->groups[k].needs, other);
    }
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
        return node->shape.rank == 4 && inner == PLANE_INNER;
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

/* Bit sets: the nodes loaded, the groups that store them, and the nodes evaluated on the way. */
struct reads {
    uint64_t *nodes, *groups, *inside;
};

/* What a member of `group` (or -1) reads through `node`. `memory`: it takes the node from memory as it lies there. */
static void collect(const struct grouping *g, const struct node *node, int group, bool memory, struct reads *reads) {
    const struct node *base = node;
    switch (g->role[node->index]) {
    case ROLE_MEMBER:
        if (g->group_of[node->index] == group) return;
        if (memory || !is_recomputed(g, node, group)) break;
        /* fall through */
    case ROLE_INLINE:
        bit_set(reads->inside, node->index);
        memory &= node->op == OP_RESHAPE;
        for (int k = 0; k < node->input_count; k++) collect(g, node->inputs[k], group, memory, reads);
        return;
    case ROLE_VIEW:
        while (g->role[base->index] == ROLE_VIEW) base = base->inputs[0];
        break;
    default:
        break;
    }
    bit_set(reads->nodes, node->index);
    if (g->group_of[base->index] >= 0) bit_set(reads->groups, g->group_of[base->index]);
}

static void collect_operands(const struct grouping *g, const struct node *node, int group, struct reads *reads) {
    memset(reads->groups, 0, (size_t)g->words * sizeof *reads->groups);
    memset(reads->nodes, 0, (size_t)g->words * sizeof *reads->nodes);
    memset(reads->inside, 0, (size_t)g->words * sizeof *reads->inside);
    bit_set(reads->inside, node->index);
    bool memory = g->role[node->index] != ROLE_MEMBER;
    for (int k = 0; k < node->input_count; k++) collect(g, node->inputs[k], group, memory, reads);
}

/* Whether something outside the group reads a member, or may do so later. */
static bool is_read_outside(const struct grouping *g, const struct node *node, int group) {
    for (int k = 0; k < g->user_count[node->index]; k++) {
        int user = g->users[node->index][k];
        if (g->role[user] == ROLE_INLINE ? is_read_outside(g, graph_node(g->graph, user), group)
                                         : g->group_of[user] != group)
            return true;
    }
    return false;
}

/* Whether a kernel of the members of `group`, of `other` (or -1) and of a node that reads `reads` has few enough
 * arguments. Counts too many rather than too few. */
static bool operands_fit(const struct grouping *g, int group, int other, const struct reads *reads) {
    int loads = 0, stores = 1;
    for (int w = 0; w < g->words; w++) {
        uint64_t nodes = g->groups[group].loads[w];
        if (reads) nodes |= reads->nodes[w];
        if (other >= 0) nodes |= g->groups[other].loads[w];
        loads += __builtin_popcountll(nodes);
    }
    size_t members = g->groups[group].members.count + (other >= 0 ? g->groups[other].members.count : 0);
    if (loads + members + 1 <= LAUNCH_MAX_BUFFERS) return true;
    for (int part = group; part >= 0; part = part == group ? other : -1)
        for (size_t k = 0; k < g->groups[part].members.count; k++) {
            const struct node *node = g->groups[part].members.items[k];
            stores += g->stored[node->index] || (!is_recomputed(g, node, -1) && is_read_outside(g, node, part));
        }
    return loads + stores <= LAUNCH_MAX_BUFFERS;
}

/* Instructions, very roughly: functions are long series of them. */
static int text_size(const struct node *node) {
    switch (node->op) {
    case OP_EXP:
    case OP_LOG:
    case OP_TANH:
    case OP_ERF:
    case OP_SIN:
    case OP_COS:
    case OP_RANDOM:
        return 10;
    case OP_CONV: /* an inline one */
        return (int)(shape_count(node->inputs[1]->shape) / node->inputs[1]->shape.size[0]);
    default:
        return 1;
    }
}

/* The same for what the kernel evaluates. Compilers take more than proportionally longer for long kernels: PoCL about
 * a second for one of this size. */
static bool size_fits(const struct grouping *g, int group, int other, const struct reads *reads) {
    enum { MOST = 200 };
    int size = 0;
    for (int w = 0; w < g->words; w++) {
        uint64_t nodes = g->groups[group].inside[w];
        if (reads) nodes |= reads->inside[w];
        if (other >= 0) nodes |= g->groups[other].inside[w];
        for (; nodes; nodes &= nodes - 1) size += text_size(graph_node(g->graph, w * 64 + __builtin_ctzll(nodes)));
    }
    return size <= MOST;
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

/* Whether all that a node of one element reads of a group are its sums. */
static bool reads_sums(const struct grouping *g, const struct node *node, int number) {
    if (shape_count(node->shape) != 1 || !is_elementwise(node)) return false;
    for (int k = 0; k < node->input_count; k++) {
        const struct node *operand = node->inputs[k];
        while (g->role[operand->index] == ROLE_INLINE && operand->op == OP_RESHAPE) operand = operand->inputs[0];
        bool evaluated = g->role[operand->index] == ROLE_INLINE || g->group_of[operand->index] == number;
        if (evaluated && !is_reduction(operand) && operand->op != OP_CONSTANT && !reads_sums(g, operand, number))
            return false;
    }
    return true;
}

/* Whether the group goes over one row, whose sums a node of one element waits for: work-items that have added them up
 * go on with it, whatever its rank is. */
static bool follows_sums(const struct grouping *g, const struct node *node, int number) {
    const struct group *group = &g->groups[number];
    if (g->target.family != FAMILY_GPU || !group->inner_known || group->plane) return false;
    for (int d = 0; d < group->rank; d++)
        if (!(group->inner >> d & 1) && group->size[d] != 1) return false;
    return reads_sums(g, node, number);
}

/* Whether a node's rows are the group's. */
static bool rows_agree(const struct grouping *g, const struct node *node, int number) {
    const struct group *group = &g->groups[number];
    if (group->rank != node->shape.rank || group->lanes != node_lanes(g, node)) return false;
    uint32_t inner = group->inner;
    if (is_reduction(node)) {
        if (group->inner_known && group->inner != reduced_axes(node)) return false;
        inner = reduced_axes(node);
    } else if (node->op == OP_AVERAGE_POOL && !group->plane)
        return false;
    if (!shapes_fit(group, node, inner)) return false;
    for (int k = 0; k < node->input_count; k++)
        if (path_to(g, node->inputs[k], number, inner) == PATH_BROKEN) return false;
    return true;
}

static bool can_join(const struct grouping *g, const struct node *node, int number, struct reads *reads) {
    const struct group *group = &g->groups[number];
    if (group->members.count == 0 || g->role[group->members.items[0]->index] != ROLE_MEMBER) return false;
    if (!rows_agree(g, node, number) && !follows_sums(g, node, number)) return false;
    collect_operands(g, node, number, reads);
    for (int other = 0; other < g->group_count; other++)
        if (bit(reads->groups, other) && (other == number || needs(g, other, number))) return false;
    return operands_fit(g, number, -1, reads) && size_fits(g, number, -1, reads);
}

static int new_group(struct grouping *g, const struct node *node) {
    if (g->group_count == g->group_capacity) return -1;
    struct group *group = &g->groups[g->group_count];
    const struct shape *shape = is_reduction(node) ? &node->inputs[0]->shape : &node->shape;
    *group = (struct group){.rank = shape->rank, .lanes = node_lanes(g, node)};
    memcpy(group->size, shape->size, sizeof group->size);
    group->needs = arena_array(&g->arena, (size_t)g->words, sizeof *group->needs);
    group->loads = arena_array(&g->arena, (size_t)g->words, sizeof *group->loads);
    group->inside = arena_array(&g->arena, (size_t)g->words, sizeof *group->inside);
    if (is_reduction(node)) {
        group->inner = reduced_axes(node);
        group->inner_known = true;
    } else if (shape->rank == 4 && !(group->lanes < g->target.lanes && is_blockable(g, node))) {
        group->inner = PLANE_INNER;
        group->inner_known = true;
    }
    group->plane = group->rank == 4 && group->inner == PLANE_INNER;
    return g->group_count++;
}

static bool enter(struct grouping *g, struct node *node, int number, const struct reads *reads) {
    struct group *group = &g->groups[number];
    if (!array_push(&group->members, node)) return false;
    g->group_of[node->index] = number;
    if (is_reduction(node) && !group->inner_known) {
        group->inner = reduced_axes(node);
        group->inner_known = true;
    }
    for (int other = 0; other < g->group_count; other++)
        if (bit(reads->groups, other)) add_need(g, number, other);
    for (int w = 0; w < g->words; w++) {
        group->loads[w] |= reads->nodes[w];
        group->inside[w] |= reads->inside[w];
    }
    return true;
}

static bool all_fit(const struct group *group, const struct group *others) {
    for (size_t k = 0; k < others->members.count; k++)
        if (!shapes_fit(group, others->members.items[k], group->inner)) return false;
    return true;
}

/* Whether two groups, and a node that reads `reads`, can be one: rows that agree, and neither depends on the other. */
static bool can_merge(const struct grouping *g, int into, int from, const struct reads *reads) {
    const struct group *a = &g->groups[into], *b = &g->groups[from];
    if (into == from || needs(g, into, from) || needs(g, from, into)) return false;
    if (a->rank != b->rank || a->lanes != b->lanes || a->plane != b->plane) return false;
    for (int d = 0; d < a->rank; d++)
        if (a->size[d] != b->size[d] && !(a->plane && a->inner >> d & 1)) return false;
    if (a->inner_known == b->inner_known ? a->inner != b->inner : a->inner_known ? !all_fit(a, b) : !all_fit(b, a))
        return false;
    return operands_fit(g, into, from, reads) && size_fits(g, into, from, reads);
}

static bool merge(struct grouping *g, int into, int from) {
    struct group *a = &g->groups[into], *b = &g->groups[from];
    for (size_t k = 0; k < b->members.count; k++) {
        if (!array_push(&a->members, b->members.items[k])) return false;
        g->group_of[b->members.items[k]->index] = into;
    }
    b->members.count = 0;
    for (int w = 0; w < g->words; w++) {
        a->loads[w] |= b->loads[w];
        a->inside[w] |= b->inside[w];
    }
    if (b->inner_known) a->inner = b->inner;
    a->inner_known |= b->inner_known;
    /* Everything that needed either now needs both, and what each needs. */
    for (int k = 0; k < g->group_count; k++) {
        if (k != into && !needs(g, k, into) && !needs(g, k, from)) continue;
        for (int w = 0; w < g->words; w++) g->groups[k].needs[w] |= a->needs[w] | b->needs[w];
        if (k != into) bit_set(g->groups[k].needs, into);
        g->groups[k].needs[from / 64] &= ~((uint64_t)1 << (from % 64));
    }
    return true;
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

static int place_node(struct grouping *g, struct node *node, struct reads *reads) {
    int status = RETORT_OK;
    int chosen = -1, found[16], count = 0;
    enum role role = g->role[node->index];
    if (role == ROLE_MEMBER) {
        if (!is_index_map(node)) find_candidates(g, node, found, &count, 0);
        /* The latest group that fits, and all others that fit and can be one with it. */
        for (int pick = 0; pick < count; pick++) {
            int best = 0;
            for (int k = 1; k < count; k++)
                if (found[k] > found[best]) best = k;
            int number = found[best];
            found[best] = -1;
            if (!can_join(g, node, number, reads)) continue;
            if (chosen < 0)
                chosen = number;
            else if (can_merge(g, chosen, number, reads) && !merge(g, chosen, number))
                RAISE(RETORT_ENOMEM, "out of memory grouping operations");
        }
        if (chosen >= 0) {
            collect_operands(g, node, chosen, reads);
            if (!enter(g, node, chosen, reads)) RAISE(RETORT_ENOMEM, "out of memory grouping operations");
        }
    }
    if (chosen < 0) {
        chosen = new_group(g, node);
        if (chosen < 0 || g->arena.failed) RAISE(RETORT_ENOMEM, "out of memory grouping operations");
        collect_operands(g, node, chosen, reads);
        if (!enter(g, node, chosen, reads)) RAISE(RETORT_ENOMEM, "out of memory grouping operations");
    }
done:
    return status;
}

/* Whether a group brings rows of inputs into memory on a GPU: it waits for nothing, others wait for it. */
static bool copies_rows(const struct grouping *g, const struct group *group) {
    return group->members.items[0]->op == OP_GATHER_ROWS && kernels_on_gpu(&g->target);
}

/* Small groups over the same rows share a launch even where nothing connects them: gradients of gammas and betas, say.
 */
static int merge_small(struct grouping *g) {
    enum { SMALL = 1 << 14, MEMBERS_MAX = 24 };
    for (int i = 0; i < g->group_count; i++) {
        struct group *a = &g->groups[i];
        int64_t count = 1;
        for (int d = 0; d < a->rank; d++) count *= a->size[d];
        if (!a->members.count || g->role[a->members.items[0]->index] != ROLE_MEMBER || count > SMALL) continue;
        for (int k = i + 1; k < g->group_count; k++) {
            struct group *b = &g->groups[k];
            if (!b->members.count || g->role[b->members.items[0]->index] != ROLE_MEMBER) continue;
            if (a->members.count + b->members.count > MEMBERS_MAX || !can_merge(g, i, k, NULL)) continue;
            if (copies_rows(g, a) != copies_rows(g, b)) continue;
            if (!merge(g, i, k)) return error_set(RETORT_ENOMEM, "out of memory grouping operations");
        }
    }
    return RETORT_OK;
}

static int merge_convolutions(struct grouping *g) {
    for (int i = 0; i < g->group_count; i++)
        for (int k = i + 1; k < g->group_count; k++) {
            if (!convolutions_join(g, &g->groups[i], &g->groups[k]) || needs(g, i, k) || needs(g, k, i)) continue;
            if (!merge(g, i, k)) return error_set(RETORT_ENOMEM, "out of memory grouping operations");
        }
    return RETORT_OK;
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
    g->near_blocks = arena_array(&g->arena, count, sizeof *g->near_blocks);
    g->users = arena_array(&g->arena, count, sizeof *g->users);
    g->user_count = arena_array(&g->arena, count, sizeof *g->user_count);
    g->groups = arena_array(&g->arena, (size_t)g->group_capacity, sizeof *g->groups);
    bool *is_output = arena_array(&g->arena, count, sizeof *is_output);
    struct reads reads = {.groups = arena_array(&g->arena, (size_t)g->words, sizeof *reads.groups),
                          .nodes = arena_array(&g->arena, (size_t)g->words, sizeof *reads.nodes),
                          .inside = arena_array(&g->arena, (size_t)g->words, sizeof *reads.inside)};
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
    if (!g->arena.failed) convolution_sums(g, is_output);
    if (g->arena.failed) RAISE(RETORT_ENOMEM, "out of memory grouping %d operations", g->node_count);
    for (int i = 0; i < g->node_count; i++) {
        enum role role = g->role[i];
        if (role == ROLE_MEMBER || role == ROLE_LIBRARY || role == ROLE_CONCAT)
            TRY(place_node(g, graph_node(graph, i), &reads));
    }
    TRY(merge_convolutions(g));
    TRY(merge_small(g));
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

int grouping_check(const struct grouping *g) {
    int status = RETORT_OK;
    for (int i = 0; i < g->node_count; i++) {
        enum role role = g->role[i];
        bool grouped = role == ROLE_MEMBER || role == ROLE_LIBRARY || role == ROLE_CONCAT;
        if (grouped != (g->group_of[i] >= 0))
            RAISE(RETORT_EUNSUPPORTED, "cannot compile: node %d (%s) has no kernel, or one that it does not need", i,
                  op_info(graph_node(g->graph, i)->op)->name);
    }
    for (int k = 0; k < g->group_count; k++)
        for (int other = 0; other < g->group_count; other++)
            if (g->groups[k].members.count && g->groups[other].members.count && needs(g, k, other)
                && (k == other || needs(g, other, k)))
                RAISE(RETORT_EUNSUPPORTED, "cannot compile: kernels %d and %d wait for each other", k, other);
done:
    return status;
}

void grouping_print(const struct grouping *g, FILE *stream) {
    static const char *const roles[] = {"dead", "input", "inline", "view", "fused", "concatenation", "operation"};
    for (int k = 0; k < g->group_count; k++) {
        const struct group *group = &g->groups[k];
        if (!group->members.count) continue;
        char size[160];
        shape_print(shape_make(group->rank, group->size), size, sizeof size);
        fprintf(stream, "%4d  %s %s, inner %#x, %d lanes:", k, roles[g->role[group->members.items[0]->index]], size,
                group->inner, group->lanes);
        for (size_t m = 0; m < group->members.count; m++) {
            const struct node *node = group->members.items[m];
            fprintf(stream, " %%%d %s%s", node->index, op_info(node->op)->name, g->stored[node->index] ? "*" : "");
        }
        fputc('\n', stream);
    }
}
