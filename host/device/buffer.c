/* Buffers under the memory ceiling, and transfers. A buffer is never touched at creation: drivers that allocate on
 * first use keep doing so. */
#include "device/internal.h"

#include <inttypes.h>
#include <stdlib.h>

#define MIB (1024.0 * 1024.0)

void device_set_ceiling(struct device *device, uint64_t bytes) {
    device->ceiling = bytes;
}

uint64_t device_ceiling(const struct device *device) {
    return device->ceiling;
}

uint64_t device_bytes(const struct device *device) {
    return device->bytes;
}

uint64_t device_peak_bytes(const struct device *device) {
    return device->peak;
}

void device_reset_peak(struct device *device) {
    device->peak = device->bytes;
}

static int check_room(const struct device *device, size_t bytes, const char *what) {
    int status = RETORT_OK;
    const struct device_traits *traits = &device->traits;
    uint64_t ceiling = device->ceiling;
    if (ceiling && (device->bytes > ceiling || bytes > ceiling - device->bytes))
        RAISE(RETORT_ELIMIT,
              "%s needs %.1f MiB, but of the memory ceiling of %.1f MiB %.1f are in use; raise `memory` or make the "
              "run smaller",
              what, bytes / MIB, ceiling / MIB, device->bytes / MIB);
    if (bytes > traits->max_allocation)
        RAISE(RETORT_ELIMIT, "%s needs %.1f MiB in one piece, but %s allows %.1f at most; make the run smaller", what,
              bytes / MIB, traits->name, traits->max_allocation / MIB);
    if (device->bytes > traits->global_memory || bytes > traits->global_memory - device->bytes)
        RAISE(RETORT_ELIMIT, "%s needs %.1f MiB, but %s has %.1f MiB, of which %.1f are in use; make the run smaller",
              what, bytes / MIB, traits->name, traits->global_memory / MIB, device->bytes / MIB);
done:
    return status;
}

int device_buffer_create(struct device *device, size_t bytes, const char *what, struct device_buffer **buffer) {
    int status = RETORT_OK;
    struct device_buffer *made = NULL;
    if (bytes == 0) bytes = 4; /* OpenCL has no empty buffers */
    TRY(check_room(device, bytes, what));
    TRY(device_check_present(device, what));
    made = calloc(1, sizeof *made);
    if (!made) RAISE(RETORT_ENOMEM, "out of memory for the %s", what);
    cl_int code;
    made->device = device;
    made->bytes = bytes;
    made->memory = clCreateBuffer(device->context, CL_MEM_READ_WRITE, bytes, NULL, &code);
    TRY(opencl_check(code, "allocating %.1f MiB for the %s on %s, where %.1f MiB are in use", bytes / MIB, what,
                     device->traits.name, device->bytes / MIB));
    device->bytes += bytes;
    if (device->bytes > device->peak) device->peak = device->bytes;
    *buffer = made;
    made = NULL;
done:
    free(made);
    return status;
}

void device_buffer_destroy(struct device_buffer *buffer) {
    if (!buffer) return;
    clReleaseMemObject(buffer->memory);
    buffer->device->bytes -= buffer->bytes;
    free(buffer);
}

size_t device_buffer_size(const struct device_buffer *buffer) {
    return buffer->bytes;
}

static int check_range(const struct device_buffer *buffer, size_t offset, size_t bytes, const char *what) {
    if (offset <= buffer->bytes && bytes <= buffer->bytes - offset) return RETORT_OK;
    return error_set(RETORT_EINVAL, "%s of %zu bytes at %zu goes past the end of a buffer of %zu", what, bytes, offset,
                     buffer->bytes);
}

int device_write(struct device *device, struct device_buffer *buffer, size_t offset, size_t bytes, const void *data) {
    int status = RETORT_OK;
    TRY(check_range(buffer, offset, bytes, "a write"));
    if (bytes == 0) goto done;
    TRY(opencl_check_queue(
        device, clEnqueueWriteBuffer(device->queue, buffer->memory, CL_TRUE, offset, bytes, data, 0, NULL, NULL),
        "writing %zu bytes", bytes));
done:
    return status;
}

int device_read(struct device *device, struct device_buffer *buffer, size_t offset, size_t bytes, void *data) {
    int status = RETORT_OK;
    TRY(check_range(buffer, offset, bytes, "a read"));
    if (bytes == 0) return device_finish(device); /* the promise to report earlier failures holds */
    TRY(opencl_check_queue(
        device, clEnqueueReadBuffer(device->queue, buffer->memory, CL_TRUE, offset, bytes, data, 0, NULL, NULL),
        "reading %zu bytes", bytes));
    device->launched = NULL; /* the queue is in order: everything before the read is done */
done:
    return status;
}

int device_copy(struct device *device, struct device_buffer *to, size_t to_offset, struct device_buffer *from,
                size_t from_offset, size_t bytes) {
    int status = RETORT_OK;
    TRY(check_range(to, to_offset, bytes, "a copy's target"));
    TRY(check_range(from, from_offset, bytes, "a copy's source"));
    if (bytes == 0) goto done;
    if (to == from && to_offset < from_offset + bytes && from_offset < to_offset + bytes)
        RAISE(RETORT_EINVAL, "a copy of %zu bytes from %zu to %zu of one buffer overlaps itself", bytes, from_offset,
              to_offset);
    TRY(opencl_check_queue(
        device,
        clEnqueueCopyBuffer(device->queue, from->memory, to->memory, from_offset, to_offset, bytes, 0, NULL, NULL),
        "copying %zu bytes", bytes));
done:
    return status;
}

int device_fill_zero(struct device *device, struct device_buffer *buffer, size_t offset, size_t bytes) {
    int status = RETORT_OK;
    static const cl_uint zero;
    TRY(check_range(buffer, offset, bytes, "a fill"));
    if (bytes == 0) goto done;
    /* Offset and size must be multiples of the pattern's size. */
    size_t pattern = (offset | bytes) % sizeof zero ? 1 : sizeof zero;
    TRY(opencl_check_queue(
        device, clEnqueueFillBuffer(device->queue, buffer->memory, &zero, pattern, offset, bytes, 0, NULL, NULL),
        "zeroing %zu bytes", bytes));
done:
    return status;
}
