/* Headings, paragraphs and tables that are written once and become HTML or Markdown. */
#ifndef RETORT_REPORT_SHEET_H
#define RETORT_REPORT_SHEET_H

#include "report/page.h"

enum { SHEET_COLUMNS = 12 };
struct sheet_column {
    const char *head;
    bool number; /* to the right */
};
struct sheet {
    struct text *page;
    bool markdown;
    /* The table under way. */
    const struct sheet_column *columns;
    int column_count, column; /* the one that the next cell is in */
};

void sheet_section(struct sheet *sheet, const struct page_section *section);
/* `kind` of HTML: "p", "p class=\"note\"". */
void sheet_paragraph(struct sheet *sheet, const char *kind, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Cells follow row by row; the first of a row names it. `columns` are borrowed until the end. */
void sheet_table(struct sheet *sheet, const struct sheet_column *columns, int count);
void sheet_cell(struct sheet *sheet, const char *format, ...) __attribute__((format(printf, 2, 3)));
void sheet_table_end(struct sheet *sheet);

/* Appends words as Markdown's plain text: what would be markup there is none. */
void markdown_escape(struct text *page, const char *words);

#endif
