#include "unroll/meta.h"

#include "base/error.h"
#include "transform/transform.h"

enum { THETA, IMAGES, TARGETS, LABELS, LAMBDA, LOSS, CORRECT, MAPS, VALUES };

/* Targets carry the weight of their row: rows of a part / rows of the batch for a real one, 0 for padding, whose label
 * is -1. */
static struct graph *build(const void *context, int64_t count) {
    const struct meta_spec *spec = context;
    const struct network *net = spec->network;
    struct graph *graph;
    if (graph_create(&graph) < 0) return NULL;
    struct node *theta = graph_input(graph, "theta", FLOAT32, SHAPE(net->theta_count)), *gradient = NULL;
    struct node *images = graph_input(graph, "images", FLOAT32, SHAPE(count, net->channels, net->height, net->width));
    struct node *targets = graph_input(graph, "targets", FLOAT32, SHAPE(count, net->classes));
    struct node *labels = graph_input(graph, "labels", INT32, SHAPE(count));
    if (spec->augment) images = node_sample(images, graph_input(graph, "maps", FLOAT32, SHAPE(count, 2, 3)));
    struct network_pass pass = {.theta = theta, .images = images};
    struct node *logits = network_logits(graph, net, &pass, NULL, NULL);
    struct node *loss = loss_soft(graph, logits, targets);
    int status = transform_vjp(loss, NULL, &theta, 1, &gradient);
    if (status >= 0) {
        struct node *correct = count_correct(graph, logits, labels);
        graph_output(graph, "out lambda",
                     node_add(gradient, graph_input(graph, "lambda", FLOAT32, SHAPE(net->theta_count))));
        graph_output(graph, "out loss", node_add(loss, graph_input(graph, "loss", FLOAT32, SCALAR_SHAPE)));
        graph_output(graph, "out correct", node_add(correct, graph_input(graph, "correct", FLOAT32, SCALAR_SHAPE)));
        status = graph_status(graph);
    }
    if (status >= 0) return graph;
    graph_destroy(graph);
    return NULL;
}

struct pass_spec meta_pass(const struct meta_spec *spec) {
    static const struct pass_value values[VALUES] = {
        [THETA] = {"theta", PASS_THETA},
        [IMAGES] = {"images", PASS_UPLOAD, true},
        [TARGETS] = {"targets", PASS_UPLOAD, true},
        [LABELS] = {"labels", PASS_UPLOAD, true, -1},
        [LAMBDA] = {"lambda", PASS_SUM},
        [LOSS] = {"loss", PASS_SUM},
        [CORRECT] = {"correct", PASS_SUM},
        [MAPS] = {"maps", PASS_UPLOAD, true},
    };
    return (struct pass_spec){.label = "meta-loss",
                              .build = build,
                              .context = spec,
                              .batch = spec->batch,
                              .values = values,
                              .value_count = spec->augment ? VALUES : MAPS};
}

int meta_upload(struct pass *pass, const float *images, const int32_t *labels, const float *maps) {
    int status = RETORT_OK;
    const struct meta_spec *spec = pass_spec_of(pass)->context;
    TRY(pass_upload(pass, IMAGES, images));
    TRY(pass_upload_targets(pass, TARGETS, labels, spec->batch, spec->network->classes));
    TRY(pass_upload(pass, LABELS, labels));
    if (spec->augment) TRY(pass_upload(pass, MAPS, maps));
done:
    return status;
}

int meta_run(struct pass *pass) {
    int status = pass_begin(pass);
    return status < 0 ? status : pass_run(pass);
}

struct place meta_lambda(const struct pass *pass) {
    return pass_result(pass, LAMBDA);
}

int meta_read(struct pass *pass, double *loss, double *accuracy) {
    int status = RETORT_OK;
    float sum, correct;
    TRY(pass_read(pass, LOSS, &sum));
    TRY(pass_read(pass, CORRECT, &correct));
    *loss = sum;
    *accuracy = 100.0 * correct / (double)pass_spec_of(pass)->batch;
done:
    return status;
}
