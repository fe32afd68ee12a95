/* The synthetic set: what is stored of it, its labels, how it starts, and its outer variables.
 *
 * What is stored need not be images: set_decode builds the way from one to the other into a method's graph. Today the
 * images themselves are stored. Rows are grouped by class, ipc of each. */
#ifndef RETORT_DISTILL_SET_H
#define RETORT_DISTILL_SET_H

#include "base/memory.h"
#include "distill/outer.h"
#include "distill/state.h"
#include "graph/graph.h"

enum set_init {
    SET_NOISE,   /* N(0,1) scaled to unit norm per image */
    SET_REAL,    /* random real images */
    SET_INDICES, /* the real images of a list of rows */
};
enum set_labels { LABELS_HARD, LABELS_SOFT }; /* soft: learned raw positive values, started one-hot, clamped at 0 */

/* The descriptor's `set` section. */
struct set_spec {
    int ipc; /* images per class */
    enum set_init init;
    const char *indices; /* the file of the list, for whoever opens files */
    enum set_labels labels;
};

/* A variable that is not learned has count 0. */
enum set_variable { SET_STORED, SET_SOFT_LABELS, SET_LOG_LR, SET_VARIABLES };

struct set {
    int classes, ipc, channels, height, width;
    int64_t count;        /* n = classes ipc */
    int64_t image_size;   /* C H W */
    float *stored;        /* today the images: [n, C, H, W] in network space */
    float *soft_labels;   /* [n, K]; NULL: hard ones */
    int32_t *hard_labels; /* [n]; under soft labels the class that a row began with */
    double fixed_lr;      /* of the inner run where it is not learned */
    float log_lr;         /* where it is */
    struct outer_variable variables[SET_VARIABLES];
    struct arena arena;
};

struct distill_problem;
/* Draws the start: RANDOM_SYNTHETIC of the problem's seed. RETORT_EINVAL where the data cannot give it. Nothing needs
 * to be finished where it fails. */
int set_begin(const struct distill_problem *problem, struct set *set);
void set_finish(struct set *set); /* NULL-safe, zeroes */

/* Images [m, C, H, W] of m stored items, in the graph. Differentiable. */
struct node *set_decode(struct graph *graph, const struct set *set, struct node *stored);
/* The images as they are: [n, C, H, W]. */
void set_images(const struct set *set, float *images);
double set_inner_lr(const struct set *set);

/* Its arrays as rows of a checkpoint. */
void set_state(struct set *set, struct state *state);

#endif
