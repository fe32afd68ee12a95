/* The parts of include/retort/ that need no more than a few lines, and what the others share. */
#include "run/public.h"

#include "base/error.h"
#include "base/locale.h"
#include "base/log.h"
#include "data/data.h"
#include "device/device.h"
#include "retort/retort.h"

#include <stdlib.h>
#include <string.h>

int public_check_reserved(const char *what, const void *const reserved[8]) {
    for (int i = 0; i < 8; i++)
        if (reserved[i])
            return error_set(RETORT_EINVAL,
                             "reserved[%d] of struct %s is not NULL: zero the whole struct, or use the version of the "
                             "library that the program was built for (this is " RETORT_VERSION ")",
                             i, what);
    return RETORT_OK;
}

struct schema_override *public_overrides(const char *const *settings, struct arena *arena, size_t *count) {
    *count = 0;
    while (settings && settings[*count]) ++*count;
    struct schema_override *overrides = arena_array(arena, *count, sizeof *overrides);
    for (size_t i = 0; overrides && i < *count; i++) {
        overrides[i].option = arena_printf(arena, "setting %s", settings[i]);
        overrides[i].assignment = settings[i];
    }
    return overrides;
}

int public_parse(const char *name, const char *folder, const char *text, const struct schema_override *overrides,
                 size_t count, struct descriptor *descriptor) {
    int status = RETORT_OK;
    /* Absolute, so that the copy in the run folder means the same files. */
    char *real = realpath(folder ? folder : ".", NULL);
    if (!real) RAISE(RETORT_EINVAL, "%s: the folder %s, where its paths start, is not there", name, folder);
    TRY(descriptor_parse(name, real, text, strlen(text), overrides, count, descriptor));
done:
    free(real);
    return status;
}

const char *retort_version(void) {
    return RETORT_VERSION;
}

int retort_device_list(struct retort_device **devices, size_t *count) {
    int status = RETORT_OK;
    locale_t before = locale_enter_c();
    struct device_traits *traits = NULL;
    size_t found;
    TRY(device_list(&traits, &found));
    struct retort_device *rows = calloc(found ? found : 1, sizeof *rows);
    if (!rows) RAISE(RETORT_ENOMEM, "out of memory listing devices");
    for (size_t i = 0; i < found; i++) {
        rows[i] = (struct retort_device){.index = traits[i].index,
                                         .is_gpu = traits[i].kind == DEVICE_GPU,
                                         .compute_units = traits[i].compute_units,
                                         .global_memory = traits[i].global_memory,
                                         .max_allocation = traits[i].max_allocation};
        memcpy(rows[i].platform, traits[i].platform, sizeof rows[i].platform);
        memcpy(rows[i].name, traits[i].name, sizeof rows[i].name);
        memcpy(rows[i].driver, traits[i].driver, sizeof rows[i].driver);
    }
    *devices = rows;
    *count = found;
done:
    free(traits);
    uselocale(before);
    return status;
}

void retort_device_list_free(struct retort_device *devices) {
    free(devices);
}

void retort_log_verbosity(int level) {
    log_set_level(level < LOG_QUIET ? LOG_QUIET : level > LOG_DEBUG ? LOG_DEBUG : (enum log_level)level);
}

/* --- data from memory --- */
static int check_images(const char *what, const struct retort_images *images) {
    if (images->count < 1 || images->channels < 1 || images->height < 1 || images->width < 1 || !images->pixels
        || !images->labels)
        return error_set(RETORT_EINVAL, "%s: %lld images of %d x %d x %d; expected some, with pixels and labels", what,
                         (long long)images->count, images->channels, images->height, images->width);
    int64_t size = (int64_t)images->channels * images->height * images->width;
    for (int64_t i = 0; i < images->count; i++) {
        if (images->labels[i] < 0)
            return error_set(RETORT_EINVAL, "%s: label %lld is %d; expected classes from 0", what, (long long)i,
                             images->labels[i]);
        for (int64_t j = i * size; j < (i + 1) * size; j++)
            if (!(images->pixels[j] >= 0 && images->pixels[j] <= 1))
                return error_set(RETORT_EINVAL, "%s: a pixel of image %lld is %g; expected 0 to 1", what, (long long)i,
                                 (double)images->pixels[j]);
    }
    return RETORT_OK;
}

int retort_data_write(const char *path, const struct retort_images *train, const struct retort_images *test) {
    int status = RETORT_OK;
    locale_t before = locale_enter_c();
    const struct retort_images *const parts[2] = {train, test};
    static const char *const names[2][2] = {{"images", "labels"}, {"test_images", "test_labels"}};
    struct npy_member members[4];
    int64_t sizes[2][4];
    size_t count = 0;
    TRY(check_images("train", train));
    if (test) TRY(check_images("test", test));
    if (test && (test->channels != train->channels || test->height != train->height || test->width != train->width))
        RAISE(RETORT_EINVAL, "test images are %d x %d x %d, but training images %d x %d x %d; give both the same size",
              test->channels, test->height, test->width, train->channels, train->height, train->width);
    for (int i = 0; i < (test ? 2 : 1); i++) {
        memcpy(sizes[i], (const int64_t[]){parts[i]->count, train->channels, train->height, train->width},
               sizeof sizes[i]);
        members[count++] = (struct npy_member){names[i][0], NPY_FLOAT32, 4, sizes[i], parts[i]->pixels};
        members[count++] = (struct npy_member){names[i][1], NPY_INT32, 1, sizes[i], parts[i]->labels};
    }
    TRY(npz_write(path, members, count));
done:
    uselocale(before);
    return status;
}
