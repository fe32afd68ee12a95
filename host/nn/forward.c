/* The forward pass: convolution, norm, activation and pooling of each block, and the head. */
#include "nn/nn.h"

#include <math.h>

#include "base/error.h"

#define AXIS(d) (1u << (d))

/* A pass under way: what it reads, and how far it has come. */
struct forward {
    const struct network *network;
    const struct network_pass *pass;
    int parameter;                             /* the next one to be read */
    struct node *stats[2 * NETWORK_MAX_DEPTH]; /* the batch's means and unbiased variances so far, each [O] */
    int stats_count;
};

static struct node *slice_vector(struct node *vector, int64_t offset, int64_t count) {
    return node_slice(vector, &offset, (int64_t[]){1}, SHAPE(count));
}

/* The next parameter, in a shape of the same size. */
static struct node *next_parameter(struct forward *forward, struct shape shape) {
    const struct network_parameter *parameter = &forward->network->parameters[forward->parameter++];
    return node_reshape(slice_vector(forward->pass->theta, parameter->offset, parameter->count), shape);
}

/* (x - mean) / sqrt(variance + eps), the statistics being stretched. */
static struct node *standardise(struct node *x, struct node *mean, struct node *variance) {
    struct node *scale = node_reciprocal(node_sqrt(node_shift(variance, 1e-5)));
    return node_multiply_stretched(node_subtract_stretched(x, mean), scale);
}

/* Standardises over `axes` with the biased variance of what it sees. */
static struct node *standardise_over(struct node *x, uint32_t axes, struct node **mean, struct node **variance) {
    *mean = node_reduce_mean(x, axes);
    *variance = node_reduce_mean(node_square(node_subtract_stretched(x, *mean)), axes);
    return standardise(x, *mean, *variance);
}

/* Batch norm: with the running statistics where the pass gives them, else with the batch's, which are kept. */
static struct node *batch_norm(struct forward *forward, struct node *x) {
    int64_t width = x->shape.size[1], count = shape_count(x->shape) / width;
    struct node *mean, *variance;
    if (forward->pass->stats_in) {
        int64_t offset = forward->stats_count * width;
        forward->stats_count += 2;
        mean = slice_vector(forward->pass->stats_in, offset, width);
        variance = slice_vector(forward->pass->stats_in, offset + width, width);
        return standardise(x, node_reshape(mean, SHAPE(1, width, 1, 1)), node_reshape(variance, SHAPE(1, width, 1, 1)));
    }
    struct node *result = standardise_over(x, AXIS(0) | AXIS(2) | AXIS(3), &mean, &variance);
    forward->stats[forward->stats_count++] = mean ? node_reshape(mean, SHAPE(width)) : NULL;
    forward->stats[forward->stats_count++] =
        variance && count > 1 ? node_scale(node_reshape(variance, SHAPE(width)), (double)count / (double)(count - 1))
                              : NULL;
    return result;
}

static struct node *normalise(struct forward *forward, struct node *x) {
    const struct network_spec *spec = &forward->network->spec;
    struct node *mean, *variance;
    if (!x || spec->norm == NORM_NONE) return x;
    struct shape shape = x->shape;
    struct shape channels = SHAPE(1, shape.size[1], 1, 1);
    switch (spec->norm) {
    case NORM_INSTANCE:
        x = standardise_over(x, AXIS(2) | AXIS(3), &mean, &variance);
        break;
    case NORM_LAYER:
        x = standardise_over(x, AXIS(1) | AXIS(2) | AXIS(3), &mean, &variance);
        break;
    case NORM_GROUP: {
        struct shape groups =
            SHAPE(shape.size[0], spec->groups, shape.size[1] / spec->groups, shape.size[2], shape.size[3]);
        x = standardise_over(node_reshape(x, groups), AXIS(2) | AXIS(3) | AXIS(4), &mean, &variance);
        x = node_reshape(x, shape);
        break;
    }
    default:
        x = batch_norm(forward, x);
        break;
    }
    struct node *gamma = next_parameter(forward, channels), *beta = next_parameter(forward, channels);
    return node_add_stretched(node_multiply_stretched(x, gamma), beta);
}

/* 1 / (1 + exp(-x)), without overflow. */
static struct node *sigmoid(struct node *x) {
    return node_scale(node_shift(node_tanh(node_scale(x, 0.5)), 1), 0.5);
}

static struct node *activate(enum activation_kind kind, struct node *x) {
    if (!x) return NULL;
    switch (kind) {
    /* The other branch comes first, so that it is taken at zero: PyTorch's derivatives there. */
    case ACTIVATION_RELU:
        return node_max(graph_constant(x->graph, 0, x->shape), x);
    case ACTIVATION_LEAKY_RELU:
        return node_max(node_scale(x, 0.01), x);
    case ACTIVATION_SIGMOID:
        return sigmoid(x);
    case ACTIVATION_GELU:
        return node_multiply(x, node_scale(node_shift(node_erf(node_scale(x, sqrt(0.5))), 1), 0.5));
    default:
        return node_multiply(x, sigmoid(x)); /* swish */
    }
}

/* The largest of each 2 x 2 square; on ties the first in reading order takes the derivative. */
static struct node *max_pool(struct node *x) {
    if (!x) return NULL;
    const int64_t step[4] = {1, 1, 2, 2};
    struct shape half = SHAPE(x->shape.size[0], x->shape.size[1], x->shape.size[2] / 2, x->shape.size[3] / 2);
    struct node *largest = NULL;
    for (int64_t corner = 0; corner < 4; corner++) {
        const int64_t start[4] = {0, 0, corner / 2, corner % 2};
        struct node *slice = node_slice(x, start, step, half);
        largest = corner == 0 ? slice : node_max(largest, slice);
    }
    return largest;
}

static struct node *pool(enum pool_kind kind, struct node *x) {
    switch (kind) {
    case POOL_AVERAGE:
        return node_average_pool(x, 2);
    case POOL_MAX:
        return max_pool(x);
    default:
        return x;
    }
}

static struct node *conv_block(struct forward *forward, struct node *x) {
    const struct network *network = forward->network;
    const struct network_parameter *bias_parameter = &network->parameters[forward->parameter + 1];
    int64_t width = network->spec.width;
    struct node *weight = next_parameter(forward, network->parameters[forward->parameter].shape);
    struct node *bias = next_parameter(forward, SHAPE(1, width, 1, 1));
    /* Rounding noise in the gradient of a bias that has no effect would be turned into steps by Adam. Batch norm's
     * running means do contain it. */
    if (bias_parameter->dead && !forward->pass->stats_in) bias = node_stop_gradient(bias);
    x = node_conv(x, weight, 1, 1);
    if (!bias_parameter->dead || network->spec.norm == NORM_BATCH) x = node_add_stretched(x, bias);
    x = normalise(forward, x);
    return pool(network->spec.pool, activate(network->spec.activation, x));
}

static struct node *linear(struct forward *forward, struct node *x) {
    struct shape weight_shape = forward->network->parameters[forward->parameter].shape;
    struct node *weight = next_parameter(forward, weight_shape);
    struct node *bias = next_parameter(forward, SHAPE(1, weight_shape.size[0]));
    return node_add_stretched(node_matmul(x, weight, false, true), bias);
}

static struct node *flatten(struct node *x) {
    if (!x) return NULL;
    return node_reshape(x, SHAPE(x->shape.size[0], shape_count(x->shape) / x->shape.size[0]));
}

/* The running statistics after the batch whose own were kept on the way. */
static struct node *update_stats(struct forward *forward, struct node *before) {
    const double momentum = 0.1;
    struct node *batch = node_concat(forward->stats, forward->stats_count, 0);
    return batch ? node_add(node_scale(before, 1 - momentum), node_scale(batch, momentum)) : NULL;
}

static bool is_vector(const struct node *node, int64_t count) {
    return node->dtype == FLOAT32 && shape_equal(node->shape, SHAPE(count));
}

/* Refuses operands that are not this network's; false also where one is missing after an earlier failure. */
static bool check_pass(struct graph *graph, const struct network *network, const struct network_pass *pass,
                       struct node *stats_before, bool wants_stats) {
    char text[160];
    if (!pass->theta || !pass->images) return false;
    shape_print(pass->images->shape, text, sizeof text);
    int64_t count = pass->images->shape.size[0];
    if (!is_vector(pass->theta, network->theta_count)) {
        graph_fail(graph, RETORT_EINVAL, "network: theta must be float32 [%lld]", (long long)network->theta_count);
    } else if (pass->images->shape.rank != 4
               || !shape_equal(pass->images->shape, SHAPE(count, network->channels, network->height, network->width))) {
        graph_fail(graph, RETORT_EINVAL, "network: images must be [N,%d,%d,%d], not %s", network->channels,
                   network->height, network->width, text);
    } else if (network->stats_count && pass->stats_in && !is_vector(pass->stats_in, network->stats_count)) {
        graph_fail(graph, RETORT_EINVAL, "network: running statistics must be float32 [%lld]",
                   (long long)network->stats_count);
    } else if (network->stats_count && wants_stats) {
        if (pass->stats_in)
            graph_fail(graph, RETORT_EINVAL, "network: a pass either reads running statistics or updates them");
        else if (!stats_before || !is_vector(stats_before, network->stats_count))
            graph_fail(graph, RETORT_EINVAL, "network: running statistics must be float32 [%lld]",
                       (long long)network->stats_count);
    }
    return graph_status(graph) == RETORT_OK;
}

/* All but the head, flattened. */
static struct node *body(struct forward *forward) {
    const struct network_spec *spec = &forward->network->spec;
    struct node *x = forward->pass->images;
    for (int block = 0; block < spec->depth; block++)
        x = spec->kind == NETWORK_MLP ? activate(spec->activation, linear(forward, flatten(x)))
                                      : conv_block(forward, x);
    return flatten(x);
}

struct node *network_features(struct graph *graph, const struct network *network, const struct network_pass *pass) {
    struct forward forward = {.network = network, .pass = pass};
    return check_pass(graph, network, pass, NULL, false) ? body(&forward) : NULL;
}

struct node *network_logits(struct graph *graph, const struct network *network, const struct network_pass *pass,
                            struct node *stats_before, struct node **stats_out) {
    struct forward forward = {.network = network, .pass = pass};
    if (!check_pass(graph, network, pass, stats_before, stats_out != NULL)) return NULL;
    struct node *logits = linear(&forward, body(&forward));
    if (stats_out && network->stats_count) {
        *stats_out = update_stats(&forward, stats_before);
        if (!*stats_out)
            graph_fail(graph, RETORT_EINVAL, "network: running statistics need more than one value per channel");
    }
    return logits;
}
