/* IDX, the format of MNIST and its relatives, plain or gzip: two zero bytes, the type, the rank, big-endian sizes,
 * data. Only unsigned bytes, which is what image sets use. */
#include "data/readers.h"

#include "base/error.h"
#include "base/file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

/* --- decoding --- */

/* Plain bytes, or the content of a gzip file, in order. */
struct stream {
    const char *name;
    const unsigned char *bytes;
    size_t left;
    bool gzip, ended; /* ended: the gzip stream's end, with its check sum, was seen */
    z_stream zip;
};

static int stream_open(struct stream *stream, const char *name, const unsigned char *bytes, size_t size) {
    *stream = (struct stream){.name = name, .bytes = bytes, .left = size};
    if (size < 2 || bytes[0] != 0x1f || bytes[1] != 0x8b) return RETORT_OK;
    if (inflateInit2(&stream->zip, 15 + 16) != Z_OK) return error_set(RETORT_ENOMEM, "out of memory reading %s", name);
    stream->gzip = true;
    return RETORT_OK;
}

static void stream_close(struct stream *stream) {
    if (stream->gzip) inflateEnd(&stream->zip);
}

/* *got: how much there was, less than `size` only at the end. */
static int stream_read(struct stream *stream, void *out, size_t size, size_t *got) {
    *got = 0;
    if (!stream->gzip) {
        *got = size < stream->left ? size : stream->left;
        memcpy(out, stream->bytes, *got);
        stream->bytes += *got;
        stream->left -= *got;
        return RETORT_OK;
    }
    const size_t most = 1 << 30; /* zlib counts in 32 bits */
    while (*got < size && !stream->ended) {
        uInt in = (uInt)(stream->left < most ? stream->left : most);
        uInt room = (uInt)(size - *got < most ? size - *got : most);
        stream->zip.next_in = (unsigned char *)(uintptr_t)stream->bytes;
        stream->zip.avail_in = in;
        stream->zip.next_out = (unsigned char *)out + *got;
        stream->zip.avail_out = room;
        int code = inflate(&stream->zip, Z_NO_FLUSH);
        stream->bytes += in - stream->zip.avail_in;
        stream->left -= in - stream->zip.avail_in;
        *got += room - stream->zip.avail_out;
        if (code == Z_STREAM_END)
            stream->ended = true;
        else if (code == Z_BUF_ERROR || (code == Z_OK && stream->left == 0 && stream->zip.avail_out > 0))
            return error_set(RETORT_EFORMAT, "%s: the gzip file is cut off: fetch it again", stream->name);
        else if (code != Z_OK)
            return error_set(RETORT_EFORMAT, "%s: the gzip file is damaged (%s): fetch it again", stream->name,
                             stream->zip.msg ? stream->zip.msg : "unknown");
    }
    return RETORT_OK;
}

int idx_decode(const char *name, const unsigned char *bytes, size_t size, struct idx *idx) {
    int status = RETORT_OK;
    struct stream stream = {0};
    unsigned char head[4], sizes[16], beyond;
    size_t got;
    struct idx result = {0};
    TRY(stream_open(&stream, name, bytes, size));
    TRY(stream_read(&stream, head, sizeof head, &got));
    if (got < sizeof head || head[0] || head[1] || head[2] != 0x08 || head[3] < 1 || head[3] > 4) {
        char found[16] = "nothing";
        for (size_t i = 0; i < got; i++) snprintf(found + 2 * i, 3, "%02x", head[i]);
        RAISE(RETORT_EFORMAT,
              "%s is not an IDX file of unsigned bytes: it starts with %s; expected 0000080R with R the rank, 1 to 4 "
              "(00000803 for images, 00000801 for labels)",
              name, found);
    }
    result.rank = head[3];
    TRY(stream_read(&stream, sizes, 4 * (size_t)result.rank, &got));
    if (got < 4 * (size_t)result.rank) RAISE(RETORT_EFORMAT, "%s is cut off inside its header: fetch it again", name);
    for (int i = 0; i < result.rank; i++)
        result.size[i] = (int64_t)((uint32_t)sizes[4 * i] << 24 | (uint32_t)sizes[4 * i + 1] << 16
                                   | (uint32_t)sizes[4 * i + 2] << 8 | sizes[4 * i + 3]);
    int64_t count;
    if (!claim_count(result.rank, result.size, 1, &count))
        RAISE(RETORT_EFORMAT, "%s: its header claims more than 2^62 bytes; the file is damaged: fetch it again", name);
    if (stream.gzip)
        TRY(claim_check(name, count, size));
    else if ((uint64_t)count != stream.left)
        RAISE(
            RETORT_EFORMAT,
            "%s: its header claims %lld bytes of data, but %zu follow; the file is cut off or has bytes after its end: "
            "fetch it again",
            name, (long long)count, stream.left);
    result.data = malloc((size_t)count + 1);
    if (!result.data) RAISE(RETORT_ENOMEM, "out of memory reading %s (%lld bytes)", name, (long long)count);
    TRY(stream_read(&stream, result.data, (size_t)count, &got));
    if (got < (size_t)count)
        RAISE(RETORT_EFORMAT, "%s: its header claims %lld bytes of data, but it holds %zu: fetch it again", name,
              (long long)count, got);
    /* Looking for one byte more also makes zlib verify the check sum. */
    TRY(stream_read(&stream, &beyond, 1, &got));
    if (got || stream.left)
        RAISE(RETORT_EFORMAT, "%s has bytes after the %lld its header claims; the file is damaged: fetch it again",
              name, (long long)count);
    *idx = result;
    result.data = NULL;
done:
    stream_close(&stream);
    free(result.data);
    return status;
}

/* --- the reader --- */

static int read_rank(const char *path, int rank, struct idx *idx) {
    int status = RETORT_OK;
    unsigned char *bytes = NULL;
    size_t size;
    struct idx result = {0};
    TRY(file_read(path, 0, &bytes, &size));
    TRY(idx_decode(path, bytes, size, &result));
    if (result.rank != rank)
        RAISE(RETORT_EFORMAT, "%s holds an array of rank %d; expected rank %d (%s): are images and labels exchanged?",
              path, result.rank, rank, rank == 1 ? "labels" : "images x rows x columns");
    *idx = result;
    result.data = NULL;
done:
    free(bytes);
    free(result.data);
    return status;
}

static int read_pair(const char *images_path, const char *labels_path, struct part *part) {
    int status = RETORT_OK;
    struct idx images = {0}, labels = {0};
    TRY(read_rank(images_path, 3, &images));
    TRY(read_rank(labels_path, 1, &labels));
    if (images.size[0] != labels.size[0])
        RAISE(RETORT_EFORMAT, "%s has %lld images but %s has %lld labels: they are not of one set", images_path,
              (long long)images.size[0], labels_path, (long long)labels.size[0]);
    for (int i = 0; i < 3; i++)
        if (images.size[i] < 1 || images.size[i] > INT32_MAX)
            RAISE(RETORT_EFORMAT, "%s: images x rows x columns is %lld x %lld x %lld; expected at least 1 of each",
                  images_path, (long long)images.size[0], (long long)images.size[1], (long long)images.size[2]);
    part->labels = malloc((size_t)labels.size[0] * sizeof *part->labels);
    if (!part->labels) RAISE(RETORT_ENOMEM, "out of memory reading %s", labels_path);
    for (int64_t i = 0; i < labels.size[0]; i++) part->labels[i] = labels.data[i];
    part->count = images.size[0];
    part->channels = 1;
    part->height = (int)images.size[1];
    part->width = (int)images.size[2];
    part->bytes = images.data;
    images.data = NULL;
done:
    free(images.data);
    free(labels.data);
    return status;
}

/* --- names: train-images-idx3-ubyte, train-images.idx3-ubyte, t10k-, test-, own-; each plain or .gz --- */

/* The files of a folder, with what their names come to when the ways to write them are put aside: small letters, dashes
 * for dots and underscores, no .gz. */
struct file {
    char name[256], plain[256];
};
struct files {
    struct file *items;
    size_t count, capacity;
};

static void put_plainly(const char *name, char plain[256]) {
    snprintf(plain, 256, "%s", name);
    size_t length = strlen(plain);
    if (length > 3 && strcasecmp(plain + length - 3, ".gz") == 0) plain[length - 3] = '\0';
    for (char *c = plain; *c; c++) *c = *c == '.' || *c == '_' ? '-' : (char)tolower((unsigned char)*c);
}

/* An unpacked file goes before the packed one beside it, and so do names with dashes: they sort first. */
static int compare_files(const void *a, const void *b) {
    const struct file *x = a, *y = b;
    int plain = strcmp(x->plain, y->plain);
    int packed = (int)strlen(x->name) - (int)strlen(y->name);
    return plain ? plain : packed ? packed : strcmp(x->name, y->name);
}

static int list_files(const char *folder, struct files *files) {
    int status = RETORT_OK;
    DIR *entries = opendir(folder);
    if (!entries) RAISE(RETORT_EIO, "cannot read the folder %s: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(entries));) {
        struct file file;
        snprintf(file.name, sizeof file.name, "%s", entry->d_name);
        put_plainly(file.name, file.plain);
        if (!strstr(file.plain, "ubyte") || file.name[0] == '.') continue;
        if (!array_push(files, file)) RAISE(RETORT_ENOMEM, "out of memory reading %s", folder);
    }
    if (files->count) qsort(files->items, files->count, sizeof *files->items, compare_files);
done:
    if (entries) closedir(entries);
    return status;
}

/* Whether a word stands in a name and is not the end of another word. */
static bool has_word(const char *plain, const char *word) {
    const char *at = strstr(plain, word);
    return at && (at == plain || !isalpha((unsigned char)at[-1]));
}

enum role { ROLE_TRAIN, ROLE_TEST, ROLE_OTHER, ROLES };

static enum role role_of(const char *plain) {
    return has_word(plain, "train")                             ? ROLE_TRAIN
           : has_word(plain, "t10k") || has_word(plain, "test") ? ROLE_TEST
                                                                : ROLE_OTHER;
}

/* The images of a role, each under one of its names. */
static int find_images(const struct files *files, enum role role, const struct file **found) {
    int count = 0;
    for (size_t i = 0; i < files->count; i++) {
        const struct file *file = &files->items[i];
        if (!strstr(file->plain, "images") || !strstr(file->plain, "idx3") || role_of(file->plain) != role) continue;
        if (i > 0 && strcmp(file->plain, files->items[i - 1].plain) == 0) continue;
        if (count++ == 0) *found = file;
    }
    return count;
}

/* Replaces the only part of a name that tells images from labels. */
static void replace(char text[256], const char *word, const char *by) {
    char *at = strstr(text, word), rest[256];
    if (!at) return;
    snprintf(rest, sizeof rest, "%s", at + strlen(word));
    snprintf(at, 256 - (size_t)(at - text), "%s%s", by, rest);
}

static int load_images(const char *folder, const struct files *files, const struct file *images, const char *what,
                       struct source *source, struct part *part) {
    int status = RETORT_OK;
    char images_path[FILE_PATH_MAX], labels_path[FILE_PATH_MAX], wanted[256], partner[256];
    snprintf(wanted, sizeof wanted, "%s", images->name);
    replace(wanted, "images", "labels");
    replace(wanted, "idx3", "idx1");
    snprintf(partner, sizeof partner, "%s", images->plain);
    replace(partner, "images", "labels");
    replace(partner, "idx3", "idx1");
    TRY(path_join(folder, images->name, images_path));
    const struct file *labels = NULL;
    for (size_t i = 0; i < files->count && !labels; i++)
        if (strcmp(files->items[i].plain, partner) == 0) labels = &files->items[i];
    if (!labels) RAISE(RETORT_EIO, "%s is there, but its labels are not; expected %s/%s", images_path, folder, wanted);
    TRY(path_join(folder, labels->name, labels_path));
    TRY(read_pair(images_path, labels_path, part));
    text_printf(&source->story, "%s: %s: %lld images, %d x %d\n%s: %s: their labels\n", what, images_path,
                (long long)part->count, part->height, part->width, what, labels_path);
done:
    return status;
}

/* Train goes by its name or is the one pair that is neither train nor test. */
static int load_parts(const char *folder, struct source *source) {
    int status = RETORT_OK;
    struct files files = {0};
    const struct file *found[ROLES] = {0};
    int count[ROLES];
    TRY(list_files(folder, &files));
    for (int role = 0; role < ROLES; role++) count[role] = find_images(&files, (enum role)role, &found[role]);
    int train = count[ROLE_TRAIN] ? ROLE_TRAIN : ROLE_OTHER;
    if (count[train] != 1)
        RAISE(RETORT_EIO,
              "%s holds %d files of training images, *images*idx3-ubyte(.gz); expected one set a folder: "
              "train-images-idx3-ubyte, train-labels-idx1-ubyte and the same with t10k or test, or one pair of another "
              "name",
              folder, count[train]);
    if (count[ROLE_TEST] > 1)
        RAISE(RETORT_EIO, "%s holds %d files of test images, %s the first; expected one set a folder", folder,
              count[ROLE_TEST], found[ROLE_TEST]->name);
    TRY(load_images(folder, &files, found[train], "train", source, &source->train));
    if (count[ROLE_TEST]) TRY(load_images(folder, &files, found[ROLE_TEST], "test", source, &source->test));
done:
    array_finish(&files);
    return status;
}

static int part_max(const struct part *part) {
    int max = 0;
    size_t size = (size_t)part->count * (size_t)part->height * (size_t)part->width;
    for (size_t i = 0; i < size; i++)
        if (part->bytes[i] > max) max = part->bytes[i];
    return max;
}

int idx_load(const struct data_spec *spec, struct source *source) {
    int status = RETORT_OK;
    if (!folder_exists(spec->path))
        RAISE(RETORT_EIO,
              "%s is not a folder; kind idx expects the folder that holds train-images-idx3-ubyte.gz and "
              "the other three files",
              spec->path);
    TRY(load_parts(spec->path, source));
    for (int64_t i = 0; i < source->train.count; i++)
        if (source->train.labels[i] >= source->classes) source->classes = source->train.labels[i] + 1;
    for (int64_t i = 0; i < source->test.count; i++)
        if (source->test.labels[i] >= source->classes)
            RAISE(RETORT_EFORMAT,
                  "%s: test label %lld is %d, but the training labels end at %d: they are not of one set", spec->path,
                  (long long)i, source->test.labels[i], source->classes - 1);
    int max = part_max(&source->train), test_max = part_max(&source->test);
    if (test_max > max) max = test_max;
    source->white = 255;
    if (max > 0 && max <= 16) {
        source->white = 16;
        text_printf(&source->story, "pixels: no value is above %d: taken as 0 to 16, not 0 to 255\n", max);
    }
done:
    return status;
}
