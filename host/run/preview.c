#include "run/preview.h"

#include "base/error.h"
#include "base/file.h"

#include <errno.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GAP     2
#define LARGEST 4096

/* Maps one image [C,H,W] to [0,1]. */
static void fit_range(float *image, int64_t count, bool exact) {
    float least = 0, most = 1;
    if (!exact) {
        least = INFINITY;
        most = -INFINITY;
        for (int64_t i = 0; i < count; i++) {
            least = fminf(least, image[i]);
            most = fmaxf(most, image[i]);
        }
    }
    float scale = most > least ? 1 / (most - least) : 0;
    for (int64_t i = 0; i < count; i++) image[i] = fminf(fmaxf((image[i] - least) * scale, 0), 1);
}

/* The whole grid, one byte a channel. */
struct grid {
    int rows, columns, zoom;     /* images, and pixels per pixel */
    int channels, height, width; /* of the grid, in pixels */
    unsigned char *bytes;
};

static int shown(int64_t wanted, int size) {
    int most = (LARGEST - GAP) / (size + GAP);
    return wanted < most ? (int)wanted : most > 0 ? most : 1;
}

static void draw(const struct grid *grid, const struct distilled_set *set, const float *image, int row, int column) {
    int64_t plane = (int64_t)set->height * set->width;
    int top = GAP + row * (set->height * grid->zoom + GAP), left = GAP + column * (set->width * grid->zoom + GAP);
    for (int y = 0; y < set->height * grid->zoom; y++)
        for (int x = 0; x < set->width * grid->zoom; x++)
            for (int c = 0; c < grid->channels; c++) {
                float value = image[c * plane + (int64_t)(y / grid->zoom) * set->width + x / grid->zoom];
                size_t at = ((size_t)(top + y) * (size_t)grid->width + (size_t)(left + x)) * (size_t)grid->channels;
                grid->bytes[at + (size_t)c] = (unsigned char)lrintf(255 * value);
            }
}

static int write_png(const char *path, const struct grid *grid) {
    int status = RETORT_OK;
    char temporary[FILE_PATH_MAX] = "";
    png_image png = {.version = PNG_IMAGE_VERSION,
                     .width = (png_uint_32)grid->width,
                     .height = (png_uint_32)grid->height,
                     .format = grid->channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY};
    TRY(file_write_begin(path, temporary));
    if (!png_image_write_to_file(&png, temporary, 0, grid->bytes, 0, NULL))
        RAISE(RETORT_EIO, "cannot write %s: %s", path, errno ? strerror(errno) : png.message);
    TRY(file_write_commit(path, temporary));
done:
    if (status < 0 && *temporary) unlink(temporary);
    return status;
}

int preview_write(const char *path, const struct distilled_set *set, const struct normalisation *normalisation) {
    int status = RETORT_OK;
    struct grid grid = {0};
    int64_t pixels = (int64_t)set->channels * set->height * set->width;
    bool exact;
    float *images = malloc((size_t)(set->count * pixels) * sizeof *images);
    if (!images) RAISE(RETORT_ENOMEM, "out of memory drawing %s", path);
    memcpy(images, set->images, (size_t)(set->count * pixels) * sizeof *images);
    TRY(normalisation_undo(normalisation, images, set->count, &exact));
    for (int64_t i = 0; i < set->count; i++) fit_range(images + i * pixels, pixels, exact);

    /* A row per class; a set whose classes differ in size is laid out as a square. */
    int64_t rows = set->ipc ? set->classes : (int64_t)ceil(sqrt((double)set->count));
    int64_t columns = set->ipc ? set->ipc : rows;
    grid.zoom = set->width < 64 ? 64 / set->width : 1;
    grid.channels = set->channels == 3 ? 3 : 1;
    grid.rows = shown(rows, set->height * grid.zoom);
    grid.columns = shown(columns, set->width * grid.zoom);
    grid.height = GAP + grid.rows * (set->height * grid.zoom + GAP);
    grid.width = GAP + grid.columns * (set->width * grid.zoom + GAP);
    size_t bytes = (size_t)grid.height * (size_t)grid.width * (size_t)grid.channels;
    grid.bytes = malloc(bytes);
    if (!grid.bytes) RAISE(RETORT_ENOMEM, "out of memory drawing %s", path);
    memset(grid.bytes, 255, bytes);
    for (int row = 0; row < grid.rows; row++)
        for (int column = 0; column < grid.columns; column++) {
            int64_t i = row * columns + column;
            if (i < set->count) draw(&grid, set, images + i * pixels, row, column);
        }
    TRY(write_png(path, &grid));
done:
    free(grid.bytes);
    free(images);
    return status;
}
