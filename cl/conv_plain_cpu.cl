/* Convolution of a plain input, an image of few channels, CPU family.
 *
 *     NAME(y [N,OUT_CHANNELS,OUT_HEIGHT,OUT_WIDTH], x [N,IN_CHANNELS,IN_HEIGHT,IN_WIDTH] plain, packed)
 *
 * As conv_cpu.cl, but all input channels are at hand at once: `packed` is [groups of TILE_BLOCKS blocks of output
 * channels][tap][IN_CHANNELS][TILE_BLOCKS * V], and the strip of input under SEGMENT columns of a row of tiles is
 * copied to private memory, with zeros beyond the border, before the tiles pass over it. A work-item computes BAND rows
 * of one image for one group: global (bands, groups, N). */
#define BLOCKS(channels) (((channels) + V - 1) / V)
#define STRIP_HEIGHT ((TILE_ROWS - 1) * STRIDE + KERNEL_HEIGHT)
#define STRIP_WIDTH ((SEGMENT - 1) * STRIDE + KERNEL_WIDTH)
#define EACH_SUM                                         \
    UNROLL for (int r = 0; r < TILE_ROWS; r++)           \
        UNROLL for (int c = 0; c < TILE_COLUMNS; c++)    \
            UNROLL for (int b = 0; b < TILE_BLOCKS; b++)
#if IN_CHANNELS <= 4
#define UNROLL_FEW UNROLL
#else
#define UNROLL_FEW
#endif

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict y, ulong y_offset,
                                                                global const float *restrict x, ulong x_offset,
                                                                global const float *restrict packed,
                                                                ulong packed_offset) {
    const int band = get_global_id(0), group = get_global_id(1), n = get_global_id(2);
    x += x_offset + (ulong)n * (IN_CHANNELS * IN_HEIGHT * IN_WIDTH);
#if OUT_BLOCKED
    y += y_offset + (ulong)n * (BLOCKS(OUT_CHANNELS) * V * OUT_HEIGHT * OUT_WIDTH);
#else
    y += y_offset + (ulong)n * (OUT_CHANNELS * OUT_HEIGHT * OUT_WIDTH);
#endif
    packed += packed_offset + (ulong)group * (KERNEL_HEIGHT * KERNEL_WIDTH * IN_CHANNELS * TILE_BLOCKS * V);

    for (int row = band * BAND; row < min((band + 1) * BAND, OUT_HEIGHT); row += TILE_ROWS)
        for (int segment = 0; segment < OUT_WIDTH; segment += SEGMENT) {
            float strip[IN_CHANNELS][STRIP_HEIGHT][STRIP_WIDTH];
            for (int channel = 0; channel < IN_CHANNELS; channel++)
                for (int r = 0; r < STRIP_HEIGHT; r++) {
                    const int spread_y = row * STRIDE - PAD_Y + r, iy = spread_y / SPREAD;
                    const int start = segment * STRIDE - PAD_X;
                    const bool inside = spread_y >= 0 && spread_y % SPREAD == 0 && iy < IN_HEIGHT;
                    global const float *from = x + (channel * IN_HEIGHT + (inside ? iy : 0)) * IN_WIDTH;
#if SPREAD == 1
                    copy_row(strip[channel][r], STRIP_WIDTH, from, inside ? IN_WIDTH : 0, start);
#else
                    for (int i = 0; i < STRIP_WIDTH; i++) {
                        const int spread_x = start + i, ix = spread_x / SPREAD;
                        const bool there = inside && spread_x >= 0 && spread_x % SPREAD == 0 && ix < IN_WIDTH;
                        strip[channel][r][i] = there ? from[ix] : 0;
                    }
#endif
                }
            for (int column = 0; column < min(SEGMENT, OUT_WIDTH - segment); column += TILE_COLUMNS) {
                floatv sum[TILE_ROWS][TILE_COLUMNS][TILE_BLOCKS];
                EACH_SUM sum[r][c][b] = 0;
                global const float *w = packed;
                for (int ky = 0; ky < KERNEL_HEIGHT; ky++)
                    for (int kx = 0; kx < KERNEL_WIDTH; kx++)
                        UNROLL_FEW for (int channel = 0; channel < IN_CHANNELS; channel++) {
                            floatv weight[TILE_BLOCKS];
                            UNROLL for (int b = 0; b < TILE_BLOCKS; b++) weight[b] = LOADV(w + b * V);
                            w += TILE_BLOCKS * V;
                            UNROLL for (int r = 0; r < TILE_ROWS; r++)
                                UNROLL for (int c = 0; c < TILE_COLUMNS; c++) {
                                    const float value = strip[channel][r * STRIDE + ky][(column + c) * STRIDE + kx];
                                    UNROLL for (int b = 0; b < TILE_BLOCKS; b++)
                                        sum[r][c][b] = FMA((floatv)value, weight[b], sum[r][c][b]);
                                }
                        }
                EACH_SUM {
                    const int oy = row + r, ox = segment + column + c, block = group * TILE_BLOCKS + b;
                    if (oy >= OUT_HEIGHT || ox >= OUT_WIDTH || block >= BLOCKS(OUT_CHANNELS)) continue;
#if OUT_BLOCKED
                    STOREV(sum[r][c][b], y + ((block * OUT_HEIGHT + oy) * OUT_WIDTH + ox) * V);
#else
                    for (int lane = 0; lane < min(V, OUT_CHANNELS - block * V); lane++)
                        y[((block * V + lane) * OUT_HEIGHT + oy) * OUT_WIDTH + ox] =
                            ((const float *)&sum[r][c][b])[lane];
#endif
                }
            }
        }
}

#undef BLOCKS
#undef STRIP_HEIGHT
#undef STRIP_WIDTH
#undef EACH_SUM
#undef UNROLL_FEW
#undef NAME
#undef IN_CHANNELS
#undef IN_HEIGHT
#undef IN_WIDTH
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
#undef SEGMENT
#undef BAND
