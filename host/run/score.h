/* What a set is worth beside its baselines, by the descriptor's protocol. */
#ifndef RETORT_RUN_SCORE_H
#define RETORT_RUN_SCORE_H

#include "evaluate/evaluate.h"
#include "run/descriptor.h"
#include "run/session.h"
#include "run/set_folder.h"

#include <jansson.h>

enum score_row { SCORE_DISTILLED, SCORE_RANDOM, SCORE_FULL, SCORE_ROWS };

struct scores {
    struct accuracy rows[SCORE_ROWS];
    bool has[SCORE_ROWS];
    char protocol[256];
    double seconds; /* spent on the rows there are */
};
void scores_finish(struct scores *scores); /* NULL-safe, zeroes */

/* What of the evaluation of a set could fail (evaluate_plan). `set` NULL: found out before there is one, of the set
 * that the descriptor asks for. `frozen`: plans to take, or NULL. Without test images there is none to make: *plans
 * stays as it is. */
int scores_plan(const struct descriptor *descriptor, const struct session *session, const struct distilled_set *set,
                const struct evaluate_plans *frozen, struct evaluate_plans *plans);

/* Of a session that is a member of a team, all members call it, and get the same; `path` is the leader's.
 * Trains and tests: the set, a random subset of the same size (where the set has equally many images of each class),
 * and all of train where the descriptor asks for it. `path`, where not NULL, is a JSON file that keeps each finished
 * row: rows found there for the same set (`sha256`) are taken over, not computed again. */
int scores_compute(const struct descriptor *descriptor, struct session *session, const struct distilled_set *set,
                   const struct evaluate_plans *frozen, const char *path, const char *sha256,
                   const volatile int *interrupt, struct scores *scores);

/* `accuracy` of result.json: an object with a member per row. NULL when out of memory. */
json_t *scores_json(const struct scores *scores, bool has_holdout);

#endif
