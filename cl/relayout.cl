/* A tensor from one layout to the other, for V > 1: NAME(to, from), plain [N,CHANNELS,PIXELS] to blocked
 * [N,blocks,PIXELS,V] where TO_BLOCKED, else back. A work-item moves SPAN pixels of one block of one image: global
 * (spans, blocks, N). Lanes past CHANNELS are written as zeros, and not read. */
kernel void NAME(global float *restrict to, ulong to_offset, global const float *restrict from, ulong from_offset) {
    const int block = get_global_id(1), blocks = get_global_size(1);
    const int begin = get_global_id(0) * SPAN, end = min(begin + SPAN, PIXELS);
    const int lanes = min(V, CHANNELS - block * V);
    const ulong plain = ((ulong)get_global_id(2) * CHANNELS + block * V) * PIXELS;
    const ulong blocked = ((ulong)get_global_id(2) * blocks + block) * PIXELS * V;
#if TO_BLOCKED
    from += from_offset + plain;
    to += to_offset + blocked;
    for (int pixel = begin; pixel < end; pixel++) {
        float values[V];
        for (int lane = 0; lane < V; lane++) values[lane] = lane < lanes ? from[lane * PIXELS + pixel] : 0;
        STOREV(LOADV(values), to + pixel * V);
    }
#else
    from += from_offset + blocked;
    to += to_offset + plain;
    for (int lane = 0; lane < lanes; lane++)
        for (int pixel = begin; pixel < end; pixel++) to[lane * PIXELS + pixel] = from[pixel * V + lane];
#endif
}
#undef NAME
#undef TO_BLOCKED
#undef CHANNELS
#undef PIXELS
#undef SPAN
