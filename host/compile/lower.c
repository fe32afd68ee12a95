/* From steps to launches: each fused kernel is one, an operation the launches of the hand-written kernels chosen for
 * it.
 */
#include "compile/lower.h"

#include "base/error.h"
#include "compile/convolution.h"
#include "compile/emit.h"
#include "compile/operation.h"

struct context {
    const struct grouping *grouping;
    const struct kernel_target *target;
    struct launch_list *list;
};

static int note_class(struct launch_list *list, const struct kernel_class *class) {
    return array_push(&list->classes, *class) ? RETORT_OK : error_set(RETORT_ENOMEM, "out of memory noting a launch");
}

static int lower_convolutions(struct context *c, const struct step *step) {
    int status = RETORT_OK;
    struct kernel_plan plan;
    struct joined joined;
    struct value *results[TERMS], *inputs[2 * TERMS];
    int count = 0;
    const struct group *group = &c->grouping->groups[step->group];
    TRY(convolution_join(c->grouping, group, &joined));
    TRY(operation_plan(c->grouping, group, &plan));
    bool pairs = joined.class.pass == CONV_BACKWARD_WEIGHT;
    for (size_t k = 0; k < step->results.count; k++) results[k] = step->results.items[k].value;
    for (int k = 0; k < joined.input_count; k++) {
        inputs[count++] = step_value(step, joined.inputs[k], joined.from);
        if (pairs) inputs[count++] = step_value(step, joined.weights[k], joined.second);
    }
    for (int k = 0; k < joined.weight_count && !pairs; k++)
        inputs[count++] = step_value(step, joined.weights[k], joined.second);
    TRY(launch_plan(c->list, &plan, results, inputs, joined.flops));
    TRY(note_class(c->list, &joined.class));
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
    if (node->input_count > OPERANDS)
        RAISE(RETORT_EUNSUPPORTED, "cannot compile: no kernel for %s", op_info(node->op)->name);
    for (int k = 0; k < node->input_count; k++) inputs[k] = step_value(step, node->inputs[k], LAYOUT_PLAIN);
    TRY(operation_plan(c->grouping, &c->grouping->groups[step->group], &plan));
    TRY(launch_plan(c->list, &plan, &step->results.items[0].value, inputs, op_info(node->op)->cost(node)));
    if (node->op == OP_MATMUL) {
        const struct matmul_sizes sizes = matmul_sizes_of(node);
        const struct kernel_class class = class_of_product(&sizes);
        TRY(note_class(c->list, &class));
    }
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
