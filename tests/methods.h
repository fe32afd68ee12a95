/* What tests of methods share: a device with both families of kernels, methods by name, a method that needs no device,
 * and data made at random. */
#ifndef RETORT_TESTS_METHODS_H
#define RETORT_TESTS_METHODS_H

#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/random.h"
#include "distill/distill.h"
#include "distill/method.h"

static struct device *device; /* NULL: there is none, and what needs one is skipped */
static struct library *libraries[2];

static inline void libraries_begin(const char *which) {
    if (device_open(which, &device) < 0) return;
    for (int f = 0; f < 2; f++) assert_ok(library_create(device, f ? FAMILY_GPU : FAMILY_CPU, &libraries[f]));
}

static inline void libraries_end(void) {
    for (int f = 0; f < 2; f++) library_destroy(libraries[f]);
    device_close(device);
}

/* As a group's last function, where a test has nothing else to give back. */
static inline int clean_libraries(void **state) {
    (void)state;
    libraries_end();
    return 0;
}

static inline const struct method *method_named(const char *name) {
    for (int i = 0; method_at(i); i++)
        if (strcmp(method_at(i)->name, name) == 0) return method_at(i);
    fail_msg("there is no method %s", name);
    return NULL;
}

/* A method without a device of its own: it pulls the images towards 1. */
struct pull {
    struct set *set;
};

static inline int pull_create(const struct distill_problem *problem, struct set *set, void **instance) {
    (void)problem;
    struct pull *p = calloc(1, sizeof *p);
    if (!p) return error_set(RETORT_ENOMEM, "out of memory");
    p->set = set;
    *instance = p;
    return RETORT_OK;
}

static inline int pull_step(void *instance, struct turn turn, struct metrics *metrics) {
    (void)turn;
    struct pull *p = instance;
    double loss = 0;
    for (int64_t i = 0; i < p->set->count * p->set->image_size; i++) {
        float away = p->set->images[i] - 1;
        loss += away * away / 2;
        p->set->image_gradient[i] = away;
    }
    metric_real(metrics, "loss", loss);
    return RETORT_OK;
}

static const struct method pull = {
    .name = "pull", .remedy = "pull less", .create = pull_create, .destroy = free, .step = pull_step};

/* The numbers of NAME.npy of a case of tests/oracle: how many, at most `most`. */
static inline int64_t read_case(const char *folder, const char *name, double *values, int64_t most) {
    char path[FILE_PATH_MAX];
    struct npy npy;
    const char *source = getenv("RETORT_SOURCE");
    snprintf(path, sizeof path, "%s/tests/oracle/%s/%s.npy", source ? source : ".", folder, name);
    assert_ok(npy_read(path, &npy));
    int64_t count = npy_count(&npy);
    assert_in_range(count, 1, most);
    for (int64_t i = 0; i < count; i++)
        values[i] = npy.type == NPY_FLOAT64 ? ((const double *)npy.data)[i] : (double)((const float *)npy.data)[i];
    npy_finish(&npy);
    return count;
}

/* Normal images, class by class, those of class c from `begin[c]` to below begin[c + 1]: the data set has sizes and
 * arrays already, as a test declares them. */
static inline void dataset_fill(const struct dataset *dataset) {
    const int64_t pixels = (int64_t)dataset->channels * dataset->height * dataset->width;
    struct random random = random_begin(5, RANDOM_TEST, 0);
    for (int64_t i = 0; i < dataset->count * pixels; i++) dataset->images[i] = (float)random_normal(&random);
    for (int c = 0; c < dataset->classes; c++)
        for (int64_t i = dataset->class_begin[c]; i < dataset->class_begin[c + 1]; i++)
            dataset->labels[dataset->class_rows[i] = i] = c;
}

/* Three classes of images [channels,height,width], in a variable `train`; begin: {0, images of the first class, of the
 * first two, of all}. */
#define TRAIN_OF(total, channels_, height_, width_, ...)                                       \
    static float train_images[(total) * (channels_) * (height_) * (width_)];                   \
    static int32_t train_labels[total];                                                        \
    static int64_t class_rows[total], class_begin[] = {__VA_ARGS__};                           \
    static char ant[] = "ant", bee[] = "bee", cat[] = "cat", *class_names[] = {ant, bee, cat}; \
    static const struct dataset train = {.count = (total),                                     \
                                         .channels = (channels_),                              \
                                         .height = (height_),                                  \
                                         .width = (width_),                                    \
                                         .classes = 3,                                         \
                                         .images = train_images,                               \
                                         .labels = train_labels,                               \
                                         .class_names = class_names,                           \
                                         .class_rows = class_rows,                             \
                                         .class_begin = class_begin}

static inline void take_steps(struct distill *distill, int count) {
    const struct metrics *metrics;
    for (int i = 0; i < count; i++) assert_ok(distill_step(distill, &metrics));
}

/* What is saved after four of seven steps, in `path`, and loaded where the set began otherwise goes on to the same
 * images, `values` numbers, bit for bit. */
static inline void expect_resumed(const struct distill_problem *problem, const struct distill_problem *elsewhere,
                                  const char *path, size_t values) {
    struct distill *whole, *halting, *resumed;
    float *x = calloc(values, sizeof *x), *y = calloc(values, sizeof *y);
    assert_ok(distill_create(problem, &whole));
    assert_ok(distill_create(problem, &halting));
    assert_ok(distill_create(elsewhere, &resumed));
    take_steps(whole, 7);
    take_steps(halting, 4);
    assert_ok(distill_save(halting, path));
    assert_ok(distill_load(resumed, path));
    assert_int_equal(distill_steps_done(resumed), 4);
    take_steps(resumed, 3);
    assert_ok(distill_read_set(whole, x, NULL, NULL));
    assert_ok(distill_read_set(resumed, y, NULL, NULL));
    assert_memory_equal(x, y, values * sizeof *x);
    distill_destroy(whole);
    distill_destroy(halting);
    distill_destroy(resumed);
    free(x);
    free(y);
}

#endif
