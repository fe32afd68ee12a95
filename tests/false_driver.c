/* Preloaded: OpenCL as a worse driver would have it. Every device says what these variables hold, where they are set:
 *
 *     RETORT_TEST_MEMORY      bytes of memory
 *     RETORT_TEST_ALLOCATION  bytes of it in one piece
 *     RETORT_TEST_GROUP       items of a work-group at most
 *     RETORT_TEST_KIND        "gpu"
 *     RETORT_TEST_PRINT       words that it prints on standard output when it is listed, opened and builds
 *     RETORT_TEST_FAIL        "launch 200 -5": the 200th launch and all that follows on the queue fails with that code;
 *                             also "write", "read", "finish" and "buffer"
 *     RETORT_TEST_COUNT       a file that gets the number of launches in the end */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <CL/cl.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REAL(name)                 \
    static __typeof__(name) *real; \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

static long launches;

static void print_words(void) {
    const char *words = getenv("RETORT_TEST_PRINT");
    if (words) printf("%s\n", words);
}

/* The code to fail with, or CL_SUCCESS; `call` is the kind that is being made. */
static cl_int fails(const char *call) {
    static long made;
    static cl_int failed; /* a device that is lost stays so, until the variable changes */
    static char seen[32];
    const char *text = getenv("RETORT_TEST_FAIL");
    char wanted[16];
    long at;
    int code;
    launches += strcmp(call, "launch") == 0;
    if (strcmp(seen, text ? text : "") != 0) made = 0, failed = CL_SUCCESS;
    snprintf(seen, sizeof seen, "%s", text ? text : "");
    if (failed || !text || sscanf(text, "%15s %ld %d", wanted, &at, &code) != 3) return failed;
    if (strcmp(call, wanted) == 0 && ++made == at) failed = code;
    return failed;
}

__attribute__((destructor)) static void write_count(void) {
    const char *path = getenv("RETORT_TEST_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld\n", launches);
    fclose(file);
}

CL_API_ENTRY cl_int CL_API_CALL clGetDeviceInfo(cl_device_id device, cl_device_info what, size_t size, void *value,
                                                size_t *written) {
    REAL(clGetDeviceInfo);
    cl_int code = real(device, what, size, value, written);
    const char *memory = getenv("RETORT_TEST_MEMORY"), *allocation = getenv("RETORT_TEST_ALLOCATION");
    const char *group = getenv("RETORT_TEST_GROUP"), *kind = getenv("RETORT_TEST_KIND");
    if (code != CL_SUCCESS || !value) return code;
    if (what == CL_DEVICE_GLOBAL_MEM_SIZE && memory) *(cl_ulong *)value = strtoull(memory, NULL, 10);
    if (what == CL_DEVICE_MAX_MEM_ALLOC_SIZE && allocation) *(cl_ulong *)value = strtoull(allocation, NULL, 10);
    if (what == CL_DEVICE_MAX_WORK_GROUP_SIZE && group) *(size_t *)value = strtoul(group, NULL, 10);
    if (what == CL_DEVICE_TYPE && kind) *(cl_device_type *)value = CL_DEVICE_TYPE_GPU;
    return code;
}

CL_API_ENTRY cl_int CL_API_CALL clGetPlatformIDs(cl_uint count, cl_platform_id *platforms, cl_uint *found) {
    REAL(clGetPlatformIDs);
    print_words();
    return real(count, platforms, found);
}

CL_API_ENTRY cl_context CL_API_CALL clCreateContext(const cl_context_properties *properties, cl_uint count,
                                                    const cl_device_id *devices,
                                                    void(CL_CALLBACK *hear)(const char *, const void *, size_t, void *),
                                                    void *user, cl_int *code) {
    REAL(clCreateContext);
    print_words();
    return real(properties, count, devices, hear, user, code);
}

CL_API_ENTRY cl_int CL_API_CALL clBuildProgram(cl_program program, cl_uint count, const cl_device_id *devices,
                                               const char *options, void(CL_CALLBACK *hear)(cl_program, void *),
                                               void *user) {
    REAL(clBuildProgram);
    print_words();
    return real(program, count, devices, options, hear, user);
}

CL_API_ENTRY cl_mem CL_API_CALL clCreateBuffer(cl_context context, cl_mem_flags flags, size_t size, void *host,
                                               cl_int *code) {
    REAL(clCreateBuffer);
    *code = fails("buffer");
    return *code == CL_SUCCESS ? real(context, flags, size, host, code) : NULL;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dimensions,
                                                       const size_t *offset, const size_t *global, const size_t *local,
                                                       cl_uint count, const cl_event *events, cl_event *event) {
    REAL(clEnqueueNDRangeKernel);
    cl_int code = fails("launch");
    return code == CL_SUCCESS ? real(queue, kernel, dimensions, offset, global, local, count, events, event) : code;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueWriteBuffer(cl_command_queue queue, cl_mem memory, cl_bool wait, size_t offset,
                                                     size_t size, const void *data, cl_uint count,
                                                     const cl_event *events, cl_event *event) {
    REAL(clEnqueueWriteBuffer);
    cl_int code = fails("write");
    return code == CL_SUCCESS ? real(queue, memory, wait, offset, size, data, count, events, event) : code;
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueReadBuffer(cl_command_queue queue, cl_mem memory, cl_bool wait, size_t offset,
                                                    size_t size, void *data, cl_uint count, const cl_event *events,
                                                    cl_event *event) {
    REAL(clEnqueueReadBuffer);
    cl_int code = fails("read");
    return code == CL_SUCCESS ? real(queue, memory, wait, offset, size, data, count, events, event) : code;
}

/* For tests that look it up: flushes so far. */
static long flushes;
long false_driver_flushes(void);
long false_driver_flushes(void) {
    return flushes;
}

CL_API_ENTRY cl_int CL_API_CALL clFlush(cl_command_queue queue) {
    REAL(clFlush);
    flushes++;
    return real(queue);
}

CL_API_ENTRY cl_int CL_API_CALL clFinish(cl_command_queue queue) {
    REAL(clFinish);
    cl_int code = fails("finish");
    return code == CL_SUCCESS ? real(queue) : code;
}
