/* Runs through the public interface, on a tiny data set of its own: progress, interruption, resuming, every kind of
 * label and protocol, sets without test images, and what is left behind by a failure. */
#include "bars.h"

#include "base/file.h"
#include "base/log.h"
#include "base/random.h"
#include "compile/wisdom.h"
#include "data/data.h"
#include "device/fft.h"
#include "device/gemm.h"
#include "retort/device.h"
#include "retort/log.h"
#include "retort/run.h"
#include "run/checkpoint.h"
#include "run/forecast.h"
#include "run/prepare.h"
#include "run/run.h"
#include "run/run_folder.h"

#include <jansson.h>
#include <locale.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <unistd.h>

/* --- helpers --- */
struct watch {
    int steps, stop_after;
    volatile int stop;
    bool no_accuracy; /* the method tells none */
};

static void on_progress(void *user, const struct retort_progress *progress) {
    struct watch *watch = user;
    watch->steps++;
    assert_true(progress->outer_steps == 8 || progress->outer_steps == 2);
    assert_true(progress->loss > 0);
    assert_true(watch->no_accuracy ? isnan(progress->accuracy) : progress->accuracy >= 0 && progress->accuracy <= 100);
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

static bool there(const char *name) {
    char path[FILE_PATH_MAX];
    return file_exists(path_in(name, path));
}

static double number(const json_t *object, const char *section, const char *row, const char *key) {
    const json_t *value = json_object_get(json_object_get(json_object_get(object, section), row), key);
    if (!json_is_number(value)) fail_msg("no %s.%s.%s", section, row, key);
    return json_number_value(value);
}

static void write_words(const char *name, const char *words) {
    char path[FILE_PATH_MAX];
    assert_ok(file_write(path_in(name, path), words, strlen(words)));
}

static void move(const char *from, const char *to) {
    char a[FILE_PATH_MAX], b[FILE_PATH_MAX];
    assert_int_equal(rename(path_in(from, a), path_in(to, b)), 0);
}

/* Runs until the outer step, or from there to the end, and throws the run away. */
static int run_until(const char *descriptor, const char *out, const char *const *settings, bool resume, int step) {
    struct retort_run *run;
    struct watch watch = {.stop_after = step};
    int status = run_once(descriptor, out, settings, resume, &watch, &run);
    retort_run_destroy(run);
    return status;
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

/* Changes a whole number in the plan of one training of a folder. */
static void edit_plan(const char *out, const char *training, const char *key, int value) {
    char name[64], path[FILE_PATH_MAX];
    snprintf(name, sizeof name, "%s/plan.json", out);
    json_t *plan = json_load_file(path_in(name, path), 0, NULL);
    json_t *part = json_object_get(json_object_get(plan, "trainings"), training);
    assert_non_null(json_object_get(part, key));
    assert_int_equal(json_object_set_new(part, key, json_integer(value)), 0);
    assert_int_equal(json_dump_file(plan, path, 0), 0);
    json_decref(plan);
}

/* The plan that a run began with is given back to each of its trainings, and the device set to the compute units that
 * it was made for. */
static void test_frozen(void **state) {
    (void)state;
    static const char *const trainings[] = {"distil", "distilled", "random"};
    assert_int_equal(run_until("bars.yaml", "frozen", NULL, false, 3), RETORT_EINTERRUPTED);
    for (int i = 0; i < 3; i++) {
        edit_plan("frozen", trainings[i], "inner_splits", 2); /* of 3 images */
        assert_int_equal(run_until("bars.yaml", "frozen", NULL, true, 0), RETORT_EINVAL);
        assert_non_null(strstr(retort_error_message(), "networks at once, inner batch in 2"));
        edit_plan("frozen", trainings[i], "inner_splits", 1);
    }
    /* As if it had begun on another number of threads: each training refuses a plan for another number than is set. */
    for (int i = 0; i < 3; i++) edit_plan("frozen", trainings[i], "compute_units", 61);
    assert_ok(run_until("bars.yaml", "frozen", NULL, true, 0));
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
    /* The ceiling may be another when the run goes on, but not too low for the plan that it began with. */
    settings[2] = "memory=20 kB";
    assert_int_equal(run_until("bars.yaml", "some halting", settings, true, 0), RETORT_ELIMIT);
    settings[2] = "memory=none";
    assert_int_equal(run_until("bars.yaml", "some halting", settings, true, 4), RETORT_EINTERRUPTED);
    /* Without a plan it decides what is computed how. */
    char plan_path[FILE_PATH_MAX];
    json_t *plan = json_load_file(path_in("some halting/plan.json", plan_path), 0, NULL), *old = json_deep_copy(plan);
    assert_int_equal(json_object_del(old, "trainings"), 0);
    assert_int_equal(json_dump_file(old, plan_path, 0), 0);
    assert_int_equal(run_until("bars.yaml", "some halting", settings, true, 0), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "was begun with memory"));
    settings[2] = memory;
    assert_int_equal(run_until("bars.yaml", "some halting", settings, true, 6), RETORT_EINTERRUPTED);
    assert_int_equal(json_dump_file(plan, plan_path, 0), 0);
    json_decref(plan);
    json_decref(old);
    settings[2] = "memory=64 MiB";
    assert_ok(run_until("bars.yaml", "some halting", settings, true, 0));
    assert_same_file("some/set/images.npy", "some halting/set/images.npy");
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
    const struct kernel_class first = {
        CONV_FORWARD, {CLASSES, 1, SIDE, SIDE, 4, 3, 3, SIDE, SIDE, .stride = 1, .padding = 1}, CONV_SINGLE};
    assert_ok(
        wisdom_remember(path_in("users wisdom", path), &target, &first, &(struct kernel_choice){"direct", {1, 1, 1}}));
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

/* A run takes CLBlast for the products that were measured to be faster so, and goes on with it when the user's wisdom
 * is gone. */
static void test_measured(void **state) {
    (void)state;
    char path[FILE_PATH_MAX];
    struct descriptor d;
    struct session session;
    struct kernel_demand *list;
    size_t count, at = 0;
    const char *expected = device_gemm_library() ? "auto" : "own";
    assert_ok(descriptor_read(path_in("bars.yaml", path), NULL, 0, &d));
    assert_ok(session_open(&d, 0, false, &session));
    assert_ok(session_choose_kernels(&session, "", "own"));
    assert_ok(prepare_classes(&d, &session, &list, &count));
    while (at < count && !class_is_product(&list[at].class)) at++;
    assert_true(at < count);
    const struct kernel_target target = kernels_target(device_traits(session.device), d.device.family);
    assert_ok(wisdom_remember(path_in("measured wisdom", path), &target, &list[at].class,
                              &(struct kernel_choice){.variant = "clblast"}));
    free(list);
    session_close(&session);
    descriptor_finish(&d);
    setenv("RETORT_WISDOM", path, 1);
    assert_ok(run_until("bars.yaml", "measured", NULL, false, 0));
    assert_int_equal(run_until("bars.yaml", "measured halting", NULL, false, 3), RETORT_EINTERRUPTED);
    setenv("RETORT_WISDOM", "off", 1);
    json_t *plan = json_load_file(path_in("measured halting/plan.json", path), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(plan, "gemm")), expected);
    json_decref(plan);
    assert_ok(run_until("bars.yaml", "measured halting", NULL, true, 0));
    assert_same_file("measured/set/images.npy", "measured halting/set/images.npy");
    assert_same_file("measured/set/set.json", "measured halting/set/set.json");
}

static void session_of(const char *descriptor, const char *kept, const char *expected) {
    char path[FILE_PATH_MAX];
    struct descriptor d;
    struct session session;
    const struct schema_override asked = {"--set", descriptor};
    assert_ok(descriptor_read(path_in("bars.yaml", path), &asked, 1, &d));
    assert_ok(session_open(&d, 0, false, &session));
    assert_ok(session_choose_kernels(&session, "", kept));
    assert_string_equal(library_gemm(session.library), expected);
    session_close(&session);
    descriptor_finish(&d);
}

static void assert_result(const char *run, const char *key, const char *expected) {
    char name[64], path[FILE_PATH_MAX];
    snprintf(name, sizeof name, "%s/result.json", run);
    json_t *result = json_load_file(path_in(name, path), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(result, key)), expected);
    json_decref(result);
}

/* Sets of coefficients, with everything that a set may have beside its images and with each method: stopped and resumed
 * to equal bytes. What is written are images, what is told is the room of the coefficients. */
static void test_frequency(void **state) {
    (void)state;
    static const char *const settings[][5] = {
        {"set={ipc: 4, init: noise, labels: soft, parameters: {kind: frequency, budget: 1}}", "inner.learn_lr=true",
         "data.holdout=0.2", "inner.batch.per_class=2"},
        {"set={ipc: 8, parameters: {kind: frequency, budget: 2}}", "method.real_per_class=8"},
    };
    static const int ipc[] = {4, 8}, budget[] = {1, 2};
    for (int i = 0; i < 2; i++) {
        const char *descriptor = i ? "matching.yaml" : "bars.yaml";
        struct retort_run *run;
        struct watch watch = {.stop_after = 3, .no_accuracy = i == 1};
        char whole[64], halting[64], images[96], other[96], path[FILE_PATH_MAX];
        struct npy npy;
        snprintf(whole, sizeof whole, "whole coefficients %d", i);
        snprintf(halting, sizeof halting, "halting coefficients %d", i);
        assert_ok(run_once(descriptor, whole, settings[i], false, NULL, &run));
        json_t *result = json_loads(retort_run_result(run), 0, NULL), *storage = json_object_get(result, "storage");
        assert_string_equal(json_string_value(json_object_get(storage, "kind")), "frequency");
        assert_int_equal(json_integer_value(json_object_get(storage, "floats")), budget[i] * CLASSES * SIDE * SIDE);
        assert_int_equal(json_integer_value(json_object_get(storage, "kept")), SIDE * SIDE / 4);
        json_decref(result);
        retort_run_destroy(run);
        assert_int_equal(run_once(descriptor, halting, settings[i], false, &watch, &run), RETORT_EINTERRUPTED);
        retort_run_destroy(run);
        assert_ok(run_once(descriptor, halting, settings[i], true, NULL, &run));
        retort_run_destroy(run);
        snprintf(images, sizeof images, "%s/set/images.npy", whole);
        snprintf(other, sizeof other, "%s/set/images.npy", halting);
        assert_same_file(images, other);
        assert_ok(npy_read(path_in(images, path), &npy));
        assert_true(npy.rank == 4 && npy.size[0] == ipc[i] * CLASSES && npy.size[2] == SIDE && npy.size[3] == SIDE);
        npy_finish(&npy);
        snprintf(images, sizeof images, "%s/set/set.json", whole);
        snprintf(other, sizeof other, "%s/set/set.json", halting);
        assert_same_file(images, other);
        snprintf(other, sizeof other, "%s/preview.png", halting);
        assert_true(there(other));
    }
    /* No 64 floats can be divided among 3 images. */
    static const char *const odd[] = {"set={ipc: 3, parameters: {kind: frequency, budget: 1}}", NULL};
    struct retort_run *run;
    assert_int_equal(run_once("bars.yaml", "odd", odd, false, NULL, &run), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "set.parameters.budget"));
    assert_non_null(strstr(retort_error_message(), "set.ipc 3"));
    retort_run_destroy(run);
    assert_false(there("odd"));
}

/* --- forecasts --- */
/* The images after three steps, with a forecast before them or without one. */
static float *images_after(const struct descriptor *d, struct session *session, bool foreseen, int64_t *count) {
    struct run_plan plan = {0};
    struct distill *distill;
    double seconds = 0;
    const struct metrics *metrics;
    assert_ok(session_choose_kernels(session, "", NULL));
    assert_ok(prepare_run(d, session, &plan, NULL, &distill));
    if (foreseen) {
        assert_ok(distill_forecast(distill, 0.01, &seconds));
        assert_true(seconds > 0 && seconds < 60);
    }
    for (int i = 0; i < 3; i++) assert_ok(distill_step(distill, &metrics));
    *count = distill_set_count(distill) * SIDE * SIDE;
    float *images = malloc((size_t)*count * sizeof *images);
    int32_t labels[64];
    assert_true(images && distill_set_count(distill) <= 64);
    assert_ok(distill_read_set(distill, images, NULL, labels));
    distill_destroy(distill);
    return images;
}

/* A forecast changes no step to come, whatever the method. */
static void test_forecast_changes_nothing(void **state) {
    (void)state;
    static const char *const settings[][3] = {
        {"method.truncation=dynamic", "method.probe_every=2"},
        {"method.hessian=lanczos", "method.rank=3", "method.refresh=2"},
        {"method.name=dm", "method.real_per_class=8", "method.augment=true"},
        {"set={ipc: 4, parameters: {kind: frequency, budget: 1}}"},
    };
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char path[FILE_PATH_MAX];
        struct schema_override asked[3];
        struct descriptor d;
        struct session session;
        int64_t count;
        bool dm = strstr(settings[i][0], "dm");
        size_t wanted = 0;
        for (; wanted < 3 && settings[i][wanted]; wanted++)
            asked[wanted] = (struct schema_override){"--set", settings[i][wanted]};
        assert_ok(descriptor_read(path_in(dm ? "matching.yaml" : "bars.yaml", path), asked, wanted, &d));
        assert_ok(session_open(&d, 0, false, &session));
        float *plain = images_after(&d, &session, false, &count), *foreseen = images_after(&d, &session, true, &count);
        assert_memory_equal(plain, foreseen, (size_t)count * sizeof *plain);
        free(plain);
        free(foreseen);
        session_close(&session);
        descriptor_finish(&d);
    }
}

/* What was foreseen is what a run takes: of memory to the byte, with a ceiling, without, where nothing is evaluated and
 * where coefficients are stored; and the run keeps it. */
static void test_forecast(void **state) {
    (void)state;
    static const char *const descriptors[] = {"bars.yaml", "bars.yaml", "untested.yaml", "bars.yaml"};
    static const char *const changes[] = {"seed=0", "memory=2 MB", "data.test=0",
                                          "set={ipc: 4, parameters: {kind: frequency, budget: 1}}"};
    for (int i = 0; i < 4; i++) {
        char path[FILE_PATH_MAX], out[32], plan_name[64], result_name[64];
        const struct schema_override asked = {"--set", changes[i]};
        struct descriptor d;
        struct forecast forecast;
        snprintf(out, sizeof out, "foreseen %d", i);
        snprintf(plan_name, sizeof plan_name, "%s/plan.json", out);
        snprintf(result_name, sizeof result_name, "%s/result.json", out);
        assert_ok(descriptor_read(path_in(descriptors[i], path), &asked, 1, &d));
        assert_ok(forecast_descriptor(&d, NULL, &forecast));
        descriptor_finish(&d);
        assert_ok(run_until(descriptors[i], out, (const char *const[]){changes[i], NULL}, false, 0));
        json_t *plan = json_load_file(path_in(plan_name, path), 0, NULL), *kept = json_object_get(plan, "estimate");
        json_t *result = json_load_file(path_in(result_name, path), 0, NULL);
        json_int_t peak = json_integer_value(json_object_get(result, "peak_device_bytes"));
        assert_int_equal(forecast.peak_bytes, peak);
        assert_int_equal(json_integer_value(json_object_get(kept, "peak_device_bytes")), peak);
        assert_int_equal(forecast.has_ceiling, i == 1);
        if (i == 1) assert_true(forecast.limit_bytes == 2000000 && peak <= 2000000);
        uint64_t sum = 0;
        for (size_t k = 0; k < forecast.memory.count; k++) sum += forecast.memory.items[k].bytes;
        assert_true(sum == forecast.distil_bytes && sum <= forecast.peak_bytes);
        assert_true(json_number_value(json_object_get(json_object_get(kept, "seconds"), "distil")) > 0);
        assert_true(forecast.step > 0 && forecast.outer_steps == 8 && (forecast.evaluate > 0) == (i != 2));
        assert_true(strstr(forecast.parts, "inner batch"));
        json_decref(plan);
        json_decref(result);
        forecast_finish(&forecast);
    }
    char path[FILE_PATH_MAX];
    struct descriptor d;
    struct forecast forecast = {0};
    const struct schema_override tight = {"--set", "memory=20 kB"};
    assert_ok(descriptor_read(path_in("bars.yaml", path), &tight, 1, &d));
    assert_int_equal(forecast_descriptor(&d, NULL, &forecast), RETORT_ELIMIT);
    assert_non_null(strstr(retort_error_message(), "memory ceiling"));
    descriptor_finish(&d);
}

/* Who computes matrix products is asked for by the descriptor, written down, and kept when the run is resumed. */
static void test_gemm(void **state) {
    (void)state;
    static const char *const asked[] = {"device.gemm=clblast", NULL}, *const others[] = {"device.gemm=own", NULL};
    const char *expected = device_gemm_library() ? "clblast" : "own";
    char path[FILE_PATH_MAX];
    assert_ok(run_until("bars.yaml", "called", asked, false, 0));
    assert_int_equal(run_until("bars.yaml", "called halting", asked, false, 3), RETORT_EINTERRUPTED);
    json_t *plan = json_load_file(path_in("called halting/plan.json", path), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(plan, "gemm")), expected);
    assert_int_equal(run_until("bars.yaml", "called halting", others, true, 0), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "device.gemm clblast"));
    assert_result("called", "gemm", expected);
    assert_result("whole", "gemm", "own");
    assert_ok(run_until("bars.yaml", "called halting", asked, true, 0));
    assert_same_file("called/set/images.npy", "called halting/set/images.npy");
    assert_same_file("called/set/set.json", "called halting/set/set.json");
    json_decref(plan);

    session_of("device.gemm=clblast", NULL, expected);
    session_of("device.gemm=clblast", "", expected);
    session_of("device.gemm=clblast", "own", "own");
    session_of("device.gemm=auto", "clblast", expected);
    session_of("device.gemm=auto", NULL, "own");

    /* A run that knew of no choice goes on. */
    assert_int_equal(run_until("bars.yaml", "unaware", NULL, false, 3), RETORT_EINTERRUPTED);
    plan = json_load_file(path_in("unaware/plan.json", path), 0, NULL);
    assert_int_equal(json_object_del(plan, "gemm"), 0);
    assert_int_equal(json_dump_file(plan, path, 0), 0);
    json_decref(plan);
    assert_ok(run_until("bars.yaml", "unaware", NULL, true, 0));
    assert_same_file("whole/set/images.npy", "unaware/set/images.npy");
}

/* Who makes images of coefficients, likewise; a run of pixels has nothing to tell of it. */
static void test_dct(void **state) {
    (void)state;
    static const char coefficients[] = "set={ipc: 4, parameters: {kind: frequency, budget: 1}}";
    static const char *const asked[] = {coefficients, "device.dct=clfft", NULL}, *const usual[] = {coefficients, NULL};
    const char *expected = device_fft_library() ? "clfft" : "matrix";
    char path[FILE_PATH_MAX], passage[32];
    struct run_plan plan;
    struct run_folder run;
    struct descriptor d;
    assert_ok(run_until("bars.yaml", "transformed", asked, false, 0));
    assert_ok(run_until("bars.yaml", "multiplied", usual, false, 0));
    assert_result("transformed", "dct", expected);
    assert_result("multiplied", "dct", "matrix"); /* small images are not measured */
    json_t *kept = json_load_file(path_in("whole/plan.json", path), 0, NULL);
    assert_null(json_object_get(kept, "dct"));
    json_decref(kept);
    assert_int_equal(run_until("bars.yaml", "transformed halting", asked, false, 3), RETORT_EINTERRUPTED);
    assert_int_equal(run_until("bars.yaml", "transformed halting", usual, true, 0), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "device.dct clfft"));
    assert_ok(run_until("bars.yaml", "transformed halting", asked, true, 0));
    assert_same_file("transformed/set/images.npy", "transformed halting/set/images.npy");
    assert_same_file("transformed/set/set.json", "transformed halting/set/set.json");

    /* The plan rules, not the descriptor: what was settled once is not settled anew. */
    assert_int_equal(run_until("bars.yaml", "settled", asked, false, 3), RETORT_EINTERRUPTED);
    snprintf(passage, sizeof passage, "\"dct\": \"%s\"", expected);
    replace("settled/plan.json", passage, "\"dct\": \"matrix\"");
    assert_ok(run_until("bars.yaml", "settled", asked, true, 0));
    assert_result("settled", "dct", "matrix");

    /* A run that knew of no choice goes on as it began. */
    assert_int_equal(run_until("bars.yaml", "unaware of it", usual, false, 3), RETORT_EINTERRUPTED);
    replace("unaware of it/plan.json", "\"dct\": \"matrix\",", "");
    replace("unaware of it/descriptor.yaml", "  dct: auto\n", "");
    assert_ok(descriptor_read_copy(path_in("unaware of it/descriptor.yaml", path), NULL, 0, &d));
    assert_int_equal(d.device.dct, DCT_MATRIX);
    assert_ok(run_folder_name(&d, path_in("unaware of it", path), &run));
    assert_ok(run_folder_read_plan(&run, 0, 1, &plan));
    assert_int_equal(plan.dct, DCT_AUTO);
    descriptor_finish(&d);
    assert_ok(run_until("bars.yaml", "unaware of it", usual, true, 0));
    assert_result("unaware of it", "dct", "matrix");
    assert_same_file("multiplied/set/images.npy", "unaware of it/set/images.npy");
}

/* Whether launches are merged is asked for by the descriptor, and written down; and where a run began without, it goes
 * on so, also where the descriptor would have them merged. */
static void test_merge(void **state) {
    (void)state;
    static const char *const off[] = {"device.merge=off", NULL};
    char path[FILE_PATH_MAX];
    struct descriptor d;
    struct session session;
    struct run_plan plan;
    struct run_folder run;
    assert_int_equal(run_until("bars.yaml", "single", off, false, 3), RETORT_EINTERRUPTED);
    json_t *kept = json_load_file(path_in("single/plan.json", path), 0, NULL);
    assert_string_equal(json_string_value(json_object_get(kept, "merge")), "off");
    json_decref(kept);
    assert_int_equal(run_until("bars.yaml", "single", NULL, true, 0), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "device.merge off"));
    assert_ok(run_until("bars.yaml", "single", off, true, 0));
    assert_same_file("whole/set/images.npy", "single/set/images.npy");

    assert_ok(descriptor_read(path_in("bars.yaml", path), NULL, 0, &d));
    assert_ok(run_folder_name(&d, path_in("single", path), &run));
    assert_ok(run_folder_read_plan(&run, 0, 1, &plan));
    assert_true(plan.single);
    assert_ok(session_open(&d, 0, plan.single, &session));
    assert_true(session.target.single);
    session_close(&session);
    assert_ok(run_folder_name(&d, path_in("whole", path), &run));
    assert_ok(run_folder_read_plan(&run, 0, 1, &plan));
    assert_false(plan.single);
    setenv("RETORT_MERGE", "off", 1);
    assert_ok(session_open(&d, 0, false, &session));
    assert_true(session.target.single);
    session_close(&session);
    setenv("RETORT_MERGE", "of", 1);
    assert_ok(session_open(&d, 0, false, &session));
    assert_int_equal(session_choose_kernels(&session, "", NULL), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "RETORT_MERGE=of"));
    session_close(&session);
    unsetenv("RETORT_MERGE");
    descriptor_finish(&d);
}

/* --- what a folder survives --- */
/* The run in a folder goes on to what the uninterrupted one has come to. */
static void assert_goes_on(const char *out) {
    char set[64];
    assert_ok(run_until("bars.yaml", out, NULL, true, 0));
    snprintf(set, sizeof set, "%s/set/images.npy", out);
    assert_same_file("whole/set/images.npy", set);
}

/* A state that cannot be read is not a damaged one; a damaged one is passed over; nothing is removed, and no run starts
 * again where it had come further. */
static void test_checkpoints(void **state) {
    (void)state;
    char path[FILE_PATH_MAX];
    assert_int_equal(run_until("bars.yaml", "kept", NULL, false, 3), RETORT_EINTERRUPTED);
    assert_int_equal(run_until("bars.yaml", "kept", NULL, true, 5), RETORT_EINTERRUPTED);
    static const char *const files[] = {"kept/checkpoint/000003.json", "kept/checkpoint/000003.npz",
                                        "kept/checkpoint/000005.json", "kept/checkpoint/000005.npz"};
#define ALL_THERE assert_true(there(files[0]) && there(files[1]) && there(files[2]) && there(files[3]))
    ALL_THERE;
    /* Reading fails: a folder in the place of the newest sidecar, then of the newest state. */
    for (int i = 2; i < 4; i++) {
        move(files[i], "aside");
        assert_ok(folder_create(path_in(files[i], path)));
        assert_int_equal(run_until("bars.yaml", "kept", NULL, true, 0), RETORT_EIO);
        assert_non_null(strstr(retort_error_message(), "outer step 5 cannot be read; nothing was changed"));
        ALL_THERE;
        assert_ok(folder_remove(path));
        move("aside", files[i]);
    }
    /* No file can be opened at all. */
    struct rlimit limit, none;
    bool found = true;
    struct spent spent;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    none = (struct rlimit){0, limit.rlim_max};
    path_in("kept/checkpoint", path);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    int status = checkpoint_load(path, NULL, &spent, &found);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(status, RETORT_EIO);
    ALL_THERE;

    /* All are damaged: by a sidecar of another kind, one of another state, and one that is missing. */
    move(files[2], "aside");
    write_words(files[2], "{}");
    move(files[0], "aside too");
    assert_int_equal(run_until("bars.yaml", "kept", NULL, true, 0), RETORT_EFORMAT);
    assert_non_null(strstr(retort_error_message(), "no checkpoint in"));
    assert_non_null(strstr(retort_error_message(), "of outer steps 5, 3 "));
    assert_true(there(files[1]) && there(files[2]) && there(files[3]));
    assert_int_equal(unlink(path_in(files[2], path)), 0);
    assert_int_equal(run_until("bars.yaml", "kept", NULL, true, 0), RETORT_EFORMAT);
    move("aside too", files[0]);
    move("aside", files[2]);
    move(files[3], "aside");
    write_words(files[3], "not what it was");
    assert_int_equal(run_until("bars.yaml", "kept", NULL, true, 4), RETORT_EINTERRUPTED);
    /* It has gone on from the third, and the damaged one has gone now that there is a good one. */
    assert_true(there("kept/checkpoint/000004.npz") && there(files[0]) && !there(files[3]));
    assert_goes_on("kept");

    /* Killed in its first checkpoint, a run has nothing to lose. */
    assert_int_equal(run_until("bars.yaml", "first", NULL, false, 2), RETORT_EINTERRUPTED);
    assert_int_equal(unlink(path_in("first/checkpoint/000002.json", path)), 0);
    assert_goes_on("first");
}

/* A run that is killed leaves temporaries; killed before there is a descriptor, a folder to start in. */
static void test_killed_early(void **state) {
    (void)state;
    char path[FILE_PATH_MAX];
    assert_int_equal(run_until("bars.yaml", "early", NULL, false, 2), RETORT_EINTERRUPTED);
    static const char *const parts[] = {"early/checkpoint/000002.npz.77.part",
                                        "early/checkpoint/000002.npz.77.part.aB3dEf", "early/set/images.npy.77.part",
                                        "early/plan.json.77.part"};
    assert_ok(folder_create(path_in("early/set", path)));
    for (int i = 0; i < 4; i++) write_words(parts[i], "half");
    assert_int_equal(run_until("bars.yaml", "early", NULL, true, 4), RETORT_EINTERRUPTED);
    for (int i = 0; i < 4; i++) assert_false(there(parts[i]));

    static const char *const begun[] = {"early/descriptor.yaml", "early/metrics.jsonl", "early/preview.png"};
    for (int resume = 0; resume < 2; resume++) {
        for (int i = 0; i < 3; i++) assert_int_equal(unlink(path_in(begun[i], path)), 0);
        assert_ok(folder_remove(path_in("early/checkpoint", path)));
        assert_ok(folder_remove(path_in("early/previews", path)));
        assert_ok(folder_remove(path_in("early/set", path)));
        write_words("early/wisdom", "retort wisdom 1\n");
        assert_true(there("early/plan.json"));
        assert_int_equal(run_until("bars.yaml", "early", NULL, resume, 2), RETORT_EINTERRUPTED);
        assert_false(there("early/wisdom"));
    }
    assert_goes_on("early");
    /* Somebody's own file of that name. */
    assert_ok(folder_create(path_in("own", path)));
    write_words("own/plan.json", "{\"device\": \"to go on holiday\"}");
    assert_int_equal(run_until("bars.yaml", "own", NULL, false, 2), RETORT_EINVAL);
    write_words("own/wisdom", "");
    assert_int_equal(unlink(path_in("own/plan.json", path)), 0);
    assert_int_equal(run_until("bars.yaml", "own", NULL, false, 2), RETORT_EINVAL);
}

static void test_changed_data(void **state) {
    (void)state;
    char path[FILE_PATH_MAX];
    write_descriptor("changing.yaml", "changing.npz");
    assert_ok(write_data("changing.npz", 0, 4));
    assert_int_equal(run_until("changing.yaml", "changing", NULL, false, 3), RETORT_EINTERRUPTED);
    assert_ok(write_data("changing.npz", 1, 4));
    assert_int_equal(run_until("changing.yaml", "changing", NULL, true, 0), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "data.path no longer holds what"));
    assert_ok(write_data("changing.npz", 0, 2));
    assert_int_equal(run_until("changing.yaml", "changing", NULL, true, 0), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "120 training and 60 test images then, 120 and 0 now"));
    assert_ok(write_data("changing.npz", 0, 4));
    assert_int_equal(run_until("changing.yaml", "changing", NULL, true, 5), RETORT_EINTERRUPTED);
    /* A folder of earlier versions cannot tell. */
    json_t *plan = json_load_file(path_in("changing/plan.json", path), 0, NULL);
    assert_int_equal(json_object_del(plan, "data"), 0);
    assert_int_equal(json_dump_file(plan, path, 0), 0);
    json_decref(plan);
    assert_ok(write_data("changing.npz", 1, 4));
    assert_ok(run_until("changing.yaml", "changing", NULL, true, 0));
}

/* What could only fail at the end is said before the first step, and when nothing is to be run. */
static void test_the_end(void **state) {
    (void)state;
    char path[FILE_PATH_MAX], out[FILE_PATH_MAX];
    struct retort_run *run;
    struct watch watch = {0};
    /* Networks that need more memory than the set's. */
    static const char *const large[] = {"memory=2 MiB", "evaluate.network.width=128", NULL};
    assert_int_equal(run_once("bars.yaml", "large", large, false, &watch, &run), RETORT_ELIMIT);
    assert_non_null(strstr(retort_error_message(), "the evaluation (distilled)"));
    assert_int_equal(watch.steps, 0);
    retort_run_destroy(run);
    assert_false(there("large"));
    assert_ok(retort_run_create(
        path_in("bars.yaml", path),
        &(struct retort_run_options){.out = path_in("large", out), .settings = large, .dry_run = 1}, &run));
    assert_int_equal(retort_run_execute(run), RETORT_ELIMIT);
    retort_run_destroy(run);
    /* A file where the set belongs, found when the run goes on. */
    assert_int_equal(run_until("bars.yaml", "blocked", NULL, false, 2), RETORT_EINTERRUPTED);
    write_words("blocked/set", "mine");
    assert_int_equal(run_once("bars.yaml", "blocked", NULL, true, &watch, &run), RETORT_EIO);
    assert_non_null(strstr(retort_error_message(), "blocked/set is a file"));
    assert_int_equal(watch.steps, 0);
    retort_run_destroy(run);
    assert_int_equal(unlink(path_in("blocked/set", path)), 0);
    assert_goes_on("blocked");

    struct descriptor descriptor = {.name = "x"};
    struct run_folder place;
    assert_ok(run_folder_name(&descriptor, path_in("not/there/yet", path), &place));
    assert_ok(run_folder_check_room(&place, 1));
    assert_int_equal(run_folder_check_room(&place, (uint64_t)1 << 60), RETORT_EIO);
    assert_non_null(strstr(retort_error_message(), "make room"));
    assert_false(there("not"));
}

/* More images of a class than there are real ones: the random subset takes what there is. */
static void test_few_images(void **state) {
    (void)state;
    struct retort_run *run;
    static const char *const settings[] = {"set={ipc: 41, init: noise}", "outer.steps=1", "evaluate.networks=1", NULL};
    assert_ok(run_once("bars.yaml", "few", settings, false, NULL, &run));
    json_t *result = json_loads(retort_run_result(run), 0, NULL);
    assert_true(number(result, "accuracy", "random", "mean") > 50);
    json_decref(result);
    retort_run_destroy(run);
}

/* --- stopped within a step --- */
static volatile int stop_soon;

static void on_alarm(int number) {
    (void)number;
    stop_soon = 1;
}

static void on_progress_alarm(void *user, const struct retort_progress *progress) {
    (void)user, (void)progress;
    setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {.tv_usec = 50000}}, NULL);
}

/* An outer step of thousands of inner ones does not keep whoever stops the run waiting for its end: what was done of it
 * is dropped, and the run goes on from the step before. */
static void test_within_a_step(void **state) {
    (void)state;
    char path[FILE_PATH_MAX], out[FILE_PATH_MAX];
    struct retort_run *run;
    static const char *const settings[] = {"inner.steps=3000", "method={truncation: fixed, range: 0}", "outer.steps=2",
                                           "evaluate={networks: 1, steps: [4]}", NULL};
    signal(SIGALRM, on_alarm);
    assert_ok(run_until("bars.yaml", "long", settings, false, 0));
    assert_ok(retort_run_create(path_in("bars.yaml", path),
                                &(struct retort_run_options){.out = path_in("long halting", out),
                                                             .settings = settings,
                                                             .interrupt = &stop_soon,
                                                             .progress = on_progress_alarm},
                                &run));
    int status = retort_run_execute(run);
    signal(SIGALRM, SIG_DFL);
    assert_int_equal(status, RETORT_EINTERRUPTED);
    assert_non_null(strstr(retort_error_message(), "outer step 1 of 2"));
    retort_run_destroy(run);
    assert_true(there("long halting/checkpoint/000001.json"));
    assert_ok(run_until("bars.yaml", "long halting", settings, true, 0));
    assert_same_file("long/set/images.npy", "long halting/set/images.npy");
}

/* --- a program whose numbers have a comma --- */
static bool set_comma_locale(void) {
    char path[FILE_PATH_MAX], command[FILE_PATH_MAX + 80];
    snprintf(command, sizeof command, "localedef -i de_DE -f UTF-8 '%s' >/dev/null 2>&1", path_in("de_DE.UTF-8", path));
    if (system(command) == 0) setenv("LOCPATH", folder, 1);
    bool set = setlocale(LC_ALL, "de_DE.UTF-8") != NULL;
    unsetenv("LOCPATH");
    return set;
}

static void on_progress_comma(void *user, const struct retort_progress *progress) {
    (void)progress;
    *(char *)user = *localeconv()->decimal_point;
}

static void test_locale(void **state) {
    (void)state;
    char path[FILE_PATH_MAX], out[FILE_PATH_MAX], seen = 0;
    struct retort_run *run;
    struct retort_device *devices;
    size_t count;
    if (!set_comma_locale()) {
        print_message("no locale with a decimal comma can be made: install Debian's package locales\n");
        skip();
    }
    const struct retort_run_options options = {
        .out = path_in("comma", out), .progress = on_progress_comma, .user = &seen};
    int status = retort_device_list(&devices, &count);
    if (status == RETORT_OK) retort_device_list_free(devices);
    if (status == RETORT_OK) status = retort_run_create(path_in("bars.yaml", path), &options, &run);
    if (status == RETORT_OK) {
        status = retort_run_execute(run);
        retort_run_destroy(run);
    }
    char after = *localeconv()->decimal_point;
    setlocale(LC_ALL, "C");
    assert_ok(status);
    assert_int_equal(seen, ',');
    assert_int_equal(after, ',');
    assert_same_file("whole/set/images.npy", "comma/set/images.npy");
    assert_same_file("whole/set/set.json", "comma/set/set.json");
    assert_same_file("whole/descriptor.yaml", "comma/descriptor.yaml");
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
    replace("old/descriptor.yaml", "  parameters:\n    kind: pixels\n    budget: auto\n    factor: auto\n", "");
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
    const char *const none[] = {"data.test=0", NULL};
    assert_ok(run_once("untested.yaml", "untested", none, false, NULL, &run));
    json_t *result = json_loads(retort_run_result(run), 0, NULL);
    assert_int_equal(json_object_size(json_object_get(result, "accuracy")), 0);
    json_decref(result);
    retort_run_destroy(run);
    assert_true(there("untested/set/images.npy"));
    /* By default a fifth of train is kept aside and tested on. */
    assert_ok(run_once("untested.yaml", "tested", NULL, false, NULL, &run));
    result = json_loads(retort_run_result(run), 0, NULL);
    assert_true(number(result, "accuracy", "distilled", "mean") > 50);
    json_decref(result);
    retort_run_destroy(run);
    assert_false(same_file("untested/set/images.npy", "tested/set/images.npy"));

    /* A folder begun before there was the key goes on with all of train, whether or not a command names the
     * descriptor, and however that says so; not with another split. */
    for (int i = 0; i < 3; i++) {
        const char *name = i == 0 ? "before-0" : i == 1 ? "before-1" : "before-2";
        char copy[64], out[FILE_PATH_MAX];
        assert_int_equal(run_until("untested.yaml", name, none, false, 3), RETORT_EINTERRUPTED);
        snprintf(copy, sizeof copy, "%s/descriptor.yaml", name);
        replace(copy, "  test: 0\n", "");
        assert_int_equal(run_until("untested.yaml", name, (const char *const[]){"data.test=0.3", NULL}, true, 0),
                         RETORT_EINVAL);
        assert_non_null(strstr(retort_error_message(), "begun with data.test 0, this command says 0.3"));
        assert_int_equal(run_until("untested.yaml", name, (const char *const[]){"outer.lr=3", NULL}, true, 0),
                         RETORT_EINVAL);
        assert_non_null(strstr(retort_error_message(), "begun with outer.lr 0.01, this command says 3"));
        if (i < 2)
            assert_ok(run_until("untested.yaml", name, i ? none : NULL, true, 0));
        else {
            const struct retort_run_options options = {.out = path_in(name, out), .resume = true};
            assert_ok(retort_run_create(NULL, &options, &run));
            assert_ok(retort_run_execute(run));
            retort_run_destroy(run);
        }
        snprintf(copy, sizeof copy, "%s/set/images.npy", name);
        assert_same_file("untested/set/images.npy", copy);
    }
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
        cmocka_unit_test(test_interrupted),  cmocka_unit_test(test_old_folder),
        cmocka_unit_test(test_checkpoints),  cmocka_unit_test(test_killed_early),
        cmocka_unit_test(test_changed_data), cmocka_unit_test(test_the_end),
        cmocka_unit_test(test_few_images),   cmocka_unit_test(test_names),
        cmocka_unit_test(test_indices),      cmocka_unit_test(test_within_a_step),
        cmocka_unit_test(test_locale),       cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_memory),       cmocka_unit_test(test_wisdom),
        cmocka_unit_test(test_refused),      cmocka_unit_test(test_dry),
        cmocka_unit_test(test_settings),     cmocka_unit_test(test_untested),
        cmocka_unit_test(test_not_a_number), cmocka_unit_test(test_devices),
        cmocka_unit_test(test_gemm),         cmocka_unit_test(test_merge),
        cmocka_unit_test(test_measured),     cmocka_unit_test(test_forecast_changes_nothing),
        cmocka_unit_test(test_forecast),     cmocka_unit_test(test_frequency),
        cmocka_unit_test(test_dct),
    };
    return cmocka_run_group_tests_name("run", tests, bars_prepare, bars_clean);
}
