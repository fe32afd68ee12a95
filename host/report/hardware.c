#include "report/hardware.h"

#include "base/error.h"
#include "base/numbers.h"
#include "report/page.h"
#include "run/json_file.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- where a key is, and what is wrong there --- */
struct place {
    const char *file;
    char path[96]; /* with a dot behind it: "results[2]." */
};

static struct place place_below(const struct place *place, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static struct place place_below(const struct place *place, const char *format, ...) {
    struct place below = *place;
    size_t length = strlen(below.path);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(below.path + length, sizeof below.path - length, format, arguments);
    va_end(arguments);
    return below;
}

/* What is there, in words. */
static void describe(const json_t *value, char words[64]) {
    if (!value)
        strcpy(words, "nothing");
    else if (json_is_string(value))
        snprintf(words, 64, "\"%.40s\"%s", json_string_value(value), json_string_length(value) > 40 ? "..." : "");
    else if (json_is_number(value))
        snprintf(words, 64, "%.9g", json_number_value(value));
    else
        strcpy(words, json_is_object(value)                            ? "an object"
                      : json_is_array(value) && json_array_size(value) ? "a list"
                      : json_is_array(value)                           ? "an empty list"
                      : json_is_null(value)                            ? "null"
                      : json_is_true(value)                            ? "true"
                                                                       : "false");
}

static int refuse(const struct place *place, const char *key, const json_t *found, const char *expected) {
    char words[64];
    describe(found, words);
    return error_set(RETORT_EFORMAT, "%s: %s%s: found %s, expected %s", place->file, place->path, key, words, expected);
}

/* --- fields of an object --- */
enum field_kind {
    FIELD_WORDS,
    FIELD_ABOVE, /* a number above 0 */
    FIELD_LEAST, /* or 0 */
    FIELD_BOOL,
    OR_NULL = 8, /* read as NULL or NaN */
};
struct field {
    const char *key;
    int kind;
    size_t at; /* of the struct */
};

static bool is_size(const json_t *value, bool zero) {
    double number = json_number_value(value);
    return json_is_number(value) && (zero ? number >= 0 : number > 0) && number < 1e30;
}

static int read_field(const struct place *place, const json_t *object, const struct field *field, void *into) {
    static const char *const expected[] = {"words", "a number above 0", "a number of at least 0", "true or false"};
    const json_t *value = json_object_get(object, field->key);
    const int kind = field->kind & ~OR_NULL;
    void *to = (char *)into + field->at;
    char words[64];
    bool fits = kind == FIELD_WORDS  ? json_is_string(value)
                : kind == FIELD_BOOL ? json_is_boolean(value)
                                     : is_size(value, kind == FIELD_LEAST);
    if (json_is_null(value) && field->kind & OR_NULL) {
        if (kind == FIELD_WORDS)
            *(const char **)to = NULL;
        else
            *(double *)to = NAN;
        return RETORT_OK;
    }
    if (!fits) {
        snprintf(words, sizeof words, "%s%s", expected[kind], field->kind & OR_NULL ? " or null" : "");
        return refuse(place, field->key, value, words);
    }
    if (kind == FIELD_WORDS)
        *(const char **)to = json_string_value(value);
    else if (kind == FIELD_BOOL)
        *(bool *)to = json_is_true(value);
    else
        *(double *)to = json_number_value(value);
    return RETORT_OK;
}

static int read_fields(const struct place *place, const json_t *object, const struct field *fields, size_t count,
                       void *into) {
    int status = RETORT_OK;
    for (size_t i = 0; i < count; i++) TRY(read_field(place, object, &fields[i], into));
done:
    return status;
}
#define READ_FIELDS(place, object, fields, into) \
    read_fields(place, object, fields, sizeof fields / sizeof *fields, into)

static int read_object(const struct place *place, const json_t *object, const char *key, json_t **value) {
    json_t *found = json_object_get(object, key);
    if (!json_is_object(found)) return refuse(place, key, found, "an object");
    *value = found;
    return RETORT_OK;
}

/* --- turns --- */
static void summarise(struct hardware_turns *turns) {
    double sorted[HARDWARE_TURNS];
    size_t count = turns->count;
    turns->least = turns->median = turns->largest = turns->spread = NAN;
    if (count == 0) return;
    memcpy(sorted, turns->values, count * sizeof *sorted);
    numbers_sort(sorted, count);
    turns->least = sorted[0];
    turns->largest = sorted[count - 1];
    turns->median = numbers_median(sorted, count);
    turns->spread = (turns->largest - turns->least) / turns->median;
}

/* A list, which may be empty only where a problem tells why. */
static int read_turns(const struct place *place, const json_t *object, const char *key, bool may_be_empty,
                      struct hardware_turns *turns) {
    int status = RETORT_OK;
    const json_t *list = json_object_get(object, key);
    size_t count = json_array_size(list);
    char name[64];
    if (!json_is_array(list)) TRY(refuse(place, key, list, "a list of numbers"));
    if (count == 0 && !may_be_empty) TRY(refuse(place, key, list, "a number for each turn, or a problem"));
    if (count > HARDWARE_TURNS)
        RAISE(RETORT_EFORMAT, "%s: %s%s: found %zu turns, expected %d at most", place->file, place->path, key, count,
              HARDWARE_TURNS);
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        snprintf(name, sizeof name, "%s[%zu]", key, i);
        if (!is_size(value, false)) TRY(refuse(place, name, value, "a number above 0"));
        turns->values[i] = json_number_value(value);
    }
    turns->count = count;
    summarise(turns);
done:
    return status;
}

/* --- one load, one device --- */
static int read_load(const struct place *place, const json_t *object, struct hardware_device *device) {
    static const struct field fields[] = {
        {"problem", FIELD_WORDS | OR_NULL, offsetof(struct hardware_row, problem)},
        {"joules", FIELD_ABOVE | OR_NULL, offsetof(struct hardware_row, joules)},
        {"flops", FIELD_ABOVE | OR_NULL, offsetof(struct hardware_row, flops)},
        {"bytes", FIELD_ABOVE | OR_NULL, offsetof(struct hardware_row, bytes)},
        {"device_bytes", FIELD_LEAST | OR_NULL, offsetof(struct hardware_row, device_bytes)},
        {"build_seconds", FIELD_LEAST | OR_NULL, offsetof(struct hardware_row, build_seconds)},
        {"arithmetic_seconds", FIELD_LEAST | OR_NULL, offsetof(struct hardware_row, arithmetic_seconds)},
        {"memory_seconds", FIELD_LEAST | OR_NULL, offsetof(struct hardware_row, memory_seconds)},
        {"way", FIELD_WORDS | OR_NULL, offsetof(struct hardware_row, way)},
    };
    int status = RETORT_OK;
    const json_t *name = json_object_get(object, "load");
    const struct load *load = json_is_string(name) ? load_find(json_string_value(name)) : NULL;
    if (!load) TRY(refuse(place, "load", name, "a load of this format, such as \"outer-32-1\""));
    struct hardware_row *row = &device->rows[load - loads];
    if (row->there)
        RAISE(RETORT_EFORMAT, "%s: %sload: found \"%s\" for the second time", place->file, place->path, load->name);
    row->there = true;
    TRY(READ_FIELDS(place, object, fields, row));
    TRY(read_turns(place, object, "seconds", row->problem, &row->seconds));
done:
    return status;
}

static int read_peaks(const struct place *place, const json_t *object, struct hardware_device *device) {
    static const struct field problem = {"problem", FIELD_WORDS | OR_NULL,
                                         offsetof(struct hardware_device, peak_problem)};
    int status = RETORT_OK;
    json_t *peaks = NULL;
    TRY(read_object(place, object, "peaks", &peaks));
    const struct place below = place_below(place, "peaks.");
    TRY(read_field(&below, peaks, &problem, device));
    bool may_be_empty = device->peak_problem || device->problem;
    TRY(read_turns(&below, peaks, "flops", may_be_empty, &device->peak_flops));
    TRY(read_turns(&below, peaks, "bytes", may_be_empty, &device->peak_bytes));
done:
    return status;
}

#define AT(member) offsetof(struct hardware_device, member)
static int read_device(const struct place *place, const json_t *object, struct hardware_device *device) {
    static const struct field traits[] = {
        {"name", FIELD_WORDS, AT(name)},
        {"platform", FIELD_WORDS, AT(platform)},
        {"vendor", FIELD_WORDS, AT(vendor)},
        {"version", FIELD_WORDS, AT(version)},
        {"driver", FIELD_WORDS, AT(driver)},
        {"kind", FIELD_WORDS, AT(kind)},
        {"compute_units", FIELD_LEAST, AT(compute_units)},
        {"lanes", FIELD_LEAST, AT(lanes)},
        {"global_memory", FIELD_LEAST, AT(global_memory)},
    };
    static const struct field fields[] = {
        {"family", FIELD_WORDS, AT(family)},
        {"wisdom", FIELD_WORDS | OR_NULL, AT(wisdom)},
        {"products", FIELD_WORDS | OR_NULL, AT(products)},
        {"energy", FIELD_WORDS | OR_NULL, AT(energy)},
        {"problem", FIELD_WORDS | OR_NULL, AT(problem)},
    };
    int status = RETORT_OK;
    json_t *described = NULL;
    TRY(read_object(place, object, "device", &described));
    const struct place below = place_below(place, "device.");
    TRY(READ_FIELDS(&below, described, traits, device));
    TRY(READ_FIELDS(place, object, fields, device));
    TRY(read_peaks(place, object, device));
    const json_t *list = json_object_get(object, "loads");
    if (!json_is_array(list)) TRY(refuse(place, "loads", list, "a list of loads"));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *load = json_array_get(list, i);
        const struct place at = place_below(place, "loads[%zu].", i);
        if (!json_is_object(load)) {
            char key[32];
            snprintf(key, sizeof key, "loads[%zu]", i);
            TRY(refuse(place, key, load, "an object"));
        }
        TRY(read_load(&at, load, device));
    }
done:
    return status;
}
#undef AT

/* --- the file --- */
static int read_head(const struct place *place, const json_t *json, struct hardware_file *file) {
#define AT(member) offsetof(struct hardware_file, member)
    static const struct field top[] = {
        {"retort", FIELD_WORDS, AT(retort)},
        {"measured", FIELD_WORDS, AT(measured)},
        {"quick", FIELD_BOOL, AT(quick)},
        {"limit_seconds", FIELD_ABOVE, AT(limit_seconds)},
    };
    static const struct field machine[] = {
        {"processor", FIELD_WORDS, AT(processor)},
        {"system", FIELD_WORDS, AT(system)},
        {"cores", FIELD_ABOVE, AT(cores)},
        {"memory_bytes", FIELD_ABOVE | OR_NULL, AT(memory_bytes)},
    };
    static const struct field build[] = {
        {"compiler", FIELD_WORDS, AT(compiler)},
        {"options", FIELD_WORDS, AT(options)},
        {"clblast", FIELD_WORDS | OR_NULL, AT(clblast)},
    };
#undef AT
    int status = RETORT_OK;
    json_t *part = NULL;
    const json_t *benchmark = json_object_get(json, "benchmark"), *format = json_object_get(json, "format");
    if (!json_is_string(benchmark) || strcmp(json_string_value(benchmark), "hardware") != 0)
        TRY(refuse(place, "benchmark", benchmark, "\"hardware\", as `retort bench --all-devices` writes it"));
    if (json_is_integer(format) && json_integer_value(format) > HARDWARE_FORMAT)
        RAISE(RETORT_EFORMAT, "%s: format: found %lld, which a later version of Retort wrote; this one reads %d",
              place->file, (long long)json_integer_value(format), HARDWARE_FORMAT);
    if (!json_is_integer(format) || json_integer_value(format) != HARDWARE_FORMAT)
        TRY(refuse(place, "format", format, "1"));
    TRY(READ_FIELDS(place, json, top, file));
    TRY(read_object(place, json, "machine", &part));
    const struct place in_machine = place_below(place, "machine."), in_build = place_below(place, "build.");
    TRY(READ_FIELDS(&in_machine, part, machine, file));
    TRY(read_object(place, json, "build", &part));
    TRY(READ_FIELDS(&in_build, part, build, file));
done:
    return status;
}

int hardware_check(const char *path, json_t *json, struct hardware_file *file) {
    int status = RETORT_OK;
    struct hardware_file fresh = {.json = json_incref(json), .path = path};
    const struct place place = {.file = path};
    TRY(read_head(&place, json, &fresh));
    const json_t *list = json_object_get(json, "results");
    size_t count = json_array_size(list);
    if (!count || count > HARDWARE_DEVICES) TRY(refuse(&place, "results", list, "a list of 1 to 64 devices"));
    fresh.devices = calloc(count, sizeof *fresh.devices);
    if (!fresh.devices) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
    for (size_t i = 0; i < count; i++) {
        const json_t *result = json_array_get(list, i);
        const struct place at = place_below(&place, "results[%zu].", i);
        char key[32];
        snprintf(key, sizeof key, "results[%zu]", i);
        if (!json_is_object(result)) TRY(refuse(&place, key, result, "an object"));
        TRY(read_device(&at, result, &fresh.devices[i]));
    }
    fresh.device_count = count;
    *file = fresh;
    fresh = (struct hardware_file){0};
done:
    hardware_finish(&fresh);
    return status;
}

int hardware_read(const char *path, struct hardware_file *file) {
    int status = RETORT_OK;
    json_t *json = NULL;
    TRY(json_file_read(path, &json));
    TRY(hardware_check(path, json, file));
done:
    json_decref(json);
    return status;
}

void hardware_finish(struct hardware_file *file) {
    if (!file) return;
    json_decref(file->json);
    free(file->devices);
    *file = (struct hardware_file){0};
}
