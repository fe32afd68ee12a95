/* Convolution of a blocked input to few output channels (backward-data to an image), CPU family.
 *
 *     NAME(y [N,OUT_CHANNELS,OUT_HEIGHT,OUT_WIDTH] plain, x [N,IN_CHANNELS,IN_HEIGHT,IN_WIDTH] blocked, packed)
 *
 * As conv_cpu.cl, with the vector along the channels that are summed, so that no lanes idle: the tile holds TILE_ROWS x
 * TILE_COLUMNS pixels x OUT_CHANNELS vectors, whose lanes are added at the end. `packed` is [IN_BLOCKS of V input
 * channels][tap][OUT_CHANNELS][V]. A work-item computes BAND rows of one image: global (bands, 1, N). */
#define UNDER_ROWS ((TILE_ROWS - 1) * STRIDE + KERNEL_HEIGHT)
#define UNDER_COLUMNS ((TILE_COLUMNS - 1) * STRIDE + KERNEL_WIDTH)
/* The tile's vectors, as many as make whole groups of V for LANE_SUMS. */
#define SUM(r, c, o) (((o) * TILE_ROWS + (r)) * TILE_COLUMNS + (c))
#define SUMS ((TILE_ROWS * TILE_COLUMNS * OUT_CHANNELS + V - 1) / V * V)
/* Adds the products of a block's inputs, UNDER(row, column) of the tile, by its weights w to the sums. */
#define ADD_PRODUCTS                                                                                \
    for (int ky = 0; ky < KERNEL_HEIGHT; ky++)                                                      \
        UNROLL_TAPS for (int kx = 0; kx < KERNEL_WIDTH; kx++, w += OUT_CHANNELS * V)                \
            UNROLL for (int o = 0; o < OUT_CHANNELS; o++) {                                         \
                const floatv weight = LOADV(w + o * V);                                             \
                UNROLL for (int r = 0; r < TILE_ROWS; r++)                                          \
                    UNROLL for (int c = 0; c < TILE_COLUMNS; c++)                                   \
                        sum[SUM(r, c, o)] =                                                         \
                            FMA(UNDER(r * STRIDE + ky, c * STRIDE + kx), weight, sum[SUM(r, c, o)]); \
            }
/* Only AVX-512 has the registers for what the taps of a row share. */
#if V == 16 && KERNEL_WIDTH <= 5
#define UNROLL_TAPS UNROLL
#else
#define UNROLL_TAPS
#endif

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict y, ulong y_offset,
                                                                global const float *restrict x, ulong x_offset,
                                                                global const float *restrict packed,
                                                                ulong packed_offset) {
    const int band = get_global_id(0), n = get_global_id(2);
    x += x_offset + (ulong)n * (IN_BLOCKS * V * IN_HEIGHT * IN_WIDTH);
    y += y_offset + (ulong)n * (OUT_CHANNELS * OUT_HEIGHT * OUT_WIDTH);
    packed += packed_offset;

    for (int row = band * BAND; row < min((band + 1) * BAND, OUT_HEIGHT); row += TILE_ROWS)
        for (int column = 0; column < OUT_WIDTH; column += TILE_COLUMNS) {
            floatv sum[SUMS];
            UNROLL for (int i = 0; i < SUMS; i++) sum[i] = 0;
            const int top = row * STRIDE - PAD_Y, left = column * STRIDE - PAD_X;
            const bool within = SPREAD == 1 && top >= 0 && left >= 0 && top + UNDER_ROWS <= IN_HEIGHT
                             && left + UNDER_COLUMNS <= IN_WIDTH;
            for (int block = 0; block < IN_BLOCKS; block++) {
                global const float *from = x + block * (IN_HEIGHT * IN_WIDTH * V);
                global const float *w = packed + block * (KERNEL_HEIGHT * KERNEL_WIDTH * OUT_CHANNELS * V);
                if (within) {
                    from += (top * IN_WIDTH + left) * V;
#define UNDER(r, c) LOADV(from + ((r) * IN_WIDTH + (c)) * V)
                    ADD_PRODUCTS
#undef UNDER
                } else {
                    floatv under[UNDER_ROWS][UNDER_COLUMNS];
                    for (int r = 0; r < UNDER_ROWS; r++) {
                        const int iy = (top + r) / SPREAD;
                        const bool row_inside = top + r >= 0 && (top + r) % SPREAD == 0 && iy < IN_HEIGHT;
                        for (int c = 0; c < UNDER_COLUMNS; c++) {
                            const int ix = (left + c) / SPREAD;
                            const bool inside =
                                row_inside && left + c >= 0 && (left + c) % SPREAD == 0 && ix < IN_WIDTH;
                            under[r][c] = inside ? LOADV(from + (iy * IN_WIDTH + ix) * V) : 0;
                        }
                    }
#define UNDER(r, c) under[r][c]
                    ADD_PRODUCTS
#undef UNDER
                }
            }
            float pixel[SUMS];
            UNROLL for (int i = 0; i < SUMS; i += V) STOREV(LANE_SUMS(sum + i), pixel + i);
            for (int o = 0; o < OUT_CHANNELS; o++)
                for (int r = 0; r < min(TILE_ROWS, OUT_HEIGHT - row); r++)
                    for (int c = 0; c < min(TILE_COLUMNS, OUT_WIDTH - column); c++)
                        y[(o * OUT_HEIGHT + row + r) * OUT_WIDTH + column + c] = pixel[SUM(r, c, o)];
        }
}

#undef UNDER_ROWS
#undef UNDER_COLUMNS
#undef ADD_PRODUCTS
#undef UNROLL_TAPS
#undef SUM
#undef SUMS
#undef NAME
#undef IN_BLOCKS
#undef IN_HEIGHT
#undef IN_WIDTH
#undef OUT_CHANNELS
#undef OUT_HEIGHT
#undef OUT_WIDTH
#undef KERNEL_HEIGHT
#undef KERNEL_WIDTH
#undef STRIDE
#undef SPREAD
#undef PAD_Y
#undef PAD_X
#undef TILE_ROWS
#undef TILE_COLUMNS
#undef BAND
