/* Strict YAML through a table: every key of a file form is one row that tells its path, type, range, default and
 * meaning. Reading, writing, comparing and the printed reference all come from that row.
 *
 * What is refused, always naming file and line (or the option), the key, what was found and what is allowed: unknown
 * keys (with the nearest known one), duplicate keys, wrong kinds, numbers out of range or with trailing characters,
 * words that are not on the list, missing keys, several documents in one file. */
#ifndef RETORT_RUN_SCHEMA_H
#define RETORT_RUN_SCHEMA_H

#include "base/memory.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum key_type {
    KEY_CHOICE, /* an enum: the index of a word of `words` */
    KEY_BOOL,   /* bool: true, false (or yes, no, on, off) */
    KEY_INT,    /* int */
    KEY_LONG,   /* int64_t or uint64_t, at most 2^63 - 1 */
    KEY_REAL,   /* double */
    KEY_REALS,  /* double[items], exactly that many */
    KEY_INTS,   /* int[items], at most `items`; an int at `count_offset` holds their number, 0: exactly `items` */
    KEY_LIST,   /* const int * to any number of them in the arena; int at `count_offset`; the word is NULL and 0 */
    KEY_SIZE,   /* int[2]: height and width, or one number for both */
    KEY_TEXT,   /* const char * in the arena */
    KEY_PATH,   /* const char *, made absolute from the file's folder; null is NULL */
    KEY_BYTES,  /* uint64_t: a number of bytes, "512 MiB" */
};

enum { OPEN_LEAST = 1, OPEN_MOST = 2 }; /* a bound that is not itself allowed */

struct schema_key {
    const char *path; /* "inner.lr"; rows of one section stand together */
    enum key_type type;
    size_t offset, count_offset; /* in the struct that is filled */
    double least, most;          /* of numbers; both 0: any */
    int open;                    /* OPEN_... */
    int items;
    const char *const *words; /* KEY_CHOICE: NULL-terminated */
    const char *zero;         /* the word that stands for 0 (KEY_INT, KEY_LONG, KEY_SIZE, KEY_BYTES) or for no list */
    const char *standard;     /* the default, as YAML; NULL: `inherit`, or the key must be given */
    const char *inherit;      /* the key whose value is the default */
    const char *help;         /* one sentence */
};

struct schema {
    const struct schema_key *keys;
    size_t count;
};

#define SCHEMA_MAX_KEYS 128

/* Where each value came from, for messages of checks made later. */
struct schema_origins {
    const char *file;                    /* as it was called; borrowed */
    int line[SCHEMA_MAX_KEYS];           /* 0: the default, or an option */
    const char *option[SCHEMA_MAX_KEYS]; /* "--set inner.lr=2"; in the arena */
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
