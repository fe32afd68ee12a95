/* Weights for conv_cpu.cl and conv_few_cpu.cl.
 *
 *     NAME(packed, w)
 *
 * MIRRORED 0: w is [OUT_CHANNELS,IN_CHANNELS,KERNEL_HEIGHT,KERNEL_WIDTH], taken as it is. MIRRORED 1: w is
 * [IN_CHANNELS,OUT_CHANNELS,..], and the taps are read from the last to the first: backward-data as a convolution.
 * packed is [groups of OUT_LANES output channels][blocks of IN_LANES input channels][tap][..], zeros past the channels
 * there are; within a tap, input lane i and output lane o stand at i * IN_STEP + o * OUT_STEP.
 * Global (IN_BLOCKS, groups). */
#define TAPS (KERNEL_HEIGHT * KERNEL_WIDTH)

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict packed, ulong packed_offset,
                                                                global const float *restrict w, ulong w_offset) {
    const int block = get_global_id(0), group = get_global_id(1);
    w += w_offset;
    packed += packed_offset + ((ulong)group * IN_BLOCKS + block) * (TAPS * IN_LANES * OUT_LANES);
    for (int lane = 0; lane < IN_LANES; lane++)
        for (int out = 0; out < OUT_LANES; out++) {
            const int i = block * IN_LANES + lane, o = group * OUT_LANES + out;
            const bool inside = i < IN_CHANNELS && o < OUT_CHANNELS;
#if MIRRORED
            global const float *from = w + (i * OUT_CHANNELS + o) * TAPS;
#else
            global const float *from = w + (o * IN_CHANNELS + i) * TAPS;
#endif
            for (int tap = 0; tap < TAPS; tap++)
                packed[tap * IN_LANES * OUT_LANES + lane * IN_STEP + out * OUT_STEP] =
                    inside ? from[MIRRORED ? TAPS - 1 - tap : tap] : 0;
        }
}

#undef TAPS
#undef NAME
#undef MIRRORED
#undef IN_CHANNELS
#undef IN_BLOCKS
#undef IN_LANES
#undef OUT_CHANNELS
#undef KERNEL_HEIGHT
#undef KERNEL_WIDTH
#undef OUT_LANES
#undef IN_STEP
#undef OUT_STEP
