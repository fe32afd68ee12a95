/* Evaluation: the statistics on made-up accuracies, the plans and tables of the protocols; then fresh networks on blobs
 * made here, on the device. */
#include "test.h"

#include "base/log.h"
#include "evaluate/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define assert_near(got, wanted, tolerance)                                                                  \
    do {                                                                                                     \
        double got_ = (got), wanted_ = (wanted);                                                             \
        if (!(fabs(got_ - wanted_) <= (tolerance))) fail_msg("%s is %.10g, not %.10g", #got, got_, wanted_); \
    } while (0)

/* --- statistics --- */

static struct accuracy made_up(int networks, int checkpoints, const double *runs) {
    struct accuracy accuracy = {.networks = networks, .checkpoints = checkpoints};
    size_t bytes = (size_t)(networks * checkpoints) * sizeof *runs;
    accuracy.runs = malloc(bytes);
    memcpy(accuracy.runs, runs, bytes);
    for (int i = 0; i < checkpoints; i++) accuracy.steps[i] = 100 * (i + 1);
    return accuracy;
}

static void test_choice_on_test(void **state) {
    (void)state;
    /* Means 51, 61, 59: the second checkpoint, though one network is best at the third. */
    struct accuracy accuracy = made_up(3, 3, (double[]){50, 60, 70, 51, 61, 50, 52, 62, 57});
    accuracy_choose(&accuracy, NULL);
    assert_int_equal(accuracy.chosen, 1);
    assert_true(accuracy.chosen_on_test);
    assert_near(accuracy.mean, 61, 1e-12);
    assert_near(accuracy.sd, 1, 1e-12); /* n - 1: sqrt(2 / 2) */
    assert_near(accuracy.best_on_test, 61, 1e-12);
    accuracy_finish(&accuracy);
    assert_null(accuracy.runs);
}

static void test_choice_on_holdout(void **state) {
    (void)state;
    struct accuracy accuracy = made_up(2, 3, (double[]){50, 60, 40, 54, 62, 44});
    accuracy_choose(&accuracy, (double[]){10, 20, 30, 10, 20, 30});
    assert_int_equal(accuracy.chosen, 2);
    assert_false(accuracy.chosen_on_test);
    assert_near(accuracy.mean, 42, 1e-12);
    assert_near(accuracy.sd, sqrt(8), 1e-12);
    assert_near(accuracy.best_on_test, 61, 1e-12);
    accuracy_finish(&accuracy);
}

static void test_choice_of_one(void **state) {
    (void)state;
    struct accuracy accuracy = made_up(1, 1, (double[]){33});
    accuracy_choose(&accuracy, NULL);
    assert_int_equal(accuracy.chosen, 0);
    assert_false(accuracy.chosen_on_test); /* there was nothing to choose */
    assert_near(accuracy.mean, 33, 0);
    assert_true(isnan(accuracy.sd));
    accuracy_finish(&accuracy);
    accuracy = made_up(2, 2, (double[]){40, 50, 60, 50});
    accuracy_choose(&accuracy, NULL);
    assert_int_equal(accuracy.chosen, 0); /* the earliest of equals */
    accuracy_finish(&accuracy);
    accuracy_finish(NULL);
}

/* --- plans and tables --- */

static struct evaluate_problem dc_problem(bool augment) {
    return (struct evaluate_problem){
        .spec = {.protocol = PROTOCOL_DC, .networks = 5, .dc_augment = augment, .dc_flip = true}};
}

static void test_plan_dc(void **state) {
    (void)state;
    struct evaluate_problem problem = dc_problem(true);
    struct plan plan;
    assert_ok(plan_dc(&problem, &(struct plan_input){.count = 100, .classes = 10, .ipc = 10}, &plan));
    assert_int_equal(plan.batch, 100);
    assert_int_equal(plan.checkpoints, 1);
    assert_int_equal(plan.steps[0], 1001);
    assert_int_equal(plan.drop, 502); /* epochs 0 .. 501 at the full rate */
    assert_true(plan.dsa && plan_augments(&plan));
    assert_near(plan.optimizer.lr, 0.01, 0);
    assert_near(plan.optimizer.momentum, 0.9, 0);
    assert_near(plan.optimizer.weight_decay, 5e-4, 0);
    problem = dc_problem(false);
    assert_ok(plan_dc(&problem, &(struct plan_input){.count = 500, .classes = 10, .ipc = 50}, &plan));
    assert_int_equal(plan.batch, 250);
    assert_int_equal(plan.steps[0], 2 * 301);
    assert_int_equal(plan.drop, 2 * 152);
    assert_false(plan_augments(&plan));
    problem.spec.dc_epochs = 2; /* the rate would fall after the last epoch */
    assert_ok(plan_dc(&problem, &(struct plan_input){.count = 500, .classes = 10, .ipc = 50}, &plan));
    assert_int_equal(plan.steps[0], 6);
    assert_int_equal(plan.drop, 0);
    problem.spec.dc_epochs = 1000000;
    assert_int_equal(plan_dc(&problem, &(struct plan_input){.count = 1000000, .classes = 10, .ipc = 100000}, &plan),
                     RETORT_EINVAL);
    problem.spec.dc_epochs = 0;
    assert_ok(plan_dc(&problem, &(struct plan_input){.count = 60000, .classes = 10, .all_of_train = true}, &plan));
    assert_int_equal(plan.batch, 256);
    assert_in_range(plan.steps[0], 19000, 20000);
}

static void test_plan_bptt(void **state) {
    (void)state;
    struct evaluate_problem problem = {
        .inner = {.optimizer = {.kind = OPTIMIZER_ADAM, .lr = 0.001}, .batch_per_class = 4, .batch_classes = 5},
        .inner_lr = 0.003,
        .spec = {.networks = 3, .steps = {300, 600}, .step_count = 2}};
    struct plan plan;
    assert_ok(plan_bptt(&problem, &(struct plan_input){.count = 100, .classes = 10, .ipc = 10}, &plan));
    assert_int_equal(plan.batch, 20);
    assert_int_equal(plan.checkpoints, 2);
    assert_near(plan.optimizer.lr, 0.003, 0); /* the learned one */
    assert_false(plan_augments(&plan));
    assert_ok(plan_bptt(&problem, &(struct plan_input){.count = 6, .classes = 3, .ipc = 2}, &plan));
    assert_int_equal(plan.batch, 6); /* no more than there is */
    assert_ok(plan_bptt(&problem, &(struct plan_input){.count = 7, .classes = 3}, &plan));
    assert_int_equal(plan.batch, 7);
    problem.spec.steps[1] = 300;
    assert_int_equal(plan_bptt(&problem, &(struct plan_input){.count = 7, .classes = 3}, &plan), RETORT_EINVAL);
    problem.spec.step_count = 0;
    assert_int_equal(plan_bptt(&problem, &(struct plan_input){.count = 7, .classes = 3}, &plan), RETORT_EINVAL);
}

/* Every epoch of the walk takes every image once, and an unfilled last batch repeats the epoch's first ones. */
static void test_walk(void **state) {
    (void)state;
    enum { COUNT = 773, BATCH = 194, EPOCH = 4 };
    struct evaluate_problem problem = dc_problem(true);
    problem.spec.dc_epochs = 4;
    struct plan plan;
    struct tables tables;
    assert_ok(plan_dc(&problem, &(struct plan_input){.count = COUNT, .classes = 10}, &plan));
    assert_int_equal(plan.batch, BATCH);
    assert_int_equal(plan.epoch_steps, EPOCH);
    assert_int_equal(plan.drop, 4 * EPOCH);
    assert_int_equal(tables_capacity(&plan, 5 * EPOCH), 5 * EPOCH);
    assert_ok(tables_init(&tables, &plan, 5 * EPOCH, 1, 8, 8));
    assert_ok(tables_fill(&tables, &(uint64_t){7}, 1, 5 * EPOCH));
    for (int epoch = 0; epoch < 5; epoch++) {
        const int32_t *rows = tables.rows + epoch * EPOCH * BATCH;
        int seen[COUNT] = {0};
        for (int i = 0; i < EPOCH * BATCH; i++) seen[rows[i]]++;
        for (int i = 0; i < COUNT; i++) assert_int_equal(seen[i], i == rows[0] || i == rows[1] || i == rows[2] ? 2 : 1);
        if (epoch) assert_memory_not_equal(rows, tables.rows, BATCH * sizeof *rows);
    }
    for (int i = 0; i < 5 * EPOCH; i++) assert_near(tables.lr[i], i < 4 * EPOCH ? 0.01 : 0.001, 1e-15);
    tables_finish(&tables);
    tables_finish(NULL);
}

/* Steps come out the same whether they are filled at once or in parts, of one network or of several, and another seed
 * gives others. */
static void check_parts(const struct plan *plan) {
    struct tables whole, part, both;
    size_t batch = (size_t)plan->batch;
    const uint64_t seeds[] = {5, 6};
    assert_ok(tables_init(&whole, plan, 10, 1, 8, 8));
    assert_ok(tables_init(&part, plan, 10, 1, 8, 8));
    assert_ok(tables_init(&both, plan, 10, 2, 8, 8));
    assert_ok(tables_fill(&whole, seeds, 1, 10));
    for (int first = 8; first > 0; first -= 7) { /* the later ones first */
        size_t at = (size_t)(first - 1) * batch, count = 3 * batch;
        assert_ok(tables_fill(&part, seeds, first, 3));
        assert_memory_equal(part.rows, whole.rows + at, count * sizeof *part.rows);
        if (part.maps) assert_memory_equal(part.maps, whole.maps + MAP_SIZE * at, MAP_SIZE * count * sizeof *part.maps);
        if (part.colour)
            assert_memory_equal(part.colour, whole.colour + COLOUR_SIZE * at,
                                COLOUR_SIZE * count * sizeof *part.colour);
    }
    assert_ok(tables_fill(&part, seeds + 1, 1, 10));
    assert_memory_not_equal(part.rows, whole.rows, 10 * batch * sizeof *part.rows);
    assert_ok(tables_fill(&both, seeds, 1, 5));
    assert_ok(tables_fill(&both, seeds, 6, 5)); /* which leaves them at the beginning */
    for (size_t i = 0; i < 10; i++) {
        const struct tables *one = i % 2 ? &part : &whole;
        size_t at = (5 + i / 2) * batch;
        assert_memory_equal(both.rows + i * batch, one->rows + at, batch * sizeof *one->rows);
        if (one->maps)
            assert_memory_equal(both.maps + MAP_SIZE * i * batch, one->maps + MAP_SIZE * at,
                                MAP_SIZE * batch * sizeof *one->maps);
        if (one->colour)
            assert_memory_equal(both.colour + COLOUR_SIZE * i * batch, one->colour + COLOUR_SIZE * at,
                                COLOUR_SIZE * batch * sizeof *one->colour);
    }
    tables_finish(&both);
    tables_finish(&whole);
    tables_finish(&part);
}

static void test_tables(void **state) {
    (void)state;
    struct evaluate_problem problem = dc_problem(true);
    struct plan plan;
    assert_ok(plan_dc(&problem, &(struct plan_input){.count = 600, .classes = 10, .ipc = 60}, &plan));
    check_parts(&plan);
    problem = (struct evaluate_problem){.inner = {.batch_per_class = 3, .batch_classes = 2},
                                        .augment = {.flip = true, .rotate = true, .degrees = 15},
                                        .spec = {.networks = 3, .steps = {300}, .step_count = 1}};
    assert_ok(plan_bptt(&problem, &(struct plan_input){.count = 60, .classes = 6, .ipc = 10}, &plan));
    check_parts(&plan);
    struct tables tables;
    assert_ok(tables_init(&tables, &plan, 20, 1, 8, 8));
    assert_ok(tables_fill(&tables, &(uint64_t){5}, 1, 20));
    for (int i = 0; i < 20; i++) { /* three images of each of two classes */
        const int32_t *rows = tables.rows + 6 * i;
        assert_true(rows[0] / 10 == rows[2] / 10 && rows[3] / 10 == rows[5] / 10 && rows[0] / 10 < rows[3] / 10);
    }
    tables_finish(&tables);
    /* Large batches make short chunks. */
    assert_ok(plan_dc(&(struct evaluate_problem){.spec = {.dc_augment = true}},
                      &(struct plan_input){.count = 100000, .classes = 10}, &plan));
    assert_in_range(tables_capacity(&plan, 256), 16, 128);
}

/* --- descriptions --- */

static void test_describe(void **state) {
    (void)state;
    char text[256], tiny[8];
    struct dataset holdout = {.count = 5};
    struct evaluate_problem problem = {.inner = {.optimizer = {.kind = OPTIMIZER_ADAM, .lr = 0.001}},
                                       .inner_lr = 0.001,
                                       .spec = {.networks = 3, .steps = {300, 600}, .step_count = 2}};
    evaluate_describe(&problem, text, sizeof text);
    assert_string_equal(text, "bptt: Adam 0.001, 3 networks, steps 300 600, best step chosen on the test set");
    evaluate_describe(&problem, tiny, sizeof tiny);
    assert_string_equal(tiny, "bptt: A");
    problem.augment = (struct augment_spec){.flip = true, .rotate = true};
    problem.holdout = &holdout;
    problem.inner.optimizer =
        (struct optimizer_spec){.kind = OPTIMIZER_SGD, .lr = 1, .momentum = 0.9, .weight_decay = 0.0005};
    problem.inner_lr = 0.0123456;
    evaluate_describe(&problem, text, sizeof text);
    assert_string_equal(text, "bptt: SGD 0.0123, momentum 0.9, weight decay 0.0005, augmented by flip or rotation, 3 "
                              "networks, steps 300 600, best step chosen on the held-out split");
    problem.augment.compose = true;
    problem.spec.step_count = problem.spec.networks = 1;
    evaluate_describe(&problem, text, sizeof text);
    assert_string_equal(text, "bptt: SGD 0.0123, momentum 0.9, weight decay 0.0005, augmented by flip and rotation, 1 "
                              "network, step 300");
    problem = dc_problem(true);
    evaluate_describe(&problem, text, sizeof text);
    assert_string_equal(text, "dc: SGD 0.01, momentum 0.9, weight decay 0.0005, batches of 256, 1000 epochs, DSA "
                              "augmentation, 5 networks, tested after the last epoch");
    problem.spec.dc_flip = false;
    problem.spec.dc_epochs = 40;
    evaluate_describe(&problem, text, sizeof text);
    assert_string_equal(text, "dc: SGD 0.01, momentum 0.9, weight decay 0.0005, batches of 256, 40 epochs, DSA "
                              "augmentation without flip, 5 networks, tested after the last epoch");
    problem = dc_problem(false);
    evaluate_describe(&problem, text, sizeof text);
    assert_non_null(strstr(text, "300 epochs, no augmentation, "));
}

/* --- on the device --- */

enum { SIDE = 8, PIXELS = SIDE * SIDE, CLASSES = 4 };

static struct device *device;
static struct library *library;
static struct dataset train, holdout, test;
static float means[CLASSES * PIXELS]; /* the noiseless image of each class */

/* A bump in another corner for each class, its place a little uncertain, under noise. */
static float blob(int label, int pixel, double down, double right) {
    double y = pixel / SIDE - (label / 2 ? 5.0 : 2.0) - down, x = pixel % SIDE - (label % 2 ? 5.0 : 2.0) - right;
    return (float)(2 * exp(-(x * x + y * y) / 4) - 0.5);
}

static struct dataset make_blobs(int64_t count, uint32_t step) {
    struct dataset set = {.count = count, .channels = 1, .height = SIDE, .width = SIDE, .classes = CLASSES};
    struct random random = random_begin(11, RANDOM_TEST, step);
    set.images = malloc((size_t)count * PIXELS * sizeof *set.images);
    set.labels = malloc((size_t)count * sizeof *set.labels);
    set.class_rows = malloc((size_t)count * sizeof *set.class_rows);
    set.class_begin = malloc((CLASSES + 1) * sizeof *set.class_begin);
    set.class_names = calloc(CLASSES, sizeof *set.class_names);
    for (int64_t i = 0; i < count; i++) {
        int label = set.labels[i] = (int32_t)(i % CLASSES);
        double down = 0.7 * random_normal(&random), right = 0.7 * random_normal(&random);
        for (int j = 0; j < PIXELS; j++)
            set.images[i * PIXELS + j] = blob(label, j, down, right) + (float)(0.8 * random_normal(&random));
    }
    for (int64_t k = 0, to = 0; k < CLASSES; k++) {
        set.class_begin[k] = to;
        for (int64_t i = k; i < count; i += CLASSES) set.class_rows[to++] = i;
        set.class_begin[k + 1] = to;
    }
    return set;
}

static int setup(void **state) {
    (void)state;
    if (device_open("cpu", &device) < 0) return 0;
    assert_ok(library_create(device, FAMILY_AUTO, &library));
    train = make_blobs(600, 0);
    holdout = make_blobs(50, 1);
    test = make_blobs(300, 2); /* one test batch of 256 and a part of one */
    for (int i = 0; i < CLASSES * PIXELS; i++) means[i] = blob(i / PIXELS, i % PIXELS, 0, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    dataset_finish(&train);
    dataset_finish(&holdout);
    dataset_finish(&test);
    library_destroy(library);
    device_close(device);
    return 0;
}

static void need_device(void) {
    if (device) return;
    print_message("no OpenCL CPU device: %s\n", retort_error_message());
    skip();
}

static struct network network_of(enum network_kind kind, enum norm_kind norm) {
    const struct network_spec spec = {.kind = kind, .depth = 1, .width = 8, .norm = norm, .pool = POOL_AVERAGE};
    struct network network;
    assert_ok(network_describe(&spec, 1, SIDE, SIDE, CLASSES, &network));
    return network;
}

static struct evaluate_problem bptt_problem(const struct network *network) {
    return (struct evaluate_problem){
        .library = library,
        .network = network,
        .inner = {.optimizer = {.kind = OPTIMIZER_ADAM, .lr = 0.01, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}},
        .inner_lr = 0.01,
        .test = &test,
        .spec = {.networks = 2, .steps = {20, 60}, .step_count = 2},
        .seed = 5};
}

static const int32_t hard[CLASSES] = {0, 1, 2, 3};
static struct training_set mean_set(void) {
    return (struct training_set){.count = CLASSES, .classes = CLASSES, .ipc = 1, .images = means, .hard_labels = hard};
}

static void test_set_bptt(void **state) {
    (void)state;
    need_device();
    struct network network = network_of(NETWORK_MLP, NORM_NONE);
    struct evaluate_problem problem = bptt_problem(&network);
    struct training_set set = mean_set();
    struct accuracy first, again, soft;
    assert_ok(evaluate_set(&problem, &set, "means", &first));
    assert_int_equal(first.networks, 2);
    assert_int_equal(first.checkpoints, 2);
    assert_int_equal(first.steps[1], 60);
    assert_true(first.chosen_on_test);
    assert_true(first.mean > 75);                                                              /* chance is 25 */
    for (int i = 0; i < 4; i++) assert_near(first.runs[i] * 3, rint(first.runs[i] * 3), 1e-9); /* k of 300 */
    assert_true(first.runs[0] != first.runs[2] || first.runs[1] != first.runs[3]); /* not one network twice */
    assert_ok(evaluate_set(&problem, &set, "means", &again));
    assert_memory_equal(again.runs, first.runs, 4 * sizeof *first.runs);
    accuracy_finish(&again);
    /* One-hot soft labels are the same labels, in other kernels. */
    float one_hot[CLASSES * CLASSES] = {0};
    for (int k = 0; k < CLASSES; k++) one_hot[k * CLASSES + k] = 1;
    set.hard_labels = NULL;
    set.soft_labels = one_hot;
    problem.holdout = &holdout;
    assert_ok(evaluate_set(&problem, &set, "means", &soft));
    for (int i = 0; i < 4; i++) assert_near(soft.runs[i], first.runs[i], 1);
    assert_false(soft.chosen_on_test);
    accuracy_finish(&soft);
    /* Labels turned by one: the network believes them. */
    for (int k = 0; k < CLASSES; k++) {
        one_hot[k * CLASSES + k] = 0;
        one_hot[k * CLASSES + (k + 1) % CLASSES] = 1;
    }
    assert_ok(evaluate_set(&problem, &set, "turned", &soft));
    assert_true(soft.mean < 15);
    accuracy_finish(&soft);
    accuracy_finish(&first);
}

/* Longer than one chunk of tables; an earlier test, which cuts the run elsewhere, changes nothing. */
static void test_chunks(void **state) {
    (void)state;
    need_device();
    struct network network = network_of(NETWORK_MLP, NORM_NONE);
    struct evaluate_problem problem = bptt_problem(&network);
    static float images[40 * PIXELS];
    int32_t labels[40];
    struct random random = random_begin(1, RANDOM_TEST, 3);
    assert_ok(dataset_draw_per_class(&train, &random, 10, images, labels));
    struct training_set set = {.count = 40, .classes = CLASSES, .ipc = 10, .images = images, .hard_labels = labels};
    struct accuracy with, without;
    problem.augment = (struct augment_spec){.rotate = true, .degrees = 15};
    problem.inner.batch_per_class = 1;
    problem.spec.steps[0] = 90;
    problem.spec.steps[1] = 300;
    assert_ok(evaluate_set(&problem, &set, "set", &with));
    problem.spec.steps[0] = 300;
    problem.spec.step_count = 1;
    assert_ok(evaluate_set(&problem, &set, "set", &without));
    for (int i = 0; i < 2; i++) assert_near(without.runs[i], with.runs[2 * i + 1], 0);
    accuracy_finish(&with);
    accuracy_finish(&without);
}

static void test_random_and_full(void **state) {
    (void)state;
    need_device();
    struct network network = network_of(NETWORK_MLP, NORM_NONE);
    struct evaluate_problem problem = bptt_problem(&network);
    struct accuracy random, again, full;
    problem.spec.networks = 3;
    problem.spec.steps[0] = 30;
    problem.spec.step_count = 1;
    assert_ok(evaluate_random(&problem, &train, 1, &random));
    assert_false(random.chosen_on_test);
    assert_true(random.mean > 30);
    /* Each network has its own draw: the same as training on that draw as a set. */
    float drawn[CLASSES * PIXELS], before[CLASSES * PIXELS] = {0};
    int32_t labels[CLASSES];
    for (int i = 0; i < 3; i++) {
        struct random baseline = random_begin(problem.seed, RANDOM_BASELINE, (uint32_t)i);
        assert_ok(dataset_draw_per_class(&train, &baseline, 1, drawn, labels));
        assert_memory_not_equal(drawn, before, sizeof drawn);
        memcpy(before, drawn, sizeof drawn);
        const struct training_set set = {
            .count = CLASSES, .classes = CLASSES, .ipc = 1, .images = drawn, .hard_labels = labels};
        assert_ok(evaluate_set(&problem, &set, "drawn", &again));
        assert_near(again.runs[i], random.runs[i], 0);
        accuracy_finish(&again);
    }
    assert_ok(evaluate_random(&problem, &train, 1, &again));
    assert_memory_equal(again.runs, random.runs, 3 * sizeof *random.runs);
    accuracy_finish(&again);
    assert_ok(evaluate_full(&problem, &train, &full));
    assert_true(full.mean > random.mean + 5);
    assert_true(full.mean > 85);
    assert_ok(evaluate_full(&problem, &train, &again));
    assert_memory_equal(again.runs, full.runs, 3 * sizeof *full.runs);
    accuracy_finish(&again);
    accuracy_finish(&full);
    accuracy_finish(&random);
    /* There are 150 of each class, and no more are taken. */
    assert_ok(evaluate_random(&problem, &train, 151, &random));
    assert_true(random.mean > 60);
    accuracy_finish(&random);
    assert_int_equal(evaluate_random(&problem, &train, 0, &random), RETORT_EINVAL);
}

static void test_dc(void **state) {
    (void)state;
    need_device();
    struct network network = network_of(NETWORK_CONVNET, NORM_INSTANCE);
    struct evaluate_problem problem = bptt_problem(&network);
    struct training_set set = mean_set();
    struct accuracy augmented, plain, again;
    problem.spec = (struct evaluate_spec){
        .protocol = PROTOCOL_DC, .networks = 2, .dc_epochs = 150, .dc_augment = true, .dc_flip = false};
    assert_ok(evaluate_set(&problem, &set, "means", &augmented));
    assert_int_equal(augmented.checkpoints, 1);
    assert_int_equal(augmented.steps[0], 151);
    assert_true(augmented.mean > 60);
    assert_ok(evaluate_set(&problem, &set, "means", &again));
    assert_memory_equal(again.runs, augmented.runs, 2 * sizeof *again.runs);
    accuracy_finish(&again);
    problem.spec.dc_augment = false;
    assert_ok(evaluate_set(&problem, &set, "means", &plain));
    assert_true(plain.mean > 60);
    assert_memory_not_equal(plain.runs, augmented.runs, 2 * sizeof *plain.runs);
    accuracy_finish(&plain);
    accuracy_finish(&augmented);
}

/* Networks trained at once are each computed as alone: of a set, of random subsets, of all of train. */
static void check_at_once(enum family family, const struct evaluate_problem *alone) {
    struct evaluate_problem problem = *alone;
    struct training_set set = mean_set();
    struct accuracy runs[2];
    struct evaluate_plans plans;
    assert_ok(library_create(device, family, &problem.library));
    for (int row = 0; row < 3; row++) {
        for (int i = 0; i < 2; i++) {
            problem.spec.at_once = i ? 2 : 1; /* of three: the last batch lacks one */
            assert_ok(row == 0   ? evaluate_set(&problem, &set, "means", &runs[i])
                      : row == 1 ? evaluate_random(&problem, &train, 2, &runs[i])
                                 : evaluate_full(&problem, &train, &runs[i]));
        }
        size_t count = (size_t)(runs[0].networks * runs[0].checkpoints);
        assert_memory_equal(runs[0].runs, runs[1].runs, count * sizeof *runs[0].runs);
        accuracy_finish(&runs[0]);
        accuracy_finish(&runs[1]);
    }
    /* A frozen plan says how many, whatever is asked for then. */
    problem.spec.at_once = 2;
    problem.spec.full_data = true;
    assert_ok(evaluate_plan(&problem, &set, &train, &plans));
    assert_int_equal(plans.set.networks, 2);
    assert_int_equal(plans.random.networks, 2);
    assert_int_equal(plans.full.networks, 2);
    problem.frozen = &plans;
    problem.spec.at_once = 0;
    assert_ok(evaluate_set(&problem, &set, "means", &runs[0]));
    accuracy_finish(&runs[0]);
    plans.set.networks = UNROLL_MOST_NETWORKS + 1;
    assert_int_equal(evaluate_set(&problem, &set, "means", &runs[0]), RETORT_EINVAL);
    /* By itself a device for CPUs takes one after another. */
    problem.frozen = NULL;
    assert_ok(evaluate_plan(&problem, &set, &train, &plans));
    assert_int_equal(plans.set.networks, 1);
    library_destroy(problem.library);
}

static void test_at_once(void **state) {
    (void)state;
    need_device();
    struct network instance = network_of(NETWORK_CONVNET, NORM_INSTANCE),
                   batch = network_of(NETWORK_CONVNET, NORM_BATCH);
    for (enum family family = FAMILY_CPU; family <= FAMILY_GPU; family++) {
        struct evaluate_problem problem = bptt_problem(&instance);
        problem.holdout = &holdout;
        problem.augment = (struct augment_spec){.rotate = true, .degrees = 15};
        problem.spec.networks = 3;
        problem.spec.steps[0] = 7;
        problem.spec.steps[1] = 20;
        check_at_once(family, &problem);
        if (family == FAMILY_GPU) break;
        problem.network = &batch;
        problem.holdout = NULL;
        problem.spec =
            (struct evaluate_spec){.protocol = PROTOCOL_DC, .networks = 3, .dc_epochs = 8, .dc_augment = true};
        check_at_once(family, &problem);
    }
}

/* Batch norm: running statistics live through the drop of the rate, and equal batches of an uneven set work. */
static void test_dc_batch_norm(void **state) {
    (void)state;
    need_device();
    struct network network = network_of(NETWORK_CONVNET, NORM_BATCH);
    struct evaluate_problem problem = bptt_problem(&network);
    struct training_set set = {.count = 300, .classes = CLASSES, .images = train.images, .hard_labels = train.labels};
    struct accuracy accuracy;
    problem.spec = (struct evaluate_spec){.protocol = PROTOCOL_DC, .networks = 1, .dc_epochs = 20};
    assert_ok(evaluate_set(&problem, &set, "real", &accuracy));
    assert_int_equal(accuracy.steps[0], 42);
    assert_true(accuracy.mean > 80);
    assert_true(isnan(accuracy.sd));
    accuracy_finish(&accuracy);
}

static void test_refusals(void **state) {
    (void)state;
    need_device();
    struct network network = network_of(NETWORK_MLP, NORM_NONE);
    struct evaluate_problem problem = bptt_problem(&network), bad;
    struct training_set set = mean_set(), wrong;
    struct accuracy accuracy = {.networks = 77};
    struct dataset empty = {.channels = 1, .height = SIDE, .width = SIDE, .classes = CLASSES};
    int interrupt = 1;
#define REFUSED(status, ...)                                                    \
    do {                                                                        \
        bad = problem;                                                          \
        wrong = set;                                                            \
        __VA_ARGS__;                                                            \
        assert_int_equal(evaluate_set(&bad, &wrong, "set", &accuracy), status); \
        assert_true(strlen(retort_error_message()) > 20);                       \
        assert_int_equal(accuracy.networks, 77);                                \
    } while (0)
    REFUSED(RETORT_EINTERRUPTED, bad.interrupt = &interrupt);
    REFUSED(RETORT_EINVAL, bad.test = &empty);
    REFUSED(RETORT_EINVAL, bad.spec.networks = 0);
    REFUSED(RETORT_EINVAL, bad.spec.step_count = 0);
    REFUSED(RETORT_EINVAL, bad.spec.steps[0] = 60);
    REFUSED(RETORT_EINVAL, wrong.classes = 3);
    REFUSED(RETORT_EINVAL, wrong.ipc = 2);
    REFUSED(RETORT_EINVAL, wrong.count = 0);
    REFUSED(RETORT_EINVAL, wrong.hard_labels = NULL);
    REFUSED(RETORT_EINVAL, wrong.soft_labels = means);
    empty.count = 1;
    empty.height = 9;
    REFUSED(RETORT_EINVAL, bad.test = &empty);
    REFUSED(RETORT_EINVAL, bad.holdout = &empty);
}

/* Under a ceiling too low for a test batch of 256 the answer is the same; under one too low for anything it is no. */
static void test_ceiling(void **state) {
    (void)state;
    need_device();
    struct network network = network_of(NETWORK_CONVNET, NORM_INSTANCE);
    struct evaluate_problem problem = bptt_problem(&network);
    struct training_set set = mean_set();
    struct accuracy free_run, tight;
    problem.spec.step_count = 1;
    uint64_t before = device_bytes(device);
    assert_ok(library_create(device, FAMILY_AUTO, &problem.library));
    assert_ok(evaluate_set(&problem, &set, "free", &free_run));
    uint64_t peak = device_peak_bytes(device) - before;
    library_destroy(problem.library);
    assert_ok(library_create(device, FAMILY_AUTO, &problem.library));
    device_set_ceiling(device, before + peak / 3);
    assert_ok(evaluate_set(&problem, &set, "tight", &tight));
    for (int i = 0; i < 2; i++) assert_near(tight.runs[i], free_run.runs[i], 0);
    accuracy_finish(&tight);
    accuracy_finish(&free_run);
    library_destroy(problem.library);
    assert_ok(library_create(device, FAMILY_AUTO, &problem.library));
    device_set_ceiling(device, before + 1000);
    assert_int_equal(evaluate_set(&problem, &set, "hopeless", &tight), RETORT_ELIMIT);
    device_set_ceiling(device, 0);
    library_destroy(problem.library);
}

/* Everything that a run's evaluation needs is found out beforehand, and nothing of it stays on the device. */
static void test_planned(void **state) {
    (void)state;
    need_device();
    struct network network = network_of(NETWORK_CONVNET, NORM_INSTANCE);
    struct evaluate_problem problem = bptt_problem(&network), bad = problem;
    struct training_set set = mean_set(), wrong = set;
    struct accuracy accuracy;
    struct evaluate_plans plans;
    problem.spec.full_data = true;
    set.images = NULL;
    uint64_t before = device_bytes(device);
    assert_ok(library_create(device, FAMILY_AUTO, &problem.library));
    device_reset_peak(device);
    assert_ok(evaluate_plan(&problem, &set, &train, &plans));
    assert_int_equal(device_bytes(device), before);
    assert_int_equal(plans.set.test_batch, test.count < 256 ? test.count : 256);
    assert_true(plans.random.inner_splits >= 1 && plans.full.inner_splits >= 1);
    /* With a little less than that a smaller plan is made, in which the tables of the steps, too, have their room to
     * the end. */
    device_set_ceiling(device, device_peak_bytes(device) - 4);
    assert_ok(evaluate_full(&problem, &train, &accuracy));
    accuracy_finish(&accuracy);
    /* What was planned is taken, whatever the ceiling would say. */
    problem.frozen = &plans;
    assert_int_equal(evaluate_full(&problem, &train, &accuracy), RETORT_ELIMIT);
    problem.frozen = NULL;
    device_set_ceiling(device, before + 1000);
    assert_int_equal(evaluate_plan(&problem, &set, &train, &plans), RETORT_ELIMIT);
    assert_non_null(strstr(retort_error_message(), "the evaluation (distilled)"));
    device_set_ceiling(device, 0);
    bad.spec.networks = 0;
    assert_int_equal(evaluate_plan(&bad, &set, &train, &plans), RETORT_EINVAL);
    wrong.classes = 3;
    assert_int_equal(evaluate_plan(&problem, &wrong, &train, &plans), RETORT_EINVAL);
    library_destroy(problem.library);
}

/* A diverging network scores something, and one warning says so. */
static void test_divergence(void **state) {
    (void)state;
    need_device();
    struct network network = network_of(NETWORK_MLP, NORM_NONE);
    struct evaluate_problem problem = bptt_problem(&network);
    struct training_set set = mean_set();
    struct accuracy accuracy;
    char said[1024] = "";
    problem.inner.optimizer = (struct optimizer_spec){.kind = OPTIMIZER_SGD};
    problem.inner_lr = 1e30;
    FILE *file = tmpfile();
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    assert_true(file && kept >= 0);
    dup2(fileno(file), STDERR_FILENO);
    log_set_level(LOG_WARNING);
    int status = evaluate_set(&problem, &set, "wild", &accuracy);
    log_set_level(LOG_QUIET);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(file);
    size_t length = fread(said, 1, sizeof said - 1, file);
    fclose(file);
    said[length] = 0;
    assert_ok(status);
    assert_true(accuracy.mean >= 0 && accuracy.mean < 60);
    accuracy_finish(&accuracy);
    char *warning = strstr(said, "not finite after 20 steps");
    assert_non_null(warning);
    assert_null(strstr(warning + 1, "not finite"));
}

int main(void) {
    log_set_level(LOG_QUIET);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choice_on_test),  cmocka_unit_test(test_choice_on_holdout),
        cmocka_unit_test(test_choice_of_one),   cmocka_unit_test(test_plan_dc),
        cmocka_unit_test(test_plan_bptt),       cmocka_unit_test(test_walk),
        cmocka_unit_test(test_tables),          cmocka_unit_test(test_describe),
        cmocka_unit_test(test_set_bptt),        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_ceiling),         cmocka_unit_test(test_planned),
        cmocka_unit_test(test_random_and_full), cmocka_unit_test(test_dc),
        cmocka_unit_test(test_dc_batch_norm),   cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_refusals),        cmocka_unit_test(test_divergence),
    };
    return cmocka_run_group_tests_name("evaluate", tests, setup, teardown);
}
