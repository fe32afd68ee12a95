/* Batches that a team divides: which rows are this member's, and sums over the team, by way of the host. */
#include "unroll/private.h"

#include <stdlib.h>

bool is_divided(const struct unroll *u) {
    return team_size(u->spec.team) > 1;
}

bool brings_nothing(const struct unroll *u) {
    return team_rank(u->spec.team) > 0;
}

/* What a member's rows must not be taken out of: what looks at a whole batch, and values with a row for each that other
 * graphs read as a whole. */
static int check_divisible(const struct unroll_spec *spec) {
    int status = RETORT_OK;
    const char *what = NULL;
    if (spec->network->stats_count) what = "batch norm looks at a whole batch; take another network.norm";
    if (spec->networks > 1) what = "several networks are trained at once; train one at a time";
    if (spec->rank) what = "a low-rank Hessian is not made in parts; take method.hessian: exact";
    if (what) RAISE(RETORT_EINVAL, "batches cannot be divided among several devices here, for %s, or one device", what);
    for (int i = 0; i < spec->pass_count; i++)
        for (int k = 0; k < spec->passes[i].value_count; k++) {
            const struct pass_value *value = &spec->passes[i].values[k];
            if (value->rows && (value->source == PASS_RESULT || value->source == PASS_BOUND))
                RAISE(
                    RETORT_EINVAL,
                    "batches cannot be divided among several devices here, for \"%s\" of the %s is wanted of all rows "
                    "in one place; take one device",
                    value->name, spec->passes[i].label);
        }
done:
    return status;
}

static struct share share_of(const struct unroll_spec *spec, int member) {
    struct share own = {0};
    for (int i = 0; i < team_size(spec->team); i++) {
        int share = spec->shares ? spec->shares[i] : 1;
        if (i < member) own.before += share;
        if (i <= member) own.until += share;
        own.of += share;
    }
    return own;
}

static int check_rows(const struct unroll_spec *spec, const char *label, int64_t batch) {
    int status = RETORT_OK, members = team_size(spec->team);
    for (int i = 0; i < members; i++) {
        const struct share own = share_of(spec, i);
        if (share_count(&own, batch) < 1)
            RAISE(
                RETORT_EINVAL,
                "divided among %d devices, the %s batch of %lld leaves no row to device %d; take fewer devices, shares "
                "less apart, or a larger batch",
                members, label, (long long)batch, i + 1);
    }
done:
    return status;
}

int divide(struct unroll *u, const struct unroll_spec *spec) {
    int status = RETORT_OK, members = team_size(spec->team);
    u->whole_batch = spec->batch;
    u->share = (struct share){0, 1, 1};
    if (members == 1) goto done;
    TRY(check_divisible(spec));
    for (int i = 0; spec->shares && i < members; i++)
        if (spec->shares[i] < 1)
            RAISE(RETORT_EINVAL, "a share of %d for device %d of %d: whole numbers from 1 are possible",
                  spec->shares[i], i + 1, members);
    if (spec->batch) TRY(check_rows(spec, "inner", spec->batch));
    for (int i = 0; i < spec->pass_count; i++) TRY(check_rows(spec, spec->passes[i].label, spec->passes[i].batch));
    u->share = share_of(spec, team_rank(spec->team));
    u->spec.batch = share_count(&u->share, spec->batch);
done:
    return status;
}

/* --- sums --- */
static int make_room(struct unroll *u, int64_t count) {
    int status = RETORT_OK;
    if (count <= u->exchange_room) goto done;
    float *larger = realloc(u->exchange, (size_t)count * sizeof *larger);
    if (!larger) RAISE(RETORT_ENOMEM, "out of memory for %lld numbers to exchange", (long long)count);
    u->exchange = larger;
    u->exchange_room = count;
done:
    return status;
}

int sum_over_team(struct unroll *u, const struct span *spans, int count) {
    int status = RETORT_OK;
    int64_t all = 0, at = 0;
    if (!is_divided(u)) goto done;
    for (int i = 0; i < count; i++) all += spans[i].count;
    TRY(make_room(u, all));
    for (int i = 0; i < count; i++) {
        const struct place *place = &spans[i].place;
        TRY(device_read(u->device, place->buffer, place->offset, (size_t)spans[i].count * FLOAT, u->exchange + at));
        at += spans[i].count;
    }
    TRY(team_sum(u->spec.team, NULL, u->exchange, all, u->exchange));
    at = 0;
    for (int i = 0; i < count; i++) {
        const struct place *place = &spans[i].place;
        TRY(device_write(u->device, place->buffer, place->offset, (size_t)spans[i].count * FLOAT, u->exchange + at));
        at += spans[i].count;
    }
done:
    return status;
}
