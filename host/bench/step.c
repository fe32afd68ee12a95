#include "bench/bench.h"

#include "base/error.h"
#include "base/log.h"
#include "base/numbers.h"
#include "base/random.h"
#include "unroll/meta.h"
#include "unroll/timing.h"
#include "unroll/unroll.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum { CLASSES = 10 };

struct data {
    float *set, *targets, *real;
    int32_t *labels, *rows;
    struct unroll_gradient gradient;
    double loss, accuracy;
};

struct bench_steps {
    struct device *device;
    struct bench_step_spec spec;
    struct library *library;
    struct unroll *unroll;
    struct network network;
    struct meta_spec meta;
    struct data data;
};

static void fill(float *values, size_t count, uint32_t stream) {
    struct random random = random_begin(1, RANDOM_TEST, stream);
    for (size_t i = 0; i < count; i++) values[i] = (float)random_normal(&random);
}

static int prepare_data(const struct bench_step_spec *spec, struct data *data) {
    int status = RETORT_OK;
    size_t image = (size_t)spec->image[0] * (size_t)spec->image[1] * (size_t)spec->image[2];
    size_t n = (size_t)spec->ipc * CLASSES, real = (size_t)spec->real, steps = (size_t)(spec->prefix + spec->window);
    data->set = calloc(n * image, sizeof *data->set);
    data->targets = calloc(n * CLASSES, sizeof *data->targets);
    data->real = calloc(real * image, sizeof *data->real);
    data->labels = calloc(real, sizeof *data->labels);
    data->rows = calloc(steps * n, sizeof *data->rows);
    data->gradient.images = calloc(n * image, sizeof *data->gradient.images);
    data->gradient.labels = calloc(n * CLASSES, sizeof *data->gradient.labels);
    if (!data->set || !data->targets || !data->real || !data->labels || !data->rows || !data->gradient.images
        || !data->gradient.labels)
        RAISE(RETORT_ENOMEM, "out of memory for %zu synthetic and %zu real images", n, real);
    fill(data->set, n * image, 1);
    fill(data->real, real * image, 2);
    for (size_t i = 0; i < n; i++) data->targets[i * CLASSES + i % CLASSES] = 1;
    for (size_t i = 0; i < real; i++) data->labels[i] = (int32_t)(i % CLASSES);
    for (size_t i = 0; i < steps * n; i++) data->rows[i] = (int32_t)(i % n);
done:
    return status;
}

static void data_finish(struct data *data) {
    free(data->set);
    free(data->targets);
    free(data->real);
    free(data->labels);
    free(data->rows);
    free(data->gradient.images);
    free(data->gradient.labels);
}

static int outer_step(struct unroll *unroll, const struct bench_step_spec *spec, struct data *data) {
    int status = RETORT_OK;
    const struct unroll_steps steps = {.first = 1, .count = spec->prefix + spec->window, .rows = data->rows};
    struct pass *meta = unroll_pass(unroll, 0);
    TRY(unroll_set(unroll, 0, data->set, data->targets, NULL));
    TRY(unroll_upload_steps(unroll, &steps));
    TRY(meta_upload(meta, data->real, data->labels, NULL));
    TRY(unroll_begin(unroll, &(uint64_t){1}));
    TRY(unroll_train(unroll, 0, spec->prefix, false));
    TRY(unroll_window(unroll, spec->prefix, spec->window, false));
    TRY(meta_run(meta));
    TRY(unroll_backward(unroll, meta_lambda(meta), HESSIAN_EXACT, &data->gradient));
    TRY(meta_read(meta, &data->loss, &data->accuracy));
done:
    return status;
}

/* `network` and `meta` are to live as long as the unroll. */
static int plan(struct library *library, const struct bench_step_spec *spec, bool plan_only, struct network *network,
                struct meta_spec *meta, struct unroll **unroll) {
    int status = RETORT_OK;
    const struct network_spec network_spec = {.kind = NETWORK_CONVNET,
                                              .depth = 3,
                                              .width = spec->width,
                                              .norm = NORM_INSTANCE,
                                              .activation = ACTIVATION_RELU,
                                              .pool = POOL_AVERAGE};
    TRY(network_describe(&network_spec, spec->image[0], spec->image[1], spec->image[2], CLASSES, network));
    *meta = (struct meta_spec){.network = network, .batch = spec->real};
    const struct pass_spec pass = meta_pass(meta);
    const struct unroll_spec unroll_spec = {
        .network = network,
        .optimizer = {.kind = OPTIMIZER_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
        .set_count = (int64_t)spec->ipc * CLASSES,
        .batch = (int64_t)spec->ipc * CLASSES,
        .soft_labels = true,
        .passes = &pass,
        .pass_count = 1,
        .max_window = spec->window,
        .steps = spec->prefix + spec->window,
        .plan_only = plan_only,
    };
    TRY(unroll_create(library, &unroll_spec, unroll));
done:
    return status;
}

int bench_step_classes(struct device *device, const struct bench_step_spec *spec, struct kernel_demand **list,
                       size_t *count) {
    int status = RETORT_OK;
    struct library *library = NULL;
    struct unroll *unroll = NULL;
    struct network network;
    struct meta_spec meta;
    TRY(library_create_with(device, spec->family, NULL, &library));
    TRY(plan(library, spec, true, &network, &meta, &unroll));
    TRY(library_classes(library, list, count));
done:
    unroll_destroy(unroll);
    library_destroy(library);
    return status;
}

int bench_step_kernels(struct device *device, const struct bench_step_spec *spec, FILE *program, FILE *launches) {
    int status = RETORT_OK;
    struct library *library = NULL;
    struct unroll *unroll = NULL;
    struct network network;
    struct meta_spec meta;
    char words[200];
    device_set_ceiling(device, spec->memory);
    TRY(library_create_with(device, spec->family, NULL, &library));
    TRY(plan(library, spec, true, &network, &meta, &unroll));
    if (program) TRY(library_write_program(library, program));
    unroll_describe(unroll, words, sizeof words);
    const struct device_traits *traits = device_traits(device);
    fprintf(launches, "%s, %u units: %s\n%d launches an outer step\n", traits->name, traits->compute_units, words,
            unroll_launches(unroll, spec->prefix, spec->window));
    unroll_print(unroll, true, launches);
    unroll_print_memory(unroll, launches);
done:
    unroll_destroy(unroll);
    library_destroy(library);
    return status;
}

int bench_steps_create(struct device *device, const struct bench_step_spec *spec, struct bench_steps **steps) {
    int status = RETORT_OK;
    struct bench_steps *fresh = calloc(1, sizeof *fresh);
    if (!fresh) RAISE(RETORT_ENOMEM, "out of memory");
    fresh->device = device;
    fresh->spec = *spec;
    TRY(prepare_data(spec, &fresh->data));
    device_set_ceiling(device, spec->memory);
    TRY(library_create(device, spec->family, &fresh->library));
    TRY(plan(fresh->library, spec, false, &fresh->network, &fresh->meta, &fresh->unroll));
    *steps = fresh;
    fresh = NULL;
done:
    bench_steps_destroy(fresh);
    return status;
}

void bench_steps_destroy(struct bench_steps *steps) {
    if (!steps) return;
    data_finish(&steps->data);
    unroll_destroy(steps->unroll);
    library_destroy(steps->library);
    free(steps);
}

int bench_steps_outer(struct bench_steps *steps, double *seconds) {
    int status = RETORT_OK;
    double begun = clock_seconds();
    TRY(outer_step(steps->unroll, &steps->spec, &steps->data));
    *seconds = clock_seconds() - begun;
done:
    return status;
}

int bench_steps_inner(struct bench_steps *steps, double enough, double *seconds) {
    int status = RETORT_OK;
    int most = steps->spec.prefix + steps->spec.window;
    const struct unroll_steps tables = {.first = 1, .count = most, .rows = steps->data.rows};
    TRY(unroll_set(steps->unroll, 0, steps->data.set, steps->data.targets, NULL));
    TRY(unroll_upload_steps(steps->unroll, &tables));
    TRY(unroll_time_steps(steps->unroll, 1, most, false, enough, seconds, NULL));
done:
    return status;
}

double bench_steps_loss(const struct bench_steps *steps) {
    return steps->data.loss;
}

double bench_steps_flops(const struct bench_steps *steps, bool inner) {
    const struct bench_step_spec *spec = &steps->spec;
    if (inner) return unroll_flops(steps->unroll, 1, 0) - unroll_flops(steps->unroll, 0, 0);
    return unroll_flops(steps->unroll, spec->prefix, spec->window);
}

static double processor_clock(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int time_steps(struct bench_steps *steps, struct bench_step_result *result) {
    int status = RETORT_OK;
    const struct bench_step_spec *spec = &steps->spec;
    size_t reps = (size_t)spec->reps;
    double *seconds = calloc(reps, sizeof *seconds), *processor = calloc(reps, sizeof *processor);
    if (!seconds || !processor) RAISE(RETORT_ENOMEM, "out of memory for %d times", spec->reps);
    TRY(bench_steps_outer(steps, &result->first_seconds));
    if (spec->profile) TRY(device_profile_begin(steps->device));
    for (size_t i = 0; i < reps; i++) {
        double before = processor_clock();
        TRY(bench_steps_outer(steps, &seconds[i]));
        processor[i] = processor_clock() - before;
    }
    if (spec->profile) TRY(device_profile_end(steps->device, &result->profile));
    numbers_sort(seconds, reps);
    numbers_sort(processor, reps);
    result->seconds_min = seconds[0];
    result->seconds_median = numbers_median(seconds, reps);
    result->processor_seconds = processor[0];
done:
    free(processor);
    free(seconds);
    return status;
}

int bench_step(struct device *device, const struct bench_step_spec *spec, struct bench_step_result *result) {
    int status = RETORT_OK;
    struct bench_steps *steps = NULL;
    struct bench_step_result fresh = {0};
    struct rusage usage;
    double begun = clock_seconds();
    TRY(bench_steps_create(device, spec, &steps));
    fresh.build_seconds = clock_seconds() - begun;
    unroll_describe(steps->unroll, fresh.plan, sizeof fresh.plan);
    fresh.kept_steps = unroll_kept_steps(steps->unroll);
    if (spec->launches) {
        unroll_print(steps->unroll, true, spec->launches);
        unroll_print_memory(steps->unroll, spec->launches);
    }
    TRY(time_steps(steps, &fresh));
    getrusage(RUSAGE_SELF, &usage);
    fresh.flops = bench_steps_flops(steps, false);
    fresh.loss = steps->data.loss;
    fresh.accuracy = steps->data.accuracy;
    fresh.peak_device_bytes = device_peak_bytes(device);
    fresh.peak_resident_bytes = (uint64_t)usage.ru_maxrss * 1024;
    *result = fresh;
    fresh.profile = (struct device_profile){0};
done:
    device_profile_finish(&fresh.profile);
    bench_steps_destroy(steps);
    return status;
}
