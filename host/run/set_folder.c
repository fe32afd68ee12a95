#include "run/set_folder.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "run/digest.h"
#include "run/json_file.h"
#include "run/stored_set.h"
#include "run/words.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void distilled_set_finish(struct distilled_set *set) {
    if (!set) return;
    free(set->images);
    free(set->soft);
    free(set->hard);
    *set = (struct distilled_set){0};
}

struct training_set distilled_set_view(const struct distilled_set *set) {
    return (struct training_set){.count = set->count,
                                 .classes = set->classes,
                                 .ipc = set->ipc,
                                 .images = set->images,
                                 .soft_labels = set->soft,
                                 .hard_labels = set->hard};
}

static int64_t set_pixels(const struct distilled_set *set) {
    return (int64_t)set->channels * set->height * set->width;
}

int distilled_set_take(struct distill *distill, const struct dataset *train, int ipc, enum set_labels labels,
                       struct distilled_set *set) {
    int status = RETORT_OK;
    struct distilled_set fresh = {.count = distill_set_count(distill),
                                  .channels = train->channels,
                                  .height = train->height,
                                  .width = train->width,
                                  .classes = train->classes,
                                  .ipc = ipc,
                                  .inner_lr = distill_inner_lr(distill)};
    fresh.images = calloc((size_t)(fresh.count * set_pixels(&fresh)), sizeof *fresh.images);
    if (labels == LABELS_SOFT)
        fresh.soft = calloc((size_t)(fresh.count * fresh.classes), sizeof *fresh.soft);
    else
        fresh.hard = calloc((size_t)fresh.count, sizeof *fresh.hard);
    if (!fresh.images || (!fresh.soft && !fresh.hard)) RAISE(RETORT_ENOMEM, "out of memory reading the set");
    TRY(distill_read_set(distill, fresh.images, fresh.soft, fresh.hard));
    *set = fresh;
    return RETORT_OK;
done:
    distilled_set_finish(&fresh);
    return status;
}

/* --- writing --- */
struct set_paths {
    char images[FILE_PATH_MAX], labels[FILE_PATH_MAX], normalisation[FILE_PATH_MAX], about[FILE_PATH_MAX];
};

static int find_paths(const char *folder, struct set_paths *paths) {
    int status = RETORT_OK;
    TRY(path_join(folder, "images.npy", paths->images));
    TRY(path_join(folder, "labels.npy", paths->labels));
    TRY(path_join(folder, "normalisation.npz", paths->normalisation));
    TRY(path_join(folder, "set.json", paths->about));
done:
    return status;
}

json_t *set_storage_json(const struct descriptor *descriptor, const struct dataset *train) {
    struct set_storage storage = {0};
    /* Nothing that it refuses was distilled. */
    set_storage(&descriptor->set, train->classes, train->channels, train->height, train->width, &storage);
    return json_pack("{s:s, s:I, s:i, s:i, s:I}", "kind", words_parameters[descriptor->set.parameters], "floats",
                     (json_int_t)storage.floats, "kept", storage.kept, "of", train->height * train->width, "places",
                     (json_int_t)storage.places);
}

void set_storage_words(const json_t *storage, char words[120]) {
    const char *kind = json_string_value(json_object_get(storage, "kind"));
    *words = '\0';
    if (kind)
        snprintf(words, 120, "%.0f floats: %.0f of %.0f values of each channel (%.20s)",
                 json_number_value(json_object_get(storage, "floats")),
                 json_number_value(json_object_get(storage, "kept")), json_number_value(json_object_get(storage, "of")),
                 kind);
}

static int write_about(const struct set_paths *paths, const struct distilled_set *set,
                       const struct descriptor *descriptor, const struct session *session, const char *sha256) {
    int status = RETORT_OK;
    char images[65], labels[65], normalisation[65];
    TRY(digest_files((const char *const[]){paths->images}, 1, images));
    TRY(digest_files((const char *const[]){paths->labels}, 1, labels));
    TRY(digest_files((const char *const[]){paths->normalisation}, 1, normalisation));
    const struct device_traits *traits = device_traits(session->device);
    json_t *names = json_array();
    for (int i = 0; i < set->classes; i++) json_array_append_new(names, json_text(session->data.train.class_names[i]));
    enum normalise_kind kind = session->data.normalisation.kind;
    TRY(json_file_write(
        paths->about,
        json_pack(
            "{s:i, s:s, s:i, s:o, s:i, s:I, s:[i,i,i], s:o, s:s, s:f, s:s, s:b, s:I, s:s, s:s, s:s, s:s, s:o, s:s, "
            "s:{s:s, s:s, s:s}}",
            "format", 1, "retort", RETORT_VERSION, "classes", set->classes, "class_names", names, "ipc", set->ipc,
            "count", (json_int_t)set->count, "image", set->channels, set->height, set->width, "storage",
            set_storage_json(descriptor, &session->data.train), "labels", set->soft ? "soft" : "hard", "inner_lr",
            set->inner_lr, "normalisation", normalise_words[kind], "normalisation_can_be_undone",
            kind != NORMALISE_ZCA_KIP, "seed", (json_int_t)descriptor->seed, "device", traits->name, "platform",
            traits->platform, "driver", traits->driver, "wisdom", session->wisdom_name, "recipe",
            descriptor_json(descriptor), "set_sha256", sha256, "sha256", "images.npy", images, "labels.npy", labels,
            "normalisation.npz", normalisation),
        15));
done:
    return status;
}

int set_folder_write(const char *folder, const struct distilled_set *set, const struct descriptor *descriptor,
                     const struct session *session, char sha256[65]) {
    int status = RETORT_OK;
    struct set_paths paths;
    char hex[65];
    TRY(folder_create(folder));
    TRY(find_paths(folder, &paths));
    TRY(npy_write(paths.images, NPY_FLOAT32, 4, (const int64_t[]){set->count, set->channels, set->height, set->width},
                  set->images));
    if (set->soft)
        TRY(npy_write(paths.labels, NPY_FLOAT32, 2, (const int64_t[]){set->count, set->classes}, set->soft));
    else
        TRY(npy_write(paths.labels, NPY_INT32, 1, (const int64_t[]){set->count}, set->hard));
    TRY(normalisation_save(&session->data.normalisation, paths.normalisation));
    TRY(digest_files((const char *const[]){paths.images, paths.labels}, 2, hex));
    TRY(write_about(&paths, set, descriptor, session, hex));
    memcpy(sha256, hex, sizeof hex);
done:
    if (status < 0) error_context("writing the set to %s", folder);
    return status;
}

/* --- reading --- */
static int take_images(struct stored_set *stored, const struct session *session, struct distilled_set *set) {
    int status = RETORT_OK;
    struct npy *npy = &stored->images;
    const struct dataset *train = &session->data.train;
    if (npy->rank != 4 || npy->size[0] < 1 || npy->size[1] != train->channels || npy->size[2] != train->height
        || npy->size[3] != train->width) {
        char found[160] = "";
        for (int i = 0; i < npy->rank; i++)
            snprintf(found + strlen(found), sizeof found - strlen(found), "%s%lld", i ? "," : "",
                     (long long)npy->size[i]);
        RAISE(RETORT_EFORMAT, "%s: found shape [%s], expected [N,%d,%d,%d], as the descriptor's data",
              stored->images_name, found, train->channels, train->height, train->width);
    }
    bool pixels = npy->type == NPY_UINT8;
    TRY(npy_to_float(npy, stored->images_name, &set->images));
    set->count = npy->size[0];
    set->channels = train->channels;
    set->height = train->height;
    set->width = train->width;
    set->classes = train->classes;
    if (pixels) {
        for (int64_t i = 0; i < set->count * set_pixels(set); i++) set->images[i] /= 255.0f;
        TRY(normalisation_apply(&session->data.normalisation, set->images, set->count));
    }
done:
    return status;
}

static int take_labels(struct stored_set *stored, struct distilled_set *set) {
    int status = RETORT_OK;
    const char *name = stored->labels_name;
    struct npy *npy = &stored->labels;
    bool floating = npy->type == NPY_FLOAT32 || npy->type == NPY_FLOAT64;
    if (npy->rank < 1 || npy->size[0] != set->count)
        RAISE(RETORT_EFORMAT, "%s: labels of %lld images, expected %lld", name,
              npy->rank < 1 ? 1LL : (long long)npy->size[0], (long long)set->count);
    if (npy->rank == 2 && floating && npy->size[1] == set->classes)
        TRY(npy_to_float(npy, name, &set->soft));
    else if (npy->rank == 1 && !floating) {
        TRY(npy_to_int(npy, name, &set->hard));
        for (int64_t i = 0; i < set->count; i++)
            if (set->hard[i] < 0 || set->hard[i] >= set->classes)
                RAISE(RETORT_EFORMAT, "%s: label %d of image %lld, expected 0 to %d", name, set->hard[i], (long long)i,
                      set->classes - 1);
    } else
        RAISE(RETORT_EFORMAT, "%s: expected whole numbers [N], or floating-point ones [N,%d]", name, set->classes);
done:
    return status;
}

/* The class a row counts to: its label, or the largest of its soft ones. */
static int row_class(const struct distilled_set *set, int64_t row) {
    if (set->hard) return set->hard[row];
    const float *soft = set->soft + row * set->classes;
    int best = 0;
    for (int k = 1; k < set->classes; k++)
        if (soft[k] > soft[best]) best = k;
    return best;
}

/* Sorts rows by class, keeping their order within one, and counts images per class. Learned labels of a regular set
 * stay as they are: a row belongs to the class it began with, whatever its label has become. */
static int group_by_class(struct distilled_set *set) {
    int status = RETORT_OK;
    size_t pixels = (size_t)set_pixels(set), classes = (size_t)set->classes;
    int64_t *begin = calloc(classes + 1, sizeof *begin);
    float *images = calloc((size_t)set->count * pixels, sizeof *images);
    float *soft = set->soft ? calloc((size_t)set->count * classes, sizeof *soft) : NULL;
    int32_t *hard = set->hard ? calloc((size_t)set->count, sizeof *hard) : NULL;
    if (!begin || !images || (set->soft && !soft) || (set->hard && !hard))
        RAISE(RETORT_ENOMEM, "out of memory sorting the set");
    for (int64_t i = 0; i < set->count; i++) begin[row_class(set, i) + 1]++;
    set->ipc =
        set->count % set->classes == 0 && set->count / set->classes <= 100000 ? (int)(set->count / set->classes) : 0;
    for (size_t k = 0; k < classes; k++) {
        if (begin[k + 1] != set->ipc) set->ipc = 0;
        begin[k + 1] += begin[k];
    }
    for (int64_t i = 0; i < set->count; i++) {
        size_t to = (size_t)begin[row_class(set, i)]++, from = (size_t)i;
        memcpy(images + to * pixels, set->images + from * pixels, pixels * sizeof *images);
        if (soft) memcpy(soft + to * classes, set->soft + from * classes, classes * sizeof *soft);
        if (hard) hard[to] = set->hard[from];
    }
    free(set->images);
    free(set->soft);
    free(set->hard);
    set->images = images;
    set->soft = soft;
    set->hard = hard;
    images = soft = NULL;
    hard = NULL;
done:
    free(begin);
    free(images);
    free(soft);
    free(hard);
    return status;
}

/* Of what is known about the set, its word on inner_lr, ipc and normalisation is heeded; arrays that are no longer
 * those that were distilled are taken, with a warning. */
static int heed_about(const struct stored_set *stored, const struct session *session, struct distilled_set *set) {
    int status = RETORT_OK;
    const char *normalisation, *sha256 = NULL, *ours = normalise_words[session->data.normalisation.kind];
    char found[65];
    if (json_unpack(stored->about, "{s:i, s:F, s:s, s?s}", "ipc", &set->ipc, "inner_lr", &set->inner_lr,
                    "normalisation", &normalisation, "set_sha256", &sha256)
            < 0
        || set->ipc < 0 || !(set->inner_lr >= 0))
        RAISE(RETORT_EFORMAT, "%s: expected ipc, inner_lr and normalisation", stored->about_name);
    if (strcmp(normalisation, ours) != 0)
        RAISE(RETORT_EINVAL, "data.normalise is %s, but %s was made for %s; use the same", ours, stored->images_name,
              normalisation);
    TRY(stored_set_hash(stored, found));
    if (sha256 && strcmp(sha256, found) != 0)
        log_warning("%s and the labels are not those that were distilled: their SHA-256 is %.12s..., that of the set "
                    "was %.12s...",
                    stored->images_name, found, sha256);
done:
    return status;
}

static int take_stored(struct stored_set *stored, const struct session *session, struct distilled_set *set) {
    int status = RETORT_OK;
    struct distilled_set fresh = {0};
    if (stored->about) TRY(heed_about(stored, session, &fresh));
    TRY(take_images(stored, session, &fresh));
    TRY(take_labels(stored, &fresh));
    if (fresh.ipc && fresh.count != (int64_t)fresh.ipc * fresh.classes)
        RAISE(RETORT_EFORMAT, "%s holds %lld images, expected %d for each of %d classes", stored->images_name,
              (long long)fresh.count, fresh.ipc, fresh.classes);
    if (!fresh.ipc) TRY(group_by_class(&fresh));
    *set = fresh;
    return RETORT_OK;
done:
    distilled_set_finish(&fresh);
    return status;
}

int set_read_arrays(const char *images, const char *labels, const struct session *session, struct distilled_set *set) {
    int status = RETORT_OK;
    struct stored_set stored = {0};
    TRY(stored_set_read_pair(images, labels, &stored));
    TRY(take_stored(&stored, session, set));
done:
    stored_set_finish(&stored);
    return status;
}

int set_folder_read(const char *path, const struct session *session, struct distilled_set *set) {
    int status = RETORT_OK;
    struct set_place place;
    struct stored_set stored = {0};
    TRY(set_find(path, &place));
    TRY(stored_set_read(&place, &stored));
    TRY(take_stored(&stored, session, set));
done:
    stored_set_finish(&stored);
    return status;
}

int set_folder_recipe(const char *path, char **text) {
    int status = RETORT_OK;
    json_t *about = NULL;
    struct set_place place;
    TRY(set_find(path, &place));
    TRY(stored_set_read_about(&place, &about));
    char *dumped = json_dumps(json_object_get(about, "recipe"), JSON_COMPACT);
    if (!dumped)
        RAISE(RETORT_EINVAL, "nothing tells how %s was made: it has no recipe; name a descriptor with --with",
              place.path);
    *text = dumped;
done:
    json_decref(about);
    return status;
}

int distilled_set_hash(const struct distilled_set *set, char sha256[65]) {
    const struct stored_set stored = {
        .images = {NPY_FLOAT32, 4, {set->count, set->channels, set->height, set->width}, set->images},
        .labels = {set->soft ? NPY_FLOAT32 : NPY_INT32,
                   set->soft ? 2 : 1,
                   {set->count, set->classes},
                   set->soft ? (void *)set->soft : set->hard}};
    return stored_set_hash(&stored, sha256);
}
