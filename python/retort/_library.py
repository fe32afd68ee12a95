"""The C library by cffi: its declarations, where it is, and its errors as exceptions."""

import os
import sys
import sysconfig

import cffi

# include/retort/ of the same version, without comments; a test compares them. Structs only grow at their ends, and only
# where the library makes them, while the soname stays.
DECLARATIONS = """
const char *retort_version(void);
const char *retort_error_message(void);
const char *retort_status_name(int status);
void retort_log_verbosity(int level);

struct retort_device {
    int index;
    int is_gpu;
    char platform[128];
    char name[128];
    char driver[128];
    unsigned compute_units;
    uint64_t global_memory;
    uint64_t max_allocation;
    uint64_t reserved[8];
};
int retort_device_list(struct retort_device **devices, size_t *count);
void retort_device_list_free(struct retort_device *devices);

struct retort_run;
struct retort_progress {
    int outer_step;
    int outer_steps;
    double loss;
    double accuracy;
    const char *stage;
};
struct retort_run_options {
    const char *out;
    const char *const *settings;
    int resume;
    int dry_run;
    int profile;
    int tensorboard;
    double checkpoint_every;
    const volatile int *interrupt;
    void (*progress)(void *user, const struct retort_progress *progress);
    void *user;
    const void *reserved[8];
};
int retort_run_create(const char *descriptor, const struct retort_run_options *options, struct retort_run **run);
int retort_run_create_text(const char *name, const char *folder, const char *text,
                           const struct retort_run_options *options, struct retort_run **run);
void retort_run_destroy(struct retort_run *run);
int retort_run_execute(struct retort_run *run);
const char *retort_run_folder(const struct retort_run *run);
const char *retort_run_result(const struct retort_run *run);

struct retort_images {
    int64_t count;
    int channels;
    int height;
    int width;
    const float *pixels;
    const int32_t *labels;
};
int retort_data_write(const char *path, const struct retort_images *train, const struct retort_images *test);

struct retort_set;
struct retort_set_shape {
    int64_t count;
    int channels;
    int height;
    int width;
    int classes;
    int ipc;
};
int retort_set_read(const char *path, struct retort_set **set);
void retort_set_destroy(struct retort_set *set);
const struct retort_set_shape *retort_set_shape(const struct retort_set *set);
const float *retort_set_images(const struct retort_set *set);
const int32_t *retort_set_labels(const struct retort_set *set);
const float *retort_set_soft_labels(const struct retort_set *set);
const char *retort_set_class_name(const struct retort_set *set, int index);
double retort_set_inner_lr(const struct retort_set *set);
const char *retort_set_about(const struct retort_set *set);
int retort_set_pixels(const struct retort_set *set, float *pixels, int *exact);
int retort_set_normalise(const struct retort_set *set, float *images, int64_t count);

struct retort_accuracy {
    double mean;
    double sd;
    int networks;
    int step;
    int chosen_on_test;
    const double *runs;
};
struct retort_evaluate_options {
    const char *labels;
    const char *descriptor;
    const char *text;
    const char *folder;
    const char *const *settings;
    const volatile int *interrupt;
    const void *reserved[8];
};
struct retort_evaluation;
int retort_evaluate(const char *set, const struct retort_evaluate_options *options,
                    struct retort_evaluation **evaluation);
void retort_evaluation_destroy(struct retort_evaluation *evaluation);
const char *retort_evaluation_json(const struct retort_evaluation *evaluation);
"""

VERSION = "0.1.0"
SONAME = "libretort.so.0"

ffi = cffi.FFI()
ffi.cdef(DECLARATIONS)


def _places():
    """Where the library may be: as the environment says, alone; else where the system looks, and usual prefixes."""
    chosen = os.environ.get("RETORT_LIBRARY")
    if chosen:
        return [chosen]
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    prefixes = [sys.prefix, "/usr/local", os.path.expanduser("~/.local")]
    return [SONAME] + [os.path.join(p, "lib", t, SONAME) for p in prefixes for t in dict.fromkeys(["", triplet])]


def _version(words):
    return tuple(int(part) for part in words.split(".")[:2])


def _open():
    places, said = _places(), None
    for place in places:
        try:
            found = ffi.dlopen(place)
            break
        except OSError as error:
            # A library that is there and does not load says more than one that is not there.
            if said is None or os.path.exists(place):
                said = error
    else:
        raise ImportError(
            f"cannot load the library of Retort ({said}); install it with meson install -C build, or set RETORT_LIBRARY "
            f"to its path, such as build/{SONAME}; looked for {', '.join(places)}"
        )
    version = ffi.string(found.retort_version()).decode()
    if _version(version) < _version(VERSION):
        raise ImportError(f"{place} is Retort {version}, this package is for {VERSION} and later: install a later library")
    return found


lib = _open()


class Error(Exception):
    """The library could not do what it was asked to; the message is its own. `status` is its code."""

    status = None


class InvalidInput(Error, ValueError):
    """A value or an argument is wrong: a key of the descriptor, a shape that does not fit, a folder that is not empty."""


class OutOfMemory(Error, MemoryError):
    """The host's memory ran out."""


class FileError(Error, OSError):
    """A file or folder could not be read or written."""


class FormatError(Error, ValueError):
    """A file is not what it claims to be."""


class DeviceError(Error, RuntimeError):
    """OpenCL: no platform, no device, or a call that failed."""


class MemoryLimit(Error, MemoryError):
    """The memory ceiling, or the device's memory, does not suffice."""


class NumericError(Error, ArithmeticError):
    """A result is not finite."""


class Interrupted(Error):
    """The callback stopped it. What a run has done is saved: run(..., resume=True) goes on."""


class Unsupported(Error, NotImplementedError):
    """Nothing that this version or this device can do."""


class Mismatch(Error):
    """A check ran, and its result is out of tolerance."""


_KINDS = {-1: InvalidInput, -2: OutOfMemory, -3: FileError, -4: FormatError, -5: DeviceError, -6: MemoryLimit,
          -7: NumericError, -8: Interrupted, -9: Unsupported, -10: Mismatch}


def failure(status):
    """The exception for a status below 0, with the message of the calling thread."""
    error = _KINDS.get(status, Error)(text(lib.retort_error_message()))
    error.status = status
    return error


def check(status):
    if status < 0:
        raise failure(status)


def text(pointer):
    """A string of the library's; None for NULL. File names may be any bytes."""
    return None if pointer == ffi.NULL else ffi.string(pointer).decode("utf-8", "surrogateescape")


def chars(words):
    """A string for the library; NULL for None."""
    return ffi.NULL if words is None else ffi.new("char[]", os.fsencode(words))
