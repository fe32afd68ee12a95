/* Graphs of array operations: what every layer above describes its work with.
 *
 * A graph is a list of nodes in topological order; building it computes nothing. A builder function returns the new
 * node, or NULL after a failure: the graph keeps the first failure's words, every builder given a NULL input returns
 * NULL, and graph_status() tells at the end. So expressions nest without a check at each step.
 *
 * Tensors are dense, rank 0 to 6, float32 or int32 (reference: double). Broadcasting is explicit: elementwise operands
 * have equal shapes; node_broadcast stretches dimensions of size 1. Nodes live as long as their graph.
 *
 * Equal nodes are built once: a builder whose operation, attributes and inputs equal an earlier node's returns that
 * node, and identities (x + 0, x * 1, reshape of reshape, arithmetic of constants, ...) are folded on the way, taking
 * numbers to be finite. */
#ifndef RETORT_GRAPH_GRAPH_H
#define RETORT_GRAPH_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MAX_RANK 6

enum dtype { FLOAT32, INT32 };

struct shape {
    int rank;
    int64_t size[MAX_RANK];
};

/* SHAPE(10, 3, 8, 8): sizes of any integer type; SCALAR_SHAPE has rank 0. */
#define SHAPE_COUNT(...) (sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
#define SHAPE(...)       shape_make((int)SHAPE_COUNT(__VA_ARGS__), (const int64_t[]){__VA_ARGS__})
#define SCALAR_SHAPE     ((struct shape){0})
struct shape shape_make(int rank, const int64_t *size);
bool shape_equal(struct shape a, struct shape b);
int64_t shape_count(struct shape shape); /* number of elements; -1 where a size is below 1 or there are 2^48 or more */
void shape_print(struct shape shape, char *text, size_t size); /* "[10,3,8,8]" */

enum op {
    OP_INPUT,
    OP_CONSTANT,
    OP_IOTA,
    OP_RANDOM,
    /* elementwise, one operand */
    OP_EXP,
    OP_LOG,
    OP_SQRT,
    OP_RECIPROCAL,
    OP_TANH,
    OP_ERF,
    OP_SIN,
    OP_COS,
    OP_CAST,
    OP_STOP_GRADIENT,
    /* elementwise, two or three operands */
    OP_ADD,
    OP_SUBTRACT,
    OP_MULTIPLY,
    OP_DIVIDE,
    OP_MAX,
    OP_COMPARE,
    OP_SELECT,
    /* index maps */
    OP_BROADCAST,
    OP_RESHAPE,
    OP_PERMUTE,
    OP_SLICE,
    OP_PAD,
    OP_REVERSE,
    OP_CONCAT,
    OP_ONE_HOT,
    OP_AVERAGE_POOL,
    OP_AVERAGE_POOL_TRANSPOSE,
    /* reductions */
    OP_REDUCE_SUM,
    OP_REDUCE_MAX,
    OP_ARGMAX,
    /* products */
    OP_MATMUL,
    OP_CONV,
    OP_CONV_BACKWARD_DATA,
    OP_CONV_BACKWARD_WEIGHT,
    /* rows and images */
    OP_GATHER_ROWS,
    OP_SCATTER_ROWS,
    OP_SAMPLE,
    OP_SAMPLE_TRANSPOSE,
    /* the small symmetric eigenproblem of Lanczos */
    OP_EIGH,
    OP_COUNT
};

enum comparison { COMPARE_LESS, COMPARE_LESS_EQUAL, COMPARE_EQUAL };
enum distribution { RANDOM_UNIFORM01, RANDOM_NORMAL01 };

/* What an operation knows beside its inputs. Only the members its builder names are used; the rest are zero. There are
 * no gaps between members: nodes are told apart byte by byte. */
struct attributes {
    double value;            /* constant */
    int64_t start[MAX_RANK]; /* slice: first index; pad: zeros in front; permute: source dimension of each dimension */
    int64_t step[MAX_RANK];  /* slice: stride; pad: 1 + zeros between neighbours */
    uint32_t axes;           /* reduce, reverse: bit mask of dimensions */
    int axis;                /* iota, concat, argmax */
    int kind;                /* comparison, distribution */
    uint32_t stream;         /* random */
    int transpose_a, transpose_b; /* matmul: 1 or 0, as `opaque` */
    int stride, padding;          /* convolutions */
    int window;                   /* pooling */
    int opaque;                   /* input: graph_input_opaque */
};

struct node {
    enum op op;
    enum dtype dtype;
    struct shape shape;
    int index; /* position in the graph: inputs have smaller ones */
    int input_count;
    struct node **inputs;
    struct attributes attributes;
    const char *name; /* inputs: the name they are bound by; others: NULL */
    struct graph *graph;
};

struct graph; /* opaque: see the accessors */

int graph_create(struct graph **graph);
void graph_destroy(struct graph *graph); /* NULL-safe; frees every node */
/* 0, or the first failure of a builder, its words then being the error message. */
int graph_status(const struct graph *graph);
int graph_count(const struct graph *graph);
struct node *graph_node(const struct graph *graph, int index);
/* Marks a node as a result under a name (unique). The same node may be several results. */
void graph_output(struct graph *graph, const char *name, struct node *node);
int graph_output_count(const struct graph *graph);
struct node *graph_output_at(const struct graph *graph, int i, const char **name);
/* A result that only an opaque input of another graph will read: the compiler chooses how it lies in memory. */
void graph_output_opaque(struct graph *graph, const char *name, struct node *node);
bool graph_output_is_opaque(const struct graph *graph, int i);
/* Marks `node` as what result i of `from` is there: under its name, opaque if it is. For passes that rebuild graphs. */
void graph_output_copy(struct graph *graph, const struct graph *from, int i, struct node *node);
/* Refuses further nodes with a message of the caller's; for builders of the layers above. Returns NULL. */
struct node *graph_fail(struct graph *graph, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Checks every node against the operation table: inputs, types, shapes, attributes, order. For use after each pass. */
int graph_verify(const struct graph *graph);
/* One line a node: `%7 = add [10,32] %3 %5`. */
void graph_print(const struct graph *graph, FILE *stream);
/* The operation of `node` (attributes, and the shape where its builder is told one) on other inputs, in their graph;
 * `graph` is where a node without inputs goes. Built as its builder builds it: checked, folded, shared. */
struct node *node_rebuild(struct graph *graph, const struct node *node, struct node *const *inputs);
/* The node that is there already for the operation of `node` on other inputs, those of `graph`; NULL where there is
 * none. Builds nothing. */
struct node *node_find(const struct graph *graph, const struct node *node, struct node *const *inputs);

/* --- sources --- */
struct node *graph_input(struct graph *graph, const char *name, enum dtype dtype, struct shape shape);
/* What an opaque result (graph_output_opaque) of the same type and shape holds; compiled for the same device. */
struct node *graph_input_opaque(struct graph *graph, const char *name, enum dtype dtype, struct shape shape);
struct node *graph_constant(struct graph *graph, double value, struct shape shape); /* float32, every element */
struct node *graph_constant_int(struct graph *graph, int32_t value, struct shape shape);
struct node *graph_iota(struct graph *graph, struct shape shape, int axis); /* int32: the index along axis */
/* Philox4x32-10 keyed by the input `seed` (int32 [2]): element i is word i mod 4 of block i / 4, counter (block low,
 * block high, 0, stream). Uniform in [0,1): (word >> 8) 2^-24. Normal by Box-Muller on the words a, b of elements 2k
 * and 2k + 1: with u = ((a >> 8) + 1) 2^-24 and v = (b >> 8) 2^-24, element 2k is sqrt(-2 ln u) cos(2 pi v), element 2k
 * + 1 the same with the sine. */
struct node *graph_random(struct node *seed, enum distribution distribution, uint32_t stream, struct shape shape);

/* --- elementwise: operands of equal shape and type; results as the operands, except where said. float32 alone, but
 * cast, stop_gradient, add, subtract, multiply, max, compare and select, which take int32 as well --- */
struct node *node_exp(struct node *x);
struct node *node_log(struct node *x);
struct node *node_sqrt(struct node *x);
struct node *node_reciprocal(struct node *x);
struct node *node_tanh(struct node *x);
struct node *node_erf(struct node *x);
struct node *node_sin(struct node *x);
struct node *node_cos(struct node *x);
struct node *node_cast(struct node *x, enum dtype dtype); /* float to int truncates */
struct node *node_stop_gradient(struct node *x);          /* the value; derivatives do not pass */
struct node *node_add(struct node *a, struct node *b);
struct node *node_subtract(struct node *a, struct node *b);
struct node *node_multiply(struct node *a, struct node *b);
struct node *node_divide(struct node *a, struct node *b);
struct node *node_max(struct node *a,
                      struct node *b); /* a >= b ? a : b; the derivative goes where the value came from */
struct node *node_compare(struct node *a, struct node *b, enum comparison comparison); /* float 1 or 0 */
struct node *node_select(struct node *condition, struct node *a, struct node *b);      /* condition != 0 ? a : b */
/* Shorthands made of the above. */
struct node *node_negate(struct node *x);
struct node *node_square(struct node *x);
struct node *node_scale(struct node *x, double factor);
struct node *node_shift(struct node *x, double term);
/* a op b after stretching the dimensions of size 1 of either one to the other's (equal ranks). */
struct node *node_add_stretched(struct node *a, struct node *b);
struct node *node_subtract_stretched(struct node *a, struct node *b);
struct node *node_multiply_stretched(struct node *a, struct node *b);

/* --- index maps: of either type --- */
struct node *node_broadcast(struct node *x, struct shape shape); /* equal rank; size-1 dimensions are stretched */
struct node *node_broadcast_scalar(struct node *x, struct shape shape); /* one element to any shape */
struct node *node_reshape(struct node *x, struct shape shape);
struct node *node_permute(struct node *x, const int *source); /* result dimension i is x's dimension source[i] */
struct node *node_transpose(struct node *x);                  /* rank 2 */
/* result[i] = x[start + i * step]; size from `shape`. */
struct node *node_slice(struct node *x, const int64_t *start, const int64_t *step, struct shape shape);
/* result[start + i * step] = x[i], 0 elsewhere: slice's transpose. */
struct node *node_pad(struct node *x, const int64_t *start, const int64_t *step, struct shape shape);
struct node *node_reverse(struct node *x, uint32_t axes);
struct node *node_concat(struct node *const *parts, int count, int axis);
struct node *node_one_hot(
    struct node *index,
    int64_t depth); /* int32 [...] -> float [..., depth]; all zeros for an index outside 0 .. depth - 1 */
/* Mean over window x window squares of the last two dimensions; a rest row or column is dropped. */
struct node *node_average_pool(struct node *x, int window);
/* Its transpose: each value spread over its square, divided by window^2; height and width of the result given. */
struct node *node_average_pool_transpose(struct node *x, int window, int64_t height, int64_t width);

/* --- reductions: the reduced dimensions stay, with size 1 --- */
struct node *node_reduce_sum(struct node *x, uint32_t axes);
struct node *node_reduce_max(struct node *x, uint32_t axes);
struct node *node_reduce_mean(struct node *x, uint32_t axes); /* sum and scale */
struct node *node_sum_all(struct node *x);                    /* to rank 0 */
/* Index of the largest element along one dimension, the first on ties: int32, that dimension of size 1. */
struct node *node_argmax(struct node *x, int axis);

/* --- products --- */
/* [.., M,K] x [.., K,N] -> [.., M,N] for rank 2 or 3 (a batch); operands stored transposed where the flags say. */
struct node *node_matmul(struct node *a, struct node *b, bool transpose_a, bool transpose_b);
/* Cross-correlation: x [N,C,H,W], w [O,C,KH,KW] -> [N,O,OH,OW], OH = (H + 2 padding - KH) / stride + 1. */
struct node *node_conv(struct node *x, struct node *w, int stride, int padding);
/* Its adjoint by x: y [N,O,OH,OW], w -> [N,C,height,width]. */
struct node *node_conv_backward_data(struct node *y, struct node *w, int stride, int padding, int64_t height,
                                     int64_t width);
/* Its adjoint by w: x, y -> [O,C,kernel_height,kernel_width]. */
struct node *node_conv_backward_weight(struct node *x, struct node *y, int stride, int padding, int64_t kernel_height,
                                       int64_t kernel_width);

/* --- rows and images --- */
/* Row numbers must lie in [0, R). For others the reference reads zeros and scatters nothing. */
struct node *node_gather_rows(struct node *x, struct node *rows);                 /* x [R,...], int32 [B] -> [B,...] */
struct node *node_scatter_rows(struct node *y, struct node *rows, int64_t count); /* transpose: adds, row by row */
/* Bilinear sampling: image [N,C,H,W], map [N,2,3] float. Output pixel (row i, column j) reads the image at
 * column x = m00 u + m01 v + m02, row y = m10 u + m11 v + m12 in centred coordinates: u = j - (W-1)/2, v = i - (H-1)/2,
 * x, y likewise; outside is 0. Linear in the image; the map is a constant (no derivative). */
struct node *node_sample(struct node *image, struct node *map);
struct node *node_sample_transpose(struct node *image, struct node *map);

/* Eigenvalues and vectors of a symmetric matrix [k,k] (k <= 128), cyclic Jacobi: [k+1,k], row 0 the eigenvalues by
 * falling magnitude, row 1 + i the unit eigenvector of value i, its sign free. Not differentiable. */
struct node *node_eigh(struct node *matrix);

/* --- the operation table --- */
struct op_info {
    const char *name;
    int inputs;     /* number of operands; -1: any */
    bool pointwise; /* result element i depends on operand elements i alone */
    /* Type, shape and attribute rule: fills node->dtype and node->shape from the inputs, or returns words saying what
     * does not fit. */
    const char *(*infer)(struct node *node);
    /* The reference: out and inputs as doubles (integers too). */
    void (*reference)(const struct node *node, const double *const *inputs, double *out);
    /* Floating-point operations of one evaluation. */
    double (*cost)(const struct node *node);
};
const struct op_info *op_info(enum op op);

/* Evaluates every output in double precision. inputs: one array for each OP_INPUT node in graph order; outputs: one
 * array, of the output's element count, for each output. */
int graph_evaluate(const struct graph *graph, const double *const *inputs, double *const *outputs);

#endif
