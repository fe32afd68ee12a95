/* One process of a team by MPI, for test_team_mpi.sh:
 *     team_member play             a long row of calls, compared with threads' to the last bit
 *     team_member fail CALL WHO    member WHO fails before a call of that kind; each says what it got
 *     team_member wait FOLDER      for ever; each leaves its process number in the folder
 *     team_member idle             member 1 is half a second late; the others say how much of it they computed
 *     team_member create           says what making a team gives
 *     team_member vanish           member 1 ends without a word to the others, which wait for it */
#include "team_cases.h"

#include <pthread.h>
#include <signal.h>

static int complain(const char *words) {
    printf("member %s: %s\n", getenv("OMPI_COMM_WORLD_RANK") ? getenv("OMPI_COMM_WORLD_RANK") : "alone", words);
    return 1;
}

static void *play(void *part) {
    team_play(part);
    return NULL;
}

/* The same row of calls by threads of this process; the hash of what member `rank` got, 0 where something was wrong. */
static uint64_t by_threads(int size, int rank, const struct play *as) {
    enum { MOST = 16 };
    struct team *teams[MOST];
    struct play plays[MOST];
    pthread_t threads[MOST];
    uint64_t hash = 0;
    if (size > MOST || team_create_threads(size, teams) < 0) return 0;
    for (int i = 0; i < size; i++) {
        plays[i] = *as;
        plays[i].team = teams[i];
        if (pthread_create(&threads[i], NULL, play, &plays[i]) != 0) abort();
    }
    for (int i = 0; i < size; i++) {
        pthread_join(threads[i], NULL);
        team_destroy(teams[i]);
        if (i == rank && !plays[i].complaint[0]) hash = plays[i].hash;
    }
    return hash;
}

static int play_and_compare(struct team *team) {
    const struct play as = {.team = team, .calls = 100, .dawdle = true, .large = true};
    struct play mine = as;
    int size = team_size(team), rank = team_rank(team), ended = 0;
    if (size != team_launched() || team_local_rank(team) != rank) ended = complain("has a wrong place");
    struct team *second;
    if (team_create_mpi(&second) != RETORT_EINVAL) ended = complain("is twice a member");
    team_play(&mine);
    team_destroy(team);
    if (mine.complaint[0]) return complain(mine.complaint);
    if (by_threads(size, rank, &as) != mine.hash) ended = complain("threads have other bytes");
    if (ended == 0) printf("member %d of %d: as threads\n", rank, size);
    return ended;
}

static int fail(struct team *team, int what, int who) {
    int status = RETORT_OK, rank = team_rank(team);
    for (int i = 0; i < 2 && status == RETORT_OK && what != CALL_LEAVE; i++) status = team_call(team, what);
    if (rank == who) {
        usleep(100000);
        status = error_set(RETORT_EFORMAT, "file %d is broken", rank);
        status = team_leave(team, status);
    } else {
        int got = team_call(team, what);
        status = team_leave(team, status);
        if (got != status) return complain("got something else from team_leave");
    }
    printf("member %d: %d, %s\n", rank, status, retort_error_message());
    team_destroy(team);
    return 0;
}

static int wait_for_ever(struct team *team, const char *folder) {
    char path[4096], number[32];
    snprintf(path, sizeof path, "%s/%d", folder, team_rank(team));
    snprintf(number, sizeof number, "%d\n", (int)getpid());
    if (file_write(path, number, strlen(number)) < 0) return complain(retort_error_message());
    for (int i = 0;; i++) {
        if (team_meet(team) < 0) return complain(retort_error_message());
        usleep(1000);
        if (team_rank(team) == 1 && i == 50) pause(); /* the one to be killed: the others wait for it */
    }
}

static int wait_idly(struct team *team) {
    struct timespec begun, ended;
    if (team_meet(team) < 0) return complain(retort_error_message());
    if (team_rank(team) == 1) usleep(500000);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &begun);
    if (team_meet(team) < 0) return complain(retort_error_message());
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ended);
    if (team_rank(team) != 1)
        printf("%.0f\n", (double)(ended.tv_sec - begun.tv_sec) * 1000 + (double)(ended.tv_nsec - begun.tv_nsec) / 1e6);
    team_leave(team, RETORT_OK);
    team_destroy(team);
    return 0;
}

static void on_signal(int number) {
    (void)number;
}

/* Whether the program's own handlers of these signals are still there. */
static bool has_handlers(void) {
    struct sigaction action;
    for (int number = SIGINT; number; number = number == SIGINT ? SIGTERM : 0)
        if (sigaction(number, NULL, &action) != 0 || action.sa_handler != on_signal) return false;
    return true;
}

int main(int count, char **words) {
    const char *verb = count > 1 ? words[1] : "";
    struct team *team = NULL;
    struct sigaction action = {.sa_handler = on_signal};
    alarm(300);
    if (strcmp(verb, "wait") != 0) {
        sigaction(SIGINT, &action, NULL);
        sigaction(SIGTERM, &action, NULL);
    }
    int status = team_create_mpi(&team);
    if (strcmp(verb, "create") == 0) {
        printf("%d, %s\n", status, status < 0 ? retort_error_message() : "made");
        if (status == RETORT_OK) team_leave(team, RETORT_OK);
        team_destroy(team);
        return 0;
    }
    if (status < 0) return complain(retort_error_message());
    if (strcmp(verb, "wait") != 0 && !has_handlers()) return complain("has lost its handlers of signals");
    if (strcmp(verb, "play") == 0) return play_and_compare(team);
    if (strcmp(verb, "fail") == 0 && count == 4) return fail(team, atoi(words[2]), atoi(words[3]));
    if (strcmp(verb, "wait") == 0 && count == 3) return wait_for_ever(team, words[2]);
    if (strcmp(verb, "idle") == 0) return wait_idly(team);
    if (strcmp(verb, "vanish") == 0) {
        if (team_rank(team) == 1) {
            team_destroy(team); /* without having left it */
            return 0;
        }
        return complain(team_meet(team) < 0 ? retort_error_message() : "goes on");
    }
    return complain("does not know what to do");
}
