/* What can be known of caches beyond what OpenCL tells: the second cache of a CPU, which Linux tells in files, and how
 * much of the last one a run can count on. */
#include "device/internal.h"

#include "base/file.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a file says of a cache; "" where there is none. */
static void read_words(const char *folder, int index, const char *name, char *words, size_t size) {
    char path[FILE_PATH_MAX];
    snprintf(path, sizeof path, "%s/index%d/%s", folder, index, name);
    if (!file_first_line(path, words, size)) words[0] = '\0';
}

/* "2048K", "1M" or bytes. */
static uint64_t bytes_of(const char *words) {
    if (!isdigit((unsigned char)*words)) return 0;
    char *unit;
    uint64_t bytes = strtoull(words, &unit, 10);
    return *unit == 'K' ? bytes << 10 : *unit == 'M' ? bytes << 20 : bytes;
}

/* How many processors a list such as "0-1,64-65" names. */
static unsigned processors_of(const char *list) {
    unsigned count = 0;
    while (isdigit((unsigned char)*list)) {
        char *end;
        unsigned long first = strtoul(list, &end, 10), last = first;
        if (*end == '-') last = strtoul(end + 1, &end, 10);
        count += last >= first ? (unsigned)(last - first + 1) : 1;
        list = *end == ',' ? end + 1 : end;
    }
    return count;
}

uint64_t traits_cache_share(const struct device_traits *traits) {
    const uint64_t most = 64 << 20;
    return traits->kind == DEVICE_CPU && traits->cache > most ? most : traits->cache;
}

uint64_t device_second_cache(const char *folder) {
    enum { MOST_CACHES = 16 };
    char words[256];
    for (int i = 0; i < MOST_CACHES; i++) {
        read_words(folder, i, "level", words, sizeof words);
        if (strcmp(words, "2") != 0) continue;
        read_words(folder, i, "type", words, sizeof words);
        if (strcmp(words, "Instruction") == 0) continue;
        read_words(folder, i, "size", words, sizeof words);
        uint64_t bytes = bytes_of(words);
        read_words(folder, i, "shared_cpu_list", words, sizeof words);
        unsigned sharers = processors_of(words);
        return sharers ? bytes / sharers : bytes;
    }
    return 0;
}
