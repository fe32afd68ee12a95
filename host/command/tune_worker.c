/* `retort tune-worker`: the child of worker.h. No verb for people, so that no list of verbs has it. */
#include "base/error.h"
#include "command/child.h"
#include "command/options.h"
#include "command/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] = "usage: retort tune-worker --device N --family cpu|gpu\n\n"
                           "Measures kernels for `retort tune`, which starts it and talks to it.\n";

static void tell(void *user, const char *words) {
    fprintf(user, "%s\n", words);
    fflush(user);
}

/* False: the line is none of ours. */
static bool measure(struct tune_bench *bench, char *line, FILE *answers) {
    struct trial_limits limits = {.tell = tell, .user = answers};
    struct trial_result result = {0};
    struct tune_task task;
    int spill, at = 0;
    if (sscanf(line, "%lf %lf %d%n", &limits.seconds, &limits.once, &spill, &at) != 3 || line[at] != '\t'
        || !wisdom_read_task(line + at + 1, &task.class, &task.choice))
        return false;
    limits.spill = spill;
    int status = tune_bench_measure(bench, &task, &limits, &result);
    if (status < 0)
        fprintf(answers, "failed %d\t%.500s\n", status, retort_error_message());
    else
        fprintf(answers, "result %.17g %.17g %.17g %.17g %d %d\t%s\n", result.error, result.departure, result.once,
                result.seconds, result.spills, result.failed, result.fault ? result.fault : "");
    fflush(answers);
    return true;
}

static int serve(const char *device_spec, enum family family) {
    int status = RETORT_OK;
    struct device *device = NULL;
    struct tune_bench *bench = NULL;
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    FILE *answers = child_answers();
    if (!answers) RAISE(RETORT_EIO, "cannot answer");
    TRY(device_open(device_spec, &device));
    const struct kernel_target target = kernels_target(device_traits(device), family);
    TRY(tune_bench_create(device, &target, &bench));
    tell(answers, "ready");
    while ((length = getline(&line, &size, stdin)) > 0) {
        line[strcspn(line, "\n")] = '\0';
        if (!measure(bench, line, answers)) RAISE(RETORT_EINVAL, "expected a line of `retort tune`");
    }
done:
    if (answers) fclose(answers);
    free(line);
    tune_bench_destroy(bench);
    device_close(device);
    return status;
}

int command_tune_worker(int argc, char **argv) {
    int exit_status = EXIT_DONE;
    struct options options;
    enum family family = FAMILY_AUTO;
    unsigned long allowed = OPTION_BIT(OPTION_DEVICE) | OPTION_BIT(OPTION_FAMILY);
    if (!options_parse("tune-worker", help, allowed, argc, argv, &options, &exit_status)) goto leave;
    if (!options_family("tune-worker", &options, &family))
        exit_status = EXIT_USAGE;
    else
        exit_status = report_failure("tune-worker", serve(options.value[OPTION_DEVICE], family));
leave:
    options_finish(&options);
    return exit_status;
}
