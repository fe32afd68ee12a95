/* `retort export`: a distilled set for other programs. */
#include "run/export.h"

#include "base/error.h"
#include "command/options.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: retort export RUN [OPTIONS]\n"
    "       retort export SET [OPTIONS]\n\n"
    "Writes a distilled set as other programs read it: images, labels, class names, normalisation, the whole recipe "
    "and\n"
    "hashes, with a README that has code for PyTorch, JAX and scikit-learn.\n\n"
    "  retort export runs/quickstart-0                              runs/quickstart-0-npz/\n"
    "  retort export runs/quickstart-0 --format png --out pictures\n"
    "  retort eval runs/quickstart-0-npz                            reads it back, bit for bit\n\n"
    "RUN is a run folder, SET a folder with images.npy, labels.npy and set.json, or an earlier export.\n\n"
    "  --format npz           set.npz, for NumPy (this unless another is named)\n"
    "  --format safetensors   set.safetensors, the same arrays\n"
    "  --format png           images/CLASS/*.png in 8 bits, and set.npz, which has lost nothing\n"
    "  --out DIR              the folder, new or empty; without it the name of RUN or SET, with -FORMAT behind it\n"
    "  --json                 for programs\n\n"
    "Nothing is ever overwritten. No device is needed.\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static void print_report(const struct export *export, bool json) {
    const struct quantisation *q = &export->quantisation;
    const struct npy *images = &export->set.images;
    if (json) {
        json_t *report =
            json_pack("{s:s, s:s, s:s, s:I}", "folder", export->place, "format", export_words[export->format],
                      "set_sha256", export->sha256, "images", (json_int_t)images->size[0]);
        if (export->format == EXPORT_PNG)
            json_object_set_new(report, "quantisation",
                                json_pack("{s:b, s:f, s:f, s:I, s:I}", "scaled", q->scaled, "rounding", q->rounding,
                                          "clipping", q->clipping, "clipped", (json_int_t)q->clipped, "values",
                                          (json_int_t)q->values));
        json_dumpf(report, stdout, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
        putchar('\n');
        json_decref(report);
        return;
    }
    printf("folder     %s\n", export->place);
    printf("images     %lld of %d classes, %lld x %lld x %lld, %s labels\n", (long long)images->size[0],
           export->classes, (long long)images->size[1], (long long)images->size[2], (long long)images->size[3],
           export->set.labels.rank == 2 ? "soft" : "hard");
    if (export->format == EXPORT_PNG)
        printf("pictures   8 bits: at most %.3f of 255 levels lost by rounding, %lld of %lld values clipped by up to "
               "%.2f%s\n",
               q->rounding, (long long)q->clipped, (long long)q->values, q->clipping,
               q->scaled ? "; each scaled to its own range" : "");
    printf("to load    %s/README.md has code for PyTorch, JAX and scikit-learn\n", export->place);
}

static int export_one(const struct options *options, enum export_format format) {
    int status = RETORT_OK;
    struct export export = {0};
    TRY(export_open(options->operands[0], format, options->value[OPTION_OUT], &export));
    TRY(export_write(&export));
    print_report(&export, options->given[OPTION_JSON]);
done:
    export_finish(&export);
    return status;
}

int command_export(int argc, char **argv) {
    int exit_status = EXIT_DONE, format = 0;
    struct options options;
    unsigned long allowed = OPTION_BIT(OPTION_FORMAT) | OPTION_BIT(OPTION_OUT) | OPTION_BIT(OPTION_JSON);
    if (!options_parse("export", help, allowed, argc, argv, &options, &exit_status)) goto leave;
    if (options.operand_count != 1) {
        exit_status = options.operand_count ? usage_error("export", "one set at a time, found %s after %s",
                                                          options.operands[1], options.operands[0])
                                            : usage_error("export", "what? Name a run folder or a set");
        goto leave;
    }
    const char *word = options.given[OPTION_FORMAT] ? options.value[OPTION_FORMAT] : export_words[EXPORT_NPZ];
    while (format < EXPORT_FORMATS && strcmp(export_words[format], word) != 0) format++;
    if (format == EXPORT_FORMATS) {
        exit_status = usage_error("export", "--format %s: expected npz, safetensors or png", word);
        goto leave;
    }
    int status = export_one(&options, (enum export_format)format);
    if (status < 0) exit_status = report_failure("export", status);
leave:
    options_finish(&options);
    return exit_status;
}
