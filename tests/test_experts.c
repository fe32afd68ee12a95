/* Experts: trained to equal bytes, kept, gone on with after a kill, read with a check, refused where they do not fit.
 */
#include "bars.h"

#include "distill/experts.h"
#include "retort/evaluate.h"
#include "retort/run.h"
#include "run/expert_store.h"
#include "run/prepare.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { EPOCHS = 3, NETWORKS = 2 };
static const struct expert_spec spec = {
    .epochs = EPOCHS, .lr = 0.01, .batch = 32, .augment = true, .flip = true, .seed = 4};

static void write_text(const char *name, const char *text) {
    char path[FILE_PATH_MAX];
    assert_ok(file_write(path_in(name, path), text, strlen(text)));
}

static int prepare(void **state) {
    if (bars_prepare(state) < 0) return -1;
    write_text("experts.yaml", "data: {kind: npy, path: bars.npz}\n"
                               "network: {depth: 2, width: 4}\n"
                               "seed: 4\n"
                               "method: {name: trajectory, steps: 2, epochs: 1, max_start: 2, experts: theirs}\n"
                               "outer: {steps: 4, lr: 1}\n"
                               "evaluate: {networks: 1, epochs: 2}\n");
    return 0;
}

struct stage {
    struct descriptor descriptor;
    struct session session;
};

static bool open_stage(struct stage *stage, const char *assignment) {
    char path[FILE_PATH_MAX];
    const struct schema_override override = {.option = "--set", .assignment = assignment};
    *stage = (struct stage){0};
    assert_ok(descriptor_read(path_in("experts.yaml", path), &override, assignment != NULL, &stage->descriptor));
    int status = session_open(&stage->descriptor, 0, false, &stage->session);
    if (status == RETORT_EDEVICE) {
        descriptor_finish(&stage->descriptor);
        return false;
    }
    assert_ok(status);
    assert_ok(session_choose_kernels(&stage->session, "", "own"));
    return true;
}

static void close_stage(struct stage *stage) {
    session_close(&stage->session);
    descriptor_finish(&stage->descriptor);
}

static struct experts *trainer_of(struct stage *stage) {
    struct experts *experts;
    assert_ok(experts_create(stage->session.library, &stage->session.data.train, &stage->session.network, &spec, NULL,
                             &experts));
    return experts;
}

/* A network depends on its number, not on those trained before it, and later epochs not on earlier readings. */
static void test_equal(void **state) {
    (void)state;
    struct stage stage;
    if (!open_stage(&stage, NULL)) skip();
    const size_t p = (size_t)stage.session.network.theta_count, count = (EPOCHS + 1) * p;
    float *first = malloc(count * sizeof *first), *again = malloc(count * sizeof *again);
    double seconds;
    assert_true(first && again);
    struct experts *experts = trainer_of(&stage);
    assert_ok(experts_train(experts, 0, again, NULL, NULL));
    assert_ok(experts_train(experts, 1, first, NULL, NULL));
    assert_memory_not_equal(first, again, p * sizeof *first);
    experts_destroy(experts);
    experts = trainer_of(&stage);
    assert_ok(experts_forecast(experts, &seconds));
    assert_true(seconds > 0);
    assert_ok(experts_train(experts, 1, again, NULL, NULL));
    assert_memory_equal(first, again, count * sizeof *first);
    for (int i = 1; i <= EPOCHS; i++)
        assert_memory_not_equal(first + (size_t)i * p, first + (size_t)(i - 1) * p, p * sizeof *first);
    experts_destroy(experts);
    free(first);
    free(again);
    close_stage(&stage);
}

static void train_into(struct stage *stage, const char *name, int least, int most, float *thetas) {
    char path[FILE_PATH_MAX];
    int done, lock;
    struct experts *experts = trainer_of(stage);
    assert_ok(
        expert_store_begin(path_in(name, path), &stage->descriptor, &stage->session, &spec, NETWORKS, &done, &lock));
    assert_int_equal(done, least);
    close(lock);
    for (int i = done; i < most; i++) {
        assert_ok(experts_train(experts, i, thetas, NULL, NULL));
        assert_ok(expert_store_write(path, i, stage->session.network.theta_count, EPOCHS, thetas));
    }
    experts_destroy(experts);
}

static void expect_refused(struct stage *stage, const char *name, int epochs, const char *words) {
    char path[FILE_PATH_MAX];
    struct expert_store store;
    assert_int_equal(expert_store_open(path_in(name, path), &stage->descriptor, &stage->session, epochs, &store),
                     RETORT_EINVAL);
    if (!strstr(retort_error_message(), words)) fail_msg("not '%s': %s", words, retort_error_message());
}

static void test_store(void **state) {
    (void)state;
    struct stage stage, other;
    struct expert_store store;
    char path[FILE_PATH_MAX];
    if (!open_stage(&stage, NULL)) skip();
    const size_t p = (size_t)stage.session.network.theta_count;
    float *thetas = malloc((EPOCHS + 1) * p * sizeof *thetas), *theta = malloc(p * sizeof *theta);
    assert_true(thetas && theta);
    train_into(&stage, "parts", 0, 1, thetas);
    expect_refused(&stage, "parts", 1, "1 of 2 networks");
    write_text("parts/expert-00001.theta.1.part", "what a killed process leaves");
    train_into(&stage, "parts", 1, 2, thetas);
    assert_false(file_exists(path_in("parts/expert-00001.theta.1.part", path)));
    assert_ok(expert_store_open(path_in("parts", path), &stage.descriptor, &stage.session, EPOCHS, &store));
    assert_int_equal(store.source.networks, NETWORKS);
    assert_ok(store.source.read(store.source.context, 1, 2, theta));
    assert_memory_equal(theta, thetas + 2 * p, p * sizeof *theta);

    expect_refused(&stage, "parts", EPOCHS + 1, "have 3 epochs");
    expect_refused(&stage, "nowhere", 1, "no experts in");
    assert_true(open_stage(&other, "network.width=5"));
    expect_refused(&other, "parts", 1, "network is");
    int done, lock;
    assert_int_equal(expert_store_begin(path, &other.descriptor, &other.session, &spec, NETWORKS, &done, &lock),
                     RETORT_EINVAL);
    close_stage(&other);
    assert_true(open_stage(&other, "data.path=untested.npz"));
    expect_refused(&other, "parts", 1, "data is");
    close_stage(&other);

    /* A bit of one row: the others are read. */
    FILE *file = fopen(path_in("parts/expert-00001.theta", path), "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)(2 * p * sizeof(float) + 5), SEEK_SET), 0);
    int byte = getc(file);
    assert_int_equal(fseek(file, -1, SEEK_CUR), 0);
    putc(byte ^ 1, file);
    fclose(file);
    assert_ok(store.source.read(store.source.context, 1, 1, theta));
    assert_int_equal(store.source.read(store.source.context, 1, 2, theta), RETORT_EFORMAT);
    assert_non_null(strstr(retort_error_message(), "epoch 2 are damaged"));
    free(thetas);
    free(theta);
    close_stage(&stage);
}

/* --- the command --- */
static pid_t start(const char *program, const char *out) {
    char descriptor[FILE_PATH_MAX], path[FILE_PATH_MAX];
    path_in("experts.yaml", descriptor);
    path_in(out, path);
    pid_t child = fork();
    if (child) return child;
    execl(program, program, "experts", descriptor, "--out", path, "--networks", "12", "--epochs", "30", "--quiet",
          (char *)NULL);
    _exit(127);
}

static int finish(pid_t child) {
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_killed(void **state) {
    (void)state;
    const char *program = getenv("RETORT_PROGRAM");
    struct stage stage;
    char path[FILE_PATH_MAX];
    if (!program || !open_stage(&stage, NULL)) skip();
    close_stage(&stage);
    assert_int_equal(finish(start(program, "whole")), 0);
    pid_t child = start(program, "killed");
    while (!file_exists(path_in("killed/expert-00001.theta", path)) && waitpid(child, NULL, WNOHANG) == 0) usleep(1000);
    kill(child, SIGKILL);
    assert_int_equal(finish(child), -1);
    assert_false(file_exists(path_in("killed/expert-00011.theta", path)));
    assert_int_equal(finish(start(program, "killed")), 0);
    for (int i = 0; i < 12; i++) {
        char a[60], b[60];
        snprintf(a, sizeof a, "whole/expert-%05d.theta", i);
        snprintf(b, sizeof b, "killed/expert-%05d.theta", i);
        assert_same_file(a, b);
    }
}

static int run(const char *out, bool dry) {
    char descriptor[FILE_PATH_MAX], path[FILE_PATH_MAX];
    const struct retort_run_options options = {.out = path_in(out, path), .dry_run = dry};
    struct retort_run *made;
    assert_ok(retort_run_create(path_in("experts.yaml", descriptor), &options, &made));
    int status = retort_run_execute(made);
    retort_run_destroy(made);
    return status;
}

/* A run without experts is planned, but not begun; with them it comes to its end. */
static void test_run(void **state) {
    (void)state;
    struct stage stage;
    if (!open_stage(&stage, NULL)) skip();
    float *thetas = malloc((size_t)((EPOCHS + 1) * stage.session.network.theta_count) * sizeof *thetas);
    assert_non_null(thetas);
    assert_ok(run("out", true));
    assert_int_equal(run("out", false), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "train the experts first: retort experts"));
    train_into(&stage, "theirs", 0, 2, thetas);
    assert_ok(run("out", false));
    assert_ok(run("again", false));
    assert_same_file("out/set/images.npy", "again/set/images.npy");
    /* A finished run is evaluated again whatever has become of its experts. */
    char path[FILE_PATH_MAX];
    write_text("theirs/experts.json", "{}");
    assert_int_equal(run("third", false), RETORT_EFORMAT);
    struct retort_evaluation *evaluation;
    assert_ok(retort_evaluate(path_in("out", path), NULL, &evaluation));
    retort_evaluation_destroy(evaluation);
    free(thetas);
    close_stage(&stage);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_equal), cmocka_unit_test(test_store),
                                       cmocka_unit_test(test_killed), cmocka_unit_test(test_run)};
    return cmocka_run_group_tests_name("experts", tests, prepare, bars_clean);
}
