#include "unroll/private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int64_t pass_part_rows(const struct pass *pass) {
    return pass->part_rows;
}

const struct pass_spec *pass_spec_of(const struct pass *pass) {
    return &pass->spec;
}

void pass_init(struct unroll *u, struct pass *pass, const struct pass_spec *spec) {
    *pass = (struct pass){.unroll = u,
                          .spec = *spec,
                          .first = share_first(&u->share, spec->batch),
                          .rows = share_count(&u->share, spec->batch)};
}

void pass_finish(struct pass *pass) {
    executable_destroy(pass->executable);
    for (int i = 0; i < pass->spec.value_count; i++) memory_finish(&pass->memory[i]);
}

static int find_slots(struct pass *pass) {
    int status = RETORT_OK;
    for (int i = 0; i < pass->spec.value_count; i++) {
        const struct pass_value *value = &pass->spec.values[i];
        char out[96];
        snprintf(out, sizeof out, "out %s", value->name);
        pass->in[i] = executable_slot(pass->executable, value->name);
        pass->out[i] = value->source == PASS_SUM ? executable_slot(pass->executable, out) : -1;
        if (pass->in[i] < 0 || (value->source == PASS_SUM && pass->out[i] < 0))
            RAISE(RETORT_EINVAL, "the %s has no value \"%s\"", pass->spec.label, pass->in[i] < 0 ? value->name : out);
        size_t bytes = executable_slot_bytes(pass->executable, pass->in[i]);
        pass->row_bytes[i] = value->rows ? bytes / (size_t)pass->part_rows : bytes;
    }
done:
    return status;
}

int pass_compile(struct pass *pass, int64_t most_rows) {
    int status = RETORT_OK;
    const struct pass_spec *spec = &pass->spec;
    pass->parts = (int)((pass->rows + most_rows - 1) / most_rows);
    pass->part_rows = (pass->rows + pass->parts - 1) / pass->parts;
    pass->parts = (int)((pass->rows + pass->part_rows - 1) / pass->part_rows);
    struct graph *graph = spec->build(spec->context, pass->part_rows);
    if (!graph) {
        error_context("building the %s", spec->label);
        return RETORT_EINVAL;
    }
    TRY(executable_create(pass->unroll->library, graph, spec->label, &pass->executable));
    TRY(find_slots(pass));
done:
    graph_destroy(graph);
    return status;
}

void pass_size_memory(struct pass *pass, uint64_t max_allocation) {
    size_t padded = (size_t)pass->part_rows * (size_t)pass->parts;
    for (int i = 0; i < pass->spec.value_count; i++) {
        const struct pass_value *value = &pass->spec.values[i];
        size_t bytes = pass->row_bytes[i] * (value->rows ? padded : 1);
        bool own = value->source == PASS_UPLOAD || value->source == PASS_RESULT || value->source == PASS_SUM;
        memory_size(&pass->memory[i], value->name, own ? bytes : 0, value->source == PASS_SUM ? 2 : 1, max_allocation);
    }
}

int pass_upload(struct pass *pass, int value, const void *data) {
    int status = RETORT_OK;
    const struct pass_value *row = &pass->spec.values[value];
    struct device *device = pass->unroll->device;
    size_t count = row->rows ? (size_t)pass->rows : 1, bytes = count * pass->row_bytes[value];
    size_t first = row->rows ? (size_t)pass->first * pass->row_bytes[value] : 0;
    size_t rest = pass->memory[value].item_bytes - bytes;
    struct place place = memory_item(&pass->memory[value], 0);
    void *missing = NULL;
    if (row->source != PASS_UPLOAD) RAISE(RETORT_EINVAL, "the %s of a %s is not uploaded", row->name, pass->spec.label);
    TRY(device_write(device, place.buffer, 0, bytes, (const char *)data + first));
    if (rest && !row->missing) TRY(device_fill_zero(device, place.buffer, bytes, rest));
    if (rest && row->missing) {
        missing = malloc(rest);
        if (!missing) RAISE(RETORT_ENOMEM, "out of memory for a %s", pass->spec.label);
        for (size_t i = 0; i < rest / sizeof row->missing; i++) ((int32_t *)missing)[i] = row->missing;
        TRY(device_write(device, place.buffer, bytes, rest, missing));
    }
done:
    free(missing);
    return status;
}

int pass_upload_targets(struct pass *pass, int value, const int32_t *labels, int64_t counted, int64_t classes) {
    int status = RETORT_OK;
    float weight = (float)pass->part_rows / (float)counted;
    float *targets = calloc((size_t)(pass->spec.batch * classes), sizeof *targets);
    if (!targets) RAISE(RETORT_ENOMEM, "out of memory for the labels of a %s", pass->spec.label);
    for (int64_t i = 0; i < counted; i++) targets[i * classes + labels[i]] = weight;
    TRY(pass_upload(pass, value, targets));
done:
    free(targets);
    return status;
}

int pass_bind(struct pass *pass, int value, struct place place) {
    if (pass->spec.values[value].source != PASS_BOUND)
        return error_set(RETORT_EINVAL, "the %s of a %s is not the method's to bind", pass->spec.values[value].name,
                         pass->spec.label);
    pass->bound[value] = place;
    return RETORT_OK;
}

int pass_begin(struct pass *pass) {
    int status = RETORT_OK;
    for (int i = 0; i < pass->spec.value_count; i++)
        if (pass->spec.values[i].source == PASS_SUM) TRY(memory_zero(&pass->memory[i], pass->unroll->device));
done:
    return status;
}

/* Where a value lies as a whole. */
static struct place whole(const struct pass *pass, int value) {
    const struct unroll *u = pass->unroll;
    switch (pass->spec.values[value].source) {
    case PASS_THETA:
        return theta_at(u, u->current);
    case PASS_STATS:
        return stats_at(u, u->current);
    case PASS_SET_IMAGES:
        return place_of(u, BUFFER_SET_IMAGES);
    case PASS_SET_LABELS:
        return place_of(u, BUFFER_SET_LABELS);
    case PASS_BOUND:
        return pass->bound[value];
    default:
        return memory_now(&pass->memory[value]);
    }
}

/* Every member's share of all sums becomes the sum. */
static int add_members(struct pass *pass) {
    struct span sums[PASS_MAX_VALUES];
    int count = 0;
    for (int i = 0; i < pass->spec.value_count; i++)
        if (pass->spec.values[i].source == PASS_SUM)
            sums[count++] = (struct span){memory_now(&pass->memory[i]), (int64_t)(pass->memory[i].item_bytes / FLOAT)};
    return sum_over_team(pass->unroll, sums, count);
}

int pass_run(struct pass *pass) {
    int status = RETORT_OK;
    if (brings_nothing(pass->unroll)) TRY(pass_begin(pass));
    for (int part = 0; part < pass->parts; part++) {
        TRY(check_interrupt(pass->unroll));
        for (int i = 0; i < pass->spec.value_count; i++) {
            const struct pass_value *value = &pass->spec.values[i];
            size_t first = value->rows ? (size_t)part * (size_t)pass->part_rows * pass->row_bytes[i] : 0;
            struct place place = place_after(whole(pass, i), first);
            TRY(executable_bind_slot(pass->executable, pass->in[i], place.buffer, place.offset));
            if (value->source != PASS_SUM) continue;
            place = memory_other(&pass->memory[i]);
            TRY(executable_bind_slot(pass->executable, pass->out[i], place.buffer, place.offset));
        }
        TRY(executable_enqueue(pass->executable));
        for (int i = 0; i < pass->spec.value_count; i++)
            if (pass->spec.values[i].source == PASS_SUM) pass->memory[i].now = !pass->memory[i].now;
    }
    TRY(add_members(pass));
done:
    return status;
}

struct place pass_result(const struct pass *pass, int value) {
    return whole(pass, value);
}

int pass_read(struct pass *pass, int value, void *data) {
    const struct pass_value *row = &pass->spec.values[value];
    struct place place = whole(pass, value);
    size_t count = row->rows ? (size_t)pass->rows : 1;
    return device_read(pass->unroll->device, place.buffer, place.offset, count * pass->row_bytes[value], data);
}
