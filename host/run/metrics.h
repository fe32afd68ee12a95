/* metrics.jsonl: one JSON line per outer step, with whatever the method names, and one more at the end where a profile
 * was asked for. */
#ifndef RETORT_RUN_METRICS_H
#define RETORT_RUN_METRICS_H

#include "device/device.h"
#include "distill/metric.h"

#include <jansson.h>
#include <stdio.h>

struct metrics_file {
    FILE *stream;
    const char *path; /* borrowed */
};

/* Opens PATH to append after its first `keep` lines; what follows them, left by a run that was killed, is cut off. */
int metrics_open(const char *path, int keep, struct metrics_file *file);
/* Appends a line and hands it to the system. */
int metrics_write(struct metrics_file *file, const struct metrics *metrics);
/* Appends {"profile": [...], "peak_gflops": ..., "peak_gb_per_s": ...}; profile.h has its rows. */
int metrics_write_profile(struct metrics_file *file, const struct device_profile *profile,
                          const struct device_peaks *peaks);
/* Makes what was written safe against loss of power. */
int metrics_sync(struct metrics_file *file);
void metrics_close(struct metrics_file *file); /* NULL-safe */

/* Sets a member of the object for each row; "stages.early" becomes the member `early` of the object `stages`. False
 * when out of memory. */
bool metrics_to_json(const struct metrics *metrics, json_t *object);

#endif
