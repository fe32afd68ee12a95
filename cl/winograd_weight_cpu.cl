/* Winograd backward-weight of 3x3 convolutions with stride 1 of blocked tensors, CPU family: the adjoint of
 * winograd_cpu.cl's algorithm in the weights.
 *
 *     NAME(gw [splits,OUT_CHANNELS,IN_CHANNELS,3,3], x [N,IN_CHANNELS,IN_HEIGHT,IN_WIDTH], gy [N,OUT_CHANNELS,...])
 *
 * or, where PAIRS is 2, the sum for two pairs of operands: (gw, x, gy, x, gy), the tiles of the second after the first's.
 *
 * A work-item takes IN_GROUP blocks of input channels against OUT_GROUP blocks of output channels over SPLIT_TILES tiles:
 * per TILES of them it transforms both operands into private memory and adds, at each point, their product over the
 * tiles to sums [point][input channel][output channel], which it transforms back in the end. All of it is to fit the
 * second cache. Where AHEAD is set, for operands that lie in memory, the next tiles are asked for while the products of
 * these are taken. Global (input groups, output groups, splits); sum_cpu.cl adds the splits. */
#define POINTS (OUT_TILE + 2)
#define TRANSFORM(name) JOIN(JOIN(winograd, OUT_TILE), name)
#define TILES_Y ((OUT_HEIGHT + OUT_TILE - 1) / OUT_TILE)
#define TILES_X ((OUT_WIDTH + OUT_TILE - 1) / OUT_TILE)
#define BLOCKS(channels) (((channels) + V - 1) / V)
/* The operand that holds image n, counted over both pairs. */
#if PAIRS == 2
#define IMAGE(n, operand) ((n) < N ? operand + operand##_offset : operand##1 + operand##1_offset)
#else
#define IMAGE(n, operand) (operand + operand##_offset)
#endif

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict gw, ulong gw_offset,
                                                                global const float *restrict x, ulong x_offset,
                                                                global const float *restrict gy, ulong gy_offset
#if PAIRS == 2
                                                                ,
                                                                global const float *restrict x1, ulong x1_offset,
                                                                global const float *restrict gy1, ulong gy1_offset
#endif
) {
    const int first_in = get_global_id(0) * IN_GROUP, first_out = get_global_id(1) * OUT_GROUP;
    const int begin_tile = get_global_id(2) * SPLIT_TILES;
    const int end_tile = min(begin_tile + SPLIT_TILES, PAIRS * N * TILES_Y * TILES_X);
    floatv total[POINTS * POINTS][IN_GROUP * V * OUT_GROUP + 1];
    gw += gw_offset + get_global_id(2) * (OUT_CHANNELS * IN_CHANNELS * 9);

    for (int first = begin_tile; first < end_tile; first += TILES) {
        floatv in[POINTS * POINTS][IN_GROUP * TILES + 1], out[POINTS * POINTS][OUT_GROUP * TILES + 1];
        /* Plane by plane, so that memory is read in rows. */
        for (int b = 0; b < IN_GROUP; b++)
            for (int t = 0; t < TILES; t++) {
                const int tile = min(first + t, end_tile - 1), n = tile / (TILES_Y * TILES_X);
                const int top = tile / TILES_X % TILES_Y * OUT_TILE - PAD, left = tile % TILES_X * OUT_TILE - PAD;
                const int plane = n % N * BLOCKS(IN_CHANNELS) + min(first_in + b, BLOCKS(IN_CHANNELS) - 1);
                global const float *from = IMAGE(n, x) + (plane * IN_HEIGHT + top) * IN_WIDTH * V + left * V;
                floatv d[POINTS * POINTS], half_done[POINTS * POINTS];
                if (top >= 0 && left >= 0 && top + POINTS <= IN_HEIGHT && left + POINTS <= IN_WIDTH) {
                    UNROLL for (int i = 0; i < POINTS * POINTS; i++)
                        d[i] = LOADV(from + (i / POINTS * IN_WIDTH + i % POINTS) * V);
                } else {
                    floatv bordered[POINTS * POINTS];
                    ROLL for (int r = 0; r < POINTS; r++)
                        UNROLL for (int c = 0; c < POINTS; c++) {
                            const int iy = top + r, ix = left + c;
                            const bool inside = iy >= 0 && iy < IN_HEIGHT && ix >= 0 && ix < IN_WIDTH;
                            bordered[r * POINTS + c] = inside ? LOADV(from + (r * IN_WIDTH + c) * V) : 0;
                        }
                    UNROLL for (int i = 0; i < POINTS * POINTS; i++) d[i] = bordered[i];
                }
                UNROLL for (int i = 0; i < POINTS; i++) TRANSFORM(_input)(half_done + i, d + i, POINTS);
                UNROLL for (int i = 0; i < POINTS; i++) TRANSFORM(_input)(d + i * POINTS, half_done + i * POINTS, 1);
                UNROLL for (int p = 0; p < POINTS * POINTS; p++) in[p][b * TILES + t] = d[p];
            }
        for (int b = 0; b < OUT_GROUP; b++)
            for (int t = 0; t < TILES; t++) {
                const int tile = min(first + t, end_tile - 1), n = tile / (TILES_Y * TILES_X);
                const int top = tile / TILES_X % TILES_Y * OUT_TILE, left = tile % TILES_X * OUT_TILE;
                const int plane = n % N * BLOCKS(OUT_CHANNELS) + min(first_out + b, BLOCKS(OUT_CHANNELS) - 1);
                global const float *from = IMAGE(n, gy) + (plane * OUT_HEIGHT + top) * OUT_WIDTH * V + left * V;
                floatv d[OUT_TILE * OUT_TILE], half_done[OUT_TILE * POINTS], s[POINTS * POINTS];
                UNROLL for (int i = 0; i < OUT_TILE * OUT_TILE; i++) {
                    const bool inside = first + t < end_tile && top + i / OUT_TILE < OUT_HEIGHT
                                        && left + i % OUT_TILE < OUT_WIDTH;
                    d[i] = inside ? LOADV(from + (i / OUT_TILE * OUT_WIDTH + i % OUT_TILE) * V) : 0;
                }
                UNROLL for (int i = 0; i < OUT_TILE; i++) TRANSFORM(_spread)(half_done + i, d + i, OUT_TILE);
                UNROLL for (int i = 0; i < POINTS; i++) TRANSFORM(_spread)(s + i * POINTS, half_done + i * OUT_TILE, 1);
                UNROLL for (int p = 0; p < POINTS * POINTS; p++) out[p][t * OUT_GROUP + b] = s[p];
            }
        for (int p = 0; p < POINTS * POINTS; p++) {
#if AHEAD
            for (int i = p; i < (IN_GROUP + OUT_GROUP) * TILES; i += POINTS * POINTS) {
                const int tile = min(first + TILES + i % TILES, end_tile - 1), n = tile / (TILES_Y * TILES_X);
                const int top = tile / TILES_X % TILES_Y * OUT_TILE, left = tile % TILES_X * OUT_TILE, b = i / TILES;
                const int height = b < IN_GROUP ? IN_HEIGHT : OUT_HEIGHT, width = b < IN_GROUP ? IN_WIDTH : OUT_WIDTH;
                const int block = b < IN_GROUP ? min(first_in + b, BLOCKS(IN_CHANNELS) - 1)
                                               : min(first_out + b - IN_GROUP, BLOCKS(OUT_CHANNELS) - 1);
                const int plane = n % N * (b < IN_GROUP ? BLOCKS(IN_CHANNELS) : BLOCKS(OUT_CHANNELS)) + block;
                global const float *from = b < IN_GROUP ? IMAGE(n, x) : IMAGE(n, gy);
                from += ((plane * height + top) * width + left) * V;
                UNROLL for (int k = 0; k < OUT_TILE * OUT_TILE; k++)
                    PREFETCH(from + (k / OUT_TILE * width + k % OUT_TILE) * V);
            }
#endif
            for (int c = 0; c < IN_GROUP * V; c += SUM_CHANNELS) {
                const float *value = (const float *)&in[p][c / V * TILES] + c % V;
                for (int b = 0; b < OUT_GROUP; b += SUM_BLOCKS) {
                    floatv sum[SUM_CHANNELS][SUM_BLOCKS];
                    /* In the first round `total` holds nothing yet: not reading it saves setting it to zero. */
                    if (first == begin_tile) {
                        UNROLL for (int i = 0; i < SUM_CHANNELS; i++)
                            UNROLL for (int k = 0; k < SUM_BLOCKS; k++) sum[i][k] = 0;
                    } else {
                        UNROLL for (int i = 0; i < SUM_CHANNELS; i++)
                            UNROLL for (int k = 0; k < SUM_BLOCKS; k++)
                                sum[i][k] = total[p][(c + i) * OUT_GROUP + b + k];
                    }
                    ROLL for (int four = 0; four < TILES; four += 4)
                        UNROLL for (int t = four; t < four + 4; t++)
                            UNROLL for (int k = 0; k < SUM_BLOCKS; k++) {
                                const floatv gradient = out[p][t * OUT_GROUP + b + k];
                                UNROLL for (int i = 0; i < SUM_CHANNELS; i++)
                                    sum[i][k] = FMA((floatv)value[t * V + i], gradient, sum[i][k]);
                            }
                    UNROLL for (int i = 0; i < SUM_CHANNELS; i++)
                        UNROLL for (int k = 0; k < SUM_BLOCKS; k++) total[p][(c + i) * OUT_GROUP + b + k] = sum[i][k];
                }
            }
        }
    }

    for (int c = first_in * V; c < min((first_in + IN_GROUP) * V, IN_CHANNELS); c++)
        for (int b = 0; b < OUT_GROUP; b++) {
            const int o = (first_out + b) * V;
            floatv m[POINTS * POINTS], half_done[3 * POINTS], g[9];
            UNROLL for (int p = 0; p < POINTS * POINTS; p++) m[p] = total[p][(c - first_in * V) * OUT_GROUP + b];
            UNROLL for (int i = 0; i < POINTS; i++) TRANSFORM(_gather)(half_done + i, m + i, POINTS);
            UNROLL for (int i = 0; i < 3; i++) TRANSFORM(_gather)(g + i * 3, half_done + i * POINTS, 1);
            for (int i = 0; i < min(V, OUT_CHANNELS - o); i++)
                UNROLL for (int tap = 0; tap < 9; tap++)
                    gw[((o + i) * IN_CHANNELS + c) * 9 + tap] = ((const float *)&g[tap])[i];
        }
}

#undef POINTS
#undef TRANSFORM
#undef TILES_Y
#undef TILES_X
#undef BLOCKS
#undef IMAGE
#undef NAME
#undef AHEAD
#undef OUT_TILE
#undef N
#undef PAIRS
#undef IN_CHANNELS
#undef IN_HEIGHT
#undef IN_WIDTH
#undef OUT_CHANNELS
#undef OUT_HEIGHT
#undef OUT_WIDTH
#undef PAD
#undef IN_GROUP
#undef OUT_GROUP
#undef SPLIT_TILES
#undef TILES
#undef SUM_CHANNELS
#undef SUM_BLOCKS
