/* The nearest known word to one that is not known: what usage errors suggest. */
#ifndef RETORT_RUN_NEAREST_H
#define RETORT_RUN_NEAREST_H

#include <stddef.h>

/* Insertions, deletions, replacements and swaps of neighbours that turn one word into the other, case ignored. Words
 * longer than 63 characters count as far from everything. */
int word_distance(const char *a, const char *b);

/* The known word that is close enough to have been meant, or NULL. `known` ends with NULL. */
const char *word_nearest(const char *word, const char *const *known);
/* Whether a distance is small enough for a word of this length to have been meant. */
int word_is_close(const char *word, int distance);

#endif
