#include "run/schema.h"

#include "base/error.h"
#include "base/file.h"
#include "run/json_file.h"
#include "run/nearest.h"

#include <ctype.h>
#include <float.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define LIST_LIMIT 100000 /* items of a KEY_LIST */

/* --- one YAML text being read --- */
struct reader {
    const struct schema *schema;
    const char *file, *folder; /* file: NULL for an option or a default */
    const char *option;
    struct arena *arena;
    void *out;
    struct schema_origins *origins;
    bool given[SCHEMA_MAX_KEYS];
    yaml_document_t *document;
};

static void say_where(const struct reader *reader, int line, const char *path, char *text, size_t size) {
    if (reader->option)
        snprintf(text, size, "%s: %s", reader->option, path);
    else if (reader->file)
        snprintf(text, size, "%s:%d: %s", reader->file, line, path);
    else
        snprintf(text, size, "default of %s", path);
}

/* --- what is expected, what was found --- */
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

static void describe_expected(const struct schema_key *key, char *text, size_t size) {
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
    case KEY_SIZE:
        snprintf(text, size, "a whole number%s, or a list of two (height, width)%s", range, zero);
        break;
    case KEY_TEXT:
        snprintf(text, size, "text");
        break;
    case KEY_PATH:
        snprintf(text, size, "a path");
        break;
    case KEY_BYTES:
        snprintf(text, size, "an amount of memory such as 512 MiB or 2 GiB%s", zero);
        break;
    }
}

static void describe_found(const yaml_node_t *node, char *text, size_t size) {
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
static int complain(const struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                    const char *reason) {
    char where[512], found[96], expected[512];
    say_where(reader, (int)node->start_mark.line + 1, key->path, where, sizeof where);
    describe_found(node, found, sizeof found);
    describe_expected(key, expected, sizeof expected);
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

static bool is_null(const yaml_node_t *node) {
    const char *text = plain(node);
    return text && (!*text || !strcmp(text, "~") || !strcasecmp(text, "null"));
}

static bool is_zero_word(const struct schema_key *key, const yaml_node_t *node) {
    /* Quoted too: so JSON writes it. */
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

static bool read_bytes(const char *text, uint64_t *value) {
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
static int store_whole(const struct reader *reader, const struct schema_key *key, const yaml_node_t *node,
                       int64_t *value) {
    int64_t number;
    if (!read_whole(plain(node), &number) || !in_range(key, (double)number)
        || (key->type != KEY_LONG && (number < INT_MIN || number > INT_MAX)))
        return complain(reader, key, node, NULL);
    *value = number;
    return RETORT_OK;
}

static const yaml_node_t *item(const struct reader *reader, const yaml_node_t *list, int i) {
    return yaml_document_get_node(reader->document, list->data.sequence.items.start[i]);
}

static int item_count(const yaml_node_t *list) {
    ptrdiff_t count = list->data.sequence.items.top - list->data.sequence.items.start;
    return count > LIST_LIMIT ? LIST_LIMIT + 1 : (int)count;
}

static int store_list(const struct reader *reader, const struct schema_key *key, const yaml_node_t *node) {
    int status = RETORT_OK;
    char *at = (char *)reader->out + key->offset;
    int *count = (int *)(void *)((char *)reader->out + key->count_offset);
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

static int store_size(const struct reader *reader, const struct schema_key *key, const yaml_node_t *node) {
    int status = RETORT_OK;
    int *at = (int *)(void *)((char *)reader->out + key->offset);
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

static int store_text(const struct reader *reader, const struct schema_key *key, const yaml_node_t *node) {
    const char **at = (const char **)(void *)((char *)reader->out + key->offset);
    if (is_null(node) && key->type == KEY_PATH) {
        *at = NULL;
        return RETORT_OK;
    }
    if (node->type != YAML_SCALAR_NODE) return complain(reader, key, node, NULL);
    const char *text = is_null(node) ? "" : (const char *)node->data.scalar.value;
    if (strlen(text) != (is_null(node) ? 0 : node->data.scalar.length))
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

static int store(const struct reader *reader, const struct schema_key *key, const yaml_node_t *node) {
    int status = RETORT_OK;
    char *at = (char *)reader->out + key->offset;
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
        double value;
        if (!read_real(plain(node), &value) || !in_range(key, value)) return complain(reader, key, node, NULL);
        *(double *)(void *)at = value;
        break;
    }
    case KEY_REALS:
    case KEY_INTS:
    case KEY_LIST:
        return store_list(reader, key, node);
    case KEY_SIZE:
        return store_size(reader, key, node);
    case KEY_TEXT:
    case KEY_PATH:
        return store_text(reader, key, node);
    case KEY_BYTES: {
        uint64_t bytes = 0;
        /* "512 MiB" needs no quotes in YAML, but may have them. */
        if (!is_zero_word(key, node)
            && (node->type != YAML_SCALAR_NODE || !read_bytes((const char *)node->data.scalar.value, &bytes)))
            return complain(reader, key, node, NULL);
        *(uint64_t *)(void *)at = bytes;
        break;
    }
    }
done:
    return status;
}

/* --- keys --- */
static int key_index(const struct schema *schema, const char *path) {
    for (size_t i = 0; i < schema->count; i++)
        if (strcmp(schema->keys[i].path, path) == 0) return (int)i;
    return -1;
}

static bool is_section(const struct schema *schema, const char *path) {
    size_t length = strlen(path);
    for (size_t i = 0; i < schema->count; i++)
        if (strncmp(schema->keys[i].path, path, length) == 0 && schema->keys[i].path[length] == '.') return true;
    return false;
}

/* The known path that an unknown one was meant to be: a name of the same section, else the same or nearly the same
 * name of another section. */
static const char *nearest_path(const struct schema *schema, const char *path, size_t prefix, char best[96]) {
    const char *name = path + prefix;
    int least = INT_MAX;
    for (size_t i = 0; i < schema->count; i++) {
        char known[96];
        snprintf(known, sizeof known, "%s", schema->keys[i].path);
        /* Every level of a known path is a name that could have been meant. */
        for (char *end = known; end;) {
            end = strchr(end, '.');
            if (end) *end = '\0';
            const char *leaf = strrchr(known, '.') ? strrchr(known, '.') + 1 : known;
            int distance = word_distance(name, leaf);
            bool here = (size_t)(leaf - known) == prefix && strncmp(known, path, prefix) == 0;
            if (!here && distance < INT_MAX) distance = distance == 0 ? 1 : distance + 2;
            if (distance < least
                && (here ? word_is_close(name, distance) : distance <= 3 && distance <= (int)strlen(name))) {
                least = distance;
                snprintf(best, 96, "%s", known);
            }
            if (end) *end++ = '.';
        }
    }
    return least < INT_MAX ? best : NULL;
}

static int complain_unknown(const struct reader *reader, int line, const char *path, size_t prefix) {
    char where[512], best[96];
    say_where(reader, line, path, where, sizeof where);
    const char *meant = nearest_path(reader->schema, path, prefix, best);
    if (meant) return error_set(RETORT_EINVAL, "%s: unknown key (did you mean %s?)", where, meant);
    char known[1024];
    size_t used = 0;
    const char *last = "";
    size_t last_length = 0;
    known[0] = '\0';
    for (size_t i = 0; i < reader->schema->count; i++) {
        const char *other = reader->schema->keys[i].path;
        if (strncmp(other, path, prefix) != 0) continue;
        const char *name = other + prefix;
        size_t length = strcspn(name, ".");
        if (length == last_length && strncmp(name, last, length) == 0) continue;
        last = name;
        last_length = length;
        if (used < sizeof known)
            used += (size_t)snprintf(known + used, sizeof known - used, "%s%.*s", used ? ", " : "", (int)length, name);
    }
    return error_set(RETORT_EINVAL, "%s: unknown key; known here: %s", where, known);
}

/* Reads the pairs of a mapping whose keys start with `path` up to `prefix`. The depth is that of the schema, so a
 * document that contains itself by an anchor ends at an unknown key. */
static int read_mapping(struct reader *reader, const yaml_node_t *mapping, const char *path) {
    int status = RETORT_OK;
    size_t prefix = strlen(path);
    const yaml_node_pair_t *first = mapping->data.mapping.pairs.start;
    for (const yaml_node_pair_t *pair = first; pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(reader->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(reader->document, pair->value);
        int line = (int)name->start_mark.line + 1;
        char full[256];
        if (name->type != YAML_SCALAR_NODE) {
            say_where(reader, line, prefix ? path : "the file", full, sizeof full);
            RAISE(RETORT_EINVAL, "%s: a list or section stands where a key's name belongs", full);
        }
        const char *word = (const char *)name->data.scalar.value;
        bool odd = strlen(word) != name->data.scalar.length || strchr(word, '.');
        snprintf(full, sizeof full, "%s%.120s", path, word);
        for (const yaml_node_pair_t *other = first; other < pair; other++) {
            const yaml_node_t *twin = yaml_document_get_node(reader->document, other->key);
            if (twin->type != YAML_SCALAR_NODE || strcmp((const char *)twin->data.scalar.value, word) != 0) continue;
            char where[512];
            say_where(reader, line, full, where, sizeof where);
            RAISE(RETORT_EINVAL, "%s: given twice, first in line %zu; keep one", where, twin->start_mark.line + 1);
        }
        int index = odd ? -1 : key_index(reader->schema, full);
        if (index >= 0) {
            TRY(store(reader, &reader->schema->keys[index], value));
            reader->given[index] = true;
            if (reader->origins) {
                reader->origins->line[index] = reader->option ? 0 : line;
                reader->origins->option[index] = reader->option;
            }
        } else if (*word && !odd && is_section(reader->schema, full)) {
            if (is_null(value)) continue;
            if (value->type != YAML_MAPPING_NODE) {
                char where[512], found[96];
                say_where(reader, line, full, where, sizeof where);
                describe_found(value, found, sizeof found);
                RAISE(RETORT_EINVAL, "%s: found %s, expected a section of keys", where, found);
            }
            strcat(full, ".");
            TRY(read_mapping(reader, value, full));
        } else
            TRY(complain_unknown(reader, line, full, prefix));
    }
done:
    return status;
}

/* Parses one YAML document. *present is false where the text holds none; otherwise the document is the caller's. */
static int parse(const char *what, const char *text, size_t size, yaml_document_t *document, bool *present) {
    int status = RETORT_OK;
    bool loaded = false;
    yaml_document_t second;
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return error_set(RETORT_ENOMEM, "out of memory reading %s", what);
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, size);
    if (!yaml_parser_load(&parser, document)) goto syntax;
    loaded = true;
    if (yaml_document_get_root_node(document)) {
        if (!yaml_parser_load(&parser, &second)) goto syntax;
        bool more = yaml_document_get_root_node(&second) != NULL;
        yaml_document_delete(&second);
        if (more) RAISE(RETORT_EINVAL, "%s: holds more than one YAML document; keep one", what);
    }
    *present = yaml_document_get_root_node(document) != NULL;
    if (!*present) yaml_document_delete(document);
    goto done;
syntax:
    if (parser.error == YAML_MEMORY_ERROR) RAISE(RETORT_ENOMEM, "out of memory reading %s", what);
    if (parser.error == YAML_READER_ERROR)
        RAISE(RETORT_EINVAL, "%s: not UTF-8 text (%s at byte %zu)", what, parser.problem, parser.problem_offset);
    RAISE(RETORT_EINVAL, "%s:%zu:%zu: not YAML: %s%s%s", what, parser.problem_mark.line + 1,
          parser.problem_mark.column + 1, parser.context ? parser.context : "", parser.context ? ", " : "",
          parser.problem ? parser.problem : "malformed");
done:
    if (status < 0 && loaded) yaml_document_delete(document);
    yaml_parser_delete(&parser);
    return status;
}

static int read_option(struct reader *reader, const struct schema_override *override) {
    int status = RETORT_OK;
    bool present = false;
    yaml_document_t document;
    const char *equals = strchr(override->assignment, '=');
    size_t length = equals ? (size_t)(equals - override->assignment) : 0;
    char path[128];
    if (!equals || length == 0 || length >= sizeof path)
        RAISE(RETORT_EINVAL, "%s: expected KEY=VALUE, such as outer.lr=0.01", override->option);
    memcpy(path, override->assignment, length);
    path[length] = '\0';
    reader->option = arena_copy_text(reader->arena, override->option);
    if (!reader->option) RAISE(RETORT_ENOMEM, "out of memory reading options");
    TRY(parse(override->option, equals + 1, strlen(equals + 1), &document, &present));
    if (!present) RAISE(RETORT_EINVAL, "%s: %s: found nothing after =", override->option, path);
    reader->document = &document;
    const yaml_node_t *root = yaml_document_get_root_node(&document);
    int index = key_index(reader->schema, path);
    if (index >= 0) {
        TRY(store(reader, &reader->schema->keys[index], root));
        reader->given[index] = true;
        if (reader->origins) {
            reader->origins->line[index] = 0;
            reader->origins->option[index] = reader->option;
        }
    } else if (is_section(reader->schema, path)) {
        if (root->type != YAML_MAPPING_NODE)
            RAISE(RETORT_EINVAL, "%s: %s is a section; set a key of it, as in --set %s.KEY=VALUE", override->option,
                  path, path);
        strcat(path, ".");
        TRY(read_mapping(reader, root, path));
    } else {
        const char *dot = strrchr(path, '.');
        TRY(complain_unknown(reader, 0, path, dot ? (size_t)(dot - path) + 1 : 0));
    }
done:
    if (present) yaml_document_delete(&document);
    reader->document = NULL;
    return status;
}

static size_t inherited_size(enum key_type type) {
    return type == KEY_REAL ? sizeof(double) : type == KEY_BOOL ? sizeof(bool) : sizeof(int);
}

static int read_defaults(struct reader *reader) {
    int status = RETORT_OK;
    const struct schema *schema = reader->schema;
    struct text missing;
    text_init(&missing);
    const char *example = NULL;
    for (size_t i = 0; i < schema->count; i++) {
        const struct schema_key *key = &schema->keys[i];
        if (reader->given[i]) continue;
        if (key->standard) {
            yaml_document_t document;
            bool present = false;
            struct reader plain_reader = *reader;
            plain_reader.file = plain_reader.option = NULL;
            plain_reader.document = &document;
            TRY(parse(key->path, key->standard, strlen(key->standard), &document, &present));
            if (!present) RAISE(RETORT_EINVAL, "the default of %s is empty", key->path);
            status = store(&plain_reader, key, yaml_document_get_root_node(&document));
            yaml_document_delete(&document);
            if (status < 0) goto done;
        } else if (key->inherit) {
            int source = key_index(schema, key->inherit);
            if (source < 0) RAISE(RETORT_EINVAL, "%s inherits from %s, which is no key", key->path, key->inherit);
            memcpy((char *)reader->out + key->offset, (const char *)reader->out + schema->keys[source].offset,
                   inherited_size(key->type));
        } else {
            text_printf(&missing, "%s%s", missing.length ? ", " : "", key->path);
            if (!example) example = key->help;
        }
    }
    if (missing.length)
        RAISE(RETORT_EINVAL, "%s: missing %s, which ha%s no default (%s)", reader->file, text_get(&missing),
              strchr(text_get(&missing), ',') ? "ve" : "s", example);
done:
    text_finish(&missing);
    return status;
}

int schema_read(const struct schema *schema, const char *file, const char *folder, const char *text, size_t size,
                const struct schema_override *overrides, size_t override_count, struct arena *arena, void *out,
                struct schema_origins *origins) {
    int status = RETORT_OK;
    bool present = false;
    yaml_document_t document;
    struct reader reader = {.schema = schema,
                            .file = file,
                            .folder = folder,
                            .arena = arena,
                            .out = out,
                            .origins = origins,
                            .document = &document};
    if (origins) {
        *origins = (struct schema_origins){0};
        origins->file = file;
    }
    if (schema->count > SCHEMA_MAX_KEYS) RAISE(RETORT_EINVAL, "the schema of %s has too many keys", file);
    TRY(parse(file, text, size, &document, &present));
    if (present) {
        const yaml_node_t *root = yaml_document_get_root_node(&document);
        /* A file of comments alone is an empty section. */
        if (root->type != YAML_MAPPING_NODE && !is_null(root)) {
            char found[96];
            describe_found(root, found, sizeof found);
            RAISE(RETORT_EINVAL, "%s:%zu: found %s, expected keys such as `%s: ...`", file, root->start_mark.line + 1,
                  found, schema->keys[0].path);
        }
        if (root->type == YAML_MAPPING_NODE) TRY(read_mapping(&reader, root, ""));
    }
    for (size_t i = 0; i < override_count; i++) TRY(read_option(&reader, &overrides[i]));
    reader.option = NULL;
    TRY(read_defaults(&reader));
done:
    if (present) yaml_document_delete(&document);
    return status;
}

void schema_where(const struct schema *schema, const struct schema_origins *origins, const char *path, char *text,
                  size_t size) {
    int index = key_index(schema, path);
    if (index >= 0 && origins->option[index])
        snprintf(text, size, "%s: %s", origins->option[index], path);
    else if (index >= 0 && origins->line[index])
        snprintf(text, size, "%s:%d: %s", origins->file, origins->line[index], path);
    else
        snprintf(text, size, "%s: %s (by default)", origins->file, path);
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
        text_append(text, number);
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
        write_value(&schema->keys[i], values, text);
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
        if (!section || json_object_set_new(section, name, json_value(&schema->keys[i], values)) < 0) {
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
        write_value(&schema->keys[i], a, &x);
        write_value(&schema->keys[i], b, &y);
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
        describe_expected(key, expected, sizeof expected);
        text_printf(text, "- `%s`: %s. ", key->path, expected);
        if (key->standard)
            text_printf(text, "Default `%s`. ", key->standard);
        else if (key->inherit)
            text_printf(text, "Default: that of `%s`. ", key->inherit);
        else
            text_append(text, "Must be given. ");
        text_printf(text, "%s\n", key->help);
    }
}
