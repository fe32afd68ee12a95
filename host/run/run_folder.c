#include "run/run_folder.h"

#include "base/error.h"
#include "base/log.h"
#include "run/forecast.h"
#include "run/json_file.h"
#include "run/words.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int run_folder_name(const struct descriptor *descriptor, const char *out, struct run_folder *folder) {
    int status = RETORT_OK;
    struct run_folder fresh = {.lock = -1};
    if (out && !*out) RAISE(RETORT_EINVAL, "the name of the run folder is empty");
    int length = out ? snprintf(fresh.path, sizeof fresh.path, "%s", out)
                     : snprintf(fresh.path, sizeof fresh.path, "runs/%s-%llu", descriptor->name,
                                (unsigned long long)descriptor->seed);
    if (length >= (int)sizeof fresh.path) RAISE(RETORT_EINVAL, "the name of the run folder is too long");
    TRY(path_join(fresh.path, "descriptor.yaml", fresh.descriptor));
    TRY(path_join(fresh.path, "plan.json", fresh.plan));
    TRY(path_join(fresh.path, "metrics.jsonl", fresh.metrics));
    TRY(path_join(fresh.path, "checkpoint", fresh.checkpoints));
    TRY(path_join(fresh.checkpoints, "scores.json", fresh.scores));
    TRY(path_join(fresh.path, "wisdom", fresh.wisdom));
    TRY(path_join(fresh.path, "set", fresh.set));
    TRY(path_join(fresh.path, "preview.png", fresh.preview));
    TRY(path_join(fresh.path, "previews", fresh.previews));
    TRY(path_join(fresh.path, "tensorboard", fresh.tensorboard));
    TRY(path_join(fresh.path, "result.json", fresh.result));
    *folder = fresh;
done:
    return status;
}

/* Whether plan.json is one that a run wrote, and not somebody's file of that name. */
static bool is_plan(const char *path) {
    json_t *plan = NULL;
    const char *version;
    bool is = file_exists(path) && json_file_read(path, &plan) == RETORT_OK
              && json_unpack(plan, "{s:s, s:{}}", "retort", &version, "device") == 0;
    error_clear();
    json_decref(plan);
    return is;
}

/* Whether there is nothing but what a run killed in its first moment leaves: temporaries, and what it writes before
 * descriptor.yaml. */
static bool holds_nothing(const struct run_folder *folder) {
    DIR *stream = opendir(folder->path);
    if (!stream) return !file_exists(folder->path);
    bool nothing = true, plan = false, wisdom = false;
    for (struct dirent *entry; nothing && (entry = readdir(stream));) {
        const char *name = entry->d_name;
        plan |= strcmp(name, "plan.json") == 0;
        wisdom |= strcmp(name, "wisdom") == 0;
        nothing = !strcmp(name, ".") || !strcmp(name, "..") || !strcmp(name, "plan.json") || !strcmp(name, "wisdom")
                  || file_is_temporary(name);
    }
    closedir(stream);
    return nothing && (!(plan || wisdom) || is_plan(folder->plan));
}

/* --- plans as JSON --- */
static json_t *unroll_to_json(const struct unroll_plan *plan) {
    return json_pack("{s:i, s:i, s:i, s:I, s:i, s:i}", "networks", plan->networks, "inner_splits", plan->inner_splits,
                     "meta_splits", plan->meta_splits, "test_batch", (json_int_t)plan->test_batch, "kept_steps",
                     plan->kept_steps, "compute_units", plan->compute_units);
}

/* Runs of before networks were trained as one batch have no number of them: one. */
static bool unroll_from_json(const json_t *value, struct unroll_plan *plan) {
    json_int_t test_batch;
    plan->networks = 1;
    if (json_unpack((json_t *)value, "{s?i, s:i, s:i, s:I, s:i, s:i}", "networks", &plan->networks, "inner_splits",
                    &plan->inner_splits, "meta_splits", &plan->meta_splits, "test_batch", &test_batch, "kept_steps",
                    &plan->kept_steps, "compute_units", &plan->compute_units)
        < 0)
        return false;
    plan->test_batch = test_batch;
    return true;
}

struct device_plan device_plan_of(const struct session *session, const struct run_plan *plan) {
    const struct device_traits *traits = device_traits(session->device);
    struct device_plan device = {
        .single = session->target.single, .dct = plan->dct, .distil = plan->distil, .evaluate = plan->evaluate};
    snprintf(device.name, sizeof device.name, "%s", traits->name);
    snprintf(device.platform, sizeof device.platform, "%s", traits->platform);
    snprintf(device.driver, sizeof device.driver, "%s", traits->driver);
    snprintf(device.wisdom, sizeof device.wisdom, "%s", session->wisdom_name);
    snprintf(device.gemm, sizeof device.gemm, "%s", library_gemm(session->library));
    return device;
}

const char *run_plan_dct(enum dct_way dct) {
    return dct == DCT_AUTO ? NULL : words_dct[dct];
}

/* In `trainings` one object each; those of rows that are not evaluated are zero. */
static json_t *device_to_json(const struct device_plan *device) {
    return json_pack("{s:s, s:s, s:s, s:s*, s:{s:s, s:s, s:s}, s:{s:o, s:o, s:o, s:o}}", "wisdom", device->wisdom,
                     "gemm", device->gemm, "merge", device->single ? "off" : "auto", "dct", run_plan_dct(device->dct),
                     "device", "name", device->name, "platform", device->platform, "driver", device->driver,
                     "trainings", "distil", unroll_to_json(&device->distil), "distilled",
                     unroll_to_json(&device->evaluate.set), "random", unroll_to_json(&device->evaluate.random), "full",
                     unroll_to_json(&device->evaluate.full));
}

/* What plan.json has of a member's device: the leader's stands at the top, those of others in a list. */
static const json_t *member_of(const json_t *plan, int member) {
    if (!member) return plan;
    return json_array_get(json_object_get(json_object_get(plan, "team"), "others"), (size_t)member - 1);
}

static json_t *team_to_json(const struct run_plan *plan, const struct device_plan *devices) {
    json_t *shares = json_array(), *others = json_array();
    for (int i = 0; i < plan->members; i++) json_array_append_new(shares, json_integer(plan->shares[i]));
    for (int i = 1; i < plan->members; i++) json_array_append_new(others, device_to_json(&devices[i]));
    return json_pack("{s:s, s:o, s:o}", "divide", words_divide[plan->what], "shares", shares, "others", others);
}

/* How the run is divided; a plan without a word of it is of one device. */
static bool team_from_json(const json_t *team, struct run_plan *plan) {
    const char *what;
    const json_t *shares;
    plan->members = 1;
    if (!team) return true;
    if (json_unpack((json_t *)team, "{s:s, s:o}", "divide", &what, "shares", &shares) < 0) return false;
    plan->what = strcmp(what, words_divide[DIVIDE_ROWS]) == 0 ? DIVIDE_ROWS : DIVIDE_TRAJECTORIES;
    plan->members = (int)json_array_size(shares);
    if (plan->members < 1 || plan->members > DEVICES_MOST) return false;
    for (int i = 0; i < plan->members; i++) {
        plan->shares[i] = (int)json_integer_value(json_array_get(shares, (size_t)i));
        if (plan->shares[i] < 1) return false;
    }
    return true;
}

int run_folder_read_plan(const struct run_folder *folder, int member, int members, struct run_plan *plan) {
    int status = RETORT_OK;
    json_t *kept = NULL;
    struct run_plan fresh = {0};
    TRY(json_file_read(folder->plan, &kept));
    if (!team_from_json(json_object_get(kept, "team"), &fresh))
        RAISE(RETORT_EFORMAT, "%s is not a run's plan", folder->plan);
    if (fresh.members != members)
        RAISE(RETORT_EINVAL, "%s was begun on %d device%s, this command names %d; resume on as many", folder->path,
              fresh.members, fresh.members > 1 ? "s" : "", members);
    const json_t *own = member_of(kept, member);
    const char *gemm = json_string_value(json_object_get(own, "gemm"));
    snprintf(fresh.gemm, sizeof fresh.gemm, "%s", gemm ? gemm : "");
    const char *merge = json_string_value(json_object_get(own, "merge"));
    fresh.single = merge && strcmp(merge, "off") == 0;
    const char *dct = json_string_value(json_object_get(own, "dct"));
    for (enum dct_way way = DCT_CLFFT; dct && way <= DCT_MATRIX; way++)
        if (strcmp(dct, words_dct[way]) == 0) fresh.dct = way;
    const json_t *all = json_object_get(own, "trainings");
    fresh.frozen = all != NULL;
    if (all
        && !(unroll_from_json(json_object_get(all, "distil"), &fresh.distil)
             && unroll_from_json(json_object_get(all, "distilled"), &fresh.evaluate.set)
             && unroll_from_json(json_object_get(all, "random"), &fresh.evaluate.random)
             && unroll_from_json(json_object_get(all, "full"), &fresh.evaluate.full)))
        RAISE(RETORT_EFORMAT, "%s is not a run's plan", folder->plan);
    *plan = fresh;
done:
    json_decref(kept);
    return status;
}

/* --- what a folder is --- */
static bool has_frozen_plan(const struct run_folder *folder) {
    json_t *kept = NULL;
    bool frozen = json_file_read(folder->plan, &kept) == RETORT_OK && json_object_get(kept, "trainings");
    json_decref(kept);
    return frozen;
}

/* The key in which a run's descriptor differs from this one. */
static const char *differ(const struct run_folder *folder, const struct descriptor *descriptor, struct descriptor *kept,
                          struct text *mine, struct text *theirs) {
    /* With a frozen plan the ceiling decides nothing but whether it fits. */
    if (kept->memory != descriptor->memory && has_frozen_plan(folder)) kept->memory = descriptor->memory;
    error_clear();
    return descriptor_difference(descriptor, kept, mine, theirs);
}

/* A copy of an earlier version lacks keys that came later. A command that leaves them out means the same run, and so
 * does one that gives them the value they had before they were keys. */
static int compare_descriptor(const struct run_folder *folder, const struct descriptor *descriptor) {
    int status = RETORT_OK;
    struct descriptor now = {0}, before = {0};
    struct text mine, theirs, mine_before, theirs_before;
    text_init(&mine);
    text_init(&theirs);
    text_init(&mine_before);
    text_init(&theirs_before);
    TRY(descriptor_read(folder->descriptor, NULL, 0, &now));
    TRY(descriptor_read_copy(folder->descriptor, NULL, 0, &before));
    const char *key = differ(folder, descriptor, &now, &mine, &theirs);
    const char *key_before = differ(folder, descriptor, &before, &mine_before, &theirs_before);
    if (key && key_before) {
        bool same = strcmp(key, key_before) == 0;
        RAISE(RETORT_EINVAL,
              "%s was begun with %s %s, this command says %s; resume with the same descriptor and options, or take "
              "another folder with --out",
              folder->path, key, text_get(same ? &theirs_before : &theirs), text_get(&mine));
    }
done:
    descriptor_finish(&now);
    descriptor_finish(&before);
    text_finish(&mine);
    text_finish(&theirs);
    text_finish(&mine_before);
    text_finish(&theirs_before);
    return status;
}

int run_folder_adopt(const struct run_folder *folder, struct descriptor *descriptor) {
    int status = RETORT_OK;
    struct descriptor kept = {0};
    TRY(descriptor_read_copy(folder->descriptor, NULL, 0, &kept));
    kept.memory = descriptor->memory;
    memcpy(kept.name, descriptor->name, sizeof kept.name);
    descriptor_finish(descriptor);
    *descriptor = kept;
done:
    return status;
}

int run_folder_check(const struct run_folder *folder, const struct descriptor *descriptor, bool resume, bool *begun) {
    int status = RETORT_OK;
    bool nothing = holds_nothing(folder);
    if (file_exists(folder->path) && !folder_exists(folder->path))
        RAISE(RETORT_EINVAL, "%s is a file; name a folder with --out", folder->path);
    if (!nothing && !resume)
        RAISE(RETORT_EINVAL, "%s is not empty; go on with it by --resume, or take another folder with --out",
              folder->path);
    if (!nothing && !file_exists(folder->descriptor))
        RAISE(RETORT_EINVAL,
              "%s holds no run to resume: there is no descriptor.yaml in it; take another folder with "
              "--out",
              folder->path);
    if (!nothing) TRY(compare_descriptor(folder, descriptor));
    if (nothing && resume) log_info("nothing to resume in %s: starting the run", folder->path);
    *begun = !nothing;
done:
    return status;
}

int run_folder_claim(struct run_folder *folder) {
    int status = RETORT_OK;
    folder->created = !folder_exists(folder->path);
    TRY(folder_create(folder->path));
    if (access(folder->path, W_OK) < 0) RAISE(RETORT_EIO, "cannot write into %s: %s", folder->path, strerror(errno));
    folder->lock = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->lock < 0) RAISE(RETORT_EIO, "cannot open %s: %s", folder->path, strerror(errno));
    /* The system drops the lock with the process, so that a killed run never blocks its folder. On a file system that
     * knows no locks nothing keeps two runs in one folder apart. */
    if (flock(folder->lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        RAISE(RETORT_EINVAL, "another run is at work in %s; wait for it or stop it, or take another folder with --out",
              folder->path);
    folder_clear_temporaries(folder->path);
    folder_clear_temporaries(folder->checkpoints);
    folder_clear_temporaries(folder->set);
    folder_clear_temporaries(folder->previews);
done:
    return status;
}

/* --- checks of what is written late --- */
int run_folder_check_room(const struct run_folder *folder, uint64_t bytes) {
    int status = RETORT_OK;
    const char *const folders[] = {folder->path, folder->checkpoints, folder->set, folder->previews,
                                   folder->tensorboard};
    const char *const files[] = {folder->metrics, folder->preview, folder->scores, folder->result};
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) TRY(folder_check_room(folders[i], bytes));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        if (folder_exists(files[i])) RAISE(RETORT_EIO, "cannot write %s: it is a folder; move it away", files[i]);
done:
    return status;
}

/* --- the plan --- */
/* What is not of one device alone. */
static json_t *plan_head(const struct session *session, const struct forecast *forecast) {
    const struct data_set_pair *data = &session->data;
    char fingerprint[17];
    snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, data->fingerprint);
    return json_pack("{s:i, s:s, s:{s:s, s:I, s:I}, s:o}", "format", 1, "retort", RETORT_VERSION, "data", "hash",
                     fingerprint, "train", (json_int_t)data->train_read, "test", (json_int_t)data->test_read,
                     "estimate", forecast_json(forecast));
}

int run_folder_begin(const struct run_folder *folder, const struct descriptor *descriptor,
                     const struct session *session, const struct run_plan *plan, const struct device_plan *devices,
                     const char *wisdom, const struct forecast *forecast) {
    int status = RETORT_OK;
    json_t *device = device_to_json(devices), *kept = plan_head(session, forecast);
    struct text text;
    text_init(&text);
    descriptor_write(descriptor, &text);
    bool packed = device && kept && json_object_update(kept, device) == 0;
    if (packed && plan->members > 1) packed = json_object_set_new(kept, "team", team_to_json(plan, devices)) == 0;
    if (text.failed || !packed) RAISE(RETORT_ENOMEM, "out of memory");
    /* The plan first: by it holds_nothing knows a folder that a run was killed in. The descriptor last: with it the run
     * counts as begun. */
    TRY(json_file_write(folder->plan, json_incref(kept), 15));
    if (strcmp(session->wisdom_name, "none") != 0 || (wisdom && *wisdom))
        TRY(wisdom_save(session->wisdom, wisdom, folder->wisdom));
    else if (unlink(folder->wisdom) < 0 && errno != ENOENT)
        RAISE(RETORT_EIO, "cannot remove %s: %s", folder->wisdom, strerror(errno));
    TRY(file_write(folder->descriptor, text_get(&text), text.length));
done:
    json_decref(kept);
    json_decref(device);
    text_finish(&text);
    return status;
}

static int check_data(const struct run_folder *folder, const json_t *kept, const struct data_set_pair *data) {
    const char *hash;
    json_int_t train, test;
    char now[17];
    if (json_unpack((json_t *)kept, "{s:s, s:I, s:I}", "hash", &hash, "train", &train, "test", &test) < 0)
        return error_set(RETORT_EFORMAT, "%s is not a run's plan", folder->plan);
    snprintf(now, sizeof now, "%016" PRIx64, data->fingerprint);
    if (strcmp(hash, now) == 0) return RETORT_OK;
    return error_set(RETORT_EINVAL,
                     "data.path no longer holds what %s was begun with: %lld training and %lld test images then, %lld "
                     "and %lld now, whose pixels or labels differ; put the data back as it was, or begin another run "
                     "with --out",
                     folder->path, (long long)train, (long long)test, (long long)data->train_read,
                     (long long)data->test_read);
}

int run_folder_check_plan(const struct run_folder *folder, int member, const struct session *session) {
    int status = RETORT_OK;
    json_t *plan = NULL, *data = NULL;
    const struct device_traits *traits = device_traits(session->device);
    const char *version, *name, *platform, *driver, *kept = "none", *gemm = library_gemm(session->library);
    TRY(json_file_read(folder->plan, &plan));
    if (json_unpack(plan, "{s:s, s?o}", "retort", &version, "data", &data) < 0
        || json_unpack((json_t *)member_of(plan, member), "{s?s, s?s, s:{s:s, s:s, s:s}}", "wisdom", &kept, "gemm",
                       &gemm, "device", "name", &name, "platform", &platform, "driver", &driver)
               < 0)
        RAISE(RETORT_EFORMAT, "%s is not a run's plan", folder->plan);
    if (strcmp(name, traits->name) != 0 || strcmp(platform, traits->platform) != 0
        || strcmp(driver, traits->driver) != 0)
        RAISE(RETORT_EINVAL,
              "%s was begun on device %s (%s, driver %s), this is %s (%s, driver %s), which rounds otherwise; resume "
              "on the same one",
              folder->path, name, platform, driver, traits->name, traits->platform, traits->driver);
    /* Folders of earlier versions do not tell what the data was. */
    if (data) TRY(check_data(folder, data, &session->data));
    if (strcmp(kept, session->wisdom_name) != 0)
        log_warning(
            "%s was begun with the kernel choices %s, its file wisdom now has %s: the numbers may differ in their "
            "last digits",
            folder->path, kept, session->wisdom_name);
    if (strcmp(gemm, library_gemm(session->library)) != 0)
        log_warning("%s was begun with matrix products by %s, now they are by %s: the numbers may differ in their last "
                    "digits",
                    folder->path, gemm, library_gemm(session->library));
    if (strcmp(version, RETORT_VERSION) != 0)
        log_warning("%s was begun by Retort %s, this is %s: the numbers may differ in their last digits", folder->path,
                    version, RETORT_VERSION);
done:
    json_decref(plan);
    return status;
}

void run_folder_release(struct run_folder *folder) {
    if (folder->lock >= 0) close(folder->lock);
    folder->lock = -1;
    if (folder->created && !file_exists(folder->descriptor)) {
        unlink(folder->plan);
        unlink(folder->wisdom);
        rmdir(folder->path);
    }
    folder->created = false;
}
