/* Private to the data module: what the readers hand to data_load, and the decoders, which read from memory so that they
 * can be fuzzed. `name` is the file's name for messages. Outputs are untouched on failure. */
#ifndef RETORT_DATA_READERS_H
#define RETORT_DATA_READERS_H

#include "data/data.h"

/* --- what a header may claim --- */
/* The product of the sizes; false where one is negative or the product times `element` bytes does not fit 62 bits. */
bool claim_count(int rank, const int64_t *size, size_t element, int64_t *count);
/* Refuses a claim of `bytes` that `stored` deflated bytes cannot hold (deflate shrinks at most 1032-fold) or that this
 * machine's memory cannot. */
int claim_check(const char *name, int64_t bytes, size_t stored);

/* --- readers --- */
/* Train or test as the files have it: pixels as bytes, or as floats in [0,1]. */
struct part {
    int64_t count;
    int channels, height, width;
    unsigned char *bytes; /* [count,C,H,W] or NULL */
    float *values;        /* [count,C,H,W] or NULL */
    int32_t *labels;      /* [count], in the source's numbers, each in 0 .. classes - 1 */
};
struct source {
    struct part train, test;
    double white; /* the byte that is 1.0 */
    int classes;
    char **class_names; /* [classes], or NULL where the source has none */
};
void source_finish(struct source *source);

/* Each fills a zeroed source, which the caller finishes also on failure. A reader may leave out what the specification
 * does not want (classes, limits) where that saves work. */
int idx_load(const struct data_spec *spec, struct source *source);
int cifar_load(const struct data_spec *spec, struct source *source);
int folder_load(const struct data_spec *spec, struct source *source);
int npy_load(const struct data_spec *spec, struct source *source);
/* Names the classes of a set that is known by its kind or labels, where the files have not named them. */
int source_name_known(enum data_kind kind, struct source *source);
/* Whether the specification wants rows of this class. */
bool spec_wants(const struct data_spec *spec, int label);

/* --- decoders --- */
struct idx {
    int rank; /* 1 .. 4 */
    int64_t size[4];
    unsigned char *data; /* owned */
};
/* Unsigned bytes only, plain or gzip. */
int idx_decode(const char *name, const unsigned char *bytes, size_t size, struct idx *idx);

/* Appends the records of one file to the part. label_bytes: 1 (CIFAR-10), 2 (CIFAR-100: coarse, then fine). */
int cifar_decode(const char *name, const unsigned char *bytes, size_t size, int label_bytes, struct part *part);

/* Takes over *bytes, made by malloc, also on failure (*bytes becomes NULL). */
int npy_decode(const char *name, unsigned char **bytes, size_t size, struct npy *npy);

struct picture {
    int height, width;
    unsigned char *rgb; /* [height,width,3], owned */
};
/* PNG or JPEG, told by their signatures. Transparency is laid on white. */
int picture_decode(const char *name, const unsigned char *bytes, size_t size, struct picture *picture);
/* Scales to cover height x width, keeping the aspect, and cuts out the centre: planes [channels,height,width] with
 * channels 3 or 1 (luma). */
int picture_fit(const struct picture *picture, int channels, int height, int width, unsigned char *planes);

#endif
