/* One YAML node into one member of a struct, by its row of the table. */
#include "run/schema_private.h"

#include "base/error.h"
#include "base/file.h"
#include "run/nearest.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_LIMIT 100000 /* items of a KEY_LIST */

void schema_describe_found(const yaml_node_t *node, char *text, size_t size) {
    if (node->type == YAML_SEQUENCE_NODE)
        snprintf(text, size, "a list");
    else if (node->type == YAML_MAPPING_NODE)
        snprintf(text, size, "a section of keys");
    else if (node->data.scalar.length == 0 && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
        snprintf(text, size, "nothing");
    else {
        bool quoted = node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        char shown[48];
        size_t n = node->data.scalar.length < sizeof shown - 1 ? node->data.scalar.length : sizeof shown - 1;
        for (size_t i = 0; i < n; i++) {
            unsigned char c = node->data.scalar.value[i];
            shown[i] = c < 32 || c == 127 ? '?' : (char)c;
        }
        shown[n] = '\0';
        snprintf(text, size, "%s'%s'%s", quoted ? "the quoted text " : "", shown,
                 n < node->data.scalar.length ? "..." : "");
    }
}

/* Says what is wrong with a key's value. */
static int complain(const struct schema_reader *reader, const struct schema_key *key, const yaml_node_t *node,
                    const char *reason) {
    char where[512], found[96], expected[512];
    schema_say_where(reader, (int)node->start_mark.line + 1, key->path, where, sizeof where);
    schema_describe_found(node, found, sizeof found);
    schema_describe_expected(key, expected, sizeof expected);
    const char *meant = NULL;
    if (key->type == KEY_CHOICE && node->type == YAML_SCALAR_NODE)
        meant = word_nearest((const char *)node->data.scalar.value, key->words);
    return error_set(RETORT_EINVAL, "%s: found %s%s%s, expected %s%s%s%s", where, found, reason ? ", " : "",
                     reason ? reason : "", expected, meant ? " (did you mean " : "", meant ? meant : "",
                     meant ? "?)" : "");
}

/* --- scalars --- */
/* The node's text where it is an unquoted scalar without a zero byte inside, else NULL. */
static const char *plain(const yaml_node_t *node) {
    if (node->type != YAML_SCALAR_NODE || node->data.scalar.style != YAML_PLAIN_SCALAR_STYLE) return NULL;
    const char *text = (const char *)node->data.scalar.value;
    return strlen(text) == node->data.scalar.length ? text : NULL;
}

bool schema_is_null(const yaml_node_t *node) {
    const char *text = plain(node);
    return text && (!*text || !strcmp(text, "~") || !strcasecmp(text, "null"));
}

static bool is_zero_word(const struct schema_key *key, const yaml_node_t *node) {
    /* With quotes too: JSON, which is read as YAML, cannot write the word without. */
    return key->zero && node->type == YAML_SCALAR_NODE
           && strcasecmp((const char *)node->data.scalar.value, key->zero) == 0;
}

static bool in_range(const struct schema_key *key, double value) {
    if (key->least == 0 && key->most == 0) return true;
    return (key->open & OPEN_LEAST ? value > key->least : value >= key->least)
           && (key->open & OPEN_MOST ? value < key->most : value <= key->most);
}

/* Decimal numbers only: neither hexadecimal nor infinity nor anything after the last digit. */
static bool read_real(const char *text, double *value) {
    if (!text || !*text || text[strspn(text, "0123456789+-.eE")]) return false;
    char *end;
    double number = strtod(text, &end);
    if (end == text || *end || !isfinite(number)) return false;
    *value = number;
    return true;
}

/* Digits, or a number like 1e4 whose value is whole. */
static bool read_whole(const char *text, int64_t *value) {
    double real;
    if (!read_real(text, &real) || real != floor(real) || fabs(real) >= 0x1p63) return false;
    if (!text[strspn(text, "0123456789+-")])
        *value = strtoll(text, NULL, 10);
    else
        *value = (int64_t)real;
    return true;
}

bool schema_read_bytes(const char *text, uint64_t *value) {
    static const struct {
        const char *name;
        double factor;
    } units[] = {{"", 1},     {"B", 1},    {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40},
                 {"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6},     {"GB", 1e9},     {"TB", 1e12}};
    char digits[64];
    size_t n = strspn(text, "0123456789.");
    if (n == 0 || n >= sizeof digits) return false;
    memcpy(digits, text, n);
    digits[n] = '\0';
    double number;
    if (!read_real(digits, &number)) return false;
    const char *unit = text + n;
    while (*unit == ' ') unit++;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (strcmp(unit, units[i].name) != 0) continue;
        double bytes = number * units[i].factor;
        if (bytes >= 0x1p53) return false;
        *value = (uint64_t)bytes;
        return true;
    }
    return false;
}

/* --- values into the struct --- */
static int store_whole(const struct schema_reader *reader, const struct schema_key *key, const yaml_node_t *node,
                       int64_t *value) {
    int64_t number;
    if (!read_whole(plain(node), &number) || !in_range(key, (double)number)
        || (key->type != KEY_LONG && (number < INT_MIN || number > INT_MAX)))
        return complain(reader, key, node, NULL);
    *value = number;
    return RETORT_OK;
}

static const yaml_node_t *item(const struct schema_reader *reader, const yaml_node_t *list, int i) {
    return yaml_document_get_node(reader->document, list->data.sequence.items.start[i]);
}

static int item_count(const yaml_node_t *list) {
    ptrdiff_t count = list->data.sequence.items.top - list->data.sequence.items.start;
    return count > LIST_LIMIT ? LIST_LIMIT + 1 : (int)count;
}

static int store_list(const struct schema_reader *reader, const struct schema_key *key, const yaml_node_t *node) {
    int status = RETORT_OK;
    char *at = (char *)schema_base(reader->schema, key, reader->out) + key->offset;
    int *count = (int *)(void *)((char *)schema_base(reader->schema, key, reader->out) + key->count_offset);
    if (key->type == KEY_LIST && is_zero_word(key, node)) {
        *(const int **)(void *)at = NULL;
        *count = 0;
        return RETORT_OK;
    }
    if (node->type != YAML_SEQUENCE_NODE) return complain(reader, key, node, NULL);
    int n = item_count(node);
    if (n == 0) return complain(reader, key, node, "an empty one");
    bool exact = key->type == KEY_REALS || (key->type == KEY_INTS && !key->count_offset);
    if (key->type == KEY_LIST ? n > LIST_LIMIT : exact ? n != key->items : n > key->items) {
        char reason[32];
        snprintf(reason, sizeof reason, "%d items", n);
        return complain(reader, key, node, reason);
    }
    if (key->type == KEY_REALS) {
        for (int i = 0; i < n; i++) {
            double value;
            if (!read_real(plain(item(reader, node, i)), &value) || !in_range(key, value))
                return complain(reader, key, item(reader, node, i), NULL);
            ((double *)(void *)at)[i] = value;
        }
        return RETORT_OK;
    }
    int *values = key->type == KEY_LIST ? arena_array(reader->arena, (size_t)n, sizeof *values) : (int *)(void *)at;
    if (!values) return error_set(RETORT_ENOMEM, "out of memory reading %s", key->path);
    for (int i = 0; i < n; i++) {
        int64_t value;
        TRY(store_whole(reader, key, item(reader, node, i), &value));
        values[i] = (int)value;
    }
    if (key->type == KEY_LIST) *(const int **)(void *)at = values;
    if (!exact) *count = n;
done:
    return status;
}

static int store_names(const struct schema_reader *reader, const struct schema_key *key, const yaml_node_t *node) {
    char *base = schema_base(reader->schema, key, reader->out);
    const char **names = NULL;
    int n = 0;
    if (!is_zero_word(key, node)) {
        if (node->type != YAML_SEQUENCE_NODE) return complain(reader, key, node, NULL);
        n = item_count(node);
        if (n == 0 || n > LIST_LIMIT) return complain(reader, key, node, n ? "too long" : "an empty one");
        names = arena_array(reader->arena, (size_t)n, sizeof *names);
        if (!names) return error_set(RETORT_ENOMEM, "out of memory reading %s", key->path);
    }
    for (int i = 0; i < n; i++) {
        const yaml_node_t *name = item(reader, node, i);
        if (name->type != YAML_SCALAR_NODE) return complain(reader, key, name, NULL);
        const char *text = (const char *)name->data.scalar.value;
        if (!*text || strlen(text) != name->data.scalar.length) return complain(reader, key, name, NULL);
        names[i] = arena_copy_text(reader->arena, text);
        if (!names[i]) return error_set(RETORT_ENOMEM, "out of memory reading %s", key->path);
    }
    *(const char *const **)(void *)(base + key->offset) = names;
    *(int *)(void *)(base + key->count_offset) = n;
    return RETORT_OK;
}

static int store_size(const struct schema_reader *reader, const struct schema_key *key, const yaml_node_t *node) {
    int status = RETORT_OK;
    int *at = (int *)(void *)((char *)schema_base(reader->schema, key, reader->out) + key->offset);
    int64_t height = 0, width = 0;
    if (node->type == YAML_SEQUENCE_NODE) {
        if (item_count(node) != 2) return complain(reader, key, node, "not of two items");
        TRY(store_whole(reader, key, item(reader, node, 0), &height));
        TRY(store_whole(reader, key, item(reader, node, 1), &width));
    } else if (!is_zero_word(key, node)) {
        TRY(store_whole(reader, key, node, &height));
        width = height;
    }
    at[0] = (int)height;
    at[1] = (int)width;
done:
    return status;
}

/* [a, b] as "a, b". */
static int store_joined(const struct schema_reader *reader, const struct schema_key *key, const yaml_node_t *node,
                        const char **at) {
    int status = RETORT_OK;
    struct text text;
    text_init(&text);
    for (int i = 0; i < item_count(node); i++) {
        const yaml_node_t *one = item(reader, node, i);
        const char *words = (const char *)one->data.scalar.value;
        if (one->type != YAML_SCALAR_NODE || !*words || strlen(words) != one->data.scalar.length)
            TRY(complain(reader, key, one, NULL));
        text_printf(&text, "%s%s", i ? ", " : "", words);
    }
    *at = text.failed ? NULL : arena_copy_text(reader->arena, text_get(&text));
    if (!*at) RAISE(RETORT_ENOMEM, "out of memory reading %s", key->path);
done:
    text_finish(&text);
    return status;
}

static int store_text(const struct schema_reader *reader, const struct schema_key *key, const yaml_node_t *node) {
    const char **at = (const char **)(void *)((char *)schema_base(reader->schema, key, reader->out) + key->offset);
    if (schema_is_null(node) && key->type == KEY_PATH) {
        *at = NULL;
        return RETORT_OK;
    }
    if (node->type == YAML_SEQUENCE_NODE && key->items > 1) return store_joined(reader, key, node, at);
    if (node->type != YAML_SCALAR_NODE) return complain(reader, key, node, NULL);
    const char *text = schema_is_null(node) ? "" : (const char *)node->data.scalar.value;
    if (strlen(text) != (schema_is_null(node) ? 0 : node->data.scalar.length))
        return complain(reader, key, node, "with a zero byte in it");
    if (key->type == KEY_PATH && !*text) return complain(reader, key, node, NULL);
    char path[FILE_PATH_MAX];
    if (key->type == KEY_PATH && *text != '/') {
        /* "./here" and "here" are the same place. */
        while (text[0] == '.' && text[1] == '/') text += 2;
        int status = path_join(reader->folder, text, path);
        if (status < 0) return status;
        text = path;
    }
    *at = arena_copy_text(reader->arena, text);
    return *at ? RETORT_OK : error_set(RETORT_ENOMEM, "out of memory reading %s", key->path);
}

int schema_store(const struct schema_reader *reader, const struct schema_key *key, const yaml_node_t *node) {
    int status = RETORT_OK;
    char *at = (char *)schema_base(reader->schema, key, reader->out) + key->offset;
    int64_t whole = 0;
    switch (key->type) {
    case KEY_CHOICE: {
        if (node->type != YAML_SCALAR_NODE) return complain(reader, key, node, NULL);
        int i = 0;
        while (key->words[i] && strcmp(key->words[i], (const char *)node->data.scalar.value) != 0) i++;
        if (!key->words[i]) return complain(reader, key, node, NULL);
        memcpy(at, &i, sizeof i);
        break;
    }
    case KEY_BOOL: {
        static const char *const words[] = {"false", "true", "no", "yes", "off", "on"};
        const char *text = plain(node);
        for (int i = 0; i < 6; i++) {
            if (!text || strcasecmp(text, words[i]) != 0) continue;
            *(bool *)at = i % 2;
            return RETORT_OK;
        }
        return complain(reader, key, node, NULL);
    }
    case KEY_INT:
    case KEY_LONG:
        if (!is_zero_word(key, node)) TRY(store_whole(reader, key, node, &whole));
        if (key->type == KEY_INT)
            *(int *)(void *)at = (int)whole;
        else
            *(int64_t *)(void *)at = whole;
        break;
    case KEY_REAL: {
        double value = -1;
        if (!is_zero_word(key, node) && (!read_real(plain(node), &value) || !in_range(key, value)))
            return complain(reader, key, node, NULL);
        *(double *)(void *)at = value;
        break;
    }
    case KEY_REALS:
    case KEY_INTS:
    case KEY_LIST:
        return store_list(reader, key, node);
    case KEY_NAMES:
        return store_names(reader, key, node);
    case KEY_SIZE:
        return store_size(reader, key, node);
    case KEY_TEXT:
    case KEY_PATH:
        return store_text(reader, key, node);
    case KEY_BYTES: {
        uint64_t bytes = 0;
        /* "512 MiB" needs no quotes in YAML, but may have them. */
        if (!is_zero_word(key, node)
            && (node->type != YAML_SCALAR_NODE || !schema_read_bytes((const char *)node->data.scalar.value, &bytes)))
            return complain(reader, key, node, NULL);
        *(uint64_t *)(void *)at = bytes;
        break;
    }
    }
done:
    return status;
}
