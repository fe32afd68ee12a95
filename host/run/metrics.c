#include "run/metrics.h"

#include "base/error.h"
#include "base/log.h"
#include "run/json_file.h"
#include "run/profile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int metrics_open(const char *path, int keep, struct metrics_file *file) {
    int status = RETORT_OK;
    FILE *stream = fopen(path, "a+b");
    if (!stream) RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    rewind(stream);
    int lines = 0;
    off_t end = 0, at = 0;
    for (int c; lines < keep && (c = getc(stream)) != EOF;) {
        at++;
        if (c != '\n') continue;
        lines++;
        end = at;
    }
    if (lines < keep) log_warning("%s has %d lines, the checkpoint is of outer step %d", path, lines, keep);
    if (fflush(stream) != 0 || ftruncate(fileno(stream), end) < 0 || fseeko(stream, 0, SEEK_END) < 0)
        RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    *file = (struct metrics_file){stream, path};
    return RETORT_OK;
done:
    if (stream) fclose(stream);
    return status;
}

static json_t *value_of(const struct metric *row) {
    switch (row->type) {
    case METRIC_WHOLE:
        return json_integer((json_int_t)row->number);
    case METRIC_REAL:
        return json_number_or_null(row->number);
    case METRIC_TEXT:
        return json_text(row->text);
    case METRIC_NONE:
        break;
    }
    return json_null();
}

bool metrics_to_json(const struct metrics *metrics, json_t *object) {
    for (size_t i = 0; i < metrics->rows.count; i++) {
        const struct metric *row = &metrics->rows.items[i];
        const char *name = row->name, *dot;
        json_t *section = object;
        for (; (dot = strchr(name, '.')); name = dot + 1) {
            char part[64];
            snprintf(part, sizeof part, "%.*s", (int)(dot - name), name);
            json_t *inner = json_object_get(section, part);
            if (!inner && json_object_set_new(section, part, inner = json_object()) < 0) return false;
            section = inner;
        }
        if (json_object_set_new(section, name, value_of(row)) < 0) return false;
    }
    return !metrics->failed;
}

/* Takes over the reference to `row`; NULL means that building it ran out of memory. */
static int write_line(struct metrics_file *file, json_t *row) {
    int status = RETORT_OK;
    char *line = row ? json_dumps(row, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    if (!line) RAISE(RETORT_ENOMEM, "out of memory writing %s", file->path);
    if (fprintf(file->stream, "%s\n", line) < 0 || fflush(file->stream) != 0)
        RAISE(RETORT_EIO, "cannot write %s: %s", file->path, strerror(errno));
done:
    free(line);
    json_decref(row);
    return status;
}

int metrics_write(struct metrics_file *file, const struct metrics *metrics) {
    json_t *row = json_object();
    if (row && !metrics_to_json(metrics, row)) {
        json_decref(row);
        row = NULL;
    }
    return write_line(file, row);
}

int metrics_write_profile(struct metrics_file *file, const struct device_profile *profile,
                          const struct device_peaks *peaks) {
    return write_line(file, json_pack("{s:o, s:f, s:f}", "profile", profile_json(profile, peaks), "peak_gflops",
                                      peaks->flops * 1e-9, "peak_gb_per_s", peaks->bytes * 1e-9));
}

int metrics_sync(struct metrics_file *file) {
    if (fflush(file->stream) != 0 || fsync(fileno(file->stream)) < 0)
        return error_set(RETORT_EIO, "cannot write %s: %s", file->path, strerror(errno));
    return RETORT_OK;
}

void metrics_close(struct metrics_file *file) {
    if (file && file->stream) fclose(file->stream);
    if (file) *file = (struct metrics_file){0};
}
