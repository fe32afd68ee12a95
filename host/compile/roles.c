/* What becomes of each node: computed in a fused kernel, evaluated wherever it is read, another name for memory, or the
 * result of a hand-written kernel. */
#include "compile/roles.h"

/* What a node may read through inline operands, counted on every path. */
#define MOST_INLINE_LEAVES 20

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

bool is_reduction(const struct node *node) {
    return node->op == OP_REDUCE_SUM || node->op == OP_REDUCE_MAX || node->op == OP_ARGMAX;
}

uint32_t reduced_axes(const struct node *node) {
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

bool is_unit_reshape(const struct node *node) {
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

/* Whether lanes would run along integers: only float vectors are laid out in blocks. */
static bool has_integer_lanes(const struct node *node) {
    if (node->shape.rank != 4 || node->shape.size[1] == 1) return false;
    bool any = node->dtype == INT32;
    for (int k = 0; k < node->input_count && is_elementwise(node); k++) any |= node->inputs[k]->dtype == INT32;
    return any;
}

/* Whether an inline node can be evaluated with channels as vector lanes. */
static bool lanes_can_inline(const struct node *node) {
    const int64_t *size = node->shape.size;
    if (has_integer_lanes(node)) return false;
    switch (node->op) {
    case OP_CONSTANT:
    case OP_IOTA:
    case OP_AVERAGE_POOL_TRANSPOSE:
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

bool is_index_map(const struct node *node) {
    return !is_elementwise(node) && !is_reduction(node) && node->op != OP_AVERAGE_POOL;
}

bool is_blockable(const struct grouping *g, const struct node *node) {
    return node->shape.rank == 4 && kernels_conv_layout(&g->target, node->shape.size[1]) == LAYOUT_BLOCKED;
}

enum layout opaque_layout(const struct grouping *g, const struct node *node) {
    return node->dtype == FLOAT32 && is_blockable(g, node) ? LAYOUT_BLOCKED : LAYOUT_PLAIN;
}

int node_lanes(const struct grouping *g, const struct node *node) {
    if (!is_blockable(g, node) || (is_reduction(node) && reduced_axes(node) != PLANE_INNER)) return 1;
    if (is_elementwise(node) && !g->near_blocks[node->index]) return 1;
    return has_integer_lanes(node) || (is_index_map(node) && !lanes_can_inline(node)) ? 1 : g->target.lanes;
}

void find_users(struct grouping *g) {
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

/* Whether a node takes its operands from memory as they lie there. */
static bool reads_memory(const struct grouping *g, int user) {
    return g->role[user] == ROLE_LIBRARY || g->role[user] == ROLE_VIEW || graph_node(g->graph, user)->op == OP_RANDOM;
}

static void keep_in_memory(struct grouping *g, const struct node *node) {
    if (g->role[node->index] == ROLE_INLINE) g->role[node->index] = node->op == OP_CONV ? ROLE_LIBRARY : ROLE_MEMBER;
}

/* Whether a convolution is computed anew by the kernels of rows that read it. One of few channels, as the first of a
 * network is, takes few operations for each element of a large result; on GPUs those are done while the result would be
 * on its way from memory, and there are no launches to wait for. A work-item keeps the elements of its row in
 * registers, so a row must not be too long, and the row's own sums be all that its kernel waits for: under batch norm
 * there are more passes. */
static bool is_inline_convolution(const struct grouping *g, const struct node *node, const bool *is_output) {
    enum { MOST_TERMS = 27, MOST_PLANE = 4096 };
    const int64_t *w = node->inputs[1]->shape.size, *y = node->shape.size;
    if (!kernels_on_gpu(&g->target) || is_output[node->index] || node->attributes.stride != 1) return false;
    if (w[1] * w[2] * w[3] > MOST_TERMS || y[2] * y[3] > MOST_PLANE) return false;
    for (int k = 0; k < g->user_count[node->index]; k++) {
        const struct node *user = graph_node(g->graph, g->users[node->index][k]);
        if (!is_elementwise(user) && user->op != OP_AVERAGE_POOL
            && !(is_reduction(user) && reduced_axes(user) == PLANE_INNER))
            return false;
        for (int i = 0; i < g->user_count[user->index] && is_reduction(user); i++)
            if (is_reduction(graph_node(g->graph, g->users[user->index][i]))) return false;
    }
    return true;
}

/* Inline operands that lanes cannot read get memory of their own. */
static void settle_operands(struct grouping *g, const struct node *node, bool *settled) {
    for (int k = 0; k < node->input_count; k++) {
        const struct node *operand = node->inputs[k];
        if (g->role[operand->index] != ROLE_INLINE || settled[operand->index]) continue;
        settled[operand->index] = true;
        if (lanes_can_inline(operand))
            settle_operands(g, operand, settled);
        else
            keep_in_memory(g, operand);
    }
}

const struct node *reshaped_root(const struct grouping *g, const struct node *node) {
    while (node->op == OP_RESHAPE && (g->role[node->index] == ROLE_VIEW || g->role[node->index] == ROLE_INLINE))
        node = node->inputs[0];
    return node;
}

/* Whether a reshape is evaluated where it is read, and the sum of two operations' results that it reads with it: on
 * GPUs adding once more costs less than a launch that others wait for. */
static bool is_reshaped_sum(const struct grouping *g, const struct node *node, const bool *is_output) {
    const struct node *sum = node->inputs[0];
    if (!kernels_on_gpu(&g->target) || sum->op != OP_ADD || sum->dtype != FLOAT32) return false;
    if (is_output[node->index] || is_output[sum->index] || g->user_count[sum->index] != 1) return false;
    for (int k = 0; k < 2; k++)
        if (g->role[sum->inputs[k]->index] != ROLE_LIBRARY) return false;
    for (int k = 0; k < g->user_count[node->index]; k++) {
        const struct node *user = graph_node(g->graph, g->users[node->index][k]);
        bool places = user->op == OP_AVERAGE_POOL || user->op == OP_AVERAGE_POOL_TRANSPOSE;
        if (!places && !is_elementwise(user) && !is_reduction(user)) return false;
    }
    return true;
}

static enum role role_of(const struct grouping *g, const struct node *node, const bool *is_output, bool small) {
    enum role operand = node->input_count ? g->role[node->inputs[0]->index] : ROLE_DEAD;
    bool placed = operand == ROLE_INPUT || operand == ROLE_VIEW || operand == ROLE_LIBRARY || operand == ROLE_CONCAT;
    switch (node->op) {
    case OP_INPUT:
        return ROLE_INPUT;
    case OP_CONSTANT:
    case OP_IOTA:
    case OP_BROADCAST:
    case OP_PERMUTE:
    case OP_PAD:
    case OP_REVERSE:
    case OP_ONE_HOT:
    case OP_AVERAGE_POOL_TRANSPOSE:
    case OP_GATHER_ROWS:
        return ROLE_INLINE;
    case OP_RESHAPE:
        if (is_reshaped_sum(g, node, is_output)) return ROLE_INLINE;
        return is_unit_reshape(node) && !placed ? ROLE_INLINE : ROLE_VIEW;
    case OP_SLICE:
        if (!is_contiguous_slice(node)) return ROLE_INLINE;
        return operand == ROLE_INPUT || operand == ROLE_VIEW || (node->shape.rank == 1 && operand != ROLE_INLINE)
                   ? ROLE_VIEW
                   : ROLE_INLINE;
    case OP_CONCAT:
        return is_contiguous_concat(node) ? ROLE_CONCAT : ROLE_INLINE;
    case OP_CONV:
        return is_inline_convolution(g, node, is_output) ? ROLE_INLINE : ROLE_LIBRARY;
    case OP_MATMUL:
    case OP_CONV_BACKWARD_DATA:
    case OP_CONV_BACKWARD_WEIGHT:
    case OP_SCATTER_ROWS:
    case OP_SAMPLE:
    case OP_SAMPLE_TRANSPOSE:
    case OP_EIGH:
        return ROLE_LIBRARY;
    default:
        return small ? ROLE_INLINE : ROLE_MEMBER;
    }
}

void find_roles(struct grouping *g, const bool *is_output) {
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
        g->role[i] = role_of(g, node, is_output, small[i]);
        if (node->op == OP_RESHAPE && is_reshaped_sum(g, node, is_output))
            g->role[node->inputs[0]->index] = ROLE_INLINE;
    }
    /* Where planes in blocks are at hand: results of convolutions and of kernels of rows, opaque inputs, and what is
     * computed of them. */
    for (int i = 0; i < g->node_count; i++) {
        const struct node *node = graph_node(g->graph, i);
        bool computed = g->role[i] == ROLE_MEMBER || g->role[i] == ROLE_INLINE;
        g->near_blocks[i] = is_blockable(g, node)
                            && (node->op == OP_CONV || node->op == OP_CONV_BACKWARD_DATA || is_reduction(node)
                                || node->op == OP_AVERAGE_POOL || node->attributes.opaque);
        for (int k = 0; k < node->input_count && computed; k++)
            g->near_blocks[i] |= g->near_blocks[node->inputs[k]->index];
    }
    int *leaves = arena_array(&g->arena, (size_t)g->node_count, sizeof *leaves);
    bool *settled = arena_array(&g->arena, (size_t)g->node_count, sizeof *settled);
    if (!leaves || !settled) return;
    /* Where a kernel would have too many operands, some intermediate values are stored and read back. */
    for (int i = 0; i < g->node_count; i++) {
        const struct node *node = graph_node(g->graph, i);
        if (g->role[i] != ROLE_INLINE && g->role[i] != ROLE_MEMBER) continue;
        for (int k = 0; k < node->input_count; k++) {
            int operand = node->inputs[k]->index;
            leaves[i] += g->role[operand] == ROLE_INLINE ? leaves[operand] : 1;
        }
        if (leaves[i] > MOST_INLINE_LEAVES) {
            leaves[i] = node->input_count;
            for (int k = 0; k < node->input_count; k++) keep_in_memory(g, node->inputs[k]);
        }
    }
    /* Hand-written kernels and views read nothing else. */
    for (int i = 0; i < g->node_count; i++) {
        const struct node *node = graph_node(g->graph, i);
        for (int k = 0; k < node->input_count && reads_memory(g, i); k++) keep_in_memory(g, node->inputs[k]);
    }
    for (int i = 0; i < g->node_count; i++)
        if (g->role[i] == ROLE_MEMBER && node_lanes(g, graph_node(g->graph, i)) > 1)
            settle_operands(g, graph_node(g->graph, i), settled);
    for (int i = 0; i < g->node_count; i++) {
        if (g->role[i] != ROLE_MEMBER) continue;
        g->stored[i] = is_output[i];
        for (int k = 0; k < g->user_count[i]; k++) g->stored[i] |= reads_memory(g, g->users[i][k]);
    }
    /* Parts of concatenations are computed in their place. */
    for (int i = 0; i < g->node_count; i++) {
        const struct node *node = graph_node(g->graph, i);
        for (int k = 0; k < node->input_count && g->role[i] == ROLE_CONCAT; k++) {
            int root = reshaped_root(g, node->inputs[k])->index;
            g->stored[root] |= g->role[root] == ROLE_MEMBER;
        }
    }
}

/* --- recomputation --- */
struct leaves {
    const struct node *full[3];
    int count, visited;
};

/* Counts the full-size tensors that would be read to compute `node` again; false where they are too many, or where
 * storing it is cheaper. */
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

/* Rows of an input that hand-written kernels want in memory: on GPUs others read them where they lie, for the price of
 * an index, rather than wait for the launch that copies them. */
static bool is_gathered_input(const struct grouping *g, const struct node *node) {
    return node->op == OP_GATHER_ROWS && kernels_on_gpu(&g->target) && g->role[node->inputs[0]->index] == ROLE_INPUT
           && g->role[node->inputs[1]->index] == ROLE_INPUT;
}

bool is_recomputed(const struct grouping *g, const struct node *node, int reader_group) {
    int i = node->index;
    if (g->role[i] != ROLE_MEMBER || g->group_of[i] == reader_group) return false;
    if (is_gathered_input(g, node)) return true;
    if (g->stored[i] || !is_elementwise(node)) return false;
    if (node->shape.rank != 4)
        return false; /* vectors and matrices are small, but long chains of them occur: storing is cheaper */
    if (has_integer_lanes(node)) return false; /* lanes hold floats only, and the reader may use them */
    struct leaves leaves = {0};
    return count_leaves(g, node, shape_count(node->shape), &leaves);
}

bool is_loaded(const struct grouping *g, int group, const struct node *node) {
    switch (g->role[node->index]) {
    case ROLE_INPUT:
    case ROLE_VIEW:
    case ROLE_LIBRARY:
    case ROLE_CONCAT:
        return true;
    case ROLE_MEMBER:
        return g->group_of[node->index] != group && !is_recomputed(g, node, group);
    default:
        return false;
    }
}

bool is_own_reduction(const struct grouping *g, int group, const struct node *node) {
    return is_reduction(node) && g->role[node->index] == ROLE_MEMBER && g->group_of[node->index] == group;
}

int operand_lane(const struct node *node, int k, int lane) {
    const struct shape *from = &node->inputs[k]->shape;
    if (lane < 0) return -1;
    switch (node->op) {
    case OP_RANDOM:
        return -1; /* the seed */
    case OP_BROADCAST:
        return from->size[lane] == node->shape.size[lane] ? lane : -1;
    case OP_PERMUTE:
        return (int)node->attributes.start[lane];
    case OP_GATHER_ROWS:
        return k == 0 ? lane : -1; /* the second operand is the rows' numbers */
    case OP_ONE_HOT:
        return lane < from->rank ? lane : -1;
    case OP_RESHAPE: /* only dimensions of size 1 come or go */
        for (int d = 0, i = 0; d < from->rank; d++) {
            if (from->size[d] == 1) continue;
            while (node->shape.size[i] == 1) i++;
            if (i++ == lane) return d;
        }
        return -1;
    default:
        return lane;
    }
}
