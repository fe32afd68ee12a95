/* The command line of every verb: one table of options, of which each verb takes some. */
#ifndef RETORT_COMMAND_OPTIONS_H
#define RETORT_COMMAND_OPTIONS_H

#include "compile/executable.h"
#include "run/schema.h"

#include <stdbool.h>
#include <stddef.h>

enum exit_status { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INTERRUPTED = 130 };

enum option_name {
    OPTION_HELP, /* every verb has it */
    OPTION_HELP_KEYS,
    OPTION_DEVICE,
    OPTION_FAMILY,
    OPTION_SEED,
    OPTION_SEEDS,
    OPTION_OUT,
    OPTION_FORMAT,
    OPTION_SET,
    OPTION_RESUME,
    OPTION_DRY_RUN,
    OPTION_WITH,
    OPTION_CHECKPOINT_EVERY,
    OPTION_NO_TEST,
    OPTION_PROFILE,
    OPTION_TENSORBOARD,
    OPTION_IMAGE,
    OPTION_IPC,
    OPTION_PREFIX,
    OPTION_WINDOW,
    OPTION_REAL,
    OPTION_WIDTH,
    OPTION_REPS,
    OPTION_MEMORY,
    OPTION_LAUNCHES,
    OPTION_CHANNELS,
    OPTION_SIDE,
    OPTION_BATCH,
    OPTION_QUICK,
    OPTION_AS,
    OPTION_LIST,
    OPTION_TUNE_SECONDS,
    OPTION_NO_TUNE,
    OPTION_SHEET,
    OPTION_WHAT_IF,
    OPTION_ALL_DEVICES,
    OPTION_LIMIT,
    OPTION_MARKDOWN,
    OPTION_NETWORKS,
    OPTION_EPOCHS,
    OPTION_QUIET,
    OPTION_JSON,
    OPTION_COUNT
};

struct options {
    const char *value[OPTION_COUNT]; /* of options that take one; NULL: not given */
    bool given[OPTION_COUNT];
    /* --set, --seed and --device as assignments to descriptor keys, in the order given. */
    struct schema_override *overrides;
    size_t override_count;
    const char **what_if; /* the values of --what-if, in the order given */
    size_t what_if_count;
    const char *const *operands; /* what is not an option */
    int operand_count;
    struct arena arena;
};

/* Parses argv[1...] of a verb that takes the options of the bit mask. True: go on. False: *status is what to exit with
 * (help was asked for and printed, or the usage is wrong and was said). */
bool options_parse(const char *verb, const char *help, unsigned long allowed, int argc, char **argv,
                   struct options *options, int *status);
void options_finish(struct options *options);

const char *options_name(enum option_name option); /* without the dashes */

/* Values of options, left as they are where the option was not given. False: what was found is not what is expected;
 * that has been said, exit with EXIT_USAGE. */
bool options_family(const char *verb, const struct options *options, enum family *family);
/* Whether there is one operand, a descriptor. */
bool options_descriptor(const char *verb, const struct options *options);
bool options_int(const char *verb, const struct options *options, enum option_name option, int least, int most,
                 int *value);
bool options_seconds(const char *verb, const struct options *options, enum option_name option, double *value);
bool options_bytes(const char *verb, const struct options *options, enum option_name option, uint64_t *value);
bool options_image(const char *verb, const struct options *options, int image[3]); /* channels, height, width */

struct bench_step_spec;
/* All that describe an outer step: image, ipc, prefix, window, real, width, memory, family. */
bool options_step(const char *verb, const struct options *options, struct bench_step_spec *spec);

/* "retort VERB: words", a hint at --help; EXIT_USAGE. */
int usage_error(const char *verb, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Says the library's message where a call failed, and maps its status: EXIT_USAGE for what the user can mend in
 * descriptor or command, EXIT_INTERRUPTED, otherwise EXIT_FAILED. */
int report_failure(const char *verb, int status);

#define OPTION_BIT(option) (1ul << (option))

int command_bench(int argc, char **argv);
int command_bench_worker(int argc, char **argv);
int bench_all_devices(const struct options *options); /* `retort bench --all-devices` */
int bench_compare(int argc, char **argv);             /* `retort bench compare` */
int command_check(int argc, char **argv);
int command_data(int argc, char **argv);
int command_devices(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_experts(int argc, char **argv);
int command_export(int argc, char **argv);
int command_kernels(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_report(int argc, char **argv);
int command_run(int argc, char **argv);
int command_tune(int argc, char **argv);
int command_tune_worker(int argc, char **argv);

#endif
