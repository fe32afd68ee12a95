/* Draws of the differentiable Siamese augmentation: which family, and its parameters. */
#include "data/data.h"

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

static void draw_nothing(float map[MAP_SIZE], float colour[COLOUR_SIZE]) {
    static const float identity[MAP_SIZE] = {1, 0, 0, 0, 1, 0};
    static const float plain[COLOUR_SIZE] = {[COLOUR_SATURATION] = 1,
                                             [COLOUR_CONTRAST] = 1,
                                             [COLOUR_CUTOUT_HALF_HEIGHT] = -1,
                                             [COLOUR_CUTOUT_HALF_WIDTH] = -1};
    memcpy(map, identity, sizeof identity);
    memcpy(colour, plain, sizeof plain);
}

/* The family's own parameters of one image; the others stay as they are. */
static void draw_family(struct random *random, enum siamese_family family, int height, int width, float map[MAP_SIZE],
                        float colour[COLOUR_SIZE]) {
    switch (family) {
    case SIAMESE_COLOUR:
        colour[COLOUR_BRIGHTNESS] = (float)uniform(random, -BRIGHTNESS / 2, BRIGHTNESS / 2);
        colour[COLOUR_SATURATION] = (float)uniform(random, 0, SATURATION);
        colour[COLOUR_CONTRAST] = (float)uniform(random, CONTRAST, 1 + CONTRAST);
        break;
    case SIAMESE_CROP:
        map[5] = (float)shift(random, part(height, CROP));
        map[2] = (float)shift(random, part(width, CROP));
        break;
    case SIAMESE_CUTOUT: {
        int rows = part(height, CUTOUT), columns = part(width, CUTOUT);
        colour[COLOUR_CUTOUT_ROW] = (float)hole_centre(random, height, rows);
        colour[COLOUR_CUTOUT_COLUMN] = (float)hole_centre(random, width, columns);
        colour[COLOUR_CUTOUT_HALF_HEIGHT] = (float)(rows / 2.0);
        colour[COLOUR_CUTOUT_HALF_WIDTH] = (float)(columns / 2.0);
        break;
    }
    case SIAMESE_SCALE:
        map[0] = (float)uniform(random, 1 / SCALE, SCALE);
        map[4] = (float)uniform(random, 1 / SCALE, SCALE);
        break;
    case SIAMESE_ROTATE: {
        double angle = uniform(random, -DEGREES, DEGREES) * (3.14159265358979323846 / 180);
        map[0] = map[4] = (float)cos(angle);
        map[3] = (float)sin(angle);
        map[1] = -map[3];
        break;
    }
    case SIAMESE_FLIP:
        if (random_below(random, 2)) map[0] = -1;
        break;
    case SIAMESE_FAMILIES:
        break;
    }
}

enum siamese_family siamese_draw(struct random *random, bool flip, int height, int width, int64_t count, float *maps,
                                 float *colour) {
    enum siamese_family family = (enum siamese_family)random_below(random, flip ? SIAMESE_FAMILIES : SIAMESE_FLIP);
    for (int64_t i = 0; i < count; i++) {
        draw_nothing(maps + MAP_SIZE * i, colour + COLOUR_SIZE * i);
        draw_family(random, family, height, width, maps + MAP_SIZE * i, colour + COLOUR_SIZE * i);
    }
    return family;
}

void siamese_draw_composed(struct random *random, int height, int width, int64_t count, float *maps, float *colour) {
    static const enum siamese_family places[] = {SIAMESE_CROP, SIAMESE_SCALE, SIAMESE_ROTATE};
    enum siamese_family place = places[random_below(random, sizeof places / sizeof *places)];
    for (int64_t i = 0; i < count; i++) {
        const enum siamese_family families[] = {SIAMESE_COLOUR, place, SIAMESE_CUTOUT};
        draw_nothing(maps + MAP_SIZE * i, colour + COLOUR_SIZE * i);
        for (size_t k = 0; k < sizeof families / sizeof *families; k++)
            draw_family(random, families[k], height, width, maps + MAP_SIZE * i, colour + COLOUR_SIZE * i);
    }
}

/* Each class has numbers of its own, many more than one draw takes, so that no class depends on others. */
static struct random class_random(uint64_t seed, uint32_t step, int class) {
    struct random random = random_begin(seed, RANDOM_SIAMESE, step);
    random.index = (uint64_t) class << 8;
    return random;
}

enum siamese_family siamese_draw_class(uint64_t seed, uint32_t step, int class, bool flip, int height, int width,
                                       float map[MAP_SIZE], float colour[COLOUR_SIZE]) {
    struct random random = class_random(seed, step, class);
    return siamese_draw(&random, flip, height, width, 1, map, colour);
}

void siamese_draw_class_composed(uint64_t seed, uint32_t step, int class, int height, int width, float map[MAP_SIZE],
                                 float colour[COLOUR_SIZE]) {
    struct random random = class_random(seed, step, class);
    siamese_draw_composed(&random, height, width, 1, map, colour);
}
