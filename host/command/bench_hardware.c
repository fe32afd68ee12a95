/* `retort bench --all-devices` and `retort bench compare`: devices measured by one fixed load, and compared. */
#include "base/error.h"
#include "base/file.h"
#include "command/hardware.h"
#include "command/interrupt.h"
#include "command/options.h"
#include "report/hardware.h"
#include "run/json_file.h"

#include <stdio.h>
#include <stdlib.h>

static const char compare_help[] =
    "usage: retort bench compare FILE... [--out FILE.html] [--markdown]\n\n"
    "Makes one page from what `retort bench --all-devices` wrote, here or on other machines: peaks, a roofline, outer\n"
    "steps a second and a second and watt, what bounds them, single loads, and what could not be measured. The page\n"
    "loads nothing from anywhere. Files are checked: a broken one is refused with the key that is wrong. No device is\n"
    "used.\n\n"
    "  retort bench --all-devices --out here.json\n"
    "  retort bench compare here.json there.json --out devices.html\n"
    "  retort bench compare here.json --markdown >devices.md\n\n"
    "  --out FILE.html     the page (hardware.html). What is there is written over only where it is such a page\n"
    "  --markdown          prints the same as Markdown, without its plots; no page is written unless --out asks for "
    "it\n"
    "\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

/* Nothing but earlier results is written over; found out before an hour was spent on measuring. */
static int check_place(const char *path) {
    int status = RETORT_OK;
    struct hardware_file file = {0};
    if (!path || !file_exists(path)) return RETORT_OK;
    if (folder_exists(path) || hardware_read(path, &file) < 0)
        RAISE(RETORT_EINVAL, "%s is there and holds no such results; move it away, or name another file with --out",
              path);
    hardware_finish(&file);
done:
    return status;
}

int bench_all_devices(const struct options *options) {
    int status = RETORT_OK;
    const char *out = options->value[OPTION_OUT];
    json_t *results = NULL;
    char *text = NULL;
    struct hardware_spec spec = {.devices = options->value[OPTION_DEVICE],
                                 .quick = options->given[OPTION_QUICK],
                                 .limit = 60,
                                 .interrupt = interrupt_install()};
    if (!options_family("bench", options, &spec.family)
        || !options_seconds("bench", options, OPTION_LIMIT, &spec.limit))
        return EXIT_USAGE;
    TRY(check_place(out));
    int measured = hardware_measure(&spec, &results);
    if (!results) TRY(measured);
    if (out) {
        TRY(json_file_write(out, json_incref(results), 9));
        printf("results    %s\n", out);
    } else {
        text = json_dumps(results, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
        if (!text) RAISE(RETORT_ENOMEM, "out of memory writing JSON");
        puts(text);
    }
    status = measured;
done:
    free(text);
    json_decref(results);
    return report_failure("bench", status);
}

static int compare(const struct options *options) {
    int status = RETORT_OK;
    const size_t count = (size_t)options->operand_count;
    const char *out = options->value[OPTION_OUT];
    bool markdown = options->given[OPTION_MARKDOWN];
    struct text text;
    struct hardware_file *files = calloc(count, sizeof *files);
    text_init(&text);
    if (!files) RAISE(RETORT_ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++) TRY(hardware_read(options->operands[i], &files[i]));
    if (markdown) {
        hardware_markdown(&text, files, count);
        if (text.failed) RAISE(RETORT_ENOMEM, "out of memory writing Markdown");
    }
    if (!out && !markdown) out = "hardware.html";
    if (out) {
        TRY(hardware_write_page(out, files, count));
        if (!markdown) printf("page       %s\n", out);
    }
    fputs(text_get(&text), stdout);
done:
    for (size_t i = 0; files && i < count; i++) hardware_finish(&files[i]);
    free(files);
    text_finish(&text);
    return status;
}

int bench_compare(int argc, char **argv) {
    static const char verb[] = "bench compare";
    int exit_status = EXIT_DONE;
    struct options options;
    if (options_parse(verb, compare_help, OPTION_BIT(OPTION_OUT) | OPTION_BIT(OPTION_MARKDOWN), argc, argv, &options,
                      &exit_status)) {
        if (options.operand_count < 1)
            exit_status = usage_error(verb, "of what? Name files that `retort bench --all-devices` wrote");
        else
            exit_status = report_failure(verb, compare(&options));
    }
    options_finish(&options);
    return exit_status;
}
