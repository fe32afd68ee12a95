/* The GPU family: the convolution triad and the matrix product as one tiled product (cl/product_gpu.cl), and which
 * tiles it is computed in. */
#include "compile/kernels_family.h"

#include "base/error.h"

#include <string.h>

/* Classes of devices that like the same tiles, told apart by what a device says it can do. What an item can hold
 * follows from its registers: 64 sums and their operands want 128 of them, 32 sums 64. */
enum {
    WIDE = 1 << 0,      /* items run by 32 in step, with up to 255 registers each */
    WIDE_64 = 1 << 1,   /* by 64: as many registers, but they are shared by fewer items */
    NARROW_8 = 1 << 2,  /* the compiler may be asked for 8 in step, with 128 registers each, or for 16 with 64 */
    NARROW_16 = 1 << 3, /* for 16 at least, with 128 registers each; it spills at 32, which it prefers */
    UNKNOWN = 1 << 4,
    CPU = 1 << 5, /* groups run one after another on a processor: barriers move an item's sums to memory and back */
    GPUS = WIDE | WIDE_64 | NARROW_8 | NARROW_16 | UNKNOWN,
};

/* The first that fits and fills the device is chosen, so larger ones come first. Those without a class are for tuning,
 * the last one is there for products that nothing else fits. */
static const struct product_tile tiles[] = {
    /* tile, sums of an item, depth; A, B through local memory; ahead; sub-group; classes */
    {128, 128, 8, 8, 8, true, true, true, 0, WIDE | NARROW_16},
    {128, 64, 8, 8, 8, true, true, true, 0, WIDE},
    {64, 64, 8, 4, 8, true, true, true, 0, WIDE | WIDE_64 | NARROW_16 | UNKNOWN},
    {64, 64, 4, 8, 8, true, true, true, 0, NARROW_8},
    {64, 32, 4, 4, 16, true, true, true, 0, GPUS},
    {32, 64, 4, 4, 16, true, true, true, 0, GPUS},
    {32, 32, 4, 4, 16, true, true, true, 0, GPUS},
    {32, 32, 4, 4, 8, true, true, true, 0, GPUS},
    {64, 16, 4, 4, 16, true, true, true, 0, GPUS},
    {16, 16, 2, 2, 16, true, true, true, 0, GPUS},
    /* first layers: nothing to share */
    {16, 256, 16, 4, 4, false, false, false, 0, WIDE | WIDE_64},
    {8, 256, 8, 4, 4, false, false, false, 0, NARROW_8 | NARROW_16 | UNKNOWN},
    {4, 256, 4, 4, 8, false, false, false, 0, GPUS},
    {64, 128, 8, 8, 8, true, true, true, 0, 0},
    {64, 64, 8, 8, 8, true, true, true, 0, 0},
    {64, 64, 8, 4, 16, true, true, true, 0, 0},
    {128, 64, 8, 8, 8, true, true, true, 8, 0},
    {64, 64, 4, 8, 8, true, true, true, 16, 0},
    {64, 64, 8, 4, 8, false, true, true, 0, 0},
    {64, 64, 4, 8, 8, false, false, false, 0, 0},
    {4, 8, 4, 8, 4, true, true, false, 0, CPU},
    {4, 4, 4, 4, 4, true, true, false, 0, 0},
};
enum { TILES = sizeof tiles / sizeof *tiles };

const struct product_tile *gpu_tiles(int *count) {
    *count = TILES;
    return tiles;
}

/* --- what is to be computed --- */
bool list_terms(const struct kernel_class *class, struct term_list *terms) {
    const struct conv_terms *t = &class->terms;
    *terms = (struct term_list){0};
    if (class->pass == CONV_BACKWARD_WEIGHT) {
        terms->count = t->inputs;
        for (int k = 0; k < t->inputs; k++) {
            terms->input[k] = terms->weight[k] = k;
            terms->sums[0] |= 1u << k;
        }
        return true;
    }
    for (int bit = 0; bit < 8; bit++) {
        if (!(t->mask >> bit & 1)) continue;
        if (terms->count == TERMS_MOST) return false;
        terms->input[terms->count] = bit >> 1 & 1;
        terms->weight[terms->count] = bit & 1;
        terms->sums[bit >> 2] |= 1u << terms->count++;
    }
    return true;
}

struct gpu_product gpu_product_conv(const struct kernel_class *class) {
    const struct conv_sizes *s = &class->sizes;
    struct gpu_product p = {.batch = 1, .taps = s->kh * s->kw};
    struct term_list terms;
    list_terms(class, &terms);
    for (int r = 0; r < PLAN_RESULTS; r++) p.terms[r] = __builtin_popcount(terms.sums[r]);
    switch (class->pass) {
    case CONV_FORWARD:
        p.pass = PRODUCT_FORWARD, p.m = s->o, p.n = s->n * s->oh * s->ow, p.k = s->c;
        break;
    case CONV_BACKWARD_DATA:
        p.pass = PRODUCT_BACKWARD_DATA, p.m = s->c, p.n = s->n * s->h * s->w, p.k = s->o;
        break;
    case CONV_BACKWARD_WEIGHT:
        p.pass = PRODUCT_BACKWARD_WEIGHT, p.m = s->o, p.n = s->c, p.k = s->n * s->oh * s->ow;
        p.a_along_k = p.b_along_k = true;
        break;
    }
    return p;
}

struct gpu_product gpu_product_matmul(const struct matmul_sizes *s) {
    return (struct gpu_product){PRODUCT_MATMUL, s->batch, s->m, s->n, s->k, 1, !s->transpose_a, s->transpose_b, {1}};
}

static bool is_packed(const struct gpu_product *p) {
    return p->pass == PRODUCT_FORWARD || p->pass == PRODUCT_BACKWARD_DATA;
}

/* How a product lies in tiles. */
struct layout_of_tiles {
    int64_t items, depth;
    int64_t rows, columns; /* of tiles in a sheet */
    int64_t sheets;        /* a backward-weight's taps side by side, or 1: all taps' channels in one row */
    int64_t width;         /* columns of a sheet */
    int64_t stripes;       /* of a term of a sum */
};

static struct layout_of_tiles lay(const struct gpu_product *p, const struct product_tile *tile) {
    struct layout_of_tiles l = {.items = (int64_t)(tile->tile_m / tile->work_m) * (tile->tile_n / tile->work_n),
                                .depth = tile->depth,
                                .rows = divide_up(p->m, tile->tile_m),
                                .columns = divide_up(p->n, tile->tile_n),
                                .sheets = 1,
                                .width = p->n};
    /* What nobody shares need not be cut to a width that divides well. */
    if (!tile->local_a && !tile->local_b) l.depth = min_of(l.depth, p->k);
    if (p->pass == PRODUCT_BACKWARD_WEIGHT) {
        int64_t together = divide_up(p->n * p->taps, tile->tile_n);
        if (l.columns * p->taps <= together)
            l.sheets = p->taps;
        else {
            l.columns = together;
            l.width = p->n * p->taps;
        }
    }
    l.stripes = divide_up(p->k, l.depth) * (is_packed(p) ? p->taps : 1);
    return l;
}

static int64_t packed_floats(const struct gpu_product *p, const struct product_tile *tile) {
    return p->taps * round_up(p->k, lay(p, tile).depth) * round_up(p->m, tile->tile_m);
}

bool gpu_tile_fits(const struct kernel_target *target, const struct gpu_product *p, const struct product_tile *tile) {
    enum { LOCAL_MOST = 32768 }; /* what every device has */
    const struct device_traits *traits = target->traits;
    int64_t items = lay(p, tile).items;
    int64_t bytes = 4
                    * ((tile->local_a ? tile->depth * (tile->tile_m + 4) : 4)
                       + (tile->local_b ? tile->depth * (tile->tile_n + 4) : 4));
    if ((uint64_t)items > traits->max_work_group || bytes > LOCAL_MOST || (uint64_t)bytes > traits->local_memory)
        return false;
    if (tile->sub_group && (!(traits->sub_groups & (unsigned)tile->sub_group) || items % tile->sub_group)) return false;
    if (is_packed(p) && packed_floats(p, tile) > INT32_MAX) return false;
    /* Items bring equal numbers of a stripe, of packed weights by four. What lies along k is not read by item. */
    if (tile->local_a ? tile->depth * tile->tile_m % (items * (is_packed(p) ? 4 : 1))
                      : p->a_along_k || (is_packed(p) && tile->work_m % 4))
        return false;
    return tile->local_b ? tile->depth * tile->tile_n % items == 0 : !p->b_along_k;
}

/* --- which tile --- */
static unsigned class_of(const struct device_traits *traits) {
    if (traits->kind == DEVICE_CPU) return CPU;
    if (traits->sub_groups & 8) return NARROW_8;
    if (traits->sub_groups & 16) return NARROW_16;
    return traits->wave == 32 ? WIDE : traits->wave == 64 ? WIDE_64 : UNKNOWN;
}

/* The width to ask for where neither tile nor compiler is to be trusted; 0: none. */
static int64_t sub_group(const struct kernel_target *target, const struct product_tile *tile, int64_t items) {
    unsigned class = class_of(target->traits);
    int64_t width = tile->sub_group ? tile->sub_group : class == NARROW_8 ? 8 : class == NARROW_16 ? 16 : 0;
    return width && items % width == 0 ? width : 0;
}

static int64_t count_tiles(const struct gpu_product *p, const struct layout_of_tiles *l) {
    return p->batch * l->rows * l->columns * l->sheets;
}

/* Stripes of all results, and of the one with the longest sum. */
static int64_t all_stripes(const struct gpu_product *p, const struct layout_of_tiles *l) {
    return l->stripes * (p->terms[0] + p->terms[1]);
}

static int64_t most_stripes(const struct gpu_product *p, const struct layout_of_tiles *l) {
    return l->stripes * max_of(p->terms[0], p->terms[1]);
}

/* Groups for the longest sums cut in so many parts, and others in parts as long. */
static int64_t count_groups(const struct gpu_product *p, const struct layout_of_tiles *l, int64_t parts) {
    int64_t stripes = divide_up(most_stripes(p, l), parts), all = 0;
    for (int r = 0; r < PLAN_RESULTS; r++) all += divide_up(p->terms[r] * l->stripes, stripes);
    return all * count_tiles(p, l);
}

/* Groups that fill the device: with many sums an item, one and a half items a lane hide the time that reading takes. A
 * processor runs one at a time. */
static int64_t groups_wanted(const struct kernel_target *target, const struct layout_of_tiles *l) {
    if (class_of(target->traits) == CPU) return target->traits->compute_units;
    return divide_up(3 * (int64_t)target->traits->lanes, 2 * l->items);
}

/* As many parts as fill the device, but none so short that adding the parts takes a good part of the time: each number
 * of a part is written and read once more, which is to be half as much as its group reads, at most. */
int64_t gpu_parts(const struct kernel_target *target, const struct gpu_product *p, const struct product_tile *tile) {
    enum { LEAST_SUM = 128, PARTS_MOST = 64 };
    struct layout_of_tiles l = lay(p, tile);
    int64_t longest = most_stripes(p, &l), sum = longest * l.depth, m = tile->tile_m, n = tile->tile_n;
    int64_t parts = divide_up(groups_wanted(target, &l) * longest, count_tiles(p, &l) * all_stripes(p, &l));
    parts = min_of(min_of(parts, PARTS_MOST), min_of(sum / LEAST_SUM, sum * (m + n) / (4 * m * n)));
    return divide_up(longest, divide_up(longest, max_of(parts, 1)));
}

/* Whether half of a tile, or more, would be padding. */
static bool is_mostly_empty(const struct gpu_product *p, const struct product_tile *tile) {
    struct layout_of_tiles l = lay(p, tile);
    return 2 * p->m <= tile->tile_m || 2 * l.width <= tile->tile_n || 2 * p->k <= l.depth;
}

const struct product_tile *gpu_tile_choose(const struct kernel_target *target, const struct gpu_product *p) {
    enum { FEW = 4 };
    unsigned class = class_of(target->traits);
    /* Of so few channels a stripe is not worth local memory, nor is sharing pixels among so few results. */
    bool first_layer = is_packed(p) && (p->k <= FEW || p->m <= FEW) && class != CPU;
    const struct product_tile *best = NULL, *some = NULL;
    int64_t most = 0;
    for (int i = 0; i < TILES; i++) {
        const struct product_tile *tile = &tiles[i];
        if (!gpu_tile_fits(target, p, tile)) continue;
        if (i == TILES - 1 && !some) return tile;
        if (!(tile->classes & class) || first_layer == (tile->local_a || tile->local_b)) continue;
        some = tile;
        if (is_mostly_empty(p, tile)) continue;
        struct layout_of_tiles l = lay(p, tile);
        int64_t groups = count_groups(p, &l, gpu_parts(target, p, tile));
        if (groups >= groups_wanted(target, &l)) return tile;
        if (groups * l.items > most) {
            most = groups * l.items;
            best = tile;
        }
    }
    return best ? best : some;
}

/* --- launches --- */
/* The sum of the parts of a result. A backward-weight's lie tap by tap, which readers cannot add. */
static void plan_finish(const struct kernel_target *target, const struct gpu_product *p, int64_t result, int64_t parts,
                        struct product_finish *finish) {
    bool weight = p->pass == PRODUCT_BACKWARD_WEIGHT;
    finish->work_floats = (size_t)(parts * result);
    finish->parts = weight ? 0 : (int)parts;
    kernel_use_begin(&finish->use, "sum_parts_gpu.cl");
    kernel_use_define(&finish->use, "COUNT", result);
    kernel_use_define(&finish->use, "PARTS", parts);
    kernel_use_define(&finish->use, "TAPS", weight ? p->taps : 1);
    kernel_use_launch_items(&finish->use, target, result, 1);
}

static void plan(const struct kernel_target *target, const struct gpu_product *p, const struct product_tile *tile,
                 int64_t parts, struct product_use *use) {
    struct kernel_use *main = &use->main;
    struct layout_of_tiles l = lay(p, tile);
    int64_t stripes = divide_up(most_stripes(p, &l), parts), result = p->batch * p->m * l.width * l.sheets, all = 0;
    bool weight = p->pass == PRODUCT_BACKWARD_WEIGHT;
    for (int r = 0; r < PLAN_RESULTS; r++) {
        parts = divide_up(p->terms[r] * l.stripes, stripes);
        all += parts;
        if (parts > 1) plan_finish(target, p, result, parts, &use->finish[r]);
    }
    kernel_use_begin(main, "product_gpu.cl");
    kernel_use_define(main, "MATMUL", p->pass == PRODUCT_MATMUL);
    kernel_use_define(main, "FORWARD", p->pass == PRODUCT_FORWARD);
    kernel_use_define(main, "BACKWARD_DATA", p->pass == PRODUCT_BACKWARD_DATA);
    kernel_use_define(main, "BACKWARD_WEIGHT", weight);
    kernel_use_define(main, "M", p->m);
    kernel_use_define(main, "N", l.width);
    kernel_use_define(main, "K", p->k);
    kernel_use_define(main, "BATCH", p->batch);
    kernel_use_define(main, "TERMS_0", p->terms[0]);
    kernel_use_define(main, "TERMS_1", p->terms[1]);
    kernel_use_define(main, "PARTS_0", divide_up(p->terms[0] * l.stripes, stripes));
    kernel_use_define(main, "STRIPES_A_PART", stripes);
    kernel_use_define(main, "SHEETS", l.sheets);
    kernel_use_define(main, "TILES_N", l.columns);
    kernel_use_define(main, "A_ALONG_K", p->a_along_k);
    kernel_use_define(main, "B_ALONG_K", p->b_along_k);
    kernel_use_define(main, "TILE_M", tile->tile_m);
    kernel_use_define(main, "TILE_N", tile->tile_n);
    kernel_use_define(main, "WORK_M", tile->work_m);
    kernel_use_define(main, "WORK_N", tile->work_n);
    kernel_use_define(main, "DEPTH", l.depth);
    kernel_use_define(main, "LOCAL_A", tile->local_a);
    kernel_use_define(main, "LOCAL_B", tile->local_b);
    kernel_use_define(main, "AHEAD", tile->ahead);
    int64_t width = sub_group(target, tile, l.items);
    if (width) kernel_use_define(main, "SUB_GROUP", width);
    kernel_use_launch(main, (size_t)(l.columns * l.sheets * l.items), (size_t)l.rows, (size_t)(p->batch * all),
                      (size_t)l.items, 1, 1);
}

static void pack_weights(const struct kernel_target *target, const struct gpu_product *p,
                         const struct product_tile *tile, struct product_use *use) {
    bool forward = p->pass == PRODUCT_FORWARD;
    int64_t rows = round_up(p->k, lay(p, tile).depth), pitch = round_up(p->m, tile->tile_m);
    use->packed_floats = (size_t)packed_floats(p, tile);
    kernel_use_begin(&use->pack, "pack_gpu.cl");
    kernel_use_define(&use->pack, "TAPS", p->taps);
    kernel_use_define(&use->pack, "ROWS", rows);
    kernel_use_define(&use->pack, "PITCH", pitch);
    kernel_use_define(&use->pack, "K", p->k);
    kernel_use_define(&use->pack, "M", p->m);
    kernel_use_define(&use->pack, "K_STEP", forward ? p->taps : p->m * p->taps);
    kernel_use_define(&use->pack, "M_STEP", forward ? p->k * p->taps : p->taps);
    kernel_use_launch_items(&use->pack, target, pitch, rows);
}

/* Which operands the convolutions take that the results are sums of. */
static void define_terms(const struct kernel_class *class, struct kernel_use *main) {
    struct term_list terms;
    unsigned inputs = 0, weights = 0;
    list_terms(class, &terms);
    for (int r = 0; r < PLAN_RESULTS; r++)
        for (int t = 0, bit = 2 * r; t < terms.count; t++)
            if (terms.sums[r] >> t & 1) {
                inputs |= (unsigned)terms.input[t] << bit;
                weights |= (unsigned)terms.weight[t] << bit++;
            }
    kernel_use_define(main, "OUTPUTS", class->terms.outputs);
    kernel_use_define(main, "INPUTS", class->terms.inputs);
    kernel_use_define(main, "WEIGHTS", class->terms.weights);
    kernel_use_define(main, "A_TERMS", weights);
    kernel_use_define(main, "B_TERMS", inputs);
}

void gpu_plan_conv(const struct kernel_target *target, const struct kernel_class *class,
                   const struct product_tile *tile, int64_t parts, struct product_use *use) {
    const struct conv_sizes *sizes = &class->sizes;
    struct gpu_product p = gpu_product_conv(class);
    plan(target, &p, tile, parts, use);
    define_terms(class, &use->main);
    if (is_packed(&p)) pack_weights(target, &p, tile, use);
    int64_t plane = class->pass == CONV_FORWARD ? sizes->oh * sizes->ow : sizes->h * sizes->w;
    bool weight = class->pass == CONV_BACKWARD_WEIGHT;
    kernel_use_define(&use->main, "RESULT", weight ? sizes->o * sizes->c * p.taps : p.m * p.n);
    kernel_use_define(&use->main, "ROW_LENGTH", !weight ? plane : use->finish[0].use.file ? sizes->c : 1);
    kernel_use_define(&use->main, "PLANE", plane);
    kernel_use_define(&use->main, "TAPS", p.taps);
    kernel_use_define(&use->main, "CHANNELS", sizes->c);
    kernel_use_define(&use->main, "IN_H", sizes->h);
    kernel_use_define(&use->main, "IN_W", sizes->w);
    kernel_use_define(&use->main, "OUT_H", sizes->oh);
    kernel_use_define(&use->main, "OUT_W", sizes->ow);
    kernel_use_define(&use->main, "KERNEL_H", sizes->kh);
    kernel_use_define(&use->main, "KERNEL_W", sizes->kw);
    kernel_use_define(&use->main, "STRIDE", sizes->stride);
    kernel_use_define(&use->main, "PADDING", sizes->padding);
}

void gpu_plan_matmul(const struct kernel_target *target, const struct matmul_sizes *sizes,
                     const struct gpu_layers *layers, const struct product_tile *tile, int64_t parts,
                     struct product_use *use) {
    struct gpu_product p = gpu_product_matmul(sizes);
    plan(target, &p, tile, parts, use);
    kernel_use_define(&use->main, "RESULT", p.m * p.n);
    kernel_use_define(&use->main, "ROW_LENGTH", p.n);
    kernel_use_define(&use->main, "OUTPUTS", 1);
    kernel_use_define(&use->main, "INPUTS", 1);
    kernel_use_define(&use->main, "WEIGHTS", 1);
    kernel_use_define(&use->main, "LAYERS", layers ? layers->layers : sizes->batch);
    kernel_use_define(&use->main, "A_TERMS", layers ? layers->a_terms : 0);
    kernel_use_define(&use->main, "B_TERMS", layers ? layers->b_terms : 0);
}

/* --- as a row of the kernel choice --- */
enum { FLAG_LOCAL_A = 1, FLAG_LOCAL_B = 2, FLAG_AHEAD = 4 };

static void describe_tile(const struct product_tile *tile, int64_t parts, int *numbers) {
    int flags = tile->local_a * FLAG_LOCAL_A + tile->local_b * FLAG_LOCAL_B + tile->ahead * FLAG_AHEAD;
    const int all[TILE_NUMBERS] = {tile->tile_m, tile->tile_n, tile->work_m,        tile->work_n,
                                   tile->depth,  1 + flags,    1 + tile->sub_group, (int)parts};
    memcpy(numbers, all, sizeof all);
}

const struct product_tile *gpu_tile_asked(const struct kernel_target *target, const struct gpu_product *p,
                                          const int *numbers) {
    if (!numbers[0]) return gpu_tile_choose(target, p);
    for (int i = 0; i < TILES; i++) {
        int own[TILE_NUMBERS];
        describe_tile(&tiles[i], numbers[TILE_PARTS], own);
        if (memcmp(own, numbers, sizeof own) == 0) return gpu_tile_fits(target, p, &tiles[i]) ? &tiles[i] : NULL;
    }
    return NULL;
}

int64_t gpu_parts_asked(const struct kernel_target *target, const struct gpu_product *p,
                        const struct product_tile *tile, const int *numbers) {
    return numbers[0] ? numbers[TILE_PARTS] : gpu_parts(target, p, tile);
}

int gpu_tile_candidates(const struct kernel_target *target, const struct gpu_product *p, int list[][CHOICE_PARAMETERS],
                        int most) {
    int count = 0;
    for (int i = 0; i < TILES && count < most; i++)
        if (gpu_tile_fits(target, p, &tiles[i]))
            describe_tile(&tiles[i], gpu_parts(target, p, &tiles[i]), list[count++]);
    return count;
}

void gpu_tile_own(const struct kernel_target *target, const struct gpu_product *p, int *numbers) {
    const struct product_tile *tile = gpu_tile_choose(target, p);
    if (tile) describe_tile(tile, gpu_parts(target, p, tile), numbers);
}

void conv_product_own(const struct kernel_target *target, const struct kernel_class *class, int *numbers) {
    const struct gpu_product p = gpu_product_conv(class);
    gpu_tile_own(target, &p, numbers);
}

bool conv_product_fits(const struct kernel_target *target, const struct kernel_class *class, const int *numbers) {
    enum { MOST = 2 }; /* terms of a result */
    struct term_list terms;
    const struct gpu_product p = gpu_product_conv(class);
    return list_terms(class, &terms) && max_of(p.terms[0], p.terms[1]) <= MOST
           && gpu_tile_asked(target, &p, numbers) != NULL;
}

int conv_product_candidates(const struct kernel_target *target, const struct kernel_class *class,
                            int list[][CHOICE_PARAMETERS], int most) {
    const struct gpu_product p = gpu_product_conv(class);
    return gpu_tile_candidates(target, &p, list, most);
}

int conv_product_plan(const struct kernel_target *target, const struct kernel_class *class, const int *numbers,
                      struct kernel_plan *plan) {
    const struct gpu_product p = gpu_product_conv(class);
    const struct product_tile *tile = gpu_tile_asked(target, &p, numbers);
    struct product_use use = {0};
    if (!tile) return error_set(RETORT_ELIMIT, "convolution weights with too many channels to be packed");
    gpu_plan_conv(target, class, tile, gpu_parts_asked(target, &p, tile, numbers), &use);
    kernels_plan_conv(&use, class, plan);
    return RETORT_OK;
}

int matmul_gpu_plan(const struct kernel_target *target, const struct matmul_sizes *sizes, const int *numbers,
                    struct product_use *use) {
    struct gpu_product p = gpu_product_matmul(sizes);
    const struct product_tile *tile = gpu_tile_asked(target, &p, numbers);
    if (!tile) return error_set(RETORT_EUNSUPPORTED, "this device has too little local memory for a matrix product");
    gpu_plan_matmul(target, sizes, NULL, tile, gpu_parts_asked(target, &p, tile, numbers), use);
    return RETORT_OK;
}
