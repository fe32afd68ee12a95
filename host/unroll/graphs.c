/* The graphs of a step: its gradient, its update, its replayed adjoint and derivatives; tests. */
#include "unroll/graphs.h"

#include "base/augmentation.h"
#include "base/error.h"
#include "base/random.h"
#include "transform/transform.h"

#include <stdio.h>

const char *const slot_names[SLOT_COUNT] = {
    [SLOT_THETA] = "theta",
    [SLOT_STATE] = "state 0",
    [SLOT_STATE + 1] = "state 1",
    [SLOT_NEW_THETA] = "new theta",
    [SLOT_NEW_STATE] = "new state 0",
    [SLOT_NEW_STATE + 1] = "new state 1",
    [SLOT_STATS] = "stats",
    [SLOT_NEW_STATS] = "new stats",
    [SLOT_SCALARS] = "scalars",
    [SLOT_SEED] = "seed",
    [SLOT_SET_IMAGES] = "set images",
    [SLOT_SET_LABELS] = "set labels",
    [SLOT_ROWS] = "rows",
    [SLOT_MAPS] = "maps",
    [SLOT_COLOUR] = "colour",
    [SLOT_GRADIENT] = "gradient",
    [SLOT_GRADIENT_IN] = "gradient in",
    [SLOT_LOSS] = "loss",
    [SLOT_LOSS_IN] = "loss in",
    [SLOT_NORM] = "norm",
    [SLOT_A_G] = "a_g",
    [SLOT_LAMBDA] = "lambda",
    [SLOT_OUT_LAMBDA] = "out lambda",
    [SLOT_LAMBDA_STATE] = "lambda 0",
    [SLOT_LAMBDA_STATE + 1] = "lambda 1",
    [SLOT_OUT_LAMBDA_STATE] = "out lambda 0",
    [SLOT_OUT_LAMBDA_STATE + 1] = "out lambda 1",
    [SLOT_DLR] = "dlr",
    [SLOT_OUT_DLR] = "out dlr",
    [SLOT_DS] = "dS",
    [SLOT_OUT_DS] = "out dS",
    [SLOT_DY] = "dy",
    [SLOT_OUT_DY] = "out dy",
    [SLOT_IMAGE_TANGENTS] = "image tangents",
    [SLOT_LABEL_TANGENTS] = "label tangents",
    [SLOT_IMAGES] = "images",
    [SLOT_LABELS] = "labels",
    [SLOT_CORRECT] = "correct",
    [SLOT_BASIS] = "basis",
    [SLOT_VECTORS] = "vectors",
    [SLOT_VECTOR] = "vector",
    [SLOT_EIGENVALUES] = "eigenvalues",
    [SLOT_PRODUCT] = "product",
    [SLOT_PRODUCT_IN] = "product in",
    [SLOT_PROJECTION] = "projection",
    [SLOT_PROJECTIONS] = "projections",
    [SLOT_NORMS] = "norms",
    [SLOT_NEXT] = "next",
};
_Static_assert(OPTIMIZER_MAX_STATE == 2, "names of the slots of optimiser states");

struct node *slot_input(struct graph *graph, enum slot slot, enum dtype type, struct shape shape) {
    return graph_input(graph, slot_names[slot], type, shape);
}

void slot_output(struct graph *graph, enum slot slot, struct node *node) {
    graph_output(graph, slot_names[slot], node);
}

struct graph *graph_finish(struct graph *graph, int status) {
    if (status >= 0) status = graph_status(graph);
    if (status >= 0) return graph;
    graph_destroy(graph);
    return NULL;
}

static struct node *theta_input(struct graph *graph, const struct unroll_spec *spec) {
    return slot_input(graph, SLOT_THETA, FLOAT32, VECTOR(spec->network->theta_count));
}

struct graph *graph_initial(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    (void)form;
    if (graph_create(&graph) < 0) return NULL;
    struct node *seed = slot_input(graph, SLOT_SEED, INT32, VECTOR(2));
    slot_output(graph, SLOT_THETA, network_initial_theta(graph, spec->network, seed));
    return graph_finish(graph, 0);
}

/* --- the batch of an inner step --- */
struct batch {
    struct node *set_images, *set_labels; /* the whole set: what derivatives are taken by */
    struct node *row_images, *labels;     /* the rows of this step */
    struct node *images;                  /* these, augmented */
};

static struct batch step_batch(struct graph *graph, const struct unroll_spec *spec, int64_t count) {
    const struct network *net = spec->network;
    struct shape images = SHAPE(spec->set_count, net->channels, net->height, net->width);
    struct batch batch;
    struct node *rows = slot_input(graph, SLOT_ROWS, INT32, VECTOR(count));
    batch.set_images = slot_input(graph, SLOT_SET_IMAGES, FLOAT32, images);
    if (spec->soft_labels)
        batch.set_labels = slot_input(graph, SLOT_SET_LABELS, FLOAT32, SHAPE(spec->set_count, net->classes));
    else
        batch.set_labels = slot_input(graph, SLOT_SET_LABELS, INT32, VECTOR(spec->set_count));
    batch.images = batch.row_images = node_gather_rows(batch.set_images, rows);
    batch.labels = node_gather_rows(batch.set_labels, rows);
    struct node *maps = NULL, *colour = NULL;
    if (spec->augment) maps = slot_input(graph, SLOT_MAPS, FLOAT32, SHAPE(count, 2, 3));
    if (spec->colour) colour = slot_input(graph, SLOT_COLOUR, FLOAT32, SHAPE(count, COLOUR_SIZE));
    batch.images = siamese_apply(graph, batch.images, maps, colour);
    return batch;
}

static struct node *inner_loss(struct graph *graph, const struct unroll_spec *spec, struct node *theta,
                               const struct batch *batch, double share, struct node *stats, struct node **new_stats) {
    struct network_pass pass = {.theta = theta, .images = batch->images};
    struct node *logits = network_logits(graph, spec->network, &pass, stats, new_stats);
    struct node *loss =
        spec->soft_labels ? loss_soft(graph, logits, batch->labels) : loss_hard(graph, logits, batch->labels);
    return node_scale(loss, share);
}

/* The gradient without values kept for a product. */
static struct graph *plain_gradient(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    bool more = form->flags & GRAPH_MORE;
    int64_t p = spec->network->theta_count, q = spec->network->stats_count;
    struct node *theta = theta_input(graph, spec), *gradient = NULL, *new_stats = NULL;
    struct node *stats = q ? slot_input(graph, SLOT_STATS, FLOAT32, VECTOR(q)) : NULL;
    struct batch batch = step_batch(graph, spec, form->count);
    struct node *loss = inner_loss(graph, spec, theta, &batch, form->share, stats, q ? &new_stats : NULL);
    int status = transform_vjp(loss, NULL, &theta, 1, &gradient);
    if (status < 0) return graph_finish(graph, status);
    if (more) gradient = node_add(gradient, slot_input(graph, SLOT_GRADIENT_IN, FLOAT32, VECTOR(p)));
    slot_output(graph, SLOT_GRADIENT, gradient);
    if (q) slot_output(graph, SLOT_NEW_STATS, new_stats);
    if (form->flags & GRAPH_PROBE) {
        if (more) loss = node_add(loss, slot_input(graph, SLOT_LOSS_IN, FLOAT32, SCALAR_SHAPE));
        slot_output(graph, SLOT_LOSS, loss);
        slot_output(graph, SLOT_NORM, node_sqrt(node_sum_all(node_square(gradient))));
    }
    return graph_finish(graph, status);
}

struct graph *graph_update(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    (void)form;
    if (graph_create(&graph) < 0) return NULL;
    struct shape vector = VECTOR(spec->network->theta_count);
    int states = optimizer_state_count(&spec->optimizer);
    struct node *state[OPTIMIZER_MAX_STATE] = {NULL}, *new_state[OPTIMIZER_MAX_STATE] = {NULL}, *new_theta = NULL;
    struct node *scalars = slot_input(graph, SLOT_SCALARS, FLOAT32, VECTOR(OPTIMIZER_SCALARS));
    struct node *theta = theta_input(graph, spec), *gradient = slot_input(graph, SLOT_GRADIENT, FLOAT32, vector);
    for (int i = 0; i < states; i++) state[i] = slot_input(graph, SLOT_STATE + (enum slot)i, FLOAT32, vector);
    optimizer_update(graph, &spec->optimizer, scalars, theta, state, gradient, &new_theta, new_state);
    slot_output(graph, SLOT_NEW_THETA, new_theta);
    for (int i = 0; i < states; i++) slot_output(graph, SLOT_NEW_STATE + (enum slot)i, new_state[i]);
    return graph_finish(graph, 0);
}

struct graph *graph_adjoint(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    (void)form;
    if (graph_create(&graph) < 0) return NULL;
    struct shape vector = VECTOR(spec->network->theta_count);
    int states = optimizer_state_count(&spec->optimizer);
    struct node *new_state[OPTIMIZER_MAX_STATE] = {NULL}, *lambda_state[OPTIMIZER_MAX_STATE] = {NULL};
    struct node *out_state[OPTIMIZER_MAX_STATE] = {NULL}, *a_g = NULL, *d_lr = NULL;
    struct node *scalars = slot_input(graph, SLOT_SCALARS, FLOAT32, VECTOR(OPTIMIZER_SCALARS));
    struct node *theta = theta_input(graph, spec), *gradient = slot_input(graph, SLOT_GRADIENT, FLOAT32, vector);
    struct node *lambda = slot_input(graph, SLOT_LAMBDA, FLOAT32, vector);
    for (int i = 0; i < states; i++) {
        new_state[i] = slot_input(graph, SLOT_NEW_STATE + (enum slot)i, FLOAT32, vector);
        lambda_state[i] = slot_input(graph, SLOT_LAMBDA_STATE + (enum slot)i, FLOAT32, vector);
    }
    optimizer_adjoint(graph, &spec->optimizer, scalars, theta, new_state, gradient, lambda, lambda_state, &a_g,
                      out_state, &d_lr);
    slot_output(graph, SLOT_A_G, a_g);
    if (spec->optimizer.weight_decay != 0)
        slot_output(graph, SLOT_OUT_LAMBDA, node_add(lambda, node_scale(a_g, spec->optimizer.weight_decay)));
    for (int i = 0; i < states; i++) slot_output(graph, SLOT_OUT_LAMBDA_STATE + (enum slot)i, out_state[i]);
    slot_output(graph, SLOT_OUT_DLR, node_add(slot_input(graph, SLOT_DLR, FLOAT32, SCALAR_SHAPE), d_lr));
    return graph_finish(graph, 0);
}

/* The step's weight times a tangent of the set, added to what is there. */
static struct node *accumulated(struct graph *graph, enum slot slot, struct node *tangent, struct node *scalars) {
    struct node *before = slot_input(graph, slot, FLOAT32, tangent ? tangent->shape : SCALAR_SHAPE);
    struct node *weight = node_slice(scalars, (int64_t[]){3}, (int64_t[]){1}, VECTOR(1));
    return tangent ? node_add(before, node_multiply(tangent, node_broadcast_scalar(weight, tangent->shape))) : NULL;
}

/* U diag(eigenvalues) U^T a_g; the rows of the basis are the vectors. */
static struct node *low_rank_product(struct graph *graph, const struct unroll_spec *spec, struct node *a_g) {
    int64_t p = spec->network->theta_count, k = spec->rank;
    struct node *basis = slot_input(graph, SLOT_BASIS, FLOAT32, SHAPE(k, p));
    struct node *values = slot_input(graph, SLOT_EIGENVALUES, FLOAT32, VECTOR(k));
    struct node *direction = a_g;
    if (spec->optimizer.kind == OPTIMIZER_ADAM) {
        /* Weights without any gradient so far: there 1 / (sqrt(v) + eps) makes a_g huge, and the exact Hessian's row
         * is zero. A factor from other weights does not know that, so the row is made zero here. */
        struct node *v = slot_input(graph, SLOT_NEW_STATE + 1, FLOAT32, VECTOR(p));
        struct node *zero = graph_constant(graph, 0, VECTOR(p));
        direction = node_select(node_compare(zero, v, COMPARE_LESS), a_g, zero);
    }
    struct node *along = node_matmul(basis, node_reshape(direction, SHAPE(p, 1)), false, false);
    along = node_multiply(along, node_reshape(values, SHAPE(k, 1)));
    return node_reshape(node_matmul(basis, along, true, false), VECTOR(p));
}

/* The product without values that the gradient has kept. */
static struct graph *plain_product(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    int64_t p = spec->network->theta_count;
    bool compact = form->flags & GRAPH_COMPACT, soft = spec->soft_labels;
    struct node *scalars = compact ? NULL : slot_input(graph, SLOT_SCALARS, FLOAT32, VECTOR(OPTIMIZER_SCALARS));
    struct node *theta = theta_input(graph, spec), *a_g = slot_input(graph, SLOT_A_G, FLOAT32, VECTOR(p));
    struct node *lambda = slot_input(graph, SLOT_LAMBDA, FLOAT32, VECTOR(p));
    struct batch batch = step_batch(graph, spec, form->count);
    struct node *loss = inner_loss(graph, spec, theta, &batch, form->share, NULL, NULL);
    struct node *wrt[3] = {theta, compact ? batch.row_images : batch.set_images,
                           compact ? batch.labels : batch.set_labels},
                *gradients[3], *tangents[3];
    int wanted = soft ? 3 : 2;
    int status = transform_vjp(loss, NULL, wrt, wanted, gradients);
    if (status >= 0) status = transform_jvp(gradients, wanted, &theta, &a_g, 1, tangents);
    if (status < 0) return graph_finish(graph, status);
    struct node *hessian = form->flags & GRAPH_LOW_RANK ? low_rank_product(graph, spec, a_g) : tangents[0];
    slot_output(graph, SLOT_OUT_LAMBDA, form->flags & GRAPH_NO_HESSIAN ? lambda : node_add(lambda, hessian));
    if (compact) {
        slot_output(graph, SLOT_IMAGE_TANGENTS, tangents[1]);
        if (soft) slot_output(graph, SLOT_LABEL_TANGENTS, tangents[2]);
    } else {
        slot_output(graph, SLOT_OUT_DS, accumulated(graph, SLOT_DS, tangents[1], scalars));
        if (soft) slot_output(graph, SLOT_OUT_DY, accumulated(graph, SLOT_DY, tangents[2], scalars));
    }
    return graph_finish(graph, status);
}

struct graph *graph_scatter(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    (void)form;
    if (graph_create(&graph) < 0) return NULL;
    const struct network *net = spec->network;
    struct node *scalars = slot_input(graph, SLOT_SCALARS, FLOAT32, VECTOR(OPTIMIZER_SCALARS));
    struct node *rows = slot_input(graph, SLOT_ROWS, INT32, VECTOR(spec->batch));
    struct node *tangents =
        slot_input(graph, SLOT_IMAGE_TANGENTS, FLOAT32, SHAPE(spec->batch, net->channels, net->height, net->width));
    slot_output(graph, SLOT_OUT_DS,
                accumulated(graph, SLOT_DS, node_scatter_rows(tangents, rows, spec->set_count), scalars));
    if (spec->soft_labels) {
        tangents = slot_input(graph, SLOT_LABEL_TANGENTS, FLOAT32, SHAPE(spec->batch, net->classes));
        slot_output(graph, SLOT_OUT_DY,
                    accumulated(graph, SLOT_DY, node_scatter_rows(tangents, rows, spec->set_count), scalars));
    }
    return graph_finish(graph, 0);
}

/* Worth keeping is what takes far longer to compute than to write to memory and read again: convolutions, but for those
 * of few channels (a first layer's maps are the largest and the cheapest). Processors do 5 to 20 operations in the time
 * of moving a byte, Winograd's kernels two to four times as many; a value is moved twice. */
static bool is_worth_keeping(const struct node *node) {
    enum { OPERATIONS = 256 }; /* for each value */
    return (node->op == OP_CONV || node->op == OP_CONV_BACKWARD_DATA)
           && op_info(node->op)->cost(node) >= OPERATIONS * (double)shape_count(node->shape);
}

/* The gradient that keeps values and the product that reads them; NULLs after a failure. */
static void build_keeping(const struct unroll_spec *spec, const struct graph_form *gradient_form,
                          const struct graph_form *product_form, struct graph **keeping, struct graph **reading) {
    *keeping = *reading = NULL;
    struct graph *gradient = plain_gradient(spec, gradient_form);
    struct graph *product = gradient ? plain_product(spec, product_form) : NULL;
    if (product) (void)transform_keep(gradient, product, is_worth_keeping, keeping, reading);
    graph_destroy(gradient);
    graph_destroy(product);
}

struct graph *graph_gradient(const struct unroll_spec *spec, const struct graph_form *form) {
    if (!(form->flags & GRAPH_KEEP)) return plain_gradient(spec, form);
    struct graph_form product = *form;
    struct graph *keeping, *reading;
    product.flags = form->flags & GRAPH_COMPACT;
    build_keeping(spec, form, &product, &keeping, &reading);
    graph_destroy(reading);
    return keeping;
}

struct graph *graph_product(const struct unroll_spec *spec, const struct graph_form *form) {
    if (!(form->flags & GRAPH_KEEP)) return plain_product(spec, form);
    struct graph_form gradient = *form;
    struct graph *keeping, *reading;
    gradient.flags = 0;
    build_keeping(spec, &gradient, form, &keeping, &reading);
    graph_destroy(keeping);
    return reading;
}

struct graph *graph_test(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    const struct network *net = spec->network;
    struct network_pass pass = {.theta = theta_input(graph, spec)};
    pass.images = slot_input(graph, SLOT_IMAGES, FLOAT32, SHAPE(form->count, net->channels, net->height, net->width));
    if (net->stats_count) pass.stats_in = slot_input(graph, SLOT_STATS, FLOAT32, VECTOR(net->stats_count));
    struct node *logits = network_logits(graph, net, &pass, NULL, NULL);
    struct node *labels = slot_input(graph, SLOT_LABELS, INT32, VECTOR(form->count));
    slot_output(graph, SLOT_CORRECT, count_correct(graph, logits, labels));
    return graph_finish(graph, 0);
}

/* --- the Hessian times a vector, for Lanczos --- */
struct graph *graph_lanczos_product(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    struct node *theta = theta_input(graph, spec), *gradient = NULL, *product = NULL;
    struct node *vector = slot_input(graph, SLOT_VECTOR, FLOAT32, theta ? theta->shape : SCALAR_SHAPE);
    struct node *before = slot_input(graph, SLOT_PRODUCT_IN, FLOAT32, theta ? theta->shape : SCALAR_SHAPE);
    struct batch batch = step_batch(graph, spec, form->count);
    struct node *loss = inner_loss(graph, spec, theta, &batch, form->share, NULL, NULL);
    int status = transform_vjp(loss, NULL, &theta, 1, &gradient);
    if (status >= 0) status = transform_jvp(&gradient, 1, &theta, &vector, 1, &product);
    if (status >= 0) slot_output(graph, SLOT_PRODUCT, node_add(before, product));
    return graph_finish(graph, status);
}
