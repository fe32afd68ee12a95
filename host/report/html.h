/* Pieces of HTML. All that comes from files goes through html_element or html_escape: names of folders, classes and
 * devices are anybody's. What is written is well-formed XML too, so that a strict parser can check it. */
#ifndef RETORT_REPORT_HTML_H
#define RETORT_REPORT_HTML_H

#include "base/memory.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdint.h>

/* Appends the words as text of an element or a quoted attribute: what is no UTF-8, or no character of XML, becomes
 * U+FFFD. */
void html_escape(struct text *page, const char *words);
/* Appends <TAG>words</TAG>, the words formatted and then escaped. `tag` may have attributes behind the name. */
void html_element(struct text *page, const char *tag, const char *format, ...) __attribute__((format(printf, 3, 4)));
void html_escape_format(struct text *page, const char *format, va_list arguments);

/* Appends src="data:image/png;base64,..." for a file's bytes. */
void html_png_source(struct text *page, const char *attribute, const unsigned char *png, size_t size);
/* The same for pixels [height,width,channels] of one byte: 1 grey, 3 colour, 4 colour with alpha. */
void html_pixels_source(struct text *page, const char *attribute, int height, int width, int channels,
                        const unsigned char *pixels);

/* Words for eyes, in `out`, which is returned: "1 min 24 s"; "312 MiB"; a number in few digits. "unknown" for NaN. */
struct words {
    char text[64];
};
struct words words_seconds(double seconds);
struct words words_bytes(double bytes);
struct words words_number(double number);

/* The member of nested objects at "a.b.c"; NULL where there is none. */
const json_t *json_at(const json_t *object, const char *path);
double json_number_at(const json_t *object, const char *path);     /* NaN where there is no number */
const char *json_words_at(const json_t *object, const char *path); /* NULL where there is no text */

#endif
