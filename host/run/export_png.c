/* Pictures of a set: a folder per class, pixels of 8 bits, as far as the normalisation can be undone. */
#include "run/export.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int digits(int64_t largest) {
    int count = 1;
    while (largest >= 10) largest /= 10, count++;
    return count;
}

/* "0-T-shirt_top": the number in front keeps the order of the classes, where folders are sorted by name; what file
 * systems do not take in a name becomes an underscore. A name that is just the number says nothing more. */
static void name_folder(const struct export *export, int class, char *name, size_t size) {
    const char *words = export_class_name(export, class);
    char number[16];
    snprintf(number, sizeof number, "%d", class);
    int length = snprintf(name, size, "%0*d", digits(export->classes - 1), class);
    if (strcmp(words, number) == 0) return;
    char *at = name + length, *end = name + size - 1;
    *at++ = '-';
    while (*words && at < end) {
        unsigned char c = (unsigned char)*words++;
        *at++ = c < 32 || c == 127 || strchr("/\\:*?\"<>|", c) ? '_' : (char)c;
    }
    /* Not within a character of several bytes; nor a dot or a space at the end, which some file systems drop. */
    while (*words && at > name && ((unsigned char)*words & 0xc0) == 0x80) words--, at--;
    while (at[-1] == '.' || at[-1] == ' ') at--;
    *at = '\0';
}

/* [C,H,W] of pixels to [H,W,C] of bytes; counts what that loses. */
static void quantise(const float *image, const struct normalisation *shape, bool scaled, unsigned char *bytes,
                     struct quantisation *quantisation) {
    size_t plane = (size_t)shape->height * (size_t)shape->width, channels = (size_t)shape->channels;
    double least = 0, most = 1;
    if (scaled) {
        least = INFINITY, most = -INFINITY;
        for (size_t i = 0; i < channels * plane; i++) least = fmin(least, image[i]), most = fmax(most, image[i]);
    }
    double scale = most > least ? 255 / (most - least) : 0;
    for (size_t i = 0; i < channels * plane; i++) {
        double level = (image[i] - least) * scale, shown = fmin(fmax(level, 0), 255), byte = rint(shown);
        if (level != shown) quantisation->clipped++;
        quantisation->clipping = fmax(quantisation->clipping, fabs(level - shown));
        quantisation->rounding = fmax(quantisation->rounding, fabs(shown - byte));
        bytes[i % plane * channels + i / plane] = (unsigned char)byte;
    }
    quantisation->pictures++;
    quantisation->values += (int64_t)(channels * plane);
    quantisation->scaled = scaled;
}

static int write_picture(const char *path, const struct normalisation *shape, const unsigned char *bytes) {
    int status = RETORT_OK;
    unsigned char *png = NULL;
    size_t size;
    TRY(picture_encode(bytes, shape->height, shape->width, shape->channels, &png, &size));
    TRY(file_write(path, png, size));
done:
    free(png);
    return status;
}

/* The rows of one class, numbered in their order. `images`: pixels. */
static int write_class(struct export *export, const char *folder, int class, const float *images, bool scaled,
                       unsigned char *bytes) {
    int status = RETORT_OK;
    char name[128], inside[FILE_PATH_MAX], path[FILE_PATH_MAX];
    const struct normalisation *shape = &export->normalisation;
    int64_t count = export->set.images.size[0], pixels = (int64_t)shape->channels * shape->height * shape->width;
    int written = 0;
    name_folder(export, class, name, sizeof name);
    TRY(path_join(folder, name, inside));
    TRY(folder_create(inside));
    for (int64_t i = 0; i < count; i++) {
        if (export_class(export, i) != class) continue;
        snprintf(name, sizeof name, "%0*d.png", digits(count - 1) & 31, written++); /* & 31: so that it surely fits */
        TRY(path_join(inside, name, path));
        quantise(images + i * pixels, shape, scaled, bytes, &export->quantisation);
        TRY(write_picture(path, shape, bytes));
    }
done:
    return status;
}

int export_pictures(struct export *export, const char *folder) {
    int status = RETORT_OK;
    char place[FILE_PATH_MAX];
    const struct npy *stored = &export->set.images;
    size_t values = (size_t)npy_count(stored);
    float *images = malloc(values * sizeof *images);
    unsigned char *bytes = malloc(values / (size_t)stored->size[0]);
    bool exact;
    if (!images || !bytes) RAISE(RETORT_ENOMEM, "out of memory for the pictures of %s", export->place);
    memcpy(images, stored->data, values * sizeof *images);
    TRY(normalisation_undo(&export->normalisation, images, stored->size[0], &exact));
    export->quantisation = (struct quantisation){0};
    TRY(path_join(folder, "images", place));
    for (int class = 0; class < export->classes; class ++)
        TRY(write_class(export, place, class, images, !exact, bytes));
done:
    free(images);
    free(bytes);
    return status;
}
