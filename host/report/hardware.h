/* Files of `retort bench --all-devices`, what was measured on the devices of one machine, and the page that compares
 * several. The format is told in docs/comparing.md; files come from anybody, so that each key is checked. */
#ifndef RETORT_REPORT_HARDWARE_H
#define RETORT_REPORT_HARDWARE_H

#include "base/memory.h"
#include "bench/load.h"

#include <jansson.h>

enum { HARDWARE_FORMAT = 1, HARDWARE_TURNS = 64, HARDWARE_DEVICES = 64 };

/* What several turns gave, in their order; of none: NaN. */
struct hardware_turns {
    double values[HARDWARE_TURNS];
    size_t count;
    double least, median, largest;
    double spread; /* from least to largest, as a share of the median */
};

/* One load on one device. Numbers are NaN and words NULL where nothing is known. */
struct hardware_row {
    bool there;
    struct hardware_turns seconds; /* of one; none where the problem was in the way */
    double joules, flops, bytes, device_bytes, build_seconds, arithmetic_seconds, memory_seconds;
    const char *way, *problem;
};
struct hardware_device {
    const char *name, *platform, *vendor, *version, *driver, *kind;
    double compute_units, lanes, global_memory;
    const char *family, *wisdom, *products, *energy, *problem;
    struct hardware_turns peak_flops, peak_bytes; /* per second; the largest counts */
    const char *peak_problem;
    struct hardware_row rows[LOADS]; /* in the order of `loads` */
};
struct hardware_file {
    json_t *json; /* to which all words belong */
    const char *path;
    const char *retort, *measured, *processor, *system, *compiler, *options, *clblast;
    double cores, memory_bytes, limit_seconds;
    bool quick;
    struct hardware_device *devices;
    size_t device_count;
};

/* RETORT_EFORMAT names the file, the key, what was found and what was expected: "mine.json:
 * results[2].loads[0].seconds: found \"x\", expected ...". What the format does not name is passed over. `path` is
 * borrowed. */
int hardware_read(const char *path, struct hardware_file *file);
/* The same from JSON in memory, to which a reference is kept. */
int hardware_check(const char *path, json_t *json, struct hardware_file *file);
void hardware_finish(struct hardware_file *file); /* NULL-safe, zeroes */

/* The page, and the same as Markdown without its pictures. */
void hardware_page(struct text *page, const struct hardware_file *files, size_t count);
void hardware_markdown(struct text *page, const struct hardware_file *files, size_t count);
/* Reads the `count` (at least 1) files and writes the page to `out`, where nothing but an earlier page may be. */
int hardware_write_page(const char *out, const struct hardware_file *files, size_t count);

#endif
