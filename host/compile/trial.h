/* Trying kernels out: a plan by itself on random operands, and whether a class of convolutions or matrix products is
 * computed rightly.
 *
 * What a launch writes lies between guard zones, and so does all it reads. Results, scratch memory and zones begin as
 * NaN, so that what is read outside shows in the results, and what is written there in the zones. */
#ifndef RETORT_COMPILE_TRIAL_H
#define RETORT_COMPILE_TRIAL_H

#include "compile/kernels.h"

struct operand {
    float *values; /* as it lies on the device */
    size_t count;
};
/* Allocates and fills with normal numbers; `stream` tells one operand from another. RETORT_ENOMEM. */
int operand_fill(struct operand *operand, size_t count, uint32_t stream);

/* Of a plan: results first, then what they are computed from. */
enum { MOST_OPERANDS = 6 };
struct plan_operands {
    struct operand of[MOST_OPERANDS];
    int results, count;
};
void plan_operands_finish(struct plan_operands *operands); /* NULL-safe */

/* --- a plan in memory of its own --- */
/* Appends the plan's kernels to a program's text, under names that begin with the prefix. */
void plan_write(const struct kernel_plan *plan, const char *prefix, struct text *text);
struct plan_run;
/* Takes its kernels from a program with that text, allocates its operands and uploads them. The plan, the program and
 * the operands are borrowed. RETORT_EDEVICE where a kernel is not there, RETORT_ELIMIT where there is no memory. */
int plan_run_create(struct device *device, struct device_program *program, const char *prefix,
                    const struct kernel_plan *plan, struct plan_operands *operands, struct plan_run **run);
void plan_run_destroy(struct plan_run *run);           /* NULL-safe */
uint64_t plan_run_spilled(const struct plan_run *run); /* bytes, of the worst kernel: device_kernel_spilled */
/* Fills the results with NaN, launches everything once, waits and reads the results into the operands. *seconds: what
 * that took, without reading. *intact: whether all guard zones are as they were. */
int plan_run_once(struct plan_run *run, double *seconds, bool *intact);
/* Seconds of all launches, each timed by itself for about `budget` seconds. */
int plan_run_time(struct plan_run *run, double budget, double *seconds);

/* --- a class of convolutions or matrix products --- */
struct trial;
/* Random operands, and the right result at a few hundred places, corners among them, in double precision. */
int trial_create(const struct kernel_target *target, const struct kernel_class *class, struct trial **trial);
void trial_destroy(struct trial *trial); /* NULL-safe */
/* Plans the class as the target chooses. Before each of the calls below. */
int trial_plan(struct trial *trial, const struct kernel_target *target);
const struct kernel_plan *trial_planned(const struct trial *trial);

struct trial_result {
    const char *fault; /* what is wrong with it; NULL: nothing */
    bool spills;       /* the fault is that it spills, not that it is wrong */
    bool failed;       /* the fault is that the driver could not build or launch it */
    double error;      /* largest difference from double precision over the largest right value */
    double departure;  /* from the first right result of this trial, each element, likewise; 0 in that one */
    double once;       /* seconds of all launches, the second time, with waiting for them */
    double seconds;    /* of all launches, timed one by one; 0: not asked for, or not done */
};
/* When not to go on with a choice: before it is run, if it spills; and before it is timed, if once took longer. */
struct trial_limits {
    double seconds; /* for each kernel; 0: it is not timed */
    bool spill;     /* spilling is allowed */
    double once;    /* 0: none */
    /* Called before kernels are built or a library is tested, and again before they are run; NULL: nobody is told. */
    void (*tell)(void *user, const char *words);
    void *user;
};
/* Runs the kernels of a program that holds them under the prefix twice, and checks: guard zones, equal bytes, a few
 * hundred places against double precision, all against the first right result. The status is that of plan_run_create
 * or of the device: a fault is no failure. */
int trial_check(struct trial *trial, struct device *device, struct device_program *program, const char *prefix,
                const struct trial_limits *limits, struct trial_result *result);
/* trial_plan, a program of its own, trial_check. A kernel that cannot be built or launched is a fault too. */
int trial_run(struct trial *trial, struct device *device, const struct kernel_target *target,
              const struct trial_limits *limits, struct trial_result *result);

/* "convolution to data, 32 > 64 channels, 3 x 3, 28 x 28", "product, 37 x 53' by 53 x 29, 1" (where ' is a transpose,
 * and the last number the batch) and "product 64 64 8 4 8 8 1 1" for messages. */
enum { KERNEL_WORDS = 160 };
void kernel_class_describe(const struct kernel_class *class, char words[KERNEL_WORDS]);
void kernel_choice_describe(const struct kernel_choice *choice, char words[KERNEL_WORDS]);

#endif
