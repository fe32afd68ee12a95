/* The list of values and launches. */
#include "compile/launch.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

struct value *value_create(struct launch_list *list, const struct node *node, enum layout layout, size_t floats) {
    struct value *value = arena_alloc(&list->arena, sizeof *value);
    if (!value || !array_push(&list->values, value)) return NULL;
    *value = (struct value){.node = node, .layout = layout, .floats = floats, .slot = -1, .first = -1, .last = -1};
    value->is_int = node && node->dtype == INT32;
    return value;
}

struct value *value_root(const struct value *value, size_t *offset) {
    *offset = 0;
    for (; value->parent; value = value->parent) *offset += value->offset;
    return (struct value *)value;
}

bool values_overlap(const struct value *a, const struct value *b) {
    size_t from_a, from_b;
    return value_root(a, &from_a) == value_root(b, &from_b) && from_a < from_b + b->floats
           && from_b < from_a + a->floats;
}

double launch_bytes(const struct launch *launch) {
    double bytes = 0;
    for (int b = 0; b < launch->buffer_count; b++) bytes += 4.0 * (double)launch->buffers[b]->floats;
    return bytes;
}

void launch_arguments(struct text *text, struct value *const *buffers, int count, int outputs, const char *word) {
    for (int b = 0; b < count; b++)
        text_printf(text, "%sglobal %s%s *%sb%d, ulong o%d", b ? ", " : "", b < outputs ? "" : "const ",
                    buffers[b]->is_int ? "int" : "float", word, b, b);
}

struct launch *launch_add(struct launch_list *list, const struct launch *launch) {
    struct launch *added = arena_alloc(&list->arena, sizeof *added);
    if (!added || !array_push(&list->launches, added)) return NULL;
    *added = *launch;
    added->kernel = -1;
    added->text = arena_copy_text(&list->arena, launch->text);
    if (launch->call) {
        struct gemm *call = arena_alloc(&list->arena, sizeof *call);
        if (call) *call = *launch->call;
        added->call = call;
    }
    added->what = arena_copy_text(&list->arena, launch->what);
    added->buffers = arena_array(&list->arena, (size_t)launch->buffer_count + 1, sizeof *added->buffers);
    if (list->arena.failed) return NULL;
    memcpy(added->buffers, launch->buffers, (size_t)launch->buffer_count * sizeof *added->buffers);
    return added;
}

/* The value of an operand, or of the part of it that a launch takes. */
static struct value *operand_value(struct launch_list *list, const struct plan_operand *operand,
                                   struct value *const *results, struct value *const *inputs, struct value **scratch) {
    struct value *whole = PLAN_PICK(operand, results, inputs, scratch);
    if (!whole || !operand->floats) return whole;
    struct value *part = value_create(list, whole->node, whole->layout, operand->floats);
    if (!part) return NULL;
    part->parent = whole;
    part->offset = operand->offset;
    part->is_int = whole->is_int;
    return part;
}

/* What an earlier launch with this text has made of the same inputs; NULL: there is none. */
static struct value *packed_before(const struct launch_list *list, const char *text, struct value *const *inputs,
                                   int count) {
    for (size_t i = 0; i < list->launches.count; i++) {
        const struct launch *launch = list->launches.items[i];
        if (launch->buffer_count == 1 + count && strcmp(launch->text, text) == 0
            && memcmp(launch->buffers + 1, inputs, (size_t)count * sizeof *inputs) == 0)
            return launch->buffers[0];
    }
    return NULL;
}

static int add_plan_call(struct launch_list *list, const struct plan_launch *planned, struct value *const *results,
                         struct value *const *inputs, struct value **scratch, double flops) {
    struct value *buffers[GEMM_OPERANDS] = {NULL};
    for (int k = 0; k < GEMM_OPERANDS; k++)
        buffers[k] = operand_value(list, &planned->operands[k], results, inputs, scratch);
    const struct launch launch = {.text = "",
                                  .call = &planned->call,
                                  .buffers = buffers,
                                  .buffer_count = GEMM_OPERANDS,
                                  .output_count = 1,
                                  .what = "clblast",
                                  .flops = flops * planned->share};
    bool added = buffers[GEMM_C] && buffers[GEMM_A] && buffers[GEMM_B] && launch_add(list, &launch);
    return added ? RETORT_OK : error_set(RETORT_ENOMEM, "out of memory compiling a matrix product");
}

static int add_plan_launch(struct launch_list *list, const struct plan_launch *planned, const struct kernel_use *use,
                           struct value *const *results, struct value *const *inputs, struct value **scratch,
                           double flops) {
    int status = RETORT_OK;
    struct value *buffers[PLAN_OPERANDS];
    struct text text;
    text_init(&text);
    text_printf(&text, "%s%s", use->parameters, kernels_text(use->file));
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory compiling %s", use->file);
    for (int k = 0; k < planned->count; k++) {
        buffers[k] = operand_value(list, &planned->operands[k], results, inputs, scratch);
        if (!buffers[k]) RAISE(RETORT_ENOMEM, "out of memory compiling %s", use->file);
    }
    if (planned->packs) buffers[0]->is_int = buffers[1]->is_int;
    struct value *before =
        planned->packs ? packed_before(list, text_get(&text), buffers + 1, planned->count - 1) : NULL;
    if (before) {
        scratch[planned->operands[0].number] = before;
        goto done;
    }
    struct launch launch = {.text = text_get(&text),
                            .buffers = buffers,
                            .buffer_count = planned->count,
                            .output_count = planned->outputs,
                            .what = use->file,
                            .flops = flops * planned->share,
                            .packs = planned->packs};
    memcpy(launch.global, use->global, sizeof launch.global);
    memcpy(launch.local, use->local, sizeof launch.local);
    if (!launch_add(list, &launch)) RAISE(RETORT_ENOMEM, "out of memory compiling %s", use->file);
done:
    text_finish(&text);
    return status;
}

/* Whether readers add up the parts of a result: the parts are the result then, and the launch that adds them is left
 * out. */
static bool readers_add(const struct kernel_plan *plan, struct value *const *results, int number) {
    return plan->splits[number].parts > 1 && results[number]->parts > 1;
}

int launch_plan(struct launch_list *list, const struct kernel_plan *plan, struct value *const *results,
                struct value *const *inputs, double flops) {
    int status = RETORT_OK;
    struct value *scratch[PLAN_SCRATCHES];
    bool left_out[PLAN_LAUNCHES] = {false};
    for (int k = 0; k < plan->scratch_count; k++) {
        scratch[k] = NULL;
        for (int r = 0; r < PLAN_RESULTS; r++)
            if (readers_add(plan, results, r) && k == plan->splits[r].scratch) {
                scratch[k] = results[r];
                left_out[plan->splits[r].launch] = true;
            }
        if (!scratch[k]) scratch[k] = value_create(list, NULL, LAYOUT_PLAIN, plan->scratch[k]);
        if (!scratch[k]) RAISE(RETORT_ENOMEM, "out of memory compiling hand-written kernels");
    }
    for (int i = 0; i < plan->launch_count; i++) {
        if (left_out[i]) continue;
        const struct plan_launch *planned = &plan->launches[i];
        const struct kernel_use *use = plan_use(plan, planned);
        TRY(use ? add_plan_launch(list, planned, use, results, inputs, scratch, flops)
                : add_plan_call(list, planned, results, inputs, scratch, flops));
    }
done:
    return status;
}

int launch_list_check(const struct launch_list *list) {
    int status = RETORT_OK;
    for (size_t i = 0; i < list->launches.count; i++) {
        const struct launch *launch = list->launches.items[i];
        bool works = launch->call ? launch->buffer_count == GEMM_OPERANDS : *launch->text && launch->global[0];
        if (!works || !launch->output_count || launch->buffer_count > LAUNCH_MAX_BUFFERS)
            RAISE(RETORT_EUNSUPPORTED, "cannot compile: launch %zu (%s) has no work, or too many operands", i,
                  launch->what);
        for (int d = 0; d < 3 && launch->local[0]; d++)
            if (!launch->local[d] || launch->global[d] % launch->local[d])
                RAISE(RETORT_EUNSUPPORTED, "cannot compile: launch %zu (%s) has broken work-groups", i, launch->what);
        for (int b = launch->output_count; b < launch->buffer_count; b++) {
            size_t offset;
            bool written = value_root(launch->buffers[b], &offset)->input;
            for (size_t k = 0; k < i && !written; k++)
                for (int o = 0; o < list->launches.items[k]->output_count && !written; o++)
                    written = values_overlap(list->launches.items[k]->buffers[o], launch->buffers[b]);
            if (!written)
                RAISE(RETORT_EUNSUPPORTED, "cannot compile: launch %zu (%s) reads what nothing has written", i,
                      launch->what);
        }
    }
done:
    return status;
}

static void print_sizes(const struct launch *launch, char sizes[128]) {
    const struct gemm *g = launch->call;
    if (g)
        snprintf(sizes, 128, "%zu x %zu%s by %zu x %zu%s, %zu", g->m, g->k, g->transpose_a ? "'" : "", g->k, g->n,
                 g->transpose_b ? "'" : "", g->batch);
    else
        snprintf(sizes, 128, "%zu x %zu x %zu / %zu x %zu x %zu", launch->global[0], launch->global[1],
                 launch->global[2], launch->local[0], launch->local[1], launch->local[2]);
}

void launch_list_print(const struct launch_list *list, FILE *stream) {
    for (size_t i = 0; i < list->launches.count; i++) {
        const struct launch *launch = list->launches.items[i];
        char sizes[128], kernel[16];
        print_sizes(launch, sizes);
        snprintf(kernel, sizeof kernel, launch->call ? "call" : "k%d", launch->kernel);
        fprintf(stream, "%4zu  %-5s %-36s %-30s", i, kernel, launch->what, sizes);
        for (int b = 0; b < launch->buffer_count; b++) {
            size_t offset;
            const struct value *root = value_root(launch->buffers[b], &offset);
            const char *name = root->slot >= 0 ? list->slots.items[root->slot].name : "@";
            fprintf(stream, "%s%s+%zu(%zu)", b == 0 || b == launch->output_count ? "  <- " + (b == 0 ? 2 : 0) : " ",
                    name, root->slot >= 0 ? offset : root->offset + offset, launch->buffers[b]->floats);
        }
        fputc('\n', stream);
    }
}

size_t launch_list_call_bytes(const struct launch_list *list) {
    size_t most = 0;
    for (size_t i = 0; i < list->launches.count; i++) {
        const struct gemm *call = list->launches.items[i]->call;
        if (call && call->scratch > most) most = call->scratch;
    }
    return most;
}

void launch_list_finish(struct launch_list *list) {
    array_finish(&list->values);
    array_finish(&list->launches);
    array_finish(&list->classes);
    array_finish(&list->slots);
    arena_finish(&list->arena);
    *list = (struct launch_list){0};
}
