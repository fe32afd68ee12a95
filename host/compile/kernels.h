/* Choosing hand-written kernels: which templates of cl/ compute an operation, with which parameters and launches.
 *
 * Both families are correct on every device. CPU: work-group size 1, vectors of V lanes, no barriers, no local memory.
 * GPU: work-groups, V is 1. No atomics, fixed summation order: results repeat bit for bit on a device. */
#ifndef RETORT_COMPILE_KERNELS_H
#define RETORT_COMPILE_KERNELS_H

#include "base/memory.h"
#include "compile/executable.h"
#include "compile/plan.h"
#include "device/device.h"

#include <stddef.h>
#include <stdint.h>

/* How a tensor [N,C,H,W] lies in memory. Blocked: [N][ceil(C / V)][H][W][V], lanes past C hold zeros (writers keep them
 * zero). With V = 1 the two are the same, and everything is called plain. */
enum layout { LAYOUT_PLAIN, LAYOUT_BLOCKED };

/* The target of all choices below. */
struct wisdom;
struct kernel_target {
    const struct device_traits *traits;
    enum family family;    /* CPU or GPU, never auto */
    int lanes;             /* V */
    const char *preferred; /* a row of the convolutions below: taken wherever it fits, whatever the wisdom says; NULL */
    const char *gemm;      /* likewise of matrix products: "clblast"; "own": no library; NULL or "auto": none */
    struct device *calls;  /* the device on which a library has been found to be right and is asked; NULL: none is */
    bool single;           /* launches stay as they are, for drivers that merged kernels are too much for */
    struct wisdom *wisdom; /* choices that measuring has found, and bad ones, to which the self-test of a library adds
                              (wisdom.h); NULL: none */
};
/* By the device's type where the family is auto. RETORT_CONV in the environment names the preferred row, RETORT_GEMM
 * who computes matrix products, RETORT_MERGE=off leaves launches as they are; for tests and for finding out which
 * kernel a driver computes wrongly. A name that does not exist is refused by library_create. */
struct kernel_target kernels_target(const struct device_traits *traits, enum family family);
/* RETORT_EINVAL where the environment asks for what there is not; of products kernels_settle_gemm says it. */
int kernels_check_asked(const struct kernel_target *target);

/* Settles who computes matrix products on the device, from what target->gemm asks for, or by itself from the wisdom:
 * sets target->calls, testing the library where it is wanted and was not tested on this device before. `words` say who
 * it is and why. A library that is missing or wrong is replaced by our own kernels, with a warning. RETORT_EINVAL where
 * nobody has that name. */
enum { GEMM_WORDS = 640 };
int kernels_settle_gemm(struct kernel_target *target, struct device *device, char words[GEMM_WORDS]);
/* Whether measuring may find that the library is faster: on GPUs, and wherever it is asked for. */
bool kernels_may_call(const struct kernel_target *target);
/* Whether launches are dear and work-items hold values in registers: kernels for GPUs, and not run by a processor. */
static inline bool kernels_on_gpu(const struct kernel_target *target) {
    return target->family == FAMILY_GPU && target->traits->kind != DEVICE_CPU;
}

/* Whether a core has a second cache of 2 MiB or more, as Intel's servers have had since Sapphire Rapids. There the
 * cache behind it is slow beside the core: work-items of Winograd's convolutions are cut by a model of cost, and
 * kernels ask ahead for memory. */
static inline bool kernels_large_cache(const struct kernel_target *target) {
    return target->traits->second_cache >= 2 << 20;
}

/* The sizes of a convolution: x [n,c,h,w], w [o,c,kh,kw], y [n,o,oh,ow]. */
struct conv_sizes {
    int64_t n, c, h, w, o, kh, kw, oh, ow;
    int stride, padding;
};

/* Whether a convolution operand with this many channels is kept blocked (image tensors with few channels stay plain).
 */
enum layout kernels_conv_layout(const struct kernel_target *target, int64_t channels);

/* Several convolutions as one launch: up to two results, each the sum of convolutions of up to two inputs by up to two
 * weights. Result o holds the product of input i and weights w where bit (o * 2 + i) * 2 + w of `mask` is set. Of
 * backward-weight there is one result, the sum of two pairs of operands, and the mask is not looked at: {1, 2, 2, 0}.
 */
struct conv_terms {
    int outputs, inputs, weights;
    unsigned mask;
};
enum conv_pass { CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHT };
/* c [batch,m,n] = a x b. Stored a: [batch,m,k], or [batch,k,m] where transpose_a; b: [batch,k,n] or [batch,n,k]. */
struct matmul_sizes {
    int64_t batch, m, n, k;
    bool transpose_a, transpose_b;
};
/* A convolution, where the terms are CONV_SINGLE, or joined ones; or a matrix product, which has no sizes but its own,
 * and CONV_SINGLE for its terms. */
#define CONV_SINGLE ((struct conv_terms){.outputs = 1, .inputs = 1, .weights = 1, .mask = 1})
struct kernel_class {
    enum conv_pass pass;
    struct conv_sizes sizes;
    struct conv_terms terms;
    struct matmul_sizes product; /* batch 0: a convolution */
};
static inline bool class_is_product(const struct kernel_class *class) {
    return class->product.batch != 0;
}
struct kernel_class class_of_product(const struct matmul_sizes *sizes);
/* How many convolutions or products a launch of the class sums up or leaves side by side: 1, but for joined ones. */
int class_products(const struct kernel_class *class);
double kernel_class_flops(const struct kernel_class *class); /* as plain sums of products */
/* Its launches, as the choice below says, or by the first variant that applies. Results and inputs of the plan, in
 * order: forward y, x, weights; backward-data x, y, weights; backward-weight gw, x, y, x, y, ... Images lie as
 * kernels_conv_layout says, weights are plain [O,C,KH,KW]; of a product c; a, b. RETORT_EINVAL where the sizes make no
 * sense, RETORT_ELIMIT where they are too large, RETORT_EDEVICE where every way is known to be bad. */
int kernels_plan(const struct kernel_target *target, const struct kernel_class *class, struct kernel_plan *plan);
/* Whether convolutions of these sizes can be computed by launches of several terms. */
bool kernels_conv_joins(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *sizes);

/* --- what can be tuned --- */
enum { CHOICE_PARAMETERS = 12, CANDIDATES = 24 };
/* A way to compute a class: one of the rows below, and its parameters. All 0: by its own rules. What the numbers
 * mean is said at the row's functions. */
struct kernel_choice {
    const char *variant; /* a row's name, static; NULL: none */
    int parameters[CHOICE_PARAMETERS];
};
/* A row a way to compute convolutions or matrix products. They are tried in order: the first whose `applies` is true
 * computes a class of which the wisdom knows nothing. */
struct kernel_variant {
    const char *name;   /* as in the wisdom: "winograd4" */
    const char *words;  /* "Winograd F(4,3)" */
    enum family family; /* whose target it serves; AUTO: every one */
    int numbers;        /* how many parameters it has, of a row of both families: with kernels for GPUs */
    bool joins;         /* takes several terms in a launch */
    double error;       /* of a result, over the largest value: what float32 and the method explain */
    bool (*applies)(const struct kernel_target *target, const struct kernel_class *class);
    /* Whether the class can be computed with these parameters: whatever the numbers are, what fits computes the right
     * result within bounded private memory. */
    bool (*fits)(const struct kernel_target *target, const struct kernel_class *class, const int *parameters);
    /* Parameters worth measuring, whether they fit or not; how many. */
    int (*candidates)(const struct kernel_target *target, const struct kernel_class *class,
                      int list[][CHOICE_PARAMETERS], int most);
    /* Writes the parameters that all zeros stand for; leaves zeros where those do not depend on the batch. */
    void (*own)(const struct kernel_target *target, const struct kernel_class *class, int *parameters);
    int (*plan)(const struct kernel_target *target, const struct kernel_class *class, const int *parameters,
                struct kernel_plan *plan);
    int optional; /* of the last parameters: 1 says nothing there, and is left out of files */
    bool product; /* of matrix products, not of convolutions */
    bool library; /* calls: taken where target->calls is there, and measured where kernels_may_call says so */
};
/* The row with that name, or the i-th row that serves the target for products or convolutions; NULL: there is none. */
const struct kernel_variant *kernels_variant(const char *name);
const struct kernel_variant *kernels_row(const struct kernel_target *target, bool product, int i);
/* Whether the kernels can compute the class so. */
bool kernels_fits(const struct kernel_target *target, const struct kernel_class *class,
                  const struct kernel_choice *choice);
/* The choice for a class: that of the wisdom where it has one that fits, else the first row that applies, at last the
 * plainest candidate of the last row; but never one that the wisdom calls bad. Without a variant where none is left. */
struct kernel_choice kernels_choice(const struct kernel_target *target, const struct kernel_class *class);
/* Likewise without the wisdom's choices, but with what it calls bad. */
struct kernel_choice kernels_untuned(const struct kernel_target *target, const struct kernel_class *class);
/* The same choice with the parameters that its row's own rules give: another batch is then computed by the same
 * kernels. */
struct kernel_choice kernels_explicit(const struct kernel_target *target, const struct kernel_class *class,
                                      const struct kernel_choice *choice);
/* Choices of a row worth measuring: its own rules first. 0 where it cannot compute the class. */
int kernels_candidates(const struct kernel_target *target, const struct kernel_class *class,
                       const struct kernel_variant *variant, struct kernel_choice list[CANDIDATES]);

/* kernels_plan for a product of these sizes. */
int kernels_matmul(const struct kernel_target *target, const struct matmul_sizes *sizes, struct kernel_plan *plan);

/* (to; from), a tensor [n,c,h,w] from one layout to the other; a plan without launches where the two are the same. */
int kernels_relayout(const struct kernel_target *target, int64_t n, int64_t c, int64_t h, int64_t w, enum layout from,
                     enum layout to, struct kernel_plan *plan);
/* (out; values, indices): rows values [rows, width] added to those of a result [count, width] that int indices [rows]
 * name, ascending. */
int kernels_scatter_rows(const struct kernel_target *target, int64_t rows, int64_t width, int64_t count,
                         struct kernel_plan *plan);
/* (out; image, map), plain [n,c,h,w]; node_sample and node_sample_transpose of the graph. */
int kernels_sample(const struct kernel_target *target, int64_t n, int64_t c, int64_t h, int64_t w, bool transpose,
                   struct kernel_plan *plan);
enum { KERNELS_EIGH_MAX = 128 }; /* the kernel keeps a copy of the matrix in private memory: 64 KiB */
/* (out [k+1,k]; matrix [k,k]), k at most KERNELS_EIGH_MAX: one work-item, cyclic Jacobi; node_eigh of the graph. */
int kernels_eigh(const struct kernel_target *target, int64_t k, struct kernel_plan *plan);

#endif
