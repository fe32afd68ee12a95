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
    double white;      /* the byte that is 1.0 */
    struct text story; /* what was read, a line a file or folder, for data_set_pair */
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
int csv_load(const struct data_spec *spec, struct source *source);
/* Names the classes of a set that is known by its kind or labels, where the files have not named them. */
int source_name_known(enum data_kind kind, struct source *source);
/* Whether the specification wants rows of this class. */
bool spec_wants(const struct data_spec *spec, int label);

/* --- pictures in files of their own: what the folder and the CSV reader find --- */
struct listed {
    char *path;
    int label;
    int64_t rank; /* its place in its class */
};
struct listing {
    struct listed *items;
    size_t count, capacity;
};
void listing_finish(struct listing *listing);
/* `name` lies in `folder`, unless it is an absolute path. */
int listing_add(struct listing *listing, const char *folder, const char *name, int label, int64_t rank);
/* Under a limit, pictures are taken from the classes in turn, so that every class has its share. */
void listing_limit(struct listing *listing, int64_t limit);
/* Decodes all and brings them to one size and number of channels, as data.size and data.grey say. Pictures that cannot
 * be read are listed in the failure or, under data.skip_corrupt, in a warning. `what` ("train") and `place` are for
 * the line that goes to the story. */
int listing_read(const struct data_spec *spec, const struct listing *listing, const char *what, const char *place,
                 struct part *part, struct text *story);

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
    bool grey;          /* stored without colours */
    unsigned char *rgb; /* [height,width,3], owned */
};
/* PNG or JPEG, told by their signatures. Transparency is laid on white. */
int picture_decode(const char *name, const unsigned char *bytes, size_t size, struct picture *picture);
/* Scales to cover height x width, keeping the aspect, and cuts out the centre: planes [channels,height,width] with
 * channels 3 or 1 (luma). */
int picture_fit(const struct picture *picture, int channels, int height, int width, unsigned char *planes);

#endif
