/* The meta-gradient of a set of coefficients, end to end: what the device leaves after a step of back-propagation
 * through the inner training, by coefficients, against the chain through decoding, unrolled steps and meta-loss as one
 * graph in double precision, and that against central differences of the whole loss. The images of coefficients are
 * here made by the definition of the DCT, from the list of places alone. */
#include "graphs.h"
#include "methods.h"
#include "test.h"

#include "device/fft.h"
#include "distill/bptt.h"
#include "distill/distill.h"
#include "distill/frequency.h"
#include "distill/method.h"
#include "optimizer/optimizer.h"
#include "transform/transform.h"
#include "unroll/unroll.h"

#include <stdio.h>
#include <stdlib.h>

/* The device rounds to single precision; observed are 2e-7 to 5e-7. */
#define TOLERANCE 5e-6
/* Central differences in double, whose error is of second order in the step; observed are 1e-9 to 1e-8. */
#define DIFFERENCE_STEP      1e-4
#define DIFFERENCE_TOLERANCE 1e-7

enum { CLASSES = 2, CHANNELS = 2, HEIGHT = 6, WIDTH = 5, PLANE = HEIGHT * WIDTH, PIXELS = CHANNELS * PLANE, IPC = 3 };
enum { COUNT = CLASSES * IPC, PLANES = COUNT * CHANNELS, KEPT = PLANE / IPC, COEFFICIENTS = PLANES * KEPT };
enum { PER_CLASS = 2, BATCH = CLASSES * PER_CLASS, TRAIN = 24, REAL = 7, MOST_STEPS = 5 };

static float train_images[TRAIN * PIXELS];
static int32_t train_labels[TRAIN];
static int64_t class_rows[TRAIN], class_begin[CLASSES + 1] = {0, TRAIN / 2, TRAIN};
static char ant[] = "ant", bee[] = "bee", *class_names[] = {ant, bee};
static const struct dataset train = {.count = TRAIN,
                                     .channels = CHANNELS,
                                     .height = HEIGHT,
                                     .width = WIDTH,
                                     .classes = CLASSES,
                                     .images = train_images,
                                     .labels = train_labels,
                                     .class_names = class_names,
                                     .class_rows = class_rows,
                                     .class_begin = class_begin};

/* Real images whose classes vary in places of their own, so that those that are held differ from class to class. */
static int prepare(void **state) {
    (void)state;
    struct random random = random_begin(5, RANDOM_TEST, 0);
    for (int i = 0; i < TRAIN; i++) {
        train_labels[i] = i / (TRAIN / CLASSES);
        class_rows[i] = i;
        for (int c = 0; c < CHANNELS; c++) {
            double spectrum[PLANE], image[PLANE];
            for (int k = 0; k < PLANE; k++)
                spectrum[k] = random_normal(&random) * ((k + train_labels[i] + c) % 3 == 0 ? 1 : 0.3);
            dct_plane(spectrum, HEIGHT, WIDTH, true, image);
            for (int k = 0; k < PLANE; k++) train_images[i * PIXELS + c * PLANE + k] = (float)image[k];
        }
    }
    libraries_begin(TEST_DEVICE);
    return 0;
}

/* --- a case --- */
struct problem {
    struct network network;
    struct bptt_spec method;
    struct distill_problem distill;
};

static void problem_init(const struct network_spec *network, const struct optimizer_spec *optimizer, int steps,
                         int window, int family, enum dct_way way, struct problem *p) {
    *p = (struct problem){.method = {.window = window, .truncation = TRUNCATION_FIXED, .hessian = HESSIAN_EXACT}};
    assert_ok(network_describe(network, CHANNELS, HEIGHT, WIDTH, CLASSES, &p->network));
    const struct method *bptt = method_at(0);
    for (int i = 0; strcmp(bptt->name, "bptt") != 0; i++) assert_non_null(bptt = method_at(i));
    p->distill = (struct distill_problem){
        .library = libraries[family],
        .train = &train,
        .network = &p->network,
        .inner = {.steps = steps, .optimizer = *optimizer, .batch_per_class = PER_CLASS},
        .set = {.ipc = IPC, .init = SET_REAL, .parameters = PARAMETERS_FREQUENCY, .budget = 1},
        .outer = {.steps = 10, .optimizer = OPTIMIZER_SGD, .lr = 1, .real_batch = REAL, .meta_batch = 1},
        .method = bptt,
        .method_spec = &p->method,
        .dct = way,
        .seed = 11};
}

/* What a step draws: weights, the rows of inner steps, real images. */
struct draws {
    double *theta, rows[MOST_STEPS * BATCH], real[REAL * PIXELS], labels[REAL];
};

static void draw(const struct problem *p, int step, struct draws *draws) {
    const struct distill_problem *d = &p->distill;
    const struct unroll_spec spec = {.network = &p->network};
    const uint64_t seed = distill_seed(d->seed, RANDOM_WEIGHTS, step);
    const int64_t count = p->network.theta_count;
    float *theta = calloc((size_t)count, sizeof *theta), real[REAL * PIXELS];
    int32_t rows[BATCH], labels[REAL];
    struct unroll *unroll;
    assert_ok(unroll_create(d->library, &spec, &unroll));
    assert_ok(unroll_begin(unroll, &seed));
    assert_ok(unroll_read_theta(unroll, theta));
    unroll_destroy(unroll);
    draws->theta = calloc((size_t)count, sizeof *draws->theta);
    for (int64_t i = 0; i < count; i++) draws->theta[i] = theta[i];
    struct random random = random_begin(d->seed, RANDOM_INNER_BATCH, (uint32_t)step);
    for (int t = 0; t < d->inner.steps; t++) {
        assert_ok(rows_draw(&random, CLASSES, IPC, CLASSES, PER_CLASS, rows));
        for (int i = 0; i < BATCH; i++) draws->rows[t * BATCH + i] = rows[i];
    }
    random = random_begin(d->seed, RANDOM_REAL_BATCH, (uint32_t)step);
    assert_ok(dataset_draw(&train, &random, REAL, real, labels));
    for (int i = 0; i < REAL * PIXELS; i++) draws->real[i] = real[i];
    for (int i = 0; i < REAL; i++) draws->labels[i] = labels[i];
    free(theta);
}

/* --- in double precision --- */
/* How each plane's coefficients [KEPT] become its pixels [PLANE]. */
static void decoding_of(const struct set *set, double *decoding) {
    int64_t count;
    const int32_t *positions = frequency_positions(set->frequency, &count);
    assert_int_equal(count, CLASSES * CHANNELS * KEPT);
    for (int plane = 0; plane < PLANES; plane++)
        for (int i = 0; i < KEPT; i++) {
            const int32_t position = positions[(plane / CHANNELS / IPC * CHANNELS + plane % CHANNELS) * KEPT + i];
            const int u = position % HEIGHT, v = position / HEIGHT;
            for (int k = 0; k < PLANE; k++)
                decoding[(plane * KEPT + i) * PLANE + k] =
                    dct_cosine(HEIGHT, u, k / WIDTH) * dct_cosine(WIDTH, v, k % WIDTH);
        }
}

static struct node *decode(struct node *coefficients, struct node *decoding) {
    struct node *rows = node_reshape(coefficients, SHAPE(PLANES, 1, KEPT));
    return node_reshape(node_matmul(rows, decoding, false, false), SHAPE(COUNT, CHANNELS, HEIGHT, WIDTH));
}

/* The loss of the real images after all steps. Steps before the window train on the images of `held`, those in it on
 * the images of `coefficients`: the derivative by these is what truncation leaves, and has differences that fit. */
static struct graph *loss_graph(const struct problem *p, bool derivative) {
    const struct inner_spec *inner = &p->distill.inner;
    struct graph *g;
    struct node *state[OPTIMIZER_MAX_STATE], *next[OPTIMIZER_MAX_STATE], *gradient;
    assert_ok(graph_create(&g));
    struct node *decoding = graph_input(g, "decoding", FLOAT32, SHAPE(PLANES, KEPT, PLANE));
    struct node *coefficients = graph_input(g, "coefficients", FLOAT32, SHAPE(COEFFICIENTS));
    struct node *held = decode(graph_input(g, "held", FLOAT32, SHAPE(COEFFICIENTS)), decoding);
    struct node *moved = decode(coefficients, decoding);
    struct node *theta = graph_input(g, "theta", FLOAT32, SHAPE(p->network.theta_count));
    struct node *all_rows = graph_input(g, "rows", INT32, SHAPE(inner->steps, BATCH));
    struct node *classes = node_reshape(graph_iota(g, SHAPE(CLASSES, IPC), 0), SHAPE(COUNT));
    const int states = optimizer_state_count(&inner->optimizer);
    for (int i = 0; i < states; i++) state[i] = graph_constant(g, 0, SHAPE(p->network.theta_count));
    for (int t = 0; t < inner->steps; t++) {
        const int64_t start[] = {t, 0}, step[] = {1, 1};
        struct node *rows = node_reshape(node_slice(all_rows, start, step, SHAPE(1, BATCH)), SHAPE(BATCH));
        struct node *images = t < inner->steps - p->method.window ? held : moved, *scalars[OPTIMIZER_SCALARS];
        const struct network_pass pass = {.theta = theta, .images = node_gather_rows(images, rows)};
        struct node *loss =
            loss_hard(g, network_logits(g, &p->network, &pass, NULL, NULL), node_gather_rows(classes, rows));
        assert_ok(graph_status(g));
        assert_ok(transform_vjp(loss, NULL, &theta, 1, &gradient));
        float row[OPTIMIZER_SCALARS];
        optimizer_scalars(&inner->optimizer, inner->optimizer.lr, t + 1, row);
        for (int i = 0; i < OPTIMIZER_SCALARS; i++) scalars[i] = graph_constant(g, (double)row[i], SHAPE(1));
        optimizer_update(g, &inner->optimizer, node_concat(scalars, OPTIMIZER_SCALARS, 0), theta, state, gradient,
                         &theta, next);
        memcpy(state, next, sizeof state);
    }
    const struct network_pass pass = {.theta = theta,
                                      .images = graph_input(g, "real", FLOAT32, SHAPE(REAL, CHANNELS, HEIGHT, WIDTH))};
    struct node *labels = graph_input(g, "labels", INT32, SHAPE(REAL));
    struct node *loss = loss_hard(g, network_logits(g, &p->network, &pass, NULL, NULL), labels);
    graph_output(g, "loss", loss);
    assert_ok(graph_status(g));
    if (derivative) {
        assert_ok(transform_vjp(loss, NULL, &coefficients, 1, &gradient));
        graph_output(g, "gradient", gradient);
    }
    return g;
}

static double loss_of(const struct graph *g, struct draws *draws, double *decoding, double *held, double *coefficients,
                      double *gradient) {
    double loss;
    evaluate(g, BINDINGS({"theta", draws->theta}, {"rows", draws->rows}, {"real", draws->real},
                         {"labels", draws->labels}, {"decoding", decoding}, {"held", held},
                         {"coefficients", coefficients}, {"loss", &loss}, {"gradient", gradient}));
    return loss;
}

/* Differences of the loss by every so many coefficients. */
static void expect_differences(const struct problem *p, struct draws *draws, double *decoding, double *stored,
                               const double *gradient) {
    enum { EVERY = 5, CHECKED = COEFFICIENTS / EVERY };
    struct graph *g = loss_graph(p, false);
    double moved[COEFFICIENTS], found[CHECKED], wanted[CHECKED];
    memcpy(moved, stored, sizeof moved);
    for (int i = 0; i < CHECKED; i++) {
        double losses[2];
        for (int side = 0; side < 2; side++) {
            moved[i * EVERY] = stored[i * EVERY] + (side ? DIFFERENCE_STEP : -DIFFERENCE_STEP);
            losses[side] = loss_of(g, draws, decoding, stored, moved, NULL);
        }
        moved[i * EVERY] = stored[i * EVERY];
        found[i] = (losses[1] - losses[0]) / (2 * DIFFERENCE_STEP);
        wanted[i] = gradient[i * EVERY];
    }
    double off = relative_error(found, wanted, CHECKED);
    if (!(off < DIFFERENCE_TOLERANCE)) fail_msg("differences of the loss are %.2g off the derivative", off);
    graph_destroy(g);
}

/* A step on the device, the chain and the differences in double. */
static void expect_gradient(const struct network_spec *network, const struct optimizer_spec *optimizer, int steps,
                            int window, int family, enum dct_way way) {
    struct problem p;
    struct set set;
    struct draws draws;
    struct metrics metrics = {0};
    void *instance;
    static double decoding[PLANES * KEPT * PLANE];
    double stored[COEFFICIENTS], gradient[COEFFICIENTS], got[COEFFICIENTS];
    problem_init(network, optimizer, steps, window, family, way, &p);
    assert_ok(set_begin(&p.distill, &set));
    assert_int_equal(set_dct(&set), way);
    assert_int_equal(set.variables[SET_STORED].count, COEFFICIENTS);
    assert_ok(p.distill.method->create(&p.distill, &set, &instance));
    assert_ok(set_decode(&set));
    assert_ok(p.distill.method->step(instance, (struct turn){3, 0, 3}, &metrics));
    assert_ok(set_pull(&set));
    for (int i = 0; i < COEFFICIENTS; i++) stored[i] = set.stored[i], got[i] = set.variables[SET_STORED].gradient[i];
    decoding_of(&set, decoding);
    draw(&p, 3, &draws);
    struct graph *g = loss_graph(&p, true);
    double loss = loss_of(g, &draws, decoding, stored, stored, gradient);
    graph_destroy(g);
    double loss_off = fabs(metric_number(&metrics, "loss") / loss - 1),
           off = relative_error(got, gradient, COEFFICIENTS);
    if (!(loss_off < TOLERANCE) || !(off < TOLERANCE))
        fail_msg("%d steps, window %d, family %d: loss %.2g off, gradient %.2g", steps, window, family, loss_off, off);
    /* Every plane has its share in it. */
    for (int plane = 0; plane < PLANES; plane++) {
        double largest = 0;
        for (int i = 0; i < KEPT; i++) largest = fmax(largest, fabs(gradient[plane * KEPT + i]));
        assert_true(largest > 1e-5);
    }
    if (family == 0) expect_differences(&p, &draws, decoding, stored, gradient);
    free(draws.theta);
    metrics_finish(&metrics);
    p.distill.method->destroy(instance);
    set_finish(&set);
}

/* Smooth everywhere, so that differences are what derivatives say. */
static const struct network_spec mlp = {
    .kind = NETWORK_MLP, .depth = 1, .width = 5, .activation = ACTIVATION_SWISH, .pool = POOL_AVERAGE};
static const struct network_spec convnet = {.kind = NETWORK_CONVNET,
                                            .depth = 1,
                                            .width = 4,
                                            .norm = NORM_INSTANCE,
                                            .activation = ACTIVATION_SWISH,
                                            .pool = POOL_AVERAGE};
static const struct optimizer_spec momentum = {.kind = OPTIMIZER_SGD, .lr = 0.1, .momentum = 0.8, .weight_decay = 0.01};
static const struct optimizer_spec adam = {
    .kind = OPTIMIZER_ADAM, .lr = 0.02, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-4, .weight_decay = 0.01};

static void test_gradient(void **state) {
    (void)state;
    if (!device) skip();
    for (int family = 0; family < 2; family++) {
        expect_gradient(&mlp, &momentum, 4, 4, family, DCT_MATRIX);
        expect_gradient(&convnet, &adam, MOST_STEPS, 3, family, DCT_MATRIX);
    }
}

static void test_library(void **state) {
    (void)state;
    if (device && !device_fft_library()) print_message("this build has no clFFT\n");
    if (!device || !device_fft_library()) skip();
    expect_gradient(&convnet, &adam, MOST_STEPS, 3, 0, DCT_CLFFT);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradient), cmocka_unit_test(test_library)};
    return cmocka_run_group_tests_name("coefficients", tests, prepare, clean_libraries);
}
