/** @file
 * The OpenCL devices of this machine. */
#ifndef RETORT_DEVICE_H
#define RETORT_DEVICE_H

#include "retort/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A device, as its driver describes it. */
struct retort_device {
    int index;               /**< what the descriptor's `device.select` takes */
    int is_gpu;              /**< 1 for a GPU, 0 for a CPU or another kind */
    char platform[128];      /**< name of the OpenCL platform */
    char name[128];          /**< name of the device */
    char driver[128];        /**< version of the driver */
    unsigned compute_units;  /**< processors: cores of a CPU */
    uint64_t global_memory;  /**< bytes in all */
    uint64_t max_allocation; /**< bytes of the largest single buffer */
    uint64_t reserved[8];    /**< zeros: room for later versions */
};

/** Lists all of them.
 * @param[out] devices array of `*count` devices, the caller's, for retort_device_list_free()
 * @param[out] count 0, and #RETORT_OK, where there is none */
int retort_device_list(struct retort_device **devices, size_t *count);

/** Frees a list; NULL is fine. */
void retort_device_list_free(struct retort_device *devices);

#ifdef __cplusplus
}
#endif

#endif
