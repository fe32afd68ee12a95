/* The schedule pass: from fused steps to kernels, with their shares of work and their phases. */
#include "compile/schedule.h"

#include "base/error.h"
#include "compile/roles.h"

#include <stdlib.h>
#include <string.h>

/* What follows from the family: a work-item of a CPU takes rows and runs of elements by itself, in vectors; on a GPU a
 * work-group shares a row, and each of its work-items takes one element of an array. */
struct shares {
    int items;           /* of a work-group */
    int lanes;           /* of the vectors in which arrays are computed */
    int64_t most_groups; /* that rows are dealt out to; 0: each row has its own */
    int64_t most_chunks; /* that an array is cut into; 0: each work-item has one element */
    int64_t least_chunk; /* elements */
};

static struct shares shares_of(const struct kernel_target *target) {
    if (target->family == FAMILY_CPU)
        return (struct shares){
            .items = 1, .lanes = target->lanes, .most_groups = 1024, .most_chunks = 256, .least_chunk = 2048};
    return (struct shares){.items = 64, .lanes = 1};
}

static int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}

static int64_t chunk_of(const struct shares *shares, int64_t count) {
    if (!shares->most_chunks) return shares->items;
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

static double step_flops(const struct planner *p) {
    double flops = 0;
    if (p->step->group < 0) return 0;
    const struct group *group = &p->grouping->groups[p->step->group];
    for (size_t k = 0; k < group->members.count; k++)
        flops += op_info(group->members.items[k]->op)->cost(group->members.items[k]);
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

static int schedule_rows(struct planner *p) {
    int status = RETORT_OK, levels = 0;
    struct arena *arena = &p->schedule->arena;
    const struct step *step = p->step;
    struct node **nodes;
    size_t count = step_nodes(p, &nodes);
    struct fused kernel = {.kind = FUSED_ROWS, .step = step, .items = p->shares.items, .members = count, .rows = 1};
    bool *taken = arena_array(arena, count, sizeof *taken);
    for (size_t k = 0; k < count; k++) {
        int level = level_of(p, nodes[k]);
        if (level > levels) levels = level;
    }
    for (int level = 0; level <= levels && !arena->failed; level++)
        for (struct phase phase; (phase = next_phase(p, nodes, count, level, taken)).count > 0;)
            if (!array_push(&kernel.phases, phase)) RAISE(RETORT_ENOMEM, "out of memory scheduling kernels");
    for (int d = 0; d < step->rows.rank; d++)
        if (!(step->inner >> d & 1))
            kernel.rows *= d == 1 ? divide_up(step->rows.size[d], step->lanes) : step->rows.size[d];
    kernel.each = p->shares.most_groups ? divide_up(kernel.rows, p->shares.most_groups) : 1;
    kernel.groups = (size_t)divide_up(kernel.rows, kernel.each);
    kernel.lanes = step->lanes;
    kernel.flops = step_flops(p);
    char size[160];
    shape_print(step->rows, size, sizeof size);
    kernel.what = arena_printf(arena, "fused %zu of %s", count, size);
    TRY(add_kernel(p, &kernel));
    kernel.phases.items = NULL;
done:
    free(kernel.phases.items);
    return status;
}

/* --- arrays --- */
static int schedule_flat(struct planner *p, struct flat *flats, size_t count, double flops) {
    int64_t longest = 0;
    bool sums = false;
    for (size_t k = 0; k < count; k++) {
        int64_t own = shape_count(flats[k].node->shape);
        if (own > longest) longest = own;
        sums |= flats[k].sum;
    }
    struct fused kernel = {.kind = FUSED_FLAT,
                           .step = p->step,
                           .flops = flops,
                           .items = p->shares.items,
                           .flats = flats,
                           .flat_count = count,
                           .chunk = chunk_of(&p->shares, longest),
                           .lanes = p->shares.lanes};
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

/* The kernels of what can be computed once `level` rounds of sums are finished: results, and the next round of sums.
 * *more tells whether anything is left for a later level. */
static int schedule_level(struct planner *p, int level, bool *more) {
    int status = RETORT_OK;
    struct arena *arena = &p->schedule->arena;
    struct node **nodes;
    size_t members = step_nodes(p, &nodes), count = 0, sum_count = 0;
    double flops = 0;
    struct flat *flats = arena_array(arena, members + 1, sizeof *flats);
    struct fused totals = {.kind = FUSED_TOTALS, .step = p->step, .what = "totals", .items = p->shares.items};
    totals.groups = 1;
    totals.flats = arena_array(arena, members + 1, sizeof *totals.flats);
    totals.totals = arena_array(arena, members + 1, sizeof(struct value *));
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
        if (own != level || !result) continue;
        if (!reduces) {
            flats[count++] = (struct flat){.node = node, .target = result};
            continue;
        }
        int64_t elements = shape_count(element->shape);
        totals.parts = divide_up(elements, chunk_of(&p->shares, elements));
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
    if (!p.level) RAISE(RETORT_ENOMEM, "out of memory scheduling kernels");
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
        if (kernel->kind == FUSED_ROWS && (int64_t)kernel->groups * kernel->each < kernel->rows)
            RAISE(RETORT_EUNSUPPORTED, "cannot compile %s: rows are left out", kernel->what);
    }
    /* Each result of a step is computed by one of its kernels: by the phase of a row, or as an array. Those with one
     * value a row are written after the last phase. */
    for (size_t i = 0; i < schedule->kernels.count; i++) {
        const struct fused *kernel = &schedule->kernels.items[i];
        for (size_t r = 0; r < kernel->step->results.count && kernel->kind == FUSED_ROWS; r++) {
            const struct node *node = kernel->step->results.items[r].node;
            int count = 0;
            for (size_t k = 0; k < kernel->phases.count; k++)
                for (size_t m = 0; m < kernel->phases.items[k].count; m++)
                    count += kernel->phases.items[k].nodes[m] == node;
            if (count > 1 || (count == 0 && has_inner(&node->shape, kernel->step->inner)))
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
        fprintf(stream, "%4zu  step %zd, %s: %zu groups of %d", i, kernel->step - schedule->layouts->steps.items,
                kernel->what, kernel->groups, kernel->items);
        if (kernel->kind == FUSED_ROWS)
            fprintf(stream, ", %lld rows, %lld a group, %zu phases", (long long)kernel->rows, (long long)kernel->each,
                    kernel->phases.count);
        else if (kernel->kind == FUSED_FLAT)
            fprintf(stream, ", %zu arrays, chunks of %lld", kernel->flat_count, (long long)kernel->chunk);
        fputc('\n', stream);
    }
}
