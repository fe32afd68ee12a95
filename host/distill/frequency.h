/* Images held as a few coefficients of their spectra (FreD: Shin, Shin and Moon, "Frequency domain-based dataset
 * distillation", NeurIPS 2023): the orthonormal two-dimensional DCT-II of dct.h, under which a rate of learning means
 * the same at every size, and the adjoint of making images of coefficients, which brings a gradient by images to one by
 * coefficients, is the way from images to coefficients.
 *
 * Of each class and channel `kept` places of the spectrum are held, those where the spectra of the class's real images
 * vary most (the explained variance), in the space that the networks train in; everywhere else is 0. A gather puts
 * coefficients into their places, another one picks them there.
 */
#ifndef RETORT_DISTILL_FREQUENCY_H
#define RETORT_DISTILL_FREQUENCY_H

#include "compile/executable.h"
#include "data/data.h"
#include "distill/dct.h"
#include "graph/graph.h"
#include "unroll/memory.h"

/* n = classes ipc images [C,H,W], grouped by class. */
struct frequency_shape {
    int classes, ipc, channels, height, width;
    int kept; /* coefficients of a channel: 1 to H W */
};

/* --- the mathematics, as nodes --- */
/* Coefficients [v] -> spectra of `shape`; places, int32 [elements of the spectra]: which coefficient, or v: 0. */
struct node *frequency_place(struct node *coefficients, struct node *places, struct shape shape);
/* Its adjoint: spectra -> [v]; picks, int32 [v]: which element of all spectra. */
struct node *frequency_pick(struct node *spectra, struct node *picks);

/* --- on a device --- */
struct frequency;
/* Compiles, builds and allocates, then looks for the places in the training data, by matrix products whoever computes
 * the spectra of the set. plan_only: only compiles. RETORT_ELIMIT where memory does not suffice. */
int frequency_create(struct library *library, const struct frequency_shape *shape, const struct dataset *train,
                     enum dct_way asked, bool plan_only, struct frequency **frequency);
void frequency_destroy(struct frequency *frequency);           /* NULL-safe */
enum dct_way frequency_dct(const struct frequency *frequency); /* who computes: dct_settled */
/* coefficients [n,C,kept] -> images [n,C,H,W], and the other way, which drops what is not held. On the host both. */
int frequency_decode(struct frequency *frequency, const float *coefficients, float *images);
int frequency_encode(struct frequency *frequency, const float *images, float *coefficients);
/* The places that are held, [classes,C,kept]: column times H plus row of the spectrum, rising. For checkpoints: after
 * they have been written, `frequency_settle` takes them. RETORT_EFORMAT where they are none of such a spectrum. */
int32_t *frequency_positions(struct frequency *frequency, int64_t *count);
int frequency_settle(struct frequency *frequency);
/* Rows of its device memory; NULL past the end. */
const struct memory *frequency_memory(const struct frequency *frequency, int i);

#endif
