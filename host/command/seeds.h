/* `retort run --seeds`: a run for each of several seeds, which the devices divide among them. Each run is a process of
 * its own, and its folder the one that this run alone would have. */
#ifndef RETORT_COMMAND_SEEDS_H
#define RETORT_COMMAND_SEEDS_H

#include "command/options.h"

/* Does them all and shows what came out; gives what to exit with. `interrupt` as interrupt_install gives it. */
int seeds_run(const struct options *options, const volatile int *interrupt);

#endif
