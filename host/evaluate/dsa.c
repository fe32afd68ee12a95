#include "evaluate/dsa.h"

#include <math.h>
#include <string.h>

#define CROP       0.125
#define CUTOUT     0.5
#define SCALE      1.2
#define DEGREES    15
#define BRIGHTNESS 1.0
#define SATURATION 2.0
#define CONTRAST   0.5

static double uniform(struct random *random, double low, double high) {
    return low + (high - low) * random_uniform(random);
}

/* A fraction of a size in pixels, rounded to the nearest. */
static int part(int size, double fraction) {
    return (int)(size * fraction + 0.5);
}

static int shift(struct random *random, int most) {
    return (int)random_below(random, (uint32_t)(2 * most + 1)) - most;
}

/* Where a hole of `hole` pixels lies along `size`: from any pixel (for an even hole also from one past the end) minus
 * half the hole. The centre is returned, in pixels; the half height or width that belongs to it is hole / 2. */
static double hole_centre(struct random *random, int size, int hole) {
    int offset = (int)random_below(random, (uint32_t)(size + 1 - hole % 2));
    return offset - hole / 2 + (hole - 1) / 2.0;
}

enum dsa_family dsa_draw(struct random *random, bool flip, int height, int width, int64_t count, float *maps,
                         float *colour) {
    static const float identity[6] = {1, 0, 0, 0, 1, 0}, plain[8] = {0, 1, 1, 0, 0, -1, -1};
    enum dsa_family family = (enum dsa_family)random_below(random, flip ? DSA_FAMILIES : DSA_FLIP);
    for (int64_t i = 0; i < count; i++) {
        float *map = maps + 6 * i, *tint = colour + 8 * i;
        memcpy(map, identity, sizeof identity);
        memcpy(tint, plain, sizeof plain);
        switch (family) {
        case DSA_COLOUR:
            tint[0] = (float)uniform(random, -BRIGHTNESS / 2, BRIGHTNESS / 2);
            tint[1] = (float)uniform(random, 0, SATURATION);
            tint[2] = (float)uniform(random, CONTRAST, 1 + CONTRAST);
            break;
        case DSA_CROP:
            map[5] = (float)shift(random, part(height, CROP));
            map[2] = (float)shift(random, part(width, CROP));
            break;
        case DSA_CUTOUT: {
            int rows = part(height, CUTOUT), columns = part(width, CUTOUT);
            tint[3] = (float)hole_centre(random, height, rows);
            tint[4] = (float)hole_centre(random, width, columns);
            tint[5] = (float)(rows / 2.0);
            tint[6] = (float)(columns / 2.0);
            break;
        }
        case DSA_SCALE:
            map[0] = (float)uniform(random, 1 / SCALE, SCALE);
            map[4] = (float)uniform(random, 1 / SCALE, SCALE);
            break;
        case DSA_ROTATE: {
            double angle = uniform(random, -DEGREES, DEGREES) * (3.14159265358979323846 / 180);
            map[0] = map[4] = (float)cos(angle);
            map[3] = (float)sin(angle);
            map[1] = -map[3];
            break;
        }
        case DSA_FLIP:
            if (random_below(random, 2)) map[0] = -1;
            break;
        case DSA_FAMILIES:
            break;
        }
    }
    return family;
}
