/* Named values, in the order in which they were left: what a method tells about a step, and about itself at the end.
 * Whoever writes them (run/metrics.h) needs to know no name. */
#ifndef RETORT_DISTILL_METRIC_H
#define RETORT_DISTILL_METRIC_H

#include "base/memory.h"

#include <stdint.h>

enum metric_type { METRIC_NONE, METRIC_WHOLE, METRIC_REAL, METRIC_TEXT };

struct metric {
    const char *name; /* a literal; "stages.early" is the member `early` of `stages` */
    enum metric_type type;
    double number;    /* METRIC_WHOLE, METRIC_REAL; not finite: written as null */
    const char *text; /* METRIC_TEXT; a literal */
};

struct metrics {
    ARRAY(struct metric) rows;
    bool failed; /* out of memory: a row is missing */
};

void metrics_clear(struct metrics *metrics);  /* keeps the room */
void metrics_finish(struct metrics *metrics); /* NULL-safe, zeroes */

void metric_none(struct metrics *metrics, const char *name); /* a value that there is not: null */
void metric_whole(struct metrics *metrics, const char *name, int64_t value);
void metric_real(struct metrics *metrics, const char *name, double value);
void metric_text(struct metrics *metrics, const char *name, const char *text); /* NULL: as metric_none */

/* The number or text of that name; NaN or NULL where there is none. */
double metric_number(const struct metrics *metrics, const char *name);
const char *metric_word(const struct metrics *metrics, const char *name);

#endif
