/* Weights for the convolutions of product_gpu.cl: NAME(packed [TAPS][ROWS][PITCH], weights). Element (tap, k, m) is
 * element k * K_STEP + m * M_STEP + tap of the weights: k counts the channels that are summed over, m those of the result.
 * Zeros past K and M. Global (PITCH or more, ROWS, 1). */
kernel void NAME(global float *restrict packed, ulong packed_offset, global const float *restrict weights,
                 ulong weights_offset) {
    const int m = get_global_id(0), k = get_global_id(1);
    if (m >= PITCH) return;
    packed += packed_offset + k * PITCH + m;
    weights += weights_offset + min(k, K - 1) * K_STEP + min(m, M - 1) * M_STEP;
    for (int tap = 0; tap < TAPS; tap++) packed[tap * (ROWS * PITCH)] = k < K && m < M ? weights[tap] : 0;
}
#undef NAME
#undef TAPS
#undef ROWS
#undef PITCH
#undef K
#undef M
#undef K_STEP
#undef M_STEP
