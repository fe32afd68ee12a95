/* Preloaded: OpenCL as a worse driver would have it. Every device says what these variables hold, where they are set:
 *
 *     RETORT_TEST_MEMORY      bytes of memory
 *     RETORT_TEST_ALLOCATION  bytes of it in one piece
 *     RETORT_TEST_GROUP       items of a work-group at most
 *     RETORT_TEST_KIND        "gpu"
 *     RETORT_TEST_PRINT       words that it prints on standard output when it is listed, opened and builds
 *     RETORT_TEST_FAIL        "launch 200 -5": the 200th launch and all that follows on the queue fails with that code;
 *                             also "write", "read", "finish" and "buffer"
 *     RETORT_TEST_BAD         "corrupt conv_cpu": kernels whose name holds the word leave a wrong number in their first
 *                             argument; "outside": in front of it; "vary": another one each time; "refuse": cannot be
 *                             taken from their program; "crash" and "hang": end or stop the process when launched
 *     RETORT_TEST_SLEEP       microseconds: launches and reads take up to so much longer, by chance
 *     RETORT_TEST_COUNT       a file that gets the numbers of launches and of reads in the end
 *     RETORT_TEST_AFTER       a file: calls count, there and for RETORT_TEST_FAIL, from when it exists, so that what is
 *                             tried for a time before a run begins makes no difference */
#define _GNU_SOURCE /* RTLD_NEXT */
#include <CL/cl.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define REAL(name)                 \
    static __typeof__(name) *real; \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name)

static long launches, reads;

static void print_words(void) {
    const char *words = getenv("RETORT_TEST_PRINT");
    if (words) printf("%s\n", words);
}

/* One of eight calls, so that a thread gets far ahead of another now and then. */
static void dawdle(void) {
    static _Thread_local unsigned state;
    const char *most = getenv("RETORT_TEST_SLEEP");
    if (!most) return;
    if (!state) state = (unsigned)time(NULL) ^ (unsigned)gettid() * 2654435761u;
    if (rand_r(&state) % 8 == 0) usleep((unsigned)rand_r(&state) % (unsigned)atoi(most));
}

static int counts(void) {
    static int does;
    const char *file = getenv("RETORT_TEST_AFTER");
    does |= !file || access(file, F_OK) == 0;
    return does;
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
    dawdle();
    if (!counts()) return CL_SUCCESS;
    launches += strcmp(call, "launch") == 0;
    reads += strcmp(call, "read") == 0;
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
    fprintf(file, "%ld %ld\n", launches, reads);
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

/* Whether RETORT_TEST_BAD asks for this of a kernel with that name. */
static int is_bad(const char *how, const char *name) {
    const char *text = getenv("RETORT_TEST_BAD");
    char wanted[16], word[64];
    return text && sscanf(text, "%15s %63s", wanted, word) == 2 && strcmp(wanted, how) == 0 && strstr(name, word);
}

/* The first argument of kernels, and the offset behind it. */
static struct {
    cl_kernel kernel;
    cl_mem memory;
    cl_ulong offset;
} firsts[4096];
enum { FIRSTS = sizeof firsts / sizeof *firsts };

static int first_of(cl_kernel kernel) {
    int i = 0;
    while (i < FIRSTS - 1 && firsts[i].kernel && firsts[i].kernel != kernel) i++;
    firsts[i].kernel = kernel;
    return i;
}

CL_API_ENTRY cl_int CL_API_CALL clSetKernelArg(cl_kernel kernel, cl_uint number, size_t size, const void *value) {
    REAL(clSetKernelArg);
    if (getenv("RETORT_TEST_BAD") && number == 0) memcpy(&firsts[first_of(kernel)].memory, value, sizeof(cl_mem));
    if (getenv("RETORT_TEST_BAD") && number == 1) memcpy(&firsts[first_of(kernel)].offset, value, sizeof(cl_ulong));
    return real(kernel, number, size, value);
}

CL_API_ENTRY cl_kernel CL_API_CALL clCreateKernel(cl_program program, const char *name, cl_int *code) {
    REAL(clCreateKernel);
    *code = CL_INVALID_KERNEL_DEFINITION;
    return is_bad("refuse", name) ? NULL : real(program, name, code);
}

/* What a bad kernel does before and after it has run. */
static void misbehave(cl_command_queue queue, cl_kernel kernel, int before) {
    cl_int (*write_memory)(cl_command_queue, cl_mem, cl_bool, size_t, size_t, const void *, cl_uint, const cl_event *,
                           cl_event *);
    static float number = 1000;
    char name[256] = "";
    if (!getenv("RETORT_TEST_BAD")) return;
    clGetKernelInfo(kernel, CL_KERNEL_FUNCTION_NAME, sizeof name - 1, name, NULL);
    if (before && is_bad("crash", name)) abort();
    while (before && is_bad("hang", name)) pause();
    int outside = is_bad("outside", name), vary = is_bad("vary", name), first = first_of(kernel);
    if (before || (!outside && !vary && !is_bad("corrupt", name))) return;
    if (vary) number++;
    *(void **)&write_memory = dlsym(RTLD_NEXT, "clEnqueueWriteBuffer");
    write_memory(queue, firsts[first].memory, CL_TRUE, (firsts[first].offset - (outside ? 1 : 0)) * sizeof number,
                 sizeof number, &number, 0, NULL, NULL);
}

CL_API_ENTRY cl_int CL_API_CALL clEnqueueNDRangeKernel(cl_command_queue queue, cl_kernel kernel, cl_uint dimensions,
                                                       const size_t *offset, const size_t *global, const size_t *local,
                                                       cl_uint count, const cl_event *events, cl_event *event) {
    REAL(clEnqueueNDRangeKernel);
    cl_int code = fails("launch");
    if (code != CL_SUCCESS) return code;
    misbehave(queue, kernel, 1);
    code = real(queue, kernel, dimensions, offset, global, local, count, events, event);
    if (code == CL_SUCCESS) misbehave(queue, kernel, 0);
    return code;
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
