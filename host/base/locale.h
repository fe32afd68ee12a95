/* Numbers as text with a point. printf, strtod and their kin follow the locale of the calling program, where a number
 * may have a comma; descriptors, kernels and results must not. Each entry of the public API therefore begins with
 *
 *     locale_t before = locale_enter_c();
 *
 * and ends with uselocale(before). Only the calling thread is concerned. */
#ifndef RETORT_BASE_LOCALE_H
#define RETORT_BASE_LOCALE_H

#include <locale.h>

/* Puts the calling thread into the C locale; returns the one that it was in. */
locale_t locale_enter_c(void);

#endif
