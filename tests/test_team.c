/* Teams of threads; test_team_mpi.sh has those of processes. */
#include "test.h"

#include "team_cases.h"

#include <pthread.h>

enum { MOST = 8 };

/* Runs a function with each of `count` parts, in threads. */
static void in_threads(int count, void *(*run)(void *part), void *parts, size_t bytes) {
    pthread_t threads[MOST];
    for (int i = 0; i < count; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run, (char *)parts + (size_t)i * bytes), 0);
    for (int i = 0; i < count; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
}

/* --- results --- */

static void *play(void *part) {
    team_play(part);
    return NULL;
}

static void play_all(struct play *plays, int size, struct play as) {
    struct team *teams[MOST];
    assert_ok(team_create_threads(size, teams));
    for (int i = 0; i < size; i++) {
        plays[i] = as;
        plays[i].team = teams[i];
        assert_int_equal(team_size(teams[i]), size);
        assert_int_equal(team_rank(teams[i]), i);
        assert_int_equal(team_local_rank(teams[i]), i);
    }
    in_threads(size, play, plays, sizeof *plays);
    for (int i = 0; i < size; i++) {
        if (plays[i].complaint[0]) fail_msg("of %d: %s", size, plays[i].complaint);
        team_destroy(teams[(i + 1) % size]);
    }
}

static void test_results(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 3, 4, 7};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int turn = 0; turn < 3; turn++) {
            struct play plays[MOST];
            play_all(plays, sizes[s], (struct play){.calls = 60, .dawdle = turn > 0});
        }
}

static void test_large(void **state) {
    (void)state;
    struct play plays[MOST];
    play_all(plays, 3, (struct play){.large = true});
}

static void test_order_matters(void **state) {
    (void)state;
    /* Else the sums above would show nothing. */
    int others = 0;
    for (int i = 0; i < 1000; i++) {
        float a = team_float(1, 0, i), b = team_float(1, 1, i), c = team_float(1, 2, i);
        others += (a + b) + c != (c + b) + a;
    }
    assert_true(others > 100);
}

static void test_null(void **state) {
    (void)state;
    struct play alone = {.calls = 60};
    team_play(&alone);
    assert_string_equal(alone.complaint, "");
    assert_int_equal(team_size(NULL), 1);
    assert_int_equal(team_rank(NULL), 0);
    assert_int_equal(team_local_rank(NULL), 0);
    error_set(RETORT_EIO, "a file is broken");
    assert_int_equal(team_leave(NULL, RETORT_EIO), RETORT_EIO);
    assert_string_equal(retort_error_message(), "a file is broken");
    float row = 1;
    assert_int_equal(team_sum(NULL, (int[]){0}, &row, 1, &row), RETORT_EINVAL);
    assert_int_equal(team_collect(NULL, (int[]){-1}, 1, &row, &row), RETORT_EINVAL);
    team_destroy(NULL);
    struct team *teams[1];
    assert_int_equal(team_create_threads(0, teams), RETORT_EINVAL);
}

/* --- failures --- */

struct member {
    struct team *team;
    int what, before; /* the call, and how many of it come before what follows */
    int own;          /* < 0: then it fails */
    int delay;        /* microseconds before that */
    int wrong;        /* then, a call that only this member makes; -1: none */
    int status, left; /* what the last call gave, and team_leave */
    char words[256], left_words[256];
};

static void *work(void *part) {
    struct member *member = part;
    int status = RETORT_OK;
    for (int i = 0; i < member->before && status == RETORT_OK; i++) status = team_call(member->team, member->what);
    if (status == RETORT_OK && member->delay) usleep((unsigned)member->delay);
    if (member->own < 0)
        status = error_set(member->own, "file %d is broken", team_rank(member->team));
    else if (status == RETORT_OK)
        status = team_call(member->team, member->wrong >= 0 ? member->wrong : member->what);
    member->status = status;
    snprintf(member->words, sizeof member->words, "%s", retort_error_message());
    member->left = team_leave(member->team, member->own);
    snprintf(member->left_words, sizeof member->left_words, "%s", retort_error_message());
    return NULL;
}

enum { TEAM = 4 };
static const struct member well = {.wrong = -1};

static void work_all(struct member *members) {
    struct team *teams[TEAM];
    assert_ok(team_create_threads(TEAM, teams));
    for (int i = 0; i < TEAM; i++) members[i].team = teams[i];
    in_threads(TEAM, work, members, sizeof *members);
    for (int i = 0; i < TEAM; i++) team_destroy(teams[i]);
}

/* What came back to a member, from the call it was at and from team_leave. */
static void expect(const struct member *member, int status, const char *words) {
    if (member->own == RETORT_OK) {
        assert_int_equal(member->status, status);
        assert_string_equal(member->words, words);
    }
    assert_int_equal(member->left, status);
    assert_string_equal(member->left_words, words);
}

/* One member fails, early or late, while the others are at each of the calls, for the first time or later. */
static void test_failure(void **state) {
    (void)state;
    for (int what = 0; what < CALL_KINDS; what++)
        for (int who = 0; who < TEAM; who++)
            for (int before = 0; before < (what == CALL_LEAVE ? 1 : 3); before += 2)
                for (int late = 0; late < 2; late++) {
                    struct member members[TEAM];
                    char own[64], told[80];
                    snprintf(own, sizeof own, "file %d is broken", who);
                    snprintf(told, sizeof told, "member %d: %s", who, own);
                    for (int i = 0; i < TEAM; i++) {
                        members[i] = well;
                        members[i].what = what;
                        members[i].before = before;
                        members[i].delay = (i == who) == late ? 1000 : 0;
                    }
                    members[who].own = RETORT_EFORMAT;
                    work_all(members);
                    for (int i = 0; i < TEAM; i++) expect(&members[i], RETORT_EFORMAT, i == who ? own : told);
                }
}

/* Of two that fail each keeps its own words; the others get the failure of the least number, and of equal ones the
 * first member's: not that of who was faster. */
static void test_two_failures(void **state) {
    (void)state;
    for (int turn = 0; turn < 4; turn++) {
        struct member members[TEAM] = {well, well, well, well};
        int later = turn < 2 ? RETORT_EDEVICE : RETORT_EIO;
        members[1].own = RETORT_EIO, members[1].delay = turn % 2 ? 1000 : 0;
        members[3].own = later, members[3].delay = turn % 2 ? 0 : 1000;
        work_all(members);
        const char *told = turn < 2 ? "member 3: file 3 is broken" : "member 1: file 1 is broken";
        expect(&members[0], later, told);
        expect(&members[1], RETORT_EIO, "file 1 is broken");
        expect(&members[2], later, told);
        expect(&members[3], later, "file 3 is broken");
    }
}

/* A member that is at another call would be waited for for ever, or would get what is not meant for it. */
static void test_out_of_step(void **state) {
    (void)state;
    for (int what = 0; what < CALL_KINDS; what++) {
        struct member members[TEAM] = {well, well, well, well};
        for (int i = 0; i < TEAM; i++) members[i].what = what;
        members[2].wrong = (what + 1) % CALL_KINDS;
        work_all(members);
        for (int i = 0; i < TEAM; i++) {
            assert_int_equal(members[i].left, RETORT_EINVAL);
            assert_non_null(strstr(members[i].words, "not at the same call"));
            assert_string_equal(members[i].left_words, members[i].words);
        }
    }
}

/* Counts that differ, or cannot be. */
static void *wrong_counts(void *part) {
    struct member *member = part;
    float rows[8] = {0}, sum[2];
    int counts[2] = {1, team_rank(member->team) == 1 ? member->what : 1};
    member->status = team_sum(member->team, counts, rows, 2, sum);
    snprintf(member->words, sizeof member->words, "%s", retort_error_message());
    /* Not a second time. */
    member->left = team_sum(member->team, counts, rows, 2, sum);
    if (member->left == member->status) member->left = team_leave(member->team, RETORT_OK);
    snprintf(member->left_words, sizeof member->left_words, "%s", retort_error_message());
    return NULL;
}

static void test_wrong_counts(void **state) {
    (void)state;
    for (int count = -1; count < 3; count += 3) {
        struct member members[2] = {{.what = count}, {.what = count}};
        struct team *teams[2];
        assert_ok(team_create_threads(2, teams));
        for (int i = 0; i < 2; i++) members[i].team = teams[i];
        in_threads(2, wrong_counts, members, sizeof *members);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(members[i].status, RETORT_EINVAL);
            assert_int_equal(members[i].left, RETORT_EINVAL);
            assert_string_equal(members[i].left_words, members[i].words);
            if (count > 0)
                assert_non_null(strstr(members[i].words, "not at the same call"));
            else
                assert_string_equal(members[i].words,
                                    i == 1 ? "a count of -1 for member 1" : "member 1: a count of -1 for member 1");
            team_destroy(teams[i]);
        }
    }
}

/* --- waiting --- */

static void *wait_for_other(void *part) {
    struct member *member = part;
    struct timespec begun, ended;
    if (team_rank(member->team) == 1) usleep(500000);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
    member->status = team_meet(member->team);
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
    member->delay = (int)((ended.tv_sec - begun.tv_sec) * 1000000 + (ended.tv_nsec - begun.tv_nsec) / 1000);
    return NULL;
}

static void test_waiting_is_idle(void **state) {
    (void)state;
    struct member members[2] = {well, well};
    struct team *teams[2];
    assert_ok(team_create_threads(2, teams));
    for (int i = 0; i < 2; i++) members[i].team = teams[i];
    in_threads(2, wait_for_other, members, sizeof *members);
    assert_int_equal(members[0].status, RETORT_OK);
    if (members[0].delay > 50000) fail_msg("%d microseconds of computing while waiting", members[0].delay);
    for (int i = 0; i < 2; i++) team_destroy(teams[i]);
}

/* --- launchers --- */

static void expect_launched(int size, const char *const *variables) {
    static const char *const known[] = {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "PMI_SIZE",     "PMI_RANK",
                                        "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS",         "SLURM_PROCID", "PMIX_RANK"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) unsetenv(known[i]);
    for (; *variables; variables += 2) setenv(variables[0], variables[1], 1);
    assert_int_equal(team_launched(), size);
}
#define EXPECT_LAUNCHED(size, ...) expect_launched(size, (const char *const[]){__VA_ARGS__, NULL})

static void test_launched(void **state) {
    (void)state;
    EXPECT_LAUNCHED(1, NULL);
    EXPECT_LAUNCHED(4, "OMPI_COMM_WORLD_SIZE", "4", "OMPI_COMM_WORLD_RANK", "3");
    EXPECT_LAUNCHED(2, "PMI_SIZE", "2", "PMI_RANK", "0");
    EXPECT_LAUNCHED(8, "SLURM_STEP_NUM_TASKS", "8", "PMIX_RANK", "5", "SLURM_NTASKS", "8", "SLURM_PROCID", "5");
    /* Within a job of several tasks, by hand; srun without MPI; a shell that srun has started on a node. */
    EXPECT_LAUNCHED(1, "SLURM_NTASKS", "4");
    EXPECT_LAUNCHED(1, "SLURM_NTASKS", "4", "SLURM_STEP_NUM_TASKS", "4", "SLURM_PROCID", "2");
    EXPECT_LAUNCHED(1, "SLURM_NTASKS", "4", "SLURM_STEP_NUM_TASKS", "1", "PMIX_RANK", "0");
    /* What no launcher leaves. */
    EXPECT_LAUNCHED(1, "OMPI_COMM_WORLD_SIZE", "4");
    EXPECT_LAUNCHED(1, "OMPI_COMM_WORLD_SIZE", "4", "OMPI_COMM_WORLD_RANK", "4");
    EXPECT_LAUNCHED(1, "OMPI_COMM_WORLD_SIZE", "four", "OMPI_COMM_WORLD_RANK", "0");
    EXPECT_LAUNCHED(1, "PMI_SIZE", "-2", "PMI_RANK", "");
    EXPECT_LAUNCHED(1, NULL);
}

static void test_without_mpi(void **state) {
    (void)state;
    if (team_has_mpi()) skip();
    struct team *team;
    assert_int_equal(team_create_mpi(&team), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "libopenmpi-dev"));
}

int main(void) {
    alarm(600); /* members that wait for each other for ever */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results),     cmocka_unit_test(test_large),        cmocka_unit_test(test_order_matters),
        cmocka_unit_test(test_null),        cmocka_unit_test(test_failure),      cmocka_unit_test(test_two_failures),
        cmocka_unit_test(test_out_of_step), cmocka_unit_test(test_wrong_counts), cmocka_unit_test(test_waiting_is_idle),
        cmocka_unit_test(test_launched),    cmocka_unit_test(test_without_mpi),
    };
    return cmocka_run_group_tests_name("team", tests, NULL, NULL);
}
