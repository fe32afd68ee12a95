/* Truncated trainings for tests of the unroll: problems with everything given, and their answers. */
#ifndef RETORT_TESTS_TRAINING_H
#define RETORT_TESTS_TRAINING_H

#include "graphs.h"

#include <stdlib.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/random.h"
#include "unroll/meta.h"
#include "unroll/unroll.h"

/* --- problems --- */
struct problem {
    struct arena arena;
    struct network network;
    struct unroll_spec spec;
    struct meta_spec meta;
    struct pass_spec pass;
    int steps, prefix, window;
    float *theta, *images, *soft, *maps, *colour, *weights, *real_images, *real_maps;
    int32_t *hard, *rows, *real_labels;
    double *lr;
};

static inline float *floats(struct problem *p, int64_t count, double scale, struct random *random) {
    float *values = arena_array(&p->arena, (size_t)count + 1, sizeof *values);
    for (int64_t i = 0; i < count; i++) values[i] = (float)(scale * random_normal(random));
    return values;
}

static inline int32_t *integers(struct problem *p, int64_t count, int64_t bound, struct random *random) {
    int32_t *values = arena_array(&p->arena, (size_t)count + 1, sizeof *values);
    for (int64_t i = 0; i < count; i++) values[i] = (int32_t)random_below(random, (uint32_t)bound);
    return values;
}

/* Maps a little off the identity. */
static inline float *affine(struct problem *p, int64_t count, struct random *random) {
    float *maps = floats(p, 6 * count, 0.2, random);
    for (int64_t i = 0; i < count; i++) maps[6 * i] += 1, maps[6 * i + 4] += 1;
    return maps;
}

static inline int64_t pixels(const struct problem *p) {
    return (int64_t)p->network.channels * p->network.height * p->network.width;
}

/* Fills everything else at random from what is given: the network's spec, the unroll's and the meta-loss's without the
 * network. */
static inline void problem_init(struct problem *p, const struct network_spec *network, int channels, int side,
                                const struct unroll_spec *spec, struct meta_spec meta, int prefix) {
    struct random random = random_begin(5, RANDOM_TEST, 0);
    *p = (struct problem){.spec = *spec, .meta = meta, .prefix = prefix, .window = spec->max_window};
    arena_init(&p->arena);
    assert_ok(network_describe(network, channels, side, side, 3, &p->network));
    p->spec.network = p->meta.network = &p->network;
    if (meta.batch) {
        p->pass = meta_pass(&p->meta);
        p->spec.passes = &p->pass;
        p->spec.pass_count = 1;
    }
    p->steps = prefix + p->window;
    int64_t n = spec->set_count, r = p->meta.batch, k = p->network.classes, draws = p->steps * spec->batch;
    p->theta = floats(p, p->network.theta_count, 0.4, &random);
    p->images = floats(p, n * pixels(p), 1, &random);
    p->soft = floats(p, n * k, 1, &random);
    for (int64_t i = 0; i < n * k; i++) p->soft[i] = 0.1f + p->soft[i] * p->soft[i];
    p->hard = integers(p, n, k, &random);
    p->rows = integers(p, draws, n, &random);
    p->maps = affine(p, draws, &random);
    p->real_images = floats(p, r * pixels(p), 1, &random);
    p->real_labels = integers(p, r, k, &random);
    p->real_maps = affine(p, r, &random);
    p->lr = arena_array(&p->arena, (size_t)p->steps, sizeof *p->lr);
    p->weights = arena_array(&p->arena, (size_t)p->steps, sizeof *p->weights);
    assert_false(p->arena.failed);
    for (int t = 0; t < p->steps; t++) p->lr[t] = spec->optimizer.lr, p->weights[t] = 1;
}

static inline void problem_finish(struct problem *p) {
    arena_finish(&p->arena);
}

static const struct network_spec mlp = {
    .kind = NETWORK_MLP, .depth = 1, .width = 5, .activation = ACTIVATION_SWISH, .pool = POOL_AVERAGE};
static const struct network_spec convnet = {.kind = NETWORK_CONVNET,
                                            .depth = 1,
                                            .width = 5,
                                            .norm = NORM_INSTANCE,
                                            .activation = ACTIVATION_SWISH,
                                            .pool = POOL_AVERAGE};
static const struct optimizer_spec momentum = {
    .kind = OPTIMIZER_SGD, .lr = 0.05, .momentum = 0.8, .weight_decay = 0.01};
static const struct optimizer_spec adam = {
    .kind = OPTIMIZER_ADAM, .lr = 0.02, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-6, .weight_decay = 0.01};

static inline void augmented_problem(struct problem *p) {
    problem_init(
        p, &mlp, 2, 4,
        &(struct unroll_spec){
            .optimizer = momentum, .set_count = 6, .batch = 4, .soft_labels = true, .augment = true, .max_window = 3},
        (struct meta_spec){.batch = 7, .augment = true}, 2);
}

static inline void adam_problem(struct problem *p) {
    problem_init(
        p, &convnet, 2, 8,
        &(struct unroll_spec){.optimizer = adam, .set_count = 7, .batch = 6, .soft_labels = true, .max_window = 3},
        (struct meta_spec){.batch = 10}, 1);
}

/* The second convolution has channels enough to be worth keeping, forward and back; 17 fill no whole vector. */
static inline void kept_problem(struct problem *p, bool soft) {
    struct network_spec network = convnet;
    struct unroll_spec spec = {.optimizer = adam,
                               .set_count = 6,
                               .batch = 4,
                               .soft_labels = soft,
                               .augment = soft,
                               .max_window = 4,
                               .steps = 6};
    network.depth = 2;
    network.width = 17;
    problem_init(p, &network, 2, 8, &spec, (struct meta_spec){.batch = 3}, 2);
}

/* --- answers --- */
struct answer {
    double loss, accuracy, lr;
    float *images, *labels;
    double *losses, *norms; /* of every step */
};

static inline struct answer answer_make(struct problem *p) {
    return (struct answer){.images = arena_array(&p->arena, (size_t)(p->spec.set_count * pixels(p)), sizeof(float)),
                           .labels = arena_array(&p->arena, (size_t)(p->spec.set_count * p->network.classes), 4),
                           .losses = arena_array(&p->arena, (size_t)p->steps, sizeof(double)),
                           .norms = arena_array(&p->arena, (size_t)p->steps, sizeof(double))};
}

static inline int upload(struct unroll *unroll, const struct problem *p) {
    bool soft = p->spec.soft_labels;
    int status = unroll_set(unroll, 0, p->images, soft ? p->soft : NULL, soft ? NULL : p->hard);
    if (status < 0) return status;
    return unroll_upload_steps(unroll, &(struct unroll_steps){.first = 1,
                                                              .count = p->steps,
                                                              .lr = p->lr,
                                                              .rows = p->rows,
                                                              .maps = p->maps,
                                                              .colour = p->colour,
                                                              .weights = p->weights});
}

static inline struct place lambda_of(struct unroll *unroll) {
    return meta_lambda(unroll_pass(unroll, 0));
}

static inline void pause_at_random(struct random *pauses) {
    if (pauses) usleep(random_below(pauses, 5000));
}

/* Everything from the problem's weights on, into an answer that has been made: for threads, where nothing may be
 * asserted. With `pauses` it sleeps now and then, as long as that says. */
static inline int compute_answer(struct unroll *unroll, const struct problem *p, struct random *pauses,
                                 struct answer *answer) {
    int status = RETORT_OK;
    struct pass *meta = unroll_pass(unroll, 0);
    struct unroll_gradient gradient = {.images = answer->images, .labels = answer->labels};
    TRY(upload(unroll, p));
    TRY(unroll_begin_from(unroll, p->theta));
    for (int t = 0; t < p->prefix; t++) {
        pause_at_random(pauses);
        TRY(unroll_train(unroll, t, 1, true));
    }
    pause_at_random(pauses);
    TRY(unroll_window(unroll, p->prefix, p->window, true));
    pause_at_random(pauses);
    TRY(meta_upload(meta, p->real_images, p->real_labels, p->real_maps));
    TRY(meta_run(meta));
    pause_at_random(pauses);
    TRY(unroll_backward(unroll, lambda_of(unroll), p->spec.no_hessian ? HESSIAN_NONE : HESSIAN_EXACT, &gradient));
    TRY(unroll_read_probe(unroll, p->steps, answer->losses, answer->norms));
    TRY(meta_read(meta, &answer->loss, &answer->accuracy));
    answer->lr = gradient.lr;
done:
    return status;
}

static inline struct answer device_answer(struct unroll *unroll, struct problem *p) {
    struct answer answer = answer_make(p);
    assert_ok(compute_answer(unroll, p, NULL, &answer));
    return answer;
}

static inline double error_of(const float *got, const float *expected, int64_t count) {
    double difference = 0, scale = 0;
    for (int64_t i = 0; i < count; i++) {
        if (!(fabs((double)got[i] - expected[i]) <= difference)) difference = fabs((double)got[i] - expected[i]);
        scale = fmax(scale, fabs(expected[i]));
    }
    return scale > 0 ? difference / scale : difference;
}

static inline void expect_close(const char *what, double error, double tolerance) {
    if (!(error <= tolerance)) fail_msg("%s: relative error %.3g, allowed %.3g", what, error, tolerance);
}

static inline void expect_answer(const struct problem *p, const struct answer *got, const struct answer *expected,
                                 double tolerance) {
    int64_t n = p->spec.set_count;
    expect_close("inner losses", relative_error(got->losses, expected->losses, p->steps), tolerance);
    expect_close("gradient norms", relative_error(got->norms, expected->norms, p->steps), tolerance);
    expect_close("meta-loss", fabs(got->loss / expected->loss - 1), tolerance);
    expect_close("accuracy", fabs(got->accuracy - expected->accuracy), 1e-9);
    expect_close("derivative by the learning rate", fabs(got->lr / expected->lr - 1), tolerance);
    expect_close("gradient of the images", error_of(got->images, expected->images, n * pixels(p)), tolerance);
    if (p->spec.soft_labels)
        expect_close("gradient of the labels", error_of(got->labels, expected->labels, n * p->network.classes),
                     tolerance);
}

static inline void expect_same(const struct problem *p, const struct answer *got, const struct answer *expected) {
    assert_memory_equal(got->images, expected->images, (size_t)(p->spec.set_count * pixels(p)) * sizeof(float));
    if (p->spec.soft_labels)
        assert_memory_equal(got->labels, expected->labels,
                            (size_t)(p->spec.set_count * p->network.classes) * sizeof(float));
    assert_memory_equal(got->losses, expected->losses, (size_t)p->steps * sizeof(double));
    assert_memory_equal(got->norms, expected->norms, (size_t)p->steps * sizeof(double));
    assert_true(got->loss == expected->loss && got->lr == expected->lr && got->accuracy == expected->accuracy);
}

#endif
