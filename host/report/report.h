/* `retort report`: what run folders hold, as one page of HTML that needs nothing else: no network, no scripts.
 *
 * A page about one run, or a comparison of several. A folder renders with what it has: one that is not finished, was
 * not evaluated, or is of an earlier version lacks sections, and the page says why. */
#ifndef RETORT_REPORT_REPORT_H
#define RETORT_REPORT_REPORT_H

#include <stddef.h>

/* Reads the `count` (at least 1) run folders and writes the page to `out`, or where that is NULL to RUN/report.html, of
 * several to ./report.html; *written gets the path, the caller's to free(). RETORT_EINVAL where a folder holds no run,
 * or where the place is taken by anything but an earlier report. RETORT_EIO, RETORT_ENOMEM. */
int report_write(const char *const *runs, size_t count, const char *out, char **written);

#endif
