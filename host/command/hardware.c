#define _GNU_SOURCE /* mkdtemp */
#include "command/hardware.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "bench/load.h"
#include "command/child.h"
#include "compile/wisdom.h"
#include "report/hardware.h"
#include "run/json_file.h"
#include "run/words.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

enum { TURNS = 5, TURNS_QUICK = 2 };
#define PATIENCE_START 180.0 /* seconds: a library of matrix products may be tested first */
#define TURNS_SECONDS  15.0  /* after so many seconds of turns at one load a device takes no more */
#define WORDS_SIZE     640

/* One device with its child. */
struct contender {
    const struct device_traits *traits;
    struct child child;
    json_t *result;            /* of the file */
    bool lost;                 /* no child can be started */
    struct device_peaks peaks; /* the largest so far; 0: not known */
    /* The load under way. */
    json_t *row;
    double used, turning; /* seconds, of all and of turns */
    double joules;
    int joules_count;
    bool done;     /* takes no more turns */
    bool no_steps; /* the last outer step took none */
};

struct contest {
    const struct hardware_spec *spec;
    struct contender *contenders;
    size_t count;
};

/* --- talking to a child --- */
/* What the child says next; NULL, with words, where that is a problem. `limit`: the time that it had, for the words. */
static int hear_answer(struct contest *contest, struct contender *c, double patience, double limit,
                       char words[WORDS_SIZE], json_t **answer) {
    int status = RETORT_OK;
    char line[CHILD_LINE];
    json_t *value = NULL;
    *words = '\0';
    *answer = NULL;
    enum heard heard = child_hear(&c->child, patience, 0, contest->spec->interrupt, line);
    if (heard == HEARD_STOP) RAISE(RETORT_EINTERRUPTED, "measuring was stopped; the results are those until then");
    if (heard != HEARD_LINE) {
        child_end(&c->child);
        if (heard == HEARD_SILENCE)
            snprintf(words, WORDS_SIZE, "not done in %.3g s", limit);
        else
            snprintf(words, WORDS_SIZE, "it ended the process that ran it");
        return RETORT_OK;
    }
    value = json_loads(line, 0, NULL);
    const char *problem = json_string_value(json_object_get(value, "problem"));
    if (!value || problem) {
        snprintf(words, WORDS_SIZE, "%s", problem ? problem : "it printed into its answers");
        json_decref(value);
    } else
        *answer = value;
done:
    return status;
}

/* Starts a child where there is none, and keeps what it says of its device. */
static int ensure_child(struct contest *contest, struct contender *c) {
    int status = RETORT_OK;
    char device[16], words[WORDS_SIZE];
    json_t *answer = NULL;
    if (c->child.process || c->lost) return RETORT_OK;
    snprintf(device, sizeof device, "%d", c->traits->index);
    const char *arguments[] = {"bench-worker",
                               "--device",
                               device,
                               "--family",
                               words_family[contest->spec->family],
                               contest->spec->quick ? "--quick" : NULL,
                               NULL};
    TRY(child_start(&c->child, arguments));
    double patience = fmax(PATIENCE_START, contest->spec->limit);
    TRY(hear_answer(contest, c, patience, patience, words, &answer));
    if (!answer) {
        c->lost = true;
        child_end(&c->child);
        json_object_set_new(c->result, "problem", json_text(words));
        log_info("%s: %s", c->traits->platform, words);
    } else
        json_object_update(c->result, answer);
done:
    json_decref(answer);
    return status;
}

/* Says a line and hears the answer, within what is left of the load's time. */
static int ask(struct contest *contest, struct contender *c, const char *line, char words[WORDS_SIZE],
               json_t **answer) {
    int status = RETORT_OK;
    double begun = clock_seconds(), left = contest->spec->limit - c->used;
    *answer = NULL;
    snprintf(words, WORDS_SIZE, "it ended the process that ran it");
    if (c->child.process && child_say(&c->child, line, strlen(line)))
        TRY(hear_answer(contest, c, fmax(left, 0.1), contest->spec->limit, words, answer));
    else
        child_end(&c->child);
    c->used += clock_seconds() - begun;
done:
    return status;
}

/* --- a load --- */
static json_t *empty_row(const char *name) {
    return json_pack("{s:s, s:[], s:n, s:n, s:n, s:n, s:n, s:n, s:n, s:n, s:n}", "load", name, "seconds", "joules",
                     "flops", "bytes", "device_bytes", "build_seconds", "arithmetic_seconds", "memory_seconds", "way",
                     "problem");
}

static int begin(struct contest *contest, struct contender *c, const struct load *load) {
    int status = RETORT_OK;
    char line[96], words[WORDS_SIZE];
    json_t *answer = NULL;
    c->used = c->turning = c->joules = 0;
    c->joules_count = 0;
    c->row = NULL;
    c->done = true;
    TRY(ensure_child(contest, c));
    if (c->lost) return RETORT_OK;
    c->row = empty_row(load->name);
    if (!c->row || json_array_append_new(json_object_get(c->result, "loads"), c->row) < 0)
        RAISE(RETORT_ENOMEM, "out of memory keeping results");
    if (load->kind == LOAD_INNER && c->no_steps) {
        json_object_set_new(c->row, "problem", json_string("its kernels are those of the outer step, which failed"));
        return RETORT_OK;
    }
    snprintf(line, sizeof line, "begin %s\n", load->name);
    TRY(ask(contest, c, line, words, &answer));
    if (answer) json_object_update(c->row, answer);
    if (!answer) json_object_set_new(c->row, "problem", json_text(words));
    c->done = !answer;
done:
    json_decref(answer);
    return status;
}

static int take_turn(struct contest *contest, struct contender *c) {
    int status = RETORT_OK;
    char words[WORDS_SIZE];
    json_t *answer = NULL;
    double begun = clock_seconds();
    if (c->done) return RETORT_OK;
    TRY(ask(contest, c, "turn\n", words, &answer));
    if (!answer) {
        json_object_set_new(c->row, "problem", json_text(words));
        c->done = true;
        goto done;
    }
    json_array_append(json_object_get(c->row, "seconds"), json_object_get(answer, "seconds"));
    const json_t *joules = json_object_get(answer, "joules");
    if (json_is_number(joules)) {
        c->joules += json_number_value(joules);
        c->joules_count++;
    }
    double taken = clock_seconds() - begun;
    c->turning += taken;
    c->done = c->turning > TURNS_SECONDS || c->used + taken > contest->spec->limit; /* as the next would */
done:
    json_decref(answer);
    return status;
}

static double least_of(const json_t *list) {
    double least = INFINITY;
    size_t i;
    const json_t *value;
    json_array_foreach((json_t *)list, i, value) least = fmin(least, json_number_value(value));
    return least;
}

/* What is known of the load beside its turns, and a line of it for people. */
static int end(struct contest *contest, struct contender *c, const struct load *load) {
    int status = RETORT_OK;
    char line[96], words[WORDS_SIZE] = "";
    json_t *answer = NULL;
    if (!c->row) return RETORT_OK;
    size_t turns = json_array_size(json_object_get(c->row, "seconds"));
    if (c->child.process && turns && json_is_null(json_object_get(c->row, "problem"))) {
        c->used = 0; /* the clock of kernels makes some drivers slow: what was measured shall not be lost to that */
        snprintf(line, sizeof line, "end %.17g %.17g\n", c->peaks.flops, c->peaks.bytes);
        TRY(ask(contest, c, line, words, &answer));
        if (answer) json_object_update(c->row, answer);
        if (!answer) json_object_set_new(c->row, "problem", json_text(words));
    }
    if (c->joules_count) json_object_set_new(c->row, "joules", json_real(c->joules / c->joules_count));
    const char *problem = json_string_value(json_object_get(c->row, "problem"));
    if (load->kind == LOAD_OUTER) c->no_steps = !turns;
    if (turns)
        log_info("%-20s %12.6g s, least of %zu  %.60s%s%s", load->name, least_of(json_object_get(c->row, "seconds")),
                 turns, c->traits->platform, problem ? ": " : "", problem ? problem : "");
    else
        log_info("%-20s %33s  %.60s: %s", load->name, "", c->traits->platform, problem);
done:
    json_decref(answer);
    return status;
}

static int measure_load(struct contest *contest, const struct load *load) {
    int status = RETORT_OK;
    const int turns = contest->spec->quick ? TURNS_QUICK : TURNS;
    for (size_t i = 0; i < contest->count; i++) TRY(begin(contest, &contest->contenders[i], load));
    for (int turn = 0; turn < turns; turn++)
        for (size_t i = 0; i < contest->count; i++) TRY(take_turn(contest, &contest->contenders[i]));
    for (size_t i = 0; i < contest->count; i++) TRY(end(contest, &contest->contenders[i], load));
done:
    return status;
}

/* --- the peaks --- */
static int measure_peak(struct contest *contest, struct contender *c) {
    int status = RETORT_OK;
    char words[WORDS_SIZE];
    json_t *answer = NULL, *peaks = json_object_get(c->result, "peaks");
    double begun = clock_seconds();
    if (c->done) return RETORT_OK;
    TRY(ensure_child(contest, c));
    if (c->lost) return RETORT_OK;
    TRY(ask(contest, c, "peaks\n", words, &answer));
    c->done = !answer || c->used + clock_seconds() - begun > contest->spec->limit;
    if (!answer) {
        json_object_set_new(peaks, "problem", json_text(words));
        log_info("%-20s %33s  %.60s: %s", "peaks", "", c->traits->platform, words);
        goto done;
    }
    json_array_append(json_object_get(peaks, "flops"), json_object_get(answer, "flops"));
    json_array_append(json_object_get(peaks, "bytes"), json_object_get(answer, "bytes"));
    c->peaks.flops = fmax(c->peaks.flops, json_number_value(json_object_get(answer, "flops")));
    c->peaks.bytes = fmax(c->peaks.bytes, json_number_value(json_object_get(answer, "bytes")));
done:
    json_decref(answer);
    return status;
}

static int measure_peaks(struct contest *contest) {
    int status = RETORT_OK;
    const int turns = contest->spec->quick ? TURNS_QUICK : TURNS;
    for (int turn = 0; turn < turns; turn++)
        for (size_t i = 0; i < contest->count; i++) TRY(measure_peak(contest, &contest->contenders[i]));
    for (size_t i = 0; i < contest->count; i++) {
        const struct contender *c = &contest->contenders[i];
        if (c->peaks.flops > 0)
            log_info("%-20s %.4g GFLOP/s, copy %.4g GB/s  %.60s", "peaks", c->peaks.flops * 1e-9, c->peaks.bytes * 1e-9,
                     c->traits->platform);
    }
done:
    return status;
}

/* --- the machine and the build --- */
/* What stands behind "NAME   : " in /proc/cpuinfo; "unknown". */
static json_t *processor_name(void) {
    char line[256], name[200] = "unknown";
    FILE *stream = fopen("/proc/cpuinfo", "r");
    while (stream && fgets(line, sizeof line, stream)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (stream) fclose(stream);
    return json_text(name);
}

static json_t *describe_machine(void) {
    struct utsname names = {0};
    char system[256];
    uname(&names);
    snprintf(system, sizeof system, "%.60s %.100s %.60s", names.sysname, names.release, names.machine);
    double memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    return json_pack("{s:o, s:o, s:i, s:o}", "processor", processor_name(), "system", json_text(system), "cores",
                     (int)sysconf(_SC_NPROCESSORS_ONLN), "memory_bytes", memory > 0 ? json_real(memory) : json_null());
}

static json_t *describe_build(void) {
#ifdef __clang__
    static const char compiler[] = "clang " __clang_version__;
#else
    static const char compiler[] = "gcc " __VERSION__;
#endif
#ifdef RETORT_CLBLAST
    json_t *clblast = json_string(RETORT_CLBLAST);
#else
    json_t *clblast = json_null();
#endif
    return json_pack("{s:s, s:s, s:o}", "compiler", compiler, "options", RETORT_BUILD_OPTIONS, "clblast", clblast);
}

static json_t *describe_device(const struct device_traits *traits, enum family family) {
    json_t *device = json_pack("{s:o, s:o, s:o, s:o, s:o, s:s, s:i, s:i, s:I}", "name", json_text(traits->name),
                               "platform", json_text(traits->platform), "vendor", json_text(traits->vendor), "version",
                               json_text(traits->version), "driver", json_text(traits->driver), "kind",
                               device_kind_name(traits->kind), "compute_units", (int)traits->compute_units, "lanes",
                               (int)traits->lanes, "global_memory", (json_int_t)traits->global_memory);
    enum family own = kernels_target(traits, family).family;
    return json_pack("{s:o, s:s, s:n, s:n, s:n, s:n, s:{s:[], s:[], s:n}, s:[]}", "device", device, "family",
                     words_family[own], "wisdom", "products", "energy", "problem", "peaks", "flops", "bytes", "problem",
                     "loads");
}

static json_t *describe_all(const struct contest *contest) {
    time_t now = time(NULL);
    struct tm utc;
    char measured[32];
    json_t *list = json_array();
    gmtime_r(&now, &utc);
    strftime(measured, sizeof measured, "%Y-%m-%dT%H:%M:%SZ", &utc);
    for (size_t i = 0; i < contest->count; i++) json_array_append(list, contest->contenders[i].result);
    return json_pack("{s:s, s:i, s:s, s:s, s:b, s:f, s:o, s:o, s:o}", "benchmark", "hardware", "format",
                     HARDWARE_FORMAT, "retort", RETORT_VERSION, "measured", measured, "quick", contest->spec->quick,
                     "limit_seconds", contest->spec->limit, "machine", describe_machine(), "build", describe_build(),
                     "results", list);
}

/* What was under way when measuring was stopped has a problem, where it has no turn. */
static void note_stop(const struct contest *contest) {
    static const char words[] = "measuring was stopped";
    for (size_t i = 0; i < contest->count; i++) {
        const json_t *result = contest->contenders[i].result, *row;
        json_t *peaks = json_object_get(result, "peaks");
        size_t at;
        if (!json_array_size(json_object_get(peaks, "flops")) && json_is_null(json_object_get(peaks, "problem")))
            json_object_set_new(peaks, "problem", json_string(words));
        json_array_foreach(json_object_get(result, "loads"), at, row) {
            if (!json_array_size(json_object_get(row, "seconds")) && json_is_null(json_object_get(row, "problem")))
                json_object_set_new((json_t *)row, "problem", json_string(words));
        }
    }
}

/* --- all of it --- */
static int measure_all(struct contest *contest) {
    int status = RETORT_OK;
    TRY(measure_peaks(contest));
    for (size_t i = 0; i < LOADS; i++)
        if (loads[i].quick || !contest->spec->quick) TRY(measure_load(contest, &loads[i]));
done:
    return status;
}

static bool is_asked(const struct device_traits *traits, const char *words) {
    if (!words) return true;
    if (*words && words[strspn(words, "0123456789")] == '\0') return traits->index == (int)strtol(words, NULL, 10);
    return device_matches(traits, words);
}

static int enter(struct contest *contest, const struct device_traits *list, size_t count) {
    int status = RETORT_OK;
    const struct hardware_spec *spec = contest->spec;
    contest->contenders = calloc(count + 1, sizeof *contest->contenders);
    if (!contest->contenders) RAISE(RETORT_ENOMEM, "out of memory");
    for (size_t i = 0; i < count && contest->count < HARDWARE_DEVICES; i++) {
        if (!is_asked(&list[i], spec->devices)) continue;
        struct contender *c = &contest->contenders[contest->count];
        c->traits = &list[i];
        c->result = describe_device(&list[i], spec->family);
        if (!c->result) RAISE(RETORT_ENOMEM, "out of memory");
        contest->count++;
    }
    if (contest->count == 0)
        RAISE(RETORT_EDEVICE,
              spec->devices ? "no device matches \"%s\"; `retort devices` lists them"
                            : "no OpenCL device found%s; `retort devices` says more",
              spec->devices ? spec->devices : "");
done:
    return status;
}

/* What builds kernels shall build them: drivers and our own cache of programs keep them in an empty folder, which goes
 * with the benchmark. The wisdom stays where it is. */
static int cold_caches(char folder[FILE_PATH_MAX]) {
    int status = RETORT_OK;
    static const char *const names[] = {"XDG_CACHE_HOME", "POCL_CACHE_DIR", "CUDA_CACHE_PATH", "MESA_SHADER_CACHE_DIR",
                                        "NEO_CACHE_DIR"};
    char wisdom[FILE_PATH_MAX];
    const char *place = getenv("TMPDIR");
    wisdom_path(wisdom);
    setenv("RETORT_WISDOM", *wisdom ? wisdom : "off", 1);
    TRY(path_join(place && *place ? place : "/tmp", "retort-bench-XXXXXX", folder));
    if (!mkdtemp(folder)) {
        *folder = '\0';
        RAISE(RETORT_EIO, "cannot make a folder for drivers' caches in %s; TMPDIR names another place",
              place && *place ? place : "/tmp");
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) setenv(names[i], folder, 1);
done:
    return status;
}

int hardware_measure(const struct hardware_spec *spec, json_t **results) {
    int status = RETORT_OK;
    struct contest contest = {.spec = spec};
    struct device_traits *list = NULL;
    struct hardware_file file = {0};
    char folder[FILE_PATH_MAX] = "";
    json_t *all = NULL;
    size_t count;
    TRY(device_list(&list, &count));
    TRY(enter(&contest, list, count));
    if (!spec->quick) TRY(cold_caches(folder));
    int ended = measure_all(&contest);
    if (ended == RETORT_EINTERRUPTED)
        note_stop(&contest);
    else
        TRY(ended);
    all = describe_all(&contest);
    if (!all) RAISE(RETORT_ENOMEM, "out of memory");
    TRY(hardware_check("what was measured", all, &file));
    *results = json_incref(all);
    status = ended; /* an interrupt's words are still there */
done:
    hardware_finish(&file);
    json_decref(all);
    for (size_t i = 0; i < contest.count; i++) {
        child_end(&contest.contenders[i].child);
        json_decref(contest.contenders[i].result);
    }
    free(contest.contenders);
    free(list);
    if (*folder) folder_remove(folder);
    return status;
}
