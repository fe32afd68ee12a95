#include "run/json_file.h"

#include "base/error.h"
#include "base/file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int json_file_write(const char *path, json_t *value, int digits) {
    int status = RETORT_OK;
    char *text = value ? json_dumps(value, JSON_INDENT(2) | JSON_REAL_PRECISION(digits)) : NULL;
    if (!text) RAISE(RETORT_ENOMEM, "out of memory writing %s", path);
    size_t length = strlen(text);
    text[length] = '\n'; /* in the place of the terminator: what is written ends in a newline */
    TRY(file_write(path, text, length + 1));
done:
    free(text);
    json_decref(value);
    return status;
}

int json_file_read(const char *path, json_t **value) {
    int status = RETORT_OK;
    unsigned char *text = NULL;
    size_t size;
    TRY(file_read(path, 64 << 20, &text, &size));
    TRY(json_parse(path, (const char *)text, size, value));
done:
    free(text);
    return status;
}

int json_parse(const char *name, const char *text, size_t size, json_t **value) {
    int status = RETORT_OK;
    json_error_t error;
    json_t *parsed = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!parsed && json_error_code(&error) == json_error_out_of_memory)
        RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    if (!parsed) RAISE(RETORT_EFORMAT, "%s:%d: not JSON: %s", name, error.line, error.text);
    if (!json_is_object(parsed)) {
        json_decref(parsed);
        RAISE(RETORT_EFORMAT, "%s: expected a JSON object", name);
    }
    *value = parsed;
done:
    return status;
}

json_t *json_text(const char *words) {
    json_t *value = json_string(words);
    if (value) return value;
    char *plain = strdup(words);
    for (char *c = plain; c && *c; c++)
        if ((unsigned char)*c >= 128) *c = '?';
    value = plain ? json_string(plain) : NULL;
    free(plain);
    return value;
}

json_t *json_number_or_null(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}
