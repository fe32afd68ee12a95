#include "run/evaluation.h"

#include "base/error.h"
#include "base/locale.h"
#include "run/descriptor.h"
#include "run/public.h"
#include "run/score.h"
#include "run/session.h"
#include "run/set_folder.h"
#include "run/stored_set.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct retort_evaluation {
    bool has[SCORE_ROWS];
    struct retort_accuracy rows[SCORE_ROWS];
    char *json;
};

_Static_assert((int)RETORT_DISTILLED == SCORE_DISTILLED && (int)RETORT_RANDOM == SCORE_RANDOM
                   && (int)RETORT_FULL == SCORE_FULL,
               "rows of scores are those of the public API");

static int read_descriptor(const struct evaluation_request *request, const struct set_place *place,
                           struct descriptor *descriptor) {
    int status = RETORT_OK;
    char *recipe = NULL, path[FILE_PATH_MAX] = "";
    if (request->text)
        return public_parse("descriptor", request->folder, request->text, request->overrides, request->override_count,
                            descriptor);
    if (!request->with && *place->run) TRY(path_join(place->run, "descriptor.yaml", path));
    if (request->with || *path) {
        status = request->with ? descriptor_read(request->with, request->overrides, request->override_count, descriptor)
                               : descriptor_read_copy(path, request->overrides, request->override_count, descriptor);
        return status == RETORT_EIO ? RETORT_EINVAL : status;
    }
    TRY(set_folder_recipe(place->path, &recipe));
    /* Its paths are absolute already. */
    TRY(descriptor_parse_copy("the set's recipe", place->kind == SET_IS_FOLDER ? place->path : ".", recipe,
                              strlen(recipe), request->overrides, request->override_count, descriptor));
done:
    free(recipe);
    return status;
}

/* --- the outcome --- */
void retort_evaluation_destroy(struct retort_evaluation *evaluation) {
    if (!evaluation) return;
    for (int i = 0; i < SCORE_ROWS; i++) free((double *)(uintptr_t)evaluation->rows[i].runs);
    free(evaluation->json);
    free(evaluation);
}

const struct retort_accuracy *retort_evaluation_accuracy(const struct retort_evaluation *evaluation,
                                                         enum retort_accuracy_of of) {
    return (int)of >= 0 && (int)of < SCORE_ROWS && evaluation->has[of] ? &evaluation->rows[of] : NULL;
}

const char *retort_evaluation_json(const struct retort_evaluation *evaluation) {
    return evaluation->json;
}

static int take_row(const struct accuracy *from, struct retort_accuracy *to) {
    double *runs = calloc((size_t)from->networks, sizeof *runs);
    if (!runs) return error_set(RETORT_ENOMEM, "out of memory");
    for (int n = 0; n < from->networks; n++) runs[n] = from->runs[n * from->checkpoints + from->chosen];
    *to = (struct retort_accuracy){.mean = from->mean,
                                   .sd = from->sd,
                                   .networks = from->networks,
                                   .step = from->steps[from->chosen],
                                   .chosen_on_test = from->checkpoints > 1 && from->chosen_on_test,
                                   .runs = runs};
    return RETORT_OK;
}

static int take_outcome(const struct descriptor *descriptor, const struct session *session,
                        const struct distilled_set *set, const struct scores *scores,
                        struct retort_evaluation **evaluation) {
    int status = RETORT_OK;
    json_t *result = NULL;
    char sha256[65];
    struct retort_evaluation *fresh = calloc(1, sizeof *fresh);
    if (!fresh) RAISE(RETORT_ENOMEM, "out of memory");
    for (int i = 0; i < SCORE_ROWS; i++) {
        if (!scores->has[i]) continue;
        TRY(take_row(&scores->rows[i], &fresh->rows[i]));
        fresh->has[i] = true;
    }
    TRY(distilled_set_hash(set, sha256));
    result =
        json_pack("{s:s, s:I, s:s, s:I, s:s, s:o, s:{s:f, s:f}}", "device", device_traits(session->device)->name,
                  "seed", (json_int_t)descriptor->seed, "protocol", scores->protocol, "images", (json_int_t)set->count,
                  "set_sha256", sha256, "accuracy", scores_json(scores, session->data.holdout.count > 0), "seconds",
                  "evaluate", scores->seconds, "build_kernels", device_build_seconds(session->device));
    fresh->json = result ? json_dumps(result, JSON_INDENT(2) | JSON_REAL_PRECISION(15)) : NULL;
    if (!fresh->json) RAISE(RETORT_ENOMEM, "out of memory");
    *evaluation = fresh;
    fresh = NULL;
done:
    json_decref(result);
    retort_evaluation_destroy(fresh);
    return status;
}

/* --- evaluating --- */
int evaluation_compute(const struct evaluation_request *request, struct retort_evaluation **evaluation) {
    int status = RETORT_OK;
    struct set_place place = {0};
    struct descriptor descriptor = {0};
    struct session session = {0};
    struct distilled_set set = {0};
    struct scores scores = {0};
    struct evaluate_plans plans;
    if (!request->labels)
        TRY(set_find(request->set, &place));
    else if (!request->with && !request->text)
        RAISE(RETORT_EINVAL, "a pair of files says nothing of data and protocol; name a descriptor with --with");
    TRY(read_descriptor(request, &place, &descriptor));
    TRY(session_open(&descriptor, 0, false, &session));
    TRY(session_choose_kernels(&session, NULL, NULL));
    if (session.data.test.count == 0)
        RAISE(RETORT_EINVAL, "data.path holds no test images to test on; give it a test part (docs/data.md)");
    if (request->labels)
        TRY(set_read_arrays(request->set, request->labels, &session, &set));
    else
        TRY(set_folder_read(place.path, &session, &set));
    /* By kernels that this device computes rightly: where some are refused, others are planned and tested. */
    for (int refused = 1; refused;)
        TRY(session_test_kernels(&session, scores_plan(&descriptor, &session, &set, NULL, &plans), true, &refused));
    TRY(scores_compute(&descriptor, &session, &set, NULL, NULL, NULL, request->interrupt, &scores));
    TRY(take_outcome(&descriptor, &session, &set, &scores, evaluation));
done:
    scores_finish(&scores);
    distilled_set_finish(&set);
    session_close(&session);
    descriptor_finish(&descriptor);
    return status;
}

int retort_evaluate(const char *set, const struct retort_evaluate_options *options,
                    struct retort_evaluation **evaluation) {
    int status = RETORT_OK;
    const struct retort_evaluate_options none = {0};
    locale_t before = locale_enter_c();
    struct arena arena;
    arena_init(&arena);
    if (!options) options = &none;
    TRY(public_check_reserved("retort_evaluate_options", options->reserved));
    struct evaluation_request request = {.set = set,
                                         .labels = options->labels,
                                         .with = options->descriptor,
                                         .text = options->text,
                                         .folder = options->folder,
                                         .interrupt = options->interrupt};
    request.overrides = public_overrides(options->settings, &arena, &request.override_count);
    if (arena.failed) RAISE(RETORT_ENOMEM, "out of memory");
    TRY(evaluation_compute(&request, evaluation));
done:
    arena_finish(&arena);
    uselocale(before);
    return status;
}
