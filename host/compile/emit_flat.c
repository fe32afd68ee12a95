/* Kernels that go over whole arrays element by element, each work-item over a chunk of neighbours (GPU: one element);
 * and sums over whole arrays, in two steps: partial sums, then their sum. */
#include "compile/emit.h"

#include <stdlib.h>

bool flat_fits(const struct emitter *e, const struct node *node, int64_t count) {
    int64_t own = shape_count(node->shape);
    if (own != count && own != 1) return false;
    if (node->op == OP_CONSTANT || node->op == OP_RANDOM || (e->whole && is_own_reduction(e, node))) return true;
    if (is_loaded(e, node)) return e->lowering->plain[node->index] || !e->lowering->blocked[node->index];
    if (node->op == OP_BROADCAST && shape_count(node->inputs[0]->shape) != 1) return false;
    if (!is_elementwise(node) && node->op != OP_BROADCAST && node->op != OP_RESHAPE) return false;
    for (int k = 0; k < node->input_count; k++)
        if (!flat_fits(e, node->inputs[k], count)) return false;
    return true;
}

static bool is_cpu(const struct emitter *e) {
    return e->lowering->target.family == FAMILY_CPU;
}

/* How many neighbouring elements a work-item (CPU) or work-group (GPU) computes. */
static int64_t flat_chunk(const struct emitter *e, int64_t count) {
    enum { ITEMS = 256, LEAST = 2048 };
    if (!is_cpu(e)) return FAMILY_GPU_LOCAL;
    int64_t chunk = (count + ITEMS - 1) / ITEMS;
    return chunk < LEAST ? LEAST : (chunk + 15) / 16 * 16;
}

int64_t flat_parts(const struct emitter *e, int64_t count) {
    int64_t chunk = flat_chunk(e, count);
    return (count + chunk - 1) / chunk;
}

static bool is_summed(const struct flat *flat, int64_t count) {
    return flat->sum && shape_count(flat->node->shape) == count;
}

/* The loops over a chunk of the results that have `count` elements: vectors first, where that is possible. */
static void emit_section(struct emitter *e, const struct flat *flats, size_t flat_count, int64_t count, int64_t chunk,
                         struct text *code) {
    int lanes = e->lowering->target.lanes;
    bool vector = is_cpu(e) && lanes > 1 && count >= lanes;
    if (is_cpu(e))
        text_printf(code, "    {\n    int i = item * %lld;\n    const int end = min(i + %lld, %lld);\n",
                    (long long)chunk, (long long)chunk, (long long)count);
    else
        text_append(code, "    {\n    const int i = item;\n");
    for (size_t k = 0; k < flat_count; k++)
        if (is_summed(&flats[k], count))
            text_printf(code, "    floatv lanes%zu = 0.0f;\n    float sum%zu = 0.0f;\n", k, k);
    for (int pass = vector ? 0 : 1; pass < 2; pass++) {
        struct index at = {.flat = "i", .inner = 1, .lane = pass == 0 ? 0 : -1};
        e->lanes = pass == 0 ? lanes : 1;
        body_begin(e);
        for (size_t k = 0; k < flat_count; k++) {
            if (shape_count(flats[k].node->shape) != count) continue;
            struct expr x = emit(e, flats[k].node, &at);
            int b = buffer_number(e, flats[k].target);
            if (flats[k].sum)
                text_printf(&e->body, "        %s%zu += %s;\n", pass == 0 ? "lanes" : "sum", k,
                            widened(e, x, pass == 0));
            else if (pass == 0)
                text_printf(&e->body, "        %s(%s, b%d + i);\n", x.is_int ? "STOREV_INT" : "STOREV",
                            widened(e, x, true), b);
            else
                text_printf(&e->body, "        b%d[i] = %s;\n", b, x.name);
        }
        if (pass == 0)
            text_printf(code, "    for (; i + %d <= end; i += %d) {\n%s    }\n", lanes, lanes, text_get(&e->body));
        else if (is_cpu(e))
            text_printf(code, "    for (; i < end; i++) {\n%s    }\n", text_get(&e->body));
        else
            text_printf(code, "    if (i < %lld) {\n%s    }\n", (long long)count, text_get(&e->body));
    }
    int *sums = arena_array(&e->arena, flat_count, sizeof *sums), sum_count = 0;
    for (size_t k = 0; k < flat_count && sums; k++)
        if (is_summed(&flats[k], count)) sums[sum_count++] = (int)k;
    if (!is_cpu(e)) emit_group_sums(e, code, "sum", sums, sum_count);
    for (int i = 0; i < sum_count; i++) {
        int b = buffer_number(e, flats[sums[i]].target);
        if (is_cpu(e))
            text_printf(code, "    b%d[item] = LANE_SUM(lanes%d) + sum%d;\n", b, sums[i], sums[i]);
        else
            text_printf(code, "    if (lid == 0) b%d[group] = sum%d;\n", b, sums[i]);
    }
    text_append(code, "    }\n");
}

static const char item_text[] = "    const int item = (int)get_global_id(0);\n";

static void append_group(const struct emitter *e, struct text *head) {
    text_append(head, "    const int lid = (int)get_local_id(0), group = (int)get_group_id(0);\n    (void)group;\n");
    text_printf(head, "    local float scratch[%d];\n", FAMILY_GPU_LOCAL * e->scratch_rows);
}

int emit_flat(struct emitter *e, const struct flat *flats, size_t flat_count) {
    int status = RETORT_OK;
    int64_t longest = 0;
    bool sums = false;
    struct text code, head;
    text_init(&code), text_init(&head);
    for (size_t k = 0; k < flat_count; k++) {
        buffer_number(e, flats[k].target);
        int64_t count = shape_count(flats[k].node->shape);
        if (count > longest) longest = count;
        sums |= flats[k].sum;
    }
    e->output_count = e->buffer_count;
    int64_t chunk = flat_chunk(e, longest), parts = flat_parts(e, longest);
    /* One section for each different element count, in order of first appearance. */
    for (size_t k = 0; k < flat_count; k++) {
        int64_t count = shape_count(flats[k].node->shape);
        size_t first = 0;
        while (shape_count(flats[first].node->shape) != count) first++;
        if (first == k) emit_section(e, flats, flat_count, count, chunk, &code);
    }
    text_append(&head, item_text);
    if (e->scratch_rows) append_group(e, &head);
    text_append(&head, text_get(&e->row));
    const char *what =
        arena_printf(&e->lowering->arena, "%s %lld", sums ? "partial sums" : "elementwise", (long long)longest);
    size_t local = is_cpu(e) ? 1 : FAMILY_GPU_LOCAL;
    TRY(finish_launch(e, &code, text_get(&head), (size_t)parts * local, local, what ? what : "elementwise"));
done:
    text_finish(&head);
    text_finish(&code);
    return status;
}

/* --- sums over whole arrays --- */
bool whole_fits(struct emitter *e, const struct group *group) {
    enum { LONG = 1 << 13 };
    int64_t rows = 1, count = 1;
    for (int d = 0; d < group->rank; d++) *(group->inner >> d & 1 ? &count : &rows) *= group->size[d];
    if (!group->inner_known || group->plane || rows != 1 || count < LONG) return false;
    bool fits = true;
    e->whole = true;
    for (size_t k = 0; k < group->members.count && fits; k++) {
        const struct node *node = group->members.items[k];
        bool reduces = is_own_reduction(e, node);
        fits =
            (!reduces || node->op == OP_REDUCE_SUM)
            && flat_fits(e, reduces ? node->inputs[0] : node, shape_count((reduces ? node->inputs[0] : node)->shape));
    }
    e->whole = false;
    return fits;
}

/* Adds up partial sums: one work-item, or work-group, for all. */
static int emit_totals(struct lowering *lowering, const struct flat *sums, struct value *const *totals, size_t count,
                       int64_t parts) {
    int status = RETORT_OK;
    struct emitter e;
    struct text code, head;
    text_init(&code), text_init(&head);
    TRY(emitter_init(&e, lowering, -1, 1));
    bool cpu = is_cpu(&e);
    int *numbers = arena_array(&e.arena, count, sizeof *numbers);
    if (!numbers) RAISE(RETORT_ENOMEM, "out of memory compiling a sum");
    for (size_t k = 0; k < count; k++) numbers[k] = buffer_number(&e, totals[k]);
    e.output_count = e.buffer_count;
    for (size_t k = 0; k < count; k++)
        text_printf(&code, "    float sum%d = 0.0f;\n    for (int i = %s; i < %lld; i += %d) sum%d += b%d[i];\n",
                    numbers[k], cpu ? "0" : "lid", (long long)parts, cpu ? 1 : FAMILY_GPU_LOCAL, numbers[k],
                    buffer_number(&e, sums[k].target));
    if (!cpu) {
        emit_group_sums(&e, &code, "sum", numbers, (int)count);
        append_group(&e, &head);
    }
    for (size_t k = 0; k < count; k++)
        text_printf(&code, "    %sb%d[0] = sum%d;\n", cpu ? "" : "if (lid == 0) ", numbers[k], numbers[k]);
    size_t local = cpu ? 1 : FAMILY_GPU_LOCAL;
    TRY(finish_launch(&e, &code, text_get(&head), local, local, "totals"));
done:
    text_finish(&head);
    text_finish(&code);
    emitter_finish(&e);
    return status;
}

/* Launches for what can be computed once `level` rounds of sums are finished: results, and the next round of sums.
 * *more tells whether anything is left for a later level. */
static int emit_level(struct lowering *lowering, const struct group *group, int level, bool *more) {
    int status = RETORT_OK;
    struct emitter e;
    size_t count = 0, sum_count = 0, members = group->members.count;
    int64_t parts = 0;
    TRY(emitter_init(&e, lowering, (int)(group - lowering->grouping->groups), 1));
    e.whole = true;
    struct flat *flats = arena_array(&e.arena, members + 1, sizeof *flats);
    struct flat *sums = arena_array(&e.arena, members + 1, sizeof *sums);
    struct value **totals = arena_array(&e.arena, members + 1, sizeof(struct value *));
    if (e.arena.failed) RAISE(RETORT_ENOMEM, "out of memory compiling a sum");
    *more = false;
    for (size_t k = 0; k < members; k++) {
        struct node *node = group->members.items[k];
        bool reduces = is_own_reduction(&e, node);
        struct node *operand = reduces ? node->inputs[0] : node;
        int own = level_of(&e, operand);
        *more |= own > level;
        if (own == level) e.flops += op_info(node->op)->cost(node);
        if (own != level || (!reduces && !lowering->grouping->stored[node->index])) continue;
        if (!reduces) {
            flats[count++] = (struct flat){.node = node, .target = lowering->plain[node->index]};
            continue;
        }
        parts = flat_parts(&e, shape_count(operand->shape));
        struct value *partial = lowering_scratch(lowering, NULL, (size_t)parts);
        struct value **total = &lowering->plain[node->index];
        if (!*total) *total = lowering_scratch(lowering, node, 1);
        if (!partial || !*total) RAISE(RETORT_ENOMEM, "out of memory compiling a sum");
        flats[count++] = sums[sum_count] = (struct flat){.node = operand, .target = partial, .sum = true};
        totals[sum_count++] = *total;
    }
    if (count) TRY(emit_flat(&e, flats, count));
    if (sum_count) TRY(emit_totals(lowering, sums, totals, sum_count, parts));
done:
    emitter_finish(&e);
    return status;
}

int emit_whole(struct lowering *lowering, const struct group *group) {
    int status = RETORT_OK;
    bool more = true;
    for (int level = 0; more; level++) TRY(emit_level(lowering, group, level, &more));
done:
    return status;
}
