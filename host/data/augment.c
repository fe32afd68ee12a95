/* Per-image affine maps of the augmentations: mirror and rotation (RaT-BPTT's two). */
#include "data/data.h"

#include <math.h>

void augment_draw(const struct augment_spec *spec, struct random *random, int64_t count, float *maps) {
    bool flip = spec->flip, rotate = spec->rotate;
    if (flip && rotate && !spec->compose) {
        flip = random_below(random, 2) == 0;
        rotate = !flip;
    }
    for (int64_t i = 0; i < count; i++) {
        double mirror = flip && random_below(random, 2) ? -1 : 1, angle = 0;
        if (rotate) angle = (2 * random_uniform(random) - 1) * spec->degrees * (3.14159265358979323846 / 180);
        double c = cos(angle), s = sin(angle);
        /* Flip first, then rotate: an output pixel is rotated back, then mirrored, to where the image is read. */
        float *map = maps + MAP_SIZE * i;
        map[0] = (float)(mirror * c);
        map[1] = (float)(mirror * -s);
        map[2] = 0;
        map[3] = (float)s;
        map[4] = (float)c;
        map[5] = 0;
    }
}
