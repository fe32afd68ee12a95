/* Members that are threads of one process. They read each other's memory; a mutex and a condition variable tell when it
 * may be read, and nobody waits busily, for the cores may be what computes. */
#include "team/internal.h"

#include "base/error.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct thread_member {
    struct team team;
    struct crew *crew;
    const struct team_call *call; /* what it is at; the others read it between two meetings */
};

/* What the members of a team have in common. */
struct crew {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int size, arrived, alive; /* arrived: at the meeting to come; alive: not destroyed yet */
    unsigned turn;            /* meetings that are over */
    /* The least of what was brought to meetings with an even and an odd number: that of one is read until all have come
     * to the next. */
    int64_t votes[2][TEAM_VOTES];
    struct thread_member members[];
};

static struct thread_member *member_of(struct team *team) {
    return (struct thread_member *)team;
}

static void clear_votes(struct crew *crew, unsigned turn) {
    for (int i = 0; i < TEAM_VOTES; i++) crew->votes[turn % 2][i] = INT64_MAX;
}

/* Waits for all; `votes` may be NULL, but at all of them alike. */
static void meet(struct crew *crew, int64_t *votes) {
    pthread_mutex_lock(&crew->lock);
    unsigned turn = crew->turn;
    int64_t *least = crew->votes[turn % 2];
    for (int i = 0; votes && i < TEAM_VOTES; i++)
        if (votes[i] < least[i]) least[i] = votes[i];
    if (++crew->arrived == crew->size) {
        crew->arrived = 0;
        crew->turn++;
        clear_votes(crew, crew->turn);
        pthread_cond_broadcast(&crew->changed);
    }
    while (crew->turn == turn) pthread_cond_wait(&crew->changed, &crew->lock);
    if (votes) memcpy(votes, least, TEAM_VOTES * sizeof *votes);
    pthread_mutex_unlock(&crew->lock);
}

static int thread_vote(struct team *team, const struct team_call *call, int64_t votes[TEAM_VOTES]) {
    member_of(team)->call = call;
    meet(member_of(team)->crew, votes);
    return RETORT_OK;
}

/* In this function and those below, all have met in a vote; nobody goes before the others have read. */
static int thread_tell(struct team *team, const struct team_call *call, int member, char words[TEAM_WORDS]) {
    (void)call;
    struct crew *crew = member_of(team)->crew;
    memcpy(words, crew->members[member].call->words, TEAM_WORDS);
    meet(crew, NULL);
    return RETORT_OK;
}

static int thread_share(struct team *team, const struct team_call *call) {
    struct crew *crew = member_of(team)->crew;
    if (team->rank != 0 && call->bytes > 0) memcpy(call->all, crew->members[0].call->all, call->bytes);
    meet(crew, NULL);
    return RETORT_OK;
}

static int thread_collect(struct team *team, const struct team_call *call) {
    struct crew *crew = member_of(team)->crew;
    char *to = call->all;
    for (int member = 0; member < crew->size; member++) {
        size_t bytes = (size_t)team_items(call, member) * call->bytes;
        if (bytes > 0) memcpy(to, crew->members[member].call->mine, bytes);
        to += bytes;
    }
    meet(crew, NULL);
    return RETORT_OK;
}

/* Of every member's rows and sum the floats of this slice are touched by this thread alone: so a sum may lie on a row.
 */
static int thread_sum(struct team *team, const struct team_call *call) {
    enum { BLOCK = 2048 }; /* floats that stay in the cache while all rows are added */
    float block[BLOCK];
    struct crew *crew = member_of(team)->crew;
    int64_t end = team_slice(call->count, team->rank + 1, crew->size);
    for (int64_t at = team_slice(call->count, team->rank, crew->size); at < end; at += BLOCK) {
        int64_t length = end - at < BLOCK ? end - at : BLOCK;
        bool more = false;
        for (int member = 0; member < crew->size; member++) {
            int rows = team_items(call, member);
            if (rows == 0) continue;
            const float *mine = crew->members[member].call->mine;
            team_add_rows(mine + at, rows, call->count, length, more, block);
            more = true;
        }
        for (int member = 0; member < crew->size; member++)
            memcpy((float *)crew->members[member].call->all + at, block, (size_t)length * sizeof *block);
    }
    meet(crew, NULL);
    return RETORT_OK;
}

static void thread_destroy(struct team *team) {
    struct crew *crew = member_of(team)->crew;
    pthread_mutex_lock(&crew->lock);
    int alive = --crew->alive;
    pthread_mutex_unlock(&crew->lock);
    if (alive > 0) return;
    pthread_cond_destroy(&crew->changed);
    pthread_mutex_destroy(&crew->lock);
    free(crew);
}

static const struct team_kind of_threads = {
    .vote = thread_vote,
    .tell = thread_tell,
    .share = thread_share,
    .collect = thread_collect,
    .sum = thread_sum,
    .destroy = thread_destroy,
};

int team_create_threads(int count, struct team **members) {
    if (count < 1) return error_set(RETORT_EINVAL, "a team of %d members", count);
    struct crew *crew = calloc(1, sizeof *crew + (size_t)count * sizeof *crew->members);
    if (!crew) return error_set(RETORT_ENOMEM, "out of memory for a team of %d", count);
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->changed, NULL);
    crew->size = crew->alive = count;
    clear_votes(crew, 0);
    for (int i = 0; i < count; i++) {
        struct team team = {.kind = &of_threads, .size = count, .rank = i, .local_rank = i};
        crew->members[i] = (struct thread_member){.team = team, .crew = crew};
        members[i] = &crew->members[i].team;
    }
    return RETORT_OK;
}
