/* A team: several devices that compute one run together. Each member has one device, and runs either as a thread of one
 * process or as a process of its own that MPI has started, perhaps on another machine.
 *
 * Members do the same things in the same order. The functions below marked "all" are called by all of them, and none
 * comes back before each has come. What is added up is added in the order of the members and of what each brings, never
 * in the order of arrival: results have the same bytes whoever is slow.
 *
 * A MEMBER THAT FAILS. Every function for all begins by asking whether all are well. A member whose own work fails
 * calls none of them any more but team_leave, with its status: the others, wherever they wait, then come back with that
 * status and a message that says whose failure it was, and call team_leave in their turn (which no longer waits for
 * anybody). So nobody waits for ever, whichever call the failing member has missed. Where several fail at once, each
 * keeps its own failure, and the others get that of the least status, of equal ones the first member's. Members that
 * are not at the same call, with the same sizes and counts, all fail with RETORT_EINVAL. A process that dies is MPI's
 * business: its launcher ends all others.
 *
 * Everywhere a NULL team is a team of one: nothing is exchanged and nothing waits. */
#ifndef RETORT_TEAM_TEAM_H
#define RETORT_TEAM_TEAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct team;

/* --- making one --- */
/* `count` members for as many threads of this process, members[count]; each is used by one thread at a time, and all
 * are destroyed, in any order, once their threads have left. */
int team_create_threads(int count, struct team **members);
/* The number of processes that an MPI launcher (mpirun, srun) says it has started together with this one, from what it
 * leaves in the environment; 1 where there was none. Starts nothing. Programs started by this one inherit it. */
int team_launched(void);
/* This process's membership of all that were launched with it. Once in a process. RETORT_EINVAL, with what to do, where
 * the program was built without MPI, where another MPI's launcher has started it, or where processes are of another
 * version of Retort than the leader's. Where MPI itself cannot begin, it ends the process with words of its own.
 * Handlers of SIGINT and SIGTERM stay as they are. */
int team_create_mpi(struct team **team);
bool team_has_mpi(void); /* whether the program was built with it */
/* NULL-safe. With MPI it waits for all to come here, for a launcher ends all once one process has ended badly: what is
 * to be written is written before. Without team_leave before it, the end of the process makes the launcher end all. */
void team_destroy(struct team *team);

/* --- who is who --- */
int team_size(const struct team *team); /* 1 or more */
int team_rank(const struct team *team); /* from 0; 0 leads: it alone writes files and talks */
/* Its place among the members on its own machine, from 0: by which it picks a device. With threads its rank. */
int team_local_rank(const struct team *team);

/* --- for all --- */
/* Waits for all. RETORT_OK where each is well. */
int team_meet(struct team *team);
/* The leader's bytes to all. */
int team_share(struct team *team, void *data, size_t bytes);
/* counts[size] items of item_bytes from each member, in the order of the members, to all; counts NULL: one of each. The
 * counts are the same at all members; 0 is allowed. `mine` and `all` do not overlap. */
int team_collect(struct team *team, const int *counts, size_t item_bytes, const void *mine, void *all);
/* The sum of counts[size] rows of `count` floats from each member: ((row 0 + row 1) + row 2) + ..., in float, in the
 * order of the members and of each member's rows; to all. counts NULL: one of each. At least one row in all. `sum` may
 * be the first of `mine`'s rows. Each member adds up a slice of its own and hands it to the others, so that a member
 * sends and receives about (its rows + 1) count floats, however many they are. */
int team_sum(struct team *team, const int *counts, const float *mine, int64_t count, float *sum);

/* The last call of every member. status < 0: the member's own failure, whose message is error.h's of its thread; the
 * others get it. Gives back that status, or another member's failure with its message, or RETORT_OK where all end well.
 * After a failure that came from a function above it does not wait. */
int team_leave(struct team *team, int status);

#endif
