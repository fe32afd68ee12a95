/* A child process that is this program too, with a pipe to it and one from it: for what a driver may crash or never
 * end. It gets lines on standard input, answers by lines on standard output, and ends when its standard input does. */
#ifndef RETORT_COMMAND_CHILD_H
#define RETORT_COMMAND_CHILD_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

enum { CHILD_LINE = 4096 };

struct child {
    pid_t process; /* 0: there is none */
    int to, from;
    char line[CHILD_LINE]; /* what was read of it beyond the lines taken */
    size_t held;
};

/* Starts `retort arguments[0] arguments[1] ...`, NULL behind the last. RETORT_EIO. */
int child_start(struct child *child, const char *const *arguments);
void child_end(struct child *child); /* at once, with SIGKILL; nothing where there is none */

enum heard { HEARD_LINE, HEARD_SILENCE, HEARD_END, HEARD_STOP };
/* The next line of the child, without its end, within so many seconds. HEARD_STOP at the clock_seconds() `end` (0: no
 * such time) and when *interrupt (may be NULL) becomes non-zero. */
enum heard child_hear(struct child *child, double patience, double end, const volatile int *interrupt,
                      char line[CHILD_LINE]);
/* False: the child is not there any more. */
bool child_say(struct child *child, const char *text, size_t length);

/* In the child: drivers print where they like, so that answers get a descriptor of their own, and what is printed goes
 * to standard error. NULL where that cannot be. */
FILE *child_answers(void);

#endif
