/* One step of SGD or Adam, and its adjoint. */
#include "optimizer/optimizer.h"

#include <math.h>

/* Places in a row of scalars. */
enum { SCALAR_LR, SCALAR_CORRECTION1, SCALAR_CORRECTION2 };

int optimizer_state_count(const struct optimizer_spec *spec) {
    if (spec->kind == OPTIMIZER_ADAM) return 2;
    return spec->momentum != 0;
}

void optimizer_scalars(const struct optimizer_spec *spec, double lr, int t, float row[OPTIMIZER_SCALARS]) {
    bool adam = spec->kind == OPTIMIZER_ADAM;
    row[SCALAR_LR] = (float)lr;
    row[SCALAR_CORRECTION1] = adam ? (float)(1 - pow(spec->beta1, t)) : 1;
    row[SCALAR_CORRECTION2] = adam ? (float)(1 - pow(spec->beta2, t)) : 1;
    row[3] = 0;
}

/* A number of the row, in the shape of a vector. */
static struct node *scalar_like(struct node *scalars, int64_t place, struct node *vector) {
    if (!vector) return NULL;
    return node_broadcast_scalar(node_slice(scalars, &place, (int64_t[]){1}, SHAPE(1)), vector->shape);
}

static struct node *decayed(const struct optimizer_spec *spec, struct node *theta, struct node *gradient) {
    return node_add(gradient, node_scale(theta, spec->weight_decay));
}

static struct node *zeros_like(struct node *x) {
    return node_scale(x, 0);
}

/* sqrt of the corrected second moment. Where that is zero the root is not taken of it, so that nothing downstream ever
 * divides by it: *root is 1 there, *positive 0, and the result 0. */
static struct node *second_moment_root(struct node *v, struct node *correction, struct node **positive,
                                       struct node **root) {
    struct node *zeros = zeros_like(v);
    *positive = node_compare(zeros, v, COMPARE_LESS);
    *root = node_select(*positive, node_sqrt(node_divide(node_select(*positive, v, node_shift(zeros, 1)), correction)),
                        node_shift(zeros, 1));
    return node_select(*positive, *root, zeros);
}

void optimizer_update(struct graph *graph, const struct optimizer_spec *spec, struct node *scalars, struct node *theta,
                      struct node *const *state, struct node *gradient, struct node **new_theta,
                      struct node **new_state) {
    (void)graph;
    struct node *g = decayed(spec, theta, gradient), *lr = scalar_like(scalars, SCALAR_LR, theta), *step = g;
    if (spec->kind == OPTIMIZER_ADAM) {
        struct node *m = new_state[0] = node_add(node_scale(state[0], spec->beta1), node_scale(g, 1 - spec->beta1));
        struct node *v = new_state[1] =
            node_add(node_scale(state[1], spec->beta2), node_scale(node_square(g), 1 - spec->beta2));
        struct node *corrected_m = node_divide(m, scalar_like(scalars, SCALAR_CORRECTION1, theta));
        struct node *corrected_v = node_divide(v, scalar_like(scalars, SCALAR_CORRECTION2, theta));
        step = node_divide(corrected_m, node_shift(node_sqrt(corrected_v), spec->eps));
    } else if (optimizer_state_count(spec)) {
        step = new_state[0] = node_add(node_scale(state[0], spec->momentum), g);
    }
    *new_theta = node_subtract(theta, node_multiply(lr, step));
}

static void adam_adjoint(const struct optimizer_spec *spec, struct node *scalars, struct node *g,
                         struct node *const *new_state, struct node *lambda_theta, struct node *const *lambda_new_state,
                         struct node **a_g, struct node **lambda_state, struct node **d_lr) {
    struct node *lr = scalar_like(scalars, SCALAR_LR, g);
    struct node *correction1 = scalar_like(scalars, SCALAR_CORRECTION1, g);
    struct node *correction2 = scalar_like(scalars, SCALAR_CORRECTION2, g);
    struct node *positive, *root, *m = node_divide(new_state[0], correction1);
    struct node *r = second_moment_root(new_state[1], correction2, &positive, &root);
    /* theta' = theta - lr m / (r + eps), m and r^2 corrected. */
    struct node *divisor = node_shift(r, spec->eps), *share = node_divide(lambda_theta, divisor);
    struct node *a_m = node_subtract(lambda_new_state[0], node_divide(node_multiply(lr, share), correction1));
    struct node *pull = node_divide(node_multiply(node_multiply(lr, m), share),
                                    node_multiply(node_scale(node_multiply(root, correction2), 2), divisor));
    struct node *a_v = node_add(lambda_new_state[1], node_select(positive, pull, zeros_like(pull)));
    *a_g = node_add(node_scale(a_m, 1 - spec->beta1), node_multiply(node_scale(g, 2 * (1 - spec->beta2)), a_v));
    lambda_state[0] = node_scale(a_m, spec->beta1);
    lambda_state[1] = node_scale(a_v, spec->beta2);
    *d_lr = node_negate(node_sum_all(node_multiply(share, m)));
}

void optimizer_adjoint(struct graph *graph, const struct optimizer_spec *spec, struct node *scalars, struct node *theta,
                       struct node *const *new_state, struct node *gradient, struct node *lambda_theta,
                       struct node *const *lambda_new_state, struct node **a_g, struct node **lambda_state,
                       struct node **d_lr) {
    (void)graph;
    struct node *g = decayed(spec, theta, gradient);
    if (spec->kind == OPTIMIZER_ADAM) {
        adam_adjoint(spec, scalars, g, new_state, lambda_theta, lambda_new_state, a_g, lambda_state, d_lr);
        return;
    }
    struct node *own = node_negate(node_multiply(scalar_like(scalars, SCALAR_LR, g), lambda_theta)), *step = g;
    *a_g = own;
    if (optimizer_state_count(spec)) {
        *a_g = node_add(lambda_new_state[0], own);
        lambda_state[0] = node_scale(*a_g, spec->momentum);
        step = new_state[0];
    }
    *d_lr = node_negate(node_sum_all(node_multiply(lambda_theta, step)));
}
