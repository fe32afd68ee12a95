/* SHA-256 of files. */
#ifndef RETORT_RUN_DIGEST_H
#define RETORT_RUN_DIGEST_H

#include <stddef.h>

/* Of the bytes of the files one after another. */
int digest_files(const char *const *paths, size_t count, char hex[65]);

#endif
