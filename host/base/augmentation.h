/* An augmented image in numbers: what is drawn on the host (data/data.h), uploaded, and applied by graphs (nn/nn.h). */
#ifndef RETORT_BASE_AUGMENTATION_H
#define RETORT_BASE_AUGMENTATION_H

/* Floats of an affine map [2,3], row-major: where each pixel is read, as node_sample (graph/graph.h) says. */
enum { MAP_SIZE = 6 };

/* Colour and cutout: what each float of an image's row stands for. */
enum colour_parameter {
    COLOUR_BRIGHTNESS, /* is added to every value; 0: nothing */
    COLOUR_SATURATION, /* factor on the distance from the mean of a pixel's channels; 1: nothing */
    COLOUR_CONTRAST,   /* factor on the distance from the mean of the image; 1: nothing */
    COLOUR_CUTOUT_ROW, /* centre of a rectangle that is set to zero, in pixels from the middle of the first */
    COLOUR_CUTOUT_COLUMN,
    COLOUR_CUTOUT_HALF_HEIGHT, /* of the rectangle, in pixels; no rectangle where either half is 0 or less */
    COLOUR_CUTOUT_HALF_WIDTH,
    COLOUR_SPARE, /* zero; rows are of eight floats */
    COLOUR_SIZE
};

#endif
