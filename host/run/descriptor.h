/* Descriptors: what a run is to do, read from YAML through one table of keys (docs/descriptor.md is printed from it).
 */
#ifndef RETORT_RUN_DESCRIPTOR_H
#define RETORT_RUN_DESCRIPTOR_H

#include "base/memory.h"
#include "compile/kernels.h"
#include "data/data.h"
#include "distill/distill.h"
#include "evaluate/evaluate.h"
#include "nn/nn.h"
#include "run/schema.h"

enum gemm_choice { GEMM_AUTO, GEMM_CLBLAST, GEMM_OWN };
enum merge_choice { MERGE_AUTO, MERGE_OFF };
struct device_choice {
    const char *select; /* "" for RETORT_DEVICE or the first one; several with commas between */
    enum divide divide;
    const int *shares; /* [share_count], of each device; NULL: measured */
    int share_count;
    enum family family;
    enum gemm_choice gemm;   /* who computes matrix products */
    enum dct_way dct;        /* who makes images of coefficients */
    enum merge_choice merge; /* whether small launches become one */
};

/* Complete: every default is filled in. Strings and lists live in the arena. */
struct descriptor {
    struct arena arena;
    struct data_spec data;
    struct network_spec network;
    struct inner_spec inner;
    struct set_spec set;
    int method;        /* index of its row: descriptor_method */
    void *method_spec; /* the values of its keys, in the arena */
    struct outer_spec outer;
    struct evaluate_spec evaluate;
    struct network_spec evaluate_network; /* `network` unless the descriptor names another */
    uint64_t seed;
    struct device_choice device;
    uint64_t memory; /* bytes of device memory; 0: no ceiling */
    char name[64];   /* of the file, without folder and ending */
};

enum { DEVICES_MOST = 256, DEVICE_SPEC = 256 };
/* The devices that the descriptor, or RETORT_DEVICE where it names none, lists: 1 or more; and the spec of one of them,
 * for device_open, counting round. */
int descriptor_devices(const struct descriptor *descriptor);
void descriptor_device(const struct descriptor *descriptor, int index, char spec[DEVICE_SPEC]);
/* device.shares for so many devices: *given tells whether there are any, else all are 1. RETORT_EINVAL where they are
 * of another number of devices. */
int descriptor_shares(const struct descriptor *descriptor, int devices, int *shares, bool *given);

/* Reads a file, then the overrides; checks that the values go together. RETORT_EINVAL names the file and line (or the
 * option), the key, what was found and what is allowed; RETORT_EIO where the file cannot be read. */
int descriptor_read(const char *path, const struct schema_override *overrides, size_t count,
                    struct descriptor *descriptor);
/* The same from text; relative paths start at `folder`. */
int descriptor_parse(const char *name, const char *folder, const char *text, size_t size,
                     const struct schema_override *overrides, size_t count, struct descriptor *descriptor);
/* The same two of a complete copy that a run's or set's folder keeps: a key that it lacks came later, and means what
 * was done before there was the key, whatever its default is now. So old runs go on as they began. */
int descriptor_read_copy(const char *path, const struct schema_override *overrides, size_t count,
                         struct descriptor *descriptor);
int descriptor_parse_copy(const char *name, const char *folder, const char *text, size_t size,
                          const struct schema_override *overrides, size_t count, struct descriptor *descriptor);
void descriptor_finish(struct descriptor *descriptor); /* NULL-safe, zeroes */

/* Complete YAML: reading it back gives the same descriptor, writing that the same bytes. */
void descriptor_write(const struct descriptor *descriptor, struct text *text);
json_t *descriptor_json(const struct descriptor *descriptor);
/* The first key in which two descriptors differ, with the values, or NULL. */
const char *descriptor_difference(const struct descriptor *a, const struct descriptor *b, struct text *mine,
                                  struct text *theirs);
/* The reference of all keys, Markdown. */
void descriptor_reference(struct text *text);

/* The row of the method that method.name names. */
const struct method *descriptor_method(const struct descriptor *descriptor);
/* The word of an enum, for results and screens. */
const char *descriptor_protocol_name(enum protocol protocol);
const char *descriptor_gemm_name(enum gemm_choice gemm);
/* Whom kernels are chosen for: a device of these traits, as the keys of `device` say, or the environment. */
struct kernel_target descriptor_target(const struct descriptor *descriptor, const struct device_traits *traits);

#endif
