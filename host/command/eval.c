/* `retort eval`: what a distilled set is worth, by training fresh networks on it. */
#include "base/error.h"
#include "base/file.h"
#include "command/interrupt.h"
#include "command/options.h"
#include "command/report.h"
#include "run/descriptor.h"
#include "run/score.h"
#include "run/session.h"
#include "run/set_folder.h"
#include "run/stored_set.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: retort eval RUN [OPTIONS]\n"
    "       retort eval SET [OPTIONS]\n"
    "       retort eval IMAGES LABELS --with DESCRIPTOR [OPTIONS]\n\n"
    "Trains fresh networks on a distilled set, tests them on the test images of the descriptor's data, and does the "
    "same\n"
    "with a random subset of train of the same size. The protocol is the descriptor's `evaluate` section.\n\n"
    "  retort eval runs/quickstart-0\n"
    "  retort eval runs/quickstart-0 --set evaluate.protocol=dc --set evaluate.networks=5\n"
    "  retort eval runs/quickstart-0 --set evaluate.network.width=128 --seed 7\n"
    "  retort eval images.npy labels.npy --with configs/quickstart.yaml\n\n"
    "RUN is a run folder, SET a folder with images.npy and labels.npy, or what `retort export` wrote: its folder, or "
    "the\n"
    ".npz or .safetensors file. IMAGES is [N,C,H,W]: floating-point values are in the space the networks train in, "
    "uint8\n"
    "ones are pixels; LABELS is [N] whole numbers or [N,classes] soft ones.\n\n"
    "  --with DESCRIPTOR   data, network and protocol from here instead of the set's own recipe\n"
    "  --set KEY=VALUE     overrides a key; may be repeated\n"
    "  --seed N            the same as --set seed=N\n"
    "  --device SPEC       index or words of `retort devices`\n"
    "  --json              for programs\n"
    "  --quiet, -q         only warnings and errors\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage or descriptor, 130 interrupted.\n";

/* What is to be evaluated. */
struct target {
    const char *images, *labels; /* a pair of files, */
    struct set_place place;      /* or a set, */
    char recipe[FILE_PATH_MAX];  /* of this descriptor; "" where the set itself tells its recipe */
};

static int find_target(const struct options *options, struct target *target) {
    int status = RETORT_OK;
    const char *first = options->operands[0];
    if (options->operand_count == 2) {
        target->images = first;
        target->labels = options->operands[1];
        if (!options->given[OPTION_WITH])
            RAISE(RETORT_EINVAL, "a pair of files says nothing of data and protocol; name a descriptor with --with");
        return RETORT_OK;
    }
    TRY(set_find(first, &target->place));
    if (*target->place.run) TRY(path_join(target->place.run, "descriptor.yaml", target->recipe));
done:
    return status;
}

static int read_descriptor(const struct options *options, const struct target *target, struct descriptor *descriptor) {
    int status = RETORT_OK;
    char *recipe = NULL;
    const char *path = options->given[OPTION_WITH] ? options->value[OPTION_WITH] : target->recipe;
    if (*path) {
        status = descriptor_read(path, options->overrides, options->override_count, descriptor);
        return status == RETORT_EIO ? RETORT_EINVAL : status;
    }
    TRY(set_folder_recipe(target->place.path, &recipe));
    const char *folder = target->place.kind == SET_IS_FOLDER ? target->place.path : ".";
    TRY(descriptor_parse("the set's recipe", folder, recipe, strlen(recipe), options->overrides,
                         options->override_count, descriptor));
done:
    free(recipe);
    return status;
}

static void print_scores(const struct options *options, const struct descriptor *descriptor,
                         const struct session *session, const struct distilled_set *set, const char *sha256,
                         const struct scores *scores) {
    const struct device_traits *traits = device_traits(session->device);
    json_t *accuracy = scores_json(scores, session->data.holdout.count > 0);
    if (options->given[OPTION_JSON]) {
        json_t *result = json_pack("{s:s, s:I, s:s, s:I, s:s, s:o, s:{s:f, s:f}}", "device", traits->name, "seed",
                                   (json_int_t)descriptor->seed, "protocol", scores->protocol, "images",
                                   (json_int_t)set->count, "set_sha256", sha256, "accuracy", accuracy, "seconds",
                                   "evaluate", scores->seconds, "build_kernels", device_build_seconds(session->device));
        json_dumpf(result, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
        putchar('\n');
        json_decref(result);
    } else {
        report_accuracy(scores->protocol, accuracy);
        json_decref(accuracy);
    }
}

static int evaluate(const struct options *options, const volatile int *interrupt) {
    int status = RETORT_OK;
    struct target target = {0};
    struct descriptor descriptor = {0};
    struct session session = {0};
    struct distilled_set set = {0};
    struct scores scores = {0};
    struct evaluate_plans plans;
    char sha256[65];
    TRY(find_target(options, &target));
    TRY(read_descriptor(options, &target, &descriptor));
    TRY(session_open(&descriptor, 0, false, &session));
    TRY(session_choose_kernels(&session, NULL, NULL));
    if (session.data.test.count == 0) RAISE(RETORT_EINVAL, "data.path holds no test images to test on");
    if (target.images)
        TRY(set_read_arrays(target.images, target.labels, &session, &set));
    else
        TRY(set_folder_read(target.place.path, &session, &set));
    TRY(distilled_set_hash(&set, sha256));
    /* By kernels that this device computes rightly: where some are refused, others are planned and tested. */
    for (int refused = 1; refused;)
        TRY(session_test_kernels(&session, scores_plan(&descriptor, &session, &set, NULL, &plans), true, &refused));
    TRY(scores_compute(&descriptor, &session, &set, NULL, NULL, NULL, interrupt, &scores));
    print_scores(options, &descriptor, &session, &set, sha256, &scores);
done:
    scores_finish(&scores);
    distilled_set_finish(&set);
    session_close(&session);
    descriptor_finish(&descriptor);
    return status;
}

int command_eval(int argc, char **argv) {
    int exit_status = EXIT_DONE;
    struct options options;
    unsigned long allowed = OPTION_BIT(OPTION_DEVICE) | OPTION_BIT(OPTION_SEED) | OPTION_BIT(OPTION_SET)
                            | OPTION_BIT(OPTION_WITH) | OPTION_BIT(OPTION_QUIET) | OPTION_BIT(OPTION_JSON);
    if (!options_parse("eval", help, allowed, argc, argv, &options, &exit_status)) goto leave;
    if (options.operand_count < 1 || options.operand_count > 2) {
        exit_status = options.operand_count ? usage_error("eval", "at most two files, found %s after %s",
                                                          options.operands[2], options.operands[1])
                                            : usage_error("eval", "what? Name a run folder, a set, or two files");
        goto leave;
    }
    int status = evaluate(&options, interrupt_install());
    if (status < 0) exit_status = report_failure("eval", status);
leave:
    options_finish(&options);
    return exit_status;
}
