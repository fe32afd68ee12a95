#include "distill/set.h"

#include "base/error.h"
#include "distill/distill.h"
#include "distill/frequency.h"
#include "team/team.h"

#include <math.h>
#include <string.h>

/* --- starts --- */
/* An image's norm is that of its coefficients. */
static void draw_noise(struct set *set, struct random *random) {
    for (int64_t i = 0; i < set->count; i++) {
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
static int take_rows(struct set *set, const struct dataset *train, const int32_t *rows, int64_t row_count) {
    int status = RETORT_OK;
    int *taken = arena_array(&set->arena, (size_t)set->classes, sizeof *taken);
    if (!taken) RAISE(RETORT_ENOMEM, "out of memory for a set of %lld images", (long long)set->count);
    for (int64_t i = 0; i < row_count; i++) {
        int32_t row = rows[i];
        if (row < 0 || row >= train->count)
            RAISE(RETORT_EINVAL, "set.indices: item %lld is row %d, but the training data has rows 0 to %lld",
                  (long long)i, row, (long long)train->count - 1);
        int32_t class = train->labels[row];
        if (taken[class]++ >= set->ipc) continue;
        float *image = set->images + ((int64_t) class * set->ipc + taken[class] - 1) * set->image_size;
        memcpy(image, train->images + row * set->image_size, (size_t)set->image_size * sizeof *image);
    }
    for (int class = 0; class < set->classes; class ++)
        if (taken[class] != set->ipc)
            RAISE(RETORT_EINVAL,
                  "set.indices lists %d rows of class %d (%s), but set.ipc is %d; list exactly that many", taken[class],
                  class, train->class_names[class], set->ipc);
done:
    return status;
}

static int start(const struct distill_problem *problem, struct set *set) {
    int status = RETORT_OK;
    struct random random = random_begin(problem->seed, RANDOM_SYNTHETIC, 0);
    for (int64_t i = 0; i < set->count; i++) set->hard_labels[i] = (int32_t)(i / set->ipc);
    switch (problem->set.init) {
    case SET_NOISE:
        draw_noise(set, &random);
        break;
    case SET_REAL:
        TRY(dataset_draw_per_class(problem->train, &random, set->ipc, set->images, set->hard_labels));
        break;
    case SET_INDICES:
        TRY(take_rows(set, problem->train, problem->rows, problem->row_count));
        break;
    }
    for (int64_t i = 0; set->soft_labels && i < set->count; i++)
        set->soft_labels[i * set->classes + set->hard_labels[i]] = 1;
    if (set->frequency && !problem->plan_only && problem->set.init != SET_NOISE)
        TRY(frequency_encode(set->frequency, set->images, set->stored));
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
    set->stored_size = (int64_t)set->channels * storage.kept;
    size_t pixels = (size_t)(set->count * set->image_size);
    set->stored = arena_array(&set->arena, (size_t)storage.floats, sizeof(float));
    set->images = set->stored;
    if (problem->set.parameters == PARAMETERS_FREQUENCY) {
        const struct frequency_shape shape = {set->classes, set->ipc,   set->channels,
                                              set->height,  set->width, storage.kept};
        set->images = arena_array(&set->arena, pixels, sizeof(float));
        set->image_gradient = arena_array(&set->arena, pixels, sizeof(float));
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
    const char *stored = set.frequency ? "coefficients" : "images";
    int64_t labels = set.soft_labels ? set.count * set.classes : 0;
    TRY(outer_variable_init(&set.variables[SET_STORED], stored, set.stored, set.count * set.stored_size, outer->lr,
                            outer->optimizer));
    if (!set.frequency) set.image_gradient = set.variables[SET_STORED].gradient;
    TRY(outer_variable_init(&set.variables[SET_SOFT_LABELS], "labels", set.soft_labels, labels, outer->lr_labels,
                            outer->optimizer));
    set.variables[SET_SOFT_LABELS].positive = true;
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
    arena_finish(&set->arena);
    *set = (struct set){0};
}

/* --- images and what is stored --- */
int set_decode(struct set *set) {
    return set->frequency ? frequency_decode(set->frequency, set->stored, set->images) : RETORT_OK;
}

int set_pull(struct set *set) {
    float *gradient = set->variables[SET_STORED].gradient;
    return set->frequency ? frequency_encode(set->frequency, set->image_gradient, gradient) : RETORT_OK;
}

int set_share(struct set *set, struct team *team) {
    int status = RETORT_OK;
    int64_t count;
    if (!set->frequency || team_size(team) == 1) goto done;
    int32_t *positions = frequency_positions(set->frequency, &count);
    TRY(team_share(team, positions, (size_t)count * sizeof *positions));
    TRY(frequency_settle(set->frequency));
    TRY(team_share(team, set->stored, (size_t)(set->count * set->stored_size) * sizeof *set->stored));
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
    return set->frequency ? frequency_memory(set->frequency, i) : NULL;
}

double set_inner_lr(const struct set *set) {
    return set->variables[SET_LOG_LR].count ? exp(set->log_lr) : set->fixed_lr;
}

/* --- checkpoints --- */
void set_state(struct set *set, struct state *state) {
    static const char *const moments[][2] = {{"images_m", "images_v"}, {"coefficients_m", "coefficients_v"}};
    static const char *const names[SET_VARIABLES][2] = {
        [SET_SOFT_LABELS] = {"labels_m", "labels_v"},
        [SET_LOG_LR] = {"log_lr_m", "log_lr_v"},
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
        const char *const *name = i == SET_STORED ? moments[set->frequency != NULL] : names[i];
        state_array(state, variable->name, NPY_FLOAT32, variable->count, variable->values);
        state_array(state, name[0], NPY_FLOAT32, variable->count, variable->m);
        if (variable->v) state_array(state, name[1], NPY_FLOAT32, variable->count, variable->v);
    }
}
