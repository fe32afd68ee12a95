#include "run/checkpoint.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "run/digest.h"
#include "run/json_file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int path_of(const char *folder, int step, const char *ending, char path[FILE_PATH_MAX]) {
    char name[32];
    snprintf(name, sizeof name, "%06d.%s", step, ending);
    return path_join(folder, name, path);
}

/* --- which there are --- */
struct generation {
    int step;
    bool state, sidecar; /* which of the two files is there */
};

struct generations {
    ARRAY(struct generation) list; /* newest first */
};

static int newest_first(const void *a, const void *b) {
    int x = ((const struct generation *)a)->step, y = ((const struct generation *)b)->step;
    return (x < y) - (x > y);
}

static int enter(struct generations *generations, int step, bool state) {
    size_t i = 0;
    while (i < generations->list.count && generations->list.items[i].step != step) i++;
    if (i == generations->list.count && !array_push(&generations->list, (struct generation){.step = step}))
        return error_set(RETORT_ENOMEM, "out of memory listing checkpoints");
    generations->list.items[i].state |= state;
    generations->list.items[i].sidecar |= !state;
    return RETORT_OK;
}

/* Every step that has a state or a sidecar. */
static int list(const char *folder, struct generations *generations) {
    int status = RETORT_OK;
    struct generations fresh = {0};
    DIR *stream = opendir(folder);
    if (!stream && errno != ENOENT) RAISE(RETORT_EIO, "cannot read %s: %s", folder, strerror(errno));
    for (struct dirent *entry; stream;) {
        char *end;
        errno = 0;
        if (!(entry = readdir(stream))) {
            if (errno) RAISE(RETORT_EIO, "cannot read %s: %s", folder, strerror(errno));
            break;
        }
        long step = strtol(entry->d_name, &end, 10);
        if (end == entry->d_name || step < 0 || step > 1000000000) continue;
        bool state = strcmp(end, ".npz") == 0;
        if (state || strcmp(end, ".json") == 0) TRY(enter(&fresh, (int)step, state));
    }
    if (fresh.list.count) qsort(fresh.list.items, fresh.list.count, sizeof *fresh.list.items, newest_first);
    *generations = fresh;
    fresh = (struct generations){0};
done:
    if (stream) closedir(stream);
    array_finish(&fresh.list);
    return status;
}

static void forget(const char *folder, int step) {
    char path[FILE_PATH_MAX];
    /* The sidecar first: a state without one does not count. */
    if (path_of(folder, step, "json", path) == RETORT_OK) unlink(path);
    if (path_of(folder, step, "npz", path) == RETORT_OK) unlink(path);
}

/* Removes all generations but two. */
static int forget_others(const char *folder, int newest, int before) {
    int status = RETORT_OK;
    struct generations generations = {0};
    TRY(list(folder, &generations));
    for (size_t i = 0; i < generations.list.count; i++) {
        int step = generations.list.items[i].step;
        if (step != newest && step != before) forget(folder, step);
    }
done:
    array_finish(&generations.list);
    return status;
}

/* --- saving --- */
int checkpoint_save(const char *folder, struct distill *distill, int before, const struct spent *spent) {
    int status = RETORT_OK;
    int step = distill_steps_done(distill);
    char state[FILE_PATH_MAX], sidecar[FILE_PATH_MAX], hex[65];
    TRY(folder_create(folder));
    /* A first checkpoint follows none: a state that lies there is what an earlier attempt at one left when it was
     * killed. Removing it now keeps such states from becoming many, which checkpoint_load would take for a loss. */
    if (!before) TRY(forget_others(folder, step, step));
    TRY(path_of(folder, step, "npz", state));
    TRY(path_of(folder, step, "json", sidecar));
    TRY(distill_save(distill, state));
    TRY(digest_files((const char *const[]){state}, 1, hex));
    TRY(json_file_write(sidecar,
                        json_pack("{s:i, s:s, s:{s:f, s:f, s:f}, s:I}", "outer_step", step, "sha256", hex, "seconds",
                                  "distil", spent->distil, "evaluate", spent->evaluate, "build_kernels",
                                  spent->build_kernels, "peak_device_bytes", (json_int_t)spent->peak_device_bytes),
                        17));
    TRY(forget_others(folder, step, before));
done:
    if (status < 0) error_context("saving the checkpoint of outer step %d", step);
    return status;
}

/* --- loading --- */
/* Whether a generation is whole: its state's bytes are those the sidecar was written for. RETORT_EFORMAT where it is
 * damaged; other failures are of reading, and say nothing about the generation. */
static int read_sidecar(const char *folder, const struct generation *generation, struct spent *spent) {
    int status = RETORT_OK;
    json_t *sidecar = NULL;
    char state[FILE_PATH_MAX], path[FILE_PATH_MAX], hex[65];
    const char *wanted;
    json_int_t peak;
    int told;
    TRY(path_of(folder, generation->step, "npz", state));
    TRY(path_of(folder, generation->step, "json", path));
    if (!generation->sidecar) RAISE(RETORT_EFORMAT, "%s is not there: %s was not written to its end", path, state);
    if (!generation->state) RAISE(RETORT_EFORMAT, "%s is not there", state);
    TRY(json_file_read(path, &sidecar));
    struct spent read = {0};
    if (json_unpack(sidecar, "{s:i, s:s, s:{s:F, s:F, s:F}, s:I}", "outer_step", &told, "sha256", &wanted, "seconds",
                    "distil", &read.distil, "evaluate", &read.evaluate, "build_kernels", &read.build_kernels,
                    "peak_device_bytes", &peak)
            < 0
        || told != generation->step)
        RAISE(RETORT_EFORMAT, "%s does not belong to a checkpoint", path);
    TRY(digest_files((const char *const[]){state}, 1, hex));
    if (strcmp(hex, wanted) != 0) RAISE(RETORT_EFORMAT, "%s is not as it was written", state);
    read.peak_device_bytes = (uint64_t)peak;
    *spent = read;
done:
    json_decref(sidecar);
    return status;
}

/* A run that was killed while it saved its first checkpoint leaves one state without a sidecar, and has lost nothing
 * that was ever saved. */
static bool is_first_attempt(const struct generations *generations) {
    return generations->list.count == 1 && !generations->list.items[0].sidecar;
}

/* Says that every generation is damaged. The message so far is the newest one's. */
static int refuse(const char *folder, const struct generations *generations, const char *why) {
    struct text steps;
    text_init(&steps);
    for (size_t i = 0; i < generations->list.count; i++)
        text_printf(&steps, i ? ", %d" : "%d", generations->list.items[i].step);
    int status = error_set(RETORT_EFORMAT,
                           "no checkpoint in %s is whole, of outer step%s %s (the newest: %s); put a good copy there, "
                           "or remove the folder %s to start again from outer step 0",
                           folder, generations->list.count > 1 ? "s" : "", text_get(&steps), why, folder);
    text_finish(&steps);
    return status;
}

int checkpoint_load(const char *folder, struct distill *distill, struct spent *spent, bool *found) {
    int status = RETORT_OK;
    struct generations generations = {0};
    char state[FILE_PATH_MAX], newest[1024] = "";
    struct spent read;
    TRY(list(folder, &generations));
    size_t i = 0, count = generations.list.count;
    for (; i < count; i++) {
        int step = generations.list.items[i].step;
        status = read_sidecar(folder, &generations.list.items[i], &read);
        if (status == RETORT_OK) break;
        if (status != RETORT_EFORMAT) {
            /* What cannot be read now may be read tomorrow: an older state would lose what lies between. */
            error_context("the checkpoint of outer step %d cannot be read; nothing was changed, try again once it can",
                          step);
            goto done;
        }
        if (i == 0) snprintf(newest, sizeof newest, "%s", retort_error_message());
        log_warning("the checkpoint of outer step %d is damaged (%s)%s", step, retort_error_message(),
                    i + 1 < count ? "; taking the one before it" : "");
        error_clear();
        status = RETORT_OK;
    }
    if (i == count && count && !is_first_attempt(&generations)) TRY(refuse(folder, &generations, newest));
    if (i < count) {
        TRY(path_of(folder, generations.list.items[i].step, "npz", state));
        TRY(distill_load(distill, state));
        *spent = read;
    }
    *found = i < count;
done:
    array_finish(&generations.list);
    return status;
}
