/* The OpenCL devices of this machine. */
#ifndef RETORT_DEVICE_H
#define RETORT_DEVICE_H

#include "retort/status.h"

#include <stddef.h>
#include <stdint.h>

struct retort_device {
    int index; /* what `device.select` takes */
    int is_gpu;
    char platform[128], name[128], driver[128];
    unsigned compute_units;
    uint64_t global_memory, max_allocation; /* bytes */
};

/* All of them; *count 0 and RETORT_OK where there is none. *devices is the caller's, for retort_device_list_free. */
int retort_device_list(struct retort_device **devices, size_t *count);
void retort_device_list_free(struct retort_device *devices); /* NULL-safe */

#endif
