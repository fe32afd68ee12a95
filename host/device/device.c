/* Finding devices, choosing one by a spec, opening it. */
#define _GNU_SOURCE /* strcasestr */
#include "device/internal.h"

#include "base/log.h"
#include "base/memory.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    struct device_traits traits;
    cl_platform_id platform;
    cl_device_id id;
};

struct candidates {
    struct candidate *items;
    size_t count, capacity;
};

const char *device_kind_name(enum device_kind kind) {
    switch (kind) {
    case DEVICE_CPU:
        return "cpu";
    case DEVICE_GPU:
        return "gpu";
    case DEVICE_ACCELERATOR:
        return "accelerator";
    default:
        return "other";
    }
}

/* A text of any length into a field of a fixed one, without the blanks some drivers put round it. `id` is a platform
 * where `platform` is set, else a device. An unanswered query leaves the field empty. */
static void query_text(void *id, bool platform, cl_uint what, char *out, size_t size) {
    size_t length = 0;
    out[0] = '\0';
    cl_int code =
        platform ? clGetPlatformInfo(id, what, 0, NULL, &length) : clGetDeviceInfo(id, what, 0, NULL, &length);
    char *text = code == CL_SUCCESS && length ? calloc(1, length + 1) : NULL;
    if (!text) return;
    code = platform ? clGetPlatformInfo(id, what, length, text, NULL) : clGetDeviceInfo(id, what, length, text, NULL);
    if (code == CL_SUCCESS) {
        const char *begin = text + strspn(text, " \t");
        snprintf(out, size, "%s", begin);
        for (size_t end = strlen(out); end && isspace((unsigned char)out[end - 1]); end--) out[end - 1] = '\0';
    }
    free(text);
}

/* The value of a query; 0 where the driver does not answer. */
#define QUERY(type, device, what) (*(type *)query_value((device), (what), sizeof(type), &(type){0}))
static void *query_value(cl_device_id device, cl_device_info what, size_t size, void *zeroed) {
    if (clGetDeviceInfo(device, what, size, zeroed, NULL) != CL_SUCCESS) memset(zeroed, 0, size);
    return zeroed;
}

/* Some drivers leave a size out, or allow more in one piece than there is. What they must allow at least is a quarter
 * of the memory, and 128 MiB. */
static void mend_memory(struct device_traits *traits) {
    const uint64_t least = 128 << 20;
    if (traits->global_memory == 0) traits->global_memory = traits->max_allocation ? traits->max_allocation : least;
    uint64_t quarter = traits->global_memory / 4;
    if (traits->max_allocation == 0) traits->max_allocation = quarter > least ? quarter : least;
    if (traits->max_allocation > traits->global_memory) traits->max_allocation = traits->global_memory;
}

static void query_traits(cl_platform_id platform, cl_device_id device, struct device_traits *traits) {
    cl_device_type type = QUERY(cl_device_type, device, CL_DEVICE_TYPE);
    traits->kind = type & CL_DEVICE_TYPE_GPU           ? DEVICE_GPU
                   : type & CL_DEVICE_TYPE_CPU         ? DEVICE_CPU
                   : type & CL_DEVICE_TYPE_ACCELERATOR ? DEVICE_ACCELERATOR
                                                       : DEVICE_OTHER;
    query_text(platform, true, CL_PLATFORM_NAME, traits->platform, sizeof traits->platform);
    query_text(device, false, CL_DEVICE_NAME, traits->name, sizeof traits->name);
    query_text(device, false, CL_DEVICE_VENDOR, traits->vendor, sizeof traits->vendor);
    query_text(device, false, CL_DEVICE_VERSION, traits->version, sizeof traits->version);
    query_text(device, false, CL_DRIVER_VERSION, traits->driver, sizeof traits->driver);
    cl_uint units = QUERY(cl_uint, device, CL_DEVICE_MAX_COMPUTE_UNITS);
    traits->compute_units = units ? units : 1;
    /* Drivers that vectorise by themselves, or not at all, may answer 1. Kernels in explicit vectors still want at
     * least 4 lanes: 128-bit registers are the least any CPU of today has, and elsewhere the compiler splits them. */
    cl_uint width = QUERY(cl_uint, device, CL_DEVICE_NATIVE_VECTOR_WIDTH_FLOAT);
    traits->vector_width = width >= 16 ? 16 : width >= 8 ? 8 : 4;
    traits->max_clock_mhz = QUERY(cl_uint, device, CL_DEVICE_MAX_CLOCK_FREQUENCY);
    size_t group = QUERY(size_t, device, CL_DEVICE_MAX_WORK_GROUP_SIZE);
    traits->max_work_group = group ? group : 1;
    traits->local_memory = (size_t)QUERY(cl_ulong, device, CL_DEVICE_LOCAL_MEM_SIZE);
    traits->global_memory = QUERY(cl_ulong, device, CL_DEVICE_GLOBAL_MEM_SIZE);
    traits->max_allocation = QUERY(cl_ulong, device, CL_DEVICE_MAX_MEM_ALLOC_SIZE);
    traits->cache = QUERY(cl_ulong, device, CL_DEVICE_GLOBAL_MEM_CACHE_SIZE);
    traits->fma = QUERY(cl_device_fp_config, device, CL_DEVICE_SINGLE_FP_CONFIG) & CL_FP_FMA;
    traits->fp64 = QUERY(cl_device_fp_config, device, CL_DEVICE_DOUBLE_FP_CONFIG) != 0;
    traits->available =
        QUERY(cl_bool, device, CL_DEVICE_AVAILABLE) && QUERY(cl_bool, device, CL_DEVICE_COMPILER_AVAILABLE);
    if (traits->kind == DEVICE_CPU) traits->second_cache = device_second_cache("/sys/devices/system/cpu/cpu0/cache");
    mend_memory(traits);
    device_query_lanes(device, traits);
}

static int add_platform(cl_platform_id platform, struct candidates *found) {
    int status = RETORT_OK;
    cl_device_id *ids = NULL;
    cl_uint count = 0;
    /* CL_DEVICE_NOT_FOUND is what a platform without devices says; one that fails otherwise is of no use either. */
    cl_int code = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, 0, NULL, &count);
    if (code != CL_SUCCESS || count == 0) goto done;
    ids = calloc(count, sizeof(*ids));
    if (!ids) RAISE(RETORT_ENOMEM, "out of memory listing OpenCL devices");
    code = clGetDeviceIDs(platform, CL_DEVICE_TYPE_ALL, count, ids, NULL);
    if (code != CL_SUCCESS) goto done;
    for (cl_uint i = 0; i < count; i++) {
        struct candidate candidate = {.platform = platform, .id = ids[i]};
        query_traits(platform, ids[i], &candidate.traits);
        candidate.traits.index = (int)found->count;
        if (!array_push(found, candidate)) RAISE(RETORT_ENOMEM, "out of memory listing OpenCL devices");
    }
done:
    free(ids);
    return status;
}

/* Adds all devices of all platforms to `found`, which the caller frees also on failure. */
static int find(struct candidates *found) {
    int status = RETORT_OK;
    cl_platform_id *platforms = NULL;
    cl_uint count = 0;
    output_divert();
    /* The loader reports CL_PLATFORM_NOT_FOUND_KHR where no driver is installed: no devices, not a failure. */
    if (clGetPlatformIDs(0, NULL, &count) != CL_SUCCESS || count == 0) goto done;
    platforms = calloc(count, sizeof(*platforms));
    if (!platforms) RAISE(RETORT_ENOMEM, "out of memory listing OpenCL platforms");
    TRY(opencl_check(clGetPlatformIDs(count, platforms, NULL), "listing the OpenCL platforms"));
    for (cl_uint i = 0; i < count; i++) TRY(add_platform(platforms[i], found));
done:
    output_restore();
    free(platforms);
    return status;
}

int device_list(struct device_traits **list, size_t *count) {
    int status = RETORT_OK;
    struct candidates found = {0};
    TRY(find(&found));
    struct device_traits *traits = calloc(found.count ? found.count : 1, sizeof *traits);
    if (!traits) RAISE(RETORT_ENOMEM, "out of memory listing OpenCL devices");
    for (size_t i = 0; i < found.count; i++) traits[i] = found.items[i].traits;
    *list = traits;
    *count = found.count;
done:
    array_finish(&found);
    return status;
}

int device_none(void) {
    enum { MOST = 16 };
    cl_platform_id platforms[MOST];
    cl_uint count = 0;
    struct text names;
    output_divert();
    if (clGetPlatformIDs(MOST, platforms, &count) != CL_SUCCESS) count = 0;
    output_restore();
    if (count > MOST) count = MOST;
    if (count == 0)
        return error_set(RETORT_EDEVICE, "no OpenCL device found; install a driver (for the CPU: Debian's "
                                         "pocl-opencl-icd) and look with `clinfo -l`");
    text_init(&names);
    for (cl_uint i = 0; i < count; i++) {
        char name[128];
        query_text(platforms[i], true, CL_PLATFORM_NAME, name, sizeof name);
        text_printf(&names, "%s%s", i ? ", " : "", name);
    }
    int status = error_set(RETORT_EDEVICE,
                           "no OpenCL device found, though a driver is installed (%s): a GPU's finds none where its "
                           "kernel module is missing or this user may not open the device (on Linux /dev/dri, "
                           "/dev/kfd: groups render and video), PoCL's where it cannot write its cache (in HOME, or "
                           "POCL_CACHE_DIR); docs/troubleshooting.md tells more",
                           text_get(&names));
    text_finish(&names);
    return status;
}

/* What a driver's maker adds to the version, "OpenCL 3.0 PoCL ...", after the two words that all have. */
static const char *own_version(const struct device_traits *traits) {
    const char *version = traits->version;
    for (int word = 0; word < 2; word++) {
        version += strcspn(version, " ");
        version += strspn(version, " ");
    }
    return version;
}

bool device_matches(const struct device_traits *traits, const char *spec) {
    char description[5 * sizeof traits->name], word[128];
    snprintf(description, sizeof description, "%s %s %s %s %s", traits->platform, traits->name,
             device_kind_name(traits->kind), own_version(traits), traits->driver);
    while (*(spec += strspn(spec, " \t"))) {
        size_t length = strcspn(spec, " \t");
        if (length >= sizeof word) return false;
        snprintf(word, sizeof word, "%.*s", (int)length, spec);
        if (!strcasestr(description, word)) return false;
        spec += length;
    }
    return true;
}

static int no_single_device(const struct candidates *found, const char *what) {
    struct text text;
    text_init(&text);
    text_printf(&text, "%s; name one by its number or by words of its line:", what);
    for (size_t i = 0; i < found->count; i++) {
        const struct device_traits *traits = &found->items[i].traits;
        text_printf(&text, "\n  %d  %s  %s, %s, %s%s%s%s", traits->index, device_kind_name(traits->kind), traits->name,
                    traits->platform, own_version(traits), *own_version(traits) ? " " : "", traits->driver,
                    traits->available ? "" : " (not available)");
    }
    int status = error_set(RETORT_EDEVICE, "%s", text_get(&text));
    text_finish(&text);
    return status;
}

static int choose(const struct candidates *found, const char *spec, const struct candidate **chosen) {
    int status = RETORT_OK;
    const struct candidate *match = NULL;
    char what[256];
    if (found->count == 0) return device_none();
    if (!*spec) {
        for (size_t i = 0; i < found->count; i++) {
            const struct candidate *candidate = &found->items[i];
            enum device_kind kind = candidate->traits.kind;
            if (!candidate->traits.available || (kind != DEVICE_CPU && kind != DEVICE_GPU)) continue;
            if (!match || (kind == DEVICE_GPU && match->traits.kind == DEVICE_CPU)) match = candidate;
        }
        if (!match) RAISE(no_single_device(found, "no CPU or GPU device is available"), "%s", retort_error_message());
    } else if (spec[strspn(spec, "0123456789")] == '\0') {
        unsigned long index = strtoul(spec, NULL, 10);
        snprintf(what, sizeof what, "there is no device number %.40s", spec);
        if (index >= found->count) TRY(no_single_device(found, what));
        match = &found->items[index];
    } else {
        size_t count = 0;
        for (size_t i = 0; i < found->count; i++) {
            if (!device_matches(&found->items[i].traits, spec)) continue;
            match = &found->items[i];
            count++;
        }
        if (count == 0)
            snprintf(what, sizeof what, "no device matches \"%.100s\"", spec);
        else
            snprintf(what, sizeof what, "%zu devices match \"%.100s\"", count, spec);
        if (count != 1) TRY(no_single_device(found, what));
    }
    if (!match->traits.available)
        RAISE(RETORT_EDEVICE, "device %d (%s) is not available, or its driver has no compiler", match->traits.index,
              match->traits.name);
    *chosen = match;
done:
    return status;
}

static void CL_CALLBACK hear_driver(const char *words, const void *data, size_t size, void *user) {
    (void)data, (void)size;
    struct device *device = user;
    if (!device) return; /* Oclgrind 21.10 loses the pointer */
    pthread_mutex_lock(&device->lock);
    snprintf(device->driver_words, sizeof device->driver_words, "%s", words);
    pthread_mutex_unlock(&device->lock);
}

int device_create_queue(struct device *device, bool profiling) {
    cl_int code;
    int status = device_check_present(device, "creating a command queue");
    if (status < 0) return status;
    cl_command_queue queue =
        clCreateCommandQueue(device->context, device->id, profiling ? CL_QUEUE_PROFILING_ENABLE : 0, &code);
    status = opencl_check(code, "creating a command queue on %s", device->traits.name);
    if (status < 0) return status;
    if (device->queue) clReleaseCommandQueue(device->queue);
    device->queue = queue;
    return RETORT_OK;
}

int device_open(const char *spec, struct device **device) {
    int status = RETORT_OK;
    struct candidates found = {0};
    struct device *opened = NULL;
    const struct candidate *chosen = NULL;
    const char *from = "";
    if (!spec || !*spec) {
        spec = getenv("RETORT_DEVICE");
        if (spec && *spec) from = "RETORT_DEVICE: ";
    }
    spec = spec ? spec + strspn(spec, " \t") : "";
    TRY(find(&found));
    status = choose(&found, spec, &chosen);
    if (status < 0) RAISE(status, "%s%s", from, retort_error_message());
    opened = calloc(1, sizeof *opened);
    if (!opened) RAISE(RETORT_ENOMEM, "out of memory opening device %d", chosen->traits.index);
    pthread_mutex_init(&opened->lock, NULL);
    opened->traits = chosen->traits;
    opened->own_units = chosen->traits.compute_units;
    opened->id = chosen->id;
    const char *synchronous = getenv("RETORT_SYNC");
    opened->synchronous = synchronous && *synchronous && strcmp(synchronous, "0") != 0;
    cl_int code;
    const cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)chosen->platform, 0};
    output_divert();
    opened->context = clCreateContext(properties, 1, &opened->id, hear_driver, opened, &code);
    output_restore();
    TRY(opencl_check(code, "creating a context on %s", opened->traits.name));
    TRY(device_create_queue(opened, false));
    *device = opened;
    opened = NULL;
done:
    device_close(opened);
    array_finish(&found);
    return status;
}

void device_close(struct device *device) {
    if (!device) return;
    profile_destroy(device->profile);
    fence_release(device);
    if (device->queue) {
        clFinish(device->queue);
        clReleaseCommandQueue(device->queue);
    }
    gemm_forget(device);
    if (device->context) clReleaseContext(device->context);
    if (device->bytes)
        log_debug("device %s closed with %llu bytes in buffers", device->traits.name,
                  (unsigned long long)device->bytes);
    pthread_mutex_destroy(&device->lock);
    free(device);
}

const struct device_traits *device_traits(const struct device *device) {
    return &device->traits;
}

void device_set_units(struct device *device, unsigned units) {
    struct device_traits *traits = &device->traits;
    unsigned lanes = traits->lanes / traits->compute_units;
    traits->compute_units = units ? units : device->own_units;
    traits->lanes = lanes * traits->compute_units;
}

int device_finish(struct device *device) {
    if (!device->queue) return RETORT_OK; /* described: nothing can be queued */
    int status = opencl_check_queue(device, clFinish(device->queue), "waiting for the queue");
    if (status == RETORT_OK) device->launched = NULL;
    return status;
}

void device_drain(struct device *device) {
    if (clFinish(device->queue) == CL_SUCCESS) device->launched = NULL;
}

int device_flush(struct device *device) {
    return device->queue ? opencl_check_queue(device, clFlush(device->queue), "flushing the queue") : RETORT_OK;
}
