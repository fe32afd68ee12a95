/* The layout pass: gives values their memory, decides in which layout each step reads them, and enters relayouts where
 * a layout is wanted that is not there. Steps are in the order in which they run. */
#include "compile/layout.h"

#include "base/error.h"
#include "compile/convolution.h"
#include "compile/integer.h"
#include "compile/operation.h"
#include "compile/roles.h"

#include <stdlib.h>
#include <string.h>

struct placement {
    const struct node *concat;
    size_t offset;
};

static int no_memory(void) {
    return error_set(RETORT_ENOMEM, "out of memory laying out values");
}

/* --- values --- */
/* New memory for a whole node. */
static struct value *new_tensor(struct layouts *s, const struct node *node, enum layout layout) {
    const int64_t *size = node->shape.size;
    int64_t lanes = s->grouping->target.lanes, count = shape_count(node->shape);
    if (layout == LAYOUT_BLOCKED) count = size[0] * round_up(size[1], lanes) * size[2] * size[3];
    return value_create(s->list, node, layout, (size_t)count);
}

static struct value **value_slot(struct layouts *s, const struct node *node, enum layout layout) {
    return layout == LAYOUT_BLOCKED ? &s->blocked[node->index] : &s->plain[node->index];
}

static struct step *add_step(struct layouts *s, struct step step) {
    return array_push(&s->steps, step) ? &s->steps.items[s->steps.count - 1] : NULL;
}

static bool add_relayout(struct layouts *s, struct value *from, struct value *to) {
    return add_step(s, (struct step){.kind = STEP_RELAYOUT, .group = -1, .from = from, .to = to});
}

static struct value *create_view(struct layouts *s, const struct node *node, struct value *base) {
    struct value *view = value_create(s->list, node, LAYOUT_PLAIN, (size_t)shape_count(node->shape));
    if (!view) return NULL;
    view->parent = base;
    if (base->parts) { /* reshapes alone: find_readers() */
        view->parts = base->parts;
        view->floats = base->floats;
    }
    if (node->op == OP_SLICE && node->shape.rank) {
        int64_t row = 1;
        for (int d = 1; d < node->shape.rank; d++) row *= node->shape.size[d];
        view->offset = (size_t)(node->attributes.start[0] * row);
    }
    return view;
}

/* The value that holds a node in this layout, following views; enters a relayout where only the other layout exists. */
static int find_value(struct layouts *s, const struct node *node, enum layout layout, struct value **value) {
    int status = RETORT_OK;
    struct value **wanted = value_slot(s, node, layout), *base;
    if (!*wanted && s->grouping->role[node->index] == ROLE_VIEW && !s->plain[node->index]) {
        TRY(find_value(s, node->inputs[0], LAYOUT_PLAIN, &base));
        if (!(s->plain[node->index] = create_view(s, node, base))) return no_memory();
    }
    if (!*wanted) {
        struct value *other = *value_slot(s, node, layout == LAYOUT_PLAIN ? LAYOUT_BLOCKED : LAYOUT_PLAIN);
        if (!other || node->shape.rank != 4)
            RAISE(RETORT_EUNSUPPORTED, "cannot compile: node %d (%s) is read but not in memory", node->index,
                  op_info(node->op)->name);
        struct value *fresh = new_tensor(s, node, layout);
        if (!fresh || !add_relayout(s, other, fresh)) return no_memory();
        *wanted = fresh;
    }
    *value = *wanted;
done:
    return status;
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
static enum layout natural_layout(const struct grouping *g, const struct node *node) {
    const int64_t *size = node->shape.size;
    if (is_convolution(g, node) && convolution_pass(node) != CONV_BACKWARD_WEIGHT)
        return kernels_conv_layout(&g->target, size[1]);
    if (g->role[node->index] != ROLE_MEMBER || g->groups[g->group_of[node->index]].lanes == 1) return LAYOUT_PLAIN;
    return size[2] * size[3] > 1 && !is_wanted_plain(g, node) ? LAYOUT_BLOCKED : LAYOUT_PLAIN;
}

static enum layout output_layout(const struct grouping *g, int k) {
    const struct node *node = graph_output_at(g->graph, k, NULL);
    return graph_output_is_opaque(g->graph, k) ? opaque_layout(g, node) : LAYOUT_PLAIN;
}

/* --- concatenations whose parts are computed in place --- */
static void find_placements(struct layouts *s) {
    const struct grouping *g = s->grouping;
    for (int i = g->node_count - 1; i >= 0; i--) {
        const struct node *concat = graph_node(g->graph, i);
        if (g->role[i] != ROLE_CONCAT) continue;
        size_t offset = 0;
        for (int k = 0; k < concat->input_count; k++) {
            const struct node *root = reshaped_root(g, concat->inputs[k]);
            enum role role = g->role[root->index];
            bool computed = role == ROLE_MEMBER ? g->stored[root->index] : role == ROLE_LIBRARY || role == ROLE_CONCAT;
            if (computed && natural_layout(g, root) == LAYOUT_PLAIN && s->output_slot[root->index] < 0
                && !s->placements[root->index].concat)
                s->placements[root->index] = (struct placement){.concat = concat, .offset = offset};
            offset += (size_t)shape_count(concat->inputs[k]->shape);
        }
    }
}

/* --- sums that readers finish --- */
/* The groups whose kernels may read a node. */
struct readers {
    int groups[8], count;
};

/* Collects them; false where they are too many, or where one of them cannot add up parts: only fused kernels can. */
static bool find_readers(const struct grouping *g, const struct node *node, struct readers *readers) {
    enum { MOST = sizeof readers->groups / sizeof *readers->groups };
    for (int k = 0; k < graph_output_count(g->graph); k++)
        if (graph_output_at(g->graph, k, NULL) == node) return false;
    for (int k = 0; k < g->user_count[node->index]; k++) {
        const struct node *user = graph_node(g->graph, g->users[node->index][k]);
        enum role role = g->role[user->index];
        bool passes = role == ROLE_INLINE || (role == ROLE_VIEW && user->op == OP_RESHAPE);
        if (!passes && role != ROLE_MEMBER) return false;
        int group = g->group_of[user->index], at = 0;
        while (at < readers->count && readers->groups[at] != group) at++;
        if (role == ROLE_MEMBER && at == MOST) return false;
        if (role == ROLE_MEMBER && at == readers->count) readers->groups[readers->count++] = group;
        if ((passes || is_recomputed(g, user, -1)) && !find_readers(g, user, readers)) return false;
    }
    return true;
}

/* In how many parts the kernels of an operation leave its result, to be added up by those who read it, in the order of
 * the parts: a launch less, and mostly less to move. 0: they add the parts themselves. On CPUs launches cost little. */
static int parts_for_readers(const struct grouping *g, const struct node *node) {
    enum { MOST_PARTS = 16 };
    static const int64_t most_more = 4 << 20; /* bytes that readers move more than they save, 2 us or so of a cache */
    struct kernel_plan plan;
    struct readers found = {.count = 0};
    if (!kernels_on_gpu(&g->target) || g->role[node->index] != ROLE_LIBRARY) return 0;
    if (!find_readers(g, node, &found) || !found.count) return 0;
    const struct group *group = &g->groups[g->group_of[node->index]];
    if (operation_plan(g, group, &plan) < 0) {
        error_clear(); /* lowering says it again */
        return 0;
    }
    int number = 0;
    while (group->members.items[number] != node) number++;
    int parts = plan.splits[number].parts, with = found.count * parts, without = parts + 1 + found.count;
    int64_t more = 4 * shape_count(node->shape) * (with - without);
    return parts > 1 && parts <= MOST_PARTS && more <= most_more ? parts : 0;
}

/* Gives a computed node its memory: an output's, a place in a concatenation, or its own. */
static struct value *create_home(struct layouts *s, const struct node *node) {
    int i = node->index;
    enum layout layout = natural_layout(s->grouping, node);
    struct value **at = value_slot(s, node, layout);
    if (*at) return s->home[i] = *at;
    struct value *value = new_tensor(s, node, layout);
    if (!value) return NULL;
    *at = s->home[i] = value;
    value->parts = parts_for_readers(s->grouping, node);
    if (value->parts) value->floats *= (size_t)value->parts;
    const struct placement *placement = &s->placements[i];
    if (s->output_slot[i] >= 0)
        value->slot = s->output_slot[i];
    else if (placement->concat) {
        value->parent = create_home(s, placement->concat);
        value->offset = placement->offset;
        if (!value->parent) return NULL;
    }
    return value;
}

/* --- what steps read --- */
struct value *step_value(const struct step *step, const struct node *node, enum layout wanted) {
    for (size_t i = 0; i < step->reads.count; i++)
        if (step->reads.items[i].node == node && step->reads.items[i].wanted == wanted)
            return step->reads.items[i].value;
    return NULL;
}

struct value *step_result(const struct step *step, const struct node *node) {
    for (size_t i = 0; i < step->results.count; i++)
        if (step->results.items[i].node == node) return step->results.items[i].value;
    return NULL;
}

static int add_read(struct layouts *s, struct step *step, const struct node *node, enum layout wanted,
                    enum layout layout) {
    int status = RETORT_OK;
    struct read read = {.node = node, .wanted = wanted};
    if (step_value(step, node, wanted)) return RETORT_OK;
    TRY(find_value(s, node, layout, &read.value));
    if (!array_push(&step->reads, read)) return no_memory();
done:
    return status;
}

/* A node that a fused kernel loads, as a vector of channels or as a scalar. */
static int add_load(struct layouts *s, struct step *step, const struct node *node, int lane) {
    const int64_t *size = node->shape.size;
    const struct value *plain = s->plain[node->index], *blocked = s->blocked[node->index];
    bool vector =
        step->form == FORM_ROWS && step->lanes > 1 && lane == 1 && node->shape.rank == 4 && size[2] * size[3] > 1;
    enum layout wanted = vector ? LAYOUT_BLOCKED : LAYOUT_PLAIN, layout = wanted;
    if (step->form == FORM_ROWS && blocked && !plain) layout = LAYOUT_BLOCKED;
    /* Where planes are small, lanes are gathered from the plain tensor: cheaper than a launch that blocks it first. */
    if (vector && !blocked && (plain || s->grouping->role[node->index] == ROLE_VIEW) && size[2] * size[3] <= 64
        && size[1] % step->lanes == 0)
        layout = LAYOUT_PLAIN;
    return add_read(s, step, node, wanted, layout);
}

/* Enters what a fused kernel reads to evaluate a node along `lane`, as emit() of emit_expression.c goes through it. */
static int add_loads(struct layouts *s, struct step *step, const struct node *node, int lane) {
    int status = RETORT_OK;
    unsigned char *seen = &s->seen[node->index], bit = (unsigned char)(1 << (lane + 1));
    if (node->op == OP_CONSTANT || *seen & bit || is_own_reduction(s->grouping, step->group, node)) return RETORT_OK;
    *seen |= bit;
    if (is_loaded(s->grouping, step->group, node)) return add_load(s, step, node, lane);
    for (int k = 0; k < node->input_count; k++)
        if (node->op == OP_RANDOM)
            TRY(add_read(s, step, node->inputs[k], LAYOUT_PLAIN, LAYOUT_PLAIN));
        else
            TRY(add_loads(s, step, node->inputs[k], operand_lane(node, k, lane)));
done:
    return status;
}

/* What a fused step reads for these nodes: reductions, and what is stored. */
static int enter_reads(struct layouts *s, struct step *step, struct node *const *nodes, size_t count) {
    int status = RETORT_OK;
    int lane = step->form == FORM_ROWS && step->lanes > 1 ? 1 : -1;
    memset(s->seen, 0, (size_t)s->grouping->node_count);
    for (size_t k = 0; k < count; k++) {
        const struct node *node = nodes[k];
        if (is_own_reduction(s->grouping, step->group, node))
            TRY(add_loads(s, step, node->inputs[0], lane));
        else if (step_result(step, node))
            TRY(add_loads(s, step, node, lane));
    }
done:
    return status;
}

/* Adds a step whose relayouts, which reading has added, stand before it. */
static int finish_step(struct layouts *s, struct step *step) {
    if (array_push(&s->steps, *step)) {
        *step = (struct step){0};
        return RETORT_OK;
    }
    return no_memory();
}

static void discard_step(struct step *step) {
    array_finish(&step->results);
    array_finish(&step->reads);
}

/* --- the form of fused kernels --- */
/* Whether a node can be evaluated element by element in a loop over `count` elements. `whole`: reductions of the group
 * are in memory by then. */
static bool flat_fits(const struct layouts *s, int group, bool whole, const struct node *node, int64_t count) {
    int64_t own = shape_count(node->shape);
    if (own != count && own != 1) return false;
    if (node->op == OP_CONSTANT || node->op == OP_RANDOM) return true;
    if (is_own_reduction(s->grouping, group, node)) return whole;
    if (is_loaded(s->grouping, group, node)) return s->plain[node->index] || !s->blocked[node->index];
    if (node->op == OP_BROADCAST && shape_count(node->inputs[0]->shape) != 1) return false;
    if (!is_elementwise(node) && node->op != OP_BROADCAST && node->op != OP_RESHAPE) return false;
    for (int k = 0; k < node->input_count; k++)
        if (!flat_fits(s, group, whole, node->inputs[k], count)) return false;
    return true;
}

/* Whether a group is elementwise work on long arrays and sums over all of their elements. */
static bool whole_fits(const struct layouts *s, int number) {
    enum { LONG = 1 << 13 };
    const struct group *group = &s->grouping->groups[number];
    int64_t rows = 1, count = 1;
    for (int d = 0; d < group->rank; d++) *(group->inner >> d & 1 ? &count : &rows) *= group->size[d];
    if (!group->inner_known || group->plane || rows != 1 || count < LONG) return false;
    for (size_t k = 0; k < group->members.count; k++) {
        const struct node *node = group->members.items[k];
        bool reduces = is_own_reduction(s->grouping, number, node);
        const struct node *element = reduces ? node->inputs[0] : node;
        if (reduces && node->op != OP_REDUCE_SUM) return false;
        if (!flat_fits(s, number, true, element, shape_count(element->shape))) return false;
    }
    return true;
}

/* Decides how a group's kernel visits its elements; the results are entered. */
static void choose_form(const struct layouts *s, int number, struct step *step) {
    const struct group *group = &s->grouping->groups[number];
    step->rows = shape_make(group->rank, group->size);
    step->lanes = group->lanes;
    step->inner = group->inner;
    step->form = FORM_ROWS;
    if (whole_fits(s, number)) step->form = FORM_WHOLE;
    if (step->form == FORM_WHOLE || (group->inner_known && s->grouping->target.family == FAMILY_CPU)) return;
    if (!group->inner_known) step->inner = group->rank ? 1u << (group->rank - 1) : 0;
    step->form = FORM_FLAT;
    for (size_t k = 0; k < step->results.count; k++) {
        const struct node *node = step->results.items[k].node;
        if (!flat_fits(s, number, false, node, shape_count(node->shape))) step->form = FORM_ROWS;
    }
}

static int lay_out_fused(struct layouts *s, int number) {
    int status = RETORT_OK;
    const struct group *group = &s->grouping->groups[number];
    struct step step = {.kind = STEP_FUSED, .group = number};
    for (size_t k = 0; k < group->members.count; k++) {
        struct node *node = group->members.items[k];
        struct result result = {node, s->grouping->stored[node->index] ? s->home[node->index] : NULL};
        if (result.value && !array_push(&step.results, result)) RAISE(RETORT_ENOMEM, "out of memory laying out values");
    }
    if (!step.results.count) goto done; /* nobody wants anything of it */
    choose_form(s, number, &step);
    for (size_t k = 0; k < group->members.count && step.form == FORM_WHOLE; k++) {
        /* Sums that later rounds read, and nobody else, need memory too. */
        struct node *node = group->members.items[k];
        if (!is_own_reduction(s->grouping, number, node) || s->plain[node->index]) continue;
        struct result result = {node, s->plain[node->index] = value_create(s->list, node, LAYOUT_PLAIN, 1)};
        if (!result.value || !array_push(&step.results, result))
            RAISE(RETORT_ENOMEM, "out of memory laying out values");
    }
    TRY(enter_reads(s, &step, group->members.items, group->members.count));
    TRY(finish_step(s, &step));
done:
    discard_step(&step);
    return status;
}

/* --- copies: nodes of any role evaluated into given places --- */
/* Whether a node is read from one place at most, so that many such fit into a kernel. */
static bool is_simple(const struct layouts *s, const struct node *node) {
    while (!is_loaded(s->grouping, -1, node) && (node->op == OP_RESHAPE || node->op == OP_BROADCAST))
        node = node->inputs[0];
    return node->op == OP_CONSTANT || is_loaded(s->grouping, -1, node);
}

static int add_copies(struct layouts *s, const struct result *copies, size_t count, enum form form) {
    int status = RETORT_OK;
    struct step step = {.kind = STEP_FUSED, .group = -1, .form = form, .lanes = 1, .rows = copies[0].node->shape};
    step.inner = step.rows.rank ? 1u << (step.rows.rank - 1) : 0;
    for (size_t k = 0; k < count; k++) {
        if (!array_push(&step.results, copies[k])) RAISE(RETORT_ENOMEM, "out of memory laying out values");
        TRY(enter_reads(s, &step, &copies[k].node, 1));
    }
    TRY(finish_step(s, &step));
done:
    discard_step(&step);
    return status;
}

/* As few kernels as possible. */
static int lay_out_copies(struct layouts *s, const struct result *copies, size_t count) {
    int status = RETORT_OK;
    size_t together = 0;
    struct value *value;
    struct result *simple = calloc(count + 1, sizeof *simple);
    if (!simple) return no_memory();
    for (size_t k = 0; k < count; k++)
        if (s->grouping->role[copies[k].node->index] != ROLE_INLINE)
            TRY(find_value(s, copies[k].node, LAYOUT_PLAIN, &value));
    for (size_t k = 0; k < count; k++) {
        const struct node *node = copies[k].node;
        bool flat = flat_fits(s, -1, false, node, shape_count(node->shape));
        if (flat && is_simple(s, node))
            simple[together++] = copies[k];
        else
            TRY(add_copies(s, &copies[k], 1, flat ? FORM_FLAT : FORM_ROWS));
    }
    if (together) TRY(add_copies(s, simple, together, FORM_FLAT));
done:
    free(simple);
    return status;
}

/* The parts of a concatenation that are not computed in place. */
static int lay_out_concat(struct layouts *s, const struct node *concat) {
    enum { TOGETHER = 16 }; /* parts copied by one kernel */
    int status = RETORT_OK;
    struct result copies[TOGETHER];
    size_t offset = 0, count = 0;
    for (int k = 0; k < concat->input_count; k++) {
        struct node *part = concat->inputs[k];
        const struct placement *placed = &s->placements[reshaped_root(s->grouping, part)->index];
        if (placed->concat != concat || placed->offset != offset) {
            struct value *place = value_create(s->list, part, LAYOUT_PLAIN, (size_t)shape_count(part->shape));
            if (!place) return no_memory();
            place->parent = s->home[concat->index];
            place->offset = offset;
            copies[count++] = (struct result){part, place};
        }
        if (count && (count == TOGETHER || k == concat->input_count - 1)) {
            TRY(lay_out_copies(s, copies, count));
            count = 0;
        }
        offset += (size_t)shape_count(part->shape);
    }
done:
    return status;
}

/* A result of the graph that is not computed in its place. */
static int lay_out_output(struct layouts *s, struct node *node, struct value *target) {
    int status = RETORT_OK;
    struct value *plain = target->layout == LAYOUT_PLAIN ? target : new_tensor(s, node, LAYOUT_PLAIN);
    if (!plain) return no_memory();
    TRY(lay_out_copies(s, &(struct result){node, plain}, 1));
    if (plain != target && !add_relayout(s, plain, target)) return no_memory();
done:
    return status;
}

/* --- hand-written operations --- */
static int lay_out_operation(struct layouts *s, int number) {
    int status = RETORT_OK;
    const struct group *group = &s->grouping->groups[number];
    struct step step = {.kind = STEP_OPERATION, .group = number};
    for (size_t k = 0; k < group->members.count; k++) {
        struct node *node = group->members.items[k];
        if (!array_push(&step.results, ((struct result){node, s->home[node->index]})))
            RAISE(RETORT_ENOMEM, "out of memory laying out values");
    }
    if (is_convolution(s->grouping, group->members.items[0])) {
        struct joined joined;
        TRY(convolution_join(s->grouping, group, &joined));
        for (int k = 0; k < joined.input_count; k++)
            TRY(add_read(s, &step, joined.inputs[k], joined.from, joined.from));
        for (int k = 0; k < joined.weight_count; k++)
            TRY(add_read(s, &step, joined.weights[k], joined.second, joined.second));
    } else {
        const struct node *node = group->members.items[0];
        for (int k = 0; k < node->input_count; k++)
            TRY(add_read(s, &step, node->inputs[k], LAYOUT_PLAIN, LAYOUT_PLAIN));
    }
    TRY(finish_step(s, &step));
done:
    discard_step(&step);
    return status;
}

/* --- order --- */
static int next_group(const struct grouping *g, const bool *done) {
    int best = -1, best_index = 0;
    for (int k = 0; k < g->group_count; k++) {
        const struct group *group = &g->groups[k];
        if (done[k] || !group->members.count) continue;
        bool ready = true;
        for (int other = 0; other < g->group_count && ready; other++)
            if (group->needs[other / 64] >> (other % 64) & 1 && g->groups[other].members.count) ready = done[other];
        if (!ready) continue;
        int last = group->members.items[group->members.count - 1]->index;
        if (best < 0 || last < best_index) {
            best = k;
            best_index = last;
        }
    }
    return best;
}

static int lay_out_group(struct layouts *s, int number) {
    const struct grouping *g = s->grouping;
    const struct group *group = &g->groups[number];
    for (size_t m = 0; m < group->members.count; m++) {
        const struct node *node = group->members.items[m];
        bool wanted = g->role[node->index] != ROLE_MEMBER || g->stored[node->index];
        if (wanted && !create_home(s, node)) return no_memory();
    }
    switch (g->role[group->members.items[0]->index]) {
    case ROLE_LIBRARY:
        return lay_out_operation(s, number);
    case ROLE_CONCAT:
        return lay_out_concat(s, group->members.items[0]);
    default:
        return lay_out_fused(s, number);
    }
}

/* --- inputs and outputs of the graph --- */
static int create_slots(struct layouts *s) {
    const struct grouping *g = s->grouping;
    struct launch_list *list = s->list;
    for (int i = 0; i < g->node_count; i++) {
        const struct node *node = graph_node(g->graph, i);
        if (node->op != OP_INPUT) continue;
        enum layout layout = node->attributes.opaque ? opaque_layout(g, node) : LAYOUT_PLAIN;
        struct value *value = new_tensor(s, node, layout);
        if (!value) return no_memory();
        value->slot = (int)list->slots.count;
        value->input = true;
        *value_slot(s, node, layout) = value;
        struct slot slot = {.name = arena_copy_text(&list->arena, node->name), .value = value};
        if (!slot.name || !array_push(&list->slots, slot)) return no_memory();
    }
    for (int k = 0; k < graph_output_count(g->graph); k++) {
        const char *name;
        const struct node *node = graph_output_at(g->graph, k, &name);
        struct slot slot = {.name = arena_copy_text(&list->arena, name), .output = true};
        enum role role = g->role[node->index];
        bool direct = role == ROLE_MEMBER || role == ROLE_LIBRARY || role == ROLE_CONCAT;
        if (direct && s->output_slot[node->index] < 0 && natural_layout(g, node) == output_layout(g, k))
            s->output_slot[node->index] = (int)list->slots.count;
        if (!slot.name || !array_push(&list->slots, slot)) return no_memory();
    }
    return RETORT_OK;
}

static int lay_out_outputs(struct layouts *s) {
    int status = RETORT_OK;
    const struct graph *graph = s->grouping->graph;
    int count = graph_output_count(graph), first = (int)s->list->slots.count - count;
    for (int k = 0; k < count; k++) {
        struct node *node = graph_output_at(graph, k, NULL);
        enum layout layout = output_layout(s->grouping, k);
        struct value *value = *value_slot(s, node, layout);
        if (s->output_slot[node->index] != first + k) {
            if (!(value = new_tensor(s, node, layout))) return no_memory();
            value->slot = first + k;
            TRY(lay_out_output(s, node, value));
        }
        s->list->slots.items[first + k].value = value;
    }
done:
    return status;
}

int layouts_create(const struct grouping *g, struct launch_list *list, struct layouts *s) {
    int status = RETORT_OK;
    size_t count = (size_t)g->node_count + 1;
    *s = (struct layouts){.grouping = g, .list = list};
    arena_init(&s->arena);
    s->plain = arena_array(&s->arena, count, sizeof *s->plain);
    s->blocked = arena_array(&s->arena, count, sizeof *s->blocked);
    s->home = arena_array(&s->arena, count, sizeof *s->home);
    s->output_slot = arena_array(&s->arena, count, sizeof *s->output_slot);
    s->placements = arena_array(&s->arena, count, sizeof *s->placements);
    s->seen = arena_array(&s->arena, count, sizeof *s->seen);
    bool *done = arena_array(&s->arena, (size_t)g->group_count + 1, sizeof *done);
    if (s->arena.failed) RAISE(RETORT_ENOMEM, "out of memory laying out %d values", g->node_count);
    for (size_t i = 0; i < count; i++) s->output_slot[i] = -1;
    TRY(create_slots(s));
    find_placements(s);
    for (int k; (k = next_group(g, done)) >= 0;) {
        done[k] = true;
        TRY(lay_out_group(s, k));
    }
    TRY(lay_out_outputs(s));
done:
    if (status < 0) layouts_finish(s);
    return status;
}

void layouts_finish(struct layouts *s) {
    for (size_t i = 0; i < s->steps.count; i++) discard_step(&s->steps.items[i]);
    array_finish(&s->steps);
    arena_finish(&s->arena);
    *s = (struct layouts){0};
}

/* --- check and print --- */
/* Whether a step before this one, or the graph's user, has filled the memory of a value. */
static bool is_filled(const struct layouts *s, size_t before, const struct value *value) {
    size_t offset;
    if (value_root(value, &offset)->input) return true;
    for (size_t i = 0; i < before; i++) {
        const struct step *step = &s->steps.items[i];
        if (step->kind == STEP_RELAYOUT && values_overlap(step->to, value)) return true;
        for (size_t k = 0; k < step->results.count; k++)
            if (values_overlap(step->results.items[k].value, value)) return true;
    }
    return false;
}

int layouts_check(const struct layouts *s) {
    int status = RETORT_OK;
    for (size_t i = 0; i < s->steps.count; i++) {
        const struct step *step = &s->steps.items[i];
        if (step->kind == STEP_RELAYOUT && (step->from->layout == step->to->layout || !is_filled(s, i, step->from)))
            RAISE(RETORT_EUNSUPPORTED, "cannot compile: step %zu moves a value that is not there", i);
        for (size_t k = 0; k < step->reads.count; k++)
            if (!is_filled(s, i, step->reads.items[k].value))
                RAISE(RETORT_EUNSUPPORTED, "cannot compile: step %zu reads node %d before it is computed", i,
                      step->reads.items[k].node->index);
        if (step->kind != STEP_RELAYOUT && !step->results.count)
            RAISE(RETORT_EUNSUPPORTED, "cannot compile: step %zu leaves nothing", i);
    }
    for (size_t i = 0; i < s->list->slots.count; i++)
        if (!s->list->slots.items[i].value || !is_filled(s, s->steps.count, s->list->slots.items[i].value))
            RAISE(RETORT_EUNSUPPORTED, "cannot compile: nothing computes %s", s->list->slots.items[i].name);
done:
    return status;
}

void layouts_print(const struct layouts *s, FILE *stream) {
    static const char *const kinds[] = {"relayout", "fused", "operation"}, *const forms[] = {"rows", "flat", "whole"};
    static const char *const layouts[] = {"plain", "blocked"};
    for (size_t i = 0; i < s->steps.count; i++) {
        const struct step *step = &s->steps.items[i];
        fprintf(stream, "%4zu  %s", i, kinds[step->kind]);
        if (step->kind == STEP_RELAYOUT) {
            fprintf(stream, " %%%d %s\n", step->to->node->index, layouts[step->to->layout]);
            continue;
        }
        if (step->kind == STEP_FUSED) fprintf(stream, " %s, %d lanes", forms[step->form], step->lanes);
        for (size_t k = 0; k < step->results.count; k++) {
            const struct result *result = &step->results.items[k];
            fprintf(stream, "%s%%%d %s", k ? ", " : ": ", result->node->index, layouts[result->value->layout]);
            if (result->value->parts) fprintf(stream, " in %d parts", result->value->parts);
        }
        for (size_t k = 0; k < step->reads.count; k++)
            fprintf(stream, "%s%%%d %s", k ? ", " : " <- ", step->reads.items[k].node->index,
                    layouts[step->reads.items[k].value->layout]);
        fputc('\n', stream);
    }
}
