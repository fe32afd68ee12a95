/* Distilled sets on disk: set/ of a run folder, or a folder of its own.
 *
 *     images.npy         float32 [N,C,H,W] in the space the networks train in
 *     labels.npy         int32 [N], or float32 [N,K] learned ones
 *     normalisation.npz  the map from pixels in [0,1] to that space
 *     set.json           classes and their names, recipe, seed, device, hashes; written last */
#ifndef RETORT_RUN_SET_FOLDER_H
#define RETORT_RUN_SET_FOLDER_H

#include "evaluate/evaluate.h"
#include "run/descriptor.h"
#include "run/session.h"

/* Rows grouped by class. Owns its arrays. */
struct distilled_set {
    int64_t count;
    int channels, height, width, classes;
    int ipc; /* images of each class; 0 where the classes differ in it */
    float *images;
    float *soft;     /* [count, classes], or NULL */
    int32_t *hard;   /* [count], or NULL */
    double inner_lr; /* learned with the images; 0: the descriptor's */
};
void distilled_set_finish(struct distilled_set *set); /* NULL-safe, zeroes */
/* A view of it for the evaluation. */
struct training_set distilled_set_view(const struct distilled_set *set);

/* Takes the set out of a method. */
int distilled_set_take(struct distill *distill, const struct dataset *train, int ipc, enum set_labels labels,
                       struct distilled_set *set);

/* Writes the folder; *sha256 is over the bytes of images.npy, then labels.npy. */
int set_folder_write(const char *folder, const struct distilled_set *set, const struct descriptor *descriptor,
                     const struct session *session, char sha256[65]);

/* What a set by this descriptor stores beside its labels, for set.json and result.json: {"kind", "floats", "kept",
 * "of", "places"}: `kept` of the `of` values of an image's channel (struct set_storage). A new reference; NULL: out of
 * memory. */
json_t *set_storage_json(const struct descriptor *descriptor, const struct dataset *train);
/* "7840 floats: 49 of 784 values of each channel (frequency)": such an object in words; "" for anything else. */
void set_storage_words(const json_t *storage, char words[120]);

/* Reads images and labels from two .npy files: float images are in network space, uint8 ones are pixels and are
 * normalised; rows may come in any order. Checked against the session's data. */
int set_read_arrays(const char *images, const char *labels, const struct session *session, struct distilled_set *set);
/* Reads the set that a path names: of a run, of a folder, or an exported one (set_find of stored_set.h). Where
 * something tells how it was made (set.json), that word on inner_lr and normalisation is heeded. */
int set_folder_read(const char *path, const struct session *session, struct distilled_set *set);
/* The recipe of such a set as YAML text, for descriptor_parse; the caller's to free(). */
int set_folder_recipe(const char *path, char **text);
/* What set.json calls set_sha256. */
int distilled_set_hash(const struct distilled_set *set, char sha256[65]);

#endif
