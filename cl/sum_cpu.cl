/* Adds partial results in a fixed order, CPU family: NAME(out [COUNT], work [PARTS,COUNT]). Each work-item sums SHARE
 * neighbours: global (COUNT / SHARE rounded up, 1, 1). */
__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict out, ulong out_offset,
                                                                global const float *restrict work, ulong work_offset) {
    const int first = get_global_id(0) * SHARE, last = min(first + SHARE, COUNT);
    out += out_offset;
    work += work_offset;
    int i = first;
    for (; i + V <= last; i += V) {
        floatv sum = LOADV(work + i);
        for (int part = 1; part < PARTS; part++) sum += LOADV(work + (ulong)part * COUNT + i);
        STOREV(sum, out + i);
    }
    for (; i < last; i++) {
        float sum = work[i];
        for (int part = 1; part < PARTS; part++) sum += work[(ulong)part * COUNT + i];
        out[i] = sum;
    }
}

#undef NAME
#undef COUNT
#undef PARTS
#undef SHARE
