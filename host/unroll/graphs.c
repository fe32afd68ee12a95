/* The graphs of a step, its gradient, its replayed adjoint, the meta-loss, tests and Lanczos. */
#include "unroll/graphs.h"

#include "base/augmentation.h"
#include "base/error.h"
#include "base/random.h"
#include "transform/transform.h"

#include <stdio.h>

#define VECTOR(n) SHAPE(n)

static const char *numbered(char text[32], const char *name, int i) {
    snprintf(text, 32, "%s %d", name, i);
    return text;
}

/* Ends a builder: the graph, or NULL with the message set. */
static struct graph *finish(struct graph *graph, int status) {
    if (status >= 0) status = graph_status(graph);
    if (status >= 0) return graph;
    graph_destroy(graph);
    return NULL;
}

static struct node *theta_input(struct graph *graph, const struct unroll_spec *spec) {
    return graph_input(graph, "theta", FLOAT32, VECTOR(spec->network->theta_count));
}

struct graph *graph_initial(const struct unroll_spec *spec) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    struct node *seed = graph_input(graph, "seed", INT32, VECTOR(2));
    graph_output(graph, "theta", network_initial_theta(graph, spec->network, seed));
    return finish(graph, 0);
}

/* --- the batch of an inner step --- */
struct batch {
    struct node *set_images, *set_labels; /* the whole set: what derivatives are taken by */
    struct node *images, *labels;         /* the rows of this step, augmented */
};

static struct batch step_batch(struct graph *graph, const struct unroll_spec *spec, int64_t count) {
    const struct network *net = spec->network;
    struct shape images = SHAPE(spec->set_count, net->channels, net->height, net->width);
    struct batch batch;
    struct node *rows = graph_input(graph, "rows", INT32, VECTOR(count));
    batch.set_images = graph_input(graph, "set images", FLOAT32, images);
    if (spec->soft_labels)
        batch.set_labels = graph_input(graph, "set labels", FLOAT32, SHAPE(spec->set_count, net->classes));
    else
        batch.set_labels = graph_input(graph, "set labels", INT32, VECTOR(spec->set_count));
    batch.images = node_gather_rows(batch.set_images, rows);
    batch.labels = node_gather_rows(batch.set_labels, rows);
    struct node *maps = NULL, *colour = NULL;
    if (spec->augment) maps = graph_input(graph, "maps", FLOAT32, SHAPE(count, 2, 3));
    if (spec->colour) colour = graph_input(graph, "colour", FLOAT32, SHAPE(count, COLOUR_SIZE));
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

struct graph *graph_gradient(const struct unroll_spec *spec, int64_t count, double share, bool accumulate, bool probe) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    int64_t p = spec->network->theta_count, q = spec->network->stats_count;
    struct node *theta = theta_input(graph, spec), *gradient = NULL, *new_stats = NULL;
    struct node *stats = q ? graph_input(graph, "stats", FLOAT32, VECTOR(q)) : NULL;
    struct batch batch = step_batch(graph, spec, count);
    struct node *loss = inner_loss(graph, spec, theta, &batch, share, stats, q ? &new_stats : NULL);
    int status = transform_vjp(loss, NULL, &theta, 1, &gradient);
    if (status < 0) return finish(graph, status);
    if (accumulate) gradient = node_add(gradient, graph_input(graph, "gradient in", FLOAT32, VECTOR(p)));
    graph_output(graph, "gradient", gradient);
    if (q) graph_output(graph, "new stats", new_stats);
    if (probe) {
        if (accumulate) loss = node_add(loss, graph_input(graph, "loss in", FLOAT32, SCALAR_SHAPE));
        graph_output(graph, "loss", loss);
        graph_output(graph, "norm", node_sqrt(node_sum_all(node_square(gradient))));
    }
    return finish(graph, status);
}

struct graph *graph_update(const struct unroll_spec *spec) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    char name[32];
    struct shape vector = VECTOR(spec->network->theta_count);
    int states = optimizer_state_count(&spec->optimizer);
    struct node *state[OPTIMIZER_MAX_STATE] = {NULL}, *new_state[OPTIMIZER_MAX_STATE] = {NULL}, *new_theta = NULL;
    struct node *scalars = graph_input(graph, "scalars", FLOAT32, VECTOR(OPTIMIZER_SCALARS));
    struct node *theta = theta_input(graph, spec), *gradient = graph_input(graph, "gradient", FLOAT32, vector);
    for (int i = 0; i < states; i++) state[i] = graph_input(graph, numbered(name, "state", i), FLOAT32, vector);
    optimizer_update(graph, &spec->optimizer, scalars, theta, state, gradient, &new_theta, new_state);
    graph_output(graph, "new theta", new_theta);
    for (int i = 0; i < states; i++) graph_output(graph, numbered(name, "new state", i), new_state[i]);
    return finish(graph, 0);
}

struct graph *graph_adjoint(const struct unroll_spec *spec) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    char name[32];
    struct shape vector = VECTOR(spec->network->theta_count);
    int states = optimizer_state_count(&spec->optimizer);
    struct node *new_state[OPTIMIZER_MAX_STATE] = {NULL}, *lambda_state[OPTIMIZER_MAX_STATE] = {NULL};
    struct node *out_state[OPTIMIZER_MAX_STATE] = {NULL}, *a_g = NULL, *d_lr = NULL;
    struct node *scalars = graph_input(graph, "scalars", FLOAT32, VECTOR(OPTIMIZER_SCALARS));
    struct node *theta = theta_input(graph, spec), *gradient = graph_input(graph, "gradient", FLOAT32, vector);
    struct node *lambda = graph_input(graph, "lambda", FLOAT32, vector);
    for (int i = 0; i < states; i++) {
        new_state[i] = graph_input(graph, numbered(name, "new state", i), FLOAT32, vector);
        lambda_state[i] = graph_input(graph, numbered(name, "lambda", i), FLOAT32, vector);
    }
    optimizer_adjoint(graph, &spec->optimizer, scalars, theta, new_state, gradient, lambda, lambda_state, &a_g,
                      out_state, &d_lr);
    graph_output(graph, "a_g", a_g);
    if (spec->optimizer.weight_decay != 0)
        graph_output(graph, "out lambda", node_add(lambda, node_scale(a_g, spec->optimizer.weight_decay)));
    for (int i = 0; i < states; i++) graph_output(graph, numbered(name, "out lambda", i), out_state[i]);
    graph_output(graph, "out dlr", node_add(graph_input(graph, "dlr", FLOAT32, SCALAR_SHAPE), d_lr));
    return finish(graph, 0);
}

/* The step's weight times a tangent of the set, added to what is there. */
static struct node *accumulated(struct graph *graph, const char *name, struct node *tangent, struct node *scalars) {
    struct node *before = graph_input(graph, name, FLOAT32, tangent ? tangent->shape : SCALAR_SHAPE);
    struct node *weight = node_slice(scalars, (int64_t[]){3}, (int64_t[]){1}, VECTOR(1));
    return tangent ? node_add(before, node_multiply(tangent, node_broadcast_scalar(weight, tangent->shape))) : NULL;
}

struct graph *graph_product(const struct unroll_spec *spec, int64_t count, double share, bool lanczos, bool first) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    int64_t p = spec->network->theta_count;
    struct node *scalars = graph_input(graph, "scalars", FLOAT32, VECTOR(OPTIMIZER_SCALARS));
    struct node *theta = theta_input(graph, spec), *a_g = graph_input(graph, "a_g", FLOAT32, VECTOR(p));
    struct node *lambda = graph_input(graph, "lambda", FLOAT32, VECTOR(p));
    struct batch batch = step_batch(graph, spec, count);
    struct node *loss = inner_loss(graph, spec, theta, &batch, share, NULL, NULL);
    struct node *wrt[3] = {theta, batch.set_images, batch.set_labels}, *gradients[3], *tangents[3];
    int wanted = spec->soft_labels ? 3 : 2;
    int status = transform_vjp(loss, NULL, wrt, wanted, gradients);
    if (status >= 0) status = transform_jvp(gradients, wanted, &theta, &a_g, 1, tangents);
    if (status < 0) return finish(graph, status);
    struct node *hessian = tangents[0];
    if (lanczos) {
        /* U diag(eigenvalues) U^T a_g; the rows of the basis are the vectors. */
        hessian = NULL;
        int64_t k = spec->rank;
        struct node *basis = graph_input(graph, "basis", FLOAT32, SHAPE(k, p));
        struct node *values = graph_input(graph, "eigenvalues", FLOAT32, VECTOR(k));
        struct node *direction = a_g;
        if (spec->optimizer.kind == OPTIMIZER_ADAM) {
            /* Weights without any gradient so far: there 1 / (sqrt(v) + eps) makes a_g huge, and the exact Hessian's
             * row is zero. A factor from other weights does not know that, so the row is made zero here. */
            struct node *v = graph_input(graph, "new state 1", FLOAT32, VECTOR(p)),
                        *zero = graph_constant(graph, 0, VECTOR(p));
            direction = node_select(node_compare(zero, v, COMPARE_LESS), a_g, zero);
        }
        struct node *along = node_matmul(basis, node_reshape(direction, SHAPE(p, 1)), false, false);
        along = node_multiply(along, node_reshape(values, SHAPE(k, 1)));
        if (first) hessian = node_reshape(node_matmul(basis, along, true, false), VECTOR(p));
    }
    graph_output(graph, "out lambda", hessian ? node_add(lambda, hessian) : lambda);
    graph_output(graph, "out dS", accumulated(graph, "dS", tangents[1], scalars));
    if (spec->soft_labels) graph_output(graph, "out dy", accumulated(graph, "dy", tangents[2], scalars));
    return finish(graph, status);
}

/* Worth keeping is what takes far longer to compute than to write to memory and read again: convolutions, but for those
 * of few channels (a first layer's maps are the largest and the cheapest). Processors do 5 to 20 operations in the time
 * of moving a byte, Winograd's kernels two to four times as many; a value is moved twice. */
static bool is_worth_keeping(const struct node *node) {
    enum { OPERATIONS = 256 }; /* for each value */
    return (node->op == OP_CONV || node->op == OP_CONV_BACKWARD_DATA)
           && op_info(node->op)->cost(node) >= OPERATIONS * (double)shape_count(node->shape);
}

/* NULLs after a failure. */
static void build_keeping(const struct unroll_spec *spec, int64_t count, double share, bool accumulate, bool probe,
                          struct graph **keeping, struct graph **reading) {
    *keeping = *reading = NULL;
    struct graph *gradient = graph_gradient(spec, count, share, accumulate, probe);
    struct graph *product = gradient ? graph_product(spec, count, share, false, false) : NULL;
    if (product) (void)transform_keep(gradient, product, is_worth_keeping, keeping, reading);
    graph_destroy(gradient);
    graph_destroy(product);
}

struct graph *graph_gradient_keeping(const struct unroll_spec *spec, int64_t count, double share, bool accumulate,
                                     bool probe) {
    struct graph *keeping, *reading;
    build_keeping(spec, count, share, accumulate, probe, &keeping, &reading);
    graph_destroy(reading);
    return keeping;
}

struct graph *graph_product_reading(const struct unroll_spec *spec, int64_t count, double share) {
    struct graph *keeping, *reading;
    build_keeping(spec, count, share, false, false, &keeping, &reading);
    graph_destroy(keeping);
    return reading;
}

struct graph *graph_meta(const struct unroll_spec *spec, int64_t count) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    const struct network *net = spec->network;
    struct node *theta = theta_input(graph, spec), *gradient = NULL;
    struct node *images = graph_input(graph, "images", FLOAT32, SHAPE(count, net->channels, net->height, net->width));
    struct node *targets = graph_input(graph, "targets", FLOAT32, SHAPE(count, net->classes));
    struct node *labels = graph_input(graph, "labels", INT32, VECTOR(count));
    if (spec->meta_augment) images = node_sample(images, graph_input(graph, "maps", FLOAT32, SHAPE(count, 2, 3)));
    struct network_pass pass = {.theta = theta, .images = images};
    struct node *logits = network_logits(graph, net, &pass, NULL, NULL);
    struct node *loss = loss_soft(graph, logits, targets);
    int status = transform_vjp(loss, NULL, &theta, 1, &gradient);
    if (status < 0) return finish(graph, status);
    graph_output(graph, "out lambda", node_add(gradient, graph_input(graph, "lambda", FLOAT32, theta->shape)));
    graph_output(graph, "out loss", node_add(loss, graph_input(graph, "loss", FLOAT32, SCALAR_SHAPE)));
    struct node *correct = count_correct(graph, logits, labels);
    graph_output(graph, "out correct", node_add(correct, graph_input(graph, "correct", FLOAT32, SCALAR_SHAPE)));
    return finish(graph, status);
}

struct graph *graph_test(const struct unroll_spec *spec) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    const struct network *net = spec->network;
    struct network_pass pass = {.theta = theta_input(graph, spec)};
    pass.images =
        graph_input(graph, "images", FLOAT32, SHAPE(spec->test_batch, net->channels, net->height, net->width));
    if (net->stats_count) pass.stats_in = graph_input(graph, "stats", FLOAT32, VECTOR(net->stats_count));
    struct node *logits = network_logits(graph, net, &pass, NULL, NULL);
    struct node *labels = graph_input(graph, "labels", INT32, VECTOR(spec->test_batch));
    graph_output(graph, "correct", count_correct(graph, logits, labels));
    return finish(graph, 0);
}

/* --- Lanczos: m = rank steps, a basis of m + 1 rows --- */
static struct node *unit(struct node *x, struct node **norm) {
    *norm = node_sqrt(node_sum_all(node_square(x)));
    /* A vanishing vector ends the recurrence: zeros from there on, which add nothing. */
    struct node *zero = graph_constant(x->graph, 0, SCALAR_SHAPE);
    struct node *tiny = graph_constant(x->graph, 1e-20, SCALAR_SHAPE);
    struct node *scale =
        node_select(node_compare(tiny, *norm, COMPARE_LESS), node_reciprocal(node_max(*norm, tiny)), zero);
    return node_multiply(x, node_broadcast_scalar(scale, x->shape));
}

struct graph *graph_lanczos_start(const struct unroll_spec *spec) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    struct node *seed = graph_input(graph, "seed", INT32, VECTOR(2));
    graph_output(graph, "vector",
                 graph_random(seed, RANDOM_NORMAL01, RANDOM_LANCZOS, VECTOR(spec->network->theta_count)));
    return finish(graph, 0);
}

struct graph *graph_lanczos_unit(const struct unroll_spec *spec) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    struct node *product = graph_input(graph, "product", FLOAT32, VECTOR(spec->network->theta_count)), *norm;
    graph_output(graph, "vector", unit(product, &norm));
    return finish(graph, 0);
}

struct graph *graph_lanczos_product(const struct unroll_spec *spec, int64_t count, double share) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    struct node *theta = theta_input(graph, spec), *gradient = NULL, *product = NULL;
    struct node *vector = graph_input(graph, "vector", FLOAT32, theta ? theta->shape : SCALAR_SHAPE);
    struct node *before = graph_input(graph, "product in", FLOAT32, theta ? theta->shape : SCALAR_SHAPE);
    struct batch batch = step_batch(graph, spec, count);
    struct node *loss = inner_loss(graph, spec, theta, &batch, share, NULL, NULL);
    int status = transform_vjp(loss, NULL, &theta, 1, &gradient);
    if (status >= 0) status = transform_jvp(&gradient, 1, &theta, &vector, 1, &product);
    if (status >= 0) graph_output(graph, "product", node_add(before, product));
    return finish(graph, status);
}

struct graph *graph_lanczos_next(const struct unroll_spec *spec) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    int64_t p = spec->network->theta_count, m = spec->rank;
    struct node *basis = graph_input(graph, "basis", FLOAT32, SHAPE(m + 1, p));
    struct node *w = node_reshape(graph_input(graph, "product", FLOAT32, VECTOR(p)), SHAPE(p, 1)), *norm;
    /* Full reorthogonalisation, twice, and once more on the unit vector: where the Krylov space is exhausted (a Hessian
     * of low rank) the remainder is rounding noise, and the recurrence goes on from its direction outside the basis.
     * Rows not made yet are zero and project onto nothing. */
    struct node *projection = node_matmul(basis, w, false, false), *length;
    w = node_subtract(w, node_matmul(basis, projection, true, false));
    w = node_subtract(w, node_matmul(basis, node_matmul(basis, w, false, false), true, false));
    w = unit(w, &norm);
    w = node_subtract(w, node_matmul(basis, node_matmul(basis, w, false, false), true, false));
    graph_output(graph, "projection", node_reshape(projection, VECTOR(m + 1)));
    graph_output(graph, "next", node_reshape(unit(w, &length), VECTOR(p)));
    graph_output(graph, "norm", norm);
    return finish(graph, 0);
}

struct graph *graph_lanczos_finish(const struct unroll_spec *spec) {
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    int64_t p = spec->network->theta_count, m = spec->rank;
    struct node *basis = graph_input(graph, "basis", FLOAT32, SHAPE(m + 1, p));
    /* Row j of `projections` [m, m+1] holds alpha_j at column j. */
    struct node *projections = graph_input(graph, "projections", FLOAT32, SHAPE(m, m + 1));
    struct node *beta = graph_input(graph, "norms", FLOAT32, VECTOR(m));
    struct shape square = SHAPE(m, m);
    struct node *row = graph_iota(graph, square, 0), *col = graph_iota(graph, square, 1);
    struct node *one = graph_constant_int(graph, 1, square);
    struct node *alpha = node_slice(projections, (int64_t[]){0, 0}, (int64_t[]){1, 1}, square);
    struct node *diagonal = node_multiply(alpha, node_compare(row, col, COMPARE_EQUAL));
    struct node *below = node_multiply(node_broadcast(node_reshape(beta, SHAPE(1, m)), square),
                                       node_compare(row, node_add(col, one), COMPARE_EQUAL));
    struct node *matrix = node_add(diagonal, node_add(below, node_transpose(below)));
    struct node *eigen = node_eigh(matrix);
    struct node *vectors = node_slice(eigen, (int64_t[]){1, 0}, (int64_t[]){1, 1}, square);
    struct node *used = node_slice(basis, (int64_t[]){0, 0}, (int64_t[]){1, 1}, SHAPE(m, p));
    graph_output(graph, "vectors", node_matmul(vectors, used, false, false));
    graph_output(graph, "eigenvalues",
                 node_reshape(node_slice(eigen, (int64_t[]){0, 0}, (int64_t[]){1, 1}, SHAPE(1, m)), VECTOR(m)));
    return finish(graph, 0);
}
