/* The frame of a page, and what pages of one run and of several share. */
#ifndef RETORT_REPORT_PAGE_H
#define RETORT_REPORT_PAGE_H

#include "report/plot.h"
#include "report/record.h"

/* What a page that this program wrote holds near its top: by it such a page may be written over. */
#define PAGE_MARK "<meta name=\"generator\" content=\"retort report "

struct page_section {
    const char *id, *title;
};
/* Up to the first section, with links to all. */
void page_begin(struct text *page, const char *title);
void page_links(struct text *page, const struct page_section *sections, size_t count);
void page_section(struct text *page, const struct page_section *section);
/* Which line is whose: the name of each style of a plot's series. */
void page_legend(struct text *page, const char *const *names, const int *styles, size_t count);
/* A cell of a table's body. On a narrow screen rows are stacked: each cell says the head of its column then. */
void page_cell(struct text *page, const char *head, bool number, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void page_end(struct text *page);
/* RETORT_EINVAL where the place of a page is taken by anything but an earlier one. */
int page_check_place(const char *path);

/* A row of accuracies as result.json has it. */
struct score {
    const char *name; /* "distilled", "random", "full" */
    double *runs;     /* [count] percent, a value for each network; owned */
    size_t count;
    double mean, sd;
    int64_t step;       /* at which the networks were tested; 0: unknown */
    const char *chosen; /* on what that step was chosen; may be NULL */
};
/* False where the record has no such row. */
bool score_read(const struct record *record, const char *name, struct score *score);
void score_finish(struct score *score);
const char *score_title(const char *name); /* "Distilled images" */
/* "74.4 ± 0.3"; of one network without spread. */
struct words score_words(const struct score *score);

/* "distilled, not evaluated" and the like. */
const char *record_state(const struct record *record);
const char *record_method(const struct record *record); /* never NULL */
/* Metrics that are drawn as curves. */
struct curve {
    const char *column, *title, *words;
};
extern const struct curve curves[];
extern const size_t curve_count;

/* The sections. Each appends nothing where the run has nothing for it. */
void run_page(struct text *page, const struct record *record);
void comparison_page(struct text *page, const struct record *records, size_t count);
void write_images(struct text *page, const struct record *record);
/* One image of each of the first classes, in a row. */
void write_sample(struct text *page, const struct record *record);
void write_evolution(struct text *page, const struct record *record);
void write_curves(struct text *page, const struct record *record);
bool has_curves(const struct record *record);

#endif
