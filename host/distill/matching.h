/* Matching of gradients, what methods of that kind share. g and h are the gradients by theta of the mean cross-entropy
 * on real and on synthetic images of one class, at the weights as they are now. Any loss L(g, h) takes three graphs on
 * the set's side: h; a = dL/dh, over vectors [p] alone; and dS, the mixed tangent along a of the gradient by the
 * images, as in a backward step of the unroll. So memory depends neither on the number of classes nor on the loss.
 *
 *     matching_init(&matching, &spec, passes);          before unroll_create, which gets these passes
 *     matching.unroll = unroll;
 *     per class: matching_begin(&matching);
 *                matching_real(&matching, &batch);      g
 *                matching_set(&matching, &batch);       h
 *                matching_compare(&matching, ...);      a
 *                matching_pull(&matching, gradient);    dS along a, of the images of the last matching_set or _show
 *
 * A loss of the means over all classes, too, needs no more memory: matching_add adds each class's g and h to sums,
 * which are compared as a class's are; and since dS is linear in a, each class's is then pulled once more. */
#ifndef RETORT_DISTILL_MATCHING_H
#define RETORT_DISTILL_MATCHING_H

#include "nn/nn.h"
#include "unroll/unroll.h"

/* D(g, h), a scalar, of two vectors [p] in the graph of both. */
typedef struct node *matching_distance(const struct network *network, const void *context, struct node *g,
                                       struct node *h);
/* siamese_apply or another of its kind. */
typedef struct node *matching_augment(struct graph *graph, struct node *images, struct node *maps,
                                      struct node *colours);

/* Borrowed, with all it points to, for the life of the unroll. */
struct matching_spec {
    const struct network *network;
    int64_t real, set;         /* images of one class: of a real batch, of a synthetic one */
    matching_augment *augment; /* by a row of maps and colours for each image; NULL: they stay as they are */
    bool means;                /* sums over classes are wanted: matching_add */
    int64_t frozen;            /* batch norm: real images by whose statistics all is matched; 0: there is none */
    matching_distance *distance;
    const void *distance_context;
};

enum { MATCHING_PASSES = 6, MATCHING_VALUES = 9 };
/* Stays where it is for the life of the unroll, whose passes refer to it. Owns nothing. */
struct matching {
    const struct matching_spec *spec;
    struct unroll *unroll;
    struct pass_value values[MATCHING_PASSES][MATCHING_VALUES];
};
/* Fills in the unroll_spec's passes, from its first on; returns how many they are. */
int matching_init(struct matching *matching, const struct matching_spec *spec,
                  struct pass_spec passes[MATCHING_PASSES]);

/* Images of one class: as many as the spec says, of which the first `different` count, each alike, and the others are
 * repetitions. maps [count, 6] and colours [count, COLOUR_SIZE] where the spec augments. */
struct matching_batch {
    int label;
    int64_t different;
    const float *images, *maps, *colours;
};

/* Batch norm's running statistics take those of `frozen` images into account, as a step of training would, and are
 * those by which all is matched until the next call. Nothing happens without batch norm. */
int matching_freeze(struct matching *matching, const float *images);
int matching_begin(struct matching *matching); /* g and h to zero */
int matching_real(struct matching *matching, const struct matching_batch *batch);
int matching_set(struct matching *matching, const struct matching_batch *batch);
/* Uploads the batch for matching_pull without computing h. */
int matching_show(struct matching *matching, const struct matching_batch *batch);
/* Sums over classes: to zero, and g and h of the class at hand added. */
int matching_begin_sums(struct matching *matching);
int matching_add(struct matching *matching);
/* *loss = weight D(scale g, scale h), and a, its derivative by h; of the class at hand, or of the sums. */
enum matching_of { MATCHING_CLASS, MATCHING_SUMS };
int matching_compare(struct matching *matching, enum matching_of of, double scale, double weight, double *loss);
/* gradient [set, C, H, W]: derivative of that loss by the images. */
int matching_pull(struct matching *matching, float *gradient);

#endif
