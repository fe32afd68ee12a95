/* After the preamble in every program: what the text of fused kernels (host/compile/emit.c) calls. */
#if V == 1
#define LOADV_INT(p) (*(p))
#define STOREV_INT(v, p) (*(p) = (v))
#define CONVERT_INTV(v) ((int)(v))
#define CONVERT_UINTV(v) ((uint)(v))
#define FIRST_LANE(v) (v)
typedef uint uintv;
#define CONVERT_FLOATV(v) ((float)(v))
#else
#define LOADV_INT(p) JOIN(vload, V)(0, p)
#define STOREV_INT(v, p) JOIN(vstore, V)(v, 0, p)
#define FIRST_LANE(v) ((v).s0)
typedef JOIN(uint, V) uintv;
#define CONVERT_UINTV(v) JOIN(convert_uint, V)(v)
#define CONVERT_INTV(v) JOIN(JOIN(convert_int, V), _rtz)(v)
#define CONVERT_FLOATV(v) JOIN(convert_float, V)(v)
/* The last block of a row of channels: `count` lanes exist, the others read as zero and are not written. */
static inline floatv load_part(global const float *p, int count) {
    if (count >= V) return LOADV(p);
    float lanes[V];
    for (int i = 0; i < V; i++) lanes[i] = i < count ? p[i] : 0.0f;
    return LOADV(lanes);
}
/* Lanes into planes that lie `stride` apart. */
static inline void store_strided(floatv v, global float *p, int stride, int count) {
    float lanes[V];
    STOREV(v, lanes);
    UNROLL for (int i = 0; i < V; i++)
        if (i < count) p[i * stride] = lanes[i];
}
static inline void store_part(floatv v, global float *p, int count) {
    float lanes[V];
    STOREV(v, lanes);
    for (int i = 0; i < V && i < count; i++) p[i] = lanes[i];
}
#endif

/* Philox4x32-10, the twin of host/base/random.c; graph_random in host/graph/graph.h says how elements map to words. A
 * vector of elements i at once: neighbours share a block, but vectors of blocks would have to be shuffled. */
static inline void random_words(int seed0, int seed1, uint stream, intv i, uintv *c) {
    uint k0 = (uint)seed0, k1 = (uint)seed1;
    c[0] = CONVERT_UINTV(i) / 4;
    c[1] = c[2] = 0;
    c[3] = stream;
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        const uintv h0 = mul_hi((uintv)(0xD2511F53u), c[0]), h1 = mul_hi((uintv)(0xCD9E8D57u), c[2]);
        const uintv l0 = 0xD2511F53u * c[0], l1 = 0xCD9E8D57u * c[2];
        c[0] = h1 ^ c[1] ^ k0;
        c[1] = l1;
        c[2] = h0 ^ c[3] ^ k1;
        c[3] = l0;
    }
}
static inline floatv random_uniform(int seed0, int seed1, uint stream, intv i) {
    uintv c[4];
    random_words(seed0, seed1, stream, i, c);
    const intv odd = (i & 1) != 0, high = (i & 2) != 0;
    return CONVERT_FLOATV(select(select(c[0], c[1], odd), select(c[2], c[3], odd), high) >> 8) * 0x1p-24f;
}
static inline floatv random_normal(int seed0, int seed1, uint stream, intv i) {
    uintv c[4];
    random_words(seed0, seed1, stream, i, c);
    const intv odd = (i & 1) != 0, high = (i & 2) != 0;
    const floatv a = CONVERT_FLOATV(select(c[0], c[2], high) >> 8) * 0x1p-24f + 0x1p-24f;
    const floatv b = CONVERT_FLOATV(select(c[1], c[3], high) >> 8) * 0x1p-24f;
    const floatv radius = sqrt(-2.0f * log(a)), angle = 6.283185307179586f * b;
    return radius * select(cos(angle), sin(angle), odd);
}
