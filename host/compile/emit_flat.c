/* Kernels that go over whole arrays element by element, each work-item over a chunk of neighbours or over one element;
 * and sums over whole arrays, in two steps: partial sums, then their sum. */
#include "compile/emit.h"

static bool is_summed(const struct flat *flat, int64_t count) {
    return flat->sum && shape_count(flat->node->shape) == count;
}

/* The loops over a chunk of the results that have `count` elements: vectors first, where that is possible. */
static void emit_section(struct emitter *e, int64_t count, struct text *code) {
    const struct flat *flats = e->kernel->flats;
    size_t flat_count = e->kernel->flat_count;
    int lanes = e->kernel->lanes;
    bool alone = e->kernel->items == 1, vector = lanes > 1 && count >= lanes;
    int64_t chunk = e->kernel->chunk;
    if (alone)
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
        else if (alone)
            text_printf(code, "    for (; i < end; i++) {\n%s    }\n", text_get(&e->body));
        else
            text_printf(code, "    if (i < %lld) {\n%s    }\n", (long long)count, text_get(&e->body));
    }
    int *sums = arena_array(&e->arena, flat_count, sizeof *sums), sum_count = 0;
    for (size_t k = 0; k < flat_count && sums; k++)
        if (is_summed(&flats[k], count)) sums[sum_count++] = (int)k;
    if (!alone) emit_group_sums(e, code, "sum", sums, sum_count);
    for (int i = 0; i < sum_count; i++) {
        int b = buffer_number(e, flats[sums[i]].target);
        if (alone)
            text_printf(code, "    b%d[item] = LANE_SUM(lanes%d) + sum%d;\n", b, sums[i], sums[i]);
        else
            text_printf(code, "    if (lid == 0) b%d[group] = sum%d;\n", b, sums[i]);
    }
    text_append(code, "    }\n");
}

static void append_group(const struct emitter *e, struct text *head) {
    text_append(head, "    const int lid = (int)get_local_id(0), group = (int)get_group_id(0);\n    (void)group;\n");
    text_printf(head, "    local float scratch[%d];\n", e->kernel->items * e->scratch_rows);
}

void emit_flat(struct emitter *e, struct text *head, struct text *code) {
    const struct fused *kernel = e->kernel;
    for (size_t k = 0; k < kernel->flat_count; k++) buffer_number(e, kernel->flats[k].target);
    e->output_count = e->buffer_count;
    /* One section for each different element count, in order of first appearance. */
    for (size_t k = 0; k < kernel->flat_count; k++) {
        int64_t count = shape_count(kernel->flats[k].node->shape);
        size_t first = 0;
        while (shape_count(kernel->flats[first].node->shape) != count) first++;
        if (first == k) emit_section(e, count, code);
    }
    text_append(head, "    const int item = (int)get_global_id(0);\n");
    if (e->scratch_rows) append_group(e, head);
    text_append(head, text_get(&e->row));
}

void emit_totals(struct emitter *e, struct text *head, struct text *code) {
    const struct fused *kernel = e->kernel;
    size_t count = kernel->flat_count;
    bool alone = kernel->items == 1;
    int *numbers = arena_array(&e->arena, count, sizeof *numbers);
    if (!numbers) return; /* add_launch() sees it */
    for (size_t k = 0; k < count; k++) numbers[k] = buffer_number(e, kernel->totals[k]);
    e->output_count = e->buffer_count;
    for (size_t k = 0; k < count; k++)
        text_printf(code, "    float sum%d = 0.0f;\n    for (int i = %s; i < %lld; i += %d) sum%d += b%d[i];\n",
                    numbers[k], alone ? "0" : "lid", (long long)kernel->parts, kernel->items, numbers[k],
                    buffer_number(e, kernel->flats[k].target));
    if (!alone) {
        emit_group_sums(e, code, "sum", numbers, (int)count);
        append_group(e, head);
    }
    for (size_t k = 0; k < count; k++)
        text_printf(code, "    %sb%d[0] = sum%d;\n", alone ? "" : "if (lid == 0) ", numbers[k], numbers[k]);
}
