/* `retort experts`: trains the networks on real data whose trajectories a method matches. */
#include "distill/experts.h"

#include "base/error.h"
#include "base/log.h"
#include "command/interrupt.h"
#include "command/options.h"
#include "distill/method.h"
#include "run/expert_store.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char help[] =
    "usage: retort experts DESCRIPTOR [OPTIONS]\n\n"
    "Trains networks on the real data of a descriptor, whose method is trajectory, and keeps their weights after each\n"
    "epoch, which runs of that descriptor then match: plain SGD, rate 0.01, batches of 256, augmented as the "
    "descriptor\n"
    "says. Size and time are told first. Started again it goes on where it was, network by network, to the same "
    "bytes.\n"
    "\n"
    "  retort experts configs/cifar10-ipc10-mtt.yaml\n"
    "  retort experts small.yaml --networks 10 --epochs 10\n\n"
    "  --out DIR        the folder, instead of method.experts\n"
    "  --networks N     how many networks (100)\n"
    "  --epochs E       epochs of each (50)\n"
    "  --set KEY=VALUE  overrides a key of the descriptor, paths from its folder; may be repeated\n"
    "  --seed N         the same as --set seed=N\n"
    "  --device SPEC    index or words of `retort devices`\n"
    "  --dry-run        tells size and time, trains nothing, writes nothing\n"
    "  --quiet, -q      only warnings and errors\n"
    "  --json           prints what is in the folder as JSON\n\n"
    "Ctrl-C, or SIGTERM, drops the network at hand. Networks are of one number and length for good: others go to a\n"
    "folder of their own.\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage or descriptor, 130 interrupted.\n";

struct work {
    const char *folder;
    int networks;
    bool dry_run, json;
    struct descriptor descriptor;
    struct session session;
    struct expert_spec spec;
};

struct told {
    struct progress progress;
    int64_t epochs_before;
};

static void tell_epoch(void *user, int epoch) {
    struct told *told = user;
    progress_update(&told->progress, told->epochs_before + epoch, NULL);
}

/* The settings of the training, and the folder, from the descriptor's method. */
static int settle(struct work *work) {
    int status = RETORT_OK;
    const struct method *method = descriptor_method(&work->descriptor);
    struct expert_wish wish = {0};
    if (method->experts) method->experts(work->descriptor.method_spec, &wish);
    if (!wish.folder)
        RAISE(RETORT_EINVAL, "method %s reads no experts; a descriptor with method: {name: trajectory} does",
              method->name);
    if (work->spec.epochs < wish.epochs)
        RAISE(RETORT_EINVAL, "%d epochs, but method.max_start - 1 + epochs reaches %d; take --epochs %d",
              work->spec.epochs, wish.epochs, wish.epochs);
    if (!work->folder) work->folder = wish.folder;
    work->spec.lr = 0.01;
    work->spec.batch = 256;
    work->spec.augment = wish.augment;
    work->spec.flip = wish.flip;
    work->spec.seed = work->descriptor.seed;
done:
    return status;
}

/* Networks done .. networks - 1. */
static int train(struct work *work, struct experts *experts, int done) {
    int status = RETORT_OK;
    const int64_t p = work->session.network.theta_count;
    const int epochs = work->spec.epochs;
    struct told told = {0};
    float *thetas = malloc((size_t)(epochs + 1) * (size_t)p * sizeof *thetas);
    progress_begin(&told.progress, "experts", (int64_t)done * epochs, (int64_t)work->networks * epochs);
    if (!thetas) RAISE(RETORT_ENOMEM, "out of memory for the %d epochs of a network", epochs);
    for (int i = done; i < work->networks; i++) {
        told.epochs_before = (int64_t)i * epochs;
        status = experts_train(experts, i, thetas, tell_epoch, &told);
        if (status == RETORT_EINTERRUPTED)
            error_set(status, "interrupted; %d of %d networks are kept; the same command goes on", i, work->networks);
        TRY(status);
        TRY(expert_store_write(work->folder, i, p, epochs, thetas));
    }
done:
    progress_end(&told.progress);
    free(thetas);
    return status;
}

static int tell_cost(const struct work *work, struct experts *experts, int done) {
    int status = RETORT_OK;
    const int64_t p = work->session.network.theta_count;
    double seconds;
    char words[32];
    TRY(experts_forecast(experts, &seconds));
    seconds_words(seconds * (work->networks - done), words, sizeof words);
    log_info("experts: %d networks of %" PRId64 " weights, %d epochs: %.1f MB in %s", work->networks, p,
             work->spec.epochs, (double)expert_store_bytes(p, work->networks, work->spec.epochs) * 1e-6, work->folder);
    log_info("experts: %d are there; the others take about %s", done, words);
done:
    return status;
}

/* `ready` of the networks are there now. */
static int print_json(const struct work *work, int ready) {
    const int64_t p = work->session.network.theta_count;
    const int64_t bytes = (int64_t)expert_store_bytes(p, work->networks, work->spec.epochs);
    json_t *all =
        json_pack("{s:s, s:i, s:i, s:i, s:I, s:I}", "folder", work->folder, "networks", work->networks, "ready", ready,
                  "epochs", work->spec.epochs, "weights", (json_int_t)p, "bytes", (json_int_t)bytes);
    if (!all) return error_set(RETORT_ENOMEM, "out of memory for a few numbers");
    json_dumpf(all, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(all);
    return RETORT_OK;
}

static int make(struct work *work) {
    int status = RETORT_OK, done = 0, lock = -1;
    struct experts *experts = NULL;
    const volatile int *interrupt = interrupt_install();
    TRY(settle(work));
    TRY(session_open(&work->descriptor, 0, false, &work->session));
    TRY(session_choose_kernels(&work->session, "", NULL));
    if (!work->dry_run)
        TRY(expert_store_begin(work->folder, &work->descriptor, &work->session, &work->spec, work->networks, &done,
                               &lock));
    if (done == work->networks) {
        log_info("%s has all %d networks already", work->folder, done);
        if (work->json) TRY(print_json(work, done));
        goto done;
    }
    TRY(experts_create(work->session.library, &work->session.data.train, &work->session.network, &work->spec, interrupt,
                       &experts));
    TRY(tell_cost(work, experts, done));
    if (!work->dry_run) TRY(train(work, experts, done));
    if (work->json) TRY(print_json(work, work->dry_run ? done : work->networks));
done:
    experts_destroy(experts);
    if (lock >= 0) close(lock);
    session_close(&work->session);
    return status;
}

static int run_experts(const struct options *options, struct work *work) {
    int status = descriptor_read(options->operands[0], options->overrides, options->override_count, &work->descriptor);
    if (status == RETORT_EIO) status = RETORT_EINVAL;
    if (status == RETORT_OK) status = make(work);
    descriptor_finish(&work->descriptor);
    return status;
}

int command_experts(int argc, char **argv) {
    int exit_status = EXIT_USAGE;
    struct options options;
    struct work work = {.networks = 100, .spec = {.epochs = 50}};
    unsigned long allowed = OPTION_BIT(OPTION_OUT) | OPTION_BIT(OPTION_NETWORKS) | OPTION_BIT(OPTION_EPOCHS)
                            | OPTION_BIT(OPTION_SET) | OPTION_BIT(OPTION_SEED) | OPTION_BIT(OPTION_DEVICE)
                            | OPTION_BIT(OPTION_DRY_RUN) | OPTION_BIT(OPTION_QUIET) | OPTION_BIT(OPTION_JSON);
    if (!options_parse("experts", help, allowed, argc, argv, &options, &exit_status)) goto leave;
    work.folder = options.value[OPTION_OUT];
    work.dry_run = options.given[OPTION_DRY_RUN];
    work.json = options.given[OPTION_JSON];
    exit_status = EXIT_USAGE;
    if (options_descriptor("experts", &options)
        && options_int("experts", &options, OPTION_NETWORKS, 1, EXPERT_MOST_NETWORKS, &work.networks)
        && options_int("experts", &options, OPTION_EPOCHS, 1, EXPERT_MOST_EPOCHS, &work.spec.epochs))
        exit_status = report_failure("experts", run_experts(&options, &work));
leave:
    options_finish(&options);
    return exit_status;
}
