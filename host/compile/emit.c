/* The text of fused kernels: expressions over a row, evaluated backwards from what is wanted.
 *
 * emit() writes the statements that compute one node at one index and returns the variable that holds the result.
 * Statements that do not depend on the position inside the row go before the loops (`row`), the others into the loop
 * body (`body`); a memo keyed by node and index makes each value once per place. */
#include "compile/emit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int buffer_number(struct emitter *e, struct value *value) {
    for (int i = 0; i < e->buffer_count; i++)
        if (e->buffers[i] == value) return i;
    if (e->buffer_count == LAUNCH_MAX_BUFFERS) {
        e->failure = "a fused kernel has too many operands";
        return 0;
    }
    e->buffers[e->buffer_count] = value;
    return e->buffer_count++;
}

/* Only what is exactly zero is dropped from sums of index terms. */
static const char *index_sum(struct emitter *e, const char *a, const char *b) {
    if (strcmp(a, "0") == 0) return b;
    if (strcmp(b, "0") == 0) return a;
    return arena_printf(&e->arena, "%s + %s", a, b);
}

static const char *index_scaled(struct emitter *e, const char *a, int64_t factor) {
    if (strcmp(a, "0") == 0 || factor == 0) return "0";
    if (factor == 1) return a;
    return arena_printf(&e->arena, "(%s) * %lld", a, (long long)factor);
}

static const char *float_literal(struct emitter *e, double value) {
    if (isnan(value)) return "NAN";
    if (isinf(value) || fabs(value) > 3.402823466e38) return value > 0 ? "INFINITY" : "-INFINITY";
    const char *text = arena_printf(&e->arena, "%.9g", value);
    if (!text) return "0.0f";
    bool plain = !strpbrk(text, ".e");
    return arena_printf(&e->arena, value < 0 ? "(%s%sf)" : "%s%sf", text, plain ? ".0" : "");
}

static bool is_inner(const struct index *at) {
    return at->inner != 0;
}

static struct expr declare(struct emitter *e, const struct index *at, bool lane, bool is_int, const char *value) {
    bool lanes = lane && e->lanes > 1;
    char *name = arena_printf(&e->arena, "v%d", e->variables++);
    const char *type = is_int ? (lanes ? "intv" : "int") : (lanes ? "floatv" : "float");
    text_printf(is_inner(at) ? &e->body : &e->row, "        const %s %s = %s;\n", type, name ? name : "?",
                value ? value : "0");
    return (struct expr){.name = name ? name : "0", .lane = lanes, .is_int = is_int};
}

/* An int variable holding an index expression, so that texts stay short. */
static const char *declare_index(struct emitter *e, bool inner, const char *value) {
    char *name = arena_printf(&e->arena, "i%d", e->variables++);
    text_printf(inner ? &e->body : &e->row, "        const int %s = %s;\n", name ? name : "?", value ? value : "0");
    return name ? name : "0";
}

static const char *index_key(struct emitter *e, const struct index *at) {
    if (at->flat) return at->flat;
    const char *key = "";
    for (int d = 0; d < at->rank && key; d++) key = arena_printf(&e->arena, "%s,%s", key, at->at[d]);
    return key ? key : "";
}

/* A vector where one is wanted, from a scalar. */
const char *widened(struct emitter *e, struct expr x, bool lane) {
    if (!lane || x.lane || e->lanes == 1) return x.name;
    return arena_printf(&e->arena, x.is_int ? "((intv)(%s))" : "((floatv)(%s))", x.name);
}

static struct expr load(struct emitter *e, struct node *node, const struct index *at) {
    struct lowering *l = e->lowering;
    const int64_t *size = node->shape.size;
    int lanes = l->target.lanes;
    bool is_int = node->dtype == INT32;
    bool wants_blocked = !at->flat && at->lane == 1 && e->lanes > 1 && node->shape.rank == 4 && size[2] * size[3] > 1;
    enum layout layout = wants_blocked ? LAYOUT_BLOCKED : LAYOUT_PLAIN;
    if (l->blocked[node->index] && !l->plain[node->index]) layout = LAYOUT_BLOCKED;
    if (at->flat && layout == LAYOUT_BLOCKED) layout = LAYOUT_PLAIN;
    /* A few pixels are picked from the planes as they lie. */
    bool strided = wants_blocked && (l->plain[node->index] || e->grouping->role[node->index] == ROLE_VIEW)
                   && !l->blocked[node->index] && size[2] * size[3] <= 64 && size[1] % e->lanes == 0;
    if (strided) layout = LAYOUT_PLAIN;
    struct value *value = lowering_value(l, node, layout);
    if (!value) {
        e->failure = e->failure ? e->failure : "a value that is not in memory is read";
        return (struct expr){.name = "0.0f"};
    }
    int b = buffer_number(e, value);
    if (at->flat) {
        bool one = shape_count(node->shape) == 1, lane = !one && at->lane >= 0 && e->lanes > 1;
        const char *from = arena_printf(&e->arena, "b%d + %s", b, one ? "0" : at->flat);
        struct index place = *at;
        if (one) place.inner = 0;
        const char *text = arena_printf(&e->arena, lane ? "LOADV(%s)" : "*(%s)", from);
        if (lane && is_int) text = arena_printf(&e->arena, "LOADV_INT(%s)", from);
        return declare(e, &place, lane, is_int, text);
    }
    const char *address = "0";
    if (value->layout == LAYOUT_BLOCKED && lanes > 1) {
        int64_t blocks = (size[1] + lanes - 1) / lanes;
        bool lane = at->lane == 1 && e->lanes > 1;
        address = index_scaled(e, at->at[0], blocks * size[2] * size[3] * lanes);
        const char *block = lane ? "block" : arena_printf(&e->arena, "((%s) / %d)", at->at[1], lanes);
        if (strcmp(at->at[1], "0") == 0) block = "0";
        address = index_sum(e, address, index_scaled(e, block, size[2] * size[3] * lanes));
        address = index_sum(e, address, index_scaled(e, at->at[2], size[3] * lanes));
        address = index_sum(e, address, index_scaled(e, at->at[3], lanes));
        if (!lane && strcmp(at->at[1], "0") != 0)
            address = index_sum(e, address, arena_printf(&e->arena, "((%s) %% %d)", at->at[1], lanes));
        return declare(e, at, lane, is_int, arena_printf(&e->arena, lane ? "LOADV(b%d + %s)" : "b%d[%s]", b, address));
    }
    int64_t stride = 1;
    for (int d = node->shape.rank - 1; d >= 0; d--) {
        address = index_sum(e, index_scaled(e, at->at[d], stride), address);
        if (d == at->lane && stride != 1 && e->lanes > 1 && !strided) e->failure = "lanes run across strided memory";
        stride *= size[d];
    }
    bool lane = at->lane >= 0 && e->lanes > 1;
    if (lane && is_int) e->failure = "integer lanes are read";
    if (!lane) return declare(e, at, false, is_int, arena_printf(&e->arena, "b%d[%s]", b, address));
    int64_t channels = size[at->lane];
    if (strided)
        return declare(e, at, true, false,
                       arena_printf(&e->arena, "STRIDEDV(b%d + %s, %lld)", b, address, (long long)(size[2] * size[3])));
    if (channels % e->lanes == 0)
        return declare(e, at, true, false, arena_printf(&e->arena, "LOADV(b%d + %s)", b, address));
    return declare(e, at, true, false,
                   arena_printf(&e->arena, "load_part(b%d + %s, %lld - c0)", b, address, (long long)channels));
}

/* Whether this kernel computes the node as a product that can go into an addition. */
static bool is_product(const struct emitter *e, const struct node *node) {
    return node->op == OP_MULTIPLY && node->dtype == FLOAT32 && !is_loaded(e, node);
}

/* a b + c, signs given. */
static struct expr multiply_add(struct emitter *e, struct node *product, bool minus_product, struct node *term,
                                bool minus_term, const struct index *at) {
    struct expr a = emit(e, product->inputs[0], at), b = emit(e, product->inputs[1], at), c = emit(e, term, at);
    bool lane = a.lane || b.lane || c.lane;
    return declare(e, at, lane, false,
                   arena_printf(&e->arena, "FMA(%s%s, %s, %s%s)", minus_product ? "-" : "", widened(e, a, lane),
                                widened(e, b, lane), minus_term ? "-" : "", widened(e, c, lane)));
}

static struct expr elementwise(struct emitter *e, struct node *node, const struct index *at) {
    struct expr x[3] = {{0}};
    if (node->op == OP_ADD || node->op == OP_SUBTRACT) {
        bool minus = node->op == OP_SUBTRACT;
        struct node *a = node->inputs[0], *b = node->inputs[1];
        if (is_product(e, b) && a->op != OP_CONSTANT) return multiply_add(e, b, minus, a, false, at);
        if (is_product(e, a) && b->op != OP_CONSTANT) return multiply_add(e, a, false, b, minus, at);
    }
    bool lane = false;
    for (int k = 0; k < node->input_count; k++) {
        x[k] = emit(e, node->inputs[k], at);
        lane |= x[k].lane;
    }
    const char *a = widened(e, x[0], lane), *b = node->input_count > 1 ? widened(e, x[1], lane) : "";
    const char *c = node->input_count > 2 ? widened(e, x[2], lane) : "";
    bool is_int = node->dtype == INT32;
    const char *text = NULL;
    struct arena *arena = &e->arena;
    switch (node->op) {
    case OP_EXP:
        text = arena_printf(arena, "exp(%s)", a);
        break;
    case OP_LOG:
        text = arena_printf(arena, "log(%s)", a);
        break;
    case OP_SQRT:
        text = arena_printf(arena, "sqrt(%s)", a);
        break;
    case OP_RECIPROCAL:
        text = arena_printf(arena, "1.0f / %s", a);
        break;
    case OP_TANH:
        text = arena_printf(arena, "tanh(%s)", a);
        break;
    case OP_ERF:
        text = arena_printf(arena, "erf(%s)", a);
        break;
    case OP_SIN:
        text = arena_printf(arena, "sin(%s)", a);
        break;
    case OP_COS:
        text = arena_printf(arena, "cos(%s)", a);
        break;
    case OP_ADD:
        text = arena_printf(arena, "%s + %s", a, b);
        break;
    case OP_SUBTRACT:
        text = arena_printf(arena, "%s - %s", a, b);
        break;
    case OP_MULTIPLY:
        text = arena_printf(arena, "%s * %s", a, b);
        break;
    case OP_DIVIDE:
        text = arena_printf(arena, "%s / %s", a, b);
        break;
    case OP_CAST:
        if (x[0].is_int == is_int)
            text = a;
        else if (lane)
            text = arena_printf(arena, is_int ? "CONVERT_INTV(%s)" : "CONVERT_FLOATV(%s)", a);
        else
            text = arena_printf(arena, is_int ? "(int)%s" : "(float)%s", a);
        break;
    case OP_MAX: /* not fmax: a NaN must stay visible */
        text = arena_printf(arena, lane ? "select(%s, %s, %s < %s)" : "(%s, %s, %s < %s)", a, b, a, b);
        if (!lane) text = arena_printf(arena, "%s < %s ? %s : %s", a, b, b, a);
        break;
    case OP_COMPARE: {
        const char *sign = node->attributes.kind == COMPARE_LESS         ? "<"
                           : node->attributes.kind == COMPARE_LESS_EQUAL ? "<="
                                                                         : "==";
        text = arena_printf(arena, lane ? "select((floatv)(0.0f), (floatv)(1.0f), %s %s %s)" : "%s %s %s ? 1.0f : 0.0f",
                            a, sign, b);
        break;
    }
    case OP_SELECT:
        text = arena_printf(arena, lane ? "select(%s, %s, %s != 0.0f)" : "(%s, %s, %s)", c, b, a);
        if (!lane)
            text = arena_printf(arena, "%s != 0.0f ? %s : %s", a, b, c);
        else if (x[0].is_int)
            e->failure = "integer lanes are selected";
        break;
    default:
        e->failure = "not an elementwise operation";
    }
    return declare(e, at, lane, is_int, text);
}

/* `value` where the condition holds, else 0. */
static struct expr guarded(struct emitter *e, const struct index *at, const char *condition, struct expr value) {
    if (!condition) return value;
    const char *zero = value.lane ? "(floatv)(0.0f)" : value.is_int ? "0" : "0.0f";
    return declare(e, at, value.lane, value.is_int,
                   arena_printf(&e->arena, "(%s) ? %s : %s", condition, value.name, zero));
}

static struct expr index_map(struct emitter *e, struct node *node, const struct index *at) {
    struct node *from = node->inputs[0];
    struct index to = *at;
    to.rank = from->shape.rank;
    const struct attributes *attributes = &node->attributes;
    const char *condition = NULL;
    switch (node->op) {
    case OP_BROADCAST:
        for (int d = 0; d < to.rank; d++) {
            if (from->shape.size[d] == node->shape.size[d]) continue;
            to.at[d] = "0";
            to.inner &= ~(1u << d);
            if (to.lane == d) to.lane = -1;
        }
        return emit(e, from, &to);
    case OP_RESHAPE: { /* units only: the others are views */
        int i = 0;
        to.inner = 0;
        to.lane = -1;
        for (int d = 0; d < to.rank; d++) {
            to.at[d] = "0";
            if (from->shape.size[d] == 1) continue;
            while (node->shape.size[i] == 1) i++;
            to.at[d] = at->at[i];
            if (at->inner >> i & 1) to.inner |= 1u << d;
            if (at->lane == i) to.lane = d;
            i++;
        }
        return emit(e, from, &to);
    }
    case OP_PERMUTE:
        to.inner = 0;
        to.lane = -1;
        for (int d = 0; d < to.rank; d++) {
            int source = (int)attributes->start[d];
            to.at[source] = at->at[d];
            if (at->inner >> d & 1) to.inner |= 1u << source;
            if (at->lane == d) to.lane = source;
        }
        return emit(e, from, &to);
    case OP_SLICE:
        for (int d = 0; d < to.rank; d++) {
            if (attributes->start[d] == 0 && attributes->step[d] == 1) continue;
            const char *start = arena_printf(&e->arena, "%lld", (long long)attributes->start[d]);
            to.at[d] = index_sum(e, index_scaled(e, at->at[d], attributes->step[d]), start);
            to.at[d] = declare_index(e, at->inner >> d & 1, to.at[d]);
        }
        return emit(e, from, &to);
    case OP_PAD:
        for (int d = 0; d < to.rank; d++) {
            int64_t start = attributes->start[d], step = attributes->step[d], count = from->shape.size[d];
            if (start == 0 && step == 1 && count == node->shape.size[d]) continue;
            bool inner = at->inner >> d & 1;
            const char *shifted =
                declare_index(e, inner, arena_printf(&e->arena, "%s - %lld", at->at[d], (long long)start));
            const char *test =
                arena_printf(&e->arena, "%s >= 0 && %s < %lld", shifted, shifted, (long long)((count - 1) * step + 1));
            if (step != 1) test = arena_printf(&e->arena, "%s && %s %% %lld == 0", test, shifted, (long long)step);
            condition = condition ? arena_printf(&e->arena, "%s && %s", condition, test) : test;
            to.at[d] = declare_index(
                e, inner,
                arena_printf(&e->arena, "clamp(%s / %lld, 0, %lld)", shifted, (long long)step, (long long)(count - 1)));
        }
        return guarded(e, at, condition, emit(e, from, &to));
    case OP_REVERSE:
        for (int d = 0; d < to.rank; d++)
            if (attributes->axes >> d & 1)
                to.at[d] = declare_index(
                    e, at->inner >> d & 1,
                    arena_printf(&e->arena, "%lld - (%s)", (long long)node->shape.size[d] - 1, at->at[d]));
        return emit(e, from, &to);
    case OP_AVERAGE_POOL_TRANSPOSE: {
        int window = attributes->window;
        for (int d = to.rank - 2; d < to.rank; d++) {
            int64_t count = from->shape.size[d];
            bool inner = at->inner >> d & 1;
            if (count * window < node->shape.size[d]) {
                const char *test = arena_printf(&e->arena, "%s < %lld", at->at[d], (long long)(count * window));
                condition = condition ? arena_printf(&e->arena, "%s && %s", condition, test) : test;
                to.at[d] = declare_index(
                    e, inner, arena_printf(&e->arena, "min((%s) / %d, %lld)", at->at[d], window, (long long)count - 1));
            } else
                to.at[d] = declare_index(e, inner, arena_printf(&e->arena, "(%s) / %d", at->at[d], window));
        }
        struct expr value = emit(e, from, &to);
        value = declare(e, at, value.lane, false,
                        arena_printf(&e->arena, "%s * %s", value.name, float_literal(e, 1.0 / (window * window))));
        return guarded(e, at, condition, value);
    }
    case OP_GATHER_ROWS: {
        struct node *rows = node->inputs[1];
        struct index row = {.rank = 1, .at = {at->at[0]}, .inner = at->inner & 1, .lane = -1};
        struct expr number = emit(e, rows, &row);
        to.at[0] = declare_index(
            e, at->inner & 1,
            arena_printf(&e->arena, "clamp(%s, 0, %lld)", number.name, (long long)from->shape.size[0] - 1));
        return emit(e, from, &to);
    }
    case OP_ONE_HOT: {
        int last = node->shape.rank - 1;
        to.inner &= ~(1u << last);
        if (to.lane == last) {
            e->failure = "one-hot along lanes";
            to.lane = -1;
        }
        struct expr number = emit(e, from, &to);
        return declare(e, at, false, false,
                       arena_printf(&e->arena, "%s == %s ? 1.0f : 0.0f", number.name, at->at[last]));
    }
    case OP_CONCAT: {
        int axis = attributes->axis;
        bool inner = at->inner >> axis & 1;
        int64_t begin = 0;
        struct expr result = {0};
        for (int k = 0; k < node->input_count; k++) {
            int64_t count = node->inputs[k]->shape.size[axis];
            to.at[axis] = declare_index(e, inner,
                                        arena_printf(&e->arena, "clamp(%s - %lld, 0, %lld)", at->at[axis],
                                                     (long long)begin, (long long)count - 1));
            struct expr part = emit(e, node->inputs[k], &to);
            if (k == 0)
                result = part;
            else {
                bool lane = part.lane || result.lane;
                const char *a = widened(e, part, lane), *b = widened(e, result, lane);
                result = declare(e, at, lane, part.is_int,
                                 arena_printf(&e->arena, "%s >= %lld ? %s : %s", at->at[axis], (long long)begin, a, b));
            }
            begin += count;
        }
        return result;
    }
    default:
        e->failure = "not an index map";
        return (struct expr){.name = "0.0f"};
    }
}

static struct expr average_pool(struct emitter *e, struct node *node, const struct index *at) {
    int window = node->attributes.window, h = node->shape.rank - 2, w = h + 1;
    const char *sum = NULL;
    bool lane = false;
    for (int i = 0; i < window; i++)
        for (int j = 0; j < window; j++) {
            struct index to = *at;
            to.at[h] = arena_printf(&e->arena, "(%s) * %d + %d", at->at[h], window, i);
            to.at[w] = arena_printf(&e->arena, "(%s) * %d + %d", at->at[w], window, j);
            /* One output pixel may still be a whole window inside the row. */
            struct expr value = emit(e, node->inputs[0], &to);
            lane |= value.lane;
            sum = sum ? arena_printf(&e->arena, "%s + %s", sum, value.name) : value.name;
        }
    return declare(e, at, lane, false,
                   arena_printf(&e->arena, "(%s) * %s", sum, float_literal(e, 1.0 / (window * window))));
}

static struct expr random_number(struct emitter *e, struct node *node, const struct index *at) {
    struct value *seed = lowering_value(e->lowering, node->inputs[0], LAYOUT_PLAIN);
    if (!seed) {
        e->failure = "the seed is not in memory";
        return (struct expr){.name = "0.0f"};
    }
    int b = buffer_number(e, seed);
    const char *linear = at->flat;
    if (!linear) {
        int64_t stride = 1;
        linear = "0";
        for (int d = node->shape.rank - 1; d >= 0; d--) {
            linear = index_sum(e, index_scaled(e, at->at[d], stride), linear);
            stride *= node->shape.size[d];
        }
    }
    return declare(e, at, false, false,
                   arena_printf(&e->arena, "%s(b%d[0], b%d[1], %uu, %s)",
                                node->attributes.kind == RANDOM_NORMAL01 ? "random_normal" : "random_uniform", b, b,
                                node->attributes.stream, linear));
}

/* Whether a fused kernel of this group reads the node from memory. */
bool is_loaded(const struct emitter *e, const struct node *node) {
    const struct grouping *g = e->grouping;
    switch (g->role[node->index]) {
    case ROLE_INPUT:
    case ROLE_VIEW:
    case ROLE_LIBRARY:
    case ROLE_CONCAT:
        return true;
    case ROLE_MEMBER:
        return g->group_of[node->index] != e->group && !is_recomputed(g, node, e->group);
    default:
        return false;
    }
}

bool is_own_reduction(const struct emitter *e, const struct node *node) {
    return (node->op == OP_REDUCE_SUM || node->op == OP_REDUCE_MAX || node->op == OP_ARGMAX)
           && e->grouping->role[node->index] == ROLE_MEMBER && e->grouping->group_of[node->index] == e->group;
}

struct expr emit(struct emitter *e, struct node *node, const struct index *at) {
    if (e->failure) return (struct expr){.name = "0.0f"};
    if (is_own_reduction(e, node)) {
        struct expr *known = &e->reductions[node->index];
        if (!known->name && e->whole) *known = load(e, node, &(struct index){.flat = "0", .lane = -1});
        if (known->name) return *known;
        e->failure = "a reduction is read before it is known";
        return (struct expr){.name = "0.0f"};
    }
    if (node->op == OP_CONSTANT) {
        bool is_int = node->dtype == INT32;
        const char *text = is_int ? arena_printf(&e->arena, "%d", (int)node->attributes.value)
                                  : float_literal(e, node->attributes.value);
        return (struct expr){.name = text, .is_int = is_int};
    }
    bool inner = is_inner(at);
    const char *key = index_key(e, at);
    const struct memo *memo = inner ? e->body_memo.items : e->row_memo.items;
    size_t count = inner ? e->body_memo.count : e->row_memo.count;
    for (size_t i = count; i-- > 0;)
        if (memo[i].node == node && strcmp(memo[i].key, key) == 0) return memo[i].expr;
    struct expr result;
    if (is_loaded(e, node))
        result = load(e, node, at);
    else if (is_elementwise(node))
        result = elementwise(e, node, at);
    else if (node->op == OP_AVERAGE_POOL)
        result = average_pool(e, node, at);
    else if (node->op == OP_RANDOM)
        result = random_number(e, node, at);
    else if (node->op == OP_IOTA)
        result = declare(e, at, false, true, at->at[node->attributes.axis]);
    else if (at->flat) { /* broadcasts of one element and reshapes: flat_fits() lets nothing else through */
        struct index to = *at;
        if (shape_count(node->inputs[0]->shape) == 1) to = (struct index){.flat = "0", .lane = -1};
        result = emit(e, node->inputs[0], &to);
    } else
        result = index_map(e, node, at);
    struct memo entry = {.node = node, .key = key, .expr = result};
    if (!(inner ? array_push(&e->body_memo, entry) : array_push(&e->row_memo, entry))) e->failure = "out of memory";
    return result;
}

/* How many reductions of this group must be finished before the node can be evaluated. */
int level_of(struct emitter *e, const struct node *node) {
    int *level = &e->level[node->index];
    if (*level >= 0) return *level;
    *level = 0;
    if (is_loaded(e, node)) return 0;
    int highest = 0;
    for (int k = 0; k < node->input_count; k++) {
        int operand = level_of(e, node->inputs[k]);
        if (operand > highest) highest = operand;
    }
    return *level = highest + (is_own_reduction(e, node) ? 1 : 0);
}

/* --- stores --- */
static void store(struct emitter *e, struct text *text, struct node *node, const struct index *at, struct expr x) {
    struct lowering *l = e->lowering;
    struct value *value = l->plain[node->index] ? l->plain[node->index] : l->blocked[node->index];
    if (!value) {
        e->failure = "a result has no memory";
        return;
    }
    int b = buffer_number(e, value);
    const int64_t *size = node->shape.size;
    const char *address = "0";
    bool lane = e->lanes > 1 && at->lane >= 0;
    if (value->layout == LAYOUT_BLOCKED && l->target.lanes > 1) {
        int lanes = l->target.lanes;
        int64_t blocks = (size[1] + lanes - 1) / lanes;
        address = index_scaled(e, at->at[0], blocks * size[2] * size[3] * lanes);
        address = index_sum(e, address, index_scaled(e, "block", size[2] * size[3] * lanes));
        address = index_sum(e, address, index_scaled(e, at->at[2], size[3] * lanes));
        address = index_sum(e, address, index_scaled(e, at->at[3], lanes));
        if (size[1] % lanes)
            text_printf(text, "        STOREV(select((floatv)(0.0f), %s, live), b%d + %s);\n", widened(e, x, true), b,
                        address);
        else
            text_printf(text, "        STOREV(%s, b%d + %s);\n", widened(e, x, true), b, address);
        return;
    }
    int64_t stride = 1;
    for (int d = node->shape.rank - 1; d >= 0; d--) {
        address = index_sum(e, index_scaled(e, at->at[d], stride), address);
        stride *= size[d];
    }
    if (!lane)
        text_printf(text, "        b%d[%s] = %s;\n", b, address, x.name);
    else if (node->shape.rank == 4 && size[2] * size[3] > 1)
        text_printf(text, "        store_strided(%s, b%d + %s, %lld, min(%lld - c0, V));\n", widened(e, x, true), b,
                    address, (long long)(size[2] * size[3]), (long long)size[1]);
    else if (size[at->lane] % e->lanes == 0)
        text_printf(text, "        STOREV(%s, b%d + %s);\n", widened(e, x, true), b, address);
    else
        text_printf(text, "        store_part(%s, b%d + %s, %lld - c0);\n", widened(e, x, true), b, address,
                    (long long)size[at->lane]);
}

void emit_group_sums(struct emitter *e, struct text *text, const char *prefix, const int *numbers, int count) {
    enum { TOGETHER = 16 }; /* limits the local memory */
    for (int first = 0; first < count; first += TOGETHER) {
        int here = count - first < TOGETHER ? count - first : TOGETHER, v = e->variables++;
        if (here > e->scratch_rows) e->scratch_rows = here;
        text_printf(text, "        float sums%d[%d] = {", v, here);
        for (int i = 0; i < here; i++) text_printf(text, "%s%s%d", i ? ", " : "", prefix, numbers[first + i]);
        text_printf(text, "};\n        group_sums(%d, sums%d, scratch);\n", here, v);
        for (int i = 0; i < here; i++)
            text_printf(text, "        %s%d = sums%d[%d];\n", prefix, numbers[first + i], v, i);
    }
}

/* --- launches --- */
int finish_launch(struct emitter *e, const struct text *code, const char *head, size_t global, size_t local,
                  const char *what) {
    int status = RETORT_OK;
    struct lowering *l = e->lowering;
    struct text text;
    text_init(&text);
    if (e->failure) RAISE(RETORT_EUNSUPPORTED, "cannot compile %s: %s", what, e->failure);
    if (local) text_printf(&text, "__attribute__((reqd_work_group_size(%zu, 1, 1)))\n", local);
    text_append(&text, "kernel void NAME(");
    for (int b = 0; b < e->buffer_count; b++)
        text_printf(&text, "%sglobal %s%s *restrict b%d, ulong o%d", b ? ", " : "", b < e->output_count ? "" : "const ",
                    e->buffers[b]->is_int ? "int" : "float", b, b);
    text_append(&text, ") {\n");
    for (int b = 0; b < e->buffer_count; b++) text_printf(&text, "    b%d += o%d;\n", b, b);
    text_append(&text, head);
    text_append(&text, text_get(code));
    text_append(&text, "}\n");
    struct launch *launch = arena_alloc(&l->arena, sizeof *launch);
    if (!launch) RAISE(RETORT_ENOMEM, "out of memory compiling %s", what);
    *launch = (struct launch){.global = {global, 1, 1},
                              .local = {local, local ? 1 : 0, local ? 1 : 0},
                              .what = what,
                              .buffer_count = e->buffer_count,
                              .output_count = e->output_count,
                              .kernel = -1};
    launch->text = arena_copy_text(&l->arena, text_get(&text));
    launch->buffers = arena_array(&l->arena, (size_t)e->buffer_count + 1, sizeof *launch->buffers);
    if (l->arena.failed || text.failed || e->arena.failed || e->row.failed || e->body.failed || code->failed)
        RAISE(RETORT_ENOMEM, "out of memory compiling %s", what);
    memcpy(launch->buffers, e->buffers, (size_t)e->buffer_count * sizeof *launch->buffers);
    if (!array_push(&l->launches, launch)) RAISE(RETORT_ENOMEM, "out of memory compiling %s", what);
done:
    text_finish(&text);
    return status;
}

int emitter_init(struct emitter *e, struct lowering *lowering, int group, int lanes) {
    *e = (struct emitter){.lowering = lowering, .grouping = lowering->grouping, .group = group, .lanes = lanes};
    arena_init(&e->arena);
    int count = lowering->grouping->node_count;
    e->reductions = arena_array(&e->arena, (size_t)count, sizeof *e->reductions);
    e->level = arena_array(&e->arena, (size_t)count, sizeof *e->level);
    if (e->arena.failed) return error_set(RETORT_ENOMEM, "out of memory compiling a kernel");
    for (int i = 0; i < count; i++) e->level[i] = -1;
    return RETORT_OK;
}

void emitter_finish(struct emitter *e) {
    text_finish(&e->row);
    text_finish(&e->body);
    array_finish(&e->row_memo);
    array_finish(&e->body_memo);
    arena_finish(&e->arena);
}

void body_begin(struct emitter *e) {
    text_finish(&e->body);
    e->body_memo.count = 0;
}

/* --- row kernels --- */
struct row_plan {
    const struct group *group;
    uint32_t inner;
    bool cpu, lanes;
    int64_t rows;
};

static int64_t outer_size(const struct row_plan *plan, int d) {
    int64_t size = plan->group->size[d];
    return plan->lanes && d == 1 ? (size + plan->group->lanes - 1) / plan->group->lanes : size;
}

/* The index of the current element for a node: row variables outside, loop variables inside. */
static struct index row_index(const struct row_plan *plan, const struct shape *shape) {
    static const char *const outer[MAX_RANK] = {"r0", "r1", "r2", "r3", "r4", "r5"};
    static const char *const loop[MAX_RANK] = {"x0", "x1", "x2", "x3", "x4", "x5"};
    struct index at = {.rank = shape->rank, .lane = -1};
    for (int d = 0; d < shape->rank; d++) {
        if (shape->size[d] == 1)
            at.at[d] = "0";
        else if (plan->inner >> d & 1) {
            at.at[d] = loop[d];
            at.inner |= 1u << d;
        } else
            at.at[d] = outer[d];
        if (plan->lanes && d == 1) {
            at.at[d] = "c0";
            at.lane = 1;
        }
    }
    return at;
}

static bool same_inner(const struct shape *a, const struct shape *b, uint32_t inner) {
    for (int d = 0; d < a->rank; d++)
        if (inner >> d & 1 && a->size[d] != b->size[d]) return false;
    return true;
}

static bool has_inner(const struct shape *shape, uint32_t inner) {
    for (int d = 0; d < shape->rank; d++)
        if (inner >> d & 1 && shape->size[d] > 1) return true;
    return false;
}

/* One pass over the row: the reductions and stores of `nodes`, whose inner sizes are those of `shape`. */
static void emit_pass(struct emitter *e, const struct row_plan *plan, const struct shape *shape,
                      struct node *const *nodes, size_t count, struct text *code) {
    const char *vector = plan->lanes ? "floatv" : "float";
    struct text begin, part, end, after;
    text_init(&begin), text_init(&part), text_init(&end), text_init(&after);
    body_begin(e);
    int loops[MAX_RANK], loop_count = 0, sum_count = 0;
    int *sums = arena_array(&e->arena, count, sizeof *sums);
    if (!sums) return; /* finish_launch() sees it */
    for (int d = 0; d < shape->rank; d++)
        if (plan->inner >> d & 1 && shape->size[d] > 1) loops[loop_count++] = d;
    for (size_t k = 0; k < count; k++) {
        struct node *node = nodes[k];
        if (!is_own_reduction(e, node)) {
            struct index at = row_index(plan, &node->shape);
            store(e, &e->body, node, &at, emit(e, node, &at));
            continue;
        }
        struct node *operand = node->inputs[0];
        struct index at = row_index(plan, &operand->shape);
        bool product = node->op == OP_REDUCE_SUM && is_product(e, operand);
        struct expr x = emit(e, product ? operand->inputs[0] : operand, &at);
        struct expr y = product ? emit(e, operand->inputs[1], &at) : x;
        int v = e->variables++;
        const char *value = widened(e, x, plan->lanes);
        if (node->op == OP_REDUCE_SUM) {
            text_printf(&begin, "        %s total%d = 0.0f;\n", vector, v);
            text_printf(&part, "        %s sum%d = 0.0f;\n", vector, v);
            if (product)
                text_printf(&e->body, "        sum%d = FMA(%s, %s, sum%d);\n", v, value, widened(e, y, plan->lanes), v);
            else
                text_printf(&e->body, "        sum%d += %s;\n", v, value);
            text_printf(&end, "        total%d += sum%d;\n", v, v);
            sums[sum_count++] = v;
        } else if (node->op == OP_REDUCE_MAX) {
            text_printf(&begin, "        %s total%d = -INFINITY;\n", vector, v);
            text_printf(&e->body, "        total%d = fmax(total%d, %s);\n", v, v, value);
            if (!plan->cpu) text_printf(&after, "        total%d = group_max(total%d, scratch);\n", v, v);
        } else {
            int axis = node->attributes.axis;
            const char *position = at.at[axis];
            text_printf(&begin, "        float best%d = -INFINITY;\n        int total%d = 0;\n", v, v);
            if (!plan->cpu) text_printf(&begin, "        total%d = 0x7fffffff;\n", v);
            text_printf(&e->body,
                        "        if (%s > best%d) {\n            best%d = %s;\n            total%d = %s;\n        }\n",
                        value, v, v, value, v, position);
            if (!plan->cpu)
                text_printf(&after, "        total%d = group_argmax(best%d, total%d, scratch, places);\n", v, v, v);
        }
        e->reductions[node->index] = (struct expr){.name = arena_printf(&e->arena, "total%d", v),
                                                   .lane = plan->lanes && node->op != OP_ARGMAX,
                                                   .is_int = node->op == OP_ARGMAX};
    }
    if (!plan->cpu) emit_group_sums(e, &after, "total", sums, sum_count);
    /* emit() has added to `row` what this pass needs before its loops. */
    text_append(code, text_get(&e->row));
    text_finish(&e->row);
    text_append(code, text_get(&begin));
    if (!plan->cpu) {
        int64_t total = 1;
        for (int k = 0; k < loop_count; k++) total *= shape->size[loops[k]];
        text_printf(code, "        {\n%s", text_get(&part));
        text_printf(code, "        for (int x = lid; x < %lld; x += %d) {\n", (long long)total, FAMILY_GPU_LOCAL);
        int64_t stride = total;
        for (int k = 0; k < loop_count; k++) {
            stride /= shape->size[loops[k]];
            text_printf(code, "        const int x%d = x / %lld %% %lld;\n", loops[k], (long long)stride,
                        (long long)shape->size[loops[k]]);
        }
        text_printf(code, "%s        }\n%s        }\n%s", text_get(&e->body), text_get(&end), text_get(&after));
    } else {
        /* Sums are taken in short parts, which are then added: a long float32 sum loses digits. */
        for (int k = 0; k + 1 < loop_count; k++)
            text_printf(code, "        for (int x%d = 0; x%d < %lld; x%d++) {\n", loops[k], loops[k],
                        (long long)shape->size[loops[k]], loops[k]);
        int last = loop_count ? loops[loop_count - 1] : -1;
        int64_t length = loop_count ? shape->size[last] : 1;
        bool strips = part.length && length > 512;
        if (strips) text_printf(code, "        for (int strip = 0; strip < %lld; strip += 256) {\n", (long long)length);
        text_printf(code, "        {\n%s", text_get(&part));
        if (strips)
            text_printf(code, "        for (int x%d = strip; x%d < min(strip + 256, %lld); x%d++) {\n", last, last,
                        (long long)length, last);
        else if (loop_count)
            text_printf(code, "        for (int x%d = 0; x%d < %lld; x%d++) {\n", last, last, (long long)length, last);
        text_append(code, text_get(&e->body));
        if (loop_count) text_append(code, "        }\n");
        text_printf(code, "%s        }\n", text_get(&end));
        if (strips) text_append(code, "        }\n");
        for (int k = 0; k + 1 < loop_count; k++) text_append(code, "        }\n");
    }
    text_finish(&begin), text_finish(&part), text_finish(&end), text_finish(&after);
}

static int emit_rows(struct emitter *e, const struct group *group, uint32_t inner, struct node *const *nodes,
                     size_t node_count) {
    int status = RETORT_OK;
    struct lowering *l = e->lowering;
    struct row_plan plan = {
        .group = group, .inner = inner, .cpu = l->target.family == FAMILY_CPU, .lanes = e->lanes > 1, .rows = 1};
    struct node **pass = arena_array(&e->arena, node_count, sizeof *pass);
    bool *taken = arena_array(&e->arena, node_count, sizeof *taken);
    struct text code;
    text_init(&code);
    if (e->arena.failed) RAISE(RETORT_ENOMEM, "out of memory compiling a kernel");
    int phases = 0;
    for (size_t k = 0; k < node_count; k++) {
        int i = nodes[k]->index;
        if (l->grouping->stored[i]) buffer_number(e, l->plain[i] ? l->plain[i] : l->blocked[i]);
        int level = level_of(e, nodes[k]);
        if (level > phases) phases = level;
    }
    e->output_count = e->buffer_count;
    for (int phase = 0; phase <= phases; phase++) {
        for (;;) {
            const struct shape *shape = NULL;
            size_t count = 0;
            for (size_t k = 0; k < node_count; k++) {
                struct node *node = nodes[k];
                if (taken[k]) continue;
                bool reduces = is_own_reduction(e, node);
                const struct shape *own = reduces ? &node->inputs[0]->shape : &node->shape;
                int level = reduces ? level_of(e, node->inputs[0]) : level_of(e, node);
                if (!reduces && (!l->grouping->stored[node->index] || !has_inner(&node->shape, inner))) continue;
                if (level != phase || (shape && !same_inner(shape, own, inner))) continue;
                shape = own;
                pass[count++] = node;
                taken[k] = true;
            }
            if (!count) break;
            emit_pass(e, &plan, shape, pass, count, &code);
        }
    }
    /* What belongs to the row as a whole. */
    struct text stores;
    text_init(&stores);
    for (size_t k = 0; k < node_count; k++) {
        struct node *node = nodes[k];
        if (!l->grouping->stored[node->index] || (has_inner(&node->shape, inner) && !is_own_reduction(e, node)))
            continue;
        struct index at = row_index(&plan, &node->shape);
        store(e, &stores, node, &at, emit(e, node, &at));
    }
    text_append(&code, text_get(&e->row));
    if (stores.length)
        text_printf(&code, plan.cpu ? "%s" : "        if (lid == 0) {\n%s        }\n", text_get(&stores));
    text_finish(&stores);
    text_append(&code, "    }\n");

    struct text head;
    text_init(&head);
    for (int d = 0; d < group->rank; d++)
        if (!(inner >> d & 1)) plan.rows *= outer_size(&plan, d);
    size_t global = (size_t)plan.rows, local = 1;
    if (plan.cpu) {
        int64_t each = (plan.rows + 1023) / 1024;
        global = (size_t)((plan.rows + each - 1) / each);
        text_printf(&head, "    const int first = (int)get_global_id(0) * %lld;\n", (long long)each);
        text_printf(&head, "    for (int row = first; row < min(first + %lld, %lld); row++) {\n", (long long)each,
                    (long long)plan.rows);
    } else {
        local = FAMILY_GPU_LOCAL;
        global *= local;
        text_printf(&head, "    local float scratch[%d];\n    local int places[%d];\n",
                    FAMILY_GPU_LOCAL * (e->scratch_rows ? e->scratch_rows : 1), FAMILY_GPU_LOCAL);
        text_append(&head, "    const int lid = (int)get_local_id(0);\n    (void)scratch, (void)places;\n");
        text_append(&head, "    const int row = (int)get_group_id(0);\n    {\n");
    }
    int64_t stride = plan.rows;
    for (int d = 0; d < group->rank; d++) {
        if (inner >> d & 1) continue;
        stride /= outer_size(&plan, d);
        text_printf(&head, "        const int r%d = row / %lld %% %lld;\n", d, (long long)stride,
                    (long long)outer_size(&plan, d));
    }
    if (plan.lanes) {
        text_printf(&head, "        const int block = r1, c0 = block * %d;\n", e->lanes);
        if (group->size[1] % e->lanes)
            text_printf(&head, "        const intv live = c0 + LANES < %lld;\n", (long long)group->size[1]);
    }
    char size[160];
    shape_print(shape_make(group->rank, group->size), size, sizeof size);
    const char *what = arena_printf(&l->arena, "fused %zu of %s", node_count, size);
    status = finish_launch(e, &code, text_get(&head), global, local, what ? what : "fused");
    text_finish(&head);
done:
    text_finish(&code);
    return status;
}

int emit_group(struct lowering *lowering, const struct group *group) {
    struct emitter e;
    int number = (int)(group - lowering->grouping->groups);
    int status = emitter_init(&e, lowering, number, group->lanes);
    struct node *const *members = group->members.items;
    size_t count = group->members.count;
    if (status == RETORT_OK && whole_fits(&e, group))
        status = emit_whole(lowering, group);
    else if (status == RETORT_OK && !group->inner_known) {
        struct flat *flats = arena_array(&e.arena, count, sizeof *flats);
        size_t stored = 0;
        bool vector = true, flat = flats != NULL;
        for (size_t k = 0; k < count && flat; k++) {
            if (!lowering->grouping->stored[members[k]->index]) continue;
            flat = flat_fits(&e, members[k], shape_count(members[k]->shape), &vector);
            flats[stored++] = (struct flat){.node = members[k], .target = lowering->plain[members[k]->index]};
        }
        if (flat && stored)
            status = emit_flat(&e, flats, stored, vector);
        else
            status = emit_rows(&e, group, group->rank ? 1u << (group->rank - 1) : 0, members, count);
    } else if (status == RETORT_OK)
        status = emit_rows(&e, group, group->inner, members, count);
    emitter_finish(&e);
    return status;
}

/* Whether a node is read from one place at most, so that many such fit into a kernel. */
static bool is_simple(const struct emitter *e, const struct node *node) {
    while (!is_loaded(e, node) && (node->op == OP_RESHAPE || node->op == OP_BROADCAST)) node = node->inputs[0];
    return node->op == OP_CONSTANT || is_loaded(e, node);
}

static int emit_copy(struct lowering *lowering, struct node *node, struct value *target) {
    struct emitter e;
    int status = emitter_init(&e, lowering, -1, 1);
    bool vector = true;
    if (status < 0) {
    } else if (flat_fits(&e, node, shape_count(node->shape), &vector)) {
        status = emit_flat(&e, &(struct flat){.node = node, .target = target}, 1, vector);
    } else if (is_loaded(&e, node)) {
        status = error_set(RETORT_EUNSUPPORTED, "cannot copy a value in this layout");
    } else {
        /* As rows of the last dimension. The node's own memory stands aside while the target takes its place. */
        struct group group = {.rank = node->shape.rank, .lanes = 1};
        memcpy(group.size, node->shape.size, sizeof group.size);
        struct value *plain = lowering->plain[node->index];
        bool stored = lowering->grouping->stored[node->index];
        lowering->plain[node->index] = target;
        lowering->grouping->stored[node->index] = true;
        status = emit_rows(&e, &group, group.rank ? 1u << (group.rank - 1) : 0, &node, 1);
        lowering->plain[node->index] = plain;
        lowering->grouping->stored[node->index] = stored;
    }
    emitter_finish(&e);
    return status;
}

int emit_copies(struct lowering *lowering, struct node *const *nodes, struct value *const *targets, size_t count) {
    int status = RETORT_OK;
    struct emitter e;
    size_t together = 0;
    bool vector = true;
    TRY(emitter_init(&e, lowering, -1, 1));
    struct flat *flats = arena_array(&e.arena, count + 1, sizeof *flats);
    if (!flats) RAISE(RETORT_ENOMEM, "out of memory compiling a copy");
    for (size_t k = 0; k < count; k++) {
        bool lanes = true;
        if (is_simple(&e, nodes[k]) && flat_fits(&e, nodes[k], shape_count(nodes[k]->shape), &lanes)) {
            vector &= lanes;
            flats[together++] = (struct flat){.node = nodes[k], .target = targets[k]};
        } else
            TRY(emit_copy(lowering, nodes[k], targets[k]));
    }
    if (together) TRY(emit_flat(&e, flats, together, vector));
done:
    emitter_finish(&e);
    return status;
}
