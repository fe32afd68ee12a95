#include "report/record.h"

#include "base/error.h"
#include "base/numbers.h"
#include "data/data.h"
#include "report/html.h"
#include "run/descriptor.h"
#include "run/json_file.h"

#include <ctype.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREVIEW_BYTES (8u << 20)
#define PREVIEW_MOST  64

/* --- what cannot be read is said on the page, and the rest is shown --- */
static int note(struct record *record, int status) {
    if (status >= 0 || status == RETORT_ENOMEM) return status;
    char *words = strdup(retort_error_message());
    error_clear();
    /* cppcheck-suppress memleak; the list has it */
    if (words && array_push(&record->notes, words)) return RETORT_OK;
    free(words);
    return error_set(RETORT_ENOMEM, "out of memory reading %s", record->path);
}

static int read_json(struct record *record, const char *name, json_t **value) {
    char path[FILE_PATH_MAX];
    return folder_has_file(record->path, name, path) ? note(record, json_file_read(path, value)) : RETORT_OK;
}

/* --- the recipe --- */
static int read_recipe(struct record *record) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    unsigned char *text;
    size_t size;
    struct descriptor descriptor = {0};
    if (folder_has_file(record->path, "descriptor.yaml", path)) {
        status = file_read(path, 16 << 20, &text, &size);
        if (status == RETORT_OK) record->descriptor = (char *)text;
        TRY(note(record, status));
    }
    if (record->descriptor) {
        status = descriptor_read_copy(path, NULL, 0, &descriptor);
        if (status == RETORT_OK) record->recipe = descriptor_json(&descriptor);
        TRY(note(record, status));
    }
    /* Keys of a version that this one does not read: the set has them too. */
    const json_t *kept = json_object_get(record->about, "recipe");
    if (!record->recipe && json_is_object(kept)) record->recipe = json_incref((json_t *)kept);
done:
    descriptor_finish(&descriptor);
    return status;
}

/* --- accuracies --- */
/* A row that checkpoint/scores.json keeps while others are computed, as result.json has it; NULL where it is none. */
static json_t *row_so_far(const json_t *kept) {
    json_int_t networks, checkpoints, chosen;
    int on_test;
    json_t *steps, *flat, *mean, *sd;
    if (json_unpack((json_t *)kept, "{s:I, s:I, s:o, s:o, s:I, s:b, s:o, s:o}", "networks", &networks, "checkpoints",
                    &checkpoints, "steps", &steps, "runs", &flat, "chosen", &chosen, "chosen_on_test", &on_test, "mean",
                    &mean, "sd", &sd)
            < 0
        || networks < 1 || checkpoints < 1 || chosen < 0 || chosen >= checkpoints || networks > 1000000
        || checkpoints > 1000 || json_array_size(flat) != (size_t)(networks * checkpoints))
        return NULL;
    json_t *runs = NULL, *by_step = json_array();
    for (json_int_t c = 0; c < checkpoints; c++) {
        json_t *all = json_array();
        double sum = 0;
        for (json_int_t n = 0; n < networks; n++) {
            json_t *value = json_array_get(flat, (size_t)(n * checkpoints + c));
            json_array_append(all, value);
            sum += json_number_value(value) / (double)networks;
        }
        if (c == chosen) runs = json_incref(all);
        json_array_append_new(
            by_step, json_pack("{s:O, s:f, s:o}", "step", json_array_get(steps, (size_t)c), "mean", sum, "runs", all));
    }
    return json_pack("{s:O, s:O, s:o, s:O, s:s, s:o}", "mean", mean, "sd", sd, "runs", runs, "step",
                     json_array_get(steps, (size_t)chosen), "chosen_on", on_test ? "test" : "nothing to choose",
                     "by_step", by_step);
}

static int read_accuracy(struct record *record) {
    int status = RETORT_OK;
    json_t *scores = NULL, *kept;
    const char *name;
    const json_t *accuracy = json_object_get(record->result, "accuracy");
    if (record->result && json_object_size(accuracy)) record->accuracy = json_incref((json_t *)accuracy);
    if (!record->result) TRY(read_json(record, "checkpoint/scores.json", &scores));
    json_t *rows = json_object_get(scores, "rows"), *found = json_object();
    json_object_foreach(rows, name, kept) {
        json_t *row = row_so_far(kept);
        if (row) json_object_set_new(found, name, row);
    }
    if (json_object_size(found)) record->accuracy = json_incref(found);
    json_decref(found);
done:
    json_decref(scores);
    return status;
}

/* --- the set --- */
static bool all_finite(const float *values, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        if (!isfinite(values[i])) return false;
    return true;
}

static int read_labels(const char *path, struct record_set *set) {
    int status = RETORT_OK;
    struct npy npy = {0};
    TRY(npy_read(path, &npy));
    bool whole = npy.type == NPY_INT32 || npy.type == NPY_INT64 || npy.type == NPY_UINT8;
    if (npy.rank < 1 || npy.size[0] != set->count || npy.rank > 2 || (npy.rank == 1) != whole)
        RAISE(RETORT_EFORMAT, "%s: expected labels of %lld images", path, (long long)set->count);
    if (npy.rank == 1)
        TRY(npy_to_int(&npy, path, &set->hard));
    else if (npy.size[1] < 1 || npy.size[1] > INT32_MAX)
        RAISE(RETORT_EFORMAT, "%s: labels of no class", path);
    else
        TRY(npy_to_float(&npy, path, &set->soft));
    set->classes = set->soft ? (int)npy.size[1] : 0;
    for (int64_t i = 0; i < set->count && set->hard; i++) {
        if (set->hard[i] < 0 || set->hard[i] == INT32_MAX)
            RAISE(RETORT_EFORMAT, "%s: label %d of image %lld", path, set->hard[i], (long long)i);
        if (set->hard[i] >= set->classes) set->classes = set->hard[i] + 1;
    }
done:
    npy_finish(&npy);
    return status;
}

static int read_arrays(const char *images, const char *labels, const char *normalisation, struct record_set *set) {
    int status = RETORT_OK;
    struct npy npy = {0};
    struct normalisation map = {0};
    TRY(npy_read(images, &npy));
    if (npy.rank != 4 || npy.type != NPY_FLOAT32 || npy_count(&npy) < 1)
        RAISE(RETORT_EFORMAT, "%s: expected float32 images [N,C,H,W]", images);
    TRY(normalisation_load(normalisation, &map));
    if (map.channels != npy.size[1] || map.height != npy.size[2] || map.width != npy.size[3])
        RAISE(RETORT_EFORMAT, "%s is of images of another size than %s", normalisation, images);
    set->count = npy.size[0];
    set->channels = map.channels;
    set->height = map.height;
    set->width = map.width;
    set->pixels = npy.data;
    npy.data = NULL;
    if (!all_finite(set->pixels, npy_count(&npy))) RAISE(RETORT_EFORMAT, "%s holds NaN or infinities", images);
    TRY(normalisation_show(&map, set->pixels, set->count, &set->exact));
    TRY(read_labels(labels, set));
done:
    npy_finish(&npy);
    normalisation_finish(&map);
    return status;
}

static void set_clear(struct record_set *set) {
    free(set->pixels);
    free(set->soft);
    free(set->hard);
    *set = (struct record_set){0};
}

static int read_set(struct record *record) {
    char images[FILE_PATH_MAX], labels[FILE_PATH_MAX], normalisation[FILE_PATH_MAX];
    struct record_set set = {0};
    if (!folder_has_file(record->path, "set/images.npy", images)
        || !folder_has_file(record->path, "set/labels.npy", labels)
        || !folder_has_file(record->path, "set/normalisation.npz", normalisation))
        return RETORT_OK;
    int status = read_arrays(images, labels, normalisation, &set);
    if (status == RETORT_OK)
        record->set = set;
    else
        set_clear(&set);
    return note(record, status);
}

/* --- previews --- */
static int add_preview(struct record *record, const char *path, int64_t step) {
    static const unsigned char signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    struct preview preview = {.step = step};
    int status = file_read(path, PREVIEW_BYTES, &preview.png, &preview.size);
    if (status == RETORT_OK && (preview.size < 8 || memcmp(preview.png, signature, 8) != 0))
        status = error_set(RETORT_EFORMAT, "%s is no PNG picture", path);
    if (status == RETORT_OK && !array_push(&record->previews, preview))
        status = error_set(RETORT_ENOMEM, "out of memory reading %s", path);
    if (status < 0) free(preview.png);
    return note(record, status);
}

static int compare_previews(const void *a, const void *b) {
    const struct preview *left = a, *right = b;
    return (left->step > right->step) - (left->step < right->step);
}

/* previews/STEP.png, of which a run makes few. */
static int read_previews(struct record *record) {
    int status = RETORT_OK;
    char folder[FILE_PATH_MAX], path[FILE_PATH_MAX];
    DIR *stream = NULL;
    if (!record->set.count && folder_has_file(record->path, "preview.png", path))
        TRY(add_preview(record, path, PREVIEW_LAST));
    if (path_join(record->path, "previews", folder) < 0 || !(stream = opendir(folder))) goto done;
    for (struct dirent *entry; record->previews.count < PREVIEW_MOST && (entry = readdir(stream));) {
        size_t digits = strspn(entry->d_name, "0123456789");
        if (!digits || digits > 12 || strcmp(entry->d_name + digits, ".png") != 0) continue;
        if (path_join(folder, entry->d_name, path) == RETORT_OK)
            TRY(add_preview(record, path, strtoll(entry->d_name, NULL, 10)));
    }
    if (record->previews.count)
        qsort(record->previews.items, record->previews.count, sizeof *record->previews.items, compare_previews);
done:
    error_clear();
    if (stream) closedir(stream);
    return status;
}

/* --- all of it --- */
static void find_name(struct record *record) {
    size_t end = strlen(record->path);
    while (end > 1 && record->path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && record->path[begin - 1] != '/') begin--;
    snprintf(record->name, sizeof record->name, "%.*s", (int)(end - begin), record->path + begin);
    if (*record->name == '\0' || strcmp(record->name, ".") == 0 || strcmp(record->name, "..") == 0) {
        char *resolved = realpath(record->path, NULL);
        const char *slash = resolved ? strrchr(resolved, '/') : NULL;
        if (slash) snprintf(record->name, sizeof record->name, "%s", slash[1] ? slash + 1 : "/");
        free(resolved);
    }
}

static int read_metrics(struct record *record) {
    char path[FILE_PATH_MAX];
    size_t damaged;
    if (!folder_has_file(record->path, "metrics.jsonl", path)) return RETORT_OK;
    int status = metrics_read(path, &record->metrics, &damaged);
    if (status == RETORT_OK && damaged)
        status = error_set(RETORT_EFORMAT, "%s has %zu lines that are no JSON", path, damaged);
    return note(record, status);
}

int record_read(const char *path, struct record *record) {
    int status = RETORT_OK;
    struct record fresh = {0};
    char file[FILE_PATH_MAX];
    if (!folder_exists(path))
        RAISE(RETORT_EINVAL,
              file_exists(path) ? "%s is a file; name a run folder" : "%s is not there; name a run folder", path);
    if (strlen(path) >= sizeof fresh.path) RAISE(RETORT_EINVAL, "path too long: %s", path);
    strcpy(fresh.path, path);
    if (!folder_has_file(fresh.path, "descriptor.yaml", file) && !folder_has_file(fresh.path, "result.json", file))
        RAISE(RETORT_EINVAL, "%s is no run folder: it holds neither descriptor.yaml nor result.json", path);
    find_name(&fresh);
    TRY(read_json(&fresh, "result.json", &fresh.result));
    TRY(read_json(&fresh, "set/set.json", &fresh.about));
    TRY(read_json(&fresh, "plan.json", &fresh.plan));
    TRY(read_recipe(&fresh));
    TRY(read_accuracy(&fresh));
    TRY(read_metrics(&fresh));
    TRY(read_set(&fresh));
    TRY(read_previews(&fresh));
    *record = fresh;
    return RETORT_OK;
done:
    record_finish(&fresh);
    return status;
}

void record_finish(struct record *record) {
    free(record->descriptor);
    json_decref(record->result);
    json_decref(record->about);
    json_decref(record->plan);
    json_decref(record->recipe);
    json_decref(record->accuracy);
    metrics_table_finish(&record->metrics);
    set_clear(&record->set);
    for (size_t i = 0; i < record->previews.count; i++) free(record->previews.items[i].png);
    array_finish(&record->previews);
    for (size_t i = 0; i < record->notes.count; i++) free(record->notes.items[i]);
    array_finish(&record->notes);
    *record = (struct record){0};
}

/* --- what follows from it --- */
const char *record_class_name(const struct record *record, int class) {
    return json_string_value(json_array_get(json_object_get(record->about, "class_names"), (size_t) class));
}

int record_class(const struct record *record, int64_t i) {
    const struct record_set *set = &record->set;
    if (set->hard) return set->hard[i];
    int64_t ipc = json_integer_value(json_object_get(record->about, "ipc"));
    if (ipc > 0 && i / ipc < set->classes) return (int)(i / ipc);
    int best = 0;
    for (int k = 1; k < set->classes; k++)
        if (set->soft[i * set->classes + k] > set->soft[i * set->classes + best]) best = k;
    return best;
}

int64_t record_outer_steps(const struct record *record) {
    double steps = json_number_at(record->recipe, "outer.steps");
    if (isnan(steps)) steps = json_number_at(record->result, "outer_steps");
    return steps >= 1 && steps < 1e15 ? (int64_t)steps : 0;
}

double record_step_seconds(const struct record *record) {
    const double *seconds = metrics_column(&record->metrics, "seconds");
    double *sorted = seconds ? malloc(record->metrics.rows * sizeof *sorted) : NULL;
    size_t count = 0;
    for (size_t i = 0; sorted && i < record->metrics.rows; i++)
        if (!isnan(seconds[i])) sorted[count++] = seconds[i];
    numbers_sort(sorted, count);
    double median = count ? sorted[count / 2] : NAN;
    free(sorted);
    return median;
}
