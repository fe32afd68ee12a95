/* Every operation and the compositions networks are made of, compiled for the device and compared with the reference in
 * double: value, both derivatives, and the derivative of the derivative, in both kernel families, at awkward sizes.
 * All cases of a family are one program. Guard zones round every output must stay untouched. */
#include "test.h"

#include "base/random.h"
#include "compile/lower.h"
#include "transform/transform.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 64 /* floats before and behind each output */
#define MOST  64 /* inputs, and results, of a case */

/* --- the cases: a function of inputs; v chooses sizes --- */
static const int64_t channels[] = {1, 3, 8, 16, 17, 33};
static const int64_t sides[] = {1, 2, 5, 7, 8, 4};
static const int64_t odd[] = {1, 15, 16, 17, 31, 33};
#define VARIANTS 6
static struct node *in(struct graph *g, const char *name, struct shape shape) {
    return graph_input(g, name, FLOAT32, shape);
}
static struct node *image(struct graph *g, const char *name, int v) {
    return in(g, name, SHAPE(2, channels[v], sides[v], sides[(v + 1) % VARIANTS]));
}
static struct node *positive(struct node *x) {
    return node_shift(node_square(x), 0.5);
}

static struct node *make_unary(struct graph *g, int v) {
    struct node *x = in(g, "x", SHAPE(odd[v], odd[(v + 2) % VARIANTS]));
    struct node *y = node_add(node_exp(node_scale(x, 0.3)), node_log(positive(x)));
    y = node_add(y, node_sqrt(positive(x)));
    y = node_add(y, node_reciprocal(positive(x)));
    y = node_add(y, node_multiply(node_tanh(x), node_erf(x)));
    return node_add(y, node_multiply(node_sin(x), node_cos(x)));
}
static struct node *make_binary(struct graph *g, int v) {
    struct shape shape = SHAPE(odd[v] * 37);
    struct node *a = in(g, "a", shape), *b = in(g, "b", shape);
    struct node *y = node_add(node_multiply(a, b), node_divide(a, positive(b)));
    y = node_add(y, node_max(a, node_scale(b, 0.7)));
    struct node *less = node_compare(a, b, COMPARE_LESS);
    y = node_subtract(y, node_select(less, node_square(a), node_multiply(b, a)));
    return node_select(graph_input(g, "rows9", INT32, shape), y, node_scale(y, 2));
}
static struct node *make_plane(struct graph *g, int v) { /* elementwise and broadcasts over planes */
    struct node *x = image(g, "x", v);
    int64_t c = x->shape.size[1];
    struct node *gamma = node_reshape(in(g, "gamma", SHAPE(c)), SHAPE(1, c, 1, 1));
    struct node *y = node_multiply_stretched(x, gamma);
    struct node *row = in(g, "row", SHAPE(2, c, 1, 1));
    return node_tanh(node_add_stretched(y, row));
}
static struct node *make_norm(struct graph *g, int v) { /* instance norm, swish, average pool */
    int64_t c = channels[v], h = v == 0 ? 4 : 3 + v, w = 5;
    struct node *x = in(g, "x", SHAPE(2, c, h, w));
    struct node *gamma = in(g, "gamma", SHAPE(c)), *beta = in(g, "beta", SHAPE(c));
    uint32_t plane = 1u << 2 | 1u << 3;
    struct node *centred = node_subtract_stretched(x, node_reduce_mean(x, plane));
    struct node *variance = node_reduce_mean(node_square(centred), plane);
    struct node *scale = node_reciprocal(node_sqrt(node_shift(variance, 1e-5)));
    struct node *y = node_multiply_stretched(centred, scale);
    y = node_multiply_stretched(y, node_reshape(gamma, SHAPE(1, c, 1, 1)));
    y = node_add_stretched(y, node_reshape(beta, SHAPE(1, c, 1, 1)));
    struct node *sigmoid = node_scale(node_shift(node_tanh(node_scale(y, 0.5)), 1.0), 0.5);
    return node_average_pool(node_multiply(y, sigmoid), 2);
}
static struct node *normed(struct graph *g, struct node *x, uint32_t axes) {
    int64_t c = x->shape.size[1];
    struct node *gamma = in(g, "gamma", SHAPE(c)), *beta = in(g, "beta", SHAPE(c));
    struct node *centred = node_subtract_stretched(x, node_reduce_mean(x, axes));
    struct node *variance = node_reduce_mean(node_square(centred), axes);
    struct node *y = node_multiply_stretched(centred, node_reciprocal(node_sqrt(node_shift(variance, 1e-5))));
    y = node_multiply_stretched(y, node_reshape(gamma, SHAPE(1, c, 1, 1)));
    return node_add_stretched(y, node_reshape(beta, SHAPE(1, c, 1, 1)));
}
static struct node *make_windows(struct graph *g, int v) { /* norms of planes that are pooled: short and middle rows */
    static const int64_t planes[] = {4, 8, 16, 6, 2, 32};
    struct node *y = normed(g, in(g, "x", SHAPE(3, 5, planes[v], planes[v])), 1u << 2 | 1u << 3);
    return node_average_pool(node_multiply(y, node_tanh(y)), 2);
}
static struct node *make_first(struct graph *g, int v) { /* a mini-batch through a first layer */
    static const int64_t size[][5] = {{1, 8, 8, 3, 1}, {3, 5, 4, 3, 0}, {2, 7, 5, 3, 1}};
    const int64_t *s = size[v];
    struct node *x = in(g, "x", SHAPE(9, s[0], s[1], s[2])), *w = in(g, "w", SHAPE(5, s[0], s[3], s[3]));
    x = node_gather_rows(x, graph_input(g, "rows9", INT32, SHAPE(3)));
    struct node *y = normed(g, node_conv(x, w, 1, (int)s[4]), 1u << 2 | 1u << 3);
    return node_average_pool(node_multiply(y, node_tanh(y)), 2);
}
static struct node *make_long(struct graph *g, int v) { /* few long rows, which GPUs take in parts */
    return normed(g, in(g, "x", SHAPE(v ? 40 : 2, 3, 21, v ? 21 : 20)), 1u << 0 | 1u << 2 | 1u << 3);
}
static struct node *make_reduce(struct graph *g, int v) {
    struct node *x = in(g, "x", SHAPE(odd[v], odd[(v + 1) % VARIANTS], 3));
    struct node *a = node_reduce_sum(node_square(x), 1u << 1);
    struct node *b = node_reduce_max(x, 1u << 1);
    struct node *c = node_reduce_sum(node_multiply_stretched(x, node_add(a, b)), 1u << 0);
    return node_multiply_stretched(node_broadcast(node_sum_all(node_square(c))->shape.rank == 0 ? node_broadcast_scalar(
                                                      node_sum_all(node_square(c)), SHAPE(1, 1, 1))
                                                                                                : c,
                                                  c->shape),
                                   c);
}
static struct node *make_plane_reduce(struct graph *g, int v) { /* over N and the plane; over C; over all but N */
    struct node *x = image(g, "x", v);
    struct node *a = node_reduce_sum(node_square(x), 1u << 0 | 1u << 2 | 1u << 3);
    struct node *b = node_reduce_sum(node_multiply_stretched(x, a), 1u << 1);
    struct node *c = node_reduce_mean(node_multiply_stretched(x, b), 1u << 1 | 1u << 2 | 1u << 3);
    return node_multiply_stretched(x, c);
}
static struct node *make_softmax(struct graph *g, int v) { /* cross-entropy by soft targets */
    struct node *x = in(g, "x", SHAPE(odd[v], odd[(v + 3) % VARIANTS])), *t = in(g, "t", x->shape);
    struct node *shift = node_stop_gradient(node_reduce_max(x, 1u << 1));
    struct node *z = node_subtract_stretched(x, shift);
    struct node *norm = node_log(node_reduce_sum(node_exp(z), 1u << 1));
    return node_scale(node_sum_all(node_multiply(t, node_subtract_stretched(z, norm))), -1.0 / (double)odd[v]);
}
static struct node *make_views(struct graph *g, int v) { /* parameters as slices of one vector */
    int64_t a = odd[v], b = odd[(v + 1) % VARIANTS];
    struct node *theta = in(g, "theta", SHAPE(a * b + b + 3));
    struct node *w = node_reshape(node_slice(theta, (int64_t[]){0}, (int64_t[]){1}, SHAPE(a * b)), SHAPE(a, b));
    struct node *c = node_reshape(node_slice(theta, (int64_t[]){a * b}, (int64_t[]){1}, SHAPE(b)), SHAPE(1, b));
    struct node *x = in(g, "x", SHAPE(5, a));
    struct node *y = node_add_stretched(node_matmul(x, w, false, false), c);
    return node_matmul(node_tanh(y), w, false, true);
}
static struct node *make_matmul(struct graph *g, int v) {
    int64_t m = odd[v], n = odd[(v + 1) % VARIANTS], k = odd[(v + 2) % VARIANTS];
    struct node *a = in(g, "a", v & 1 ? SHAPE(k, m) : SHAPE(m, k)), *b = in(g, "b", v & 2 ? SHAPE(n, k) : SHAPE(k, n));
    return node_matmul(a, b, v & 1, v & 2);
}
static struct node *make_batched(struct graph *g, int v) {
    struct node *a = in(g, "a", SHAPE(3, odd[v], 7)), *b = in(g, "b", SHAPE(3, 7, odd[(v + 1) % VARIANTS]));
    return node_tanh(node_scale(node_matmul(a, b, false, false), 0.2));
}
static struct node *make_conv_strided(struct graph *g, int v) {
    int64_t c = channels[v], o = channels[(v + 1) % VARIANTS];
    struct node *x = in(g, "x", SHAPE(2, c, 7, 6)), *w = in(g, "w", SHAPE(o, c, v & 1 ? 5 : 2, v & 1 ? 5 : 2));
    return node_conv(x, w, 2, v & 1 ? 2 : 0);
}
static struct node *make_block(struct graph *g, int v) { /* two convolution blocks and a head */
    int64_t c = channels[v], width = v == 2 ? 16 : v == 3 ? 17 : 8;
    struct node *x = in(g, "x", SHAPE(2, c, 6, 7));
    struct node *w1 = in(g, "w1", SHAPE(width, c, 3, 3)), *w2 = in(g, "w2", SHAPE(width, width, 3, 3));
    struct node *y = node_scale(node_conv(x, w1, 1, 1), 0.3);
    struct node *centred = node_subtract_stretched(y, node_reduce_mean(y, 12));
    struct node *scale = node_reciprocal(node_sqrt(node_shift(node_reduce_mean(node_square(centred), 12), 0.1)));
    y = node_average_pool(node_tanh(node_multiply_stretched(centred, scale)), 2);
    y = node_tanh(node_scale(node_conv(y, w2, 1, 1), 0.3));
    struct node *head = in(g, "head", SHAPE(5, width * 9));
    return node_matmul(node_reshape(y, SHAPE(2, width * 9)), head, false, true);
}
static struct node *make_maxpool(struct graph *g, int v) {
    struct node *x = in(g, "x", SHAPE(2, channels[v], 5, 6)), *best = NULL;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            struct node *part =
                node_slice(x, (int64_t[]){0, 0, i, j}, (int64_t[]){1, 1, 2, 2}, SHAPE(2, channels[v], 2, 3));
            best = best ? node_max(best, part) : part;
        }
    return node_square(best);
}
static struct node *make_index(struct graph *g, int v) { /* the index maps on a matrix */
    int64_t a = odd[v], b = odd[(v + 1) % VARIANTS];
    struct node *x = in(g, "x", SHAPE(a, b));
    struct node *y = node_add(node_transpose(node_reverse(x, 1u << 1)), node_square(node_transpose(x)));
    y = node_pad(y, (int64_t[]){1, 2}, (int64_t[]){2, 1}, SHAPE(2 * b + 2, a + 3));
    y = node_concat((struct node *[]){y, node_slice(y, (int64_t[]){0, 1}, (int64_t[]){1, 1}, SHAPE(2 * b + 2, 2))}, 2,
                    1);
    return node_multiply(y, node_cast(graph_iota(g, y->shape, 1), FLOAT32));
}
static struct node *make_rank5(struct graph *g, int v) { /* group norm's shape */
    int64_t c = 2 * channels[v];
    struct node *x = in(g, "x", SHAPE(2, c, 3, 4));
    struct node *y = node_reshape(node_square(x), SHAPE(2, 2, c / 2, 3, 4));
    struct node *centred = node_subtract_stretched(y, node_reduce_mean(y, 1u << 2 | 1u << 3 | 1u << 4));
    return node_multiply(node_reshape(centred, x->shape), x);
}
static struct node *make_rows(struct graph *g, int v) { /* mini-batches: gather and its transpose */
    struct node *x = in(g, "x", SHAPE(9, channels[v], 3, 2));
    struct node *rows = graph_input(g, "rows9", INT32, SHAPE(5));
    struct node *y = node_tanh(node_gather_rows(x, rows));
    return node_add(node_scatter_rows(y, rows, 9), x);
}
static struct node *make_sample(struct graph *g, int v) {
    struct node *x = in(g, "x", SHAPE(3, channels[v], sides[v] + 1, sides[v] + 2)), *map = in(g, "map", SHAPE(3, 2, 3));
    return node_square(node_sample(x, map));
}
static struct node *make_pool_transpose(struct graph *g, int v) {
    struct node *x = image(g, "x", v);
    return node_tanh(node_average_pool_transpose(x, 2, 2 * x->shape.size[2] + 1, 2 * x->shape.size[3]));
}
static struct node *make_one_hot(struct graph *g, int v) {
    struct node *x = in(g, "x", SHAPE(odd[v], 9)), *rows = graph_input(g, "rows9", INT32, SHAPE(odd[v]));
    return node_multiply(node_square(x), node_one_hot(rows, 9));
}
static struct node *make_totals(struct graph *g, int v) { /* what follows sums over whole arrays, long and short */
    struct node *x = in(g, "x", SHAPE(v == 0 ? 9001 : 37)), *last = in(g, "last", SCALAR_SHAPE);
    struct node *mean = node_scale(node_sum_all(node_square(x)), 1.0 / (double)x->shape.size[0]);
    struct node *y = node_add(node_tanh(mean), node_square(last));
    graph_output(g, "size", node_sqrt(y));
    return node_add(node_multiply(x, node_broadcast_scalar(y, x->shape)), node_square(x));
}
static struct node *make_argmax(struct graph *g, int v) {
    struct node *x = in(g, "x", SHAPE(odd[v], odd[(v + 1) % VARIANTS]));
    struct node *at = node_cast(node_argmax(x, 1), FLOAT32);
    return node_multiply_stretched(node_stop_gradient(at), x);
}
static struct node *make_random(struct graph *g, int v) {
    struct node *seed = graph_input(g, "rows9", INT32, SHAPE(2));
    struct shape shape = SHAPE(odd[v], 5);
    struct node *y =
        node_add(graph_random(seed, RANDOM_UNIFORM01, 7, shape), graph_random(seed, RANDOM_NORMAL01, 8, shape));
    return node_multiply(y, in(g, "x", shape));
}

/* Limits: these mark their results themselves and are not differentiated. */
static struct node *make_many(struct graph *g, int v) { /* more operands and results than a kernel takes */
    struct node *sum = NULL, *parts[50];
    char name[32];
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof name, "part %d", i);
        parts[i] = in(g, name, SHAPE(2, odd[v]));
        sum = sum ? node_add(node_tanh(sum), parts[i]) : parts[i];
        snprintf(name, sizeof name, "sum %d", i);
        graph_output(g, name, sum);
    }
    graph_output(g, "joined", node_concat(parts, 50, 1));
    return NULL;
}
static struct node *make_stretched(struct graph *g, int v) { /* many small values that are only broadcast */
    struct node *x = in(g, "x", SHAPE(odd[v], 40)), *total = NULL;
    for (int i = 0; i < 40; i++) {
        struct node *part = node_slice(x, (int64_t[]){0, i}, (int64_t[]){1, 1}, SHAPE(odd[v], 1));
        total = total ? node_add(total, node_tanh(part)) : part;
    }
    struct node *tower = node_tanh(total); /* 3^40 paths lead from its top to its bottom */
    for (int i = 0; i < 40; i++) tower = node_add(node_sin(tower), node_multiply(node_cos(tower), tower));
    graph_output(g, "y", node_multiply_stretched(x, node_add(total, tower)));
    return NULL;
}

/* Small launches that become one: several of one kernel, with as many and with other numbers of work-items, and others.
 */
static struct node *make_merged(struct graph *g, int v) {
    struct node *shared = in(g, "shared", SHAPE(odd[v], 7, 5));
    char name[32];
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "factor %d", i);
        struct node *product = node_matmul(shared, in(g, name, SHAPE(odd[v], 5, 6)), false, false);
        snprintf(name, sizeof name, "product %d", i);
        graph_output(g, name, product);
    }
    struct node *a = in(g, "a", SHAPE(odd[v] + 4, 7, 5)), *b = in(g, "b", SHAPE(odd[v] + 4, 5, 6));
    graph_output(g, "longer product", node_matmul(a, b, false, false));
    graph_output(g, "sum", node_reduce_sum(a, 1u << 2));
    graph_output(g, "square", node_square(b));
    return NULL;
}

/* A convolution and its tangent, forward, backwards and by the weights: seven convolutions, three launches. */
static struct node *joined(struct graph *g, int64_t n, int64_t o) {
    int64_t c = 18;
    struct node *x = in(g, "x", SHAPE(n, c, 9, 6)), *dx = in(g, "dx", SHAPE(n, c, 9, 6));
    struct node *w = in(g, "w", SHAPE(o, c, 3, 3)), *dw = in(g, "dw", SHAPE(o, c, 3, 3));
    struct node *y = in(g, "y", SHAPE(n, o, 9, 6)), *dy = in(g, "dy", SHAPE(n, o, 9, 6));
    graph_output(g, "forward", node_conv(x, w, 1, 1));
    graph_output(g, "forward tangent", node_add(node_conv(dx, w, 1, 1), node_conv(x, dw, 1, 1)));
    graph_output(g, "back", node_conv_backward_data(y, w, 1, 1, 9, 6));
    graph_output(g, "back tangent",
                 node_add(node_conv_backward_data(dy, w, 1, 1, 9, 6), node_conv_backward_data(y, dw, 1, 1, 9, 6)));
    graph_output(g, "weights",
                 node_add(node_conv_backward_weight(dx, y, 1, 1, 3, 3), node_conv_backward_weight(x, dy, 1, 1, 3, 3)));
    return NULL;
}
static struct node *make_joined(struct graph *g, int v) {
    return joined(g, 3, v == 2 ? 33 : 40);
}

/* Every kernel costs up to a tenth of a second to build, so variants are few: with channels that fill no vector, one,
 * or one and a part (channels 3, 16, 17). Hand-written kernels have sizes of their own in test_kernels. */
static const struct {
    const char *name;
    struct node *(*make)(struct graph *g, int v); /* NULL where it marks its results itself */
    /* Digits: those run by the CPU family, the GPU family, as on a GPU, and as on a GPU with small work-groups. */
    const char *variants[4];
} cases[] = {
    {"unary", make_unary, {"034", "1", "1"}},
    {"binary", make_binary, {"04", "1", "1", "1"}},
    {"plane", make_plane, {"14", "1"}},
    {"norm", make_norm, {"04", "1", "3"}},
    {"windows", make_windows, {"", "1", "01245", "1"}},
    {"first", make_first, {"", "0", "012", "0"}},
    {"long", make_long, {"", "", "1", "0"}},
    {"reduce", make_reduce, {"4", "1", "1", "3"}},
    {"plane_reduce", make_plane_reduce, {"4", "1", "1"}},
    {"softmax", make_softmax, {"3", "1", "1", "3"}},
    {"views", make_views, {"4", ""}},
    {"matmul", make_matmul, {"3", ""}},
    {"batched", make_batched, {"3", ""}},
    {"conv_strided", make_conv_strided, {"1", ""}},
    {"block", make_block, {"3", "1"}},
    {"maxpool", make_maxpool, {"14", "1"}},
    {"index", make_index, {"4", "1", "1"}},
    {"rank5", make_rank5, {"14", "1", "1"}},
    {"rows", make_rows, {"4", "1", "1"}},
    {"sample", make_sample, {"4", "1"}},
    {"pool_transpose", make_pool_transpose, {"14", "1", "1"}},
    {"one_hot", make_one_hot, {"4", "1"}},
    {"totals", make_totals, {"0", "01", "01", "0"}},
    {"argmax", make_argmax, {"4", "1", "1", "3"}},
    {"random", make_random, {"4", "1", "1"}},
    {"many", make_many, {"1", ""}},
    {"stretched", make_stretched, {"3", ""}},
    {"merged", make_merged, {"1", ""}},
    {"joined", make_joined, {"2", "1"}},
};
#define CASES (sizeof cases / sizeof *cases)

/* --- running them --- */
static struct device *device;

struct prepared {
    struct graph *graph;
    struct executable *executable;
    char name[48];
};

/* y, its vjp and jvp, and the jvp of the vjp, as the outputs of one graph. */
static struct graph *differentiated(size_t c, int v) {
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *y = cases[c].make(g, v);
    assert_ok(graph_status(g));
    if (!y) return g;
    struct node *wrt[8], *tangents[8], *gradients[8], *second[9];
    int count = 0;
    for (int i = 0; i < graph_count(g); i++) {
        struct node *node = graph_node(g, i);
        if (node->op == OP_INPUT && node->dtype == FLOAT32 && strcmp(node->name, "map") != 0) wrt[count++] = node;
    }
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "tangent %d", i);
        tangents[i] = graph_input(g, name, FLOAT32, wrt[i]->shape);
    }
    struct node *cotangent = graph_input(g, "cotangent", FLOAT32, y->shape);
    graph_output(g, "y", y);
    assert_ok(transform_vjp(y, cotangent, wrt, count, gradients));
    assert_ok(transform_jvp(gradients, count, wrt, tangents, count, second));
    assert_ok(transform_jvp(&y, 1, wrt, tangents, count, &second[count]));
    graph_output(g, "tangent of y", second[count]);
    for (int i = 0; i < count; i++) {
        char name[32];
        snprintf(name, sizeof name, "gradient %d", i);
        graph_output(g, name, gradients[i]);
        snprintf(name, sizeof name, "second %d", i);
        graph_output(g, name, second[i]);
    }
    assert_ok(graph_verify(g));
    return g;
}

static void fill_input(const struct node *node, struct random *random, double *values) {
    for (int64_t i = 0; i < shape_count(node->shape); i++) {
        double x = random_normal(random);
        if (node->dtype == INT32)
            x = random_below(random, 9);
        else if (strcmp(node->name, "map") == 0) {
            static const double rotation[6] = {0.9, -0.3, 0.2, 0.3, 0.9, -0.4};
            x = rotation[i % 6] + 0.1 * x;
        }
        values[i] = node->dtype == INT32 ? x : (float)x;
    }
}

static void run_case(struct prepared *p, double tolerance) {
    struct graph *g = p->graph;
    int inputs = 0, outputs = graph_output_count(g);
    double *values[MOST], *expected[MOST];
    struct device_buffer *in_buffers[MOST], *out_buffers[MOST];
    struct random random = random_begin(11, RANDOM_TEST, 0);
    for (int i = 0; i < graph_count(g); i++) {
        const struct node *node = graph_node(g, i);
        if (node->op != OP_INPUT) continue;
        int64_t count = shape_count(node->shape);
        values[inputs] = calloc((size_t)count, sizeof(double));
        fill_input(node, &random, values[inputs]);
        float *floats = calloc((size_t)count, sizeof(float));
        for (int64_t k = 0; k < count; k++)
            if (node->dtype == INT32)
                ((int32_t *)floats)[k] = (int32_t)values[inputs][k];
            else
                floats[k] = (float)values[inputs][k];
        assert_ok(device_buffer_create(device, (size_t)count * 4, "input", &in_buffers[inputs]));
        assert_ok(device_write(device, in_buffers[inputs], 0, (size_t)count * 4, floats));
        assert_ok(executable_bind(p->executable, node->name, in_buffers[inputs], 0));
        free(floats);
        inputs++;
    }
    for (int k = 0; k < outputs; k++) {
        const char *name;
        size_t count = (size_t)shape_count(graph_output_at(g, k, &name)->shape);
        expected[k] = calloc(count, sizeof(double));
        float *guard = malloc((count + 2 * GUARD) * 4);
        for (size_t i = 0; i < count + 2 * GUARD; i++) guard[i] = -12345.5f;
        assert_ok(device_buffer_create(device, (count + 2 * GUARD) * 4, "output", &out_buffers[k]));
        assert_ok(device_write(device, out_buffers[k], 0, (count + 2 * GUARD) * 4, guard));
        assert_ok(executable_bind(p->executable, name, out_buffers[k], GUARD * 4));
        free(guard);
    }
    assert_ok(graph_evaluate(g, (const double *const *)values, expected));
    assert_ok(executable_enqueue(p->executable));
    for (int k = 0; k < outputs; k++) {
        const char *name;
        size_t count = (size_t)shape_count(graph_output_at(g, k, &name)->shape);
        float *got = malloc((count + 2 * GUARD) * 4);
        assert_ok(device_read(device, out_buffers[k], 0, (count + 2 * GUARD) * 4, got));
        double largest = 1e-3, error = 0;
        for (size_t i = 0; i < count; i++) {
            double difference = fabs(got[GUARD + i] - expected[k][i]);
            if (!(difference <= error)) error = difference; /* keeps a NaN */
            if (fabs(expected[k][i]) > largest) largest = fabs(expected[k][i]);
        }
        bool intact = true;
        for (size_t i = 0; i < GUARD; i++) intact &= got[i] == -12345.5f && got[GUARD + count + i] == -12345.5f;
        if (!(error <= tolerance * largest) || !intact) {
            executable_print(p->executable, true, stderr);
            fail_msg("%s: %s: relative error %g%s", p->name, name, error / largest, intact ? "" : ", written outside");
        }
        free(got);
        free(expected[k]);
        device_buffer_destroy(out_buffers[k]);
    }
    for (int i = 0; i < inputs; i++) {
        free(values[i]);
        device_buffer_destroy(in_buffers[i]);
    }
}

static struct library *library;
static struct prepared all[CASES][VARIANTS];

/* What is compiled for: a family on this device, or a GPU with work-groups of so many items described in its place.
 * Launches are not merged there: drivers for CPUs run barriers that stand behind conditions wrongly. */
static const struct {
    const char *name;
    enum family family;
    size_t group;
} targets[] = {{"CPU family", FAMILY_CPU, 0},      {"GPU family", FAMILY_GPU, 0},    {"as on a GPU", FAMILY_GPU, 256},
               {"groups of 100", FAMILY_GPU, 100}, {"groups of 16", FAMILY_GPU, 16}, {"groups of 1", FAMILY_GPU, 1}};
enum { TARGETS = sizeof targets / sizeof *targets };

static const char *variants_of(size_t c, size_t number) {
    const char *variants = cases[c].variants[number < 3 ? number : 3];
    return variants ? variants : "";
}

/* Of all cases, or of one: some compilers take a time that is the square of a program's length. */
static void prepare_target(size_t number, size_t only) {
    static struct device_traits traits;
    memset(all, 0, sizeof all);
    struct kernel_target target = kernels_target(device_traits(device), targets[number].family);
    if (targets[number].group) {
        traits = *device_traits(device);
        traits.kind = DEVICE_GPU;
        traits.max_work_group = targets[number].group;
        target.traits = &traits;
        target.single = !getenv("RETORT_TEST_MERGED");
    }
    assert_ok(library_create_for(device, &target, &library));
    for (size_t c = 0; c < CASES; c++)
        for (int v = 0; v < VARIANTS; v++) {
            struct prepared *p = &all[c][v];
            if (!strchr(variants_of(c, number), '0' + v) || (only < CASES && c != only)) continue;
            snprintf(p->name, sizeof p->name, "%s, variant %d", cases[c].name, v);
            p->graph = differentiated(c, v);
            int status = executable_create(library, p->graph, p->name, &p->executable);
            if (status < 0) {
                graph_print(p->graph, stderr);
                fail_msg("%s", retort_error_message());
            }
        }
    assert_ok(library_build(library));
}

static void finish_target(void) {
    for (size_t c = 0; c < CASES; c++)
        for (int v = 0; v < VARIANTS; v++) {
            executable_destroy(all[c][v].executable);
            graph_destroy(all[c][v].graph);
        }
    library_destroy(library);
    library = NULL;
}

/* Which target is compiled for now; the first case of the next one changes over. Where tests are small, every case. */
static size_t current = TARGETS;

static void test_case(void **state) {
    size_t number = (size_t)(uintptr_t)*state, c = number % CASES;
    if (current != number / CASES || TEST_SMALL) {
        if (current != TARGETS) finish_target();
        current = number / CASES;
        prepare_target(current, TEST_SMALL ? c : CASES);
    }
    for (int v = 0; v < VARIANTS; v++)
        if (all[c][v].executable) run_case(&all[c][v], 2e-5);
}

/* Compiles a graph for the CPU family, destroys it, and returns its number of launches. */
static int launch_count(struct graph *graph) {
    struct library *fresh;
    struct executable *executable;
    assert_ok(library_create(device, FAMILY_CPU, &fresh));
    assert_ok(executable_create(fresh, graph, "counted", &executable));
    int count = executable_launch_count(executable);
    executable_destroy(executable);
    graph_destroy(graph);
    library_destroy(fresh);
    return count;
}

/* A convolution, its two derivatives and a product, as the outputs of one graph: sums of 288 to 600 numbers. */
static struct graph *long_sums(void) {
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *wrt[2] = {in(g, "x", SHAPE(2, 64, 5, 3)), in(g, "w", SHAPE(32, 64, 3, 3))}, *gradients[2];
    struct node *y = node_conv(wrt[0], wrt[1], 1, 1);
    assert_ok(transform_vjp(y, graph_input(g, "cotangent", FLOAT32, y->shape), wrt, 2, gradients));
    graph_output(g, "y", y);
    graph_output(g, "to data", gradients[0]);
    graph_output(g, "to weights", gradients[1]);
    graph_output(g, "product", node_matmul(in(g, "a", SHAPE(7, 600)), in(g, "b", SHAPE(600, 9)), false, false));
    return g;
}

/* Two rows of an image of 131 x 129. */
static struct node *make_wide(struct graph *g) {
    return normed(g, in(g, "wide", SHAPE(1, 2, 131, 129)), 1u << 2 | 1u << 3);
}

/* A GPU in place of this device: launches are not merged, and it has lanes enough to cut long sums. */
static struct kernel_target described_gpu(struct device_traits *traits, unsigned lanes) {
    struct kernel_target target = kernels_target(device_traits(device), FAMILY_GPU);
    *traits = *device_traits(device);
    traits->kind = DEVICE_GPU;
    traits->max_work_group = 256;
    traits->lanes = lanes;
    target.traits = traits;
    target.single = true;
    return target;
}

/* The launches of a graph compiled for a target, which are run here and compared with double precision. Takes the graph
 * over. */
static int checked_launches(const struct kernel_target *target, struct graph *graph, const char *name,
                            double tolerance) {
    struct prepared p = {.graph = graph};
    struct library *fresh;
    snprintf(p.name, sizeof p.name, "%s", name);
    assert_ok(library_create_for(device, target, &fresh));
    assert_ok(executable_create(fresh, p.graph, p.name, &p.executable));
    assert_ok(library_build(fresh));
    int count = executable_launch_count(p.executable);
    run_case(&p, tolerance);
    executable_destroy(p.executable);
    graph_destroy(p.graph);
    library_destroy(fresh);
    return count;
}

/* On a device so large that long sums are cut in the GPU family, the parts are added by launches more. */
static void test_sums_in_parts(void **state) {
    (void)state;
    static const unsigned lanes[] = {1, 20000};
    int count[2];
    for (int wide = 0; wide < 2; wide++) {
        struct device_traits traits;
        const struct kernel_target target = described_gpu(&traits, lanes[wide]);
        count[wide] = checked_launches(&target, long_sums(), "sums in parts", 2e-6);
    }
    assert_int_equal(count[1], count[0] + 3); /* the weights' derivative has too short a sum */
}

/* On a GPU long rows are cut into parts for work-groups of their own: as many launches more as there are sums to wait
 * for. (Where groups run on a processor, as in the other tests, rows stay whole.) */
static void test_rows_in_parts(void **state) {
    (void)state;
    int count[2];
    for (int gpu = 0; gpu < 2; gpu++) {
        struct device_traits traits;
        struct graph *graph;
        const struct kernel_target target = described_gpu(&traits, 4000);
        if (!gpu) traits.kind = DEVICE_CPU;
        assert_ok(graph_create(&graph));
        graph_output(graph, "out", make_wide(graph));
        count[gpu] = checked_launches(&target, graph, "rows in parts", 2e-5);
    }
    assert_true(count[1] > count[0]);
}

/* A convolution and a product in parts, both read by kernels of rows, the product after a reshape. */
static struct graph *parts_and_readers(void) {
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *x = in(g, "x", SHAPE(2, 64, 6, 4)), *w = in(g, "w", SHAPE(32, 64, 3, 3));
    struct node *y = normed(g, node_conv(x, w, 1, 1), 1u << 2 | 1u << 3);
    struct node *product = node_matmul(in(g, "a", SHAPE(7, 600)), in(g, "b", SHAPE(600, 9)), false, false);
    graph_output(g, "norm", node_average_pool(y, 2));
    struct node *planes = node_tanh(node_reshape(product, SHAPE(7, 1, 3, 3)));
    graph_output(g, "planes", node_subtract_stretched(planes, node_reduce_mean(planes, 1u << 2 | 1u << 3)));
    graph_output(g, "elements",
                 node_tanh(node_matmul(in(g, "c", SHAPE(1, 700)), in(g, "d", SHAPE(700, 33)), false, false)));
    return g;
}

/* How often a word stands in the kernels that would be built now. */
static int count_words(struct library *fresh, const char *word) {
    char *text = NULL;
    size_t size = 0;
    int count = 0;
    FILE *stream = open_memstream(&text, &size);
    assert_ok(library_write_program(fresh, stream));
    fclose(stream);
    for (const char *at = text; (at = strstr(at, word)); at += strlen(word)) count++;
    free(text);
    return count;
}

/* On GPUs those who read a sum in parts add the parts up, and no launch does. */
static void test_parts_in_readers(void **state) {
    (void)state;
    static const unsigned lanes[] = {1, 20000};
    int count[2];
    for (int wide = 0; wide < 2; wide++) {
        struct prepared p = {.graph = parts_and_readers(), .name = "parts in readers"};
        struct library *fresh;
        struct device_traits traits;
        const struct kernel_target target = described_gpu(&traits, lanes[wide]);
        assert_ok(library_create_for(device, &target, &fresh));
        assert_ok(executable_create(fresh, p.graph, p.name, &p.executable));
        count[wide] = executable_launch_count(p.executable);
        const int own = 2; /* load_parts() and load_parts4() themselves */
        assert_int_equal(count_words(fresh, " load_parts") > own, wide);
        assert_int_equal(count_words(fresh, "load_parts4(b"), wide);
        assert_ok(library_build(fresh));
        run_case(&p, 2e-5);
        executable_destroy(p.executable);
        graph_destroy(p.graph);
        library_destroy(fresh);
    }
    assert_int_equal(count[0], count[1]);
}

/* On a CPU with a large second cache, kernels that pass over planes several times ask for the next row's where the
 * cache cannot hold them all. */
static void test_rows_ahead(void **state) {
    (void)state;
    struct device_traits traits = *device_traits(device);
    struct kernel_target target = kernels_target(&traits, FAMILY_CPU);
    if (target.lanes == 1) skip();
    traits.compute_units = 1;
    for (int images = 3; images <= 67; images += 64)
        for (int large = 0; large < 2; large++) {
            struct prepared p = {.name = "rows ahead"};
            struct library *fresh;
            traits.second_cache = large ? 2 << 20 : 1 << 20;
            assert_ok(graph_create(&p.graph));
            struct node *x = in(p.graph, "x", SHAPE(images, 6, 13, 14)), *w = in(p.graph, "w", SHAPE(48, 6, 1, 1));
            struct node *y = normed(p.graph, node_conv(x, w, 1, 0), 1u << 2 | 1u << 3);
            graph_output(p.graph, "y", node_average_pool(node_multiply(y, node_tanh(y)), 2));
            assert_ok(library_create_for(device, &target, &fresh));
            assert_ok(executable_create(fresh, p.graph, p.name, &p.executable));
            assert_int_equal(count_words(fresh, " PREFETCH(b") > 0, large && images > 3);
            assert_ok(library_build(fresh));
            run_case(&p, 2e-5);
            executable_destroy(p.executable);
            graph_destroy(p.graph);
            library_destroy(fresh);
        }
}

/* The launches of the joined convolutions, beside changes of layout: one for each of the three directions, one that
 * packs two weights, and one that sums the parts of the weights' derivative. At these sizes nothing but the packing is
 * small enough to be merged. */
static void test_joined_launches(void **state) {
    (void)state;
    struct graph *g;
    assert_ok(graph_create(&g));
    joined(g, 100000, 33);
    int operands = 4, results = 4 * 2;
    assert_int_equal(launch_count(g), operands + results + 3 + 1 + 1);
}

/* Work is credited to the launch that does it: nothing to changes of layout, and in sum the whole graph's. */
static void test_work_of_launches(void **state) {
    (void)state;
    struct graph *g;
    struct grouping grouping;
    struct layouts layouts;
    struct schedule schedule;
    struct launch_list list = {0};
    struct kernel_target target = kernels_target(device_traits(device), FAMILY_CPU);
    if (target.lanes == 1) skip();
    assert_ok(graph_create(&g));
    /* A convolution leaves its result in blocks; sums over the channels of its rows want it plain. Large, so that
     * nothing is merged. */
    struct node *y = node_conv(in(g, "x", SHAPE(600, 32, 32, 32)), in(g, "w", SHAPE(32, 32, 3, 3)), 1, 1);
    graph_output(g, "sums", node_reduce_sum(node_exp(node_reshape(y, SHAPE(600 * 32 * 32, 32))), 1u << 1));
    /* Two rounds of sums over a long array, each in two launches. */
    struct node *z = in(g, "z", SHAPE(1 << 25));
    struct node *mean = node_broadcast(node_reduce_mean(z, 1), SHAPE(1 << 25));
    graph_output(g, "variance", node_reduce_mean(node_square(node_subtract(z, mean)), 1));
    assert_ok(grouping_create(g, &target, &grouping));
    assert_ok(layouts_create(&grouping, &list, &layouts));
    assert_ok(schedule_create(&layouts, &schedule));
    assert_ok(lower_steps(&schedule, &list));
    double expected = 0, sum = 0;
    int relayouts = 0, long_sums = 0;
    for (int i = 0; i < graph_count(g); i++) {
        const struct node *node = graph_node(g, i);
        if (grouping.role[i] == ROLE_MEMBER || grouping.role[i] == ROLE_LIBRARY)
            expected += op_info(node->op)->cost(node);
    }
    for (size_t i = 0; i < list.launches.count; i++) {
        const struct launch *launch = list.launches.items[i];
        sum += launch->flops;
        if (strstr(launch->what, "relayout")) {
            relayouts++;
            assert_true(launch->flops == 0);
        }
        if (strstr(launch->what, "partial sums")) {
            long_sums++;
            assert_true(launch->flops >= 1 << 25);
        }
    }
    assert_true(relayouts > 0);
    assert_int_equal(long_sums, 2);
    assert_float_equal(sum, expected, 0);
    schedule_finish(&schedule);
    layouts_finish(&layouts);
    launch_list_finish(&list);
    grouping_finish(&grouping);
    graph_destroy(g);
}

/* Of as many elements as a tensor may have, the last ones too are computed, although their numbers are so close to the
 * largest int that a work-item's share might end past it. */
static void test_most_elements(void **state) {
    enum { MOST_ELEMENTS = INT32_MAX - (1 << 16) }; /* passes.c */
    (void)state;
    if (TEST_SMALL) skip();
    struct graph *g;
    struct library *fresh;
    struct executable *executable;
    struct device_buffer *one, *sum;
    float value = 1;
    assert_ok(graph_create(&g));
    struct node *x = graph_input(g, "one", FLOAT32, SCALAR_SHAPE);
    graph_output(g, "sum", node_sum_all(node_square(node_broadcast_scalar(x, SHAPE(MOST_ELEMENTS)))));
    assert_ok(library_create(device, FAMILY_CPU, &fresh));
    assert_ok(executable_create(fresh, g, "sum of ones", &executable));
    assert_ok(library_build(fresh));
    assert_ok(device_buffer_create(device, sizeof value, "one", &one));
    assert_ok(device_buffer_create(device, sizeof value, "sum", &sum));
    assert_ok(device_write(device, one, 0, sizeof value, &value));
    assert_ok(executable_bind(executable, "one", one, 0));
    assert_ok(executable_bind(executable, "sum", sum, 0));
    assert_ok(executable_enqueue(executable));
    assert_ok(device_read(device, sum, 0, sizeof value, &value));
    assert_float_equal(value, (float)MOST_ELEMENTS, 0);
    executable_destroy(executable);
    library_destroy(fresh);
    graph_destroy(g);
    device_buffer_destroy(one);
    device_buffer_destroy(sum);
}

/* --- values that pass from one executable to another as the compiler likes them --- */
/* Convolutions with channels that fill no vector, one pixel, few channels, other ranks, an input as it is. */
static struct graph *opaque_producer(void) {
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *x = in(g, "x", SHAPE(2, 18, 5, 6)), *y = node_conv(x, in(g, "w", SHAPE(17, 18, 3, 3)), 1, 1);
    struct node *pixel = node_conv(in(g, "pixels", SHAPE(2, 18, 1, 1)), in(g, "v", SHAPE(33, 18, 1, 1)), 1, 0);
    graph_output(g, "y plain", y);
    graph_output_opaque(g, "y", y);
    graph_output_opaque(g, "y again", y);
    graph_output_opaque(g, "x too", x);
    graph_output_opaque(g, "wave", node_tanh(x));
    graph_output_opaque(g, "pixel", pixel);
    graph_output_opaque(g, "narrow", node_square(in(g, "small", SHAPE(2, 3, 4, 4))));
    graph_output_opaque(g, "matrix", node_transpose(in(g, "m", SHAPE(5, 17))));
    graph_output_opaque(g, "stretched", node_broadcast(in(g, "row", SHAPE(1, 17, 1, 1)), SHAPE(2, 17, 3, 3)));
    graph_output_opaque(g, "whole", graph_input(g, "integers", INT32, SHAPE(1, 17, 2, 2)));
    return g;
}

static struct graph *opaque_consumer(void) {
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *y = graph_input_opaque(g, "y", FLOAT32, SHAPE(2, 17, 5, 6));
    struct node *again = graph_input_opaque(g, "y again", FLOAT32, SHAPE(2, 17, 5, 6));
    struct node *x = graph_input_opaque(g, "x too", FLOAT32, SHAPE(2, 18, 5, 6));
    struct node *wave = graph_input_opaque(g, "wave", FLOAT32, SHAPE(2, 18, 5, 6));
    struct node *pixel = graph_input_opaque(g, "pixel", FLOAT32, SHAPE(2, 33, 1, 1));
    struct node *narrow = graph_input_opaque(g, "narrow", FLOAT32, SHAPE(2, 3, 4, 4));
    struct node *matrix = graph_input_opaque(g, "matrix", FLOAT32, SHAPE(17, 5));
    struct node *stretched = graph_input_opaque(g, "stretched", FLOAT32, SHAPE(2, 17, 3, 3));
    struct node *whole = graph_input_opaque(g, "whole", INT32, SHAPE(1, 17, 2, 2));
    graph_output(g, "copy", y);
    graph_output(g, "flat", node_reshape(y, SHAPE(2, 17 * 30)));
    graph_output(g, "image", node_slice(y, (int64_t[]){1, 0, 0, 0}, (int64_t[]){1, 1, 1, 1}, SHAPE(1, 17, 5, 6)));
    graph_output(g, "norm", node_subtract_stretched(y, node_reduce_mean(again, 12)));
    graph_output(g, "conv", node_conv(wave, in(g, "w", SHAPE(17, 18, 3, 3)), 1, 1));
    graph_output(g, "difference", node_subtract(x, wave));
    graph_output(g, "twice", node_scale(pixel, 2));
    graph_output(g, "narrow copy", node_exp(narrow));
    graph_output(g, "product", node_matmul(matrix, matrix, false, true));
    graph_output(g, "pooled", node_average_pool(stretched, 3));
    graph_output(g, "number", node_cast(whole, FLOAT32));
    return g;
}

struct named_buffer {
    const char *name;
    struct device_buffer *buffer;
    double *values; /* what it should hold, plain; NULL: not known */
};

static struct named_buffer *find_buffer(struct named_buffer *list, int count, const char *name) {
    int i = 0;
    while (i < count && strcmp(list[i].name, name) != 0) i++;
    return i < count ? &list[i] : NULL;
}

/* Runs the graph on buffers of the list, to which it adds what is not there: inputs at random, results empty. Buffers
 * are as large as the executable asks, and results at an offset. Checks plain results. */
static void run_opaque(struct library *of, const struct graph *g, struct named_buffer *list, int *count) {
    enum { OFFSET = 64 * 4 };
    struct executable *executable;
    const double *values[MOST];
    double *expected[MOST];
    struct random random = random_begin(12, RANDOM_TEST, 0);
    int inputs = 0;
    assert_ok(executable_create(of, g, "opaque", &executable));
    for (int i = 0; i < graph_count(g); i++) {
        const struct node *node = graph_node(g, i);
        if (node->op != OP_INPUT) continue;
        struct named_buffer *entry = find_buffer(list, *count, node->name);
        size_t elements = (size_t)shape_count(node->shape);
        if (!entry) {
            entry = &list[(*count)++];
            *entry = (struct named_buffer){.name = node->name, .values = calloc(elements, sizeof(double))};
            fill_input(node, &random, entry->values);
            float *floats = calloc(elements, sizeof(float));
            for (size_t k = 0; k < elements; k++)
                if (node->dtype == INT32)
                    ((int32_t *)floats)[k] = (int32_t)entry->values[k];
                else
                    floats[k] = (float)entry->values[k];
            assert_ok(device_buffer_create(device, OFFSET + elements * 4, "input", &entry->buffer));
            assert_ok(device_write(device, entry->buffer, OFFSET, elements * 4, floats));
            free(floats);
        }
        values[inputs++] = entry->values;
        assert_ok(executable_bind(executable, node->name, entry->buffer, OFFSET));
    }
    for (int k = 0; k < graph_output_count(g); k++) {
        struct named_buffer *entry = &list[(*count)++];
        const struct node *node = graph_output_at(g, k, &entry->name);
        size_t bytes = executable_slot_bytes(executable, executable_slot(executable, entry->name));
        if (!graph_output_is_opaque(g, k)) assert_int_equal(bytes, 4 * shape_count(node->shape));
        entry->values = expected[k] = calloc((size_t)shape_count(node->shape), sizeof(double));
        assert_ok(device_buffer_create(device, OFFSET + bytes, "output", &entry->buffer));
        assert_int_equal(executable_bind(executable, entry->name, entry->buffer, OFFSET + 4), RETORT_EINVAL);
        assert_ok(executable_bind(executable, entry->name, entry->buffer, OFFSET));
    }
    assert_ok(graph_evaluate(g, values, expected));
    assert_ok(executable_enqueue(executable));
    for (int k = 0; k < graph_output_count(g); k++) {
        const char *name;
        size_t elements = (size_t)shape_count(graph_output_at(g, k, &name)->shape);
        if (graph_output_is_opaque(g, k)) continue;
        float *got = calloc(elements, sizeof *got);
        assert_ok(device_read(device, find_buffer(list, *count, name)->buffer, OFFSET, elements * 4, got));
        for (size_t i = 0; i < elements; i++)
            if (!(fabs(got[i] - expected[k][i]) <= 2e-5 * (1 + fabs(expected[k][i]))))
                fail_msg("%s: element %zu is %g, not %g", name, i, (double)got[i], expected[k][i]);
        free(got);
    }
    executable_destroy(executable);
}

static void test_opaque(void **state) {
    enum family family = *(enum family *)*state;
    struct library *fresh;
    struct graph *producer = opaque_producer(), *consumer = opaque_consumer();
    struct named_buffer list[MOST];
    int count = 0;
    assert_ok(library_create(device, family, &fresh));
    run_opaque(fresh, producer, list, &count);
    run_opaque(fresh, consumer, list, &count);
    /* On CPUs a value of 17 channels takes whole vectors of lanes. */
    size_t lanes = family == FAMILY_CPU ? device_traits(device)->vector_width : 1;
    size_t blocked = 4 * 2 * ((17 + lanes - 1) / lanes) * lanes * 30;
    assert_int_equal(device_buffer_size(find_buffer(list, count, "y")->buffer), 256 + blocked);
    for (int i = 0; i < count; i++) {
        device_buffer_destroy(list[i].buffer);
        free(list[i].values);
    }
    library_destroy(fresh);
    graph_destroy(producer);
    graph_destroy(consumer);
}

/* From an opaque value to another: the convolution and the packing of its weights, nothing that moves them. */
static void test_opaque_launches(void **state) {
    (void)state;
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *x = graph_input_opaque(g, "x", FLOAT32, SHAPE(1000, 17, 20, 20));
    graph_output_opaque(g, "y", node_conv(node_exp(x), in(g, "w", SHAPE(33, 17, 3, 3)), 1, 1));
    assert_int_equal(launch_count(g), 1 + 1 + 1);
}

/* Every kernel is launched once, rows looked up by an index among them, and none twice; nothing stays bound; where a
 * ceiling leaves no room nothing is launched. */
static void test_rehearsal(void **state) {
    (void)state;
    struct graph *g;
    struct library *fresh;
    struct prepared p = {.name = "rehearsed"};
    assert_ok(graph_create(&g));
    graph_output(g, "y", make_rows(g, 2));
    p.graph = g;
    assert_ok(library_create(device, FAMILY_GPU, &fresh));
    assert_ok(executable_create(fresh, g, p.name, &p.executable));
    assert_ok(library_build(fresh));
    uint64_t before = device_bytes(device);
    double built = device_build_seconds(device);
    device_set_ceiling(device, before + 1);
    assert_ok(library_rehearse(fresh));
    assert_true(device_build_seconds(device) == built);
    device_set_ceiling(device, 0);
    assert_ok(library_rehearse(fresh));
    assert_true(device_build_seconds(device) > built);
    assert_true(device_bytes(device) == before);
    built = device_build_seconds(device);
    assert_ok(library_rehearse(fresh));
    assert_true(device_build_seconds(device) == built);
    assert_int_equal(executable_enqueue(p.executable), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "nothing is bound"));
    run_case(&p, 2e-6);
    executable_destroy(p.executable);
    graph_destroy(g);
    library_destroy(fresh);
}

int main(void) {
    if (device_open(TEST_DEVICE, &device) < 0) {
        printf("1..0 # SKIP no OpenCL CPU device: %s\n", retort_error_message());
        return 0;
    }
    static enum family cpu = FAMILY_CPU, gpu = FAMILY_GPU;
    struct CMUnitTest tests[TARGETS * CASES + 11];
    char names[TARGETS * CASES][40];
    size_t count = 0;
    for (size_t i = 0; i < TARGETS * CASES; i++) {
        if (!*variants_of(i % CASES, i / CASES)) continue;
        snprintf(names[i], sizeof names[i], "%s, %s", cases[i % CASES].name, targets[i / CASES].name);
        tests[count++] =
            (struct CMUnitTest){.name = names[i], .test_func = test_case, .initial_state = (void *)(uintptr_t)i};
    }
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_sums_in_parts);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_rows_in_parts);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_parts_in_readers);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_rows_ahead);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_joined_launches);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_work_of_launches);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_most_elements);
    tests[count++] = (struct CMUnitTest){"test_opaque, CPU family", test_opaque, NULL, NULL, &cpu};
    tests[count++] = (struct CMUnitTest){"test_opaque, GPU family", test_opaque, NULL, NULL, &gpu};
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_opaque_launches);
    tests[count++] = (struct CMUnitTest)cmocka_unit_test(test_rehearsal);
    int failed = _cmocka_run_group_tests("compile", tests, count, NULL, NULL);
    if (current != TARGETS) finish_target();
    device_close(device);
    return failed;
}
