/* A fused kernel's text from its beginning to its end, and its launch. */
#include "compile/emit.h"

#include "base/error.h"

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

void body_begin(struct emitter *e) {
    text_finish(&e->body);
    e->body_memo.count = 0;
    e->planes.count = 0;
}

/* Of two reductions after each other the second writes where the first does not read: so the barrier inside it is
 * enough, and none is needed between them. */
const char *scratch_arguments(struct emitter *e, int floats) {
    int area = e->turn;
    e->turn = !area;
    if (floats > e->scratch_rows[area]) e->scratch_rows[area] = floats;
    const struct fused *kernel = e->kernel;
    int items = kernel->kind == FUSED_ROWS ? kernel->row_items : kernel->items;
    int stride = kernel->kind == FUSED_ROWS && kernel->row_first ? kernel->items / items : 1;
    const char *text = arena_printf(&e->arena, "lid, %d, lane, %d, %d, scratch%d", kernel->items, items, stride, area);
    return text ? text : "";
}

void emit_scratch(const struct emitter *e, struct text *text) {
    for (int area = 0; area < 2; area++)
        if (e->scratch_rows[area])
            text_printf(text, "    local float scratch%d[%d];\n", area, e->scratch_rows[area] * e->kernel->items);
}

void emit_sums(struct emitter *e, struct text *text, const char *prefix, const int *numbers, int count) {
    enum { TOGETHER = 8 }; /* limits the local memory */
    for (int first = 0; first < count; first += TOGETHER) {
        int here = count - first < TOGETHER ? count - first : TOGETHER, v = e->variables++;
        text_printf(text, "        float sums%d[%d] = {", v, here);
        for (int i = 0; i < here; i++) text_printf(text, "%s%s%d", i ? ", " : "", prefix, numbers[first + i]);
        text_printf(text, "};\n        shared_sums(%d, sums%d, %s);\n", here, v, scratch_arguments(e, here));
        for (int i = 0; i < here; i++)
            text_printf(text, "        %s%d = sums%d[%d];\n", prefix, numbers[first + i], v, i);
    }
}

/* The whole kernel: its arguments are the emitter's buffers, its body `head` and `code`. */
static int add_launch(struct emitter *e, const struct text *head, const struct text *code, struct launch_list *list) {
    int status = RETORT_OK;
    const struct fused *kernel = e->kernel;
    size_t items = (size_t)kernel->items;
    struct text text;
    text_init(&text);
    if (e->failure) RAISE(RETORT_EUNSUPPORTED, "cannot compile %s: %s", kernel->what, e->failure);
    text_printf(&text, "__attribute__((reqd_work_group_size(%zu, 1, 1)))\n", items);
    text_append(&text, "kernel void NAME(");
    launch_arguments(&text, e->buffers, e->buffer_count, e->output_count, "restrict ");
    text_append(&text, ") {\n");
    for (int b = 0; b < e->buffer_count; b++) text_printf(&text, "    b%d += o%d;\n", b, b);
    text_append(&text, text_get(head));
    text_append(&text, text_get(code));
    text_append(&text, "}\n");
    if (text.failed || head->failed || code->failed || e->arena.failed || e->row.failed || e->body.failed
        || e->held.failed)
        RAISE(RETORT_ENOMEM, "out of memory compiling %s", kernel->what);
    struct launch launch = {.text = text_get(&text),
                            .global = {kernel->groups * items, 1, 1},
                            .local = {items, 1, 1},
                            .buffers = e->buffers,
                            .buffer_count = e->buffer_count,
                            .output_count = e->output_count,
                            .what = kernel->what,
                            .flops = kernel->flops};
    if (!launch_add(list, &launch)) RAISE(RETORT_ENOMEM, "out of memory compiling %s", kernel->what);
done:
    text_finish(&text);
    return status;
}

int emit_fused(const struct schedule *schedule, const struct fused *kernel, struct launch_list *list) {
    static void (*const write[])(struct emitter *, struct text *, struct text *) = {
        [FUSED_ROWS] = emit_rows, [FUSED_FLAT] = emit_flat, [FUSED_TOTALS] = emit_totals};
    static const struct vector lanes = {"floatv", "intv",       "LOADV",        "LOADV_INT",
                                        "STOREV", "STOREV_INT", "CONVERT_INTV", "CONVERT_FLOATV"};
    static const struct vector four = {"float4", "int4",       "LOAD4",        "LOAD4_INT",
                                       "STORE4", "STORE4_INT", "CONVERT_INT4", "CONVERT_FLOAT4"};
    int status = RETORT_OK;
    const struct grouping *grouping = schedule->layouts->grouping;
    struct emitter e = {.kernel = kernel,
                        .step = kernel->step,
                        .grouping = grouping,
                        .target = &grouping->target,
                        .lanes = kernel->lanes,
                        .vector = kernel->lanes == grouping->target.lanes ? &lanes : &four};
    struct text head, code;
    text_init(&head), text_init(&code);
    arena_init(&e.arena);
    e.reductions = arena_array(&e.arena, (size_t)grouping->node_count, sizeof *e.reductions);
    if (!e.reductions) RAISE(RETORT_ENOMEM, "out of memory compiling %s", kernel->what);
    write[kernel->kind](&e, &head, &code);
    TRY(add_launch(&e, &head, &code, list));
done:
    text_finish(&head), text_finish(&code);
    text_finish(&e.row), text_finish(&e.body), text_finish(&e.held);
    array_finish(&e.planes);
    array_finish(&e.row_memo);
    array_finish(&e.body_memo);
    array_finish(&e.held_memo);
    array_finish(&e.window_elements);
    arena_finish(&e.arena);
    return status;
}
