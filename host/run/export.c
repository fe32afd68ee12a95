#include "run/export.h"

#include "base/error.h"
#include "run/json_file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *const export_words[] = {
    [EXPORT_NPZ] = "npz", [EXPORT_SAFETENSORS] = "safetensors", [EXPORT_PNG] = "png", NULL};

void export_finish(struct export *export) {
    if (!export) return;
    stored_set_finish(&export->set);
    normalisation_finish(&export->normalisation);
    *export = (struct export){0};
}

int export_class(const struct export *export, int64_t row) {
    const struct npy *labels = &export->set.labels;
    if (export->ipc) return (int)(row / export->ipc);
    if (labels->rank == 1) return ((const int32_t *)labels->data)[row];
    const float *weights = (const float *)labels->data + row * export->classes;
    int best = 0;
    for (int k = 1; k < export->classes; k++)
        if (weights[k] > weights[best]) best = k;
    return best;
}

const char *export_class_name(const struct export *export, int class) {
    return json_string_value(json_array_get(json_object_get(export->set.about, "class_names"), (size_t) class));
}

/* --- checks --- */
static int check_about(struct export *export) {
    int status = RETORT_OK;
    struct stored_set *set = &export->set;
    json_t *names, *recipe;
    if (!set->about)
        RAISE(
            RETORT_EINVAL,
            "%s is not there, which tells class names, normalisation and recipe of the set; export a run, or a folder "
            "that retort run wrote",
            set->about_name);
    if (json_unpack(set->about, "{s:i, s:i, s:o, s:o}", "classes", &export->classes, "ipc", &export->ipc, "class_names",
                    &names, "recipe", &recipe)
            < 0
        || export->classes < 1 || export->ipc < 0 || !json_is_object(recipe))
        RAISE(RETORT_EFORMAT, "%s: expected classes, ipc, class_names and recipe", set->about_name);
    for (size_t i = 0; i < (size_t) export->classes; i++)
        if (!json_is_string(json_array_get(names, i)))
            RAISE(RETORT_EFORMAT, "%s: expected %d class_names", set->about_name, export->classes);
done:
    return status;
}

/* What the run found the set to be worth goes along, where it is known. */
static int add_result(struct export *export) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    json_t *result = NULL, *accuracy, *protocol;
    if (!*export->source.run) return RETORT_OK;
    TRY(path_join(export->source.run, "result.json", path));
    if (!file_exists(path)) return RETORT_OK;
    TRY(json_file_read(path, &result));
    accuracy = json_object_get(result, "accuracy");
    protocol = json_object_get(result, "protocol");
    if (json_object_size(accuracy) && json_is_string(protocol)
        && json_object_set_new(export->set.about, "result",
                               json_pack("{s:O, s:O}", "protocol", protocol, "accuracy", accuracy))
               < 0)
        RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
done:
    json_decref(result);
    return status;
}

static int check_arrays(struct export *export) {
    int status = RETORT_OK;
    struct stored_set *set = &export->set;
    struct npy *images = &set->images, *labels = &set->labels;
    struct normalisation *normalisation = &export->normalisation;
    float *finite = NULL;
    const int64_t expected[3] = {normalisation->channels, normalisation->height, normalisation->width};
    if (images->type != NPY_FLOAT32 || images->rank != 4 || images->size[0] < 1
        || memcmp(images->size + 1, expected, sizeof expected) != 0)
        RAISE(RETORT_EFORMAT, "%s: expected float32 [N,%d,%d,%d], as the normalisation has it", set->images_name,
              normalisation->channels, normalisation->height, normalisation->width);
    bool hard = labels->type == NPY_INT32 && labels->rank == 1;
    bool soft = labels->type == NPY_FLOAT32 && labels->rank == 2 && labels->size[1] == export->classes;
    if (!(hard || soft) || labels->size[0] != images->size[0])
        RAISE(RETORT_EFORMAT, "%s: expected int32 [%lld] or float32 [%lld,%d]", set->labels_name,
              (long long)images->size[0], (long long)images->size[0], export->classes);
    for (int64_t i = 0; hard && i < labels->size[0]; i++) {
        int32_t label = ((const int32_t *)labels->data)[i];
        if (label < 0 || label >= export->classes)
            RAISE(RETORT_EFORMAT, "%s: label %d of image %lld, expected 0 to %d", set->labels_name, label, (long long)i,
                  export->classes - 1);
    }
    if (export->ipc && images->size[0] != (int64_t) export->ipc * export->classes)
        RAISE(RETORT_EFORMAT, "%s holds %lld images, expected %d for each of %d classes", set->images_name,
              (long long)images->size[0], export->ipc, export->classes);
    if (export->format == EXPORT_PNG && normalisation->channels != 1 && normalisation->channels != 3)
        RAISE(RETORT_EINVAL, "pictures have one channel or three, this set has %d; take --format npz or safetensors",
              normalisation->channels);
    TRY(npy_to_float(images, set->images_name, &finite));
done:
    free(finite);
    return status;
}

static uint64_t disk_bytes(const struct export *export) {
    uint64_t images = (uint64_t)npy_count(&export->set.images), labels = (uint64_t)npy_count(&export->set.labels);
    uint64_t pixels = images / (uint64_t) export->set.images.size[0];
    uint64_t whitening = export->normalisation.whiten ? 2 * pixels * pixels * sizeof(float) + pixels * 8 : 0;
    uint64_t pictures = export->format == EXPORT_PNG ? images + 4096 * (uint64_t) export->set.images.size[0] : 0;
    return (images + labels) * sizeof(float) + whitening + pictures + (1 << 20);
}

/* `out`, or the name of what is exported with the format behind it. */
static int name_place(const char *path, const char *out, struct export *export) {
    int status = RETORT_OK;
    char stem[FILE_PATH_MAX], *real = NULL;
    const char *place = export->place;
    if (out && !*out) RAISE(RETORT_EINVAL, "--out: the name of the folder is empty");
    if (out) {
        if (strlen(out) >= sizeof export->place) RAISE(RETORT_EINVAL, "path too long: %s", out);
        strcpy(export->place, out);
    } else {
        /* Names such as `.` and `..` say nothing. */
        real = realpath(path, NULL);
        const char *slash = strrchr(path, '/'), *last = slash ? slash + 1 : path;
        bool named = *last && strcmp(last, ".") != 0 && strcmp(last, "..") != 0;
        snprintf(stem, sizeof stem, "%s", named || !real ? path : real);
        char *dot = strrchr(stem, '.');
        if (dot && (strcmp(dot, ".npz") == 0 || strcmp(dot, ".safetensors") == 0)) *dot = '\0';
        if (snprintf(export->place, sizeof export->place, "%s-%s", stem, export_words[export->format])
            >= (int)sizeof export->place)
            RAISE(RETORT_EINVAL, "path too long: %s", stem);
    }
    for (size_t end = strlen(place); end > 1 && place[end - 1] == '/'; end--) export->place[end - 1] = '\0';
    if (file_exists(place) && !folder_exists(place))
        RAISE(RETORT_EINVAL, "%s is a file; name a new folder with --out", place);
    if (!folder_empty(place))
        RAISE(RETORT_EINVAL, "%s is not empty, and nothing in it will be overwritten; name a new folder with --out",
              place);
done:
    free(real);
    return status;
}

int export_open(const char *path, enum export_format format, const char *out, struct export *export) {
    int status = RETORT_OK;
    struct export fresh = {.format = format};
    TRY(set_find(path, &fresh.source));
    TRY(name_place(path, out, &fresh));
    TRY(stored_set_read(&fresh.source, &fresh.set));
    TRY(check_about(&fresh));
    TRY(add_result(&fresh));
    TRY(stored_set_read_normalisation(&fresh.source, &fresh.normalisation));
    TRY(check_arrays(&fresh));
    TRY(stored_set_hash(&fresh.set, fresh.sha256));
    TRY(folder_check_room(fresh.place, disk_bytes(&fresh)));
    *export = fresh;
    fresh = (struct export){0};
done:
    export_finish(&fresh);
    return status;
}

/* --- writing --- */
static struct npy_member member_of(const char *name, const struct npy *npy) {
    return (struct npy_member){name, npy->type, npy->rank, npy->size, npy->data};
}

/* set.npz or set.safetensors: the arrays, those of the normalisation, and what set.json says. */
static int write_arrays(const struct export *export, const char *folder) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX], names[5][32];
    struct npy_member members[8] = {member_of("images", &export->set.images), member_of("labels", &export->set.labels)};
    struct normalisation_arrays arrays;
    size_t count = 2;
    char *about = json_dumps(export->set.about, JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (!about) RAISE(RETORT_ENOMEM, "out of memory writing to %s", folder);
    int64_t length = (int64_t)strlen(about);
    normalisation_arrays(&export->normalisation, &arrays);
    for (size_t i = 0; i < arrays.count; i++) {
        snprintf(names[i], sizeof names[i], EXPORT_NORMALISATION "%s", arrays.members[i].name);
        members[count] = arrays.members[i];
        members[count++].name = names[i];
    }
    if (export->format == EXPORT_SAFETENSORS) {
        TRY(path_join(folder, EXPORT_SAFETENSORS_FILE, path));
        TRY(safetensors_write(path, members, count, (const char *const[]){EXPORT_ABOUT, about, NULL}));
    } else {
        members[count++] = (struct npy_member){EXPORT_ABOUT, NPY_UINT8, 1, &length, about};
        TRY(path_join(folder, EXPORT_NPZ_FILE, path));
        TRY(npz_write(path, members, count));
    }
done:
    free(about);
    return status;
}

static int write_readme(const struct export *export, const char *folder) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    struct text text;
    text_init(&text);
    export_readme(export, &text);
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory writing to %s", folder);
    TRY(path_join(folder, "README.md", path));
    TRY(file_write(path, text_get(&text), text.length));
done:
    text_finish(&text);
    return status;
}

int export_write(struct export *export) {
    int status = RETORT_OK;
    char folder[FILE_PATH_MAX] = "";
    /* Beside its place, so that the place never holds half of it. */
    TRY(file_write_begin(export->place, folder));
    TRY(folder_remove(folder));
    TRY(folder_create(folder));
    TRY(write_arrays(export, folder));
    if (export->format == EXPORT_PNG) TRY(export_pictures(export, folder));
    TRY(write_readme(export, folder));
    /* An empty folder gives way; one that has been filled in the meantime does not. */
    if (rename(folder, export->place) < 0)
        RAISE(RETORT_EIO, "cannot put the export at %s: %s; name a new folder with --out", export->place,
              strerror(errno));
done:
    if (status < 0 && *folder) {
        char *words = strdup(retort_error_message());
        (void)folder_remove(folder);
        error_set(status, "%s", words ? words : "out of memory");
        free(words);
    }
    return status;
}
