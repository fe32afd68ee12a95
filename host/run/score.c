#include "run/score.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "run/json_file.h"
#include "team/team.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const row_names[SCORE_ROWS] = {"distilled", "random", "full"};

void scores_finish(struct scores *scores) {
    if (!scores) return;
    for (int i = 0; i < SCORE_ROWS; i++) accuracy_finish(&scores->rows[i]);
    *scores = (struct scores){0};
}

/* --- rows kept between sittings --- */
static json_t *row_to_json(const struct accuracy *row) {
    json_t *steps = json_array(), *runs = json_array();
    for (int i = 0; i < row->checkpoints; i++) json_array_append_new(steps, json_integer(row->steps[i]));
    for (int i = 0; i < row->networks * row->checkpoints; i++) json_array_append_new(runs, json_real(row->runs[i]));
    return json_pack("{s:i, s:i, s:o, s:o, s:i, s:b, s:f, s:o, s:f}", "networks", row->networks, "checkpoints",
                     row->checkpoints, "steps", steps, "runs", runs, "chosen", row->chosen, "chosen_on_test",
                     row->chosen_on_test, "mean", row->mean, "sd", json_number_or_null(row->sd), "best_on_test",
                     row->best_on_test);
}

/* False where the JSON is not a row of this specification. */
static bool row_from_json(const json_t *value, const struct evaluate_spec *spec, struct accuracy *row) {
    struct accuracy fresh = {0};
    json_t *steps, *runs, *sd;
    int chosen_on_test;
    if (json_unpack((json_t *)value, "{s:i, s:i, s:o, s:o, s:i, s:b, s:F, s:o, s:F}", "networks", &fresh.networks,
                    "checkpoints", &fresh.checkpoints, "steps", &steps, "runs", &runs, "chosen", &fresh.chosen,
                    "chosen_on_test", &chosen_on_test, "mean", &fresh.mean, "sd", &sd, "best_on_test",
                    &fresh.best_on_test)
        < 0)
        return false;
    if (fresh.networks != spec->networks || fresh.checkpoints < 1 || fresh.checkpoints > EVALUATE_MAX_CHECKPOINTS
        || json_array_size(steps) != (size_t)fresh.checkpoints || fresh.chosen < 0 || fresh.chosen >= fresh.checkpoints
        || json_array_size(runs) != (size_t)fresh.networks * (size_t)fresh.checkpoints)
        return false;
    fresh.runs = calloc(json_array_size(runs), sizeof *fresh.runs);
    if (!fresh.runs) return false;
    for (size_t i = 0; i < json_array_size(runs); i++) fresh.runs[i] = json_number_value(json_array_get(runs, i));
    for (int i = 0; i < fresh.checkpoints; i++)
        fresh.steps[i] = (int)json_integer_value(json_array_get(steps, (size_t)i));
    fresh.chosen_on_test = chosen_on_test;
    fresh.sd = json_is_null(sd) ? NAN : json_number_value(sd);
    *row = fresh;
    return true;
}

static int keep(const char *path, const char *sha256, const struct scores *scores) {
    json_t *rows = json_object();
    for (int i = 0; i < SCORE_ROWS; i++)
        if (scores->has[i]) json_object_set_new(rows, row_names[i], row_to_json(&scores->rows[i]));
    return json_file_write(
        path, json_pack("{s:s, s:f, s:o}", "set_sha256", sha256, "seconds", scores->seconds, "rows", rows), 17);
}

/* A file that is missing, damaged or of another set only costs the time to compute the rows again. One that cannot be
 * read is left alone. */
static int recall(const char *path, const char *sha256, const struct evaluate_spec *spec, struct scores *scores) {
    int status = RETORT_OK;
    json_t *kept = NULL, *rows;
    const char *of;
    double seconds;
    if (!file_exists(path)) return RETORT_OK;
    status = json_file_read(path, &kept);
    if (status < 0 && status != RETORT_EFORMAT) return status;
    if (status == RETORT_OK
        && json_unpack(kept, "{s:s, s:F, s:o}", "set_sha256", &of, "seconds", &seconds, "rows", &rows) == 0
        && strcmp(of, sha256) == 0) {
        for (int i = 0; i < SCORE_ROWS; i++)
            scores->has[i] = row_from_json(json_object_get(rows, row_names[i]), spec, &scores->rows[i]);
        scores->seconds = seconds;
    }
    error_clear();
    json_decref(kept);
    return RETORT_OK;
}

/* --- computing --- */
static struct evaluate_problem problem_of(const struct descriptor *descriptor, const struct session *session,
                                          double inner_lr, const struct evaluate_plans *frozen,
                                          const volatile int *interrupt) {
    return (struct evaluate_problem){
        .library = session->library,
        .network = &session->evaluate_network,
        .inner = descriptor->inner,
        .inner_lr = inner_lr,
        .augment = descriptor->outer.augment,
        .test = &session->data.test,
        .holdout = &session->data.holdout,
        .spec = descriptor->evaluate,
        .seed = descriptor->seed,
        .division = session->division,
        .frozen = frozen,
        .interrupt = interrupt,
    };
}

static double inner_lr(const struct descriptor *descriptor, const struct distilled_set *set) {
    return set && set->inner_lr > 0 ? set->inner_lr : descriptor->inner.optimizer.lr;
}

int scores_plan(const struct descriptor *descriptor, const struct session *session, const struct distilled_set *set,
                const struct evaluate_plans *frozen, struct evaluate_plans *plans) {
    if (session->data.test.count == 0) {
        log_warning("data.path holds no test images and none are kept aside (data.test): the set will not be "
                    "evaluated");
        return RETORT_OK;
    }
    const struct evaluate_problem problem = problem_of(descriptor, session, inner_lr(descriptor, set), frozen, NULL);
    const int classes = session->evaluate_network.classes, ipc = descriptor->set.ipc;
    /* Of the labels only the kind is looked at. */
    const float soft = 0;
    const int32_t hard = 0;
    const struct training_set to_come = {.count = (int64_t)classes * ipc,
                                         .classes = classes,
                                         .ipc = ipc,
                                         .soft_labels = descriptor->set.labels == LABELS_SOFT ? &soft : NULL,
                                         .hard_labels = descriptor->set.labels == LABELS_HARD ? &hard : NULL};
    const struct training_set view = set ? distilled_set_view(set) : to_come;
    return evaluate_plan(&problem, &view, &session->data.train, plans);
}

int scores_compute(const struct descriptor *descriptor, struct session *session, const struct distilled_set *set,
                   const struct evaluate_plans *frozen, const char *path, const char *sha256,
                   const volatile int *interrupt, struct scores *scores) {
    int status = RETORT_OK;
    struct scores fresh = {0};
    const struct evaluate_problem problem =
        problem_of(descriptor, session, inner_lr(descriptor, set), frozen, interrupt);
    const struct training_set view = distilled_set_view(set);
    const bool wanted[SCORE_ROWS] = {true, set->ipc > 0, descriptor->evaluate.full_data};
    evaluate_describe(&problem, fresh.protocol, sizeof fresh.protocol);
    log_info("protocol: %s", fresh.protocol);
    if (path) TRY(recall(path, sha256, &descriptor->evaluate, &fresh));
    /* The leader of a team has the file, and so tells the others which rows are still wanted. */
    TRY(team_share(session->division.team, fresh.has, sizeof fresh.has));
    for (int i = 0; i < SCORE_ROWS; i++) {
        if (!wanted[i] || fresh.has[i]) continue;
        double begun = clock_seconds();
        if (i == SCORE_DISTILLED)
            TRY(evaluate_set(&problem, &view, "distilled", &fresh.rows[i]));
        else if (i == SCORE_RANDOM)
            TRY(evaluate_random(&problem, &session->data.train, set->ipc, &fresh.rows[i]));
        else
            TRY(evaluate_full(&problem, &session->data.train, &fresh.rows[i]));
        fresh.has[i] = true;
        fresh.seconds += clock_seconds() - begun;
        if (path) TRY(keep(path, sha256, &fresh));
    }
    *scores = fresh;
    return RETORT_OK;
done:
    scores_finish(&fresh);
    return status;
}

json_t *scores_json(const struct scores *scores, bool has_holdout) {
    json_t *object = json_object();
    for (int r = 0; r < SCORE_ROWS; r++) {
        const struct accuracy *row = &scores->rows[r];
        if (!scores->has[r]) continue;
        json_t *runs = json_array(), *by_step = json_array();
        for (int n = 0; n < row->networks; n++)
            json_array_append_new(runs, json_real(row->runs[n * row->checkpoints + row->chosen]));
        for (int c = 0; c < row->checkpoints; c++) {
            json_t *all = json_array();
            double sum = 0;
            for (int n = 0; n < row->networks; n++) {
                sum += row->runs[n * row->checkpoints + c];
                json_array_append_new(all, json_real(row->runs[n * row->checkpoints + c]));
            }
            json_array_append_new(
                by_step, json_pack("{s:i, s:f, s:o}", "step", row->steps[c], "mean", sum / row->networks, "runs", all));
        }
        const char *chosen_on = row->checkpoints < 2  ? "nothing to choose"
                                : row->chosen_on_test ? "test"
                                : has_holdout         ? "holdout"
                                                      : "nothing to choose";
        json_object_set_new(object, row_names[r],
                            json_pack("{s:f, s:o, s:o, s:i, s:s, s:f, s:o}", "mean", row->mean, "sd",
                                      json_number_or_null(row->sd), "runs", runs, "step", row->steps[row->chosen],
                                      "chosen_on", chosen_on, "best_on_test", row->best_on_test, "by_step", by_step));
    }
    return object;
}
