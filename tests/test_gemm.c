/* Matrix products by a library: whether its test finds what is wrong, and executables that call it. Skipped where the
 * build has no library, but for what is then said. */
#include "test.h"

#include "base/log.h"
#include "compile/kernels.h"
#include "compile/launch.h"
#include "compile/wisdom.h"
#include "device/gemm.h"
#include "graphs.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static struct device *device;

static void need_library(void) {
    if (!device_gemm_library()) {
        print_message("this build has no CLBlast\n");
        skip();
    }
}

/* --- the test of a library --- */
static void test_right(void **state) {
    (void)state;
    struct device *other;
    if (!device_gemm_library()) {
        assert_int_equal(device_gemm_trust(device), RETORT_EUNSUPPORTED);
        assert_non_null(strstr(retort_error_message(), "libclblast-dev"));
    }
    need_library();
    assert_ok(device_gemm_trust(device));
    assert_ok(device_gemm_trust(device));
    assert_int_equal(device_peak_bytes(device), 0); /* the test's memory is no run's */
    assert_ok(device_open_described("gtx 1060", &other));
    assert_int_equal(device_gemm_trust(other), RETORT_EUNSUPPORTED);
    device_close(other);
}

static int add_to(const struct gemm_place *place, int64_t element, float difference) {
    size_t at = (size_t)((int64_t)place->offset + element) * sizeof(float);
    float value;
    int status = device_read(device, place->buffer, at, sizeof value, &value);
    value = isnan(value) ? 1 : value + difference;
    return status < 0 ? status : device_write(device, place->buffer, at, sizeof value, &value);
}

/* Libraries that are right but for one thing each. */
static int wrong_last(struct device *d, const struct gemm *g, const struct gemm_place *places,
                      struct device_buffer *s) {
    int status = device_gemm(d, g, places, s);
    return status < 0 ? status : add_to(&places[GEMM_C], (int64_t)gemm_elements(g, GEMM_C) - 1, 0.001f);
}
static int wrong_behind(struct device *d, const struct gemm *g, const struct gemm_place *places,
                        struct device_buffer *s) {
    int status = device_gemm(d, g, places, s);
    return status < 0 ? status : add_to(&places[GEMM_C], (int64_t)gemm_elements(g, GEMM_C) + 2, 1);
}
static int wrong_before(struct device *d, const struct gemm *g, const struct gemm_place *places,
                        struct device_buffer *s) {
    int status = device_gemm(d, g, places, s);
    return status < 0 ? status : add_to(&places[GEMM_C], -5, 1);
}
static int wrong_operand(struct device *d, const struct gemm *g, const struct gemm_place *places,
                         struct device_buffer *s) {
    int status = device_gemm(d, g, places, s);
    return status < 0 ? status : add_to(&places[GEMM_B], 0, 1);
}
static int wrong_transpose(struct device *d, const struct gemm *g, const struct gemm_place *places,
                           struct device_buffer *s) {
    struct gemm other = *g;
    other.transpose_b = false;
    return device_gemm(d, &other, places, s);
}
static int wrong_beta(struct device *d, const struct gemm *g, const struct gemm_place *places,
                      struct device_buffer *s) {
    struct gemm other = *g;
    if (g->beta == 0) other.beta = 1; /* reads what is no number */
    return device_gemm(d, &other, places, s);
}
static int wrong_alpha(struct device *d, const struct gemm *g, const struct gemm_place *places,
                       struct device_buffer *s) {
    struct gemm other = *g;
    other.alpha = 1;
    return device_gemm(d, &other, places, s);
}
static int wrong_batch(struct device *d, const struct gemm *g, const struct gemm_place *places,
                       struct device_buffer *s) {
    struct gemm other = *g;
    other.batch = 1;
    return device_gemm(d, &other, places, s);
}
static int wrong_offset(struct device *d, const struct gemm *g, const struct gemm_place *places,
                        struct device_buffer *s) {
    struct gemm_place others[GEMM_OPERANDS];
    memcpy(others, places, sizeof others);
    others[GEMM_A].offset &= ~(uint64_t)1;
    return device_gemm(d, g, others, s);
}
static int wrong_large(struct device *d, const struct gemm *g, const struct gemm_place *places,
                       struct device_buffer *s) {
    return g->scratch ? wrong_last(d, g, places, s) : device_gemm(d, g, places, s);
}
static int failing(struct device *d, const struct gemm *g, const struct gemm_place *places, struct device_buffer *s) {
    return g->m > 1 ? error_set(RETORT_EDEVICE, "the library cannot") : device_gemm(d, g, places, s);
}

static void test_wrong(void **state) {
    (void)state;
    static const struct {
        gemm_function *multiply;
        const char *words;
    } cases[] = {
        {wrong_last, "computes element (0, 0) of matrix 0 of 1 x 1 by 1 x 1"},
        {wrong_behind, "writes 3 elements behind the result of 1 x 1 by 1 x 1"},
        {wrong_before, "writes 5 elements before the result"},
        {wrong_operand, "changes an operand of"},
        {wrong_transpose, " transposed (batch 1, alpha 1, beta 0)"},
        {wrong_beta, "beta 0) as nan"},
        {wrong_alpha, "alpha 0"},
        {wrong_batch, "of matrix 1 of 17 x 31 by 31 x 33 (batch 3"},
        {wrong_offset, "computes element"},
        {wrong_large, "computes element"},
        {failing, "the library cannot"},
    };
    need_library();
    assert_ok(device_gemm_trust(device)); /* it is ready, then */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int status = device_gemm_test(device, cases[i].multiply);
        if (status != RETORT_EDEVICE || !strstr(retort_error_message(), cases[i].words))
            fail_msg("case %zu: %d %s", i, status, status < 0 ? retort_error_message() : "found nothing");
    }
    assert_ok(device_gemm_test(device, device_gemm));
}

/* What would reach past a buffer is refused. */
static void test_places(void **state) {
    (void)state;
    struct device_buffer *buffer;
    struct gemm gemm = {.batch = 1, .m = 4, .n = 5, .k = 6, .alpha = 1};
    need_library();
    assert_ok(device_buffer_create(device, (20 + 24 + 30) * sizeof(float), "test", &buffer));
    struct gemm_place places[GEMM_OPERANDS] = {{buffer, 0}, {buffer, 20}, {buffer, 44}};
    assert_ok(device_gemm_plan(device, &gemm));
    assert_ok(device_gemm(device, &gemm, places, NULL));
    places[GEMM_B].offset++;
    assert_int_equal(device_gemm(device, &gemm, places, NULL), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "operand b"));
    places[GEMM_B].offset--;
    gemm.scratch = 64;
    assert_int_equal(device_gemm(device, &gemm, places, NULL), RETORT_EINVAL);
    assert_ok(device_finish(device));
    device_buffer_destroy(buffer);
}

/* --- who is asked --- */
static struct kernel_target target_of(enum family family, const char *gemm) {
    struct kernel_target target = kernels_target(device_traits(device), family);
    target.gemm = gemm;
    return target;
}

static void test_settled(void **state) {
    (void)state;
    const struct kernel_class class = class_of_product(&(struct matmul_sizes){.batch = 1, .m = 2, .n = 3, .k = 4});
    char words[GEMM_WORDS];
    struct kernel_target target = target_of(FAMILY_GPU, NULL);
    assert_ok(kernels_settle_gemm(&target, device, words));
    assert_null(target.calls);
    assert_string_equal(kernels_choice(&target, &class).variant, "own");
    target.gemm = "own";
    assert_ok(kernels_settle_gemm(&target, device, words));
    assert_string_equal(kernels_choice(&target, &class).variant, "own");
    target.gemm = "clblast";
    assert_ok(kernels_settle_gemm(&target, device, words));
    const char *expected = device_gemm_library() ? "clblast" : "own";
    assert_string_equal(kernels_choice(&target, &class).variant, expected);
    if (!device_gemm_library()) assert_non_null(strstr(words, "libclblast-dev"));
    target.gemm = "cublas";
    assert_int_equal(kernels_settle_gemm(&target, device, words), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "\"cublas\""));
    struct library *library;
    assert_int_equal(library_create_for(device, &target, &library), RETORT_EINVAL);

    /* A device that is only described computes its own. */
    struct device *described;
    assert_ok(device_open_described("gtx 1060", &described));
    target = kernels_target(device_traits(described), FAMILY_AUTO);
    target.gemm = "clblast";
    assert_ok(kernels_settle_gemm(&target, described, words));
    assert_null(target.calls);
    device_close(described);
}

/* --- executables --- */
enum { LARGE = 515 };

/* Products of inputs and of values in the arena, with all transposes, in batches, and one of the library's large ones,
 * read by what comes after them. */
static struct graph *make_graph(void) {
    struct graph *g;
    char name[16];
    assert_ok(graph_create(&g));
    for (int i = 0; i < 4; i++) {
        bool ta = i & 1, tb = i & 2;
        snprintf(name, sizeof name, "a%d", i);
        struct node *a = graph_input(g, name, FLOAT32, ta ? SHAPE(53, 37) : SHAPE(37, 53));
        snprintf(name, sizeof name, "b%d", i);
        struct node *b = graph_input(g, name, FLOAT32, tb ? SHAPE(29, 53) : SHAPE(53, 29));
        snprintf(name, sizeof name, "c%d", i);
        graph_output(g, name, node_matmul(a, b, ta, tb));
        snprintf(name, sizeof name, "d%d", i);
        graph_output(g, name, node_tanh(node_scale(node_matmul(node_tanh(a), node_tanh(b), ta, tb), 0.1)));
    }
    struct node *a = graph_input(g, "batch a", FLOAT32, SHAPE(3, 31, 17));
    struct node *b = graph_input(g, "batch b", FLOAT32, SHAPE(3, 31, 33));
    graph_output(g, "batch c", node_matmul(a, b, true, false));
    a = graph_input(g, "large a", FLOAT32, SHAPE(2, LARGE, LARGE + 2));
    b = graph_input(g, "large b", FLOAT32, SHAPE(2, LARGE + 1, LARGE + 2));
    graph_output(g, "large c", node_scale(node_matmul(a, node_tanh(b), false, true), 0.5));
    assert_ok(graph_status(g));
    return g;
}

/* Values of every slot: a buffer each, at an odd offset; inputs are filled with numbers that depend on their name. */
enum { SLOTS = 24, ODD = 7 };
struct slots {
    struct device_buffer *buffers[SLOTS];
    size_t bytes[SLOTS];
    int count;
};

static void bind_slots(struct executable *executable, struct slots *slots) {
    slots->count = 0;
    for (size_t bytes; (bytes = executable_slot_bytes(executable, slots->count)) > 0; slots->count++) {
        int i = slots->count;
        assert_in_range(i, 0, SLOTS - 1);
        struct random random = random_begin(5, RANDOM_TEST, (uint32_t)i);
        float *values = malloc(bytes);
        for (size_t k = 0; k < bytes / sizeof(float); k++) values[k] = (float)random_normal(&random);
        assert_ok(device_buffer_create(device, bytes + ODD * sizeof(float), "slot", &slots->buffers[i]));
        assert_ok(device_write(device, slots->buffers[i], ODD * sizeof(float), bytes, values));
        assert_ok(executable_bind_slot(executable, i, slots->buffers[i], ODD * sizeof(float)));
        slots->bytes[i] = bytes;
        free(values);
    }
}

static double *read_slot(const struct slots *slots, int i, size_t *count) {
    *count = slots->bytes[i] / sizeof(float);
    float *values = malloc(slots->bytes[i]);
    double *result = malloc(*count * sizeof *result);
    assert_ok(device_read(device, slots->buffers[i], ODD * sizeof(float), slots->bytes[i], values));
    for (size_t k = 0; k < *count; k++) result[k] = values[k];
    free(values);
    return result;
}

static struct library *library_of(enum family family, const char *gemm) {
    struct library *library;
    const struct kernel_target target = target_of(family, gemm);
    assert_ok(library_create_for(device, &target, &library));
    assert_string_equal(library_gemm(library), gemm);
    return library;
}

/* How often the words stand in the list of launches. */
static int count_words(const struct executable *executable, const char *words) {
    char *list = NULL;
    size_t size;
    int count = 0;
    FILE *stream = open_memstream(&list, &size);
    executable_print(executable, true, stream);
    fclose(stream);
    for (const char *c = list; (c = strstr(c, words)); c++) count++;
    free(list);
    return count;
}

static int count_calls(const struct executable *executable) {
    return count_words(executable, "call  clblast");
}

/* A library's products are those of our own kernels, of either family. */
static void test_executable(void **state) {
    const enum family family = (enum family)(uintptr_t)*state;
    static const char *const ways[] = {"own", "clblast"};
    struct library *libraries[2];
    struct executable *executables[2];
    struct slots slots[2];
    need_library();
    struct graph *graph = make_graph();
    for (int w = 0; w < 2; w++) {
        libraries[w] = library_of(family, ways[w]);
        assert_ok(executable_create(libraries[w], graph, "products", &executables[w]));
        bind_slots(executables[w], &slots[w]);
        for (int repeat = 0; repeat < 2; repeat++) assert_ok(executable_enqueue(executables[w]));
        assert_ok(device_finish(device));
        assert_int_equal(count_calls(executables[w]) > 0, w);
        if (w) assert_true(count_words(executables[w], "37 x 53' by 53 x 29', 1") > 0);
        /* What is planned is what is allocated. */
        assert_int_equal(library_scratch_bytes(libraries[w]), executable_arena_bytes(executables[w]));
    }
    /* Three padded matrices of the large product, more or less; memory beside the arena, counted with it. */
    size_t more = executable_arena_bytes(executables[1]) - executable_arena_bytes(executables[0]);
    assert_in_range(more, 2 * LARGE * LARGE * sizeof(float), 5 * LARGE * LARGE * sizeof(float));
    for (int i = 0; i < graph_output_count(graph); i++) {
        const char *name;
        size_t count;
        graph_output_at(graph, i, &name);
        double *own = read_slot(&slots[0], executable_slot(executables[0], name), &count);
        double *called = read_slot(&slots[1], executable_slot(executables[1], name), &count);
        double error = relative_error(called, own, (int64_t)count);
        if (!(error < 4e-6)) fail_msg("%s: %.2e", name, error);
        free(own);
        free(called);
    }
    for (int w = 0; w < 2; w++) {
        executable_destroy(executables[w]);
        library_destroy(libraries[w]);
        for (int i = 0; i < slots[w].count; i++) device_buffer_destroy(slots[w].buffers[i]);
    }
    graph_destroy(graph);
    assert_int_equal(device_bytes(device), 0);
}

/* Where nothing is asked for, the library computes exactly those classes for which the wisdom names it. */
static void test_by_wisdom(void **state) {
    (void)state;
    const struct kernel_class class = class_of_product(&(struct matmul_sizes){1, 37, 29, 53, true, true}),
                              other = class_of_product(&(struct matmul_sizes){1, 37, 29, 53, false, true});
    const struct kernel_choice called = {.variant = "clblast"};
    struct kernel_target target = target_of(FAMILY_GPU, NULL);
    struct library *library;
    struct executable *executable;
    struct kernel_demand *list;
    size_t count;
    char words[GEMM_WORDS];
    int launches = 0, found = 0;
    assert_ok(wisdom_of_one(&class, &called, &target.wisdom));
    assert_ok(kernels_settle_gemm(&target, device, words));
    assert_string_equal(kernels_choice(&target, &class).variant, device_gemm_library() ? "clblast" : "own");
    assert_string_equal(kernels_choice(&target, &other).variant, "own");
    assert_non_null(strstr(words, device_gemm_library() ? "for 1 size of products" : "own kernels"));
    struct graph *graph = make_graph();
    assert_ok(library_create_for(device, &target, &library));
    assert_string_equal(library_gemm(library), device_gemm_library() ? "auto" : "own");
    assert_ok(executable_create(library, graph, "products", &executable));
    /* What can be tuned is the same, whoever computes it. */
    assert_ok(library_classes(library, &list, &count));
    for (size_t i = 0; i < count; i++) {
        assert_true(class_is_product(&list[i].class));
        launches += list[i].launches;
        if (kernel_class_equal(&list[i].class, &class)) found = list[i].launches;
    }
    assert_true(found > 0 && launches > found);
    assert_int_equal(count_calls(executable), device_gemm_library() ? found : 0);
    free(list);
    executable_destroy(executable);
    library_destroy(library);
    graph_destroy(graph);

    /* What is known to be bad is not even tested. */
    assert_ok(wisdom_refuse(target.wisdom, &target, &other, &called));
    for (int way = 0; way < 2; way++) {
        target.gemm = way ? "clblast" : "auto";
        assert_ok(kernels_settle_gemm(&target, device, words));
        assert_null(target.calls);
        assert_string_equal(kernels_choice(&target, &class).variant, "own");
        if (device_gemm_library()) assert_non_null(strstr(words, "crashed, hung"));
    }
    wisdom_destroy(target.wisdom);
}

static int launches_for_gpu(bool single, int *calls) {
    struct device_traits gpu = *device_traits(device);
    struct kernel_target target = target_of(FAMILY_GPU, "clblast");
    struct library *library;
    struct executable *executable;
    gpu.kind = DEVICE_GPU;
    target.traits = &gpu;
    target.single = single;
    struct graph *graph = make_graph();
    assert_ok(library_create_for(device, &target, &library));
    assert_ok(executable_create(library, graph, "products", &executable));
    int count = executable_launch_count(executable);
    *calls = count_calls(executable);
    executable_destroy(executable);
    library_destroy(library);
    graph_destroy(graph);
    return count;
}

/* Calls are not merged, and what is merged round them keeps its order. (Compiled for a GPU, and not run: PoCL breaks
 * merged kernels.) */
static void test_unmerged(void **state) {
    (void)state;
    enum { PRODUCTS = 10 };
    need_library();
    int calls[2], single = launches_for_gpu(true, &calls[0]), merged = launches_for_gpu(false, &calls[1]);
    assert_in_range(merged, PRODUCTS + 1, single - 1);
    assert_int_equal(calls[0], PRODUCTS);
    assert_int_equal(calls[1], PRODUCTS);
}

/* Operands are taken anew in each call, from whatever is bound then. */
static void test_bound_anew(void **state) {
    (void)state;
    struct graph *graph;
    struct executable *executable;
    struct device_buffer *buffers[4];
    need_library();
    struct library *library = library_of(FAMILY_GPU, "clblast");
    assert_ok(graph_create(&graph));
    graph_output(graph, "c",
                 node_matmul(graph_input(graph, "a", FLOAT32, SHAPE(1, 2)),
                             graph_input(graph, "b", FLOAT32, SHAPE(2, 1)), false, false));
    assert_ok(executable_create(library, graph, "product", &executable));
    const float values[4][2] = {{3, 4}, {5, 6}, {7, 8}, {0, 0}};
    for (int i = 0; i < 4; i++) {
        assert_ok(device_buffer_create(device, sizeof values[i], "test", &buffers[i]));
        assert_ok(device_write(device, buffers[i], 0, sizeof values[i], values[i]));
    }
    assert_ok(executable_bind(executable, "b", buffers[1], 0));
    assert_ok(executable_bind(executable, "c", buffers[3], 4));
    for (int i = 0; i < 3; i += 2) {
        float result;
        assert_ok(executable_bind(executable, "a", buffers[i], 0));
        assert_ok(executable_enqueue(executable));
        assert_ok(device_read(device, buffers[3], 4, sizeof result, &result));
        assert_true(result == values[i][0] * 5 + values[i][1] * 6);
    }
    executable_destroy(executable);
    library_destroy(library);
    for (int i = 0; i < 4; i++) device_buffer_destroy(buffers[i]);
    graph_destroy(graph);
}

/* All launches of a product are in its time. */
static void test_profile(void **state) {
    (void)state;
    struct gemm gemm = {.batch = 1, .m = LARGE, .n = LARGE, .k = LARGE, .alpha = 1};
    struct device_buffer *buffer, *scratch;
    struct device_profile profile;
    need_library();
    assert_ok(device_gemm_trust(device));
    assert_ok(device_gemm_plan(device, &gemm));
    assert_true(gemm.scratch > 0);
    assert_ok(device_buffer_create(device, gemm_elements(&gemm, GEMM_C) * sizeof(float), "test", &buffer));
    assert_ok(device_buffer_create(device, gemm.scratch, "test", &scratch));
    assert_ok(device_fill_zero(device, buffer, 0, device_buffer_size(buffer)));
    const struct gemm_place places[GEMM_OPERANDS] = {{buffer, 0}, {buffer, 0}, {buffer, 0}};
    assert_ok(device_gemm(device, &gemm, places, scratch));
    assert_ok(device_profile_begin(device));
    double begun = clock_seconds();
    for (int i = 0; i < 3; i++) assert_ok(device_gemm(device, &gemm, places, scratch));
    assert_ok(device_finish(device));
    double taken = clock_seconds() - begun;
    assert_ok(device_profile_end(device, &profile));
    assert_int_equal(profile.count, 1);
    assert_string_equal(profile.rows[0].name, "clblast_sgemm");
    assert_int_equal(profile.rows[0].launches, 3);
    assert_true(profile.rows[0].flops == 3 * gemm_flops(&gemm));
    /* Mesa's rusticl tells the times of launches as nothing, our own kernels' too. */
    double least = strstr(device_traits(device)->platform, "rusticl") ? -1 : 0.3 * taken;
    if (!(profile.rows[0].seconds > least && profile.rows[0].seconds < 1.1 * taken))
        fail_msg("%.4f s of %.4f", profile.rows[0].seconds, taken);
    device_profile_finish(&profile);
    device_buffer_destroy(scratch);
    device_buffer_destroy(buffer);
}

int main(void) {
    if (device_open(TEST_DEVICE, &device) < 0) {
        printf("1..0 # SKIP no OpenCL device: %s\n", retort_error_message());
        return 0;
    }
    log_set_level(LOG_QUIET); /* warnings are what is tested */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_settled),
        {"test_executable_cpu", test_executable, NULL, NULL, (void *)FAMILY_CPU},
        {"test_executable_gpu", test_executable, NULL, NULL, (void *)FAMILY_GPU},
        cmocka_unit_test(test_by_wisdom),
        cmocka_unit_test(test_unmerged),
        cmocka_unit_test(test_bound_anew),
        cmocka_unit_test(test_profile),
    };
    int failed = cmocka_run_group_tests_name("gemm", tests, NULL, NULL);
    device_close(device);
    return failed;
}
