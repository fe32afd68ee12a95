/* Who names each row, as chains: NAME(list [COUNT + ROWS], rows [ROWS]),
 *
 *     list[r] = the least i with rows[i] = r, or -1;  list[COUNT + i] = the next i after it that names the same row, or -1
 *
 * A work-item owns OWN rows r and goes through `rows` once, from the end. Indices outside 0 .. COUNT - 1 name no row. */
kernel void NAME(global int *restrict list, ulong list_offset, global const int *restrict rows, ulong rows_offset) {
    const int begin = get_global_id(0) * OWN, end = min(begin + OWN, COUNT);
    global int *restrict first = list + list_offset, *restrict next = first + COUNT;
    rows += rows_offset;
    for (int r = begin; r < end; r++) first[r] = -1;
    for (int i = ROWS - 1; i >= 0; i--) {
        const int r = rows[i];
        if (r < begin || r >= end) continue;
        next[i] = first[r];
        first[r] = i;
    }
}
#undef NAME
#undef COUNT
#undef ROWS
#undef OWN
