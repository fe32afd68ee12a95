/* Matrix product, CPU family.
 *
 *     NAME(c, a, b)
 *
 * Element (m, k) of matrix i of a stands at (i * M * K) + m * A_ROW + k * A_COLUMN, element (m, n) of c at (i * M * N)
 * + m * C_ROW + n * C_COLUMN. With SWAPPED the operands' arguments change places. With PACKED, b is what
 * matmul_pack_cpu.cl makes of it: [batch][panels of TILE_BLOCKS * V columns][K][TILE_BLOCKS * V], zeros past N; else it
 * is [batch,K,N], and N >= V. A work-item computes BAND rows of a panel: global (bands, panels, batch). A tile of
 * TILE_ROWS x TILE_BLOCKS vectors stays in registers for SPAN steps along K and is then added to its totals, which
 * keeps the error of long sums small. */
#define PANEL (TILE_BLOCKS * V)
#define B_ROW (PACKED ? PANEL : N)
#define PANELS ((N + PANEL - 1) / PANEL)

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict c, ulong c_offset,
#if SWAPPED
                                                                global const float *restrict b, ulong b_offset,
                                                                global const float *restrict a, ulong a_offset) {
#else
                                                                global const float *restrict a, ulong a_offset,
                                                                global const float *restrict b, ulong b_offset) {
#endif
    const int band = get_global_id(0), panel = get_global_id(1);
    const ulong matrix = get_global_id(2);
    a += a_offset + matrix * (M * K);
    c += c_offset + matrix * (M * N);
    /* Where each vector's columns begin, and where it is read from. The last columns of an unpacked row may fill only a
     * part of a vector: it is then read from further back, so that it stays inside the row, and only its own columns
     * are stored. */
    global const float *right[TILE_BLOCKS];
    int begin[TILE_BLOCKS];
    UNROLL for (int i = 0; i < TILE_BLOCKS; i++) {
        const int column = panel * PANEL + i * V;
#if PACKED
        begin[i] = column;
        right[i] = b + b_offset + (matrix * PANELS + panel) * (K * PANEL) + i * V;
#else
        begin[i] = min(column, N - V);
        right[i] = b + b_offset + matrix * (K * N) + begin[i];
#endif
    }

    for (int row = band * BAND; row < min((band + 1) * BAND, M); row += TILE_ROWS) {
        floatv total[TILE_ROWS][TILE_BLOCKS];
        UNROLL for (int r = 0; r < TILE_ROWS; r++)
            UNROLL for (int i = 0; i < TILE_BLOCKS; i++) total[r][i] = 0;
        /* A tile that reaches past the last row reads the last row again; those sums are not stored. */
        global const float *from[TILE_ROWS];
        UNROLL for (int r = 0; r < TILE_ROWS; r++) from[r] = a + min(row + r, M - 1) * A_ROW;
        for (int span = 0; span < K; span += SPAN) {
            floatv sum[TILE_ROWS][TILE_BLOCKS];
            UNROLL for (int r = 0; r < TILE_ROWS; r++)
                UNROLL for (int i = 0; i < TILE_BLOCKS; i++) sum[r][i] = 0;
            for (int k = span; k < min(span + SPAN, K); k++) {
                floatv vector[TILE_BLOCKS];
                UNROLL for (int i = 0; i < TILE_BLOCKS; i++) vector[i] = LOADV(right[i] + k * B_ROW);
                UNROLL for (int r = 0; r < TILE_ROWS; r++) {
                    const float value = from[r][k * A_COLUMN];
                    UNROLL for (int i = 0; i < TILE_BLOCKS; i++) sum[r][i] = FMA((floatv)value, vector[i], sum[r][i]);
                }
            }
            UNROLL for (int r = 0; r < TILE_ROWS; r++)
                UNROLL for (int i = 0; i < TILE_BLOCKS; i++) total[r][i] += sum[r][i];
        }
        UNROLL for (int r = 0; r < TILE_ROWS; r++)
            UNROLL for (int i = 0; i < TILE_BLOCKS; i++) {
                const int first = panel * PANEL + i * V, last = min(first + V, N);
                global float *to = c + (row + r) * C_ROW;
                if (row + r >= M) continue;
                if (C_COLUMN == 1 && first + V <= N)
                    STOREV(total[r][i], to + first);
                else
                    for (int column = first; column < last; column++)
                        to[column * C_COLUMN] = ((const float *)&total[r][i])[column - begin[i]];
            }
    }
}

#undef PANEL
#undef PANELS
#undef B_ROW
#undef NAME
#undef M
#undef N
#undef K
#undef A_ROW
#undef A_COLUMN
#undef C_ROW
#undef C_COLUMN
#undef TILE_ROWS
#undef TILE_BLOCKS
#undef SPAN
#undef PACKED
#undef SWAPPED
#undef BAND
