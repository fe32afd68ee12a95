#include "distill/dct.h"

#include "base/error.h"
#include "base/log.h"
#include "base/random.h"
#include "device/fft.h"

#include <math.h>
#include <stdlib.h>

void dct_basis(int size, float *basis) {
    for (int k = 0; k < size; k++)
        for (int i = 0; i < size; i++) {
            /* The cosine has a period of 4 N in (2 i + 1) k. */
            int64_t turn = (2 * (int64_t)i + 1) * k % (4 * (int64_t)size);
            basis[(int64_t)k * size + i] =
                (float)(sqrt((k ? 2.0 : 1.0) / size) * cos(M_PI * (double)turn / (2.0 * size)));
        }
}

/* --- graphs --- */
/* x [m,C,R,S] -> [m,C,S,R]: each row by one matrix, transposed, each row by the other. */
static struct node *products(struct node *x, struct node *first, struct node *second, bool transpose) {
    if (!x || !first || !second) return NULL;
    int64_t m = x->shape.size[0], c = x->shape.size[1], rows = x->shape.size[2], columns = x->shape.size[3];
    struct node *y = node_matmul(node_reshape(x, SHAPE(m * c * rows, columns)), first, false, transpose);
    y = node_permute(node_reshape(y, SHAPE(m * c, rows, columns)), (const int[]){0, 2, 1});
    y = node_matmul(node_reshape(y, SHAPE(m * c * columns, rows)), second, false, transpose);
    return node_reshape(y, SHAPE(m, c, columns, rows));
}

struct node *dct_spectra(struct node *images, struct node *down, struct node *across) {
    return products(images, across, down, true);
}

struct node *dct_images(struct node *spectra, struct node *down, struct node *across) {
    return products(spectra, down, across, false);
}

/* --- on a device --- */
enum { IMAGES, SPECTRA, DOWN, ACROSS, LIBRARY, ROWS };
static const char *const names[] = {"images", "spectra", "down", "across"};

struct dct {
    struct library *library;
    struct device *device;
    struct dct_shape shape;
    int64_t elements; /* of all images */
    enum dct_way asked, way;
    struct executable *products[2]; /* forward and back */
    struct device_dct *fft;         /* NULL: the library is not taken */
    struct memory memory[ROWS];     /* LIBRARY: what `fft` keeps, in buffers of its own */
    double difference;
};

static int compile(struct dct *d, bool back) {
    int status = RETORT_OK;
    const struct dct_shape *s = &d->shape;
    const struct shape images = SHAPE(s->count, s->channels, s->height, s->width),
                       spectra = SHAPE(s->count, s->channels, s->width, s->height);
    struct graph *graph;
    TRY(graph_create(&graph));
    struct node *from = graph_input(graph, names[back ? SPECTRA : IMAGES], FLOAT32, back ? spectra : images);
    struct node *down = graph_input(graph, names[DOWN], FLOAT32, SHAPE(s->height, s->height));
    struct node *across = graph_input(graph, names[ACROSS], FLOAT32, SHAPE(s->width, s->width));
    graph_output(graph, names[back ? IMAGES : SPECTRA], (back ? dct_images : dct_spectra)(from, down, across));
    status = graph_status(graph);
    if (status >= 0)
        status =
            executable_create(d->library, graph, back ? "images of spectra" : "spectra of images", &d->products[back]);
    graph_destroy(graph);
done:
    return status;
}

int dct_create(struct library *library, const struct dct_shape *shape, enum dct_way asked, struct dct **out) {
    int status = RETORT_OK;
    struct dct *d = calloc(1, sizeof *d);
    if (!d) RAISE(RETORT_ENOMEM, "out of memory preparing spectra");
    *d = (struct dct){.library = library,
                      .device = library_device(library),
                      .shape = *shape,
                      .elements = shape->count * shape->channels * shape->height * shape->width,
                      .asked = asked,
                      .way = DCT_MATRIX,
                      .difference = NAN};
    for (int back = 0; back < 2; back++) TRY(compile(d, back));
    *out = d;
    d = NULL;
done:
    dct_destroy(d);
    return status;
}

static void drop_library(struct dct *d) {
    device_dct_destroy(d->fft);
    d->fft = NULL;
    memory_finish(&d->memory[LIBRARY]);
}

void dct_destroy(struct dct *d) {
    if (!d) return;
    drop_library(d);
    for (int back = 0; back < 2; back++) executable_destroy(d->products[back]);
    for (int i = 0; i < ROWS; i++) memory_finish(&d->memory[i]);
    free(d);
}

/* --- running --- */
struct place dct_place_images(const struct dct *d) {
    return memory_item(&d->memory[IMAGES], 0);
}

struct place dct_place_spectra(const struct dct *d) {
    return memory_item(&d->memory[SPECTRA], 0);
}

int dct_run_by(struct dct *d, enum dct_way way, bool back) {
    const struct place images = dct_place_images(d), spectra = dct_place_spectra(d);
    if (way == DCT_MATRIX) return executable_enqueue(d->products[back]);
    if (!d->fft) return error_set(RETORT_EINVAL, "no library computes these spectra");
    return device_dct(d->fft, back, (back ? spectra : images).buffer, (back ? images : spectra).buffer);
}

int dct_run(struct dct *d, bool back) {
    return dct_run_by(d, d->way, back);
}

enum dct_way dct_settled(const struct dct *d) {
    return d->way;
}

double dct_difference(const struct dct *d) {
    return d->difference;
}

const struct memory *dct_memory(const struct dct *d, int i) {
    return i < (d->fft ? ROWS : LIBRARY) ? &d->memory[i] : NULL;
}

/* --- whether the library is right, and faster --- */
/* What one of the two makes of the same numbers; a result that it does not write stays what no transform gives. */
static int compute(struct dct *d, enum dct_way way, bool back, float *values) {
    int status = RETORT_OK;
    const struct place images = dct_place_images(d), spectra = dct_place_spectra(d);
    const struct place from = back ? spectra : images, to = back ? images : spectra;
    const size_t bytes = (size_t)d->elements * sizeof *values;
    struct random random = random_begin(1, RANDOM_TEST, back);
    for (int64_t i = 0; i < d->elements; i++) values[i] = 2 * random_uniform(&random) - 1;
    TRY(device_write(d->device, from.buffer, from.offset, bytes, values));
    for (int64_t i = 0; i < d->elements; i++) values[i] = NAN;
    TRY(device_write(d->device, to.buffer, to.offset, bytes, values));
    TRY(dct_run_by(d, way, back));
    TRY(device_read(d->device, to.buffer, to.offset, bytes, values));
done:
    return status;
}

static int compare(struct dct *d) {
    int status = RETORT_OK;
    const size_t count = (size_t)d->elements;
    float *right = malloc(count * sizeof *right), *found = malloc(count * sizeof *found);
    if (!right || !found) RAISE(RETORT_ENOMEM, "out of memory comparing spectra");
    d->difference = 0;
    for (int back = 0; back < 2; back++) {
        double difference = 0, largest = 0;
        TRY(compute(d, DCT_MATRIX, back, right));
        TRY(compute(d, DCT_CLFFT, back, found));
        for (size_t i = 0; i < count; i++) {
            double off = fabs((double)found[i] - right[i]);
            difference = isnan(off) ? INFINITY : fmax(difference, off);
            largest = fmax(largest, fabs((double)right[i]));
        }
        d->difference = fmax(d->difference, difference / largest);
    }
    if (!(d->difference <= DCT_TOLERANCE))
        RAISE(RETORT_EDEVICE, "%s on %s is off by %.2g of the largest value for %d x %d", device_fft_library(),
              device_traits(d->device)->name, d->difference, d->shape.height, d->shape.width);
done:
    free(right);
    free(found);
    return status;
}

/* What is measured: both ways, as an outer step takes them. */
struct timed {
    struct dct *dct;
    enum dct_way way;
};

static int run_both(void *what) {
    const struct timed *timed = what;
    int status = dct_run_by(timed->dct, timed->way, true);
    return status < 0 ? status : dct_run_by(timed->dct, timed->way, false);
}

static int measure(struct dct *d) {
    int status = RETORT_OK;
    double seconds[DCT_WAYS];
    for (enum dct_way way = DCT_CLFFT; way <= DCT_MATRIX; way++) {
        struct timed timed = {d, way};
        TRY(device_time(d->device, run_both, &timed, 0.2, &seconds[way]));
    }
    d->way = seconds[DCT_CLFFT] < seconds[DCT_MATRIX] ? DCT_CLFFT : DCT_MATRIX;
    log_info("spectra of %lld images of %d x %d: by %s; there and back takes %.3g ms by %s, %.3g ms by matrix products",
             (long long)d->shape.count, d->shape.height, d->shape.width,
             d->way == DCT_CLFFT ? device_fft_library() : "matrix products", seconds[DCT_CLFFT] * 1e3,
             device_fft_library(), seconds[DCT_MATRIX] * 1e3);
done:
    return status;
}

static int try_library(struct dct *d) {
    int status = RETORT_OK;
    const struct dct_shape *s = &d->shape;
    TRY(device_dct_create(d->device, s->count * s->channels, s->height, s->width, &d->fft));
    TRY(compare(d));
    d->way = DCT_CLFFT;
    if (d->asked == DCT_AUTO) TRY(measure(d));
done:
    return status;
}

static void settle(struct dct *d) {
    const struct dct_shape *s = &d->shape;
    const bool measured = d->asked == DCT_AUTO && s->height * s->width >= DCT_MEASURED && device_fft_library()
                          && device_fft_takes(s->height) && device_fft_takes(s->width);
    if (d->asked == DCT_MATRIX || (d->asked == DCT_AUTO && !measured)) return;
    if (try_library(d) < 0) {
        d->way = DCT_MATRIX;
        log_warning("device.dct: %s: spectra by matrix products instead: %s", d->asked == DCT_AUTO ? "auto" : "clfft",
                    retort_error_message());
        error_clear();
    }
    if (d->way == DCT_MATRIX)
        drop_library(d);
    else
        memory_size(&d->memory[LIBRARY], "transforms of spectra", (size_t)device_dct_bytes(d->fft), 1, UINT64_MAX);
}

/* --- memory --- */
static int upload_basis(struct dct *d, int row, int size) {
    int status = RETORT_OK;
    const size_t bytes = (size_t)size * (size_t)size * sizeof(float);
    struct place place = memory_item(&d->memory[row], 0);
    float *basis = malloc(bytes);
    if (!basis) RAISE(RETORT_ENOMEM, "out of memory for cosines");
    dct_basis(size, basis);
    TRY(device_write(d->device, place.buffer, place.offset, bytes, basis));
done:
    free(basis);
    return status;
}

int dct_allocate(struct dct *d) {
    int status = RETORT_OK;
    const struct dct_shape *s = &d->shape;
    const struct {
        const char *what;
        int64_t values;
    } rows[] = {
        [IMAGES] = {"images of spectra", d->elements},
        [SPECTRA] = {"spectra", d->elements},
        [DOWN] = {"cosines of columns", (int64_t)s->height * s->height},
        [ACROSS] = {"cosines of rows", (int64_t)s->width * s->width},
    };
    for (int i = 0; i < LIBRARY; i++) {
        struct memory *memory = &d->memory[i];
        memory_size(memory, rows[i].what, (size_t)rows[i].values * sizeof(float), 1,
                    device_traits(d->device)->max_allocation);
        TRY(memory_create(memory, d->device));
        struct place place = memory_item(memory, 0);
        for (int back = 0; back < 2; back++)
            TRY(executable_bind(d->products[back], names[i], place.buffer, place.offset));
    }
    TRY(upload_basis(d, DOWN, s->height));
    TRY(upload_basis(d, ACROSS, s->width));
    settle(d);
done:
    return status;
}
