/* Device time per kernel, from the events of its launches. */
#include "device/internal.h"

#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct row {
    char name[96];
    size_t launches;
    double seconds;
};

struct launch {
    size_t row;
    cl_event event;
};

struct profile {
    ARRAY(struct row) rows;
    ARRAY(struct launch) pending;
};

enum { PENDING_MAX = 4096 }; /* then the queue is drained: drivers keep a record for every live event */

void profile_destroy(struct profile *profile) {
    if (!profile) return;
    for (size_t i = 0; i < profile->pending.count; i++) clReleaseEvent(profile->pending.items[i].event);
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
        struct row *row = &profile->rows.items[launch.row];
        cl_ulong begun = 0, ended = 0;
        cl_int code = clGetEventProfilingInfo(launch.event, CL_PROFILING_COMMAND_START, sizeof begun, &begun, NULL);
        if (code == CL_SUCCESS)
            code = clGetEventProfilingInfo(launch.event, CL_PROFILING_COMMAND_END, sizeof ended, &ended, NULL);
        clReleaseEvent(launch.event);
        TRY(opencl_check(code, "reading the time of kernel %s", row->name));
        row->launches++;
        row->seconds += ended > begun ? 1e-9 * (double)(ended - begun) : 0;
    }
done:
    return status;
}

int profile_add(struct device *device, const struct device_kernel *kernel, cl_event event) {
    int status = RETORT_OK;
    struct profile *profile = device->profile;
    struct row fresh = {0};
    snprintf(fresh.name, sizeof fresh.name, "%s", kernel->name);
    size_t row = 0;
    while (row < profile->rows.count && strcmp(profile->rows.items[row].name, fresh.name) != 0) row++;
    if ((row == profile->rows.count && !array_push(&profile->rows, fresh))
        || !array_push(&profile->pending, ((struct launch){row, event}))) {
        clReleaseEvent(event);
        RAISE(RETORT_ENOMEM, "out of memory profiling kernel %s", kernel->name);
    }
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
    const struct row *a = left, *b = right;
    return (a->seconds < b->seconds) - (a->seconds > b->seconds);
}

int device_profile_report(struct device *device, void *stream_FILE) {
    int status = RETORT_OK;
    FILE *stream = stream_FILE;
    struct profile *profile = device->profile;
    if (!profile) RAISE(RETORT_EINVAL, "profiling of %s is not on", device->traits.name);
    TRY(drain(device));
    TRY(device_create_queue(device, false));
    device->profile = NULL;
    double total = 0;
    size_t launches = 0;
    for (size_t i = 0; i < profile->rows.count; i++) {
        total += profile->rows.items[i].seconds;
        launches += profile->rows.items[i].launches;
    }
    if (profile->rows.count) qsort(profile->rows.items, profile->rows.count, sizeof(struct row), slower_first);
    fprintf(stream, "%10s %9s %10s %6s  %s\n", "seconds", "launches", "us each", "share", "kernel");
    for (size_t i = 0; i < profile->rows.count; i++) {
        const struct row *row = &profile->rows.items[i];
        fprintf(stream, "%10.4f %9zu %10.1f %5.1f%%  %s\n", row->seconds, row->launches,
                1e6 * row->seconds / (double)row->launches, total > 0 ? 100 * row->seconds / total : 0.0, row->name);
    }
    fprintf(stream, "%10.4f %9zu %10s %6s  total\n", total, launches, "", "");
    profile_destroy(profile);
done:
    return status;
}
