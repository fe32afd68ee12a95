/* The low-rank Hessian: Lanczos' recurrence on exact Hessian-vector products (Golub and Van Loan, Matrix Computations,
 * section 10.1). Recurrence with full reorthogonalisation and the small eigenproblem run on the device. */
#ifndef RETORT_UNROLL_LANCZOS_H
#define RETORT_UNROLL_LANCZOS_H

#include <stdint.h>

struct unroll;

enum { LANCZOS_MAX_RANK = 128 }; /* what the kernel of the small eigenproblem takes (kernels_eigh) */

/* At the weights as they are now, on the rows of table step `step`: builds the rank-k factor that backward passes with
 * HESSIAN_LANCZOS use until the next call. `seed`: of the start vector. */
int unroll_lanczos(struct unroll *unroll, int step, uint64_t seed);
/* The factor's eigenvalues, largest magnitude first: [rank]. */
int unroll_read_eigenvalues(struct unroll *unroll, float *eigenvalues);
/* The factor as numbers, for checkpoints: count 0 without Lanczos. */
int64_t unroll_factor_count(const struct unroll *unroll);
int unroll_read_factor(struct unroll *unroll, float *factor);
int unroll_write_factor(struct unroll *unroll, const float *factor);

#endif
