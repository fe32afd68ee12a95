/* `retort run`: distils and evaluates what a descriptor says. */
#include "run/run.h"

#include "base/error.h"
#include "base/log.h"
#include "command/interrupt.h"
#include "command/options.h"
#include "command/report.h"
#include "command/seeds.h"
#include "command/tuner.h"
#include "run/descriptor.h"
#include "run/prepare.h"
#include "run/set_folder.h"
#include "run/words.h"
#include "team/team.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: retort run DESCRIPTOR [OPTIONS]\n"
    "       retort run --resume --out DIR\n\n"
    "Distils the data a descriptor names into a few synthetic images per class, trains fresh networks on them, tests\n"
    "those, and leaves everything in a run folder: set/ (the images), result.json, metrics.jsonl, preview.png.\n\n"
    "  retort run configs/quickstart.yaml\n"
    "  retort run configs/quickstart.yaml --set set.ipc=10 --set outer.steps=2000 --out runs/ten\n"
    "  retort run configs/quickstart.yaml --seed 1 --device gpu\n"
    "  retort run --resume --out runs/ten       go on after Ctrl-C, a crash or a power cut: the result is the same\n\n"
    "  --out DIR               the run folder, new or empty; without it runs/NAME-SEED\n"
    "  --set KEY=VALUE         overrides a key of the descriptor, paths from its folder; may be repeated\n"
    "  --seed N                the same as --set seed=N\n"
    "  --seeds LIST            a run for each of these, 0-4 or 0,3,7, in DIR/seed-N; several devices divide them\n"
    "  --device SPEC           index or words of `retort devices`; several, with commas between, divide the run\n"
    "  --resume                goes on from the newest good checkpoint in the folder\n"
    "  --checkpoint-every S    seconds of work between checkpoints (20)\n"
    "  --dry-run               reads everything, builds the kernels, runs nothing, writes nothing\n"
    "  --tune-seconds S        on a GPU of which nothing is known yet, kernels are tuned first, for about so long "
    "(60)\n"
    "  --no-tune               goes without; `retort tune` does it at any time\n"
    "  --profile               device time per kernel beside the device's peaks: a table at the end, a line of\n"
    "                          metrics.jsonl\n"
    "  --tensorboard           leaves event files in tensorboard/ as it goes: tensorboard --logdir DIR\n"
    "  --json                  prints result.json instead of the summary\n"
    "  --quiet, -q             only warnings and errors\n"
    "  --help-keys             every key of a descriptor, with its default\n\n"
    "Ctrl-C, or SIGTERM, drops the step at hand, saves the state after the one before it and exits with 130; a second\n"
    "one leaves at once.\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage or descriptor, 130 interrupted.\n";

static int print_keys(void) {
    struct text text;
    text_init(&text);
    descriptor_reference(&text);
    fputs(text_get(&text), stdout);
    text_finish(&text);
    return EXIT_DONE;
}

/* Where it is not the images that are stored. */
static void print_storage(const json_t *storage) {
    char words[120];
    const char *kind = json_string_value(json_object_get(storage, "kind"));
    if (!kind || strcmp(kind, words_parameters[PARAMETERS_PIXELS]) == 0) return;
    set_storage_words(storage, words);
    printf("stored     %s\n", words);
}

static void print_summary(const struct retort_run *run) {
    json_t *result = json_loads(retort_run_result(run), 0, NULL);
    const char *protocol = json_string_value(json_object_get(result, "protocol"));
    report_accuracy(protocol ? protocol : "", json_object_get(result, "accuracy"));
    printf("set        %s/set\n", retort_run_folder(run));
    print_storage(json_object_get(result, "storage"));
    json_decref(result);
}

static void print_profile(const struct retort_run *run) {
    struct text text;
    text_init(&text);
    if (run_profile_table(run, &text)) fprintf(stderr, "\n%s", text_get(&text));
    text_finish(&text);
}

/* Whether the device is a GPU that nobody has tuned kernels for, and the choices can be kept. */
static int wants_tuning(const struct session *session, char path[FILE_PATH_MAX], bool *wants) {
    int status = RETORT_OK;
    struct wisdom *wisdom = NULL;
    const struct device_traits *traits = session->target.traits;
    *wants = false;
    if (traits->kind != DEVICE_GPU) goto done;
    wisdom_path(path);
    if (!*path) {
        log_info("kernels are not tuned for %s: RETORT_WISDOM is off, or there is no folder for caches", traits->name);
        goto done;
    }
    TRY(wisdom_load(path, &session->target, &wisdom));
    *wants = !wisdom_is_tuned(wisdom);
done:
    wisdom_destroy(wisdom);
    return status;
}

/* Tunes what the run will launch, where its device is an unknown GPU. A run needs no tuning: what goes wrong here is a
 * warning, but for an interrupt. */
static int tune_first(const struct descriptor *descriptor, struct session *session, double seconds,
                      const volatile int *interrupt) {
    int status = RETORT_OK;
    struct tuner_spec tuner = {.target = session->target, .seconds = seconds, .interrupt = interrupt};
    struct tuner_total total = {0};
    char path[FILE_PATH_MAX];
    bool wants;
    TRY(wants_tuning(session, path, &wants));
    if (!wants) return RETORT_OK;
    TRY(session_choose_kernels(session, NULL, "own")); /* as in `retort tune` */
    TRY(prepare_classes(descriptor, session, &tuner.list, &tuner.count));
    tuner.path = path;
    log_info("tuning kernels for %s, which is new here, for about %.0f s (--no-tune goes without)",
             tuner.target.traits->name, seconds);
    TRY(tuner_run(&tuner, &total));
    log_info("tuned: %d better choice%s for %d of %zu classes of launches, %.1f %% less time in them; kept in %s",
             total.found, total.found == 1 ? "" : "s", total.tuned, tuner.count,
             total.built_in > 0 ? 100 * (1 - total.best / total.built_in) : 0, path);
done:
    free(tuner.list);
    if (status < 0 && status != RETORT_EINTERRUPTED && status != RETORT_EINVAL) {
        log_warning("kernels are not tuned: %s", retort_error_message());
        error_clear();
        status = RETORT_OK;
    }
    return status;
}

/* Where mpirun or its like has started several of this process, they are one run. */
static int join_processes(struct team **team) {
    int status = RETORT_OK;
    if (team_launched() < 2) return RETORT_OK;
    TRY(team_create_mpi(team));
    if (team_rank(*team)) log_speak_for("another process of the run");
done:
    return status;
}

/* Everything between the options and what is shown. */
static int do_run(const struct options *options, const struct retort_run_options *run_options, double tune_seconds,
                  struct team *team, struct retort_run **run) {
    int status = RETORT_OK;
    struct session *session = NULL;
    bool tune = !run_options->resume && !run_options->dry_run && !options->given[OPTION_NO_TUNE];
    TRY(run_create(options->operand_count ? options->operands[0] : NULL, options->overrides, options->override_count,
                   run_options, run));
    run_join(*run, team);
    TRY(run_open(*run, &session));
    for (int i = 0; tune && session && (session = run_session(*run, i)); i++)
        TRY(tune_first(run_descriptor(*run), session, tune_seconds, run_options->interrupt));
    TRY(retort_run_execute(*run));
done:
    return team_leave(team, status);
}

static void show(const struct retort_run *run, bool json) {
    if (!retort_run_result(run)) return;
    if (json)
        fputs(retort_run_result(run), stdout);
    else
        print_summary(run);
}

int command_run(int argc, char **argv) {
    int exit_status = EXIT_DONE;
    struct options options;
    struct retort_run *run = NULL;
    struct team *team = NULL;
    unsigned long allowed = OPTION_BIT(OPTION_HELP_KEYS) | OPTION_BIT(OPTION_DEVICE) | OPTION_BIT(OPTION_SEED)
                            | OPTION_BIT(OPTION_SEEDS) | OPTION_BIT(OPTION_OUT) | OPTION_BIT(OPTION_SET)
                            | OPTION_BIT(OPTION_RESUME) | OPTION_BIT(OPTION_DRY_RUN)
                            | OPTION_BIT(OPTION_CHECKPOINT_EVERY) | OPTION_BIT(OPTION_TUNE_SECONDS)
                            | OPTION_BIT(OPTION_NO_TUNE) | OPTION_BIT(OPTION_PROFILE) | OPTION_BIT(OPTION_TENSORBOARD)
                            | OPTION_BIT(OPTION_QUIET) | OPTION_BIT(OPTION_JSON);
    if (!options_parse("run", help, allowed, argc, argv, &options, &exit_status)) goto leave;
    if (options.given[OPTION_HELP_KEYS]) {
        exit_status = print_keys();
        goto leave;
    }
    bool own_descriptor = options.given[OPTION_RESUME] && options.given[OPTION_OUT];
    if (!(own_descriptor && options.operand_count == 0) && !options_descriptor("run", &options)) {
        exit_status = EXIT_USAGE;
        goto leave;
    }
    if (options.given[OPTION_SEEDS]) {
        exit_status = options.operand_count == 1 ? seeds_run(&options, interrupt_install())
                                                 : usage_error("run", "--seeds: name the descriptor");
        goto leave;
    }
    struct retort_run_options run_options = {.out = options.value[OPTION_OUT],
                                             .resume = options.given[OPTION_RESUME],
                                             .dry_run = options.given[OPTION_DRY_RUN],
                                             .profile = options.given[OPTION_PROFILE],
                                             .tensorboard = options.given[OPTION_TENSORBOARD],
                                             .interrupt = interrupt_install()};
    double tune_seconds = TUNE_SECONDS;
    if (!options_seconds("run", &options, OPTION_CHECKPOINT_EVERY, &run_options.checkpoint_every)
        || !options_seconds("run", &options, OPTION_TUNE_SECONDS, &tune_seconds)) {
        exit_status = EXIT_USAGE;
        goto leave;
    }
    int status = join_processes(&team);
    if (status == RETORT_OK) status = do_run(&options, &run_options, tune_seconds, team, &run);
    if (run) print_profile(run);
    if (status < 0 && team_rank(team))
        exit_status = EXIT_FAILED; /* the leader tells why */
    else if (status < 0)
        exit_status = report_failure("run", status);
    else if (!team_rank(team))
        show(run, options.given[OPTION_JSON]);
leave:
    retort_run_destroy(run);
    team_destroy(team);
    options_finish(&options);
    return exit_status;
}
