/* Bilinear sampling of each image under its own affine map, and the transpose of that linear map:
 * NAME(out [N,CHANNELS,HEIGHT,WIDTH], image [N,CHANNELS,HEIGHT,WIDTH], map [N,2,3]).
 *
 * Output pixel (column j, row i) reads the image at x = m00 u + m01 v + m02, y = m10 u + m11 v + m12 in centred
 * coordinates (u = j - (WIDTH - 1) / 2, v = i - (HEIGHT - 1) / 2, x and y likewise): the four pixels round it, each
 * weighted by its nearness; outside is 0. TRANSPOSE gives back to each pixel what was read from it:
 *
 *     GATHER 0  a work-item a plane scatters its values serially: global (N * CHANNELS)
 *     GATHER 1  a work-item a pixel looks for the outputs that read it: global (pixels, N)
 *
 * Both add in the order of the outputs. Without TRANSPOSE: a work-item a pixel. */
#ifndef SAMPLE_FUNCTIONS
#define SAMPLE_FUNCTIONS
/* Where output (j, i) of an image of the given size reads, as column and row. */
static inline float2 sample_position(global const float *map, int j, int i, int width, int height) {
    const float centre_x = 0.5f * (width - 1), centre_y = 0.5f * (height - 1);
    const float u = j - centre_x, v = i - centre_y;
    return (float2)(FMA(map[0], u, FMA(map[1], v, map[2])) + centre_x,
                    FMA(map[3], u, FMA(map[4], v, map[5])) + centre_y);
}
/* How much a read at `position` takes from pixel `index`, along one axis. */
static inline float sample_weight(float position, int index) {
    const float below = floor(position);
    return index == below ? 1 - (position - below) : index == below + 1 ? position - below : 0;
}
#endif

kernel void NAME(global float *restrict out, ulong out_offset, global const float *restrict image, ulong image_offset,
                 global const float *restrict map, ulong map_offset) {
    out += out_offset;
    image += image_offset;
    map += map_offset;
#if TRANSPOSE && !GATHER
    const int plane = get_global_id(0);
    map += plane / CHANNELS * 6;
    out += plane * (HEIGHT * WIDTH);
    image += plane * (HEIGHT * WIDTH);
    for (int i = 0; i < HEIGHT * WIDTH; i++) out[i] = 0;
    for (int i = 0; i < HEIGHT; i++)
        for (int j = 0; j < WIDTH; j++) {
            const float2 at = sample_position(map, j, i, WIDTH, HEIGHT);
            if (!(at.x > -1 && at.x < WIDTH && at.y > -1 && at.y < HEIGHT)) continue;
            const int x = (int)floor(at.x), y = (int)floor(at.y);
            for (int qy = max(y, 0); qy <= min(y + 1, HEIGHT - 1); qy++)
                for (int qx = max(x, 0); qx <= min(x + 1, WIDTH - 1); qx++)
                    out[qy * WIDTH + qx] +=
                        sample_weight(at.x, qx) * sample_weight(at.y, qy) * image[i * WIDTH + j];
        }
#else
    const int pixel = get_global_id(0), n = get_global_id(1);
    if (pixel >= HEIGHT * WIDTH) return;
    map += n * 6;
    out += n * (CHANNELS * HEIGHT * WIDTH) + pixel;
    image += n * (CHANNELS * HEIGHT * WIDTH);
#if !TRANSPOSE
    const float2 at = sample_position(map, pixel % WIDTH, pixel / WIDTH, WIDTH, HEIGHT);
    const bool inside = at.x > -1 && at.x < WIDTH && at.y > -1 && at.y < HEIGHT;
    const int x = inside ? (int)floor(at.x) : 0, y = inside ? (int)floor(at.y) : 0;
    for (int c = 0; c < CHANNELS; c++) {
        float sum = 0;
        if (inside)
            for (int qy = max(y, 0); qy <= min(y + 1, HEIGHT - 1); qy++)
                for (int qx = max(x, 0); qx <= min(x + 1, WIDTH - 1); qx++)
                    sum += sample_weight(at.x, qx) * sample_weight(at.y, qy) *
                           image[(c * HEIGHT + qy) * WIDTH + qx];
        out[c * (HEIGHT * WIDTH)] = sum;
    }
#else
    /* Outputs that read this pixel lie where the map sends them less than 1 away along both axes: within the bounds of
     * that square under the inverse map, and one more for rounding. A map that hardly has an inverse: anywhere. */
    const int qx = pixel % WIDTH, qy = pixel / WIDTH;
    int j0 = 0, j1 = WIDTH - 1, i0 = 0, i1 = HEIGHT - 1;
    const float determinant = map[0] * map[4] - map[1] * map[3];
    if (fabs(determinant) > 1e-3f * (fabs(map[0] * map[4]) + fabs(map[1] * map[3]))) {
        const float centre_x = 0.5f * (WIDTH - 1), centre_y = 0.5f * (HEIGHT - 1), scale = 1 / determinant;
        const float dx = qx - centre_x - map[2], dy = qy - centre_y - map[5];
        const float j = (map[4] * dx - map[1] * dy) * scale + centre_x;
        const float i = (map[0] * dy - map[3] * dx) * scale + centre_y;
        const float reach_j = (fabs(map[4]) + fabs(map[1])) * fabs(scale) + 1;
        const float reach_i = (fabs(map[0]) + fabs(map[3])) * fabs(scale) + 1;
        /* Clamped as integers, so that no map, finite or not, leads outside. */
        j0 = clamp(convert_int_sat(j - reach_j), 0, WIDTH);
        j1 = clamp(convert_int_sat(j + reach_j), -1, WIDTH - 1);
        i0 = clamp(convert_int_sat(i - reach_i), 0, HEIGHT);
        i1 = clamp(convert_int_sat(i + reach_i), -1, HEIGHT - 1);
    }
    for (int c0 = 0; c0 < CHANNELS; c0 += CHANNELS_AT_ONCE) {
        float sum[CHANNELS_AT_ONCE];
        UNROLL for (int c = 0; c < CHANNELS_AT_ONCE; c++) sum[c] = 0;
        for (int i = i0; i <= i1; i++)
            for (int j = j0; j <= j1; j++) {
                const float2 at = sample_position(map, j, i, WIDTH, HEIGHT);
                const float weight = sample_weight(at.x, qx) * sample_weight(at.y, qy);
                if (weight == 0) continue;
                UNROLL for (int c = 0; c < CHANNELS_AT_ONCE; c++)
                    if (c0 + c < CHANNELS) sum[c] += weight * image[((c0 + c) * HEIGHT + i) * WIDTH + j];
            }
        UNROLL for (int c = 0; c < CHANNELS_AT_ONCE; c++)
            if (c0 + c < CHANNELS) out[(c0 + c) * (HEIGHT * WIDTH)] = sum[c];
    }
#endif
#endif
}
#undef NAME
#undef TRANSPOSE
#undef GATHER
#undef CHANNELS
#undef CHANNELS_AT_ONCE
#undef HEIGHT
#undef WIDTH
