/* The unroll on the device against one graph of the whole training, differentiated in reverse and evaluated in double:
 * no replay, no stored window, no micro-batches there. */
#include "base/augmentation.h"
#include "training.h"

#include <stdio.h>

#include "transform/transform.h"
#include "unroll/self_test.h"

#define TOLERANCE 2e-5

/* Forward through prefix and window, from the current begin, and the meta-loss there. */
static int forward(struct unroll *unroll, const struct problem *p) {
    struct pass *meta = unroll_pass(unroll, 0);
    int status = meta_upload(meta, p->real_images, p->real_labels, p->real_maps);
    if (status == RETORT_OK) status = unroll_train(unroll, 0, p->prefix, true);
    if (status == RETORT_OK) status = unroll_window(unroll, p->prefix, p->window, true);
    return status == RETORT_OK ? meta_run(meta) : status;
}

static double *widen(struct problem *p, const void *values, int64_t count, bool is_int) {
    double *wide = arena_array(&p->arena, (size_t)count + 1, sizeof *wide);
    for (int64_t i = 0; i < count; i++) wide[i] = is_int ? ((const int32_t *)values)[i] : ((const float *)values)[i];
    return wide;
}

static const char *numbered(struct problem *p, const char *name, int i) {
    return arena_printf(&p->arena, "%s %d", name, i);
}

/* The same by plain reverse differentiation of the whole run. */
static struct answer reference_answer(struct problem *p) {
    const struct unroll_spec *spec = &p->spec;
    const struct network *net = &p->network;
    int64_t n = spec->set_count, b = spec->batch, k = net->classes, theta_count = net->theta_count;
    struct answer answer = answer_make(p);
    struct binding bindings[64];
    int bound = 0;
    struct graph *g;
    assert_ok(graph_create(&g));
#define BIND(text, array)                  \
    bindings[bound++] = (struct binding) { \
        (text), (array)                    \
    }
    struct node *theta = graph_input(g, "theta", FLOAT32, SHAPE(theta_count));
    BIND("theta", widen(p, p->theta, theta_count, false));
    struct node *images = graph_input(g, "images", FLOAT32, SHAPE(n, net->channels, net->height, net->width));
    BIND("images", widen(p, p->images, n * pixels(p), false));
    bool soft = spec->soft_labels;
    struct node *labels = graph_input(g, "labels", soft ? FLOAT32 : INT32, soft ? SHAPE(n, k) : SHAPE(n));
    BIND("labels", soft ? widen(p, p->soft, n * k, false) : widen(p, p->hard, n, true));
    struct node *lr = graph_input(g, "lr", FLOAT32, SHAPE(1));
    double rate = (float)spec->optimizer.lr;
    BIND("lr", &rate);
    int states = optimizer_state_count(&spec->optimizer);
    struct node *state[OPTIMIZER_MAX_STATE], *next[OPTIMIZER_MAX_STATE], *gradient;
    for (int i = 0; i < states; i++) state[i] = graph_constant(g, 0, SHAPE(theta_count));
    for (int t = 0; t < p->steps; t++) {
        if (t == p->prefix) {
            theta = node_stop_gradient(theta);
            for (int i = 0; i < states; i++) state[i] = node_stop_gradient(state[i]);
        }
        struct node *rows = graph_input(g, numbered(p, "rows", t), INT32, SHAPE(b));
        BIND(rows->name, widen(p, p->rows + t * b, b, true));
        /* Without the Hessian the gradient moves with the set, not with the weights. */
        struct node *at = spec->no_hessian ? node_stop_gradient(theta) : theta;
        struct network_pass pass = {.theta = at, .images = node_gather_rows(images, rows)};
        if (spec->augment) {
            struct node *map = graph_input(g, numbered(p, "maps", t), FLOAT32, SHAPE(b, 2, 3));
            BIND(map->name, widen(p, p->maps + t * b * 6, b * 6, false));
            pass.images = node_sample(pass.images, map);
        }
        struct node *logits = network_logits(g, net, &pass, NULL, NULL), *answers = node_gather_rows(labels, rows);
        struct node *loss = soft ? loss_soft(g, logits, answers) : loss_hard(g, logits, answers);
        assert_ok(graph_status(g));
        assert_ok(transform_vjp(loss, NULL, &at, 1, &gradient));
        graph_output(g, numbered(p, "loss", t), loss);
        BIND(numbered(p, "loss", t), &answer.losses[t]);
        graph_output(g, numbered(p, "norm", t), node_sqrt(node_sum_all(node_square(gradient))));
        BIND(numbered(p, "norm", t), &answer.norms[t]);
        float row[OPTIMIZER_SCALARS];
        optimizer_scalars(&spec->optimizer, spec->optimizer.lr, t + 1, row);
        struct node *scalars[OPTIMIZER_SCALARS] = {lr};
        for (int i = 1; i < OPTIMIZER_SCALARS; i++) scalars[i] = graph_constant(g, row[i], SHAPE(1));
        optimizer_update(g, &spec->optimizer, node_concat(scalars, OPTIMIZER_SCALARS, 0), theta, state, gradient,
                         &theta, next);
        memcpy(state, next, sizeof state);
    }
    int64_t r = p->meta.batch;
    struct network_pass pass = {.theta = theta};
    pass.images = graph_input(g, "real", FLOAT32, SHAPE(r, net->channels, net->height, net->width));
    BIND("real", widen(p, p->real_images, r * pixels(p), false));
    if (p->meta.augment) {
        pass.images = node_sample(pass.images, graph_input(g, "real maps", FLOAT32, SHAPE(r, 2, 3)));
        BIND("real maps", widen(p, p->real_maps, 6 * r, false));
    }
    struct node *real_labels = graph_input(g, "real labels", INT32, SHAPE(r));
    BIND("real labels", widen(p, p->real_labels, r, true));
    struct node *logits = network_logits(g, net, &pass, NULL, NULL), *loss = loss_hard(g, logits, real_labels);
    struct node *wrt[] = {images, lr, labels}, *gradients[3];
    assert_ok(graph_status(g));
    assert_ok(transform_vjp(loss, NULL, wrt, soft ? 3 : 2, gradients));
    double correct, *d_images = arena_array(&p->arena, (size_t)(n * pixels(p)), sizeof *d_images);
    double *d_labels = arena_array(&p->arena, (size_t)(n * k), sizeof *d_labels);
    graph_output(g, "meta-loss", loss);
    BIND("meta-loss", &answer.loss);
    graph_output(g, "correct", count_correct(g, logits, real_labels));
    BIND("correct", &correct);
    graph_output(g, "d images", gradients[0]);
    BIND("d images", d_images);
    graph_output(g, "d lr", gradients[1]);
    BIND("d lr", &answer.lr);
    if (soft) graph_output(g, "d labels", gradients[2]);
    BIND("d labels", d_labels);
    BIND(NULL, NULL);
#undef BIND
    evaluate(g, bindings);
    graph_destroy(g);
    answer.accuracy = 100.0 * correct / (double)r;
    for (int64_t i = 0; i < n * pixels(p); i++) answer.images[i] = (float)d_images[i];
    for (int64_t i = 0; i < n * k; i++) answer.labels[i] = (float)d_labels[i];
    return answer;
}

/* --- the cases --- */
static struct device *device;

/* One library a family: kernels that tests share are built once. */
static struct library *libraries[3];

static struct library *library_of(enum family family) {
    if (!libraries[family]) assert_ok(library_create(device, family, &libraries[family]));
    return libraries[family];
}

static struct unroll *make_unroll(enum family family, const struct problem *p) {
    struct unroll *unroll;
    assert_ok(unroll_create(library_of(family), &p->spec, &unroll));
    return unroll;
}

/* Sampled images, soft labels, momentum with decay, a prefix. */
static void test_augmented(void **state) {
    struct problem p;
    augmented_problem(&p);
    struct answer expected = reference_answer(&p);
    struct unroll *unroll = make_unroll(*(enum family *)*state, &p);
    /* Tables that grow later must not leave kernels with the old ones. */
    assert_ok(
        unroll_upload_steps(unroll, &(struct unroll_steps){.first = 1, .count = 1, .rows = p.rows, .maps = p.maps}));
    assert_ok(unroll_set(unroll, 0, p.images, p.soft, NULL));
    assert_ok(unroll_begin(unroll, &(uint64_t){3}));
    assert_ok(unroll_train(unroll, 0, 1, false));
    struct answer got = device_answer(unroll, &p);
    expect_answer(&p, &got, &expected, TOLERANCE);
    /* Other images, and then the same again row by row, as those of a real set may come. */
    assert_ok(unroll_set_rows(unroll, 0, 0, p.spec.set_count - 1, p.images + pixels(&p), p.soft, NULL));
    for (int64_t i = p.spec.set_count - 1; i >= 0; i--)
        assert_ok(unroll_set_rows(unroll, 0, i, 1, p.images + i * pixels(&p), p.soft + i * p.network.classes, NULL));
    struct unroll_gradient gradient = {.images = arena_array(&p.arena, (size_t)(p.spec.set_count * pixels(&p)), 4)};
    assert_ok(unroll_begin_from(unroll, p.theta));
    assert_ok(forward(unroll, &p));
    assert_ok(unroll_backward(unroll, lambda_of(unroll), HESSIAN_EXACT, &gradient));
    assert_memory_equal(gradient.images, got.images, (size_t)(p.spec.set_count * pixels(&p)) * sizeof(float));
    unroll_destroy(unroll);
    problem_finish(&p);
}

/* Weights of steps scale their shares of the gradient; the learning rate's derivative is that of the meta-loss. */
static void test_weights_and_rates(void **state) {
    (void)state;
    struct problem p;
    augmented_problem(&p);
    struct unroll *unroll = make_unroll(FAMILY_CPU, &p);
    struct answer whole = device_answer(unroll, &p);
    int64_t images = p.spec.set_count * pixels(&p), labels = p.spec.set_count * p.network.classes;
    float *expected_images = arena_array(&p.arena, (size_t)images, sizeof(float));
    float *expected_labels = arena_array(&p.arena, (size_t)labels, sizeof(float));
    const float factors[] = {0.5f, -2, 3};
    for (int chosen = 0; chosen < p.window; chosen++) {
        for (int t = 0; t < p.window; t++) p.weights[p.prefix + t] = t == chosen;
        struct answer one = device_answer(unroll, &p);
        assert_true(one.loss == whole.loss && one.lr == whole.lr);
        for (int64_t i = 0; i < images; i++) expected_images[i] += factors[chosen] * one.images[i];
        for (int64_t i = 0; i < labels; i++) expected_labels[i] += factors[chosen] * one.labels[i];
    }
    memcpy(p.weights + p.prefix, factors, sizeof factors);
    struct answer weighted = device_answer(unroll, &p);
    expect_close("weighted images", error_of(weighted.images, expected_images, images), 2e-6);
    expect_close("weighted labels", error_of(weighted.labels, expected_labels, labels), 2e-6);

    double step = 0.03 * p.spec.optimizer.lr, losses[2];
    for (int side = 0; side < 2; side++) {
        for (int t = p.prefix; t < p.steps; t++) p.lr[t] = p.spec.optimizer.lr + (side ? step : -step);
        losses[side] = device_answer(unroll, &p).loss;
    }
    expect_close("difference quotient by the learning rate", fabs((losses[1] - losses[0]) / (2 * step * whole.lr) - 1),
                 5e-3);
    unroll_destroy(unroll);
    problem_finish(&p);
}

/* What unroll.h says of the colour parameters, on one image. */
static void colour_image(const struct problem *p, const float *from, const float *colour, float *to) {
    int channels = p->network.channels, height = p->network.height, width = p->network.width, area = height * width;
    double mean = 0;
    for (int i = 0; i < area; i++) {
        double grey = 0;
        for (int c = 0; c < channels; c++) grey += (from[c * area + i] + (double)colour[0]) / channels;
        for (int c = 0; c < channels; c++) {
            double value = (from[c * area + i] + (double)colour[0] - grey) * colour[1] + grey;
            to[c * area + i] = (float)value;
            mean += value / (channels * area);
        }
    }
    for (int i = 0; i < channels * area; i++) {
        bool inside = fabs(i / width % height - colour[3]) <= colour[5] && fabs(i % width - colour[4]) <= colour[6];
        bool hole = inside && colour[5] > 0 && colour[6] > 0;
        to[i] = hole ? 0 : (float)((to[i] - mean) * colour[2] + mean);
    }
}

/* Colours and cutout: as if the images had been so from the start, and derivatives that fit the values. */
static void test_colour(void **state) {
    (void)state;
    struct problem p, plain;
    struct unroll_spec spec = {.optimizer = momentum, .set_count = 5, .batch = 4, .colour = true, .max_window = 3};
    const struct meta_spec meta = {.batch = 6};
    problem_init(&p, &mlp, 3, 5, &spec, meta, 1);
    struct random random = random_begin(6, RANDOM_TEST, 0);
    p.colour = floats(&p, p.steps * spec.batch * 8, 0.3, &random);
    for (int64_t i = 0; i < p.steps * spec.batch; i++) {
        float *row = p.colour + 8 * i, hole[4] = {1.5f, 2, 1, (float)(i % 3) - 0.5f};
        row[1] += 1, row[2] += 1;
        memcpy(row + 3, hole, sizeof hole);
    }
    spec.colour = false;
    spec.set_count = p.steps * spec.batch;
    problem_init(&plain, &mlp, 3, 5, &spec, meta, 1);
    for (int32_t i = 0; i < spec.set_count; i++) {
        colour_image(&p, p.images + p.rows[i] * pixels(&p), p.colour + 8 * i, plain.images + i * pixels(&p));
        plain.hard[i] = p.hard[p.rows[i]];
        plain.rows[i] = i;
    }
    plain.theta = p.theta;
    plain.real_images = p.real_images;
    plain.real_labels = p.real_labels;
    struct unroll *coloured = make_unroll(FAMILY_CPU, &p), *uncoloured = make_unroll(FAMILY_CPU, &plain);
    struct answer got = device_answer(coloured, &p), expected = device_answer(uncoloured, &plain);
    expect_close("losses on coloured images", relative_error(got.losses, expected.losses, p.steps), 2e-6);
    expect_close("norms on coloured images", relative_error(got.norms, expected.norms, p.steps), 5e-6);
    expect_close("meta-loss", fabs(got.loss / expected.loss - 1), 2e-6);

    /* Along a random direction and along the gradient; only rows of the window count, so the prefix reads none. */
    int64_t count = p.spec.set_count * pixels(&p);
    for (int64_t i = 0; i < p.prefix * p.spec.batch; i++) p.rows[i] = (int32_t)p.spec.set_count - 1;
    for (int64_t i = p.prefix * p.spec.batch; i < p.steps * p.spec.batch; i++)
        p.rows[i] = (int32_t)(i % (p.spec.set_count - 1));
    got = device_answer(coloured, &p);
    float *direction = floats(&p, count, 1, &random), *start = p.images;
    double norm = 0, slope = 0, losses[2];
    for (int64_t i = 0; i < count; i++) norm += got.images[i] * got.images[i];
    norm = sqrt(norm);
    for (int64_t i = 0; i < count; i++) {
        if (i >= count - pixels(&p))
            direction[i] = 0;
        else
            direction[i] = direction[i] / sqrtf((float)count) + got.images[i] / (float)norm;
        slope += direction[i] * got.images[i];
    }
    for (int side = 0; side < 2; side++) {
        p.images = arena_array(&p.arena, (size_t)count, sizeof(float));
        for (int64_t i = 0; i < count; i++) p.images[i] = start[i] + (side ? 0.05f : -0.05f) * direction[i];
        losses[side] = device_answer(coloured, &p).loss;
    }
    expect_close("difference quotient by the images", fabs((losses[1] - losses[0]) / (0.1 * slope) - 1), 5e-3);
    unroll_destroy(coloured);
    unroll_destroy(uncoloured);
    problem_finish(&p);
    problem_finish(&plain);
}

/* A Hessian factor of rank p - 1 misses at most what lies along one vector, and a shift of all biases of the head has
 * curvature zero: the low-rank meta-gradient is the exact one. */
static void test_lanczos(void **state) {
    (void)state;
    struct problem p;
    problem_init(
        &p, &mlp, 1, 2,
        &(struct unroll_spec){.optimizer = momentum, .set_count = 6, .batch = 4, .max_window = 2, .rank = 1000},
        (struct meta_spec){.batch = 5}, 0);
    struct unroll *unroll = make_unroll(FAMILY_CPU, &p);
    struct answer exact = answer_make(&p), low = answer_make(&p), again = answer_make(&p);
    struct unroll_gradient gradient = {.images = low.images};
    assert_ok(upload(unroll, &p));
    assert_ok(unroll_begin_from(unroll, p.theta));
    assert_ok(forward(unroll, &p));
    assert_int_equal(unroll_backward(unroll, lambda_of(unroll), HESSIAN_LANCZOS, &gradient), RETORT_EINVAL);
    /* The factor is wanted where the exact pass takes its product: at the weights before the second step. */
    assert_ok(unroll_begin_from(unroll, p.theta));
    assert_ok(unroll_train(unroll, 0, 1, false));
    assert_ok(unroll_lanczos(unroll, 1, 7));
    assert_ok(unroll_begin_from(unroll, p.theta));
    assert_ok(forward(unroll, &p));
    assert_ok(unroll_backward(unroll, lambda_of(unroll), HESSIAN_LANCZOS, &gradient));
    gradient.images = exact.images;
    assert_ok(unroll_backward(unroll, lambda_of(unroll), HESSIAN_EXACT, &gradient));
    int64_t count = p.spec.set_count * pixels(&p);
    expect_close("low-rank meta-gradient", error_of(low.images, exact.images, count), 1e-4);
    struct answer expected = reference_answer(&p);
    expect_close("exact meta-gradient", error_of(exact.images, expected.images, count), TOLERANCE);
    /* The first step's factor is another one. */
    float *factor = arena_array(&p.arena, (size_t)unroll_factor_count(unroll), sizeof *factor);
    assert_ok(unroll_read_factor(unroll, factor));
    assert_ok(unroll_begin_from(unroll, p.theta));
    assert_ok(unroll_lanczos(unroll, 0, 7));
    gradient.images = again.images;
    assert_ok(forward(unroll, &p));
    assert_ok(unroll_backward(unroll, lambda_of(unroll), HESSIAN_LANCZOS, &gradient));
    assert_true(error_of(again.images, exact.images, count) > 1e-3);
    assert_ok(unroll_write_factor(unroll, factor));
    assert_ok(unroll_backward(unroll, lambda_of(unroll), HESSIAN_LANCZOS, &gradient));
    assert_memory_equal(again.images, low.images, (size_t)count * sizeof(float));
    unroll_destroy(unroll);
    problem_finish(&p);
}

/* The largest rank that is offered is one that can be had. */
static void test_largest_rank(void **state) {
    (void)state;
    struct problem p;
    augmented_problem(&p);
    p.spec.rank = LANCZOS_MAX_RANK;
    assert_true(p.network.theta_count > LANCZOS_MAX_RANK + 1);
    struct unroll *unroll = make_unroll(FAMILY_CPU, &p);
    float *values = floats(&p, LANCZOS_MAX_RANK, 0, &(struct random){0});
    assert_ok(upload(unroll, &p));
    assert_ok(unroll_begin_from(unroll, p.theta));
    assert_ok(unroll_lanczos(unroll, 0, 7));
    assert_ok(unroll_read_eigenvalues(unroll, values));
    for (int i = 1; i < LANCZOS_MAX_RANK; i++) assert_true(fabsf(values[i]) <= fabsf(values[i - 1]));
    unroll_destroy(unroll);
    p.spec.rank++;
    assert_int_equal(unroll_create(library_of(FAMILY_CPU), &p.spec, &unroll), RETORT_EINVAL);
    problem_finish(&p);
}

/* Backward passes that leave the Hessian out: mixed derivatives and weight decay alone, of a whole batch and in parts.
 */
static void test_no_hessian(void **state) {
    enum family family = *(enum family *)*state;
    struct problem p;
    augmented_problem(&p);
    p.spec.no_hessian = true;
    struct answer expected = reference_answer(&p);
    struct unroll *unroll = make_unroll(family, &p);
    struct answer whole = device_answer(unroll, &p);
    struct unroll_gradient gradient = {.images = whole.images};
    assert_int_equal(unroll_backward(unroll, lambda_of(unroll), HESSIAN_EXACT, &gradient), RETORT_EINVAL);
    /* The derivative by the rate is a small difference of large shares here. */
    expect_answer(&p, &whole, &expected, 2.5 * TOLERANCE);
    struct unroll_plan plan;
    unroll_plan(unroll, &plan);
    unroll_destroy(unroll);
    plan.inner_splits = 2, plan.meta_splits = 3;
    p.spec.frozen = &plan;
    unroll = make_unroll(family, &p);
    struct answer parts = device_answer(unroll, &p);
    expect_answer(&p, &parts, &expected, 2.5 * TOLERANCE);
    unroll_destroy(unroll);
    p.spec.frozen = NULL, p.spec.no_hessian = false;
    struct answer exact = reference_answer(&p);
    assert_true(error_of(exact.images, expected.images, p.spec.set_count * pixels(&p)) > 1e-3);
    problem_finish(&p);
}

/* --- passes --- */
enum { PASS_ROWS = 7, FEATURES = 3 };
enum { OF_THETA, OF_SET, OF_ROWS, OF_WEIGHTS, OF_PRODUCTS, OF_TOTAL, PASS_VALUES };

/* Each uploaded row times weights that the method binds; and the sum of all, each with the first image's first pixel
 * and the first weight of the network on top. */
static struct graph *build_products(const void *context, int64_t count) {
    const struct problem *p = context;
    const struct network *net = &p->network;
    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *theta = graph_input(g, "theta", FLOAT32, SHAPE(net->theta_count));
    struct node *set = graph_input(g, "set", FLOAT32, SHAPE(p->spec.set_count, net->channels, net->height, net->width));
    struct node *rows = graph_input(g, "rows", FLOAT32, SHAPE(count, FEATURES));
    struct node *weights = graph_input(g, "weights", FLOAT32, SHAPE(FEATURES, 1));
    struct node *products = node_reshape(node_matmul(rows, weights, false, false), SHAPE(count));
    struct node *first = node_slice(theta, (int64_t[]){0}, (int64_t[]){1}, SHAPE(1));
    struct node *pixel =
        node_reshape(node_slice(set, (int64_t[]){0, 0, 0, 0}, (int64_t[]){1, 1, 1, 1}, SHAPE(1, 1, 1, 1)), SHAPE(1));
    struct node *more = node_reshape(node_add(first, pixel), SCALAR_SHAPE);
    graph_output(g, "products", products);
    graph_output(g, "out total",
                 node_add(node_add(graph_input(g, "total", FLOAT32, SCALAR_SHAPE), more), node_sum_all(products)));
    assert_ok(graph_status(g));
    return g;
}

/* A method's own pass: uploads, a value bound to a place of another, the weights and the set where they lie; whole and
 * in parts, whose missing rows count as zeros. */
static void test_pass(void **state) {
    enum family family = *(enum family *)*state;
    struct problem p;
    augmented_problem(&p);
    struct pass_value values[PASS_VALUES] = {
        {"theta", PASS_THETA},   {"set", PASS_SET_IMAGES},        {"rows", PASS_UPLOAD, true},
        {"weights", PASS_BOUND}, {"products", PASS_RESULT, true}, {"total", PASS_SUM},
    };
    struct pass_spec passes[2] = {p.pass,
                                  {.label = "products",
                                   .build = build_products,
                                   .context = &p,
                                   .batch = PASS_ROWS,
                                   .values = values,
                                   .value_count = PASS_VALUES}};
    p.spec.passes = passes;
    p.spec.pass_count = 2;
    struct random random = random_begin(9, RANDOM_TEST, 0);
    float *rows = floats(&p, PASS_ROWS * FEATURES, 1, &random), products[PASS_ROWS], total;
    struct unroll *unroll = make_unroll(family, &p);
    struct unroll_plan plan;
    unroll_plan(unroll, &plan);
    for (int parts = 1; parts <= 3; parts += 2) {
        unroll_destroy(unroll);
        plan.meta_splits = parts;
        p.spec.frozen = &plan;
        unroll = make_unroll(family, &p);
        struct pass *pass = unroll_pass(unroll, 1);
        /* Parts have as many rows as those of the largest batch, or fewer. */
        int64_t largest = p.pass.batch > PASS_ROWS ? p.pass.batch : PASS_ROWS, most = (largest + parts - 1) / parts;
        int64_t own_parts = (PASS_ROWS + most - 1) / most;
        assert_int_equal(pass_part_rows(pass), (PASS_ROWS + own_parts - 1) / own_parts);
        assert_ok(upload(unroll, &p));
        assert_ok(unroll_begin_from(unroll, p.theta));
        assert_ok(pass_upload(pass, OF_ROWS, rows));
        /* The weights are three pixels of the set, from its second image on. */
        struct place place = place_after(unroll_set_images(unroll), (size_t)pixels(&p) * sizeof(float));
        assert_ok(pass_bind(pass, OF_WEIGHTS, place));
        assert_int_equal(pass_bind(pass, OF_ROWS, place), RETORT_EINVAL);
        assert_int_equal(pass_upload(pass, OF_WEIGHTS, rows), RETORT_EINVAL);
        assert_ok(pass_begin(pass));
        assert_ok(pass_run(pass));
        assert_ok(pass_run(pass)); /* sums go on until they are begun anew */
        assert_ok(pass_read(pass, OF_PRODUCTS, products));
        assert_ok(pass_read(pass, OF_TOTAL, &total));
        double sum = (double)own_parts * ((double)p.theta[0] + p.images[0]);
        for (int i = 0; i < PASS_ROWS; i++) {
            double product = 0;
            for (int k = 0; k < FEATURES; k++) product += (double)rows[i * FEATURES + k] * p.images[pixels(&p) + k];
            assert_true(fabs(products[i] - product) < 1e-5);
            sum += product;
        }
        assert_true(fabs(total - 2 * sum) < 1e-4);
        assert_ok(pass_begin(pass));
        assert_ok(pass_read(pass, OF_TOTAL, &total));
        assert_true(total == 0);
    }
    unroll_destroy(unroll);
    p.spec.frozen = NULL;
    values[OF_TOTAL].name = "nothing";
    assert_int_equal(unroll_create(library_of(family), &p.spec, &unroll), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "nothing"));
    problem_finish(&p);
}

/* Networks trained at once, with sets, rows, maps and seeds of their own, have the weights of each trained alone. */
static void test_networks(void **state) {
    (void)state;
    enum { NETWORKS = 3, STEPS = 3, BATCH = 4 };
    struct problem p;
    augmented_problem(&p);
    p.spec.max_window = p.spec.pass_count = 0;
    p.spec.test_batch = 3;
    p.spec.own_sets = true;
    const int64_t count = p.network.theta_count;
    float *weights[NETWORKS + 1];
    for (int k = 0; k <= NETWORKS; k++)
        weights[k] = arena_array(&p.arena, (size_t)count * (k == NETWORKS ? NETWORKS : 1), sizeof **weights);
    const uint64_t seeds[NETWORKS] = {3, 4, (uint64_t)5 << 32};
    int64_t correct[NETWORKS], together[NETWORKS];
    for (enum family family = FAMILY_CPU; family <= FAMILY_GPU; family++) {
        /* The last round trains all. Network k has the set's labels, rows and maps k images later. */
        for (int k = 0; k <= NETWORKS; k++) {
            bool all = k == NETWORKS;
            int networks = all ? NETWORKS : 1;
            int32_t rows[STEPS][NETWORKS][BATCH];
            float maps[STEPS][NETWORKS][BATCH][MAP_SIZE];
            p.spec.networks = p.spec.at_once = networks;
            struct unroll *unroll = make_unroll(family, &p);
            for (int i = 0; i < networks; i++) {
                int own = all ? i : k;
                assert_ok(unroll_set(unroll, i, p.images, p.soft + own, NULL));
                for (int t = 0; t < STEPS; t++) {
                    int64_t at = t * BATCH + own;
                    int32_t *to = &rows[0][0][0] + (t * networks + i) * BATCH;
                    memcpy(to, p.rows + at, BATCH * sizeof *to);
                    memcpy(&maps[0][0][0][0] + (t * networks + i) * BATCH * MAP_SIZE, p.maps + at * MAP_SIZE,
                           sizeof maps[0][0]);
                }
            }
            const struct unroll_steps steps = {
                .first = 1, .count = STEPS, .rows = &rows[0][0][0], .maps = &maps[0][0][0][0]};
            assert_ok(unroll_upload_steps(unroll, &steps));
            assert_ok(unroll_begin(unroll, seeds + (all ? 0 : k)));
            assert_ok(unroll_train(unroll, 0, STEPS, false));
            assert_int_equal(unroll_train(unroll, 0, 1, true), all ? RETORT_EINVAL : RETORT_OK);
            if (!all) assert_ok(unroll_begin(unroll, seeds + k));
            if (!all) assert_ok(unroll_train(unroll, 0, STEPS, false));
            assert_ok(unroll_read_theta(unroll, weights[k]));
            assert_ok(unroll_test(unroll, p.images, p.hard, 5, all ? together : &correct[k]));
            unroll_destroy(unroll);
        }
        for (int k = 0; k < NETWORKS; k++)
            assert_memory_equal(weights[NETWORKS] + k * count, weights[k], (size_t)count * sizeof **weights);
        assert_memory_equal(together, correct, sizeof correct);
    }
    p.spec.max_window = 1;
    struct unroll *unroll = NULL;
    assert_int_equal(unroll_create(library_of(FAMILY_CPU), &p.spec, &unroll), RETORT_EINVAL);
    problem_finish(&p);
}

/* The test that a run makes of its device finds nothing wrong with a right one. */
static void test_self_test(void **state) {
    (void)state;
    struct network_spec spec = {.kind = NETWORK_CONVNET, .depth = 3, .width = 20};
    for (enum family family = FAMILY_CPU; family <= FAMILY_GPU; family++) {
        const struct kernel_target target = kernels_target(device_traits(device), family);
        struct network network;
        double error = NAN;
        spec.norm = family == FAMILY_CPU ? NORM_BATCH : NORM_INSTANCE;
        spec.pool = family == FAMILY_CPU ? POOL_MAX : POOL_AVERAGE;
        assert_ok(network_describe(&spec, 1, 16, 16, 10, &network));
        assert_ok(unroll_self_test(device, &target, &network, &error));
        assert_true(error < UNROLL_SELF_TEST_ERROR / 50);
    }
}

/* On a large GPU small networks are trained as many at once as is worth while, in little more launches than one is. */
static void test_networks_on_gpu(void **state) {
    (void)state;
    struct device *gpu;
    struct library *library;
    struct unroll *unroll;
    struct unroll_plan plan;
    const struct network_spec small = {
        .kind = NETWORK_CONVNET, .depth = 3, .width = 32, .norm = NORM_INSTANCE, .pool = POOL_AVERAGE};
    struct network_spec large = small;
    struct network network;
    large.width = 128;
    struct unroll_spec spec = {.network = &network,
                               .optimizer = momentum,
                               .set_count = 10,
                               .batch = 10,
                               .networks = 1,
                               .test_batch = 256,
                               .plan_only = true};
    assert_ok(device_open_described("h100", &gpu));
    assert_ok(library_create_with(gpu, FAMILY_AUTO, NULL, &library));
    assert_ok(network_describe(&small, 1, 28, 28, 10, &network));
    assert_ok(unroll_create(library, &spec, &unroll));
    int alone = unroll_launches(unroll, 1, 0);
    unroll_destroy(unroll);
    spec.networks = 10;
    assert_ok(unroll_create(library, &spec, &unroll));
    unroll_plan(unroll, &plan);
    assert_int_equal(plan.networks, 5); /* twice, rather than eight and two */
    assert_in_range(unroll_launches(unroll, 1, 0), alone, 2 * alone);
    /* Fewer where there is no room for so many. */
    device_set_ceiling(gpu, unroll_bytes(unroll) - 1);
    unroll_destroy(unroll);
    assert_ok(unroll_create(library, &spec, &unroll));
    unroll_plan(unroll, &plan);
    assert_int_equal(plan.networks, 2);
    unroll_destroy(unroll);
    device_set_ceiling(gpu, 0);
    /* A network that keeps the device busy by itself. */
    spec.set_count = spec.batch = 100;
    assert_ok(network_describe(&large, 3, 32, 32, 10, &network));
    assert_ok(unroll_create(library, &spec, &unroll));
    unroll_plan(unroll, &plan);
    assert_int_equal(plan.networks, 1);
    unroll_destroy(unroll);
    library_destroy(library);
    device_close(gpu);
}

/* An interrupt is seen between the parts of steps and of passes, and by tests. */
static void test_interrupt(void **state) {
    (void)state;
    struct problem p;
    augmented_problem(&p);
    volatile int interrupt = 0;
    p.spec.interrupt = &interrupt;
    p.spec.test_batch = 3;
    struct unroll *unroll = make_unroll(FAMILY_CPU, &p);
    struct answer before = device_answer(unroll, &p);
    struct unroll_gradient gradient = {.images = before.images};
    int64_t correct;
    interrupt = 1;
    assert_int_equal(unroll_train(unroll, 0, 1, false), RETORT_EINTERRUPTED);
    assert_int_equal(meta_run(unroll_pass(unroll, 0)), RETORT_EINTERRUPTED);
    assert_int_equal(unroll_backward(unroll, lambda_of(unroll), HESSIAN_EXACT, &gradient), RETORT_EINTERRUPTED);
    assert_int_equal(unroll_test(unroll, p.images, p.hard, 5, &correct), RETORT_EINTERRUPTED);
    interrupt = 0;
    struct answer after = device_answer(unroll, &p);
    expect_same(&p, &after, &before);
    unroll_destroy(unroll);
    problem_finish(&p);
}

/* A plan is made without allocating or building anything, and is what is then allocated. */
static void test_plan_only(void **state) {
    (void)state;
    struct problem p;
    augmented_problem(&p);
    p.spec.steps = p.steps;
    p.spec.plan_only = true;
    struct library *library;
    struct unroll *unroll;
    uint64_t before = device_bytes(device);
    assert_ok(library_create(device, FAMILY_CPU, &library));
    assert_ok(unroll_create(library, &p.spec, &unroll));
    uint64_t planned = unroll_bytes(unroll);
    assert_true(planned > 0 && device_bytes(device) == before);
    unroll_destroy(unroll);
    p.spec.plan_only = false;
    assert_ok(unroll_create(library, &p.spec, &unroll));
    assert_int_equal(device_bytes(device) - before, planned);
    struct answer answer = device_answer(unroll, &p);
    assert_true(isfinite(answer.loss));
    assert_int_equal(device_bytes(device) - before, planned);
    unroll_destroy(unroll);
    library_destroy(library);
    problem_finish(&p);
}

/* Memory by what it holds is all of it, and has a name each. */
static void test_memory_use(void **state) {
    (void)state;
    struct problem p;
    struct memory_use use;
    augmented_problem(&p);
    struct unroll *unroll = make_unroll(FAMILY_CPU, &p);
    uint64_t sum = 0, of_passes = 0;
    int i = 0;
    for (; unroll_memory_use(unroll, i, &use); i++) {
        assert_true((use.buffers > 0) == (use.bytes > 0) && (!use.bytes || *use.what));
        sum += use.bytes;
        if (use.of) of_passes += use.bytes;
        if (use.of && use.bytes) assert_string_equal(use.of, "meta-loss");
    }
    assert_false(unroll_memory_use(unroll, i + 1, &use));
    assert_int_equal(sum, unroll_bytes(unroll));
    assert_true(of_passes > 0);
    unroll_destroy(unroll);
    problem_finish(&p);
}

/* What is timed takes as many steps as the time allows, one at least, and leaves the unroll as good as new. */
static void test_timing(void **state) {
    (void)state;
    struct problem p;
    augmented_problem(&p);
    struct unroll *unroll = make_unroll(FAMILY_CPU, &p);
    struct answer before = device_answer(unroll, &p), room = answer_make(&p);
    struct unroll_gradient gradient = {.images = room.images};
    double seconds, norms[16];
    int taken;
    assert_true(p.steps >= 2 && p.steps <= 16 && p.spec.max_window >= 2);
    assert_ok(unroll_time_steps(unroll, 1, p.steps, false, 0, &seconds, &taken));
    assert_true(taken == 1 && seconds > 0);
    assert_ok(unroll_time_steps(unroll, 1, p.steps, true, 1000, &seconds, &taken));
    assert_true(taken == p.steps && seconds > 0 && seconds < 10);
    assert_ok(unroll_read_probe(unroll, taken, NULL, norms));
    for (int t = 0; t < taken; t++) assert_true(norms[t] > 0);
    assert_ok(unroll_time_pass(unroll, unroll_pass(unroll, 0), 0, &seconds));
    assert_true(seconds > 0);
    double one, all;
    assert_ok(unroll_time_window(unroll, 1, 1, lambda_of(unroll), HESSIAN_EXACT, 0, &gradient, &one));
    assert_ok(unroll_time_window(unroll, 1, p.spec.max_window, lambda_of(unroll), HESSIAN_EXACT, 0, &gradient, &all));
    assert_true(one > 0 && all > one / 10); /* one step, scaled: not the same one */
    struct answer after = device_answer(unroll, &p);
    expect_same(&p, &after, &before);
    unroll_destroy(unroll);
    problem_finish(&p);
}

/* A unit that never answers has zero second moments: as if it were not there, and nothing is NaN. */
static void test_dead_unit(void **state) {
    (void)state;
    struct problem p, without;
    struct network_spec network = mlp;
    struct optimizer_spec optimizer = adam;
    optimizer.weight_decay = 0;
    const struct unroll_spec spec = {.optimizer = optimizer, .set_count = 5, .batch = 4, .max_window = 3};
    const struct meta_spec meta = {.batch = 6};
    network.activation = ACTIVATION_RELU;
    network.width = 4;
    problem_init(&p, &network, 1, 3, &spec, meta, 1);
    network.width = 3;
    problem_init(&without, &network, 1, 3, &spec, meta, 1);
    /* Of [4,9] weights, [4] biases, [3,4] weights and [3] biases of the head the last unit's are left out. */
    memset(p.theta + 3 * 9, 0, 9 * sizeof(float));
    p.theta[36 + 3] = -1;
    memcpy(without.theta, p.theta, 27 * sizeof(float));
    memcpy(without.theta + 27, p.theta + 36, 3 * sizeof(float));
    for (int k = 0; k < 3; k++) memcpy(without.theta + 30 + 3 * k, p.theta + 40 + 4 * k, 3 * sizeof(float));
    memcpy(without.theta + 39, p.theta + 52, 3 * sizeof(float));
    without.images = p.images, without.hard = p.hard, without.rows = p.rows;
    without.real_images = p.real_images, without.real_labels = p.real_labels;
    struct unroll *dead = make_unroll(FAMILY_CPU, &p), *none = make_unroll(FAMILY_CPU, &without);
    struct answer got = device_answer(dead, &p), expected = device_answer(none, &without);
    expect_answer(&p, &got, &expected, TOLERANCE);
    unroll_destroy(dead);
    unroll_destroy(none);
    problem_finish(&p);
    problem_finish(&without);
}

/* Adam, a convnet; the same again bit for bit; and under a ceiling that forces micro-batches. */
static void test_adam_and_ceiling(void **state) {
    (void)state;
    struct problem p;
    struct library *library = library_of(FAMILY_CPU);
    int64_t image_count, label_count;
    adam_problem(&p);
    image_count = p.spec.set_count * pixels(&p);
    label_count = p.spec.set_count * p.network.classes;
    struct unroll *whole = make_unroll(FAMILY_CPU, &p);
    struct answer expected = reference_answer(&p), first = device_answer(whole, &p), again = device_answer(whole, &p);
    expect_answer(&p, &first, &expected, TOLERANCE);
    assert_memory_equal(first.images, again.images, (size_t)image_count * sizeof(float));
    assert_memory_equal(first.labels, again.labels, (size_t)label_count * sizeof(float));
    assert_true(first.loss == again.loss && first.lr == again.lr && first.accuracy == again.accuracy);
    assert_memory_equal(first.losses, again.losses, (size_t)p.steps * sizeof(double));
    unroll_destroy(whole);

    struct unroll *unroll = NULL;
    uint64_t ceiling = 16000;
    device_set_ceiling(device, ceiling);
    assert_int_equal(unroll_create(library, &p.spec, &unroll), RETORT_ELIMIT);
    assert_non_null(strstr(retort_error_message(), "ceiling"));
    assert_non_null(strstr(retort_error_message(), "lower"));
    /* The least ceiling that suffices splits most. */
    library_destroy(library);
    libraries[FAMILY_CPU] = NULL;
    library = library_of(FAMILY_CPU);
    device_reset_peak(device);
    int status;
    do {
        ceiling += ceiling / 16;
        device_set_ceiling(device, ceiling);
    } while ((status = unroll_create(library, &p.spec, &unroll)) == RETORT_ELIMIT);
    assert_ok(status);
    char text[200];
    int batch, inner_splits = 0, meta_batch, meta_splits = 0;
    unroll_describe(unroll, text, sizeof text);
    assert_int_equal(sscanf(text, "inner batch %d in %d, meta-loss batch %d in %d", &batch, &inner_splits, &meta_batch,
                            &meta_splits),
                     4);
    if (inner_splits < 2 || meta_splits < 2) fail_msg("under %llu bytes: %s", (unsigned long long)ceiling, text);
    /* Tables of steps are extra. */
    device_set_ceiling(device, ceiling + 4096);
    struct answer split = device_answer(unroll, &p);
    assert_in_range(device_peak_bytes(device), 1, ceiling + 4096);
    /* The whole and the split batch may err to two sides of what double precision says. */
    expect_answer(&p, &split, &first, 3e-6);
    expect_answer(&p, &split, &expected, 5e-6);
    unroll_destroy(unroll);
    device_set_ceiling(device, 0);
    problem_finish(&p);
}

/* --- values kept for the backward pass --- */
/* An unroll under a ceiling (0: none) and its answer, all within the ceiling; how much was needed. */
static struct unroll *under_ceiling(enum family family, struct problem *p, uint64_t ceiling, struct answer *answer,
                                    uint64_t *peak) {
    device_reset_peak(device);
    device_set_ceiling(device, ceiling);
    struct unroll *unroll = make_unroll(family, p);
    *answer = device_answer(unroll, p);
    *peak = device_peak_bytes(device);
    device_set_ceiling(device, 0);
    if (ceiling) assert_in_range(*peak, 1, ceiling);
    return unroll;
}

static int inner_splits_of(const struct unroll *unroll) {
    char text[200];
    int batch, splits = 0;
    unroll_describe(unroll, text, sizeof text);
    assert_int_equal(sscanf(text, "inner batch %d in %d", &batch, &splits), 2);
    return splits;
}

/* Values kept for all steps of the window, for some, and for some of a batch in parts. What the backward step then no
 * longer computes was joined with its tangents in one kernel; the tangents alone are added in another order, so that
 * answers agree as those of micro-batches do. */
static void test_kept(void **state) {
    enum family family = *(enum family *)*state;
    struct problem p;
    struct answer whole, kept, some, parts, again;
    uint64_t least, most, peak;
    struct unroll *unroll;
    kept_problem(&p, family == FAMILY_CPU);
    struct answer expected = reference_answer(&p);
    unroll = under_ceiling(family, &p, 0, &whole, &least);
    assert_int_equal(unroll_kept_steps(unroll), 0);
    expect_answer(&p, &whole, &expected, TOLERANCE);
    unroll_destroy(unroll);

    unroll = under_ceiling(family, &p, 2 * least, &kept, &most);
    assert_int_equal(unroll_kept_steps(unroll), p.window);
    assert_int_equal(inner_splits_of(unroll), 1);
    assert_true(most > least);
    expect_answer(&p, &kept, &whole, 2e-6);
    expect_answer(&p, &kept, &expected, TOLERANCE);
    /* Gradients are the same whether or not something of them is kept. */
    assert_memory_equal(kept.losses, whole.losses, (size_t)p.steps * sizeof(double));
    assert_true(kept.loss == whole.loss);
    /* A window shorter than the longest, of other steps. */
    struct unroll *plain = make_unroll(family, &p);
    p.prefix = 4, p.window = 2;
    again = device_answer(unroll, &p);
    some = device_answer(plain, &p);
    expect_answer(&p, &again, &some, 2e-6);
    p.prefix = 2, p.window = 4;
    unroll_destroy(plain);
    unroll_destroy(unroll);

    /* With four bytes less than all of them need not all are kept. */
    unroll = under_ceiling(family, &p, most, &again, &peak);
    assert_int_equal(unroll_kept_steps(unroll), p.window);
    expect_same(&p, &again, &kept);
    unroll_destroy(unroll);
    unroll = under_ceiling(family, &p, most - 4, &some, &peak);
    assert_in_range(unroll_kept_steps(unroll), 1, p.window - 1);
    assert_int_equal(inner_splits_of(unroll), 1);
    expect_answer(&p, &some, &whole, 2e-6);
    expect_answer(&p, &some, &expected, TOLERANCE);
    struct unroll_plan plan;
    unroll_plan(unroll, &plan);
    unroll_destroy(unroll);

    /* A frozen plan rules whatever the ceiling would have chosen, as it must when a run is resumed. */
    p.spec.frozen = &plan;
    unroll = under_ceiling(family, &p, 4 * least, &again, &peak);
    assert_int_equal(inner_splits_of(unroll), plan.inner_splits);
    assert_int_equal(unroll_kept_steps(unroll), plan.kept_steps);
    expect_same(&p, &again, &some);
    unroll_destroy(unroll);
    device_set_ceiling(device, most / 2);
    assert_int_equal(unroll_create(library_of(family), &p.spec, &unroll), RETORT_ELIMIT);
    assert_non_null(strstr(retort_error_message(), "began with"));
    device_set_ceiling(device, 0);
    plan.compute_units++;
    assert_int_equal(unroll_create(library_of(family), &p.spec, &unroll), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "compute units"));
    device_set_units(device, (unsigned)plan.compute_units);
    assert_ok(unroll_create(library_of(family), &p.spec, &unroll));
    unroll_destroy(unroll);
    device_set_units(device, 0);
    plan.inner_splits = 3;
    assert_int_equal(unroll_create(library_of(family), &p.spec, &unroll), RETORT_EINVAL);
    p.spec.frozen = NULL;

    /* Of a batch in parts, for some steps: whether a ceiling leads there depends on the device, so by a plan. */
    unroll = make_unroll(family, &p);
    unroll_plan(unroll, &plan);
    unroll_destroy(unroll);
    plan.inner_splits = 2, plan.kept_steps = 3;
    p.spec.frozen = &plan;
    for (int twice = 0; twice < 2; twice++) {
        unroll = under_ceiling(family, &p, 0, twice ? &again : &parts, &peak);
        assert_int_equal(inner_splits_of(unroll), 2);
        assert_int_equal(unroll_kept_steps(unroll), 3);
        unroll_destroy(unroll);
    }
    expect_answer(&p, &parts, &whole, 2e-6);
    expect_answer(&p, &parts, &expected, TOLERANCE);
    expect_same(&p, &again, &parts);
    problem_finish(&p);
}

/* Batch norm: training by the batch's statistics, tests by the running ones, several batches of tests with a rest. */
static void test_batch_norm(void **state) {
    (void)state;
    struct problem p;
    struct network_spec network = convnet;
    enum { TESTS = 20, STEPS = 3 };
    network.norm = NORM_BATCH;
    struct unroll_spec spec = {.optimizer = momentum, .set_count = 7, .batch = 6, .max_window = STEPS};
    problem_init(&p, &network, 2, 4, &spec, (struct meta_spec){.batch = 1}, 0);
    struct random random = random_begin(8, RANDOM_TEST, 0);
    float *images = floats(&p, TESTS * pixels(&p), 1, &random);
    int32_t *labels = integers(&p, TESTS, p.network.classes, &random);
    struct unroll *unroll = NULL;
    device_set_ceiling(device, 1 << 12);
    assert_int_equal(unroll_create(library_of(FAMILY_CPU), &p.spec, &unroll), RETORT_ELIMIT);
    assert_non_null(strstr(retort_error_message(), "batch norm cannot be split"));
    device_set_ceiling(device, 0);
    p.spec.max_window = p.spec.pass_count = 0;
    p.spec.test_batch = 8;
    unroll = make_unroll(FAMILY_CPU, &p);
    assert_ok(upload(unroll, &p));
    assert_ok(unroll_begin_from(unroll, p.theta));
    assert_ok(unroll_train(unroll, 0, STEPS, true));
    int64_t theta_count = p.network.theta_count, correct, stats_count = p.network.stats_count;
    float *theta = arena_array(&p.arena, (size_t)theta_count, sizeof *theta);
    assert_ok(unroll_read_theta(unroll, theta));
    assert_ok(unroll_test(unroll, images, labels, TESTS, &correct));
    unroll_destroy(unroll);

    struct graph *g;
    assert_ok(graph_create(&g));
    struct node *at = graph_input(g, "theta", FLOAT32, SHAPE(theta_count)), *velocity, *gradient;
    struct node *stats = graph_input(g, "stats", FLOAT32, SHAPE(stats_count));
    struct node *set = graph_input(g, "set", FLOAT32, SHAPE(7, 2, 4, 4)),
                *hard = graph_input(g, "hard", INT32, SHAPE(7));
    struct node *rows = graph_input(g, "rows", INT32, SHAPE(STEPS, 6));
    velocity = graph_constant(g, 0, SHAPE(theta_count));
    for (int64_t t = 0; t < STEPS; t++) {
        struct node *here = node_reshape(node_slice(rows, (int64_t[]){t, 0}, (int64_t[]){1, 1}, SHAPE(1, 6)), SHAPE(6));
        struct network_pass pass = {.theta = at, .images = node_gather_rows(set, here)};
        struct node *logits = network_logits(g, &p.network, &pass, stats, &stats);
        struct node *loss = loss_hard(g, logits, node_gather_rows(hard, here));
        assert_ok(graph_status(g));
        assert_ok(transform_vjp(loss, NULL, &at, 1, &gradient));
        float row[OPTIMIZER_SCALARS];
        struct node *scalars[OPTIMIZER_SCALARS];
        optimizer_scalars(&momentum, momentum.lr, (int)t + 1, row);
        for (int i = 0; i < OPTIMIZER_SCALARS; i++) scalars[i] = graph_constant(g, row[i], SHAPE(1));
        optimizer_update(g, &momentum, node_concat(scalars, OPTIMIZER_SCALARS, 0), at, &velocity, gradient, &at,
                         &velocity);
    }
    struct network_pass pass = {
        .theta = at, .images = graph_input(g, "tests", FLOAT32, SHAPE(TESTS, 2, 4, 4)), .stats_in = stats};
    struct node *answers = graph_input(g, "answers", INT32, SHAPE(TESTS));
    graph_output(g, "correct", count_correct(g, network_logits(g, &p.network, &pass, NULL, NULL), answers));
    graph_output(g, "theta end", at);
    double expected_correct, *expected = arena_array(&p.arena, (size_t)theta_count, sizeof *expected);
    double *start = arena_array(&p.arena, (size_t)stats_count, sizeof *start);
    for (int64_t i = 0; i < stats_count; i++) start[i] = i >= stats_count / 2; /* variances 1 */
    evaluate(g, BINDINGS({"theta", widen(&p, p.theta, theta_count, false)}, {"stats", start},
                         {"set", widen(&p, p.images, 7 * pixels(&p), false)}, {"hard", widen(&p, p.hard, 7, true)},
                         {"rows", widen(&p, p.rows, STEPS * 6, true)},
                         {"tests", widen(&p, images, TESTS * pixels(&p), false)},
                         {"answers", widen(&p, labels, TESTS, true)}, {"correct", &expected_correct},
                         {"theta end", expected}));
    graph_destroy(g);
    expect_close("weights after training with batch norm",
                 relative_error(widen(&p, theta, theta_count, false), expected, theta_count), 1e-5);
    assert_int_equal(correct, (int64_t)expected_correct);
    problem_finish(&p);
}

/* What was not planned or not uploaded is refused. */
static void test_refusals(void **state) {
    (void)state;
    struct problem p;
    augmented_problem(&p);
    struct unroll *unroll = make_unroll(FAMILY_CPU, &p);
    struct answer answer = answer_make(&p);
    struct unroll_gradient gradient = {.images = answer.images, .labels = answer.labels};
    assert_int_equal(unroll_set(unroll, 0, p.images, NULL, p.hard), RETORT_EINVAL);
    assert_int_equal(unroll_train(unroll, 0, 1, false), RETORT_EINVAL);
    assert_int_equal(unroll_set_rows(unroll, 0, p.spec.set_count - 1, 2, p.images, p.soft, NULL), RETORT_EINVAL);
    assert_ok(upload(unroll, &p));
    assert_ok(unroll_begin_from(unroll, p.theta));
    assert_int_equal(unroll_train(unroll, 0, p.steps + 1, false), RETORT_EINVAL);
    assert_int_equal(unroll_train(unroll, -1, 1, false), RETORT_EINVAL);
    assert_int_equal(unroll_backward(unroll, lambda_of(unroll), HESSIAN_EXACT, &gradient), RETORT_EINVAL);
    assert_int_equal(unroll_window(unroll, p.prefix + 1, p.window, false), RETORT_EINVAL);
    assert_int_equal(unroll_window(unroll, 0, p.window + 1, false), RETORT_EINVAL);
    assert_ok(forward(unroll, &p));
    assert_int_equal(unroll_window(unroll, 0, 1, false), RETORT_EINVAL);
    assert_int_equal(unroll_backward(unroll, lambda_of(unroll), HESSIAN_NONE, &gradient), RETORT_EINVAL);
    assert_int_equal(unroll_lanczos(unroll, 0, 1), RETORT_EINVAL);
    unroll_destroy(unroll);
    p.spec.pass_count = UNROLL_MAX_PASSES + 1;
    assert_int_equal(unroll_create(library_of(FAMILY_CPU), &p.spec, &unroll), RETORT_EINVAL);
    p.spec.pass_count = 1;
    p.pass.batch = 0;
    assert_int_equal(unroll_create(library_of(FAMILY_CPU), &p.spec, &unroll), RETORT_EINVAL);
    assert_non_null(strstr(retort_error_message(), "0 rows"));
    problem_finish(&p);
}

int main(void) {
    if (device_open("cpu", &device) < 0) {
        printf("1..0 # SKIP no OpenCL CPU device: %s\n", retort_error_message());
        return 0;
    }
    static enum family cpu = FAMILY_CPU, gpu = FAMILY_GPU;
    const struct CMUnitTest tests[] = {
        {"test_augmented, CPU family", test_augmented, NULL, NULL, &cpu},
        {"test_augmented, GPU family", test_augmented, NULL, NULL, &gpu},
        cmocka_unit_test(test_weights_and_rates),
        cmocka_unit_test(test_colour),
        cmocka_unit_test(test_lanczos),
        cmocka_unit_test(test_largest_rank),
        {"test_no_hessian, CPU family", test_no_hessian, NULL, NULL, &cpu},
        {"test_no_hessian, GPU family", test_no_hessian, NULL, NULL, &gpu},
        {"test_pass, CPU family", test_pass, NULL, NULL, &cpu},
        {"test_pass, GPU family", test_pass, NULL, NULL, &gpu},
        cmocka_unit_test(test_self_test),
        cmocka_unit_test(test_networks),
        cmocka_unit_test(test_networks_on_gpu),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_plan_only),
        cmocka_unit_test(test_memory_use),
        cmocka_unit_test(test_timing),
        cmocka_unit_test(test_dead_unit),
        cmocka_unit_test(test_batch_norm),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_adam_and_ceiling),
        {"test_kept, CPU family", test_kept, NULL, NULL, &cpu},
        {"test_kept, GPU family", test_kept, NULL, NULL, &gpu},
    };
    int failed = cmocka_run_group_tests_name("unroll", tests, NULL, NULL);
    for (int i = 0; i < 3; i++) library_destroy(libraries[i]);
    device_close(device);
    return failed;
}
