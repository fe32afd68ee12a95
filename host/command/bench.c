/* `retort bench`: speeds of this device beside its own peaks, measured in the same run. */
#include "bench/bench.h"
#include "base/error.h"
#include "base/memory.h"
#include "command/options.h"
#include "device/fft.h"
#include "distill/dct.h"
#include "run/json_file.h"
#include "run/nearest.h"
#include "run/profile.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: retort bench step|conv|gemm|frequency|compare [OPTIONS]\n"
    "       retort bench --all-devices [--device SPEC] [--quick] [--out FILE.json]\n\n"
    "Measures this device: how fast it does what distillation asks of it, beside its own peaks (fused multiply-adds "
    "in\n"
    "registers, copies of more memory than its caches hold) measured in the same run.\n\n"
    "  retort bench step       whole outer steps: inner training, meta-loss, exact meta-gradient\n"
    "  retort bench conv       convolutions and their derivatives, and the pass between them\n"
    "  retort bench gemm       matrix products\n"
    "  retort bench frequency  images of coefficients: the DCT by matrix products and by clFFT\n"
    "  retort bench compare    a page that compares devices, of files that --all-devices wrote\n\n"
    "`retort bench NAME --help` explains each. With --all-devices one fixed load is measured on every device, the\n"
    "devices taking turns, each in a process of its own: peaks, launches, matrix products, convolutions, fused rows,\n"
    "inner and outer steps with their memory, kernel building with empty caches, and energy where the system tells\n"
    "it. What fails or takes too long is left out, and the results say why. They are JSON, which docs/comparing.md\n"
    "describes; takes some minutes a device.\n\n"
    "  --all-devices   every device of `retort devices`\n"
    "  --device SPEC   only those of this index or with these words\n"
    "  --family cpu|gpu  kernels for CPUs (cpu) or for GPUs (gpu), instead of those for the device's type\n"
    "  --limit SECONDS   for one load on one device, building included (60)\n"
    "  --quick         a few tiny loads, in seconds: that all works, no speed\n"
    "  --out FILE.json  where the results go, instead of standard output\n"
    "  --quiet, -q     only warnings and errors\n";

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

static const char frequency_help[] =
    "usage: retort bench frequency [OPTIONS]\n\n"
    "Times what a set of coefficients (set.parameters) does in each outer step: images of their spectra and spectra "
    "of\n"
    "their gradient, for images of 3 channels with sides of 28, 32, 64, 128 and 224, by matrix products and by clFFT,\n"
    "where the build has it. The last line says from which side on clFFT is faster on this device.\n\n"
    "  retort bench frequency\n"
    "  retort bench frequency --json | jq .crossover\n\n"
    "  --device SPEC   index or words of `retort devices`\n"
    "  --family cpu|gpu  kernels for CPUs (cpu) or for GPUs (gpu), instead of those for the device's type\n"
    "  --json          one object: `library`, `sides`, `crossover`\n\n"
    "The difference is the largest one between the two, over the largest value. clFFT compiles its kernels for every\n"
    "side, which takes some seconds each.\n\n"
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

/* --- frequency --- */
static json_t *times_json(const struct bench_frequency_times *times) {
    return json_pack("{s:f, s:f}", "seconds_min", times->least, "seconds_median", times->median);
}

static int report_side(struct report *report, const struct dct_shape *shape,
                       const struct bench_frequency_result *result) {
    int status = RETORT_OK;
    if (report->kernels) {
        json_t *row =
            json_pack("{s:i, s:I, s:i, s:o, s:o, s:o}", "side", shape->height, "images", (json_int_t)shape->count,
                      "channels", shape->channels, "matrix", times_json(&result->products), "clfft",
                      result->has_library ? times_json(&result->library) : json_null(), "difference",
                      json_number_or_null(result->difference));
        if (json_array_append_new(report->kernels, row) < 0) RAISE(RETORT_ENOMEM, "out of memory writing JSON");
        goto done;
    }
    printf("%3d x %-3d  %3" PRId64 " images  matrix products %9.3f ms (median %9.3f)", shape->height, shape->width,
           shape->count, result->products.least * 1e3, result->products.median * 1e3);
    if (result->has_library)
        printf("  clFFT %9.3f ms (median %9.3f)  difference %.1e", result->library.least * 1e3,
               result->library.median * 1e3, result->difference);
    putchar('\n');
    fflush(stdout);
done:
    return status;
}

/* In words, by the medians; *crossover: the side from which on the library is faster at all that were measured, 0: none
 * such. */
static void describe_crossover(const int *sides, const struct bench_frequency_result *results, int count,
                               struct text *words, int *crossover) {
    int faster = 0, missing = 0;
    *crossover = 0;
    for (int i = 0; i < count; i++) {
        const bool wins = results[i].has_library && results[i].library.median < results[i].products.median;
        if (!wins) *crossover = 0;
        if (wins && !*crossover) *crossover = sides[i];
        if (wins) text_printf(words, "%s%d", faster++ ? ", " : "clFFT is faster at sides ", sides[i]);
        missing += !results[i].has_library;
    }
    if (!device_fft_library())
        text_append(words, "matrix products at every side: this build has no clFFT (on Debian libclfft-dev)");
    else if (!faster)
        text_append(words, "matrix products are faster at every side");
    else if (faster == count)
        text_append(words, ": at every one");
    else
        text_append(words, *crossover ? "; matrix products below" : "; matrix products at the others");
    if (missing && device_fft_library()) text_printf(words, "; clFFT could not be taken at %d of them", missing);
}

static int run_frequency(const char *verb, const struct options *options) {
    static const int sides[] = {28, 32, 64, 128, 224};
    enum { SIDES = sizeof sides / sizeof *sides, CHANNELS = 3, IMAGES = 100, VALUES = 6000000 };
    int status = RETORT_OK, crossover;
    enum family family = FAMILY_AUTO;
    struct report report = {0};
    struct bench_frequency_result results[SIDES];
    struct text words;
    text_init(&words);
    if (!options_family(verb, options, &family)) return EXIT_USAGE;
    TRY(report_begin(options, family, &report));
    for (int i = 0; i < SIDES; i++) {
        const int fitting = VALUES / (CHANNELS * sides[i] * sides[i]);
        const struct dct_shape shape = {fitting < IMAGES ? fitting : IMAGES, CHANNELS, sides[i], sides[i]};
        TRY(bench_frequency(report.device, family, &shape, &results[i]));
        TRY(report_side(&report, &shape, &results[i]));
    }
    describe_crossover(sides, results, SIDES, &words, &crossover);
    if (words.failed) RAISE(RETORT_ENOMEM, "out of memory");
    if (!report.kernels)
        printf("%s\n", text_get(&words));
    else {
        json_t *object = describe_run("frequency", device_traits(report.device), &report.peaks);
        if (object) {
            const char *library = device_fft_library();
            json_object_set_new(object, "library", library ? json_string(library) : json_null());
            json_object_set(object, "sides", report.kernels);
            json_object_set_new(object, "crossover", crossover ? json_integer(crossover) : json_null());
            json_object_set_new(object, "summary", json_string(text_get(&words)));
        }
        TRY(print_json(object));
    }
done:
    text_finish(&words);
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
    {"frequency", "bench frequency", frequency_help, COMMON_OPTIONS, run_frequency},
};
#define BENCHMARKS (sizeof benchmarks / sizeof *benchmarks)

static int unknown_benchmark(const char *word) {
    const char *known[BENCHMARKS + 2] = {"compare"};
    for (size_t i = 0; i < BENCHMARKS; i++) known[i + 1] = benchmarks[i].name;
    const char *meant = word_nearest(word, known);
    if (meant) return usage_error("bench", "unknown benchmark %s (did you mean %s?)", word, meant);
    return usage_error("bench", "unknown benchmark %s", word);
}

/* Without the name of a benchmark. */
static int run_unnamed(const struct options *options) {
    if (!options->given[OPTION_ALL_DEVICES]) return usage_error("bench", "which benchmark? A first one is step");
    if (options->operand_count) return usage_error("bench", "takes no operand, found %s", options->operands[0]);
    return bench_all_devices(options);
}

int command_bench(int argc, char **argv) {
    const unsigned long unnamed = OPTION_BIT(OPTION_ALL_DEVICES) | OPTION_BIT(OPTION_DEVICE) | OPTION_BIT(OPTION_FAMILY)
                                  | OPTION_BIT(OPTION_LIMIT) | OPTION_BIT(OPTION_QUICK) | OPTION_BIT(OPTION_OUT)
                                  | OPTION_BIT(OPTION_QUIET);
    int exit_status = EXIT_DONE;
    struct options options;
    size_t which = 0;
    if (argc < 2) return usage_error("bench", "which benchmark? A first one is step");
    if (strcmp(argv[1], "compare") == 0) return bench_compare(argc - 1, argv + 1);
    while (which < BENCHMARKS && strcmp(argv[1], benchmarks[which].name) != 0) which++;
    if (which == BENCHMARKS && argv[1][0] != '-') return unknown_benchmark(argv[1]);
    if (which == BENCHMARKS) {
        if (options_parse("bench", help, unnamed, argc, argv, &options, &exit_status))
            exit_status = run_unnamed(&options);
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
