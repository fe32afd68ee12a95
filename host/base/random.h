/* Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
 * 1, 2, 3", SC 2011). A number depends only on (seed, stream, step, index), never on the order of the draws, so host,
 * device, a resumed run and a run with another launch geometry all see the same ones. cl/fused.cl has the device's
 * version. */
#ifndef RETORT_BASE_RANDOM_H
#define RETORT_BASE_RANDOM_H

#include <stdint.h>

/* One block: four 32-bit words from a 128-bit counter and a 64-bit key. */
void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* What a draw is for: the one table of streams, on the host (random_begin) and on the device (graph_random). A new use
 * takes a new number, so that uses never share numbers. */
enum random_stream {
    RANDOM_WEIGHTS = 1,     /* the seed of a network's initial weights */
    RANDOM_SYNTHETIC = 2,   /* initial synthetic images */
    RANDOM_INNER_BATCH = 3, /* rows of the synthetic set per inner step */
    RANDOM_REAL_BATCH = 4,  /* rows of the real set per outer step */
    RANDOM_AUGMENT_INNER = 5,
    RANDOM_AUGMENT_REAL = 6,
    RANDOM_TRUNCATION = 7, /* position and window of the truncation */
    RANDOM_EVALUATE = 8,   /* the seed of a network that is evaluated */
    RANDOM_BASELINE = 9,   /* the random subset of real images */
    RANDOM_SPLIT = 10,     /* held-out split */
    RANDOM_LANCZOS = 11,   /* the seed of the first vector, and on the device the vector itself */
    RANDOM_SIAMESE = 12,   /* one augmentation for all images of a class, per outer step */
    RANDOM_TEST_PART = 13, /* images of train kept for testing, where the data has no test part; seed 0 always */
    /* Experts: initial weights; the order of real images and their augmentation, in an expert's epoch; which expert an
     * outer step matches, and from which epoch on. */
    RANDOM_EXPERT = 20,
    RANDOM_EXPERT_ORDER = 21,
    RANDOM_EXPERT_AUGMENT = 22,
    RANDOM_EXPERT_PICK = 23,
    RANDOM_REAL_TRAINING = 30,  /* real images that a network learns from between matches */
    RANDOM_EARLY_WEIGHTS = 31,  /* the seed of an early network */
    RANDOM_EARLY_TRAINING = 32, /* what it learns from */
    RANDOM_PERTURBATION = 33,   /* which early network an iteration begins with, and how its weights are moved */
    RANDOM_FROZEN_BATCH = 34,   /* real images by whose statistics batch norm is frozen */
    RANDOM_WATCHED_BATCH = 35,  /* real images by whose loss inner training ends */
    RANDOM_TEST = 99,
    RANDOM_PARAMETER = 1000, /* on the device: initial values of a network's parameter i are stream 1000 + i */
};

/* A sequence of draws: (seed, stream, step) fixed, index counts up. Plain value; copy freely. */
struct random {
    uint64_t seed;
    uint32_t stream, step;
    uint64_t index;
};

struct random random_begin(uint64_t seed, enum random_stream stream, uint32_t step);
uint32_t random_bits(struct random *random);
double random_uniform(struct random *random);                 /* in [0, 1), 32 bits */
double random_normal(struct random *random);                  /* mean 0, sd 1: Box-Muller on two draws */
uint32_t random_below(struct random *random, uint32_t bound); /* in [0, bound), unbiased; 0 where bound is 0 */
/* Chooses `count` different numbers of [0, bound) in random order (partial Fisher-Yates). `scratch` holds bound ints;
 * the first `count` of it are the answer. */
void random_choose(struct random *random, uint32_t bound, uint32_t count, uint32_t *scratch);

#endif
