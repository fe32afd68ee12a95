/* Transformed weights for winograd_cpu.cl, CPU family: NAME(packed, w [OUT_CHANNELS,IN_CHANNELS,3,3] or, MIRRORED, its
 * transpose with the taps in reverse: element (output, input, tap) stands at output * OUT_STEP + input * IN_STEP +
 * tap). Layout of `packed`: see there; zeros past the channels there are. A work-item takes one block of input channels
 * for one group of output channels: global (input blocks, output groups, 1). */
#define POINTS (OUT_TILE + 2)
#define TRANSFORM(name) JOIN(JOIN(winograd, OUT_TILE), name)

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict packed, ulong packed_offset,
                                                                global const float *restrict w, ulong w_offset) {
    const int first_in = get_global_id(0) * V, group = get_global_id(1), blocks = get_global_size(0);
    const int point_floats = (blocks * V * OUT_GROUP + 1) * V;
    w += w_offset;
    packed += packed_offset + (ulong)group * POINTS * POINTS * point_floats;
    for (int b = 0; b < OUT_GROUP; b++)
        for (int lane = 0; lane < V; lane++) {
            const int in = first_in + lane, out = (group * OUT_GROUP + b) * V;
            const int there = in < IN_CHANNELS ? min(OUT_CHANNELS - out, V) : 0;
            global const float *from = w + in * IN_STEP + out * OUT_STEP;
            floatv g[9], half_done[3 * POINTS], u[POINTS * POINTS];
            if (there == V) {
                UNROLL for (int tap = 0; tap < 9; tap++) g[tap] = STRIDEDV(from + (MIRRORED ? 8 - tap : tap), OUT_STEP);
            } else {
                UNROLL for (int tap = 0; tap < 9; tap++) g[tap] = 0;
                for (int i = 0; i < there; i++)
                    UNROLL for (int tap = 0; tap < 9; tap++)
                        ((float *)&g[tap])[i] = from[i * OUT_STEP + (MIRRORED ? 8 - tap : tap)];
            }
            UNROLL for (int i = 0; i < 3; i++) TRANSFORM(_weights)(half_done + i, g + i, 3);
            UNROLL for (int i = 0; i < POINTS; i++) TRANSFORM(_weights)(u + i * POINTS, half_done + i * 3, 1);
            global float *to = packed + (in * OUT_GROUP + b) * V;
#if AHEAD
            /* Four channels ahead: points are more streams than the hardware follows. */
            UNROLL for (int p = 0; p < POINTS * POINTS; p++) PREFETCH_WRITE(to + p * point_floats + 4 * OUT_GROUP * V);
#endif
            UNROLL for (int p = 0; p < POINTS * POINTS; p++) STOREV(u[p], to + p * point_floats);
        }
}

#undef POINTS
#undef TRANSFORM
#undef NAME
#undef OUT_TILE
#undef MIRRORED
#undef IN_CHANNELS
#undef IN_STEP
#undef OUT_CHANNELS
#undef OUT_GROUP
#undef OUT_STEP
#undef AHEAD
