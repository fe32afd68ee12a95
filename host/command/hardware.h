/* `retort bench --all-devices`: one fixed load on every device, device by device in turns, each device in a process of
 * its own: what a driver crashes on or never ends is a row that says so. */
#ifndef RETORT_COMMAND_HARDWARE_H
#define RETORT_COMMAND_HARDWARE_H

#include "compile/executable.h"

#include <jansson.h>
#include <stdbool.h>

struct hardware_spec {
    const char *devices; /* an index or words: those that match; NULL: all */
    enum family family;
    bool quick;
    double limit; /* seconds for one load on one device, building included */
    const volatile int *interrupt;
};
/* What docs/comparing.md describes, checked by hardware_check. RETORT_EDEVICE where no device matches,
 * RETORT_EINTERRUPTED with the results until then. */
int hardware_measure(const struct hardware_spec *spec, json_t **results);

#endif
