/* Lists of rows of a data set, as `set.indices` names one. */
#ifndef RETORT_RUN_INDEX_LIST_H
#define RETORT_RUN_INDEX_LIST_H

#include <stdint.h>

/* Reads a .npy of whole numbers [n], or a text of whole numbers with white space or commas between them and comments
 * from # to the end of the line. Neither range nor order is checked. The caller frees *rows. RETORT_EFORMAT names the
 * file and line. */
int index_list_read(const char *path, int32_t **rows, int64_t *count);

#endif
