#include "run/stored_set.h"

#include "base/error.h"
#include "run/json_file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- finding --- */
static bool ends_in(const char *path, const char *ending) {
    size_t length = strlen(path), tail = strlen(ending);
    return length > tail && strcmp(path + length - tail, ending) == 0;
}

static int find_in_folder(const char *path, struct set_place *place) {
    int status = RETORT_OK;
    char file[FILE_PATH_MAX];
    if (folder_has_file(path, "set/images.npy", file)) {
        TRY(path_join(path, "set", place->path));
        if (folder_has_file(path, "descriptor.yaml", file)) snprintf(place->run, sizeof place->run, "%s", path);
    } else if (folder_has_file(path, "images.npy", file))
        snprintf(place->path, sizeof place->path, "%s", path);
    else if (folder_has_file(path, EXPORT_NPZ_FILE, place->path))
        place->kind = SET_IS_NPZ;
    else if (folder_has_file(path, EXPORT_SAFETENSORS_FILE, place->path))
        place->kind = SET_IS_SAFETENSORS;
    else if (folder_has_file(path, "descriptor.yaml", file))
        RAISE(RETORT_EINVAL,
              "the run in %s is not finished: it has no set yet; go on with: retort run --resume --out %s", path, path);
    else
        RAISE(RETORT_EINVAL,
              "%s is neither a run folder nor a set: it holds no images.npy, no " EXPORT_NPZ_FILE
              " and no " EXPORT_SAFETENSORS_FILE,
              path);
done:
    return status;
}

int set_find(const char *path, struct set_place *place) {
    int status = RETORT_OK;
    struct set_place found = {0};
    if (!file_exists(path)) RAISE(RETORT_EINVAL, "%s is not there; name a run folder or a set", path);
    if (strlen(path) >= sizeof found.path) RAISE(RETORT_EINVAL, "path too long: %s", path);
    if (folder_exists(path))
        TRY(find_in_folder(path, &found));
    else {
        found.kind = ends_in(path, ".npz") ? SET_IS_NPZ : ends_in(path, ".safetensors") ? SET_IS_SAFETENSORS : 0;
        if (found.kind == SET_IS_FOLDER)
            RAISE(RETORT_EINVAL,
                  "%s is a file; name a folder, or both files: IMAGES LABELS --with DESCRIPTOR, or an exported .npz or "
                  ".safetensors file",
                  path);
        strcpy(found.path, path);
    }
    *place = found;
done:
    return status;
}

/* --- reading --- */
static struct array_file arrays_of(const struct set_place *place) {
    return (struct array_file){place->path, EXPORT_NORMALISATION,
                               place->kind == SET_IS_NPZ ? npy_read_member : safetensors_read_member};
}

static int read_about(const struct set_place *place, const char *name, json_t **about) {
    int status = RETORT_OK;
    struct npy bytes = {0};
    char *text = NULL;
    bool has = false;
    *about = NULL;
    switch (place->kind) {
    case SET_IS_FOLDER:
        return file_exists(name) ? json_file_read(name, about) : RETORT_OK;
    case SET_IS_NPZ:
        TRY(npz_has(place->path, EXPORT_ABOUT, &has));
        if (!has) break;
        TRY(npy_read_member(place->path, EXPORT_ABOUT, &bytes));
        if (bytes.type != NPY_UINT8) RAISE(RETORT_EFORMAT, "%s: expected the bytes of a text", name);
        TRY(json_parse(name, bytes.data, (size_t)npy_count(&bytes), about));
        break;
    case SET_IS_SAFETENSORS:
        TRY(safetensors_read_words(place->path, EXPORT_ABOUT, &text));
        if (text) TRY(json_parse(name, text, strlen(text), about));
        break;
    }
done:
    npy_finish(&bytes);
    free(text);
    return status;
}

static void name_parts(const struct set_place *place, struct stored_set *set) {
    const char *format = place->kind == SET_IS_FOLDER ? "%s/%s" : "%s[%s]";
    const char *ending = place->kind == SET_IS_FOLDER ? ".npy" : "";
    char images[16], labels[16];
    snprintf(images, sizeof images, "images%s", ending);
    snprintf(labels, sizeof labels, "labels%s", ending);
    snprintf(set->images_name, sizeof set->images_name, format, place->path, images);
    snprintf(set->labels_name, sizeof set->labels_name, format, place->path, labels);
    snprintf(set->about_name, sizeof set->about_name, format, place->path,
             place->kind == SET_IS_FOLDER ? "set.json" : EXPORT_ABOUT);
}

int stored_set_read_pair(const char *images, const char *labels, struct stored_set *set) {
    int status = RETORT_OK;
    struct stored_set fresh = {0};
    snprintf(fresh.images_name, sizeof fresh.images_name, "%s", images);
    snprintf(fresh.labels_name, sizeof fresh.labels_name, "%s", labels);
    TRY(npy_read(images, &fresh.images));
    TRY(npy_read(labels, &fresh.labels));
    *set = fresh;
    fresh = (struct stored_set){0};
done:
    stored_set_finish(&fresh);
    return status;
}

int stored_set_read(const struct set_place *place, struct stored_set *set) {
    int status = RETORT_OK;
    struct stored_set fresh = {0};
    struct array_file file = arrays_of(place);
    name_parts(place, &fresh);
    if (place->kind == SET_IS_FOLDER) {
        TRY(npy_read(fresh.images_name, &fresh.images));
        TRY(npy_read(fresh.labels_name, &fresh.labels));
    } else {
        TRY(file.read(place->path, "images", &fresh.images));
        TRY(file.read(place->path, "labels", &fresh.labels));
    }
    TRY(read_about(place, fresh.about_name, &fresh.about));
    *set = fresh;
    fresh = (struct stored_set){0};
done:
    stored_set_finish(&fresh);
    return status;
}

void stored_set_finish(struct stored_set *set) {
    if (!set) return;
    npy_finish(&set->images);
    npy_finish(&set->labels);
    json_decref(set->about);
    *set = (struct stored_set){0};
}

int stored_set_read_about(const struct set_place *place, json_t **about) {
    struct stored_set names = {0};
    name_parts(place, &names);
    return read_about(place, names.about_name, about);
}

int stored_set_read_normalisation(const struct set_place *place, struct normalisation *normalisation) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    struct array_file file = arrays_of(place);
    if (place->kind != SET_IS_FOLDER) return normalisation_read(&file, normalisation);
    TRY(path_join(place->path, "normalisation.npz", path));
    TRY(normalisation_load(path, normalisation));
done:
    return status;
}

int stored_set_hash(const struct stored_set *set, char sha256[65]) {
    int status = RETORT_OK;
    const struct npy *arrays[] = {&set->images, &set->labels};
    char hex[65];
    struct hash *hash = hash_create();
    if (!hash) return error_set(RETORT_ENOMEM, "out of memory reading %s", set->images_name);
    for (int i = 0; i < 2 && status == RETORT_OK; i++)
        status = npy_hash(hash, arrays[i]->type, arrays[i]->rank, arrays[i]->size, arrays[i]->data);
    hash_finish(hash, hex);
    if (status == RETORT_OK) memcpy(sha256, hex, sizeof hex);
    return status;
}
