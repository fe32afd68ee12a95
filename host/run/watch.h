/* What is seen of a run while it goes on: the progress line, preview.png and the pictures of previews/, and where it
 * was asked for an event file for TensorBoard. Nothing of it changes what the run computes. */
#ifndef RETORT_RUN_WATCH_H
#define RETORT_RUN_WATCH_H

#include "base/log.h"
#include "run/run_folder.h"
#include "run/set_folder.h"

#include <jansson.h>

struct tensorboard;
struct watch {
    const struct run_folder *folder;
    const struct descriptor *descriptor;
    const struct session *session;
    struct distill *distill;
    struct progress line;
    struct tensorboard *board; /* NULL: not asked for */
    double accuracy;           /* of the last step that told one */
};

/* All but `watch` is borrowed. The method stands where the run goes on; metrics.jsonl holds its steps up to there.
 * `evaluation`: seconds that it will take afterwards, 0 where that is not known. */
int watch_begin(struct watch *watch, const struct run_folder *folder, const struct descriptor *descriptor,
                const struct session *session, struct distill *distill, bool tensorboard, double evaluation);
/* After every outer step. */
int watch_step(struct watch *watch, const struct metrics *metrics);
/* With every checkpoint: preview.png is that of the set as it is. */
int watch_checkpoint(struct watch *watch);
void watch_end(struct watch *watch); /* safe on zeroes */

/* The mean accuracies of the finished evaluation, result.json's, for TensorBoard. */
int watch_result(const struct run_folder *folder, const struct descriptor *descriptor, const json_t *accuracy);

#endif
