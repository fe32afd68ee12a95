#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static enum log_level level = LOG_INFO;
static bool line_open;                    /* a progress line stands unfinished on the terminal */
static _Thread_local const char *speaker; /* NULL: the thread speaks for itself */

static bool shows(enum log_level wanted) {
    return level >= wanted && (!speaker || wanted <= LOG_WARNING);
}

void log_speak_for(const char *name) {
    speaker = name;
}

void log_set_level(enum log_level wanted) {
    level = wanted;
}

enum log_level log_get_level(void) {
    return level;
}

/* One message at a time, whichever threads have something to say. */
static void say(const char *prefix, const char *format, va_list arguments) {
    flockfile(stderr);
    if (line_open) fputc('\n', stderr);
    line_open = false;
    fputs(prefix, stderr);
    if (speaker) fprintf(stderr, "%s: ", speaker);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    funlockfile(stderr);
}

void log_warning(const char *format, ...) {
    if (!shows(LOG_WARNING)) return;
    va_list arguments;
    va_start(arguments, format);
    say("retort: warning: ", format, arguments);
    va_end(arguments);
}

void log_info(const char *format, ...) {
    if (!shows(LOG_INFO)) return;
    va_list arguments;
    va_start(arguments, format);
    say("", format, arguments);
    va_end(arguments);
}

void log_debug(const char *format, ...) {
    if (!shows(LOG_DEBUG)) return;
    va_list arguments;
    va_start(arguments, format);
    say("debug: ", format, arguments);
    va_end(arguments);
}

double clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void seconds_words(double seconds, char *text, size_t size) {
    long whole = (long)(seconds + 0.5);
    if (whole >= 3600)
        snprintf(text, size, "%ldh%02ldm", whole / 3600, whole / 60 % 60);
    else if (whole >= 60)
        snprintf(text, size, "%ldm%02lds", whole / 60, whole % 60);
    else
        snprintf(text, size, "%lds", whole);
}

/* --- pace --- */
void pace_begin(struct pace *pace, double now, int64_t done) {
    *pace = (struct pace){.count = 1};
    pace->looks[0].at = now;
    pace->looks[0].done = done;
}

/* The newest look is moved along until it is far enough from the one before it to be kept; those before the oldest that
 * is needed are forgotten. */
void pace_look(struct pace *pace, double now, int64_t done) {
    int last = (pace->first + pace->count - 1) % PACE_LOOKS, before = (last + PACE_LOOKS - 1) % PACE_LOOKS;
    bool is_near = pace->count > 1 && pace->looks[last].at - pace->looks[before].at < PACE_SECONDS / (PACE_LOOKS - 4);
    if (!is_near) {
        last = (last + 1) % PACE_LOOKS;
        if (pace->count == PACE_LOOKS)
            pace->first = (pace->first + 1) % PACE_LOOKS;
        else
            pace->count++;
    }
    pace->looks[last].at = now;
    pace->looks[last].done = done;
    while (pace->count > 2 && now - pace->looks[(pace->first + 1) % PACE_LOOKS].at >= PACE_SECONDS) {
        pace->first = (pace->first + 1) % PACE_LOOKS;
        pace->count--;
    }
}

double pace_rate(const struct pace *pace) {
    int last = (pace->first + pace->count - 1) % PACE_LOOKS;
    double seconds = pace->looks[last].at - pace->looks[pace->first].at;
    int64_t steps = pace->looks[last].done - pace->looks[pace->first].done;
    return seconds > 0 && steps > 0 ? (double)steps / seconds : 0;
}

/* --- the line --- */
static void write_line(const struct progress *progress, const char *detail, bool whole, char *line, size_t size) {
    double rate = pace_rate(&progress->pace);
    char speed[32] = "", left[48] = "", words[24], then[64] = "";
    if (rate >= 0.1)
        snprintf(speed, sizeof speed, "  %.2f/s", rate);
    else if (rate > 0)
        snprintf(speed, sizeof speed, "  %.0f s each", 1 / rate);
    if (rate > 0) {
        seconds_words((double)(progress->total - progress->done) / rate, words, sizeof words);
        snprintf(left, sizeof left, "  %s left", words);
    }
    if (progress->then > 0 && whole) {
        seconds_words(progress->then, words, sizeof words);
        snprintf(then, sizeof then, ", then about %s of %s", words, progress->then_what);
    }
    snprintf(line, size, "%s %lld/%lld%s%s%s%s%s", progress->what, (long long)progress->done,
             (long long)progress->total, speed, left, then, detail && *detail ? "  " : "", detail ? detail : "");
}

static size_t terminal_columns(void) {
    struct winsize size;
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20;
    return known && size.ws_col < 250 ? size.ws_col : known ? 250 : 80;
}

static void draw(struct progress *progress, const char *detail) {
    static int width; /* of the line that stands on the terminal, which a shorter one has to cover */
    char line[256];
    bool terminal = isatty(STDERR_FILENO);
    size_t columns = terminal ? terminal_columns() : sizeof line;
    write_line(progress, detail, true, line, sizeof line);
    /* A line that wraps cannot be drawn over: what follows is the first thing to go, then the end. */
    if (strlen(line) >= columns) write_line(progress, detail, false, line, columns);
    if (terminal) {
        int length = (int)strlen(line);
        fprintf(stderr, "\r%-*s", line_open && width > length ? width : length, line);
        fflush(stderr);
        width = length;
        line_open = true;
    } else
        fprintf(stderr, "%s\n", line);
    progress->shown = clock_seconds();
    progress->shown_done = progress->done;
    progress->drawn = true;
}

void progress_begin(struct progress *progress, const char *what, int64_t done, int64_t total) {
    *progress = (struct progress){.what = what, .done = done, .total = total, .shown_done = done};
    progress->begun = progress->shown = clock_seconds();
    pace_begin(&progress->pace, progress->begun, done);
}

/* Ten lines a second are as many as eyes can read. A file gets a line for every tenth of the work, or every minute
 * where that takes longer, but no more than one a second, and none of what is over in a second. */
static bool is_due(const struct progress *progress, double now) {
    double since = now - progress->shown;
    bool over = progress->done == progress->total && progress->shown_done < progress->total;
    if (isatty(STDERR_FILENO)) return over || since >= 0.1;
    if (over) return now - progress->begun >= 1;
    return since >= 60 || (since >= 1 && 10 * (progress->done - progress->shown_done) >= progress->total);
}

void progress_update(struct progress *progress, int64_t done, const char *detail) {
    double now = clock_seconds();
    progress->done = done;
    pace_look(&progress->pace, now, done);
    if (shows(LOG_INFO) && is_due(progress, now)) draw(progress, detail);
}

void progress_show(struct progress *progress) {
    if (shows(LOG_INFO) && isatty(STDERR_FILENO)) draw(progress, NULL);
}

void progress_end(struct progress *progress) {
    if (!progress->drawn) return;
    if (line_open) fputc('\n', stderr);
    line_open = false;
}
