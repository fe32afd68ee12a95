/* Keeps what drivers print out of the program's results. */
#define _GNU_SOURCE /* F_DUPFD_CLOEXEC */
#include "device/internal.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

/* A global, because the descriptor is one. A library may not do this unasked: while standard output leads elsewhere, so
 * does what another thread of the program prints. */
static bool guarded;

void device_guard_output(void) {
    guarded = true;
}

/* Threads with a device each may be in a driver at once: the first of them diverts, the last restores. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int inside, kept = -1;

static void divert(void) {
    if (fflush(stdout) != 0) return;
    kept = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (kept < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) >= 0) return;
    close(kept);
    kept = -1;
}

static void restore(void) {
    if (kept < 0) return;
    fflush(stdout); /* what the driver printed through the C library */
    dup2(kept, STDOUT_FILENO);
    close(kept);
    kept = -1;
}

void output_divert(void) {
    if (!guarded) return;
    pthread_mutex_lock(&lock);
    if (!inside++) divert();
    pthread_mutex_unlock(&lock);
}

void output_restore(void) {
    if (!guarded) return;
    pthread_mutex_lock(&lock);
    if (!--inside) restore();
    pthread_mutex_unlock(&lock);
}
