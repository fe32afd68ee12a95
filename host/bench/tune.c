/* Finding the fastest way to compute a class of convolutions. */
#include "bench/measure.h"

#include "base/error.h"
#include "compile/wisdom.h"

#include <string.h>

/* What a choice must gain to be preferred to the built-in one: less is within the noise of a busy machine. */
#define MARGIN 0.03
/* A way whose time is within this factor of the fastest one's has its tiles tried too. */
#define NEAR 1.15

enum { MOST_ROWS = 8 }; /* ways to compute convolutions */

struct search {
    struct device *device;
    struct kernel_target target;
    struct conv_trial *trial;
    const struct tune_spec *spec;
    struct tune_result *result;
    double seconds; /* of the best choice so far */
    uint64_t
        seen[MOST_ROWS * CONV_CANDIDATES + 1]; /* hashes of the kernels measured: different choices may be the same */
    size_t seen_count;
};

static bool is_new(struct search *search, const struct kernel_target *target) {
    struct kernel_plan plan;
    uint64_t hash = 0;
    if (kernels_conv(target, &search->spec->class, &plan) < 0) return true; /* measuring it will say why */
    for (int i = 0; i < plan.use_count; i++) {
        const struct kernel_use *use = &plan.uses[i];
        hash = hash_fast(use->file, strlen(use->file), hash);
        hash = hash_fast(use->parameters, strlen(use->parameters), hash);
        hash = hash_fast(use->global, sizeof use->global, hash);
    }
    for (size_t i = 0; i < search->seen_count; i++)
        if (search->seen[i] == hash) return false;
    search->seen[search->seen_count++] = hash;
    return true;
}

static bool interrupted(const struct search *search) {
    return search->spec->interrupt && *search->spec->interrupt;
}

static double error_allowed(const struct kernel_target *target, const struct conv_class *class) {
    return kernels_conv_variant(kernels_conv_choice(target, class).variant)->error;
}

/* Measures a choice; NULL: the built-in one. *seconds is 0 where its result is wrong, or was known already to a search
 * for what is new. */
static int measure(struct search *search, const struct conv_choice *choice, bool only_new, double *seconds) {
    int status = RETORT_OK;
    struct kernel_target target = search->target;
    struct wisdom *wisdom = NULL;
    struct bench_kernel_result measured;
    *seconds = 0;
    if (choice) TRY(wisdom_of_one(&search->spec->class, choice, &wisdom));
    target.wisdom = wisdom;
    if (!is_new(search, &target) && only_new) goto done;
    TRY(conv_trial_measure(search->trial, search->device, &target, search->spec->seconds, &measured));
    double allowed = error_allowed(&target, &search->spec->class);
    bool right = measured.error <= allowed
                 && measured.departure <= allowed + error_allowed(&search->target, &search->spec->class);
    *seconds = right ? measured.seconds : 0;
    search->result->tried++;
    if (!right) search->result->wrong++;
    if (measured.error > search->result->worst_error) search->result->worst_error = measured.error;
done:
    wisdom_destroy(wisdom);
    return status;
}

/* Measures a choice that may be the best. */
static int try_choice(struct search *search, const struct conv_choice *choice, double *seconds) {
    int status = measure(search, choice, true, seconds);
    if (status < 0 || *seconds == 0 || *seconds >= search->seconds) return status;
    search->seconds = *seconds;
    search->result->choice = *choice;
    search->result->better = true;
    return status;
}

/* The ways by their own rules first, then the tiles of the fastest. */
static int find(struct search *search) {
    int status = RETORT_OK, counts[MOST_ROWS] = {0};
    const struct tune_spec *spec = search->spec;
    struct conv_choice lists[MOST_ROWS][CONV_CANDIDATES];
    const struct conv_variant *row;
    double own[MOST_ROWS] = {0}, best = search->seconds;
    const char *built_in = kernels_conv_choice(&search->target, &spec->class).variant;
    for (int i = 0; i < MOST_ROWS && (row = kernels_conv_row(&search->target, i)) && !interrupted(search); i++) {
        if (!row->joins && spec->joined) continue;
        counts[i] = kernels_conv_candidates(&search->target, &spec->class, row, lists[i]);
        if (counts[i] == 0) continue;
        own[i] = search->result->built_in_seconds;
        if (strcmp(row->name, built_in) != 0) TRY(try_choice(search, &lists[i][0], &own[i]));
        if (own[i] > 0 && own[i] < best) best = own[i];
    }
    for (int i = 0; i < MOST_ROWS; i++)
        for (int k = 1; k < counts[i] && own[i] > 0 && own[i] <= NEAR * best && !interrupted(search); k++) {
            double seconds;
            if (!spec->quick || k % 3 == 1) TRY(try_choice(search, &lists[i][k], &seconds));
        }
done:
    return status;
}

int bench_tune(struct device *device, const struct kernel_target *target, const struct tune_spec *spec,
               struct tune_result *result) {
    int status = RETORT_OK;
    struct tune_result fresh = {0};
    struct search search = {.device = device, .target = *target, .spec = spec, .result = &fresh};
    double again = 0, built_in = 0;
    search.target.wisdom = NULL;
    TRY(conv_trial_create(&search.target, &spec->class, &search.trial));
    TRY(measure(&search, NULL, false, &fresh.built_in_seconds));
    if (fresh.built_in_seconds == 0)
        RAISE(RETORT_EDEVICE,
              "the built-in kernel is wrong by %.1e of the largest value: this device or its driver "
              "does not compute what it is told; nothing is tuned",
              fresh.worst_error);
    search.seconds = fresh.built_in_seconds;
    TRY(find(&search));
    /* Both are measured again, one right after the other: the machine may have been busier during an earlier
     * measurement. */
    for (int turn = 0; turn < 2 && fresh.better; turn++) {
        TRY(measure(&search, NULL, false, &built_in));
        TRY(measure(&search, &fresh.choice, false, &again));
        if (built_in > 0 && built_in < fresh.built_in_seconds) fresh.built_in_seconds = built_in;
        if (again > 0 && again < search.seconds) search.seconds = again;
        fresh.better =
            again > 0 && again <= (1 - MARGIN) * built_in && search.seconds <= (1 - MARGIN) * fresh.built_in_seconds;
    }
    fresh.best_seconds = fresh.better ? search.seconds : fresh.built_in_seconds;
    *result = fresh;
done:
    conv_trial_destroy(search.trial);
    return status;
}
