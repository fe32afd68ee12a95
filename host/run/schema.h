/* Strict YAML through a table: every key of a file form is one row that tells its path, type, range, default and
 * meaning. Reading, writing, comparing and the printed reference all come from that row.
 *
 * A key that moved is still read under its former path, with a warning, and written under its new one.
 *
 * What is refused, always naming file and line (or the option), the key, what was found and what is allowed: unknown
 * keys (with the nearest known one), duplicate keys, wrong kinds, numbers out of range or with trailing characters,
 * words that are not on the list, missing keys, keys of somebody else, several documents in one file. */
#ifndef RETORT_RUN_SCHEMA_H
#define RETORT_RUN_SCHEMA_H

#include "base/key.h"
#include "base/memory.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct schema {
    const struct schema_key *keys;
    size_t count;
    /* Keys with an owner fill a struct of the owner's, which the pointer at offset `block` of the whole leads to. */
    size_t block;
    /* Keys of other owners: refused by naming the owner beside `owner`, which is who may have keys here. */
    const struct schema_key *others;
    size_t other_count;
    const char *owner;
    bool copy; /* what is read is a copy that a run's or set's folder keeps: complete, so that a key that it lacks came
                  later, and means what was done before (`before` of its row) */
};

/* Where each value came from, for messages of checks made later. Arrays by key, in the arena. */
struct schema_origins {
    const char *file;    /* as it was called; borrowed */
    int *line;           /* 0: the default, or an option */
    const char **option; /* "--set inner.lr=2" */
};

/* `key=value` from the command line: `option` is what messages call it. */
struct schema_override {
    const char *option, *assignment;
};

/* Reads YAML text (`size` bytes, called `file` in messages; relative paths start at `folder`) and then the overrides
 * into *out, whose strings and lists live in the arena. `origins` may be NULL. RETORT_EINVAL with the words. */
int schema_read(const struct schema *schema, const char *file, const char *folder, const char *text, size_t size,
                const struct schema_override *overrides, size_t override_count, struct arena *arena, void *out,
                struct schema_origins *origins);

/* Reads the value of one KEY_CHOICE, its default where it is not given, and passes over everything else: for a key that
 * decides which others there are. */
int schema_read_choice(const struct schema *schema, const char *path, const char *file, const char *text, size_t size,
                       const struct schema_override *overrides, size_t override_count, struct arena *arena,
                       int *choice);

/* "quick.yaml:7: method.window" or "--set method.window=3: method.window", for a message about a key's value. */
void schema_where(const struct schema *schema, const struct schema_origins *origins, const char *path, char *text,
                  size_t size);

/* "512 MiB", "1.5GB" or a plain number of bytes; false: something else. */
bool schema_read_bytes(const char *text, uint64_t *bytes);

/* Every key with its value as YAML: reading it back gives the same values, writing those the same bytes. */
void schema_write(const struct schema *schema, const void *values, struct text *text);
/* The same as a JSON object (which is YAML too); NULL when out of memory. */
json_t *schema_json(const struct schema *schema, const void *values);
/* The first key whose values differ, with both as text (in `mine`, `theirs`); NULL where none does. */
const char *schema_difference(const struct schema *schema, const void *a, const void *b, struct text *mine,
                              struct text *theirs);
/* The reference of all keys, Markdown. */
void schema_reference(const struct schema *schema, struct text *text);

#endif
