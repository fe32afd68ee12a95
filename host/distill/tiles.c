#include "distill/tiles.h"

#include "base/error.h"
#include "transform/transform.h"

#include <stdlib.h>

int tiles_side(int size, int factor) {
    return (size + factor - 1) / factor;
}

int tiles_begin(int size, int factor, int tile) {
    return factor == 1 ? 0 : tile * (size - tiles_side(size, factor)) / (factor - 1);
}

bool tiles_allow(const struct normalisation *normalisation) {
    return !normalisation || normalisation->kind == NORMALISE_NONE || normalisation->kind == NORMALISE_MEAN_SD;
}

/* --- the mathematics, as nodes --- */
static struct node *smaller(struct node *x, double bound) {
    return node_negate(node_max(node_negate(x), graph_constant(x->graph, -bound, x->shape)));
}

static struct node *larger(struct node *x, double bound) {
    return node_max(x, graph_constant(x->graph, bound, x->shape));
}

/* A [f size, size] of the header: the weight of a pixel falls from 1 to 0 over the distance to its neighbour. */
static struct node *weights(struct graph *graph, int size, int factor) {
    const struct shape shape = SHAPE(factor, size, size);
    const int side = tiles_side(size, factor);
    struct node *tile = node_cast(graph_iota(graph, shape, 0), FLOAT32);
    struct node *row = node_cast(graph_iota(graph, shape, 1), FLOAT32);
    struct node *pixel = node_cast(graph_iota(graph, shape, 2), FLOAT32);
    if (!tile || !row || !pixel) return NULL;
    struct node *begin = graph_constant(graph, 0, shape);
    if (factor > 1) {
        /* The quotient has steps of 1 / (f - 1); half a step keeps a whole number that was rounded down from falling
         * to the one below. */
        double slope = (double)(size - side) / (factor - 1), half = 0.5 / (factor - 1);
        begin = node_cast(node_cast(node_shift(node_scale(tile, slope), half), INT32), FLOAT32);
    }
    struct node *from = node_shift(node_scale(node_shift(row, 0.5), (double)side / size), -0.5);
    struct node *away = node_subtract(pixel, node_add(begin, smaller(larger(from, 0), side - 1)));
    struct node *weight = larger(node_shift(node_negate(node_max(away, node_negate(away))), 1), 0);
    return node_reshape(weight, SHAPE((int64_t)factor * size, size));
}

/* Numbers of the channels, [1,C,1,1]. */
static struct node *of_channels(struct graph *graph, const double *numbers, int channels) {
    struct node *all = graph_constant(graph, numbers[0], SHAPE(1, 1, 1, 1));
    for (int c = 1; c < channels; c++) {
        struct node *one = graph_constant(graph, numbers[c], SHAPE(1, 1, 1, 1));
        all = node_concat((struct node *const[]){all, one}, 2, 1);
    }
    return all;
}

static struct node *normalise(struct node *pixels, const struct normalisation *normalisation) {
    if (!pixels || !normalisation || normalisation->kind == NORMALISE_NONE) return pixels;
    int channels = (int)pixels->shape.size[1];
    struct node *mean = of_channels(pixels->graph, normalisation->mean, channels);
    struct node *sd = of_channels(pixels->graph, normalisation->sd, channels);
    return node_multiply_stretched(node_subtract_stretched(pixels, mean), node_reciprocal(sd));
}

struct node *tiles_images(struct node *stored, const struct tiles_shape *s) {
    if (!stored) return NULL;
    const int64_t m = s->stored, c = s->channels, h = s->height, w = s->width, f = s->factor;
    struct node *across = weights(stored->graph, s->width, s->factor);
    struct node *down = weights(stored->graph, s->height, s->factor);
    struct node *y = node_matmul(node_reshape(stored, SHAPE(m * c * h, w)), across, false, true);
    y = node_permute(node_reshape(y, SHAPE(m * c, h, f * w)), (const int[]){0, 2, 1});
    y = node_matmul(node_reshape(y, SHAPE(m * c * f * w, h)), down, false, true);
    /* [stored, channel, tile's column, column, tile's row, row] */
    y = node_permute(node_reshape(y, SHAPE(m, c, f, w, f, h)), (const int[]){0, 4, 2, 1, 5, 3});
    return normalise(node_reshape(y, SHAPE(m * f * f, c, h, w)), s->normalisation);
}

/* --- a start --- */
void tiles_mix(const struct tiles_shape *s, const float *images, float *stored) {
    const int f = s->factor, height = tiles_side(s->height, f), width = tiles_side(s->width, f);
    const int64_t plane = (int64_t)s->height * s->width;
    for (int64_t row = 0; row < s->stored * f * f; row++) {
        const int top = tiles_begin(s->height, f, (int)(row / f % f)), left = tiles_begin(s->width, f, (int)(row % f));
        for (int c = 0; c < s->channels; c++) {
            const float *from = images + (row * s->channels + c) * plane;
            float *to = stored + (row / (f * f) * s->channels + c) * plane;
            for (int i = 0; i < height; i++)
                for (int j = 0; j < width; j++)
                    to[(top + i) * s->width + left + j] =
                        from[i * s->height / height * s->width + j * s->width / width];
        }
    }
}

/* --- on a device --- */
enum { STORED, IMAGES, GRADIENT, ROWS };
static const char *const names[ROWS] = {"stored", "images", "gradient"};

struct tiles {
    struct device *device;
    int64_t values[ROWS];
    struct executable *decode, *pull;
    struct memory memory[ROWS];
};

static int compile(struct library *library, const struct tiles_shape *s, bool pull, struct executable **executable) {
    int status = RETORT_OK;
    const struct shape shape = SHAPE(s->stored, s->channels, s->height, s->width);
    struct graph *graph;
    struct node *gradient = NULL;
    TRY(graph_create(&graph));
    struct node *stored = graph_input(graph, names[STORED], FLOAT32, shape), *images = tiles_images(stored, s);
    if (pull && images) {
        struct node *cotangent = graph_input(graph, names[IMAGES], FLOAT32, images->shape);
        if (transform_vjp(images, cotangent, &stored, 1, &gradient) == RETORT_OK)
            graph_output(graph, names[GRADIENT], gradient);
    } else if (images)
        graph_output(graph, names[IMAGES], images);
    status = graph_status(graph);
    if (status >= 0)
        status = executable_create(library, graph, pull ? "gradient by tiles" : "images of tiles", executable);
    graph_destroy(graph);
done:
    return status;
}

static int allocate(struct tiles *t) {
    int status = RETORT_OK;
    static const char *const what[ROWS] = {"pixels of tiles", "images of tiles", "gradient by pixels of tiles"};
    for (int i = 0; i < ROWS; i++) {
        memory_size(&t->memory[i], what[i], (size_t)t->values[i] * sizeof(float), 1,
                    device_traits(t->device)->max_allocation);
        TRY(memory_create(&t->memory[i], t->device));
        struct place place = memory_item(&t->memory[i], 0);
        if (i != GRADIENT) TRY(executable_bind(t->decode, names[i], place.buffer, place.offset));
        TRY(executable_bind(t->pull, names[i], place.buffer, place.offset));
    }
done:
    return status;
}

int tiles_create(struct library *library, const struct tiles_shape *shape, bool plan_only, struct tiles **out) {
    int status = RETORT_OK;
    const int64_t stored = shape->stored * shape->channels * shape->height * shape->width;
    const int64_t images = stored * shape->factor * shape->factor;
    struct tiles *t = calloc(1, sizeof *t);
    if (!t) RAISE(RETORT_ENOMEM, "out of memory preparing tiles");
    *t = (struct tiles){.device = library_device(library), .values = {stored, images, stored}};
    if (!tiles_allow(shape->normalisation))
        RAISE(RETORT_EINVAL, "tiles hold pixels of each channel by itself, which %s mixes; take mean_sd or none",
              normalise_words[shape->normalisation->kind]);
    if (images > INT32_MAX)
        RAISE(RETORT_ELIMIT, "a set of %lld stored images has more values than can be counted; make set.ipc smaller",
              (long long)shape->stored);
    TRY(compile(library, shape, false, &t->decode));
    TRY(compile(library, shape, true, &t->pull));
    if (!plan_only) {
        TRY(library_build(library));
        TRY(library_rehearse(library));
        TRY(allocate(t));
    }
    *out = t;
    t = NULL;
done:
    tiles_destroy(t);
    return status;
}

void tiles_destroy(struct tiles *t) {
    if (!t) return;
    executable_destroy(t->decode);
    executable_destroy(t->pull);
    for (int i = 0; i < ROWS; i++) memory_finish(&t->memory[i]);
    free(t);
}

static int run(struct tiles *t, struct executable *executable, int from, const float *source, int to, float *result) {
    int status = RETORT_OK;
    struct place first = memory_item(&t->memory[from], 0), second = memory_item(&t->memory[to], 0);
    TRY(device_write(t->device, first.buffer, first.offset, (size_t)t->values[from] * sizeof(float), source));
    TRY(executable_enqueue(executable));
    TRY(device_read(t->device, second.buffer, second.offset, (size_t)t->values[to] * sizeof(float), result));
done:
    return status;
}

int tiles_decode(struct tiles *t, const float *stored, float *images) {
    return run(t, t->decode, STORED, stored, IMAGES, images);
}

int tiles_pull(struct tiles *t, const float *image_gradient, float *gradient) {
    return run(t, t->pull, IMAGES, image_gradient, GRADIENT, gradient);
}

const struct memory *tiles_memory(const struct tiles *t, int i) {
    return i < ROWS ? &t->memory[i] : NULL;
}
