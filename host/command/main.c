/* The program: finds the verb and hands over. */
#include "command/options.h"
#include "device/device.h"
#include "run/nearest.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *line;
} verbs[] = {
    {"run", command_run, "distil a data set, evaluate the result, write a run folder"},
    {"plan", command_plan, "what a run would take here: memory, time; settings side by side"},
    {"experts", command_experts, "train the networks on real data that method trajectory matches"},
    {"eval", command_eval, "train fresh networks on a distilled set and test them"},
    {"export", command_export, "write a distilled set for other programs: NPZ, safetensors, pictures"},
    {"data", command_data, "what a descriptor's data is: files, classes, sizes, a contact sheet"},
    {"report", command_report, "a page to look at: images, accuracy, curves, cost of a run, or of several"},
    {"devices", command_devices, "every OpenCL device, what it can do, and whether it works"},
    {"check", command_check, "meta-gradients of this device against exact answers"},
    {"bench", command_bench, "speed of this device beside its own peak"},
    {"tune", command_tune, "find the fastest kernels for this device and remember them"},
    {"kernels", command_kernels, "write the kernels of a model, for devices that need not be present"},
};
#define VERB_COUNT (sizeof verbs / sizeof *verbs)

static void print_help(FILE *stream) {
    fputs("Retort distils a large image data set into a few synthetic images per class, on any OpenCL device.\n\n"
          "usage: retort VERB [OPTIONS]\n\n",
          stream);
    for (size_t i = 0; i < VERB_COUNT; i++) fprintf(stream, "  %-9s %s\n", verbs[i].name, verbs[i].line);
    fputs("\n`retort VERB --help` explains a verb; `retort --version` prints the version.\n\n"
          "A first look:\n"
          "  retort devices                          which devices are there\n"
          "  retort plan configs/quickstart.yaml     memory and time of a run, before it begins\n"
          "  retort run configs/quickstart.yaml      distil Fashion-MNIST to one image per class and test it\n"
          "  retort run configs/quickstart.yaml --set set.ipc=10 --seed 1 --out runs/ten\n"
          "  retort eval runs/ten                    train and test fresh networks on the result again\n\n"
          "Exit status: 0 done, 1 failed, 2 wrong usage or descriptor, 130 interrupted (the state is saved).\n",
          stream);
}

static int unknown_verb(const char *word) {
    const char *known[VERB_COUNT + 3] = {0};
    for (size_t i = 0; i < VERB_COUNT; i++) known[i] = verbs[i].name;
    known[VERB_COUNT] = "--help";
    known[VERB_COUNT + 1] = "--version";
    const char *meant = word_nearest(word, known);
    const char *kind = word[0] == '-' ? "option" : "verb";
    if (meant) return usage_error(NULL, "unknown %s %s (did you mean %s?)", kind, word, meant);
    return usage_error(NULL, "unknown %s %s", kind, word);
}

int main(int argc, char **argv) {
    const char *word = argc > 1 ? argv[1] : NULL;
    int status = EXIT_DONE;
    device_guard_output();
    if (!word) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (!strcmp(word, "--help") || !strcmp(word, "-h") || !strcmp(word, "help"))
        print_help(stdout);
    else if (!strcmp(word, "tune-worker")) /* which the program starts itself: worker.h */
        status = command_tune_worker(argc - 1, argv + 1);
    else if (!strcmp(word, "bench-worker")) /* likewise: hardware.h */
        status = command_bench_worker(argc - 1, argv + 1);
    else if (!strcmp(word, "--version"))
        puts("retort " RETORT_VERSION);
    else {
        size_t i = 0;
        while (i < VERB_COUNT && strcmp(verbs[i].name, word) != 0) i++;
        status = i < VERB_COUNT ? verbs[i].run(argc - 1, argv + 1) : unknown_verb(word);
    }
    /* Results that could not be written are not results. */
    bool lost = ferror(stdout); /* of what was written before: then the rest may go through */
    if ((fflush(stdout) != 0 || lost) && status == EXIT_DONE) {
        fputs("retort: standard output could not be written to its end; is the disk full?\n", stderr);
        status = EXIT_FAILED;
    }
    return status;
}
