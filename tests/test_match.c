/* Gradient matching (methods match and idc) on the device, through the rows of the method table, against the same loss
 * in one graph evaluated in double precision, and that against another framework; runs that are interrupted, and saved
 * in the middle of an iteration. */
#include "graphs.h"
#include "matching.h"
#include "methods.h"
#include "test.h"

#include "base/augmentation.h"
#include "base/file.h"
#include "distill/distill.h"
#include "distill/gradient_distance.h"
#include "distill/method.h"
#include "distill/tiles.h"
#include "transform/transform.h"
#include "unroll/unroll.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* --- the loss in one graph --- */
enum kind { COSINE, COSINE_NORM, SQUARED, ABSOLUTE };
struct loss {
    enum kind kind;
    double intra, inter;
    bool composed;                   /* the order of IDC's augmentation */
    const struct tiles_shape *tiles; /* NULL: the images are stored */
};
enum { FACTOR = 2, TILES = FACTOR * FACTOR, MOST_IPC = TILES };

/* Images of a class, values of all that is stored. */
static int ipc_of(const struct loss *what) {
    return what->tiles ? TILES : IPC;
}

static int values_of(const struct loss *what) {
    return what->tiles ? CLASSES * PIXELS : COUNT * PIXELS;
}

static struct node *root_of_squares(struct node *x) {
    return node_sqrt(node_sum_all(node_square(x)));
}

/* Row by row, as the definition has it. */
static struct node *distance(enum kind kind, const struct network *net, struct node *g, struct node *h) {
    struct node *sum = NULL;
    for (int i = 0; i < net->parameter_count; i++) {
        const struct network_parameter *parameter = &net->parameters[i];
        bool conv = parameter->shape.rank == 4;
        int64_t rows = parameter->shape.size[0], size = parameter->count / rows;
        if (!conv && (parameter->shape.rank != 2 || kind == SQUARED || kind == ABSOLUTE)) continue;
        for (int64_t r = 0; r < rows; r++) {
            const int64_t start[] = {parameter->offset + r * size}, step[] = {1};
            struct node *x = node_slice(g, start, step, SHAPE(size)), *y = node_slice(h, start, step, SHAPE(size));
            struct node *d = node_subtract(x, y), *one;
            if (kind == SQUARED) {
                one = node_sum_all(node_square(d));
            } else if (kind == ABSOLUTE) {
                one = node_sum_all(node_max(d, node_negate(d)));
            } else {
                struct node *lengths = node_multiply(root_of_squares(x), root_of_squares(y));
                one = node_divide(node_sum_all(node_multiply(x, y)), node_shift(lengths, 1e-6));
                one = node_shift(node_negate(one), 1);
                if (kind == COSINE_NORM) one = node_add(one, root_of_squares(d));
            }
            sum = sum ? node_add(sum, one) : one;
        }
    }
    return sum;
}

/* The gradient by theta of the mean cross-entropy of a class's images: rows of `images`, weighed by targets. */
static struct node *class_gradient(struct graph *g, const struct network *net, struct node *theta, struct node *stats,
                                   struct node *images, const char *side, int c, int64_t count, bool composed) {
    char maps[32], colours[32], targets[32];
    snprintf(maps, sizeof maps, "maps %d", c);
    snprintf(colours, sizeof colours, "colours %d", c);
    snprintf(targets, sizeof targets, "%s targets %d", side, c);
    struct node *m = graph_input(g, maps, FLOAT32, SHAPE(1, 2, 3));
    struct node *k = graph_input(g, colours, FLOAT32, SHAPE(1, COLOUR_SIZE)), *gradient;
    images = composed ? siamese_apply_composed(g, images, m, k) : siamese_apply(g, images, m, k);
    struct network_pass pass = {.theta = theta, .images = images, .stats_in = stats};
    struct node *logits = network_logits(g, net, &pass, NULL, NULL);
    struct node *loss = loss_soft(g, logits, graph_input(g, targets, FLOAT32, SHAPE(count, net->classes)));
    assert_ok(transform_vjp(loss, NULL, &theta, 1, &gradient));
    return gradient;
}

struct inputs {
    double theta[4096], stats[64], set[COUNT * PIXELS];
    double real[CLASSES][MOST_REAL * PIXELS], maps[CLASSES][MAP_SIZE], colours[CLASSES][COLOUR_SIZE];
    double real_targets[CLASSES][MOST_REAL * CLASSES], set_targets[CLASSES][MOST_IPC * CLASSES];
};

static double evaluate_loss(const struct network *net, const struct loss *what, int real, struct inputs *in,
                            double *gradient) {
    char names[CLASSES][5][32];
    struct binding bindings[8 + 5 * CLASSES];
    double loss;
    int bound = 0;
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *theta = graph_input(g, "theta", FLOAT32, SHAPE(net->theta_count)), *sum = NULL, *derivative;
    struct node *stats = net->stats_count ? graph_input(g, "stats", FLOAT32, SHAPE(net->stats_count)) : NULL;
    const int ipc = ipc_of(what);
    struct node *set = graph_input(g, "set", FLOAT32, SHAPE(values_of(what) / PIXELS, CHANNELS, HEIGHT, WIDTH));
    struct node *images = what->tiles ? tiles_images(set, what->tiles) : set, *all[2] = {NULL};
    for (int c = 0; c < CLASSES; c++) {
        const int64_t start[] = {c * ipc, 0, 0, 0}, step[] = {1, 1, 1, 1};
        snprintf(names[c][0], 32, "real %d", c);
        snprintf(names[c][1], 32, "maps %d", c);
        snprintf(names[c][2], 32, "colours %d", c);
        snprintf(names[c][3], 32, "real targets %d", c);
        snprintf(names[c][4], 32, "set targets %d", c);
        double *values[] = {in->real[c], in->maps[c], in->colours[c], in->real_targets[c], in->set_targets[c]};
        for (int i = 0; i < 5; i++) bindings[bound++] = (struct binding){names[c][i], values[i]};
        struct node *x = graph_input(g, names[c][0], FLOAT32, SHAPE(real, CHANNELS, HEIGHT, WIDTH));
        struct node *s = node_slice(images, start, step, SHAPE(ipc, CHANNELS, HEIGHT, WIDTH));
        struct node *own[] = {class_gradient(g, net, theta, stats, x, "real", c, real, what->composed),
                              class_gradient(g, net, theta, stats, s, "set", c, ipc, what->composed)};
        struct node *one = node_scale(distance(what->kind, net, own[0], own[1]), what->intra);
        sum = sum ? node_add(sum, one) : one;
        for (int i = 0; i < 2; i++) all[i] = all[i] ? node_add(all[i], own[i]) : own[i];
    }
    for (int i = 0; i < 2; i++) all[i] = node_scale(all[i], 1.0 / CLASSES);
    if (what->inter != 0) sum = node_add(sum, node_scale(distance(what->kind, net, all[0], all[1]), what->inter));
    assert_ok(transform_vjp(sum, NULL, &set, 1, &derivative));
    graph_output(g, "loss", sum);
    graph_output(g, "gradient", derivative);
    const struct binding others[] = {{"theta", in->theta}, {"stats", in->stats},   {"set", in->set},
                                     {"loss", &loss},      {"gradient", gradient}, {0}};
    memcpy(bindings + bound, others, sizeof others);
    evaluate(g, bindings);
    graph_destroy(g);
    return loss;
}

/* --- the same by another framework: tests/oracle/match-instance, made by make_match_cases.py there --- */
static double case_mean[] = {0.3, -0.2}, case_sd[] = {0.25, 0.5};
static const struct normalisation case_normalisation = {.kind = NORMALISE_MEAN_SD,
                                                        .channels = CHANNELS,
                                                        .height = HEIGHT,
                                                        .width = WIDTH,
                                                        .mean = case_mean,
                                                        .sd = case_sd};
static const struct tiles_shape case_tiles = {CLASSES, CHANNELS, HEIGHT, WIDTH, FACTOR, &case_normalisation};

static void test_oracle(void **state) {
    (void)state;
    static const struct {
        const char *name;
        struct loss loss;
    } cases[] = {{"expect_dc", {COSINE, 1, 0, false}},
                 {"expect_dcc", {COSINE, 0, 1, false}},
                 {"expect_egm", {COSINE_NORM, 1, CLASSES, false}},
                 {"expect_squared", {SQUARED, 1, 0, false}},
                 {"expect_absolute", {ABSOLUTE, 1, 0, false}},
                 {"expect_tiles", {SQUARED, 1, 0, false, &case_tiles}}};
    struct network net;
    struct inputs *in = calloc(1, sizeof *in);
    static double real[CLASSES * REAL * PIXELS], expected[1 + COUNT * PIXELS], gradient[COUNT * PIXELS];
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &net));
    assert_int_equal(read_case("match-instance", "theta0", in->theta, 4096), net.theta_count);
    assert_int_equal(read_case("match-instance", "syn_x", in->set, COUNT * PIXELS), COUNT * PIXELS);
    assert_int_equal(read_case("match-instance", "real_x", real, CLASSES * REAL * PIXELS), CLASSES * REAL * PIXELS);
    assert_int_equal(read_case("match-instance", "maps", in->maps[0], CLASSES * MAP_SIZE), CLASSES * MAP_SIZE);
    assert_int_equal(read_case("match-instance", "colour", in->colours[0], CLASSES * COLOUR_SIZE),
                     CLASSES * COLOUR_SIZE);
    for (int c = 0; c < CLASSES; c++) {
        memcpy(in->real[c], real + c * REAL * PIXELS, REAL * PIXELS * sizeof *real);
        for (int i = 0; i < REAL; i++) in->real_targets[c][i * CLASSES + c] = 1;
        for (int i = 0; i < MOST_IPC; i++) in->set_targets[c][i * CLASSES + c] = 1;
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const int values = values_of(&cases[i].loss);
        if (cases[i].loss.tiles) assert_int_equal(read_case("match-instance", "stored_x", in->set, values), values);
        assert_int_equal(read_case("match-instance", cases[i].name, expected, 1 + values), 1 + values);
        double loss = evaluate_loss(&net, &cases[i].loss, REAL, in, gradient);
        double loss_off = fabs(loss - expected[0]) / expected[0];
        double off = relative_error(gradient, expected + 1, values);
        if (!(loss_off < 1e-10) || !(off < 1e-9))
            fail_msg("%s: loss %.2g off, gradient %.2g", cases[i].name, loss_off, off);
    }
    free(in);
}

/* What a step at these weights draws, and its loss and gradient in double precision. */
static double expected(const struct distill_problem *problem, struct unroll *unroll, const struct loss *what, int real,
                       bool augment, int step, const float *set, double *gradient) {
    const struct network *net = problem->network;
    struct inputs *in = calloc(1, sizeof *in);
    float *state = calloc((size_t)unroll_state_count(unroll), sizeof *state), images[MOST_REAL * PIXELS];
    assert_in_range(net->theta_count, 1, 4096);
    assert_ok(unroll_read_state(unroll, state));
    for (int64_t i = 0; i < net->theta_count; i++) in->theta[i] = (double)state[i];
    for (int64_t i = 0; i < net->stats_count; i++)
        in->stats[i] = (double)state[unroll_state_count(unroll) - net->stats_count + i];
    for (int i = 0; i < values_of(what); i++) in->set[i] = (double)set[i];
    struct random random = random_begin(problem->seed, RANDOM_REAL_BATCH, (uint32_t)step);
    for (int c = 0; c < CLASSES; c++) {
        float map[MAP_SIZE] = {1, 0, 0, 0, 1, 0}, colour[COLOUR_SIZE] = {0, 1, 1, 0, 0, -1, -1};
        int64_t different;
        uint32_t order[MOST_IPC];
        assert_ok(dataset_draw_class(&train, &random, c, real, images, &different));
        if (what->composed) { /* idc draws which images it takes, even where it takes all */
            random_choose(&random, (uint32_t)ipc_of(what), (uint32_t)ipc_of(what), order);
            if (augment) siamese_draw_class_composed(problem->seed, (uint32_t)step, c, HEIGHT, WIDTH, map, colour);
        } else if (augment) {
            siamese_draw_class(problem->seed, (uint32_t)step, c, true, HEIGHT, WIDTH, map, colour);
        }
        for (int i = 0; i < real * PIXELS; i++) in->real[c][i] = (double)images[i];
        for (int i = 0; i < MAP_SIZE; i++) in->maps[c][i] = (double)map[i];
        for (int i = 0; i < COLOUR_SIZE; i++) in->colours[c][i] = (double)colour[i];
        /* loss_soft is the mean over all rows */
        for (int i = 0; i < different; i++) in->real_targets[c][i * CLASSES + c] = (double)real / (double)different;
        for (int i = 0; i < ipc_of(what); i++) in->set_targets[c][i * CLASSES + c] = 1;
    }
    double loss = evaluate_loss(net, what, real, in, gradient);
    free(in);
    free(state);
    return loss;
}

/* Steps of one instance, the set being updated between them. */
static void expect_steps(const struct network_spec *spec, const char *method, const void *keys, const struct loss *what,
                         int real, bool augment, int steps, int family) {
    struct network network;
    struct set set;
    void *instance;
    struct metrics metrics = {0};
    assert_ok(network_describe(spec, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    struct distill_problem problem = problem_of(&network, method, keys, family);
    const int values = values_of(what);
    if (what->tiles) {
        problem.normalisation = what->tiles->normalisation;
        problem.set = (struct set_spec){.ipc = TILES, .parameters = PARAMETERS_TILES, .factor = FACTOR};
    }
    assert_ok(set_begin(&problem, &set));
    assert_ok(problem.method->create(&problem, &set, &instance));
    for (int step = 1; step <= steps; step++) {
        double gradient[COUNT * PIXELS], got[COUNT * PIXELS];
        metrics_clear(&metrics);
        assert_ok(set_decode(&set));
        assert_ok(problem.method->step(instance, (struct turn){step, 0, (uint32_t)step}, &metrics));
        assert_ok(set_pull(&set));
        struct unroll *unroll = (struct unroll *)(uintptr_t)problem.method->unroll(instance);
        double loss = expected(&problem, unroll, what, real, augment, step, set.stored, gradient);
        double loss_off = fabs(metric_number(&metrics, "loss") - loss) / loss;
        for (int i = 0; i < values; i++) got[i] = (double)set.variables[SET_STORED].gradient[i];
        double off = relative_error(got, gradient, values);
        if (getenv("RETORT_TEST_PRINT"))
            print_message("%s step %d: loss %.2g off, gradient %.2g\n", method, step, loss_off, off);
        if (!(loss_off < 3.6e-6) || !(off < 1.5e-5))
            fail_msg("step %d: loss %.2g off, gradient %.2g", step, loss_off, off);
        outer_update(&set.variables[SET_STORED], OPTIMIZER_SGD, 0.5, step);
        problem.method->advance(instance, &metrics);
    }
    metrics_finish(&metrics);
    problem.method->destroy(instance);
    set_finish(&set);
}

static void test_match(void **state) {
    (void)state;
    if (!device) skip();
    for (int family = 0; family < 2; family++) {
        struct match_keys keys = dc;
        expect_steps(&instance_norm, "match", &keys, &(struct loss){COSINE, 1, 0, false}, REAL, false, 4, family);
        keys.augment = true;
        expect_steps(&instance_norm, "match", &keys, &(struct loss){COSINE, 1, 0, false}, REAL, true, 4, family);
        keys = dc;
        keys.intra = 0, keys.inter = 1;
        expect_steps(&instance_norm, "match", &keys, &(struct loss){COSINE, 0, 1, false}, REAL, false, 2, family);
        keys = dc;
        keys.row = 1, keys.inter = -1;
        expect_steps(&instance_norm, "match", &keys, &(struct loss){COSINE_NORM, 1, CLASSES, false}, REAL, false, 2,
                     family);
        keys = dc;
        expect_steps(&batch_norm, "match", &keys, &(struct loss){COSINE, 1, 0, false}, REAL, false, 3, family);
    }
}

/* In the first iteration's first match the means are left out. */
static void test_warmup(void **state) {
    (void)state;
    if (!device) skip();
    const struct match_keys keys = {.inter = 1, .warmup = {1, 3}, .outer = 3, .inner = 2, .real_per_class = REAL};
    expect_steps(&instance_norm, "match", &keys, &(struct loss){COSINE, 1, 0, false}, REAL, false, 3, 0);
}

static void test_idc(void **state) {
    (void)state;
    if (!device) skip();
    for (int family = 0; family < 2; family++) {
        struct idc_keys keys = {.matches = 3,
                                .real_per_class = 5,
                                .set_per_class = 128,
                                .real_images = 64,
                                .networks = 2,
                                .epochs = 1,
                                .cutmix = 0.5,
                                .augment = false};
        const struct loss squared = {SQUARED, 1, 0, true}, absolute = {ABSOLUTE, 1, 0, true};
        const struct loss tiles = {SQUARED, 1, 0, true, &case_tiles};
        expect_steps(&instance_norm, "idc", &keys, &squared, 5, false, 2, family);
        expect_steps(&instance_norm, "idc", &keys, &tiles, 5, false, 2, family);
        keys.models = 1, keys.perturb[0] = 0.01, keys.perturb[1] = 0.09, keys.augment = true, keys.distance = 1;
        expect_steps(&instance_norm, "idc", &keys, &absolute, 5, true, 4, family);
    }
}

/* A memory ceiling splits the batches of all passes; the gradient is the same. */
static void test_parts(void **state) {
    (void)state;
    if (!device) skip();
    struct network network;
    struct set set;
    void *instance = NULL;
    const struct match_keys keys = {
        .row = 1, .intra = 1, .inter = 1, .outer = 2, .inner = 2, .real_per_class = 16, .augment = true, .flip = true};
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    const struct distill_problem problem = problem_of(&network, "match", &keys, 1);
    assert_ok(set_begin(&problem, &set));
    int parts = 1;
    for (uint64_t ceiling = device_bytes(device) + (512 << 10); parts < 3; ceiling -= 4 << 10) {
        struct unroll_plan plan;
        device_set_ceiling(device, ceiling);
        assert_ok(problem.method->create(&problem, &set, &instance));
        unroll_plan(problem.method->unroll(instance), &plan);
        problem.method->destroy(instance);
        parts = plan.meta_splits;
    }
    expect_steps(&instance_norm, "match", &keys, &(struct loss){COSINE_NORM, 1, 1, false}, 16, true, 2, 1);
    device_set_ceiling(device, 0);
    set_finish(&set);
}

/* A row that is zero, of one gradient or of both, as a dead filter leaves it: its derivative is 0, not NaN. */
static void test_zero_rows(void **state) {
    (void)state;
    struct network net;
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &net));
    const int64_t p = net.theta_count, row = net.parameters[0].count / net.parameters[0].shape.size[0];
    double *x = calloc((size_t)p, sizeof *x), *y = calloc((size_t)p, sizeof *y), *a = calloc((size_t)p, sizeof *a);
    struct random random = random_begin(3, RANDOM_TEST, 0);
    fill_normal(&random, x, p, 1);
    fill_normal(&random, y, p, 1);
    for (int64_t i = 0; i < row; i++) x[i] = y[i] = 0, y[row + i] = 0;
    for (int distance = DISTANCE_COSINE; distance <= DISTANCE_COSINE_NORM; distance++) {
        struct graph *g;
        struct node *derivative;
        double loss;
        assert_ok(graph_create(&g));
        struct node *h = graph_input(g, "h", FLOAT32, SHAPE(p));
        struct node *sum =
            gradient_distance((enum gradient_distance)distance, &net, graph_input(g, "g", FLOAT32, SHAPE(p)), h);
        assert_ok(transform_vjp(sum, NULL, &h, 1, &derivative));
        graph_output(g, "loss", sum);
        graph_output(g, "a", derivative);
        evaluate(g, BINDINGS({"g", x}, {"h", y}, {"loss", &loss}, {"a", a}));
        assert_true(isfinite(loss));
        for (int64_t i = 0; i < p; i++) assert_true(isfinite(a[i]));
        for (int64_t i = 0; i < row; i++) assert_true(a[i] == 0);
        /* Beside a row of g that is not zero, h's has the slope of the product: -g / 1e-6, and that of the length. */
        double expected[64], off;
        double squares = 0;
        for (int64_t i = 0; i < row; i++) squares += x[row + i] * x[row + i];
        for (int64_t i = 0; i < row; i++)
            expected[i] = -x[row + i] / 1e-6 - (distance == DISTANCE_COSINE_NORM ? x[row + i] / sqrt(squares) : 0);
        off = relative_error(a + row, expected, row);
        if (!(off < 1e-12)) fail_msg("a zero row's derivative is %.2g off", off);
        graph_destroy(g);
    }
    free(x);
    free(y);
    free(a);
}

/* --- runs --- */
/* The set after `steps` steps, interrupted before step `cut` (0: never) inside of the step, then saved and loaded. */
static void run(const char *method, const void *keys, int meta_batch, int steps, int cut, float *images) {
    struct network network;
    struct distill *d;
    const struct metrics *metrics;
    char path[] = "/tmp/test_match_XXXXXX";
    int32_t labels[COUNT];
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    struct distill_problem problem = problem_of(&network, method, keys, 0);
    problem.outer.meta_batch = meta_batch;
    int file = mkstemp(path);
    assert_true(file >= 0);
    close(file);
    assert_ok(distill_create(&problem, &d));
    for (int step = 1; step <= steps; step++) {
        if (step == cut) {
            interrupt = 1;
            assert_int_equal(distill_step(d, &metrics), RETORT_EINTERRUPTED);
            interrupt = 0;
            assert_ok(distill_save(d, path));
            distill_destroy(d);
            assert_ok(distill_create(&problem, &d));
            assert_ok(distill_load(d, path));
            assert_int_equal(distill_steps_done(d), step - 1);
        }
        assert_ok(distill_step(d, &metrics));
    }
    assert_ok(distill_read_set(d, images, NULL, labels));
    distill_destroy(d);
    unlink(path);
}

static void test_runs(void **state) {
    (void)state;
    if (!device) skip();
    static float whole[COUNT * PIXELS], again[COUNT * PIXELS];
    struct match_keys match = dc;
    match.augment = true, match.inter = 1;
    struct idc_keys idc = {.matches = 3,
                           .real_per_class = 5,
                           .set_per_class = 2,
                           .real_images = 64,
                           .models = 1,
                           .networks = 2,
                           .epochs = 1,
                           .perturb = {0.01, 0.09},
                           .cutmix = 0.5,
                           .augment = true};
    for (int method = 0; method < 2; method++)
        for (int meta_batch = 1; meta_batch <= 2; meta_batch++) {
            const char *name = method ? "idc" : "match";
            const void *keys = method ? (const void *)&idc : &match;
            run(name, keys, meta_batch, 5, 0, whole);
            for (int cut = 2; cut <= 4; cut++) {
                run(name, keys, meta_batch, 5, cut, again);
                if (memcmp(whole, again, sizeof whole)) fail_msg("%s: cut before step %d the set differs", name, cut);
            }
        }
}

/* A forecast counts the training of early networks without taking it, which would take hours here. */
static void test_forecast(void **state) {
    (void)state;
    if (!device) skip();
    struct network network;
    double seconds[2];
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    for (int early = 0; early < 2; early++) {
        const struct idc_keys keys = {.matches = 3,
                                      .real_per_class = 5,
                                      .set_per_class = 9,
                                      .real_images = 64,
                                      .models = early,
                                      .networks = 5,
                                      .epochs = 10000000};
        const struct distill_problem problem = problem_of(&network, "idc", &keys, 0);
        struct distill *d;
        assert_ok(distill_create(&problem, &d));
        assert_ok(distill_forecast(d, 0.2, &seconds[early]));
        distill_destroy(d);
    }
    double by_epochs[2];
    for (int longer = 0; longer < 2; longer++) {
        struct match_keys keys = dc;
        struct distill *d;
        keys.inner = longer ? 1000000 : 1;
        const struct distill_problem problem = problem_of(&network, "match", &keys, 0);
        assert_ok(distill_create(&problem, &d));
        assert_ok(distill_forecast(d, 0.2, &by_epochs[longer]));
        distill_destroy(d);
    }
    /* Two of three matches come after an epoch, or after a million; one takes longer than a microsecond. */
    assert_true(by_epochs[0] < 10 && by_epochs[1] > 0.6);
    /* An epoch is one chunk here. One of them takes longer than a microsecond, and less than some steps. */
    assert_true(seconds[0] > 1e-6 && seconds[0] < 10);
    assert_true(seconds[1] > 50e6 / 10 * 1e-6 && seconds[1] < 50e6 / 10 * 10);
}

static void test_refusals(void **state) {
    (void)state;
    struct network network;
    struct distill *d;
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    struct match_keys match = dc;
    match.outer = 0;
    struct distill_problem problem = problem_of(&network, "match", &match, 0);
    assert_int_equal(distill_create(&problem, &d), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "not for 3; give method.outer"));
    match = dc;
    match.intra = 0;
    assert_int_equal(distill_create(&problem, &d), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "neither classes nor their means"));
    struct idc_keys idc = {.matches = 3, .real_per_class = 5, .set_per_class = 2, .real_images = 80};
    problem = problem_of(&network, "idc", &idc, 0);
    assert_int_equal(distill_create(&problem, &d), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "the training data has only 70 images"));
    idc.real_images = 63;
    assert_int_equal(distill_create(&problem, &d), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "expected 64 or more"));
    idc.real_images = 64, idc.perturb[0] = 0.1;
    assert_int_equal(distill_create(&problem, &d), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "is more than the most"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_oracle), cmocka_unit_test(test_match),     cmocka_unit_test(test_warmup),
        cmocka_unit_test(test_idc),    cmocka_unit_test(test_zero_rows), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_runs),   cmocka_unit_test(test_refusals),  cmocka_unit_test(test_forecast),
    };
    return cmocka_run_group_tests_name("match", tests, prepare, clean_libraries);
}
