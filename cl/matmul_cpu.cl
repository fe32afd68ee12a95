/* Matrix product, CPU family.
 *
 *     NAME(c [batch,M,N], a, packed)
 *
 * Element (m, k) of matrix i of a stands at (i * M * K) + m * A_ROW + k * A_COLUMN; `packed` is what matmul_pack_cpu.cl
 * makes of b: [batch][panels of TILE_BLOCKS * V columns][K][TILE_BLOCKS * V], zeros past N. A work-item computes BAND
 * rows of a panel: global (bands, panels, batch). A tile of TILE_ROWS x TILE_BLOCKS vectors stays in registers for
 * SPAN steps along K and is then added to its totals, which keeps the error of long sums small. */
#define PANEL (TILE_BLOCKS * V)
#define PANELS ((N + PANEL - 1) / PANEL)

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict c, ulong c_offset,
                                                                global const float *restrict a, ulong a_offset,
                                                                global const float *restrict packed,
                                                                ulong packed_offset) {
    const int band = get_global_id(0), panel = get_global_id(1);
    const ulong matrix = get_global_id(2);
    a += a_offset + matrix * (M * K);
    c += c_offset + matrix * (M * N);
    packed += packed_offset + (matrix * PANELS + panel) * (K * PANEL);

    for (int row = band * BAND; row < min((band + 1) * BAND, M); row += TILE_ROWS) {
        floatv total[TILE_ROWS][TILE_BLOCKS];
        UNROLL for (int r = 0; r < TILE_ROWS; r++)
            UNROLL for (int b = 0; b < TILE_BLOCKS; b++) total[r][b] = 0;
        /* Rows past the last are read as the last, and not stored. */
        global const float *from[TILE_ROWS];
        UNROLL for (int r = 0; r < TILE_ROWS; r++) from[r] = a + min(row + r, M - 1) * A_ROW;
        for (int span = 0; span < K; span += SPAN) {
            floatv sum[TILE_ROWS][TILE_BLOCKS];
            UNROLL for (int r = 0; r < TILE_ROWS; r++)
                UNROLL for (int b = 0; b < TILE_BLOCKS; b++) sum[r][b] = 0;
            for (int k = span; k < min(span + SPAN, K); k++) {
                floatv right[TILE_BLOCKS];
                UNROLL for (int b = 0; b < TILE_BLOCKS; b++) right[b] = LOADV(packed + k * PANEL + b * V);
                UNROLL for (int r = 0; r < TILE_ROWS; r++) {
                    const float value = from[r][k * A_COLUMN];
                    UNROLL for (int b = 0; b < TILE_BLOCKS; b++) sum[r][b] = FMA((floatv)value, right[b], sum[r][b]);
                }
            }
            UNROLL for (int r = 0; r < TILE_ROWS; r++)
                UNROLL for (int b = 0; b < TILE_BLOCKS; b++) total[r][b] += sum[r][b];
        }
        UNROLL for (int r = 0; r < TILE_ROWS; r++)
            UNROLL for (int b = 0; b < TILE_BLOCKS; b++) {
                const int column = panel * PANEL + b * V;
                if (row + r < M && column < N) {
                    global float *to = c + (row + r) * N + column;
                    if (column + V <= N)
                        STOREV(total[r][b], to);
                    else
                        for (int lane = 0; lane < N - column; lane++) to[lane] = ((const float *)&total[r][b])[lane];
                }
            }
    }
}

#undef PANEL
#undef PANELS
#undef NAME
#undef M
#undef N
#undef K
#undef A_ROW
#undef A_COLUMN
#undef TILE_ROWS
#undef TILE_BLOCKS
#undef SPAN
#undef BAND
