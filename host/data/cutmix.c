/* CutMix: rectangles of images exchanged within a batch, and their labels mixed by area. */
#include "data/data.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct box {
    int top, bottom, left, right; /* rows and columns from .. to, the last not included */
};

static int clipped(int x, int most) {
    return x < 0 ? 0 : x > most ? most : x;
}

/* A rectangle of the image's proportions and of the area `share`, about any pixel, as far as it lies in the image. */
static struct box draw_box(struct random *random, int height, int width, double share) {
    int tall = (int)(height * sqrt(share)), wide = (int)(width * sqrt(share));
    int row = (int)random_below(random, (uint32_t)height), column = (int)random_below(random, (uint32_t)width);
    return (struct box){clipped(row - tall / 2, height), clipped(row + tall / 2, height),
                        clipped(column - wide / 2, width), clipped(column + wide / 2, width)};
}

static void exchange_box(const struct cutmix_shape *shape, const struct box *box, const float *from, float *to) {
    for (int c = 0; c < shape->channels; c++)
        for (int y = box->top; y < box->bottom; y++) {
            size_t at = ((size_t)c * (size_t)shape->height + (size_t)y) * (size_t)shape->width + (size_t)box->left;
            memcpy(to + at, from + at, (size_t)(box->right - box->left) * sizeof *to);
        }
}

int cutmix_apply(struct random *random, const struct cutmix_shape *shape, float *images, float *labels) {
    int status = RETORT_OK;
    size_t n = (size_t)shape->count, K = (size_t)shape->classes;
    size_t size = (size_t)shape->channels * (size_t)shape->height * (size_t)shape->width;
    float *old_images = malloc(n * size * sizeof *images), *old_labels = malloc(n * K * sizeof *labels);
    uint32_t *others = malloc(n * sizeof *others);
    if (!old_images || !old_labels || !others) RAISE(RETORT_ENOMEM, "out of memory mixing a batch of %zu images", n);
    memcpy(old_images, images, n * size * sizeof *images);
    memcpy(old_labels, labels, n * K * sizeof *labels);
    struct box box = draw_box(random, shape->height, shape->width, random_uniform(random));
    float area = (float)((box.bottom - box.top) * (box.right - box.left)) / (float)(shape->height * shape->width);
    random_choose(random, (uint32_t)n, (uint32_t)n, others);
    for (size_t i = 0; i < n; i++) {
        exchange_box(shape, &box, old_images + others[i] * size, images + i * size);
        for (size_t k = 0; k < K; k++)
            labels[i * K + k] = (1 - area) * old_labels[i * K + k] + area * old_labels[others[i] * K + k];
    }
done:
    free(old_images);
    free(old_labels);
    free(others);
    return status;
}
