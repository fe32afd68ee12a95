/* From the runs of all networks to the number reported. */
#include "evaluate/plan.h"

#include <math.h>
#include <stdlib.h>

void accuracy_finish(struct accuracy *accuracy) {
    if (!accuracy) return;
    free(accuracy->runs);
    *accuracy = (struct accuracy){0};
}

static double mean_at(const struct accuracy *accuracy, const double *runs, int checkpoint) {
    double sum = 0;
    for (int i = 0; i < accuracy->networks; i++) sum += runs[i * accuracy->checkpoints + checkpoint];
    return sum / accuracy->networks;
}

/* The checkpoint with the highest mean; the earliest of equals. */
static int best_checkpoint(const struct accuracy *accuracy, const double *runs) {
    int best = 0;
    for (int c = 1; c < accuracy->checkpoints; c++)
        if (mean_at(accuracy, runs, c) > mean_at(accuracy, runs, best)) best = c;
    return best;
}

void accuracy_choose(struct accuracy *accuracy, const double *holdout) {
    int best = best_checkpoint(accuracy, accuracy->runs);
    accuracy->best_on_test = mean_at(accuracy, accuracy->runs, best);
    accuracy->chosen = holdout ? best_checkpoint(accuracy, holdout) : best;
    accuracy->chosen_on_test = !holdout && accuracy->checkpoints > 1;
    accuracy->mean = mean_at(accuracy, accuracy->runs, accuracy->chosen);
    double squares = 0;
    for (int i = 0; i < accuracy->networks; i++) {
        double d = accuracy->runs[i * accuracy->checkpoints + accuracy->chosen] - accuracy->mean;
        squares += d * d;
    }
    accuracy->sd = accuracy->networks > 1 ? sqrt(squares / (accuracy->networks - 1)) : NAN;
}
