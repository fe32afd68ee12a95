/* The installed interface, through the shared library alone: own images from memory, descriptors as text, sets as
 * numbers, evaluation, threads, and mistakes. */
#include "test.h"

#include "retort/retort.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRAIN = 90, TEST = 30, SIDE = 8, CLASSES = 3, PIXELS = SIDE * SIDE };

static char folder[] = "/tmp/retort-library-XXXXXX";
static float pixels[(TRAIN + TEST) * PIXELS];
static int32_t labels[TRAIN + TEST];

static const char recipe[] = "data: {kind: npy, path: bars.npz}\n"
                             "network: {depth: 1, width: 8}\n"
                             "inner: {steps: 6, lr: 0.02}\n"
                             "set: {init: real}\n"
                             "method: {window: 3, range: 1}\n"
                             "outer: {steps: 4, lr: 0.01, real_batch: 24}\n"
                             "evaluate: {networks: 2, steps: [10, 20]}\n";

static char *path_in(const char *name, char path[256]) {
    snprintf(path, 256, "%s/%s", folder, name);
    return path;
}

static struct retort_images part(int begin, int count) {
    return (struct retort_images){count, 1, SIDE, SIDE, pixels + begin * PIXELS, labels + begin};
}

static int prepare(void **state) {
    (void)state;
    char path[256];
    unsigned random = 1;
    if (!mkdtemp(folder)) return -1;
    for (int i = 0; i < TRAIN + TEST; i++) {
        labels[i] = i % CLASSES;
        for (int j = 0; j < PIXELS; j++) {
            random = random * 1664525 + 1013904223;
            pixels[i * PIXELS + j] = (float)(random >> 8) / 0x1p24f * 0.5f;
            if (j / SIDE == 1 + 2 * labels[i]) pixels[i * PIXELS + j] += 0.5f;
        }
    }
    setenv("RETORT_WISDOM", "off", 1);
    retort_log_verbosity(0);
    const struct retort_images train = part(0, TRAIN), test = part(TRAIN, TEST);
    return retort_data_write(path_in("bars.npz", path), &train, &test);
}

static int clean(void **state) {
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

/* --- helpers --- */
struct watch {
    int steps, stop_after;
    volatile int stop;
};

static void on_progress(void *user, const struct retort_progress *progress) {
    struct watch *watch = user;
    watch->steps++;
    if (progress->outer_step == watch->stop_after) watch->stop = 1;
}

static int run_into(const char *out, const char *const *settings, int resume, struct watch *watch) {
    char path[256];
    struct retort_run *run = NULL;
    struct retort_run_options options = {.out = path_in(out, path),
                                         .settings = settings,
                                         .resume = resume,
                                         .progress = on_progress,
                                         .user = watch,
                                         .interrupt = &watch->stop};
    int status = retort_run_create_text("bars", folder, recipe, &options, &run);
    if (status == RETORT_OK) {
        assert_string_equal(retort_run_folder(run), path);
        status = retort_run_execute(run);
        if (status == RETORT_OK) assert_non_null(strstr(retort_run_result(run), "\"set_sha256\""));
    }
    retort_run_destroy(run);
    return status;
}

static struct retort_set *read_set(const char *name) {
    char path[256];
    struct retort_set *set = NULL;
    assert_ok(retort_set_read(path_in(name, path), &set));
    return set;
}

static void assert_error(int status, int expected, const char *words) {
    assert_int_equal(status, expected);
    if (!strstr(retort_error_message(), words)) fail_msg("no '%s' in: %s", words, retort_error_message());
}

static void write_file(const char *name, const char *words) {
    char path[256];
    FILE *stream = fopen(path_in(name, path), "w");
    assert_non_null(stream);
    assert_true(fputs(words, stream) >= 0);
    assert_int_equal(fclose(stream), 0);
}

/* --- tests --- */
static void test_version(void **state) {
    (void)state;
    int major, minor, patch;
    assert_int_equal(sscanf(retort_version(), "%d.%d.%d", &major, &minor, &patch), 3);
}

static void test_data(void **state) {
    (void)state;
    char path[256];
    struct retort_images train = part(0, TRAIN), test = part(TRAIN, TEST);
    path_in("wrong.npz", path);
    pixels[3 * PIXELS] += 2;
    assert_error(retort_data_write(path, &train, NULL), RETORT_EINVAL, "a pixel of image 3 is");
    pixels[3 * PIXELS] -= 2;
    labels[5] = -1;
    assert_error(retort_data_write(path, &train, NULL), RETORT_EINVAL, "label 5 is -1");
    labels[5] = 5 % CLASSES;
    test.width = 4;
    assert_error(retort_data_write(path, &train, &test), RETORT_EINVAL, "1 x 8 x 4");
    train.count = 0;
    assert_error(retort_data_write(path, &train, NULL), RETORT_EINVAL, "train: 0 images");
    assert_int_not_equal(access(path, F_OK), 0);
    train = part(0, TRAIN);
    assert_error(retort_data_write("/nowhere/at/all.npz", &train, NULL), RETORT_EIO, "/nowhere/at/all.npz");
}

/* From images in memory to the set, stopped on the way by the callback and gone on with. */
static void test_whole(void **state) {
    (void)state;
    struct watch watch = {.stop_after = 2};
    assert_error(run_into("one", NULL, 0, &watch), RETORT_EINTERRUPTED, "outer step 2 of 4");
    char path[256];
    struct retort_set *set = NULL;
    assert_error(retort_set_read(path_in("one", path), &set), RETORT_EINVAL, "is not finished");
    assert_null(set);
    watch = (struct watch){0};
    assert_ok(run_into("one", NULL, 1, &watch));
    assert_int_equal(watch.steps, 2);

    set = read_set("one");
    const struct retort_set_shape *shape = retort_set_shape(set);
    assert_int_equal(shape->count, CLASSES);
    assert_int_equal(shape->channels, 1);
    assert_int_equal(shape->height, SIDE);
    assert_int_equal(shape->width, SIDE);
    assert_int_equal(shape->classes, CLASSES);
    assert_int_equal(shape->ipc, 1);
    assert_null(retort_set_soft_labels(set));
    assert_true(retort_set_inner_lr(set) == 0.02);
    for (int k = 0; k < CLASSES; k++) assert_int_equal(retort_set_labels(set)[k], k);
    assert_string_equal(retort_set_class_name(set, 2), "2");
    assert_null(retort_set_class_name(set, CLASSES));
    assert_null(retort_set_class_name(set, -1));
    assert_non_null(strstr(retort_set_about(set), "\"recipe\""));

    /* Pixels are what the images are before normalisation: a bar on noise still, and there and back is the same. */
    float seen[CLASSES * PIXELS];
    int exact = 0;
    assert_ok(retort_set_pixels(set, seen, &exact));
    assert_int_equal(exact, 1);
    for (int k = 0; k < CLASSES; k++) {
        float bar = 0, all = 0;
        for (int j = 0; j < PIXELS; j++) {
            all += seen[k * PIXELS + j] / PIXELS;
            if (j / SIDE == 1 + 2 * k) bar += seen[k * PIXELS + j] / SIDE;
        }
        assert_true(all > 0.1f && all < 0.6f && bar > all + 0.2f);
    }
    assert_ok(retort_set_normalise(set, seen, CLASSES));
    for (int i = 0; i < CLASSES * PIXELS; i++) assert_true(fabsf(seen[i] - retort_set_images(set)[i]) < 1e-4f);
    retort_set_destroy(set);

    /* The folder set/ by itself is the same set. */
    set = read_set("one/set");
    assert_int_equal(retort_set_shape(set)->count, CLASSES);
    retort_set_destroy(set);
}

static void test_soft(void **state) {
    (void)state;
    struct watch watch = {0};
    assert_ok(run_into("soft", (const char *const[]){"set.labels=soft", "set.ipc=2", "inner.learn_lr=true", NULL}, 0,
                       &watch));
    struct retort_set *set = read_set("soft");
    assert_int_equal(retort_set_shape(set)->count, 2 * CLASSES);
    assert_non_null(retort_set_soft_labels(set));
    for (int i = 0; i < 2 * CLASSES; i++) assert_int_equal(retort_set_labels(set)[i], i / 2);
    assert_true(retort_set_soft_labels(set)[0] > 0.5f && retort_set_inner_lr(set) > 0
                && retort_set_inner_lr(set) != 0.02);
    retort_set_destroy(set);
}

static void test_evaluate(void **state) {
    (void)state;
    char path[256], images[256], classes[256], descriptor[256];
    struct retort_evaluation *one = NULL, *two = NULL;
    assert_ok(retort_evaluate(path_in("one", path), NULL, &one));
    const struct retort_accuracy *distilled = retort_evaluation_accuracy(one, RETORT_DISTILLED);
    assert_int_equal(distilled->networks, 2);
    assert_true(distilled->step == 10 || distilled->step == 20);
    assert_int_equal(distilled->chosen_on_test, 1);
    assert_true(fabs(distilled->mean - (distilled->runs[0] + distilled->runs[1]) / 2) < 1e-9);
    assert_non_null(retort_evaluation_accuracy(one, RETORT_RANDOM));
    assert_null(retort_evaluation_accuracy(one, RETORT_FULL));
    assert_non_null(strstr(retort_evaluation_json(one), "\"distilled\""));

    /* The arrays by themselves, with the recipe from a file, and one network of those. */
    write_file("bars.yaml", recipe);
    const struct retort_evaluate_options options = {
        .labels = path_in("one/set/labels.npy", classes),
        .descriptor = path_in("bars.yaml", descriptor),
        .settings = (const char *const[]){"evaluate.networks=1", "evaluate.steps=[20]", NULL}};
    assert_ok(retort_evaluate(path_in("one/set/images.npy", images), &options, &two));
    const struct retort_accuracy *alone = retort_evaluation_accuracy(two, RETORT_DISTILLED);
    assert_int_equal(alone->networks, 1);
    assert_true(isnan(alone->sd));
    assert_int_equal(alone->step, 20);
    assert_int_equal(alone->chosen_on_test, 0);
    if (distilled->step == 20) assert_true(alone->runs[0] == distilled->runs[0]);
    double mean = alone->mean;
    retort_evaluation_destroy(one);
    retort_evaluation_destroy(two);

    one = NULL;
    const struct retort_evaluate_options memory = {
        .labels = classes, .text = recipe, .folder = folder, .settings = options.settings};
    assert_ok(retort_evaluate(images, &memory, &one));
    assert_true(retort_evaluation_accuracy(one, RETORT_DISTILLED)->mean == mean);
    retort_evaluation_destroy(one);

    volatile int stop = 1;
    one = NULL;
    assert_int_equal(retort_evaluate(path, &(struct retort_evaluate_options){.interrupt = &stop}, &one),
                     RETORT_EINTERRUPTED);
    assert_null(one);
    assert_error(retort_evaluate("/nowhere", NULL, &one), RETORT_EINVAL, "/nowhere is not there");
    assert_error(retort_evaluate(images, &(struct retort_evaluate_options){.labels = classes}, &one), RETORT_EINVAL,
                 "name a descriptor");
    retort_evaluation_destroy(NULL);
}

static void test_mistakes(void **state) {
    (void)state;
    struct retort_run *run = NULL;
    struct retort_set *set = NULL;
    char path[256];
    struct retort_run_options options = {.out = path_in("never", path)};
    assert_error(retort_run_create_text("mine", folder, "data: {kind: npy, path: bars.npz}\nouter: {stepz: 3}\n",
                                        &options, &run),
                 RETORT_EINVAL, "mine:2");
    assert_non_null(strstr(retort_error_message(), "outer.steps"));
    assert_error(retort_run_create_text("mine", "/nowhere", recipe, &options, &run), RETORT_EINVAL, "/nowhere");
    assert_error(retort_run_create(NULL, NULL, &run), RETORT_EINVAL, "no descriptor");
    options.reserved[2] = folder;
    assert_error(retort_run_create_text("mine", folder, recipe, &options, &run), RETORT_EINVAL, "reserved[2]");
    assert_null(run);

    /* Bare arrays are a set, but its pixels are not known; damaged ones are none. */
    char command[1200];
    snprintf(command, sizeof command,
             "cd %s && mkdir bare torn && cp one/set/images.npy one/set/labels.npy bare && cp one/set/* torn "
             "&& sed -i 's/\"classes\": 3/\"classes\": 2/' torn/set.json",
             folder);
    assert_int_equal(system(command), 0);
    set = read_set("bare");
    float seen[CLASSES * PIXELS];
    assert_int_equal(retort_set_shape(set)->classes, CLASSES);
    assert_int_equal(retort_set_shape(set)->ipc, 0);
    assert_true(retort_set_inner_lr(set) == 0);
    assert_error(retort_set_pixels(set, seen, NULL), RETORT_EINVAL, "normalisation.npz");
    assert_error(retort_set_normalise(set, seen, 1), RETORT_EINVAL, "normalisation.npz");
    retort_set_destroy(set);
    set = NULL;
    assert_error(retort_set_read(path_in("torn", path), &set), RETORT_EFORMAT, "set.json");
    write_file("torn/images.npy", "no array");
    assert_error(retort_set_read(path, &set), RETORT_EFORMAT, "images.npy");
    assert_null(set);
    retort_set_destroy(NULL);
    retort_run_destroy(NULL);
}

/* Two runs at the same time are the runs that each is alone, and each thread has its own message. */
struct other {
    const char *out;
    int status;
    char message[200];
};

static void *run_other(void *pointer) {
    struct other *other = pointer;
    struct watch watch = {0};
    struct retort_run *none = NULL;
    other->status = run_into(other->out, NULL, 0, &watch);
    retort_run_create_text(other->out, folder, "seed: [1]\n", NULL, &none);
    snprintf(other->message, sizeof other->message, "%s", retort_error_message());
    return NULL;
}

static void test_threads(void **state) {
    (void)state;
    pthread_t threads[2];
    struct other others[2] = {{.out = "left"}, {.out = "right"}};
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&threads[i], NULL, run_other, &others[i]), 0);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    struct retort_set *alone = read_set("one");
    for (int i = 0; i < 2; i++) {
        if (others[i].status < 0) fail_msg("%s: %s", others[i].out, others[i].message);
        assert_non_null(strstr(others[i].message, others[i].out));
        struct retort_set *set = read_set(others[i].out);
        assert_memory_equal(retort_set_images(set), retort_set_images(alone), CLASSES * PIXELS * sizeof(float));
        retort_set_destroy(set);
    }
    retort_set_destroy(alone);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version), cmocka_unit_test(test_data),     cmocka_unit_test(test_whole),
        cmocka_unit_test(test_soft),    cmocka_unit_test(test_evaluate), cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests_name("library", tests, prepare, clean);
}
