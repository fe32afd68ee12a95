/* From steps to launches: each fused kernel is one, an operation the launches of the hand-written kernels chosen for
 * it.
 */
#include "compile/lower.h"

#include "base/error.h"
#include "compile/convolution.h"
#include "compile/emit.h"

struct context {
    const struct grouping *grouping;
    const struct kernel_target *target;
    struct launch_list *list;
};

/* --- operations: which kernels compute them --- */
static int plan_matmul(const struct kernel_target *target, const struct node *node, struct kernel_plan *plan) {
    const struct attributes *attributes = &node->attributes;
    const int64_t *size = node->shape.size, *a = node->inputs[0]->shape.size;
    int r = node->shape.rank;
    const struct matmul_sizes sizes = {.batch = r == 3 ? size[0] : 1,
                                       .m = size[r - 2],
                                       .n = size[r - 1],
                                       .k = a[attributes->transpose_a ? r - 2 : r - 1],
                                       .transpose_a = attributes->transpose_a,
                                       .transpose_b = attributes->transpose_b};
    return kernels_matmul(target, &sizes, plan);
}

static int plan_scatter_rows(const struct kernel_target *target, const struct node *node, struct kernel_plan *plan) {
    const struct shape *values = &node->inputs[0]->shape;
    int64_t rows = values->size[0], width = rows ? shape_count(*values) / rows : 0;
    return kernels_scatter_rows(target, rows, width, node->shape.size[0], plan);
}

static int plan_sample(const struct kernel_target *target, const struct node *node, struct kernel_plan *plan) {
    const int64_t *size = node->shape.size;
    return kernels_sample(target, size[0], size[1], size[2], size[3], node->op == OP_SAMPLE_TRANSPOSE, plan);
}

static int plan_eigh(const struct kernel_target *target, const struct node *node, struct kernel_plan *plan) {
    return kernels_eigh(target, node->shape.size[1], plan);
}

_Static_assert(OP_COUNT == 43, "a new operation: if hand-written kernels compute it, it needs a row below");
/* A row an operation that hand-written kernels compute. Convolutions, of which a plan may take several nodes, have none
 * and go through lower_convolutions. */
static int (*const operations[OP_COUNT])(const struct kernel_target *, const struct node *, struct kernel_plan *) = {
    [OP_MATMUL] = plan_matmul, [OP_SCATTER_ROWS] = plan_scatter_rows,
    [OP_SAMPLE] = plan_sample, [OP_SAMPLE_TRANSPOSE] = plan_sample,
    [OP_EIGH] = plan_eigh,
};

static int lower_convolutions(struct context *c, const struct step *step) {
    int status = RETORT_OK;
    struct kernel_plan plan;
    struct joined joined;
    struct value *results[TERMS], *inputs[2 * TERMS];
    int count = 0;
    TRY(convolution_join(c->grouping, &c->grouping->groups[step->group], &joined));
    TRY(kernels_conv(c->target, &joined.class, &plan));
    bool pairs = joined.class.pass == CONV_BACKWARD_WEIGHT;
    for (size_t k = 0; k < step->results.count; k++) results[k] = step->results.items[k].value;
    for (int k = 0; k < joined.input_count; k++) {
        inputs[count++] = step_value(step, joined.inputs[k], joined.from);
        if (pairs) inputs[count++] = step_value(step, joined.weights[k], joined.second);
    }
    for (int k = 0; k < joined.weight_count && !pairs; k++)
        inputs[count++] = step_value(step, joined.weights[k], joined.second);
    TRY(launch_plan(c->list, &plan, results, inputs, joined.flops));
    if (!array_push(&c->list->convolutions, joined.class)) RAISE(RETORT_ENOMEM, "out of memory compiling convolutions");
done:
    return status;
}

static int lower_operation(struct context *c, const struct step *step) {
    enum { OPERANDS = 3 };
    int status = RETORT_OK;
    const struct node *node = c->grouping->groups[step->group].members.items[0];
    struct value *inputs[OPERANDS];
    struct kernel_plan plan;
    if (is_convolution(c->grouping, node)) return lower_convolutions(c, step);
    if (!operations[node->op] || node->input_count > OPERANDS)
        RAISE(RETORT_EUNSUPPORTED, "cannot compile: no kernel for %s", op_info(node->op)->name);
    for (int k = 0; k < node->input_count; k++) inputs[k] = step_value(step, node->inputs[k], LAYOUT_PLAIN);
    TRY(operations[node->op](c->target, node, &plan));
    TRY(launch_plan(c->list, &plan, &step->results.items[0].value, inputs, op_info(node->op)->cost(node)));
done:
    return status;
}

static int lower_relayout(struct context *c, const struct step *step) {
    int status = RETORT_OK;
    const int64_t *size = step->to->node->shape.size;
    struct kernel_plan plan;
    TRY(kernels_relayout(c->target, size[0], size[1], size[2], size[3], step->from->layout, step->to->layout, &plan));
    TRY(launch_plan(c->list, &plan, (struct value *[]){step->to}, (struct value *[]){step->from}, 0));
done:
    return status;
}

int lower_steps(const struct schedule *schedule, struct launch_list *list) {
    int status = RETORT_OK;
    const struct layouts *layouts = schedule->layouts;
    struct context c = {.grouping = layouts->grouping, .target = &layouts->grouping->target, .list = list};
    size_t kernel = 0;
    for (size_t i = 0; i < layouts->steps.count; i++) {
        const struct step *step = &layouts->steps.items[i];
        switch (step->kind) {
        case STEP_RELAYOUT:
            TRY(lower_relayout(&c, step));
            break;
        case STEP_OPERATION:
            TRY(lower_operation(&c, step));
            break;
        case STEP_FUSED:
            for (; kernel < schedule->kernels.count && schedule->kernels.items[kernel].step == step; kernel++)
                TRY(emit_fused(schedule, &schedule->kernels.items[kernel], list));
            break;
        }
    }
done:
    return status;
}
