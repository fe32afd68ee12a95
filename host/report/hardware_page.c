/* The page that compares devices, by files of `retort bench --all-devices`. */
#include "report/hardware.h"

#include "base/error.h"
#include "base/file.h"
#include "report/html.h"
#include "report/page.h"
#include "report/sheet.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One device of all files, with what is told of it in several places. */
struct entry {
    const struct hardware_file *file;
    const struct hardware_device *device;
    char label[160];
};
struct entries {
    struct entry *items;
    size_t count, files;
};

/* --- names --- */
static bool is_alone(const struct entries *all, size_t i, const char *(*name)(const struct entry *entry)) {
    for (size_t j = 0; j < all->count; j++)
        if (j != i && strcmp(name(&all->items[j]), name(&all->items[i])) == 0) return false;
    return true;
}
static const char *platform_of(const struct entry *entry) {
    return entry->device->platform;
}
static const char *name_of(const struct entry *entry) {
    return entry->device->name;
}

/* The platform where nothing else has it, else the device's name, else both with the number that tells them apart. */
static void name_entries(struct entries *all) {
    for (size_t i = 0; i < all->count; i++) {
        struct entry *entry = &all->items[i];
        if (is_alone(all, i, platform_of))
            snprintf(entry->label, sizeof entry->label, "%s", platform_of(entry));
        else if (is_alone(all, i, name_of))
            snprintf(entry->label, sizeof entry->label, "%s", name_of(entry));
        else
            snprintf(entry->label, sizeof entry->label, "%zu: %.60s, %.70s", i + 1, platform_of(entry), name_of(entry));
    }
}

static int gather(const struct hardware_file *files, size_t count, struct entries *all) {
    int status = RETORT_OK;
    struct entries fresh = {.files = count};
    for (size_t i = 0; i < count; i++) fresh.count += files[i].device_count;
    fresh.items = calloc(fresh.count + 1, sizeof *fresh.items);
    if (!fresh.items) RAISE(RETORT_ENOMEM, "out of memory");
    size_t at = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t d = 0; d < files[i].device_count; d++)
            fresh.items[at++] = (struct entry){.file = &files[i], .device = &files[i].devices[d]};
    name_entries(&fresh);
    *all = fresh;
done:
    return status;
}

/* --- figures --- */
static const struct hardware_row *row_of(const struct entry *entry, size_t load) {
    const struct hardware_row *row = &entry->device->rows[load];
    return row->there && row->seconds.count ? row : NULL;
}

/* Shares of the peaks at the quickest turn; NaN. */
static double share_of_arithmetic(const struct entry *entry, const struct hardware_row *row) {
    return row->flops / row->seconds.least / entry->device->peak_flops.largest;
}
static double share_of_memory(const struct entry *entry, const struct hardware_row *row) {
    return row->bytes / row->seconds.least / entry->device->peak_bytes.largest;
}

static struct words percent(double share) {
    struct words words = {""};
    if (isfinite(share)) snprintf(words.text, sizeof words.text, share < 0.0995 ? "%.1f %%" : "%.0f %%", 100 * share);
    return words;
}

/* A number in three digits, nothing for NaN. */
static struct words figure(double number) {
    struct words words = {""};
    if (!isfinite(number)) return words;
    if (number >= 999.5)
        snprintf(words.text, sizeof words.text, "%.0f", number);
    else
        snprintf(words.text, sizeof words.text, "%.3g", number);
    return words;
}

/* From nanoseconds on. */
static struct words duration(double seconds) {
    struct words words = {""};
    if (!isfinite(seconds)) return words;
    if (seconds < 1e-3)
        snprintf(words.text, sizeof words.text, "%.3g \xc2\xb5s", seconds * 1e6);
    else if (seconds < 1)
        snprintf(words.text, sizeof words.text, "%.3g ms", seconds * 1e3);
    else
        snprintf(words.text, sizeof words.text, "%.3g s", seconds);
    return words;
}

/* --- at a glance --- */
static void write_overview(struct sheet *sheet, const struct entries *all) {
    struct sheet_column columns[SHEET_COLUMNS] = {{"Outer steps a second", false}};
    size_t which[SHEET_COLUMNS];
    int count = 1;
    for (size_t l = 0; l < LOADS && count < SHEET_COLUMNS; l++) {
        if (loads[l].kind != LOAD_OUTER) continue;
        which[count] = l;
        columns[count++] = (struct sheet_column){strchr(loads[l].words, ',') + 2, true};
    }
    sheet_table(sheet, columns, count);
    for (size_t i = 0; i < all->count; i++) {
        sheet_cell(sheet, "%s", all->items[i].label);
        for (int c = 1; c < count; c++) {
            const struct hardware_row *row = row_of(&all->items[i], which[c]);
            sheet_cell(sheet, "%s",
                       row                                          ? figure(1 / row->seconds.median).text
                       : all->items[i].device->rows[which[c]].there ? "not done"
                                                                    : "not measured");
        }
    }
    sheet_table_end(sheet);
}

/* --- the devices --- */
static void write_devices(struct sheet *sheet, const struct entries *all) {
    static const struct sheet_column columns[] = {{"Device", false}, {"Name", false},        {"Machine", false},
                                                  {"Driver", false}, {"Kernels for", false}, {"Wisdom", false},
                                                  {"Energy", false}};
    sheet_table(sheet, columns, 7);
    for (size_t i = 0; i < all->count; i++) {
        const struct entry *entry = &all->items[i];
        const struct hardware_device *device = entry->device;
        sheet_cell(sheet, "%s", entry->label);
        sheet_cell(sheet, "%s, %s of %.0f units", device->name, device->kind, device->compute_units);
        sheet_cell(sheet, "%s, %.0f cores, %s", entry->file->processor, entry->file->cores, entry->file->system);
        sheet_cell(sheet, "%s, %s", device->driver, device->version);
        sheet_cell(sheet, "%s", strcmp(device->family, "gpu") == 0 ? "GPUs" : "CPUs");
        sheet_cell(sheet, "%s", device->wisdom ? device->wisdom : "not known");
        sheet_cell(sheet, "%s", device->energy ? device->energy : "not known");
    }
    sheet_table_end(sheet);
}

static void write_peaks(struct sheet *sheet, const struct entries *all) {
    static const struct sheet_column columns[] = {{"Device", false}, {"GFLOP/s", true}, {"spread", true},
                                                  {"GB/s", true},    {"spread", true},  {"operations a byte", true}};
    sheet_table(sheet, columns, 6);
    for (size_t i = 0; i < all->count; i++) {
        const struct hardware_device *device = all->items[i].device;
        sheet_cell(sheet, "%s", all->items[i].label);
        sheet_cell(sheet, "%s", figure(device->peak_flops.largest * 1e-9).text);
        sheet_cell(sheet, "%s", percent(device->peak_flops.spread).text);
        sheet_cell(sheet, "%s", figure(device->peak_bytes.largest * 1e-9).text);
        sheet_cell(sheet, "%s", percent(device->peak_bytes.spread).text);
        sheet_cell(sheet, "%s", figure(device->peak_flops.largest / device->peak_bytes.largest).text);
    }
    sheet_table_end(sheet);
    sheet_paragraph(sheet, "p class=\"hint\"",
                    "What the device does at best, the largest of its turns: multiply-adds in registers, and a copy of "
                    "more memory than its caches hold, bytes read and bytes written. Work with fewer operations a byte "
                    "than the last column is bound by memory at best.");
}

/* --- the roofline --- */
static const struct {
    enum load_kind kind;
    const char *words;
} marks[PLOT_MARKS] = {{LOAD_OUTER, "outer steps"}, {LOAD_CONVOLUTION, "convolutions"}, {LOAD_PRODUCT, "products"}};
enum { MARKS = 3 };

static int mark_of(const struct load *load) {
    for (int i = 0; i < MARKS; i++)
        if (marks[i].kind == load->kind) return i;
    return -1;
}

static void write_legends(struct text *page, const struct entries *all) {
    const char **names = calloc(all->count, sizeof *names);
    int *styles = calloc(all->count, sizeof *styles);
    for (size_t i = 0; names && styles && i < all->count; i++) {
        names[i] = all->items[i].label;
        styles[i] = (int)i;
    }
    if (names && styles)
        page_legend(page, names, styles, all->count);
    else
        page->failed = true;
    free(names);
    free(styles);
    text_append(page, "<ul class=\"legend\">\n");
    for (int i = 0; i < MARKS; i++) {
        text_append(page, "<li><svg viewBox=\"0 0 38 12\" aria-hidden=\"true\">");
        plot_mark(page, i, 5, 19, 6, marks[i].words);
        text_printf(page, "</svg>%s</li>\n", marks[i].words);
    }
    text_append(page, "</ul>\n");
}

static void write_roofline(struct text *page, const struct entries *all) {
    struct arena arena;
    arena_init(&arena);
    struct plot_roof *roofs = arena_array(&arena, all->count, sizeof *roofs);
    for (size_t i = 0; roofs && i < all->count; i++) {
        const struct entry *entry = &all->items[i];
        struct plot_point *points = arena_array(&arena, LOADS, sizeof *points);
        struct plot_roof *roof = &roofs[i];
        *roof =
            (struct plot_roof){entry->device->peak_flops.largest, entry->device->peak_bytes.largest, points, 0, (int)i};
        for (size_t l = 0; points && l < LOADS; l++) {
            const struct hardware_row *row = row_of(entry, l);
            if (!row || mark_of(&loads[l]) < 0) continue;
            double speed = row->flops / row->seconds.least;
            points[roof->count++] = (struct plot_point){
                row->flops / row->bytes, speed, mark_of(&loads[l]),
                arena_printf(&arena, "%s: %s, %s GFLOP/s", entry->label, loads[l].words, figure(speed * 1e-9).text)};
        }
    }
    if (arena.failed || !roofs) page->failed = true;
    write_legends(page, all);
    text_append(page, "<figure class=\"one\"><figcaption><strong>GFLOP/s</strong> over operations a byte, by the "
                      "quickest turn</figcaption>\n");
    if (!page->failed) plot_rooflines(page, "Rooflines of the devices, and where their loads lie", roofs, all->count);
    text_append(page, "</figure>\n<p class=\"hint\">Lines are what memory (rising) and arithmetic (level) allow. "
                      "Convolutions count as plain sums of products, so that Winograd's can pass the roof. Bytes are "
                      "those of operands and results, each once: what caches do not hold moves more.</p>\n");
    arena_finish(&arena);
}

/* --- outer steps --- */
/* A step per second of each turn, a row a device. */
static void write_speeds(struct text *page, const struct entries *all, size_t load) {
    struct arena arena;
    arena_init(&arena);
    struct plot_strip *strips = arena_array(&arena, all->count, sizeof *strips);
    size_t count = 0;
    for (size_t i = 0; strips && i < all->count; i++) {
        const struct hardware_row *row = row_of(&all->items[i], load);
        if (!row) continue;
        double *values = arena_array(&arena, row->seconds.count, sizeof *values);
        for (size_t t = 0; values && t < row->seconds.count; t++) values[t] = 1 / row->seconds.values[t];
        strips[count++] =
            (struct plot_strip){all->items[i].label, values, row->seconds.count, 1 / row->seconds.median, NAN, (int)i};
    }
    if (arena.failed) page->failed = true;
    if (count && !page->failed) {
        text_append(page, "<figure><figcaption><strong>");
        html_escape(page, loads[load].words);
        text_append(page, "</strong></figcaption>\n");
        plot_strips(page, loads[load].words, "steps a second", strips, count);
        text_append(page, "</figure>\n");
    }
    arena_finish(&arena);
}

static void write_outer(struct sheet *sheet, const struct entries *all) {
    static const struct sheet_column columns[] = {
        {"Load", false},
        {"Device", false},
        {"least", true},
        {"median", true},
        {"spread", true},
        {"steps a second", true},
        {"a second and watt", true},
        {"GFLOP/s", true},
        {"of peak", true},
        {"device memory", true},
        {"kernels built", true},
    };
    sheet_paragraph(sheet, "p",
                    "Whole outer steps of ConvNet-3 with instance norm: plain and differentiated inner steps under "
                    "Adam, the meta-loss on real images, the exact meta-gradient by the images.");
    if (!sheet->markdown) {
        text_append(sheet->page, "<div class=\"plots\">\n");
        for (size_t l = 0; l < LOADS; l++)
            if (loads[l].kind == LOAD_OUTER) write_speeds(sheet->page, all, l);
        text_append(sheet->page, "</div>\n<p class=\"hint\">A dot is a turn, the bar their median: dots apart are "
                                 "noise.</p>\n");
    }
    sheet_table(sheet, columns, 11);
    for (size_t l = 0; l < LOADS; l++)
        for (size_t i = 0; i < all->count; i++) {
            const struct entry *entry = &all->items[i];
            const struct hardware_row *row = row_of(entry, l);
            if (loads[l].kind != LOAD_OUTER || !row) continue;
            sheet_cell(sheet, "%s", loads[l].words);
            sheet_cell(sheet, "%s", entry->label);
            sheet_cell(sheet, "%s", duration(row->seconds.least).text);
            sheet_cell(sheet, "%s", duration(row->seconds.median).text);
            sheet_cell(sheet, "%s of %zu", percent(row->seconds.spread).text, row->seconds.count);
            sheet_cell(sheet, "%s", figure(1 / row->seconds.median).text);
            sheet_cell(sheet, "%s", isfinite(row->joules) ? figure(1 / row->joules).text : "not told");
            sheet_cell(sheet, "%s", figure(row->flops / row->seconds.least * 1e-9).text);
            sheet_cell(sheet, "%s", percent(share_of_arithmetic(entry, row)).text);
            sheet_cell(sheet, "%s", isfinite(row->device_bytes) ? words_bytes(row->device_bytes).text : "");
            sheet_cell(sheet, "%s", isfinite(row->build_seconds) ? words_seconds(row->build_seconds).text : "");
        }
    sheet_table_end(sheet);
    sheet_paragraph(sheet, "p class=\"hint\"",
                    "Spread: from the least to the largest of so many turns, as a share of the median. Kernels are "
                    "built with empty caches. The energy is that of the whole package or card, idling included.");
}

/* --- what bounds them --- */
static void write_bounds(struct sheet *sheet, const struct entries *all) {
    static const struct sheet_column columns[] = {{"Load", false},  {"Device", false}, {"arithmetic", true},
                                                  {"memory", true}, {"between", true}, {"bound by", false}};
    sheet_paragraph(
        sheet, "p",
        "Where the time of an outer step goes: to kernels that are nearer to the peak of arithmetic than to "
        "that of memory, to the others, and to what is between kernels: launches, transfers, the host.");
    sheet_table(sheet, columns, 6);
    for (size_t l = 0; l < LOADS; l++)
        for (size_t i = 0; i < all->count; i++) {
            const struct hardware_row *row = row_of(&all->items[i], l);
            if (loads[l].kind != LOAD_OUTER || !row) continue;
            double kernels = row->arithmetic_seconds + row->memory_seconds;
            if (!isfinite(kernels)) continue;
            double all_time = fmax(row->seconds.median, kernels); /* a step whose kernels are timed may be slower */
            double arithmetic = row->arithmetic_seconds / all_time, memory = row->memory_seconds / all_time;
            double between = fmax(1 - arithmetic - memory, 0);
            sheet_cell(sheet, "%s", loads[l].words);
            sheet_cell(sheet, "%s", all->items[i].label);
            sheet_cell(sheet, "%s", percent(arithmetic).text);
            sheet_cell(sheet, "%s", percent(memory).text);
            sheet_cell(sheet, "%s", percent(between).text);
            sheet_cell(sheet, "%s",
                       between > arithmetic && between > memory ? "launches and the host"
                       : arithmetic > memory                    ? "arithmetic"
                                                                : "memory");
        }
    sheet_table_end(sheet);
}

/* --- single loads --- */
static void write_loads(struct sheet *sheet, const struct entries *all) {
    static const struct sheet_column columns[] = {
        {"Load", false},   {"Device", false},       {"least", true}, {"median", true},    {"spread", true},
        {"GFLOP/s", true}, {"of arithmetic", true}, {"GB/s", true},  {"of memory", true}, {"how", false},
    };
    sheet_table(sheet, columns, 10);
    for (size_t l = 0; l < LOADS; l++)
        for (size_t i = 0; i < all->count; i++) {
            const struct entry *entry = &all->items[i];
            const struct hardware_row *row = row_of(entry, l);
            if (loads[l].kind == LOAD_OUTER || !row) continue;
            sheet_cell(sheet, "%s", loads[l].words);
            sheet_cell(sheet, "%s", entry->label);
            sheet_cell(sheet, "%s", duration(row->seconds.least).text);
            sheet_cell(sheet, "%s", duration(row->seconds.median).text);
            sheet_cell(sheet, "%s of %zu", percent(row->seconds.spread).text, row->seconds.count);
            sheet_cell(sheet, "%s", figure(row->flops / row->seconds.least * 1e-9).text);
            sheet_cell(sheet, "%s", percent(share_of_arithmetic(entry, row)).text);
            sheet_cell(sheet, "%s", figure(row->bytes / row->seconds.least * 1e-9).text);
            sheet_cell(sheet, "%s", percent(share_of_memory(entry, row)).text);
            sheet_cell(sheet, "%s", row->way ? row->way : "");
        }
    sheet_table_end(sheet);
}

/* --- what is missing --- */
static bool has_problems(const struct entries *all) {
    for (size_t i = 0; i < all->count; i++) {
        const struct hardware_device *device = all->items[i].device;
        if (device->problem || device->peak_problem) return true;
        for (size_t l = 0; l < LOADS; l++)
            if (device->rows[l].problem) return true;
    }
    return false;
}

static void write_problem(struct sheet *sheet, const struct entry *entry, const char *what, const char *problem) {
    if (!problem) return;
    sheet_cell(sheet, "%s", entry->label);
    sheet_cell(sheet, "%s", what);
    sheet_cell(sheet, "%s", problem);
}

static void write_problems(struct sheet *sheet, const struct entries *all) {
    static const struct sheet_column columns[] = {{"Device", false}, {"Load", false}, {"Why", false}};
    sheet_table(sheet, columns, 3);
    for (size_t i = 0; i < all->count; i++) {
        const struct entry *entry = &all->items[i];
        write_problem(sheet, entry, "everything", entry->device->problem);
        write_problem(sheet, entry, "peaks", entry->device->peak_problem);
        for (size_t l = 0; l < LOADS; l++) write_problem(sheet, entry, loads[l].words, entry->device->rows[l].problem);
    }
    sheet_table_end(sheet);
}

/* --- where it comes from --- */
static void write_files(struct sheet *sheet, const struct hardware_file *files, size_t count) {
    static const struct sheet_column columns[] = {{"File", false},          {"Measured", false}, {"Retort", false},
                                                  {"Compiler", false},      {"Options", false},  {"CLBlast", false},
                                                  {"Limit of a load", true}};
    sheet_table(sheet, columns, 7);
    for (size_t i = 0; i < count; i++) {
        const char *slash = strrchr(files[i].path, '/');
        sheet_cell(sheet, "%s", slash ? slash + 1 : files[i].path);
        sheet_cell(sheet, "%s", files[i].measured);
        sheet_cell(sheet, "%s", files[i].retort);
        sheet_cell(sheet, "%s", files[i].compiler);
        sheet_cell(sheet, "%s", files[i].options);
        sheet_cell(sheet, "%s", files[i].clblast ? files[i].clblast : "none");
        sheet_cell(sheet, "%s", words_seconds(files[i].limit_seconds).text);
    }
    sheet_table_end(sheet);
}

/* --- all of it --- */
static const char title[] = "Devices compared";

static void write_notes(struct sheet *sheet, const struct hardware_file *files, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (files[i].quick)
            sheet_paragraph(sheet, "p class=\"note\"",
                            "%s was measured with --quick: a few tiny loads that show that all works, and no speed.",
                            files[i].path);
}

static void write_all(struct sheet *sheet, const struct hardware_file *files, size_t count) {
    const struct page_section sections[] = {
        {"devices", "Devices"},    {"outer-steps", "Outer steps"}, {"bounds", "What bounds them"},
        {"loads", "Single loads"}, {"missing", "What is missing"}, {"files", "Where it comes from"},
    };
    struct entries all = {0};
    if (gather(files, count, &all) < 0) {
        sheet->page->failed = true;
        return;
    }
    if (!sheet->markdown) page_links(sheet->page, sections, sizeof sections / sizeof *sections);
    write_notes(sheet, files, count);
    write_overview(sheet, &all);
    sheet_section(sheet, &sections[0]);
    write_devices(sheet, &all);
    if (!sheet->markdown) write_roofline(sheet->page, &all);
    write_peaks(sheet, &all);
    sheet_section(sheet, &sections[1]);
    write_outer(sheet, &all);
    sheet_section(sheet, &sections[2]);
    write_bounds(sheet, &all);
    sheet_section(sheet, &sections[3]);
    write_loads(sheet, &all);
    sheet_section(sheet, &sections[4]);
    if (has_problems(&all))
        write_problems(sheet, &all);
    else
        sheet_paragraph(sheet, "p", "Nothing: every device did every load it was given.");
    sheet_section(sheet, &sections[5]);
    write_files(sheet, files, count);
    free(all.items);
}

void hardware_page(struct text *page, const struct hardware_file *files, size_t count) {
    struct sheet sheet = {.page = page};
    page_begin(page, title);
    write_all(&sheet, files, count);
    page_end(page);
}

void hardware_markdown(struct text *page, const struct hardware_file *files, size_t count) {
    struct sheet sheet = {.page = page, .markdown = true};
    text_printf(page, "# %s\n\n", title);
    write_all(&sheet, files, count);
}

int hardware_write_page(const char *out, const struct hardware_file *files, size_t count) {
    int status = RETORT_OK;
    struct text page;
    text_init(&page);
    TRY(page_check_place(out));
    hardware_page(&page, files, count);
    if (page.failed) RAISE(RETORT_ENOMEM, "out of memory writing %s", out);
    TRY(file_write(out, text_get(&page), page.length));
done:
    text_finish(&page);
    return status;
}
