/* What members do alike, whatever carries their words: calls are checked and agreed on before anything is exchanged. */
#include "team/internal.h"

#include "base/error.h"
#include "base/file.h"

#include <stdio.h>
#include <string.h>

int team_size(const struct team *team) {
    return team ? team->size : 1;
}

int team_rank(const struct team *team) {
    return team ? team->rank : 0;
}

int team_local_rank(const struct team *team) {
    return team ? team->local_rank : 0;
}

void team_destroy(struct team *team) {
    if (team) team->kind->destroy(team);
}

/* --- for the kinds --- */

int team_items(const struct team_call *call, int member) {
    return call->counts ? call->counts[member] : 1;
}

int64_t team_slice(int64_t count, int member, int size) {
    return count / size * member + count % size * member / size;
}

void team_add_rows(const float *rows, int64_t count, int64_t stride, int64_t length, bool more, float *sum) {
    for (int64_t row = 0; row < count; row++) {
        const float *from = rows + row * stride;
        if (row > 0 || more)
            for (int64_t i = 0; i < length; i++) sum[i] += from[i];
        else if (from != sum)
            memcpy(sum, from, (size_t)length * sizeof *sum);
    }
}

/* --- agreeing --- */

/* A number, not negative, that members have in common who are about to do the same. */
static int64_t fingerprint(const struct team *team, const struct team_call *call) {
    uint64_t plain[] = {call->what, call->bytes, (uint64_t)call->count, call->counts != NULL};
    uint64_t hash = hash_fast(plain, sizeof plain, 0);
    if (call->counts) hash = hash_fast(call->counts, (size_t)team->size * sizeof *call->counts, hash);
    return (int64_t)(hash >> 1);
}

/* Three numbers of which the least are taken: the failure, with whose it is in the lower half; and the fingerprint and
 * its negative, that is the least and the greatest of all fingerprints. */
int team_agree(struct team *team, struct team_call *call, int status) {
    int64_t print = fingerprint(team, call);
    int64_t votes[TEAM_VOTES] = {(int64_t)status * ((int64_t)1 << 32) + team->rank, print, -print};
    snprintf(call->words, sizeof call->words, "%s", status < 0 ? retort_error_message() : "");
    int ended = team->kind->vote(team, call, votes);
    if (ended < 0) return ended;
    if (votes[0] < 0) {
        int member = (int)(votes[0] & INT32_MAX);
        int failure = (int)((votes[0] - member) / ((int64_t)1 << 32));
        char words[TEAM_WORDS];
        ended = team->kind->tell(team, call, member, words);
        if (ended < 0) return ended;
        return status < 0 ? status : error_set(failure, "member %d: %s", member, words);
    }
    if (votes[1] != -votes[2])
        return error_set(RETORT_EINVAL, "the members of the team are not at the same call: a defect of the program, "
                                        "unless they were given different descriptors, data or options");
    return RETORT_OK;
}

/* Fills in the total of the counts. */
static int check_counts(const struct team *team, struct team_call *call) {
    call->total = call->counts ? 0 : team_size(team);
    for (int member = 0; call->counts && member < team_size(team); member++) {
        if (call->counts[member] < 0)
            return error_set(RETORT_EINVAL, "a count of %d for member %d", call->counts[member], member);
        call->total += call->counts[member];
    }
    if (call->total > TEAM_ITEMS)
        return error_set(RETORT_EINVAL, "%lld items are more than the %d of one call", (long long)call->total,
                         TEAM_ITEMS);
    return RETORT_OK;
}

/* `exchange` may be NULL. */
static int for_all(struct team *team, struct team_call *call, int status,
                   int (*exchange)(struct team *team, const struct team_call *call)) {
    if (team->failure < 0) return error_set(team->failure, "%s", team->words);
    if (team->left) return error_set(RETORT_EINVAL, "this member has left its team");
    if (status == RETORT_OK && team->kind->prepare) status = team->kind->prepare(team, call);
    status = team_agree(team, call, status);
    if (status == RETORT_OK && exchange) status = exchange(team, call);
    if (status < 0) {
        team->failure = status;
        snprintf(team->words, sizeof team->words, "%s", retort_error_message());
    }
    return status;
}

/* --- for all --- */

int team_meet(struct team *team) {
    struct team_call call = {.what = CALL_MEET};
    return team ? for_all(team, &call, RETORT_OK, NULL) : RETORT_OK;
}

int team_share(struct team *team, void *data, size_t bytes) {
    struct team_call call = {.what = CALL_SHARE, .all = data, .bytes = bytes};
    return team ? for_all(team, &call, RETORT_OK, team->kind->share) : RETORT_OK;
}

int team_collect(struct team *team, const int *counts, size_t item_bytes, const void *mine, void *all) {
    struct team_call call = {.what = CALL_COLLECT, .counts = counts, .bytes = item_bytes, .mine = mine, .all = all};
    int status = check_counts(team, &call);
    if (team) return for_all(team, &call, status, team->kind->collect);
    size_t bytes = (size_t)call.total * item_bytes;
    if (status == RETORT_OK && bytes > 0) memcpy(all, mine, bytes);
    return status;
}

int team_sum(struct team *team, const int *counts, const float *mine, int64_t count, float *sum) {
    struct team_call call = {.what = CALL_SUM, .counts = counts, .mine = mine, .count = count, .all = sum};
    int status = check_counts(team, &call);
    if (status == RETORT_OK && (call.total == 0 || count < 0))
        status = error_set(RETORT_EINVAL, "there is nothing to add up: %lld rows of %lld floats", (long long)call.total,
                           (long long)count);
    if (team) return for_all(team, &call, status, team->kind->sum);
    if (status == RETORT_OK) team_add_rows(mine, call.total, count, count, false, sum);
    return status;
}

int team_leave(struct team *team, int status) {
    if (!team) return status;
    /* Its own failure, if it has one beside that which all know of, keeps its words. */
    if (team->failure < 0 && status < 0) return status;
    struct team_call call = {.what = CALL_LEAVE};
    status = for_all(team, &call, status < 0 ? status : RETORT_OK, NULL);
    team->left = true;
    return status;
}
