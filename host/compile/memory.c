/* Places values in the arena: two that live at the same time never overlap. Largest first, at the lowest free place. */
#include "compile/launch.h"

#include "base/error.h"

#include <stdlib.h>

enum { ALIGNMENT = 64 }; /* floats: a line of every cache */

static int larger_first(const void *a, const void *b) {
    const struct value *x = *(struct value *const *)a, *y = *(struct value *const *)b;
    if (x->floats != y->floats) return x->floats < y->floats ? 1 : -1;
    return x->first - y->first;
}

static int by_offset(const void *a, const void *b) {
    const struct value *x = *(struct value *const *)a, *y = *(struct value *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Whether the arena is where a value lies, from its first launch to its last. */
static bool is_placed(const struct value *value) {
    return value->slot < 0 && !value->parent && value->last >= 0;
}

static bool live_together(const struct value *a, const struct value *b) {
    return a->first <= b->last && b->first <= a->last;
}

static void find_lives(struct launch_list *list) {
    for (size_t i = 0; i < list->launches.count; i++)
        for (int b = 0; b < list->launches.items[i]->buffer_count; b++) {
            size_t offset;
            struct value *value = value_root(list->launches.items[i]->buffers[b], &offset);
            if (value->first < 0) value->first = (int)i;
            value->last = (int)i;
        }
}

int memory_plan(struct launch_list *list) {
    int status = RETORT_OK;
    size_t count = 0;
    struct value **placed = calloc(list->values.count + 1, sizeof *placed);
    struct value **clashes = calloc(list->values.count + 1, sizeof *clashes);
    if (!placed || !clashes) RAISE(RETORT_ENOMEM, "out of memory planning device memory");
    find_lives(list);
    for (size_t i = 0; i < list->values.count; i++)
        if (is_placed(list->values.items[i])) placed[count++] = list->values.items[i];
    qsort(placed, count, sizeof *placed, larger_first);
    list->arena_floats = 0;
    for (size_t i = 0; i < count; i++) {
        struct value *value = placed[i];
        size_t clash_count = 0, at = 0;
        for (size_t k = 0; k < i; k++)
            if (live_together(placed[k], value)) clashes[clash_count++] = placed[k];
        qsort(clashes, clash_count, sizeof *clashes, by_offset);
        for (size_t k = 0; k < clash_count && clashes[k]->offset < at + value->floats; k++) {
            size_t end = clashes[k]->offset + clashes[k]->floats;
            end = (end + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
            if (end > at) at = end;
        }
        value->offset = at;
        if (at + value->floats > list->arena_floats) list->arena_floats = at + value->floats;
    }
done:
    free(placed);
    free(clashes);
    return status;
}

int memory_check(const struct launch_list *list) {
    for (size_t i = 0; i < list->values.count; i++) {
        const struct value *a = list->values.items[i];
        if (!is_placed(a)) continue;
        for (size_t k = 0; k < i; k++) {
            const struct value *b = list->values.items[k];
            if (is_placed(b) && live_together(a, b) && a->offset < b->offset + b->floats
                && b->offset < a->offset + a->floats)
                return error_set(RETORT_EUNSUPPORTED, "cannot compile: values %zu and %zu share memory", k, i);
        }
    }
    return RETORT_OK;
}
