/* Adds rows to the rows their indices name: NAME(out [COUNT,WIDTH], values [ROWS,WIDTH], rows),
 *
 *     out[r] = sum over i with rows[i] = r of values[i], i upwards.
 *
 * With LISTED `rows` is the result of scatter_list.cl and a row visits those that name it; otherwise it is the indices
 * themselves, [ROWS], few enough to look at all of them. A work-item computes SPAN elements of one row: global
 * (spans, COUNT). Rows that no index names become zero; indices outside 0 .. COUNT - 1 name no row. */
kernel void NAME(global float *restrict out, ulong out_offset, global const float *restrict values,
                 ulong values_offset, global const int *restrict rows, ulong rows_offset) {
    const int row = get_global_id(1);
    const int begin = get_global_id(0) * SPAN, end = min(begin + SPAN, WIDTH);
    out += out_offset + (ulong)row * WIDTH;
    values += values_offset;
    rows += rows_offset;
    for (int j = begin; j < end; j++) out[j] = 0;
#if LISTED
    for (int i = rows[row]; i >= 0; i = rows[COUNT + i])
        for (int j = begin; j < end; j++) out[j] += values[(ulong)i * WIDTH + j];
#else
    for (int i = 0; i < ROWS; i++)
        if (rows[i] == row)
            for (int j = begin; j < end; j++) out[j] += values[(ulong)i * WIDTH + j];
#endif
}
#undef NAME
#undef LISTED
#undef COUNT
#undef WIDTH
#undef ROWS
#undef SPAN
