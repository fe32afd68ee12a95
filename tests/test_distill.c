/* Distillation with a method that is nothing like those of the product: a few lines, known only here. It pulls the
 * images towards the mean of each class and keeps a counter, so that the update, checkpoints and metrics can be
 * followed by hand. */
#include "test.h"

#include "base/file.h"
#include "distill/distill.h"
#include "distill/method.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CLASSES = 3, IPC = 2, SIDE = 4, PIXELS = SIDE * SIDE, TRAIN = 30, COUNT = CLASSES * IPC };

static float train_images[TRAIN * PIXELS];
static int32_t train_labels[TRAIN];
static int64_t class_rows[TRAIN], class_begin[CLASSES + 1];
static char ant[] = "ant", bee[] = "bee", cat[] = "cat", *class_names[] = {ant, bee, cat};
static const struct dataset train = {.count = TRAIN,
                                     .channels = 1,
                                     .height = SIDE,
                                     .width = SIDE,
                                     .classes = CLASSES,
                                     .images = train_images,
                                     .labels = train_labels,
                                     .class_names = class_names,
                                     .class_rows = class_rows,
                                     .class_begin = class_begin};
static const struct network network = {.classes = CLASSES, .channels = 1, .height = SIDE, .width = SIDE};

static int prepare(void **state) {
    (void)state;
    struct random random = random_begin(5, RANDOM_TEST, 0);
    for (int i = 0; i < TRAIN; i++) train_labels[i] = i % CLASSES;
    for (int i = 0; i < TRAIN * PIXELS; i++) train_images[i] = (float)random_normal(&random);
    for (int k = 0, at = 0; k < CLASSES; k++) {
        class_begin[k] = at;
        for (int i = k; i < TRAIN; i += CLASSES) class_rows[at++] = i;
        class_begin[k + 1] = at;
    }
    return 0;
}

/* --- the method --- */
struct pull_spec {
    double strength;
    int breaks_at; /* the step whose gradient is not finite; 0: none */
};

struct pull {
    const struct distill_problem *problem;
    struct set *set;
    int steps;
    double sum;
    float means[CLASSES * PIXELS];
    int32_t saves; /* as if it lay on a device */
    int32_t kept;
};

static int pull_check(const struct distill_problem *problem, const char **key) {
    const struct pull_spec *spec = problem->method_spec;
    *key = "method.strength";
    return spec->strength > 0 ? RETORT_OK : error_set(RETORT_EINVAL, "nothing would move");
}

static int pull_create(const struct distill_problem *problem, struct set *set, void **instance) {
    struct pull *p = calloc(1, sizeof *p);
    if (!p) return error_set(RETORT_ENOMEM, "out of memory");
    p->problem = problem;
    p->set = set;
    for (int i = 0; i < TRAIN; i++)
        for (int k = 0; k < PIXELS; k++)
            p->means[train_labels[i] * PIXELS + k] += train_images[i * PIXELS + k] * CLASSES / TRAIN;
    *instance = p;
    return RETORT_OK;
}

static int pull_step(void *instance, struct turn turn, struct metrics *metrics) {
    struct pull *p = instance;
    const struct pull_spec *spec = p->problem->method_spec;
    struct outer_variable *stored = &p->set->variables[SET_STORED], *labels = &p->set->variables[SET_SOFT_LABELS];
    double loss = 0;
    for (int64_t i = 0; i < stored->count; i++) {
        int64_t class = p->set->hard_labels[i / PIXELS];
        double away = (double)stored->values[i] - p->means[class * PIXELS + i % PIXELS];
        loss += spec->strength * away * away / 2;
        stored->gradient[i] = (float)(spec->strength * away);
    }
    for (int64_t i = 0; i < labels->count; i++) labels->gradient[i] = 1;
    p->set->variables[SET_LOG_LR].gradient[0] = -1;
    if (turn.step == spec->breaks_at) stored->gradient[3] = NAN;
    metric_real(metrics, "loss", loss);
    metric_text(metrics, "mood", turn.step % 2 ? "odd" : "even");
    metric_whole(metrics, "parts.steps", p->steps);
    return RETORT_OK;
}

static void pull_advance(void *instance, const struct metrics *metrics) {
    struct pull *p = instance;
    assert_true(isfinite(metric_number(metrics, "loss")));
    p->steps++;
    p->sum += 0.1 * p->steps;
    p->saves++;
}

static void pull_state(void *instance, struct state *state) {
    struct pull *p = instance;
    state_whole(state, &p->steps);
    state_real(state, &p->sum);
    state_array(state, "kept", NPY_INT32, 1, &p->kept);
}

static int pull_save(void *instance) {
    struct pull *p = instance;
    p->kept = p->saves;
    return RETORT_OK;
}

static int pull_load(void *instance) {
    struct pull *p = instance;
    p->saves = p->kept;
    return RETORT_OK;
}

static void pull_results(const void *instance, struct metrics *results) {
    const struct pull *p = instance;
    metric_real(results, "sum", p->sum);
    metric_whole(results, "saves", p->saves);
}

static const struct method pull = {.name = "pull",
                                   .summary = "For this test.",
                                   .spec_size = sizeof(struct pull_spec),
                                   .learns = 1u << SET_SOFT_LABELS | 1u << SET_LOG_LR,
                                   .remedy = "pull less",
                                   .check = pull_check,
                                   .create = pull_create,
                                   .destroy = free,
                                   .step = pull_step,
                                   .advance = pull_advance,
                                   .state = pull_state,
                                   .save = pull_save,
                                   .load = pull_load,
                                   .results = pull_results};

static const struct pull_spec mild = {.strength = 0.5};

static struct distill_problem problem_of(const struct pull_spec *spec) {
    return (struct distill_problem){
        .train = &train,
        .network = &network,
        .inner = {.steps = 5, .optimizer = {.lr = 0.01}},
        .set = {.ipc = IPC, .init = SET_NOISE},
        .outer =
            {.steps = 9, .optimizer = OPTIMIZER_ADAM, .lr = 0.1, .lr_labels = 0.2, .lr_inner = 0.3, .real_batch = 10},
        .method = &pull,
        .method_spec = spec,
        .seed = 11};
}

static struct distill *make(const struct distill_problem *problem) {
    struct distill *distill;
    assert_ok(distill_create(problem, &distill));
    return distill;
}

static const struct metrics *take_steps(struct distill *distill, int count) {
    const struct metrics *metrics = NULL;
    for (int i = 0; i < count; i++) assert_ok(distill_step(distill, &metrics));
    return metrics;
}

struct read {
    float images[COUNT * PIXELS], soft[COUNT * CLASSES];
    int32_t hard[COUNT];
};

static struct read read_set(struct distill *distill) {
    struct read read = {0};
    assert_int_equal(distill_set_count(distill), COUNT);
    assert_ok(distill_read_set(distill, read.images, read.soft, read.hard));
    return read;
}

/* --- tests --- */
static void test_metrics(void **state) {
    (void)state;
    const struct distill_problem problem = problem_of(&mild);
    struct distill *distill = make(&problem);
    const struct metrics *metrics = take_steps(distill, 1);
    static const char *const names[] = {"outer_step",    "loss",     "mood",   "parts.steps",
                                        "gradient_norm", "inner_lr", "seconds"};
    assert_int_equal(metrics->rows.count, sizeof names / sizeof *names);
    for (size_t i = 0; i < metrics->rows.count; i++) assert_string_equal(metrics->rows.items[i].name, names[i]);
    double first = metric_number(metrics, "loss");
    assert_string_equal(metric_word(metrics, "mood"), "odd");
    assert_true(isnan(metric_number(metrics, "accuracy")));
    assert_null(metric_word(metrics, "stage"));
    metrics = take_steps(distill, 3);
    assert_true(metric_number(metrics, "loss") < first);
    assert_true(metric_number(metrics, "outer_step") == 4 && metric_number(metrics, "parts.steps") == 3);
    struct metrics results = {0};
    distill_results(distill, &results);
    assert_true(metric_number(&results, "saves") == 4);
    metrics_finish(&results);
    distill_destroy(distill);
}

/* Each variable has its own rate; labels stay at 0 or above; the inner rate is known by its logarithm. */
static void test_variables(void **state) {
    (void)state;
    struct distill_problem problem = problem_of(&mild);
    problem.set.labels = LABELS_SOFT;
    problem.inner.learn_lr = true;
    struct distill *distill = make(&problem);
    struct read before = read_set(distill);
    take_steps(distill, 1);
    struct read after = read_set(distill);
    /* Adam's first step is the rate, by the sign of the gradient. */
    for (int i = 0; i < COUNT * PIXELS; i++)
        assert_true(fabs(fabs((double)after.images[i] - before.images[i]) - 0.1) < 1e-4);
    for (int i = 0; i < COUNT * CLASSES; i++) assert_true(fabs(after.soft[i] - fmax(before.soft[i] - 0.2, 0)) < 1e-6);
    assert_true(fabs(distill_inner_lr(distill) - 0.01 * exp(0.3)) < 1e-8);
    distill_destroy(distill);
}

static void test_sgd(void **state) {
    (void)state;
    struct distill_problem problem = problem_of(&mild);
    problem.outer.optimizer = OPTIMIZER_SGD;
    problem.outer.momentum = 0.5;
    struct distill *distill = make(&problem);
    struct read set = read_set(distill);
    float *x = set.images, mean[CLASSES * PIXELS] = {0}, velocity[COUNT * PIXELS] = {0};
    for (int i = 0; i < TRAIN; i++)
        for (int k = 0; k < PIXELS; k++)
            mean[train_labels[i] * PIXELS + k] += train_images[i * PIXELS + k] * CLASSES / TRAIN;
    for (int step = 0; step < 3; step++)
        for (int i = 0; i < COUNT * PIXELS; i++) {
            velocity[i] = 0.5f * velocity[i] + 0.5f * (x[i] - mean[i / PIXELS / IPC * PIXELS + i % PIXELS]);
            x[i] -= 0.1f * velocity[i];
        }
    take_steps(distill, 3);
    struct read got = read_set(distill);
    for (int i = 0; i < COUNT * PIXELS; i++) assert_true(fabsf(got.images[i] - x[i]) < 1e-6f);
    distill_destroy(distill);
}

static void test_not_finite(void **state) {
    (void)state;
    const struct pull_spec broken = {.strength = 0.5, .breaks_at = 3};
    const struct distill_problem problem = problem_of(&broken);
    struct distill *distill = make(&problem);
    take_steps(distill, 2);
    struct read before = read_set(distill);
    const struct metrics *metrics = NULL;
    assert_int_equal(distill_step(distill, &metrics), RETORT_ENUMERIC);
    assert_null(metrics);
    assert_non_null(strstr(retort_error_message(), "not finite (outer_step 3, loss "));
    assert_non_null(strstr(retort_error_message(), "|d loss / d images| nan): pull less"));
    struct read after = read_set(distill);
    assert_memory_equal(before.images, after.images, sizeof before.images);
    assert_int_equal(distill_steps_done(distill), 2);
    struct metrics results = {0};
    distill_results(distill, &results);
    assert_true(metric_number(&results, "saves") == 2);
    metrics_finish(&results);
    distill_destroy(distill);
}

/* A loaded state goes on bit for bit, and one of another run changes nothing. */
static void test_checkpoint(void **state) {
    (void)state;
    char folder[] = "/tmp/retort-distill-XXXXXX", path[FILE_PATH_MAX];
    assert_non_null(mkdtemp(folder));
    assert_ok(path_join(folder, "state.npz", path));
    for (int kind = OPTIMIZER_SGD; kind <= OPTIMIZER_ADAM; kind++) {
        struct distill_problem problem = problem_of(&mild);
        problem.outer.optimizer = (enum optimizer_kind)kind;
        problem.outer.momentum = 0.9;
        problem.outer.clip = true;
        problem.set.labels = LABELS_SOFT;
        problem.inner.learn_lr = true;
        struct distill *whole = make(&problem), *halting = make(&problem), *resumed = make(&problem);
        take_steps(whole, 7);
        take_steps(halting, 4);
        assert_ok(distill_save(halting, path));
        assert_ok(distill_load(resumed, path));
        assert_int_equal(distill_steps_done(resumed), 4);
        take_steps(resumed, 3);
        struct read x = read_set(whole), y = read_set(resumed);
        assert_memory_equal(&x, &y, sizeof x);
        assert_true(distill_inner_lr(whole) == distill_inner_lr(resumed));
        struct metrics a = {0}, b = {0};
        distill_results(whole, &a);
        distill_results(resumed, &b);
        assert_true(metric_number(&a, "sum") == metric_number(&b, "sum") && metric_number(&b, "saves") == 7);
        metrics_finish(&a);
        metrics_finish(&b);

        problem.seed++;
        struct distill *other = make(&problem);
        struct read before = read_set(other);
        assert_int_equal(distill_load(other, path), RETORT_EFORMAT);
        assert_non_null(strstr(retort_error_message(), "another seed"));
        struct read after = read_set(other);
        assert_memory_equal(&before, &after, sizeof before);
        distill_destroy(other);
        problem.seed--;
        problem.set.ipc = IPC + 1;
        other = make(&problem);
        assert_int_equal(distill_load(other, path), RETORT_EFORMAT);
        assert_int_equal(distill_steps_done(other), 0);
        distill_destroy(other);
        distill_destroy(whole);
        distill_destroy(halting);
        distill_destroy(resumed);
    }
    assert_ok(folder_remove(folder));
}

static void test_starts(void **state) {
    (void)state;
    struct distill *distill;
    struct distill_problem problem = problem_of(&mild);
    /* Rows of classes 2, 0, 1, 0, 1, 2. */
    static const int32_t rows[] = {5, 0, 4, 27, 1, 29};
    problem.set.init = SET_INDICES;
    problem.rows = rows;
    problem.row_count = COUNT;
    distill = make(&problem);
    struct read set = read_set(distill);
    static const int32_t wanted[] = {0, 27, 4, 1, 5, 29};
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(set.hard[i], i / IPC);
        assert_memory_equal(set.images + i * PIXELS, train_images + wanted[i] * PIXELS, PIXELS * sizeof(float));
    }
    distill_destroy(distill);
    problem.row_count = COUNT - 1;
    assert_int_equal(distill_create(&problem, &distill), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "lists 1 rows of class 2 (cat), but set.ipc is 2"));
    static const int32_t beyond[] = {5, 0, 4, 30, 1, 29};
    problem.rows = beyond;
    problem.row_count = COUNT;
    assert_int_equal(distill_create(&problem, &distill), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "item 3 is row 30, but the training data has rows 0 to 29"));

    problem = problem_of(&mild);
    distill = make(&problem);
    set = read_set(distill);
    for (int i = 0; i < COUNT; i++) {
        double norm = 0;
        for (int k = 0; k < PIXELS; k++) norm += pow(set.images[i * PIXELS + k], 2);
        assert_true(fabs(norm - 1) < 1e-5);
    }
    distill_destroy(distill);
    const struct pull_spec still = {0};
    problem.method_spec = &still;
    assert_int_equal(distill_create(&problem, &distill), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "method.strength: nothing would move"));
}

static void test_not_learned(void **state) {
    (void)state;
    struct method stored_alone = pull;
    stored_alone.learns = 0;
    struct distill *distill;
    struct distill_problem problem = problem_of(&mild);
    problem.method = &stored_alone;
    distill_destroy(make(&problem));
    problem.set.labels = LABELS_SOFT;
    assert_int_equal(distill_create(&problem, &distill), RETORT_EINVAL);
    assert_string_equal(retort_error_message(), "set.labels: method pull does not learn labels; take hard");
    problem.set.labels = LABELS_HARD;
    problem.inner.learn_lr = true;
    assert_int_equal(distill_create(&problem, &distill), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "inner.learn_lr"));
}

/* Every row of the product's table is whole, and its keys are of the right section. */
static void test_table(void **state) {
    (void)state;
    assert_string_equal(method_at(0)->name, "bptt");
    assert_null(method_at(-1));
    for (int i = 0; method_at(i); i++) {
        const struct method *method = method_at(i);
        assert_true(method->name && method->summary && method->remedy && method->create && method->destroy
                    && method->step);
        method->destroy(NULL);
        for (size_t k = 0; k < method->key_count; k++) {
            assert_int_equal(strncmp(method->keys[k].path, "method.", 7), 0);
            assert_true(method->keys[k].offset < method->spec_size);
            assert_true(method->keys[k].help && (method->keys[k].standard || method->keys[k].inherit));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metrics),     cmocka_unit_test(test_variables),  cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_not_finite),  cmocka_unit_test(test_checkpoint), cmocka_unit_test(test_starts),
        cmocka_unit_test(test_not_learned), cmocka_unit_test(test_table),
    };
    return cmocka_run_group_tests_name("distill", tests, prepare, NULL);
}
