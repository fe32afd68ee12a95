/* What a run will take, known before it begins: device memory by what it holds, how that was made to fit, and time,
 * from trials of its own parts on this device. `retort plan` shows it, a run says it in two lines and keeps it in
 * plan.json
 * (`estimate`), where a report finds it beside what then happened. */
#ifndef RETORT_RUN_FORECAST_H
#define RETORT_RUN_FORECAST_H

#include "base/memory.h"
#include "run/run_folder.h"

#include <jansson.h>

struct forecast {
    /* Device memory. Of distilling by what it holds, in the order of its making; with the evaluation's trainings, which
     * are not there at the same time, and what building kernels takes for a moment, `peak_bytes` at most. */
    ARRAY(struct forecast_memory {
        char what[96];
        uint64_t bytes;
    })
    memory;
    uint64_t distil_bytes, evaluate_bytes, peak_bytes;
    uint64_t limit_bytes; /* the ceiling, or the device's memory where that is less or there is none */
    bool has_ceiling;
    char parts[300]; /* how batches were split and what is kept: unroll_describe */

    /* Seconds. */
    int outer_steps;
    double step, evaluate; /* of an outer step on the average; 0: the set is not evaluated */
    double build;          /* of building kernels, as a run will that finds them in the driver's cache, if it has one */
    double build_now;      /* as it has just taken */
};
void forecast_finish(struct forecast *forecast);         /* NULL-safe, zeroes */
double forecast_distil(const struct forecast *forecast); /* seconds of all outer steps */

/* How long each of the trials may be, in seconds: at the start of a run, and where a forecast is all that is wanted. */
#define FORECAST_QUICK   0.1
#define FORECAST_CAREFUL 0.5
/* Of a run that has been prepared and has taken no step. What the steps compute is not changed by it. */
int forecast_make(const struct descriptor *descriptor, const struct session *session, struct distill *distill,
                  const struct evaluate_plans *evaluation, double enough, struct forecast *forecast);
/* Of a run that is not there: opens everything, prepares the run, tries its parts, and closes everything. RETORT_ELIMIT
 * with words where it does not fit. */
int forecast_descriptor(const struct descriptor *descriptor, const volatile int *interrupt, struct forecast *forecast);

json_t *forecast_json(const struct forecast *forecast); /* a new reference; NULL: out of memory */
void forecast_tell(const struct forecast *forecast);    /* two lines for the log */

#endif
