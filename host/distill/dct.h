/* The orthonormal two-dimensional DCT-II of images on a device. A channel x [H,W] and its spectrum F are one another's
 *
 *     F = D_H x D_W^T,   x = D_H^T F D_W,   D_N[k][i] = sqrt((k ? 2 : 1) / N) cos(pi (2 i + 1) k / (2 N))
 *
 * The rows of D are orthonormal. So its transpose is its inverse, and the way from images to spectra is the adjoint of
 * the way back. Spectra lie transposed, [W,H].
 *
 * It is computed by two matrix products, everywhere, or by the FFT of a library (device/fft.h), which has less to do
 * the larger the sides are, and more launches. Both give the same numbers but for rounding. The library is taken where
 * it was asked for, or where it was measured to be faster for these images on this device, and only after what it
 * computes was compared with the products. */
#ifndef RETORT_DISTILL_DCT_H
#define RETORT_DISTILL_DCT_H

#include "compile/executable.h"
#include "graph/graph.h"
#include "unroll/memory.h"

enum dct_way {
    DCT_AUTO, /* what is faster: measured from DCT_MEASURED pixels on, matrix products for smaller images */
    DCT_CLFFT,
    DCT_MATRIX,
    DCT_WAYS
};
enum { DCT_MEASURED = 128 * 128 };
/* The library must agree with the products to so much of the largest value. */
#define DCT_TOLERANCE 1e-5

/* D_N, [size,size]. */
void dct_basis(int size, float *basis);

/* --- as nodes --- */
/* Images [m,C,H,W] -> spectra [m,C,W,H]; down is D_H, across D_W. Transposed spectra save moving them twice. */
struct node *dct_spectra(struct node *images, struct node *down, struct node *across);
struct node *dct_images(struct node *spectra, struct node *down, struct node *across);

/* --- on a device --- */
struct dct_shape {
    int64_t count; /* images */
    int channels, height, width;
};
struct dct;
/* Compiles the products. */
int dct_create(struct library *library, const struct dct_shape *shape, enum dct_way asked, struct dct **dct);
void dct_destroy(struct dct *dct); /* NULL-safe */
/* After library_build and library_rehearse: allocates, and settles who computes. Where the library was asked for and
 * cannot be taken, a warning says why, and the products compute. RETORT_ELIMIT where memory does not suffice. */
int dct_allocate(struct dct *dct);
/* Who computes: DCT_CLFFT or DCT_MATRIX, once it is settled. */
enum dct_way dct_settled(const struct dct *dct);

/* The two ends, of count C H W floats. */
struct place dct_place_images(const struct dct *dct);
struct place dct_place_spectra(const struct dct *dct);
/* Queues the way from images to spectra, or `back`, by whom it was settled. */
int dct_run(struct dct *dct, bool back);
/* The same by one of the two; by the library only where that is settled. */
int dct_run_by(struct dct *dct, enum dct_way way, bool back);
/* The largest difference between the two, both ways, over the largest value; NaN where they were not compared. */
double dct_difference(const struct dct *dct);
/* Rows of its device memory; NULL past the end. */
const struct memory *dct_memory(const struct dct *dct, int i);

#endif
