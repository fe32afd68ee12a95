/* Staged Winograd F(4,3), first stage, GPU family: NAME(points [INPUTS][36][CHANNELS][TILES], one image tensor for each of
 * INPUTS). A tile is 4 x 4 pixels of a result; TILES_Y x TILES_X of them cover an image, one image after another.
 *
 *     SPREAD 0   B^T d B of the 6 x 6 pixels that a tile's outputs read, which begin PAD above and left of it
 *     SPREAD 1   A y A^T of the tile itself, for the sum over tiles of a backward-weight
 *
 * Pixels outside an image of IN_H x IN_W count as zero. A work-item transforms one tile of one channel; neighbours take
 * neighbouring tiles, and write side by side. Global (TILES or more, CHANNELS, INPUTS). */
#define SIDE (SPREAD ? 4 : 6)
kernel void NAME(global float *restrict points, ulong points_offset, global const float *restrict x0, ulong x0_offset
#if INPUTS > 1
                 , global const float *restrict x1, ulong x1_offset
#endif
) {
    const uint tile = get_global_id(0), channel = get_global_id(1), input = get_global_id(2);
    if (tile >= TILES) return;
    const uint image = tile / (TILES_X * TILES_Y), within = tile % (TILES_X * TILES_Y);
    const int top = (int)(within / TILES_X) * 4 - PAD, left = (int)(within % TILES_X) * 4 - PAD;
    global const float *x = x0 + x0_offset;
#if INPUTS > 1
    if (input == 1) x = x1 + x1_offset;
#endif
    x += (image * CHANNELS + channel) * (IN_H * IN_W);
    float d[36], t[36];
    UNROLL for (int r = 0; r < SIDE; r++)
        UNROLL for (int s = 0; s < SIDE; s++) {
            const int y = top + r, z = left + s;
            const bool inside = (uint)y < IN_H && (uint)z < IN_W;
            const float value = x[inside ? y * IN_W + z : 0];
            d[r * SIDE + s] = inside ? value : 0;
        }
#if SPREAD
    UNROLL for (int s = 0; s < 4; s++) winograd4_spread(t + s, d + s, 4);
    UNROLL for (int r = 0; r < 6; r++) winograd4_spread(d + r * 6, t + r * 4, 1);
#else
    UNROLL for (int s = 0; s < 6; s++) winograd4_input(t + s, d + s, 6);
    UNROLL for (int r = 0; r < 6; r++) winograd4_input(d + r * 6, t + r * 6, 1);
#endif
    points += points_offset + ((ulong)input * (36 * CHANNELS) + channel) * TILES + tile;
    UNROLL for (int p = 0; p < 36; p++) points[(ulong)p * (CHANNELS * TILES)] = d[p];
}
#undef SIDE
#undef NAME
#undef SPREAD
#undef INPUTS
#undef CHANNELS
#undef TILES
#undef TILES_X
#undef TILES_Y
#undef IN_H
#undef IN_W
#undef PAD
