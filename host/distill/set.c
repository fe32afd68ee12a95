#include "distill/set.h"

#include "base/error.h"
#include "distill/distill.h"
#include "distill/frequency.h"
#include "distill/tiles.h"
#include "team/team.h"

#include <math.h>
#include <string.h>

int set_ipc_of(const struct set_spec *spec) {
    return spec->factor ? spec->ipc_key * spec->factor * spec->factor : spec->ipc_key;
}

/* --- starts --- */
static struct tiles_shape tiles_shape_of(const struct distill_problem *problem, const struct set *set) {
    return (struct tiles_shape){set->stored_count, set->channels,       set->height,
                                set->width,        problem->set.factor, problem->normalisation};
}

static int stored_per_class(const struct set *set) {
    return (int)(set->stored_count / set->classes);
}

/* An image's norm is that of its coefficients. */
static void draw_noise(struct set *set, struct random *random) {
    for (int64_t i = 0; set->tiles && i < set->stored_count * set->stored_size; i++)
        set->stored[i] = (float)random_uniform(random);
    for (int64_t i = 0; !set->tiles && i < set->stored_count; i++) {
        float *row = set->stored + i * set->stored_size;
        double norm = 0;
        for (int64_t k = 0; k < set->stored_size; k++) {
            row[k] = (float)random_normal(random);
            norm += (double)row[k] * row[k];
        }
        for (int64_t k = 0; k < set->stored_size; k++) row[k] = (float)(row[k] / sqrt(norm));
    }
}

/* The rows may come in any order; each class takes its own in theirs. */
static int take_rows(struct set *set, const struct dataset *train, const int32_t *rows, int64_t row_count,
                     float *images) {
    int status = RETORT_OK;
    const int wanted = stored_per_class(set);
    int *taken = arena_array(&set->arena, (size_t)set->classes, sizeof *taken);
    if (!taken) RAISE(RETORT_ENOMEM, "out of memory for a set of %lld images", (long long)set->count);
    for (int64_t i = 0; i < row_count; i++) {
        int32_t row = rows[i];
        if (row < 0 || row >= train->count)
            RAISE(RETORT_EINVAL, "set.indices: item %lld is row %d, but the training data has rows 0 to %lld",
                  (long long)i, row, (long long)train->count - 1);
        int32_t class = train->labels[row];
        if (taken[class]++ >= wanted) continue;
        dataset_copy_row(train, row, (int64_t) class * wanted + taken[class] - 1, images, NULL);
    }
    for (int class = 0; class < set->classes; class ++)
        if (taken[class] != wanted)
            RAISE(RETORT_EINVAL,
                  "set.indices lists %d rows of class %d (%s), but set.ipc is %d; list exactly that many", taken[class],
                  class, train->class_names[class], wanted);
done:
    return status;
}

/* Real images, of which a set that stores pixels takes what they were before the normalisation. */
static int take_real(const struct distill_problem *problem, struct set *set, struct random *random) {
    int status = RETORT_OK;
    bool exact, mix = problem->set.init == SET_MIX;
    float *images = set->tiles && !mix ? set->stored : set->images;
    if (problem->set.init == SET_INDICES)
        TRY(take_rows(set, problem->train, problem->rows, problem->row_count, images));
    else
        TRY(dataset_draw_per_class(problem->train, random, mix ? set->ipc : stored_per_class(set), images,
                                   set->hard_labels));
    if (problem->plan_only) goto done;
    if (set->frequency) TRY(frequency_encode(set->frequency, images, set->stored));
    if (!set->tiles) goto done;
    if (mix) {
        const struct tiles_shape shape = tiles_shape_of(problem, set);
        tiles_mix(&shape, images, set->stored);
    }
    if (problem->normalisation) TRY(normalisation_undo(problem->normalisation, set->stored, set->stored_count, &exact));
    for (int64_t i = 0; i < set->stored_count * set->stored_size; i++)
        set->stored[i] = fminf(fmaxf(set->stored[i], 0), 1);
done:
    return status;
}

static int start(const struct distill_problem *problem, struct set *set) {
    int status = RETORT_OK;
    struct random random = random_begin(problem->seed, RANDOM_SYNTHETIC, 0);
    if (problem->set.init == SET_NOISE)
        draw_noise(set, &random);
    else
        TRY(take_real(problem, set, &random));
    for (int64_t i = 0; i < set->count; i++) set->hard_labels[i] = (int32_t)(i / set->ipc);
    for (int64_t i = 0; set->soft_labels && i < set->count; i++)
        set->soft_labels[i * set->classes + set->hard_labels[i]] = 1;
done:
    return status;
}

int set_storage(const struct set_spec *spec, int classes, int channels, int height, int width,
                struct set_storage *storage) {
    int status = RETORT_OK;
    const int64_t plane = (int64_t)height * width, planes = (int64_t)classes * channels;
    struct set_storage fresh = {.kept = (int)plane};
    if (spec->parameters == PARAMETERS_FREQUENCY) {
        int64_t all = spec->budget * plane;
        if (all % spec->ipc)
            RAISE(RETORT_EINVAL,
                  "%d x %d x %d floats of a class and channel cannot be divided among set.ipc %d images; take set.ipc "
                  "such that it divides them",
                  spec->budget, height, width, spec->ipc);
        fresh.kept = (int)(all / spec->ipc);
        fresh.places = planes * fresh.kept;
    }
    fresh.floats = planes * spec->ipc * fresh.kept;
    if (spec->parameters == PARAMETERS_TILES) {
        if (spec->factor > height || spec->factor > width)
            RAISE(RETORT_EINVAL, "images of %d x %d pixels have no %d x %d tiles; take fewer", height, width,
                  spec->factor, spec->factor);
        fresh.kept = tiles_side(height, spec->factor) * tiles_side(width, spec->factor);
        fresh.floats = planes * plane * (spec->ipc / (spec->factor * spec->factor));
    }
    *storage = fresh;
done:
    return status;
}

/* The room for what is stored and, where those are others, for images and the gradient by them. */
static int allocate(const struct distill_problem *problem, struct set *set) {
    int status = RETORT_OK;
    bool soft = problem->set.labels == LABELS_SOFT;
    struct set_storage storage;
    TRY(set_storage(&problem->set, set->classes, set->channels, set->height, set->width, &storage));
    bool tiles = problem->set.parameters == PARAMETERS_TILES;
    set->stored_count = tiles ? set->count / (problem->set.factor * problem->set.factor) : set->count;
    set->stored_size = storage.floats / set->stored_count;
    set->stored = arena_array(&set->arena, (size_t)storage.floats, sizeof(float));
    set->images = set->stored;
    if (problem->set.parameters != PARAMETERS_PIXELS) {
        size_t pixels = (size_t)(set->count * set->image_size);
        set->images = arena_array(&set->arena, pixels, sizeof(float));
        set->image_gradient = arena_array(&set->arena, pixels, sizeof(float));
    }
    if (tiles) {
        const struct tiles_shape shape = tiles_shape_of(problem, set);
        TRY(tiles_create(problem->library, &shape, problem->plan_only, &set->tiles));
    }
    if (problem->set.parameters == PARAMETERS_FREQUENCY) {
        const struct frequency_shape shape = {set->classes, set->ipc,   set->channels,
                                              set->height,  set->width, storage.kept};
        TRY(frequency_create(problem->library, &shape, problem->train, problem->dct, problem->plan_only,
                             &set->frequency));
    }
    set->soft_labels = soft ? arena_array(&set->arena, (size_t)(set->count * set->classes), sizeof(float)) : NULL;
    set->hard_labels = arena_array(&set->arena, (size_t)set->count, sizeof(int32_t));
    if (set->arena.failed) RAISE(RETORT_ENOMEM, "out of memory for a set of %lld images", (long long)set->count);
done:
    return status;
}

int set_begin(const struct distill_problem *problem, struct set *out) {
    int status = RETORT_OK;
    const struct network *net = problem->network;
    const struct outer_spec *outer = &problem->outer;
    struct set set = {.classes = net->classes,
                      .ipc = problem->set.ipc,
                      .channels = net->channels,
                      .height = net->height,
                      .width = net->width,
                      .count = (int64_t)net->classes * problem->set.ipc,
                      .image_size = (int64_t)net->channels * net->height * net->width,
                      .fixed_lr = problem->inner.optimizer.lr,
                      .log_lr = (float)log(problem->inner.optimizer.lr)};
    arena_init(&set.arena);
    TRY(allocate(problem, &set));
    TRY(start(problem, &set));
    const char *stored = set.frequency ? "coefficients" : set.tiles ? "tiles" : "images";
    int64_t labels = set.soft_labels ? set.count * set.classes : 0;
    TRY(outer_variable_init(&set.variables[SET_STORED], stored, set.stored, set.stored_count * set.stored_size,
                            outer->lr, outer->optimizer));
    if (set.tiles) set.variables[SET_STORED].least = 0, set.variables[SET_STORED].most = 1;
    if (!set.image_gradient) set.image_gradient = set.variables[SET_STORED].gradient;
    TRY(outer_variable_init(&set.variables[SET_SOFT_LABELS], "labels", set.soft_labels, labels, outer->lr_labels,
                            outer->optimizer));
    set.variables[SET_SOFT_LABELS].least = 0;
    TRY(outer_variable_init(&set.variables[SET_LOG_LR], "log_lr", &out->log_lr, problem->inner.learn_lr ? 1 : 0,
                            outer->lr_inner, outer->optimizer));
    *out = set;
    return RETORT_OK;
done:
    set_finish(&set);
    return status;
}

void set_finish(struct set *set) {
    if (!set) return;
    for (int i = 0; i < SET_VARIABLES; i++) outer_variable_finish(&set->variables[i]);
    frequency_destroy(set->frequency);
    tiles_destroy(set->tiles);
    arena_finish(&set->arena);
    *set = (struct set){0};
}

/* --- images and what is stored --- */
int set_decode(struct set *set) {
    if (set->frequency) return frequency_decode(set->frequency, set->stored, set->images);
    return set->tiles ? tiles_decode(set->tiles, set->stored, set->images) : RETORT_OK;
}

int set_pull(struct set *set) {
    float *gradient = set->variables[SET_STORED].gradient;
    if (set->frequency) return frequency_encode(set->frequency, set->image_gradient, gradient);
    return set->tiles ? tiles_pull(set->tiles, set->image_gradient, gradient) : RETORT_OK;
}

int set_share(struct set *set, struct team *team) {
    int status = RETORT_OK;
    int64_t count;
    if (!set->frequency || team_size(team) == 1) goto done;
    int32_t *positions = frequency_positions(set->frequency, &count);
    TRY(team_share(team, positions, (size_t)count * sizeof *positions));
    TRY(frequency_settle(set->frequency));
    TRY(team_share(team, set->stored, (size_t)(set->stored_count * set->stored_size) * sizeof *set->stored));
done:
    return status;
}

enum dct_way set_dct(const struct set *set) {
    return set->frequency ? frequency_dct(set->frequency) : DCT_AUTO;
}

int set_loaded(struct set *set) {
    return set->frequency ? frequency_settle(set->frequency) : RETORT_OK;
}

const struct memory *set_memory(const struct set *set, int i) {
    if (set->frequency) return frequency_memory(set->frequency, i);
    return set->tiles ? tiles_memory(set->tiles, i) : NULL;
}

double set_inner_lr(const struct set *set) {
    return set->variables[SET_LOG_LR].count ? exp(set->log_lr) : set->fixed_lr;
}

/* --- checkpoints --- */
void set_state(struct set *set, struct state *state) {
    static const char *const images[] = {"images_m", "images_v"}, *const tiles[] = {"tiles_m", "tiles_v"},
                             *const coefficients[] = {"coefficients_m", "coefficients_v"};
    const char *const *names[SET_VARIABLES] = {
        [SET_STORED] = set->frequency ? coefficients
                       : set->tiles   ? tiles
                                      : images,
        [SET_SOFT_LABELS] = (const char *const[]){"labels_m", "labels_v"},
        [SET_LOG_LR] = (const char *const[]){"log_lr_m", "log_lr_v"},
    };
    state_array(state, "hard_labels", NPY_INT32, set->count, set->hard_labels);
    if (set->frequency) {
        /* Which coefficients they are: another device might choose others. */
        int64_t count;
        int32_t *positions = frequency_positions(set->frequency, &count);
        state_array(state, "positions", NPY_INT32, count, positions);
    }
    for (int i = 0; i < SET_VARIABLES; i++) {
        struct outer_variable *variable = &set->variables[i];
        state_array(state, variable->name, NPY_FLOAT32, variable->count, variable->values);
        state_array(state, names[i][0], NPY_FLOAT32, variable->count, variable->m);
        if (variable->v) state_array(state, names[i][1], NPY_FLOAT32, variable->count, variable->v);
    }
}
