/* Places values in the arena: two that live at the same time never overlap. Largest first, at the lowest free place. */
#include "compile/internal.h"

#include <stdlib.h>

static int larger_first(const void *a, const void *b) {
    const struct value *x = *(struct value *const *)a, *y = *(struct value *const *)b;
    if (x->floats != y->floats) return x->floats < y->floats ? 1 : -1;
    return x->first - y->first;
}

static int by_offset(const void *a, const void *b) {
    const struct value *x = *(struct value *const *)a, *y = *(struct value *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

int memory_plan(struct lowering *l, size_t alignment) {
    int status = RETORT_OK;
    size_t count = 0;
    struct value **placed = calloc(l->values.count + 1, sizeof *placed);
    struct value **clashes = calloc(l->values.count + 1, sizeof *clashes);
    if (!placed || !clashes) RAISE(RETORT_ENOMEM, "out of memory planning device memory");
    for (size_t i = 0; i < l->values.count; i++) {
        struct value *value = l->values.items[i];
        if (value->slot < 0 && !value->parent && value->last >= 0) placed[count++] = value;
    }
    qsort(placed, count, sizeof *placed, larger_first);
    l->arena_floats = 0;
    for (size_t i = 0; i < count; i++) {
        struct value *value = placed[i];
        size_t clash_count = 0, at = 0;
        for (size_t k = 0; k < i; k++)
            if (placed[k]->first <= value->last && value->first <= placed[k]->last) clashes[clash_count++] = placed[k];
        qsort(clashes, clash_count, sizeof *clashes, by_offset);
        for (size_t k = 0; k < clash_count && clashes[k]->offset < at + value->floats; k++) {
            size_t end = clashes[k]->offset + clashes[k]->floats;
            end = (end + alignment - 1) / alignment * alignment;
            if (end > at) at = end;
        }
        value->offset = at;
        if (at + value->floats > l->arena_floats) l->arena_floats = at + value->floats;
    }
done:
    free(placed);
    free(clashes);
    return status;
}
