/* Winograd convolutions of the CPU family: whether they pay, and the tiles of cl/winograd_cpu.cl, winograd_pack_cpu.cl
 * and winograd_weight_cpu.cl. */
#include "compile/kernels_family.h"

#include "base/error.h"

#include <string.h>

/* Private memory of a work-item in floats, beside what streams through the second cache: transformed inputs, for a
 * cache of 1 MiB and for a large one, there for one register tile of them and for two; the sums and operands of a
 * backward-weight, for 1 MiB; and the most that any choice may ask for. */
enum {
    FORWARD_FLOATS = 80 << 10,
    LARGE_FORWARD_FLOATS = 192 << 10,
    TWO_TILES_FLOATS = 112 << 10,
    WEIGHT_FLOATS = 225 << 10,
    MOST_FLOATS = 450 << 10
};
/* Tiles at a time: of a backward-weight, where the second cache has room, and at most of the others. Tiles that a
 * backward-weight sums up at most, before sums are added to sums: a long float32 sum loses digits. */
enum { WEIGHT_TILES = 16, MOST_WEIGHT_TILES = 32, MOST_TILES = 48, MOST_SUMMED = 2048 };

/* Work-items that keep all cores busy evenly. */
static int64_t busy_items(const struct kernel_target *target) {
    return max_of(2, target->traits->compute_units) * 4;
}

/* A register tile is so many tiles (or input channels) by two or three vectors of output channels: as many as leave
 * room for the operands in 32 (AVX-512) or 16 registers. */
static int64_t register_rows(const struct kernel_target *target) {
    return target->lanes == 16 ? 8 : 4;
}
static bool registers_fit(const struct kernel_target *target, int64_t rows, int64_t out_group) {
    return rows * out_group <= 3 * register_rows(target);
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
static bool inputs_fit(const struct kernel_target *target, int m, int64_t in_blocks, int64_t lanes) {
    int64_t most_floats = kernels_large_cache(target) ? LARGE_FORWARD_FLOATS : FORWARD_FLOATS;
    return 4 * (m + 2) * (m + 2) * in_blocks * lanes <= most_floats;
}

static int64_t weight_floats(int64_t points, int64_t lanes, int64_t in_group, int64_t out_group, int64_t tiles) {
    return points * lanes * (in_group * lanes * out_group + tiles * (in_group + out_group));
}

/* What it costs to transform a tile's inputs, or its results, of one block of channels: vector operations at the speed
 * of products. */
static double transforms(int64_t points) {
    return 10.0 * (double)points;
}

/* How a choice is written where the rules are to decide, and where not. */
enum { BY_RULE = 1, NOT_AHEAD, AHEAD };
static bool is_asked(const int *choice, int number) {
    return choice[0] && choice[number] > BY_RULE;
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
        if (!inputs_fit(target, m, in_blocks, v)) continue;
        double products = (double)(points * task->in_channels * round_up(out_blocks, out_group_of(out_blocks)));
        double cost = (double)winograd_tiles(task, task->n, m)
                      * (products + (double)(in_blocks + out_blocks) * transforms(points));
        if (cost < best) best = cost, tile = m;
    }
    return tile;
}

/* How a forward or backward-data is cut: tiles of a work-item and of its register tile, output blocks of a register
 * tile; groups of tiles, groups of output blocks, and the parts that the latter are dealt out in, several where there
 * are not tiles enough to keep the cores busy: a work-item takes part_groups of them. */
struct conv_cut {
    int64_t tiles, tile_group, out_group, items, out_groups, parts, part_groups;
};
static struct conv_cut cut_conv(const struct kernel_target *target, const struct winograd_task *task, int m,
                                int64_t tiles, int64_t tile_group, int64_t out_group) {
    int64_t items = divide_up(winograd_tiles(task, task->n, m), tiles);
    int64_t out_groups = divide_up(divide_up(task->out_channels, target->lanes), out_group);
    int64_t part_groups = divide_up(out_groups, min_of(out_groups, divide_up(busy_items(target), items)));
    int64_t parts = divide_up(out_groups, part_groups);
    return (struct conv_cut){tiles, tile_group, out_group, items, out_groups, parts, part_groups};
}

/* Vector operations of the core that has most to do. Work-items take whole tiles, there or not; each part transforms
 * the inputs again; and products are slower where few tiles share what is read: about by what is added here, from
 * 128 channels on an Intel Xeon (docs/performance.md). */
static double conv_cost(const struct kernel_target *target, const struct winograd_task *task, int m,
                        const struct conv_terms *terms, const struct conv_cut *cut) {
    int64_t points = (m + 2) * (m + 2), in_blocks = divide_up(task->in_channels, target->lanes);
    double slower = 1 + 1 / (double)cut->tiles + 3 / (double)cut->tile_group;
    double products = (double)(__builtin_popcount(terms->mask) * points * task->in_channels * cut->out_group) * slower;
    double group = products + (double)(terms->outputs * cut->out_group) * transforms(points);
    double item = (double)(terms->inputs * in_blocks) * transforms(points) + (double)cut->part_groups * group;
    return (double)(divide_up(cut->items * cut->parts, target->traits->compute_units) * cut->tiles) * item;
}

/* For a large second cache: of the register tiles that fit, and one or two of them to a work-item, the cheapest. */
static struct conv_cut cheapest_cut(const struct kernel_target *target, const struct winograd_task *task, int m,
                                    const struct conv_terms *terms, int64_t tile_floats) {
    int64_t rows = register_rows(target), out_group = out_group_of(divide_up(task->out_channels, target->lanes));
    const int64_t groups[] = {1, 2, rows / 2, rows, rows + rows / 4, rows + rows / 2};
    struct conv_cut best = cut_conv(target, task, m, 1, 1, out_group);
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++)
        for (int64_t tiles = groups[i]; tiles <= 2 * groups[i]; tiles += groups[i]) {
            struct conv_cut cut = cut_conv(target, task, m, tiles, groups[i], out_group);
            int64_t most_floats = tiles == groups[i] ? LARGE_FORWARD_FLOATS : TWO_TILES_FLOATS;
            if (registers_fit(target, groups[i], out_group) && tiles * tile_floats <= most_floats
                && conv_cost(target, task, m, terms, &cut) < conv_cost(target, task, m, terms, &best))
                best = cut;
        }
    return best;
}

/* Without wisdom. */
static struct conv_cut own_cut(const struct kernel_target *target, const struct winograd_task *task, int m,
                               const struct conv_terms *terms) {
    int64_t v = target->lanes, points = (m + 2) * (m + 2), total = winograd_tiles(task, task->n, m);
    int64_t tile_floats = terms->inputs * points * divide_up(task->in_channels, v) * v;
    if (kernels_large_cache(target)) return cheapest_cut(target, task, m, terms, tile_floats);
    int64_t tile_group = register_rows(target);
    while (tile_group > 1 && tile_group / 2 >= total) tile_group /= 2;
    int64_t tiles = tile_group;
    while (2 * tiles <= 16 && 2 * tiles * tile_floats <= FORWARD_FLOATS
           && divide_up(total, 2 * tiles) >= busy_items(target))
        tiles *= 2;
    while (tiles > 1 && tiles * tile_floats > FORWARD_FLOATS) tiles /= 2;
    return cut_conv(target, task, m, tiles, min_of(tile_group, tiles), out_group_of(divide_up(task->out_channels, v)));
}

/* How a backward-weight is cut: blocks of channels of a work-item, and of output channels in a register tile; tiles of
 * a round, and of a work-item; parts of the sum. */
struct weight_cut {
    int64_t in_group, out_group, sum_blocks, tiles, split_tiles, splits;
    bool ahead;
};

/* The wider the groups, the fewer times an operand is read and transformed. */
static void widest_groups(int64_t points, int64_t lanes, int64_t in_blocks, int64_t out_blocks,
                          struct weight_cut *cut) {
    cut->in_group = 1, cut->out_group = cut->sum_blocks = out_group_of(out_blocks);
    for (bool grown = true; grown;) {
        grown = false;
        if (cut->in_group < in_blocks && cut->in_group <= cut->out_group
            && weight_floats(points, lanes, 2 * cut->in_group, cut->out_group, WEIGHT_TILES) <= WEIGHT_FLOATS)
            cut->in_group *= 2, grown = true;
        else if (cut->out_group < out_blocks
                 && weight_floats(points, lanes, cut->in_group, 2 * cut->out_group, WEIGHT_TILES) <= WEIGHT_FLOATS)
            cut->out_group *= 2, grown = true;
    }
}

/* Tiles of a round for `count` of them: rounds cost four tiles more than their own. */
static int64_t round_tiles(const struct kernel_target *target, int64_t count) {
    int64_t best = WEIGHT_TILES;
    for (int64_t tiles = WEIGHT_TILES; kernels_large_cache(target) && tiles <= MOST_WEIGHT_TILES; tiles += 4)
        if (divide_up(count, tiles) * (tiles + 4) < divide_up(count, best) * (best + 4)) best = tiles;
    return best;
}

static struct weight_cut cut_weight(const struct kernel_target *target, const struct winograd_task *task, int m,
                                    const struct conv_terms *terms, const int *choice) {
    int64_t v = target->lanes, points = (m + 2) * (m + 2), pairs = terms->inputs;
    int64_t total = pairs * winograd_tiles(task, task->n, m);
    int64_t in_blocks = divide_up(task->in_channels, v), out_blocks = divide_up(task->out_channels, v);
    struct weight_cut cut;
    widest_groups(points, v, in_blocks, out_blocks, &cut);
    if (choice[0]) cut.in_group = choice[0], cut.out_group = choice[1], cut.sum_blocks = choice[2];
    int64_t groups = divide_up(in_blocks, cut.in_group) * divide_up(out_blocks, cut.out_group);
    /* As few as keep the cores busy: each transforms all its sums back and writes the weights once more. */
    cut.splits = min_of(divide_up(busy_items(target) / 2, groups), max_of(1, total / WEIGHT_TILES));
    if (is_asked(choice, 5)) cut.splits = min_of(choice[5] - 1, total);
    cut.splits = max_of(cut.splits, divide_up(total, MOST_SUMMED));
    cut.split_tiles = divide_up(total, cut.splits);
    cut.tiles = is_asked(choice, 4) ? choice[4] - 1 : round_tiles(target, cut.split_tiles);
    cut.split_tiles = round_up(cut.split_tiles, cut.tiles);
    cut.splits = divide_up(total, cut.split_tiles);
    uint64_t cache = traits_cache_share(target->traits); /* 0: not known */
    uint64_t floats =
        (uint64_t)(pairs * task->n * v)
        * (uint64_t)(in_blocks * task->in_height * task->in_width + out_blocks * task->out_height * task->out_width);
    cut.ahead = is_asked(choice, 3) ? choice[3] == AHEAD : cache && floats * sizeof(float) > cache / 2;
    return cut;
}

static bool weight_fits(const struct winograd_task *task, int m, int64_t lanes, const int *choice) {
    int64_t in_blocks = divide_up(task->in_channels, lanes), out_blocks = divide_up(task->out_channels, lanes);
    int64_t tiles = is_asked(choice, 4) ? choice[4] - 1 : MOST_WEIGHT_TILES;
    return choice[0] < 2 * in_blocks && choice[1] < 2 * out_blocks && choice[2] <= 3 && choice[1] % choice[2] == 0
           && tiles % 4 == 0 && weight_floats((m + 2) * (m + 2), lanes, choice[0], choice[1], tiles) <= MOST_FLOATS;
}

bool conv_winograd_fits(const struct kernel_target *target, const struct kernel_class *class, int m,
                        const int *choice) {
    if (!applies(target, &class->sizes)) return false;
    const struct winograd_task task = winograd_task(class->pass, &class->sizes);
    int64_t v = target->lanes, points = (m + 2) * (m + 2), in_blocks = divide_up(task.in_channels, v);
    int64_t out_blocks = divide_up(task.out_channels, v);
    if (task.in_channels < v || !inputs_fit(target, m, in_blocks, v)) return false;
    if (!choice[0]) return true;
    if (choice[3] > AHEAD) return false;
    if (class->pass == CONV_BACKWARD_WEIGHT) return weight_fits(&task, m, v, choice);
    return choice[0] <= MOST_TILES && choice[0] % choice[1] == 0 && choice[2] <= min_of(out_blocks, 3)
           && registers_fit(target, choice[1], choice[2]) && choice[4] == BY_RULE && choice[5] == BY_RULE
           && choice[0] * points * v * (class->terms.inputs * in_blocks + class->terms.outputs * choice[2])
                  <= MOST_FLOATS;
}

static void add_candidate(int list[][CHOICE_PARAMETERS], int *count, int most, const int *numbers) {
    if (*count < most) memcpy(list[(*count)++], numbers, WINOGRAD_NUMBERS * sizeof *numbers);
}

/* The groups that the rules take, in other rounds and parts and asking ahead or not; then other groups. */
static int weight_candidates(const struct kernel_target *target, const struct kernel_class *class, int m,
                             int list[][CHOICE_PARAMETERS], int most) {
    const struct winograd_task task = winograd_task(class->pass, &class->sizes);
    const int rules[CHOICE_PARAMETERS] = {0};
    const struct weight_cut own = cut_weight(target, &task, m, &class->terms, rules);
    int groups[] = {(int)own.in_group, (int)own.out_group, (int)own.sum_blocks}, count = 0;
    for (int ahead = NOT_AHEAD; ahead <= AHEAD; ahead++)
        for (int tiles = WEIGHT_TILES; tiles <= MOST_WEIGHT_TILES; tiles += 8)
            add_candidate(list, &count, most,
                          (int[WINOGRAD_NUMBERS]){groups[0], groups[1], groups[2], ahead, 1 + tiles, BY_RULE});
    for (int doubled = 0; doubled < 2; doubled++) {
        int splits = (int)(doubled ? 2 * own.splits : divide_up(own.splits, 2));
        add_candidate(list, &count, most,
                      (int[WINOGRAD_NUMBERS]){groups[0], groups[1], groups[2], BY_RULE, BY_RULE, 1 + splits});
    }
    for (int in = 1; in <= 8; in *= 2)
        for (int out = 1; out <= 8; out++) {
            int numbers[] = {in, out, out % 2 == 0 ? 2 : out % 3 == 0 ? 3 : 1, BY_RULE, BY_RULE, BY_RULE};
            bool is_own = in == groups[0] && out == groups[1];
            if ((out <= 4 || out % 2 == 0) && !is_own && weight_fits(&task, m, target->lanes, numbers))
                add_candidate(list, &count, most, numbers);
        }
    return count;
}

int conv_winograd_candidates(const struct kernel_target *target, const struct kernel_class *class, int m,
                             int list[][CHOICE_PARAMETERS], int most) {
    int rows = (int)register_rows(target), count = 0;
    /* Register tiles that use most of the registers. */
    const int tile_groups[][2] = {
        {rows, 2}, {rows + rows / 4, 2}, {rows + rows / 2, 2}, {rows, 3}, {rows - rows / 4, 3}};
    if (class->pass == CONV_BACKWARD_WEIGHT) return weight_candidates(target, class, m, list, most);
    for (size_t i = 0; i < sizeof tile_groups / sizeof *tile_groups; i++)
        for (int times = 1; times <= 2; times++)
            for (int ahead = NOT_AHEAD; ahead <= AHEAD; ahead++)
                add_candidate(list, &count, most,
                              (int[WINOGRAD_NUMBERS]){times * tile_groups[i][0], tile_groups[i][0], tile_groups[i][1],
                                                      ahead, BY_RULE, BY_RULE});
    return count;
}

void conv_winograd_own(const struct kernel_target *target, const struct kernel_class *class, int m, int *numbers) {
    const struct winograd_task task = winograd_task(class->pass, &class->sizes);
    if (class->pass == CONV_BACKWARD_WEIGHT) return;
    const struct conv_cut cut = own_cut(target, &task, m, &class->terms);
    numbers[0] = (int)cut.tiles, numbers[1] = (int)cut.tile_group, numbers[2] = (int)cut.out_group;
    for (int i = 3; i < WINOGRAD_NUMBERS; i++) numbers[i] = BY_RULE;
}

/* Forward and backward-data. */
static void plan_conv(const struct kernel_target *target, const struct winograd_task *task, int tile, const int *choice,
                      const struct conv_terms *terms, struct product_use *use) {
    int64_t v = target->lanes, points = (tile + 2) * (tile + 2);
    int64_t in_blocks = divide_up(task->in_channels, v), out_blocks = divide_up(task->out_channels, v);
    const struct conv_cut cut =
        choice[0] ? cut_conv(target, task, tile, choice[0], choice[1], choice[2]) : own_cut(target, task, tile, terms);
    bool ahead = is_asked(choice, 3) ? choice[3] == AHEAD : kernels_large_cache(target);

    use->packed_floats = (size_t)(cut.out_groups * points * (in_blocks * v * cut.out_group + 1) * v);
    kernel_use_begin(&use->pack, "winograd_pack_cpu.cl");
    kernel_use_define(&use->pack, "OUT_TILE", tile);
    kernel_use_define(&use->pack, "MIRRORED", task->mirrored);
    kernel_use_define(&use->pack, "IN_CHANNELS", task->in_channels);
    kernel_use_define(&use->pack, "IN_STEP", task->mirrored ? task->out_channels * 9 : 9);
    kernel_use_define(&use->pack, "OUT_CHANNELS", task->out_channels);
    kernel_use_define(&use->pack, "OUT_GROUP", cut.out_group);
    kernel_use_define(&use->pack, "OUT_STEP", task->mirrored ? 9 : task->in_channels * 9);
    kernel_use_define(&use->pack, "AHEAD", ahead);
    kernel_use_launch(&use->pack, (size_t)in_blocks, (size_t)cut.out_groups, 1, 1, 1, 1);

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
    kernel_use_define(&use->main, "OUT_GROUP", cut.out_group);
    kernel_use_define(&use->main, "OUT_GROUPS", cut.out_groups);
    kernel_use_define(&use->main, "PART_GROUPS", cut.part_groups);
    kernel_use_define(&use->main, "PAD", task->pad);
    kernel_use_define(&use->main, "TILES", cut.tiles);
    kernel_use_define(&use->main, "TILE_GROUP", cut.tile_group);
    kernel_use_define(&use->main, "AHEAD", ahead);
    kernel_use_launch(&use->main, (size_t)cut.items, (size_t)cut.parts, 1, 1, 1, 1);
}

static void plan_backward_weight(const struct kernel_target *target, const struct winograd_task *task, int tile,
                                 const int *choice, const struct conv_terms *terms, struct product_use *use) {
    const struct weight_cut cut = cut_weight(target, task, tile, terms, choice);
    int64_t v = target->lanes, count = task->in_channels * task->out_channels * 9;
    kernel_use_begin(&use->main, "winograd_weight_cpu.cl");
    kernel_use_define(&use->main, "AHEAD", cut.ahead);
    kernel_use_define(&use->main, "OUT_TILE", tile);
    kernel_use_define(&use->main, "PAIRS", terms->inputs);
    kernel_use_define(&use->main, "N", task->n);
    kernel_use_define(&use->main, "IN_CHANNELS", task->in_channels);
    kernel_use_define(&use->main, "IN_HEIGHT", task->in_height);
    kernel_use_define(&use->main, "IN_WIDTH", task->in_width);
    kernel_use_define(&use->main, "OUT_CHANNELS", task->out_channels);
    kernel_use_define(&use->main, "OUT_HEIGHT", task->out_height);
    kernel_use_define(&use->main, "OUT_WIDTH", task->out_width);
    kernel_use_define(&use->main, "PAD", task->pad);
    kernel_use_define(&use->main, "IN_GROUP", cut.in_group);
    kernel_use_define(&use->main, "OUT_GROUP", cut.out_group);
    kernel_use_define(&use->main, "SPLIT_TILES", cut.split_tiles);
    kernel_use_define(&use->main, "TILES", cut.tiles);
    kernel_use_define(&use->main, "SUM_CHANNELS", register_rows(target));
    kernel_use_define(&use->main, "SUM_BLOCKS", cut.sum_blocks);
    kernel_use_launch(&use->main, (size_t)divide_up(divide_up(task->in_channels, v), cut.in_group),
                      (size_t)divide_up(divide_up(task->out_channels, v), cut.out_group), (size_t)cut.splits, 1, 1, 1);
    kernels_cpu_sum(count, cut.splits, use);
}

void conv_winograd_plan(const struct kernel_target *target, const struct kernel_class *class, int m, const int *tile,
                        struct kernel_plan *plan) {
    const struct winograd_task task = winograd_task(class->pass, &class->sizes);
    struct product_use use = {0};
    (class->pass == CONV_BACKWARD_WEIGHT ? plan_backward_weight : plan_conv)(target, &task, m, tile, &class->terms,
                                                                             &use);
    kernels_plan_conv(&use, class, plan);
}
