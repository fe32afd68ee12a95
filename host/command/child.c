#define _GNU_SOURCE /* pipe2 */
#include "command/child.h"

#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS = 16 };

void child_end(struct child *child) {
    if (!child->process) return;
    kill(child->process, SIGKILL);
    close(child->to);
    close(child->from);
    while (waitpid(child->process, NULL, 0) < 0 && errno == EINTR) continue;
    child->process = 0;
    child->held = 0;
}

/* Between fork and exec: nothing but system calls, for the parent may have had threads. */
static _Noreturn void become_child(int in, int out, char *const *arguments) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no child outlives its parent, hanging */
    signal(SIGINT, SIG_IGN);          /* the parent decides */
    signal(SIGTERM, SIG_DFL);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    execv("/proc/self/exe", arguments);
    _exit(127);
}

int child_start(struct child *child, const char *const *arguments) {
    int status = RETORT_OK, in[2] = {-1, -1}, out[2] = {-1, -1};
    char name[] = "retort", *list[ARGUMENTS] = {name};
    for (size_t i = 0; arguments[i] && i + 2 < ARGUMENTS; i++)
        list[i + 1] = (char *)arguments[i]; /* execv takes no const */
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        RAISE(RETORT_EIO, "cannot talk to a process for measuring: %s", strerror(errno));
    pid_t process = fork();
    if (process < 0) RAISE(RETORT_EIO, "cannot start a process for measuring: %s", strerror(errno));
    if (process == 0) become_child(in[0], out[1], list);
    *child = (struct child){.process = process, .to = in[1], .from = out[0]};
    in[1] = out[0] = -1;
done:
    for (int i = 0; i < 2; i++) {
        if (in[i] >= 0) close(in[i]);
        if (out[i] >= 0) close(out[i]);
    }
    return status;
}

enum heard child_hear(struct child *child, double patience, double stop, const volatile int *interrupt,
                      char line[CHILD_LINE]) {
    const double until = clock_seconds() + patience;
    for (;;) {
        char *end = memchr(child->line, '\n', child->held);
        if (end) {
            size_t length = (size_t)(end - child->line);
            memcpy(line, child->line, length);
            line[length] = '\0';
            child->held -= length + 1;
            memmove(child->line, end + 1, child->held);
            return HEARD_LINE;
        }
        if (child->held == sizeof child->line) child->held = 0; /* no line of ours: a driver's */
        double now = clock_seconds();
        if ((interrupt && *interrupt) || (stop > 0 && now >= stop)) return HEARD_STOP;
        if (now >= until) return HEARD_SILENCE;
        struct pollfd wait = {.fd = child->from, .events = POLLIN};
        if (poll(&wait, 1, 50) <= 0) continue;
        ssize_t count = read(child->from, child->line + child->held, sizeof child->line - child->held);
        if (count == 0 || (count < 0 && errno != EINTR)) return HEARD_END;
        if (count > 0) child->held += (size_t)count;
    }
}

bool child_say(struct child *child, const char *text, size_t length) {
    void (*before)(int) = signal(SIGPIPE, SIG_IGN);
    bool all = true;
    while (length && all) {
        ssize_t count = write(child->to, text, length);
        if (count < 0 && errno == EINTR) continue;
        all = count > 0;
        if (all) text += count, length -= (size_t)count;
    }
    signal(SIGPIPE, before);
    return all;
}

FILE *child_answers(void) {
    int own = dup(STDOUT_FILENO);
    FILE *answers = own < 0 ? NULL : fdopen(own, "w");
    if (answers) dup2(STDERR_FILENO, STDOUT_FILENO);
    return answers;
}
