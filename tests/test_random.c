/* Random numbers are the same on every device, to the last bit: uniform streams and initial weights are compared with
 * the host's, for both families of kernels. Normal numbers pass through functions that devices round as they like. */
#include "test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/random.h"
#include "compile/executable.h"
#include "nn/nn.h"

static struct device *device;
static const int32_t seeds[][2] = {{0, 0}, {1, 0}, {-1, -1}, {0x12345678, (int32_t)0x9abcdef0}};

/* Element i of a stream, as graph.h says: 24 bits of a word as a fraction of one. */
static float uniform(const int32_t seed[2], uint32_t stream, int64_t i) {
    const uint32_t key[2] = {(uint32_t)seed[0], (uint32_t)seed[1]}, counter[4] = {(uint32_t)(i / 4), 0, 0, stream};
    uint32_t words[4];
    philox4x32(counter, key, words);
    return (float)(words[i % 4] >> 8) * 0x1p-24f;
}

/* Runs a graph of input `seed` and result `y` of `count` floats for each seed; the results lie one after another. */
static float *draw(enum family family, const struct graph *graph, int64_t count) {
    enum { SEEDS = sizeof seeds / sizeof *seeds };
    struct library *library;
    struct executable *executable;
    struct device_buffer *seed, *y;
    float *got = malloc((size_t)(SEEDS * count) * sizeof *got);
    assert_non_null(got);
    assert_ok(library_create_with(device, family, NULL, &library));
    assert_ok(executable_create(library, graph, "draw", &executable));
    assert_ok(library_build(library));
    assert_ok(device_buffer_create(device, sizeof *seeds, "seed", &seed));
    assert_ok(device_buffer_create(device, (size_t)count * sizeof *got, "numbers", &y));
    assert_ok(executable_bind(executable, "seed", seed, 0));
    assert_ok(executable_bind(executable, "y", y, 0));
    for (int i = 0; i < SEEDS; i++) {
        assert_ok(device_write(device, seed, 0, sizeof *seeds, seeds[i]));
        assert_ok(executable_enqueue(executable));
        assert_ok(device_read(device, y, 0, (size_t)count * sizeof *got, got + i * count));
    }
    device_buffer_destroy(y);
    device_buffer_destroy(seed);
    executable_destroy(executable);
    library_destroy(library);
    return got;
}

static void expect_number(const char *what, const int32_t seed[2], int64_t i, float got, float expected) {
    if (!(got == expected))
        fail_msg("%s of seed %d %d: number %lld is %.9g, expected %.9g", what, seed[0], seed[1], (long long)i, got,
                 expected);
}

/* Numbers past the first blocks, sizes that are no multiple of a vector, several streams. */
static void test_uniform(void **state) {
    const enum family family = *(const enum family *)*state;
    enum { COUNT = 5003 };
    static const uint32_t streams[] = {RANDOM_LANCZOS, RANDOM_PARAMETER + 3};
    for (size_t s = 0; s < sizeof streams / sizeof *streams; s++) {
        struct graph *graph;
        assert_ok(graph_create(&graph));
        struct node *seed = graph_input(graph, "seed", INT32, SHAPE(2));
        graph_output(graph, "y", graph_random(seed, RANDOM_UNIFORM01, streams[s], SHAPE(COUNT)));
        assert_ok(graph_status(graph));
        float *got = draw(family, graph, COUNT);
        for (size_t k = 0; k < sizeof seeds / sizeof *seeds; k++)
            for (int64_t i = 0; i < COUNT; i++)
                expect_number("the stream", seeds[k], i, got[k * COUNT + (size_t)i], uniform(seeds[k], streams[s], i));
        free(got);
        graph_destroy(graph);
    }
}

static void test_weights(void **state) {
    const enum family family = *(const enum family *)*state;
    const struct network_spec spec = {.kind = NETWORK_CONVNET,
                                      .depth = 2,
                                      .width = 12,
                                      .norm = NORM_INSTANCE,
                                      .activation = ACTIVATION_RELU,
                                      .pool = POOL_AVERAGE};
    struct network network;
    assert_ok(network_describe(&spec, 3, 13, 13, 7, &network));
    struct graph *graph;
    assert_ok(graph_create(&graph));
    struct node *seed = graph_input(graph, "seed", INT32, SHAPE(2));
    graph_output(graph, "y", network_initial_theta(graph, &network, seed));
    assert_ok(graph_status(graph));
    float *got = draw(family, graph, network.theta_count);
    for (size_t k = 0; k < sizeof seeds / sizeof *seeds; k++)
        for (int p = 0; p < network.parameter_count; p++) {
            const struct network_parameter *parameter = &network.parameters[p];
            const float *values = got + (int64_t)k * network.theta_count + parameter->offset;
            float bound = (float)(1 / sqrt((double)parameter->fan_in));
            for (int64_t i = 0; i < parameter->count; i++) {
                float expected = parameter->role == PARAMETER_GAMMA ? 1
                                 : parameter->role == PARAMETER_BETA
                                     ? 0
                                     : (2 * uniform(seeds[k], RANDOM_PARAMETER + (uint32_t)p, i) - 1) * bound;
                expect_number("a parameter", seeds[k], i, values[i], expected);
            }
        }
    free(got);
    graph_destroy(graph);
}

int main(void) {
    static enum family cpu = FAMILY_CPU, gpu = FAMILY_GPU;
    if (device_open(NULL, &device) < 0) {
        printf("1..0 # SKIP no OpenCL device: %s\n", retort_error_message());
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_uniform, &cpu), cmocka_unit_test_prestate(test_uniform, &gpu),
        cmocka_unit_test_prestate(test_weights, &cpu), cmocka_unit_test_prestate(test_weights, &gpu)};
    int failed = cmocka_run_group_tests_name("random", tests, NULL, NULL);
    device_close(device);
    return failed;
}
