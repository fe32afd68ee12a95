/* Matrix product and the convolution triad, GPU family: one tiled product, out(m, n) = sum over k of A(m, k) B(k, n),
 * with four ways of reading its operands. NAME(out, first, second), but for joined convolutions:
 *
 *     MATMUL           c [BATCH,M,N],             a [BATCH,M,K] or transposed, b [BATCH,K,N] or transposed
 *     FORWARD          y [images,M,OUT_H,OUT_W],  x [images,K,IN_H,IN_W],      packed weights [TAPS][K up][M up]
 *     BACKWARD_DATA    x [images,M,IN_H,IN_W],    y [images,K,OUT_H,OUT_W],    packed weights [TAPS][K up][M up]
 *     BACKWARD_WEIGHT  weights [M,CHANNELS,TAPS], x [images,CHANNELS,IN_H,IN_W], y [images,M,OUT_H,OUT_W]
 *
 * One of the four is 1. "Up" is rounded up to whole tiles and stripes, zeros filling the rest (pack_gpu.cl). Of a
 * convolution forward or to the data, A holds weights, a column n is a pixel of an image of the result, and the sum
 * runs over (tap, channel), the tap outermost: a column is taken apart into image, row and column once, and its place
 * in the other images tested once a tap. Of a backward-weight, A is y, k counts pixels (image, row, column), and n
 * (tap, channel) in TILES_N tiles for each of SHEETS taps, or for all taps together where SHEETS is 1.
 *
 * Convolutions of the same sizes are joined: NAME(OUTPUTS results, INPUTS first operands, WEIGHTS second ones), or, of
 * a backward-weight, NAME(out, x, y, other x, other y). Result r is the sum of TERMS_r convolutions, 1 or 2, one after
 * the other along k. Bits 2 r + t of A_TERMS and B_TERMS tell which operands the t-th of them takes.
 *
 * A group of ITEMS work-items computes a tile of TILE_M rows and TILE_N columns, each item WORK_M x WORK_N of them.
 * Stripes of DEPTH along k pass through local memory: an item asks for its numbers of the next stripe, works on the
 * present one, and then writes what has arrived. Where LOCAL_A or LOCAL_B is 0, items read that operand for themselves.
 * Addresses are clamped and what lies outside is replaced by zero, so that no read has a condition.
 *
 * Sums are cut into parts of STRIPES_A_PART stripes for groups of their own, that of the first result into PARTS_0;
 * sum_parts_gpu.cl adds what they leave, one part after another. Every sum runs over k upwards whatever the tile. Global (columns, rows, parts of
 * all results or layers). Offsets of packed weights must be multiples of 4. */
#define ITEMS ((TILE_M / WORK_M) * (TILE_N / WORK_N))
#define COLUMNS (TILE_N / WORK_N)
#define OUT_PIXELS (OUT_H * OUT_W)
#define IN_PIXELS (IN_H * IN_W)
#define PACKED (FORWARD || BACKWARD_DATA)
#define STRIPES_A_TAP ((K + DEPTH - 1) / DEPTH)
#if PACKED
#define STRIPES (STRIPES_A_TAP * TAPS)
#else
#define STRIPES STRIPES_A_TAP
#endif
/* Rows of a local tile are four numbers longer than needed, so that writing them transposed hits several banks. */
#define PITCH_A (TILE_M + 4)
#define PITCH_B (TILE_N + 4)
#define PITCH_PACKED ((M + TILE_M - 1) / TILE_M * TILE_M)
/* Sums are in registers only where the functions that take them are inlined, however large the kernel is. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))
/* An item alone in its group runs on a processor, whose compiler takes long for what is unrolled. */
#if ITEMS == 1
#define STEPS ROLL
#else
#define STEPS UNROLL
#endif
/* How the numbers of a stripe are dealt to items: neighbouring items take neighbours in memory. A stripe of rows of
 * `width` numbers; the i-th number of an item is in row OUTER, column INNER. Widths are powers of two. */
#define OUTER(i, width) (ITEMS >= (width) ? item / (width) + (i) * (ITEMS / (width)) : (i) * ITEMS / (width))
#define INNER(i, width) (ITEMS >= (width) ? item % (width) : item + (i) * ITEMS % (width))
/* BRINGS: how many numbers of a stripe an item brings in. ROW: which k the i-th has, COLUMN: which m or n in the tile. */
#if !LOCAL_A
#define BRINGS_A (DEPTH * WORK_M)
#define ROW_A(i) ((i) / WORK_M)
#define COLUMN_A(i) (item / COLUMNS * WORK_M + (i) % WORK_M)
#else
#define BRINGS_A (DEPTH * TILE_M / ITEMS)
#if PACKED
#define ROW_A(i) OUTER((i) / 4, TILE_M / 4)
#define COLUMN_A(i) (INNER((i) / 4, TILE_M / 4) * 4 + (i) % 4)
#else
#define ROW_A(i) (A_ALONG_K ? INNER(i, DEPTH) : OUTER(i, TILE_M))
#define COLUMN_A(i) (A_ALONG_K ? OUTER(i, DEPTH) : INNER(i, TILE_M))
#endif
#endif
#if !LOCAL_B
#define BRINGS_B (DEPTH * WORK_N)
#define ROW_B(i) ((i) / WORK_N)
#define COLUMN_B(i) (item % COLUMNS + (i) % WORK_N * COLUMNS)
#else
#define BRINGS_B (DEPTH * TILE_N / ITEMS)
#define ROW_B(i) (B_ALONG_K ? INNER(i, DEPTH) : OUTER(i, TILE_N))
#define COLUMN_B(i) (B_ALONG_K ? OUTER(i, DEPTH) : INNER(i, TILE_N))
#endif
/* How many different columns those numbers of B have: the i-th has the (i % KEPT)-th. */
#if BACKWARD_WEIGHT
#define KEPT BRINGS_B
#elif !LOCAL_B
#define KEPT WORK_N
#else
#define KEPT (TILE_N > ITEMS ? TILE_N / ITEMS : 1)
#endif
/* The j-th column of an item's sums: fours side by side where local memory gives them in one read. */
#define FOURS (LOCAL_B && WORK_N % 4 == 0)
#define SUM_COLUMN(j) \
    (FOURS ? item % COLUMNS * 4 + (j) / 4 * (4 * COLUMNS) + (j) % 4 : item % COLUMNS + (j) * COLUMNS)
/* Reading past the end of the sum: the last number there is, in whose place zero is taken. */
#define NEAR(k) (K % DEPTH == 0 ? (k) : min((k), K - 1))
#define WITHIN_SUM(k, value) (K % DEPTH == 0 || (k) < K ? (value) : 0)
/* Reading past the last row or column: the last one, whose sums are not stored. */
#define NEAR_M(m) (M % TILE_M == 0 ? (m) : min((m), M - 1))
#define NEAR_N(n) (N % TILE_N == 0 ? (n) : min((n), N - 1))
/* Where the operands of a stripe begin. The layers of Winograd's products are terms too, of LAYERS each: bit t of A_TERMS
 * tells whether the t-th takes the first or the second LAYERS of A. Of a convolution A is the second operand. */
#define LAYER(terms) ((ulong)((terms) >> layer / LAYERS & 1) * LAYERS + layer % LAYERS)
#define TAKES_SECOND(terms, stripe) ((terms) >> (2 * number + ((stripe) >= STRIPES)) & 1)
#if MATMUL
#define A_OF(stripe) (first0 + first0_offset + LAYER(A_TERMS) * (M * K))
#define B_OF(stripe) (second0 + second0_offset + LAYER(B_TERMS) * (K * N))
#define IN_TERM(stripe) (stripe)
#else
#if WEIGHTS > 1
#define A_OF(stripe) (TAKES_SECOND(A_TERMS, stripe) ? second1 + second1_offset : second0 + second0_offset)
#else
#define A_OF(stripe) (second0 + second0_offset)
#endif
#if INPUTS > 1
#define B_OF(stripe) (TAKES_SECOND(B_TERMS, stripe) ? first1 + first1_offset : first0 + first0_offset)
#else
#define B_OF(stripe) (first0 + first0_offset)
#endif
#define IN_TERM(stripe) (TERMS_0 + TERMS_1 > OUTPUTS && (stripe) >= STRIPES ? (stripe) - STRIPES : (stripe))
#endif
/* Functions of this kernel. */
#define OWN_(name, function) name##_##function
#define OWN_NAME(name, function) OWN_(name, function)
#define OWN(function) OWN_NAME(NAME, function)

/* Where each column that an item reads begins, in the images it is gathered from: (offset, row, column); for a
 * backward-weight the channel's offset and the tap's shift. */
ALWAYS_INLINE void OWN(find)(int4 *place, int item, int n0, int sheet) {
    UNROLL for (int i = 0; i < KEPT; i++) {
        const uint n = NEAR_N(n0 + COLUMN_B(i));
#if FORWARD
        const uint pixel = n % OUT_PIXELS, image = n / OUT_PIXELS * (K * IN_PIXELS);
        place[i] = (int4)(image, pixel / OUT_W * STRIDE - PADDING, pixel % OUT_W * STRIDE - PADDING, 0);
#elif BACKWARD_DATA
        const uint pixel = n % IN_PIXELS, image = n / IN_PIXELS * (K * OUT_PIXELS);
        place[i] = (int4)(image, pixel / IN_W + PADDING, pixel % IN_W + PADDING, 0);
#elif BACKWARD_WEIGHT
        const uint tap = SHEETS > 1 ? sheet : n / CHANNELS, channel = SHEETS > 1 ? n : n % CHANNELS;
        place[i] = (int4)(channel * IN_PIXELS, (int)(tap / KERNEL_W) - PADDING, (int)(tap % KERNEL_W) - PADDING, 0);
#endif
    }
}

ALWAYS_INLINE void OWN(bring_a)(float *a, int item, global const float *from, int stripe, int m0) {
#if PACKED
    UNROLL for (int i = 0; i < BRINGS_A; i += 4) {
        const float4 v = *(global const float4 *)(from + (stripe * DEPTH + ROW_A(i)) * PITCH_PACKED + m0 + COLUMN_A(i));
        a[i] = v.x, a[i + 1] = v.y, a[i + 2] = v.z, a[i + 3] = v.w;
    }
#else
    UNROLL for (int i = 0; i < BRINGS_A; i++) {
        const int m = NEAR_M(m0 + COLUMN_A(i)), k = stripe * DEPTH + ROW_A(i);
        const uint near = NEAR(k);
#if BACKWARD_WEIGHT
        const float v = from[near / OUT_PIXELS * (M * OUT_PIXELS) + near % OUT_PIXELS + m * OUT_PIXELS];
#else
        const float v = from[A_ALONG_K ? m * K + near : near * M + m];
#endif
        a[i] = WITHIN_SUM(k, v);
    }
#endif
}

#if PACKED
ALWAYS_INLINE void OWN(bring_b)(float *b, int item, global const float *from, int stripe, int n0,
                                const int4 *place) {
    const int tap = stripe / STRIPES_A_TAP, k0 = stripe % STRIPES_A_TAP * DEPTH;
    uint begin[KEPT];
    bool inside[KEPT];
    UNROLL for (int i = 0; i < KEPT; i++) {
#if FORWARD
        const int y = place[i].y + tap / KERNEL_W, x = place[i].z + tap % KERNEL_W;
        inside[i] = (uint)y < IN_H && (uint)x < IN_W;
        begin[i] = place[i].x + (inside[i] ? y * IN_W + x : 0);
#else
        const int below = place[i].y - tap / KERNEL_W, right = place[i].z - tap % KERNEL_W;
        inside[i] = (uint)below < OUT_H * STRIDE && (uint)right < OUT_W * STRIDE && (uint)below % STRIDE == 0
                    && (uint)right % STRIDE == 0;
        begin[i] = place[i].x + (inside[i] ? (uint)below / STRIDE * OUT_W + (uint)right / STRIDE : 0);
#endif
    }
    UNROLL for (int i = 0; i < BRINGS_B; i++) {
        const int k = k0 + ROW_B(i);
        const float v = from[begin[i % KEPT] + NEAR(k) * (FORWARD ? IN_PIXELS : OUT_PIXELS)];
        b[i] = inside[i % KEPT] ? WITHIN_SUM(k, v) : 0;
    }
}
#else
ALWAYS_INLINE void OWN(bring_b)(float *b, int item, global const float *from, int stripe, int n0,
                                const int4 *place) {
    UNROLL for (int i = 0; i < BRINGS_B; i++) {
        const int k = stripe * DEPTH + ROW_B(i);
        const uint near = NEAR(k);
#if BACKWARD_WEIGHT
        const uint pixel = near % OUT_PIXELS;
        const int y = (int)(pixel / OUT_W * STRIDE) + place[i].y, x = (int)(pixel % OUT_W * STRIDE) + place[i].z;
        const bool inside = (uint)y < IN_H && (uint)x < IN_W;
        const float v = from[near / OUT_PIXELS * (CHANNELS * IN_PIXELS) + place[i].x + (inside ? y * IN_W + x : 0)];
        b[i] = inside ? WITHIN_SUM(k, v) : 0;
#else
        const uint n = NEAR_N(n0 + COLUMN_B(i));
        const float v = from[B_ALONG_K ? n * K + near : near * N + n];
        b[i] = WITHIN_SUM(k, v);
#endif
    }
}
#endif

/* Writes what was brought to the local tiles. */
ALWAYS_INLINE void OWN(put)(local float *tile_a, local float *tile_b, int item, const float *a, const float *b) {
#if LOCAL_A && PACKED
    UNROLL for (int i = 0; i < BRINGS_A; i += 4)
        *(local float4 *)(tile_a + ROW_A(i) * PITCH_A + COLUMN_A(i)) = (float4)(a[i], a[i + 1], a[i + 2], a[i + 3]);
#elif LOCAL_A
    UNROLL for (int i = 0; i < BRINGS_A; i++) tile_a[ROW_A(i) * PITCH_A + COLUMN_A(i)] = a[i];
#endif
#if LOCAL_B
    UNROLL for (int i = 0; i < BRINGS_B; i++) tile_b[ROW_B(i) * PITCH_B + COLUMN_B(i)] = b[i];
#endif
}

/* Adds a stripe's products to an item's sums: operands from the local tiles, or from what the item brought itself. */
ALWAYS_INLINE void OWN(multiply)(float sum[WORK_M][WORK_N], local const float *tile_a, local const float *tile_b,
                                 int item, const float *own_a, const float *own_b) {
    STEPS for (int k = 0; k < DEPTH; k++) {
        float a[WORK_M], b[WORK_N];
#if !LOCAL_A
        UNROLL for (int i = 0; i < WORK_M; i++) a[i] = own_a[k * WORK_M + i];
#elif WORK_M % 4 == 0
        UNROLL for (int i = 0; i < WORK_M; i += 4) {
            const float4 v = *(local const float4 *)(tile_a + k * PITCH_A + item / COLUMNS * WORK_M + i);
            a[i] = v.x, a[i + 1] = v.y, a[i + 2] = v.z, a[i + 3] = v.w;
        }
#else
        UNROLL for (int i = 0; i < WORK_M; i++) a[i] = tile_a[k * PITCH_A + item / COLUMNS * WORK_M + i];
#endif
#if !LOCAL_B
        UNROLL for (int j = 0; j < WORK_N; j++) b[j] = own_b[k * WORK_N + j];
#elif FOURS
        UNROLL for (int j = 0; j < WORK_N; j += 4) {
            const float4 v = *(local const float4 *)(tile_b + k * PITCH_B + SUM_COLUMN(j));
            b[j] = v.x, b[j + 1] = v.y, b[j + 2] = v.z, b[j + 3] = v.w;
        }
#else
        UNROLL for (int j = 0; j < WORK_N; j++) b[j] = tile_b[k * PITCH_B + SUM_COLUMN(j)];
#endif
        UNROLL for (int i = 0; i < WORK_M; i++)
            UNROLL for (int j = 0; j < WORK_N; j++) sum[i][j] = FMA(a[i], b[j], sum[i][j]);
    }
}

/* Where row m, column n of a result stands. A backward-weight in parts is written tap by tap, side by side. */
ALWAYS_INLINE int OWN(position)(int m, int n, int sheet) {
#if MATMUL
    return m * N + n;
#elif BACKWARD_WEIGHT
    const int tap = SHEETS > 1 ? sheet : n / CHANNELS, channel = SHEETS > 1 ? n : n % CHANNELS;
    return PARTS_0 > 1 ? (tap * M + m) * CHANNELS + channel : (m * CHANNELS + channel) * TAPS + tap;
#else
    return ((uint)n / PLANE * M + m) * PLANE + (uint)n % PLANE;
#endif
}

ALWAYS_INLINE void OWN(store)(float sum[WORK_M][WORK_N], global float *out, int item, int m0, int n0, int sheet) {
    UNROLL for (int i = 0; i < WORK_M; i++) {
        const int m = m0 + item / COLUMNS * WORK_M + i;
#if FOURS && ROW_LENGTH % 4 == 0
        UNROLL for (int j = 0; j < WORK_N; j += 4) {
            const int n = n0 + SUM_COLUMN(j);
            if (m < M && n < N)
                vstore4((float4)(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]), 0,
                        out + OWN(position)(m, n, sheet));
        }
#else
        UNROLL for (int j = 0; j < WORK_N; j++) {
            const int n = n0 + SUM_COLUMN(j);
            if (m < M && n < N) out[OWN(position)(m, n, sheet)] = sum[i][j];
        }
#endif
    }
}

#define OPERAND(name) global const float *restrict name, ulong name##_offset
#ifdef SUB_GROUP
__attribute__((intel_reqd_sub_group_size(SUB_GROUP)))
#endif
__attribute__((reqd_work_group_size(ITEMS, 1, 1))) kernel void NAME(global float *restrict out0, ulong out0_offset
#if OUTPUTS > 1
                                                                    , global float *restrict out1, ulong out1_offset
#endif
                                                                    , OPERAND(first0)
#if INPUTS > 1 && !BACKWARD_WEIGHT
                                                                    , OPERAND(first1)
#endif
                                                                    , OPERAND(second0)
#if INPUTS > 1 && BACKWARD_WEIGHT
                                                                    , OPERAND(first1)
#endif
#if WEIGHTS > 1
                                                                    , OPERAND(second1)
#endif
                                                                    ) {
    local float tile_a[LOCAL_A ? DEPTH * PITCH_A : 4] __attribute__((aligned(16)));
    local float tile_b[LOCAL_B ? DEPTH * PITCH_B : 4] __attribute__((aligned(16)));
    const int item = get_local_id(0), m0 = get_group_id(1) * TILE_M;
    const int sheet = get_group_id(0) / TILES_N, n0 = get_group_id(0) % TILES_N * TILE_N;
    /* Which result, which part of it, and which layer of that. */
    const int number = OUTPUTS > 1 && get_group_id(2) >= PARTS_0, place_in_result = get_group_id(2) - number * PARTS_0;
    const int layer = place_in_result % BATCH, begin = place_in_result / BATCH * STRIPES_A_PART;
    const int end = min(begin + STRIPES_A_PART, STRIPES * (number ? TERMS_1 : TERMS_0));
    global float *out = out0 + out0_offset;
#if OUTPUTS > 1
    if (number) out = out1 + out1_offset;
#endif
    float sum[WORK_M][WORK_N], a[BRINGS_A], b[BRINGS_B];
    int4 place[KEPT];
    UNROLL for (int i = 0; i < WORK_M; i++)
        UNROLL for (int j = 0; j < WORK_N; j++) sum[i][j] = 0;
    OWN(find)(place, item, n0, sheet);
    for (int stripe = begin - AHEAD; stripe < end; stripe++) {
        /* Past the last stripe the last one is read once more: cheaper than a condition. */
        const int next = min(stripe + AHEAD, end - 1);
        const int of_a = LOCAL_A ? next : max(stripe, begin), of_b = LOCAL_B ? next : max(stripe, begin);
        OWN(bring_a)(a, item, A_OF(of_a), IN_TERM(of_a), m0);
        OWN(bring_b)(b, item, B_OF(of_b), IN_TERM(of_b), n0, place);
        if (AHEAD && stripe >= begin) OWN(multiply)(sum, tile_a, tile_b, item, a, b);
#if LOCAL_A || LOCAL_B
        barrier(CLK_LOCAL_MEM_FENCE);
        OWN(put)(tile_a, tile_b, item, a, b);
        barrier(CLK_LOCAL_MEM_FENCE);
#endif
        if (!AHEAD) OWN(multiply)(sum, tile_a, tile_b, item, a, b);
    }
    OWN(store)(sum, out + (ulong)place_in_result * RESULT, item, m0, n0, sheet);
}
#undef ITEMS
#undef COLUMNS
#undef TAPS
#undef OUT_PIXELS
#undef IN_PIXELS
#undef PACKED
#undef STEPS
#undef ALWAYS_INLINE
#undef STRIPES_A_TAP
#undef STRIPES
#undef PITCH_A
#undef PITCH_B
#undef PITCH_PACKED
#undef OUTER
#undef INNER
#undef BRINGS_A
#undef ROW_A
#undef COLUMN_A
#undef BRINGS_B
#undef ROW_B
#undef COLUMN_B
#undef KEPT
#undef FOURS
#undef SUM_COLUMN
#undef NEAR
#undef WITHIN_SUM
#undef NEAR_M
#undef NEAR_N
#undef OWN_
#undef OWN_NAME
#undef OWN
#undef NAME
#undef MATMUL
#undef FORWARD
#undef BACKWARD_DATA
#undef BACKWARD_WEIGHT
#undef M
#undef N
#undef K
#undef BATCH
#undef LAYER
#undef LAYERS
#undef OUTPUTS
#undef INPUTS
#undef WEIGHTS
#undef TERMS_0
#undef TERMS_1
#undef A_TERMS
#undef B_TERMS
#undef TAKES_SECOND
#undef A_OF
#undef B_OF
#undef IN_TERM
#undef OPERAND
#undef PARTS_0
#undef STRIPES_A_PART
#undef RESULT
#undef SHEETS
#undef TILES_N
#undef ROW_LENGTH
#undef PLANE
#undef A_ALONG_K
#undef B_ALONG_K
#undef TILE_M
#undef TILE_N
#undef WORK_M
#undef WORK_N
#undef DEPTH
#undef LOCAL_A
#undef LOCAL_B
#undef AHEAD
#undef SUB_GROUP
#undef CHANNELS
#undef IN_H
#undef IN_W
#undef OUT_H
#undef OUT_W
#undef KERNEL_H
#undef KERNEL_W
#undef STRIDE
#undef PADDING
