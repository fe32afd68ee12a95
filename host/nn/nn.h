/* Networks, their initial weights, losses, and the differentiable augmentation of images, as graphs.
 *
 * All weights of a network live in one flat vector theta [p]; a parameter is a slice of it. Order, block by block: conv
 * weight [O,I,3,3], conv bias [O], and with a norm gamma [O], beta [O]; then head weight [K,F], head bias [K]. An MLP:
 * weight [width,in], bias [width], ..., head. Batch norm's running statistics live in a second flat vector stats [q]:
 * per block running mean [O], running variance [O]. */
#ifndef RETORT_NN_NN_H
#define RETORT_NN_NN_H

#include "graph/graph.h"

enum network_kind { NETWORK_CONVNET, NETWORK_MLP };
enum norm_kind { NORM_NONE, NORM_INSTANCE, NORM_GROUP, NORM_BATCH, NORM_LAYER };
enum activation_kind {
    ACTIVATION_RELU,
    ACTIVATION_LEAKY_RELU, /* slope 0.01 */
    ACTIVATION_SIGMOID,
    ACTIVATION_GELU, /* x Phi(x), exact (erf) */
    ACTIVATION_SWISH /* x sigmoid(x) */
};
enum pool_kind { POOL_AVERAGE, POOL_MAX, POOL_NONE }; /* 2 x 2, stride 2; odd sizes drop the last row and column */

/* What a descriptor says of a network. */
struct network_spec {
    enum network_kind kind;
    int depth; /* blocks (convnet) or hidden layers (mlp) */
    int width; /* channels or units of each */
    enum norm_kind norm;
    int groups; /* of group norm */
    enum activation_kind activation;
    enum pool_kind pool;
};

#define NETWORK_MAX_DEPTH 12

enum parameter_role { PARAMETER_WEIGHT, PARAMETER_BIAS, PARAMETER_GAMMA, PARAMETER_BETA };

/* One parameter: theta[offset .. offset + count). */
struct network_parameter {
    enum parameter_role role;
    int block; /* 0 .. depth - 1; the head is `depth` */
    struct shape shape;
    int64_t offset, count;
    int64_t fan_in; /* inputs of one unit of the layer the weight or bias belongs to */
    bool dead;      /* a bias in front of a norm that subtracts it: its gradient is exactly zero */
};

/* A network for given images: the spec with sizes worked out. Plain value, owns nothing. */
struct network {
    struct network_spec spec;
    int channels, height, width; /* of an image */
    int classes;
    int64_t features; /* F: values of an image that the head reads */
    struct network_parameter parameters[4 * NETWORK_MAX_DEPTH + 2];
    int parameter_count; /* of entries above */
    int64_t theta_count; /* p */
    int64_t stats_count; /* q; 0 without batch norm */
};

/* Works out a network. RETORT_EINVAL with the reason where the spec does not fit the images (a 4 x 4 image pooled three
 * times, groups that do not divide the width, ...). */
int network_describe(const struct network_spec *spec, int channels, int height, int width, int classes,
                     struct network *network);

/* theta [p] drawn as PyTorch's layers draw theirs: weights and biases uniform in +-1/sqrt(fan_in) (He et al. 2015 with
 * a = sqrt 5), gamma 1, beta 0. `seed`: int32 [2], the two halves of a 64-bit seed. */
struct node *network_initial_theta(struct graph *graph, const struct network *network, struct node *seed);

/* What a forward pass reads. stats_in NULL: batch norm uses the batch's own statistics; otherwise the running ones. */
struct network_pass {
    struct node *theta;    /* [p] */
    struct node *images;   /* [N,C,H,W] */
    struct node *stats_in; /* [q] or NULL */
};

/* Logits [N, classes]. Where stats_out is not NULL and the network has batch norm, *stats_out becomes the running
 * statistics [q] after this batch (momentum 0.1, unbiased variance), with `stats_before` [q] as the ones before it. */
struct node *network_logits(struct graph *graph, const struct network *network, const struct network_pass *pass,
                            struct node *stats_before, struct node **stats_out);

/* What the head would read, [N, features]: the values after the last block (its pooling too), flattened channel by
 * channel; of an MLP those of its last hidden layer. The head's part of theta is not read. */
struct node *network_features(struct graph *graph, const struct network *network, const struct network_pass *pass);

/* Mean cross-entropy, a scalar (rank 0). Hard labels int32 [N]; soft targets float [N,K] as they are, not normalised:
 * mean over the batch of -sum_k y_k log softmax(z)_k. */
struct node *loss_hard(struct graph *graph, struct node *logits, struct node *labels);
struct node *loss_soft(struct graph *graph, struct node *logits, struct node *targets);

/* Number of rows whose largest logit (first index on ties) is the label: float scalar. */
struct node *count_correct(struct graph *graph, struct node *logits, struct node *labels);

/* Images [N,C,H,W] under the differentiable Siamese augmentation (Zhao and Bilen, "Dataset condensation with
 * differentiable Siamese augmentation", ICML 2021): sampled through affine maps (flip, crop, scale, rotate), then
 * brightness, saturation, contrast and cutout. maps: [G,2,3] as node_sample reads them; colour: [G, COLOUR_SIZE], its
 * columns as base/augmentation.h names them; NULL leaves that part out. Row g of either holds for the images of group
 * g, N / G of them in a row: G is N for parameters of each image, 1 for all the same, the number of classes where
 * images lie class by class and real and synthetic ones are to be changed alike.
 *
 * Affine in the images, so derivatives by them are exact and of every order; the parameters' are not taken (maps have
 * none). RETORT_EINVAL where the shapes do not go together. */
struct node *siamese_apply(struct graph *graph, struct node *images, struct node *maps, struct node *colour);
/* The same parameters, both given, in the order of IDC, whose images have families of all kinds at once: colours, then
 * the map, which lets in zeros, then cutout. */
struct node *siamese_apply_composed(struct graph *graph, struct node *images, struct node *maps, struct node *colour);

#endif
