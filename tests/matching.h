/* What the tests of gradient matching share: the keys of its methods, data, networks, a problem. */
#ifndef RETORT_TESTS_MATCHING_H
#define RETORT_TESTS_MATCHING_H

#include "methods.h"
#include "test.h"

#include "distill/distill.h"
#include "distill/method.h"

enum { CLASSES = 3, CHANNELS = 2, HEIGHT = 8, WIDTH = 7, PIXELS = CHANNELS * HEIGHT * WIDTH, IPC = 3 };
enum { COUNT = CLASSES * IPC, TRAIN = 70, REAL = 6, MOST_REAL = 16 };

/* What the methods' keys say: their own structs (match.c, idc.c). */
struct match_keys {
    int row, adaptive;
    double intra, inter;
    int warmup[2], outer, inner, real_per_class;
    bool augment, flip;
};
struct idc_keys {
    int matches, real_per_class, set_per_class, real_images;
    int distance, models, networks, epochs;
    double perturb[2], cutmix;
    bool augment;
};

TRAIN_OF(TRAIN, CHANNELS, HEIGHT, WIDTH, 0, 4, 30, TRAIN); /* 4, 26 and 40 images */
static volatile int interrupt;

static inline int prepare(void **state) {
    (void)state;
    dataset_fill(&train);
    libraries_begin("cpu");
    return 0;
}

static inline struct distill_problem problem_of(const struct network *network, const char *method, const void *keys,
                                                int family) {
    return (struct distill_problem){
        .library = libraries[family],
        .train = &train,
        .network = network,
        .inner = {.optimizer = {.kind = OPTIMIZER_SGD, .lr = 0.05, .momentum = 0.5}},
        .set = {.ipc = IPC, .init = SET_NOISE},
        .outer = {.steps = 10, .optimizer = OPTIMIZER_SGD, .lr = 0.1, .momentum = 0.5, .meta_batch = 1},
        .method = method_named(method),
        .method_spec = keys,
        .seed = 11,
        .interrupt = &interrupt};
}

static const struct network_spec instance_norm = {
    .kind = NETWORK_CONVNET, .depth = 2, .width = 5, .norm = NORM_INSTANCE, .activation = ACTIVATION_SWISH};
static const struct network_spec batch_norm = {
    .kind = NETWORK_CONVNET, .depth = 2, .width = 5, .norm = NORM_BATCH, .activation = ACTIVATION_SWISH};

static const struct match_keys dc = {.intra = 1, .outer = 3, .inner = 2, .real_per_class = REAL, .flip = true};

#endif
