/* Backward-weight of a convolution whose input is plain (an image of few channels), CPU family.
 *
 *     NAME(out, x [N,IN_CHANNELS,IN_HEIGHT,IN_WIDTH], y [N,OUT_CHANNELS,OUT_HEIGHT,OUT_WIDTH])
 *
 * As conv_weight_cpu.cl, but there are too few channels to make a register tile of: here it is TILE_LINES lines x
 * TILE_TAPS taps x TILE_BLOCKS blocks of output channels, a line being a pair (input channel, kernel row) and the taps
 * those along a kernel row. The strip of input under ROWS rows and SEGMENT columns of outputs is copied to private
 * memory, with zeros beyond the border; ITEM_TILES tiles pass over it in turn, each with all of its sums. Global (tiles /
 * ITEM_TILES rounded up, output groups, splits). */
#define TAPS (KERNEL_HEIGHT * KERNEL_WIDTH)
#define LINES (IN_CHANNELS * KERNEL_HEIGHT)
#define TAP_GROUPS ((KERNEL_WIDTH + TILE_TAPS - 1) / TILE_TAPS)
#define TILES ((LINES + TILE_LINES - 1) / TILE_LINES * TAP_GROUPS)
#define FIRST_LINE(tile) ((first_tile + (tile)) / TAP_GROUPS * TILE_LINES)
#define FIRST_TAP(tile) ((first_tile + (tile)) % TAP_GROUPS * TILE_TAPS)
#define BLOCKS(channels) (((channels) + V - 1) / V)
#define STRIP_HEIGHT ((ROWS - 1) * STRIDE + KERNEL_HEIGHT)
/* The last group of taps may reach past the kernel; those sums are not stored. */
#define STRIP_WIDTH ((SEGMENT - 1) * STRIDE + TAP_GROUPS * TILE_TAPS)

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict out, ulong out_offset,
                                                                global const float *restrict x, ulong x_offset,
                                                                global const float *restrict y, ulong y_offset) {
    const int first_tile = get_global_id(0) * ITEM_TILES, first_block = get_global_id(1) * TILE_BLOCKS;
    const int split = get_global_id(2), tiles = min(ITEM_TILES, TILES - first_tile);

    floatv total[ITEM_TILES][TILE_LINES][TILE_TAPS][TILE_BLOCKS];
    for (int tile = 0; tile < ITEM_TILES; tile++)
        for (int l = 0; l < TILE_LINES; l++)
            for (int t = 0; t < TILE_TAPS; t++)
                for (int b = 0; b < TILE_BLOCKS; b++) total[tile][l][t][b] = 0;

    for (int n = split * IMAGES; n < min((split + 1) * IMAGES, N); n++) {
        global const float *image = x + x_offset + (ulong)n * (IN_CHANNELS * IN_HEIGHT * IN_WIDTH);
#if OUT_BLOCKED
        /* A group that reaches past the last block reads the last block again; those sums are not stored. */
        global const float *plane[TILE_BLOCKS];
        UNROLL for (int b = 0; b < TILE_BLOCKS; b++)
            plane[b] = y + y_offset + ((ulong)n * BLOCKS(OUT_CHANNELS) + min(first_block + b, BLOCKS(OUT_CHANNELS) - 1))
                                          * (OUT_HEIGHT * OUT_WIDTH * V);
#else
        global const float *plane = y + y_offset + (ulong)n * (OUT_CHANNELS * OUT_HEIGHT * OUT_WIDTH);
#endif
        for (int chunk = 0; chunk < OUT_HEIGHT; chunk += ROWS)
            for (int segment = 0; segment < OUT_WIDTH; segment += SEGMENT) {
                float strip[IN_CHANNELS][STRIP_HEIGHT][STRIP_WIDTH];
                for (int channel = 0; channel < IN_CHANNELS; channel++)
                    for (int r = 0; r < STRIP_HEIGHT; r++) {
                        const int iy = chunk * STRIDE - PADDING + r, start = segment * STRIDE - PADDING;
                        const bool inside = iy >= 0 && iy < IN_HEIGHT;
                        global const float *from = image + (channel * IN_HEIGHT + (inside ? iy : 0)) * IN_WIDTH;
                        copy_row(strip[channel][r], STRIP_WIDTH, from, inside ? IN_WIDTH : 0, start);
                    }
                for (int tile = 0; tile < tiles; tile++) {
                    /* Lines past the last one read the last one again; those sums are not stored. */
                    const float *under[TILE_LINES];
                    UNROLL for (int l = 0; l < TILE_LINES; l++) {
                        const int line = min(FIRST_LINE(tile) + l, LINES - 1);
                        under[l] = strip[line / KERNEL_HEIGHT][line % KERNEL_HEIGHT] + FIRST_TAP(tile);
                    }
                    floatv sum[TILE_LINES][TILE_TAPS][TILE_BLOCKS];
                    UNROLL for (int l = 0; l < TILE_LINES; l++)
                        UNROLL for (int t = 0; t < TILE_TAPS; t++)
                            UNROLL for (int b = 0; b < TILE_BLOCKS; b++) sum[l][t][b] = 0;
                    for (int r = 0; r < min(ROWS, OUT_HEIGHT - chunk); r++)
                        for (int c = 0; c < min(SEGMENT, OUT_WIDTH - segment); c++) {
                            const int oy = chunk + r, ox = segment + c;
                            floatv gradient[TILE_BLOCKS];
                            UNROLL for (int b = 0; b < TILE_BLOCKS; b++) {
#if OUT_BLOCKED
                                gradient[b] = LOADV(plane[b] + (oy * OUT_WIDTH + ox) * V);
#else
                                for (int lane = 0; lane < V; lane++) {
                                    const int channel = (first_block + b) * V + lane;
                                    const int pixel = (channel * OUT_HEIGHT + oy) * OUT_WIDTH + ox;
                                    ((float *)&gradient[b])[lane] = channel < OUT_CHANNELS ? plane[pixel] : 0;
                                }
#endif
                            }
                            UNROLL for (int l = 0; l < TILE_LINES; l++)
                                UNROLL for (int t = 0; t < TILE_TAPS; t++) {
                                    const float value = under[l][(r * STRIP_WIDTH + c) * STRIDE + t];
                                    UNROLL for (int b = 0; b < TILE_BLOCKS; b++)
                                        sum[l][t][b] = FMA((floatv)value, gradient[b], sum[l][t][b]);
                                }
                        }
                    UNROLL for (int l = 0; l < TILE_LINES; l++)
                        UNROLL for (int t = 0; t < TILE_TAPS; t++)
                            UNROLL for (int b = 0; b < TILE_BLOCKS; b++) total[tile][l][t][b] += sum[l][t][b];
                }
            }
    }

    out += out_offset + (ulong)split * (OUT_CHANNELS * IN_CHANNELS * TAPS);
    for (int b = 0; b < TILE_BLOCKS; b++)
        for (int lane = 0; lane < V; lane++) {
            const int channel = (first_block + b) * V + lane;
            if (channel >= OUT_CHANNELS) break;
            for (int tile = 0; tile < tiles; tile++) {
                const int first_line = FIRST_LINE(tile), first_tap = FIRST_TAP(tile);
                for (int l = 0; l < min(TILE_LINES, LINES - first_line); l++)
                    for (int t = 0; t < min(TILE_TAPS, KERNEL_WIDTH - first_tap); t++)
                        out[(channel * LINES + first_line + l) * KERNEL_WIDTH + first_tap + t] =
                            ((const float *)&total[tile][l][t][b])[lane];
            }
        }
}

#undef TAPS
#undef LINES
#undef TAP_GROUPS
#undef TILES
#undef FIRST_LINE
#undef FIRST_TAP
#undef BLOCKS
#undef STRIP_HEIGHT
#undef STRIP_WIDTH
#undef NAME
#undef N
#undef IMAGES
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
#undef ROWS
#undef PADDING
#undef ITEM_TILES
#undef TILE_BLOCKS
#undef TILE_LINES
#undef TILE_TAPS
#undef SEGMENT
