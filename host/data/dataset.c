/* From what a reader found to data sets: choice of classes, limits, class index, held-out split; and drawing rows. */
#include "data/readers.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void part_finish(struct part *part) {
    free(part->bytes);
    free(part->values);
    free(part->labels);
    *part = (struct part){0};
}

static void names_free(char **names, int count) {
    for (int i = 0; names && i < count; i++) free(names[i]);
    free(names);
}

void source_finish(struct source *source) {
    part_finish(&source->train);
    part_finish(&source->test);
    text_finish(&source->story);
    names_free(source->class_names, source->classes);
    *source = (struct source){0};
}

void dataset_finish(struct dataset *dataset) {
    if (!dataset) return;
    free(dataset->images);
    free(dataset->labels);
    names_free(dataset->class_names, dataset->classes);
    free(dataset->class_rows);
    free(dataset->class_begin);
    *dataset = (struct dataset){0};
}

void data_finish(struct data_set_pair *data) {
    if (!data) return;
    dataset_finish(&data->train);
    dataset_finish(&data->holdout);
    dataset_finish(&data->test);
    normalisation_finish(&data->normalisation);
    text_finish(&data->story);
}

bool spec_wants(const struct data_spec *spec, int label) {
    if (!spec->classes) return true;
    for (int i = 0; i < spec->class_count; i++)
        if (spec->classes[i] == label) return true;
    return false;
}

static int spec_check(const struct data_spec *spec) {
    if (!spec->path) return error_set(RETORT_EINVAL, "data.path is missing");
    if (!(spec->holdout >= 0 && spec->holdout < 1))
        return error_set(RETORT_EINVAL, "data.holdout is %g; expected a fraction from 0 to below 1", spec->holdout);
    if (!(spec->test >= 0 && spec->test < 1))
        return error_set(RETORT_EINVAL, "data.test is %g; expected a fraction from 0 to below 1", spec->test);
    if (spec->train_limit < 0 || spec->test_limit < 0)
        return error_set(RETORT_EINVAL, "a negative limit of rows; expected 0 (all) or more");
    if (spec->height < 0 || spec->width < 0 || (spec->height == 0) != (spec->width == 0))
        return error_set(RETORT_EINVAL, "images of %d x %d; expected height and width both given, or both 0",
                         spec->height, spec->width);
    return RETORT_OK;
}

static int classes_check(const struct data_spec *spec, const struct source *source) {
    int kept = spec->classes ? spec->class_count : source->classes;
    if (spec->class_names && spec->class_name_count != kept)
        return error_set(RETORT_EINVAL, "data.class_names lists %d names, but %d classes are kept of %s; name each",
                         spec->class_name_count, kept, spec->path);
    if (!spec->classes) return RETORT_OK;
    if (spec->class_count < 1) return error_set(RETORT_EINVAL, "data.classes is empty; leave it out to keep all");
    for (int i = 0; i < spec->class_count; i++) {
        if (spec->classes[i] < 0 || spec->classes[i] >= source->classes)
            return error_set(RETORT_EINVAL, "data.classes names class %d; %s has classes 0 to %d", spec->classes[i],
                             spec->path, source->classes - 1);
        for (int j = 0; j < i; j++)
            if (spec->classes[i] == spec->classes[j])
                return error_set(RETORT_EINVAL, "data.classes names class %d twice", spec->classes[i]);
    }
    return RETORT_OK;
}

/* Memory for `count` rows; counts and shape are checked here once for all data sets. */
static int dataset_alloc(struct dataset *dataset, int64_t count, int channels, int height, int width, int classes) {
    *dataset =
        (struct dataset){.count = count, .channels = channels, .height = height, .width = width, .classes = classes};
    int64_t values;
    if (count > INT32_MAX || !claim_count(4, (int64_t[]){count, channels, height, width}, sizeof(float), &values))
        return error_set(RETORT_EUNSUPPORTED, "%lld images of %d x %d x %d are more than can be addressed; set a limit",
                         (long long)count, channels, height, width);
    dataset->images = malloc((size_t)values * sizeof *dataset->images + 1);
    dataset->labels = malloc((size_t)count * sizeof *dataset->labels + 1);
    dataset->class_names = calloc((size_t)classes + 1, sizeof *dataset->class_names);
    dataset->class_rows = malloc((size_t)count * sizeof *dataset->class_rows + 1);
    dataset->class_begin = calloc((size_t)classes + 1, sizeof *dataset->class_begin);
    if (!dataset->images || !dataset->labels || !dataset->class_names || !dataset->class_rows || !dataset->class_begin)
        return error_set(RETORT_ENOMEM,
                         "out of memory for %lld images of %d x %d x %d; set a limit or keep fewer classes",
                         (long long)count, channels, height, width);
    return RETORT_OK;
}

/* Groups the rows by class: a counting sort, so rows ascend within a class. */
static void dataset_index(struct dataset *dataset) {
    int64_t *begin = dataset->class_begin;
    memset(begin, 0, ((size_t)dataset->classes + 1) * sizeof *begin);
    for (int64_t i = 0; i < dataset->count; i++) begin[dataset->labels[i] + 1]++;
    for (int c = 0; c < dataset->classes; c++) begin[c + 1] += begin[c];
    for (int64_t i = 0; i < dataset->count; i++) dataset->class_rows[begin[dataset->labels[i]]++] = i;
    for (int c = dataset->classes; c > 0; c--) begin[c] = begin[c - 1];
    begin[0] = 0;
}

static size_t row_size(const struct dataset *dataset) {
    return (size_t)dataset->channels * (size_t)dataset->height * (size_t)dataset->width;
}

/* The wanted rows of a part as a data set: at most `limit` of the kept classes, renumbered, pixels in [0,1]. */
static int dataset_build(const struct data_spec *spec, const struct source *source, const struct part *part,
                         int64_t limit, struct dataset *dataset) {
    int status = RETORT_OK;
    int classes = spec->classes ? spec->class_count : source->classes;
    int32_t *renumber = malloc((size_t)source->classes * sizeof *renumber + 1);
    if (!renumber) RAISE(RETORT_ENOMEM, "out of memory reading %s", spec->path);
    for (int c = 0; c < source->classes; c++) renumber[c] = spec->classes ? -1 : c;
    for (int c = 0; spec->classes && c < classes; c++) renumber[spec->classes[c]] = c;
    int64_t count = 0;
    for (int64_t i = 0; i < part->count && (limit == 0 || count < limit); i++) count += renumber[part->labels[i]] >= 0;
    TRY(dataset_alloc(dataset, count, part->channels, part->height, part->width, classes));
    size_t row = row_size(dataset);
    for (int64_t i = 0, to = 0; to < count; i++) {
        int32_t label = renumber[part->labels[i]];
        if (label < 0) continue;
        float *image = dataset->images + (size_t)to * row;
        if (part->bytes)
            for (size_t j = 0; j < row; j++) image[j] = (float)(part->bytes[(size_t)i * row + j] / source->white);
        else
            memcpy(image, part->values + (size_t)i * row, row * sizeof *image);
        dataset->labels[to++] = label;
    }
    for (int c = 0; c < classes; c++) {
        int original = spec->classes ? spec->classes[c] : c;
        char number[16];
        snprintf(number, sizeof number, "%d", original);
        dataset->class_names[c] = strdup(spec->class_names     ? spec->class_names[c]
                                         : source->class_names ? source->class_names[original]
                                                               : number);
        if (!dataset->class_names[c]) RAISE(RETORT_ENOMEM, "out of memory reading %s", spec->path);
    }
    dataset_index(dataset);
done:
    free(renumber);
    return status;
}

/* Moves the flagged rows, `count` of them, to `taken`; both stay in order. */
static int dataset_move(struct dataset *from, const unsigned char *flags, int64_t count, struct dataset *taken) {
    int status = RETORT_OK;
    TRY(dataset_alloc(taken, count, from->channels, from->height, from->width, from->classes));
    for (int c = 0; c < from->classes; c++)
        if (!(taken->class_names[c] = strdup(from->class_names[c]))) RAISE(RETORT_ENOMEM, "out of memory");
    size_t row = row_size(from);
    int64_t moved = 0;
    for (int64_t i = 0; i < from->count; i++) {
        struct dataset *to = flags[i] ? taken : from;
        int64_t place = flags[i] ? moved++ : i - moved;
        memmove(to->images + (size_t)place * row, from->images + (size_t)i * row, row * sizeof *to->images);
        to->labels[place] = from->labels[i];
    }
    from->count -= count;
    dataset_index(from);
    dataset_index(taken);
done:
    return status;
}

static int64_t class_size(const struct dataset *dataset, int class) {
    return dataset->class_begin[class + 1] - dataset->class_begin[class];
}

/* Moves counts[c] images of each class c, drawn with the seed for a purpose, from train to `taken`. */
static int dataset_split(struct dataset *train, const int64_t *counts, uint64_t seed, enum random_stream purpose,
                         struct dataset *taken) {
    int status = RETORT_OK;
    int64_t total = 0;
    unsigned char *aside = calloc((size_t)train->count + 1, 1);
    uint32_t *chosen = malloc((size_t)train->count * sizeof *chosen + 1);
    if (!aside || !chosen) RAISE(RETORT_ENOMEM, "out of memory for splitting train");
    for (int c = 0; c < train->classes; c++) {
        const int64_t *rows = train->class_rows + train->class_begin[c];
        struct random random = random_begin(seed, purpose, (uint32_t)c);
        random_choose(&random, (uint32_t)class_size(train, c), (uint32_t)counts[c], chosen);
        for (int64_t i = 0; i < counts[c]; i++) aside[rows[chosen[i]]] = 1;
        total += counts[c];
    }
    TRY(dataset_move(train, aside, total, taken));
done:
    free(aside);
    free(chosen);
    return status;
}

/* Moves the fraction of every class, rounded down, from train to holdout. */
static int split_holdout(const struct data_spec *spec, uint64_t seed, struct data_set_pair *data) {
    int status = RETORT_OK;
    struct dataset *train = &data->train;
    int64_t total = 0, *counts = calloc((size_t)train->classes + 1, sizeof *counts);
    if (!counts) RAISE(RETORT_ENOMEM, "out of memory for the held-out split");
    for (int c = 0; c < train->classes; c++)
        total += counts[c] = (int64_t)floor(spec->holdout * (double)class_size(train, c));
    if (total == 0)
        RAISE(RETORT_EINVAL,
              "data.holdout %g of %lld training images in %d classes keeps none aside; raise it or set 0",
              spec->holdout, (long long)train->count, train->classes);
    TRY(dataset_split(train, counts, seed, RANDOM_SPLIT, &data->holdout));
    text_printf(&data->story, "holdout: %lld images, taken from train (data.holdout %g)\n", (long long)total,
                spec->holdout);
done:
    free(counts);
    return status;
}

/* Moves the fraction of every class to test, which is empty so far. */
static int split_test(const struct data_spec *spec, struct data_set_pair *data) {
    int status = RETORT_OK;
    struct dataset *train = &data->train;
    int64_t total = 0, *counts = calloc((size_t)train->classes + 1, sizeof *counts);
    if (!counts) RAISE(RETORT_ENOMEM, "out of memory for the test part");
    for (int c = 0; c < train->classes; c++) {
        int64_t size = class_size(train, c), count = llround(spec->test * (double)size);
        if (count < 1) count = 1;
        if (count >= size) count = size - 1;
        total += counts[c] = size < 2 ? 0 : count;
    }
    if (total == 0) {
        text_append(&data->story, "test: none: no class has a second image to keep aside\n");
        goto done;
    }
    dataset_finish(&data->test);
    TRY(dataset_split(train, counts, 0, RANDOM_TEST_PART, &data->test));
    text_printf(&data->story,
                "test: %lld images, taken from train, since the data has no test part (data.test %g of each class)\n",
                (long long)total, spec->test);
done:
    free(counts);
    return status;
}

/* How evenly train's images divide among the classes. */
static void tell_classes(const struct dataset *train, struct text *story) {
    int least = 0, most = 0;
    for (int c = 1; c < train->classes; c++) {
        if (class_size(train, c) < class_size(train, least)) least = c;
        if (class_size(train, c) > class_size(train, most)) most = c;
    }
    long long fewest = class_size(train, least), largest = class_size(train, most);
    if (fewest == largest)
        text_printf(story, "classes: %d, each with %lld training image%s\n", train->classes, fewest,
                    fewest == 1 ? "" : "s");
    else
        text_printf(story, "classes: %d, with %lld (%s) to %lld (%s) training images%s\n", train->classes, fewest,
                    train->class_names[least], largest, train->class_names[most],
                    largest > 2 * fewest ? "; batches are drawn from all alike, so that large classes weigh more: "
                                           "leave images out to even them"
                                         : "");
}

/* Goes on from the hash so far. */
static uint64_t fingerprint(const struct dataset *dataset, uint64_t so_far) {
    const int64_t sizes[] = {dataset->count, dataset->channels, dataset->height, dataset->width, dataset->classes};
    size_t rows = (size_t)dataset->count;
    so_far = hash_fast(sizes, sizeof sizes, so_far);
    so_far = hash_fast(dataset->labels, rows * sizeof *dataset->labels, so_far);
    return hash_fast(dataset->images, rows * row_size(dataset) * sizeof *dataset->images, so_far);
}

int data_load(const struct data_spec *spec, uint64_t seed, struct data_set_pair *data) {
    int status = RETORT_OK;
    struct source source = {0};
    struct data_set_pair result = {0};
    TRY(spec_check(spec));
    switch (spec->kind) {
    case DATA_IDX:
        TRY(idx_load(spec, &source));
        break;
    case DATA_CIFAR10:
    case DATA_CIFAR100:
        TRY(cifar_load(spec, &source));
        break;
    case DATA_FOLDER:
        TRY(folder_load(spec, &source));
        break;
    case DATA_NPY:
        TRY(npy_load(spec, &source));
        break;
    case DATA_CSV:
        TRY(csv_load(spec, &source));
        break;
    default:
        RAISE(RETORT_EINVAL, "unknown data kind %d", spec->kind);
    }
    TRY(source_name_known(spec->kind, &source));
    TRY(classes_check(spec, &source));
    const struct part *train = &source.train, *test = &source.test;
    if (test->count
        && (test->channels != train->channels || test->height != train->height || test->width != train->width))
        RAISE(RETORT_EFORMAT,
              "%s: training images are %d x %d x %d but test images %d x %d x %d: they are not of one set", spec->path,
              train->channels, train->height, train->width, test->channels, test->height, test->width);
    TRY(dataset_build(spec, &source, train, spec->train_limit, &result.train));
    part_finish(&source.train);
    if (result.train.count == 0) RAISE(RETORT_EINVAL, "%s holds no training images of the wanted classes", spec->path);
    /* An empty test part has no shape of its own. */
    source.test.channels = result.train.channels;
    source.test.height = result.train.height;
    source.test.width = result.train.width;
    TRY(dataset_build(spec, &source, test, spec->test_limit, &result.test));
    part_finish(&source.test);
    result.fingerprint = fingerprint(&result.test, fingerprint(&result.train, 0));
    result.train_read = result.train.count;
    result.test_read = result.test.count;
    result.story = source.story;
    source.story = (struct text){0};
    if (result.test.count == 0 && spec->test > 0) TRY(split_test(spec, &result));
    TRY(normalisation_fit(spec->normalise, &result.train, &result.normalisation));
    TRY(normalisation_apply(&result.normalisation, result.train.images, result.train.count));
    TRY(normalisation_apply(&result.normalisation, result.test.images, result.test.count));
    if (spec->holdout > 0) TRY(split_holdout(spec, seed, &result));
    tell_classes(&result.train, &result.story);
    if (result.story.failed) RAISE(RETORT_ENOMEM, "out of memory reading %s", spec->path);
    *data = result;
    result = (struct data_set_pair){0};
done:
    source_finish(&source);
    data_finish(&result);
    return status;
}

/* --- drawing --- */

void dataset_copy_row(const struct dataset *dataset, int64_t row, int64_t to, float *images, int32_t *labels) {
    size_t size = row_size(dataset);
    memcpy(images + (size_t)to * size, dataset->images + (size_t)row * size, size * sizeof *images);
    if (labels) labels[to] = dataset->labels[row];
}

int dataset_draw(const struct dataset *dataset, struct random *random, int64_t count, float *images, int32_t *labels) {
    if (count < 0 || count > dataset->count)
        return error_set(RETORT_EINVAL, "cannot draw %lld different images of %lld; ask for fewer", (long long)count,
                         (long long)dataset->count);
    uint32_t *rows = malloc((size_t)dataset->count * sizeof *rows + 1);
    if (!rows) return error_set(RETORT_ENOMEM, "out of memory drawing images");
    random_choose(random, (uint32_t)dataset->count, (uint32_t)count, rows);
    for (int64_t i = 0; i < count; i++) dataset_copy_row(dataset, rows[i], i, images, labels);
    free(rows);
    return RETORT_OK;
}

int dataset_draw_per_class(const struct dataset *dataset, struct random *random, int per_class, float *images,
                           int32_t *labels) {
    for (int c = 0; c < dataset->classes; c++)
        if (per_class < 0 || class_size(dataset, c) < per_class)
            return error_set(RETORT_EINVAL,
                             "cannot draw %d different images of class %s, which has %lld; ask for fewer per class, or "
                             "leave the class out with data.classes",
                             per_class, dataset->class_names[c], (long long)class_size(dataset, c));
    return dataset_draw_at_most(dataset, random, per_class, images, labels);
}

int dataset_draw_class(const struct dataset *dataset, struct random *random, int class, int64_t count, float *images,
                       int64_t *different) {
    int64_t size = class_size(dataset, class), distinct = size < count ? size : count;
    const int64_t *rows = dataset->class_rows + dataset->class_begin[class];
    if (!size) return error_set(RETORT_EINVAL, "class %s has no images", dataset->class_names[class]);
    uint32_t *chosen = malloc((size_t)size * sizeof *chosen);
    if (!chosen) return error_set(RETORT_ENOMEM, "out of memory drawing images");
    random_choose(random, (uint32_t)size, (uint32_t)distinct, chosen);
    for (int64_t i = 0; i < count; i++) dataset_copy_row(dataset, rows[chosen[i % distinct]], i, images, NULL);
    free(chosen);
    *different = distinct;
    return RETORT_OK;
}

int64_t dataset_count_at_most(const struct dataset *dataset, int per_class) {
    int64_t count = 0;
    for (int c = 0; c < dataset->classes; c++)
        count += class_size(dataset, c) < per_class ? class_size(dataset, c) : per_class;
    return count;
}

int dataset_draw_at_most(const struct dataset *dataset, struct random *random, int per_class, float *images,
                         int32_t *labels) {
    int status = RETORT_OK;
    int64_t to = 0;
    for (int c = 0; c < dataset->classes; c++) {
        int64_t size = class_size(dataset, c), count = size < per_class ? size : per_class, different;
        if (count < 1) continue;
        TRY(dataset_draw_class(dataset, random, c, count, images + to * (int64_t)row_size(dataset), &different));
        for (int64_t i = 0; i < count; i++) labels[to++] = (int32_t)c;
    }
done:
    return status;
}

int rows_draw(struct random *random, int classes, int ipc, int classes_chosen, int per_class, int32_t *rows) {
    if (classes < 1 || ipc < 1 || classes > INT32_MAX / ipc || classes_chosen < 1 || classes_chosen > classes
        || per_class < 1 || per_class > ipc)
        return error_set(RETORT_EINVAL,
                         "an inner batch of %d images of %d classes; the set has %d images of %d classes", per_class,
                         classes_chosen, ipc, classes);
    /* Selection sampling (Knuth, TAOCP volume 2, 3.4.2, algorithm S): uniform subsets in ascending order. */
    int classes_left = classes_chosen;
    for (int c = 0; c < classes; c++) {
        if (random_below(random, (uint32_t)(classes - c)) >= (uint32_t)classes_left) continue;
        classes_left--;
        int left = per_class;
        for (int i = 0; i < ipc && left > 0; i++) {
            if (random_below(random, (uint32_t)(ipc - i)) >= (uint32_t)left) continue;
            left--;
            *rows++ = (int32_t)(c * ipc + i);
        }
    }
    return RETORT_OK;
}

void epoch_divide(int64_t count, int64_t most, int64_t *steps, int64_t *batch) {
    *steps = (count + most - 1) / most;
    *batch = (count + *steps - 1) / *steps;
}

void epoch_rows(const uint32_t *order, int64_t count, int64_t step, int64_t batch, int32_t *rows) {
    for (int64_t i = 0; i < batch; i++) rows[i] = (int32_t)order[(step * batch + i) % count];
}
