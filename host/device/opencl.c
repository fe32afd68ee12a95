/* OpenCL's error codes by name, and as status and message of this library. */
#include "device/internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *opencl_name(cl_int code) {
#define NAME(code) \
    case code:     \
        return #code
    switch (code) {
        NAME(CL_SUCCESS);
        NAME(CL_DEVICE_NOT_FOUND);
        NAME(CL_DEVICE_NOT_AVAILABLE);
        NAME(CL_COMPILER_NOT_AVAILABLE);
        NAME(CL_MEM_OBJECT_ALLOCATION_FAILURE);
        NAME(CL_OUT_OF_RESOURCES);
        NAME(CL_OUT_OF_HOST_MEMORY);
        NAME(CL_PROFILING_INFO_NOT_AVAILABLE);
        NAME(CL_MEM_COPY_OVERLAP);
        NAME(CL_IMAGE_FORMAT_MISMATCH);
        NAME(CL_IMAGE_FORMAT_NOT_SUPPORTED);
        NAME(CL_BUILD_PROGRAM_FAILURE);
        NAME(CL_MAP_FAILURE);
        NAME(CL_MISALIGNED_SUB_BUFFER_OFFSET);
        NAME(CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST);
        NAME(CL_COMPILE_PROGRAM_FAILURE);
        NAME(CL_LINKER_NOT_AVAILABLE);
        NAME(CL_LINK_PROGRAM_FAILURE);
        NAME(CL_DEVICE_PARTITION_FAILED);
        NAME(CL_KERNEL_ARG_INFO_NOT_AVAILABLE);
        NAME(CL_INVALID_VALUE);
        NAME(CL_INVALID_DEVICE_TYPE);
        NAME(CL_INVALID_PLATFORM);
        NAME(CL_INVALID_DEVICE);
        NAME(CL_INVALID_CONTEXT);
        NAME(CL_INVALID_QUEUE_PROPERTIES);
        NAME(CL_INVALID_COMMAND_QUEUE);
        NAME(CL_INVALID_HOST_PTR);
        NAME(CL_INVALID_MEM_OBJECT);
        NAME(CL_INVALID_IMAGE_FORMAT_DESCRIPTOR);
        NAME(CL_INVALID_IMAGE_SIZE);
        NAME(CL_INVALID_SAMPLER);
        NAME(CL_INVALID_BINARY);
        NAME(CL_INVALID_BUILD_OPTIONS);
        NAME(CL_INVALID_PROGRAM);
        NAME(CL_INVALID_PROGRAM_EXECUTABLE);
        NAME(CL_INVALID_KERNEL_NAME);
        NAME(CL_INVALID_KERNEL_DEFINITION);
        NAME(CL_INVALID_KERNEL);
        NAME(CL_INVALID_ARG_INDEX);
        NAME(CL_INVALID_ARG_VALUE);
        NAME(CL_INVALID_ARG_SIZE);
        NAME(CL_INVALID_KERNEL_ARGS);
        NAME(CL_INVALID_WORK_DIMENSION);
        NAME(CL_INVALID_WORK_GROUP_SIZE);
        NAME(CL_INVALID_WORK_ITEM_SIZE);
        NAME(CL_INVALID_GLOBAL_OFFSET);
        NAME(CL_INVALID_EVENT_WAIT_LIST);
        NAME(CL_INVALID_EVENT);
        NAME(CL_INVALID_OPERATION);
        NAME(CL_INVALID_GL_OBJECT);
        NAME(CL_INVALID_BUFFER_SIZE);
        NAME(CL_INVALID_MIP_LEVEL);
        NAME(CL_INVALID_GLOBAL_WORK_SIZE);
        NAME(CL_INVALID_PROPERTY);
        NAME(CL_INVALID_IMAGE_DESCRIPTOR);
        NAME(CL_INVALID_COMPILER_OPTIONS);
        NAME(CL_INVALID_LINKER_OPTIONS);
        NAME(CL_INVALID_DEVICE_PARTITION_COUNT);
    case -1001:
        return "CL_PLATFORM_NOT_FOUND_KHR";
    default:
        return "unknown OpenCL error";
    }
#undef NAME
}

static int status_of(cl_int code) {
    switch (code) {
    case CL_SUCCESS:
        return RETORT_OK;
    case CL_OUT_OF_HOST_MEMORY:
        return RETORT_ENOMEM;
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
    case CL_INVALID_BUFFER_SIZE:
        return RETORT_ELIMIT;
    default:
        return RETORT_EDEVICE;
    }
}

/* What a user can do about a failure that is not a mistake of the program. */
static const char *advice(cl_int code) {
    switch (code) {
    case CL_DEVICE_NOT_AVAILABLE:
        return "; the driver has lost the device: `retort devices` shows whether it is back, the system's log may say "
               "why";
    case CL_MEM_OBJECT_ALLOCATION_FAILURE:
        return "; the device's memory is full: end what else uses it, or set `memory` in the descriptor to what is "
               "free";
    case CL_OUT_OF_RESOURCES:
        return "; the driver says so of memory that ran out and of kernels that it stopped: end what else uses the "
               "device";
    case CL_OUT_OF_HOST_MEMORY:
        return "; this computer's memory is full, or its limit for the program reached";
    default:
        return "";
    }
}

int opencl_check(cl_int code, const char *format, ...) {
    if (code == CL_SUCCESS) return RETORT_OK;
    char words[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    return error_set(status_of(code), "%s: %s (%d)%s", words, opencl_name(code), code, advice(code));
}

int opencl_check_queue(struct device *device, cl_int code, const char *format, ...) {
    if (code == CL_SUCCESS) return RETORT_OK;
    char words[1024], said[sizeof device->driver_words];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    pthread_mutex_lock(&device->lock);
    memcpy(said, device->driver_words, sizeof said);
    device->driver_words[0] = '\0';
    pthread_mutex_unlock(&device->lock);
    error_set(status_of(code), "%s on %s: %s (%d)", words, device->traits.name, opencl_name(code), code);
    if (said[0]) error_set(0, "%s; the driver says: %s", retort_error_message(), said);
    /* Drivers refuse a call's own arguments with CL_INVALID_..., but a queue that a kernel broke is called invalid too.
     */
    bool late = code > CL_INVALID_VALUE || code == CL_INVALID_COMMAND_QUEUE;
    if (late && device->launched && !device->synchronous)
        error_set(0,
                  "%s; the last kernel launched was %s, earlier ones may be the cause (with RETORT_SYNC=1 in the "
                  "environment the failing one is named)",
                  retort_error_message(), device->launched);
    if (*advice(code)) error_set(0, "%s%s", retort_error_message(), advice(code));
    return status_of(code);
}
