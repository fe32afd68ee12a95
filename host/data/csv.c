/* Pictures listed in a text: a path and a label a line, separated by commas, semicolons or tabs, quoted as spreadsheets
 * do (RFC 4180). A first line may name the columns; one of them may say which part a line is of. Paths start at the
 * text's folder. Labels are words or numbers; classes are the different ones among the training lines, numbers in
 * their order, words by byte value. */
#include "data/readers.h"

#include "base/error.h"
#include "base/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COLUMNS_MAX = 64, CLASSES_MAX = 1 << 16, FILE_MAX = 1 << 30 };
enum part_kind { PART_TRAIN, PART_TEST, PART_VALIDATION, PART_UNKNOWN };

/* --- lines --- */
struct line {
    const char *path, *label; /* into the text, which is cut up in place */
    enum part_kind part;
    int number;
};
struct table {
    unsigned char *text;
    struct line *items;
    size_t count, capacity;
};

static void table_finish(struct table *table) {
    free(table->text);
    array_finish(table);
}

/* Where a table's columns are; -1: it has no such column. */
struct columns {
    int path, label, part, count;
};

static int word_in(const char *word, const char *const *words) {
    for (int i = 0; words[i]; i++)
        if (strcasecmp(word, words[i]) == 0) return i;
    return -1;
}

static enum part_kind part_of(const char *word) {
    static const char *const train[] = {"train", "training", NULL}, *const test[] = {"test", "testing", NULL};
    static const char *const validation[] = {"val", "valid", "validation", NULL};
    return word_in(word, train) >= 0        ? PART_TRAIN
           : word_in(word, test) >= 0       ? PART_TEST
           : word_in(word, validation) >= 0 ? PART_VALIDATION
                                            : PART_UNKNOWN;
}

static bool names_picture(const char *cell) {
    static const char *const endings[] = {".png", ".jpg", ".jpeg", NULL};
    const char *dot = strrchr(cell, '.');
    return dot && word_in(dot, endings) >= 0;
}

/* Cuts one line into cells, in place. Returns what follows the line, NULL at the end; *count is -1 where a quote is not
 * closed, and COLUMNS_MAX + 1 where there are more. */
static char *cut_line(char *from, char separator, char *cells[COLUMNS_MAX], int *count, int *lines) {
    *count = 0;
    *lines = 1;
    for (;;) {
        while (*from == ' ') from++;
        bool quoted = *from == '"';
        char *cell = quoted ? ++from : from, *to = cell;
        for (; quoted ? *from != '\0' : *from && *from != separator && *from != '\n'; from++) {
            if (quoted && *from == '"' && *++from != '"') break;
            *lines += *from == '\n';
            *to++ = *from;
        }
        if (quoted && from[-1] != '"') {
            *count = -1;
            return NULL;
        }
        while (*from == ' ' || *from == '\r') from++;
        char end = *from;
        while (!quoted && to > cell && (to[-1] == ' ' || to[-1] == '\r')) to--;
        *to = '\0';
        if (*count < COLUMNS_MAX) cells[*count] = cell;
        if (*count <= COLUMNS_MAX) ++*count;
        if (end && end != separator && end != '\n') *count = -1; /* something after a closing quote */
        if (end == '\0' || *count < 0) return NULL;
        from++;
        if (end != separator) return from;
    }
}

/* The separator that the first line has: tabs and semicolons before commas, which stand in names now and then. */
static char find_separator(const char *text) {
    size_t length = strcspn(text, "\n");
    return memchr(text, '\t', length) ? '\t' : memchr(text, ';', length) ? ';' : ',';
}

/* What the first line says of the columns: names, or the first row itself (*named false). */
static int find_columns(const char *name, char *const *cells, int count, struct columns *columns, bool *named) {
    static const char *const paths[] = {"path",      "file",     "filename",   "file_name",  "filepath",
                                        "file_path", "image",    "image_path", "image_file", "image_name",
                                        "img",       "img_path", "picture",    NULL};
    static const char *const labels[] = {"label", "labels", "class", "class_name", "target", "category", "y", NULL};
    static const char *const parts[] = {"split", "part", "set", "subset", "partition", NULL};
    *columns = (struct columns){-1, -1, -1, count};
    for (int i = count - 1; i >= 0; i--) {
        if (word_in(cells[i], paths) >= 0) columns->path = i;
        if (word_in(cells[i], labels) >= 0) columns->label = i;
        if (word_in(cells[i], parts) >= 0) columns->part = i;
    }
    *named = columns->path >= 0 && columns->label >= 0;
    if (*named) return RETORT_OK;
    *columns = (struct columns){-1, -1, -1, count};
    for (int i = 0; i < count && columns->path < 0; i++)
        if (names_picture(cells[i])) columns->path = i;
    for (int i = 0; count == 3 && i < count; i++)
        if (i != columns->path && part_of(cells[i]) != PART_UNKNOWN) columns->part = i;
    for (int i = 0; i < count && columns->label < 0; i++)
        if (i != columns->path && i != columns->part) columns->label = i;
    if (columns->path < 0 || count < 2 || count > (columns->part < 0 ? 2 : 3))
        return error_set(RETORT_EFORMAT,
                         "%s: line 1 is neither a row `picture.png,label` nor names of columns; expected a header such "
                         "as path,label or path,label,split",
                         name);
    return RETORT_OK;
}

static int add_line(const char *name, char *const *cells, int count, const struct columns *columns, int number,
                    struct table *table) {
    int status = RETORT_OK;
    if (count != columns->count)
        RAISE(RETORT_EFORMAT,
              "%s: line %d: found %d columns%s, expected %d as in line 1; put cells that hold the "
              "separator into double quotes",
              name, number, count < 0 ? 0 : count,
              count < 0 ? " (a quote is not closed, or something follows one)" : "", columns->count);
    struct line line = {cells[columns->path], cells[columns->label], PART_TRAIN, number};
    if (columns->part >= 0) line.part = part_of(cells[columns->part]);
    if (line.part == PART_UNKNOWN)
        RAISE(RETORT_EFORMAT, "%s: line %d: part '%s'; expected train, test or val", name, number,
              cells[columns->part]);
    if (!*line.path || !*line.label)
        RAISE(RETORT_EFORMAT, "%s: line %d: the %s is empty; give one or remove the line", name, number,
              *line.path ? "label" : "path");
    if (!array_push(table, line)) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
done:
    return status;
}

static int table_read(const char *path, struct table *table) {
    int status = RETORT_OK;
    size_t size;
    struct columns columns = {0};
    TRY(file_read(path, FILE_MAX, &table->text, &size));
    char *text = (char *)table->text;
    if (strlen(text) != size)
        RAISE(RETORT_EFORMAT, "%s holds a zero byte: it is not a text; save it as CSV in UTF-8", path);
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) text += 3; /* spreadsheets mark UTF-8 so */
    char separator = find_separator(text);
    bool first = true;
    for (int number = 1, lines; text && *text; number += lines) {
        char *cells[COLUMNS_MAX];
        int count;
        text = cut_line(text, separator, cells, &count, &lines);
        if (count == 1 && !*cells[0]) continue; /* an empty line */
        bool named = false;
        if (first && count >= 0 && count <= COLUMNS_MAX) TRY(find_columns(path, cells, count, &columns, &named));
        if (first && (count < 0 || count > COLUMNS_MAX))
            RAISE(RETORT_EFORMAT, "%s: line %d: %s", path, number,
                  count < 0 ? "a quote is not closed, or something follows one"
                            : "more columns than a list of pictures has");
        first = false;
        if (!named) TRY(add_line(path, cells, count, &columns, number, table));
    }
    if (!table->count) RAISE(RETORT_EFORMAT, "%s lists no pictures; expected lines such as cats/1.png,cat", path);
done:
    return status;
}

/* --- classes --- */
static bool is_number(const char *word) {
    size_t digits = strspn(word, "0123456789");
    return digits > 0 && digits <= 9 && !word[digits];
}

static int compare_words(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_numbers(const void *a, const void *b) {
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    int difference = (atoi(x) > atoi(y)) - (atoi(x) < atoi(y));
    return difference ? difference : strcmp(x, y);
}

typedef int (*word_order)(const void *, const void *);

/* The different labels of the training lines, sorted. */
static int find_classes(const char *name, const struct table *table, struct source *source, word_order *order) {
    int status = RETORT_OK;
    size_t count = 0, different = 0;
    bool numbers = true;
    const char **words = malloc(table->count * sizeof *words);
    if (!words) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    for (size_t i = 0; i < table->count; i++) {
        if (table->items[i].part != PART_TRAIN) continue;
        words[count++] = table->items[i].label;
        numbers &= is_number(table->items[i].label);
    }
    if (!count) RAISE(RETORT_EFORMAT, "%s has no line of the part train; mark some so", name);
    *order = numbers ? compare_numbers : compare_words;
    qsort(words, count, sizeof *words, *order);
    for (size_t i = 0; i < count; i++)
        if (i == 0 || strcmp(words[i], words[different - 1]) != 0) words[different++] = words[i];
    if (different > CLASSES_MAX)
        RAISE(RETORT_EFORMAT, "%s has %zu different labels; at most %d classes: is the label another column?", name,
              different, CLASSES_MAX);
    source->class_names = calloc(different, sizeof *source->class_names);
    if (!source->class_names) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    source->classes = (int)different;
    for (size_t c = 0; c < different; c++)
        if (!(source->class_names[c] = strdup(words[c]))) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
done:
    free(words);
    return status;
}

/* --- from lines to pictures --- */
/* Adds the lines of one part of a table. */
static int list_part(const struct data_spec *spec, const char *name, const char *folder, const struct table *table,
                     enum part_kind part, const struct source *source, word_order order, struct listing *listing) {
    int status = RETORT_OK;
    int64_t *ranks = calloc((size_t)source->classes, sizeof *ranks);
    if (!ranks) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    for (size_t i = 0; i < table->count; i++) {
        const struct line *line = &table->items[i];
        if (line->part != part) continue;
        char **found =
            bsearch(&line->label, source->class_names, (size_t)source->classes, sizeof *source->class_names, order);
        if (!found)
            RAISE(RETORT_EFORMAT, "%s: line %d: no training line has the label '%s'; mend it or add some", name,
                  line->number, line->label);
        int label = (int)(found - source->class_names);
        if (spec_wants(spec, label)) TRY(listing_add(listing, folder, line->path, label, ranks[label]++));
    }
done:
    free(ranks);
    return status;
}

/* The text itself, or train.csv of a folder, beside which a test.csv or val.csv may lie: *test is "" where none does.
 */
static int find_texts(const char *path, char folder[FILE_PATH_MAX], char train[FILE_PATH_MAX],
                      char test[FILE_PATH_MAX]) {
    int status = RETORT_OK;
    *test = '\0';
    if (!folder_exists(path)) {
        snprintf(train, FILE_PATH_MAX, "%s", path);
        snprintf(folder, FILE_PATH_MAX, "%s", path);
        char *slash = strrchr(folder, '/');
        if (slash)
            slash[slash == folder] = '\0';
        else
            strcpy(folder, ".");
        goto done;
    }
    snprintf(folder, FILE_PATH_MAX, "%s", path);
    TRY(path_join(path, "train.csv", train));
    if (!file_exists(train))
        RAISE(RETORT_EIO, "%s holds no train.csv; name the list of pictures itself in data.path", path);
    static const char *const names[] = {"test.csv", "val.csv"};
    for (int i = 0; i < 2 && !*test; i++) {
        TRY(path_join(path, names[i], test));
        if (!file_exists(test)) *test = '\0';
    }
done:
    return status;
}

static size_t count_part(const struct table *table, enum part_kind part) {
    size_t count = 0;
    for (size_t i = 0; i < table->count; i++) count += table->items[i].part == part;
    return count;
}

int csv_load(const struct data_spec *spec, struct source *source) {
    int status = RETORT_OK;
    char folder[FILE_PATH_MAX], train_path[FILE_PATH_MAX], test_path[FILE_PATH_MAX];
    struct table table = {0}, apart = {0};
    struct listing train = {0}, test = {0};
    word_order order = compare_words;
    source->white = 255;
    TRY(find_texts(spec->path, folder, train_path, test_path));
    TRY(table_read(train_path, &table));
    TRY(find_classes(train_path, &table, source, &order));
    TRY(list_part(spec, train_path, folder, &table, PART_TRAIN, source, order, &train));
    /* Lines for validation are the test part where there is no other, as in folders. */
    size_t tests = count_part(&table, PART_TEST), validations = count_part(&table, PART_VALIDATION);
    TRY(list_part(spec, train_path, folder, &table, tests ? PART_TEST : PART_VALIDATION, source, order, &test));
    if (tests && validations)
        text_printf(&source->story, "left out: %zu lines of the part val of %s\n", validations, train_path);
    if (*test_path) {
        if (tests || validations)
            RAISE(RETORT_EFORMAT, "%s has lines of the part test or val, and %s is there too; keep one of them",
                  train_path, test_path);
        TRY(table_read(test_path, &apart));
        /* All of it is for testing, whatever a column says. */
        for (size_t i = 0; i < apart.count; i++) apart.items[i].part = PART_TEST;
        TRY(list_part(spec, test_path, folder, &apart, PART_TEST, source, order, &test));
    }
    listing_limit(&train, spec->train_limit);
    listing_limit(&test, spec->test_limit);
    TRY(listing_read(spec, &train, "train", train_path, &source->train, &source->story));
    TRY(listing_read(spec, &test, "test", *test_path ? test_path : train_path, &source->test, &source->story));
done:
    table_finish(&table);
    table_finish(&apart);
    listing_finish(&train);
    listing_finish(&test);
    return status;
}
