/* Runs through the public interface, on a tiny data set of its own: progress, interruption, resuming, every kind of
 * label and protocol, sets without test images, and what is left behind by a failure. */
#include "test.h"

#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "compile/wisdom.h"
#include "data/data.h"
#include "retort/device.h"
#include "retort/log.h"
#include "retort/run.h"

#include <jansson.h>
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

static int prepare(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    static uint8_t train[TRAIN * SIDE * SIDE], test[TEST * SIDE * SIDE];
    int32_t train_labels[TRAIN], test_labels[TEST];
    struct random random = random_begin(3, RANDOM_TEST, 0);
    draw(&random, TRAIN, train, train_labels);
    draw(&random, TEST, test, test_labels);
    const struct npy_member members[] = {
        {"images", NPY_UINT8, 4, (const int64_t[]){TRAIN, 1, SIDE, SIDE}, train},
        {"labels", NPY_INT32, 1, (const int64_t[]){TRAIN}, train_labels},
        {"test_images", NPY_UINT8, 4, (const int64_t[]){TEST, 1, SIDE, SIDE}, test},
        {"test_labels", NPY_INT32, 1, (const int64_t[]){TEST}, test_labels},
    };
    char path[FILE_PATH_MAX];
    if (npz_write(path_in("bars.npz", path), members, 4) < 0) return -1;
    if (npz_write(path_in("untested.npz", path), members, 2) < 0) return -1;
    write_descriptor("bars.yaml", "bars.npz");
    write_descriptor("untested.yaml", "untested.npz");
    retort_log_verbosity(0);
    setenv("RETORT_WISDOM", "off", 1);
    return 0;
}

static int clean(void **state) {
    (void)state;
    return folder_remove(folder);
}

/* --- helpers --- */
struct watch {
    int steps, stop_after;
    volatile int stop;
};

static void on_progress(void *user, const struct retort_progress *progress) {
    struct watch *watch = user;
    watch->steps++;
    assert_int_equal(progress->outer_steps, 8);
    assert_true(progress->loss > 0 && progress->accuracy >= 0 && progress->accuracy <= 100);
    if (progress->outer_step == watch->stop_after) watch->stop = 1;
}

/* Runs bars.yaml into a folder with some settings; the caller destroys *run. */
static int run_once(const char *descriptor, const char *out, const char *const *settings, bool resume,
                    struct watch *watch, struct retort_run **run) {
    char path[FILE_PATH_MAX], out_path[FILE_PATH_MAX];
    struct retort_run_options options = {.out = path_in(out, out_path), .settings = settings, .resume = resume};
    if (watch) {
        options.progress = on_progress;
        options.user = watch;
        options.interrupt = &watch->stop;
    }
    *run = NULL;
    int status = retort_run_create(path_in(descriptor, path), &options, run);
    if (status == RETORT_OK) status = retort_run_execute(*run);
    return status;
}

static void assert_same_file(const char *a, const char *b) {
    char path[FILE_PATH_MAX];
    unsigned char *x, *y;
    size_t n, m;
    assert_ok(file_read(path_in(a, path), 0, &x, &n));
    assert_ok(file_read(path_in(b, path), 0, &y, &m));
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static bool there(const char *name) {
    char path[FILE_PATH_MAX];
    return file_exists(path_in(name, path));
}

static double number(const json_t *object, const char *section, const char *row, const char *key) {
    const json_t *value = json_object_get(json_object_get(json_object_get(object, section), row), key);
    if (!json_is_number(value)) fail_msg("no %s.%s.%s", section, row, key);
    return json_number_value(value);
}

/* --- tests --- */
static void test_interrupted(void **state) {
    (void)state;
    struct retort_run *run;
    struct watch watch = {0};
    assert_ok(run_once("bars.yaml", "whole", NULL, false, &watch, &run));
    assert_int_equal(watch.steps, 8);
    json_t *result = json_loads(retort_run_result(run), 0, NULL);
    assert_non_null(result);
    assert_true(number(result, "accuracy", "distilled", "mean") > 50);
    assert_int_equal(
        json_array_size(json_object_get(json_object_get(json_object_get(result, "accuracy"), "random"), "runs")), 2);
    json_decref(result);
    retort_run_destroy(run);

    /* Stopped twice, resumed twice: the same set. */
    watch = (struct watch){.stop_after = 3};
    assert_int_equal(run_once("bars.yaml", "halting", NULL, false, &watch, &run), RETORT_EINTERRUPTED);
    assert_non_null(strstr(retort_error_message(), "outer step 3 of 8"));
    assert_null(retort_run_result(run));
    retort_run_destroy(run);
    assert_true(there("halting/checkpoint/000003.npz"));
    assert_false(there("halting/set/images.npy"));
    watch = (struct watch){.stop_after = 5};
    assert_int_equal(run_once("bars.yaml", "halting", NULL, true, &watch, &run), RETORT_EINTERRUPTED);
    assert_int_equal(watch.steps, 2);
    retort_run_destroy(run);
    assert_ok(run_once("bars.yaml", "halting", NULL, true, NULL, &run));
    retort_run_destroy(run);
    assert_same_file("whole/set/images.npy", "halting/set/images.npy");
    assert_same_file("whole/set/set.json", "halting/set/set.json");

    /* Finished: nothing is done again. */
    watch = (struct watch){0};
    assert_ok(run_once("bars.yaml", "halting", NULL, true, &watch, &run));
    assert_int_equal(watch.steps, 0);
    assert_non_null(retort_run_result(run));
    retort_run_destroy(run);
}

static int64_t peak_bytes(const struct retort_run *run) {
    json_t *result = json_loads(retort_run_result(run), 0, NULL);
    int64_t bytes = json_integer_value(json_object_get(result, "peak_device_bytes"));
    json_decref(result);
    return bytes;
}

/* What a ceiling leaves is used, to the last byte at most, and a resumed run uses it in the same way. */
static void test_memory(void **state) {
    (void)state;
    struct retort_run *run;
    char memory[40];
    const char *settings[] = {"network.width=16", "evaluate.networks=1", "memory=none", NULL};
    assert_ok(run_once("bars.yaml", "little", settings, false, NULL, &run));
    int64_t little = peak_bytes(run);
    retort_run_destroy(run);
    settings[2] = "memory=64 MiB";
    assert_ok(run_once("bars.yaml", "much", settings, false, NULL, &run));
    int64_t much = peak_bytes(run);
    retort_run_destroy(run);
    assert_in_range(much, little + 1, 64 << 20);

    snprintf(memory, sizeof memory, "memory=%lld", (long long)much - 4);
    settings[2] = memory;
    assert_ok(run_once("bars.yaml", "some", settings, false, NULL, &run));
    assert_in_range(peak_bytes(run), little + 1, much - 4);
    retort_run_destroy(run);
    struct watch watch = {.stop_after = 3};
    assert_int_equal(run_once("bars.yaml", "some halting", settings, false, &watch, &run), RETORT_EINTERRUPTED);
    retort_run_destroy(run);
    assert_ok(run_once("bars.yaml", "some halting", settings, true, NULL, &run));
    retort_run_destroy(run);
    assert_same_file("some/set/images.npy", "some halting/set/images.npy");
    settings[2] = "memory=64 MiB";
    assert_int_equal(run_once("bars.yaml", "some halting", settings, true, NULL, &run), RETORT_EINVAL);
    retort_run_destroy(run);
}

/* A run takes the user's wisdom, keeps it, and goes on with it when the user's is another or none. */
static void test_wisdom(void **state) {
    (void)state;
    char path[FILE_PATH_MAX], name[17], kept[17];
    struct device *device;
    struct wisdom *wisdom;
    struct retort_run *run;
    assert_ok(device_open(NULL, &device));
    const struct kernel_target target = kernels_target(device_traits(device), FAMILY_CPU);
    /* The first layer's forward pass on the set, one pixel at a time. */
    const struct conv_class first = {
        CONV_FORWARD, {CLASSES, 1, SIDE, SIDE, 4, 3, 3, SIDE, SIDE, .stride = 1, .padding = 1}, CONV_SINGLE};
    assert_ok(wisdom_remember(path_in("users wisdom", path), &target, &first, &(struct conv_choice){0, {1, 1, 1}}));
    assert_ok(wisdom_load(path, &target, &wisdom));
    wisdom_name(wisdom, name);
    wisdom_destroy(wisdom);
    assert_string_not_equal(name, "none");
    setenv("RETORT_WISDOM", path, 1);
    static const char *const family[] = {"device.family=cpu", NULL};
    assert_ok(run_once("bars.yaml", "wise", family, false, NULL, &run));
    json_t *result = json_loads(retort_run_result(run), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(result, "wisdom")), name);
    json_decref(result);
    retort_run_destroy(run);

    struct watch watch = {.stop_after = 3};
    assert_int_equal(run_once("bars.yaml", "wise halting", family, false, &watch, &run), RETORT_EINTERRUPTED);
    retort_run_destroy(run);
    setenv("RETORT_WISDOM", "off", 1);
    assert_ok(wisdom_load(path_in("wise halting/wisdom", path), &target, &wisdom));
    wisdom_name(wisdom, kept);
    wisdom_destroy(wisdom);
    assert_string_equal(kept, name);
    assert_ok(run_once("bars.yaml", "wise halting", family, true, NULL, &run));
    retort_run_destroy(run);
    assert_same_file("wise/set/images.npy", "wise halting/set/images.npy");
    assert_same_file("wise/set/set.json", "wise halting/set/set.json");

    /* Begun without, a run stays without. */
    assert_false(there("whole/wisdom"));
    device_close(device);
}

static void test_refused(void **state) {
    (void)state;
    struct retort_run *run = NULL;
    assert_int_equal(retort_run_create(NULL, &(struct retort_run_options){0}, &run), RETORT_EINVAL);
    assert_int_equal(retort_run_create("/nowhere.yaml", &(struct retort_run_options){0}, &run), RETORT_EINVAL);
    assert_int_equal(run_once("bars.yaml", "x", (const char *const[]){"outer.lr=fast", NULL}, false, NULL, &run),
                     RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "setting outer.lr=fast: outer.lr: found 'fast'"));
    /* Known only when the data is read. */
    assert_int_equal(run_once("bars.yaml", "x", (const char *const[]){"network.depth=5", NULL}, false, NULL, &run),
                     RETORT_EINVAL);
    retort_run_destroy(run);
    assert_int_equal(run_once("bars.yaml", "x", (const char *const[]){"data.classes=[0, 7]", NULL}, false, NULL, &run),
                     RETORT_EINVAL);
    retort_run_destroy(run);
    assert_int_equal(
        run_once("bars.yaml", "x", (const char *const[]){"inner.batch.classes=4", NULL}, false, NULL, &run),
        RETORT_EINVAL);
    retort_run_destroy(run);
    assert_false(there("x"));
}

static void test_dry(void **state) {
    (void)state;
    char path[FILE_PATH_MAX], out[FILE_PATH_MAX];
    struct retort_run *run;
    assert_ok(retort_run_create(path_in("bars.yaml", path),
                                &(struct retort_run_options){.out = path_in("dry", out), .dry_run = 1}, &run));
    assert_ok(retort_run_execute(run));
    assert_null(retort_run_result(run));
    assert_string_equal(retort_run_folder(run), out);
    retort_run_destroy(run);
    assert_false(there("dry"));
}

/* Learned labels and rate, a held-out split, mini-batches, the other protocol, all of train as a reference. */
static void test_settings(void **state) {
    (void)state;
    struct retort_run *run;
    static const char *const settings[] = {"set={ipc: 2, labels: soft, init: real}",
                                           "inner={learn_lr: true, batch: {per_class: 1, classes: 2}}",
                                           "data.holdout=0.2",
                                           "data.normalise=zca",
                                           "evaluate={full_data: true, networks: 1}",
                                           "method={truncation: random}",
                                           NULL};
    assert_ok(run_once("bars.yaml", "soft", settings, false, NULL, &run));
    json_t *result = json_loads(retort_run_result(run), 0, NULL);
    const json_t *row = json_object_get(json_object_get(result, "accuracy"), "full");
    assert_string_equal(json_string_value(json_object_get(row, "chosen_on")), "holdout");
    assert_true(json_is_null(json_object_get(row, "sd")));
    assert_true(json_is_null(json_object_get(result, "stages")));
    json_decref(result);
    retort_run_destroy(run);
    char path[FILE_PATH_MAX];
    struct npy labels;
    assert_ok(npy_read(path_in("soft/set/labels.npy", path), &labels));
    assert_int_equal(labels.rank, 2);
    assert_int_equal(labels.size[0], 6);
    npy_finish(&labels);

    assert_ok(run_once("bars.yaml", "dc",
                       (const char *const[]){"evaluate={protocol: dc, epochs: 4, augment: false}", NULL}, false, NULL,
                       &run));
    result = json_loads(retort_run_result(run), 0, NULL);
    assert_non_null(strstr(json_string_value(json_object_get(result, "protocol")), "dc"));
    json_decref(result);
    retort_run_destroy(run);
}

/* Text of a file, which replaces one passage of it. */
static void replace(const char *name, const char *passage, const char *with) {
    char path[FILE_PATH_MAX];
    unsigned char *text;
    size_t size;
    struct text changed;
    text_init(&changed);
    assert_ok(file_read(path_in(name, path), 0, &text, &size));
    char *at = strstr((char *)text, passage);
    if (!at) fail_msg("no '%s' in %s", passage, (char *)text);
    *at = '\0';
    text_append(&changed, (char *)text);
    text_append(&changed, with);
    text_append(&changed, at + strlen(passage));
    assert_ok(file_write(path, text_get(&changed), changed.length));
    text_finish(&changed);
    free(text);
}

/* A folder as the first version began it: other keys, the length of the inner run among those of the method. */
static void test_old_folder(void **state) {
    (void)state;
    struct retort_run *run;
    struct watch watch = {.stop_after = 3};
    assert_int_equal(run_once("bars.yaml", "old", NULL, false, &watch, &run), RETORT_EINTERRUPTED);
    retort_run_destroy(run);
    replace("old/descriptor.yaml", "inner:\n  steps: 6\n", "inner:\n");
    replace("old/descriptor.yaml", "  name: bptt\n", "  name: bptt\n  steps: 6\n");
    replace("old/descriptor.yaml", "  indices: null\n", "");
    replace("old/descriptor.yaml",
            "  optimizer: adam\n  momentum: 0\n  lr: 0.01\n  lr_labels: 0.01\n  lr_inner: 0.01\n", "  lr: 0.01\n");
    assert_ok(run_once("bars.yaml", "old", NULL, true, NULL, &run));
    retort_run_destroy(run);
    assert_same_file("whole/set/images.npy", "old/set/images.npy");
    assert_same_file("whole/set/set.json", "old/set/set.json");
}

/* The names under which users' scripts find things. */
static void test_names(void **state) {
    (void)state;
    char path[FILE_PATH_MAX];
    unsigned char *text;
    size_t size;
    static const char *const names[] = {"outer_step", "loss",          "accuracy", "stage",  "end",
                                        "window",     "gradient_norm", "inner_lr", "cosine", "seconds"};
    assert_ok(file_read(path_in("whole/metrics.jsonl", path), 0, &text, &size));
    *strchr((char *)text, '\n') = '\0';
    json_t *line = json_loads((const char *)text, 0, NULL);
    free(text);
    assert_int_equal(json_object_size(line), sizeof names / sizeof *names);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) assert_non_null(json_object_get(line, names[i]));
    assert_string_equal(json_string_value(json_object_get(line, "stage")), "early");
    assert_true(json_is_null(json_object_get(line, "cosine")));
    assert_true(json_is_integer(json_object_get(line, "window")));
    json_decref(line);
    assert_ok(file_read(path_in("whole/result.json", path), 0, &text, &size));
    json_t *result = json_loads((const char *)text, 0, NULL);
    free(text);
    assert_string_equal(json_string_value(json_object_get(result, "method")), "bptt");
    assert_string_equal(json_string_value(json_object_get(result, "truncation")), "dynamic");
    json_t *stages = json_object_get(result, "stages");
    assert_int_equal(json_integer_value(json_object_get(stages, "early"))
                         + json_integer_value(json_object_get(stages, "middle"))
                         + json_integer_value(json_object_get(stages, "late")),
                     8);
    json_decref(result);
}

/* A set may start from rows that somebody chose, named in a text or a .npy. */
static void test_indices(void **state) {
    (void)state;
    char path[FILE_PATH_MAX];
    struct retort_run *run;
    const char *list = "# one of each class\n 7,\n3 # the first\n5\n";
    assert_ok(file_write(path_in("rows.txt", path), list, strlen(list)));
    static const int64_t rows[] = {3, 7, 5}, three = 3;
    assert_ok(npy_write(path_in("rows.npy", path), NPY_INT64, 1, &three, rows));
    static const char *const from_text[] = {"set={init: indices, indices: rows.txt}", NULL};
    static const char *const from_npy[] = {"set={init: indices, indices: rows.npy}", NULL};
    assert_ok(run_once("bars.yaml", "text", from_text, false, NULL, &run));
    retort_run_destroy(run);
    assert_ok(run_once("bars.yaml", "npy", from_npy, false, NULL, &run));
    retort_run_destroy(run);
    assert_same_file("text/set/images.npy", "npy/set/images.npy");

    list = "3 7\nfive\n";
    assert_ok(file_write(path_in("rows.txt", path), list, strlen(list)));
    assert_int_equal(run_once("bars.yaml", "x", from_text, false, NULL, &run), RETORT_EFORMAT);
    assert_non_null(strstr(retort_error_message(), "rows.txt:2: found 'five', expected a row's number"));
    retort_run_destroy(run);
    assert_ok(file_write(path, "3 7 6", 5));
    assert_int_equal(run_once("bars.yaml", "x", from_text, false, NULL, &run), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "rows of class 0"));
    retort_run_destroy(run);
    assert_false(there("x"));
}

static void test_untested(void **state) {
    (void)state;
    struct retort_run *run;
    assert_ok(run_once("untested.yaml", "untested", NULL, false, NULL, &run));
    json_t *result = json_loads(retort_run_result(run), 0, NULL);
    assert_int_equal(json_object_size(json_object_get(result, "accuracy")), 0);
    json_decref(result);
    retort_run_destroy(run);
    assert_true(there("untested/set/images.npy"));
}

static void test_not_a_number(void **state) {
    (void)state;
    struct retort_run *run;
    /* Rates so large that images, or weights, leave the floats. */
    int status =
        run_once("bars.yaml", "nan", (const char *const[]){"outer.lr=1e38", "outer.steps=20", NULL}, false, NULL, &run);
    assert_int_equal(status, RETORT_ENUMERIC);
    assert_non_null(strstr(retort_error_message(), "outer step"));
    retort_run_destroy(run);
    assert_true(there("nan/descriptor.yaml"));
    assert_false(there("nan/result.json"));
}

static void test_devices(void **state) {
    (void)state;
    struct retort_device *devices;
    size_t count;
    assert_ok(retort_device_list(&devices, &count));
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(devices[i].index, (int)i);
        assert_true(strlen(devices[i].name) > 0 && devices[i].global_memory > 0);
    }
    retort_device_list_free(devices);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_interrupted), cmocka_unit_test(test_old_folder),   cmocka_unit_test(test_names),
        cmocka_unit_test(test_indices),     cmocka_unit_test(test_memory),       cmocka_unit_test(test_wisdom),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_dry),          cmocka_unit_test(test_settings),
        cmocka_unit_test(test_untested),    cmocka_unit_test(test_not_a_number), cmocka_unit_test(test_devices),
    };
    return cmocka_run_group_tests_name("run", tests, prepare, clean);
}
