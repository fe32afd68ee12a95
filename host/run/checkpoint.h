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

/* Saves the state as it is. On failure the earlier generations are as they were. */
int checkpoint_save(const char *folder, struct distill *distill, const struct spent *spent);
/* Loads the newest good one; a torn or damaged one is passed over with a warning. *found is false where there is
 * none, and the state is then untouched. */
int checkpoint_load(const char *folder, struct distill *distill, struct spent *spent, bool *found);

#endif
