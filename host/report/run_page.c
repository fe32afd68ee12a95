/* The page of one run. */
#include "report/html.h"
#include "report/page.h"
#include "run/set_folder.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const rows[] = {"distilled", "random", "full"};
#define ROWS (sizeof rows / sizeof *rows)

/* --- the head --- */
static void write_fact(struct text *page, const char *name, const char *value, const char *more) {
    text_append(page, "<div>");
    html_element(page, "dt", "%s", name);
    text_append(page, "<dd>");
    html_escape(page, value);
    if (more) html_element(page, "small", "%s", more);
    text_append(page, "</dd></div>\n");
}

static void write_score_fact(struct text *page, const struct record *record, const char *name, const char *title) {
    struct score score;
    char value[80], more[80];
    if (!score_read(record, name, &score)) return;
    snprintf(value, sizeof value, "%.1f %%", score.mean);
    if (isnan(score.sd))
        snprintf(more, sizeof more, "test accuracy, %zu network", score.count);
    else
        snprintf(more, sizeof more, "\xc2\xb1 %.1f over %zu networks", score.sd, score.count);
    write_fact(page, title, value, more);
    score_finish(&score);
}

static void write_head(struct text *page, const struct record *record) {
    const char *kind = json_words_at(record->recipe, "data.kind"), *data = json_words_at(record->recipe, "data.path");
    int64_t wanted = record_outer_steps(record);
    char value[80], more[80];
    text_append(page, "<p class=\"about\">");
    html_escape(page, record->path);
    text_printf(page, " \xc2\xb7 %s", record_state(record));
    if (kind && data) {
        text_append(page, " \xc2\xb7 distilled from ");
        html_escape(page, data);
    }
    text_append(page, "</p>\n");
    if (!record->result) {
        text_append(page, "<p class=\"note\">The run is not finished. ");
        if (wanted)
            text_printf(page, "%zu of %lld outer steps are in its metrics. ", record->metrics.rows, (long long)wanted);
        text_append(page, "Go on with ");
        html_element(page, "code", "retort run --resume --out %s", record->path);
        text_append(page, "</p>\n");
    }
    for (size_t i = 0; i < record->notes.count; i++)
        html_element(page, "p class=\"note\"", "%s", record->notes.items[i]);
    text_append(page, "<dl class=\"facts\">\n");
    write_score_fact(page, record, "distilled", "Distilled images");
    write_score_fact(page, record, "random", "Random real images");
    write_score_fact(page, record, "full", "All training images");
    if (record->set.count) {
        snprintf(value, sizeof value, "%lld", (long long)record->set.count);
        snprintf(more, sizeof more, "%d \xc3\x97 %d pixels, %d classes", record->set.width, record->set.height,
                 record->set.classes);
        write_fact(page, "Images", value, more);
    }
    snprintf(value, sizeof value, "%s", record_method(record));
    const char *truncation = json_words_at(record->recipe, "method.truncation");
    snprintf(more, sizeof more, "%s%s%lld outer steps", truncation ? truncation : "", truncation ? " window, " : "",
             (long long)wanted);
    write_fact(page, "Method", value, wanted ? more : NULL);
    double seconds = json_number_at(record->result, "seconds.distil");
    if (!isnan(seconds))
        write_fact(page, "Distilled in", words_seconds(seconds).text, json_words_at(record->result, "device"));
    text_append(page, "</dl>\n");
}

/* --- accuracy --- */
static void write_score_table(struct text *page, const struct score *scores, size_t count) {
    text_append(page, "<div class=\"table\"><table><thead><tr><th>Trained on</th><th class=\"number\">Accuracy, %</th>"
                      "<th class=\"number\">Tested at step</th><th>Every network</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < count; i++) {
        text_append(page, "<tr>");
        html_element(page, "th", "%s", score_title(scores[i].name));
        page_cell(page, "Accuracy, %", true, "%s", score_words(&scores[i]).text);
        page_cell(page, "Tested at step", true, scores[i].step ? "%lld" : "", (long long)scores[i].step);
        text_append(page, "<td class=\"long\" data-head=\"Every network\">");
        for (size_t n = 0; n < scores[i].count; n++)
            text_printf(page, "%s%.2f", n ? " \xc2\xb7 " : "", scores[i].runs[n]);
        text_append(page, "</td></tr>\n");
    }
    text_append(page, "</tbody></table></div>\n");
}

/* Mean accuracy by the number of training steps, where networks were tested at several. */
static void write_by_step(struct text *page, const struct record *record, const struct score *scores, size_t count) {
    struct plot_series series[ROWS];
    const char *names[ROWS];
    int styles[ROWS];
    double *values = NULL;
    size_t used = 0, most = 1;
    for (size_t i = 0; i < count; i++) {
        size_t points = json_array_size(json_object_get(json_object_get(record->accuracy, scores[i].name), "by_step"));
        most = points > most ? points : most;
    }
    if (most < 2 || !(values = calloc(most, 2 * ROWS * sizeof *values))) return;
    for (size_t i = 0; i < count; i++) {
        const json_t *points = json_object_get(json_object_get(record->accuracy, scores[i].name), "by_step");
        double *x = values + 2 * i * most, *y = x + most;
        for (size_t p = 0; p < json_array_size(points); p++) {
            x[p] = json_number_at(json_array_get(points, p), "step");
            y[p] = json_number_at(json_array_get(points, p), "mean");
        }
        names[used] = score_title(scores[i].name);
        styles[used] = (int)i;
        series[used++] = (struct plot_series){x, y, json_array_size(points), (int)i};
    }
    struct plot plot = {.label = "Mean accuracy by training steps",
                        .x_name = "training steps of a network",
                        .dots = true,
                        .series = series,
                        .series_count = used};
    text_append(page,
                "<figure><figcaption><strong>Mean accuracy</strong> in percent, by training steps</figcaption>\n");
    plot_lines(page, &plot);
    page_legend(page, names, styles, used);
    text_append(page, "</figure>\n");
    free(values);
}

static void write_accuracy(struct text *page, const struct record *record) {
    struct score scores[ROWS];
    struct plot_strip strips[ROWS];
    size_t count = 0;
    const char *protocol = json_words_at(record->result, "protocol"), *chosen = NULL;
    for (size_t i = 0; i < ROWS; i++) {
        if (!score_read(record, rows[i], &scores[count])) continue;
        const struct score *score = &scores[count];
        if (score->chosen && strcmp(score->chosen, "test") == 0) chosen = "test set, as the papers do";
        if (score->chosen && strcmp(score->chosen, "holdout") == 0) chosen = "held-out part of the training images";
        strips[count] = (struct plot_strip){
            score_title(score->name), score->runs, score->count, score->mean, score->sd, (int)count};
        count++;
    }
    text_append(page, "<p>Fresh networks are trained on the images and tested on the real test images. A dot is one "
                      "network, the bar is one standard deviation to each side of the mean.");
    if (chosen) text_printf(page, " The number of training steps was chosen on the %s.", chosen);
    text_append(page, "</p>\n");
    if (protocol) html_element(page, "p class=\"hint\"", "Protocol: %s", protocol);
    text_append(page, "<div class=\"plots\">\n<figure><figcaption><strong>Every network</strong></figcaption>\n");
    plot_strips(page, "Test accuracy of every network", "test accuracy, %", strips, count);
    text_append(page, "</figure>\n");
    write_by_step(page, record, scores, count);
    text_append(page, "</div>\n");
    write_score_table(page, scores, count);
    for (size_t i = 0; i < count; i++) score_finish(&scores[i]);
}

/* --- cost --- */
struct cost_row {
    const char *title, *key; /* of result.json, and below `estimate` of plan.json */
    bool bytes;
};
static const struct cost_row cost_rows[] = {
    {"Distilling", "seconds.distil", false},
    {"Evaluating", "seconds.evaluate", false},
    {"Building kernels, of the above", "seconds.build_kernels", false},
    {"Largest use of device memory", "peak_device_bytes", true},
};

static bool planned(const struct record *record) {
    return json_is_object(json_object_get(record->plan, "estimate"));
}

static const char *amount(double value, bool bytes, struct words *words) {
    *words = bytes ? words_bytes(value) : words_seconds(value);
    return isnan(value) ? "" : words->text;
}

static void write_cost_row(struct text *page, const struct record *record, const struct cost_row *row) {
    double was = json_number_at(record->result, row->key);
    double told = json_number_at(json_object_get(record->plan, "estimate"), row->key);
    struct words words;
    if (isnan(was) && isnan(told)) return;
    text_append(page, "<tr>");
    html_element(page, "th", "%s", row->title);
    page_cell(page, "Was", true, "%s", amount(was, row->bytes, &words));
    if (planned(record)) {
        page_cell(page, "Planned", true, "%s", amount(told, row->bytes, &words));
        page_cell(page, "Was more by", true, told > 0 && !isnan(was) ? "%+.0f %%" : "", 100 * (was / told - 1));
    }
    text_append(page, "</tr>\n");
}

static void write_cost(struct text *page, const struct record *record) {
    double step = record_step_seconds(record);
    text_append(page, "<div class=\"table\"><table><thead><tr><th>What</th><th class=\"number\">Was</th>");
    if (planned(record)) text_append(page, "<th class=\"number\">Planned</th><th class=\"number\">Was more by</th>");
    text_append(page, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < sizeof cost_rows / sizeof *cost_rows; i++) write_cost_row(page, record, &cost_rows[i]);
    if (!isnan(step)) {
        text_append(page, "<tr><th>An outer step, the median</th>");
        page_cell(page, "Was", true, "%s", words_seconds(step).text);
        text_append(page, planned(record) ? "<td></td><td></td></tr>\n" : "</tr>\n");
    }
    text_append(page, "</tbody></table></div>\n");
    const char *ceiling = json_words_at(record->recipe, "memory");
    if (ceiling && strcmp(ceiling, "none") != 0)
        html_element(page, "p class=\"hint\"", "The run was to stay below %s of device memory.", ceiling);
    if (!record->metrics.profile)
        text_append(page, "<p class=\"hint\">A run with <code>--profile</code> tells here where the device's time "
                          "goes.</p>\n");
}

/* --- the device's time --- */
#define KERNELS 15

static void write_kernel(struct text *page, const json_t *row) {
    const char *kernel = json_words_at(row, "kernel"), *bound = json_words_at(row, "bound");
    double share = 100 * json_number_at(row, "share");
    if (!kernel || !(share >= 0 && share <= 100.5)) return;
    text_printf(page, "<tr><td class=\"share bar\" style=\"--share:%.1f%%\">%.1f %%</td>", share, share);
    page_cell(page, "Kernel", false, "%s", kernel);
    page_cell(page, "Time", true, "%s", words_seconds(json_number_at(row, "seconds")).text);
    page_cell(page, "Launches", true, "%.0f", json_number_at(row, "launches"));
    page_cell(page, "Of its peak", true, "%.0f %% of %s", 100 * json_number_at(row, "share_of_peak"),
              bound && strcmp(bound, "copy") == 0 ? "memory" : "arithmetic");
    text_append(page, "</tr>\n");
}

static void write_profile(struct text *page, const struct record *record) {
    const json_t *profile = json_object_get(record->metrics.profile, "profile");
    size_t count = json_array_size(profile), shown = count < KERNELS ? count : KERNELS;
    double rest = 0;
    text_append(page,
                "<div class=\"table\"><table><thead><tr><th>Share</th><th>Kernel</th><th class=\"number\">Time</th>"
                "<th class=\"number\">Launches</th><th class=\"number\">Of its peak</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < shown; i++) write_kernel(page, json_array_get(profile, i));
    for (size_t i = shown; i < count; i++) rest += json_number_at(json_array_get(profile, i), "share");
    if (count > shown)
        text_printf(page, "<tr><td colspan=\"5\">%.1f %% in %zu other kernels</td></tr>\n", 100 * rest, count - shown);
    text_append(page, "</tbody></table></div>\n");
    double flops = json_number_at(record->metrics.profile, "peak_gflops"),
           bytes = json_number_at(record->metrics.profile, "peak_gb_per_s");
    if (!isnan(flops) && !isnan(bytes))
        text_printf(page,
                    "<p class=\"hint\">Of the outer steps since the run was last resumed. The device's measured "
                    "peaks: %.4g GFLOP/s of multiply-adds, %.4g GB/s of a copy.</p>\n",
                    flops, bytes);
}

/* --- what it was made by --- */
static void write_identity_row(struct text *page, const char *title, const char *words) {
    if (!words) return;
    text_append(page, "<tr>");
    html_element(page, "th", "%s", title);
    html_element(page, "td class=\"long\"", "%s", words);
    text_append(page, "</tr>\n");
}

/* The devices beside the first that worked on the run, and what each of all did. */
static void write_team(struct text *page, const json_t *team) {
    const json_t *shares = json_object_get(team, "shares"), *others = json_object_get(team, "others"), *other;
    const char *what = json_words_at(team, "divide");
    struct text words;
    size_t i;
    if (!what || !json_is_array(shares) || !json_is_array(others)) return;
    json_array_foreach((json_t *)others, i, other) {
        const char *name = json_words_at(other, "device.name"), *platform = json_words_at(other, "device.platform");
        const char *driver = json_words_at(other, "device.driver");
        text_init(&words);
        text_printf(&words, "%s, %s, driver %s", name ? name : "", platform ? platform : "", driver ? driver : "");
        write_identity_row(page, "And the device", text_get(&words));
        text_finish(&words);
    }
    text_init(&words);
    text_printf(&words, "%s, ", what);
    for (i = 0; i < json_array_size(shares); i++)
        text_printf(&words, "%s%lld", i ? " : " : "", (long long)json_integer_value(json_array_get(shares, i)));
    write_identity_row(page, "They divided", text_get(&words));
    text_finish(&words);
}

static void write_identity(struct text *page, const struct record *record) {
    const json_t *of = record->result ? record->result : record->about, *plan = record->plan, *value;
    const char *name;
    char words[120];
    text_append(page, "<div class=\"table\"><table><tbody>\n");
    write_identity_row(page, "Retort", json_words_at(of ? of : plan, "retort"));
    const char *device = json_words_at(of, "device"), *platform = json_words_at(of, "platform");
    write_identity_row(page, "Device", device ? device : json_words_at(plan, "device.name"));
    write_identity_row(page, "Platform", platform ? platform : json_words_at(plan, "device.platform"));
    write_identity_row(page, "Driver", device ? json_words_at(of, "driver") : json_words_at(plan, "device.driver"));
    write_team(page, json_object_get(plan, "team"));
    write_identity_row(page, "Kernel choices", json_words_at(of ? of : plan, "wisdom"));
    write_identity_row(page, "Matrix products", json_words_at(of ? of : plan, "gemm"));
    write_identity_row(page, "Images of coefficients", json_words_at(of ? of : plan, "dct"));
    double seed = json_number_at(record->recipe, "seed");
    if (!isnan(seed)) snprintf(words, sizeof words, "%.0f", seed);
    write_identity_row(page, "Seed", isnan(seed) ? NULL : words);
    double train = json_number_at(plan, "data.train"), test = json_number_at(plan, "data.test");
    if (!isnan(train) && !isnan(test))
        snprintf(words, sizeof words, "%.0f training images, %.0f test images", train, test);
    write_identity_row(page, "Data", isnan(train) || isnan(test) ? NULL : words);
    write_identity_row(page, "Data, xxHash64", json_words_at(plan, "data.hash"));
    set_storage_words(json_object_get(of, "storage"), words);
    write_identity_row(page, "Stored images", *words ? words : NULL);
    const char *hash = json_words_at(record->result, "set_sha256");
    write_identity_row(page, "Set, SHA-256", hash ? hash : json_words_at(record->about, "set_sha256"));
    json_object_foreach(json_object_get(record->about, "sha256"), name, value) {
        text_append(page, "<tr>");
        html_element(page, "th", "%s, SHA-256", name);
        html_element(page, "td class=\"long\"", "%s", json_string_value(value) ? json_string_value(value) : "");
        text_append(page, "</tr>\n");
    }
    text_append(page, "</tbody></table></div>\n");
}

static void write_recipe(struct text *page, const struct record *record) {
    text_append(page, "<p>The descriptor with every default written out. <code>retort run</code> on a file with these "
                      "lines makes the same set on the same device and driver.</p>\n");
    html_element(page, "pre", "%s", record->descriptor);
    text_append(page, "\n");
}

static void write_loading(struct text *page, const struct record *record) {
    const char *kind = json_words_at(record->about, "normalisation");
    struct text code;
    text_init(&code);
    text_append(&code, "import numpy as np, torch\n\n");
    text_append(&code, "# images: float32 [N, C, H, W], normalised as the networks want them\n");
    text_append(&code, "images = torch.from_numpy(np.load('set/images.npy'))\n");
    text_append(&code,
                record->set.soft ? "# labels: float32 [N, classes], learned\n" : "# labels: whole numbers [N]\n");
    text_append(&code, "labels = torch.from_numpy(np.load('set/labels.npy'))");
    text_append(&code, record->set.soft ? "\n" : ".long()\n");
    if (kind && strcmp(kind, "mean_sd") == 0)
        text_append(&code, "\n# Test images, pixels from 0 to 1, have to be normalised in the same way:\n"
                           "norm = np.load('set/normalisation.npz')\n"
                           "mean, sd = (torch.from_numpy(norm[k]).float().view(-1, 1, 1) for k in ('mean', 'sd'))\n"
                           "test = (test - mean) / sd          # and images * sd + mean are pixels again\n");
    else if (kind && strcmp(kind, "zca_pixel") == 0)
        text_append(&code, "\n# Test images, pixels from 0 to 1, have to be whitened in the same way:\n"
                           "norm = {k: torch.from_numpy(v) for k, v in np.load('set/normalisation.npz').items()}\n"
                           "test = ((test.flatten(1) - norm['mean'].float()) @ norm['whiten']).view_as(test)\n");
    else if (kind && strcmp(kind, "none") != 0)
        text_append(&code, "\n# Test images have to be whitened with the matrix `whiten` of set/normalisation.npz,\n"
                           "# each after its own mean was subtracted and it was divided by its own norm.\n");
    text_append(page, "<p>In the run's folder, with NumPy and PyTorch:</p>\n");
    html_element(page, "pre", "%s", text_get(&code));
    text_append(
        page, "<p>Elsewhere, with its labels, class names and normalisation in one file, and code for PyTorch, JAX and "
              "scikit-learn beside it:</p>\n");
    html_element(page, "pre", "retort export %s", record->path);
    text_append(page, "\n<p>To train and test fresh networks on the set again:</p>\n");
    html_element(page, "pre", "retort eval %s", record->path);
    text_append(page, "\n");
    page->failed |= code.failed;
    text_finish(&code);
}

/* --- the page --- */
static bool has_set(const struct record *record) {
    return record->set.count > 0;
}
static bool has_previews(const struct record *record) {
    return record->previews.count > 0;
}
static bool has_accuracy(const struct record *record) {
    struct score score;
    bool has = false;
    for (size_t i = 0; i < ROWS && !has; i++)
        if ((has = score_read(record, rows[i], &score))) score_finish(&score);
    return has;
}
static bool has_cost(const struct record *record) {
    return record->result || planned(record) || !isnan(record_step_seconds(record));
}
static bool has_profile(const struct record *record) {
    return record->metrics.profile != NULL;
}
static bool has_descriptor(const struct record *record) {
    return record->descriptor != NULL;
}
static bool has_identity(const struct record *record) {
    return record->result || record->about || record->plan;
}

static const struct {
    struct page_section section;
    bool (*has)(const struct record *record);
    void (*write)(struct text *page, const struct record *record);
} sections[] = {
    {{"images", "Images"}, has_set, write_images},
    {{"evolution", "How they came to be"}, has_previews, write_evolution},
    {{"accuracy", "Accuracy"}, has_accuracy, write_accuracy},
    {{"curves", "Curves"}, has_curves, write_curves},
    {{"cost", "Cost"}, has_cost, write_cost},
    {{"device-time", "Where the device's time went"}, has_profile, write_profile},
    {{"loading", "Loading the set"}, has_set, write_loading},
    {{"recipe", "Recipe"}, has_descriptor, write_recipe},
    {{"identity", "Device and hashes"}, has_identity, write_identity},
};
#define SECTIONS (sizeof sections / sizeof *sections)

void run_page(struct text *page, const struct record *record) {
    struct page_section links[SECTIONS];
    size_t count = 0;
    page_begin(page, record->name);
    write_head(page, record);
    for (size_t i = 0; i < SECTIONS; i++)
        if (sections[i].has(record)) links[count++] = sections[i].section;
    page_links(page, links, count);
    for (size_t i = 0; i < SECTIONS; i++) {
        if (!sections[i].has(record)) continue;
        page_section(page, &sections[i].section);
        sections[i].write(page, record);
    }
    page_end(page);
}
