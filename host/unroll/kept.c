#include "unroll/kept.h"

#include "base/error.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* The number of the executable's kept value i; -1: it has no such value. */
static int slot_of(const struct executable *executable, int i) {
    char name[32];
    snprintf(name, sizeof name, "kept %d", i);
    return executable_slot(executable, name);
}

static size_t value_bytes(const struct executable *executable, int slot) {
    return aligned(executable_slot_bytes(executable, slot));
}

void kept_plan(struct kept *kept, const struct executable *reading, int parts) {
    *kept = (struct kept){.parts = parts};
    for (int slot; (slot = slot_of(reading, kept->value_count)) >= 0; kept->value_count++)
        kept->part_bytes += value_bytes(reading, slot);
}

static size_t step_bytes(const struct kept *kept) {
    return kept->part_bytes * (size_t)kept->parts;
}

int kept_steps_in(const struct kept *kept, const struct device_traits *traits, uint64_t free_bytes) {
    size_t step = step_bytes(kept);
    if (!step || step > traits->max_allocation || free_bytes < kept->part_bytes) return 0;
    uint64_t steps = (free_bytes - kept->part_bytes) / step;
    return steps < INT_MAX ? (int)steps : INT_MAX;
}

size_t kept_bytes(const struct kept *kept) {
    return kept->step_count ? kept->part_bytes + step_bytes(kept) * (size_t)kept->step_count : 0;
}

int kept_allocate(struct kept *kept, struct device *device) {
    int status = RETORT_OK;
    if (!kept->step_count) goto done;
    kept->steps = calloc((size_t)kept->step_count, sizeof(struct device_buffer *));
    if (!kept->steps) RAISE(RETORT_ENOMEM, "out of memory for %d steps", kept->step_count);
    TRY(device_buffer_create(device, kept->part_bytes, "values kept for nobody", &kept->spare));
    /* One buffer a step: devices limit what they allocate in one piece. */
    for (int i = 0; i < kept->step_count; i++)
        TRY(device_buffer_create(device, step_bytes(kept), "values kept for the backward pass", &kept->steps[i]));
done:
    return status;
}

void kept_finish(struct kept *kept) {
    for (int i = 0; kept->steps && i < kept->step_count; i++) device_buffer_destroy(kept->steps[i]);
    free(kept->steps);
    device_buffer_destroy(kept->spare);
    *kept = (struct kept){0};
}

int kept_bind(const struct kept *kept, struct executable *executable, int step, int part) {
    int status = RETORT_OK;
    bool placed = step >= 0 && step < kept->step_count;
    struct device_buffer *buffer = placed ? kept->steps[step] : kept->spare;
    size_t offset = placed ? kept->part_bytes * (size_t)part : 0;
    for (int i = 0; i < kept->value_count; i++) {
        int slot = slot_of(executable, i);
        TRY(executable_bind_slot(executable, slot, buffer, offset));
        offset += value_bytes(executable, slot);
    }
done:
    return status;
}
