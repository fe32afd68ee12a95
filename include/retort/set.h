/** @file
 * Distilled sets: what a run leaves in `set/`, as numbers. Reading one needs no device.
 *
 *     struct retort_set *set = NULL;
 *     if (retort_set_read("runs/one", &set) == RETORT_OK) {
 *         const struct retort_set_shape *shape = retort_set_shape(set);
 *         const float *images = retort_set_images(set);
 *         ...
 *     }
 *     retort_set_destroy(set);
 */
#ifndef RETORT_SET_H
#define RETORT_SET_H

#include "retort/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A set in memory. Any number of threads may read one at the same time. */
struct retort_set;

/** Sizes of a set. Later versions may add members at the end. */
struct retort_set_shape {
    int64_t count; /**< N, images */
    int channels;  /**< C */
    int height;    /**< H */
    int width;     /**< W */
    int classes;   /**< K */
    int ipc;       /**< images of each class, rows then being grouped by class; 0 where the classes differ in it */
};

/** Reads a set, wherever it has been moved to.
 * @param path a finished run folder, the folder `set/` of one, or what `retort export` wrote: its folder, or the .npz
 * or .safetensors file
 * @param[out] set the caller's, for retort_set_destroy()
 * @return #RETORT_EINVAL where there is no set; #RETORT_EFORMAT where a file of it is damaged; #RETORT_EIO. */
int retort_set_read(const char *path, struct retort_set **set);

/** Frees it, with all that the functions below gave; NULL is fine. */
void retort_set_destroy(struct retort_set *set);

/** Its sizes. Valid until the set is destroyed. */
const struct retort_set_shape *retort_set_shape(const struct retort_set *set);

/** The images, [N,C,H,W] row-major, in the space that networks are trained in: normalised, perhaps whitened. Valid
 * until the set is destroyed. */
const float *retort_set_images(const struct retort_set *set);

/** Whole-number labels, [N]: the class of each image; where labels were learned, the class that it began with (or, not
 * known, the largest). Valid until the set is destroyed. */
const int32_t *retort_set_labels(const struct retort_set *set);

/** Learned labels y, [N,K] values of at least 0 that need not sum to 1: the loss of an image with logits z is
 * -sum_k y_k log softmax(z)_k. NULL where labels were not learned. Valid until the set is destroyed. */
const float *retort_set_soft_labels(const struct retort_set *set);

/** The name of class `index`, 0 to K - 1; NULL outside. Valid until the set is destroyed. */
const char *retort_set_class_name(const struct retort_set *set, int index);

/** The learning rate of training on it: learned with the images, or the recipe's; 0 where the folder does not tell. */
double retort_set_inner_lr(const struct retort_set *set);

/** The text of set.json: recipe (`recipe`, a whole descriptor), seed, device, hashes. Valid until the set is destroyed.
 */
const char *retort_set_about(const struct retort_set *set);

/** The images as pixels, the normalisation undone, not clamped to [0,1].
 * @param set of which
 * @param[out] pixels [N,C,H,W], the caller's array, filled
 * @param[out] exact 1 where that is exact but for rounding; 0 where the normalisation also scaled every image by itself
 *     (zca), which cannot be undone. May be NULL. */
int retort_set_pixels(const struct retort_set *set, float *pixels, int *exact);

/** Normalises pixels as the set's own data were, in place: what a network trained on the set wants to be tested on.
 * @param set whose normalisation it is
 * @param[in,out] images [count,C,H,W], in [0,1] before
 * @param count of images */
int retort_set_normalise(const struct retort_set *set, float *images, int64_t count);

#ifdef __cplusplus
}
#endif

#endif
