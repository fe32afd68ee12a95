#define _GNU_SOURCE /* pipe2 */
#include "command/seeds.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "report/html.h"
#include "run/descriptor.h"
#include "run/json_file.h"
#include "team/team.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SEEDS_MOST = 256 };

struct seed {
    unsigned long long number;
    char folder[FILE_PATH_MAX];
    int device;    /* in the order of their naming */
    bool begun;    /* its process was started, and may have ended */
    pid_t process; /* 0: it does not run */
    double started;
    bool done;
};
struct seeds {
    const struct options *options;
    const volatile int *interrupt;
    struct descriptor descriptor;
    int count, devices;
    struct seed list[SEEDS_MOST];
};

/* --- which --- */
/* "0-4" or "0,3,7", each once, rising or not. */
static bool parse(const char *text, struct seeds *seeds) {
    while (*text) {
        char *end;
        unsigned long long first = strtoull(text, &end, 10), last = first;
        if (end == text || *text == '-') return false;
        if (*end == '-') {
            const char *second = end + 1;
            last = strtoull(second, &end, 10);
            if (end == second || *second == '-' || last < first) return false;
        }
        if (last - first >= SEEDS_MOST || seeds->count + (int)(last - first) >= SEEDS_MOST) return false;
        for (unsigned long long number = first; number <= last; number++) {
            for (int i = 0; i < seeds->count; i++)
                if (seeds->list[i].number == number) return false;
            seeds->list[seeds->count++].number = number;
        }
        if (*end == ',' && end[1])
            end++;
        else if (*end)
            return false;
        text = end;
    }
    return seeds->count > 0;
}

static int name_folders(struct seeds *seeds) {
    int status = RETORT_OK;
    const char *out = seeds->options->value[OPTION_OUT];
    for (int i = 0; i < seeds->count; i++) {
        struct seed *seed = &seeds->list[i];
        int length =
            out ? snprintf(seed->folder, sizeof seed->folder, "%s/seed-%llu", out, seed->number)
                : snprintf(seed->folder, sizeof seed->folder, "runs/%s-%llu", seeds->descriptor.name, seed->number);
        if (length >= (int)sizeof seed->folder) RAISE(RETORT_EINVAL, "the name of the run folder is too long");
    }
done:
    return status;
}

/* --- processes --- */
/* The words of a command line, with NULL behind the last. */
struct arguments {
    struct arena arena;
    const char **list;
    int count;
};

/* `retort VERB` with this one's --set options. */
static int arguments_begin(struct arguments *arguments, const char *verb, const struct options *options) {
    enum { OTHERS = 24 }; /* words that are not those of --set, NULL included */
    arena_init(&arguments->arena);
    arguments->count = 0;
    arguments->list = arena_array(&arguments->arena, OTHERS + 2 * options->override_count, sizeof *arguments->list);
    if (!arguments->list) return error_set(RETORT_ENOMEM, "out of memory for a command line");
    arguments->list[arguments->count++] = "retort";
    arguments->list[arguments->count++] = verb;
    for (size_t i = 0; i < options->override_count; i++) {
        if (strncmp(options->overrides[i].option, "--set ", 6) != 0) continue;
        arguments->list[arguments->count++] = "--set";
        arguments->list[arguments->count++] = options->overrides[i].assignment;
    }
    return RETORT_OK;
}

static void add(struct arguments *arguments, const char *word) {
    arguments->list[arguments->count++] = word;
}

/* An option as this command was given it, or not. */
static void pass_on(struct arguments *arguments, const struct options *options, enum option_name option) {
    if (!options->given[option]) return;
    add(arguments, arena_printf(&arguments->arena, "--%s", options_name(option)));
    if (options->value[option]) add(arguments, options->value[option]);
}

/* Ctrl-C reaches this process alone, which hands it on once: a second signal would make a run leave without saving.
 * Where this process is killed, its runs save their state and end. out: for standard output, or -1: nowhere. */
static int start(const struct arguments *arguments, int out, pid_t *process) {
    if (arguments->arena.failed) return error_set(RETORT_ENOMEM, "out of memory for a command line");
    pid_t started = fork();
    if (started < 0) return error_set(RETORT_EIO, "cannot start a process: %s", strerror(errno));
    if (started == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(nowhere, STDIN_FILENO);
        dup2(out < 0 ? nowhere : out, STDOUT_FILENO);
        execv("/proc/self/exe", (char *const *)arguments->list); /* which takes no const */
        _exit(127);
    }
    *process = started;
    return RETORT_OK;
}

static int start_run(const struct seeds *seeds, struct seed *seed) {
    static const enum option_name passed[] = {OPTION_RESUME,  OPTION_DRY_RUN,     OPTION_CHECKPOINT_EVERY,
                                              OPTION_PROFILE, OPTION_TENSORBOARD, OPTION_TUNE_SECONDS,
                                              OPTION_NO_TUNE};
    int status = RETORT_OK;
    const struct options *options = seeds->options;
    struct arguments arguments;
    char spec[DEVICE_SPEC], copy[FILE_PATH_MAX];
    TRY(arguments_begin(&arguments, "run", options));
    TRY(path_join(seed->folder, "descriptor.yaml", copy));
    if (options->given[OPTION_RESUME] && file_exists(copy))
        arguments.count = 2; /* one that was begun goes on as its folder says, on the device that it was begun on */
    else {
        descriptor_device(&seeds->descriptor, seed->device, spec);
        add(&arguments, options->operands[0]);
        add(&arguments, "--seed");
        add(&arguments, arena_printf(&arguments.arena, "%llu", seed->number));
        if (*spec) add(&arguments, "--device");
        if (*spec) add(&arguments, spec);
    }
    add(&arguments, "--out");
    add(&arguments, seed->folder);
    add(&arguments, "--quiet");
    for (size_t i = 0; i < sizeof passed / sizeof *passed; i++) pass_on(&arguments, options, passed[i]);
    TRY(start(&arguments, -1, &seed->process));
done:
    arena_finish(&arguments.arena);
    return status;
}

/* --- how they are divided --- */
static int start_plan(const struct seeds *seeds, int device, FILE **answer, pid_t *process) {
    int status = RETORT_OK;
    struct arguments arguments;
    char spec[DEVICE_SPEC];
    descriptor_device(&seeds->descriptor, device, spec);
    TRY(arguments_begin(&arguments, "plan", seeds->options));
    const char *const words[] = {seeds->options->operands[0], "--json", "--quiet", "--device", spec};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) add(&arguments, words[i]);
    if (!(*answer = tmpfile())) RAISE(RETORT_EIO, "cannot make a temporary file: %s", strerror(errno));
    TRY(start(&arguments, fileno(*answer), process));
done:
    arena_finish(&arguments.arena);
    return status;
}

/* Seconds of a run by `retort plan`, on all devices at the same time, for they may share processors. */
static int measure(const struct seeds *seeds, double *seconds) {
    int status = RETORT_OK;
    struct {
        pid_t process;
        FILE *answer;
    } plans[DEVICES_MOST] = {0};
    for (int i = 0; i < seeds->devices; i++) TRY(start_plan(seeds, i, &plans[i].answer, &plans[i].process));
done:
    for (int i = 0; i < seeds->devices; i++) {
        json_t *plan = NULL;
        double distil, evaluate;
        if (plans[i].process > 0) waitpid(plans[i].process, NULL, 0);
        if (plans[i].answer) rewind(plans[i].answer);
        if (plans[i].answer) plan = json_loadf(plans[i].answer, 0, NULL);
        if (plans[i].answer) fclose(plans[i].answer);
        if (status == RETORT_OK
            && json_unpack(plan, "{s:{s:F, s:F}}", "seconds", "distil", &distil, "evaluate", &evaluate) < 0)
            status = error_set(RETORT_EDEVICE, "device %d cannot plan the run; what it said stands above", i + 1);
        else if (status == RETORT_OK)
            seconds[i] = distil + evaluate;
        json_decref(plan);
    }
    return status;
}

/* Seeds to devices, in the order of both, in the ratio of the shares: each gets the next that is furthest behind. */
static void deal(struct seeds *seeds, const int *shares) {
    int dealt[DEVICES_MOST] = {0};
    for (int i = 0; i < seeds->count; i++) {
        int next = 0;
        for (int k = 1; k < seeds->devices; k++)
            if ((long)(dealt[k] + 1) * shares[next] < (long)(dealt[next] + 1) * shares[k]) next = k;
        seeds->list[i].device = next;
        dealt[next]++;
    }
}

static int divide(struct seeds *seeds) {
    int status = RETORT_OK, shares[DEVICES_MOST];
    double seconds[DEVICES_MOST];
    bool given;
    TRY(descriptor_shares(&seeds->descriptor, seeds->devices, shares, &given));
    if (!given && seeds->devices > 1 && seeds->count > 1) {
        TRY(measure(seeds, seconds));
        division_by_speed(seconds, seeds->devices, shares);
    }
    deal(seeds, shares);
done:
    return status;
}

/* --- all of them --- */
static void start_next(struct seeds *seeds) {
    for (int device = 0; device < seeds->devices; device++) {
        bool busy = false;
        for (int i = 0; i < seeds->count; i++) busy |= seeds->list[i].device == device && seeds->list[i].process > 0;
        for (int i = 0; i < seeds->count && !busy; i++) {
            struct seed *seed = &seeds->list[i];
            if (seed->device != device || seed->begun) continue;
            seed->begun = busy = true;
            seed->started = clock_seconds();
            if (start_run(seeds, seed) < 0) log_warning("seed %llu: %s", seed->number, retort_error_message());
            char spec[DEVICE_SPEC];
            descriptor_device(&seeds->descriptor, device, spec);
            log_info("seed %llu: begun%s%s, in %s", seed->number, *spec ? " on " : "", spec, seed->folder);
        }
    }
}

static bool any_runs(const struct seeds *seeds) {
    for (int i = 0; i < seeds->count; i++)
        if (seeds->list[i].process > 0) return true;
    return false;
}

static void wait_for_one(struct seeds *seeds) {
    int ended;
    pid_t process = waitpid(-1, &ended, WNOHANG);
    if (process <= 0) {
        usleep(20000);
        return;
    }
    for (int i = 0; i < seeds->count; i++) {
        struct seed *seed = &seeds->list[i];
        if (seed->process != process) continue;
        char words[32];
        seconds_words(clock_seconds() - seed->started, words, sizeof words);
        seed->process = 0;
        seed->done = WIFEXITED(ended) && WEXITSTATUS(ended) == EXIT_DONE;
        log_info("seed %llu: %s after %s", seed->number, seed->done ? "done" : "ended without a result", words);
    }
}

static void run_all(struct seeds *seeds) {
    bool told = false;
    if (!*seeds->interrupt) start_next(seeds);
    while (any_runs(seeds)) {
        wait_for_one(seeds);
        if (!*seeds->interrupt) {
            start_next(seeds);
            continue;
        }
        for (int i = 0; i < seeds->count && !told; i++)
            if (seeds->list[i].process > 0) kill(seeds->list[i].process, SIGTERM);
        told = true;
    }
}

/* --- what came out --- */
struct spread {
    double mean, sd; /* n - 1; NaN where there are none, or one */
};
static struct spread spread_of(const double *values, int count) {
    struct spread spread = {NAN, NAN};
    double sum = 0, squares = 0;
    for (int i = 0; i < count; i++) sum += values[i];
    if (count > 0) spread.mean = sum / count;
    for (int i = 0; i < count; i++) squares += (values[i] - spread.mean) * (values[i] - spread.mean);
    if (count > 1) spread.sd = sqrt(squares / (count - 1));
    return spread;
}

static json_t *spread_json(struct spread spread) {
    return json_pack("{s:o, s:o}", "mean", json_number_or_null(spread.mean), "sd", json_number_or_null(spread.sd));
}

static void print_spread(const char *title, struct spread spread, int count) {
    if (isnan(spread.mean)) return;
    printf("%-11s%.2f", title, spread.mean);
    if (!isnan(spread.sd)) printf(" +- %.2f", spread.sd);
    printf(" %%  (mean of %d seed%s)\n", count, count > 1 ? "s" : "");
}

static void show(const struct seeds *seeds) {
    static const char *const rows[] = {"accuracy.distilled.mean", "accuracy.random.mean"};
    bool json = seeds->options->given[OPTION_JSON];
    double values[2][SEEDS_MOST];
    int counts[2] = {0};
    json_t *all = json_array();
    for (int i = 0; i < seeds->count; i++) {
        const struct seed *seed = &seeds->list[i];
        char path[FILE_PATH_MAX];
        json_t *result = NULL;
        if (!seed->done || path_join(seed->folder, "result.json", path) < 0 || json_file_read(path, &result) < 0)
            continue;
        double accuracy[2];
        for (int r = 0; r < 2; r++) {
            accuracy[r] = json_number_at(result, rows[r]);
            if (isfinite(accuracy[r])) values[r][counts[r]++] = accuracy[r];
        }
        const char *device = json_words_at(result, "device");
        if (!json)
            printf("seed %-6llu%6.2f %%  random %6.2f %%  %s  %s\n", seed->number, accuracy[0], accuracy[1],
                   seed->folder, device ? device : "");
        json_array_append_new(all,
                              json_pack("{s:I, s:s, s:s, s:o, s:o}", "seed", (json_int_t)seed->number, "folder",
                                        seed->folder, "device", device ? device : "", "distilled",
                                        json_number_or_null(accuracy[0]), "random", json_number_or_null(accuracy[1])));
        json_decref(result);
    }
    struct spread distilled = spread_of(values[0], counts[0]), random = spread_of(values[1], counts[1]);
    json_t *whole =
        json_pack("{s:o, s:o, s:o}", "seeds", all, "distilled", spread_json(distilled), "random", spread_json(random));
    char *text = json ? json_dumps(whole, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
    if (text) puts(text);
    free(text);
    json_decref(whole);
    if (json) return;
    print_spread("distilled", distilled, counts[0]);
    print_spread("random", random, counts[1]);
}

static int finish(const struct seeds *seeds) {
    int missing = 0;
    for (int i = 0; i < seeds->count; i++) missing += !seeds->list[i].done;
    if (*seeds->interrupt) {
        log_info("interrupted; go on with the same command and --resume");
        return EXIT_INTERRUPTED;
    }
    if (!missing) return EXIT_DONE;
    fprintf(stderr,
            "retort run: %d of %d seeds have no result; what they said stands above. Go on with the same command "
            "and --resume\n",
            missing, seeds->count);
    return EXIT_FAILED;
}

int seeds_run(const struct options *options, const volatile int *interrupt) {
    static struct seeds seeds;
    int status = RETORT_OK, exit_status = EXIT_USAGE;
    seeds = (struct seeds){.options = options, .interrupt = interrupt};
    if (team_launched() > 1) return usage_error("run", "--seeds starts processes of its own: leave mpirun out");
    if (options->given[OPTION_SEED]) return usage_error("run", "--seed and --seeds: take one of them");
    if (!parse(options->value[OPTION_SEEDS], &seeds))
        return usage_error("run", "--seeds %s: expected whole numbers such as 0-4 or 0,3,7, each once, at most %d",
                           options->value[OPTION_SEEDS], SEEDS_MOST);
    /* What is wrong with the descriptor is said once, and not by every run. */
    TRY(descriptor_read(options->operands[0], options->overrides, options->override_count, &seeds.descriptor));
    seeds.devices = descriptor_devices(&seeds.descriptor);
    TRY(name_folders(&seeds));
    TRY(divide(&seeds));
    run_all(&seeds);
    if (!options->given[OPTION_DRY_RUN]) show(&seeds);
    exit_status = finish(&seeds);
done:
    if (status < 0) exit_status = report_failure("run", status);
    descriptor_finish(&seeds.descriptor);
    return exit_status;
}
