#include "report/plot.h"

#include "report/html.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDTH  420.0
#define LEFT   48.0
#define RIGHT  406.0
#define TOP    24.0
#define BOTTOM 196.0
#define HEIGHT 234.0
#define BINS   240

/* --- axes --- */
struct axis {
    double low, high, from, to; /* values, and places in the picture */
    double step;                /* between ticks; decades on a logarithmic one */
    bool log;
};

static double place(const struct axis *axis, double value) {
    double low = axis->low, high = axis->high;
    if (axis->log) {
        value = log10(value);
        low = log10(low);
        high = log10(high);
    }
    return axis->from + (value - low) / (high - low) * (axis->to - axis->from);
}

/* The round number 1, 2 or 5 times a power of ten that cuts `range` into at most `most` pieces. */
static double round_step(double range, int most) {
    double power = pow(10, floor(log10(range / most)));
    static const double rounds[] = {1, 2, 5, 10};
    for (int i = 0; i < 4; i++)
        if (range <= rounds[i] * power * most * (1 + 1e-9)) return rounds[i] * power;
    return 10 * power;
}

/* An axis of a few round ticks that holds all from `least` to `largest`; it begins and ends at ticks. */
static struct axis axis_over(double least, double largest, double from, double to, bool may_log, int most) {
    struct axis axis = {.from = from, .to = to, .log = may_log && least > 0 && largest / least > 100};
    if (axis.log) {
        double first = floor(log10(least) + 1e-9), last = ceil(log10(largest) - 1e-9);
        axis.step = ceil((last - first) / 6);
        axis.low = pow(10, first);
        axis.high = pow(10, first + axis.step * ceil((last - first) / axis.step));
        return axis;
    }
    double margin = fabs(largest) > 1e-300 ? fabs(largest) * 0.05 : 1;
    if (!(largest - least > 1e-9 * fabs(largest))) {
        least -= margin;
        largest += margin;
    }
    axis.step = round_step(largest - least, most);
    axis.low = floor(least / axis.step + 1e-9) * axis.step;
    axis.high = ceil(largest / axis.step - 1e-9) * axis.step;
    return axis;
}

static const char *tick_words(const struct axis *axis, double value, char words[32]) {
    double size = fabs(value);
    if (!axis->log && size < axis->step * 1e-6)
        snprintf(words, 32, "0");
    else if (size >= 1e6)
        snprintf(words, 32, "%gM", value * 1e-6);
    else if (size >= 1e4)
        snprintf(words, 32, "%gk", value * 1e-3);
    else
        snprintf(words, 32, "%.6g", value);
    return words;
}

static int tick_count(const struct axis *axis) {
    double ticks = axis->log ? log10(axis->high / axis->low) / axis->step : (axis->high - axis->low) / axis->step;
    return (int)floor(ticks + 1e-6) + 1;
}

static double tick(const struct axis *axis, int i) {
    return axis->log ? axis->low * pow(10, i * axis->step) : axis->low + i * axis->step;
}

static void draw_x_axis(struct text *page, const struct axis *x, double top, double bottom, const char *name) {
    char words[32];
    for (int i = 0; i < tick_count(x); i++) {
        double at = place(x, tick(x, i));
        text_printf(page, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", at, at, top,
                    bottom);
        text_printf(page, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%s</text>", at, bottom + 15,
                    tick_words(x, tick(x, i), words));
    }
    text_printf(page, "<text class=\"name\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">", (x->from + x->to) / 2,
                bottom + 32);
    html_escape(page, name);
    text_append(page, "</text>");
}

static void draw_y_axis(struct text *page, const struct axis *y) {
    char words[32];
    for (int i = 0; i < tick_count(y); i++) {
        double at = place(y, tick(y, i));
        text_printf(page, "<line class=\"grid\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT, RIGHT, at,
                    at);
        text_printf(page, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%s</text>", LEFT - 6, at + 4,
                    tick_words(y, tick(y, i), words));
    }
}

/* From 0 to where the plot ends, which need not be a tick. */
static struct axis x_axis_to(double last) {
    struct axis axis = {.from = LEFT, .to = RIGHT, .low = 0, .high = last > 0 ? last : 1};
    axis.step = round_step(axis.high, 6);
    return axis;
}

static void begin_picture(struct text *page, const char *label, double height) {
    text_printf(page, "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"", WIDTH, height);
    html_escape(page, label);
    text_append(page, "\">");
}

static void draw_spans(struct text *page, const struct plot *plot, const struct axis *x) {
    for (size_t i = 0; i < plot->span_count; i++) {
        const struct plot_span *span = &plot->spans[i];
        double from = place(x, span->from), width = place(x, span->to) - from;
        text_printf(page, "<rect class=\"span%d\" x=\"%.1f\" y=\"4\" width=\"%.1f\" height=\"14\"><title>",
                    span->shade % 3, from, fmax(width, 0.5));
        html_escape(page, span->word);
        text_printf(page, ", outer steps %.0f to %.0f</title></rect>", span->from + 1, span->to);
        if (width > 7.0 * (double)strlen(span->word) + 6) {
            text_printf(page, "<text class=\"name\" x=\"%.1f\" y=\"15\">", from + 5);
            html_escape(page, span->word);
            text_append(page, "</text>");
        }
        if (i && plot->span_count <= 12)
            text_printf(page, "<line class=\"change\" x1=\"%.1f\" x2=\"%.1f\" y1=\"4\" y2=\"%.1f\"/>", from, from,
                        BOTTOM);
    }
}

/* --- lines --- */
/* Numbers of a size that no axis can have are no points. */
static bool is_drawable(double value) {
    return fabs(value) < 1e30;
}

static bool is_point(const struct plot_series *series, size_t i) {
    return is_drawable(series->x[i]) && is_drawable(series->y[i]);
}

bool plot_has_points(const struct plot *plot) {
    for (size_t s = 0; s < plot->series_count; s++)
        for (size_t i = 0; i < plot->series[s].count; i++)
            if (is_point(&plot->series[s], i)) return true;
    return false;
}

static void draw_band(struct text *page, const struct axis *y, const double *at, const double *least,
                      const double *largest, int bins, int style) {
    text_printf(page, "<polygon class=\"band f%d\" points=\"", style % PLOT_COLOURS);
    for (int i = 0; i < bins; i++) text_printf(page, "%.1f,%.1f ", at[i], place(y, largest[i]));
    for (int i = bins; i--;) text_printf(page, "%.1f,%.1f ", at[i], place(y, least[i]));
    text_append(page, "\"/>");
}

static void draw_series(struct text *page, const struct plot_series *series, const struct axis *x, const struct axis *y,
                        bool dots) {
    double at[BINS], mean[BINS], least[BINS], largest[BINS];
    size_t count = 0, bins, seen = 0;
    int members[BINS] = {0};
    for (size_t i = 0; i < series->count; i++) count += is_point(series, i);
    if (!count) return;
    bins = count < BINS ? count : BINS;
    memset(at, 0, sizeof at);
    memset(mean, 0, sizeof mean);
    for (size_t i = 0; i < series->count; i++) {
        if (!is_point(series, i)) continue;
        size_t bin = seen++ * bins / count;
        double value = series->y[i];
        least[bin] = members[bin] && least[bin] < value ? least[bin] : value;
        largest[bin] = members[bin] && largest[bin] > value ? largest[bin] : value;
        at[bin] += place(x, series->x[i]);
        mean[bin] += y->log ? log10(value) : value;
        members[bin]++;
    }
    for (size_t i = 0; i < bins; i++) {
        at[i] /= members[i];
        mean[i] = y->log ? pow(10, mean[i] / members[i]) : mean[i] / members[i];
    }
    if (bins < count) draw_band(page, y, at, least, largest, (int)bins, series->style);
    text_printf(page, "<polyline class=\"line s%d d%d\" points=\"", series->style % PLOT_COLOURS,
                series->style % PLOT_DASHES);
    for (size_t i = 0; i < bins; i++) text_printf(page, "%.1f,%.1f ", at[i], place(y, mean[i]));
    text_append(page, "\"/>");
    for (size_t i = 0; i < bins && (dots || bins == 1); i++)
        text_printf(page, "<circle class=\"f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"/>", series->style % PLOT_COLOURS,
                    at[i], place(y, mean[i]));
}

void plot_lines(struct text *page, const struct plot *plot) {
    double least = INFINITY, largest = -INFINITY, last = plot->x_last;
    for (size_t s = 0; s < plot->series_count; s++)
        for (size_t i = 0; i < plot->series[s].count; i++) {
            if (!is_point(&plot->series[s], i)) continue;
            least = fmin(least, plot->series[s].y[i]);
            largest = fmax(largest, plot->series[s].y[i]);
            last = fmax(last, plot->series[s].x[i]);
        }
    if (!(least <= largest)) return;
    struct axis x = x_axis_to(last), y = axis_over(least, largest, BOTTOM, TOP, true, 5);
    begin_picture(page, plot->label, HEIGHT);
    draw_x_axis(page, &x, TOP, BOTTOM, plot->x_name);
    draw_y_axis(page, &y);
    draw_spans(page, plot, &x);
    for (size_t s = 0; s < plot->series_count; s++) draw_series(page, &plot->series[s], &x, &y, plot->dots);
    text_append(page, "</svg>\n");
}

/* --- windows --- */
/* One pixel for each of `columns` stretches of outer steps and `rows` of inner steps, the first inner step below. */
static void fill_windows(const double *end, const double *window, size_t count, int steps, int columns, int rows,
                         unsigned char *pixels) {
    float *share = calloc((size_t)columns * (size_t)rows, sizeof *share);
    int *members = calloc((size_t)columns, sizeof *members);
    for (size_t i = 0; share && members && i < count; i++) {
        if (!(end[i] >= 0 && end[i] <= steps && window[i] >= 0 && window[i] <= end[i])) continue;
        size_t column = i * (size_t)columns / count;
        members[column]++;
        for (int row = 0; row < rows; row++) {
            double step = (row + 0.5) / rows * steps;
            if (step > end[i] - window[i] && step <= end[i]) share[column * (size_t)rows + (size_t)row]++;
        }
    }
    for (int column = 0; share && members && column < columns; column++)
        for (int row = 0; row < rows; row++) {
            unsigned char *pixel = pixels + 4 * ((rows - 1 - row) * columns + column);
            float most = members[column] ? share[column * rows + row] / (float)members[column] : 0;
            memcpy(pixel, (unsigned char[]){0x3a, 0x86, 0xc8, (unsigned char)lrintf(235 * most)}, 4);
        }
    free(share);
    free(members);
}

void plot_windows(struct text *page, const struct plot *plot, const double *x, const double *end, const double *window,
                  size_t count, int steps) {
    int columns = count < 300 ? (int)count : 300, rows = steps < 200 ? steps : 200;
    unsigned char *pixels = calloc((size_t)columns * (size_t)rows, 4);
    if (!pixels) {
        page->failed = true;
        return;
    }
    struct axis across = x_axis_to(plot->x_last), up = axis_over(0, steps, BOTTOM, TOP, false, 5);
    up.high = steps; /* the axis ends where the training does */
    fill_windows(end, window, count, steps, columns, rows, pixels);
    begin_picture(page, plot->label, HEIGHT);
    draw_x_axis(page, &across, TOP, BOTTOM, plot->x_name);
    draw_y_axis(page, &up);
    double left = place(&across, x[0] - 1), right = place(&across, x[count - 1]);
    text_printf(page,
                "<image class=\"pixels\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                "preserveAspectRatio=\"none\" ",
                left, TOP, right - left, BOTTOM - TOP);
    html_pixels_source(page, "href", rows, columns, 4, pixels);
    text_append(page, "/>");
    draw_spans(page, plot, &across);
    text_append(page, "</svg>\n");
    free(pixels);
}

/* --- strips --- */
#define STRIP 46.0

static void draw_strip(struct text *page, const struct plot_strip *strip, const struct axis *x, double top) {
    double middle = top + 30, mean = place(x, strip->mean);
    int colour = strip->style % PLOT_COLOURS;
    text_printf(page, "<text class=\"row\" x=\"8\" y=\"%.1f\">", top + 13);
    html_escape(page, strip->name);
    text_printf(page, "</text><text class=\"row\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.2f", WIDTH - 14, top + 13,
                strip->mean);
    if (isfinite(strip->sd)) text_printf(page, " \xc2\xb1 %.2f", strip->sd);
    text_append(page, "</text>");
    if (isfinite(strip->sd))
        text_printf(page, "<line class=\"spread s%d\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", colour,
                    place(x, strip->mean - strip->sd), place(x, strip->mean + strip->sd), middle, middle);
    for (size_t i = 0; i < strip->count; i++)
        if (isfinite(strip->values[i]))
            text_printf(page, "<circle class=\"dot f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"><title>%.2f</title></circle>",
                        colour, place(x, strip->values[i]), middle, strip->values[i]);
    text_printf(page, "<line class=\"mean s%d\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\"/>", colour, mean, mean,
                middle - 8, middle + 8);
}

void plot_strips(struct text *page, const char *label, const char *unit, const struct plot_strip *strips,
                 size_t count) {
    double least = INFINITY, largest = -INFINITY;
    for (size_t s = 0; s < count; s++) {
        double sd = isfinite(strips[s].sd) ? strips[s].sd : 0;
        least = fmin(least, strips[s].mean - sd);
        largest = fmax(largest, strips[s].mean + sd);
        for (size_t i = 0; i < strips[s].count; i++) {
            least = fmin(least, strips[s].values[i]);
            largest = fmax(largest, strips[s].values[i]);
        }
    }
    if (!is_drawable(least) || !is_drawable(largest)) return;
    struct axis x = axis_over(least, largest, 14, WIDTH - 14, false, 6);
    double bottom = 4 + STRIP * (double)count;
    begin_picture(page, label, bottom + 38);
    draw_x_axis(page, &x, 4, bottom, unit);
    for (size_t s = 0; s < count; s++) draw_strip(page, &strips[s], &x, 4 + STRIP * (double)s);
    text_append(page, "</svg>\n");
}

/* --- rooflines --- */
#define ROOF_BOTTOM 300.0 /* taller than other plots: decades on both axes */

void plot_mark(struct text *page, int mark, int style, double x, double y, const char *words) {
    text_printf(page, "<path class=\"dot f%d\" d=\"", style % PLOT_COLOURS);
    switch (mark % PLOT_MARKS) {
    case 0:
        text_printf(page, "M%.1f %.1fa4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", x - 4, y);
        break;
    case 1:
        text_printf(page, "M%.1f %.1fh7v7h-7z", x - 3.5, y - 3.5);
        break;
    case 2:
        text_printf(page, "M%.1f %.1fl4.5 8h-9z", x, y - 5);
        break;
    default:
        text_printf(page, "M%.1f %.1fl5 5l-5 5l-5 -5z", x, y - 5);
        break;
    }
    text_append(page, "\"><title>");
    html_escape(page, words);
    text_append(page, "</title></path>");
}

/* Whole decades from below `least` to above `largest`, a pair at least. */
static struct axis decades(double least, double largest, double from, double to) {
    struct axis axis = {.from = from, .to = to, .log = true};
    double first = floor(log10(least) + 1e-9), last = ceil(log10(largest) - 1e-9);
    if (last < first + 2) last = first + 2;
    axis.step = ceil((last - first) / 8);
    axis.low = pow(10, first);
    axis.high = pow(10, first + axis.step * ceil((last - first) / axis.step));
    return axis;
}

static bool has_roof(const struct plot_roof *roof) {
    return roof->flops > 1e-30 && roof->bytes > 1e-30 && is_drawable(roof->flops) && is_drawable(roof->bytes);
}

static bool is_above_zero(const struct plot_point *point) {
    return point->x > 1e-30 && point->y > 1e-30 && is_drawable(point->x) && is_drawable(point->y);
}

/* Along memory's slope to the ridge, and along arithmetic's level. */
static void draw_roof(struct text *page, const struct plot_roof *roof, const struct axis *x, const struct axis *y) {
    double ridge = roof->flops / roof->bytes, level = place(y, roof->flops);
    double left = fmax(x->low, y->low / roof->bytes);
    text_printf(page, "<polyline class=\"line s%d d%d\" points=\"%.1f,%.1f %.1f,%.1f %.1f,%.1f\"/>",
                roof->style % PLOT_COLOURS, roof->style % PLOT_DASHES, place(x, left), place(y, left * roof->bytes),
                place(x, ridge), level, x->to, level);
}

void plot_rooflines(struct text *page, const char *label, const struct plot_roof *roofs, size_t count) {
    double least_x = INFINITY, largest_x = 0, least_y = INFINITY, largest_y = 0;
    for (size_t i = 0; i < count; i++) {
        const struct plot_roof *roof = &roofs[i];
        if (has_roof(roof)) { /* some of both slopes is to be seen */
            least_x = fmin(least_x, roof->flops / roof->bytes / 10);
            largest_x = fmax(largest_x, roof->flops / roof->bytes * 10);
            least_y = fmin(least_y, roof->flops / 10);
            largest_y = fmax(largest_y, roof->flops);
        }
        for (size_t p = 0; p < roof->count; p++) {
            if (!is_above_zero(&roof->points[p])) continue;
            least_x = fmin(least_x, roof->points[p].x);
            largest_x = fmax(largest_x, roof->points[p].x);
            least_y = fmin(least_y, roof->points[p].y);
            largest_y = fmax(largest_y, roof->points[p].y);
        }
    }
    if (!(least_x <= largest_x)) return;
    struct axis x = decades(least_x, largest_x, LEFT, RIGHT), y = decades(least_y, largest_y, ROOF_BOTTOM, TOP);
    begin_picture(page, label, ROOF_BOTTOM + 38);
    draw_x_axis(page, &x, TOP, ROOF_BOTTOM, "operations a byte");
    struct axis giga = y; /* named by GFLOP/s */
    giga.low *= 1e-9;
    giga.high *= 1e-9;
    draw_y_axis(page, &giga);
    for (size_t i = 0; i < count; i++)
        if (has_roof(&roofs[i])) draw_roof(page, &roofs[i], &x, &y);
    for (size_t i = 0; i < count; i++)
        for (size_t p = 0; p < roofs[i].count; p++) {
            const struct plot_point *point = &roofs[i].points[p];
            if (is_above_zero(point))
                plot_mark(page, point->mark, roofs[i].style, place(&x, point->x), place(&y, point->y), point->words);
        }
    text_append(page, "</svg>\n");
}
