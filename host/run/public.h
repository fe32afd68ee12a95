/* What the entries of the public API share. */
#ifndef RETORT_RUN_PUBLIC_H
#define RETORT_RUN_PUBLIC_H

#include "base/memory.h"
#include "run/descriptor.h"

/* Members `reserved` of the public options, which a later version may give a meaning: a program that was built for one,
 * or that did not zero its options, must not have them ignored. `what` is the name of the struct. */
int public_check_reserved(const char *what, const void *const reserved[8]);

/* "KEY=VALUE", NULL-terminated or NULL, as overrides of a descriptor, in the arena; arena->failed when out of memory.
 */
struct schema_override *public_overrides(const char *const *settings, struct arena *arena, size_t *count);

/* Reads a descriptor from memory; its relative paths start at `folder`, NULL: the working directory. */
int public_parse(const char *name, const char *folder, const char *text, const struct schema_override *overrides,
                 size_t count, struct descriptor *descriptor);

#endif
