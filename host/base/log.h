/* Messages to standard error and the progress line. The log level is the library's only global besides the error text.
 *
 * Messages end with a newline of their own. A progress line is redrawn in place on a terminal, at most ten times a
 * second; redirected, it becomes a plain line every ten seconds. NO_COLOR and redirection are respected. */
#ifndef RETORT_BASE_LOG_H
#define RETORT_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_QUIET, LOG_WARNING, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level); /* default LOG_INFO */
enum log_level log_get_level(void);
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

struct progress {
    const char *what;
    int64_t done, total, begun_at;
    double begun, shown;
    bool drawn;
};

void progress_begin(struct progress *progress, const char *what, int64_t done, int64_t total);
/* `detail` is appended to count, rate and time left; may be NULL. */
void progress_update(struct progress *progress, int64_t done, const char *detail);
void progress_end(struct progress *progress); /* leaves the last state on the screen */

double clock_seconds(void); /* monotonic */

#endif
