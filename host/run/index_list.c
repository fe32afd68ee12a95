#include "run/index_list.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"
#include "data/data.h"

#include <stdlib.h>
#include <string.h>

static int read_npy(const char *path, int32_t **rows, int64_t *count) {
    int status = RETORT_OK;
    struct npy npy = {0};
    TRY(npy_read(path, &npy));
    if (npy.rank != 1 || npy.type == NPY_FLOAT32 || npy.type == NPY_FLOAT64)
        RAISE(RETORT_EFORMAT, "%s: expected a list of whole numbers, shape [N]", path);
    TRY(npy_to_int(&npy, path, rows));
    *count = npy.size[0];
done:
    npy_finish(&npy);
    return status;
}

static int read_text(const char *path, char *text, int32_t **rows, int64_t *count) {
    int status = RETORT_OK, line = 1;
    ARRAY(int32_t) list = {0};
    for (char *at = text; *at;) {
        if (*at == '#') at += strcspn(at, "\n");
        if (*at == '\n') line++;
        if (strchr(" \t\r\n,", *at)) {
            at += *at != '\0';
            continue;
        }
        char *end;
        long value = strtol(at, &end, 10);
        if (end == at || (*end && !strchr(" \t\r\n,#", *end)) || value < 0 || value > INT32_MAX)
            RAISE(RETORT_EFORMAT, "%s:%d: found '%.*s', expected a row's number from 0", path, line,
                  (int)(strcspn(at, " \t\r\n,#") < 40 ? strcspn(at, " \t\r\n,#") : 40), at);
        if (!array_push(&list, (int32_t)value)) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
        at = end;
    }
    *rows = list.items;
    *count = (int64_t)list.count;
    list.items = NULL;
done:
    array_finish(&list);
    return status;
}

int index_list_read(const char *path, int32_t **rows, int64_t *count) {
    int status = RETORT_OK;
    unsigned char *text = NULL;
    size_t size, length = strlen(path);
    if (length > 4 && strcmp(path + length - 4, ".npy") == 0)
        TRY(read_npy(path, rows, count));
    else {
        TRY(file_read(path, 256 << 20, &text, &size));
        if (strlen((const char *)text) != size) RAISE(RETORT_EFORMAT, "%s is not a text of whole numbers", path);
        TRY(read_text(path, (char *)text, rows, count));
    }
done:
    if (status < 0) error_context("set.indices");
    free(text);
    return status;
}
