/* `retort report`: what runs hold, as a page to look at. */
#include "command/options.h"
#include "report/report.h"

#include <stdio.h>
#include <stdlib.h>

static const char help[] =
    "usage: retort report RUN... [--out FILE.html]\n\n"
    "Writes one HTML page about a run: its images, accuracy, curves, cost, recipe, device and hashes, and how to load "
    "the\n"
    "set. Of several runs it writes a comparison. The page loads nothing from anywhere: open it in any browser, print\n"
    "it, mail it. A run need not be finished, and no device is used.\n\n"
    "  retort report runs/quickstart-0\n"
    "  retort report runs/random-0 runs/dynamic-0 --out windows.html\n\n"
    "  --out FILE.html     the page; otherwise RUN/report.html, of several runs report.html. What is there is written\n"
    "                      over only where it is such a page\n"
    "  --quiet, -q         only warnings and errors\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

int command_report(int argc, char **argv) {
    int exit_status = EXIT_DONE;
    struct options options;
    char *written = NULL;
    if (!options_parse("report", help, OPTION_BIT(OPTION_OUT) | OPTION_BIT(OPTION_QUIET), argc, argv, &options,
                       &exit_status))
        goto leave;
    if (options.operand_count < 1) {
        exit_status = usage_error("report", "of what? Name a run folder, or several to compare");
        goto leave;
    }
    int status = report_write(options.operands, (size_t)options.operand_count, options.value[OPTION_OUT], &written);
    if (status < 0)
        exit_status = report_failure("report", status);
    else
        printf("report     %s\n", written);
leave:
    free(written);
    options_finish(&options);
    return exit_status;
}
