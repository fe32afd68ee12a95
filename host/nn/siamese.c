/* The differentiable Siamese augmentation: sampling, colours and cutout of images. */
#include "nn/nn.h"

#include "base/augmentation.h"
#include "base/error.h"

/* Parameters of groups [G,...], a row for each of the `count` images that lie group by group. */
static struct node *spread(struct node *x, int64_t count) {
    if (!x || x->shape.size[0] == count) return x;
    struct shape one = x->shape, group, whole = x->shape;
    for (int d = one.rank++; d > 1; d--) one.size[d] = one.size[d - 1];
    one.size[1] = 1;
    group = one;
    group.size[1] = count / one.size[0];
    whole.size[0] = count;
    return node_reshape(node_broadcast(node_reshape(x, one), group), whole);
}

static struct node *column(struct node *x, enum colour_parameter at) {
    int64_t b = x->shape.size[0];
    return node_reshape(node_slice(x, (int64_t[]){0, at}, (int64_t[]){1, 1}, SHAPE(b, 1)), SHAPE(b, 1, 1, 1));
}

/* 1 where |index along axis - centre| <= half, per image; nowhere where half <= 0. */
static struct node *band(struct graph *graph, struct shape shape, int axis, struct node *centre, struct node *half) {
    struct shape line = SHAPE(shape.size[0], 1, 1, 1);
    line.size[axis] = shape.size[axis];
    struct node *offset =
        node_subtract_stretched(node_cast(graph_iota(graph, line, axis), FLOAT32), node_broadcast(centre, line));
    struct node *distance = node_max(offset, node_negate(offset));
    struct node *some = node_compare(graph_constant(graph, 0, half ? half->shape : SCALAR_SHAPE), half, COMPARE_LESS);
    half = node_select(some, half, node_shift(node_scale(half, 0), -1));
    return node_compare(distance, node_broadcast(half, line), COMPARE_LESS_EQUAL);
}

/* x moved to where it is `factor` times as far from `centre`. */
static struct node *away_from(struct node *x, struct node *centre, struct node *factor) {
    centre = node_broadcast(centre, x->shape);
    return node_add(node_multiply_stretched(node_subtract(x, centre), factor), centre);
}

static struct node *coloured(struct node *x, struct node *colour) {
    x = node_add_stretched(x, column(colour, COLOUR_BRIGHTNESS));
    x = away_from(x, node_reduce_mean(x, 1u << 1), column(colour, COLOUR_SATURATION));
    return away_from(x, node_reduce_mean(x, 1u << 1 | 1u << 2 | 1u << 3), column(colour, COLOUR_CONTRAST));
}

static struct node *cut_out(struct graph *graph, struct node *x, struct node *colour) {
    struct node *rows =
        band(graph, x->shape, 2, column(colour, COLOUR_CUTOUT_ROW), column(colour, COLOUR_CUTOUT_HALF_HEIGHT));
    struct node *columns =
        band(graph, x->shape, 3, column(colour, COLOUR_CUTOUT_COLUMN), column(colour, COLOUR_CUTOUT_HALF_WIDTH));
    struct shape plane = SHAPE(x->shape.size[0], 1, x->shape.size[2], x->shape.size[3]);
    struct node *hole = node_multiply(node_broadcast(rows, plane), node_broadcast(columns, plane));
    return node_multiply_stretched(x, node_shift(node_negate(hole), 1.0));
}

/* Whether x is [G, rest...] with `count` a multiple of G. */
static bool is_of_groups(const struct node *x, struct shape rest, int64_t count) {
    struct shape shape = rest;
    int64_t groups = x->shape.rank ? x->shape.size[0] : 0;
    shape.size[0] = groups;
    return groups > 0 && count % groups == 0 && x->dtype == FLOAT32 && shape_equal(x->shape, shape);
}

/* Whether parameters belong to such images; fails the graph where not. */
static bool do_fit(struct graph *graph, const struct node *images, const struct node *maps, const struct node *colour) {
    int64_t count = images->shape.size[0];
    if (images->shape.rank != 4 || images->dtype != FLOAT32)
        graph_fail(graph, RETORT_EINVAL, "siamese: images must be float32 [N,C,H,W]");
    else if (maps && !is_of_groups(maps, SHAPE(1, 2, 3), count))
        graph_fail(graph, RETORT_EINVAL, "siamese: maps must be float32 [G,2,3], %lld images being G groups",
                   (long long)count);
    else if (colour && !is_of_groups(colour, SHAPE(1, COLOUR_SIZE), count))
        graph_fail(graph, RETORT_EINVAL, "siamese: colour must be float32 [G,%d], %lld images being G groups",
                   COLOUR_SIZE, (long long)count);
    return graph_status(graph) >= 0;
}

struct node *siamese_apply(struct graph *graph, struct node *images, struct node *maps, struct node *colour) {
    if (!images || graph_status(graph) < 0 || !do_fit(graph, images, maps, colour)) return NULL;
    if (maps) images = node_sample(images, spread(maps, images->shape.size[0]));
    if (colour && images) {
        colour = spread(colour, images->shape.size[0]);
        images = cut_out(graph, coloured(images, colour), colour);
    }
    return graph_status(graph) < 0 ? NULL : images;
}

struct node *siamese_apply_composed(struct graph *graph, struct node *images, struct node *maps, struct node *colour) {
    if (!images || graph_status(graph) < 0 || !do_fit(graph, images, maps, colour)) return NULL;
    colour = spread(colour, images->shape.size[0]);
    images = node_sample(coloured(images, colour), spread(maps, images->shape.size[0]));
    images = cut_out(graph, images, colour);
    return graph_status(graph) < 0 ? NULL : images;
}
