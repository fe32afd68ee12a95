#include "distill/frequency.h"

#include "base/error.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>

/* --- graphs --- */
/* Elements of x as rows of one element, so that they are dealt out as rows are. */
static struct node *pick_elements(struct node *x, struct node *which) {
    if (!x || !which) return NULL;
    struct node *rows = node_gather_rows(node_reshape(x, SHAPE(shape_count(x->shape), 1)), which);
    return node_reshape(rows, SHAPE(which->shape.size[0]));
}

struct node *frequency_place(struct node *coefficients, struct node *places, struct shape shape) {
    if (!coefficients || !places) return NULL;
    struct node *zero = graph_constant(coefficients->graph, 0, SHAPE(1));
    struct node *all = node_concat((struct node *const[]){coefficients, zero}, 2, 0);
    return node_reshape(pick_elements(all, places), shape);
}

struct node *frequency_pick(struct node *spectra, struct node *picks) {
    return pick_elements(spectra, picks);
}

/* --- on a device --- */
enum { COEFFICIENTS, PLACES, PICKS, OWN_ROWS, SPECTRA = OWN_ROWS };
static const char *const names[] = {"coefficients", "places", "picks", "spectra"};

struct frequency {
    struct library *library;
    struct device *device;
    struct frequency_shape shape;
    int64_t count, coefficients, elements; /* images; of all of them together: coefficients, and elements of spectra */
    int32_t *positions;
    struct dct *dct;
    struct executable *place, *pick;
    struct memory memory[OWN_ROWS];
    struct arena arena;
};

static struct dct_shape dct_shape_of(const struct frequency_shape *shape, int64_t count) {
    return (struct dct_shape){count, shape->channels, shape->height, shape->width};
}

static int compile(struct frequency *f, bool pick, struct executable **executable) {
    int status = RETORT_OK;
    const struct frequency_shape *s = &f->shape;
    const struct shape shape = SHAPE(f->count, s->channels, s->width, s->height);
    struct graph *graph;
    TRY(graph_create(&graph));
    if (pick) {
        struct node *spectra = graph_input(graph, names[SPECTRA], FLOAT32, shape);
        struct node *picks = graph_input(graph, names[PICKS], INT32, SHAPE(f->coefficients));
        graph_output(graph, names[COEFFICIENTS], frequency_pick(spectra, picks));
    } else {
        struct node *coefficients = graph_input(graph, names[COEFFICIENTS], FLOAT32, SHAPE(f->coefficients));
        struct node *places = graph_input(graph, names[PLACES], INT32, SHAPE(f->elements));
        graph_output(graph, names[SPECTRA], frequency_place(coefficients, places, shape));
    }
    status = graph_status(graph);
    if (status >= 0)
        status = executable_create(f->library, graph, pick ? "coefficients of spectra" : "spectra of coefficients",
                                   executable);
    graph_destroy(graph);
done:
    return status;
}

static int bind(struct executable *executable, int name, struct place place) {
    return executable_bind(executable, names[name], place.buffer, place.offset);
}

static int upload(struct frequency *f, struct place place, const void *data, size_t bytes) {
    return device_write(f->device, place.buffer, place.offset, bytes, data);
}

static int download(struct frequency *f, struct place place, void *data, size_t bytes) {
    return device_read(f->device, place.buffer, place.offset, bytes, data);
}

static struct place own_place(const struct frequency *f, int row) {
    return memory_item(&f->memory[row], 0);
}

int frequency_decode(struct frequency *f, const float *coefficients, float *images) {
    int status = RETORT_OK;
    TRY(upload(f, own_place(f, COEFFICIENTS), coefficients, (size_t)f->coefficients * sizeof *coefficients));
    TRY(executable_enqueue(f->place));
    TRY(dct_run(f->dct, true));
    TRY(download(f, dct_place_images(f->dct), images, (size_t)f->elements * sizeof *images));
done:
    return status;
}

int frequency_encode(struct frequency *f, const float *images, float *coefficients) {
    int status = RETORT_OK;
    TRY(upload(f, dct_place_images(f->dct), images, (size_t)f->elements * sizeof *images));
    TRY(dct_run(f->dct, false));
    TRY(executable_enqueue(f->pick));
    TRY(download(f, own_place(f, COEFFICIENTS), coefficients, (size_t)f->coefficients * sizeof *coefficients));
done:
    return status;
}

enum dct_way frequency_dct(const struct frequency *f) {
    return dct_settled(f->dct);
}

/* --- the places --- */
int32_t *frequency_positions(struct frequency *f, int64_t *count) {
    *count = (int64_t)f->shape.classes * f->shape.channels * f->shape.kept;
    return f->positions;
}

int frequency_settle(struct frequency *f) {
    int status = RETORT_OK;
    const struct frequency_shape *s = &f->shape;
    const int64_t plane = (int64_t)s->height * s->width, kept = s->kept;
    int32_t *places = malloc((size_t)f->elements * sizeof *places),
            *picks = malloc((size_t)f->coefficients * sizeof *picks);
    if (!places || !picks)
        RAISE(RETORT_ENOMEM, "out of memory for the places of %lld coefficients", (long long)f->coefficients);
    for (int64_t i = 0; i < f->elements; i++) places[i] = (int32_t)f->coefficients;
    for (int64_t i = 0; i < f->coefficients; i++) {
        int64_t channel = i / kept, class = channel / s->channels / s->ipc;
        int32_t position = f->positions[(class * s->channels + channel % s->channels) * kept + i % kept];
        bool inside = position >= 0 && position < plane;
        int64_t pick = channel * plane + (inside ? position : 0);
        if (!inside || places[pick] != f->coefficients)
            RAISE(RETORT_EFORMAT, "place %d of a coefficient of class %lld, expected different ones from 0 to %lld",
                  position, (long long)class, (long long)plane - 1);
        picks[i] = (int32_t)pick;
        places[pick] = (int32_t)i;
    }
    TRY(upload(f, own_place(f, PLACES), places, (size_t)f->elements * sizeof *places));
    TRY(upload(f, own_place(f, PICKS), picks, (size_t)f->coefficients * sizeof *picks));
done:
    free(places);
    free(picks);
    return status;
}

/* A place of a spectrum and what is known of it. */
struct candidate {
    double variance;
    int32_t position, order; /* order: from low frequencies to high ones, for places that vary alike */
};

static int compare_candidates(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->variance != y->variance) return x->variance < y->variance ? 1 : -1;
    return x->order != y->order ? (x->order > y->order) - (x->order < y->order)
                                : (x->position > y->position) - (x->position < y->position);
}

static int compare_positions(const void *a, const void *b) {
    const int32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The `kept` places of largest variance, of `count` spectra with these sums: [C,W,H] each. */
static int choose(const struct frequency_shape *s, const double *sums, const double *squares, int64_t count,
                  int32_t *positions) {
    int32_t plane = s->height * s->width;
    struct candidate *list = calloc((size_t)plane, sizeof *list);
    if (!list) return error_set(RETORT_ENOMEM, "out of memory choosing coefficients");
    for (int c = 0; c < s->channels; c++) {
        for (int32_t i = 0; i < plane; i++) {
            double mean = count ? sums[c * plane + i] / (double)count : 0;
            double variance = count ? squares[c * plane + i] / (double)count - mean * mean : 0;
            list[i] = (struct candidate){variance, i, i / s->height + i % s->height};
        }
        qsort(list, (size_t)plane, sizeof *list, compare_candidates);
        for (int i = 0; i < s->kept; i++) positions[c * s->kept + i] = list[i].position;
        qsort(positions + c * s->kept, (size_t)s->kept, sizeof *positions, compare_positions);
    }
    free(list);
    return RETORT_OK;
}

/* What the spectra of real images are computed with, `rows` at a time. */
struct survey {
    struct dct *dct;
    int64_t rows, size; /* size: elements of an image */
    float *values;
    double *sums, *squares;
    struct arena arena;
};

static void survey_finish(struct survey *survey) {
    dct_destroy(survey->dct);
    arena_finish(&survey->arena);
}

/* Before kernels are built. */
static int survey_begin(struct frequency *f, const struct dataset *train, struct survey *survey) {
    int status = RETORT_OK;
    const int64_t enough = 1 << 18; /* elements at a time */
    int64_t size = f->elements / f->count, rows = enough / size, largest = 1;
    for (int k = 0; k < train->classes; k++) {
        int64_t of_class = train->class_begin[k + 1] - train->class_begin[k];
        if (of_class > largest) largest = of_class;
    }
    if (rows > largest) rows = largest;
    survey->rows = rows < 1 ? 1 : rows;
    survey->size = size;
    survey->values = arena_array(&survey->arena, (size_t)(survey->rows * size), sizeof *survey->values);
    survey->sums = arena_array(&survey->arena, (size_t)size, sizeof *survey->sums);
    survey->squares = arena_array(&survey->arena, (size_t)size, sizeof *survey->squares);
    if (survey->arena.failed) RAISE(RETORT_ENOMEM, "out of memory for spectra of real images");
    const struct dct_shape shape = dct_shape_of(&f->shape, survey->rows);
    TRY(dct_create(f->library, &shape, DCT_MATRIX, &survey->dct));
done:
    return status;
}

/* Sums of the spectra of one class, in double precision. */
static int survey_class(struct frequency *f, const struct dataset *train, int class, struct survey *survey) {
    int status = RETORT_OK;
    const int64_t size = survey->size, *list = train->class_rows + train->class_begin[class];
    int64_t count = train->class_begin[class + 1] - train->class_begin[class];
    size_t bytes = (size_t)(survey->rows * size) * sizeof(float);
    memset(survey->sums, 0, (size_t)size * sizeof *survey->sums);
    memset(survey->squares, 0, (size_t)size * sizeof *survey->squares);
    for (int64_t first = 0; first < count; first += survey->rows) {
        int64_t part = count - first < survey->rows ? count - first : survey->rows;
        for (int64_t i = 0; i < part; i++)
            memcpy(survey->values + i * size, train->images + list[first + i] * size, (size_t)size * sizeof(float));
        TRY(upload(f, dct_place_images(survey->dct), survey->values, bytes));
        TRY(dct_run(survey->dct, false));
        TRY(download(f, dct_place_spectra(survey->dct), survey->values, bytes));
        for (int64_t i = 0; i < part; i++)
            for (int64_t k = 0; k < size; k++) {
                double value = survey->values[i * size + k];
                survey->sums[k] += value;
                survey->squares[k] += value * value;
            }
    }
done:
    return status;
}

static int look_for_places(struct frequency *f, const struct dataset *train, struct survey *survey) {
    int status = RETORT_OK;
    const struct frequency_shape *s = &f->shape;
    TRY(dct_allocate(survey->dct));
    for (int class = 0; class < s->classes; class ++) {
        TRY(survey_class(f, train, class, survey));
        TRY(choose(s, survey->sums, survey->squares, train->class_begin[class + 1] - train->class_begin[class],
                   f->positions + (int64_t) class * s->channels * s->kept));
    }
done:
    return status;
}

static int allocate(struct frequency *f) {
    int status = RETORT_OK;
    const struct {
        const char *what;
        int64_t values;
    } rows[OWN_ROWS] = {
        [COEFFICIENTS] = {"coefficients of the set", f->coefficients},
        [PLACES] = {"places of coefficients", f->elements},
        [PICKS] = {"coefficients' places", f->coefficients},
    };
    TRY(dct_allocate(f->dct));
    for (int i = 0; i < OWN_ROWS; i++) {
        memory_size(&f->memory[i], rows[i].what, (size_t)rows[i].values * sizeof(float), 1,
                    device_traits(f->device)->max_allocation);
        TRY(memory_create(&f->memory[i], f->device));
        if (i != PICKS) TRY(bind(f->place, i, own_place(f, i)));
        if (i != PLACES) TRY(bind(f->pick, i, own_place(f, i)));
    }
    TRY(bind(f->place, SPECTRA, dct_place_spectra(f->dct)));
    TRY(bind(f->pick, SPECTRA, dct_place_spectra(f->dct)));
done:
    return status;
}

int frequency_create(struct library *library, const struct frequency_shape *shape, const struct dataset *train,
                     enum dct_way asked, bool plan_only, struct frequency **out) {
    int status = RETORT_OK;
    const int64_t plane = (int64_t)shape->height * shape->width;
    struct survey survey = {0};
    struct frequency *f = calloc(1, sizeof *f);
    arena_init(&survey.arena);
    if (!f) RAISE(RETORT_ENOMEM, "out of memory preparing coefficients");
    *f = (struct frequency){.library = library, .device = library_device(library), .shape = *shape};
    arena_init(&f->arena);
    f->count = (int64_t)shape->classes * shape->ipc;
    f->coefficients = f->count * shape->channels * shape->kept;
    f->elements = f->count * shape->channels * plane;
    if (f->elements > INT32_MAX)
        RAISE(RETORT_ELIMIT, "a set of %lld images has more values than can be counted; make set.ipc smaller",
              (long long)f->count);
    f->positions = arena_array(&f->arena, (size_t)(f->coefficients / shape->ipc), sizeof *f->positions);
    if (!f->positions) RAISE(RETORT_ENOMEM, "out of memory preparing coefficients");
    const struct dct_shape images = dct_shape_of(shape, f->count);
    TRY(dct_create(library, &images, asked, &f->dct));
    TRY(compile(f, false, &f->place));
    TRY(compile(f, true, &f->pick));
    if (!plan_only) {
        TRY(survey_begin(f, train, &survey));
        TRY(library_build(library));
        TRY(library_rehearse(library));
        TRY(allocate(f));
        TRY(look_for_places(f, train, &survey));
        TRY(frequency_settle(f));
    }
    *out = f;
    f = NULL;
done:
    survey_finish(&survey);
    frequency_destroy(f);
    return status;
}

void frequency_destroy(struct frequency *f) {
    if (!f) return;
    dct_destroy(f->dct);
    executable_destroy(f->place);
    executable_destroy(f->pick);
    for (int i = 0; i < OWN_ROWS; i++) memory_finish(&f->memory[i]);
    arena_finish(&f->arena);
    free(f);
}

const struct memory *frequency_memory(const struct frequency *f, int i) {
    return i < OWN_ROWS ? &f->memory[i] : dct_memory(f->dct, i - OWN_ROWS);
}
