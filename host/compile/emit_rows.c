/* Row kernels: a work-item (CPU) or a work-group (GPU) owns a row and passes over it in phases. */
#include "compile/emit.h"

struct row_plan {
    const struct group *group;
    uint32_t inner;
    bool cpu, lanes;
    int64_t rows;
};

static int64_t outer_size(const struct row_plan *plan, int d) {
    int64_t size = plan->group->size[d];
    return plan->lanes && d == 1 ? (size + plan->group->lanes - 1) / plan->group->lanes : size;
}

/* The index of the current element for a node: row variables outside, loop variables inside. */
static struct index row_index(const struct row_plan *plan, const struct shape *shape) {
    static const char *const outer[MAX_RANK] = {"r0", "r1", "r2", "r3", "r4", "r5"};
    static const char *const loop[MAX_RANK] = {"x0", "x1", "x2", "x3", "x4", "x5"};
    struct index at = {.rank = shape->rank, .lane = -1};
    for (int d = 0; d < shape->rank; d++) {
        if (shape->size[d] == 1)
            at.at[d] = "0";
        else if (plan->inner >> d & 1) {
            at.at[d] = loop[d];
            at.inner |= 1u << d;
        } else
            at.at[d] = outer[d];
        if (plan->lanes && d == 1) {
            at.at[d] = "c0";
            at.lane = 1;
        }
    }
    return at;
}

static bool same_inner(const struct shape *a, const struct shape *b, uint32_t inner) {
    for (int d = 0; d < a->rank; d++)
        if (inner >> d & 1 && a->size[d] != b->size[d]) return false;
    return true;
}

static bool has_inner(const struct shape *shape, uint32_t inner) {
    for (int d = 0; d < shape->rank; d++)
        if (inner >> d & 1 && shape->size[d] > 1) return true;
    return false;
}

/* One pass over the row: the reductions and stores of `nodes`, whose inner sizes are those of `shape`. */
static void emit_pass(struct emitter *e, const struct row_plan *plan, const struct shape *shape,
                      struct node *const *nodes, size_t count, struct text *code) {
    const char *vector = plan->lanes ? "floatv" : "float";
    struct text begin, part, end, after;
    text_init(&begin), text_init(&part), text_init(&end), text_init(&after);
    body_begin(e);
    int loops[MAX_RANK], loop_count = 0, sum_count = 0;
    int *sums = arena_array(&e->arena, count, sizeof *sums);
    if (!sums) return; /* finish_launch() sees it */
    for (int d = 0; d < shape->rank; d++)
        if (plan->inner >> d & 1 && shape->size[d] > 1) loops[loop_count++] = d;
    for (size_t k = 0; k < count; k++) {
        struct node *node = nodes[k];
        if (!is_own_reduction(e, node)) {
            struct index at = row_index(plan, &node->shape);
            emit_store(e, &e->body, node, &at, emit(e, node, &at));
            continue;
        }
        struct node *operand = node->inputs[0];
        struct index at = row_index(plan, &operand->shape);
        bool product = node->op == OP_REDUCE_SUM && is_product(e, operand);
        struct expr x = emit(e, product ? operand->inputs[0] : operand, &at);
        struct expr y = product ? emit(e, operand->inputs[1], &at) : x;
        int v = e->variables++;
        const char *value = widened(e, x, plan->lanes);
        if (node->op == OP_REDUCE_SUM) {
            text_printf(&begin, "        %s total%d = 0.0f;\n", vector, v);
            text_printf(&part, "        %s sum%d = 0.0f;\n", vector, v);
            if (product)
                text_printf(&e->body, "        sum%d = FMA(%s, %s, sum%d);\n", v, value, widened(e, y, plan->lanes), v);
            else
                text_printf(&e->body, "        sum%d += %s;\n", v, value);
            text_printf(&end, "        total%d += sum%d;\n", v, v);
            sums[sum_count++] = v;
        } else if (node->op == OP_REDUCE_MAX) {
            text_printf(&begin, "        %s total%d = -INFINITY;\n", vector, v);
            text_printf(&e->body, "        total%d = fmax(total%d, %s);\n", v, v, value);
            if (!plan->cpu) text_printf(&after, "        total%d = group_max(total%d, scratch);\n", v, v);
        } else {
            int axis = node->attributes.axis;
            const char *position = at.at[axis];
            text_printf(&begin, "        float best%d = -INFINITY;\n        int total%d = 0;\n", v, v);
            if (!plan->cpu) text_printf(&begin, "        total%d = 0x7fffffff;\n", v);
            text_printf(&e->body,
                        "        if (%s > best%d) {\n            best%d = %s;\n            total%d = %s;\n        }\n",
                        value, v, v, value, v, position);
            if (!plan->cpu)
                text_printf(&after, "        total%d = group_argmax(best%d, total%d, scratch, places);\n", v, v, v);
        }
        e->reductions[node->index] = (struct expr){.name = arena_printf(&e->arena, "total%d", v),
                                                   .lane = plan->lanes && node->op != OP_ARGMAX,
                                                   .is_int = node->op == OP_ARGMAX};
    }
    if (!plan->cpu) emit_group_sums(e, &after, "total", sums, sum_count);
    /* What emit() has added to `row` must stand before this pass's loops. */
    text_append(code, text_get(&e->row));
    text_finish(&e->row);
    text_append(code, text_get(&begin));
    if (!plan->cpu) {
        int64_t total = 1;
        for (int k = 0; k < loop_count; k++) total *= shape->size[loops[k]];
        text_printf(code, "        {\n%s", text_get(&part));
        text_printf(code, "        for (int x = lid; x < %lld; x += %d) {\n", (long long)total, FAMILY_GPU_LOCAL);
        int64_t stride = total;
        for (int k = 0; k < loop_count; k++) {
            stride /= shape->size[loops[k]];
            text_printf(code, "        const int x%d = x / %lld %% %lld;\n", loops[k], (long long)stride,
                        (long long)shape->size[loops[k]]);
        }
        text_printf(code, "%s        }\n%s        }\n%s", text_get(&e->body), text_get(&end), text_get(&after));
    } else {
        /* Sums are taken in short parts, which are then added: a long float32 sum loses digits. */
        for (int k = 0; k + 1 < loop_count; k++)
            text_printf(code, "        for (int x%d = 0; x%d < %lld; x%d++) {\n", loops[k], loops[k],
                        (long long)shape->size[loops[k]], loops[k]);
        int last = loop_count ? loops[loop_count - 1] : -1;
        int64_t length = loop_count ? shape->size[last] : 1;
        bool strips = part.length && length > 512;
        if (strips) text_printf(code, "        for (int strip = 0; strip < %lld; strip += 256) {\n", (long long)length);
        text_printf(code, "        {\n%s", text_get(&part));
        if (strips)
            text_printf(code, "        for (int x%d = strip; x%d < min(strip + 256, %lld); x%d++) {\n", last, last,
                        (long long)length, last);
        else if (loop_count)
            text_printf(code, "        for (int x%d = 0; x%d < %lld; x%d++) {\n", last, last, (long long)length, last);
        text_append(code, text_get(&e->body));
        if (loop_count) text_append(code, "        }\n");
        text_printf(code, "%s        }\n", text_get(&end));
        if (strips) text_append(code, "        }\n");
        for (int k = 0; k + 1 < loop_count; k++) text_append(code, "        }\n");
    }
    text_finish(&begin), text_finish(&part), text_finish(&end), text_finish(&after);
}

int emit_rows(struct emitter *e, const struct group *group, uint32_t inner, struct node *const *nodes,
              size_t node_count) {
    int status = RETORT_OK;
    struct lowering *l = e->lowering;
    struct row_plan plan = {
        .group = group, .inner = inner, .cpu = l->target.family == FAMILY_CPU, .lanes = e->lanes > 1, .rows = 1};
    struct node **pass = arena_array(&e->arena, node_count, sizeof *pass);
    bool *taken = arena_array(&e->arena, node_count, sizeof *taken);
    struct text code;
    text_init(&code);
    if (e->arena.failed) RAISE(RETORT_ENOMEM, "out of memory compiling a kernel");
    int phases = 0;
    for (size_t k = 0; k < node_count; k++) {
        int i = nodes[k]->index;
        if (l->grouping->stored[i]) buffer_number(e, l->plain[i] ? l->plain[i] : l->blocked[i]);
        int level = level_of(e, nodes[k]);
        if (level > phases) phases = level;
    }
    e->output_count = e->buffer_count;
    for (int phase = 0; phase <= phases; phase++) {
        for (;;) {
            const struct shape *shape = NULL;
            size_t count = 0;
            for (size_t k = 0; k < node_count; k++) {
                struct node *node = nodes[k];
                if (taken[k]) continue;
                bool reduces = is_own_reduction(e, node);
                const struct shape *own = reduces ? &node->inputs[0]->shape : &node->shape;
                int level = reduces ? level_of(e, node->inputs[0]) : level_of(e, node);
                if (!reduces && (!l->grouping->stored[node->index] || !has_inner(&node->shape, inner))) continue;
                if (level != phase || (shape && !same_inner(shape, own, inner))) continue;
                shape = own;
                pass[count++] = node;
                taken[k] = true;
            }
            if (!count) break;
            emit_pass(e, &plan, shape, pass, count, &code);
        }
    }
    /* Results with one value a row: finished reductions, and what is computed from them. */
    struct text stores;
    text_init(&stores);
    for (size_t k = 0; k < node_count; k++) {
        struct node *node = nodes[k];
        if (!l->grouping->stored[node->index] || (has_inner(&node->shape, inner) && !is_own_reduction(e, node)))
            continue;
        struct index at = row_index(&plan, &node->shape);
        emit_store(e, &stores, node, &at, emit(e, node, &at));
    }
    text_append(&code, text_get(&e->row));
    if (stores.length)
        text_printf(&code, plan.cpu ? "%s" : "        if (lid == 0) {\n%s        }\n", text_get(&stores));
    text_finish(&stores);
    text_append(&code, "    }\n");

    struct text head;
    text_init(&head);
    for (int d = 0; d < group->rank; d++)
        if (!(inner >> d & 1)) plan.rows *= outer_size(&plan, d);
    size_t global = (size_t)plan.rows, local = 1;
    if (plan.cpu) {
        int64_t each = (plan.rows + 1023) / 1024;
        global = (size_t)((plan.rows + each - 1) / each);
        text_printf(&head, "    const int first = (int)get_global_id(0) * %lld;\n", (long long)each);
        text_printf(&head, "    for (int row = first; row < min(first + %lld, %lld); row++) {\n", (long long)each,
                    (long long)plan.rows);
    } else {
        local = FAMILY_GPU_LOCAL;
        global *= local;
        text_printf(&head, "    local float scratch[%d];\n    local int places[%d];\n",
                    FAMILY_GPU_LOCAL * (e->scratch_rows ? e->scratch_rows : 1), FAMILY_GPU_LOCAL);
        text_append(&head, "    const int lid = (int)get_local_id(0);\n    (void)scratch, (void)places;\n");
        text_append(&head, "    const int row = (int)get_group_id(0);\n    {\n");
    }
    int64_t stride = plan.rows;
    for (int d = 0; d < group->rank; d++) {
        if (inner >> d & 1) continue;
        stride /= outer_size(&plan, d);
        text_printf(&head, "        const int r%d = row / %lld %% %lld;\n", d, (long long)stride,
                    (long long)outer_size(&plan, d));
    }
    if (plan.lanes) {
        text_printf(&head, "        const int block = r1, c0 = block * %d;\n", e->lanes);
        if (group->size[1] % e->lanes)
            text_printf(&head, "        const intv live = c0 + LANES < %lld;\n", (long long)group->size[1]);
    }
    char size[160];
    shape_print(shape_make(group->rank, group->size), size, sizeof size);
    const char *what = arena_printf(&l->arena, "fused %zu of %s", node_count, size);
    status = finish_launch(e, &code, text_get(&head), global, local, what ? what : "fused");
    text_finish(&head);
done:
    text_finish(&code);
    return status;
}
