/* The graph itself: its nodes, each stored once, its results, the first failure, the verifier and the printer. */
#include "graph/private.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

struct result {
    const char *name;
    struct node *node;
    bool opaque;
};

struct graph {
    struct arena arena; /* nodes, their operand lists, names */
    ARRAY(struct node *) nodes;
    ARRAY(uint64_t) hashes; /* of the nodes: hash_of */
    ARRAY(struct result) results;
    int *table; /* open addressing: node index + 1, or 0; a power of two at most half full */
    size_t table_size;
    int failure;
    char words[512]; /* of the failure */
};

/* --- shapes --- */

struct shape shape_make(int rank, const int64_t *size) {
    struct shape shape = {.rank = rank};
    for (int d = 0; d < rank && d < MAX_RANK; d++) shape.size[d] = size[d];
    return shape;
}

bool shape_equal(struct shape a, struct shape b) {
    if (a.rank != b.rank) return false;
    for (int d = 0; d < a.rank; d++)
        if (a.size[d] != b.size[d]) return false;
    return true;
}

int64_t shape_count(struct shape shape) {
    const int64_t limit = (int64_t)1 << 48;
    int64_t count = 1;
    for (int d = 0; d < shape.rank; d++) {
        if (shape.size[d] < 1 || shape.size[d] > (limit - 1) / count) return -1;
        count *= shape.size[d];
    }
    return count;
}

void shape_print(struct shape shape, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, "[");
    for (int d = 0; d < shape.rank && d < MAX_RANK && used < size; d++)
        used += (size_t)snprintf(text + used, size - used, d ? ",%" PRId64 : "%" PRId64, shape.size[d]);
    if (used < size) snprintf(text + used, size - used, "]");
}

/* --- life and failure --- */

int graph_create(struct graph **graph) {
    int status = RETORT_OK;
    struct graph *created = calloc(1, sizeof *created);
    if (!created) RAISE(RETORT_ENOMEM, "out of memory for a graph");
    arena_init(&created->arena);
    *graph = created;
done:
    return status;
}

void graph_destroy(struct graph *graph) {
    if (!graph) return;
    arena_finish(&graph->arena);
    array_finish(&graph->nodes);
    array_finish(&graph->hashes);
    array_finish(&graph->results);
    free(graph->table);
    free(graph);
}

int graph_status(const struct graph *graph) {
    return graph->failure ? error_set(graph->failure, "%s", graph->words) : RETORT_OK;
}

struct node *graph_fail(struct graph *graph, int code, const char *format, ...) {
    if (graph->failure) return NULL;
    graph->failure = code;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(graph->words, sizeof graph->words, format, arguments);
    va_end(arguments);
    return NULL;
}

static struct node *fail_memory(struct graph *graph) {
    return graph_fail(graph, RETORT_ENOMEM, "out of memory for a graph of %zu nodes", graph->nodes.count);
}

int graph_count(const struct graph *graph) {
    return (int)graph->nodes.count;
}

struct node *graph_node(const struct graph *graph, int index) {
    return index >= 0 && (size_t)index < graph->nodes.count ? graph->nodes.items[index] : NULL;
}

static void add_result(struct graph *graph, const char *name, struct node *node, bool opaque) {
    if (!node) {
        graph_fail(graph, RETORT_EINVAL, "graph output \"%s\" is no node", name);
        return;
    }
    if (node->graph != graph) {
        graph_fail(graph, RETORT_EINVAL, "graph output \"%s\" is a node of another graph", name);
        return;
    }
    for (size_t i = 0; i < graph->results.count; i++)
        if (strcmp(graph->results.items[i].name, name) == 0) {
            graph_fail(graph, RETORT_EINVAL, "graph output \"%s\" is given twice", name);
            return;
        }
    struct result result = {arena_copy_text(&graph->arena, name), node, opaque};
    if (!result.name || !array_push(&graph->results, result)) fail_memory(graph);
}

void graph_output(struct graph *graph, const char *name, struct node *node) {
    add_result(graph, name, node, false);
}

void graph_output_opaque(struct graph *graph, const char *name, struct node *node) {
    add_result(graph, name, node, true);
}

void graph_output_copy(struct graph *graph, const struct graph *from, int i, struct node *node) {
    add_result(graph, from->results.items[i].name, node, from->results.items[i].opaque);
}

int graph_output_count(const struct graph *graph) {
    return (int)graph->results.count;
}

struct node *graph_output_at(const struct graph *graph, int i, const char **name) {
    if (i < 0 || (size_t)i >= graph->results.count) return NULL;
    if (name) *name = graph->results.items[i].name;
    return graph->results.items[i].node;
}

bool graph_output_is_opaque(const struct graph *graph, int i) {
    return i >= 0 && (size_t)i < graph->results.count && graph->results.items[i].opaque;
}

/* --- finding equal nodes --- */

/* Attributes are hashed and compared as they lie in memory, whichever of them the operation uses. A new member changes
 * the sum below; a gap between two members would hold bytes that mean nothing. */
_Static_assert(sizeof(struct attributes) == sizeof(double) + 2 * MAX_RANK * sizeof(int64_t) + 10 * sizeof(int),
               "the attributes must fill their structure");

/* Inputs of the graph are told apart by name. */
static uint64_t hash_of(const struct node *node) {
    const int head[] = {(int)node->op, (int)node->dtype, node->shape.rank, node->input_count};
    uint64_t hash = hash_fast(head, sizeof head, 0);
    hash = hash_fast(node->shape.size, (size_t)node->shape.rank * sizeof *node->shape.size, hash);
    hash = hash_fast(&node->attributes, sizeof node->attributes, hash);
    hash = hash_fast(node->inputs, (size_t)node->input_count * sizeof *node->inputs, hash);
    return node->name ? hash_fast(node->name, strlen(node->name), hash) : hash;
}

static bool node_equal(const struct node *node, const struct node *draft) {
    if (node->op != draft->op || node->dtype != draft->dtype || !shape_equal(node->shape, draft->shape)) return false;
    if (node->input_count != draft->input_count) return false;
    if (node->name && draft->name && strcmp(node->name, draft->name) != 0) return false;
    for (int i = 0; i < node->input_count; i++)
        if (node->inputs[i] != draft->inputs[i]) return false;
    return memcmp(&node->attributes, &draft->attributes, sizeof node->attributes) == 0;
}

/* The place in the table of the draft's equal, or of the gap where it belongs. */
static size_t table_find(const struct graph *graph, const struct node *draft, uint64_t hash) {
    size_t place = (size_t)hash & (graph->table_size - 1);
    for (;; place = (place + 1) & (graph->table_size - 1)) {
        int index = graph->table[place] - 1;
        if (index < 0) return place;
        if (graph->hashes.items[index] == hash && node_equal(graph->nodes.items[index], draft)) return place;
    }
}

static bool table_grow(struct graph *graph) {
    size_t size = graph->table_size ? 2 * graph->table_size : 256;
    int *table = calloc(size, sizeof *table);
    if (!table) return false;
    for (size_t i = 0; i < graph->nodes.count; i++) {
        size_t place = (size_t)graph->hashes.items[i] & (size - 1);
        while (table[place]) place = (place + 1) & (size - 1);
        table[place] = (int)i + 1;
    }
    free(graph->table);
    graph->table = table;
    graph->table_size = size;
    return true;
}

/* The node equal to the checked draft: an old one, or the draft stored. */
static struct node *share_or_store(struct graph *graph, const struct node *draft) {
    if (2 * (graph->nodes.count + 1) > graph->table_size && !table_grow(graph)) return fail_memory(graph);
    uint64_t hash = hash_of(draft);
    size_t place = table_find(graph, draft, hash);
    if (graph->table[place]) return graph->nodes.items[graph->table[place] - 1];

    struct node *node = arena_alloc(&graph->arena, sizeof *node);
    struct node **inputs = arena_array(&graph->arena, (size_t)draft->input_count, sizeof *inputs);
    const char *name = draft->name ? arena_copy_text(&graph->arena, draft->name) : NULL;
    if (!node || !inputs || (draft->name && !name)) return fail_memory(graph);
    *node = *draft;
    if (draft->input_count) memcpy(inputs, draft->inputs, (size_t)draft->input_count * sizeof *inputs);
    node->inputs = inputs;
    node->name = name;
    node->graph = graph;
    node->index = (int)graph->nodes.count;
    if (!array_push(&graph->hashes, hash)) return fail_memory(graph);
    if (!array_push(&graph->nodes, node)) {
        graph->hashes.count--;
        return fail_memory(graph);
    }
    graph->table[place] = node->index + 1;
    return node;
}

/* --- building --- */

/* "conv_backward_data [2,8,4,4] [8,3,3,3]", for messages. */
static void describe(const struct node *node, struct text *text) {
    const struct op_info *info = op_info(node->op);
    char shape[160];
    text_append(text, info ? info->name : "unknown operation");
    for (int i = 0; i < node->input_count && i < 8; i++) {
        shape_print(node->inputs[i]->shape, shape, sizeof shape);
        text_printf(text, " %s%s", node->inputs[i]->dtype == INT32 ? "int32 " : "", shape);
    }
    if (node->shape.rank) {
        shape_print(node->shape, shape, sizeof shape);
        text_printf(text, " -> %s", shape);
    }
}

/* A constant goes second, so that identities and readers find it there; otherwise the older operand goes first. */
static void order_operands(struct node *draft) {
    if (draft->op != OP_ADD && draft->op != OP_MULTIPLY) return;
    struct node *a = draft->inputs[0], *b = draft->inputs[1];
    bool a_constant = a->op == OP_CONSTANT, b_constant = b->op == OP_CONSTANT;
    if (a_constant != b_constant ? a_constant : a->index > b->index) {
        draft->inputs[0] = b;
        draft->inputs[1] = a;
    }
}

struct node *graph_build(struct graph *graph, struct node *draft) {
    for (int i = 0; i < draft->input_count; i++) {
        if (!draft->inputs[i]) return NULL;
        if (draft->inputs[i]->graph != graph)
            return graph_fail(graph, RETORT_EINVAL, "%s: operands belong to different graphs",
                              op_info(draft->op)->name);
    }
    struct shape told = draft->shape;
    const char *words = op_check(draft);
    if (words) {
        struct text text;
        text_init(&text);
        draft->shape = told;
        describe(draft, &text);
        graph_fail(graph, RETORT_EINVAL, "%s: %s", text_get(&text), words);
        text_finish(&text);
        return NULL;
    }
    order_operands(draft);
    struct node *folded = fold(graph, draft);
    return folded ? folded : share_or_store(graph, draft);
}

static struct node *add_input(struct graph *graph, const char *name, enum dtype dtype, struct shape shape,
                              bool opaque) {
    for (size_t i = 0; i < graph->nodes.count; i++) {
        struct node *node = graph->nodes.items[i];
        if (node->op != OP_INPUT || strcmp(node->name, name) != 0) continue;
        if (node->dtype == dtype && shape_equal(node->shape, shape) && node->attributes.opaque == opaque) return node;
        return graph_fail(graph, RETORT_EINVAL, "graph input \"%s\" is asked for with two types or shapes", name);
    }
    return graph_build(
        graph,
        &(struct node){.op = OP_INPUT, .dtype = dtype, .shape = shape, .name = name, .attributes.opaque = opaque});
}

struct node *graph_input(struct graph *graph, const char *name, enum dtype dtype, struct shape shape) {
    return add_input(graph, name, dtype, shape, false);
}

struct node *graph_input_opaque(struct graph *graph, const char *name, enum dtype dtype, struct shape shape) {
    return add_input(graph, name, dtype, shape, true);
}

struct node *node_find(const struct graph *graph, const struct node *node, struct node *const *inputs) {
    struct node *pair[2];
    struct node draft = *node;
    draft.inputs = (struct node **)inputs;
    if (node->input_count == 2) { /* these may change places */
        memcpy(pair, inputs, sizeof pair);
        draft.inputs = pair;
    }
    order_operands(&draft);
    int index = graph->table_size ? graph->table[table_find(graph, &draft, hash_of(&draft))] : 0;
    return index ? graph->nodes.items[index - 1] : NULL;
}

struct node *node_rebuild(struct graph *graph, const struct node *node, struct node *const *inputs) {
    if (node->op == OP_INPUT) return add_input(graph, node->name, node->dtype, node->shape, node->attributes.opaque);
    enum { FEW = 8 };
    struct node *few[FEW];
    struct node **copy = node->input_count <= FEW ? few : malloc((size_t)node->input_count * sizeof *copy);
    if (!copy) return fail_memory(graph);
    for (int i = 0; i < node->input_count; i++) copy[i] = inputs[i];
    struct node draft = {.op = node->op,
                         .dtype = node->dtype,
                         .shape = node->shape,
                         .attributes = node->attributes,
                         .input_count = node->input_count,
                         .inputs = copy};
    struct node *built = graph_build(graph, &draft);
    if (copy != few) free(copy);
    return built;
}

/* --- verifier and printer --- */

int graph_verify(const struct graph *graph) {
    int status = RETORT_OK;
    TRY(graph_status(graph));
    for (int i = 0; i < graph_count(graph); i++) {
        const struct node *node = graph->nodes.items[i];
        const struct op_info *info = op_info(node->op);
        const char *name = info ? info->name : "?";
        if (node->index != i || node->graph != graph)
            RAISE(RETORT_EINVAL, "graph node %d (%s) is out of place", i, name);
        if ((node->op == OP_INPUT) != (node->name != NULL))
            RAISE(RETORT_EINVAL, "graph node %d (%s): inputs alone have names", i, name);
        for (int j = 0; j < node->input_count; j++) {
            const struct node *input = node->inputs[j];
            if (!input || input->index >= i || graph_node(graph, input->index) != input)
                RAISE(RETORT_EINVAL, "graph node %d (%s): operand %d is no earlier node of the graph", i, name, j);
        }
        struct node again = *node;
        const char *words = op_check(&again);
        if (words) RAISE(RETORT_EINVAL, "graph node %d (%s): %s", i, name, words);
        if (again.dtype != node->dtype || !shape_equal(again.shape, node->shape))
            RAISE(RETORT_EINVAL, "graph node %d (%s): its type or shape is not what its operands give", i, name);
    }
    for (size_t i = 0; i < graph->results.count; i++) {
        const struct node *node = graph->results.items[i].node;
        if (graph_node(graph, node->index) != node)
            RAISE(RETORT_EINVAL, "graph output \"%s\" is no node of the graph", graph->results.items[i].name);
    }
done:
    return status;
}

static void print_list(FILE *stream, const char *key, const int64_t *list, int count) {
    fprintf(stream, " %s=", key);
    for (int i = 0; i < count; i++) fprintf(stream, i ? ",%" PRId64 : "%" PRId64, list[i]);
}

static void print_attributes(const struct node *node, FILE *stream) {
    static const char *const comparisons[] = {"<", "<=", "=="}, *const distributions[] = {"uniform", "normal"};
    const struct attributes *a = &node->attributes;
    switch (node->op) {
    case OP_INPUT:
        fprintf(stream, " \"%s\"%s", node->name, a->opaque ? " opaque" : "");
        break;
    case OP_CONSTANT:
        fprintf(stream, " %.9g", a->value);
        break;
    case OP_IOTA:
    case OP_CONCAT:
    case OP_ARGMAX:
        fprintf(stream, " axis=%d", a->axis);
        break;
    case OP_RANDOM:
        fprintf(stream, " %s stream=%" PRIu32, distributions[a->kind], a->stream);
        break;
    case OP_COMPARE:
        fprintf(stream, " %s", comparisons[a->kind]);
        break;
    case OP_PERMUTE:
        print_list(stream, "source", a->start, node->shape.rank);
        break;
    case OP_SLICE:
    case OP_PAD:
        print_list(stream, "start", a->start, node->shape.rank);
        print_list(stream, "step", a->step, node->shape.rank);
        break;
    case OP_REVERSE:
    case OP_REDUCE_SUM:
    case OP_REDUCE_MAX: {
        fprintf(stream, " axes=");
        const char *comma = "";
        for (int d = 0; d < MAX_RANK; d++)
            if (a->axes >> d & 1) fprintf(stream, "%s%d", comma, d), comma = ",";
        break;
    }
    case OP_AVERAGE_POOL:
    case OP_AVERAGE_POOL_TRANSPOSE:
        fprintf(stream, " window=%d", a->window);
        break;
    case OP_MATMUL:
        fprintf(stream, "%s%s", a->transpose_a ? " transpose_a" : "", a->transpose_b ? " transpose_b" : "");
        break;
    case OP_CONV:
    case OP_CONV_BACKWARD_DATA:
    case OP_CONV_BACKWARD_WEIGHT:
        fprintf(stream, " stride=%d padding=%d", a->stride, a->padding);
        break;
    default:
        break;
    }
}

void graph_print(const struct graph *graph, FILE *stream) {
    char shape[160];
    for (int i = 0; i < graph_count(graph); i++) {
        const struct node *node = graph->nodes.items[i];
        shape_print(node->shape, shape, sizeof shape);
        fprintf(stream, "%%%d = %s %s%s", i, op_info(node->op)->name, node->dtype == INT32 ? "int32 " : "", shape);
        for (int j = 0; j < node->input_count; j++) fprintf(stream, " %%%d", node->inputs[j]->index);
        print_attributes(node, stream);
        fputc('\n', stream);
    }
    for (size_t i = 0; i < graph->results.count; i++)
        fprintf(stream, "output \"%s\"%s = %%%d\n", graph->results.items[i].name,
                graph->results.items[i].opaque ? " opaque" : "", graph->results.items[i].node->index);
}

/* --- evaluation --- */

int graph_evaluate(const struct graph *graph, const double *const *inputs, double *const *outputs) {
    int status = RETORT_OK;
    int count = graph_count(graph), input = 0;
    struct arena arena;
    arena_init(&arena);
    double **values = NULL; /* of each node; the caller's array for an input */
    TRY(graph_status(graph));
    values = calloc((size_t)count + 1, sizeof *values);
    int *last_use = arena_array(&arena, (size_t)count, sizeof *last_use);
    const double **operands = NULL;
    int operand_limit = 0;
    for (int i = 0; i < count; i++)
        if (graph->nodes.items[i]->input_count > operand_limit) operand_limit = graph->nodes.items[i]->input_count;
    operands = arena_array(&arena, (size_t)operand_limit, sizeof *operands);
    if (!values || !last_use || !operands) RAISE(RETORT_ENOMEM, "out of memory for evaluating a graph");

    /* -1: nothing needs it; count: an output; otherwise the last node that reads it, after which it is freed. */
    for (int i = 0; i < count; i++) last_use[i] = -1;
    for (size_t i = 0; i < graph->results.count; i++) last_use[graph->results.items[i].node->index] = count;
    for (int i = count - 1; i >= 0; i--) {
        const struct node *node = graph->nodes.items[i];
        if (last_use[i] < 0) continue;
        for (int j = 0; j < node->input_count; j++)
            if (last_use[node->inputs[j]->index] < i) last_use[node->inputs[j]->index] = i;
    }
    for (int i = 0; i < count; i++) {
        const struct node *node = graph->nodes.items[i];
        if (node->op == OP_INPUT) values[i] = (double *)inputs[input++];
        if (node->op == OP_INPUT || last_use[i] < 0) continue;
        for (int j = 0; j < node->input_count; j++) operands[j] = values[node->inputs[j]->index];
        values[i] = malloc((size_t)shape_count(node->shape) * sizeof *values[i]);
        if (!values[i]) RAISE(RETORT_ENOMEM, "out of memory for evaluating a graph");
        op_info(node->op)->reference(node, operands, values[i]);
        for (int j = 0; j < node->input_count; j++) {
            const struct node *read = node->inputs[j];
            if (read->op == OP_INPUT || last_use[read->index] != i) continue;
            free(values[read->index]);
            values[read->index] = NULL;
        }
    }
    for (size_t i = 0; i < graph->results.count; i++) {
        const struct node *node = graph->results.items[i].node;
        memcpy(outputs[i], values[node->index], (size_t)shape_count(node->shape) * sizeof **outputs);
    }
done:
    for (int i = 0; values && i < count; i++)
        if (graph->nodes.items[i]->op != OP_INPUT) free(values[i]);
    free(values);
    arena_finish(&arena);
    return status;
}
