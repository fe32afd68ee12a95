#include "distill/truncation.h"

#include <math.h>
#include <string.h>

void truncation_begin(struct truncation_state *state) {
    *state = (struct truncation_state){.accuracy = NAN, .previous = NAN, .best = INFINITY};
}

bool truncation_needs_norms(const struct bptt_spec *method, const struct truncation_state *state) {
    if (method->truncation != TRUNCATION_DYNAMIC) return false;
    return method->reading != READING_RELEASED || state->stage != STAGE_MIDDLE;
}

bool truncation_needs_probe(const struct bptt_spec *method, const struct truncation_state *state, int step) {
    if (!truncation_needs_norms(method, state)) return false;
    /* The norms at hand are those of the early stage: the middle one has taken no probe. */
    bool again = method->reading == READING_RELEASED && state->stage == STAGE_LATE && !state->stage_steps[STAGE_LATE];
    return again || (step - 1) % method->probe_every == 0;
}

static void softmax(const double *x, int count, double scale, double *p) {
    double largest = -INFINITY, sum = 0;
    for (int i = 0; i < count; i++)
        if (x[i] * scale > largest) largest = x[i] * scale;
    for (int i = 0; i < count; i++) sum += p[i] = exp(x[i] * scale - largest);
    for (int i = 0; i < count; i++) p[i] /= sum;
}

/* An index drawn with probabilities p. */
static int draw(struct random *random, const double *p, int count) {
    double u = random_uniform(random), sum = 0;
    for (int i = 0; i < count; i++) {
        sum += p[i];
        if (u < sum) return i;
    }
    return count - 1;
}

static void uniform(double *p, int count) {
    for (int i = 0; i < count; i++) p[i] = 1.0 / count;
}

static void standardise(const double *x, int count, double *z) {
    double mean = 0, variance = 0;
    for (int i = 0; i < count; i++) mean += x[i] / count;
    for (int i = 0; i < count; i++) variance += (x[i] - mean) * (x[i] - mean) / count;
    for (int i = 0; i < count; i++) z[i] = variance > 0 ? (x[i] - mean) / sqrt(variance) : 0;
}

static int clip(int x, int low, int high) {
    return x < low ? low : x > high ? high : x;
}

static struct window_choice released(const struct bptt_spec *method, int T, int stage, struct random *random, double *p,
                                     const double *changes) {
    int W = method->window, d = method->range, window, start;
    if (stage == STAGE_MIDDLE) {
        window = W + d < T ? W + d : T;
        start = (int)random_below(random, (uint32_t)(T - window + 1));
    } else if (stage == STAGE_EARLY) {
        start = draw(random, p, T);
        int rank = 0;
        for (int i = 0; i < T; i++) rank += changes[i] < changes[start];
        window = (int)(W - d + 2.0 * d * rank / T);
        if (start > T - window) start = T - window;
    } else {
        window = W - d > 1 ? W - d : 1;
        start = T - draw(random, p, T) - window;
        if (start < 0) start = 0; /* the released code leaves it negative, which empties its warm-up loop */
    }
    return (struct window_choice){.end = start + window, .window = window};
}

static struct window_choice dynamic(const struct bptt_spec *method, int T, int stage, struct random *random,
                                    const double *norms, double *p, double *scratch) {
    int W = method->window, d = method->range;
    double *changes = scratch, *z = scratch + T, tau = method->temperature, share = 0;
    uniform(p, T);
    if (norms) {
        for (int t = 0; t < T; t++) changes[t] = t ? fabs(norms[t] - norms[t - 1]) : 0;
        if (method->reading == READING_STANDARDISED)
            standardise(norms, T, z);
        else
            memcpy(z, norms, (size_t)T * sizeof *z);
        double sign = method->reading == READING_STANDARDISED && stage == STAGE_LATE ? -1 : 1;
        if (stage != STAGE_MIDDLE) softmax(z, T, sign / tau, p);
        if (method->reading == READING_LITERAL && stage == STAGE_LATE)
            for (int t = 0; t < T; t++) p[t] = T > 1 ? (1 - p[t]) / (T - 1) : 1;
    }
    if (method->reading == READING_RELEASED) return released(method, T, stage, random, p, changes);
    int end = draw(random, p, T);
    if (method->reading == READING_LITERAL) {
        softmax(changes, T, 1 / tau, z);
        share = z[end];
    } else {
        double low = INFINITY, high = -INFINITY;
        for (int t = 0; t < T; t++) {
            low = fmin(low, changes[t]);
            high = fmax(high, changes[t]);
        }
        share = high > low ? (changes[end] - low) / (high - low) : 0.5;
    }
    int window = (int)lrint(W - d + 2 * d * share);
    return (struct window_choice){.end = end + 1, .window = clip(window, 1, end + 1)};
}

struct window_choice truncation_choose(const struct bptt_spec *method, int T, const struct truncation_state *state,
                                       struct random *random, const double *norms, double *probability,
                                       double *scratch) {
    int W = method->window < T ? method->window : T;
    uniform(probability, T);
    switch (method->truncation) {
    case TRUNCATION_FIXED:
        return (struct window_choice){.end = T, .window = W};
    case TRUNCATION_FORWARD: {
        int end = state->forward_end ? state->forward_end : W;
        return (struct window_choice){.end = end, .window = W < end ? W : end};
    }
    case TRUNCATION_RANDOM:
        return (struct window_choice){.end = (int)random_below(random, (uint32_t)(T - W + 1)) + W, .window = W};
    case TRUNCATION_DYNAMIC:
        break;
    }
    return dynamic(method, T, state->stage, random, norms, probability, scratch);
}

static void advance_stage(const struct bptt_spec *method, struct truncation_state *state, double epochs) {
    double gain = state->accuracy - state->previous;
    bool late = state->stage == STAGE_MIDDLE;
    if (state->stage == STAGE_LATE || isnan(gain)) return;
    state->count[late] += gain < (late ? method->stage_n : method->stage_m);
    double enough = epochs * (late ? method->stage_y : method->stage_x);
    if (state->count[late] >= (enough > 1 ? enough : 1)) state->stage++;
}

void truncation_advance(const struct bptt_spec *method, int T, struct truncation_state *state, double loss,
                        double accuracy, int period, double epochs) {
    if (method->truncation == TRUNCATION_FORWARD) {
        if (!state->forward_end) state->forward_end = method->window < T ? method->window : T;
        state->stale = loss < state->best ? 0 : state->stale + 1;
        state->best = fmin(state->best, loss);
        if (state->stale >= method->patience && state->forward_end < T) {
            state->forward_end = clip(state->forward_end + method->window, 1, T);
            state->stale = 0;
            state->best = INFINITY;
        }
    }
    if (method->truncation != TRUNCATION_DYNAMIC) return;
    state->stage_steps[state->stage]++;
    state->epoch_sum += accuracy;
    if (++state->epoch_steps < period) return;
    double mean = state->epoch_sum / state->epoch_steps, past = method->accuracy_smoothing;
    state->previous = state->accuracy;
    state->accuracy = isnan(state->previous) ? mean : past * state->previous + (1 - past) * mean;
    state->epoch_steps = 0;
    state->epoch_sum = 0;
    advance_stage(method, state, epochs);
}

struct truncation_outlook truncation_foresee(const struct bptt_spec *method, int T, int outer_steps, int period,
                                             uint64_t seed, const double *norms, double *probability, double *scratch) {
    enum { ENOUGH = 2000 }; /* choices, of which the means are taken */
    struct truncation_outlook sum = {0};
    struct truncation_state state;
    struct random random = random_begin(seed, RANDOM_TRUNCATION, 0);
    int every = (outer_steps + ENOUGH - 1) / ENOUGH, choices = 0;
    truncation_begin(&state);
    for (int step = 1; step <= outer_steps; step++) {
        sum.probes += truncation_needs_probe(method, &state, step);
        if ((step - 1) % every == 0) {
            struct window_choice choice = truncation_choose(method, T, &state, &random, norms, probability, scratch);
            sum.end += choice.end;
            sum.window += choice.window;
            choices++;
        }
        double accuracy = (step - 1) / period % 2 ? 100 : 0;
        truncation_advance(method, T, &state, random_uniform(&random), accuracy, period, (double)outer_steps / period);
    }
    return (struct truncation_outlook){sum.probes / outer_steps, sum.end / choices, sum.window / choices};
}
