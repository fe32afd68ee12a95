/* Rebuilding graphs: without what their results do not need, several times over, and with values handed from one graph
 * to another. */
#include "transform/transform.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/memory.h"

/* A graph on its way into a fresh one. */
struct rebuilding {
    const struct graph *graph;
    struct graph *fresh;
    bool *live;            /* by node index: some result needs it; inputs are part of the interface */
    struct node **rebuilt; /* by node index: in `fresh` */
    struct node **operands;
    struct arena arena;
};

static int begin(struct rebuilding *r, const struct graph *graph) {
    int status = RETORT_OK;
    size_t count = (size_t)graph_count(graph), widest = 0;
    *r = (struct rebuilding){.graph = graph};
    arena_init(&r->arena);
    TRY(graph_status(graph));
    TRY(graph_create(&r->fresh));
    for (int i = 0; i < graph_count(graph); i++)
        if ((size_t)graph_node(graph, i)->input_count > widest) widest = (size_t)graph_node(graph, i)->input_count;
    r->live = arena_array(&r->arena, count, sizeof *r->live);
    r->rebuilt = arena_array(&r->arena, count, sizeof *r->rebuilt);
    r->operands = arena_array(&r->arena, widest, sizeof *r->operands);
    if (r->arena.failed) RAISE(RETORT_ENOMEM, "out of memory for rebuilding a graph");
    for (int i = 0; i < graph_output_count(graph); i++) r->live[graph_output_at(graph, i, NULL)->index] = true;
done:
    return status;
}

static void finish(struct rebuilding *r) {
    graph_destroy(r->fresh);
    arena_finish(&r->arena);
}

/* What a live node reads is live; an input is live in any case. */
static void spread(struct rebuilding *r, const struct node *node) {
    r->live[node->index] |= node->op == OP_INPUT;
    for (int j = 0; r->live[node->index] && j < node->input_count; j++) r->live[node->inputs[j]->index] = true;
}

/* Builds the live nodes that are not there yet. */
static void rebuild_nodes(struct rebuilding *r) {
    for (int i = 0; i < graph_count(r->graph); i++) {
        const struct node *node = graph_node(r->graph, i);
        if (!r->live[i] || r->rebuilt[i]) continue;
        for (int j = 0; j < node->input_count; j++) r->operands[j] = r->rebuilt[node->inputs[j]->index];
        r->rebuilt[i] = node_rebuild(r->fresh, node, r->operands);
    }
}

/* And the results. */
static void rebuild(struct rebuilding *r) {
    rebuild_nodes(r);
    for (int i = 0; i < graph_output_count(r->graph); i++)
        graph_output_copy(r->fresh, r->graph, i, r->rebuilt[graph_output_at(r->graph, i, NULL)->index]);
}

static struct graph *take(struct rebuilding *r) {
    struct graph *fresh = r->fresh;
    r->fresh = NULL;
    return fresh;
}

int transform_simplify(const struct graph *graph, struct graph **simplified) {
    int status = RETORT_OK;
    struct rebuilding r;
    TRY(begin(&r, graph));
    for (int i = graph_count(graph) - 1; i >= 0; i--) spread(&r, graph_node(graph, i));
    rebuild(&r);
    TRY(graph_verify(r.fresh));
    *simplified = take(&r);
done:
    finish(&r);
    return status;
}

/* Forgets what was built of the last copy and makes the inputs of the next; those that all share are there already. */
static int begin_copy(struct rebuilding *r, int copy, bool (*is_shared)(const char *input)) {
    char name[TRANSFORM_NAME];
    for (int i = 0; i < graph_count(r->graph); i++) {
        const struct node *node = graph_node(r->graph, i);
        r->rebuilt[i] = NULL;
        if (node->op != OP_INPUT) continue;
        if (node->attributes.opaque)
            return error_set(RETORT_EUNSUPPORTED, "a graph with the opaque input %s cannot be repeated", node->name);
        transform_copy_name(node->name, is_shared(node->name) ? 0 : copy, name);
        r->rebuilt[i] = graph_input(r->fresh, name, node->dtype, node->shape);
    }
    return RETORT_OK;
}

const char *transform_copy_name(const char *name, int copy, char text[TRANSFORM_NAME]) {
    snprintf(text, TRANSFORM_NAME, copy ? "%s #%d" : "%s", name, copy);
    return text;
}

int transform_repeat(const struct graph *graph, int copies, bool (*is_shared)(const char *input),
                     struct graph **repeated) {
    int status = RETORT_OK;
    char text[TRANSFORM_NAME];
    struct rebuilding r;
    TRY(begin(&r, graph));
    for (int i = graph_count(graph) - 1; i >= 0; i--) spread(&r, graph_node(graph, i));
    for (int copy = 0; copy < copies; copy++) {
        TRY(begin_copy(&r, copy, is_shared));
        rebuild_nodes(&r);
        for (int i = 0; i < graph_output_count(graph); i++) {
            const char *name;
            const struct node *node = graph_output_at(graph, i, &name);
            graph_output(r.fresh, transform_copy_name(name, copy, text), r.rebuilt[node->index]);
        }
    }
    TRY(graph_verify(r.fresh));
    *repeated = take(&r);
done:
    finish(&r);
    return status;
}

int transform_keep(const struct graph *producer, const struct graph *consumer, bool (*is_worth)(const struct node *),
                   struct graph **keeping, struct graph **reading) {
    int status = RETORT_OK, kept = 0;
    char name[32];
    struct rebuilding from, to = {0};
    TRY(begin(&from, producer));
    TRY(begin(&to, consumer));
    /* Which node of the producer is the consumer's: NULL for none. */
    struct node **twin = arena_array(&to.arena, (size_t)graph_count(consumer), sizeof *twin);
    if (!twin) RAISE(RETORT_ENOMEM, "out of memory for rebuilding a graph");
    for (int i = 0; i < graph_count(consumer); i++) {
        const struct node *node = graph_node(consumer, i);
        bool known = true;
        for (int j = 0; j < node->input_count; j++) {
            to.operands[j] = twin[node->inputs[j]->index];
            known &= to.operands[j] != NULL;
        }
        if (known) twin[i] = node_find(producer, node, to.operands);
    }
    for (int i = graph_count(producer) - 1; i >= 0; i--) spread(&from, graph_node(producer, i));
    rebuild(&from);
    /* From the results back, so that what is read instead of computed needs nothing itself. */
    for (int i = graph_count(consumer) - 1; i >= 0; i--) {
        const struct node *node = graph_node(consumer, i);
        bool keep = to.live[i] && twin[i] && from.live[twin[i]->index] && is_worth(node);
        if (!keep) {
            spread(&to, node);
            continue;
        }
        snprintf(name, sizeof name, "kept %d", kept++);
        to.rebuilt[i] = graph_input_opaque(to.fresh, name, node->dtype, node->shape);
        graph_output_opaque(from.fresh, name, from.rebuilt[twin[i]->index]);
    }
    rebuild(&to);
    TRY(graph_verify(from.fresh));
    TRY(graph_verify(to.fresh));
    *keeping = take(&from);
    *reading = take(&to);
done:
    finish(&from);
    finish(&to);
    return status;
}
