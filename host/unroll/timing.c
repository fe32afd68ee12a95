#include "unroll/timing.h"

#include "base/log.h"
#include "unroll/private.h"

/* A trial of `count` of something, at the weights that it begins with itself. */
typedef int trial(struct unroll *u, const void *context, int count, double *seconds);

/* What a trial takes, by the clock of a team's leader: its members must agree on how many to take. */
static int take(struct unroll *u, trial *run, const void *context, int count, double *seconds) {
    int status = run(u, context, count, seconds);
    return status < 0 ? status : team_share(u->spec.team, seconds, sizeof *seconds);
}

/* Trials of more and more of it, until one takes about long enough or there are no more; then some as large, of which
 * the quickest counts. What the first has to do for the first time is in none of these, unless it took long by itself,
 * and what else the machine does makes trials longer, never shorter. */
static int measure(struct unroll *u, trial *run, const void *context, int most, double enough, double *seconds,
                   int *taken) {
    enum { TRIALS = 3 };
    int status = RETORT_OK, count = 1;
    double least, again;
    for (;;) {
        TRY(take(u, run, context, count, &least));
        if (least > enough / 2 || count >= most) break;
        double more = least > 0 ? count * enough / least : most;
        count = more >= most ? most : (int)more > count ? (int)more : count + 1;
    }
    for (int i = 1; i < TRIALS && least < 2 * enough; i++) {
        TRY(take(u, run, context, count, &again));
        if (again < least) least = again;
    }
    *seconds = least / count;
    if (taken) *taken = count;
done:
    return status;
}

struct steps {
    uint64_t seed;
    bool probe;
};

static int run_steps(struct unroll *u, const void *context, int count, double *seconds) {
    int status = RETORT_OK;
    const struct steps *steps = context;
    TRY(unroll_begin(u, &steps->seed));
    TRY(device_finish(u->device));
    double begun = clock_seconds();
    TRY(unroll_train(u, 0, count, steps->probe));
    TRY(device_finish(u->device));
    *seconds = clock_seconds() - begun;
done:
    return status;
}

int unroll_time_steps(struct unroll *u, uint64_t seed, int most, bool probe, double enough, double *seconds,
                      int *taken) {
    const struct steps steps = {seed, probe};
    return measure(u, run_steps, &steps, most, enough, seconds, taken);
}

struct window {
    uint64_t seed;
    struct place terminal;
    enum hessian hessian;
    struct unroll_gradient *gradient;
};

static int run_window(struct unroll *u, const void *context, int count, double *seconds) {
    int status = RETORT_OK;
    const struct window *window = context;
    TRY(unroll_begin(u, &window->seed));
    TRY(device_finish(u->device));
    double begun = clock_seconds();
    TRY(unroll_window(u, 0, count, false));
    TRY(unroll_backward(u, window->terminal, window->hessian, window->gradient));
    *seconds = clock_seconds() - begun;
done:
    return status;
}

int unroll_time_window(struct unroll *u, uint64_t seed, int window, struct place terminal, enum hessian hessian,
                       double enough, struct unroll_gradient *gradient, double *seconds) {
    int status = RETORT_OK, taken;
    const struct window context = {seed, terminal, hessian, gradient};
    double one, passes = unroll_flops(u, 0, 0);
    TRY(measure(u, run_window, &context, window, enough, &one, &taken));
    *seconds = one * taken * (unroll_flops(u, 0, window) - passes) / (unroll_flops(u, 0, taken) - passes);
    TRY(team_share(u->spec.team, seconds, sizeof *seconds)); /* operations are each one's own */
done:
    return status;
}

static int run_pass(struct unroll *u, const void *context, int count, double *seconds) {
    int status = RETORT_OK;
    struct pass *pass = (struct pass *)context;
    TRY(device_finish(u->device));
    double begun = clock_seconds();
    for (int i = 0; i < count; i++) {
        TRY(pass_begin(pass));
        TRY(pass_run(pass));
    }
    TRY(device_finish(u->device));
    *seconds = clock_seconds() - begun;
done:
    return status;
}

int unroll_time_pass(struct unroll *u, struct pass *pass, double enough, double *seconds) {
    enum { MOST_RUNS = 100 };
    return measure(u, run_pass, pass, MOST_RUNS, enough, seconds, NULL);
}
