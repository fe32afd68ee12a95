/* Staged Winograd F(4,3), last stage of a backward-weight, GPU family: NAME(weights [OUT_CHANNELS,IN_CHANNELS,3,3],
 * products [BLOCKS][36][OUT_CHANNELS][IN_CHANNELS]): G^T m G, where m is the sum of all blocks, the terms of every part of
 * the sum over tiles, in their order. Global (IN_CHANNELS or more, OUT_CHANNELS, 1). */
kernel void NAME(global float *restrict weights, ulong weights_offset, global const float *restrict products,
                 ulong products_offset) {
    const uint in = get_global_id(0), out = get_global_id(1);
    if (in >= IN_CHANNELS) return;
    products += products_offset + out * IN_CHANNELS + in;
    float m[36], t[18], g[9];
    UNROLL for (int p = 0; p < 36; p++) m[p] = 0;
    for (int block = 0; block < BLOCKS; block++)
        UNROLL for (int p = 0; p < 36; p++) m[p] += products[(ulong)(block * 36 + p) * (IN_CHANNELS * OUT_CHANNELS)];
    UNROLL for (int s = 0; s < 6; s++) winograd4_gather(t + s, m + s, 6);
    UNROLL for (int r = 0; r < 3; r++) winograd4_gather(g + r * 3, t + r * 6, 1);
    weights += weights_offset + (out * IN_CHANNELS + in) * 9;
    UNROLL for (int tap = 0; tap < 9; tap++) weights[tap] = g[tap];
}
#undef NAME
#undef OUT_CHANNELS
#undef IN_CHANNELS
#undef BLOCKS
