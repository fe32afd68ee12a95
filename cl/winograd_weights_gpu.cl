/* Staged Winograd F(4,3), the weights, GPU family: NAME(points [WEIGHTS][36][IN_CHANNELS][OUT_CHANNELS], one weight tensor
 * for each of WEIGHTS) = G g G^T, with the taps turned round where MIRRORED, for a backward-data. Tap t of the weights
 * from `in` to `out` is element in * IN_STEP + out * OUT_STEP + t. Global (OUT_CHANNELS or more, IN_CHANNELS, WEIGHTS). */
kernel void NAME(global float *restrict points, ulong points_offset, global const float *restrict w0, ulong w0_offset
#if WEIGHTS > 1
                 , global const float *restrict w1, ulong w1_offset
#endif
) {
    const uint out = get_global_id(0), in = get_global_id(1), number = get_global_id(2);
    if (out >= OUT_CHANNELS) return;
    global const float *w = w0 + w0_offset;
#if WEIGHTS > 1
    if (number == 1) w = w1 + w1_offset;
#endif
    w += in * IN_STEP + out * OUT_STEP;
    float g[9], t[18], u[36];
    UNROLL for (int tap = 0; tap < 9; tap++) g[tap] = w[MIRRORED ? 8 - tap : tap];
    UNROLL for (int s = 0; s < 3; s++) winograd4_weights(t + s, g + s, 3);
    UNROLL for (int r = 0; r < 6; r++) winograd4_weights(u + r * 6, t + r * 3, 1);
    points += points_offset + ((ulong)number * (36 * IN_CHANNELS) + in) * OUT_CHANNELS + out;
    UNROLL for (int p = 0; p < 36; p++) points[(ulong)p * (IN_CHANNELS * OUT_CHANNELS)] = u[p];
}
#undef NAME
#undef WEIGHTS
#undef MIRRORED
#undef IN_CHANNELS
#undef OUT_CHANNELS
#undef IN_STEP
#undef OUT_STEP
