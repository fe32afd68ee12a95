/* What a descriptor stands on, opened: device, kernels, data, networks. */
#ifndef RETORT_RUN_SESSION_H
#define RETORT_RUN_SESSION_H

#include "compile/wisdom.h"
#include "run/descriptor.h"

struct expert_store;
struct session {
    struct device *device;
    struct kernel_target target; /* of kernels, but for what session_choose_kernels settles */
    struct library *library;
    struct wisdom *wisdom; /* that the library takes */
    char wisdom_name[17];
    struct data_set_pair data; /* where `borrowed`, another session's, which is closed later */
    bool borrowed;
    struct network network, evaluate_network;
    struct expert_store *experts; /* that the method reads; NULL until they are taken */
    struct division division;     /* what of a run this device computes: all, until session_divide */
    int shares[DEVICES_MOST];
};

/* Reads the data of a descriptor alone, without a device. */
int session_read_data(const struct descriptor *descriptor, struct data_set_pair *data);
/* Opens the device under the descriptor's ceiling, reads the data, and on a GPU tests what the compiler writes.
 * `units`: compute units to choose kernels for; 0: those of the device. `single`: launches are not merged, as when the
 * run began, whatever the descriptor says. There is no library yet. Of several devices it opens the first. */
int session_open(const struct descriptor *descriptor, unsigned units, bool single, struct session *session);
/* The same for device `index` of the descriptor's list (descriptor_device). `beside`, where not NULL, has the data. */
int session_open_device(const struct descriptor *descriptor, int index, const struct session *beside, unsigned units,
                        bool single, struct session *session);
/* Opens the experts that the descriptor's method reads, before it is made: RETORT_EINVAL, with the command that makes
 * them, where there are none or they do not fit. Planning does without. */
int session_take_experts(const struct descriptor *descriptor, struct session *session);
/* The device is a member of a team from now on. shares [team_size], copied. */
void session_divide(struct session *session, struct team *team, enum divide what, const int *shares);
/* Makes the library, by choices of the file `wisdom`, "" for none; NULL: the user's. `gemm`: who computed matrix
 * products when the run began, "clblast" or "own"; NULL or "": as the descriptor says. May be called again, once
 * nothing uses the library before. */
int session_choose_kernels(struct session *session, const char *wisdom, const char *gemm);
/* Tests the kernels of all that has been compiled (library_self_test), `planned` being the status of compiling it. Some
 * may be bad in the session's wisdom afterwards, whose name is then another: *refused says how many; what was compiled
 * must be compiled anew. A failure of planning is given back, but for RETORT_EDEVICE where kernels were refused: those
 * may have been what failed. Where memory does not suffice: RETORT_ELIMIT, or, where the caller holds none (`alone`),
 * what is too large goes untested. */
int session_test_kernels(struct session *session, int planned, bool alone, int *refused);
void session_close(struct session *session); /* NULL-safe */

#endif
