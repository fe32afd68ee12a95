/* First in every program. The host defines V, the lanes of a vector: 4, 8 or 16 in the CPU family, 1 in the GPU family.
 * floatv and intv are V lanes; every macro below works for V = 1 too. STRIDEDV(p, s) is
 * the vector p[0], p[s], p[2 s], ... */

/* Before a loop over a register tile: the tile stays in registers only where the compiler sees constant indices. */
#define UNROLL _Pragma("unroll")
/* Before a loop with a large body, which compilers would unroll at the cost of seconds. */
#define ROLL _Pragma("nounroll")

/* Asks for the line at a global address that is soon to be read, into the first cache (PREFETCH_NEAR) or the second, or
 * that is to be written; OpenCL's own prefetch() does nothing on CPUs. Any address may be asked for, also one behind a
 * buffer's end. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_prefetch)
#define PREFETCH(p) __builtin_prefetch((const void *)(ulong)(p), 0, 2)
#define PREFETCH_NEAR(p) __builtin_prefetch((const void *)(ulong)(p), 0, 3)
#define PREFETCH_WRITE(p) __builtin_prefetch((const void *)(ulong)(p), 1, 2)
#endif
#endif
#ifndef PREFETCH
#define PREFETCH(p) (void)(p)
#define PREFETCH_NEAR(p) (void)(p)
#define PREFETCH_WRITE(p) (void)(p)
#endif

#if V == 1
typedef float floatv;
typedef int intv;
#define LOADV(p) (*(p))
#define STOREV(v, p) (*(p) = (v))
#define STRIDEDV(p, s) (*(p))
#define LANES ((int)0)
#define LANE_SUM(v) (v)
#define LANE_MAX(v) (v)
#else
#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
typedef JOIN(float, V) floatv;
typedef JOIN(int, V) intv;
#define LOADV(p) JOIN(vload, V)(0, p)
#define STOREV(v, p) JOIN(vstore, V)(v, 0, p)
#if V == 16
#define LANES ((int16)(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))
#define STRIDEDV(p, s) \
    ((float16)((p)[0 * (s)], (p)[1 * (s)], (p)[2 * (s)], (p)[3 * (s)], \
               (p)[4 * (s)], (p)[5 * (s)], (p)[6 * (s)], (p)[7 * (s)], \
               (p)[8 * (s)], (p)[9 * (s)], (p)[10 * (s)], (p)[11 * (s)], \
               (p)[12 * (s)], (p)[13 * (s)], (p)[14 * (s)], (p)[15 * (s)]))
#elif V == 8
#define LANES ((int8)(0, 1, 2, 3, 4, 5, 6, 7))
#define STRIDEDV(p, s) \
    ((float8)((p)[0 * (s)], (p)[1 * (s)], (p)[2 * (s)], (p)[3 * (s)], \
              (p)[4 * (s)], (p)[5 * (s)], (p)[6 * (s)], (p)[7 * (s)]))
#elif V == 4
#define LANES ((int4)(0, 1, 2, 3))
#define STRIDEDV(p, s) \
    ((float4)((p)[0 * (s)], (p)[1 * (s)], (p)[2 * (s)], (p)[3 * (s)]))
#endif
static inline float LANE_SUM(floatv v) {
#if V == 16
    float8 a = v.lo + v.hi;
    float4 b = a.lo + a.hi;
#elif V == 8
    float4 b = v.lo + v.hi;
#else
    float4 b = v;
#endif
    float2 c = b.lo + b.hi;
    return c.x + c.y;
}
static inline float LANE_MAX(floatv v) {
#if V == 16
    float8 a = fmax(v.lo, v.hi);
    float4 b = fmax(a.lo, a.hi);
#elif V == 8
    float4 b = fmax(v.lo, v.hi);
#else
    float4 b = v;
#endif
    float2 c = fmax(b.lo, b.hi);
    return fmax(c.x, c.y);
}
#endif
/* Lane i of the result is the sum of the lanes of v[i], for V vectors at once: two vectors become one that holds half of
 * the sums of each, and so on. Halves are added first and neighbours last, because x86's instruction that adds
 * neighbours knows only half of AVX-512's registers: it would drive the sums of the loop before it into memory. */
static inline floatv LANE_SUMS(const floatv *v) {
#if V == 1
    return v[0];
#else
    floatv sum[V];
    UNROLL for (int i = 0; i < V; i++) sum[i] = v[i];
#define ADD(count, lower, upper)                                                                            \
    UNROLL for (int i = 0; i < count; i++) sum[i] = (floatv)(lower(sum[2 * i]), lower(sum[2 * i + 1]))       \
                                                  + (floatv)(upper(sum[2 * i]), upper(sum[2 * i + 1]));
#define LOWER_HALF(a) a.lo
#define UPPER_HALF(a) a.hi
#define LOWER_FOURS(a) a.s0123, a.s89ab
#define UPPER_FOURS(a) a.s4567, a.scdef
#define EVEN(a) a.even
#define ODD(a) a.odd
    ADD(V / 2, LOWER_HALF, UPPER_HALF)
#if V == 16
#define LOWER_PAIRS(a) a.s014589cd
#define UPPER_PAIRS(a) a.s2367abef
    ADD(4, LOWER_FOURS, UPPER_FOURS)
    ADD(2, LOWER_PAIRS, UPPER_PAIRS)
#elif V == 8
#define LOWER_PAIRS(a) a.s0145
#define UPPER_PAIRS(a) a.s2367
    ADD(2, LOWER_PAIRS, UPPER_PAIRS)
#endif
    ADD(1, EVEN, ODD)
#undef ADD
    return sum[0];
#endif
}
/* fma() is one instruction where the device has it and a slow call where not. */
#ifdef FP_FAST_FMAF
#define FMA(a, b, c) fma(a, b, c)
#else
#define FMA(a, b, c) ((a) * (b) + (c))
#endif

/* Part of a row of an image, from column `start` on, with zeros where that is beyond the image's border: `width` floats,
 * from a row of row_width; 0: all of the row is beyond it. */
static inline void copy_row(float *to, int width, global const float *row, int row_width, int start) {
    const int first = clamp(-start, 0, width), last = clamp(row_width - start, first, width);
    for (int i = 0; i < first; i++) to[i] = 0;
    for (int i = first; i < last; i++) to[i] = row[start + i];
    for (int i = last; i < width; i++) to[i] = 0;
}
