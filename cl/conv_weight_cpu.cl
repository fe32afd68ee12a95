/* Backward-weight of a convolution whose input is blocked, CPU family.
 *
 *     NAME(out, x [N,IN_CHANNELS,IN_HEIGHT,IN_WIDTH], y [N,OUT_CHANNELS,OUT_HEIGHT,OUT_WIDTH])
 *
 * out is [splits][OUT_CHANNELS,IN_CHANNELS,KERNEL_HEIGHT,KERNEL_WIDTH]: split s sums over the images from s * IMAGES
 * on. OUT_BLOCKED is the layout of y. A work-item computes TILE_BLOCKS blocks of output channels x ITEM_CHANNELS input
 * channels (which divide V) x TILE_TAPS taps: global (tap groups * channel groups, output groups, splits). For one tap
 * and TILE_CHANNELS of the channels after the other TILE_CHANNELS x TILE_BLOCKS sums stay in registers while the pixels
 * of ROWS rows pass that the tap reads inside the image; then they are added to the totals. So all of them share rows
 * that are in the cache, and a total is a sum of short sums, which is what keeps its error small over a large batch. */
#define TAPS (KERNEL_HEIGHT * KERNEL_WIDTH)
#define TAP_GROUPS ((TAPS + TILE_TAPS - 1) / TILE_TAPS)
#define BLOCKS(channels) (((channels) + V - 1) / V)
/* Outputs first to last - 1 along one side read tap k inside the image. */
#define FIRST(k) (max(PADDING - (k) + STRIDE - 1, 0) / STRIDE)
#define LAST(k, in, out) ((k) > (in) - 1 + PADDING ? 0 : min((out), ((in) - 1 + PADDING - (k)) / STRIDE + 1))

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict out, ulong out_offset,
                                                                global const float *restrict x, ulong x_offset,
                                                                global const float *restrict y, ulong y_offset) {
    const int first_tap = get_global_id(0) % TAP_GROUPS * TILE_TAPS, split = get_global_id(2);
    const int first_in = get_global_id(0) / TAP_GROUPS * ITEM_CHANNELS, first_block = get_global_id(1) * TILE_BLOCKS;
    const int taps = min(TILE_TAPS, TAPS - first_tap);

    floatv total[TILE_TAPS][ITEM_CHANNELS][TILE_BLOCKS];
    for (int t = 0; t < TILE_TAPS; t++)
        for (int i = 0; i < ITEM_CHANNELS; i++)
            for (int b = 0; b < TILE_BLOCKS; b++) total[t][i][b] = 0;

    for (int n = split * IMAGES; n < min((split + 1) * IMAGES, N); n++) {
        global const float *image = x + x_offset + first_in % V
                                    + ((ulong)n * BLOCKS(IN_CHANNELS) + first_in / V) * (IN_HEIGHT * IN_WIDTH * V);
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
            for (int step = 0; step < taps * (ITEM_CHANNELS / TILE_CHANNELS); step++) {
                const int t = step % taps, first_lane = step / taps * TILE_CHANNELS;
                const int ky = (first_tap + t) / KERNEL_WIDTH, kx = (first_tap + t) % KERNEL_WIDTH;
                const int first_row = max(chunk, FIRST(ky));
                const int last_row = min(chunk + ROWS, LAST(ky, IN_HEIGHT, OUT_HEIGHT));
                const int first_column = FIRST(kx), last_column = LAST(kx, IN_WIDTH, OUT_WIDTH);
                floatv sum[TILE_CHANNELS][TILE_BLOCKS];
                UNROLL for (int i = 0; i < TILE_CHANNELS; i++)
                    UNROLL for (int b = 0; b < TILE_BLOCKS; b++) sum[i][b] = 0;
                for (int oy = first_row; oy < last_row; oy++) {
                    global const float *row = image + first_lane
                                              + ((oy * STRIDE - PADDING + ky) * IN_WIDTH - PADDING + kx) * V;
                    for (int ox = first_column; ox < last_column; ox++) {
                        floatv gradient[TILE_BLOCKS];
                        UNROLL for (int b = 0; b < TILE_BLOCKS; b++) {
#if OUT_BLOCKED
                            gradient[b] = LOADV(plane[b] + (oy * OUT_WIDTH + ox) * V);
#else
                            for (int lane = 0; lane < V; lane++) {
                                const int channel = (first_block + b) * V + lane;
                                ((float *)&gradient[b])[lane] =
                                    channel < OUT_CHANNELS ? plane[(channel * OUT_HEIGHT + oy) * OUT_WIDTH + ox] : 0;
                            }
#endif
                        }
                        UNROLL for (int i = 0; i < TILE_CHANNELS; i++) {
                            const float value = row[ox * (STRIDE * V) + i];
                            UNROLL for (int b = 0; b < TILE_BLOCKS; b++)
                                sum[i][b] = FMA((floatv)value, gradient[b], sum[i][b]);
                        }
                    }
                }
                UNROLL for (int i = 0; i < TILE_CHANNELS; i++)
                    UNROLL for (int b = 0; b < TILE_BLOCKS; b++) total[t][first_lane + i][b] += sum[i][b];
            }
    }

    out += out_offset + (ulong)split * (OUT_CHANNELS * IN_CHANNELS * TAPS);
    for (int b = 0; b < TILE_BLOCKS; b++)
        for (int lane = 0; lane < V; lane++) {
            const int channel = (first_block + b) * V + lane;
            if (channel >= OUT_CHANNELS) break;
            for (int i = 0; i < min(ITEM_CHANNELS, IN_CHANNELS - first_in); i++)
                for (int t = 0; t < taps; t++)
                    out[(channel * IN_CHANNELS + first_in + i) * TAPS + first_tap + t] =
                        ((const float *)&total[t][i][b])[lane];
        }
}

#undef TAPS
#undef TAP_GROUPS
#undef BLOCKS
#undef FIRST
#undef LAST
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
#undef TILE_BLOCKS
#undef TILE_CHANNELS
#undef ITEM_CHANNELS
#undef TILE_TAPS
