#include "bench/energy.h"

#include "base/file.h"
#include "base/log.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool read_line(const char *folder, const char *name, char line[128]) {
    char path[ENERGY_PATH + 64];
    return snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path && file_first_line(path, line, 128);
}

static double read_number(const char *path) {
    char text[128], *end;
    if (!file_first_line(path, text, sizeof text)) return NAN;
    double value = strtod(text, &end);
    return end == text ? NAN : value;
}

/* Adds a file that can be read now. What only root may read is no meter. */
static bool add_meter(struct energy *energy, const char *folder, const char *name, double unit, bool power) {
    struct energy_meter meter = {.joules = unit, .power = power};
    if (energy->count == ENERGY_METERS
        || snprintf(meter.path, sizeof meter.path, "%s/%s", folder, name) >= (int)sizeof meter.path
        || !isfinite(read_number(meter.path)))
        return false;
    energy->meters[energy->count++] = meter;
    return true;
}

/* A zone "intel-rapl:0" is a package, "intel-rapl:0:1" a part of one, which the package counts already. AMD's have the
 * same names. */
static void add_package(struct energy *energy, const char *folder, const char *zone) {
    char words[128], *end;
    const char *colon = strchr(zone, ':');
    if (!colon || strchr(colon + 1, ':') || !read_line(folder, "name", words)) return;
    if (strncmp(words, "package", 7) != 0 || !add_meter(energy, folder, "energy_uj", 1e-6, false)) return;
    if (!read_line(folder, "max_energy_range_uj", words)) return;
    double wraps = strtod(words, &end);
    if (end != words) energy->meters[energy->count - 1].wraps = wraps;
}

/* Graphics cards, by the names of their drivers: other sensors of a board are none of a device. */
static void add_card(struct energy *energy, const char *folder, const char *zone) {
    static const char *const drivers[] = {"amdgpu", "i915", "xe", "nouveau", "panthor"};
    char words[128];
    (void)zone;
    if (!read_line(folder, "name", words)) return;
    for (size_t i = 0; i < sizeof drivers / sizeof *drivers; i++) {
        if (strcmp(words, drivers[i]) != 0) continue;
        if (!add_meter(energy, folder, "energy1_input", 1e-6, false)
            && !add_meter(energy, folder, "power1_average", 1e-6, true))
            add_meter(energy, folder, "power1_input", 1e-6, true);
    }
}

static void look_in(const char *root, const char *class, struct energy *energy,
                    void (*add)(struct energy *energy, const char *folder, const char *zone)) {
    char folder[ENERGY_PATH], zone[ENERGY_PATH + 256];
    snprintf(folder, sizeof folder, "%s/class/%s", root, class);
    DIR *stream = opendir(folder);
    for (struct dirent *entry; stream && (entry = readdir(stream));) {
        if (entry->d_name[0] == '.') continue;
        if (snprintf(zone, sizeof zone, "%s/%s", folder, entry->d_name) < ENERGY_PATH) add(energy, zone, entry->d_name);
    }
    if (stream) closedir(stream);
}

void energy_find(const char *root, enum device_kind kind, struct energy *energy) {
    *energy = (struct energy){0};
    if (kind == DEVICE_CPU) {
        look_in(root, "powercap", energy, add_package);
        if (energy->count)
            snprintf(energy->source, sizeof energy->source, "powercap, %d package%s", energy->count,
                     energy->count == 1 ? "" : "s");
        else
            snprintf(energy->source, sizeof energy->source, "the system tells nothing of the processors' energy");
        return;
    }
    look_in(root, "hwmon", energy, add_card);
    if (energy->count > 1) {
        snprintf(energy->source, sizeof energy->source, "%d cards tell, and which of them this is nothing does",
                 energy->count);
        energy->count = 0;
    } else if (energy->count)
        snprintf(energy->source, sizeof energy->source, "hwmon, %s", energy->meters[0].power ? "power" : "energy");
    else
        snprintf(energy->source, sizeof energy->source, "the system tells nothing of the card's energy");
}

void energy_read(const struct energy *energy, struct energy_reading *reading) {
    reading->seconds = clock_seconds();
    for (int i = 0; i < energy->count; i++) reading->values[i] = read_number(energy->meters[i].path);
}

double energy_between(const struct energy *energy, const struct energy_reading *before,
                      const struct energy_reading *after) {
    double joules = energy->count ? 0 : NAN;
    for (int i = 0; i < energy->count; i++) {
        const struct energy_meter *meter = &energy->meters[i];
        double from = before->values[i], to = after->values[i], counts = to - from;
        if (meter->power)
            counts = (from + to) / 2 * (after->seconds - before->seconds);
        else if (counts < 0)
            counts = meter->wraps > 0 ? counts + meter->wraps : NAN;
        joules += counts * meter->joules;
    }
    return joules;
}
