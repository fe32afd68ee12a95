#include "bench/bench.h"

#include "base/error.h"
#include "base/log.h"
#include "base/numbers.h"
#include "device/fft.h"
#include "distill/dct.h"

/* There and back, as an outer step of a set of coefficients goes. */
static int time_way(struct device *device, struct dct *dct, enum dct_way way, struct bench_frequency_times *times) {
    enum { LEAST = 5, MOST = 50 };
    const double enough = 0.4; /* seconds */
    int status = RETORT_OK;
    size_t count = 0;
    double seconds[MOST], begun = clock_seconds();
    for (int i = -1; i < MOST && (i < LEAST || clock_seconds() - begun < enough); i++) {
        double start = clock_seconds();
        TRY(dct_run_by(dct, way, true));
        TRY(dct_run_by(dct, way, false));
        TRY(device_finish(device));
        if (i >= 0) seconds[count++] = clock_seconds() - start; /* the first may still build */
    }
    numbers_sort(seconds, count);
    *times = (struct bench_frequency_times){seconds[0], numbers_median(seconds, count)};
done:
    return status;
}

int bench_frequency(struct device *device, enum family family, const struct dct_shape *shape,
                    struct bench_frequency_result *result) {
    int status = RETORT_OK;
    struct library *library = NULL;
    struct dct *dct = NULL;
    TRY(library_create(device, family, &library));
    TRY(dct_create(library, shape, device_fft_library() ? DCT_CLFFT : DCT_MATRIX, &dct));
    TRY(library_build(library));
    TRY(dct_allocate(dct));
    struct bench_frequency_result fresh = {.has_library = dct_settled(dct) == DCT_CLFFT,
                                           .difference = dct_difference(dct)};
    struct place spectra = dct_place_spectra(dct);
    TRY(device_fill_zero(device, spectra.buffer, spectra.offset, device_buffer_size(spectra.buffer)));
    TRY(time_way(device, dct, DCT_MATRIX, &fresh.products));
    if (fresh.has_library) TRY(time_way(device, dct, DCT_CLFFT, &fresh.library));
    *result = fresh;
done:
    dct_destroy(dct);
    library_destroy(library);
    return status;
}
