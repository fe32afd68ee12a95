#include "base/memory.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arena_chunk {
    struct arena_chunk *next;
    size_t used, size;
    _Alignas(16) unsigned char data[];
};

void arena_init(struct arena *arena) {
    *arena = (struct arena){0};
}

void arena_finish(struct arena *arena) {
    if (!arena) return;
    for (struct arena_chunk *chunk = arena->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        free(chunk);
    }
    *arena = (struct arena){0};
}

void *arena_alloc(struct arena *arena, size_t bytes) {
    if (bytes > SIZE_MAX / 2) {
        arena->failed = true;
        return NULL;
    }
    bytes = bytes ? (bytes + 15) & ~(size_t)15 : 16;
    struct arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->size - chunk->used < bytes) {
        size_t size = bytes > 64 * 1024 ? bytes : 64 * 1024;
        chunk = calloc(1, sizeof *chunk + size);
        if (!chunk) {
            arena->failed = true;
            return NULL;
        }
        chunk->size = size;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    void *block = chunk->data + chunk->used;
    chunk->used += bytes;
    return block;
}

void *arena_array(struct arena *arena, size_t count, size_t element) {
    if (element && count > SIZE_MAX / 2 / element) {
        arena->failed = true;
        return NULL;
    }
    return arena_alloc(arena, count * element);
}

char *arena_copy_text(struct arena *arena, const char *text) {
    return arena_printf(arena, "%s", text);
}

char *arena_printf(struct arena *arena, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    char *text = length < 0 ? NULL : arena_alloc(arena, (size_t)length + 1);
    if (text) vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

bool array_grow(void **items, size_t *capacity, size_t needed, size_t element) {
    if (needed <= *capacity) return true;
    size_t wanted = *capacity ? *capacity * 2 : 16;
    if (wanted < needed) wanted = needed;
    if (wanted > SIZE_MAX / 2 / element) return false;
    void *grown = realloc(*items, wanted * element);
    if (!grown) return false;
    *items = grown;
    *capacity = wanted;
    return true;
}

void text_init(struct text *text) {
    *text = (struct text){0};
}

void text_finish(struct text *text) {
    if (!text) return;
    free(text->data);
    *text = (struct text){0};
}

void text_append(struct text *text, const char *words) {
    size_t length = strlen(words);
    if (!array_grow((void **)&text->data, &text->capacity, text->length + length + 1, 1)) {
        text->failed = true;
        return;
    }
    memcpy(text->data + text->length, words, length + 1);
    text->length += length;
}

void text_printf(struct text *text, const char *format, ...) {
    va_list arguments, again;
    va_start(arguments, format);
    va_copy(again, arguments);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0 || !array_grow((void **)&text->data, &text->capacity, text->length + (size_t)length + 1, 1))
        text->failed = true;
    else {
        vsnprintf(text->data + text->length, (size_t)length + 1, format, again);
        text->length += (size_t)length;
    }
    va_end(again);
}

const char *text_get(const struct text *text) {
    return text->data ? text->data : "";
}
