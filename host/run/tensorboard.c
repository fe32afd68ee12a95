#include "run/tensorboard.h"

#include "base/error.h"
#include "base/file.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PREFIX     "events.out.tfevents."
#define MOST_BYTES ((size_t)1 << 31) /* of a file that is read again */

/* Fields of the messages, by number. */
enum { EVENT_TIME = 1, EVENT_STEP = 2, EVENT_VERSION = 3, EVENT_SUMMARY = 5 };
enum { SUMMARY_VALUE = 1 };
enum { VALUE_TAG = 1, VALUE_NUMBER = 2, VALUE_IMAGE = 4 };
enum { IMAGE_HEIGHT = 1, IMAGE_WIDTH = 2, IMAGE_COLOURS = 3, IMAGE_PNG = 4 };
enum wire { WIRE_VARINT = 0, WIRE_64 = 1, WIRE_BYTES = 2, WIRE_32 = 5 };

struct last {
    char tag[64];
    int64_t step;
};

struct tensorboard {
    FILE *stream;
    char path[FILE_PATH_MAX];
    ARRAY(struct last) lasts;
};

/* --- records --- */
uint32_t crc32c(const void *data, size_t size) {
    const unsigned char *bytes = data;
    uint32_t crc = ~0u;
    for (size_t i = 0; i < size; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

static uint32_t masked(const void *data, size_t size) {
    uint32_t crc = crc32c(data, size);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void put_whole(unsigned char *bytes, uint64_t value, int count) {
    for (int i = 0; i < count; i++) bytes[i] = (unsigned char)(value >> 8 * i);
}

static uint64_t get_whole(const unsigned char *bytes, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++) value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

/* --- messages --- */
/* Bytes that grow. */
struct message {
    ARRAY(unsigned char) bytes;
    bool failed;
};

static void add_bytes(struct message *message, const void *data, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (!array_push(&message->bytes, ((const unsigned char *)data)[i])) message->failed = true;
}

static void add_varint(struct message *message, uint64_t value) {
    for (; value >= 128; value >>= 7) add_bytes(message, &(unsigned char){(unsigned char)(value | 128)}, 1);
    add_bytes(message, &(unsigned char){(unsigned char)value}, 1);
}

static void add_key(struct message *message, int field, enum wire wire) {
    add_varint(message, (uint64_t)field << 3 | wire);
}

static void add_whole(struct message *message, int field, int64_t value) {
    add_key(message, field, WIRE_VARINT);
    add_varint(message, (uint64_t)value);
}

static void add_block(struct message *message, int field, const void *data, size_t size) {
    add_key(message, field, WIRE_BYTES);
    add_varint(message, size);
    add_bytes(message, data, size);
}

static void add_bits(struct message *message, int field, enum wire wire, uint64_t bits, int size) {
    unsigned char bytes[8];
    put_whole(bytes, bits, size);
    add_key(message, field, wire);
    add_bytes(message, bytes, (size_t)size);
}

static void add_real(struct message *message, int field, double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    add_bits(message, field, WIRE_64, bits, 8);
}

static void add_float(struct message *message, int field, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    add_bits(message, field, WIRE_32, bits, 4);
}

/* A field on its way through a message. */
struct field {
    int number;
    uint64_t value;             /* of all but bytes */
    const unsigned char *bytes; /* with `size` */
    size_t size;
};

static bool get_varint(const unsigned char **at, const unsigned char *end, uint64_t *value) {
    *value = 0;
    for (int shift = 0; *at < end && shift < 64; shift += 7) {
        unsigned char byte = *(*at)++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) return true;
    }
    return false;
}

/* False at the end, or where the bytes are none of ours. */
static bool next_field(const unsigned char **at, const unsigned char *end, struct field *field) {
    uint64_t key, size;
    if (!get_varint(at, end, &key)) return false;
    *field = (struct field){.number = (int)(key >> 3)};
    if ((key & 7) == WIRE_VARINT) return get_varint(at, end, &field->value);
    if ((key & 7) == WIRE_64)
        size = 8;
    else if ((key & 7) == WIRE_32)
        size = 4;
    else if ((key & 7) != WIRE_BYTES || !get_varint(at, end, &size))
        return false;
    if (size > (uint64_t)(end - *at)) return false;
    field->bytes = *at;
    field->size = size;
    *at += size;
    return true;
}

/* --- what is there already --- */
static struct last *find_last(struct tensorboard *board, const char *tag) {
    for (size_t i = 0; i < board->lasts.count; i++)
        if (strcmp(board->lasts.items[i].tag, tag) == 0) return &board->lasts.items[i];
    return NULL;
}

/* Whether a value is past all that was written under its tag; then it is the last one. */
static int claim(struct tensorboard *board, const char *tag, int64_t step, bool *is_new) {
    struct last *last = find_last(board, tag);
    struct last fresh = {.step = step};
    *is_new = !last || last->step < step;
    if (!*is_new) return RETORT_OK;
    if (last) {
        last->step = step;
        return RETORT_OK;
    }
    snprintf(fresh.tag, sizeof fresh.tag, "%s", tag);
    return array_push(&board->lasts, fresh) ? RETORT_OK : error_set(RETORT_ENOMEM, "out of memory listing tags");
}

static int read_event(struct tensorboard *board, const unsigned char *at, size_t size) {
    int status = RETORT_OK;
    const unsigned char *end = at + size;
    struct field field, summary = {0}, value, part;
    int64_t step = 0;
    while (next_field(&at, end, &field)) {
        if (field.number == EVENT_STEP) step = (int64_t)field.value;
        if (field.number == EVENT_SUMMARY) summary = field;
    }
    for (at = summary.bytes, end = at + summary.size; at && next_field(&at, end, &value);) {
        const unsigned char *inner = value.bytes;
        if (value.number != SUMMARY_VALUE) continue;
        while (inner && next_field(&inner, value.bytes + value.size, &part)) {
            char tag[64];
            bool is_new;
            if (part.number != VALUE_TAG || !part.bytes) continue;
            snprintf(tag, sizeof tag, "%.*s", (int)(part.size < sizeof tag ? part.size : sizeof tag - 1),
                     (const char *)part.bytes);
            TRY(claim(board, tag, step, &is_new));
        }
    }
done:
    return status;
}

/* The last record of a run that was killed may be torn: what follows the whole ones is passed over, as TensorBoard
 * does. */
static int read_file(struct tensorboard *board, const char *path) {
    int status = RETORT_OK;
    unsigned char *data = NULL;
    size_t size, at = 0;
    TRY(file_read(path, MOST_BYTES, &data, &size));
    while (size - at >= 16) {
        uint64_t length = get_whole(data + at, 8);
        if (length > size - at - 16 || masked(data + at, 8) != get_whole(data + at + 8, 4)
            || masked(data + at + 12, length) != get_whole(data + at + 12 + length, 4))
            break;
        TRY(read_event(board, data + at + 12, length));
        at += length + 16;
    }
done:
    free(data);
    return status;
}

/* Reads all of the folder's event files. *latest: the greatest time among their names, which TensorBoard reads in their
 * order. */
static int read_folder(struct tensorboard *board, const char *folder, long long *latest) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    DIR *stream = opendir(folder);
    if (!stream) RAISE(RETORT_EIO, "cannot read %s: %s", folder, strerror(errno));
    for (struct dirent *entry; (entry = readdir(stream));) {
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0) continue;
        long long made = strtoll(entry->d_name + strlen(PREFIX), NULL, 10);
        if (made > *latest) *latest = made;
        TRY(path_join(folder, entry->d_name, path));
        TRY(read_file(board, path));
    }
done:
    if (stream) closedir(stream);
    return status;
}

/* --- writing --- */
static int write_record(struct tensorboard *board, const struct message *event) {
    unsigned char head[12], tail[4];
    size_t size = event->bytes.count;
    put_whole(head, size, 8);
    put_whole(head + 8, masked(head, 8), 4);
    put_whole(tail, masked(event->bytes.items, size), 4);
    if (event->failed) return error_set(RETORT_ENOMEM, "out of memory writing %s", board->path);
    if (fwrite(head, sizeof head, 1, board->stream) != 1 || fwrite(event->bytes.items, size, 1, board->stream) != 1
        || fwrite(tail, sizeof tail, 1, board->stream) != 1 || fflush(board->stream) != 0)
        return error_set(RETORT_EIO, "cannot write %s: %s", board->path, strerror(errno));
    return RETORT_OK;
}

static void begin_event(struct message *event) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    add_real(event, EVENT_TIME, (double)now.tv_sec + 1e-9 * (double)now.tv_nsec);
}

static int write_summary(struct tensorboard *board, int64_t step, const struct message *summary) {
    struct message event = {.failed = summary->failed};
    begin_event(&event);
    add_whole(&event, EVENT_STEP, step);
    add_block(&event, EVENT_SUMMARY, summary->bytes.items, summary->bytes.count);
    int status = write_record(board, &event);
    array_finish(&event.bytes);
    return status;
}

int tensorboard_open(const char *folder, struct tensorboard **out) {
    int status = RETORT_OK;
    static const char version[] = "brain.Event:2";
    struct message event = {0};
    char name[FILE_PATH_MAX], host[64] = "";
    long long latest = -1, now = time(NULL);
    struct tensorboard *board = calloc(1, sizeof *board);
    if (!board) RAISE(RETORT_ENOMEM, "out of memory writing to %s", folder);
    TRY(folder_create(folder));
    TRY(read_folder(board, folder, &latest));
    gethostname(host, sizeof host - 1);
    snprintf(name, sizeof name, PREFIX "%010lld.%s", now > latest ? now : latest + 1, *host ? host : "localhost");
    TRY(path_join(folder, name, board->path));
    board->stream = fopen(board->path, "wb");
    if (!board->stream) RAISE(RETORT_EIO, "cannot write %s: %s", board->path, strerror(errno));
    begin_event(&event);
    add_block(&event, EVENT_VERSION, version, strlen(version));
    TRY(write_record(board, &event));
    *out = board;
    board = NULL;
done:
    array_finish(&event.bytes);
    tensorboard_close(board);
    return status;
}

void tensorboard_close(struct tensorboard *board) {
    if (!board) return;
    if (board->stream) fclose(board->stream);
    array_finish(&board->lasts);
    free(board);
}

static int add_scalar(struct tensorboard *board, struct message *summary, const char *tag, int64_t step,
                      double number) {
    struct message value = {0};
    bool is_new;
    int status = claim(board, tag, step, &is_new);
    if (status < 0 || !is_new) return status;
    add_block(&value, VALUE_TAG, tag, strlen(tag));
    add_float(&value, VALUE_NUMBER, (float)number);
    add_block(summary, SUMMARY_VALUE, value.bytes.items, value.bytes.count);
    summary->failed |= value.failed;
    array_finish(&value.bytes);
    return RETORT_OK;
}

/* Members of a member get its name before theirs: "stages/early". */
static int add_numbers(struct tensorboard *board, struct message *summary, const char *prefix, int64_t step,
                       const json_t *row) {
    int status = RETORT_OK;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)row, key, value) {
        char tag[64];
        if (strcmp(key, "outer_step") == 0) continue;
        snprintf(tag, sizeof tag, "%s%s%s", prefix, *prefix ? "/" : "", key);
        if (json_is_number(value)) TRY(add_scalar(board, summary, tag, step, json_number_value(value)));
        if (json_is_object(value) && !*prefix) TRY(add_numbers(board, summary, tag, step, value));
    }
done:
    return status;
}

int tensorboard_scalars(struct tensorboard *board, const json_t *row) {
    int status = RETORT_OK;
    struct message summary = {0};
    const json_t *step = json_object_get(row, "outer_step");
    if (!json_is_integer(step)) return RETORT_OK;
    TRY(add_numbers(board, &summary, "", json_integer_value(step), row));
    if (summary.bytes.count) TRY(write_summary(board, json_integer_value(step), &summary));
done:
    array_finish(&summary.bytes);
    return status;
}

int tensorboard_catch_up(struct tensorboard *board, const char *metrics, int lines) {
    int status = RETORT_OK;
    char *line = NULL;
    size_t room = 0;
    FILE *stream = lines > 0 ? fopen(metrics, "rb") : NULL;
    for (int i = 0; stream && i < lines && getline(&line, &room, stream) >= 0; i++) {
        json_t *row = json_loads(line, 0, NULL);
        status = tensorboard_scalars(board, row);
        json_decref(row);
        TRY(status);
    }
done:
    if (stream) fclose(stream);
    free(line);
    return status;
}

int tensorboard_picture(struct tensorboard *board, const char *tag, int64_t step, const char *path) {
    int status = RETORT_OK;
    struct message image = {0}, value = {0}, summary = {0};
    unsigned char *png = NULL;
    size_t size;
    bool is_new;
    TRY(claim(board, tag, step, &is_new));
    if (!is_new) goto done;
    TRY(file_read(path, MOST_BYTES, &png, &size));
    if (size < 26) RAISE(RETORT_EFORMAT, "%s is not a PNG file", path);
    /* A PNG file has its size and colour type at fixed places, numbers with their greatest byte first. */
    add_whole(&image, IMAGE_HEIGHT, png[22] << 8 | png[23]);
    add_whole(&image, IMAGE_WIDTH, png[18] << 8 | png[19]);
    add_whole(&image, IMAGE_COLOURS, png[25] & 2 ? 3 : 1);
    add_block(&image, IMAGE_PNG, png, size);
    add_block(&value, VALUE_TAG, tag, strlen(tag));
    add_block(&value, VALUE_IMAGE, image.bytes.items, image.bytes.count);
    add_block(&summary, SUMMARY_VALUE, value.bytes.items, value.bytes.count);
    summary.failed |= value.failed || image.failed;
    TRY(write_summary(board, step, &summary));
done:
    array_finish(&image.bytes);
    array_finish(&value.bytes);
    array_finish(&summary.bytes);
    free(png);
    return status;
}
