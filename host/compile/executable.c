/* Executables and the library of kernels and scratch memory they share. */
#include "compile/executable.h"

#include "base/file.h"
#include "base/log.h"
#include "compile/internal.h"
#include "compile/wisdom.h"
#include "transform/transform.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

struct kernel_text {
    const char *text, *name; /* in the library's arena */
    uint64_t hash;
    struct device_program *program; /* NULL: not built yet */
};

struct library {
    struct device *device;
    struct kernel_target target;
    struct wisdom *wisdom; /* owned; NULL where it was given */
    struct arena arena;
    ARRAY(struct kernel_text) kernels;
    ARRAY(struct device_program *) programs;
    ARRAY(struct executable *) executables;
    struct device_buffer *scratch;
    size_t scratch_floats;
};

/* A kernel argument that a binding sets. */
struct use {
    int slot, launch, argument;
    size_t offset; /* in elements, added to the binding's */
};

struct executable {
    struct library *library;
    char *label;
    struct lowering lowering; /* its graph and grouping no longer exist; launches, values and slots do */
    ARRAY(struct use) uses;
    double flops;
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
    (*library)->wisdom = wisdom;
    wisdom = NULL;
done:
    wisdom_destroy(wisdom);
    return status;
}

int library_create_with(struct device *device, enum family family, const struct wisdom *wisdom,
                        struct library **library) {
    int status = RETORT_OK;
    struct library *fresh = calloc(1, sizeof *fresh);
    if (!fresh) RAISE(RETORT_ENOMEM, "out of memory creating a kernel library");
    fresh->device = device;
    fresh->target = kernels_target(device_traits(device), family);
    fresh->target.wisdom = wisdom;
    arena_init(&fresh->arena);
    *library = fresh;
done:
    return status;
}

void library_destroy(struct library *library) {
    if (!library) return;
    for (size_t i = 0; i < library->programs.count; i++) device_program_destroy(library->programs.items[i]);
    device_buffer_destroy(library->scratch);
    array_finish(&library->programs);
    array_finish(&library->kernels);
    array_finish(&library->executables);
    arena_finish(&library->arena);
    wisdom_destroy(library->wisdom);
    free(library);
}

struct device *library_device(struct library *library) {
    return library->device;
}

int library_convolutions(const struct library *library, struct conv_demand **list, size_t *count) {
    int status = RETORT_OK;
    ARRAY(struct conv_demand) found = {0};
    for (size_t i = 0; i < library->executables.count; i++) {
        const struct lowering *l = &library->executables.items[i]->lowering;
        for (size_t k = 0; k < l->convolutions.count; k++) {
            const struct conv_class *class = &l->convolutions.items[k];
            size_t at = 0;
            while (at < found.count && !conv_class_equal(&found.items[at].class, class)) at++;
            if (at == found.count && !array_push(&found, ((struct conv_demand){.class = *class})))
                RAISE(RETORT_ENOMEM, "out of memory listing convolutions");
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

size_t library_scratch_bytes(const struct library *library) {
    return library->scratch_floats * sizeof(float);
}

/* Kernels index with int. The room above is for what is rounded up past the last element: counts of work-items, and the
 * ends of their shares (emit_flat.c: 256 shares of a multiple of 16; emit_rows.c: 1024 shares). */
#define MOST_ELEMENTS (INT32_MAX - (1 << 16))

static int check_size(const struct kernel_target *target, const struct node *node) {
    struct shape padded = node->shape;
    if (padded.rank == 4 && kernels_conv_layout(target, padded.size[1]) == LAYOUT_BLOCKED)
        padded.size[1] = (padded.size[1] + target->lanes - 1) / target->lanes * target->lanes;
    int64_t count = shape_count(padded);
    if (count >= 0 && count <= MOST_ELEMENTS) return RETORT_OK;
    char shape[128];
    shape_print(node->shape, shape, sizeof shape);
    return error_set(RETORT_ELIMIT,
                     "a tensor %s has more elements than the %d that kernels can count: use smaller batches", shape,
                     MOST_ELEMENTS);
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

static int build_programs(struct library *library) {
    int status = RETORT_OK;
    struct text source;
    struct device_program *program = NULL;
    text_init(&source);
    kernels_preamble(&source, library->target.lanes);
    size_t fresh = 0;
    /* Executables that were only tried for size have left texts behind that nothing launches. */
    bool *used = calloc(library->kernels.count + 1, sizeof *used);
    if (!used) RAISE(RETORT_ENOMEM, "out of memory writing kernels");
    for (size_t i = 0; i < library->executables.count; i++) {
        const struct lowering *l = &library->executables.items[i]->lowering;
        for (size_t k = 0; k < l->launches.count; k++) used[l->launches.items[k]->kernel] = true;
    }
    for (size_t i = 0; i < library->kernels.count; i++) {
        used[i] &= !library->kernels.items[i].program;
        if (!used[i]) continue;
        text_printf(&source, "#define KERNEL %s\n#define NAME KERNEL\n%s\n#undef NAME\n#undef KERNEL\n",
                    library->kernels.items[i].name, library->kernels.items[i].text);
        fresh++;
    }
    if (!fresh) goto done;
    if (source.failed) RAISE(RETORT_ENOMEM, "out of memory writing kernels");
    log_debug("building %zu kernels, %zu bytes", fresh, source.length);
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
    struct lowering *l = &executable->lowering;
    for (size_t i = 0; i < l->launches.count; i++) {
        struct launch *launch = l->launches.items[i];
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
            else if (fresh && l->slots.items[root->slot].buffer)
                TRY(device_kernel_set_buffer(launch->handle, (unsigned)b, l->slots.items[root->slot].buffer,
                                             l->slots.items[root->slot].offset / 4 + offset));
        }
    }
    executable->ready = true;
done:
    if (status < 0) error_context("preparing the %s", executable->label);
    return status;
}

int library_build(struct library *library) {
    int status = RETORT_OK;
    size_t floats = 0;
    for (size_t i = 0; i < library->executables.count; i++)
        if (library->executables.items[i]->lowering.arena_floats > floats)
            floats = library->executables.items[i]->lowering.arena_floats;
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
    for (size_t i = 0; i < library->executables.count; i++)
        if (!library->executables.items[i]->ready) TRY(prepare_executable(library->executables.items[i]));
done:
    return status;
}

int executable_create(struct library *library, const struct graph *graph, const char *label, struct executable **out) {
    int status = RETORT_OK;
    struct graph *prepared = NULL;
    struct grouping grouping = {0};
    struct executable *executable = calloc(1, sizeof *executable);
    if (!executable || !(executable->label = strdup(label)))
        RAISE(RETORT_ENOMEM, "out of memory compiling the %s", label);
    executable->library = library;
    TRY(prepare_graph(graph, &prepared));
    for (int i = 0; i < graph_count(prepared); i++) {
        const struct node *node = graph_node(prepared, i);
        TRY(check_size(&library->target, node));
        executable->flops += op_info(node->op)->cost(node);
    }
    TRY(grouping_create(prepared, &library->target, &grouping));
    TRY(lowering_create(&grouping, &executable->lowering));
    struct lowering *l = &executable->lowering;
    for (size_t i = 0; i < l->launches.count; i++) {
        struct launch *launch = l->launches.items[i];
        launch->kernel = library_kernel(library, launch->text, launch->what);
        if (launch->kernel < 0) RAISE(RETORT_ENOMEM, "out of memory compiling the %s", label);
        for (int b = 0; b < launch->buffer_count; b++) {
            size_t offset;
            struct value *root = value_root(launch->buffers[b], &offset);
            struct use use = {.slot = root->slot, .launch = (int)i, .argument = b, .offset = offset};
            if (root->slot >= 0 && !array_push(&executable->uses, use))
                RAISE(RETORT_ENOMEM, "out of memory compiling the %s", label);
        }
    }
    if (!array_push(&library->executables, executable)) RAISE(RETORT_ENOMEM, "out of memory compiling the %s", label);
    log_debug("%s: %d nodes, %zu launches, %.1f MB scratch", label, graph_count(prepared), l->launches.count,
              (double)l->arena_floats * 4e-6);
    *out = executable;
    executable = NULL;
done:
    if (status < 0) error_context("compiling the %s", label);
    grouping_finish(&grouping);
    graph_destroy(prepared);
    executable_destroy(executable);
    return status;
}

void executable_destroy(struct executable *executable) {
    if (!executable) return;
    struct library *library = executable->library;
    for (size_t i = 0; library && i < library->executables.count; i++)
        if (library->executables.items[i] == executable)
            library->executables.items[i] = library->executables.items[--library->executables.count];
    for (size_t i = 0; i < executable->lowering.launches.count; i++)
        device_kernel_destroy(executable->lowering.launches.items[i]->handle);
    lowering_finish(&executable->lowering);
    array_finish(&executable->uses);
    free(executable->label);
    free(executable);
    if (library && !library->executables.count && library->scratch) {
        device_drain(library->device); /* a failed kernel is reported by whoever waits for its result */
        device_buffer_destroy(library->scratch);
        library->scratch = NULL;
        library->scratch_floats = 0;
    }
}

int executable_slot(const struct executable *executable, const char *name) {
    for (size_t i = 0; i < executable->lowering.slots.count; i++)
        if (strcmp(executable->lowering.slots.items[i].name, name) == 0) return (int)i;
    return -1;
}

int executable_bind_slot(struct executable *executable, int slot, struct device_buffer *buffer, size_t offset) {
    struct lowering *l = &executable->lowering;
    if (slot < 0 || (size_t)slot >= l->slots.count || offset % 4)
        return error_set(RETORT_EINVAL, "the %s has no binding %d at offset %zu", executable->label, slot, offset);
    struct slot *at = &l->slots.items[slot];
    if (!buffer || offset + at->value->floats * 4 > device_buffer_size(buffer))
        return error_set(RETORT_EINVAL, "the %s: %s needs %zu bytes at %zu of its buffer", executable->label, at->name,
                         at->value->floats * 4, offset);
    at->buffer = buffer;
    at->offset = offset;
    for (size_t i = 0; i < executable->uses.count; i++) {
        const struct use *use = &executable->uses.items[i];
        struct device_kernel *handle = l->launches.items[use->launch]->handle;
        if (use->slot != slot || !handle) continue;
        int status = device_kernel_set_buffer(handle, (unsigned)use->argument, buffer, offset / 4 + use->offset);
        if (status < 0) return status;
    }
    return RETORT_OK;
}

size_t executable_slot_bytes(const struct executable *executable, int slot) {
    bool known = slot >= 0 && (size_t)slot < executable->lowering.slots.count;
    return known ? executable->lowering.slots.items[slot].value->floats * sizeof(float) : 0;
}

int executable_bind(struct executable *executable, const char *name, struct device_buffer *buffer, size_t offset) {
    int slot = executable_slot(executable, name);
    if (slot < 0) return error_set(RETORT_EINVAL, "the %s has no input or output \"%s\"", executable->label, name);
    return executable_bind_slot(executable, slot, buffer, offset);
}

int executable_enqueue(struct executable *executable) {
    struct lowering *l = &executable->lowering;
    if (!executable->ready) {
        int status = library_build(executable->library);
        if (status < 0) return status;
    }
    for (size_t i = 0; i < l->slots.count; i++)
        if (!l->slots.items[i].buffer)
            return error_set(RETORT_EINVAL, "the %s: nothing is bound to %s", executable->label,
                             l->slots.items[i].name);
    for (size_t i = 0; i < l->launches.count; i++) {
        const struct launch *launch = l->launches.items[i];
        int status = device_launch(executable->library->device, launch->handle, launch->global, launch->local);
        if (status < 0) {
            error_context("running the %s", executable->label);
            return status;
        }
    }
    return RETORT_OK;
}

size_t executable_arena_bytes(const struct executable *executable) {
    return executable->lowering.arena_floats * sizeof(float);
}

int executable_launch_count(const struct executable *executable) {
    return (int)executable->lowering.launches.count;
}

double executable_flops(const struct executable *executable) {
    return executable->flops;
}

void executable_print(const struct executable *executable, bool launches, FILE *stream) {
    const struct lowering *l = &executable->lowering;
    fprintf(stream, "%-28s %4zu launches, %8.2f MB of scratch memory, %10.3f MFLOP\n", executable->label,
            l->launches.count, (double)l->arena_floats * 4e-6, executable->flops * 1e-6);
    for (size_t i = 0; i < l->launches.count && launches; i++) {
        const struct launch *launch = l->launches.items[i];
        fprintf(stream, "%4zu  k%-4d %-36s %6zu x %-4zu", i, launch->kernel, launch->what,
                launch->global[0] * launch->global[1] * launch->global[2], launch->local[0]);
        for (int b = 0; b < launch->buffer_count; b++) {
            size_t offset;
            const struct value *root = value_root(launch->buffers[b], &offset);
            const char *name = root->slot >= 0 ? l->slots.items[root->slot].name : "@";
            fprintf(stream, "%s%s+%zu(%zu)", b == 0 || b == launch->output_count ? "  <- " + (b == 0 ? 2 : 0) : " ",
                    name, root->slot >= 0 ? offset : root->offset + offset, launch->buffers[b]->floats);
        }
        fputc('\n', stream);
    }
}
