/* Inside the kernel choice: what the rows of kernels.c call, and what families share.
 *
 * kernels.c checks sizes first; so a family may take for granted that every size is positive, that oh and ow follow
 * from the rest, and that no tensor has more than INT32_MAX elements. Plans and uses are zeroed. kernels_small.c serves
 * both families: relayout, scatter_rows, sample, eigh. */
#ifndef RETORT_COMPILE_KERNELS_FAMILY_H
#define RETORT_COMPILE_KERNELS_FAMILY_H

#include "compile/integer.h"
#include "compile/kernels.h"

/* What most kernels of products are: operands are packed, products computed, parts of the results added. */
struct product_use {
    size_t packed_floats;   /* size of a packed second operand; 0: `main` reads them as they lie */
    struct kernel_use pack; /* (packed, second operand) */
    struct kernel_use main; /* (results or work, inputs, packed or second operands) */
    /* Of each result. */
    struct product_finish {
        size_t work_floats;    /* what `main` leaves in place of the result */
        int parts;             /* > 1: that is so many results after each other, which are added in their order */
        struct kernel_use use; /* (result, work); no file: `main` writes the result itself */
    } finish[PLAN_RESULTS];
};
/* As a plan of so many results and inputs; the last `packed` inputs are those that are packed. */
void kernels_plan_product(const struct product_use *use, int results, int inputs, int packed, struct kernel_plan *plan);
/* Likewise for a class of convolutions. */
void kernels_plan_conv(const struct product_use *use, const struct kernel_class *class, struct kernel_plan *plan);

bool class_is_single(const struct kernel_class *class);

/* --- kernels_cpu.c: direct convolutions. Parameters: rows, columns, vectors of output channels of a register tile;
 * backward-weight has none. --- */
bool conv_direct_fits(const struct kernel_target *target, const struct kernel_class *class, const int *tile);
int conv_direct_candidates(const struct kernel_target *target, const struct kernel_class *class,
                           int list[][CHOICE_PARAMETERS], int most); /* the one taken without wisdom first */
int conv_direct_plan(const struct kernel_target *target, const struct kernel_class *class, const int *tile,
                     struct kernel_plan *plan);
/* What all zeros stand for, where that is numbers; here and below. */
void conv_direct_own(const struct kernel_target *target, const struct kernel_class *class, int *numbers);
int matmul_cpu_plan(const struct kernel_target *target, const struct matmul_sizes *sizes, struct product_use *use);
/* Of a backward-weight: `finish`, which adds `splits` parts of `count` floats each in `work`; nothing for one part. */
void kernels_cpu_sum(int64_t count, int64_t splits, struct product_use *use);

/* --- kernels_winograd.c: 3x3 convolutions with stride 1 between blocked tensors, F(2,3) and F(4,3). Parameters of
 * forward and backward-data: tiles of a work-item, and register tile: tiles, vectors of output channels; of
 * backward-weight: blocks of input and of output channels of a work-item, those of output channels in a register tile.
 * Then, each 1 where the rules are to decide: whether memory is asked for ahead (2: no, 3: yes) and, of
 * backward-weight, 1 + tiles of a round, 1 + parts of the sum. --- */
enum { WINOGRAD_NUMBERS = 6 };
/* What the transforms see, of both families: a forward pass, of x to y or, mirrored, of y to x for backward-data;
 * backward-weight as the forward pass is. */
struct winograd_task {
    int64_t n, in_channels, in_height, in_width, out_channels, out_height, out_width;
    int64_t pad;
    bool mirrored;
};
struct winograd_task winograd_task(enum conv_pass pass, const struct conv_sizes *sizes);
/* Whether the kernel and its steps are those that F(m,3) is for. */
bool winograd_kernel(const struct conv_sizes *sizes);
int64_t winograd_tiles(const struct winograd_task *task, int64_t images, int64_t out_tile); /* of so many images */
/* The m of the F(m,3) that is fastest by a simple count of operations: 4, 2, or 0 where direct convolution is, or where
 * it is no such convolution. */
int kernels_winograd(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *sizes);
bool conv_winograd_fits(const struct kernel_target *target, const struct kernel_class *class, int m, const int *tile);
int conv_winograd_candidates(const struct kernel_target *target, const struct kernel_class *class, int m,
                             int list[][CHOICE_PARAMETERS], int most);
void conv_winograd_own(const struct kernel_target *target, const struct kernel_class *class, int m, int *numbers);
void conv_winograd_plan(const struct kernel_target *target, const struct kernel_class *class, int m, const int *tile,
                        struct kernel_plan *plan);

/* --- kernels_gpu.c: products in tiles --- */
/* The convolutions of a class, in the order of their bits o * 4 + i * 2 + w of the mask. */
enum { TERMS_MOST = 4 };
struct term_list {
    int count, input[TERMS_MOST], weight[TERMS_MOST];
    unsigned sums[PLAN_RESULTS]; /* of each result: bit t for term t */
};
bool list_terms(const struct kernel_class *class, struct term_list *terms); /* false: there are more */

enum product_pass { PRODUCT_MATMUL, PRODUCT_FORWARD, PRODUCT_BACKWARD_DATA, PRODUCT_BACKWARD_WEIGHT };
/* Sizes of a product, see cl/product_gpu.cl: out [m,n] = A [m,k] B [k,n], `batch` times. A convolution forward or to
 * the data sums over k channels of each tap; a backward-weight has n channels for each tap. */
struct gpu_product {
    enum product_pass pass;
    int64_t batch, m, n, k, taps;
    bool a_along_k, b_along_k;   /* whether neighbours in memory are neighbours along k */
    int64_t terms[PLAN_RESULTS]; /* products that each result is the sum of; 0: there is no such result */
};
struct gpu_product gpu_product_conv(const struct kernel_class *class);
struct gpu_product gpu_product_matmul(const struct matmul_sizes *sizes);

/* One way to compute products. */
struct product_tile {
    short tile_m, tile_n;  /* of a work-group */
    short work_m, work_n;  /* sums of a work-item */
    short depth;           /* of a stripe along k */
    bool local_a, local_b; /* whether an operand passes through local memory; else items read it for themselves */
    bool ahead;            /* whether a stripe is asked for before the arithmetic of the one before it */
    short sub_group;       /* width to ask for; 0: the compiler's choice */
    unsigned classes;      /* of devices that choose it untuned */
};
const struct product_tile *gpu_tiles(int *count); /* all there are, larger ones first */
/* Whether the device can run it and the product be computed so; then the result is right. */
bool gpu_tile_fits(const struct kernel_target *target, const struct gpu_product *product,
                   const struct product_tile *tile);
/* The tile without wisdom; NULL where none fits. */
const struct product_tile *gpu_tile_choose(const struct kernel_target *target, const struct gpu_product *product);
/* In how many parts the longest sum is cut, shorter ones in parts of the same length: by sizes and the device alone. */
int64_t gpu_parts(const struct kernel_target *target, const struct gpu_product *product,
                  const struct product_tile *tile);
/* The launches with a tile that fits, in `parts` parts or fewer, at least 1. */
void gpu_plan_conv(const struct kernel_target *target, const struct kernel_class *class,
                   const struct product_tile *tile, int64_t parts, struct product_use *use);
/* Which layers of the operands the layers of a batch of products belong to: see LAYER in cl/product_gpu.cl. */
struct gpu_layers {
    int layers;
    unsigned a_terms, b_terms;
};
/* `layers` NULL: each layer of the result is the product of that layer of both operands. */
void gpu_plan_matmul(const struct kernel_target *target, const struct matmul_sizes *sizes,
                     const struct gpu_layers *layers, const struct product_tile *tile, int64_t parts,
                     struct product_use *use);
/* A tile and the parts of a sum as numbers of a choice: tile m and n, sums m and n of an item, depth, 1 + flags, 1 +
 * sub-group, parts. All 0: those without wisdom. */
enum { TILE_PARTS = 7, TILE_NUMBERS };
/* The tile that the numbers ask for, where the product can be computed in it; else NULL. */
const struct product_tile *gpu_tile_asked(const struct kernel_target *target, const struct gpu_product *product,
                                          const int *numbers);
int64_t gpu_parts_asked(const struct kernel_target *target, const struct gpu_product *product,
                        const struct product_tile *tile, const int *numbers);
/* What all zeros stand for. */
void gpu_tile_own(const struct kernel_target *target, const struct gpu_product *product, int *numbers);
/* All tiles that fit, each with the parts that it has without wisdom; how many. */
int gpu_tile_candidates(const struct kernel_target *target, const struct gpu_product *product,
                        int list[][CHOICE_PARAMETERS], int most);

/* Parameters: TILE_NUMBERS. */
bool conv_product_fits(const struct kernel_target *target, const struct kernel_class *class, const int *numbers);
int conv_product_candidates(const struct kernel_target *target, const struct kernel_class *class,
                            int list[][CHOICE_PARAMETERS], int most);
void conv_product_own(const struct kernel_target *target, const struct kernel_class *class, int *numbers);
int conv_product_plan(const struct kernel_target *target, const struct kernel_class *class, const int *numbers,
                      struct kernel_plan *plan);
int matmul_gpu_plan(const struct kernel_target *target, const struct matmul_sizes *sizes, const int *numbers,
                    struct product_use *use);

/* --- kernels_winograd_gpu.c: staged Winograd F(4,3). Parameters: TILE_NUMBERS of the products, images of a
 * part at most. --- */
bool conv_staged_applies(const struct kernel_target *target, const struct kernel_class *class);
bool conv_staged_fits(const struct kernel_target *target, const struct kernel_class *class, const int *numbers);
int conv_staged_candidates(const struct kernel_target *target, const struct kernel_class *class,
                           int list[][CHOICE_PARAMETERS], int most);
void conv_staged_own(const struct kernel_target *target, const struct kernel_class *class, int *numbers);
int conv_staged_plan(const struct kernel_target *target, const struct kernel_class *class, const int *numbers,
                     struct kernel_plan *plan);

/* --- kernels_library.c: matrix products as calls of CLBlast --- */
int product_call_plan(const struct kernel_target *target, const struct kernel_class *class, const int *parameters,
                      struct kernel_plan *plan);

/* At least `items` work-items along x, in groups of 64 where the device allows it. There may be more than `items`: the
 * kernel must check its number. */
void kernel_use_launch_items(struct kernel_use *use, const struct kernel_target *target, int64_t items, int64_t y);

/* RETORT_EINVAL where family and lanes do not go together. */
int kernels_check_target(const struct kernel_target *target);
/* Kernels index a tensor with int: its elements, counted with the padding to whole blocks, must fit. RETORT_EINVAL
 * where a size is not positive, RETORT_ELIMIT where there are too many. */
int kernels_check_count(const char *what, int64_t a, int64_t b, int64_t c, int64_t d);

#endif
