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
    for (int b = 0; b < e->buffer_count; b++)
        text_printf(&text, "%sglobal %s%s *restrict b%d, ulong o%d", b ? ", " : "", b < e->output_count ? "" : "const ",
                    e->buffers[b]->is_int ? "int" : "float", b, b);
    text_append(&text, ") {\n");
    for (int b = 0; b < e->buffer_count; b++) text_printf(&text, "    b%d += o%d;\n", b, b);
    text_append(&text, text_get(head));
    text_append(&text, text_get(code));
    text_append(&text, "}\n");
    if (text.failed || head->failed || code->failed || e->arena.failed || e->row.failed || e->body.failed)
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
    int status = RETORT_OK;
    const struct grouping *grouping = schedule->layouts->grouping;
    struct emitter e = {.kernel = kernel,
                        .step = kernel->step,
                        .grouping = grouping,
                        .target = &grouping->target,
                        .lanes = kernel->lanes};
    struct text head, code;
    text_init(&head), text_init(&code);
    arena_init(&e.arena);
    e.reductions = arena_array(&e.arena, (size_t)grouping->node_count, sizeof *e.reductions);
    if (!e.reductions) RAISE(RETORT_ENOMEM, "out of memory compiling %s", kernel->what);
    write[kernel->kind](&e, &head, &code);
    TRY(add_launch(&e, &head, &code, list));
done:
    text_finish(&head), text_finish(&code);
    text_finish(&e.row), text_finish(&e.body);
    array_finish(&e.row_memo);
    array_finish(&e.body_memo);
    arena_finish(&e.arena);
    return status;
}
