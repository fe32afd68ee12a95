/* `retort bench-worker`: a device's part in `retort bench --all-devices`, in a process of its own: hardware.c starts it
 * and talks to it. It reads lines, and answers each by one line, an object of JSON:
 *
 *     (at the start)       {"family", "wisdom", "products", "energy"}
 *     peaks                {"flops", "bytes"}            of one measurement, per second
 *     begin LOAD           {"build_seconds"}
 *     turn                 {"seconds", "joules"}         of one
 *     end FLOPS BYTES      {"flops", "bytes", ...}       what is known of the load, the peaks being these; 0 0: unknown
 *
 * or {"problem": words}. No verb for people, so that no list of verbs has it. */
#include "base/error.h"
#include "base/log.h"
#include "bench/energy.h"
#include "bench/load.h"
#include "command/child.h"
#include "command/options.h"
#include "run/json_file.h"
#include "run/words.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] = "usage: retort bench-worker --device N --family auto|cpu|gpu [--quick]\n\n"
                           "Measures one device for `retort bench --all-devices`, which starts it and talks to it.\n";

struct bench_child {
    struct device *device;
    struct load_bench *bench;
    struct energy energy;
    FILE *answers;
};

/* Takes over the answer; NULL means that building it ran out of memory. */
static void answer(const struct bench_child *child, json_t *value) {
    char *text = value ? json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(9)) : NULL;
    fprintf(child->answers, "%s\n", text ? text : "{\"problem\":\"out of memory\"}");
    fflush(child->answers);
    free(text);
    json_decref(value);
}

static void answer_problem(const struct bench_child *child) {
    char words[512];
    snprintf(words, sizeof words, "%s", retort_error_message());
    for (char *c = words; *c; c++)
        if (*c == '\n') *c = ' ';
    answer(child, json_pack("{s:o}", "problem", json_text(words)));
}

static int take_turn(const struct bench_child *child) {
    int status = RETORT_OK, count;
    double seconds, joules;
    struct energy_reading before, after;
    energy_read(&child->energy, &before);
    TRY(load_turn(child->bench, &seconds, &count));
    energy_read(&child->energy, &after);
    joules = count ? energy_between(&child->energy, &before, &after) / count : NAN;
    answer(child, json_pack("{s:f, s:o}", "seconds", seconds, "joules", json_number_or_null(joules)));
done:
    return status;
}

static int take_end(const struct bench_child *child, const struct device_peaks *peaks) {
    int status = RETORT_OK;
    struct load_facts facts;
    TRY(load_end(child->bench, peaks->flops > 0 && peaks->bytes > 0 ? peaks : NULL, &facts));
    answer(child, json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "flops", json_number_or_null(facts.flops), "bytes",
                            json_number_or_null(facts.bytes), "device_bytes", json_number_or_null(facts.device_bytes),
                            "arithmetic_seconds", json_number_or_null(facts.arithmetic), "memory_seconds",
                            json_number_or_null(facts.memory), "way", facts.way ? json_text(facts.way) : json_null()));
done:
    return status;
}

/* RETORT_EINVAL where the line is none of ours. What fails is answered. */
static int obey(const struct bench_child *child, const char *line) {
    int status = RETORT_OK;
    char name[64];
    double build_seconds;
    struct device_peaks peaks;
    if (strcmp(line, "peaks") == 0) {
        TRY(device_measure_peaks(child->device, &peaks));
        answer(child, json_pack("{s:f, s:f}", "flops", peaks.flops, "bytes", peaks.bytes));
    } else if (sscanf(line, "begin %63s", name) == 1 && load_find(name)) {
        TRY(load_begin(child->bench, load_find(name), &build_seconds));
        answer(child, json_pack("{s:o}", "build_seconds", json_number_or_null(build_seconds)));
    } else if (strcmp(line, "turn") == 0) {
        TRY(take_turn(child));
    } else if (sscanf(line, "end %lf %lf", &peaks.flops, &peaks.bytes) == 2) {
        TRY(take_end(child, &peaks));
    } else
        return error_set(RETORT_EINVAL, "expected a line of `retort bench --all-devices`");
done:
    if (status < 0) answer_problem(child);
    return RETORT_OK;
}

static int serve(const char *device_spec, enum family family, bool quick) {
    int status = RETORT_OK;
    struct bench_child child = {.answers = child_answers()};
    char *line = NULL, wisdom[17];
    size_t size = 0;
    if (!child.answers) RAISE(RETORT_EIO, "cannot answer");
    log_set_level(LOG_WARNING); /* the parent has its own lines */
    status = device_open(device_spec, &child.device);
    if (status >= 0) status = load_bench_create(child.device, family, quick, &child.bench);
    if (status < 0) {
        answer_problem(&child);
        goto done;
    }
    energy_find("/sys", device_traits(child.device)->kind, &child.energy);
    const struct kernel_target *target = load_bench_target(child.bench);
    wisdom_name(target->wisdom, wisdom);
    answer(&child,
           json_pack("{s:s, s:s, s:o, s:o}", "family", words_family[target->family], "wisdom", wisdom, "products",
                     json_text(load_bench_products(child.bench)), "energy", json_text(child.energy.source)));
    while (getline(&line, &size, stdin) > 0) {
        line[strcspn(line, "\n")] = '\0';
        TRY(obey(&child, line));
    }
done:
    free(line);
    load_bench_destroy(child.bench);
    device_close(child.device);
    if (child.answers) fclose(child.answers);
    return status;
}

int command_bench_worker(int argc, char **argv) {
    int exit_status = EXIT_DONE;
    struct options options;
    enum family family = FAMILY_AUTO;
    unsigned long allowed = OPTION_BIT(OPTION_DEVICE) | OPTION_BIT(OPTION_FAMILY) | OPTION_BIT(OPTION_QUICK);
    if (!options_parse("bench-worker", help, allowed, argc, argv, &options, &exit_status)) goto leave;
    if (!options_family("bench-worker", &options, &family))
        exit_status = EXIT_USAGE;
    else
        exit_status =
            report_failure("bench-worker", serve(options.value[OPTION_DEVICE], family, options.given[OPTION_QUICK]));
leave:
    options_finish(&options);
    return exit_status;
}
