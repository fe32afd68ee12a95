/* `retort bench`: speeds of this device beside its own peaks, measured in the same run. */
#include "bench/bench.h"
#include "base/error.h"
#include "base/memory.h"
#include "command/options.h"
#include "run/json_file.h"
#include "run/nearest.h"
#include "run/profile.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: retort bench step|gemm|conv [OPTIONS]\n\n"
    "Measures this device: how fast it does what distillation asks of it, beside its own peaks (fused multiply-adds "
    "in\n"
    "registers, copies of more memory than its caches hold) measured in the same run.\n\n"
    "  retort bench step     whole outer steps: inner training, meta-loss, exact meta-gradient\n\n"
    "`retort bench NAME --help` explains each.\n";

static const char step_help[] =
    "usage: retort bench step [OPTIONS]\n\n"
    "Times whole outer steps on random data: P plain inner steps, W differentiated ones, the meta-loss on B real "
    "images\n"
    "and the exact meta-gradient by the synthetic images. ConvNet-3 with instance norm, inner Adam, 10 classes.\n\n"
    "  retort bench step --image 3,32,32 --width 128 --ipc 10\n"
    "  retort bench step --profile             where the time goes, kernel by kernel\n"
    "  retort bench step --json | jq .seconds_min\n\n"
    "  --image C,H,W   channels, height, width of an image (1,28,28)\n"
    "  --ipc N         images per class (1); an inner step trains on all of them\n"
    "  --prefix P      plain inner steps (20)\n"
    "  --window W      inner steps differentiated (20)\n"
    "  --real B        real images of the meta-loss (256)\n"
    "  --width C       channels of the network (32)\n"
    "  --reps R        outer steps timed, after a first one that is timed apart (5)\n"
    "  --profile       device time per kernel, beside the peaks\n"
    "  --launches      lists every kernel launch first, for those who work on kernels\n"
    "  --device SPEC   index or words of `retort devices`\n"
    "  --family F      kernels for CPUs (cpu) or for GPUs (gpu), instead of those for the device's type\n"
    "  --json          one object: seconds, memory in bytes and MiB, gflops (convolutions counted as plain sums of\n"
    "                  products), share_of_peak\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

#define COMMON_OPTIONS (OPTION_BIT(OPTION_DEVICE) | OPTION_BIT(OPTION_FAMILY) | OPTION_BIT(OPTION_JSON))
#define MIB            0x1p20

/* --- what all benchmarks print --- */
static json_t *describe_run(const char *benchmark, const struct device_traits *traits,
                            const struct device_peaks *peaks) {
    return json_pack("{s:s, s:s, s:o, s:o, s:o, s:f, s:f}", "benchmark", benchmark, "version", RETORT_VERSION, "device",
                     json_text(traits->name), "platform", json_text(traits->platform), "driver",
                     json_text(traits->driver), "peak_gflops", peaks->flops * 1e-9, "peak_gb_per_s",
                     peaks->bytes * 1e-9);
}

static void print_run(const struct device_traits *traits, const struct device_peaks *peaks) {
    printf("device   %s (%s)\n", traits->name, traits->platform);
    printf("peak     %.1f GFLOP/s, copy %.1f GB/s\n", peaks->flops * 1e-9, peaks->bytes * 1e-9);
}

/* Prints an object, built of parts each of which may have run out of memory, and lets go of it. */
static int print_json(json_t *object) {
    int status = RETORT_OK;
    if (!object || json_dumpf(object, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) < 0)
        RAISE(RETORT_ENOMEM, "out of memory writing JSON");
    putchar('\n');
done:
    json_decref(object);
    return status;
}

/* --- step --- */
static bool read_image(const char *verb, const char *word, int image[3]) {
    int size[3], end = 0;
    if (!word) return true;
    bool fits = sscanf(word, "%d,%d,%d%n", &size[0], &size[1], &size[2], &end) == 3 && !word[end];
    for (int i = 0; i < 3 && fits; i++) fits = size[i] >= 1 && size[i] <= 4096;
    if (!fits) {
        usage_error(verb, "--image %s: expected channels, height and width, such as 3,32,32", word);
        return false;
    }
    memcpy(image, size, sizeof size);
    return true;
}

static int print_step(const struct device_traits *traits, const struct device_peaks *peaks,
                      const struct bench_step_spec *spec, const struct bench_step_result *result, bool json) {
    int status = RETORT_OK;
    double gflops = result->flops / result->seconds_min * 1e-9, share = gflops * 1e9 / peaks->flops;
    struct text table;
    text_init(&table);
    if (json) {
        json_t *object = describe_run("step", traits, peaks);
        json_t *more = json_pack(
            "{s:[i,i,i], s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:f, s:f, s:f, s:o, s:o}",
            "image", spec->image[0], spec->image[1], spec->image[2], "ipc", spec->ipc, "prefix", spec->prefix, "window",
            spec->window, "real", spec->real, "width", spec->width, "reps", spec->reps, "seconds_min",
            result->seconds_min, "seconds_median", result->seconds_median, "first_seconds", result->first_seconds,
            "processor_seconds", result->processor_seconds, "build_seconds", result->build_seconds, "peak_rss_mb",
            (double)result->peak_resident_bytes / MIB, "peak_device_bytes", (json_int_t)result->peak_device_bytes,
            "gflop", result->flops * 1e-9, "gflops", gflops, "share_of_peak", share, "loss",
            json_number_or_null(result->loss), "accuracy", json_number_or_null(result->accuracy));
        if (spec->profile && more) json_object_set_new(more, "profile", profile_json(&result->profile, peaks));
        if (!more || json_object_update(object, more) < 0) {
            json_decref(object);
            object = NULL;
        }
        json_decref(more);
        TRY(print_json(object));
    } else {
        print_run(traits, peaks);
        printf("step     %.4f s at best, %.4f s median of %d; first %.4f s, processors %.4f s; ready in %.2f s\n",
               result->seconds_min, result->seconds_median, spec->reps, result->first_seconds,
               result->processor_seconds, result->build_seconds);
        printf("speed    %.1f GFLOP/s at best, %.1f %% of peak; %.2f GFLOP a step\n", gflops, 100 * share,
               result->flops * 1e-9);
        printf("memory   %.1f MiB on the device, %.1f MiB resident\n", (double)result->peak_device_bytes / MIB,
               (double)result->peak_resident_bytes / MIB);
        printf("loss     %.9g\n", result->loss);
        if (spec->profile) {
            profile_table(&result->profile, peaks, &table);
            printf("\n%s", text_get(&table));
        }
    }
done:
    text_finish(&table);
    return status;
}

static int run_step(const char *verb, const struct options *options) {
    int status = RETORT_OK;
    struct device *device = NULL;
    struct bench_step_result result = {0};
    struct device_peaks peaks;
    bool json = options->given[OPTION_JSON];
    struct bench_step_spec spec = {.image = {1, 28, 28},
                                   .ipc = 1,
                                   .prefix = 20,
                                   .window = 20,
                                   .real = 256,
                                   .width = 32,
                                   .reps = 5,
                                   .profile = options->given[OPTION_PROFILE],
                                   .launches = options->given[OPTION_LAUNCHES] ? json ? stderr : stdout : NULL};
    if (!read_image(verb, options->value[OPTION_IMAGE], spec.image)
        || !options_int(verb, options, OPTION_IPC, 1, 10000, &spec.ipc)
        || !options_int(verb, options, OPTION_PREFIX, 0, 1000000, &spec.prefix)
        || !options_int(verb, options, OPTION_WINDOW, 1, 100000, &spec.window)
        || !options_int(verb, options, OPTION_REAL, 1, 1000000, &spec.real)
        || !options_int(verb, options, OPTION_WIDTH, 1, 65536, &spec.width)
        || !options_int(verb, options, OPTION_REPS, 1, 1000000, &spec.reps)
        || !options_family(verb, options, &spec.family))
        return EXIT_USAGE;
    TRY(device_open(options->value[OPTION_DEVICE], &device));
    TRY(bench_step(device, &spec, &result));
    TRY(device_measure_peaks(device, &peaks)); /* last, so that its buffers are not in the step's figures */
    TRY(print_step(device_traits(device), &peaks, &spec, &result, json));
done:
    device_profile_finish(&result.profile);
    device_close(device);
    return report_failure(verb, status);
}

/* --- the verb --- */
static const struct {
    const char *name, *verb, *help;
    unsigned long options;
    int (*run)(const char *verb, const struct options *options); /* the exit status */
} benchmarks[] = {
    {"step", "bench step", step_help,
     COMMON_OPTIONS | OPTION_BIT(OPTION_IMAGE) | OPTION_BIT(OPTION_IPC) | OPTION_BIT(OPTION_PREFIX)
         | OPTION_BIT(OPTION_WINDOW) | OPTION_BIT(OPTION_REAL) | OPTION_BIT(OPTION_WIDTH) | OPTION_BIT(OPTION_REPS)
         | OPTION_BIT(OPTION_PROFILE) | OPTION_BIT(OPTION_LAUNCHES),
     run_step},
};
#define BENCHMARKS (sizeof benchmarks / sizeof *benchmarks)

static int unknown_benchmark(const char *word) {
    const char *known[BENCHMARKS + 1] = {0};
    for (size_t i = 0; i < BENCHMARKS; i++) known[i] = benchmarks[i].name;
    const char *meant = word_nearest(word, known);
    if (meant) return usage_error("bench", "unknown benchmark %s (did you mean %s?)", word, meant);
    return usage_error("bench", "unknown benchmark %s", word);
}

int command_bench(int argc, char **argv) {
    int exit_status = EXIT_DONE;
    struct options options;
    size_t which = 0;
    if (argc < 2) return usage_error("bench", "which benchmark? A first one is step");
    while (which < BENCHMARKS && strcmp(argv[1], benchmarks[which].name) != 0) which++;
    if (which == BENCHMARKS && argv[1][0] != '-') return unknown_benchmark(argv[1]);
    if (which == BENCHMARKS) {
        if (options_parse("bench", help, 0, argc, argv, &options, &exit_status))
            exit_status = usage_error("bench", "which benchmark? A first one is step");
    } else if (options_parse(benchmarks[which].verb, benchmarks[which].help, benchmarks[which].options, argc - 1,
                             argv + 1, &options, &exit_status)) {
        if (options.operand_count)
            exit_status = usage_error(benchmarks[which].verb, "takes no operand, found %s", options.operands[0]);
        else
            exit_status = benchmarks[which].run(benchmarks[which].verb, &options);
    }
    options_finish(&options);
    return exit_status;
}
