/* Members that are processes, by MPI. Its own waiting keeps a core busy, which where a CPU is the device is one that
 * computes: so every exchange is begun without waiting, and asked now and then whether it has ended. */
#include "team/internal.h"

#include "base/error.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* What launchers leave in the environment of what they start. The rank must be there too: inside a SLURM job SLURM's
 * own numbers are everywhere, also where one process was started by hand, but only srun gives a rank to be found by
 * MPI. Of its numbers the step's is right; SLURM_NTASKS may be the whole job's. */
static const struct {
    const char *size, *rank;
} launchers[] = {
    {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"}, /* Open MPI's mpirun */
    {"PMI_SIZE", "PMI_RANK"},                         /* mpiexec of MPICH and Intel MPI; srun --mpi=pmi2 */
    {"SLURM_STEP_NUM_TASKS", "PMIX_RANK"},            /* srun --mpi=pmix */
};

/* A whole number that is not negative; -1: none. */
static int variable(const char *name) {
    const char *words = getenv(name);
    if (!words || !*words) return -1;
    char *end;
    long value = strtol(words, &end, 10);
    return *end || value < 0 || value > INT_MAX ? -1 : (int)value;
}

int team_launched(void) {
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        int size = variable(launchers[i].size), rank = variable(launchers[i].rank);
        if (rank >= 0 && rank < size) return size;
    }
    return 1;
}

#ifdef RETORT_MPI
#include "base/log.h"

#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

bool team_has_mpi(void) {
    return true;
}

/* Sizes are ints in MPI, so what is large goes in pieces; small enough, too, for memory beside the data. */
#define PIECE ((size_t)1 << 24) /* bytes; in sums floats of all rows */

/* Seconds without sleeping. For others to come to the same call: they compute, here or elsewhere, and the core is
 * better left to them. For data, once all have come: now nobody computes, and asking is what moves it. */
#define WAIT_FOR_MEMBERS 1e-3
#define WAIT_FOR_DATA    0.1

struct parcel {
    void *at;
    int bytes;
};

struct mpi_member {
    struct team team;
    MPI_Comm all;
    bool broken;             /* MPI itself has failed: nobody can be told */
    float *scratch;          /* of sums: rows as they go out, then as they come in */
    size_t scratch_floats;   /* allocated */
    struct parcel *out, *in; /* [size] what goes to each member and comes from it */
    MPI_Request *requests;   /* [2 * size] */
};

static struct mpi_member *member_of(struct team *team) {
    return (struct mpi_member *)team;
}

/* MPI's failure in words. */
static int mpi_failed(struct mpi_member *mpi, int code, const char *what) {
    char words[MPI_MAX_ERROR_STRING] = "an unknown error";
    int length;
    mpi->broken = true;
    MPI_Error_string(code, words, &length);
    return error_set(RETORT_EIO, "the processes of the team do not reach each other: %s: %s", what, words);
}

#define MPI_TRY(mpi, call)                                          \
    do {                                                            \
        int code_ = (call);                                         \
        if (code_ != MPI_SUCCESS) {                                 \
            status = mpi_failed((mpi), code_, "starting together"); \
            goto done;                                              \
        }                                                           \
    } while (0)

/* Waits for what a call, the last of `count`, has begun; `code` is what that call gave. */
static int finish(struct mpi_member *mpi, int code, int count, MPI_Request *requests, double awake, const char *what) {
    int over = 0;
    double begun = clock_seconds();
    while (code == MPI_SUCCESS) {
        code = MPI_Testall(count, requests, &over, MPI_STATUSES_IGNORE);
        if (over || code != MPI_SUCCESS) break;
        if (clock_seconds() - begun < awake)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    return code == MPI_SUCCESS ? RETORT_OK : mpi_failed(mpi, code, what);
}

/* Sends and receives all parcels, each by itself: MPI_Ialltoallv would want them in one piece of memory. */
static int trade(struct mpi_member *mpi, const char *what) {
    int count = 0, code = MPI_SUCCESS, size = mpi->team.size, rank = mpi->team.rank;
    const struct parcel *out = mpi->out, *in = mpi->in;
    if (out[rank].bytes > 0 && out[rank].at != in[rank].at) memcpy(in[rank].at, out[rank].at, (size_t)out[rank].bytes);
    for (int i = 1; i < size && code == MPI_SUCCESS; i++) {
        int from = (rank + size - i) % size;
        if (in[from].bytes > 0)
            code = MPI_Irecv(in[from].at, in[from].bytes, MPI_BYTE, from, 0, mpi->all, &mpi->requests[count++]);
    }
    for (int i = 1; i < size && code == MPI_SUCCESS; i++) {
        int to = (rank + i) % size;
        if (out[to].bytes > 0)
            code = MPI_Isend(out[to].at, out[to].bytes, MPI_BYTE, to, 0, mpi->all, &mpi->requests[count++]);
    }
    return finish(mpi, code, count, mpi->requests, WAIT_FOR_DATA, what);
}

/* --- the kind --- */

/* Floats of each row that are added up at a time. */
static int64_t sum_piece(const struct team_call *call) {
    int64_t piece = (int64_t)PIECE / call->total;
    if (piece < 1) piece = 1;
    return piece < call->count ? piece : call->count;
}

/* Rows that are not one go out packed. */
static size_t sum_outgoing(const struct team *team, const struct team_call *call) {
    int rows = team_items(call, team->rank);
    return rows > 1 ? (size_t)rows * (size_t)sum_piece(call) : 0;
}

static int mpi_prepare(struct team *team, const struct team_call *call) {
    struct mpi_member *mpi = member_of(team);
    if (call->what != CALL_SUM) return RETORT_OK;
    size_t slice = (size_t)(sum_piece(call) / team->size + 1); /* the longest */
    size_t floats = sum_outgoing(team, call) + (size_t)call->total * slice;
    if (floats <= mpi->scratch_floats) return RETORT_OK;
    free(mpi->scratch);
    mpi->scratch = malloc(floats * sizeof *mpi->scratch);
    mpi->scratch_floats = mpi->scratch ? floats : 0;
    if (!mpi->scratch) return error_set(RETORT_ENOMEM, "out of memory for a sum of %zu MiB", floats >> 18);
    return RETORT_OK;
}

static int mpi_vote(struct team *team, const struct team_call *call, int64_t votes[TEAM_VOTES]) {
    (void)call;
    struct mpi_member *mpi = member_of(team);
    MPI_Request request;
    int code = MPI_Iallreduce(MPI_IN_PLACE, votes, TEAM_VOTES, MPI_INT64_T, MPI_MIN, mpi->all, &request);
    return finish(mpi, code, 1, &request, WAIT_FOR_MEMBERS, "meeting");
}

/* The bytes of one member to all, in pieces. */
static int broadcast(struct mpi_member *mpi, int from, void *data, size_t bytes) {
    int status = RETORT_OK;
    for (size_t at = 0; at < bytes && status == RETORT_OK; at += PIECE) {
        size_t length = bytes - at < PIECE ? bytes - at : PIECE;
        MPI_Request request;
        int code = MPI_Ibcast((char *)data + at, (int)length, MPI_BYTE, from, mpi->all, &request);
        status = finish(mpi, code, 1, &request, WAIT_FOR_DATA, "sharing");
    }
    return status;
}

static int mpi_tell(struct team *team, const struct team_call *call, int member, char words[TEAM_WORDS]) {
    memcpy(words, call->words, TEAM_WORDS);
    return broadcast(member_of(team), member, words, TEAM_WORDS);
}

static int mpi_share(struct team *team, const struct team_call *call) {
    return broadcast(member_of(team), 0, call->all, call->bytes);
}

static int mpi_collect(struct team *team, const struct team_call *call) {
    int status = RETORT_OK;
    struct mpi_member *mpi = member_of(team);
    size_t own = (size_t)team_items(call, team->rank) * call->bytes;
    bool at_once = (size_t)call->total <= PIECE / (call->bytes ? call->bytes : 1);
    char *to = call->all;
    for (int i = 0; i < team->size && status == RETORT_OK; i++) {
        size_t bytes = (size_t)team_items(call, i) * call->bytes;
        if (at_once) {
            mpi->out[i] = (struct parcel){(void *)call->mine, (int)own};
            mpi->in[i] = (struct parcel){to, (int)bytes};
        } else {
            if (i == team->rank && own > 0) memcpy(to, call->mine, own);
            status = broadcast(mpi, i, to, bytes);
        }
        to += bytes;
    }
    return at_once ? trade(mpi, "collecting") : status;
}

/* The parcels of this member's rows of a piece: for each member its slice of them, one row after another. */
static void pack(struct mpi_member *mpi, const struct team_call *call, int64_t at, int64_t length) {
    int rows = team_items(call, mpi->team.rank), size = mpi->team.size;
    float *to = mpi->scratch;
    for (int i = 0; i < size; i++) {
        int64_t from = team_slice(length, i, size), floats = team_slice(length, i + 1, size) - from;
        const float *mine = rows > 0 ? (const float *)call->mine + at + from : NULL;
        mpi->out[i] = (struct parcel){rows == 1 ? (void *)mine : to, (int)(rows * floats * (int64_t)sizeof *to)};
        for (int row = 0; row < rows && rows > 1; row++, to += floats)
            memcpy(to, mine + row * call->count, (size_t)floats * sizeof *to);
    }
}

/* Sums a piece: each member gets its slice of all rows, adds them up in their order, and gives the result to all. */
static int sum_up(struct mpi_member *mpi, const struct team_call *call, int64_t at, int64_t length) {
    int status = RETORT_OK;
    int size = mpi->team.size, rank = mpi->team.rank;
    int64_t begin = team_slice(length, rank, size), own = team_slice(length, rank + 1, size) - begin;
    float *rows = mpi->scratch + sum_outgoing(&mpi->team, call), *to = rows, *sum = (float *)call->all + at;
    pack(mpi, call, at, length);
    for (int i = 0; i < size; i++) {
        int64_t floats = team_items(call, i) * own;
        mpi->in[i] = (struct parcel){to, (int)(floats * (int64_t)sizeof *to)};
        to += floats;
    }
    TRY(trade(mpi, "exchanging rows"));
    team_add_rows(rows, call->total, own, own, false, sum + begin);
    for (int i = 0; i < size; i++) {
        int64_t from = team_slice(length, i, size), floats = team_slice(length, i + 1, size) - from;
        mpi->out[i] = (struct parcel){sum + begin, (int)(own * (int64_t)sizeof *sum)};
        mpi->in[i] = (struct parcel){sum + from, (int)(floats * (int64_t)sizeof *sum)};
    }
    TRY(trade(mpi, "exchanging sums"));
done:
    return status;
}

static int mpi_sum(struct team *team, const struct team_call *call) {
    int status = RETORT_OK;
    int64_t piece = sum_piece(call);
    for (int64_t at = 0; at < call->count; at += piece)
        TRY(sum_up(member_of(team), call, at, call->count - at < piece ? call->count - at : piece));
done:
    return status;
}

/* All come here before any ends, for a launcher ends all when one of them has ended badly; waited for without keeping a
 * core busy. A member that cannot be waited for, or does not say that it ends, ends without MPI's blessing: that is
 * what a launcher takes for a failure, and it ends the others. */
static void mpi_destroy(struct team *team) {
    struct mpi_member *mpi = member_of(team);
    MPI_Request request;
    bool together = !mpi->broken && (team->left || team->failure < 0);
    if (together
        && finish(mpi, MPI_Ibarrier(mpi->all, &request), 1, &request, WAIT_FOR_MEMBERS, "ending") == RETORT_OK) {
        MPI_Comm_free(&mpi->all);
        MPI_Finalize();
    }
    free(mpi->out);
    free(mpi->in);
    free(mpi->requests);
    free(mpi->scratch);
    free(mpi);
}

static const struct team_kind of_processes = {
    .prepare = mpi_prepare,
    .vote = mpi_vote,
    .tell = mpi_tell,
    .share = mpi_share,
    .collect = mpi_collect,
    .sum = mpi_sum,
    .destroy = mpi_destroy,
};

/* --- making one --- */

/* Whether this process can be a member, and is one of as many as its launcher says: where the launcher is another MPI's
 * than Retort was built with, each process finds itself alone. */
static int check_start(struct mpi_member *mpi, int threads) {
    size_t size = (size_t)mpi->team.size;
    mpi->out = malloc(size * sizeof *mpi->out);
    mpi->in = malloc(size * sizeof *mpi->in);
    mpi->requests = malloc(2 * size * sizeof(MPI_Request));
    if (!mpi->out || !mpi->in || !mpi->requests)
        return error_set(RETORT_ENOMEM, "out of memory for a team of %d", mpi->team.size);
    if (threads < MPI_THREAD_SERIALIZED)
        return error_set(RETORT_EUNSUPPORTED, "this MPI cannot be used by a process that has threads");
    if (mpi->team.size == team_launched()) return RETORT_OK;
    char version[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length;
    MPI_Get_library_version(version, &length);
    version[strcspn(version, ",\n")] = '\0';
    return error_set(RETORT_EINVAL,
                     "%d processes were started together, but MPI finds %d: start them with the mpirun of the MPI that "
                     "this program was built with, %s",
                     team_launched(), mpi->team.size, version);
}

/* Makes all of one mind whether there is a team: each can be a member, and all are of the leader's version. */
static int agree_to_start(struct mpi_member *mpi, int threads) {
    int status = RETORT_OK;
    char version[64] = RETORT_VERSION;
    struct team_call call = {.what = CALL_MEET};
    TRY(broadcast(mpi, 0, version, sizeof version));
    status = check_start(mpi, threads);
    if (status == RETORT_OK && strncmp(version, RETORT_VERSION, sizeof version) != 0)
        status = error_set(RETORT_EINVAL, "this is Retort %s, the leader's is %.63s: install the same everywhere",
                           RETORT_VERSION, version);
    TRY(team_agree(&mpi->team, &call, status));
done:
    return status;
}

/* Begins MPI and asks it who is who. */
static int enter(struct mpi_member *mpi, int *threads) {
    int status = RETORT_OK;
    MPI_Comm machine;
    MPI_TRY(mpi, MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, threads));
    MPI_TRY(mpi, MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN));
    MPI_TRY(mpi, MPI_Comm_dup(MPI_COMM_WORLD, &mpi->all));
    MPI_TRY(mpi, MPI_Comm_size(mpi->all, &mpi->team.size));
    MPI_TRY(mpi, MPI_Comm_rank(mpi->all, &mpi->team.rank));
    MPI_TRY(mpi, MPI_Comm_split_type(mpi->all, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &machine));
    MPI_TRY(mpi, MPI_Comm_rank(machine, &mpi->team.local_rank));
    MPI_TRY(mpi, MPI_Comm_free(&machine));
done:
    return status;
}

int team_create_mpi(struct team **team) {
    int status = RETORT_OK, begun = 0, threads = MPI_THREAD_SINGLE;
    struct mpi_member *mpi = NULL;
    if (MPI_Initialized(&begun) != MPI_SUCCESS || begun)
        RAISE(RETORT_EINVAL, "a process becomes a member of its launcher's team only once");
    mpi = calloc(1, sizeof *mpi);
    if (!mpi) RAISE(RETORT_ENOMEM, "out of memory for a team");
    mpi->team.kind = &of_processes;
    TRY(enter(mpi, &threads));
    TRY(agree_to_start(mpi, threads));
    *team = &mpi->team;
    mpi = NULL;
done:
    if (mpi) {
        mpi->team.failure = status;
        mpi_destroy(&mpi->team);
    }
    return status;
}

#else /* without MPI */
bool team_has_mpi(void) {
    return false;
}

int team_create_mpi(struct team **team) {
    (void)team;
    return error_set(RETORT_EINVAL,
                     "%d processes were started together, but this build has no MPI: install it (on "
                     "Debian libopenmpi-dev and openmpi-bin) and build again with -Dmpi=enabled",
                     team_launched());
}
#endif
