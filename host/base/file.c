#include "base/file.h"

#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include <xxhash.h>

int file_read(const char *path, size_t limit, unsigned char **data, size_t *size) {
    int status = RETORT_OK;
    unsigned char *bytes = NULL;
    size_t count = 0, capacity = 0;
    FILE *stream = fopen(path, "rb");
    if (!stream) RAISE(RETORT_EIO, "cannot read %s: %s", path, strerror(errno));
    struct stat about;
    if (fstat(fileno(stream), &about) == 0 && S_ISDIR(about.st_mode))
        RAISE(RETORT_EIO, "cannot read %s: it is a folder", path);
    for (;;) {
        if (count + 1 >= capacity) {
            capacity = capacity ? capacity * 2 : 64 * 1024;
            unsigned char *grown = realloc(bytes, capacity);
            if (!grown) RAISE(RETORT_ENOMEM, "out of memory reading %s", path);
            bytes = grown;
        }
        size_t got = fread(bytes + count, 1, capacity - count - 1, stream);
        count += got;
        if (limit && count > limit) RAISE(RETORT_EFORMAT, "%s is larger than %zu bytes", path, limit);
        if (got == 0) break;
    }
    if (ferror(stream)) RAISE(RETORT_EIO, "cannot read %s: %s", path, strerror(errno));
    bytes[count] = 0;
    *data = bytes;
    *size = count;
    bytes = NULL;
done:
    if (stream) fclose(stream);
    free(bytes);
    return status;
}

bool file_first_line(const char *path, char *line, size_t size) {
    FILE *stream = fopen(path, "r");
    bool read = stream && fgets(line, (int)size, stream);
    if (stream) fclose(stream);
    if (read) line[strcspn(line, "\n")] = '\0';
    return read;
}

int file_write_begin(const char *path, char *temporary) {
    int length = snprintf(temporary, FILE_PATH_MAX, "%s.%ld.part", path, (long)getpid());
    return length < FILE_PATH_MAX ? RETORT_OK : error_set(RETORT_EINVAL, "path too long: %s", path);
}

bool file_is_temporary(const char *name) {
    static const char ending[] = ".part";
    const char *part = strstr(name, ending);
    if (!part || part == name || part[-1] < '0' || part[-1] > '9') return false;
    /* libzip writes NAME.PID.part by way of NAME.PID.part.XXXXXX. */
    const char *rest = part + sizeof ending - 1;
    return *rest == '\0' || (*rest == '.' && strlen(rest) == 7);
}

void folder_clear_temporaries(const char *path) {
    DIR *stream = opendir(path);
    if (!stream) return;
    for (struct dirent *entry; (entry = readdir(stream));) {
        char inner[FILE_PATH_MAX];
        if (file_is_temporary(entry->d_name) && path_join(path, entry->d_name, inner) == RETORT_OK) unlink(inner);
    }
    closedir(stream);
}

int file_lock(const char *path) {
    int descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor < 0) return -1;
    int locked;
    do locked = flock(descriptor, LOCK_EX);
    while (locked < 0 && errno == EINTR);
    if (locked == 0) return descriptor;
    close(descriptor);
    return -1;
}

static int sync_path(const char *path, int flags) {
    int descriptor = open(path, flags | O_CLOEXEC);
    if (descriptor < 0) return -1;
    int result = fsync(descriptor);
    close(descriptor);
    return result;
}

int file_write_commit(const char *path, const char *temporary) {
    int status = RETORT_OK;
    if (sync_path(temporary, O_RDONLY) < 0) RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    if (rename(temporary, path) < 0) RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    char folder[FILE_PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *slash = strrchr(folder, '/');
    if (slash == folder) slash++;
    if (slash) *slash = '\0';
    /* Some file systems cannot sync a folder; the rename is then as durable as they make it. */
    (void)sync_path(slash ? folder : ".", O_RDONLY | O_DIRECTORY);
done:
    if (status < 0) unlink(temporary);
    return status;
}

int file_write(const char *path, const void *data, size_t size) {
    return file_write_pieces(path, &(struct file_piece){data, size}, 1);
}

int file_write_pieces(const char *path, const struct file_piece *pieces, size_t count) {
    int status = RETORT_OK;
    char temporary[FILE_PATH_MAX] = "";
    FILE *stream = NULL;
    TRY(file_write_begin(path, temporary));
    stream = fopen(temporary, "wb");
    if (!stream) RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    for (size_t i = 0; i < count; i++)
        if (pieces[i].size && fwrite(pieces[i].data, 1, pieces[i].size, stream) != pieces[i].size)
            RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    int closed = fclose(stream);
    stream = NULL;
    if (closed != 0) RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
    TRY(file_write_commit(path, temporary));
done:
    if (stream) fclose(stream);
    if (status < 0 && temporary[0]) unlink(temporary);
    return status;
}

bool file_exists(const char *path) {
    struct stat about;
    return stat(path, &about) == 0;
}

bool folder_exists(const char *path) {
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

bool folder_has_file(const char *folder, const char *name, char path[FILE_PATH_MAX]) {
    return path_join(folder, name, path) == RETORT_OK && file_exists(path) && !folder_exists(path);
}

bool folder_empty(const char *path) {
    DIR *folder = opendir(path);
    if (!folder) return !file_exists(path);
    bool empty = true;
    for (struct dirent *entry; empty && (entry = readdir(folder));)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    closedir(folder);
    return empty;
}

int folder_create(const char *path) {
    char partial[FILE_PATH_MAX];
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof partial) return error_set(RETORT_EINVAL, "not a folder's path: '%s'", path);
    memcpy(partial, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (partial[i] != '/' && partial[i] != '\0') continue;
        char kept = partial[i];
        partial[i] = '\0';
        int reason = mkdir(partial, 0777) < 0 ? errno : 0; /* looking whether it is there changes errno */
        if (reason && !folder_exists(partial))
            return error_set(RETORT_EIO, "cannot create folder %s: %s", partial, strerror(reason));
        partial[i] = kept;
    }
    return RETORT_OK;
}

bool folder_cache(char folder[FILE_PATH_MAX]) {
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int status = cache && *cache == '/' ? path_join(cache, "retort", folder)
                 : home && *home == '/' ? path_join(home, ".cache/retort", folder)
                                        : error_set(RETORT_EIO, "no folder for caches");
    if (status < 0) error_clear();
    return status == RETORT_OK;
}

int folder_check_room(const char *path, uint64_t bytes) {
    int status = RETORT_OK;
    char place[FILE_PATH_MAX];
    struct statvfs system;
    snprintf(place, sizeof place, "%s", path);
    while (!file_exists(place)) {
        char *slash = strrchr(place, '/');
        if (!slash)
            strcpy(place, ".");
        else if (slash == place)
            strcpy(place, "/");
        else
            *slash = '\0';
    }
    if (!folder_exists(place)) RAISE(RETORT_EIO, "cannot write into %s: %s is a file; move it away", path, place);
    if (access(place, W_OK) < 0) RAISE(RETORT_EIO, "cannot write into %s: %s", place, strerror(errno));
    /* Some file systems do not tell their size. */
    if (statvfs(place, &system) < 0 || system.f_blocks == 0) goto done;
    uint64_t left = (uint64_t)system.f_bavail * system.f_frsize;
    if (left < bytes)
        RAISE(RETORT_EIO,
              "about %.1f MB will be written into %s, where %.1f MB are left; make room, or take another "
              "folder with --out",
              (double)bytes * 1e-6, path, (double)left * 1e-6);
done:
    return status;
}

int folder_remove(const char *path) {
    int status = RETORT_OK;
    DIR *folder = opendir(path);
    if (!folder) return file_exists(path) ? error_set(RETORT_EIO, "%s is not a folder", path) : RETORT_OK;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char inner[FILE_PATH_MAX];
        TRY(path_join(path, entry->d_name, inner));
        struct stat about;
        if (lstat(inner, &about) == 0 && S_ISDIR(about.st_mode))
            TRY(folder_remove(inner));
        else if (unlink(inner) < 0)
            RAISE(RETORT_EIO, "cannot remove %s: %s", inner, strerror(errno));
    }
    closedir(folder);
    folder = NULL;
    if (rmdir(path) < 0) RAISE(RETORT_EIO, "cannot remove %s: %s", path, strerror(errno));
done:
    if (folder) closedir(folder);
    return status;
}

int path_join(const char *folder, const char *name, char out[FILE_PATH_MAX]) {
    size_t length = strlen(folder);
    bool slash = length == 0 || folder[length - 1] == '/';
    int written = snprintf(out, FILE_PATH_MAX, "%s%s%s", folder, slash ? "" : "/", name);
    return written < FILE_PATH_MAX ? RETORT_OK : error_set(RETORT_EINVAL, "path too long: %s/%s", folder, name);
}

struct hash {
    struct sha256_ctx context;
};

struct hash *hash_create(void) {
    struct hash *hash = malloc(sizeof *hash);
    if (hash) sha256_init(&hash->context);
    return hash;
}

void hash_update(struct hash *hash, const void *data, size_t size) {
    sha256_update(&hash->context, size, data);
}

void hash_finish(struct hash *hash, char hex[65]) {
    unsigned char digest[SHA256_DIGEST_SIZE];
    sha256_digest(&hash->context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    free(hash);
}

uint64_t hash_fast(const void *data, size_t size, uint64_t seed) {
    return XXH64(data, size, seed);
}
