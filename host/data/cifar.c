/* CIFAR-10 and CIFAR-100, binary version: records of one or two label bytes and 3 x 32 x 32 planes. */
#include "data/readers.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, PIXELS = 3 * SIDE * SIDE };

int cifar_decode(const char *name, const unsigned char *bytes, size_t size, int label_bytes, struct part *part) {
    size_t record = (size_t)label_bytes + PIXELS, count = size / record;
    if (count == 0 || size % record != 0)
        return error_set(RETORT_EFORMAT,
                         "%s has %zu bytes, which is not a number of records of %zu bytes; expected CIFAR-%s in its "
                         "binary version, whole: fetch it again",
                         name, size, record, label_bytes == 1 ? "10" : "100");
    int classes = label_bytes == 1 ? 10 : 100;
    for (size_t i = 0; i < count; i++) {
        const unsigned char *label = bytes + i * record;
        if (label[label_bytes - 1] >= classes || (label_bytes == 2 && label[0] >= 20))
            return error_set(RETORT_EFORMAT,
                             "%s: record %zu has label %d; expected labels below %d: is it CIFAR-%s's binary version?",
                             name, i, label_bytes == 2 && label[0] >= 20 ? label[0] : label[label_bytes - 1],
                             label_bytes == 2 && label[0] >= 20 ? 20 : classes, label_bytes == 1 ? "10" : "100");
    }
    size_t begin = (size_t)part->count;
    unsigned char *pixels = realloc(part->bytes, (begin + count) * PIXELS);
    if (pixels) part->bytes = pixels;
    int32_t *labels = realloc(part->labels, (begin + count) * sizeof *labels);
    if (labels) part->labels = labels;
    if (!pixels || !labels) return error_set(RETORT_ENOMEM, "out of memory reading %s", name);
    for (size_t i = 0; i < count; i++) {
        part->labels[begin + i] = bytes[i * record + (size_t)label_bytes - 1];
        memcpy(part->bytes + (begin + i) * PIXELS, bytes + i * record + label_bytes, PIXELS);
    }
    part->count += (int64_t)count;
    part->channels = 3;
    part->height = part->width = SIDE;
    return RETORT_OK;
}

static int read_records(const char *folder, const char *name, int label_bytes, struct part *part) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    unsigned char *bytes = NULL;
    size_t size;
    TRY(path_join(folder, name, path));
    TRY(file_read(path, 0, &bytes, &size));
    TRY(cifar_decode(path, bytes, size, label_bytes, part));
done:
    free(bytes);
    return status;
}

/* One name a line. A file of names that does not fit is reported, and the classes go by the names they are known by. */
static int read_names(const char *folder, const char *name, struct source *source) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    unsigned char *bytes = NULL;
    size_t size;
    char **names = NULL;
    int count = 0;
    TRY(path_join(folder, name, path));
    if (!file_exists(path)) goto done;
    TRY(file_read(path, 1 << 16, &bytes, &size));
    names = calloc((size_t)source->classes, sizeof *names);
    if (!names) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
    char *rest, *line = strtok_r((char *)bytes, "\r\n", &rest);
    for (; line && count < source->classes; line = strtok_r(NULL, "\r\n", &rest), count++)
        if (!(names[count] = strdup(line))) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
    if (line || count < source->classes) {
        log_warning("%s does not hold %d names, one a line; the usual names are taken", path, source->classes);
        goto done;
    }
    source->class_names = names;
    names = NULL;
done:
    free(bytes);
    for (int i = 0; names && i < source->classes; i++) free(names[i]);
    free(names);
    return status;
}

int cifar_load(const struct data_spec *spec, struct source *source) {
    int status = RETORT_OK;
    bool ten = spec->kind == DATA_CIFAR10;
    char folder[FILE_PATH_MAX], first[FILE_PATH_MAX];
    /* The folder itself, or its parent, as the archive unpacks. */
    TRY(path_join(spec->path, ten ? "cifar-10-batches-bin" : "cifar-100-binary", folder));
    if (!folder_exists(folder)) TRY(path_join(spec->path, ".", folder));
    TRY(path_join(folder, ten ? "data_batch_1.bin" : "train.bin", first));
    if (!file_exists(first))
        RAISE(RETORT_EIO, "there is no %s; expected the folder of CIFAR-%s's binary version, or its parent", first,
              ten ? "10" : "100");
    source->white = 255;
    source->classes = ten ? 10 : 100;
    if (ten)
        for (int i = 1; i <= 5; i++) {
            char name[32];
            snprintf(name, sizeof name, "data_batch_%d.bin", i);
            TRY(read_records(folder, name, 1, &source->train));
        }
    else
        TRY(read_records(folder, "train.bin", 2, &source->train));
    TRY(read_records(folder, ten ? "test_batch.bin" : "test.bin", ten ? 1 : 2, &source->test));
    TRY(read_names(folder, ten ? "batches.meta.txt" : "fine_label_names.txt", source));
done:
    return status;
}
