#include "bench/bench.h"

#include "base/error.h"
#include "base/log.h"
#include "graph/graph.h"

#include <math.h>
#include <string.h>

enum { CHANNELS = 128, SIDE = 32 };

/* What follows a convolution in a block of the network, on feature maps as convolutions leave and read them. */
static struct graph *row_graph(int64_t batch) {
    struct graph *graph = NULL;
    const struct shape channels = SHAPE(1, CHANNELS, 1, 1);
    const uint32_t plane = 1u << 2 | 1u << 3;
    if (graph_create(&graph) < 0) return NULL;
    struct node *x = graph_input_opaque(graph, "x", FLOAT32, SHAPE(batch, CHANNELS, SIDE, SIDE));
    struct node *gamma = graph_input(graph, "gamma", FLOAT32, channels);
    struct node *beta = graph_input(graph, "beta", FLOAT32, channels);
    struct node *centred = node_subtract_stretched(x, node_reduce_mean(x, plane));
    struct node *variance = node_reduce_mean(node_square(centred), plane);
    struct node *scale = node_multiply_stretched(node_reciprocal(node_sqrt(node_shift(variance, 1e-5))), gamma);
    struct node *normed = node_add_stretched(node_multiply_stretched(centred, scale), beta);
    struct node *active = node_max(graph_constant(graph, 0, SHAPE(batch, CHANNELS, SIDE, SIDE)), normed);
    graph_output_opaque(graph, "y", node_average_pool(active, 2));
    return graph;
}

/* Images whose maps are twice the largest cache, 64 MiB at least, a twelfth of the memory at most. */
static int64_t choose_batch(const struct device_traits *traits) {
    const uint64_t image = (uint64_t)CHANNELS * SIDE * SIDE * sizeof(float), least = 64 << 20;
    uint64_t bytes = 2 * traits->cache > least ? 2 * traits->cache : least;
    if (bytes > traits->max_allocation) bytes = traits->max_allocation;
    if (bytes > traits->global_memory / 12) bytes = traits->global_memory / 12;
    return bytes > image ? (int64_t)(bytes / image) : 1;
}

/* Device time and bytes of one visit. */
static int time_rows(struct device *device, struct executable *executable, double *seconds, double *bytes) {
    enum { ROUNDS = 8, LAUNCHES = 3 };
    int status = RETORT_OK;
    double best = INFINITY, moved = 0;
    struct device_profile profile = {0};
    TRY(executable_enqueue(executable)); /* builds, and touches the memory */
    for (int round = 0; round < ROUNDS; round++) {
        TRY(device_profile_begin(device));
        double begun = clock_seconds(), total = 0, bytes_moved = 0;
        for (int i = 0; i < LAUNCHES; i++) TRY(executable_enqueue(executable));
        TRY(device_finish(device));
        double waited = clock_seconds() - begun;
        TRY(device_profile_end(device, &profile));
        for (size_t i = 0; i < profile.count; i++) {
            total += profile.rows[i].seconds;
            bytes_moved += profile.rows[i].bytes;
        }
        if (total < waited / 100) /* starting three launches does not take so long */
            RAISE(RETORT_EDEVICE, "the driver's clock of kernels is wrong: it tells %.3g s of %.3g s", total, waited);
        if (total / LAUNCHES < best) {
            best = total / LAUNCHES;
            moved = bytes_moved / LAUNCHES;
        }
        device_profile_finish(&profile);
    }
    *seconds = best;
    *bytes = moved;
done:
    device_profile_finish(&profile);
    return status;
}

int bench_rows(struct device *device, enum family family, struct bench_rows_result *result) {
    int status = RETORT_OK;
    struct bench_rows_result fresh = {.batch = choose_batch(device_traits(device)), .channels = CHANNELS, .side = SIDE};
    struct graph *graph = row_graph(fresh.batch);
    struct library *library = NULL;
    struct executable *executable = NULL;
    const size_t pixels = (size_t)fresh.batch * CHANNELS * SIDE * SIDE;
    struct {
        const char *name;
        size_t count;
        struct device_buffer *buffer;
    } operands[] = {{"x", pixels, NULL}, {"gamma", CHANNELS, NULL}, {"beta", CHANNELS, NULL}, {"y", pixels / 4, NULL}};
    const size_t count = sizeof operands / sizeof *operands;
    if (!graph) RAISE(RETORT_ENOMEM, "out of memory describing a norm");
    TRY(graph_status(graph));
    TRY(library_create(device, family, &library));
    TRY(executable_create(library, graph, "norm, activation and pooling", &executable));
    for (size_t i = 0; i < count; i++) {
        size_t bytes = operands[i].count * sizeof(float);
        TRY(device_buffer_create(device, bytes, "feature maps", &operands[i].buffer));
        TRY(device_fill_zero(device, operands[i].buffer, 0, bytes));
        TRY(executable_bind(executable, operands[i].name, operands[i].buffer, 0));
    }
    TRY(time_rows(device, executable, &fresh.seconds, &fresh.bytes));
    *result = fresh;
done:
    graph_destroy(graph);
    executable_destroy(executable);
    library_destroy(library);
    for (size_t i = 0; i < count; i++) device_buffer_destroy(operands[i].buffer);
    return status;
}
