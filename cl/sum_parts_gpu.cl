/* Adds partial results in their order: NAME(out [COUNT], parts [PARTS,COUNT]), a work-item an element. */
kernel void NAME(global float *restrict out, ulong out_offset, global const float *restrict parts,
                 ulong parts_offset) {
    const int i = get_global_id(0);
    if (i >= COUNT) return;
    parts += parts_offset + i;
    float sum = 0;
    for (int part = 0; part < PARTS; part++) sum += parts[(ulong)part * COUNT];
    out[out_offset + i] = sum;
}
#undef NAME
#undef COUNT
#undef PARTS
