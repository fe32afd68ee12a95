/* A device's part in a run. A run has one member, or several that compute it together (team/team.h): threads of one
 * process with a device each, or processes that MPI started, perhaps on several machines. The first leads: it alone
 * writes the run's folder and talks (run.c). The others follow: they do the same steps on their own devices and hand
 * over what they have computed; a folder that is gone on with must be one that they can read. */
#ifndef RETORT_RUN_MEMBER_H
#define RETORT_RUN_MEMBER_H

#include "run/forecast.h"
#include "run/run_folder.h"
#include "run/set_folder.h"

struct member {
    struct team *team; /* NULL: the run has no other */
    const struct descriptor *descriptor;
    const struct run_folder *folder;
    struct session session; /* without a device: not opened */
    struct run_plan plan;   /* of the folder's run, or of the one that begins */
    bool begun;             /* the folder holds a run to go on with */
    bool dry_run;
    const volatile int *interrupt; /* may be NULL */
};

/* Reads the plan of a run that has begun and opens the member's device; `beside`, where not NULL, has the data. */
int member_open(struct member *member, const struct session *beside);
/* A run goes on with what it began with, wisdom and plan: other kernels, or other parts of a batch, would round
 * otherwise. */
int member_choose_kernels(struct member *member);
/* Prepares the run (prepare.h). Of a run that begins on several devices, each first tries what a step takes it alone,
 * all at the same time, and the division is settled by that, unless the descriptor gives it. `forecast`: NULL, or what
 * the run will take, to be filled in: of a run that has begun on several devices only memory. All members call it. */
int member_prepare(struct member *member, struct forecast *forecast, struct distill **distill);
/* What was chosen for every device, devices [team_size], and in *wisdom the lines of all but the leader's. All members
 * call it. */
int member_tell(const struct member *member, struct device_plan *devices, struct text *wisdom);
/* Makes sure that all members have come to the same step, and go on from the leader's set. All call it. */
int member_check_step(const struct member *member, struct distill *distill);
/* The leader's images to all: those that are made of coefficients may differ in last digits between devices. All call
 * it. */
int member_share_set(const struct member *member, struct distilled_set *set);
/* What a member that does not lead does, from choosing kernels to the last evaluation. It does not yet leave the team.
 */
int member_follow(struct member *member);

#endif
