/* PNG (libpng's simplified interface) and JPEG (TurboJPEG) to RGB bytes, and scaling to the size of the set. */
#include "data/readers.h"

#include "base/error.h"
#include "base/log.h"

#include <math.h>
#include <png.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>

enum { PIXELS_MAX = 1 << 27 }; /* of one picture: 400 MB as RGB */

static int check_size(const char *name, int64_t height, int64_t width) {
    if (height < 1 || width < 1 || height > PIXELS_MAX / width)
        return error_set(RETORT_EFORMAT,
                         "%s claims to be %lld x %lld pixels; expected at least 1 and at most %d in all", name,
                         (long long)height, (long long)width, (int)PIXELS_MAX);
    return RETORT_OK;
}

static int decode_png(const char *name, const unsigned char *bytes, size_t size, struct picture *picture) {
    int status = RETORT_OK;
    png_image image = {.version = PNG_IMAGE_VERSION};
    unsigned char *rgb = NULL;
    if (!png_image_begin_read_from_memory(&image, bytes, size))
        RAISE(RETORT_EFORMAT, "cannot read %s: %s; the PNG is damaged: fetch it again", name, image.message);
    TRY(check_size(name, image.height, image.width));
    /* One bit a pixel is the least a PNG spends before it deflates. */
    TRY(claim_check(name, (int64_t)image.height * image.width / 8, size));
    image.format = PNG_FORMAT_RGB;
    rgb = malloc(PNG_IMAGE_SIZE(image));
    if (!rgb) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    png_color white = {255, 255, 255};
    if (!png_image_finish_read(&image, &white, rgb, 0, NULL))
        RAISE(RETORT_EFORMAT, "cannot read %s: %s; the PNG is damaged: fetch it again", name, image.message);
    *picture = (struct picture){(int)image.height, (int)image.width, rgb};
    rgb = NULL;
done:
    png_image_free(&image);
    free(rgb);
    return status;
}

/* Bytes between two markers cost no pixel, and old sets have them; every other complaint does. TurboJPEG's error code
 * cannot tell (an error after a warning counts as a warning); its words are the last complaint's. */
static bool only_stray_bytes(tjhandle turbo) {
    return tjGetErrorCode(turbo) == TJERR_WARNING && strstr(tjGetErrorStr2(turbo), "extraneous bytes");
}

static int decode_jpeg(const char *name, const unsigned char *bytes, size_t size, struct picture *picture) {
    int status = RETORT_OK;
    unsigned char *pixels = NULL;
    tjhandle turbo = tjInitDecompress();
    if (!turbo) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    int width, height, sampling, colours;
    if (tjDecompressHeader3(turbo, bytes, size, &width, &height, &sampling, &colours) < 0 && !only_stray_bytes(turbo))
        RAISE(RETORT_EFORMAT, "cannot read %s: %s; the JPEG is damaged: fetch it again", name, tjGetErrorStr2(turbo));
    TRY(check_size(name, height, width));
    /* A Huffman-coded JPEG spends at least a bit on the 64 pixels of a block: 512 pixels a byte. */
    TRY(claim_check(name, (int64_t)height * width, size));
    bool inks = colours == TJCS_CMYK || colours == TJCS_YCCK;
    size_t count = (size_t)height * (size_t)width;
    pixels = malloc(count * (inks ? 4 : 3));
    if (!pixels) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    if (tjDecompress2(turbo, bytes, size, pixels, width, 0, height, inks ? TJPF_CMYK : TJPF_RGB,
                      TJFLAG_ACCURATEDCT | TJFLAG_LIMITSCANS)
        < 0) {
        if (!only_stray_bytes(turbo))
            RAISE(RETORT_EFORMAT, "cannot read %s: %s; the JPEG is damaged: fetch it again", name,
                  tjGetErrorStr2(turbo));
        log_warning("%s: %s", name, tjGetErrorStr2(turbo));
    }
    /* Inks are stored inverted, as Adobe's programs write them. Each pixel shrinks into bytes already read. */
    for (size_t i = 0; inks && i < count; i++) {
        int black = pixels[4 * i + 3];
        for (size_t c = 0; c < 3; c++) pixels[3 * i + c] = (unsigned char)((pixels[4 * i + c] * black + 127) / 255);
    }
    *picture = (struct picture){height, width, pixels};
    pixels = NULL;
done:
    if (turbo) tjDestroy(turbo);
    free(pixels);
    return status;
}

int picture_decode(const char *name, const unsigned char *bytes, size_t size, struct picture *picture) {
    if (size >= 8 && memcmp(bytes, "\x89PNG\r\n\x1a\n", 8) == 0) return decode_png(name, bytes, size, picture);
    if (size >= 3 && memcmp(bytes, "\xff\xd8\xff", 3) == 0) return decode_jpeg(name, bytes, size, picture);
    return error_set(RETORT_EFORMAT, "%s is neither PNG nor JPEG by its first bytes; convert or remove it", name);
}

/* --- scaling: a triangle filter, widened by the reduction so that every source pixel has its share --- */

struct filter {
    int taps;       /* room per output */
    int *begin;     /* [outputs]: first source pixel */
    int *count;     /* [outputs]: how many */
    float *weights; /* [outputs][taps], of sum 1 */
};

static void filter_finish(struct filter *filter) {
    free(filter->begin);
    free(filter->count);
    free(filter->weights);
}

/* `outputs` samples from position `skip` (in output pixels) of a line of `size` scaled by 1 / step. */
static int filter_init(struct filter *filter, int size, double step, double skip, int outputs) {
    double radius = step > 1 ? step : 1;
    *filter = (struct filter){.taps = (int)ceil(2 * radius) + 1};
    filter->begin = malloc((size_t)outputs * sizeof *filter->begin);
    filter->count = malloc((size_t)outputs * sizeof *filter->count);
    filter->weights = malloc((size_t)outputs * (size_t)filter->taps * sizeof *filter->weights);
    if (!filter->begin || !filter->count || !filter->weights)
        return error_set(RETORT_ENOMEM, "out of memory scaling a picture");
    for (int i = 0; i < outputs; i++) {
        double centre = (i + 0.5 + skip) * step - 0.5, sum = 0;
        int first = (int)fmax(0, ceil(centre - radius)), last = (int)fmin(size - 1, floor(centre + radius));
        if (last - first >= filter->taps) last = first + filter->taps - 1;
        float *weights = filter->weights + (size_t)i * (size_t)filter->taps;
        for (int j = first; j <= last; j++) sum += fmax(0, 1 - fabs(j - centre) / radius);
        for (int j = first; j <= last; j++) weights[j - first] = (float)(fmax(0, 1 - fabs(j - centre) / radius) / sum);
        filter->begin[i] = first;
        filter->count[i] = last - first + 1;
    }
    return RETORT_OK;
}

int picture_fit(const struct picture *picture, int channels, int height, int width, unsigned char *planes) {
    int status = RETORT_OK;
    float *lines = NULL;
    struct filter rows = {0}, columns = {0};
    /* The smaller of the two ratios covers the target; what sticks out is cut evenly. */
    double step = fmin((double)picture->height / height, (double)picture->width / width);
    TRY(filter_init(&rows, picture->height, step, (picture->height / step - height) / 2, height));
    TRY(filter_init(&columns, picture->width, step, (picture->width / step - width) / 2, width));
    /* Along the lines first, for the lines that the other direction will read. */
    int top = rows.begin[0], bottom = rows.begin[height - 1] + rows.count[height - 1];
    lines = malloc((size_t)(bottom - top) * (size_t)width * 3 * sizeof *lines);
    if (!lines) RAISE(RETORT_ENOMEM, "out of memory scaling a picture");
    for (int i = top; i < bottom; i++)
        for (int j = 0; j < width; j++) {
            const unsigned char *source =
                picture->rgb + ((size_t)i * (size_t)picture->width + (size_t)columns.begin[j]) * 3;
            const float *weights = columns.weights + (size_t)j * (size_t)columns.taps;
            float sum[3] = {0};
            for (int k = 0; k < columns.count[j]; k++)
                for (int c = 0; c < 3; c++) sum[c] += weights[k] * source[3 * k + c];
            memcpy(lines + ((size_t)(i - top) * (size_t)width + (size_t)j) * 3, sum, sizeof sum);
        }
    size_t plane = (size_t)height * (size_t)width;
    for (int i = 0; i < height; i++)
        for (int j = 0; j < width; j++) {
            const float *source = lines + ((size_t)(rows.begin[i] - top) * (size_t)width + (size_t)j) * 3;
            const float *weights = rows.weights + (size_t)i * (size_t)rows.taps;
            float sum[3] = {0};
            for (int k = 0; k < rows.count[i]; k++)
                for (int c = 0; c < 3; c++) sum[c] += weights[k] * source[(size_t)k * (size_t)width * 3 + (size_t)c];
            size_t to = (size_t)i * (size_t)width + (size_t)j;
            if (channels == 1)
                planes[to] = (unsigned char)(0.299f * sum[0] + 0.587f * sum[1] + 0.114f * sum[2] + 0.5f);
            else
                for (size_t c = 0; c < 3; c++) planes[c * plane + to] = (unsigned char)(sum[c] + 0.5f);
        }
done:
    filter_finish(&rows);
    filter_finish(&columns);
    free(lines);
    return status;
}
