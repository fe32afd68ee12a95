#include "run/preview.h"

#include "base/error.h"
#include "base/file.h"
#include "run/font.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GAP          2 /* pixels between images */
#define CLASS_GAP    8 /* and between classes, beside the gap */
#define WIDEST       1600
#define WIDEST_SMALL 800
#define TALLEST      4096
#define WANTED       144 /* pixels of an enlarged image, at most, */
#define LEAST        56  /* and at least, before a class takes more lines */
#define MOST_LINES   4   /* of images of a class */
#define INK          40  /* of letters: nearly black */

#define KEPT 12 /* pictures of previews/ */

bool preview_is_kept(int step, int total) {
    for (int k = 0; k < KEPT; k++) {
        double part = (double)k / (KEPT - 1);
        if (step == (int)lrint(part * part * total)) return true;
    }
    return false;
}

/* --- where everything goes --- */
struct grid {
    const char *const *names;      /* NULL: none are written */
    int64_t classes, images;       /* there are, images of each class; a set of unequal classes is one class */
    int zoom, letters;             /* pixels per pixel of an image, and of a letter */
    int image_width, image_height; /* enlarged */
    int per_line, lines;           /* images of a class */
    int across, down;              /* classes */
    int label, block_width, block_height, footer;
    int width, height; /* of the whole picture */
    int64_t shown_classes, shown_images;
};

static int ceiling(int64_t a, int64_t b) {
    return (int)((a + b - 1) / b);
}

static int line_width(const struct grid *grid, int width, int zoom) {
    return grid->per_line * (width * zoom + GAP) - GAP;
}

/* The images of a class in one line, or where they would be too small, or too many for the width, in more of them. */
static void lay_class(struct grid *grid, int width, int widest) {
    int least = grid->names && width < LEAST ? ceiling(LEAST, width) : 1;
    int fitting = (widest - GAP) / (width * least + GAP);
    if (fitting < 1) fitting = 1;
    grid->lines = 1;
    while (grid->lines < MOST_LINES && ceiling(grid->images, grid->lines) > fitting) grid->lines++;
    grid->per_line = ceiling(grid->images, grid->lines);
    if (grid->per_line > fitting) grid->per_line = fitting;
    int64_t room = (int64_t)grid->per_line * grid->lines;
    grid->shown_images = grid->images < room ? grid->images : room;
    grid->zoom = grid->names && width < WANTED ? WANTED / width : 1;
    while (grid->zoom > 1 && line_width(grid, width, grid->zoom) > widest - 2 * GAP) grid->zoom--;
}

/* Names are written large where all of them fit so above their images. */
static void size_letters(struct grid *grid) {
    int longest = 0;
    if (!grid->names) return;
    for (int64_t c = 0; c < grid->classes; c++) {
        int length = font_length(grid->names[c]);
        if (length > longest) longest = length;
    }
    grid->letters = longest * FONT_ADVANCE * 2 <= grid->block_width ? 2 : 1;
    grid->label = FONT_HEIGHT * grid->letters + GAP;
}

static int height_of(const struct grid *grid, int down) {
    return GAP + down * (grid->block_height + CLASS_GAP);
}

/* Classes side by side until the picture is no taller than a screen, or no more fit. */
static void lay_classes(struct grid *grid, int widest) {
    int column = grid->block_width + CLASS_GAP, fitting = (widest - 2 * GAP + CLASS_GAP) / column;
    if (fitting < 1) fitting = 1;
    for (grid->across = 1; grid->across < fitting; grid->across++)
        if (4 * height_of(grid, ceiling(grid->classes, grid->across)) <= 3 * grid->across * column) break;
    grid->down = ceiling(grid->classes, grid->across);
    while (grid->down > 1 && height_of(grid, grid->down) > TALLEST) grid->down--;
    int64_t room = (int64_t)grid->across * grid->down;
    grid->shown_classes = grid->classes < room ? grid->classes : room;
}

static struct grid lay_out(const struct distilled_set *set, const char *const *names) {
    bool equal = set->ipc > 0;
    int widest = names ? WIDEST : WIDEST_SMALL;
    struct grid grid = {
        .names = equal ? names : NULL, .classes = equal ? set->classes : 1, .images = equal ? set->ipc : set->count};
    lay_class(&grid, set->width, widest);
    grid.image_width = set->width * grid.zoom;
    grid.image_height = set->height * grid.zoom;
    grid.block_width = line_width(&grid, set->width, grid.zoom);
    size_letters(&grid);
    grid.block_height = grid.label + grid.lines * (grid.image_height + GAP) - GAP;
    lay_classes(&grid, widest);
    bool all = grid.shown_classes == grid.classes && grid.shown_images == grid.images;
    grid.footer = names && !all ? FONT_HEIGHT + CLASS_GAP : 0;
    grid.width = 2 * GAP + grid.across * (grid.block_width + CLASS_GAP) - CLASS_GAP;
    grid.height = height_of(&grid, grid.down) - CLASS_GAP + GAP + grid.footer;
    return grid;
}

/* --- drawing --- */
/* The whole picture, one byte a channel. */
struct canvas {
    int channels, height, width;
    unsigned char *bytes;
};

static unsigned char *pixel(const struct canvas *canvas, int x, int y) {
    return canvas->bytes + ((size_t)y * (size_t)canvas->width + (size_t)x) * (size_t)canvas->channels;
}

static void draw_image(const struct canvas *canvas, const struct distilled_set *set, const float *image, int zoom,
                       int left, int top) {
    int64_t plane = (int64_t)set->height * set->width;
    for (int y = 0; y < set->height * zoom; y++)
        for (int x = 0; x < set->width * zoom; x++)
            for (int c = 0; c < canvas->channels; c++) {
                float value = image[c * plane + (int64_t)(y / zoom) * set->width + x / zoom];
                pixel(canvas, left + x, top + y)[c] = (unsigned char)lrintf(255 * value);
            }
}

/* At most `room` pixels wide; a longer text ends with two dots. */
static void draw_text(const struct canvas *canvas, const char *text, int scale, int left, int top, int room) {
    int length = font_length(text), fitting = (room + scale) / (FONT_ADVANCE * scale);
    int shown = length < fitting ? length : fitting;
    for (int i = 0; i < shown; i++) {
        bool dots = shown < length && i >= shown - 2;
        for (int y = 0; y < FONT_HEIGHT * scale; y++)
            for (int x = 0; x < FONT_WIDTH * scale; x++)
                if (font_ink(dots ? "." : text, dots ? 0 : i, x / scale, y / scale))
                    memset(pixel(canvas, left + i * FONT_ADVANCE * scale + x, top + y), INK, (size_t)canvas->channels);
    }
}

static void draw_class(const struct canvas *canvas, const struct distilled_set *set, const struct grid *grid,
                       const float *images, int class) {
    int64_t pixels = (int64_t)set->channels * set->height * set->width;
    int left = GAP + class % grid->across * (grid->block_width + CLASS_GAP);
    int top = GAP + class / grid->across * (grid->block_height + CLASS_GAP);
    if (grid->names) draw_text(canvas, grid->names[class], grid->letters, left, top, grid->block_width);
    for (int i = 0; i < grid->shown_images; i++)
        draw_image(canvas, set, images + (class * grid->shown_images + i) * pixels, grid->zoom,
                   left + i % grid->per_line * (grid->image_width + GAP),
                   top + grid->label + i / grid->per_line * (grid->image_height + GAP));
}

static void draw_footer(const struct canvas *canvas, const struct grid *grid) {
    char classes[64] = "", images[64] = "", text[160];
    if (grid->shown_classes < grid->classes)
        snprintf(classes, sizeof classes, "the first %lld of %lld classes", (long long)grid->shown_classes,
                 (long long)grid->classes);
    if (grid->shown_images < grid->images)
        snprintf(images, sizeof images, "the first %lld of %lld images", (long long)grid->shown_images,
                 (long long)grid->images);
    snprintf(text, sizeof text, "%s%s%s", classes, *classes && *images ? ", " : "", images);
    draw_text(canvas, text, 1, GAP, canvas->height - FONT_HEIGHT - GAP, canvas->width - 2 * GAP);
}

static int write_png(const char *path, const struct canvas *canvas) {
    int status = RETORT_OK;
    unsigned char *png = NULL;
    size_t size;
    TRY(picture_encode(canvas->bytes, canvas->height, canvas->width, canvas->channels, &png, &size));
    TRY(file_write(path, png, size));
done:
    free(png);
    return status;
}

/* The images that are shown, class by class, as pixels in [0,1]; undoing a whitening of all of a large set would take
 * long. */
static int take_shown(const struct distilled_set *set, const struct normalisation *normalisation,
                      const struct grid *grid, float **images) {
    int status = RETORT_OK;
    int64_t pixels = (int64_t)set->channels * set->height * set->width;
    int64_t count = grid->shown_classes * grid->shown_images;
    bool exact;
    float *taken = malloc((size_t)(count * pixels) * sizeof *taken);
    if (!taken) RAISE(RETORT_ENOMEM, "out of memory drawing the set");
    for (int64_t c = 0; c < grid->shown_classes; c++)
        memcpy(taken + c * grid->shown_images * pixels, set->images + c * grid->images * pixels,
               (size_t)(grid->shown_images * pixels) * sizeof *taken);
    TRY(normalisation_show(normalisation, taken, count, &exact));
    *images = taken;
    taken = NULL;
done:
    free(taken);
    return status;
}

int preview_write(const char *path, const struct distilled_set *set, const struct normalisation *normalisation,
                  const char *const *names) {
    int status = RETORT_OK;
    const struct grid grid = lay_out(set, names);
    struct canvas canvas = {.channels = set->channels == 3 ? 3 : 1, .height = grid.height, .width = grid.width};
    size_t bytes = (size_t)canvas.height * (size_t)canvas.width * (size_t)canvas.channels;
    float *images = NULL;
    canvas.bytes = malloc(bytes);
    if (!canvas.bytes) RAISE(RETORT_ENOMEM, "out of memory drawing %s", path);
    memset(canvas.bytes, 255, bytes);
    TRY(take_shown(set, normalisation, &grid, &images));
    for (int c = 0; c < grid.shown_classes; c++) draw_class(&canvas, set, &grid, images, c);
    if (grid.footer) draw_footer(&canvas, &grid);
    TRY(write_png(path, &canvas));
done:
    free(canvas.bytes);
    free(images);
    return status;
}
