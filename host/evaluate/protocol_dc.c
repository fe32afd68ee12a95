/* The protocol of DC, DSA, DM and MTT. As in their code: epochs 0 .. E; the rate falls to a tenth after epoch E / 2 +
 * 1, by a new optimiser, whose momentum is zero; the network after the last epoch is tested.
 *
 * One departure: their last batch of an epoch is what is left (500 images: 256 and 244), here an epoch's ceil(n / 256)
 * batches are equal (250 and 250), for a compiled step has one size. Up to 256 images there is no difference. */
#include "evaluate/plan.h"

#include "base/error.h"

#include <limits.h>

#define BATCH           256
#define FULL_DATA_STEPS 20000 /* all of train ends after about so many: it would take E + 1 epochs of it otherwise */

static const struct optimizer_spec sgd = {.kind = OPTIMIZER_SGD, .lr = 0.01, .momentum = 0.9, .weight_decay = 5e-4};

static int epochs_of(const struct evaluate_spec *spec) {
    return spec->dc_epochs ? spec->dc_epochs : spec->dc_augment ? 1000 : 300;
}

int plan_dc(const struct evaluate_problem *problem, const struct plan_input *input, struct plan *plan) {
    const struct evaluate_spec *spec = &problem->spec;
    struct plan fresh = {
        .input = *input, .optimizer = sgd, .dsa = spec->dc_augment, .dsa_flip = spec->dc_flip, .checkpoints = 1};
    if (spec->dc_epochs < 0)
        return error_set(RETORT_EINVAL, "evaluate.epochs is %d; expected 1 or more, or auto", spec->dc_epochs);
    int64_t epochs = epochs_of(spec);
    epoch_divide(input->count, BATCH, &fresh.epoch_steps, &fresh.batch);
    if (input->all_of_train && (epochs + 1) * fresh.epoch_steps > FULL_DATA_STEPS) {
        epochs = FULL_DATA_STEPS / fresh.epoch_steps - 1;
        if (epochs < 1) epochs = 1;
    }
    int64_t total = (epochs + 1) * fresh.epoch_steps, drop = (epochs / 2 + 2) * fresh.epoch_steps;
    if (total > INT_MAX)
        return error_set(RETORT_EINVAL, "evaluate.epochs: %lld epochs of %lld images are %lld steps; at most %d",
                         (long long)epochs, (long long)input->count, (long long)total, INT_MAX);
    fresh.steps[0] = (int)total;
    fresh.drop = drop < total ? (int)drop : 0;
    *plan = fresh;
    return RETORT_OK;
}

void describe_dc(const struct evaluate_problem *problem, struct text *text) {
    const struct evaluate_spec *spec = &problem->spec;
    text_append(text, "dc: ");
    describe_optimizer(&sgd, text);
    text_printf(text, ", batches of %d, %d epochs, ", BATCH, epochs_of(spec));
    text_append(text, !spec->dc_augment ? "no augmentation"
                      : spec->dc_flip   ? "DSA augmentation"
                                        : "DSA augmentation without flip");
    text_printf(text, ", %d network%s, tested after the last epoch", spec->networks, spec->networks == 1 ? "" : "s");
}
