/* From groups to launches: which value lies where and how, in which order kernels run, which hand-written ones. */
#include "compile/internal.h"

#include <stdlib.h>
#include <string.h>

static struct value *new_value(struct lowering *l, const struct node *node, enum layout layout, size_t floats) {
    struct value *value = arena_alloc(&l->arena, sizeof *value);
    if (!value || !array_push(&l->values, value)) return NULL;
    *value = (struct value){.node = node, .layout = layout, .floats = floats, .slot = -1, .first = -1, .last = -1};
    value->is_int = node && node->dtype == INT32;
    return value;
}

struct value *lowering_scratch(struct lowering *l, const struct node *node, size_t floats) {
    return new_value(l, node, LAYOUT_PLAIN, floats);
}

/* New memory for a whole node. */
static struct value *new_tensor(struct lowering *l, const struct node *node, enum layout layout) {
    const int64_t *size = node->shape.size;
    int64_t lanes = l->target.lanes, count = shape_count(node->shape);
    if (layout == LAYOUT_BLOCKED) count = size[0] * ((size[1] + lanes - 1) / lanes) * lanes * size[2] * size[3];
    return new_value(l, node, layout, (size_t)count);
}

/* --- launches of hand-written kernels --- */
struct launch *lowering_launch(struct lowering *l, const struct kernel_use *use, struct value *const *buffers,
                               int outputs, int count, double flops) {
    struct launch *launch = arena_alloc(&l->arena, sizeof *launch);
    const char *template = kernels_text(use->file);
    if (!launch || !template || !array_push(&l->launches, launch)) return NULL;
    *launch = (struct launch){
        .what = arena_copy_text(&l->arena, use->file), .buffer_count = count, .output_count = outputs, .kernel = -1};
    launch->text = arena_printf(&l->arena, "%s%s", use->parameters, template);
    memcpy(launch->global, use->global, sizeof launch->global);
    memcpy(launch->local, use->local, sizeof launch->local);
    launch->buffers = arena_array(&l->arena, (size_t)count, sizeof *launch->buffers);
    if (l->arena.failed) return NULL;
    memcpy(launch->buffers, buffers, (size_t)count * sizeof *buffers);
    launch->flops = flops;
    return launch;
}

/* Packs `from` (weights, a matrix), or finds the result of the same packing earlier in the list. */
struct value *lowering_packed(struct lowering *l, const struct kernel_use *use, size_t floats, struct value *from) {
    const char *template = kernels_text(use->file);
    char *text = arena_printf(&l->arena, "%s%s", use->parameters, template ? template : "");
    if (!text) return NULL;
    for (size_t i = 0; i < l->launches.count; i++) {
        const struct launch *launch = l->launches.items[i];
        if (launch->buffer_count == 2 && launch->buffers[1] == from && strcmp(launch->text, text) == 0)
            return launch->buffers[0];
    }
    struct value *to = new_value(l, NULL, LAYOUT_PLAIN, floats);
    if (!to || !lowering_launch(l, use, (struct value *[]){to, from}, 1, 2, 0)) return NULL;
    return to;
}

/* --- values --- */
/* Adds the launch that brings a tensor into the other layout; false when out of memory. */
static bool relayout(struct lowering *l, struct value *from, struct value *to) {
    const int64_t *size = to->node->shape.size;
    struct kernel_use use = {0};
    return kernels_relayout(&l->target, size[0], size[1], size[2], size[3], from->layout, to->layout, &use) >= 0
           && lowering_launch(l, &use, (struct value *[]){to, from}, 1, 2, 0);
}

struct value *lowering_value(struct lowering *l, const struct node *node, enum layout layout) {
    int i = node->index;
    if (l->target.lanes == 1) layout = LAYOUT_PLAIN;
    struct value **wanted = layout == LAYOUT_BLOCKED ? &l->blocked[i] : &l->plain[i];
    if (*wanted) return *wanted;
    if (l->grouping->role[i] == ROLE_VIEW && !l->plain[i]) {
        struct value *base = lowering_value(l, node->inputs[0], LAYOUT_PLAIN);
        struct value *view = base ? new_value(l, node, LAYOUT_PLAIN, (size_t)shape_count(node->shape)) : NULL;
        if (!view) return NULL;
        view->parent = base;
        if (node->op == OP_SLICE && node->shape.rank) {
            int64_t row = 1;
            for (int d = 1; d < node->shape.rank; d++) row *= node->shape.size[d];
            view->offset = (size_t)(node->attributes.start[0] * row);
        }
        l->plain[i] = view;
        if (layout == LAYOUT_PLAIN) return view;
    }
    struct value *other = layout == LAYOUT_BLOCKED ? l->plain[i] : l->blocked[i];
    if (!other || node->shape.rank != 4) {
        error_set(RETORT_EUNSUPPORTED, "cannot compile: node %d (%s) is read but not in memory", i,
                  op_info(node->op)->name);
        return NULL;
    }
    struct value *value = new_tensor(l, node, layout);
    if (!value || !relayout(l, other, value)) return NULL;
    return *wanted = value;
}

static bool is_opaque_output(const struct grouping *g, const struct node *node) {
    for (int k = 0; k < graph_output_count(g->graph); k++)
        if (graph_output_is_opaque(g->graph, k) && graph_output_at(g->graph, k, NULL) == node) return true;
    return false;
}

/* Whether every reader of a stored member wants it plain: views, concatenations, or the graph's user. */
static bool is_wanted_plain(const struct grouping *g, const struct node *node) {
    int i = node->index, readers = 0;
    if (is_opaque_output(g, node)) return false;
    for (int k = 0; k < g->user_count[i]; k++) {
        int user = g->users[i][k];
        if (g->role[user] == ROLE_MEMBER && g->group_of[user] == g->group_of[i]) continue;
        if (g->role[user] != ROLE_VIEW && g->role[user] != ROLE_CONCAT) return false;
        readers++;
    }
    return readers > 0 || g->user_count[i] == 0;
}

/* The layout in which the kernel that computes a node writes it. */
static enum layout natural_layout(const struct lowering *l, const struct node *node) {
    const struct grouping *g = l->grouping;
    const int64_t *size = node->shape.size;
    if (l->target.lanes == 1) return LAYOUT_PLAIN;
    if (is_convolution(l->grouping, node) && convolution_pass(node) != CONV_BACKWARD_WEIGHT)
        return kernels_conv_layout(&l->target, size[1]);
    if (g->role[node->index] != ROLE_MEMBER || g->groups[g->group_of[node->index]].lanes == 1) return LAYOUT_PLAIN;
    return size[2] * size[3] > 1 && !is_wanted_plain(g, node) ? LAYOUT_BLOCKED : LAYOUT_PLAIN;
}

/* --- concatenations whose parts are computed in place --- */
struct placement {
    const struct node *concat;
    size_t offset;
};

static void find_placements(struct lowering *l, struct placement *placements, const int *output_slot) {
    const struct grouping *g = l->grouping;
    for (int i = g->node_count - 1; i >= 0; i--) {
        const struct node *concat = graph_node(g->graph, i);
        if (g->role[i] != ROLE_CONCAT) continue;
        size_t offset = 0;
        for (int k = 0; k < concat->input_count; k++) {
            const struct node *root = reshaped_root(g, concat->inputs[k]);
            enum role role = g->role[root->index];
            bool computed = role == ROLE_MEMBER ? g->stored[root->index] : role == ROLE_LIBRARY || role == ROLE_CONCAT;
            if (computed && natural_layout(l, root) == LAYOUT_PLAIN && output_slot[root->index] < 0
                && !placements[root->index].concat)
                placements[root->index] = (struct placement){.concat = concat, .offset = offset};
            offset += (size_t)shape_count(concat->inputs[k]->shape);
        }
    }
}

/* Gives a computed node its memory: an output's, a place in a concatenation, or its own. */
static struct value *create_value(struct lowering *l, const struct node *node, const struct placement *placements,
                                  const int *output_slot) {
    int i = node->index;
    enum layout layout = natural_layout(l, node);
    struct value **at = layout == LAYOUT_BLOCKED ? &l->blocked[i] : &l->plain[i];
    if (*at) return *at;
    struct value *value = new_tensor(l, node, layout);
    if (!value) return NULL;
    *at = value;
    if (output_slot[i] >= 0)
        value->slot = output_slot[i];
    else if (placements[i].concat) {
        value->parent = create_value(l, placements[i].concat, placements, output_slot);
        value->offset = placements[i].offset;
        if (!value->parent) return NULL;
    }
    return value;
}

/* --- library operations --- */
static int lower_library(struct lowering *l, const struct node *node, struct value *out) {
    int status = RETORT_OK;
    const struct kernel_target *target = &l->target;
    const int64_t *size = node->shape.size;
    const struct node *a = node->inputs[0], *b = node->input_count > 1 ? node->inputs[1] : NULL;
    double flops = op_info(node->op)->cost(node);
    bool added = false;
    switch (node->op) {
    case OP_MATMUL: {
        bool ta = node->attributes.transpose_a, tb = node->attributes.transpose_b;
        int r = node->shape.rank;
        struct matmul_sizes sizes = {.batch = r == 3 ? size[0] : 1,
                                     .m = size[r - 2],
                                     .n = size[r - 1],
                                     .k = a->shape.size[ta ? r - 2 : r - 1],
                                     .transpose_a = ta,
                                     .transpose_b = tb};
        struct matmul_use use = {0};
        TRY(kernels_matmul(target, &sizes, &use));
        struct value *x = lowering_value(l, a, LAYOUT_PLAIN), *y = lowering_value(l, b, LAYOUT_PLAIN);
        if (x && y && use.packed_floats) y = lowering_packed(l, &use.pack, use.packed_floats, y);
        struct value *to = use.finish.file ? lowering_scratch(l, NULL, use.work_floats) : out;
        added = x && y && to && lowering_launch(l, &use.main, (struct value *[]){to, x, y}, 1, 3, flops)
                && (to == out || lowering_launch(l, &use.finish, (struct value *[]){out, to}, 1, 2, 0));
        break;
    }
    case OP_SCATTER_ROWS: {
        int64_t rows = a->shape.size[0], width = rows ? shape_count(a->shape) / rows : 0;
        struct scatter_use use = {0};
        TRY(kernels_scatter_rows(target, rows, width, size[0], &use));
        struct value *y = lowering_value(l, a, LAYOUT_PLAIN), *index = lowering_value(l, b, LAYOUT_PLAIN);
        if (y && index && use.list_ints) {
            index = lowering_packed(l, &use.list, use.list_ints, index);
            if (index) index->is_int = true;
        }
        added = y && index && lowering_launch(l, &use.main, (struct value *[]){out, y, index}, 1, 3, flops);
        break;
    }
    case OP_SAMPLE:
    case OP_SAMPLE_TRANSPOSE: {
        struct kernel_use use = {0};
        TRY(kernels_sample(target, size[0], size[1], size[2], size[3], node->op == OP_SAMPLE_TRANSPOSE, &use));
        struct value *image = lowering_value(l, a, LAYOUT_PLAIN), *map = lowering_value(l, b, LAYOUT_PLAIN);
        added = image && map && lowering_launch(l, &use, (struct value *[]){out, image, map}, 1, 3, flops);
        break;
    }
    case OP_EIGH: {
        struct kernel_use use = {0};
        TRY(kernels_eigh(target, size[1], &use));
        struct value *matrix = lowering_value(l, a, LAYOUT_PLAIN);
        added = matrix && lowering_launch(l, &use, (struct value *[]){out, matrix}, 1, 2, flops);
        break;
    }
    default:
        RAISE(RETORT_EUNSUPPORTED, "cannot compile: no kernel for %s", op_info(node->op)->name);
    }
    if (!added) {
        if (l->arena.failed) RAISE(RETORT_ENOMEM, "out of memory compiling %s", op_info(node->op)->name);
        status = RETORT_EUNSUPPORTED; /* lowering_value has said why */
    }
done:
    return status;
}

/* Evaluates nodes into given places whatever their role: reads memory where it is there. */
static int copy_into(struct lowering *l, struct node *const *nodes, struct value *const *targets, size_t count) {
    for (size_t k = 0; k < count; k++)
        if (l->grouping->role[nodes[k]->index] != ROLE_INLINE && !lowering_value(l, nodes[k], LAYOUT_PLAIN))
            return RETORT_EUNSUPPORTED;
    return count ? emit_copies(l, nodes, targets, count) : RETORT_OK;
}

static enum layout output_layout(const struct grouping *g, int k) {
    const struct node *node = graph_output_at(g->graph, k, NULL);
    return graph_output_is_opaque(g->graph, k) ? opaque_layout(g, node) : LAYOUT_PLAIN;
}

/* A result that is not computed in its place. */
static int write_output(struct lowering *l, struct node *node, struct value *target) {
    int status = RETORT_OK;
    struct value *plain = target->layout == LAYOUT_PLAIN ? target : new_tensor(l, node, LAYOUT_PLAIN);
    if (!plain) RAISE(RETORT_ENOMEM, "out of memory compiling");
    TRY(copy_into(l, &node, &plain, 1));
    if (plain != target && !relayout(l, plain, target)) RAISE(RETORT_ENOMEM, "out of memory compiling");
done:
    return status;
}

/* The parts that are not computed in place. */
static int lower_concat(struct lowering *l, const struct node *concat, struct value *out,
                        const struct placement *placements) {
    enum { TOGETHER = 16 }; /* parts copied by one kernel */
    int status = RETORT_OK;
    struct node *parts[TOGETHER];
    struct value *places[TOGETHER];
    size_t offset = 0, count = 0;
    for (int k = 0; k < concat->input_count; k++) {
        struct node *part = concat->inputs[k];
        const struct placement *placed = &placements[reshaped_root(l->grouping, part)->index];
        if (placed->concat != concat || placed->offset != offset) {
            struct value *place = new_value(l, part, LAYOUT_PLAIN, (size_t)shape_count(part->shape));
            if (!place) RAISE(RETORT_ENOMEM, "out of memory compiling a concatenation");
            place->parent = out;
            place->offset = offset;
            parts[count] = part;
            places[count++] = place;
        }
        if (count == TOGETHER || k == concat->input_count - 1) {
            TRY(copy_into(l, parts, places, count));
            count = 0;
        }
        offset += (size_t)shape_count(part->shape);
    }
done:
    return status;
}

/* --- order --- */
static int next_group(const struct grouping *g) {
    int best = -1, best_index = 0;
    for (int k = 0; k < g->group_count; k++) {
        const struct group *group = &g->groups[k];
        if (group->done || !group->members.count) continue;
        bool ready = true;
        for (int other = 0; other < g->group_count && ready; other++)
            if (group->needs[other / 64] >> (other % 64) & 1 && g->groups[other].members.count)
                ready = g->groups[other].done;
        if (!ready) continue;
        int last = group->members.items[group->members.count - 1]->index;
        if (best < 0 || last < best_index) {
            best = k;
            best_index = last;
        }
    }
    return best;
}

struct value *value_root(struct value *value, size_t *offset) {
    *offset = 0;
    for (; value->parent; value = value->parent) *offset += value->offset;
    return value;
}

double launch_bytes(const struct launch *launch) {
    double bytes = 0;
    for (int b = 0; b < launch->buffer_count; b++) bytes += 4.0 * (double)launch->buffers[b]->floats;
    return bytes;
}

int lowering_create(const struct grouping *g, struct lowering *l) {
    int status = RETORT_OK;
    const struct graph *graph = g->graph;
    *l = (struct lowering){.grouping = g, .target = g->target};
    arena_init(&l->arena);
    size_t count = (size_t)g->node_count;
    l->plain = arena_array(&l->arena, count, sizeof *l->plain);
    l->blocked = arena_array(&l->arena, count, sizeof *l->blocked);
    int *output_slot = arena_array(&l->arena, count, sizeof *output_slot);
    struct placement *placements = arena_array(&l->arena, count, sizeof *placements);
    if (l->arena.failed) RAISE(RETORT_ENOMEM, "out of memory compiling %zu operations", count);
    for (size_t i = 0; i < count; i++) {
        output_slot[i] = -1;
        const struct node *node = graph_node(graph, (int)i);
        if (node->op != OP_INPUT) continue;
        enum layout layout = node->attributes.opaque ? opaque_layout(g, node) : LAYOUT_PLAIN;
        struct value *value = new_tensor(l, node, layout);
        if (!value) RAISE(RETORT_ENOMEM, "out of memory compiling %zu operations", count);
        value->slot = (int)l->slots.count;
        value->input = true;
        *(layout == LAYOUT_BLOCKED ? &l->blocked[i] : &l->plain[i]) = value;
        struct slot slot = {.name = arena_copy_text(&l->arena, node->name), .value = value};
        if (!array_push(&l->slots, slot)) RAISE(RETORT_ENOMEM, "out of memory compiling %zu operations", count);
    }
    for (int k = 0; k < graph_output_count(graph); k++) {
        const char *name;
        struct node *node = graph_output_at(graph, k, &name);
        struct slot slot = {.name = arena_copy_text(&l->arena, name), .output = true};
        enum role role = g->role[node->index];
        bool direct = role == ROLE_MEMBER || role == ROLE_LIBRARY || role == ROLE_CONCAT;
        if (direct && output_slot[node->index] < 0 && natural_layout(l, node) == output_layout(g, k))
            output_slot[node->index] = (int)l->slots.count;
        if (!array_push(&l->slots, slot)) RAISE(RETORT_ENOMEM, "out of memory compiling %zu operations", count);
    }
    find_placements(l, placements, output_slot);
    for (int k; (k = next_group(g)) >= 0;) {
        struct group *group = &g->groups[k];
        group->done = true;
        for (size_t m = 0; m < group->members.count; m++) {
            const struct node *node = group->members.items[m];
            bool wanted = g->role[node->index] != ROLE_MEMBER || g->stored[node->index];
            if (wanted && !create_value(l, node, placements, output_slot))
                RAISE(RETORT_ENOMEM, "out of memory compiling");
        }
        const struct node *node = group->members.items[0];
        if (is_convolution(l->grouping, node))
            TRY(lower_convolutions(l, group));
        else if (g->role[node->index] == ROLE_LIBRARY)
            TRY(lower_library(l, node, l->plain[node->index] ? l->plain[node->index] : l->blocked[node->index]));
        else if (g->role[node->index] == ROLE_CONCAT)
            TRY(lower_concat(l, node, l->plain[node->index], placements));
        else {
            bool any = false;
            for (size_t m = 0; m < group->members.count; m++) any |= g->stored[group->members.items[m]->index];
            if (any) TRY(emit_group(l, group));
        }
    }
    for (int k = 0; k < g->group_count; k++)
        if (g->groups[k].members.count && !g->groups[k].done)
            RAISE(RETORT_EUNSUPPORTED, "cannot compile: kernels that wait for each other");
    for (int k = 0, first = (int)l->slots.count - graph_output_count(graph); k < graph_output_count(graph); k++) {
        struct node *node = graph_output_at(graph, k, NULL);
        enum layout layout = output_layout(g, k);
        struct value *value = layout == LAYOUT_BLOCKED ? l->blocked[node->index] : l->plain[node->index];
        if (output_slot[node->index] != first + k) {
            value = new_tensor(l, node, layout);
            if (!value) RAISE(RETORT_ENOMEM, "out of memory compiling");
            value->slot = first + k;
            TRY(write_output(l, node, value));
        }
        l->slots.items[first + k].value = value;
    }
    TRY(merge_launches(l));
    for (size_t i = 0; i < l->launches.count; i++)
        for (int b = 0; b < l->launches.items[i]->buffer_count; b++) {
            size_t offset;
            struct value *value = value_root(l->launches.items[i]->buffers[b], &offset);
            if (value->first < 0) value->first = (int)i;
            value->last = (int)i;
        }
    TRY(memory_plan(l, 64));
done:
    if (status < 0) lowering_finish(l);
    return status;
}

void lowering_finish(struct lowering *l) {
    array_finish(&l->values);
    array_finish(&l->launches);
    array_finish(&l->convolutions);
    array_finish(&l->slots);
    arena_finish(&l->arena);
    *l = (struct lowering){0};
}
