/* Networks: layout of theta, initial values, the forward pass against plain loops written here, gradients against
 * differences, running statistics, losses, refusals; the Siamese augmentation family by family. */
#include "graphs.h"

#include <stdio.h>
#include <stdlib.h>

#include "data/data.h"
#include "nn/nn.h"
#include "transform/transform.h"

enum { CLASSES = 3, BATCH = 2, CHANNELS = 2, HEIGHT = 9, WIDTH = 11 };

static const struct network_spec plain = {.kind = NETWORK_CONVNET, .depth = 2, .width = 4, .groups = 2};

static void test_layout(void **state) {
    (void)state;
    /* The field's usual network: three blocks of 128 on CIFAR-10, 320010 weights. */
    struct network network;
    struct network_spec spec = {.kind = NETWORK_CONVNET, .depth = 3, .width = 128, .norm = NORM_INSTANCE};
    assert_ok(network_describe(&spec, 3, 32, 32, 10, &network));
    assert_int_equal(network.theta_count, 320010);
    assert_int_equal(network.stats_count, 0);
    assert_int_equal(network.parameter_count, 14);
    const enum parameter_role roles[] = {PARAMETER_WEIGHT, PARAMETER_BIAS, PARAMETER_GAMMA, PARAMETER_BETA};
    int64_t offset = 0;
    for (int i = 0; i < network.parameter_count; i++) {
        const struct network_parameter *parameter = &network.parameters[i];
        assert_int_equal(parameter->role, roles[i % 4]);
        assert_int_equal(parameter->block, i / 4);
        assert_int_equal(parameter->offset, offset);
        assert_int_equal(parameter->count, shape_count(parameter->shape));
        assert_int_equal(parameter->dead, i % 4 == 1 && i < 12);
        offset += parameter->count;
    }
    assert_int_equal(offset, network.theta_count);
    assert_true(shape_equal(network.parameters[0].shape, SHAPE(128, 3, 3, 3)));
    assert_true(shape_equal(network.parameters[4].shape, SHAPE(128, 128, 3, 3)));
    assert_true(shape_equal(network.parameters[12].shape, SHAPE(10, 128 * 16)));
    assert_int_equal(network.parameters[1].fan_in, 27);
    assert_int_equal(network.parameters[5].fan_in, 128 * 9);
    assert_int_equal(network.parameters[13].fan_in, 128 * 16);
    spec.norm = NORM_BATCH;
    assert_ok(network_describe(&spec, 3, 32, 32, 10, &network));
    assert_int_equal(network.stats_count, 3 * 2 * 128);
    spec = (struct network_spec){.kind = NETWORK_MLP, .depth = 2, .width = 6};
    assert_ok(network_describe(&spec, 1, 4, 5, 3, &network));
    assert_int_equal(network.parameter_count, 6);
    assert_int_equal(network.theta_count, 6 * 20 + 6 + 6 * 6 + 6 + 3 * 6 + 3);
    spec.depth = 0;
    assert_ok(network_describe(&spec, 1, 4, 5, 3, &network));
    assert_int_equal(network.theta_count, 3 * 20 + 3);
    /* Groups of one channel, and a layer of one, subtract the bias too; wider ones do not. */
    const struct {
        enum norm_kind norm;
        int width, groups;
        bool dead;
    } biases[] = {{NORM_GROUP, 4, 4, true},  {NORM_GROUP, 4, 2, false}, {NORM_LAYER, 1, 0, true},
                  {NORM_LAYER, 4, 0, false}, {NORM_BATCH, 4, 0, true},  {NORM_NONE, 4, 0, false}};
    for (size_t i = 0; i < sizeof biases / sizeof biases[0]; i++) {
        spec = (struct network_spec){
            .depth = 1, .norm = biases[i].norm, .width = biases[i].width, .groups = biases[i].groups};
        assert_ok(network_describe(&spec, 1, 8, 8, 3, &network));
        assert_int_equal(network.parameters[1].dead, biases[i].dead);
    }
}

static void test_refusals(void **state) {
    (void)state;
    const struct {
        struct network_spec spec;
        int channels, height, width, classes;
        const char *words;
    } cases[] = {
        {{.depth = 0, .width = 4}, 3, 8, 8, 2, "depth must be 1 to 12, not 0"},
        {{.depth = 13, .width = 4}, 3, 8, 8, 2, "depth must be 1 to 12, not 13"},
        {{.depth = 1, .width = 0}, 3, 8, 8, 2, "width must be at least 1"},
        {{.depth = 1, .width = 4}, 3, 0, 8, 2, "no pixels"},
        {{.depth = 1, .width = 4}, 3, 8, 8, 0, "at least 1 class"},
        {{.depth = 1, .width = 4, .norm = NORM_GROUP, .groups = 3}, 3, 8, 8, 2, "3 groups do not divide the 4"},
        {{.depth = 1, .width = 4, .norm = NORM_GROUP}, 3, 8, 8, 2, "0 groups do not divide"},
        {{.kind = NETWORK_MLP, .depth = 1, .width = 4, .norm = NORM_BATCH}, 3, 8, 8, 2, "an MLP has no norm"},
        {{.depth = 3, .width = 4}, 3, 4, 4, 2, "4 x 4 images cannot be pooled 3 times"},
        {{.depth = 3, .width = 4, .norm = NORM_INSTANCE}, 3, 4, 4, 2, "block 3 of 3 would normalise single pixels"},
        {{.depth = 2, .width = INT32_MAX}, 3, 8, 8, 2, "more than 2^31 weights"},
        {{.depth = 1, .width = 4, .pool = POOL_NONE}, 3, INT32_MAX, INT32_MAX, 2, "too large"},
        {{.depth = 1, .width = INT32_MAX / 128}, 3, 2048, 2048, INT32_MAX, "more than 2^31 weights"},
        {{.kind = NETWORK_MLP, .depth = 1, .width = INT32_MAX}, 3, 2048, 2048, 2, "more than 2^31 weights"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct network network = {.classes = -7};
        assert_int_equal(network_describe(&cases[i].spec, cases[i].channels, cases[i].height, cases[i].width,
                                          cases[i].classes, &network),
                         RETORT_EINVAL);
        if (!strstr(retort_error_message(), cases[i].words)) fail_msg("case %zu: %s", i, retort_error_message());
        assert_int_equal(network.classes, -7);
    }
}

static void test_initial_theta(void **state) {
    (void)state;
    struct network network;
    struct network_spec spec = {.depth = 2, .width = 16, .norm = NORM_INSTANCE};
    assert_ok(network_describe(&spec, 3, 8, 8, 10, &network));
    struct graph *graph;
    assert_ok(graph_create(&graph));
    graph_output(graph, "theta", network_initial_theta(graph, &network, graph_input(graph, "seed", INT32, SHAPE(2))));
    double *theta = calloc((size_t)network.theta_count, sizeof *theta), *other = calloc((size_t)network.theta_count, 8);
    double seed[2] = {12345, 678};
    evaluate(graph, BINDINGS({"seed", seed}, {"theta", theta}));
    seed[1] = 679;
    evaluate(graph, BINDINGS({"seed", seed}, {"theta", other}));
    for (int i = 0; i < network.parameter_count; i++) {
        const struct network_parameter *parameter = &network.parameters[i];
        const double *values = theta + parameter->offset;
        double bound = 1 / sqrt((double)parameter->fan_in), sum = 0, squares = 0, largest = 0;
        for (int64_t j = 0; j < parameter->count; j++) {
            if (parameter->role == PARAMETER_GAMMA) assert_true(values[j] == 1);
            if (parameter->role == PARAMETER_BETA) assert_true(values[j] == 0);
            sum += values[j];
            squares += values[j] * values[j];
            largest = fmax(largest, fabs(values[j]));
        }
        if (parameter->role == PARAMETER_GAMMA || parameter->role == PARAMETER_BETA) continue;
        double count = (double)parameter->count, deviation = bound / sqrt(3);
        assert_true(largest <= bound && largest > 0.7 * bound);
        assert_true(fabs(sum / count) < 4 * deviation / sqrt(count));
        assert_true(fabs(squares / count / (deviation * deviation) - 1) < 4 / sqrt(count));
        assert_true(memcmp(values, other + parameter->offset, (size_t)parameter->count * sizeof *values) != 0);
        if (i > 0) assert_true(values[0] != theta[0]);
    }
    free(theta);
    free(other);
    graph_destroy(graph);
}

/* --- the forward pass in plain loops --- */

struct plane {
    int n, c, h, w;
    double *values;
};

static struct plane plane_make(int n, int c, int h, int w) {
    return (struct plane){n, c, h, w, calloc((size_t)(n * c * h * w), sizeof(double))};
}

static double *at(const struct plane *x, int n, int c, int i, int j) {
    return &x->values[((n * x->c + c) * x->h + i) * x->w + j];
}

static struct plane naive_conv(struct plane x, const double *weight, const double *bias, int width) {
    struct plane y = plane_make(x.n, width, x.h, x.w);
    for (int n = 0; n < x.n; n++)
        for (int o = 0; o < width; o++)
            for (int i = 0; i < x.h; i++)
                for (int j = 0; j < x.w; j++) {
                    double sum = bias[o];
                    for (int c = 0; c < x.c; c++)
                        for (int a = -1; a <= 1; a++)
                            for (int b = -1; b <= 1; b++)
                                if (i + a >= 0 && i + a < x.h && j + b >= 0 && j + b < x.w)
                                    sum +=
                                        weight[((o * x.c + c) * 3 + a + 1) * 3 + b + 1] * *at(&x, n, c, i + a, j + b);
                    *at(&y, n, o, i, j) = sum;
                }
    free(x.values);
    return y;
}

/* Whether two places of a tensor are normalised together. */
static bool together(const struct network_spec *spec, int n, int c, int other_n, int other_c) {
    int group = spec->norm == NORM_GROUP ? spec->width / spec->groups : 1;
    switch (spec->norm) {
    case NORM_BATCH:
        return c == other_c;
    case NORM_LAYER:
        return n == other_n;
    default:
        return n == other_n && c / group == other_c / group;
    }
}

static struct plane naive_norm(const struct network_spec *spec, struct plane x, const double *gamma, const double *beta,
                               double *batch_stats) {
    struct plane y = plane_make(x.n, x.c, x.h, x.w);
    for (int n = 0; n < x.n; n++)
        for (int c = 0; c < x.c; c++) {
            double count = 0, mean = 0, variance = 0;
            for (int pass = 0; pass < 2; pass++)
                for (int m = 0; m < x.n; m++)
                    for (int d = 0; d < x.c; d++)
                        for (int p = 0; p < x.h * x.w && together(spec, n, c, m, d); p++) {
                            double value = *at(&x, m, d, 0, p);
                            if (pass == 0) {
                                mean = (mean * count + value) / (count + 1);
                                count++;
                            } else {
                                variance += (value - mean) * (value - mean) / count;
                            }
                        }
            for (int p = 0; p < x.h * x.w; p++)
                *at(&y, n, c, 0, p) = (*at(&x, n, c, 0, p) - mean) / sqrt(variance + 1e-5) * gamma[c] + beta[c];
            if (batch_stats) {
                batch_stats[c] = mean;
                batch_stats[x.c + c] = variance * count / (count - 1);
            }
        }
    free(x.values);
    return y;
}

static double naive_activation(enum activation_kind kind, double x) {
    switch (kind) {
    case ACTIVATION_RELU:
        return x > 0 ? x : 0;
    case ACTIVATION_LEAKY_RELU:
        return x > 0 ? x : 0.01 * x;
    case ACTIVATION_SIGMOID:
        return 1 / (1 + exp(-x));
    case ACTIVATION_GELU:
        return x * 0.5 * erfc(-x / sqrt(2));
    default:
        return x / (1 + exp(-x));
    }
}

static struct plane naive_pool(enum pool_kind kind, struct plane x) {
    if (kind == POOL_NONE) return x;
    struct plane y = plane_make(x.n, x.c, x.h / 2, x.w / 2);
    for (int n = 0; n < x.n; n++)
        for (int c = 0; c < x.c; c++)
            for (int i = 0; i < y.h; i++)
                for (int j = 0; j < y.w; j++) {
                    double a = *at(&x, n, c, 2 * i, 2 * j), b = *at(&x, n, c, 2 * i, 2 * j + 1);
                    double d = *at(&x, n, c, 2 * i + 1, 2 * j), e = *at(&x, n, c, 2 * i + 1, 2 * j + 1);
                    *at(&y, n, c, i, j) = kind == POOL_MAX ? fmax(fmax(a, b), fmax(d, e)) : (a + b + d + e) / 4;
                }
    free(x.values);
    return y;
}

static struct plane naive_linear(struct plane x, const double *weight, const double *bias, int units) {
    int features = x.c * x.h * x.w;
    struct plane y = plane_make(x.n, units, 1, 1);
    for (int n = 0; n < x.n; n++)
        for (int k = 0; k < units; k++) {
            *at(&y, n, k, 0, 0) = bias[k];
            for (int f = 0; f < features; f++) *at(&y, n, k, 0, 0) += weight[k * features + f] * *at(&x, n, 0, 0, f);
        }
    free(x.values);
    return y;
}

/* Logits, to be freed; the batch's statistics [q] where asked for. */
static double *naive_logits(const struct network *network, const double *theta, const double *images, int count,
                            double *stats) {
    const struct network_spec *spec = &network->spec;
    struct plane x = plane_make(count, network->channels, network->height, network->width);
    const struct network_parameter *parameter = network->parameters;
    memcpy(x.values, images, (size_t)(count * x.c * x.h * x.w) * sizeof *images);
    for (int block = 0; block < spec->depth; block++) {
        const double *weight = theta + parameter[0].offset, *bias = theta + parameter[1].offset;
        parameter += 2;
        if (spec->kind == NETWORK_MLP) {
            x = naive_linear(x, weight, bias, spec->width);
        } else {
            x = naive_conv(x, weight, bias, spec->width);
        }
        if (spec->norm != NORM_NONE) {
            x = naive_norm(spec, x, theta + parameter[0].offset, theta + parameter[1].offset,
                           stats ? stats + (size_t)block * 2 * (size_t)spec->width : NULL);
            parameter += 2;
        }
        for (int i = 0; i < x.n * x.c * x.h * x.w; i++) x.values[i] = naive_activation(spec->activation, x.values[i]);
        if (spec->kind == NETWORK_CONVNET) x = naive_pool(spec->pool, x);
    }
    return naive_linear(x, theta + parameter[0].offset, theta + parameter[1].offset, network->classes).values;
}

static double naive_loss(const double *logits, const double *labels, int count, int classes) {
    double loss = 0;
    for (int n = 0; n < count; n++) {
        double total = 0;
        for (int k = 0; k < classes; k++) total += exp(logits[n * classes + k]);
        loss -= (logits[n * classes + (int)labels[n]] - log(total)) / count;
    }
    return loss;
}

/* The head makes of the features what the plain loops say the logits are. */
static void check_head(const struct network *network, const double *theta, const double *features,
                       const double *logits) {
    const struct network_parameter *head = &network->parameters[network->parameter_count - 2];
    double own[BATCH * CLASSES];
    for (int i = 0; i < BATCH * CLASSES; i++) {
        own[i] = theta[head[1].offset + i % CLASSES];
        for (int64_t j = 0; j < network->features; j++)
            own[i] += features[i / CLASSES * network->features + j]
                      * theta[head[0].offset + i % CLASSES * network->features + j];
    }
    assert_true(relative_error(own, logits, BATCH * CLASSES) < 1e-12);
}

/* Forward pass, features, loss, gradient and one direction of it for one network. */
static void check_network(const struct network_spec *spec) {
    struct network network;
    assert_ok(network_describe(spec, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    int64_t p = network.theta_count;
    struct random random = random_begin(5, RANDOM_TEST, 0);
    double *theta = calloc((size_t)p, sizeof *theta), *gradient = calloc((size_t)p, sizeof *gradient);
    double images[BATCH * CHANNELS * HEIGHT * WIDTH], labels[BATCH] = {2, 0}, logits[BATCH * CLASSES], loss;
    fill_normal(&random, theta, p, 0.3);
    fill_normal(&random, images, BATCH * CHANNELS * HEIGHT * WIDTH, 1);

    struct graph *graph;
    assert_ok(graph_create(&graph));
    struct node *t = graph_input(graph, "theta", FLOAT32, SHAPE(p));
    struct network_pass pass = {t, graph_input(graph, "images", FLOAT32, SHAPE(BATCH, CHANNELS, HEIGHT, WIDTH))};
    struct node *z = network_logits(graph, &network, &pass, NULL, NULL), *g;
    struct node *l = loss_hard(graph, z, graph_input(graph, "labels", INT32, SHAPE(BATCH)));
    assert_ok(graph_status(graph));
    assert_ok(transform_vjp(l, NULL, &t, 1, &g));
    struct node *f = network_features(graph, &network, &pass);
    assert_true(shape_equal(f->shape, SHAPE(BATCH, network.features)));
    double *features = calloc((size_t)(BATCH * network.features), sizeof *features);
    graph_output(graph, "logits", z);
    graph_output(graph, "features", f);
    graph_output(graph, "loss", l);
    graph_output(graph, "gradient", g);
    assert_ok(graph_verify(graph));
    evaluate(graph, BINDINGS({"theta", theta}, {"images", images}, {"labels", labels}, {"logits", logits},
                             {"features", features}, {"loss", &loss}, {"gradient", gradient}));
    double *expected = naive_logits(&network, theta, images, BATCH, NULL);
    assert_true(relative_error(logits, expected, BATCH * CLASSES) < 1e-12);
    check_head(&network, theta, features, expected);
    free(features);
    assert_true(fabs(loss - naive_loss(expected, labels, BATCH, CLASSES)) < 1e-12);
    free(expected);

    /* A direction at random, against the plain loops' losses on both sides. */
    double slope = 0, difference = 0, magnitude = 0, *moved = calloc((size_t)p, sizeof *moved);
    const double step = 1e-6;
    double *direction = calloc((size_t)p, sizeof *direction);
    fill_normal(&random, direction, p, 1 / sqrt((double)p));
    for (int side = -1; side <= 1; side += 2) {
        for (int64_t i = 0; i < p; i++) moved[i] = theta[i] + side * step * direction[i];
        double *values = naive_logits(&network, moved, images, BATCH, NULL);
        difference += side * naive_loss(values, labels, BATCH, CLASSES) / (2 * step);
        free(values);
    }
    for (int64_t i = 0; i < p; i++) {
        slope += gradient[i] * direction[i];
        magnitude += fabs(gradient[i] * direction[i]);
    }
    if (!(fabs(slope - difference) <= 1e-6 * magnitude))
        fail_msg("norm %d activation %d pool %d depth %d: gradient %.12g, difference %.12g", spec->norm,
                 spec->activation, spec->pool, spec->depth, slope, difference);
    for (int i = 0; i < network.parameter_count; i++) {
        const struct network_parameter *parameter = &network.parameters[i];
        bool zero = true;
        for (int64_t j = 0; j < parameter->count; j++) zero &= gradient[parameter->offset + j] == 0;
        if (zero != parameter->dead) fail_msg("parameter %d: dead %d, zero %d", i, parameter->dead, zero);
    }
    free(theta);
    free(gradient);
    free(direction);
    free(moved);
    graph_destroy(graph);
}

static void test_networks(void **state) {
    (void)state;
    for (int norm = NORM_NONE; norm <= NORM_LAYER; norm++)
        for (int activation = ACTIVATION_RELU; activation <= ACTIVATION_SWISH; activation++)
            for (int pool = POOL_AVERAGE; pool <= POOL_NONE; pool++)
                for (int depth = 1; depth <= 2; depth++) {
                    struct network_spec spec = plain;
                    spec.norm = (enum norm_kind)norm;
                    spec.activation = (enum activation_kind)activation;
                    spec.pool = (enum pool_kind)pool;
                    spec.depth = depth;
                    check_network(&spec);
                }
    for (int depth = 0; depth <= 3; depth++)
        check_network(&(struct network_spec){
            .kind = NETWORK_MLP, .depth = depth, .width = 7, .activation = (enum activation_kind)(depth % 5)});
    struct network_spec groups = plain;
    groups.norm = NORM_GROUP;
    groups.groups = 4;
    check_network(&groups);
    groups.groups = 1;
    check_network(&groups);
}

static void test_running_statistics(void **state) {
    (void)state;
    struct network network;
    struct network_spec spec = plain;
    spec.norm = NORM_BATCH;
    spec.activation = ACTIVATION_SWISH; /* lets every channel through */
    assert_ok(network_describe(&spec, CHANNELS, HEIGHT, WIDTH, CLASSES, &network));
    int64_t p = network.theta_count, q = network.stats_count;
    assert_int_equal(q, 16);
    struct random random = random_begin(6, RANDOM_TEST, 0);
    double *theta = calloc((size_t)p, sizeof *theta), images[BATCH * CHANNELS * HEIGHT * WIDTH];
    double before[16], after[16], batch[16], expected[16], logits[2][BATCH * CLASSES], gradient[4];
    fill_normal(&random, theta, p, 0.3);
    fill_normal(&random, images, BATCH * CHANNELS * HEIGHT * WIDTH, 1);
    for (int i = 0; i < 16; i++) before[i] = 0.5 + random_uniform(&random);

    struct graph *graph;
    assert_ok(graph_create(&graph));
    struct node *t = graph_input(graph, "theta", FLOAT32, SHAPE(p)),
                *s = graph_input(graph, "stats", FLOAT32, SHAPE(q));
    struct network_pass pass = {t, graph_input(graph, "images", FLOAT32, SHAPE(BATCH, CHANNELS, HEIGHT, WIDTH))};
    struct node *updated = NULL, *z = network_logits(graph, &network, &pass, s, &updated);
    pass.stats_in = s;
    struct node *tested = network_logits(graph, &network, &pass, NULL, NULL), *g;
    assert_ok(graph_status(graph));
    assert_ok(transform_vjp(node_sum_all(node_square(tested)), NULL, &t, 1, &g));
    graph_output(graph, "logits", z);
    graph_output(graph, "updated", updated);
    graph_output(graph, "tested", tested);
    /* With running statistics the first block's bias moves the result. */
    graph_output(graph, "gradient", node_slice(g, &network.parameters[1].offset, (int64_t[]){1}, SHAPE(4)));
    assert_ok(graph_verify(graph));
    struct binding *bindings =
        (struct binding[]){{"theta", theta},   {"stats", before},     {"images", images},     {"logits", logits[0]},
                           {"updated", after}, {"tested", logits[1]}, {"gradient", gradient}, {0}};
    evaluate(graph, bindings);
    free(naive_logits(&network, theta, images, BATCH, batch));
    for (int i = 0; i < 16; i++) expected[i] = 0.9 * before[i] + 0.1 * batch[i];
    assert_true(relative_error(after, expected, 16) < 1e-12);
    for (int i = 0; i < 4; i++) assert_true(gradient[i] != 0);

    /* Tested with the statistics of the batch itself, biased, a network says what it said in training. */
    for (int i = 0; i < 16; i++) {
        double count = BATCH * (i < 8 ? HEIGHT * WIDTH : (HEIGHT / 2) * (WIDTH / 2));
        before[i] = i % 8 < 4 ? batch[i] : batch[i] * (count - 1) / count;
    }
    evaluate(graph, bindings);
    assert_true(relative_error(logits[1], logits[0], BATCH * CLASSES) < 1e-12);
    free(theta);
    graph_destroy(graph);
}

static void test_losses(void **state) {
    (void)state;
    struct graph *graph;
    assert_ok(graph_create(&graph));
    double logits[6] = {1, 1, 1000, -1000, 0.5, 0.5}, labels[2] = {2, 1}, targets[6] = {0, 0, 1, 0, 2, 3};
    double hard, soft, right, gradient[6];
    struct node *z = graph_input(graph, "logits", FLOAT32, SHAPE(2, 3)), *g;
    struct node *y = graph_input(graph, "labels", INT32, SHAPE(2));
    struct node *loss = loss_hard(graph, z, y);
    assert_ok(transform_vjp(loss, NULL, &z, 1, &g));
    graph_output(graph, "hard", loss);
    graph_output(graph, "soft", loss_soft(graph, z, graph_input(graph, "targets", FLOAT32, SHAPE(2, 3))));
    graph_output(graph, "right", count_correct(graph, z, y));
    graph_output(graph, "gradient", g);
    evaluate(graph, BINDINGS({"logits", logits}, {"labels", labels}, {"targets", targets}, {"hard", &hard},
                             {"soft", &soft}, {"right", &right}, {"gradient", gradient}));
    assert_true(fabs(hard - log(2) / 2) < 1e-15);
    assert_true(fabs(soft - 5 * log(2) / 2) < 1e-15);
    assert_true(right == 2); /* of the equal largest, the first */
    const double expected[6] = {0, 0, 0, 0, -0.25, 0.25};
    for (int i = 0; i < 6; i++) assert_true(fabs(gradient[i] - expected[i]) < 1e-15);
    assert_null(loss_hard(graph, y, y));
    assert_int_equal(graph_status(graph), RETORT_EINVAL);
    graph_destroy(graph);
}

static void test_bad_passes(void **state) {
    (void)state;
    struct network network, batch;
    struct network_spec spec = plain;
    assert_ok(network_describe(&spec, 1, 8, 8, 3, &network));
    spec = (struct network_spec){.depth = 1, .width = 2, .norm = NORM_BATCH, .pool = POOL_NONE};
    assert_ok(network_describe(&spec, 1, 1, 1, 3, &batch));
#define REFUSED(net, passing, before, out, words)                                                               \
    do {                                                                                                        \
        struct graph *graph;                                                                                    \
        struct node *stats;                                                                                     \
        assert_ok(graph_create(&graph));                                                                        \
        struct node *theta = graph_input(graph, "theta", FLOAT32, SHAPE((net).theta_count));                    \
        struct node *images = graph_input(graph, "images", FLOAT32, SHAPE(1, 1, (net).height, (net).width));    \
        struct node *vector = graph_input(graph, "vector", FLOAT32, SHAPE(4));                                  \
        (void)theta, (void)images, (void)vector;                                                                \
        assert_null(network_logits(graph, &(net), &(struct network_pass)passing, before, (out) ? &stats : NULL) \
                            && graph_status(graph) == RETORT_OK                                                 \
                        ? graph                                                                                 \
                        : NULL);                                                                                \
        assert_int_equal(graph_status(graph), RETORT_EINVAL);                                                   \
        if (!strstr(retort_error_message(), words)) fail_msg("%s", retort_error_message());                     \
        graph_destroy(graph);                                                                                   \
    } while (0)
#define PASS(...) {__VA_ARGS__}
    REFUSED(network, PASS(vector, images), NULL, false, "theta must be float32 [");
    REFUSED(network, PASS(theta, vector), NULL, false, "images must be [N,1,8,8], not [4]");
    REFUSED(batch, PASS(theta, images, theta), NULL, false, "running statistics must be float32 [4]");
    REFUSED(batch, PASS(theta, images, vector), vector, true, "either reads running statistics or updates them");
    REFUSED(batch, PASS(theta, images), NULL, true, "running statistics must be float32 [4]");
    REFUSED(batch, PASS(theta, images), vector, true, "more than one value per channel");
}

/* --- the Siamese augmentation --- */

enum { GROUPS = 6, EACH = 2, IMAGES = GROUPS * EACH, CHANNEL = 3, TALL = 5, WIDE = 6, AREA = TALL * WIDE };
enum { VALUES = CHANNEL * AREA }; /* of an image */

/* One image by the definitions, the family's own formula and nothing else. */
static void naive_siamese(enum siamese_family family, const float *map, const float *colour, const double *x,
                          double *y) {
    double moved[VALUES], mean = 0;
    for (int k = 0; k < VALUES; k++) y[k] = x[k];
    switch (family) {
    case SIAMESE_COLOUR:
        for (int i = 0; i < AREA; i++) {
            double grey = 0;
            for (int c = 0; c < CHANNEL; c++) grey += (x[c * AREA + i] + (double)colour[0]) / CHANNEL;
            for (int c = 0; c < CHANNEL; c++)
                moved[c * AREA + i] = grey + (double)colour[1] * (x[c * AREA + i] + (double)colour[0] - grey);
        }
        for (int k = 0; k < VALUES; k++) mean += moved[k] / VALUES;
        for (int k = 0; k < VALUES; k++) y[k] = mean + (double)colour[2] * (moved[k] - mean);
        return;
    case SIAMESE_CUTOUT:
        for (int k = 0; k < VALUES; k++)
            if (fabs(k / WIDE % TALL - (double)colour[3]) <= (double)colour[5]
                && fabs(k % WIDE - (double)colour[4]) <= (double)colour[6])
                y[k] = 0;
        return;
    case SIAMESE_FLIP:
        for (int k = 0; k < VALUES; k++) y[k] = x[map[0] < 0 ? k - k % WIDE + WIDE - 1 - k % WIDE : k];
        return;
    case SIAMESE_CROP:
        for (int k = 0; k < VALUES; k++) {
            int row = k / WIDE % TALL + (int)map[5], column = k % WIDE + (int)map[2];
            bool inside = row >= 0 && row < TALL && column >= 0 && column < WIDE;
            y[k] = inside ? x[k / AREA * AREA + row * WIDE + column] : 0;
        }
        return;
    default: /* scale and rotate: every pixel weighted by its distance from the place that is read */
        for (int k = 0; k < VALUES; k++) {
            double u = k % WIDE - (WIDE - 1) / 2.0, v = k / WIDE % TALL - (TALL - 1) / 2.0;
            double column = (double)map[0] * u + (double)map[1] * v + (WIDE - 1) / 2.0;
            double row = (double)map[3] * u + (double)map[4] * v + (TALL - 1) / 2.0;
            y[k] = 0;
            for (int i = 0; i < AREA; i++)
                y[k] +=
                    x[k / AREA * AREA + i] * fmax(0, 1 - fabs(row - i / WIDE)) * fmax(0, 1 - fabs(column - i % WIDE));
        }
    }
}

/* L = sum of w y^3 / 3 of y = A x: its gradient A^T (w y^2) and the Hessian's product A^T (2 w y A v), by columns of A.
 */
static void naive_derivatives(enum siamese_family family, const float *map, const float *colour, const double *x,
                              const double *w, const double *v, double *gradient, double *product) {
    double zero[VALUES] = {0}, start[VALUES], y[VALUES], along[VALUES] = {0}, columns[VALUES][VALUES];
    naive_siamese(family, map, colour, zero, start);
    naive_siamese(family, map, colour, x, y);
    for (int j = 0; j < VALUES; j++) {
        double one[VALUES] = {0};
        one[j] = 1;
        naive_siamese(family, map, colour, one, columns[j]);
        for (int k = 0; k < VALUES; k++) along[k] += (columns[j][k] -= start[k]) * v[j];
    }
    for (int j = 0; j < VALUES; j++) {
        gradient[j] = product[j] = 0;
        for (int k = 0; k < VALUES; k++) {
            gradient[j] += columns[j][k] * w[k] * y[k] * y[k];
            product[j] += columns[j][k] * 2 * w[k] * y[k] * along[k];
        }
    }
}

/* Each of six groups has another family, drawn as classes' are: values, gradient and one product of the Hessian. */
static void test_siamese(void **state) {
    (void)state;
    static double x[IMAGES * VALUES], w[IMAGES * VALUES], v[IMAGES * VALUES], got[3][IMAGES * VALUES],
        expected[3][IMAGES * VALUES];
    double maps[GROUPS * MAP_SIZE], colours[GROUPS * COLOUR_SIZE];
    float map[GROUPS][MAP_SIZE], colour[GROUPS][COLOUR_SIZE];
    struct random random = random_begin(7, RANDOM_TEST, 0);
    fill_normal(&random, x, IMAGES * VALUES, 1);
    fill_normal(&random, w, IMAGES * VALUES, 1);
    fill_normal(&random, v, IMAGES * VALUES, 1);
    static const float identity[MAP_SIZE] = {1, 0, 0, 0, 1, 0};
    for (int g = 0; g < GROUPS; g++) {
        uint32_t step = 0;
        /* No flip or crop that leaves the image alone. */
        while (siamese_draw_class(3, step, g, true, TALL, WIDE, map[g], colour[g]) != (enum siamese_family)g
               || (g != SIAMESE_COLOUR && g != SIAMESE_CUTOUT && !memcmp(map[g], identity, sizeof identity)))
            step++;
        for (int i = 0; i < MAP_SIZE; i++) maps[g * MAP_SIZE + i] = (double)map[g][i];
        for (int i = 0; i < COLOUR_SIZE; i++) colours[g * COLOUR_SIZE + i] = (double)colour[g][i];
    }
    for (int n = 0; n < IMAGES; n++) {
        int g = n / EACH, at = n * VALUES;
        naive_siamese((enum siamese_family)g, map[g], colour[g], x + at, expected[0] + at);
        naive_derivatives((enum siamese_family)g, map[g], colour[g], x + at, w + at, v + at, expected[1] + at,
                          expected[2] + at);
    }
    struct graph *graph;
    assert_ok(graph_create(&graph));
    struct shape shape = SHAPE(IMAGES, CHANNEL, TALL, WIDE);
    struct node *images = graph_input(graph, "x", FLOAT32, shape), *gradient, *product;
    struct node *y = siamese_apply(graph, images, graph_input(graph, "maps", FLOAT32, SHAPE(GROUPS, 2, 3)),
                                   graph_input(graph, "colour", FLOAT32, SHAPE(GROUPS, COLOUR_SIZE)));
    struct node *cube = node_multiply(y, node_square(y));
    struct node *loss = node_scale(node_sum_all(node_multiply(graph_input(graph, "w", FLOAT32, shape), cube)), 1.0 / 3);
    struct node *direction = graph_input(graph, "v", FLOAT32, shape);
    assert_ok(graph_status(graph));
    assert_ok(transform_vjp(loss, NULL, &images, 1, &gradient));
    assert_ok(transform_jvp(&gradient, 1, &images, &direction, 1, &product));
    graph_output(graph, "y", y);
    graph_output(graph, "gradient", gradient);
    graph_output(graph, "product", product);
    assert_ok(graph_verify(graph));
    evaluate(graph, BINDINGS({"x", x}, {"w", w}, {"v", v}, {"maps", maps}, {"colour", colours}, {"y", got[0]},
                             {"gradient", got[1]}, {"product", got[2]}));
    for (int g = 0; g < GROUPS; g++)
        for (int what = 0; what < 3; what++) {
            int64_t at = g * EACH * VALUES;
            double error = relative_error(got[what] + at, expected[what] + at, EACH * VALUES);
            if (!(error < 1e-12)) fail_msg("family %d, derivative %d: %.3g off", g, what, error);
        }
    graph_destroy(graph);
}

/* All kinds at once: the definitions one after another. */
static void test_composed_siamese(void **state) {
    (void)state;
    enum { DRAWS = 12 };
    unsigned places = 0;
    for (int draw = 0; draw < DRAWS; draw++) {
        float map[MAP_SIZE], colour[COLOUR_SIZE];
        double x[VALUES], y[VALUES], tinted[VALUES], moved[VALUES], expected[VALUES], maps[MAP_SIZE],
            colours[COLOUR_SIZE];
        struct random random = random_begin(9, RANDOM_TEST, (uint32_t)draw);
        fill_normal(&random, x, VALUES, 1);
        siamese_draw_composed(&random, TALL, WIDE, 1, map, colour);
        enum siamese_family place = map[0] == 1 && map[4] == 1 && map[1] == 0 ? SIAMESE_CROP : SIAMESE_ROTATE;
        if (place == SIAMESE_ROTATE && map[1] == 0) place = SIAMESE_SCALE;
        places |= 1u << place;
        naive_siamese(SIAMESE_COLOUR, map, colour, x, tinted);
        naive_siamese(place, map, colour, tinted, moved);
        naive_siamese(SIAMESE_CUTOUT, map, colour, moved, expected);
        for (int i = 0; i < MAP_SIZE; i++) maps[i] = (double)map[i];
        for (int i = 0; i < COLOUR_SIZE; i++) colours[i] = (double)colour[i];
        struct graph *graph;
        assert_ok(graph_create(&graph));
        graph_output(graph, "y",
                     siamese_apply_composed(graph, graph_input(graph, "x", FLOAT32, SHAPE(1, CHANNEL, TALL, WIDE)),
                                            graph_input(graph, "maps", FLOAT32, SHAPE(1, 2, 3)),
                                            graph_input(graph, "colour", FLOAT32, SHAPE(1, COLOUR_SIZE))));
        assert_ok(graph_status(graph));
        evaluate(graph, BINDINGS({"x", x}, {"maps", maps}, {"colour", colours}, {"y", y}));
        double error = relative_error(y, expected, VALUES);
        if (!(error < 1e-12)) fail_msg("draw %d: %.3g off", draw, error);
        graph_destroy(graph);
    }
    assert_int_equal(places, 1u << SIAMESE_CROP | 1u << SIAMESE_SCALE | 1u << SIAMESE_ROTATE);
}

static void test_bad_siamese(void **state) {
    (void)state;
    const struct {
        struct shape images, maps, colour;
        const char *words;
    } cases[] = {
        {SHAPE(6, 1, 4), SHAPE(6, 2, 3), SHAPE(6, COLOUR_SIZE), "images must be float32 [N,C,H,W]"},
        {SHAPE(6, 1, 4, 4), SHAPE(4, 2, 3), SHAPE(6, COLOUR_SIZE), "maps must be float32 [G,2,3], 6 images"},
        {SHAPE(6, 1, 4, 4), SHAPE(6, 6), SHAPE(6, COLOUR_SIZE), "maps must be float32 [G,2,3], 6 images"},
        {SHAPE(6, 1, 4, 4), SHAPE(2, 2, 3), SHAPE(12, COLOUR_SIZE), "colour must be float32 [G,8], 6 images"},
        {SHAPE(6, 1, 4, 4), SHAPE(2, 2, 3), SHAPE(3, 7), "colour must be float32 [G,8], 6 images"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct graph *graph;
        assert_ok(graph_create(&graph));
        assert_null(siamese_apply(graph, graph_input(graph, "x", FLOAT32, cases[i].images),
                                  graph_input(graph, "maps", FLOAT32, cases[i].maps),
                                  graph_input(graph, "colour", FLOAT32, cases[i].colour)));
        assert_int_equal(graph_status(graph), RETORT_EINVAL);
        if (!strstr(retort_error_message(), cases[i].words)) fail_msg("%s", retort_error_message());
        graph_destroy(graph);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_initial_theta),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_running_statistics),
        cmocka_unit_test(test_losses),
        cmocka_unit_test(test_bad_passes),
        cmocka_unit_test(test_siamese),
        cmocka_unit_test(test_composed_siamese),
        cmocka_unit_test(test_bad_siamese),
    };
    return cmocka_run_group_tests_name("nn", tests, NULL, NULL);
}
