/* Creation and destruction: the rooms' memory stated once, the fit, buffers, and what never changes once bound. */
#include "unroll/unroll.h"

#include "base/memory.h"
#include "unroll/private.h"

#include <stdio.h>
#include <stdlib.h>

struct memory *unroll_memory(struct unroll *u, int i) {
    if (i < BUFFER_COUNT) return &u->memory[i];
    i -= BUFFER_COUNT;
    return i / PASS_MAX_VALUES < u->spec.pass_count ? &u->passes[i / PASS_MAX_VALUES].memory[i % PASS_MAX_VALUES]
                                                    : NULL;
}

static size_t slot_bytes(const struct unroll *u) {
    return aligned((size_t)u->p * FLOAT) * (size_t)(1 + u->states) + aligned((size_t)u->q * FLOAT);
}

void unroll_size_memory(struct unroll *u) {
    const struct unroll_spec *spec = &u->spec;
    size_t vector = (size_t)u->p * FLOAT, image = (size_t)u->image_elements * FLOAT;
    size_t n = (size_t)spec->set_count, b = (size_t)spec->batch, classes = (size_t)spec->network->classes;
    size_t label = (spec->soft_labels ? classes : 1) * FLOAT, steps = (size_t)spec->steps,
           tests = (size_t)spec->test_batch;
    int64_t networks = u->networks, sets = spec->own_sets ? networks : 1;
    size_t window = spec->max_window > 0, soft = window && spec->soft_labels, m = (size_t)spec->rank;
    size_t parts = u->inner_splits > 1, part = u->kept_steps ? u->kept_part_bytes : 0;
    const struct {
        const char *what;
        size_t item_bytes;
        int64_t items;
    } rows[BUFFER_COUNT] = {
        [BUFFER_STORE] = {"weights and optimiser states of the window", slot_bytes(u),
                          networks * (spec->max_window + 2)},
        [BUFFER_GRADIENTS] = {"gradients of the window", vector, window ? spec->max_window : networks},
        [BUFFER_SUM] = {"sums of gradients", parts || m ? vector : 0, 2},
        [BUFFER_LOSS_SUM] = {"sums of losses", parts ? FLOAT : 0, 2},
        [BUFFER_SET_IMAGES] = {"images of the set", n * image, sets},
        [BUFFER_SET_LABELS] = {"labels of the set", n * label, sets},
        [BUFFER_SEED] = {"seed", (size_t)networks * 2 * sizeof(int32_t), 1},
        [BUFFER_SCALARS] = {"scalars of the steps", steps * table_row_bytes(u, BUFFER_SCALARS), 1},
        [BUFFER_ROWS] = {"mini-batch rows", steps * table_row_bytes(u, BUFFER_ROWS), 1},
        [BUFFER_MAPS] = {"augmentation maps", steps * table_row_bytes(u, BUFFER_MAPS), 1},
        [BUFFER_COLOUR] = {"augmentation colours", steps * table_row_bytes(u, BUFFER_COLOUR), 1},
        [BUFFER_LOSSES] = {"inner losses", steps * table_row_bytes(u, BUFFER_LOSSES), 1},
        [BUFFER_NORMS] = {"gradient norms", steps * table_row_bytes(u, BUFFER_NORMS), 1},
        [BUFFER_TEST_IMAGES] = {"images of a test batch", tests * image, 1},
        [BUFFER_TEST_LABELS] = {"labels of a test batch", tests * FLOAT, 1},
        [BUFFER_TEST_CORRECT] = {"right answers of a test batch", tests ? (size_t)networks * FLOAT : 0, 1},
        [BUFFER_LAMBDA] = {"adjoints of the weights", window * vector, 2},
        [BUFFER_LAMBDA_STATE] = {"adjoints of the optimiser's first state", u->states > 0 ? window * vector : 0, 2},
        [BUFFER_LAMBDA_STATE + 1] = {"adjoints of the optimiser's second state", u->states > 1 ? window * vector : 0,
                                     2},
        [BUFFER_DLR] = {"gradients by the learning rate", window * FLOAT, 2},
        [BUFFER_DS] = {"gradients by the images", window * n * image, 2},
        [BUFFER_DY] = {"gradients by the labels", soft * n * label, 2},
        [BUFFER_A_G] = {"adjoint of the gradient", window * vector, 1},
        [BUFFER_IMAGE_TANGENTS] = {"tangents of a batch's images", window * parts * b * image, 1},
        [BUFFER_LABEL_TANGENTS] = {"tangents of a batch's labels", soft * parts * b * label, 1},
        [BUFFER_KEPT] = {"values kept for the backward pass", part * (size_t)u->inner_splits, u->kept_steps},
        [BUFFER_KEPT_SPARE] = {"spare place for values that are not kept", part, 1},
        [BUFFER_BASIS] = {"Lanczos basis", m ? (m + 1) * vector : 0, 1},
        [BUFFER_VECTORS] = {"vectors of the low-rank Hessian", m * vector, 1},
        [BUFFER_PROJECTIONS] = {"Lanczos projections", m * (m + 1) * FLOAT, 1},
        [BUFFER_BETA] = {"Lanczos norms", m * FLOAT, 1},
        [BUFFER_EIGENVALUES] = {"eigenvalues of the low-rank Hessian", m * FLOAT, 1},
    };
    uint64_t most = device_traits(u->device)->max_allocation;
    for (int i = 0; i < BUFFER_COUNT; i++)
        memory_size(&u->memory[i], rows[i].what, rows[i].item_bytes, rows[i].items, most);
    for (int i = 0; i < spec->pass_count; i++) pass_size_memory(&u->passes[i], most);
}

/* Of a network: its set, where it has its own, and its seed. */
static int bind_fixed_of(struct unroll *u, struct run *run, int network) {
    int status = RETORT_OK;
    const int *slots = run->slot[network];
    int set = u->spec.own_sets ? network : 0;
    if (slots[SLOT_SET_IMAGES] >= 0)
        TRY(bind_of(run, network, SLOT_SET_IMAGES, memory_item(&u->memory[BUFFER_SET_IMAGES], set)));
    if (slots[SLOT_SET_LABELS] >= 0)
        TRY(bind_of(run, network, SLOT_SET_LABELS, memory_item(&u->memory[BUFFER_SET_LABELS], set)));
    if (slots[SLOT_SEED] >= 0)
        TRY(bind_of(run, network, SLOT_SEED,
                    place_after(place_of(u, BUFFER_SEED), (size_t)network * 2 * sizeof(int32_t))));
done:
    return status;
}

/* Where what never changes from step to step lies, for every executable that has a slot of the name. */
static int bind_fixed(struct unroll *u) {
    int status = RETORT_OK;
    static const struct {
        enum slot slot;
        enum buffer_id buffer;
    } fixed[] = {
        {SLOT_A_G, BUFFER_A_G},
        {SLOT_IMAGES, BUFFER_TEST_IMAGES},
        {SLOT_LABELS, BUFFER_TEST_LABELS},
        {SLOT_EIGENVALUES, BUFFER_EIGENVALUES},
        {SLOT_VECTORS, BUFFER_VECTORS},
        {SLOT_PROJECTIONS, BUFFER_PROJECTIONS},
        {SLOT_NORMS, BUFFER_BETA},
    };
    for (int id = 0; id < RUN_COUNT; id++) {
        struct run *run = &u->runs[id];
        for (size_t i = 0; run->executable && i < sizeof fixed / sizeof *fixed; i++)
            if (run->slot[0][fixed[i].slot] >= 0) TRY(bind(run, fixed[i].slot, place_of(u, fixed[i].buffer)));
        /* The recurrence reads the basis as it grows, the backward step the factor made of it. */
        if (run->executable && run->slot[0][SLOT_BASIS] >= 0)
            TRY(bind(run, SLOT_BASIS, place_of(u, id == RUN_PRODUCT_LOW ? BUFFER_VECTORS : BUFFER_BASIS)));
        for (int k = 0; run->executable && k < u->networks; k++) TRY(bind_fixed_of(u, run, k));
    }
done:
    return status;
}

static int check_spec(const struct unroll_spec *spec, int rank) {
    int status = RETORT_OK;
    if (rank > LANCZOS_MAX_RANK) RAISE(RETORT_EINVAL, "a Hessian of rank %d: at most %d", rank, LANCZOS_MAX_RANK);
    if (spec->networks > 1 && (spec->max_window || spec->pass_count || rank))
        RAISE(RETORT_EINVAL, "%d networks as one batch: they can be trained and tested, nothing more", spec->networks);
    if (spec->pass_count > UNROLL_MAX_PASSES)
        RAISE(RETORT_EINVAL, "%d passes: at most %d", spec->pass_count, UNROLL_MAX_PASSES);
    for (int i = 0; i < spec->pass_count; i++)
        if (spec->passes[i].batch < 1 || spec->passes[i].value_count > PASS_MAX_VALUES)
            RAISE(
                RETORT_EINVAL, "the %s has %lld rows and %d values: 1 row at least and %d values at most are possible",
                spec->passes[i].label, (long long)spec->passes[i].batch, spec->passes[i].value_count, PASS_MAX_VALUES);
done:
    return status;
}

int unroll_create(struct library *library, const struct unroll_spec *spec, struct unroll **out) {
    int status = RETORT_OK;
    struct unroll *u = calloc(1, sizeof *u);
    if (!u) RAISE(RETORT_ENOMEM, "out of memory preparing the inner training");
    u->spec = *spec;
    u->spec.pass_count = 0;
    u->library = library;
    u->device = library_device(library);
    u->p = spec->network->theta_count;
    u->q = spec->network->stats_count;
    u->image_elements = (int64_t)spec->network->channels * spec->network->height * spec->network->width;
    u->states = optimizer_state_count(&spec->optimizer);
    if (spec->rank >= u->p) u->spec.rank = (int)u->p - 1;
    TRY(check_spec(spec, u->spec.rank));
    TRY(divide(u, spec));
    for (int i = 0; i < spec->pass_count; i++) pass_init(u, &u->passes[i], &spec->passes[i]);
    u->spec.pass_count = spec->pass_count;
    if (spec->frozen)
        TRY(fit_take(u, spec->frozen));
    else
        TRY(fit_search(u));
    u->spec.frozen = NULL;
    u->spec.passes = NULL;
    u->spec.shares = NULL;
    u->table_rows = spec->steps;
    if (!spec->plan_only) {
        struct memory *row;
        TRY(library_build(library));
        TRY(library_rehearse(library));
        for (int i = 0; (row = unroll_memory(u, i)); i++) TRY(memory_create(row, u->device));
        TRY(bind_fixed(u));
    }
    *out = u;
    u = NULL;
done:
    unroll_destroy(u);
    return status;
}

void unroll_destroy(struct unroll *u) {
    if (!u) return;
    for (int i = 0; i < RUN_COUNT; i++) {
        executable_destroy(u->runs[i].executable);
        kept_finish(&u->runs[i].kept);
    }
    for (int i = 0; i < u->spec.pass_count; i++) pass_finish(&u->passes[i]);
    for (int i = 0; i < BUFFER_COUNT; i++) memory_finish(&u->memory[i]);
    free(u->exchange);
    free(u);
}

struct pass *unroll_pass(struct unroll *u, int i) {
    return &u->passes[i];
}

int check_interrupt(const struct unroll *u) {
    if (!u->spec.interrupt || !*u->spec.interrupt) return RETORT_OK;
    return error_set(RETORT_EINTERRUPTED, "interrupted");
}

int bind_pair(struct unroll *u, struct run *run, enum slot in, enum slot out, enum buffer_id pair) {
    struct memory *row = &u->memory[pair];
    int status = bind(run, in, memory_now(row));
    if (status >= 0) status = bind(run, out, memory_other(row));
    row->now = !row->now;
    return status;
}

/* --- what there is to know --- */
void unroll_plan(const struct unroll *u, struct unroll_plan *plan) {
    *plan = (struct unroll_plan){.networks = u->networks,
                                 .inner_splits = u->inner_splits,
                                 .meta_splits = u->pass_splits,
                                 .test_batch = u->spec.test_batch,
                                 .kept_steps = u->kept_steps,
                                 .compute_units = (int)device_traits(u->device)->compute_units};
}

uint64_t unroll_bytes(const struct unroll *u) {
    uint64_t bytes = fit_scratch_bytes(u);
    const struct memory *row;
    for (int i = 0; (row = unroll_memory((struct unroll *)u, i)); i++) bytes += memory_bytes(row);
    return bytes;
}

static void describe_batch(const struct unroll *u, const char *label, int64_t batch, int parts, struct text *words) {
    text_printf(words, "%s batch %lld in %d, ", label, (long long)batch, parts);
    if (!is_divided(u)) return;
    int64_t first = share_first(&u->share, batch), last = first + share_count(&u->share, batch) - 1;
    text_printf(words, first == last ? "row %lld here, " : "rows %lld to %lld here, ", (long long)first,
                (long long)last);
}

void unroll_describe(const struct unroll *u, char *text, size_t size) {
    struct text words;
    text_init(&words);
    if (u->networks > 1) text_printf(&words, "%d networks at once, ", u->networks);
    if (u->spec.batch) describe_batch(u, "inner", u->whole_batch, u->inner_splits, &words);
    for (int i = 0; i < u->spec.pass_count; i++)
        describe_batch(u, u->passes[i].spec.label, u->passes[i].spec.batch, u->passes[i].parts, &words);
    if (u->kept_steps) text_printf(&words, "values kept of %d of %d window steps, ", u->kept_steps, u->spec.max_window);
    text_printf(&words, "%.1f MB", (double)unroll_bytes(u) * 1e-6);
    snprintf(text, size, "%s", text_get(&words));
    text_finish(&words);
}

int unroll_kept_steps(const struct unroll *u) {
    return u->kept_steps;
}

void unroll_print(const struct unroll *u, bool launches, FILE *stream) {
    for (int i = 0; i < RUN_COUNT; i++)
        if (u->runs[i].executable) executable_print(u->runs[i].executable, launches, stream);
    for (int i = 0; i < u->spec.pass_count; i++) executable_print(u->passes[i].executable, launches, stream);
}

bool unroll_memory_use(const struct unroll *u, int i, struct memory_use *use) {
    const struct memory *row = unroll_memory((struct unroll *)u, i);
    if (!row && i && !unroll_memory((struct unroll *)u, i - 1)) return false;
    uint64_t bytes = row ? memory_bytes(row) : fit_scratch_bytes(u);
    uint64_t largest = row ? memory_largest_bytes(row) : bytes;
    int pass = (i - BUFFER_COUNT) / PASS_MAX_VALUES;
    *use = (struct memory_use){.of = row && i >= BUFFER_COUNT ? u->passes[pass].spec.label : NULL,
                               .what = row ? row->what : "scratch memory", /* NULL where a pass has no such value */
                               .bytes = bytes,
                               .buffers = bytes ? (int)((bytes + largest - 1) / largest) : 0};
    return true;
}

void unroll_print_memory(const struct unroll *u, FILE *stream) {
    struct memory_use use;
    for (int i = 0; unroll_memory_use(u, i, &use); i++)
        if (use.bytes)
            fprintf(stream, "%12.3f MB in %d  %s%s%s\n", (double)use.bytes * 1e-6, use.buffers, use.of ? use.of : "",
                    use.of ? ": " : "", use.what);
}

static double flops_of(const struct unroll *u, enum run_id id) {
    return u->runs[id].executable ? executable_flops(u->runs[id].executable) : 0;
}

double unroll_flops(const struct unroll *u, int prefix, int window) {
    double step = u->inner_splits * flops_of(u, RUN_GRADIENT) + flops_of(u, RUN_UPDATE);
    int reading = window < u->kept_steps ? window : u->kept_steps;
    double back = window * flops_of(u, RUN_ADJOINT), passes = 0;
    back +=
        u->inner_splits * ((window - reading) * flops_of(u, RUN_PRODUCT) + reading * flops_of(u, RUN_PRODUCT_READING));
    for (int i = 0; i < u->spec.pass_count; i++)
        passes += u->passes[i].parts * executable_flops(u->passes[i].executable);
    return (prefix + window) * step + passes + back;
}

static int launches_of(const struct unroll *u, enum run_id id) {
    return u->runs[id].executable ? executable_launch_count(u->runs[id].executable) : 0;
}

int unroll_launches(const struct unroll *u, int prefix, int window) {
    int parts = u->inner_splits, reading = window < u->kept_steps ? window : u->kept_steps;
    int step =
        launches_of(u, RUN_GRADIENT) + (parts - 1) * launches_of(u, RUN_GRADIENT_MORE) + launches_of(u, RUN_UPDATE);
    int back = window * (launches_of(u, RUN_ADJOINT) + (parts > 1 ? launches_of(u, RUN_SCATTER) : 0));
    back += parts * ((window - reading) * launches_of(u, RUN_PRODUCT) + reading * launches_of(u, RUN_PRODUCT_READING));
    int passes = 0;
    for (int i = 0; i < u->spec.pass_count; i++)
        passes += u->passes[i].parts * executable_launch_count(u->passes[i].executable);
    return launches_of(u, RUN_INITIAL) + (prefix + window) * step + passes + back;
}
