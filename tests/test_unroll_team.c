/* Unrolls whose batches a team divides: the numbers of whole batches, and the same bytes at all members whatever the
 * timing. Members are threads, each with a device and a library of its own. */
#include "training.h"

#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "base/augmentation.h"
#include "base/file.h"
#include "data/data.h"
#include "team/team.h"
#include "unroll/check.h"

#define TOLERANCE 1e-5 /* sums of other parts in another order, as micro-batches are */

enum { MOST_MEMBERS = 3, ALARM_SECONDS = 600 };
static struct device *devices[MOST_MEMBERS];
static struct library *libraries[FAMILY_GPU + 1][MOST_MEMBERS];

static struct library *library_of(enum family family, int member) {
    struct library **library = &libraries[family][member];
    if (!*library) assert_ok(library_create(devices[member], family, library));
    return *library;
}

/* --- members --- */
struct member {
    struct team *team;
    const int *shares;
    struct library *library;
    const struct problem *problem;
    const struct unroll_plan *frozen;
    uint64_t pauses; /* seed of when it sleeps; 0: it does not */
    volatile int *interrupt;
    int (*work)(struct member *member); /* what its thread does */
    const void *context;

    struct answer answer;
    struct check_result result;
    struct unroll_plan plan;
    char described[300];
    uint64_t peak;
    int status;
    char message[400];
};

/* A member's unroll of the problem. One after another, which they may, since creation exchanges nothing: where two
 * threads launch the same kernel for the first time at once, PoCL 3.1 loads it twice and ends the process once both let
 * it go. */
static int make_unroll(const struct member *m, struct unroll **unroll) {
    static pthread_mutex_t creating = PTHREAD_MUTEX_INITIALIZER;
    struct unroll_spec spec = m->problem->spec;
    spec.team = m->team;
    spec.shares = m->shares;
    spec.frozen = m->frozen;
    spec.interrupt = m->interrupt;
    pthread_mutex_lock(&creating);
    int status = unroll_create(m->library, &spec, unroll);
    pthread_mutex_unlock(&creating);
    return status;
}

static int compute(struct member *m) {
    int status = RETORT_OK;
    struct unroll *unroll = NULL;
    struct device *device = library_device(m->library);
    struct random pauses = random_begin(m->pauses, RANDOM_TEST, (uint32_t)team_rank(m->team));
    device_reset_peak(device);
    TRY(make_unroll(m, &unroll));
    TRY(compute_answer(unroll, m->problem, m->pauses ? &pauses : NULL, &m->answer));
    m->peak = device_peak_bytes(device);
    unroll_plan(unroll, &m->plan);
    unroll_describe(unroll, m->described, sizeof m->described);
done:
    unroll_destroy(unroll);
    return status;
}

static void *thread(void *context) {
    struct member *m = context;
    m->status = team_leave(m->team, m->work(m));
    if (m->status < 0) snprintf(m->message, sizeof m->message, "%s", retort_error_message());
    return NULL;
}

/* Members that are to compute a problem; answers are made here, for the problem's arena is one thread's. */
static void make_members(struct member *members, int count, const int *shares, enum family family, struct problem *p) {
    struct team *teams[MOST_MEMBERS];
    assert_ok(team_create_threads(count, teams));
    for (int i = 0; i < count; i++)
        members[i] = (struct member){.team = teams[i],
                                     .shares = shares,
                                     .library = library_of(family, i),
                                     .problem = p,
                                     .work = compute,
                                     .answer = p ? answer_make(p) : (struct answer){0}};
}

static void run_members(struct member *members, int count) {
    pthread_t threads[MOST_MEMBERS];
    alarm(ALARM_SECONDS);
    for (int i = 0; i < count; i++) assert_int_equal(pthread_create(&threads[i], NULL, thread, &members[i]), 0);
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    alarm(0);
    for (int i = 0; i < count; i++) team_destroy(members[i].team);
}

static void expect_well(const struct member *members, int count) {
    for (int i = 0; i < count; i++)
        if (members[i].status < 0) fail_msg("member %d: %d %s", i, members[i].status, members[i].message);
}

/* What the problem's batches give where nobody divides them. */
static struct answer undivided_answer(enum family family, struct problem *p) {
    struct unroll *unroll;
    assert_ok(unroll_create(library_of(family, 0), &p->spec, &unroll));
    struct answer answer = device_answer(unroll, p);
    unroll_destroy(unroll);
    return answer;
}

/* --- divided batches are whole batches --- */
/* Of 7 rows in shares of 3, 2 and 1 members have 3, 2 and 2; of 10 they have 5, 3 and 2. */
static void uneven_problem(struct problem *p) {
    problem_init(p, &convnet, 2, 8,
                 &(struct unroll_spec){.optimizer = adam, .set_count = 9, .batch = 7, .max_window = 3},
                 (struct meta_spec){.batch = 10}, 1);
}

static void no_hessian_problem(struct problem *p) {
    augmented_problem(p);
    p->spec.no_hessian = true;
}

/* Steps with weights of their own, colours, and no state of the optimiser but for the weights. */
static void coloured_problem(struct problem *p) {
    struct random random = random_begin(6, RANDOM_TEST, 0);
    const struct optimizer_spec plain = {.kind = OPTIMIZER_SGD, .lr = 0.05};
    problem_init(p, &mlp, 3, 5,
                 &(struct unroll_spec){.optimizer = plain, .set_count = 5, .batch = 6, .colour = true, .max_window = 3},
                 (struct meta_spec){.batch = 6}, 2);
    p->colour = floats(p, p->steps * p->spec.batch * COLOUR_SIZE, 0.3, &random);
    for (int64_t i = 0; i < p->steps * p->spec.batch; i++) {
        p->colour[i * COLOUR_SIZE + COLOUR_SATURATION] += 1;
        p->colour[i * COLOUR_SIZE + COLOUR_CONTRAST] += 1;
    }
    for (int t = 0; t < p->steps; t++) p->weights[t] = (float)(1 + t) / 3;
}

struct division_case {
    void (*make)(struct problem *p);
    int members, shares[MOST_MEMBERS];
    enum family family;
    const char *described; /* of the last member */
};

static void test_division(void **state) {
    const struct division_case *c = *state;
    struct problem p;
    struct member members[MOST_MEMBERS], again[MOST_MEMBERS];
    c->make(&p);
    struct answer whole = undivided_answer(c->family, &p);
    make_members(members, c->members, c->shares, c->family, &p);
    run_members(members, c->members);
    expect_well(members, c->members);
    make_members(again, c->members, c->shares, c->family, &p);
    for (int i = 0; i < c->members; i++) again[i].pauses = 17 + (uint64_t)i, again[i].frozen = &members[i].plan;
    run_members(again, c->members);
    expect_well(again, c->members);
    for (int i = 0; i < c->members; i++) {
        expect_answer(&p, &members[i].answer, &whole, TOLERANCE);
        expect_same(&p, &members[i].answer, &members[0].answer);
        expect_same(&p, &again[i].answer, &members[0].answer);
    }
    const char *described = members[c->members - 1].described;
    if (!strstr(described, c->described)) fail_msg("\"%s\" does not say \"%s\"", described, c->described);
    problem_finish(&p);
}

/* Equal shares where none are given; members whose rows are in parts of their own, with values kept of some steps. */
static void test_parts(void **state) {
    (void)state;
    enum { MEMBERS = 2 };
    const enum family family = FAMILY_CPU;
    struct problem p;
    struct member members[MEMBERS];
    kept_problem(&p, true);
    struct answer whole = undivided_answer(family, &p);
    struct unroll_plan plans[MEMBERS];
    make_members(members, MEMBERS, NULL, family, &p);
    run_members(members, MEMBERS);
    expect_well(members, MEMBERS);
    for (int i = 0; i < MEMBERS; i++) {
        expect_answer(&p, &members[i].answer, &whole, TOLERANCE);
        plans[i] = members[i].plan;
        plans[i].inner_splits = 2 - i;
        plans[i].meta_splits = 1 + i; /* of one row, and of two */
        plans[i].kept_steps = 3 - i;
    }
    for (int round = 0; round < 2; round++) {
        make_members(members, MEMBERS, NULL, family, &p);
        for (int i = 0; i < MEMBERS; i++) members[i].frozen = &plans[i];
        /* A member's plan is for its own rows: two of a batch of four. */
        if (round) plans[1].inner_splits = 4;
        run_members(members, MEMBERS);
        for (int i = 0; i < MEMBERS; i++) {
            assert_int_equal(members[i].status, round ? RETORT_EINVAL : RETORT_OK);
            if (round) assert_non_null(strstr(members[i].message, "does not go with"));
            if (!round) expect_answer(&p, &members[i].answer, &whole, TOLERANCE);
            if (!round) expect_same(&p, &members[i].answer, &members[0].answer);
        }
    }
    problem_finish(&p);
}

/* The least ceiling under which a member's unroll can be, found without anybody else; and what is chosen under it. */
static uint64_t least_ceiling(const struct member *m, struct unroll_plan *plan) {
    struct member alone = *m;
    struct problem planned = *m->problem;
    struct device *device = library_device(m->library);
    struct unroll *unroll = NULL;
    uint64_t ceiling = 16000;
    int status;
    planned.spec.plan_only = true;
    alone.problem = &planned;
    do {
        ceiling += ceiling / 16;
        device_set_ceiling(device, ceiling);
        status = make_unroll(&alone, &unroll);
    } while (status == RETORT_ELIMIT);
    device_set_ceiling(device, 0);
    assert_ok(status);
    unroll_plan(unroll, plan);
    unroll_destroy(unroll);
    return ceiling;
}

/* A member finds its own way under its own ceiling, into parts of its rows. */
static void test_ceiling(void **state) {
    (void)state;
    enum { MEMBERS = 2 };
    static const int shares[] = {2, 1};
    struct problem p;
    struct member members[MEMBERS];
    adam_problem(&p);
    p.spec.steps = p.steps;
    struct answer whole = undivided_answer(FAMILY_CPU, &p);
    for (int i = 0; i < MEMBERS; i++) {
        library_destroy(libraries[FAMILY_CPU][i]); /* its scratch memory is as large as others needed it */
        libraries[FAMILY_CPU][i] = NULL;
    }
    make_members(members, MEMBERS, shares, FAMILY_CPU, &p);
    uint64_t ceilings[MEMBERS];
    for (int i = 0; i < MEMBERS; i++) {
        struct unroll_plan plan;
        ceilings[i] = least_ceiling(&members[i], &plan);
        if (plan.inner_splits < 2)
            fail_msg("member %d under %llu bytes is not in parts", i, (unsigned long long)ceilings[i]);
    }
    for (int i = 0; i < MEMBERS; i++) device_set_ceiling(devices[i], ceilings[i]);
    run_members(members, MEMBERS);
    for (int i = 0; i < MEMBERS; i++) device_set_ceiling(devices[i], 0);
    expect_well(members, MEMBERS);
    for (int i = 0; i < MEMBERS; i++) {
        assert_true(members[i].plan.inner_splits > 1);
        assert_in_range(members[i].peak, 1, ceilings[i]);
        expect_answer(&p, &members[i].answer, &whole, TOLERANCE);
        expect_same(&p, &members[i].answer, &members[0].answer);
    }
    problem_finish(&p);
}

/* With room under its ceiling, a member keeps values of its rows. */
static void test_kept(void **state) {
    (void)state;
    enum { MEMBERS = 2 };
    struct problem p;
    struct member members[MEMBERS];
    kept_problem(&p, true);
    struct answer whole = undivided_answer(FAMILY_CPU, &p);
    make_members(members, MEMBERS, NULL, FAMILY_CPU, &p);
    device_set_ceiling(devices[1], 1 << 26);
    run_members(members, MEMBERS);
    device_set_ceiling(devices[1], 0);
    expect_well(members, MEMBERS);
    assert_int_equal(members[0].plan.kept_steps, 0);
    assert_int_equal(members[1].plan.kept_steps, p.window);
    for (int i = 0; i < MEMBERS; i++) {
        expect_answer(&p, &members[i].answer, &whole, TOLERANCE);
        expect_same(&p, &members[i].answer, &members[0].answer);
    }
    problem_finish(&p);
}

/* --- passes --- */
enum { PASS_ROWS = 5 };

/* The sum of all rows, of batches that come one after another, and twice a value that no row has a part in. */
static struct graph *build_sums(const void *context, int64_t count) {
    struct graph *g;
    (void)context;
    if (graph_create(&g) < 0) return NULL;
    struct node *rows = graph_input(g, "rows", FLOAT32, SHAPE(count, 2)),
                *given = graph_input(g, "given", FLOAT32, SHAPE(1));
    graph_output(
        g, "out sum",
        node_add(graph_input(g, "sum", FLOAT32, SHAPE(2)), node_reshape(node_reduce_sum(rows, 1u << 0), SHAPE(2))));
    graph_output(g, "twice", node_scale(given, 2));
    if (graph_status(g) >= 0) return g;
    graph_destroy(g);
    return NULL;
}

static const struct pass_value sum_values[] = {
    {"rows", PASS_UPLOAD, true}, {"given", PASS_UPLOAD}, {"sum", PASS_SUM}, {"twice", PASS_RESULT}};
static const struct pass_spec sums = {
    .label = "sums", .build = build_sums, .batch = PASS_ROWS, .values = sum_values, .value_count = 4};

/* Two batches, whose sums go on from one to the next, and another after a fresh beginning. */
static int add_rows(struct member *m) {
    int status = RETORT_OK;
    struct unroll *unroll = NULL;
    float rows[PASS_ROWS][2], given = 21, sum[2], twice;
    TRY(make_unroll(m, &unroll));
    struct pass *pass = unroll_pass(unroll, 0);
    for (int i = 0; i < PASS_ROWS; i++) rows[i][0] = (float)(1 << i), rows[i][1] = (float)(i * i);
    TRY(pass_upload(pass, 0, rows));
    TRY(pass_upload(pass, 1, &given));
    for (int batches = 2; batches; batches--) {
        TRY(pass_begin(pass));
        for (int i = 0; i < batches; i++) TRY(pass_run(pass));
        TRY(pass_read(pass, 2, sum));
        TRY(pass_read(pass, 3, &twice));
        if (sum[0] != 31.0f * (float)batches || sum[1] != 30.0f * (float)batches || twice != 42)
            RAISE(RETORT_ENUMERIC, "after %d batches: %g, %g, %g", batches, sum[0], sum[1], twice);
    }
done:
    unroll_destroy(unroll);
    return status;
}

static void test_passes(void **state) {
    enum { MEMBERS = 3 };
    static const int shares[] = {1, 2, 1};
    struct problem p;
    struct member members[MEMBERS];
    uneven_problem(&p);
    p.spec = (struct unroll_spec){.network = &p.network, .set_count = 1, .passes = &sums, .pass_count = 1};
    make_members(members, MEMBERS, shares, *(enum family *)*state, &p);
    for (int i = 0; i < MEMBERS; i++) members[i].work = add_rows;
    run_members(members, MEMBERS);
    expect_well(members, MEMBERS);
    problem_finish(&p);
}

/* --- timing, failures --- */
/* Members that measure agree on what to do next, however long each takes by itself. */
static int measure(struct member *m) {
    int status = RETORT_OK, taken;
    struct unroll *unroll = NULL;
    double seconds[3];
    struct unroll_gradient gradient = {.images = m->answer.images};
    TRY(make_unroll(m, &unroll));
    TRY(upload(unroll, m->problem));
    TRY(meta_upload(unroll_pass(unroll, 0), m->problem->real_images, m->problem->real_labels, m->problem->real_maps));
    for (int round = 0; round < 3; round++) {
        const double enough = 0.002 * (1 + round);
        if (team_rank(m->team)) usleep(3000);
        TRY(unroll_time_steps(unroll, 1, m->problem->steps, round & 1, enough, &seconds[0], &taken));
        TRY(unroll_time_pass(unroll, unroll_pass(unroll, 0), enough, &seconds[1]));
        TRY(unroll_time_window(unroll, 1, m->problem->window, lambda_of(unroll), HESSIAN_EXACT, enough, &gradient,
                               &seconds[2]));
        for (int i = 0; i < 3; i++) m->answer.losses[i] = seconds[i];
    }
done:
    unroll_destroy(unroll);
    return status;
}

static void test_timing(void **state) {
    (void)state;
    enum { MEMBERS = 2 };
    static const int shares[] = {3, 1};
    struct problem p;
    struct member members[MEMBERS];
    augmented_problem(&p);
    make_members(members, MEMBERS, shares, FAMILY_CPU, &p);
    for (int i = 0; i < MEMBERS; i++) members[i].work = measure;
    run_members(members, MEMBERS);
    expect_well(members, MEMBERS);
    assert_memory_equal(members[0].answer.losses, members[1].answer.losses, 3 * sizeof(double));
    for (int i = 0; i < 3; i++) assert_true(members[0].answer.losses[i] > 0);
    problem_finish(&p);
}

/* One member is interrupted: the others, who wait for it, hear of it. */
static void test_interrupt(void **state) {
    (void)state;
    enum { MEMBERS = 3 };
    struct problem p;
    struct member members[MEMBERS];
    volatile int interrupt = 1;
    uneven_problem(&p);
    make_members(members, MEMBERS, NULL, FAMILY_CPU, &p);
    members[1].interrupt = &interrupt;
    run_members(members, MEMBERS);
    for (int i = 0; i < MEMBERS; i++) {
        assert_int_equal(members[i].status, RETORT_EINTERRUPTED);
        assert_non_null(strstr(members[i].message, "interrupted"));
    }
    problem_finish(&p);
}

/* What cannot be divided is refused by each member, with words, before anything is exchanged. */
static void expect_refused(struct problem *p, const int *shares, int count, const char *words) {
    struct team *teams[MOST_MEMBERS];
    assert_ok(team_create_threads(count, teams));
    for (int i = 0; i < count; i++) {
        struct unroll_spec spec = p->spec;
        struct unroll *unroll;
        spec.team = teams[i];
        spec.shares = shares;
        assert_int_equal(unroll_create(library_of(FAMILY_CPU, i), &spec, &unroll), RETORT_EINVAL);
        if (!strstr(retort_error_message(), words)) fail_msg("not \"%s\": %s", words, retort_error_message());
    }
    for (int i = 0; i < count; i++) team_destroy(teams[i]);
}

static void test_refusals(void **state) {
    (void)state;
    struct problem p;
    struct network_spec network = convnet;
    augmented_problem(&p);
    expect_refused(&p, (const int[]){3, 1, 2}, 3, "inner batch of 4 leaves no row to device 2");
    expect_refused(&p, (const int[]){1, 100}, 2, "no row to device 1");
    expect_refused(&p, (const int[]){1, 0}, 2, "a share of 0");
    expect_refused(&p, (const int[]){1, -1}, 2, "a share of -1");
    p.spec.batch = 100;
    expect_refused(&p, (const int[]){1, 9}, 2, "meta-loss batch of 7 leaves no row to device 1");
    p.spec.batch = 4;
    p.spec.rank = 2;
    expect_refused(&p, NULL, 2, "low-rank Hessian");
    p.spec.rank = 0;
    p.spec.max_window = p.spec.pass_count = 0;
    p.spec.networks = 2;
    expect_refused(&p, NULL, 2, "several networks");
    p.spec.networks = 0;
    struct pass_value values[4];
    struct pass_spec pass = sums;
    memcpy(values, sum_values, sizeof values);
    pass.values = values;
    p.spec.passes = &pass;
    p.spec.pass_count = 1;
    values[0].source = PASS_BOUND;
    expect_refused(&p, NULL, 2, "\"rows\" of the sums");
    values[0].source = PASS_UPLOAD;
    values[3].rows = true;
    expect_refused(&p, NULL, 2, "\"twice\" of the sums");
    problem_finish(&p);

    network.norm = NORM_BATCH;
    problem_init(&p, &network, 2, 4, &(struct unroll_spec){.optimizer = momentum, .set_count = 7, .batch = 6},
                 (struct meta_spec){0}, 0);
    expect_refused(&p, NULL, 2, "batch norm");
    /* Alone one has all rows, and nothing is refused. */
    struct team *alone;
    struct unroll *unroll;
    assert_ok(team_create_threads(1, &alone));
    p.spec.team = alone;
    p.spec.plan_only = true;
    assert_ok(unroll_create(library_of(FAMILY_CPU, 0), &p.spec, &unroll));
    unroll_destroy(unroll);
    team_destroy(alone);
    problem_finish(&p);
}

/* --- a case of ../shared/oracle --- */
static void read_case_array(const char *folder, const char *name, struct npy *npy) {
    char path[FILE_PATH_MAX];
    assert_ok(path_join(folder, name, path));
    assert_ok(npy_read(path, npy));
}

static float *case_floats(const char *folder, const char *name, int64_t *rows) {
    struct npy npy;
    float *values;
    read_case_array(folder, name, &npy);
    assert_ok(npy_to_float(&npy, name, &values));
    *rows = npy.size[0];
    npy_finish(&npy);
    return values;
}

static int32_t *case_integers(const char *folder, const char *name, int64_t *count) {
    struct npy npy;
    int32_t *values;
    read_case_array(folder, name, &npy);
    assert_ok(npy_to_int(&npy, name, &values));
    *count = npy_count(&npy);
    npy_finish(&npy);
    return values;
}

static void expect_array(const char *folder, const char *name, const double *doubles, const float *floats,
                         double tolerance) {
    struct npy npy;
    read_case_array(folder, name, &npy);
    assert_int_equal(npy.type, NPY_FLOAT64);
    int64_t count = npy_count(&npy);
    double *got = calloc((size_t)count, sizeof *got);
    for (int64_t i = 0; i < count; i++) got[i] = doubles ? doubles[i] : (double)floats[i];
    double error = relative_error(got, npy.data, count);
    print_message("# %s of %s, divided: %.2g off\n", name, folder, error);
    expect_close(name, error, tolerance);
    npy_finish(&npy);
    free(got);
}

static int check(struct member *m) {
    struct check_case problem = *(const struct check_case *)m->context;
    problem.team = m->team;
    problem.shares = m->shares;
    return check_case(m->library, &problem, &m->result);
}

/* Nine rows of learned labels, six and three of them, and Adam; tolerances as case.yaml has them. */
static void test_oracle(void **state) {
    (void)state;
    enum { MEMBERS = 2, STEPS = 15 };
    static const int shares[] = {2, 1};
    const struct network_spec network = {
        .kind = NETWORK_CONVNET, .depth = 2, .width = 8, .norm = NORM_INSTANCE, .activation = ACTIVATION_RELU};
    const char *source = getenv("RETORT_SOURCE");
    char folder[FILE_PATH_MAX];
    struct member members[MEMBERS];
    int64_t count;
    snprintf(folder, sizeof folder, "%s/../shared/oracle/convnet-adam-soft", source ? source : ".");
    if (!folder_exists(folder)) {
        print_message("# %s is absent\n", folder);
        skip();
    }
    struct check_case problem = {.steps = STEPS, .window = 10};
    problem.optimizer = (struct optimizer_spec){OPTIMIZER_ADAM, .lr = 0.001, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8};
    assert_ok(network_describe(&network, 3, 8, 8, 6, &problem.network));
    float *theta = case_floats(folder, "theta0.npy", &count);
    float *images = case_floats(folder, "syn_x.npy", &problem.synthetic_count);
    float *labels = case_floats(folder, "syn_y.npy", &count);
    float *real_images = case_floats(folder, "real_x.npy", &problem.real_count);
    int32_t *real_labels = case_integers(folder, "real_y.npy", &count);
    int32_t *batches = case_integers(folder, "batches.npy", &count);
    problem.theta0 = theta, problem.synthetic_images = images, problem.soft_labels = labels;
    problem.real_images = real_images, problem.real_labels = real_labels, problem.batches = batches;
    problem.batch_count = count / STEPS;
    make_members(members, MEMBERS, shares, FAMILY_CPU, NULL);
    for (int i = 0; i < MEMBERS; i++) members[i].work = check, members[i].context = &problem;
    run_members(members, MEMBERS);
    expect_well(members, MEMBERS);
    for (int i = 0; i < MEMBERS; i++) {
        struct check_result *result = &members[i].result;
        expect_array(folder, "expect_inner_loss.npy", result->inner_loss, NULL, 1e-5);
        expect_array(folder, "expect_grad_norm.npy", result->grad_norm, NULL, 1e-5);
        expect_array(folder, "expect_outer_loss.npy", &result->outer_loss, NULL, 1e-5);
        expect_array(folder, "expect_dsyn_x.npy", NULL, result->dsyn_x, 1.6e-5);
        expect_array(folder, "expect_dsyn_y.npy", NULL, result->dsyn_y, 1e-5);
        check_result_finish(result);
    }
    void *owned[] = {theta, images, labels, real_images, real_labels, batches};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
}

/* --- the cases --- */
static const struct division_case halves = {
    augmented_problem, 2, {1, 1}, FAMILY_CPU, "inner batch 4 in 1, rows 2 to 3 here"};
static const struct division_case halves_gpu = {
    augmented_problem, 2, {1, 1}, FAMILY_GPU, "meta-loss batch 7 in 1, rows 3 to 6 here"};
static const struct division_case uneven = {
    uneven_problem, 3, {3, 2, 1}, FAMILY_CPU, "inner batch 7 in 1, rows 5 to 6 here"};
static const struct division_case no_hessian = {
    no_hessian_problem, 2, {1, 3}, FAMILY_CPU, "inner batch 4 in 1, rows 1 to 3 here"};
static const struct division_case coloured = {
    coloured_problem, 2, {1, 1}, FAMILY_CPU, "inner batch 6 in 1, rows 3 to 5 here"};

int main(void) {
    for (int i = 0; i < MOST_MEMBERS; i++)
        if (device_open(TEST_DEVICE, &devices[i]) < 0) {
            printf("1..0 # SKIP no OpenCL CPU device: %s\n", retort_error_message());
            return 0;
        }
    static enum family cpu = FAMILY_CPU, gpu = FAMILY_GPU;
#define CASE(test, of) \
    { #test ", " #of, test, NULL, NULL, (void *)&(of) }
    const struct CMUnitTest tests[] = {
        CASE(test_division, halves),     CASE(test_division, halves_gpu),  CASE(test_division, uneven),
        CASE(test_division, no_hessian), CASE(test_division, coloured),    CASE(test_passes, cpu),
        CASE(test_passes, gpu),          cmocka_unit_test(test_parts),     cmocka_unit_test(test_kept),
        cmocka_unit_test(test_timing),   cmocka_unit_test(test_interrupt), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_oracle),   cmocka_unit_test(test_ceiling),
    };
    int failed = cmocka_run_group_tests_name("unroll_team", tests, NULL, NULL);
    for (int family = 0; family <= FAMILY_GPU; family++)
        for (int i = 0; i < MOST_MEMBERS; i++) library_destroy(libraries[family][i]);
    for (int i = 0; i < MOST_MEMBERS; i++) device_close(devices[i]);
    return failed;
}
