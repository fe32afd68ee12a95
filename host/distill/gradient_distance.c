#include "distill/gradient_distance.h"

/* A weight's part of a vector [p], row by row: [rows, size]. */
static struct node *rows_of(const struct network_parameter *parameter, struct node *vector) {
    const int64_t start[] = {parameter->offset}, step[] = {1}, rows = parameter->shape.size[0];
    return node_reshape(node_slice(vector, start, step, SHAPE(parameter->count)), SHAPE(rows, parameter->count / rows));
}

static struct node *lengths(struct node *x) {
    struct node *squares = node_reduce_sum(node_square(x), 1u << 1);
    struct node *zero = node_scale(node_stop_gradient(squares), 0), *some = node_compare(zero, squares, COMPARE_LESS);
    return node_multiply(node_sqrt(node_select(some, squares, node_shift(zero, 1))), some);
}

static struct node *angles(struct node *x, struct node *y) {
    struct node *divisor = node_shift(node_multiply(lengths(x), lengths(y)), 1e-6);
    return node_shift(node_negate(node_divide(node_reduce_sum(node_multiply(x, y), 1u << 1), divisor)), 1);
}

struct node *gradient_distance(enum gradient_distance distance, const struct network *network, struct node *g,
                               struct node *h) {
    bool cosine = distance == DISTANCE_COSINE || distance == DISTANCE_COSINE_NORM;
    struct node *sum = NULL;
    for (int i = 0; i < network->parameter_count; i++) {
        const struct network_parameter *parameter = &network->parameters[i];
        if (parameter->shape.rank < (cosine ? 2 : 4)) continue;
        struct node *x = rows_of(parameter, g), *y = rows_of(parameter, h), *d = node_subtract(x, y), *one;
        if (cosine)
            one = angles(x, y);
        else
            one = distance == DISTANCE_SQUARED ? node_square(d) : node_max(d, node_negate(d));
        if (distance == DISTANCE_COSINE_NORM) one = node_add(one, lengths(d));
        sum = sum ? node_add(sum, node_sum_all(one)) : node_sum_all(one);
    }
    return sum;
}
