/* Plans on a device that has less memory than this one, or allocates less of it in one piece: what false_driver.c,
 * which meson preloads, lets every device say. */
#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/random.h"
#include "unroll/meta.h"
#include "unroll/unroll.h"

static struct device *device;
static struct library *library;

static void open_small(uint64_t memory, uint64_t allocation) {
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)memory);
    setenv("RETORT_TEST_MEMORY", text, 1);
    snprintf(text, sizeof text, "%llu", (unsigned long long)allocation);
    setenv("RETORT_TEST_ALLOCATION", text, 1);
    assert_ok(device_open("cpu", &device));
    assert_true(device_traits(device)->global_memory == memory);
    assert_true(device_traits(device)->max_allocation == allocation);
    assert_ok(library_create_with(device, FAMILY_AUTO, NULL, &library));
}

static void close_small(void) {
    library_destroy(library);
    device_close(device);
}

/* --- large trainings on a card of 8 GB that allocates 2 GB in one piece --- */
static void test_large_plans(void **state) {
    (void)state;
    static const struct {
        const char *name;
        int side, depth, classes, ipc;
    } cases[] = {
        {"CIFAR-100 at 50 images per class", 32, 3, 100, 50},
        {"Tiny-ImageNet at 10 images per class", 64, 4, 200, 10},
        {"Tiny-ImageNet at 50 images per class", 64, 4, 200, 50},
    };
    const uint64_t memory = 8000000000, allocation = 2000000000;
    open_small(memory, allocation);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct network_spec spec = {.kind = NETWORK_CONVNET,
                                          .depth = cases[i].depth,
                                          .width = 128,
                                          .norm = NORM_INSTANCE,
                                          .activation = ACTIVATION_RELU,
                                          .pool = POOL_AVERAGE};
        struct network network;
        assert_ok(network_describe(&spec, 3, cases[i].side, cases[i].side, cases[i].classes, &network));
        const struct meta_spec meta = {.network = &network, .batch = 1024};
        const struct pass_spec pass = meta_pass(&meta);
        const int64_t n = (int64_t)cases[i].classes * cases[i].ipc;
        const struct unroll_spec training = {
            .network = &network,
            .optimizer = {.kind = OPTIMIZER_ADAM, .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8},
            .set_count = n,
            .batch = n,
            .soft_labels = true,
            .max_window = 100,
            .steps = 200,
            .passes = &pass,
            .pass_count = 1,
            .plan_only = true};
        struct unroll *unroll;
        struct unroll_plan plan;
        char text[200];
        assert_ok(unroll_create(library, &training, &unroll));
        unroll_plan(unroll, &plan);
        unroll_describe(unroll, text, sizeof text);
        print_message("# %s: %s\n", cases[i].name, text);
        assert_true(plan.inner_splits > 1);
        assert_in_range(unroll_bytes(unroll), 1, memory);
        unroll_destroy(unroll);
    }
    close_small();
}

/* --- a small training on a device that allocates next to nothing in one piece --- */
enum { COUNT = 6, BATCH = 4, STEPS = 7, WINDOW = 6, REAL = 5, PIXELS = 2 * 4 * 4, CLASSES = 3 };

/* The gradient by the images; the number of buffers that hold the window. */
static void train(float *images_gradient) {
    const struct network_spec spec = {
        .kind = NETWORK_MLP, .depth = 1, .width = 5, .activation = ACTIVATION_SWISH, .pool = POOL_AVERAGE};
    struct network network;
    struct unroll *unroll;
    struct random random = random_begin(4, RANDOM_TEST, 0);
    float images[COUNT * PIXELS], real[REAL * PIXELS], theta[256];
    int32_t labels[COUNT], real_labels[REAL], rows[STEPS * BATCH];
    assert_ok(network_describe(&spec, 2, 4, 4, CLASSES, &network));
    assert_true(network.theta_count <= 256);
    for (int i = 0; i < COUNT * PIXELS; i++) images[i] = (float)random_normal(&random);
    for (int i = 0; i < REAL * PIXELS; i++) real[i] = (float)random_normal(&random);
    for (int i = 0; i < 256; i++) theta[i] = 0.4f * (float)random_normal(&random);
    for (int i = 0; i < COUNT; i++) labels[i] = i % CLASSES;
    for (int i = 0; i < REAL; i++) real_labels[i] = i % CLASSES;
    for (int i = 0; i < STEPS * BATCH; i++) rows[i] = (int32_t)random_below(&random, COUNT);
    const struct meta_spec meta_spec = {.network = &network, .batch = REAL};
    const struct pass_spec pass = meta_pass(&meta_spec);
    const struct unroll_spec training = {
        .network = &network,
        .optimizer = {.kind = OPTIMIZER_ADAM, .lr = 0.02, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-6},
        .set_count = COUNT,
        .batch = BATCH,
        .max_window = WINDOW,
        .passes = &pass,
        .pass_count = 1};
    struct unroll_gradient gradient = {.images = images_gradient};
    assert_ok(unroll_create(library, &training, &unroll));
    struct pass *meta = unroll_pass(unroll, 0);
    assert_ok(unroll_set(unroll, 0, images, NULL, labels));
    assert_ok(unroll_upload_steps(unroll, &(struct unroll_steps){.first = 1, .count = STEPS, .rows = rows}));
    assert_ok(meta_upload(meta, real, real_labels, NULL));
    assert_ok(unroll_begin_from(unroll, theta));
    assert_ok(unroll_train(unroll, 0, STEPS - WINDOW, false));
    assert_ok(unroll_window(unroll, STEPS - WINDOW, WINDOW, false));
    assert_ok(meta_run(meta));
    assert_ok(unroll_backward(unroll, meta_lambda(meta), HESSIAN_EXACT, &gradient));
    unroll_destroy(unroll);
}

/* The window's store in several buffers changes no bit; less than a step of it in one piece is refused with a word. */
static void test_store_in_pieces(void **state) {
    (void)state;
    float whole[COUNT * PIXELS], pieces[COUNT * PIXELS];
    open_small(1 << 30, 1 << 28);
    train(whole);
    close_small();
    open_small(1 << 30, 7000); /* a slot takes 2,304 bytes, the window's eight 18,432 */
    train(pieces);
    close_small();
    assert_memory_equal(pieces, whole, sizeof whole);

    open_small(1 << 30, 2000);
    struct network network;
    struct unroll *unroll;
    const struct network_spec spec = {.kind = NETWORK_MLP, .depth = 1, .width = 64, .pool = POOL_AVERAGE};
    assert_ok(network_describe(&spec, 2, 4, 4, CLASSES, &network));
    const struct unroll_spec training = {
        .network = &network, .optimizer = {.kind = OPTIMIZER_SGD, .lr = 0.1}, .set_count = 4, .batch = 4};
    assert_int_equal(unroll_create(library, &training, &unroll), RETORT_ELIMIT);
    assert_non_null(strstr(retort_error_message(), "in one piece"));
    close_small();
    open_small(10000, 10000);
    assert_int_equal(unroll_create(library, &training, &unroll), RETORT_ELIMIT);
    assert_non_null(strstr(retort_error_message(), "does not suffice"));
    close_small();
}

int main(void) {
    if (device_open("cpu", &device) < 0) {
        printf("1..0 # SKIP no OpenCL CPU device: %s\n", retort_error_message());
        return 0;
    }
    device_close(device);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_large_plans), cmocka_unit_test(test_store_in_pieces)};
    return cmocka_run_group_tests_name("small_device", tests, NULL, NULL);
}
