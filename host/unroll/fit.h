/* The fit: what is compiled, in how many parts, so that everything fits on the device.
 *
 * Executables are rows (label, batch, builder). A batch that does not fit is split and its rows are compiled anew,
 * until all fit: under the ceiling, in the device's memory, every buffer (the scratch memory too) within its largest
 * allocation, every tensor within what kernels can count. */
#ifndef RETORT_UNROLL_FIT_H
#define RETORT_UNROLL_FIT_H

#include <stddef.h>
#include <stdint.h>

struct unroll;
struct unroll_plan;

/* Splits batches until everything fits and, on CPUs, as far as that is faster; then keeps values of as many steps of
 * the window as a ceiling leaves room for. */
int fit_search(struct unroll *u);
/* Takes over a plan made earlier, in place of a search. */
int fit_take(struct unroll *u, const struct unroll_plan *plan);
/* Bytes of scratch memory of the executable that needs most. */
size_t fit_scratch_bytes(const struct unroll *u);

#endif
