/* Cross-entropy of logits, and the number of right answers. */
#include "nn/nn.h"

#include "base/error.h"

/* log softmax over the classes. The shift by the largest logit keeps exp in range; as it cancels, its derivative is
 * stopped. */
static struct node *log_softmax(struct node *logits) {
    struct node *shifted = node_subtract_stretched(logits, node_stop_gradient(node_reduce_max(logits, 1u << 1)));
    return node_subtract_stretched(shifted, node_log(node_reduce_sum(node_exp(shifted), 1u << 1)));
}

static bool is_matrix(struct graph *graph, const struct node *logits) {
    if (!logits) return false;
    if (logits->shape.rank != 2) graph_fail(graph, RETORT_EINVAL, "loss: logits must be [N,K]");
    return logits->shape.rank == 2;
}

struct node *loss_soft(struct graph *graph, struct node *logits, struct node *targets) {
    if (!is_matrix(graph, logits)) return NULL;
    return node_scale(node_sum_all(node_multiply(targets, log_softmax(logits))), -1 / (double)logits->shape.size[0]);
}

struct node *loss_hard(struct graph *graph, struct node *logits, struct node *labels) {
    return is_matrix(graph, logits) ? loss_soft(graph, logits, node_one_hot(labels, logits->shape.size[1])) : NULL;
}

struct node *count_correct(struct graph *graph, struct node *logits, struct node *labels) {
    if (!is_matrix(graph, logits)) return NULL;
    struct node *best = node_reshape(node_argmax(logits, 1), SHAPE(logits->shape.size[0]));
    return node_sum_all(node_compare(best, labels, COMPARE_EQUAL));
}
