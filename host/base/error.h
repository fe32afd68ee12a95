/* Raising and propagating errors. Every fallible function has the same shape:
 *
 *     int thing_do(...) {
 *         int status = RETORT_OK;
 *         TRY(other_do(...));
 *         if (bad) RAISE(RETORT_EINVAL, "what happened, where, what to do");
 *     done:
 *         ...release what is owned here...
 *         return status;
 *     }
 *
 * The words are kept per thread by the log (the library's only global state) until the next failure. */
#ifndef RETORT_BASE_ERROR_H
#define RETORT_BASE_ERROR_H

#include "retort/status.h"

/* Sets the message and leaves through `done` with the given status. */
#define RAISE(code, ...)                         \
    do {                                         \
        status = error_set((code), __VA_ARGS__); \
        goto done;                               \
    } while (0)

/* Evaluates a call that returns a status; leaves through `done` where it failed. */
#define TRY(call)                  \
    do {                           \
        status = (call);           \
        if (status < 0) goto done; \
    } while (0)

/* Replaces this thread's message and returns `code`, so that it can be the operand of `return`. */
int error_set(int code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Puts words in front of this thread's message, "words: message": what was being done when the failure happened. */
void error_context(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Forgets this thread's message: for a caller that has dealt with the failure. */
void error_clear(void);

#endif
