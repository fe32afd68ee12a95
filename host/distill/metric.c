#include "distill/metric.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void metrics_clear(struct metrics *metrics) {
    metrics->rows.count = 0;
    metrics->failed = false;
}

void metrics_finish(struct metrics *metrics) {
    if (!metrics) return;
    array_finish(&metrics->rows);
    metrics->failed = false;
}

static void leave(struct metrics *metrics, struct metric row) {
    if (!array_push(&metrics->rows, row)) metrics->failed = true;
}

void metric_none(struct metrics *metrics, const char *name) {
    leave(metrics, (struct metric){.name = name, .type = METRIC_NONE, .number = NAN});
}

void metric_whole(struct metrics *metrics, const char *name, int64_t value) {
    leave(metrics, (struct metric){.name = name, .type = METRIC_WHOLE, .number = (double)value});
}

void metric_real(struct metrics *metrics, const char *name, double value) {
    leave(metrics, (struct metric){.name = name, .type = METRIC_REAL, .number = value});
}

void metric_text(struct metrics *metrics, const char *name, const char *text) {
    if (!text)
        metric_none(metrics, name);
    else
        leave(metrics, (struct metric){.name = name, .type = METRIC_TEXT, .number = NAN, .text = text});
}

static const struct metric *find(const struct metrics *metrics, const char *name) {
    for (size_t i = 0; i < metrics->rows.count; i++)
        if (strcmp(metrics->rows.items[i].name, name) == 0) return &metrics->rows.items[i];
    return NULL;
}

double metric_number(const struct metrics *metrics, const char *name) {
    const struct metric *row = find(metrics, name);
    return row ? row->number : NAN;
}

const char *metric_word(const struct metrics *metrics, const char *name) {
    const struct metric *row = find(metrics, name);
    return row ? row->text : NULL;
}
