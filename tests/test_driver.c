/* What the device module makes of drivers that say odd things, want little or fail: see false_driver.c, which meson
 * preloads. */
#define _GNU_SOURCE /* RTLD_DEFAULT */
#include "test.h"

#include "base/log.h"
#include "compile/kernels.h"
#include "device/device.h"
#include "device/fft.h"
#include "device/gemm.h"
#include "distill/dct.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct device *device;

static void open_with(const char *name, const char *value) {
    setenv(name, value, 1);
    assert_ok(device_open(NULL, &device));
}

static void close_without(const char *name) {
    device_close(device);
    unsetenv(name);
}

/* Sizes that a driver leaves out, or that cannot be. */
static void test_memory_sizes(void **state) {
    (void)state;
    static const struct {
        const char *memory, *allocation;
        uint64_t expected_memory, expected_allocation;
    } cases[] = {
        {"0", "0", 128 << 20, 128 << 20},         {"8000000000", "0", 8000000000, 2000000000},
        {"200000000", "0", 200000000, 128 << 20}, {"100000000", "0", 100000000, 100000000},
        {"0", "300000000", 300000000, 300000000}, {"1000000000", "18446744073709551615", 1000000000, 1000000000},
        {"1000000000", "5000", 1000000000, 5000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setenv("RETORT_TEST_ALLOCATION", cases[i].allocation, 1);
        open_with("RETORT_TEST_MEMORY", cases[i].memory);
        assert_int_equal(device_traits(device)->global_memory, cases[i].expected_memory);
        assert_int_equal(device_traits(device)->max_allocation, cases[i].expected_allocation);
        struct device_buffer *buffer = NULL;
        assert_int_equal(device_buffer_create(device, cases[i].expected_allocation + 1, "x", &buffer), RETORT_ELIMIT);
        assert_null(buffer);
        close_without("RETORT_TEST_MEMORY");
    }
    unsetenv("RETORT_TEST_ALLOCATION");
}

/* Groups of one item are all that kernels for CPUs want. */
static void test_smallest_groups(void **state) {
    (void)state;
    static const char *const sizes[] = {"0", "1", "2", "31"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        open_with("RETORT_TEST_GROUP", sizes[i]);
        assert_int_equal(device_traits(device)->max_work_group, i == 0 ? 1 : atoi(sizes[i]));
        assert_ok(device_self_test(device));
        close_without("RETORT_TEST_GROUP");
    }
}

/* Copies on a GPU are measured outside the largest caches there are, but within a largest allocation. */
static void test_copy_of_gpu(void **state) {
    (void)state;
    const size_t mebibyte = 1 << 20;
    struct device_peaks peaks;
    setenv("RETORT_TEST_MEMORY", "8000000000", 1);
    setenv("RETORT_TEST_ALLOCATION", "8000000000", 1);
    open_with("RETORT_TEST_KIND", "gpu");
    assert_int_equal(device_traits(device)->kind, DEVICE_GPU);
    device_set_units(device, 1); /* a short measurement of its arithmetic */
    /* 512 MiB, or four times what is said of the cache: the processor's here, which servers have hundreds of MiB of. */
    uint64_t cache = device_traits(device)->cache, large = 4 * cache > 512 * mebibyte ? 4 * cache : 512 * mebibyte;
    if (large > 2000000000) large = 2000000000; /* a quarter of the memory */
    assert_ok(device_measure_peaks(device, &peaks));
    assert_in_range(device_peak_bytes(device), 2 * large, 2 * large + 16 * mebibyte);
    device_close(device);
    open_with("RETORT_TEST_ALLOCATION", "40000000");
    device_set_units(device, 1);
    assert_ok(device_measure_peaks(device, &peaks));
    assert_in_range(device_peak_bytes(device), 60000000, 80000000);
    device_close(device);
    open_with("RETORT_TEST_ALLOCATION", "0"); /* and memory that others have taken, so that nothing wraps round */
    struct device_buffer *buffer;
    assert_ok(device_buffer_create(device, 2000000000, "most", &buffer));
    device_set_ceiling(device, 1000);
    assert_int_equal(device_measure_peaks(device, &peaks), RETORT_ELIMIT);
    device_buffer_destroy(buffer);
    close_without("RETORT_TEST_KIND");
    unsetenv("RETORT_TEST_MEMORY");
    unsetenv("RETORT_TEST_ALLOCATION");
}

static const char *const one = "kernel void one(global float *y, ulong y0) { y[y0 + get_global_id(0)] = 1.0f; }\n";

/* Drivers that wait to be told begin with the first launch, and get more before they have done what they have. */
static void test_flushes(void **state) {
    (void)state;
    long (*count)(void);
    *(void **)&count = dlsym(RTLD_DEFAULT, "false_driver_flushes");
    assert_non_null(count);
    struct device_program *program;
    struct device_kernel *kernel;
    struct device_buffer *buffer;
    assert_ok(device_open(NULL, &device));
    assert_ok(device_program_create(device, one, "", &program));
    assert_ok(device_kernel_create(program, "one", &kernel));
    assert_ok(device_buffer_create(device, 64, "test", &buffer));
    assert_ok(device_kernel_set_buffer(kernel, 0, buffer, 0));
    for (int round = 0; round < 2; round++) { /* the second after the queue was empty again */
        long before = count();
        for (int i = 0; i < 85; i++) {
            assert_ok(device_launch(device, kernel, (size_t[]){16, 1, 1}, (size_t[]){1, 1, 1}));
            if (i == 0) assert_int_equal(count() - before, 1);
            if (i == 4) assert_int_equal(count() - before, 2);
        }
        assert_int_equal(count() - before, 4); /* after 1, 4, 16 and 64 launches */
        assert_ok(device_finish(device));
    }
    device_buffer_destroy(buffer);
    device_kernel_destroy(kernel);
    device_program_destroy(program);
    device_close(device);
}

/* A failure says what a user can do, and which kernel was running. */
static void test_advice(void **state) {
    (void)state;
    static const struct {
        const char *failure, *words;
        int status;
    } cases[] = {
        {"launch 1 -5", "memory that ran out", RETORT_EDEVICE},
        {"launch 1 -2", "retort devices", RETORT_EDEVICE},
        {"launch 1 -4", "set `memory`", RETORT_ELIMIT},
        {"finish 1 -5", "last kernel launched was one", RETORT_EDEVICE},
        {"finish 1 -2", "retort devices", RETORT_EDEVICE},
        {"buffer 1 -4", "set `memory`", RETORT_ELIMIT},
        {"buffer 1 -6", "computer's memory", RETORT_ENOMEM},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct device_program *program;
        struct device_kernel *kernel;
        struct device_buffer *buffer = NULL;
        int status;
        open_with("RETORT_TEST_FAIL", cases[i].failure);
        assert_ok(device_program_create(device, one, "", &program));
        assert_ok(device_kernel_create(program, "one", &kernel));
        status = device_buffer_create(device, 64, "test", &buffer);
        if (status == RETORT_OK) status = device_kernel_set_buffer(kernel, 0, buffer, 0);
        if (status == RETORT_OK) status = device_launch(device, kernel, (size_t[]){16, 1, 1}, (size_t[]){1, 1, 1});
        if (status == RETORT_OK) status = device_finish(device);
        assert_int_equal(status, cases[i].status);
        if (!strstr(retort_error_message(), cases[i].words)) fail_msg("%s", retort_error_message());
        device_buffer_destroy(buffer);
        device_kernel_destroy(kernel);
        device_program_destroy(program);
        close_without("RETORT_TEST_FAIL");
    }
}

/* A library that fails in its test is not asked; one that fails later ends the run with a message, not the program. */
static void test_failing_library(void **state) {
    (void)state;
    struct gemm gemm = {.batch = 1, .m = 3, .n = 3, .k = 3, .alpha = 1};
    struct device_buffer *buffer;
    char words[GEMM_WORDS];
    if (!device_gemm_library()) {
        print_message("this build has no CLBlast\n");
        skip();
    }
    open_with("RETORT_TEST_FAIL", "launch 5 -5");
    struct kernel_target target = kernels_target(device_traits(device), FAMILY_AUTO);
    target.gemm = "clblast";
    log_set_level(LOG_QUIET);
    for (int i = 0; i < 2; i++) { /* nor is it tried again */
        assert_ok(kernels_settle_gemm(&target, device, words));
        assert_null(target.calls);
        assert_non_null(strstr(words, i ? "failed its test" : "CL_OUT_OF_RESOURCES"));
    }
    log_set_level(LOG_INFO);
    close_without("RETORT_TEST_FAIL");

    open_with("RETORT_TEST_FAIL", "");
    assert_ok(device_gemm_trust(device));
    assert_ok(device_gemm_plan(device, &gemm));
    assert_ok(device_buffer_create(device, 9 * sizeof(float), "test", &buffer));
    const struct gemm_place places[GEMM_OPERANDS] = {{buffer, 0}, {buffer, 0}, {buffer, 0}};
    assert_ok(device_gemm(device, &gemm, places, NULL));
    setenv("RETORT_TEST_FAIL", "launch 1 -5", 1);
    assert_int_equal(device_gemm(device, &gemm, places, NULL), RETORT_EDEVICE);
    assert_non_null(strstr(retort_error_message(), "multiplying 3 x 3 by 3 x 3 with CLBlast"));
    assert_non_null(strstr(retort_error_message(), "CL_OUT_OF_RESOURCES"));
    setenv("RETORT_TEST_FAIL", "launch 1 -54", 1); /* CL_INVALID_WORK_GROUP_SIZE */
    assert_int_equal(device_gemm(device, &gemm, places, NULL), RETORT_EDEVICE);
    device_buffer_destroy(buffer);
    close_without("RETORT_TEST_FAIL");
}

/* Spectra that are wrong by the library, or that it cannot compute, are computed by matrix products. */
static void test_failing_transforms(void **state) {
    (void)state;
    static const char *const troubles[][2] = {
        {"RETORT_TEST_BAD", "corrupt dct_give_1"},
        {"RETORT_TEST_BAD", "corrupt dct_give_3"},
        {"RETORT_TEST_BAD", "refuse dct_take"},
        {"RETORT_TEST_FAIL", "buffer 6 -4"}, /* the fifth is that of the products' cosines */
    };
    const struct dct_shape shape = {3, 1, 8, 6};
    if (!device_fft_library()) {
        print_message("this build has no clFFT\n");
        skip();
    }
    for (size_t i = 0; i <= sizeof troubles / sizeof *troubles; i++) {
        const bool healthy = i == sizeof troubles / sizeof *troubles;
        const char *name = healthy ? "RETORT_TEST_BAD" : troubles[i][0];
        struct library *library;
        struct dct *dct;
        open_with(name, healthy ? "" : troubles[i][1]);
        assert_ok(library_create(device, FAMILY_AUTO, &library));
        assert_ok(dct_create(library, &shape, DCT_CLFFT, &dct));
        assert_ok(library_build(library));
        log_set_level(LOG_QUIET);
        assert_ok(dct_allocate(dct));
        log_set_level(LOG_INFO);
        assert_int_equal(dct_settled(dct), healthy ? DCT_CLFFT : DCT_MATRIX);
        if (i < 2) assert_true(dct_difference(dct) > DCT_TOLERANCE);
        if (healthy) assert_true(dct_difference(dct) < DCT_TOLERANCE);
        assert_string_equal(retort_error_message(), "");
        const int64_t bytes = 2 * 3 * 8 * 6 + 8 * 8 + 6 * 6;
        if (!healthy) assert_int_equal(device_bytes(device), bytes * 4 + library_scratch_bytes(library));
        dct_destroy(dct);
        library_destroy(library);
        assert_int_equal(device_bytes(device), 0);
        close_without(name);
    }
}

int main(void) {
    if (device_open(NULL, &device) < 0) {
        printf("1..0 # SKIP no OpenCL device: %s\n", retort_error_message());
        return 0;
    }
    device_close(device);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_memory_sizes),
                                       cmocka_unit_test(test_smallest_groups),
                                       cmocka_unit_test(test_copy_of_gpu),
                                       cmocka_unit_test(test_flushes),
                                       cmocka_unit_test(test_advice),
                                       cmocka_unit_test(test_failing_library),
                                       cmocka_unit_test(test_failing_transforms)};
    return cmocka_run_group_tests_name("driver", tests, NULL, NULL);
}
