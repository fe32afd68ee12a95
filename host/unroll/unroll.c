/* Compiled inner steps and their replay: device memory, tables, the order of launches. graphs.c has the mathematics. */
#include "unroll/unroll.h"

#include "base/error.h"
#include "base/log.h"
#include "unroll/graphs.h"
#include "unroll/kept.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define FLOAT          sizeof(float)
#define COLOUR_SCALARS 8

/* A quantity that is read and written anew in one launch list: two places, `now` the current one. Offsets in bytes. */
struct pair {
    size_t at[2];
    int now;
};

/* The tables of uploaded steps: grown when a longer run is uploaded. */
struct table {
    struct device_buffer *buffer;
    size_t row_bytes, rows;
};

struct unroll {
    struct unroll_spec spec;
    struct library *library;
    struct device *device;
    int64_t p, q;
    int states;
    int inner_splits, meta_splits; /* micro-batches */
    int64_t inner_batch, meta_batch;

    struct executable *initial, *gradient, *gradient_more, *probe, *probe_more, *update;
    struct executable *adjoint, *product, *product_reading, *product_low, *product_low_more, *meta, *test;
    struct executable *lanczos_start, *lanczos_unit, *lanczos_product, *lanczos_next, *lanczos_finish;

    /* Slots of the store: theta, states, gradient, stats. Window step i reads slot base + i, writes slot base + i + 1.
     */
    struct device_buffer *store;
    size_t slot_bytes;
    int slot_count, current, time; /* time: inner steps done in this run */
    int window_base;               /* slot of the last window's first step */
    struct kept kept;              /* empty where there is no product_reading */

    struct device_buffer *adjoints; /* all pairs, a_g, and room for accumulated gradients */
    size_t adjoint_bytes;
    struct pair lambda, lambda_state[OPTIMIZER_MAX_STATE], dlr, ds, dy, loss, correct, sum;
    size_t a_g, meta_lambda; /* meta_lambda: a copy of the meta-loss gradient, for a second backward pass */

    struct device_buffer *set_images, *set_labels, *real_images, *real_targets, *real_labels, *real_maps;
    struct device_buffer *test_images, *test_labels, *seed, *counts;
    struct table scalars, rows, maps, colour, losses, norms;
    struct device_buffer *basis, *vectors, *lanczos; /* lanczos: projections, norms, eigenvalues */
    bool has_factor;
};

static int64_t image_size(const struct unroll *u) {
    const struct network *net = u->spec.network;
    return (int64_t)net->channels * net->height * net->width;
}

/* --- compiling --- */
static int compile(struct unroll *u, struct graph *graph, const char *label, struct executable **executable) {
    if (!graph) {
        error_context("building the %s", label);
        return RETORT_EINVAL;
    }
    executable_destroy(*executable);
    *executable = NULL;
    int status = executable_create(u->library, graph, label, executable);
    graph_destroy(graph);
    return status;
}

static int compile_gradients(struct unroll *u) {
    int status = RETORT_OK;
    const struct unroll_spec *spec = &u->spec;
    struct graph *(*gradient)(const struct unroll_spec *, int64_t, double, bool, bool) =
        u->product_reading ? graph_gradient_keeping : graph_gradient;
    int64_t batch = u->inner_batch;
    double share = 1.0 / u->inner_splits;
    TRY(compile(u, gradient(spec, batch, share, false, false), "inner gradient", &u->gradient));
    TRY(compile(u, gradient(spec, batch, share, false, true), "probed inner gradient", &u->probe));
    if (u->inner_splits > 1) {
        TRY(compile(u, gradient(spec, batch, share, true, false), "accumulated inner gradient", &u->gradient_more));
        TRY(compile(u, gradient(spec, batch, share, true, true), "accumulated probed gradient", &u->probe_more));
    }
done:
    return status;
}

static int compile_inner(struct unroll *u) {
    int status = RETORT_OK;
    const struct unroll_spec *spec = &u->spec;
    int64_t batch = u->inner_batch = spec->batch / u->inner_splits;
    double share = 1.0 / u->inner_splits;
    TRY(compile_gradients(u));
    if (spec->max_window) {
        TRY(compile(u, graph_product(spec, batch, share, false, false), "backward step", &u->product));
        if (spec->rank) {
            TRY(compile(u, graph_product(spec, batch, share, true, true), "low-rank backward step", &u->product_low));
            if (u->inner_splits > 1)
                TRY(compile(u, graph_product(spec, batch, share, true, false), "mixed backward step",
                            &u->product_low_more));
        }
    }
    if (spec->rank) TRY(compile(u, graph_lanczos_product(spec, batch, share), "Hessian product", &u->lanczos_product));
done:
    return status;
}

static int compile_meta(struct unroll *u) {
    if (!u->spec.meta_batch) return RETORT_OK;
    u->meta_batch = (u->spec.meta_batch + u->meta_splits - 1) / u->meta_splits;
    return compile(u, graph_meta(&u->spec, u->meta_batch), "meta-loss", &u->meta);
}

static int compile_rest(struct unroll *u) {
    int status = RETORT_OK;
    const struct unroll_spec *spec = &u->spec;
    TRY(compile(u, graph_initial(spec), "initial weights", &u->initial));
    TRY(compile(u, graph_update(spec), "weight update", &u->update));
    if (spec->max_window) TRY(compile(u, graph_adjoint(spec), "update's adjoint", &u->adjoint));
    if (spec->test_batch) TRY(compile(u, graph_test(spec), "test", &u->test));
    if (spec->rank) {
        TRY(compile(u, graph_lanczos_start(spec), "Lanczos start", &u->lanczos_start));
        TRY(compile(u, graph_lanczos_unit(spec), "Lanczos vector", &u->lanczos_unit));
        TRY(compile(u, graph_lanczos_next(spec), "Lanczos step", &u->lanczos_next));
        TRY(compile(u, graph_lanczos_finish(spec), "Lanczos end", &u->lanczos_finish));
    }
done:
    return status;
}

/* --- memory --- */
static size_t reserve(size_t *total, size_t bytes) {
    size_t at = *total;
    *total = at + aligned(bytes ? bytes : 4);
    return at;
}

static void reserve_pair(size_t *total, struct pair *pair, size_t bytes) {
    pair->at[0] = reserve(total, bytes);
    pair->at[1] = reserve(total, bytes);
    pair->now = 0;
}

static void lay_out(struct unroll *u) {
    const struct unroll_spec *spec = &u->spec;
    size_t vector = (size_t)u->p * FLOAT, total = 0;
    u->slot_bytes = aligned(vector) * (size_t)(2 + u->states) + aligned((size_t)u->q * FLOAT);
    u->slot_count = spec->max_window + 2;
    if (spec->max_window) {
        reserve_pair(&total, &u->lambda, vector);
        for (int i = 0; i < u->states; i++) reserve_pair(&total, &u->lambda_state[i], vector);
        reserve_pair(&total, &u->dlr, FLOAT);
        reserve_pair(&total, &u->ds, (size_t)(spec->set_count * image_size(u)) * FLOAT);
        if (spec->soft_labels) reserve_pair(&total, &u->dy, (size_t)(spec->set_count * spec->network->classes) * FLOAT);
        reserve_pair(&total, &u->loss, FLOAT);
        reserve_pair(&total, &u->correct, FLOAT);
        u->a_g = reserve(&total, vector);
        u->meta_lambda = reserve(&total, vector);
    }
    if (u->inner_splits > 1 || spec->rank) reserve_pair(&total, &u->sum, vector);
    u->adjoint_bytes = total ? total : 128;
    u->scalars.row_bytes = OPTIMIZER_SCALARS * FLOAT;
    u->rows.row_bytes = (size_t)spec->batch * FLOAT;
    u->maps.row_bytes = spec->augment ? (size_t)spec->batch * 6 * FLOAT : 0;
    u->colour.row_bytes = spec->colour ? (size_t)spec->batch * COLOUR_SCALARS * FLOAT : 0;
    u->losses.row_bytes = u->norms.row_bytes = FLOAT;
}

/* All there may be; those that are not compiled are NULL. */
#define EXECUTABLES 18
static void list_executables(const struct unroll *u, struct executable *all[EXECUTABLES]) {
    struct executable *list[EXECUTABLES] = {
        u->initial, u->gradient,      u->gradient_more,   u->probe,           u->probe_more,       u->update,
        u->adjoint, u->product,       u->product_reading, u->product_low,     u->product_low_more, u->meta,
        u->test,    u->lanczos_start, u->lanczos_unit,    u->lanczos_product, u->lanczos_next,     u->lanczos_finish};
    memcpy(all, list, sizeof list);
}

/* The batch whose executables need the most scratch memory, and how much. */
enum batch_kind { BATCH_INNER, BATCH_META, BATCH_TEST };
static size_t largest_arena(const struct unroll *u, enum batch_kind *kind) {
    struct executable *all[EXECUTABLES];
    list_executables(u, all);
    size_t largest = 0;
    *kind = BATCH_INNER;
    for (size_t i = 0; i < EXECUTABLES; i++) {
        if (!all[i] || executable_arena_bytes(all[i]) <= largest) continue;
        largest = executable_arena_bytes(all[i]);
        *kind = all[i] == u->test ? BATCH_TEST : all[i] == u->meta ? BATCH_META : BATCH_INNER;
    }
    return largest;
}

/* Bytes of everything but the scratch memory, tables of spec.steps steps included. */
static size_t fixed_bytes(const struct unroll *u) {
    const struct unroll_spec *spec = &u->spec;
    const struct network *net = spec->network;
    size_t image = (size_t)image_size(u) * FLOAT, k = (size_t)net->classes;
    size_t real = (size_t)(u->meta_batch * u->meta_splits);
    size_t labels = spec->soft_labels ? k : 1, maps = spec->meta_augment ? 6 : 0;
    size_t total = u->slot_bytes * (size_t)u->slot_count + u->adjoint_bytes;
    total += (size_t)spec->set_count * (image + labels * FLOAT) + (size_t)spec->test_batch * (image + FLOAT);
    total += real * (image + (k + 1 + maps) * FLOAT);
    size_t m = (size_t)spec->rank;
    if (m) total += ((2 * m + 1) * (size_t)u->p + m * (m + 1) + 2 * m) * FLOAT;
    const struct table *tables[] = {&u->scalars, &u->rows, &u->maps, &u->colour, &u->losses, &u->norms};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) total += (size_t)spec->steps * tables[i]->row_bytes;
    return total + 12 + kept_bytes(&u->kept); /* 12: seed and count */
}

/* Bytes on the device once everything is allocated, that of others included. */
static uint64_t needed_bytes(const struct unroll *u, enum batch_kind *kind) {
    size_t arena = largest_arena(u, kind), scratch = library_scratch_bytes(u->library);
    return device_bytes(u->device) - scratch + fixed_bytes(u) + (arena > scratch ? arena : scratch);
}

static int64_t next_divisor(int64_t of, int64_t after) {
    for (int64_t d = after + 1; d <= of; d++)
        if (of % d == 0) return d;
    return 0;
}

/* The number of parts to split a batch into next; 0 where it cannot be split. */
static int next_splits(const struct unroll *u, enum batch_kind kind) {
    bool can_split = u->q == 0;
    switch (kind) {
    case BATCH_TEST:
        return u->spec.test_batch > 1 ? 2 : 0;
    case BATCH_META:
        if (!can_split || u->meta_batch <= 1) return 0;
        return (int)((u->spec.meta_batch + u->meta_batch / 2 - 1) / (u->meta_batch / 2));
    default:
        return can_split ? (int)next_divisor(u->spec.batch, u->inner_splits) : 0;
    }
}

static int split(struct unroll *u, enum batch_kind kind, int splits) {
    int status = RETORT_OK;
    if (kind == BATCH_TEST) {
        u->spec.test_batch = (u->spec.test_batch + splits - 1) / splits;
        TRY(compile(u, graph_test(&u->spec), "test", &u->test));
    } else if (kind == BATCH_META) {
        u->meta_splits = splits;
        TRY(compile_meta(u));
    } else {
        u->inner_splits = splits;
        TRY(compile_inner(u));
    }
done:
    return status;
}

/* On a CPU, whether a batch is faster in parts: values that overflow the last cache wait for memory, while parts of a
 * few images lose more than that to what is done once a part (transforming weights, adding gradients). */
static bool is_faster_split(const struct unroll *u, enum batch_kind kind, size_t arena) {
    enum { PART_IMAGES = 24 };
    const struct device_traits *traits = device_traits(u->device);
    const int64_t batch[] = {
        [BATCH_INNER] = u->spec.batch, [BATCH_META] = u->spec.meta_batch, [BATCH_TEST] = u->spec.test_batch};
    int splits = next_splits(u, kind);
    return traits->kind == DEVICE_CPU && arena > traits->cache / 2 && splits && batch[kind] / splits >= PART_IMAGES;
}

/* Bytes that the ceiling leaves. */
static uint64_t room(const struct unroll *u, uint64_t ceiling) {
    enum batch_kind kind;
    uint64_t needed = needed_bytes(u, &kind), memory = device_traits(u->device)->global_memory;
    if (ceiling > memory) ceiling = memory;
    return ceiling > needed ? ceiling - needed : 0;
}

/* Where a ceiling leaves room, the first steps of a window keep values for their backward steps, as many as fit.
 * Without a ceiling memory is to stay small. With a low-rank Hessian nothing is kept: most backward passes are then
 * low-rank ones, whose products need other values. */
static int fit_kept(struct unroll *u, uint64_t ceiling) {
    int status = RETORT_OK;
    const struct unroll_spec *spec = &u->spec;
    if (!ceiling || !spec->max_window || spec->rank) goto done;
    TRY(compile(u, graph_product_reading(spec, u->inner_batch, 1.0 / u->inner_splits), "backward step on kept values",
                &u->product_reading));
    TRY(compile_gradients(u));
    kept_plan(&u->kept, u->product_reading, u->inner_splits);
    /* The plain backward step and its scratch memory are only needed where not all steps are kept. */
    struct executable *product = u->product;
    u->product = NULL;
    int steps = kept_steps_in(&u->kept, device_traits(u->device), room(u, ceiling));
    if (steps < spec->max_window) {
        u->product = product;
        product = NULL;
        steps = kept_steps_in(&u->kept, device_traits(u->device), room(u, ceiling));
    }
    executable_destroy(product);
    u->kept.step_count = steps < spec->max_window ? steps : spec->max_window;
    if (!steps) {
        kept_finish(&u->kept);
        executable_destroy(u->product_reading);
        u->product_reading = NULL;
        TRY(compile_gradients(u));
    }
done:
    return status;
}

/* Takes over a plan made earlier, in place of a search. */
static int take_plan(struct unroll *u, const struct unroll_plan *plan) {
    int status = RETORT_OK;
    const struct unroll_spec *spec = &u->spec;
    unsigned units = device_traits(u->device)->compute_units;
    uint64_t ceiling = device_ceiling(u->device);
    if (plan->compute_units != (int)units)
        RAISE(RETORT_EINVAL, "the plan was made for %d compute units, but the device is set to %u", plan->compute_units,
              units);
    bool whole = plan->inner_splits == 1 && plan->meta_splits == 1;
    if (plan->inner_splits < 1 || spec->batch % plan->inner_splits || plan->meta_splits < 1
        || (spec->meta_batch && plan->meta_splits > spec->meta_batch) || (u->q && !whole)
        || plan->test_batch > spec->test_batch || (spec->test_batch > 0) != (plan->test_batch > 0)
        || plan->kept_steps < 0 || plan->kept_steps > spec->max_window || (plan->kept_steps && spec->rank))
        RAISE(
            RETORT_EINVAL,
            "the plan (inner batch in %d, meta-loss batch in %d, test batch %lld, values kept of %d steps) does not go "
            "with this training",
            plan->inner_splits, plan->meta_splits, (long long)plan->test_batch, plan->kept_steps);
    u->inner_splits = plan->inner_splits;
    u->meta_splits = plan->meta_splits;
    u->spec.test_batch = plan->test_batch;
    if (plan->kept_steps) {
        TRY(compile(u, graph_product_reading(spec, spec->batch / u->inner_splits, 1.0 / u->inner_splits),
                    "backward step on kept values", &u->product_reading));
        kept_plan(&u->kept, u->product_reading, u->inner_splits);
        u->kept.step_count = plan->kept_steps;
    }
    TRY(compile_inner(u));
    if (plan->kept_steps && plan->kept_steps == spec->max_window) {
        executable_destroy(u->product);
        u->product = NULL;
    }
    TRY(compile_meta(u));
    TRY(compile_rest(u));
    lay_out(u);
    enum batch_kind kind;
    uint64_t needed = needed_bytes(u, &kind);
    if (ceiling && needed > ceiling)
        RAISE(RETORT_ELIMIT,
              "the plan this run began with needs %.1f MB, more than the memory ceiling of %.1f MB: raise `memory`",
              (double)needed * 1e-6, (double)ceiling * 1e-6);
done:
    return status;
}

/* Splits batches until everything fits under the ceiling and, on CPUs, as far as that is faster. */
static int fit(struct unroll *u) {
    int status = RETORT_OK;
    uint64_t ceiling = device_ceiling(u->device);
    u->inner_splits = u->meta_splits = 1;
    TRY(compile_inner(u));
    TRY(compile_meta(u));
    TRY(compile_rest(u));
    for (;;) {
        lay_out(u);
        enum batch_kind kind;
        uint64_t needed = needed_bytes(u, &kind);
        bool fits = !ceiling || needed <= ceiling;
        if (fits && !is_faster_split(u, kind, largest_arena(u, &kind))) break;
        int splits = next_splits(u, kind);
        if (!splits)
            RAISE(
                RETORT_ELIMIT,
                "the memory ceiling of %.1f MB does not suffice: at least %.1f MB are needed (%.1f MB of them for the "
                "window of %d steps); raise `memory`, or lower method.window, network.width or the batches%s",
                (double)ceiling * 1e-6, (double)needed * 1e-6, (double)(u->slot_bytes * (size_t)u->slot_count) * 1e-6,
                u->spec.max_window, u->q ? " (batch norm cannot be split into micro-batches)" : "");
        TRY(split(u, kind, splits));
    }
    TRY(fit_kept(u, ceiling));
done:
    return status;
}

static int buffer(struct unroll *u, size_t bytes, const char *what, struct device_buffer **out) {
    return bytes ? device_buffer_create(u->device, bytes, what, out) : RETORT_OK;
}

static int allocate(struct unroll *u) {
    int status = RETORT_OK;
    const struct unroll_spec *spec = &u->spec;
    size_t image = (size_t)image_size(u) * FLOAT, classes = (size_t)spec->network->classes;
    size_t n = (size_t)spec->set_count, real = (size_t)(u->meta_batch * u->meta_splits),
           tests = (size_t)spec->test_batch;
    size_t vector = (size_t)u->p * FLOAT, m = (size_t)spec->rank;
    TRY(buffer(u, u->slot_bytes * (size_t)u->slot_count, "the store of the window", &u->store));
    TRY(buffer(u, u->adjoint_bytes, "adjoints", &u->adjoints));
    TRY(buffer(u, n * image, "the synthetic images", &u->set_images));
    TRY(buffer(u, n * (spec->soft_labels ? classes : 1) * FLOAT, "the synthetic labels", &u->set_labels));
    TRY(buffer(u, real * image, "the real batch", &u->real_images));
    TRY(buffer(u, real * classes * FLOAT, "the real batch's targets", &u->real_targets));
    TRY(buffer(u, real * FLOAT, "the real batch's labels", &u->real_labels));
    TRY(buffer(u, spec->meta_augment ? real * 6 * FLOAT : 0, "the real batch's augmentation", &u->real_maps));
    TRY(buffer(u, tests * image, "a test batch", &u->test_images));
    TRY(buffer(u, tests * FLOAT, "a test batch's labels", &u->test_labels));
    TRY(buffer(u, 8, "a seed", &u->seed));
    TRY(buffer(u, FLOAT, "a count", &u->counts));
    if (m) {
        TRY(buffer(u, (m + 1) * vector, "the Lanczos basis", &u->basis));
        TRY(buffer(u, m * vector, "the Hessian's factor", &u->vectors));
        TRY(buffer(u, (m * (m + 1) + 2 * m) * FLOAT, "Lanczos coefficients", &u->lanczos));
    }
    TRY(kept_allocate(&u->kept, u->device));
done:
    return status;
}

/* What never changes from step to step. */
static int bind_fixed(struct unroll *u) {
    int status = RETORT_OK;
    struct executable *readers[] = {u->gradient,    u->gradient_more,    u->probe,
                                    u->probe_more,  u->product,          u->product_reading,
                                    u->product_low, u->product_low_more, u->lanczos_product};
    for (size_t i = 0; i < sizeof readers / sizeof *readers; i++) {
        if (!readers[i]) continue;
        TRY(executable_bind(readers[i], "set images", u->set_images, 0));
        TRY(executable_bind(readers[i], "set labels", u->set_labels, 0));
    }
    TRY(executable_bind(u->initial, "seed", u->seed, 0));
    if (u->adjoint) TRY(executable_bind(u->adjoint, "a_g", u->adjoints, u->a_g));
    if (u->product) TRY(executable_bind(u->product, "a_g", u->adjoints, u->a_g));
    if (u->product_reading) TRY(executable_bind(u->product_reading, "a_g", u->adjoints, u->a_g));
    struct executable *low[] = {u->product_low, u->product_low_more};
    size_t m = (size_t)u->spec.rank;
    for (size_t i = 0; i < 2; i++) {
        if (!low[i]) continue;
        TRY(executable_bind(low[i], "a_g", u->adjoints, u->a_g));
        if (executable_slot(low[i], "basis") < 0) continue;
        TRY(executable_bind(low[i], "basis", u->vectors, 0));
        TRY(executable_bind(low[i], "eigenvalues", u->lanczos, (m * (m + 1) + m) * FLOAT));
    }
    if (m) {
        TRY(executable_bind(u->lanczos_start, "seed", u->seed, 0));
        TRY(executable_bind(u->lanczos_start, "vector", u->vectors, 0));
        TRY(executable_bind(u->lanczos_unit, "vector", u->basis, 0));
        TRY(executable_bind(u->lanczos_next, "basis", u->basis, 0));
        TRY(executable_bind(u->lanczos_finish, "basis", u->basis, 0));
        TRY(executable_bind(u->lanczos_finish, "projections", u->lanczos, 0));
        TRY(executable_bind(u->lanczos_finish, "norms", u->lanczos, m * (m + 1) * FLOAT));
        TRY(executable_bind(u->lanczos_finish, "vectors", u->vectors, 0));
        TRY(executable_bind(u->lanczos_finish, "eigenvalues", u->lanczos, (m * (m + 1) + m) * FLOAT));
    }
    if (u->test) {
        TRY(executable_bind(u->test, "images", u->test_images, 0));
        TRY(executable_bind(u->test, "labels", u->test_labels, 0));
        TRY(executable_bind(u->test, "correct", u->counts, 0));
    }
done:
    return status;
}

int unroll_create(struct library *library, const struct unroll_spec *spec, struct unroll **out) {
    int status = RETORT_OK;
    struct unroll *u = calloc(1, sizeof *u);
    if (!u) RAISE(RETORT_ENOMEM, "out of memory preparing the inner training");
    u->spec = *spec;
    u->library = library;
    u->device = library_device(library);
    u->p = spec->network->theta_count;
    u->q = spec->network->stats_count;
    u->states = optimizer_state_count(&spec->optimizer);
    if (spec->rank >= u->p) u->spec.rank = (int)u->p - 1;
    if (u->spec.rank > UNROLL_MAX_RANK)
        RAISE(RETORT_EINVAL, "a Hessian of rank %d: at most %d", spec->rank, UNROLL_MAX_RANK);
    if (spec->frozen)
        TRY(take_plan(u, spec->frozen));
    else
        TRY(fit(u));
    u->spec.frozen = NULL;
    TRY(allocate(u));
    TRY(library_build(library));
    TRY(bind_fixed(u));
    *out = u;
    u = NULL;
done:
    unroll_destroy(u);
    return status;
}

void unroll_destroy(struct unroll *u) {
    if (!u) return;
    struct executable *executables[EXECUTABLES];
    list_executables(u, executables);
    struct device_buffer *buffers[] = {
        u->store,          u->adjoints,    u->set_images,  u->set_labels,    u->real_images,   u->real_targets,
        u->real_labels,    u->real_maps,   u->test_images, u->test_labels,   u->seed,          u->counts,
        u->scalars.buffer, u->rows.buffer, u->maps.buffer, u->colour.buffer, u->losses.buffer, u->norms.buffer,
        u->basis,          u->vectors,     u->lanczos};
    for (size_t i = 0; i < EXECUTABLES; i++) executable_destroy(executables[i]);
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) device_buffer_destroy(buffers[i]);
    kept_finish(&u->kept);
    free(u);
}

void unroll_describe(const struct unroll *u, char *text, size_t size) {
    enum batch_kind kind;
    size_t bytes = fixed_bytes(u) + largest_arena(u, &kind);
    int length = snprintf(text, size, "inner batch %lld in %d", (long long)u->spec.batch, u->inner_splits);
    if (u->meta && length > 0 && (size_t)length < size)
        length += snprintf(text + length, size - (size_t)length, ", meta-loss batch %lld in %d",
                           (long long)u->spec.meta_batch, u->meta_splits);
    if (u->kept.step_count && length > 0 && (size_t)length < size)
        length += snprintf(text + length, size - (size_t)length, ", values kept of %d of %d window steps",
                           u->kept.step_count, u->spec.max_window);
    if (length > 0 && (size_t)length < size)
        snprintf(text + length, size - (size_t)length, ", %.1f MB", (double)bytes * 1e-6);
}

void unroll_plan(const struct unroll *u, struct unroll_plan *plan) {
    *plan = (struct unroll_plan){.inner_splits = u->inner_splits,
                                 .meta_splits = u->meta_splits,
                                 .test_batch = u->spec.test_batch,
                                 .kept_steps = u->kept.step_count,
                                 .compute_units = (int)device_traits(u->device)->compute_units};
}

int unroll_kept_steps(const struct unroll *u) {
    return u->kept.step_count;
}

void unroll_print(const struct unroll *u, bool launches, FILE *stream) {
    struct executable *all[EXECUTABLES];
    list_executables(u, all);
    for (size_t i = 0; i < EXECUTABLES; i++)
        if (all[i]) executable_print(all[i], launches, stream);
}

double unroll_flops(const struct unroll *u, int prefix, int window) {
    double step = u->inner_splits * executable_flops(u->gradient) + executable_flops(u->update);
    int reading = window < u->kept.step_count ? window : u->kept.step_count;
    double back = u->adjoint ? window * executable_flops(u->adjoint) : 0;
    if (u->product) back += (window - reading) * u->inner_splits * executable_flops(u->product);
    if (u->product_reading) back += reading * u->inner_splits * executable_flops(u->product_reading);
    return (prefix + window) * step + (u->meta ? u->meta_splits * executable_flops(u->meta) : 0) + back;
}

/* --- uploads --- */
int unroll_set(struct unroll *u, const float *images, const float *soft_labels, const int32_t *hard_labels) {
    int status = RETORT_OK;
    size_t n = (size_t)u->spec.set_count, k = (size_t)u->spec.network->classes;
    if (u->spec.soft_labels ? !soft_labels : !hard_labels)
        RAISE(RETORT_EINVAL, "the set's labels are not of the kind that was compiled");
    TRY(device_write(u->device, u->set_images, 0, n * (size_t)image_size(u) * FLOAT, images));
    if (u->spec.soft_labels)
        TRY(device_write(u->device, u->set_labels, 0, n * k * FLOAT, soft_labels));
    else
        TRY(device_write(u->device, u->set_labels, 0, n * sizeof(int32_t), hard_labels));
done:
    return status;
}

static int table_grow(struct unroll *u, struct table *table, size_t rows, const char *what) {
    if (rows <= table->rows || !table->row_bytes) return RETORT_OK;
    device_buffer_destroy(table->buffer);
    table->buffer = NULL;
    table->rows = 0;
    int status = device_buffer_create(u->device, rows * table->row_bytes, what, &table->buffer);
    if (status >= 0) table->rows = rows;
    return status;
}

int unroll_upload_steps(struct unroll *u, const struct unroll_steps *steps) {
    int status = RETORT_OK;
    size_t count = (size_t)steps->count;
    float *scalars = calloc(count * OPTIMIZER_SCALARS + 1, FLOAT);
    if (!scalars) RAISE(RETORT_ENOMEM, "out of memory for %d steps", steps->count);
    for (int i = 0; i < steps->count; i++) {
        float *row = scalars + (size_t)i * OPTIMIZER_SCALARS;
        optimizer_scalars(&u->spec.optimizer, steps->lr ? steps->lr[i] : u->spec.optimizer.lr, steps->first + i, row);
        row[3] = steps->weights ? steps->weights[i] : 1.0f;
    }
    TRY(table_grow(u, &u->scalars, count, "step scalars"));
    TRY(table_grow(u, &u->rows, count, "mini-batch rows"));
    TRY(table_grow(u, &u->maps, count, "augmentation maps"));
    TRY(table_grow(u, &u->colour, count, "augmentation colours"));
    TRY(table_grow(u, &u->losses, count, "inner losses"));
    TRY(table_grow(u, &u->norms, count, "gradient norms"));
    TRY(device_write(u->device, u->scalars.buffer, 0, count * u->scalars.row_bytes, scalars));
    TRY(device_write(u->device, u->rows.buffer, 0, count * u->rows.row_bytes, steps->rows));
    if (u->spec.augment) TRY(device_write(u->device, u->maps.buffer, 0, count * u->maps.row_bytes, steps->maps));
    if (u->spec.colour) TRY(device_write(u->device, u->colour.buffer, 0, count * u->colour.row_bytes, steps->colour));
done:
    free(scalars);
    return status;
}

/* --- places in the store --- */
static size_t theta_at(const struct unroll *u, int slot) {
    return (size_t)slot * u->slot_bytes;
}
static size_t state_at(const struct unroll *u, int slot, int i) {
    return theta_at(u, slot) + aligned((size_t)u->p * FLOAT) * (size_t)(1 + i);
}
static size_t gradient_at(const struct unroll *u, int slot) {
    return state_at(u, slot, u->states);
}
static size_t stats_at(const struct unroll *u, int slot) {
    return state_at(u, slot, u->states + 1);
}

static int begin(struct unroll *u) {
    int status = RETORT_OK;
    u->current = 0;
    u->time = 0;
    for (int i = 0; i < u->states; i++)
        TRY(device_fill_zero(u->device, u->store, state_at(u, 0, i), (size_t)u->p * FLOAT));
    if (u->q) {
        /* Running means 0, running variances 1, as PyTorch starts; block by block mean then variance. */
        int64_t width = u->q / (2 * u->spec.network->spec.depth);
        float *stats = calloc((size_t)u->q, FLOAT);
        if (!stats) RAISE(RETORT_ENOMEM, "out of memory for running statistics");
        for (int64_t i = 0; i < u->q; i++) stats[i] = i / width % 2 ? 1.0f : 0.0f;
        status = device_write(u->device, u->store, stats_at(u, 0), (size_t)u->q * FLOAT, stats);
        free(stats);
    }
done:
    return status;
}

int unroll_begin(struct unroll *u, uint64_t seed) {
    int status = RETORT_OK;
    const int32_t halves[2] = {(int32_t)(uint32_t)seed, (int32_t)(uint32_t)(seed >> 32)};
    TRY(begin(u));
    TRY(device_write(u->device, u->seed, 0, sizeof halves, halves));
    TRY(executable_bind(u->initial, "theta", u->store, theta_at(u, 0)));
    TRY(executable_enqueue(u->initial));
done:
    return status;
}

int unroll_begin_from(struct unroll *u, const float *theta) {
    int status = begin(u);
    return status < 0 ? status : device_write(u->device, u->store, theta_at(u, 0), (size_t)u->p * FLOAT, theta);
}

int unroll_read_theta(struct unroll *u, float *theta) {
    return device_read(u->device, u->store, theta_at(u, u->current), (size_t)u->p * FLOAT, theta);
}

/* The rows, maps and colours of micro-batch `part` of table step `step`. */
static int bind_batch(struct unroll *u, struct executable *executable, int step, int part) {
    int status = RETORT_OK;
    size_t first = (size_t)step * (size_t)u->spec.batch + (size_t)part * (size_t)u->inner_batch;
    TRY(executable_bind(executable, "rows", u->rows.buffer, first * FLOAT));
    if (u->spec.augment) TRY(executable_bind(executable, "maps", u->maps.buffer, first * 6 * FLOAT));
    if (u->spec.colour) TRY(executable_bind(executable, "colour", u->colour.buffer, first * COLOUR_SCALARS * FLOAT));
done:
    return status;
}

/* One inner step from one slot to another, by table step `step`; the how manyth of the window it is, from 0, or -1. */
static int inner_step(struct unroll *u, int step, int from, int to, int in_window, bool probe) {
    int status = RETORT_OK;
    char name[32];
    for (int part = 0; part < u->inner_splits; part++) {
        struct executable *run = probe ? (part ? u->probe_more : u->probe) : (part ? u->gradient_more : u->gradient);
        bool last = part == u->inner_splits - 1;
        size_t where = last ? gradient_at(u, from) : u->sum.at[part & 1];
        TRY(executable_bind(run, "theta", u->store, theta_at(u, from)));
        TRY(bind_batch(u, run, step, part));
        TRY(kept_bind(&u->kept, run, in_window, part));
        TRY(executable_bind(run, "gradient", last ? u->store : u->adjoints, where));
        if (part) TRY(executable_bind(run, "gradient in", u->adjoints, u->sum.at[(part - 1) & 1]));
        if (u->q) {
            TRY(executable_bind(run, "stats", u->store, stats_at(u, from)));
            TRY(executable_bind(run, "new stats", u->store, stats_at(u, to)));
        }
        if (probe) {
            size_t at = (size_t)step * FLOAT;
            /* With micro-batches the sum so far goes to and fro between the pair and the table. */
            TRY(executable_bind(run, "loss", last ? u->losses.buffer : u->adjoints, last ? at : u->loss.at[part & 1]));
            if (part) TRY(executable_bind(run, "loss in", u->adjoints, u->loss.at[(part - 1) & 1]));
            TRY(executable_bind(run, "norm", u->norms.buffer, at));
        }
        TRY(executable_enqueue(run));
    }
    TRY(executable_bind(u->update, "scalars", u->scalars.buffer, (size_t)step * u->scalars.row_bytes));
    TRY(executable_bind(u->update, "theta", u->store, theta_at(u, from)));
    TRY(executable_bind(u->update, "gradient", u->store, gradient_at(u, from)));
    TRY(executable_bind(u->update, "new theta", u->store, theta_at(u, to)));
    for (int i = 0; i < u->states; i++) {
        snprintf(name, sizeof name, "state %d", i);
        TRY(executable_bind(u->update, name, u->store, state_at(u, from, i)));
        snprintf(name, sizeof name, "new state %d", i);
        TRY(executable_bind(u->update, name, u->store, state_at(u, to, i)));
    }
    TRY(executable_enqueue(u->update));
    u->time++;
done:
    return status;
}

int unroll_train(struct unroll *u, int from, int count, bool probe) {
    int status = RETORT_OK;
    if (from < 0 || count < 0 || (size_t)(from + count) > u->scalars.rows)
        RAISE(RETORT_EINVAL, "steps %d to %d were not uploaded", from, from + count);
    for (int i = 0; i < count; i++) {
        int to = u->current == 0;
        TRY(inner_step(u, from + i, u->current, to, -1, probe));
        u->current = to;
        if (i % 8 == 7) TRY(device_flush(u->device));
    }
done:
    return status;
}

int unroll_read_probe(struct unroll *u, int count, double *losses, double *norms) {
    int status = RETORT_OK;
    float *values = malloc(((size_t)count + 1) * FLOAT);
    if (!values) RAISE(RETORT_ENOMEM, "out of memory for %d steps", count);
    for (int pass = 0; pass < 2; pass++) {
        double *out = pass ? norms : losses;
        if (!out || !count) continue;
        TRY(device_read(u->device, (pass ? &u->norms : &u->losses)->buffer, 0, (size_t)count * FLOAT, values));
        for (int i = 0; i < count; i++) out[i] = values[i];
    }
done:
    free(values);
    return status;
}

/* --- tests --- */
int unroll_test(struct unroll *u, const float *images, const int32_t *labels, int64_t count, int64_t *correct) {
    int status = RETORT_OK;
    int64_t batch = u->spec.test_batch, size = image_size(u), total = 0;
    int32_t *padded = malloc((size_t)(batch + 1) * sizeof *padded);
    if (!padded) RAISE(RETORT_ENOMEM, "out of memory for a test batch");
    TRY(executable_bind(u->test, "theta", u->store, theta_at(u, u->current)));
    if (u->q) TRY(executable_bind(u->test, "stats", u->store, stats_at(u, u->current)));
    for (int64_t first = 0; first < count; first += batch) {
        int64_t here = count - first < batch ? count - first : batch;
        for (int64_t i = 0; i < batch; i++) padded[i] = i < here ? labels[first + i] : -1;
        TRY(device_write(u->device, u->test_images, 0, (size_t)(here * size) * FLOAT, images + first * size));
        TRY(device_write(u->device, u->test_labels, 0, (size_t)batch * sizeof *padded, padded));
        TRY(executable_enqueue(u->test));
        float got;
        TRY(device_read(u->device, u->counts, 0, FLOAT, &got));
        total += (int64_t)(got + 0.5f);
    }
    *correct = total;
done:
    free(padded);
    return status;
}

/* --- meta-gradients --- */
static int zero_pair(struct unroll *u, struct pair *pair, size_t bytes) {
    pair->now = 0;
    return device_fill_zero(u->device, u->adjoints, pair->at[0], bytes);
}

static int bind_pair(struct unroll *u, struct executable *run, const char *in, const char *out, struct pair *pair) {
    int status = executable_bind(run, in, u->adjoints, pair->at[pair->now]);
    if (status >= 0) status = executable_bind(run, out, u->adjoints, pair->at[!pair->now]);
    pair->now = !pair->now;
    return status;
}

static int upload_real(struct unroll *u, const struct unroll_meta *meta) {
    int status = RETORT_OK;
    int64_t real = u->spec.meta_batch, padded = u->meta_batch * u->meta_splits, k = u->spec.network->classes;
    size_t image = (size_t)image_size(u) * FLOAT;
    float *targets = calloc((size_t)(padded * k), FLOAT);
    int32_t *labels = malloc((size_t)padded * sizeof *labels);
    if (!targets || !labels) RAISE(RETORT_ENOMEM, "out of memory for the real batch");
    for (int64_t i = 0; i < padded; i++) {
        labels[i] = i < real ? meta->labels[i] : -1;
        if (i < real) targets[i * k + labels[i]] = (float)u->meta_batch / (float)real;
    }
    TRY(device_write(u->device, u->real_images, 0, (size_t)real * image, meta->images));
    if (padded > real)
        TRY(device_fill_zero(u->device, u->real_images, (size_t)real * image, (size_t)(padded - real) * image));
    TRY(device_write(u->device, u->real_targets, 0, (size_t)(padded * k) * FLOAT, targets));
    TRY(device_write(u->device, u->real_labels, 0, (size_t)padded * sizeof *labels, labels));
    if (u->spec.meta_augment) {
        TRY(device_fill_zero(u->device, u->real_maps, 0, (size_t)padded * 6 * FLOAT));
        TRY(device_write(u->device, u->real_maps, 0, (size_t)real * 6 * FLOAT, meta->maps));
    }
done:
    free(targets);
    free(labels);
    return status;
}

static int meta_loss(struct unroll *u) {
    int status = RETORT_OK;
    size_t image = (size_t)image_size(u) * FLOAT, k = (size_t)u->spec.network->classes;
    TRY(zero_pair(u, &u->lambda, (size_t)u->p * FLOAT));
    TRY(zero_pair(u, &u->loss, FLOAT));
    TRY(zero_pair(u, &u->correct, FLOAT));
    TRY(executable_bind(u->meta, "theta", u->store, theta_at(u, u->current)));
    for (int part = 0; part < u->meta_splits; part++) {
        size_t first = (size_t)part * (size_t)u->meta_batch;
        TRY(executable_bind(u->meta, "images", u->real_images, first * image));
        TRY(executable_bind(u->meta, "targets", u->real_targets, first * k * FLOAT));
        TRY(executable_bind(u->meta, "labels", u->real_labels, first * FLOAT));
        if (u->spec.meta_augment) TRY(executable_bind(u->meta, "maps", u->real_maps, first * 6 * FLOAT));
        TRY(bind_pair(u, u->meta, "lambda", "out lambda", &u->lambda));
        TRY(bind_pair(u, u->meta, "loss", "out loss", &u->loss));
        TRY(bind_pair(u, u->meta, "correct", "out correct", &u->correct));
        TRY(executable_enqueue(u->meta));
    }
    TRY(device_copy(u->device, u->adjoints, u->meta_lambda, u->adjoints, u->lambda.at[u->lambda.now],
                    (size_t)u->p * FLOAT));
done:
    return status;
}

/* The adjoint of table step `step`, whose slot is `slot`. */
static int backward_step(struct unroll *u, int step, int slot, bool lanczos) {
    int status = RETORT_OK;
    char in[32], out[32];
    struct executable *run = u->adjoint;
    size_t scalars = (size_t)step * u->scalars.row_bytes;
    TRY(executable_bind(run, "scalars", u->scalars.buffer, scalars));
    TRY(executable_bind(run, "theta", u->store, theta_at(u, slot)));
    TRY(executable_bind(run, "gradient", u->store, gradient_at(u, slot)));
    if (u->spec.optimizer.weight_decay != 0)
        TRY(bind_pair(u, run, "lambda", "out lambda", &u->lambda));
    else
        TRY(executable_bind(run, "lambda", u->adjoints, u->lambda.at[u->lambda.now]));
    for (int i = 0; i < u->states; i++) {
        snprintf(in, sizeof in, "new state %d", i);
        TRY(executable_bind(run, in, u->store, state_at(u, slot + 1, i)));
        snprintf(in, sizeof in, "lambda %d", i);
        snprintf(out, sizeof out, "out lambda %d", i);
        TRY(bind_pair(u, run, in, out, &u->lambda_state[i]));
    }
    TRY(bind_pair(u, run, "dlr", "out dlr", &u->dlr));
    TRY(executable_enqueue(run));
    int in_window = slot - u->window_base;
    bool reading = in_window < u->kept.step_count;
    for (int part = 0; part < u->inner_splits; part++) {
        run = reading ? u->product_reading : !lanczos ? u->product : part ? u->product_low_more : u->product_low;
        if (reading) TRY(kept_bind(&u->kept, run, in_window, part));
        TRY(executable_bind(run, "scalars", u->scalars.buffer, scalars));
        TRY(executable_bind(run, "theta", u->store, theta_at(u, slot)));
        if (executable_slot(run, "new state 1") >= 0)
            TRY(executable_bind(run, "new state 1", u->store, state_at(u, slot + 1, 1)));
        TRY(bind_batch(u, run, step, part));
        TRY(bind_pair(u, run, "lambda", "out lambda", &u->lambda));
        TRY(bind_pair(u, run, "dS", "out dS", &u->ds));
        if (u->spec.soft_labels) TRY(bind_pair(u, run, "dy", "out dy", &u->dy));
        TRY(executable_enqueue(run));
    }
done:
    return status;
}

static int backward(struct unroll *u, const struct unroll_meta *meta, struct unroll_gradient *gradient) {
    int status = RETORT_OK;
    size_t images = (size_t)(u->spec.set_count * image_size(u)) * FLOAT;
    size_t labels = (size_t)(u->spec.set_count * u->spec.network->classes) * FLOAT;
    if (meta->lanczos && !u->has_factor) RAISE(RETORT_EINVAL, "no low-rank Hessian has been computed yet");
    for (int i = 0; i < u->states; i++) TRY(zero_pair(u, &u->lambda_state[i], (size_t)u->p * FLOAT));
    TRY(zero_pair(u, &u->dlr, FLOAT));
    TRY(zero_pair(u, &u->ds, images));
    if (u->spec.soft_labels) TRY(zero_pair(u, &u->dy, labels));
    for (int i = meta->window - 1; i >= 0; i--) {
        TRY(backward_step(u, meta->prefix + i, u->window_base + i, meta->lanczos));
        TRY(device_flush(u->device));
    }
    float loss, correct, dlr;
    TRY(device_read(u->device, u->adjoints, u->loss.at[u->loss.now], FLOAT, &loss));
    TRY(device_read(u->device, u->adjoints, u->correct.at[u->correct.now], FLOAT, &correct));
    TRY(device_read(u->device, u->adjoints, u->dlr.at[u->dlr.now], FLOAT, &dlr));
    TRY(device_read(u->device, u->adjoints, u->ds.at[u->ds.now], images, gradient->images));
    if (u->spec.soft_labels && gradient->labels)
        TRY(device_read(u->device, u->adjoints, u->dy.at[u->dy.now], labels, gradient->labels));
    gradient->loss = loss;
    gradient->accuracy = 100.0 * correct / (double)u->spec.meta_batch;
    gradient->lr = dlr;
done:
    return status;
}

int unroll_meta_gradient(struct unroll *u, const struct unroll_meta *meta, struct unroll_gradient *gradient) {
    int status = RETORT_OK;
    if (meta->window < 1 || meta->window > u->spec.max_window || meta->prefix < 0)
        RAISE(RETORT_EINVAL, "a window of %d steps after %d: at most %d were planned", meta->window, meta->prefix,
              u->spec.max_window);
    if ((size_t)(meta->prefix + meta->window) > u->scalars.rows)
        RAISE(RETORT_EINVAL, "steps up to %d were not uploaded", meta->prefix + meta->window);
    TRY(upload_real(u, meta));
    TRY(unroll_train(u, 0, meta->prefix, meta->probe));
    u->window_base = u->current;
    for (int i = 0; i < meta->window; i++) {
        TRY(inner_step(u, meta->prefix + i, u->current, u->current + 1, i, meta->probe));
        u->current++;
        if (i % 8 == 7) TRY(device_flush(u->device));
    }
    TRY(meta_loss(u));
    TRY(backward(u, meta, gradient));
done:
    return status;
}

int unroll_backward_again(struct unroll *u, const struct unroll_meta *meta, struct unroll_gradient *gradient) {
    u->lambda.now = 0;
    int status =
        device_copy(u->device, u->adjoints, u->lambda.at[0], u->adjoints, u->meta_lambda, (size_t)u->p * FLOAT);
    return status < 0 ? status : backward(u, meta, gradient);
}

/* --- Lanczos --- */
/* The Hessian times the vector at `offset` of a buffer, on the rows of table step `step`, into the current `sum`. */
static int hessian_product(struct unroll *u, int step, struct device_buffer *vectors, size_t offset) {
    int status = RETORT_OK;
    TRY(zero_pair(u, &u->sum, (size_t)u->p * FLOAT));
    TRY(executable_bind(u->lanczos_product, "vector", vectors, offset));
    for (int part = 0; part < u->inner_splits; part++) {
        TRY(bind_batch(u, u->lanczos_product, step, part));
        TRY(bind_pair(u, u->lanczos_product, "product in", "product", &u->sum));
        TRY(executable_enqueue(u->lanczos_product));
    }
done:
    return status;
}

int unroll_lanczos(struct unroll *u, int step, uint64_t seed) {
    int status = RETORT_OK;
    size_t vector = (size_t)u->p * FLOAT, m = (size_t)u->spec.rank;
    const int32_t halves[2] = {(int32_t)(uint32_t)seed, (int32_t)(uint32_t)(seed >> 32)};
    if (!m) RAISE(RETORT_EINVAL, "no low-rank Hessian was planned");
    TRY(device_write(u->device, u->seed, 0, sizeof halves, halves));
    TRY(device_fill_zero(u->device, u->basis, 0, (m + 1) * vector));
    TRY(executable_bind(u->lanczos_product, "theta", u->store, theta_at(u, u->current)));
    /* The start vector is a product itself: nothing of it lies where the Hessian is zero (dead biases, dead units). */
    TRY(executable_enqueue(u->lanczos_start));
    TRY(hessian_product(u, step, u->vectors, 0));
    TRY(executable_bind(u->lanczos_unit, "product", u->adjoints, u->sum.at[u->sum.now]));
    TRY(executable_enqueue(u->lanczos_unit));
    for (size_t j = 0; j < m; j++) {
        TRY(hessian_product(u, step, u->basis, j * vector));
        TRY(executable_bind(u->lanczos_next, "product", u->adjoints, u->sum.at[u->sum.now]));
        TRY(executable_bind(u->lanczos_next, "projection", u->lanczos, j * (m + 1) * FLOAT));
        TRY(executable_bind(u->lanczos_next, "norm", u->lanczos, (m * (m + 1) + j) * FLOAT));
        TRY(executable_bind(u->lanczos_next, "next", u->basis, (j + 1) * vector));
        TRY(executable_enqueue(u->lanczos_next));
        TRY(device_flush(u->device));
    }
    TRY(executable_enqueue(u->lanczos_finish));
    u->has_factor = true;
done:
    return status;
}

int unroll_read_eigenvalues(struct unroll *u, float *eigenvalues) {
    size_t m = (size_t)u->spec.rank;
    return device_read(u->device, u->lanczos, (m * (m + 1) + m) * FLOAT, m * FLOAT, eigenvalues);
}

int64_t unroll_factor_count(const struct unroll *u) {
    return u->spec.rank ? u->spec.rank * (u->p + 1) : 0;
}

int unroll_read_factor(struct unroll *u, float *factor) {
    size_t values = (size_t)u->spec.rank * (size_t)u->p;
    int status = device_read(u->device, u->vectors, 0, values * FLOAT, factor);
    return status < 0 ? status : unroll_read_eigenvalues(u, factor + values);
}

int unroll_write_factor(struct unroll *u, const float *factor) {
    size_t m = (size_t)u->spec.rank, values = m * (size_t)u->p;
    int status = device_write(u->device, u->vectors, 0, values * FLOAT, factor);
    if (status >= 0)
        status = device_write(u->device, u->lanczos, (m * (m + 1) + m) * FLOAT, m * FLOAT, factor + values);
    if (status >= 0) u->has_factor = true;
    return status;
}
