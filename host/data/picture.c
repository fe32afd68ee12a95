/* PNG (libpng) and JPEG (TurboJPEG) to RGB bytes, and scaling to the size of the set. */
#include "data/readers.h"

#include "base/error.h"
#include "base/log.h"

#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
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

/* A PNG being read from memory. */
struct png_file {
    const unsigned char *bytes;
    size_t left;
    png_structp png;
    png_infop info;
    char words[80]; /* of libpng, when it gives up */
};

static void read_png_bytes(png_structp png, png_bytep to, size_t size) {
    struct png_file *file = png_get_io_ptr(png);
    if (size > file->left) png_error(png, "it ends too early");
    memcpy(to, file->bytes, size);
    file->bytes += size;
    file->left -= size;
}

static void give_up_png(png_structp png, png_const_charp words) {
    struct png_file *file = png_get_error_ptr(png);
    snprintf(file->words, sizeof file->words, "%s", words);
    png_longjmp(png, 1);
}

/* Damage that costs no pixel, in a comment say, is passed over in silence. */
static void ignore_png_warning(png_structp png, png_const_charp words) {
    (void)png, (void)words;
}

/* Reads what stands before the pixels; false when libpng has given up. */
static bool begin_png(struct png_file *file) {
    if (setjmp(png_jmpbuf(file->png))) return false;
    png_set_read_fn(file->png, file, read_png_bytes);
    png_read_info(file->png, file->info);
    return true;
}

/* Reads the pixels as [height,width,4] bytes: red, green, blue and opacity; false when libpng has given up.
 *
 * Values are those that PIL and torchvision find, so that sets made for them read the same here: as they are stored,
 * whatever the file says of gamma or colour space; fewer than 8 bits spread to 0 .. 255; of 16 bits the upper 8. (A
 * grey picture of 16 bits is read so by torchvision's own decoder; PIL's convert() makes all but the darkest 256th of
 * it white, which nobody can want.) */
static bool read_png_pixels(struct png_file *file, unsigned char *rgba) {
    if (setjmp(png_jmpbuf(file->png))) return false;
    png_set_expand(file->png); /* palettes to colours, 1, 2 and 4 bits to 8, a transparent colour to opacity */
    png_set_strip_16(file->png);
    png_set_gray_to_rgb(file->png);
    png_set_add_alpha(file->png, 255, PNG_FILLER_AFTER);
    int passes = png_set_interlace_handling(file->png);
    png_read_update_info(file->png, file->info);
    size_t height = png_get_image_height(file->png, file->info), row = png_get_rowbytes(file->png, file->info);
    for (int pass = 0; pass < passes; pass++)
        for (size_t i = 0; i < height; i++) png_read_row(file->png, rgba + i * row, NULL);
    return true;
}

static int decode_png(const char *name, const unsigned char *bytes, size_t size, struct picture *picture) {
    int status = RETORT_OK;
    struct png_file file = {.bytes = bytes, .left = size};
    unsigned char *pixels = NULL;
    file.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &file, give_up_png, ignore_png_warning);
    file.info = file.png ? png_create_info_struct(file.png) : NULL;
    if (!file.info) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    if (!begin_png(&file))
        RAISE(RETORT_EFORMAT, "cannot read %s: %s; the PNG is damaged: fetch it again", name, file.words);
    int64_t height = png_get_image_height(file.png, file.info), width = png_get_image_width(file.png, file.info);
    bool grey = !(png_get_color_type(file.png, file.info) & PNG_COLOR_MASK_COLOR);
    TRY(check_size(name, height, width));
    /* One bit a pixel is the least a PNG spends before it deflates. */
    TRY(claim_check(name, height * width / 8, size));
    size_t count = (size_t)(height * width);
    pixels = malloc(count * 4);
    if (!pixels) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    if (!read_png_pixels(&file, pixels))
        RAISE(RETORT_EFORMAT, "cannot read %s: %s; the PNG is damaged: fetch it again", name, file.words);
    /* Transparency is laid on white. Each pixel shrinks into bytes that have been read already. */
    for (size_t i = 0; i < count; i++) {
        int opacity = pixels[4 * i + 3];
        for (size_t c = 0; c < 3; c++)
            pixels[3 * i + c] = (unsigned char)((pixels[4 * i + c] * opacity + 255 * (255 - opacity) + 127) / 255);
    }
    *picture = (struct picture){(int)height, (int)width, grey, pixels};
    pixels = NULL;
done:
    if (file.png) png_destroy_read_struct(&file.png, &file.info, NULL);
    free(pixels);
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
    int width = 0, height = 0, sampling, colours = -1;
    if (tjDecompressHeader3(turbo, bytes, size, &width, &height, &sampling, &colours) < 0 && !only_stray_bytes(turbo))
        RAISE(RETORT_EFORMAT, "cannot read %s: %s; the JPEG is damaged: fetch it again", name, tjGetErrorStr2(turbo));
    /* TurboJPEG takes a file that ends before its picture for one of tables alone, and sets nothing. */
    if (colours < 0)
        RAISE(RETORT_EFORMAT, "cannot read %s: it ends before its picture; the JPEG is damaged: fetch it again", name);
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
    /* Inks are stored inverted, as Adobe's programs write them. Each pixel shrinks into bytes that have been read
     * already. */
    for (size_t i = 0; inks && i < count; i++) {
        int black = pixels[4 * i + 3];
        for (size_t c = 0; c < 3; c++) pixels[3 * i + c] = (unsigned char)((pixels[4 * i + c] * black + 127) / 255);
    }
    *picture = (struct picture){height, width, colours == TJCS_GRAY, pixels};
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

int picture_encode(const unsigned char *pixels, int height, int width, int channels, unsigned char **png,
                   size_t *size) {
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .width = (png_uint_32)width,
                       .height = (png_uint_32)height,
                       .format = channels == 4   ? PNG_FORMAT_RGBA
                                 : channels == 3 ? PNG_FORMAT_RGB
                                                 : PNG_FORMAT_GRAY};
    png_alloc_size_t written = PNG_IMAGE_PNG_SIZE_MAX(image);
    unsigned char *fresh = malloc(written);
    if (!fresh || !png_image_write_to_memory(&image, fresh, &written, 0, pixels, 0, NULL)) {
        free(fresh);
        return error_set(RETORT_ENOMEM, "out of memory encoding a picture of %d x %d pixels", height, width);
    }
    *png = fresh;
    *size = written;
    return RETORT_OK;
}
