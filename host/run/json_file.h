/* JSON to and from files. */
#ifndef RETORT_RUN_JSON_FILE_H
#define RETORT_RUN_JSON_FILE_H

#include <jansson.h>

/* Takes over the reference to `value`; NULL means that building it ran out of memory. `digits`: of numbers; 15 reads
 * well, 17 reads back exactly. */
int json_file_write(const char *path, json_t *value, int digits);
/* RETORT_EFORMAT where the file is no JSON object; RETORT_EIO or RETORT_ENOMEM where it cannot be read. */
int json_file_read(const char *path, json_t **value);
/* The same from text, called `name` in messages. */
int json_parse(const char *name, const char *text, size_t size, json_t **value);
/* A string, with question marks for what is not UTF-8: names of files, classes and devices are anybody's. */
json_t *json_text(const char *words);
/* A number, null where it is NaN or infinite. */
json_t *json_number_or_null(double value);

#endif
