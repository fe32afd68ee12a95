/* A key of a descriptor as pure data: what the reader of YAML (run/schema.h) goes by. It lies this low so that a method
 * can declare keys of its own without knowing who reads them. */
#ifndef RETORT_BASE_KEY_H
#define RETORT_BASE_KEY_H

#include <stddef.h>

enum key_type {
    KEY_CHOICE, /* an enum: the index of a word of `words` */
    KEY_BOOL,   /* bool: true, false (or yes, no, on, off) */
    KEY_INT,    /* int */
    KEY_LONG,   /* int64_t or uint64_t, at most 2^63 - 1 */
    KEY_REAL,   /* double */
    KEY_REALS,  /* double[items], exactly that many */
    KEY_INTS,   /* int[items], at most `items`; an int at `count_offset` holds their number, 0: exactly `items` */
    KEY_LIST,   /* const int * to any number of them in the arena; int at `count_offset`; the word is NULL and 0 */
    KEY_NAMES,  /* const char *const * to any number of texts in the arena; count and word as KEY_LIST */
    KEY_SIZE,   /* int[2]: height and width, or one number for both */
    KEY_TEXT,   /* const char * in the arena; with items above 1 a list of texts stands for them with commas between */
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
    const char *zero;         /* the word that stands for 0 (KEY_INT, KEY_LONG, KEY_SIZE, KEY_BYTES), for none, or for
                                 -1 (KEY_REAL, whose numbers are then from 0) */
    const char *before;       /* as YAML: what a copy in a run's or set's folder means that an earlier version wrote,
                                 without the key; NULL: the default */
    const char *standard;     /* the default, as YAML; NULL: `inherit`, or the key must be given */
    const char *inherit;      /* the key whose value is the default */
    const char *help;         /* one sentence */
    const char *was;          /* its former path, still read with a warning; NULL: none */
    const char *owner;        /* whose key it is ("bptt"); set by who puts the table together; NULL: everybody's */
};

/* A default of somebody's own for a key that is everybody's. */
struct key_default {
    const char *path, *standard;
};

/* Bounds of keys that have none of their own. */
#define KEY_WHOLE     1e9
#define KEY_UNBOUNDED 1e300

#endif
