/* preview.png: the set for eyes, a row per class. */
#ifndef RETORT_RUN_PREVIEW_H
#define RETORT_RUN_PREVIEW_H

#include "run/set_folder.h"

/* Pixels as they were where the normalisation can be undone, otherwise each image scaled to its own least and greatest
 * value. Small images are enlarged; of many, the first classes and images that fit 4096 pixels each way are shown. */
int preview_write(const char *path, const struct distilled_set *set, const struct normalisation *normalisation);

#endif
