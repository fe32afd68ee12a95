/** @file
 * Images of your own, from memory: written to a file that a descriptor names, since a run that is resumed has to find
 * them again.
 *
 *     retort_data_write("mine.npz", &train, &test);
 *
 * and in the descriptor `data: {kind: npy, path: mine.npz}`. Files and folders that Retort reads as they are need none
 * of this. */
#ifndef RETORT_DATA_H
#define RETORT_DATA_H

#include "retort/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Labelled images, borrowed from the caller. */
struct retort_images {
    int64_t count;         /**< how many */
    int channels;          /**< of an image: 1 or 3, usually */
    int height;            /**< in pixels */
    int width;             /**< in pixels */
    const float *pixels;   /**< [count, channels, height, width], row-major, in [0,1] */
    const int32_t *labels; /**< [count], classes from 0 */
};

/** Writes them as one .npz, whole or not at all; a file of that name is replaced. Normalising is left to the run.
 * @param path of the file, by convention ending in .npz
 * @param train images to distil
 * @param test images to test on, of the same size; NULL: none
 * @return #RETORT_EINVAL where a pixel is not in [0,1], a label is negative or sizes differ; #RETORT_EIO. */
int retort_data_write(const char *path, const struct retort_images *train, const struct retort_images *test);

#ifdef __cplusplus
}
#endif

#endif
