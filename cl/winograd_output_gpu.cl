/* Staged Winograd F(4,3), last stage, GPU family: NAME(one result for each of OUTPUTS [images,CHANNELS,OUT_H,OUT_W],
 * products [TERMS][36][CHANNELS][TILES]): A^T m A, where m is the sum of the terms whose bits are set in SUMS_0 or, for the
 * second result, SUMS_1. Tiles are those of winograd_input_gpu.cl. Global (TILES or more, CHANNELS, OUTPUTS). */
kernel void NAME(global float *restrict y0, ulong y0_offset
#if OUTPUTS > 1
                 , global float *restrict y1, ulong y1_offset
#endif
                 , global const float *restrict products, ulong products_offset) {
    const uint tile = get_global_id(0), channel = get_global_id(1), number = get_global_id(2);
    if (tile >= TILES) return;
    const uint image = tile / (TILES_X * TILES_Y), within = tile % (TILES_X * TILES_Y);
    const int top = within / TILES_X * 4, left = within % TILES_X * 4, sums = number ? SUMS_1 : SUMS_0;
    products += products_offset + channel * TILES + tile;
    float m[36], t[24], r[16];
    UNROLL for (int p = 0; p < 36; p++) m[p] = 0;
    for (int term = 0; term < TERMS; term++)
        if (sums >> term & 1) {
            UNROLL for (int p = 0; p < 36; p++) m[p] += products[(ulong)(term * 36 + p) * (CHANNELS * TILES)];
        }
    UNROLL for (int s = 0; s < 6; s++) winograd4_output(t + s, m + s, 6);
    UNROLL for (int k = 0; k < 4; k++) winograd4_output(r + k * 4, t + k * 6, 1);
    global float *y = y0 + y0_offset;
#if OUTPUTS > 1
    if (number == 1) y = y1 + y1_offset;
#endif
    y += (image * CHANNELS + channel) * (OUT_H * OUT_W) + top * OUT_W + left;
#if OUT_W % 4 == 0 && OUT_H % 4 == 0
    UNROLL for (int k = 0; k < 4; k++)
        vstore4((float4)(r[k * 4], r[k * 4 + 1], r[k * 4 + 2], r[k * 4 + 3]), 0, y + k * OUT_W);
#else
    UNROLL for (int k = 0; k < 4; k++)
        UNROLL for (int s = 0; s < 4; s++)
            if (top + k < OUT_H && left + s < OUT_W) y[k * OUT_W + s] = r[k * 4 + s];
#endif
}
#undef NAME
#undef OUTPUTS
#undef TERMS
#undef SUMS_0
#undef SUMS_1
#undef CHANNELS
#undef TILES
#undef TILES_X
#undef TILES_Y
#undef OUT_H
#undef OUT_W
