/* Matrix product and the convolution triad, GPU family: one tiled product, out(m, n) = sum over k of A(m, k) B(k, n),
 * with four ways of reading its operands. NAME(out, first, second):
 *
 *     MATMUL           c [batch,M,N],                a [batch,M,K] or transposed,  b [batch,K,N] or transposed
 *     FORWARD          y [N,OUTPUTS,OUT_H,OUT_W],    x [N,CHANNELS,IN_H,IN_W],     weights [OUTPUTS,CHANNELS,TAPS]
 *     BACKWARD_DATA    x,                            y,                            weights
 *     BACKWARD_WEIGHT  weights, or [parts][weights], x,                            y
 *
 * One of the four is 1. In a convolution A holds weights and k counts (channel, tap) of each pixel n = (image, row,
 * column); in BACKWARD_WEIGHT A is y, k counts pixels and n (channel, tap). The sum over pixels is long and the result
 * small: parts of K_PER_PART pixels then go to work-groups of their own, and sum_parts_gpu.cl adds the partial results.
 *
 * A group of SIDE x SIDE work-items computes a tile of SIDE * WORK_M rows and SIDE * WORK_N columns, each work-item
 * every SIDE-th of both: global (columns, rows, batch or parts). Every sum runs over k upwards whatever the tile, so the
 * tile is free to choose. Stripes of DEPTH along k pass through local memory, one column wider than needed, so that
 * writing them transposed does not hit one bank. */
#define DEPTH 16
#define TILE_M (SIDE * WORK_M)
#define TILE_N (SIDE * WORK_N)
#define TAPS (KERNEL_H * KERNEL_W)
#define OUT_PIXELS (OUT_H * OUT_W)
#define IN_PIXELS (IN_H * IN_W)

__attribute__((reqd_work_group_size(SIDE, SIDE, 1))) kernel void NAME(global float *restrict out, ulong out_offset,
                                                                      global const float *restrict first,
                                                                      ulong first_offset,
                                                                      global const float *restrict second,
                                                                      ulong second_offset) {
    local float tile_a[DEPTH][TILE_M + 1], tile_b[DEPTH][TILE_N + 1];
    const int column = get_local_id(0), row = get_local_id(1), item = row * SIDE + column;
    const int n0 = get_group_id(0) * TILE_N, m0 = get_group_id(1) * TILE_M, z = get_group_id(2);
    first += first_offset;
    second += second_offset;
    out += out_offset;
    int k_begin = 0, k_end = K;
#if MATMUL
    first += (ulong)z * M * K;
    second += (ulong)z * K * N;
    out += (ulong)z * M * N;
#elif BACKWARD_WEIGHT
    k_begin = z * K_PER_PART;
    k_end = min(k_begin + K_PER_PART, K);
    out += (ulong)z * M * N;
#endif
    float sum[WORK_M][WORK_N];
    UNROLL for (int i = 0; i < WORK_M; i++)
        UNROLL for (int j = 0; j < WORK_N; j++) sum[i][j] = 0;

    for (int k0 = k_begin; k0 < k_end; k0 += DEPTH) {
        for (int i = item; i < DEPTH * TILE_M; i += SIDE * SIDE) {
            /* Neighbouring work-items read neighbouring elements: along k, or along m where A lies transposed. */
            const int tile_k = A_ALONG_M ? i / TILE_M : i % DEPTH, tile_m = A_ALONG_M ? i % TILE_M : i / DEPTH;
            const int k = k0 + tile_k, m = m0 + tile_m;
            float value = 0;
            if (k < k_end && m < M) {
#if MATMUL
                value = first[A_ALONG_M ? k * M + m : m * K + k];
#elif FORWARD
                value = second[m * K + k];
#elif BACKWARD_DATA
                value = second[(k / TAPS * CHANNELS + m) * TAPS + k % TAPS];
#elif BACKWARD_WEIGHT
                value = second[(k / OUT_PIXELS * OUTPUTS + m) * OUT_PIXELS + k % OUT_PIXELS];
#endif
            }
            tile_a[tile_k][tile_m] = value;
        }
        for (int i = item; i < DEPTH * TILE_N; i += SIDE * SIDE) {
            const int tile_k = B_ALONG_K ? i % DEPTH : i / TILE_N, tile_n = B_ALONG_K ? i / DEPTH : i % TILE_N;
            const int k = k0 + tile_k, n = n0 + tile_n;
            float value = 0;
            if (k < k_end && n < N) {
#if MATMUL
                value = second[B_ALONG_K ? n * K + k : k * N + n];
#elif BACKWARD_DATA
                const int pixel = n % IN_PIXELS, tap = k % TAPS;
                const int below = pixel / IN_W + PADDING - tap / KERNEL_W;
                const int right = pixel % IN_W + PADDING - tap % KERNEL_W;
                const int y = below / STRIDE, x = right / STRIDE;
                if (below >= 0 && right >= 0 && below % STRIDE == 0 && right % STRIDE == 0 && y < OUT_H && x < OUT_W)
                    value = first[((n / IN_PIXELS * OUTPUTS + k / TAPS) * OUT_H + y) * OUT_W + x];
#else
#if FORWARD
                const int pixels = n, taps = k;
#else
                const int pixels = k, taps = n;
#endif
                const int pixel = pixels % OUT_PIXELS, tap = taps % TAPS;
                const int y = pixel / OUT_W * STRIDE - PADDING + tap / KERNEL_W;
                const int x = pixel % OUT_W * STRIDE - PADDING + tap % KERNEL_W;
                if (y >= 0 && y < IN_H && x >= 0 && x < IN_W)
                    value = first[((pixels / OUT_PIXELS * CHANNELS + taps / TAPS) * IN_H + y) * IN_W + x];
#endif
            }
            tile_b[tile_k][tile_n] = value;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
        for (int k = 0; k < DEPTH; k++) {
            float a[WORK_M], b[WORK_N];
            UNROLL for (int i = 0; i < WORK_M; i++) a[i] = tile_a[k][row + i * SIDE];
            UNROLL for (int j = 0; j < WORK_N; j++) b[j] = tile_b[k][column + j * SIDE];
            UNROLL for (int i = 0; i < WORK_M; i++)
                UNROLL for (int j = 0; j < WORK_N; j++) sum[i][j] = FMA(a[i], b[j], sum[i][j]);
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

    /* Row m of the result is a matrix's row, or plane m of an image tensor whose images stand M planes apart. */
    UNROLL for (int i = 0; i < WORK_M; i++)
        UNROLL for (int j = 0; j < WORK_N; j++) {
            const int m = m0 + row + i * SIDE, n = n0 + column + j * SIDE;
            if (m < M && n < N) out[(n / PLANE * M + m) * PLANE + n % PLANE] = sum[i][j];
        }
}
#undef DEPTH
#undef TILE_M
#undef TILE_N
#undef TAPS
#undef OUT_PIXELS
#undef IN_PIXELS
#undef NAME
#undef MATMUL
#undef FORWARD
#undef BACKWARD_DATA
#undef BACKWARD_WEIGHT
#undef M
#undef N
#undef K
#undef K_PER_PART
#undef PLANE
#undef A_ALONG_M
#undef B_ALONG_K
#undef SIDE
#undef WORK_M
#undef WORK_N
#undef CHANNELS
#undef OUTPUTS
#undef IN_H
#undef IN_W
#undef OUT_H
#undef OUT_W
#undef KERNEL_H
#undef KERNEL_W
#undef STRIDE
#undef PADDING
