/** @file
 * Everything, and the version.
 *
 * Every fallible function returns a code of #retort_status; the message belongs to the calling thread. Different runs
 * may be executed by different threads at the same time, each by one thread at a time; sets and evaluations, once
 * there, may be read by any number. Nothing here ends the process, or prints anything but to standard error
 * (retort_log_verbosity()). OpenCL does not survive fork(): do not use the library in a child process of one that has
 * used it. */
#ifndef RETORT_RETORT_H
#define RETORT_RETORT_H

#include "retort/data.h"
#include "retort/device.h"
#include "retort/evaluate.h"
#include "retort/log.h"
#include "retort/run.h"
#include "retort/set.h"
#include "retort/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The version of the library that is running, "0.1.0". Within one soname, later versions keep everything that is
 * declared here and may add to it. */
const char *retort_version(void);

#ifdef __cplusplus
}
#endif

#endif
