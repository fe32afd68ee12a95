/* Winograd convolutions of the CPU family: whether they pay, and the tiles of cl/winograd_cpu.cl, winograd_pack_cpu.cl
 * and winograd_weight_cpu.cl. */
#include "compile/kernels_family.h"

#include "base/error.h"

/* Private memory of a work-item in floats, for a second cache of 1 MiB beside what streams through it. */
enum { FORWARD_FLOATS = 80 << 10, WEIGHT_FLOATS = 225 << 10 };
/* Tiles at a time: of a backward-weight, and at most of the others. Tiles that a backward-weight sums up at most,
 * before sums are added to sums: a long float32 sum loses digits. */
enum { WEIGHT_TILES = 16, MOST_TILES = 48, MOST_SUMMED = 2048 };

/* Work-items that keep all cores busy evenly. */
static int64_t busy_items(const struct kernel_target *target) {
    return max_of(2, target->traits->compute_units) * 4;
}

/* A register tile is so many tiles (or input channels) by two or three vectors of output channels: as many as leave
 * room for the operands in 32 (AVX-512) or 16 registers. */
static int64_t register_rows(const struct kernel_target *target) {
    return target->lanes == 16 ? 8 : 4;
}
static int64_t out_group_of(int64_t out_blocks) {
    return out_blocks % 3 == 0 && out_blocks % 2 != 0 ? 3 : min_of(out_blocks, 2);
}

struct winograd_task winograd_task(enum conv_pass pass, const struct conv_sizes *s) {
    if (pass == CONV_BACKWARD_DATA)
        return (struct winograd_task){s->n, s->o, s->oh, s->ow, s->c, s->h, s->w, 2 - s->padding, true};
    return (struct winograd_task){s->n, s->c, s->h, s->w, s->o, s->oh, s->ow, s->padding, false};
}

bool winograd_kernel(const struct conv_sizes *s) {
    return s->kh == 3 && s->kw == 3 && s->stride == 1 && s->padding <= 2;
}

int64_t winograd_tiles(const struct winograd_task *task, int64_t images, int64_t out_tile) {
    return images * divide_up(task->out_height, out_tile) * divide_up(task->out_width, out_tile);
}

static bool applies(const struct kernel_target *target, const struct conv_sizes *s) {
    return winograd_kernel(s) && kernels_conv_layout(target, s->c) == LAYOUT_BLOCKED
           && kernels_conv_layout(target, s->o) == LAYOUT_BLOCKED;
}

/* Whether the transformed inputs of a few tiles leave room in the cache. */
static bool inputs_fit(int m, int64_t in_blocks, int64_t lanes) {
    return 4 * (m + 2) * (m + 2) * in_blocks * lanes <= FORWARD_FLOATS;
}

static int64_t weight_floats(int64_t points, int64_t lanes, int64_t in_group, int64_t out_group) {
    return points * lanes * (in_group * lanes * out_group + WEIGHT_TILES * (in_group + out_group));
}

int kernels_winograd(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *s) {
    if (!applies(target, s)) return 0;
    const struct winograd_task parts = winograd_task(pass, s), *task = &parts;
    int64_t v = target->lanes, in_blocks = divide_up(task->in_channels, v);
    int64_t out_blocks = divide_up(task->out_channels, v);
    if (task->in_channels < v) return 0;
    /* Vector operations at two a cycle: products at nine tenths of the peak, transforms at about half of it. */
    double direct =
        (double)(task->n * task->out_height * task->out_width * out_blocks) * (double)(9 * task->in_channels);
    double best = direct;
    int tile = 0;
    for (int m = 4; m >= 2; m -= 2) {
        int64_t points = (m + 2) * (m + 2);
        if (!inputs_fit(m, in_blocks, v)) continue;
        double products = (double)(points * task->in_channels * round_up(out_blocks, out_group_of(out_blocks)));
        double transforms = 10.0 * (double)(points * (in_blocks + out_blocks));
        double cost = (double)winograd_tiles(task, task->n, m) * (products + transforms);
        if (cost < best) best = cost, tile = m;
    }
    return tile;
}

bool conv_winograd_fits(const struct kernel_target *target, const struct kernel_class *class, int m, const int *tile) {
    if (!applies(target, &class->sizes)) return false;
    const struct winograd_task task = winograd_task(class->pass, &class->sizes);
    int64_t v = target->lanes, points = (m + 2) * (m + 2), in_blocks = divide_up(task.in_channels, v);
    int64_t out_blocks = divide_up(task.out_channels, v);
    if (task.in_channels < v || !inputs_fit(m, in_blocks, v)) return false;
    if (!tile[0]) return true;
    if (class->pass == CONV_BACKWARD_WEIGHT)
        return tile[0] < 2 * in_blocks && tile[1] < 2 * out_blocks && tile[2] <= 3 && tile[1] % tile[2] == 0
               && weight_floats(points, v, tile[0], tile[1]) <= WEIGHT_FLOATS;
    return tile[0] <= MOST_TILES && tile[0] % tile[1] == 0 && tile[2] <= min_of(out_blocks, 3)
           && tile[1] * tile[2] <= 3 * register_rows(target)
           && tile[0] * points * v * (class->terms.inputs * in_blocks + class->terms.outputs * tile[2])
                  <= WEIGHT_FLOATS;
}

int conv_winograd_candidates(const struct kernel_target *target, const struct kernel_class *class,
                             int tiles[][CHOICE_PARAMETERS], int most) {
    int rows = (int)register_rows(target), count = 0;
    /* Register tiles that use most of the registers. */
    const int tile_groups[][2] = {{rows, 2}, {rows + rows / 2, 2}, {rows, 3}, {rows - rows / 4, 3}};
    if (class->pass == CONV_BACKWARD_WEIGHT) {
        for (int in = 1; in <= 8; in *= 2)
            for (int out = 1; out <= 8; out++) {
                if (count == most || (out > 4 && out % 2)) break;
                tiles[count][0] = in;
                tiles[count][1] = out;
                tiles[count++][2] = out % 2 == 0 ? 2 : out % 3 == 0 ? 3 : 1;
            }
        return count;
    }
    for (size_t i = 0; i < sizeof tile_groups / sizeof *tile_groups; i++)
        for (int times = 1; times <= 4 && count < most; times *= 2) {
            tiles[count][0] = times * tile_groups[i][0];
            tiles[count][1] = tile_groups[i][0];
            tiles[count++][2] = tile_groups[i][1];
        }
    return count;
}

/* Tiles of a work-item, and its register tile, of forward and backward-data without wisdom. */
static void own_tiles(const struct kernel_target *target, const struct winograd_task *task, int tile,
                      const struct conv_terms *terms, int *numbers) {
    int64_t v = target->lanes, points = (tile + 2) * (tile + 2), total = winograd_tiles(task, task->n, tile);
    int64_t in_blocks = divide_up(task->in_channels, v), tile_group = register_rows(target);
    while (tile_group > 1 && tile_group / 2 >= total) tile_group /= 2;
    int64_t tiles = tile_group, tile_floats = terms->inputs * points * in_blocks * v;
    while (2 * tiles <= 16 && 2 * tiles * tile_floats <= FORWARD_FLOATS
           && divide_up(total, 2 * tiles) >= busy_items(target))
        tiles *= 2;
    while (tiles > 1 && tiles * tile_floats > FORWARD_FLOATS) tiles /= 2;
    numbers[0] = (int)tiles;
    numbers[1] = (int)min_of(tile_group, tiles);
    numbers[2] = (int)out_group_of(divide_up(task->out_channels, v));
}

void conv_winograd_own(const struct kernel_target *target, const struct kernel_class *class, int m, int *numbers) {
    const struct winograd_task task = winograd_task(class->pass, &class->sizes);
    if (class->pass != CONV_BACKWARD_WEIGHT) own_tiles(target, &task, m, &class->terms, numbers);
}

/* Forward and backward-data. */
static void plan_conv(const struct kernel_target *target, const struct winograd_task *task, int tile, const int *choice,
                      const struct conv_terms *terms, struct product_use *use) {
    int64_t v = target->lanes, points = (tile + 2) * (tile + 2), total = winograd_tiles(task, task->n, tile);
    int64_t in_blocks = divide_up(task->in_channels, v), out_blocks = divide_up(task->out_channels, v);
    int own[CHOICE_PARAMETERS];
    if (!choice[0]) own_tiles(target, task, tile, terms, own);
    if (!choice[0]) choice = own;
    int64_t tiles = choice[0], tile_group = choice[1], out_group = choice[2];
    int64_t items = divide_up(total, tiles), out_groups = divide_up(out_blocks, out_group),
            part_groups = divide_up(out_groups, min_of(out_groups, divide_up(busy_items(target), items)));

    use->packed_floats = (size_t)(out_groups * points * (in_blocks * v * out_group + 1) * v);
    kernel_use_begin(&use->pack, "winograd_pack_cpu.cl");
    kernel_use_define(&use->pack, "OUT_TILE", tile);
    kernel_use_define(&use->pack, "MIRRORED", task->mirrored);
    kernel_use_define(&use->pack, "IN_CHANNELS", task->in_channels);
    kernel_use_define(&use->pack, "IN_STEP", task->mirrored ? task->out_channels * 9 : 9);
    kernel_use_define(&use->pack, "OUT_CHANNELS", task->out_channels);
    kernel_use_define(&use->pack, "OUT_GROUP", out_group);
    kernel_use_define(&use->pack, "OUT_STEP", task->mirrored ? 9 : task->in_channels * 9);
    kernel_use_launch(&use->pack, (size_t)in_blocks, (size_t)out_groups, 1, 1, 1, 1);

    kernel_use_begin(&use->main, "winograd_cpu.cl");
    kernel_use_define(&use->main, "OUT_TILE", tile);
    kernel_use_define(&use->main, "OUTPUTS", terms->outputs);
    kernel_use_define(&use->main, "INPUTS", terms->inputs);
    kernel_use_define(&use->main, "WEIGHTS", terms->weights);
    kernel_use_define(&use->main, "TERMS", terms->mask);
    kernel_use_define(&use->main, "N", task->n);
    kernel_use_define(&use->main, "IN_HEIGHT", task->in_height);
    kernel_use_define(&use->main, "IN_WIDTH", task->in_width);
    kernel_use_define(&use->main, "IN_BLOCKS", in_blocks);
    kernel_use_define(&use->main, "OUT_HEIGHT", task->out_height);
    kernel_use_define(&use->main, "OUT_WIDTH", task->out_width);
    kernel_use_define(&use->main, "OUT_BLOCKS", out_blocks);
    kernel_use_define(&use->main, "OUT_GROUP", out_group);
    kernel_use_define(&use->main, "OUT_GROUPS", out_groups);
    kernel_use_define(&use->main, "PART_GROUPS", part_groups);
    kernel_use_define(&use->main, "PAD", task->pad);
    kernel_use_define(&use->main, "TILES", tiles);
    kernel_use_define(&use->main, "TILE_GROUP", tile_group);
    kernel_use_launch(&use->main, (size_t)items, (size_t)divide_up(out_groups, part_groups), 1, 1, 1, 1);
}

static void plan_backward_weight(const struct kernel_target *target, const struct winograd_task *task, int tile,
                                 const int *choice, const struct conv_terms *terms, struct product_use *use) {
    enum { TILES = WEIGHT_TILES };
    int64_t v = target->lanes, points = (tile + 2) * (tile + 2), pairs = terms->inputs;
    int64_t total = pairs * winograd_tiles(task, task->n, tile);
    int64_t in_blocks = divide_up(task->in_channels, v), out_blocks = divide_up(task->out_channels, v);
    int64_t sum_blocks = out_group_of(out_blocks), sum_channels = register_rows(target);
    /* The wider the groups, the fewer times an operand is read and transformed. */
    int64_t in_group = 1, out_group = sum_blocks;
    for (bool grown = true; grown;) {
        grown = false;
        if (in_group < in_blocks && in_group <= out_group
            && weight_floats(points, v, 2 * in_group, out_group) <= WEIGHT_FLOATS)
            in_group *= 2, grown = true;
        else if (out_group < out_blocks && weight_floats(points, v, in_group, 2 * out_group) <= WEIGHT_FLOATS)
            out_group *= 2, grown = true;
    }
    if (choice[0]) in_group = choice[0], out_group = choice[1], sum_blocks = choice[2];
    int64_t in_groups = divide_up(in_blocks, in_group), out_groups = divide_up(out_blocks, out_group);
    /* As few as keep the cores busy: each transforms all its sums back and writes the weights once more. */
    int64_t splits = min_of(divide_up(busy_items(target) / 2, in_groups * out_groups), max_of(1, total / TILES));
    splits = max_of(splits, divide_up(total, MOST_SUMMED));
    int64_t split_tiles = round_up(divide_up(total, splits), TILES), count = task->in_channels * task->out_channels * 9;
    splits = divide_up(total, split_tiles);
    uint64_t cache = target->traits->cache; /* 0: not known */
    uint64_t floats =
        (uint64_t)(pairs * task->n * v)
        * (uint64_t)(in_blocks * task->in_height * task->in_width + out_blocks * task->out_height * task->out_width);
    kernel_use_begin(&use->main, "winograd_weight_cpu.cl");
    kernel_use_define(&use->main, "AHEAD", cache && floats * sizeof(float) > cache / 2);
    kernel_use_define(&use->main, "OUT_TILE", tile);
    kernel_use_define(&use->main, "PAIRS", pairs);
    kernel_use_define(&use->main, "N", task->n);
    kernel_use_define(&use->main, "IN_CHANNELS", task->in_channels);
    kernel_use_define(&use->main, "IN_HEIGHT", task->in_height);
    kernel_use_define(&use->main, "IN_WIDTH", task->in_width);
    kernel_use_define(&use->main, "OUT_CHANNELS", task->out_channels);
    kernel_use_define(&use->main, "OUT_HEIGHT", task->out_height);
    kernel_use_define(&use->main, "OUT_WIDTH", task->out_width);
    kernel_use_define(&use->main, "PAD", task->pad);
    kernel_use_define(&use->main, "IN_GROUP", in_group);
    kernel_use_define(&use->main, "OUT_GROUP", out_group);
    kernel_use_define(&use->main, "SPLIT_TILES", split_tiles);
    kernel_use_define(&use->main, "TILES", TILES);
    kernel_use_define(&use->main, "SUM_CHANNELS", sum_channels);
    kernel_use_define(&use->main, "SUM_BLOCKS", sum_blocks);
    kernel_use_launch(&use->main, (size_t)in_groups, (size_t)out_groups, (size_t)splits, 1, 1, 1);
    kernels_cpu_sum(count, splits, use);
}

void conv_winograd_plan(const struct kernel_target *target, const struct kernel_class *class, int m, const int *tile,
                        struct kernel_plan *plan) {
    const struct winograd_task task = winograd_task(class->pass, &class->sizes);
    struct product_use use = {0};
    (class->pass == CONV_BACKWARD_WEIGHT ? plan_backward_weight : plan_conv)(target, &task, m, tile, &class->terms,
                                                                             &use);
    kernels_plan_conv(&use, class, plan);
}
