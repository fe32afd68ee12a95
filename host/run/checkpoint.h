/* Checkpoints of a run: checkpoint/NNNNNN.npz, the method's whole state, each with NNNNNN.json that tells its hash and
 * what the run has spent. The sidecar is written last, so a state without one was torn. Two generations are kept. */
#ifndef RETORT_RUN_CHECKPOINT_H
#define RETORT_RUN_CHECKPOINT_H

#include "distill/distill.h"

/* What a run has spent over all its sittings. */
struct spent {
    double distil, evaluate, build_kernels; /* seconds */
    uint64_t peak_device_bytes;
};

/* Saves the state as it is, and then removes all generations but this and that of outer step `before`, the last one
 * that was saved or loaded (0: none). On failure the earlier generations are as they were. */
int checkpoint_save(const char *folder, struct distill *distill, int before, const struct spent *spent);
/* Loads the newest whole one. One that is damaged, which is to say without its sidecar, malformed or not of the
 * sidecar's hash, is passed over with a warning; where all are, RETORT_EFORMAT names them. A file that cannot be read
 * (RETORT_EIO, RETORT_ENOMEM) is not taken for damaged. Nothing is ever removed. *found is false, and the state
 * untouched, where there is none, or only the state that a run left when it was killed in its first checkpoint. */
int checkpoint_load(const char *folder, struct distill *distill, struct spent *spent, bool *found);

#endif
