/* Finding the fastest way to compute a class of convolutions or matrix products. */
#include "bench/bench.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "compile/wisdom.h"
#include "device/gemm.h"

#include <stdlib.h>
#include <string.h>

/* What a choice must gain to be preferred to the built-in one: less is within the noise of a busy machine. */
#define MARGIN 0.03
/* A way whose time is within this factor of the fastest one's has its tiles tried too. */
#define NEAR 1.15
/* A choice that takes so much longer than the best one, once, is not timed. */
#define FAR 1.5
/* No launch is to take longer on a GPU: drivers kill a long one where the GPU has a screen to draw. What a choice takes
 * is not known before it has run, so the built-in one must stay below a part of it. */
#define LONGEST_LAUNCH 0.1
#define BUILT_IN_SHARE 0.25
/* Operations that take less than the longest launch on any GPU, by any kernel. */
#define SURELY_SHORT 1e9
/* Of a class's time, what the search may take: the best is measured again in the rest. */
#define SEARCH_SHARE 0.85

enum { MOST_ROWS = 8, FEW_IMAGES = 3, FEW_ROWS = 128 };

/* --- measuring in this process --- */
struct tune_bench {
    struct device *device;
    struct kernel_target target;
    struct trial *trial; /* of the class measured last; NULL: none */
    struct kernel_class class;
};

int tune_bench_create(struct device *device, const struct kernel_target *target, struct tune_bench **bench) {
    struct tune_bench *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return error_set(RETORT_ENOMEM, "out of memory");
    *fresh = (struct tune_bench){.device = device, .target = *target};
    fresh->target.preferred = fresh->target.gemm = NULL; /* what is measured is what each task says */
    *bench = fresh;
    return RETORT_OK;
}

void tune_bench_destroy(struct tune_bench *bench) {
    if (!bench) return;
    trial_destroy(bench->trial);
    free(bench);
}

int tune_bench_measure(struct tune_bench *bench, const struct tune_task *task, const struct trial_limits *limits,
                       struct trial_result *result) {
    int status = RETORT_OK;
    struct kernel_target target = bench->target;
    struct wisdom *wisdom = NULL;
    if (!kernels_fits(&target, &task->class, &task->choice))
        RAISE(RETORT_EINVAL, "a choice that these kernels do not allow");
    if (kernels_variant(task->choice.variant)->library) {
        if (limits->tell) limits->tell(limits->user, "testing");
        if (device_gemm_trust(bench->device) < 0) {
            log_debug("%s", retort_error_message());
            error_clear();
            *result = (struct trial_result){.fault = "the library has failed its test", .failed = true};
            goto done;
        }
        target.calls = bench->device;
    }
    TRY(wisdom_of_one(&task->class, &task->choice, &wisdom));
    target.wisdom = wisdom;
    if (!bench->trial || !kernel_class_equal(&bench->class, &task->class)) {
        trial_destroy(bench->trial);
        bench->trial = NULL;
        TRY(trial_create(&target, &task->class, &bench->trial));
        bench->class = task->class;
    }
    TRY(trial_run(bench->trial, bench->device, &target, limits, result));
done:
    wisdom_destroy(wisdom);
    return status;
}

/* --- the search --- */
struct search {
    struct kernel_target target;
    const struct tune_spec *spec;
    struct tune_result *result;
    struct kernel_class class; /* as it is measured: smaller, where the whole class would take too long */
    double scale;              /* of the class's size to that */
    double ends;               /* the clock when the search stops */
    int least;                 /* but not before so many choices were measured */
    double seconds, once;      /* of the best choice so far */
    uint64_t seen[MOST_ROWS * CANDIDATES + 1]; /* hashes of the kernels measured: choices may be the same */
    size_t seen_count;
};

static int plan_choice(const struct search *search, const struct kernel_choice *choice, struct kernel_plan *plan) {
    struct kernel_target target = search->target;
    struct wisdom *wisdom = NULL;
    int status = wisdom_of_one(&search->class, choice, &wisdom);
    target.wisdom = wisdom;
    if (status == RETORT_OK) status = kernels_plan(&target, &search->class, plan);
    wisdom_destroy(wisdom);
    return status;
}

static bool is_new(struct search *search, const struct kernel_choice *choice) {
    struct kernel_plan plan;
    uint64_t hash = 0;
    if (kernels_variant(choice->variant)->library) return true;
    if (plan_choice(search, choice, &plan) < 0) return true; /* measuring it will say why */
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

static bool stops(const struct search *search) {
    const struct tune_spec *spec = search->spec;
    bool enough = search->result->tried >= search->least;
    return (spec->interrupt && *spec->interrupt) || (enough && search->ends > 0 && clock_seconds() >= search->ends);
}

/* Measures a choice. *seconds is 0 where it is not to be taken: wrong, spilling, far behind, or known already to a
 * search for what is new. */
static int measure(struct search *search, const struct kernel_choice *choice, bool only_new, double *seconds) {
    int status = RETORT_OK;
    const struct tune_spec *spec = search->spec;
    struct tune_result *sums = search->result;
    struct trial_result tried;
    struct tune_task task = {.class = search->class, .choice = *choice};
    const struct trial_limits limits = {.seconds = spec->seconds, .once = FAR * search->once, .spill = !only_new};
    *seconds = 0;
    if (search->scale != 1) task.choice = kernels_explicit(&search->target, &spec->class, choice);
    if (only_new && (wisdom_refuses(spec->bad, &spec->class, choice) || !is_new(search, &task.choice))) goto done;
    if (spec->deadline > 0 && clock_seconds() >= spec->deadline)
        RAISE(RETORT_EINTERRUPTED, "the time for tuning is over");
    TRY(spec->measure(spec->user, &task, &limits, &tried));
    sums->tried++;
    if (tried.error > sums->worst_error) sums->worst_error = tried.error;
    if (tried.fault) {
        if (tried.spills) goto done;
        sums->wrong++;
        if (spec->refuse) spec->refuse(spec->user, &spec->class, choice, tried.fault);
        goto done;
    }
    if (tried.seconds > 0 && (search->once == 0 || tried.once < search->once)) search->once = tried.once;
    *seconds = tried.seconds * search->scale;
done:
    return status;
}

/* Measures a choice that may be the best. */
static int try_choice(struct search *search, const struct kernel_choice *choice, double *seconds) {
    int status = measure(search, choice, true, seconds);
    if (status < 0 || *seconds == 0 || *seconds >= search->seconds) return status;
    search->seconds = *seconds;
    search->result->choice = *choice;
    search->result->better = true;
    return status;
}

/* The ways by their own rules first, then the tiles of the fastest. */
static int find(struct search *search, const char *built_in) {
    int status = RETORT_OK, counts[MOST_ROWS] = {0};
    const struct tune_spec *spec = search->spec;
    struct kernel_choice lists[MOST_ROWS][CANDIDATES];
    const struct kernel_variant *row;
    double own[MOST_ROWS] = {0}, best = search->seconds;
    for (int i = 0;
         i < MOST_ROWS && (row = kernels_row(&search->target, class_is_product(&spec->class), i)) && !stops(search);
         i++) {
        if (!row->joins && spec->joined) continue;
        counts[i] = kernels_candidates(&search->target, &spec->class, row, lists[i]);
        if (counts[i] == 0) continue;
        own[i] = search->result->built_in_seconds;
        if (strcmp(row->name, built_in) != 0) TRY(try_choice(search, &lists[i][0], &own[i]));
        if (own[i] > 0 && own[i] < best) best = own[i];
    }
    for (int i = 0; i < MOST_ROWS; i++)
        for (int k = 1; k < counts[i] && own[i] > 0 && own[i] <= NEAR * best && !stops(search); k++) {
            double seconds;
            if (!spec->quick || k % 3 == 1) TRY(try_choice(search, &lists[i][k], &seconds));
        }
done:
    return status;
}

/* The size of which a launch may be measured with less, as there are many of its kind: images, matrices, else rows or
 * columns of a result; and how many of them are few. */
static int64_t *size_of_many(struct kernel_class *class, int64_t *few) {
    struct matmul_sizes *p = &class->product;
    *few = FEW_IMAGES;
    if (!class_is_product(class)) return &class->sizes.n;
    if (p->batch > FEW_IMAGES) return &p->batch;
    *few = FEW_ROWS; /* enough for the largest tiles */
    return p->n > p->m ? &p->n : &p->m;
}

/* Leaves built_in_seconds, 0 where it is not right. What may take long on a GPU is measured with few images first, or
 * whatever there are many of, and then, by what those take, with as many as stay below the longest launch. */
static int measure_built_in(struct search *search, const struct kernel_choice *built_in) {
    int status = RETORT_OK;
    const struct tune_spec *spec = search->spec;
    double *seconds = &search->result->built_in_seconds;
    search->class = spec->class;
    search->scale = 1;
    search->once = 0;
    int64_t few, *size = size_of_many(&search->class, &few), whole = *size;
    if (search->target.family == FAMILY_GPU && whole > few && kernel_class_flops(&spec->class) > SURELY_SHORT) {
        *size = few;
        search->scale = (double)whole / (double)few;
        TRY(measure(search, built_in, false, seconds));
        double short_enough = *seconds > 0 ? BUILT_IN_SHARE * LONGEST_LAUNCH / *seconds * (double)whole : 0;
        if (short_enough <= (double)few) goto done;
        *size = short_enough < (double)whole ? (int64_t)short_enough : whole;
        search->scale = (double)whole / (double)*size;
        search->once = 0;
    }
    TRY(measure(search, built_in, false, seconds));
done:
    if (status == RETORT_OK) is_new(search, built_in);
    return status;
}

/* Both are measured again, one right after the other: the machine may have been busier during an earlier
 * measurement. */
static int confirm(struct search *search, const struct kernel_choice *built_in) {
    int status = RETORT_OK;
    struct tune_result *result = search->result;
    double again = 0, own = 0;
    search->once = 0;
    for (int turn = 0; turn < 2 && result->better; turn++) {
        TRY(measure(search, built_in, false, &own));
        TRY(measure(search, &result->choice, false, &again));
        if (own > 0 && own < result->built_in_seconds) result->built_in_seconds = own;
        if (again > 0 && again < search->seconds) search->seconds = again;
        result->better =
            again > 0 && again <= (1 - MARGIN) * own && search->seconds <= (1 - MARGIN) * result->built_in_seconds;
    }
done:
    return status;
}

int bench_tune(const struct kernel_target *target, const struct tune_spec *spec, struct tune_result *result) {
    int status = RETORT_OK;
    struct tune_result fresh = {0};
    struct search search = {
        .target = *target, .spec = spec, .result = &fresh, .class = spec->class, .scale = 1, .ends = spec->ends};
    double begun = clock_seconds();
    if (spec->ends > 0) search.ends = begun + SEARCH_SHARE * (spec->ends - begun);
    search.target.preferred = NULL;
    struct kernel_choice built_in;
    do {
        search.target.wisdom = spec->bad;
        built_in = kernels_untuned(&search.target, &spec->class);
        if (!built_in.variant)
            RAISE(RETORT_EDEVICE, "every kernel for such a launch is known to be bad on %s", target->traits->name);
        search.target.wisdom = NULL;
        TRY(measure_built_in(&search, &built_in));
    } while (fresh.built_in_seconds == 0 && wisdom_refuses(spec->bad, &spec->class, &built_in));
    if (fresh.built_in_seconds == 0)
        RAISE(RETORT_EDEVICE,
              "the built-in kernel is wrong by %.1e of the largest value: this device or its driver "
              "does not compute what it is told; nothing is tuned",
              fresh.worst_error);
    search.seconds = fresh.built_in_seconds;
    search.least = fresh.tried + 1;
    status = find(&search, built_in.variant);
    fresh.cut_short = stops(&search);
    if (status == RETORT_OK) status = confirm(&search, &built_in);
    if (status == RETORT_EINTERRUPTED) { /* what is not confirmed is not taken */
        fresh.better = false;
        fresh.cut_short = true;
        status = RETORT_OK;
    }
    TRY(status);
    fresh.best_seconds = fresh.better ? search.seconds : fresh.built_in_seconds;
    *result = fresh;
done:
    return status;
}
