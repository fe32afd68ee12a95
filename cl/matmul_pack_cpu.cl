/* The right operand for matmul_cpu.cl: NAME(packed, b). Element (k, n) of matrix i of b stands at
 * (i * K * N) + k * B_ROW + n * B_COLUMN; packed is [batch][panels of PANEL columns][K][PANEL], zeros past N. A
 * work-item packs SHARE steps of one panel: global (K / SHARE rounded up, panels, batch). */
__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict packed, ulong packed_offset,
                                                                global const float *restrict b, ulong b_offset) {
    const int first = get_global_id(0) * SHARE, last = min(first + SHARE, K), column = get_global_id(1) * PANEL;
    const ulong matrix = get_global_id(2);
    b += b_offset + matrix * (K * N);
    packed += packed_offset + (matrix * ((N + PANEL - 1) / PANEL) * PANEL + column) * K;
    for (int k = first; k < last; k++)
        for (int lane = 0; lane < PANEL; lane++)
            packed[k * PANEL + lane] = column + lane < N ? b[k * B_ROW + (column + lane) * B_COLUMN] : 0;
}

#undef NAME
#undef N
#undef K
#undef B_ROW
#undef B_COLUMN
#undef PANEL
#undef SHARE
