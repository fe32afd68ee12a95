/* What each operation computes, in double precision and plain loops: the oracle of every kernel. Integers are doubles
 * that hold whole numbers. */
#include "graph/private.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"

static int64_t count_of(const struct node *node) {
    return shape_count(node->shape);
}

/* --- sources --- */

void reference_constant(const struct node *node, const double *const *inputs, double *out) {
    (void)inputs;
    for (int64_t i = 0; i < count_of(node); i++) out[i] = node->attributes.value;
}

void reference_iota(const struct node *node, const double *const *inputs, double *out) {
    (void)inputs;
    int64_t inner = 1, size = node->shape.size[node->attributes.axis];
    for (int d = node->attributes.axis + 1; d < node->shape.rank; d++) inner *= node->shape.size[d];
    for (int64_t i = 0; i < count_of(node); i++) out[i] = (double)(i / inner % size);
}

void reference_random(const struct node *node, const double *const *inputs, double *out) {
    const uint32_t key[2] = {(uint32_t)(int64_t)inputs[0][0], (uint32_t)(int64_t)inputs[0][1]};
    int64_t count = count_of(node);
    for (int64_t block = 0; 4 * block < count; block++) {
        const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), 0, node->attributes.stream};
        uint32_t words[4];
        double numbers[4];
        philox4x32(counter, key, words);
        for (int i = 0; i < 4; i++) numbers[i] = (words[i] >> 8) * 0x1p-24;
        for (int i = 0; i < 4 && node->attributes.kind == RANDOM_NORMAL01; i += 2) {
            double radius = sqrt(-2 * log(numbers[i] + 0x1p-24)), angle = 2 * 3.14159265358979323846 * numbers[i + 1];
            numbers[i] = radius * cos(angle);
            numbers[i + 1] = radius * sin(angle);
        }
        for (int i = 0; i < 4 && 4 * block + i < count; i++) out[4 * block + i] = numbers[i];
    }
}

/* --- elementwise --- */

void reference_unary(const struct node *node, const double *const *inputs, double *out) {
    const double *x = inputs[0];
    int64_t count = count_of(node);
    for (int64_t i = 0; i < count; i++) switch (node->op) {
        case OP_EXP:
            out[i] = exp(x[i]);
            break;
        case OP_LOG:
            out[i] = log(x[i]);
            break;
        case OP_SQRT:
            out[i] = sqrt(x[i]);
            break;
        case OP_RECIPROCAL:
            out[i] = 1 / x[i];
            break;
        case OP_TANH:
            out[i] = tanh(x[i]);
            break;
        case OP_ERF:
            out[i] = erf(x[i]);
            break;
        case OP_SIN:
            out[i] = sin(x[i]);
            break;
        case OP_COS:
            out[i] = cos(x[i]);
            break;
        case OP_CAST:
            out[i] = node->dtype == INT32 ? trunc(x[i]) : x[i];
            break;
        default:
            out[i] = x[i];
            break; /* stop_gradient */
        }
}

static bool compares(double a, double b, int comparison) {
    switch (comparison) {
    case COMPARE_LESS:
        return a < b;
    case COMPARE_LESS_EQUAL:
        return a <= b;
    default:
        return a == b;
    }
}

void reference_binary(const struct node *node, const double *const *inputs, double *out) {
    const double *a = inputs[0], *b = inputs[1];
    int64_t count = count_of(node);
    for (int64_t i = 0; i < count; i++) switch (node->op) {
        case OP_ADD:
            out[i] = a[i] + b[i];
            break;
        case OP_SUBTRACT:
            out[i] = a[i] - b[i];
            break;
        case OP_MULTIPLY:
            out[i] = a[i] * b[i];
            break;
        case OP_DIVIDE:
            out[i] = a[i] / b[i];
            break;
        case OP_MAX:
            out[i] = a[i] >= b[i] ? a[i] : b[i];
            break;
        default:
            out[i] = compares(a[i], b[i], node->attributes.kind);
            break;
        }
}

void reference_select(const struct node *node, const double *const *inputs, double *out) {
    for (int64_t i = 0; i < count_of(node); i++) out[i] = inputs[0][i] != 0 ? inputs[1][i] : inputs[2][i];
}

/* --- index maps --- */

/* Strides of a dense tensor. */
static void dense_strides(struct shape shape, int64_t *stride) {
    int64_t step = 1;
    for (int d = shape.rank - 1; d >= 0; d--) {
        stride[d] = step;
        step *= shape.size[d];
    }
}

enum transfer { TRANSFER_COPY, TRANSFER_ADD, TRANSFER_MAX };

/* Visits a block of `rank` dimensions in two tensors at once, each with strides of its own. */
static void transfer(enum transfer kind, int rank, const int64_t *size, const double *from, const int64_t *from_stride,
                     double *to, const int64_t *to_stride) {
    if (rank > 0) {
        for (int64_t i = 0; i < size[0]; i++)
            transfer(kind, rank - 1, size + 1, from + i * from_stride[0], from_stride + 1, to + i * to_stride[0],
                     to_stride + 1);
        return;
    }
    switch (kind) {
    case TRANSFER_COPY:
        *to = *from;
        break;
    case TRANSFER_ADD:
        *to += *from;
        break;
    case TRANSFER_MAX:
        *to = *to >= *from ? *to : *from;
        break;
    }
}

void reference_broadcast(const struct node *node, const double *const *inputs, double *out) {
    struct shape from = node->inputs[0]->shape;
    int64_t from_stride[MAX_RANK], to_stride[MAX_RANK];
    dense_strides(from, from_stride);
    dense_strides(node->shape, to_stride);
    for (int d = 0; d < from.rank; d++)
        if (from.size[d] == 1) from_stride[d] = 0;
    transfer(TRANSFER_COPY, from.rank, node->shape.size, inputs[0], from_stride, out, to_stride);
}

void reference_reshape(const struct node *node, const double *const *inputs, double *out) {
    memcpy(out, inputs[0], (size_t)count_of(node) * sizeof *out);
}

void reference_permute(const struct node *node, const double *const *inputs, double *out) {
    int64_t dense[MAX_RANK], from_stride[MAX_RANK], to_stride[MAX_RANK];
    dense_strides(node->inputs[0]->shape, dense);
    dense_strides(node->shape, to_stride);
    for (int d = 0; d < node->shape.rank; d++) from_stride[d] = dense[node->attributes.start[d]];
    transfer(TRANSFER_COPY, node->shape.rank, node->shape.size, inputs[0], from_stride, out, to_stride);
}

/* Offset and strides of the elements start + i * step of a tensor. */
static int64_t strided_view(const struct node *node, struct shape shape, int64_t *stride) {
    int64_t offset = 0;
    dense_strides(shape, stride);
    for (int d = 0; d < shape.rank; d++) {
        offset += node->attributes.start[d] * stride[d];
        stride[d] *= node->attributes.step[d];
    }
    return offset;
}

void reference_slice(const struct node *node, const double *const *inputs, double *out) {
    int64_t from_stride[MAX_RANK], to_stride[MAX_RANK];
    int64_t offset = strided_view(node, node->inputs[0]->shape, from_stride);
    dense_strides(node->shape, to_stride);
    transfer(TRANSFER_COPY, node->shape.rank, node->shape.size, inputs[0] + offset, from_stride, out, to_stride);
}

void reference_pad(const struct node *node, const double *const *inputs, double *out) {
    struct shape from = node->inputs[0]->shape;
    int64_t from_stride[MAX_RANK], to_stride[MAX_RANK];
    int64_t offset = strided_view(node, node->shape, to_stride);
    dense_strides(from, from_stride);
    memset(out, 0, (size_t)count_of(node) * sizeof *out);
    transfer(TRANSFER_COPY, from.rank, from.size, inputs[0], from_stride, out + offset, to_stride);
}

void reference_reverse(const struct node *node, const double *const *inputs, double *out) {
    int64_t from_stride[MAX_RANK], to_stride[MAX_RANK], offset = 0;
    dense_strides(node->shape, from_stride);
    dense_strides(node->shape, to_stride);
    for (int d = 0; d < node->shape.rank; d++) {
        if (!(node->attributes.axes >> d & 1)) continue;
        offset += (node->shape.size[d] - 1) * from_stride[d];
        from_stride[d] = -from_stride[d];
    }
    transfer(TRANSFER_COPY, node->shape.rank, node->shape.size, inputs[0] + offset, from_stride, out, to_stride);
}

void reference_concat(const struct node *node, const double *const *inputs, double *out) {
    int64_t from_stride[MAX_RANK], to_stride[MAX_RANK];
    dense_strides(node->shape, to_stride);
    for (int i = 0; i < node->input_count; i++) {
        struct shape part = node->inputs[i]->shape;
        dense_strides(part, from_stride);
        transfer(TRANSFER_COPY, part.rank, part.size, inputs[i], from_stride, out, to_stride);
        out += part.size[node->attributes.axis] * to_stride[node->attributes.axis];
    }
}

void reference_one_hot(const struct node *node, const double *const *inputs, double *out) {
    int64_t depth = node->shape.size[node->shape.rank - 1];
    for (int64_t i = 0; i < count_of(node); i++) out[i] = inputs[0][i / depth] == (double)(i % depth);
}

/* Visits the squares of the pooled tensor: adds means up, or spreads values. */
static void pool(const struct node *node, const double *x, double *out, bool spread) {
    struct shape large = spread ? node->shape : node->inputs[0]->shape;
    int64_t window = node->attributes.window, height = large.size[large.rank - 2], width = large.size[large.rank - 1];
    int64_t rows = height / window, columns = width / window, planes = shape_count(large) / (height * width);
    double share = 1 / (double)(window * window);
    memset(out, 0, (size_t)count_of(node) * sizeof *out);
    for (int64_t p = 0; p < planes; p++)
        for (int64_t i = 0; i < rows * window; i++)
            for (int64_t j = 0; j < columns * window; j++) {
                int64_t fine = (p * height + i) * width + j, coarse = (p * rows + i / window) * columns + j / window;
                out[spread ? fine : coarse] += share * x[spread ? coarse : fine];
            }
}

void reference_average_pool(const struct node *node, const double *const *inputs, double *out) {
    pool(node, inputs[0], out, false);
}

void reference_average_pool_transpose(const struct node *node, const double *const *inputs, double *out) {
    pool(node, inputs[0], out, true);
}

/* --- reductions --- */

void reference_reduce(const struct node *node, const double *const *inputs, double *out) {
    struct shape from = node->inputs[0]->shape;
    int64_t from_stride[MAX_RANK], to_stride[MAX_RANK];
    bool sum = node->op == OP_REDUCE_SUM;
    dense_strides(from, from_stride);
    dense_strides(node->shape, to_stride);
    for (int d = 0; d < from.rank; d++)
        if (node->attributes.axes >> d & 1) to_stride[d] = 0;
    for (int64_t i = 0; i < count_of(node); i++) out[i] = sum ? 0 : -INFINITY;
    transfer(sum ? TRANSFER_ADD : TRANSFER_MAX, from.rank, from.size, inputs[0], from_stride, out, to_stride);
}

void reference_argmax(const struct node *node, const double *const *inputs, double *out) {
    struct shape from = node->inputs[0]->shape;
    int axis = node->attributes.axis;
    int64_t size = from.size[axis], inner = 1;
    for (int d = axis + 1; d < from.rank; d++) inner *= from.size[d];
    for (int64_t i = 0; i < count_of(node); i++) {
        const double *line = inputs[0] + i / inner * size * inner + i % inner;
        int64_t best = 0;
        for (int64_t j = 1; j < size; j++)
            if (line[j * inner] > line[best * inner]) best = j;
        out[i] = (double)best;
    }
}

/* --- products --- */

void reference_matmul(const struct node *node, const double *const *inputs, double *out) {
    bool ta = node->attributes.transpose_a, tb = node->attributes.transpose_b;
    struct shape a = node->inputs[0]->shape;
    int rank = node->shape.rank;
    int64_t m = node->shape.size[rank - 2], n = node->shape.size[rank - 1], k = a.size[ta ? rank - 2 : rank - 1];
    int64_t batch = rank == 3 ? node->shape.size[0] : 1;
    memset(out, 0, (size_t)count_of(node) * sizeof *out);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < m; i++)
            for (int64_t l = 0; l < k; l++) {
                double left = inputs[0][b * m * k + (ta ? l * m + i : i * k + l)];
                const double *right = inputs[1] + b * k * n + (tb ? l : l * n);
                double *row = out + (b * m + i) * n;
                if (tb)
                    for (int64_t j = 0; j < n; j++) row[j] += left * right[j * k];
                else
                    for (int64_t j = 0; j < n; j++) row[j] += left * right[j];
            }
}

/* The three convolutions visit the same products x * w -> y, row by row; each keeps another of the three. */
static void convolve(const struct node *node, struct shape xs, struct shape ws, struct shape ys, const double *x,
                     const double *w, const double *y, double *out) {
    int64_t stride = node->attributes.stride, padding = node->attributes.padding;
    int64_t channels = xs.size[1], height = xs.size[2], width = xs.size[3], kernels = ws.size[0];
    int64_t kernel_height = ws.size[2], kernel_width = ws.size[3], rows = ys.size[2], columns = ys.size[3];
    memset(out, 0, (size_t)count_of(node) * sizeof *out);
    for (int64_t n = 0; n < xs.size[0]; n++)
        for (int64_t o = 0; o < kernels; o++)
            for (int64_t c = 0; c < channels; c++)
                for (int64_t i = 0; i < rows; i++)
                    for (int64_t a = 0; a < kernel_height; a++)
                        for (int64_t b = 0; b < kernel_width; b++) {
                            int64_t row = i * stride + a - padding, shift = b - padding;
                            if (row < 0 || row >= height) continue;
                            /* Columns j with 0 <= j * stride + shift < width. */
                            int64_t first = shift < 0 ? (-shift + stride - 1) / stride : 0;
                            int64_t last = width - 1 < shift ? -1 : (width - 1 - shift) / stride;
                            if (last >= columns) last = columns - 1;
                            int64_t xi = ((n * channels + c) * height + row) * width + shift;
                            int64_t wi = ((o * channels + c) * kernel_height + a) * kernel_width + b;
                            int64_t yi = ((n * kernels + o) * rows + i) * columns;
                            if (node->op == OP_CONV)
                                for (int64_t j = first; j <= last; j++) out[yi + j] += w[wi] * x[xi + j * stride];
                            else if (node->op == OP_CONV_BACKWARD_DATA)
                                for (int64_t j = first; j <= last; j++) out[xi + j * stride] += w[wi] * y[yi + j];
                            else {
                                double sum = 0;
                                for (int64_t j = first; j <= last; j++) sum += x[xi + j * stride] * y[yi + j];
                                out[wi] += sum;
                            }
                        }
}

void reference_conv(const struct node *node, const double *const *inputs, double *out) {
    convolve(node, node->inputs[0]->shape, node->inputs[1]->shape, node->shape, inputs[0], inputs[1], NULL, out);
}

void reference_conv_backward_data(const struct node *node, const double *const *inputs, double *out) {
    convolve(node, node->shape, node->inputs[1]->shape, node->inputs[0]->shape, NULL, inputs[1], inputs[0], out);
}

void reference_conv_backward_weight(const struct node *node, const double *const *inputs, double *out) {
    convolve(node, node->inputs[0]->shape, node->shape, node->inputs[1]->shape, inputs[0], NULL, inputs[1], out);
}

/* --- rows and images --- */

void reference_gather_rows(const struct node *node, const double *const *inputs, double *out) {
    int64_t limit = node->inputs[0]->shape.size[0], count = node->shape.size[0], width = count_of(node) / count;
    for (int64_t i = 0; i < count; i++) {
        double row = inputs[1][i];
        if (row >= 0 && row < (double)limit)
            memcpy(out + i * width, inputs[0] + (int64_t)row * width, (size_t)width * sizeof *out);
        else
            memset(out + i * width, 0, (size_t)width * sizeof *out);
    }
}

void reference_scatter_rows(const struct node *node, const double *const *inputs, double *out) {
    int64_t count = node->inputs[0]->shape.size[0], limit = node->shape.size[0], width = count_of(node) / limit;
    memset(out, 0, (size_t)count_of(node) * sizeof *out);
    for (int64_t i = 0; i < count; i++) {
        double row = inputs[1][i];
        if (!(row >= 0 && row < (double)limit)) continue;
        for (int64_t j = 0; j < width; j++) out[(int64_t)row * width + j] += inputs[0][i * width + j];
    }
}

static void sample(const struct node *node, const double *image, const double *map, double *out, bool transpose) {
    int64_t channels = node->shape.size[1], height = node->shape.size[2], width = node->shape.size[3];
    memset(out, 0, (size_t)count_of(node) * sizeof *out);
    for (int64_t n = 0; n < node->shape.size[0]; n++, map += 6)
        for (int64_t i = 0; i < height; i++)
            for (int64_t j = 0; j < width; j++) {
                double u = (double)j - (double)(width - 1) / 2, v = (double)i - (double)(height - 1) / 2;
                double x = map[0] * u + map[1] * v + map[2] + (double)(width - 1) / 2;
                double y = map[3] * u + map[4] * v + map[5] + (double)(height - 1) / 2;
                if (!(x > -1 && x < (double)width && y > -1 && y < (double)height)) continue;
                int64_t left = (int64_t)floor(x), top = (int64_t)floor(y);
                for (int64_t corner = 0; corner < 4; corner++) {
                    int64_t row = top + corner / 2, column = left + corner % 2;
                    if (row < 0 || row >= height || column < 0 || column >= width) continue;
                    double weight = (1 - fabs(y - (double)row)) * (1 - fabs(x - (double)column));
                    for (int64_t c = 0; c < channels; c++) {
                        int64_t plane = (n * channels + c) * height * width;
                        int64_t here = plane + i * width + j, there = plane + row * width + column;
                        out[transpose ? there : here] += weight * image[transpose ? here : there];
                    }
                }
            }
}

void reference_sample(const struct node *node, const double *const *inputs, double *out) {
    sample(node, inputs[0], inputs[1], out, false);
}

void reference_sample_transpose(const struct node *node, const double *const *inputs, double *out) {
    sample(node, inputs[0], inputs[1], out, true);
}

/* Turns rows and columns p and q of a symmetric matrix so that element (p, q) vanishes; rows p and q of `vectors`
 * follow. */
static void jacobi_rotate(double *matrix, double *vectors, int64_t k, int64_t p, int64_t q) {
    double off = matrix[p * k + q];
    if (off == 0) return;
    double theta = (matrix[q * k + q] - matrix[p * k + p]) / (2 * off);
    double tangent = copysign(1, theta) / (fabs(theta) + hypot(theta, 1));
    double cosine = 1 / hypot(tangent, 1), sine = tangent * cosine;
    for (int64_t i = 0; i < k; i++) {
        double a = matrix[i * k + p], b = matrix[i * k + q];
        matrix[i * k + p] = cosine * a - sine * b;
        matrix[i * k + q] = sine * a + cosine * b;
    }
    for (int64_t i = 0; i < k; i++) {
        double a = matrix[p * k + i], b = matrix[q * k + i];
        matrix[p * k + i] = cosine * a - sine * b;
        matrix[q * k + i] = sine * a + cosine * b;
        a = vectors[p * k + i], b = vectors[q * k + i];
        vectors[p * k + i] = cosine * a - sine * b;
        vectors[q * k + i] = sine * a + cosine * b;
    }
    matrix[p * k + q] = matrix[q * k + p] = 0;
}

void reference_eigh(const struct node *node, const double *const *inputs, double *out) {
    enum { LARGEST = 128, SWEEPS = 30 };
    static _Thread_local double matrix[LARGEST * LARGEST], vectors[LARGEST * LARGEST];
    int64_t k = node->shape.size[1];
    for (int64_t i = 0; i < k; i++)
        for (int64_t j = 0; j < k; j++) {
            matrix[i * k + j] = (inputs[0][i * k + j] + inputs[0][j * k + i]) / 2;
            vectors[i * k + j] = i == j;
        }
    for (int sweep = 0; sweep < SWEEPS; sweep++)
        for (int64_t p = 0; p < k; p++)
            for (int64_t q = p + 1; q < k; q++) jacobi_rotate(matrix, vectors, k, p, q);
    bool taken[LARGEST] = {false};
    for (int64_t rank = 0; rank < k; rank++) {
        int64_t best = 0;
        while (taken[best]) best++;
        for (int64_t i = best + 1; i < k; i++)
            if (!taken[i] && fabs(matrix[i * k + i]) > fabs(matrix[best * k + best])) best = i;
        taken[best] = true;
        out[rank] = matrix[best * k + best];
        memcpy(out + (rank + 1) * k, vectors + best * k, (size_t)k * sizeof *out);
    }
}
