/* The CPU family: register tiles, packing and work-items of the templates cl/NAME_cpu.cl. */
#include "compile/kernels_family.h"

#include "base/error.h"

#include <inttypes.h>
#include <string.h>

/* Accumulators of a register tile: what 32 (AVX-512) or 16 registers hold beside the operands. */
static int64_t tile_budget(const struct kernel_target *target) {
    return target->lanes == 16 ? 24 : 12;
}

/* --- convolution: forward, and backward-data as a forward pass with mirrored weights --- */

struct conv_task {
    int64_t n, in_channels, in_height, in_width, out_channels, out_height, out_width;
    int64_t kernel_height, kernel_width, stride, spread, pad_y, pad_x;
    bool in_blocked, out_blocked, mirrored;
};

struct tile {
    int64_t rows, columns, blocks;
};

/* Private memory of a work-item, in floats: how much is used without hesitation, and the hard limit. */
enum { PRIVATE_EASE = 1 << 14, PRIVATE_LIMIT = 1 << 18 };

/* Products that a sum runs over before it is added to its total. */
enum { SPAN_TERMS = 300 };

/* Input rows or columns under `outputs` of them, for a kernel of that extent. */
static int64_t under(const struct conv_task *task, int64_t outputs, int64_t kernel) {
    return (outputs - 1) * task->stride + kernel;
}

/* Floats of private memory for the input under so many outputs. */
static int64_t private_floats(const struct conv_task *task, int64_t rows, int64_t columns, int64_t depth) {
    return under(task, rows, task->kernel_height) * under(task, columns, task->kernel_width) * depth;
}

/* How a direct convolution is cut: `depth` is how many vectors a block of the tile stands for, `steps` those along the
 * input channels of a block, `in_depth` how many floats an input pixel. */
struct direct {
    bool plain, few;
    int64_t in_lanes, out_blocks, depth, steps, in_depth;
};

static struct direct cut_direct(const struct kernel_target *target, const struct conv_task *task) {
    int64_t v = target->lanes;
    bool plain = !task->in_blocked, few = !plain && !task->out_blocked && 2 * task->out_channels <= v;
    int64_t in_lanes = plain ? task->in_channels : few ? v : min_of(task->in_channels, v);
    return (struct direct){.plain = plain,
                           .few = few,
                           .in_lanes = in_lanes,
                           .out_blocks = divide_up(task->out_channels, v),
                           .depth = few ? task->out_channels : 1,
                           .steps = few ? 1 : in_lanes,
                           .in_depth = plain ? task->in_channels : v};
}

static bool tile_fits(const struct kernel_target *target, const struct conv_task *task, const struct direct *cut,
                      struct tile tile) {
    int64_t pixels = tile.rows * tile.columns;
    return tile.blocks <= min_of(cut->out_blocks, 3) && tile.rows <= min_of(task->out_height, 4)
           && tile.columns <= task->out_width && pixels * tile.blocks * cut->depth <= tile_budget(target)
           && (pixels == 1 || private_floats(task, tile.rows, tile.columns, cut->in_depth) <= PRIVATE_EASE);
}

/* The tiles that compute the whole image soonest by a simple count of instructions, the best first: FMAs, of which at
 * least eight must be independent to hide their latency, loads at a quarter of their price, for each of the steps along
 * the input channels of a block; and the copies of the input under the tile. Where conv_few_cpu.cl keeps a row's inputs
 * in registers from tap to tap, beside more than FEW_SUMS sums the compiler keeps neither. */
static int best_tiles(const struct kernel_target *target, const struct conv_task *task, const struct direct *cut,
                      struct tile *best, int most) {
    enum { MOST = 8, FEW_SUMS = 18 };
    double costs[MOST] = {0};
    int count = 1;
    int64_t taps = task->kernel_height * task->kernel_width, depth = cut->depth, steps = cut->steps;
    best[0] = (struct tile){1, 1, 1};
    for (int64_t blocks = 1; blocks <= min_of(cut->out_blocks, 3); blocks++)
        for (int64_t rows = 1; rows <= min_of(task->out_height, 4); rows++)
            for (int64_t columns = 1; columns <= task->out_width; columns++) {
                if (!tile_fits(target, task, cut, (struct tile){rows, columns, blocks})) break;
                double fmas = (double)max_of(rows * columns * blocks * depth, 10);
                double loads = (double)(rows * columns + blocks * depth);
                double tiles = (double)(divide_up(task->out_height, rows) * divide_up(task->out_width, columns)
                                        * divide_up(cut->out_blocks, blocks));
                double copies = (double)private_floats(task, rows, columns, 2);
                double cost = tiles * ((double)(steps * taps) * (fmas + 0.25 * loads) + copies);
                if (cut->few && rows * columns * depth > FEW_SUMS) cost *= 1.5;
                int at = costs[0] == 0 ? 0 : count;
                while (at > 0 && cost < costs[at - 1]) at--;
                if (at == min_of(most, MOST)) continue;
                if (costs[0] != 0 && count < min_of(most, MOST)) count++;
                for (int i = count - 1; i > at; i--) best[i] = best[i - 1], costs[i] = costs[i - 1];
                best[at] = (struct tile){rows, columns, blocks};
                costs[at] = cost;
            }
    return count;
}

/* Three templates: blocked input (conv_cpu.cl), blocked input to few channels (conv_few_cpu.cl), plain input
 * (conv_plain_cpu.cl). */
static int choose_conv(const struct kernel_target *target, const struct conv_task *task, const int *choice,
                       struct product_use *use) {
    int status = RETORT_OK;
    const struct direct cut = cut_direct(target, task);
    int64_t v = target->lanes, taps = task->kernel_height * task->kernel_width, in_lanes = cut.in_lanes;
    int64_t in_blocks = divide_up(task->in_channels, in_lanes), out_blocks = cut.out_blocks, in_depth = cut.in_depth;
    bool plain = cut.plain, few = cut.few;
    if (in_depth > PRIVATE_LIMIT || private_floats(task, 1, 1, in_depth) > PRIVATE_LIMIT)
        RAISE(RETORT_EUNSUPPORTED, "convolution kernel %" PRId64 "x%" PRId64 " on %" PRId64 " channels is too large",
              task->kernel_height, task->kernel_width, task->in_channels);
    struct tile tile = {choice[0], choice[1], choice[2]};
    if (!tile.rows) best_tiles(target, task, &cut, &tile, 1);
    int64_t groups = divide_up(out_blocks, tile.blocks), out_lanes = few ? task->out_channels : tile.blocks * v;
    use->packed_floats = (size_t)(groups * in_blocks * taps * in_lanes * out_lanes);

    /* Weights as they lie: [output][input][tap], backward-data's the other way round. */
    int64_t out_step = task->mirrored ? taps : task->in_channels * taps;
    int64_t in_step = task->mirrored ? task->out_channels * taps : taps;
    kernel_use_begin(&use->pack, "conv_pack_cpu.cl");
    kernel_use_define(&use->pack, "MIRRORED", task->mirrored);
    kernel_use_define(&use->pack, "TAPS", taps);
    kernel_use_define(&use->pack, "INNER_CHANNELS", few ? task->in_channels : task->out_channels);
    kernel_use_define(&use->pack, "INNER_LANES", few ? in_lanes : out_lanes);
    kernel_use_define(&use->pack, "INNER_STEP", few ? in_step : out_step);
    kernel_use_define(&use->pack, "OUTER_CHANNELS", few ? task->out_channels : task->in_channels);
    kernel_use_define(&use->pack, "OUTER_LANES", few ? out_lanes : in_lanes);
    kernel_use_define(&use->pack, "OUTER_STEP", few ? out_step : in_step);
    kernel_use_launch(&use->pack, few ? 1 : (size_t)in_blocks, (size_t)(few ? in_blocks : groups), 1, 1, 1, 1);

    /* Rows to a work-item: whole images where there are enough of them, for the weights are read once an item. */
    int64_t tile_rows = divide_up(task->out_height, tile.rows);
    int64_t bands = min_of(tile_rows, divide_up(256, task->n * groups));
    int64_t band = divide_up(tile_rows, bands) * tile.rows;

    kernel_use_begin(&use->main, plain ? "conv_plain_cpu.cl" : few ? "conv_few_cpu.cl" : "conv_cpu.cl");
    kernel_use_define(&use->main, "IN_HEIGHT", task->in_height);
    kernel_use_define(&use->main, "IN_WIDTH", task->in_width);
    kernel_use_define(&use->main, "OUT_CHANNELS", task->out_channels);
    kernel_use_define(&use->main, "OUT_HEIGHT", task->out_height);
    kernel_use_define(&use->main, "OUT_WIDTH", task->out_width);
    kernel_use_define(&use->main, "KERNEL_HEIGHT", task->kernel_height);
    kernel_use_define(&use->main, "KERNEL_WIDTH", task->kernel_width);
    kernel_use_define(&use->main, "STRIDE", task->stride);
    kernel_use_define(&use->main, "SPREAD", task->spread);
    kernel_use_define(&use->main, "PAD_Y", task->pad_y);
    kernel_use_define(&use->main, "PAD_X", task->pad_x);
    kernel_use_define(&use->main, "TILE_ROWS", tile.rows);
    kernel_use_define(&use->main, "TILE_COLUMNS", tile.columns);
    kernel_use_define(&use->main, "BAND", band);
    if (!few) {
        kernel_use_define(&use->main, "OUT_BLOCKED", task->out_blocked);
        kernel_use_define(&use->main, "TILE_BLOCKS", tile.blocks);
    }
    if (plain) {
        /* A strip is as many tiles wide as private memory holds at little cost. */
        int64_t tiles = 1;
        while (tiles < divide_up(task->out_width, tile.columns)
               && private_floats(task, tile.rows, (tiles + 1) * tile.columns, in_depth) <= PRIVATE_EASE)
            tiles++;
        kernel_use_define(&use->main, "IN_CHANNELS", task->in_channels);
        kernel_use_define(&use->main, "SEGMENT", tiles * tile.columns);
    } else {
        kernel_use_define(&use->main, "IN_BLOCKS", in_blocks);
        if (!few) {
            kernel_use_define(&use->main, "IN_LANES", in_lanes);
            kernel_use_define(&use->main, "SPAN", max_of(1, SPAN_TERMS / (taps * in_lanes)));
        }
    }
    kernel_use_launch(&use->main, (size_t)divide_up(task->out_height, band), (size_t)groups, (size_t)task->n, 1, 1, 1);
done:
    return status;
}

/* A forward pass from x to y, or one with mirrored weights from y to x. */
static struct conv_task task_of(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *s) {
    enum layout x = kernels_conv_layout(target, s->c), y = kernels_conv_layout(target, s->o);
    if (pass == CONV_FORWARD)
        return (struct conv_task){
            .n = s->n,
            .in_channels = s->c,
            .in_height = s->h,
            .in_width = s->w,
            .in_blocked = x == LAYOUT_BLOCKED,
            .out_channels = s->o,
            .out_height = s->oh,
            .out_width = s->ow,
            .out_blocked = y == LAYOUT_BLOCKED,
            .kernel_height = s->kh,
            .kernel_width = s->kw,
            .stride = s->stride,
            .spread = 1,
            .pad_y = s->padding,
            .pad_x = s->padding,
            .mirrored = false,
        };
    return (struct conv_task){
        .n = s->n,
        .in_channels = s->o,
        .in_height = s->oh,
        .in_width = s->ow,
        .in_blocked = y == LAYOUT_BLOCKED,
        .out_channels = s->c,
        .out_height = s->h,
        .out_width = s->w,
        .out_blocked = x == LAYOUT_BLOCKED,
        .kernel_height = s->kh,
        .kernel_width = s->kw,
        .stride = 1,
        .spread = s->stride,
        .pad_y = s->kh - 1 - s->padding,
        .pad_x = s->kw - 1 - s->padding,
        .mirrored = true,
    };
}

bool conv_direct_fits(const struct kernel_target *target, const struct kernel_class *class, const int *tile) {
    if (!tile[0]) return true;
    if (class->pass == CONV_BACKWARD_WEIGHT) return false;
    const struct conv_task task = task_of(target, class->pass, &class->sizes);
    const struct direct cut = cut_direct(target, &task);
    return tile_fits(target, &task, &cut, (struct tile){tile[0], tile[1], tile[2]});
}

int conv_direct_candidates(const struct kernel_target *target, const struct kernel_class *class,
                           int list[][CHOICE_PARAMETERS], int most) {
    enum { BEST = 8 };
    struct tile best[BEST];
    if (class->pass == CONV_BACKWARD_WEIGHT) return 0;
    const struct conv_task task = task_of(target, class->pass, &class->sizes);
    const struct direct cut = cut_direct(target, &task);
    int count = best_tiles(target, &task, &cut, best, (int)min_of(most, BEST));
    for (int i = 0; i < count; i++) {
        list[i][0] = (int)best[i].rows;
        list[i][1] = (int)best[i].columns;
        list[i][2] = (int)best[i].blocks;
    }
    return count;
}

void conv_direct_own(const struct kernel_target *target, const struct kernel_class *class, int *numbers) {
    int best[1][CHOICE_PARAMETERS] = {{0}};
    conv_direct_candidates(target, class, best, 1);
    memcpy(numbers, best[0], sizeof best[0]);
}

/* --- backward-weight --- */

/* CHUNK_PIXELS: what the taps or tiles of an item pass in turn while it is in the first cache. */
enum { SPLIT_ITEMS = 128, CHUNK_PIXELS = 256, CACHE_PIXELS = 4096, SEGMENT = 64, SUM_SHARE = 1024 };

/* Into how many parts the images are split: as many as give SPLIT_ITEMS work-items, while writing and adding the parts
 * stays small beside the products. This depends on the sizes alone, not on the number of cores, so that the order of
 * summation, and with it the rounding, is the same on every machine. */
static int64_t choose_splits(const struct kernel_target *target, const struct conv_sizes *s, int64_t items) {
    int64_t worth = s->n * s->oh * s->ow / (80 * target->lanes);
    return max_of(1, min_of(min_of(s->n, worth), divide_up(SPLIT_ITEMS, items)));
}

void kernels_cpu_sum(int64_t count, int64_t splits, struct product_use *use) {
    if (splits == 1) return;
    struct kernel_use *sum = &use->finish[0].use;
    use->finish[0].work_floats = (size_t)(splits * count);
    kernel_use_begin(sum, "sum_cpu.cl");
    kernel_use_define(sum, "COUNT", count);
    kernel_use_define(sum, "PARTS", splits);
    kernel_use_define(sum, "SHARE", SUM_SHARE);
    kernel_use_launch(sum, (size_t)divide_up(count, SUM_SHARE), 1, 1, 1, 1, 1);
}

static void plan_backward_weight(const struct kernel_target *target, const struct conv_sizes *s,
                                 struct product_use *use) {
    bool blocked = kernels_conv_layout(target, s->c) == LAYOUT_BLOCKED;
    int64_t v = target->lanes, out_blocks = divide_up(s->o, v), taps = s->kh * s->kw;
    int64_t tile_blocks = v < 16 && out_blocks % 3 == 0 ? 3 : min_of(out_blocks, 2);
    int64_t out_groups = divide_up(out_blocks, tile_blocks), in_items; /* work-items along channels and taps */
    int64_t tile_channels = 0, item_channels = 0, tile_lines = 0, item_tiles = 0, tile_taps;
    int64_t rows = min_of(s->oh, max_of(1, CHUNK_PIXELS / s->ow)), segment = min_of(s->ow, SEGMENT);
    if (blocked) {
        tile_channels = min_of(v, v == 16 ? 16 / tile_blocks : tile_blocks == 1 ? 8 : 4);
        /* Where the images overflow the cache, an item takes all channels of a block while it has their rows. */
        item_channels = s->n * s->oh * s->ow > CACHE_PIXELS ? v : tile_channels;
        int64_t in_groups = divide_up(s->c, item_channels);
        /* All taps of a small kernel share what a work-item reads; but enough work-items to fill the device come first.
         */
        tile_taps = taps <= 25 ? taps : min_of(s->kw, 25);
        while (tile_taps > 1
               && divide_up(taps, tile_taps) * in_groups * out_groups * choose_splits(target, s, in_groups * out_groups)
                      < SPLIT_ITEMS / 8)
            tile_taps = tile_taps > s->kw ? s->kw : 1;
        in_items = in_groups * divide_up(taps, tile_taps);
    } else {
        int64_t sums = v == 16 ? 20 / tile_blocks : 12 / tile_blocks;
        tile_taps = min_of(s->kw, sums);
        tile_lines = max_of(1, min_of(sums / tile_taps, s->c * s->kh));
        int64_t tiles = divide_up(s->c * s->kh, tile_lines) * divide_up(s->kw, tile_taps);
        item_tiles = min_of(tiles, max_of(1, PRIVATE_EASE / (tile_lines * tile_taps * tile_blocks * v)));
        in_items = divide_up(tiles, item_tiles);
        /* The strip of input is kept in private memory: shorter where strides are long. */
        while (s->c * ((rows - 1) * s->stride + s->kh) * (segment * s->stride + s->kw) > PRIVATE_EASE / 2
               && (segment > 1 || rows > 1))
            segment > 1 ? segment-- : rows--;
    }
    int64_t splits = choose_splits(target, s, in_items * out_groups);
    int64_t images = divide_up(s->n, splits), count = s->o * s->c * taps;
    splits = divide_up(s->n, images);

    kernel_use_begin(&use->main, blocked ? "conv_weight_cpu.cl" : "conv_weight_plain_cpu.cl");
    kernel_use_define(&use->main, "N", s->n);
    kernel_use_define(&use->main, "IMAGES", images);
    kernel_use_define(&use->main, "IN_CHANNELS", s->c);
    kernel_use_define(&use->main, "IN_HEIGHT", s->h);
    kernel_use_define(&use->main, "IN_WIDTH", s->w);
    kernel_use_define(&use->main, "OUT_CHANNELS", s->o);
    kernel_use_define(&use->main, "OUT_HEIGHT", s->oh);
    kernel_use_define(&use->main, "OUT_WIDTH", s->ow);
    kernel_use_define(&use->main, "OUT_BLOCKED", kernels_conv_layout(target, s->o) == LAYOUT_BLOCKED);
    kernel_use_define(&use->main, "KERNEL_HEIGHT", s->kh);
    kernel_use_define(&use->main, "KERNEL_WIDTH", s->kw);
    kernel_use_define(&use->main, "STRIDE", s->stride);
    kernel_use_define(&use->main, "PADDING", s->padding);
    kernel_use_define(&use->main, "ROWS", rows);
    kernel_use_define(&use->main, "TILE_BLOCKS", tile_blocks);
    kernel_use_define(&use->main, "TILE_TAPS", tile_taps);
    if (blocked) {
        kernel_use_define(&use->main, "TILE_CHANNELS", tile_channels);
        kernel_use_define(&use->main, "ITEM_CHANNELS", item_channels);
    } else {
        kernel_use_define(&use->main, "TILE_LINES", tile_lines);
        kernel_use_define(&use->main, "ITEM_TILES", item_tiles);
        kernel_use_define(&use->main, "SEGMENT", segment);
    }
    kernel_use_launch(&use->main, (size_t)in_items, (size_t)out_groups, (size_t)splits, 1, 1, 1);
    kernels_cpu_sum(count, splits, use);
}

int conv_direct_plan(const struct kernel_target *target, const struct kernel_class *class, const int *tile,
                     struct kernel_plan *plan) {
    int status = RETORT_OK;
    struct product_use use = {0};
    if (class->pass == CONV_BACKWARD_WEIGHT)
        plan_backward_weight(target, &class->sizes, &use);
    else {
        const struct conv_task task = task_of(target, class->pass, &class->sizes);
        TRY(choose_conv(target, &task, tile, &use));
    }
    kernels_plan_conv(&use, class, plan);
done:
    return status;
}

/* --- matrix product --- */

/* c [m,n] = a x b with strides; a's and c's are free, b's along n is 1 where it is to be read as it lies. */
struct product {
    int64_t batch, m, n, k, a_row, a_column, b_row, b_column, c_row, c_column;
    bool swapped; /* computed as c^T = b^T x a^T: a and b change places */
};

enum { MATMUL_SPAN = 256, DOT_SPAN = 4096, PACK_SHARE = 16, DIRECT_LIMIT = 1 << 16, MATMUL_ITEMS = 256 };

/* Rows to a work-item: as many as leave MATMUL_ITEMS of them. */
static int64_t choose_band(int64_t rows, int64_t tile_rows, int64_t others) {
    int64_t tiles = divide_up(rows, tile_rows), bands = min_of(tiles, divide_up(MATMUL_ITEMS, others));
    return divide_up(tiles, bands) * tile_rows;
}

static void choose_dot(const struct kernel_target *target, const struct product *p, struct product_use *use) {
    int64_t most = target->lanes == 16 ? 20 : 8, tile_columns = divide_up(p->n, divide_up(p->n, 5));
    int64_t tile_rows = min_of(p->m, min_of(4, most / tile_columns)), band = choose_band(p->m, tile_rows, p->batch);
    kernel_use_begin(&use->main, "matmul_dot_cpu.cl");
    kernel_use_define(&use->main, "M", p->m);
    kernel_use_define(&use->main, "N", p->n);
    kernel_use_define(&use->main, "K", p->k);
    kernel_use_define(&use->main, "TILE_ROWS", tile_rows);
    kernel_use_define(&use->main, "TILE_COLUMNS", tile_columns);
    kernel_use_define(&use->main, "SPAN", DOT_SPAN);
    kernel_use_define(&use->main, "BAND", band);
    kernel_use_launch(&use->main, (size_t)divide_up(p->m, band), (size_t)p->batch, 1, 1, 1, 1);
}

static int choose_product(const struct kernel_target *target, const struct product *p, struct product_use *use) {
    int status = RETORT_OK;
    int64_t v = target->lanes, blocks = divide_up(p->n, v), tile_blocks = min_of(blocks, 2);
    int64_t most = v == 16 ? 16 / tile_blocks : 12 / tile_blocks;
    int64_t tile_rows = divide_up(p->m, divide_up(p->m, most)); /* equal tiles: 10 rows are two of 5, not 8 and 2 */
    int64_t panel = tile_blocks * v, panels = divide_up(p->n, panel);
    /* b as it lies serves where its rows are at least a vector long, and it either stays in the cache or is read hardly
     * more than once. */
    bool direct =
        p->swapped || (p->b_column == 1 && p->n >= v && (p->k * p->n <= DIRECT_LIMIT || p->m <= 2 * tile_rows));
    if (!direct) {
        int64_t floats;
        if (__builtin_mul_overflow(panels * panel, p->k, &floats) || floats > INT32_MAX)
            RAISE(RETORT_ELIMIT, "matrix product with a right operand [%" PRId64 ",%" PRId64 "]: too large to pack",
                  p->k, p->n);
        use->packed_floats = (size_t)floats * (size_t)p->batch;
        kernel_use_begin(&use->pack, "matmul_pack_cpu.cl");
        kernel_use_define(&use->pack, "N", p->n);
        kernel_use_define(&use->pack, "K", p->k);
        kernel_use_define(&use->pack, "B_ROW", p->b_row);
        kernel_use_define(&use->pack, "B_COLUMN", p->b_column);
        kernel_use_define(&use->pack, "PANEL", panel);
        kernel_use_define(&use->pack, "SHARE", PACK_SHARE);
        kernel_use_launch(&use->pack, (size_t)divide_up(p->k, PACK_SHARE), (size_t)p->batch, 1, 1, 1, 1);
    }

    int64_t band = choose_band(p->m, tile_rows, panels * p->batch);
    kernel_use_begin(&use->main, "matmul_cpu.cl");
    kernel_use_define(&use->main, "M", p->m);
    kernel_use_define(&use->main, "N", p->n);
    kernel_use_define(&use->main, "K", p->k);
    kernel_use_define(&use->main, "A_ROW", p->a_row);
    kernel_use_define(&use->main, "A_COLUMN", p->a_column);
    kernel_use_define(&use->main, "C_ROW", p->c_row);
    kernel_use_define(&use->main, "C_COLUMN", p->c_column);
    kernel_use_define(&use->main, "PACKED", !direct);
    kernel_use_define(&use->main, "SWAPPED", p->swapped);
    kernel_use_define(&use->main, "TILE_ROWS", tile_rows);
    kernel_use_define(&use->main, "TILE_BLOCKS", tile_blocks);
    kernel_use_define(&use->main, "SPAN", MATMUL_SPAN);
    kernel_use_define(&use->main, "BAND", band);
    kernel_use_launch(&use->main, (size_t)divide_up(p->m, band), (size_t)panels, (size_t)p->batch, 1, 1, 1);
done:
    return status;
}

int matmul_cpu_plan(const struct kernel_target *target, const struct matmul_sizes *s, struct product_use *use) {
    int64_t v = target->lanes;
    struct product product = {
        .batch = s->batch,
        .m = s->m,
        .n = s->n,
        .k = s->k,
        .a_row = s->transpose_a ? 1 : s->k,
        .a_column = s->transpose_a ? s->m : 1,
        .b_row = s->transpose_b ? 1 : s->n,
        .b_column = s->transpose_b ? s->k : 1,
        .c_row = s->n,
        .c_column = 1,
    };
    if (s->n < v && !s->transpose_a && product.b_row == 1 && s->k >= 4 * v) {
        choose_dot(target, &product, use);
        return RETORT_OK;
    }
    /* Few columns would leave most lanes idle; where a's columns lie along memory, they take the lanes. It is then read
     * as it lies, so the packing stays that of b. */
    if (s->n < v && s->transpose_a && s->m >= v) {
        struct product swapped = {
            .batch = s->batch,
            .m = s->n,
            .n = s->m,
            .k = s->k,
            .a_row = product.b_column,
            .a_column = product.b_row,
            .b_row = product.a_column,
            .b_column = product.a_row,
            .c_row = product.c_column,
            .c_column = product.c_row,
            .swapped = true,
        };
        product = swapped;
    }
    return choose_product(target, &product, use);
}
