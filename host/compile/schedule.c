/* The schedule pass: from fused steps to kernels, with their shares of work and their phases. */
#include "compile/schedule.h"

#include "base/error.h"
#include "compile/integer.h"
#include "compile/roles.h"

#include <stdlib.h>
#include <string.h>

/* What follows from the target: a work-item of a CPU takes rows and runs of elements by itself, in vectors; on a GPU
 * the items of a work-group share rows, and each takes a few neighbours of an array. */
struct shares {
    bool shared;         /* rows, by the items of a work-group */
    int items;           /* of a work-group */
    int most_items;      /* of a work-group that has a single row */
    int most_held;       /* numbers that a work-item may hold in registers; 0: none */
    int lanes;           /* of the vectors in which arrays are computed */
    int64_t most_groups; /* that rows are dealt out to; 0: each row has its own */
    int64_t most_chunks; /* that an array is cut into; 0: each work-item has one vector */
    int64_t least_chunk; /* elements */
};

/* The largest power of two that is not above n, 1 at least. */
static int power_below(size_t n) {
    int power = 1;
    while ((size_t)power * 2 <= n) power *= 2;
    return power;
}

static int64_t power_above(int64_t n) {
    int64_t power = 1;
    while (power < n) power *= 2;
    return power;
}

static struct shares shares_of(const struct kernel_target *target) {
    enum { GROUP = 128, MOST_GROUP = 256, MOST_HELD = 48 };
    if (target->family == FAMILY_CPU)
        return (struct shares){.items = 1,
                               .most_items = 1,
                               .lanes = target->lanes,
                               .most_groups = 1024,
                               .most_chunks = 256,
                               .least_chunk = 2048};
    int most = power_below(target->traits->max_work_group);
    /* Drivers for CPUs run the items of a group one after another, so that what an item holds is memory again: there
     * loops that the compiler can vectorise are better. */
    bool is_cpu = target->traits->kind == DEVICE_CPU;
    return (struct shares){.shared = true,
                           .items = (int)min_of(most, is_cpu ? 64 : GROUP),
                           .most_items = (int)min_of(most, is_cpu ? 64 : MOST_GROUP),
                           .most_held = is_cpu ? 0 : MOST_HELD,
                           .lanes = is_cpu ? 1 : 4};
}

/* Neighbouring elements of a work-group's share. Where they are summed up, each item adds several of its own first. */
static int64_t chunk_of(const struct shares *shares, int64_t count, bool sums) {
    enum { ADDED = 16, MOST_PARTS = 1024 };
    int64_t vectors = (int64_t)shares->items * shares->lanes;
    if (shares->shared && !sums) return vectors;
    if (shares->shared) {
        int64_t chunk = (int64_t)shares->items * ADDED;
        return divide_up(divide_up(count, MOST_PARTS), chunk) * chunk;
    }
    int64_t chunk = divide_up(count, shares->most_chunks);
    return chunk < shares->least_chunk ? shares->least_chunk : divide_up(chunk, 16) * 16;
}

/* --- levels: how many rounds of the group's reductions must be finished before a node can be evaluated --- */
struct planner {
    struct schedule *schedule;
    const struct grouping *grouping;
    const struct step *step;
    struct shares shares;
    int *level; /* by node index; -1: not known yet */
    bool *seen; /* by node index, during a walk */
};

static int level_of(struct planner *p, const struct node *node) {
    int *level = &p->level[node->index], highest = 0;
    if (*level >= 0) return *level;
    *level = 0;
    if (is_loaded(p->grouping, p->step->group, node)) return 0;
    for (int k = 0; k < node->input_count; k++) {
        int operand = level_of(p, node->inputs[k]);
        if (operand > highest) highest = operand;
    }
    return *level = highest + is_own_reduction(p->grouping, p->step->group, node);
}

/* The nodes that the step evaluates: a group's members, or the nodes that are copied. */
static size_t step_nodes(const struct planner *p, struct node ***nodes) {
    const struct step *step = p->step;
    if (step->group >= 0) {
        *nodes = p->grouping->groups[step->group].members.items;
        return p->grouping->groups[step->group].members.count;
    }
    *nodes = arena_array(&p->schedule->arena, step->results.count, sizeof **nodes);
    for (size_t k = 0; k < step->results.count && *nodes; k++) (*nodes)[k] = step->results.items[k].node;
    return *nodes ? step->results.count : 0;
}

/* The next convolution after `node` (NULL: the first) that the step computes where it is read. */
static const struct node *next_convolution(const struct planner *p, const struct node *node) {
    if (p->step->group < 0) return NULL;
    const uint64_t *inside = p->grouping->groups[p->step->group].inside;
    for (int i = node ? node->index + 1 : 0; i < p->grouping->node_count; i++) {
        const struct node *next = graph_node(p->grouping->graph, i);
        if (next->op == OP_CONV && inside[i / 64] >> (i % 64) & 1) return next;
    }
    return NULL;
}

static double step_flops(const struct planner *p) {
    double flops = 0;
    if (p->step->group < 0) return 0;
    const struct group *group = &p->grouping->groups[p->step->group];
    for (size_t k = 0; k < group->members.count; k++)
        flops += op_info(group->members.items[k]->op)->cost(group->members.items[k]);
    const struct node *node = NULL;
    while ((node = next_convolution(p, node))) flops += op_info(node->op)->cost(node);
    return flops;
}

static int add_kernel(struct planner *p, const struct fused *kernel) {
    if (p->schedule->arena.failed || !array_push(&p->schedule->kernels, *kernel))
        return error_set(RETORT_ENOMEM, "out of memory scheduling kernels");
    return RETORT_OK;
}

/* --- rows --- */
static bool same_inner(const struct shape *a, const struct shape *b, uint32_t inner) {
    for (int d = 0; d < a->rank; d++)
        if (inner >> d & 1 && a->size[d] != b->size[d]) return false;
    return true;
}

bool has_inner(const struct shape *shape, uint32_t inner) {
    for (int d = 0; d < shape->rank; d++)
        if (inner >> d & 1 && shape->size[d] > 1) return true;
    return false;
}

/* The next phase of this level: nodes not taken yet whose inner sizes agree. Empty: there is none. */
static struct phase next_phase(struct planner *p, struct node *const *nodes, size_t count, int level, bool *taken) {
    struct phase phase = {.nodes = arena_array(&p->schedule->arena, count, sizeof *phase.nodes)};
    for (size_t k = 0; k < count && phase.nodes; k++) {
        struct node *node = nodes[k];
        bool reduces = is_own_reduction(p->grouping, p->step->group, node);
        const struct node *element = reduces ? node->inputs[0] : node;
        bool inside = reduces || (step_result(p->step, node) && has_inner(&node->shape, p->step->inner));
        if (taken[k] || !inside || level_of(p, element) != level) continue;
        if (phase.shape && !same_inner(phase.shape, &element->shape, p->step->inner)) continue;
        phase.shape = &element->shape;
        phase.nodes[phase.count++] = node;
        taken[k] = true;
    }
    return phase;
}

int64_t inner_count(const struct shape *shape, uint32_t inner) {
    int64_t count = 1;
    for (int d = 0; d < shape->rank; d++)
        if (inner >> d & 1) count *= shape->size[d];
    return count;
}

/* How often a kernel stores a result: in its phases, or behind them where there is one value a row. */
static int count_stores(const struct fused *kernel, const struct node *node) {
    int count = 0;
    if (!has_inner(&node->shape, kernel->step->inner)) return kernel->last;
    for (size_t k = 0; k < kernel->phases.count; k++)
        for (size_t m = 0; m < kernel->phases.items[k].count; m++) count += kernel->phases.items[k].nodes[m] == node;
    return count;
}

bool stores_result(const struct fused *kernel, const struct node *node) {
    return count_stores(kernel, node) > 0;
}

/* --- rows that work-items share --- */
/* How many times `shape` has the elements of `places` in each inner dimension; 0: not so. */
static int window_of(const struct shape *shape, const struct shape *places, uint32_t inner) {
    enum { MOST_WINDOW = 4 }; /* the text has the elements of a window one after another */
    int64_t window = 0;
    for (int d = 0; d < shape->rank; d++) {
        if (!(inner >> d & 1)) continue;
        int64_t times = shape->size[d] / places->size[d];
        if (shape->size[d] % places->size[d] || (window && times != window)) return 0;
        window = times;
    }
    return window <= MOST_WINDOW ? (int)window : 0;
}

/* The operand of a pooling's transpose that is evaluated for `node` and covers `full`: its elements stand for windows
 * of the row. NULL: none. */
static const struct node *find_pooled(struct planner *p, const struct node *node, const struct shape *full) {
    if (p->seen[node->index]) return NULL;
    p->seen[node->index] = true;
    if (is_loaded(p->grouping, p->step->group, node) || is_own_reduction(p->grouping, p->step->group, node)
        || node->op == OP_CONV)
        return NULL;
    if (node->op == OP_AVERAGE_POOL_TRANSPOSE && same_inner(&node->shape, full, p->step->inner)
        && window_of(full, &node->inputs[0]->shape, p->step->inner) == node->attributes.window)
        return node->inputs[0];
    for (int k = 0; k < node->input_count; k++) {
        const struct node *found = find_pooled(p, node->inputs[k], full);
        if (found) return found;
    }
    return NULL;
}

/* Gives each phase its window; false where the phases' elements do not belong to the same places. */
static bool set_windows(const struct planner *p, struct fused *kernel, const struct shape *places) {
    kernel->places = *places;
    for (size_t k = 0; k < kernel->phases.count; k++) {
        struct phase *phase = &kernel->phases.items[k];
        phase->window = phase->shape->rank == places->rank ? window_of(phase->shape, places, p->step->inner) : 0;
        if (!phase->window) return false;
    }
    return true;
}

/* Finds the places of a row: elements of the smallest plane that a phase visits or spreads over windows. */
static bool find_places(struct planner *p, struct fused *kernel, const struct shape *full) {
    const struct shape *smallest = full;
    memset(p->seen, 0, (size_t)p->grouping->node_count * sizeof *p->seen);
    for (size_t k = 0; k < kernel->phases.count; k++) {
        const struct phase *phase = &kernel->phases.items[k];
        if (inner_count(phase->shape, p->step->inner) < inner_count(smallest, p->step->inner)) smallest = phase->shape;
    }
    for (size_t k = 0; k < kernel->phases.count && smallest == full && p->step->inner == PLANE_INNER; k++)
        for (size_t m = 0; m < kernel->phases.items[k].count; m++) {
            const struct node *node = kernel->phases.items[k].nodes[m];
            bool reduces = is_own_reduction(p->grouping, p->step->group, node);
            const struct node *pooled = find_pooled(p, reduces ? node->inputs[0] : node, full);
            if (pooled && set_windows(p, kernel, &pooled->shape)) return true;
        }
    return set_windows(p, kernel, smallest);
}

/* Numbers loaded at each place. */
static int64_t place_loads(const struct planner *p, const struct fused *kernel) {
    int64_t places = inner_count(&kernel->places, p->step->inner), loads = 0;
    for (size_t k = 0; k < p->step->reads.count; k++) {
        const struct shape *shape = &p->step->reads.items[k].node->shape;
        if (shape->rank != p->step->rows.rank || has_inner(shape, p->step->inner))
            loads += divide_up(inner_count(shape, p->step->inner), places);
    }
    const struct node *node = NULL; /* results of convolutions are held too */
    while ((node = next_convolution(p, node))) loads += divide_up(inner_count(&node->shape, p->step->inner), places);
    return loads;
}

/* Whether the memory of the kernel's rows runs across them: the last dimension of some size is not inside. */
static bool runs_across(const struct step *step) {
    int last = step->rows.rank - 1;
    while (last > 0 && step->rows.size[last] == 1) last--;
    return last >= 0 && !(step->inner >> last & 1);
}

/* Deals a row out to work-items, and rows to work-groups. */
static void share_rows(struct planner *p, struct fused *kernel) {
    enum { SHORT = 256, MOST_ELEMENTS = 32 };
    const struct shares *shares = &p->shares;
    const struct shape *full = NULL;
    for (size_t k = 0; k < kernel->phases.count; k++) {
        const struct shape *shape = kernel->phases.items[k].shape;
        if (!full || inner_count(shape, p->step->inner) > inner_count(full, p->step->inner)) full = shape;
    }
    int64_t length = full ? inner_count(full, p->step->inner) : 1;
    int64_t most = shares->most_items, items = min_of(power_above(divide_up(length, length <= SHORT ? 4 : 8)), most);
    if (!shares->most_held && length > 16) items = min_of(power_above(length), most);
    if (full && items > 1 && shares->most_held && find_places(p, kernel, full)) {
        int64_t places = inner_count(&kernel->places, p->step->inner), loads = place_loads(p, kernel);
        int64_t fewest = min_of(items, power_above(places));
        while (fewest < min_of(most, places) && divide_up(places, fewest) * loads > shares->most_held) fewest *= 2;
        int64_t each = divide_up(places, fewest);
        if (each * loads <= shares->most_held && each * (length / places) <= MOST_ELEMENTS) {
            kernel->held = (int)each;
            items = fewest;
        }
    }
    kernel->row_items = (int)items;
    int64_t together = items < shares->items ? shares->items / items : 1;
    /* Idle items cost nothing on a GPU, where groups of the same size can be one launch. */
    if (!shares->most_held) together = min_of(together, power_above(kernel->rows));
    kernel->items = (int)(items * together);
    kernel->row_first = runs_across(p->step);
    kernel->groups = (size_t)divide_up(kernel->rows, together);
    if (items == 1) kernel->held = 0;
}

/* --- long rows --- */
/* In how many parts a row is summed up, and the elements of a part, by the sizes alone; false: in one. */
static bool cut_rows(const struct planner *p, struct fused *kernel) {
    enum { LONG = 1 << 14, PART = 1 << 12, MOST_PARTS = 64, ENOUGH = 2048 };
    if (!p->shares.most_held) return false;
    int64_t length = 0;
    for (size_t k = 0; k < kernel->phases.count; k++) {
        const struct phase *phase = &kernel->phases.items[k];
        int64_t own = inner_count(phase->shape, p->step->inner);
        if (length && own != length) return false;
        length = own;
        for (size_t m = 0; m < phase->count; m++)
            if (is_reduction(phase->nodes[m]) && phase->nodes[m]->op != OP_REDUCE_SUM
                && is_own_reduction(p->grouping, p->step->group, phase->nodes[m]))
                return false;
    }
    if (length <= LONG) return false;
    int64_t parts = min_of(min_of(divide_up(ENOUGH, kernel->rows), divide_up(length, PART)), MOST_PARTS);
    if (parts < 2) return false;
    kernel->chunk = divide_up(divide_up(length, parts), p->shares.most_items) * p->shares.most_items;
    kernel->parts = divide_up(length, kernel->chunk);
    return true;
}

/* The next kernel of rows in parts: the phases of one level, whose sums are left in parts. `sums` collects them. */
static int add_cut(struct planner *p, const struct fused *whole, struct phase *phases, size_t count,
                   struct partial *sums, size_t *sum_count) {
    int status = RETORT_OK;
    struct fused kernel = *whole;
    kernel.phases.items = NULL;
    kernel.phases.count = kernel.phases.capacity = 0;
    kernel.known_count = *sum_count;
    kernel.flops *= (double)count / (double)whole->phases.count;
    for (size_t k = 0; k < count; k++) {
        if (!array_push(&kernel.phases, phases[k])) RAISE(RETORT_ENOMEM, "out of memory scheduling kernels");
        for (size_t m = 0; m < phases[k].count; m++) {
            struct node *node = phases[k].nodes[m];
            if (!is_own_reduction(p->grouping, p->step->group, node)) continue;
            size_t floats = (size_t)(whole->rows * whole->parts);
            struct value *value = value_create(p->schedule->layouts->list, NULL, LAYOUT_PLAIN, floats);
            if (!value) RAISE(RETORT_ENOMEM, "out of memory scheduling kernels");
            sums[*sum_count + kernel.left_count++] = (struct partial){node, value};
        }
    }
    /* Those left stand behind those known; the last kernel leaves none. */
    kernel.partials = sums;
    *sum_count += kernel.left_count;
    kernel.last = !kernel.left_count;
    if (count) {
        kernel.row_items = kernel.items = p->shares.most_items;
        kernel.groups = (size_t)(kernel.rows * kernel.parts);
    } else {
        kernel.chunk = 0;
        share_rows(p, &kernel);
    }
    TRY(add_kernel(p, &kernel));
    kernel.phases.items = NULL;
done:
    free(kernel.phases.items);
    return status;
}

static int schedule_cut(struct planner *p, const struct fused *whole, const int *levels) {
    int status = RETORT_OK;
    size_t count = whole->phases.count, sum_count = 0, begin = 0, all = 0;
    for (size_t k = 0; k < count; k++) all += whole->phases.items[k].count;
    struct partial *sums = arena_array(&p->schedule->arena, all + 1, sizeof *sums);
    if (!sums) RAISE(RETORT_ENOMEM, "out of memory scheduling kernels");
    while (begin < count) {
        size_t end = begin;
        while (end < count && levels[end] == levels[begin]) end++;
        TRY(add_cut(p, whole, whole->phases.items + begin, end - begin, sums, &sum_count));
        begin = end;
    }
    if (!p->schedule->kernels.items[p->schedule->kernels.count - 1].last)
        TRY(add_cut(p, whole, NULL, 0, sums, &sum_count));
done:
    return status;
}

/* The phases of all levels, in order; `levels` has room for the number of each phase's. */
static int find_phases(struct planner *p, struct node *const *nodes, size_t count, struct fused *kernel, int *levels) {
    int status = RETORT_OK, highest = 0;
    bool *taken = arena_array(&p->schedule->arena, count, sizeof *taken);
    for (size_t k = 0; k < count; k++) {
        int level = level_of(p, nodes[k]);
        if (level > highest) highest = level;
    }
    for (int level = 0; level <= highest && !p->schedule->arena.failed; level++)
        for (struct phase phase; (phase = next_phase(p, nodes, count, level, taken)).count > 0;) {
            levels[kernel->phases.count] = level;
            if (!array_push(&kernel->phases, phase)) RAISE(RETORT_ENOMEM, "out of memory scheduling kernels");
        }
done:
    return status;
}

static int schedule_rows(struct planner *p) {
    int status = RETORT_OK;
    struct arena *arena = &p->schedule->arena;
    const struct step *step = p->step;
    struct node **nodes;
    size_t count = step_nodes(p, &nodes);
    struct fused kernel = {.kind = FUSED_ROWS,
                           .step = step,
                           .shared = p->shares.shared,
                           .members = count,
                           .rows = 1,
                           .each = 1,
                           .last = true};
    int *levels = arena_array(arena, count + 1, sizeof *levels);
    if (!levels) RAISE(RETORT_ENOMEM, "out of memory scheduling kernels");
    TRY(find_phases(p, nodes, count, &kernel, levels));
    for (int d = 0; d < step->rows.rank; d++)
        if (!(step->inner >> d & 1))
            kernel.rows *= d == 1 ? divide_up(step->rows.size[d], step->lanes) : step->rows.size[d];
    kernel.lanes = step->lanes;
    kernel.flops = step_flops(p);
    char size[160];
    shape_print(step->rows, size, sizeof size);
    kernel.what = arena_printf(arena, "fused %zu of %s", count, size);
    if (p->shares.shared) {
        if (cut_rows(p, &kernel)) {
            TRY(schedule_cut(p, &kernel, levels));
            goto done;
        }
        share_rows(p, &kernel);
    } else {
        kernel.items = kernel.row_items = 1;
        kernel.each = divide_up(kernel.rows, p->shares.most_groups);
        kernel.groups = (size_t)divide_up(kernel.rows, kernel.each);
    }
    TRY(add_kernel(p, &kernel));
    kernel.phases.items = NULL;
done:
    free(kernel.phases.items);
    return status;
}

/* --- arrays --- */
/* Whether random numbers are drawn for a node, by long functions that are not called for each of four neighbours. */
static bool draws(struct planner *p, const struct node *node) {
    if (p->seen[node->index]) return false;
    p->seen[node->index] = true;
    if (node->op == OP_RANDOM) return true;
    if (is_loaded(p->grouping, p->step->group, node)) return false;
    bool any = false;
    for (int k = 0; k < node->input_count && !any; k++) any = draws(p, node->inputs[k]);
    return any;
}

static int schedule_flat(struct planner *p, struct flat *flats, size_t count, double flops) {
    int64_t longest = 0;
    bool sums = false, random = false;
    memset(p->seen, 0, (size_t)p->grouping->node_count * sizeof *p->seen);
    for (size_t k = 0; k < count; k++) {
        int64_t own = shape_count(flats[k].node->shape);
        if (own > longest) longest = own;
        sums |= flats[k].sum;
        random |= draws(p, flats[k].node);
    }
    struct shares shares = p->shares;
    if (random && shares.shared) shares.lanes = 1;
    struct fused kernel = {.kind = FUSED_FLAT,
                           .step = p->step,
                           .shared = p->shares.shared,
                           .flops = flops,
                           .items = p->shares.items,
                           .flats = flats,
                           .flat_count = count,
                           .chunk = chunk_of(&shares, longest, sums),
                           .lanes = shares.lanes};
    kernel.groups = (size_t)divide_up(longest, kernel.chunk);
    kernel.what =
        arena_printf(&p->schedule->arena, "%s %lld", sums ? "partial sums" : "elementwise", (long long)longest);
    return add_kernel(p, &kernel);
}

static int schedule_results(struct planner *p) {
    const struct step *step = p->step;
    struct flat *flats = arena_array(&p->schedule->arena, step->results.count, sizeof *flats);
    for (size_t k = 0; k < step->results.count && flats; k++)
        flats[k] = (struct flat){.node = step->results.items[k].node, .target = step->results.items[k].value};
    return flats ? schedule_flat(p, flats, step->results.count, step_flops(p))
                 : error_set(RETORT_ENOMEM, "out of memory scheduling kernels");
}

/* Whether the kernel that adds up the last of the sums that a result waits for computes it too: it has one element. */
static bool follows_totals(const struct planner *p, const struct node *node, int level) {
    return p->shares.shared && level > 0 && shape_count(node->shape) == 1
           && !is_own_reduction(p->grouping, p->step->group, node);
}

/* The kernels of what can be computed once `level` rounds of sums are finished: results, and the next round of sums.
 * *more tells whether anything is left for a later level. */
static int schedule_level(struct planner *p, int level, bool *more) {
    int status = RETORT_OK;
    struct arena *arena = &p->schedule->arena;
    struct node **nodes;
    size_t members = step_nodes(p, &nodes), count = 0, sum_count = 0;
    double flops = 0;
    struct flat *flats = arena_array(arena, members + 1, sizeof *flats);
    struct fused totals = {
        .kind = FUSED_TOTALS, .step = p->step, .shared = p->shares.shared, .what = "totals", .items = p->shares.items};
    totals.groups = 1;
    totals.flats = arena_array(arena, members + 1, sizeof *totals.flats);
    totals.totals = arena_array(arena, members + 1, sizeof(struct value *));
    totals.after = arena_array(arena, members + 1, sizeof *totals.after);
    if (arena->failed) RAISE(RETORT_ENOMEM, "out of memory scheduling kernels");
    *more = false;
    for (size_t k = 0; k < members; k++) {
        struct node *node = nodes[k];
        bool reduces = is_own_reduction(p->grouping, p->step->group, node);
        struct node *element = reduces ? node->inputs[0] : node;
        struct value *result = step_result(p->step, node);
        int own = level_of(p, element);
        *more |= own > level;
        if (own == level) flops += op_info(node->op)->cost(node);
        if (own == level + 1 && result && follows_totals(p, node, own))
            totals.after[totals.after_count++] = (struct flat){.node = node, .target = result};
        if (own != level || !result || follows_totals(p, node, level)) continue;
        if (!reduces) {
            flats[count++] = (struct flat){.node = node, .target = result};
            continue;
        }
        int64_t elements = shape_count(element->shape);
        totals.parts = divide_up(elements, chunk_of(&p->shares, elements, true));
        struct value *partial = value_create(p->schedule->layouts->list, NULL, LAYOUT_PLAIN, (size_t)totals.parts);
        if (!partial) RAISE(RETORT_ENOMEM, "out of memory scheduling kernels");
        flats[count++] = totals.flats[sum_count] = (struct flat){.node = element, .target = partial, .sum = true};
        totals.totals[sum_count++] = result;
    }
    if (count) TRY(schedule_flat(p, flats, count, flops));
    totals.flat_count = sum_count;
    if (sum_count) TRY(add_kernel(p, &totals));
done:
    return status;
}

static int schedule_whole(struct planner *p) {
    int status = RETORT_OK;
    bool more = true;
    for (int level = 0; more; level++) TRY(schedule_level(p, level, &more));
done:
    return status;
}

int schedule_create(const struct layouts *layouts, struct schedule *schedule) {
    int status = RETORT_OK;
    const struct grouping *g = layouts->grouping;
    *schedule = (struct schedule){.layouts = layouts};
    arena_init(&schedule->arena);
    struct planner p = {.schedule = schedule, .grouping = g, .shares = shares_of(&g->target)};
    p.level = arena_array(&schedule->arena, (size_t)g->node_count + 1, sizeof *p.level);
    p.seen = arena_array(&schedule->arena, (size_t)g->node_count + 1, sizeof *p.seen);
    if (!p.level || !p.seen) RAISE(RETORT_ENOMEM, "out of memory scheduling kernels");
    for (size_t i = 0; i < layouts->steps.count; i++) {
        p.step = &layouts->steps.items[i];
        if (p.step->kind != STEP_FUSED) continue;
        for (int k = 0; k < g->node_count; k++) p.level[k] = -1;
        TRY(p.step->form == FORM_ROWS   ? schedule_rows(&p)
            : p.step->form == FORM_FLAT ? schedule_results(&p)
                                        : schedule_whole(&p));
    }
done:
    if (status < 0) schedule_finish(schedule);
    return status;
}

void schedule_finish(struct schedule *schedule) {
    for (size_t i = 0; i < schedule->kernels.count; i++) array_finish(&schedule->kernels.items[i].phases);
    array_finish(&schedule->kernels);
    arena_finish(&schedule->arena);
    *schedule = (struct schedule){0};
}

/* --- check and print --- */
int schedule_check(const struct schedule *schedule) {
    int status = RETORT_OK;
    const struct device_traits *traits = schedule->layouts->grouping->target.traits;
    for (size_t i = 0; i < schedule->kernels.count; i++) {
        const struct fused *kernel = &schedule->kernels.items[i];
        if (!kernel->groups || kernel->items < 1 || (size_t)kernel->items > traits->max_work_group)
            RAISE(RETORT_EUNSUPPORTED, "cannot compile %s: work-groups of %d where the device allows %zu", kernel->what,
                  kernel->items, traits->max_work_group);
        int64_t together = kernel->row_items ? kernel->items / kernel->row_items : 0;
        if (kernel->kind == FUSED_ROWS
            && (int64_t)kernel->groups * kernel->each * together < kernel->rows * (kernel->chunk ? kernel->parts : 1))
            RAISE(RETORT_EUNSUPPORTED, "cannot compile %s: rows are left out", kernel->what);
    }
    /* Each result of a step is stored once, by one of its kernels, which stand behind each other. */
    for (size_t first = 0, end; first < schedule->kernels.count; first = end) {
        const struct fused *kernels = schedule->kernels.items, *kernel = &kernels[first];
        for (end = first; end < schedule->kernels.count && kernels[end].step == kernel->step;) end++;
        for (size_t r = 0; r < kernel->step->results.count && kernel->kind == FUSED_ROWS; r++) {
            const struct node *node = kernel->step->results.items[r].node;
            int count = 0;
            for (size_t k = first; k < end; k++) count += count_stores(&kernels[k], node);
            if (count != 1)
                RAISE(RETORT_EUNSUPPORTED, "cannot compile %s: node %d is computed %d times", kernel->what, node->index,
                      count);
        }
    }
done:
    return status;
}

void schedule_print(const struct schedule *schedule, FILE *stream) {
    for (size_t i = 0; i < schedule->kernels.count; i++) {
        const struct fused *kernel = &schedule->kernels.items[i];
        fprintf(stream, "%4zu  step %td, %s: %zu groups of %d", i, kernel->step - schedule->layouts->steps.items,
                kernel->what, kernel->groups, kernel->items);
        if (kernel->kind == FUSED_ROWS)
            fprintf(stream, ", %lld rows, %d items each, %zu phases, %d places held, %lld parts",
                    (long long)kernel->rows, kernel->row_items, kernel->phases.count, kernel->held,
                    (long long)kernel->parts);
        else if (kernel->kind == FUSED_FLAT)
            fprintf(stream, ", %zu arrays, chunks of %lld", kernel->flat_count, (long long)kernel->chunk);
        fputc('\n', stream);
    }
}
