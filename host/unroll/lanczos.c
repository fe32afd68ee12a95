#include "unroll/lanczos.h"

#include "compile/kernels.h"
#include "unroll/private.h"

_Static_assert((int)LANCZOS_MAX_RANK == (int)KERNELS_EIGH_MAX, "the largest rank is the largest eigenproblem");

/* The Hessian times a vector [p], on the rows of table step `step`, into the current sum. */
static int hessian_product(struct unroll *u, int step, struct place vector) {
    int status = RETORT_OK;
    struct run *run = &u->runs[RUN_LANCZOS_PRODUCT];
    TRY(memory_zero(&u->memory[BUFFER_SUM], u->device));
    TRY(bind(run, SLOT_VECTOR, vector));
    for (int part = 0; part < u->inner_splits; part++) {
        TRY(check_interrupt(u));
        TRY(bind_batch(u, run, 0, step, part));
        TRY(bind_pair(u, run, SLOT_PRODUCT_IN, SLOT_PRODUCT, BUFFER_SUM));
        TRY(executable_enqueue(run->executable));
    }
done:
    return status;
}

int unroll_lanczos(struct unroll *u, int step, uint64_t seed) {
    int status = RETORT_OK;
    size_t vector = (size_t)u->p * FLOAT, m = (size_t)u->spec.rank;
    const int32_t halves[2] = {(int32_t)(uint32_t)seed, (int32_t)(uint32_t)(seed >> 32)};
    const struct memory *sum = &u->memory[BUFFER_SUM];
    struct run *start = &u->runs[RUN_LANCZOS_START], *unit = &u->runs[RUN_LANCZOS_UNIT];
    struct run *next = &u->runs[RUN_LANCZOS_NEXT], *finish = &u->runs[RUN_LANCZOS_FINISH];
    struct place basis = place_of(u, BUFFER_BASIS), vectors = place_of(u, BUFFER_VECTORS);
    if (!m) RAISE(RETORT_EINVAL, "no low-rank Hessian was planned");
    TRY(check_steps(u, step, 1));
    u->has_factor = false;
    TRY(device_write(u->device, place_of(u, BUFFER_SEED).buffer, 0, sizeof halves, halves));
    TRY(device_fill_zero(u->device, basis.buffer, basis.offset, (m + 1) * vector));
    TRY(bind(&u->runs[RUN_LANCZOS_PRODUCT], SLOT_THETA, theta_at(u, u->current)));
    /* The start vector is a product itself: nothing of it lies where the Hessian is zero (dead biases, dead units). */
    TRY(bind(start, SLOT_VECTOR, vectors));
    TRY(executable_enqueue(start->executable));
    TRY(hessian_product(u, step, vectors));
    TRY(bind(unit, SLOT_PRODUCT, memory_now(sum)));
    TRY(bind(unit, SLOT_VECTOR, basis));
    TRY(executable_enqueue(unit->executable));
    for (size_t j = 0; j < m; j++) {
        struct place made = place_after(basis, (j + 1) * vector);
        TRY(hessian_product(u, step, place_after(basis, j * vector)));
        /* The next vector is made beside the basis, which the same launches read, and copied there. */
        struct place beside = memory_other(sum);
        TRY(bind(next, SLOT_PRODUCT, memory_now(sum)));
        TRY(bind(next, SLOT_PROJECTION, place_after(place_of(u, BUFFER_PROJECTIONS), j * (m + 1) * FLOAT)));
        TRY(bind(next, SLOT_NORM, place_after(place_of(u, BUFFER_BETA), j * FLOAT)));
        TRY(bind(next, SLOT_NEXT, beside));
        TRY(executable_enqueue(next->executable));
        TRY(device_copy(u->device, made.buffer, made.offset, beside.buffer, beside.offset, vector));
        TRY(device_flush(u->device));
    }
    TRY(executable_enqueue(finish->executable));
    u->has_factor = true;
done:
    return status;
}

int unroll_read_eigenvalues(struct unroll *u, float *eigenvalues) {
    return device_read(u->device, place_of(u, BUFFER_EIGENVALUES).buffer, 0, (size_t)u->spec.rank * FLOAT, eigenvalues);
}

int64_t unroll_factor_count(const struct unroll *u) {
    return u->spec.rank ? u->spec.rank * (u->p + 1) : 0;
}

int unroll_read_factor(struct unroll *u, float *factor) {
    size_t values = (size_t)u->spec.rank * (size_t)u->p;
    int status = device_read(u->device, place_of(u, BUFFER_VECTORS).buffer, 0, values * FLOAT, factor);
    return status < 0 ? status : unroll_read_eigenvalues(u, factor + values);
}

int unroll_write_factor(struct unroll *u, const float *factor) {
    size_t m = (size_t)u->spec.rank, values = m * (size_t)u->p;
    int status = device_write(u->device, place_of(u, BUFFER_VECTORS).buffer, 0, values * FLOAT, factor);
    if (status >= 0)
        status = device_write(u->device, place_of(u, BUFFER_EIGENVALUES).buffer, 0, m * FLOAT, factor + values);
    if (status >= 0) u->has_factor = true;
    return status;
}
