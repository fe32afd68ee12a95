/* Every hand-written kernel against loops in double, at awkward sizes. All cases of a target are one program. Operands,
 * packed weights and scratch lie in one buffer at odd offsets, each between guards of NaN: a kernel that reads past an
 * operand makes a result NaN, one that writes past it changes a guard, one that leaves a gap leaves a NaN. */
#include "test.h"

#include "base/memory.h"
#include "base/random.h"
#include "compile/kernels_family.h"
#include "compile/wisdom.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { CONV, CONV_DATA, CONV_WEIGHT, MATMUL };

static const char *const kind_names[] = {"conv", "conv_backward_data", "conv_backward_weight", "matmul"};

struct test_case {
    enum kind kind;
    struct conv_sizes conv;
    struct matmul_sizes product;
    struct kernel_plan plan;
    struct wisdom *wisdom;
};

/* A tensor [n,c,h,w] as it lies on the device, and, dense, in double. */
struct tensor {
    int64_t n, c, h, w;
    enum layout layout;
    double *values;
};

static struct device *device;

static int64_t tensor_count(const struct tensor *t) {
    return t->n * t->c * t->h * t->w;
}

static int64_t stored_channels(const struct tensor *t, int64_t lanes) {
    return t->layout == LAYOUT_BLOCKED ? (t->c + lanes - 1) / lanes * lanes : t->c;
}

static int64_t stored_count(const struct tensor *t, int64_t lanes) {
    return t->n * stored_channels(t, lanes) * t->h * t->w;
}

/* Copies between the dense values and the stored ones; `lane_error` counts padded lanes that are not zero. */
static void convert(const struct tensor *t, int64_t lanes, float *stored, bool to_device, int64_t *lane_errors) {
    int64_t pixels = t->h * t->w, channels = stored_channels(t, lanes);
    for (int64_t n = 0; n < t->n; n++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t p = 0; p < pixels; p++) {
                float *at = stored
                            + (t->layout == LAYOUT_BLOCKED
                                   ? ((n * (channels / lanes) + c / lanes) * pixels + p) * lanes + c % lanes
                                   : (n * channels + c) * pixels + p);
                double *value = c < t->c ? &t->values[(n * t->c + c) * pixels + p] : NULL;
                if (to_device)
                    *at = value ? (float)*value : 0;
                else if (value)
                    *value = *at;
                else
                    *lane_errors += *at != 0;
            }
}

static struct tensor tensor_make(int64_t n, int64_t c, int64_t h, int64_t w, enum layout layout) {
    struct tensor t = {n, c, h, w, layout, NULL};
    t.values = calloc((size_t)tensor_count(&t), sizeof(double));
    assert_non_null(t.values);
    return t;
}

/* The reference: y = x * w, and its two adjoints, are the same sum of products, collected differently. */
static void reference_conv(const struct test_case *k, struct tensor *result, const double *a, const double *b) {
    const struct conv_sizes *s = &k->conv;
    for (int64_t n = 0; n < s->n; n++)
        for (int64_t o = 0; o < s->o; o++)
            for (int64_t c = 0; c < s->c; c++)
                for (int64_t oy = 0; oy < s->oh; oy++)
                    for (int64_t ox = 0; ox < s->ow; ox++)
                        for (int64_t ky = 0; ky < s->kh; ky++)
                            for (int64_t kx = 0; kx < s->kw; kx++) {
                                int64_t iy = oy * s->stride - s->padding + ky, ix = ox * s->stride - s->padding + kx;
                                if (iy < 0 || iy >= s->h || ix < 0 || ix >= s->w) continue;
                                int64_t x = ((n * s->c + c) * s->h + iy) * s->w + ix;
                                int64_t y = ((n * s->o + o) * s->oh + oy) * s->ow + ox;
                                int64_t w = ((o * s->c + c) * s->kh + ky) * s->kw + kx;
                                if (k->kind == CONV) result->values[y] += a[x] * b[w];
                                if (k->kind == CONV_DATA) result->values[x] += a[y] * b[w];
                                if (k->kind == CONV_WEIGHT) result->values[w] += a[x] * b[y];
                            }
}

static void reference_matmul(const struct test_case *k, struct tensor *result, const double *a, const double *b) {
    const struct matmul_sizes *s = &k->product;
    for (int64_t i = 0; i < s->batch; i++)
        for (int64_t m = 0; m < s->m; m++)
            for (int64_t n = 0; n < s->n; n++)
                for (int64_t j = 0; j < s->k; j++)
                    result->values[(i * s->m + m) * s->n + n] +=
                        a[i * s->m * s->k + (s->transpose_a ? j * s->m + m : m * s->k + j)]
                        * b[i * s->k * s->n + (s->transpose_b ? n * s->k + j : j * s->n + n)];
}

static void describe(const struct test_case *k, int lanes, char *text, size_t size) {
    const struct conv_sizes *s = &k->conv;
    const struct matmul_sizes *p = &k->product;
    if (k->kind == MATMUL)
        snprintf(text, size, "matmul %" PRId64 " of %" PRId64 "x%" PRId64 "x%" PRId64 " %d%d, %d lanes", p->batch, p->m,
                 p->k, p->n, p->transpose_a, p->transpose_b, lanes);
    else
        snprintf(text, size,
                 "%s [%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "] to %" PRId64 " channels by %" PRId64 "x%" PRId64
                 " stride %d padding %d, %d lanes",
                 kind_names[k->kind], s->n, s->c, s->h, s->w, s->o, s->kh, s->kw, s->stride, s->padding, lanes);
}

static int plan(const struct kernel_target *target, struct test_case *k) {
    static const enum conv_pass passes[] = {CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHT};
    if (k->kind == MATMUL) return kernels_matmul(target, &k->product, &k->plan);
    const struct kernel_class class = {passes[k->kind], k->conv, CONV_SINGLE};
    return kernels_plan(target, &class, &k->plan);
}

enum { GUARD = 259, RESULT = 0, LEFT, RIGHT, SCRATCH };

/* The launches of a case, whose operands and scratch memory lie at these places of one buffer. */
static void launch(struct device_program *program, const struct kernel_plan *plan, int index,
                   struct device_buffer *buffer, const size_t *offsets) {
    for (int i = 0; i < plan->launch_count; i++) {
        const struct plan_launch *launch = &plan->launches[i];
        char name[32];
        struct device_kernel *kernel;
        snprintf(name, sizeof name, "k%d_%d", index, launch->use);
        assert_ok(device_kernel_create(program, name, &kernel));
        for (int k = 0; k < launch->count; k++) {
            const struct plan_operand *operand = &launch->operands[k];
            size_t at = PLAN_PICK(operand, offsets + RESULT, offsets + LEFT, offsets + SCRATCH);
            assert_ok(device_kernel_set_buffer(kernel, (unsigned)k, buffer, at + operand->offset));
        }
        const struct kernel_use *use = plan_use(plan, launch);
        assert_ok(device_launch(device, kernel, use->global, use->local));
        device_kernel_destroy(kernel);
    }
}

static void run(const struct kernel_target *target, struct device_program *program, const struct test_case *k,
                int index) {
    const struct conv_sizes *s = &k->conv;
    const struct matmul_sizes *p = &k->product;
    struct tensor x = {0}, w, y, tensors[3];
    if (k->kind == MATMUL) {
        tensors[RESULT] = tensor_make(p->batch, p->m, p->n, 1, LAYOUT_PLAIN);
        tensors[LEFT] = tensor_make(p->batch, p->m, p->k, 1, LAYOUT_PLAIN);
        tensors[RIGHT] = tensor_make(p->batch, p->k, p->n, 1, LAYOUT_PLAIN);
    } else {
        x = tensor_make(s->n, s->c, s->h, s->w, kernels_conv_layout(target, s->c));
        w = tensor_make(s->o, s->c, s->kh, s->kw, LAYOUT_PLAIN);
        y = tensor_make(s->n, s->o, s->oh, s->ow, kernels_conv_layout(target, s->o));
        tensors[RESULT] = k->kind == CONV ? y : k->kind == CONV_DATA ? x : w;
        tensors[LEFT] = k->kind == CONV_DATA ? y : x;
        tensors[RIGHT] = k->kind == CONV_WEIGHT ? y : w;
    }
    struct random random = random_begin(11, RANDOM_TEST, (uint32_t)index);
    for (int t = LEFT; t <= RIGHT; t++)
        for (int64_t i = 0; i < tensor_count(&tensors[t]); i++) tensors[t].values[i] = (float)random_normal(&random);
    (k->kind == MATMUL ? reference_matmul : reference_conv)(k, &tensors[RESULT], tensors[LEFT].values,
                                                            tensors[RIGHT].values);

    const int regions = SCRATCH + k->plan.scratch_count;
    size_t sizes[SCRATCH + PLAN_SCRATCHES], offsets[SCRATCH + PLAN_SCRATCHES], total = GUARD;
    for (int r = 0; r < regions; r++) {
        sizes[r] = r >= SCRATCH ? k->plan.scratch[r - SCRATCH] : (size_t)stored_count(&tensors[r], target->lanes);
        offsets[r] = total;
        total += sizes[r] + GUARD;
    }
    float *before = malloc(total * sizeof(float)), *after[2];
    assert_non_null(before);
    for (size_t i = 0; i < total; i++) before[i] = NAN;
    convert(&tensors[LEFT], target->lanes, before + offsets[LEFT], true, NULL);
    convert(&tensors[RIGHT], target->lanes, before + offsets[RIGHT], true, NULL);
    struct device_buffer *buffer;
    assert_ok(device_buffer_create(device, total * sizeof(float), "test", &buffer));
    for (int turn = 0; turn < 2; turn++) {
        after[turn] = malloc(total * sizeof(float));
        assert_non_null(after[turn]);
        assert_ok(device_write(device, buffer, 0, total * sizeof(float), before));
        launch(program, &k->plan, index, buffer, offsets);
        assert_ok(device_read(device, buffer, 0, total * sizeof(float), after[turn]));
    }
    device_buffer_destroy(buffer);

    char text[256];
    describe(k, target->lanes, text, sizeof text);
    if (memcmp(after[0], after[1], total * sizeof(float)) != 0) fail_msg("%s: does not repeat bit for bit", text);
    for (int r = 0; r < regions; r++) {
        if (memcmp(after[0] + offsets[r] - GUARD, before + offsets[r] - GUARD, GUARD * sizeof(float)) != 0
            || memcmp(after[0] + offsets[r] + sizes[r], before + offsets[r] + sizes[r], GUARD * sizeof(float)) != 0)
            fail_msg("%s: region %d: written past its ends", text, r);
        if ((r == LEFT || r == RIGHT)
            && memcmp(after[0] + offsets[r], before + offsets[r], sizes[r] * sizeof(float)) != 0)
            fail_msg("%s: operand %d written", text, r);
    }
    struct tensor got = tensors[RESULT];
    int64_t lane_errors = 0;
    got.values = calloc((size_t)tensor_count(&got), sizeof(double));
    assert_non_null(got.values);
    convert(&got, target->lanes, after[0] + offsets[RESULT], false, &lane_errors);
    if (lane_errors) fail_msg("%s: %" PRId64 " padded lanes not zero", text, lane_errors);
    double largest = 0, error = 0;
    for (int64_t i = 0; i < tensor_count(&got); i++) {
        double difference = fabs(got.values[i] - tensors[RESULT].values[i]);
        largest = fmax(largest, fabs(tensors[RESULT].values[i]));
        if (!(difference <= error)) error = difference; /* NaN stays */
    }
    if (!(error <= 2e-6 * largest)) fail_msg("%s: off by %g of %g", text, error, largest);
    free(got.values);
    for (int t = 0; t < 3; t++) free(tensors[t].values);
    free(before);
    free(after[0]);
    free(after[1]);
}

/* As one program. */
static void run_some(const struct kernel_target *target, struct test_case *cases, int count) {
    struct text text;
    text_init(&text);
    kernels_preamble(&text, target->lanes);
    for (int i = 0; i < count; i++) {
        struct kernel_target wise = *target;
        wise.wisdom = cases[i].wisdom;
        assert_ok(plan(&wise, &cases[i]));
        for (int l = 0; l < cases[i].plan.use_count; l++) {
            char name[32];
            snprintf(name, sizeof name, "k%d_%d", i, l);
            kernels_append(&text, name, &cases[i].plan.uses[l]);
        }
    }
    assert_false(text.failed);
    struct device_program *program;
    assert_ok(device_program_create(device, text_get(&text), "-cl-std=CL1.2", &program));
    for (int i = 0; i < count; i++) run(target, program, &cases[i], i);
    device_program_destroy(program);
    text_finish(&text);
}

/* Some compilers take a time that is the square of a program's length. */
static void run_cases(const struct kernel_target *target, struct test_case *cases, int count) {
    const int most = TEST_SMALL ? 3 : count;
    for (int first = 0; first < count; first += most)
        run_some(target, cases + first, first + most < count ? most : count - first);
}

/* n, c, h, w, o, kernel height and width, stride, padding */
struct conv_row {
    int n, c, h, w, o, kh, kw, stride, padding;
};

/* Where tests are small, every other row. */
static void run_conv_rows(const struct kernel_target *target, const struct conv_row *rows, size_t row_count) {
    struct test_case *cases = calloc(3 * row_count, sizeof *cases);
    int count = 0;
    assert_non_null(cases);
    for (size_t i = TEST_SMALL; i < row_count; i += 1 + TEST_SMALL)
        for (int kind = CONV; kind <= CONV_WEIGHT; kind++) {
            const struct conv_row *r = &rows[i];
            cases[count++] = (struct test_case){
                .kind = (enum kind)kind,
                .conv = {r->n, r->c, r->h, r->w, r->o, r->kh, r->kw, (r->h + 2 * r->padding - r->kh) / r->stride + 1,
                         (r->w + 2 * r->padding - r->kw) / r->stride + 1, r->stride, r->padding},
            };
        }
    run_cases(target, cases, count);
    free(cases);
}

/* Lanes of most tests: 16, or 4 where long vectors are many registers to compile. */
static int usual_lanes(void) {
    return TEST_SMALL ? 4 : 16;
}

static struct kernel_target cpu_target(int lanes) {
    return (struct kernel_target){device_traits(device), FAMILY_CPU, lanes};
}

static const struct conv_row usual_rows[] = {
    {2, 1, 14, 14, 16, 3, 3, 1, 1}, {1, 3, 8, 8, 33, 3, 3, 1, 1},   {5, 17, 7, 7, 20, 3, 3, 1, 1},
    {2, 33, 4, 4, 15, 3, 3, 1, 1},  {1, 16, 5, 5, 80, 3, 3, 1, 1},  {2, 6, 17, 17, 8, 3, 3, 1, 1},
    {5, 8, 2, 3, 3, 3, 3, 1, 1},    {1, 20, 1, 1, 17, 3, 3, 1, 1},  {2, 15, 14, 14, 6, 3, 3, 2, 1},
    {1, 8, 7, 5, 20, 5, 5, 1, 2},   {2, 33, 8, 8, 16, 1, 1, 2, 0},  {1, 3, 9, 7, 16, 5, 4, 3, 2},
    {2, 6, 4, 4, 6, 2, 3, 1, 3},    {1, 3, 6, 140, 20, 3, 3, 1, 1}, {1, 3, 5, 150, 20, 7, 7, 2, 3},
};
/* Winograd: tiles across images, several groups of channels, splits, borders of 0 to 2; the last are F(2,3). */
static const struct conv_row winograd_rows[] = {
    {3, 33, 9, 6, 50, 3, 3, 1, 1},  {9, 17, 8, 8, 33, 3, 3, 1, 1}, {2, 20, 11, 7, 18, 3, 3, 1, 0},
    {1, 17, 5, 13, 33, 3, 3, 1, 2}, {5, 16, 2, 2, 48, 3, 3, 1, 1}, {3, 33, 6, 2, 16, 3, 3, 1, 1},
};
static const struct conv_row few_rows[] = {
    {2, 1, 7, 7, 8, 3, 3, 1, 1},  {1, 17, 4, 5, 20, 3, 3, 1, 1}, {2, 8, 8, 8, 3, 3, 3, 1, 1},
    {1, 6, 7, 9, 24, 5, 3, 2, 1}, {3, 20, 7, 6, 40, 3, 3, 1, 1},
};

static void test_conv(void **state) {
    (void)state;
    struct kernel_target target = cpu_target(usual_lanes());
    run_conv_rows(&target, usual_rows, sizeof usual_rows / sizeof *usual_rows);
}

static void test_winograd(void **state) {
    (void)state;
    struct kernel_target target = cpu_target(usual_lanes());
    struct conv_sizes sizes = {24, 64, 8, 8, 80, 3, 3, 8, 8, 1, 1};
    assert_int_equal(kernels_winograd(&target, CONV_FORWARD, &sizes), 4);
    sizes.h = sizes.w = sizes.oh = sizes.ow = 2;
    assert_int_equal(kernels_winograd(&target, CONV_FORWARD, &sizes), 2);
    /* With a second cache as is usual, and with one large enough for more tiles and for asking ahead. */
    struct device_traits traits = *device_traits(device);
    target.traits = &traits;
    for (int large = 0; large < 2; large++) {
        traits.second_cache = large ? 2 << 20 : 512 << 10;
        run_conv_rows(&target, winograd_rows, sizeof winograd_rows / sizeof *winograd_rows);
    }
}

/* Tiles of a work-item, of a register tile and its output blocks, as measured where a core has a large second cache. */
static void test_winograd_tiles(void **state) {
    (void)state;
    static const struct {
        int images, side, joined, numbers[3];
    } rows[] = {{10, 16, false, {20, 10, 2}}, {10, 16, true, {10, 10, 2}}, {10, 8, false, {10, 10, 2}},
                {32, 16, false, {24, 12, 2}}, {32, 16, true, {12, 12, 2}}, {1, 4, false, {1, 1, 2}}};
    struct device_traits traits = *device_traits(device);
    traits.second_cache = 2 << 20, traits.compute_units = 2;
    struct kernel_target target = cpu_target(16);
    target.traits = &traits;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int side = rows[i].side, numbers[CHOICE_PARAMETERS];
        struct kernel_class class = {
            CONV_FORWARD, {rows[i].images, 128, side, side, 128, 3, 3, side, side, 1, 1}, CONV_SINGLE};
        if (rows[i].joined) class.terms = (struct conv_terms){2, 2, 2, 97};
        kernels_variant("winograd4")->own(&target, &class, numbers);
        assert_memory_equal(numbers, rows[i].numbers, sizeof rows[i].numbers);
    }
}

static void test_conv_lanes(void **state) {
    (void)state;
    for (int lanes = 4; lanes <= 8 && lanes <= usual_lanes(); lanes *= 2) {
        struct kernel_target target = cpu_target(lanes);
        run_conv_rows(&target, few_rows, sizeof few_rows / sizeof *few_rows);
    }
}

/* Enough images that the sum over them is split. */
static void test_conv_splits(void **state) {
    (void)state;
    struct kernel_target target = cpu_target(usual_lanes());
    static struct test_case cases[2];
    const int images = TEST_SMALL ? 20 : 50;
    cases[0] = (struct test_case){.kind = CONV_WEIGHT, .conv = {images, 12, 16, 16, 20, 3, 3, 16, 16, 1, 1}};
    cases[1] = (struct test_case){.kind = CONV_WEIGHT, .conv = {images, 3, 16, 16, 16, 3, 3, 16, 16, 1, 1}};
    run_cases(&target, cases, 2);
    for (int i = 0; i < 2; i++) assert_int_equal(cases[i].plan.launch_count, 2);
}

/* Every choice that a search may try is right, between its guards; so is what a file may say beyond that. */
static void test_choices(void **state) {
    (void)state;
    static const struct conv_row rows[] = {{3, 20, 9, 6, 36, 3, 3, 1, 1}, {2, 3, 7, 9, 20, 3, 3, 1, 1}};
    enum { MOST = 3 * 3 * CANDIDATES };
    static struct test_case cases[MOST];
    struct wisdom *wisdoms[MOST];
    struct kernel_target target = cpu_target(usual_lanes());
    for (size_t row = 0; row < sizeof rows / sizeof *rows; row++) {
        const struct conv_row *r = &rows[row];
        int count = 0;
        const struct kernel_variant *variant;
        for (int kind = CONV; kind <= CONV_WEIGHT; kind++)
            for (int way = 0; (variant = kernels_row(&target, false, way)); way++) {
                struct kernel_class class = {
                    (enum conv_pass)kind, {r->n, r->c, r->h, r->w, r->o, 3, 3, r->h, r->w, 1, 1}, CONV_SINGLE};
                struct kernel_choice list[CANDIDATES];
                int found = kernels_candidates(&target, &class, variant, list);
                /* The tiles of F(2,3) are those of F(4,3). */
                for (int i = 0; i < found && (strcmp(variant->name, "winograd2") != 0 || i < 4);
                     i += (kind == CONV_WEIGHT ? 2 : 3) * (1 + TEST_SMALL)) {
                    assert_true(kernels_fits(&target, &class, &list[i]));
                    assert_ok(wisdom_of_one(&class, &list[i], &wisdoms[count]));
                    cases[count] =
                        (struct test_case){.kind = (enum kind)kind, .conv = class.sizes, .wisdom = wisdoms[count]};
                    count++;
                }
            }
        assert_true(count > 4);
        run_cases(&target, cases, count);
        for (int i = 0; i < count; i++) wisdom_destroy(wisdoms[i]);
    }
}

static const struct matmul_sizes products[] = {
    {1, 1, 1, 1, false, false},      {3, 17, 20, 33, true, false},   {2, 5, 33, 7, true, true},
    {2, 9, 3, 70, false, true},      {3, 21, 3, 9, true, false},     {2, 6, 21, 10, false, false},
    {1, 10, 10, 288, false, true},   {1, 10, 288, 10, false, false}, {1, 33, 47, 600, false, false},
    {1, 1, 40, 3, false, false},     {1, 40, 1, 5, false, true},     {2, 16, 2, 5, true, true},
    {1, 60, 300, 250, false, false}, {1, 7, 1, 5000, false, false},  {1, 100, 1, 3, true, false},
};

static void test_matmul(void **state) {
    (void)state;
    for (int lanes = 4; lanes <= usual_lanes(); lanes *= 2) {
        struct kernel_target target = cpu_target(lanes);
        static struct test_case cases[sizeof products / sizeof *products];
        int count = 0;
        bool all = lanes == usual_lanes();
        for (size_t i = !all; i < (all ? sizeof products / sizeof *products : 6); i++)
            cases[count++] = (struct test_case){.kind = MATMUL, .product = products[i]};
        run_cases(&target, cases, count);
    }
}

/* Nonsense is refused, with words, and leaves the result alone. */
static void test_refusals(void **state) {
    (void)state;
    struct kernel_target target = cpu_target(16), odd = cpu_target(3);
    const struct conv_sizes good = {2, 3, 8, 8, 16, 3, 3, 8, 8, 1, 1};
    static struct kernel_plan plan;
    plan.launch_count = 77;
    assert_ok(kernels_plan(&target, &(struct kernel_class){CONV_FORWARD, good, CONV_SINGLE}, &(struct kernel_plan){0}));
    assert_int_equal(kernels_plan(&odd, &(struct kernel_class){CONV_FORWARD, good, CONV_SINGLE}, &plan), RETORT_EINVAL);
    const struct {
        enum conv_pass pass;
        struct conv_sizes sizes;
        int status;
    } refused[] = {
        {CONV_FORWARD, {2, 3, 8, 8, 16, 3, 3, 9, 8, 1, 1}, RETORT_EINVAL},
        {CONV_BACKWARD_DATA, {0, 3, 8, 8, 16, 3, 3, 8, 8, 1, 1}, RETORT_EINVAL},
        {CONV_BACKWARD_WEIGHT, {(int64_t)1 << 40, 3, 8, 8, 16, 3, 3, 8, 8, 1, 1}, RETORT_ELIMIT},
        {CONV_FORWARD, {2, INT64_MAX, 8, 8, 16, 3, 3, 8, 8, 1, 1}, RETORT_ELIMIT},
        {CONV_FORWARD, {2, 3, 8, 8, 16, 11, 3, 8, 8, 1, 1}, RETORT_EINVAL},
        {CONV_FORWARD, {2, 3, 8, 8, 16, 3, 3, 8, 8, 0, 1}, RETORT_EINVAL},
        {CONV_FORWARD, {2, 3, 8, 8, 16, 3, 3, 8, 8, 1, -1}, RETORT_EINVAL},
    };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_int_equal(
            kernels_plan(&target, &(struct kernel_class){refused[i].pass, refused[i].sizes, CONV_SINGLE}, &plan),
            refused[i].status);
    /* Direct convolutions take one term. */
    const struct conv_terms two = {.outputs = 1, .inputs = 2, .weights = 2, .mask = 9};
    assert_int_equal(kernels_plan(&target, &(struct kernel_class){CONV_FORWARD, good, two}, &plan), RETORT_EINVAL);
    assert_int_equal(kernels_matmul(&target, &(struct matmul_sizes){1, 0, 1, 1, false, false}, &plan), RETORT_EINVAL);
    assert_int_equal(kernels_matmul(&target, &(struct matmul_sizes){1, 1 << 20, 1 << 20, 1, false, false}, &plan),
                     RETORT_ELIMIT);
    assert_int_equal(plan.launch_count, 77);
}

static int begin(void **state) {
    (void)state;
    if (device_open(NULL, &device) == RETORT_OK) return 0;
    fprintf(stderr, "%s\n", retort_error_message());
    return -1;
}

static int end(void **state) {
    (void)state;
    device_close(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conv),       cmocka_unit_test(test_winograd),    cmocka_unit_test(test_winograd_tiles),
        cmocka_unit_test(test_conv_lanes), cmocka_unit_test(test_conv_splits), cmocka_unit_test(test_choices),
        cmocka_unit_test(test_matmul),     cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("kernels", tests, begin, end);
}
