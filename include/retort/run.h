/* Distillation runs: what `retort run` does, for programs of your own.
 *
 *     struct retort_run *run = NULL;
 *     if (retort_run_create("quickstart.yaml", &(struct retort_run_options){.out = "runs/one"}, &run) < 0
 *         || retort_run_execute(run) < 0)
 *         fprintf(stderr, "%s\n", retort_error_message());
 *     else
 *         puts(retort_run_result(run));
 *     retort_run_destroy(run);
 *
 * Numbers are read and written with a decimal point, whatever the calling program's locale. */
#ifndef RETORT_RUN_H
#define RETORT_RUN_H

#include "retort/status.h"

struct retort_run;

/* Where a run is, told after every outer step. Loss and accuracy (percent) are those of the real batch, NaN where
 * the method has none. */
struct retort_progress {
    int outer_step, outer_steps;
    double loss, accuracy;
    const char *stage; /* "early", "middle", "late"; NULL where the method has no stages */
};

struct retort_run_options {
    const char *out;             /* run folder; NULL: runs/NAME-SEED, after the descriptor */
    const char *const *settings; /* descriptor keys to override, "outer.lr=0.01", NULL-terminated; NULL: none */
    int resume;                  /* go on from the folder's newest good checkpoint */
    int dry_run;                 /* read and plan everything, build the kernels, run nothing, write nothing */
    int profile;                 /* measure device time per kernel: a line of metrics.jsonl at the end */
    double checkpoint_every;     /* seconds of work between checkpoints; 0: 20 */
    /* Set it to non-zero, from a signal handler or another thread: the outer step at hand is dropped, the state after
     * the one before it is saved, and retort_run_execute returns RETORT_EINTERRUPTED. May be NULL. */
    const volatile int *interrupt;
    void (*progress)(void *user, const struct retort_progress *progress); /* may be NULL */
    void *user;
    int tensorboard; /* write event files for TensorBoard into the folder's tensorboard/ */
};

/* Reads the descriptor and settles the folder; nothing is written yet. `descriptor` may be NULL with `resume` and
 * `out`: the folder's own is taken. RETORT_EINVAL names file, line and key of what is wrong, or the folder that is not
 * empty. */
int retort_run_create(const char *descriptor, const struct retort_run_options *options, struct retort_run **run);
void retort_run_destroy(struct retort_run *run); /* NULL-safe */

/* Distils, evaluates and writes the run folder. After a failure or an interruption the folder can be resumed. A run
 * that is finished already is RETORT_OK at once. */
int retort_run_execute(struct retort_run *run);

const char *retort_run_folder(const struct retort_run *run);
/* The text of result.json; NULL before the run is finished. Valid until the run is destroyed. */
const char *retort_run_result(const struct retort_run *run);

#endif
