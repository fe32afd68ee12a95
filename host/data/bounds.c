/* What a foreign header may claim before memory is taken for it. */
#include "data/readers.h"

#include "base/error.h"

#include <unistd.h>

bool claim_count(int rank, const int64_t *size, size_t element, int64_t *count) {
    int64_t product = 1, bytes;
    /* Sizes of 0 are multiplied in last: [huge, huge, 0] has no elements, but strides made of its other sizes would
     * overflow. */
    for (int i = 0; i < rank; i++)
        if (size[i] < 0 || __builtin_mul_overflow(product, size[i] ? size[i] : 1, &product)) return false;
    if (__builtin_mul_overflow(product, (int64_t)element, &bytes) || bytes >> 62) return false;
    for (int i = 0; i < rank; i++)
        if (size[i] == 0) product = 0;
    *count = product;
    return true;
}

int claim_check(const char *name, int64_t bytes, size_t stored) {
    int64_t most;
    if (__builtin_mul_overflow((int64_t)stored, 1032, &most) || __builtin_add_overflow(most, 1024, &most))
        most = INT64_MAX;
    if (bytes > most)
        return error_set(
            RETORT_EFORMAT,
            "%s: its header claims %lld bytes of content, more than its %zu compressed bytes can hold; the "
            "file is damaged: fetch it again",
            name, (long long)bytes, stored);
    int64_t memory = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    if (memory > 0 && bytes > memory)
        return error_set(RETORT_ENOMEM, "%s holds %lld bytes, more than this machine's memory of %lld", name,
                         (long long)bytes, (long long)memory);
    return RETORT_OK;
}
