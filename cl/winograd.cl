/* One-dimensional Winograd transforms, after the preamble in every program: F(m, 3), m outputs of three taps from
 * m + 2 products. With input d, weights g and output y of one line,
 *
 *     y = A^T [ (G g) * (B^T d) ],   and its adjoint in g,   dg = G^T [ (B^T d) * (A dy) ].
 *
 * F(4,3) evaluates at 0, +-2/3, +-3/2 and infinity, not at 0, +-1, +-2: in float32 the error of a convolution over 128
 * channels is 2.3 times smaller by the root of the mean square and 5 times by the largest, and as 2/3 * 3/2 = 1 the
 * transforms are as short. F(2,3) evaluates at 0, +-1 and infinity. Each function reads and writes elements `step`
 * apart; two dimensions are two passes. The first number in a name is m. */
#define WINOGRAD_A (2.f / 3)
#define WINOGRAD_B 1.5f
#define WINOGRAD_AA (4.f / 9)
#define WINOGRAD_BB 2.25f

/* The values at the six points, from the parts even and odd in a pair of points that differ in sign. */
static inline void winograd4_points(floatv *to, int step, floatv at_0, floatv even_a, floatv odd_a, floatv even_b, floatv odd_b,
                             floatv at_infinity) {
    to[0] = at_0;
    to[step] = even_a + odd_a;
    to[2 * step] = even_a - odd_a;
    to[3 * step] = even_b + odd_b;
    to[4 * step] = even_b - odd_b;
    to[5 * step] = at_infinity;
}

/* B^T: 6 to 6 */
static inline void winograd4_input(floatv *to, const floatv *d, int step) {
    const floatv even_a = FMA((floatv)-WINOGRAD_BB, d[2 * step], d[4 * step]);
    const floatv even_b = FMA((floatv)-WINOGRAD_AA, d[2 * step], d[4 * step]);
    const floatv odd_a = FMA((floatv)WINOGRAD_A, d[3 * step], -WINOGRAD_B * d[step]);
    const floatv odd_b = FMA((floatv)WINOGRAD_B, d[3 * step], -WINOGRAD_A * d[step]);
    const floatv first = FMA((floatv)-(WINOGRAD_AA + WINOGRAD_BB), d[2 * step], d[0] + d[4 * step]);
    const floatv last = FMA((floatv)-(WINOGRAD_AA + WINOGRAD_BB), d[3 * step], d[step] + d[5 * step]);
    winograd4_points(to, step, first, even_a, odd_a, even_b, odd_b, last);
}

/* A^T: 6 to 4 */
static inline void winograd4_output(floatv *to, const floatv *m, int step) {
    const floatv even_a = m[step] + m[2 * step], odd_a = m[step] - m[2 * step];
    const floatv even_b = m[3 * step] + m[4 * step], odd_b = m[3 * step] - m[4 * step];
    const floatv first = m[0] + even_a + even_b;
    to[step] = FMA((floatv)WINOGRAD_A, odd_a, WINOGRAD_B * odd_b);
    to[2 * step] = FMA((floatv)WINOGRAD_AA, even_a, WINOGRAD_BB * even_b);
    to[3 * step] = FMA((floatv)(WINOGRAD_AA * WINOGRAD_A), odd_a,
                       FMA((floatv)(WINOGRAD_BB * WINOGRAD_B), odd_b, m[5 * step]));
    to[0] = first;
}

/* A: 4 to 6 */
static inline void winograd4_spread(floatv *to, const floatv *y, int step) {
    const floatv even_a = FMA((floatv)WINOGRAD_AA, y[2 * step], y[0]);
    const floatv even_b = FMA((floatv)WINOGRAD_BB, y[2 * step], y[0]);
    const floatv odd_a = FMA((floatv)(WINOGRAD_AA * WINOGRAD_A), y[3 * step], WINOGRAD_A * y[step]);
    const floatv odd_b = FMA((floatv)(WINOGRAD_BB * WINOGRAD_B), y[3 * step], WINOGRAD_B * y[step]);
    const floatv first = y[0], last = y[3 * step];
    winograd4_points(to, step, first, even_a, odd_a, even_b, odd_b, last);
}

/* The rows of G are 1, p, p^2 over the product of the differences of p from the other points. */
#define WINOGRAD_GA (1 / (2 * WINOGRAD_AA * (WINOGRAD_AA - WINOGRAD_BB)))
#define WINOGRAD_GB (1 / (2 * WINOGRAD_BB * (WINOGRAD_BB - WINOGRAD_AA)))

/* G: 3 to 6 */
static inline void winograd4_weights(floatv *to, const floatv *g, int step) {
    const floatv even_a = FMA((floatv)(WINOGRAD_GA * WINOGRAD_AA), g[2 * step], WINOGRAD_GA * g[0]);
    const floatv even_b = FMA((floatv)(WINOGRAD_GB * WINOGRAD_BB), g[2 * step], WINOGRAD_GB * g[0]);
    const floatv odd_a = WINOGRAD_GA * WINOGRAD_A * g[step], odd_b = WINOGRAD_GB * WINOGRAD_B * g[step];
    const floatv first = g[0], last = g[2 * step];
    winograd4_points(to, step, first, even_a, odd_a, even_b, odd_b, last);
}

/* G^T: 6 to 3 */
static inline void winograd4_gather(floatv *to, const floatv *m, int step) {
    const floatv even_a = WINOGRAD_GA * (m[step] + m[2 * step]), odd_a = m[step] - m[2 * step];
    const floatv even_b = WINOGRAD_GB * (m[3 * step] + m[4 * step]), odd_b = m[3 * step] - m[4 * step];
    to[0] = m[0] + even_a + even_b;
    to[step] = FMA((floatv)(WINOGRAD_GA * WINOGRAD_A), odd_a, WINOGRAD_GB * WINOGRAD_B * odd_b);
    to[2 * step] = FMA((floatv)WINOGRAD_AA, even_a, FMA((floatv)WINOGRAD_BB, even_b, m[5 * step]));
}

static inline void winograd2_input(floatv *to, const floatv *d, int step) {
    const floatv first = d[0] - d[2 * step], last = d[3 * step] - d[step];
    const floatv plus = d[step] + d[2 * step], minus = d[2 * step] - d[step];
    to[0] = first;
    to[step] = plus;
    to[2 * step] = minus;
    to[3 * step] = last;
}

static inline void winograd2_output(floatv *to, const floatv *m, int step) {
    const floatv first = m[0] + m[step] + m[2 * step];
    to[step] = m[step] - m[2 * step] + m[3 * step];
    to[0] = first;
}

static inline void winograd2_spread(floatv *to, const floatv *y, int step) {
    const floatv first = y[0], last = y[step];
    to[0] = first;
    to[step] = first + last;
    to[2 * step] = first - last;
    to[3 * step] = last;
}

static inline void winograd2_weights(floatv *to, const floatv *g, int step) {
    const floatv first = g[0], last = g[2 * step], even = 0.5f * (first + last), odd = 0.5f * g[step];
    to[0] = first;
    to[step] = even + odd;
    to[2 * step] = even - odd;
    to[3 * step] = last;
}

static inline void winograd2_gather(floatv *to, const floatv *m, int step) {
    const floatv even = 0.5f * (m[step] + m[2 * step]);
    to[0] = m[0] + even;
    to[step] = 0.5f * (m[step] - m[2 * step]);
    to[2 * step] = even + m[3 * step];
}
