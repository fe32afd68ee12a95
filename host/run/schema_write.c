/* Values back to YAML and JSON, and what the table says in words. */
#include "run/schema_private.h"

#include "run/json_file.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- words --- */
static const char *number_name(const struct schema_key *key) {
    return key->type == KEY_REAL || key->type == KEY_REALS ? "number" : "whole number";
}

static void print_number(double value, char text[32]) {
    /* The shortest of the forms that reads back as the same number. */
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, 32, "%.*g", digits, value);
        if (strtod(text, NULL) == value) return;
    }
}

static void describe_range(const struct schema_key *key, char *text, size_t size) {
    char least[32], most[32];
    print_number(key->least, least);
    print_number(key->most, most);
    if (key->least == 0 && key->most == 0)
        snprintf(text, size, "%s", "");
    else if (key->most >= 1e9)
        snprintf(text, size, key->open & OPEN_LEAST ? " above %s" : " of at least %s", least);
    else
        snprintf(text, size, " %s %s %s %s", key->open & OPEN_LEAST ? "above" : "from", least,
                 key->open & OPEN_MOST ? "to below" : "to", most);
}

void schema_describe_expected(const struct schema_key *key, char *text, size_t size) {
    char range[96], zero[64] = "";
    describe_range(key, range, sizeof range);
    if (key->zero) snprintf(zero, sizeof zero, ", or %s", key->zero);
    switch (key->type) {
    case KEY_CHOICE: {
        size_t used = (size_t)snprintf(text, size, "%s", key->words[1] ? "one of" : "the word");
        for (const char *const *word = key->words; *word && used < size; word++)
            used += (size_t)snprintf(text + used, size - used, "%s %s", word == key->words ? "" : ",", *word);
        break;
    }
    case KEY_BOOL:
        snprintf(text, size, "true or false");
        break;
    case KEY_INT:
    case KEY_LONG:
    case KEY_REAL:
        snprintf(text, size, "a %s%s%s", number_name(key), range, zero);
        break;
    case KEY_REALS:
        snprintf(text, size, "a list of %d numbers%s", key->items, range);
        break;
    case KEY_INTS:
        snprintf(text, size, "a list of %s%d whole numbers%s", key->count_offset ? "1 to " : "", key->items, range);
        break;
    case KEY_LIST:
        snprintf(text, size, "a list of whole numbers%s%s", range, zero);
        break;
    case KEY_NAMES:
        snprintf(text, size, "a list of names%s", zero);
        break;
    case KEY_SIZE:
        snprintf(text, size, "a whole number%s, or a list of two (height, width)%s", range, zero);
        break;
    case KEY_TEXT:
        snprintf(text, size, key->items > 1 ? "text, or a list of texts" : "text");
        break;
    case KEY_PATH:
        snprintf(text, size, "a path");
        break;
    case KEY_BYTES:
        snprintf(text, size, "an amount of memory such as 512 MiB or 2 GiB%s", zero);
        break;
    }
}

/* --- writing --- */
static void write_quoted(const char *value, struct text *text) {
    text_append(text, "\"");
    for (; *value; value++) {
        unsigned char c = (unsigned char)*value;
        if (c == '"' || c == '\\')
            text_printf(text, "\\%c", c);
        else if (c < 32 || c == 127)
            text_printf(text, "\\x%02X", c);
        else
            text_printf(text, "%c", c);
    }
    text_append(text, "\"");
}

/* `values`: the struct that the key's offsets count in. */
static void write_value(const struct schema_key *key, const void *values, struct text *text) {
    const char *at = (const char *)values + key->offset;
    const int *count = (const int *)(const void *)((const char *)values + key->count_offset);
    char number[32];
    switch (key->type) {
    case KEY_CHOICE: {
        int i;
        memcpy(&i, at, sizeof i);
        text_append(text, key->words[i]);
        break;
    }
    case KEY_BOOL:
        text_append(text, *(const bool *)at ? "true" : "false");
        break;
    case KEY_INT:
    case KEY_LONG: {
        int64_t value = key->type == KEY_INT ? *(const int *)(const void *)at : *(const int64_t *)(const void *)at;
        if (value == 0 && key->zero)
            text_append(text, key->zero);
        else
            text_printf(text, "%" PRId64, value);
        break;
    }
    case KEY_REAL:
        print_number(*(const double *)(const void *)at, number);
        text_append(text, key->zero && *(const double *)(const void *)at < 0 ? key->zero : number);
        break;
    case KEY_REALS:
        for (int i = 0; i < key->items; i++) {
            print_number(((const double *)(const void *)at)[i], number);
            text_printf(text, "%s%s", i ? ", " : "[", number);
        }
        text_append(text, "]");
        break;
    case KEY_INTS:
    case KEY_LIST: {
        const int *items =
            key->type == KEY_LIST ? *(const int *const *)(const void *)at : (const int *)(const void *)at;
        int n = key->count_offset ? *count : key->items;
        if (n == 0) {
            text_append(text, key->zero ? key->zero : "[]");
            break;
        }
        for (int i = 0; i < n; i++) text_printf(text, "%s%d", i ? ", " : "[", items[i]);
        text_append(text, "]");
        break;
    }
    case KEY_NAMES: {
        const char *const *names = *(const char *const *const *)(const void *)at;
        if (*count == 0) text_append(text, key->zero);
        for (int i = 0; i < *count; i++) {
            text_append(text, i ? ", " : "[");
            write_quoted(names[i], text);
        }
        if (*count) text_append(text, "]");
        break;
    }
    case KEY_SIZE: {
        const int *size = (const int *)(const void *)at;
        if (size[0] == 0 && key->zero)
            text_append(text, key->zero);
        else
            text_printf(text, "[%d, %d]", size[0], size[1]);
        break;
    }
    case KEY_TEXT:
    case KEY_PATH:
        if (*(const char *const *)(const void *)at)
            write_quoted(*(const char *const *)(const void *)at, text);
        else
            text_append(text, "null");
        break;
    case KEY_BYTES: {
        static const char *const units[] = {"", " KiB", " MiB", " GiB", " TiB"};
        uint64_t bytes = *(const uint64_t *)(const void *)at;
        int unit = 0;
        while (bytes && bytes % 1024 == 0 && unit < 4) {
            bytes /= 1024;
            unit++;
        }
        if (bytes == 0 && key->zero)
            text_append(text, key->zero);
        else
            text_printf(text, "%" PRIu64 "%s", bytes, units[unit]);
        break;
    }
    }
}

void schema_write(const struct schema *schema, const void *values, struct text *text) {
    char open[96] = ""; /* the section the last line belongs to, "a.b." */
    for (size_t i = 0; i < schema->count; i++) {
        const char *path = schema->keys[i].path;
        int depth = 0;
        for (const char *name = path, *dot; (dot = strchr(name, '.')); name = dot + 1, depth++) {
            size_t prefix = (size_t)(dot - path) + 1;
            if (strncmp(open, path, prefix) == 0) continue;
            text_printf(text, "%*s%.*s:\n", 2 * depth, "", (int)(dot - name), name);
        }
        const char *last = strrchr(path, '.');
        snprintf(open, sizeof open, "%.*s", last ? (int)(last - path) + 1 : 0, path);
        text_printf(text, "%*s%s: ", 2 * depth, "", last ? last + 1 : path);
        write_value(&schema->keys[i], schema_base(schema, &schema->keys[i], values), text);
        text_append(text, "\n");
    }
}

static json_t *json_value(const struct schema_key *key, const void *values) {
    const char *at = (const char *)values + key->offset;
    switch (key->type) {
    case KEY_BOOL:
        return json_boolean(*(const bool *)at);
    case KEY_INT:
        if (*(const int *)(const void *)at || !key->zero) return json_integer(*(const int *)(const void *)at);
        return json_string(key->zero);
    case KEY_LONG:
        if (*(const int64_t *)(const void *)at || !key->zero) return json_integer(*(const int64_t *)(const void *)at);
        return json_string(key->zero);
    case KEY_REAL:
        if (key->zero && *(const double *)(const void *)at < 0) return json_string(key->zero);
        return json_real(*(const double *)(const void *)at);
    case KEY_REALS: {
        json_t *list = json_array();
        for (int i = 0; i < key->items; i++)
            json_array_append_new(list, json_real(((const double *)(const void *)at)[i]));
        return list;
    }
    case KEY_INTS:
    case KEY_LIST: {
        const int *items =
            key->type == KEY_LIST ? *(const int *const *)(const void *)at : (const int *)(const void *)at;
        int n = key->count_offset ? *(const int *)(const void *)((const char *)values + key->count_offset) : key->items;
        if (n == 0 && key->zero) return json_string(key->zero);
        json_t *list = json_array();
        for (int i = 0; i < n; i++) json_array_append_new(list, json_integer(items[i]));
        return list;
    }
    case KEY_NAMES: {
        const char *const *names = *(const char *const *const *)(const void *)at;
        int n = *(const int *)(const void *)((const char *)values + key->count_offset);
        if (n == 0) return json_string(key->zero);
        json_t *list = json_array();
        for (int i = 0; i < n; i++) json_array_append_new(list, json_text(names[i]));
        return list;
    }
    case KEY_SIZE: {
        const int *size = (const int *)(const void *)at;
        return size[0] == 0 && key->zero ? json_string(key->zero) : json_pack("[i,i]", size[0], size[1]);
    }
    case KEY_TEXT:
    case KEY_PATH: {
        const char *value = *(const char *const *)(const void *)at;
        return value ? json_text(value) : json_null();
    }
    case KEY_CHOICE:
    case KEY_BYTES:
        break;
    }
    struct text text;
    text_init(&text);
    write_value(key, values, &text);
    json_t *value = json_string(text_get(&text));
    text_finish(&text);
    return value;
}

json_t *schema_json(const struct schema *schema, const void *values) {
    json_t *root = json_object();
    for (size_t i = 0; root && i < schema->count; i++) {
        json_t *section = root;
        const char *name = schema->keys[i].path;
        for (const char *dot; section && (dot = strchr(name, '.')); name = dot + 1) {
            char part[64];
            snprintf(part, sizeof part, "%.*s", (int)(dot - name), name);
            json_t *inner = json_object_get(section, part);
            if (!inner) {
                json_object_set_new(section, part, json_object());
                inner = json_object_get(section, part);
            }
            section = inner;
        }
        if (!section
            || json_object_set_new(section, name,
                                   json_value(&schema->keys[i], schema_base(schema, &schema->keys[i], values)))
                   < 0) {
            json_decref(root);
            root = NULL;
        }
    }
    return root;
}

const char *schema_difference(const struct schema *schema, const void *a, const void *b, struct text *mine,
                              struct text *theirs) {
    for (size_t i = 0; i < schema->count; i++) {
        struct text x, y;
        text_init(&x);
        text_init(&y);
        write_value(&schema->keys[i], schema_base(schema, &schema->keys[i], a), &x);
        write_value(&schema->keys[i], schema_base(schema, &schema->keys[i], b), &y);
        bool differ = strcmp(text_get(&x), text_get(&y)) != 0;
        if (differ) {
            text_append(mine, text_get(&x));
            text_append(theirs, text_get(&y));
        }
        text_finish(&x);
        text_finish(&y);
        if (differ) return schema->keys[i].path;
    }
    return NULL;
}

void schema_reference(const struct schema *schema, struct text *text) {
    char open[64] = "";
    for (size_t i = 0; i < schema->count; i++) {
        const struct schema_key *key = &schema->keys[i];
        char section[64], expected[512];
        snprintf(section, sizeof section, "%.*s", strchr(key->path, '.') ? (int)strcspn(key->path, ".") : 7,
                 strchr(key->path, '.') ? key->path : "general");
        if (strcmp(section, open) != 0) text_printf(text, "%s## %s\n\n", i ? "\n" : "", section);
        memcpy(open, section, sizeof open);
        schema_describe_expected(key, expected, sizeof expected);
        text_printf(text, "- `%s`", key->path);
        if (key->owner) text_printf(text, " (%s)", key->owner);
        text_printf(text, ": %s. ", expected);
        if (key->standard)
            text_printf(text, "Default `%s`. ", key->standard);
        else if (key->inherit)
            text_printf(text, "Default: that of `%s`. ", key->inherit);
        else
            text_append(text, "Must be given. ");
        text_append(text, key->help);
        if (key->was) text_printf(text, " Called `%s` before, which is still read.", key->was);
        text_append(text, "\n");
    }
}
