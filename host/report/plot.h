/* Plots as inline SVG: sizes are in units of a picture 420 wide, which the page shows at 330 to 480 pixels, so that
 * letters stay readable on a telephone and on paper. Colours are classes of the page's style sheet: s0, s1, ... of
 * series, each with a pattern of dashes too. */
#ifndef RETORT_REPORT_PLOT_H
#define RETORT_REPORT_PLOT_H

#include "base/memory.h"

#include <stdint.h>

#define PLOT_COLOURS 6
#define PLOT_DASHES  4

struct plot_series {
    const double *x, *y; /* [count]; what is not finite is left out */
    size_t count;
    int style; /* of its line; any number, colours return after PLOT_COLOURS */
};
/* A stretch of x with a name, drawn above the plot. */
struct plot_span {
    double from, to;
    const char *word;
    int shade;
};
struct plot {
    const char *label; /* what it shows, for those who cannot see it */
    const char *x_name;
    double x_last; /* the axis goes from 0 to here, at least */
    bool dots;     /* mark the points */
    const struct plot_series *series;
    size_t series_count;
    const struct plot_span *spans;
    size_t span_count;
};
/* Whether there is anything to draw: at least one finite point. */
bool plot_has_points(const struct plot *plot);
/* Lines over a common x. The y axis is logarithmic where the values are positive and span more than a factor of 100.
 * Series of more points than there are pixels become their mean in a band from least to largest. */
void plot_lines(struct text *page, const struct plot *plot);

/* Which of steps 1 .. `steps` of the inner training lay in the window (end - window, end], over the outer steps
 * x[count]: darker where it did more often. */
void plot_windows(struct text *page, const struct plot *plot, const double *x, const double *end, const double *window,
                  size_t count, int steps);

/* Rows of single values, each a dot, with mean and standard deviation. */
struct plot_strip {
    const char *name;
    const double *values;
    size_t count;
    double mean, sd; /* sd NaN: none */
    int style;
};
void plot_strips(struct text *page, const char *label, const char *unit, const struct plot_strip *strips, size_t count);

/* Devices under their roofs: what arithmetic and memory allow at best, over the operations done for each byte; both
 * axes logarithmic. */
enum { PLOT_MARKS = 4 }; /* circle, square, triangle, diamond */
struct plot_point {
    double x, y;       /* operations a byte; operations a second */
    int mark;          /* any number, marks return after PLOT_MARKS */
    const char *words; /* shown where a mouse rests on it */
};
struct plot_roof {
    double flops, bytes; /* per second; points without a roof where they are not positive */
    const struct plot_point *points;
    size_t count;
    int style;
};
void plot_rooflines(struct text *page, const char *label, const struct plot_roof *roofs, size_t count);
/* A mark by itself, around (x, y) of a picture. */
void plot_mark(struct text *page, int mark, int style, double x, double y, const char *words);

#endif
