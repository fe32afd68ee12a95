/* One run on several devices, with meson preloading false_driver.c: here the same one several times over, so that what
 * they compute together must be, to the byte, what one computes alone. (tests/test_team.c has what members exchange,
 * tests/test_unroll_team.c divided rows.) */
#include "bars.h"

#include "data/data.h"
#include "retort/run.h"
#include "run/run.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_SETTINGS = 16 };

struct trial {
    const char *descriptor, *out, *settings[MOST_SETTINGS];
    int devices; /* how often the device is named; 0: as the tests are told */
    bool resume;
    int stop_after; /* outer steps; 0: at the end */
};

struct watcher {
    int stop_after;
    volatile int stop;
};

static void look(void *user, const struct retort_progress *progress) {
    struct watcher *watcher = user;
    if (progress->outer_step == watcher->stop_after) watcher->stop = 1;
}

static int execute(const struct trial *trial) {
    char path[FILE_PATH_MAX], out[FILE_PATH_MAX], devices[600] = "device.select=[";
    const char *settings[MOST_SETTINGS + 2] = {0}, *one = getenv("RETORT_DEVICE");
    struct watcher watcher = {.stop_after = trial->stop_after};
    struct retort_run_options options = {.out = path_in(trial->out, out),
                                         .settings = settings,
                                         .resume = trial->resume,
                                         .progress = look,
                                         .user = &watcher,
                                         .interrupt = &watcher.stop};
    struct retort_run *made = NULL;
    int count = 0;
    for (; trial->settings[count]; count++) settings[count] = trial->settings[count];
    for (int i = 0; i < trial->devices; i++)
        snprintf(devices + strlen(devices), sizeof devices - strlen(devices), "%s\"%s\"", i ? ", " : "",
                 one ? one : "cpu");
    strcat(devices, "]");
    if (trial->devices) settings[count] = devices;
    int status = retort_run_create(path_in(trial->descriptor, path), &options, &made);
    if (status == RETORT_OK) status = retort_run_execute(made);
    retort_run_destroy(made);
    return status;
}

static char words[4096]; /* of the last run that failed */

/* In a process of its own, whose end is what waitpid says. */
static int run_apart(const struct trial *trial) {
    char path[FILE_PATH_MAX];
    int ended;
    path_in("words", path);
    pid_t child = fork();
    if (!child) {
        int status = execute(trial);
        (void)file_write(path, retort_error_message(), strlen(retort_error_message()));
        _exit(-status);
    }
    assert_int_equal(waitpid(child, &ended, 0), child);
    return ended;
}

/* PoCL 3.1 loses count of the kernels that it has loaded now and then, where two threads of a process launch on it, and
 * ends the process by an assertion: SIGABRT. That is no fault of ours, and another attempt shows what the test is for;
 * a run that is not to be resumed begins anew. */
static int run(const struct trial *trial) {
    enum { ATTEMPTS = 8 };
    char path[FILE_PATH_MAX];
    unsigned char *text;
    size_t size;
    int ended = 0;
    for (int i = 0; i < ATTEMPTS; i++) {
        ended = run_apart(trial);
        if (!WIFSIGNALED(ended) || WTERMSIG(ended) != SIGABRT) break;
        print_message("# another attempt at %s\n", trial->out);
        if (!trial->resume && file_exists(path_in(trial->out, path))) assert_ok(folder_remove(path));
    }
    assert_true(WIFEXITED(ended));
    assert_ok(file_read(path_in("words", path), 0, &text, &size));
    snprintf(words, sizeof words, "%.*s", (int)size, (char *)text);
    free(text);
    return -WEXITSTATUS(ended);
}

static json_t *result_of(const char *out) {
    char path[FILE_PATH_MAX], name[60];
    snprintf(name, sizeof name, "%s/result.json", out);
    return json_load_file(path_in(name, path), 0, NULL);
}

static void assert_run(const struct trial *trial) {
    int status = run(trial);
    if (status < 0) fail_msg("%s: %d %s", trial->out, status, words);
}

static void assert_same_accuracies(const json_t *a, const json_t *b) {
    static const char *const rows[] = {"distilled", "random"};
    for (int i = 0; i < 2; i++) {
        const json_t *x = json_object_get(json_object_get(json_object_get(a, "accuracy"), rows[i]), "by_step");
        const json_t *y = json_object_get(json_object_get(json_object_get(b, "accuracy"), rows[i]), "by_step");
        assert_true(json_array_size(x) == 2 && json_equal(x, y));
    }
}

/* Trajectories and networks are divided, whatever the shares; what is computed is the same. */
static void test_trajectories(void **state) {
    (void)state;
    static const struct trial trials[] = {
        {"bars.yaml", "alone", {"outer.meta_batch=3", "evaluate.networks=3"}, .devices = 1},
        {"bars.yaml", "two", {"outer.meta_batch=3", "evaluate.networks=3"}, .devices = 2},
        {"bars.yaml", "uneven", {"outer.meta_batch=3", "evaluate.networks=3", "device.shares=[5, 1]"}, .devices = 2},
        {"bars.yaml", "three", {"outer.meta_batch=3", "evaluate.networks=3", "device.shares=[1, 1, 9]"}, .devices = 3},
    };
    json_t *results[4];
    for (int i = 0; i < 4; i++) {
        char set[40];
        assert_run(&trials[i]);
        results[i] = result_of(trials[i].out);
        snprintf(set, sizeof set, "%s/set/images.npy", trials[i].out);
        assert_same_file("alone/set/images.npy", set);
        assert_same_accuracies(results[0], results[i]);
        const json_t *devices = json_object_get(json_object_get(results[i], "team"), "devices");
        assert_int_equal(json_array_size(devices), trials[i].devices == 1 ? 0 : trials[i].devices);
        if (i == 2) assert_int_equal(json_integer_value(json_object_get(json_array_get(devices, 0), "share")), 5);
    }
    for (int i = 0; i < 4; i++) json_decref(results[i]);
}

/* Distribution matching, learned labels, batch norm, sets of coefficients: whatever a method leaves is averaged. */
static void test_variables(void **state) {
    (void)state;
    static const char *const settings[][4] = {
        {"set.labels=soft", "inner.learn_lr=true"},
        {"network.norm=batch", "outer.optimizer=sgd", "method.truncation=random"},
        {"set.parameters={kind: frequency, budget: 1}", "set.ipc=4"},
    };
    for (int i = 0; i < 4; i++) {
        struct trial trial = {i < 3 ? "bars.yaml" : "matching.yaml", "one", {"outer.meta_batch=2", "outer.steps=3"}};
        char one[20], other[20], a[40], b[40];
        for (int k = 0; i < 3 && k < 4; k++) trial.settings[2 + k] = settings[i][k];
        snprintf(one, sizeof one, "one-%d", i);
        snprintf(other, sizeof other, "other-%d", i);
        trial.out = one;
        trial.devices = 1;
        assert_run(&trial);
        trial.out = other;
        trial.devices = 2;
        assert_run(&trial);
        snprintf(a, sizeof a, "%s/set/images.npy", one);
        snprintf(b, sizeof b, "%s/set/images.npy", other);
        assert_same_file(a, b);
        snprintf(a, sizeof a, "%s/set/labels.npy", one);
        snprintf(b, sizeof b, "%s/set/labels.npy", other);
        assert_same_file(a, b);
    }
}

/* Norms of a probe serve later steps, of each trajectory its own: also after a checkpoint that the leader alone wrote.
 */
static void test_resumed(void **state) {
    (void)state;
    static const char *const settings[] = {"outer.meta_batch=2", "method.probe_every=5"};
    struct trial trial = {"bars.yaml", "through", {settings[0], settings[1]}, .devices = 2};
    assert_run(&trial);
    trial.out = "halted";
    trial.stop_after = 3;
    assert_int_equal(run(&trial), RETORT_EINTERRUPTED);
    assert_non_null(strstr(words, "outer step 3 of 8"));
    trial.resume = true;
    trial.stop_after = 6;
    assert_int_equal(run(&trial), RETORT_EINTERRUPTED);
    trial.stop_after = 0;
    assert_run(&trial);
    assert_same_file("through/set/images.npy", "halted/set/images.npy");
    assert_same_file("through/set/set.json", "halted/set/set.json");
    trial.out = "single";
    trial.resume = false;
    trial.devices = 1;
    assert_run(&trial);
    assert_same_file("through/set/images.npy", "single/set/images.npy");
}

/* The velocity of SGD without momentum is the step's gradient. */
static void read_gradient(const char *checkpoint, float *values, size_t count) {
    char path[FILE_PATH_MAX];
    struct npy npy;
    assert_ok(npy_read_member(path_in(checkpoint, path), "images_m", &npy));
    assert_int_equal(npy_count(&npy), count);
    memcpy(values, npy.data, count * sizeof *values);
    npy_finish(&npy);
}

/* Two trajectories of one step are what two steps draw whose updates are too small to be seen. */
static void test_average(void **state) {
    (void)state;
    enum { VALUES = CLASSES * SIDE * SIDE };
    static const char *const steps[] = {"outer.steps=1", "outer.steps=2"};
    static const char *const outs[] = {"step-1", "step-2", "both"};
    static float gradients[3][VALUES];
    for (int i = 0; i < 3; i++) {
        const struct trial trial = {"bars.yaml",
                                    outs[i],
                                    {"outer.optimizer=sgd", "outer.momentum=0", "outer.clip=false", "outer.lr=1e-30",
                                     "evaluate.networks=1", "method.truncation=random", steps[i == 1],
                                     i == 2 ? "outer.meta_batch=2" : "outer.meta_batch=1"}};
        char checkpoint[60];
        assert_run(&trial);
        snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint/%06d.npz", outs[i], i == 1 ? 2 : 1);
        read_gradient(checkpoint, gradients[i], VALUES);
    }
    double largest = 0;
    for (int i = 0; i < VALUES; i++) largest = fmax(largest, fabs(gradients[2][i]));
    assert_true(largest > 0);
    for (int i = 0; i < VALUES; i++) {
        double mean = (gradients[0][i] + (double)gradients[1][i]) / 2;
        assert_true(fabs(gradients[2][i] - mean) < 1e-6 * largest);
    }
}

/* Whoever is slow, and whenever: the bytes are the same. The division is given, since a measured one would be another
 * each time. */
static void test_sleeps(void **state) {
    (void)state;
    static const char *const outs[] = {"awake", "slow-1", "slow-2", "slow-3"};
    for (int i = 0; i < 4; i++) {
        struct trial trial = {"bars.yaml", outs[i], {"outer.meta_batch=3", "device.shares=[2, 1]"}, .devices = 2};
        char set[40];
        if (i) setenv("RETORT_TEST_SLEEP", "3000", 1);
        assert_run(&trial);
        unsetenv("RETORT_TEST_SLEEP");
        snprintf(set, sizeof set, "%s/set/images.npy", outs[i]);
        assert_same_file("awake/set/images.npy", set);
    }
}

static void read_images(const char *name, float *values, size_t count) {
    char path[FILE_PATH_MAX];
    struct npy npy;
    assert_ok(npy_read(path_in(name, path), &npy));
    assert_int_equal(npy_count(&npy), count);
    memcpy(values, npy.data, count * sizeof *values);
    npy_finish(&npy);
}

/* Rows of batches: the bytes are those of the division, whoever is slow, and after an interruption; and nearly those of
 * one device. */
static void test_rows(void **state) {
    (void)state;
    enum { IPC = 3, VALUES = IPC * CLASSES * SIDE * SIDE };
    static float alone[VALUES], divided[VALUES];
    struct trial trial = {
        "bars.yaml",
        "whole-rows",
        {"device.divide=rows", "device.shares=[2, 1]", "set.ipc=3", "outer.optimizer=sgd", "outer.lr=1"},
        .devices = 2};
    assert_run(&trial);
    trial.out = "slow-rows";
    setenv("RETORT_TEST_SLEEP", "2000", 1);
    int status = run(&trial);
    unsetenv("RETORT_TEST_SLEEP");
    assert_int_equal(status, RETORT_OK);
    assert_same_file("whole-rows/set/images.npy", "slow-rows/set/images.npy");
    trial.out = "halted-rows";
    trial.stop_after = 4;
    assert_int_equal(run(&trial), RETORT_EINTERRUPTED);
    trial.resume = true;
    trial.stop_after = 0;
    assert_run(&trial);
    assert_same_file("whole-rows/set/images.npy", "halted-rows/set/images.npy");
    trial.out = "no-rows";
    trial.resume = false;
    trial.devices = 1;
    trial.settings[1] = "device.shares=measured";
    assert_run(&trial);
    read_images("no-rows/set/images.npy", alone, VALUES);
    read_images("whole-rows/set/images.npy", divided, VALUES);
    for (int i = 0; i < VALUES; i++) assert_true(fabsf(alone[i] - divided[i]) < 1e-4f);
    assert_false(same_file("no-rows/set/images.npy", "whole-rows/set/images.npy")); /* it was divided */
}

/* A device that fails ends the run of all, whose last checkpoint is whole. */
static void test_lost_device(void **state) {
    (void)state;
    struct trial trial = {"bars.yaml", "lost", {"outer.meta_batch=3", "device.shares=[2, 1]"}, .devices = 2};
    trial.stop_after = 3;
    assert_int_equal(run(&trial), RETORT_EINTERRUPTED);
    trial.stop_after = 0;
    trial.resume = true;
    setenv("RETORT_TEST_FAIL", "launch 700 -5", 1);
    int status = run(&trial);
    unsetenv("RETORT_TEST_FAIL");
    assert_int_equal(status, RETORT_EDEVICE);
    assert_non_null(strstr(words, "CL_OUT_OF_RESOURCES"));
    assert_non_null(strstr(words, "go on with: retort run --resume"));
    assert_run(&trial);
    assert_same_file("awake/set/images.npy", "lost/set/images.npy");
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        struct trial trial;
        const char *words;
    } cases[] = {
        {{"matching.yaml", "no", {0}, .devices = 2}, "outer.meta_batch: 1 trajectories cannot be divided among 2"},
        {{"bars.yaml", "no", {"outer.meta_batch=2", "device.shares=[1, 2, 3]"}, .devices = 2},
         "device.shares: found 3, but there are 2 devices"},
        {{"matching.yaml", "no", {"device.divide=rows", "outer.meta_batch=2"}, .devices = 2},
         "device.divide: method dm does not divide the rows of its batches"},
        {{"bars.yaml", "no", {"outer.meta_batch=2", "method.hessian=lanczos"}},
         "low-rank Hessian is of one trajectory"},
        {{"bars.yaml", "no", {"network.norm=batch"}, .devices = 2},
         "device.divide: rows cannot be divided under batch norm"},
        {{"bars.yaml", "no", {"device.divide=rows", "method.hessian=lanczos"}, .devices = 2},
         "device.divide: rows cannot be divided under a low-rank Hessian"},
        {{"bars.yaml", "no", {"device.shares=[1, 9]"}, .devices = 2}, "leaves no row to device 1"},
        {{"bars.yaml", "no", {"device.select=[nowhere, cpu]"}}, "nowhere"},
        {{"bars.yaml", "no", {"device.select=[cpu, nowhere]", "outer.meta_batch=2"}}, "nowhere"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[FILE_PATH_MAX];
        assert_true(run(&cases[i].trial) < 0);
        if (!strstr(words, cases[i].words)) fail_msg("no '%s' in '%s'", cases[i].words, words);
        assert_false(file_exists(path_in("no", path)));
    }
}

/* A folder belongs to as many devices as it was begun on, in the same order. */
static void test_other_devices(void **state) {
    (void)state;
    struct trial trial = {"bars.yaml", "pair", {"outer.meta_batch=3"}, .devices = 2, .stop_after = 2};
    assert_int_equal(run(&trial), RETORT_EINTERRUPTED);
    trial.resume = true;
    trial.devices = 3;
    trial.stop_after = 0;
    assert_int_equal(run(&trial), RETORT_EINVAL);
    assert_non_null(strstr(words, "device.select"));
    trial.devices = 2;
    assert_run(&trial);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_average),     cmocka_unit_test(test_trajectories), cmocka_unit_test(test_variables),
        cmocka_unit_test(test_resumed),     cmocka_unit_test(test_sleeps),       cmocka_unit_test(test_rows),
        cmocka_unit_test(test_lost_device), cmocka_unit_test(test_refused),      cmocka_unit_test(test_other_devices),
    };
    return cmocka_run_group_tests_name("several", tests, bars_prepare, bars_clean);
}
