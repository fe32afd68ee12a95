/* Ctrl-C: the first asks the work to stop where it can be resumed, the second leaves at once. */
#ifndef RETORT_COMMAND_INTERRUPT_H
#define RETORT_COMMAND_INTERRUPT_H

#include <stdbool.h>

/* Installs the handlers of SIGINT and SIGTERM. The flag becomes non-zero at the first signal. */
const volatile int *interrupt_install(void);
bool was_interrupted(void);

#endif
