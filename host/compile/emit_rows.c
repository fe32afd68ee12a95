/* Row kernels: a work-item, or several of a group together, own a row and pass over it in phases. */
#include "compile/emit.h"

#include "compile/integer.h"
#include "compile/roles.h"

#include <string.h>

static int64_t outer_size(const struct fused *kernel, int d) {
    int64_t size = kernel->step->rows.size[d];
    return d == 1 ? divide_up(size, kernel->lanes) : size;
}

static const char *const row_variables[MAX_RANK] = {"r0", "r1", "r2", "r3", "r4", "r5"};
static const char *const loop_variables[MAX_RANK] = {"x0", "x1", "x2", "x3", "x4", "x5"};

/* The index of the current element for a node: row variables outside, loop variables inside. */
static struct index row_index(const struct fused *kernel, const struct shape *shape) {
    struct index at = {.rank = shape->rank, .lane = -1};
    for (int d = 0; d < shape->rank; d++) {
        if (shape->size[d] == 1)
            at.at[d] = "0";
        else if (kernel->step->inner >> d & 1) {
            at.at[d] = loop_variables[d];
            at.inner |= 1u << d;
        } else
            at.at[d] = row_variables[d];
        if (kernel->lanes > 1 && d == 1) {
            at.at[d] = "c0";
            at.lane = 1;
        }
    }
    return at;
}

/* The same for one element of the window at a place. */
static struct index window_index(struct emitter *e, const struct shape *shape, int window, int element) {
    struct index at = row_index(e->kernel, shape);
    for (int d = shape->rank - 1; d >= 0 && window > 1; d--) {
        if (!(e->kernel->step->inner >> d & 1)) continue;
        bool one = e->kernel->places.size[d] == 1;
        at.at[d] = window_element(e, one ? "0" : loop_variables[d], window, element % window);
        at.inner |= 1u << d;
        element /= window;
    }
    return at;
}

/* --- phases --- */
/* The pieces of a phase's text, in this order; the loop's body stands between `part` and `end`. */
struct pass {
    struct text begin, part, end, after;
    int *sums, sum_count;
};

/* The variables of a reduction: what it begins with, and what becomes of it behind the loop. */
static void begin_reduction(struct emitter *e, const struct node *node, int v, struct pass *pass) {
    bool alone = e->kernel->row_items == 1, lanes = e->kernel->lanes > 1;
    const char *vector = lanes ? "floatv" : "float";
    if (node->op == OP_REDUCE_SUM) {
        text_printf(&pass->begin, "        %s total%d = 0.0f;\n", vector, v);
        text_printf(&pass->part, "        %s sum%d = 0.0f;\n", vector, v);
        text_printf(&pass->end, "        total%d += sum%d;\n", v, v);
        pass->sums[pass->sum_count++] = v;
    } else if (node->op == OP_REDUCE_MAX) {
        text_printf(&pass->begin, "        %s total%d = -INFINITY;\n", vector, v);
        if (!alone)
            text_printf(&pass->after, "        total%d = shared_max(total%d, %s);\n", v, v, scratch_arguments(e, 1));
    } else {
        text_printf(&pass->begin, "        float best%d = -INFINITY;\n        int total%d = 0;\n", v, v);
        if (!alone) text_printf(&pass->begin, "        total%d = 0x7fffffff;\n", v);
        if (!alone)
            text_printf(&pass->after, "        total%d = shared_argmax(best%d, total%d, %s);\n", v, v, v,
                        scratch_arguments(e, 2));
    }
    e->reductions[node->index] = (struct expr){.name = arena_printf(&e->arena, "total%d", v),
                                               .lane = lanes && node->op != OP_ARGMAX,
                                               .is_int = node->op == OP_ARGMAX};
}

/* Writes into the loop's body how one element enters a reduction, whose variables have number *v: -1 for a new one. */
static void emit_reduction(struct emitter *e, const struct node *node, int *v, const struct index *at,
                           struct pass *pass) {
    bool lanes = e->kernel->lanes > 1;
    struct node *operand = node->inputs[0];
    bool product = node->op == OP_REDUCE_SUM && is_product(e, operand);
    struct expr x = emit(e, product ? operand->inputs[0] : operand, at);
    struct expr y = product ? emit(e, operand->inputs[1], at) : x;
    if (*v < 0) begin_reduction(e, node, *v = e->variables++, pass);
    const char *value = widened(e, x, lanes);
    if (node->op == OP_REDUCE_SUM) {
        if (product)
            text_printf(&e->body, "        sum%d = FMA(%s, %s, sum%d);\n", *v, value, widened(e, y, lanes), *v);
        else
            text_printf(&e->body, "        sum%d += %s;\n", *v, value);
    } else if (node->op == OP_REDUCE_MAX)
        text_printf(&e->body, "        total%d = fmax(total%d, %s);\n", *v, *v, value);
    else
        text_printf(&e->body,
                    "        if (%s > best%d) {\n            best%d = %s;\n            total%d = %s;\n        }\n",
                    value, *v, *v, value, *v, at->at[node->attributes.axis]);
}

/* Whether items stand for rows past the last one: they go along, and store nothing. */
static bool has_spare_rows(const struct fused *kernel) {
    return kernel->row_items > 1 && kernel->rows % (kernel->items / kernel->row_items) != 0;
}

/* The statements of one element, or of all of a window, in e->body. */
static void emit_body(struct emitter *e, const struct phase *phase, int *variables, struct pass *pass) {
    const struct fused *kernel = e->kernel;
    int window = kernel->held ? phase->window : 1, elements = 1;
    for (int d = 0; d < phase->shape->rank && window > 1; d++)
        if (kernel->step->inner >> d & 1) elements *= window;
    for (int element = 0; element < elements; element++)
        for (size_t k = 0; k < phase->count; k++) {
            struct node *node = phase->nodes[k];
            bool reduces = is_own_reduction(e->grouping, e->step->group, node);
            const struct shape *shape = reduces ? &node->inputs[0]->shape : &node->shape;
            struct index at = window_index(e, shape, window, element);
            if (reduces) {
                emit_reduction(e, node, &variables[k], &at, pass);
                continue;
            }
            struct expr x = emit(e, node, &at);
            if (has_spare_rows(kernel)) text_append(&e->body, "        if (live)\n");
            emit_store(e, &e->body, node, &at, x);
        }
}

/* The inner dimensions along which a phase has loops; returns how many. */
static int find_loops(const struct emitter *e, const struct phase *phase, int loops[MAX_RANK]) {
    int count = 0;
    for (int d = 0; d < phase->shape->rank; d++)
        if (e->step->inner >> d & 1 && phase->shape->size[d] > 1) loops[count++] = d;
    return count;
}

/* Turns of the outer loops of a kernel's phases before this one, or where it is NULL of all. */
static int64_t count_turns(const struct emitter *e, const struct phase *until) {
    int64_t turns = 0;
    for (size_t k = 0; k < e->kernel->phases.count && &e->kernel->phases.items[k] != until; k++) {
        const struct phase *phase = &e->kernel->phases.items[k];
        int loops[MAX_RANK];
        if (find_loops(e, phase, loops) == 2) turns += phase->shape->size[loops[0]];
    }
    return turns;
}

/* Whether asking for the next row's planes pays: a core's second cache is large and holds two rows' and as much again
 * for results, but all cores' do not hold all rows'. */
static bool asks_ahead(const struct emitter *e) {
    const struct device_traits *traits = e->target->traits;
    uint64_t bytes = 0;
    for (size_t i = 0; i < e->planes.count; i++) bytes += (uint64_t)e->planes.items[i].floats * sizeof(float);
    return e->kernel->phases.count > 1 && kernels_large_cache(e->target) && 4 * bytes <= traits->second_cache
           && bytes * (uint64_t)e->kernel->rows > traits->second_cache * traits->compute_units;
}

/* The first phase waits for the row's planes to come from the last cache; the others find them in the second. So that
 * all phases share the wait, each turn of their outer loops asks for some lines of the next row's planes. */
static void ask_ahead(struct emitter *e, const struct phase *phase, int loop, struct text *code) {
    enum { LINE = 16 };
    int64_t turns = count_turns(e, NULL), before = count_turns(e, phase);
    for (size_t i = 0; i < e->planes.count; i++) {
        const struct plane *plane = &e->planes.items[i];
        int64_t lines = divide_up(plane->floats, LINE * turns);
        text_printf(code,
                    "        for (int i = 0; i < %lld; i++)\n"
                    "            PREFETCH(b%d + (row + 1L) * %lld + ((x%d + %lld) * %lld + i) * %d);\n",
                    (long long)lines, plane->buffer, (long long)plane->floats, loop, (long long)before,
                    (long long)lines, LINE);
    }
}

/* The loops of an item that has the row to itself. Sums are taken in short parts, which are then added: a long float32
 * sum loses digits. */
static void loop_alone(struct emitter *e, const struct phase *phase, const struct pass *pass, struct text *code) {
    const struct shape *shape = phase->shape;
    int loops[MAX_RANK], loop_count = find_loops(e, phase, loops);
    for (int k = 0; k + 1 < loop_count; k++)
        text_printf(code, "        for (int x%d = 0; x%d < %lld; x%d++) {\n", loops[k], loops[k],
                    (long long)shape->size[loops[k]], loops[k]);
    if (loop_count == 2 && asks_ahead(e)) ask_ahead(e, phase, loops[0], code);
    int last = loop_count ? loops[loop_count - 1] : -1;
    int64_t length = loop_count ? shape->size[last] : 1;
    bool strips = pass->part.length && length > 512;
    if (strips) text_printf(code, "        for (int strip = 0; strip < %lld; strip += 256) {\n", (long long)length);
    text_printf(code, "        {\n%s", text_get(&pass->part));
    if (strips)
        text_printf(code, "        for (int x%d = strip; x%d < min(strip + 256, %lld); x%d++) {\n", last, last,
                    (long long)length, last);
    else if (loop_count)
        text_printf(code, "        for (int x%d = 0; x%d < %lld; x%d++) {\n", last, last, (long long)length, last);
    text_append(code, text_get(&e->body));
    if (loop_count) text_append(code, "        }\n");
    text_printf(code, "%s        }\n", text_get(&pass->end));
    if (strips) text_append(code, "        }\n");
    for (int k = 0; k + 1 < loop_count; k++) text_append(code, "        }\n");
}

/* The loop of the items that share a row: each takes every so many-th element, or place. Divisions are unsigned, which
 * are cheaper, and leave the compiler knowing that an index is not negative. */
static void loop_shared(struct emitter *e, const struct phase *phase, const struct pass *pass, struct text *code) {
    const struct fused *kernel = e->kernel;
    const struct shape *shape = kernel->held ? &kernel->places : phase->shape;
    int64_t total = inner_count(shape, kernel->step->inner), stride;
    text_printf(code, "        {\n%s", text_get(&pass->part));
    bool ragged = kernel->held && total != (int64_t)kernel->held * kernel->row_items;
    if (kernel->held)
        text_printf(code, "        UNROLL for (int e = 0; e < %d; e++) {\n        const int x = lane + e * %d;\n",
                    kernel->held, kernel->row_items);
    else if (kernel->chunk)
        text_printf(code, "        for (int x = part * %lld + lane; x < min((part + 1) * %lld, %lld); x += %d) {\n",
                    (long long)kernel->chunk, (long long)kernel->chunk, (long long)total, kernel->row_items);
    else
        text_printf(code, "        for (int x = lane; x < %lld; x += %d) {\n", (long long)total, kernel->row_items);
    if (ragged) text_printf(code, "        if (x < %lld) {\n", (long long)total);
    stride = total;
    for (int d = 0; d < shape->rank; d++) {
        if (!(kernel->step->inner >> d & 1) || shape->size[d] == 1) continue;
        bool first = stride == total;
        stride /= shape->size[d];
        text_printf(code, "        const int x%d = (uint)x", d);
        if (stride > 1) text_printf(code, " / %lldu", (long long)stride);
        if (!first) text_printf(code, " %% %lldu", (long long)shape->size[d]);
        text_append(code, ";\n");
    }
    text_printf(code, "%s%s        }\n%s        }\n%s", text_get(&e->body), ragged ? "        }\n" : "",
                text_get(&pass->end), text_get(&pass->after));
}

/* One pass over the row: the reductions and stores of a phase. */
static void emit_phase(struct emitter *e, const struct phase *phase, struct text *code) {
    bool alone = e->kernel->row_items == 1;
    struct pass pass = {.sums = arena_array(&e->arena, phase->count, sizeof *pass.sums)};
    int *variables = arena_array(&e->arena, phase->count, sizeof *variables);
    if (!pass.sums || !variables) return; /* add_launch() sees it */
    text_init(&pass.begin), text_init(&pass.part), text_init(&pass.end), text_init(&pass.after);
    body_begin(e);
    for (size_t k = 0; k < phase->count; k++) variables[k] = -1;
    emit_body(e, phase, variables, &pass);
    if (!alone) emit_sums(e, &pass.after, "total", pass.sums, pass.sum_count);
    /* What emit() has added to `row` must stand before this pass's loops. */
    text_append(code, text_get(&e->row));
    text_finish(&e->row);
    text_append(code, text_get(&pass.begin));
    if (alone)
        loop_alone(e, phase, &pass, code);
    else
        loop_shared(e, phase, &pass, code);
    text_finish(&pass.begin), text_finish(&pass.part), text_finish(&pass.end), text_finish(&pass.after);
}

/* --- the kernel --- */
/* The sums that earlier kernels have left in parts, added up in their order by whoever reads them. */
static void read_partials(struct emitter *e, struct text *code) {
    const struct fused *kernel = e->kernel;
    for (size_t k = 0; k < kernel->known_count; k++) {
        const struct partial *partial = &kernel->partials[k];
        int b = buffer_number(e, partial->value), v = e->variables++;
        text_printf(
            code,
            "        float total%d = 0.0f;\n        for (int i = 0; i < %lld; i++) total%d += b%d[row * %lld + i];\n",
            v, (long long)kernel->parts, v, b, (long long)kernel->parts);
        e->reductions[partial->node->index] = (struct expr){.name = arena_printf(&e->arena, "total%d", v)};
    }
}

/* The stores behind the last phase: results with one value a row, finished reductions and what is computed from them;
 * or the parts of sums. */
static void emit_row_stores(struct emitter *e, struct text *code) {
    const struct fused *kernel = e->kernel;
    const struct step *step = e->step;
    struct text stores;
    text_init(&stores);
    for (size_t k = 0; k < step->results.count && kernel->last; k++) {
        struct node *node = step->results.items[k].node;
        if (has_inner(&node->shape, step->inner) && !is_own_reduction(e->grouping, step->group, node)) continue;
        struct index at = row_index(kernel, &node->shape);
        emit_store(e, &stores, node, &at, emit(e, node, &at));
    }
    for (size_t k = 0; k < kernel->left_count; k++) {
        const struct partial *partial = &kernel->partials[kernel->known_count + k];
        text_printf(&stores, "        b%d[row * %lld + part] = %s;\n", buffer_number(e, partial->value),
                    (long long)kernel->parts, e->reductions[partial->node->index].name);
    }
    text_append(code, text_get(&e->row));
    const char *condition = kernel->row_items == 1                 ? NULL
                            : kernel->chunk && !kernel->left_count ? "lane == 0 && part == 0"
                            : has_spare_rows(kernel)               ? "lane == 0 && live"
                                                                   : "lane == 0";
    if (stores.length && condition)
        text_printf(code, "        if (%s) {\n%s        }\n", condition, text_get(&stores));
    else
        text_append(code, text_get(&stores));
    text_finish(&stores);
    text_append(code, "    }\n");
}

/* Which row the work-items of a group own together, and each one's number among them. */
static void place_items(const struct emitter *e, struct text *head) {
    const struct fused *kernel = e->kernel;
    int items = kernel->row_items, together = kernel->items / items;
    emit_scratch(e, head);
    text_append(head, "    const int lid = (int)get_local_id(0);\n");
    if (together == 1)
        text_append(head, "    const int lane = lid;\n");
    else if (kernel->row_first)
        text_printf(head, "    const int lane = (uint)lid / %uu;\n", together);
    else
        text_printf(head, "    const int lane = (uint)lid %% %uu;\n", items);
    text_append(head, "    {\n");
    if (kernel->chunk)
        text_printf(head,
                    "        const int row = (uint)get_group_id(0) / %lldu, part = (uint)get_group_id(0) %% %lldu;\n",
                    (long long)kernel->parts, (long long)kernel->parts);
    else if (together == 1)
        text_append(head, "        const int row = (int)get_group_id(0);\n");
    else {
        bool spare = has_spare_rows(kernel);
        text_printf(head, "        %s = (int)get_group_id(0) * %d + ", spare ? "int row" : "const int row", together);
        text_printf(head, kernel->row_first ? "(int)((uint)lid %% %uu);\n" : "(int)((uint)lid / %uu);\n",
                    kernel->row_first ? together : items);
        if (spare)
            text_printf(head, "        const bool live = row < %lld;\n        row = live ? row : %lld;\n",
                        (long long)kernel->rows, (long long)kernel->rows - 1);
    }
}

void emit_rows(struct emitter *e, struct text *head, struct text *code) {
    const struct fused *kernel = e->kernel;
    const struct step *step = e->step;
    for (size_t k = 0; k < step->results.count; k++)
        if (stores_result(kernel, step->results.items[k].node)) buffer_number(e, step->results.items[k].value);
    for (size_t k = 0; k < kernel->left_count; k++) buffer_number(e, kernel->partials[kernel->known_count + k].value);
    e->output_count = e->buffer_count;
    read_partials(e, code);
    for (size_t k = 0; k < kernel->phases.count; k++) emit_phase(e, &kernel->phases.items[k], code);
    emit_row_stores(e, code);
    if (kernel->row_items == 1) {
        text_printf(head, "    const int first = (int)get_global_id(0) * %lld;\n", (long long)kernel->each);
        text_printf(head, "    for (int row = first; row < min(first + %lld, %lld); row++) {\n",
                    (long long)kernel->each, (long long)kernel->rows);
    } else
        place_items(e, head);
    int64_t stride = kernel->rows;
    bool first = true;
    for (int d = 0; d < step->rows.rank; d++) {
        if (step->inner >> d & 1) continue;
        int64_t size = outer_size(kernel, d);
        stride /= size;
        if (kernel->row_items == 1)
            text_printf(head, "        const int r%d = row / %lld %% %lld;\n", d, (long long)stride, (long long)size);
        else if (size > 1) {
            text_printf(head, "        const int r%d = (uint)row / %lldu", d, (long long)stride);
            text_printf(head, first ? ";\n" : " %% %lldu;\n", (long long)size);
            first = false;
        }
    }
    if (kernel->lanes > 1) {
        text_printf(head, "        const int block = r1, c0 = block * %d;\n", kernel->lanes);
        if (step->rows.size[1] % kernel->lanes)
            text_printf(head, "        const intv live = c0 + LANES < %lld;\n", (long long)step->rows.size[1]);
    }
    text_append(head, text_get(&e->held));
}
