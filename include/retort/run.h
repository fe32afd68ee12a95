/** @file
 * Distillation runs: what `retort run` does, for programs of your own.
 *
 *     struct retort_run *run = NULL;
 *     if (retort_run_create("quickstart.yaml", &(struct retort_run_options){.out = "runs/one"}, &run) < 0
 *         || retort_run_execute(run) < 0)
 *         fprintf(stderr, "%s\n", retort_error_message());
 *     else
 *         puts(retort_run_result(run));
 *     retort_run_destroy(run);
 *
 * Numbers are read and written with a decimal point, whatever the calling program's locale. Unlike the program, the
 * library never tunes kernels of its own accord; it takes those that `retort tune` has found. */
#ifndef RETORT_RUN_H
#define RETORT_RUN_H

#include "retort/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A run: made by retort_run_create() or retort_run_create_text(), used by one thread at a time. */
struct retort_run;

/** Where a run is, told after every outer step. Later versions may add members at the end. */
struct retort_progress {
    int outer_step;    /**< how many are done */
    int outer_steps;   /**< how many there will be */
    double loss;       /**< of the real batch; NaN where the method has none */
    double accuracy;   /**< of the real batch, percent; NaN where the method has none */
    const char *stage; /**< "early", "middle", "late"; NULL where the method has no stages */
};

/** What a run is to do beside its descriptor. Zeros are the defaults: initialise it with `= {0}` or by names. `out` and
 * `settings` are read at once; `interrupt` and `user` must stay until the run is destroyed. */
struct retort_run_options {
    const char *out;             /**< run folder; NULL: runs/NAME-SEED, after the descriptor */
    const char *const *settings; /**< descriptor keys to override, "outer.lr=0.01", NULL-terminated; NULL: none */
    int resume;                  /**< go on from the folder's newest good checkpoint */
    int dry_run;                 /**< read and plan everything, build the kernels, run nothing, write nothing */
    int profile;                 /**< measure device time per kernel: a line of metrics.jsonl at the end */
    int tensorboard;             /**< write event files for TensorBoard into the folder's tensorboard/ */
    double checkpoint_every;     /**< seconds of work between checkpoints; 0: 20 */
    /** Set it to non-zero, from a signal handler, another thread or the callback: the outer step at hand is dropped,
     * the state after the one before it is saved, and retort_run_execute() returns #RETORT_EINTERRUPTED. May be NULL.
     */
    const volatile int *interrupt;
    /** Called after every outer step, on the thread that executes the run and in that thread's own locale. What
     * `progress` points to is valid during the call. It must return: no longjmp, no C++ exception. May be NULL. */
    void (*progress)(void *user, const struct retort_progress *progress);
    void *user;              /**< handed to the callback */
    const void *reserved[8]; /**< NULL: room for later versions */
};

/** Reads the descriptor and settles the folder; nothing is written yet.
 * @param descriptor a YAML file; may be NULL with `resume` and `out`: the folder's own is taken
 * @param options NULL: the defaults
 * @param[out] run the caller's, for retort_run_destroy()
 * @return #RETORT_EINVAL names file, line and key of what is wrong, or the folder that is not empty. */
int retort_run_create(const char *descriptor, const struct retort_run_options *options, struct retort_run **run);

/** The same for a descriptor in memory, YAML or JSON (which is YAML).
 * @param name of the descriptor in messages, and of the run folder where `out` is NULL
 * @param folder where relative paths in the text start; NULL: the working directory
 * @param text the descriptor, zero-terminated; read at once
 * @param options NULL: the defaults
 * @param[out] run the caller's, for retort_run_destroy() */
int retort_run_create_text(const char *name, const char *folder, const char *text,
                           const struct retort_run_options *options, struct retort_run **run);

/** Frees it; NULL is fine. The run folder stays. Not while it is executed. */
void retort_run_destroy(struct retort_run *run);

/** Distils, evaluates and writes the run folder. After a failure or an interruption the folder can be resumed, by a new
 * run with `resume`. A run that is finished already is #RETORT_OK at once. */
int retort_run_execute(struct retort_run *run);

/** The run folder. Valid until the run is destroyed. */
const char *retort_run_folder(const struct retort_run *run);

/** The text of result.json; NULL before the run is finished. Valid until the run is destroyed. */
const char *retort_run_result(const struct retort_run *run);

#ifdef __cplusplus
}
#endif

#endif
