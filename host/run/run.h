/* Runs from inside the program: include/retort/run.h with options that carry their names. */
#ifndef RETORT_RUN_RUN_H
#define RETORT_RUN_RUN_H

#include "base/memory.h"
#include "retort/run.h"
#include "run/session.h"

/* retort_run_create, but overrides come with the words of the option they were given by; options->settings is not
 * read. */
int run_create(const char *descriptor, const struct schema_override *overrides, size_t override_count,
               const struct retort_run_options *options, struct retort_run **run);

/* Its opened devices in this process; NULL past the last. */
struct session *run_session(struct retort_run *run, int i);

const struct descriptor *run_descriptor(const struct retort_run *run);

struct team;
/* Before anything else: this process is a member of a team of processes that all execute the run, of which the first
 * leads; the others' runs have no result. The team stays the caller's, who leaves it after whatever comes. */
void run_join(struct retort_run *run, struct team *team);

/* Takes the run's folder, and opens device and data, once: retort_run_execute goes on with them. *session stays the
 * run's, which chooses kernels when it is executed; NULL where the run is finished already. */
int run_open(struct retort_run *run, struct session **session);

/* The table of options->profile, of this sitting's outer steps, also after an interruption; false where there is none.
 */
bool run_profile_table(const struct retort_run *run, struct text *text);

#endif
