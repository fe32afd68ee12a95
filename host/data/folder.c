/* Image folders: a folder per class, as torchvision's ImageFolder has it, and Tiny ImageNet's official layout, where
 * val/val_annotations.txt names the classes of val/images. Classes are the folders under train/, sorted by name. */
#include "data/readers.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct names {
    char **items;
    size_t count, capacity;
};

static void names_finish(struct names *names) {
    for (size_t i = 0; i < names->count; i++) free(names->items[i]);
    array_finish(names);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_picture(const char *name) {
    const char *dot = strrchr(name, '.');
    return dot && name[0] != '.'
           && (strcasecmp(dot, ".png") == 0 || strcasecmp(dot, ".jpg") == 0 || strcasecmp(dot, ".jpeg") == 0);
}

/* The subfolders, or the pictures, of a folder, sorted by byte value. */
static int list_folder(const char *path, bool folders, struct names *names) {
    int status = RETORT_OK;
    DIR *entries = opendir(path);
    if (!entries) RAISE(RETORT_EIO, "cannot read the folder %s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(entries));) {
        char inner[FILE_PATH_MAX];
        if (entry->d_name[0] == '.') continue;
        TRY(path_join(path, entry->d_name, inner));
        if (folders ? !folder_exists(inner) : !is_picture(entry->d_name)) continue;
        char *name = strdup(entry->d_name);
        if (!name || !array_push(names, name)) {
            free(name);
            RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
        }
    }
    if (names->count) qsort(names->items, names->count, sizeof *names->items, compare_names);
done:
    if (entries) closedir(entries);
    return status;
}

/* The pictures of one class: of its folder and of `images` inside it. */
static int list_class(const char *folder, int label, struct listing *listing) {
    int status = RETORT_OK;
    struct names names = {0}, nested = {0};
    char inner[FILE_PATH_MAX];
    int64_t rank = 0;
    TRY(list_folder(folder, false, &names));
    for (size_t i = 0; i < names.count; i++) TRY(listing_add(listing, folder, names.items[i], label, rank++));
    TRY(path_join(folder, "images", inner));
    if (folder_exists(inner)) {
        TRY(list_folder(inner, false, &nested));
        for (size_t i = 0; i < nested.count; i++) TRY(listing_add(listing, inner, nested.items[i], label, rank++));
    }
    if (rank == 0) RAISE(RETORT_EFORMAT, "%s holds no .png, .jpg or .jpeg; fill or remove it", folder);
done:
    names_finish(&names);
    names_finish(&nested);
    return status;
}

static int find_class(const struct source *source, const char *name) {
    char **found =
        bsearch(&name, source->class_names, (size_t)source->classes, sizeof *source->class_names, compare_names);
    return found ? (int)(found - source->class_names) : -1;
}

/* A folder with a subfolder per class, each a known class. */
static int list_classes(const struct data_spec *spec, const char *folder, const struct source *source,
                        struct listing *listing) {
    int status = RETORT_OK;
    struct names names = {0};
    TRY(list_folder(folder, true, &names));
    for (size_t i = 0; i < names.count; i++) {
        char inner[FILE_PATH_MAX];
        int label = find_class(source, names.items[i]);
        if (label < 0)
            RAISE(RETORT_EFORMAT, "%s/%s is a class that train does not have; remove it or add it there", folder,
                  names.items[i]);
        if (!spec_wants(spec, label)) continue;
        TRY(path_join(folder, names.items[i], inner));
        TRY(list_class(inner, label, listing));
    }
done:
    names_finish(&names);
    return status;
}

/* Tiny ImageNet: lines of `file TAB class TAB box`, files in images/ beside. */
static int list_annotations(const struct data_spec *spec, const char *folder, const char *path,
                            const struct source *source, struct listing *listing) {
    int status = RETORT_OK;
    unsigned char *bytes = NULL;
    size_t size;
    char images[FILE_PATH_MAX];
    int64_t *ranks = calloc((size_t)source->classes, sizeof *ranks);
    if (!ranks) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
    TRY(path_join(folder, "images", images));
    TRY(file_read(path, 64 << 20, &bytes, &size));
    char *rest, *line = strtok_r((char *)bytes, "\r\n", &rest);
    for (int number = 1; line; line = strtok_r(NULL, "\r\n", &rest), number++) {
        char *fields, *name = strtok_r(line, "\t ", &fields), *class = name ? strtok_r(NULL, "\t ", &fields) : NULL;
        if (!class || strchr(name, '/'))
            RAISE(RETORT_EFORMAT, "%s: line %d: expected a file's name, a tab and a class", path, number);
        int label = find_class(source, class);
        if (label < 0)
            RAISE(RETORT_EFORMAT, "%s: line %d: class '%s' is not among the folders of train; fetch the set again",
                  path, number, class);
        if (spec_wants(spec, label)) TRY(listing_add(listing, images, name, label, ranks[label]++));
    }
done:
    free(bytes);
    free(ranks);
    return status;
}

int folder_load(const struct data_spec *spec, struct source *source) {
    int status = RETORT_OK;
    struct names names = {0};
    struct listing train = {0}, test = {0};
    char train_path[FILE_PATH_MAX], test_path[FILE_PATH_MAX], annotations[FILE_PATH_MAX];
    source->white = 255;
    TRY(path_join(spec->path, "train", train_path));
    bool split = folder_exists(train_path);
    if (!split) TRY(path_join(spec->path, "", train_path));
    TRY(list_folder(train_path, true, &names));
    if (names.count == 0)
        RAISE(RETORT_EIO, "%s holds no folders; expected %s/train/CLASS/picture.jpeg or %s/CLASS/picture.jpeg",
              train_path, spec->path, spec->path);
    source->class_names = names.items;
    source->classes = (int)names.count;
    names = (struct names){0};
    TRY(list_classes(spec, train_path, source, &train));
    if (split) {
        /* ImageNet's and Tiny ImageNet's test/ have no labels: val/ goes first. */
        TRY(path_join(spec->path, "val", test_path));
        if (!folder_exists(test_path)) TRY(path_join(spec->path, "test", test_path));
        TRY(path_join(test_path, "val_annotations.txt", annotations));
        if (file_exists(annotations))
            TRY(list_annotations(spec, test_path, annotations, source, &test));
        else if (folder_exists(test_path))
            TRY(list_classes(spec, test_path, source, &test));
    }
    listing_limit(&train, spec->train_limit);
    listing_limit(&test, spec->test_limit);
    TRY(listing_read(spec, &train, "train", train_path, &source->train, &source->story));
    TRY(listing_read(spec, &test, "test", test_path, &source->test, &source->story));
done:
    names_finish(&names);
    listing_finish(&train);
    listing_finish(&test);
    return status;
}
