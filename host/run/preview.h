/* Pictures of a set, for eyes: preview.png, and the few of previews/ that show how it came about. */
#ifndef RETORT_RUN_PREVIEW_H
#define RETORT_RUN_PREVIEW_H

#include "run/set_folder.h"

/* Writes a PNG: a block of images for each class, its name above it. Pixels as they were where the normalisation can be
 * undone, otherwise each image scaled to its own least and greatest value. Images are enlarged by a whole factor, as
 * far as 1600 pixels of width allow; of many classes and images the first are shown, and a line below says so. `names`
 * [classes], of which letters that are not ASCII are shown as "?"; NULL: the same without words, enlargement and more
 * than 800 pixels of width, for pages that show several. */
int preview_write(const char *path, const struct distilled_set *set, const struct normalisation *normalisation,
                  const char *const *names);

/* Whether the set is to be kept as a picture after outer step `step` of `total`: at the start (0), at the end, and at
 * ten steps between, the closer the earlier, since a set changes most at first. Follows from the two numbers alone. */
bool preview_is_kept(int step, int total);

#endif
