/* Sets that are stored as coefficients of a DCT: the transform against its definition in double precision, its adjoint
 * against the derivative rules, the choice of coefficients, and what follows from the stored numbers: storage, updates,
 * checkpoints. */
#include "graphs.h"
#include "methods.h"
#include "test.h"

#include "base/file.h"
#include "device/fft.h"
#include "distill/distill.h"
#include "distill/frequency.h"
#include "distill/method.h"
#include "team/team.h"
#include "transform/transform.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int prepare(void **state) {
    (void)state;
    libraries_begin(TEST_DEVICE);
    return 0;
}

static void test_basis(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 5, 7, 28, 32, 224};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int n = sizes[s];
        float *basis = calloc((size_t)(n * n), sizeof *basis);
        dct_basis(n, basis);
        for (int a = 0; a < n; a++)
            for (int b = 0; b < n; b++) {
                double sum = 0;
                assert_true(fabs(basis[a * n + b] - dct_cosine(n, a, b)) < 1e-7);
                for (int i = 0; i < n; i++) sum += (double)basis[a * n + i] * basis[b * n + i];
                assert_true(fabs(sum - (a == b)) < 1e-6);
            }
        free(basis);
    }
}

/* --- the graphs --- */
enum { PLANES = 4, HEIGHT = 7, WIDTH = 5, ELEMENTS = PLANES * HEIGHT * WIDTH, KEPT = 33 };

static void transpose(const double *from, int height, int width, double *to) {
    for (int i = 0; i < height; i++)
        for (int j = 0; j < width; j++) to[j * height + i] = from[i * width + j];
}

/* Images of coefficients at random places, and the derivative by the coefficients, of the rules and of the way back. */
static void test_graph(void **state) {
    (void)state;
    struct random random = random_begin(3, RANDOM_TEST, 0);
    double coefficients[KEPT], places[ELEMENTS], picks[KEPT], seeds[ELEMENTS], images[ELEMENTS], derivative[KEPT];
    double picked[KEPT], down[HEIGHT * HEIGHT], across[WIDTH * WIDTH], spectrum[HEIGHT * WIDTH], want[HEIGHT * WIDTH];
    struct shape shape = SHAPE(2, PLANES / 2, WIDTH, HEIGHT);
    struct graph *g;
    struct node *gradient;
    fill_normal(&random, coefficients, KEPT, 1);
    fill_normal(&random, seeds, ELEMENTS, 1);
    for (int i = 0; i < ELEMENTS; i++) places[i] = KEPT;
    for (int i = 0; i < KEPT; i++) {
        picks[i] = i * 37 % ELEMENTS; /* 37 and 140 have no common divisor */
        places[(int)picks[i]] = i;
    }
    for (int k = 0; k < HEIGHT; k++)
        for (int i = 0; i < HEIGHT; i++) down[k * HEIGHT + i] = dct_cosine(HEIGHT, k, i);
    for (int k = 0; k < WIDTH; k++)
        for (int i = 0; i < WIDTH; i++) across[k * WIDTH + i] = dct_cosine(WIDTH, k, i);
    assert_ok(graph_create(&g));
    struct node *c = graph_input(g, "coefficients", FLOAT32, SHAPE(KEPT));
    struct node *d = graph_input(g, "down", FLOAT32, SHAPE(HEIGHT, HEIGHT));
    struct node *a = graph_input(g, "across", FLOAT32, SHAPE(WIDTH, WIDTH));
    struct node *seed = graph_input(g, "seeds", FLOAT32, SHAPE(2, PLANES / 2, HEIGHT, WIDTH));
    struct node *x = dct_images(frequency_place(c, graph_input(g, "places", INT32, SHAPE(ELEMENTS)), shape), d, a);
    assert_true(x && shape_equal(x->shape, seed->shape));
    assert_ok(transform_vjp(x, seed, &c, 1, &gradient));
    graph_output(g, "images", x);
    graph_output(g, "derivative", gradient);
    graph_output(g, "picked", frequency_pick(dct_spectra(seed, d, a), graph_input(g, "picks", INT32, SHAPE(KEPT))));
    evaluate(g, BINDINGS({"coefficients", coefficients}, {"down", down}, {"across", across}, {"seeds", seeds},
                         {"places", places}, {"picks", picks}, {"images", images}, {"derivative", derivative},
                         {"picked", picked}));
    graph_destroy(g);
    for (int p = 0; p < PLANES; p++) {
        double held[HEIGHT * WIDTH] = {0}, untransposed[HEIGHT * WIDTH];
        for (int i = 0; i < HEIGHT * WIDTH; i++) {
            int place = (int)places[p * HEIGHT * WIDTH + i];
            held[i] = place < KEPT ? coefficients[place] : 0;
        }
        transpose(held, WIDTH, HEIGHT, spectrum);
        dct_plane(spectrum, HEIGHT, WIDTH, true, want);
        assert_true(relative_error(images + p * HEIGHT * WIDTH, want, HEIGHT * WIDTH) < 1e-13);
        dct_plane(want, HEIGHT, WIDTH, false, untransposed);
        assert_true(relative_error(untransposed, spectrum, HEIGHT * WIDTH) < 1e-13);
    }
    assert_true(relative_error(picked, derivative, KEPT) < 1e-13);
}

/* --- on the device --- */
/* Real images of two classes; where the plane's place (row u, column v) is in the class's list its coefficient varies,
 * elsewhere it is what it is. */
struct data {
    struct dataset train;
    int64_t *rows, begin[3];
};

static struct data data_begin(int channels, int height, int width, int count, unsigned varying_every) {
    static char ant[] = "ant", bee[] = "bee", *class_names[] = {ant, bee};
    struct random random = random_begin(8, RANDOM_TEST, 0);
    int64_t plane = (int64_t)height * width, size = channels * plane;
    struct data data = {.train = {.count = 2 * count,
                                  .channels = channels,
                                  .height = height,
                                  .width = width,
                                  .classes = 2,
                                  .class_names = class_names},
                        .begin = {0, count, 2 * count}};
    float *images = calloc((size_t)(2 * count * size), sizeof *images);
    int32_t *labels = calloc((size_t)(2 * count), sizeof *labels);
    double *spectrum = calloc((size_t)plane, sizeof *spectrum), *image = calloc((size_t)plane, sizeof *image);
    data.rows = calloc((size_t)(2 * count), sizeof *data.rows);
    for (int64_t i = 0; i < 2 * count; i++) {
        data.rows[i] = i;
        labels[i] = (int32_t)(i / count);
        for (int c = 0; c < channels; c++) {
            for (int64_t k = 0; k < plane; k++)
                spectrum[k] = 5 + 0.01 * random_normal(&random)
                              + ((k + labels[i] + c) % varying_every == 0 ? random_normal(&random) : 0);
            dct_plane(spectrum, height, width, true, image);
            for (int64_t k = 0; k < plane; k++) images[i * size + c * plane + k] = (float)image[k];
        }
    }
    free(spectrum);
    free(image);
    data.train.images = images;
    data.train.labels = labels;
    return data;
}

static struct dataset *data_get(struct data *data) {
    data->train.class_rows = data->rows;
    data->train.class_begin = data->begin;
    return &data->train;
}

static void data_finish_here(struct data *data) {
    free(data->train.images);
    free(data->train.labels);
    free(data->rows);
}

/* The places are those that vary in the class and channel; both ways are the definition's, to single precision. */
static void expect_device(int channels, int height, int width, int ipc, int count, int every, int family,
                          enum dct_way way) {
    const int plane = height * width, size = channels * plane;
    struct data data = data_begin(channels, height, width, count, (unsigned)every);
    const int kept = (plane - 1) / every; /* one at least may vary that has no room */
    const struct frequency_shape shape = {2, ipc, channels, height, width, kept};
    struct frequency *f;
    int64_t position_count;
    assert_ok(frequency_create(libraries[family], &shape, data_get(&data), way, false, &f));
    assert_int_equal(frequency_dct(f), way);
    const int32_t *positions = frequency_positions(f, &position_count);
    assert_int_equal(position_count, 2 * channels * kept);
    struct random random = random_begin(9, RANDOM_TEST, 0);
    float *coefficients = calloc((size_t)(2 * ipc * channels * kept), sizeof *coefficients), *again;
    float *images = calloc((size_t)(2 * ipc * size), sizeof *images);
    double *spectrum = calloc((size_t)plane, sizeof *spectrum), *want = calloc((size_t)plane, sizeof *want);
    double *got = calloc((size_t)plane, sizeof *got);
    again = calloc((size_t)(2 * ipc * channels * kept), sizeof *again);
    for (int i = 0; i < 2 * ipc * channels * kept; i++) coefficients[i] = (float)random_normal(&random);
    assert_ok(frequency_decode(f, coefficients, images));
    for (int row = 0; row < 2 * ipc; row++)
        for (int c = 0; c < channels; c++) {
            const int32_t *of = positions + (row / ipc * channels + c) * kept;
            memset(spectrum, 0, (size_t)plane * sizeof *spectrum);
            for (int i = 0; i < kept; i++) {
                int u = of[i] % height, v = of[i] / height;
                assert_true(i == 0 || of[i] > of[i - 1]);
                assert_int_equal((u * width + v + row / ipc + c) % every, 0);
                spectrum[u * width + v] = coefficients[(row * channels + c) * kept + i];
            }
            dct_plane(spectrum, height, width, true, want);
            for (int k = 0; k < plane; k++) got[k] = images[row * size + c * plane + k];
            double off = relative_error(got, want, plane);
            if (!(off < 2e-6)) fail_msg("%d x %d, family %d: images %.2g off", height, width, family, off);
        }
    assert_ok(frequency_encode(f, images, again));
    for (int i = 0; i < 2 * ipc * channels * kept; i++) assert_true(fabsf(again[i] - coefficients[i]) < 1e-5f);
    frequency_destroy(f);
    data_finish_here(&data);
    free(coefficients);
    free(again);
    free(images);
    free(spectrum);
    free(want);
    free(got);
}

static void test_device(void **state) {
    (void)state;
    if (!device) skip();
    for (int family = 0; family < 2; family++) {
        expect_device(2, 7, 5, 3, 40, 5, family, DCT_MATRIX);
        expect_device(1, 28, 28, 2, 20, 16, family, DCT_MATRIX);
        expect_device(3, 32, 32, 1, 16, 16, family, DCT_MATRIX);
        expect_device(1, 1, 6, 1, 20, 3, family, DCT_MATRIX);
    }
}

/* The same by a library. */
static void test_library(void **state) {
    (void)state;
    if (device && !device_fft_library()) print_message("this build has no clFFT\n");
    if (!device || !device_fft_library()) skip();
    expect_device(2, 7, 5, 3, 40, 5, 0, DCT_CLFFT);
    expect_device(1, 28, 28, 2, 20, 16, 1, DCT_CLFFT);
}

/* --- sets --- */
static void test_storage(void **state) {
    (void)state;
    struct set_storage storage;
    struct set_spec spec = {.ipc = 16, .parameters = PARAMETERS_FREQUENCY, .budget = 1};
    assert_ok(set_storage(&spec, 10, 3, 32, 32, &storage)); /* the paper's: 64 coefficients, 16 images */
    assert_int_equal(storage.kept, 64);
    assert_int_equal(storage.floats, 10 * 3 * 32 * 32);
    assert_int_equal(storage.places, 10 * 3 * 64);
    assert_ok(set_storage(&spec, 10, 1, 28, 28, &storage));
    assert_int_equal(storage.kept, 49);
    assert_int_equal(storage.floats, 10 * 28 * 28);
    spec.budget = spec.ipc = 5;
    assert_ok(set_storage(&spec, 10, 1, 28, 28, &storage));
    assert_int_equal(storage.kept, 28 * 28);
    spec = (struct set_spec){.ipc = 10, .parameters = PARAMETERS_FREQUENCY, .budget = 1};
    assert_int_equal(set_storage(&spec, 10, 1, 28, 28, &storage), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "1 x 28 x 28 floats"));
    assert_non_null(strstr(retort_error_message(), "set.ipc 10"));
    spec.parameters = PARAMETERS_PIXELS;
    assert_ok(set_storage(&spec, 10, 1, 28, 28, &storage));
    assert_int_equal(storage.floats, 10 * 10 * 28 * 28);
    assert_int_equal(storage.places, 0);
}

enum { SIDE = 6, IPC = 4, COUNT = 2 * IPC, PIXELS = SIDE * SIDE, HELD = PIXELS / IPC };
static const struct network network = {.classes = 2, .channels = 1, .height = SIDE, .width = SIDE};

static struct distill_problem problem_of(const struct dataset *train, int family) {
    return (struct distill_problem){
        .library = libraries[family],
        .train = train,
        .network = &network,
        .inner = {.steps = 5, .optimizer = {.lr = 0.01}},
        .set = {.ipc = IPC, .init = SET_REAL, .parameters = PARAMETERS_FREQUENCY, .budget = 1},
        .outer = {.steps = 9, .optimizer = OPTIMIZER_ADAM, .lr = 0.1, .clip = true},
        .method = &pull,
        .seed = 11};
}

/* Real images without what is not held; a step is one of the coefficients; what is held of 1 is approached. */
static void test_set(void **state) {
    (void)state;
    if (!device) skip();
    struct data data = data_begin(1, SIDE, SIDE, 20, 3);
    for (int family = 0; family < 2; family++) {
        struct distill_problem problem = problem_of(data_get(&data), family);
        problem.outer.optimizer = OPTIMIZER_SGD;
        problem.outer.clip = false;
        problem.outer.lr = 0.25;
        struct set set;
        assert_ok(set_begin(&problem, &set));
        assert_int_equal(set.stored_size, HELD);
        assert_int_equal(set.variables[SET_STORED].count, COUNT * HELD);
        assert_ok(set_decode(&set));
        float before[COUNT * PIXELS], after[COUNT * PIXELS];
        int64_t count;
        const int32_t *positions = frequency_positions(set.frequency, &count);
        int32_t held[2 * HELD];
        memcpy(held, positions, sizeof held);
        memcpy(before, set.images, sizeof before);
        set_finish(&set);
        struct distill *distill;
        const struct metrics *metrics;
        assert_ok(distill_create(&problem, &distill));
        assert_ok(distill_step(distill, &metrics));
        assert_ok(distill_read_set(distill, after, NULL, NULL));
        distill_destroy(distill);
        for (int row = 0; row < COUNT; row++) {
            double x[PIXELS], y[PIXELS], one[PIXELS], fx[PIXELS], fy[PIXELS], f1[PIXELS], norm = 0;
            bool is_held[PIXELS] = {false};
            for (int k = 0; k < PIXELS; k++)
                x[k] = before[row * PIXELS + k], y[k] = after[row * PIXELS + k], one[k] = 1;
            dct_plane(x, SIDE, SIDE, false, fx);
            dct_plane(y, SIDE, SIDE, false, fy);
            dct_plane(one, SIDE, SIDE, false, f1);
            for (int i = 0; i < HELD; i++) {
                int32_t position = held[row / IPC * HELD + i];
                is_held[position % SIDE * SIDE + position / SIDE] = true;
            }
            for (int k = 0; k < PIXELS; k++) {
                double want = is_held[k] ? fx[k] - 0.25 * (fx[k] - f1[k]) : 0;
                assert_true(fabs(fy[k] - want) < 1e-5);
                assert_true(is_held[k] || fabs(fx[k]) < 1e-5);
                norm += fx[k] * fx[k];
            }
            assert_true(norm > 1);
        }
    }
    data_finish_here(&data);
}

/* Noise has unit norm as images have. */
static void test_noise(void **state) {
    (void)state;
    if (!device) skip();
    struct data data = data_begin(1, SIDE, SIDE, 20, 3);
    struct distill_problem problem = problem_of(data_get(&data), 0);
    struct distill *distill;
    float images[COUNT * PIXELS];
    problem.set.init = SET_NOISE;
    assert_ok(distill_create(&problem, &distill));
    assert_ok(distill_read_set(distill, images, NULL, NULL));
    for (int i = 0; i < COUNT; i++) {
        double norm = 0;
        for (int k = 0; k < PIXELS; k++) norm += (double)images[i * PIXELS + k] * images[i * PIXELS + k];
        assert_true(fabs(norm - 1) < 1e-5);
    }
    distill_destroy(distill);
    data_finish_here(&data);
}

/* A loaded state goes on bit for bit, with the coefficients that it was saved with, whatever this data would choose. */
static void test_checkpoint(void **state) {
    (void)state;
    if (!device) skip();
    char folder[] = "/tmp/retort-frequency-XXXXXX", path[FILE_PATH_MAX];
    assert_non_null(mkdtemp(folder));
    assert_ok(path_join(folder, "state.npz", path));
    struct data data = data_begin(1, SIDE, SIDE, 20, 3), other = data_begin(1, SIDE, SIDE, 20, 4);
    const struct distill_problem problem = problem_of(data_get(&data), 0), elsewhere = problem_of(data_get(&other), 0);
    expect_resumed(&problem, &elsewhere, path, COUNT * PIXELS);
    /* The state of a set of pixels is another one. */
    struct distill_problem pixels = problem;
    struct distill *stored;
    pixels.set.parameters = PARAMETERS_PIXELS;
    pixels.set.budget = 0;
    assert_ok(distill_create(&pixels, &stored));
    assert_int_equal(distill_load(stored, path), RETORT_EFORMAT);
    distill_destroy(stored);
    data_finish_here(&data);
    data_finish_here(&other);
    assert_ok(folder_remove(folder));
}

/* --- teams --- */
struct member {
    struct device *device;
    struct library *library;
    struct distill *distill;
    int status;
};

static void *share_start(void *part) {
    struct member *member = part;
    member->status = distill_share_start(member->distill);
    return NULL;
}

/* Devices of a team start from the leader's coefficients at the leader's places, whatever they had found themselves. */
static void test_team(void **state) {
    (void)state;
    if (!device) skip();
    struct data data[2] = {data_begin(1, SIDE, SIDE, 20, 3), data_begin(1, SIDE, SIDE, 20, 4)};
    struct member members[2];
    struct team *teams[2];
    pthread_t threads[2];
    float images[2][COUNT * PIXELS];
    const int shares[2] = {1, 1};
    assert_ok(team_create_threads(2, teams));
    for (int i = 0; i < 2; i++) {
        struct distill_problem problem = problem_of(data_get(&data[i]), 0);
        assert_ok(device_open(TEST_DEVICE, &members[i].device));
        assert_ok(library_create(members[i].device, FAMILY_CPU, &members[i].library));
        problem.library = members[i].library;
        problem.outer.meta_batch = 2;
        problem.division = (struct division){teams[i], DIVIDE_TRAJECTORIES, shares};
        assert_ok(distill_create(&problem, &members[i].distill));
        assert_ok(distill_read_set(members[i].distill, images[i], NULL, NULL));
    }
    assert_memory_not_equal(images[0], images[1], sizeof images[0]);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, share_start, &members[i]), 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_ok(members[i].status);
    }
    float before[COUNT * PIXELS];
    memcpy(before, images[0], sizeof before);
    for (int i = 0; i < 2; i++) {
        assert_ok(distill_read_set(members[i].distill, images[i], NULL, NULL));
        assert_memory_equal(images[i], before, sizeof before);
        distill_destroy(members[i].distill);
        library_destroy(members[i].library);
        device_close(members[i].device);
        team_destroy(teams[i]);
        data_finish_here(&data[i]);
    }
}

/* Places that are none of the spectrum's are refused, before a kernel reads by them. */
static void test_positions(void **state) {
    (void)state;
    if (!device) skip();
    struct data data = data_begin(1, SIDE, SIDE, 20, 3);
    const struct frequency_shape shape = {2, IPC, 1, SIDE, SIDE, HELD};
    struct frequency *f;
    int64_t count;
    assert_ok(frequency_create(libraries[0], &shape, data_get(&data), DCT_MATRIX, false, &f));
    int32_t *positions = frequency_positions(f, &count);
    positions[HELD + 1] = PIXELS;
    assert_int_equal(frequency_settle(f), RETORT_EFORMAT);
    assert_non_null(strstr(retort_error_message(), "class 1"));
    positions[HELD + 1] = -1;
    assert_int_equal(frequency_settle(f), RETORT_EFORMAT);
    positions[HELD + 1] = positions[HELD];
    assert_int_equal(frequency_settle(f), RETORT_EFORMAT);
    frequency_destroy(f);
    data_finish_here(&data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_basis),      cmocka_unit_test(test_graph),     cmocka_unit_test(test_storage),
        cmocka_unit_test(test_device),     cmocka_unit_test(test_set),       cmocka_unit_test(test_noise),
        cmocka_unit_test(test_checkpoint), cmocka_unit_test(test_positions), cmocka_unit_test(test_library),
        cmocka_unit_test(test_team),
    };
    return cmocka_run_group_tests_name("frequency", tests, prepare, clean_libraries);
}
