#include "run/member.h"

#include "base/error.h"
#include "base/log.h"
#include "distill/method.h"
#include "run/checkpoint.h"
#include "run/prepare.h"
#include "run/score.h"
#include "team/team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- opening --- */
int member_open(struct member *member, const struct session *beside) {
    int status = RETORT_OK, rank = team_rank(member->team), members = team_size(member->team);
    if (members > DEVICES_MOST) RAISE(RETORT_EINVAL, "%d devices; at most %d work on a run", members, DEVICES_MOST);
    if (member->begun) TRY(run_folder_read_plan(member->folder, rank, members, &member->plan));
    TRY(session_open_device(member->descriptor, team_local_rank(member->team), beside,
                            (unsigned)member->plan.distil.compute_units, member->plan.single, &member->session));
    if (!member->dry_run) TRY(session_take_experts(member->descriptor, &member->session));
done:
    return status;
}

int member_choose_kernels(struct member *member) {
    int status = RETORT_OK;
    if (!member->begun) return session_choose_kernels(&member->session, NULL, NULL);
    TRY(session_choose_kernels(&member->session, member->folder->wisdom, member->plan.gemm));
    TRY(run_folder_check_plan(member->folder, team_rank(member->team), &member->session));
done:
    return status;
}

/* --- division --- */
static enum divide divide_what(const struct member *member) {
    const struct descriptor *d = member->descriptor;
    if (d->device.divide != DIVIDE_AUTO) return d->device.divide;
    bool enough = d->outer.meta_batch >= team_size(member->team);
    return enough || !descriptor_method(d)->divides_rows ? DIVIDE_TRAJECTORIES : DIVIDE_ROWS;
}

/* Whether the run can be divided at all, before anything is tried. */
static int check_division(struct member *member, bool *given) {
    int status = RETORT_OK;
    struct run_plan *plan = &member->plan;
    plan->members = team_size(member->team);
    plan->what = divide_what(member);
    TRY(descriptor_shares(member->descriptor, plan->members, plan->shares, given));
    session_divide(&member->session, member->team, plan->what, plan->shares);
    status = prepare_check(member->descriptor, &member->session);
    member->session.division = (struct division){0};
done:
    return status;
}

/* Seconds of a member's own part of a step that takes it `seconds` alone. */
static int own_seconds(const struct member *member, double seconds, double *own) {
    int status = RETORT_OK, all = 0, trajectories = member->descriptor->outer.meta_batch;
    const struct run_plan *plan = &member->plan;
    const struct division division = {member->team, plan->what, plan->shares};
    struct deal deal;
    for (int i = 0; i < plan->members; i++) all += plan->shares[i];
    *own = seconds * plan->shares[team_rank(member->team)] / all;
    if (plan->what != DIVIDE_TRAJECTORIES) goto done;
    TRY(division_deal(&division, trajectories, 1, &deal));
    *own = seconds * deal.count / trajectories;
    deal_finish(&deal);
done:
    return status;
}

/* The largest of all members' numbers, to all. */
static int largest(struct team *team, double own, double *most) {
    int status = RETORT_OK, members = team_size(team);
    double *all = calloc((size_t)members, sizeof *all);
    if (!all) RAISE(RETORT_ENOMEM, "out of memory for %d devices", members);
    TRY(team_collect(team, NULL, sizeof own, &own, all));
    *most = own;
    for (int i = 0; i < members; i++) *most = fmax(*most, all[i]);
done:
    free(all);
    return status;
}

/* Tries what a step takes this device alone; all try at once, since devices may share processors. */
static int settle_division(struct member *member, struct forecast *forecast) {
    int status = RETORT_OK;
    struct distill *alone = NULL;
    struct run_plan *plan = &member->plan;
    double seconds, own;
    bool given;
    TRY(check_division(member, &given));
    TRY(prepare_run(member->descriptor, &member->session, plan, member->interrupt, &alone));
    TRY(team_meet(member->team));
    TRY(forecast_make(member->descriptor, &member->session, alone, &plan->evaluate, FORECAST_QUICK, forecast));
    seconds = forecast->step;
    if (!given) TRY(division_measure(member->team, seconds, plan->shares));
    TRY(own_seconds(member, seconds, &own));
    TRY(largest(member->team, own, &forecast->step));
done:
    distill_destroy(alone);
    return status;
}

static void tell_division(const struct member *member) {
    const struct run_plan *plan = &member->plan;
    struct text shares;
    text_init(&shares);
    for (int i = 0; i < plan->members; i++) text_printf(&shares, "%s%d", i ? " : " : "", plan->shares[i]);
    log_info("devices: %d, which divide %s %s", plan->members,
             plan->what == DIVIDE_ROWS ? "the rows of batches" : "the trajectories of a step", text_get(&shares));
    text_finish(&shares);
}

int member_prepare(struct member *member, struct forecast *forecast, struct distill **distill) {
    int status = RETORT_OK;
    struct run_plan *plan = &member->plan;
    struct forecast fresh = {0};
    struct distill *made = NULL;
    bool alone = !member->team;
    if (!alone && !member->begun) TRY(settle_division(member, &fresh));
    if (!alone) {
        session_divide(&member->session, member->team, plan->what, plan->shares);
        tell_division(member);
    }
    TRY(prepare_run(member->descriptor, &member->session, plan, member->interrupt, &made));
    if (alone && forecast)
        TRY(forecast_make(member->descriptor, &member->session, made, &plan->evaluate, FORECAST_QUICK, &fresh));
    if (!alone) TRY(largest(member->team, plan->evaluate.seconds, &fresh.evaluate));
    if (forecast) {
        *forecast = fresh;
        fresh = (struct forecast){0};
    }
    *distill = made;
    made = NULL;
done:
    forecast_finish(&fresh);
    distill_destroy(made);
    return status;
}

/* --- what members tell each other --- */
/* Lines of different length: all get room for the longest. */
static int collect_lines(struct team *team, const char *own, struct text *all) {
    int status = RETORT_OK, members = team_size(team);
    double most;
    char *mine = NULL, *lines = NULL;
    TRY(largest(team, (double)strlen(own), &most));
    size_t room = (size_t)most + 1;
    mine = calloc(1, room);
    lines = calloc((size_t)members, room);
    if (!mine || !lines) RAISE(RETORT_ENOMEM, "out of memory for the kernel choices of %d devices", members);
    strcpy(mine, own);
    TRY(team_collect(team, NULL, room, mine, lines));
    for (int i = 1; i < members; i++) text_append(all, lines + (size_t)i * room);
    if (all->failed) RAISE(RETORT_ENOMEM, "out of memory for the kernel choices of %d devices", members);
done:
    free(mine);
    free(lines);
    return status;
}

int member_tell(const struct member *member, struct device_plan *devices, struct text *wisdom) {
    int status = RETORT_OK;
    const struct device_plan own = device_plan_of(&member->session, &member->plan);
    struct text lines;
    text_init(&lines);
    wisdom_lines(member->session.wisdom, &lines);
    TRY(team_collect(member->team, NULL, sizeof own, &own, devices));
    TRY(collect_lines(member->team, text_get(&lines), wisdom));
done:
    text_finish(&lines);
    return status;
}

int member_check_step(const struct member *member, struct distill *distill) {
    int status = RETORT_OK, own = distill_steps_done(distill), leaders = own;
    TRY(team_share(member->team, &leaders, sizeof leaders));
    if (own != leaders)
        RAISE(
            RETORT_EIO,
            "the checkpoint that this device read is of outer step %d, the leader's of step %d: all machines must see "
            "the same run folder",
            own, leaders);
    TRY(distill_share_start(distill));
    TRY(team_meet(member->team));
done:
    return status;
}

int member_share_set(const struct member *member, struct distilled_set *set) {
    size_t pixels = (size_t)set->channels * (size_t)set->height * (size_t)set->width;
    return team_share(member->team, set->images, (size_t)set->count * pixels * sizeof *set->images);
}

/* --- following --- */
static int meet_leader(struct member *member, struct distill *distill) {
    int status = RETORT_OK;
    struct spent spent = {0};
    bool found;
    struct text wisdom;
    text_init(&wisdom);
    struct device_plan *devices = calloc((size_t)team_size(member->team), sizeof *devices);
    if (!devices) RAISE(RETORT_ENOMEM, "out of memory for %d devices", team_size(member->team));
    TRY(member_tell(member, devices, &wisdom));
    if (member->begun) TRY(checkpoint_load(member->folder->checkpoints, distill, &spent, &found));
    TRY(member_check_step(member, distill));
done:
    text_finish(&wisdom);
    free(devices);
    return status;
}

static int take_steps(const struct member *member, struct distill *distill) {
    int status = RETORT_OK;
    const struct metrics *metrics;
    while (distill_steps_done(distill) < member->descriptor->outer.steps) {
        if (member->interrupt && *member->interrupt) RAISE(RETORT_EINTERRUPTED, "interrupted");
        TRY(distill_step(distill, &metrics));
    }
done:
    return status;
}

int member_follow(struct member *member) {
    int status = RETORT_OK;
    const struct descriptor *d = member->descriptor;
    struct distill *distill = NULL;
    struct distilled_set set = {0};
    struct scores scores = {0};
    TRY(member_choose_kernels(member));
    TRY(member_prepare(member, NULL, &distill));
    if (member->dry_run) goto done;
    TRY(meet_leader(member, distill));
    TRY(take_steps(member, distill));
    TRY(distilled_set_take(distill, &member->session.data.train, d->set.ipc, d->set.labels, &set));
    distill_destroy(distill);
    distill = NULL;
    TRY(member_share_set(member, &set));
    if (member->session.data.test.count > 0)
        TRY(scores_compute(d, &member->session, &set, &member->plan.evaluate, NULL, NULL, member->interrupt, &scores));
done:
    scores_finish(&scores);
    distilled_set_finish(&set);
    distill_destroy(distill);
    return status;
}
