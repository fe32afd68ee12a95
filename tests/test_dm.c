/* Distribution matching on the device, through the row of the method table, against the same loss in one graph
 * evaluated in double precision: the one that test_oracle compares with cases of another framework. */
#include "graphs.h"
#include "methods.h"
#include "test.h"

#include "base/augmentation.h"
#include "distill/distill.h"
#include "distill/frequency.h"
#include "distill/method.h"
#include "transform/transform.h"
#include "unroll/unroll.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CLASSES = 3, CHANNELS = 2, HEIGHT = 8, WIDTH = 7, PIXELS = CHANNELS * HEIGHT * WIDTH, IPC = 2 };
enum { COUNT = CLASSES * IPC, TRAIN = 17, PER_CLASS = 6 };

/* What the method's keys say: the beginning of its own struct (dm.c). */
struct dm_keys {
    int real_per_class;
    bool augment, flip;
};

TRAIN_OF(TRAIN, CHANNELS, HEIGHT, WIDTH, 0, 6, 13, TRAIN); /* 6, 7 and 4 images */

static int prepare(void **state) {
    (void)state;
    dataset_fill(&train);
    libraries_begin("cpu");
    return 0;
}

static struct distill_problem problem_of(const struct network *network, const struct dm_keys *keys, int family) {
    return (struct distill_problem){.library = libraries[family],
                                    .train = &train,
                                    .network = network,
                                    .inner = {.optimizer = {.lr = 1e-3}},
                                    .set = {.ipc = IPC, .init = SET_NOISE},
                                    .outer = {.steps = 10, .optimizer = OPTIMIZER_SGD, .lr = 1, .momentum = 0.5},
                                    .method = method_named("dm"),
                                    .method_spec = keys,
                                    .seed = 11};
}

/* The weights that the method draws in a step. A ceiling is the method's, not for what draws them once more. */
static void weights_of(const struct distill_problem *problem, int step, float *theta) {
    const struct unroll_spec spec = {.network = problem->network};
    const uint64_t ceiling = device_ceiling(device);
    struct unroll *unroll;
    device_set_ceiling(device, 0);
    assert_ok(unroll_create(problem->library, &spec, &unroll));
    const uint64_t seed = distill_seed(problem->seed, RANDOM_WEIGHTS, step);
    assert_ok(unroll_begin(unroll, &seed));
    assert_ok(unroll_read_theta(unroll, theta));
    unroll_destroy(unroll);
    device_set_ceiling(device, ceiling);
}

/* The real images that it draws, class by class, `counts` of each. */
static void images_of(const struct distill_problem *problem, int step, int per_class, float *images, int64_t *counts) {
    struct random random = random_begin(problem->seed, RANDOM_REAL_BATCH, (uint32_t)step);
    for (int c = 0; c < CLASSES; c++)
        assert_ok(dataset_draw_class(&train, &random, c, per_class, images + c * per_class * PIXELS, &counts[c]));
}

/* Mean features of each class [K,F]: rows weighted by shares [N,K]. */
static struct node *means(struct graph *g, const struct network *net, struct node *theta, struct node *images,
                          const char *name, int64_t count) {
    char maps[32], colours[32], shares[32];
    snprintf(maps, sizeof maps, "%s maps", name);
    snprintf(colours, sizeof colours, "%s colours", name);
    snprintf(shares, sizeof shares, "%s shares", name);
    images = siamese_apply(g, images, graph_input(g, maps, FLOAT32, SHAPE(count, 2, 3)),
                           graph_input(g, colours, FLOAT32, SHAPE(count, COLOUR_SIZE)));
    struct node *features = network_features(g, net, &(struct network_pass){.theta = theta, .images = images});
    return node_matmul(graph_input(g, shares, FLOAT32, SHAPE(count, CLASSES)), features, true, false);
}

struct rows {
    double *images, *maps, *colours, *shares;
};

static struct rows rows_of(const struct distill_problem *problem, const struct dm_keys *keys, int step,
                           const float *images, int64_t count, int per_class, const int64_t *counts) {
    struct rows rows = {
        calloc((size_t)(count * PIXELS), sizeof(double)), calloc((size_t)count * MAP_SIZE, sizeof(double)),
        calloc((size_t)count * COLOUR_SIZE, sizeof(double)), calloc((size_t)count * CLASSES, sizeof(double))};
    for (int64_t i = 0; i < count * PIXELS; i++) rows.images[i] = images[i];
    for (int64_t i = 0; i < count; i++) {
        int c = (int)(i / per_class);
        float map[MAP_SIZE], colour[COLOUR_SIZE];
        siamese_draw_class(problem->seed, (uint32_t)step, c, keys->flip, HEIGHT, WIDTH, map, colour);
        for (int k = 0; k < MAP_SIZE; k++) rows.maps[i * MAP_SIZE + k] = keys->augment ? map[k] : k % 4 == 0;
        for (int k = 0; k < COLOUR_SIZE; k++)
            rows.colours[i * COLOUR_SIZE + k] =
                keys->augment ? colour[k] : k == COLOUR_SATURATION || k == COLOUR_CONTRAST;
        if (i % per_class < counts[c]) rows.shares[i * CLASSES + c] = 1 / (double)counts[c];
    }
    return rows;
}

static void rows_finish(struct rows *rows) {
    free(rows->images);
    free(rows->maps);
    free(rows->colours);
    free(rows->shares);
}

/* Loss and gradient of a step in double precision. */
static double expected(const struct distill_problem *problem, const struct dm_keys *keys, int step, const float *set,
                       double *gradient) {
    const struct network *net = problem->network;
    const int64_t real_count = CLASSES * keys->real_per_class, set_counts[CLASSES] = {IPC, IPC, IPC};
    float *theta = calloc((size_t)net->theta_count, sizeof *theta);
    float *real = calloc((size_t)(real_count * PIXELS), sizeof *real);
    double *weights = calloc((size_t)net->theta_count, sizeof *weights), loss;
    int64_t counts[CLASSES];
    weights_of(problem, step, theta);
    for (int64_t i = 0; i < net->theta_count; i++) weights[i] = theta[i];
    images_of(problem, step, keys->real_per_class, real, counts);
    struct rows x = rows_of(problem, keys, step, real, real_count, keys->real_per_class, counts);
    struct rows s = rows_of(problem, keys, step, set, COUNT, IPC, set_counts);
    struct graph *g;
    struct node *derivative;
    assert_ok(graph_create(&g));
    struct node *t = graph_input(g, "theta", FLOAT32, SHAPE(net->theta_count));
    struct node *real_images = graph_input(g, "real", FLOAT32, SHAPE(real_count, CHANNELS, HEIGHT, WIDTH));
    struct node *set_images = graph_input(g, "set", FLOAT32, SHAPE(COUNT, CHANNELS, HEIGHT, WIDTH));
    struct node *difference =
        node_subtract(means(g, net, t, real_images, "real", real_count), means(g, net, t, set_images, "set", COUNT));
    struct node *sum = node_sum_all(node_square(difference));
    assert_ok(transform_vjp(sum, NULL, &set_images, 1, &derivative));
    graph_output(g, "loss", sum);
    graph_output(g, "gradient", derivative);
    assert_ok(graph_status(g));
    evaluate(g,
             BINDINGS({"theta", weights}, {"real", x.images}, {"set", s.images}, {"real maps", x.maps},
                      {"real colours", x.colours}, {"real shares", x.shares}, {"set maps", s.maps},
                      {"set colours", s.colours}, {"set shares", s.shares}, {"loss", &loss}, {"gradient", gradient}));
    graph_destroy(g);
    rows_finish(&x);
    rows_finish(&s);
    free(theta);
    free(real);
    free(weights);
    return loss;
}

/* Where coefficient i of plane `plane` of the set lies in its spectrum [H,W]. */
static int place_of(const struct set *set, int plane, int i) {
    const int kept = (int)set->stored_size / CHANNELS;
    int64_t count;
    const int32_t *positions = frequency_positions(set->frequency, &count);
    int32_t position = positions[(plane / CHANNELS / IPC * CHANNELS + plane % CHANNELS) * kept + i];
    return position % HEIGHT * WIDTH + position / HEIGHT;
}

/* The images of what a set stores, and a gradient by images as one by what it stores, in double precision. */
static void expected_images(const struct set *set, float *images) {
    const int kept = (int)set->stored_size / CHANNELS;
    for (int plane = 0; plane < COUNT * CHANNELS; plane++) {
        double spectrum[HEIGHT * WIDTH] = {0}, image[HEIGHT * WIDTH];
        for (int i = 0; i < kept; i++) spectrum[place_of(set, plane, i)] = set->stored[plane * kept + i];
        dct_plane(spectrum, HEIGHT, WIDTH, true, image);
        for (int k = 0; k < HEIGHT * WIDTH; k++) images[plane * HEIGHT * WIDTH + k] = (float)image[k];
    }
}

static void expected_stored(const struct set *set, const double *gradient, double *stored) {
    const int kept = (int)set->stored_size / CHANNELS;
    for (int plane = 0; plane < COUNT * CHANNELS; plane++) {
        double spectrum[HEIGHT * WIDTH];
        dct_plane(gradient + plane * HEIGHT * WIDTH, HEIGHT, WIDTH, false, spectrum);
        for (int i = 0; i < kept; i++) stored[plane * kept + i] = spectrum[place_of(set, plane, i)];
    }
}

/* Six steps, and with them most families of the augmentation, of one instance. */
static void expect_steps(const struct network_spec *spec, const struct dm_keys *keys, int family) {
    struct network network;
    struct set set;
    void *instance;
    struct metrics metrics = {0};
    assert_ok(network_describe(spec, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    const struct distill_problem problem = problem_of(&network, keys, family);
    assert_ok(set_begin(&problem, &set));
    assert_ok(problem.method->create(&problem, &set, &instance));
    for (int step = 1; step <= 6; step++) {
        double gradient[COUNT * PIXELS], got[COUNT * PIXELS];
        metrics_clear(&metrics);
        assert_ok(problem.method->step(instance, (struct turn){step, 0, (uint32_t)step}, &metrics));
        double loss = expected(&problem, keys, step, set.stored, gradient);
        double loss_off = fabs(metric_number(&metrics, "loss") - loss) / loss;
        for (int i = 0; i < COUNT * PIXELS; i++) got[i] = set.variables[SET_STORED].gradient[i];
        double off = relative_error(got, gradient, COUNT * PIXELS);
        if (!(loss_off < 5e-6) || !(off < 2e-5)) fail_msg("step %d: loss %.2g off, gradient %.2g", step, loss_off, off);
    }
    metrics_finish(&metrics);
    problem.method->destroy(instance);
    set_finish(&set);
}

/* The same of a set of coefficients, half of them: the gradient by those, through the decoding. */
static void expect_frequency(const struct network_spec *spec, const struct dm_keys *keys, int family) {
    struct network network;
    struct set set;
    void *instance;
    struct metrics metrics = {0};
    assert_ok(network_describe(spec, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    struct distill_problem problem = problem_of(&network, keys, family);
    problem.set = (struct set_spec){.ipc = IPC, .init = SET_REAL, .parameters = PARAMETERS_FREQUENCY, .budget = 1};
    assert_ok(set_begin(&problem, &set));
    assert_ok(problem.method->create(&problem, &set, &instance));
    for (int step = 1; step <= 3; step++) {
        double by_images[COUNT * PIXELS], gradient[COUNT * PIXELS], got[COUNT * PIXELS];
        float images[COUNT * PIXELS];
        const int64_t count = set.variables[SET_STORED].count;
        assert_int_equal(count, COUNT * PIXELS / 2);
        metrics_clear(&metrics);
        assert_ok(set_decode(&set));
        assert_ok(problem.method->step(instance, (struct turn){step, 0, (uint32_t)step}, &metrics));
        assert_ok(set_pull(&set));
        expected_images(&set, images);
        double loss = expected(&problem, keys, step, images, by_images);
        double loss_off = fabs(metric_number(&metrics, "loss") - loss) / loss;
        expected_stored(&set, by_images, gradient);
        for (int64_t i = 0; i < count; i++) got[i] = set.variables[SET_STORED].gradient[i];
        double off = relative_error(got, gradient, count);
        if (!(loss_off < 5e-6) || !(off < 2e-5)) fail_msg("step %d: loss %.2g off, gradient %.2g", step, loss_off, off);
    }
    metrics_finish(&metrics);
    problem.method->destroy(instance);
    set_finish(&set);
}

static const struct network_spec instance_norm = {
    .kind = NETWORK_CONVNET, .depth = 2, .width = 5, .norm = NORM_INSTANCE, .activation = ACTIVATION_SWISH};
static const struct network_spec batch_norm = {
    .kind = NETWORK_CONVNET, .depth = 2, .width = 5, .norm = NORM_BATCH, .activation = ACTIVATION_SWISH};

static void test_gradient(void **state) {
    (void)state;
    if (!device) skip();
    for (int family = 0; family < 2; family++) {
        expect_steps(&instance_norm, &(struct dm_keys){PER_CLASS, true, true}, family); /* one class has only 4 */
        expect_steps(&instance_norm, &(struct dm_keys){3, true, false}, family);
        expect_steps(&instance_norm, &(struct dm_keys){4, false, true}, family);
        expect_steps(&batch_norm, &(struct dm_keys){PER_CLASS, true, true}, family);
    }
}

static void test_frequency(void **state) {
    (void)state;
    if (!device) skip();
    for (int family = 0; family < 2; family++)
        expect_frequency(&instance_norm, &(struct dm_keys){PER_CLASS, true, true}, family);
}

/* A memory ceiling splits the batches of all passes; the gradient is the same. Under batch norm it is refused. */
static void test_parts(void **state) {
    (void)state;
    if (!device) skip();
    struct network network;
    struct set set;
    void *instance = NULL;
    const struct dm_keys keys = {PER_CLASS, true, true};
    assert_ok(network_describe(&instance_norm, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    const struct distill_problem problem = problem_of(&network, &keys, 1);
    assert_ok(set_begin(&problem, &set));
    int parts = 1;
    for (uint64_t ceiling = device_bytes(device) + (256 << 10); parts < 3; ceiling -= 2 << 10) {
        struct unroll_plan plan;
        device_set_ceiling(device, ceiling);
        assert_ok(problem.method->create(&problem, &set, &instance));
        unroll_plan(problem.method->unroll(instance), &plan);
        problem.method->destroy(instance);
        parts = plan.meta_splits;
    }
    expect_steps(&instance_norm, &keys, 1);
    device_set_ceiling(device, 1 << 12);
    assert_int_equal(problem.method->create(&problem, &set, &instance), RETORT_ELIMIT);
    device_set_ceiling(device, 0);
    set_finish(&set);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_gradient), cmocka_unit_test(test_frequency),
                                       cmocka_unit_test(test_parts)};
    return cmocka_run_group_tests_name("dm", tests, prepare, clean_libraries);
}
