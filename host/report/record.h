/* What a run folder holds, read by a bystander: without a device, without the data, while the run may be at work, and
 * whatever of it is missing or damaged. */
#ifndef RETORT_REPORT_RECORD_H
#define RETORT_REPORT_RECORD_H

#include "base/file.h"
#include "base/memory.h"

#include <jansson.h>
#include <stdint.h>

/* metrics.jsonl by columns: each has a value for each line, NaN where the line has none. */
struct column {
    char name[48];
    bool text; /* values are indices of `words` */
    ARRAY(double) values;
};
struct metrics_table {
    size_t rows;
    ARRAY(struct column) columns;
    ARRAY(char *) words;
    json_t *profile; /* the line with the profile; NULL: none */
};
/* NULL where there is no such column, or of the other kind. */
const double *metrics_column(const struct metrics_table *metrics, const char *name);
const double *metrics_text_column(const struct metrics_table *metrics, const char *name);
/* Never fails but for memory or a file that cannot be read: lines that are no JSON are left out, *damaged counts them,
 * without a last one that has no end: the run is at work, or was killed. */
int metrics_read(const char *path, struct metrics_table *metrics, size_t *damaged);
void metrics_table_finish(struct metrics_table *metrics);

/* The distilled images as pixels, and their labels. */
struct record_set {
    int64_t count; /* 0: there is no set */
    int channels, height, width, classes;
    float *pixels; /* [count,channels,height,width], each from 0 to 1 */
    bool exact;    /* false: whitening of this kind cannot be undone, each image is stretched to its own range */
    float *soft;   /* [count,classes], or NULL */
    int32_t *hard; /* [count], or NULL */
};

#define PREVIEW_LAST INT64_MAX
struct preview {
    int64_t step; /* outer steps after which it was drawn; PREVIEW_LAST: preview.png, of whenever the run drew last */
    unsigned char *png;
    size_t size;
};

struct record {
    char path[FILE_PATH_MAX];
    char name[256]; /* the folder's own */
    /* Each NULL where there is no such file, or none that can be read, which `notes` says. */
    char *descriptor;              /* its text */
    json_t *result, *about, *plan; /* result.json, set/set.json, plan.json */
    json_t *recipe;                /* the descriptor's keys */
    json_t *accuracy;              /* of result.json; of a run that is still being evaluated, of its rows so far */
    struct metrics_table metrics;
    struct record_set set;
    ARRAY(struct preview) previews; /* by step; preview.png stands here only where there is no set */
    ARRAY(char *) notes;            /* what could not be read, in words */
};

/* RETORT_EINVAL where the folder is not there or holds no run. */
int record_read(const char *path, struct record *record);
void record_finish(struct record *record);

const char *record_class_name(const struct record *record, int class); /* NULL where nothing names it */
/* The class that image i belongs to: its label or, where labels are learned, the group that it began in. */
int record_class(const struct record *record, int64_t i);
int64_t record_outer_steps(const struct record *record); /* asked for; 0: unknown */
double record_step_seconds(const struct record *record); /* the median outer step's; NaN: unknown */

#endif
