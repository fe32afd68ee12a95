/* Keeps what drivers print out of the program's results. */
#define _GNU_SOURCE /* F_DUPFD_CLOEXEC */
#include "device/internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

/* A global, because the descriptor is one. A library may not do this unasked: while standard output leads elsewhere, so
 * does what another thread of the program prints. */
static bool guarded;

void device_guard_output(void) {
    guarded = true;
}

int output_divert(void) {
    if (!guarded || fflush(stdout) != 0) return -1;
    int kept = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (kept >= 0 && dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        close(kept);
        return -1;
    }
    return kept;
}

void output_restore(int kept) {
    if (kept < 0) return;
    fflush(stdout); /* what the driver printed through the C library */
    dup2(kept, STDOUT_FILENO);
    close(kept);
}
