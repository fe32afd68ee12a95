/* Kernels that go over whole arrays element by element, each work-item over a chunk of neighbours or over one element;
 * and sums over whole arrays, in two steps: partial sums, then their sum. */
#include "compile/emit.h"

static bool is_summed(const struct flat *flat, int64_t count) {
    return flat->sum && shape_count(flat->node->shape) == count;
}

/* The statements for one element or, as vectors, for `lanes` neighbours of the results that have `count` elements. */
static void emit_elements(struct emitter *e, int64_t count, int lanes) {
    const struct flat *flats = e->kernel->flats;
    bool vector = lanes > 1;
    struct index at = {.flat = "i", .inner = 1, .lane = vector ? 0 : -1};
    e->lanes = lanes;
    body_begin(e);
    for (size_t k = 0; k < e->kernel->flat_count; k++) {
        if (shape_count(flats[k].node->shape) != count) continue;
        struct expr x = emit(e, flats[k].node, &at);
        int b = buffer_number(e, flats[k].target);
        if (flats[k].sum)
            text_printf(&e->body, "        %s%zu += %s;\n", vector ? "lanes" : "sum", k, widened(e, x, vector));
        else if (vector)
            text_printf(&e->body, "        %s(%s, b%d + i);\n", x.is_int ? e->vector->store_int : e->vector->store,
                        widened(e, x, true), b);
        else
            text_printf(&e->body, "        b%d[i] = %s;\n", b, x.name);
    }
}

/* Whether the kernel sums up anything. */
static bool sums_up(const struct fused *kernel) {
    bool any = false;
    for (size_t k = 0; k < kernel->flat_count; k++) any |= kernel->flats[k].sum;
    return any;
}

/* A work-item goes over a chunk by itself: vectors first, where that is possible. */
static void loop_chunk(struct emitter *e, int64_t count, bool vector, struct text *code) {
    int lanes = e->kernel->lanes;
    if (vector) {
        emit_elements(e, count, lanes);
        text_printf(code, "    for (; i + %d <= end; i += %d) {\n%s    }\n", lanes, lanes, text_get(&e->body));
    }
    emit_elements(e, count, 1);
    text_printf(code, "    for (; i < end; i++) {\n%s    }\n", text_get(&e->body));
}

/* Of those that share an array each work-item takes one vector; where something is summed up, several that lie a group
 * apart. */
static void loop_vectors(struct emitter *e, int64_t count, bool vector, struct text *code) {
    const struct fused *kernel = e->kernel;
    int lanes = kernel->lanes;
    long long chunk = kernel->chunk, all = count;
    bool several = sums_up(kernel);
    if (several) {
        text_printf(code, "    const int end = group * %lld + min(%lld, %lld - group * %lld);\n", chunk, chunk, all,
                    chunk);
        text_printf(code, "    for (int at = group * %lld + lane * %d; at < end; at += %d) {\n    int i = at;\n", chunk,
                    lanes, kernel->items * lanes);
    } else
        text_printf(code, "    int i = item * %d;\n    const int end = %lld;\n", lanes, all);
    if (vector) {
        emit_elements(e, count, lanes);
        text_printf(code, "    if (i + %d <= end) {\n%s    } else\n", lanes, text_get(&e->body));
    }
    emit_elements(e, count, 1);
    if (lanes > 1)
        text_printf(code, "    for (int k = 0; k < %d && i < end; k++, i++) {\n%s    }\n", lanes, text_get(&e->body));
    else
        text_printf(code, "    if (i < end) {\n%s    }\n", text_get(&e->body));
    if (several) text_append(code, "    }\n");
}

/* The results that have `count` elements. */
static void emit_section(struct emitter *e, int64_t count, struct text *code) {
    const struct fused *kernel = e->kernel;
    const struct flat *flats = kernel->flats;
    int *sums = arena_array(&e->arena, kernel->flat_count, sizeof *sums), sum_count = 0;
    bool alone = !kernel->shared, vector = kernel->lanes > 1 && count >= kernel->lanes;
    long long chunk = kernel->chunk, all = count;
    for (size_t k = 0; k < kernel->flat_count && sums; k++)
        if (is_summed(&flats[k], count)) sums[sum_count++] = (int)k;
    text_append(code, "    {\n");
    if (alone)
        text_printf(code, "    int i = item * %lld;\n    const int end = min(i + %lld, %lld);\n", chunk, chunk, all);
    for (int i = 0; i < sum_count; i++) {
        if (alone || vector) text_printf(code, "    %s lanes%d = 0.0f;\n", e->vector->type, sums[i]);
        text_printf(code, "    float sum%d = 0.0f;\n", sums[i]);
    }
    if (alone)
        loop_chunk(e, count, vector, code);
    else
        loop_vectors(e, count, vector, code);
    for (int i = 0, s; i < sum_count && !alone && vector; i++) {
        s = sums[i];
        text_printf(code, "    sum%d += (lanes%d.x + lanes%d.y) + (lanes%d.z + lanes%d.w);\n", s, s, s, s, s);
    }
    if (!alone) emit_sums(e, code, "sum", sums, sum_count);
    for (int i = 0; i < sum_count; i++) {
        int b = buffer_number(e, flats[sums[i]].target), s = sums[i];
        if (alone)
            text_printf(code, "    b%d[item] = LANE_SUM(lanes%d) + sum%d;\n", b, s, s);
        else
            text_printf(code, "    if (lane == 0 && group * %lld < %lld) b%d[group] = sum%d;\n", chunk, all, b, s);
    }
    text_append(code, "    }\n");
}

/* Before the code of kernels whose groups sum up. */
static void append_group(const struct emitter *e, struct text *head) {
    emit_scratch(e, head);
    text_append(head, "    const int lid = (int)get_local_id(0), lane = lid, group = (int)get_group_id(0);\n"
                      "    (void)lane, (void)group;\n");
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
    if (!kernel->shared || !sums_up(kernel))
        text_append(head, "    const int item = (int)get_global_id(0);\n");
    else
        append_group(e, head);
    text_append(head, text_get(&e->row));
}

void emit_totals(struct emitter *e, struct text *head, struct text *code) {
    const struct fused *kernel = e->kernel;
    size_t count = kernel->flat_count;
    bool alone = !kernel->shared;
    int *numbers = arena_array(&e->arena, count, sizeof *numbers);
    if (!numbers) return; /* add_launch() sees it */
    for (size_t k = 0; k < count; k++) numbers[k] = buffer_number(e, kernel->totals[k]);
    for (size_t k = 0; k < kernel->after_count; k++) buffer_number(e, kernel->after[k].target);
    e->output_count = e->buffer_count;
    for (size_t k = 0; k < count; k++)
        text_printf(code, "    float sum%d = 0.0f;\n    for (int i = %s; i < %lld; i += %d) sum%d += b%d[i];\n",
                    numbers[k], alone ? "0" : "lid", (long long)kernel->parts, kernel->items, numbers[k],
                    buffer_number(e, kernel->flats[k].target));
    if (!alone) {
        emit_sums(e, code, "sum", numbers, (int)count);
        append_group(e, head);
    }
    for (size_t k = 0; k < count; k++) {
        text_printf(code, "    %sb%d[0] = sum%d;\n", alone ? "" : "if (lane == 0) ", numbers[k], numbers[k]);
        for (size_t m = 0; m < e->step->results.count; m++)
            if (e->step->results.items[m].value == kernel->totals[k])
                e->reductions[e->step->results.items[m].node->index].name =
                    arena_printf(&e->arena, "sum%d", numbers[k]);
    }
    struct text stores;
    text_init(&stores);
    for (size_t k = 0; k < kernel->after_count; k++) {
        const struct flat *after = &kernel->after[k];
        const char *value = emit(e, after->node, &(struct index){.flat = "0", .lane = -1}).name;
        text_printf(&stores, "    if (lane == 0) b%d[0] = %s;\n", buffer_number(e, after->target), value);
    }
    text_append(code, text_get(&e->row));
    text_append(code, text_get(&stores));
    text_finish(&stores);
}
