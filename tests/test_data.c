/* Normalisation, splits, drawing and augmentation on sets made here; then the readers on real data where it is there.
 */
#include "test.h"

#include "base/file.h"
#include "base/log.h"
#include "data/data.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/retort-data-XXXXXX";
static char kept[FILE_PATH_MAX]; /* the normalisation under test */

/* A data set read from an .npz of uniform pixels, class i mod classes, so that it is made as users make theirs. */
static void make_set(int64_t count, int channels, int height, int width, int classes, enum normalise_kind normalise,
                     double holdout, struct data_set_pair *data) {
    struct random random = random_begin(3, RANDOM_TEST, 0);
    int64_t shape[4] = {count, channels, height, width}, values = count * channels * height * width;
    float *images = malloc((size_t)values * sizeof *images);
    int32_t *labels = malloc((size_t)count * sizeof *labels);
    /* Neighbours are alike, as in pictures, so that the covariance is far from the identity. */
    for (int64_t i = 0; i < values; i++)
        images[i] = (float)(0.5 * random_uniform(&random) + (i % width ? 0.5 * images[i - 1] : 0.2));
    for (int64_t i = 0; i < count; i++) labels[i] = (int32_t)(i % classes);
    char path[FILE_PATH_MAX];
    assert_ok(path_join(folder, "made.npz", path));
    struct npy_member members[] = {{"images", NPY_FLOAT32, 4, shape, images}, {"labels", NPY_INT32, 1, shape, labels}};
    assert_ok(npz_write(path, members, 2));
    free(images);
    free(labels);
    struct data_spec spec = {.kind = DATA_NPY, .path = path, .normalise = normalise, .holdout = holdout};
    assert_ok(data_load(&spec, 9, data));
}

static int64_t value_count(const struct dataset *dataset) {
    return dataset->count * dataset->channels * dataset->height * dataset->width;
}

static float *copy_floats(const float *from, int64_t count) {
    float *copy = malloc((size_t)count * sizeof *copy);
    memcpy(copy, from, (size_t)count * sizeof *copy);
    return copy;
}

/* --- normalisation --- */

static void check_kept(const struct normalisation *normalisation, const float *pixels, int64_t count, int64_t values) {
    struct normalisation loaded;
    assert_ok(normalisation_save(normalisation, kept));
    assert_ok(normalisation_load(kept, &loaded));
    assert_int_equal(loaded.kind, normalisation->kind);
    assert_int_equal(loaded.channels, normalisation->channels);
    assert_int_equal(loaded.height, normalisation->height);
    assert_int_equal(loaded.width, normalisation->width);
    float *before = copy_floats(pixels, values), *after = copy_floats(pixels, values);
    bool exact, loaded_exact;
    assert_ok(normalisation_apply(normalisation, before, count));
    assert_ok(normalisation_apply(&loaded, after, count));
    assert_memory_equal(before, after, (size_t)values * sizeof *before);
    assert_ok(normalisation_undo(normalisation, before, count, &exact));
    assert_ok(normalisation_undo(&loaded, after, count, &loaded_exact));
    assert_memory_equal(before, after, (size_t)values * sizeof *before);
    assert_int_equal(exact, loaded_exact);
    free(before);
    free(after);
    normalisation_finish(&loaded);
}

static void test_mean_sd(void **state) {
    (void)state;
    struct data_set_pair raw, data;
    make_set(50, 3, 4, 5, 2, NORMALISE_NONE, 0, &raw);
    make_set(50, 3, 4, 5, 2, NORMALISE_MEAN_SD, 0, &data);
    for (int c = 0; c < 3; c++) {
        double sum = 0, squares = 0;
        for (int i = 0; i < 50; i++)
            for (int j = 0; j < 20; j++) {
                double x = data.train.images[(i * 3 + c) * 20 + j];
                sum += x;
                squares += x * x;
            }
        assert_float_equal(sum / 1000, 0, 1e-6);
        assert_float_equal(squares / 1000, 1, 1e-6);
        double first = (raw.train.images[c * 20] - data.normalisation.mean[c]) / data.normalisation.sd[c];
        assert_float_equal(data.train.images[c * 20], first, 1e-6);
    }
    check_kept(&data.normalisation, raw.train.images, 50, value_count(&raw.train));
    bool exact = false;
    assert_ok(normalisation_undo(&data.normalisation, data.train.images, 50, &exact));
    assert_true(exact);
    for (int64_t i = 0; i < value_count(&raw.train); i++)
        assert_float_equal(data.train.images[i], raw.train.images[i], 1e-6);
    check_kept(&raw.normalisation, raw.train.images, 50, value_count(&raw.train));
    data_finish(&raw);
    data_finish(&data);
}

/* Four images of two pixels, 0.5 +- (a, a) and 0.5 +- (b, -b): the eigenvectors are the diagonals. */
static void test_zca_by_hand(void **state) {
    (void)state;
    const float a = 0.3f, b = 0.1f;
    float images[8] = {0.5f + a, 0.5f + a, 0.5f - a, 0.5f - a, 0.5f + b, 0.5f - b, 0.5f - b, 0.5f + b};
    struct dataset train = {.count = 4, .channels = 1, .height = 1, .width = 2, .classes = 1, .images = images};
    struct normalisation pixel, kip;
    assert_ok(normalisation_fit(NORMALISE_ZCA_PIXEL, &train, &pixel));
    /* Sums of squares along the diagonals, 2 x 2 a^2 and 2 x 2 b^2, over N - 1; 0.1 added. */
    double along = 1 / sqrt(4 * 0.09 / 3 + 0.1), across = 1 / sqrt(4 * 0.01 / 3 + 0.1);
    assert_float_equal(pixel.mean[0], 0.5, 1e-7);
    assert_float_equal(pixel.whiten[0], (along + across) / 2, 1e-6);
    assert_float_equal(pixel.whiten[1], (along - across) / 2, 1e-6);
    assert_float_equal(pixel.whiten[2], pixel.whiten[1], 0);
    assert_float_equal(pixel.whiten[3], (along + across) / 2, 1e-6);
    assert_float_equal(pixel.unwhiten[0], (1 / along + 1 / across) / 2, 1e-6);
    float image[4] = {0.9f, 0.1f, 0.7f, 0.7f};
    assert_ok(normalisation_apply(&pixel, image, 2));
    assert_float_equal(image[0], 0.4 * across, 1e-6);
    assert_float_equal(image[1], -0.4 * across, 1e-6);
    assert_float_equal(image[2], 0.2 * along, 1e-6);
    normalisation_finish(&pixel);
    /* Per image, (x, y) becomes (1, -1) / sqrt 2 or its negative, or zero where flat: the second moment along that
     * diagonal is 2/4 (two of four are flat), along the other 0; their mean, 1/4, times 0.1 is added. */
    assert_ok(normalisation_fit(NORMALISE_ZCA_KIP, &train, &kip));
    assert_null(kip.mean);
    across = 1 / sqrt(0.5 + 0.025), along = 1 / sqrt(0.025);
    assert_float_equal(kip.whiten[0], (along + across) / 2, 1e-5);
    assert_float_equal(kip.whiten[1], (along - across) / 2, 1e-5);
    memcpy(image, (float[]){0.9f, 0.1f, 0.7f, 0.7f}, sizeof image);
    assert_ok(normalisation_apply(&kip, image, 2));
    assert_float_equal(image[0], sqrt(0.5) * across, 1e-6);
    assert_float_equal(image[1], -sqrt(0.5) * across, 1e-6);
    assert_float_equal(image[2], 0, 0);
    bool exact = true;
    assert_ok(normalisation_undo(&kip, image, 2, &exact));
    assert_false(exact);
    assert_float_equal(image[0], sqrt(0.5), 1e-6);
    normalisation_finish(&kip);
    for (int i = 0; i < 8; i++) images[i] = 0.5f;
    assert_int_equal(normalisation_fit(NORMALISE_ZCA_KIP, &train, &kip), RETORT_EINVAL);
    assert_int_equal(normalisation_fit(NORMALISE_MEAN_SD, &train, &kip), RETORT_EINVAL);
    train.count = 1;
    assert_int_equal(normalisation_fit(NORMALISE_ZCA_PIXEL, &train, &kip), RETORT_EINVAL);
}

/* Second moments of rows less `mean`, over `divisor`, by plain loops. */
static void moments(const float *rows, int count, int size, const double *mean, double divisor, double *out) {
    for (int i = 0; i < size; i++)
        for (int j = 0; j < size; j++) {
            double sum = 0;
            for (int k = 0; k < count; k++)
                sum += (rows[k * size + i] - (mean ? mean[i] : 0)) * (rows[k * size + j] - (mean ? mean[j] : 0));
            out[i * size + j] = sum / divisor;
        }
}

static void check_zca(enum normalise_kind kind) {
    enum { COUNT = 700, SIZE = 24 }; /* more than one block of images */
    struct data_set_pair raw, data;
    make_set(COUNT, 2, 3, 4, 2, NORMALISE_NONE, 0, &raw);
    make_set(COUNT, 2, 3, 4, 2, kind, 0, &data);
    bool kip = kind == NORMALISE_ZCA_KIP;
    float *pixels = copy_floats(raw.train.images, COUNT * SIZE);
    for (int k = 0; kip && k < COUNT; k++) {
        double mean = 0, norm = 0;
        for (int i = 0; i < SIZE; i++) mean += pixels[k * SIZE + i] / SIZE;
        for (int i = 0; i < SIZE; i++) norm += (pixels[k * SIZE + i] - mean) * (pixels[k * SIZE + i] - mean);
        for (int i = 0; i < SIZE; i++) pixels[k * SIZE + i] = (float)((pixels[k * SIZE + i] - mean) / sqrt(norm));
    }
    /* Whitened, a covariance C must become C (C + e I)^-1: eigenvalues l / (l + e), same eigenvectors. So the product
     * of what came out with C + e I must give C back. */
    double before[SIZE * SIZE], after[SIZE * SIZE], trace = 0, divisor = kip ? COUNT : COUNT - 1;
    moments(pixels, COUNT, SIZE, data.normalisation.mean, divisor, before);
    moments(data.train.images, COUNT, SIZE, NULL, divisor, after);
    for (int i = 0; i < SIZE; i++) trace += before[i * SIZE + i];
    double added = kip ? 0.1 * trace / SIZE : 0.1;
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            double product = after[i * SIZE + j] * added, identity = 0;
            for (int k = 0; k < SIZE; k++) {
                product += after[i * SIZE + k] * before[k * SIZE + j];
                identity += (double)data.normalisation.whiten[i * SIZE + k] * data.normalisation.unwhiten[k * SIZE + j];
            }
            assert_float_equal(product, before[i * SIZE + j], 1e-6);
            assert_float_equal(identity, i == j, 1e-5);
        }
    check_kept(&data.normalisation, raw.train.images, COUNT, COUNT * SIZE);
    /* Undoing gives the pixels back; for kip those after the per-image step. */
    bool exact;
    assert_ok(normalisation_undo(&data.normalisation, data.train.images, COUNT, &exact));
    assert_int_equal(exact, !kip);
    for (int i = 0; i < COUNT * SIZE; i++) assert_float_equal(data.train.images[i], pixels[i], 1e-5);
    free(pixels);
    data_finish(&raw);
    data_finish(&data);
}

static void test_zca(void **state) {
    (void)state;
    check_zca(NORMALISE_ZCA_KIP);
    check_zca(NORMALISE_ZCA_PIXEL);
}

static void test_bad_normalisation(void **state) {
    (void)state;
    struct normalisation loaded = {0};
    const int64_t two = 2, three = 3;
    int32_t shape[3] = {2, 4, 4};
    double mean[2] = {0.5, 0.5}, sd[2] = {0.2, 0.3};
    struct npy_member members[] = {{"kind", NPY_UINT8, 1, (int64_t[]){7}, "mean_sd"},
                                   {"shape", NPY_INT32, 1, &three, shape},
                                   {"mean", NPY_FLOAT64, 1, &two, mean},
                                   {"sd", NPY_FLOAT64, 1, &two, sd}};
    assert_ok(npz_write(kept, members, 4));
    assert_ok(normalisation_load(kept, &loaded));
    normalisation_finish(&loaded);
    sd[1] = 0;
    assert_ok(npz_write(kept, members, 4));
    assert_int_equal(normalisation_load(kept, &loaded), RETORT_EFORMAT);
    sd[1] = NAN;
    assert_ok(npz_write(kept, members, 4));
    assert_int_equal(normalisation_load(kept, &loaded), RETORT_ENUMERIC);
    sd[1] = 1;
    shape[0] = 3;
    assert_ok(npz_write(kept, members, 4));
    assert_int_equal(normalisation_load(kept, &loaded), RETORT_EFORMAT);
    shape[0] = -1;
    assert_ok(npz_write(kept, members, 4));
    assert_int_equal(normalisation_load(kept, &loaded), RETORT_EFORMAT);
    shape[0] = 2;
    assert_ok(npz_write(kept, members, 3));
    assert_int_equal(normalisation_load(kept, &loaded), RETORT_EFORMAT);
    members[0].data = "mean-sd";
    assert_ok(npz_write(kept, members, 4));
    assert_int_equal(normalisation_load(kept, &loaded), RETORT_EFORMAT);
    assert_null(loaded.mean);
}

/* One word for descriptors and files; the one that the first files had is still read. */
static void test_former_name(void **state) {
    (void)state;
    static const char *const names[] = {"zca_kip", "zca", "zca_pixel"};
    static const enum normalise_kind kinds[] = {NORMALISE_ZCA_KIP, NORMALISE_ZCA_KIP, NORMALISE_ZCA_PIXEL};
    const int64_t three = 3, one = 1, square[2] = {1, 1};
    const int32_t shape[3] = {1, 1, 1};
    const double mean = 0.5;
    const float two = 2, half = 0.5;
    for (int i = 0; i < 3; i++) {
        const int64_t length = (int64_t)strlen(names[i]);
        const struct npy_member members[] = {{"kind", NPY_UINT8, 1, &length, names[i]},
                                             {"shape", NPY_INT32, 1, &three, shape},
                                             {"whiten", NPY_FLOAT32, 2, square, &two},
                                             {"unwhiten", NPY_FLOAT32, 2, square, &half},
                                             {"mean", NPY_FLOAT64, 1, &one, &mean}};
        struct normalisation loaded;
        struct npy kind;
        assert_ok(npz_write(kept, members, kinds[i] == NORMALISE_ZCA_PIXEL ? 5 : 4));
        assert_ok(normalisation_load(kept, &loaded));
        assert_int_equal(loaded.kind, kinds[i]);
        assert_ok(normalisation_save(&loaded, kept));
        assert_ok(npy_read_member(kept, "kind", &kind));
        assert_int_equal(npy_count(&kind), strlen(normalise_words[kinds[i]]));
        assert_memory_equal(kind.data, normalise_words[kinds[i]], strlen(normalise_words[kinds[i]]));
        npy_finish(&kind);
        normalisation_finish(&loaded);
    }
}

/* --- splits and drawing --- */

static void test_holdout(void **state) {
    (void)state;
    struct data_set_pair whole, data, again;
    make_set(100, 1, 2, 2, 3, NORMALISE_NONE, 0, &whole);
    make_set(100, 1, 2, 2, 3, NORMALISE_NONE, 0.2, &data);
    make_set(100, 1, 2, 2, 3, NORMALISE_NONE, 0.2, &again);
    /* 34, 33 and 33 a class: 6 of each aside. */
    assert_int_equal(data.holdout.count, 18);
    assert_int_equal(data.train.count, 82);
    for (int c = 0; c < 3; c++) assert_int_equal(data.holdout.class_begin[c + 1] - data.holdout.class_begin[c], 6);
    assert_memory_equal(data.holdout.images, again.holdout.images, 18 * 4 * sizeof(float));
    /* Every row of the whole is in exactly one of the two, in order, with its label. */
    int64_t train = 0, holdout = 0;
    for (int64_t i = 0; i < 100; i++) {
        const float *image = whole.train.images + 4 * i;
        if (train < 82 && memcmp(image, data.train.images + 4 * train, 16) == 0)
            assert_int_equal(data.train.labels[train++], whole.train.labels[i]);
        else {
            assert_memory_equal(image, data.holdout.images + 4 * holdout, 16);
            assert_int_equal(data.holdout.labels[holdout++], whole.train.labels[i]);
        }
    }
    assert_int_equal(train + holdout, 100);
    struct data_set_pair none;
    char path[FILE_PATH_MAX];
    assert_ok(path_join(folder, "made.npz", path));
    struct data_spec spec = {.kind = DATA_NPY, .path = path, .holdout = 0.01};
    assert_int_equal(data_load(&spec, 1, &none), RETORT_EINVAL);
    spec.holdout = 1;
    assert_int_equal(data_load(&spec, 1, &none), RETORT_EINVAL);
    spec.holdout = NAN;
    assert_int_equal(data_load(&spec, 1, &none), RETORT_EINVAL);
    data_finish(&whole);
    data_finish(&data);
    data_finish(&again);
}

/* The part for testing that data without one gets. */
static void test_test_part(void **state) {
    (void)state;
    enum { ALL = 23, VALUES = ALL * 4 };
    float images[VALUES];
    int32_t labels[ALL];
    char path[FILE_PATH_MAX];
    /* 12, 8, 2 and 1 images of the four classes. */
    for (int i = 0; i < VALUES; i++) images[i] = (float)i / VALUES;
    for (int i = 0; i < ALL; i++) labels[i] = i < 12 ? 0 : i < 20 ? 1 : i < 22 ? 2 : 3;
    assert_ok(path_join(folder, "parts.npz", path));
    struct npy_member members[] = {{"images", NPY_FLOAT32, 4, (int64_t[]){ALL, 1, 2, 2}, images},
                                   {"labels", NPY_INT32, 1, (int64_t[]){ALL}, labels},
                                   {"test_images", NPY_FLOAT32, 4, (int64_t[]){1, 1, 2, 2}, images},
                                   {"test_labels", NPY_INT32, 1, (int64_t[]){1}, labels}};
    assert_ok(npz_write(path, members, 2));
    struct data_spec spec = {.kind = DATA_NPY, .path = path, .test = 0.2};
    struct data_set_pair data, other, whole, held;
    assert_ok(data_load(&spec, 1, &data));
    static const int64_t wanted[4] = {2, 2, 1, 0}; /* rounded, at least one of two, never the only one */
    for (int c = 0; c < 4; c++) assert_int_equal(data.test.class_begin[c + 1] - data.test.class_begin[c], wanted[c]);
    assert_int_equal(data.test.count, 5);
    assert_int_equal(data.train.count, 18);
    assert_non_null(strstr(text_get(&data.story), "test: 5 images, taken from train"));
    assert_non_null(strstr(text_get(&data.story), "with 1 (2) to 10 (0) training images"));
    /* Every row is in one of the two, with its label, and the split is the same for every seed of a run. */
    int64_t train = 0, test = 0;
    for (int64_t i = 0; i < ALL; i++) {
        const float *image = images + 4 * i;
        if (test < 5 && memcmp(image, data.test.images + 4 * test, 16) == 0)
            assert_int_equal(data.test.labels[test++], labels[i]);
        else {
            assert_memory_equal(image, data.train.images + 4 * train, 16);
            assert_int_equal(data.train.labels[train++], labels[i]);
        }
    }
    assert_ok(data_load(&spec, 2, &other));
    assert_memory_equal(data.test.images, other.test.images, 5 * 4 * sizeof(float));
    /* The normalisation knows nothing of it; the data is the same data; the held-out split is of what is left. */
    spec.test = 0;
    spec.normalise = NORMALISE_MEAN_SD;
    assert_ok(data_load(&spec, 1, &whole));
    assert_int_equal(whole.test.count, 0);
    assert_true(whole.fingerprint == data.fingerprint);
    spec.test = 0.2;
    spec.holdout = 0.2;
    assert_ok(data_load(&spec, 1, &held));
    assert_int_equal(held.test.count, 5);
    assert_int_equal(held.holdout.count, 3);
    assert_int_equal(held.train.count, 15);
    assert_true(fabs(held.normalisation.mean[0] - whole.normalisation.mean[0]) > 1e-4);
    data_finish(&data);
    data_finish(&other);
    data_finish(&whole);
    data_finish(&held);
    /* Where there is one, it stays. */
    assert_ok(npz_write(path, members, 4));
    spec.holdout = 0;
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.test.count, 1);
    assert_int_equal(data.train.count, ALL);
    data_finish(&data);
    spec.test = 1;
    assert_int_equal(data_load(&spec, 1, &data), RETORT_EINVAL);
}

/* The row of the set that an image was copied from. */
static int64_t find_row(const struct dataset *dataset, const float *image) {
    int64_t size = value_count(dataset) / dataset->count;
    for (int64_t i = 0; i < dataset->count; i++)
        if (memcmp(image, dataset->images + i * size, (size_t)size * sizeof *image) == 0) return i;
    return -1;
}

static void test_draw(void **state) {
    (void)state;
    struct data_set_pair data;
    make_set(60, 1, 2, 2, 4, NORMALISE_NONE, 0, &data);
    float images[61 * 4], again[60 * 4];
    int32_t labels[61], labels_again[60];
    struct random first = random_begin(1, RANDOM_REAL_BATCH, 5), second = first;
    assert_ok(dataset_draw(&data.train, &first, 60, images, labels));
    assert_ok(dataset_draw(&data.train, &second, 60, again, labels_again));
    assert_memory_equal(images, again, sizeof again);
    assert_memory_equal(labels, labels_again, sizeof labels_again);
    bool seen[60] = {false};
    for (int i = 0; i < 60; i++) {
        int64_t row = find_row(&data.train, images + 4 * i);
        assert_true(row >= 0 && !seen[row]);
        seen[row] = true;
        assert_int_equal(labels[i], row % 4);
    }
    assert_int_equal(dataset_draw(&data.train, &first, 61, images, labels), RETORT_EINVAL);
    /* Every row is equally likely: 2000 draws of 15 of 60, 500 +- 19.4 each. */
    int counts[60] = {0};
    for (uint32_t step = 0; step < 2000; step++) {
        struct random random = random_begin(2, RANDOM_REAL_BATCH, step);
        assert_ok(dataset_draw(&data.train, &random, 15, images, labels));
        for (int i = 0; i < 15; i++) counts[find_row(&data.train, images + 4 * i)]++;
    }
    for (int i = 0; i < 60; i++) assert_in_range(counts[i], 420, 580);

    assert_ok(dataset_draw_per_class(&data.train, &first, 15, images, labels));
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < 60; i++) {
        int64_t row = find_row(&data.train, images + 4 * i);
        assert_int_equal(labels[i], i / 15);
        assert_int_equal(row % 4, i / 15);
        assert_false(seen[row]);
        seen[row] = true;
    }
    assert_int_equal(dataset_draw_per_class(&data.train, &first, 16, images, labels), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "which has 15"));
    data_finish(&data);
}

static void test_rows(void **state) {
    (void)state;
    int32_t rows[100];
    struct random random = random_begin(1, RANDOM_INNER_BATCH, 0);
    assert_ok(rows_draw(&random, 10, 10, 10, 10, rows));
    for (int i = 0; i < 100; i++) assert_int_equal(rows[i], i);
    int counts[100] = {0};
    for (int draw = 0; draw < 4000; draw++) {
        assert_ok(rows_draw(&random, 10, 10, 4, 5, rows));
        int class_before = -1;
        for (int c = 0; c < 4; c++) {
            int class = rows[5 * c] / 10;
            assert_true(class > class_before);
            class_before = class;
            for (int i = 0; i < 5; i++) {
                assert_int_equal(rows[5 * c + i] / 10, class);
                if (i) assert_true(rows[5 * c + i] > rows[5 * c + i - 1]);
                counts[rows[5 * c + i]]++;
            }
        }
    }
    /* Each of the 100 is in a draw with probability 0.4 x 0.5: 800 +- 25. */
    for (int i = 0; i < 100; i++) assert_in_range(counts[i], 680, 920);
    assert_int_equal(rows_draw(&random, 10, 10, 11, 1, rows), RETORT_EINVAL);
    assert_int_equal(rows_draw(&random, 10, 10, 1, 11, rows), RETORT_EINVAL);
    assert_int_equal(rows_draw(&random, 0, 10, 0, 1, rows), RETORT_EINVAL);
    assert_int_equal(rows_draw(&random, 10, 10, 1, 0, rows), RETORT_EINVAL);
}

/* --- augmentation --- */

static void test_augment(void **state) {
    (void)state;
    enum { COUNT = 4000 };
    static float maps[COUNT * MAP_SIZE], again[COUNT * MAP_SIZE];
    struct random random = random_begin(1, RANDOM_AUGMENT_REAL, 0), copy = random;
    struct augment_spec spec = {.flip = true, .degrees = 15};
    augment_draw(&spec, &random, COUNT, maps);
    augment_draw(&spec, &copy, COUNT, again);
    assert_memory_equal(maps, again, sizeof maps);
    int mirrored = 0;
    for (int i = 0; i < COUNT; i++) {
        const float *map = maps + MAP_SIZE * i;
        assert_true(fabsf(map[0]) == 1 && map[1] == 0 && map[2] == 0 && map[3] == 0 && map[4] == 1 && map[5] == 0);
        mirrored += map[0] < 0;
    }
    assert_in_range(mirrored, COUNT / 2 - 150, COUNT / 2 + 150); /* sd 32 */
    spec = (struct augment_spec){.rotate = true, .degrees = 15};
    augment_draw(&spec, &random, COUNT, maps);
    double sum = 0, squares = 0;
    for (int i = 0; i < COUNT; i++) {
        const float *map = maps + MAP_SIZE * i;
        double angle = atan2(map[3], map[0]) * 180 / acos(-1.0);
        assert_true(fabs(angle) <= 15.0001);
        assert_float_equal(map[0], map[4], 0);
        assert_float_equal(map[1], -map[3], 0);
        assert_float_equal(map[0] * map[0] + map[3] * map[3], 1, 1e-6);
        sum += angle;
        squares += angle * angle;
    }
    assert_float_equal(sum / COUNT, 0, 0.7);        /* sd 0.14 */
    assert_float_equal(squares / COUNT, 75.0, 5.0); /* 15^2 / 3, sd 1.06 */
    /* One of the two a batch. */
    spec.flip = true;
    int flips = 0;
    for (int batch = 0; batch < 400; batch++) {
        augment_draw(&spec, &random, 8, maps);
        bool turned = maps[3] != 0;
        for (int i = 0; i < 8; i++)
            if (turned)
                assert_true(maps[MAP_SIZE * i] > 0.96 && maps[MAP_SIZE * i + 3] != 0);
            else
                assert_true(fabsf(maps[MAP_SIZE * i]) == 1 && maps[MAP_SIZE * i + 3] == 0);
        flips += !turned;
    }
    assert_in_range(flips, 150, 250); /* sd 10 */
    /* Both: the image is mirrored, then rotated, so the read position is the rotated one mirrored: m = F R. */
    spec.compose = true;
    augment_draw(&spec, &random, COUNT, maps);
    mirrored = 0;
    for (int i = 0; i < COUNT; i++) {
        const float *map = maps + MAP_SIZE * i;
        double sign = map[0] < 0 ? -1 : 1;
        mirrored += sign < 0;
        assert_float_equal(sign * map[0], map[4], 0);
        assert_float_equal(sign * map[1], -map[3], 0);
    }
    assert_in_range(mirrored, COUNT / 2 - 150, COUNT / 2 + 150);
    spec = (struct augment_spec){.degrees = 15};
    augment_draw(&spec, &random, 1, maps);
    for (int i = 0; i < MAP_SIZE; i++) assert_float_equal(maps[i], i == 0 || i == 4, 0);
}

/* --- differentiable Siamese augmentation --- */

#define IMAGES 16
#define DRAWS  6000

/* A statistic of uniform draws: extremes inside the interval and close to its ends, the mean close to its middle. */
struct spread {
    double low, high, sum;
    int count;
};

static void spread_add(struct spread *spread, double value) {
    if (spread->count == 0 || value < spread->low) spread->low = value;
    if (spread->count == 0 || value > spread->high) spread->high = value;
    spread->sum += value;
    spread->count++;
}

static void check_spread(const struct spread *spread, double low, double high) {
    double width = high - low;
    assert_true(spread->count > 5000);
    assert_true(spread->low >= low - 1e-6 && spread->low < low + 0.01 * width);
    assert_true(spread->high <= high + 1e-6 && spread->high > high - 0.01 * width);
    /* Five sd of the mean of so many uniform numbers (of integers, whose sd is a little larger, too). */
    assert_true(fabs(spread->sum / spread->count - (low + high) / 2) < 7 * width / sqrt(12.0 * spread->count));
}

static bool is_identity(const float *map) {
    return memcmp(map, (float[MAP_SIZE]){1, 0, 0, 0, 1, 0}, MAP_SIZE * sizeof *map) == 0;
}

static bool is_plain(const float *tint) {
    return tint[COLOUR_BRIGHTNESS] == 0 && tint[COLOUR_SATURATION] == 1 && tint[COLOUR_CONTRAST] == 1
           && tint[COLOUR_CUTOUT_HALF_HEIGHT] <= 0 && tint[COLOUR_CUTOUT_HALF_WIDTH] <= 0;
}

static void test_siamese(void **state) {
    (void)state;
    enum { HEIGHT = 32, WIDTH = 24 };
    int families[SIAMESE_FAMILIES] = {0};
    struct spread brightness = {0}, saturation = {0}, contrast = {0}, down = {0}, right = {0}, tall = {0}, wide = {0};
    struct spread angle = {0}, mirrored = {0};
    int different = 0;
    float maps[IMAGES][MAP_SIZE], colour[IMAGES][COLOUR_SIZE];
    struct random random = random_begin(1, RANDOM_TEST, 0);
    for (int d = 0; d < DRAWS; d++) {
        enum siamese_family family = siamese_draw(&random, true, HEIGHT, WIDTH, IMAGES, maps[0], colour[0]);
        families[family]++;
        different += memcmp(maps[0], maps[1], sizeof maps[0]) || memcmp(colour[0], colour[1], sizeof colour[0]);
        for (int i = 0; i < IMAGES; i++) {
            const float *map = maps[i], *tint = colour[i];
            if (family == SIAMESE_COLOUR || family == SIAMESE_CUTOUT)
                assert_true(is_identity(map));
            else
                assert_true(is_plain(tint));
            switch (family) {
            case SIAMESE_COLOUR:
                spread_add(&brightness, tint[COLOUR_BRIGHTNESS]);
                spread_add(&saturation, tint[COLOUR_SATURATION]);
                spread_add(&contrast, tint[COLOUR_CONTRAST]);
                assert_true(tint[COLOUR_CUTOUT_HALF_HEIGHT] <= 0 && tint[COLOUR_CUTOUT_HALF_WIDTH] <= 0);
                break;
            case SIAMESE_CROP:
                assert_true(map[0] == 1 && map[1] == 0 && map[3] == 0 && map[4] == 1);
                assert_true(map[2] == rintf(map[2]) && map[5] == rintf(map[5]));
                spread_add(&right, map[2]);
                spread_add(&down, map[5]);
                break;
            case SIAMESE_SCALE:
                assert_true(map[1] == 0 && map[2] == 0 && map[3] == 0 && map[5] == 0);
                spread_add(&wide, map[0]);
                spread_add(&tall, map[4]);
                break;
            case SIAMESE_ROTATE:
                assert_float_equal(map[0] * map[0] + map[3] * map[3], 1, 1e-6);
                assert_true(map[0] == map[4] && map[1] == -map[3] && map[2] == 0 && map[5] == 0);
                spread_add(&angle, atan2(map[3], map[0]) * 180 / 3.14159265358979323846);
                break;
            case SIAMESE_FLIP:
                assert_true(fabsf(map[0]) == 1 && map[1] == 0 && map[2] == 0 && map[3] == 0 && map[4] == 1);
                spread_add(&mirrored, map[0]);
                break;
            default:
                break;
            }
        }
    }
    for (int f = 0; f < SIAMESE_FAMILIES; f++) assert_in_range(families[f], 850, 1150); /* 1000 +- 5 sd */
    assert_true(different > DRAWS * 8 / 10); /* images do not share their parameters */
    check_spread(&brightness, -0.5, 0.5);
    check_spread(&saturation, 0, 2);
    check_spread(&contrast, 0.5, 1.5);
    check_spread(&down, -4, 4); /* an eighth of 32 */
    check_spread(&right, -3, 3);
    check_spread(&tall, 1 / 1.2, 1.2);
    check_spread(&wide, 1 / 1.2, 1.2);
    check_spread(&angle, -15, 15);
    check_spread(&mirrored, -1, 1);
    for (int d = 0; d < 1000; d++)
        assert_int_not_equal(siamese_draw(&random, false, HEIGHT, WIDTH, IMAGES, maps[0], colour[0]), SIAMESE_FLIP);
}

/* The pixels a cutout removes along one side, by the definition: offset - hole / 2 .. + hole - 1, cut at the borders.
 */
static void test_siamese_cutout(void **state) {
    (void)state;
    for (int size = 5; size <= 9; size++) {
        int hole = (int)(size * 0.5 + 0.5), offsets = size + 1 - hole % 2, expected[10] = {0}, got[10] = {0},
            batches = 0;
        for (int offset = 0; offset < offsets; offset++)
            for (int i = 0; i < hole; i++) {
                int at = offset - hole / 2 + i;
                if (at >= 0 && at < size) expected[at]++;
            }
        float maps[IMAGES][MAP_SIZE], colour[IMAGES][COLOUR_SIZE];
        struct random random = random_begin((uint64_t)size, RANDOM_TEST, 1);
        for (int d = 0; d < DRAWS; d++) {
            if (siamese_draw(&random, true, size, size, IMAGES, maps[0], colour[0]) != SIAMESE_CUTOUT) continue;
            batches++;
            for (int i = 0; i < IMAGES; i++) {
                assert_true(colour[i][COLOUR_BRIGHTNESS] == 0 && colour[i][COLOUR_SATURATION] == 1
                            && colour[i][COLOUR_CONTRAST] == 1);
                assert_float_equal(colour[i][COLOUR_CUTOUT_HALF_WIDTH], hole / 2.0, 0);
                for (int at = 0; at < size; at++) {
                    assert_true(fabs(fabs(at - colour[i][COLOUR_CUTOUT_ROW]) - colour[i][COLOUR_CUTOUT_HALF_HEIGHT])
                                > 0.4); /* no pixel lies on the border */
                    got[at] += fabs(at - colour[i][COLOUR_CUTOUT_ROW]) <= colour[i][COLOUR_CUTOUT_HALF_HEIGHT];
                }
            }
        }
        for (int at = 0; at < size; at++)
            assert_float_equal(got[at] / (double)(batches * IMAGES), expected[at] / (double)offsets, 0.03);
    }
}

/* One draw for a class: a function of seed, step and class alone, and different where one of them is. */
/* Every image is its own outside of one rectangle and another's inside, and its label is mixed by the areas. */
static void test_cutmix(void **state) {
    (void)state;
    enum { COUNT = 5, CHANNELS = 2, TALL = 6, WIDE = 7, CLASSES = 5, SIZE = CHANNELS * TALL * WIDE };
    const struct cutmix_shape shape = {COUNT, CHANNELS, TALL, WIDE, CLASSES};
    int mixed = 0, edges = 0;
    for (uint32_t draw = 0; draw < 100; draw++) {
        static float images[COUNT][SIZE], labels[COUNT][CLASSES];
        for (int i = 0; i < COUNT; i++)
            for (int k = 0; k < SIZE; k++) images[i][k] = (float)(i * SIZE + k);
        memset(labels, 0, sizeof labels);
        for (int i = 0; i < COUNT; i++) labels[i][i] = 1;
        struct random random = random_begin(1, RANDOM_TEST, draw);
        assert_ok(cutmix_apply(&random, &shape, images[0], labels[0]));
        for (int i = 0; i < COUNT; i++) {
            int other = i, taken = 0, top = TALL, bottom = -1, left = WIDE, right = -1;
            for (int k = 0; k < SIZE; k++) {
                int from = (int)images[i][k] / SIZE, row = k / WIDE % TALL, column = k % WIDE;
                assert_int_equal((int)images[i][k] % SIZE, k);
                if (from == i) continue;
                if (other == i) other = from;
                assert_int_equal(from, other);
                taken++;
                top = row < top ? row : top;
                bottom = row > bottom ? row : bottom;
                left = column < left ? column : left;
                right = column > right ? column : right;
            }
            if (!taken) continue;
            assert_int_equal(taken, CHANNELS * (bottom - top + 1) * (right - left + 1));
            assert_float_equal(labels[i][other], (float)taken / SIZE, 1e-6);
            assert_float_equal(labels[i][i], 1 - (float)taken / SIZE, 1e-6);
            mixed++;
            edges += top == 0 || left == 0 || bottom == TALL - 1 || right == WIDE - 1;
        }
    }
    assert_true(mixed > 200 && edges > 50 && edges < mixed);
}

static void test_siamese_class(void **state) {
    (void)state;
    enum { HEIGHT = 32, WIDTH = 24, CLASSES = 10, STEPS = 600 };
    int families[SIAMESE_FAMILIES] = {0}, repeated = 0;
    float map[MAP_SIZE], colour[COLOUR_SIZE], again_map[MAP_SIZE], again_colour[COLOUR_SIZE];
    for (uint32_t step = 0; step < STEPS; step++)
        for (int class = 0; class < CLASSES; class ++) {
            enum siamese_family family = siamese_draw_class(7, step, class, true, HEIGHT, WIDTH, map, colour);
            families[family]++;
            assert_true(is_identity(map) || is_plain(colour));
            /* The neighbours in class, step and seed have draws of their own. */
            const struct {
                uint64_t seed;
                uint32_t step;
                int class;
            } others[] = {{7, step, class}, {7, step, class + 1}, {7, step + 1, class}, {8, step, class}};
            for (int i = 0; i < 4; i++) {
                siamese_draw_class(others[i].seed, others[i].step, others[i].class, true, HEIGHT, WIDTH, again_map,
                                   again_colour);
                bool equal = !memcmp(map, again_map, sizeof map) && !memcmp(colour, again_colour, sizeof colour);
                if (i == 0) assert_true(equal);
                if (i > 0) repeated += equal;
            }
        }
    for (int f = 0; f < SIAMESE_FAMILIES; f++) assert_in_range(families[f], 850, 1150); /* 1000 +- 5 sd */
    /* Two flips are equal one time in 2, two crops in 63, two cutouts in 825: 1 / 36 of that, of 18,000 pairs. */
    assert_in_range(repeated, 180, 340); /* 259, sd 16 */
    for (uint32_t step = 0; step < STEPS; step++)
        assert_int_not_equal(siamese_draw_class(7, step, 0, false, HEIGHT, WIDTH, map, colour), SIAMESE_FLIP);
    /* Unlike draws for training, where the images of a batch differ: what is drawn for one is what a batch of one is.
     */
    struct random random = random_begin(9, RANDOM_SIAMESE, 4);
    siamese_draw(&random, true, HEIGHT, WIDTH, 1, again_map, again_colour);
    siamese_draw_class(9, 4, 0, true, HEIGHT, WIDTH, map, colour);
    assert_memory_equal(map, again_map, sizeof map);
    assert_memory_equal(colour, again_colour, sizeof colour);
}

/* --- real data --- */

static void check_set(const struct data_set_pair *data, int64_t train, int64_t test, int channels, int side,
                      int classes) {
    assert_int_equal(data->train.count, train);
    assert_int_equal(data->test.count, test);
    assert_int_equal(data->train.channels, channels);
    assert_int_equal(data->train.height, side);
    assert_int_equal(data->train.width, side);
    assert_int_equal(data->train.classes, classes);
}

static void test_fashion_mnist(void **state) {
    (void)state;
    struct data_spec spec = {
        .kind = DATA_IDX, .path = "/usr/share/datasets/fashion-mnist", .normalise = NORMALISE_MEAN_SD};
    if (!folder_exists(spec.path)) {
        print_message("skipped: the package dataset-fashion-mnist is not installed\n");
        skip();
    }
    struct data_set_pair data;
    assert_ok(data_load(&spec, 1, &data));
    check_set(&data, 60000, 10000, 1, 28, 10);
    assert_float_equal(data.normalisation.mean[0], 0.2860, 5e-5);
    assert_float_equal(data.normalisation.sd[0], 0.3530, 5e-5);
    for (int c = 0; c < 10; c++) assert_int_equal(data.train.class_begin[c], 6000 * c);
    assert_int_equal(data.train.labels[0], 9); /* the ankle boot that opens the set */
    assert_string_equal(data.train.class_names[9], "Ankle boot");
    assert_string_equal(data.test.class_names[0], "T-shirt/top");
    data_finish(&data);
}

/* Finds a set of ../shared/data or skips; an archive is unpacked into the test's folder. */
static const char *shared_set(const char *name, const char *archive) {
    static char path[FILE_PATH_MAX];
    const char *source = getenv("RETORT_SOURCE");
    char from[FILE_PATH_MAX];
    snprintf(from, sizeof from, "%s/../shared/data/%s", source ? source : ".", archive ? archive : name);
    if (!file_exists(from)) {
        print_message("skipped: there is no %s\n", from);
        skip();
    }
    if (!archive) return strcpy(path, from);
    char command[2 * FILE_PATH_MAX + 64];
    snprintf(command, sizeof command, "tar -xf '%s' -C '%s'", from, folder);
    assert_int_equal(system(command), 0);
    assert_ok(path_join(folder, name, path));
    return path;
}

static void test_mnist(void **state) {
    (void)state;
    struct data_spec spec = {.kind = DATA_IDX, .path = shared_set("mnist", NULL), .normalise = NORMALISE_MEAN_SD};
    struct data_set_pair data;
    assert_ok(data_load(&spec, 1, &data));
    check_set(&data, 60000, 10000, 1, 28, 10);
    assert_float_equal(data.normalisation.mean[0], 0.1307, 5e-5);
    assert_float_equal(data.normalisation.sd[0], 0.3081, 5e-5);
    assert_string_equal(data.train.class_names[9], "9"); /* as many images and labels as Fashion-MNIST */
    data_finish(&data);
}

static void test_digits(void **state) {
    (void)state;
    struct data_spec spec = {
        .kind = DATA_IDX, .path = shared_set("digits-8x8", NULL), .normalise = NORMALISE_ZCA_PIXEL};
    struct data_set_pair data;
    assert_ok(data_load(&spec, 1, &data));
    check_set(&data, 1797, 0, 1, 8, 10);
    bool exact;
    float highest = 0;
    assert_ok(normalisation_undo(&data.normalisation, data.train.images, data.train.count, &exact));
    for (int64_t i = 0; i < 1797 * 64; i++) highest = fmaxf(highest, data.train.images[i]);
    assert_float_equal(highest, 1, 1e-5);
    data_finish(&data);
}

static void test_cifar(void **state) {
    (void)state;
    shared_set("", "cifar-10-binary.tar.xz");
    struct data_spec spec = {.kind = DATA_CIFAR10, .path = folder, .normalise = NORMALISE_MEAN_SD, .test_limit = 100};
    struct data_set_pair data;
    assert_ok(data_load(&spec, 1, &data));
    check_set(&data, 50000, 100, 3, 32, 10);
    assert_string_equal(data.train.class_names[0], "airplane");
    static const double mean[3] = {0.4914, 0.4822, 0.4465}, sd[3] = {0.2470, 0.2435, 0.2616};
    for (int c = 0; c < 3; c++) {
        assert_float_equal(data.normalisation.mean[c], mean[c], 1e-4);
        assert_float_equal(data.normalisation.sd[c], sd[c], 1e-4);
    }
    data_finish(&data);
}

static void test_tiny_imagenet(void **state) {
    (void)state;
    struct data_spec spec = {.kind = DATA_FOLDER, .path = shared_set("tiny-imagenet-10", "tiny-imagenet-10.tar.xz")};
    struct data_set_pair data;
    assert_ok(data_load(&spec, 1, &data));
    check_set(&data, 5000, 500, 3, 64, 10);
    assert_string_equal(data.train.class_names[0], "n01770393");
    for (int c = 0; c < 10; c++) {
        assert_int_equal(data.train.class_begin[c], 500 * c);
        assert_int_equal(data.test.class_begin[c], 50 * c);
    }
    data_finish(&data);
}

static void test_imagenet_samples(void **state) {
    (void)state;
    struct data_spec spec = {.kind = DATA_FOLDER,
                             .height = 64,
                             .width = 64,
                             .normalise = NORMALISE_MEAN_SD,
                             .path = shared_set("imagenet-samples", "imagenet-samples-40.tar.xz")};
    struct data_set_pair data;
    assert_ok(data_load(&spec, 1, &data));
    check_set(&data, 40, 0, 3, 64, 40);
    for (int c = 0; c < 3; c++) assert_in_range((int)(100 * data.normalisation.mean[c]), 30, 60);
    data_finish(&data);
}

static int make_folder(void **state) {
    (void)state;
    log_set_level(LOG_WARNING);
    return mkdtemp(folder) && path_join(folder, "normalisation.npz", kept) == RETORT_OK ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    return folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mean_sd),       cmocka_unit_test(test_zca_by_hand),
        cmocka_unit_test(test_zca),           cmocka_unit_test(test_bad_normalisation),
        cmocka_unit_test(test_former_name),   cmocka_unit_test(test_holdout),
        cmocka_unit_test(test_test_part),     cmocka_unit_test(test_draw),
        cmocka_unit_test(test_rows),          cmocka_unit_test(test_augment),
        cmocka_unit_test(test_siamese),       cmocka_unit_test(test_siamese_cutout),
        cmocka_unit_test(test_cutmix),        cmocka_unit_test(test_siamese_class),
        cmocka_unit_test(test_fashion_mnist), cmocka_unit_test(test_mnist),
        cmocka_unit_test(test_digits),        cmocka_unit_test(test_cifar),
        cmocka_unit_test(test_tiny_imagenet), cmocka_unit_test(test_imagenet_samples),
    };
    return cmocka_run_group_tests_name("data", tests, make_folder, remove_folder);
}
