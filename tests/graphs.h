/* Evaluating graphs in tests: inputs and results by name, in double precision. */
#ifndef RETORT_TESTS_GRAPHS_H
#define RETORT_TESTS_GRAPHS_H

#include "test.h"

#include <math.h>
#include <string.h>

#include "base/random.h"
#include "graph/graph.h"

struct binding {
    const char *name;
    double *values;
};
#define BINDINGS(...) ((const struct binding[]){__VA_ARGS__, {0}})

enum { BINDINGS_MOST = 32 };

static inline double *binding_find(const struct binding *bindings, const char *name) {
    for (; bindings->name; bindings++)
        if (strcmp(bindings->name, name) == 0) return bindings->values;
    fail_msg("nothing is bound to \"%s\"", name);
    return NULL;
}

/* Inputs are read from, and all results written to, the arrays bound to their names. */
static inline void evaluate(const struct graph *graph, const struct binding *bindings) {
    const double *inputs[BINDINGS_MOST];
    double *outputs[BINDINGS_MOST];
    int input_count = 0;
    assert_ok(graph_status(graph));
    for (int i = 0; i < graph_count(graph); i++) {
        const struct node *node = graph_node(graph, i);
        if (node->op != OP_INPUT) continue;
        assert_in_range(input_count, 0, BINDINGS_MOST - 1);
        inputs[input_count++] = binding_find(bindings, node->name);
    }
    assert_in_range(graph_output_count(graph), 0, BINDINGS_MOST);
    for (int i = 0; i < graph_output_count(graph); i++) {
        const char *name;
        graph_output_at(graph, i, &name);
        outputs[i] = binding_find(bindings, name);
    }
    assert_ok(graph_evaluate(graph, inputs, outputs));
}

static inline void fill_normal(struct random *random, double *values, int64_t count, double scale) {
    for (int64_t i = 0; i < count; i++) values[i] = scale * random_normal(random);
}

/* max |a - b| / max |b| */
static inline double relative_error(const double *a, const double *b, int64_t count) {
    double difference = 0, scale = 0;
    for (int64_t i = 0; i < count; i++) {
        /* Written so that a NaN is kept, whichever comes first. */
        if (!(fabs(a[i] - b[i]) <= difference)) difference = fabs(a[i] - b[i]);
        scale = fmax(scale, fabs(b[i]));
    }
    return scale > 0 ? difference / scale : difference;
}

/* Entry [k,i] of the orthonormal DCT-II. */
static inline double dct_cosine(int size, int k, int i) {
    return sqrt((k ? 2.0 : 1.0) / size) * cos(M_PI * (2 * i + 1) * k / (2.0 * size));
}

/* The spectrum of a plane [height,width] by its definition; back: the plane of a spectrum. */
static inline void dct_plane(const double *from, int height, int width, bool back, double *to) {
    for (int a = 0; a < height; a++)
        for (int b = 0; b < width; b++) {
            double sum = 0;
            for (int i = 0; i < height; i++)
                for (int j = 0; j < width; j++)
                    sum += from[i * width + j] * (back ? dct_cosine(height, i, a) : dct_cosine(height, a, i))
                           * (back ? dct_cosine(width, j, b) : dct_cosine(width, b, j));
            to[a * width + b] = sum;
        }
}

#endif
