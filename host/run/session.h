/* What a descriptor stands on, opened: device, kernels, data, networks. */
#ifndef RETORT_RUN_SESSION_H
#define RETORT_RUN_SESSION_H

#include "compile/wisdom.h"
#include "run/descriptor.h"

struct session {
    struct device *device;
    struct library *library;
    struct wisdom *wisdom; /* that the library takes */
    char wisdom_name[17];
    struct data_set_pair data;
    struct network network, evaluate_network;
};

/* Reads the data of a descriptor alone, without a device. */
int session_read_data(const struct descriptor *descriptor, struct data_set_pair *data);
/* Opens the device under the descriptor's ceiling and reads the data. `wisdom` is a file, "" for none; NULL: the
 * user's. `units`: compute units to choose kernels for; 0: those of the device. `gemm`: who computed matrix products
 * when the run began, "clblast" or "own"; NULL or "": as the descriptor says. */
int session_open(const struct descriptor *descriptor, const char *wisdom, unsigned units, const char *gemm,
                 struct session *session);
/* Tests the kernels of all that has been compiled (library_self_test), `planned` being the status of compiling it. Some
 * may be bad in the session's wisdom afterwards, whose name is then another: *refused says how many; what was compiled
 * must be compiled anew. A failure of planning is given back, but for RETORT_EDEVICE where kernels were refused: those
 * may have been what failed. Where memory does not suffice: RETORT_ELIMIT, or, where the caller holds none (`alone`),
 * what is too large goes untested. */
int session_test_kernels(struct session *session, int planned, bool alone, int *refused);
void session_close(struct session *session); /* NULL-safe */

#endif
