/* Matrix product of rows with rows, CPU family: c = a b^T where both lie with K along memory and c has few columns.
 *
 *     NAME(c [batch,M,N], a [batch,M,K], b [batch,N,K])
 *
 * Vectors run along K, so that no lanes idle where N is small; their lanes are added at the end, and every SPAN steps
 * (a multiple of V) the sums are added to their totals, which keeps the error of long sums small. Rows and columns past
 * the last are read as the last, and not stored. A work-item computes BAND rows: global (bands, batch, 1). */
#define SUM(r, i) ((r) * TILE_COLUMNS + (i))
#define SUMS ((TILE_ROWS * TILE_COLUMNS + V - 1) / V * V)
#define TAIL (K % V)

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict c, ulong c_offset,
                                                                global const float *restrict a, ulong a_offset,
                                                                global const float *restrict b, ulong b_offset) {
    const int band = get_global_id(0);
    const ulong matrix = get_global_id(1);
    a += a_offset + matrix * (M * K);
    b += b_offset + matrix * (N * K);
    c += c_offset + matrix * (M * N);

    for (int row = band * BAND; row < min((band + 1) * BAND, M); row += TILE_ROWS)
        for (int column = 0; column < N; column += TILE_COLUMNS) {
            global const float *left[TILE_ROWS], *right[TILE_COLUMNS];
            UNROLL for (int r = 0; r < TILE_ROWS; r++) left[r] = a + min(row + r, M - 1) * K;
            UNROLL for (int i = 0; i < TILE_COLUMNS; i++) right[i] = b + min(column + i, N - 1) * K;
            floatv total[SUMS];
            UNROLL for (int s = 0; s < SUMS; s++) total[s] = 0;
            for (int span = 0; span < K - TAIL; span += SPAN) {
                floatv sum[TILE_ROWS * TILE_COLUMNS];
                UNROLL for (int s = 0; s < TILE_ROWS * TILE_COLUMNS; s++) sum[s] = 0;
                for (int k = span; k < min(span + SPAN, K - TAIL); k += V) {
                    floatv vector[TILE_COLUMNS];
                    UNROLL for (int i = 0; i < TILE_COLUMNS; i++) vector[i] = LOADV(right[i] + k);
                    UNROLL for (int r = 0; r < TILE_ROWS; r++) {
                        const floatv value = LOADV(left[r] + k);
                        UNROLL for (int i = 0; i < TILE_COLUMNS; i++)
                            sum[SUM(r, i)] = FMA(value, vector[i], sum[SUM(r, i)]);
                    }
                }
                UNROLL for (int s = 0; s < TILE_ROWS * TILE_COLUMNS; s++) total[s] += sum[s];
            }
            float product[SUMS];
            UNROLL for (int s = 0; s < SUMS; s += V) STOREV(LANE_SUMS(total + s), product + s);
            for (int r = 0; r < min(TILE_ROWS, M - row); r++)
                for (int i = 0; i < min(TILE_COLUMNS, N - column); i++) {
                    float value = product[SUM(r, i)];
                    for (int k = K - TAIL; k < K; k++)
                        value = FMA(a[(row + r) * K + k], b[(column + i) * K + k], value);
                    c[(row + r) * N + column + i] = value;
                }
        }
}

#undef SUM
#undef SUMS
#undef TAIL
#undef NAME
#undef M
#undef N
#undef K
#undef TILE_ROWS
#undef TILE_COLUMNS
#undef SPAN
#undef BAND
