/* The window: steps that are stored, and the exact derivative through them by replay.
 *
 * Stored are, per step, theta before it, the optimiser's state before it, and the gradient in it; where a memory
 * ceiling leaves room also values on the way to that gradient, which are computed again otherwise. Backward visits the
 * steps in reverse, from a terminal adjoint that the caller gives: the optimiser's adjoint gives a_g, one
 * forward-over-reverse pass along a_g gives the Hessian-vector product and the mixed derivatives by images and labels
 * (../docs/architecture.md has the recursion). */
#ifndef RETORT_UNROLL_WINDOW_H
#define RETORT_UNROLL_WINDOW_H

#include "unroll/memory.h"

struct unroll;

/* The Hessian in a step taken back: exact; the low-rank factor of unroll_lanczos; or left out, which leaves the mixed
 * derivatives and weight decay. */
enum hessian { HESSIAN_EXACT, HESSIAN_LANCZOS, HESSIAN_NONE };

/* Runs uploaded steps from .. from + count - 1 as unroll_train does, and stores them. */
int unroll_window(struct unroll *unroll, int from, int count, bool probe);

/* Derivatives of what depends on the weights at the window's end. */
struct unroll_gradient {
    float *images; /* by the set's images, [n,C,H,W]; caller's memory */
    float *labels; /* by its soft labels, [n,K]; caller's memory; NULL: not wanted or hard labels */
    double lr;     /* by the learning rate, common to all steps */
};
/* Goes back through the stored window, from the derivative [p] by the weights at its end, which lies at `terminal` on
 * the device and stays as it is, the same at all members of a team. May be called again for the same window. */
int unroll_backward(struct unroll *unroll, struct place terminal, enum hessian hessian,
                    struct unroll_gradient *gradient);

#endif
