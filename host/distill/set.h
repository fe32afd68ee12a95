/* The synthetic set: what is stored of it, its labels, how it starts, and its outer variables.
 *
 * What is stored and learned need not be images: set_decode makes images of it before a step, set_pull brings the
 * gradient by images, which a method leaves, to one by what is stored. Stored are the images themselves, coefficients
 * of their spectra (frequency.h), or pixels of images whose tiles are the set's (tiles.h). Rows are grouped by class,
 * ipc of each. */
#ifndef RETORT_DISTILL_SET_H
#define RETORT_DISTILL_SET_H

#include "base/memory.h"
#include "distill/dct.h"
#include "distill/outer.h"
#include "distill/state.h"

enum set_init {
    SET_NOISE,   /* N(0,1) scaled to unit norm per image; tiles: U(0,1) */
    SET_REAL,    /* random real images */
    SET_INDICES, /* the real images of a list of rows */
    SET_MIX,     /* tiles: a random real image shrunk into each */
};
enum set_labels { LABELS_HARD, LABELS_SOFT }; /* soft: learned raw positive values, started one-hot, clamped at 0 */

enum set_parameters {
    PARAMETERS_PIXELS,    /* the images */
    PARAMETERS_FREQUENCY, /* coefficients of their spectra, those that vary most */
    PARAMETERS_TILES,     /* pixels in [0,1] of images each of which is cut into several */
};

/* The descriptor's `set` section. */
struct set_spec {
    int ipc;     /* images per class that networks see */
    int ipc_key; /* what the key set.ipc says: the same number, but for tiles, that of the images stored */
    enum set_parameters parameters;
    int budget; /* frequency: floats stored of a class, in images; ipc / budget images are held in the room of one */
    int factor; /* tiles: along each side of a stored image */
    enum set_init init;
    const char *indices; /* the file of the list, for whoever opens files */
    enum set_labels labels;
};

/* The ipc of a specification whose key set.ipc says `ipc_key`. */
int set_ipc_of(const struct set_spec *spec);

/* A variable that is not learned has count 0. */
enum set_variable { SET_STORED, SET_SOFT_LABELS, SET_LOG_LR, SET_VARIABLES };

struct set {
    int classes, ipc, channels, height, width;
    int64_t count;         /* n = classes ipc */
    int64_t image_size;    /* C H W */
    int64_t stored_count;  /* rows of what is stored: n, or of stored images whose tiles those are */
    int64_t stored_size;   /* values of a row */
    float *stored;         /* what is learned, [stored_count, stored_size] */
    float *images;         /* [n, C, H, W] in network space, as set_decode left them; where they are stored, `stored` */
    float *image_gradient; /* [n, C, H, W]: a method leaves the derivative of its loss by the images */
    struct frequency *frequency; /* NULL: not coefficients are stored */
    struct tiles *tiles;         /* NULL: not tiles; without either, images */
    float *soft_labels;          /* [n, K]; NULL: hard ones */
    int32_t *hard_labels;        /* [n]; under soft labels the class that a row began with */
    double fixed_lr;             /* of the inner run where it is not learned */
    float log_lr;                /* where it is */
    struct outer_variable variables[SET_VARIABLES];
    struct arena arena;
};

struct distill_problem;
struct frequency;
/* Draws the start: RANDOM_SYNTHETIC of the problem's seed. RETORT_EINVAL where the data cannot give it. Nothing needs
 * to be finished where it fails. */
int set_begin(const struct distill_problem *problem, struct set *set);
void set_finish(struct set *set); /* NULL-safe, zeroes */

/* images from stored; variables[SET_STORED].gradient from image_gradient: the transpose of the former. Where images are
 * stored there is nothing to do. */
int set_decode(struct set *set);
int set_pull(struct set *set);
/* Who makes images of coefficients, once that is settled; DCT_AUTO where images are stored. */
enum dct_way set_dct(const struct set *set);
/* The leader's start to all members of a team, each of whom calls this: what a device computes of a start, coefficients
 * and the choice of them, may differ from device to device. */
struct team;
int set_share(struct set *set, struct team *team);
/* After its arrays were loaded. */
int set_loaded(struct set *set);
/* Rows of the device memory that this takes; NULL past the end. */
struct memory;
const struct memory *set_memory(const struct set *set, int i);

/* What a set stores beside its labels. */
struct set_storage {
    int kept;       /* values of a channel of which an image is made */
    int64_t floats; /* of the whole set: what a budget counts */
    int64_t places; /* whole numbers that say which coefficients those are, the same for all images of a class; as in
                       the paper no budget counts them */
};
/* RETORT_EINVAL where images of this size do not divide the budget, or are smaller than the tiles along a side. */
int set_storage(const struct set_spec *spec, int classes, int channels, int height, int width,
                struct set_storage *storage);
double set_inner_lr(const struct set *set);

/* Its arrays as rows of a checkpoint. */
void set_state(struct set *set, struct state *state);

#endif
