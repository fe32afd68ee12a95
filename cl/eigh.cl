/* Eigenvalues and eigenvectors of a small symmetric matrix by cyclic Jacobi rotations (Golub and Van Loan, "Matrix
 * computations", section 8.5): NAME(out [K+1,K], matrix [K,K]), one work-item.
 *
 * Row 0 of the result holds the eigenvalues by falling magnitude, row 1 + i the unit eigenvector of value i. Of the
 * matrix the upper triangle is read. Ends when every element off the diagonal is below 2^-27 of the largest element of
 * the matrix, after some ten sweeps; after 32 in any case, as a matrix with NaN would have no end. */
kernel void NAME(global float *restrict out, ulong out_offset, global const float *restrict matrix,
                 ulong matrix_offset) {
    float a[K][K];
    global float *values = out + out_offset, *vectors = values + K;
    matrix += matrix_offset;
    float largest = 0;
    for (int i = 0; i < K; i++)
        for (int j = i; j < K; j++) {
            a[i][j] = a[j][i] = matrix[i * K + j];
            largest = fmax(largest, fabs(a[i][j]));
            vectors[i * K + j] = vectors[j * K + i] = i == j;
        }

    bool rotated = true;
    for (int sweep = 0; sweep < 32 && rotated; sweep++) {
        rotated = false;
        for (int p = 0; p < K - 1; p++)
            for (int q = p + 1; q < K; q++) {
                const float off = a[p][q];
                if (!(fabs(off) > 0x1p-27f * largest)) continue;
                rotated = true;
                /* The smaller angle that makes element (p, q) zero; t is its tangent. */
                const float theta = (a[q][q] - a[p][p]) / (2 * off);
                const float t = copysign(1.0f, theta) / (fabs(theta) + hypot(theta, 1.0f));
                /* With tau the rotation is written as a correction: a cosine near 1 would be rounded to 1, always the
                 * same way, and the vectors would grow. */
                const float cosine = 1 / sqrt(t * t + 1), sine = t * cosine, tau = sine / (1 + cosine);
                a[p][p] -= t * off;
                a[q][q] += t * off;
                a[p][q] = a[q][p] = 0;
                for (int i = 0; i < K; i++) {
                    if (i == p || i == q) continue;
                    const float ip = a[i][p], iq = a[i][q];
                    a[i][p] = a[p][i] = ip - sine * (iq + tau * ip);
                    a[i][q] = a[q][i] = iq + sine * (ip - tau * iq);
                }
                for (int i = 0; i < K; i++) {
                    const float vp = vectors[p * K + i], vq = vectors[q * K + i];
                    vectors[p * K + i] = vp - sine * (vq + tau * vp);
                    vectors[q * K + i] = vq + sine * (vp - tau * vq);
                }
            }
    }

    for (int i = 0; i < K; i++) values[i] = a[i][i];
    for (int i = 0; i < K - 1; i++) {
        int best = i;
        for (int j = i + 1; j < K; j++)
            if (fabs(values[j]) > fabs(values[best])) best = j;
        if (best == i) continue;
        const float value = values[i];
        values[i] = values[best];
        values[best] = value;
        for (int j = 0; j < K; j++) {
            const float component = vectors[i * K + j];
            vectors[i * K + j] = vectors[best * K + j];
            vectors[best * K + j] = component;
        }
    }
}
#undef NAME
#undef K
