#include "run/checkpoint.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "run/digest.h"
#include "run/json_file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GENERATIONS 2

static int path_of(const char *folder, int step, const char *ending, char path[FILE_PATH_MAX]) {
    char name[32];
    snprintf(name, sizeof name, "%06d.%s", step, ending);
    return path_join(folder, name, path);
}

/* --- which there are --- */
struct generations {
    ARRAY(int) steps; /* newest first */
};

static int newest_first(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x < y) - (x > y);
}

/* Every step that has a state or a sidecar. */
static int list(const char *folder, struct generations *generations) {
    int status = RETORT_OK;
    *generations = (struct generations){0};
    DIR *stream = opendir(folder);
    if (!stream) return RETORT_OK;
    for (struct dirent *entry; (entry = readdir(stream));) {
        char *end;
        long step = strtol(entry->d_name, &end, 10);
        if (end == entry->d_name || step < 0 || step > 1000000000) continue;
        if (strcmp(end, ".npz") != 0 && strcmp(end, ".json") != 0) continue;
        bool known = false;
        for (size_t i = 0; i < generations->steps.count; i++) known |= generations->steps.items[i] == (int)step;
        if (!known && !array_push(&generations->steps, (int)step))
            RAISE(RETORT_ENOMEM, "out of memory listing %s", folder);
    }
    if (generations->steps.count) qsort(generations->steps.items, generations->steps.count, sizeof(int), newest_first);
done:
    closedir(stream);
    if (status < 0) array_finish(&generations->steps);
    return status;
}

static void forget(const char *folder, int step) {
    char path[FILE_PATH_MAX];
    /* The sidecar first: a state without one does not count. */
    if (path_of(folder, step, "json", path) == RETORT_OK) unlink(path);
    if (path_of(folder, step, "npz", path) == RETORT_OK) unlink(path);
}

/* --- saving --- */
int checkpoint_save(const char *folder, struct distill *distill, const struct spent *spent) {
    int status = RETORT_OK;
    int step = distill_steps_done(distill);
    char state[FILE_PATH_MAX], sidecar[FILE_PATH_MAX], hex[65];
    struct generations generations = {0};
    TRY(folder_create(folder));
    TRY(path_of(folder, step, "npz", state));
    TRY(path_of(folder, step, "json", sidecar));
    TRY(distill_save(distill, state));
    TRY(digest_files((const char *const[]){state}, 1, hex));
    TRY(json_file_write(sidecar,
                        json_pack("{s:i, s:s, s:{s:f, s:f, s:f}, s:I}", "outer_step", step, "sha256", hex, "seconds",
                                  "distil", spent->distil, "evaluate", spent->evaluate, "build_kernels",
                                  spent->build_kernels, "peak_device_bytes", (json_int_t)spent->peak_device_bytes),
                        17));
    TRY(list(folder, &generations));
    for (size_t i = GENERATIONS; i < generations.steps.count; i++) forget(folder, generations.steps.items[i]);
done:
    if (status < 0) error_context("saving the checkpoint of outer step %d", step);
    array_finish(&generations.steps);
    return status;
}

/* --- loading --- */
/* Whether a generation is whole: its state's bytes are those the sidecar was written for. */
static int read_sidecar(const char *folder, int step, struct spent *spent) {
    int status = RETORT_OK;
    json_t *sidecar = NULL;
    char state[FILE_PATH_MAX], path[FILE_PATH_MAX], hex[65];
    const char *wanted;
    json_int_t peak;
    int told;
    TRY(path_of(folder, step, "npz", state));
    TRY(path_of(folder, step, "json", path));
    TRY(json_file_read(path, &sidecar));
    struct spent read = {0};
    if (json_unpack(sidecar, "{s:i, s:s, s:{s:F, s:F, s:F}, s:I}", "outer_step", &told, "sha256", &wanted, "seconds",
                    "distil", &read.distil, "evaluate", &read.evaluate, "build_kernels", &read.build_kernels,
                    "peak_device_bytes", &peak)
            < 0
        || told != step)
        RAISE(RETORT_EFORMAT, "%s does not belong to a checkpoint", path);
    TRY(digest_files((const char *const[]){state}, 1, hex));
    if (strcmp(hex, wanted) != 0) RAISE(RETORT_EFORMAT, "%s is not as it was written", state);
    read.peak_device_bytes = (uint64_t)peak;
    *spent = read;
done:
    json_decref(sidecar);
    return status;
}

int checkpoint_load(const char *folder, struct distill *distill, struct spent *spent, bool *found) {
    int status = RETORT_OK;
    struct generations generations;
    TRY(list(folder, &generations));
    bool loaded = false;
    for (size_t i = 0; i < generations.steps.count && !loaded; i++) {
        int step = generations.steps.items[i];
        if (read_sidecar(folder, step, spent) < 0) {
            log_warning("the checkpoint of outer step %d is damaged (%s); taking the one before it", step,
                        retort_error_message());
            error_clear();
            forget(folder, step);
            continue;
        }
        char state[FILE_PATH_MAX];
        TRY(path_of(folder, step, "npz", state));
        TRY(distill_load(distill, state));
        loaded = true;
    }
    *found = loaded;
done:
    array_finish(&generations.steps);
    return status;
}
