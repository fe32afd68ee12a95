/* The CPU family: register tiles, packing and work-items of the templates cl/NAME_cpu.cl. */
#include "compile/kernels_family.h"

#include "base/error.h"

#include <inttypes.h>

/* Accumulators of a register tile: what 32 (AVX-512) or 16 registers hold beside the operands. */
static int64_t tile_budget(const struct kernel_target *target) {
    return target->lanes == 16 ? 24 : 12;
}

static int64_t min_of(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t max_of(int64_t a, int64_t b) {
    return a > b ? a : b;
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

/* Private memory for the input pixels under a tile, in vectors. */
enum { REACH_LIMIT = 4096 };

/* The tile that computes the whole image soonest by a simple count: FMAs, of which at least eight must be independent
 * to hide their latency, and loads at half their price. */
static struct tile choose_tile(const struct kernel_target *target, const struct conv_task *task, int64_t out_blocks) {
    struct tile best = {1, 1, 1};
    double best_cost = 0;
    for (int64_t blocks = 1; blocks <= min_of(out_blocks, 3); blocks++)
        for (int64_t rows = 1; rows <= min_of(task->out_height, 4); rows++)
            for (int64_t columns = 1; columns <= task->out_width && rows * columns * blocks <= tile_budget(target);
                 columns++) {
                if (rows * ((columns - 1) * task->stride + task->kernel_width) > REACH_LIMIT) continue;
                double fmas = (double)max_of(rows * columns * blocks, 8), loads = (double)(rows * columns + blocks);
                double tiles = (double)(divide_up(task->out_height, rows) * divide_up(task->out_width, columns)
                                        * divide_up(out_blocks, blocks));
                double cost = tiles * (fmas + 0.25 * loads);
                if (best_cost == 0 || cost < best_cost) best = (struct tile){rows, columns, blocks}, best_cost = cost;
            }
    return best;
}

static int choose_conv(const struct kernel_target *target, const struct conv_task *task, struct conv_use *use) {
    int status = RETORT_OK;
    int64_t v = target->lanes, out_blocks = divide_up(task->out_channels, v);
    if (task->kernel_width > REACH_LIMIT)
        RAISE(RETORT_EUNSUPPORTED, "convolution kernel of width %" PRId64 ": at most %d", task->kernel_width,
              REACH_LIMIT);
    struct tile tile = choose_tile(target, task, out_blocks);
    int64_t in_lanes = min_of(task->in_channels, v), in_blocks = divide_up(task->in_channels, in_lanes);
    int64_t groups = divide_up(out_blocks, tile.blocks);
    int64_t taps = task->kernel_height * task->kernel_width;
    use->packed_floats = (size_t)(groups * in_blocks * taps * in_lanes * tile.blocks * v);

    kernel_use_begin(&use->pack, "conv_pack_cpu.cl");
    kernel_use_define(&use->pack, "MIRRORED", task->mirrored);
    kernel_use_define(&use->pack, "IN_CHANNELS", task->in_channels);
    kernel_use_define(&use->pack, "IN_BLOCKS", in_blocks);
    kernel_use_define(&use->pack, "IN_LANES", in_lanes);
    kernel_use_define(&use->pack, "IN_STEP", tile.blocks * v);
    kernel_use_define(&use->pack, "OUT_CHANNELS", task->out_channels);
    kernel_use_define(&use->pack, "OUT_LANES", tile.blocks * v);
    kernel_use_define(&use->pack, "OUT_STEP", 1);
    kernel_use_define(&use->pack, "KERNEL_HEIGHT", task->kernel_height);
    kernel_use_define(&use->pack, "KERNEL_WIDTH", task->kernel_width);
    kernel_use_launch(&use->pack, (size_t)in_blocks, (size_t)groups, 1, 1, 1, 1);

    /* Rows to a work-item: whole images where there are enough of them, for the weights are read once an item. */
    int64_t tile_rows = divide_up(task->out_height, tile.rows);
    int64_t bands = min_of(tile_rows, divide_up(256, task->n * groups));
    int64_t band = divide_up(tile_rows, bands) * tile.rows;

    kernel_use_begin(&use->main, "conv_cpu.cl");
    kernel_use_define(&use->main, "IN_CHANNELS", task->in_channels);
    kernel_use_define(&use->main, "IN_HEIGHT", task->in_height);
    kernel_use_define(&use->main, "IN_WIDTH", task->in_width);
    kernel_use_define(&use->main, "IN_BLOCKED", task->in_blocked);
    kernel_use_define(&use->main, "IN_BLOCKS", in_blocks);
    kernel_use_define(&use->main, "IN_LANES", in_lanes);
    kernel_use_define(&use->main, "OUT_CHANNELS", task->out_channels);
    kernel_use_define(&use->main, "OUT_HEIGHT", task->out_height);
    kernel_use_define(&use->main, "OUT_WIDTH", task->out_width);
    kernel_use_define(&use->main, "OUT_BLOCKED", task->out_blocked);
    kernel_use_define(&use->main, "KERNEL_HEIGHT", task->kernel_height);
    kernel_use_define(&use->main, "KERNEL_WIDTH", task->kernel_width);
    kernel_use_define(&use->main, "STRIDE", task->stride);
    kernel_use_define(&use->main, "SPREAD", task->spread);
    kernel_use_define(&use->main, "PAD_Y", task->pad_y);
    kernel_use_define(&use->main, "PAD_X", task->pad_x);
    kernel_use_define(&use->main, "TILE_ROWS", tile.rows);
    kernel_use_define(&use->main, "TILE_COLUMNS", tile.columns);
    kernel_use_define(&use->main, "TILE_BLOCKS", tile.blocks);
    kernel_use_define(&use->main, "BAND", band);
    kernel_use_launch(&use->main, (size_t)divide_up(task->out_height, band), (size_t)groups, (size_t)task->n, 1, 1, 1);
done:
    return status;
}

int kernels_cpu_conv(const struct kernel_target *target, const struct conv_sizes *s, enum layout x, enum layout y,
                     struct conv_use *use) {
    struct conv_task task = {
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
    return choose_conv(target, &task, use);
}

int kernels_cpu_conv_backward_data(const struct kernel_target *target, const struct conv_sizes *s, enum layout x,
                                   enum layout y, struct conv_use *use) {
    struct conv_task task = {
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
    return choose_conv(target, &task, use);
}

/* --- backward-weight --- */

enum { SPLIT_ITEMS = 64, SEGMENT = 64, SUM_SHARE = 1024 };

/* Into how many parts the images are split: as many as give SPLIT_ITEMS work-items, while writing and adding the parts
 * stays small beside the products. By the sizes alone, not the device's number of cores: so is the order of summation.
 */
static int64_t choose_splits(const struct kernel_target *target, const struct conv_sizes *s, int64_t items) {
    int64_t worth = s->n * s->oh * s->ow / (80 * target->lanes);
    return max_of(1, min_of(min_of(s->n, worth), divide_up(SPLIT_ITEMS, items)));
}

int kernels_cpu_conv_backward_weight(const struct kernel_target *target, const struct conv_sizes *s, enum layout x,
                                     enum layout y, struct conv_use *use) {
    int status = RETORT_OK;
    bool blocked = x == LAYOUT_BLOCKED;
    int64_t v = target->lanes, out_blocks = divide_up(s->o, v), taps = s->kh * s->kw;
    int64_t tile_blocks = v < 16 && out_blocks % 3 == 0 ? 3 : min_of(out_blocks, 2);
    int64_t out_groups = divide_up(out_blocks, tile_blocks), in_groups, tap_groups;
    int64_t tile_channels = 0, tile_lines = 0, tile_taps;
    if (blocked) {
        tile_channels = min_of(v, v == 16 ? 16 / tile_blocks : tile_blocks == 1 ? 8 : 4);
        in_groups = divide_up(s->c, tile_channels);
        /* All taps of a small kernel share what an item reads; but first there must be items. */
        tile_taps = taps <= 25 ? taps : min_of(s->kw, 25);
        while (tile_taps > 1
               && divide_up(taps, tile_taps) * in_groups * out_groups * choose_splits(target, s, in_groups * out_groups)
                      < SPLIT_ITEMS / 4)
            tile_taps = tile_taps > s->kw ? s->kw : 1;
        tap_groups = divide_up(taps, tile_taps);
    } else {
        int64_t sums = v == 16 ? 20 / tile_blocks : 12 / tile_blocks;
        tile_taps = min_of(s->kw, sums);
        tile_lines = max_of(1, min_of(sums / tile_taps, s->c * s->kh));
        in_groups = divide_up(s->c * s->kh, tile_lines);
        tap_groups = divide_up(s->kw, tile_taps);
    }
    int64_t splits = choose_splits(target, s, in_groups * tap_groups * out_groups);
    int64_t images = divide_up(s->n, splits), count = s->o * s->c * taps;
    splits = divide_up(s->n, images);
    if (!blocked && (min_of(s->ow, SEGMENT) - 1) * s->stride + tile_taps > REACH_LIMIT * v)
        RAISE(RETORT_EUNSUPPORTED, "backward-weight of a convolution with stride %d: at most %" PRId64, s->stride,
              REACH_LIMIT * v / SEGMENT);

    kernel_use_begin(&use->main, blocked ? "conv_weight_cpu.cl" : "conv_weight_plain_cpu.cl");
    kernel_use_define(&use->main, "N", s->n);
    kernel_use_define(&use->main, "IMAGES", images);
    kernel_use_define(&use->main, "IN_CHANNELS", s->c);
    kernel_use_define(&use->main, "IN_HEIGHT", s->h);
    kernel_use_define(&use->main, "IN_WIDTH", s->w);
    kernel_use_define(&use->main, "OUT_CHANNELS", s->o);
    kernel_use_define(&use->main, "OUT_HEIGHT", s->oh);
    kernel_use_define(&use->main, "OUT_WIDTH", s->ow);
    kernel_use_define(&use->main, "OUT_BLOCKED", y == LAYOUT_BLOCKED);
    kernel_use_define(&use->main, "KERNEL_HEIGHT", s->kh);
    kernel_use_define(&use->main, "KERNEL_WIDTH", s->kw);
    kernel_use_define(&use->main, "STRIDE", s->stride);
    kernel_use_define(&use->main, "PADDING", s->padding);
    kernel_use_define(&use->main, "TILE_BLOCKS", tile_blocks);
    kernel_use_define(&use->main, "TILE_TAPS", tile_taps);
    if (blocked)
        kernel_use_define(&use->main, "TILE_CHANNELS", tile_channels);
    else {
        kernel_use_define(&use->main, "TILE_LINES", tile_lines);
        kernel_use_define(&use->main, "SEGMENT", min_of(s->ow, SEGMENT));
    }
    kernel_use_launch(&use->main, (size_t)(tap_groups * in_groups), (size_t)out_groups, (size_t)splits, 1, 1, 1);
    if (splits > 1) {
        use->work_floats = (size_t)(splits * count);
        kernel_use_begin(&use->finish, "sum_cpu.cl");
        kernel_use_define(&use->finish, "COUNT", count);
        kernel_use_define(&use->finish, "PARTS", splits);
        kernel_use_define(&use->finish, "SHARE", SUM_SHARE);
        kernel_use_launch(&use->finish, (size_t)divide_up(count, SUM_SHARE), 1, 1, 1, 1, 1);
    }
done:
    return status;
}

/* --- matrix product --- */

enum { MATMUL_SPAN = 256, PACK_SHARE = 64 };

int kernels_cpu_matmul(const struct kernel_target *target, const struct matmul_sizes *s, struct matmul_use *use) {
    int64_t v = target->lanes, blocks = divide_up(s->n, v), tile_blocks = min_of(blocks, 2);
    int64_t most = v == 16 ? 16 / tile_blocks : 12 / tile_blocks;
    int64_t tile_rows = divide_up(s->m, divide_up(s->m, most)); /* equal tiles: 10 rows are two of 5, not 8 and 2 */
    int64_t panel = tile_blocks * v, panels = divide_up(s->n, panel);
    use->packed_floats = (size_t)(s->batch * panels * panel * s->k);

    kernel_use_begin(&use->pack, "matmul_pack_cpu.cl");
    kernel_use_define(&use->pack, "N", s->n);
    kernel_use_define(&use->pack, "K", s->k);
    kernel_use_define(&use->pack, "B_ROW", s->transpose_b ? 1 : s->n);
    kernel_use_define(&use->pack, "B_COLUMN", s->transpose_b ? s->k : 1);
    kernel_use_define(&use->pack, "PANEL", panel);
    kernel_use_define(&use->pack, "SHARE", PACK_SHARE);
    kernel_use_launch(&use->pack, (size_t)divide_up(s->k, PACK_SHARE), (size_t)panels, (size_t)s->batch, 1, 1, 1);

    int64_t row_tiles = divide_up(s->m, tile_rows);
    int64_t bands = min_of(row_tiles, divide_up(256, panels * s->batch));
    int64_t band = divide_up(row_tiles, bands) * tile_rows;
    kernel_use_begin(&use->main, "matmul_cpu.cl");
    kernel_use_define(&use->main, "M", s->m);
    kernel_use_define(&use->main, "N", s->n);
    kernel_use_define(&use->main, "K", s->k);
    kernel_use_define(&use->main, "A_ROW", s->transpose_a ? 1 : s->k);
    kernel_use_define(&use->main, "A_COLUMN", s->transpose_a ? s->m : 1);
    kernel_use_define(&use->main, "TILE_ROWS", tile_rows);
    kernel_use_define(&use->main, "TILE_BLOCKS", tile_blocks);
    kernel_use_define(&use->main, "SPAN", MATMUL_SPAN);
    kernel_use_define(&use->main, "BAND", band);
    kernel_use_launch(&use->main, (size_t)divide_up(s->m, band), (size_t)panels, (size_t)s->batch, 1, 1, 1);
    return RETORT_OK;
}
