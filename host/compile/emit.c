/* From groups to kernels: the launch of a fused group or of copies, by rows or flat. */
#include "compile/emit.h"

#include <stdlib.h>
#include <string.h>

int buffer_number(struct emitter *e, struct value *value) {
    for (int i = 0; i < e->buffer_count; i++)
        if (e->buffers[i] == value) return i;
    if (e->buffer_count == LAUNCH_MAX_BUFFERS) {
        e->failure = "a fused kernel has too many operands";
        return 0;
    }
    e->buffers[e->buffer_count] = value;
    return e->buffer_count++;
}

int finish_launch(struct emitter *e, const struct text *code, const char *head, size_t global, size_t local,
                  const char *what) {
    int status = RETORT_OK;
    struct lowering *l = e->lowering;
    struct text text;
    text_init(&text);
    if (e->failure) RAISE(RETORT_EUNSUPPORTED, "cannot compile %s: %s", what, e->failure);
    if (local) text_printf(&text, "__attribute__((reqd_work_group_size(%zu, 1, 1)))\n", local);
    text_append(&text, "kernel void NAME(");
    for (int b = 0; b < e->buffer_count; b++)
        text_printf(&text, "%sglobal %s%s *restrict b%d, ulong o%d", b ? ", " : "", b < e->output_count ? "" : "const ",
                    e->buffers[b]->is_int ? "int" : "float", b, b);
    text_append(&text, ") {\n");
    for (int b = 0; b < e->buffer_count; b++) text_printf(&text, "    b%d += o%d;\n", b, b);
    text_append(&text, head);
    text_append(&text, text_get(code));
    text_append(&text, "}\n");
    struct launch *launch = arena_alloc(&l->arena, sizeof *launch);
    if (!launch) RAISE(RETORT_ENOMEM, "out of memory compiling %s", what);
    *launch = (struct launch){.global = {global, 1, 1},
                              .local = {local, local ? 1 : 0, local ? 1 : 0},
                              .what = what,
                              .buffer_count = e->buffer_count,
                              .output_count = e->output_count,
                              .flops = e->flops,
                              .kernel = -1};
    launch->text = arena_copy_text(&l->arena, text_get(&text));
    launch->buffers = arena_array(&l->arena, (size_t)e->buffer_count + 1, sizeof *launch->buffers);
    if (l->arena.failed || text.failed || e->arena.failed || e->row.failed || e->body.failed || code->failed)
        RAISE(RETORT_ENOMEM, "out of memory compiling %s", what);
    memcpy(launch->buffers, e->buffers, (size_t)e->buffer_count * sizeof *launch->buffers);
    if (!array_push(&l->launches, launch)) RAISE(RETORT_ENOMEM, "out of memory compiling %s", what);
done:
    text_finish(&text);
    return status;
}

int emitter_init(struct emitter *e, struct lowering *lowering, int group, int lanes) {
    *e = (struct emitter){.lowering = lowering, .grouping = lowering->grouping, .group = group, .lanes = lanes};
    arena_init(&e->arena);
    int count = lowering->grouping->node_count;
    e->reductions = arena_array(&e->arena, (size_t)count, sizeof *e->reductions);
    e->level = arena_array(&e->arena, (size_t)count, sizeof *e->level);
    if (e->arena.failed) return error_set(RETORT_ENOMEM, "out of memory compiling a kernel");
    for (int i = 0; i < count; i++) e->level[i] = -1;
    return RETORT_OK;
}

void emitter_finish(struct emitter *e) {
    text_finish(&e->row);
    text_finish(&e->body);
    array_finish(&e->row_memo);
    array_finish(&e->body_memo);
    arena_finish(&e->arena);
}

void body_begin(struct emitter *e) {
    text_finish(&e->body);
    e->body_memo.count = 0;
}
void emit_group_sums(struct emitter *e, struct text *text, const char *prefix, const int *numbers, int count) {
    enum { TOGETHER = 16 }; /* limits the local memory */
    for (int first = 0; first < count; first += TOGETHER) {
        int here = count - first < TOGETHER ? count - first : TOGETHER, v = e->variables++;
        if (here > e->scratch_rows) e->scratch_rows = here;
        text_printf(text, "        float sums%d[%d] = {", v, here);
        for (int i = 0; i < here; i++) text_printf(text, "%s%s%d", i ? ", " : "", prefix, numbers[first + i]);
        text_printf(text, "};\n        group_sums(%d, sums%d, scratch);\n", here, v);
        for (int i = 0; i < here; i++)
            text_printf(text, "        %s%d = sums%d[%d];\n", prefix, numbers[first + i], v, i);
    }
}
int emit_group(struct lowering *lowering, const struct group *group) {
    struct emitter e;
    int number = (int)(group - lowering->grouping->groups);
    int status = emitter_init(&e, lowering, number, group->lanes);
    struct node *const *members = group->members.items;
    size_t count = group->members.count;
    for (size_t k = 0; k < count; k++) e.flops += op_info(members[k]->op)->cost(members[k]);
    if (status == RETORT_OK && whole_fits(&e, group))
        status = emit_whole(lowering, group);
    else if (status == RETORT_OK && !group->inner_known) {
        struct flat *flats = arena_array(&e.arena, count, sizeof *flats);
        size_t stored = 0;
        bool flat = flats != NULL;
        for (size_t k = 0; k < count && flat; k++) {
            if (!lowering->grouping->stored[members[k]->index]) continue;
            flat = flat_fits(&e, members[k], shape_count(members[k]->shape));
            flats[stored++] = (struct flat){.node = members[k], .target = lowering->plain[members[k]->index]};
        }
        if (flat && stored)
            status = emit_flat(&e, flats, stored);
        else
            status = emit_rows(&e, group, group->rank ? 1u << (group->rank - 1) : 0, members, count);
    } else if (status == RETORT_OK)
        status = emit_rows(&e, group, group->inner, members, count);
    emitter_finish(&e);
    return status;
}

/* Whether a node is read from one place at most, so that many such fit into a kernel. */
static bool is_simple(const struct emitter *e, const struct node *node) {
    while (!is_loaded(e, node) && (node->op == OP_RESHAPE || node->op == OP_BROADCAST)) node = node->inputs[0];
    return node->op == OP_CONSTANT || is_loaded(e, node);
}

static int emit_copy(struct lowering *lowering, struct node *node, struct value *target) {
    struct emitter e;
    int status = emitter_init(&e, lowering, -1, 1);
    if (status < 0) {
    } else if (flat_fits(&e, node, shape_count(node->shape))) {
        status = emit_flat(&e, &(struct flat){.node = node, .target = target}, 1);
    } else if (is_loaded(&e, node)) {
        status = error_set(RETORT_EUNSUPPORTED, "cannot copy a value in this layout");
    } else {
        /* As rows of the last dimension. While the kernel is written, the target counts as the node's memory. */
        struct group group = {.rank = node->shape.rank, .lanes = 1};
        memcpy(group.size, node->shape.size, sizeof group.size);
        struct value *plain = lowering->plain[node->index];
        bool stored = lowering->grouping->stored[node->index];
        lowering->plain[node->index] = target;
        lowering->grouping->stored[node->index] = true;
        status = emit_rows(&e, &group, group.rank ? 1u << (group.rank - 1) : 0, &node, 1);
        lowering->plain[node->index] = plain;
        lowering->grouping->stored[node->index] = stored;
    }
    emitter_finish(&e);
    return status;
}

int emit_copies(struct lowering *lowering, struct node *const *nodes, struct value *const *targets, size_t count) {
    int status = RETORT_OK;
    struct emitter e;
    size_t together = 0;
    TRY(emitter_init(&e, lowering, -1, 1));
    struct flat *flats = arena_array(&e.arena, count + 1, sizeof *flats);
    if (!flats) RAISE(RETORT_ENOMEM, "out of memory compiling a copy");
    for (size_t k = 0; k < count; k++) {
        if (is_simple(&e, nodes[k]) && flat_fits(&e, nodes[k], shape_count(nodes[k]->shape))) {
            flats[together++] = (struct flat){.node = nodes[k], .target = targets[k]};
        } else
            TRY(emit_copy(lowering, nodes[k], targets[k]));
    }
    if (together) TRY(emit_flat(&e, flats, together));
done:
    emitter_finish(&e);
    return status;
}
