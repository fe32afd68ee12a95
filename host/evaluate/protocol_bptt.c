/* The protocol of the BPTT family (RaT-BPTT, AT-BPTT): the inner training run itself, gone on with for longer. */
#include "evaluate/plan.h"

#include "base/error.h"

/* Of sets that are not equally many images of each class, where "so many of each class" means nothing. */
#define WALK_BATCH 256

int plan_bptt(const struct evaluate_problem *problem, const struct plan_input *input, struct plan *plan) {
    const struct evaluate_spec *spec = &problem->spec;
    const struct inner_spec *inner = &problem->inner;
    struct plan fresh = {.input = *input, .optimizer = inner->optimizer, .augment = problem->augment};
    fresh.optimizer.lr = problem->inner_lr;
    if (spec->step_count < 1 || spec->step_count > EVALUATE_MAX_CHECKPOINTS)
        return error_set(RETORT_EINVAL, "evaluate.steps lists %d numbers; expected 1 to %d", spec->step_count,
                         EVALUATE_MAX_CHECKPOINTS);
    for (int i = 0; i < spec->step_count; i++) {
        int before = i ? spec->steps[i - 1] : 0;
        if (spec->steps[i] <= before)
            return error_set(RETORT_EINVAL, "evaluate.steps: %d comes after %d; list rising numbers", spec->steps[i],
                             before);
        fresh.steps[i] = spec->steps[i];
    }
    fresh.checkpoints = spec->step_count;
    if (input->ipc > 0) {
        /* A set may have fewer images or classes than the batches of the descriptor it is tested with. */
        bool all_classes = inner->batch_classes == 0 || inner->batch_classes > input->classes;
        bool all_images = inner->batch_per_class == 0 || inner->batch_per_class > input->ipc;
        fresh.classes_chosen = all_classes ? input->classes : inner->batch_classes;
        fresh.per_class = all_images ? input->ipc : inner->batch_per_class;
        fresh.batch = (int64_t)fresh.classes_chosen * fresh.per_class;
    } else
        epoch_divide(input->count, WALK_BATCH, &fresh.epoch_steps, &fresh.batch);
    *plan = fresh;
    return RETORT_OK;
}

void describe_bptt(const struct evaluate_problem *problem, struct text *text) {
    const struct evaluate_spec *spec = &problem->spec;
    const struct augment_spec *augment = &problem->augment;
    struct optimizer_spec optimizer = problem->inner.optimizer;
    optimizer.lr = problem->inner_lr;
    text_append(text, "bptt: ");
    describe_optimizer(&optimizer, text);
    if (augment->flip || augment->rotate)
        text_printf(text, ", augmented by %s%s%s", augment->flip ? "flip" : "",
                    !augment->flip || !augment->rotate ? ""
                    : augment->compose                 ? " and "
                                                       : " or ",
                    augment->rotate ? "rotation" : "");
    text_printf(text, ", %d network%s, step%s", spec->networks, spec->networks == 1 ? "" : "s",
                spec->step_count == 1 ? "" : "s");
    for (int i = 0; i < spec->step_count && i < EVALUATE_MAX_CHECKPOINTS; i++) text_printf(text, " %d", spec->steps[i]);
    if (spec->step_count > 1)
        text_printf(text, ", best step chosen on the %s",
                    problem->holdout && problem->holdout->count ? "held-out split" : "test set");
}
