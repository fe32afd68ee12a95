/* How far two gradients by theta are apart: what methods that match gradients make small. */
#ifndef RETORT_DISTILL_GRADIENT_DISTANCE_H
#define RETORT_DISTILL_GRADIENT_DISTANCE_H

#include "nn/nn.h"

enum gradient_distance {
    /* Over weights of rank > 1 and their output rows, the sum of 1 - <g,h> / (|g| |h| + 1e-6) (DC). */
    DISTANCE_COSINE,
    DISTANCE_COSINE_NORM, /* and of |g - h| (EGM) */
    /* Over the weights of convolutions, the sum of (g - h)^2, or of |g - h| (IDC). */
    DISTANCE_SQUARED,
    DISTANCE_ABSOLUTE,
};

/* A scalar, of g and h [p]. The length of a row that is zero has the derivative 0. */
struct node *gradient_distance(enum gradient_distance distance, const struct network *network, struct node *g,
                               struct node *h);

#endif
