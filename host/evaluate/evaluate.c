/* Training and testing fresh networks, whatever the protocol: one unroll serves all networks of a row, as many at once
 * as it finds worth while. */
#include "evaluate/evaluate.h"

#include "base/error.h"
#include "base/log.h"
#include "evaluate/plan.h"
#include "team/team.h"
#include "unroll/unroll.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_STEPS      256 /* uploaded at once */
#define TEST_BATCH       256
#define TEST_SLICE       (16 * TEST_BATCH) /* images between two looks at the interrupt */
#define FULL_CHUNK_STEPS 8                 /* of all of train: so many batches lie on the device at a time, */
#define FULL_CHUNK_BYTES (64 << 20)        /* or as many as fit here */

/* What networks are trained on: exactly one of the three. */
struct source {
    const struct training_set *set;
    const struct dataset *random; /* at most `ipc` images of each class, drawn for each network */
    int ipc;
    const struct dataset *all;        /* every image, a few batches at a time */
    const struct unroll_plan *frozen; /* NULL: none */
};

static const struct unroll_plan *frozen_or_null(const struct unroll_plan *plan) {
    return plan->test_batch > 0 ? plan : NULL;
}

static struct source set_source(const struct evaluate_problem *problem, const struct training_set *set) {
    return (struct source){.set = set, .frozen = problem->frozen ? frozen_or_null(&problem->frozen->set) : NULL};
}

static struct source random_source(const struct evaluate_problem *problem, const struct dataset *train, int ipc) {
    return (struct source){
        .random = train, .ipc = ipc, .frozen = problem->frozen ? frozen_or_null(&problem->frozen->random) : NULL};
}

static struct source full_source(const struct evaluate_problem *problem, const struct dataset *train) {
    return (struct source){.all = train, .frozen = problem->frozen ? frozen_or_null(&problem->frozen->full) : NULL};
}

struct trainer {
    const struct evaluate_problem *problem;
    const struct source *source;
    struct plan plan;
    struct unroll *unroll;
    struct tables tables;
    float *theta;    /* [at once, p] */
    float *images;   /* of a random subset or a chunk of train, */
    int32_t *labels; /* with its labels */
    struct progress progress;
    char what[64];
    struct deal networks; /* of all, those that are trained here */
    int64_t done;         /* their steps */
    int at_once;          /* networks of a batch: these from `network` on, of which the last batch may lack some */
    int network, count; /* the first of them, and how many are wanted; what is trained in place of others is dropped */
    uint64_t seeds[UNROLL_MOST_NETWORKS];
    int piece; /* steps between two looks at the interrupt */
    bool warned;
};

/* --- checks --- */

static int check_images(const struct network *network, const struct dataset *dataset, const char *what) {
    if (dataset->classes == network->classes && dataset->channels == network->channels
        && dataset->height == network->height && dataset->width == network->width)
        return RETORT_OK;
    return error_set(RETORT_EINVAL,
                     "the %s images are %d x %d x %d in %d classes, the network to evaluate takes %d x %d x %d and %d "
                     "classes; the data must be those the set was made from",
                     what, dataset->channels, dataset->height, dataset->width, dataset->classes, network->channels,
                     network->height, network->width, network->classes);
}

static int check_problem(const struct evaluate_problem *problem) {
    int status = RETORT_OK;
    if (problem->spec.networks < 1)
        RAISE(RETORT_EINVAL, "evaluate.networks is %d; expected 1 or more", problem->spec.networks);
    if (problem->test->count < 1)
        RAISE(RETORT_EINVAL, "the data have no test images, so nothing can be evaluated; give data.path a test part");
    TRY(check_images(problem->network, problem->test, "test"));
    if (problem->holdout && problem->holdout->count) TRY(check_images(problem->network, problem->holdout, "held-out"));
done:
    return status;
}

static int check_set(const struct evaluate_problem *problem, const struct training_set *set) {
    if (set->count < 1 || set->count > INT32_MAX)
        return error_set(RETORT_EINVAL, "a training set of %lld images; expected 1 to %d", (long long)set->count,
                         INT32_MAX);
    if (set->classes != problem->network->classes)
        return error_set(RETORT_EINVAL,
                         "the set has %d classes, the data have %d; evaluate it on the data it was made "
                         "from (the same data.classes)",
                         set->classes, problem->network->classes);
    if (set->ipc < 0 || (set->ipc > 0 && (int64_t)set->ipc * set->classes != set->count))
        return error_set(RETORT_EINVAL, "a set of %lld images cannot be %d for each of %d classes",
                         (long long)set->count, set->ipc, set->classes);
    if (!set->soft_labels == !set->hard_labels)
        return error_set(RETORT_EINVAL, "a set to evaluate needs soft labels or hard ones, and not both");
    return RETORT_OK;
}

/* --- the networks of a batch --- */

static int check_interrupt(const struct trainer *trainer) {
    const volatile int *interrupt = trainer->problem->interrupt;
    if (interrupt && *interrupt) return error_set(RETORT_EINTERRUPTED, "interrupted during the evaluation");
    return RETORT_OK;
}

static void show(struct trainer *trainer) {
    char detail[64];
    int first = trainer->network + 1, all = trainer->networks.first + trainer->networks.count;
    if (trainer->count > 1)
        snprintf(detail, sizeof detail, "networks %d to %d of %d", first, first + trainer->count - 1, all);
    else
        snprintf(detail, sizeof detail, "network %d of %d", first, all);
    progress_update(&trainer->progress, trainer->done, detail);
}

/* Copies the images of a network's rows of train to the device, where they are the rows 0, 1, 2, ... of its set. */
static int upload_chunk(struct trainer *trainer, int network, int steps) {
    const struct dataset *all = trainer->source->all;
    int64_t batch = trainer->plan.batch;
    for (int64_t i = 0; i < steps * batch; i++) {
        int32_t *row = &trainer->tables.rows[(i / batch * trainer->at_once + network) * batch + i % batch];
        dataset_copy_row(all, *row, i, trainer->images, trainer->labels);
        *row = (int32_t)i;
    }
    return unroll_set(trainer->unroll, network, trainer->images, NULL, trainer->labels);
}

static int upload_steps(struct trainer *trainer, int first, int count) {
    int status = RETORT_OK;
    struct tables *tables = &trainer->tables;
    TRY(tables_fill(tables, trainer->seeds, first, count));
    for (int k = 0; trainer->source->all && k < trainer->at_once; k++) TRY(upload_chunk(trainer, k, count));
    TRY(unroll_upload_steps(trainer->unroll, &(struct unroll_steps){.first = first,
                                                                    .count = count,
                                                                    .lr = tables->lr,
                                                                    .rows = tables->rows,
                                                                    .maps = tables->maps,
                                                                    .colour = tables->colour}));
done:
    return status;
}

/* Runs the uploaded steps in pieces of about half a second, so that a Ctrl-C is heeded and the progress line moves. */
static int run_steps(struct trainer *trainer, int count) {
    int status = RETORT_OK;
    for (int from = 0, n; from < count; from += n) {
        TRY(check_interrupt(trainer));
        n = count - from < trainer->piece ? count - from : trainer->piece;
        double begun = clock_seconds();
        TRY(unroll_train(trainer->unroll, from, n, false));
        TRY(device_finish(library_device(trainer->problem->library)));
        double seconds = clock_seconds() - begun;
        if (seconds < 0.25 && n == trainer->piece && trainer->piece < CHUNK_STEPS) trainer->piece *= 2;
        if (seconds > 1 && trainer->piece > 1) trainer->piece /= 2;
        trainer->done += n * trainer->count;
        show(trainer);
    }
done:
    return status;
}

/* Percent correct of each network. */
static int test(struct trainer *trainer, const struct dataset *dataset, double *percent) {
    int status = RETORT_OK;
    size_t size = (size_t)dataset->channels * (size_t)dataset->height * (size_t)dataset->width;
    int64_t correct[UNROLL_MOST_NETWORKS] = {0}, part[UNROLL_MOST_NETWORKS];
    for (int64_t from = 0, n; from < dataset->count; from += n) {
        TRY(check_interrupt(trainer));
        n = dataset->count - from < TEST_SLICE ? dataset->count - from : TEST_SLICE;
        TRY(unroll_test(trainer->unroll, dataset->images + (size_t)from * size, dataset->labels + from, n, part));
        for (int k = 0; k < trainer->count; k++) correct[k] += part[k];
    }
    for (int k = 0; k < trainer->count; k++) percent[k] = 100.0 * (double)correct[k] / (double)dataset->count;
done:
    return status;
}

/* A network whose training diverged scores what it scores, but not in silence. */
static int check_finite(struct trainer *trainer, int step) {
    int status = RETORT_OK;
    int64_t p = trainer->problem->network->theta_count, bad = 0;
    if (trainer->warned) goto done;
    TRY(unroll_read_theta(trainer->unroll, trainer->theta));
    while (bad < trainer->count * p && isfinite(trainer->theta[bad])) bad++;
    trainer->warned = bad < trainer->count * p;
    if (trainer->warned)
        log_warning("%s: the weights of network %d are not finite after %d steps; its accuracy is near chance. A lower "
                    "learning rate helps.",
                    trainer->what, trainer->network + (int)(bad / p) + 1, step);
done:
    return status;
}

/* A new optimiser: momentum zero. Batch norm keeps its momentum instead, or its running statistics would go with it. */
static int forget_momentum(struct trainer *trainer) {
    int status = RETORT_OK;
    if (trainer->problem->network->stats_count) goto done;
    TRY(unroll_read_theta(trainer->unroll, trainer->theta));
    TRY(unroll_begin_from(trainer->unroll, trainer->theta));
done:
    return status;
}

/* Trains the networks of a batch and tests them: percent correct [count][checkpoints]. holdout: may be NULL. */
static int train_and_test(struct trainer *trainer, double *runs, double *holdout) {
    int status = RETORT_OK;
    const struct plan *plan = &trainer->plan;
    double percent[UNROLL_MOST_NETWORKS];
    int done = 0;
    TRY(unroll_begin(trainer->unroll, trainer->seeds));
    for (int c = 0; c < plan->checkpoints; c++) {
        while (done < plan->steps[c]) {
            int stop = done < plan->drop && plan->drop < plan->steps[c] ? plan->drop : plan->steps[c];
            int count = stop - done < trainer->tables.capacity ? stop - done : trainer->tables.capacity;
            TRY(upload_steps(trainer, done + 1, count));
            TRY(run_steps(trainer, count));
            done += count;
            if (done == plan->drop) TRY(forget_momentum(trainer));
        }
        TRY(check_finite(trainer, done));
        TRY(test(trainer, trainer->problem->test, percent));
        for (int k = 0; k < trainer->count; k++) {
            runs[k * plan->checkpoints + c] = percent[k];
            log_debug("%s: network %d after %d steps: %.2f %%", trainer->what, trainer->network + k + 1, done,
                      percent[k]);
        }
        if (!holdout) continue;
        TRY(test(trainer, trainer->problem->holdout, percent));
        for (int k = 0; k < trainer->count; k++) holdout[k * plan->checkpoints + c] = percent[k];
    }
done:
    return status;
}

/* --- all networks --- */

static void trainer_finish(struct trainer *trainer) {
    unroll_destroy(trainer->unroll);
    tables_finish(&trainer->tables);
    deal_finish(&trainer->networks);
    free(trainer->theta);
    free(trainer->images);
    free(trainer->labels);
}

/* Steps that are uploaded at once. */
static int chunk_steps(const struct source *source, const struct plan *plan, size_t image_bytes) {
    if (!source->all) return CHUNK_STEPS;
    size_t fit = FULL_CHUNK_BYTES / ((size_t)plan->batch * image_bytes);
    return fit < 1 ? 1 : fit < FULL_CHUNK_STEPS ? (int)fit : FULL_CHUNK_STEPS;
}

/* Of which no more are needed than a run has. */
static int most_steps(const struct plan *plan, int capacity) {
    int last = plan->steps[plan->checkpoints - 1];
    return last < capacity ? last : capacity;
}

/* Under a tight ceiling tests take smaller batches, which change no result. */
static int create_unroll(struct library *library, struct unroll_spec spec, struct unroll **unroll) {
    int status;
    while ((status = unroll_create(library, &spec, unroll)) == RETORT_ELIMIT && spec.test_batch > 8 && !spec.frozen)
        spec.test_batch = (spec.test_batch + 1) / 2;
    return status;
}

/* What was made before a failure is for trainer_finish too. */
static int trainer_init(struct trainer *trainer, const struct evaluate_problem *problem, const struct source *source,
                        const struct plan_input *input, const char *what) {
    int status = RETORT_OK;
    const struct network *network = problem->network;
    size_t size = (size_t)network->channels * (size_t)network->height * (size_t)network->width;
    *trainer = (struct trainer){.problem = problem, .source = source, .piece = 4};
    snprintf(trainer->what, sizeof trainer->what, "evaluate %s", what);
    TRY(problem->spec.protocol == PROTOCOL_DC ? plan_dc(problem, input, &trainer->plan)
                                              : plan_bptt(problem, input, &trainer->plan));
    TRY(division_deal(&problem->division, problem->spec.networks, 0, &trainer->networks));
    const struct plan *plan = &trainer->plan;
    int capacity = tables_capacity(plan, chunk_steps(source, plan, size * sizeof(float)));
    int64_t most_tests = problem->test->count;
    if (problem->holdout && problem->holdout->count > most_tests) most_tests = problem->holdout->count;
    const struct unroll_spec spec = {
        .network = network,
        .optimizer = plan->optimizer,
        .set_count = source->all ? capacity * plan->batch : input->count,
        .batch = plan->batch,
        .networks = trainer->networks.count ? trainer->networks.count : 1,
        .at_once = problem->spec.at_once,
        .own_sets = !source->set,
        .soft_labels = source->set && source->set->soft_labels,
        .augment = plan_augments(plan),
        .colour = plan->dsa,
        .steps = most_steps(plan, capacity),
        .frozen = source->frozen,
        .interrupt = problem->interrupt,
        .test_batch = most_tests < TEST_BATCH ? most_tests : TEST_BATCH,
    };
    struct unroll_plan chosen;
    TRY(create_unroll(problem->library, spec, &trainer->unroll));
    unroll_plan(trainer->unroll, &chosen);
    trainer->at_once = chosen.networks;
    TRY(tables_init(&trainer->tables, plan, capacity, chosen.networks, network->height, network->width));
    trainer->theta = malloc((size_t)chosen.networks * (size_t)network->theta_count * sizeof *trainer->theta);
    if (!source->set) {
        trainer->images = calloc((size_t)spec.set_count * size, sizeof *trainer->images);
        trainer->labels = calloc((size_t)spec.set_count, sizeof *trainer->labels);
    }
    if (!trainer->theta || (!source->set && (!trainer->images || !trainer->labels)))
        RAISE(RETORT_ENOMEM, "out of memory for %lld images to train on", (long long)spec.set_count);
done:
    return status;
}

static uint64_t network_seed(uint64_t seed, int network) {
    struct random random = random_begin(seed, RANDOM_EVALUATE, (uint32_t)network);
    uint64_t high = random_bits(&random);
    return high << 32 | random_bits(&random);
}

/* A network's own random subset. */
static int upload_random(struct trainer *trainer, int network) {
    int status = RETORT_OK;
    const struct source *source = trainer->source;
    struct random random =
        random_begin(trainer->problem->seed, RANDOM_BASELINE, (uint32_t)(trainer->network + network));
    TRY(dataset_draw_at_most(source->random, &random, source->ipc, trainer->images, trainer->labels));
    TRY(unroll_set(trainer->unroll, network, trainer->images, NULL, trainer->labels));
done:
    return status;
}

/* The next batch of networks, from network `first` on. */
static int begin_batch(struct trainer *trainer, int first) {
    int status = RETORT_OK, left = trainer->networks.first + trainer->networks.count - first;
    trainer->network = first;
    trainer->count = left < trainer->at_once ? left : trainer->at_once;
    for (int k = 0; k < trainer->at_once; k++) {
        trainer->seeds[k] = network_seed(trainer->problem->seed, first + k);
        if (trainer->source->random) TRY(upload_random(trainer, k));
    }
done:
    return status;
}

/* Trains and tests this member's networks: percent correct [networks here][checkpoints]. holdout: may be NULL. */
static int measure_own(struct trainer *trainer, double *runs, double *holdout) {
    int status = RETORT_OK;
    const struct training_set *set = trainer->source->set;
    const struct plan *plan = &trainer->plan;
    int first = trainer->networks.first, count = trainer->networks.count;
    progress_begin(&trainer->progress, trainer->what, 0, (int64_t)count * plan->steps[plan->checkpoints - 1]);
    if (set) TRY(unroll_set(trainer->unroll, 0, set->images, set->soft_labels, set->hard_labels));
    for (int i = 0; i < count; i += trainer->at_once) {
        size_t at = (size_t)i * (size_t)plan->checkpoints;
        TRY(begin_batch(trainer, first + i));
        TRY(train_and_test(trainer, runs + at, holdout ? holdout + at : NULL));
    }
done:
    progress_end(&trainer->progress);
    return status;
}

/* This member's rows among all others': mine [networks here][checkpoints], all [networks][checkpoints]. */
static int collect(const struct trainer *trainer, const double *mine, double *all) {
    return team_collect(trainer->problem->division.team, trainer->networks.counts,
                        (size_t)trainer->plan.checkpoints * sizeof *mine, mine, all);
}

static int measure(const struct evaluate_problem *problem, struct source source, const struct plan_input *input,
                   const char *what, struct accuracy *accuracy) {
    int status = RETORT_OK;
    bool has_holdout = problem->holdout && problem->holdout->count;
    struct trainer trainer = {0};
    struct accuracy fresh = {0};
    double *holdout = NULL, *mine = NULL;
    TRY(trainer_init(&trainer, problem, &source, input, what));
    const struct plan *plan = &trainer.plan;
    size_t all = (size_t)problem->spec.networks * (size_t)plan->checkpoints;
    size_t own = (size_t)trainer.networks.count * (size_t)plan->checkpoints;
    fresh.networks = problem->spec.networks;
    fresh.checkpoints = plan->checkpoints;
    memcpy(fresh.steps, plan->steps, sizeof fresh.steps);
    fresh.runs = calloc(all, sizeof *fresh.runs);
    mine = calloc(2 * own + 1, sizeof *mine);
    if (has_holdout) holdout = calloc(all, sizeof *holdout);
    if (!fresh.runs || !mine || (has_holdout && !holdout)) RAISE(RETORT_ENOMEM, "out of memory for the accuracies");
    if (input->all_of_train)
        log_info("%s: %d steps with batches of %lld", trainer.what, plan->steps[plan->checkpoints - 1],
                 (long long)plan->batch);
    TRY(measure_own(&trainer, mine, holdout ? mine + own : NULL));
    TRY(collect(&trainer, mine, fresh.runs));
    if (holdout) TRY(collect(&trainer, mine + own, holdout));
    accuracy_choose(&fresh, holdout);
    *accuracy = fresh;
    fresh = (struct accuracy){0};
done:
    trainer_finish(&trainer);
    accuracy_finish(&fresh);
    free(holdout);
    free(mine);
    return status;
}

/* --- the three rows --- */

static struct plan_input set_input(const struct training_set *set) {
    return (struct plan_input){.count = set->count, .classes = set->classes, .ipc = set->ipc};
}

/* Where a class has fewer than `ipc` images, the subset is not equally many of each class. */
static int random_input(const struct evaluate_problem *problem, const struct dataset *train, int ipc,
                        struct plan_input *input) {
    int status = RETORT_OK;
    TRY(check_images(problem->network, train, "training"));
    if (ipc < 1 || ipc > INT32_MAX / train->classes)
        RAISE(RETORT_EINVAL, "a random subset of %d images of each class; expected 1 or more", ipc);
    int64_t all = (int64_t)ipc * train->classes, count = dataset_count_at_most(train, ipc);
    if (count < 1) RAISE(RETORT_EINVAL, "the data have no training images");
    *input = (struct plan_input){.count = count, .classes = train->classes, .ipc = count == all ? ipc : 0};
    for (int c = 0; c < train->classes && count < all; c++) {
        int64_t size = train->class_begin[c + 1] - train->class_begin[c];
        if (size >= ipc) continue;
        log_warning("class %s has %lld training images, fewer than the %d of the set: the random subset takes what "
                    "there is, %lld images in all",
                    train->class_names[c], (long long)size, ipc, (long long)count);
        break;
    }
done:
    return status;
}

static int full_input(const struct evaluate_problem *problem, const struct dataset *train, struct plan_input *input) {
    int status = RETORT_OK;
    TRY(check_images(problem->network, train, "training"));
    if (train->count < 1) RAISE(RETORT_EINVAL, "the data have no training images");
    *input = (struct plan_input){.count = train->count, .classes = train->classes, .all_of_train = true};
done:
    return status;
}

/* --- planning --- */

/* The set is not there yet: images of zeros, labels of the first class. */
static int upload_zeros(struct trainer *trainer) {
    const struct network *network = trainer->problem->network;
    const struct training_set *set = trainer->source->set;
    size_t pixels = (size_t)network->channels * (size_t)network->height * (size_t)network->width;
    size_t count = (size_t)set->count, classes = (size_t)network->classes;
    void *zeros = calloc(count * (pixels > classes ? pixels : classes), sizeof(float));
    if (!zeros) return error_set(RETORT_ENOMEM, "out of memory for %zu images", count);
    int status =
        unroll_set(trainer->unroll, 0, zeros, set->soft_labels ? zeros : NULL, set->hard_labels ? zeros : NULL);
    free(zeros);
    return status;
}

/* Seconds of so many steps of a batch of networks, the least of `trials`. */
static int time_steps(struct trainer *trainer, int count, int trials, double *seconds) {
    int status = RETORT_OK;
    for (int i = 0; i < trials; i++) {
        double begun = clock_seconds();
        TRY(upload_steps(trainer, 1, count));
        TRY(unroll_train(trainer->unroll, 0, count, false));
        TRY(device_finish(library_device(trainer->problem->library)));
        double now = clock_seconds() - begun;
        if (!i || now < *seconds) *seconds = now;
    }
done:
    return status;
}

/* Seconds of a batch of test images, likewise. */
static int time_test(struct trainer *trainer, int64_t images, int trials, double *seconds) {
    int status = RETORT_OK;
    const struct dataset *test = trainer->problem->test;
    int64_t correct[UNROLL_MOST_NETWORKS];
    for (int i = 0; i < trials; i++) {
        double begun = clock_seconds();
        TRY(unroll_test(trainer->unroll, test->images, test->labels, images, correct));
        double now = clock_seconds() - begun;
        if (!i || now < *seconds) *seconds = now;
    }
done:
    return status;
}

/* How long a row will take: by one step, or as many as take about a tenth of a second, and some batches of tests. */
static int time_row(struct trainer *trainer, double *seconds) {
    enum { TRIALS = 3, TEST_BATCHES = 4 };
    static const double enough = 0.1;
    int status = RETORT_OK;
    const struct evaluate_problem *problem = trainer->problem;
    const struct plan *plan = &trainer->plan;
    int64_t images = problem->test->count, some = TEST_BATCHES * TEST_BATCH;
    int count = 1, batches = (trainer->networks.count + trainer->at_once - 1) / trainer->at_once;
    double steps, tests;
    if (trainer->source->set) TRY(upload_zeros(trainer));
    TRY(begin_batch(trainer, 0));
    TRY(unroll_begin(trainer->unroll, trainer->seeds));
    TRY(time_steps(trainer, count, 1, &steps));
    if (steps < enough) {
        count = most_steps(plan, trainer->tables.capacity);
        if (enough / steps < count) count = (int)(enough / steps) + 1;
        TRY(time_steps(trainer, count, TRIALS, &steps));
    }
    if (images < some) some = images;
    TRY(time_test(trainer, some, 1, &tests));
    if (tests < enough) TRY(time_test(trainer, some, TRIALS, &tests));
    if (problem->holdout) images += problem->holdout->count;
    tests *= (double)images / (double)some;
    *seconds = batches * (plan->steps[plan->checkpoints - 1] * steps / count + plan->checkpoints * tests);
done:
    return status;
}

static int plan_row(const struct evaluate_problem *problem, struct source source, const struct plan_input *input,
                    const char *what, struct unroll_plan *plan, struct evaluate_plans *all) {
    int status = RETORT_OK;
    struct trainer trainer = {0};
    struct device *device = library_device(problem->library);
    double seconds, begun = clock_seconds(), built = device_build_seconds(device);
    TRY(trainer_init(&trainer, problem, &source, input, what));
    /* It is compiled again when its time has come, but not built. */
    double compiling = clock_seconds() - begun - (device_build_seconds(device) - built);
    TRY(time_row(&trainer, &seconds));
    unroll_plan(trainer.unroll, plan);
    all->seconds += compiling + seconds;
    if (unroll_bytes(trainer.unroll) > all->bytes) all->bytes = unroll_bytes(trainer.unroll);
done:
    if (status < 0) error_context("the evaluation (%s)", what);
    trainer_finish(&trainer);
    return status;
}

int evaluate_plan(const struct evaluate_problem *problem, const struct training_set *set, const struct dataset *train,
                  struct evaluate_plans *plans) {
    int status = RETORT_OK;
    struct plan_input input = set_input(set);
    struct evaluate_plans fresh = {0};
    TRY(check_problem(problem));
    TRY(check_set(problem, set));
    TRY(plan_row(problem, set_source(problem, set), &input, "distilled", &fresh.set, &fresh));
    if (set->ipc > 0) {
        TRY(random_input(problem, train, set->ipc, &input));
        TRY(plan_row(problem, random_source(problem, train, set->ipc), &input, "random", &fresh.random, &fresh));
    }
    if (problem->spec.full_data) {
        TRY(full_input(problem, train, &input));
        TRY(plan_row(problem, full_source(problem, train), &input, "full data", &fresh.full, &fresh));
    }
    *plans = fresh;
done:
    return status;
}

int evaluate_set(const struct evaluate_problem *problem, const struct training_set *set, const char *what,
                 struct accuracy *accuracy) {
    int status = RETORT_OK;
    TRY(check_problem(problem));
    TRY(check_set(problem, set));
    const struct plan_input input = set_input(set);
    TRY(measure(problem, set_source(problem, set), &input, what, accuracy));
done:
    return status;
}

int evaluate_random(const struct evaluate_problem *problem, const struct dataset *train, int ipc,
                    struct accuracy *accuracy) {
    int status = RETORT_OK;
    struct plan_input input;
    TRY(check_problem(problem));
    TRY(random_input(problem, train, ipc, &input));
    TRY(measure(problem, random_source(problem, train, ipc), &input, "random", accuracy));
done:
    return status;
}

int evaluate_full(const struct evaluate_problem *problem, const struct dataset *train, struct accuracy *accuracy) {
    int status = RETORT_OK;
    struct plan_input input;
    TRY(check_problem(problem));
    TRY(full_input(problem, train, &input));
    TRY(measure(problem, full_source(problem, train), &input, "full data", accuracy));
done:
    return status;
}

void evaluate_describe(const struct evaluate_problem *problem, char *text, size_t size) {
    struct text words;
    text_init(&words);
    if (problem->spec.protocol == PROTOCOL_DC)
        describe_dc(problem, &words);
    else
        describe_bptt(problem, &words);
    snprintf(text, size, "%s", text_get(&words));
    text_finish(&words);
}
