/** @file
 * What a distilled set is worth: fresh networks are trained on it and tested, as `retort eval` does, and beside them
 * networks on as many random real images.
 *
 *     struct retort_evaluation *evaluation = NULL;
 *     if (retort_evaluate("runs/one", NULL, &evaluation) == RETORT_OK) {
 *         const struct retort_accuracy *distilled = retort_evaluation_accuracy(evaluation, RETORT_DISTILLED);
 *         printf("%.2f %%\n", distilled->mean);
 *     }
 *     retort_evaluation_destroy(evaluation);
 */
#ifndef RETORT_EVALUATE_H
#define RETORT_EVALUATE_H

#include "retort/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** Accuracies of one set of images. Later versions may add members at the end. */
struct retort_accuracy {
    double mean;        /**< percent of the test images, over the networks */
    double sd;          /**< percent, with n - 1; NaN for a single network */
    int networks;       /**< how many were trained */
    int step;           /**< training steps after which they were tested */
    int chosen_on_test; /**< 1 where that number of steps was chosen as the best on the test images themselves */
    const double *runs; /**< [networks], percent */
};

/** What networks were trained on. */
enum retort_accuracy_of {
    RETORT_DISTILLED, /**< the set */
    RETORT_RANDOM,    /**< random real images, as many of each class; none where the set's classes differ in number */
    RETORT_FULL,      /**< all training images, where the descriptor says `evaluate.full_data` */
};

/** How to evaluate. Zeros are the defaults. */
struct retort_evaluate_options {
    /** A .npy file of labels, [N] whole numbers or [N,classes] soft ones. The set is then a .npy file of
     * images [N,C,H,W]: floats are in the space that networks train in, uint8 are pixels. Needs `descriptor` or
     * `text`. */
    const char *labels;
    const char *descriptor;        /**< data, network and protocol from this file instead of the set's own recipe */
    const char *text;              /**< or from this text, as retort_run_create_text() reads one */
    const char *folder;            /**< where relative paths in `text` start; NULL: the working directory */
    const char *const *settings;   /**< keys to override, "evaluate.networks=5", NULL-terminated; NULL: none */
    const volatile int *interrupt; /**< non-zero: stop, #RETORT_EINTERRUPTED. May be NULL */
    const void *reserved[8];       /**< NULL: room for later versions */
};

/** The outcome. Any number of threads may read one at the same time. */
struct retort_evaluation;

/** Trains and tests.
 * @param set what retort_set_read() takes, or with `labels` a .npy file
 * @param options NULL: the defaults
 * @param[out] evaluation the caller's, for retort_evaluation_destroy() */
int retort_evaluate(const char *set, const struct retort_evaluate_options *options,
                    struct retort_evaluation **evaluation);

/** Frees it; NULL is fine. */
void retort_evaluation_destroy(struct retort_evaluation *evaluation);

/** A row of it; NULL where there is none. Valid until the evaluation is destroyed. */
const struct retort_accuracy *retort_evaluation_accuracy(const struct retort_evaluation *evaluation,
                                                         enum retort_accuracy_of of);

/** Everything as JSON, what `retort eval --json` prints. Valid until the evaluation is destroyed. */
const char *retort_evaluation_json(const struct retort_evaluation *evaluation);

#ifdef __cplusplus
}
#endif

#endif
