#include "distill/division.h"

#include "base/error.h"
#include "team/team.h"

#include <math.h>
#include <stdlib.h>

void division_by_speed(const double *seconds, int count, int *shares) {
    double least = seconds[0];
    for (int i = 1; i < count; i++) least = fmin(least, seconds[i]);
    for (int i = 0; i < count; i++) {
        double share = seconds[i] > 0 ? round(DIVISION_FINEST * least / seconds[i]) : DIVISION_FINEST;
        shares[i] = share < 1 ? 1 : (int)share;
    }
}

int division_measure(struct team *team, double seconds, int *shares) {
    int status = RETORT_OK, members = team_size(team);
    double *all = calloc((size_t)members, sizeof *all);
    if (!all) RAISE(RETORT_ENOMEM, "out of memory for %d devices", members);
    TRY(team_collect(team, NULL, sizeof seconds, &seconds, all));
    division_by_speed(all, members, shares);
done:
    free(all);
    return status;
}

static int share_of(const struct division *division, int member) {
    return division->shares ? division->shares[member] : 1;
}

/* Hare's method: everybody gets the whole part of what is due; then one each by the size of what was cut off. In whole
 * numbers, so that every machine deals alike. */
static void share_out(const struct division *division, int total, int *counts) {
    int members = team_size(division->team), left = total;
    long all = 0;
    for (int i = 0; i < members; i++) all += share_of(division, i);
    for (int i = 0; i < members; i++) left -= counts[i] = (int)((long)total * share_of(division, i) / all);
    for (; left > 0; left--) {
        int next = 0;
        for (int i = 1; i < members; i++) {
            long due = (long)total * share_of(division, i) - counts[i] * all;
            if (due > (long)total * share_of(division, next) - counts[next] * all) next = i;
        }
        counts[next]++;
    }
}

/* Whoever came out below the least takes from the one that has most. */
static void raise_to_least(int members, int least, int *counts) {
    for (int i = 0; i < members; i++) {
        while (counts[i] < least) {
            int most = 0;
            for (int k = 1; k < members; k++)
                if (counts[k] > counts[most]) most = k;
            if (counts[most] <= least) return;
            counts[most]--;
            counts[i]++;
        }
    }
}

int division_deal(const struct division *division, int total, int least, struct deal *deal) {
    int members = team_size(division->team);
    struct deal fresh = {.counts = calloc((size_t)members, sizeof *fresh.counts)};
    if (!fresh.counts) return error_set(RETORT_ENOMEM, "out of memory for %d devices", members);
    share_out(division, total, fresh.counts);
    raise_to_least(members, least, fresh.counts);
    for (int i = 0; i < team_rank(division->team); i++) fresh.first += fresh.counts[i];
    fresh.count = fresh.counts[team_rank(division->team)];
    *deal = fresh;
    return RETORT_OK;
}

void deal_finish(struct deal *deal) {
    if (!deal) return;
    free(deal->counts);
    *deal = (struct deal){0};
}
