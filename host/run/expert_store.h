/* A folder of expert trajectories (distill/experts.h): experts.json says what they are of, expert-00000.theta and so on
 * are one network each: float32 [epochs + 1, p] in the machine's order of bytes, theta of each epoch from the initial
 * weights on, then an xxHash64 of each of these rows, by which every reading is checked. Files are written whole or not
 * at all, so what a killed process leaves is gone on with. */
#ifndef RETORT_RUN_EXPERT_STORE_H
#define RETORT_RUN_EXPERT_STORE_H

#include "base/file.h"
#include "distill/experts.h"
#include "run/session.h"

/* The size on disk. */
uint64_t expert_store_bytes(int64_t theta_count, int networks, int epochs);

/* Opens a folder for writing, which is made where there is none: `folder` may hold networks of the same data, network
 * and settings, *done of them, the first. Waits while another process writes there; *lock is to be closed when all is
 * written, -1 where there is none. RETORT_EINVAL where it holds others, RETORT_EIO where there is no room. */
int expert_store_begin(const char *folder, const struct descriptor *descriptor, const struct session *session,
                       const struct expert_spec *spec, int networks, int *done, int *lock);
/* thetas: [epochs + 1, p]. */
int expert_store_write(const char *folder, int number, int64_t theta_count, int epochs, const float *thetas);

/* Complete trajectories to read, of the data and network that the session has: RETORT_EINVAL with the command that
 * makes them where they are of others, too few or not complete. The store does not move. */
struct expert_store {
    char folder[FILE_PATH_MAX];
    int64_t theta_count;
    struct expert_source source;
};
int expert_store_open(const char *folder, const struct descriptor *descriptor, const struct session *session,
                      int least_epochs, struct expert_store *store);

#endif
