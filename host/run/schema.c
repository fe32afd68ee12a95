/* YAML text into a struct: keys are found, refused, defaulted. */
#include "run/schema_private.h"

#include "base/error.h"
#include "base/log.h"
#include "run/nearest.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

void schema_say_where(const struct schema_reader *reader, int line, const char *path, char *text, size_t size) {
    if (reader->option)
        snprintf(text, size, "%s: %s", reader->option, path);
    else if (reader->file)
        snprintf(text, size, "%s:%d: %s", reader->file, line, path);
    else
        snprintf(text, size, "default of %s", path);
}

/* --- keys --- */
void *schema_base(const struct schema *schema, const struct schema_key *key, const void *values) {
    const char *whole = values;
    return key->owner ? *(void *const *)(const void *)(whole + schema->block) : (void *)(uintptr_t)whole;
}

static int key_index(const struct schema *schema, const char *path) {
    for (size_t i = 0; i < schema->count; i++)
        if (strcmp(schema->keys[i].path, path) == 0) return (int)i;
    return -1;
}

/* The key that once had this path. */
static int moved_index(const struct schema *schema, const char *path) {
    for (size_t i = 0; i < schema->count; i++)
        if (schema->keys[i].was && strcmp(schema->keys[i].was, path) == 0) return (int)i;
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

static int complain_unknown(const struct schema_reader *reader, int line, const char *path, size_t prefix) {
    char where[512], best[96];
    schema_say_where(reader, line, path, where, sizeof where);
    for (size_t i = 0; i < reader->schema->other_count; i++) {
        const struct schema_key *other = &reader->schema->others[i];
        size_t length = strlen(path);
        if (strncmp(other->path, path, length) == 0 && (!other->path[length] || other->path[length] == '.'))
            return error_set(RETORT_EINVAL, "%s belongs to %s, this is %s; leave it out", where, other->owner,
                             reader->schema->owner);
    }
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

/* Stores the value of the key that has this path, or had it formerly; *known is false where there is no such key. */
static int read_key(struct schema_reader *reader, int line, const char *path, const yaml_node_t *value, bool *known) {
    int status = RETORT_OK;
    char where[512];
    int index = key_index(reader->schema, path), moved = index < 0 ? moved_index(reader->schema, path) : -1;
    if (moved >= 0) index = moved;
    *known = index >= 0;
    if (index < 0) return RETORT_OK;
    const struct schema_key *key = &reader->schema->keys[index];
    schema_say_where(reader, line, path, where, sizeof where);
    if (reader->given[index] == reader->source)
        RAISE(RETORT_EINVAL, "%s: %s is the former name of %s, and both are given; keep the latter", where, key->was,
              key->path);
    if (moved >= 0) log_warning("%s is called %s now; the former name is still read", where, key->path);
    TRY(schema_store(reader, key, value));
    reader->given[index] = reader->source;
    if (reader->origins) {
        reader->origins->line[index] = reader->option ? 0 : line;
        reader->origins->option[index] = reader->option;
    }
done:
    return status;
}

/* Reads the pairs of a mapping whose keys start with `path` up to `prefix`. The depth is that of the schema, so a
 * document that contains itself by an anchor ends at an unknown key. */
static int read_mapping(struct schema_reader *reader, const yaml_node_t *mapping, const char *path) {
    int status = RETORT_OK;
    size_t prefix = strlen(path);
    const yaml_node_pair_t *first = mapping->data.mapping.pairs.start;
    for (const yaml_node_pair_t *pair = first; pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *name = yaml_document_get_node(reader->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(reader->document, pair->value);
        int line = (int)name->start_mark.line + 1;
        bool known = false;
        char full[256];
        if (name->type != YAML_SCALAR_NODE) {
            schema_say_where(reader, line, prefix ? path : "the file", full, sizeof full);
            RAISE(RETORT_EINVAL, "%s: a list or section stands where a key's name belongs", full);
        }
        const char *word = (const char *)name->data.scalar.value;
        bool odd = strlen(word) != name->data.scalar.length || strchr(word, '.');
        snprintf(full, sizeof full, "%s%.120s", path, word);
        for (const yaml_node_pair_t *other = first; other < pair; other++) {
            const yaml_node_t *twin = yaml_document_get_node(reader->document, other->key);
            if (twin->type != YAML_SCALAR_NODE || strcmp((const char *)twin->data.scalar.value, word) != 0) continue;
            char where[512];
            schema_say_where(reader, line, full, where, sizeof where);
            RAISE(RETORT_EINVAL, "%s: given twice, first in line %zu; keep one", where, twin->start_mark.line + 1);
        }
        if (!odd) TRY(read_key(reader, line, full, value, &known));
        if (known) continue;
        if (*word && !odd && is_section(reader->schema, full)) {
            if (schema_is_null(value)) continue;
            if (value->type != YAML_MAPPING_NODE) {
                char where[512], found[96];
                schema_say_where(reader, line, full, where, sizeof where);
                schema_describe_found(value, found, sizeof found);
                RAISE(RETORT_EINVAL, "%s: found %s, expected a section of keys", where, found);
            }
            strcat(full, ".");
            TRY(read_mapping(reader, value, full));
        } else if (!reader->lenient)
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
    const char *problem = parser.problem ? parser.problem : "malformed";
    RAISE(RETORT_EINVAL, "%s:%zu:%zu: not YAML: %s%s%s%s", what, parser.problem_mark.line + 1,
          parser.problem_mark.column + 1, parser.context ? parser.context : "", parser.context ? ", " : "", problem,
          strstr(problem, "cannot start any token") ? " (indent by spaces, not by tabs; put @, ` and % in quotes)"
                                                    : "");
done:
    if (status < 0 && loaded) yaml_document_delete(document);
    yaml_parser_delete(&parser);
    return status;
}

static int read_option(struct schema_reader *reader, const struct schema_override *override) {
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
    bool known = false;
    TRY(read_key(reader, 0, path, root, &known));
    if (!known && is_section(reader->schema, path)) {
        if (root->type != YAML_MAPPING_NODE)
            RAISE(RETORT_EINVAL, "%s: %s is a section; set a key of it, as in --set %s.KEY=VALUE", override->option,
                  path, path);
        strcat(path, ".");
        TRY(read_mapping(reader, root, path));
    } else if (!known && !reader->lenient) {
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

static int read_default(const struct schema_reader *reader, const struct schema_key *key) {
    int status = RETORT_OK;
    yaml_document_t document;
    bool present = false;
    struct schema_reader plain_reader = *reader;
    plain_reader.file = plain_reader.option = NULL;
    plain_reader.document = &document;
    const char *value = reader->schema->copy && key->before ? key->before : key->standard;
    TRY(parse(key->path, value, strlen(value), &document, &present));
    if (!present) RAISE(RETORT_EINVAL, "the default of %s is empty", key->path);
    TRY(schema_store(&plain_reader, key, yaml_document_get_root_node(&document)));
done:
    if (present) yaml_document_delete(&document);
    return status;
}

static int read_defaults(struct schema_reader *reader) {
    int status = RETORT_OK;
    const struct schema *schema = reader->schema;
    struct text missing;
    text_init(&missing);
    const char *example = NULL;
    for (size_t i = 0; i < schema->count; i++) {
        const struct schema_key *key = &schema->keys[i];
        if (reader->given[i]) continue;
        if (key->standard) {
            TRY(read_default(reader, key));
        } else if (key->inherit) {
            int source = key_index(schema, key->inherit);
            if (source < 0) RAISE(RETORT_EINVAL, "%s inherits from %s, which is no key", key->path, key->inherit);
            memcpy((char *)schema_base(schema, key, reader->out) + key->offset,
                   (const char *)schema_base(schema, &schema->keys[source], reader->out) + schema->keys[source].offset,
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

/* The file, then the options. */
static int read_sources(struct schema_reader *reader, const char *text, size_t size,
                        const struct schema_override *overrides, size_t override_count) {
    int status = RETORT_OK;
    bool present = false;
    yaml_document_t document;
    reader->given = arena_array(reader->arena, reader->schema->count, sizeof *reader->given);
    if (!reader->given) RAISE(RETORT_ENOMEM, "out of memory reading %s", reader->file);
    reader->source = 1;
    /* cppcheck-suppress autoVariables; nothing reads it once this function is left */
    reader->document = &document;
    TRY(parse(reader->file, text, size, &document, &present));
    if (present) {
        const yaml_node_t *root = yaml_document_get_root_node(&document);
        /* A file of comments alone is an empty section. */
        if (root->type != YAML_MAPPING_NODE && !schema_is_null(root) && !reader->lenient) {
            char found[96];
            schema_describe_found(root, found, sizeof found);
            RAISE(RETORT_EINVAL, "%s:%zu: found %s, expected keys such as `%s: ...`", reader->file,
                  root->start_mark.line + 1, found, reader->schema->keys[0].path);
        }
        if (root->type == YAML_MAPPING_NODE) TRY(read_mapping(reader, root, ""));
    }
    for (size_t i = 0; i < override_count; i++) {
        reader->source++;
        TRY(read_option(reader, &overrides[i]));
    }
    reader->option = NULL;
done:
    if (present) yaml_document_delete(&document);
    return status;
}

int schema_read(const struct schema *schema, const char *file, const char *folder, const char *text, size_t size,
                const struct schema_override *overrides, size_t override_count, struct arena *arena, void *out,
                struct schema_origins *origins) {
    int status = RETORT_OK;
    struct schema_reader reader = {
        .schema = schema, .file = file, .folder = folder, .arena = arena, .out = out, .origins = origins};
    if (origins) {
        *origins = (struct schema_origins){.file = file,
                                           .line = arena_array(arena, schema->count, sizeof *origins->line),
                                           .option = arena_array(arena, schema->count, sizeof *origins->option)};
        if (!origins->line || !origins->option) RAISE(RETORT_ENOMEM, "out of memory reading %s", file);
    }
    TRY(read_sources(&reader, text, size, overrides, override_count));
    TRY(read_defaults(&reader));
done:
    return status;
}

int schema_read_choice(const struct schema *schema, const char *path, const char *file, const char *text, size_t size,
                       const struct schema_override *overrides, size_t override_count, struct arena *arena,
                       int *choice) {
    int status = RETORT_OK, index = key_index(schema, path), value = 0;
    struct schema_key key = schema->keys[index];
    key.offset = 0;
    const struct schema one = {&key, 1};
    struct schema_reader reader = {.schema = &one, .file = file, .arena = arena, .out = &value, .lenient = true};
    TRY(read_sources(&reader, text, size, overrides, override_count));
    if (!reader.given[0]) TRY(read_default(&reader, &key));
    *choice = value;
done:
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
