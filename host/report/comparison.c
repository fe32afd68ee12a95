/* The page that compares runs. */
#include "report/html.h"
#include "report/page.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- names: a folder's own, or where two are alike all of the path --- */
static const char *run_name(const struct record *records, size_t count, size_t i) {
    for (size_t j = 0; j < count; j++)
        if (j != i && strcmp(records[j].name, records[i].name) == 0) return records[i].path;
    return records[i].name;
}

static bool write_legend(struct text *page, const struct record *records, size_t count) {
    const char **names = calloc(count, sizeof *names);
    int *styles = calloc(count, sizeof *styles);
    for (size_t i = 0; names && styles && i < count; i++) {
        names[i] = run_name(records, count, i);
        styles[i] = (int)i;
    }
    bool done = names && styles;
    if (done) page_legend(page, names, styles, count);
    free(names);
    free(styles);
    return done;
}

/* --- the overview --- */
static void write_score_cell(struct text *page, const struct record *record, const char *name, const char *head) {
    struct score score;
    bool has = score_read(record, name, &score);
    page_cell(page, head, true, "%s", has ? score_words(&score).text : "");
    if (has) score_finish(&score);
}

static void write_overview(struct text *page, const struct record *records, size_t count) {
    text_append(page,
                "<div class=\"table\"><table><thead><tr><th>Run</th><th>Method</th><th class=\"number\">Images</th>"
                "<th class=\"number\">Distilled, %</th><th class=\"number\">Random, %</th>"
                "<th class=\"number\">All data, %</th><th>State</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < count; i++) {
        text_append(page, "<tr>");
        html_element(page, "th class=\"long\"", "%s", run_name(records, count, i));
        page_cell(page, "Method", false, "%s", record_method(&records[i]));
        page_cell(page, "Images", true, records[i].set.count ? "%lld" : "", (long long)records[i].set.count);
        write_score_cell(page, &records[i], "distilled", "Distilled, %");
        write_score_cell(page, &records[i], "random", "Random, %");
        write_score_cell(page, &records[i], "full", "All data, %");
        page_cell(page, "State", false, "%s", record_state(&records[i]));
        text_append(page, "</tr>\n");
    }
    text_append(page, "</tbody></table></div>\n");
    for (size_t i = 0; i < count; i++)
        for (size_t n = 0; n < records[i].notes.count; n++)
            html_element(page, "p class=\"note\"", "%s", records[i].notes.items[n]);
}

/* --- accuracy --- */
static bool same_protocol(const struct record *records, size_t count) {
    const char *first = NULL;
    for (size_t i = 0; i < count; i++) {
        const char *protocol = json_words_at(records[i].result, "protocol");
        if (!protocol || !json_object_size(records[i].accuracy)) continue;
        if (first && strcmp(first, protocol) != 0) return false;
        first = protocol;
    }
    return true;
}

static void write_accuracy(struct text *page, const struct record *records, size_t count) {
    struct score *scores = calloc(count, sizeof *scores);
    struct plot_strip *strips = calloc(count, sizeof *strips);
    size_t used = 0;
    for (size_t i = 0; scores && strips && i < count; i++) {
        struct score *score = &scores[used];
        if (!score_read(&records[i], "distilled", score)) continue;
        strips[used++] =
            (struct plot_strip){run_name(records, count, i), score->runs, score->count, score->mean, score->sd, (int)i};
    }
    text_append(page,
                "<p>Of fresh networks trained on the distilled images: a dot is one network, the bar one standard "
                "deviation to each side of the mean.</p>\n");
    if (!same_protocol(records, count))
        text_append(page,
                    "<p class=\"note\">The runs were evaluated by different protocols: their accuracies cannot be "
                    "compared. <code>retort eval</code> tests any set by another one.</p>\n");
    text_append(page, "<figure class=\"one\">\n");
    if (used) plot_strips(page, "Test accuracy of every network of every run", "test accuracy, %", strips, used);
    text_append(page, "</figure>\n");
    for (size_t i = 0; i < used; i++) score_finish(&scores[i]);
    page->failed |= !scores || !strips;
    free(scores);
    free(strips);
}

/* --- curves --- */
static bool all_the_same(const struct plot_series *series, size_t count) {
    double first = NAN;
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < series[s].count; i++) {
            if (isnan(first)) first = series[s].y[i];
            if (!isnan(series[s].y[i]) && series[s].y[i] != first) return false;
        }
    return true;
}

static bool same_method(const struct record *records, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (strcmp(record_method(&records[i]), record_method(&records[0])) != 0) return false;
    return true;
}

static void write_together(struct text *page, const struct record *records, size_t count) {
    struct plot_series *series = calloc(count, sizeof *series);
    if (!series || !write_legend(page, records, count)) {
        page->failed = true;
        free(series);
        return;
    }
    if (!same_method(records, count))
        text_append(page,
                    "<p class=\"hint\">Losses and gradients of different methods are different quantities.</p>\n");
    text_append(page, "<div class=\"plots\">\n");
    for (size_t c = 0; c < curve_count; c++) {
        size_t used = 0;
        for (size_t i = 0; i < count; i++) {
            const double *x = metrics_column(&records[i].metrics, "outer_step");
            const double *y = metrics_column(&records[i].metrics, curves[c].column);
            if (x && y) series[used++] = (struct plot_series){x, y, records[i].metrics.rows, (int)i};
        }
        struct plot plot = {.label = curves[c].title, .x_name = "outer step", .series = series, .series_count = used};
        if (!plot_has_points(&plot) || all_the_same(series, used)) continue;
        text_append(page, "<figure><figcaption>");
        html_element(page, "strong", "%s", curves[c].title);
        text_printf(page, " %s</figcaption>\n", curves[c].words);
        plot_lines(page, &plot);
        text_append(page, "</figure>\n");
    }
    text_append(page, "</div>\n");
    free(series);
}

/* --- settings --- */
/* All keys of the recipes, "outer.lr", in the order of the first that has them. */
static bool collect_keys(const json_t *object, const char *prefix, json_t *keys) {
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value) {
        char key[256];
        if (snprintf(key, sizeof key, "%s%s%s", prefix, *prefix ? "." : "", name) >= (int)sizeof key) continue;
        if (json_is_object(value) ? !collect_keys(value, key, keys) : json_object_set_new(keys, key, json_true()) < 0)
            return false;
    }
    return true;
}

static char *value_words(const struct record *record, const char *key) {
    const json_t *value = json_at(record->recipe, key);
    if (!value) return strdup("");
    if (json_is_string(value)) return strdup(json_string_value(value));
    return json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
}

/* Among the runs that have it: a method has not the keys of another one, nor an earlier version those of a later. */
static bool differs(const struct record *records, size_t count, const char *key) {
    const json_t *first = NULL;
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_at(records[i].recipe, key);
        if (first && value && !json_equal(first, value)) return true;
        if (!first) first = value;
    }
    return false;
}

static void write_settings(struct text *page, const struct record *records, size_t count) {
    const char *key;
    json_t *keys = json_object(), *unused;
    size_t rows = 0;
    for (size_t i = 0; keys && i < count; i++) page->failed |= !collect_keys(records[i].recipe, "", keys);
    text_append(page, "<div class=\"table\"><table><thead><tr><th>Setting</th>");
    for (size_t i = 0; i < count; i++) html_element(page, "th class=\"long\"", "%s", run_name(records, count, i));
    text_append(page, "</tr></thead><tbody>\n");
    json_object_foreach(keys, key, unused) {
        if (!differs(records, count, key)) continue;
        rows++;
        text_append(page, "<tr>");
        html_element(page, "th", "%s", key);
        for (size_t i = 0; i < count; i++) {
            char *words = value_words(&records[i], key);
            page_cell(page, run_name(records, count, i), false, "%s", words ? words : "");
            free(words);
        }
        text_append(page, "</tr>\n");
    }
    if (!rows) text_printf(page, "<tr><td colspan=\"%zu\">None: the recipes are the same.</td></tr>\n", count + 1);
    text_append(page,
                "</tbody></table></div>\n<p class=\"hint\">An empty place: that run's method or version has no such "
                "setting. Settings that only some of the runs have are in the reports of each.</p>\n");
    json_decref(keys);
}

/* --- cost and images --- */
static void write_cost(struct text *page, const struct record *records, size_t count) {
    text_append(page, "<div class=\"table\"><table><thead><tr><th>Run</th><th class=\"number\">Distilling</th>"
                      "<th class=\"number\">An outer step</th><th class=\"number\">Evaluating</th>"
                      "<th class=\"number\">Device memory</th><th>Device</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < count; i++) {
        const json_t *result = records[i].result;
        double distil = json_number_at(result, "seconds.distil"), step = record_step_seconds(&records[i]);
        double evaluate = json_number_at(result, "seconds.evaluate"),
               bytes = json_number_at(result, "peak_device_bytes");
        const char *device = json_words_at(result, "device");
        if (!device) device = json_words_at(records[i].plan, "device.name");
        text_append(page, "<tr>");
        html_element(page, "th class=\"long\"", "%s", run_name(records, count, i));
        page_cell(page, "Distilling", true, "%s", isnan(distil) ? "" : words_seconds(distil).text);
        page_cell(page, "An outer step", true, "%s", isnan(step) ? "" : words_seconds(step).text);
        page_cell(page, "Evaluating", true, "%s", isnan(evaluate) ? "" : words_seconds(evaluate).text);
        page_cell(page, "Device memory", true, "%s", isnan(bytes) ? "" : words_bytes(bytes).text);
        page_cell(page, "Device", false, "%s", device ? device : "");
        text_append(page, "</tr>\n");
    }
    text_append(page, "</tbody></table></div>\n");
}

static void write_samples(struct text *page, const struct record *records, size_t count) {
    text_append(page, "<p class=\"hint\">The first image of each class, of ten classes at most.</p>\n");
    for (size_t i = 0; i < count; i++) {
        if (!records[i].set.count) continue;
        html_element(page, "h3", "%s", run_name(records, count, i));
        write_sample(page, &records[i]);
    }
}

void comparison_page(struct text *page, const struct record *records, size_t count) {
    static const struct {
        struct page_section section;
        void (*write)(struct text *page, const struct record *records, size_t count);
    } sections[] = {
        {{"overview", "Overview"}, write_overview},
        {{"accuracy", "Accuracy"}, write_accuracy},
        {{"curves", "Curves"}, write_together},
        {{"settings", "Settings that differ"}, write_settings},
        {{"cost", "Cost"}, write_cost},
        {{"images", "Images"}, write_samples},
    };
    enum { SECTIONS = sizeof sections / sizeof *sections };
    struct page_section links[SECTIONS];
    char title[64];
    for (int i = 0; i < SECTIONS; i++) links[i] = sections[i].section;
    snprintf(title, sizeof title, "Comparison of %zu runs", count);
    page_begin(page, title);
    page_links(page, links, SECTIONS);
    for (int i = 0; i < SECTIONS; i++) {
        page_section(page, &links[i]);
        sections[i].write(page, records, count);
    }
    page_end(page);
}
