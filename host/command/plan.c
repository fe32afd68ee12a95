/* `retort plan`: what a run will take on this device, before it begins; several settings side by side. */
#include "base/error.h"
#include "base/log.h"
#include "command/interrupt.h"
#include "command/options.h"
#include "run/forecast.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: retort plan DESCRIPTOR [OPTIONS]\n\n"
    "Says what a run would take on this device before it begins: device memory by what it holds, whether it fits and\n"
    "how batches were split for that, seconds of an outer step, of the whole run, of the evaluation and of building\n"
    "kernels. It prepares the run as `retort run` does, tries its parts for a few seconds, and writes nothing.\n\n"
    "  retort plan configs/quickstart.yaml\n"
    "  retort plan configs/quickstart.yaml --what-if set.ipc=10 --what-if memory=64MiB,set.ipc=10\n\n"
    "  --set KEY=VALUE         overrides a key of the descriptor, paths from its folder; may be repeated\n"
    "  --what-if KEY=VALUE[,KEY=VALUE]...\n"
    "                          the same beside it in a column of its own; may be repeated\n"
    "  --seed N                the same as --set seed=N\n"
    "  --device SPEC           index or words of `retort devices`\n"
    "  --json                  prints everything as JSON\n"
    "  --quiet, -q             only warnings and errors beside the result\n\n"
    "Times are those of a device that does nothing else. Exit status: 0 done, also where a column does not fit; 1\n"
    "failed, or the descriptor itself does not fit; 2 wrong usage or descriptor, 130 interrupted.\n";

/* The descriptor, or what it would be with some keys changed. */
struct variant {
    const char *name; /* of its changes; "" for none */
    bool fits;
    struct forecast forecast; /* where it fits */
    char *trouble;            /* where it does not */
};

/* --- what is asked for --- */
/* Splits at the commas outside of brackets; *count assignments, in the arena. */
static struct schema_override *read_changes(const char *words, struct arena *arena, size_t *count) {
    char *copy = arena_copy_text(arena, words);
    struct schema_override *changes = arena_array(arena, strlen(words) + 1, sizeof *changes);
    const char *option = arena_printf(arena, "--what-if %s", words);
    int depth = 0;
    *count = 0;
    if (arena->failed) return NULL;
    for (char *begin = copy, *at = copy;; at++) {
        if (*at == '[' || *at == '{') depth++;
        if (*at == ']' || *at == '}') depth--;
        if (*at && (*at != ',' || depth > 0)) continue;
        bool last = !*at;
        *at = '\0';
        changes[(*count)++] = (struct schema_override){.option = option, .assignment = begin};
        if (last) break;
        begin = at + 1;
    }
    return changes;
}

/* The overrides of the command line, then those of the variant. */
static int forecast_variant(const struct options *options, struct arena *arena, struct variant *variant) {
    int status = RETORT_OK;
    struct descriptor descriptor = {0};
    size_t own = options->override_count, more = 0;
    struct schema_override *changes = *variant->name ? read_changes(variant->name, arena, &more) : NULL;
    struct schema_override *all = arena_array(arena, own + more + 1, sizeof *all);
    if (arena->failed) RAISE(RETORT_ENOMEM, "out of memory");
    if (own) memcpy(all, options->overrides, own * sizeof *all);
    if (more) memcpy(all + own, changes, more * sizeof *all);
    status = descriptor_read(options->operands[0], all, own + more, &descriptor);
    if (status == RETORT_EIO) status = RETORT_EINVAL;
    TRY(status);
    if (options->what_if_count) log_info("planning: %s", *variant->name ? variant->name : "the descriptor as it is");
    status = forecast_descriptor(&descriptor, interrupt_install(), &variant->forecast);
    variant->fits = status == RETORT_OK;
    if (status == RETORT_ELIMIT) {
        variant->trouble = arena_copy_text(arena, retort_error_message());
        if (!variant->trouble) RAISE(RETORT_ENOMEM, "out of memory");
        error_clear();
        status = RETORT_OK;
    }
done:
    descriptor_finish(&descriptor);
    return status;
}

/* --- tables --- */
static double megabytes(uint64_t bytes) {
    return (double)bytes * 1e-6;
}

/* The large rows in their order; together with the small ones they are what distilling takes. */
static void print_memory(const struct forecast *forecast) {
    uint64_t small = 0, threshold = forecast->distil_bytes / 100;
    int smalls = 0;
    printf("%12s  device memory\n", "MB");
    for (size_t i = 0; i < forecast->memory.count; i++) {
        const struct forecast_memory *row = &forecast->memory.items[i];
        if (row->bytes < threshold) {
            small += row->bytes;
            smalls++;
        } else
            printf("%12.2f    %s\n", megabytes(row->bytes), row->what);
    }
    if (smalls) printf("%12.2f    %d smaller things\n", megabytes(small), smalls);
    printf("%12.2f  distilling: %s\n", megabytes(forecast->distil_bytes), forecast->parts);
    if (forecast->evaluate_bytes) printf("%12.2f  evaluating, afterwards\n", megabytes(forecast->evaluate_bytes));
    printf("%12.2f  at most, of %.0f %s: it fits\n", megabytes(forecast->peak_bytes), megabytes(forecast->limit_bytes),
           forecast->has_ceiling ? "that `memory` allows" : "that the device has");
}

static double seconds_in_all(const struct forecast *forecast) {
    return forecast_distil(forecast) + forecast->evaluate + forecast->build;
}

/* Short times to two or three digits, long ones as clocks show them. */
static void time_words(double seconds, char words[32]) {
    if (seconds < 60)
        snprintf(words, 32, "%.*f s", seconds < 0.1 ? 4 : seconds < 10 ? 2 : 1, seconds);
    else
        seconds_words(seconds, words, 32);
}

static void print_seconds(double seconds, const char *what) {
    char words[32];
    time_words(seconds, words);
    printf("%12s  %s", words, what);
}

static void print_time(const struct forecast *forecast) {
    printf("\n%12s\n", "time");
    print_seconds(forecast->step, "an outer step on the average\n");
    print_seconds(forecast_distil(forecast), "distilling, ");
    printf("%d outer steps\n", forecast->outer_steps);
    if (forecast->evaluate > 0)
        print_seconds(forecast->evaluate, "evaluating\n");
    else
        printf("%12s  evaluating: there is no test part\n", "none");
    print_seconds(forecast->build, "building kernels");
    if (forecast->build_now > 2 * forecast->build)
        printf(", from the driver's cache (%.1f s just now)", forecast->build_now);
    putchar('\n');
    print_seconds(seconds_in_all(forecast), "in all\n");
}

enum cell { CELL_PEAK, CELL_DISTIL_BYTES, CELL_STEP, CELL_DISTIL, CELL_EVALUATE, CELL_BUILD, CELL_ALL, CELLS };
static const char *const cell_names[CELLS] = {[CELL_PEAK] = "device memory at most, MB",
                                              [CELL_DISTIL_BYTES] = "  distilling, MB",
                                              [CELL_STEP] = "an outer step, s",
                                              [CELL_DISTIL] = "distilling",
                                              [CELL_EVALUATE] = "evaluating",
                                              [CELL_BUILD] = "building kernels",
                                              [CELL_ALL] = "in all"};

static void print_cell(enum cell cell, const struct variant *variant) {
    const struct forecast *f = &variant->forecast;
    const double seconds[CELLS] = {[CELL_STEP] = f->step,
                                   [CELL_DISTIL] = forecast_distil(f),
                                   [CELL_EVALUATE] = f->evaluate,
                                   [CELL_BUILD] = f->build,
                                   [CELL_ALL] = seconds_in_all(f)};
    char words[32];
    if (!variant->fits)
        snprintf(words, sizeof words, "%s", cell == CELL_PEAK ? "too large" : "");
    else if (cell == CELL_PEAK || cell == CELL_DISTIL_BYTES)
        snprintf(words, sizeof words, "%.1f", megabytes(cell == CELL_PEAK ? f->peak_bytes : f->distil_bytes));
    else
        time_words(seconds[cell], words);
    printf(" %12s", words);
}

static void print_columns(const struct variant *variants, size_t count) {
    for (size_t i = 0; i < count; i++) printf("%3zu  %s\n", i + 1, *variants[i].name ? variants[i].name : "as it is");
    printf("\n%-26s", "");
    for (size_t i = 0; i < count; i++) printf(" %12zu", i + 1);
    putchar('\n');
    for (int cell = 0; cell < CELLS; cell++) {
        printf("%-26s", cell_names[cell]);
        for (size_t i = 0; i < count; i++) print_cell((enum cell)cell, &variants[i]);
        putchar('\n');
    }
    putchar('\n');
    for (size_t i = 0; i < count; i++)
        printf("%3zu  %s\n", i + 1, variants[i].fits ? variants[i].forecast.parts : variants[i].trouble);
}

static int print_json(const struct variant *variants, size_t count) {
    int status = RETORT_OK;
    json_t *all = json_array();
    for (size_t i = 0; i < count; i++) {
        const struct variant *v = &variants[i];
        json_t *plan = v->fits ? forecast_json(&v->forecast) : json_object();
        json_object_set_new(plan, "what_if", json_string(v->name));
        json_object_set_new(plan, "fits", json_boolean(v->fits));
        if (v->fits)
            json_object_set_new(json_object_get(plan, "seconds"), "build_kernels_now",
                                json_real(v->forecast.build_now));
        else
            json_object_set_new(plan, "trouble", json_string(v->trouble));
        json_array_append_new(all, plan);
    }
    if (!all || json_array_size(all) != count) RAISE(RETORT_ENOMEM, "out of memory");
    json_dumpf(count == 1 ? json_array_get(all, 0) : all, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    putchar('\n');
done:
    json_decref(all);
    return status;
}

static int plan(const struct options *options, struct arena *arena) {
    int status = RETORT_OK;
    struct variant *variants = NULL;
    size_t count = options->what_if_count + 1;
    for (size_t i = 0; i < options->what_if_count; i++)
        if (!*options->what_if[i])
            RAISE(RETORT_EINVAL, "--what-if says nothing; expected KEY=VALUE or several of them with commas between");
    variants = arena_array(arena, count, sizeof *variants);
    if (!variants) RAISE(RETORT_ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++) {
        variants[i].name = i ? options->what_if[i - 1] : "";
        TRY(forecast_variant(options, arena, &variants[i]));
    }
    if (options->given[OPTION_JSON])
        TRY(print_json(variants, count));
    else if (count > 1)
        print_columns(variants, count);
    else if (variants->fits) {
        print_memory(&variants->forecast);
        print_time(&variants->forecast);
    }
    if (!variants->fits && count == 1) RAISE(RETORT_ELIMIT, "%s", variants->trouble);
done:
    for (size_t i = 0; variants && i < count; i++) forecast_finish(&variants[i].forecast);
    return status;
}

int command_plan(int argc, char **argv) {
    int exit_status = EXIT_DONE;
    struct options options;
    struct arena arena;
    unsigned long allowed = OPTION_BIT(OPTION_DEVICE) | OPTION_BIT(OPTION_SEED) | OPTION_BIT(OPTION_SET)
                            | OPTION_BIT(OPTION_WHAT_IF) | OPTION_BIT(OPTION_QUIET) | OPTION_BIT(OPTION_JSON);
    arena_init(&arena);
    if (!options_parse("plan", help, allowed, argc, argv, &options, &exit_status)) goto leave;
    exit_status = options_descriptor("plan", &options) ? report_failure("plan", plan(&options, &arena)) : EXIT_USAGE;
leave:
    arena_finish(&arena);
    options_finish(&options);
    return exit_status;
}
