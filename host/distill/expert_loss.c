#include "distill/expert_loss.h"

#include "base/error.h"

enum { THETA, START, TARGET, LAMBDA, LOSS, KEPT, VALUES };

static struct node *magnitude(struct node *x) {
    return node_max(x, node_negate(x));
}

/* 1 for parameters that are kept, 0 for those that are dropped: a comparison has no derivative. With equal signs
 * |a + b| - |a - b| is twice the smaller magnitude, with others minus that, and |a + b| + |a - b| twice the larger. */
static struct node *kept_parameters(const struct expert_loss *spec, struct node *student, struct node *start,
                                    struct node *target) {
    struct node *apart = magnitude(node_subtract(student, target));
    if (spec->prune == PRUNE_DISTANCE)
        return node_compare(apart, node_scale(magnitude(node_subtract(target, start)), spec->epsilon),
                            COMPARE_LESS_EQUAL);
    struct node *together = magnitude(node_add(student, target));
    return node_compare(node_scale(node_add(together, apart), spec->epsilon), node_subtract(together, apart),
                        COMPARE_LESS_EQUAL);
}

static struct graph *build(const void *context, int64_t count) {
    const struct expert_loss *spec = context;
    struct shape shape = SHAPE(spec->theta_count);
    struct graph *graph;
    (void)count;
    if (graph_create(&graph) < 0) return NULL;
    struct node *student = graph_input(graph, "theta", FLOAT32, shape);
    struct node *start = graph_input(graph, "start", FLOAT32, shape);
    struct node *target = graph_input(graph, "target", FLOAT32, shape);
    struct node *kept = spec->prune ? kept_parameters(spec, student, start, target) : NULL;
    struct node *off = node_subtract(student, target), *way = node_subtract(start, target);
    if (kept) {
        off = node_multiply(kept, off);
        way = node_multiply(kept, way);
    }
    struct node *length = node_sum_all(node_square(way));
    graph_output(graph, "loss", node_divide(node_sum_all(node_square(off)), length));
    graph_output(graph, "lambda",
                 node_multiply(off, node_broadcast_scalar(node_scale(node_reciprocal(length), 2), shape)));
    if (kept) graph_output(graph, "kept", node_sum_all(kept));
    if (graph_status(graph) >= 0) return graph;
    graph_destroy(graph);
    return NULL;
}

struct pass_spec expert_loss_pass(const struct expert_loss *spec) {
    static const struct pass_value values[VALUES] = {
        [THETA] = {"theta", PASS_THETA},    [START] = {"start", PASS_UPLOAD}, [TARGET] = {"target", PASS_UPLOAD},
        [LAMBDA] = {"lambda", PASS_RESULT}, [LOSS] = {"loss", PASS_RESULT},   [KEPT] = {"kept", PASS_RESULT},
    };
    return (struct pass_spec){"distance to the expert", build, spec, 1, values, spec->prune ? VALUES : KEPT};
}

int expert_loss_upload(struct pass *pass, const float *start, const float *target) {
    int status = pass_upload(pass, START, start);
    return status < 0 ? status : pass_upload(pass, TARGET, target);
}

int expert_loss_read(struct pass *pass, double *loss, int64_t *kept) {
    int status = RETORT_OK;
    const struct expert_loss *spec = pass_spec_of(pass)->context;
    float value, count = 0;
    TRY(pass_read(pass, LOSS, &value));
    if (spec->prune) TRY(pass_read(pass, KEPT, &count));
    *loss = value;
    *kept = spec->prune ? (int64_t)count : spec->theta_count;
done:
    return status;
}

struct place expert_loss_lambda(const struct pass *pass) {
    return pass_result(pass, LAMBDA);
}
