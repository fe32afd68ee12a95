/* Event files for TensorBoard: scalars by step, and pictures.
 *
 * A file is a sequence of records (TFRecord): length, its checksum, bytes, their checksum; the bytes are a message
 * Event of protocol buffers, of which a few fields are written by hand (tensorflow/core/util/event.proto and
 * framework/summary.proto have their numbers). Each sitting of a run adds a file of its own. What earlier files hold is
 * not written again: a tag's value is dropped where its step is not past the last one of that tag. */
#ifndef RETORT_RUN_TENSORBOARD_H
#define RETORT_RUN_TENSORBOARD_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

struct tensorboard;

/* Creates the folder where needed, reads what its event files hold, and begins a new one. */
int tensorboard_open(const char *folder, struct tensorboard **board);
void tensorboard_close(struct tensorboard *board); /* NULL-safe */
/* Each number of a line of metrics.jsonl, under its name, at its `outer_step`, and hands it to the system. Other values
 * are passed over. */
int tensorboard_scalars(struct tensorboard *board, const json_t *row);
/* The first `lines` lines of a metrics.jsonl, of sittings that wrote no event file or lost its end. */
int tensorboard_catch_up(struct tensorboard *board, const char *metrics, int lines);
/* A picture, the bytes of a PNG file. */
int tensorboard_picture(struct tensorboard *board, const char *tag, int64_t step, const char *path);

/* CRC-32C (Castagnoli), as records have it before it is masked. */
uint32_t crc32c(const void *data, size_t size);

#endif
