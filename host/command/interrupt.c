#include "command/interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

/* A handler can reach nothing else. */
static volatile sig_atomic_t stop;

static void on_signal(int number) {
    (void)number;
    if (stop) _exit(130);
    stop = 1;
    static const char words[] = "\nstopping at the next safe point; once more to leave at once\n";
    ssize_t ignored = write(STDERR_FILENO, words, sizeof words - 1);
    (void)ignored;
}

const volatile int *interrupt_install(void) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    return &stop;
}

bool was_interrupted(void) {
    return stop;
}
