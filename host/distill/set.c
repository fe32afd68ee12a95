#include "distill/set.h"

#include "base/error.h"
#include "distill/distill.h"

#include <math.h>
#include <string.h>

/* --- starts --- */
static void draw_noise(struct set *set, struct random *random) {
    for (int64_t i = 0; i < set->count; i++) {
        float *image = set->stored + i * set->image_size;
        double norm = 0;
        for (int64_t k = 0; k < set->image_size; k++) {
            image[k] = (float)random_normal(random);
            norm += (double)image[k] * image[k];
        }
        for (int64_t k = 0; k < set->image_size; k++) image[k] = (float)(image[k] / sqrt(norm));
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
        float *image = set->stored + ((int64_t) class * set->ipc + taken[class] - 1) * set->image_size;
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
        TRY(dataset_draw_per_class(problem->train, &random, set->ipc, set->stored, set->hard_labels));
        break;
    case SET_INDICES:
        TRY(take_rows(set, problem->train, problem->rows, problem->row_count));
        break;
    }
    for (int64_t i = 0; set->soft_labels && i < set->count; i++)
        set->soft_labels[i * set->classes + set->hard_labels[i]] = 1;
done:
    return status;
}

int set_begin(const struct distill_problem *problem, struct set *out) {
    int status = RETORT_OK;
    const struct network *net = problem->network;
    const struct outer_spec *outer = &problem->outer;
    bool soft = problem->set.labels == LABELS_SOFT;
    struct set set = {.classes = net->classes,
                      .ipc = problem->set.ipc,
                      .channels = net->channels,
                      .height = net->height,
                      .width = net->width,
                      .count = (int64_t)net->classes * problem->set.ipc,
                      .image_size = (int64_t)net->channels * net->height * net->width,
                      .fixed_lr = problem->inner.optimizer.lr,
                      .log_lr = (float)log(problem->inner.optimizer.lr)};
    int64_t values = set.count * set.image_size, labels = soft ? set.count * set.classes : 0;
    arena_init(&set.arena);
    set.stored = arena_array(&set.arena, (size_t)values, sizeof(float));
    set.soft_labels = soft ? arena_array(&set.arena, (size_t)labels, sizeof(float)) : NULL;
    set.hard_labels = arena_array(&set.arena, (size_t)set.count, sizeof(int32_t));
    if (set.arena.failed) RAISE(RETORT_ENOMEM, "out of memory for a set of %lld images", (long long)set.count);
    TRY(start(problem, &set));
    TRY(outer_variable_init(&set.variables[SET_STORED], "images", set.stored, values, outer->lr, outer->optimizer));
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
    arena_finish(&set->arena);
    *set = (struct set){0};
}

/* --- reading --- */
struct node *set_decode(struct graph *graph, const struct set *set, struct node *stored) {
    (void)graph, (void)set; /* images are stored as they are */
    return stored;
}

void set_images(const struct set *set, float *images) {
    memcpy(images, set->stored, (size_t)(set->count * set->image_size) * sizeof *images);
}

double set_inner_lr(const struct set *set) {
    return set->variables[SET_LOG_LR].count ? exp(set->log_lr) : set->fixed_lr;
}

/* --- checkpoints --- */
void set_state(struct set *set, struct state *state) {
    static const char *const names[SET_VARIABLES][2] = {
        [SET_STORED] = {"images_m", "images_v"},
        [SET_SOFT_LABELS] = {"labels_m", "labels_v"},
        [SET_LOG_LR] = {"log_lr_m", "log_lr_v"},
    };
    state_array(state, "hard_labels", NPY_INT32, set->count, set->hard_labels);
    for (int i = 0; i < SET_VARIABLES; i++) {
        struct outer_variable *variable = &set->variables[i];
        state_array(state, variable->name, NPY_FLOAT32, variable->count, variable->values);
        state_array(state, names[i][0], NPY_FLOAT32, variable->count, variable->m);
        if (variable->v) state_array(state, names[i][1], NPY_FLOAT32, variable->count, variable->v);
    }
}
