/* Accuracies for people. */
#ifndef RETORT_COMMAND_REPORT_H
#define RETORT_COMMAND_REPORT_H

#include <jansson.h>

/* Prints the protocol and a line per row of an `accuracy` object, as result.json holds it. */
void report_accuracy(const char *protocol, const json_t *accuracy);

#endif
