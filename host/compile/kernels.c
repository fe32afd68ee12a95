/* The kernel choice: the ways to compute convolutions and matrix products as rows, and which of them is taken. */
#include "compile/kernels_family.h"

#include "base/error.h"
#include "compile/wisdom.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

void kernel_use_launch_items(struct kernel_use *use, const struct kernel_target *target, int64_t items, int64_t y) {
    enum { GROUP = 64 }; /* a multiple of the width every GPU issues in */
    size_t group = target->traits->max_work_group < GROUP ? target->traits->max_work_group : GROUP;
    kernel_use_launch(use, (size_t)round_up(items, (int64_t)group), (size_t)y, 1, group, 1, 1);
}

int kernels_check_count(const char *what, int64_t a, int64_t b, int64_t c, int64_t d) {
    int64_t count;
    if (a <= 0 || b <= 0 || c <= 0 || d <= 0)
        return error_set(RETORT_EINVAL,
                         "%s [%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "]: every size must be positive", what, a,
                         b, c, d);
    if (__builtin_mul_overflow(a, b, &count) || __builtin_mul_overflow(count, c, &count)
        || __builtin_mul_overflow(count, d, &count) || count > INT32_MAX)
        return error_set(RETORT_ELIMIT,
                         "%s [%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64
                         "] has more than 2^31 - 1 elements: use smaller batches",
                         what, a, b, c, d);
    return RETORT_OK;
}

int kernels_check_target(const struct kernel_target *target) {
    bool lanes_fit = target->family == FAMILY_GPU   ? target->lanes == 1
                     : target->family == FAMILY_CPU ? target->lanes == 4 || target->lanes == 8 || target->lanes == 16
                                                    : false;
    if (!lanes_fit)
        return error_set(RETORT_EINVAL, "kernel family %d with %d lanes: CPU takes 4, 8 or 16, GPU 1", target->family,
                         target->lanes);
    return RETORT_OK;
}

static int check_conv(const struct kernel_target *target, const struct conv_sizes *s) {
    int status = RETORT_OK;
    TRY(kernels_check_target(target));
    int64_t v = target->lanes;
    if (s->c > INT32_MAX || s->o > INT32_MAX)
        RAISE(RETORT_ELIMIT, "convolution with %" PRId64 " and %" PRId64 " channels: at most 2^31 - 1", s->c, s->o);
    TRY(kernels_check_count("convolution input", s->n, round_up(s->c, v), s->h, s->w));
    TRY(kernels_check_count("convolution output", s->n, round_up(s->o, v), s->oh, s->ow));
    TRY(kernels_check_count("convolution weights", round_up(s->o, v), round_up(s->c, v), s->kh, s->kw));
    if (s->stride < 1 || s->stride > INT16_MAX || s->padding < 0 || s->padding > INT16_MAX)
        RAISE(RETORT_EINVAL, "convolution with stride %d and padding %d: stride is 1 to 32767, padding 0 to 32767",
              s->stride, s->padding);
    int64_t below = s->h + 2 * s->padding - s->kh, right = s->w + 2 * s->padding - s->kw;
    if (below < 0 || right < 0 || s->oh != below / s->stride + 1 || s->ow != right / s->stride + 1)
        RAISE(RETORT_EINVAL,
              "convolution of %" PRId64 "x%" PRId64 " by %" PRId64 "x%" PRId64
              " with stride %d and padding %d does not give %" PRId64 "x%" PRId64,
              s->h, s->w, s->kh, s->kw, s->stride, s->padding, s->oh, s->ow);
done:
    return status;
}

static int check_product(const struct kernel_target *target, const struct matmul_sizes *sizes) {
    int status = RETORT_OK;
    TRY(kernels_check_target(target));
    TRY(kernels_check_count("matmul operand a", sizes->batch, sizes->m, sizes->k, 1));
    TRY(kernels_check_count("matmul operand b", sizes->batch, sizes->k, sizes->n, 1));
    TRY(kernels_check_count("matmul result", sizes->batch, sizes->m, sizes->n, 1));
done:
    return status;
}

static int check_class(const struct kernel_target *target, const struct kernel_class *class) {
    return class_is_product(class) ? check_product(target, &class->product) : check_conv(target, &class->sizes);
}

struct kernel_class class_of_product(const struct matmul_sizes *sizes) {
    return (struct kernel_class){.terms = CONV_SINGLE, .product = *sizes};
}

/* A variable of the environment; NULL where it is empty too, as shells leave it. */
static const char *environment(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

struct kernel_target kernels_target(const struct device_traits *traits, enum family family) {
    const char *merge = environment("RETORT_MERGE");
    if (family == FAMILY_AUTO) family = traits->kind == DEVICE_CPU ? FAMILY_CPU : FAMILY_GPU;
    return (struct kernel_target){.traits = traits,
                                  .family = family,
                                  .lanes = family == FAMILY_CPU ? (int)traits->vector_width : 1,
                                  .preferred = environment("RETORT_CONV"),
                                  .gemm = environment("RETORT_GEMM"),
                                  .single = merge && strcmp(merge, "off") == 0};
}

enum layout kernels_conv_layout(const struct kernel_target *target, int64_t channels) {
    /* An image of 1 or 3 channels would be mostly padding in a block of 16; it is also what the outside hands in and
     * takes out, so plain saves a relayout too. */
    return target->lanes == 1 || channels <= 4 ? LAYOUT_PLAIN : LAYOUT_BLOCKED;
}

void kernels_plan_product(const struct product_use *use, int results, int inputs, int packed,
                          struct kernel_plan *plan) {
    struct plan_operand operands[PLAN_OPERANDS] = {PLAN_RESULT(0)};
    int count = 0;
    for (int k = 0; k < results; k++) {
        const struct product_finish *finish = &use->finish[k];
        operands[count++] = finish->use.file ? PLAN_SCRATCH(plan_scratch(plan, finish->work_floats)) : PLAN_RESULT(k);
    }
    for (int k = 0; k < inputs; k++) {
        bool packs = use->packed_floats && k >= inputs - packed;
        operands[count++] = packs ? plan_pack(plan, &use->pack, use->packed_floats, k, 1) : PLAN_INPUT(k);
    }
    plan_launch(plan, &use->main, results, count, operands)->share = 1;
    for (int k = 0; k < results; k++) {
        const struct product_finish *finish = &use->finish[k];
        if (!finish->use.file) continue;
        plan->splits[k] = (struct plan_split){finish->parts, operands[k].number, plan->launch_count};
        plan_launch(plan, &finish->use, 1, 2, (struct plan_operand[]){PLAN_RESULT(k), operands[k]});
    }
}

void kernels_plan_conv(const struct product_use *use, const struct kernel_class *class, struct kernel_plan *plan) {
    const struct conv_terms *t = &class->terms;
    if (class->pass == CONV_BACKWARD_WEIGHT)
        kernels_plan_product(use, 1, 2 * t->inputs, 0, plan);
    else
        kernels_plan_product(use, t->outputs, t->inputs + t->weights, t->weights, plan);
}

int class_products(const struct kernel_class *class) {
    return class->pass == CONV_BACKWARD_WEIGHT ? class->terms.inputs : __builtin_popcount(class->terms.mask);
}

double kernel_class_flops(const struct kernel_class *class) {
    const struct conv_sizes *s = &class->sizes;
    const struct matmul_sizes *p = &class->product;
    if (class_is_product(class)) return 2.0 * (double)p->batch * (double)p->m * (double)p->n * (double)p->k;
    return 2.0 * class_products(class) * (double)(s->kh * s->kw) * (double)(s->n * s->oh * s->ow)
           * (double)(s->c * s->o);
}

bool class_is_single(const struct kernel_class *class) {
    return class->terms.inputs == 1 && class->terms.outputs == 1 && class->terms.weights == 1 && class->terms.mask == 1;
}

/* --- the rows --- */
static bool singles(const struct kernel_target *target, const struct kernel_class *class) {
    (void)target;
    return class_is_single(class);
}

static bool any_terms(const struct kernel_target *target, const struct kernel_class *class) {
    (void)target, (void)class;
    return true;
}

static bool winograd4_applies(const struct kernel_target *target, const struct kernel_class *class) {
    return kernels_winograd(target, class->pass, &class->sizes) == 4;
}

static bool winograd2_applies(const struct kernel_target *target, const struct kernel_class *class) {
    return kernels_winograd(target, class->pass, &class->sizes) == 2;
}

static bool winograd4_fits(const struct kernel_target *target, const struct kernel_class *class,
                           const int *parameters) {
    return conv_winograd_fits(target, class, 4, parameters);
}

static bool winograd2_fits(const struct kernel_target *target, const struct kernel_class *class,
                           const int *parameters) {
    return conv_winograd_fits(target, class, 2, parameters);
}

static int winograd4_candidates(const struct kernel_target *target, const struct kernel_class *class,
                                int list[][CHOICE_PARAMETERS], int most) {
    return conv_winograd_candidates(target, class, 4, list, most);
}

static int winograd2_candidates(const struct kernel_target *target, const struct kernel_class *class,
                                int list[][CHOICE_PARAMETERS], int most) {
    return conv_winograd_candidates(target, class, 2, list, most);
}

static void winograd4_own(const struct kernel_target *target, const struct kernel_class *class, int *numbers) {
    conv_winograd_own(target, class, 4, numbers);
}

static void winograd2_own(const struct kernel_target *target, const struct kernel_class *class, int *numbers) {
    conv_winograd_own(target, class, 2, numbers);
}

static int winograd4_plan(const struct kernel_target *target, const struct kernel_class *class, const int *parameters,
                          struct kernel_plan *plan) {
    conv_winograd_plan(target, class, 4, parameters, plan);
    return RETORT_OK;
}

static int winograd2_plan(const struct kernel_target *target, const struct kernel_class *class, const int *parameters,
                          struct kernel_plan *plan) {
    conv_winograd_plan(target, class, 2, parameters, plan);
    return RETORT_OK;
}

/* Own matrix products: those of the CPU family have no parameters. */
static bool own_product_fits(const struct kernel_target *target, const struct kernel_class *class, const int *numbers) {
    const struct gpu_product p = gpu_product_matmul(&class->product);
    return target->family == FAMILY_CPU ? numbers[0] == 0 : gpu_tile_asked(target, &p, numbers) != NULL;
}

static int own_product_candidates(const struct kernel_target *target, const struct kernel_class *class,
                                  int list[][CHOICE_PARAMETERS], int most) {
    const struct gpu_product p = gpu_product_matmul(&class->product);
    return target->family == FAMILY_CPU ? 0 : gpu_tile_candidates(target, &p, list, most);
}

static void own_product_own(const struct kernel_target *target, const struct kernel_class *class, int *numbers) {
    const struct gpu_product p = gpu_product_matmul(&class->product);
    if (target->family == FAMILY_GPU) gpu_tile_own(target, &p, numbers);
}

static int own_product_plan(const struct kernel_target *target, const struct kernel_class *class, const int *numbers,
                            struct kernel_plan *plan) {
    int status = RETORT_OK;
    struct product_use use = {0};
    TRY(target->family == FAMILY_CPU ? matmul_cpu_plan(target, &class->product, &use)
                                     : matmul_gpu_plan(target, &class->product, numbers, &use));
    kernels_plan_product(&use, 1, 2, 1, plan);
done:
    return status;
}

/* Taken where it is asked for or was measured to be faster, and by no rule of its own. */
static bool never(const struct kernel_target *target, const struct kernel_class *class) {
    (void)target, (void)class;
    return false;
}

/* Rows without parameters. */
static bool any_fits(const struct kernel_target *target, const struct kernel_class *class, const int *parameters) {
    (void)target, (void)class, (void)parameters;
    return true;
}

static int no_candidates(const struct kernel_target *target, const struct kernel_class *class,
                         int list[][CHOICE_PARAMETERS], int most) {
    (void)target, (void)class, (void)list, (void)most;
    return 0;
}

static void no_numbers(const struct kernel_target *target, const struct kernel_class *class, int *numbers) {
    (void)target, (void)class, (void)numbers;
}

/* Sums of products, and Winograd's, whose transforms lose about two bits. */
#define DIRECT_ERROR   4e-6
#define WINOGRAD_ERROR 1e-5

static const struct kernel_variant kernel_variants[] = {
    {"winograd4", "Winograd F(4,3)", FAMILY_CPU, WINOGRAD_NUMBERS, true, WINOGRAD_ERROR, winograd4_applies,
     winograd4_fits, winograd4_candidates, winograd4_own, winograd4_plan, .optional = WINOGRAD_NUMBERS - 3},
    {"winograd2", "Winograd F(2,3)", FAMILY_CPU, WINOGRAD_NUMBERS, true, WINOGRAD_ERROR, winograd2_applies,
     winograd2_fits, winograd2_candidates, winograd2_own, winograd2_plan, .optional = WINOGRAD_NUMBERS - 3},
    {"direct", "direct", FAMILY_CPU, 3, false, DIRECT_ERROR, singles, conv_direct_fits, conv_direct_candidates,
     conv_direct_own, conv_direct_plan},
    {"staged", "staged Winograd F(4,3)", FAMILY_GPU, TILE_NUMBERS + 1, true, WINOGRAD_ERROR, conv_staged_applies,
     conv_staged_fits, conv_staged_candidates, conv_staged_own, conv_staged_plan},
    {"product", "tiled product", FAMILY_GPU, TILE_NUMBERS, true, DIRECT_ERROR, any_terms, conv_product_fits,
     conv_product_candidates, conv_product_own, conv_product_plan},
    {"clblast", "CLBlast", FAMILY_AUTO, 0, false, DIRECT_ERROR, never, any_fits, no_candidates, no_numbers,
     product_call_plan, .product = true, .library = true},
    {"own", "own product", FAMILY_AUTO, TILE_NUMBERS, false, DIRECT_ERROR, singles, own_product_fits,
     own_product_candidates, own_product_own, own_product_plan, .product = true},
};
enum { VARIANTS = sizeof kernel_variants / sizeof *kernel_variants };

const struct kernel_variant *kernels_variant(const char *name) {
    for (int i = 0; i < VARIANTS && name; i++)
        if (strcmp(kernel_variants[i].name, name) == 0) return &kernel_variants[i];
    return NULL;
}

static bool serves(const struct kernel_variant *row, const struct kernel_target *target, bool product) {
    return (row->family == FAMILY_AUTO || row->family == target->family) && row->product == product;
}

int kernels_check_asked(const struct kernel_target *target) {
    const struct kernel_variant *preferred = kernels_variant(target->preferred);
    const char *merge = environment("RETORT_MERGE");
    if (target->preferred && (!preferred || preferred->product))
        return error_set(RETORT_EINVAL, "RETORT_CONV=%s in the environment: no such way to compute convolutions",
                         target->preferred);
    if (merge && strcmp(merge, "auto") != 0 && strcmp(merge, "off") != 0)
        return error_set(RETORT_EINVAL, "RETORT_MERGE=%s in the environment: expected auto or off", merge);
    return RETORT_OK;
}

const struct kernel_variant *kernels_row(const struct kernel_target *target, bool product, int i) {
    for (int k = 0; k < VARIANTS; k++)
        if (serves(&kernel_variants[k], target, product) && i-- == 0) return &kernel_variants[k];
    return NULL;
}

/* --- choosing --- */
/* Whether the compiler may ask for a launch of these terms. */
static bool terms_fit(const struct kernel_class *class) {
    const struct conv_terms *t = &class->terms;
    if (class_is_single(class)) return true;
    if (class->pass == CONV_BACKWARD_WEIGHT) return t->outputs == 1 && t->inputs == 2 && t->weights == 2 && !t->mask;
    unsigned allowed = 0;
    for (int o = 0; o < t->outputs && o < 2; o++)
        for (int i = 0; i < t->inputs && i < 2; i++)
            for (int w = 0; w < t->weights && w < 2; w++) allowed |= 1u << ((o * 2 + i) * 2 + w);
    return t->outputs >= 1 && t->outputs <= 2 && t->inputs >= 1 && t->inputs <= 2 && t->weights >= 1 && t->weights <= 2
           && t->mask && !(t->mask & ~allowed);
}

bool kernels_fits(const struct kernel_target *target, const struct kernel_class *class,
                  const struct kernel_choice *choice) {
    const struct kernel_variant *row = kernels_variant(choice->variant);
    bool own = true, sane = true;
    if (!row || !serves(row, target, class_is_product(class)) || !terms_fit(class)
        || (!row->joins && !class_is_single(class)))
        return false;
    if (check_class(target, class) < 0) {
        error_clear();
        return false;
    }
    for (int i = 0; i < CHOICE_PARAMETERS; i++) {
        own &= choice->parameters[i] == 0;
        sane &= choice->parameters[i] >= (i < row->numbers) && choice->parameters[i] <= (i < row->numbers ? 4096 : 0);
    }
    return (own || sane) && row->fits(target, class, choice->parameters);
}

static bool wants_own_products(const struct kernel_target *target) {
    return target->gemm && strcmp(target->gemm, "own") == 0;
}

/* Whether the class can be computed so, and nothing is known against it. */
static bool may_take(const struct kernel_target *target, const struct kernel_class *class,
                     const struct kernel_choice *choice) {
    return kernels_fits(target, class, choice) && !wisdom_refuses(target->wisdom, class, choice)
           && (!kernels_variant(choice->variant)->library || (target->calls && !wants_own_products(target)));
}

/* The last resort: of the last row's candidates the last. */
static struct kernel_choice plainest(const struct kernel_target *target, const struct kernel_class *class) {
    struct kernel_choice list[CANDIDATES];
    const struct kernel_variant *row = NULL, *next;
    for (int i = 0; (next = kernels_row(target, class_is_product(class), i)); i++) row = next;
    int count = row ? kernels_candidates(target, class, row, list) : 0;
    return count && may_take(target, class, &list[count - 1]) ? list[count - 1] : (struct kernel_choice){0};
}

struct kernel_choice kernels_choice(const struct kernel_target *target, const struct kernel_class *class) {
    const struct kernel_choice *known = wisdom_find(target->wisdom, class);
    /* Own products are computed by the tiles that were found to be the fastest. */
    const char *asked = !class_is_product(class) ? target->preferred : wants_own_products(target) ? NULL : target->gemm;
    const struct kernel_variant *row = kernels_variant(asked);
    const struct kernel_choice preferred = {.variant = row ? row->name : NULL};
    if (row && may_take(target, class, &preferred)) return preferred;
    if (known && may_take(target, class, known)) return *known;
    return kernels_untuned(target, class);
}

struct kernel_choice kernels_untuned(const struct kernel_target *target, const struct kernel_class *class) {
    const struct kernel_variant *row;
    for (int i = 0; (row = kernels_row(target, class_is_product(class), i)); i++) {
        const struct kernel_choice own = {.variant = row->name};
        if ((row->joins || class_is_single(class)) && row->applies(target, class)
            && !wisdom_refuses(target->wisdom, class, &own))
            return own;
    }
    if (class_is_single(class)) return plainest(target, class);
    /* Joined convolutions for which nothing is known and no row applies are computed as the single one is, whose choice
     * let them be joined. */
    const struct kernel_class single = {class->pass, class->sizes, CONV_SINGLE};
    return (struct kernel_choice){.variant = kernels_choice(target, &single).variant};
}

struct kernel_choice kernels_explicit(const struct kernel_target *target, const struct kernel_class *class,
                                      const struct kernel_choice *choice) {
    struct kernel_choice all = *choice;
    if (all.parameters[0] == 0) kernels_variant(choice->variant)->own(target, class, all.parameters);
    return all;
}

int kernels_candidates(const struct kernel_target *target, const struct kernel_class *class,
                       const struct kernel_variant *variant, struct kernel_choice list[CANDIDATES]) {
    int parameters[CANDIDATES - 1][CHOICE_PARAMETERS] = {{0}}, count = 0;
    list[0] = (struct kernel_choice){.variant = variant->name};
    if (variant->library && !kernels_may_call(target)) return 0;
    if (!kernels_fits(target, class, &list[0])) return 0;
    int found = variant->candidates(target, class, parameters, CANDIDATES - 1);
    count++;
    for (int i = 0; i < found; i++) {
        struct kernel_choice choice = {.variant = variant->name};
        memcpy(choice.parameters, parameters[i], sizeof choice.parameters);
        if (kernels_fits(target, class, &choice)) list[count++] = choice;
    }
    return count;
}

bool kernels_conv_joins(const struct kernel_target *target, enum conv_pass pass, const struct conv_sizes *sizes) {
    const struct kernel_class single = {pass, *sizes, CONV_SINGLE};
    if (check_conv(target, sizes) < 0) {
        error_clear();
        return false;
    }
    const struct kernel_choice choice = kernels_choice(target, &single);
    const struct kernel_variant *row = kernels_variant(choice.variant);
    return row && row->joins && !wisdom_refuses_joined(target->wisdom, pass, sizes, &choice);
}

int kernels_plan(const struct kernel_target *target, const struct kernel_class *class, struct kernel_plan *plan) {
    int status = RETORT_OK;
    struct kernel_plan fresh = {0};
    TRY(check_class(target, class));
    const struct kernel_choice choice = kernels_choice(target, class);
    const struct kernel_variant *row = kernels_variant(choice.variant);
    if (!row && class_is_single(class))
        RAISE(RETORT_EDEVICE, "%s computes %s of these sizes rightly by none of the kernels there are",
              target->traits->name, class_is_product(class) ? "matrix products" : "convolutions");
    if (!row || !terms_fit(class) || (!row->joins && !class_is_single(class)))
        RAISE(RETORT_EINVAL, "convolutions of these sizes cannot be joined");
    TRY(row->plan(target, class, choice.parameters, &fresh));
    *plan = fresh;
done:
    return status;
}

int kernels_matmul(const struct kernel_target *target, const struct matmul_sizes *sizes, struct kernel_plan *plan) {
    const struct kernel_class class = class_of_product(sizes);
    return kernels_plan(target, &class, plan);
}
