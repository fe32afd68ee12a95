/* NumPy's array files: NPY versions 1 to 3 read, version 1 written, and NPZ (a zip of them) by libzip.
 * Format: numpy.lib.format. Left out, with a word each: Fortran order, big-endian numbers, pickled objects, structures.
 */
#include "data/readers.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "NPY data is copied as it lies: little-endian hosts only");

#define MAGIC "\x93NUMPY"
enum { MAGIC_SIZE = 6, RANK_MAX = 8, HEADER_MAX = 1 << 16 };

static const struct {
    const char *descr;
    size_t size;
} types[] = {
    [NPY_FLOAT32] = {"<f4", 4}, [NPY_FLOAT64] = {"<f8", 8}, [NPY_INT32] = {"<i4", 4},
    [NPY_INT64] = {"<i8", 8},   [NPY_UINT8] = {"|u1", 1},
};
enum { TYPE_COUNT = sizeof types / sizeof *types };

int64_t npy_count(const struct npy *npy) {
    int64_t count = 1;
    for (int i = 0; i < npy->rank; i++) count *= npy->size[i];
    return count;
}

void npy_finish(struct npy *npy) {
    if (!npy) return;
    free(npy->data);
    *npy = (struct npy){0};
}

/* --- the header: a Python dictionary of three known keys --- */

struct header {
    char descr[64];
    bool fortran_order;
    int rank;
    int64_t size[RANK_MAX];
};

struct cursor {
    const char *name, *at, *end;
};

static void skip_space(struct cursor *cursor) {
    while (cursor->at < cursor->end && strchr(" \t\r\n", *cursor->at) && *cursor->at) cursor->at++;
}

static bool accept(struct cursor *cursor, const char *word) {
    skip_space(cursor);
    size_t length = strlen(word);
    if ((size_t)(cursor->end - cursor->at) < length || memcmp(cursor->at, word, length) != 0) return false;
    cursor->at += length;
    return true;
}

static int malformed(const struct cursor *cursor, const char *expected) {
    return error_set(RETORT_EFORMAT, "%s: malformed NPY header: expected %s at '%.*s'; write it again with numpy.save",
                     cursor->name, expected, (int)(cursor->end - cursor->at < 24 ? cursor->end - cursor->at : 24),
                     cursor->at);
}

static int parse_string(struct cursor *cursor, char *out, size_t capacity) {
    skip_space(cursor);
    if (cursor->at == cursor->end || (*cursor->at != '\'' && *cursor->at != '"')) return malformed(cursor, "a string");
    char quote = *cursor->at++;
    const char *close = memchr(cursor->at, quote, (size_t)(cursor->end - cursor->at));
    if (!close || (size_t)(close - cursor->at) >= capacity) return malformed(cursor, "a short string");
    size_t length = (size_t)(close - cursor->at);
    memcpy(out, cursor->at, length);
    out[length] = '\0';
    cursor->at = close + 1;
    return RETORT_OK;
}

static int parse_shape(struct cursor *cursor, struct header *header) {
    if (!accept(cursor, "(")) return malformed(cursor, "a tuple of sizes");
    while (!accept(cursor, ")")) {
        if (header->rank == RANK_MAX) return malformed(cursor, "at most 8 dimensions");
        skip_space(cursor);
        if (cursor->at == cursor->end || *cursor->at < '0' || *cursor->at > '9') return malformed(cursor, "a size");
        int64_t size = 0;
        for (; cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9'; cursor->at++)
            if (__builtin_mul_overflow(size, 10, &size) || __builtin_add_overflow(size, *cursor->at - '0', &size))
                return malformed(cursor, "a size below 2^63");
        header->size[header->rank++] = size;
        if (!accept(cursor, ",")) {
            if (!accept(cursor, ")")) return malformed(cursor, "',' or ')'");
            break;
        }
    }
    return RETORT_OK;
}

static int parse_header(struct cursor *cursor, struct header *header) {
    int status = RETORT_OK;
    bool descr = false, order = false, shape = false;
    if (!accept(cursor, "{")) return malformed(cursor, "a dictionary");
    while (!accept(cursor, "}")) {
        char key[32];
        TRY(parse_string(cursor, key, sizeof key));
        if (!accept(cursor, ":")) return malformed(cursor, "':'");
        if (strcmp(key, "descr") == 0 && !descr) {
            descr = true;
            if (accept(cursor, "["))
                RAISE(RETORT_EUNSUPPORTED,
                      "%s: its elements are structures; expected plain numbers: save each field as its own array",
                      cursor->name);
            TRY(parse_string(cursor, header->descr, sizeof header->descr));
        } else if (strcmp(key, "fortran_order") == 0 && !order) {
            order = true;
            header->fortran_order = accept(cursor, "True");
            if (!header->fortran_order && !accept(cursor, "False")) return malformed(cursor, "True or False");
        } else if (strcmp(key, "shape") == 0 && !shape) {
            shape = true;
            TRY(parse_shape(cursor, header));
        } else
            return malformed(cursor, "each of descr, fortran_order and shape once");
        if (!accept(cursor, ",")) {
            if (!accept(cursor, "}")) return malformed(cursor, "',' or '}'");
            break;
        }
    }
    skip_space(cursor);
    if (cursor->at != cursor->end) return malformed(cursor, "the end of the header");
    if (!descr || !order || !shape) return malformed(cursor, "each of descr, fortran_order and shape once");
done:
    return status;
}

static int find_type(const char *name, const char *descr, enum npy_type *type) {
    for (int i = 0; i < TYPE_COUNT; i++)
        if (strcmp(descr, types[i].descr) == 0) {
            *type = (enum npy_type)i;
            return RETORT_OK;
        }
    if (descr[0] == '>')
        return error_set(RETORT_EUNSUPPORTED,
                         "%s: big-endian numbers ('%s'); save it as little-endian, array.astype('<%s')", name, descr,
                         descr + 1);
    if (strchr(descr, 'O'))
        return error_set(RETORT_EUNSUPPORTED,
                         "%s: pickled Python objects ('%s'), which are never read; save an array of plain numbers",
                         name, descr);
    return error_set(RETORT_EUNSUPPORTED,
                     "%s: numbers of type '%s'; expected float32, float64, int32, int64 or uint8: convert with "
                     "array.astype",
                     name, descr);
}

int npy_decode(const char *name, unsigned char **bytes, size_t size, struct npy *npy) {
    int status = RETORT_OK;
    unsigned char *data = *bytes;
    *bytes = NULL;
    if (size < MAGIC_SIZE + 4 || memcmp(data, MAGIC, MAGIC_SIZE) != 0)
        RAISE(RETORT_EFORMAT,
              "%s is not an NPY file: it does not start with \\x93NUMPY and a version; write it with "
              "numpy.save",
              name);
    int version = data[MAGIC_SIZE];
    if (version < 1 || version > 3) RAISE(RETORT_EUNSUPPORTED, "%s: NPY version %d; expected 1, 2 or 3", name, version);
    size_t begin = version == 1 ? 10 : 12, length = (size_t)data[8] | (size_t)data[9] << 8;
    if (version > 1) {
        if (size < begin) RAISE(RETORT_EFORMAT, "%s is cut off inside its header: fetch or write it again", name);
        length |= (size_t)data[10] << 16 | (size_t)data[11] << 24;
    }
    if (length > size - begin || length > HEADER_MAX)
        RAISE(RETORT_EFORMAT, "%s: a header of %zu bytes in a file of %zu: it is cut off or damaged: write it again",
              name, length, size);
    struct cursor cursor = {name, (const char *)data + begin, (const char *)data + begin + length};
    struct header header = {0};
    TRY(parse_header(&cursor, &header));
    struct npy result = {.rank = header.rank};
    TRY(find_type(name, header.descr, &result.type));
    memcpy(result.size, header.size, sizeof result.size);
    if (header.fortran_order && header.rank > 1)
        RAISE(RETORT_EUNSUPPORTED, "%s is in Fortran order; save numpy.ascontiguousarray(array)", name);
    int64_t count;
    size_t element = types[result.type].size, stored = size - begin - length;
    if (!claim_count(result.rank, result.size, element, &count) || (uint64_t)count * element != stored) {
        struct text shape;
        text_init(&shape);
        for (int i = 0; i < result.rank; i++) text_printf(&shape, i ? ", %lld" : "%lld", (long long)result.size[i]);
        status = error_set(RETORT_EFORMAT,
                           "%s: shape (%s) of '%s' does not fit the %zu bytes of data that follow; the file is cut off "
                           "or has bytes after its end: write it again",
                           name, text_get(&shape), header.descr, stored);
        text_finish(&shape);
        goto done;
    }
    memmove(data, data + begin + length, stored);
    result.data = data;
    data = NULL;
    *npy = result;
done:
    free(data);
    return status;
}

int npy_read(const char *path, struct npy *npy) {
    int status = RETORT_OK;
    unsigned char *bytes = NULL;
    size_t size;
    TRY(file_read(path, 0, &bytes, &size));
    TRY(npy_decode(path, &bytes, size, npy));
done:
    free(bytes);
    return status;
}

/* --- NPZ --- */

static int npz_open(const char *path, zip_t **archive) {
    int code;
    *archive = zip_open(path, ZIP_RDONLY, &code);
    if (*archive) return RETORT_OK;
    zip_error_t error;
    zip_error_init_with_code(&error, code);
    int status =
        error_set(code == ZIP_ER_OPEN || code == ZIP_ER_READ || code == ZIP_ER_NOENT ? RETORT_EIO : RETORT_EFORMAT,
                  "cannot read %s as an .npz: %s; write it with numpy.savez", path, zip_error_strerror(&error));
    zip_error_fini(&error);
    return status;
}

static void list_members(zip_t *archive, struct text *names) {
    zip_int64_t count = zip_get_num_entries(archive, 0);
    for (zip_int64_t i = 0; i < count && i < 16; i++) {
        const char *name = zip_get_name(archive, (zip_uint64_t)i, 0);
        text_printf(names, i ? ", %s" : "%s", name ? name : "?");
    }
    if (count > 16) text_append(names, ", ...");
}

static int member_read(const char *path, zip_t *archive, const char *member, struct npy *npy) {
    int status = RETORT_OK;
    struct text name, found;
    text_init(&name);
    text_init(&found);
    zip_file_t *file = NULL;
    unsigned char *bytes = NULL;
    text_printf(&name, "%s.npy", member);
    zip_stat_t about;
    if (zip_stat(archive, text_get(&name), ZIP_FL_ENC_RAW, &about) < 0) {
        list_members(archive, &found);
        RAISE(RETORT_EFORMAT, "%s has no array '%s'; it holds: %s", path, member, text_get(&found));
    }
    text_finish(&name);
    text_printf(&name, "%s[%s]", path, member);
    if (about.size > INT64_MAX / 2) about.size = INT64_MAX / 2;
    TRY(claim_check(text_get(&name), (int64_t)about.size, (size_t)about.comp_size));
    bytes = malloc(about.size + 1);
    if (!bytes) RAISE(RETORT_ENOMEM, "out of memory reading %s", text_get(&name));
    file = zip_fopen_index(archive, about.index, 0);
    if (!file) RAISE(RETORT_EFORMAT, "cannot read %s: %s", text_get(&name), zip_strerror(archive));
    zip_uint64_t got = 0;
    zip_int64_t more = 1;
    while (got <= about.size && more > 0) {
        /* One byte more than promised: libzip checks a member's sum where its end is seen. */
        more = zip_fread(file, bytes + got, about.size + 1 - got);
        if (more > 0) got += (zip_uint64_t)more;
    }
    if (more < 0 || got != about.size)
        RAISE(RETORT_EFORMAT, "%s is damaged (%s): write it again", text_get(&name),
              more < 0 ? zip_file_strerror(file) : "its size is not the one promised");
    TRY(npy_decode(text_get(&name), &bytes, about.size, npy));
done:
    if (file) zip_fclose(file);
    free(bytes);
    text_finish(&name);
    text_finish(&found);
    return status;
}

int npy_read_member(const char *npz_path, const char *member, struct npy *npy) {
    int status = RETORT_OK;
    zip_t *archive = NULL;
    TRY(npz_open(npz_path, &archive));
    TRY(member_read(npz_path, archive, member, npy));
done:
    if (archive) zip_discard(archive);
    return status;
}

int npz_has(const char *path, const char *member, bool *has) {
    int status = RETORT_OK;
    zip_t *archive = NULL;
    struct text name;
    text_init(&name);
    TRY(npz_open(path, &archive));
    text_printf(&name, "%s.npy", member);
    *has = zip_name_locate(archive, text_get(&name), ZIP_FL_ENC_RAW) >= 0;
done:
    if (archive) zip_discard(archive);
    text_finish(&name);
    return status;
}

/* --- writing --- */

/* The magic, the version and the dictionary, padded so that the data starts at a multiple of 64 bytes. */
static int header_write(const char *name, enum npy_type type, int rank, const int64_t *size, struct text *header,
                        size_t *data_size) {
    int64_t count;
    if (rank < 0 || rank > RANK_MAX || !claim_count(rank, size, types[type].size, &count))
        return error_set(RETORT_EINVAL, "cannot write %s: an array of rank %d whose sizes are not a storable shape",
                         name, rank);
    *data_size = (size_t)count * types[type].size;
    struct text words;
    text_init(&words);
    text_printf(&words, "{'descr': '%s', 'fortran_order': False, 'shape': (", types[type].descr);
    for (int i = 0; i < rank; i++)
        text_printf(&words, i + 1 < rank || rank == 1 ? "%lld, " : "%lld", (long long)size[i]);
    text_append(&words, "), }");
    size_t total = (10 + words.length + 1 + 63) / 64 * 64, length = total - 10;
    /* The bytes of the prefix may be zero, which text_printf cannot append: spaces are appended and overwritten. */
    text_printf(header, "%10s%s%*s\n", "", text_get(&words), (int)(length - words.length - 1), "");
    bool failed = words.failed || header->failed;
    text_finish(&words);
    if (failed) return error_set(RETORT_ENOMEM, "out of memory writing %s", name);
    memcpy(header->data, MAGIC "\x01\x00", 8);
    header->data[8] = (char)(length & 255);
    header->data[9] = (char)(length >> 8);
    return RETORT_OK;
}

int npy_write(const char *path, enum npy_type type, int rank, const int64_t *size, const void *data) {
    int status = RETORT_OK;
    char temporary[FILE_PATH_MAX] = "";
    FILE *stream = NULL;
    size_t bytes;
    struct text header;
    text_init(&header);
    TRY(header_write(path, type, rank, size, &header, &bytes));
    TRY(file_write_begin(path, temporary));
    stream = fopen(temporary, "wb");
    if (!stream) RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    if (fwrite(header.data, 1, header.length, stream) != header.length
        || (bytes && fwrite(data, 1, bytes, stream) != bytes))
        RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    int closed = fclose(stream);
    stream = NULL;
    if (closed != 0) RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    TRY(file_write_commit(path, temporary));
done:
    if (stream) fclose(stream);
    if (status < 0 && temporary[0]) unlink(temporary);
    text_finish(&header);
    return status;
}

int npy_hash(struct hash *hash, enum npy_type type, int rank, const int64_t *size, const void *data) {
    int status = RETORT_OK;
    size_t bytes;
    struct text header;
    text_init(&header);
    TRY(header_write("an array", type, rank, size, &header, &bytes));
    hash_update(hash, header.data, header.length);
    hash_update(hash, data, bytes);
done:
    text_finish(&header);
    return status;
}

int npz_write(const char *path, const struct npy_member *members, size_t count) {
    int status = RETORT_OK, code;
    char temporary[FILE_PATH_MAX] = "";
    zip_t *archive = NULL;
    struct text *headers = calloc(count ? count : 1, sizeof *headers), name;
    text_init(&name);
    if (!headers) RAISE(RETORT_ENOMEM, "out of memory writing %s", path);
    TRY(file_write_begin(path, temporary));
    archive = zip_open(temporary, ZIP_CREATE | ZIP_TRUNCATE, &code);
    if (!archive) RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    for (size_t i = 0; i < count; i++) {
        size_t bytes;
        TRY(header_write(members[i].name, members[i].type, members[i].rank, members[i].size, &headers[i], &bytes));
        zip_buffer_fragment_t fragments[2] = {{(zip_uint8_t *)headers[i].data, headers[i].length},
                                              {(zip_uint8_t *)(uintptr_t)members[i].data, bytes}};
        zip_source_t *source = zip_source_buffer_fragment(archive, fragments, bytes ? 2 : 1, 0);
        text_finish(&name);
        text_printf(&name, "%s.npy", members[i].name);
        zip_int64_t index = source ? zip_file_add(archive, text_get(&name), source, ZIP_FL_ENC_UTF_8) : -1;
        if (index < 0 && source) zip_source_free(source);
        /* Not compressed, and with the same date in every member, so that equal arrays make equal files. */
        if (index < 0 || zip_set_file_compression(archive, (zip_uint64_t)index, ZIP_CM_STORE, 0) < 0
            || zip_file_set_dostime(archive, (zip_uint64_t)index, 0, 33, 0) < 0)
            RAISE(RETORT_EIO, "cannot write %s: %s: %s", path, members[i].name, zip_strerror(archive));
    }
    if (zip_close(archive) < 0) RAISE(RETORT_EIO, "cannot write %s: %s", path, zip_strerror(archive));
    archive = NULL;
    TRY(file_write_commit(path, temporary));
done:
    if (archive) zip_discard(archive);
    if (status < 0 && temporary[0]) unlink(temporary);
    for (size_t i = 0; headers && i < count; i++) text_finish(&headers[i]);
    free(headers);
    text_finish(&name);
    return status;
}

/* --- conversions --- */

static double element_double(const struct npy *npy, int64_t i) {
    switch (npy->type) {
    case NPY_FLOAT32:
        return ((const float *)npy->data)[i];
    case NPY_FLOAT64:
        return ((const double *)npy->data)[i];
    case NPY_INT32:
        return ((const int32_t *)npy->data)[i];
    case NPY_INT64:
        return (double)((const int64_t *)npy->data)[i];
    case NPY_UINT8:
        return ((const uint8_t *)npy->data)[i];
    }
    return NAN;
}

int npy_to_float(const struct npy *npy, const char *name, float **values) {
    int status = RETORT_OK;
    int64_t count = npy_count(npy);
    float *out = malloc(((size_t)count + 1) * sizeof *out);
    if (!out) RAISE(RETORT_ENOMEM, "out of memory converting %s", name);
    for (int64_t i = 0; i < count; i++) {
        out[i] = (float)element_double(npy, i);
        if (!isfinite(out[i]))
            RAISE(RETORT_ENUMERIC, "%s: element %lld is %g, not a finite float32; remove or replace such values", name,
                  (long long)i, element_double(npy, i));
    }
    *values = out;
    out = NULL;
done:
    free(out);
    return status;
}

int npy_to_int(const struct npy *npy, const char *name, int32_t **values) {
    int status = RETORT_OK;
    int64_t count = npy_count(npy);
    int32_t *out = malloc(((size_t)count + 1) * sizeof *out);
    if (!out) RAISE(RETORT_ENOMEM, "out of memory converting %s", name);
    for (int64_t i = 0; i < count; i++) {
        /* Doubles hold every int32; a larger int64 may round, but not into the range. */
        double value = element_double(npy, i);
        if (!(value >= INT32_MIN && value <= INT32_MAX && value == floor(value)))
            RAISE(RETORT_EINVAL, "%s: element %lld is %g; expected whole numbers that fit 32 bits", name, (long long)i,
                  value);
        out[i] = (int32_t)value;
    }
    *values = out;
    out = NULL;
done:
    free(out);
    return status;
}

/* --- the reader --- */

/* [N,H,W] to [N,1,H,W], and [N,H,W,C] to [N,C,H,W] where C is 1 or 3 and [N,C,H,W] is not meant: pictures come so from
 * most programs. */
static int put_channels_first(const char *name, struct npy *images, struct source *source) {
    int status = RETORT_OK;
    unsigned char *turned = NULL;
    int64_t *size = images->size;
    size_t element = types[images->type].size;
    if (images->rank == 3) {
        size[3] = size[2];
        size[2] = size[1];
        size[1] = 1;
        images->rank = 4;
    }
    if (images->rank != 4 || size[1] == 1 || size[1] == 3 || (size[3] != 1 && size[3] != 3)) goto done;
    int64_t count = size[0], channels = size[3], plane = size[1] * size[2];
    turned = malloc((size_t)npy_count(images) * element + 1);
    if (!turned) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    for (int64_t i = 0; i < count; i++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t p = 0; p < plane; p++)
                memcpy(turned + (size_t)((i * channels + c) * plane + p) * element,
                       (const unsigned char *)images->data + (size_t)((i * plane + p) * channels + c) * element,
                       element);
    text_printf(&source->story, "%s: taken as [N,H,W,C], with %lld channel%s last\n", name, (long long)channels,
                channels == 1 ? "" : "s");
    free(images->data);
    images->data = turned;
    turned = NULL;
    size[3] = size[2];
    size[2] = size[1];
    size[1] = channels;
done:
    free(turned);
    return status;
}

static void tell_part(const char *images_name, const char *labels_name, const struct part *part,
                      struct source *source) {
    text_printf(&source->story, "%s: %s: %lld images, %d x %d x %d\n", part == &source->test ? "test" : "train",
                images_name, (long long)part->count, part->channels, part->height, part->width);
    text_printf(&source->story, "%s: %s: their labels\n", part == &source->test ? "test" : "train", labels_name);
    if (!part->values) return;
    size_t count = (size_t)part->count * (size_t)part->channels * (size_t)part->height * (size_t)part->width;
    float least = part->values[0], most = part->values[0];
    for (size_t i = 0; i < count; i++) {
        if (part->values[i] < least) least = part->values[i];
        if (part->values[i] > most) most = part->values[i];
    }
    if (least < 0 || most > 1)
        log_warning("%s: values from %g to %g, where pixels are expected in [0,1] (or uint8); pictures of them will "
                    "be cut off there",
                    images_name, (double)least, (double)most);
}

static int load_part(const char *images_name, struct npy *images, const char *labels_name, const struct npy *labels,
                     struct source *source, struct part *part) {
    int status = RETORT_OK;
    TRY(put_channels_first(images_name, images, source));
    if (images->rank != 4)
        RAISE(RETORT_EINVAL, "%s has rank %d; expected images [N,C,H,W], [N,H,W,C] or [N,H,W]: reshape it", images_name,
              images->rank);
    for (int i = 0; i < 4; i++)
        if (images->size[i] < 1 || images->size[i] > INT32_MAX)
            RAISE(RETORT_EINVAL, "%s: dimension %d of [N,C,H,W] is %lld; expected at least 1", images_name, i,
                  (long long)images->size[i]);
    if (labels->rank != 1)
        RAISE(RETORT_EINVAL, "%s has rank %d; expected labels [N], one class number per image", labels_name,
              labels->rank);
    if (labels->size[0] != images->size[0])
        RAISE(RETORT_EINVAL, "%s has %lld images but %s has %lld labels", images_name, (long long)images->size[0],
              labels_name, (long long)labels->size[0]);
    part->count = images->size[0];
    part->channels = (int)images->size[1];
    part->height = (int)images->size[2];
    part->width = (int)images->size[3];
    if (images->type == NPY_UINT8) {
        part->bytes = images->data;
        images->data = NULL;
    } else if (images->type == NPY_FLOAT32 || images->type == NPY_FLOAT64)
        TRY(npy_to_float(images, images_name, &part->values));
    else
        RAISE(RETORT_EINVAL, "%s holds integers; expected float pixels in [0,1] or uint8: convert with array.astype",
              images_name);
    TRY(npy_to_int(labels, labels_name, &part->labels));
    enum { CLASSES_MAX = 1 << 16 };
    for (int64_t i = 0; i < part->count; i++) {
        if (part->labels[i] < 0 || part->labels[i] >= CLASSES_MAX)
            RAISE(RETORT_EINVAL, "%s: label %lld is %d; expected class numbers from 0 to %d", labels_name, (long long)i,
                  part->labels[i], CLASSES_MAX - 1);
        if (part->labels[i] >= source->classes) {
            if (part == &source->test)
                RAISE(RETORT_EINVAL, "%s: label %lld is %d, but the training labels end at %d", labels_name,
                      (long long)i, part->labels[i], source->classes - 1);
            source->classes = part->labels[i] + 1;
        }
    }
    tell_part(images_name, labels_name, part, source);
done:
    return status;
}

static int load_members(const char *path, const char *images_member, const char *labels_member, struct source *source,
                        struct part *part) {
    int status = RETORT_OK;
    struct npy images = {0}, labels = {0};
    char images_name[FILE_PATH_MAX + 32], labels_name[FILE_PATH_MAX + 32];
    snprintf(images_name, sizeof images_name, "%s[%s]", path, images_member);
    snprintf(labels_name, sizeof labels_name, "%s[%s]", path, labels_member);
    TRY(npy_read_member(path, images_member, &images));
    TRY(npy_read_member(path, labels_member, &labels));
    TRY(load_part(images_name, &images, labels_name, &labels, source, part));
done:
    npy_finish(&images);
    npy_finish(&labels);
    return status;
}

int npy_load(const struct data_spec *spec, struct source *source) {
    int status = RETORT_OK;
    struct npy images = {0}, labels = {0};
    source->white = 255;
    if (spec->labels_path) {
        TRY(npy_read(spec->path, &images));
        TRY(npy_read(spec->labels_path, &labels));
        TRY(load_part(spec->path, &images, spec->labels_path, &labels, source, &source->train));
    } else {
        size_t length = strlen(spec->path);
        if (length > 4 && strcmp(spec->path + length - 4, ".npy") == 0)
            RAISE(RETORT_EINVAL,
                  "%s holds one array; name that of the labels by data.labels, or write both into one .npz",
                  spec->path);
        TRY(load_members(spec->path, "images", "labels", source, &source->train));
        bool tested;
        TRY(npz_has(spec->path, "test_images", &tested));
        if (tested) TRY(load_members(spec->path, "test_images", "test_labels", source, &source->test));
    }
done:
    npy_finish(&images);
    npy_finish(&labels);
    return status;
}
