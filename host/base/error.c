/* The per-thread error message. Long messages are cut, never lost: the head, which says what happened, is kept. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[4096];

const char *retort_error_message(void) {
    return message;
}

const char *retort_status_name(int status) {
    switch (status) {
    case RETORT_OK:
        return "ok";
    case RETORT_EINVAL:
        return "bad input";
    case RETORT_ENOMEM:
        return "out of memory";
    case RETORT_EIO:
        return "file error";
    case RETORT_EFORMAT:
        return "malformed data";
    case RETORT_EDEVICE:
        return "OpenCL error";
    case RETORT_ELIMIT:
        return "memory limit";
    case RETORT_ENUMERIC:
        return "not a finite number";
    case RETORT_EINTERRUPTED:
        return "interrupted";
    case RETORT_EUNSUPPORTED:
        return "not supported";
    case RETORT_EMISMATCH:
        return "out of tolerance";
    default:
        return "unknown status";
    }
}

int error_set(int code, const char *format, ...) {
    /* The arguments may point into the old message, so the new one is written aside first. */
    char fresh[sizeof message];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(fresh, sizeof fresh, format, arguments);
    va_end(arguments);
    memcpy(message, fresh, sizeof message);
    return code;
}

void error_context(const char *format, ...) {
    char fresh[sizeof message];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(fresh, sizeof fresh, format, arguments);
    va_end(arguments);
    if (length < 0 || (size_t)length >= sizeof fresh - 3) return;
    snprintf(fresh + length, sizeof fresh - (size_t)length, ": %.*s", (int)(sizeof fresh - (size_t)length - 3),
             message);
    memcpy(message, fresh, sizeof message);
}

void error_clear(void) {
    message[0] = '\0';
}
