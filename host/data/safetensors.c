/* safetensors: eight bytes that tell the length of a header, the header, which is a JSON object, and the arrays one
 * after another without gaps. Each key of the header is an array ({"dtype", "shape", "data_offsets": [begin, end]}),
 * but for `__metadata__`, an object of texts. Format: https://github.com/huggingface/safetensors. */
#include "data/readers.h"

#include "base/error.h"
#include "base/file.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PREFIX = 8, RANK_MAX = 8 };
#define HEADER_MAX (100u << 20) /* as the format's own library has it */
#define METADATA   "__metadata__"

static const struct {
    const char *word;
    size_t size;
} types[] = {
    [NPY_FLOAT32] = {"F32", 4}, [NPY_FLOAT64] = {"F64", 8}, [NPY_INT32] = {"I32", 4},
    [NPY_INT64] = {"I64", 8},   [NPY_UINT8] = {"U8", 1},
};
enum { TYPE_COUNT = sizeof types / sizeof *types };

/* --- reading --- */
struct tensors {
    const char *path;
    FILE *stream;
    json_t *header;
    uint64_t begin, size; /* of the arrays, in bytes */
};

static void tensors_close(struct tensors *tensors) {
    if (tensors->stream) fclose(tensors->stream);
    json_decref(tensors->header);
}

static int tensors_open(const char *path, struct tensors *tensors) {
    int status = RETORT_OK;
    unsigned char prefix[PREFIX];
    char *text = NULL;
    uint64_t length = 0;
    json_error_t error;
    *tensors = (struct tensors){.path = path, .stream = fopen(path, "rb")};
    if (!tensors->stream) RAISE(RETORT_EIO, "cannot read %s: %s", path, strerror(errno));
    off_t end = fseeko(tensors->stream, 0, SEEK_END) == 0 ? ftello(tensors->stream) : -1;
    if (end < 0 || fseeko(tensors->stream, 0, SEEK_SET) < 0)
        RAISE(RETORT_EIO, "cannot read %s: %s", path, strerror(errno));
    if (fread(prefix, 1, PREFIX, tensors->stream) != PREFIX)
        RAISE(RETORT_EFORMAT, "%s is not a safetensors file: it has fewer than eight bytes", path);
    for (int i = PREFIX - 1; i >= 0; i--) length = length << 8 | prefix[i];
    if (length > HEADER_MAX || length > (uint64_t)end - PREFIX)
        RAISE(RETORT_EFORMAT,
              "%s is not a safetensors file, or is cut off: its first eight bytes promise a header of %llu bytes, and "
              "%llu follow",
              path, (unsigned long long)length, (unsigned long long)end - PREFIX);
    text = malloc(length + 1);
    if (!text) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
    if (fread(text, 1, length, tensors->stream) != length)
        RAISE(RETORT_EIO, "cannot read %s: %s", path, strerror(errno));
    tensors->header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(tensors->header))
        RAISE(RETORT_EFORMAT, "%s: its header is no JSON object (%s): it is damaged, or no safetensors file", path,
              tensors->header ? "another value" : error.text);
    tensors->begin = PREFIX + length;
    tensors->size = (uint64_t)end - tensors->begin;
done:
    free(text);
    return status;
}

/* What the header says of an array, checked against the file. */
static int find_array(const struct tensors *tensors, const char *member, struct npy *npy, uint64_t *begin,
                      uint64_t *bytes) {
    int status = RETORT_OK;
    const char *path = tensors->path, *word;
    json_int_t from, to;
    json_t *shape, *entry = json_object_get(tensors->header, member);
    if (!entry || strcmp(member, METADATA) == 0) RAISE(RETORT_EFORMAT, "%s has no array '%s'", path, member);
    if (json_unpack(entry, "{s:s, s:o, s:[I,I!]}", "dtype", &word, "shape", &shape, "data_offsets", &from, &to) < 0
        || !json_is_array(shape) || json_array_size(shape) > RANK_MAX)
        RAISE(RETORT_EFORMAT, "%s[%s]: expected dtype, a shape of at most %d sizes, and data_offsets", path, member,
              RANK_MAX);
    int type = 0;
    while (type < TYPE_COUNT && strcmp(types[type].word, word) != 0) type++;
    if (type == TYPE_COUNT)
        RAISE(RETORT_EUNSUPPORTED, "%s[%s]: numbers of type '%.20s'; expected F32, F64, I32, I64 or U8", path, member,
              word);
    npy->type = (enum npy_type)type;
    npy->rank = (int)json_array_size(shape);
    for (int i = 0; i < npy->rank; i++) {
        json_t *size = json_array_get(shape, (size_t)i);
        npy->size[i] = json_is_integer(size) ? json_integer_value(size) : -1;
    }
    int64_t count;
    if (!claim_count(npy->rank, npy->size, types[type].size, &count) || from < 0 || to < from
        || (uint64_t)to > tensors->size || (uint64_t)count * types[type].size != (uint64_t)(to - from))
        RAISE(RETORT_EFORMAT,
              "%s[%s]: its shape, its place and the size of the file do not go together: the file is cut off or "
              "damaged; fetch or write it again",
              path, member);
    *begin = tensors->begin + (uint64_t)from;
    *bytes = (uint64_t)(to - from);
done:
    return status;
}

int safetensors_read_member(const char *path, const char *member, struct npy *npy) {
    int status = RETORT_OK;
    struct tensors tensors;
    struct npy result = {0};
    uint64_t begin = 0, bytes = 0;
    TRY(tensors_open(path, &tensors));
    TRY(find_array(&tensors, member, &result, &begin, &bytes));
    result.data = malloc(bytes + 1);
    if (!result.data) RAISE(RETORT_ENOMEM, "out of memory reading %s[%s]", path, member);
    if (fseeko(tensors.stream, (off_t)begin, SEEK_SET) < 0 || fread(result.data, 1, bytes, tensors.stream) != bytes)
        RAISE(RETORT_EIO, "cannot read %s[%s]: %s", path, member, strerror(errno));
    *npy = result;
    result.data = NULL;
done:
    tensors_close(&tensors);
    free(result.data);
    return status;
}

int safetensors_read_words(const char *path, const char *key, char **text) {
    int status = RETORT_OK;
    struct tensors tensors;
    char *copy = NULL;
    TRY(tensors_open(path, &tensors));
    const char *words = json_string_value(json_object_get(json_object_get(tensors.header, METADATA), key));
    if (words && !(copy = strdup(words))) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
    *text = copy;
done:
    tensors_close(&tensors);
    return status;
}

/* --- writing --- */
/* The members in the order they are written in: wide numbers first, so that all lie at multiples of their size. */
static void sort_members(const struct npy_member *members, size_t count, const struct npy_member **sorted) {
    size_t placed = 0;
    for (size_t size = 8; size > 0; size /= 2)
        for (size_t i = 0; i < count; i++)
            if (types[members[i].type].size == size) sorted[placed++] = &members[i];
}

/* Eight bytes and the header, which ends in spaces so that the arrays begin at a multiple of eight. */
static int make_header(const char *path, const struct npy_member *const *members, size_t count,
                       const char *const *words, char **bytes, size_t *size) {
    int status = RETORT_OK;
    json_t *header = json_object(), *metadata = json_object();
    char *text = NULL, *whole = NULL;
    int64_t at = 0, elements;
    for (; *words; words += 2) json_object_set_new(metadata, words[0], json_string(words[1]));
    json_object_set(header, METADATA, metadata);
    for (size_t i = 0; i < count; i++) {
        const struct npy_member *member = members[i];
        json_t *shape = json_array();
        if (!claim_count(member->rank, member->size, types[member->type].size, &elements))
            RAISE(RETORT_EINVAL, "cannot write %s: %s is no array that can be stored", path, member->name);
        for (int d = 0; d < member->rank; d++) json_array_append_new(shape, json_integer(member->size[d]));
        int64_t end = at + elements * (int64_t)types[member->type].size;
        json_object_set_new(header, member->name,
                            json_pack("{s:s, s:o, s:[I,I]}", "dtype", types[member->type].word, "shape", shape,
                                      "data_offsets", (json_int_t)at, (json_int_t)end));
        at = end;
    }
    text = json_dumps(header, JSON_COMPACT);
    if (!text || json_object_size(header) != count + 1) RAISE(RETORT_ENOMEM, "out of memory writing %s", path);
    size_t length = strlen(text), padded = (length + 7) / 8 * 8;
    whole = malloc(PREFIX + padded);
    if (!whole) RAISE(RETORT_ENOMEM, "out of memory writing %s", path);
    for (int i = 0; i < PREFIX; i++) whole[i] = (char)((uint64_t)padded >> 8 * i & 255);
    memset(whole + PREFIX, ' ', padded);
    memcpy(whole + PREFIX, text, length);
    *bytes = whole;
    *size = PREFIX + padded;
done:
    free(text);
    json_decref(metadata);
    json_decref(header);
    return status;
}

int safetensors_write(const char *path, const struct npy_member *members, size_t count, const char *const *words) {
    int status = RETORT_OK;
    char *header = NULL;
    size_t size = 0;
    const struct npy_member **sorted = calloc(count + 1, sizeof *sorted);
    struct file_piece *pieces = calloc(count + 1, sizeof *pieces);
    if (!sorted || !pieces) RAISE(RETORT_ENOMEM, "out of memory writing %s", path);
    sort_members(members, count, sorted);
    TRY(make_header(path, sorted, count, words, &header, &size));
    pieces[0] = (struct file_piece){header, size};
    for (size_t i = 0; i < count; i++) {
        int64_t elements;
        (void)claim_count(sorted[i]->rank, sorted[i]->size, 1, &elements);
        pieces[1 + i] = (struct file_piece){sorted[i]->data, (size_t)elements * types[sorted[i]->type].size};
    }
    TRY(file_write_pieces(path, pieces, count + 1));
done:
    free(header);
    free(pieces);
    free(sorted);
    return status;
}
