/* After the preamble in every program of the GPU family: reductions over the `items` work-items, a power of two, that
 * share a row or an array, in a fixed order; each of them gets the results. `lane` is an item's number among them,
 * `lid` that in its group of `size` items, and those of neighbouring lanes differ by `stride`. A group's items come
 * here together, whether their rows are the same or not.
 *
 * Each step of the tree takes four numbers to one, so that there are few barriers, and after the last barrier each item
 * adds up what is left by itself. No barrier follows the last read: the next reduction uses other local memory, and the
 * barriers inside that one come before this memory is used again. */
static inline __attribute__((always_inline)) void shared_sums(int count, float *x, int lid, int size, int lane,
                                                              int items, int stride, local float *scratch) {
    local float *own = scratch + lid, *first = own - lane * stride;
    int left = items;
    UNROLL for (int i = 0; i < count; i++) own[i * size] = x[i];
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL for (; left > 4; left /= 4) {
        const int q = left / 4 * stride;
        if (lane < left / 4) {
            UNROLL for (int i = 0; i < count; i++) {
                local float *p = own + i * size;
                p[0] = (p[0] + p[q]) + (p[2 * q] + p[3 * q]);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    UNROLL for (int i = 0; i < count; i++) {
        x[i] = first[i * size];
        UNROLL for (int k = 1; k < left; k++) x[i] += first[i * size + k * stride];
    }
}
static inline float shared_max(float x, int lid, int size, int lane, int items, int stride, local float *scratch) {
    local float *own = scratch + lid, *first = own - lane * stride;
    int left = items;
    *own = x;
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL for (; left > 4; left /= 4) {
        const int q = left / 4 * stride;
        if (lane < left / 4) own[0] = fmax(fmax(own[0], own[q]), fmax(own[2 * q], own[3 * q]));
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    x = first[0];
    UNROLL for (int k = 1; k < left; k++) x = fmax(x, first[k * stride]);
    return x;
}
/* The first place of the largest value, in local memory of two numbers an item; 0 where there is none. */
static inline int shared_argmax(float best, int place, int lid, int size, int lane, int items, int stride,
                         local float *scratch) {
    local float *own = scratch + lid, *first = own - lane * stride;
    own[0] = best;
    own[size] = as_float(place);
    barrier(CLK_LOCAL_MEM_FENCE);
    UNROLL for (int left = items; left > 1; left /= 2) {
        if (lane < left / 2) {
            const float other = own[left / 2 * stride];
            const int there = as_int(own[size + left / 2 * stride]);
            if (other > own[0] || (other == own[0] && there < as_int(own[size]))) {
                own[0] = other;
                own[size] = as_float(there);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    place = as_int(first[size]);
    return place == 0x7fffffff ? 0 : place;
}

/* Four neighbours of an array: cl/fused.cl has the same for vectors of V. Their addresses are multiples of 4 bytes. */
#define LOAD4(p) vload4(0, p)
#define LOAD4_INT(p) vload4(0, p)
#define STORE4(v, p) vstore4(v, 0, p)
#define STORE4_INT(v, p) vstore4(v, 0, p)
#define CONVERT_INT4(v) convert_int4_rtz(v)
#define CONVERT_FLOAT4(v) convert_float4(v)

/* One number, or four neighbours, of an array that is the sum of `parts` arrays of `size` numbers one after another, in
 * their order: what sum_parts_gpu.cl would have left. */
static inline float load_parts(global const float *p, int size, int parts) {
    float sum = p[0];
    UNROLL for (int i = 1; i < parts; i++) sum += p[(size_t)i * size];
    return sum;
}
static inline float4 load_parts4(global const float *p, int size, int parts) {
    float4 sum = LOAD4(p);
    UNROLL for (int i = 1; i < parts; i++) sum += LOAD4(p + (size_t)i * size);
    return sum;
}
