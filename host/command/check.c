/* `retort check CASE...`: the product's meta-gradients against exact answers kept in folders. */
#include "unroll/check.h"
#include "base/error.h"
#include "base/file.h"
#include "command/options.h"
#include "data/data.h"
#include "run/descriptor.h"
#include "run/words.h"
#include "unroll/lanczos.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: retort check [--device SPEC] [--family auto|cpu|gpu] [--json] CASE...\n\n"
    "Each CASE is a folder that holds case.yaml, a small truncated-BPTT problem as .npy arrays, and its exact answers\n"
    "expect_*.npy. The problem takes the same path as a run; each quantity is compared:\n\n"
    "  CASE QUANTITY RELATIVE_ERROR ok|FAIL        error = max |got - expected| / max |expected|\n\n"
    "  retort check tests/oracle/mlp-gelu-soft tests/oracle/batch*/\n\n"
    "  --device SPEC   the device to check (index or words of `retort devices`)\n"
    "  --family cpu|gpu  its kernels for CPUs or for GPUs, instead of those for its type\n"
    "  --json          for programs\n"
    "  --quiet, -q     only warnings and errors, beside the results\n\n"
    "Exit status: 0 all within their tolerance, 1 some are not or a case cannot be read, 2 wrong usage or case.yaml.\n";

/* --- case.yaml --- */
struct tolerances {
    double inner_loss, grad_norm, theta_end, outer_loss, dsyn_x, dsyn_y, eigenvalues;
};
struct case_file {
    int image[3], classes;
    struct network_spec network;
    struct optimizer_spec inner;
    int steps, window;
    int labels; /* enum set_labels */
    struct tolerances tolerance;
};

#define AT(member) offsetof(struct case_file, member)
#define TOLERANCE(key) \
    { "tolerance." #key, KEY_REAL, AT(tolerance.key), .least = 0, .most = 1, .standard = "1e-5" }

static const struct schema_key keys[] = {
    {"image", KEY_INTS, AT(image), .items = 3, .least = 1, .most = 4096, .help = "channels, height, width"},
    {"classes", KEY_INT, AT(classes), .least = 2, .most = 1e6, .help = "number of classes"},
    {"network.kind", KEY_CHOICE, AT(network.kind), .words = words_network_kind, .help = "convnet or mlp"},
    {"network.depth", KEY_INT, AT(network.depth), .least = 0, .most = NETWORK_MAX_DEPTH, .help = "blocks"},
    {"network.width", KEY_INT, AT(network.width), .least = 1, .most = 65536, .help = "channels or units"},
    {"network.norm", KEY_CHOICE, AT(network.norm), .words = words_norm, .standard = "none"},
    {"network.groups", KEY_INT, AT(network.groups), .least = 1, .most = 65536, .standard = "1"},
    {"network.activation", KEY_CHOICE, AT(network.activation), .words = words_activation, .standard = "relu"},
    {"network.pool", KEY_CHOICE, AT(network.pool), .words = words_pool, .standard = "average"},
    {"inner.optimizer", KEY_CHOICE, AT(inner.kind), .words = words_optimizer, .help = "sgd or adam"},
    {"inner.lr", KEY_REAL, AT(inner.lr), .least = 0, .most = KEY_UNBOUNDED, .open = OPEN_LEAST,
     .help = "learning rate"},
    {"inner.betas", KEY_REALS, AT(inner.beta1), .items = 2, .least = 0, .most = 1, .open = OPEN_MOST,
     .standard = "[0.9, 0.999]"},
    {"inner.eps", KEY_REAL, AT(inner.eps), .least = 0, .most = KEY_UNBOUNDED, .open = OPEN_LEAST, .standard = "1e-8"},
    {"inner.momentum", KEY_REAL, AT(inner.momentum), .least = 0, .most = 1, .open = OPEN_MOST, .standard = "0"},
    {"inner.weight_decay", KEY_REAL, AT(inner.weight_decay), .least = 0, .most = KEY_UNBOUNDED, .standard = "0"},
    {"steps", KEY_INT, AT(steps), .least = 1, .most = 1e6, .help = "inner steps"},
    {"window", KEY_INT, AT(window), .least = 1, .most = 1e6, .help = "back-propagated steps"},
    {"labels", KEY_CHOICE, AT(labels), .words = words_labels, .help = "hard or soft"},
    TOLERANCE(inner_loss),
    TOLERANCE(grad_norm),
    TOLERANCE(theta_end),
    TOLERANCE(outer_loss),
    TOLERANCE(dsyn_x),
    TOLERANCE(dsyn_y),
    {"tolerance.hessian_eigenvalues", KEY_REAL, AT(tolerance.eigenvalues), .least = 0, .most = 1, .standard = "1e-4"},
};
static const struct schema schema = {keys, sizeof keys / sizeof *keys};

/* --- arrays of a case --- */
struct loaded {
    struct case_file file;
    struct check_case problem;
    float *theta0, *images, *soft, *real_images;
    int32_t *hard, *batches, *real_labels;
};

static void loaded_finish(struct loaded *loaded) {
    free(loaded->theta0);
    free(loaded->images);
    free(loaded->soft);
    free(loaded->real_images);
    free(loaded->hard);
    free(loaded->batches);
    free(loaded->real_labels);
    *loaded = (struct loaded){0};
}

/* Reads FOLDER/NAME.npy and checks its shape; sizes of -1 are taken as they come and written back. */
static int read_shaped(const char *folder, const char *name, int rank, int64_t *size, struct npy *npy) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX], file[96];
    bool read = false;
    snprintf(file, sizeof file, "%s.npy", name);
    TRY(path_join(folder, file, path));
    TRY(npy_read(path, npy));
    read = true;
    bool fits = npy->rank == rank;
    for (int i = 0; fits && i < rank; i++) fits = size[i] < 0 ? npy->size[i] >= 1 : npy->size[i] == size[i];
    if (!fits) {
        char found[128] = "", wanted[128] = "";
        for (int i = 0; i < npy->rank; i++)
            snprintf(found + strlen(found), sizeof found - strlen(found), "%s%lld", i ? "," : "",
                     (long long)npy->size[i]);
        for (int i = 0; i < rank; i++)
            snprintf(wanted + strlen(wanted), sizeof wanted - strlen(wanted), size[i] < 0 ? "%s*" : "%s%lld",
                     i ? "," : "", (long long)size[i]);
        RAISE(RETORT_EFORMAT, "%s: found shape [%s], expected [%s]", path, found, wanted);
    }
    for (int i = 0; i < rank; i++) size[i] = npy->size[i];
done:
    if (status < 0 && read) npy_finish(npy);
    return status;
}

static int read_floats(const char *folder, const char *name, int rank, int64_t *size, float **values) {
    struct npy npy;
    int status = read_shaped(folder, name, rank, size, &npy);
    if (status < 0) return status;
    status = npy_to_float(&npy, name, values);
    npy_finish(&npy);
    return status;
}

/* Integers of [0, bound). */
static int read_rows(const char *folder, const char *name, int rank, int64_t *size, int64_t bound, int32_t **values) {
    int status = RETORT_OK;
    struct npy npy = {0};
    int32_t *rows = NULL;
    TRY(read_shaped(folder, name, rank, size, &npy));
    TRY(npy_to_int(&npy, name, &rows));
    for (int64_t i = 0; i < npy_count(&npy); i++)
        if (rows[i] < 0 || rows[i] >= bound)
            RAISE(RETORT_EFORMAT, "%s/%s.npy: found %d at item %lld, expected 0 to %lld", folder, name, rows[i],
                  (long long)i, (long long)bound - 1);
    *values = rows;
    rows = NULL;
done:
    free(rows);
    npy_finish(&npy);
    return status;
}

static int load_case(const char *folder, struct loaded *loaded) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    unsigned char *text = NULL;
    size_t size;
    struct arena arena;
    struct case_file *file = &loaded->file;
    struct check_case *problem = &loaded->problem;
    arena_init(&arena);
    TRY(path_join(folder, "case.yaml", path));
    TRY(file_read(path, 1 << 20, &text, &size));
    TRY(schema_read(&schema, path, folder, (const char *)text, size, NULL, 0, &arena, file, NULL));
    if (file->window > file->steps)
        RAISE(RETORT_EINVAL, "%s: a window of %d does not fit into %d steps", path, file->window, file->steps);
    int channels = file->image[0], height = file->image[1], width = file->image[2];
    TRY(network_describe(&file->network, channels, height, width, file->classes, &problem->network));
    problem->optimizer = file->inner;
    problem->steps = file->steps;
    problem->window = file->window;

    int64_t theta[] = {problem->network.theta_count};
    TRY(read_floats(folder, "theta0", 1, theta, &loaded->theta0));
    int64_t images[] = {-1, channels, height, width};
    TRY(read_floats(folder, "syn_x", 4, images, &loaded->images));
    problem->synthetic_count = images[0];
    int64_t labels[] = {problem->synthetic_count, file->classes};
    if (file->labels == LABELS_SOFT)
        TRY(read_floats(folder, "syn_y", 2, labels, &loaded->soft));
    else
        TRY(read_rows(folder, "syn_y", 1, labels, file->classes, &loaded->hard));
    int64_t batches[] = {file->steps, -1};
    TRY(read_rows(folder, "batches", 2, batches, problem->synthetic_count, &loaded->batches));
    problem->batch_count = batches[1];
    int64_t real[] = {-1, channels, height, width};
    TRY(read_floats(folder, "real_x", 4, real, &loaded->real_images));
    problem->real_count = real[0];
    TRY(read_rows(folder, "real_y", 1, real, file->classes, &loaded->real_labels));

    int64_t eigenvalues[] = {-1};
    struct npy expected;
    TRY(path_join(folder, "expect_hessian_eigenvalues.npy", path));
    if (file_exists(path)) {
        TRY(read_shaped(folder, "expect_hessian_eigenvalues", 1, eigenvalues, &expected));
        npy_finish(&expected);
        if (eigenvalues[0] > LANCZOS_MAX_RANK)
            RAISE(RETORT_EUNSUPPORTED, "%s: more than %d eigenvalues", path, LANCZOS_MAX_RANK);
        problem->eigenvalue_count = (int)eigenvalues[0];
    }
    problem->theta0 = loaded->theta0;
    problem->synthetic_images = loaded->images;
    problem->soft_labels = loaded->soft;
    problem->hard_labels = loaded->hard;
    problem->batches = loaded->batches;
    problem->real_images = loaded->real_images;
    problem->real_labels = loaded->real_labels;
done:
    free(text);
    arena_finish(&arena);
    return status;
}

/* --- comparing --- */
struct tally {
    const char *folder; /* as it was given, without slashes at its end */
    bool json;
    json_t *rows;
    int failures;
};

static double element(const struct npy *npy, int64_t i) {
    return npy->type == NPY_FLOAT64 ? ((const double *)npy->data)[i] : (double)((const float *)npy->data)[i];
}

/* Compares with FOLDER/expect_NAME.npy, of `count` numbers in any shape. Exactly one of `doubles` and `floats` is
 * given; entries with skip[i] are left out. */
static int compare(struct tally *tally, const char *name, double tolerance, int64_t count, const double *doubles,
                   const float *floats, const bool *skip) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX], file[96];
    struct npy expected = {0};
    snprintf(file, sizeof file, "expect_%s.npy", name);
    TRY(path_join(tally->folder, file, path));
    TRY(npy_read(path, &expected));
    if (expected.type != NPY_FLOAT64 && expected.type != NPY_FLOAT32)
        RAISE(RETORT_EFORMAT, "%s: expected floating-point numbers", path);
    if (npy_count(&expected) != count)
        RAISE(RETORT_EFORMAT, "%s: found %lld numbers, expected %lld", path, (long long)npy_count(&expected),
              (long long)count);
    double difference = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        if (skip && skip[i]) continue;
        double got = doubles ? doubles[i] : (double)floats[i], wanted = element(&expected, i);
        double apart = fabs(got - wanted);
        if (!(apart <= difference)) difference = isnan(apart) ? INFINITY : apart;
        if (fabs(wanted) > largest) largest = fabs(wanted);
    }
    double error = difference == 0 ? 0 : difference / largest;
    bool ok = error <= tolerance;
    tally->failures += !ok;
    if (tally->json)
        json_array_append_new(tally->rows,
                              json_pack("{s:s, s:s, s:o, s:f, s:b}", "case", tally->folder, "quantity", name,
                                        "relative_error", isfinite(error) ? json_real(error) : json_null(), "tolerance",
                                        tolerance, "ok", ok));
    else {
        printf("%s %s %.2e %s\n", tally->folder, name, error, ok ? "ok" : "FAIL");
        fflush(stdout);
    }
done:
    npy_finish(&expected);
    return status;
}

/* Convolution biases that a norm cancels: their gradient is exactly zero, other frameworks turn rounding noise into
 * steps there, so their final values say nothing. */
static bool *dead_entries(const struct network *network) {
    bool *dead = calloc((size_t)network->theta_count, sizeof *dead);
    for (int i = 0; dead && i < network->parameter_count; i++) {
        const struct network_parameter *parameter = &network->parameters[i];
        for (int64_t j = 0; parameter->dead && j < parameter->count; j++) dead[parameter->offset + j] = true;
    }
    return dead;
}

static int check_folder(struct library *library, struct tally *tally) {
    int status = RETORT_OK;
    struct loaded loaded = {0};
    struct check_result result = {0};
    bool *dead = NULL;
    TRY(load_case(tally->folder, &loaded));
    const struct check_case *problem = &loaded.problem;
    const struct tolerances *tolerance = &loaded.file.tolerance;
    TRY(check_case(library, problem, &result));
    dead = dead_entries(&problem->network);
    if (!dead) RAISE(RETORT_ENOMEM, "out of memory");
    int64_t classes = problem->network.classes, steps = problem->steps;
    int64_t pixels = (int64_t)loaded.file.image[0] * loaded.file.image[1] * loaded.file.image[2];
    TRY(compare(tally, "inner_loss", tolerance->inner_loss, steps, result.inner_loss, NULL, NULL));
    TRY(compare(tally, "grad_norm", tolerance->grad_norm, steps, result.grad_norm, NULL, NULL));
    TRY(compare(tally, "theta_end", tolerance->theta_end, problem->network.theta_count, NULL, result.theta_end, dead));
    TRY(compare(tally, "outer_loss", tolerance->outer_loss, 1, &result.outer_loss, NULL, NULL));
    TRY(compare(tally, "dsyn_x", tolerance->dsyn_x, problem->synthetic_count * pixels, NULL, result.dsyn_x, NULL));
    if (problem->soft_labels)
        TRY(compare(tally, "dsyn_y", tolerance->dsyn_y, problem->synthetic_count * classes, NULL, result.dsyn_y, NULL));
    if (problem->eigenvalue_count)
        TRY(compare(tally, "hessian_eigenvalues", tolerance->eigenvalues, problem->eigenvalue_count, result.eigenvalues,
                    NULL, NULL));
done:
    if (status < 0) error_context("%s", tally->folder);
    free(dead);
    check_result_finish(&result);
    loaded_finish(&loaded);
    return status;
}

/* Every case, also after one that cannot be read. Returns the exit status. */
static int check_all(const struct options *options, enum family family, struct tally *tally) {
    struct device *device = NULL;
    int status = device_open(options->value[OPTION_DEVICE], &device);
    if (status < 0) return report_failure("check", status);
    int exit_status = EXIT_DONE;
    for (int i = 0; i < options->operand_count; i++) {
        struct library *library = NULL;
        char folder[FILE_PATH_MAX];
        snprintf(folder, sizeof folder, "%s", options->operands[i]);
        for (size_t n = strlen(folder); n > 1 && folder[n - 1] == '/'; n--) folder[n - 1] = '\0';
        tally->folder = folder;
        status = library_create(device, family, &library);
        if (status == RETORT_OK) status = check_folder(library, tally);
        library_destroy(library);
        if (status < 0) {
            int failed = report_failure("check", status);
            if (exit_status == EXIT_DONE) exit_status = failed;
        }
    }
    device_close(device);
    return exit_status;
}

int command_check(int argc, char **argv) {
    int exit_status = EXIT_DONE;
    struct options options;
    struct tally tally = {0};
    enum family family = FAMILY_AUTO;
    unsigned long allowed =
        OPTION_BIT(OPTION_DEVICE) | OPTION_BIT(OPTION_FAMILY) | OPTION_BIT(OPTION_JSON) | OPTION_BIT(OPTION_QUIET);
    if (!options_parse("check", help, allowed, argc, argv, &options, &exit_status)) goto leave;
    if (options.operand_count == 0) {
        exit_status = usage_error("check", "which cases? Name folders that hold a case.yaml");
        goto leave;
    }
    if (!options_family("check", &options, &family)) {
        exit_status = EXIT_USAGE;
        goto leave;
    }
    tally.json = options.given[OPTION_JSON];
    tally.rows = json_array();
    exit_status = check_all(&options, family, &tally);
    if (tally.json) {
        json_dumpf(tally.rows, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    if (tally.failures) fprintf(stderr, "retort check: %d out of tolerance\n", tally.failures);
    if (tally.failures && exit_status == EXIT_DONE) exit_status = EXIT_FAILED;
leave:
    json_decref(tally.rows);
    options_finish(&options);
    return exit_status;
}
