#include "compile/self_test.h"

#include "base/error.h"
#include "base/log.h"
#include "compile/integer.h"
#include "compile/trial.h"
#include "compile/wisdom.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is tested: uses that differ in the number of images alone often have the same kernels. What is found holds for
 * all of them. */
struct test {
    struct kernel_class class; /* of a few images */
    struct kernel_choice choice;
    struct wisdom *wisdom; /* of this choice alone */
    struct kernel_target target;
    struct trial *trial;
    const char *fault;
};

struct tests {
    struct test *list;
    size_t count;
    size_t *of; /* the test of each use */
    struct device_program *program;
};

/* An odd batch: three images, or one where three are much work; or two matrices with a few tiles. The tile and whatever
 * else is chosen by sizes stays as it is. */
static void shrink(const struct kernel_target *target, const struct class_use *use, struct test *test) {
    enum { ROWS = 261 };     /* some more than two of the largest tiles */
    const double much = 1e8; /* multiply-adds: about a millisecond of the slowest GPUs, some of a processor core */
    const struct conv_sizes *s = &use->class.sizes;
    double image = (double)(s->c * s->o * s->kh * s->kw) * (double)(s->oh * s->ow);
    test->class = use->class;
    test->class.sizes.n = 3 * image > much ? 1 : 3;
    struct matmul_sizes *product = &test->class.product;
    product->batch = min_of(product->batch, 2);
    product->m = min_of(product->m, ROWS);
    product->n = min_of(product->n, ROWS);
    test->choice = kernels_explicit(target, &use->class, &use->choice);
    if (!kernels_fits(target, &test->class, &test->choice))
        test->choice = (struct kernel_choice){.variant = use->choice.variant};
}

/* Whether the same template serves both, with numbers that differ in sizes alone. */
static bool same_template(const struct kernel_target *target, const struct kernel_class *a,
                          const struct kernel_class *b) {
    const struct conv_sizes *s = &a->sizes, *t = &b->sizes;
    return a->pass == b->pass && memcmp(&a->terms, &b->terms, sizeof a->terms) == 0
           && kernels_conv_layout(target, s->c) == kernels_conv_layout(target, t->c)
           && kernels_conv_layout(target, s->o) == kernels_conv_layout(target, t->o) && s->kh == t->kh && s->kw == t->kw
           && s->stride == t->stride && s->padding == t->padding;
}

/* Drivers for CPUs build a kernel in a third of a second, at the first start, and their compilers are used by
 * everybody: there each template is tested once. */
static bool same_test(const struct kernel_target *target, const struct test *a, const struct test *b) {
    bool same_class = target->traits->kind == DEVICE_CPU ? same_template(target, &a->class, &b->class)
                                                         : kernel_class_equal(&a->class, &b->class);
    return same_class && strcmp(a->choice.variant, b->choice.variant) == 0
           && memcmp(a->choice.parameters, b->choice.parameters, sizeof a->choice.parameters) == 0;
}

static int add_test(struct tests *tests, const struct kernel_target *target, const struct class_use *use, size_t *at) {
    int status = RETORT_OK;
    struct test *test = &tests->list[tests->count];
    *test = (struct test){0};
    shrink(target, use, test);
    for (*at = 0; *at < tests->count; ++*at)
        if (same_test(target, &tests->list[*at], test)) return RETORT_OK;
    tests->count++;
    TRY(wisdom_of_one(&test->class, &test->choice, &test->wisdom));
    test->target = *target;
    test->target.wisdom = test->wisdom;
    test->target.preferred = NULL;
    TRY(trial_create(&test->target, &test->class, &test->trial));
    TRY(trial_plan(test->trial, &test->target));
done:
    return status;
}

static void tests_finish(struct tests *tests) {
    for (size_t i = 0; tests->list && i < tests->count; i++) {
        trial_destroy(tests->list[i].trial);
        wisdom_destroy(tests->list[i].wisdom);
    }
    device_program_destroy(tests->program);
    free(tests->list);
    free(tests->of);
}

/* All kernels as one program; NULL where the driver does not build it, and each must be built by itself. */
static int build(struct device *device, const struct kernel_target *target, struct tests *tests) {
    int status = RETORT_OK;
    struct text text;
    text_init(&text);
    kernels_preamble(&text, target->lanes);
    for (size_t i = 0; i < tests->count; i++) {
        char prefix[24];
        snprintf(prefix, sizeof prefix, "t%zu_", i);
        plan_write(trial_planned(tests->list[i].trial), prefix, &text);
    }
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory writing kernels");
    status = device_program_create(device, text_get(&text), "", &tests->program);
    if (status == RETORT_EDEVICE) {
        log_debug("self-test: %s", retort_error_message());
        error_clear();
        status = RETORT_OK;
    }
done:
    text_finish(&text);
    return status;
}

static int run_test(struct device *device, const struct tests *tests, struct test *test) {
    int status = RETORT_OK;
    const struct trial_limits limits = {.spill = true};
    struct trial_result result;
    char prefix[24];
    snprintf(prefix, sizeof prefix, "t%zu_", (size_t)(test - tests->list));
    if (tests->program) status = trial_check(test->trial, device, tests->program, prefix, &limits, &result);
    if (status == RETORT_EDEVICE) log_debug("self-test: %s", retort_error_message());
    /* By itself, where the others' kernels cannot be what the driver stumbles over. */
    if (!tests->program || status == RETORT_EDEVICE)
        status = trial_run(test->trial, device, &test->target, &limits, &result);
    TRY(status);
    test->fault = result.fault;
    /* A device that is lost computes nothing: that is no fault of this kernel. */
    if (result.failed) TRY(device_self_test(device));
done:
    return status;
}

/* Enters a choice as bad and says so, with what is taken instead. */
static int refuse(const struct kernel_target *target, struct wisdom *wisdom, const struct class_use *use,
                  const char *fault) {
    int status = RETORT_OK;
    const struct device_traits *traits = target->traits;
    char what[KERNEL_WORDS], choice[KERNEL_WORDS], instead[KERNEL_WORDS];
    TRY(wisdom_refuse(wisdom, target, &use->class, &use->choice));
    kernel_class_describe(&use->class, what);
    kernel_choice_describe(&use->choice, choice);
    struct kernel_class single = use->class;
    single.terms = CONV_SINGLE;
    const struct kernel_choice next = kernels_choice(target, &single);
    if (!next.variant)
        RAISE(
            RETORT_EDEVICE,
            "%s cannot compute a %s: %s is the last kernel for it, and %s. This device or its driver (%s %s) does not "
            "compute what it is told: take another device (`retort devices` lists them)%s, or update the driver",
            traits->name, what, choice, fault, traits->platform, traits->driver,
            target->family == FAMILY_GPU ? ", set device.family: cpu" : "");
    kernel_choice_describe(&next, instead);
    log_warning("%s is not used for a %s: %s on %s (driver %s); %s is used instead%s", choice, what, fault,
                traits->name, traits->driver, instead,
                use->class.terms.inputs + use->class.terms.weights > 2 ? ", one convolution at a time" : "");
done:
    return status;
}

int kernels_self_test(struct device *device, const struct kernel_target *target, struct wisdom *wisdom,
                      struct class_use *uses, size_t count, bool skip, int *refused) {
    int status = RETORT_OK, failed = 0, skipped = 0;
    double begun = clock_seconds();
    struct tests tests = {.list = calloc(count + 1, sizeof *tests.list), .of = calloc(count + 1, sizeof *tests.of)};
    if (!tests.list || !tests.of) RAISE(RETORT_ENOMEM, "out of memory testing kernels");
    for (size_t i = 0; i < count; i++)
        if (!uses[i].tested) TRY(add_test(&tests, target, &uses[i], &tests.of[i]));
    if (tests.count) TRY(build(device, target, &tests));
    for (size_t i = 0; i < tests.count; i++) {
        device_first_launches_begin();
        status = run_test(device, &tests, &tests.list[i]);
        device_first_launches_end();
        if (status == RETORT_ELIMIT && skip) {
            skipped++;
            error_clear();
            continue;
        }
        TRY(status);
    }
    if (skipped) log_info("kernels: %d of %zu are not tested, for lack of memory", skipped, tests.count);
    for (size_t i = 0; i < count; i++) {
        const char *fault = uses[i].tested ? NULL : tests.list[tests.of[i]].fault;
        uses[i].tested = true;
        if (!fault || wisdom_refuses(wisdom, &uses[i].class, &uses[i].choice)) continue;
        failed++;
        TRY(refuse(target, wisdom, &uses[i], fault));
    }
    if (tests.count)
        log_debug("self-test: %zu kernels, %d refused, %.2f s", tests.count, failed, clock_seconds() - begun);
    *refused = failed;
    status = RETORT_OK; /* skipping is none */
done:
    if (status < 0) error_context("testing kernels");
    tests_finish(&tests);
    return status;
}
