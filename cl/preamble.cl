/* First in every program. The host defines V, the lanes of a vector: 4, 8 or 16 in the CPU family, 1 in the GPU family.
 * floatv and intv are V lanes; every macro below works for V = 1 too. */
#if V == 1
typedef float floatv;
typedef int intv;
#define LOADV(p) (*(p))
#define STOREV(v, p) (*(p) = (v))
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
#elif V == 8
#define LANES ((int8)(0, 1, 2, 3, 4, 5, 6, 7))
#elif V == 4
#define LANES ((int4)(0, 1, 2, 3))
#endif
inline float LANE_SUM(floatv v) {
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
inline float LANE_MAX(floatv v) {
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
/* fma() is one instruction where the device has it and a slow call where not. */
#ifdef FP_FAST_FMAF
#define FMA(a, b, c) fma(a, b, c)
#else
#define FMA(a, b, c) ((a) * (b) + (c))
#endif
/* Before a loop over a register tile: the tile stays in registers only where the compiler sees constant indices. */
#define UNROLL _Pragma("unroll")
