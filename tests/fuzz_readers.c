/* libFuzzer entry of the decoders of foreign bytes: NPY, IDX, CIFAR, PNG, JPEG, and NPZ through a file in memory.
 *
 *     CC=clang meson setup build/fuzz -Dfuzz=true -Db_sanitize=address,undefined -Db_lundef=false
 *     ninja -C build/fuzz && build/fuzz/tests/fuzz_readers -max_total_time=120 CORPUS */
#define _GNU_SOURCE /* memfd_create */
#include "base/log.h"
#include "data/readers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void feed_npy(const uint8_t *bytes, size_t size) {
    struct npy npy = {0};
    unsigned char *copy = malloc(size + 1);
    float *floats = NULL;
    int32_t *ints = NULL;
    memcpy(copy, bytes, size);
    if (npy_decode("fuzz.npy", &copy, size, &npy) == 0) {
        npy_to_float(&npy, "fuzz.npy", &floats);
        npy_to_int(&npy, "fuzz.npy", &ints);
    }
    npy_finish(&npy);
    free(copy);
    free(floats);
    free(ints);
}

static void feed_npz(const uint8_t *bytes, size_t size) {
    char path[64];
    struct npy npy = {0};
    struct normalisation normalisation = {0};
    int file = memfd_create("fuzz.npz", MFD_CLOEXEC);
    if (file < 0 || write(file, bytes, size) != (ssize_t)size) abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    npy_read_member(path, "images", &npy);
    npy_finish(&npy);
    normalisation_load(path, &normalisation);
    normalisation_finish(&normalisation);
    close(file);
}

static void feed_picture(const uint8_t *bytes, size_t size) {
    struct picture picture = {0};
    unsigned char planes[3 * 9 * 7];
    if (picture_decode("fuzz", bytes, size, &picture) == 0) picture_fit(&picture, 3, 9, 7, planes);
    free(picture.rgb);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    struct idx idx = {0};
    struct part part = {0};
    log_set_level(LOG_QUIET);
    feed_npy(bytes, size);
    feed_npz(bytes, size);
    feed_picture(bytes, size);
    idx_decode("fuzz.idx", bytes, size, &idx);
    free(idx.data);
    for (int label_bytes = 1; label_bytes <= 2; label_bytes++)
        cifar_decode("fuzz.bin", bytes, size, label_bytes, &part);
    free(part.bytes);
    free(part.labels);
    return 0;
}
