#include "unroll/memory.h"

#include "base/error.h"

#include <stdlib.h>

static size_t stride(const struct memory *row) {
    return row->items > 1 ? aligned(row->item_bytes) : row->item_bytes;
}

static int64_t buffer_count(const struct memory *row) {
    return row->item_bytes ? (row->items + row->per_buffer - 1) / row->per_buffer : 0;
}

static size_t buffer_bytes(const struct memory *row, int64_t buffer) {
    int64_t rest = row->items - buffer * row->per_buffer;
    return stride(row) * (size_t)(rest < row->per_buffer ? rest : row->per_buffer);
}

void memory_size(struct memory *row, const char *what, size_t item_bytes, int64_t items, uint64_t max_allocation) {
    *row = (struct memory){.what = what, .item_bytes = items > 0 ? item_bytes : 0, .items = items, .per_buffer = 1};
    if (!row->item_bytes) return;
    uint64_t fitting = max_allocation / stride(row);
    if (fitting > 1) row->per_buffer = fitting < (uint64_t)items ? (int64_t)fitting : items;
}

uint64_t memory_bytes(const struct memory *row) {
    return row->item_bytes ? (uint64_t)stride(row) * (uint64_t)row->items : 0;
}

uint64_t memory_largest_bytes(const struct memory *row) {
    return row->item_bytes ? buffer_bytes(row, 0) : 0;
}

int memory_create(struct memory *row, struct device *device) {
    int status = RETORT_OK;
    int64_t count = buffer_count(row);
    if (!count) goto done;
    row->buffers = calloc((size_t)count, sizeof(struct device_buffer *));
    if (!row->buffers) RAISE(RETORT_ENOMEM, "out of memory for the %s", row->what);
    for (int64_t i = 0; i < count; i++)
        TRY(device_buffer_create(device, buffer_bytes(row, i), row->what, &row->buffers[i]));
done:
    return status;
}

void memory_finish(struct memory *row) {
    for (int64_t i = 0; row->buffers && i < buffer_count(row); i++) device_buffer_destroy(row->buffers[i]);
    free(row->buffers);
    *row = (struct memory){0};
}

struct place memory_item(const struct memory *row, int64_t item) {
    if (!row->buffers) return (struct place){0};
    return (struct place){row->buffers[item / row->per_buffer], stride(row) * (size_t)(item % row->per_buffer)};
}

struct place place_after(struct place place, size_t bytes) {
    return (struct place){place.buffer, place.offset + bytes};
}

struct place memory_now(const struct memory *pair) {
    return memory_item(pair, pair->now);
}

struct place memory_other(const struct memory *pair) {
    return memory_item(pair, !pair->now);
}

int memory_zero(struct memory *pair, struct device *device) {
    pair->now = 0;
    struct place place = memory_now(pair);
    return device_fill_zero(device, place.buffer, place.offset, pair->item_bytes);
}
