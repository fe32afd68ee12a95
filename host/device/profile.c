/* Device time per kernel, from the events of its launches. */
#include "device/internal.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct launch {
    size_t row;
    cl_event begin, event; /* begin: the marker before, or NULL */
};

struct profile {
    ARRAY(struct device_profile_row) rows;
    ARRAY(struct launch) pending;
};

enum { PENDING_MAX = 4096 }; /* then the queue is drained: drivers keep a record for every live event */

static void release(const struct launch *launch) {
    if (launch->begin) clReleaseEvent(launch->begin);
    clReleaseEvent(launch->event);
}

void profile_destroy(struct profile *profile) {
    if (!profile) return;
    for (size_t i = 0; i < profile->pending.count; i++) release(&profile->pending.items[i]);
    array_finish(&profile->pending);
    array_finish(&profile->rows);
    free(profile);
}

/* Waits for the pending launches and adds up their times. */
static int drain(struct device *device) {
    int status = RETORT_OK;
    struct profile *profile = device->profile;
    TRY(device_finish(device));
    while (profile->pending.count) {
        struct launch launch = profile->pending.items[--profile->pending.count];
        struct device_profile_row *row = &profile->rows.items[launch.row];
        cl_ulong begun = 0, ended = 0;
        cl_int code = clGetEventProfilingInfo(launch.event, CL_PROFILING_COMMAND_START, sizeof begun, &begun, NULL);
        cl_ulong marked = 0; /* some drivers tell no times of markers */
        if (launch.begin
            && clGetEventProfilingInfo(launch.begin, CL_PROFILING_COMMAND_END, sizeof marked, &marked, NULL)
                   == CL_SUCCESS
            && marked)
            begun = marked;
        if (code == CL_SUCCESS)
            code = clGetEventProfilingInfo(launch.event, CL_PROFILING_COMMAND_END, sizeof ended, &ended, NULL);
        release(&launch);
        TRY(opencl_check(code, "reading the time of kernel %s", row->name));
        row->launches++;
        row->seconds += ended > begun ? 1e-9 * (double)(ended - begun) : 0;
    }
done:
    return status;
}

int profile_add(struct device *device, const char *name, double flops, double bytes, cl_event begin, cl_event event) {
    int status = RETORT_OK;
    struct profile *profile = device->profile;
    struct device_profile_row fresh = {0};
    snprintf(fresh.name, sizeof fresh.name, "%s", name);
    size_t row = 0;
    while (row < profile->rows.count && strcmp(profile->rows.items[row].name, fresh.name) != 0) row++;
    if ((row == profile->rows.count && !array_push(&profile->rows, fresh))
        || !array_push(&profile->pending, ((struct launch){row, begin, event}))) {
        release(&(struct launch){row, begin, event});
        RAISE(RETORT_ENOMEM, "out of memory profiling kernel %s", name);
    }
    profile->rows.items[row].flops += flops;
    profile->rows.items[row].bytes += bytes;
    if (profile->pending.count >= PENDING_MAX) TRY(drain(device));
done:
    return status;
}

int device_profile_begin(struct device *device) {
    int status = RETORT_OK;
    struct profile *profile = NULL;
    if (device->profile) RAISE(RETORT_EINVAL, "profiling of %s is on already", device->traits.name);
    profile = calloc(1, sizeof *profile);
    if (!profile) RAISE(RETORT_ENOMEM, "out of memory to profile %s", device->traits.name);
    TRY(device_finish(device));
    TRY(device_create_queue(device, true));
    device->profile = profile;
    profile = NULL;
done:
    profile_destroy(profile);
    return status;
}

static int slower_first(const void *left, const void *right) {
    const struct device_profile_row *a = left, *b = right;
    return (a->seconds < b->seconds) - (a->seconds > b->seconds);
}

int device_profile_end(struct device *device, struct device_profile *profile) {
    int status = RETORT_OK;
    struct profile *taken = device->profile;
    if (!taken) RAISE(RETORT_EINVAL, "profiling of %s is not on", device->traits.name);
    TRY(drain(device));
    TRY(device_create_queue(device, false));
    device->profile = NULL;
    profile->rows = taken->rows.items;
    profile->count = taken->rows.count;
    taken->rows.items = NULL;
    profile_destroy(taken);
    if (profile->count) qsort(profile->rows, profile->count, sizeof *profile->rows, slower_first);
done:
    return status;
}

void device_profile_finish(struct device_profile *profile) {
    if (!profile) return;
    free(profile->rows);
    *profile = (struct device_profile){0};
}
