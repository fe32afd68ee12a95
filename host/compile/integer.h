/* Whole numbers: the smaller, the larger, and divisions that round up. Of positive numbers. */
#ifndef RETORT_COMPILE_INTEGER_H
#define RETORT_COMPILE_INTEGER_H

#include <stdint.h>

static inline int64_t min_of(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t max_of(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static inline int64_t divide_up(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
static inline int64_t round_up(int64_t a, int64_t b) {
    return divide_up(a, b) * b;
}

#endif
