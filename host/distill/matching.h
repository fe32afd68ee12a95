/* Matching of gradients, what methods of that kind share. g and h are the gradients by theta of the mean cross-entropy
 * on real and on synthetic images of one class, at the weights as they are now. Any loss L(g, h) takes three graphs on
 * the set's side: h; a = dL/dh, over vectors [p] alone; and dS, the mixed tangent along a of the gradient by the
 * images, as in a backward step of the unroll. So memory depends neither on the number of classes nor on the loss.
 *
 *     matching_init(&matching, &spec, passes, &count);  before unroll_create, which gets these passes
 *     matching.unroll = unroll;
 *     per class: matching_real(&matching, &batch);      g
 *                matching_set(&matching, &batch);       h
 *                matching_compare(&matching, ...);      a
 *                matching_pull(&matching, ...);         adds dS along a, of the images that matching_set or
 *                                                       matching_show took last
 *
 * A loss of the means over all classes, too, needs no more memory: matching_add adds each class's g and h to sums,
 * which are compared as a class's are; and since dS is linear in a, each class's is then pulled once more. */
#ifndef RETORT_DISTILL_MATCHING_H
#define RETORT_DISTILL_MATCHING_H

#include "data/data.h"
#include "distill/gradient_distance.h"
#include "unroll/unroll.h"

/* siamese_apply or another of its kind. */
typedef struct node *matching_augment(struct graph *graph, struct node *images, struct node *maps,
                                      struct node *colours);

struct matching_spec {
    const struct network *network;
    int64_t real, set;         /* images of one class: of a real batch, of a synthetic one */
    matching_augment *augment; /* by a row of maps and colours for each image; NULL: they stay as they are */
    bool means;                /* sums over classes are wanted: matching_add */
    int64_t frozen;            /* batch norm: real images by whose statistics all is matched; 0: there is none */
    enum gradient_distance distance;
};

enum { MATCHING_PASSES = 6, MATCHING_VALUES = 9 };
/* Stays where it is for the life of the unroll, whose passes refer to it. */
struct matching {
    struct matching_spec spec;
    struct unroll *unroll; /* the method puts it there */
    struct pass_value values[MATCHING_PASSES][MATCHING_VALUES];

    /* Room for the rows of a class: images [most rows, C, H, W] of the real batch, the set's batch or the frozen one,
     * maps, colours and labels of the first two, and a derivative by the set's. */
    float *images, *maps, *colours, *gradient;
    int32_t *labels;
    int64_t rows; /* of maps, colours and labels */
    struct arena arena;
};
/* Fills in the unroll_spec's passes, from its first on, and their number. RETORT_ENOMEM. */
int matching_init(struct matching *matching, const struct matching_spec *spec, struct pass_spec passes[MATCHING_PASSES],
                  int *pass_count);
void matching_finish(struct matching *matching); /* NULL-safe, zeroes */
/* Copies the first row of maps and colours to all: an image's augmentation becomes its class's. */
void matching_spread(struct matching *matching);

/* Images of one class: as many as the spec says, of which the first `different` count, each alike, and the others are
 * repetitions. maps [count, 6] and colours [count, COLOUR_SIZE] where the spec augments. */
struct matching_batch {
    int label;
    int64_t different;
    const float *images, *maps, *colours;
};

/* Batch norm's running statistics take those of `frozen` real images into account, equally many of each class, as a
 * step of training would, and are those by which all is matched until the next call. Nothing happens without batch
 * norm. */
int matching_freeze(struct matching *matching, const struct dataset *train, struct random *random);
int matching_real(struct matching *matching, const struct matching_batch *batch); /* g */
int matching_set(struct matching *matching, const struct matching_batch *batch);  /* h */
/* Uploads the batch for matching_pull without computing h. */
int matching_show(struct matching *matching, const struct matching_batch *batch);
/* Sums over classes: to zero, and g and h of the class at hand added. */
int matching_begin_sums(struct matching *matching);
int matching_add(struct matching *matching);
/* *loss = weight D(scale g, scale h), and a, its derivative by h; of the class at hand, or of the sums. */
enum matching_of { MATCHING_CLASS, MATCHING_SUMS };
int matching_compare(struct matching *matching, enum matching_of of, double scale, double weight, double *loss);
/* Adds the derivative of that loss by image i to row rows[i] (NULL: row i) of gradient [.., C, H, W]. */
int matching_pull(struct matching *matching, const uint32_t *rows, float *gradient);

#endif
