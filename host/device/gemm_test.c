/* Whether a library's matrix products can be trusted on a device: odd sizes, and what stands around the operands. */
#include "device/gemm.h"

#include "device/internal.h"

#include "base/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GUARD = 64 }; /* elements before and after each operand */

static const struct gemm products[] = {
    {.batch = 1, .m = 1, .n = 1, .k = 1},      {.batch = 1, .m = 1, .n = 17, .k = 129},
    {.batch = 1, .m = 3, .n = 100, .k = 1},    {.batch = 1, .m = 17, .n = 1, .k = 33},
    {.batch = 1, .m = 31, .n = 33, .k = 64},   {.batch = 1, .m = 33, .n = 31, .k = 17},
    {.batch = 1, .m = 64, .n = 64, .k = 64},   {.batch = 1, .m = 64, .n = 129, .k = 3},
    {.batch = 1, .m = 100, .n = 3, .k = 129},  {.batch = 1, .m = 129, .n = 100, .k = 31},
    {.batch = 1, .m = 129, .n = 129, .k = 33}, {.batch = 3, .m = 17, .n = 33, .k = 31},
    {.batch = 2, .m = 64, .n = 1, .k = 100},
};
enum { PRODUCTS = sizeof products / sizeof *products };

/* The first is the one that is used. */
static const float factors[][2] = {{1, 0},       {0, 0},    {0, 0.5f}, {0, 1}, {0.5f, 0},
                                   {0.5f, 0.5f}, {0.5f, 1}, {1, 0.5f}, {1, 1}};
enum { FACTORS = sizeof factors / sizeof *factors };

/* The memory of a product, all operands in one buffer, as they lie in the arena of an executable. */
struct image {
    float *given, *left; /* before and after it */
    size_t count, at[GEMM_OPERANDS];
};

static int image_create(const struct gemm *gemm, struct image *image) {
    size_t end = 0;
    struct image fresh;
    struct random random = random_begin(1, RANDOM_TEST, (uint32_t)(gemm->m + gemm->n * 3 + gemm->k * 5));
    for (enum gemm_operand i = GEMM_C; i < GEMM_OPERANDS; i++) {
        fresh.at[i] = (end + GUARD) | 1; /* odd */
        end = fresh.at[i] + gemm_elements(gemm, i);
    }
    fresh.count = end + GUARD;
    fresh.given = malloc(fresh.count * sizeof *fresh.given);
    fresh.left = malloc(fresh.count * sizeof *fresh.left);
    *image = fresh;
    if (!fresh.given || !fresh.left) return error_set(RETORT_ENOMEM, "out of memory testing matrix products");
    /* What must not be read is no number, so that reading it shows. */
    for (size_t i = 0; i < fresh.count; i++) fresh.given[i] = NAN;
    for (enum gemm_operand i = gemm->beta == 0 ? GEMM_A : GEMM_C; i < GEMM_OPERANDS; i++)
        for (size_t k = 0; k < gemm_elements(gemm, i); k++)
            fresh.given[fresh.at[i] + k] = (float)random_normal(&random);
    return RETORT_OK;
}

static void image_finish(struct image *image) {
    free(image->given);
    free(image->left);
}

enum { WORDS = 256 };
static void describe(const struct gemm *g, char words[WORDS]) {
    snprintf(words, WORDS, "%zu x %zu%s by %zu x %zu%s (batch %zu, alpha %g, beta %g)", g->m, g->k,
             g->transpose_a ? " transposed" : "", g->k, g->n, g->transpose_b ? " transposed" : "", g->batch,
             (double)g->alpha, (double)g->beta);
}

/* Everything but the result is as it was. */
static int check_surroundings(const struct device *device, const struct gemm *gemm, const struct image *image) {
    const size_t begin = image->at[GEMM_C], end = begin + gemm_elements(gemm, GEMM_C);
    char words[WORDS];
    for (size_t i = 0; i < image->count; i++) {
        if ((i >= begin && i < end) || memcmp(&image->given[i], &image->left[i], sizeof(float)) == 0) continue;
        describe(gemm, words);
        if (i < begin || i < end + GUARD)
            return error_set(RETORT_EDEVICE, "%s on %s writes %zu elements %s the result of %s", device_gemm_library(),
                             device->traits.name, i < begin ? begin - i : i - end + 1, i < begin ? "before" : "behind",
                             words);
        return error_set(RETORT_EDEVICE, "%s on %s changes an operand of %s", device_gemm_library(),
                         device->traits.name, words);
    }
    return RETORT_OK;
}

/* One element in double precision, and how far float32 may be from it. */
static double element(const struct gemm *g, const struct image *image, size_t layer, size_t row, size_t column,
                      double *bound) {
    const float *a = image->given + image->at[GEMM_A] + layer * g->m * g->k;
    const float *b = image->given + image->at[GEMM_B] + layer * g->k * g->n;
    double c = g->beta == 0 ? 0 : (double)image->given[image->at[GEMM_C] + (layer * g->m + row) * g->n + column];
    double sum = 0, size = 0;
    for (size_t i = 0; i < g->k; i++) {
        double product = (double)a[g->transpose_a ? i * g->m + row : row * g->k + i]
                         * (double)b[g->transpose_b ? column * g->k + i : i * g->n + column];
        sum += product;
        size += fabs(product);
    }
    *bound = (double)(g->k + 8) * 0x1p-23 * (fabs((double)g->alpha) * size + fabs((double)g->beta * c));
    return (double)g->alpha * sum + (double)g->beta * c;
}

/* The row to check after this one: of small products the next, of large ones one at a distance that comes by every
 * place of a tile, and in the end the last. */
static size_t next_row(const struct gemm *gemm, size_t row) {
    enum { ROWS = 129 };
    size_t last = gemm->m - 1, step = gemm->m > ROWS ? gemm->m / ROWS * 2 + 1 : 1;
    return row < last && row + step > last ? last : row + step;
}

static int check_result(const struct device *device, const struct gemm *gemm, const struct image *image) {
    for (size_t layer = 0; layer < gemm->batch; layer++)
        for (size_t row = 0; row < gemm->m; row = next_row(gemm, row))
            for (size_t column = 0; column < gemm->n; column++) {
                double bound, right = element(gemm, image, layer, row, column, &bound);
                double found = (double)image->left[image->at[GEMM_C] + (layer * gemm->m + row) * gemm->n + column];
                char words[WORDS];
                if (fabs(found - right) <= bound) continue;
                describe(gemm, words);
                return error_set(RETORT_EDEVICE,
                                 "%s on %s computes element (%zu, %zu) of matrix %zu of %s as %.9g, expected %.9g",
                                 device_gemm_library(), device->traits.name, row, column, layer, words, found, right);
            }
    return RETORT_OK;
}

static int try_product(struct device *device, gemm_function *multiply, const struct gemm *gemm) {
    int status = RETORT_OK;
    struct image image = {0};
    struct device_buffer *buffer = NULL, *scratch = NULL;
    struct gemm_place places[GEMM_OPERANDS];
    TRY(image_create(gemm, &image));
    TRY(device_buffer_create(device, image.count * sizeof(float), "test of matrix products", &buffer));
    if (gemm->scratch) TRY(device_buffer_create(device, gemm->scratch, "test of matrix products", &scratch));
    for (enum gemm_operand i = GEMM_C; i < GEMM_OPERANDS; i++) places[i] = (struct gemm_place){buffer, image.at[i]};
    TRY(device_write(device, buffer, 0, image.count * sizeof(float), image.given));
    TRY(multiply(device, gemm, places, scratch));
    TRY(device_read(device, buffer, 0, image.count * sizeof(float), image.left));
    TRY(check_surroundings(device, gemm, &image));
    TRY(check_result(device, gemm, &image));
done:
    device_buffer_destroy(scratch);
    device_buffer_destroy(buffer);
    image_finish(&image);
    return status;
}

/* A product with all transposes, as it is used and with one other pair of factors each. */
static int try_transposes(struct device *device, gemm_function *multiply, const struct gemm *sizes, int number) {
    int status = RETORT_OK;
    for (int i = 0; i < 8; i++) {
        int pair = i / 4 ? 1 + (number * 4 + i) % (FACTORS - 1) : 0;
        struct gemm gemm = *sizes;
        gemm.transpose_a = i & 1, gemm.transpose_b = i & 2;
        gemm.alpha = factors[pair][0], gemm.beta = factors[pair][1];
        TRY(device_gemm_plan(device, &gemm));
        TRY(try_product(device, multiply, &gemm));
    }
done:
    return status;
}

/* A product that the library leaves to its kernels for large ones, those that want scratch memory; the smallest. */
static int find_large(struct device *device, struct gemm *large) {
    enum { LEAST = 129, MOST = 2049, STEP = 64 };
    int status = RETORT_OK;
    struct gemm gemm = {.batch = 1};
    for (size_t side = LEAST; side <= MOST && !gemm.scratch; side += STEP) {
        gemm.m = side, gemm.n = side + 2, gemm.k = side - 2;
        TRY(device_gemm_plan(device, &gemm));
    }
    *large = gemm;
done:
    return status;
}

int device_gemm_test(struct device *device, gemm_function *multiply) {
    int status = RETORT_OK;
    struct gemm large;
    for (int i = 0; i < PRODUCTS; i++) TRY(try_transposes(device, multiply, &products[i], i));
    TRY(find_large(device, &large));
    if (large.scratch) TRY(try_transposes(device, multiply, &large, PRODUCTS));
done:
    return status;
}
