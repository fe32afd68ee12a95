#include "test.h"

#include "base/memory.h"
#include "base/random.h"
#include "compile/kernels_family.h"
#include "compile/wisdom.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The kernels of the GPU family, and the small ones of both, against plain loops in double. Every tensor stands between
 * guard zones of NaN, which must survive, and which spoil the result where a kernel reads them. */

enum { GUARD = 40 };

static struct device *device;
static struct random numbers;

static int begin(void **state) {
    (void)state;
    numbers = random_begin(1, RANDOM_TEST, 0);
    if (device_open(NULL, &device) == RETORT_OK) return 0;
    fprintf(stderr, "%s\n", retort_error_message());
    return -1;
}

static int end(void **state) {
    (void)state;
    assert_int_equal(device_bytes(device), 0);
    device_close(device);
    return 0;
}

/* --- programs of many kernels --- */
struct kernels {
    struct text text;
    struct device_program *program;
    int count;
};

static void kernels_begin(struct kernels *kernels, int lanes) {
    *kernels = (struct kernels){0};
    kernels_preamble(&kernels->text, lanes);
}

/* Adds a kernel; its number names it. */
static int kernels_add(struct kernels *kernels, const struct kernel_use *use) {
    assert_non_null(kernels_text(use->file));
    text_printf(&kernels->text, "#define NAME k%d\n%s%s", kernels->count, use->parameters, kernels_text(use->file));
    return kernels->count++;
}

static void kernels_build(struct kernels *kernels) {
    assert_false(kernels->text.failed);
    assert_ok(device_program_create(device, text_get(&kernels->text), "", &kernels->program));
}

static void kernels_end(struct kernels *kernels) {
    device_program_destroy(kernels->program);
    text_finish(&kernels->text);
}

/* --- tensors between guards --- */
struct tensor {
    struct device_buffer *buffer;
    uint32_t *image; /* what the buffer held before the launch, guards and all */
    float *values;   /* inside `image` */
    size_t count;
};

static struct tensor tensor_create(size_t count) {
    struct tensor tensor = {.count = count};
    size_t all = count + 2 * GUARD;
    tensor.image = malloc(4 * all);
    assert_non_null(tensor.image);
    for (size_t i = 0; i < all; i++) tensor.image[i] = 0x7fc00000u + (uint32_t)(i & 0xffff);
    tensor.values = (float *)tensor.image + GUARD;
    assert_ok(device_buffer_create(device, 4 * all, "tensor", &tensor.buffer));
    return tensor;
}

static struct tensor tensor_random(size_t count) {
    struct tensor tensor = tensor_create(count);
    for (size_t i = 0; i < count; i++) tensor.values[i] = (float)(2 * random_uniform(&numbers) - 1);
    return tensor;
}

static void tensor_upload(const struct tensor *tensor) {
    assert_ok(device_write(device, tensor->buffer, 0, 4 * (tensor->count + 2 * GUARD), tensor->image));
}

/* Takes back what the device holds now; guards must be what they were, and inputs too. */
static void tensor_download(struct tensor *tensor, bool changed) {
    size_t all = tensor->count + 2 * GUARD;
    uint32_t *now = malloc(4 * all);
    assert_non_null(now);
    assert_ok(device_read(device, tensor->buffer, 0, 4 * all, now));
    assert_memory_equal(now, tensor->image, 4 * GUARD);
    assert_memory_equal(now + GUARD + tensor->count, tensor->image + GUARD + tensor->count, 4 * GUARD);
    if (!changed) assert_memory_equal(now, tensor->image, 4 * all);
    memcpy(tensor->image, now, 4 * all);
    free(now);
}

static void tensor_destroy(struct tensor *tensor) {
    device_buffer_destroy(tensor->buffer);
    free(tensor->image);
}

/* The first `outputs` arguments are outputs. */
static void run_at(const struct kernels *kernels, int number, const struct kernel_use *use,
                   struct tensor *const *arguments, const size_t *offsets, int outputs, int count) {
    char name[16];
    struct device_kernel *kernel;
    snprintf(name, sizeof name, "k%d", number);
    assert_ok(device_kernel_create(kernels->program, name, &kernel));
    for (int i = 0; i < count; i++) {
        tensor_upload(arguments[i]);
        assert_ok(device_kernel_set_buffer(kernel, (unsigned)i, arguments[i]->buffer, GUARD + offsets[i]));
    }
    assert_ok(device_launch(device, kernel, use->global, use->local));
    for (int i = 0; i < count; i++) tensor_download(arguments[i], i < outputs);
    device_kernel_destroy(kernel);
}

/* Adds the kernels of a plan; the number of the first. */
static int plan_add(struct kernels *kernels, const struct kernel_plan *plan) {
    int first = kernels->count;
    for (int i = 0; i < plan->use_count; i++) kernels_add(kernels, &plan->uses[i]);
    return first;
}

/* Runs a plan, its scratch memory between guards too. A launch is to change its outputs alone. */
static void run_plans(const struct kernels *kernels, int first, const struct kernel_plan *plan,
                      struct tensor *const *results, struct tensor *const *inputs) {
    struct tensor memory[PLAN_SCRATCHES], *scratch[PLAN_SCRATCHES];
    for (int k = 0; k < plan->scratch_count; k++) {
        memory[k] = tensor_create(plan->scratch[k]);
        scratch[k] = &memory[k];
    }
    for (int i = 0; i < plan->launch_count; i++) {
        const struct plan_launch *launch = &plan->launches[i];
        struct tensor *arguments[PLAN_OPERANDS];
        size_t offsets[PLAN_OPERANDS];
        for (int k = 0; k < launch->count; k++) {
            const struct plan_operand *operand = &launch->operands[k];
            arguments[k] = PLAN_PICK(operand, results, inputs, scratch);
            offsets[k] = operand->offset;
        }
        run_at(kernels, first + launch->use, plan_use(plan, launch), arguments, offsets, launch->outputs,
               launch->count);
    }
    for (int k = 0; k < plan->scratch_count; k++) tensor_destroy(&memory[k]);
}

static void run_plan(const struct kernels *kernels, int first, const struct kernel_plan *plan, struct tensor *result,
                     struct tensor *const *inputs) {
    run_plans(kernels, first, plan, &result, inputs);
}

/* `sums` and the sums of magnitudes that belong to them, in double. */
static void assert_close(const struct tensor *got, const double *sums, const double *magnitudes, const char *what,
                         size_t number) {
    for (size_t i = 0; i < got->count; i++)
        if (!(fabs(got->values[i] - sums[i]) <= 1e-6 * magnitudes[i]))
            fail_msg("%s %zu: element %zu is %.9g, expected %.9g", what, number, i, got->values[i], sums[i]);
}

/* --- convolutions --- */
static const struct conv_sizes convolutions[] = {
    /* n, c, h, w, o, kh, kw; oh and ow are filled in; stride, padding */
    {33, 1, 15, 15, 3, 3, 3, 0, 0, 1, 1}, {1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 0},    {1, 1, 1, 1, 1, 3, 3, 0, 0, 1, 1},
    {2, 3, 8, 8, 16, 3, 3, 0, 0, 1, 1},   {3, 3, 15, 17, 17, 3, 3, 0, 0, 1, 1}, {2, 16, 16, 16, 15, 3, 3, 0, 0, 1, 1},
    {1, 17, 33, 3, 33, 3, 3, 0, 0, 1, 1}, {2, 15, 9, 7, 3, 5, 3, 0, 0, 2, 2},   {1, 33, 7, 9, 1, 1, 1, 0, 0, 1, 0},
    {3, 3, 16, 15, 16, 4, 4, 0, 0, 2, 1}, {2, 1, 17, 16, 3, 7, 7, 0, 0, 4, 3},  {1, 3, 5, 5, 2, 5, 5, 0, 0, 1, 4},
    {2, 2, 11, 6, 3, 2, 3, 0, 0, 3, 0},   {1, 2, 4, 4, 3, 1, 1, 0, 0, 2, 1},
};
enum { CONVOLUTIONS = sizeof convolutions / sizeof *convolutions };

enum direction { FORWARD, BACKWARD_DATA, BACKWARD_WEIGHT, DIRECTIONS };

/* All three directions are the one trilinear sum over (n, o, c, oy, ox, ky, kx), read out at y, x or w. */
static void convolve(const struct conv_sizes *s, enum direction direction, const float *x, const float *w,
                     const float *y, double *sums, double *magnitudes) {
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t o = 0; o < s->o; o++)
            for (int64_t c = 0; c < s->c; c++)
                for (int64_t oy = 0; oy < s->oh; oy++)
                    for (int64_t ox = 0; ox < s->ow; ox++)
                        for (int64_t ky = 0; ky < s->kh; ky++)
                            for (int64_t kx = 0; kx < s->kw; kx++) {
                                int64_t iy = oy * s->stride - s->padding + ky, ix = ox * s->stride - s->padding + kx;
                                if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
                                int64_t at_x = ((n * s->c + c) * s->h + iy) * s->w + ix;
                                int64_t at_y = ((n * s->o + o) * s->oh + oy) * s->ow + ox;
                                int64_t at_w = ((o * s->c + c) * s->kh + ky) * s->kw + kx;
                                double term = direction == FORWARD         ? (double)x[at_x] * w[at_w]
                                              : direction == BACKWARD_DATA ? (double)y[at_y] * w[at_w]
                                                                           : (double)y[at_y] * x[at_x];
                                int64_t to = direction == FORWARD ? at_y : direction == BACKWARD_DATA ? at_x : at_w;
                                sums[to] += term;
                                magnitudes[to] += fabs(term);
                            }
}

/* A convolution's launches in a program, from kernel `first` on. */
struct planned {
    enum direction direction;
    struct conv_sizes sizes;
    struct kernel_plan plan;
    int first;
    char what[64];
};

static struct conv_sizes with_result(const struct conv_sizes *sizes) {
    struct conv_sizes s = *sizes;
    s.oh = (s.h + 2 * s.padding - s.kh) / s.stride + 1;
    s.ow = (s.w + 2 * s.padding - s.kw) / s.stride + 1;
    return s;
}

static void planned_check(const struct planned *planned, const struct kernels *kernels, size_t number) {
    const struct conv_sizes *s = &planned->sizes;
    enum direction direction = planned->direction;
    size_t counts[DIRECTIONS] = {(size_t)(s->n * s->o * s->oh * s->ow), (size_t)(s->n * s->c * s->h * s->w),
                                 (size_t)(s->o * s->c * s->kh * s->kw)};
    struct tensor tensors[DIRECTIONS]; /* y, x, w */
    for (int t = 0; t < DIRECTIONS; t++)
        tensors[t] = t == (int)direction ? tensor_create(counts[t]) : tensor_random(counts[t]);
    struct tensor *out = &tensors[direction], *y = &tensors[0], *x = &tensors[1], *w = &tensors[2];
    double *sums = calloc(out->count, sizeof *sums), *magnitudes = calloc(out->count, sizeof *sums);
    assert_true(sums && magnitudes);
    convolve(s, direction, x->values, w->values, y->values, sums, magnitudes);
    struct tensor *inputs[] = {direction == BACKWARD_DATA ? y : x, direction == BACKWARD_WEIGHT ? y : w};
    run_plan(kernels, planned->first, &planned->plan, out, inputs);
    assert_close(out, sums, magnitudes, planned->what, number);
    for (int t = 0; t < DIRECTIONS; t++) tensor_destroy(&tensors[t]);
    free(sums);
    free(magnitudes);
}

static const char *const direction_names[] = {"conv", "conv_backward_data", "conv_backward_weight"};
static const enum conv_pass passes[] = {CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHT};

static void check_convolutions(const struct device_traits *traits, size_t step) {
    struct kernel_target target = {traits, FAMILY_GPU, 1};
    struct kernels kernels;
    static struct planned all[CONVOLUTIONS * DIRECTIONS];
    size_t count = 0;
    kernels_begin(&kernels, 1);
    for (size_t i = 0; i < CONVOLUTIONS; i += step)
        for (int direction = 0; direction < DIRECTIONS; direction++) {
            struct planned *planned = &all[count++];
            *planned = (struct planned){.direction = direction, .sizes = with_result(&convolutions[i])};
            struct kernel_class class = {passes[direction], planned->sizes, CONV_SINGLE};
            snprintf(planned->what, sizeof planned->what, "%s", direction_names[direction]);
            assert_ok(kernels_plan(&target, &class, &planned->plan));
            planned->first = plan_add(&kernels, &planned->plan);
        }
    kernels_build(&kernels);
    for (size_t i = 0; i < count; i++) planned_check(&all[i], &kernels, i / DIRECTIONS * step);
    kernels_end(&kernels);
}

static void test_convolutions(void **state) {
    (void)state;
    check_convolutions(device_traits(device), 1 + TEST_SMALL);
}

/* Other tiles than this device's own traits lead to: small work-groups, and a device that is easily filled. */
static void test_other_tiles(void **state) {
    (void)state;
    struct device_traits traits = *device_traits(device);
    traits.lanes = 1;
    traits.max_work_group = 17;
    check_convolutions(&traits, 4);
    traits.max_work_group = 1;
    check_convolutions(&traits, 5);
}

/* Every tile there is, whatever is chosen, whole sums and sums in parts: ragged rows and columns, sums that do not
 * divide by the stripe, images whose rows are odd, many and few channels, taps with holes between them. */
static const struct conv_sizes forced[] = {
    {2, 20, 9, 7, 70, 3, 3, 0, 0, 1, 1},  {3, 3, 8, 8, 33, 3, 3, 0, 0, 1, 1}, {1, 64, 8, 8, 32, 3, 3, 0, 0, 1, 1},
    {2, 37, 11, 10, 9, 5, 5, 0, 0, 2, 2}, {2, 34, 6, 6, 5, 1, 1, 0, 0, 1, 0}, {5, 1, 12, 12, 17, 3, 3, 0, 0, 1, 1},
};
enum { FORCED = sizeof forced / sizeof *forced };

static struct gpu_product product_of(enum conv_pass pass, const struct conv_sizes *sizes) {
    const struct kernel_class class = {pass, *sizes, CONV_SINGLE};
    return gpu_product_conv(&class);
}

/* The same with sums as short as show the borders of a stripe, which is what the time of a large tile goes with. */
static struct conv_sizes with_short_sum(struct conv_sizes s, enum direction direction) {
    int64_t *summed = direction == FORWARD ? &s.c : direction == BACKWARD_DATA ? &s.o : &s.n;
    int64_t most = direction == BACKWARD_WEIGHT ? 1 : 10;
    if (*summed > most) *summed = most;
    return s;
}

static void test_every_tile_of_convolutions(void **state) {
    (void)state;
    struct kernel_target target = {device_traits(device), FAMILY_GPU, 1};
    int tile_count, used = 0;
    const struct product_tile *tiles = gpu_tiles(&tile_count);
    for (int t = 0; t < tile_count; t++) {
        struct kernels kernels;
        static struct planned all[DIRECTIONS];
        size_t count = 0;
        kernels_begin(&kernels, 1);
        for (int k = 0; k < DIRECTIONS; k++) {
            struct planned planned = {.direction = k};
            int parts = (t + k) % 2 ? 1 : 3;
            if (k == 1 + t % 2) continue; /* either of the two derivatives: programs take their time to build */
            planned.sizes = with_result(&forced[(t * 5 + k) % FORCED]);
            if (TEST_SMALL) planned.sizes = with_short_sum(planned.sizes, planned.direction);
            struct gpu_product product = product_of(passes[k], &planned.sizes);
            if (!gpu_tile_fits(&target, &product, &tiles[t])) continue;
            const struct kernel_class class = {passes[k], planned.sizes, CONV_SINGLE};
            struct product_use use = {0};
            gpu_plan_conv(&target, &class, &tiles[t], parts, &use);
            kernels_plan_conv(&use, &class, &planned.plan);
            snprintf(planned.what, sizeof planned.what, "%s, %d parts, size %d, tile", direction_names[k], parts,
                     (t * 5 + k) % FORCED);
            planned.first = plan_add(&kernels, &planned.plan);
            all[count++] = planned;
        }
        used += count > 0;
        if (count) kernels_build(&kernels);
        for (size_t i = 0; i < count; i++) planned_check(&all[i], &kernels, (size_t)t);
        kernels_end(&kernels);
    }
    assert_true(used > tile_count / 2); /* a device whose groups are small cannot run all */
}

/* --- single convolutions, joined ones and pairs: staged Winograd, whole and in parts of the batch, and products --- */
/* Bits of a mask: (result * 2 + input) * 2 + weights. */
#define TERM(o, i, w) (1u << (((o)*2 + (i)) * 2 + (w)))
static const struct conv_terms some_terms[] = {
    {1, 1, 1, 1},
    {2, 2, 2, TERM(0, 0, 0) | TERM(1, 1, 0) | TERM(1, 0, 1)},
    {1, 2, 2, TERM(0, 1, 0) | TERM(0, 0, 1)},
    {2, 2, 1, TERM(0, 0, 0) | TERM(1, 1, 0)},
    {2, 1, 2, TERM(0, 0, 0) | TERM(1, 0, 1)},
};
enum { SOME_TERMS = sizeof some_terms / sizeof *some_terms, JOINED_OPERANDS = 6 };

struct joined_case {
    struct kernel_class class;
    bool spreads; /* errors over a tile */
    struct kernel_plan plan;
    int first;
};

/* The sums over the terms, in double, of each result; inputs and weights, or pairs of x and y, lie in `in`. */
static void joined_reference(const struct kernel_class *class, const struct tensor *in, int result, double *sums,
                             double *magnitudes) {
    const struct conv_terms *t = &class->terms;
    if (class->pass == CONV_BACKWARD_WEIGHT) {
        for (int k = 0; k < t->inputs; k++)
            convolve(&class->sizes, BACKWARD_WEIGHT, in[2 * k].values, NULL, in[2 * k + 1].values, sums, magnitudes);
        return;
    }
    for (int i = 0; i < t->inputs; i++)
        for (int w = 0; w < t->weights; w++) {
            if (!(t->mask >> ((result * 2 + i) * 2 + w) & 1)) continue;
            const float *x = in[i].values, *weights = in[t->inputs + w].values;
            bool forward = class->pass == CONV_FORWARD;
            convolve(&class->sizes, forward ? FORWARD : BACKWARD_DATA, forward ? x : NULL, weights, forward ? NULL : x,
                     sums, magnitudes);
        }
}

static void joined_check(const struct kernels *kernels, const struct joined_case *k, size_t number) {
    const struct kernel_class *class = &k->class;
    const struct conv_sizes *s = &class->sizes;
    const struct conv_terms *t = &class->terms;
    size_t y = (size_t)(s->n * s->o * s->oh * s->ow), x = (size_t)(s->n * s->c * s->h * s->w);
    size_t w = (size_t)(s->o * s->c * s->kh * s->kw);
    bool weight = class->pass == CONV_BACKWARD_WEIGHT, forward = class->pass == CONV_FORWARD;
    struct tensor results[2], in[JOINED_OPERANDS], *result_list[2], *input_list[JOINED_OPERANDS];
    int inputs = weight ? 2 * t->inputs : t->inputs + t->weights, outputs = weight ? 1 : t->outputs;
    for (int i = 0; i < inputs; i++) {
        in[i] = tensor_random(weight ? (i % 2 ? y : x) : i >= t->inputs ? w : forward ? x : y);
        input_list[i] = &in[i];
    }
    for (int o = 0; o < outputs; o++) {
        results[o] = tensor_create(weight ? w : forward ? y : x);
        result_list[o] = &results[o];
    }
    run_plans(kernels, k->first, &k->plan, result_list, input_list);
    for (int o = 0; o < outputs; o++) {
        double *sums = calloc(results[o].count, sizeof *sums), *magnitudes = calloc(results[o].count, sizeof *sums);
        double largest = 0;
        assert_true(sums && magnitudes);
        joined_reference(class, in, o, sums, magnitudes);
        for (size_t i = 0; i < results[o].count; i++) largest = fmax(largest, magnitudes[i]);
        /* The transforms spread an error over a tile: it is measured by the largest sum of magnitudes. */
        for (size_t i = 0; i < results[o].count && k->spreads; i++) magnitudes[i] = 2 * largest;
        assert_close(&results[o], sums, magnitudes, k->spreads ? "staged" : "product", number);
        free(sums);
        free(magnitudes);
        tensor_destroy(&results[o]);
    }
    for (int i = 0; i < inputs; i++) tensor_destroy(&in[i]);
}

/* All passes and terms by one row of the choice, with its candidates in turn. Returns how many are in parts. */
enum { JOINED_ROWS = 5 };
static int check_joined(const char *variant, const struct conv_sizes rows[JOINED_ROWS]) {
    static const enum conv_pass passes_of[] = {CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHT};
    struct kernel_target target = {device_traits(device), FAMILY_GPU, 1};
    static struct joined_case cases[JOINED_ROWS * 4];
    struct kernels kernels;
    int count = 0, in_parts = 0;
    bool staged = strcmp(variant, "staged") == 0;
    kernels_begin(&kernels, 1);
    for (int r = 0; r < JOINED_ROWS; r++) /* Where tests are small, one pass of each row. */
        for (int k = TEST_SMALL ? (r + 2) % 3 : 0; k < 4; k += TEST_SMALL ? 4 : 1) {
            struct joined_case *c = &cases[count++];
            c->spreads = staged;
            struct kernel_choice list[CANDIDATES];
            struct wisdom *wisdom;
            enum conv_pass pass = passes_of[k % 3];
            int pairs = 1 + (r + k) % 2;
            c->class = (struct kernel_class){pass, with_result(&rows[r]), some_terms[(r + k) % SOME_TERMS]};
            if (pass == CONV_BACKWARD_WEIGHT) c->class.terms = (struct conv_terms){1, pairs, pairs, pairs == 1};
            int found = kernels_candidates(&target, &c->class, kernels_variant(variant), list);
            assert_true(found > 1);
            struct kernel_choice choice = list[1 + (r * 4 + k) % (found - 1)];
            if (!staged || pass == CONV_BACKWARD_WEIGHT)
                choice.parameters[TILE_PARTS] = 1 + r % 3;
            else if (c->class.sizes.n > 1)
                choice.parameters[TILE_NUMBERS] = 2; /* images of a part */
            assert_true(kernels_fits(&target, &c->class, &choice));
            assert_ok(wisdom_of_one(&c->class, &choice, &wisdom));
            target.wisdom = wisdom;
            assert_ok(kernels_plan(&target, &c->class, &c->plan));
            target.wisdom = NULL;
            wisdom_destroy(wisdom);
            in_parts += staged ? c->plan.launch_count > 4 : c->plan.splits[c->class.terms.outputs - 1].launch > 0;
            c->first = plan_add(&kernels, &c->plan);
        }
    kernels_build(&kernels);
    for (int i = 0; i < count; i++) joined_check(&kernels, &cases[i], (size_t)i);
    kernels_end(&kernels);
    return in_parts;
}

static void test_staged_winograd(void **state) {
    (void)state;
    static const struct conv_sizes rows[JOINED_ROWS] = {
        {3, 5, 9, 6, 7, 3, 3, 0, 0, 1, 1},  {2, 17, 8, 8, 20, 3, 3, 0, 0, 1, 1}, {5, 4, 2, 3, 33, 3, 3, 0, 0, 1, 1},
        {1, 3, 11, 7, 6, 3, 3, 0, 0, 1, 0}, {2, 6, 5, 13, 5, 3, 3, 0, 0, 1, 2},
    };
    assert_true(check_joined("staged", rows) > (TEST_SMALL ? 0 : 2));
}

static void test_joined_products(void **state) {
    (void)state;
    static const struct conv_sizes rows[JOINED_ROWS] = {
        {3, 37, 9, 6, 7, 3, 3, 0, 0, 1, 1}, {2, 17, 8, 8, 20, 3, 3, 0, 0, 1, 1},  {5, 4, 5, 6, 33, 5, 3, 0, 0, 2, 2},
        {1, 3, 11, 7, 6, 3, 3, 0, 0, 1, 0}, {2, 40, 5, 13, 70, 1, 1, 0, 0, 1, 0},
    };
    assert_true(check_joined("product", rows) > (TEST_SMALL ? 0 : 4));
}

/* --- matrix products --- */
static void check_matmul(const struct matmul_sizes *s, const struct kernel_plan *plan, const struct kernels *kernels,
                         int number, const char *what, size_t i) {
    int64_t batch = s->batch, m = s->m, n = s->n, k = s->k;
    struct tensor a = tensor_random((size_t)(batch * m * k)), b = tensor_random((size_t)(batch * k * n));
    struct tensor c = tensor_create((size_t)(batch * m * n));
    double *sums = calloc(c.count, sizeof *sums), *magnitudes = calloc(c.count, sizeof *sums);
    assert_true(sums && magnitudes);
    for (int64_t at = 0; at < batch * m * n; at++)
        for (int64_t l = 0; l < k; l++) {
            int64_t layer = at / (m * n), row = at / n % m, column = at % n;
            double term = (double)a.values[layer * m * k + (s->transpose_a ? l * m + row : row * k + l)]
                          * b.values[layer * k * n + (s->transpose_b ? column * k + l : l * n + column)];
            sums[at] += term;
            magnitudes[at] += fabs(term);
        }
    run_plan(kernels, number, plan, &c, (struct tensor *[]){&a, &b});
    assert_close(&c, sums, magnitudes, what, i);
    tensor_destroy(&a);
    tensor_destroy(&b);
    tensor_destroy(&c);
    free(sums);
    free(magnitudes);
}

static void test_matmul(void **state) {
    (void)state;
    static const struct matmul_sizes products[] = {
        {1, 1, 1, 1},   {1, 1, 33, 1}, {3, 15, 17, 3},   {1, 16, 16, 16},
        {2, 33, 3, 17}, {1, 3, 1, 33}, {1, 65, 130, 33}, {1, 17, 15, 300},
    };
    enum { PRODUCTS = sizeof products / sizeof *products };
    struct device_traits traits = *device_traits(device);
    for (int wide = 0; wide < 2; wide++) {
        struct kernel_target target = {&traits, FAMILY_GPU, 1};
        struct kernels kernels;
        static struct kernel_plan plans[PRODUCTS];
        struct matmul_sizes sizes[PRODUCTS];
        int first[PRODUCTS];
        bool in_parts = false;
        kernels_begin(&kernels, 1);
        for (int i = 0; i < PRODUCTS; i++) {
            sizes[i] = products[i];
            sizes[i].transpose_a = i % 2;
            sizes[i].transpose_b = i / 2 % 2;
            assert_ok(kernels_matmul(&target, &sizes[i], &plans[i]));
            first[i] = plan_add(&kernels, &plans[i]);
            in_parts |= plans[i].launch_count > 1;
        }
        kernels_build(&kernels);
        for (int i = 0; i < PRODUCTS; i++) check_matmul(&sizes[i], &plans[i], &kernels, first[i], "matmul", (size_t)i);
        kernels_end(&kernels);
        /* Then on a device so large that long sums are cut. */
        assert_int_equal(in_parts, wide);
        traits.lanes = traits.compute_units = 5000;
    }
}

static void test_every_tile_of_matmul(void **state) {
    (void)state;
    static const struct matmul_sizes sizes[] = {{2, 70, 37, 45}, {1, 128, 64, 64}, {3, 5, 140, 33}};
    struct kernel_target target = {device_traits(device), FAMILY_GPU, 1};
    int tile_count;
    const struct product_tile *tiles = gpu_tiles(&tile_count);
    for (int t = 0; t < tile_count; t++) {
        struct kernels kernels;
        struct matmul_sizes s = sizes[t % 3];
        static struct kernel_plan plan;
        struct product_use use = {0};
        s.transpose_a = t & 1 || !tiles[t].local_a;
        s.transpose_b = t >> 1 & 1 && tiles[t].local_b;
        struct gpu_product product = gpu_product_matmul(&s);
        if (!gpu_tile_fits(&target, &product, &tiles[t])) continue;
        gpu_plan_matmul(&target, &s, NULL, &tiles[t], 1 + t / 4 % 2, &use);
        plan = (struct kernel_plan){0};
        kernels_plan_product(&use, 1, 2, 1, &plan);
        kernels_begin(&kernels, 1);
        int first = plan_add(&kernels, &plan);
        kernels_build(&kernels);
        check_matmul(&s, &plan, &kernels, first, "matmul in tile", (size_t)t);
        kernels_end(&kernels);
    }
}

/* What is chosen for devices that need not be here. */
static void test_choice(void **state) {
    (void)state;
    const struct device_traits gpu = {
        .kind = DEVICE_GPU, .vector_width = 4, .max_work_group = 256, .local_memory = 65536, .fma = true};
    struct device_traits small = gpu, large = gpu, narrow = gpu, one = gpu, processor = gpu;
    small.lanes = 3584, small.wave = 32;
    large.lanes = 16896, large.wave = 32;
    narrow.lanes = 4096, narrow.sub_groups = 8 + 16 + 32;
    one.lanes = 64, one.max_work_group = 1;
    processor.kind = DEVICE_CPU, processor.lanes = 16, processor.compute_units = 2;
    const struct conv_sizes wide = {100, 128, 16, 16, 128, 3, 3, 16, 16, 1, 1};
    const struct conv_sizes few = {10, 128, 8, 8, 128, 3, 3, 8, 8, 1, 1};
    const struct conv_sizes first = {100, 3, 32, 32, 128, 3, 3, 32, 32, 1, 1};
    const struct matmul_sizes head = {1, 50, 10, 2048};
    const struct {
        const struct device_traits *traits;
        struct gpu_product product;
        int tile_m, tile_n, work_m, work_n;
        bool local, in_parts;
    } cases[] = {
        {&small, product_of(CONV_FORWARD, &wide), 128, 128, 8, 8, true, false},
        {&large, product_of(CONV_FORWARD, &wide), 128, 128, 8, 8, true, false},
        {&narrow, product_of(CONV_FORWARD, &wide), 64, 64, 4, 8, true, false},
        {&small, product_of(CONV_FORWARD, &few), 128, 64, 8, 8, true, true},
        {&large, product_of(CONV_FORWARD, &few), 64, 32, 4, 4, true, true},
        {&narrow, product_of(CONV_BACKWARD_DATA, &few), 64, 64, 4, 8, true, true},
        {&large, product_of(CONV_BACKWARD_WEIGHT, &wide), 128, 128, 8, 8, true, true},
        {&small, product_of(CONV_FORWARD, &first), 16, 256, 16, 4, false, false},
        {&small, product_of(CONV_BACKWARD_DATA, &first), 4, 256, 4, 4, false, false},
        {&small, product_of(CONV_BACKWARD_WEIGHT, &first), 64, 32, 4, 4, true, true},
        {&small, gpu_product_matmul(&head), 16, 16, 2, 2, true, true},
        {&one, product_of(CONV_FORWARD, &first), 4, 4, 4, 4, true, false},
        {&processor, product_of(CONV_FORWARD, &wide), 4, 8, 4, 8, true, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct kernel_target target = {cases[i].traits, FAMILY_GPU, 1};
        const struct product_tile *tile = gpu_tile_choose(&target, &cases[i].product);
        assert_non_null(tile);
        int64_t parts = gpu_parts(&target, &cases[i].product, tile);
        if (tile->tile_m != cases[i].tile_m || tile->tile_n != cases[i].tile_n || tile->work_m != cases[i].work_m
            || tile->work_n != cases[i].work_n || tile->local_b != cases[i].local || (parts > 1) != cases[i].in_parts)
            fail_msg("case %zu: %d x %d by %d x %d in %d parts", i, tile->tile_m, tile->tile_n, tile->work_m,
                     tile->work_n, (int)parts);
    }
}

/* --- the small kernels: first for the GPU family, then for the CPU family with vectors of 4 and of 16 --- */
static const struct {
    enum family family;
    int lanes;
} families[] = {{FAMILY_GPU, 1}, {FAMILY_CPU, 4}, {FAMILY_CPU, 16}};
enum { FAMILIES = sizeof families / sizeof *families };

static void test_relayout(void **state) {
    (void)state;
    static const int64_t shapes[][4] = {{1, 1, 1, 1}, {2, 3, 5, 3}, {1, 16, 15, 17}, {2, 17, 1, 33}, {1, 33, 20, 16}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    for (int f = 0; f < FAMILIES; f++) {
        struct kernel_target target = {device_traits(device), families[f].family, families[f].lanes};
        struct kernels kernels;
        static struct kernel_plan there[SHAPES], back[SHAPES], none;
        kernels_begin(&kernels, target.lanes);
        for (int i = 0; i < SHAPES; i++) {
            const int64_t *s = shapes[i];
            assert_ok(kernels_relayout(&target, s[0], s[1], s[2], s[3], LAYOUT_PLAIN, LAYOUT_PLAIN, &none));
            assert_int_equal(none.launch_count, 0);
            assert_ok(kernels_relayout(&target, s[0], s[1], s[2], s[3], LAYOUT_PLAIN, LAYOUT_BLOCKED, &there[i]));
            assert_ok(kernels_relayout(&target, s[0], s[1], s[2], s[3], LAYOUT_BLOCKED, LAYOUT_PLAIN, &back[i]));
            if (target.lanes == 1) {
                assert_int_equal(there[i].launch_count + back[i].launch_count, 0);
                continue;
            }
            plan_add(&kernels, &there[i]);
            plan_add(&kernels, &back[i]);
        }
        if (target.lanes > 1) kernels_build(&kernels);
        for (int i = 0; i < SHAPES && target.lanes > 1; i++) {
            size_t n = (size_t)shapes[i][0], c = (size_t)shapes[i][1], pixels = (size_t)(shapes[i][2] * shapes[i][3]);
            size_t lanes = (size_t)target.lanes, blocks = (c + lanes - 1) / lanes;
            struct tensor plain = tensor_random(n * c * pixels), again = tensor_create(n * c * pixels);
            struct tensor blocked = tensor_create(n * blocks * pixels * lanes);
            run_plan(&kernels, 2 * i, &there[i], &blocked, (struct tensor *[]){&plain});
            for (size_t at = 0; at < blocked.count; at++) {
                size_t channel = at / lanes / pixels % blocks * lanes + at % lanes, pixel = at / lanes % pixels;
                size_t image = at / lanes / pixels / blocks;
                float expected = channel < c ? plain.values[(image * c + channel) * pixels + pixel] : 0;
                assert_true(blocked.values[at] == expected);
            }
            run_plan(&kernels, 2 * i + 1, &back[i], &again, (struct tensor *[]){&blocked});
            assert_memory_equal(again.values, plain.values, 4 * plain.count);
            tensor_destroy(&plain);
            tensor_destroy(&again);
            tensor_destroy(&blocked);
        }
        kernels_end(&kernels);
    }
}

static void test_scatter_rows(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{1, 1, 1},    {15, 3, 4},   {33, 17, 16}, {3, 1030, 3},
                                        {70, 5, 200}, {300, 3, 67}, {65, 2, 1}}; /* rows, width, count */
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    for (int f = 0; f < FAMILIES; f++) {
        struct kernel_target target = {device_traits(device), families[f].family, families[f].lanes};
        struct kernels kernels;
        static struct kernel_plan plans[SHAPES];
        int first[SHAPES];
        kernels_begin(&kernels, target.lanes);
        for (int i = 0; i < SHAPES; i++) {
            assert_ok(kernels_scatter_rows(&target, shapes[i][0], shapes[i][1], shapes[i][2], &plans[i]));
            /* All indices are looked at only where they are few. */
            assert_int_equal(plans[i].scratch_count, shapes[i][0] > 64);
            if (plans[i].scratch_count) assert_int_equal(plans[i].scratch[0], shapes[i][0] + shapes[i][2]);
            first[i] = plan_add(&kernels, &plans[i]);
        }
        kernels_build(&kernels);
        for (int i = 0; i < SHAPES; i++) {
            size_t rows = (size_t)shapes[i][0], width = (size_t)shapes[i][1], count = (size_t)shapes[i][2];
            struct tensor values = tensor_random(rows * width), index = tensor_create(rows);
            struct tensor out = tensor_create(count * width);
            int32_t *indices = (int32_t *)(void *)index.values;
            float *expected = calloc(out.count, sizeof *expected);
            assert_non_null(expected);
            for (size_t row = 0; row < rows; row++) {
                indices[row] = (int32_t)(random_below(&numbers, (uint32_t)count + 2)) - 1; /* outside too */
                if (row == 0) indices[row] = 0;
                if (indices[row] < 0 || indices[row] >= (int32_t)count) continue;
                for (size_t j = 0; j < width; j++)
                    expected[(size_t)indices[row] * width + j] += values.values[row * width + j];
            }
            run_plan(&kernels, first[i], &plans[i], &out, (struct tensor *[]){&values, &index});
            assert_memory_equal(out.values, expected, 4 * out.count); /* the same additions in the same order */
            tensor_destroy(&values);
            tensor_destroy(&index);
            tensor_destroy(&out);
            free(expected);
        }
        kernels_end(&kernels);
    }
}

/* The matrix of one image's sampling, row by output, column by input, from the definition: nearness by columns times
 * nearness by rows. */
static double *sampling_matrix(const float map[6], int64_t h, int64_t w) {
    double *matrix = calloc((size_t)(h * w * h * w), sizeof *matrix);
    assert_non_null(matrix);
    for (int64_t out = 0; out < h * w; out++)
        for (int64_t in = 0; in < h * w; in++) {
            double u = (double)(out % w) - (double)(w - 1) / 2, v = (double)(out / w) - (double)(h - 1) / 2;
            double dx =
                (double)map[0] * u + (double)map[1] * v + (double)map[2] - ((double)(in % w) - (double)(w - 1) / 2);
            double dy =
                (double)map[3] * u + (double)map[4] * v + (double)map[5] - ((double)(in / w) - (double)(h - 1) / 2);
            if (fabs(dx) < 1 && fabs(dy) < 1) matrix[out * h * w + in] = (1 - fabs(dx)) * (1 - fabs(dy));
        }
    return matrix;
}

static void test_sample(void **state) {
    (void)state;
    static const int64_t shapes[][4] = {{9, 1, 1, 1}, {9, 3, 16, 15}, {9, 5, 3, 17}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    static const float maps[9][6] = {
        {1, 0, 0, 0, 1, 0},                    /* identity */
        {1, 0, 2.25f, 0, 1, -1.5f},            /* shift */
        {0.8f, -0.6f, 0.3f, 0.6f, 0.8f, 0.1f}, /* rotation */
        {-1.3f, 0.2f, 0, 0.1f, 0.7f, 0},       /* mirrored, stretched, sheared */
        {0.1f, 0, 0, 0, 0.15f, 0},             /* enlarged: many outputs read one pixel */
        {7, 0, 0, 0, 9, 0.5f},                 /* shrunk: most outputs read outside */
        {0.5f, 1, 0, 0.25f, 0.5f, 0},          /* singular: a line */
        {0, 0, 0.5f, 0, 0, -0.25f},            /* singular: a point */
        {1e30f, 0, 0, 0, NAN,
         0}, /* no sensible map: any result is right as long as nothing outside the tensors is touched */
    };
    for (int f = 0; f < 2; f++) {
        struct kernel_target target = {device_traits(device), families[f].family, families[f].lanes};
        struct kernels kernels;
        static struct kernel_plan plans[SHAPES][2];
        kernels_begin(&kernels, target.lanes);
        for (int i = 0; i < SHAPES; i++)
            for (int transpose = 0; transpose < 2; transpose++) {
                const int64_t *s = shapes[i];
                assert_ok(kernels_sample(&target, s[0], s[1], s[2], s[3], transpose, &plans[i][transpose]));
                plan_add(&kernels, &plans[i][transpose]);
            }
        kernels_build(&kernels);
        for (int i = 0; i < SHAPES; i++)
            for (int transpose = 0; transpose < 2; transpose++) {
                int64_t n = shapes[i][0], c = shapes[i][1], h = shapes[i][2], w = shapes[i][3], pixels = h * w;
                struct tensor image = tensor_random((size_t)(n * c * pixels)), map = tensor_create((size_t)n * 6);
                struct tensor out = tensor_create(image.count);
                memcpy(map.values, maps, sizeof maps);
                run_plan(&kernels, 2 * i + transpose, &plans[i][transpose], &out, (struct tensor *[]){&image, &map});
                for (int64_t plane = 0; plane < 8 * c; plane++) {
                    double *matrix = sampling_matrix(maps[plane / c], h, w);
                    for (int64_t to = 0; to < pixels; to++) {
                        double sum = 0, weights = 0;
                        for (int64_t from = 0; from < pixels; from++) {
                            double weight = transpose ? matrix[from * pixels + to] : matrix[to * pixels + from];
                            sum += weight * (double)image.values[plane * pixels + from];
                            weights += weight;
                        }
                        /* Positions are rounded to float, with coordinates up to some 100. */
                        if (!(fabs(out.values[plane * pixels + to] - sum) <= 1e-5 * (1 + weights)))
                            fail_msg("sample %d, transpose %d, plane %d, pixel %d: %g, expected %g", i, transpose,
                                     (int)plane, (int)to, out.values[plane * pixels + to], sum);
                    }
                    free(matrix);
                }
                tensor_destroy(&image);
                tensor_destroy(&map);
                tensor_destroy(&out);
            }
        kernels_end(&kernels);
    }
}

static void test_eigh(void **state) {
    (void)state;
    enum { SIZES = 6, KINDS = 3 };
    static const int64_t orders[SIZES] = {1, 2, 3, 16, 33, 128};
    struct kernel_target target = {device_traits(device), FAMILY_GPU, 1};
    struct kernels kernels;
    static struct kernel_plan plans[SIZES];
    /* Mesa's llvmpipe ends every loop of a work-item after 65535 turns in all (the self-test finds that), and Oclgrind
     * needs minutes. */
    const char *platform = device_traits(device)->platform;
    int sizes = strcmp(platform, "rusticl") == 0 || strcmp(platform, "Oclgrind") == 0 ? 4 : SIZES;
    kernels_begin(&kernels, 1);
    for (int i = 0; i < sizes; i++) {
        assert_ok(kernels_eigh(&target, orders[i], &plans[i]));
        plan_add(&kernels, &plans[i]);
    }
    assert_int_equal(kernels_eigh(&target, 129, &plans[0]), RETORT_EUNSUPPORTED);
    assert_int_equal(kernels_eigh(&target, 0, &plans[0]), RETORT_EUNSUPPORTED);
    assert_ok(kernels_eigh(&target, orders[0], &plans[0]));
    kernels_build(&kernels);
    for (int i = 0; i < sizes; i++)
        for (int kind = 0; kind < KINDS; kind++) {
            size_t k = (size_t)orders[i];
            struct tensor matrix = tensor_random(k * k), out = tensor_create((k + 1) * k);
            double norm = 0;
            for (size_t r = 0; r < k; r++)
                for (size_t c = 0; c <= r; c++) {
                    float *at = &matrix.values[r * k + c];
                    if (kind == 1 && r > c + 1) *at = 0;              /* tridiagonal, as in Lanczos */
                    if (kind == 2) *at = r == c ? (float)(r / 2) : 0; /* diagonal already, pairs of equal values */
                    matrix.values[c * k + r] = *at;
                }
            for (size_t at = 0; at < k * k; at++) norm += (double)matrix.values[at] * (double)matrix.values[at];
            norm = sqrt(norm);
            run_plan(&kernels, i, &plans[i], &out, (struct tensor *[]){&matrix});
            const float *values = out.values, *vectors = out.values + k;
            for (size_t a = 0; a < k; a++) {
                if (a) assert_true(fabsf(values[a - 1]) >= fabsf(values[a]));
                for (size_t r = 0; r < k; r++) { /* A v = lambda v */
                    double sum = 0;
                    for (size_t c = 0; c < k; c++) sum += (double)matrix.values[r * k + c] * (double)vectors[a * k + c];
                    assert_true(fabs(sum - (double)values[a] * (double)vectors[a * k + r]) <= 2e-6 * norm + 1e-30);
                }
                for (size_t b = 0; b <= a; b++) { /* orthonormal */
                    double dot = 0;
                    for (size_t c = 0; c < k; c++) dot += (double)vectors[a * k + c] * (double)vectors[b * k + c];
                    assert_true(fabs(dot - (a == b)) <= 1e-5);
                }
            }
            tensor_destroy(&matrix);
            tensor_destroy(&out);
        }
    kernels_end(&kernels);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_convolutions),
        cmocka_unit_test(test_other_tiles),
        cmocka_unit_test(test_every_tile_of_convolutions),
        cmocka_unit_test(test_staged_winograd),
        cmocka_unit_test(test_joined_products),
        cmocka_unit_test(test_matmul),
        cmocka_unit_test(test_every_tile_of_matmul),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_relayout),
        cmocka_unit_test(test_scatter_rows),
        cmocka_unit_test(test_sample),
        cmocka_unit_test(test_eigh),
    };
    return cmocka_run_group_tests_name("kernels_gpu", tests, begin, end);
}
