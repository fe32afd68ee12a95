#include "base/random.h"

#include <math.h>

void philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

struct random random_begin(uint64_t seed, enum random_stream stream, uint32_t step) {
    return (struct random){.seed = seed, .stream = (uint32_t)stream, .step = step};
}

uint32_t random_bits(struct random *random) {
    uint64_t block = random->index / 4;
    uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), random->step, random->stream};
    uint32_t key[2] = {(uint32_t)random->seed, (uint32_t)(random->seed >> 32)};
    uint32_t words[4];
    philox4x32(counter, key, words);
    return words[random->index++ % 4];
}

double random_uniform(struct random *random) {
    return random_bits(random) * 0x1p-32;
}

double random_normal(struct random *random) {
    double radius = sqrt(-2.0 * log((random_bits(random) + 0.5) * 0x1p-32));
    return radius * cos(2.0 * 3.14159265358979323846 * random_uniform(random));
}

uint32_t random_below(struct random *random, uint32_t bound) {
    if (bound == 0) return 0;
    uint32_t reject = -bound % bound; /* 2^32 mod bound: the draws that would make low numbers likelier */
    uint32_t bits;
    do bits = random_bits(random);
    while (bits < reject);
    return bits % bound;
}

void random_choose(struct random *random, uint32_t bound, uint32_t count, uint32_t *scratch) {
    for (uint32_t i = 0; i < bound; i++) scratch[i] = i;
    for (uint32_t i = 0; i < count && i < bound; i++) {
        uint32_t j = i + random_below(random, bound - i);
        uint32_t kept = scratch[i];
        scratch[i] = scratch[j];
        scratch[j] = kept;
    }
}
