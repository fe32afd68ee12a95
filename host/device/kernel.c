/* Kernels: arguments and launches. A launch is one driver call: no allocation, and no event unless profiling. */
#include "device/internal.h"

#include "base/log.h"

#include <CL/cl_ext.h>
#include <stdlib.h>
#include <string.h>

int device_kernel_create(struct device_program *program, const char *name, struct device_kernel **kernel) {
    int status = RETORT_OK;
    struct device *device = program->device;
    size_t length = strlen(name);
    double begun = clock_seconds();
    struct device_kernel *made = calloc(1, sizeof *made + length + 1);
    if (!made) RAISE(RETORT_ENOMEM, "out of memory for kernel %s", name);
    memcpy(made->name, name, length + 1);
    made->device = device;
    cl_int code;
    output_divert(); /* some drivers finish compiling here */
    made->id = clCreateKernel(program->id, name, &code);
    output_restore();
    TRY(opencl_check(code, "taking kernel %s from its program on %s", name, device->traits.name));
    *kernel = made;
    made = NULL;
done:
    free(made);
    device->build_seconds += clock_seconds() - begun;
    return status;
}

void device_kernel_destroy(struct device_kernel *kernel) {
    if (!kernel) return;
    if (kernel->device->launched == kernel->name) kernel->device->launched = NULL;
    clReleaseKernel(kernel->id);
    free(kernel);
}

const char *device_kernel_name(const struct device_kernel *kernel) {
    return kernel->name;
}

size_t device_kernel_largest_group(const struct device_kernel *kernel) {
    const struct device *device = kernel->device;
    size_t largest = 0, most = device->traits.max_work_group;
    cl_int code =
        clGetKernelWorkGroupInfo(kernel->id, device->id, CL_KERNEL_WORK_GROUP_SIZE, sizeof largest, &largest, NULL);
    return code == CL_SUCCESS && largest > 0 && largest < most ? largest : most;
}

uint64_t device_kernel_spilled(const struct device_kernel *kernel) {
    const struct device *device = kernel->device;
    cl_ulong bytes[2] = {0, 0};
    /* Drivers know one or none of these. Private memory: our kernels' arrays are meant to be registers, so that what
     * lies in memory did not fit. CPUs have few registers and a cache. */
    static const cl_kernel_work_group_info asked[2] = {CL_KERNEL_SPILL_MEM_SIZE_INTEL, CL_KERNEL_PRIVATE_MEM_SIZE};
    if (device->traits.kind == DEVICE_CPU) return 0;
    for (int i = 0; i < 2; i++)
        if (clGetKernelWorkGroupInfo(kernel->id, device->id, asked[i], sizeof bytes[i], &bytes[i], NULL) != CL_SUCCESS)
            bytes[i] = 0;
    return bytes[0] > bytes[1] ? bytes[0] : bytes[1];
}

void device_kernel_set_work(struct device_kernel *kernel, double flops, double bytes) {
    kernel->flops = flops;
    kernel->bytes = bytes;
}

int device_kernel_set_buffer(struct device_kernel *kernel, unsigned i, struct device_buffer *buffer,
                             uint64_t offset_elements) {
    int status = RETORT_OK;
    cl_ulong offset = offset_elements;
    if (offset > buffer->bytes / 4)
        RAISE(RETORT_EINVAL, "argument %u of kernel %s begins at element %llu of a buffer of %zu bytes", i,
              kernel->name, (unsigned long long)offset, buffer->bytes);
    TRY(opencl_check(clSetKernelArg(kernel->id, 2 * i, sizeof buffer->memory, &buffer->memory),
                     "setting buffer %u of kernel %s", i, kernel->name));
    TRY(opencl_check(clSetKernelArg(kernel->id, 2 * i + 1, sizeof offset, &offset),
                     "setting the offset of buffer %u of kernel %s", i, kernel->name));
done:
    return status;
}

void fence_release(struct device *device) {
    if (device->fence.marker) clReleaseEvent(device->fence.marker);
    device->fence.marker = NULL;
}

/* After a launch: hands what was launched to the driver, some of which keep it to themselves until they are told. The
 * first launch after the queue was seen empty goes at once, since the device has nothing to do, then ever more
 * together, since a flush costs some drivers a system call. */
static int keep_moving(struct device *device, bool idle) {
    enum { MOST_HELD = 64 };
    struct fence *fence = &device->fence;
    if (idle) fence->held = 0, fence->batch = 1;
    if (++fence->held < fence->batch) return RETORT_OK;
    fence->held = 0;
    fence->batch = fence->batch * 4 < MOST_HELD ? fence->batch * 4 : MOST_HELD;
    return device_flush(device);
}

/* After a launch: a marker every so many launches or so much work, after which the one before it is waited for, so that
 * two such stretches are queued at most and the device never runs dry. How much work that is follows from how long the
 * device takes for a stretch; work, not a number of launches, so that small launches say nothing about large ones. */
static int bound_queue(struct device *device, double flops, double bytes) {
    enum { MOST_LAUNCHES = 256, OPERATIONS_PER_BYTE = 8 };
    static const double soon = 0.05, late = 0.2; /* seconds */
    int status = RETORT_OK;
    struct fence *fence = &device->fence;
    cl_event marker = NULL;
    if (fence->spacing == 0) fence->spacing = 2.5e8; /* milliseconds of a processor */
    fence->work += flops + OPERATIONS_PER_BYTE * bytes;
    bool full = fence->work >= fence->spacing;
    if (++fence->launches < MOST_LAUNCHES && !full) goto done;
    fence->launches = 0;
    fence->work = 0;
    TRY(opencl_check_queue(device, clEnqueueMarkerWithWaitList(device->queue, 0, NULL, &marker), "marking the queue"));
    TRY(device_flush(device));
    if (fence->marker) {
        double begun = clock_seconds();
        TRY(opencl_check_queue(device, clWaitForEvents(1, &fence->marker), "waiting for earlier launches"));
        double now = clock_seconds();
        if (full && now - fence->passed < soon) fence->spacing *= 2;
        if (now - fence->passed > late && now - begun > late / 2) fence->spacing /= 2;
        fence->passed = now;
    }
    fence_release(device);
    fence->marker = marker;
    marker = NULL;
done:
    if (marker) clReleaseEvent(marker);
    return status;
}

int queue_grew(struct device *device, const char *name, double flops, double bytes) {
    int status = RETORT_OK;
    bool idle = device->launched == NULL;
    device->launched = name;
    TRY(keep_moving(device, idle));
    TRY(bound_queue(device, flops, bytes));
done:
    return status;
}

int device_launch(struct device *device, struct device_kernel *kernel, const size_t global[3], const size_t local[3]) {
    int status = RETORT_OK;
    cl_event event = NULL;
    cl_int code = clEnqueueNDRangeKernel(device->queue, kernel->id, 3, NULL, global, local[0] ? local : NULL, 0, NULL,
                                         device->profile ? &event : NULL);
    if (code == CL_SUCCESS && device->synchronous) code = clFinish(device->queue);
    if (code != CL_SUCCESS)
        TRY(opencl_check_queue(device, code, "launching kernel %s, %zu x %zu x %zu in groups of %zu x %zu x %zu",
                               kernel->name, global[0], global[1], global[2], local[0], local[1], local[2]));
    if (event) TRY(profile_add(device, kernel->name, kernel->flops, kernel->bytes, NULL, event));
    TRY(queue_grew(device, kernel->name, kernel->flops, kernel->bytes));
done:
    return status;
}
