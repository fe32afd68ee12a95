/* OpenCL devices: finding and opening one, its traits, buffers under a ceiling, programs with an on-disk cache.
 *
 * The only module that calls OpenCL (the compile module sets kernel arguments through it too). One device has one
 * context and one in-order queue. Nothing here decides by vendor: type and queried capabilities only. */
#ifndef RETORT_DEVICE_DEVICE_H
#define RETORT_DEVICE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum device_kind { DEVICE_CPU, DEVICE_GPU, DEVICE_ACCELERATOR, DEVICE_OTHER };
const char *device_kind_name(enum device_kind kind); /* "cpu", "gpu", "accelerator", "other" */

/* What a device can do, as queried. */
struct device_traits {
    int index; /* over all platforms, in the order of `retort devices` */
    enum device_kind kind;
    char platform[128], name[128], vendor[128], version[128], driver[128];
    unsigned compute_units;
    unsigned vector_width; /* native floats per vector, rounded to 4, 8 or 16; at least 4 */
    unsigned max_clock_mhz;
    unsigned lanes;      /* multiply-adds of float32 that all units together can do at once: lanes.c */
    unsigned wave;       /* work-items that run in step ("warp", "wavefront"); 0: not known, or the compiler chooses */
    unsigned sub_groups; /* sizes of sub-group that a kernel may require, added up (8 + 16 + 32); 0: it may not */
    size_t max_work_group;
    size_t local_memory;                    /* bytes */
    uint64_t global_memory, max_allocation; /* bytes */
    uint64_t cache;                         /* bytes of the largest cache of global memory; 0: none is known */
    uint64_t second_cache; /* of a CPU: bytes of the second cache that a compute unit has for itself; 0: not known */
    bool fma, fp64, available;
};

/* Bytes of the largest cache that a run can count on: on CPUs never more than 64 MiB, for virtual machines are told of
 * the whole processor's last cache, which others use too. 0: none is known. */
uint64_t traits_cache_share(const struct device_traits *traits);

/* All devices of all platforms; a platform without devices is passed over. *count 0 and RETORT_OK where there are none
 * at all, also where no OpenCL platform is installed. The array is the caller's, to be freed with free(). */
int device_list(struct device_traits **list, size_t *count);

/* Where device_list finds none: RETORT_EDEVICE, and a message that tells why, as far as can be told, and what to do. */
int device_none(void);
/* Whether all words of the spec occur in the device's platform, name, kind and versions. */
bool device_matches(const struct device_traits *traits, const char *spec);

/* From now on, what drivers print on standard output while devices are listed and opened and while programs are built
 * goes to standard error. For a program whose results are standard output, and that prints from one thread only. */
void device_guard_output(void);

struct device;

/* Opens the one device a spec names: NULL or "" for RETORT_DEVICE from the environment, else the first CPU or GPU
 * device (GPU before CPU); a number for an index; words that must all occur (any case) in platform + name + kind +
 * versions of device and driver ("pocl", "intel gpu"). RETORT_EDEVICE with the list of devices where none or more than
 * one match. With RETORT_SYNC in the environment every launch is waited for, so that a failure names its kernel. */
int device_open(const char *spec, struct device **device);
/* A device that need not be present, of these traits (a unit at least): ceiling, units and counting work; whatever
 * allocates, builds or launches is refused with RETORT_EUNSUPPORTED. */
int device_describe(const struct device_traits *traits, struct device **device);
/* The traits of known devices, as their drivers report them; and one of them, named by words as for device_open.
 * RETORT_EDEVICE with the list where none or more than one match. */
const struct device_traits *device_descriptions(size_t *count);
int device_open_described(const char *words, struct device **device);
void device_close(struct device *device); /* NULL-safe; every buffer and program must be gone */
const struct device_traits *device_traits(const struct device *device);
/* Makes kernels be chosen as if the device had so many compute units (0: as many as it has), with lanes in proportion:
 * how work is divided among them decides the order of some sums. A resumed run sets what it began with, before it
 * creates its kernel library. */
void device_set_units(struct device *device, unsigned units);

/* --- memory: every buffer counts against the ceiling --- */
void device_set_ceiling(struct device *device, uint64_t bytes); /* 0: none */
uint64_t device_ceiling(const struct device *device);
uint64_t device_bytes(const struct device *device);      /* allocated now */
uint64_t device_peak_bytes(const struct device *device); /* the most so far */
void device_reset_peak(struct device *device);

struct device_buffer;
/* RETORT_ELIMIT over the ceiling, the largest allocation or the device's memory, with the numbers in the message.
 * Contents undefined. `bytes` 0 is rounded up. `what` is for messages ("trajectory store"). */
int device_buffer_create(struct device *device, size_t bytes, const char *what, struct device_buffer **buffer);
void device_buffer_destroy(struct device_buffer *buffer); /* NULL-safe */
size_t device_buffer_size(const struct device_buffer *buffer);

/* Transfers in queue order. Write returns when `data` may be reused; read when it has arrived (it waits for the queue
 * and reports the failure of any earlier launch). Offsets and sizes in bytes, checked against the buffer. */
int device_write(struct device *device, struct device_buffer *buffer, size_t offset, size_t bytes, const void *data);
int device_read(struct device *device, struct device_buffer *buffer, size_t offset, size_t bytes, void *data);
int device_copy(struct device *device, struct device_buffer *to, size_t to_offset, struct device_buffer *from,
                size_t from_offset, size_t bytes);
int device_fill_zero(struct device *device, struct device_buffer *buffer, size_t offset, size_t bytes);
int device_finish(struct device *device); /* waits for the queue */
/* The same for taking things down, perhaps after a failure: says nothing, so that the failure's message stays. */
void device_drain(struct device *device);
int device_flush(struct device *device); /* hands queued work to the driver; does not wait */

/* --- programs and kernels --- */
struct device_program;
struct device_kernel;

/* Builds OpenCL C 1.2 source, or takes the binary from the disk cache (XDG_CACHE_HOME/retort or ~/.cache/retort; the
 * key covers source, options, device, driver, platform and format version; written atomically; a broken or unwritable
 * cache is a miss, never an error; RETORT_CACHE=off disables it). A binary is stored once its build was slow twice and
 * no faster the second time, for many drivers have caches of their own; RETORT_CACHE=on stores every one at once. On
 * failure the message carries the compiler's first errors and the path of a file with source and full log. */
int device_program_create(struct device *device, const char *source, const char *options,
                          struct device_program **program);
void device_program_destroy(struct device_program *program);
/* Kernels are counted for `seconds_building`. */
int device_kernel_create(struct device_program *program, const char *name, struct device_kernel **kernel);
void device_kernel_destroy(struct device_kernel *kernel);
const char *device_kernel_name(const struct device_kernel *kernel);
/* The largest work-group this kernel can be launched with, which its registers may make smaller than the device's. */
size_t device_kernel_largest_group(const struct device_kernel *kernel);
/* Bytes a work-item (with some drivers a hardware thread) keeps in memory because registers do not suffice; 0: none, or
 * the driver does not tell. Says nothing of CPUs, where it is 0. */
uint64_t device_kernel_spilled(const struct device_kernel *kernel);
double device_build_seconds(const struct device *device); /* wall time spent in builds and first launches so far */

/* Arguments: every buffer argument of our kernels is a pair (pointer, ulong offset in ELEMENTS of 4 bytes), at argument
 * numbers 2 i and 2 i + 1 for buffer i. */
int device_kernel_set_buffer(struct device_kernel *kernel, unsigned i, struct device_buffer *buffer,
                             uint64_t offset_elements);
/* local[0] 0: the driver chooses. Waits where much is queued already: drivers keep a record for every launch, and what
 * is queued cannot be taken back. Some hundred launches are, or what takes the device about half a second. */
int device_launch(struct device *device, struct device_kernel *kernel, const size_t global[3], const size_t local[3]);
/* Waits for all that was launched since `begun` (clock_seconds), for its own sake: many drivers build kernels to their
 * end when those are first launched. That time counts as spent in building. */
int device_finish_first(struct device *device, double begun);
/* Threads with a device each take turns at first launches, and end what they have launched within a turn: PoCL 3.1
 * loses count of kernels that two threads load at the same time, and ends the process. */
void device_first_launches_begin(void);
void device_first_launches_end(void);

/* --- measuring --- */
/* Per-kernel device time by profiling events. `begin` turns it on: the queue is re-created with profiling; launches and
 * results stay the same. `end` turns it off and hands over a row per kernel name, the slowest first. */
struct device_profile_row {
    char name[96];
    size_t launches;
    double seconds;      /* on the device, of all launches */
    double flops, bytes; /* of all launches, as told by device_kernel_set_work */
};
struct device_profile {
    struct device_profile_row *rows;
    size_t count;
};
int device_profile_begin(struct device *device);
int device_profile_end(struct device *device, struct device_profile *profile);
void device_profile_finish(struct device_profile *profile); /* NULL-safe, zeroes */
/* What one launch of a kernel amounts to, for profiles: operations, and bytes of global memory it must move. */
void device_kernel_set_work(struct device_kernel *kernel, double flops, double bytes);

/* What this device can do at best, measured: chains of independent fused multiply-adds, and a copy of more memory than
 * its caches hold (less where the ceiling leaves no room for that). Takes about a second. */
struct device_peaks {
    double flops; /* per second; a fused multiply-add counts two */
    double bytes; /* per second, those read and those written */
};
int device_measure_peaks(struct device *device, struct device_peaks *peaks);
/* Seconds of what one call of `queue` puts on the queue: the best of rounds that are each long enough for the clock,
 * five at least, and more until `budget` seconds have gone. */
int device_time(struct device *device, int (*queue)(void *what), void *what, double budget, double *seconds);
int device_time_launch(struct device *device, struct device_kernel *kernel, const size_t global[3],
                       const size_t local[3], double budget, double *seconds);

/* Runs a few small programs (arithmetic, vectors, loops, offsets, local memory with a barrier, int32, an in-order
 * chain) and compares with the host. RETORT_EDEVICE with what failed. Takes below a second once cached. */
int device_self_test(struct device *device);

#endif
