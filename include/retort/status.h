/** @file
 * Status codes: what every fallible function of Retort returns.
 *
 * A function returns #RETORT_OK (0) or one of the negative codes below. The words belonging to the last failure of the
 * calling thread, with the chain of causes, are had from retort_error_message(). Outputs are untouched on failure. */
#ifndef RETORT_STATUS_H
#define RETORT_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

/** What a call came to. */
enum retort_status {
    RETORT_OK = 0,            /**< done */
    RETORT_EINVAL = -1,       /**< a value or an argument is wrong: usage, descriptor, a shape that does not fit */
    RETORT_ENOMEM = -2,       /**< host memory ran out */
    RETORT_EIO = -3,          /**< a file or folder could not be read or written */
    RETORT_EFORMAT = -4,      /**< foreign bytes (data set, array, cache, case) are not what they claim to be */
    RETORT_EDEVICE = -5,      /**< OpenCL: no platform, no device, or a call that failed */
    RETORT_ELIMIT = -6,       /**< the memory ceiling or the device's memory does not suffice */
    RETORT_ENUMERIC = -7,     /**< a result is NaN or infinite */
    RETORT_EINTERRUPTED = -8, /**< the user asked to stop; state is saved */
    RETORT_EUNSUPPORTED = -9, /**< valid, but not something this version or this device can do */
    RETORT_EMISMATCH = -10,   /**< a check ran and its result is out of tolerance */
};

/** The message of the calling thread's last failure; "" if none. Valid until the next failure on this thread. */
const char *retort_error_message(void);

/** A short name of a status code, for logs: "ok", "bad input", "out of memory", ... Never NULL. */
const char *retort_status_name(int status);

#ifdef __cplusplus
}
#endif

#endif
