/* Several images in the room of one (IDC: Kim et al., "Dataset condensation via efficient synthetic-data
 * parameterization", ICML 2022, multi-formation). Stored are pixels in [0,1], [m,C,H,W]. Each stored image is cut into
 * f x f tiles, and each tile, brought to the full size bilinearly with clamped edges (output row i reads between the
 * tile's rows at (i + 1/2) h / H - 1/2), is one image of the set: row (stored f + a) f + b for the tile in row a,
 * column b. Last comes the normalisation, which must be a map of each channel by itself.
 *
 * A tile has h = ceil(H / f) rows; tile a begins at row floor(a (H - h) / (f - 1)), so that where f does not divide the
 * size neighbours share a row or two and nothing is padded. All images follow from two products, A_H x A_W^T, with row
 * a H + i of A_H [f H, H] the weights of image row i in tile a. */
#ifndef RETORT_DISTILL_TILES_H
#define RETORT_DISTILL_TILES_H

#include "compile/executable.h"
#include "data/data.h"
#include "graph/graph.h"
#include "unroll/memory.h"

struct tiles_shape {
    int64_t stored; /* m */
    int channels, height, width, factor;
    const struct normalisation *normalisation; /* borrowed while a graph is built; NULL: none */
};

/* Rows of a tile, and its first one. */
int tiles_side(int size, int factor);
int tiles_begin(int size, int factor, int tile);
/* Whether images are a map of each channel by itself under it: no whitening. */
bool tiles_allow(const struct normalisation *normalisation);
/* stored [m,C,H,W] -> images [m f^2,C,H,W] in the space that the networks train in. */
struct node *tiles_images(struct node *stored, const struct tiles_shape *shape);

/* IDC's start `mix`: images [m f^2,C,H,W] -> stored [m,C,H,W], each shrunk into its tile by the nearest pixel. */
void tiles_mix(const struct tiles_shape *shape, const float *images, float *stored);

/* --- on a device --- */
struct tiles;
/* Compiles, builds and allocates; plan_only: only compiles. RETORT_ELIMIT where memory does not suffice. */
int tiles_create(struct library *library, const struct tiles_shape *shape, bool plan_only, struct tiles **tiles);
void tiles_destroy(struct tiles *tiles); /* NULL-safe */
/* stored -> images, and a gradient by images -> one by what is stored, the transpose of the former. On the host all. */
int tiles_decode(struct tiles *tiles, const float *stored, float *images);
int tiles_pull(struct tiles *tiles, const float *image_gradient, float *gradient);
/* Rows of its device memory; NULL past the end. */
const struct memory *tiles_memory(const struct tiles *tiles, int i);

#endif
