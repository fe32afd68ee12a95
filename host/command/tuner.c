#include "command/tuner.h"

#include "base/error.h"
#include "base/log.h"
#include "command/worker.h"

#include <stdlib.h>

/* The kernel that is measured when all time is over may end, unless it takes so many seconds more. */
#define GRACE 10.0

struct tuning {
    const struct tuner_spec *spec;
    struct wisdom *bad; /* what is known to be bad, from the file and found now */
    struct worker *worker;
    int status; /* of entering bad choices */
};

static int measure(void *user, const struct tune_task *task, const struct trial_limits *limits,
                   struct trial_result *result) {
    return worker_measure(((struct tuning *)user)->worker, task, limits, result);
}

static void refuse(void *user, const struct kernel_class *class, const struct kernel_choice *choice,
                   const char *fault) {
    struct tuning *tuning = user;
    const struct tuner_spec *spec = tuning->spec;
    char what[KERNEL_WORDS], words[KERNEL_WORDS];
    kernel_class_describe(class, what);
    kernel_choice_describe(choice, words);
    log_info("%s for a %s: %s; it is not tried again", words, what, fault);
    int status = wisdom_refuse(tuning->bad, &spec->target, class, choice);
    if (status == RETORT_OK && *spec->path) status = wisdom_remember_bad(spec->path, &spec->target, class, choice);
    if (status < 0) tuning->status = status;
}

static double arithmetic(const struct kernel_demand *demand) {
    return demand->launches * kernel_class_flops(&demand->class);
}

static int by_arithmetic(const void *a, const void *b) {
    double x = arithmetic(a), y = arithmetic(b);
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Whether the same sizes are launched jointly too. */
static bool joined_elsewhere(const struct tuner_spec *spec, const struct kernel_class *class) {
    for (size_t i = 0; i < spec->count; i++) {
        struct kernel_class other = spec->list[i].class;
        if (other.terms.inputs + other.terms.weights == 2) continue;
        other.terms = class->terms;
        if (kernel_class_equal(&other, class)) return true;
    }
    return false;
}

/* A class gets that part of the time left that its arithmetic has of what is left to be tuned, and more where that does
 * not suffice to compare two choices: then what comes later, having less arithmetic, goes without. */
static int tune_class(struct tuning *tuning, size_t i, double ends, double left, struct tuner_total *total) {
    int status = RETORT_OK;
    const struct tuner_spec *spec = tuning->spec;
    const struct kernel_demand *demand = &spec->list[i];
    struct tune_result result;
    struct tune_spec search = {.class = demand->class,
                               .joined = joined_elsewhere(spec, &demand->class),
                               .quick = spec->quick,
                               .seconds = spec->quick ? 0.01 : 0.03,
                               .bad = tuning->bad,
                               .interrupt = spec->interrupt,
                               .measure = measure,
                               .refuse = refuse,
                               .user = tuning};
    search.deadline = ends;
    if (ends > 0) search.ends = clock_seconds() + (ends - clock_seconds()) * arithmetic(demand) / left;
    TRY(bench_tune(&spec->target, &search, &result));
    TRY(tuning->status);
    /* Where not all was tried, what was known before may be better. */
    if (*spec->path && (result.better || !result.cut_short))
        TRY(wisdom_remember(spec->path, &spec->target, &demand->class, result.better ? &result.choice : NULL));
    total->built_in += demand->launches * result.built_in_seconds;
    total->best += demand->launches * result.best_seconds;
    total->found += result.better;
    total->wrong += result.wrong;
    total->tuned++;
    if (spec->tell) TRY(spec->tell(spec->user, demand, &result));
done:
    return status;
}

/* Whether there is more than one way to compute a product. */
static bool has_choice(const struct tuner_spec *spec, const struct kernel_class *class, const struct wisdom *bad) {
    struct kernel_choice list[CANDIDATES];
    const struct kernel_variant *row;
    int count = 0;
    for (int i = 0; (row = kernels_row(&spec->target, true, i)); i++)
        for (int k = kernels_candidates(&spec->target, class, row, list) - 1; k >= 0; k--)
            count += !wisdom_refuses(bad, class, &list[k]);
    return count > 1;
}

/* Products for which there is nothing to choose are no work for the tuner. */
static void drop_products(struct tuner_spec *spec, const struct wisdom *bad) {
    size_t kept = 0;
    for (size_t i = 0; i < spec->count; i++)
        if (!class_is_product(&spec->list[i].class) || has_choice(spec, &spec->list[i].class, bad))
            spec->list[kept++] = spec->list[i];
    spec->count = kept;
}

static bool interrupted(const struct tuner_spec *spec) {
    return spec->interrupt && *spec->interrupt;
}

int tuner_run(struct tuner_spec *spec, struct tuner_total *total) {
    int status = RETORT_OK;
    struct tuning tuning = {.spec = spec};
    struct progress progress = {0};
    double ends = spec->seconds > 0 ? clock_seconds() + spec->seconds : 0, left = 0;
    TRY(wisdom_load(spec->path, &spec->target, &tuning.bad));
    drop_products(spec, tuning.bad);
    progress_begin(&progress, "tune", 0, (int64_t)spec->count);
    TRY(worker_create(&spec->target, spec->interrupt, &tuning.worker));
    if (ends > 0) worker_set_end(tuning.worker, ends + GRACE);
    qsort(spec->list, spec->count, sizeof *spec->list, by_arithmetic);
    for (size_t i = 0; i < spec->count; i++) left += arithmetic(&spec->list[i]);
    for (size_t i = 0; i < spec->count && !interrupted(spec) && !(ends > 0 && clock_seconds() >= ends); i++) {
        status = tune_class(&tuning, i, ends, left, total);
        if (status == RETORT_EINTERRUPTED) { /* its time was over before anything was known */
            error_clear();
            status = RETORT_OK;
        }
        TRY(status);
        left -= arithmetic(&spec->list[i]);
        progress_update(&progress, (int64_t)i + 1, NULL);
    }
    if (interrupted(spec)) RAISE(RETORT_EINTERRUPTED, "interrupted; what was found is kept");
    if (*spec->path) TRY(wisdom_remember_tuned(spec->path, &spec->target));
done:
    worker_destroy(tuning.worker);
    wisdom_destroy(tuning.bad);
    progress_end(&progress);
    return status;
}
