/* Tuning: what the search over a class measures, within which time, and what it finds. Nothing is timed: a table of
 * speeds stands in for a device, but for the last test. */
#include "test.h"

#include "base/log.h"
#include "bench/bench.h"

#include <math.h>
#include <string.h>

static const struct device_traits traits = {.kind = DEVICE_GPU,
                                            .name = "a device",
                                            .driver = "1.0 test",
                                            .compute_units = 32,
                                            .lanes = 4096,
                                            .wave = 32,
                                            .vector_width = 1,
                                            .max_work_group = 1024,
                                            .local_memory = 49152};

/* What the device of a test is like, and what was measured on it. */
struct pretended {
    double speed;                     /* operations a second, of every choice but one */
    const struct kernel_choice *fast; /* which takes half the time; NULL: none */
    double longest;                   /* of the launches, in seconds */
    int measured, cut;                /* tasks; those that were smaller than the class */
    struct kernel_class class;
};

static int pretend(void *user, const struct tune_task *task, const struct trial_limits *limits,
                   struct trial_result *result) {
    struct pretended *device = user;
    (void)limits;
    double seconds = kernel_class_flops(&task->class) / device->speed;
    if (device->fast && strcmp(task->choice.variant, device->fast->variant) == 0
        && memcmp(task->choice.parameters, device->fast->parameters, sizeof task->choice.parameters) == 0)
        seconds /= 2;
    if (seconds > device->longest) device->longest = seconds;
    device->measured++;
    device->cut += !kernel_class_equal(&task->class, &device->class);
    *result = (struct trial_result){.once = seconds, .seconds = seconds};
    return RETORT_OK;
}

static int tune(struct pretended *device, const struct kernel_class *class, double ends, double deadline,
                struct tune_result *result) {
    const struct kernel_target target = kernels_target(&traits, FAMILY_AUTO);
    const struct tune_spec spec = {
        .class = *class, .ends = ends, .deadline = deadline, .measure = pretend, .user = device};
    device->class = *class;
    return bench_tune(&target, &spec, result);
}

/* The tiles of own products are candidates, as those of convolutions are, and the fastest is found. */
static void test_tiles(void **state) {
    (void)state;
    const struct kernel_target target = kernels_target(&traits, FAMILY_AUTO);
    const struct kernel_class product = class_of_product(&(struct matmul_sizes){1, 256, 300, 784, false, true});
    struct kernel_choice list[CANDIDATES];
    int count = kernels_candidates(&target, &product, kernels_variant("own"), list);
    assert_true(count > 8);
    for (int i = 1; i < count; i += 5) {
        struct pretended device = {.speed = 1e12, .fast = &list[i]};
        struct tune_result result;
        const struct kernel_choice own = kernels_explicit(&target, &product, &list[0]);
        if (memcmp(own.parameters, list[i].parameters, sizeof own.parameters) == 0) continue;
        assert_ok(tune(&device, &product, 0, 0, &result));
        assert_true(result.better && !result.cut_short);
        assert_string_equal(result.choice.variant, "own");
        assert_memory_equal(result.choice.parameters, list[i].parameters, sizeof list[i].parameters);
        assert_int_equal(device.cut, 0);
    }
}

/* However short a class's time is, the built-in choice and another are compared; but nothing is measured when all time
 * is over. */
static void test_least(void **state) {
    (void)state;
    const struct kernel_class classes[] = {
        class_of_product(&(struct matmul_sizes){1, 256, 300, 784, false, true}),
        {CONV_FORWARD, {10, 32, 14, 14, 32, 3, 3, 14, 14, 1, 1}, CONV_SINGLE},
    };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        struct pretended device = {.speed = 1e12};
        struct tune_result result = {.tried = 77};
        assert_ok(tune(&device, &classes[i], clock_seconds() - 1, clock_seconds() + 100, &result));
        assert_int_equal(result.tried, 2);
        assert_int_equal(device.measured, 2);
        assert_true(result.cut_short);
        assert_true(result.built_in_seconds > 0);
        device.measured = 0;
        assert_int_equal(tune(&device, &classes[i], clock_seconds() - 1, clock_seconds() - 1, &result),
                         RETORT_EINTERRUPTED);
        assert_int_equal(device.measured, 0);
        assert_ok(tune(&device, &classes[i], clock_seconds() + 100, clock_seconds() + 100, &result));
        assert_true(result.tried > 2 && !result.cut_short);
    }
}

/* No launch takes over a tenth of a second, also where the whole class does; and what the whole takes is told. */
static void test_short_launches(void **state) {
    (void)state;
    const struct kernel_class classes[] = {
        class_of_product(&(struct matmul_sizes){1, 400000, 512, 512, false, false}),
        class_of_product(&(struct matmul_sizes){2, 512, 200000, 512, true, true}),
        class_of_product(&(struct matmul_sizes){3000, 200, 300, 512, false, true}),
        {CONV_BACKWARD_DATA, {5000, 64, 32, 32, 64, 3, 3, 32, 32, 1, 1}, CONV_SINGLE},
    };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++) {
        struct pretended device = {.speed = 1e11};
        struct tune_result result;
        double whole = kernel_class_flops(&classes[i]) / device.speed;
        assert_true(whole > 0.5);
        assert_ok(tune(&device, &classes[i], 0, 0, &result));
        assert_true(device.longest <= 0.1);
        assert_int_equal(device.cut, device.measured);
        assert_true(fabs(result.built_in_seconds - whole) < 1e-3 * whole);
    }
}

/* Products in tiles that are asked for are right. */
static void test_products_in_tiles(void **state) {
    (void)state;
    struct device *device;
    struct tune_bench *bench;
    assert_ok(device_open(TEST_DEVICE, &device));
    const struct kernel_target target = kernels_target(device_traits(device), FAMILY_GPU);
    assert_ok(tune_bench_create(device, &target, &bench));
    const struct kernel_class class = class_of_product(&(struct matmul_sizes){2, 37, 53, 290, true, false});
    struct kernel_choice list[CANDIDATES];
    int count = kernels_candidates(&target, &class, kernels_variant("own"), list);
    assert_true(count > 6);
    for (int i = 0; i < count; i += 5) {
        struct tune_task task = {class, list[i]};
        const struct trial_limits limits = {.spill = true};
        struct trial_result result;
        if (i % 2) task.choice.parameters[7] = 3; /* parts of the sum */
        assert_ok(tune_bench_measure(bench, &task, &limits, &result));
        if (result.fault) fail_msg("candidate %d: %s, error %g", i, result.fault, result.error);
        assert_true(result.error < 4e-6);
    }
    tune_bench_destroy(bench);
    device_close(device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_least),
        cmocka_unit_test(test_short_launches),
        cmocka_unit_test(test_products_in_tiles),
    };
    return cmocka_run_group_tests_name("tune", tests, NULL, NULL);
}
