/* Program binaries on disk: one file a program, named by a hash over everything that changes the binary.
 *
 * The file carries a checksum, so that a damaged one never reaches the driver: some abort on a binary they cannot read.
 */
#include "device/internal.h"

#include "base/file.h"
#include "base/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 1 };

struct header {
    char magic[8];
    uint64_t size, checksum; /* of the binary that follows */
};

static const struct header blank = {.magic = "RETORTCL"};

static bool cache_folder(char folder[FILE_PATH_MAX]) {
    const char *setting = getenv("RETORT_CACHE");
    return !(setting && strcmp(setting, "off") == 0) && folder_cache(folder);
}

static void hash_text(struct hash *hash, const char *text) {
    hash_update(hash, text, strlen(text) + 1); /* with its end, so that neighbours cannot run together */
}

void cache_path(const struct device *device, const char *source, const char *options, char path[]) {
    char folder[FILE_PATH_MAX], name[80], hex[65];
    path[0] = '\0';
    if (!cache_folder(folder)) return;
    struct hash *hash = hash_create();
    if (!hash) return;
    const struct device_traits *traits = &device->traits;
    snprintf(name, sizeof name, "format %d", FORMAT);
    const char *const parts[] = {name,           traits->platform, traits->name, traits->vendor, traits->version,
                                 traits->driver, options,          source};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) hash_text(hash, parts[i]);
    hash_finish(hash, hex);
    snprintf(name, sizeof name, "%s.clbin", hex);
    if (path_join(folder, name, path) < 0) {
        path[0] = '\0';
        error_clear();
    }
}

/* Into the cache folder, which is made where it is missing. */
static void write_file(const char *path, const void *data, size_t size) {
    char folder[FILE_PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = '\0';
    if (folder_create(folder) < 0 || file_write(path, data, size) < 0) {
        log_debug("cache: %s", retort_error_message());
        error_clear();
    }
}

/* A driver with a cache of its own builds the second time in a small part of the first's. Asking it for a binary is not
 * for nothing: PoCL then compiles all kernels to their end, which it had done long ago. */
bool cache_wants(const char *path, double seconds) {
    static const double slow = 0.1, part_of_first = 0.25;
    const char *setting = getenv("RETORT_CACHE");
    char mark[FILE_PATH_MAX], words[32];
    unsigned char *text = NULL;
    size_t size;
    if (!*path) return false;
    if (setting && strcmp(setting, "on") == 0) return true;
    if (seconds < slow || snprintf(mark, sizeof mark, "%s.slow", path) >= (int)sizeof mark) return false;
    if (file_exists(mark) && file_read(mark, sizeof words, &text, &size) == RETORT_OK) {
        double first = strtod((const char *)text, NULL);
        free(text);
        return seconds > part_of_first * first;
    }
    error_clear();
    snprintf(words, sizeof words, "%.3f\n", seconds);
    write_file(mark, words, strlen(words));
    return false;
}

bool cache_load(const char *path, unsigned char **binary, size_t *size) {
    unsigned char *data = NULL;
    size_t length = 0;
    struct header header = {0};
    if (!*path || !file_exists(path)) return false;
    if (file_read(path, (size_t)1 << 30, &data, &length) < 0) {
        error_clear();
        return false;
    }
    if (length > sizeof header) memcpy(&header, data, sizeof header);
    size_t rest = length - sizeof header;
    if (memcmp(header.magic, blank.magic, sizeof header.magic) != 0 || header.size != rest
        || header.checksum != hash_fast(data + sizeof header, rest, FORMAT)) {
        log_debug("cache: %s is damaged, building from source", path);
        free(data);
        return false;
    }
    memmove(data, data + sizeof header, rest);
    *binary = data;
    *size = rest;
    return true;
}

void cache_store(const char *path, const unsigned char *binary, size_t size) {
    struct header header = blank;
    header.size = size;
    header.checksum = hash_fast(binary, size, FORMAT);
    unsigned char *data = malloc(sizeof header + size);
    if (!data) return;
    memcpy(data, &header, sizeof header);
    memcpy(data + sizeof header, binary, size);
    write_file(path, data, sizeof header + size);
    free(data);
}
