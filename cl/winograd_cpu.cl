/* Winograd convolutions of blocked tensors by 3x3 weights, stride 1, CPU family: the forward pass and, with mirrored
 * weights, backward-data; one, or a few of the same sizes that share inputs or weights.
 *
 *     NAME(y [N,OUT_CHANNELS,OUT_HEIGHT,OUT_WIDTH], ..., x [N,IN_CHANNELS,IN_HEIGHT,IN_WIDTH], ..., packed, ...)
 *
 * with OUTPUTS, INPUTS and WEIGHTS (1 or 2 each) of them, all blocked. Output o is the sum of input i by weights w for
 * which bit (o * 2 + i) * 2 + w of TERMS is set. `packed` is what winograd_pack_cpu.cl writes: [groups of OUT_GROUP
 * blocks of output channels][point][input channel][OUT_GROUP * V output lanes], V floats of padding behind each point's
 * channels (points a power of two apart would share a set of the cache).
 *
 * Tiles of OUT_TILE x OUT_TILE output pixels are counted through all images. A work-item takes TILES of them through the
 * whole algorithm: their inputs, transformed, stay in private memory, of a size for the second cache; then, for each of
 * its groups of output channels, one small matrix product a point, and the transform back. Global (groups of tiles,
 * parts of the output channels, 1).
 *
 * All work-items read all weights, point by point. Where AHEAD is set, for processors whose last cache is too slow for
 * that, they ask for what comes next: for the weights AHEAD_CHANNELS further on, which in the last pass over a point's
 * are the next point's, for the inputs of the next block of channels, and for the lines that outputs are written to. */
#define AHEAD_CHANNELS 16
#define POINTS (OUT_TILE + 2)
#define TRANSFORM(name) JOIN(JOIN(winograd, OUT_TILE), name)
#define TILES_Y ((OUT_HEIGHT + OUT_TILE - 1) / OUT_TILE)
#define TILES_X ((OUT_WIDTH + OUT_TILE - 1) / OUT_TILE)

#define IS_TERM(o, i, w) (TERMS >> (((o) * 2 + (i)) * 2 + (w)) & 1)
#define POINT_FLOATS ((IN_BLOCKS * V * OUT_GROUP + 1) * V)

__attribute__((reqd_work_group_size(1, 1, 1))) kernel void NAME(global float *restrict y0, ulong y0_offset,
#if OUTPUTS == 2
                                                                global float *restrict y1, ulong y1_offset,
#endif
                                                                global const float *restrict x0, ulong x0_offset,
#if INPUTS == 2
                                                                global const float *restrict x1, ulong x1_offset,
#endif
                                                                global const float *restrict packed0,
                                                                ulong packed0_offset
#if WEIGHTS == 2
                                                                ,
                                                                global const float *restrict packed1,
                                                                ulong packed1_offset
#endif
) {
    const int first_tile = get_global_id(0) * TILES, count = min(TILES, N * TILES_Y * TILES_X - first_tile);
    floatv in[INPUTS][POINTS * POINTS][IN_BLOCKS * TILES + 1];
    global float *const y[OUTPUTS] = {y0 + y0_offset,
#if OUTPUTS == 2
                                      y1 + y1_offset
#endif
    };
    global const float *const x[INPUTS] = {x0 + x0_offset,
#if INPUTS == 2
                                           x1 + x1_offset
#endif
    };
    global const float *const packed[WEIGHTS] = {packed0 + packed0_offset,
#if WEIGHTS == 2
                                                 packed1 + packed1_offset
#endif
    };

    for (int i = 0; i < INPUTS; i++)
        for (int block = 0; block < IN_BLOCKS; block++)
            for (int t = 0; t < TILES; t++) {
                const int tile = first_tile + min(t, count - 1), n = tile / (TILES_Y * TILES_X);
                const int top = tile / TILES_X % TILES_Y * OUT_TILE - PAD, left = tile % TILES_X * OUT_TILE - PAD;
                global const float *from = x[i] + ((n * IN_BLOCKS + block) * IN_HEIGHT + top) * IN_WIDTH * V + left * V;
#if AHEAD
                /* Of the next block's tile, the pixels that no neighbour asks for. */
                UNROLL for (int k = 0; k < OUT_TILE * OUT_TILE; k++)
                    PREFETCH(from + (IN_HEIGHT * IN_WIDTH + (PAD + k / OUT_TILE) * IN_WIDTH + PAD + k % OUT_TILE) * V);
#endif
                floatv d[POINTS * POINTS], half_done[POINTS * POINTS];
                if (top >= 0 && left >= 0 && top + POINTS <= IN_HEIGHT && left + POINTS <= IN_WIDTH) {
                    UNROLL for (int k = 0; k < POINTS * POINTS; k++)
                        d[k] = LOADV(from + (k / POINTS * IN_WIDTH + k % POINTS) * V);
                } else {
                    floatv bordered[POINTS * POINTS];
                    ROLL for (int r = 0; r < POINTS; r++)
                        UNROLL for (int c = 0; c < POINTS; c++) {
                            const int iy = top + r, ix = left + c;
                            const bool there = iy >= 0 && iy < IN_HEIGHT && ix >= 0 && ix < IN_WIDTH;
                            bordered[r * POINTS + c] = there ? LOADV(from + (r * IN_WIDTH + c) * V) : 0;
                        }
                    UNROLL for (int k = 0; k < POINTS * POINTS; k++) d[k] = bordered[k];
                }
                UNROLL for (int k = 0; k < POINTS; k++) TRANSFORM(_input)(half_done + k, d + k, POINTS);
                UNROLL for (int k = 0; k < POINTS; k++) TRANSFORM(_input)(d + k * POINTS, half_done + k * POINTS, 1);
                UNROLL for (int p = 0; p < POINTS * POINTS; p++) in[i][p][block * TILES + t] = d[p];
            }

    for (int group = get_global_id(1) * PART_GROUPS; group < min((int)(get_global_id(1) + 1) * PART_GROUPS, OUT_GROUPS);
         group++) {
        floatv out[OUTPUTS][POINTS * POINTS][TILES * OUT_GROUP + 1];
        for (int p = 0; p < POINTS * POINTS; p++) {
            const ulong at = (ulong)(group * POINTS * POINTS + p) * POINT_FLOATS;
#if AHEAD
            /* Each point's turn asks for a part of the output lines. */
            for (int i = p; i < OUTPUTS * OUT_GROUP * count; i += POINTS * POINTS) {
                const int tile = first_tile + i % count, n = tile / (TILES_Y * TILES_X);
                const int top = tile / TILES_X % TILES_Y * OUT_TILE, left = tile % TILES_X * OUT_TILE;
                const int block = group * OUT_GROUP + i / count % OUT_GROUP;
                global float *to = y[i / count / OUT_GROUP]
                                   + ((n * OUT_BLOCKS + block) * OUT_HEIGHT + top) * OUT_WIDTH * V + left * V;
                UNROLL for (int k = 0; k < OUT_TILE * OUT_TILE; k++)
                    PREFETCH_WRITE(to + (k / OUT_TILE * OUT_WIDTH + k % OUT_TILE) * V);
            }
#endif
            for (int o = 0; o < OUTPUTS; o++)
                for (int t = 0; t < TILES; t += TILE_GROUP) {
                    floatv sum[TILE_GROUP][OUT_GROUP];
                    UNROLL for (int i = 0; i < TILE_GROUP; i++)
                        UNROLL for (int b = 0; b < OUT_GROUP; b++) sum[i][b] = 0;
                    for (int term = 0; term < INPUTS * WEIGHTS; term++) {
                        if (!IS_TERM(o, term / WEIGHTS, term % WEIGHTS)) continue;
                        global const float *w = packed[term % WEIGHTS] + at;
                        for (int block = 0; block < IN_BLOCKS; block++) {
                            const float *value = (const float *)&in[term / WEIGHTS][p][block * TILES + t];
                            ROLL for (int four = 0; four < V; four += 4, value += 4)
                                UNROLL for (int lane = 0; lane < 4; lane++, w += OUT_GROUP * V) {
#if AHEAD
                                    UNROLL for (int b = 0; b < OUT_GROUP; b++)
                                        PREFETCH_NEAR(w + (AHEAD_CHANNELS * OUT_GROUP + b) * V);
#endif
                                    floatv weight[OUT_GROUP];
                                    UNROLL for (int b = 0; b < OUT_GROUP; b++) weight[b] = LOADV(w + b * V);
                                    UNROLL for (int i = 0; i < TILE_GROUP; i++)
                                        UNROLL for (int b = 0; b < OUT_GROUP; b++)
                                            sum[i][b] = FMA((floatv)value[i * V + lane], weight[b], sum[i][b]);
                                }
                        }
                    }
                    UNROLL for (int i = 0; i < TILE_GROUP; i++)
                        UNROLL for (int b = 0; b < OUT_GROUP; b++) out[o][p][(t + i) * OUT_GROUP + b] = sum[i][b];
                }
        }
        for (int t = 0; t < count; t++) {
            const int tile = first_tile + t, n = tile / (TILES_Y * TILES_X);
            const int top = tile / TILES_X % TILES_Y * OUT_TILE, left = tile % TILES_X * OUT_TILE;
            for (int b = 0; b < min(OUT_GROUP, OUT_BLOCKS - group * OUT_GROUP); b++)
                for (int o = 0; o < OUTPUTS; o++) {
                    floatv m[POINTS * POINTS], half_done[OUT_TILE * POINTS], result[OUT_TILE * OUT_TILE];
                    UNROLL for (int p = 0; p < POINTS * POINTS; p++) m[p] = out[o][p][t * OUT_GROUP + b];
                    UNROLL for (int i = 0; i < POINTS; i++) TRANSFORM(_output)(half_done + i, m + i, POINTS);
                    UNROLL for (int i = 0; i < OUT_TILE; i++)
                        TRANSFORM(_output)(result + i * OUT_TILE, half_done + i * POINTS, 1);
                    global float *to = y[o]
                                       + ((n * OUT_BLOCKS + group * OUT_GROUP + b) * OUT_HEIGHT + top) * OUT_WIDTH * V
                                       + left * V;
                    UNROLL for (int i = 0; i < OUT_TILE * OUT_TILE; i++)
                        if (top + i / OUT_TILE < OUT_HEIGHT && left + i % OUT_TILE < OUT_WIDTH)
                            STOREV(result[i], to + (i / OUT_TILE * OUT_WIDTH + i % OUT_TILE) * V);
                }
        }
    }
}

#undef POINTS
#undef TRANSFORM
#undef TILES_Y
#undef TILES_X
#undef IS_TERM
#undef POINT_FLOATS
#undef AHEAD_CHANNELS
#undef NAME
#undef OUT_TILE
#undef OUTPUTS
#undef INPUTS
#undef WEIGHTS
#undef TERMS
#undef N
#undef IN_HEIGHT
#undef IN_WIDTH
#undef IN_BLOCKS
#undef OUT_HEIGHT
#undef OUT_WIDTH
#undef OUT_BLOCKS
#undef OUT_GROUP
#undef OUT_GROUPS
#undef PART_GROUPS
#undef PAD
#undef TILES
#undef TILE_GROUP
#undef AHEAD
