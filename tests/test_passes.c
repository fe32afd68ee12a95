/* The compiler's passes, without a device: what each leaves is checked by its checker, which finds what is broken on
 * purpose, and printed by its printer. */
#include "test.h"

#include "compile/layout.h"
#include "compile/lower.h"
#include "compile/passes.h"
#include "compile/schedule.h"

#include <stdlib.h>
#include <string.h>

static const struct device_traits traits = {.kind = DEVICE_CPU,
                                            .name = "described",
                                            .compute_units = 4,
                                            .vector_width = 8,
                                            .max_work_group = 256,
                                            .local_memory = 32768,
                                            .global_memory = 1ull << 32,
                                            .max_allocation = 1ull << 30};

/* A convolution, a norm, a long sum, a matrix product and a concatenation: a step of every kind. */
static struct graph *make_graph(void) {
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *x = graph_input(g, "x", FLOAT32, SHAPE(2, 16, 10, 10));
    struct node *w = graph_input(g, "w", FLOAT32, SHAPE(16, 16, 3, 3));
    struct node *y = node_conv(node_tanh(x), w, 1, 1);
    struct node *mean = node_scale(node_reduce_sum(y, 1u << 2 | 1u << 3), 0.01);
    struct node *centred = node_subtract(y, node_broadcast(mean, y->shape));
    struct node *rows = node_reshape(node_tanh(centred), SHAPE(2, 1600));
    struct node *product = node_matmul(rows, graph_input(g, "v", FLOAT32, SHAPE(1600, 5)), false, false);
    struct node *z = graph_input(g, "z", FLOAT32, SHAPE(1 << 14));
    struct node *total = node_broadcast(node_reduce_sum(z, 1), SHAPE(1 << 14));
    graph_output(g, "far", node_reduce_sum(node_square(node_subtract(z, total)), 1));
    graph_output(g, "all",
                 node_concat((struct node *[]){node_reshape(product, SHAPE(10)), node_reshape(mean, SHAPE(32))}, 2, 0));
    graph_output(g, "y", y);
    return g;
}

struct passes {
    struct graph *graph;
    struct grouping grouping;
    struct layouts layouts;
    struct schedule schedule;
    struct launch_list list;
};

/* Runs the passes up to the list of launches; all checkers are content. */
static void run_passes_on(struct passes *p, const struct device_traits *device, enum family family) {
    const struct kernel_target target = kernels_target(device, family);
    *p = (struct passes){.graph = make_graph()};
    assert_ok(grouping_create(p->graph, &target, &p->grouping));
    assert_ok(grouping_check(&p->grouping));
    assert_ok(layouts_create(&p->grouping, &p->list, &p->layouts));
    assert_ok(layouts_check(&p->layouts));
    assert_ok(schedule_create(&p->layouts, &p->schedule));
    assert_ok(schedule_check(&p->schedule));
    assert_ok(lower_steps(&p->schedule, &p->list));
    assert_ok(launch_list_check(&p->list));
    assert_ok(memory_plan(&p->list));
    assert_ok(memory_check(&p->list));
}

static void run_passes(struct passes *p, enum family family) {
    run_passes_on(p, &traits, family);
}

static void finish_passes(struct passes *p) {
    schedule_finish(&p->schedule);
    layouts_finish(&p->layouts);
    grouping_finish(&p->grouping);
    launch_list_finish(&p->list);
    graph_destroy(p->graph);
    error_clear();
}

static const enum family families[] = {FAMILY_CPU, FAMILY_GPU};

static void test_groups_that_wait_for_each_other(void **state) {
    (void)state;
    struct passes p;
    run_passes(&p, FAMILY_CPU);
    for (int k = 0; k < p.grouping.group_count; k++)
        for (int other = 0; other < p.grouping.group_count; other++)
            if (p.grouping.groups[k].needs[0] >> other & 1) p.grouping.groups[other].needs[0] |= 1ull << k;
    assert_int_equal(grouping_check(&p.grouping), RETORT_EUNSUPPORTED);
    finish_passes(&p);
}

static void test_node_without_a_kernel(void **state) {
    (void)state;
    struct passes p;
    run_passes(&p, FAMILY_CPU);
    p.grouping.role[graph_output_at(p.graph, 0, NULL)->index] = ROLE_INLINE;
    assert_int_equal(grouping_check(&p.grouping), RETORT_EUNSUPPORTED);
    finish_passes(&p);
}

/* A step that reads what an earlier one leaves, moved to the front. */
static void test_steps_out_of_order(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        struct passes p;
        size_t offset, late = 0;
        run_passes(&p, families[f]);
        struct step *steps = p.layouts.steps.items;
        for (size_t i = 0; i < p.layouts.steps.count; i++)
            for (size_t k = 0; k < steps[i].reads.count; k++)
                if (!value_root(steps[i].reads.items[k].value, &offset)->input) late = i;
        assert_true(late > 0);
        struct step moved = steps[late];
        memmove(steps + 1, steps, late * sizeof *steps);
        steps[0] = moved;
        assert_int_equal(layouts_check(&p.layouts), RETORT_EUNSUPPORTED);
        finish_passes(&p);
    }
}

static void test_schedule_beyond_the_device(void **state) {
    (void)state;
    struct passes p;
    run_passes(&p, FAMILY_GPU);
    p.schedule.kernels.items[0].items = (int)traits.max_work_group + 1;
    assert_int_equal(schedule_check(&p.schedule), RETORT_EUNSUPPORTED);
    finish_passes(&p);
}

static void test_result_left_out(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        struct passes p;
        run_passes(&p, families[f]);
        int found = 0;
        for (size_t i = 0; i < p.schedule.kernels.count && !found; i++) {
            struct fused *kernel = &p.schedule.kernels.items[i];
            if (kernel->kind != FUSED_ROWS || !kernel->phases.count) continue;
            for (size_t r = 0; r < kernel->step->results.count; r++)
                found |= has_inner(&kernel->step->results.items[r].node->shape, kernel->step->inner);
            if (found) kernel->phases.count = 0;
        }
        assert_true(found);
        assert_int_equal(schedule_check(&p.schedule), RETORT_EUNSUPPORTED);
        finish_passes(&p);
    }
}

static void test_launches_out_of_order(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        struct passes p;
        run_passes(&p, families[f]);
        struct launch **launches = p.list.launches.items, *first = launches[0];
        memmove(launches, launches + 1, (p.list.launches.count - 1) * sizeof *launches);
        launches[p.list.launches.count - 1] = first;
        assert_int_equal(launch_list_check(&p.list), RETORT_EUNSUPPORTED);
        finish_passes(&p);
    }
}

static void test_memory_shared(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        struct passes p;
        run_passes(&p, families[f]);
        for (size_t i = 0; i < p.list.values.count; i++)
            if (!p.list.values.items[i]->parent) p.list.values.items[i]->offset = 0;
        assert_int_equal(memory_check(&p.list), RETORT_EUNSUPPORTED);
        finish_passes(&p);
    }
}

/* The GPU family of one vector lane moves nothing from one layout to the other; the CPU family brings the plain input
 * of a convolution into blocks. */
static void test_relayouts(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        struct passes p;
        int relayouts = 0;
        run_passes(&p, families[f]);
        for (size_t i = 0; i < p.layouts.steps.count; i++) relayouts += p.layouts.steps.items[i].kind == STEP_RELAYOUT;
        assert_true(families[f] == FAMILY_CPU ? relayouts > 0 : relayouts == 0);
        finish_passes(&p);
    }
}

/* As on a GPU: the planes of 100 elements go to 32 work-items each, which hold theirs; four planes share a work-group.
 * Whatever the largest work-group is, none is larger. */
static void test_schedule_of_rows(void **state) {
    (void)state;
    static const size_t groups[] = {256, 100, 16, 1};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        struct device_traits gpu = traits;
        struct passes p;
        int held = 0;
        gpu.kind = DEVICE_GPU;
        gpu.max_work_group = groups[i];
        run_passes_on(&p, &gpu, FAMILY_GPU);
        for (size_t k = 0; k < p.schedule.kernels.count; k++) {
            const struct fused *kernel = &p.schedule.kernels.items[k];
            assert_true((size_t)kernel->items <= groups[i]);
            if (kernel->kind != FUSED_ROWS) continue;
            assert_int_equal(kernel->items % kernel->row_items, 0);
            held += kernel->held > 0;
            if (groups[i] == 256 && kernel->held && kernel->rows == 32) {
                assert_int_equal(kernel->row_items, 32);
                assert_int_equal(kernel->items, 128);
                assert_int_equal(kernel->groups, 8);
            }
        }
        assert_true(groups[i] == 1 ? held == 0 : held > 0);
        finish_passes(&p);
    }
}

/* Merging leaves fewer launches, each of whole work-groups, and nothing is read before it is written. */
static void test_merged_launches(void **state) {
    (void)state;
    struct device_traits gpu = traits;
    gpu.kind = DEVICE_GPU;
    const struct kernel_target target = kernels_target(&gpu, FAMILY_GPU);
    struct launch_list list;
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *x = graph_input(g, "x", FLOAT32, SHAPE(2, 16, 10, 10));
    for (int k = 0; k < 3; k++) { /* three convolutions of the same text, and a sum beside each */
        char name[8];
        snprintf(name, sizeof name, "w%d", k);
        struct node *w = graph_input(g, name, FLOAT32, SHAPE(16, 16, 3, 3));
        snprintf(name, sizeof name, "y%d", k);
        graph_output(g, name, node_conv(x, w, 1, 1));
        snprintf(name, sizeof name, "s%d", k);
        graph_output(g, name, node_reduce_sum(node_square(w), 1u << 2 | 1u << 3));
    }
    assert_ok(compile_graph(g, &target, "merged", &list));
    assert_true(list.launches.count < 4);
    assert_ok(launch_list_check(&list));
    launch_list_finish(&list);
    struct kernel_target single = target;
    single.single = true;
    assert_ok(compile_graph(g, &single, "single", &list));
    assert_true(list.launches.count >= 4);
    launch_list_finish(&list);
    graph_destroy(g);
}

/* On CPUs too the weights of all layers are packed in one launch, however large they are. */
static void test_packing_at_once(void **state) {
    (void)state;
    struct device_traits cpu = traits;
    cpu.kind = DEVICE_CPU;
    cpu.compute_units = 2;
    const struct kernel_target target = kernels_target(&cpu, FAMILY_CPU);
    struct launch_list list;
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *x = graph_input(g, "x", FLOAT32, SHAPE(10, 128, 16, 16));
    struct node *first = graph_input(g, "first", FLOAT32, SHAPE(128, 128, 3, 3));
    struct node *second = graph_input(g, "second", FLOAT32, SHAPE(128, 128, 3, 3));
    graph_output(g, "y", node_conv(node_conv(x, first, 1, 1), second, 1, 1));
    assert_ok(compile_graph(g, &target, "two layers", &list));
    size_t packing = 0, layers = 0;
    for (size_t i = 0; i < list.launches.count; i++) {
        packing += strstr(list.launches.items[i]->what, "pack") != NULL;
        layers += strncmp(list.launches.items[i]->what, "winograd_cpu", 12) == 0;
    }
    assert_int_equal(packing, 1);
    assert_int_equal(layers, 2);
    launch_list_finish(&list);
    graph_destroy(g);
}

/* --- what a large GPU is given as few launches --- */
#define PLANE (1u << 2 | 1u << 3)
static struct node *image(struct graph *g, const char *name, int64_t n, int64_t c, int64_t side) {
    return graph_input(g, name, FLOAT32, SHAPE(n, c, side, side));
}
static struct node *centred(struct node *x) {
    return node_subtract_stretched(x, node_reduce_mean(x, PLANE));
}

static void first_layer(struct graph *g) { /* with its mini-batch and the norm behind it */
    struct node *rows = graph_input(g, "rows", INT32, SHAPE(4));
    struct node *x = node_gather_rows(image(g, "x", 10, 3, 12), rows);
    graph_output(g, "y", centred(node_conv(x, image(g, "w", 32, 3, 3), 1, 1)));
}
static void first_layer_of_batch_norm(struct graph *g) { /* packing, convolution, sums of planes, of them, the rest */
    struct node *y = node_conv(image(g, "x", 10, 3, 12), image(g, "w", 32, 3, 3), 1, 1);
    graph_output(g, "y", node_subtract_stretched(y, node_reduce_mean(y, PLANE | 1u)));
}
static void sum_in_parts(struct graph *g) { /* packing, convolution, norm */
    graph_output(g, "y", centred(node_conv(image(g, "x", 2, 64, 8), image(g, "w", 32, 64, 3), 1, 1)));
}
static void sum_in_parts_for_all(struct graph *g) { /* the same, with a sum of parts for those outside */
    struct node *y = node_conv(image(g, "x", 2, 64, 8), image(g, "w", 32, 64, 3), 1, 1);
    graph_output(g, "y", y);
    graph_output(g, "centred", centred(y));
}
static struct node *product_of(struct graph *g, const char *a, const char *b) {
    return node_matmul(graph_input(g, a, FLOAT32, SHAPE(10, 10)), graph_input(g, b, FLOAT32, SHAPE(10, 72)), false,
                       false);
}
static void sum_of_products(struct graph *g) { /* products, and what reads their sum as images */
    struct node *sum = node_add(product_of(g, "a", "b"), product_of(g, "c", "d"));
    struct node *x = node_reshape(sum, SHAPE(10, 8, 3, 3));
    graph_output(g, "y", centred(node_average_pool_transpose(x, 2, 6, 6)));
}
static void totals(struct graph *g) { /* sums of chunks; their sum and what follows it */
    struct node *x = graph_input(g, "x", FLOAT32, SHAPE(100000)), *sum = node_sum_all(node_square(x));
    graph_output(g, "y", node_add(graph_input(g, "z", FLOAT32, SCALAR_SHAPE), node_sqrt(sum)));
}
static void rows_and_neighbour(struct graph *g) { /* packing and rows; both derivatives; sum of parts and square */
    struct node *x = node_gather_rows(image(g, "x", 10, 1, 12), graph_input(g, "rows", INT32, SHAPE(4)));
    struct node *y = image(g, "y", 4, 32, 12), *dx = node_conv_backward_data(y, image(g, "w", 32, 1, 3), 1, 1, 12, 12);
    graph_output(g, "dw", node_conv_backward_weight(x, y, 1, 1, 3, 3));
    graph_output(g, "square", node_square(dx));
}
static void along_large(struct graph *g) { /* a small launch beside one that is none */
    graph_output(g, "large", centred(image(g, "x", 256, 128, 32)));
    graph_output(g, "small", node_square(graph_input(g, "z", FLOAT32, SHAPE(1000))));
}
static void two_transforms(struct graph *g) { /* those of y, of x and of w at once */
    struct node *y = image(g, "y", 100, 128, 16);
    graph_output(g, "dx", node_conv_backward_data(y, image(g, "w", 128, 128, 3), 1, 1, 16, 16));
    graph_output(g, "dw", node_conv_backward_weight(image(g, "x", 100, 128, 16), y, 1, 1, 3, 3));
}

static void test_launches_of_gpus(void **state) {
    (void)state;
    static const struct {
        void (*make)(struct graph *g);
        size_t launches;
    } cases[] = {{first_layer, 1},        {first_layer_of_batch_norm, 5},
                 {sum_in_parts, 3},       {sum_in_parts_for_all, 4},
                 {sum_of_products, 2},    {totals, 2},
                 {rows_and_neighbour, 3}, {along_large, 1},
                 {two_transforms, 5}};
    struct device_traits gpu = traits;
    gpu.kind = DEVICE_GPU;
    gpu.max_work_group = 1024;
    gpu.local_memory = 49152;
    gpu.cache = 50 << 20;
    gpu.lanes = 16896;
    gpu.max_clock_mhz = 1755;
    gpu.wave = 32;
    gpu.sub_groups = 0;
    const struct kernel_target target = kernels_target(&gpu, FAMILY_GPU);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct launch_list list;
        struct graph *g;
        assert_ok(graph_create(&g));
        cases[i].make(g);
        assert_ok(compile_graph(g, &target, "few launches", &list));
        if (list.launches.count != cases[i].launches) {
            launch_list_print(&list, stderr);
            fail_msg("case %zu: %zu launches, not %zu", i, list.launches.count, cases[i].launches);
        }
        launch_list_finish(&list);
        graph_destroy(g);
    }
}

static void test_printers(void **state) {
    (void)state;
    struct passes p;
    char *text = NULL;
    size_t size = 0;
    run_passes(&p, FAMILY_CPU);
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    grouping_print(&p.grouping, stream);
    layouts_print(&p.layouts, stream);
    schedule_print(&p.schedule, stream);
    launch_list_print(&p.list, stream);
    fclose(stream);
    static const char *const expected[] = {
        "operation [2,16,10,10]", "conv", "relayout", "blocked", "fused whole", "phases", "partial sums", "conv"};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) assert_non_null(strstr(text, expected[i]));
    free(text);
    finish_passes(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_that_wait_for_each_other),
        cmocka_unit_test(test_node_without_a_kernel),
        cmocka_unit_test(test_steps_out_of_order),
        cmocka_unit_test(test_schedule_beyond_the_device),
        cmocka_unit_test(test_result_left_out),
        cmocka_unit_test(test_launches_out_of_order),
        cmocka_unit_test(test_memory_shared),
        cmocka_unit_test(test_relayouts),
        cmocka_unit_test(test_schedule_of_rows),
        cmocka_unit_test(test_merged_launches),
        cmocka_unit_test(test_packing_at_once),
        cmocka_unit_test(test_launches_of_gpus),
        cmocka_unit_test(test_printers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
