#include "unroll/self_test.h"

#include "base/error.h"
#include "base/random.h"
#include "unroll/graphs.h"

#include <math.h>
#include <stdlib.h>

/* A tensor of the graph, on the host in double precision and on the device. */
struct tensor {
    const char *name;
    int64_t count;
    bool is_int;
    double *values;
    struct device_buffer *buffer;
};

struct test {
    struct arena arena;
    struct graph *graph;
    struct library *library;
    struct executable *executable;
    ARRAY(struct tensor) inputs, outputs;
};

static void finish(struct test *test) {
    for (size_t i = 0; i < test->inputs.count; i++) device_buffer_destroy(test->inputs.items[i].buffer);
    for (size_t i = 0; i < test->outputs.count; i++) device_buffer_destroy(test->outputs.items[i].buffer);
    array_finish(&test->inputs);
    array_finish(&test->outputs);
    executable_destroy(test->executable);
    library_destroy(test->library);
    graph_destroy(test->graph);
    arena_finish(&test->arena);
}

enum { IMAGES = 5, BATCH = 4, CLASSES = 3 };

/* A few channels and classes, and sides that pooling still halves. */
static int build(const struct network *like, struct graph **graph) {
    int status = RETORT_OK;
    struct network_spec spec = like->spec;
    struct network network;
    if (spec.width > 8) spec.width = spec.groups > 8 ? spec.groups : 8;
    if (spec.depth > 2) spec.depth = 2;
    TRY(network_describe(&spec, like->channels < 3 ? like->channels : 3, 8, 8, CLASSES, &network));
    const struct unroll_spec step = {.network = &network, .set_count = IMAGES, .batch = BATCH};
    const struct graph_form form = {.count = BATCH, .share = 1};
    *graph = graph_product(&step, &form);
    if (!*graph) status = RETORT_EINVAL;
done:
    return status;
}

static struct tensor *add(struct test *test, bool input, const char *name, const struct node *node) {
    struct tensor tensor = {.name = name, .count = shape_count(node->shape), .is_int = node->dtype == INT32};
    tensor.values = arena_array(&test->arena, (size_t)tensor.count, sizeof *tensor.values);
    bool added = input ? array_push(&test->inputs, tensor) : array_push(&test->outputs, tensor);
    if (!added || test->arena.failed) return NULL;
    return input ? &test->inputs.items[test->inputs.count - 1] : &test->outputs.items[test->outputs.count - 1];
}

static int upload(struct device *device, struct test *test, struct tensor *tensor) {
    int status = RETORT_OK;
    size_t bytes = (size_t)tensor->count * sizeof(float);
    union {
        float real;
        int32_t whole;
    } *words = malloc(bytes);
    if (!words) RAISE(RETORT_ENOMEM, "out of memory for a test of the device");
    for (int64_t i = 0; i < tensor->count; i++) {
        if (tensor->is_int)
            words[i].whole = (int32_t)tensor->values[i];
        else
            tensor->values[i] = words[i].real = (float)tensor->values[i];
    }
    TRY(device_buffer_create(device, bytes, "a test of the device", &tensor->buffer));
    TRY(device_write(device, tensor->buffer, 0, bytes, words));
    TRY(executable_bind(test->executable, tensor->name, tensor->buffer, 0));
done:
    free(words);
    return status;
}

/* Labels and rows below what they count, normal numbers else. */
static int make_inputs(struct device *device, struct test *test) {
    int status = RETORT_OK;
    struct random random = random_begin(1, RANDOM_TEST, 0);
    for (int i = 0; i < graph_count(test->graph); i++) {
        const struct node *node = graph_node(test->graph, i);
        if (node->op != OP_INPUT) continue;
        struct tensor *tensor = add(test, true, node->name, node);
        if (!tensor) RAISE(RETORT_ENOMEM, "out of memory for a test of the device");
        for (int64_t k = 0; k < tensor->count; k++)
            tensor->values[k] = tensor->is_int ? random_below(&random, CLASSES) : 0.5 * random_normal(&random);
        TRY(upload(device, test, tensor));
    }
done:
    return status;
}

static int make_outputs(struct device *device, struct test *test) {
    int status = RETORT_OK;
    for (int i = 0; i < graph_output_count(test->graph); i++) {
        const char *name;
        const struct node *node = graph_output_at(test->graph, i, &name);
        struct tensor *tensor = add(test, false, name, node);
        if (!tensor) RAISE(RETORT_ENOMEM, "out of memory for a test of the device");
        size_t bytes = (size_t)tensor->count * sizeof(float);
        TRY(device_buffer_create(device, bytes, "a test of the device", &tensor->buffer));
        TRY(executable_bind(test->executable, name, tensor->buffer, 0));
    }
done:
    return status;
}

static int evaluate(struct test *test) {
    int status = RETORT_OK;
    const double **inputs = arena_array(&test->arena, test->inputs.count, sizeof *inputs);
    double **outputs = arena_array(&test->arena, test->outputs.count, sizeof *outputs);
    if (!inputs || !outputs) RAISE(RETORT_ENOMEM, "out of memory for a test of the device");
    for (size_t i = 0; i < test->inputs.count; i++) inputs[i] = test->inputs.items[i].values;
    for (size_t i = 0; i < test->outputs.count; i++) outputs[i] = test->outputs.items[i].values;
    TRY(graph_evaluate(test->graph, inputs, outputs));
done:
    return status;
}

/* Of one result. */
static int compare(struct device *device, const struct tensor *right, double *error) {
    int status = RETORT_OK;
    double difference = 0, largest = 0;
    float *got = malloc((size_t)right->count * sizeof *got);
    if (!got) RAISE(RETORT_ENOMEM, "out of memory for a test of the device");
    TRY(device_read(device, right->buffer, 0, (size_t)right->count * sizeof *got, got));
    for (int64_t i = 0; i < right->count; i++) {
        double here = isfinite(got[i]) ? fabs(got[i] - right->values[i]) : INFINITY;
        difference = fmax(difference, here);
        largest = fmax(largest, fabs(right->values[i]));
    }
    *error = fmax(*error, difference / largest);
done:
    free(got);
    return status;
}

/* Convolutions are tested by themselves first: a kernel of theirs that is wrong says nothing against the compiler's. */
static int compile(struct device *device, const struct kernel_target *target, struct test *test) {
    int status = RETORT_OK, refused;
    TRY(library_create_for(device, target, &test->library));
    do {
        executable_destroy(test->executable);
        test->executable = NULL;
        TRY(executable_create(test->library, test->graph, "test of the device", &test->executable));
        TRY(library_self_test(test->library, true, &refused));
    } while (refused);
done:
    return status;
}

int unroll_self_test(struct device *device, const struct kernel_target *target, const struct network *like,
                     double *error) {
    int status = RETORT_OK;
    struct test test = {0};
    double worst = 0;
    arena_init(&test.arena);
    TRY(build(like, &test.graph));
    TRY(compile(device, target, &test));
    TRY(make_inputs(device, &test));
    TRY(make_outputs(device, &test));
    TRY(executable_enqueue(test.executable));
    TRY(evaluate(&test));
    for (size_t i = 0; i < test.outputs.count; i++) TRY(compare(device, &test.outputs.items[i], &worst));
    *error = worst;
done:
    finish(&test);
    return status;
}
