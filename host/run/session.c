#include "run/session.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "distill/method.h"
#include "run/expert_store.h"
#include "team/team.h"
#include "unroll/self_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Debian's package puts Fashion-MNIST here; whoever follows the quick start without it should hear its name. */
#define FASHION_MNIST "/usr/share/datasets/fashion-mnist"

/* What was read, file by file, and what was made of it. */
static void tell_data(const struct data_set_pair *data) {
    const struct dataset *train = &data->train;
    for (const char *line = text_get(&data->story); *line;) {
        size_t length = strcspn(line, "\n");
        log_info("data: %.*s", (int)length, line);
        line += length + (line[length] == '\n');
    }
    log_info("data: %lld training and %lld test images of %d classes, %d x %d x %d", (long long)train->count,
             (long long)data->test.count, train->classes, train->channels, train->height, train->width);
}

int session_read_data(const struct descriptor *descriptor, struct data_set_pair *data) {
    int status = RETORT_OK;
    const char *path = descriptor->data.path;
    if (strncmp(path, FASHION_MNIST, strlen(FASHION_MNIST)) == 0 && !file_exists(path))
        RAISE(RETORT_EIO, "data.path: %s is not there; install it: apt-get install dataset-fashion-mnist", path);
    status = data_load(&descriptor->data, descriptor->seed, data);
    if (status < 0) error_context("data.path");
done:
    return status;
}

/* Tests what the compiler writes, on GPUs: their drivers are many, and merged kernels are the hardest for them. Where
 * those are wrong, every kernel gets a launch of its own. (A library's products have a test of their own.) */
static int test_compiled(struct session *session) {
    int status = RETORT_OK;
    struct kernel_target own = session->target, *target = &own;
    const char *device = target->traits->name;
    double begun = clock_seconds(), error;
    if (target->traits->kind == DEVICE_CPU) return RETORT_OK;
    own.gemm = "own";
    for (;;) {
        error = 0;
        status = unroll_self_test(session->device, target, &session->network, &error);
        if (status < 0 && status != RETORT_EDEVICE) goto done;
        if (status == RETORT_OK && error <= UNROLL_SELF_TEST_ERROR) break;
        if (target->single) {
            if (status == RETORT_OK)
                error_set(
                    RETORT_EDEVICE,
                    "a small training step is off by %.1e of its largest value on %s: its driver does not compute "
                    "what it is told. Another version of it may, or another device (retort devices lists them)",
                    error, device);
            status = RETORT_EDEVICE;
            goto done;
        }
        char what[64] = "they do not run";
        if (status == RETORT_OK) snprintf(what, sizeof what, "a small step is off by %.1e of its largest value", error);
        log_warning("%s computes kernels wrongly that are merged into one launch (%s): each gets a launch of its own, "
                    "which takes longer. Another version of the driver may do better.",
                    device, what);
        error_clear();
        target->single = true;
    }
    session->target.single = target->single;
    device_reset_peak(session->device);
    log_debug("the compiler's kernels: tested in %.2f s", clock_seconds() - begun);
done:
    return status;
}

static int describe_networks(const struct descriptor *descriptor, struct session *session) {
    int status = RETORT_OK;
    const struct dataset *train = &session->data.train;
    TRY(network_describe(&descriptor->network, train->channels, train->height, train->width, train->classes,
                         &session->network));
    status = network_describe(&descriptor->evaluate_network, train->channels, train->height, train->width,
                              train->classes, &session->evaluate_network);
    if (status < 0) error_context("evaluate.network");
    TRY(status);
done:
    return status;
}

static int take_data(const struct descriptor *descriptor, const struct session *beside, struct session *session) {
    int status = RETORT_OK;
    if (beside) {
        session->data = beside->data;
        session->borrowed = true;
        goto done;
    }
    TRY(session_read_data(descriptor, &session->data));
    tell_data(&session->data);
done:
    return status;
}

int session_open_device(const struct descriptor *descriptor, int index, const struct session *beside, unsigned units,
                        bool single, struct session *session) {
    int status = RETORT_OK;
    struct session fresh = {0};
    char spec[DEVICE_SPEC];
    descriptor_device(descriptor, index, spec);
    TRY(device_open(spec, &fresh.device));
    device_set_units(fresh.device, units);
    const struct device_traits *traits = device_traits(fresh.device);
    device_set_ceiling(fresh.device, descriptor->memory);
    log_info("device: %s (%s)", traits->name, traits->platform);
    fresh.target = descriptor_target(descriptor, traits);
    fresh.target.single |= single;
    TRY(take_data(descriptor, beside, &fresh));
    TRY(describe_networks(descriptor, &fresh));
    TRY(test_compiled(&fresh));
    *session = fresh;
    return RETORT_OK;
done:
    session_close(&fresh);
    return status;
}

int session_open(const struct descriptor *descriptor, unsigned units, bool single, struct session *session) {
    int devices = descriptor_devices(descriptor);
    if (devices > 1) log_info("device: the first of %d, alone; only runs are divided", devices);
    return session_open_device(descriptor, 0, NULL, units, single, session);
}

int session_take_experts(const struct descriptor *descriptor, struct session *session) {
    int status = RETORT_OK;
    const struct method *method = descriptor_method(descriptor);
    struct expert_wish wish = {0};
    if (method->experts) method->experts(descriptor->method_spec, &wish);
    if (!wish.folder) goto done;
    if (!folder_exists(wish.folder))
        RAISE(RETORT_EINVAL,
              "method.experts: there is no folder %s; train the experts first: retort experts DESCRIPTOR", wish.folder);
    session->experts = calloc(1, sizeof *session->experts);
    if (!session->experts) RAISE(RETORT_ENOMEM, "out of memory");
    TRY(expert_store_open(wish.folder, descriptor, session, wish.epochs, session->experts));
done:
    return status;
}

void session_divide(struct session *session, struct team *team, enum divide what, const int *shares) {
    memcpy(session->shares, shares, (size_t)team_size(team) * sizeof *shares);
    session->division = (struct division){.team = team, .what = what, .shares = session->shares};
}

static void drop_kernels(struct session *session) {
    library_destroy(session->library);
    wisdom_destroy(session->wisdom);
    session->library = NULL;
    session->wisdom = NULL;
}

int session_choose_kernels(struct session *session, const char *wisdom, const char *gemm) {
    int status = RETORT_OK;
    struct kernel_target target = session->target;
    char users[FILE_PATH_MAX];
    wisdom_path(users);
    drop_kernels(session);
    /* The environment overrules both. */
    if (gemm && *gemm && !kernels_target(target.traits, target.family).gemm) target.gemm = gemm;
    TRY(wisdom_load(wisdom ? wisdom : users, &target, &session->wisdom));
    wisdom_name(session->wisdom, session->wisdom_name);
    if (strcmp(session->wisdom_name, "none") != 0) log_info("kernels: by wisdom %s", session->wisdom_name);
    target.wisdom = session->wisdom;
    TRY(library_create_for(session->device, &target, &session->library));
    const char *products = library_gemm(session->library);
    if (strcmp(products, "own") != 0)
        log_info("matrix products: %s%s", device_gemm_library(),
                 strcmp(products, "auto") == 0 ? " where it was measured to be faster" : "");
done:
    return status;
}

int session_test_kernels(struct session *session, int planned, bool alone, int *refused) {
    int status = planned;
    char *failure = NULL;
    if (planned < 0 && planned != RETORT_EDEVICE) goto done;
    if (planned < 0 && !(failure = strdup(retort_error_message()))) RAISE(RETORT_ENOMEM, "out of memory");
    error_clear();
    TRY(library_self_test(session->library, alone || planned < 0, refused));
    wisdom_name(session->wisdom, session->wisdom_name);
    device_reset_peak(session->device); /* what counts is what the work itself takes */
    if (failure && !*refused) status = error_set(planned, "%s", failure);
done:
    free(failure);
    return status;
}

void session_close(struct session *session) {
    if (!session) return;
    if (!session->borrowed) data_finish(&session->data);
    drop_kernels(session);
    free(session->experts);
    device_close(session->device);
    *session = (struct session){0};
}
