/* What the files of the schema share. */
#ifndef RETORT_RUN_SCHEMA_PRIVATE_H
#define RETORT_RUN_SCHEMA_PRIVATE_H

#include "run/schema.h"

#include <yaml.h>

/* One YAML text being read. */
struct schema_reader {
    const struct schema *schema;
    const char *file, *folder; /* file: NULL for an option or a default */
    const char *option;
    struct arena *arena;
    void *out;
    struct schema_origins *origins;
    int *given; /* by key: 0 not yet, else its source: 1 the file, 2 the first option, ... */
    int source;
    bool lenient; /* keys that the table does not have are passed over */
    yaml_document_t *document;
};

/* The struct that a key's offsets count in. */
void *schema_base(const struct schema *schema, const struct schema_key *key, const void *values);
/* "quick.yaml:7: inner.lr", or with the option in front. */
void schema_say_where(const struct schema_reader *reader, int line, const char *path, char *text, size_t size);
/* "a number above 0": what a key takes. */
void schema_describe_expected(const struct schema_key *key, char *text, size_t size);
/* "'abc'", "a list", "nothing". */
void schema_describe_found(const yaml_node_t *node, char *text, size_t size);
/* Whether a node is YAML's null, or nothing at all. */
bool schema_is_null(const yaml_node_t *node);
/* Checks a node against a key and puts its value into the struct. */
int schema_store(const struct schema_reader *reader, const struct schema_key *key, const yaml_node_t *node);

#endif
