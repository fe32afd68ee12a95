#define _GNU_SOURCE /* vasprintf */
#include "report/sheet.h"

#include "report/html.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void markdown_escape(struct text *page, const char *words) {
    for (; *words; words++) {
        if (*words == '<')
            text_append(page, "&lt;");
        else if (*words == '&')
            text_append(page, "&amp;");
        else if (strchr("|*_`\\[]#", *words))
            text_printf(page, "\\%c", *words);
        else
            text_printf(page, "%c", (unsigned char)*words < 32 ? ' ' : *words);
    }
}

static void write_words(struct sheet *sheet, const char *format, va_list arguments) {
    char *words = NULL;
    if (!sheet->markdown) {
        html_escape_format(sheet->page, format, arguments);
        return;
    }
    if (vasprintf(&words, format, arguments) < 0) {
        sheet->page->failed = true;
        return;
    }
    markdown_escape(sheet->page, words);
    free(words);
}

void sheet_section(struct sheet *sheet, const struct page_section *section) {
    if (sheet->markdown)
        text_printf(sheet->page, "## %s\n\n", section->title);
    else
        page_section(sheet->page, section);
}

void sheet_paragraph(struct sheet *sheet, const char *kind, const char *format, ...) {
    va_list arguments;
    if (!sheet->markdown) text_printf(sheet->page, "<%s>", kind);
    va_start(arguments, format);
    write_words(sheet, format, arguments);
    va_end(arguments);
    if (sheet->markdown)
        text_append(sheet->page, "\n\n");
    else
        text_printf(sheet->page, "</%.*s>\n", (int)strcspn(kind, " "), kind);
}

void sheet_table(struct sheet *sheet, const struct sheet_column *columns, int count) {
    struct text *page = sheet->page;
    sheet->columns = columns;
    sheet->column_count = count;
    sheet->column = 0;
    if (sheet->markdown) {
        for (int i = 0; i < count; i++) text_printf(page, "| %s ", columns[i].head);
        text_append(page, "|\n");
        for (int i = 0; i < count; i++) text_append(page, columns[i].number ? "| ---: " : "| --- ");
        text_append(page, "|\n");
        return;
    }
    text_append(page, "<div class=\"table\"><table><thead><tr>");
    for (int i = 0; i < count; i++)
        html_element(page, columns[i].number ? "th class=\"number\"" : "th", "%s", columns[i].head);
    text_append(page, "</tr></thead><tbody>\n");
}

void sheet_cell(struct sheet *sheet, const char *format, ...) {
    struct text *page = sheet->page;
    const struct sheet_column *column = &sheet->columns[sheet->column];
    const bool first = sheet->column == 0, last = sheet->column == sheet->column_count - 1;
    if (sheet->markdown)
        text_append(page, "| ");
    else if (first)
        text_append(page, "<tr><th>");
    else {
        text_append(page, column->number ? "<td class=\"number\" data-head=\"" : "<td data-head=\"");
        html_escape(page, column->head);
        text_append(page, "\">");
    }
    va_list arguments;
    va_start(arguments, format);
    write_words(sheet, format, arguments);
    va_end(arguments);
    if (sheet->markdown)
        text_append(page, last ? " |\n" : " ");
    else
        text_append(page, first ? "</th>" : last ? "</td></tr>\n" : "</td>");
    sheet->column = last ? 0 : sheet->column + 1;
}

void sheet_table_end(struct sheet *sheet) {
    text_append(sheet->page, sheet->markdown ? "\n" : "</tbody></table></div>\n");
}
