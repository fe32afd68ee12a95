/* Many pictures, each a file of its own, to one array: one size, one number of channels, and word of those that cannot
 * be read. */
#include "data/readers.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void listing_finish(struct listing *listing) {
    for (size_t i = 0; i < listing->count; i++) free(listing->items[i].path);
    array_finish(listing);
}

int listing_add(struct listing *listing, const char *folder, const char *name, int label, int64_t rank) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    if (*name != '/') TRY(path_join(folder, name, path));
    struct listed listed = {strdup(*name == '/' ? name : path), label, rank};
    if (!listed.path || !array_push(listing, listed)) {
        free(listed.path);
        RAISE(RETORT_ENOMEM, "out of memory reading %s", folder);
    }
done:
    return status;
}

static int compare_turns(const void *a, const void *b) {
    const struct listed *first = a, *second = b;
    if (first->rank != second->rank) return first->rank < second->rank ? -1 : 1;
    return (first->label > second->label) - (first->label < second->label);
}

void listing_limit(struct listing *listing, int64_t limit) {
    if (limit == 0 || listing->count <= (size_t)limit) return;
    qsort(listing->items, listing->count, sizeof *listing->items, compare_turns);
    for (size_t i = (size_t)limit; i < listing->count; i++) free(listing->items[i].path);
    listing->count = (size_t)limit;
}

static int read_picture(const char *path, struct picture *picture) {
    int status = RETORT_OK;
    unsigned char *bytes = NULL;
    size_t size;
    TRY(file_read(path, 1 << 30, &bytes, &size));
    TRY(picture_decode(path, bytes, size, picture));
done:
    free(bytes);
    return status;
}

enum { SHOWN = 8 }; /* complaints that are printed */

/* What was met on the way. */
struct census {
    struct text corrupt; /* the first SHOWN complaints, a line each */
    size_t corrupt_count, grey, uneven;
    int least[2], most[2]; /* height and width */
    char first[FILE_PATH_MAX], odd[FILE_PATH_MAX];
    int odd_size[2];
};

static void count_corrupt(struct census *census) {
    if (census->corrupt_count++ < SHOWN) text_printf(&census->corrupt, "\n  %s", retort_error_message());
    error_clear();
}

static void count_picture(struct census *census, const char *path, const struct picture *picture) {
    const int size[2] = {picture->height, picture->width};
    if (!*census->first) {
        snprintf(census->first, sizeof census->first, "%s", path);
        memcpy(census->least, size, sizeof size);
        memcpy(census->most, size, sizeof size);
    }
    census->grey += picture->grey;
    for (int i = 0; i < 2; i++) {
        if (size[i] < census->least[i]) census->least[i] = size[i];
        if (size[i] > census->most[i]) census->most[i] = size[i];
    }
}

/* The first picture decides what is not specified. */
static int take_shape(const struct data_spec *spec, const struct picture *picture, size_t count, struct part *part) {
    int64_t bytes;
    part->channels = spec->grey ? 1 : 3;
    part->height = spec->height ? spec->height : picture->height;
    part->width = spec->width ? spec->width : picture->width;
    if (!claim_count(4, (int64_t[]){(int64_t)count, part->channels, part->height, part->width}, 1, &bytes)
        || !(part->bytes = malloc((size_t)bytes)))
        return error_set(RETORT_ENOMEM,
                         "out of memory for %zu images of %d x %d x %d; set data.train_limit or a smaller data.size",
                         count, part->channels, part->height, part->width);
    return RETORT_OK;
}

static int read_one(const struct data_spec *spec, const struct listing *listing, size_t i, struct part *part,
                    struct census *census) {
    int status = RETORT_OK;
    struct picture picture = {0};
    const char *path = listing->items[i].path;
    status = read_picture(path, &picture);
    if (status == RETORT_EFORMAT || status == RETORT_EIO) {
        count_corrupt(census);
        return RETORT_OK;
    }
    TRY(status);
    if (!part->bytes) TRY(take_shape(spec, &picture, listing->count, part));
    count_picture(census, path, &picture);
    if (spec->height == 0 && (picture.height != part->height || picture.width != part->width)) {
        if (census->uneven++ == 0) {
            snprintf(census->odd, sizeof census->odd, "%s", path);
            census->odd_size[0] = picture.height;
            census->odd_size[1] = picture.width;
        }
        goto done;
    }
    size_t row = (size_t)part->channels * (size_t)part->height * (size_t)part->width;
    TRY(picture_fit(&picture, part->channels, part->height, part->width, part->bytes + (size_t)part->count * row));
    part->labels[part->count++] = listing->items[i].label;
done:
    free(picture.rgb);
    return status;
}

/* Whether what was met can be trained on. */
static int census_check(const struct data_spec *spec, const struct census *census, const struct listing *listing,
                        const struct part *part) {
    int status = RETORT_OK;
    const char *more = census->corrupt_count > SHOWN ? "\n  ..." : "";
    size_t bad = census->corrupt_count;
    if (bad && (!spec->skip_corrupt || bad == listing->count))
        RAISE(RETORT_EFORMAT, "%zu of %zu pictures cannot be read%s:%s%s", bad, listing->count,
              bad == listing->count ? "" : "; mend or remove them, or go without them by data.skip_corrupt: true",
              text_get(&census->corrupt), more);
    if (bad)
        log_warning("%zu of %zu pictures cannot be read and are skipped (data.skip_corrupt):%s%s", bad, listing->count,
                    text_get(&census->corrupt), more);
    if (census->uneven)
        RAISE(RETORT_EFORMAT,
              "%s is %d x %d pixels but %s is %d x %d; %zu of %zu pictures differ so, from %d x %d to %d x %d: set "
              "data.size, such as data.size: %d, to scale all and cut them to one size",
              census->odd, census->odd_size[0], census->odd_size[1], census->first, part->height, part->width,
              census->uneven, listing->count, census->least[0], census->least[1], census->most[0], census->most[1],
              census->least[0] < 64 || census->least[1] < 64 ? 32 : 64);
done:
    return status;
}

static void tell(const struct data_spec *spec, const struct census *census, const char *what, const char *place,
                 const struct part *part, struct text *story) {
    text_printf(story, "%s: %s: %lld pictures, ", what, place, (long long)part->count);
    bool even = census->least[0] == census->most[0] && census->least[1] == census->most[1];
    if (even)
        text_printf(story, "%d x %d", census->least[0], census->least[1]);
    else
        text_printf(story, "heights %d to %d, widths %d to %d", census->least[0], census->most[0], census->least[1],
                    census->most[1]);
    if (!even || census->least[0] != part->height || census->least[1] != part->width)
        text_printf(story, ", scaled to cover %d x %d and cut to the centre", part->height, part->width);
    size_t read = (size_t)part->count;
    if (spec->grey)
        text_append(story, census->grey == read ? "; all grey" : "; colours made grey");
    else if (census->grey == read)
        text_append(story, "; all grey: data.grey: true would store one channel instead of three");
    else if (census->grey)
        text_printf(story, "; %zu grey ones among them, read as colours", census->grey);
    if (census->corrupt_count) text_printf(story, "; %zu skipped, which cannot be read", census->corrupt_count);
    text_append(story, "\n");
}

int listing_read(const struct data_spec *spec, const struct listing *listing, const char *what, const char *place,
                 struct part *part, struct text *story) {
    int status = RETORT_OK;
    struct census *census = calloc(1, sizeof *census);
    struct progress progress;
    progress_begin(&progress, "reading pictures", 0, (int64_t)listing->count);
    part->channels = spec->grey ? 1 : 3;
    part->labels = malloc(listing->count * sizeof *part->labels + 1);
    if (!part->labels || !census) RAISE(RETORT_ENOMEM, "out of memory reading %s", spec->path);
    if (!listing->count) goto done;
    for (size_t i = 0; i < listing->count; i++) {
        TRY(read_one(spec, listing, i, part, census));
        progress_update(&progress, (int64_t)i + 1, NULL);
    }
    TRY(census_check(spec, census, listing, part));
    tell(spec, census, what, place, part, story);
done:
    progress_end(&progress);
    if (census) text_finish(&census->corrupt);
    free(census);
    return status;
}
