/* Reports of run folders that this program writes, has written and might find damaged: every section, nothing that a
 * browser would read as markup, nothing from elsewhere. No device is used. */
#include "test.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/data.h"
#include "report/html.h"
#include "report/report.h"

#include <math.h>
#include <nettle/base64.h>
#include <png.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char root[FILE_PATH_MAX];

/* --- run folders --- */
static struct arena paths;

static const char *in(const char *folder, const char *name) {
    const char *path = arena_printf(&paths, "%s/%s", folder, name);
    assert_non_null(path);
    return path;
}

static const char *make_folder(const char *name) {
    const char *folder = in(root, name);
    assert_ok(folder_remove(folder));
    assert_ok(folder_create(folder));
    return folder;
}

static void write_text(const char *folder, const char *name, const char *words) {
    assert_ok(file_write(in(folder, name), words, strlen(words)));
}

static const char descriptor[] =
    "data: {kind: idx, path: /images, normalise: mean_sd}\n"
    "inner: {steps: 20}\nset: {ipc: 2}\nmethod: {window: 5, truncation: dynamic, range: 2}\n"
    "outer: {steps: 40, lr: 0.25}\nseed: 3\n";
static const char result[] =
    "{\"format\": 1, \"retort\": \"0.1.0\", \"set_sha256\": \"feed\", \"device\": \"a CPU\", \"platform\": \"a "
    "platform\", "
    "\"driver\": \"3.1\", \"wisdom\": \"none\", \"gemm\": \"own\", \"seed\": 3, \"method\": \"bptt\", \"protocol\": "
    "\"bptt: Adam\", "
    "\"accuracy\": {\"distilled\": {\"mean\": 70.5, \"sd\": 0.5, \"runs\": [70.0, 71.0], \"step\": 60, \"chosen_on\": "
    "\"test\", \"best_on_test\": 70.5, \"by_step\": [{\"step\": 30, \"mean\": 65.0, \"runs\": [64, 66]}, {\"step\": "
    "60, "
    "\"mean\": 70.5, \"runs\": [70, 71]}]}, \"random\": {\"mean\": 50.25, \"sd\": null, \"runs\": [50.25], \"step\": "
    "60, "
    "\"chosen_on\": \"holdout\", \"by_step\": []}}, "
    "\"seconds\": {\"distil\": 84.2, \"evaluate\": 9.5, \"build_kernels\": 3.25}, \"outer_steps\": 40, "
    "\"peak_device_bytes\": 12582912}";

/* Four images [4,1,2,2] of two classes, in the space of a mean of 0.5 and an sd of 0.25. Their pixels are multiples of
 * a sixteenth, so that what the page shows is known. */
static void write_set(const char *folder, enum normalise_kind kind, bool soft, const char *class_names) {
    double mean = 0.5, sd = 0.25;
    float images[16], identity[16] = {0};
    struct normalisation map = {.kind = kind, .channels = 1, .height = 2, .width = 2};
    struct text about;
    for (int i = 0; i < 16; i++) images[i] = (float)((i / 16.0 - mean) / sd);
    for (int i = 0; i < 4; i++) identity[5 * i] = 1;
    if (kind == NORMALISE_MEAN_SD) map.mean = &mean, map.sd = &sd;
    if (kind == NORMALISE_ZCA_KIP) map.whiten = map.unwhiten = identity;
    assert_ok(folder_create(in(folder, "set")));
    assert_ok(npy_write(in(folder, "set/images.npy"), NPY_FLOAT32, 4, (int64_t[]){4, 1, 2, 2}, images));
    if (soft)
        assert_ok(npy_write(in(folder, "set/labels.npy"), NPY_FLOAT32, 2, (int64_t[]){4, 2},
                            (float[]){3, 1, 1, 0, 0.5f, 0.5f, 0, 2}));
    else
        assert_ok(npy_write(in(folder, "set/labels.npy"), NPY_INT32, 1, (int64_t[]){4}, (int32_t[]){0, 0, 1, 1}));
    assert_ok(normalisation_save(&map, in(folder, "set/normalisation.npz")));
    text_init(&about);
    text_printf(&about,
                "{\"format\": 1, \"retort\": \"0.1.0\", \"class_names\": %s, \"ipc\": 2, \"normalisation\": \"%s\", "
                "\"set_sha256\": \"feed\", \"sha256\": {\"images.npy\": \"beef\"}}",
                class_names, normalise_words[kind]);
    write_text(folder, "set/set.json", text_get(&about));
    text_finish(&about);
}

static void write_metrics(const char *folder, int rows, const char *last) {
    struct text lines;
    text_init(&lines);
    for (int i = 1; i <= rows; i++)
        text_printf(&lines,
                    "{\"outer_step\":%d,\"loss\":%g,\"accuracy\":%g,\"stage\":\"%s\",\"end\":%d,\"window\":%d,"
                    "\"gradient_norm\":%g,\"inner_lr\":0.001,\"cosine\":null,\"seconds\":0.5}\n",
                    i, 2.0 / i, 50.0 + i % 7, i <= rows / 2 ? "early" : "late", 5 + i % 15, 3 + i % 3, 1e-3 * i * i);
    text_append(&lines, last);
    write_text(folder, "metrics.jsonl", text_get(&lines));
    text_finish(&lines);
}

/* A finished run with all that a run can have. */
static const char *make_run(const char *name) {
    static const char profile[] =
        "{\"profile\": [{\"kernel\": \"k1_conv\", \"launches\": 40, \"seconds\": 3.0, \"share\": 0.75, \"gflops\": "
        "10.0, "
        "\"gb_per_s\": 1.0, \"share_of_peak\": 0.5, \"bound\": \"fma\"}, {\"kernel\": \"k2_rows\", \"launches\": 80, "
        "\"seconds\": 1.0, \"share\": 0.25, \"gflops\": 1.0, \"gb_per_s\": 2.0, \"share_of_peak\": 0.9, \"bound\": "
        "\"copy\"}], \"peak_gflops\": 20.0, \"peak_gb_per_s\": 4.0}\n";
    const char *folder = make_folder(name);
    write_text(folder, "descriptor.yaml", descriptor);
    write_text(folder, "result.json", result);
    write_text(
        folder, "plan.json",
        "{\"retort\": \"0.1.0\", \"device\": {\"name\": \"a CPU\"}, \"data\": {\"hash\": \"cafe\", \"train\": 60, "
        "\"test\": 10}, \"estimate\": {\"seconds\": {\"distil\": 80.0}, \"peak_device_bytes\": 12582912}, "
        "\"team\": {\"divide\": \"trajectories\", \"shares\": [20, 7], \"others\": [{\"device\": {\"name\": \"a GPU\", "
        "\"platform\": \"another\"}}]}}");
    write_metrics(folder, 40, profile);
    write_set(folder, NORMALISE_MEAN_SD, true, "[\"Trouser\", \"Bag\"]");
    assert_ok(folder_create(in(folder, "previews")));
    for (int i = 0; i < 3; i++) {
        char place[32];
        snprintf(place, sizeof place, "previews/%d.png", (int[]){100, 20, 0}[i]);
        write_text(folder, place, "\x89PNG\r\n\x1a\nand so on");
    }
    return folder;
}

/* --- pages --- */
/* Reads what the report of `count` runs wrote; the caller's to free(). */
static char *report_of(const char *const *runs, size_t count, const char *out) {
    char *path = NULL;
    unsigned char *page;
    size_t size;
    assert_ok(report_write(runs, count, out, &path));
    assert_ok(file_read(path, 0, &page, &size));
    assert_int_equal(strlen((char *)page), size);
    free(path);
    return (char *)page;
}

/* Reads an element's start at `at`, after '<'; returns the place behind its '>'. */
static const char *read_tag(const char *at, char name[32], bool *empty) {
    size_t length = strspn(at, "abcdefghijklmnopqrstuvwxyz0123456789");
    if (length == 0 || length >= 32) fail_msg("no element: <%.60s", at);
    snprintf(name, 32, "%.*s", (int)length, at);
    for (at += length; *at == ' ';) {
        at += strspn(at, " ");
        at += strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-");
        if (at[0] != '=' || at[1] != '"') fail_msg("%s: no quoted attribute: %.60s", name, at);
        at += 2 + strcspn(at + 2, "\"<");
        if (*at++ != '"') fail_msg("%s: an attribute that does not end", name);
    }
    *empty = *at == '/';
    at += *empty;
    if (*at != '>') fail_msg("<%s is not closed: %.60s", name, at);
    return at + 1;
}

/* Every element is closed in turn, every attribute quoted, every & one of ours: a strict parser's rules. Scripts and
 * whatever comes from elsewhere are refused. */
static void assert_sound(const char *page) {
    static const char *const foreign[] = {"<script", "http:", "https:", "url(",  "@import", "src=\"/",
                                          "nan,",    ",nan",  "\"nan",  "\"inf", "\"-inf",  "\"-nan"};
    char stack[64][32], name[32];
    int depth = 0;
    bool empty;
    assert_memory_equal(page, "<!DOCTYPE html>\n", 16);
    for (const char *at = page + 16; *at;) {
        if (*at == '&') {
            const char *end = strpbrk(at, "; <");
            if (!end || *end != ';' || end - at > 6) fail_msg("a bare ampersand: %.60s", at);
        }
        if (*at != '<') {
            at++;
        } else if (at[1] == '/') {
            size_t length = strcspn(at + 2, ">");
            if (!depth || strlen(stack[depth - 1]) != length || strncmp(stack[depth - 1], at + 2, length) != 0)
                fail_msg("</%.20s closes <%s", at + 2, depth ? stack[depth - 1] : "nothing");
            depth--;
            at += length + 3;
        } else {
            at = read_tag(at + 1, name, &empty);
            assert_true(depth < 64);
            if (!empty) strcpy(stack[depth++], name);
        }
    }
    assert_int_equal(depth, 0);
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (strstr(page, foreign[i])) fail_msg("the page holds %s: %.80s", foreign[i], strstr(page, foreign[i]));
}

static size_t occurrences(const char *page, const char *words) {
    size_t count = 0;
    for (; (page = strstr(page, words)); page++) count++;
    return count;
}

static void assert_has(const char *page, const char *words) {
    if (!strstr(page, words)) fail_msg("the page lacks: %s", words);
}

static void assert_lacks(const char *page, const char *words) {
    if (strstr(page, words)) fail_msg("the page has: %.80s", strstr(page, words));
}

/* The first of the pictures behind `from`, as grey pixels. */
static void decode_picture(const char *from, int width, int height, unsigned char *pixels) {
    static const char head[] = "data:image/png;base64,";
    const char *begin = strstr(from, head);
    assert_non_null(begin);
    begin += sizeof head - 1;
    size_t length = strcspn(begin, "\""), size = BASE64_DECODE_LENGTH(length);
    unsigned char *png = malloc(size);
    struct base64_decode_ctx context;
    base64_decode_init(&context);
    assert_int_equal(base64_decode_update(&context, &size, png, length, begin), 1);
    png_image image = {.version = PNG_IMAGE_VERSION};
    assert_true(png_image_begin_read_from_memory(&image, png, size));
    assert_int_equal(image.width, width);
    assert_int_equal(image.height, height);
    image.format = PNG_FORMAT_GRAY;
    assert_true(png_image_finish_read(&image, NULL, pixels, 0, NULL));
    free(png);
}

static void test_whole_run(void **state) {
    (void)state;
    static const char *const ids[] = {"images",      "evolution", "accuracy", "curves",  "cost",
                                      "device-time", "loading",   "recipe",   "identity"};
    static const char *const words[] = {"Trouser",
                                        "Bag",
                                        "70.50\xc2\xa0\xc2\xb1\xc2\xa0"
                                        "0.50",
                                        "50.25",
                                        "70.00 \xc2\xb7 71.00",
                                        "chosen on the",
                                        "--share:75.0%",
                                        "k1_conv",
                                        "50 % of arithmetic",
                                        "90 % of memory",
                                        "1 min 24 s",
                                        "1 min 20 s",
                                        "+5 %",
                                        "12 MiB",
                                        ">late<",
                                        "Window length",
                                        "lr: 0.25",
                                        "feed",
                                        "beef",
                                        "cafe",
                                        "a CPU",
                                        "a GPU, another, driver ",
                                        "trajectories, 20 : 7",
                                        "np.load(&#39;set/images.npy&#39;)",
                                        "After 0 outer steps",
                                        "retort export ",
                                        "retort eval "};
    const char *run = make_run("whole");
    char *page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_true(file_exists(in(run, "report.html")));
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char section[64], link[64];
        snprintf(section, sizeof section, "<h2 id=\"%s\">", ids[i]);
        snprintf(link, sizeof link, "href=\"#%s\"", ids[i]);
        assert_int_equal(occurrences(page, section), 1);
        assert_int_equal(occurrences(page, link), 1);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) assert_has(page, words[i]);
    /* Four images, three previews and the windows. */
    assert_int_equal(occurrences(page, "data:image/png;base64,"), 8);
    /* In the order of their steps, not of their names. */
    assert_true(strstr(page, "After 20 outer") < strstr(page, "After 100 outer"));
    /* A learned label of 3 to 1. */
    assert_has(page, "--share:75.0%\">Trouser</span><b>75%</b>");
    assert_lacks(page, "class=\"note\"");
    free(page);
}

static void test_pixels(void **state) {
    (void)state;
    unsigned char pixels[4];
    const char *run = make_run("pixels");
    char *page = report_of(&run, 1, NULL);
    decode_picture(strstr(page, "id=\"images\""), 2, 2, pixels);
    for (int i = 0; i < 4; i++) assert_int_equal(pixels[i], lrint(255 * i / 16.0));
    assert_has(page, "the normalisation of the training data is undone");
    free(page);
    /* What cannot be undone is stretched, and the page says so. */
    write_set(run, NORMALISE_ZCA_KIP, false, "[\"Trouser\", \"Bag\"]");
    page = report_of(&run, 1, NULL);
    decode_picture(strstr(page, "id=\"images\""), 2, 2, pixels);
    for (int i = 0; i < 4; i++) assert_int_equal(pixels[i], 85 * i);
    assert_has(page, "stretched to its own range");
    assert_lacks(page, "class=\"labels\"");
    assert_sound(page);
    free(page);
}

/* Of a set that has more than a page has room for, the first images of each class. */
static void test_large_set(void **state) {
    (void)state;
    enum { COUNT = 5000, CLASSES = 100 };
    const char *run = make_run("large");
    float *images = calloc(COUNT * 4, sizeof *images);
    int32_t *labels = calloc(COUNT, sizeof *labels);
    assert_non_null(images);
    assert_non_null(labels);
    for (int i = 0; i < COUNT; i++) labels[i] = i / (COUNT / CLASSES);
    assert_ok(npy_write(in(run, "set/images.npy"), NPY_FLOAT32, 4, (int64_t[]){COUNT, 1, 2, 2}, images));
    assert_ok(npy_write(in(run, "set/labels.npy"), NPY_INT32, 1, (int64_t[]){COUNT}, labels));
    char *page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_has(page, "Of each class the first 6 are shown.");
    assert_lacks(page, " classes the first ");
    assert_has(page, "<h3>class 99</h3>"); /* which set.json has no name for */
    assert_int_equal(occurrences(page, "data:image/png;base64,"), 6 * CLASSES + 4);
    free(page);
    free(images);
    free(labels);
}

static void test_hostile_words(void **state) {
    (void)state;
    const char *run = make_run("<b>&\"'\xff");
    write_set(run, NORMALISE_MEAN_SD, false, "[\"<script>alert(1)</script>\", \"a & b \\u0001 \\\"c\\\"\"]");
    write_text(run, "descriptor.yaml",
               "data: {kind: idx, path: '</pre><script>'} # \xff\xfe\x01 \xed\xa0\x80\nouter: {steps: 40}\n");
    write_text(run, "plan.json",
               "{\"retort\": \"<i>\", \"device\": {\"name\": \"</td>\"}, \"team\": {\"divide\": \"<b>\", \"shares\": "
               "[\"<\"], \"others\": [1, {\"device\": \"<u>\"}]}}");
    write_text(run, "result.json",
               "{\"device\": \"<img src=x onerror=alert(1)>\", \"accuracy\": {\"distilled\": {\"mean\": 1, "
               "\"runs\": [1, \"<b>\"], \"chosen_on\": \"<u>\"}}, \"protocol\": \"]]><u>\"}");
    write_metrics(run, 3, "{\"outer_step\":4,\"stage\":\"<text>\",\"</svg>\":3}\n{\"outer_step\":5,\"</svg>\":4}\n");
    char *page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_has(page, "&lt;script&gt;alert(1)&lt;/script&gt;");
    assert_has(page, "a &amp; b \xef\xbf\xbd &quot;c&quot;");
    assert_has(page, "<title>&lt;b&gt;&amp;&quot;&#39;\xef\xbf\xbd</title>");
    assert_has(page, "&lt;/svg&gt;");
    assert_lacks(page, "<img src=x");
    assert_lacks(page, "<u>");
    free(page);
    const char *runs[] = {run, make_run("other")};
    page = report_of(runs, 2, in(root, "hostile.html"));
    assert_sound(page);
    assert_lacks(page, "<img src=x");
    free(page);
}

static void test_hostile_numbers(void **state) {
    (void)state;
    const char *run = make_run("numbers");
    write_metrics(run, 4,
                  "{\"outer_step\":5,\"loss\":1e308,\"gradient_norm\":-1e308,\"end\":1e300,\"window\":-5}\n"
                  "{\"outer_step\":1e300,\"loss\":-1e-320,\"gradient_norm\":1e-320,\"end\":1,\"window\":1}\n"
                  "{\"loss\":\"words\",\"outer_step\":null}\n");
    write_text(run, "result.json",
               "{\"accuracy\": {\"distilled\": {\"mean\": 1e300, \"runs\": [1e300]}, \"random\": "
               "{\"mean\": 0, \"sd\": 1e300, \"runs\": [1e300, 0, null]}, \"full\": 3}, \"seconds\": "
               "{\"distil\": -1e300, \"evaluate\": 1e300}, \"peak_device_bytes\": 1e300}");
    char *page = report_of(&run, 1, NULL);
    assert_sound(page);
    free(page);
}

/* As the first version wrote them: no plan, nothing about the method, no parts of metrics. */
static void test_early_run(void **state) {
    (void)state;
    const char *run = make_folder("early");
    write_text(run, "descriptor.yaml",
               "data: {kind: idx, path: x}\nmethod: {steps: 20, forgotten: 3}\nouter: {steps: 40}\n");
    write_text(run, "result.json",
               "{\"format\": 1, \"retort\": \"0.0.1\", \"set_sha256\": \"feed\", \"device\": \"a CPU\", "
               "\"truncation\": \"dynamic\", \"accuracy\": {\"distilled\": {\"mean\": 27.0, \"sd\": null, "
               "\"runs\": [27.0]}}, \"seconds\": {\"distil\": 60.0}}");
    write_text(run, "metrics.jsonl", "{\"outer_step\":1,\"loss\":2.5}\n{\"outer_step\":2,\"loss\":2.25}\n");
    char *page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_has(page, "27.00");
    assert_has(page, "forgotten: 3"); /* as text, and below in the words of what could not be read */
    assert_has(page, "class=\"note\"");
    assert_has(page, "id=\"curves\"");
    assert_lacks(page, "id=\"images\"");
    assert_lacks(page, "id=\"device-time\"");
    free(page);
}

static void test_unfinished_run(void **state) {
    (void)state;
    const char *run = make_folder("unfinished");
    write_text(run, "descriptor.yaml", descriptor);
    char *page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_has(page, "begun, no outer step yet");
    assert_lacks(page, "id=\"curves\"");
    free(page);
    /* Killed in the middle of a line. */
    write_metrics(run, 12, "{\"outer_step\":13,\"lo");
    write_text(run, "preview.png", "\x89PNG\r\n\x1a\nand so on");
    page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_has(page, "12 of 40 outer steps are in its metrics");
    assert_has(page, "retort run --resume --out ");
    assert_has(page, "As last drawn by the run");
    assert_int_equal(occurrences(page, "class=\"note\""), 1);
    assert_lacks(page, "id=\"accuracy\"");
    free(page);
    /* While it is evaluated. */
    write_metrics(run, 40, "");
    assert_ok(folder_create(in(run, "checkpoint")));
    write_text(
        run, "checkpoint/scores.json",
        "{\"set_sha256\": \"feed\", \"seconds\": 1.0, \"rows\": {\"distilled\": {\"networks\": 2, \"checkpoints\": 2, "
        "\"steps\": [30, 60], \"runs\": [10.0, 20.0, 12.0, 24.0], \"chosen\": 1, \"chosen_on_test\": true, \"mean\": "
        "22.0, \"sd\": 2.83, \"best_on_test\": 22.0}, \"random\": {\"networks\": 2, \"checkpoints\": 2, \"steps\": "
        "[30, "
        "60], \"runs\": [1.0], \"chosen\": 1, \"chosen_on_test\": true, \"mean\": 22.0, \"sd\": 2.83}}}");
    page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_has(page, "its evaluation is not finished");
    assert_has(page, "20.00 \xc2\xb7 24.00");
    assert_lacks(page, "As many random");
    free(page);
}

static void test_not_evaluated(void **state) {
    (void)state;
    const char *run = make_run("untested");
    write_text(run, "result.json", "{\"device\": \"a CPU\", \"accuracy\": {}, \"seconds\": {\"distil\": 1.5}}");
    char *page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_has(page, "finished, not evaluated");
    assert_lacks(page, "id=\"accuracy\"");
    assert_lacks(page, "--resume");
    free(page);
}

static void test_other_method(void **state) {
    (void)state;
    const char *run = make_run("matching");
    write_text(run, "descriptor.yaml", "data: {kind: idx, path: x}\nmethod: {name: dm}\nouter: {steps: 3}\n");
    write_text(run, "metrics.jsonl",
               "{\"outer_step\":1,\"loss\":50.5,\"gradient_norm\":3.5,\"distance\":1}\n"
               "{\"outer_step\":2,\"loss\":40.5,\"gradient_norm\":2.5,\"distance\":2}\n");
    char *page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_has(page, "<strong>distance</strong>"); /* what a method names is drawn, known or not */
    assert_lacks(page, "Window length");
    assert_lacks(page, "id=\"device-time\"");
    assert_has(page, "--profile");
    free(page);
}

static void test_damaged(void **state) {
    (void)state;
    const char *run = make_run("damaged");
    write_text(run, "result.json", "{\"accuracy\": ");
    write_text(run, "set/images.npy", "no array");
    write_text(run, "previews/20.png", "no picture");
    write_metrics(run, 3, "no line\n[]\n");
    char *page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_has(page, "result.json:1: not JSON");
    assert_has(page, "images.npy");
    assert_has(page, "20.png is no PNG picture");
    assert_has(page, "metrics.jsonl has 2 lines that are no JSON");
    assert_has(page, "id=\"curves\"");
    assert_lacks(page, "id=\"images\"");
    free(page);
    /* Arrays that do not belong together. */
    write_set(run, NORMALISE_MEAN_SD, false, "[]");
    assert_ok(npy_write(in(run, "set/images.npy"), NPY_FLOAT32, 4, (int64_t[]){1, 1, 4, 4}, (float[16]){0}));
    page = report_of(&run, 1, NULL);
    assert_has(page, "is of images of another size than");
    free(page);
    write_set(run, NORMALISE_MEAN_SD, false, "[]");
    assert_ok(npy_write(in(run, "set/labels.npy"), NPY_INT32, 1, (int64_t[]){4}, (int32_t[]){0, 0, 1, -1}));
    page = report_of(&run, 1, NULL);
    assert_has(page, "label -1 of image 3");
    free(page);
}

static void test_long_run(void **state) {
    (void)state;
    const char *run = make_run("long");
    write_metrics(run, 60000, "");
    char *page = report_of(&run, 1, NULL);
    assert_sound(page);
    assert_has(page, "class=\"band f0\"");
    assert_true(strlen(page) < 300000);
    free(page);
}

static void test_comparison(void **state) {
    (void)state;
    static const char *const ids[] = {"overview", "accuracy", "curves", "settings", "cost", "images"};
    const char *runs[] = {make_run("a"), make_run("b"), make_folder("c")};
    write_text(runs[1], "descriptor.yaml",
               "data: {kind: idx, path: /images, normalise: mean_sd}\ninner: {steps: 20}\nset: "
               "{ipc: 2}\nmethod: {name: dm}\nouter: {steps: 40, lr: 0.5, clip: true}\nseed: 3\n");
    write_text(runs[2], "descriptor.yaml", descriptor);
    char *page = report_of(runs, 3, in(root, "three.html"));
    assert_sound(page);
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        char section[64];
        snprintf(section, sizeof section, "<h2 id=\"%s\">", ids[i]);
        assert_int_equal(occurrences(page, section), 1);
    }
    assert_has(page, "<tr><th>outer.lr</th><td class=\"long\" data-head=\"a\">0.25</td><td class=\"long\" "
                     "data-head=\"b\">0.5</td><td class=\"long\" data-head=\"c\">0.25</td></tr>");
    assert_lacks(page, "<th>seed</th>");
    assert_lacks(page, "<th>method.window</th>"); /* dm has none */
    assert_has(page, "begun, no outer step yet");
    assert_has(page, "different quantities");
    assert_lacks(page, "different protocols");
    assert_int_equal(occurrences(page, "<polyline class=\"line s1 d1\""),
                     occurrences(page, "<polyline class=\"line s0 d0\""));
    free(page);
    /* Alike in name; other protocols. */
    assert_ok(folder_create(in(root, "more")));
    runs[2] = make_run("more/a");
    struct text other;
    text_init(&other);
    text_printf(&other, "%.*sdc%s", (int)(strstr(result, "bptt: Adam") - result), result, strstr(result, ": Adam"));
    write_text(runs[2], "result.json", text_get(&other));
    text_finish(&other);
    page = report_of((const char *[]){runs[0], runs[2]}, 2, in(root, "three.html"));
    assert_sound(page);
    assert_has(page, "different protocols");
    assert_has(page, "more/a</th>");
    assert_has(page, "None: the recipes are the same.");
    free(page);
}

static void assert_refused(const char *const *runs, size_t count, const char *out, const char *words) {
    char *path = NULL;
    assert_int_equal(report_write(runs, count, out, &path), RETORT_EINVAL);
    assert_null(path);
    if (!strstr(retort_error_message(), words)) fail_msg("no '%s' in: %s", words, retort_error_message());
}

static void test_places(void **state) {
    (void)state;
    const char *run = make_run("places"), *gone = in(root, "gone");
    unsigned char *kept;
    size_t size;
    free(report_of(&run, 1, NULL));
    free(report_of(&run, 1, NULL)); /* over its own */
    write_text(run, "report.html", "<html>somebody's</html>");
    assert_refused(&run, 1, NULL, "is no report of this program; move it away, or name another file with --out");
    assert_ok(file_read(in(run, "report.html"), 0, &kept, &size));
    assert_string_equal((char *)kept, "<html>somebody's</html>");
    free(kept);
    assert_refused(&run, 1, run, "is a folder; name a file with --out");
    assert_refused(&run, 1, "", "the name of the report is empty");
    assert_refused(&gone, 1, NULL, "is not there; name a run folder");
    const char *file = in(run, "result.json"), *set = in(run, "set");
    assert_refused(&file, 1, NULL, "is a file; name a run folder");
    assert_refused(&set, 1, NULL, "it holds neither descriptor.yaml nor result.json");
    assert_refused((const char *[]){run, gone}, 2, in(root, "two.html"), "is not there; name a run folder");
    assert_false(file_exists(in(root, "two.html")));
}

static int make_root(void **state) {
    (void)state;
    snprintf(root, sizeof root, "%s/retort-report-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state) {
    (void)state;
    arena_finish(&paths);
    return folder_remove(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_run),       cmocka_unit_test(test_pixels),
        cmocka_unit_test(test_large_set),       cmocka_unit_test(test_hostile_words),
        cmocka_unit_test(test_hostile_numbers), cmocka_unit_test(test_early_run),
        cmocka_unit_test(test_unfinished_run),  cmocka_unit_test(test_not_evaluated),
        cmocka_unit_test(test_other_method),    cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_long_run),        cmocka_unit_test(test_comparison),
        cmocka_unit_test(test_places),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
