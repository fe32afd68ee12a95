#include "unroll/fit.h"

#include "transform/transform.h"
#include "unroll/private.h"

#include <stdio.h>
#include <string.h>

/* --- the rows --- */
enum batch_kind { BATCH_NONE, BATCH_INNER, BATCH_PASS, BATCH_TEST };

static const struct run_row {
    const char *label;
    enum batch_kind batch;
    graph_builder *build;
    unsigned flags;
} rows[RUN_COUNT] = {
    [RUN_INITIAL] = {"initial weights", BATCH_NONE, graph_initial},
    [RUN_GRADIENT] = {"inner gradient", BATCH_INNER, graph_gradient},
    [RUN_GRADIENT_MORE] = {"accumulated inner gradient", BATCH_INNER, graph_gradient, GRAPH_MORE},
    [RUN_PROBE] = {"probed inner gradient", BATCH_INNER, graph_gradient, GRAPH_PROBE},
    [RUN_PROBE_MORE] = {"accumulated probed gradient", BATCH_INNER, graph_gradient, GRAPH_PROBE | GRAPH_MORE},
    [RUN_UPDATE] = {"weight update", BATCH_NONE, graph_update},
    [RUN_ADJOINT] = {"update's adjoint", BATCH_NONE, graph_adjoint},
    [RUN_PRODUCT] = {"backward step", BATCH_INNER, graph_product},
    [RUN_PRODUCT_READING] = {"backward step on kept values", BATCH_INNER, graph_product, GRAPH_KEEP},
    [RUN_PRODUCT_LOW] = {"low-rank backward step", BATCH_INNER, graph_product, GRAPH_LOW_RANK},
    [RUN_PRODUCT_MIXED] = {"mixed backward step", BATCH_INNER, graph_product, GRAPH_NO_HESSIAN},
    [RUN_SCATTER] = {"addition of tangents", BATCH_NONE, graph_scatter},
    [RUN_TEST] = {"test", BATCH_TEST, graph_test},
    [RUN_LANCZOS_START] = {"Lanczos start", BATCH_NONE, graph_lanczos_start},
    [RUN_LANCZOS_UNIT] = {"Lanczos vector", BATCH_NONE, graph_lanczos_unit},
    [RUN_LANCZOS_PRODUCT] = {"Hessian product", BATCH_INNER, graph_lanczos_product},
    [RUN_LANCZOS_NEXT] = {"Lanczos step", BATCH_NONE, graph_lanczos_next},
    [RUN_LANCZOS_FINISH] = {"Lanczos end", BATCH_NONE, graph_lanczos_finish},
};

static bool is_gradient(enum run_id id) {
    return id == RUN_GRADIENT || id == RUN_GRADIENT_MORE || id == RUN_PROBE || id == RUN_PROBE_MORE;
}

static bool is_wanted(const struct unroll *u, enum run_id id) {
    const struct unroll_spec *spec = &u->spec;
    bool parts = u->inner_splits > 1, window = spec->max_window > 0;
    switch (id) {
    case RUN_GRADIENT:
    case RUN_UPDATE:
        return spec->batch > 0;
    case RUN_PROBE:
        return spec->batch > 0 && u->networks == 1;
    case RUN_GRADIENT_MORE:
    case RUN_PROBE_MORE:
        return parts;
    case RUN_ADJOINT:
        return window;
    case RUN_PRODUCT: /* with kept values it is needed only where not all steps have them */
        return window && !spec->no_hessian && !(u->keeping && u->kept_steps == spec->max_window);
    case RUN_PRODUCT_READING:
        return u->keeping;
    case RUN_PRODUCT_LOW:
        return window && spec->rank;
    case RUN_PRODUCT_MIXED: /* the first part of a batch adds the low-rank product of all */
        return window && (spec->no_hessian || (spec->rank && parts));
    case RUN_SCATTER:
        return window && parts;
    case RUN_TEST:
        return spec->test_batch > 0;
    case RUN_LANCZOS_START:
    case RUN_LANCZOS_UNIT:
    case RUN_LANCZOS_PRODUCT:
    case RUN_LANCZOS_NEXT:
    case RUN_LANCZOS_FINISH:
        return spec->rank > 0;
    default:
        return true;
    }
}

static void drop(struct unroll *u, enum run_id id) {
    executable_destroy(u->runs[id].executable);
    kept_finish(&u->runs[id].kept);
    u->runs[id].executable = NULL;
}

/* What the networks of a batch share: a step's scalars, test images; and where they have no sets of their own the set.
 */
static bool is_shared(const char *input) {
    return !strcmp(input, slot_names[SLOT_SCALARS]) || !strcmp(input, slot_names[SLOT_IMAGES])
           || !strcmp(input, slot_names[SLOT_LABELS]);
}

static bool is_shared_with_set(const char *input) {
    return is_shared(input) || !strcmp(input, slot_names[SLOT_SET_IMAGES])
           || !strcmp(input, slot_names[SLOT_SET_LABELS]);
}

/* The same graph for each network of a batch. */
static int repeat(const struct unroll *u, struct graph **graph) {
    int status = RETORT_OK;
    struct graph *repeated;
    if (u->networks == 1) goto done;
    TRY(transform_repeat(*graph, u->networks, u->spec.own_sets ? is_shared : is_shared_with_set, &repeated));
    graph_destroy(*graph);
    *graph = repeated;
done:
    return status;
}

static void find_slots(const struct unroll *u, struct run *run) {
    char name[TRANSFORM_NAME];
    for (int k = 0; k < u->networks; k++)
        for (int slot = 0; slot < SLOT_COUNT; slot++)
            run->slot[k][slot] = executable_slot(run->executable, transform_copy_name(slot_names[slot], k, name));
}

static int compile(struct unroll *u, enum run_id id) {
    int status = RETORT_OK;
    const struct run_row *row = &rows[id];
    struct run *run = &u->runs[id];
    int64_t count = row->batch == BATCH_TEST ? u->spec.test_batch : u->spec.batch / u->inner_splits;
    struct graph_form form = {.count = count,
                              .share = row->batch == BATCH_INNER ? (double)count / (double)u->whole_batch : 1,
                              .flags = row->flags};
    if (u->inner_splits > 1) form.flags |= GRAPH_COMPACT;
    if (u->keeping && is_gradient(id)) form.flags |= GRAPH_KEEP;
    struct graph *graph = row->build(&u->spec, &form);
    if (!graph) {
        error_context("building the %s", row->label);
        return RETORT_EINVAL;
    }
    drop(u, id);
    TRY(repeat(u, &graph));
    TRY(executable_create(u->library, graph, row->label, &run->executable));
    find_slots(u, run);
    TRY(kept_find(run->executable, &run->kept));
done:
    graph_destroy(graph);
    return status;
}

static int64_t largest_pass(const struct unroll *u) {
    int64_t largest = 0;
    for (int i = 0; i < u->spec.pass_count; i++)
        if (u->passes[i].rows > largest) largest = u->passes[i].rows;
    return largest;
}

/* Rows of a part at most, of every pass: the largest one's share. */
static int64_t part_of_pass(const struct unroll *u) {
    return (largest_pass(u) + u->pass_splits - 1) / u->pass_splits;
}

/* Compiles what is wanted and not there yet, and drops what is no longer wanted. After RETORT_ELIMIT *kind is the batch
 * that is too large. */
static int compile_all(struct unroll *u, enum batch_kind *kind) {
    int status = RETORT_OK;
    for (int id = 0; id < RUN_COUNT; id++) {
        *kind = rows[id].batch;
        if (!is_wanted(u, id))
            drop(u, id);
        else if (!u->runs[id].executable)
            TRY(compile(u, id));
    }
    *kind = BATCH_PASS;
    for (int i = 0; i < u->spec.pass_count; i++)
        if (!u->passes[i].executable) TRY(pass_compile(&u->passes[i], part_of_pass(u)));
    unroll_size_memory(u);
done:
    return status;
}

/* --- what is needed --- */
/* The batch whose executables need the most scratch memory, and how much. */
static size_t largest_scratch(const struct unroll *u, enum batch_kind *kind) {
    size_t largest = 0;
    *kind = BATCH_INNER;
    for (int id = 0; id < RUN_COUNT; id++) {
        const struct executable *executable = u->runs[id].executable;
        if (!executable || executable_arena_bytes(executable) <= largest) continue;
        largest = executable_arena_bytes(executable);
        *kind = rows[id].batch == BATCH_NONE ? BATCH_INNER : rows[id].batch;
    }
    for (int i = 0; i < u->spec.pass_count; i++) {
        size_t bytes = u->passes[i].executable ? executable_arena_bytes(u->passes[i].executable) : 0;
        if (bytes > largest) {
            largest = bytes;
            *kind = BATCH_PASS;
        }
    }
    return largest;
}

size_t fit_scratch_bytes(const struct unroll *u) {
    enum batch_kind kind;
    return largest_scratch(u, &kind);
}

/* Bytes on the device once everything is allocated, that of others included. */
static uint64_t needed_bytes(struct unroll *u) {
    size_t scratch = fit_scratch_bytes(u), now = library_scratch_bytes(u->library);
    uint64_t bytes = device_bytes(u->device) - now + (scratch > now ? scratch : now);
    const struct memory *row;
    for (int i = 0; (row = unroll_memory(u, i)); i++) bytes += memory_bytes(row);
    return bytes;
}

static uint64_t limit_bytes(const struct unroll *u) {
    uint64_t ceiling = device_ceiling(u->device), memory = device_traits(u->device)->global_memory;
    return ceiling && ceiling < memory ? ceiling : memory;
}

/* RETORT_OK where everything fits; else RETORT_ELIMIT with words, and the batch to split. */
static int check_fit(struct unroll *u, enum batch_kind *kind) {
    int status = RETORT_OK;
    const struct device_traits *traits = device_traits(u->device);
    uint64_t ceiling = device_ceiling(u->device), needed = needed_bytes(u);
    size_t scratch = largest_scratch(u, kind);
    const char *norm = u->q ? " (batch norm cannot be split into micro-batches)" : "";
    const struct memory *row;
    if (needed > limit_bytes(u)) {
        char where[200];
        if (ceiling && needed > ceiling)
            snprintf(where, sizeof where, "the memory ceiling of %.1f MB", (double)ceiling * 1e-6);
        else
            snprintf(where, sizeof where, "%s with its %.1f MB", traits->name, (double)traits->global_memory * 1e-6);
        RAISE(RETORT_ELIMIT,
              "%s does not suffice: at least %.1f MB are needed (%.1f MB of them for the window of %d steps); %slower "
              "method.window, network.width or the batches%s",
              where, (double)needed * 1e-6,
              (double)(memory_bytes(&u->memory[BUFFER_STORE]) + memory_bytes(&u->memory[BUFFER_GRADIENTS])) * 1e-6,
              u->spec.max_window, ceiling ? "raise `memory`, or " : "", norm);
    }
    if (scratch > traits->max_allocation)
        RAISE(RETORT_ELIMIT,
              "the scratch memory needs %.1f MB in one piece, but %s allows %.1f; lower network.width or "
              "the batches%s",
              (double)scratch * 1e-6, traits->name, (double)traits->max_allocation * 1e-6, norm);
    for (int i = 0; (row = unroll_memory(u, i)); i++) {
        if (memory_largest_bytes(row) <= traits->max_allocation) continue;
        *kind = row == &u->memory[BUFFER_TEST_IMAGES] ? BATCH_TEST : BATCH_NONE;
        RAISE(RETORT_ELIMIT, "the %s need %.1f MB in one piece, but %s allows %.1f; make the run smaller", row->what,
              (double)memory_largest_bytes(row) * 1e-6, traits->name, (double)traits->max_allocation * 1e-6);
    }
done:
    return status;
}

/* --- splitting --- */
static int64_t next_divisor(int64_t of, int64_t after) {
    for (int64_t d = after + 1; d <= of; d++)
        if (of % d == 0) return d;
    return 0;
}

/* The number of parts to split a batch into next; 0 where it cannot be split. */
static int next_splits(const struct unroll *u, enum batch_kind kind) {
    int64_t pass = largest_pass(u), part = pass ? part_of_pass(u) : 0;
    switch (kind) {
    case BATCH_TEST:
        return u->spec.test_batch > 1 ? 2 : 0;
    case BATCH_PASS:
        return u->q || part <= 1 ? 0 : (int)((pass + part / 2 - 1) / (part / 2));
    case BATCH_INNER:
        return u->q ? 0 : (int)next_divisor(u->spec.batch, u->inner_splits);
    default:
        return 0;
    }
}

static void drop_batch(struct unroll *u, enum batch_kind kind) {
    for (int id = 0; id < RUN_COUNT; id++)
        if (rows[id].batch == kind) drop(u, id);
    for (int i = 0; kind == BATCH_PASS && i < u->spec.pass_count; i++) {
        executable_destroy(u->passes[i].executable);
        u->passes[i].executable = NULL;
    }
}

static void split(struct unroll *u, enum batch_kind kind, int splits) {
    drop_batch(u, kind);
    if (kind == BATCH_TEST)
        u->spec.test_batch = (u->spec.test_batch + splits - 1) / splits;
    else if (kind == BATCH_PASS)
        u->pass_splits = splits;
    else
        u->inner_splits = splits;
}

/* On a CPU, whether a batch is faster in parts: values that overflow the last cache wait for memory, while parts of a
 * few images lose more than that to what is done once a part (transforming weights, adding gradients). */
static bool is_faster_split(const struct unroll *u, enum batch_kind kind, size_t scratch) {
    enum { PART_IMAGES = 24 };
    const struct device_traits *traits = device_traits(u->device);
    const int64_t batch[] = {
        [BATCH_INNER] = u->spec.batch, [BATCH_PASS] = largest_pass(u), [BATCH_TEST] = u->spec.test_batch};
    int splits = next_splits(u, kind);
    return traits->kind == DEVICE_CPU && scratch > traits_cache_share(traits) / 2 && splits
           && batch[kind] / splits >= PART_IMAGES;
}

/* --- values kept for the backward pass --- */
/* Steps that have a place in the room that is left. */
static int kept_steps_that_fit(struct unroll *u) {
    size_t part = u->kept_part_bytes;
    uint64_t needed, limit = limit_bytes(u), step = (uint64_t)part * (uint64_t)u->inner_splits;
    u->kept_steps = 0;
    unroll_size_memory(u);
    needed = needed_bytes(u);
    if (!step || step > device_traits(u->device)->max_allocation || needed + part > limit) return 0;
    uint64_t steps = (limit - needed - part) / step;
    return steps < (uint64_t)u->spec.max_window ? (int)steps : u->spec.max_window;
}

static void start_keeping(struct unroll *u, bool keeping) {
    u->keeping = keeping;
    u->kept_steps = 0;
    for (int id = 0; id < RUN_COUNT; id++)
        if (is_gradient(id)) drop(u, id);
}

static int plan_kept(struct unroll *u) {
    int status = RETORT_OK;
    enum batch_kind kind;
    start_keeping(u, true);
    TRY(compile_all(u, &kind));
    const struct run *reading = &u->runs[RUN_PRODUCT_READING];
    u->kept_part_bytes = kept_bytes(reading->executable, &reading->kept);
done:
    return status;
}

/* Where a ceiling leaves room, the first steps of a window keep values for their backward steps, as many as fit.
 * Without a ceiling memory is to stay small. With a low-rank Hessian nothing is kept: most backward passes are then
 * low-rank ones, whose products need other values. */
static int fit_kept(struct unroll *u) {
    int status = RETORT_OK;
    const struct unroll_spec *spec = &u->spec;
    enum batch_kind kind;
    if (!device_ceiling(u->device) || !spec->max_window || spec->rank || spec->no_hessian) goto done;
    TRY(plan_kept(u));
    /* The plain backward step and its scratch memory are only needed where not all steps are kept. */
    struct executable *product = u->runs[RUN_PRODUCT].executable;
    u->runs[RUN_PRODUCT].executable = NULL;
    int steps = kept_steps_that_fit(u);
    u->runs[RUN_PRODUCT].executable = product;
    if (steps < spec->max_window) steps = kept_steps_that_fit(u);
    if (!steps) start_keeping(u, false);
    u->kept_steps = steps;
    TRY(compile_all(u, &kind));
done:
    return status;
}

/* --- several networks as one batch --- */
/* So many that their arithmetic takes as long as starting the launches does, twice over, for then the device has no
 * time to wait; as equally many in each batch as can be. On CPU devices launches of several networks do not become one,
 * and nothing would be gained. */
static int networks_worth(const struct unroll *u) {
    const double launch_seconds = 5e-6, share_of_peak = 0.2;
    const struct device_traits *traits = device_traits(u->device);
    const struct executable *gradient = u->runs[RUN_GRADIENT].executable, *update = u->runs[RUN_UPDATE].executable;
    int most = u->spec.networks < UNROLL_MOST_NETWORKS ? u->spec.networks : UNROLL_MOST_NETWORKS, worth = 1;
    if (u->inner_splits > 1 || !gradient) return 1;
    if (u->spec.at_once) return u->spec.at_once < most ? u->spec.at_once : most;
    if (traits->kind == DEVICE_CPU) return 1;
    double starting = launch_seconds * (executable_launch_count(gradient) + executable_launch_count(update));
    double computing = (executable_flops(gradient) + executable_flops(update))
                       / (share_of_peak * 2e6 * traits->lanes * traits->max_clock_mhz);
    while (worth < most && worth * computing < 2 * starting) worth++;
    int batches = (u->spec.networks + worth - 1) / worth;
    return (u->spec.networks + batches - 1) / batches;
}

static void set_networks(struct unroll *u, int networks) {
    for (int id = 0; id < RUN_COUNT && networks != u->networks; id++) drop(u, id);
    u->networks = networks;
}

/* Of one network everything fits; of several, fewer may. */
static int fit_networks(struct unroll *u) {
    int status = RETORT_OK;
    enum batch_kind kind;
    for (int networks = networks_worth(u); networks > 1; networks /= 2) {
        set_networks(u, networks);
        status = compile_all(u, &kind);
        if (status >= 0) status = check_fit(u, &kind);
        if (status != RETORT_ELIMIT) goto done;
    }
    set_networks(u, 1);
    TRY(compile_all(u, &kind));
done:
    return status;
}

int fit_search(struct unroll *u) {
    int status = RETORT_OK;
    u->networks = u->inner_splits = u->pass_splits = 1;
    for (;;) {
        enum batch_kind kind;
        status = compile_all(u, &kind);
        if (status >= 0) status = check_fit(u, &kind);
        if (status < 0 && status != RETORT_ELIMIT) goto done;
        if (status >= 0 && !is_faster_split(u, kind, fit_scratch_bytes(u))) break;
        int splits = next_splits(u, kind);
        if (!splits) goto done;
        split(u, kind, splits);
    }
    if (u->spec.networks > 1) TRY(fit_networks(u));
    TRY(fit_kept(u));
done:
    return status;
}

int fit_take(struct unroll *u, const struct unroll_plan *plan) {
    int status = RETORT_OK;
    const struct unroll_spec *spec = &u->spec;
    unsigned units = device_traits(u->device)->compute_units;
    if (plan->compute_units != (int)units)
        RAISE(RETORT_EINVAL, "the plan was made for %d compute units, but the device is set to %u", plan->compute_units,
              units);
    bool whole = plan->inner_splits == 1 && plan->meta_splits == 1;
    if (plan->inner_splits < 1 || spec->batch % plan->inner_splits || plan->meta_splits < 1
        || (spec->pass_count && plan->meta_splits > largest_pass(u)) || (u->q && !whole)
        || plan->test_batch > spec->test_batch || (spec->test_batch > 0) != (plan->test_batch > 0)
        || plan->kept_steps < 0 || plan->kept_steps > spec->max_window
        || (plan->kept_steps && (spec->rank || spec->no_hessian)) || plan->networks < 1
        || plan->networks > UNROLL_MOST_NETWORKS || (plan->networks > 1 && (!whole || spec->networks < 2)))
        RAISE(RETORT_EINVAL,
              "the plan (%d networks at once, inner batch in %d, batches of passes in %d, test batch %lld, values kept "
              "of %d steps) does not go with this training",
              plan->networks, plan->inner_splits, plan->meta_splits, (long long)plan->test_batch, plan->kept_steps);
    u->networks = plan->networks;
    u->inner_splits = plan->inner_splits;
    u->pass_splits = plan->meta_splits;
    u->spec.test_batch = plan->test_batch;
    enum batch_kind kind;
    if (plan->kept_steps) {
        TRY(plan_kept(u));
        u->kept_steps = plan->kept_steps;
    }
    TRY(compile_all(u, &kind));
    status = check_fit(u, &kind);
    if (status == RETORT_ELIMIT) error_context("the plan this run began with no longer fits");
done:
    return status;
}
