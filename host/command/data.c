/* `retort data`: what a descriptor's data is, before anything is distilled from it. Needs no device. */
#include "base/error.h"
#include "base/log.h"
#include "command/options.h"
#include "run/descriptor.h"
#include "run/json_file.h"
#include "run/preview.h"
#include "run/session.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: retort data DESCRIPTOR [OPTIONS]\n\n"
    "Reads the data that a descriptor names and shows it: which files were read, how many images each class has for\n"
    "training and testing, their size, and mean, deviation and range of their pixels. Nothing is distilled, and no\n"
    "device is needed.\n\n"
    "  retort data configs/quickstart.yaml\n"
    "  retort data flowers.yaml --sheet flowers.png\n"
    "  retort data flowers.yaml --set data.size=64 --set data.test=0.1\n\n"
    "  --sheet FILE.png    also draws the first images of each class, a row per class in the order of the table\n"
    "  --set KEY=VALUE     overrides a key; may be repeated\n"
    "  --seed N            the same as --set seed=N, which decides what data.holdout keeps aside\n"
    "  --json              for programs\n"
    "  --quiet, -q         only warnings and errors besides the result\n\n"
    "docs/data.md tells how each kind of data is laid out and where well-known sets come from.\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage or descriptor.\n";

enum { SHEET_COLUMNS = 10 };

/* Of one channel of the training images, pixels in [0,1]. */
struct channel {
    double mean, sd, least, most;
};

static void measure(const struct dataset *train, int channel, struct channel *result) {
    size_t plane = (size_t)train->height * (size_t)train->width;
    double sum = 0, squares = 0, count = (double)train->count * (double)plane;
    *result = (struct channel){.least = INFINITY, .most = -INFINITY};
    for (int64_t i = 0; i < train->count; i++) {
        const float *pixels = train->images + ((size_t)i * (size_t)train->channels + (size_t)channel) * plane;
        for (size_t p = 0; p < plane; p++) {
            sum += pixels[p];
            squares += (double)pixels[p] * pixels[p];
            result->least = fmin(result->least, pixels[p]);
            result->most = fmax(result->most, pixels[p]);
        }
    }
    result->mean = sum / count;
    result->sd = sqrt(fmax(0, squares / count - result->mean * result->mean));
}

/* Images of a class in a part, which may be empty. */
static long long rows_of(const struct dataset *part, int class) {
    return part->count ? (long long)(part->class_begin[class + 1] - part->class_begin[class]) : 0;
}

/* --- words --- */
static void print_data(const struct descriptor *descriptor, const struct data_set_pair *data) {
    const struct dataset *train = &data->train;
    const char *title = "read";
    for (const char *line = text_get(&data->story); *line; title = "") {
        size_t length = strcspn(line, "\n");
        printf("%-10s %.*s\n", title, (int)length, line);
        line += length + (line[length] == '\n');
    }
    printf("%-10s %d x %d x %d (channels, height, width)\n", "image", train->channels, train->height, train->width);
    printf("%-10s %lld training, %lld held out, %lld test\n", "images", (long long)train->count,
           (long long)data->holdout.count, (long long)data->test.count);
    printf("%-10s %s, before training\n", "normalise", normalise_words[descriptor->data.normalise]);
    printf("\n%-10s %8s %8s %8s %8s   (training pixels in [0,1])\n", "channel", "mean", "sd", "least", "greatest");
    for (int c = 0; c < train->channels; c++) {
        struct channel channel;
        measure(train, c, &channel);
        printf("%-10d %8.4f %8.4f %8.4f %8.4f\n", c, channel.mean, channel.sd, channel.least, channel.most);
    }
    printf("\n%-10s %-24s %8s %8s %8s\n", "class", "name", "train", "held out", "test");
    for (int c = 0; c < train->classes; c++)
        printf("%-10d %-24s %8lld %8lld %8lld\n", c, train->class_names[c], rows_of(train, c),
               rows_of(&data->holdout, c), rows_of(&data->test, c));
}

static json_t *describe_data(const struct data_set_pair *data) {
    const struct dataset *train = &data->train;
    json_t *read = json_array(), *channels = json_array(), *classes = json_array();
    for (const char *line = text_get(&data->story); *line;) {
        size_t length = strcspn(line, "\n");
        char *copy = strndup(line, length);
        json_array_append_new(read, json_text(copy ? copy : ""));
        free(copy);
        line += length + (line[length] == '\n');
    }
    for (int c = 0; c < train->channels; c++) {
        struct channel channel;
        measure(train, c, &channel);
        json_array_append_new(channels, json_pack("{s:f, s:f, s:f, s:f}", "mean", channel.mean, "sd", channel.sd,
                                                  "least", channel.least, "greatest", channel.most));
    }
    for (int c = 0; c < train->classes; c++)
        json_array_append_new(classes, json_pack("{s:o, s:I, s:I, s:I}", "name", json_text(train->class_names[c]),
                                                 "train", (json_int_t)rows_of(train, c), "holdout",
                                                 (json_int_t)rows_of(&data->holdout, c), "test",
                                                 (json_int_t)rows_of(&data->test, c)));
    return json_pack("{s:o, s:[i,i,i], s:I, s:I, s:I, s:o, s:o}", "read", read, "image", train->channels, train->height,
                     train->width, "train", (json_int_t)train->count, "holdout", (json_int_t)data->holdout.count,
                     "test", (json_int_t)data->test.count, "channels", channels, "classes", classes);
}

/* --- the contact sheet --- */
/* The first images of each class as a set of so many a class; where a class has fewer, its row ends in white. */
static int write_sheet(const char *path, const struct data_set_pair *data) {
    int status = RETORT_OK;
    const struct dataset *train = &data->train;
    size_t pixels = (size_t)train->channels * (size_t)train->height * (size_t)train->width;
    struct distilled_set sheet = {.channels = train->channels,
                                  .height = train->height,
                                  .width = train->width,
                                  .classes = train->classes,
                                  .ipc = SHEET_COLUMNS};
    sheet.count = (int64_t)train->classes * sheet.ipc;
    sheet.images = malloc((size_t)sheet.count * pixels * sizeof *sheet.images);
    sheet.hard = malloc((size_t)sheet.count * sizeof *sheet.hard);
    if (!sheet.images || !sheet.hard) RAISE(RETORT_ENOMEM, "out of memory drawing %s", path);
    for (int64_t i = 0; i < sheet.count; i++) {
        int class = (int)(i / sheet.ipc), column = (int)(i % sheet.ipc);
        float *image = sheet.images + (size_t)i * pixels;
        sheet.hard[i] = class;
        if (column < rows_of(train, class))
            memcpy(image, train->images + (size_t)train->class_rows[train->class_begin[class] + column] * pixels,
                   pixels * sizeof *image);
        else
            for (size_t p = 0; p < pixels; p++) image[p] = 1;
    }
    TRY(preview_write(path, &sheet, &data->normalisation, (const char *const *)train->class_names));
    log_info("%s: the first images of each class, a row per class", path);
done:
    distilled_set_finish(&sheet);
    return status;
}

static int show(const struct options *options) {
    int status = RETORT_OK;
    struct descriptor descriptor = {0}, plain;
    struct data_set_pair data = {0};
    status = descriptor_read(options->operands[0], options->overrides, options->override_count, &descriptor);
    if (status == RETORT_EIO) status = RETORT_EINVAL;
    TRY(status);
    plain = descriptor;
    plain.data.normalise = NORMALISE_NONE;
    TRY(session_read_data(&plain, &data));
    if (options->given[OPTION_JSON]) {
        json_t *json = describe_data(&data);
        json_dumpf(json, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(json);
    } else
        print_data(&descriptor, &data);
    if (options->given[OPTION_SHEET]) TRY(write_sheet(options->value[OPTION_SHEET], &data));
done:
    data_finish(&data);
    descriptor_finish(&descriptor);
    return status;
}

int command_data(int argc, char **argv) {
    int exit_status = EXIT_DONE;
    struct options options;
    unsigned long allowed = OPTION_BIT(OPTION_SHEET) | OPTION_BIT(OPTION_SET) | OPTION_BIT(OPTION_SEED)
                            | OPTION_BIT(OPTION_QUIET) | OPTION_BIT(OPTION_JSON);
    if (!options_parse("data", help, allowed, argc, argv, &options, &exit_status)) goto leave;
    exit_status = options_descriptor("data", &options) ? report_failure("data", show(&options)) : EXIT_USAGE;
leave:
    options_finish(&options);
    return exit_status;
}
