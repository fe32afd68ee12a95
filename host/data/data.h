/* Data sets on the host: reading foreign files, normalising, choosing rows, drawing augmentations.
 *
 * Every reader treats its bytes as hostile: sizes are bounded and checked against the file before memory is taken; a
 * failure names the file, where in it, what was found, what was expected and the mend. */
#ifndef RETORT_DATA_DATA_H
#define RETORT_DATA_DATA_H

#include "base/augmentation.h"
#include "base/memory.h"
#include "base/random.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum data_kind {
    DATA_IDX,     /* MNIST's format, gzip or plain: a folder that holds the four official names */
    DATA_CIFAR10, /* binary records: a folder with data_batch_1..5.bin, test_batch.bin (or its parent) */
    DATA_CIFAR100,
    DATA_FOLDER, /* PNG and JPEG, a folder per class: PATH/train/CLASS/x.jpeg and PATH/{val,test}/CLASS/...; without
                    train/, PATH/CLASS/... all in train. Nested `images/` folders inside a class are looked into. */
    DATA_NPY,    /* images [N,C,H,W], [N,H,W,C] with C 1 or 3, or [N,H,W] (float or uint8) and labels [N], .npy pairs or
                    members of one .npz */
    DATA_CSV     /* PNG and JPEG listed in a text: a path and a label a line, and which part it is of if the header says
                    so; or a folder with such a train.csv and, perhaps, test.csv or val.csv */
};
enum normalise_kind {
    NORMALISE_NONE,
    NORMALISE_MEAN_SD,  /* per channel, of the training pixels in [0,1] */
    NORMALISE_ZCA_KIP,  /* per image: minus its mean, over its norm; second-moment eigenvalues + 0.1 x their
                           mean (KIP, the BPTT family). The per-image step cannot be undone. */
    NORMALISE_ZCA_PIXEL /* pixels in [0,1], minus the mean image; eigenvalues + 0.1 (MTT, DATM) */
};

/* Their words, in descriptors and set folders; NULL-terminated. */
extern const char *const normalise_words[];

/* The descriptor's `data` section. Strings are borrowed. */
struct data_spec {
    enum data_kind kind;
    const char *path;        /* folder or file */
    const char *labels_path; /* npy: the labels' file, NULL for members `images`, `labels` of one .npz, which may also
                                hold `test_images`, `test_labels` */
    const int *classes;      /* kept classes in this order, by number in the source; NULL: all */
    int class_count;
    const char *const *class_names; /* of the kept classes in their order; NULL: those of the source */
    int class_name_count;
    enum normalise_kind normalise;
    double holdout; /* fraction of train kept aside for honest selection, [0, 1); drawn per class by RANDOM_SPLIT */
    /* Fraction of train kept for testing where the source has no test part, [0, 1), rounded, but at least one image of
     * a class that has two. Drawn per class by RANDOM_TEST_PART from seed 0: runs of all seeds are tested on the same
     * images, and no evaluation with another seed tests on images that a set was made from. 0: none. */
    double test;
    int height, width; /* folder, csv: resize the shorter side, crop the centre; 0: as the files are (must be equal) */
    bool grey;         /* folder, csv: one channel */
    bool skip_corrupt; /* folder, csv: go without pictures that cannot be read, with a warning */
    int64_t train_limit, test_limit; /* at most so many rows of the kept classes, the first of the source (folder, csv:
                                        the classes take turns); 0: all */
};

/* Images [count, channels, height, width] and labels 0 .. classes - 1. Owns its arrays. */
struct dataset {
    int64_t count;
    int channels, height, width, classes;
    float *images;
    int32_t *labels;
    char **class_names;   /* [classes]: the specification's, those of folders or files, those a well-known set is known
                             by, else "0", "1", ... */
    int64_t *class_rows;  /* rows grouped by class, ascending within a class */
    int64_t *class_begin; /* [classes + 1]: where each class starts in class_rows */
};
void dataset_finish(struct dataset *dataset); /* NULL-safe, zeroes */

/* The map from pixels in [0,1] to the space the networks train in. */
struct normalisation {
    enum normalise_kind kind;
    int channels, height, width;
    double *mean;    /* mean_sd: [C]; zca_pixel: [C*H*W] mean image; zca: NULL, that family subtracts none */
    double *sd;      /* mean_sd: [C] */
    float *whiten;   /* ZCA: [D,D], symmetric */
    float *unwhiten; /* ZCA: its inverse; kip: undoes the whitening, not the per-image step */
};
void normalisation_finish(struct normalisation *normalisation); /* NULL-safe, zeroes */
/* Learns the map from training pixels in [0,1]. RETORT_EINVAL where they are too flat or too few for it. */
int normalisation_fit(enum normalise_kind kind, const struct dataset *train, struct normalisation *normalisation);
/* pixels [count,C,H,W] in [0,1] -> network space, in place. */
int normalisation_apply(const struct normalisation *normalisation, float *images, int64_t count);
/* The other way, as far as it can be undone; *exact tells. Not clamped. */
int normalisation_undo(const struct normalisation *normalisation, float *images, int64_t count, bool *exact);
/* The same for eyes, in [0,1]: pixels are cut off there; where it cannot be undone (*exact false) each image is
 * stretched from its least to its greatest value. */
int normalisation_show(const struct normalisation *normalisation, float *images, int64_t count, bool *exact);
/* normalisation.npz of a set folder: members kind (a string as uint8), shape (int32 [3]: C, H, W) and, as the kind has
 * them, mean, sd (float64), whiten, unwhiten (float32). */
int normalisation_save(const struct normalisation *normalisation, const char *path);
int normalisation_load(const char *path, struct normalisation *normalisation);

struct data_set_pair {
    struct dataset train, holdout, test; /* holdout: count 0 where not asked for; test: may be 0 where there is none */
    struct normalisation normalisation;
    int64_t train_read, test_read; /* images of train and test as they were read */
    /* Hash of the pixels, labels and sizes of train, before the split, and test as they were read, before they were
     * normalised: whether two readings found the same data. */
    uint64_t fingerprint;
    struct text story; /* what was read, a line a file or folder: "train: PATH: 60000 images, 28 x 28" */
};
/* Reads, takes the test part off train where there is no other, fits the normalisation on what is left of train,
 * applies it to both, and splits the held-out part off. */
int data_load(const struct data_spec *spec, uint64_t seed, struct data_set_pair *data);
void data_finish(struct data_set_pair *data); /* NULL-safe, zeroes */

/* --- NPY and NPZ (also used by sets, cases and exports) --- */
enum npy_type { NPY_FLOAT32, NPY_FLOAT64, NPY_INT32, NPY_INT64, NPY_UINT8 };
struct npy {
    enum npy_type type;
    int rank;
    int64_t size[8];
    void *data; /* C order, native endian; owned, free with npy_finish */
};
int64_t npy_count(const struct npy *npy);
int npy_read(const char *path, struct npy *npy);
int npy_read_member(const char *npz_path, const char *member, struct npy *npy);
int npz_has(const char *npz_path, const char *member, bool *has);
int npy_write(const char *path, enum npy_type type, int rank, const int64_t *size, const void *data); /* atomic */
/* Several arrays as one .npz (stored zip), atomically. */
struct npy_member {
    const char *name;
    enum npy_type type;
    int rank;
    const int64_t *size;
    const void *data;
};
int npz_write(const char *path, const struct npy_member *members, size_t count);
/* Goes on with the hash by the bytes that npy_write would write. */
struct hash;
int npy_hash(struct hash *hash, enum npy_type type, int rank, const int64_t *size, const void *data);
/* Converts to float32 or int32, refusing NaN and infinities (float) or what does not fit (int); new array. */
int npy_to_float(const struct npy *npy, const char *name, float **values);
int npy_to_int(const struct npy *npy, const char *name, int32_t **values);
void npy_finish(struct npy *npy);

/* --- safetensors: arrays by name, and words beside them (https://github.com/huggingface/safetensors) --- */
/* `words`: keys and values in turn, NULL-terminated. Atomic; equal arrays and words make equal files. */
int safetensors_write(const char *path, const struct npy_member *members, size_t count, const char *const *words);
/* RETORT_EFORMAT where there is none of the name, RETORT_EUNSUPPORTED where its numbers are of a type that struct npy
 * has not. */
int safetensors_read_member(const char *path, const char *member, struct npy *npy);
/* *text is the caller's to free(), NULL where the file has no such key. */
int safetensors_read_words(const char *path, const char *key, char **text);

/* A normalisation's arrays among those of such a file, or of an .npz: named as in normalisation.npz, with a prefix. */
struct array_file {
    const char *path, *prefix;
    int (*read)(const char *path, const char *member, struct npy *npy);
};
int normalisation_read(const struct array_file *file, struct normalisation *normalisation);
/* The same as members to write; they borrow from both structs. */
struct normalisation_arrays {
    struct npy_member members[5];
    size_t count;
    int32_t shape[3];
    int64_t kind_size, three, channels, size, square[2];
};
void normalisation_arrays(const struct normalisation *normalisation, struct normalisation_arrays *arrays);

/* --- drawing rows --- */
/* Row `row` of a data set becomes image and label `to` of images [..,C,H,W] and labels [..], which may be NULL. */
void dataset_copy_row(const struct dataset *dataset, int64_t row, int64_t to, float *images, int32_t *labels);
/* `count` rows of a data set, uniform without repetition, copied out: images [count,C,H,W], labels [count].
 * RETORT_EINVAL where it has fewer, RETORT_ENOMEM. */
int dataset_draw(const struct dataset *dataset, struct random *random, int64_t count, float *images, int32_t *labels);
/* `per_class` rows of each class, class by class; RETORT_EINVAL where a class has fewer. */
int dataset_draw_per_class(const struct dataset *dataset, struct random *random, int per_class, float *images,
                           int32_t *labels);
/* The same, but all rows of a class that has fewer: dataset_count_at_most rows in all. RETORT_ENOMEM. */
int dataset_draw_at_most(const struct dataset *dataset, struct random *random, int per_class, float *images,
                         int32_t *labels);
/* `count` images of one class into images [count,C,H,W]; of a class that has fewer, all *different ones of it, which
 * are then repeated in turn. RETORT_EINVAL where it has none, RETORT_ENOMEM. */
int dataset_draw_class(const struct dataset *dataset, struct random *random, int class, int64_t count, float *images,
                       int64_t *different);
int64_t dataset_count_at_most(const struct dataset *dataset, int per_class);
/* Rows of a synthetic set (ipc per class, grouped by class) for one inner step: `per_class` of the ipc images of each
 * of `classes_chosen` of `classes` classes, drawn without repetition, in ascending order (so that the whole set is
 * simply 0 .. n-1). rows: [classes_chosen * per_class]. */
int rows_draw(struct random *random, int classes, int ipc, int classes_chosen, int per_class, int32_t *rows);

/* An epoch of `count` rows in the fewest equal batches of at most `most`: their number and size. */
void epoch_divide(int64_t count, int64_t most, int64_t *steps, int64_t *batch);
/* Batch `step` (from 0) of an epoch in the given order [count]; where batches do not divide the rows, the last one
 * takes those that it lacks from the epoch's beginning. rows: [batch]. */
void epoch_rows(const uint32_t *order, int64_t count, int64_t step, int64_t batch, int32_t *rows);

/* --- drawing augmentations: per-image affine maps for the graph's `sample` operation --- */
struct augment_spec {
    bool flip;      /* mirror left-right, probability 1/2 per image */
    bool rotate;    /* uniform in +- degrees per image */
    double degrees; /* 15 */
    bool compose;   /* both at once; otherwise each batch picks one of those that are on */
};
/* maps: [count,2,3] row-major, as node_sample reads them. */
void augment_draw(const struct augment_spec *spec, struct random *random, int64_t count, float *maps);

/* --- drawing the differentiable Siamese augmentation (DSA: Zhao and Bilen, "Dataset condensation with differentiable
 * Siamese augmentation", ICML 2021): one family at random, then its parameters --- */
enum siamese_family {
    SIAMESE_COLOUR, /* brightness + U(-0.5, 0.5), then saturation x U(0, 2), then contrast x U(0.5, 1.5) */
    SIAMESE_CROP,   /* moved by whole pixels, up to an eighth of the size each way, zeros let in */
    SIAMESE_CUTOUT, /* a rectangle of half the height and width set to zero, its centre anywhere */
    SIAMESE_SCALE,  /* rows and columns each read at U(1 / 1.2, 1.2) times their distance from the centre */
    SIAMESE_ROTATE, /* U(-15, 15) degrees */
    SIAMESE_FLIP,   /* left-right, every second image */
    SIAMESE_FAMILIES
};
/* Draws a family, each with equal chance (the flip only where `flip`: digits have none), and parameters for each of
 * `count` images, as networks are trained with it. What the family leaves alone is the identity. maps: [count,2,3];
 * colour: [count, COLOUR_SIZE]; both as siamese_apply (nn/nn.h) reads them. */
enum siamese_family siamese_draw(struct random *random, bool flip, int height, int width, int64_t count, float *maps,
                                 float *colour);
/* As sets are distilled with it: the one family and the one set of parameters for all images of class `class` (from 0),
 * real and synthetic, in outer step `step`. A function of its arguments alone. */
enum siamese_family siamese_draw_class(uint64_t seed, uint32_t step, int class, bool flip, int height, int width,
                                       float map[MAP_SIZE], float colour[COLOUR_SIZE]);
/* As IDC composes it (Kim et al., "Dataset condensation via efficient synthetic-data parameterization", ICML 2022):
 * colours, then one of crop, scale and rotation, the same one for all images, then cutout, with parameters for each of
 * `count` images. To be applied by siamese_apply_composed. */
void siamese_draw_composed(struct random *random, int height, int width, int64_t count, float *maps, float *colour);
/* The same set of parameters for all images of a class, as siamese_draw_class draws it. */
void siamese_draw_class_composed(uint64_t seed, uint32_t step, int class, int height, int width, float map[MAP_SIZE],
                                 float colour[COLOUR_SIZE]);

/* CutMix (Yun et al., ICCV 2019) of a batch: the same rectangle of every image, of an area of U(0, 1) of the whole and
 * clipped to it, comes from another image of the batch, and labels are mixed by what is left. images
 * [count, channels, height, width], labels [count, classes], both changed in place. RETORT_ENOMEM. */
struct cutmix_shape {
    int64_t count;
    int channels, height, width, classes;
};
int cutmix_apply(struct random *random, const struct cutmix_shape *shape, float *images, float *labels);

/* A PNG of bytes [height, width, channels], 1 channel, 3, or 4 with opacity; *png is the caller's to free(). */
int picture_encode(const unsigned char *pixels, int height, int width, int channels, unsigned char **png, size_t *size);

#endif
