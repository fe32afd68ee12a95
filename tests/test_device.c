#include "test.h"

#include "base/file.h"
#include "base/log.h"
#include "device/internal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Every test runs on the device of RETORT_DEVICE (else the default one) with a cache folder of its own. */
static struct device *device;
static char folder[] = "/tmp/retort-device-XXXXXX";

static int begin(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    setenv("XDG_CACHE_HOME", folder, 1);
    setenv("TMPDIR", folder, 1);
    if (device_open(NULL, &device) == RETORT_OK) return 0;
    fprintf(stderr, "%s\n", retort_error_message());
    return -1;
}

static int end(void **state) {
    (void)state;
    device_close(device);
    return folder_remove(folder);
}

static const char *const add_one = "kernel void add_one(global float *y, ulong y0, global const float *x, ulong x0) {\n"
                                   "    int i = get_global_id(0);\n"
                                   "    y[y0 + i] = x[x0 + i] + ONE;\n"
                                   "}\n";

static void test_list(void **state) {
    (void)state;
    struct device_traits *list;
    size_t count;
    assert_ok(device_list(&list, &count));
    assert_true(count >= 1);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(list[i].index, i);
        assert_true(list[i].name[0] && list[i].platform[0]);
        assert_true(list[i].vector_width == 4 || list[i].vector_width == 8 || list[i].vector_width == 16);
        assert_true(list[i].compute_units >= 1 && list[i].max_allocation > 0);
    }
    const struct device_traits *traits = device_traits(device);
    assert_true((size_t)traits->index < count);
    assert_string_equal(traits->name, list[traits->index].name);
    free(list);
}

/* Whether a spec finds the one device all tests run on. */
static void expect_found(const char *spec) {
    struct device *other = NULL;
    if (device_open(spec, &other) < 0) fail_msg("%s", retort_error_message());
    assert_int_equal(device_traits(other)->index, device_traits(device)->index);
    device_close(other);
}

/* Words of the versions find a device too: the name of Debian's PoCL stands in no other place. What all versions begin
 * with names nothing. */
static void test_open_by_version(void **state) {
    (void)state;
    const struct device_traits *traits = device_traits(device);
    struct device *other = NULL;
    struct device_traits *list;
    size_t count, same = 0;
    assert_ok(device_list(&list, &count));
    for (size_t i = 0; i < count; i++) same += strcmp(list[i].driver, traits->driver) == 0;
    free(list);
    if (same == 1) {
        char spec[2 * sizeof traits->driver];
        /* A version that is a number alone would be an index. */
        snprintf(spec, sizeof spec, "%s %s", traits->driver, device_kind_name(traits->kind));
        expect_found(spec);
    }
    if (count == 1 && strstr(traits->version, "PoCL")) expect_found("pocl");
    char first[32];
    snprintf(first, sizeof first, "%.*s", (int)strcspn(traits->version, " "), traits->version);
    if (!strstr(traits->platform, first) && !strstr(traits->name, first))
        assert_int_equal(device_open(first, &other), RETORT_EDEVICE);
}

/* Lanes from what real drivers answer. */
static void test_lanes(void **state) {
    (void)state;
    static const struct {
        const char *name;
        struct device_arithmetic told;
        unsigned lanes;
    } rows[] = {
        {"RTX 3060", {.kind = DEVICE_GPU, .compute_units = 28, .compute_capability = {8, 6}}, 3584},
        {"GTX 1060", {.kind = DEVICE_GPU, .compute_units = 10, .compute_capability = {6, 1}}, 1280},
        {"P100", {.kind = DEVICE_GPU, .compute_units = 56, .compute_capability = {6, 0}}, 3584},
        {"RTX 2080", {.kind = DEVICE_GPU, .compute_units = 46, .compute_capability = {7, 5}}, 2944},
        {"A100", {.kind = DEVICE_GPU, .compute_units = 108, .compute_capability = {8, 0}}, 6912},
        {"H100", {.kind = DEVICE_GPU, .compute_units = 132, .compute_capability = {9, 0}}, 16896},
        {"RTX 5090", {.kind = DEVICE_GPU, .compute_units = 170, .compute_capability = {12, 0}}, 21760},
        {"RX 6600 XT", {.kind = DEVICE_GPU, .compute_units = 16, .simds_per_unit = 4, .simd_width = 32}, 2048},
        {"RX 6900 XT", {.kind = DEVICE_GPU, .compute_units = 40, .simds_per_unit = 4, .simd_width = 32}, 5120},
        {"RX 6900 XT, single units",
         {.kind = DEVICE_GPU, .compute_units = 80, .simds_per_unit = 2, .simd_width = 32},
         5120},
        {"RX 6900 XT on Mesa", {.kind = DEVICE_GPU, .compute_units = 80}, 5120},
        {"RX 7900 XTX", {.kind = DEVICE_GPU, .compute_units = 48, .simds_per_unit = 4, .simd_width = 32}, 6144},
        {"MI210", {.kind = DEVICE_GPU, .compute_units = 104, .simds_per_unit = 4, .simd_width = 16}, 6656},
        {"Vega 20", {.kind = DEVICE_GPU, .compute_units = 60, .simds_per_unit = 4, .simd_width = 16}, 3840},
        {"Arc A770",
         {.kind = DEVICE_GPU, .compute_units = 512, .eus_per_sub_slice = 16, .sub_groups = 8 + 16 + 32},
         4096},
        {"Arc B580", {.kind = DEVICE_GPU, .compute_units = 160, .eus_per_sub_slice = 8, .sub_groups = 16 + 32}, 2560},
        {"UHD 630", {.kind = DEVICE_GPU, .compute_units = 24, .eus_per_sub_slice = 8, .sub_groups = 8 + 16 + 32}, 192},
        {"Iris Xe", {.kind = DEVICE_GPU, .compute_units = 96, .eus_per_sub_slice = 16, .sub_groups = 8 + 16 + 32}, 768},
        {"HD 520, an old driver", {.kind = DEVICE_GPU, .compute_units = 24, .eus_per_sub_slice = 8}, 192},
        {"Max 1550", {.kind = DEVICE_GPU, .compute_units = 1024, .eus_per_sub_slice = 8, .sub_groups = 16 + 32}, 16384},
        {"a GPU that tells nothing", {.kind = DEVICE_GPU, .compute_units = 20, .vector_width = 4}, 1280},
        {"2 cores of AVX2", {.kind = DEVICE_CPU, .compute_units = 2, .vector_width = 8}, 16},
        {"Intel's runtime on 8 cores",
         {.kind = DEVICE_CPU, .compute_units = 8, .vector_width = 16, .eus_per_sub_slice = 1, .sub_groups = 4 + 8 + 16},
         128},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        unsigned lanes = device_count_lanes(&rows[i].told);
        if (lanes != rows[i].lanes) fail_msg("%s: %u lanes, expected %u", rows[i].name, lanes, rows[i].lanes);
    }
    static const char list[] = "cl_khr_fp64 cl_nv_device_attribute_query_x cl_khr_icd";
    assert_true(device_lists_extension(list, "cl_khr_fp64") && device_lists_extension(list, "cl_khr_icd"));
    assert_false(device_lists_extension(list, "cl_nv_device_attribute_query"));
    assert_false(device_lists_extension(list, "khr_fp64") || device_lists_extension("", "cl_khr_icd"));

    const struct device_traits *traits = device_traits(device);
    unsigned units = traits->compute_units, lanes = traits->lanes;
    assert_true(lanes >= units);
    if (traits->kind == DEVICE_CPU) assert_int_equal(lanes, units * traits->vector_width);
    device_set_units(device, 3 * units);
    assert_int_equal(traits->lanes, 3 * lanes);
    device_set_units(device, 0);
    assert_int_equal(traits->lanes, lanes);
}

static void write_cache(const char *caches, int index, const char *name, const char *words) {
    char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%s/index%d", caches, index);
    assert_ok(folder_create(path));
    snprintf(path, sizeof path, "%s/index%d/%s", caches, index, name);
    assert_ok(file_write(path, words, strlen(words)));
}

/* What Linux says of a processor's caches, in all that it may say. */
static void test_second_cache(void **state) {
    (void)state;
    static const struct {
        const char *size, *sharers;
        uint64_t bytes;
    } rows[] = {
        {"2048K\n", "0\n", 2 << 20},      {"1024K\n", "0,64\n", 512 << 10},
        {"4M\n", "0-3\n", 1 << 20},       {"2048K\n", "", 2 << 20},
        {"512K", "0-1,8-9", 128 << 10},   {"524288\n", "3\n", 512 << 10},
        {"unknown\n", "0\n", 0},          {"", "0\n", 0},
        {"1280K\n", "7-4\n", 1280 << 10},
    };
    char caches[FILE_PATH_MAX];
    assert_ok(path_join(folder, "caches", caches));
    assert_int_equal(device_second_cache(caches), 0);
    write_cache(caches, 0, "level", "1\n");
    write_cache(caches, 1, "level", "2\n");
    write_cache(caches, 1, "type", "Instruction\n");
    write_cache(caches, 1, "size", "64K\n");
    assert_int_equal(device_second_cache(caches), 0);
    write_cache(caches, 2, "level", "2\n");
    write_cache(caches, 2, "type", "Unified\n");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_cache(caches, 2, "size", rows[i].size);
        write_cache(caches, 2, "shared_cpu_list", rows[i].sharers);
        assert_int_equal(device_second_cache(caches), rows[i].bytes);
    }
    /* What is told of the last cache counts up to a bound on a CPU. */
    struct device_traits told = {.kind = DEVICE_CPU, .cache = 480 << 20};
    assert_int_equal(traits_cache_share(&told), 64 << 20);
    told.cache = 32 << 20;
    assert_int_equal(traits_cache_share(&told), 32 << 20);
    told = (struct device_traits){.kind = DEVICE_GPU, .cache = 128 << 20};
    assert_int_equal(traits_cache_share(&told), 128 << 20);
}

static void test_open_by_spec(void **state) {
    (void)state;
    const struct device_traits *traits = device_traits(device);
    struct device_traits *list;
    size_t count, same = 0;
    assert_ok(device_list(&list, &count));
    for (size_t i = 0; i < count; i++)
        same += strcmp(list[i].platform, traits->platform) == 0 && strcmp(list[i].name, traits->name) == 0;
    struct device *other = NULL;
    char spec[600];
    snprintf(spec, sizeof spec, "%d", traits->index);
    assert_ok(device_open(spec, &other));
    assert_int_equal(device_traits(other)->index, traits->index);
    device_close(other);
    /* All words of platform and name, in capitals, backwards in order. */
    snprintf(spec, sizeof spec, " %s  %s ", traits->name, traits->platform);
    for (char *c = spec; *c; c++)
        if (*c >= 'a' && *c <= 'z') *c = (char)(*c - 'a' + 'A');
    if (same == 1) {
        assert_ok(device_open(spec, &other));
        assert_int_equal(device_traits(other)->index, traits->index);
        device_close(other);
    }
    other = NULL;
    static const char *const wrong[] = {"4711", "99999999999999999999999", "no-such-device", "cpu no-such-word", "-1"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(device_open(wrong[i], &other), RETORT_EDEVICE);
        assert_null(other);
        assert_non_null(strstr(retort_error_message(), traits->name)); /* the list of devices */
    }
    /* With several devices, a letter that stands in all their names is ambiguous. */
    if (count > 1) {
        assert_int_equal(device_open("e", &other), RETORT_EDEVICE);
        assert_non_null(strstr(retort_error_message(), "match"));
    }
    const char *kept = getenv("RETORT_DEVICE");
    char *copy = kept ? strdup(kept) : NULL;
    setenv("RETORT_DEVICE", "no-such-device", 1);
    assert_int_equal(device_open(NULL, &other), RETORT_EDEVICE);
    assert_non_null(strstr(retort_error_message(), "RETORT_DEVICE"));
    assert_int_equal(device_open("", &other), RETORT_EDEVICE);
    setenv("RETORT_DEVICE", "", 1);
    assert_ok(device_open(NULL, &other));
    device_close(other);
    if (copy)
        setenv("RETORT_DEVICE", copy, 1);
    else
        unsetenv("RETORT_DEVICE");
    free(copy);
    free(list);
}

/* A device that need not be present counts and refuses; the known ones are found by words. */
static void test_described(void **state) {
    (void)state;
    struct device_traits traits = {.kind = DEVICE_GPU,
                                   .name = "Voodoo",
                                   .platform = "Glide",
                                   .compute_units = 2,
                                   .lanes = 32,
                                   .max_work_group = 64,
                                   .global_memory = 1 << 20,
                                   .max_allocation = 1 << 19};
    struct device *described;
    struct device_buffer *buffer = NULL;
    struct device_program *program = NULL;
    struct device_peaks peaks;
    assert_ok(device_describe(&traits, &described));
    traits.name[0] = '\0'; /* they were copied */
    assert_string_equal(device_traits(described)->name, "Voodoo");
    device_set_units(described, 7);
    assert_int_equal(device_traits(described)->compute_units, 7);
    assert_int_equal(device_traits(described)->lanes, 7 * 16);
    device_set_units(described, 0);
    assert_int_equal(device_traits(described)->compute_units, 2);
    assert_int_equal(device_buffer_create(described, 1 << 20, "store", &buffer), RETORT_ELIMIT);
    device_set_ceiling(described, 100);
    assert_int_equal(device_buffer_create(described, 200, "store", &buffer), RETORT_ELIMIT);
    assert_int_equal(device_buffer_create(described, 50, "store", &buffer), RETORT_EUNSUPPORTED);
    assert_non_null(strstr(retort_error_message(), "store: Voodoo is described, not present"));
    assert_int_equal(device_bytes(described), 0);
    assert_int_equal(device_program_create(described, add_one, "", &program), RETORT_EUNSUPPORTED);
    assert_int_equal(device_profile_begin(described), RETORT_EUNSUPPORTED);
    assert_int_equal(device_self_test(described), RETORT_EUNSUPPORTED);
    assert_int_equal(device_measure_peaks(described, &peaks), RETORT_EUNSUPPORTED);
    assert_ok(device_finish(described));
    assert_ok(device_flush(described));
    assert_null(buffer);
    assert_null(program);
    device_close(described);

    size_t count;
    const struct device_traits *known = device_descriptions(&count);
    for (size_t i = 0; i < count; i++) { /* each is named by what compilers call it, in brackets */
        const char *word = strrchr(known[i].name, '(');
        assert_non_null(word);
        assert_ok(device_open_described(word, &described));
        assert_string_equal(device_traits(described)->name, known[i].name);
        device_close(described);
    }
    described = NULL;
    static const char *const wrong[] = {"voodoo", "geforce", "gpu", ""};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(device_open_described(wrong[i], &described), RETORT_EDEVICE);
        assert_null(described);
        assert_non_null(strstr(retort_error_message(), known[count - 1].name)); /* the list */
    }
}

static void test_ceiling(void **state) {
    (void)state;
    struct device_buffer *a, *b = NULL;
    assert_int_equal(device_bytes(device), 0);
    device_set_ceiling(device, 1000);
    assert_int_equal(device_ceiling(device), 1000);
    assert_ok(device_buffer_create(device, 600, "first", &a));
    assert_int_equal(device_buffer_size(a), 600);
    assert_int_equal(device_buffer_create(device, 401, "trajectory store", &b), RETORT_ELIMIT);
    assert_null(b);
    assert_non_null(strstr(retort_error_message(), "trajectory store"));
    assert_int_equal(device_buffer_create(device, SIZE_MAX, "x", &b), RETORT_ELIMIT);
    assert_ok(device_buffer_create(device, 400, "second", &b));
    assert_int_equal(device_bytes(device), 1000);
    device_buffer_destroy(b);
    assert_int_equal(device_bytes(device), 600);
    assert_int_equal(device_peak_bytes(device), 1000);
    device_reset_peak(device);
    assert_int_equal(device_peak_bytes(device), 600);
    device_set_ceiling(device, 100); /* below what is in use: nothing fits, nothing wraps round */
    assert_int_equal(device_buffer_create(device, 1, "x", &b), RETORT_ELIMIT);
    device_set_ceiling(device, 0);
    assert_int_equal(device_buffer_create(device, SIZE_MAX, "x", &b), RETORT_ELIMIT);
    assert_int_equal(device_buffer_create(device, device_traits(device)->max_allocation + 1, "x", &b), RETORT_ELIMIT);
    assert_ok(device_buffer_create(device, 0, "empty", &b));
    assert_true(device_buffer_size(b) > 0);
    device_buffer_destroy(b);
    device_buffer_destroy(a);
    device_buffer_destroy(NULL);
    assert_int_equal(device_bytes(device), 0);
}

static void test_transfers(void **state) {
    (void)state;
    struct device_buffer *a, *b;
    unsigned char data[64], got[64];
    for (int i = 0; i < 64; i++) data[i] = (unsigned char)(i + 1);
    assert_ok(device_buffer_create(device, 64, "a", &a));
    assert_ok(device_buffer_create(device, 64, "b", &b));
    assert_ok(device_write(device, a, 0, 64, data));
    assert_ok(device_write(device, b, 0, 64, data));
    assert_ok(device_copy(device, b, 5, a, 32, 32));
    assert_ok(device_fill_zero(device, b, 40, 3)); /* bytes */
    assert_ok(device_fill_zero(device, b, 44, 8)); /* words */
    assert_ok(device_flush(device));
    assert_ok(device_read(device, b, 0, 64, got));
    for (int i = 0; i < 64; i++) {
        int expected = (i >= 40 && i < 43) || (i >= 44 && i < 52) ? 0 : i >= 5 && i < 37 ? i - 5 + 33 : i + 1;
        assert_int_equal(got[i], expected);
    }
    assert_ok(device_copy(device, a, 0, a, 32, 32)); /* side by side */
    assert_int_equal(device_copy(device, a, 0, a, 31, 32), RETORT_EINVAL);
    static const struct {
        size_t offset, bytes;
    } wrong[] = {{0, 65}, {64, 1}, {65, 0}, {1, SIZE_MAX}, {SIZE_MAX, 1}, {SIZE_MAX, SIZE_MAX}, {32, SIZE_MAX - 16}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        size_t offset = wrong[i].offset, bytes = wrong[i].bytes;
        assert_int_equal(device_write(device, a, offset, bytes, data), RETORT_EINVAL);
        assert_int_equal(device_read(device, a, offset, bytes, got), RETORT_EINVAL);
        assert_int_equal(device_fill_zero(device, a, offset, bytes), RETORT_EINVAL);
        assert_int_equal(device_copy(device, a, offset, b, 0, bytes), RETORT_EINVAL);
        assert_int_equal(device_copy(device, b, 0, a, offset, bytes), RETORT_EINVAL);
    }
    assert_ok(device_write(device, a, 64, 0, data));
    assert_ok(device_read(device, a, 64, 0, got));
    assert_ok(device_finish(device));
    device_buffer_destroy(a);
    device_buffer_destroy(b);
}

/* Builds `add_one` with the given options, runs it on 1, 2, 3, 4 and returns the last result. */
static float run_add_one(const char *options) {
    struct device_program *program;
    struct device_kernel *kernel;
    struct device_buffer *buffer;
    float data[8] = {1, 2, 3, 4}, got[8];
    assert_ok(device_program_create(device, add_one, options, &program));
    assert_ok(device_kernel_create(program, "add_one", &kernel));
    assert_string_equal(device_kernel_name(kernel), "add_one");
    assert_ok(device_buffer_create(device, sizeof data, "test", &buffer));
    assert_ok(device_write(device, buffer, 0, sizeof data, data));
    assert_ok(device_kernel_set_buffer(kernel, 0, buffer, 4));
    assert_ok(device_kernel_set_buffer(kernel, 1, buffer, 0));
    device_kernel_set_work(kernel, 7, 56);
    assert_ok(device_launch(device, kernel, (size_t[]){4, 1, 1}, (size_t[]){0, 0, 0}));
    assert_ok(device_read(device, buffer, 0, sizeof got, got));
    for (int i = 0; i < 4; i++) assert_true(got[i] == data[i] && got[4 + i] - data[i] == got[4] - data[0]);
    device_buffer_destroy(buffer);
    device_kernel_destroy(kernel);
    device_program_destroy(program);
    return got[7];
}

/* The files of the cache folder whose names end so; the last one's path goes to `path`. */
static int count_files(const char *ending, char path[FILE_PATH_MAX]) {
    char cache[FILE_PATH_MAX];
    int count = 0;
    assert_ok(path_join(folder, "retort", cache));
    DIR *entries = opendir(cache);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        size_t length = strlen(entry->d_name);
        if (length < strlen(ending) || strcmp(entry->d_name + length - strlen(ending), ending) != 0) continue;
        count++;
        assert_ok(path_join(cache, entry->d_name, path));
    }
    if (entries) closedir(entries);
    return count;
}

static void test_program_cache(void **state) {
    (void)state;
    char path[FILE_PATH_MAX], deep[FILE_PATH_MAX];
    assert_int_equal(count_files(".clbin", path), 0);
    setenv("RETORT_CACHE", "off", 1);
    assert_true(run_add_one("-DONE=1.0f") == 5);
    assert_int_equal(count_files(".clbin", path), 0);
    setenv("RETORT_CACHE", "on", 1);
    double before = device_build_seconds(device);
    assert_true(run_add_one("-DONE=1.0f") == 5);
    assert_true(device_build_seconds(device) > before);
    assert_int_equal(count_files(".clbin", path), 1);
    unsigned char *fresh, *now;
    size_t size, new_size;
    assert_ok(file_read(path, 0, &fresh, &size));
    assert_true(run_add_one("-DONE=1.0f") == 5); /* from the cache */

    /* Damage of every kind is a miss, and the next build repairs the file. */
    static const size_t heads[] = {0, 23, 25};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        assert_ok(file_write(path, fresh, heads[i]));
        assert_true(run_add_one("-DONE=1.0f") == 5);
        assert_ok(file_read(path, 0, &now, &new_size));
        assert_true(new_size > heads[i]);
        free(now);
    }
    for (size_t at = 0; at < size; at += size / 3) {
        assert_ok(file_read(path, 0, &now, &new_size));
        now[at] ^= 0x55;
        assert_ok(file_write(path, now, new_size));
        assert_true(run_add_one("-DONE=1.0f") == 5);
        free(now);
    }
    free(fresh);

    /* Other options, another program. */
    assert_true(run_add_one("-DONE=2.0f") == 6);
    assert_int_equal(count_files(".clbin", path), 2);

    /* A cache that cannot be written is a miss: its folder's name is taken by a file. */
    assert_ok(path_join(folder, "a-file", deep));
    assert_ok(file_write(deep, "x", 1));
    setenv("XDG_CACHE_HOME", deep, 1);
    assert_true(run_add_one("-DONE=3.0f") == 7);
    setenv("XDG_CACHE_HOME", folder, 1);

    /* Left to itself, the cache stores no program at its first build. */
    unsetenv("RETORT_CACHE");
    assert_true(run_add_one("-DONE=4.0f") == 8);
    assert_int_equal(count_files(".clbin", path), 2);

    /* What is quick is never stored; what is slow is the second time, unless the driver has kept it itself. */
    assert_ok(path_join(folder, "retort/some.clbin", path));
    assert_false(cache_wants(path, 0.05));
    assert_false(cache_wants(path, 8));
    assert_false(cache_wants(path, 0.05));
    assert_false(cache_wants(path, 1));
    assert_true(cache_wants(path, 5));
    setenv("RETORT_CACHE", "on", 1);
    assert_true(cache_wants(path, 0.05));
    unsetenv("RETORT_CACHE");
}

static void test_failures(void **state) {
    (void)state;
    struct device_program *program = NULL;
    struct device_kernel *kernel = NULL;
    struct device_buffer *buffer;
    assert_int_equal(
        device_program_create(device, "kernel void k(global float *x) { x[0] = undeclared_thing; }", "", &program),
        RETORT_EDEVICE);
    assert_null(program);
    assert_non_null(strstr(retort_error_message(), "CL_BUILD_PROGRAM_FAILURE"));
    assert_non_null(strstr(retort_error_message(), "undeclared_thing"));
    const char *kept = strstr(retort_error_message(), folder);
    assert_non_null(kept);
    char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%.*s", (int)strcspn(kept, "\n"), kept);
    unsigned char *text;
    size_t size;
    assert_ok(file_read(path, 0, &text, &size));
    assert_non_null(strstr((char *)text, "kernel void k(global float *x)"));
    free(text);

    assert_ok(device_program_create(device, add_one, "-DONE=1.0f", &program));
    assert_int_equal(device_kernel_create(program, "no_such_kernel", &kernel), RETORT_EDEVICE);
    assert_non_null(strstr(retort_error_message(), "no_such_kernel"));
    assert_null(kernel);
    assert_ok(device_kernel_create(program, "add_one", &kernel));
    assert_ok(device_buffer_create(device, 64, "test", &buffer));
    assert_int_equal(device_kernel_set_buffer(kernel, 0, buffer, 17), RETORT_EINVAL);
    assert_int_equal(device_kernel_set_buffer(kernel, 0, buffer, UINT64_MAX), RETORT_EINVAL);
    assert_int_equal(device_kernel_set_buffer(kernel, 2, buffer, 0), RETORT_EDEVICE); /* it has two */
    assert_ok(device_kernel_set_buffer(kernel, 0, buffer, 0));
    assert_ok(device_kernel_set_buffer(kernel, 1, buffer, 0));
    assert_in_range(device_kernel_largest_group(kernel), 1, device_traits(device)->max_work_group);
    assert_int_equal(device_kernel_spilled(kernel), 0); /* a sum of two numbers */
    /* 16 work-items in groups of more than a device allows. */
    size_t huge = device_traits(device)->max_work_group * 2;
    assert_int_equal(device_launch(device, kernel, (size_t[]){huge, 1, 1}, (size_t[]){huge, 1, 1}), RETORT_EDEVICE);
    assert_non_null(strstr(retort_error_message(), "add_one"));
    assert_ok(device_finish(device));
    device_kernel_destroy(kernel);
    device_kernel_destroy(NULL);
    device_program_destroy(program);
    device_program_destroy(NULL);
    device_buffer_destroy(buffer);
}

static void test_profile(void **state) {
    (void)state;
    struct device_profile profile = {0};
    assert_int_equal(device_profile_end(device, &profile), RETORT_EINVAL);
    assert_ok(device_profile_begin(device));
    assert_int_equal(device_profile_begin(device), RETORT_EINVAL);
    for (int i = 0; i < 3; i++) run_add_one("-DONE=1.0f");
    assert_ok(device_profile_end(device, &profile));
    run_add_one("-DONE=1.0f"); /* off again */
    assert_int_equal(profile.count, 1);
    const struct device_profile_row *row = &profile.rows[0];
    assert_string_equal(row->name, "add_one");
    assert_int_equal(row->launches, 3);
    assert_true(row->seconds > 0 && row->seconds < 60);
    assert_true(row->flops == 3 * 7.0 && row->bytes == 3 * 56.0); /* as run_add_one says */
    device_profile_finish(&profile);
    device_profile_finish(&profile);
    assert_int_equal(device_profile_end(device, &profile), RETORT_EINVAL);
    /* Profiling left on is cleaned up by closing. */
    struct device *other;
    assert_ok(device_open(NULL, &other));
    assert_ok(device_profile_begin(other));
    device_close(other);
}

/* An interpreter would take hours for what keeps a device busy. */
static bool interpreted(void) {
    return strcmp(device_traits(device)->platform, "Oclgrind") == 0;
}

static void test_peaks(void **state) {
    (void)state;
    struct device_peaks peaks = {0};
    uint64_t bytes = device_bytes(device);
    if (interpreted()) skip();
    assert_ok(device_measure_peaks(device, &peaks));
    assert_true(peaks.flops > 1e6 && peaks.flops < 1e16);
    assert_true(peaks.bytes > 1e6 && peaks.bytes < 1e15);
    assert_true(device_bytes(device) == bytes);
    device_set_ceiling(device, bytes + (32 << 20)); /* the copy makes do with less; large GPUs want 8 MiB of sums */
    assert_ok(device_measure_peaks(device, &peaks));
    device_set_ceiling(device, bytes + 4096);
    assert_int_equal(device_measure_peaks(device, &peaks), RETORT_ELIMIT);
    device_set_ceiling(device, 0);
}

static void test_self_test(void **state) {
    (void)state;
    if (strcmp(device_traits(device)->platform, "rusticl") == 0
        && strncmp(device_traits(device)->name, "llvmpipe", 8) == 0) {
        /* This device does not compute long loops right, and is to be found out. */
        assert_int_equal(device_self_test(device), RETORT_EDEVICE);
        assert_non_null(strstr(retort_error_message(), "long_loop"));
        return;
    }
    assert_ok(device_self_test(device));
    assert_ok(device_self_test(device));
    assert_int_equal(device_bytes(device), 0);
}

/* Without any driver there are no devices, and that is no failure of listing; opening says what to do. The loader reads
 * its environment once, so this needs a process of its own: this program, started with an argument. */
static int without_drivers(void) {
    struct device_traits *list = NULL;
    size_t count = 99;
    struct device *none = NULL;
    if (device_list(&list, &count) != RETORT_OK || count != 0) return 1;
    free(list);
    if (device_open(NULL, &none) != RETORT_EDEVICE || none) return 2;
    return strstr(retort_error_message(), "install a driver") ? 0 : 3;
}

static const char *own_path;

static void test_no_drivers(void **state) {
    (void)state;
    char command[FILE_PATH_MAX + 100];
    snprintf(command, sizeof command,
             "OCL_ICD_VENDORS=/nowhere OPENCL_VENDOR_PATH=/nowhere LD_PRELOAD= '%s' no-drivers", own_path);
    assert_int_equal(system(command), 0);
}

/* A launch must cost a few microseconds of the host; the bound is loose, for shared machines. */
static void test_launch_cost(void **state) {
    (void)state;
    struct device_program *program;
    struct device_kernel *kernel;
    struct device_buffer *buffer;
    assert_ok(device_program_create(device, add_one, "-DONE=1.0f", &program));
    assert_ok(device_kernel_create(program, "add_one", &kernel));
    assert_ok(device_buffer_create(device, 64, "test", &buffer));
    double best = 1;
    for (int repeat = 0; repeat < 5; repeat++) {
        double begun = clock_seconds();
        for (int i = 0; i < 200; i++) {
            assert_ok(device_kernel_set_buffer(kernel, 0, buffer, 0));
            assert_ok(device_kernel_set_buffer(kernel, 1, buffer, 0));
            assert_ok(device_launch(device, kernel, (size_t[]){16, 1, 1}, (size_t[]){16, 1, 1}));
        }
        double enqueued = (clock_seconds() - begun) / 200;
        assert_ok(device_finish(device));
        if (enqueued < best) best = enqueued;
    }
    print_message("# %.1f us to set two buffers and launch\n", 1e6 * best);
    assert_true(best < 1e-3);
    device_kernel_destroy(kernel);
    device_program_destroy(program);
    device_buffer_destroy(buffer);
}

/* However much is launched, little of it is queued: what is left to wait for at the end is a small part of the whole.
 */
static void test_bounded_queue(void **state) {
    (void)state;
    enum { LAUNCHES = 400 };
    if (interpreted()) skip();
    static const char *const slow = "kernel void slow(global float *y, ulong y0) {\n"
                                    "    float x = y[y0];\n"
                                    "    for (int i = 0; i < 2500000; i++) x = x * 0.999f + 0.5f;\n"
                                    "    y[y0] = x;\n"
                                    "}\n";
    struct device_program *program;
    struct device_kernel *kernel;
    struct device_buffer *buffer;
    assert_ok(device_program_create(device, slow, "", &program));
    assert_ok(device_kernel_create(program, "slow", &kernel));
    assert_ok(device_buffer_create(device, 4, "test", &buffer));
    assert_ok(device_fill_zero(device, buffer, 0, 4));
    assert_ok(device_kernel_set_buffer(kernel, 0, buffer, 0));
    device_kernel_set_work(kernel, 1e8, 0);
    double begun = clock_seconds();
    for (int i = 0; i < LAUNCHES; i++)
        assert_ok(device_launch(device, kernel, (size_t[]){1, 1, 1}, (size_t[]){1, 1, 1}));
    double enqueued = clock_seconds();
    assert_ok(device_finish(device));
    double finished = clock_seconds();
    print_message("# %.2f s of launches, %.2f s of them queued at the end\n", finished - begun, finished - enqueued);
    assert_true(finished - enqueued < 0.5 * (finished - begun));
    device_kernel_destroy(kernel);
    device_program_destroy(program);
    device_buffer_destroy(buffer);
}

int main(int count, char **words) {
    if (count > 1) return without_drivers();
    own_path = words[0];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_list),       cmocka_unit_test(test_open_by_spec),  cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_lanes),      cmocka_unit_test(test_second_cache),  cmocka_unit_test(test_open_by_version),
        cmocka_unit_test(test_transfers),  cmocka_unit_test(test_program_cache), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_profile),    cmocka_unit_test(test_peaks),         cmocka_unit_test(test_self_test),
        cmocka_unit_test(test_no_drivers), cmocka_unit_test(test_launch_cost),   cmocka_unit_test(test_bounded_queue),
        cmocka_unit_test(test_described),
    };
    return cmocka_run_group_tests_name("device", tests, begin, end);
}
