/* metrics.jsonl as columns. */
#include "report/record.h"

#include "base/error.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct column *find(const struct metrics_table *metrics, const char *name, bool text) {
    for (size_t i = 0; i < metrics->columns.count; i++) {
        const struct column *column = &metrics->columns.items[i];
        if (column->text == text && strcmp(column->name, name) == 0) return column;
    }
    return NULL;
}

const double *metrics_column(const struct metrics_table *metrics, const char *name) {
    const struct column *column = find(metrics, name, false);
    return column ? column->values.items : NULL;
}

const double *metrics_text_column(const struct metrics_table *metrics, const char *name) {
    const struct column *column = find(metrics, name, true);
    return column ? column->values.items : NULL;
}

/* Fills a column with NaN up to `rows`. */
static bool pad(struct column *column, size_t rows) {
    while (column->values.count < rows)
        if (!array_push(&column->values, NAN)) return false;
    return true;
}

static bool set_value(struct metrics_table *metrics, const char *name, bool text, double value) {
    struct column *column = (struct column *)find(metrics, name, text);
    if (!column) {
        struct column fresh = {.text = text};
        if (strlen(name) >= sizeof fresh.name) return true;
        strcpy(fresh.name, name);
        if (!array_push(&metrics->columns, fresh)) return false;
        column = &metrics->columns.items[metrics->columns.count - 1];
    }
    return pad(column, metrics->rows) && array_push(&column->values, value);
}

static bool find_word(struct metrics_table *metrics, const char *word, double *index) {
    size_t i = 0;
    while (i < metrics->words.count && strcmp(metrics->words.items[i], word) != 0) i++;
    *index = (double)i;
    if (i < metrics->words.count) return true;
    char *copy = strdup(word);
    if (copy && array_push(&metrics->words, copy)) return true;
    free(copy);
    return false;
}

static bool add_row(struct metrics_table *metrics, json_t *row) {
    const char *name;
    json_t *value;
    json_object_foreach(row, name, value) {
        double number = NAN;
        if (json_is_string(value) && !find_word(metrics, json_string_value(value), &number)) return false;
        if (json_is_number(value)) number = json_number_value(value);
        if (!isnan(number) && !set_value(metrics, name, json_is_string(value), number)) return false;
    }
    metrics->rows++;
    return true;
}

int metrics_read(const char *path, struct metrics_table *metrics, size_t *damaged) {
    int status = RETORT_OK;
    unsigned char *text = NULL;
    size_t size;
    struct metrics_table fresh = {0};
    *damaged = 0;
    TRY(file_read(path, 0, &text, &size));
    for (char *line = (char *)text, *end; (end = memchr(line, '\n', size - (size_t)(line - (char *)text)));
         line = end + 1) {
        json_t *row = json_loadb(line, (size_t)(end - line), 0, NULL);
        bool kept = true;
        if (!json_is_object(row))
            ++*damaged;
        else if (json_is_array(json_object_get(row, "profile"))) {
            json_decref(fresh.profile);
            fresh.profile = json_incref(row);
        } else
            kept = add_row(&fresh, row);
        json_decref(row);
        if (!kept) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
    }
    for (size_t i = 0; i < fresh.columns.count; i++)
        if (!pad(&fresh.columns.items[i], fresh.rows)) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
    *metrics = fresh;
    fresh = (struct metrics_table){0};
done:
    metrics_table_finish(&fresh);
    free(text);
    return status;
}

void metrics_table_finish(struct metrics_table *metrics) {
    for (size_t i = 0; i < metrics->columns.count; i++) array_finish(&metrics->columns.items[i].values);
    array_finish(&metrics->columns);
    for (size_t i = 0; i < metrics->words.count; i++) free(metrics->words.items[i]);
    array_finish(&metrics->words);
    json_decref(metrics->profile);
    *metrics = (struct metrics_table){0};
}
