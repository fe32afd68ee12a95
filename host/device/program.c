/* Building programs: from the disk cache where it has the binary, else from source. */
#define _GNU_SOURCE /* strcasestr */
#include "device/internal.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The options every build gets. -w: clang-based drivers print "3 warnings generated." to the program's standard error
 * whatever is done with the log, and warnings on generated text help nobody. */
static const char common_options[] = "-cl-std=CL1.2 -w";

/* The compiler's log; "" where there is none. The caller frees it. */
static char *build_log(cl_program program, cl_device_id device) {
    size_t size = 0;
    if (clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, 0, NULL, &size) != CL_SUCCESS) size = 0;
    char *log = calloc(1, size + 1);
    if (log && size) clGetProgramBuildInfo(program, device, CL_PROGRAM_BUILD_LOG, size, log, NULL);
    return log;
}

/* The first lines of a log that speak of errors, or its first lines where none does. */
static void append_errors(struct text *text, const char *log) {
    enum { LINES = 4, WIDTH = 240 };
    bool only_errors = strcasestr(log, "error") != NULL;
    int shown = 0;
    while (*log && shown < LINES) {
        char line[WIDTH];
        size_t length = strcspn(log, "\n");
        snprintf(line, sizeof line, "%.*s", (int)(length < WIDTH ? length : WIDTH - 1), log);
        if (length && (!only_errors || strcasestr(line, "error"))) {
            text_printf(text, "\n  %s", line);
            shown++;
        }
        log += length;
        log += *log == '\n';
    }
}

/* Writes source, options and log to a new file in TMPDIR; `path` gets its name, or "" where it cannot be written. */
static void keep_failure(const struct device *device, const char *source, const char *options, const char *log,
                         char path[FILE_PATH_MAX]) {
    const char *folder = getenv("TMPDIR");
    path[0] = '\0';
    if (!folder || *folder != '/') folder = "/tmp";
    if (path_join(folder, "retort-build-XXXXXX.cl", path) < 0) return;
    int descriptor = mkstemps(path, 3);
    FILE *stream = descriptor < 0 ? NULL : fdopen(descriptor, "w");
    if (!stream) {
        if (descriptor >= 0) close(descriptor);
        path[0] = '\0';
        return;
    }
    fprintf(stream,
            "/* device: %s, %s %s\n * options: %s\n * the compiler's log is at the end */\n%s\n#if 0\n%s\n#endif\n",
            device->traits.name, device->traits.platform, device->traits.driver, options, source, log);
    fclose(stream);
}

static int build_failed(const struct device *device, cl_program program, const char *source, const char *options,
                        cl_int code) {
    char path[FILE_PATH_MAX];
    struct text text;
    text_init(&text);
    char *log = build_log(program, device->id);
    keep_failure(device, source, options, log ? log : "", path);
    append_errors(&text, log ? log : "");
    int status = opencl_check(code, "building a program on %s", device->traits.name);
    error_set(status, "%s%s%s%s", retort_error_message(), *path ? "; source and log are in " : "", path,
              text_get(&text));
    free(log);
    text_finish(&text);
    return status;
}

static cl_int build(cl_program program, const struct device *device, const char *options) {
    output_divert();
    cl_int code = clBuildProgram(program, 1, &device->id, options, NULL, NULL);
    output_restore();
    return code;
}

static int build_source(const struct device *device, const char *source, const char *options, cl_program *program) {
    int status = RETORT_OK;
    cl_int code;
    cl_program built = clCreateProgramWithSource(device->context, 1, &source, NULL, &code);
    TRY(opencl_check(code, "creating a program on %s", device->traits.name));
    code = build(built, device, options);
    if (code != CL_SUCCESS) TRY(build_failed(device, built, source, options, code));
    *program = built;
    built = NULL;
done:
    if (built) clReleaseProgram(built);
    return status;
}

/* The program of a cached binary; NULL where there is none or the driver does not take it. */
static cl_program build_binary(const struct device *device, const char *path, const char *options) {
    unsigned char *binary;
    size_t size;
    if (!cache_load(path, &binary, &size)) return NULL;
    cl_int code, loaded;
    const unsigned char *data = binary;
    cl_program program = clCreateProgramWithBinary(device->context, 1, &device->id, &size, &data, &loaded, &code);
    free(binary);
    if (code == CL_SUCCESS && loaded == CL_SUCCESS && build(program, device, options) == CL_SUCCESS) return program;
    log_debug("cache: the driver refuses %s, building from source", path);
    if (program) clReleaseProgram(program);
    return NULL;
}

static void store_binary(cl_program program, const char *path) {
    size_t size = 0;
    if (clGetProgramInfo(program, CL_PROGRAM_BINARY_SIZES, sizeof size, &size, NULL) != CL_SUCCESS || !size) return;
    unsigned char *binary = malloc(size);
    if (!binary) return;
    if (clGetProgramInfo(program, CL_PROGRAM_BINARIES, sizeof binary, &binary, NULL) == CL_SUCCESS)
        cache_store(path, binary, size);
    free(binary);
}

int device_program_create(struct device *device, const char *source, const char *options,
                          struct device_program **program) {
    int status = RETORT_OK;
    double begun = clock_seconds();
    char path[FILE_PATH_MAX];
    struct text all;
    struct device_program *made = NULL;
    text_init(&all);
    TRY(device_check_present(device, "building a program"));
    text_printf(&all, "%s %s", common_options, options ? options : "");
    made = calloc(1, sizeof *made);
    if (!made || all.failed) RAISE(RETORT_ENOMEM, "out of memory building a program");
    made->device = device;
    cache_path(device, source, text_get(&all), path);
    made->id = build_binary(device, path, text_get(&all));
    if (!made->id) {
        TRY(build_source(device, source, text_get(&all), &made->id));
        if (cache_wants(path, clock_seconds() - begun)) store_binary(made->id, path);
    }
    *program = made;
    made = NULL;
done:
    free(made);
    text_finish(&all);
    device->build_seconds += clock_seconds() - begun;
    return status;
}

void device_program_destroy(struct device_program *program) {
    if (!program) return;
    clReleaseProgram(program->id);
    free(program);
}

int device_finish_first(struct device *device, double begun) {
    int status = device_finish(device);
    device->build_seconds += clock_seconds() - begun;
    return status;
}

static pthread_mutex_t first_launches = PTHREAD_MUTEX_INITIALIZER;

void device_first_launches_begin(void) {
    pthread_mutex_lock(&first_launches);
}

void device_first_launches_end(void) {
    pthread_mutex_unlock(&first_launches);
}

double device_build_seconds(const struct device *device) {
    return device->build_seconds;
}
