#include "command/worker.h"

#include "base/error.h"
#include "command/child.h"
#include "run/words.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SILENCE          10.0 /* seconds */
#define SILENCE_BUILDING 60.0
#define SILENCE_TESTING  180.0 /* of a library, which builds many kernels */

struct worker {
    struct kernel_target target;
    const volatile int *interrupt;
    double end;
    struct child child;
    struct tune_task reference; /* the first of its class, with which the child compares the others */
    bool referred;              /* whether this child has measured it */
    char fault[CHILD_LINE];     /* of the last result */
};

int worker_create(const struct kernel_target *target, const volatile int *interrupt, struct worker **worker) {
    struct worker *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return error_set(RETORT_ENOMEM, "out of memory");
    *fresh = (struct worker){.target = *target, .interrupt = interrupt};
    *worker = fresh;
    return RETORT_OK;
}

static void end_child(struct worker *worker) {
    child_end(&worker->child);
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

static int start_child(struct worker *worker) {
    char device[16];
    snprintf(device, sizeof device, "%d", worker->target.traits->index);
    const char *family = words_family[worker->target.family];
    return child_start(&worker->child, (const char *[]){"tune-worker", "--device", device, "--family", family, NULL});
}

static enum heard hear(struct worker *worker, double patience, char line[CHILD_LINE]) {
    return child_hear(&worker->child, patience, worker->end, worker->interrupt, line);
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
    char line[CHILD_LINE];
    double patience = SILENCE;
    enum heard heard = HEARD_END;
    struct text text;
    text_init(&text);
    text_printf(&text, "%.17g %.17g %d\t", limits->seconds, limits->once, limits->spill);
    wisdom_write_task(&text, &task->class, &task->choice);
    text_append(&text, "\n");
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory");
    if (child_say(&worker->child, text_get(&text), text.length))
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
    char line[CHILD_LINE];
    enum heard heard;
    if (worker->child.process) return RETORT_OK;
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
