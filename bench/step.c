/* Time of whole outer steps: prefix, window, meta-loss and backward of ConvNet-3 with instance norm under Adam, on
 * random data. step [--image C,H,W] [--ipc N] [--prefix P] [--window W] [--real B] [--width C] [--reps R] [--device
 * SPEC]
 * [--family cpu|gpu] [--profile] [--launches] */
#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "unroll/unroll.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { CLASSES = 10 };

struct settings {
    int image[3], ipc, prefix, window, real, width, reps;
    const char *device;
    enum family family;
    bool profile, launches;
};

struct data {
    float *set, *targets, *real;
    int32_t *labels, *rows;
    struct unroll_gradient gradient;
};

static int compare(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void fill(float *values, size_t count, uint32_t stream) {
    struct random random = random_begin(1, RANDOM_TEST, stream);
    for (size_t i = 0; i < count; i++) values[i] = (float)random_normal(&random);
}

static int prepare_data(const struct settings *s, struct data *data) {
    int status = RETORT_OK;
    size_t image = (size_t)s->image[0] * (size_t)s->image[1] * (size_t)s->image[2];
    size_t n = (size_t)s->ipc * CLASSES, real = (size_t)s->real, steps = (size_t)(s->prefix + s->window);
    data->set = malloc(n * image * sizeof(float));
    data->targets = calloc(n * CLASSES, sizeof(float));
    data->real = malloc(real * image * sizeof(float));
    data->labels = malloc(real * sizeof(int32_t));
    data->rows = malloc(steps * n * sizeof(int32_t));
    data->gradient.images = malloc(n * image * sizeof(float));
    data->gradient.labels = malloc(n * CLASSES * sizeof(float));
    if (!data->set || !data->targets || !data->real || !data->labels || !data->rows || !data->gradient.images
        || !data->gradient.labels)
        RAISE(RETORT_ENOMEM, "out of memory");
    fill(data->set, n * image, 1);
    fill(data->real, real * image, 2);
    for (size_t i = 0; i < n; i++) data->targets[i * CLASSES + i % CLASSES] = 1;
    for (size_t i = 0; i < real; i++) data->labels[i] = (int32_t)(i % CLASSES);
    for (size_t i = 0; i < steps * n; i++) data->rows[i] = (int32_t)(i % n);
done:
    return status;
}

static void free_data(struct data *data) {
    free(data->set);
    free(data->targets);
    free(data->real);
    free(data->labels);
    free(data->rows);
    free(data->gradient.images);
    free(data->gradient.labels);
}

static int outer_step(struct unroll *unroll, const struct settings *s, struct data *data) {
    int status = RETORT_OK;
    const struct unroll_steps steps = {.first = 1, .count = s->prefix + s->window, .rows = data->rows};
    const struct unroll_meta meta = {
        .prefix = s->prefix, .window = s->window, .images = data->real, .labels = data->labels};
    TRY(unroll_set(unroll, data->set, data->targets, NULL));
    TRY(unroll_upload_steps(unroll, &steps));
    TRY(unroll_begin(unroll, 1));
    TRY(unroll_meta_gradient(unroll, &meta, &data->gradient));
done:
    return status;
}

static double processor_seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int run(const struct settings *s, struct device *device, struct library *library, struct data *data) {
    int status = RETORT_OK;
    char text[160];
    struct unroll *unroll = NULL;
    struct network network;
    struct unroll_spec spec = {
        .network = &network,
        .optimizer = {.kind = OPTIMIZER_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
        .set_count = (int64_t)s->ipc * CLASSES,
        .batch = (int64_t)s->ipc * CLASSES,
        .soft_labels = true,
        .meta_batch = s->real,
        .max_window = s->window,
    };
    const struct network_spec network_spec = {.kind = NETWORK_CONVNET,
                                              .depth = 3,
                                              .width = s->width,
                                              .norm = NORM_INSTANCE,
                                              .activation = ACTIVATION_RELU,
                                              .pool = POOL_AVERAGE};
    double start = clock_seconds(), *seconds = calloc(2 * (size_t)s->reps + 2, sizeof *seconds);
    double *processor = seconds + s->reps + 1; /* time of all cores together: steadier on a machine that others use */
    if (!seconds) RAISE(RETORT_ENOMEM, "out of memory");
    TRY(network_describe(&network_spec, s->image[0], s->image[1], s->image[2], CLASSES, &network));
    TRY(prepare_data(s, data));
    TRY(unroll_create(library, &spec, &unroll));
    unroll_describe(unroll, text, sizeof text);
    printf("%s; ready in %.2f s\n", text, clock_seconds() - start);
    unroll_print(unroll, s->launches, stdout);
    start = clock_seconds();
    TRY(outer_step(unroll, s, data));
    double first = clock_seconds() - start;
    if (s->profile) TRY(device_profile_begin(device));
    for (int i = 0; i < s->reps; i++) {
        double begun = processor_seconds();
        start = clock_seconds();
        TRY(outer_step(unroll, s, data));
        seconds[i] = clock_seconds() - start;
        processor[i] = processor_seconds() - begun;
    }
    if (s->profile) TRY(device_profile_report(device, stdout));
    if (s->reps) {
        struct rusage usage;
        getrusage(RUSAGE_SELF, &usage);
        qsort(seconds, (size_t)s->reps, sizeof *seconds, compare);
        qsort(processor, (size_t)s->reps, sizeof *processor, compare);
        printf("outer step: first %.4f s, least %.4f s, median %.4f s; processor %.4f s; loss %.9g; device %.1f MB, "
               "resident %.1f MB\n",
               first, seconds[0], seconds[s->reps / 2], processor[0], data->gradient.loss,
               (double)device_peak_bytes(device) * 1e-6, (double)usage.ru_maxrss * 1e-3);
    }
done:
    unroll_destroy(unroll);
    free(seconds);
    return status;
}

static bool read_arguments(int argc, char **argv, struct settings *s) {
    static const struct option options[] = {
        {"image", 1, NULL, 'i'},  {"ipc", 1, NULL, 'n'},     {"prefix", 1, NULL, 'p'},   {"window", 1, NULL, 'w'},
        {"real", 1, NULL, 'b'},   {"width", 1, NULL, 'c'},   {"reps", 1, NULL, 'r'},     {"device", 1, NULL, 'd'},
        {"family", 1, NULL, 'f'}, {"profile", 0, NULL, 'P'}, {"launches", 0, NULL, 'l'}, {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (option) {
        case 'i':
            if (sscanf(optarg, "%d,%d,%d", &s->image[0], &s->image[1], &s->image[2]) != 3) return false;
            break;
        case 'n':
            s->ipc = atoi(optarg);
            break;
        case 'p':
            s->prefix = atoi(optarg);
            break;
        case 'w':
            s->window = atoi(optarg);
            break;
        case 'b':
            s->real = atoi(optarg);
            break;
        case 'c':
            s->width = atoi(optarg);
            break;
        case 'r':
            s->reps = atoi(optarg);
            break;
        case 'd':
            s->device = optarg;
            break;
        case 'f':
            s->family = strcmp(optarg, "gpu") == 0 ? FAMILY_GPU : FAMILY_CPU;
            break;
        case 'P':
            s->profile = true;
            break;
        case 'l':
            s->launches = true;
            break;
        default:
            return false;
        }
    return optind == argc && s->ipc > 0 && s->prefix >= 0 && s->window > 0 && s->real > 0 && s->width > 0
           && s->reps >= 0 && s->image[0] > 0 && s->image[1] > 0 && s->image[2] > 0;
}

int main(int argc, char **argv) {
    int status = RETORT_OK;
    struct settings settings = {.image = {1, 28, 28},
                                .ipc = 1,
                                .prefix = 20,
                                .window = 20,
                                .real = 256,
                                .width = 32,
                                .reps = 5,
                                .family = FAMILY_AUTO};
    struct device *device = NULL;
    struct library *library = NULL;
    struct data data = {0};
    if (!read_arguments(argc, argv, &settings)) {
        fprintf(stderr, "step: what the head of bench/step.c says\n");
        return 2;
    }
    TRY(device_open(settings.device, &device));
    TRY(library_create(device, settings.family, &library));
    TRY(run(&settings, device, library, &data));
done:
    if (status < 0) fprintf(stderr, "step: %s\n", retort_error_message());
    free_data(&data);
    library_destroy(library);
    device_close(device);
    return status < 0;
}
