#include "run/digest.h"

#include "base/error.h"
#include "base/file.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int digest_files(const char *const *paths, size_t count, char hex[65]) {
    int status = RETORT_OK;
    FILE *stream = NULL;
    char block[16384], digest[65];
    struct hash *hash = hash_create();
    if (!hash) RAISE(RETORT_ENOMEM, "out of memory reading %s", paths[0]);
    for (size_t i = 0; i < count; i++) {
        stream = fopen(paths[i], "rb");
        if (!stream) RAISE(RETORT_EIO, "cannot read %s: %s", paths[i], strerror(errno));
        for (size_t got; (got = fread(block, 1, sizeof block, stream)) > 0;) hash_update(hash, block, got);
        if (ferror(stream)) RAISE(RETORT_EIO, "cannot read %s: %s", paths[i], strerror(errno));
        fclose(stream);
        stream = NULL;
    }
done:
    if (stream) fclose(stream);
    if (hash) {
        hash_finish(hash, digest);
        if (status == RETORT_OK) memcpy(hex, digest, sizeof digest);
    }
    return status;
}
