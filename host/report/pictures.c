/* The images of the set with their labels, and how they came to be. */
#include "report/html.h"
#include "report/page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A page of some megabytes at most: pixels of all channels that are shown, and images. */
#define MOST_PIXELS    (3 << 20)
#define MOST_IMAGES    600
#define SAMPLE         10
#define LABELS         4
#define EVOLUTION_SIZE 420

static void write_picture(struct text *page, const struct record_set *set, int64_t i) {
    int64_t plane = (int64_t)set->height * set->width;
    int channels = set->channels == 3 ? 3 : 1; /* of other numbers of channels the first is shown */
    const float *image = set->pixels + i * set->channels * plane;
    unsigned char *pixels = malloc((size_t)(plane * channels));
    if (!pixels) {
        page->failed = true;
        return;
    }
    for (int64_t j = 0; j < plane * channels; j++)
        pixels[j] = (unsigned char)lrintf(255 * image[j % channels * plane + j / channels]);
    html_pixels_source(page, "src", set->height, set->width, channels, pixels);
    free(pixels);
}

static void class_words(const struct record *record, int class, char *words, size_t size) {
    const char *name = record_class_name(record, class);
    if (name)
        snprintf(words, size, "%s", name);
    else
        snprintf(words, size, "class %d", class);
}

/* The largest learned labels of an image, as bars: shares of their sum. */
static void write_labels(struct text *page, const struct record *record, int64_t i) {
    const struct record_set *set = &record->set;
    const float *labels = set->soft + i * set->classes;
    int best[LABELS], count = 0;
    double sum = 0;
    for (int k = 0; k < set->classes; k++) {
        if (!(labels[k] > 0)) continue;
        sum += labels[k];
        int at = count < LABELS ? count++ : LABELS;
        for (; at > 0 && labels[best[at - 1]] < labels[k]; at--)
            if (at < LABELS) best[at] = best[at - 1];
        if (at < LABELS) best[at] = k;
    }
    text_append(page, "<div class=\"labels\">");
    for (int j = 0; j < count; j++) {
        char words[128];
        double share = 100 * labels[best[j]] / sum;
        if (j && share < 0.5) break;
        class_words(record, best[j], words, sizeof words);
        text_printf(page, "<span class=\"bar\" style=\"--share:%.1f%%\">", share);
        html_escape(page, words);
        text_printf(page, "</span><b>%.0f%%</b>", share);
    }
    text_append(page, "</div>");
}

static void write_figure(struct text *page, const struct record *record, int64_t i, bool captioned) {
    char words[128];
    class_words(record, record_class(record, i), words, sizeof words);
    text_append(page, "<figure><img class=\"pixels\" alt=\"");
    html_escape(page, words);
    text_append(page, "\" ");
    write_picture(page, &record->set, i);
    text_append(page, "/>");
    if (captioned) html_element(page, "figcaption", "%s", words);
    if (record->set.soft) write_labels(page, record, i);
    text_append(page, "</figure>\n");
}

/* How many images a page has room for. */
static int64_t room_for(const struct record_set *set) {
    int64_t room = MOST_PIXELS / ((int64_t)set->channels * set->height * set->width);
    return room > MOST_IMAGES ? MOST_IMAGES : room < SAMPLE ? SAMPLE : room;
}

/* The number of images from `i` on that are of the same class: those of a class are neighbours. */
static int64_t group_length(const struct record *record, int64_t i) {
    int64_t length = 1;
    while (i + length < record->set.count && record_class(record, i + length) == record_class(record, i)) length++;
    return length;
}

static void say_about(struct text *page, const struct record *record, int64_t per_class, int64_t largest,
                      int64_t groups, int64_t shown) {
    const struct record_set *set = &record->set;
    text_append(page, "<p class=\"hint\">");
    text_printf(page, "%lld images of %d \xc3\x97 %d pixels, %s. ", (long long)set->count, set->width, set->height,
                set->channels == 1   ? "grey"
                : set->channels == 3 ? "in colour"
                                     : "the first channel of each");
    text_append(page, set->exact
                          ? "They are shown as pixels: the normalisation of the training data is undone. "
                          : "They were learned in whitened space, which cannot be undone wholly: the whitening is "
                            "undone, and each image stretched to its own range. ");
    if (largest > per_class) text_printf(page, "Of each class the first %lld are shown. ", (long long)per_class);
    if (groups > shown)
        text_printf(page, "Of %lld classes the first %lld are shown. ", (long long)groups, (long long)shown);
    if (set->soft)
        text_append(page, "Labels are learned: the bars are the largest of each image, as shares of their sum.");
    text_append(page, "</p>\n");
}

void write_images(struct text *page, const struct record *record) {
    const struct record_set *set = &record->set;
    int64_t groups = 0, largest = 0, shown = 0;
    for (int64_t i = 0, length; i < set->count; i += length, groups++) {
        length = group_length(record, i);
        if (length > largest) largest = length;
    }
    int64_t room = room_for(set), per_class = room > groups ? room / groups : 1;
    say_about(page, record, per_class, largest, groups, groups < room ? groups : room);
    const char *size = set->width > 64 ? "set wide" : per_class > 1 && largest > 10 && !set->soft ? "set many" : "set";
    text_printf(page, "<div class=\"%s\">\n", largest == 1 ? size : "classes");
    for (int64_t i = 0, length; i < set->count && shown < room; i += length, shown++) {
        length = group_length(record, i);
        char words[128];
        class_words(record, record_class(record, i), words, sizeof words);
        if (largest > 1) {
            text_append(page, "<div>");
            html_element(page, "h3", "%s", words);
            text_printf(page, "<div class=\"%s\">\n", size);
        }
        for (int64_t j = i; j < i + length && j < i + per_class; j++) write_figure(page, record, j, largest == 1);
        if (largest > 1) text_append(page, "</div></div>\n");
    }
    text_append(page, "</div>\n");
}

void write_sample(struct text *page, const struct record *record) {
    const struct record_set *set = &record->set;
    text_append(page, "<div class=\"set sample\">\n");
    int shown = 0;
    for (int64_t i = 0; i < set->count && shown < SAMPLE; i += group_length(record, i), shown++) {
        char words[128];
        class_words(record, record_class(record, i), words, sizeof words);
        text_append(page, "<figure><img class=\"pixels\" alt=\"");
        html_escape(page, words);
        text_append(page, "\" ");
        write_picture(page, set, i);
        text_append(page, "/>");
        html_element(page, "figcaption", "%s", words);
        text_append(page, "</figure>\n");
    }
    text_append(page, "</div>\n");
}

static uint32_t read_size(const unsigned char *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* Small pictures are enlarged by a whole factor: their width on the page. A PNG begins with its size; 0: not told. */
static int shown_width(const struct preview *preview) {
    if (preview->size < 24) return 0;
    uint32_t width = read_size(preview->png + 16), height = read_size(preview->png + 20), factor = 4;
    if (width < 1 || width > 4096 || height < 1 || height > 4096) return 0;
    while (factor > 1 && (width * factor > EVOLUTION_SIZE || height * factor > EVOLUTION_SIZE)) factor--;
    return (int)(width * factor);
}

void write_evolution(struct text *page, const struct record *record) {
    text_append(page, "<div class=\"evolution\">\n");
    for (size_t i = 0; i < record->previews.count; i++) {
        const struct preview *preview = &record->previews.items[i];
        int width = shown_width(preview);
        text_append(page, "<figure><img class=\"pixels\" alt=\"the set at this step\" ");
        if (width) text_printf(page, "width=\"%d\" ", width);
        html_png_source(page, "src", preview->png, preview->size);
        text_append(page, "/>");
        if (preview->step == PREVIEW_LAST)
            html_element(page, "figcaption", "As last drawn by the run");
        else
            html_element(page, "figcaption", preview->step == 1 ? "After %lld outer step" : "After %lld outer steps",
                         (long long)preview->step);
        text_append(page, "</figure>\n");
    }
    text_append(page, "</div>\n");
}
