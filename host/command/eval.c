/* `retort eval`: what a distilled set is worth, by training fresh networks on it. */
#include "base/error.h"
#include "command/interrupt.h"
#include "command/options.h"
#include "command/report.h"
#include "run/evaluation.h"

#include <jansson.h>
#include <stdio.h>

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

static int evaluate(const struct options *options, const volatile int *interrupt) {
    int status = RETORT_OK;
    struct retort_evaluation *evaluation = NULL;
    json_t *result = NULL;
    TRY(evaluation_compute(
        &(struct evaluation_request){.set = options->operands[0],
                                     .labels = options->operand_count == 2 ? options->operands[1] : NULL,
                                     .with = options->value[OPTION_WITH],
                                     .overrides = options->overrides,
                                     .override_count = options->override_count,
                                     .interrupt = interrupt},
        &evaluation));
    if (options->given[OPTION_JSON])
        puts(retort_evaluation_json(evaluation));
    else {
        result = json_loads(retort_evaluation_json(evaluation), 0, NULL);
        report_accuracy(json_string_value(json_object_get(result, "protocol")), json_object_get(result, "accuracy"));
    }
done:
    json_decref(result);
    retort_evaluation_destroy(evaluation);
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
