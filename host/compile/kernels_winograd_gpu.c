/* Staged Winograd F(4,3) of the GPU family: 3x3 convolutions with stride 1 as 36 matrix products between a transform of
 * the inputs and one of the results (cl/winograd_*_gpu.cl, and cl/product_gpu.cl between them).
 *
 * A quarter of the multiply-adds, for the price of memory: transformed tensors are 36/16 as large as what they are made
 * of. The batch is therefore cut into parts whose transforms a cache may hold; each part's launches follow those of the
 * one before it. A launch of several terms (joined convolutions) transforms each input and each weight once, computes
 * the products of all terms side by side, and adds those of a result while transforming it back. */
#include "compile/kernels_family.h"

#include "base/error.h"

enum { POINTS = 36, SIDE = 4, PARTS_MOST = 16 };
enum { PART_IMAGES = TILE_NUMBERS }; /* of the parameters: the one behind those of the tile */

static int64_t tiles_of(const struct winograd_task *s, int64_t images) {
    return winograd_tiles(s, images, SIDE);
}

static struct gpu_layers layers_of(const struct term_list *terms) {
    struct gpu_layers layers = {.layers = POINTS};
    for (int t = 0; t < terms->count; t++) {
        layers.a_terms |= (unsigned)terms->weight[t] << t;
        layers.b_terms |= (unsigned)terms->input[t] << t;
    }
    return layers;
}

/* The products of one part. */
static struct matmul_sizes products_of(enum conv_pass pass, const struct winograd_task *s,
                                       const struct term_list *terms, int64_t images) {
    int64_t tiles = tiles_of(s, images), batch = (int64_t)POINTS * terms->count;
    if (pass == CONV_BACKWARD_WEIGHT)
        return (struct matmul_sizes){batch, s->out_channels, s->in_channels, tiles, false, true};
    return (struct matmul_sizes){batch, s->out_channels, tiles, s->in_channels, true, false};
}

/* Floats of the transformed tensors of a part. */
static int64_t part_floats(const struct kernel_class *class, const struct winograd_task *s,
                           const struct term_list *terms, int64_t images) {
    int64_t inputs = class->terms.inputs * s->in_channels;
    int64_t others = class->pass == CONV_BACKWARD_WEIGHT ? class->terms.inputs : terms->count;
    return POINTS * tiles_of(s, images) * (inputs + others * s->out_channels);
}

/* Operations a second that the device is expected to reach in products: half of what follows from lanes and clock. */
static double expected_speed(const struct device_traits *traits) {
    return 1e6 * (double)traits->lanes * (traits->max_clock_mhz ? traits->max_clock_mhz : 1000);
}

static double product_flops(const struct winograd_task *s, const struct term_list *terms, int64_t images) {
    return 2.0 * POINTS * terms->count * (double)tiles_of(s, images) * (double)(s->in_channels * s->out_channels);
}

/* Images of a part: as many as half of the largest cache holds, where those are so many that the launches of a part,
 * some microseconds each, are short beside its products; elsewhere parts would save nothing, and there are only as many
 * as keep memory within bounds. A backward-weight is computed whole. */
static int64_t part_images(const struct kernel_target *target, const struct kernel_class *class,
                           const struct winograd_task *s, const struct term_list *terms) {
    static const double worth = 100e-6;    /* seconds */
    const int64_t most = (int64_t)1 << 26; /* floats */
    if (class->pass == CONV_BACKWARD_WEIGHT) return s->n;
    double image = product_flops(s, terms, 1) / expected_speed(target->traits);
    int64_t floats = part_floats(class, s, terms, 1);
    int64_t cached = (int64_t)(target->traits->cache / 8) / floats, long_enough = (int64_t)(worth / image) + 1;
    int64_t images = min_of(cached < long_enough ? s->n : cached, max_of(1, most / floats));
    int64_t parts = min_of(divide_up(s->n, min_of(s->n, images)), PARTS_MOST);
    return divide_up(s->n, parts);
}

static const struct product_tile *tile_of(const struct kernel_target *target, const struct matmul_sizes *sizes,
                                          const int *numbers) {
    const struct gpu_product product = gpu_product_matmul(sizes);
    return gpu_tile_asked(target, &product, numbers);
}

/* Images of a part, as the numbers say or by the rules above. */
static int64_t images_asked(const struct kernel_target *target, const struct kernel_class *class,
                            const struct winograd_task *s, const struct term_list *terms, const int *numbers) {
    return numbers[0] ? min_of(numbers[PART_IMAGES], s->n) : part_images(target, class, s, terms);
}

void conv_staged_own(const struct kernel_target *target, const struct kernel_class *class, int *numbers) {
    struct term_list terms;
    if (!list_terms(class, &terms)) return;
    const struct winograd_task s = winograd_task(class->pass, &class->sizes);
    int64_t images = part_images(target, class, &s, &terms);
    const struct matmul_sizes sizes = products_of(class->pass, &s, &terms, images);
    const struct gpu_product product = gpu_product_matmul(&sizes);
    gpu_tile_own(target, &product, numbers);
    numbers[PART_IMAGES] = (int)images;
}

bool conv_staged_fits(const struct kernel_target *target, const struct kernel_class *class, const int *numbers) {
    struct term_list terms;
    if (!winograd_kernel(&class->sizes) || !list_terms(class, &terms) || terms.count == 0) return false;
    const struct winograd_task s = winograd_task(class->pass, &class->sizes);
    int64_t images = images_asked(target, class, &s, &terms, numbers);
    if (divide_up(s.n, images) > PARTS_MOST) return false;
    if (class->pass == CONV_BACKWARD_WEIGHT && images < s.n) return false;
    if (part_floats(class, &s, &terms, images) > INT32_MAX / 2
        || (int64_t)POINTS * class->terms.weights * s.in_channels * s.out_channels > INT32_MAX / 2)
        return false;
    const struct matmul_sizes sizes = products_of(class->pass, &s, &terms, images);
    return tile_of(target, &sizes, numbers) != NULL;
}

int conv_staged_candidates(const struct kernel_target *target, const struct kernel_class *class,
                           int list[][CHOICE_PARAMETERS], int most) {
    struct term_list terms;
    if (!list_terms(class, &terms)) return 0;
    const struct winograd_task s = winograd_task(class->pass, &class->sizes);
    int64_t images = part_images(target, class, &s, &terms);
    const struct matmul_sizes sizes = products_of(class->pass, &s, &terms, images);
    const struct gpu_product product = gpu_product_matmul(&sizes);
    int count = gpu_tile_candidates(target, &product, list, most);
    for (int i = 0; i < count; i++) list[i][PART_IMAGES] = (int)images;
    return count;
}

/* Whether the staged transform is expected to be faster than direct products: by operations, by bytes at fifteen
 * operations each, and by three more launches of some microseconds for each part. Such a count is right within half as
 * much again, and direct products are more exact and need less memory, so on GPUs it has to say more than that. */
bool conv_staged_applies(const struct kernel_target *target, const struct kernel_class *class) {
    static const double launch = 5e-6, per_byte = 15;
    static const int own[CHOICE_PARAMETERS] = {0};
    struct term_list terms;
    if (!conv_staged_fits(target, class, own)) return false;
    list_terms(class, &terms);
    const struct winograd_task s = winograd_task(class->pass, &class->sizes);
    if (min_of(s.in_channels, s.out_channels) < 16) return false;
    double speed = expected_speed(target->traits);
    double maps =
        (double)(s.n * (s.in_height * s.in_width * s.in_channels + s.out_height * s.out_width * s.out_channels));
    double direct =
        18.0 * terms.count * (double)(s.n * s.out_height * s.out_width) * (double)(s.in_channels * s.out_channels);
    double moved = 4.0 * (maps + 2.0 * (double)part_floats(class, &s, &terms, s.n));
    double parts = (double)divide_up(s.n, part_images(target, class, &s, &terms));
    double staged = product_flops(&s, &terms, s.n) + per_byte * moved + 3 * parts * launch * speed;
    return (kernels_on_gpu(target) ? 1.6 : 1) * staged < direct;
}

/* --- launches --- */
static void define_tiles(const struct winograd_task *s, int64_t tiles, struct kernel_use *use) {
    kernel_use_define(use, "TILES", tiles);
    kernel_use_define(use, "TILES_X", divide_up(s->out_width, SIDE));
    kernel_use_define(use, "TILES_Y", divide_up(s->out_height, SIDE));
}

/* The transform of `inputs` images tensors: of x, or (spread) of the tiles of a backward-weight's y. */
static void use_input(const struct kernel_target *target, const struct winograd_task *s, bool spread, int inputs,
                      int64_t tiles, struct kernel_use *use) {
    int64_t channels = spread ? s->out_channels : s->in_channels;
    kernel_use_begin(use, "winograd_input_gpu.cl");
    kernel_use_define(use, "SPREAD", spread);
    kernel_use_define(use, "INPUTS", inputs);
    kernel_use_define(use, "CHANNELS", channels);
    define_tiles(s, tiles, use);
    kernel_use_define(use, "IN_H", spread ? s->out_height : s->in_height);
    kernel_use_define(use, "IN_W", spread ? s->out_width : s->in_width);
    kernel_use_define(use, "PAD", spread ? 0 : s->pad);
    kernel_use_launch_items(use, target, tiles, channels);
    use->global[2] = (size_t)inputs;
}

static struct plan_operand pack_weights(const struct kernel_target *target, const struct winograd_task *s, int first,
                                        int weights, struct kernel_plan *plan) {
    struct kernel_use use;
    kernel_use_begin(&use, "winograd_weights_gpu.cl");
    kernel_use_define(&use, "WEIGHTS", weights);
    kernel_use_define(&use, "MIRRORED", s->mirrored);
    kernel_use_define(&use, "IN_CHANNELS", s->in_channels);
    kernel_use_define(&use, "OUT_CHANNELS", s->out_channels);
    kernel_use_define(&use, "IN_STEP", s->mirrored ? s->out_channels * 9 : 9);
    kernel_use_define(&use, "OUT_STEP", s->mirrored ? 9 : s->in_channels * 9);
    kernel_use_launch_items(&use, target, s->out_channels, s->in_channels);
    use.global[2] = (size_t)weights;
    return plan_pack(plan, &use, (size_t)(POINTS * weights * s->in_channels * s->out_channels), first, weights);
}

static void use_output(const struct kernel_target *target, const struct winograd_task *s, const struct term_list *terms,
                       int outputs, int64_t tiles, struct kernel_use *use) {
    kernel_use_begin(use, "winograd_output_gpu.cl");
    kernel_use_define(use, "OUTPUTS", outputs);
    kernel_use_define(use, "TERMS", terms->count);
    kernel_use_define(use, "SUMS_0", terms->sums[0]);
    kernel_use_define(use, "SUMS_1", terms->sums[1]);
    kernel_use_define(use, "CHANNELS", s->out_channels);
    define_tiles(s, tiles, use);
    kernel_use_define(use, "OUT_H", s->out_height);
    kernel_use_define(use, "OUT_W", s->out_width);
    kernel_use_launch_items(use, target, tiles, s->out_channels);
    use->global[2] = (size_t)outputs;
}

/* The images of a part in a tensor of `plane` floats an image. */
static struct plan_operand part_of(struct plan_operand whole, int64_t first, int64_t images, int64_t plane) {
    whole.offset = (size_t)(first * plane);
    whole.floats = (size_t)(images * plane);
    return whole;
}

static int plan_weight(const struct kernel_target *target, const struct kernel_class *class,
                       const struct winograd_task *s, const struct term_list *terms, const int *numbers,
                       struct kernel_plan *plan) {
    int64_t tiles = tiles_of(s, s->n), pairs = class->terms.inputs;
    const struct matmul_sizes sizes = products_of(class->pass, s, terms, s->n);
    const struct gpu_product product = gpu_product_matmul(&sizes);
    const struct product_tile *tile = tile_of(target, &sizes, numbers);
    struct product_use products = {0};
    struct kernel_use use;
    int64_t parts = gpu_parts_asked(target, &product, tile, numbers);
    const struct gpu_layers layers = layers_of(terms);
    gpu_plan_matmul(target, &sizes, &layers, tile, parts, &products);
    int64_t blocks = (int64_t)products.main.global[2] / POINTS;
    struct plan_operand x = PLAN_SCRATCH(plan_scratch(plan, (size_t)(POINTS * pairs * s->in_channels * tiles)));
    struct plan_operand y = PLAN_SCRATCH(plan_scratch(plan, (size_t)(POINTS * pairs * s->out_channels * tiles)));
    struct plan_operand m =
        PLAN_SCRATCH(plan_scratch(plan, (size_t)(POINTS * blocks * s->in_channels * s->out_channels)));
    use_input(target, s, false, (int)pairs, tiles, &use);
    plan_launch(plan, &use, 1, 1 + (int)pairs, (struct plan_operand[]){x, PLAN_INPUT(0), PLAN_INPUT(2)});
    use_input(target, s, true, (int)pairs, tiles, &use);
    plan_launch(plan, &use, 1, 1 + (int)pairs, (struct plan_operand[]){y, PLAN_INPUT(1), PLAN_INPUT(3)});
    plan_launch(plan, &products.main, 1, 3, (struct plan_operand[]){m, y, x})->share = 1;
    kernel_use_begin(&use, "winograd_gather_gpu.cl");
    kernel_use_define(&use, "BLOCKS", blocks);
    kernel_use_define(&use, "OUT_CHANNELS", s->out_channels);
    kernel_use_define(&use, "IN_CHANNELS", s->in_channels);
    kernel_use_launch_items(&use, target, s->in_channels, s->out_channels);
    plan_launch(plan, &use, 1, 2, (struct plan_operand[]){PLAN_RESULT(0), m});
    return RETORT_OK;
}

int conv_staged_plan(const struct kernel_target *target, const struct kernel_class *class, const int *numbers,
                     struct kernel_plan *plan) {
    struct term_list terms;
    list_terms(class, &terms);
    const struct winograd_task s = winograd_task(class->pass, &class->sizes);
    if (class->pass == CONV_BACKWARD_WEIGHT) return plan_weight(target, class, &s, &terms, numbers, plan);
    const int inputs = class->terms.inputs, outputs = class->terms.outputs;
    int64_t most = images_asked(target, class, &s, &terms, numbers);
    int64_t tiles = tiles_of(&s, most);
    struct plan_operand weights = pack_weights(target, &s, inputs, class->terms.weights, plan);
    struct plan_operand v = PLAN_SCRATCH(plan_scratch(plan, (size_t)(POINTS * inputs * s.in_channels * tiles)));
    struct plan_operand m = PLAN_SCRATCH(plan_scratch(plan, (size_t)(POINTS * terms.count * s.out_channels * tiles)));
    const struct gpu_layers layers = layers_of(&terms);
    for (int64_t first = 0; first < s.n; first += most) {
        int64_t images = min_of(most, s.n - first);
        const struct matmul_sizes sizes = products_of(class->pass, &s, &terms, images);
        const struct product_tile *tile = tile_of(target, &sizes, numbers);
        struct product_use products = {0};
        struct kernel_use use;
        struct plan_operand operands[PLAN_OPERANDS] = {v};
        gpu_plan_matmul(target, &sizes, &layers, tile, 1, &products);
        use_input(target, &s, false, inputs, tiles_of(&s, images), &use);
        for (int k = 0; k < inputs; k++)
            operands[1 + k] = part_of(PLAN_INPUT(k), first, images, s.in_channels * s.in_height * s.in_width);
        plan_launch(plan, &use, 1, 1 + inputs, operands);
        plan_launch(plan, &products.main, 1, 3, (struct plan_operand[]){m, weights, v})->share =
            (double)images / (double)s.n;
        use_output(target, &s, &terms, outputs, tiles_of(&s, images), &use);
        for (int k = 0; k < outputs; k++)
            operands[k] = part_of(PLAN_RESULT(k), first, images, s.out_channels * s.out_height * s.out_width);
        operands[outputs] = m;
        plan_launch(plan, &use, outputs, outputs + 1, operands);
    }
    return RETORT_OK;
}
