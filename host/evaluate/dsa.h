/* Differentiable Siamese augmentation (Zhao and Bilen, "Dataset condensation with differentiable Siamese augmentation",
 * ICML 2021) as networks are trained with it: each batch one family at random, each image its own parameters. (In
 * distillation a batch shares its parameters; that is not here.) */
#ifndef RETORT_EVALUATE_DSA_H
#define RETORT_EVALUATE_DSA_H

#include "base/random.h"

#include <stdbool.h>

enum dsa_family {
    DSA_COLOUR, /* brightness + U(-0.5, 0.5), then saturation x U(0, 2), then contrast x U(0.5, 1.5) */
    DSA_CROP,   /* moved by whole pixels, up to an eighth of the size each way, zeros let in */
    DSA_CUTOUT, /* a rectangle of half the height and width set to zero, its centre anywhere */
    DSA_SCALE,  /* rows and columns each read at U(1 / 1.2, 1.2) times their distance from the centre */
    DSA_ROTATE, /* U(-15, 15) degrees */
    DSA_FLIP,   /* left-right, every second image */
    DSA_FAMILIES
};

/* Draws a family, each with equal chance (the flip only where `flip`), and its parameters for `count` images; whatever
 * the family leaves alone is the identity. maps: [count,2,3] as node_sample reads them. colour: [count,8] as
 * unroll_steps has them. */
enum dsa_family dsa_draw(struct random *random, bool flip, int height, int width, int64_t count, float *maps,
                         float *colour);

#endif
