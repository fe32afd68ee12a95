/* Small launches that do not wait for each other become one. On CPUs a launch costs several microseconds, in which the
 * driver wakes its threads, and most of a small step's launches take no longer themselves; and kernels with fewer
 * work-items than there are processors leave some of them idle, which the work-items of others can use.
 *
 * The kernels' texts become functions of the place of their work-item, kernels with the same text one function. Large
 * launches stay as they are and keep their order. */
#include "compile/launch.h"

#include "base/error.h"
#include "base/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A kernel is built in about a second at most, so there are limits to what one is made of. */
enum { MOST_FUNCTIONS = 8, MOST_TEXT = 40000 };

/* A launch is small up to so many operations per processor, which take about ten times as long as starting a launch;
 * and how many operations a byte of its operands counts as. */
#define SMALL_WORK    3e7
#define WORK_PER_BYTE 32

static const char kernel_begin[] = "kernel void NAME(";

/* --- what waits for what --- */
/* Whether one of the two writes what the other reads or writes. */
static bool are_ordered(const struct launch *a, const struct launch *b) {
    for (int i = 0; i < a->buffer_count; i++)
        for (int k = 0; k < b->buffer_count; k++)
            if ((i < a->output_count || k < b->output_count) && values_overlap(a->buffers[i], b->buffers[k]))
                return true;
    return false;
}

static double work_of(const struct launch *launch) {
    return launch->flops + WORK_PER_BYTE * launch_bytes(launch);
}

/* Whether the two differ in nothing but their arguments. */
static bool is_same(const struct launch *a, const struct launch *b) {
    return memcmp(a->global, b->global, sizeof a->global) == 0 && strcmp(a->text, b->text) == 0;
}

static size_t item_count(const struct launch *launch) {
    return launch->global[0] * launch->global[1] * launch->global[2];
}

static bool is_small(const struct kernel_target *target, const struct launch *launch) {
    return launch->local[0] <= 1 && work_of(launch) <= SMALL_WORK * target->traits->compute_units
           && strlen(launch->text) <= MOST_TEXT && strstr(launch->text, kernel_begin);
}

/* --- the text of a merged kernel --- */
/* A kernel's text as a function, once in a program. */
static void append_function(struct text *text, const char *name, const char *kernel) {
    text_printf(text, "#ifndef DEFINED_%s\n#define DEFINED_%s\n#undef NAME\n#define NAME %s\n", name, name, name);
    text_append(text, "#define kernel inline\n#define reqd_work_group_size(x, y, z) always_inline\n"
                      "#define get_global_id(d) ((size_t)place[d])\n#define get_global_size(d) ((size_t)extent[d])\n");
    for (const char *end; (end = strstr(kernel, kernel_begin)); kernel = end + strlen(kernel_begin))
        text_printf(text, "%.*s%sconst int *place, const int *extent, ", (int)(end - kernel), kernel, kernel_begin);
    text_printf(text, "%s\n#undef get_global_size\n#undef get_global_id\n#undef reqd_work_group_size\n#undef kernel\n",
                kernel);
    text_append(text, "#undef NAME\n#endif\n");
}

static int argument_number(struct value *const *buffers, int count, const struct value *value) {
    int i = 0;
    while (i < count && buffers[i] != value) i++;
    return i;
}

/* The call of one function for several launches with the same kernel: a work-item takes the arguments of the launch
 * that it belongs to. */
static void append_call(struct text *text, const char *name, struct launch *const *launches, size_t count,
                        struct value *const *buffers, int buffer_count) {
    const struct launch *first = launches[0];
    size_t items = item_count(first);
    text_printf(text, "    if (item < %zu) {\n        const int which = item / %zu, rest = item %% %zu;\n",
                items * count, items, items);
    text_printf(text, "        const int extent[3] = {%zu, %zu, %zu};\n", first->global[0], first->global[1],
                first->global[2]);
    text_append(text, "        const int place[3] = {rest % extent[0], rest / extent[0] % extent[1], "
                      "rest / extent[0] / extent[1]};\n        (void)which;\n");
    text_printf(text, "        %s(place, extent", name);
    for (int b = 0; b < first->buffer_count; b++)
        for (int offset = 0; offset < 2; offset++) {
            text_append(text, ", ");
            for (size_t k = 0; k < count; k++) {
                if (k + 1 < count) text_printf(text, "which == %zu ? ", k);
                text_printf(text, "%s%d", offset ? "o" : "b",
                            argument_number(buffers, buffer_count, launches[k]->buffers[b]));
                if (k + 1 < count) text_append(text, " : ");
            }
        }
    text_printf(text, ");\n        return;\n    }\n    item -= %zu;\n", items * count);
}

static struct launch *merged(struct launch_list *list, const struct kernel_target *target, struct launch *const *parts,
                             size_t count) {
    struct text text;
    text_init(&text);
    struct launch *launch = arena_alloc(&list->arena, sizeof *launch);
    struct value **buffers = arena_array(&list->arena, LAUNCH_MAX_BUFFERS, sizeof *buffers);
    struct launch **same = arena_array(&list->arena, count, sizeof *same);
    if (list->arena.failed) return NULL;
    *launch = (struct launch){.buffers = buffers, .kernel = -1};
    /* Outputs first. */
    for (int input = 0; input < 2; input++) {
        for (size_t k = 0; k < count; k++)
            for (int b = 0; b < parts[k]->buffer_count; b++) {
                struct value *value = parts[k]->buffers[b];
                if ((b >= parts[k]->output_count) != input) continue;
                if (argument_number(buffers, launch->buffer_count, value) == launch->buffer_count)
                    buffers[launch->buffer_count++] = value;
            }
        if (!input) launch->output_count = launch->buffer_count;
    }
    struct text body;
    text_init(&body);
    size_t items = 0, units = target->traits->compute_units;
    const struct launch *longest = parts[0];
    for (size_t k = 0; k < count; k++) {
        const char *source = parts[k]->text;
        launch->flops += parts[k]->flops;
        items += item_count(parts[k]);
        if (work_of(parts[k]) > work_of(longest)) longest = parts[k];
        size_t same_count = 0;
        bool earlier = false;
        for (size_t i = 0; i < count; i++) {
            if (!is_same(parts[i], parts[k])) continue;
            earlier |= i < k;
            same[same_count++] = parts[i];
        }
        if (earlier) continue;
        char name[32];
        snprintf(name, sizeof name, "part_%016" PRIx64, hash_fast(source, strlen(source), 0));
        append_function(&text, name, source);
        append_call(&body, name, same, same_count, buffers, launch->buffer_count);
    }
    /* Drivers give each thread a run of neighbouring items; so that all get the same mixture, items are dealt out. */
    size_t each = (items + units - 1) / units;
    launch->global[0] = each * units;
    launch->global[1] = launch->global[2] = 1;
    launch->local[0] = launch->local[1] = launch->local[2] = 1;
    text_append(&text, "#undef NAME\n#define NAME KERNEL\n__attribute__((reqd_work_group_size(1, 1, 1)))\n");
    text_append(&text, kernel_begin);
    for (int b = 0; b < launch->buffer_count; b++)
        text_printf(&text, "%sglobal %s%s *b%d, ulong o%d", b ? ", " : "", b < launch->output_count ? "" : "const ",
                    buffers[b]->is_int ? "int" : "float", b, b);
    text_printf(&text, ") {\n    int item = (int)get_global_id(0) %% %zu * %zu + (int)get_global_id(0) / %zu;\n", each,
                units, each);
    text_printf(&text, "%s}\n", text_get(&body));
    launch->text = arena_copy_text(&list->arena, text_get(&text));
    launch->what = arena_printf(&list->arena, "%s + %zu", longest->what, count - 1);
    bool failed = list->arena.failed || text.failed || body.failed;
    text_finish(&body);
    text_finish(&text);
    return failed ? NULL : launch;
}

/* --- which become one --- */
struct batch {
    ARRAY(struct launch *) parts;
    size_t text;
    int functions, buffers;
};

/* Whether a kernel of these parts and this launch stays within the limits; a buffer that several use is counted for
 * each. */
static bool fits(const struct batch *batch, const struct launch *launch, bool *is_new) {
    *is_new = true;
    for (size_t k = 0; k < batch->parts.count; k++) *is_new &= !is_same(batch->parts.items[k], launch);
    return batch->buffers + launch->buffer_count <= LAUNCH_MAX_BUFFERS
           && (!*is_new || (batch->functions < MOST_FUNCTIONS && batch->text + strlen(launch->text) <= MOST_TEXT));
}

/* Fills the batch with small launches that wait for nothing that is not done yet. */
static int fill(const struct launch_list *list, const uint64_t *waits, size_t words, const uint64_t *done,
                const bool *small, struct batch *batch, uint64_t *taken) {
    for (size_t i = 0; i < list->launches.count; i++) {
        struct launch *launch = list->launches.items[i];
        bool ready = small[i] && !(done[i / 64] >> (i % 64) & 1), is_new;
        for (size_t w = 0; w < words && ready; w++) ready = !(waits[i * words + w] & ~done[w]);
        if (!ready || !fits(batch, launch, &is_new)) continue;
        if (!array_push(&batch->parts, launch)) return error_set(RETORT_ENOMEM, "out of memory merging launches");
        batch->text += is_new ? strlen(launch->text) : 0;
        batch->functions += is_new;
        batch->buffers += launch->buffer_count;
        taken[i / 64] |= (uint64_t)1 << (i % 64);
    }
    return RETORT_OK;
}

int merge_launches(struct launch_list *list, const struct kernel_target *target) {
    int status = RETORT_OK;
    size_t count = list->launches.count, words = count / 64 + 1, fresh_count = 0, large = 0;
    if (target->family != FAMILY_CPU) return RETORT_OK;
    struct batch batch = {0};
    uint64_t *waits = calloc(count * words + 1, sizeof *waits), *done = calloc(words, sizeof *done);
    uint64_t *taken = calloc(words, sizeof *taken);
    bool *small = calloc(count + 1, sizeof *small);
    struct launch **fresh = calloc(count + 1, sizeof *fresh);
    if (!waits || !done || !taken || !small || !fresh) RAISE(RETORT_ENOMEM, "out of memory merging launches");
    for (size_t i = 0; i < count; i++) {
        small[i] = is_small(target, list->launches.items[i]);
        for (size_t k = 0; k < i; k++)
            if (are_ordered(list->launches.items[k], list->launches.items[i]))
                waits[i * words + k / 64] |= (uint64_t)1 << (k % 64);
    }
    for (size_t left = count; left > 0;) {
        while (large < count && (small[large] || done[large / 64] >> (large % 64) & 1)) large++;
        bool ready = large < count;
        for (size_t w = 0; w < words && ready; w++) ready = !(waits[large * words + w] & ~done[w]);
        if (ready) {
            fresh[fresh_count++] = list->launches.items[large];
            done[large / 64] |= (uint64_t)1 << (large % 64);
            left--;
            continue;
        }
        batch.parts.count = batch.text = 0;
        batch.functions = batch.buffers = 0;
        TRY(fill(list, waits, words, done, small, &batch, taken));
        if (!batch.parts.count) RAISE(RETORT_EUNSUPPORTED, "cannot compile: launches that wait for each other");
        struct launch *launch =
            batch.parts.count == 1 ? batch.parts.items[0] : merged(list, target, batch.parts.items, batch.parts.count);
        if (!launch) RAISE(RETORT_ENOMEM, "out of memory merging launches");
        fresh[fresh_count++] = launch;
        for (size_t w = 0; w < words; w++) done[w] |= taken[w];
        left -= batch.parts.count;
    }
    memcpy(list->launches.items, fresh, fresh_count * sizeof *fresh);
    list->launches.count = fresh_count;
done:
    array_finish(&batch.parts);
    free(waits);
    free(done);
    free(taken);
    free(small);
    free(fresh);
    return status;
}
