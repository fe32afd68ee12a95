#include "command/options.h"

#include "base/error.h"
#include "base/log.h"
#include "bench/bench.h"
#include "command/interrupt.h"
#include "run/nearest.h"
#include "run/words.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *argument; /* argument: NULL where the option takes none */
} table[OPTION_COUNT] = {
    [OPTION_HELP] = {"help", NULL},
    [OPTION_HELP_KEYS] = {"help-keys", NULL},
    [OPTION_DEVICE] = {"device", "SPEC"},
    [OPTION_FAMILY] = {"family", "auto|cpu|gpu"},
    [OPTION_SEED] = {"seed", "N"},
    [OPTION_SEEDS] = {"seeds", "LIST"},
    [OPTION_OUT] = {"out", "DIR"},
    [OPTION_FORMAT] = {"format", "npz|safetensors|png"},
    [OPTION_SET] = {"set", "KEY=VALUE"},
    [OPTION_RESUME] = {"resume", NULL},
    [OPTION_DRY_RUN] = {"dry-run", NULL},
    [OPTION_WITH] = {"with", "DESCRIPTOR"},
    [OPTION_CHECKPOINT_EVERY] = {"checkpoint-every", "SECONDS"},
    [OPTION_NO_TEST] = {"no-test", NULL},
    [OPTION_PROFILE] = {"profile", NULL},
    [OPTION_TENSORBOARD] = {"tensorboard", NULL},
    [OPTION_IMAGE] = {"image", "C,H,W"},
    [OPTION_IPC] = {"ipc", "N"},
    [OPTION_PREFIX] = {"prefix", "P"},
    [OPTION_WINDOW] = {"window", "W"},
    [OPTION_REAL] = {"real", "B"},
    [OPTION_WIDTH] = {"width", "C"},
    [OPTION_REPS] = {"reps", "R"},
    [OPTION_MEMORY] = {"memory", "SIZE"},
    [OPTION_LAUNCHES] = {"launches", NULL},
    [OPTION_CHANNELS] = {"channels", "C"},
    [OPTION_SIDE] = {"side", "S"},
    [OPTION_BATCH] = {"batch", "N"},
    [OPTION_QUICK] = {"quick", NULL},
    [OPTION_AS] = {"as", "DEVICE"},
    [OPTION_LIST] = {"list", NULL},
    [OPTION_TUNE_SECONDS] = {"tune-seconds", "SECONDS"},
    [OPTION_NO_TUNE] = {"no-tune", NULL},
    [OPTION_SHEET] = {"sheet", "FILE.png"},
    [OPTION_WHAT_IF] = {"what-if", "KEY=VALUE"},
    [OPTION_ALL_DEVICES] = {"all-devices", NULL},
    [OPTION_LIMIT] = {"limit", "SECONDS"},
    [OPTION_MARKDOWN] = {"markdown", NULL},
    [OPTION_NETWORKS] = {"networks", "N"},
    [OPTION_EPOCHS] = {"epochs", "E"},
    [OPTION_QUIET] = {"quiet", NULL},
    [OPTION_JSON] = {"json", NULL},
};

int usage_error(const char *verb, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "retort%s%s: ", verb ? " " : "", verb ? verb : "");
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\nTry `retort%s%s --help`.\n", verb ? " " : "", verb ? verb : "");
    return EXIT_USAGE;
}

int report_failure(const char *verb, int status) {
    if (status >= 0) return EXIT_DONE;
    if (status == RETORT_EINTERRUPTED) {
        if (*retort_error_message()) log_info("%s", retort_error_message());
        return EXIT_INTERRUPTED;
    }
    const char *words = retort_error_message();
    fprintf(stderr, "retort %s: %s\n", verb, *words ? words : retort_status_name(status));
    /* Compilers inside OpenCL drivers delete their files when a Ctrl-C comes; what they were building then fails. */
    if (was_interrupted()) return EXIT_INTERRUPTED;
    return status == RETORT_EINVAL ? EXIT_USAGE : EXIT_FAILED;
}

static int unknown_option(const char *verb, const char *word, unsigned long allowed) {
    const char *known[OPTION_COUNT + 1];
    size_t count = 0;
    for (int i = 0; i < OPTION_COUNT; i++)
        if (allowed & OPTION_BIT(i)) known[count++] = table[i].name;
    known[count] = NULL;
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)strcspn(word + strspn(word, "-"), "="), word + strspn(word, "-"));
    for (int i = 0; i < OPTION_COUNT; i++)
        if (strcmp(table[i].name, name) == 0 && !(allowed & OPTION_BIT(i)))
            return usage_error(verb, "%s takes no option --%s", verb, name);
    const char *meant = word_nearest(name, known);
    if (meant) return usage_error(verb, "unknown option %s (did you mean --%s?)", word, meant);
    return usage_error(verb, "unknown option %s", word);
}

/* A value as the double-quoted YAML text that reads back as it. */
static char *quoted_yaml(struct arena *arena, const char *key, const char *value) {
    struct text text;
    text_init(&text);
    text_printf(&text, "%s=\"", key);
    for (; *value; value++)
        text_printf(&text,
                    (unsigned char)*value < 32        ? "\\x%02x"
                    : *value == '"' || *value == '\\' ? "\\%c"
                                                      : "%c",
                    (unsigned char)*value);
    text_append(&text, "\"");
    char *copy = text.failed ? NULL : arena_copy_text(arena, text_get(&text));
    text_finish(&text);
    return copy;
}

bool options_parse(const char *verb, const char *help, unsigned long allowed, int argc, char **argv,
                   struct options *options, int *status) {
    *options = (struct options){0};
    allowed |= OPTION_BIT(OPTION_HELP);
    struct option long_options[OPTION_COUNT + 1] = {0};
    size_t count = 0;
    for (int i = 0; i < OPTION_COUNT; i++)
        if (allowed & OPTION_BIT(i))
            long_options[count++] =
                (struct option){table[i].name, table[i].argument ? required_argument : no_argument, NULL, i};
    options->overrides = arena_array(&options->arena, (size_t)argc + 1, sizeof *options->overrides);
    options->what_if = arena_array(&options->arena, (size_t)argc + 1, sizeof *options->what_if);
    if (!options->overrides || !options->what_if) {
        *status = report_failure(verb, error_set(RETORT_ENOMEM, "out of memory"));
        return false;
    }
    opterr = 0;
    optind = 1;
    for (;;) {
        int at = optind;
        int option = getopt_long(argc, argv, ":hq", long_options, NULL);
        if (option == -1) break;
        if (option == 'h') option = OPTION_HELP;
        if (option == 'q' && allowed & OPTION_BIT(OPTION_QUIET)) option = OPTION_QUIET;
        if (option == ':') {
            int which = 0;
            while (which < OPTION_COUNT - 1 && which != optopt) which++;
            *status = usage_error(verb, "--%s needs a value: --%s %s", table[which].name, table[which].name,
                                  table[which].argument);
            return false;
        }
        if (option < 0 || option >= OPTION_COUNT) {
            /* getopt moves operands behind options, so the culprit is what it stood on. */
            const char *word = argv[optind > at ? optind - 1 : at];
            if (optopt > 0 && optopt < OPTION_COUNT && !table[optopt].argument && strchr(word, '='))
                *status = usage_error(verb, "--%s takes no value, found %s", table[optopt].name, word);
            else
                *status = unknown_option(verb, word, allowed);
            return false;
        }
        options->given[option] = true;
        options->value[option] = optarg;
        if (option == OPTION_WHAT_IF) options->what_if[options->what_if_count++] = optarg;
        if (option == OPTION_SET || option == OPTION_SEED || option == OPTION_DEVICE) {
            struct schema_override *override = &options->overrides[options->override_count++];
            override->option = arena_printf(&options->arena, "--%s %s", table[option].name, optarg);
            if (option == OPTION_SET)
                override->assignment = optarg;
            else if (option == OPTION_SEED)
                override->assignment = arena_printf(&options->arena, "seed=%s", optarg);
            else
                override->assignment = quoted_yaml(&options->arena, "device.select", optarg);
            if (!override->option || !override->assignment) {
                *status = report_failure(verb, error_set(RETORT_ENOMEM, "out of memory"));
                return false;
            }
        }
    }
    if (options->given[OPTION_HELP]) {
        fputs(help, stdout);
        *status = EXIT_DONE;
        return false;
    }
    if (options->given[OPTION_QUIET]) log_set_level(LOG_WARNING);
    options->operands = (const char *const *)argv + optind;
    options->operand_count = argc - optind;
    return true;
}

const char *options_name(enum option_name option) {
    return table[option].name;
}

bool options_family(const char *verb, const struct options *options, enum family *family) {
    const char *word = options->value[OPTION_FAMILY];
    if (!word) return true;
    for (int i = 0; words_family[i]; i++) {
        if (strcmp(word, words_family[i]) != 0) continue;
        *family = (enum family)i;
        return true;
    }
    usage_error(verb, "--family %s: expected auto, cpu or gpu", word);
    return false;
}

bool options_descriptor(const char *verb, const struct options *options) {
    if (options->operand_count == 1) return true;
    if (options->operand_count)
        usage_error(verb, "one descriptor at a time, found %s after %s", options->operands[1], options->operands[0]);
    else
        usage_error(verb, "which descriptor? A first one is configs/quickstart.yaml");
    return false;
}

bool options_int(const char *verb, const struct options *options, enum option_name option, int least, int most,
                 int *value) {
    const char *word = options->value[option];
    if (!word) return true;
    char *end;
    errno = 0;
    long number = strtol(word, &end, 10);
    if (end == word || *end || errno || number < least || number > most) {
        usage_error(verb, "--%s %s: expected a whole number of %d to %d", table[option].name, word, least, most);
        return false;
    }
    *value = (int)number;
    return true;
}

bool options_seconds(const char *verb, const struct options *options, enum option_name option, double *value) {
    const char *word = options->value[option];
    char *end;
    if (!word) return true;
    double seconds = strtod(word, &end);
    if (end == word || *end || !(seconds > 0) || !(seconds < 1e9)) {
        usage_error(verb, "--%s %s: expected a number of seconds above 0", table[option].name, word);
        return false;
    }
    *value = seconds;
    return true;
}

bool options_bytes(const char *verb, const struct options *options, enum option_name option, uint64_t *value) {
    const char *word = options->value[option];
    uint64_t bytes;
    if (!word) return true;
    if (!schema_read_bytes(word, &bytes)) {
        usage_error(verb, "--%s %s: expected an amount of memory such as 512 MiB or 2 GiB", table[option].name, word);
        return false;
    }
    *value = bytes;
    return true;
}

bool options_image(const char *verb, const struct options *options, int image[3]) {
    const char *word = options->value[OPTION_IMAGE];
    int size[3], end = 0;
    if (!word) return true;
    bool fits = sscanf(word, "%d,%d,%d%n", &size[0], &size[1], &size[2], &end) == 3 && !word[end];
    for (int i = 0; i < 3 && fits; i++) fits = size[i] >= 1 && size[i] <= 4096;
    if (!fits) {
        usage_error(verb, "--image %s: expected channels, height and width, such as 3,32,32", word);
        return false;
    }
    memcpy(image, size, sizeof size);
    return true;
}

bool options_step(const char *verb, const struct options *options, struct bench_step_spec *spec) {
    return options_image(verb, options, spec->image) && options_int(verb, options, OPTION_IPC, 1, 10000, &spec->ipc)
           && options_int(verb, options, OPTION_PREFIX, 0, 1000000, &spec->prefix)
           && options_int(verb, options, OPTION_WINDOW, 1, 100000, &spec->window)
           && options_int(verb, options, OPTION_REAL, 1, 1000000, &spec->real)
           && options_int(verb, options, OPTION_WIDTH, 1, 65536, &spec->width)
           && options_bytes(verb, options, OPTION_MEMORY, &spec->memory)
           && options_family(verb, options, &spec->family);
}

void options_finish(struct options *options) {
    arena_finish(&options->arena);
    *options = (struct options){0};
}
