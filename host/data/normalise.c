/* The map from pixels to the space the networks train in: per-channel mean and sd, and the two whitenings that must not
 * be mixed:
 *   KIP (Nguyen, Chen and Lee 2021; RaT-BPTT's code): every image minus its mean and over its norm; second moment about
 *     the origin, over N; eigenvalues + 0.1 x their mean. No mean image.
 *   PIXEL (kornia's ZCAWhitening as MTT uses it): minus the mean image; covariance over N - 1; eigenvalues + 0.1.
 * Statistics and eigenvectors are in double precision, the map itself in float. The matrix work is BLAS's and LAPACK's:
 * with a tuned BLAS, CIFAR-10 takes seconds. */
#include "data/readers.h"

#include "base/error.h"
#include "base/log.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BLOCK = 512,     /* images per matrix product */
    MANY = 10000,    /* images whose whitening is worth a progress line */
    ZCA_MAX = 16384, /* values of an image: beyond, the matrices take more than 8 GiB */
};
static const double zca_regularisation = 0.1;
const char *const normalise_words[] = {
    [NORMALISE_NONE] = "none",
    [NORMALISE_MEAN_SD] = "mean_sd",
    [NORMALISE_ZCA_KIP] = "zca",
    [NORMALISE_ZCA_PIXEL] = "zca_pixel",
    NULL,
};
enum { KIND_COUNT = sizeof normalise_words / sizeof *normalise_words - 1 };
/* What normalisation.npz called NORMALISE_ZCA_KIP in the first sets; descriptors always said zca. */
static const char former_zca[] = "zca_kip";

void normalisation_finish(struct normalisation *normalisation) {
    if (!normalisation) return;
    free(normalisation->mean);
    free(normalisation->sd);
    free(normalisation->whiten);
    free(normalisation->unwhiten);
    *normalisation = (struct normalisation){0};
}

static bool is_zca(enum normalise_kind kind) {
    return kind == NORMALISE_ZCA_KIP || kind == NORMALISE_ZCA_PIXEL;
}

static size_t image_size(const struct normalisation *normalisation) {
    return (size_t)normalisation->channels * (size_t)normalisation->height * (size_t)normalisation->width;
}

/* The per-image step of KIP: zero mean, unit norm. A flat image, which has no direction, becomes zero. */
static double image_mean(const float *image, size_t size) {
    double sum = 0;
    for (size_t i = 0; i < size; i++) sum += image[i];
    return sum / (double)size;
}

static double image_scale(const float *image, size_t size, double mean) {
    double squares = 0;
    for (size_t i = 0; i < size; i++) squares += (image[i] - mean) * (image[i] - mean);
    return squares > 0 ? 1 / sqrt(squares) : 0;
}

/* --- fitting --- */

static int fit_mean_sd(const struct dataset *train, struct normalisation *normalisation) {
    int status = RETORT_OK;
    size_t plane = (size_t)train->height * (size_t)train->width, channels = (size_t)train->channels;
    double pixels = (double)plane * (double)train->count;
    normalisation->mean = calloc(channels, sizeof(double));
    normalisation->sd = calloc(channels, sizeof(double));
    if (!normalisation->mean || !normalisation->sd) RAISE(RETORT_ENOMEM, "out of memory for the normalisation");
    for (size_t c = 0; c < channels; c++) {
        const float *first = train->images + c * plane;
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < train->count; i++) sum += image_mean(first + (size_t)i * channels * plane, plane);
        double mean = sum / (double)train->count;
        for (int64_t i = 0; i < train->count; i++) {
            const float *image = first + (size_t)i * channels * plane;
            for (size_t j = 0; j < plane; j++) squares += (image[j] - mean) * (image[j] - mean);
        }
        normalisation->mean[c] = mean;
        normalisation->sd[c] = sqrt(squares / pixels);
        if (!(normalisation->sd[c] > 0) || !isfinite(normalisation->sd[c]))
            RAISE(RETORT_EINVAL,
                  "channel %zu of the training images has mean %g and sd %g, so it cannot be normalised; "
                  "use normalise: none",
                  c, mean, normalisation->sd[c]);
    }
done:
    return status;
}

static int fit_mean_image(const struct dataset *train, size_t size, double **mean) {
    double *sum = calloc(size, sizeof *sum);
    if (!sum) return error_set(RETORT_ENOMEM, "out of memory for the mean image");
    for (int64_t i = 0; i < train->count; i++)
        for (size_t j = 0; j < size; j++) sum[j] += train->images[(size_t)i * size + j];
    for (size_t j = 0; j < size; j++) sum[j] /= (double)train->count;
    *mean = sum;
    return RETORT_OK;
}

/* The upper triangle (row-major) of the scatter matrix over `divisor`, of images less the mean image, or, without one,
 * after KIP's per-image step. */
static int scatter(const struct dataset *train, size_t size, const double *mean, double divisor, double *out) {
    double *block = malloc(BLOCK * size * sizeof *block);
    if (!block) return error_set(RETORT_ENOMEM, "out of memory for the whitening");
    memset(out, 0, size * size * sizeof *out);
    struct progress progress;
    progress_begin(&progress, "covariance of images", 0, train->count);
    for (int64_t begin = 0; begin < train->count; begin += BLOCK) {
        size_t rows = (size_t)(train->count - begin < BLOCK ? train->count - begin : BLOCK);
        for (size_t i = 0; i < rows; i++) {
            const float *image = train->images + ((size_t)begin + i) * size;
            double *row = block + i * size;
            if (mean)
                for (size_t j = 0; j < size; j++) row[j] = image[j] - mean[j];
            else {
                double centre = image_mean(image, size), scale = image_scale(image, size, centre);
                for (size_t j = 0; j < size; j++) row[j] = (image[j] - centre) * scale;
            }
        }
        cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)size, (int)rows, 1 / divisor, block, (int)size, 1, out,
                    (int)size);
        if (train->count >= MANY) progress_update(&progress, begin + (int64_t)rows, NULL);
    }
    progress_end(&progress);
    free(block);
    return RETORT_OK;
}

/* vectors x diag(scales^2) x vectors^T as floats, exactly symmetric. vectors: one unit eigenvector a row. */
static int compose(const double *vectors, const double *scales, size_t size, float **matrix) {
    int status = RETORT_OK;
    double *scaled = malloc(size * size * sizeof *scaled), *product = malloc(size * size * sizeof *product);
    float *result = malloc(size * size * sizeof *result);
    if (!scaled || !product || !result) RAISE(RETORT_ENOMEM, "out of memory for the whitening");
    memcpy(scaled, vectors, size * size * sizeof *scaled);
    for (size_t i = 0; i < size; i++)
        for (size_t j = 0; j < size; j++) scaled[i * size + j] *= scales[i];
    cblas_dsyrk(CblasRowMajor, CblasUpper, CblasTrans, (int)size, (int)size, 1, scaled, (int)size, 0, product,
                (int)size);
    for (size_t i = 0; i < size; i++)
        for (size_t j = i; j < size; j++) result[i * size + j] = result[j * size + i] = (float)product[i * size + j];
    *matrix = result;
    result = NULL;
done:
    free(scaled);
    free(product);
    free(result);
    return status;
}

static int fit_zca(enum normalise_kind kind, const struct dataset *train, struct normalisation *normalisation) {
    int status = RETORT_OK;
    size_t size = image_size(normalisation);
    double *matrix = NULL, *values = NULL;
    if (size > ZCA_MAX)
        RAISE(RETORT_EUNSUPPORTED,
              "whitening images of %zu values needs a matrix of that size squared; at most %d are "
              "supported: use smaller images or normalise: mean_sd",
              size, ZCA_MAX);
    if (train->count < 2)
        RAISE(RETORT_EINVAL, "whitening needs at least 2 training images; there is %lld", (long long)train->count);
    double begun = clock_seconds();
    matrix = malloc(size * size * sizeof *matrix);
    values = malloc(size * sizeof *values);
    if (!matrix || !values) RAISE(RETORT_ENOMEM, "out of memory for the whitening");
    if (kind == NORMALISE_ZCA_PIXEL) {
        TRY(fit_mean_image(train, size, &normalisation->mean));
        TRY(scatter(train, size, normalisation->mean, (double)train->count - 1, matrix));
    } else
        TRY(scatter(train, size, NULL, (double)train->count, matrix));
    /* Column-major, the row-major upper triangle is the lower one; eigenvectors come out one a row. */
    int code = LAPACKE_dsyevd(LAPACK_COL_MAJOR, 'V', 'L', (int)size, matrix, (int)size, values);
    if (code != 0)
        RAISE(RETORT_ENUMERIC,
              "the eigenvalues of the training images' covariance were not found (LAPACK dsyevd: %d); "
              "are all pixels finite?",
              code);
    double mean = 0;
    for (size_t i = 0; i < size; i++) {
        if (values[i] < 0) values[i] = 0; /* rounding: the matrix is a sum of squares */
        mean += values[i] / (double)size;
    }
    double added = kind == NORMALISE_ZCA_KIP ? zca_regularisation * mean : zca_regularisation;
    if (!(added > 0)) RAISE(RETORT_EINVAL, "every training image is of one flat colour: there is nothing to whiten");
    /* compose() squares its scales: fourth roots here. */
    for (size_t i = 0; i < size; i++) values[i] = pow(values[i] + added, -0.25);
    TRY(compose(matrix, values, size, &normalisation->whiten));
    for (size_t i = 0; i < size; i++) values[i] = 1 / values[i];
    TRY(compose(matrix, values, size, &normalisation->unwhiten));
    log_debug("whitening of %zu values from %lld images: %.1f s", size, (long long)train->count,
              clock_seconds() - begun);
done:
    free(matrix);
    free(values);
    return status;
}

int normalisation_fit(enum normalise_kind kind, const struct dataset *train, struct normalisation *normalisation) {
    int status = RETORT_OK;
    struct normalisation result = {
        .kind = kind, .channels = train->channels, .height = train->height, .width = train->width};
    switch (kind) {
    case NORMALISE_NONE:
        break;
    case NORMALISE_MEAN_SD:
        TRY(fit_mean_sd(train, &result));
        break;
    case NORMALISE_ZCA_KIP:
    case NORMALISE_ZCA_PIXEL:
        TRY(fit_zca(kind, train, &result));
        break;
    default:
        RAISE(RETORT_EINVAL, "unknown normalisation %d", kind);
    }
    *normalisation = result;
    result = (struct normalisation){0};
done:
    normalisation_finish(&result);
    return status;
}

/* --- applying --- */

static void apply_mean_sd(const struct normalisation *normalisation, float *images, int64_t count, bool forward) {
    size_t plane = (size_t)normalisation->height * (size_t)normalisation->width;
    for (int64_t i = 0; i < count; i++)
        for (int c = 0; c < normalisation->channels; c++, images += plane) {
            double mean = normalisation->mean[c], sd = normalisation->sd[c];
            for (size_t j = 0; j < plane; j++)
                images[j] = (float)(forward ? (images[j] - mean) / sd : images[j] * sd + mean);
        }
}

static int apply_zca(const struct normalisation *normalisation, float *images, int64_t count, bool forward) {
    size_t size = image_size(normalisation);
    const double *mean = normalisation->mean;
    float *block = malloc(BLOCK * size * sizeof *block);
    if (!block) return error_set(RETORT_ENOMEM, "out of memory for the whitening");
    struct progress progress;
    progress_begin(&progress, forward ? "whitening images" : "unwhitening images", 0, count);
    for (int64_t begin = 0; begin < count; begin += BLOCK) {
        size_t rows = (size_t)(count - begin < BLOCK ? count - begin : BLOCK);
        float *first = images + (size_t)begin * size;
        memcpy(block, first, rows * size * sizeof *block);
        for (size_t i = 0; forward && i < rows; i++) {
            float *row = block + i * size;
            if (normalisation->kind == NORMALISE_ZCA_KIP) {
                double centre = image_mean(row, size), scale = image_scale(row, size, centre);
                for (size_t j = 0; j < size; j++) row[j] = (float)((row[j] - centre) * scale);
            } else
                for (size_t j = 0; j < size; j++) row[j] = (float)(row[j] - mean[j]);
        }
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)rows, (int)size, (int)size, 1, block, (int)size,
                    forward ? normalisation->whiten : normalisation->unwhiten, (int)size, 0, first, (int)size);
        for (size_t i = 0; !forward && mean && i < rows; i++)
            for (size_t j = 0; j < size; j++) first[i * size + j] = (float)(first[i * size + j] + mean[j]);
        if (count >= MANY) progress_update(&progress, begin + (int64_t)rows, NULL);
    }
    progress_end(&progress);
    free(block);
    return RETORT_OK;
}

static int apply(const struct normalisation *normalisation, float *images, int64_t count, bool forward) {
    if (is_zca(normalisation->kind)) return apply_zca(normalisation, images, count, forward);
    if (normalisation->kind == NORMALISE_MEAN_SD) apply_mean_sd(normalisation, images, count, forward);
    return RETORT_OK;
}

int normalisation_apply(const struct normalisation *normalisation, float *images, int64_t count) {
    return apply(normalisation, images, count, true);
}

int normalisation_undo(const struct normalisation *normalisation, float *images, int64_t count, bool *exact) {
    int status = RETORT_OK;
    TRY(apply(normalisation, images, count, false));
    *exact = normalisation->kind != NORMALISE_ZCA_KIP;
done:
    return status;
}

static void fit_range(float *image, size_t count, bool exact) {
    float least = 0, most = 1;
    if (!exact) {
        least = INFINITY;
        most = -INFINITY;
        for (size_t i = 0; i < count; i++) {
            least = fminf(least, image[i]);
            most = fmaxf(most, image[i]);
        }
    }
    float scale = most > least ? 1 / (most - least) : 0;
    for (size_t i = 0; i < count; i++) image[i] = fminf(fmaxf((image[i] - least) * scale, 0), 1);
}

int normalisation_show(const struct normalisation *normalisation, float *images, int64_t count, bool *exact) {
    int status = RETORT_OK;
    size_t size = image_size(normalisation);
    TRY(normalisation_undo(normalisation, images, count, exact));
    for (int64_t i = 0; i < count; i++) fit_range(images + (size_t)i * size, size, *exact);
done:
    return status;
}

/* --- keeping --- */

void normalisation_arrays(const struct normalisation *normalisation, struct normalisation_arrays *arrays) {
    const char *kind = normalise_words[normalisation->kind];
    bool zca = is_zca(normalisation->kind);
    int64_t size = (int64_t)image_size(normalisation);
    *arrays =
        (struct normalisation_arrays){.count = 2,
                                      .shape = {normalisation->channels, normalisation->height, normalisation->width},
                                      .kind_size = (int64_t)strlen(kind),
                                      .three = 3,
                                      .channels = normalisation->channels,
                                      .size = size,
                                      .square = {size, size}};
    struct npy_member *members = arrays->members;
    size_t *count = &arrays->count;
    members[0] = (struct npy_member){"kind", NPY_UINT8, 1, &arrays->kind_size, kind};
    members[1] = (struct npy_member){"shape", NPY_INT32, 1, &arrays->three, arrays->shape};
    if (normalisation->mean)
        members[(*count)++] =
            (struct npy_member){"mean", NPY_FLOAT64, 1, zca ? &arrays->size : &arrays->channels, normalisation->mean};
    if (normalisation->sd)
        members[(*count)++] = (struct npy_member){"sd", NPY_FLOAT64, 1, &arrays->channels, normalisation->sd};
    if (zca) {
        members[(*count)++] = (struct npy_member){"whiten", NPY_FLOAT32, 2, arrays->square, normalisation->whiten};
        members[(*count)++] = (struct npy_member){"unwhiten", NPY_FLOAT32, 2, arrays->square, normalisation->unwhiten};
    }
}

int normalisation_save(const struct normalisation *normalisation, const char *path) {
    struct normalisation_arrays arrays;
    normalisation_arrays(normalisation, &arrays);
    return npz_write(path, arrays.members, arrays.count);
}

static int read_member(const struct array_file *file, const char *name, struct npy *npy) {
    char whole[64];
    snprintf(whole, sizeof whole, "%s%s", file->prefix, name);
    return file->read(file->path, whole, npy);
}

/* A member of an exact type and shape, all of it finite; the caller gets its data. */
static int load_member(const struct array_file *file, const char *name, enum npy_type type, int rank,
                       const int64_t *size, void *data_pointer) {
    int status = RETORT_OK;
    struct npy npy = {0};
    float *finite = NULL;
    const char *path = file->path;
    TRY(read_member(file, name, &npy));
    if (npy.type != type || npy.rank != rank || memcmp(npy.size, size, (size_t)rank * sizeof *size) != 0)
        RAISE(RETORT_EFORMAT,
              "%s: the member '%s' has not the type and shape of this normalisation; the file is damaged", path, name);
    TRY(npy_to_float(&npy, path, &finite));
    memcpy(data_pointer, &npy.data, sizeof npy.data);
    npy.data = NULL;
done:
    npy_finish(&npy);
    free(finite);
    return status;
}

static bool is_word(const struct npy *npy, const char *word) {
    return npy->type == NPY_UINT8 && (size_t)npy_count(npy) == strlen(word)
           && memcmp(npy->data, word, strlen(word)) == 0;
}

int normalisation_load(const char *path, struct normalisation *normalisation) {
    return normalisation_read(&(struct array_file){path, "", npy_read_member}, normalisation);
}

int normalisation_read(const struct array_file *file, struct normalisation *normalisation) {
    int status = RETORT_OK;
    const char *path = file->path;
    struct normalisation result = {0};
    struct npy kind = {0};
    int32_t *shape = NULL;
    TRY(read_member(file, "kind", &kind));
    int found = 0;
    while (found < KIND_COUNT && !is_word(&kind, normalise_words[found])) found++;
    if (is_word(&kind, former_zca)) found = NORMALISE_ZCA_KIP;
    if (found == KIND_COUNT)
        RAISE(RETORT_EFORMAT,
              "%s: the member 'kind' names no known normalisation; expected none, mean_sd, zca or zca_pixel", path);
    result.kind = (enum normalise_kind)found;
    TRY(load_member(file, "shape", NPY_INT32, 1, (int64_t[]){3}, &shape));
    int64_t size;
    for (int i = 0; i < 3; i++)
        if (shape[i] < 1) RAISE(RETORT_EFORMAT, "%s: images of %d x %d x %d", path, shape[0], shape[1], shape[2]);
    if (!claim_count(3, (int64_t[]){shape[0], shape[1], shape[2]}, sizeof(double), &size)
        || (is_zca(result.kind) && size > ZCA_MAX))
        RAISE(RETORT_EFORMAT, "%s: images of %d x %d x %d", path, shape[0], shape[1], shape[2]);
    result.channels = shape[0];
    result.height = shape[1];
    result.width = shape[2];
    if (result.kind == NORMALISE_MEAN_SD) {
        TRY(load_member(file, "mean", NPY_FLOAT64, 1, (int64_t[]){shape[0]}, &result.mean));
        TRY(load_member(file, "sd", NPY_FLOAT64, 1, (int64_t[]){shape[0]}, &result.sd));
        for (int c = 0; c < shape[0]; c++)
            if (!(result.sd[c] > 0)) RAISE(RETORT_EFORMAT, "%s: the sd of channel %d is %g", path, c, result.sd[c]);
    } else if (is_zca(result.kind)) {
        if (result.kind == NORMALISE_ZCA_PIXEL) TRY(load_member(file, "mean", NPY_FLOAT64, 1, &size, &result.mean));
        TRY(load_member(file, "whiten", NPY_FLOAT32, 2, (int64_t[]){size, size}, &result.whiten));
        TRY(load_member(file, "unwhiten", NPY_FLOAT32, 2, (int64_t[]){size, size}, &result.unwhiten));
    }
    *normalisation = result;
    result = (struct normalisation){0};
done:
    npy_finish(&kind);
    free(shape);
    normalisation_finish(&result);
    return status;
}
