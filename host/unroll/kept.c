#include "unroll/kept.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>

int kept_find(const struct executable *executable, struct kept_slots *slots) {
    int status = RETORT_OK;
    struct {
        int *items;
        size_t count, capacity;
    } found = {0};
    for (;;) {
        char name[32];
        snprintf(name, sizeof name, "kept %zu", found.count);
        int slot = executable_slot(executable, name);
        if (slot < 0) break;
        if (!array_push(&found, slot)) RAISE(RETORT_ENOMEM, "out of memory for kept values");
    }
    *slots = (struct kept_slots){.items = found.items, .count = (int)found.count};
    found.items = NULL;
done:
    free(found.items);
    return status;
}

void kept_finish(struct kept_slots *slots) {
    free(slots->items);
    *slots = (struct kept_slots){0};
}

size_t kept_bytes(const struct executable *executable, const struct kept_slots *slots) {
    size_t bytes = 0;
    for (int i = 0; i < slots->count; i++) bytes += aligned(executable_slot_bytes(executable, slots->items[i]));
    return bytes;
}

int kept_bind(struct executable *executable, const struct kept_slots *slots, struct place place) {
    int status = RETORT_OK;
    for (int i = 0; i < slots->count; i++) {
        TRY(executable_bind_slot(executable, slots->items[i], place.buffer, place.offset));
        place.offset += aligned(executable_slot_bytes(executable, slots->items[i]));
    }
done:
    return status;
}
