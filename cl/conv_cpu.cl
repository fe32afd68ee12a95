/* Convolution of a blocked input, CPU family: the forward pass and, with mirrored weights, backward-data.
 *
 *     NAME(y [N,OUT_CHANNELS,OUT_HEIGHT,OUT_WIDTH], x [N,IN_CHANNELS,IN_HEIGHT,IN_WIDTH] blocked, packed)
 *
 * OUT_BLOCKED is the layout of y. `packed` is what conv_pack_cpu.cl writes: [groups of TILE_BLOCKS blocks of output
 * channels][IN_BLOCKS blocks of IN_LANES input channels][tap][input lane][TILE_BLOCKS * V output lanes]. Output (oy,
 * ox) reads the input at (oy * STRIDE - PAD_Y + ky, ox * STRIDE - PAD_X + kx), where neighbouring input pixels stand
 * SPREAD apart with zeros between (backward-data of a strided convolution); outside is zero too.
 *
 * A work-item computes BAND rows of one image for one group of output channels: global (bands, groups, N). A tile of
 * TILE_ROWS x TILE_COLUMNS pixels x TILE_BLOCKS vectors stays in registers while the input channels pass. For each
 * block of input channels the input pixels under the tile are copied, borders and all, to private memory: the copy is
 * small beside the arithmetic, which is then free of border tests. Every SPAN blocks the sums are added to their
 * totals, which keeps the error of long sums small. */
#define BLOCKS(channels) (((channels) + V - 1) / V)
#define EACH_SUM                                         \
    UNROLL for (int r = 0; r < TILE_ROWS; r++)           \
        UNROLL for (int c = 0; c < TILE_COLUMNS; c++)    \
            UNROLL for (int b = 0; b < TILE_BLOCKS; b++)
#define UNDER_ROWS ((TILE_ROWS - 1) * STRIDE + KERNEL_HEIGHT)
#define UNDER_COLUMNS ((TILE_COLUMNS - 1) * STRIDE + KERNEL_WIDTH)

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict y, ulong y_offset,
                                                                global const float *restrict x, ulong x_offset,
                                                                global const float *restrict packed,
                                                                ulong packed_offset) {
    const int band = get_global_id(0), group = get_global_id(1), n = get_global_id(2);
    x += x_offset + (ulong)n * (IN_BLOCKS * V * IN_HEIGHT * IN_WIDTH);
#if OUT_BLOCKED
    y += y_offset + (ulong)n * (BLOCKS(OUT_CHANNELS) * V * OUT_HEIGHT * OUT_WIDTH);
#else
    y += y_offset + (ulong)n * (OUT_CHANNELS * OUT_HEIGHT * OUT_WIDTH);
#endif
    packed += packed_offset + (ulong)group * (IN_BLOCKS * KERNEL_HEIGHT * KERNEL_WIDTH * IN_LANES * TILE_BLOCKS * V);

    for (int row = band * BAND; row < min((band + 1) * BAND, OUT_HEIGHT); row += TILE_ROWS)
        for (int column = 0; column < OUT_WIDTH; column += TILE_COLUMNS) {
            floatv total[TILE_ROWS][TILE_COLUMNS][TILE_BLOCKS];
            EACH_SUM total[r][c][b] = 0;
            global const float *w = packed;
            for (int span = 0; span < IN_BLOCKS; span += SPAN) {
                floatv sum[TILE_ROWS][TILE_COLUMNS][TILE_BLOCKS];
                EACH_SUM sum[r][c][b] = 0;
                for (int block = span; block < min(span + SPAN, IN_BLOCKS); block++) {
                    floatv under[UNDER_ROWS][UNDER_COLUMNS];
                    for (int r = 0; r < UNDER_ROWS; r++) {
                        const int spread_y = row * STRIDE - PAD_Y + r, iy = spread_y / SPREAD;
                        const bool row_inside = spread_y >= 0 && spread_y % SPREAD == 0 && iy < IN_HEIGHT;
                        for (int c = 0; c < UNDER_COLUMNS; c++) {
                            const int spread_x = column * STRIDE - PAD_X + c, ix = spread_x / SPREAD;
                            const bool inside = row_inside && spread_x >= 0 && spread_x % SPREAD == 0 && ix < IN_WIDTH;
                            under[r][c] = inside ? LOADV(x + ((block * IN_HEIGHT + iy) * IN_WIDTH + ix) * V) : 0;
                        }
                    }
                    for (int ky = 0; ky < KERNEL_HEIGHT; ky++)
                        for (int kx = 0; kx < KERNEL_WIDTH; kx++)
                            UNROLL for (int lane = 0; lane < IN_LANES; lane++) {
                                floatv weight[TILE_BLOCKS];
                                UNROLL for (int b = 0; b < TILE_BLOCKS; b++) weight[b] = LOADV(w + b * V);
                                w += TILE_BLOCKS * V;
                                UNROLL for (int r = 0; r < TILE_ROWS; r++)
                                    UNROLL for (int c = 0; c < TILE_COLUMNS; c++) {
                                        const floatv *at = &under[r * STRIDE + ky][c * STRIDE + kx];
                                        const float value = ((const float *)at)[lane];
                                        UNROLL for (int b = 0; b < TILE_BLOCKS; b++)
                                            sum[r][c][b] = FMA((floatv)value, weight[b], sum[r][c][b]);
                                    }
                            }
                }
                EACH_SUM total[r][c][b] += sum[r][c][b];
            }
            EACH_SUM {
                const int oy = row + r, ox = column + c, block = group * TILE_BLOCKS + b;
                if (oy >= OUT_HEIGHT || ox >= OUT_WIDTH || block >= BLOCKS(OUT_CHANNELS)) continue;
#if OUT_BLOCKED
                STOREV(total[r][c][b], y + ((block * OUT_HEIGHT + oy) * OUT_WIDTH + ox) * V);
#else
                for (int lane = 0; lane < min(V, OUT_CHANNELS - block * V); lane++)
                    y[((block * V + lane) * OUT_HEIGHT + oy) * OUT_WIDTH + ox] = ((const float *)&total[r][c][b])[lane];
#endif
            }
        }
}

#undef BLOCKS
#undef EACH_SUM
#undef UNDER_ROWS
#undef UNDER_COLUMNS
#undef NAME
#undef IN_HEIGHT
#undef IN_WIDTH
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
#undef SPAN
#undef BAND
