#include "run/forecast.h"

#include "base/error.h"
#include "base/log.h"
#include "run/prepare.h"
#include "unroll/unroll.h"

#include <stdio.h>
#include <stdlib.h>

void forecast_finish(struct forecast *forecast) {
    if (!forecast) return;
    array_finish(&forecast->memory);
    *forecast = (struct forecast){0};
}

double forecast_distil(const struct forecast *forecast) {
    return forecast->step * forecast->outer_steps;
}

/* --- making one --- */
static int take_memory(const struct distill *distill, struct forecast *forecast) {
    const struct unroll *unroll = distill_unroll(distill);
    const struct memory *set;
    struct memory_use use;
    for (int i = 0; (set = distill_set_memory(distill, i)); i++) {
        struct forecast_memory row = {.bytes = memory_bytes(set)};
        snprintf(row.what, sizeof row.what, "%s", set->what);
        if (!array_push(&forecast->memory, row)) return error_set(RETORT_ENOMEM, "out of memory");
        forecast->distil_bytes += row.bytes;
    }
    if (!unroll) return RETORT_OK;
    for (int i = 0; unroll_memory_use(unroll, i, &use); i++) {
        struct forecast_memory row = {.bytes = use.bytes};
        if (!use.bytes) continue;
        snprintf(row.what, sizeof row.what, "%s%s%s", use.of ? use.of : "", use.of ? ": " : "", use.what);
        if (!array_push(&forecast->memory, row)) return error_set(RETORT_ENOMEM, "out of memory");
    }
    forecast->distil_bytes += unroll_bytes(unroll);
    unroll_describe(unroll, forecast->parts, sizeof forecast->parts);
    return RETORT_OK;
}

int forecast_make(const struct descriptor *descriptor, const struct session *session, struct distill *distill,
                  const struct evaluate_plans *evaluation, double enough, struct forecast *forecast) {
    int status = RETORT_OK;
    const struct device *device = session->device;
    uint64_t ceiling = device_ceiling(device), memory = device_traits(device)->global_memory;
    struct forecast fresh = {.outer_steps = descriptor->outer.steps,
                             .evaluate = evaluation->seconds,
                             .evaluate_bytes = evaluation->bytes,
                             .has_ceiling = ceiling && ceiling < memory};
    fresh.limit_bytes = fresh.has_ceiling ? ceiling : memory;
    TRY(take_memory(distill, &fresh));
    TRY(distill_forecast(distill, enough, &fresh.step));
    /* Testing kernels has begun the peak anew. */
    fresh.peak_bytes = device_peak_bytes(device);
    if (fresh.evaluate_bytes > fresh.peak_bytes) fresh.peak_bytes = fresh.evaluate_bytes;
    fresh.build = fresh.build_now = device_build_seconds(device);
    *forecast = fresh;
    return RETORT_OK;
done:
    forecast_finish(&fresh);
    return status;
}

/* Compiles and builds everything, with an empty library of kernels. */
static int prepare(const struct descriptor *descriptor, struct session *session, struct run_plan *plan,
                   const volatile int *interrupt, struct distill **distill) {
    int status = RETORT_OK;
    TRY(session_choose_kernels(session, NULL, NULL));
    TRY(prepare_run(descriptor, session, plan, interrupt, distill));
done:
    return status;
}

int forecast_descriptor(const struct descriptor *descriptor, const volatile int *interrupt, struct forecast *forecast) {
    static const double long_build = 1; /* seconds; a driver that finds kernels in its cache takes less */
    int status = RETORT_OK;
    struct session session = {0};
    struct distill *distill = NULL;
    struct run_plan plan = {0};
    struct forecast fresh = {0};
    TRY(session_open(descriptor, 0, false, &session));
    TRY(prepare(descriptor, &session, &plan, interrupt, &distill));
    TRY(forecast_make(descriptor, &session, distill, &plan.evaluate, FORECAST_CAREFUL, &fresh));
    if (fresh.build_now > long_build) {
        distill_destroy(distill);
        distill = NULL;
        plan = (struct run_plan){0};
        TRY(prepare(descriptor, &session, &plan, interrupt, &distill));
        fresh.build = device_build_seconds(session.device) - fresh.build_now;
    }
    *forecast = fresh;
    fresh = (struct forecast){0};
done:
    forecast_finish(&fresh);
    distill_destroy(distill);
    session_close(&session);
    return status;
}

/* --- telling --- */
json_t *forecast_json(const struct forecast *forecast) {
    json_t *memory = json_array();
    for (size_t i = 0; i < forecast->memory.count; i++)
        json_array_append_new(memory, json_pack("{s:s, s:I}", "what", forecast->memory.items[i].what, "bytes",
                                                (json_int_t)forecast->memory.items[i].bytes));
    return json_pack("{s:{s:f, s:f, s:f, s:f}, s:I, s:I, s:I, s:I, s:s, s:o}", "seconds", "outer_step", forecast->step,
                     "distil", forecast_distil(forecast), "evaluate", forecast->evaluate, "build_kernels",
                     forecast->build, "peak_device_bytes", (json_int_t)forecast->peak_bytes, "distil_bytes",
                     (json_int_t)forecast->distil_bytes, "evaluate_bytes", (json_int_t)forecast->evaluate_bytes,
                     "limit_bytes", (json_int_t)forecast->limit_bytes, "parts", forecast->parts, "memory", memory);
}

void forecast_tell(const struct forecast *forecast) {
    char all[32], steps[32], evaluation[32];
    seconds_words(forecast_distil(forecast) + forecast->evaluate, all, sizeof all);
    seconds_words(forecast_distil(forecast), steps, sizeof steps);
    seconds_words(forecast->evaluate, evaluation, sizeof evaluation);
    log_info("plan: at most %.1f MB of %s %.0f MB; distilling: %s", (double)forecast->peak_bytes * 1e-6,
             forecast->has_ceiling ? "memory's" : "the device's", (double)forecast->limit_bytes * 1e-6,
             forecast->parts);
    log_info("plan: about %s: %d outer steps of %.3g s, %s; evaluation %s. Kernels: built in %.1f s", all,
             forecast->outer_steps, forecast->step, steps, forecast->evaluate > 0 ? evaluation : "none",
             forecast->build_now);
}
