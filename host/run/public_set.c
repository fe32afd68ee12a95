/* Sets for programs that use the library (include/retort/set.h). No data and no device are needed to read one. */
#include "base/error.h"
#include "base/locale.h"
#include "data/data.h"
#include "retort/set.h"
#include "run/stored_set.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct retort_set {
    struct retort_set_shape shape;
    float *images, *soft;
    int32_t *labels;
    char **names; /* [classes] */
    double inner_lr;
    char *about;
    bool has_normalisation;
    struct normalisation normalisation;
};

void retort_set_destroy(struct retort_set *set) {
    if (!set) return;
    for (int i = 0; set->names && i < set->shape.classes; i++) free(set->names[i]);
    free(set->names);
    free(set->images);
    free(set->soft);
    free(set->labels);
    free(set->about);
    normalisation_finish(&set->normalisation);
    free(set);
}

/* --- reading --- */
static int take_images(const struct stored_set *stored, struct retort_set *set) {
    int status = RETORT_OK;
    const struct npy *npy = &stored->images;
    if (npy->rank != 4 || npy_count(npy) < 1 || npy->size[1] > INT32_MAX || npy->size[2] > INT32_MAX
        || npy->size[3] > INT32_MAX)
        RAISE(RETORT_EFORMAT, "%s: found an array of rank %d, expected images [N,C,H,W]", stored->images_name,
              npy->rank);
    if (npy->type == NPY_UINT8)
        RAISE(RETORT_EFORMAT, "%s: found uint8 pixels, expected images as networks train on them (float32)",
              stored->images_name);
    TRY(npy_to_float(npy, stored->images_name, &set->images));
    set->shape.count = npy->size[0];
    set->shape.channels = (int)npy->size[1];
    set->shape.height = (int)npy->size[2];
    set->shape.width = (int)npy->size[3];
done:
    return status;
}

/* Learned labels tell the number of classes; of whole numbers, the largest does, until `about` says better. */
static int take_labels(const struct stored_set *stored, struct retort_set *set) {
    int status = RETORT_OK;
    const struct npy *npy = &stored->labels;
    const char *name = stored->labels_name;
    bool soft = npy->type == NPY_FLOAT32 || npy->type == NPY_FLOAT64;
    if (npy->rank != (soft ? 2 : 1) || npy->size[0] != set->shape.count
        || (soft && (npy->size[1] < 1 || npy->size[1] > INT32_MAX)))
        RAISE(RETORT_EFORMAT,
              "%s: expected labels of %lld images, whole numbers [N] or floating-point ones [N,classes]", name,
              (long long)set->shape.count);
    if (soft) {
        TRY(npy_to_float(npy, name, &set->soft));
        set->shape.classes = (int)npy->size[1];
        return RETORT_OK;
    }
    TRY(npy_to_int(npy, name, &set->labels));
    for (int64_t i = 0; i < set->shape.count; i++) {
        if (set->labels[i] < 0 || set->labels[i] == INT32_MAX)
            RAISE(RETORT_EFORMAT, "%s: label %d of image %lld, expected classes from 0", name, set->labels[i],
                  (long long)i);
        if (set->labels[i] >= set->shape.classes) set->shape.classes = set->labels[i] + 1;
    }
done:
    return status;
}

/* Classes, their number of images, the learning rate. Of a bare pair of arrays nothing is told. */
static int heed_about(const struct stored_set *stored, struct retort_set *set) {
    int classes;
    if (!stored->about) return RETORT_OK;
    if (json_unpack(stored->about, "{s:i, s:i, s:F}", "classes", &classes, "ipc", &set->shape.ipc, "inner_lr",
                    &set->inner_lr)
            < 0
        || classes < set->shape.classes || (set->soft && classes != set->shape.classes) || set->shape.ipc < 0
        || (set->shape.ipc && (int64_t)set->shape.ipc * classes != set->shape.count))
        return error_set(RETORT_EFORMAT,
                         "%s: its classes, ipc and inner_lr are missing or are not those of the arrays beside it",
                         stored->about_name);
    set->shape.classes = classes;
    return RETORT_OK;
}

static int name_classes(const json_t *about, struct retort_set *set) {
    const json_t *names = json_object_get(about, "class_names");
    set->names = calloc((size_t)set->shape.classes, sizeof *set->names);
    for (int i = 0; set->names && i < set->shape.classes; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        const char *name = json_string_value(json_array_get(names, (size_t)i));
        set->names[i] = strdup(name ? name : number);
        if (!set->names[i]) return error_set(RETORT_ENOMEM, "out of memory");
    }
    return set->names ? RETORT_OK : error_set(RETORT_ENOMEM, "out of memory");
}

/* The class of a row with learned labels: rows are grouped by the class that they began with where classes have equally
 * many, else the largest label tells. */
static int label_rows(struct retort_set *set) {
    const int classes = set->shape.classes;
    if (set->labels) return RETORT_OK;
    set->labels = calloc((size_t)set->shape.count, sizeof *set->labels);
    if (!set->labels) return error_set(RETORT_ENOMEM, "out of memory");
    for (int64_t i = 0; i < set->shape.count; i++) {
        const float *soft = set->soft + i * classes;
        for (int k = 1; k < classes; k++)
            if (soft[k] > soft[set->labels[i]]) set->labels[i] = k;
        if (set->shape.ipc) set->labels[i] = (int32_t)(i / set->shape.ipc);
    }
    return RETORT_OK;
}

/* Bare arrays have none. */
static int read_normalisation(const struct set_place *place, const struct stored_set *stored, struct retort_set *set) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    if (!stored->about) return RETORT_OK;
    if (place->kind == SET_IS_FOLDER) {
        TRY(path_join(place->path, "normalisation.npz", path));
        if (!file_exists(path)) return RETORT_OK;
    }
    TRY(stored_set_read_normalisation(place, &set->normalisation));
    const struct normalisation *n = &set->normalisation;
    if (n->channels != set->shape.channels || n->height != set->shape.height || n->width != set->shape.width)
        RAISE(RETORT_EFORMAT, "%s: the normalisation is of images of %d x %d x %d, but these are %d x %d x %d",
              place->path, n->channels, n->height, n->width, set->shape.channels, set->shape.height, set->shape.width);
    set->has_normalisation = true;
done:
    return status;
}

int retort_set_read(const char *path, struct retort_set **set) {
    int status = RETORT_OK;
    locale_t before = locale_enter_c();
    struct set_place place;
    struct stored_set stored = {0};
    struct retort_set *fresh = calloc(1, sizeof *fresh);
    if (!fresh) RAISE(RETORT_ENOMEM, "out of memory");
    TRY(set_find(path, &place));
    TRY(stored_set_read(&place, &stored));
    TRY(take_images(&stored, fresh));
    TRY(take_labels(&stored, fresh));
    TRY(heed_about(&stored, fresh));
    TRY(name_classes(stored.about, fresh));
    TRY(label_rows(fresh));
    TRY(read_normalisation(&place, &stored, fresh));
    fresh->about = stored.about ? json_dumps(stored.about, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : strdup("{}");
    if (!fresh->about) RAISE(RETORT_ENOMEM, "out of memory");
    *set = fresh;
    fresh = NULL;
done:
    stored_set_finish(&stored);
    retort_set_destroy(fresh);
    uselocale(before);
    return status;
}

/* --- looking at one --- */
const struct retort_set_shape *retort_set_shape(const struct retort_set *set) {
    return &set->shape;
}

const float *retort_set_images(const struct retort_set *set) {
    return set->images;
}

const int32_t *retort_set_labels(const struct retort_set *set) {
    return set->labels;
}

const float *retort_set_soft_labels(const struct retort_set *set) {
    return set->soft;
}

const char *retort_set_class_name(const struct retort_set *set, int index) {
    return index >= 0 && index < set->shape.classes ? set->names[index] : NULL;
}

double retort_set_inner_lr(const struct retort_set *set) {
    return set->inner_lr;
}

const char *retort_set_about(const struct retort_set *set) {
    return set->about;
}

static int need_normalisation(const struct retort_set *set) {
    if (set->has_normalisation) return RETORT_OK;
    return error_set(RETORT_EINVAL,
                     "the set has no normalisation beside its images (normalisation.npz): its pixels are not known");
}

int retort_set_pixels(const struct retort_set *set, float *pixels, int *exact) {
    int status = RETORT_OK;
    bool undone;
    const struct retort_set_shape *shape = &set->shape;
    TRY(need_normalisation(set));
    memcpy(pixels, set->images,
           (size_t)shape->count * (size_t)shape->channels * (size_t)shape->height * (size_t)shape->width
               * sizeof *pixels);
    TRY(normalisation_undo(&set->normalisation, pixels, shape->count, &undone));
    if (exact) *exact = undone;
done:
    return status;
}

int retort_set_normalise(const struct retort_set *set, float *images, int64_t count) {
    int status = RETORT_OK;
    TRY(need_normalisation(set));
    if (count < 0) RAISE(RETORT_EINVAL, "%lld images", (long long)count);
    TRY(normalisation_apply(&set->normalisation, images, count));
done:
    return status;
}
