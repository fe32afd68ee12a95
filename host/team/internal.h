/* What the files of the team module share: a call for all, and what threads and processes each do their own way. */
#ifndef RETORT_TEAM_INTERNAL_H
#define RETORT_TEAM_INTERNAL_H

#include "team/team.h"

#define TEAM_VOTES 3
#define TEAM_ITEMS (1 << 28) /* most items or rows of all: bytes of as many floats are an int for MPI */
#define TEAM_WORDS 512       /* of a failing member's message, as the others get it */

/* One call of a function for all, as one member makes it. */
struct team_call {
    enum { CALL_MEET, CALL_SHARE, CALL_COLLECT, CALL_SUM, CALL_LEAVE } what;
    const int *counts; /* items or rows of each member; NULL: one of each */
    int64_t total;     /* of them all */
    size_t bytes;      /* what is shared; of an item */
    int64_t count;     /* floats of a row */
    const void *mine;
    void *all;              /* where the result goes; of `share`, the data */
    char words[TEAM_WORDS]; /* this member's failure, "" while it is well */
};

struct team_kind {
    /* What this member alone has to do before it can take part, such as finding memory: a failure is told to all. May
     * be NULL. */
    int (*prepare)(struct team *team, const struct team_call *call);
    /* The least of what all bring, number by number, to all. `call` stays where it is until the exchange or `tell` that
     * follows is over, or until the next vote. A failure here and below is of MPI itself. */
    int (*vote)(struct team *team, const struct team_call *call, int64_t votes[TEAM_VOTES]);
    /* That member's call->words to all, in `words`. */
    int (*tell)(struct team *team, const struct team_call *call, int member, char words[TEAM_WORDS]);
    int (*share)(struct team *team, const struct team_call *call);
    int (*collect)(struct team *team, const struct team_call *call);
    int (*sum)(struct team *team, const struct team_call *call);
    void (*destroy)(struct team *team);
};

/* The first member of a struct of each kind. */
struct team {
    const struct team_kind *kind;
    int size, rank, local_rank;
    int failure; /* < 0: all know of it and nobody waits any more */
    bool left;
    char words[TEAM_WORDS];
};

int team_items(const struct team_call *call, int member);
/* Where a member's slice of `count` floats begins; that of member `size` is `count`. */
int64_t team_slice(int64_t count, int member, int size);
/* Adds up rows in their order: sum[length] is, or where `more` gets added, rows[0], then rows[stride], ... `sum` may be
 * the first row. */
void team_add_rows(const float *rows, int64_t count, int64_t stride, int64_t length, bool more, float *sum);
/* Makes all of one mind whether a call is begun: RETORT_OK at all of them or at none. `status` is this member's. */
int team_agree(struct team *team, struct team_call *call, int status);

#endif
