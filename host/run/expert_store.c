#include "run/expert_store.h"

#include "base/error.h"
#include "run/json_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FORMAT = 1 };

static size_t row_bytes(int64_t theta_count) {
    return (size_t)theta_count * sizeof(float);
}

static uint64_t file_bytes(int64_t theta_count, int epochs) {
    return (uint64_t)(epochs + 1) * (row_bytes(theta_count) + sizeof(uint64_t));
}

uint64_t expert_store_bytes(int64_t theta_count, int networks, int epochs) {
    return (uint64_t)networks * file_bytes(theta_count, epochs);
}

static int network_path(const char *folder, int number, char path[FILE_PATH_MAX]) {
    char name[40];
    snprintf(name, sizeof name, "expert-%05d.theta", number);
    return path_join(folder, name, path);
}

/* --- what they are of --- */
/* What a run and its experts must have in common. */
static json_t *describe_subject(const struct descriptor *descriptor, const struct session *session) {
    char data[17];
    json_t *all = descriptor_json(descriptor);
    snprintf(data, sizeof data, "%016" PRIx64, session->data.fingerprint);
    json_t *subject =
        json_pack("{s:O, s:I, s:s, s:I, s:s}", "network", json_object_get(all, "network"), "weights",
                  (json_int_t)session->network.theta_count, "data", data, "images",
                  (json_int_t)session->data.train.count, "normalise", normalise_words[descriptor->data.normalise]);
    json_decref(all);
    return subject;
}

static json_t *describe(const struct descriptor *descriptor, const struct session *session,
                        const struct expert_spec *spec, int networks) {
    return json_pack("{s:i, s:o, s:{s:i, s:i, s:f, s:i, s:b, s:b, s:I}}", "format", FORMAT, "of",
                     describe_subject(descriptor, session), "training", "networks", networks, "epochs", spec->epochs,
                     "lr", spec->lr, "batch", spec->batch, "augment", spec->augment, "flip", spec->flip, "seed",
                     (json_int_t)spec->seed);
}

/* The first member of `wanted` that `found` does not have alike, as words. */
static bool differs(const json_t *found, json_t *wanted, char words[300]) {
    const char *name;
    json_t *value;
    json_object_foreach(wanted, name, value) {
        json_t *other = json_object_get(found, name);
        if (other && json_equal(other, value)) continue;
        char *have = other ? json_dumps(other, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;
        char *want = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        snprintf(words, 300, "%s is %.120s there, %.120s here", name, have ? have : "nothing", want ? want : "?");
        free(have);
        free(want);
        return true;
    }
    return false;
}

/* --- writing --- */
/* Whether a network is there, whole: files are renamed into place once they are written. */
static int count_networks(const char *folder, int most, int *count) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    for (*count = 0; *count < most; ++*count) {
        TRY(network_path(folder, *count, path));
        if (!file_exists(path)) break;
    }
done:
    return status;
}

int expert_store_begin(const char *folder, const struct descriptor *descriptor, const struct session *session,
                       const struct expert_spec *spec, int networks, int *done, int *lock) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX], lock_path[FILE_PATH_MAX], words[300];
    json_t *wanted = describe(descriptor, session, spec, networks), *found = NULL;
    *lock = -1;
    if (!wanted) RAISE(RETORT_ENOMEM, "out of memory");
    TRY(path_join(folder, "experts.json", path));
    TRY(path_join(folder, "experts.lock", lock_path));
    if (!file_exists(path) && !file_exists(lock_path) && !folder_empty(folder))
        RAISE(RETORT_EINVAL, "%s holds something else; name a new folder with --out", folder);
    if (file_exists(path)) {
        TRY(json_file_read(path, &found));
        if (differs(json_object_get(found, "of"), json_object_get(wanted, "of"), words)
            || differs(json_object_get(found, "training"), json_object_get(wanted, "training"), words))
            RAISE(RETORT_EINVAL, "%s holds other experts: %s; name another folder with --out", folder, words);
    }
    TRY(count_networks(folder, networks, done));
    TRY(folder_check_room(folder, expert_store_bytes(session->network.theta_count, networks - *done, spec->epochs)));
    TRY(folder_create(folder));
    *lock = file_lock(lock_path);
    if (*lock >= 0) folder_clear_temporaries(folder);
    TRY(count_networks(folder, networks, done));
    if (!found) TRY(json_file_write(path, json_incref(wanted), 17));
done:
    json_decref(wanted);
    json_decref(found);
    return status;
}

int expert_store_write(const char *folder, int number, int64_t theta_count, int epochs, const float *thetas) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    uint64_t *hashes = calloc((size_t)epochs + 1, sizeof *hashes);
    if (!hashes) RAISE(RETORT_ENOMEM, "out of memory writing expert %d", number);
    for (int i = 0; i <= epochs; i++) hashes[i] = hash_fast(thetas + i * theta_count, row_bytes(theta_count), 0);
    TRY(network_path(folder, number, path));
    const struct file_piece pieces[] = {{thetas, (size_t)(epochs + 1) * row_bytes(theta_count)},
                                        {hashes, (size_t)(epochs + 1) * sizeof *hashes}};
    TRY(file_write_pieces(path, pieces, 2));
done:
    free(hashes);
    return status;
}

/* --- reading --- */
static int read_at(FILE *stream, const char *path, uint64_t offset, void *data, size_t size) {
    if (fseeko(stream, (off_t)offset, SEEK_SET) == 0 && fread(data, 1, size, stream) == size) return RETORT_OK;
    return error_set(RETORT_EFORMAT, "%s is too short or cannot be read; delete it and run `retort experts` again",
                     path);
}

/* Each reading opens the file: several devices read at once. */
static int read_theta(const void *context, int number, int epoch, float *theta) {
    int status = RETORT_OK;
    const struct expert_store *store = context;
    const size_t row = row_bytes(store->theta_count);
    char path[FILE_PATH_MAX];
    uint64_t hash;
    FILE *stream = NULL;
    TRY(network_path(store->folder, number, path));
    stream = fopen(path, "rb");
    if (!stream) RAISE(RETORT_EIO, "cannot read %s: %s", path, strerror(errno));
    TRY(read_at(stream, path, (uint64_t)epoch * row, theta, row));
    TRY(read_at(stream, path, (uint64_t)(store->source.epochs + 1) * row + (uint64_t)epoch * sizeof hash, &hash,
                sizeof hash));
    if (hash != hash_fast(theta, row, 0))
        RAISE(RETORT_EFORMAT, "%s: the weights of epoch %d are damaged; delete it and run `retort experts` again", path,
              epoch);
done:
    if (stream) fclose(stream);
    return status;
}

static int check_store(const json_t *found, const struct descriptor *descriptor, const struct session *session,
                       int least_epochs, struct expert_store *store) {
    int status = RETORT_OK, done;
    char words[300];
    json_t *wanted = describe_subject(descriptor, session), *training = json_object_get(found, "training");
    json_int_t networks = json_integer_value(json_object_get(training, "networks"));
    json_int_t epochs = json_integer_value(json_object_get(training, "epochs"));
    if (!wanted) RAISE(RETORT_ENOMEM, "out of memory");
    if (json_integer_value(json_object_get(found, "format")) != FORMAT || networks < 1
        || networks > EXPERT_MOST_NETWORKS || epochs < 1 || epochs > EXPERT_MOST_EPOCHS)
        RAISE(RETORT_EFORMAT, "%s/experts.json does not tell of experts as this version writes them", store->folder);
    if (differs(json_object_get(found, "of"), wanted, words))
        RAISE(RETORT_EINVAL, "the experts of %s do not fit: %s; train others: retort experts DESCRIPTOR --out FOLDER",
              store->folder, words);
    if (epochs < least_epochs)
        RAISE(RETORT_EINVAL,
              "the experts of %s have %d epochs, but method.max_start - 1 + epochs reaches %d; lower it, or train "
              "others: retort experts DESCRIPTOR --out FOLDER --epochs %d",
              store->folder, (int)epochs, least_epochs, least_epochs);
    TRY(count_networks(store->folder, (int)networks, &done));
    if (done < networks)
        RAISE(RETORT_EINVAL, "%s holds %d of %d networks; go on with: retort experts DESCRIPTOR", store->folder, done,
              (int)networks);
    store->source.networks = (int)networks;
    store->source.epochs = (int)epochs;
done:
    json_decref(wanted);
    return status;
}

int expert_store_open(const char *folder, const struct descriptor *descriptor, const struct session *session,
                      int least_epochs, struct expert_store *store) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    json_t *found = NULL;
    *store = (struct expert_store){.theta_count = session->network.theta_count};
    snprintf(store->folder, sizeof store->folder, "%s", folder);
    store->source.context = store;
    store->source.read = read_theta;
    TRY(path_join(folder, "experts.json", path));
    if (!file_exists(path))
        RAISE(RETORT_EINVAL, "no experts in %s; train them first: retort experts DESCRIPTOR", folder);
    TRY(json_file_read(path, &found));
    TRY(check_store(found, descriptor, session, least_epochs, store));
done:
    json_decref(found);
    if (status < 0) error_context("method.experts");
    return status;
}
