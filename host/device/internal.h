/* What the files of the device module share: the structures behind the opaque names, and OpenCL's failures in words. */
#ifndef RETORT_DEVICE_INTERNAL_H
#define RETORT_DEVICE_INTERNAL_H

#include "device/device.h"

#include "base/error.h"

#include <CL/cl.h>
#include <pthread.h>

/* What bounds the queue: a marker now and then, and the one before it waited for. What keeps it moving: a flush long
 * before that. */
struct fence {
    cl_event marker;      /* the last one; NULL: none yet */
    unsigned launches;    /* since the last one */
    double work, spacing; /* operations since then, and between two markers */
    double passed;        /* the clock when the one before was seen done */
    unsigned held, batch; /* launches since the last flush, and after how many the next one comes */
};

struct device {
    struct device_traits traits; /* compute_units, lanes: as set by device_set_units */
    unsigned own_units;          /* as queried */
    cl_device_id id;             /* NULL: described, not present */
    cl_context context;
    cl_command_queue queue;
    uint64_t ceiling, bytes, peak;
    double build_seconds;
    bool synchronous;     /* RETORT_SYNC: wait after each launch, so that a failure names its kernel */
    const char *launched; /* the last kernel since the queue was seen empty, or NULL */
    enum { GEMM_UNTRIED, GEMM_RIGHT, GEMM_WRONG } gemm; /* what the test of the library's products has shown */
    struct profile *profile;                            /* NULL: off */
    struct fence fence;
    pthread_mutex_t lock;   /* of driver_words, which the driver's threads write */
    char driver_words[256]; /* the driver's last message to the context, "" if none */
};

struct device_buffer {
    struct device *device;
    cl_mem memory;
    size_t bytes;
};

struct device_program {
    struct device *device;
    cl_program id;
};

struct device_kernel {
    struct device *device;
    cl_kernel id;
    double flops, bytes; /* of a launch, for profiles */
    char name[];
};

/* --- opencl.c --- */
const char *opencl_name(cl_int code); /* "CL_OUT_OF_RESOURCES"; never NULL */
/* RETORT_OK for CL_SUCCESS; else sets the message "words: CL_NAME" and returns the status that fits the code. */
int opencl_check(cl_int code, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The same for calls that wait for the queue or put work on it: adds the last kernel launched, which may be the one
 * that failed, and what the driver told the context. */
int opencl_check_queue(struct device *device, cl_int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* --- device.c --- */
int device_create_queue(struct device *device, bool profiling); /* replaces the queue; the old one must be finished */

/* --- output.c --- */
/* Round every call in which drivers are known to print, see device_guard_output: `restore` takes what `divert` gave. */
void output_divert(void);
void output_restore(void);

/* --- processor.c --- */
/* From what Linux says of a processor's caches in files below this folder: the bytes of its second cache, divided by
 * the processors that share it, for the workers of a driver are as many. 0 where it says nothing. */
uint64_t device_second_cache(const char *folder);

/* --- lanes.c --- */
/* What drivers tell of a device's arithmetic; 0 where they do not. */
struct device_arithmetic {
    enum device_kind kind;
    unsigned compute_units, vector_width;
    unsigned compute_capability[2];      /* cl_nv_device_attribute_query: major, minor */
    unsigned simds_per_unit, simd_width; /* cl_amd_device_attribute_query */
    unsigned eus_per_sub_slice;          /* cl_intel_device_attribute_query */
    unsigned sub_groups;                 /* as in struct device_traits */
};
unsigned device_count_lanes(const struct device_arithmetic *arithmetic);
/* Whether a list of names with blanks between them holds this one. */
bool device_lists_extension(const char *extensions, const char *name);
/* Fills lanes, wave and sub_groups; kind, compute_units and vector_width are there already. */
void device_query_lanes(cl_device_id device, struct device_traits *traits);

/* --- described.c --- */
/* RETORT_EUNSUPPORTED "what: ..." where the device is only described. */
int device_check_present(const struct device *device, const char *what);

/* --- kernel.c --- */
void fence_release(struct device *device);
/* After a launch, or a library's: what the queue holds now stays bounded, and goes to the driver in time. The name must
 * live until the queue is empty, or be taken back from `launched`. */
int queue_grew(struct device *device, const char *name, double flops, double bytes);

/* --- gemm.c --- */
void gemm_forget(struct device *device); /* what a library keeps of a device that is closed */

/* --- cache.c: program binaries on disk; every failure is a miss --- */
/* The path for a program, "" where there is no cache. */
void cache_path(const struct device *device, const char *source, const char *options, char path[]);
/* Whether a program that took so long to build from source is to be stored; remembers slow ones for the next time. */
bool cache_wants(const char *path, double seconds);
bool cache_load(const char *path, unsigned char **binary, size_t *size); /* the binary is the caller's to free() */
void cache_store(const char *path, const unsigned char *binary, size_t size);

/* --- profile.c --- */
/* Takes over the event of a launch, or that of the last of several and a marker before the first, or NULL. */
int profile_add(struct device *device, const char *name, double flops, double bytes, cl_event begin, cl_event event);
void profile_destroy(struct profile *profile); /* NULL-safe */

#endif
