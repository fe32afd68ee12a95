/* `retort bench`: speeds of this device beside its own peaks, measured in the same run. */
#include "bench/bench.h"
#include "base/error.h"
#include "base/memory.h"
#include "command/options.h"
#include "run/json_file.h"
#include "run/nearest.h"
#include "run/profile.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] = "usage: retort bench step|conv|gemm [OPTIONS]\n\n"
                           "Measures this device: how fast it does what distillation asks of it, beside its own peaks "
                           "(fused multiply-adds in\n"
                           "registers, copies of more memory than its caches hold) measured in the same run.\n\n"
                           "  retort bench step     whole outer steps: inner training, meta-loss, exact meta-gradient\n"
                           "  retort bench conv     convolutions and their derivatives, and the pass between them\n"
                           "  retort bench gemm     matrix products\n\n"
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
    "  --memory SIZE   ceiling over device memory, such as 512MiB; what room it leaves keeps results of convolutions\n"
    "                  for the backward pass (none: memory stays small, they are computed again)\n"
    "  --profile       device time per kernel, beside the peaks\n"
    "  --launches      lists every kernel launch first, for those who work on kernels\n"
    "  --device SPEC   index or words of `retort devices`\n"
    "  --family cpu|gpu  kernels for CPUs (cpu) or for GPUs (gpu), instead of those for the device's type\n"
    "  --json          one object: seconds, memory in bytes and MiB, gflops (convolutions counted as plain sums of\n"
    "                  products), share_of_peak\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static const char conv_help[] =
    "usage: retort bench conv [--channels C] [--side S] [--batch N] [OPTIONS]\n\n"
    "Times 3x3 convolutions forward, backward to the data and backward to the weights, as the networks of "
    "distillation\n"
    "use them; where the kernel choice takes Winograd's, the direct ones as well. Then one visit of feature maps "
    "larger\n"
    "than every cache: instance norm, activation, pooling.\n\n"
    "  retort bench conv\n"
    "  retort bench conv --channels 64 --side 32 --batch 100\n\n"
    "  --channels C    in and out (128)\n"
    "  --side S        height and width (32, 16 and 8)\n"
    "  --batch N       images (10, 64 and 100)\n"
    "                  None of the three given: first layers and the narrow network of 28 x 28 images too\n"
    "  --device SPEC   index or words of `retort devices`\n"
    "  --family cpu|gpu  kernels for CPUs (cpu) or for GPUs (gpu), instead of those for the device's type\n"
    "  --json          one object: `kernels` and `rows`\n\n"
    "GFLOP/s count the plain sums of products whatever the kernel does, so that Winograd's can pass the peak. Times\n"
    "include packing of weights and adding up of parts. The error is the largest difference from double precision "
    "over\n"
    "the largest value, of a few hundred elements.\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static const char gemm_help[] =
    "usage: retort bench gemm [OPTIONS]\n\n"
    "Times matrix products: the dense layers of distillation with their derivatives, and a few square ones, by our "
    "own\n"
    "kernels and on GPUs by CLBlast too, where the build has it. Each is checked against double precision.\n\n"
    "  retort bench gemm\n"
    "  retort bench gemm --device 1 --json\n\n"
    "  --device SPEC   index or words of `retort devices`\n"
    "  --family cpu|gpu  kernels for CPUs (cpu) or for GPUs (gpu), instead of those for the device's type\n"
    "  --json          one object: `kernels`\n\n"
    "Times include packing of the second operand, CLBlast's those of the copies it makes. RETORT_GEMM=clblast in the\n"
    "environment times CLBlast on CPUs too. The error is the largest difference over the largest value.\n\n"
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
static int print_step(const struct device_traits *traits, const struct device_peaks *peaks,
                      const struct bench_step_spec *spec, const struct bench_step_result *result, bool json) {
    int status = RETORT_OK;
    double gflops = result->flops / result->seconds_min * 1e-9, share = gflops * 1e9 / peaks->flops;
    struct text table;
    text_init(&table);
    if (json) {
        json_t *object = describe_run("step", traits, peaks);
        json_t *more = json_pack(
            "{s:[i,i,i], s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:f, s:f, "
            "s:f, s:o, s:o}",
            "image", spec->image[0], spec->image[1], spec->image[2], "ipc", spec->ipc, "prefix", spec->prefix, "window",
            spec->window, "real", spec->real, "width", spec->width, "reps", spec->reps, "memory",
            (json_int_t)spec->memory, "plan", result->plan, "kept_steps", result->kept_steps, "seconds_min",
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
        printf("plan     %s\n", result->plan);
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
    if (!options_step(verb, options, &spec) || !options_int(verb, options, OPTION_REPS, 1, 1000000, &spec.reps))
        return EXIT_USAGE;
    TRY(device_open(options->value[OPTION_DEVICE], &device));
    TRY(bench_step(device, &spec, &result));
    device_set_ceiling(device, 0);
    TRY(device_measure_peaks(device, &peaks)); /* last, so that its buffers are not in the step's figures */
    TRY(print_step(device_traits(device), &peaks, &spec, &result, json));
done:
    device_profile_finish(&result.profile);
    device_close(device);
    return report_failure(verb, status);
}

/* --- single kernels --- */
/* A benchmark of many kernels under way: lines are printed, or kept for JSON, as they come. */
struct report {
    struct device *device;
    struct kernel_target target;
    struct device_peaks peaks;
    json_t *kernels; /* NULL: lines are printed */
};

static int report_begin(const struct options *options, enum family family, struct report *report) {
    int status = RETORT_OK;
    TRY(device_open(options->value[OPTION_DEVICE], &report->device));
    const struct device_traits *traits = device_traits(report->device);
    report->target = kernels_target(traits, family);
    TRY(device_measure_peaks(report->device, &report->peaks));
    if (options->given[OPTION_JSON] && !(report->kernels = json_array()))
        RAISE(RETORT_ENOMEM, "out of memory writing JSON");
    if (!report->kernels) print_run(traits, &report->peaks);
done:
    return status;
}

static void report_finish(struct report *report) {
    json_decref(report->kernels);
    device_close(report->device);
}

/* Prints what was kept; `rows` is NULL where there are none. */
static int report_end(struct report *report, const char *benchmark, json_t *rows) {
    if (!report->kernels) return RETORT_OK;
    json_t *object = describe_run(benchmark, device_traits(report->device), &report->peaks);
    if (object) json_object_set(object, "kernels", report->kernels);
    if (object && rows) json_object_set(object, "rows", rows);
    return print_json(object);
}

/* `name` for people, `description` (taken over) for programs. */
static int report_kernel(struct report *report, const char *name, json_t *description,
                         const struct bench_kernel_result *result) {
    int status = RETORT_OK;
    double gflops = result->flops / result->seconds * 1e-9, share = gflops * 1e9 / report->peaks.flops;
    if (report->kernels) {
        json_t *figures =
            json_pack("{s:s, s:f, s:f, s:f, s:o}", "file", result->file, "seconds", result->seconds, "gflops", gflops,
                      "share_of_peak", share, "relative_error", json_number_or_null(result->error));
        bool built = figures && description && json_object_update(description, figures) == 0;
        json_decref(figures);
        if (!built || json_array_append(report->kernels, description) < 0)
            RAISE(RETORT_ENOMEM, "out of memory writing JSON");
    } else {
        printf("%-44s %10.4f ms %8.1f GFLOP/s %5.1f %% of peak  error %.1e  %s\n", name, result->seconds * 1e3, gflops,
               100 * share, result->error, result->way ? result->way : result->file);
        fflush(stdout);
    }
done:
    json_decref(description);
    return status;
}

/* --- gemm --- */
/* Of a dense layer: forward, to the data, to the weights. */
#define DENSE(images, features, units)                                                       \
    {1, images, units, features, false, true}, {1, images, features, units, false, false}, { \
        1, units, features, images, true, false                                              \
    }

/* Our own kernels, and those of a library: on CPUs, where it is slow to build and slow, only if asked for. */
static int gemm_targets(const struct report *report, struct kernel_target targets[2], int *count) {
    int status = RETORT_OK;
    char words[GEMM_WORDS];
    struct kernel_target asked = report->target;
    TRY(kernels_settle_gemm(&asked, report->device, words));
    targets[0] = targets[1] = report->target;
    targets[0].gemm = "own", targets[1].gemm = "clblast";
    bool free = !asked.gemm || strcmp(asked.gemm, "auto") == 0;
    bool both = device_gemm_library() && (asked.calls || (free && asked.traits->kind != DEVICE_CPU));
    for (int i = 0; i < 1 + both; i++) TRY(kernels_settle_gemm(&targets[i], report->device, words));
    *count = 1 + (both && targets[1].calls);
done:
    return status;
}

static int report_gemm(struct report *report, const struct kernel_target *target, const struct matmul_sizes *s) {
    int status = RETORT_OK;
    struct bench_kernel_result result;
    char name[96];
    TRY(bench_gemm(report->device, target, s, &result));
    snprintf(name, sizeof name, "%" PRId64 " x %" PRId64 "%s by %" PRId64 " x %" PRId64 "%s", s->m, s->k,
             s->transpose_a ? " (T)" : "", s->k, s->n, s->transpose_b ? " (T)" : "");
    TRY(report_kernel(report, name,
                      json_pack("{s:I, s:I, s:I, s:b, s:b}", "m", (json_int_t)s->m, "n", (json_int_t)s->n, "k",
                                (json_int_t)s->k, "transpose_a", s->transpose_a, "transpose_b", s->transpose_b),
                      &result));
done:
    return status;
}

static int run_gemm(const char *verb, const struct options *options) {
    /* Heads of ConvNet-3 (width 32 on 28 x 28, width 128 on 32 x 32), a hidden layer, squares. */
    static const struct matmul_sizes products[] = {
        DENSE(10, 288, 10),   DENSE(100, 288, 10),       DENSE(256, 288, 10),          DENSE(10, 2048, 10),
        DENSE(100, 2048, 10), DENSE(256, 2048, 10),      DENSE(100, 784, 128),         {1, 128, 128, 128, false, false},
        {1, 256, 256, 256},   {1, 512, 512, 512, false}, {1, 1024, 1024, 1024, false},
    };
    int status = RETORT_OK, ways = 0;
    enum family family = FAMILY_AUTO;
    struct report report = {0};
    struct kernel_target targets[2];
    if (!options_family(verb, options, &family)) return EXIT_USAGE;
    TRY(report_begin(options, family, &report));
    TRY(gemm_targets(&report, targets, &ways));
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        for (int way = 0; way < ways; way++) TRY(report_gemm(&report, &targets[way], &products[i]));
    TRY(report_end(&report, "gemm", NULL));
done:
    report_finish(&report);
    return report_failure(verb, status);
}

/* --- conv --- */
static const char *const pass_names[] = {"forward", "to data", "to weights"};

/* The kernel chosen, and the direct one where it is another. */
static int report_conv(struct report *report, const struct bench_conv_spec *spec) {
    int status = RETORT_OK;
    struct kernel_target target = report->target;
    struct bench_kernel_result result, direct;
    char name[96];
    snprintf(name, sizeof name, "%-10s %4" PRId64 " > %-4" PRId64 " %3" PRId64 " x %-3" PRId64 " batch %" PRId64,
             pass_names[spec->pass], spec->channels, spec->outputs, spec->side, spec->side, spec->batch);
    for (int way = 0; way < 2; way++) {
        const struct kernel_variant *row;
        for (int i = 0; way && (row = kernels_row(&target, false, i)); i++)
            target.preferred = row->name; /* the last one */
        TRY(bench_conv(report->device, &target, spec, way ? &direct : &result));
        if (way && strcmp(direct.way, result.way) == 0) break;
        TRY(report_kernel(report, name,
                          json_pack("{s:s, s:I, s:I, s:I, s:I}", "pass", pass_names[spec->pass], "batch",
                                    (json_int_t)spec->batch, "channels", (json_int_t)spec->channels, "outputs",
                                    (json_int_t)spec->outputs, "side", (json_int_t)spec->side),
                          way ? &direct : &result));
    }
done:
    return status;
}

static int report_rows(struct report *report, enum family family, json_t **rows) {
    int status = RETORT_OK;
    struct bench_rows_result result;
    TRY(bench_rows(report->device, family, &result));
    double speed = result.bytes / result.seconds, share = speed / report->peaks.bytes;
    if (!report->kernels)
        printf("norm, activation, pooling: %" PRId64 " images of %" PRId64 " x %" PRId64 " x %" PRId64
               ": %.4f ms, %.1f GB/s, %.1f %% of a copy\n",
               result.batch, result.channels, result.side, result.side, result.seconds * 1e3, speed * 1e-9,
               100 * share);
    else
        *rows = json_pack("[{s:s, s:I, s:I, s:I, s:f, s:f, s:f}]", "operations", "norm, activation, pooling", "batch",
                          (json_int_t)result.batch, "channels", (json_int_t)result.channels, "side",
                          (json_int_t)result.side, "seconds", result.seconds, "gb_per_s", speed * 1e-9, "share_of_copy",
                          share);
done:
    return status;
}

struct shapes {
    int64_t batches[3], layers[3][3]; /* of a layer: channels, outputs, side */
    int batch_count, layer_count;
};

static int report_shapes(struct report *report, const struct shapes *shapes) {
    int status = RETORT_OK;
    for (int layer = 0; layer < shapes->layer_count; layer++)
        for (int batch = 0; batch < shapes->batch_count; batch++)
            for (enum bench_conv_pass pass = BENCH_FORWARD; pass <= BENCH_BACKWARD_WEIGHT; pass++) {
                const int64_t *sizes = shapes->layers[layer];
                const struct bench_conv_spec spec = {pass, shapes->batches[batch], sizes[0], sizes[1], sizes[2]};
                TRY(report_conv(report, &spec));
            }
done:
    return status;
}

static int run_conv(const char *verb, const struct options *options) {
    int status = RETORT_OK, channels = 128, side = 0, batch = 0;
    enum family family = FAMILY_AUTO;
    struct report report = {0};
    json_t *rows = NULL;
    if (!options_int(verb, options, OPTION_CHANNELS, 1, 65536, &channels)
        || !options_int(verb, options, OPTION_SIDE, 1, 4096, &side)
        || !options_int(verb, options, OPTION_BATCH, 1, 1000000, &batch) || !options_family(verb, options, &family))
        return EXIT_USAGE;
    bool all = !options->given[OPTION_CHANNELS] && !side && !batch;
    struct shapes shapes = {
        {10, 64, 100}, {{channels, channels, 32}, {channels, channels, 16}, {channels, channels, 8}}, 3, 3};
    const struct shapes first = {{10, 64, 100}, {{1, 32, 28}, {3, 128, 32}}, 3, 2};
    const struct shapes narrow = {{10, 64, 100}, {{32, 32, 28}, {32, 32, 14}, {32, 32, 7}}, 3, 3};
    if (batch) shapes.batches[0] = batch, shapes.batch_count = 1;
    if (side) shapes.layers[0][2] = side, shapes.layer_count = 1;
    TRY(report_begin(options, family, &report));
    TRY(report_shapes(&report, &shapes));
    if (all) {
        TRY(report_shapes(&report, &first));
        TRY(report_shapes(&report, &narrow));
    }
    TRY(report_rows(&report, family, &rows));
    TRY(report_end(&report, "conv", rows));
done:
    json_decref(rows);
    report_finish(&report);
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
         | OPTION_BIT(OPTION_MEMORY) | OPTION_BIT(OPTION_PROFILE) | OPTION_BIT(OPTION_LAUNCHES),
     run_step},
    {"conv", "bench conv", conv_help,
     COMMON_OPTIONS | OPTION_BIT(OPTION_CHANNELS) | OPTION_BIT(OPTION_SIDE) | OPTION_BIT(OPTION_BATCH), run_conv},
    {"gemm", "bench gemm", gemm_help, COMMON_OPTIONS, run_gemm},
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
