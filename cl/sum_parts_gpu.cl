/* Adds partial results in their order: NAME(out [COUNT], parts [PARTS,COUNT]), a work-item an element. Parts that lie as
 * [TAPS][COUNT / TAPS] are added to a result whose taps are innermost. */
kernel void NAME(global float *restrict out, ulong out_offset, global const float *restrict parts,
                 ulong parts_offset) {
    const int i = get_global_id(0);
    if (i >= COUNT) return;
    parts += parts_offset + i;
    float sum = 0;
    for (int part = 0; part < PARTS; part++) sum += parts[(ulong)part * COUNT];
    out[out_offset + i % (COUNT / TAPS) * TAPS + i / (COUNT / TAPS)] = sum;
}
#undef NAME
#undef COUNT
#undef PARTS
#undef TAPS
