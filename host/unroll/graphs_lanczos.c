/* The graphs of the Lanczos recurrence: m = rank steps, a basis of m + 1 rows. The product of the Hessian with a vector
 * is in graphs.c, since it is a step's. */
#include "unroll/graphs.h"

#include "base/random.h"

static struct node *unit(struct node *x, struct node **norm) {
    *norm = node_sqrt(node_sum_all(node_square(x)));
    /* A vanishing vector ends the recurrence: zeros from there on, which add nothing. */
    struct node *zero = graph_constant(x->graph, 0, SCALAR_SHAPE);
    struct node *tiny = graph_constant(x->graph, 1e-20, SCALAR_SHAPE);
    struct node *scale =
        node_select(node_compare(tiny, *norm, COMPARE_LESS), node_reciprocal(node_max(*norm, tiny)), zero);
    return node_multiply(x, node_broadcast_scalar(scale, x->shape));
}

struct graph *graph_lanczos_start(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    (void)form;
    if (graph_create(&graph) < 0) return NULL;
    struct node *seed = slot_input(graph, SLOT_SEED, INT32, VECTOR(2));
    slot_output(graph, SLOT_VECTOR,
                graph_random(seed, RANDOM_NORMAL01, RANDOM_LANCZOS, VECTOR(spec->network->theta_count)));
    return graph_finish(graph, 0);
}

struct graph *graph_lanczos_unit(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    (void)form;
    if (graph_create(&graph) < 0) return NULL;
    struct node *product = slot_input(graph, SLOT_PRODUCT, FLOAT32, VECTOR(spec->network->theta_count)), *norm;
    slot_output(graph, SLOT_VECTOR, unit(product, &norm));
    return graph_finish(graph, 0);
}

struct graph *graph_lanczos_next(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    (void)form;
    if (graph_create(&graph) < 0) return NULL;
    int64_t p = spec->network->theta_count, m = spec->rank;
    struct node *basis = slot_input(graph, SLOT_BASIS, FLOAT32, SHAPE(m + 1, p));
    struct node *w = node_reshape(slot_input(graph, SLOT_PRODUCT, FLOAT32, VECTOR(p)), SHAPE(p, 1)), *norm;
    /* Full reorthogonalisation, twice, and once more on the unit vector: where the Krylov space is exhausted (a Hessian
     * of low rank) the remainder is rounding noise, and the recurrence goes on from its direction outside the basis.
     * Rows not made yet are zero and project onto nothing. */
    struct node *projection = node_matmul(basis, w, false, false), *length;
    w = node_subtract(w, node_matmul(basis, projection, true, false));
    w = node_subtract(w, node_matmul(basis, node_matmul(basis, w, false, false), true, false));
    w = unit(w, &norm);
    w = node_subtract(w, node_matmul(basis, node_matmul(basis, w, false, false), true, false));
    slot_output(graph, SLOT_PROJECTION, node_reshape(projection, VECTOR(m + 1)));
    slot_output(graph, SLOT_NEXT, node_reshape(unit(w, &length), VECTOR(p)));
    slot_output(graph, SLOT_NORM, norm);
    return graph_finish(graph, 0);
}

struct graph *graph_lanczos_finish(const struct unroll_spec *spec, const struct graph_form *form) {
    struct graph *graph;
    (void)form;
    if (graph_create(&graph) < 0) return NULL;
    int64_t p = spec->network->theta_count, m = spec->rank;
    struct node *basis = slot_input(graph, SLOT_BASIS, FLOAT32, SHAPE(m + 1, p));
    /* Row j of `projections` [m, m+1] holds alpha_j at column j. */
    struct node *projections = slot_input(graph, SLOT_PROJECTIONS, FLOAT32, SHAPE(m, m + 1));
    struct node *beta = slot_input(graph, SLOT_NORMS, FLOAT32, VECTOR(m));
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
    slot_output(graph, SLOT_VECTORS, node_matmul(vectors, used, false, false));
    slot_output(graph, SLOT_EIGENVALUES,
                node_reshape(node_slice(eigen, (int64_t[]){0, 0}, (int64_t[]){1, 1}, SHAPE(1, m)), VECTOR(m)));
    return graph_finish(graph, 0);
}
