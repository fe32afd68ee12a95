/* Launches that do not wait for each other become one. On CPUs a launch costs several microseconds, in which the driver
 * wakes its threads, and most of a small step's launches take no longer themselves; and kernels with fewer work-items
 * than there are processors leave some of them idle, which the work-items of others can use. On GPUs a launch costs 2
 * to 20 microseconds, and one of few work-groups leaves most of the device idle.
 *
 * The kernels' texts become functions of the place of their work-item, kernels with the same text one function. Large
 * launches keep their order. On CPUs they stay as they are; on GPUs those with the same text become one too, which
 * costs nothing but a choice of arguments. merge_gpu.c writes the kernels of GPUs. */
#include "compile/merge.h"

#include "base/error.h"
#include "base/file.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A kernel is built in about a second at most, so there are limits to what one is made of. Of more functions on GPUs
 * some compilers move registers to memory. */
enum { MOST_FUNCTIONS = 8, MOST_GPU_FUNCTIONS = 6, MOST_TEXT = 40000 };

/* A launch is small up to so many operations per processor, which take about ten times as long as starting a launch;
 * and how many operations a byte of its operands counts as. Packing is small whatever it takes: the weights of all
 * layers are there at the beginning, and wait for each other in nothing. */
#define SMALL_WORK    3e7
#define WORK_PER_BYTE 32
/* The same for GPUs, some 20 microseconds in all; and how many work-items leave much of the device idle, so that it
 * does not matter whether the kernel of several needs more registers than each alone. */
#define SMALL_GPU_WORK    1e8
#define GPU_WORK_PER_BYTE 12
#define FEW_GPU_ITEMS     65536

static const char kernel_begin[] = KERNEL_BEGIN;

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

bool is_same_launch(const struct launch *a, const struct launch *b) {
    return memcmp(a->global, b->global, sizeof a->global) == 0 && strcmp(a->text, b->text) == 0;
}

size_t launch_items(const struct launch *launch) {
    return launch->global[0] * launch->global[1] * launch->global[2];
}

static bool is_small(const struct kernel_target *target, const struct launch *launch) {
    if (target->family == FAMILY_GPU) {
        double work = launch->flops + GPU_WORK_PER_BYTE * launch_bytes(launch);
        return (work <= SMALL_GPU_WORK || launch_items(launch) <= FEW_GPU_ITEMS) && can_merge_gpu(launch);
    }
    return launch->local[0] <= 1 && (launch->packs || work_of(launch) <= SMALL_WORK * target->traits->compute_units)
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

void append_choice(struct text *text, struct launch *const *launches, size_t count, struct value *const *buffers,
                   int buffer_count) {
    for (int b = 0; b < launches[0]->buffer_count; b++)
        for (int offset = 0; offset < 2; offset++) {
            text_append(text, ", ");
            for (size_t k = 0; k < count; k++) {
                if (k + 1 < count) text_printf(text, "which == %zu ? ", k);
                text_printf(text, "%s%d", offset ? "o" : "b",
                            argument_number(buffers, buffer_count, launches[k]->buffers[b]));
                if (k + 1 < count) text_append(text, " : ");
            }
        }
}

/* The call of one function for several launches with the same kernel: a work-item takes the arguments of the launch
 * that it belongs to. */
static void append_call(struct text *text, const char *name, struct launch *const *launches, size_t count,
                        struct value *const *buffers, int buffer_count) {
    const struct launch *first = launches[0];
    size_t items = launch_items(first);
    text_printf(text, "    if (item < %zu) {\n        const int which = item / %zu, rest = item %% %zu;\n",
                items * count, items, items);
    text_printf(text, "        const int extent[3] = {%zu, %zu, %zu};\n", first->global[0], first->global[1],
                first->global[2]);
    text_append(text, "        const int place[3] = {rest % extent[0], rest / extent[0] % extent[1], "
                      "rest / extent[0] / extent[1]};\n        (void)which;\n");
    text_printf(text, "        %s(place, extent", name);
    append_choice(text, launches, count, buffers, buffer_count);
    text_printf(text, ");\n        return;\n    }\n    item -= %zu;\n", items * count);
}

struct launch *merge_begin(struct launch_list *list, struct launch *const *parts, size_t count) {
    struct launch *launch = arena_alloc(&list->arena, sizeof *launch);
    struct value **buffers = arena_array(&list->arena, LAUNCH_MAX_BUFFERS, sizeof *buffers);
    if (!launch || !buffers) return NULL;
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
    const struct launch *longest = parts[0];
    for (size_t k = 0; k < count; k++) {
        launch->flops += parts[k]->flops;
        if (work_of(parts[k]) > work_of(longest)) longest = parts[k];
    }
    launch->what = arena_printf(&list->arena, "%s + %zu", longest->what, count - 1);
    return launch->what ? launch : NULL;
}

size_t collect_same(struct launch *const *parts, size_t count, size_t k, struct launch **same) {
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        if (!is_same_launch(parts[i], parts[k])) continue;
        if (i < k) return 0;
        same[found++] = parts[i];
    }
    return found;
}

void part_name(const struct launch *part, char name[PART_NAME]) {
    snprintf(name, PART_NAME, "part_%016" PRIx64, hash_fast(part->text, strlen(part->text), 0));
}

static struct launch *merged(struct launch_list *list, const struct kernel_target *target, struct launch *const *parts,
                             size_t count) {
    struct text text;
    text_init(&text);
    struct launch *launch = merge_begin(list, parts, count);
    struct launch **same = arena_array(&list->arena, count, sizeof *same);
    if (!launch || !same) return NULL;
    struct value *const *buffers = launch->buffers;
    struct text body;
    text_init(&body);
    size_t items = 0, units = target->traits->compute_units;
    for (size_t k = 0; k < count; k++) {
        char name[PART_NAME];
        items += launch_items(parts[k]);
        size_t same_count = collect_same(parts, count, k, same);
        if (!same_count) continue;
        part_name(parts[k], name);
        append_function(&text, name, parts[k]->text);
        append_call(&body, name, same, same_count, buffers, launch->buffer_count);
    }
    /* Drivers give each thread a run of neighbouring items; so that all get the same mixture, items are dealt out. */
    size_t each = (items + units - 1) / units;
    launch->global[0] = each * units;
    launch->global[1] = launch->global[2] = 1;
    launch->local[0] = launch->local[1] = launch->local[2] = 1;
    text_append(&text, "#undef NAME\n#define NAME KERNEL\n__attribute__((reqd_work_group_size(1, 1, 1)))\n");
    text_append(&text, kernel_begin);
    launch_arguments(&text, buffers, launch->buffer_count, launch->output_count, "");
    text_printf(&text, ") {\n    int item = (int)get_global_id(0) %% %zu * %zu + (int)get_global_id(0) / %zu;\n", each,
                units, each);
    text_printf(&text, "%s}\n", text_get(&body));
    launch->text = arena_copy_text(&list->arena, text_get(&text));
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
    size_t group; /* work-items of a work-group; 0: none of the parts depends on that */
};

/* Whether a kernel of these parts and this launch stays within the limits; a buffer that several use is counted for
 * each. */
static bool fits(const struct batch *batch, bool gpu, const struct launch *launch, bool *is_new) {
    *is_new = true;
    for (size_t k = 0; k < batch->parts.count; k++) *is_new &= !is_same_launch(batch->parts.items[k], launch);
    size_t group = fixed_group(launch);
    if (group && batch->group && group != batch->group) return false;
    return batch->buffers + launch->buffer_count <= LAUNCH_MAX_BUFFERS
           && (!*is_new
               || (batch->functions < (gpu ? MOST_GPU_FUNCTIONS : MOST_FUNCTIONS)
                   && batch->text + strlen(launch->text) <= MOST_TEXT));
}

/* How many launches stand behind each other that wait for a launch, itself counted. */
static void find_heights(const uint64_t *waits, size_t count, size_t words, int *heights) {
    for (size_t i = count; i-- > 0;) {
        heights[i]++;
        for (size_t k = 0; k < i; k++)
            if (waits[i * words + k / 64] >> (k % 64) & 1 && heights[k] < heights[i]) heights[k] = heights[i];
    }
}

static int add_part(struct batch *batch, struct launch *launch, bool is_new) {
    if (!array_push(&batch->parts, launch)) return error_set(RETORT_ENOMEM, "out of memory merging launches");
    batch->text += is_new ? strlen(launch->text) : 0;
    batch->functions += is_new;
    batch->buffers += launch->buffer_count;
    if (fixed_group(launch)) batch->group = fixed_group(launch);
    return RETORT_OK;
}

/* The state of merging: which launches wait for which, and which are done (bit sets), are small, or stand at the
 * beginning of a long chain. */
struct merging {
    const struct launch_list *list;
    bool gpu;
    size_t words;
    uint64_t *waits, *done, *taken;
    bool *small;
    int *heights;
};

static bool is_ready(const struct merging *m, size_t i) {
    bool ready = !(m->done[i / 64] >> (i % 64) & 1);
    for (size_t w = 0; w < m->words && ready; w++) ready = !(m->waits[i * m->words + w] & ~m->done[w]);
    return ready;
}

/* Whether a launch goes along with a large one, whose kernel it leaves as it is: a small one with neither local memory
 * nor much to keep in registers, as packing weights is; or, with large work of its own, another of the same kind, such
 * as the transforms of two operands, which are alike in what they need. */
static bool goes_along(const struct merging *m, const struct launch *large, size_t i) {
    enum { SHORT = 4000 };
    const struct launch *launch = m->list->launches.items[i];
    if (!m->gpu || fixed_group(launch) || !can_merge_gpu(launch)) return false;
    return m->small[i] ? strlen(launch->text) <= SHORT : !fixed_group(large) && strcmp(large->what, launch->what) == 0;
}

/* Fills the batch with launches that wait for nothing that is not done yet: small ones, or those with the same text as
 * a large one and those that may go along with it. Of small ones with work-groups of different sizes, those of the
 * longest chain go first. */
static int fill(const struct merging *m, const struct launch *large, struct batch *batch) {
    int status = RETORT_OK, highest = 0;
    const struct launch_list *list = m->list;
    for (size_t i = 0; i < list->launches.count && !large; i++) {
        if (!m->small[i] || !is_ready(m, i) || m->heights[i] <= highest) continue;
        highest = m->heights[i];
        batch->group = fixed_group(list->launches.items[i]);
    }
    for (size_t i = 0; i < list->launches.count; i++) {
        struct launch *launch = list->launches.items[i];
        bool is_new, wanted = large ? is_same_launch(large, launch) || goes_along(m, large, i) : m->small[i];
        if (!wanted || !is_ready(m, i) || !fits(batch, m->gpu, launch, &is_new)) continue;
        TRY(add_part(batch, launch, is_new));
        m->taken[i / 64] |= (uint64_t)1 << (i % 64);
    }
done:
    return status;
}

static int begin_merging(struct merging *m, struct launch_list *list, const struct kernel_target *target) {
    size_t count = list->launches.count, words = count / 64 + 1;
    *m = (struct merging){.list = list, .gpu = target->family == FAMILY_GPU, .words = words};
    m->waits = calloc(count * words + 1, sizeof *m->waits), m->done = calloc(words, sizeof *m->done);
    m->taken = calloc(words, sizeof *m->taken), m->small = calloc(count + 1, sizeof *m->small);
    m->heights = calloc(count + 1, sizeof *m->heights);
    if (!m->waits || !m->done || !m->taken || !m->small || !m->heights)
        return error_set(RETORT_ENOMEM, "out of memory merging launches");
    for (size_t i = 0; i < count; i++) {
        m->small[i] = is_small(target, list->launches.items[i]);
        for (size_t k = 0; k < i; k++)
            if (are_ordered(list->launches.items[k], list->launches.items[i]))
                m->waits[i * words + k / 64] |= (uint64_t)1 << (k % 64);
    }
    find_heights(m->waits, count, words, m->heights);
    return RETORT_OK;
}

static void finish_merging(struct merging *m) {
    free(m->waits);
    free(m->done);
    free(m->taken);
    free(m->small);
    free(m->heights);
}

/* The kernel of a batch of one family or the other. */
static struct launch *batch_launch(struct launch_list *list, const struct kernel_target *target,
                                   const struct batch *batch) {
    struct launch *const *parts = batch->parts.items;
    if (batch->parts.count == 1) return parts[0];
    return target->family == FAMILY_GPU ? merged_gpu(list, target, parts, batch->parts.count)
                                        : merged(list, target, parts, batch->parts.count);
}

int merge_launches(struct launch_list *list, const struct kernel_target *target) {
    int status = RETORT_OK;
    size_t count = list->launches.count, fresh_count = 0, large = 0;
    bool gpu = target->family == FAMILY_GPU;
    if (target->single || (gpu && target->traits->kind == DEVICE_CPU))
        return RETORT_OK; /* there building kernels costs more than launches */
    struct batch batch = {0};
    struct merging m;
    struct launch **fresh = calloc(count + 1, sizeof *fresh);
    TRY(begin_merging(&m, list, target));
    if (!fresh) RAISE(RETORT_ENOMEM, "out of memory merging launches");
    for (size_t left = count; left > 0; left -= batch.parts.count) {
        while (large < count && (m.small[large] || m.done[large / 64] >> (large % 64) & 1)) large++;
        struct launch *first = large < count && is_ready(&m, large) ? list->launches.items[large] : NULL;
        batch.parts.count = batch.text = batch.group = 0;
        batch.functions = batch.buffers = 0;
        if (first && !(gpu && can_merge_gpu(first))) {
            TRY(add_part(&batch, first, true));
            m.taken[large / 64] |= (uint64_t)1 << (large % 64);
        } else
            TRY(fill(&m, first, &batch));
        if (!batch.parts.count) RAISE(RETORT_EUNSUPPORTED, "cannot compile: launches that wait for each other");
        struct launch *launch = batch_launch(list, target, &batch);
        if (!launch) RAISE(RETORT_ENOMEM, "out of memory merging launches");
        fresh[fresh_count++] = launch;
        for (size_t w = 0; w < m.words; w++) m.done[w] |= m.taken[w];
    }
    memcpy(list->launches.items, fresh, fresh_count * sizeof *fresh);
    list->launches.count = fresh_count;
done:
    array_finish(&batch.parts);
    finish_merging(&m);
    free(fresh);
    return status;
}
