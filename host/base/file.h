/* Files and folders: whole reads with a bound, atomic writes, hashes of bytes. */
#ifndef RETORT_BASE_FILE_H
#define RETORT_BASE_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads a whole file, at most `limit` bytes (0: no bound): *data gets a terminating zero that *size does not count, and
 * is the caller's to free(). */
int file_read(const char *path, size_t limit, unsigned char **data, size_t *size);
/* The first line of a file, such as the system tells of itself, without its end and no more of it than there is room
 * for; false where there is none to read. */
bool file_first_line(const char *path, char *line, size_t size);
/* Writes a file as a whole or not at all: a temporary beside it, fsync, rename, fsync of the folder. */
int file_write(const char *path, const void *data, size_t size);
/* The same of pieces, one after another. */
struct file_piece {
    const void *data;
    size_t size;
};
int file_write_pieces(const char *path, const struct file_piece *pieces, size_t count);
/* The two halves, for writers with a stream of their own. `begin` writes the temporary's path to `temporary` (at least
 * FILE_PATH_MAX); `commit` syncs and renames it; on failure it is removed. */
#define FILE_PATH_MAX 4096
int file_write_begin(const char *path, char *temporary);
int file_write_commit(const char *path, const char *temporary);
/* Whether a file of this name (without its folder) is such a temporary, or one that libzip made beside it: where nobody
 * writes any more, a killed process has left it behind. */
bool file_is_temporary(const char *name);
/* Removes those of a folder, which nobody else may be writing into. */
void folder_clear_temporaries(const char *path);
/* Takes the lock of a file, waiting for whoever has it: creates `path`, which stays, and returns a descriptor to
 * close(), which gives the lock back; the system does that for a process that dies. -1, without a lock, where the file
 * cannot be made or the file system knows no locks. */
int file_lock(const char *path);
bool file_exists(const char *path);
bool folder_exists(const char *path);
/* Whether a folder has a file, not a folder, of this name; `path` gets its place. */
bool folder_has_file(const char *folder, const char *name, char path[FILE_PATH_MAX]);
bool folder_empty(const char *path); /* true also where it does not exist */
int folder_create(const char *path); /* with parents; fine where it exists */
/* RETORT_EIO where the folder, or the nearest one above it that exists, cannot be written to or has less than `bytes`
 * left: for what would be found out late. */
int folder_check_room(const char *path, uint64_t bytes);
int folder_remove(const char *path); /* with its content; fine where it does not exist */
/* XDG_CACHE_HOME/retort, or ~/.cache/retort; false where neither can be. It may not exist yet. */
bool folder_cache(char folder[FILE_PATH_MAX]);
/* Joins with one slash; RETORT_EINVAL where the result is longer than FILE_PATH_MAX. */
int path_join(const char *folder, const char *name, char out[FILE_PATH_MAX]);

/* SHA-256 in hexadecimal. Update as often as wanted, then take the text (64 digits and a zero). */
struct hash;
struct hash *hash_create(void); /* NULL when out of memory */
void hash_update(struct hash *hash, const void *data, size_t size);
void hash_finish(struct hash *hash, char hex[65]);                /* frees it */
uint64_t hash_fast(const void *data, size_t size, uint64_t seed); /* xxHash64: cache keys, not proofs */

#endif
