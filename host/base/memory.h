/* Host memory: a zeroed arena whose blocks live as long as it does, a growable array, and a growable text.
 *
 * The three remember a failed allocation instead of reporting it at every call: ask `failed` once, at the end. */
#ifndef RETORT_BASE_MEMORY_H
#define RETORT_BASE_MEMORY_H

#include <stdbool.h>
#include <stddef.h>

/* --- arena --- */
struct arena {
    struct arena_chunk *chunks;
    bool failed;
};

void arena_init(struct arena *arena);
void arena_finish(struct arena *arena);               /* NULL-safe; frees every block */
void *arena_alloc(struct arena *arena, size_t bytes); /* zeroed, 16-byte aligned; NULL when out of memory */
void *arena_array(struct arena *arena, size_t count, size_t element); /* the same, overflow checked */
char *arena_copy_text(struct arena *arena, const char *text);
char *arena_printf(struct arena *arena, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* --- growable array: `struct { T *items; size_t count, capacity; }`, zero-initialised, freed with array_finish ---
 * array_push evaluates to true where the item was stored, false when memory ran out (the array is unchanged). */
#define ARRAY(type)             \
    struct {                    \
        type *items;            \
        size_t count, capacity; \
    }
#define array_push(array, item)                                                                           \
    (array_grow((void **)&(array)->items, &(array)->capacity, (array)->count + 1, sizeof *(array)->items) \
         ? ((array)->items[(array)->count++] = (item), true)                                              \
         : false)
#define array_finish(array) (free((array)->items), (array)->items = NULL, (array)->count = (array)->capacity = 0)
bool array_grow(void **items, size_t *capacity, size_t needed, size_t element);

/* --- growable text, always terminated once something was written --- */
struct text {
    char *data;
    size_t length, capacity;
    bool failed;
};

void text_init(struct text *text);
void text_finish(struct text *text);
void text_append(struct text *text, const char *words);
void text_printf(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *text_get(const struct text *text); /* never NULL; "" when empty */

#endif
