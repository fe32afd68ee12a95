/* Exports: a distilled set for other programs, in a folder with a README that says what it is and how to load it. Every
 * form holds the images as the networks take them, labels, class names, the normalisation, the recipe and the hashes,
 * and can be read back bit for bit (stored_set.h).
 *
 *     npz           set.npz           arrays of NumPy
 *     safetensors   set.safetensors   the same arrays, readable without Python's pickle or a zip
 *     png           a folder of pictures of 8 bits a class, and beside them set.npz, which has lost nothing */
#ifndef RETORT_RUN_EXPORT_H
#define RETORT_RUN_EXPORT_H

#include "base/file.h"
#include "base/memory.h"
#include "data/data.h"
#include "run/stored_set.h"

enum export_format { EXPORT_NPZ, EXPORT_SAFETENSORS, EXPORT_PNG, EXPORT_FORMATS };
extern const char *const export_words[]; /* their words; NULL-terminated */

/* What making pixels of 8 bits of a set has done to it. */
struct quantisation {
    int64_t pictures, values, clipped; /* clipped: values that lay outside of black and white */
    double rounding, clipping;         /* the largest difference by rounding, and by clipping, in 255ths of white */
    bool scaled; /* each picture to its own darkest and lightest value, as its pixels are not known */
};

/* A set that is about to be exported: read, and checked. Owns. */
struct export {
    enum export_format format;
    char place[FILE_PATH_MAX]; /* the folder that it will be in */
    struct set_place source;
    struct stored_set set; /* float32 images; int32 labels, or float32 ones for every class; `about` complete, and
                              with the run's `result` in it where there is one */
    int classes, ipc;      /* ipc 0: not equally many of each class */
    char sha256[65];       /* of the arrays, as set.json has it */
    struct normalisation normalisation;
    struct quantisation quantisation; /* EXPORT_PNG, once it is written */
};

/* Reads the set that `path` names and checks all that could fail late: what it is, that `out` (NULL: the path with
 * "-FORMAT" behind it) is not there or empty, can be written to and has room. RETORT_EINVAL, RETORT_EFORMAT or
 * RETORT_EIO. Nothing is written. */
int export_open(const char *path, enum export_format format, const char *out, struct export *export);
/* Writes the folder, under another name until it is complete. */
int export_write(struct export *export);
void export_finish(struct export *export); /* NULL-safe, zeroes */

/* --- parts --- */
/* The class that a row belongs to: that it began with, or the largest of its labels. */
int export_class(const struct export *export, int64_t row);
const char *export_class_name(const struct export *export, int class);
/* The pictures, a folder a class, in `folder`/images. Class folders sort as the classes do. */
int export_pictures(struct export *export, const char *folder);
/* README.md. */
void export_readme(const struct export *export, struct text *text);

#endif
