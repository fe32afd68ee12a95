/* `retort tune`: finds the fastest kernels for a network's convolutions and matrix products on this device, and
 * remembers them. */
#include "base/error.h"
#include "base/log.h"
#include "bench/bench.h"
#include "command/interrupt.h"
#include "command/options.h"
#include "command/tuner.h"
#include "run/json_file.h"
#include "run/prepare.h"
#include "run/run.h"
#include "run/session.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: retort tune [DESCRIPTOR] [OPTIONS]\n\n"
    "Measures, for each convolution and matrix product that distilling with a descriptor's network launches, which\n"
    "kernel computes it fastest on this device, with which tiles, and for products whether CLBlast does, on GPUs or "
    "with\n"
    "device.gemm: clblast; checks each against the built-in one and double precision; and remembers those that are at\n"
    "least 3 % faster. Every later run on the device uses them. Without a descriptor: ConvNet-3, as in `retort bench\n"
    "step`.\n\n"
    "  retort tune configs/quickstart.yaml\n"
    "  retort tune --image 3,32,32 --width 128 --ipc 10\n"
    "  RETORT_WISDOM=off retort run ...          a run without what was found\n\n"
    "  --set KEY=VALUE  overrides a key of the descriptor; may be repeated\n"
    "  --image C,H,W   channels, height, width of an image (1,28,28)\n"
    "  --ipc N         images per class, of 10 classes (1)\n"
    "  --real B        real images of the meta-loss (256)\n"
    "  --width C       channels of the network (32)\n"
    "  --family cpu|gpu  kernels for cpu or gpu; auto: by the device's type\n"
    "  --quick         fewer choices and shorter measurements\n"
    "  --tune-seconds N  ends after so many seconds, those classes first that take most of a step's arithmetic, each\n"
    "                  with time for two choices at least; 60 for kernels for GPUs, otherwise as long as it takes\n"
    "  --dry-run       remembers nothing\n"
    "  --device SPEC   index or words of `retort devices`\n"
    "  --quiet, -q     only warnings and errors, beside the results\n"
    "  --json          one object instead of the table\n\n"
    "What is found goes to RETORT_WISDOM, or XDG_CACHE_HOME/retort/wisdom, or ~/.cache/retort/wisdom, as soon as it "
    "is\n"
    "found: Ctrl-C keeps it. Kernels run in a process of their own; one that crashes, hangs or computes wrongly is\n"
    "remembered as bad and never taken. Measure on an idle machine. Other kernels mean other last digits of results, "
    "so each run\n"
    "keeps the wisdom that it began with.\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage or descriptor, 130 interrupted.\n";

/* Device and launches, from a descriptor or from options. */
struct work {
    struct session session; /* of a descriptor; else empty */
    struct device *device;
    struct kernel_demand *list;
    size_t count;
    struct kernel_target target;
};

static void work_finish(struct work *work) {
    free(work->list);
    if (!work->session.device) device_close(work->device);
    session_close(&work->session);
}

static int work_from_descriptor(const struct options *options, struct work *work) {
    int status = RETORT_OK;
    struct descriptor descriptor = {0};
    status = descriptor_read(options->operands[0], options->overrides, options->override_count, &descriptor);
    if (status == RETORT_EIO) status = RETORT_EINVAL;
    TRY(status);
    /* Planning asks no library, which may be bad: that is for another process to find out. */
    TRY(session_open(&descriptor, 0, false, &work->session));
    TRY(session_choose_kernels(&work->session, "", "own"));
    work->device = work->session.device;
    work->target = work->session.target;
    TRY(prepare_classes(&descriptor, &work->session, &work->list, &work->count));
done:
    descriptor_finish(&descriptor);
    return status;
}

static int work_from_options(const struct options *options, const struct bench_step_spec *spec, struct work *work) {
    int status = RETORT_OK;
    TRY(device_open(options->value[OPTION_DEVICE], &work->device));
    work->target = kernels_target(device_traits(work->device), spec->family);
    TRY(bench_step_classes(work->device, spec, &work->list, &work->count));
done:
    return status;
}

static const char *const pass_names[] = {"forward", "to data", "to weights"};

static void describe_choice(const struct kernel_choice *choice, char text[64]) {
    const struct kernel_variant *variant = kernels_variant(choice->variant);
    int length = snprintf(text, 64, "%s", variant->words);
    for (int i = 0; i < variant->numbers && choice->parameters[0] && length < 63; i++)
        length += snprintf(text + length, 64 - (size_t)length, "%s%d", i ? " " : ", tile ", choice->parameters[i]);
}

static void print_line(const struct kernel_demand *demand, const struct tune_result *result) {
    const struct conv_sizes *s = &demand->class.sizes;
    char shape[KERNEL_WORDS], choice[64] = "as it is";
    if (class_is_product(&demand->class))
        kernel_class_describe(&demand->class, shape);
    else
        snprintf(shape, sizeof shape,
                 "%-10s %4" PRId64 " > %-4" PRId64 " %3" PRId64 " x %-3" PRId64 " batch %-4" PRId64 "%s",
                 pass_names[demand->class.pass], s->c, s->o, s->h, s->w, s->n,
                 class_products(&demand->class) > 1 ? " joined" : "");
    if (result->better) describe_choice(&result->choice, choice);
    printf("%-49s %3d x %10.4f ms %10.4f ms  %s%s\n", shape, demand->launches, result->built_in_seconds * 1e3,
           result->best_seconds * 1e3, choice, result->wrong ? "; BAD KERNELS were refused" : "");
    fflush(stdout);
}

static json_t *describe_class(const struct kernel_class *c) {
    const struct conv_sizes *s = &c->sizes;
    const struct matmul_sizes *p = &c->product;
    if (class_is_product(c))
        return json_pack("{s:s, s:I, s:I, s:I, s:I, s:b, s:b}", "pass", "product", "batch", (json_int_t)p->batch, "m",
                         (json_int_t)p->m, "n", (json_int_t)p->n, "k", (json_int_t)p->k, "transpose_a", p->transpose_a,
                         "transpose_b", p->transpose_b);
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:i, s:i}", "pass", pass_names[c->pass], "batch",
                     (json_int_t)s->n, "channels", (json_int_t)s->c, "height", (json_int_t)s->h, "width",
                     (json_int_t)s->w, "outputs", (json_int_t)s->o, "kernel_height", (json_int_t)s->kh, "kernel_width",
                     (json_int_t)s->kw, "stride", s->stride, "padding", s->padding, "products", class_products(c));
}

static json_t *describe_line(const struct kernel_demand *demand, const struct tune_result *result) {
    char choice[64] = "";
    if (result->better) describe_choice(&result->choice, choice);
    json_t *line = describe_class(&demand->class);
    json_t *found = json_pack("{s:i, s:f, s:f, s:o, s:i, s:i, s:o}", "launches", demand->launches, "built_in_seconds",
                              result->built_in_seconds, "best_seconds", result->best_seconds, "choice",
                              result->better ? json_string(choice) : json_null(), "tried", result->tried, "wrong",
                              result->wrong, "worst_error", json_number_or_null(result->worst_error));
    if (!line || json_object_update(line, found) < 0) {
        json_decref(line);
        line = NULL;
    }
    json_decref(found);
    return line;
}

struct report {
    json_t *lines; /* NULL: a table is printed */
};

static int report_class(void *user, const struct kernel_demand *demand, const struct tune_result *result) {
    struct report *report = user;
    if (!report->lines)
        print_line(demand, result);
    else if (json_array_append_new(report->lines, describe_line(demand, result)) < 0)
        return error_set(RETORT_ENOMEM, "out of memory writing JSON");
    return RETORT_OK;
}

static int print_total(const struct work *work, const char *path, json_t *lines, const struct tuner_total *total) {
    const struct device_traits *traits = device_traits(work->device);
    double gain = total->built_in > 0 ? 100 * (1 - total->best / total->built_in) : 0;
    if (lines) {
        json_t *object =
            json_pack("{s:s, s:o, s:o, s:o, s:O, s:f, s:f, s:f, s:o}", "version", RETORT_VERSION, "device",
                      json_text(traits->name), "platform", json_text(traits->platform), "driver",
                      json_text(traits->driver), "classes", lines, "built_in_seconds", total->built_in, "best_seconds",
                      total->best, "gain_percent", gain, "wisdom", *path ? json_text(path) : json_null());
        bool written = object && json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) >= 0;
        json_decref(object);
        if (!written) return error_set(RETORT_ENOMEM, "out of memory writing JSON");
        putchar('\n');
        return RETORT_OK;
    }
    printf("all launches once: %.3f ms built in, %.3f ms tuned: %.1f %% less; %d choice%s %s\n", total->built_in * 1e3,
           total->best * 1e3, gain, total->found, total->found == 1 ? "" : "s", *path ? "now in" : "found, none kept");
    if (*path) printf("%s\n", path);
    return RETORT_OK;
}

static int run_tune(const struct options *options, const struct bench_step_spec *spec, double seconds) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX] = "";
    struct work work = {0};
    struct tuner_total total = {0};
    struct report report = {NULL};
    if (!options->given[OPTION_DRY_RUN]) {
        wisdom_path(path);
        if (!*path)
            RAISE(RETORT_EINVAL, "RETORT_WISDOM is off, or there is no folder for caches: nothing could be remembered; "
                                 "--dry-run measures all the same");
    }
    if (options->given[OPTION_JSON] && !(report.lines = json_array()))
        RAISE(RETORT_ENOMEM, "out of memory writing JSON");
    TRY(options->operand_count ? work_from_descriptor(options, &work) : work_from_options(options, spec, &work));
    struct tuner_spec tuner = {.target = work.target,
                               .list = work.list,
                               .count = work.count,
                               .quick = options->given[OPTION_QUICK],
                               .seconds = seconds,
                               .path = path,
                               .interrupt = interrupt_install(),
                               .tell = report_class,
                               .user = &report};
    if (!options->given[OPTION_TUNE_SECONDS] && tuner.target.family == FAMILY_GPU) tuner.seconds = TUNE_SECONDS;
    if (!report.lines) printf("%-49s %5s %13s %13s  %s\n", "launch", "times", "built in", "best", "choice");
    status = tuner_run(&tuner, &total);
    if (status < 0 && status != RETORT_EINTERRUPTED) goto done;
    if ((size_t)total.tuned < tuner.count)
        log_info("%zu of %zu classes were not tuned: there was no time left", tuner.count - (size_t)total.tuned,
                 tuner.count);
    int printed = print_total(&work, path, report.lines, &total);
    if (printed < 0) status = printed;
    if (status == RETORT_EINTERRUPTED) error_set(status, "interrupted; what was found is kept");
done:
    json_decref(report.lines);
    work_finish(&work);
    return report_failure("tune", status);
}

int command_tune(int argc, char **argv) {
    int exit_status = EXIT_DONE;
    struct options options;
    struct bench_step_spec spec = {.image = {1, 28, 28}, .ipc = 1, .prefix = 1, .window = 1, .real = 256, .width = 32};
    double seconds = 0;
    static const enum option_name sizes[] = {OPTION_IMAGE, OPTION_IPC, OPTION_REAL, OPTION_WIDTH, OPTION_FAMILY};
    unsigned long allowed = OPTION_BIT(OPTION_DEVICE) | OPTION_BIT(OPTION_SET) | OPTION_BIT(OPTION_QUICK)
                            | OPTION_BIT(OPTION_DRY_RUN) | OPTION_BIT(OPTION_QUIET) | OPTION_BIT(OPTION_JSON)
                            | OPTION_BIT(OPTION_TUNE_SECONDS);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) allowed |= OPTION_BIT(sizes[i]);
    if (!options_parse("tune", help, allowed, argc, argv, &options, &exit_status)) goto leave;
    bool sized = false;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) sized |= options.given[sizes[i]];
    if (options.operand_count > 1)
        exit_status = usage_error("tune", "one descriptor at a time, found %s after %s", options.operands[1],
                                  options.operands[0]);
    else if (options.operand_count && sized)
        exit_status = usage_error("tune", "sizes come from %s; override them with --set", options.operands[0]);
    else if (!options.operand_count && options.given[OPTION_SET])
        exit_status = usage_error("tune", "--set overrides a key of a descriptor; name one");
    else if (!options_step("tune", &options, &spec)
             || !options_seconds("tune", &options, OPTION_TUNE_SECONDS, &seconds))
        exit_status = EXIT_USAGE;
    else
        exit_status = run_tune(&options, &spec, seconds);
leave:
    options_finish(&options);
    return exit_status;
}
