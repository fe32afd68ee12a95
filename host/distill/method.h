/* A method as one row of a table: how it is called, its keys, what one step of it computes.
 *
 * WHAT A ROW GIVES. A method is a few graphs and a loop. It leaves gradients of the set's variables and named values;
 * everything else is done for it:
 *
 *   the descriptor   (run)     reads, checks, writes and compares its keys, and refuses those of another method
 *   the set          (set.h)   is drawn before `create`, and is the method's to read; never to change. A step finds
 *                              its images in set->images, however they are stored
 *   the update       (distill) checks that loss and gradients are finite, clips, updates, counts the step
 *   checkpoints      (distill) save and load the set, the outer optimiser and the rows of `state`
 *   metrics, result  (run)     are written under the names that the method gave
 *
 * It never opens a file, never plans memory (executables and buffers come from problem->library, under its ceiling),
 * never knows another method or another device, and draws every random number from random_begin(problem->seed, STREAM,
 * turn.draw) or distill_seed, so that a resumed run sees the same ones, on however many devices. A new method is its
 * file, a line in methods.c and one in meson.build; docs/extending.md walks through one. */
#ifndef RETORT_DISTILL_METHOD_H
#define RETORT_DISTILL_METHOD_H

#include "base/key.h"
#include "distill/distill.h"
#include "distill/experts.h"
#include "distill/metric.h"
#include "distill/set.h"
#include "distill/state.h"

/* A method's turn: one of the outer.meta_batch trajectories (a network with draws of its own) over which an outer step
 * averages. They are computed one after another, or on several devices at once. */
struct turn {
    int step;       /* the outer step, from 1 */
    int trajectory; /* from 0 */
    uint32_t draw;  /* numbers the turns of a run from 1: the `step` of random_begin and distill_seed */
};

struct unroll;
struct method {
    const char *name;    /* the word of method.name */
    const char *summary; /* one sentence for the reference of keys */

    /* Keys of the descriptor's `method` section, "method.window": their values go into a plain struct of `spec_size`
     * bytes, which problem->method_spec points to. Another method may have a key of the same path. */
    const struct schema_key *keys;
    size_t key_count, spec_size;
    /* Its own defaults for keys that are everybody's, such as outer.lr. */
    const struct key_default *defaults;
    size_t default_count;

    /* Which variables beside the stored set it finds gradients for: bits 1 << SET_SOFT_LABELS, 1 << SET_LOG_LR. A
     * descriptor that wants others learned is refused. */
    unsigned learns;
    /* Whether several devices can each compute some rows of its batches, by what problem->division says. */
    bool divides_rows;

    /* What to do where a step's numbers are not finite: "lower outer.lr". */
    const char *remedy;

    /* Whether the values go together: RETORT_EINVAL with words, and in *key the path of the key that they concern.
     * Asked when a descriptor is read, where library, train, network and rows are NULL, and again when these are there,
     * before anything is planned. May be NULL. */
    int (*check)(const struct distill_problem *problem, const char **key);

    /* What it wants of expert trajectories (experts.h), told by the values of its keys; they are then in
     * problem->experts, but where it is only planned for. NULL: nothing. */
    void (*experts)(const void *spec, struct expert_wish *wish);

    /* Compiles and allocates. `problem` and `set` outlive the instance. */
    int (*create)(const struct distill_problem *problem, struct set *set, void **instance);
    void (*destroy)(void *instance); /* NULL-safe */

    /* What it runs on the device, for the plan that a resumed run takes again. NULL: nothing. */
    const struct unroll *(*unroll)(const void *instance);

    /* One trajectory: leaves in set->image_gradient the derivative of its outer loss by set->images, in
     * set->variables[i].gradient that by the labels and by the logarithm of the inner rate, for those of count above 0,
     * whole arrays all, and its values in *metrics, always the same rows; gradients and numbers are then averaged over
     * the trajectories.
     * The progress line shows `loss` (which must be finite), `accuracy` (percent), the window from `end` and `window`
     * (inner steps) and the text `stage`, of those there are. The instance's state must not yet count the step: the
     * update may still be refused. */
    int (*step)(void *instance, struct turn turn, struct metrics *metrics);
    /* The set was updated: takes the step, of whose averages *metrics tells, into the instance's state. May be NULL. */
    void (*advance)(void *instance, const struct metrics *metrics);
    /* Numbers that a trajectory leaves for its turn in later steps: [meta_batch, *count], of which each turn writes its
     * own row; all devices then get all rows. NULL: there are none. */
    double *(*left)(void *instance, int64_t *count);

    /* Before the first step: seconds that a trajectory will take on the average of the whole run, from trials of about
     * `enough` seconds each, or of the least that can be tried where that takes longer. Overwrites gradients as `step`
     * does, and changes no state. NULL: steps are alike, and a few of them are timed. */
    int (*forecast)(void *instance, double enough, double *seconds);

    /* Adds what a checkpoint must hold beside the set: numbers and arrays of the instance, always the same rows. NULL:
     * nothing. */
    void (*state)(void *instance, struct state *state);
    /* Brings what lies on the device into those arrays before they are saved, and back after they were loaded. */
    int (*save)(void *instance);
    int (*load)(void *instance);

    /* Values for result.json when all steps are done. May be NULL. */
    void (*results)(const void *instance, struct metrics *results);
};

/* The table; NULL past its end. `index` is also the value of the key method.name. */
const struct method *method_at(int index);

/* What the unroll of a method takes from the problem: network, inner optimiser, a plan, the interrupt. The rest is the
 * method's to fill in. */
struct unroll_spec;
struct unroll_spec method_unroll(const struct distill_problem *problem);

/* Seconds of a part of a step, for a forecast: the average of as many as take `enough` of them. The first,
 * which is slower, counts only where it takes that long. The part's status where it fails. */
int method_time(int (*part)(void *context), void *context, double enough, double *seconds);

/* A seed of its own for one purpose and draw. */
uint64_t distill_seed(uint64_t seed, enum random_stream stream, uint32_t draw);

#endif
