/* Matching trajectories on the device, through the row of the method table, against one graph of the whole training,
 * differentiated in reverse and evaluated in double precision, and against another framework. */
#include "graphs.h"
#include "methods.h"
#include "test.h"

#include "base/augmentation.h"
#include "base/file.h"
#include "distill/distill.h"
#include "distill/experts.h"
#include "distill/method.h"
#include "transform/transform.h"
#include "unroll/unroll.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES = 3, CHANNELS = 2, HEIGHT = 8, WIDTH = 7, PIXELS = CHANNELS * HEIGHT * WIDTH, IPC = 2 };
enum { COUNT = CLASSES * IPC, STEPS = 3, EPOCHS = 1, STARTS = 2, EXPERTS = 2, TRAIN = 17 };

/* What the method's keys say: its own struct (trajectory.c). */
enum { EXACT, NONE };
enum { KEEP_ALL, RATIO, DISTANCE };
struct trajectory_keys {
    int steps, epochs, max_start, batch;
    int prune, hessian;
    double epsilon;
    bool augment, flip;
    const char *experts;
};

TRAIN_OF(TRAIN, CHANNELS, HEIGHT, WIDTH, 0, 6, 13, TRAIN);
static char folder[] = "/tmp/retort-trajectory-XXXXXX";
static struct network network;
static float *experts; /* [EXPERTS, STARTS + EPOCHS, p] */

static int read_expert(const void *context, int number, int epoch, float *theta) {
    (void)context;
    assert_in_range(number, 0, EXPERTS - 1);
    assert_in_range(epoch, 0, STARTS + EPOCHS - 1);
    memcpy(theta, experts + ((int64_t)number * (STARTS + EPOCHS) + epoch) * network.theta_count,
           (size_t)network.theta_count * sizeof *theta);
    return RETORT_OK;
}
static const struct expert_source source = {.networks = EXPERTS, .epochs = STARTS - 1 + EPOCHS, .read = read_expert};

static int prepare(void **state) {
    static const struct network_spec spec = {
        .kind = NETWORK_CONVNET, .depth = 2, .width = 5, .norm = NORM_INSTANCE, .activation = ACTIVATION_SWISH};
    struct random random = random_begin(5, RANDOM_TEST, 1);
    dataset_fill(&train);
    assert_ok(network_describe(&spec, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    const int64_t p = network.theta_count;
    experts = calloc((size_t)(EXPERTS * (STARTS + EPOCHS) * p), sizeof *experts);
    for (int64_t i = 0; i < EXPERTS * (STARTS + EPOCHS) * p; i++) {
        bool first = i / p % (STARTS + EPOCHS) == 0;
        experts[i] = (first ? 0.3f : 0.05f) * (float)random_normal(&random) + (first ? 0 : experts[i - p]);
    }
    (void)state;
    if (!mkdtemp(folder)) return -1;
    libraries_begin("cpu");
    return 0;
}

static int clean(void **state) {
    libraries_end();
    free(experts);
    (void)state;
    return folder_remove(folder);
}

static struct distill_problem problem_of(const struct trajectory_keys *keys, int family) {
    return (struct distill_problem){
        .library = libraries[family],
        .train = &train,
        .network = &network,
        .inner = {.optimizer = {.kind = OPTIMIZER_SGD, .lr = 0.2}, .learn_lr = true},
        .set = {.ipc = IPC, .init = SET_REAL},
        .outer = {.steps = 10, .optimizer = OPTIMIZER_SGD, .lr = 1, .lr_inner = 0.1, .momentum = 0.5},
        .method = method_named("trajectory"),
        .method_spec = keys,
        .experts = &source,
        .seed = 11};
}

/* --- the same in double precision --- */
/* What a step draws, and the whole training as a graph whose mask of parameters is an input. */
struct reference {
    const struct trajectory_keys *keys;
    int64_t p, batch;
    int expert, epoch;
    double *start, *target, *mask, *student, *images, *labels, *gradient;
    double rows[STEPS * COUNT], maps[STEPS * COUNT * MAP_SIZE], colours[STEPS * COUNT * COLOUR_SIZE];
    double lr, loss, by_lr;
};

static void draw(struct reference *r, const struct distill_problem *problem, uint32_t turn) {
    struct random pick = random_begin(problem->seed, RANDOM_EXPERT_PICK, turn);
    struct random rows = random_begin(problem->seed, RANDOM_INNER_BATCH, turn);
    struct random maps = random_begin(problem->seed, RANDOM_AUGMENT_INNER, turn);
    float map[COUNT * MAP_SIZE], colour[COUNT * COLOUR_SIZE];
    uint32_t order[COUNT];
    r->expert = (int)random_below(&pick, EXPERTS);
    r->epoch = (int)random_below(&pick, STARTS);
    for (int64_t i = 0; i < STEPS * r->batch; i++) {
        if (r->batch < COUNT && i % COUNT == 0) random_choose(&rows, COUNT, COUNT, order);
        r->rows[i] = r->batch < COUNT ? order[i % COUNT] : (double)(i % COUNT);
    }
    for (int t = 0; t < STEPS && r->keys->augment; t++) {
        siamese_draw(&maps, r->keys->flip, HEIGHT, WIDTH, r->batch, map, colour);
        for (int64_t i = 0; i < r->batch * MAP_SIZE; i++) r->maps[t * r->batch * MAP_SIZE + i] = map[i];
        for (int64_t i = 0; i < r->batch * COLOUR_SIZE; i++) r->colours[t * r->batch * COLOUR_SIZE + i] = colour[i];
    }
}

static struct node *part(struct graph *g, const char *name, struct shape all, int t, struct shape shape) {
    int64_t begin[4] = {t}, step[4] = {1, 1, 1, 1};
    struct node *whole = graph_input(g, name, strcmp(name, "rows") ? FLOAT32 : INT32, all);
    all.size[0] = 1;
    return node_reshape(node_slice(whole, begin, step, all), shape);
}

static struct node *trained(struct graph *g, const struct reference *r, struct node *images, struct node *lr) {
    const int64_t b = r->batch;
    struct node *theta = graph_input(g, "start", FLOAT32, SHAPE(r->p)), *gradient;
    struct node *labels = graph_input(g, "labels", INT32, SHAPE(COUNT));
    for (int t = 0; t < STEPS; t++) {
        struct node *at = r->keys->hessian == NONE ? node_stop_gradient(theta) : theta;
        struct node *rows = part(g, "rows", SHAPE(STEPS, b), t, SHAPE(b)), *batch = node_gather_rows(images, rows);
        if (r->keys->augment)
            batch = siamese_apply(g, batch, part(g, "maps", SHAPE(STEPS, b, 2, 3), t, SHAPE(b, 2, 3)),
                                  part(g, "colours", SHAPE(STEPS, b, COLOUR_SIZE), t, SHAPE(b, COLOUR_SIZE)));
        struct node *logits =
            network_logits(g, &network, &(struct network_pass){.theta = at, .images = batch}, NULL, NULL);
        struct node *loss = loss_hard(g, logits, node_gather_rows(labels, rows));
        assert_ok(graph_status(g));
        assert_ok(transform_vjp(loss, NULL, &at, 1, &gradient));
        theta = node_subtract(theta, node_multiply(gradient, node_broadcast_scalar(lr, SHAPE(r->p))));
    }
    return theta;
}

static void compute(struct reference *r) {
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *images = graph_input(g, "images", FLOAT32, SHAPE(COUNT, CHANNELS, HEIGHT, WIDTH));
    struct node *lr = graph_input(g, "lr", FLOAT32, SCALAR_SHAPE), *wrt[] = {images, lr}, *derivatives[2];
    struct node *student = trained(g, r, images, lr), *mask = graph_input(g, "mask", FLOAT32, SHAPE(r->p));
    struct node *start = graph_input(g, "start", FLOAT32, SHAPE(r->p));
    struct node *target = graph_input(g, "target", FLOAT32, SHAPE(r->p));
    struct node *off = node_multiply(mask, node_subtract(student, target));
    struct node *way = node_multiply(mask, node_subtract(start, target));
    struct node *loss = node_divide(node_sum_all(node_square(off)), node_sum_all(node_square(way)));
    assert_ok(transform_vjp(loss, NULL, wrt, 2, derivatives));
    graph_output(g, "student", student);
    graph_output(g, "loss", loss);
    graph_output(g, "by images", derivatives[0]);
    graph_output(g, "by lr", derivatives[1]);
    evaluate(g, BINDINGS({"images", r->images}, {"lr", &r->lr}, {"mask", r->mask}, {"start", r->start},
                         {"target", r->target}, {"labels", r->labels}, {"rows", r->rows}, {"maps", r->maps},
                         {"colours", r->colours}, {"student", r->student}, {"loss", &r->loss},
                         {"by images", r->gradient}, {"by lr", &r->by_lr}));
    graph_destroy(g);
}

/* The parameters that a reading keeps, by its words; no case may hang on the last digits of one. */
static int64_t prune(struct reference *r) {
    int64_t dropped = 0;
    for (int64_t i = 0; i < r->p; i++) {
        double a = r->student[i], b = r->target[i], epsilon = r->keys->epsilon, less = fmin(fabs(a), fabs(b));
        double ratio = (a < 0) != (b < 0) ? 0 : less / fmax(fabs(a), fabs(b));
        double distance = fabs(a - b) / fabs(b - r->start[i]), unlike = 0;
        if (r->keys->prune == RATIO) unlike = epsilon - ratio;
        if (r->keys->prune == DISTANCE) unlike = distance - epsilon;
        if (r->keys->prune && fabs(unlike) < 2e-6) fail_msg("parameter %d is on the verge", (int)i);
        r->mask[i] = unlike <= 0;
        dropped += unlike > 0;
    }
    return dropped;
}

static struct reference reference_of(const struct distill_problem *problem, const struct set *set, uint32_t turn) {
    const struct trajectory_keys *keys = problem->method_spec;
    const int64_t p = network.theta_count;
    struct reference r = {.keys = keys, .p = p, .batch = keys->batch ? keys->batch : COUNT, .lr = set_inner_lr(set)};
    double **arrays[] = {&r.start, &r.target, &r.mask, &r.student};
    for (int i = 0; i < 4; i++) assert_non_null(*arrays[i] = calloc((size_t)p, sizeof(double)));
    r.images = calloc(COUNT * PIXELS, sizeof(double));
    r.gradient = calloc(COUNT * PIXELS, sizeof(double));
    r.labels = calloc(COUNT, sizeof(double));
    draw(&r, problem, turn);
    const float *theta = experts + ((int64_t)r.expert * (STARTS + EPOCHS) + r.epoch) * p;
    for (int64_t i = 0; i < p; i++) r.start[i] = theta[i], r.target[i] = theta[EPOCHS * p + i], r.mask[i] = 1;
    for (int i = 0; i < COUNT * PIXELS; i++) r.images[i] = set->images[i];
    for (int i = 0; i < COUNT; i++) r.labels[i] = set->hard_labels[i];
    return r;
}

static void reference_finish(struct reference *r) {
    double *arrays[] = {r->start, r->target, r->mask, r->student, r->images, r->gradient, r->labels};
    for (int i = 0; i < 7; i++) free(arrays[i]);
}

/* Four steps of one instance, and with them several families of the augmentation, starts and experts. */
static void expect_steps(const struct trajectory_keys *keys, int family) {
    struct set set;
    void *instance;
    struct metrics metrics = {0};
    const struct distill_problem problem = problem_of(keys, family);
    assert_ok(set_begin(&problem, &set));
    assert_ok(problem.method->create(&problem, &set, &instance));
    for (uint32_t step = 1; step <= 4; step++) {
        double got[COUNT * PIXELS];
        int64_t dropped = 0;
        metrics_clear(&metrics);
        assert_ok(problem.method->step(instance, (struct turn){(int)step, 0, step}, &metrics));
        struct reference r = reference_of(&problem, &set, step);
        compute(&r);
        if (keys->prune) {
            dropped = prune(&r);
            assert_in_range(dropped, r.p / 20, r.p * 19 / 20);
            compute(&r);
        }
        for (int i = 0; i < COUNT * PIXELS; i++) got[i] = set.image_gradient[i];
        double loss_off = fabs(metric_number(&metrics, "loss") / r.loss - 1);
        double off = relative_error(got, r.gradient, COUNT * PIXELS);
        double lr_off = fabs(set.variables[SET_LOG_LR].gradient[0] / (r.by_lr * r.lr) - 1);
        if (!(loss_off < 5e-6) || !(off < 2e-5) || !(lr_off < 2e-5))
            fail_msg("step %u: loss %.2g off, by images %.2g, by the rate %.2g", step, loss_off, off, lr_off);
        assert_true(metric_number(&metrics, "start") == r.epoch);
        assert_true(fabs(metric_number(&metrics, "dropped") - (double)dropped / (double)r.p) < 1e-6);
        reference_finish(&r);
    }
    metrics_finish(&metrics);
    problem.method->destroy(instance);
    set_finish(&set);
}

static const struct trajectory_keys mtt = {STEPS, EPOCHS, STARTS, 0, KEEP_ALL, EXACT, 0.1, true, true, "experts"};

static void test_gradient(void **state) {
    (void)state;
    if (!device) skip();
    for (int family = 0; family < 2; family++) {
        struct trajectory_keys keys = mtt;
        expect_steps(&keys, family);
        keys.augment = false;
        keys.batch = COUNT / 2;
        expect_steps(&keys, family);
        keys.hessian = NONE;
        expect_steps(&keys, family);
        keys.augment = true;
        expect_steps(&keys, family);
        keys.hessian = EXACT;
        keys.prune = RATIO;
        keys.epsilon = 0.9;
        expect_steps(&keys, family);
        keys.prune = DISTANCE;
        expect_steps(&keys, family);
    }
}

/* --- the same by another framework: tests/oracle/trajectory-*, made by make_trajectory_cases.py there --- */
static float case_start[4096], case_target[4096];

static int read_case_expert(const void *context, int number, int epoch, float *theta) {
    (void)context;
    assert_int_equal(number, 0);
    memcpy(theta, epoch ? case_target : case_start, (size_t)network.theta_count * sizeof *theta);
    return RETORT_OK;
}

enum { CASE_VALUES = 2 + COUNT * PIXELS }; /* the loss, its derivative by the rate, then by the images */
struct oracle {
    const char *folder;
    enum activation_kind activation;
    int steps;
    double lr;
};
struct errors {
    double loss, by_lr, by_images;
};

static struct errors errors_of(const double *got, const double *want) {
    return (struct errors){fabs(got[0] / want[0] - 1), fabs(got[1] / want[1] - 1),
                           relative_error(got + 2, want + 2, COUNT * PIXELS)};
}

static void step_of_case(const struct oracle *oracle, struct trajectory_keys keys, int family, double *got) {
    static const struct expert_source own = {.networks = 1, .epochs = 1, .read = read_case_expert};
    const struct network_spec spec = {
        .kind = NETWORK_CONVNET, .depth = 2, .width = 5, .norm = NORM_INSTANCE, .activation = oracle->activation};
    struct network net;
    struct set set;
    void *instance;
    struct metrics metrics = {0};
    struct distill_problem problem = problem_of(&keys, family);
    double images[COUNT * PIXELS];
    assert_ok(network_describe(&spec, CHANNELS, HEIGHT, WIDTH, CLASSES, &net));
    problem.network = &net;
    problem.experts = &own;
    problem.inner.optimizer.lr = oracle->lr;
    keys.augment = false, keys.max_start = 1, keys.epsilon = 0.9, keys.steps = oracle->steps;
    assert_ok(set_begin(&problem, &set));
    assert_int_equal(read_case(oracle->folder, "syn_x", images, COUNT * PIXELS), COUNT * PIXELS);
    for (int i = 0; i < COUNT * PIXELS; i++) set.images[i] = (float)images[i];
    assert_ok(problem.method->create(&problem, &set, &instance));
    assert_ok(problem.method->step(instance, (struct turn){1, 0, 1}, &metrics));
    got[0] = metric_number(&metrics, "loss");
    got[1] = set.variables[SET_LOG_LR].gradient[0] / set_inner_lr(&set);
    for (int i = 0; i < COUNT * PIXELS; i++) got[2 + i] = set.image_gradient[i];
    metrics_finish(&metrics);
    problem.method->destroy(instance);
    set_finish(&set);
}

static void read_case_theta(const char *folder_name, const char *name, float *theta) {
    static double values[4096];
    assert_int_equal(read_case(folder_name, name, values, 4096), network.theta_count);
    for (int64_t i = 0; i < network.theta_count; i++) theta[i] = (float)values[i];
}

/* Within 30 times of what the other framework is off in single precision, which is taken to be half a unit in the last
 * place at least: one number may be better by chance. */
static void expect_case(const struct oracle *oracle, const char *answer, const struct trajectory_keys *keys) {
    static double want[CASE_VALUES], single[CASE_VALUES], got[CASE_VALUES];
    const double least = 0x1p-24;
    char name[32];
    snprintf(name, sizeof name, "expect_%s", answer);
    assert_int_equal(read_case(oracle->folder, name, want, CASE_VALUES), CASE_VALUES);
    snprintf(name, sizeof name, "single_%s", answer);
    assert_int_equal(read_case(oracle->folder, name, single, CASE_VALUES), CASE_VALUES);
    struct errors own = errors_of(single, want);
    for (int family = 0; family < 2; family++) {
        step_of_case(oracle, *keys, family, got);
        struct errors off = errors_of(got, want);
        if (getenv("RETORT_TEST_PRINT"))
            print_message("%s %s, family %d: %.2g %.2g %.2g off; float32 %.2g %.2g %.2g\n", oracle->folder, answer,
                          family, off.loss, off.by_lr, off.by_images, own.loss, own.by_lr, own.by_images);
        if (!(off.loss < 30 * fmax(own.loss, least)) || !(off.by_lr < 30 * fmax(own.by_lr, least))
            || !(off.by_images < 30 * fmax(own.by_images, least)))
            fail_msg("%s %s, family %d: loss %.2g off, by the rate %.2g, by images %.2g", oracle->folder, answer,
                     family, off.loss, off.by_lr, off.by_images);
    }
}

static void test_oracle(void **state) {
    (void)state;
    if (!device) skip();
    static const struct oracle oracles[] = {{"trajectory-instance", ACTIVATION_SWISH, 3, 0.2},
                                            {"trajectory-relu", ACTIVATION_RELU, 6, 0.1}};
    for (int i = 0; i < 2; i++) {
        struct trajectory_keys keys = mtt;
        read_case_theta(oracles[i].folder, "start", case_start);
        read_case_theta(oracles[i].folder, "target", case_target);
        expect_case(&oracles[i], "mtt", &keys);
        keys.hessian = NONE;
        expect_case(&oracles[i], "tesla", &keys);
        keys.hessian = EXACT;
        keys.prune = RATIO;
        expect_case(&oracles[i], "ratio", &keys);
        keys.prune = DISTANCE;
        expect_case(&oracles[i], "distance", &keys);
    }
}

/* Without second derivatives it is another gradient, though not an opposite one. */
static void test_hessian(void **state) {
    (void)state;
    if (!device) skip();
    float *gradients[2];
    double dot[3] = {0};
    for (int i = 0; i < 2; i++) {
        struct trajectory_keys keys = mtt;
        struct set set;
        void *instance;
        struct metrics metrics = {0};
        keys.hessian = i ? NONE : EXACT;
        const struct distill_problem problem = problem_of(&keys, 0);
        assert_ok(set_begin(&problem, &set));
        assert_ok(problem.method->create(&problem, &set, &instance));
        assert_ok(problem.method->step(instance, (struct turn){1, 0, 1}, &metrics));
        assert_non_null(gradients[i] = malloc(COUNT * PIXELS * sizeof(float)));
        memcpy(gradients[i], set.image_gradient, COUNT * PIXELS * sizeof(float));
        metrics_finish(&metrics);
        problem.method->destroy(instance);
        set_finish(&set);
    }
    for (int i = 0; i < COUNT * PIXELS; i++) {
        dot[0] += (double)gradients[0][i] * gradients[1][i];
        dot[1] += (double)gradients[0][i] * gradients[0][i];
        dot[2] += (double)gradients[1][i] * gradients[1][i];
    }
    double cosine = dot[0] / sqrt(dot[1] * dot[2]);
    if (!(cosine > 0.5 && cosine < 0.99999)) fail_msg("cosine %g", cosine);
    free(gradients[0]);
    free(gradients[1]);
}

static void take(struct distill *distill, int steps) {
    const struct metrics *metrics;
    for (int i = 0; i < steps; i++) assert_ok(distill_step(distill, &metrics));
}

static void test_resumed(void **state) {
    (void)state;
    if (!device) skip();
    struct distill *whole, *parts;
    float images[2][COUNT * PIXELS];
    char path[FILE_PATH_MAX];
    struct trajectory_keys keys = mtt;
    keys.batch = COUNT / 2;
    const struct distill_problem problem = problem_of(&keys, 0);
    assert_ok(distill_create(&problem, &whole));
    take(whole, 4);
    assert_ok(distill_create(&problem, &parts));
    take(parts, 2);
    assert_ok(path_join(folder, "state.npz", path));
    assert_ok(distill_save(parts, path));
    distill_destroy(parts);
    assert_ok(distill_create(&problem, &parts));
    assert_ok(distill_load(parts, path));
    take(parts, 2);
    assert_ok(distill_read_set(whole, images[0], NULL, NULL));
    assert_ok(distill_read_set(parts, images[1], NULL, NULL));
    assert_memory_equal(images[0], images[1], sizeof images[0]);
    assert_true(distill_inner_lr(whole) == distill_inner_lr(parts) && distill_inner_lr(whole) != 0.2);
    distill_destroy(whole);
    distill_destroy(parts);
}

static void test_refused(void **state) {
    (void)state;
    if (!device) skip();
    struct trajectory_keys keys = mtt;
    struct distill_problem problem = problem_of(&keys, 0);
    const struct metrics *metrics;
    struct distill *distill;
    keys.batch = 4;
    assert_int_equal(distill_create(&problem, &distill), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "method.batch"));
    keys.batch = 0;
    keys.prune = RATIO;
    keys.epsilon = 1;
    assert_int_equal(distill_create(&problem, &distill), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "method.epsilon"));
    keys.prune = DISTANCE;
    keys.epsilon = 1e-30;
    assert_ok(distill_create(&problem, &distill));
    assert_int_equal(distill_step(distill, &metrics), RETORT_ENUMERIC);
    assert_non_null(strstr(retort_error_message(), "drops all parameters"));
    distill_destroy(distill);
    problem.experts = NULL;
    assert_ok(distill_create(&problem, &distill)); /* planning does without */
    double seconds;
    assert_ok(distill_forecast(distill, 0.01, &seconds));
    assert_true(seconds > 0);
    assert_int_equal(distill_step(distill, &metrics), RETORT_EINVAL);
    distill_destroy(distill);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradient), cmocka_unit_test(test_oracle),
                                       cmocka_unit_test(test_hessian), cmocka_unit_test(test_resumed),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests_name("trajectory", tests, prepare, clean);
}
