/* What a network consists of: which parameters, where in theta, of what size; and their initial values. */
#include "nn/nn.h"

#include <math.h>

#include "base/error.h"
#include "base/random.h"

static int64_t add_parameter(struct network *network, enum parameter_role role, int block, struct shape shape,
                             int64_t fan_in) {
    struct network_parameter *parameter = &network->parameters[network->parameter_count++];
    int64_t count = shape_count(shape);
    *parameter = (struct network_parameter){
        .role = role, .block = block, .shape = shape, .offset = network->theta_count, .count = count, .fan_in = fan_in};
    network->theta_count += count;
    return count;
}

/* Weight and bias of a layer; -1 where they outgrow the index type of the devices. */
static int add_layer(struct network *network, int block, struct shape weight, bool dead_bias) {
    int64_t fan_in = 1;
    for (int d = 1; d < weight.rank; d++) fan_in *= weight.size[d];
    if (shape_count(weight) < 0) return -1;
    add_parameter(network, PARAMETER_WEIGHT, block, weight, fan_in);
    add_parameter(network, PARAMETER_BIAS, block, SHAPE(weight.size[0]), fan_in);
    network->parameters[network->parameter_count - 1].dead = dead_bias;
    return network->theta_count > INT32_MAX ? -1 : 0;
}

/* Channels whose mean a norm subtracts together. */
static int norm_group_width(const struct network_spec *spec) {
    switch (spec->norm) {
    case NORM_GROUP:
        return spec->width / spec->groups;
    case NORM_LAYER:
        return spec->width;
    default:
        return 1;
    }
}

static int check_spec(const struct network_spec *spec, int channels, int height, int width, int classes) {
    int status = RETORT_OK;
    int least = spec->kind == NETWORK_MLP ? 0 : 1;
    if (spec->depth < least || spec->depth > NETWORK_MAX_DEPTH)
        RAISE(RETORT_EINVAL, "network: depth must be %d to %d, not %d", least, NETWORK_MAX_DEPTH, spec->depth);
    if (spec->width < 1) RAISE(RETORT_EINVAL, "network: width must be at least 1, not %d", spec->width);
    if (channels < 1 || height < 1 || width < 1)
        RAISE(RETORT_EINVAL, "network: images of %d x %d x %d have no pixels", channels, height, width);
    if (classes < 1) RAISE(RETORT_EINVAL, "network: at least 1 class is needed, not %d", classes);
    if (spec->kind == NETWORK_MLP && spec->norm != NORM_NONE)
        RAISE(RETORT_EINVAL, "network: an MLP has no normalisation; take norm none, or a convnet");
    if (spec->norm == NORM_GROUP && (spec->groups < 1 || spec->width % spec->groups))
        RAISE(RETORT_EINVAL, "network: %d groups do not divide the %d channels of a block", spec->groups, spec->width);
done:
    return status;
}

int network_describe(const struct network_spec *spec, int channels, int height, int width, int classes,
                     struct network *network) {
    int status = RETORT_OK;
    TRY(check_spec(spec, channels, height, width, classes));
    struct network described = {
        .spec = *spec, .channels = channels, .height = height, .width = width, .classes = classes};
    int64_t features = shape_count(SHAPE(channels, height, width)), rows = height, columns = width;
    for (int block = 0; block < spec->depth; block++) {
        if (features < 0) RAISE(RETORT_EINVAL, "network: images of %d x %d are too large", height, width);
        if (spec->kind == NETWORK_MLP) {
            if (add_layer(&described, block, SHAPE(spec->width, features), false) < 0)
                RAISE(RETORT_EINVAL, "network: more than 2^31 weights; take a smaller width");
            features = spec->width;
            continue;
        }
        int64_t inputs = block == 0 ? channels : spec->width, group = norm_group_width(spec);
        bool alone = group == 1 && spec->norm != NORM_NONE; /* the norm subtracts each channel's own mean */
        if (add_layer(&described, block, SHAPE(spec->width, inputs, 3, 3), alone) < 0)
            RAISE(RETORT_EINVAL, "network: more than 2^31 weights; take a smaller width");
        if (spec->norm != NORM_NONE) {
            add_parameter(&described, PARAMETER_GAMMA, block, SHAPE(spec->width), 1);
            add_parameter(&described, PARAMETER_BETA, block, SHAPE(spec->width), 1);
        }
        if (spec->norm == NORM_BATCH) described.stats_count += 2 * (int64_t)spec->width;
        if (alone && spec->norm != NORM_BATCH && rows * columns == 1)
            RAISE(RETORT_EINVAL,
                  "network: block %d of %d would normalise single pixels, since %d x %d images are pooled down to "
                  "1 x 1 before it; take a smaller depth, or pool none",
                  block + 1, spec->depth, height, width);
        if (spec->pool != POOL_NONE) {
            rows /= 2;
            columns /= 2;
            if (rows < 1 || columns < 1)
                RAISE(RETORT_EINVAL,
                      "network: %d x %d images cannot be pooled %d times; take a smaller depth, or pool none", height,
                      width, block + 1);
        }
        features = shape_count(SHAPE(spec->width, rows, columns));
    }
    described.features = features;
    if (features < 0 || add_layer(&described, spec->depth, SHAPE(classes, features), false) < 0)
        RAISE(RETORT_EINVAL, "network: more than 2^31 weights; take smaller images or a smaller width");
    *network = described;
done:
    return status;
}

struct node *network_initial_theta(struct graph *graph, const struct network *network, struct node *seed) {
    struct node *parts[4 * NETWORK_MAX_DEPTH + 2];
    for (int i = 0; i < network->parameter_count; i++) {
        const struct network_parameter *parameter = &network->parameters[i];
        struct shape shape = SHAPE(parameter->count);
        if (parameter->role == PARAMETER_GAMMA || parameter->role == PARAMETER_BETA) {
            parts[i] = graph_constant(graph, parameter->role == PARAMETER_GAMMA, shape);
            continue;
        }
        struct node *uniform = graph_random(seed, RANDOM_UNIFORM01, RANDOM_PARAMETER + (uint32_t)i, shape);
        parts[i] = node_scale(node_shift(node_scale(uniform, 2), -1), 1 / sqrt((double)parameter->fan_in));
    }
    return node_concat(parts, network->parameter_count, 0);
}
