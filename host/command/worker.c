#define _GNU_SOURCE /* pipe2 */
#include "command/worker.h"

#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SILENCE          10.0 /* seconds */
#define SILENCE_BUILDING 60.0
#define SILENCE_TESTING  180.0 /* of a library, which builds many kernels */

enum { LINE_SIZE = 1024 };

struct worker {
    struct kernel_target target;
    const volatile int *interrupt;
    double end;
    pid_t child; /* 0: there is none */
    int to, from;
    char line[LINE_SIZE]; /* what was read of it beyond the lines taken */
    size_t held;
    struct tune_task reference; /* the first of its class, with which the child compares the others */
    bool referred;              /* whether this child has measured it */
    char fault[LINE_SIZE];      /* of the last result */
};

int worker_create(const struct kernel_target *target, const volatile int *interrupt, struct worker **worker) {
    struct worker *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return error_set(RETORT_ENOMEM, "out of memory");
    *fresh = (struct worker){.target = *target, .interrupt = interrupt};
    *worker = fresh;
    return RETORT_OK;
}

static void end_child(struct worker *worker) {
    if (!worker->child) return;
    kill(worker->child, SIGKILL);
    close(worker->to);
    close(worker->from);
    while (waitpid(worker->child, NULL, 0) < 0 && errno == EINTR) continue;
    worker->child = 0;
    worker->held = 0;
    worker->referred = false;
}

void worker_destroy(struct worker *worker) {
    if (!worker) return;
    end_child(worker);
    free(worker);
}

void worker_set_end(struct worker *worker, double end) {
    worker->end = end;
}

/* Between fork and exec: nothing but system calls, for the parent may have had threads. */
static _Noreturn void become_child(int in, int out, const char *device, const char *family) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no child outlives its parent, hanging */
    signal(SIGINT, SIG_IGN);          /* the parent decides */
    signal(SIGTERM, SIG_DFL);
    dup2(in, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    execl("/proc/self/exe", "retort", "tune-worker", "--device", device, "--family", family, (char *)NULL);
    _exit(127);
}

static int start_child(struct worker *worker) {
    int status = RETORT_OK, in[2] = {-1, -1}, out[2] = {-1, -1};
    char device[16];
    snprintf(device, sizeof device, "%d", worker->target.traits->index);
    if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0)
        RAISE(RETORT_EIO, "cannot talk to a process for tuning: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0) RAISE(RETORT_EIO, "cannot start a process for tuning: %s", strerror(errno));
    if (child == 0) become_child(in[0], out[1], device, worker->target.family == FAMILY_GPU ? "gpu" : "cpu");
    worker->child = child;
    worker->to = in[1];
    worker->from = out[0];
    in[1] = out[0] = -1;
done:
    for (int i = 0; i < 2; i++) {
        if (in[i] >= 0) close(in[i]);
        if (out[i] >= 0) close(out[i]);
    }
    return status;
}

enum heard { HEARD_LINE, HEARD_SILENCE, HEARD_END, HEARD_STOP };

/* The next line of the child, without its end, within so many seconds. */
static enum heard hear(struct worker *worker, double patience, char line[LINE_SIZE]) {
    const double until = clock_seconds() + patience;
    for (;;) {
        char *end = memchr(worker->line, '\n', worker->held);
        if (end) {
            size_t length = (size_t)(end - worker->line);
            memcpy(line, worker->line, length);
            line[length] = '\0';
            worker->held -= length + 1;
            memmove(worker->line, end + 1, worker->held);
            return HEARD_LINE;
        }
        if (worker->held == sizeof worker->line) worker->held = 0; /* no line of ours: a driver's */
        double now = clock_seconds();
        if ((worker->interrupt && *worker->interrupt) || (worker->end > 0 && now >= worker->end)) return HEARD_STOP;
        if (now >= until) return HEARD_SILENCE;
        struct pollfd wait = {.fd = worker->from, .events = POLLIN};
        if (poll(&wait, 1, 50) <= 0) continue;
        ssize_t count = read(worker->from, worker->line + worker->held, sizeof worker->line - worker->held);
        if (count == 0 || (count < 0 && errno != EINTR)) return HEARD_END;
        if (count > 0) worker->held += (size_t)count;
    }
}

/* False: the child is not there any more. */
static bool say(struct worker *worker, const char *text, size_t length) {
    void (*before)(int) = signal(SIGPIPE, SIG_IGN);
    bool all = true;
    while (length && all) {
        ssize_t count = write(worker->to, text, length);
        if (count < 0 && errno == EINTR) continue;
        all = count > 0;
        if (all) text += count, length -= (size_t)count;
    }
    signal(SIGPIPE, before);
    return all;
}

/* Takes a line "result ..." or "failed ..." apart; false: it is neither. */
static bool read_answer(struct worker *worker, const char *line, struct trial_result *result, int *status) {
    int spills, failed, at = 0;
    struct trial_result fresh = {0};
    if (sscanf(line, "failed %d\t%n", status, &at) == 1 && at) {
        error_set(*status, "%s", line + at);
        return true;
    }
    if (sscanf(line, "result %lf %lf %lf %lf %d %d%n", &fresh.error, &fresh.departure, &fresh.once, &fresh.seconds,
               &spills, &failed, &at)
            != 6
        || line[at] != '\t')
        return false;
    snprintf(worker->fault, sizeof worker->fault, "%s", line + at + 1);
    fresh.fault = *worker->fault ? worker->fault : NULL;
    fresh.spills = spills;
    fresh.failed = failed;
    *result = fresh;
    *status = RETORT_OK;
    return true;
}

/* One choice measured by the child, which is there. */
static int ask(struct worker *worker, const struct tune_task *task, const struct trial_limits *limits,
               struct trial_result *result) {
    int status = RETORT_OK;
    char line[LINE_SIZE];
    double patience = SILENCE;
    enum heard heard = HEARD_END;
    struct text text;
    text_init(&text);
    text_printf(&text, "%.17g %.17g %d\t", limits->seconds, limits->once, limits->spill);
    wisdom_write_task(&text, &task->class, &task->choice);
    text_append(&text, "\n");
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory");
    if (say(worker, text_get(&text), text.length))
        while ((heard = hear(worker, patience, line)) == HEARD_LINE) {
            if (read_answer(worker, line, result, &status)) goto done;
            patience = strcmp(line, "building") == 0  ? SILENCE_BUILDING
                       : strcmp(line, "testing") == 0 ? SILENCE_TESTING
                                                      : SILENCE;
        }
    end_child(worker);
    if (heard == HEARD_STOP) RAISE(RETORT_EINTERRUPTED, "tuning was stopped");
    *result = (struct trial_result){
        .fault = heard == HEARD_END ? "it ends the process that runs it" : "it does not end", .failed = true};
done:
    text_finish(&text);
    return status;
}

/* A child that has opened the device. */
static int ensure_child(struct worker *worker) {
    int status = RETORT_OK;
    char line[LINE_SIZE];
    enum heard heard;
    if (worker->child) return RETORT_OK;
    TRY(start_child(worker));
    while ((heard = hear(worker, SILENCE_BUILDING, line)) == HEARD_LINE)
        if (strcmp(line, "ready") == 0) return RETORT_OK;
    end_child(worker);
    if (heard == HEARD_STOP) RAISE(RETORT_EINTERRUPTED, "tuning was stopped");
    RAISE(RETORT_EDEVICE, "a process for tuning could not open %s", worker->target.traits->name);
done:
    return status;
}

int worker_measure(struct worker *worker, const struct tune_task *task, const struct trial_limits *limits,
                   struct trial_result *result) {
    int status = RETORT_OK;
    const struct trial_limits only_check = {.spill = true};
    TRY(ensure_child(worker));
    if (!kernel_class_equal(&worker->reference.class, &task->class)) {
        worker->reference = *task;
        worker->referred = true;
    } else if (!worker->referred) { /* the child is another one */
        TRY(ask(worker, &worker->reference, &only_check, result));
        if (result->fault) RAISE(RETORT_EDEVICE, "a kernel that was right before is not any more: %s", result->fault);
        worker->referred = true;
    }
    TRY(ask(worker, task, limits, result));
done:
    return status;
}
