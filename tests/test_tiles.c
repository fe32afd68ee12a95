/* Sets whose images are tiles of what is stored: making images of them against its definition in double precision, the
 * gradient against the transpose, and what follows from the stored pixels: starts, bounds, checkpoints, refusals. */
#include "graphs.h"
#include "methods.h"
#include "test.h"

#include "base/file.h"
#include "distill/distill.h"
#include "distill/method.h"
#include "distill/tiles.h"
#include "transform/transform.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static double means[] = {0.3, -0.2, 0.7}, sds[] = {0.25, 0.5, 2};
static struct normalisation normalisation_of(int channels) {
    return (struct normalisation){.kind = NORMALISE_MEAN_SD, .channels = channels, .mean = means, .sd = sds};
}

enum { CLASSES = 3, CHANNELS = 2, HEIGHT = 7, WIDTH = 6, PLANE = HEIGHT * WIDTH, PIXELS = CHANNELS * PLANE };
TRAIN_OF(36, CHANNELS, HEIGHT, WIDTH, 0, 12, 24, 36);

/* Real images are pixels in [0,1], normalised. */
static int prepare(void **state) {
    (void)state;
    struct random random = random_begin(6, RANDOM_TEST, 0);
    dataset_fill(&train);
    for (int i = 0; i < 36 * PIXELS; i++) {
        int c = i / PLANE % CHANNELS;
        train_images[i] = (float)((random_uniform(&random) - means[c]) / sds[c]);
    }
    libraries_begin(TEST_DEVICE);
    return 0;
}

/* --- the definition --- */
/* Reads a line of `side` values, `stride` apart, at a real place, clamped to it. */
static double read_line(const double *line, int side, int stride, double place) {
    place = fmin(fmax(place, 0), side - 1);
    int low = (int)floor(place), high = low + 1 < side ? low + 1 : low;
    return line[low * stride] + (place - low) * (line[high * stride] - line[low * stride]);
}

/* First row of a tile: those of a factor of 2 or 3 begin at 0, in the middle, and where they end with the image. */
static int begin_of(int size, int side, int factor, int tile) {
    if (tile == 0) return 0;
    return tile == factor - 1 ? size - side : (size - side) / 2;
}

/* One image's plane of a stored one. */
static void decode_plane(const double *stored, int height, int width, int factor, int a, int b, double *image) {
    int h = (height + factor - 1) / factor, w = (width + factor - 1) / factor;
    const double *tile = stored + begin_of(height, h, factor, a) * width + begin_of(width, w, factor, b);
    double *rows = calloc((size_t)(height * w), sizeof *rows);
    for (int i = 0; i < height; i++)
        for (int j = 0; j < w; j++) rows[i * w + j] = read_line(tile + j, h, width, (i + 0.5) * h / height - 0.5);
    for (int i = 0; i < height; i++)
        for (int j = 0; j < width; j++)
            image[i * width + j] = read_line(rows + i * w, w, 1, (j + 0.5) * w / width - 0.5);
    free(rows);
}

static void decode(const double *stored, const struct tiles_shape *s, double *images) {
    const int f = s->factor, plane = s->height * s->width;
    for (int64_t row = 0; row < s->stored * f * f; row++)
        for (int c = 0; c < s->channels; c++) {
            double *image = images + (row * s->channels + c) * plane;
            decode_plane(stored + (row / (f * f) * s->channels + c) * plane, s->height, s->width, f, (int)(row / f % f),
                         (int)(row % f), image);
            for (int k = 0; s->normalisation && k < plane; k++) image[k] = (image[k] - means[c]) / sds[c];
        }
}

/* --- graphs and devices --- */
static const struct tiles_shape shapes[] = {
    {3, 2, 7, 6, 2, NULL},   {2, 3, 7, 5, 3, NULL},   {2, 1, 5, 4, 1, NULL},   {1, 1, 28, 28, 2, NULL},
    {2, 3, 32, 32, 2, NULL}, {1, 3, 32, 32, 3, NULL}, {2, 1, 28, 28, 3, NULL}, {1, 2, 3, 9, 3, NULL},
};
enum { SHAPES = sizeof shapes / sizeof *shapes, MOST = 4 * 9 * 3 * 32 * 32 };
static double stored[MOST], images[MOST], want[MOST], seeds[MOST], gradient[MOST];

static double dot(const double *x, const double *y, int64_t count) {
    double sum = 0;
    for (int64_t i = 0; i < count; i++) sum += x[i] * y[i];
    return sum;
}

/* <A x, y> = <x, A^T y>, for the linear part A of the map: images less those of zeros. */
static void expect_transpose(const struct tiles_shape *shape, double tolerance) {
    const int64_t values = shape->stored * shape->channels * shape->height * shape->width;
    const int64_t all = values * shape->factor * shape->factor;
    double *zeros = calloc(MOST, sizeof *zeros), *still = calloc(MOST, sizeof *still);
    decode(zeros, shape, still);
    double across = dot(want, seeds, all) - dot(still, seeds, all), back = dot(stored, gradient, values);
    assert_true(fabs(across) > 1e-3);
    if (!(fabs(across - back) <= tolerance * sqrt(dot(want, want, all) * dot(seeds, seeds, all))))
        fail_msg("%d x %d, factor %d: <A x, y> %.9g, <x, A^T y> %.9g", shape->height, shape->width, shape->factor,
                 across, back);
    free(zeros);
    free(still);
}

static void test_graph(void **state) {
    (void)state;
    for (int k = 0; k < 2 * SHAPES; k++) {
        struct tiles_shape shape = shapes[k / 2];
        struct normalisation normalisation = normalisation_of(shape.channels);
        struct random random = random_begin(3, RANDOM_TEST, (uint32_t)k);
        struct graph *g;
        struct node *by;
        shape.normalisation = k % 2 ? &normalisation : NULL;
        fill_normal(&random, stored, MOST, 1);
        fill_normal(&random, seeds, MOST, 1);
        assert_ok(graph_create(&g));
        struct node *x =
            graph_input(g, "stored", FLOAT32, SHAPE(shape.stored, shape.channels, shape.height, shape.width));
        struct node *y = tiles_images(x, &shape);
        assert_non_null(y);
        assert_ok(transform_vjp(y, graph_input(g, "seeds", FLOAT32, y->shape), &x, 1, &by));
        graph_output(g, "images", y);
        graph_output(g, "gradient", by);
        evaluate(g, BINDINGS({"stored", stored}, {"seeds", seeds}, {"images", images}, {"gradient", gradient}));
        decode(stored, &shape, want);
        assert_true(relative_error(images, want, shape_count(y->shape)) < 1e-13);
        expect_transpose(&shape, 1e-13);
        graph_destroy(g);
    }
}

static void test_device(void **state) {
    (void)state;
    if (!device) skip();
    static float values[MOST], result[MOST];
    for (int k = 0; k < 2 * SHAPES; k++) {
        struct tiles_shape shape = shapes[k / 2];
        struct normalisation normalisation = normalisation_of(shape.channels);
        struct random random = random_begin(4, RANDOM_TEST, (uint32_t)k);
        struct tiles *tiles;
        const int64_t own = shape.stored * shape.channels * shape.height * shape.width;
        const int64_t all = own * shape.factor * shape.factor;
        shape.normalisation = &normalisation;
        fill_normal(&random, stored, MOST, 1);
        fill_normal(&random, seeds, MOST, 1);
        assert_ok(tiles_create(libraries[k % 2], &shape, false, &tiles));
        for (int64_t i = 0; i < own; i++) stored[i] = values[i] = (float)stored[i];
        assert_ok(tiles_decode(tiles, values, result));
        for (int64_t i = 0; i < all; i++) images[i] = result[i];
        decode(stored, &shape, want);
        double off = relative_error(images, want, all);
        if (!(off < 3e-6)) fail_msg("%d x %d, family %d: images %.2g off", shape.height, shape.width, k % 2, off);
        for (int64_t i = 0; i < all; i++) seeds[i] = values[i] = (float)seeds[i];
        assert_ok(tiles_pull(tiles, values, result));
        for (int64_t i = 0; i < own; i++) gradient[i] = result[i];
        expect_transpose(&shape, 1e-6);
        tiles_destroy(tiles);
    }
}

/* --- starts --- */
/* Each tile of a stored image is an image of its own in small: of an image whose pixels tell their places the tile has
 * those of the nearest places. */
static void test_mix(void **state) {
    (void)state;
    enum { SIDE = 9, FACTOR = 2, TILE = 5 };
    const struct tiles_shape shape = {2, 1, SIDE, SIDE, FACTOR, NULL};
    float whole[8 * SIDE * SIDE], mixed[2 * SIDE * SIDE];
    for (int row = 0; row < 8; row++)
        for (int k = 0; k < SIDE * SIDE; k++) whole[row * SIDE * SIDE + k] = (float)(row * 100 + k);
    tiles_mix(&shape, whole, mixed);
    static const int nearest[TILE] = {0, 1, 3, 5, 7}; /* floor(i 9 / 5) */
    for (int row = 0; row < 8; row++) {
        int a = row / 2 % 2, b = row % 2;
        for (int i = 0; i < TILE; i++)
            for (int j = 0; j < TILE; j++) {
                /* The tiles share row and column 4, which the last of them keeps. */
                if ((a == 0 && i == TILE - 1) || (b == 0 && j == TILE - 1)) continue;
                float is = mixed[row / 4 * SIDE * SIDE + (a * 4 + i) * SIDE + b * 4 + j];
                assert_true(is == (float)(row * 100 + nearest[i] * SIDE + nearest[j]));
            }
    }
}

enum { FACTOR = 2, KEPT = 2, IPC = KEPT * FACTOR * FACTOR, STORED = CLASSES * KEPT, COUNT = CLASSES * IPC };
static const struct network network = {.classes = CLASSES, .channels = CHANNELS, .height = HEIGHT, .width = WIDTH};
static struct normalisation normalisation;

static struct distill_problem problem_of(int family) {
    normalisation = normalisation_of(CHANNELS);
    normalisation.height = HEIGHT;
    normalisation.width = WIDTH;
    return (struct distill_problem){
        .library = libraries[family],
        .train = &train,
        .normalisation = &normalisation,
        .network = &network,
        .inner = {.steps = 5, .optimizer = {.lr = 0.01}},
        .set = {.ipc = IPC, .ipc_key = KEPT, .init = SET_REAL, .parameters = PARAMETERS_TILES, .factor = FACTOR},
        .outer = {.steps = 9, .optimizer = OPTIMIZER_SGD, .lr = 0.5},
        .method = &pull,
        .seed = 11};
}

/* Which real image of class `class` these pixels of the space of networks are; each is there once. */
static int find_real(const float *pixels, int class) {
    for (int64_t row = class_begin[class]; row < class_begin[class + 1]; row++) {
        double away = 0;
        for (int k = 0; k < PIXELS; k++) {
            int c = k / PLANE;
            away = fmax(away, fabs((pixels[k] - means[c]) / sds[c] - train_images[row * PIXELS + k]));
        }
        if (away < 1e-5) return (int)row;
    }
    return -1;
}

static void test_starts(void **state) {
    (void)state;
    if (!device) skip();
    struct distill_problem problem = problem_of(0);
    struct set set;
    assert_ok(set_begin(&problem, &set));
    assert_int_equal(set.count, COUNT);
    assert_int_equal(set.stored_count, STORED);
    assert_int_equal(set.stored_size, PIXELS);
    assert_int_equal(set.variables[SET_STORED].count, STORED * PIXELS);
    for (int i = 0; i < COUNT; i++) assert_int_equal(set.hard_labels[i], i / IPC);
    for (int i = 0; i < STORED; i++) {
        int real = find_real(set.stored + i * PIXELS, i / KEPT);
        assert_true(real >= 0);
        assert_true(i % KEPT == 0 || real != find_real(set.stored + (i - 1) * PIXELS, i / KEPT));
    }
    set_finish(&set);

    int32_t rows[STORED] = {30, 3, 13, 1, 25, 20}; /* two of each class, in any order */
    problem.set.init = SET_INDICES;
    problem.rows = rows;
    problem.row_count = STORED;
    assert_ok(set_begin(&problem, &set));
    assert_int_equal(find_real(set.stored, 0), 3);
    assert_int_equal(find_real(set.stored + PIXELS, 0), 1);
    assert_int_equal(find_real(set.stored + 4 * PIXELS, 2), 30);
    set_finish(&set);
    problem.row_count = STORED - 1;
    assert_int_equal(set_begin(&problem, &set), RETORT_EINVAL);

    /* Every pixel of a mixed image is one of a real image of its class. */
    problem.set.init = SET_MIX;
    assert_ok(set_begin(&problem, &set));
    for (int i = 0; i < STORED * PIXELS; i++) {
        int c = i / PLANE % CHANNELS, class = i / (KEPT * PIXELS);
        double nearest = 1;
        for (int64_t row = class_begin[class]; row < class_begin[class + 1]; row++)
            for (int k = 0; k < PLANE; k++)
                nearest = fmin(nearest,
                               fabs((set.stored[i] - means[c]) / sds[c] - train_images[row * PIXELS + c * PLANE + k]));
        assert_true(nearest < 1e-5);
        assert_true(set.stored[i] >= 0 && set.stored[i] <= 1);
    }
    set_finish(&set);

    problem.set.init = SET_NOISE;
    assert_ok(set_begin(&problem, &set));
    double sum = 0, least = 1, most = 0;
    for (int i = 0; i < STORED * PIXELS; i++) {
        sum += set.stored[i];
        least = fmin(least, set.stored[i]);
        most = fmax(most, set.stored[i]);
    }
    assert_true(least >= 0 && least < 0.05 && most > 0.95 && most <= 1);
    assert_true(fabs(sum / (STORED * PIXELS) - 0.5) < 0.05);
    set_finish(&set);
}

/* --- steps --- */
/* A step by the gradient that the transpose brings, and values beyond [0,1] cut off. */
static void test_step(void **state) {
    (void)state;
    if (!device) skip();
    for (int family = 0; family < 2; family++) {
        struct distill_problem problem = problem_of(family);
        const struct tiles_shape shape = {STORED, CHANNELS, HEIGHT, WIDTH, FACTOR, &normalisation};
        struct distill *distill;
        const struct metrics *metrics;
        struct set set;
        float after[COUNT * PIXELS];
        double start[STORED * PIXELS];
        int cut = 0;
        assert_ok(set_begin(&problem, &set));
        for (int i = 0; i < STORED * PIXELS; i++) start[i] = set.stored[i];
        set_finish(&set);
        assert_ok(distill_create(&problem, &distill));
        assert_ok(distill_step(distill, &metrics));
        assert_ok(distill_read_set(distill, after, NULL, NULL));
        distill_destroy(distill);
        /* `pull` leaves images - 1. The derivative by a stored pixel is read off the map, which is linear but for a
         * constant, one pixel at a time. */
        decode(start, &shape, want);
        for (int i = 0; i < STORED * PIXELS; i++) {
            double moved[STORED * PIXELS];
            memcpy(moved, start, sizeof moved);
            moved[i] += 1;
            decode(moved, &shape, images);
            double derivative = 0;
            for (int k = 0; k < COUNT * PIXELS; k++) derivative += (images[k] - want[k]) * (want[k] - 1);
            gradient[i] = derivative;
        }
        for (int i = 0; i < STORED * PIXELS; i++) {
            double value = start[i] - problem.outer.lr * gradient[i];
            cut += value < 0 || value > 1;
            stored[i] = fmin(fmax(value, 0), 1);
        }
        assert_in_range(cut, STORED * PIXELS / 20, STORED * PIXELS - 1);
        decode(stored, &shape, want);
        for (int k = 0; k < COUNT * PIXELS; k++) images[k] = after[k];
        assert_true(relative_error(images, want, COUNT * PIXELS) < 5e-6);
    }
}

static void test_checkpoint(void **state) {
    (void)state;
    if (!device) skip();
    char folder[] = "/tmp/retort-tiles-XXXXXX", path[FILE_PATH_MAX];
    assert_non_null(mkdtemp(folder));
    assert_ok(path_join(folder, "state.npz", path));
    struct distill_problem problem = problem_of(0);
    problem.outer = (struct outer_spec){.steps = 9, .optimizer = OPTIMIZER_ADAM, .lr = 0.01, .clip = true};
    struct distill_problem elsewhere = problem;
    struct distill *pixels;
    elsewhere.set.init = SET_NOISE;
    expect_resumed(&problem, &elsewhere, path, COUNT * PIXELS);
    /* A set of as many images, stored as such, is another one. */
    problem.set.parameters = PARAMETERS_PIXELS;
    problem.set.factor = 0;
    assert_ok(distill_create(&problem, &pixels));
    assert_int_equal(distill_load(pixels, path), RETORT_EFORMAT);
    distill_destroy(pixels);
    assert_ok(folder_remove(folder));
}

/* --- storage and refusals --- */
static void test_storage(void **state) {
    (void)state;
    struct set_storage storage;
    struct set_spec spec = {.ipc_key = 10, .parameters = PARAMETERS_TILES, .factor = 2};
    spec.ipc = set_ipc_of(&spec);
    assert_int_equal(spec.ipc, 40);
    assert_ok(set_storage(&spec, 10, 3, 32, 32, &storage));
    assert_int_equal(storage.floats, 10 * 10 * 3 * 32 * 32);
    assert_int_equal(storage.kept, 16 * 16);
    assert_int_equal(storage.places, 0);
    spec.factor = 3;
    spec.ipc = set_ipc_of(&spec);
    assert_int_equal(spec.ipc, 90);
    assert_ok(set_storage(&spec, 10, 1, 28, 28, &storage));
    assert_int_equal(storage.floats, 10 * 10 * 28 * 28);
    assert_int_equal(storage.kept, 10 * 10);
    spec.factor = 29;
    spec.ipc = set_ipc_of(&spec);
    assert_int_equal(set_storage(&spec, 10, 1, 28, 28, &storage), RETORT_EINVAL);
}

static void expect_refused(const struct distill_problem *problem, const char *key, const char *words) {
    const char *found = "";
    assert_int_equal(distill_check(problem, &found), RETORT_EINVAL);
    assert_string_equal(found, key);
    assert_non_null(strstr(retort_error_message(), words));
}

static void test_refusals(void **state) {
    (void)state;
    struct distill_problem problem = problem_of(0), other = problem;
    const char *key;
    assert_ok(distill_check(&problem, &key));
    normalisation.kind = NORMALISE_ZCA_KIP;
    expect_refused(&problem, "data.normalise", "zca");
    normalisation.kind = NORMALISE_ZCA_PIXEL;
    expect_refused(&problem, "data.normalise", "zca_pixel");
    other.set.parameters = PARAMETERS_PIXELS;
    expect_refused(&other, "set.parameters.factor", "leave it out");
    other.set.factor = 0;
    other.set.init = SET_MIX;
    expect_refused(&other, "set.init", "take real");
    normalisation.kind = NORMALISE_NONE;
    assert_ok(distill_check(&problem, &key));
    problem.set.factor = 0;
    expect_refused(&problem, "set.parameters.factor", "expected the tiles along a side");
    problem.set.factor = 7;
    expect_refused(&problem, "set.parameters.factor", "7 x 6 pixels");
    problem.set.factor = 2;
    problem.set.budget = 1;
    expect_refused(&problem, "set.parameters.budget", "frequency");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_graph),   cmocka_unit_test(test_device),   cmocka_unit_test(test_mix),
        cmocka_unit_test(test_starts),  cmocka_unit_test(test_step),     cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_storage), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, prepare, clean_libraries);
}
