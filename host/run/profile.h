/* Profiles beside the device's peaks, for people and for programs. */
#ifndef RETORT_RUN_PROFILE_H
#define RETORT_RUN_PROFILE_H

#include "base/memory.h"
#include "device/device.h"

#include <jansson.h>

/* An array of an object per kernel, the slowest first: kernel, launches, seconds, share (of all seconds), gflops,
 * gb_per_s, share_of_peak, bound. A kernel's share of peak is the larger of its share of the peak of multiply-adds and
 * its share of the copy bandwidth (a roofline); `bound` says which, "fma" or "copy". Operations count convolutions as
 * plain sums of products; bytes are those of each buffer a launch takes, once: a lower bound. NULL when out of memory.
 */
json_t *profile_json(const struct device_profile *profile, const struct device_peaks *peaks);
/* The same as a table, with totals. */
void profile_table(const struct device_profile *profile, const struct device_peaks *peaks, struct text *text);

#endif
