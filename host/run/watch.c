#include "run/watch.h"

#include "base/error.h"
#include "base/file.h"
#include "run/metrics.h"
#include "run/preview.h"
#include "run/tensorboard.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* --- pictures --- */
/* Of the set as it is: with names, or small and without. */
static int draw(const struct watch *watch, const char *path, bool named) {
    int status = RETORT_OK;
    struct distilled_set set = {0};
    const struct session *session = watch->session;
    const char *const *names = (const char *const *)session->data.train.class_names;
    TRY(distilled_set_take(watch->distill, &session->data.train, watch->descriptor->set.ipc,
                           watch->descriptor->set.labels, &set));
    TRY(preview_write(path, &set, &session->data.normalisation, named ? names : NULL));
done:
    distilled_set_finish(&set);
    return status;
}

static int keep_picture(const struct watch *watch, int step) {
    int status = RETORT_OK;
    char name[32], path[FILE_PATH_MAX];
    snprintf(name, sizeof name, "%06d.png", step);
    TRY(folder_create(watch->folder->previews));
    TRY(path_join(watch->folder->previews, name, path));
    TRY(draw(watch, path, false));
    if (watch->board) TRY(tensorboard_picture(watch->board, "set", step, path));
done:
    return status;
}

int watch_checkpoint(struct watch *watch) {
    return draw(watch, watch->folder->preview, true);
}

/* --- the line --- */
static void tell(struct watch *watch, const struct metrics *metrics) {
    struct text words;
    double loss = metric_number(metrics, "loss"), accuracy = metric_number(metrics, "accuracy");
    double end = metric_number(metrics, "end"), window = metric_number(metrics, "window");
    const char *stage = metric_word(metrics, "stage");
    text_init(&words);
    if (!isnan(accuracy)) watch->accuracy = accuracy;
    if (!isnan(loss)) text_printf(&words, "loss %.4f  ", loss);
    if (!isnan(watch->accuracy)) text_printf(&words, "accuracy %.1f%%  ", watch->accuracy);
    if (!isnan(end) && !isnan(window)) text_printf(&words, "window %.0f..%.0f  ", end - window + 1, end);
    if (stage) text_printf(&words, "%s", stage);
    while (words.length && words.data[words.length - 1] == ' ') words.data[--words.length] = '\0';
    progress_update(&watch->line, distill_steps_done(watch->distill), text_get(&words));
    text_finish(&words);
}

/* --- a run --- */
int watch_begin(struct watch *watch, const struct run_folder *folder, const struct descriptor *descriptor,
                const struct session *session, struct distill *distill, bool tensorboard, double evaluation) {
    int status = RETORT_OK;
    int done = distill_steps_done(distill);
    *watch = (struct watch){
        .folder = folder, .descriptor = descriptor, .session = session, .distill = distill, .accuracy = NAN};
    progress_begin(&watch->line, "distil", done, descriptor->outer.steps);
    watch->line.then = evaluation;
    watch->line.then_what = "evaluation";
    if (tensorboard) {
        TRY(tensorboard_open(folder->tensorboard, &watch->board));
        TRY(tensorboard_catch_up(watch->board, folder->metrics, done));
    }
    if (done == 0) TRY(keep_picture(watch, 0));
    TRY(watch_checkpoint(watch));
    progress_show(&watch->line);
done:
    return status;
}

int watch_step(struct watch *watch, const struct metrics *metrics) {
    int status = RETORT_OK;
    int step = distill_steps_done(watch->distill);
    json_t *row = NULL;
    tell(watch, metrics);
    if (watch->board) {
        row = json_object();
        if (!row || !metrics_to_json(metrics, row)) RAISE(RETORT_ENOMEM, "out of memory for TensorBoard's events");
        TRY(tensorboard_scalars(watch->board, row));
    }
    if (preview_is_kept(step, watch->descriptor->outer.steps)) TRY(keep_picture(watch, step));
done:
    json_decref(row);
    return status;
}

void watch_end(struct watch *watch) {
    if (watch->folder) progress_end(&watch->line);
    tensorboard_close(watch->board);
    *watch = (struct watch){0};
}

int watch_result(const struct run_folder *folder, const struct descriptor *descriptor, const json_t *accuracy) {
    int status = RETORT_OK;
    struct tensorboard *board = NULL;
    const char *name;
    json_t *row, *means = json_object(),
                 *event = json_pack("{s:i, s:o}", "outer_step", descriptor->outer.steps, "evaluation", means);
    json_object_foreach((json_t *)accuracy, name, row) {
        json_object_set(means, name, json_object_get(row, "mean"));
    }
    if (!event) RAISE(RETORT_ENOMEM, "out of memory for TensorBoard's events");
    TRY(tensorboard_open(folder->tensorboard, &board));
    TRY(tensorboard_scalars(board, event));
done:
    tensorboard_close(board);
    json_decref(event);
    return status;
}
