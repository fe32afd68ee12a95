/* Kernels: arguments and launches. A launch is one driver call: no allocation, and no event unless profiling. */
#include "device/internal.h"

#include "base/log.h"

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
    made->id = clCreateKernel(program->id, name, &code);
    TRY(opencl_check(code, "taking kernel %s from its program on %s", name, device->traits.name));
    *kernel = made;
    made = NULL;
done:
    free(made);
    device->build_seconds += clock_seconds() - begun; /* some drivers finish compiling here */
    return status;
}

void device_kernel_destroy(struct device_kernel *kernel) {
    if (!kernel) return;
    if (kernel->device->launched == kernel) kernel->device->launched = NULL;
    clReleaseKernel(kernel->id);
    free(kernel);
}

const char *device_kernel_name(const struct device_kernel *kernel) {
    return kernel->name;
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

int device_launch(struct device *device, struct device_kernel *kernel, const size_t global[3], const size_t local[3]) {
    int status = RETORT_OK;
    cl_event event = NULL;
    cl_int code = clEnqueueNDRangeKernel(device->queue, kernel->id, 3, NULL, global, local[0] ? local : NULL, 0, NULL,
                                         device->profile ? &event : NULL);
    if (code == CL_SUCCESS && device->synchronous) code = clFinish(device->queue);
    if (code != CL_SUCCESS)
        TRY(opencl_check_queue(device, code, "launching kernel %s, %zu x %zu x %zu in groups of %zu x %zu x %zu",
                               kernel->name, global[0], global[1], global[2], local[0], local[1], local[2]));
    device->launched = kernel;
    if (event) TRY(profile_add(device, kernel, event));
done:
    return status;
}
