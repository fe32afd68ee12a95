/* Lists of numbers in their order, as times that were measured are told. */
#ifndef RETORT_BASE_NUMBERS_H
#define RETORT_BASE_NUMBERS_H

#include <stddef.h>

void numbers_sort(double *values, size_t count); /* ascending, in place; no NaN among them */
/* Of sorted values, one at least; the mean of the middle two where their number is even. */
double numbers_median(const double *sorted, size_t count);

#endif
