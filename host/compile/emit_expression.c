/* Expressions of fused kernels, evaluated backwards from what is wanted.
 *
 * emit() writes the statements that compute one node at one index and returns the variable that holds the result.
 * Statements that do not depend on the position inside the row go before the loops (`row`), the others into the loop
 * body (`body`); a memo keyed by node and index makes each value once per place. */
#include "compile/emit.h"

#include "compile/integer.h"
#include "compile/roles.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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
    const char *type = is_int ? (lanes ? e->vector->int_type : "int") : (lanes ? e->vector->type : "float");
    text_printf(is_inner(at) ? &e->body : &e->row, "        const %s %s = %s;\n", type, name ? name : "?",
                value ? value : "0");
    return (struct expr){.name = name ? name : "0", .lane = lanes, .is_int = is_int};
}

/* An int variable holding an index expression, so that texts stay short. */
static const char *declare_index(struct emitter *e, bool inner, const char *value) {
    const bool holds = e->kernel->held > 0;
    for (size_t i = 0; i < e->row_memo.count && holds && !inner && value; i++)
        if (!e->row_memo.items[i].node && strcmp(e->row_memo.items[i].key, value) == 0)
            return e->row_memo.items[i].expr.name; /* so that places in memory that are the same have the same key */
    char *name = arena_printf(&e->arena, inner && holds ? "j%d" : "i%d", e->variables++);
    text_printf(inner ? &e->body : &e->row, "        const int %s = %s;\n", name ? name : "?", value ? value : "0");
    struct memo entry = {.key = value, .expr = {.name = name, .is_int = true}};
    if (holds && !inner && (!name || !value || !array_push(&e->row_memo, entry))) e->failure = "out of memory";
    return name ? name : "0";
}

static const char *index_key(struct emitter *e, const struct index *at) {
    if (at->flat) return at->flat;
    const char *key = "";
    for (int d = 0; d < at->rank && key; d++) key = arena_printf(&e->arena, "%s,%s", key, at->at[d]);
    return key ? key : "";
}

const char *widened(struct emitter *e, struct expr x, bool lane) {
    if (!lane || x.lane || e->lanes == 1) return x.name;
    return arena_printf(&e->arena, "((%s)(%s))", x.is_int ? e->vector->int_type : e->vector->type, x.name);
}

/* The element at an address of a value in parts, or four from there on: the sums of theirs. */
static const char *sum_at(struct emitter *e, const struct value *value, int b, const char *address, bool lane) {
    return arena_printf(&e->arena, "%s(b%d + %s, %zu, %d)", lane ? "load_parts4" : "load_parts", b, address,
                        value->floats / (size_t)value->parts, value->parts);
}

/* Notes a blocked tensor that the loop body reads, if each row is one plane of it. */
static void note_plane(struct emitter *e, const struct shape *shape, int buffer) {
    const struct step *step = e->step;
    const uint32_t plane_dimensions = 1 << 2 | 1 << 3;
    if (step->inner != plane_dimensions || shape->size[0] != step->rows.size[0] || shape->size[1] != step->rows.size[1])
        return;
    for (size_t i = 0; i < e->planes.count; i++)
        if (e->planes.items[i].buffer == buffer) return;
    struct plane plane = {buffer, shape->size[2] * shape->size[3] * e->lanes};
    if (!array_push(&e->planes, plane)) e->failure = "out of memory";
}

static struct expr load(struct emitter *e, struct node *node, const struct index *at) {
    const int64_t *size = node->shape.size;
    int lanes = e->target->lanes;
    bool is_int = node->dtype == INT32;
    bool vector = !at->flat && at->lane == 1 && e->lanes > 1 && node->shape.rank == 4 && size[2] * size[3] > 1;
    struct value *value = step_value(e->step, node, vector ? LAYOUT_BLOCKED : LAYOUT_PLAIN);
    if (!value) value = step_result(e->step, node); /* a sum that an earlier launch of this step has finished */
    if (!value) {
        e->failure = e->failure ? e->failure : "a value that is not in memory is read";
        return (struct expr){.name = "0.0f"};
    }
    bool strided = vector && value->layout == LAYOUT_PLAIN;
    int b = buffer_number(e, value);
    if (at->flat) {
        bool one = shape_count(node->shape) == 1, lane = !one && at->lane >= 0 && e->lanes > 1;
        const char *from = arena_printf(&e->arena, "b%d + %s", b, one ? "0" : at->flat);
        struct index place = *at;
        if (one) place.inner = 0;
        const char *text = arena_printf(&e->arena, "*(%s)", from);
        if (lane) text = arena_printf(&e->arena, "%s(%s)", is_int ? e->vector->load_int : e->vector->load, from);
        if (value->parts) text = sum_at(e, value, b, one ? "0" : at->flat, lane);
        return declare(e, &place, lane, is_int, text);
    }
    const char *address = "0";
    if (value->layout == LAYOUT_BLOCKED) {
        int64_t blocks = divide_up(size[1], lanes);
        bool lane = at->lane == 1 && e->lanes > 1;
        if (lane && is_inner(at)) note_plane(e, &node->shape, b);
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
    if (value->parts) return declare(e, at, false, false, sum_at(e, value, b, address, false));
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

/* Keeps what has been loaded for the phases to come, where the key says which element it is in those too: the variables
 * of other indices (declare_index()) are those of one loop. */
static struct expr hold(struct emitter *e, const struct node *node, const struct index *at, struct expr x) {
    const char *key = index_key(e, at);
    if (!e->kernel->held || !is_inner(at) || strchr(key, 'j')) return x;
    int v = e->variables++;
    text_printf(&e->held, "        %s held%d[%d];\n", x.is_int ? "int" : "float", v, e->kernel->held);
    text_printf(&e->body, "        held%d[e] = %s;\n", v, x.name);
    struct memo entry = {.node = node, .key = key, .expr = x};
    entry.expr.name = arena_printf(&e->arena, "held%d[e]", v);
    if (!entry.expr.name || !array_push(&e->held_memo, entry)) e->failure = "out of memory";
    return x;
}

bool is_product(const struct emitter *e, const struct node *node) {
    return node->op == OP_MULTIPLY && node->dtype == FLOAT32 && !is_loaded(e->grouping, e->step->group, node);
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
            text = arena_printf(arena, "%s(%s)", is_int ? e->vector->to_int : e->vector->to_float, a);
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
        text = arena_printf(arena, "%s %s %s", a, sign, b);
        if (lane)
            text = arena_printf(arena, "select((%s)(0.0f), (%s)(1.0f), %s)", e->vector->type, e->vector->type, text);
        else
            text = arena_printf(arena, "%s ? 1.0f : 0.0f", text);
        break;
    }
    case OP_SELECT: {
        const char *zero = x[0].is_int ? "0" : "0.0f";
        if (lane)
            text = arena_printf(arena, "select(%s, %s, %s != %s)", c, b, a, zero);
        else
            text = arena_printf(arena, "%s != %s ? %s : %s", a, zero, b, c);
        break;
    }
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

/* What an index of a window's element is made of; NULL: it is none. */
static const struct window_element *find_element(const struct emitter *e, const char *at) {
    for (size_t i = 0; i < e->window_elements.count; i++)
        if (strcmp(e->window_elements.items[i].text, at) == 0) return &e->window_elements.items[i];
    return NULL;
}

const char *window_element(struct emitter *e, const char *place, int window, int element) {
    const char *text = arena_printf(&e->arena, "(%s) * %d + %d", place, window, element);
    struct window_element fresh = {text, place, window, element};
    if (!text || (!find_element(e, text) && !array_push(&e->window_elements, fresh))) e->failure = "out of memory";
    return text ? text : "0";
}

/* The variable that says the place of a window of so many elements, from the index of one of them. NULL: it is none, or
 * there is but one place. */
static const char *window_place(const struct emitter *e, const char *at, int window) {
    const struct window_element *known = e->kernel->held ? find_element(e, at) : NULL;
    return known && known->window == window && strcmp(known->place, "0") != 0 ? known->place : NULL;
}

/* The number of an element among all of its node, in their order. */
static const char *linear_index(struct emitter *e, const struct node *node, const struct index *at) {
    const char *linear = "0";
    int64_t stride = 1;
    for (int d = node->shape.rank - 1; d >= 0; d--) {
        linear = index_sum(e, index_scaled(e, at->at[d], stride), linear);
        stride *= node->shape.size[d];
    }
    return linear;
}

static struct expr index_map(struct emitter *e, struct node *node, const struct index *at) {
    struct node *from = node->inputs[0];
    struct index to = *at;
    to.rank = from->shape.rank;
    to.lane = operand_lane(node, 0, at->lane);
    const struct attributes *attributes = &node->attributes;
    const char *condition = NULL;
    switch (node->op) {
    case OP_BROADCAST:
        for (int d = 0; d < to.rank; d++) {
            if (from->shape.size[d] == node->shape.size[d]) continue;
            to.at[d] = "0";
            to.inner &= ~(1u << d);
        }
        return emit(e, from, &to);
    case OP_RESHAPE: { /* mostly only dimensions of size 1 come or go; or what is read goes by the element's number */
        int i = 0;
        if (!is_unit_reshape(node))
            return emit(e, from, &(struct index){.flat = linear_index(e, node, at), .inner = at->inner, .lane = -1});
        to.inner = 0;
        for (int d = 0; d < to.rank; d++) {
            to.at[d] = "0";
            if (from->shape.size[d] == 1) continue;
            while (node->shape.size[i] == 1) i++;
            to.at[d] = at->at[i];
            if (at->inner >> i & 1) to.inner |= 1u << d;
            i++;
        }
        return emit(e, from, &to);
    }
    case OP_PERMUTE:
        to.inner = 0;
        for (int d = 0; d < to.rank; d++) {
            int source = (int)attributes->start[d];
            to.at[source] = at->at[d];
            if (at->inner >> d & 1) to.inner |= 1u << source;
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
            const char *place = window_place(e, at->at[d], window);
            if (place) {
                to.at[d] = place;
                continue;
            }
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
        if (at->lane == last) e->failure = "one-hot along lanes";
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
            to.at[h] = window_element(e, at->at[h], window, i);
            to.at[w] = window_element(e, at->at[w], window, j);
            struct expr value = emit(e, node->inputs[0], &to);
            lane |= value.lane;
            sum = sum ? arena_printf(&e->arena, "%s + %s", sum, value.name) : value.name;
        }
    return declare(e, at, lane, false,
                   arena_printf(&e->arena, "(%s) * %s", sum, float_literal(e, 1.0 / (window * window))));
}

/* What has been made of a node at a place, or (node NULL) under a key alone; NULL: nothing. */
static const struct expr *recall(const struct emitter *e, const struct node *node, bool inner, const char *key) {
    const struct memo *memo = inner ? e->body_memo.items : e->row_memo.items;
    for (size_t i = inner ? e->body_memo.count : e->row_memo.count; i-- > 0;)
        if (memo[i].node == node && strcmp(memo[i].key, key) == 0) return &memo[i].expr;
    return NULL;
}

static struct expr remember(struct emitter *e, const struct node *node, bool inner, const char *key, struct expr x) {
    struct memo entry = {.node = node, .key = key, .expr = x};
    if (!key || !(inner ? array_push(&e->body_memo, entry) : array_push(&e->row_memo, entry)))
        e->failure = "out of memory";
    return x;
}

/* --- convolutions of few channels --- */

/* Where a tap reads along one dimension: an index inside the image, and a condition for what it reads to count. */
struct tap {
    const char *at, *inside; /* inside NULL: always */
};

/* The tap `shift` elements on from `at`. Neighbouring windows' taps meet: "(x3) * 2 + 1" and 1 on is "(x3) * 2" and 2
 * on, and is written once. */
static struct tap tap_along(struct emitter *e, const char *at, bool inner, int64_t shift, int64_t size, bool same) {
    const struct window_element *window = find_element(e, at);
    struct index place = {.inner = inner};
    if (window) {
        shift += window->element;
        at = arena_printf(&e->arena, "(%s) * %d", window->place, window->window);
    }
    at = at && shift ? arena_printf(&e->arena, "%s + %lld", at, (long long)shift) : at;
    if (!at || (same && shift >= 0 && shift < (window ? window->window : 1))) return (struct tap){.at = at ? at : "0"};
    const char *at_key = arena_printf(&e->arena, "%s of %lld", at, (long long)size);
    const char *inside_key = arena_printf(&e->arena, "%s in %lld", at, (long long)size);
    if (!at_key || !inside_key) return (struct tap){.at = "0"}; /* add_launch() sees it */
    const struct expr *known = recall(e, NULL, inner, at_key), *within = recall(e, NULL, inner, inside_key);
    if (known && within) return (struct tap){known->name, within->name};
    const char *test = arena_printf(&e->arena, "(uint)(%s) < %lldu", at, (long long)size);
    const char *kept = arena_printf(&e->arena, "clamp(%s, 0, %lld)", at, (long long)size - 1);
    struct expr inside = remember(e, NULL, inner, inside_key, declare(e, &place, false, true, test));
    struct expr clamped = {.name = declare_index(e, inner, kept), .is_int = true};
    return (struct tap){remember(e, NULL, inner, at_key, clamped).name, inside.name};
}

/* The element of the image that a tap reads, 0 outside of it. */
static const char *tap_value(struct emitter *e, struct node *image, const struct index *at, struct tap y,
                             struct tap x) {
    struct expr value = emit(e, image, at);
    if (!y.inside && !x.inside) return value.name;
    const char *key = arena_printf(&e->arena, "%s inside", index_key(e, at));
    const struct expr *known = key ? recall(e, image, is_inner(at), key) : NULL;
    if (known) return known->name;
    const char *both = y.inside && x.inside ? " && " : "";
    const char *text = arena_printf(&e->arena, "%s%s%s ? %s : 0.0f", y.inside ? y.inside : "", both,
                                    x.inside ? x.inside : "", value.name);
    return remember(e, image, is_inner(at), key, declare(e, at, false, false, text)).name;
}

/* The sum over (tap, channel), as the product of cl/product_gpu.cl takes it. */
static struct expr convolution(struct emitter *e, struct node *node, const struct index *at) {
    struct node *image = node->inputs[0], *weights = node->inputs[1];
    const int64_t *in = image->shape.size, *w = weights->shape.size, *out = node->shape.size;
    const int padding = node->attributes.padding;
    const char *sum = NULL;
    for (int tap = 0; tap < w[2] * w[3]; tap++) {
        int64_t row = tap / w[3], column = tap % w[3];
        struct tap y = tap_along(e, at->at[2], at->inner >> 2 & 1, row - padding, in[2], in[2] == out[2]);
        struct tap x = tap_along(e, at->at[3], at->inner >> 3 & 1, column - padding, in[3], in[3] == out[3]);
        for (int c = 0; c < w[1]; c++) {
            const char *channel = arena_printf(&e->arena, "%d", c);
            struct index from = {.rank = 4, .at = {at->at[0], channel, y.at, x.at}, .inner = at->inner, .lane = -1};
            struct index by = {.rank = 4, .at = {at->at[1], channel}, .inner = at->inner >> 1 & 1, .lane = -1};
            by.at[2] = arena_printf(&e->arena, "%lld", (long long)row);
            by.at[3] = arena_printf(&e->arena, "%lld", (long long)column);
            if (!channel || !by.at[2] || !by.at[3]) return (struct expr){.name = "0.0f"};
            from.inner &= ~2u;
            const char *a = tap_value(e, image, &from, y, x), *b = emit(e, weights, &by).name;
            sum =
                sum ? arena_printf(&e->arena, "FMA(%s, %s, %s)", a, b, sum) : arena_printf(&e->arena, "%s * %s", a, b);
        }
    }
    return declare(e, at, false, false, sum);
}

static struct expr random_number(struct emitter *e, struct node *node, const struct index *at) {
    struct value *seed = step_value(e->step, node->inputs[0], LAYOUT_PLAIN);
    if (!seed) {
        e->failure = "the seed is not in memory";
        return (struct expr){.name = "0.0f"};
    }
    int b = buffer_number(e, seed);
    const char *linear = at->flat ? at->flat : linear_index(e, node, at);
    /* The random functions of cl/fused.cl return vectors only. */
    bool lane = at->flat && at->lane >= 0 && e->lanes > 1;
    return declare(
        e, at, lane, false,
        arena_printf(&e->arena,
                     lane ? "%s(b%d[0], b%d[1], %uu, %s + LANES)" : "FIRST_LANE(%s(b%d[0], b%d[1], %uu, (intv)(%s)))",
                     node->attributes.kind == RANDOM_NORMAL01 ? "random_normal" : "random_uniform", b, b,
                     node->attributes.stream, linear));
}

struct expr emit(struct emitter *e, struct node *node, const struct index *at) {
    if (e->failure) return (struct expr){.name = "0.0f"};
    if (is_own_reduction(e->grouping, e->step->group, node)) {
        struct expr *known = &e->reductions[node->index];
        if (!known->name && e->step->form == FORM_WHOLE)
            *known = load(e, node, &(struct index){.flat = "0", .lane = -1});
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
    const struct expr *known = recall(e, node, inner, key);
    if (known) return *known;
    for (size_t i = 0; i < e->held_memo.count && inner; i++)
        if (e->held_memo.items[i].node == node && strcmp(e->held_memo.items[i].key, key) == 0)
            return e->held_memo.items[i].expr;
    struct expr result;
    if (is_loaded(e->grouping, e->step->group, node))
        result = hold(e, node, at, load(e, node, at));
    else if (is_elementwise(node))
        result = elementwise(e, node, at);
    else if (node->op == OP_CONV)
        result = hold(e, node, at, convolution(e, node, at));
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
    return remember(e, node, inner, key, result);
}

void emit_store(struct emitter *e, struct text *text, struct node *node, const struct index *at, struct expr x) {
    struct value *value = step_result(e->step, node);
    if (!value) {
        e->failure = "a result has no memory";
        return;
    }
    int b = buffer_number(e, value);
    const int64_t *size = node->shape.size;
    const char *address = "0";
    bool lane = e->lanes > 1 && at->lane >= 0;
    if (value->layout == LAYOUT_BLOCKED) {
        int lanes = e->target->lanes;
        int64_t blocks = divide_up(size[1], lanes);
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
