/* A tiny data set and descriptors for it, in a folder of their own, for tests of whole runs. */
#ifndef RETORT_TESTS_BARS_H
#define RETORT_TESTS_BARS_H

#include "test.h"

#include "base/file.h"
#include "base/random.h"
#include "data/data.h"
#include "retort/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRAIN = 120, TEST = 60, SIDE = 8, CLASSES = 3 };

static char folder[] = "/tmp/retort-run-XXXXXX";

/* Class k is a bright bar at row 1 + 2 k on noise. */
static void draw(struct random *random, int count, uint8_t *images, int32_t *labels) {
    for (int i = 0; i < count; i++) {
        labels[i] = i % CLASSES;
        for (int y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++)
                images[(i * SIDE + y) * SIDE + x] =
                    (uint8_t)(random_below(random, 100) + (y == 1 + 2 * labels[i] ? 150 : 0));
    }
}

static char *path_in(const char *name, char path[FILE_PATH_MAX]) {
    assert_ok(path_join(folder, name, path));
    return path;
}

static void write_descriptor(const char *name, const char *data) {
    char path[FILE_PATH_MAX], text[1024];
    int length = snprintf(text, sizeof text,
                          "data: {kind: npy, path: %s}\n"
                          "network: {depth: 2, width: 4}\n"
                          "inner: {steps: 6, lr: 0.02}\n"
                          "set: {init: real}\n"
                          "method: {window: 3, range: 1}\n"
                          "outer: {steps: 8, lr: 0.01, real_batch: 24}\n"
                          "evaluate: {networks: 2, steps: [10, 40]}\n",
                          data);
    assert_ok(file_write(path_in(name, path), text, (size_t)length));
}

/* Distribution matching on bars.npz. */
static void write_matching(void) {
    static const char text[] = "data: {kind: npy, path: bars.npz}\n"
                               "network: {depth: 2, width: 4}\n"
                               "outer: {steps: 8}\n"
                               "method: {name: dm}\n"
                               "evaluate: {networks: 2, epochs: 3}\n";
    char path[FILE_PATH_MAX];
    assert_ok(file_write(path_in("matching.yaml", path), text, sizeof text - 1));
}

/* bars.npz, or the same with another random stream under another name. */
static int write_data(const char *name, uint32_t stream, size_t members) {
    static uint8_t train[TRAIN * SIDE * SIDE], test[TEST * SIDE * SIDE];
    int32_t train_labels[TRAIN], test_labels[TEST];
    char path[FILE_PATH_MAX];
    struct random random = random_begin(3, RANDOM_TEST, stream);
    draw(&random, TRAIN, train, train_labels);
    draw(&random, TEST, test, test_labels);
    const struct npy_member all[] = {
        {"images", NPY_UINT8, 4, (const int64_t[]){TRAIN, 1, SIDE, SIDE}, train},
        {"labels", NPY_INT32, 1, (const int64_t[]){TRAIN}, train_labels},
        {"test_images", NPY_UINT8, 4, (const int64_t[]){TEST, 1, SIDE, SIDE}, test},
        {"test_labels", NPY_INT32, 1, (const int64_t[]){TEST}, test_labels},
    };
    return npz_write(path_in(name, path), all, members);
}

static int bars_prepare(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    if (write_data("bars.npz", 0, 4) < 0 || write_data("untested.npz", 0, 2) < 0) return -1;
    write_descriptor("bars.yaml", "bars.npz");
    write_descriptor("untested.yaml", "untested.npz");
    write_matching();
    retort_log_verbosity(0);
    setenv("RETORT_WISDOM", "off", 1);
    return 0;
}

static int bars_clean(void **state) {
    (void)state;
    return folder_remove(folder);
}

static bool same_file(const char *a, const char *b) {
    char path[FILE_PATH_MAX];
    unsigned char *x, *y;
    size_t n, m;
    assert_ok(file_read(path_in(a, path), 0, &x, &n));
    assert_ok(file_read(path_in(b, path), 0, &y, &m));
    bool same = n == m && memcmp(x, y, n) == 0;
    free(x);
    free(y);
    return same;
}

static void assert_same_file(const char *a, const char *b) {
    if (!same_file(a, b)) fail_msg("%s and %s differ", a, b);
}

#endif
