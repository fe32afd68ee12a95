/* Messages to standard error and the progress line. The log level is the library's only global besides the error text.
 *
 * Messages end with a newline of their own. A progress line is redrawn in place on a terminal, at most ten times a
 * second; redirected, it becomes a plain line every ten percent or every minute. NO_COLOR and redirection are
 * respected. */
#ifndef RETORT_BASE_LOG_H
#define RETORT_BASE_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_QUIET, LOG_WARNING, LOG_INFO, LOG_DEBUG };

void log_set_level(enum log_level level); /* default LOG_INFO */
/* From now on this thread works for another, which does the talking: of what it has to say only warnings are shown,
 * with `name` (borrowed) in front. NULL: it speaks for itself. */
void log_speak_for(const char *name);
enum log_level log_get_level(void);
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* How fast something goes, from its last seconds alone: the first steps of a run are slower than all others, and
 * another program may begin or end beside it. */
#define PACE_SECONDS 20.0
#define PACE_LOOKS   32
struct pace {
    struct {
        double at; /* seconds, as clock_seconds */
        int64_t done;
    } looks[PACE_LOOKS]; /* a ring, the oldest at `first` */
    int first, count;
};
void pace_begin(struct pace *pace, double now, int64_t done);
void pace_look(struct pace *pace, double now, int64_t done); /* `now` and `done` do not fall */
/* Steps a second since about PACE_SECONDS before the last look; 0: not known yet. */
double pace_rate(const struct pace *pace);

struct progress {
    const char *what;
    double then; /* seconds of what follows and is not part of `total`, which the line then names; 0: not known */
    const char *then_what;
    int64_t done, total;
    struct pace pace;
    double begun, shown;
    int64_t shown_done;
    bool drawn;
};

void progress_begin(struct progress *progress, const char *what, int64_t done, int64_t total);
/* `detail` is appended to count, rate and time left; may be NULL. */
void progress_update(struct progress *progress, int64_t done, const char *detail);
/* On a terminal, the line as it stands, at once: before the first step of something slow. */
void progress_show(struct progress *progress);
void progress_end(struct progress *progress); /* leaves the last state on the screen */

double clock_seconds(void); /* monotonic */
/* "45s", "2m05s", "1h00m" */
void seconds_words(double seconds, char *text, size_t size);

#endif
