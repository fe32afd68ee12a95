/* IDX, the format of MNIST and its relatives, plain or gzip: two zero bytes, the type, the rank, big-endian sizes,
 * data. Only unsigned bytes, which is what image sets use. */
#include "data/readers.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

/* The official names and the two variations met in the wild: a dot before idx, and unpacked. */
static int find_official(const char *folder, const char *prefix, const char *what, int rank, char *path, bool *found) {
    int status = RETORT_OK;
    for (int variant = 0; variant < 4; variant++) {
        char name[64];
        snprintf(name, sizeof name, "%s-%s%cidx%d-ubyte%s", prefix, what, variant & 2 ? '.' : '-', rank,
                 variant & 1 ? ".gz" : "");
        TRY(path_join(folder, name, path));
        *found = file_exists(path);
        if (*found) break;
    }
done:
    return status;
}

static int load_official(const char *folder, const char *prefix, struct part *part, bool *found) {
    int status = RETORT_OK;
    char images[FILE_PATH_MAX], labels[FILE_PATH_MAX];
    bool labelled;
    TRY(find_official(folder, prefix, "images", 3, images, found));
    if (!*found) goto done;
    TRY(find_official(folder, prefix, "labels", 1, labels, &labelled));
    if (!labelled)
        RAISE(RETORT_EIO, "%s is there, but its labels are not; expected %s/%s-labels-idx1-ubyte or the same with .gz",
              images, folder, prefix);
    TRY(read_pair(images, labels, part));
done:
    return status;
}

/* A folder without official names may hold one pair of another name, say digits-images-idx3-ubyte.gz. */
static int load_only_pair(const char *folder, struct part *part) {
    int status = RETORT_OK;
    char images[FILE_PATH_MAX], labels[FILE_PATH_MAX];
    char only[256] = "", partner[256];
    int count = 0;
    DIR *entries = opendir(folder);
    if (!entries) RAISE(RETORT_EIO, "cannot read the folder %s: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(entries));) {
        if (!strstr(entry->d_name, "images") || !strstr(entry->d_name, "idx3-ubyte")) continue;
        snprintf(only, sizeof only, "%s", entry->d_name);
        count++;
    }
    if (count != 1)
        RAISE(RETORT_EIO,
              "%s holds no train-images-idx3-ubyte(.gz) and %d files *images*idx3-ubyte*; expected the four official "
              "files, or one pair of images and labels",
              folder, count);
    const char *word = strstr(only, "images"), *kind = strstr(only, "idx3");
    if (kind < word) RAISE(RETORT_EIO, "%s/%s: expected a name like set-images-idx3-ubyte", folder, only);
    snprintf(partner, sizeof partner, "%.*slabels%.*sidx1%s", (int)(word - only), only, (int)(kind - word - 6),
             word + 6, kind + 4);
    TRY(path_join(folder, only, images));
    TRY(path_join(folder, partner, labels));
    if (!file_exists(labels)) RAISE(RETORT_EIO, "%s is there, but its labels %s are not", images, labels);
    TRY(read_pair(images, labels, part));
done:
    if (entries) closedir(entries);
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
    bool found, tested = false;
    if (!folder_exists(spec->path))
        RAISE(RETORT_EIO,
              "%s is not a folder; kind idx expects the folder that holds train-images-idx3-ubyte.gz and "
              "the other three files",
              spec->path);
    TRY(load_official(spec->path, "train", &source->train, &found));
    if (found)
        TRY(load_official(spec->path, "t10k", &source->test, &tested));
    else
        TRY(load_only_pair(spec->path, &source->train));
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
        log_info("%s: no value above %d, so pixels are taken as 0 to 16, not 0 to 255", spec->path, max);
    }
done:
    return status;
}
