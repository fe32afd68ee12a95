/* What metrics.jsonl has to show. */
#include "report/html.h"
#include "report/page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct curve curves[] = {
    {"loss", "Loss", "of each outer step, which the images are changed to lower"},
    {"accuracy", "Accuracy", "in percent, on the real images of each outer step"},
    {"gradient_norm", "Gradient norm", "of the loss by the images, before clipping"},
    {"window", "Window length", "in inner steps that are differentiated"},
    {"cosine", "Cosine", "between the low-rank and the exact meta-gradient"},
    {"inner_lr", "Inner learning rate", "which is learned with the images"},
    {"seconds", "Seconds", "of each outer step; the first may have built kernels"},
};
const size_t curve_count = sizeof curves / sizeof *curves;

static bool constant(const double *values, size_t count) {
    double first = NAN;
    for (size_t i = 0; i < count; i++) {
        if (isnan(values[i])) continue;
        if (isnan(first)) first = values[i];
        if (values[i] != first) return false;
    }
    return true;
}

/* Stretches of outer steps of one stage; *spans is the caller's to free(). None where they change all the time. */
static size_t find_stages(const struct metrics_table *metrics, struct plot_span **spans) {
    const double *stage = metrics_text_column(metrics, "stage");
    size_t count = 0;
    *spans = NULL;
    struct plot_span *found = stage ? calloc(metrics->rows + 1, sizeof *found) : NULL;
    for (size_t i = 0; found && i < metrics->rows; i++) {
        if (isnan(stage[i])) continue;
        if (!count || i == 0 || stage[i] != stage[i - 1])
            found[count++] =
                (struct plot_span){(double)i, (double)i, metrics->words.items[(size_t)stage[i]], (int)stage[i]};
        found[count - 1].to = (double)i + 1;
    }
    if (count < 2 || count > 200) count = 0;
    *spans = found;
    return count;
}

static void write_caption(struct text *page, const char *title, const char *words) {
    text_append(page, "<figure><figcaption>");
    html_element(page, "strong", "%s", title);
    text_append(page, " ");
    html_escape(page, words);
    text_append(page, "</figcaption>\n");
}

static void write_curve(struct text *page, const struct record *record, struct plot plot, const double *x,
                        const double *y, const char *title, const char *words) {
    struct plot_series series = {x, y, record->metrics.rows, 0};
    plot.label = title;
    plot.series = &series;
    plot.series_count = 1;
    if (!plot_has_points(&plot)) return;
    write_caption(page, title, words);
    plot_lines(page, &plot);
    text_append(page, "</figure>\n");
}

static void write_windows(struct text *page, const struct record *record, struct plot plot, const double *x) {
    const double *end = metrics_column(&record->metrics, "end"), *window = metrics_column(&record->metrics, "window");
    double steps = json_number_at(record->recipe, "inner.steps");
    if (!end || !window || !isfinite(x[0]) || !isfinite(x[record->metrics.rows - 1])) return;
    if (isnan(steps))
        for (size_t i = 0; i < record->metrics.rows; i++) steps = fmax(steps, end[i]);
    if (!(steps >= 1 && steps <= 1e6)) return;
    plot.label = "Position of the window over the run";
    write_caption(page, "Window",
                  "of differentiated inner steps (upwards), over the run: the darker, the more often inside");
    plot_windows(page, &plot, x, end, window, record->metrics.rows, (int)steps);
    text_append(page, "</figure>\n");
}

/* Whether a column has a place of its own on the page. */
static bool is_known(const char *name) {
    for (size_t i = 0; i < curve_count; i++)
        if (strcmp(curves[i].column, name) == 0) return true;
    return strcmp(name, "outer_step") == 0 || strcmp(name, "end") == 0;
}

bool has_curves(const struct record *record) {
    return record->metrics.rows > 0 && metrics_column(&record->metrics, "outer_step");
}

void write_curves(struct text *page, const struct record *record) {
    const struct metrics_table *metrics = &record->metrics;
    const double *x = metrics_column(metrics, "outer_step");
    struct plot_span *spans;
    struct plot plot = {.x_name = "outer step"};
    plot.span_count = find_stages(metrics, &spans);
    plot.spans = spans;
    for (size_t i = 0; i < metrics->rows; i++) plot.x_last = fmax(plot.x_last, x[i]);
    text_append(page, "<p class=\"hint\">");
    if (metrics->rows > 240)
        text_append(page, "Lines are means of neighbouring outer steps, bands go from the least to the largest. ");
    if (plot.span_count) text_append(page, "The strip on top of a plot names the stage of the method.");
    text_append(page, "</p>\n<div class=\"plots\">\n");
    for (size_t i = 0; i < curve_count; i++) {
        const double *y = metrics_column(metrics, curves[i].column);
        if (strcmp(curves[i].column, "window") == 0) write_windows(page, record, plot, x);
        if (y && (i == 0 || !constant(y, metrics->rows)))
            write_curve(page, record, plot, x, y, curves[i].title, curves[i].words);
    }
    for (size_t i = 0; i < metrics->columns.count; i++) {
        const struct column *column = &metrics->columns.items[i];
        if (!column->text && !is_known(column->name) && !constant(column->values.items, metrics->rows))
            write_curve(page, record, plot, x, column->values.items, column->name, "as the method names it");
    }
    text_append(page, "</div>\n");
    free(spans);
}
