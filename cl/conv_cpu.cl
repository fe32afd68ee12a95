/* Convolution, CPU family: y = x * w, for the forward pass and, with mirrored weights, for backward-data.
 *
 *     NAME(y [N,OUT_CHANNELS,OUT_HEIGHT,OUT_WIDTH], x [N,IN_CHANNELS,IN_HEIGHT,IN_WIDTH], packed)
 *
 * IN_BLOCKED, OUT_BLOCKED give the layouts. `packed` is what conv_pack_cpu.cl writes: [groups of TILE_BLOCKS blocks of
 * output channels][blocks of IN_LANES input channels][tap][input lane][TILE_BLOCKS * V output lanes]. Output (oy, ox)
 * reads the input at (oy * STRIDE - PAD_Y + ky, ox * STRIDE - PAD_X + kx), where neighbouring input pixels stand SPREAD
 * apart with zeros between (backward-data of a strided convolution); outside is zero too.
 *
 * A work-item computes BAND rows of one image for one group of output channels: global (bands, groups, N). A tile of
 * TILE_ROWS x TILE_COLUMNS pixels x TILE_BLOCKS vectors stays in registers while the input channels pass. For each block
 * of input channels and kernel row the input pixels under the tile are copied, borders and all, to private memory: the
 * copy is small beside the arithmetic, and frees it of every border test and of the input's layout. */
#define BLOCKS(channels) (((channels) + V - 1) / V)
#define REACH ((TILE_COLUMNS - 1) * STRIDE + KERNEL_WIDTH)

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict y, ulong y_offset,
                                                                global const float *restrict x, ulong x_offset,
                                                                global const float *restrict packed,
                                                                ulong packed_offset) {
    const int band = get_global_id(0), group = get_global_id(1), n = get_global_id(2);
#if IN_BLOCKED
    x += x_offset + (ulong)n * (BLOCKS(IN_CHANNELS) * V * IN_HEIGHT * IN_WIDTH);
#else
    x += x_offset + (ulong)n * (IN_CHANNELS * IN_HEIGHT * IN_WIDTH);
#endif
#if OUT_BLOCKED
    y += y_offset + (ulong)n * (BLOCKS(OUT_CHANNELS) * V * OUT_HEIGHT * OUT_WIDTH);
#else
    y += y_offset + (ulong)n * (OUT_CHANNELS * OUT_HEIGHT * OUT_WIDTH);
#endif
    packed += packed_offset + (ulong)group * (IN_BLOCKS * KERNEL_HEIGHT * KERNEL_WIDTH * IN_LANES * TILE_BLOCKS * V);

    for (int row = band * BAND; row < min((band + 1) * BAND, OUT_HEIGHT); row += TILE_ROWS)
        for (int column = 0; column < OUT_WIDTH; column += TILE_COLUMNS) {
            floatv sum[TILE_ROWS][TILE_COLUMNS][TILE_BLOCKS];
            UNROLL for (int r = 0; r < TILE_ROWS; r++)
                UNROLL for (int c = 0; c < TILE_COLUMNS; c++)
                    UNROLL for (int b = 0; b < TILE_BLOCKS; b++) sum[r][c][b] = 0;
            global const float *w = packed;
            for (int block = 0; block < IN_BLOCKS; block++)
                for (int ky = 0; ky < KERNEL_HEIGHT; ky++) {
#if IN_BLOCKED
                    floatv under[TILE_ROWS][REACH];
#else
                    float under[TILE_ROWS][REACH][IN_LANES];
#endif
                    for (int r = 0; r < TILE_ROWS; r++) {
                        const int spread_y = (row + r) * STRIDE - PAD_Y + ky, iy = spread_y / SPREAD;
                        const bool row_inside = spread_y >= 0 && spread_y % SPREAD == 0 && iy < IN_HEIGHT;
                        for (int c = 0; c < REACH; c++) {
                            const int spread_x = column * STRIDE - PAD_X + c, ix = spread_x / SPREAD;
                            const bool inside = row_inside && spread_x >= 0 && spread_x % SPREAD == 0 && ix < IN_WIDTH;
#if IN_BLOCKED
                            under[r][c] = inside ? LOADV(x + ((block * IN_HEIGHT + iy) * IN_WIDTH + ix) * V) : 0;
#else
                            for (int lane = 0; lane < IN_LANES; lane++) {
                                const int channel = block * IN_LANES + lane;
                                under[r][c][lane] = inside && channel < IN_CHANNELS
                                                        ? x[(channel * IN_HEIGHT + iy) * IN_WIDTH + ix]
                                                        : 0;
                            }
#endif
                        }
                    }
                    for (int kx = 0; kx < KERNEL_WIDTH; kx++)
                        UNROLL for (int lane = 0; lane < IN_LANES; lane++) {
                            floatv weight[TILE_BLOCKS];
                            UNROLL for (int b = 0; b < TILE_BLOCKS; b++) weight[b] = LOADV(w + b * V);
                            w += TILE_BLOCKS * V;
                            UNROLL for (int r = 0; r < TILE_ROWS; r++)
                                UNROLL for (int c = 0; c < TILE_COLUMNS; c++) {
                                    const float value = ((const float *)&under[r][c * STRIDE + kx])[lane];
                                    UNROLL for (int b = 0; b < TILE_BLOCKS; b++)
                                        sum[r][c][b] = FMA((floatv)value, weight[b], sum[r][c][b]);
                                }
                        }
                }
            UNROLL for (int r = 0; r < TILE_ROWS; r++)
                UNROLL for (int c = 0; c < TILE_COLUMNS; c++)
                    UNROLL for (int b = 0; b < TILE_BLOCKS; b++) {
                        const int oy = row + r, ox = column + c, block = group * TILE_BLOCKS + b;
                        if (oy < OUT_HEIGHT && ox < OUT_WIDTH && block < BLOCKS(OUT_CHANNELS)) {
#if OUT_BLOCKED
                            STOREV(sum[r][c][b], y + ((block * OUT_HEIGHT + oy) * OUT_WIDTH + ox) * V);
#else
                            const int lanes = min(V, OUT_CHANNELS - block * V);
                            for (int lane = 0; lane < lanes; lane++)
                                y[((block * V + lane) * OUT_HEIGHT + oy) * OUT_WIDTH + ox] =
                                    ((const float *)&sum[r][c][b])[lane];
#endif
                        }
                    }
        }
}

#undef BLOCKS
#undef REACH
#undef NAME
#undef IN_CHANNELS
#undef IN_HEIGHT
#undef IN_WIDTH
#undef IN_BLOCKED
#undef IN_BLOCKS
#undef IN_LANES
#undef OUT_CHANNELS
#undef OUT_HEIGHT
#undef OUT_WIDTH
#undef OUT_BLOCKED
#undef KERNEL_HEIGHT
#undef KERNEL_WIDTH
#undef STRIDE
#undef SPREAD
#undef PAD_Y
#undef PAD_X
#undef TILE_ROWS
#undef TILE_COLUMNS
#undef TILE_BLOCKS
#undef BAND
