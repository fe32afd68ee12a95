/* Row kernels: a work-item, or the work-items of a group together, own a row and pass over it in phases. */
#include "compile/emit.h"

#include "compile/roles.h"

static int64_t outer_size(const struct fused *kernel, int d) {
    int64_t size = kernel->step->rows.size[d], lanes = kernel->lanes;
    return d == 1 ? (size + lanes - 1) / lanes : size;
}

/* The index of the current element for a node: row variables outside, loop variables inside. */
static struct index row_index(const struct fused *kernel, const struct shape *shape) {
    static const char *const outer[MAX_RANK] = {"r0", "r1", "r2", "r3", "r4", "r5"};
    static const char *const loop[MAX_RANK] = {"x0", "x1", "x2", "x3", "x4", "x5"};
    struct index at = {.rank = shape->rank, .lane = -1};
    for (int d = 0; d < shape->rank; d++) {
        if (shape->size[d] == 1)
            at.at[d] = "0";
        else if (kernel->step->inner >> d & 1) {
            at.at[d] = loop[d];
            at.inner |= 1u << d;
        } else
            at.at[d] = outer[d];
        if (kernel->lanes > 1 && d == 1) {
            at.at[d] = "c0";
            at.lane = 1;
        }
    }
    return at;
}

/* One pass over the row: the reductions and stores of a phase. */
static void emit_phase(struct emitter *e, const struct phase *phase, struct text *code) {
    const struct fused *kernel = e->kernel;
    const struct shape *shape = phase->shape;
    bool alone = kernel->items == 1, lanes = kernel->lanes > 1;
    const char *vector = lanes ? "floatv" : "float";
    struct text begin, part, end, after;
    text_init(&begin), text_init(&part), text_init(&end), text_init(&after);
    body_begin(e);
    int loops[MAX_RANK], loop_count = 0, sum_count = 0;
    int *sums = arena_array(&e->arena, phase->count, sizeof *sums);
    if (!sums) return; /* add_launch() sees it */
    for (int d = 0; d < shape->rank; d++)
        if (kernel->step->inner >> d & 1 && shape->size[d] > 1) loops[loop_count++] = d;
    for (size_t k = 0; k < phase->count; k++) {
        struct node *node = phase->nodes[k];
        if (!is_own_reduction(e->grouping, e->step->group, node)) {
            struct index at = row_index(kernel, &node->shape);
            emit_store(e, &e->body, node, &at, emit(e, node, &at));
            continue;
        }
        struct node *operand = node->inputs[0];
        struct index at = row_index(kernel, &operand->shape);
        bool product = node->op == OP_REDUCE_SUM && is_product(e, operand);
        struct expr x = emit(e, product ? operand->inputs[0] : operand, &at);
        struct expr y = product ? emit(e, operand->inputs[1], &at) : x;
        int v = e->variables++;
        const char *value = widened(e, x, lanes);
        if (node->op == OP_REDUCE_SUM) {
            text_printf(&begin, "        %s total%d = 0.0f;\n", vector, v);
            text_printf(&part, "        %s sum%d = 0.0f;\n", vector, v);
            if (product)
                text_printf(&e->body, "        sum%d = FMA(%s, %s, sum%d);\n", v, value, widened(e, y, lanes), v);
            else
                text_printf(&e->body, "        sum%d += %s;\n", v, value);
            text_printf(&end, "        total%d += sum%d;\n", v, v);
            sums[sum_count++] = v;
        } else if (node->op == OP_REDUCE_MAX) {
            text_printf(&begin, "        %s total%d = -INFINITY;\n", vector, v);
            text_printf(&e->body, "        total%d = fmax(total%d, %s);\n", v, v, value);
            if (!alone) text_printf(&after, "        total%d = group_max(total%d, scratch);\n", v, v);
        } else {
            int axis = node->attributes.axis;
            const char *position = at.at[axis];
            text_printf(&begin, "        float best%d = -INFINITY;\n        int total%d = 0;\n", v, v);
            if (!alone) text_printf(&begin, "        total%d = 0x7fffffff;\n", v);
            text_printf(&e->body,
                        "        if (%s > best%d) {\n            best%d = %s;\n            total%d = %s;\n        }\n",
                        value, v, v, value, v, position);
            if (!alone)
                text_printf(&after, "        total%d = group_argmax(best%d, total%d, scratch, places);\n", v, v, v);
        }
        e->reductions[node->index] = (struct expr){.name = arena_printf(&e->arena, "total%d", v),
                                                   .lane = lanes && node->op != OP_ARGMAX,
                                                   .is_int = node->op == OP_ARGMAX};
    }
    if (!alone) emit_group_sums(e, &after, "total", sums, sum_count);
    /* What emit() has added to `row` must stand before this pass's loops. */
    text_append(code, text_get(&e->row));
    text_finish(&e->row);
    text_append(code, text_get(&begin));
    if (!alone) {
        int64_t total = 1;
        for (int k = 0; k < loop_count; k++) total *= shape->size[loops[k]];
        text_printf(code, "        {\n%s", text_get(&part));
        text_printf(code, "        for (int x = lid; x < %lld; x += %d) {\n", (long long)total, kernel->items);
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

void emit_rows(struct emitter *e, struct text *head, struct text *code) {
    const struct fused *kernel = e->kernel;
    const struct step *step = e->step;
    bool alone = kernel->items == 1;
    for (size_t k = 0; k < step->results.count; k++) buffer_number(e, step->results.items[k].value);
    e->output_count = e->buffer_count;
    for (size_t k = 0; k < kernel->phases.count; k++) emit_phase(e, &kernel->phases.items[k], code);
    /* Results with one value a row: finished reductions, and what is computed from them. */
    struct text stores;
    text_init(&stores);
    for (size_t k = 0; k < step->results.count; k++) {
        struct node *node = step->results.items[k].node;
        if (has_inner(&node->shape, step->inner) && !is_own_reduction(e->grouping, step->group, node)) continue;
        struct index at = row_index(kernel, &node->shape);
        emit_store(e, &stores, node, &at, emit(e, node, &at));
    }
    text_append(code, text_get(&e->row));
    if (stores.length) text_printf(code, alone ? "%s" : "        if (lid == 0) {\n%s        }\n", text_get(&stores));
    text_finish(&stores);
    text_append(code, "    }\n");
    if (alone) {
        text_printf(head, "    const int first = (int)get_global_id(0) * %lld;\n", (long long)kernel->each);
        text_printf(head, "    for (int row = first; row < min(first + %lld, %lld); row++) {\n",
                    (long long)kernel->each, (long long)kernel->rows);
    } else {
        text_printf(head, "    local float scratch[%d];\n    local int places[%d];\n",
                    kernel->items * (e->scratch_rows ? e->scratch_rows : 1), kernel->items);
        text_append(head, "    const int lid = (int)get_local_id(0);\n    (void)scratch, (void)places;\n");
        text_append(head, "    const int row = (int)get_group_id(0);\n    {\n");
    }
    int64_t stride = kernel->rows;
    for (int d = 0; d < step->rows.rank; d++) {
        if (step->inner >> d & 1) continue;
        stride /= outer_size(kernel, d);
        text_printf(head, "        const int r%d = row / %lld %% %lld;\n", d, (long long)stride,
                    (long long)outer_size(kernel, d));
    }
    if (kernel->lanes > 1) {
        text_printf(head, "        const int block = r1, c0 = block * %d;\n", kernel->lanes);
        if (step->rows.size[1] % kernel->lanes)
            text_printf(head, "        const intv live = c0 + LANES < %lld;\n", (long long)step->rows.size[1]);
    }
}
