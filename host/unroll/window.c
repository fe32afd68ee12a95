#include "unroll/window.h"

#include "unroll/private.h"

int unroll_window(struct unroll *u, int from, int count, bool probe) {
    int status = RETORT_OK;
    if (count < 1 || count > u->spec.max_window)
        RAISE(RETORT_EINVAL, "a window of %d steps: at most %d were planned", count, u->spec.max_window);
    if (u->current > 1) RAISE(RETORT_EINVAL, "a second window of one run: begin anew");
    TRY(check_steps(u, from, count));
    u->window_base = u->current;
    u->window_first = from;
    u->window_count = 0;
    for (int i = 0; i < count; i++) {
        TRY(inner_step(u, from + i, u->current, u->current + 1, i, probe));
        u->current++;
    }
    u->window_count = count;
done:
    return status;
}

/* Takes the optimiser's update back: a_g, and the adjoints of what was before it but for the Hessian's share. */
static int adjoint_step(struct unroll *u, int i) {
    int status = RETORT_OK;
    struct run *run = &u->runs[RUN_ADJOINT];
    int slot = u->window_base + i;
    TRY(bind(run, SLOT_SCALARS, table_row(u, BUFFER_SCALARS, u->window_first + i)));
    TRY(bind(run, SLOT_THETA, theta_at(u, slot)));
    TRY(bind(run, SLOT_GRADIENT, memory_item(&u->memory[BUFFER_GRADIENTS], i)));
    if (run->slot[0][SLOT_OUT_LAMBDA] >= 0)
        TRY(bind_pair(u, run, SLOT_LAMBDA, SLOT_OUT_LAMBDA, BUFFER_LAMBDA));
    else
        TRY(bind(run, SLOT_LAMBDA, memory_now(&u->memory[BUFFER_LAMBDA])));
    for (int k = 0; k < u->states; k++) {
        TRY(bind(run, SLOT_NEW_STATE + (enum slot)k, state_at(u, slot + 1, k)));
        TRY(bind_pair(u, run, SLOT_LAMBDA_STATE + (enum slot)k, SLOT_OUT_LAMBDA_STATE + (enum slot)k,
                      BUFFER_LAMBDA_STATE + (enum buffer_id)k));
    }
    TRY(bind_pair(u, run, SLOT_DLR, SLOT_OUT_DLR, BUFFER_DLR));
    TRY(executable_enqueue(run->executable));
done:
    return status;
}

static enum run_id product_of(const struct unroll *u, int i, int part, enum hessian hessian) {
    if (hessian == HESSIAN_LANCZOS && !part) return RUN_PRODUCT_LOW;
    if (hessian != HESSIAN_EXACT) return RUN_PRODUCT_MIXED;
    return i < u->kept_steps ? RUN_PRODUCT_READING : RUN_PRODUCT;
}

/* The tangents along a_g: the Hessian's product is added to lambda, the mixed derivatives to the set's gradient. A
 * batch in parts leaves these row by row, and one launch adds them all. */
static int product_step(struct unroll *u, int i, enum hessian hessian) {
    int status = RETORT_OK;
    int step = u->window_first + i, slot = u->window_base + i;
    size_t rows = (size_t)(u->spec.batch / u->inner_splits);
    size_t image = (size_t)u->image_elements * FLOAT, label = (size_t)u->spec.network->classes * FLOAT;
    struct run *scatter = &u->runs[RUN_SCATTER], *adds = scatter;
    for (int part = 0; part < u->inner_splits; part++) {
        struct run *run = &u->runs[product_of(u, i, part, hessian)];
        TRY(check_interrupt(u));
        if (run->kept.count)
            TRY(kept_bind(run->executable, &run->kept,
                          place_after(memory_item(&u->memory[BUFFER_KEPT], i), u->kept_part_bytes * (size_t)part)));
        TRY(bind(run, SLOT_THETA, theta_at(u, slot)));
        if (run->slot[0][SLOT_NEW_STATE + 1] >= 0) TRY(bind(run, SLOT_NEW_STATE + 1, state_at(u, slot + 1, 1)));
        TRY(bind_batch(u, run, 0, step, part));
        TRY(bind_pair(u, run, SLOT_LAMBDA, SLOT_OUT_LAMBDA, BUFFER_LAMBDA));
        if (u->inner_splits == 1) {
            adds = run;
            break;
        }
        size_t first = (size_t)part * rows;
        TRY(bind(run, SLOT_IMAGE_TANGENTS, place_after(place_of(u, BUFFER_IMAGE_TANGENTS), first * image)));
        if (u->spec.soft_labels)
            TRY(bind(run, SLOT_LABEL_TANGENTS, place_after(place_of(u, BUFFER_LABEL_TANGENTS), first * label)));
        TRY(executable_enqueue(run->executable));
    }
    if (adds == scatter) {
        TRY(bind(scatter, SLOT_ROWS, table_row(u, BUFFER_ROWS, step)));
        TRY(bind(scatter, SLOT_IMAGE_TANGENTS, place_of(u, BUFFER_IMAGE_TANGENTS)));
        if (u->spec.soft_labels) TRY(bind(scatter, SLOT_LABEL_TANGENTS, place_of(u, BUFFER_LABEL_TANGENTS)));
    }
    TRY(bind(adds, SLOT_SCALARS, table_row(u, BUFFER_SCALARS, step)));
    TRY(bind_pair(u, adds, SLOT_DS, SLOT_OUT_DS, BUFFER_DS));
    if (u->spec.soft_labels) TRY(bind_pair(u, adds, SLOT_DY, SLOT_OUT_DY, BUFFER_DY));
    TRY(executable_enqueue(adds->executable));
done:
    return status;
}

static int read_now(struct unroll *u, enum buffer_id id, void *data) {
    struct place place = memory_now(&u->memory[id]);
    return device_read(u->device, place.buffer, place.offset, u->memory[id].item_bytes, data);
}

static int check_backward(const struct unroll *u, enum hessian hessian) {
    int status = RETORT_OK;
    if (!u->window_count) RAISE(RETORT_EINVAL, "no window has been run to go back through");
    if (hessian == HESSIAN_LANCZOS && !u->has_factor) RAISE(RETORT_EINVAL, "no low-rank Hessian has been computed yet");
    if ((hessian == HESSIAN_NONE) != u->spec.no_hessian)
        RAISE(RETORT_EINVAL, "backward passes %s a Hessian were not planned",
              hessian == HESSIAN_NONE ? "without" : "with");
done:
    return status;
}

/* All members' shares become the gradient by the set. That by the learning rate is everybody's already, but rounded as
 * each one's device does; the first one's is taken. */
static int add_members(struct unroll *u) {
    int status = RETORT_OK;
    const enum buffer_id ids[] = {BUFFER_DS, BUFFER_DLR, BUFFER_DY};
    struct span sums[3];
    if (brings_nothing(u)) TRY(memory_zero(&u->memory[BUFFER_DLR], u->device));
    for (int i = 0; i < 3; i++)
        sums[i] = (struct span){memory_now(&u->memory[ids[i]]), (int64_t)(u->memory[ids[i]].item_bytes / FLOAT)};
    TRY(sum_over_team(u, sums, u->spec.soft_labels ? 3 : 2));
done:
    return status;
}

int unroll_backward(struct unroll *u, struct place terminal, enum hessian hessian, struct unroll_gradient *gradient) {
    int status = RETORT_OK;
    struct memory *lambda = &u->memory[BUFFER_LAMBDA];
    TRY(check_backward(u, hessian));
    lambda->now = 0;
    struct place start = memory_now(lambda);
    TRY(device_copy(u->device, start.buffer, start.offset, terminal.buffer, terminal.offset, lambda->item_bytes));
    for (int k = 0; k < u->states; k++) TRY(memory_zero(&u->memory[BUFFER_LAMBDA_STATE + k], u->device));
    TRY(memory_zero(&u->memory[BUFFER_DLR], u->device));
    TRY(memory_zero(&u->memory[BUFFER_DS], u->device));
    if (u->spec.soft_labels) TRY(memory_zero(&u->memory[BUFFER_DY], u->device));
    for (int i = u->window_count - 1; i >= 0; i--) {
        /* Each member adds its rows' share of the Hessian's product to lambda, which one of them brings along. Nothing
         * is added without a Hessian, and before the first step nobody asks for lambda any more. */
        bool adds = i > 0 && hessian != HESSIAN_NONE;
        TRY(adjoint_step(u, i));
        if (adds && brings_nothing(u)) TRY(memory_zero(lambda, u->device));
        TRY(product_step(u, i, hessian));
        if (adds) TRY(sum_over_team(u, &(struct span){memory_now(lambda), u->p}, 1));
        TRY(device_flush(u->device));
    }
    TRY(add_members(u));
    float lr;
    TRY(read_now(u, BUFFER_DLR, &lr));
    TRY(read_now(u, BUFFER_DS, gradient->images));
    if (u->spec.soft_labels && gradient->labels) TRY(read_now(u, BUFFER_DY, gradient->labels));
    gradient->lr = lr;
done:
    return status;
}
