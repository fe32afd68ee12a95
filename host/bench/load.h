/* The fixed loads by which devices are compared: each the same on every device, measured turn by turn, so that a caller
 * can let several devices take turns and noise hits all alike. */
#ifndef RETORT_BENCH_LOAD_H
#define RETORT_BENCH_LOAD_H

#include "bench/bench.h"

enum load_kind { LOAD_PRODUCT, LOAD_CONVOLUTION, LOAD_ROWS, LOAD_LAUNCH, LOAD_INNER, LOAD_OUTER };

struct load {
    const char *name, *words; /* of files: "outer-32-1"; for eyes */
    enum load_kind kind;
    bool quick;                  /* measured where all must be quick too, at sizes of a few elements */
    bool waited;                 /* of LOAD_LAUNCH */
    struct matmul_sizes product; /* of LOAD_PRODUCT */
    struct bench_conv_spec conv; /* of LOAD_CONVOLUTION */
    struct bench_step_spec step; /* of LOAD_INNER and LOAD_OUTER */
};
enum { LOADS = 19 };
extern const struct load loads[LOADS];
const struct load *load_find(const char *name); /* NULL: there is none of that name */

/* A device with what the current load keeps on it. */
struct load_bench;
int load_bench_create(struct device *device, enum family family, bool quick, struct load_bench **bench);
void load_bench_destroy(struct load_bench *bench); /* NULL-safe */
/* Who computes what: the wisdom's name, the family of kernels, words on matrix products. */
const struct kernel_target *load_bench_target(const struct load_bench *bench);
const char *load_bench_products(const struct load_bench *bench);

/* Prepares a load in place of the last one; *build_seconds are those of building kernels, NaN where that is not looked
 * at: an inner step finds all that the outer step of its sizes has built. */
int load_begin(struct load_bench *bench, const struct load *load, double *build_seconds);
/* Seconds of one, by one turn: about a tenth of a second of many, or one alone that takes longer. */
int load_turn(struct load_bench *bench, double *seconds, int *count);

/* What is known about a load once turns were taken; NaN: not known. */
struct load_facts {
    double flops,
        bytes; /* operations of one, convolutions as plain sums of products; bytes that its kernels must move */
    double device_bytes; /* the most that was allocated at once */
    /* Of an outer step, seconds of its kernels on the device: of those nearer to the peak of arithmetic, and of those
     * nearer to that of memory. */
    double arithmetic, memory;
    const char *way; /* how it is computed; NULL */
};
/* Takes an outer step with profiling for its bytes and the seconds of its kernels, for which it needs the peaks; NULL:
 * they are not known. */
int load_end(struct load_bench *bench, const struct device_peaks *peaks, struct load_facts *facts);

#endif
