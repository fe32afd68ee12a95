#include "report/page.h"

#include "base/error.h"
#include "base/file.h"
#include "report/html.h"
#include "report/style.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void page_begin(struct text *page, const char *title) {
    text_append(page, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"
                      "<meta charset=\"utf-8\"/>\n" PAGE_MARK RETORT_VERSION "\"/>\n"
                      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n");
    html_element(page, "title", "%s", title);
    text_append(page, "\n<style>\n");
    text_append(page, style_sheet);
    text_append(page, "</style>\n</head>\n<body>\n");
    html_element(page, "h1", "%s", title);
    text_append(page, "\n");
}

void page_links(struct text *page, const struct page_section *sections, size_t count) {
    text_append(page, "<nav>");
    for (size_t i = 0; i < count; i++) text_printf(page, "<a href=\"#%s\">%s</a> ", sections[i].id, sections[i].title);
    text_append(page, "</nav>\n");
}

void page_section(struct text *page, const struct page_section *section) {
    text_printf(page, "<h2 id=\"%s\">%s</h2>\n", section->id, section->title);
}

void page_legend(struct text *page, const char *const *names, const int *styles, size_t count) {
    text_append(page, "<ul class=\"legend\">\n");
    for (size_t i = 0; i < count; i++) {
        text_printf(
            page,
            "<li><svg viewBox=\"0 0 38 12\" aria-hidden=\"true\"><line class=\"line s%d d%d\" x1=\"1\" x2=\"37\" "
            "y1=\"6\" y2=\"6\"/></svg>",
            styles[i] % PLOT_COLOURS, styles[i] % PLOT_DASHES);
        html_escape(page, names[i]);
        text_append(page, "</li>\n");
    }
    text_append(page, "</ul>\n");
}

void page_cell(struct text *page, const char *head, bool number, const char *format, ...) {
    va_list arguments;
    text_append(page, number ? "<td class=\"number\" data-head=\"" : "<td class=\"long\" data-head=\"");
    html_escape(page, head);
    text_append(page, "\">");
    va_start(arguments, format);
    html_escape_format(page, format, arguments);
    va_end(arguments);
    text_append(page, "</td>");
}

void page_end(struct text *page) {
    text_append(page,
                "<footer>Written by Retort " RETORT_VERSION
                ". This page is one file: it loads nothing and can be mailed or kept.</footer>\n</body>\n</html>\n");
}

int page_check_place(const char *path) {
    int status = RETORT_OK;
    char head[1024];
    if (!file_exists(path)) return RETORT_OK;
    if (folder_exists(path)) RAISE(RETORT_EINVAL, "%s is a folder; name a file with --out", path);
    FILE *stream = fopen(path, "rb");
    size_t size = stream ? fread(head, 1, sizeof head - 1, stream) : 0;
    head[size] = '\0';
    if (stream) fclose(stream);
    if (!strstr(head, PAGE_MARK))
        RAISE(RETORT_EINVAL,
              "%s is there and is no report of this program; move it away, or name another file with --out", path);
done:
    return status;
}

/* --- accuracies --- */
bool score_read(const struct record *record, const char *name, struct score *score) {
    const json_t *row = json_object_get(record->accuracy, name), *runs = json_object_get(row, "runs");
    struct score fresh = {.name = name,
                          .count = json_array_size(runs),
                          .mean = json_number_at(row, "mean"),
                          .sd = json_number_at(row, "sd"),
                          .chosen = json_words_at(row, "chosen_on")};
    double step = json_number_at(row, "step");
    if (!(fabs(fresh.mean) < 1e6)) return false;
    fresh.step = step >= 1 && step < 1e15 ? (int64_t)step : 0;
    fresh.runs = calloc(fresh.count + 1, sizeof *fresh.runs);
    if (!fresh.runs) return false;
    for (size_t i = 0; i < fresh.count; i++) {
        const json_t *value = json_array_get(runs, i);
        fresh.runs[i] = fabs(json_number_value(value)) < 1e6 && json_is_number(value) ? json_number_value(value) : NAN;
    }
    *score = fresh;
    return true;
}

void score_finish(struct score *score) {
    free(score->runs);
    *score = (struct score){0};
}

const char *score_title(const char *name) {
    return strcmp(name, "distilled") == 0 ? "Distilled images"
           : strcmp(name, "random") == 0  ? "As many random real images"
           : strcmp(name, "full") == 0    ? "All training images"
                                          : name;
}

struct words score_words(const struct score *score) {
    struct words words;
    int length = snprintf(words.text, sizeof words.text, "%.2f", score->mean);
    if (!isnan(score->sd))
        snprintf(words.text + length, sizeof words.text - (size_t)length, "\xc2\xa0\xc2\xb1\xc2\xa0%.2f", score->sd);
    return words;
}

/* --- what a run is --- */
const char *record_state(const struct record *record) {
    if (record->result) return record->accuracy ? "finished" : "finished, not evaluated";
    if (record->accuracy) return "distilled, its evaluation is not finished";
    int64_t wanted = record_outer_steps(record);
    if (wanted && record->metrics.rows >= (size_t)wanted) return "distilled, not evaluated yet";
    return record->metrics.rows ? "not finished" : "begun, no outer step yet";
}

const char *record_method(const struct record *record) {
    const char *method = json_words_at(record->recipe, "method.name");
    if (!method) method = json_words_at(record->result, "method");
    return method ? method : "bptt"; /* before there were others, none was named */
}
