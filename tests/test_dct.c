/* The two-dimensional DCT-II on the device, by matrix products and by the FFT of a library, against its definition in
 * double precision; who computes it, and what becomes of those who cannot. */
#include "graphs.h"
#include "test.h"

#include "base/log.h"
#include "device/fft.h"
#include "distill/dct.h"

#include <stdlib.h>

static struct device *device;

static int prepare(void **state) {
    (void)state;
    if (device_open(TEST_DEVICE, &device) < 0) return 0;
    return 0;
}

static int clean(void **state) {
    (void)state;
    device_close(device);
    return 0;
}

static void test_lengths(void **state) {
    (void)state;
    static const int taken[] = {2, 3, 28, 32, 45, 64, 77, 91, 125, 128, 130, 169, 224, 256, 1001};
    static const int not_taken[] = {-4, 0, 1, 17, 19, 34, 221, 289, 254};
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) assert_true(device_fft_takes(taken[i]));
    for (size_t i = 0; i < sizeof not_taken / sizeof *not_taken; i++) assert_false(device_fft_takes(not_taken[i]));
}

/* Each row [count,length] of `from` times the basis, or its transpose, into the columns of `to` [length,count]. */
static void transform_rows(const double *from, int count, int length, const double *basis, bool back, double *to) {
    for (int r = 0; r < count; r++)
        for (int k = 0; k < length; k++) {
            double sum = 0;
            for (int i = 0; i < length; i++)
                sum += from[r * length + i] * basis[back ? i * length + k : k * length + i];
            to[k * count + r] = sum;
        }
}

static double *basis_of(int length) {
    double *basis = calloc((size_t)(length * length), sizeof *basis);
    for (int k = 0; k < length; k++)
        for (int i = 0; i < length; i++) basis[k * length + i] = dct_cosine(length, k, i);
    return basis;
}

/* The spectrum [width,height] of a plane [height,width], or the plane of a spectrum. */
static void transform_plane(const double *from, int height, int width, bool back, double *to) {
    double *down = basis_of(height), *across = basis_of(width), *middle = calloc((size_t)(height * width), 8);
    const int rows = back ? width : height, length = back ? height : width;
    transform_rows(from, rows, length, back ? down : across, back, middle);
    double *turned = calloc((size_t)(height * width), sizeof *turned);
    transform_rows(middle, length, rows, back ? across : down, back, turned);
    /* The second pass has turned it once more than is wanted. */
    for (int i = 0; i < rows; i++)
        for (int k = 0; k < length; k++) to[k * rows + i] = turned[i * length + k];
    free(turned);
    free(middle);
    free(across);
    free(down);
}

/* One way of computing, both directions, of all planes at once; the definition is asked of the first and the last. */
static void expect_planes(struct dct *dct, const struct dct_shape *s, enum dct_way way, bool back, double tolerance) {
    const int64_t plane = (int64_t)s->height * s->width, planes = s->count * s->channels, count = plane * planes;
    const struct place images = dct_place_images(dct), spectra = dct_place_spectra(dct);
    const struct place from = back ? spectra : images, to = back ? images : spectra;
    const size_t bytes = (size_t)count * sizeof(float);
    float *given = calloc((size_t)count, sizeof *given), *left = calloc((size_t)count, sizeof *left);
    float *got = calloc((size_t)count, sizeof *got);
    double *wide = calloc((size_t)plane, sizeof *wide), *want = calloc((size_t)plane, sizeof *want);
    struct random random = random_begin(2, RANDOM_TEST, (uint32_t)plane);
    for (int64_t i = 0; i < count; i++) given[i] = (float)random_normal(&random), got[i] = NAN;
    assert_ok(device_write(device, from.buffer, from.offset, bytes, given));
    assert_ok(device_write(device, to.buffer, to.offset, bytes, got));
    assert_ok(dct_run_by(dct, way, back));
    assert_ok(device_read(device, to.buffer, to.offset, bytes, got));
    assert_ok(device_read(device, from.buffer, from.offset, bytes, left));
    assert_memory_equal(given, left, bytes);
    for (int64_t p = 0; p<planes; p += planes> 1 ? planes - 1 : 1) {
        for (int64_t i = 0; i < plane; i++) wide[i] = given[p * plane + i];
        transform_plane(wide, s->height, s->width, back, want);
        for (int64_t i = 0; i < plane; i++) wide[i] = got[p * plane + i];
        double off = relative_error(wide, want, plane);
        if (!(off < tolerance))
            fail_msg("plane %d of %d x %d, way %d%s: %.2g off", (int)p, s->height, s->width, way, back ? ", back" : "",
                     off);
    }
    for (int64_t i = 0; i < count; i++) assert_true(isfinite(got[i]));
    free(given);
    free(left);
    free(got);
    free(wide);
    free(want);
}

static struct dct *make(struct library *library, const struct dct_shape *shape, enum dct_way asked) {
    struct dct *dct;
    assert_ok(dct_create(library, shape, asked, &dct));
    assert_ok(library_build(library));
    log_set_level(LOG_QUIET); /* of fallbacks */
    assert_ok(dct_allocate(dct));
    log_set_level(LOG_INFO);
    return dct;
}

/* Sides of data sets and awkward ones, odd numbers of rows among them. */
static void test_equal(void **state) {
    (void)state;
    static const struct dct_shape shapes[] = {
        {5, 1, 28, 28}, {3, 3, 32, 32}, {1, 3, 64, 64}, {1, 3, 128, 128}, {1, 1, 224, 224},
        {3, 1, 7, 13},  {1, 1, 15, 11}, {2, 3, 30, 77}, {1, 1, 2, 3},     {1, 1, 91, 45},
    };
    if (!device) skip();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct library *library;
        if (TEST_SMALL && shapes[i].height > 32) continue;
        assert_ok(library_create(device, i % 2 ? FAMILY_GPU : FAMILY_CPU, &library));
        struct dct *dct = make(library, &shapes[i], DCT_CLFFT);
        assert_int_equal(dct_settled(dct), device_fft_library() ? DCT_CLFFT : DCT_MATRIX);
        for (int back = 0; back < 2; back++) {
            expect_planes(dct, &shapes[i], DCT_MATRIX, back, 1e-5);
            if (device_fft_library()) expect_planes(dct, &shapes[i], DCT_CLFFT, back, 1e-5);
        }
        if (device_fft_library())
            assert_true(dct_difference(dct) < DCT_TOLERANCE);
        else
            assert_true(isnan(dct_difference(dct)));
        dct_destroy(dct);
        library_destroy(library);
    }
    assert_int_equal(device_bytes(device), 0);
}

/* Small images and those whom the library does not take by products; large ones by whoever is measured to be faster. */
static void test_settling(void **state) {
    (void)state;
    static const struct {
        struct dct_shape shape;
        enum dct_way asked;
        bool library; /* may compute */
    } cases[] = {
        {{2, 1, 28, 28}, DCT_AUTO, false},  {{2, 1, 28, 28}, DCT_CLFFT, true}, {{2, 1, 28, 28}, DCT_MATRIX, false},
        {{2, 1, 17, 28}, DCT_CLFFT, false}, {{2, 1, 28, 1}, DCT_CLFFT, false}, {{1, 1, 127, 130}, DCT_AUTO, false},
        {{1, 1, 128, 128}, DCT_AUTO, true},
    };
    if (!device) skip();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct library *library;
        if (TEST_SMALL && cases[i].shape.height > 32) continue;
        assert_ok(library_create(device, FAMILY_AUTO, &library));
        struct dct *dct = make(library, &cases[i].shape, cases[i].asked);
        const bool can = cases[i].library && device_fft_library();
        if (!can || cases[i].asked != DCT_AUTO) assert_int_equal(dct_settled(dct), can ? DCT_CLFFT : DCT_MATRIX);
        assert_int_equal(isnan(dct_difference(dct)), !can); /* compared, whoever was faster */
        assert_string_equal(retort_error_message(), "");
        for (int back = 0; back < 2; back++) expect_planes(dct, &cases[i].shape, dct_settled(dct), back, 1e-5);
        if (dct_settled(dct) == DCT_MATRIX) assert_int_equal(dct_run_by(dct, DCT_CLFFT, false), RETORT_EINVAL);
        error_clear();
        /* What it says that it keeps is what it keeps. */
        uint64_t bytes = library_scratch_bytes(library);
        const struct memory *memory;
        for (int row = 0; (memory = dct_memory(dct, row)); row++) bytes += memory_bytes(memory);
        assert_int_equal(device_bytes(device), bytes);
        dct_destroy(dct);
        library_destroy(library);
    }
}

/* The library's memory counts under the ceiling; where there is no room for it the products compute. */
static void test_ceiling(void **state) {
    (void)state;
    const struct dct_shape shape = {2, 1, 28, 28};
    if (!device || !device_fft_library()) skip();
    for (int tight = 0; tight < 2; tight++) {
        struct library *library;
        assert_ok(library_create(device, FAMILY_AUTO, &library));
        struct dct *dct;
        assert_ok(dct_create(library, &shape, DCT_CLFFT, &dct));
        assert_ok(library_build(library));
        const uint64_t products = library_scratch_bytes(library) + 6 * 28 * 28 * 4;
        device_set_ceiling(device, products + (tight ? 4 : 20) * 28 * 28);
        log_set_level(LOG_QUIET);
        assert_ok(dct_allocate(dct));
        log_set_level(LOG_INFO);
        device_set_ceiling(device, 0);
        assert_int_equal(dct_settled(dct), tight ? DCT_MATRIX : DCT_CLFFT);
        dct_destroy(dct);
        library_destroy(library);
    }
}

/* Profiles tell what the library does, and what it writes stays the same. */
static void test_profile(void **state) {
    (void)state;
    const struct dct_shape shape = {2, 1, 28, 28};
    struct device_profile profile;
    struct library *library;
    bool told = false;
    if (!device || !device_fft_library()) skip();
    assert_ok(library_create(device, FAMILY_AUTO, &library));
    struct dct *dct = make(library, &shape, DCT_CLFFT);
    assert_ok(device_profile_begin(device));
    for (int back = 0; back < 2; back++) expect_planes(dct, &shape, DCT_CLFFT, back, 1e-5);
    assert_ok(device_profile_end(device, &profile));
    for (size_t i = 0; i < profile.count; i++) {
        if (strcmp(profile.rows[i].name, "clfft") != 0) continue;
        told = true;
        assert_int_equal(profile.rows[i].launches, 4);
        assert_true(profile.rows[i].flops > 0 && profile.rows[i].bytes > 0);
    }
    assert_true(told);
    device_profile_finish(&profile);
    for (int back = 0; back < 2; back++) expect_planes(dct, &shape, DCT_CLFFT, back, 1e-5);
    dct_destroy(dct);
    library_destroy(library);
}

/* Without the library, on planes that it does not take, and on a device that is not there. */
static void test_refusals(void **state) {
    (void)state;
    struct device_dct *dct = NULL;
    struct device *other;
    struct device_buffer *buffer;
    if (!device) skip();
    assert_ok(device_open_described("geforce rtx 3060", &other));
    assert_int_equal(device_dct_create(other, 1, 28, 28, &dct), RETORT_EUNSUPPORTED);
    device_close(other);
    assert_int_equal(device_dct_create(device, 1, 28, 17, &dct), RETORT_EUNSUPPORTED);
    assert_non_null(strstr(retort_error_message(), device_fft_library() ? "28 x 17" : "libclfft-dev"));
    assert_null(dct);
    if (device_fft_library()) {
        assert_ok(device_dct_create(device, 1, 6, 6, &dct));
        assert_ok(device_buffer_create(device, 6 * 6 * 4, "test", &buffer));
        assert_int_equal(device_dct(dct, false, buffer, buffer), RETORT_EINVAL);
        device_buffer_destroy(buffer);
        device_dct_destroy(dct);
    }
    assert_int_equal(device_bytes(device), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths), cmocka_unit_test(test_equal),   cmocka_unit_test(test_settling),
        cmocka_unit_test(test_ceiling), cmocka_unit_test(test_profile), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("dct", tests, prepare, clean);
}
