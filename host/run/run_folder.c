#include "run/run_folder.h"

#include "base/error.h"
#include "base/log.h"
#include "run/json_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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
    TRY(path_join(fresh.path, "result.json", fresh.result));
    *folder = fresh;
done:
    return status;
}

static bool is_part(const char *name) {
    size_t length = strlen(name);
    return length > 5 && strcmp(name + length - 5, ".part") == 0;
}

/* Whether there is nothing but what a run killed in its first moment leaves. */
static bool holds_nothing(const char *path) {
    DIR *stream = opendir(path);
    if (!stream) return !file_exists(path);
    bool nothing = true;
    for (struct dirent *entry; nothing && (entry = readdir(stream));)
        nothing = !strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..") || is_part(entry->d_name);
    closedir(stream);
    return nothing;
}

static int compare_descriptor(const struct run_folder *folder, const struct descriptor *descriptor) {
    int status = RETORT_OK;
    struct descriptor kept = {0};
    struct text mine, theirs;
    text_init(&mine);
    text_init(&theirs);
    TRY(descriptor_read(folder->descriptor, NULL, 0, &kept));
    const char *key = descriptor_difference(descriptor, &kept, &mine, &theirs);
    if (key)
        RAISE(RETORT_EINVAL,
              "%s was begun with %s %s, this command says %s; resume with the same descriptor and options, or take "
              "another folder with --out",
              folder->path, key, text_get(&theirs), text_get(&mine));
done:
    descriptor_finish(&kept);
    text_finish(&mine);
    text_finish(&theirs);
    return status;
}

int run_folder_check(const struct run_folder *folder, const struct descriptor *descriptor, bool resume, bool *begun) {
    int status = RETORT_OK;
    bool nothing = holds_nothing(folder->path);
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

/* Removes the temporaries of a run that was killed while it wrote. */
static void clear_parts(const char *path) {
    DIR *stream = opendir(path);
    if (!stream) return;
    for (struct dirent *entry; (entry = readdir(stream));) {
        char inner[FILE_PATH_MAX];
        if (is_part(entry->d_name) && path_join(path, entry->d_name, inner) == RETORT_OK) unlink(inner);
    }
    closedir(stream);
}

int run_folder_claim(struct run_folder *folder) {
    int status = RETORT_OK;
    folder->created = !folder_exists(folder->path);
    TRY(folder_create(folder->path));
    if (access(folder->path, W_OK) < 0) RAISE(RETORT_EIO, "cannot write into %s: %s", folder->path, strerror(errno));
    folder->lock = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder->lock < 0) RAISE(RETORT_EIO, "cannot open %s: %s", folder->path, strerror(errno));
    /* The system drops the lock with the process, so nothing stale can stay; where the file system knows no locks, two
     * runs in one folder are the user's to avoid. */
    if (flock(folder->lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
        RAISE(RETORT_EINVAL, "%s: another run is at work in it", folder->path);
    clear_parts(folder->path);
    clear_parts(folder->checkpoints);
    clear_parts(folder->set);
done:
    return status;
}

int run_folder_begin(const struct run_folder *folder, const struct descriptor *descriptor,
                     const struct device_traits *traits, const struct wisdom *wisdom) {
    int status = RETORT_OK;
    char name[17];
    struct text text;
    text_init(&text);
    wisdom_name(wisdom, name);
    if (strcmp(name, "none") != 0) TRY(wisdom_save(wisdom, folder->wisdom));
    descriptor_write(descriptor, &text);
    if (text.failed) RAISE(RETORT_ENOMEM, "out of memory");
    /* The descriptor last: with it the run counts as begun. */
    TRY(json_file_write(folder->plan,
                        json_pack("{s:i, s:s, s:s, s:{s:s, s:s, s:s}}", "format", 1, "retort", RETORT_VERSION, "wisdom",
                                  name, "device", "name", traits->name, "platform", traits->platform, "driver",
                                  traits->driver),
                        15));
    TRY(file_write(folder->descriptor, text_get(&text), text.length));
done:
    text_finish(&text);
    return status;
}

int run_folder_check_plan(const struct run_folder *folder, const struct device_traits *traits,
                          const struct wisdom *wisdom) {
    int status = RETORT_OK;
    json_t *plan = NULL;
    const char *version, *name, *platform, *driver, *kept = "none";
    char now[17];
    TRY(json_file_read(folder->plan, &plan));
    if (json_unpack(plan, "{s:s, s?s, s:{s:s, s:s, s:s}}", "retort", &version, "wisdom", &kept, "device", "name", &name,
                    "platform", &platform, "driver", &driver)
        < 0)
        RAISE(RETORT_EFORMAT, "%s is not a run's plan", folder->plan);
    if (strcmp(name, traits->name) != 0 || strcmp(platform, traits->platform) != 0
        || strcmp(driver, traits->driver) != 0)
        RAISE(RETORT_EINVAL,
              "%s was begun on device %s (%s, driver %s), this is %s (%s, driver %s), which rounds otherwise; resume "
              "on the same one",
              folder->path, name, platform, driver, traits->name, traits->platform, traits->driver);
    wisdom_name(wisdom, now);
    if (strcmp(kept, now) != 0)
        log_warning(
            "%s was begun with the kernel choices %s, its file wisdom now has %s: the numbers may differ in their "
            "last digits",
            folder->path, kept, now);
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
