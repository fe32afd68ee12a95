#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static enum log_level level = LOG_INFO;
static bool line_open; /* a progress line stands unfinished on the terminal */

void log_set_level(enum log_level wanted) {
    level = wanted;
}

enum log_level log_get_level(void) {
    return level;
}

static void say(const char *prefix, const char *format, va_list arguments) {
    if (line_open) fputc('\n', stderr);
    line_open = false;
    fputs(prefix, stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
}

void log_warning(const char *format, ...) {
    if (level < LOG_WARNING) return;
    va_list arguments;
    va_start(arguments, format);
    say("retort: warning: ", format, arguments);
    va_end(arguments);
}

void log_info(const char *format, ...) {
    if (level < LOG_INFO) return;
    va_list arguments;
    va_start(arguments, format);
    say("", format, arguments);
    va_end(arguments);
}

void log_debug(const char *format, ...) {
    if (level < LOG_DEBUG) return;
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

static void time_left(double seconds, char *text, size_t size) {
    long whole = (long)(seconds + 0.5);
    if (whole >= 3600)
        snprintf(text, size, "%ldh%02ldm", whole / 3600, whole / 60 % 60);
    else if (whole >= 60)
        snprintf(text, size, "%ldm%02lds", whole / 60, whole % 60);
    else
        snprintf(text, size, "%lds", whole);
}

static void draw(struct progress *progress, const char *detail) {
    double now = clock_seconds(), elapsed = now - progress->begun;
    int64_t fresh = progress->done - progress->begun_at;
    char left[32] = "?", line[256];
    double rate = elapsed > 0 ? (double)fresh / elapsed : 0;
    if (rate > 0) time_left((double)(progress->total - progress->done) / rate, left, sizeof left);
    snprintf(line, sizeof line, "%s %lld/%lld  %.2f/s  %s left%s%s", progress->what, (long long)progress->done,
             (long long)progress->total, rate, left, detail && *detail ? "  " : "", detail ? detail : "");
    if (isatty(STDERR_FILENO)) {
        fprintf(stderr, "\r%-*s", 79, line);
        fflush(stderr);
        line_open = true;
    } else
        fprintf(stderr, "%s\n", line);
    progress->shown = now;
    progress->drawn = true;
}

void progress_begin(struct progress *progress, const char *what, int64_t done, int64_t total) {
    *progress = (struct progress){.what = what, .done = done, .begun_at = done, .total = total};
    progress->begun = progress->shown = clock_seconds();
}

void progress_update(struct progress *progress, int64_t done, const char *detail) {
    progress->done = done;
    if (level < LOG_INFO) return;
    double pause = isatty(STDERR_FILENO) ? 0.1 : 10.0;
    if (clock_seconds() - progress->shown >= pause || done == progress->total) draw(progress, detail);
}

void progress_end(struct progress *progress) {
    if (progress->drawn && line_open) fputc('\n', stderr);
    line_open = false;
}
