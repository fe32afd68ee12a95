/* A set as it is stored, in whatever it is stored: the set of a run, a folder with images.npy and labels.npy, or what
 * `retort export` has written. No device and no data set are needed to read it. */
#ifndef RETORT_RUN_STORED_SET_H
#define RETORT_RUN_STORED_SET_H

#include "base/file.h"
#include "data/data.h"

#include <jansson.h>

enum set_kind { SET_IS_FOLDER, SET_IS_NPZ, SET_IS_SAFETENSORS };

struct set_place {
    enum set_kind kind;
    char path[FILE_PATH_MAX]; /* of the folder or file that holds the arrays */
    char run[FILE_PATH_MAX];  /* the run folder that it is of, "" where of none */
};
/* Finds the set that a path names: a run folder, a folder with images.npy, an exported folder (by the file set.npz or
 * set.safetensors in it), or such a file by its ending. RETORT_EINVAL with what is there instead. */
int set_find(const char *path, struct set_place *place);

/* Names of files and arrays in exports. */
#define EXPORT_NPZ_FILE         "set.npz"
#define EXPORT_SAFETENSORS_FILE "set.safetensors"
#define EXPORT_ABOUT            "about"          /* set.json: uint8 text in an .npz, a word of a safetensors file */
#define EXPORT_NORMALISATION    "normalisation." /* prefix of the arrays of normalisation.npz */

struct stored_set {
    struct npy images, labels;
    char images_name[FILE_PATH_MAX + 16], labels_name[FILE_PATH_MAX + 16]; /* for messages */
    char about_name[FILE_PATH_MAX + 16];
    json_t *about; /* what set.json says; NULL where there is none */
};
int stored_set_read(const struct set_place *place, struct stored_set *set);
/* Two .npy files; nothing is known about them. */
int stored_set_read_pair(const char *images, const char *labels, struct stored_set *set);
void stored_set_finish(struct stored_set *set); /* NULL-safe, zeroes */
/* What set.json says, alone: NULL where there is none, otherwise the caller's to json_decref(). */
int stored_set_read_about(const struct set_place *place, json_t **about);
int stored_set_read_normalisation(const struct set_place *place, struct normalisation *normalisation);
/* Of the arrays as a set folder stores them: what set.json calls set_sha256. */
int stored_set_hash(const struct stored_set *set, char sha256[65]);

#endif
