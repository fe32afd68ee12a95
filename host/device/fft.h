/* The orthonormal two-dimensional DCT-II by the FFT of a library, clFFT, where the build has it (Meson's option
 * `clfft`).
 *
 * The library has no cosine transform. That of a row is the FFT of the row in another order, even places rising and
 * then odd ones falling, of which each value is turned by its share of a quarter of a circle (Makhoul, "A fast cosine
 * transform in one and two dimensions", IEEE Transactions on Acoustics, Speech and Signal Processing 28, 1980). Two
 * rows go through one complex FFT, as its real and its imaginary part. A plane takes a pass over its rows, which
 * transposes it, and another one; a pass is a launch before the library's and one behind it.
 *
 * Nobody mends the library any more, and its kernels have been wrong with some drivers. So who uses this compares it
 * with matrix products first (distill/dct.h), and everybody can do without. */
#ifndef RETORT_DEVICE_FFT_H
#define RETORT_DEVICE_FFT_H

#include "device/device.h"

/* "clFFT 2.12.2", or NULL where the build has none. */
const char *device_fft_library(void);
/* Whether the library transforms rows of this length: at least 2, without a prime factor above 13. */
bool device_fft_takes(int length);

/* The transform of `planes` planes [height,width] at a time. */
struct device_dct;
/* The library's kernels are compiled here: some seconds, on CPUs up to a minute, if the driver has not kept them.
 * RETORT_EUNSUPPORTED where the build has no library, a side is none for it, or the device is only described;
 * RETORT_ELIMIT where memory does not suffice. */
int device_dct_create(struct device *device, int64_t planes, int height, int width, struct device_dct **dct);
void device_dct_destroy(struct device_dct *dct);         /* NULL-safe */
uint64_t device_dct_bytes(const struct device_dct *dct); /* of device memory that it keeps */
/* Queues planes [height,width] -> their spectra, each transposed: [width,height]; `back`: the other way. Each way is
 * the other's inverse and adjoint. Two different buffers, all planes from their beginning on; `from` is only read. */
int device_dct(struct device_dct *dct, bool back, struct device_buffer *from, struct device_buffer *to);

#endif
