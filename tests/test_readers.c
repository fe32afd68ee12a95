/* Readers of foreign files: what they must read, and every way of being wrong that they must name. */
#define _GNU_SOURCE /* memmem */
#include "test.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/readers.h"

#include <dirent.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <turbojpeg.h>
#include <zip.h>
#include <zlib.h>

static char folder[] = "/tmp/retort-readers-XXXXXX";

static struct arena arena;

/* A path in the test's folder. */
static const char *at(const char *name) {
    const char *path = arena_printf(&arena, "%s/%s", folder, name);
    assert_non_null(path);
    return path;
}

static void write_bytes(const char *name, const void *data, size_t size) {
    assert_ok(file_write(at(name), data, size));
}

static void write_gzip(const char *name, const void *data, size_t size) {
    gzFile file = gzopen(at(name), "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, data, (unsigned)size), size);
    assert_int_equal(gzclose(file), Z_OK);
}

static void empty_folder(const char *name) {
    assert_ok(folder_remove(at(name)));
    assert_ok(folder_create(at(name)));
}

/* The call fails with this status, and its message names the file and says this. */
#define assert_fails(call, expected, file, words)                                                              \
    do {                                                                                                       \
        int status_ = (call);                                                                                  \
        if (status_ != (expected) || !strstr(retort_error_message(), (words))                                  \
            || !strstr(retort_error_message(), (file)))                                                        \
            fail_msg("%s: %d, expected %d; expected '%s' and '%s' in: %s", #call, status_, (expected), (file), \
                     (words), retort_error_message());                                                         \
    } while (0)

/* --- NPY --- */

/* Writes an NPY file of the given header text and data. */
static void write_npy(const char *name, int version, const char *header, const void *data, size_t size) {
    unsigned char bytes[4096];
    size_t length = strlen(header), at_byte = 8;
    memcpy(bytes, "\x93NUMPY", 6);
    bytes[6] = (unsigned char)version;
    bytes[7] = 0;
    for (int i = 0; i < (version == 1 ? 2 : 4); i++) bytes[at_byte++] = (unsigned char)(length >> 8 * i);
    memcpy(bytes + at_byte, header, length);
    memcpy(bytes + at_byte + length, data, size);
    write_bytes(name, bytes, at_byte + length + size);
}

static void test_npy_round_trip(void **state) {
    (void)state;
    float images[2 * 3 * 2] = {1, -2, 3.5f, 4, 5, 6, 7, 8, 9, 10, 11, 1e-30f};
    assert_ok(npy_write(at("a.npy"), NPY_FLOAT32, 3, (int64_t[]){2, 3, 2}, images));
    struct npy npy;
    assert_ok(npy_read(at("a.npy"), &npy));
    assert_int_equal(npy.type, NPY_FLOAT32);
    assert_int_equal(npy.rank, 3);
    assert_int_equal(npy.size[0], 2);
    assert_int_equal(npy.size[1], 3);
    assert_int_equal(npy.size[2], 2);
    assert_int_equal(npy_count(&npy), 12);
    assert_memory_equal(npy.data, images, sizeof images);
    npy_finish(&npy);
    /* The bytes are those numpy.save writes: 64-byte aligned data, a trailing newline. */
    unsigned char *bytes;
    size_t size;
    assert_ok(file_read(at("a.npy"), 0, &bytes, &size));
    assert_int_equal(size, 128 + sizeof images);
    const char header[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 2), }";
    assert_memory_equal(bytes, "\x93NUMPY\x01\x00\x76\x00", 10);
    assert_memory_equal(bytes + 10, header, sizeof header - 1);
    assert_int_equal(bytes[127], '\n');
    free(bytes);
    /* Scalars, vectors, nothing at all. */
    int64_t number = -7;
    assert_ok(npy_write(at("s.npy"), NPY_INT64, 0, NULL, &number));
    assert_ok(npy_read(at("s.npy"), &npy));
    assert_int_equal(npy.rank, 0);
    assert_int_equal(*(int64_t *)npy.data, -7);
    npy_finish(&npy);
    assert_ok(npy_write(at("e.npy"), NPY_UINT8, 2, (int64_t[]){0, 5}, NULL));
    assert_ok(npy_read(at("e.npy"), &npy));
    assert_int_equal(npy_count(&npy), 0);
    assert_int_equal(npy.size[1], 5);
    npy_finish(&npy);
    assert_int_equal(npy_write(at("x.npy"), NPY_UINT8, 1, (int64_t[]){-1}, NULL), RETORT_EINVAL);
    assert_false(file_exists(at("x.npy")));
    for (int version = 1; version <= 3; version++) {
        write_npy("v.npy", version, "{\"shape\":(3,),'descr':'<i4','fortran_order':True}\n", (int32_t[]){1, 2, 3}, 12);
        assert_ok(npy_read(at("v.npy"), &npy));
        assert_int_equal(npy.rank, 1);
        assert_int_equal(((int32_t *)npy.data)[2], 3);
        npy_finish(&npy);
    }
}

static void test_npy_bad(void **state) {
    (void)state;
    static const struct {
        int version;
        const char *header;
        size_t size;
        int status;
        const char *words;
    } cases[] = {
        {1, "{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", 8, RETORT_EUNSUPPORTED, "astype('<f4')"},
        {1, "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", 8, RETORT_EUNSUPPORTED, "pickled"},
        {1, "{'descr': '<c8', 'fortran_order': False, 'shape': (1,), }", 8, RETORT_EUNSUPPORTED, "'<c8'"},
        {1, "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", 8, RETORT_EUNSUPPORTED, "structures"},
        {1, "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }", 8, RETORT_EUNSUPPORTED, "ascontiguousarray"},
        {4, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 8, RETORT_EUNSUPPORTED, "version 4"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", 8, RETORT_EFORMAT, "does not fit the 8 bytes"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", 8, RETORT_EFORMAT, "does not fit the 8 bytes"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", 8, RETORT_EFORMAT,
         "does not fit"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0), }", 0, RETORT_EFORMAT,
         "does not fit"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 8, RETORT_EFORMAT,
         "below 2^63"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }", 8, RETORT_EFORMAT, "a size"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,2), }", 8, RETORT_EFORMAT,
         "at most 8 dimensions"},
        {1, "{'descr': '<f4', 'fortran_order': 0, 'shape': (2,), }", 8, RETORT_EFORMAT, "True or False"},
        {1, "{'descr': '<f4', 'shape': (2,), }", 8, RETORT_EFORMAT, "each of descr"},
        {1, "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 8, RETORT_EFORMAT,
         "each of descr"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'x': 1}", 8, RETORT_EFORMAT, "each of descr"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)", 8, RETORT_EFORMAT, "',' or '}'"},
        {1, "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), } x", 8, RETORT_EFORMAT, "end of the header"},
        {1, "{'descr': '<f4", 8, RETORT_EFORMAT, "a short string"},
        {1, "", 8, RETORT_EFORMAT, "a dictionary"},
    };
    struct npy npy = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_npy("bad.npy", cases[i].version, cases[i].header, (float[]){1, 2}, cases[i].size);
        assert_fails(npy_read(at("bad.npy"), &npy), cases[i].status, "bad.npy", cases[i].words);
        assert_null(npy.data);
    }
    write_bytes("bad.npy", "not an array", 12);
    assert_fails(npy_read(at("bad.npy"), &npy), RETORT_EFORMAT, "bad.npy", "is not an NPY file");
    write_bytes("bad.npy", "", 0);
    assert_fails(npy_read(at("bad.npy"), &npy), RETORT_EFORMAT, "bad.npy", "is not an NPY file");
    write_bytes("bad.npy", "\x93NUMPY\x01\x00\xff\xff{", 11);
    assert_fails(npy_read(at("bad.npy"), &npy), RETORT_EFORMAT, "bad.npy", "cut off");
    write_bytes("bad.npy", "\x93NUMPY\x02\x00\xff\xff", 10);
    assert_fails(npy_read(at("bad.npy"), &npy), RETORT_EFORMAT, "bad.npy", "cut off");
    assert_fails(npy_read(at("missing.npy"), &npy), RETORT_EIO, "missing.npy", "cannot read");
}

static void test_npy_convert(void **state) {
    (void)state;
    float *floats = NULL;
    int32_t *ints = NULL;
    struct npy npy = {.type = NPY_FLOAT64, .rank = 1, .size = {3}, .data = (double[]){1, 2, 1e300}};
    assert_fails(npy_to_float(&npy, "t", &floats), RETORT_ENUMERIC, "t", "element 2");
    assert_fails(npy_to_int(&npy, "t", &ints), RETORT_EINVAL, "t", "element 2");
    npy.data = (double[]){1, NAN, 3};
    assert_fails(npy_to_float(&npy, "t", &floats), RETORT_ENUMERIC, "t", "element 1");
    assert_fails(npy_to_int(&npy, "t", &ints), RETORT_EINVAL, "t", "element 1");
    npy.data = (double[]){1, -2147483648.0, 2147483647.0};
    assert_ok(npy_to_int(&npy, "t", &ints));
    assert_int_equal(ints[1], INT32_MIN);
    assert_int_equal(ints[2], INT32_MAX);
    free(ints);
    npy.data = (double[]){1.5, 2, 3};
    assert_int_equal(npy_to_int(&npy, "t", &ints), RETORT_EINVAL);
    npy.type = NPY_INT64;
    npy.data = (int64_t[]){1, 2, (int64_t)1 << 31};
    assert_fails(npy_to_int(&npy, "t", &ints), RETORT_EINVAL, "t", "element 2");
    npy.type = NPY_UINT8;
    npy.data = (uint8_t[]){0, 128, 255};
    assert_ok(npy_to_float(&npy, "t", &floats));
    assert_true(floats[0] == 0 && floats[1] == 128 && floats[2] == 255);
    free(floats);
}

static void write_zip(const char *name, const char *member, const void *data, size_t size, int method) {
    int code;
    zip_t *archive = zip_open(at(name), ZIP_CREATE | ZIP_TRUNCATE, &code);
    assert_non_null(archive);
    zip_source_t *source = zip_source_buffer(archive, data, size, 0);
    zip_int64_t index = zip_file_add(archive, member, source, 0);
    assert_true(index >= 0);
    assert_int_equal(zip_set_file_compression(archive, (zip_uint64_t)index, method, 9), 0);
    assert_int_equal(zip_close(archive), 0);
}

static void test_npz(void **state) {
    (void)state;
    float images[4] = {1, 2, 3, 4};
    int32_t labels[2] = {1, 0};
    struct npy_member members[] = {{"images", NPY_FLOAT32, 2, (int64_t[]){2, 2}, images},
                                   {"labels", NPY_INT32, 1, (int64_t[]){2}, labels},
                                   {"none", NPY_UINT8, 1, (int64_t[]){0}, NULL}};
    assert_ok(npz_write(at("a.npz"), members, 3));
    struct npy npy = {0};
    assert_ok(npy_read_member(at("a.npz"), "images", &npy));
    assert_int_equal(npy.rank, 2);
    assert_memory_equal(npy.data, images, sizeof images);
    npy_finish(&npy);
    assert_ok(npy_read_member(at("a.npz"), "labels", &npy));
    assert_memory_equal(npy.data, labels, sizeof labels);
    npy_finish(&npy);
    assert_ok(npy_read_member(at("a.npz"), "none", &npy));
    assert_int_equal(npy_count(&npy), 0);
    npy_finish(&npy);
    /* Equal arrays make equal files. */
    unsigned char *first, *second;
    size_t first_size, second_size;
    assert_ok(npz_write(at("b.npz"), members, 3));
    assert_ok(file_read(at("a.npz"), 0, &first, &first_size));
    assert_ok(file_read(at("b.npz"), 0, &second, &second_size));
    assert_int_equal(first_size, second_size);
    assert_memory_equal(first, second, first_size);
    /* A flipped bit of the data fails the zip's check sum. */
    unsigned char *data = memmem(first, first_size, images, sizeof images);
    assert_non_null(data);
    data[3] ^= 1;
    write_bytes("c.npz", first, first_size);
    assert_fails(npy_read_member(at("c.npz"), "images", &npy), RETORT_EFORMAT, "c.npz[images]", "damaged");
    write_bytes("c.npz", first, first_size / 2);
    assert_fails(npy_read_member(at("c.npz"), "images", &npy), RETORT_EFORMAT, "c.npz", "numpy.savez");
    free(first);
    free(second);
    assert_fails(npy_read_member(at("a.npz"), "weights", &npy), RETORT_EFORMAT, "a.npz", "images.npy, labels.npy");
    assert_fails(npy_read_member(at("none.npz"), "weights", &npy), RETORT_EIO, "none.npz", "cannot read");
    /* What numpy.savez_compressed makes. */
    unsigned char *array;
    size_t size;
    assert_ok(npy_write(at("a.npy"), NPY_FLOAT32, 2, (int64_t[]){2, 2}, images));
    assert_ok(file_read(at("a.npy"), 0, &array, &size));
    write_zip("d.npz", "images.npy", array, size, ZIP_CM_DEFLATE);
    assert_ok(npy_read_member(at("d.npz"), "images", &npy));
    assert_memory_equal(npy.data, images, sizeof images);
    npy_finish(&npy);
    /* A member that says it is huge: its directory entry's size (offset 24) made 4 GB. */
    unsigned char *bytes, *entry;
    write_zip("e.npz", "images.npy", array, size, ZIP_CM_DEFLATE);
    free(array);
    assert_ok(file_read(at("e.npz"), 0, &bytes, &size));
    entry = memmem(bytes, size, "PK\1\2", 4);
    assert_non_null(entry);
    memset(entry + 24, 0xfe, 4);
    write_bytes("e.npz", bytes, size);
    free(bytes);
    assert_int_equal(npy_read_member(at("e.npz"), "images", &npy), RETORT_EFORMAT);
    assert_null(npy.data);
}

static void test_npy_set(void **state) {
    (void)state;
    uint8_t pixels[3 * 1 * 2 * 2] = {0, 255, 51, 102, 1, 2, 3, 4, 5, 6, 7, 8};
    int64_t labels[3] = {2, 0, 2};
    struct data_set_pair data;
    struct npy_member members[] = {{"images", NPY_UINT8, 4, (int64_t[]){3, 1, 2, 2}, pixels},
                                   {"labels", NPY_INT64, 1, (int64_t[]){3}, labels},
                                   {"test_images", NPY_UINT8, 4, (int64_t[]){1, 1, 2, 2}, pixels},
                                   {"test_labels", NPY_INT64, 1, (int64_t[]){1}, labels}};
    assert_ok(npz_write(at("set.npz"), members, 4));
    struct data_spec spec = {.kind = DATA_NPY, .path = at("set.npz")};
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 3);
    assert_int_equal(data.train.classes, 3);
    assert_int_equal(data.test.count, 1);
    assert_int_equal(data.holdout.count, 0);
    assert_float_equal(data.train.images[1], 1, 0);
    assert_float_equal(data.train.images[2], 0.2f, 0);
    assert_int_equal(data.train.class_begin[1], 1);
    assert_int_equal(data.train.class_begin[2], 1);
    assert_int_equal(data.train.class_rows[0], 1);
    assert_int_equal(data.train.class_rows[2], 2);
    assert_string_equal(data.train.class_names[2], "2");
    data_finish(&data);
    assert_ok(npz_write(at("set.npz"), members, 2));
    spec.classes = (int[]){2, 0};
    spec.class_count = 2;
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.test.count, 0);
    assert_int_equal(data.train.classes, 2);
    assert_int_equal(data.train.labels[0], 0);
    assert_int_equal(data.train.labels[1], 1);
    assert_string_equal(data.train.class_names[0], "2");
    data_finish(&data);
    spec.class_names = (const char *const[]){"two", "none"};
    spec.class_name_count = 2;
    assert_ok(data_load(&spec, 1, &data));
    assert_string_equal(data.train.class_names[0], "two");
    assert_string_equal(data.test.class_names[1], "none");
    data_finish(&data);
    spec.class_name_count = 1;
    assert_fails(data_load(&spec, 1, &data), RETORT_EINVAL, "1 names", "2 classes");
    spec.class_names = NULL;
    spec.classes = (int[]){2, 3};
    assert_fails(data_load(&spec, 1, &data), RETORT_EINVAL, "set.npz", "class 3");
    spec.classes = (int[]){2, 2};
    assert_fails(data_load(&spec, 1, &data), RETORT_EINVAL, "class 2", "twice");
    spec.classes = NULL;
    /* The pair of files, and what does not fit together. */
    float values[4] = {0.5f, 1, 0, NAN};
    spec.path = at("i.npy");
    spec.labels_path = at("l.npy");
    assert_ok(npy_write(spec.path, NPY_FLOAT32, 4, (int64_t[]){1, 1, 2, 2}, values));
    assert_ok(npy_write(spec.labels_path, NPY_INT64, 1, (int64_t[]){1}, (int64_t[]){0}));
    assert_fails(data_load(&spec, 1, &data), RETORT_ENUMERIC, "i.npy", "element 3");
    values[3] = 0.25f;
    assert_ok(npy_write(spec.path, NPY_FLOAT32, 4, (int64_t[]){1, 1, 2, 2}, values));
    assert_ok(data_load(&spec, 1, &data));
    assert_memory_equal(data.train.images, values, sizeof values);
    data_finish(&data);
    assert_ok(npy_write(spec.labels_path, NPY_INT64, 1, (int64_t[]){2}, (int64_t[]){0, 0}));
    assert_fails(data_load(&spec, 1, &data), RETORT_EINVAL, "l.npy", "1 images");
    assert_ok(npy_write(spec.labels_path, NPY_INT64, 1, (int64_t[]){1}, (int64_t[]){-1}));
    assert_fails(data_load(&spec, 1, &data), RETORT_EINVAL, "l.npy", "label 0 is -1");
    assert_ok(npy_write(spec.labels_path, NPY_FLOAT32, 2, (int64_t[]){1, 1}, values));
    assert_fails(data_load(&spec, 1, &data), RETORT_EINVAL, "l.npy", "rank 2");
    assert_ok(npy_write(spec.path, NPY_FLOAT32, 2, (int64_t[]){2, 2}, values));
    assert_fails(data_load(&spec, 1, &data), RETORT_EINVAL, "i.npy", "[N,C,H,W]");
    assert_ok(npy_write(spec.path, NPY_INT32, 4, (int64_t[]){1, 1, 2, 2}, values));
    assert_ok(npy_write(spec.labels_path, NPY_INT64, 1, (int64_t[]){1}, (int64_t[]){0}));
    assert_fails(data_load(&spec, 1, &data), RETORT_EINVAL, "i.npy", "uint8");
    assert_ok(npy_write(spec.path, NPY_FLOAT32, 4, (int64_t[]){0, 1, 2, 2}, values));
    assert_fails(data_load(&spec, 1, &data), RETORT_EINVAL, "i.npy", "dimension 0");
    spec.labels_path = NULL;
    assert_fails(data_load(&spec, 1, &data), RETORT_EINVAL, "i.npy", "data.labels");
}

static void test_npy_layouts(void **state) {
    (void)state;
    uint8_t pixels[2 * 2 * 2 * 3];
    int64_t labels[2] = {0, 1};
    struct data_set_pair data;
    struct npy_member members[] = {{"images", NPY_UINT8, 4, (int64_t[]){2, 2, 2, 3}, pixels},
                                   {"labels", NPY_INT64, 1, (int64_t[]){2}, labels}};
    struct data_spec spec = {.kind = DATA_NPY, .path = at("turned.npz")};
    for (int i = 0; i < 24; i++) pixels[i] = (uint8_t)i;
    assert_ok(npz_write(spec.path, members, 2));
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.channels, 3);
    assert_int_equal(data.train.height, 2);
    for (int i = 0; i < 2; i++)
        for (int c = 0; c < 3; c++)
            for (int p = 0; p < 4; p++)
                assert_float_equal(data.train.images[(i * 3 + c) * 4 + p], ((i * 4 + p) * 3 + c) / 255.0, 1e-7);
    assert_non_null(strstr(text_get(&data.story), "[N,H,W,C], with 3 channels last"));
    data_finish(&data);
    members[0].rank = 3;
    members[0].size = (int64_t[]){2, 4, 3};
    assert_ok(npz_write(spec.path, members, 2));
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.channels, 1);
    assert_int_equal(data.train.height, 4);
    assert_int_equal(data.train.width, 3);
    assert_float_equal(data.train.images[13], 13 / 255.0, 1e-7);
    data_finish(&data);
}

/* --- IDX --- */

/* Two 2 x 3 images; the labels 4 and 0. */
static const unsigned char idx_images[] = {0, 0, 8, 3,  0,   0,   0,   2,   0, 0, 0, 2, 0, 0,
                                           0, 3, 0, 51, 102, 153, 204, 255, 1, 2, 3, 4, 5, 6};
static const unsigned char idx_labels[] = {0, 0, 8, 1, 0, 0, 0, 2, 4, 0};

static void test_idx(void **state) {
    (void)state;
    struct data_set_pair data;
    empty_folder("idx");
    write_gzip("idx/train-images-idx3-ubyte.gz", idx_images, sizeof idx_images);
    write_bytes("idx/train-labels-idx1-ubyte", idx_labels, sizeof idx_labels);
    struct data_spec spec = {.kind = DATA_IDX, .path = at("idx")};
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 2);
    assert_int_equal(data.train.channels, 1);
    assert_int_equal(data.train.height, 2);
    assert_int_equal(data.train.width, 3);
    assert_int_equal(data.train.classes, 5);
    assert_int_equal(data.test.count, 0);
    assert_int_equal(data.train.labels[0], 4);
    for (int i = 0; i < 6; i++) assert_float_equal(data.train.images[i], 0.2 * i, 1e-7);
    data_finish(&data);
    write_gzip("idx/t10k-images-idx3-ubyte.gz", idx_images, sizeof idx_images);
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "t10k-images-idx3-ubyte.gz", "labels are not");
    write_gzip("idx/t10k-labels-idx1-ubyte.gz", idx_labels, sizeof idx_labels);
    spec.test_limit = 1;
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.test.count, 1);
    assert_int_equal(data.train.count, 2);
    data_finish(&data);
    spec.test_limit = 0;
    /* A test label that training does not know. */
    unsigned char labels[sizeof idx_labels];
    memcpy(labels, idx_labels, sizeof labels);
    labels[9] = 5;
    write_gzip("idx/t10k-labels-idx1-ubyte.gz", labels, sizeof labels);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "idx", "test label 1 is 5");
    /* A test set of another shape. */
    unsigned char images[sizeof idx_images];
    memcpy(images, idx_images, sizeof images);
    images[11] = 3;
    images[15] = 2;
    write_gzip("idx/t10k-images-idx3-ubyte.gz", images, sizeof images);
    write_gzip("idx/t10k-labels-idx1-ubyte.gz", idx_labels, sizeof idx_labels);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "idx", "not of one set");
    /* A pair under another name, with values up to 16. */
    empty_folder("idx");
    memcpy(images, idx_images, sizeof images);
    for (int i = 16; i < 28; i++) images[i] = (unsigned char)(i - 16 > 8 ? 16 : i - 16);
    write_gzip("idx/own-images-idx3-ubyte.gz", images, sizeof images);
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "own-images-idx3-ubyte.gz", "own-labels-idx1-ubyte.gz");
    write_gzip("idx/own-labels-idx1-ubyte.gz", idx_labels, sizeof idx_labels);
    assert_ok(data_load(&spec, 1, &data));
    assert_float_equal(data.train.images[8], 0.5, 0);
    assert_float_equal(data.train.images[11], 1, 0);
    data_finish(&data);
    write_gzip("idx/two-images-idx3-ubyte.gz", images, sizeof images);
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "idx", "2 files");
    empty_folder("idx");
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "idx", "0 files");
    spec.path = at("no-such-folder");
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "no-such-folder", "not a folder");
}

/* The ways train and test files are called. */
static void test_idx_names(void **state) {
    (void)state;
    static const char *const names[][2] = {
        {"train-images-idx3-ubyte", "train-labels-idx1-ubyte"},
        {"train-images.idx3-ubyte", "train-labels.idx1-ubyte"},
        {"train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"},
        {"Train_Images.idx3-ubyte.gz", "Train_Labels.idx1-ubyte"},
        {"emnist-letters-train-images-idx3-ubyte", "emnist-letters-train-labels-idx1-ubyte"},
        {"latest-images-idx3-ubyte", "latest-labels-idx1-ubyte"}, /* not a test part */
    };
    static const char *const tests[][2] = {
        {"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"},
        {"t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte.gz"},
        {"test-images-idx3-ubyte", "test-labels-idx1-ubyte"},
        {"test-images.idx3-ubyte.gz", "test-labels.idx1-ubyte.gz"},
        {"emnist-letters-test-images-idx3-ubyte", "emnist-letters-test-labels-idx1-ubyte"},
        {"own-test-images-idx3-ubyte", "own-test-labels-idx1-ubyte"}};
    struct data_set_pair data;
    struct data_spec spec = {.kind = DATA_IDX, .path = at("idx")};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        empty_folder("idx");
        for (int k = 0; k < 4; k++) {
            const char *name = k < 2 ? names[i][k] : tests[i][k - 2];
            char path[128];
            snprintf(path, sizeof path, "idx/%s", name);
            const unsigned char *bytes = k % 2 ? idx_labels : idx_images;
            size_t size = k % 2 ? sizeof idx_labels : sizeof idx_images;
            if (strstr(name, ".gz"))
                write_gzip(path, bytes, size);
            else
                write_bytes(path, bytes, size);
        }
        assert_ok(data_load(&spec, 1, &data));
        assert_int_equal(data.train.count, 2);
        assert_int_equal(data.test.count, 2);
        for (int k = 0; k < 2; k++) {
            assert_non_null(strstr(text_get(&data.story), names[i][k]));
            assert_non_null(strstr(text_get(&data.story), tests[i][k]));
        }
        data_finish(&data);
    }
    /* Packed and unpacked side by side are one set; another set beside it is not. */
    empty_folder("idx");
    write_bytes("idx/train-images-idx3-ubyte", idx_images, sizeof idx_images);
    write_gzip("idx/train-images-idx3-ubyte.gz", "no IDX", 6);
    write_gzip("idx/train-labels-idx1-ubyte.gz", idx_labels, sizeof idx_labels);
    assert_ok(data_load(&spec, 1, &data));
    data_finish(&data);
    write_bytes("idx/b-train-images-idx3-ubyte", idx_images, sizeof idx_images);
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "2 files of training images", "one set a folder");
    remove(at("idx/b-train-images-idx3-ubyte"));
    write_bytes("idx/t10k-images-idx3-ubyte", idx_images, sizeof idx_images);
    write_bytes("idx/test-images-idx3-ubyte", idx_images, sizeof idx_images);
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "2 files of test images", "t10k-images-idx3-ubyte the first");
}

/* Writes the images file and expects the load to fail. */
static void expect_bad_idx(const unsigned char *images, size_t size, bool gzip, const char *words) {
    struct data_set_pair data;
    empty_folder("bad");
    const char *name = gzip ? "bad/train-images-idx3-ubyte.gz" : "bad/train-images-idx3-ubyte";
    if (gzip)
        write_gzip(name, images, size);
    else
        write_bytes(name, images, size);
    write_bytes("bad/train-labels-idx1-ubyte", idx_labels, sizeof idx_labels);
    struct data_spec spec = {.kind = DATA_IDX, .path = at("bad")};
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "train-images-idx3-ubyte", words);
}

static void test_idx_bad(void **state) {
    (void)state;
    unsigned char images[sizeof idx_images + 1] = {0};
    for (int gzip = 0; gzip < 2; gzip++) {
        memcpy(images, idx_images, sizeof idx_images);
        expect_bad_idx(images, sizeof images, gzip, gzip ? "after the 12" : "but 13 follow");
        expect_bad_idx(images, sizeof idx_images - 1, gzip, gzip ? "holds 11" : "but 11 follow");
        expect_bad_idx(images, 9, gzip, "cut off inside its header");
        expect_bad_idx(images, 3, gzip, "starts with 000008");
        expect_bad_idx(images, 0, gzip, "starts with nothing");
        images[2] = 0x0d;
        expect_bad_idx(images, sizeof idx_images, gzip, "starts with 00000d03");
        images[2] = 8;
        images[7] = 1;
        images[11] = 4;
        expect_bad_idx(images, sizeof idx_images, gzip, "2 labels");
        memset(images + 4, 0xff, 12);
        expect_bad_idx(images, sizeof idx_images, gzip, "claims");
        memcpy(images, (unsigned char[]){0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0}, 16);
        expect_bad_idx(images, 16, gzip, "at least 1");
    }
    expect_bad_idx(idx_labels, sizeof idx_labels, true, "exchanged");
    /* A gzip file cut off, spoiled, or followed by something. */
    unsigned char noise[16 + 4 * 100 * 100], *bytes;
    struct random random = random_begin(1, RANDOM_TEST, 0);
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (unsigned char)random_bits(&random);
    memcpy(noise, (unsigned char[]){0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 100, 0, 0, 0, 100}, 16);
    size_t size;
    write_gzip("noise.gz", noise, sizeof noise);
    assert_ok(file_read(at("noise.gz"), 0, &bytes, &size));
    expect_bad_idx(bytes, size / 2, false, "cut off");
    expect_bad_idx(bytes, size - 4, false, "cut off");
    expect_bad_idx(bytes, 2, false, "cut off");
    bytes[size - 6] ^= 1;
    expect_bad_idx(bytes, size, false, "damaged");
    bytes[size - 6] ^= 1;
    bytes[size] = 'x'; /* file_read leaves room for a zero */
    expect_bad_idx(bytes, size + 1, false, "bytes after");
    free(bytes);
    /* A bomb: a small file that claims what no gzip file of its size can hold. */
    memcpy(noise, (unsigned char[]){0, 0, 8, 3, 0, 1, 0, 0, 0, 0, 100, 0, 0, 0, 100, 0}, 16);
    expect_bad_idx(noise, 16, true, "can hold");
}

/* --- CIFAR --- */

static void write_records(const char *name, int count, int label_bytes, int first_label) {
    size_t record = (size_t)label_bytes + 3072;
    unsigned char *bytes = malloc((size_t)count * record);
    for (int i = 0; i < count; i++) {
        unsigned char *at_record = bytes + (size_t)i * record;
        if (label_bytes == 2) at_record[0] = 19;
        at_record[label_bytes - 1] = (unsigned char)(first_label + i);
        for (int j = 0; j < 3072; j++) at_record[label_bytes + j] = (unsigned char)(j / 1024 * 50 + i);
    }
    write_bytes(name, bytes, (size_t)count * record);
    free(bytes);
}

static void test_cifar(void **state) {
    (void)state;
    struct data_set_pair data;
    empty_folder("c10");
    assert_ok(folder_create(at("c10/cifar-10-batches-bin")));
    struct data_spec spec = {.kind = DATA_CIFAR10, .path = at("c10")};
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "data_batch_1.bin", "or its parent");
    for (int i = 1; i <= 5; i++) {
        char name[64];
        snprintf(name, sizeof name, "c10/cifar-10-batches-bin/data_batch_%d.bin", i);
        write_records(name, 2, 1, i);
    }
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "test_batch.bin", "cannot read");
    write_records("c10/cifar-10-batches-bin/test_batch.bin", 3, 1, 0);
    write_bytes("c10/cifar-10-batches-bin/batches.meta.txt", "a0\na1\na2\na3\na4\na5\na6\na7\na8\na9\n\n", 31);
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 10);
    assert_int_equal(data.train.channels, 3);
    assert_int_equal(data.train.height, 32);
    assert_int_equal(data.train.classes, 10);
    assert_int_equal(data.test.count, 3);
    assert_string_equal(data.train.class_names[7], "a7");
    assert_int_equal(data.train.labels[9], 6);
    assert_float_equal(data.train.images[9 * 3072 + 2048], 101 / 255.0, 1e-7);
    data_finish(&data);
    spec.path = at("c10/cifar-10-batches-bin");
    spec.classes = (int[]){6};
    spec.class_count = 1;
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 1);
    assert_string_equal(data.train.class_names[0], "a6");
    data_finish(&data);
    spec.classes = NULL;
    spec.train_limit = 3;
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 3);
    data_finish(&data);
    write_records("c10/cifar-10-batches-bin/data_batch_3.bin", 2, 1, 9);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "data_batch_3.bin", "record 1 has label 10");
    write_bytes("c10/cifar-10-batches-bin/data_batch_3.bin", "abc", 3);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "data_batch_3.bin", "3 bytes");

    empty_folder("c100");
    spec = (struct data_spec){.kind = DATA_CIFAR100, .path = at("c100")};
    write_records("c100/train.bin", 4, 2, 96);
    write_records("c100/test.bin", 1, 2, 0);
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 4);
    assert_int_equal(data.train.classes, 100);
    assert_int_equal(data.train.labels[3], 99);
    assert_string_equal(data.train.class_names[99], "worm"); /* no file of names: as the set is known */
    data_finish(&data);
    write_records("c100/train.bin", 5, 2, 96);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "train.bin", "record 4 has label 100");
    write_records("c100/train.bin", 3073, 1, 0);
    assert_int_equal(data_load(&spec, 1, &data), RETORT_EFORMAT);
}

/* --- folders --- */

static void write_png(const char *name, int format, int height, int width, const void *pixels) {
    png_image image = {.version = PNG_IMAGE_VERSION,
                       .format = (png_uint_32)format,
                       .height = (png_uint_32)height,
                       .width = (png_uint_32)width};
    assert_true(png_image_write_to_file(&image, at(name), 0, pixels, 0, NULL));
}

static void write_jpeg(const char *name, int pixel_format, int subsampling, int height, int width,
                       const unsigned char *pixels) {
    unsigned char *jpeg = NULL;
    unsigned long size = 0;
    tjhandle turbo = tjInitCompress();
    assert_int_equal(
        tjCompress2(turbo, pixels, width, 0, height, pixel_format, &jpeg, &size, subsampling, 100, TJFLAG_ACCURATEDCT),
        0);
    write_bytes(name, jpeg, size);
    tjFree(jpeg);
    tjDestroy(turbo);
}

static void test_pictures(void **state) {
    (void)state;
    struct picture picture = {0};
    unsigned char *bytes, rgb[8 * 8 * 3], rgba[8 * 8 * 4];
    size_t size;
    for (int i = 0; i < 8 * 8; i++)
        for (int c = 0; c < 4; c++) {
            rgba[4 * i + c] = c == 3 ? (unsigned char)(i < 32 ? 255 : 0) : (unsigned char)(i + 60 * c);
            if (c < 3) rgb[3 * i + c] = rgba[4 * i + c];
        }
    write_png("p.png", PNG_FORMAT_RGB, 8, 8, rgb);
    assert_ok(file_read(at("p.png"), 0, &bytes, &size));
    assert_ok(picture_decode("p.png", bytes, size, &picture));
    assert_int_equal(picture.height, 8);
    assert_memory_equal(picture.rgb, rgb, sizeof rgb);
    free(picture.rgb);
    /* A PNG cut anywhere before its last pixel is refused; so is one whose width is spoiled, for its check sum. */
    for (size_t cut = 8; cut < size - 24; cut += 7)
        assert_fails(picture_decode("p.png", bytes, cut, &picture), RETORT_EFORMAT, "p.png", "damaged");
    bytes[18] ^= 1;
    assert_fails(picture_decode("p.png", bytes, size, &picture), RETORT_EFORMAT, "p.png", "damaged");
    free(bytes);
    /* The clear half is white. */
    write_png("p.png", PNG_FORMAT_RGBA, 8, 8, rgba);
    assert_ok(file_read(at("p.png"), 0, &bytes, &size));
    assert_ok(picture_decode("p.png", bytes, size, &picture));
    assert_memory_equal(picture.rgb, rgb, sizeof rgb / 2);
    for (size_t i = sizeof rgb / 2; i < sizeof rgb; i++) assert_int_equal(picture.rgb[i], 255);
    free(picture.rgb);
    free(bytes);
    write_png("p.png", PNG_FORMAT_GRAY, 8, 8, rgb);
    assert_ok(file_read(at("p.png"), 0, &bytes, &size));
    assert_ok(picture_decode("p.png", bytes, size, &picture));
    for (int i = 0; i < 64; i++)
        for (int c = 0; c < 3; c++) assert_int_equal(picture.rgb[3 * i + c], rgb[i]);
    free(picture.rgb);
    free(bytes);

    write_jpeg("p.jpg", TJPF_RGB, TJSAMP_444, 8, 8, rgb);
    assert_ok(file_read(at("p.jpg"), 0, &bytes, &size));
    assert_ok(picture_decode("p.jpg", bytes, size, &picture));
    for (size_t i = 0; i < sizeof rgb; i++) assert_in_range(picture.rgb[i] + 4 - rgb[i], 0, 8);
    free(picture.rgb);
    /* Stray bytes before the end marker cost no pixel. */
    unsigned char *stray = malloc(size + 3);
    memcpy(stray, bytes, size - 2);
    memcpy(stray + size - 2, "abc\xff\xd9", 5);
    log_set_level(LOG_QUIET);
    assert_ok(picture_decode("p.jpg", stray, size + 3, &picture));
    log_set_level(LOG_WARNING);
    for (size_t i = 0; i < sizeof rgb; i++) assert_in_range(picture.rgb[i] + 4 - rgb[i], 0, 8);
    free(picture.rgb);
    free(stray);
    assert_fails(picture_decode("p.jpg", bytes, size - 12, &picture), RETORT_EFORMAT, "p.jpg", "damaged");
    for (size_t cut = 3; cut < 120; cut += 9)
        assert_fails(picture_decode("p.jpg", bytes, cut, &picture), RETORT_EFORMAT, "p.jpg", "damaged");
    assert_fails(picture_decode("p.jpg", bytes, 3, &picture), RETORT_EFORMAT, "p.jpg", "damaged");
    /* Height and width of the frame header (SOF0) made 65500: more pixels than one picture may have. */
    unsigned char *frame = memmem(bytes, size, "\xff\xc0", 2);
    assert_non_null(frame);
    for (int i = 5; i < 9; i += 2) frame[i] = 0xff, frame[i + 1] = 0xdc;
    assert_fails(picture_decode("p.jpg", bytes, size, &picture), RETORT_EFORMAT, "p.jpg", "at most");
    /* 8000 x 8000: allowed, but not in so few bytes. */
    for (int i = 5; i < 9; i += 2) frame[i] = 0x1f, frame[i + 1] = 0x40;
    assert_fails(picture_decode("p.jpg", bytes, size, &picture), RETORT_EFORMAT, "p.jpg", "can hold");
    free(bytes);
    /* Inks, stored inverted: white paper is all 255. */
    memset(rgba, 255, sizeof rgba);
    rgba[0] = 0;
    for (int i = 0; i < 64; i++) memcpy(rgba + 4 * i, (unsigned char[]){200, 100, 50, 255}, 4);
    write_jpeg("p.jpg", TJPF_CMYK, TJSAMP_444, 8, 8, rgba);
    assert_ok(file_read(at("p.jpg"), 0, &bytes, &size));
    assert_ok(picture_decode("p.jpg", bytes, size, &picture));
    assert_in_range(picture.rgb[0], 197, 203);
    assert_in_range(picture.rgb[1], 97, 103);
    assert_in_range(picture.rgb[2], 47, 53);
    assert_memory_equal(picture.rgb, picture.rgb + 3, 8 * 7 * 3);
    free(picture.rgb);
    free(bytes);
    assert_fails(picture_decode("p.gif", (const unsigned char *)"GIF89a", 6, &picture), RETORT_EFORMAT, "p.gif",
                 "neither PNG nor JPEG");
}

/* Values as they are stored: not brightened by a gamma, and of 16 bits the upper 8. */
static void test_png_values(void **state) {
    (void)state;
    static const struct {
        int type, depth, samples;
        double gamma; /* 0: not said */
        bool interlaced, is_srgb;
    } cases[] = {
        {PNG_COLOR_TYPE_GRAY, 8, 1, 0, false, false},     {PNG_COLOR_TYPE_GRAY, 8, 1, 1.0, false, false},
        {PNG_COLOR_TYPE_RGB, 8, 3, 0.45455, true, false}, {PNG_COLOR_TYPE_RGB, 8, 3, 1.0, false, false},
        {PNG_COLOR_TYPE_RGB, 8, 3, 0, false, true},       {PNG_COLOR_TYPE_GRAY, 16, 1, 0, false, false},
        {PNG_COLOR_TYPE_RGB, 16, 3, 0, true, false},      {PNG_COLOR_TYPE_RGB, 16, 3, 1.0, false, false},
        {PNG_COLOR_TYPE_RGBA, 16, 4, 0, false, false},    {PNG_COLOR_TYPE_GRAY_ALPHA, 8, 2, 1.0, false, false}};
    enum { SIDE = 16 };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        /* Sample c of pixel (i, j) is the byte 16 i + j + 64 c, in 16 bits followed by a byte that is to be dropped;
         * opacity is half in the left half, full in the right one. */
        int bytes_each = cases[k].depth / 8, samples = cases[k].samples, colours = samples < 3 ? 1 : 3;
        unsigned char rows[SIDE][SIDE * 4 * 2];
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++)
                for (int c = 0; c < samples; c++) {
                    unsigned char *to = rows[i] + (j * samples + c) * bytes_each;
                    to[bytes_each - 1] = 200;
                    to[0] = (unsigned char)(c < colours ? 16 * i + j + 64 * c : j < SIDE / 2 ? 128 : 255);
                }
        FILE *file = fopen(at("v.png"), "wb");
        assert_non_null(file);
        png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
        png_infop info = png_create_info_struct(png);
        assert_non_null(info);
        png_init_io(png, file);
        png_set_IHDR(png, info, SIDE, SIDE, cases[k].depth, cases[k].type,
                     cases[k].interlaced ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                     PNG_FILTER_TYPE_DEFAULT);
        if (cases[k].gamma > 0) png_set_gAMA(png, info, cases[k].gamma);
        if (cases[k].is_srgb) png_set_sRGB_gAMA_and_cHRM(png, info, PNG_sRGB_INTENT_PERCEPTUAL);
        png_bytep starts[SIDE];
        for (int i = 0; i < SIDE; i++) starts[i] = rows[i];
        png_set_rows(png, info, starts);
        png_write_png(png, info, PNG_TRANSFORM_IDENTITY, NULL);
        png_destroy_write_struct(&png, &info);
        assert_int_equal(fclose(file), 0);

        unsigned char *bytes;
        size_t size;
        struct picture picture = {0};
        assert_ok(file_read(at("v.png"), 0, &bytes, &size));
        assert_ok(picture_decode("v.png", bytes, size, &picture));
        for (int i = 0; i < SIDE; i++)
            for (int j = 0; j < SIDE; j++)
                for (int c = 0; c < 3; c++) {
                    int value = (unsigned char)(16 * i + j + (colours == 3 ? 64 * c : 0));
                    bool half = samples != colours && j < SIDE / 2;
                    if (half) value = (value * 128 + 255 * 127 + 127) / 255;
                    if (picture.rgb[3 * (SIDE * i + j) + c] != value)
                        fail_msg("case %zu, row %d, column %d, colour %d: %d, not %d", k, i, j, c,
                                 picture.rgb[3 * (SIDE * i + j) + c], value);
                }
        free(picture.rgb);
        free(bytes);
    }
}

static void test_picture_fit(void **state) {
    (void)state;
    enum { HEIGHT = 12, WIDTH = 40 };
    unsigned char rgb[HEIGHT * WIDTH * 3], planes[3 * HEIGHT * WIDTH];
    struct picture picture = {HEIGHT, WIDTH, false, rgb};
    for (int i = 0; i < HEIGHT; i++)
        for (int j = 0; j < WIDTH; j++) {
            unsigned char *pixel = rgb + (i * WIDTH + j) * 3;
            pixel[0] = (unsigned char)(5 * j);
            pixel[1] = (unsigned char)(20 * i);
            pixel[2] = (unsigned char)((i + j) % 2 ? 255 : 0);
        }
    /* The same size is the same picture. */
    assert_ok(picture_fit(&picture, 3, HEIGHT, WIDTH, planes));
    for (int i = 0; i < HEIGHT * WIDTH; i++)
        for (int c = 0; c < 3; c++) assert_int_equal(planes[c * HEIGHT * WIDTH + i], rgb[3 * i + c]);
    /* A square of the same height is the centre. */
    assert_ok(picture_fit(&picture, 3, HEIGHT, HEIGHT, planes));
    for (int i = 0; i < HEIGHT; i++)
        for (int j = 0; j < HEIGHT; j++)
            for (int c = 0; c < 3; c++)
                assert_int_equal(planes[(c * HEIGHT + i) * HEIGHT + j], rgb[3 * (i * WIDTH + j + 14) + c]);
    /* Halved: ramps stay ramps, away from the edges; a chequerboard becomes even grey, not stripes. */
    assert_ok(picture_fit(&picture, 3, 6, 6, planes));
    for (int i = 1; i < 5; i++)
        for (int j = 0; j < 6; j++) {
            assert_in_range(planes[i * 6 + j], (int)(5 * (14.5 + 2 * j)) - 1, (int)(5 * (14.5 + 2 * j)) + 2);
            assert_in_range(planes[36 + i * 6 + j], 20 * 2 * i + 9, 20 * 2 * i + 11);
            assert_in_range(planes[72 + i * 6 + j], 127, 128);
        }
    /* A third: taken pixel by pixel the chequerboard would stay one; by the wide filter it is even to 1 in 81. */
    assert_ok(picture_fit(&picture, 3, 4, 4, planes));
    for (int i = 1; i < 3; i++)
        for (int j = 0; j < 4; j++) assert_in_range(planes[32 + i * 4 + j], 125, 130);
    /* Enlarged, and grey by luma. */
    for (int i = 0; i < HEIGHT * WIDTH; i++) memcpy(rgb + 3 * i, (unsigned char[]){200, 100, 50}, 3);
    unsigned char *large = malloc(100 * 100);
    assert_ok(picture_fit(&picture, 1, 100, 100, large));
    for (int i = 0; i < 100 * 100; i++) assert_int_equal(large[i], 124); /* 59.8 + 58.7 + 5.7 */
    free(large);
}

static void test_folder(void **state) {
    (void)state;
    struct data_set_pair data;
    unsigned char rgb[6 * 6 * 3], grey[6 * 6];
    memset(rgb, 51, sizeof rgb);
    memset(grey, 102, sizeof grey);
    empty_folder("f");
    static const char *const made[] = {"f/train/b/images", "f/train/a", "f/val/a", "f/val/b"};
    for (size_t i = 0; i < 4; i++) assert_ok(folder_create(at(made[i])));
    write_png("f/train/a/1.png", PNG_FORMAT_RGB, 6, 6, rgb);
    write_png("f/train/a/0.PNG", PNG_FORMAT_GRAY, 6, 6, grey);
    write_bytes("f/train/a/notes.txt", "no picture", 10);
    write_jpeg("f/train/b/images/x.JPEG", TJPF_GRAY, TJSAMP_GRAY, 6, 6, grey);
    write_png("f/val/a/0.png", PNG_FORMAT_RGB, 6, 6, rgb);
    struct data_spec spec = {.kind = DATA_FOLDER, .path = at("f")};
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "f/val/b", "holds no .png");
    write_png("f/val/b/0.png", PNG_FORMAT_RGB, 6, 6, rgb);
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 3);
    assert_int_equal(data.train.channels, 3);
    assert_int_equal(data.train.height, 6);
    assert_int_equal(data.test.count, 2);
    assert_int_equal(data.train.classes, 2);
    assert_string_equal(data.train.class_names[0], "a");
    assert_string_equal(data.train.class_names[1], "b");
    for (int i = 0; i < 3 * 36; i++) {
        assert_float_equal(data.train.images[i], 0.4, 1e-6); /* 0.PNG sorts first; grey in three channels */
        assert_float_equal(data.train.images[3 * 36 + i], 0.2, 1e-6);
        assert_float_equal(data.train.images[6 * 36 + i], 0.4, 1 / 128.0);
    }
    data_finish(&data);
    spec.height = spec.width = 4;
    spec.grey = true;
    spec.train_limit = 2;
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 2);
    assert_int_equal(data.train.channels, 1);
    assert_int_equal(data.train.width, 4);
    assert_int_equal(data.train.labels[0], 0); /* one of each class */
    assert_int_equal(data.train.labels[1], 1);
    data_finish(&data);
    spec = (struct data_spec){.kind = DATA_FOLDER, .path = at("f"), .classes = (int[]){1}, .class_count = 1};
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 1);
    assert_int_equal(data.test.count, 1);
    assert_string_equal(data.train.class_names[0], "b");
    data_finish(&data);
    spec.classes = NULL;
    assert_ok(folder_create(at("f/val/c")));
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "f/val/c", "train does not have");
    assert_ok(folder_remove(at("f/val/c")));
    write_png("f/train/b/images/y.png", PNG_FORMAT_RGB, 4, 6, rgb);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "y.png is 4 x 6",
                 "1 of 4 pictures differ so, from 4 x 6 to 6 x 6: set data.size");
    write_bytes("f/train/b/images/y.png", "GIF89a", 6);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "y.png", "neither");
    /* Tiny ImageNet's val: pictures in one folder, classes in a text. */
    remove(at("f/train/b/images/y.png"));
    empty_folder("f/val");
    assert_ok(folder_create(at("f/val/images")));
    write_png("f/val/images/v0.png", PNG_FORMAT_RGB, 6, 6, rgb);
    write_bytes("f/val/val_annotations.txt", "v0.png\tb\t0\t0\t62\t62\n", 19);
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.test.count, 1);
    assert_int_equal(data.test.labels[0], 1);
    data_finish(&data);
    write_bytes("f/val/val_annotations.txt", "v0.png\tb\nv0.png\tzebra\n", 22);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "val_annotations.txt: line 2", "zebra");
    write_bytes("f/val/val_annotations.txt", "v0.png\n", 7);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "val_annotations.txt: line 1", "expected");
    write_bytes("f/val/val_annotations.txt", "../../x.png\tb\n", 14);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "val_annotations.txt: line 1", "expected");
    /* Without train/, all is training. */
    spec.path = at("f/train");
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 3);
    assert_int_equal(data.test.count, 0);
    data_finish(&data);
    spec.path = at("f/train/a");
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "f/train/a", "holds no folders");
    spec.path = at("f/none");
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "f/none", "cannot read");
}

static void test_corrupt(void **state) {
    (void)state;
    struct data_set_pair data;
    unsigned char rgb[6 * 6 * 3], grey[6 * 6];
    memset(rgb, 51, sizeof rgb);
    memset(grey, 102, sizeof grey);
    empty_folder("c");
    assert_ok(folder_create(at("c/a")));
    assert_ok(folder_create(at("c/b")));
    struct data_spec spec = {.kind = DATA_FOLDER, .path = at("c"), .height = 6, .width = 6};
    for (int i = 0; i < 10; i++) {
        char name[32];
        snprintf(name, sizeof name, "c/a/bad%d.png", i);
        write_bytes(name, "\x89PNG\r\n\x1a\n", 8);
    }
    write_bytes("c/b/cut.jpeg", "\xff\xd8\xff", 3);
    write_png("c/a/good.png", PNG_FORMAT_RGB, 6, 9, rgb);
    write_png("c/b/good.png", PNG_FORMAT_GRAY, 12, 12, grey);
    /* All are counted, the first of them listed. */
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "11 of 13 pictures cannot be read",
                 "data.skip_corrupt: true");
    assert_non_null(strstr(retort_error_message(), "c/a/bad7.png"));
    assert_null(strstr(retort_error_message(), "c/a/bad8.png"));
    log_set_level(LOG_QUIET);
    spec.skip_corrupt = true;
    assert_ok(data_load(&spec, 1, &data));
    log_set_level(LOG_WARNING);
    assert_int_equal(data.train.count, 2);
    assert_int_equal(data.train.labels[1], 1);
    assert_float_equal(data.train.images[0], 0.2, 1e-6);
    assert_float_equal(data.train.images[3 * 36], 0.4, 1e-6);
    assert_non_null(strstr(text_get(&data.story), "2 pictures, heights 6 to 12, widths 9 to 12, scaled to cover 6 x 6 "
                                                  "and cut to the centre; 1 grey ones among them, read as colours; 11 "
                                                  "skipped"));
    data_finish(&data);
    remove(at("c/a/good.png"));
    remove(at("c/b/good.png"));
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "11 of 11", "bad0.png");
}

static void test_csv(void **state) {
    (void)state;
    struct data_set_pair data;
    unsigned char rgb[4 * 4 * 3];
    empty_folder("l");
    assert_ok(folder_create(at("l/p")));
    for (int i = 0; i < 4; i++) {
        char name[32];
        memset(rgb, 51 * i, sizeof rgb);
        snprintf(name, sizeof name, "l/p/%d.png", i);
        write_png(name, PNG_FORMAT_RGB, 4, 4, rgb);
    }
#define CSV(text) write_bytes("l/list.csv", text, sizeof text - 1)
    struct data_spec spec = {.kind = DATA_CSV, .path = at("l/list.csv")};
    /* No header, words, quotes, an absolute path, a line's end as Windows writes it. */
    char text[FILE_PATH_MAX + 128];
    int length =
        snprintf(text, sizeof text, "\xef\xbb\xbf p/1.png , zebra\r\n\n\"p/2.png\",\"ape, \"\"big\"\"\"\n%s,zebra",
                 at("l/p/3.png"));
    write_bytes("l/list.csv", text, (size_t)length);
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 3);
    assert_int_equal(data.test.count, 0);
    assert_int_equal(data.train.classes, 2);
    assert_string_equal(data.train.class_names[0], "ape, \"big\"");
    assert_string_equal(data.train.class_names[1], "zebra");
    assert_int_equal(data.train.labels[0], 1);
    assert_int_equal(data.train.labels[1], 0);
    assert_float_equal(data.train.images[0], 0.2, 1e-6);
    assert_float_equal(data.train.images[2 * 48], 0.6, 1e-6);
    data_finish(&data);
    /* A header, columns in another order and one that is not wanted, numbers with gaps in their own order, parts. */
    CSV("Split;id;Label;Image\ntrain;7;10;p/1.png\ntrain;8;9;p/2.png\ntest;9;10;p/3.png\nval;9;9;p/0.png\n");
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 2);
    assert_string_equal(data.train.class_names[0], "9");
    assert_string_equal(data.train.class_names[1], "10");
    assert_int_equal(data.train.labels[0], 1);
    assert_int_equal(data.test.count, 1);
    assert_int_equal(data.test.labels[0], 1);
    assert_non_null(strstr(text_get(&data.story), "left out: 1 lines of the part val"));
    data_finish(&data);
    CSV("p/1.png\ta\ttrain\np/2.png\tb\ttrain\np/0.png\tb\tval\n");
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.test.count, 1); /* validation, where there is no test */
    data_finish(&data);
    /* A folder with two lists. */
    write_bytes("l/train.csv", "path,label\np/1.png,a\np/2.png,b\n", 31);
    write_bytes("l/test.csv", "path,label\np/3.png,b\n", 21);
    spec.path = at("l");
    assert_ok(data_load(&spec, 1, &data));
    assert_int_equal(data.train.count, 2);
    assert_int_equal(data.test.count, 1);
    assert_int_equal(data.test.labels[0], 1);
    data_finish(&data);
    /* Mistakes. */
    write_bytes("l/test.csv", "path,label\np/3.png,c\n", 21);
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "test.csv: line 2", "label 'c'");
    remove(at("l/train.csv"));
    assert_fails(data_load(&spec, 1, &data), RETORT_EIO, "no train.csv", "data.path");
    spec.path = at("l/list.csv");
    CSV("p/1.png,a\np/none.png,b\n");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "1 of 2 pictures", "none.png");
    CSV("p/1.png,a\n\np/2.png\n");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "list.csv: line 3", "1 columns, expected 2");
    CSV("p/1.png,a\n\"p/2.png,b\n");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "list.csv: line 2", "a quote is not closed");
    CSV("p/1.png,a\n\"p/2.png\"x,b\n");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "list.csv: line 2", "something follows");
    CSV("p/1.png,\n");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "line 1", "label is empty");
    CSV("what,ever\np/1.png,a\n");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "line 1", "path,label");
    CSV("p/1.png,a,b\n");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "line 1", "path,label");
    CSV("path,label,split\np/1.png,a,train\np/1.png,a,sometimes\n");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "line 3", "'sometimes'");
    CSV("path,label,split\np/1.png,a,test\n");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "list.csv", "no line of the part train");
    CSV("path,label\n");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "list.csv", "lists no pictures");
    CSV("p/1.png,a\0");
    assert_fails(data_load(&spec, 1, &data), RETORT_EFORMAT, "list.csv", "zero byte");
#undef CSV
}

static int make_folder(void **state) {
    (void)state;
    arena_init(&arena);
    log_set_level(LOG_WARNING);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    (void)state;
    arena_finish(&arena);
    return folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_npy_round_trip), cmocka_unit_test(test_npy_bad),
        cmocka_unit_test(test_npy_convert),    cmocka_unit_test(test_npz),
        cmocka_unit_test(test_npy_set),        cmocka_unit_test(test_idx),
        cmocka_unit_test(test_idx_bad),        cmocka_unit_test(test_cifar),
        cmocka_unit_test(test_pictures),       cmocka_unit_test(test_png_values),
        cmocka_unit_test(test_picture_fit),    cmocka_unit_test(test_folder),
        cmocka_unit_test(test_corrupt),        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_idx_names),      cmocka_unit_test(test_npy_layouts),
    };
    return cmocka_run_group_tests_name("readers", tests, make_folder, remove_folder);
}
