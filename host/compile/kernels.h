/* Choosing hand-written kernels: which template of cl/ serves a use, with which parameters and launch.
 *
 * A template is a file of cl/ holding one kernel called NAME, its parameters being macros: the program's text repeats,
 * for each use, `#define NAME k7`, the parameters, the file, and the `#undef`s (which the file's last lines do).
 * cl/preamble.cl stands first in every program. Every buffer argument is a pair (global pointer, ulong offset in
 * elements); outputs come first. The argument order of each kernel is given at the function that chooses it.
 *
 * Both families are correct on every device. CPU: work-group size 1, vectors of V lanes, no barriers, no local memory.
 * GPU: work-groups, V is 1. No atomics, fixed summation order: results repeat bit for bit on a device. */
#ifndef RETORT_COMPILE_KERNELS_H
#define RETORT_COMPILE_KERNELS_H

#include "base/memory.h"
#include "compile/executable.h"
#include "device/device.h"

#include <stddef.h>
#include <stdint.h>

/* How a tensor [N,C,H,W] lies in memory. Blocked: [N][ceil(C / V)][H][W][V], lanes past C hold zeros (writers keep them
 * zero). With V = 1 the two are the same, and everything is called plain. */
enum layout { LAYOUT_PLAIN, LAYOUT_BLOCKED };

struct kernel_use {
    const char *file;           /* "conv_cpu.cl"; NULL: no kernel needed */
    char parameters[768];       /* lines "#define KEY value\n" */
    size_t global[3], local[3]; /* local[0] = 0: the driver chooses */
};

/* The target of all choices below. */
struct wisdom;
struct kernel_target {
    const struct device_traits *traits;
    enum family family;          /* CPU or GPU, never auto */
    int lanes;                   /* V */
    bool direct;                 /* convolutions as plain sums of products, no Winograd: for comparisons */
    bool single;                 /* launches stay as they are: some drivers for CPUs cannot build merged GPU kernels */
    const struct wisdom *wisdom; /* choices that measuring has found (wisdom.h); NULL: none */
};
/* By the device's type where the family is auto. */
struct kernel_target kernels_target(const struct device_traits *traits, enum family family);

/* The sizes of a convolution: x [n,c,h,w], w [o,c,kh,kw], y [n,o,oh,ow]. */
struct conv_sizes {
    int64_t n, c, h, w, o, kh, kw, oh, ow;
    int stride, padding;
};

/* Whether a convolution operand with this many channels is kept blocked (image tensors with few channels stay plain).
 */
enum layout kernels_conv_layout(const struct kernel_target *target, int64_t channels);

struct conv_use {
    size_t packed_floats;     /* size of the packed weights; 0: `main` reads the weights [O,C,KH,KW] as they are */
    struct kernel_use pack;   /* (packed, weights) */
    size_t work_floats;       /* scratch of `main` and `finish` */
    struct kernel_use main;   /* forward: (y, x, packed), data: (x, y, packed), weight: (gw or work, x, y) */
    struct kernel_use finish; /* weight only: (gw, work) */
};
/* Layouts are those of the tensors as they lie; gw and weights are plain [O,C,KH,KW]. */
int kernels_conv(const struct kernel_target *target, const struct conv_sizes *sizes, enum layout x, enum layout y,
                 struct conv_use *use);
int kernels_conv_backward_data(const struct kernel_target *target, const struct conv_sizes *sizes, enum layout x,
                               enum layout y, struct conv_use *use);
int kernels_conv_backward_weight(const struct kernel_target *target, const struct conv_sizes *sizes, enum layout x,
                                 enum layout y, struct conv_use *use);

/* Several convolutions as one launch: up to two results, each the sum of convolutions of up to two inputs by up to two
 * weights. Result o holds the product of input i and weights w where bit (o * 2 + i) * 2 + w of `mask` is set. Of
 * backward-weight there is one result, the sum of two pairs of operands, and the mask is not looked at: {1, 2, 2, 0}.
 */
struct conv_terms {
    int outputs, inputs, weights;
    unsigned mask;
};
enum conv_pass { CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHT };
/* Whether convolutions of these sizes, with operands in their usual layouts, can be computed by one such launch. */
bool kernels_conv_joins(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *sizes);
/* To be called only where kernels_conv_joins is true. The arguments of `main` are (results, inputs, packed weights),
 * those of backward-weight (gw or work, x, y, x, y); `pack` is launched for each of the weights. */
int kernels_conv_joined(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *sizes,
                        const struct conv_terms *terms, struct conv_use *use);

/* --- what can be tuned: convolutions of the CPU family, operands in their usual layouts --- */
/* One launch: a single convolution where the terms are CONV_SINGLE, else joined ones. */
#define CONV_SINGLE ((struct conv_terms){.outputs = 1, .inputs = 1, .weights = 1, .mask = 1})
struct conv_class {
    enum conv_pass pass;
    struct conv_sizes sizes;
    struct conv_terms terms;
};
/* How it is computed. `tile` 0, 0, 0 leaves the rest to the method's own rules; otherwise it is
 *     direct, forward and backward-data     register tile: rows, columns, vectors of output channels
 *     Winograd, forward and backward-data   tiles of a work-item, and register tile: tiles, vectors of output channels
 *     Winograd, backward-weight             blocks of input and of output channels of a work-item, those of output
 *                                           channels in a register tile
 * Direct backward-weight has no tile, and direct kernels take single convolutions only. */
struct conv_choice {
    int method; /* 0: direct; 2, 4: Winograd's F(2,3), F(4,3) */
    int tile[3];
};
/* Whether the kernels can compute the class so: whatever the numbers are, a choice that fits computes the right result
 * within bounded private memory. */
bool kernels_conv_fits(const struct kernel_target *target, const struct conv_class *class,
                       const struct conv_choice *choice);
/* The choice for a class: that of the wisdom where it has one that fits, else by counting operations. */
struct conv_choice kernels_conv_choice(const struct kernel_target *target, const struct conv_class *class);
/* Choices of a method worth measuring: its own rules first. 0 where the method cannot compute the class. */
enum { CONV_CANDIDATES = 24 };
int kernels_conv_candidates(const struct kernel_target *target, const struct conv_class *class, int method,
                            struct conv_choice list[CONV_CANDIDATES]);
/* The launches of a class: kernels_conv, its adjoints, or kernels_conv_joined. */
int kernels_conv_plan(const struct kernel_target *target, const struct conv_class *class, struct conv_use *use);

/* c [batch,m,n] = a x b. Stored a: [batch,m,k], or [batch,k,m] where transpose_a; b: [batch,k,n] or [batch,n,k]. */
struct matmul_sizes {
    int64_t batch, m, n, k;
    bool transpose_a, transpose_b;
};
struct matmul_use {
    size_t packed_floats;   /* of b; 0: read as it is */
    struct kernel_use pack; /* (packed, b) */
    struct kernel_use main; /* (c, a, packed or b) */
};
int kernels_matmul(const struct kernel_target *target, const struct matmul_sizes *sizes, struct matmul_use *use);

/* (to, from), a tensor [n,c,h,w] from one layout to the other. */
int kernels_relayout(const struct kernel_target *target, int64_t n, int64_t c, int64_t h, int64_t w, enum layout from,
                     enum layout to, struct kernel_use *use);
/* Rows values [rows, width] added to those of a result [count, width] that int indices [rows] name, b ascending. */
struct scatter_use {
    size_t list_ints;       /* of who names each row; 0: few enough rows to look at all indices */
    struct kernel_use list; /* (list, indices) */
    struct kernel_use main; /* (out, values, list or indices) */
};
int kernels_scatter_rows(const struct kernel_target *target, int64_t rows, int64_t width, int64_t count,
                         struct scatter_use *use);
/* (out, image, map), plain [n,c,h,w]; node_sample and node_sample_transpose of the graph. */
int kernels_sample(const struct kernel_target *target, int64_t n, int64_t c, int64_t h, int64_t w, bool transpose,
                   struct kernel_use *use);
enum { KERNELS_EIGH_MAX = 128 }; /* the kernel keeps a copy of the matrix in private memory: 64 KiB */
/* (out [k+1,k], matrix [k,k]), k at most KERNELS_EIGH_MAX: one work-item, cyclic Jacobi; node_eigh of the graph. */
int kernels_eigh(const struct kernel_target *target, int64_t k, struct kernel_use *use);

/* Appends what stands first in every program: the definition of V, cl/preamble.cl, cl/winograd.cl and cl/fused.cl, and
 * in the GPU family cl/rows_gpu.cl. */
void kernels_preamble(struct text *text, int lanes);
/* The text of a file of cl/ by name, embedded in the library; NULL where there is none. */
const char *kernels_text(const char *file);

#endif
