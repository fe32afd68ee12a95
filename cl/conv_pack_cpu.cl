/* Weights for the convolution templates of the CPU family: NAME(packed, w).
 *
 * One of the two channel dimensions of w becomes the inner one, along vectors, the other the outer one: element (outer,
 * inner, tap) of w stands at outer * OUTER_STEP + inner * INNER_STEP + tap. packed is [groups of INNER_LANES inner
 * channels][blocks of OUTER_LANES outer channels][TAPS][OUTER_LANES][INNER_LANES], zeros past the channels there are;
 * MIRRORED puts the taps in reverse, which makes backward-data a convolution. INNER_LANES is a multiple of V. Global
 * (blocks, groups, 1). */
__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict packed, ulong packed_offset,
                                                                global const float *restrict w, ulong w_offset) {
    const int first_outer = get_global_id(0) * OUTER_LANES, first_inner = get_global_id(1) * INNER_LANES;
    w += w_offset;
    packed += packed_offset
              + (get_global_id(1) * get_global_size(0) + get_global_id(0)) * (TAPS * OUTER_LANES * INNER_LANES);
    for (int lane = 0; lane < OUTER_LANES; lane++)
        for (int vector = 0; vector < INNER_LANES; vector += V) {
            const int outer = first_outer + lane, inner = first_inner + vector;
            const int there = outer < OUTER_CHANNELS ? min(INNER_CHANNELS - inner, V) : 0;
            global const float *from = w + outer * OUTER_STEP + inner * INNER_STEP;
            for (int tap = 0; tap < TAPS; tap++) {
                global float *to = packed + ((MIRRORED ? TAPS - 1 - tap : tap) * OUTER_LANES + lane) * INNER_LANES
                                   + vector;
                if (there == V)
                    STOREV(STRIDEDV(from + tap, INNER_STEP), to);
                else
                    for (int i = 0; i < V; i++) (to)[i] = i < there ? from[i * INNER_STEP + tap] : 0;
            }
        }
}

#undef NAME
#undef MIRRORED
#undef TAPS
#undef INNER_CHANNELS
#undef INNER_LANES
#undef INNER_STEP
#undef OUTER_CHANNELS
#undef OUTER_LANES
#undef OUTER_STEP
