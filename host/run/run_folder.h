/* The run folder: who may write into it, and what the run it holds is.
 *
 *     descriptor.yaml   resolved, complete      plan.json      what must be the same when the run is resumed
 *     metrics.jsonl     a line per outer step   checkpoint/    the state, two generations
 *     set/              the distilled set       preview.png    the set for eyes
 *     previews/         the set at a few steps  tensorboard/   event files, where they were asked for
 *     wisdom            the kernel choices that it began with; not there where there were none
 *     result.json       written last: its presence says that the run is finished */
#ifndef RETORT_RUN_RUN_FOLDER_H
#define RETORT_RUN_RUN_FOLDER_H

#include "run/session.h"

struct run_folder {
    char path[FILE_PATH_MAX];
    char descriptor[FILE_PATH_MAX], plan[FILE_PATH_MAX], metrics[FILE_PATH_MAX], checkpoints[FILE_PATH_MAX];
    char scores[FILE_PATH_MAX], wisdom[FILE_PATH_MAX], set[FILE_PATH_MAX], preview[FILE_PATH_MAX],
        previews[FILE_PATH_MAX], tensorboard[FILE_PATH_MAX], result[FILE_PATH_MAX];
    int lock;     /* of the folder, held while the run lives; -1: none */
    bool created; /* by this run */
};

/* How the run's trainings were planned on a device, which must be the same when it is resumed. */
struct run_plan {
    bool frozen; /* false: nothing was planned yet, or the folder is of a version that did not write it down */
    struct unroll_plan distil;
    struct evaluate_plans evaluate;
    char gemm[16];    /* of a run that is resumed: who computed matrix products; "": the folder does not tell */
    bool single;      /* likewise: launches were not merged */
    enum dct_way dct; /* who makes images of coefficients; DCT_AUTO: there are none, or the folder does not tell */
    /* How several devices divide the run. */
    int members; /* 0: not settled */
    enum divide what;
    int shares[DEVICES_MOST];
};

/* A device of a run and what was chosen for it. Plain: processes of one program hand it to each other. */
struct device_plan {
    char name[128], platform[128], driver[128], wisdom[17], gemm[16];
    bool single;
    enum dct_way dct;
    struct unroll_plan distil;
    struct evaluate_plans evaluate;
};
struct device_plan device_plan_of(const struct session *session, const struct run_plan *plan);
/* In words; NULL where there is nothing to tell. */
const char *run_plan_dct(enum dct_way dct);

/* Settles the names. `out` NULL: runs/NAME-SEED. Touches nothing. */
int run_folder_name(const struct descriptor *descriptor, const char *out, struct run_folder *folder);
/* Refuses, with RETORT_EINVAL, a folder that is in use, one that is not empty without `resume`, and with it one that
 * holds another run (naming the first key that differs) or none. `memory` may differ where a plan is frozen. *begun
 * tells whether there is a run to go on with. */
int run_folder_check(const struct run_folder *folder, const struct descriptor *descriptor, bool resume, bool *begun);
/* Replaces a descriptor that run_folder_check found to mean the folder's run by the folder's own copy, under this one's
 * ceiling: keys that the run began without mean what was done then. */
int run_folder_adopt(const struct run_folder *folder, struct descriptor *descriptor);
/* Creates it where needed, takes the lock and clears what a killed run left half written. */
int run_folder_claim(struct run_folder *folder);
/* Refuses, with RETORT_EIO, where what is written late could not be: a folder or its file system that cannot be written
 * to or has less than `bytes` left, or something else in the place of a file or folder. The folder itself may be
 * missing. */
int run_folder_check_room(const struct run_folder *folder, uint64_t bytes);
struct forecast;
/* Writes descriptor.yaml, plan.json, which keeps the forecast, and wisdom of a new run. devices [members], the
 * session's first; `wisdom`: lines of the others (wisdom_lines), NULL: none. */
int run_folder_begin(const struct run_folder *folder, const struct descriptor *descriptor,
                     const struct session *session, const struct run_plan *plan, const struct device_plan *devices,
                     const char *wisdom, const struct forecast *forecast);
/* The plan that a run began with on its device `member` of `members`. RETORT_EFORMAT where plan.json is none;
 * RETORT_EINVAL where the run was begun on another number of devices. */
int run_folder_read_plan(const struct run_folder *folder, int member, int members, struct run_plan *plan);
/* Refuses to go on where another device or driver would compute other numbers, or with other data; warns where other
 * kernels may. */
int run_folder_check_plan(const struct run_folder *folder, int member, const struct session *session);
/* Gives the lock back; a folder that was created and never begun is removed. */
void run_folder_release(struct run_folder *folder);

#endif
