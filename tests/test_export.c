/* Exports: what is written is read back bit for bit in every form, of every normalisation and kind of label; pictures
 * are what their README says; nothing is overwritten or left half written; damaged safetensors files are refused. No
 * device is needed. */
#include "test.h"

#include "base/random.h"
#include "data/readers.h"
#include "run/export.h"
#include "run/json_file.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CLASSES = 3, SIDE = 5, TRAIN = 40 };
static char folder[] = "/tmp/retort-export-XXXXXX";
static const char *const class_names[CLASSES] = {"T-shirt/top", "1", "vier | f\xc3\xbcnf."};

static const char *at(const char *name) {
    static char paths[4][FILE_PATH_MAX];
    static int next;
    char *path = paths[next++ % 4];
    assert_ok(path_join(folder, name, path));
    return path;
}

static int prepare(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int clean(void **state) {
    (void)state;
    return folder_remove(folder);
}

/* --- a set folder made by hand --- */
struct recipe {
    const char *name;
    enum normalise_kind normalise;
    int channels, ipc; /* ipc 0: two images of class 0, one of each other */
    bool soft;
};

static void fit(const struct recipe *recipe, struct normalisation *normalisation) {
    int64_t values = (int64_t)TRAIN * recipe->channels * SIDE * SIDE;
    struct dataset train = {
        .count = TRAIN, .channels = recipe->channels, .height = SIDE, .width = SIDE, .classes = CLASSES};
    struct random random = random_begin(5, RANDOM_TEST, 1);
    train.images = calloc((size_t)values, sizeof *train.images);
    assert_non_null(train.images);
    for (int64_t i = 0; i < values; i++) train.images[i] = (float)random_uniform(&random);
    assert_ok(normalisation_fit(recipe->normalise, &train, normalisation));
    free(train.images);
}

static void write_about(const struct recipe *recipe, int count, const char *sha256) {
    json_t *names = json_array();
    char path[FILE_PATH_MAX];
    for (int i = 0; i < CLASSES; i++) json_array_append_new(names, json_string(class_names[i]));
    assert_ok(path_join(at(recipe->name), "set.json", path));
    assert_ok(json_file_write(
        path,
        json_pack("{s:i, s:s, s:i, s:o, s:i, s:i, s:[i,i,i], s:s, s:f, s:s, s:i, s:s, s:s, s:s, s:s, "
                  "s:{s:{s:s, s:s}, s:{s:i, s:s, s:f, s:b, s:f, s:f}, s:{s:s}, s:{s:i}}}",
                  "format", 1, "retort", "0.1.0", "classes", CLASSES, "class_names", names, "ipc", recipe->ipc, "count",
                  count, "image", recipe->channels, SIDE, SIDE, "labels", recipe->soft ? "soft" : "hard", "inner_lr",
                  0.0123, "normalisation", normalise_words[recipe->normalise], "seed", 7, "device", "none", "platform",
                  "none", "wisdom", "none", "set_sha256", sha256, "recipe", "data", "kind", "npy", "path", "/x.npz",
                  "inner", "steps", 60, "optimizer", "sgd", "lr", 0.02, "learn_lr", 1, "momentum", 0.5, "weight_decay",
                  0.0, "method", "name", "bptt", "outer", "steps", 3),
        15));
}

static int make_set(const struct recipe *recipe) {
    int count = recipe->ipc ? CLASSES * recipe->ipc : CLASSES + 1;
    int64_t pixels = (int64_t)recipe->channels * SIDE * SIDE;
    float *images = calloc((size_t)(count * pixels), sizeof *images), soft[32 * CLASSES];
    int32_t hard[32];
    struct random random = random_begin(5, RANDOM_TEST, 2);
    struct normalisation normalisation;
    struct stored_set stored = {0};
    char path[FILE_PATH_MAX], sha256[65];
    assert_true(images && count <= 32);
    for (int64_t i = 0; i < count * pixels; i++) images[i] = (float)random_normal(&random);
    images[0] = -0.0f;
    images[1] = 1.4e-45f;
    images[2] = 3e7f;
    for (int i = 0; i < count; i++) {
        hard[i] = recipe->ipc ? i / recipe->ipc : (i < 2 ? 0 : i - 1);
        for (int k = 0; k < CLASSES; k++) soft[i * CLASSES + k] = (float)random_uniform(&random) + (k == hard[i]);
    }
    assert_ok(folder_create(at(recipe->name)));
    assert_ok(path_join(at(recipe->name), "images.npy", path));
    assert_ok(npy_write(path, NPY_FLOAT32, 4, (const int64_t[]){count, recipe->channels, SIDE, SIDE}, images));
    strcpy(strrchr(path, '/'), "/labels.npy");
    if (recipe->soft)
        assert_ok(npy_write(path, NPY_FLOAT32, 2, (const int64_t[]){count, CLASSES}, soft));
    else
        assert_ok(npy_write(path, NPY_INT32, 1, (const int64_t[]){count}, hard));
    fit(recipe, &normalisation);
    strcpy(strrchr(path, '/'), "/normalisation.npz");
    assert_ok(normalisation_save(&normalisation, path));
    struct set_place place;
    assert_ok(set_find(at(recipe->name), &place));
    assert_ok(stored_set_read(&place, &stored));
    assert_null(stored.about);
    assert_ok(stored_set_hash(&stored, sha256));
    write_about(recipe, count, sha256);
    stored_set_finish(&stored);
    normalisation_finish(&normalisation);
    free(images);
    return count;
}

static int export_as(const char *path, enum export_format format, const char *out, struct quantisation *quantisation) {
    struct export export = {0};
    int status = export_open(path, format, out, &export);
    if (status == RETORT_OK) status = export_write(&export);
    if (status == RETORT_OK && quantisation) *quantisation = export.quantisation;
    export_finish(&export);
    return status;
}

/* --- comparing --- */
static void assert_same_array(const struct npy *a, const struct npy *b) {
    static const size_t sizes[] = {4, 8, 4, 8, 1};
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->rank, b->rank);
    assert_memory_equal(a->size, b->size, (size_t)a->rank * sizeof *a->size);
    assert_memory_equal(a->data, b->data, (size_t)npy_count(a) * sizes[a->type]);
}

static void assert_same_set(const char *path, const char *other) {
    struct set_place places[2];
    struct stored_set sets[2] = {0};
    struct normalisation normalisations[2] = {0};
    struct normalisation_arrays arrays[2];
    char hashes[2][65];
    for (int i = 0; i < 2; i++) {
        assert_ok(set_find(i ? other : path, &places[i]));
        assert_ok(stored_set_read(&places[i], &sets[i]));
        assert_ok(stored_set_read_normalisation(&places[i], &normalisations[i]));
        assert_ok(stored_set_hash(&sets[i], hashes[i]));
        normalisation_arrays(&normalisations[i], &arrays[i]);
    }
    assert_same_array(&sets[0].images, &sets[1].images);
    assert_same_array(&sets[0].labels, &sets[1].labels);
    assert_string_equal(hashes[0], hashes[1]);
    assert_string_equal(hashes[1], json_string_value(json_object_get(sets[1].about, "set_sha256")));
    assert_true(json_equal(sets[0].about, sets[1].about));
    assert_int_equal(arrays[0].count, arrays[1].count);
    for (size_t i = 0; i < arrays[0].count; i++) {
        const struct npy_member *a = &arrays[0].members[i], *b = &arrays[1].members[i];
        struct npy x = {a->type, a->rank, {0}, (void *)(uintptr_t)a->data},
                   y = {b->type, b->rank, {0}, (void *)(uintptr_t)b->data};
        memcpy(x.size, a->size, (size_t)a->rank * sizeof *a->size);
        memcpy(y.size, b->size, (size_t)b->rank * sizeof *b->size);
        assert_string_equal(a->name, b->name);
        assert_same_array(&x, &y);
    }
    for (int i = 0; i < 2; i++) {
        stored_set_finish(&sets[i]);
        normalisation_finish(&normalisations[i]);
    }
}

static const struct recipe recipes[] = {
    {"plain", NORMALISE_NONE, 1, 2, false},       {"mean", NORMALISE_MEAN_SD, 3, 1, true},
    {"whitened", NORMALISE_ZCA_KIP, 1, 1, false}, {"pixels", NORMALISE_ZCA_PIXEL, 3, 2, true},
    {"uneven", NORMALISE_MEAN_SD, 1, 0, false},   {"uneven-soft", NORMALISE_MEAN_SD, 1, 0, true},
};
enum { RECIPES = sizeof recipes / sizeof *recipes };

static void test_round_trip(void **state) {
    (void)state;
    char name[64], file[96], again[96];
    for (int r = 0; r < RECIPES; r++) {
        make_set(&recipes[r]);
        for (int f = 0; f < EXPORT_FORMATS; f++) {
            snprintf(name, sizeof name, "%s-%s", recipes[r].name, export_words[f]);
            snprintf(file, sizeof file, "%s/%s", name, f == EXPORT_SAFETENSORS ? "set.safetensors" : "set.npz");
            snprintf(again, sizeof again, "%s/%s", name, "again");
            assert_ok(export_as(at(recipes[r].name), (enum export_format)f, NULL, NULL));
            assert_same_set(at(recipes[r].name), at(name));
            assert_same_set(at(recipes[r].name), at(file));
            /* Exports can be exported: into another form, and nothing is lost on the way. */
            assert_ok(export_as(at(file), f ? EXPORT_NPZ : EXPORT_SAFETENSORS, at(again), NULL));
            assert_same_set(at(recipes[r].name), at(again));
        }
    }
}

/* Equal sets make equal files. */
static void test_same_bytes(void **state) {
    (void)state;
    static const char *const files[EXPORT_FORMATS] = {"set.npz", "set.safetensors", "set.npz"};
    const struct recipe recipe = {"same", NORMALISE_MEAN_SD, 1, 1, false};
    make_set(&recipe);
    for (int f = 0; f < EXPORT_FORMATS; f++) {
        unsigned char *bytes[2];
        size_t sizes[2];
        for (int i = 0; i < 2; i++) {
            char name[32], path[FILE_PATH_MAX];
            snprintf(name, sizeof name, "same-%d-%d", f, i);
            assert_ok(export_as(at("same"), (enum export_format)f, at(name), NULL));
            assert_ok(path_join(at(name), files[f], path));
            assert_ok(file_read(path, 0, &bytes[i], &sizes[i]));
        }
        assert_int_equal(sizes[0], sizes[1]);
        assert_memory_equal(bytes[0], bytes[1], sizes[0]);
        free(bytes[0]);
        free(bytes[1]);
    }
}

/* --- pictures --- */
/* What a picture holds, as pixels [C,H,W] in [0,1] of the first channels. */
static void read_picture(const char *name, int channels, double *pixels) {
    unsigned char *bytes;
    size_t size;
    struct picture picture;
    assert_ok(file_read(at(name), 0, &bytes, &size));
    assert_ok(picture_decode(name, bytes, size, &picture));
    assert_true(picture.height == SIDE && picture.width == SIDE);
    for (int i = 0; i < SIDE * SIDE; i++)
        for (int c = 0; c < channels; c++) pixels[c * SIDE * SIDE + i] = picture.rgb[3 * i + c] / 255.0;
    free(picture.rgb);
    free(bytes);
}

static void test_pictures(void **state) {
    (void)state;
    static const char *const folders[CLASSES] = {"0-T-shirt_top", "1", "2-vier _ f\xc3\xbcnf"};
    struct quantisation q = {0};
    struct set_place place;
    struct stored_set set = {0};
    struct normalisation normalisation = {0};
    const struct recipe recipe = {"drawn", NORMALISE_MEAN_SD, 3, 2, false};
    int count = make_set(&recipe), pixels = 3 * SIDE * SIDE;
    assert_ok(export_as(at("drawn"), EXPORT_PNG, NULL, &q));
    assert_ok(set_find(at("drawn"), &place));
    assert_ok(stored_set_read(&place, &set));
    assert_ok(stored_set_read_normalisation(&place, &normalisation));
    float *images = set.images.data;
    bool exact;
    assert_ok(normalisation_undo(&normalisation, images, count, &exact));
    double rounding = 0, clipping = 0, picture[3 * SIDE * SIDE];
    int clipped = 0;
    for (int i = 0; i < count; i++) {
        char name[128];
        snprintf(name, sizeof name, "drawn-png/images/%s/%d.png", folders[i / 2], i % 2);
        read_picture(name, 3, picture);
        for (int j = 0; j < pixels; j++) {
            double value = images[i * pixels + j], shown = fmin(fmax(value, 0), 1);
            clipped += value != shown;
            clipping = fmax(clipping, 255 * fabs(value - shown));
            rounding = fmax(rounding, 255 * fabs(shown - picture[j]));
        }
    }
    assert_true(rounding <= 0.5 + 1e-9 && clipped > 0 && clipped < count * pixels);
    assert_int_equal(q.pictures, count);
    assert_int_equal(q.values, count * pixels);
    assert_int_equal(q.clipped, clipped);
    assert_true(fabs(q.rounding - rounding) < 1e-6 && fabs(q.clipping - clipping) < 1e-6 * clipping && !q.scaled);
    /* The README tells it. */
    unsigned char *readme;
    size_t size;
    char words[160];
    assert_ok(file_read(at("drawn-png/README.md"), 0, &readme, &size));
    snprintf(words, sizeof words, "by more than %.3f of 255 levels; %d of %d values", q.rounding, clipped,
             count * pixels);
    assert_non_null(strstr((char *)readme, words));
    assert_non_null(strstr((char *)readme,
                           "SGD, learning rate 0.0123 (learned with the images), the same in all steps, "
                           "momentum 0.5; each batch is the whole set; distilled for runs of 60 steps"));
    assert_non_null(strstr((char *)readme, "0 T-shirt/top, 1, 2 vier \\| f\xc3\xbcnf."));
    free(readme);
    stored_set_finish(&set);
    normalisation_finish(&normalisation);
}

/* Where pixels are not known, each picture goes from black to white. */
static void test_scaled_pictures(void **state) {
    (void)state;
    struct quantisation q = {0};
    double picture[SIDE * SIDE], least = 1, most = 0;
    const struct recipe recipe = {"scaled", NORMALISE_ZCA_KIP, 1, 1, true};
    make_set(&recipe);
    assert_ok(export_as(at("scaled"), EXPORT_PNG, NULL, &q));
    assert_true(q.scaled && q.clipped == 0 && q.pictures == CLASSES);
    read_picture("scaled-png/images/1/0.png", 1, picture);
    for (int i = 0; i < SIDE * SIDE; i++) least = fmin(least, picture[i]), most = fmax(most, picture[i]);
    assert_true(least == 0 && most == 1);
}

/* --- refusals --- */
#define assert_refused(call, expected, words)                                                    \
    do {                                                                                         \
        int status_ = (call);                                                                    \
        if (status_ != (expected) || !strstr(retort_error_message(), (words)))                   \
            fail_msg("%s: %d, expected %d and '%s' in: %s", #call, status_, (expected), (words), \
                     retort_error_message());                                                    \
    } while (0)

static int count_entries(const char *path) {
    int count = 0;
    DIR *entries = opendir(path);
    assert_non_null(entries);
    for (struct dirent *entry; (entry = readdir(entries));) count += entry->d_name[0] != '.';
    closedir(entries);
    return count;
}

static void test_places(void **state) {
    (void)state;
    const struct recipe recipe = {"place", NORMALISE_MEAN_SD, 1, 1, false};
    make_set(&recipe);
    assert_ok(folder_create(at("empty")));
    assert_ok(export_as(at("place"), EXPORT_NPZ, at("empty/"), NULL));
    assert_int_equal(count_entries(at("empty")), 2);
    assert_refused(export_as(at("place"), EXPORT_NPZ, at("empty"), NULL), RETORT_EINVAL,
                   "empty is not empty, and nothing in it will be overwritten; name a new folder with --out");
    assert_int_equal(count_entries(at("empty")), 2);
    assert_refused(export_as(at("place"), EXPORT_NPZ, at("place/set.json"), NULL), RETORT_EINVAL, "is a file; name a");
    assert_refused(export_as(at("place"), EXPORT_NPZ, at("place/set.json/x"), NULL), RETORT_EIO, "is a file; move it");
    assert_refused(export_as(at("place"), EXPORT_NPZ, "/proc/nowhere", NULL), RETORT_EIO, "/proc/nowhere");
    assert_refused(export_as(at("place"), EXPORT_NPZ, "", NULL), RETORT_EINVAL, "the name of the folder is empty");
    assert_refused(export_as(at("gone"), EXPORT_NPZ, NULL, NULL), RETORT_EINVAL, "gone is not there; name a run");
    /* A place that is filled between the check and the end is not touched, and nothing is left beside it. */
    struct export export;
    assert_ok(folder_create(at("late")));
    assert_ok(export_open(at("place"), EXPORT_NPZ, at("late/here"), &export));
    assert_ok(folder_create(at("late/here/theirs")));
    assert_refused(export_write(&export), RETORT_EIO, "late/here: ");
    assert_int_equal(count_entries(at("late")), 1);
    assert_int_equal(count_entries(at("late/here")), 1);
    export_finish(&export);
    /* Without --out, and with a name that is none. */
    char before[FILE_PATH_MAX], inside[FILE_PATH_MAX];
    assert_non_null(getcwd(before, sizeof before));
    snprintf(inside, sizeof inside, "%s", at("place"));
    assert_int_equal(chdir(inside), 0);
    assert_ok(export_as(".", EXPORT_SAFETENSORS, NULL, NULL));
    assert_int_equal(chdir(before), 0);
    assert_same_set(at("place"), at("place-safetensors"));
}

static void test_bad_sets(void **state) {
    (void)state;
    const struct recipe recipe = {"bad", NORMALISE_MEAN_SD, 2, 1, false};
    const int64_t shape[4] = {CLASSES, 2, SIDE, SIDE}, labels = CLASSES;
    float values[CLASSES * 2 * SIDE * SIDE] = {0};
    int count = make_set(&recipe);
    assert_refused(export_as(at("bad"), EXPORT_PNG, NULL, NULL), RETORT_EINVAL,
                   "pictures have one channel or three, this set has 2; take --format npz or safetensors");
    assert_ok(npy_write(at("bad/labels.npy"), NPY_INT32, 1, &labels, (const int32_t[]){0, 1, CLASSES}));
    assert_refused(export_as(at("bad"), EXPORT_NPZ, NULL, NULL), RETORT_EFORMAT, "label 3 of image 2, expected 0 to 2");
    assert_ok(npy_write(at("bad/labels.npy"), NPY_INT32, 1, (const int64_t[]){2}, (const int32_t[]){0, 1}));
    assert_refused(export_as(at("bad"), EXPORT_NPZ, NULL, NULL), RETORT_EFORMAT, "labels.npy: expected int32 [3]");
    assert_ok(npy_write(at("bad/labels.npy"), NPY_INT32, 1, &labels, (const int32_t[]){0, 1, 2}));
    values[7] = NAN;
    assert_ok(npy_write(at("bad/images.npy"), NPY_FLOAT32, 4, shape, values));
    assert_refused(export_as(at("bad"), EXPORT_NPZ, NULL, NULL), RETORT_ENUMERIC, "element 7 is nan");
    assert_ok(npy_write(at("bad/images.npy"), NPY_FLOAT32, 4, (const int64_t[]){CLASSES, 1, SIDE, SIDE}, values));
    assert_refused(export_as(at("bad"), EXPORT_NPZ, NULL, NULL), RETORT_EFORMAT, "expected float32 [N,2,5,5]");
    assert_ok(folder_remove(at("bad")));
    make_set(&recipe);
    write_about(&(struct recipe){"bad", NORMALISE_MEAN_SD, 2, 2, false}, count, "");
    assert_refused(export_as(at("bad"), EXPORT_NPZ, NULL, NULL), RETORT_EFORMAT, "expected 2 for each of 3 classes");
    assert_ok(file_write(at("bad/set.json"), "{\"classes\": 3, \"ipc\": 1}\n", 25));
    assert_refused(export_as(at("bad"), EXPORT_NPZ, NULL, NULL), RETORT_EFORMAT, "set.json: expected classes, ipc,");
    assert_int_equal(remove(at("bad/set.json")), 0);
    assert_refused(export_as(at("bad"), EXPORT_NPZ, NULL, NULL), RETORT_EINVAL, "set.json is not there, which tells");
    assert_false(file_exists(at("bad-npz")));
}

/* --- safetensors --- */
static void write_tensors(const char *name, const char *header, size_t data) {
    size_t length = strlen(header);
    unsigned char bytes[1024] = {(unsigned char)(length & 255), (unsigned char)(length >> 8)};
    assert_true(8 + length + data <= sizeof bytes);
    memcpy(bytes + 8, header, length);
    assert_ok(file_write(at(name), bytes, 8 + length + data));
}

static int read_tensor(const char *name) {
    struct npy npy = {0};
    int status = safetensors_read_member(at(name), "a", &npy);
    npy_finish(&npy);
    return status;
}

static void test_safetensors_bad(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        int status;
        const char *words;
    } cases[] = {
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, RETORT_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]}}  ", 8, RETORT_OK, ""},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0,5],\"data_offsets\":[0,0]}}", 0, RETORT_OK, ""},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, RETORT_EFORMAT, "the file is cut off"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, RETORT_EFORMAT, "do not go together"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, RETORT_EFORMAT, "do not go together"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, RETORT_EFORMAT, "do not go together"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, RETORT_EFORMAT, "do not go together"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,8]}}", 8, RETORT_EFORMAT,
         "do not go together"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, RETORT_EFORMAT,
         "at most 8 sizes"},
        {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[0,8]}}", 8, RETORT_EUNSUPPORTED, "type 'BF16'"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, RETORT_EFORMAT, "expected dtype"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", 8, RETORT_EFORMAT, "expected dtype"},
        {"{\"a\":3}", 8, RETORT_EFORMAT, "expected dtype"},
        {"{\"b\":3}", 8, RETORT_EFORMAT, "has no array 'a'"},
        {"[1]", 8, RETORT_EFORMAT, "no JSON object"},
        {"{\"a\":", 8, RETORT_EFORMAT, "no JSON object"},
        {"{\"a\":1,\"a\":2}", 8, RETORT_EFORMAT, "no JSON object"},
        {"", 0, RETORT_EFORMAT, "no JSON object"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_tensors("a.safetensors", cases[i].header, cases[i].data);
        assert_refused(read_tensor("a.safetensors"), cases[i].status, cases[i].status < 0 ? cases[i].words : "");
    }
    assert_ok(file_write(at("short.safetensors"), "\x01\0\0", 3));
    assert_refused(read_tensor("short.safetensors"), RETORT_EFORMAT, "fewer than eight bytes");
    assert_ok(file_write(at("long.safetensors"), "\xff\xff\xff\xff\xff\xff\xff\xff{}", 10));
    assert_refused(read_tensor("long.safetensors"), RETORT_EFORMAT, "promise a header of 18446744073709551615 bytes");
    assert_refused(read_tensor("none.safetensors"), RETORT_EIO, "cannot read");
}

/* A file that is cut off anywhere, or has any byte changed, is refused or is read as another set: nothing else. */
static void test_damage(void **state) {
    (void)state;
    const struct recipe recipe = {"damaged", NORMALISE_MEAN_SD, 1, 1, false};
    unsigned char *bytes;
    size_t size;
    int refused = 0, other = 0;
    make_set(&recipe);
    assert_ok(export_as(at("damaged"), EXPORT_SAFETENSORS, NULL, NULL));
    assert_ok(file_read(at("damaged-safetensors/set.safetensors"), 0, &bytes, &size));
    for (size_t i = 0; i < size; i += i < 700 ? 1 : 37)
        for (int how = 0; how < 2; how++) {
            struct export export = {0};
            unsigned char kept = bytes[i];
            if (how) bytes[i] ^= 1 << i % 8;
            assert_ok(file_write(at("damage.safetensors"), bytes, how ? size : i));
            bytes[i] = kept;
            int status = export_open(at("damage.safetensors"), EXPORT_NPZ, at("damage-out"), &export);
            if (status < 0)
                refused++;
            else
                other++;
            assert_true(how || status < 0);
            export_finish(&export);
        }
    assert_true(refused > 100 && other > 10);
    free(bytes);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),      cmocka_unit_test(test_same_bytes), cmocka_unit_test(test_pictures),
        cmocka_unit_test(test_scaled_pictures), cmocka_unit_test(test_places),     cmocka_unit_test(test_bad_sets),
        cmocka_unit_test(test_safetensors_bad), cmocka_unit_test(test_damage),
    };
    return cmocka_run_group_tests(tests, prepare, clean);
}
