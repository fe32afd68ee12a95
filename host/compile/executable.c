/* Executables and the library of kernels and scratch memory they share. */
#include "compile/executable.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "compile/passes.h"
#include "compile/self_test.h"
#include "compile/wisdom.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct kernel_text {
    const char *text, *name; /* in the library's arena */
    uint64_t hash;
    struct device_program *program; /* NULL: not built yet */
    bool rehearsed;                 /* was launched once */
};

struct library {
    struct device *device;
    struct kernel_target target;
    struct wisdom *wisdom; /* the target's, for what the self-test finds; NULL: none */
    bool owns_wisdom;
    struct arena arena;
    ARRAY(struct kernel_text) kernels;
    ARRAY(struct device_program *) programs;
    ARRAY(struct executable *) executables;
    ARRAY(struct class_use) tested;               /* of all executables that there were */
    struct device_buffer *scratch, *call_scratch; /* the arena; what calls of other libraries use beside it */
    size_t scratch_floats, call_bytes;
};

/* A kernel argument that a binding sets. */
struct use {
    int slot, launch, argument;
    size_t offset; /* in elements, added to the binding's */
};

struct executable {
    struct library *library;
    char *label;
    struct launch_list list;
    ARRAY(struct use) uses;
    bool ready; /* handles exist and the arena's arguments are set */
};

int library_create(struct device *device, enum family family, struct library **library) {
    int status = RETORT_OK;
    const struct kernel_target target = kernels_target(device_traits(device), family);
    struct wisdom *wisdom = NULL;
    char path[FILE_PATH_MAX];
    wisdom_path(path);
    TRY(wisdom_load(path, &target, &wisdom));
    TRY(library_create_with(device, family, wisdom, library));
    (*library)->owns_wisdom = true;
    wisdom = NULL;
done:
    wisdom_destroy(wisdom);
    return status;
}

int library_create_with(struct device *device, enum family family, struct wisdom *wisdom, struct library **library) {
    struct kernel_target target = kernels_target(device_traits(device), family);
    target.wisdom = wisdom;
    return library_create_for(device, &target, library);
}

int library_create_for(struct device *device, const struct kernel_target *target, struct library **library) {
    struct kernel_target settled = *target;
    char words[GEMM_WORDS];
    int status = kernels_check_asked(target);
    if (status == RETORT_OK) status = kernels_settle_gemm(&settled, device, words);
    if (status < 0) return status;
    struct library *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return error_set(RETORT_ENOMEM, "out of memory creating a kernel library");
    fresh->device = device;
    fresh->target = settled;
    fresh->wisdom = settled.wisdom;
    arena_init(&fresh->arena);
    *library = fresh;
    return RETORT_OK;
}

void library_destroy(struct library *library) {
    if (!library) return;
    for (size_t i = 0; i < library->programs.count; i++) device_program_destroy(library->programs.items[i]);
    device_buffer_destroy(library->scratch);
    device_buffer_destroy(library->call_scratch);
    array_finish(&library->programs);
    array_finish(&library->kernels);
    array_finish(&library->executables);
    array_finish(&library->tested);
    arena_finish(&library->arena);
    if (library->owns_wisdom) wisdom_destroy(library->wisdom);
    free(library);
}

struct device *library_device(struct library *library) {
    return library->device;
}

int library_classes(const struct library *library, struct kernel_demand **list, size_t *count) {
    int status = RETORT_OK;
    ARRAY(struct kernel_demand) found = {0};
    for (size_t i = 0; i < library->executables.count; i++) {
        const struct launch_list *launches = &library->executables.items[i]->list;
        for (size_t k = 0; k < launches->classes.count; k++) {
            const struct kernel_class *class = &launches->classes.items[k];
            size_t at = 0;
            while (at < found.count && !kernel_class_equal(&found.items[at].class, class)) at++;
            if (at == found.count && !array_push(&found, ((struct kernel_demand){.class = *class})))
                RAISE(RETORT_ENOMEM, "out of memory listing launches");
            found.items[at].launches++;
        }
    }
    *list = found.items;
    *count = found.count;
    return RETORT_OK;
done:
    array_finish(&found);
    return status;
}

/* Whether the self-test is for a launch: a library has a test of its own; and on CPU devices, where building takes
 * longer than testing, products are left out. */
static bool is_tested(const struct library *library, const struct class_use *use) {
    return !class_is_product(&use->class)
           || (library->target.traits->kind != DEVICE_CPU && !kernels_variant(use->choice.variant)->library);
}

/* Remembers how an executable computes its convolutions and products, for the self-test. */
static int note_classes(struct library *library, const struct launch_list *list) {
    for (size_t i = 0; i < list->classes.count; i++) {
        struct class_use use = {.class = list->classes.items[i]};
        size_t at = 0;
        use.choice = kernels_choice(&library->target, &use.class);
        if (!is_tested(library, &use)) continue;
        while (at < library->tested.count
               && !(kernel_class_equal(&library->tested.items[at].class, &use.class)
                    && memcmp(&library->tested.items[at].choice, &use.choice, sizeof use.choice) == 0))
            at++;
        if (at == library->tested.count && !array_push(&library->tested, use))
            return error_set(RETORT_ENOMEM, "out of memory listing convolutions");
    }
    return RETORT_OK;
}

int library_self_test(struct library *library, bool skip, int *refused) {
    int status = RETORT_OK;
    if (!library->wisdom) {
        TRY(wisdom_load("", &library->target, &library->wisdom));
        library->owns_wisdom = true;
        library->target.wisdom = library->wisdom;
    }
    TRY(kernels_self_test(library->device, &library->target, library->wisdom, library->tested.items,
                          library->tested.count, skip, refused));
done:
    return status;
}

size_t library_scratch_bytes(const struct library *library) {
    return library->scratch_floats * sizeof(float) + library->call_bytes;
}

const char *library_gemm(const struct library *library) {
    const struct kernel_target *target = &library->target;
    if (!target->calls) return "own";
    return target->gemm && strcmp(target->gemm, "auto") != 0 ? "clblast" : "auto";
}

/* What the most demanding call of all executables needs beside the arena. */
static size_t call_bytes(const struct library *library) {
    size_t most = 0;
    for (size_t i = 0; i < library->executables.count; i++) {
        size_t bytes = launch_list_call_bytes(&library->executables.items[i]->list);
        if (bytes > most) most = bytes;
    }
    return most;
}

/* The number of the library's kernel with this text, which is added if it is new; -1 when out of memory. */
static int library_kernel(struct library *library, const char *text, const char *what) {
    uint64_t hash = hash_fast(text, strlen(text), 0);
    for (size_t i = 0; i < library->kernels.count; i++)
        if (library->kernels.items[i].hash == hash && strcmp(library->kernels.items[i].text, text) == 0) return (int)i;
    /* The name says what it is: "k12_conv_cpu_cl", so that profiles and drivers' messages can be read. */
    char *name = arena_printf(&library->arena, "k%zu_%s", library->kernels.count, what);
    for (char *c = name; c && *c; c++)
        if (!isalnum((unsigned char)*c)) *c = '_';
    struct kernel_text entry = {.text = arena_copy_text(&library->arena, text), .name = name, .hash = hash};
    if (!entry.text || !entry.name || !array_push(&library->kernels, entry)) return -1;
    return (int)library->kernels.count - 1;
}

/* The text of all kernels that are launched and not built yet: which, as an array for the caller to free(), and how
 * many. */
static int write_program(const struct library *library, struct text *source, bool **which, size_t *count) {
    int status = RETORT_OK;
    kernels_preamble(source, library->target.lanes);
    size_t fresh = 0;
    /* Executables that were only tried for size have left texts behind that nothing launches. */
    bool *used = calloc(library->kernels.count + 1, sizeof *used);
    if (!used) RAISE(RETORT_ENOMEM, "out of memory writing kernels");
    for (size_t i = 0; i < library->executables.count; i++) {
        const struct launch_list *list = &library->executables.items[i]->list;
        for (size_t k = 0; k < list->launches.count; k++)
            if (!list->launches.items[k]->call) used[list->launches.items[k]->kernel] = true;
    }
    for (size_t i = 0; i < library->kernels.count; i++) {
        used[i] &= !library->kernels.items[i].program;
        if (!used[i]) continue;
        text_printf(source, "#define KERNEL %s\n#define NAME KERNEL\n%s\n#undef NAME\n#undef KERNEL\n",
                    library->kernels.items[i].name, library->kernels.items[i].text);
        fresh++;
    }
    if (source->failed) RAISE(RETORT_ENOMEM, "out of memory writing kernels");
    *which = used;
    *count = fresh;
    used = NULL;
done:
    free(used);
    return status;
}

int library_write_program(struct library *library, FILE *stream) {
    int status = RETORT_OK;
    struct text source;
    bool *used = NULL;
    size_t count;
    text_init(&source);
    TRY(write_program(library, &source, &used, &count));
    fputs(text_get(&source), stream);
done:
    free(used);
    text_finish(&source);
    return status;
}

static const char building[] = "building kernels";

static int build_programs(struct library *library) {
    int status = RETORT_OK;
    struct text source;
    struct progress line;
    struct device_program *program = NULL;
    bool *used = NULL;
    size_t fresh;
    text_init(&source);
    TRY(write_program(library, &source, &used, &fresh));
    if (!fresh) goto done;
    log_debug("building %zu kernels, %zu bytes", fresh, source.length);
    progress_begin(&line, building, 0, (int64_t)fresh);
    progress_show(&line);
    TRY(device_program_create(library->device, text_get(&source), "", &program));
    if (!array_push(&library->programs, program)) RAISE(RETORT_ENOMEM, "out of memory building kernels");
    for (size_t i = 0; i < library->kernels.count; i++)
        if (used[i]) library->kernels.items[i].program = program;
    program = NULL;
done:
    free(used);
    device_program_destroy(program);
    text_finish(&source);
    return status;
}

static int prepare_executable(struct executable *executable) {
    int status = RETORT_OK;
    struct library *library = executable->library;
    struct launch_list *list = &executable->list;
    for (size_t i = 0; i < list->launches.count; i++) {
        struct launch *launch = list->launches.items[i];
        if (launch->call) continue;
        const struct kernel_text *kernel = &library->kernels.items[launch->kernel];
        /* A kernel keeps its arguments; a buffer bound long ago may be gone by now. */
        bool fresh = !launch->handle;
        if (fresh) {
            TRY(device_kernel_create(kernel->program, kernel->name, &launch->handle));
            device_kernel_set_work(launch->handle, launch->flops, launch_bytes(launch));
        }
        for (int b = 0; b < launch->buffer_count; b++) {
            size_t offset;
            struct value *root = value_root(launch->buffers[b], &offset);
            if (root->slot < 0)
                TRY(device_kernel_set_buffer(launch->handle, (unsigned)b, library->scratch, root->offset + offset));
            else if (fresh && list->slots.items[root->slot].buffer)
                TRY(device_kernel_set_buffer(launch->handle, (unsigned)b, list->slots.items[root->slot].buffer,
                                             list->slots.items[root->slot].offset / 4 + offset));
        }
    }
    executable->ready = true;
done:
    if (status < 0) error_context("preparing the %s", executable->label);
    return status;
}

static int allocate_call_scratch(struct library *library) {
    int status = RETORT_OK;
    size_t bytes = call_bytes(library);
    if (bytes <= library->call_bytes) return RETORT_OK;
    TRY(device_finish(library->device));
    device_buffer_destroy(library->call_scratch);
    library->call_scratch = NULL;
    library->call_bytes = 0;
    TRY(device_buffer_create(library->device, bytes, "scratch memory of matrix products", &library->call_scratch));
    library->call_bytes = bytes;
done:
    return status;
}

int library_build(struct library *library) {
    int status = RETORT_OK;
    size_t floats = 0;
    for (size_t i = 0; i < library->executables.count; i++)
        if (library->executables.items[i]->list.arena_floats > floats)
            floats = library->executables.items[i]->list.arena_floats;
    TRY(build_programs(library));
    if (floats > library->scratch_floats) {
        TRY(device_finish(library->device));
        device_buffer_destroy(library->scratch);
        library->scratch = NULL;
        library->scratch_floats = 0;
        for (size_t i = 0; i < library->executables.count; i++) library->executables.items[i]->ready = false;
        TRY(device_buffer_create(library->device, floats * sizeof(float), "scratch memory", &library->scratch));
        library->scratch_floats = floats;
    }
    TRY(allocate_call_scratch(library));
    for (size_t i = 0; i < library->executables.count; i++)
        if (!library->executables.items[i]->ready) TRY(prepare_executable(library->executables.items[i]));
done:
    return status;
}

/* --- rehearsal --- */
/* A library takes its operands anew in each call. */
static int enqueue_call(struct executable *executable, const struct launch *launch) {
    const struct library *library = executable->library;
    struct gemm_place places[GEMM_OPERANDS];
    for (int b = 0; b < launch->buffer_count; b++) {
        size_t offset;
        const struct value *root = value_root(launch->buffers[b], &offset);
        const struct slot *slot = root->slot < 0 ? NULL : &executable->list.slots.items[root->slot];
        places[b] = slot ? (struct gemm_place){slot->buffer, slot->offset / 4 + offset}
                         : (struct gemm_place){library->scratch, root->offset + offset};
    }
    return device_gemm(library->device, launch->call, places, library->call_scratch);
}

static bool is_new(const struct library *library, const struct launch *launch) {
    return !launch->call && !library->kernels.items[launch->kernel].rehearsed;
}

/* Whether it has a new kernel, and nobody uses it yet. */
static bool wants_rehearsal(const struct executable *executable) {
    const struct launch_list *list = &executable->list;
    bool wants = false;
    for (size_t i = 0; i < list->launches.count; i++) wants |= is_new(executable->library, list->launches.items[i]);
    for (size_t k = 0; k < list->slots.count; k++) wants &= !list->slots.items[k].buffer;
    return wants;
}

/* Inputs may share memory, since nobody writes them. Results may not: merged into one launch, kernels write several at
 * a time, and one may read what an earlier launch wrote. Where a slot begins, in floats of the buffer for inputs or of
 * that for results, `used` floats of which others have. */
static size_t place_slot(const struct slot *slot, size_t *used) {
    enum { LINE_FLOATS = 32 };
    size_t begin = *used;
    if (!slot->output) return 0;
    *used += (slot->value->floats + LINE_FLOATS - 1) / LINE_FLOATS * LINE_FLOATS;
    return begin;
}

/* The kernels that nothing has launched yet, and the floats of the largest input, and of all results together, of
 * executables that launch them. */
static int64_t find_new(const struct library *library, bool *seen, size_t floats[2]) {
    int64_t count = 0;
    for (size_t i = 0; i < library->executables.count; i++) {
        const struct executable *executable = library->executables.items[i];
        const struct launch_list *list = &executable->list;
        if (!wants_rehearsal(executable)) continue;
        for (size_t k = 0; k < list->launches.count; k++) {
            const struct launch *launch = list->launches.items[k];
            count += is_new(library, launch) && !seen[launch->kernel];
            if (!launch->call) seen[launch->kernel] = true;
        }
        for (size_t k = 0, used = 0; k < list->slots.count; k++) {
            const struct slot *slot = &list->slots.items[k];
            size_t *most = &floats[slot->output], end = place_slot(slot, &used) + slot->value->floats;
            if (end > *most) *most = end;
        }
    }
    return count;
}

/* All launches in their order, since one may look up memory by what an earlier one has written. Waits after those of
 * new kernels. */
static int rehearse(struct executable *executable, struct device_buffer *const buffers[2], struct progress *line) {
    int status = RETORT_OK;
    struct library *library = executable->library;
    struct launch_list *list = &executable->list;
    for (size_t k = 0, used = 0; k < list->slots.count; k++) {
        const struct slot *slot = &list->slots.items[k];
        TRY(executable_bind_slot(executable, (int)k, buffers[slot->output], place_slot(slot, &used) * sizeof(float)));
    }
    for (size_t i = 0; i < list->launches.count; i++) {
        const struct launch *launch = list->launches.items[i];
        double begun = clock_seconds();
        bool fresh = is_new(library, launch);
        TRY(launch->call ? enqueue_call(executable, launch)
                         : device_launch(library->device, launch->handle, launch->global, launch->local));
        if (!fresh && !launch->call) continue;
        TRY(device_finish_first(library->device, begun));
        if (!fresh) continue;
        library->kernels.items[launch->kernel].rehearsed = true;
        progress_update(line, line->done + 1, NULL);
    }
done:
    /* What is bound next is bound anew; until then nothing is. */
    for (size_t k = 0; k < list->slots.count; k++) list->slots.items[k].buffer = NULL;
    if (status < 0) error_context("running the %s for the first time", executable->label);
    return status;
}

int library_rehearse(struct library *library) {
    int status = RETORT_OK;
    struct device_buffer *buffers[2] = {NULL, NULL}; /* read, written */
    struct progress line;
    size_t floats[2] = {1, 1};
    bool *seen = calloc(library->kernels.count + 1, sizeof *seen);
    if (!seen) RAISE(RETORT_ENOMEM, "out of memory preparing kernels");
    progress_begin(&line, building, 0, find_new(library, seen, floats));
    if (!line.total) goto done;
    progress_show(&line);
    for (int i = 0; i < 2 && status == RETORT_OK; i++)
        status = device_buffer_create(library->device, floats[i] * sizeof(float), "a first launch", &buffers[i]);
    if (status == RETORT_ELIMIT) {
        error_clear();
        status = RETORT_OK;
        goto done;
    }
    TRY(status);
    TRY(device_fill_zero(library->device, buffers[0], 0, floats[0] * sizeof(float)));
    device_first_launches_begin();
    for (size_t i = 0; i < library->executables.count && status == RETORT_OK; i++)
        if (wants_rehearsal(library->executables.items[i]))
            status = rehearse(library->executables.items[i], buffers, &line);
    if (status == RETORT_OK) status = device_finish(library->device);
    device_first_launches_end();
done:
    if (seen && line.total) progress_end(&line);
    device_buffer_destroy(buffers[0]);
    device_buffer_destroy(buffers[1]);
    free(seen);
    return status;
}

int executable_create(struct library *library, const struct graph *graph, const char *label, struct executable **out) {
    int status = RETORT_OK;
    struct executable *executable = calloc(1, sizeof *executable);
    if (!executable || !(executable->label = strdup(label)))
        RAISE(RETORT_ENOMEM, "out of memory compiling the %s", label);
    executable->library = library;
    TRY(compile_graph(graph, &library->target, label, &executable->list));
    TRY(note_classes(library, &executable->list));
    struct launch_list *list = &executable->list;
    for (size_t i = 0; i < list->launches.count; i++) {
        struct launch *launch = list->launches.items[i];
        if (!launch->call) launch->kernel = library_kernel(library, launch->text, launch->what);
        if (!launch->call && launch->kernel < 0) RAISE(RETORT_ENOMEM, "out of memory compiling the %s", label);
        for (int b = 0; b < launch->buffer_count; b++) {
            size_t offset;
            struct value *root = value_root(launch->buffers[b], &offset);
            struct use use = {.slot = root->slot, .launch = (int)i, .argument = b, .offset = offset};
            if (root->slot >= 0 && !array_push(&executable->uses, use))
                RAISE(RETORT_ENOMEM, "out of memory compiling the %s", label);
        }
    }
    if (!array_push(&library->executables, executable)) RAISE(RETORT_ENOMEM, "out of memory compiling the %s", label);
    *out = executable;
    executable = NULL;
done:
    if (status < 0) error_context("compiling the %s", label);
    executable_destroy(executable);
    return status;
}

void executable_destroy(struct executable *executable) {
    if (!executable) return;
    struct library *library = executable->library;
    for (size_t i = 0; library && i < library->executables.count; i++)
        if (library->executables.items[i] == executable)
            library->executables.items[i] = library->executables.items[--library->executables.count];
    for (size_t i = 0; i < executable->list.launches.count; i++)
        device_kernel_destroy(executable->list.launches.items[i]->handle);
    launch_list_finish(&executable->list);
    array_finish(&executable->uses);
    free(executable->label);
    free(executable);
    if (library && !library->executables.count && (library->scratch || library->call_scratch)) {
        device_drain(library->device); /* a failed kernel is reported by whoever waits for its result */
        device_buffer_destroy(library->scratch);
        device_buffer_destroy(library->call_scratch);
        library->scratch = library->call_scratch = NULL;
        library->scratch_floats = library->call_bytes = 0;
    }
}

int executable_slot(const struct executable *executable, const char *name) {
    for (size_t i = 0; i < executable->list.slots.count; i++)
        if (strcmp(executable->list.slots.items[i].name, name) == 0) return (int)i;
    return -1;
}

int executable_bind_slot(struct executable *executable, int slot, struct device_buffer *buffer, size_t offset) {
    struct launch_list *list = &executable->list;
    if (slot < 0 || (size_t)slot >= list->slots.count || offset % 4)
        return error_set(RETORT_EINVAL, "the %s has no binding %d at offset %zu", executable->label, slot, offset);
    struct slot *at = &list->slots.items[slot];
    if (!buffer || offset + at->value->floats * 4 > device_buffer_size(buffer))
        return error_set(RETORT_EINVAL, "the %s: %s needs %zu bytes at %zu of its buffer", executable->label, at->name,
                         at->value->floats * 4, offset);
    at->buffer = buffer;
    at->offset = offset;
    for (size_t i = 0; i < executable->uses.count; i++) {
        const struct use *use = &executable->uses.items[i];
        struct device_kernel *handle = list->launches.items[use->launch]->handle;
        if (use->slot != slot || !handle) continue;
        int status = device_kernel_set_buffer(handle, (unsigned)use->argument, buffer, offset / 4 + use->offset);
        if (status < 0) return status;
    }
    return RETORT_OK;
}

size_t executable_slot_bytes(const struct executable *executable, int slot) {
    bool known = slot >= 0 && (size_t)slot < executable->list.slots.count;
    return known ? executable->list.slots.items[slot].value->floats * sizeof(float) : 0;
}

int executable_bind(struct executable *executable, const char *name, struct device_buffer *buffer, size_t offset) {
    int slot = executable_slot(executable, name);
    if (slot < 0) return error_set(RETORT_EINVAL, "the %s has no input or output \"%s\"", executable->label, name);
    return executable_bind_slot(executable, slot, buffer, offset);
}

int executable_enqueue(struct executable *executable) {
    struct launch_list *list = &executable->list;
    if (!executable->ready) {
        int status = library_build(executable->library);
        if (status < 0) return status;
    }
    for (size_t i = 0; i < list->slots.count; i++)
        if (!list->slots.items[i].buffer)
            return error_set(RETORT_EINVAL, "the %s: nothing is bound to %s", executable->label,
                             list->slots.items[i].name);
    for (size_t i = 0; i < list->launches.count; i++) {
        const struct launch *launch = list->launches.items[i];
        int status = launch->call
                         ? enqueue_call(executable, launch)
                         : device_launch(executable->library->device, launch->handle, launch->global, launch->local);
        if (status < 0) {
            error_context("running the %s", executable->label);
            return status;
        }
    }
    return RETORT_OK;
}

size_t executable_arena_bytes(const struct executable *executable) {
    return executable->list.arena_floats * sizeof(float) + call_bytes(executable->library);
}

int executable_launch_count(const struct executable *executable) {
    return (int)executable->list.launches.count;
}

double executable_flops(const struct executable *executable) {
    return executable->list.flops;
}

void executable_print(const struct executable *executable, bool launches, FILE *stream) {
    const struct launch_list *list = &executable->list;
    fprintf(stream, "%-28s %4zu launches, %8.2f MB of scratch memory, %10.3f MFLOP\n", executable->label,
            list->launches.count, (double)list->arena_floats * 4e-6, list->flops * 1e-6);
    if (launches) launch_list_print(list, stream);
}
