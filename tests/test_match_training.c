/* What a network of gradient matching goes through between two matches, against a second reckoning in double precision:
 * training on the set in one batch and in several, under augmentation, by EGM's rules, on real images; batch norm's
 * frozen statistics; an interrupt in the middle. */
#include "graphs.h"
#include "matching.h"
#include "methods.h"
#include "test.h"

#include "base/augmentation.h"
#include "base/log.h"
#include "distill/distill.h"
#include "distill/loops.h"
#include "distill/method.h"
#include "transform/transform.h"
#include "unroll/unroll.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

/* --- training in double precision --- */
struct learner {
    const struct network *net;
    struct optimizer_spec sgd;
    double *theta, *velocity, *gradient;
};

static struct learner learner_begin(const struct network *net, const struct optimizer_spec *sgd) {
    const size_t p = (size_t)net->theta_count;
    return (struct learner){net, *sgd, calloc(p, sizeof(double)), calloc(p, sizeof(double)), calloc(p, sizeof(double))};
}

static void learner_finish(struct learner *l) {
    free(l->theta);
    free(l->velocity);
    free(l->gradient);
}

/* The weights that an unroll holds now. */
static void read_theta(struct unroll *unroll, const struct network *net, double *theta) {
    float *now = calloc((size_t)net->theta_count, sizeof *now);
    assert_ok(unroll_read_theta(unroll, now));
    for (int64_t i = 0; i < net->theta_count; i++) theta[i] = (double)now[i];
    free(now);
}

/* The mean loss of images, and its gradient by theta; maps and colours: NULL or one for each image. */
static double loss_of(struct learner *l, const float *images, const int32_t *labels, int64_t count, const float *maps,
                      const float *colours) {
    double *x = calloc((size_t)(count * PIXELS), sizeof *x), *y = calloc((size_t)(count * CLASSES), sizeof *y);
    double *m = calloc((size_t)(count * MAP_SIZE), sizeof *m), *k = calloc((size_t)(count * COLOUR_SIZE), sizeof *k);
    double result;
    struct graph *g;
    struct node *derivative;
    for (int64_t i = 0; i < count * PIXELS; i++) x[i] = (double)images[i];
    for (int64_t i = 0; i < count; i++) y[i * CLASSES + labels[i]] = 1;
    for (int64_t i = 0; maps && i < count * MAP_SIZE; i++) m[i] = (double)maps[i];
    for (int64_t i = 0; colours && i < count * COLOUR_SIZE; i++) k[i] = (double)colours[i];
    assert_ok(graph_create(&g));
    struct node *theta = graph_input(g, "theta", FLOAT32, SHAPE(l->net->theta_count));
    struct node *seen = graph_input(g, "x", FLOAT32, SHAPE(count, CHANNELS, HEIGHT, WIDTH));
    if (maps)
        seen = siamese_apply(g, seen, graph_input(g, "maps", FLOAT32, SHAPE(count, 2, 3)),
                             graph_input(g, "colours", FLOAT32, SHAPE(count, COLOUR_SIZE)));
    struct network_pass pass = {.theta = theta, .images = seen};
    struct node *loss =
        loss_soft(g, network_logits(g, l->net, &pass, NULL, NULL), graph_input(g, "y", FLOAT32, SHAPE(count, CLASSES)));
    assert_ok(transform_vjp(loss, NULL, &theta, 1, &derivative));
    graph_output(g, "loss", loss);
    graph_output(g, "gradient", derivative);
    evaluate(g, BINDINGS({"theta", l->theta}, {"x", x}, {"y", y}, {"maps", m}, {"colours", k}, {"loss", &result},
                         {"gradient", l->gradient}));
    graph_destroy(g);
    free(x);
    free(y);
    free(m);
    free(k);
    return result;
}

static void descend(struct learner *l, const float *images, const int32_t *labels, int64_t count, const float *maps,
                    const float *colours) {
    loss_of(l, images, labels, count, maps, colours);
    for (int64_t i = 0; i < l->net->theta_count; i++) {
        l->velocity[i] = l->sgd.momentum * l->velocity[i] + l->gradient[i] + l->sgd.weight_decay * l->theta[i];
        l->theta[i] -= l->sgd.lr * l->velocity[i];
    }
}

/* The draws of a run of training on the set: each epoch has all its images once, in a new order, in `steps` batches of
 * which the last begins the order again where they do not divide it. */
struct draws {
    struct random rows, augments;
    const struct set *set;
    int64_t steps, batch;
    bool augment;
};

static void descend_epoch(struct learner *l, struct draws *d) {
    const struct set *set = d->set;
    const int64_t n = set->count;
    uint32_t *order = calloc((size_t)n, sizeof *order);
    float *images = calloc((size_t)(d->batch * PIXELS), sizeof *images);
    float *maps = calloc((size_t)(d->batch * MAP_SIZE), sizeof *maps);
    float *colours = calloc((size_t)(d->batch * COLOUR_SIZE), sizeof *colours);
    int32_t *labels = calloc((size_t)d->batch, sizeof *labels);
    random_choose(&d->rows, (uint32_t)n, (uint32_t)n, order);
    for (int64_t step = 0; step < d->steps; step++) {
        for (int64_t i = 0; i < d->batch; i++) {
            int64_t place = step * d->batch + i, row = order[place < n ? place : place - n];
            memcpy(images + i * PIXELS, set->images + row * PIXELS, PIXELS * sizeof *images);
            labels[i] = (int32_t)(row / set->ipc);
        }
        if (d->augment) siamese_draw(&d->augments, true, HEIGHT, WIDTH, d->batch, maps, colours);
        descend(l, images, labels, d->batch, d->augment ? maps : NULL, colours);
    }
    free(order);
    free(images);
    free(maps);
    free(colours);
    free(labels);
}

/* --- training on the set, and on real images --- */
struct example {
    const char *method;
    const void *keys;
    int ipc, epochs, batches; /* of the set; no epochs: it learns from 64 real images */
    bool augment;
    double weight_decay;
};

/* The weights at each match of an iteration. */
static void expect_training(const struct example *example) {
    struct network network;
    struct set set;
    void *instance;
    struct metrics metrics = {0};
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    struct distill_problem problem = problem_of(&network, example->method, example->keys, 0);
    problem.inner.optimizer.weight_decay = example->weight_decay;
    problem.set.ipc = example->ipc;
    struct learner learner = learner_begin(&network, &problem.inner.optimizer);
    double *got = calloc((size_t)network.theta_count, sizeof *got);
    float images[64 * PIXELS];
    int32_t labels[64];
    assert_ok(set_begin(&problem, &set));
    assert_ok(problem.method->create(&problem, &set, &instance));
    struct unroll *unroll = (struct unroll *)(uintptr_t)problem.method->unroll(instance);
    for (int step = 1; step <= 3; step++) {
        const uint32_t draw = (uint32_t)step;
        metrics_clear(&metrics);
        assert_ok(problem.method->step(instance, (struct turn){step, 0, draw}, &metrics));
        read_theta(unroll, &network, got);
        if (step == 1) {
            memcpy(learner.theta, got, (size_t)network.theta_count * sizeof *got);
        } else if (example->epochs) {
            struct draws draws = {.rows = random_begin(problem.seed, RANDOM_INNER_BATCH, draw),
                                  .augments = random_begin(problem.seed, RANDOM_AUGMENT_INNER, draw),
                                  .set = &set,
                                  .steps = example->batches,
                                  .batch = (set.count + example->batches - 1) / example->batches,
                                  .augment = example->augment};
            for (int epoch = 0; epoch < example->epochs; epoch++) descend_epoch(&learner, &draws);
        } else {
            struct random random = random_begin(problem.seed, RANDOM_REAL_TRAINING, draw);
            assert_ok(dataset_draw(&train, &random, 64, images, labels));
            descend(&learner, images, labels, 64, NULL, NULL);
        }
        double off = relative_error(got, learner.theta, network.theta_count);
        if (!(off < 2e-6)) fail_msg("%s: weights of match %d are %.2g off", example->method, step, off);
        outer_update(&set.variables[SET_STORED], OPTIMIZER_SGD, 0.5, step);
        problem.method->advance(instance, &metrics);
    }
    metrics_finish(&metrics);
    problem.method->destroy(instance);
    set_finish(&set);
    learner_finish(&learner);
    free(got);
}

static void test_training(void **state) {
    (void)state;
    if (!device) skip();
    struct match_keys augmented = dc;
    augmented.augment = true;
    const struct idc_keys idc = {.matches = 3, .real_per_class = 5, .set_per_class = 9, .real_images = 127};
    const struct example examples[] = {
        {"match", &dc, IPC, 2, 1, false, 0},
        {"match", &augmented, IPC, 2, 1, true, 0},
        {"match", &dc, 87, 2, 2, false, 0}, /* 261 images, in batches of 131 */
        {"idc", &idc, IPC, 0, 0, false, 5e-4},
    };
    for (size_t i = 0; i < sizeof examples / sizeof *examples; i++) expect_training(&examples[i]);
}

/* --- EGM's rules --- */
static void test_table(void **state) {
    (void)state;
    if (!device) skip();
    struct network network;
    struct distill *d;
    const struct metrics *metrics;
    static const int table[] = {0, 50, 40, 30, 20, 10, 10, 10, 10, 10, 10, 5, 0};
    struct match_keys keys = dc;
    keys.adaptive = 2, keys.outer = 12, keys.inner = 0;
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    const struct distill_problem problem = problem_of(&network, "match", &keys, 0);
    assert_ok(distill_create(&problem, &d));
    for (int step = 0; step < 13; step++) {
        assert_ok(distill_step(d, &metrics));
        assert_int_equal((int)metric_number(metrics, "inner_epochs"), table[step]);
    }
    distill_destroy(d);
}

/* The published numbers, those that are given, and what they come to over an iteration. */
static void test_loops(void **state) {
    (void)state;
    struct loops loops;
    assert_ok(loops_settle(ADAPTIVE_NONE, 0, 0, 10, &loops));
    assert_int_equal(loops.outer, 10);
    assert_int_equal(loops_most(&loops), 50);
    assert_true(loops_mean(&loops) == 45);
    assert_ok(loops_settle(ADAPTIVE_NONE, 4, 7, 3, &loops));
    assert_true(loops_mean(&loops) == 21 / 4.0);
    assert_ok(loops_settle(ADAPTIVE_NONE, 0, 0, 1, &loops));
    assert_int_equal(loops_most(&loops), 0);
    assert_ok(loops_settle(ADAPTIVE_TABLE, 12, 0, 3, &loops));
    assert_int_equal(loops_most(&loops), 50);
    assert_true(loops_mean(&loops) == (50 + 40 + 30 + 20 + 6 * 10 + 5) / 12.0);
    assert_ok(loops_settle(ADAPTIVE_LOSS, 0, 0, 50, &loops));
    assert_int_equal(loops_epochs(&loops, 49), 50);
    static const struct {
        int adaptive, outer, inner;
        const char *words;
    } missing[] = {{ADAPTIVE_NONE, 0, 0, "not for 3; give method.outer and method.inner"},
                   {ADAPTIVE_NONE, 4, 0, "give method.inner"},
                   {ADAPTIVE_NONE, 0, 5, "give method.outer"},
                   {ADAPTIVE_LOSS, 0, 0, "give method.outer"},
                   {ADAPTIVE_TABLE, 0, 0, "give method.outer"}};
    for (size_t i = 0; i < sizeof missing / sizeof *missing; i++) {
        assert_int_equal(
            loops_settle((enum adaptive)missing[i].adaptive, missing[i].outer, missing[i].inner, 3, &loops),
            RETORT_EINVAL);
        const char *told = strstr(retort_error_message(), missing[i].words);
        assert_non_null(told);
        assert_int_equal(strlen(told), strlen(missing[i].words));
    }
}

/* How many epochs each rule takes. */
struct rules {
    int against_last, against_first, until_it_falls;
};

/* Trains on until the loss on real images has risen over that of the epoch before, `most` epochs at most. */
static struct rules follow(struct learner *l, struct draws *draws, const float *real, const int32_t *labels, int watch,
                           int most) {
    struct rules rules = {0};
    double *kept = calloc(2 * (size_t)l->net->theta_count, sizeof *kept);
    double first = loss_of(l, real, labels, watch, NULL, NULL), last = first;
    for (int epoch = 1; epoch <= most; epoch++) {
        descend_epoch(l, draws);
        double now = loss_of(l, real, labels, watch, NULL, NULL);
        /* Single precision cannot tell what is nearer than this; the seed and the rate are chosen so. */
        if (!rules.against_last) assert_true(fabs(now - last) > 1e-6);
        if (!rules.against_last && (now > last || epoch == most)) {
            rules.against_last = epoch;
            memcpy(kept, l->theta, (size_t)l->net->theta_count * sizeof *kept);
            memcpy(kept + l->net->theta_count, l->velocity, (size_t)l->net->theta_count * sizeof *kept);
        }
        if (!rules.against_first && (now > first || epoch == most)) rules.against_first = epoch;
        if (!rules.until_it_falls && (now < last || epoch == most)) rules.until_it_falls = epoch;
        last = now;
    }
    memcpy(l->theta, kept, (size_t)l->net->theta_count * sizeof *kept);
    memcpy(l->velocity, kept + l->net->theta_count, (size_t)l->net->theta_count * sizeof *kept);
    free(kept);
    return rules;
}

/* Learning ends with the first epoch that raises the loss over the last one's, which is neither the first that raises
 * it over what it was to begin with, nor the first that lowers it: in some steps here each of these would differ. */
static void test_loss_rule(void **state) {
    (void)state;
    if (!device) skip();
    enum { STEPS = 8, MOST = 12 };
    struct network network;
    struct set set;
    void *instance;
    struct metrics metrics = {0};
    struct match_keys keys = dc;
    int not_first = 0, not_falling = 0, reached = 0;
    float real[REAL * PIXELS];
    int32_t labels[REAL];
    keys.adaptive = 1, keys.outer = STEPS, keys.inner = MOST;
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    struct distill_problem problem = problem_of(&network, "match", &keys, 0);
    problem.set.init = SET_REAL;
    problem.inner.optimizer.lr = 0.2;
    struct learner learner = learner_begin(&network, &problem.inner.optimizer);
    assert_ok(set_begin(&problem, &set));
    assert_ok(problem.method->create(&problem, &set, &instance));
    struct unroll *unroll = (struct unroll *)(uintptr_t)problem.method->unroll(instance);
    for (int step = 1; step <= STEPS; step++) {
        const uint32_t draw = (uint32_t)step;
        metrics_clear(&metrics);
        assert_ok(problem.method->step(instance, (struct turn){step, 0, draw}, &metrics));
        int taken = (int)metric_number(&metrics, "inner_epochs");
        if (step == 1) {
            assert_int_equal(taken, 0);
            read_theta(unroll, &network, learner.theta);
        } else {
            struct draws draws = {.rows = random_begin(problem.seed, RANDOM_INNER_BATCH, draw),
                                  .set = &set,
                                  .steps = 1,
                                  .batch = set.count};
            struct random random = random_begin(problem.seed, RANDOM_WATCHED_BATCH, draw);
            assert_ok(dataset_draw(&train, &random, REAL, real, labels));
            struct rules rules = follow(&learner, &draws, real, labels, REAL, MOST);
            if (getenv("RETORT_TEST_PRINT"))
                print_message("step %d: %d epochs; by the first loss %d, until it falls %d\n", step, taken,
                              rules.against_first, rules.until_it_falls);
            assert_int_equal(taken, rules.against_last);
            not_first += rules.against_first != taken;
            not_falling += rules.until_it_falls != taken;
            reached += taken == MOST;
        }
        outer_update(&set.variables[SET_STORED], OPTIMIZER_SGD, 0.5, step);
        problem.method->advance(instance, &metrics);
    }
    assert_true(not_first > 0 && not_falling > 0 && reached < STEPS - 1);
    metrics_finish(&metrics);
    problem.method->destroy(instance);
    set_finish(&set);
    learner_finish(&learner);
}

/* A given number of epochs is the most that `loss` takes; at a rate at which nothing moves the loss never rises. */
static void test_most_epochs(void **state) {
    (void)state;
    if (!device) skip();
    struct network network;
    struct distill *d;
    const struct metrics *metrics;
    struct match_keys keys = dc;
    keys.adaptive = 1;
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    for (int inner = 0; inner <= 3; inner += 3) {
        keys.inner = inner;
        struct distill_problem problem = problem_of(&network, "match", &keys, 0);
        problem.inner.optimizer.lr = 1e-30;
        assert_ok(distill_create(&problem, &d));
        for (int step = 0; step < 2; step++) assert_ok(distill_step(d, &metrics));
        assert_int_equal((int)metric_number(metrics, "inner_epochs"), inner ? inner : 50);
        distill_destroy(d);
    }
    const char *key = "";
    keys.adaptive = 2;
    const struct distill_problem problem = problem_of(&network, "match", &keys, 0);
    assert_int_equal(distill_check(&problem, &key), RETORT_EINVAL);
    assert_string_equal(key, "method.inner");
    assert_non_null(strstr(retort_error_message(), "leave inner out"));
}

/* --- batch norm --- */
/* Before each match the running statistics move a tenth of the way to those of 16 real images of each class, under the
 * weights of the match: the iteration's first one begins from means of 0 and variances of 1. */
static void test_frozen(void **state) {
    (void)state;
    if (!device) skip();
    enum { EACH = 16, FROZEN = EACH * CLASSES };
    struct network network;
    struct set set;
    void *instance;
    struct metrics metrics = {0};
    struct graph *g;
    struct node *new_stats;
    int64_t different;
    float images[FROZEN * PIXELS];
    double x[FROZEN * PIXELS];
    assert_ok(network_describe(&batch_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    const struct distill_problem problem = problem_of(&network, "match", &dc, 0);
    const size_t p = (size_t)network.theta_count, q = (size_t)network.stats_count;
    double *theta = calloc(p, sizeof *theta), *before = calloc(q, sizeof *before), *after = calloc(q, sizeof *after);
    double *got = calloc(q, sizeof *got);
    assert_ok(set_begin(&problem, &set));
    assert_ok(problem.method->create(&problem, &set, &instance));
    assert_ok(problem.method->step(instance, (struct turn){1, 0, 1}, &metrics));
    struct unroll *unroll = (struct unroll *)(uintptr_t)problem.method->unroll(instance);
    const size_t count = (size_t)unroll_state_count(unroll);
    float *all = calloc(count, sizeof *all);
    assert_ok(unroll_read_state(unroll, all));
    for (size_t i = 0; i < p; i++) theta[i] = (double)all[i];
    for (size_t i = 0; i < q; i++) got[i] = (double)all[count - q + i];
    struct random random = random_begin(problem.seed, RANDOM_FROZEN_BATCH, 1);
    for (int c = 0; c < CLASSES; c++)
        assert_ok(dataset_draw_class(&train, &random, c, EACH, images + c * EACH * PIXELS, &different));
    for (int i = 0; i < FROZEN * PIXELS; i++) x[i] = (double)images[i];
    /* Means and variances of a layer's channels in turn: [mean, variance] of each layer. */
    for (int layer = 0; layer < batch_norm.depth; layer++)
        for (int c = 0; c < batch_norm.width; c++) before[(2 * layer + 1) * batch_norm.width + c] = 1;
    assert_ok(graph_create(&g));
    struct network_pass pass = {.theta = graph_input(g, "theta", FLOAT32, SHAPE(network.theta_count)),
                                .images = graph_input(g, "x", FLOAT32, SHAPE(FROZEN, CHANNELS, HEIGHT, WIDTH))};
    struct node *stats = graph_input(g, "stats", FLOAT32, SHAPE(network.stats_count));
    assert_non_null(network_logits(g, &network, &pass, stats, &new_stats));
    graph_output(g, "after", new_stats);
    evaluate(g, BINDINGS({"theta", theta}, {"x", x}, {"stats", before}, {"after", after}));
    graph_destroy(g);
    double off = relative_error(got, after, (int64_t)q);
    if (!(off < 2e-6)) fail_msg("statistics are %.2g off", off);
    /* The first layer's by hand: a convolution of 3 x 3, bordered with zeros. */
    for (int c = 0; c < batch_norm.width; c++) {
        const double *kernel = theta + c * CHANNELS * 9, *bias = theta + batch_norm.width * CHANNELS * 9;
        double sum = 0;
        for (int n = 0; n < FROZEN; n++)
            for (int i = 0; i < HEIGHT; i++)
                for (int j = 0; j < WIDTH; j++) {
                    sum += bias[c];
                    for (int k = 0; k < CHANNELS * 9; k++) {
                        int y = i + k / 3 % 3 - 1, z = j + k % 3 - 1;
                        if (y >= 0 && y < HEIGHT && z >= 0 && z < WIDTH)
                            sum += kernel[k] * x[((n * CHANNELS + k / 9) * HEIGHT + y) * WIDTH + z];
                    }
                }
        assert_true(fabs(got[c] - 0.1 * sum / (FROZEN * HEIGHT * WIDTH)) < 1e-6);
    }
    metrics_finish(&metrics);
    problem.method->destroy(instance);
    set_finish(&set);
    free(theta);
    free(before);
    free(after);
    free(got);
    free(all);
}

/* --- an interrupt --- */
static void ring(int signal) {
    (void)signal;
    interrupt = 1;
}

static void ring_after(double seconds) {
    const struct itimerval timer = {.it_value = {.tv_usec = (suseconds_t)(1e6 * seconds)}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* Training between matches that is interrupted in the middle ends soon, and the step taken again gives the same set. */
static void test_interrupt(void **state) {
    (void)state;
    if (!device) skip();
    struct network network;
    const struct metrics *metrics;
    struct distill *d;
    static float whole[COUNT * PIXELS], again[COUNT * PIXELS];
    struct match_keys keys = dc;
    double seconds = 0;
    bool in_time = false;
    keys.inner = 2000;
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    const struct distill_problem problem = problem_of(&network, "match", &keys, 0);
    void (*former)(int) = signal(SIGALRM, ring);
    assert_ok(distill_create(&problem, &d));
    for (int step = 1; step <= 3; step++) {
        double begun = clock_seconds();
        assert_ok(distill_step(d, &metrics));
        seconds = clock_seconds() - begun;
    }
    assert_ok(distill_read_set(d, whole, NULL, NULL));
    distill_destroy(d);
    /* Other work may hold the process up, so that one of a few tries has to be quick. */
    for (int attempt = 0; attempt < 5 && !in_time; attempt++) {
        assert_ok(distill_create(&problem, &d));
        assert_ok(distill_step(d, &metrics));
        assert_ok(distill_step(d, &metrics));
        double wait = fmin(seconds / 4, 0.5), begun = clock_seconds();
        ring_after(wait);
        assert_int_equal(distill_step(d, &metrics), RETORT_EINTERRUPTED);
        in_time = clock_seconds() - begun < 0.6 * seconds;
        interrupt = 0;
        assert_int_equal(distill_steps_done(d), 2);
        assert_ok(distill_step(d, &metrics));
        assert_ok(distill_read_set(d, again, NULL, NULL));
        assert_memory_equal(whole, again, sizeof whole);
        distill_destroy(d);
    }
    signal(SIGALRM, former);
    assert_true(in_time);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_training),  cmocka_unit_test(test_table),       cmocka_unit_test(test_loops),
        cmocka_unit_test(test_loss_rule), cmocka_unit_test(test_most_epochs), cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_interrupt),
    };
    return cmocka_run_group_tests_name("match_training", tests, prepare, clean_libraries);
}
