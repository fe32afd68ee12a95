/* What the system tells of the energy that a device takes: counters of the processors (RAPL, /sys/class/powercap) and
 * of graphics cards (/sys/class/hwmon), which also tells the power of some. */
#ifndef RETORT_BENCH_ENERGY_H
#define RETORT_BENCH_ENERGY_H

#include "device/device.h"

enum { ENERGY_METERS = 16, ENERGY_PATH = 256 };
struct energy_meter {
    char path[ENERGY_PATH];
    double joules; /* of one of its counts; of a meter of power watts */
    double wraps;  /* counts after which it begins at 0 again; 0: never */
    bool power;
};
struct energy {
    struct energy_meter meters[ENERGY_METERS];
    int count;       /* 0: nothing is told */
    char source[96]; /* in words, or why nothing is told */
};
/* Meters of what computes on a device of this kind, under `root` ("/sys"): of all processors' packages for a CPU, of
 * the one card there is for a GPU, since nothing tells which card is which device. */
void energy_find(const char *root, enum device_kind kind, struct energy *energy);

struct energy_reading {
    double seconds, values[ENERGY_METERS];
};
void energy_read(const struct energy *energy, struct energy_reading *reading);
/* Joules between two readings, those of idling included; NaN where a meter could not be read. Of a meter of power, the
 * mean of what it showed at both. */
double energy_between(const struct energy *energy, const struct energy_reading *before,
                      const struct energy_reading *after);

#endif
