/* The right operand for matmul_cpu.cl: NAME(packed, b). Element (k, n) of matrix i of b stands at (i * K * N) + k *
 * B_ROW + n * B_COLUMN; packed is [batch][panels of PANEL columns][K][PANEL], zeros past N. PANEL is a multiple of V. A
 * work-item packs SHARE steps of all panels: global (K / SHARE rounded up, batch, 1). */
__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict packed, ulong packed_offset,
                                                                global const float *restrict b, ulong b_offset) {
    const int first = get_global_id(0) * SHARE, last = min(first + SHARE, K);
    const ulong matrix = get_global_id(1);
    b += b_offset + matrix * (K * N);
    packed += packed_offset + matrix * ((N + PANEL - 1) / PANEL * PANEL * (ulong)K);
    for (int column = 0; column < N; column += PANEL, packed += K * PANEL)
        for (int k = first; k < last; k++)
            for (int vector = 0; vector < PANEL; vector += V) {
                const int there = min(N - column - vector, V);
                global const float *from = b + k * B_ROW + (column + vector) * B_COLUMN;
                if (there == V)
                    STOREV(STRIDEDV(from, B_COLUMN), packed + k * PANEL + vector);
                else
                    for (int i = 0; i < V; i++) (packed + k * PANEL + vector)[i] = i < there ? from[i * B_COLUMN] : 0;
            }
}

#undef NAME
#undef N
#undef K
#undef B_ROW
#undef B_COLUMN
#undef PANEL
#undef SHARE
