/* Device memory of an unroll, a row for each thing: what it is, how large, in how many pieces. Rows are sized first, as
 * often as the plan changes, and become buffers once it stands; what is planned is what is allocated. */
#ifndef RETORT_UNROLL_MEMORY_H
#define RETORT_UNROLL_MEMORY_H

#include "device/device.h"

/* A place on the device. Offset in bytes. */
struct place {
    struct device_buffer *buffer;
    size_t offset;
};

/* What shares a buffer begins at multiples of 128 bytes: a line of every cache, a vector of every device. */
static inline size_t aligned(size_t bytes) {
    return (bytes + 127) / 128 * 128;
}

/* Items of one size each, as many in a buffer as the device allocates in one piece. Two items are often a pair: a
 * quantity that is read from one and written anew to the other, since a launch may not write what it reads. */
struct memory {
    const char *what;  /* for messages: "gradients of the window" */
    size_t item_bytes; /* 0: not wanted */
    int64_t items;
    int64_t per_buffer; /* items in each buffer but the last */
    int now;            /* of a pair: the item that holds the value */
    struct device_buffer **buffers;
};

/* Sizes a row that has no buffers yet. */
void memory_size(struct memory *row, const char *what, size_t item_bytes, int64_t items, uint64_t max_allocation);
uint64_t memory_bytes(const struct memory *row);         /* of all items */
uint64_t memory_largest_bytes(const struct memory *row); /* of its largest buffer */
int memory_create(struct memory *row, struct device *device);
void memory_finish(struct memory *row); /* zeroes */
struct place memory_item(const struct memory *row, int64_t item);
struct place place_after(struct place place, size_t bytes);

/* A pair's two items, and the first of them made the current one, full of zeros. */
struct place memory_now(const struct memory *pair);
struct place memory_other(const struct memory *pair);
int memory_zero(struct memory *pair, struct device *device);

#endif
