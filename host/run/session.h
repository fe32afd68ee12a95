/* What a descriptor stands on, opened: device, kernels, data, networks. */
#ifndef RETORT_RUN_SESSION_H
#define RETORT_RUN_SESSION_H

#include "run/descriptor.h"

struct session {
    struct device *device;
    struct library *library;
    struct data_set_pair data;
    struct network network, evaluate_network;
};

/* Opens the device under the descriptor's ceiling and reads the data. */
int session_open(const struct descriptor *descriptor, struct session *session);
void session_close(struct session *session); /* NULL-safe */

#endif
