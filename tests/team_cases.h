/* A long row of calls for all, as each member of a team makes them, whether it is a thread or a process. The data and
 * the calls follow from the number of a call and of a member alone, so that every member knows what must come out. */
#ifndef RETORT_TESTS_TEAM_CASES_H
#define RETORT_TESTS_TEAM_CASES_H

#include "base/error.h"
#include "base/file.h"
#include "team/team.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct play {
    struct team *team;
    int calls;
    bool dawdle; /* sleeps at random before calls: another row of sleeps each time */
    bool large;  /* one call of each kind with more than goes in one piece */
    uint64_t hash;
    char complaint[256]; /* "" where all was as it must be */
};

static inline uint32_t team_mix(uint32_t x) {
    x = (x ^ x >> 16) * 0x7feb352d;
    x = (x ^ x >> 15) * 0x846ca68b;
    return x ^ x >> 16;
}

/* Of very different sizes, so that sums in another order have other bytes. */
static inline float team_float(int call, int member, int64_t index) {
    uint32_t bits = team_mix((uint32_t)index + team_mix((uint32_t)(call * 64 + member + 1)));
    return ((float)(bits >> 8) / (1 << 23) - 1.0f) * (float)(1 << bits % 20);
}

static inline unsigned char team_byte(int call, int member, size_t index) {
    return (unsigned char)(team_mix((uint32_t)index + team_mix((uint32_t)(call * 64 + member + 1))) >> 3);
}

struct team_case {
    int call, size, rank;
    int counts[64];
    bool one_each;
    int total, before, own; /* items of all, of the members before this one, of this one */
};

static inline struct team_case team_case(const struct play *play, int call) {
    struct team_case it = {.call = call, .size = team_size(play->team), .rank = team_rank(play->team)};
    it.one_each = team_mix((uint32_t)call) % 3 == 0;
    for (int i = 0; i < it.size; i++) {
        it.counts[i] = it.one_each ? 1 : (int)(team_mix((uint32_t)(1000 * call + i)) % 4);
        if (i == it.size - 1 && it.total == 0 && it.counts[i] == 0) it.counts[i] = 2;
        if (i < it.rank) it.before += it.counts[i];
        it.total += it.counts[i];
    }
    it.own = it.counts[it.rank];
    return it;
}

static inline void team_complain(struct play *play, int call, const char *words) {
    if (!play->complaint[0])
        snprintf(play->complaint, sizeof play->complaint, "member %d, call %d: %s", team_rank(play->team), call, words);
}

static inline void team_play_share(struct play *play, int call, size_t bytes) {
    struct team_case it = team_case(play, call);
    unsigned char *data = malloc(bytes + 1);
    for (size_t i = 0; i < bytes; i++) data[i] = team_byte(call, it.rank, i);
    if (team_share(play->team, data, bytes) < 0) team_complain(play, call, retort_error_message());
    for (size_t i = 0; i < bytes; i++)
        if (data[i] != team_byte(call, 0, i)) team_complain(play, call, "shared bytes are not the leader's");
    play->hash = hash_fast(data, bytes, play->hash);
    free(data);
}

static inline void team_play_collect(struct play *play, int call, size_t item) {
    struct team_case it = team_case(play, call);
    unsigned char *mine = malloc((size_t)it.own * item + 1), *all = malloc((size_t)it.total * item + 1), *at = all;
    for (size_t i = 0; i < (size_t)it.own * item; i++) mine[i] = team_byte(call, it.rank, i);
    if (team_collect(play->team, it.one_each ? NULL : it.counts, item, mine, all) < 0)
        team_complain(play, call, retort_error_message());
    for (int member = 0; member < it.size; member++)
        for (size_t i = 0; i < (size_t)it.counts[member] * item; i++)
            if (*at++ != team_byte(call, member, i))
                team_complain(play, call, "collected bytes are not their member's");
    play->hash = hash_fast(all, (size_t)it.total * item, play->hash);
    free(mine);
    free(all);
}

/* The sum of floats [index] of all rows, in their order. */
static inline float team_expected(const struct team_case *it, int64_t count, int64_t index) {
    float sum = 0;
    bool first = true;
    for (int member = 0; member < it->size; member++)
        for (int row = 0; row < it->counts[member]; row++) {
            float value = team_float(it->call, member, row * count + index);
            sum = first ? value : sum + value;
            first = false;
        }
    return sum;
}

static inline void team_play_sum(struct play *play, int call, int64_t count) {
    struct team_case it = team_case(play, call);
    size_t row = (size_t)count * sizeof(float);
    float *mine = malloc((size_t)it.own * row + 1);
    bool in_place = it.own > 0 && team_mix((uint32_t)(call + it.rank)) % 2;
    float *sum = in_place ? mine : malloc(row + 1);
    for (int64_t i = 0; i < it.own * count; i++) mine[i] = team_float(call, it.rank, i);
    if (team_sum(play->team, it.one_each ? NULL : it.counts, it.own > 0 ? mine : NULL, count, sum) < 0)
        team_complain(play, call, retort_error_message());
    for (int64_t i = 0; i < count; i++) {
        float expected = team_expected(&it, count, i);
        if (memcmp(&sum[i], &expected, sizeof expected) != 0) team_complain(play, call, "a sum is not that in order");
    }
    for (int64_t i = in_place ? count : 0; i < it.own * count; i++)
        if (mine[i] != team_float(call, it.rank, i)) team_complain(play, call, "rows have changed");
    play->hash = hash_fast(sum, row, play->hash);
    if (!in_place) free(sum);
    free(mine);
}

static inline void team_dawdle(unsigned *state) {
    *state = team_mix(*state + 1);
    if (*state % 2) usleep(*state / 2 % 3000);
}

/* All calls, then the last one. */
static inline void team_play(struct play *play) {
    static const int64_t counts[] = {0, 1, 2, 3, 5, 1000, 4099, 50021};
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    unsigned sleeps = (unsigned)now.tv_nsec + (unsigned)team_rank(play->team);
    play->hash = 1;
    play->complaint[0] = '\0';
    for (int call = 0; call < play->calls; call++) {
        uint32_t choice = team_mix(7u * (uint32_t)call + 3);
        if (play->dawdle) team_dawdle(&sleeps);
        switch (choice % 5) {
        case 0:
            if (team_meet(play->team) < 0) team_complain(play, call, retort_error_message());
            break;
        case 1:
            team_play_share(play, call, choice / 5 % 3 * 517);
            break;
        case 2:
            team_play_collect(play, call, choice / 5 % 40);
            break;
        default:
            team_play_sum(play, call, counts[choice / 5 % 8]);
        }
    }
    if (play->large) {
        int call = play->calls, most = 1 << 24; /* bytes, or floats of all rows */
        team_play_share(play, call, (size_t)most + 1001);
        team_play_collect(play, call + 1, (size_t)(most / team_case(play, call + 1).total + 1001));
        team_play_sum(play, call + 2, most / team_case(play, call + 2).total + 1001);
    }
    if (play->dawdle) team_dawdle(&sleeps);
    if (team_leave(play->team, RETORT_OK) < 0) team_complain(play, play->calls, retort_error_message());
}

/* --- a member that fails --- */

enum { CALL_MEET, CALL_SHARE, CALL_COLLECT, CALL_SUM, CALL_LEAVE, CALL_KINDS };

static inline int team_call(struct team *team, int what) {
    unsigned char byte = 0, bytes[64];
    float row[100] = {0}, sum[100];
    switch (what) {
    case CALL_MEET:
        return team_meet(team);
    case CALL_SHARE:
        return team_share(team, &byte, 1);
    case CALL_COLLECT:
        return team_collect(team, NULL, 1, &byte, bytes);
    case CALL_SUM:
        return team_sum(team, NULL, row, 100, sum);
    default:
        return team_leave(team, RETORT_OK);
    }
}

#endif
