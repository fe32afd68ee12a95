/* From steps to launches: each fused kernel is one, an operation the launches of the hand-written kernels chosen for
 * it.
 */
#include "compile/lower.h"

#include "base/error.h"
#include "compile/convolution.h"
#include "compile/emit.h"

#include <assert.h>

struct context {
    const struct grouping *grouping;
    const struct kernel_target *target;
    struct launch_list *list;
};

static int no_memory(const struct node *node) {
    return error_set(RETORT_ENOMEM, "out of memory compiling %s", op_info(node->op)->name);
}

/* --- operations, each with the value of its result and those of its operands --- */
static int lower_matmul(struct context *c, const struct node *node, struct value *out, struct value *const *in) {
    int status = RETORT_OK;
    const struct attributes *attributes = &node->attributes;
    const int64_t *size = node->shape.size, *a = node->inputs[0]->shape.size;
    int r = node->shape.rank;
    struct matmul_sizes sizes = {.batch = r == 3 ? size[0] : 1,
                                 .m = size[r - 2],
                                 .n = size[r - 1],
                                 .k = a[attributes->transpose_a ? r - 2 : r - 1],
                                 .transpose_a = attributes->transpose_a,
                                 .transpose_b = attributes->transpose_b};
    struct matmul_use use = {0};
    struct value *b = in[1];
    TRY(kernels_matmul(c->target, &sizes, &use));
    if (use.packed_floats) b = launch_packed(c->list, &use.pack, use.packed_floats, b);
    if (!b
        || !launch_kernel(c->list, &use.main, (struct value *[]){out, in[0], b}, 1, 3, op_info(node->op)->cost(node)))
        return no_memory(node);
done:
    return status;
}

static int lower_scatter_rows(struct context *c, const struct node *node, struct value *out, struct value *const *in) {
    int status = RETORT_OK;
    const struct shape *values = &node->inputs[0]->shape;
    int64_t rows = values->size[0], width = rows ? shape_count(*values) / rows : 0;
    struct scatter_use use = {0};
    struct value *index = in[1];
    TRY(kernels_scatter_rows(c->target, rows, width, node->shape.size[0], &use));
    if (use.list_ints) {
        index = launch_packed(c->list, &use.list, use.list_ints, index);
        if (index) index->is_int = true;
    }
    if (!index
        || !launch_kernel(c->list, &use.main, (struct value *[]){out, in[0], index}, 1, 3,
                          op_info(node->op)->cost(node)))
        return no_memory(node);
done:
    return status;
}

static int lower_sample(struct context *c, const struct node *node, struct value *out, struct value *const *in) {
    int status = RETORT_OK;
    const int64_t *size = node->shape.size;
    struct kernel_use use = {0};
    TRY(kernels_sample(c->target, size[0], size[1], size[2], size[3], node->op == OP_SAMPLE_TRANSPOSE, &use));
    if (!launch_kernel(c->list, &use, (struct value *[]){out, in[0], in[1]}, 1, 3, op_info(node->op)->cost(node)))
        return no_memory(node);
done:
    return status;
}

static int lower_eigh(struct context *c, const struct node *node, struct value *out, struct value *const *in) {
    int status = RETORT_OK;
    struct kernel_use use = {0};
    TRY(kernels_eigh(c->target, node->shape.size[1], &use));
    if (!launch_kernel(c->list, &use, (struct value *[]){out, in[0]}, 1, 2, op_info(node->op)->cost(node)))
        return no_memory(node);
done:
    return status;
}

static int lower_convolutions(struct context *c, const struct step *step) {
    int status = RETORT_OK;
    const struct group *group = &c->grouping->groups[step->group];
    const struct node *node = group->members.items[0];
    struct conv_use use = {0};
    struct joined joined;
    struct value *buffers[3 * TERMS], *out = step->results.items[0].value;
    int count = 0, outputs = (int)step->results.count;
    TRY(convolution_join(c->grouping, group, &joined));
    TRY(kernels_conv_plan(c->target, &joined.class, &use));
    for (int k = 0; k < outputs; k++) buffers[count++] = step->results.items[k].value;
    if (use.work_floats) buffers[0] = value_create(c->list, NULL, LAYOUT_PLAIN, use.work_floats);
    bool weight_pass = joined.class.pass == CONV_BACKWARD_WEIGHT;
    for (int k = 0; k < joined.input_count; k++) {
        buffers[count++] = step_value(step, joined.inputs[k], joined.from);
        if (weight_pass) buffers[count++] = step_value(step, joined.weights[k], joined.second); /* in pairs */
    }
    for (int k = 0; k < joined.weight_count && !weight_pass; k++) {
        struct value *weights = step_value(step, joined.weights[k], joined.second);
        if (weights && use.packed_floats) weights = launch_packed(c->list, &use.pack, use.packed_floats, weights);
        buffers[count++] = weights;
    }
    for (int k = 0; k < count; k++)
        if (!buffers[k]) return no_memory(node);
    if (!launch_kernel(c->list, &use.main, buffers, outputs, count, joined.flops)
        || !array_push(&c->list->convolutions, joined.class))
        return no_memory(node);
    if (use.work_floats && !launch_kernel(c->list, &use.finish, (struct value *[]){out, buffers[0]}, 1, 2, 0))
        return no_memory(node);
done:
    return status;
}

/* One row a hand-written operation; convolutions, of which a launch takes several, have their own function above. */
static const struct {
    enum op op;
    int (*lower)(struct context *c, const struct node *node, struct value *out, struct value *const *in);
} operations[] = {
    {OP_MATMUL, lower_matmul}, {OP_SCATTER_ROWS, lower_scatter_rows},
    {OP_SAMPLE, lower_sample}, {OP_SAMPLE_TRANSPOSE, lower_sample},
    {OP_EIGH, lower_eigh},
};

static int lower_operation(struct context *c, const struct step *step) {
    enum { OPERANDS = 3 };
    const struct node *node = c->grouping->groups[step->group].members.items[0];
    struct value *in[OPERANDS];
    if (is_convolution(c->grouping, node)) return lower_convolutions(c, step);
    assert(node->input_count <= OPERANDS);
    for (int k = 0; k < node->input_count; k++) in[k] = step_value(step, node->inputs[k], LAYOUT_PLAIN);
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++)
        if (operations[i].op == node->op) return operations[i].lower(c, node, step->results.items[0].value, in);
    return error_set(RETORT_EUNSUPPORTED, "cannot compile: no kernel for %s", op_info(node->op)->name);
}

static int lower_relayout(struct context *c, const struct step *step) {
    int status = RETORT_OK;
    const int64_t *size = step->to->node->shape.size;
    struct kernel_use use = {0};
    TRY(kernels_relayout(c->target, size[0], size[1], size[2], size[3], step->from->layout, step->to->layout, &use));
    if (!launch_kernel(c->list, &use, (struct value *[]){step->to, step->from}, 1, 2, 0))
        return no_memory(step->to->node);
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
