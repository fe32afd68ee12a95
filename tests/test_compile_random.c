/* Programs at random from every operation, compiled for both kernel families and compared with the reference.
 *
 * A program grows step by step; each step is also done by the reference alone, in double, twice: once exactly and once
 * with operands disturbed by rounding-sized noise. How far the two tracks drift apart says what float32 can reach, and
 * is the measure of the comparison. Steps that are ill-conditioned or stand on the edge of a jump are not taken.
 *
 *     RETORT_RANDOM_PROGRAMS=COUNT[:FIRST]   other programs than the standard ones, and how many of them
 *     RETORT_RANDOM_PRINT=1                  prints graphs, launches and kernels of programs that fail
 */
#include "test.h"

#include "base/random.h"
#include "compile/executable.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ITEMS = 96, MOST_OUTPUTS = 24, GUARD = 64, BATCH = 20 };

/* Sums over a whole tensor of WHOLE elements or more are compiled otherwise (emit_flat.c). Every third program is
 * large: its tensors are about that size and up to MOST_ELEMENTS, those of the others are small. */
enum { WHOLE = 1 << 13, MOST_ELEMENTS = 40000, MOST_ELEMENTS_SMALL = 6000 };

struct item {
    struct node *node;
    double *exact, *disturbed;
    bool used;
};

struct program {
    uint64_t seed;
    struct random random;
    struct graph *graph;
    struct item items[MOST_ITEMS];
    int count;
    int64_t rows, channels[2], sides[2], columns; /* the sizes that shapes are made of */
    int64_t most_elements;                        /* of one tensor */
    int outputs[MOST_OUTPUTS], output_count;
    struct executable *executable;
    float *first_run[MOST_OUTPUTS];
};

static int64_t pick(struct program *p, int64_t bound) {
    return random_below(&p->random, (uint32_t)bound);
}

static struct shape shape_of(const struct program *p, int i) {
    return p->items[i].node->shape;
}

static bool is_int(const struct program *p, int i) {
    return p->items[i].node->dtype == INT32;
}

static double largest(const double *values, int64_t count) {
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(values[i]) <= most)) most = fabs(values[i]);
    return most;
}

static double apart(const double *a, const double *b, int64_t count) {
    double most = 0;
    for (int64_t i = 0; i < count; i++)
        if (!(fabs(a[i] - b[i]) <= most)) most = fabs(a[i] - b[i]);
    return most;
}

static int keep(struct program *p, struct node *node, double *exact, double *disturbed) {
    assert_ok(graph_status(p->graph));
    p->items[p->count] = (struct item){.node = node, .exact = exact, .disturbed = disturbed};
    return p->count++;
}

/* --- steps --- */
static int add_input(struct program *p, enum dtype dtype, struct shape shape, int64_t bound) {
    char name[16];
    int64_t count = shape_count(shape);
    if (p->count == MOST_ITEMS || count > p->most_elements) return -1;
    double *exact = calloc((size_t)count, sizeof *exact), *disturbed = calloc((size_t)count, sizeof *exact);
    for (int64_t i = 0; i < count; i++)
        exact[i] = disturbed[i] = bound ? (double)pick(p, bound) : (float)random_normal(&p->random);
    snprintf(name, sizeof name, "x%d", p->count);
    return keep(p, graph_input(p->graph, name, dtype, shape), exact, disturbed);
}

/* Operations that jump: both tracks must be far from the edge. And sums whose rounding the tracks do not show. */
static bool is_safe(const struct node *draft, const double *const *operands, const double *out) {
    const struct shape shape = draft->input_count ? draft->inputs[0]->shape : draft->shape;
    int64_t count = shape_count(shape);
    switch (draft->op) {
    case OP_COMPARE:
        if (draft->inputs[0]->dtype == INT32) return true;
        for (int64_t i = 0; i < count; i++)
            if (fabs(operands[0][i] - operands[1][i]) < 1e-3) return false;
        return true;
    case OP_SELECT: {
        enum op op = draft->inputs[0]->op;
        return draft->inputs[0]->dtype == INT32 || op == OP_COMPARE || op == OP_ONE_HOT || op == OP_INPUT;
    }
    case OP_CAST: {
        enum op op = draft->inputs[0]->op;
        return draft->dtype == FLOAT32 || draft->inputs[0]->dtype == INT32 || op == OP_COMPARE || op == OP_ONE_HOT;
    }
    case OP_ARGMAX: {
        int64_t length = shape.size[draft->attributes.axis], stride = 1;
        for (int d = draft->attributes.axis + 1; d < shape.rank; d++) stride *= shape.size[d];
        for (int64_t line = 0; line < count / length; line++) {
            const double *at = operands[0] + line / stride * stride * length + line % stride;
            for (int64_t k = 0; k < length; k++)
                if (k != (int64_t)out[line] && at[k * stride] > at[(int64_t)out[line] * stride] - 1e-3) return false;
        }
        return true;
    }
    case OP_REDUCE_SUM: /* equal numbers in a long row are all rounded the same way, which the noise does not show */
        if (count < WHOLE) return true;
        for (int64_t i = 1; i < count; i++)
            if (operands[0][i] != operands[0][0]) return true;
        return false;
    case OP_EIGH:
        for (int64_t k = 0; k + 1 < draft->shape.size[1]; k++)
            if (fabs(out[k]) - fabs(out[k + 1]) < 1e-2) return false;
        return true;
    case OP_LOG:
    case OP_SQRT:
        for (int64_t i = 0; i < count; i++)
            if (operands[0][i] < 0.05) return false;
        return true;
    case OP_RECIPROCAL:
    case OP_DIVIDE: {
        const double *below = operands[draft->op == OP_DIVIDE];
        for (int64_t i = 0; i < count; i++)
            if (fabs(below[i]) < 0.05) return false;
        return true;
    }
    case OP_GATHER_ROWS:
    case OP_SCATTER_ROWS: {
        int64_t rows = draft->op == OP_GATHER_ROWS ? shape.size[0] : draft->shape.size[0];
        for (int64_t i = 0; i < shape_count(draft->inputs[1]->shape); i++)
            if (operands[1][i] < 0 || operands[1][i] >= (double)rows) return false;
        return true;
    }
    default:
        return true;
    }
}

static bool makes_rounding(enum op op) {
    return op != OP_CAST && op != OP_COMPARE && op != OP_SELECT && op != OP_ARGMAX && op != OP_RANDOM && op != OP_IOTA;
}

/* Takes a step where it fits and is well-conditioned; returns the item, or -1. */
static int add_step(struct program *p, const struct node *given, int a, int b, int c) {
    struct node *nodes[3], copy = *given, *draft = &copy;
    const double *exact_in[3];
    double *disturbed_in[3] = {NULL};
    const int operands[3] = {a, b, c};
    if (p->count == MOST_ITEMS) return -1;
    copy.inputs = nodes;
    for (int k = 0; k < draft->input_count; k++) {
        if (operands[k] < 0) return -1;
        nodes[k] = p->items[operands[k]].node;
        exact_in[k] = p->items[operands[k]].exact;
    }
    if (op_info(draft->op)->infer(draft)) return -1;
    int64_t count = shape_count(draft->shape);
    if (count < 1 || count > p->most_elements) return -1;
    double *exact = calloc((size_t)count, sizeof *exact), *disturbed = calloc((size_t)count, sizeof *exact);
    for (int k = 0; k < draft->input_count; k++) {
        int64_t size = shape_count(nodes[k]->shape);
        disturbed_in[k] = calloc((size_t)size, sizeof **disturbed_in);
        bool noise = nodes[k]->dtype == FLOAT32 && makes_rounding(draft->op);
        for (int64_t i = 0; i < size; i++)
            disturbed_in[k][i] =
                p->items[operands[k]].disturbed[i] * (1 + (noise ? 3e-7 * random_normal(&p->random) : 0));
    }
    op_info(draft->op)->reference(draft, exact_in, exact);
    op_info(draft->op)->reference(draft, (const double *const *)disturbed_in, disturbed);
    double size = largest(exact, count), drift = apart(exact, disturbed, count);
    /* Float32 has neither the huge nor the tiny. */
    bool fits = size < 1e3 && !(size > 0 && size < 1e-20) && drift <= 1e-4 * size && is_safe(draft, exact_in, exact);
    for (int k = 0; k < draft->input_count; k++) free(disturbed_in[k]);
    if (!fits) {
        free(exact);
        free(disturbed);
        return -1;
    }
    for (int k = 0; k < draft->input_count; k++) p->items[operands[k]].used = true;
    struct node *built = node_rebuild(p->graph, draft, nodes);
    assert_ok(graph_status(p->graph));
    assert_true(shape_equal(built->shape, draft->shape) && built->dtype == draft->dtype);
    return keep(p, built, exact, disturbed);
}

static int unary(struct program *p, enum op op, int x) {
    return add_step(p, &(struct node){.op = op, .input_count = 1}, x, -1, -1);
}
static int binary(struct program *p, enum op op, int a, int b) {
    struct node draft = {.op = op, .input_count = 2};
    if (op == OP_COMPARE) draft.attributes.kind = (int)pick(p, 3);
    return add_step(p, &draft, a, b, -1);
}
static int told(struct program *p, enum op op, int x, struct shape shape) {
    return add_step(p, &(struct node){.op = op, .input_count = 1, .shape = shape}, x, -1, -1);
}
static int constant(struct program *p, double value, struct shape shape) {
    return add_step(p, &(struct node){.op = OP_CONSTANT, .shape = shape, .attributes.value = value}, -1, -1, -1);
}
static int cast(struct program *p, int x, enum dtype dtype) {
    return add_step(p, &(struct node){.op = OP_CAST, .input_count = 1, .dtype = dtype}, x, -1, -1);
}
static int reduce(struct program *p, enum op op, int x, uint32_t axes) {
    return add_step(p, &(struct node){.op = op, .input_count = 1, .attributes.axes = axes}, x, -1, -1);
}

/* An item, recent ones more often. */
static int any_item(struct program *p) {
    int64_t back = pick(p, 3) ? (p->count < 8 ? p->count : 8) : p->count;
    return p->count - 1 - (int)pick(p, back);
}

static int float_item(struct program *p) {
    for (int tries = 0; tries < 20; tries++) {
        int i = any_item(p);
        if (!is_int(p, i)) return i;
    }
    return -1;
}

static int item_of_rank(struct program *p, int rank) {
    for (int tries = 0; tries < 20; tries++) {
        int i = any_item(p);
        if (!is_int(p, i) && shape_of(p, i).rank == rank) return i;
    }
    return -1;
}

/* An item stretched, squeezed or found to have the shape and type of `like`. */
static int partner(struct program *p, int like) {
    struct shape shape = shape_of(p, like);
    for (int tries = 0; tries < 30; tries++) {
        int i = any_item(p);
        struct shape own = shape_of(p, i);
        if (is_int(p, i) != is_int(p, like)) continue;
        if (shape_equal(own, shape) && (i != like || tries > 20)) return i;
        bool stretches = own.rank == shape.rank;
        for (int d = 0; d < own.rank && stretches; d++) stretches = own.size[d] == 1 || own.size[d] == shape.size[d];
        if (stretches) return told(p, OP_BROADCAST, i, shape);
        if (own.rank == 1 && shape.rank > 1) { /* a vector along one dimension */
            int d = shape.rank == 4 ? 1 : shape.rank - 1;
            struct shape thin = {.rank = shape.rank};
            for (int k = 0; k < thin.rank; k++) thin.size[k] = 1;
            thin.size[d] = own.size[0];
            if (own.size[0] == shape.size[d]) return told(p, OP_BROADCAST, told(p, OP_RESHAPE, i, thin), shape);
        }
        if (own.rank == 0) {
            struct shape ones = {.rank = shape.rank};
            for (int k = 0; k < ones.rank; k++) ones.size[k] = 1;
            return told(p, OP_BROADCAST, told(p, OP_RESHAPE, i, ones), shape);
        }
    }
    return like;
}

static int positive(struct program *p, int x) {
    int squared = binary(p, OP_MULTIPLY, x, x);
    return squared < 0 ? -1 : binary(p, OP_ADD, squared, constant(p, 0.5, shape_of(p, x)));
}

static void step_unary(struct program *p) {
    static const enum op ops[] = {OP_EXP,  OP_LOG, OP_SQRT, OP_RECIPROCAL, OP_TANH,
                                  OP_TANH, OP_ERF, OP_SIN,  OP_COS,        OP_STOP_GRADIENT};
    enum op op = ops[pick(p, (int64_t)(sizeof ops / sizeof *ops))];
    int x = float_item(p);
    if (x < 0) return;
    if (op == OP_LOG || op == OP_SQRT || op == OP_RECIPROCAL)
        x = positive(p, x);
    else if (largest(p->items[x].exact, shape_count(shape_of(p, x))) > 4)
        x = unary(p, OP_TANH, x);
    if (x >= 0) unary(p, op, x);
}

static void step_binary(struct program *p) {
    static const enum op ops[] = {OP_ADD, OP_ADD, OP_SUBTRACT, OP_MULTIPLY, OP_MULTIPLY, OP_DIVIDE, OP_MAX, OP_COMPARE};
    enum op op = ops[pick(p, (int64_t)(sizeof ops / sizeof *ops))];
    int x = any_item(p), y = partner(p, x);
    if (y < 0) return;
    if (op == OP_DIVIDE) y = is_int(p, x) ? -1 : positive(p, y);
    if (y >= 0) binary(p, op, pick(p, 2) ? x : y, x == y || pick(p, 2) ? y : x);
}

static void step_select(struct program *p) {
    int x = any_item(p), y = partner(p, x);
    int condition = y < 0 ? -1 : binary(p, OP_COMPARE, x, y);
    if (condition < 0) {
        condition = add_input(p, pick(p, 2) ? INT32 : FLOAT32, shape_of(p, x), 2);
        y = partner(p, x);
    }
    add_step(p, &(struct node){.op = OP_SELECT, .input_count = 3}, condition, x, y);
}

static void step_cast(struct program *p) {
    int x = any_item(p);
    int y = cast(p, x, is_int(p, x) ? FLOAT32 : INT32);
    if (y >= 0 && !is_int(p, y) && pick(p, 2)) binary(p, OP_MULTIPLY, y, constant(p, 0.125, shape_of(p, y)));
}

static void step_reduce(struct program *p) {
    int x = float_item(p);
    if (x < 0) return;
    struct shape shape = shape_of(p, x);
    uint32_t axes = (uint32_t)pick(p, (int64_t)1 << shape.rank);
    static const uint32_t usual[] = {1 << 2 | 1 << 3, 1 << 0 | 1 << 2 | 1 << 3, 1 << 1, 1 << 1 | 1 << 2 | 1 << 3, 1};
    if (shape.rank == 4 && pick(p, 3)) axes = usual[pick(p, 5)];
    if (shape.rank == 2 && pick(p, 3)) axes = 1 << 1;
    int y = reduce(p, pick(p, 3) ? OP_REDUCE_SUM : OP_REDUCE_MAX, x, axes);
    if (y < 0) return;
    double scale = (double)shape_count(shape_of(p, y)) / (double)shape_count(shape);
    if (pick(p, 2)) y = binary(p, OP_MULTIPLY, y, constant(p, scale, shape_of(p, y)));
    if (y < 0 || !pick(p, 2)) return;
    int back = told(p, OP_BROADCAST, y, shape);
    if (back >= 0) binary(p, pick(p, 2) ? OP_SUBTRACT : OP_MULTIPLY, x, back);
}

/* Sums over a whole large tensor, and what is made of them: its mean square, or the deviation from a mean, whose own
 * mean square needs a second round of sums. The summands are small, as the sum has to be. */
static void step_whole(struct program *p) {
    int x = -1;
    for (int tries = 0; tries < 20 && x < 0; tries++) {
        x = float_item(p);
        if (x >= 0 && shape_count(shape_of(p, x)) < WHOLE) x = -1;
    }
    if (x < 0) return;
    int64_t count = shape_count(shape_of(p, x));
    /* Sums over images are split into sums by plane first; lines and matrices stay whole. */
    if (shape_of(p, x).rank == 4 && pick(p, 4)) x = told(p, OP_RESHAPE, x, pick(p, 2) ? SHAPE(count) : SHAPE(1, count));
    for (int64_t rounds = 1 + pick(p, 2); x >= 0 && rounds > 0; rounds--) {
        struct shape shape = shape_of(p, x);
        int y = pick(p, 2) ? binary(p, OP_MULTIPLY, x, pick(p, 2) ? x : partner(p, x)) : x;
        if (y >= 0) y = binary(p, OP_MULTIPLY, y, constant(p, 1.0 / (double)count, shape));
        int sum = y < 0 ? -1 : reduce(p, OP_REDUCE_SUM, y, (1u << shape.rank) - 1);
        x = sum < 0 || !pick(p, 3)
                ? -1
                : binary(p, pick(p, 2) ? OP_SUBTRACT : OP_MULTIPLY, x, told(p, OP_BROADCAST, sum, shape));
    }
}

static void step_argmax(struct program *p) {
    int x = float_item(p);
    if (x < 0 || shape_of(p, x).rank == 0) return;
    add_step(p, &(struct node){.op = OP_ARGMAX, .input_count = 1, .attributes.axis = (int)pick(p, shape_of(p, x).rank)},
             x, -1, -1);
}

/* Normalisation along rows, as networks and losses do it. */
static void step_norm(struct program *p) {
    int x = float_item(p);
    if (x < 0) return;
    struct shape shape = shape_of(p, x);
    uint32_t axes = shape.rank == 4 ? (pick(p, 3) ? 12u : 13u) : shape.rank ? 1u << (shape.rank - 1) : 0;
    int mean = reduce(p, OP_REDUCE_SUM, x, axes);
    if (mean < 0) return;
    double scale = (double)shape_count(shape_of(p, mean)) / (double)shape_count(shape);
    mean = binary(p, OP_MULTIPLY, mean, constant(p, scale, shape_of(p, mean)));
    if (mean < 0) return;
    int centred = binary(p, OP_SUBTRACT, x, told(p, OP_BROADCAST, mean, shape));
    if (centred < 0) return;
    int variance = reduce(p, OP_REDUCE_SUM, binary(p, OP_MULTIPLY, centred, centred), axes);
    if (variance < 0) return;
    variance = binary(p, OP_ADD, variance, constant(p, 0.1, shape_of(p, variance)));
    int factor = variance < 0 ? -1 : unary(p, OP_RECIPROCAL, unary(p, OP_SQRT, variance));
    if (factor >= 0) binary(p, OP_MULTIPLY, centred, told(p, OP_BROADCAST, factor, shape));
}

static void step_broadcast(struct program *p) {
    int x = any_item(p);
    struct shape shape = shape_of(p, x);
    for (int d = 0; d < shape.rank; d++)
        if (shape.size[d] == 1 && pick(p, 2))
            shape.size[d] = d == 0 ? p->rows : d == 1 ? p->channels[pick(p, 2)] : p->sides[pick(p, 2)];
    told(p, OP_BROADCAST, x, shape);
}

static void step_reshape(struct program *p) {
    int x = any_item(p);
    struct shape own = shape_of(p, x), shape = {.rank = 0};
    int64_t count = shape_count(own);
    switch (pick(p, 6)) {
    case 0: /* flat */
        shape = SHAPE(count);
        break;
    case 1: /* without ones */
        for (int d = 0; d < own.rank; d++)
            if (own.size[d] != 1) shape.size[shape.rank++] = own.size[d];
        break;
    case 2: { /* a one somewhere */
        int at = (int)pick(p, own.rank + 1);
        if (own.rank == MAX_RANK) return;
        for (int d = 0; d <= own.rank; d++) shape.size[d] = d == at ? 1 : own.size[d - (d > at)];
        shape.rank = own.rank + 1;
        break;
    }
    case 3: /* rows */
        if (own.rank < 2) return;
        shape = SHAPE(own.size[0], count / own.size[0]);
        break;
    case 4: /* images */
        if (own.rank == 4 || count % (p->channels[0] * p->sides[0])) return;
        shape = SHAPE(1, p->channels[0], count / (p->channels[0] * p->sides[0]), p->sides[0]);
        break;
    default: /* groups of channels */
        if (own.rank != 4 || own.size[1] % 2) return;
        shape = SHAPE(own.size[0], 2, own.size[1] / 2, own.size[2], own.size[3]);
        break;
    }
    told(p, OP_RESHAPE, x, shape);
}

static void step_permute(struct program *p) {
    int x = any_item(p), rank = shape_of(p, x).rank, source[MAX_RANK];
    struct node draft = {.op = OP_PERMUTE, .input_count = 1};
    for (int d = 0; d < rank; d++) {
        int place = (int)pick(p, d + 1);
        source[d] = source[place];
        source[place] = d;
    }
    for (int d = 0; d < rank; d++) draft.attributes.start[d] = source[d];
    add_step(p, &draft, x, -1, -1);
}

static void step_slice(struct program *p) {
    int x = any_item(p);
    struct node draft = {.op = OP_SLICE, .input_count = 1, .shape = shape_of(p, x)};
    int only = pick(p, 3) && draft.shape.rank ? (int)pick(p, draft.shape.rank) : -1;
    for (int d = 0; d < draft.shape.rank; d++) {
        int64_t size = draft.shape.size[d];
        draft.attributes.step[d] = 1;
        if ((only >= 0 && d != only) || (only < 0 && pick(p, 2))) continue;
        draft.attributes.start[d] = pick(p, size);
        if (pick(p, 3) == 0) draft.attributes.step[d] = 2;
        int64_t most = (size - 1 - draft.attributes.start[d]) / draft.attributes.step[d] + 1;
        draft.shape.size[d] = most - (pick(p, 2) ? pick(p, most) : 0);
    }
    add_step(p, &draft, x, -1, -1);
}

static void step_pad(struct program *p) {
    int x = any_item(p);
    struct node draft = {.op = OP_PAD, .input_count = 1, .shape = shape_of(p, x)};
    for (int d = 0; d < draft.shape.rank; d++) {
        draft.attributes.step[d] = 1;
        if (pick(p, 2)) continue;
        draft.attributes.start[d] = pick(p, 3);
        draft.attributes.step[d] = 1 + pick(p, 2);
        draft.shape.size[d] =
            draft.attributes.start[d] + (draft.shape.size[d] - 1) * draft.attributes.step[d] + 1 + pick(p, 3);
    }
    add_step(p, &draft, x, -1, -1);
}

static void step_reverse(struct program *p) {
    int x = any_item(p);
    struct node draft = {.op = OP_REVERSE, .input_count = 1};
    draft.attributes.axes = (uint32_t)pick(p, (int64_t)1 << shape_of(p, x).rank);
    add_step(p, &draft, x, -1, -1);
}

static void step_concat(struct program *p) {
    int parts[3], count = 1 + (int)pick(p, 3);
    parts[0] = any_item(p);
    if (shape_of(p, parts[0]).rank == 0) return;
    for (int k = 1; k < count; k++) {
        parts[k] = partner(p, parts[0]);
        if (parts[k] < 0) return;
    }
    struct node draft = {.op = OP_CONCAT, .input_count = count};
    draft.attributes.axis = pick(p, 2) ? 0 : (int)pick(p, shape_of(p, parts[0]).rank);
    add_step(p, &draft, parts[0], count > 1 ? parts[1] : -1, count > 2 ? parts[2] : -1);
}

static void step_pool(struct program *p) {
    int x = pick(p, 4) ? item_of_rank(p, 4) : float_item(p);
    if (x < 0 || shape_of(p, x).rank < 2) return;
    struct node draft = {.op = OP_AVERAGE_POOL, .input_count = 1, .attributes.window = 2 + (int)pick(p, 2)};
    if (pick(p, 2)) {
        draft.op = OP_AVERAGE_POOL_TRANSPOSE;
        draft.shape = shape_of(p, x);
        for (int d = draft.shape.rank - 2; d < draft.shape.rank; d++)
            draft.shape.size[d] = draft.shape.size[d] * draft.attributes.window + pick(p, 2);
    }
    add_step(p, &draft, x, -1, -1);
}

static void step_one_hot(struct program *p) {
    for (int tries = 0; tries < 20; tries++) {
        int x = any_item(p);
        if (!is_int(p, x)) continue;
        struct shape shape = shape_of(p, x);
        if (shape.rank == MAX_RANK) return;
        shape.size[shape.rank++] = 2 + pick(p, 5);
        told(p, OP_ONE_HOT, x, shape);
        return;
    }
}

static void step_iota(struct program *p) {
    struct shape shape = shape_of(p, any_item(p));
    if (shape.rank == 0) return;
    struct node draft = {.op = OP_IOTA, .shape = shape, .attributes.axis = (int)pick(p, shape.rank)};
    int x = add_step(p, &draft, -1, -1, -1);
    if (pick(p, 2)) cast(p, x, FLOAT32);
}

static void step_random(struct program *p) {
    int seed = add_input(p, INT32, SHAPE(2), 1000);
    const struct node reversed = {.op = OP_REVERSE, .input_count = 1, .attributes.axes = 1};
    if (pick(p, 2)) seed = binary(p, OP_ADD, seed, seed);
    if (pick(p, 2)) seed = add_step(p, &reversed, seed, -1, -1);
    struct node draft = {.op = OP_RANDOM, .input_count = 1, .shape = shape_of(p, any_item(p))};
    draft.attributes.kind = pick(p, 2) ? RANDOM_NORMAL01 : RANDOM_UNIFORM01;
    draft.attributes.stream = (uint32_t)pick(p, 9);
    add_step(p, &draft, seed, -1, -1);
}

static void step_matmul(struct program *p) {
    int a = item_of_rank(p, pick(p, 4) ? 2 : 3);
    if (a < 0) return;
    struct shape shape = shape_of(p, a);
    struct node draft = {.op = OP_MATMUL, .input_count = 2};
    bool ta = pick(p, 2), tb = pick(p, 2);
    draft.attributes.transpose_a = ta;
    draft.attributes.transpose_b = tb;
    int64_t inner = shape.size[ta ? shape.rank - 2 : shape.rank - 1];
    for (int tries = 0; tries < 10; tries++) {
        int b = item_of_rank(p, shape.rank);
        if (b >= 0 && add_step(p, &draft, a, b, -1) >= 0) return;
    }
    shape.size[shape.rank - (tb ? 1 : 2)] = inner;
    shape.size[shape.rank - (tb ? 2 : 1)] = p->columns;
    add_step(p, &draft, a, add_input(p, FLOAT32, shape, 0), -1);
}

static void step_conv(struct program *p) {
    int x = item_of_rank(p, 4);
    if (x < 0) return;
    struct shape shape = shape_of(p, x);
    struct node draft = {.input_count = 2};
    int64_t kernel = 1 + pick(p, 3), other = p->channels[pick(p, 2)];
    int padding = draft.attributes.padding = (int)pick(p, 2), stride = draft.attributes.stride = 1 + (int)pick(p, 2);
    struct shape y = SHAPE(shape.size[0], other, (shape.size[2] + 2 * padding - kernel) / stride + 1,
                           (shape.size[3] + 2 * padding - kernel) / stride + 1);
    if (shape.size[2] + 2 * padding < kernel || shape.size[3] + 2 * padding < kernel) return;
    switch (pick(p, 3)) {
    case 0:
        draft.op = OP_CONV;
        add_step(p, &draft, x, add_input(p, FLOAT32, SHAPE(other, shape.size[1], kernel, kernel), 0), -1);
        break;
    case 1: { /* x is the output's gradient */
        draft.op = OP_CONV_BACKWARD_DATA;
        draft.shape = SHAPE(shape.size[0], other, (shape.size[2] - 1) * stride + kernel - 2 * padding,
                            (shape.size[3] - 1) * stride + kernel - 2 * padding);
        if (draft.shape.size[2] < 1 || draft.shape.size[3] < 1) return;
        add_step(p, &draft, x, add_input(p, FLOAT32, SHAPE(shape.size[1], other, kernel, kernel), 0), -1);
        break;
    }
    default:
        draft.op = OP_CONV_BACKWARD_WEIGHT;
        draft.shape = SHAPE(other, shape.size[1], kernel, kernel);
        add_step(p, &draft, x, add_input(p, FLOAT32, y, 0), -1);
        break;
    }
}

static void step_rows(struct program *p) {
    int x = any_item(p);
    struct shape shape = shape_of(p, x);
    if (shape.rank == 0) return;
    bool gather = pick(p, 2) || is_int(p, x);
    struct node draft = {.op = gather ? OP_GATHER_ROWS : OP_SCATTER_ROWS, .input_count = 2};
    draft.shape = SHAPE(shape.size[0] + 2);
    int rows = add_input(p, INT32, SHAPE(gather ? 1 + pick(p, 5) : shape.size[0]), shape.size[0]);
    add_step(p, &draft, x, rows, -1);
}

static void step_sample(struct program *p) {
    int x = item_of_rank(p, 4);
    if (x < 0) return;
    struct node draft = {.op = pick(p, 2) ? OP_SAMPLE : OP_SAMPLE_TRANSPOSE, .input_count = 2};
    int map = add_input(p, FLOAT32, SHAPE(shape_of(p, x).size[0], 2, 3), 0);
    if (map >= 0 && pick(p, 2)) map = unary(p, OP_TANH, map);
    add_step(p, &draft, x, map, -1);
}

static void step_eigh(struct program *p) {
    int64_t k = 1 + pick(p, 4);
    int x = add_input(p, FLOAT32, SHAPE(k, k), 0);
    struct node transpose = {.op = OP_PERMUTE, .input_count = 1, .attributes.start = {1, 0}};
    int y = binary(p, OP_ADD, x, add_step(p, &transpose, x, -1, -1));
    int eigen = y < 0 ? -1 : unary(p, OP_EIGH, y);
    if (eigen < 0) return;
    struct node values = {
        .op = OP_SLICE, .input_count = 1, .shape = SHAPE(1, k), .attributes.step = {1, 1}}; /* signs are free */
    add_step(p, &values, eigen, -1, -1);
}

static void (*const steps[])(struct program *p) = {
    step_unary,   step_unary,   step_binary, step_binary, step_binary, step_binary, step_select,    step_cast,
    step_reduce,  step_reduce,  step_reduce, step_norm,   step_argmax, step_norm,   step_broadcast, step_reshape,
    step_reshape, step_permute, step_slice,  step_slice,  step_pad,    step_pad,    step_reverse,   step_concat,
    step_concat,  step_pool,    step_pool,   step_matmul, step_conv,   step_conv,   step_rows,      step_rows,
    step_sample,  step_one_hot, step_iota,   step_random, step_eigh};

static void make_program(struct program *p, uint64_t seed) {
    static const int64_t channels[] = {1, 2, 3, 5, 6, 16, 17, 20};
    *p = (struct program){.seed = seed, .random = random_begin(seed, RANDOM_TEST, 1)};
    assert_ok(graph_create(&p->graph));
    bool large = seed % 3 == 0;
    p->most_elements = large ? MOST_ELEMENTS : MOST_ELEMENTS_SMALL;
    p->rows = 1 + pick(p, 3);
    p->columns = 1 + (large ? WHOLE : 0) + pick(p, 33);
    for (int k = 0; k < 2; k++) {
        p->channels[k] = channels[pick(p, (int64_t)(sizeof channels / sizeof *channels))];
        p->sides[k] = 1 + pick(p, large ? 40 : 6);
    }
    if (large) p->sides[1] = (WHOLE + pick(p, WHOLE)) / (p->rows * p->channels[0] * p->sides[0]) + 1;
    const struct shape shapes[] = {SHAPE(p->rows, p->channels[0], p->sides[0], p->sides[1]),
                                   SHAPE(p->rows, p->channels[0], 1, 1),
                                   SHAPE(1, p->channels[0], 1, 1),
                                   SHAPE(p->channels[0]),
                                   SHAPE(p->rows, p->columns),
                                   SCALAR_SHAPE,
                                   SHAPE(p->rows, 1, p->sides[0], p->sides[1])};
    add_input(p, FLOAT32, shapes[0], 0);
    for (int k = 0; k < 3; k++) add_input(p, FLOAT32, shapes[pick(p, sizeof shapes / sizeof *shapes)], 0);
    if (pick(p, 2)) add_input(p, INT32, shapes[pick(p, sizeof shapes / sizeof *shapes)], 5);
    int64_t most = 8 + pick(p, 16);
    for (int64_t k = 0; k < most && p->count < MOST_ITEMS - 12; k++) {
        if (large && k % 4 == 0) step_whole(p);
        steps[pick(p, (int64_t)(sizeof steps / sizeof *steps))](p);
    }
    /* Results: what nothing reads, and a few more. */
    for (int i = p->count - 1; i >= 0 && p->output_count < MOST_OUTPUTS; i--) {
        const struct item *item = &p->items[i];
        char name[16];
        if ((item->used && pick(p, 6)) || item->node->op == OP_EIGH) continue;
        snprintf(name, sizeof name, "y%d", i);
        graph_output(p->graph, name, item->node);
        p->outputs[p->output_count++] = i;
    }
    assert_ok(graph_verify(p->graph));
}

static void finish_program(struct program *p) {
    for (int i = 0; i < p->count; i++) {
        free(p->items[i].exact);
        free(p->items[i].disturbed);
    }
    for (int k = 0; k < p->output_count; k++) free(p->first_run[k]);
    executable_destroy(p->executable);
    graph_destroy(p->graph);
}

/* --- running them --- */
static struct device *device;
static bool print_failures;

/* Whether an item is an input itself, not one that a step without effect has given back. */
static bool is_input(const struct program *p, int i) {
    const struct node *node = p->items[i].node;
    return node->op == OP_INPUT && strtol(node->name + 1, NULL, 10) == i;
}

/* Runs a program and says what is wrong, or NULL. The second time the results must be the same bit for bit, although
 * other programs have used the scratch memory in between. */
static const char *run_program(struct program *p) {
    static char words[256];
    struct device_buffer *buffers[MOST_ITEMS] = {NULL}, *results[MOST_OUTPUTS];
    char name[16];
    words[0] = 0;
    for (int i = 0; i < p->count; i++) {
        if (!is_input(p, i)) continue;
        size_t count = (size_t)shape_count(shape_of(p, i));
        float *data = malloc(count * 4);
        for (size_t k = 0; k < count; k++)
            if (is_int(p, i))
                ((int32_t *)data)[k] = (int32_t)p->items[i].exact[k];
            else
                data[k] = (float)p->items[i].exact[k];
        assert_ok(device_buffer_create(device, count * 4, "input", &buffers[i]));
        assert_ok(device_write(device, buffers[i], 0, count * 4, data));
        snprintf(name, sizeof name, "x%d", i);
        assert_ok(executable_bind(p->executable, name, buffers[i], 0));
        free(data);
    }
    for (int k = 0; k < p->output_count; k++) {
        size_t bytes = ((size_t)shape_count(shape_of(p, p->outputs[k])) + 2 * GUARD) * 4;
        float *guard = malloc(bytes);
        for (size_t i = 0; i < bytes / 4; i++) guard[i] = -12345.5f;
        assert_ok(device_buffer_create(device, bytes, "output", &results[k]));
        assert_ok(device_write(device, results[k], 0, bytes, guard));
        snprintf(name, sizeof name, "y%d", p->outputs[k]);
        assert_ok(executable_bind(p->executable, name, results[k], GUARD * 4));
        free(guard);
    }
    assert_ok(executable_enqueue(p->executable));
    for (int k = 0; k < p->output_count; k++) {
        const struct item *item = &p->items[p->outputs[k]];
        size_t count = (size_t)shape_count(item->node->shape), bytes = (count + 2 * GUARD) * 4;
        float *got = malloc(bytes);
        double *values = malloc(count * sizeof *values);
        assert_ok(device_read(device, results[k], 0, bytes, got));
        bool intact = true, same = !p->first_run[k] || memcmp(p->first_run[k], got, bytes) == 0;
        for (size_t i = 0; i < GUARD; i++) intact &= got[i] == -12345.5f && got[GUARD + count + i] == -12345.5f;
        for (size_t i = 0; i < count; i++)
            values[i] = item->node->dtype == INT32 ? ((const int32_t *)got)[GUARD + i] : got[GUARD + i];
        double error = apart(values, item->exact, (int64_t)count);
        double allowed =
            20 * apart(item->disturbed, item->exact, (int64_t)count) + 3e-6 * largest(item->exact, (int64_t)count);
        if (!(error <= allowed) || !intact || !same) {
            char shape[64];
            shape_print(item->node->shape, shape, sizeof shape);
            snprintf(words, sizeof words, "program %llu: y%d (%s %s): error %g, allowed %g%s%s",
                     (unsigned long long)p->seed, p->outputs[k], op_info(item->node->op)->name, shape, error, allowed,
                     intact ? "" : ", written outside", same ? "" : ", another result the second time");
        }
        free(values);
        if (p->first_run[k])
            free(got);
        else
            p->first_run[k] = got;
        device_buffer_destroy(results[k]);
    }
    for (int i = 0; i < p->count; i++) device_buffer_destroy(buffers[i]);
    return words[0] ? words : NULL;
}

/* Whether one of the program's launches computes partial sums of a whole tensor. */
static bool sums_whole(const struct program *p) {
    char *text = NULL;
    size_t size;
    FILE *stream = open_memstream(&text, &size);
    assert_non_null(stream);
    executable_print(p->executable, true, stream);
    fclose(stream);
    bool found = strstr(text, "partial sums") != NULL;
    free(text);
    return found;
}

/* A batch of programs shares a library: one build. Counts the programs that sum whole tensors. */
static int run_batch(enum family family, uint64_t first, int count, int *whole_count) {
    struct library *library;
    static struct program programs[BATCH];
    int failures = 0;
    assert_ok(library_create(device, family, &library));
    for (int i = 0; i < count; i++) {
        struct program *p = &programs[i];
        make_program(p, first + (uint64_t)i);
        if (executable_create(library, p->graph, "random program", &p->executable) >= 0) {
            *whole_count += sums_whole(p);
            continue;
        }
        failures++;
        print_message("program %llu: %s\n", (unsigned long long)p->seed, retort_error_message());
        if (print_failures) graph_print(p->graph, stderr);
    }
    assert_ok(library_build(library));
    for (int k = 0; k < 2 * count; k++) {
        struct program *p = &programs[k < count ? k : 2 * count - 1 - k];
        const char *words = p->executable ? run_program(p) : NULL;
        if (!words) continue;
        failures++;
        print_message("%s\n", words);
        if (!print_failures) continue;
        graph_print(p->graph, stderr);
        executable_print(p->executable, true, stderr);
    }
    for (int i = 0; i < count; i++) finish_program(&programs[i]);
    library_destroy(library);
    return failures;
}

static void run_family(enum family family, int standard) {
    const char *wanted = getenv("RETORT_RANDOM_PROGRAMS");
    int count = standard, failures = 0, whole_count = 0;
    unsigned long long first = 1;
    if (wanted) sscanf(wanted, "%d:%llu", &count, &first);
    print_failures = getenv("RETORT_RANDOM_PRINT") != NULL;
    for (int done = 0; done < count; done += BATCH)
        failures +=
            run_batch(family, first + (uint64_t)done, count - done < BATCH ? count - done : BATCH, &whole_count);
    if (wanted) print_message("%d of %d programs sum whole tensors\n", whole_count, count);
    assert_int_equal(failures, 0);
    if (!wanted) assert_true(whole_count > 0);
}

static void test_cpu_family(void **state) {
    (void)state;
    run_family(FAMILY_CPU, TEST_SMALL ? 6 : 12);
}

static void test_gpu_family(void **state) {
    (void)state;
    run_family(FAMILY_GPU, 6);
}

int main(void) {
    if (device_open(TEST_DEVICE, &device) < 0) {
        printf("1..0 # SKIP no OpenCL CPU device: %s\n", retort_error_message());
        return 0;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cpu_family), cmocka_unit_test(test_gpu_family)};
    int failed = cmocka_run_group_tests_name("compile, programs at random", tests, NULL, NULL);
    device_close(device);
    return failed;
}
