#define _GNU_SOURCE /* vasprintf */
#include "report/html.h"

#include "base/error.h"
#include "data/data.h"

#include <math.h>
#include <nettle/base64.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- text --- */
/* The length of the character of UTF-8 at `bytes`, which a zero ends; 0 where it is none, or none that XML allows. */
static int character_length(const unsigned char *bytes) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    int length = bytes[0] < 0x80 ? 1 : bytes[0] >> 5 == 6 ? 2 : bytes[0] >> 4 == 14 ? 3 : bytes[0] >> 3 == 30 ? 4 : 0;
    if (length == 1) return bytes[0] >= 32 || bytes[0] == '\n' || bytes[0] == '\t';
    if (length == 0) return 0;
    uint32_t code = bytes[0] & (0x7fu >> length);
    for (int i = 1; i < length; i++) {
        if (bytes[i] >> 6 != 2) return 0;
        code = code << 6 | (bytes[i] & 63u);
    }
    bool surrogate = code >= 0xd800 && code <= 0xdfff, none = code == 0xfffe || code == 0xffff;
    return code >= least[length] && code <= 0x10ffff && !surrogate && !none ? length : 0;
}

void html_escape(struct text *page, const char *words) {
    for (const unsigned char *at = (const unsigned char *)words; *at;) {
        int length = character_length(at);
        if (length == 0)
            text_append(page, "\xef\xbf\xbd");
        else if (*at == '&')
            text_append(page, "&amp;");
        else if (*at == '<')
            text_append(page, "&lt;");
        else if (*at == '>')
            text_append(page, "&gt;");
        else if (*at == '"')
            text_append(page, "&quot;");
        else if (*at == '\'')
            text_append(page, "&#39;");
        else
            text_printf(page, "%.*s", length, (const char *)at);
        at += length ? length : 1;
    }
}

void html_escape_format(struct text *page, const char *format, va_list arguments) {
    char *words = NULL;
    if (vasprintf(&words, format, arguments) < 0) {
        page->failed = true;
        return;
    }
    html_escape(page, words);
    free(words);
}

void html_element(struct text *page, const char *tag, const char *format, ...) {
    va_list arguments;
    text_printf(page, "<%s>", tag);
    va_start(arguments, format);
    html_escape_format(page, format, arguments);
    va_end(arguments);
    text_printf(page, "</%.*s>", (int)strcspn(tag, " "), tag);
}

/* --- pictures --- */
void html_png_source(struct text *page, const char *attribute, const unsigned char *png, size_t size) {
    char *coded = malloc(BASE64_ENCODE_RAW_LENGTH(size) + 1);
    if (!coded) {
        page->failed = true;
        return;
    }
    base64_encode_raw(coded, size, png);
    coded[BASE64_ENCODE_RAW_LENGTH(size)] = '\0';
    text_printf(page, "%s=\"data:image/png;base64,", attribute);
    text_append(page, coded);
    text_append(page, "\"");
    free(coded);
}

void html_pixels_source(struct text *page, const char *attribute, int height, int width, int channels,
                        const unsigned char *pixels) {
    unsigned char *png = NULL;
    size_t size;
    if (picture_encode(pixels, height, width, channels, &png, &size) == RETORT_OK)
        html_png_source(page, attribute, png, size);
    else
        page->failed = true;
    free(png);
}

/* --- numbers --- */
struct words words_seconds(double seconds) {
    struct words words = {"unknown"};
    char *text = words.text;
    size_t size = sizeof words.text;
    if (!(seconds >= 0 && seconds < 1e12)) return words;
    long long whole = llround(seconds);
    if (seconds < 0.1)
        snprintf(text, size, "%.3g ms", seconds * 1e3);
    else if (seconds < 9.95)
        snprintf(text, size, "%.2g s", seconds);
    else if (whole < 60)
        snprintf(text, size, "%lld s", whole);
    else if (whole < 3600)
        snprintf(text, size, "%lld min %02lld s", whole / 60, whole % 60);
    else
        snprintf(text, size, "%lld h %02lld min", whole / 3600, whole % 3600 / 60);
    return words;
}

struct words words_bytes(double bytes) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    struct words words = {"unknown"};
    if (!(bytes >= 0)) return words;
    int unit = 0;
    for (; bytes >= 1023.5 && unit < 4; unit++) bytes /= 1024;
    snprintf(words.text, sizeof words.text, "%.*f %s", unit && bytes < 9.95 ? 1 : 0, bytes, units[unit]);
    return words;
}

struct words words_number(double number) {
    struct words words = {"unknown"};
    if (isfinite(number)) snprintf(words.text, sizeof words.text, "%.4g", number);
    return words;
}

/* --- reading JSON --- */
const json_t *json_at(const json_t *object, const char *path) {
    for (;;) {
        size_t length = strcspn(path, ".");
        char name[64];
        if (length >= sizeof name) return NULL;
        snprintf(name, sizeof name, "%.*s", (int)length, path);
        object = json_object_get(object, name);
        if (!object || !path[length]) return object;
        path += length + 1;
    }
}

double json_number_at(const json_t *object, const char *path) {
    const json_t *value = json_at(object, path);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

const char *json_words_at(const json_t *object, const char *path) {
    return json_string_value(json_at(object, path));
}
