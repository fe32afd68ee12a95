/* A run from descriptor to result.json. */
#include "run/run.h"

#include "base/error.h"
#include "base/locale.h"
#include "base/log.h"
#include "distill/method.h"
#include "run/checkpoint.h"
#include "run/forecast.h"
#include "run/json_file.h"
#include "run/member.h"
#include "run/metrics.h"
#include "run/prepare.h"
#include "run/preview.h"
#include "run/profile.h"
#include "run/public.h"
#include "run/run_folder.h"
#include "run/score.h"
#include "run/session.h"
#include "run/set_folder.h"
#include "run/watch.h"
#include "run/words.h"
#include "team/team.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECKPOINT_SECONDS 20.0

/* A device beside the first, which a thread of its own drives. */
struct follower {
    struct member member;
    char name[160]; /* in warnings */
    pthread_t thread;
    struct start *start;
};

/* Threads that have been made wait here until it is known whether all could be. */
struct start {
    pthread_mutex_t lock;
    bool all;
};

struct retort_run {
    struct descriptor descriptor;
    struct retort_run_options options;
    struct run_folder folder;
    struct member self;         /* this process's part in the run */
    struct follower *followers; /* [follower_count]: threads with the other devices; NULL: there are none */
    int follower_count;
    struct team **teams;         /* of this thread and of those, [1 + follower_count] */
    struct device_plan *devices; /* [team_size]: what works on the run */
    locale_t callers;            /* the locale of the thread that executes it, for the callback */
    struct device_profile profile;
    struct device_peaks peaks;
    char *result;
};

/* --- making one --- */
static int begin_create(const struct retort_run_options *options, struct retort_run **run) {
    struct retort_run *fresh = calloc(1, sizeof *fresh);
    if (!fresh) return error_set(RETORT_ENOMEM, "out of memory");
    fresh->folder.lock = -1;
    fresh->options = *options;
    if (!(fresh->options.checkpoint_every > 0)) fresh->options.checkpoint_every = CHECKPOINT_SECONDS;
    *run = fresh;
    return RETORT_OK;
}

/* Once the descriptor is read. */
static int settle_folder(struct retort_run *run) {
    int status = RETORT_OK;
    TRY(run_folder_name(&run->descriptor, run->options.out, &run->folder));
    TRY(run_folder_check(&run->folder, &run->descriptor, run->options.resume, &run->self.begun));
    if (run->self.begun) TRY(run_folder_adopt(&run->folder, &run->descriptor));
done:
    return status;
}

int run_create(const char *descriptor, const struct schema_override *overrides, size_t override_count,
               const struct retort_run_options *options, struct retort_run **run) {
    int status = RETORT_OK;
    char kept[FILE_PATH_MAX];
    struct retort_run *fresh = NULL;
    TRY(begin_create(options, &fresh));
    if (!descriptor && (!options->resume || !options->out)) RAISE(RETORT_EINVAL, "no descriptor was named");
    if (!descriptor) TRY(path_join(options->out, "descriptor.yaml", kept));
    status = descriptor_read(descriptor ? descriptor : kept, overrides, override_count, &fresh->descriptor);
    /* A descriptor that cannot be read is the caller's mistake, as one that cannot be understood is. */
    if (status == RETORT_EIO) status = RETORT_EINVAL;
    TRY(status);
    TRY(settle_folder(fresh));
    *run = fresh;
    fresh = NULL;
done:
    retort_run_destroy(fresh);
    return status;
}

static int create_text(const char *name, const char *folder, const char *text, const struct schema_override *overrides,
                       size_t override_count, const struct retort_run_options *options, struct retort_run **run) {
    int status = RETORT_OK;
    struct retort_run *fresh = NULL;
    TRY(begin_create(options, &fresh));
    TRY(public_parse(name, folder, text, overrides, override_count, &fresh->descriptor));
    TRY(settle_folder(fresh));
    *run = fresh;
    fresh = NULL;
done:
    retort_run_destroy(fresh);
    return status;
}

/* A descriptor in memory has a name and a folder; one on disk is named by its path alone. */
static int create_public(const char *name, const char *folder, const char *text,
                         const struct retort_run_options *options, struct retort_run **run) {
    int status = RETORT_OK;
    const struct retort_run_options none = {0};
    locale_t before = locale_enter_c();
    struct arena arena;
    arena_init(&arena);
    size_t count;
    if (!options) options = &none;
    TRY(public_check_reserved("retort_run_options", options->reserved));
    struct schema_override *overrides = public_overrides(options->settings, &arena, &count);
    if (arena.failed) RAISE(RETORT_ENOMEM, "out of memory");
    if (text)
        TRY(create_text(name, folder, text, overrides, count, options, run));
    else
        TRY(run_create(name, overrides, count, options, run));
done:
    arena_finish(&arena);
    uselocale(before);
    return status;
}

int retort_run_create(const char *descriptor, const struct retort_run_options *options, struct retort_run **run) {
    return create_public(descriptor, NULL, NULL, options, run);
}

int retort_run_create_text(const char *name, const char *folder, const char *text,
                           const struct retort_run_options *options, struct retort_run **run) {
    return create_public(name, folder, text, options, run);
}

void run_join(struct retort_run *run, struct team *team) {
    run->self.team = team;
}

static void close_devices(struct retort_run *run) {
    for (int i = 0; i < run->follower_count; i++) session_close(&run->followers[i].member.session);
    session_close(&run->self.session);
    for (int i = 0; run->teams && i <= run->follower_count; i++) team_destroy(run->teams[i]);
    if (run->teams) run->self.team = NULL;
    free(run->teams);
    free(run->followers);
    run->teams = NULL;
    run->followers = NULL;
    run->follower_count = 0;
}

void retort_run_destroy(struct retort_run *run) {
    if (!run) return;
    close_devices(run);
    run_folder_release(&run->folder);
    descriptor_finish(&run->descriptor);
    device_profile_finish(&run->profile);
    free(run->result);
    free(run->devices);
    free(run);
}

const struct descriptor *run_descriptor(const struct retort_run *run) {
    return &run->descriptor;
}

const char *retort_run_folder(const struct retort_run *run) {
    return run->folder.path;
}

const char *retort_run_result(const struct retort_run *run) {
    return run->result;
}

bool run_profile_table(const struct retort_run *run, struct text *text) {
    if (!run->profile.count) return false;
    profile_table(&run->profile, &run->peaks, text);
    return true;
}

static bool interrupted(const struct retort_run *run) {
    return run->options.interrupt && *run->options.interrupt;
}

/* --- distilling --- */
/* What this sitting adds to what earlier ones spent. */
static void count_device(const struct session *session, const struct spent *before, struct spent *spent) {
    spent->build_kernels = before->build_kernels + device_build_seconds(session->device);
    uint64_t peak = device_peak_bytes(session->device);
    spent->peak_device_bytes = peak > before->peak_device_bytes ? peak : before->peak_device_bytes;
}

/* Tells the caller's program. */
static void call_back(const struct retort_run *run, int step, const struct metrics *metrics) {
    if (!run->options.progress) return;
    const struct retort_progress progress = {step, run->descriptor.outer.steps, metric_number(metrics, "loss"),
                                             metric_number(metrics, "accuracy"), metric_word(metrics, "stage")};
    locale_t ours = uselocale(run->callers);
    run->options.progress(run->options.user, &progress);
    uselocale(ours);
}

/* Takes outer steps to the end, from wherever the method stands. */
static int take_steps(struct retort_run *run, struct session *session, struct distill *distill, struct spent *spent) {
    int status = RETORT_OK;
    const struct spent before = *spent;
    int total = run->descriptor.outer.steps, saved = distill_steps_done(distill);
    struct metrics_file metrics_file = {0};
    struct watch watch = {0};
    TRY(metrics_open(run->folder.metrics, saved, &metrics_file));
    TRY(watch_begin(&watch, &run->folder, &run->descriptor, session, distill, run->options.tensorboard,
                    run->self.plan.evaluate.seconds));
    if (run->options.profile) TRY(device_profile_begin(session->device));
    double saved_at = clock_seconds();
    while (distill_steps_done(distill) < total && !interrupted(run)) {
        const struct metrics *metrics;
        double begun = clock_seconds();
        status = distill_step(distill, &metrics);
        if (status == RETORT_EINTERRUPTED) break; /* what was done of the step is dropped */
        if (status < 0) error_context("outer step %d", distill_steps_done(distill) + 1);
        TRY(status);
        spent->distil += clock_seconds() - begun;
        TRY(metrics_write(&metrics_file, metrics));
        TRY(watch_step(&watch, metrics));
        call_back(run, distill_steps_done(distill), metrics);
        if (clock_seconds() - saved_at < run->options.checkpoint_every) continue;
        count_device(session, &before, spent);
        TRY(metrics_sync(&metrics_file));
        TRY(checkpoint_save(run->folder.checkpoints, distill, saved, spent));
        TRY(watch_checkpoint(&watch));
        saved = distill_steps_done(distill);
        saved_at = clock_seconds();
    }
    if (run->options.profile) {
        TRY(device_profile_end(session->device, &run->profile));
        TRY(metrics_write_profile(&metrics_file, &run->profile, &run->peaks));
    }
    count_device(session, &before, spent);
    if (distill_steps_done(distill) > saved) {
        TRY(metrics_sync(&metrics_file));
        TRY(checkpoint_save(run->folder.checkpoints, distill, saved, spent));
        TRY(watch_checkpoint(&watch));
    }
    if (distill_steps_done(distill) < total)
        RAISE(RETORT_EINTERRUPTED, "interrupted after outer step %d of %d; go on with: retort run --resume --out %s",
              distill_steps_done(distill), total, run->folder.path);
done:
    watch_end(&watch);
    metrics_close(&metrics_file);
    return status;
}

/* Leaves the finished set in *set; the method and its device memory are gone afterwards. */
static int distil(struct retort_run *run, struct session *session, struct spent *spent, struct metrics *results,
                  struct distilled_set *set) {
    int status = RETORT_OK;
    const struct descriptor *d = &run->descriptor;
    struct distill *distill = NULL;
    struct forecast forecast = {0};
    bool found = false;
    struct text wisdom;
    text_init(&wisdom);
    if (run->options.profile) {
        TRY(device_measure_peaks(session->device, &run->peaks));
        device_reset_peak(session->device); /* the run's own memory is what counts */
    }
    TRY(member_prepare(&run->self, run->self.begun ? NULL : &forecast, &distill));
    TRY(member_tell(&run->self, run->devices, &wisdom));
    if (run->self.begun) {
        TRY(checkpoint_load(run->folder.checkpoints, distill, spent, &found));
        log_info(found ? "resuming after outer step %d of %d" : "no checkpoint yet: starting from outer step %d of %d",
                 distill_steps_done(distill), d->outer.steps);
    } else {
        forecast_tell(&forecast);
        TRY(run_folder_begin(&run->folder, d, session, &run->self.plan, run->devices, text_get(&wisdom), &forecast));
        run->self.begun = true;
    }
    TRY(member_check_step(&run->self, distill));
    TRY(take_steps(run, session, distill, spent));
    distill_results(distill, results);
    TRY(distilled_set_take(distill, &session->data.train, d->set.ipc, d->set.labels, set));
    TRY(member_share_set(&run->self, set));
done:
    text_finish(&wisdom);
    forecast_finish(&forecast);
    distill_destroy(distill);
    return status;
}

/* --- the result --- */
/* `team` of result.json: what worked on the run together. */
static json_t *describe_team(const struct retort_run *run) {
    const struct run_plan *plan = &run->self.plan;
    json_t *devices = json_array();
    for (int i = 0; i < plan->members; i++)
        json_array_append_new(devices, json_pack("{s:s, s:s, s:s, s:i}", "device", run->devices[i].name, "platform",
                                                 run->devices[i].platform, "driver", run->devices[i].driver, "share",
                                                 plan->shares[i]));
    return json_pack("{s:s, s:o}", "divide", words_divide[plan->what], "devices", devices);
}

static json_t *describe_result(const struct retort_run *run, const struct session *session, const char *sha256,
                               const struct scores *scores, const struct spent *spent, const struct metrics *results) {
    const struct descriptor *d = &run->descriptor;
    const struct device_traits *traits = device_traits(session->device);
    bool has_holdout = session->data.holdout.count > 0;
    json_t *result = json_pack(
        "{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s*, s:I, s:s, s:s, s:o, s:o, s:{s:f, s:f, s:f}, s:i, s:I}",
        "format", 1, "retort", RETORT_VERSION, "set_sha256", sha256, "device", traits->name, "platform",
        traits->platform, "driver", traits->driver, "wisdom", session->wisdom_name, "gemm",
        library_gemm(session->library), "dct", run_plan_dct(run->self.plan.dct), "seed", (json_int_t)d->seed, "method",
        descriptor_method(d)->name, "protocol", scores->protocol, "storage", set_storage_json(d, &session->data.train),
        "accuracy", scores_json(scores, has_holdout), "seconds", "distil", spent->distil, "evaluate", spent->evaluate,
        "build_kernels", spent->build_kernels, "outer_steps", d->outer.steps, "peak_device_bytes",
        (json_int_t)spent->peak_device_bytes);
    if (result && team_size(run->self.team) > 1) json_object_set_new(result, "team", describe_team(run));
    if (!result || metrics_to_json(results, result)) return result;
    json_decref(result);
    return NULL;
}

static int keep_result(struct retort_run *run) {
    unsigned char *text;
    size_t size;
    int status = file_read(run->folder.result, 64 << 20, &text, &size);
    if (status < 0) return status;
    free(run->result);
    run->result = (char *)text;
    return RETORT_OK;
}

/* --- opening --- */
static bool is_finished(const struct retort_run *run) {
    return run->self.begun && !run->options.dry_run && file_exists(run->folder.result);
}

static bool leads(const struct retort_run *run) {
    return team_rank(run->self.team) == 0;
}

/* Several devices in this process: a member each, which all begin as this one does. */
static int make_followers(struct retort_run *run) {
    int status = RETORT_OK, count = descriptor_devices(&run->descriptor);
    if (count == 1 || run->self.team) return RETORT_OK;
    run->followers = calloc((size_t)count - 1, sizeof *run->followers);
    run->teams = calloc((size_t)count, sizeof(struct team *));
    if (!run->followers || !run->teams) RAISE(RETORT_ENOMEM, "out of memory for %d devices", count);
    TRY(team_create_threads(count, run->teams));
    run->follower_count = count - 1;
    run->self.team = run->teams[0];
    for (int i = 1; i < count; i++) {
        run->followers[i - 1].member = run->self;
        run->followers[i - 1].member.team = run->teams[i];
    }
done:
    return status;
}

static int open_devices(struct retort_run *run) {
    int status = RETORT_OK;
    TRY(member_open(&run->self, NULL));
    for (int i = 0; i < run->follower_count; i++) {
        struct follower *follower = &run->followers[i];
        TRY(member_open(&follower->member, &run->self.session));
        snprintf(follower->name, sizeof follower->name, "device %d (%s)", i + 2,
                 device_traits(follower->member.session.device)->name);
    }
done:
    return status;
}

static int open_once(struct retort_run *run) {
    int status = RETORT_OK;
    if (run->self.session.device) return RETORT_OK;
    run->self.descriptor = &run->descriptor;
    run->self.folder = &run->folder;
    run->self.dry_run = run->options.dry_run;
    run->self.interrupt = run->options.interrupt;
    /* Other processes look at the folder too, and must not find one that the leader has just made. */
    TRY(team_meet(run->self.team));
    if (!run->options.dry_run && leads(run)) TRY(run_folder_claim(&run->folder));
    TRY(make_followers(run));
    run->devices = calloc((size_t)team_size(run->self.team), sizeof *run->devices);
    if (!run->devices) RAISE(RETORT_ENOMEM, "out of memory for %d devices", team_size(run->self.team));
    TRY(open_devices(run));
done:
    return status;
}

struct session *run_session(struct retort_run *run, int i) {
    if (i > run->follower_count) return NULL;
    return i ? &run->followers[i - 1].member.session : &run->self.session;
}

/* Where the device failed, what to do. */
static int advise(const struct retort_run *run, int status) {
    if (run->self.begun && !run->options.dry_run
        && (status == RETORT_EDEVICE || status == RETORT_ELIMIT || status == RETORT_ENOMEM))
        error_set(status, "%s\nwhat the run has saved is whole; go on with: retort run --resume --out %s",
                  retort_error_message(), run->folder.path);
    return status;
}

int run_open(struct retort_run *run, struct session **session) {
    locale_t before = locale_enter_c();
    int status = is_finished(run) ? RETORT_OK : advise(run, open_once(run));
    if (status == RETORT_OK) *session = run->self.session.device ? &run->self.session : NULL;
    uselocale(before);
    return status;
}

/* Bytes that the run will write: the set, the whitening of its images, and three states (two are kept, one is being
 * written), each of which holds the set and two moments of it. A run that is resumed has two already. */
static uint64_t disk_bytes(const struct retort_run *run, const struct session *session) {
    const struct descriptor *d = &run->descriptor;
    const struct dataset *train = &session->data.train;
    uint64_t pixels = (uint64_t)train->channels * (uint64_t)train->height * (uint64_t)train->width;
    uint64_t labels = d->set.labels == LABELS_SOFT ? (uint64_t)train->classes : 1;
    uint64_t set = (uint64_t)d->set.ipc * (uint64_t)train->classes * (pixels + labels) * sizeof(float);
    uint64_t whitening = session->data.normalisation.whiten ? 2 * pixels * pixels * sizeof(float) : 0;
    return set + whitening + (run->self.begun ? 1 : 3) * 3 * set + (1 << 20);
}

static int dry_run(struct retort_run *run) {
    int status = RETORT_OK;
    struct session *session = &run->self.session;
    struct distill *distill = NULL;
    struct forecast forecast = {0};
    TRY(run_folder_check_room(&run->folder, disk_bytes(run, session)));
    TRY(member_prepare(&run->self, &forecast, &distill));
    forecast_tell(&forecast);
    log_info("network: %lld weights; everything is ready for %d outer steps", (long long)session->network.theta_count,
             run->descriptor.outer.steps);
done:
    forecast_finish(&forecast);
    distill_destroy(distill);
    return status;
}

static int tell_scores(const struct retort_run *run, const struct scores *scores) {
    json_t *accuracy = scores_json(scores, run->self.session.data.holdout.count > 0);
    int status = watch_result(&run->folder, &run->descriptor, accuracy);
    json_decref(accuracy);
    return status;
}

static int execute(struct retort_run *run) {
    int status = RETORT_OK;
    struct session *session = &run->self.session;
    struct distilled_set set = {0};
    struct scores scores = {0};
    struct spent spent = {0};
    struct metrics results = {0};
    char sha256[65];
    TRY(run_folder_check_room(&run->folder, disk_bytes(run, session)));
    TRY(distil(run, session, &spent, &results, &set));
    TRY(set_folder_write(run->folder.set, &set, &run->descriptor, session, sha256));
    TRY(preview_write(run->folder.preview, &set, &session->data.normalisation,
                      (const char *const *)session->data.train.class_names));
    if (session->data.test.count > 0) {
        double built = device_build_seconds(session->device);
        TRY(scores_compute(&run->descriptor, session, &set, &run->self.plan.evaluate, run->folder.scores, sha256,
                           run->options.interrupt, &scores));
        if (run->options.tensorboard) TRY(tell_scores(run, &scores));
        spent.evaluate = scores.seconds;
        spent.build_kernels += device_build_seconds(session->device) - built;
    }
    if (device_peak_bytes(session->device) > spent.peak_device_bytes)
        spent.peak_device_bytes = device_peak_bytes(session->device);
    TRY(json_file_write(run->folder.result, describe_result(run, session, sha256, &scores, &spent, &results), 15));
    TRY(keep_result(run));
done:
    if (status == RETORT_EINTERRUPTED && !strstr(retort_error_message(), "--resume"))
        error_set(status, "interrupted while evaluating; go on with: retort run --resume --out %s", run->folder.path);
    metrics_finish(&results);
    scores_finish(&scores);
    distilled_set_finish(&set);
    return status;
}

/* --- the other devices --- */
static void *follow(void *argument) {
    struct follower *follower = argument;
    pthread_mutex_lock(&follower->start->lock);
    bool all = follower->start->all;
    pthread_mutex_unlock(&follower->start->lock);
    if (!all) return NULL;
    (void)locale_enter_c();
    log_speak_for(follower->name);
    (void)team_leave(follower->member.team, member_follow(&follower->member));
    return NULL;
}

static void join_followers(struct retort_run *run, int count) {
    for (int i = 0; i < count; i++) pthread_join(run->followers[i].thread, NULL);
}

static int start_followers(struct retort_run *run, struct start *start) {
    int status = RETORT_OK, made = 0;
    pthread_mutex_lock(&start->lock);
    for (; made < run->follower_count; made++) {
        struct follower *next = &run->followers[made];
        next->start = start;
        if (pthread_create(&next->thread, NULL, follow, next) != 0) break;
    }
    start->all = made == run->follower_count;
    pthread_mutex_unlock(&start->lock);
    if (start->all) return RETORT_OK;
    status = error_set(RETORT_ENOMEM, "cannot start a thread for device %d", made + 2);
    join_followers(run, made);
    return status;
}

static int lead(struct retort_run *run) {
    int status = RETORT_OK;
    TRY(member_choose_kernels(&run->self));
    TRY((run->options.dry_run ? dry_run : execute)(run));
done:
    return status;
}

/* The work of all threads, whose status it is. */
static int lead_threads(struct retort_run *run) {
    struct start start = {.lock = PTHREAD_MUTEX_INITIALIZER};
    int status = start_followers(run, &start);
    if (status < 0) return status;
    status = team_leave(run->self.team, lead(run));
    join_followers(run, run->follower_count);
    return status;
}

static int execute_or_keep(struct retort_run *run) {
    int status = RETORT_OK;
    if (is_finished(run)) {
        log_info("%s is finished already", run->folder.path);
        return keep_result(run);
    }
    TRY(open_once(run));
    if (run->teams)
        TRY(lead_threads(run));
    else
        TRY(leads(run) ? lead(run) : member_follow(&run->self));
done:
    advise(run, status);
    close_devices(run);
    run_folder_release(&run->folder);
    return status;
}

int retort_run_execute(struct retort_run *run) {
    run->callers = locale_enter_c();
    int status = execute_or_keep(run);
    uselocale(run->callers);
    return status;
}
