#include "run/descriptor.h"

#include "base/error.h"
#include "base/file.h"
#include "unroll/unroll.h"

#include <float.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the words, in the order of the enums --- */
static const char *const data_kinds[] = {"idx", "cifar10", "cifar100", "folder", "npy", NULL};
static const char *const normalisations[] = {"none", "mean_sd", "zca", "zca_pixel", NULL};
static const char *const network_kinds[] = {"convnet", "mlp", NULL};
static const char *const norms[] = {"none", "instance", "group", "batch", "layer", NULL};
static const char *const activations[] = {"relu", "leaky_relu", "sigmoid", "gelu", "swish", NULL};
static const char *const pools[] = {"average", "max", "none", NULL};
static const char *const optimizers[] = {"sgd", "adam", NULL};
static const char *const inits[] = {"noise", "real", NULL};
static const char *const labels[] = {"hard", "soft", NULL};
static const char *const methods[] = {"bptt", NULL};
static const char *const truncations[] = {"fixed", "forward", "random", "dynamic", NULL};
static const char *const readings[] = {"literal", "released", "standardised", NULL};
static const char *const hessians[] = {"exact", "lanczos", NULL};
static const char *const protocols[] = {"bptt", "dc", NULL};
static const char *const families[] = {"auto", "cpu", "gpu", NULL};

/* What the table fills; `method` has one word so far, so it is not kept. */
struct values {
    struct descriptor descriptor;
    int method_name;
};

#define AT(member) offsetof(struct values, descriptor.member)
#define WHOLE      1e9
#define UNBOUNDED  1e300
#define NETWORK(at, section, kind_d, depth_d, width_d, norm_d, groups_d, activation_d, pool_d, other)         \
    {section "kind",                                                                                          \
     KEY_CHOICE,                                                                                              \
     AT(at.kind),                                                                                             \
     .words = network_kinds,                                                                                  \
     .standard = kind_d,                                                                                      \
     .inherit = other "kind",                                                                                 \
     .help = "Convolution blocks and a linear head, or fully connected layers."},                             \
        {section "depth",                                                                                     \
         KEY_INT,                                                                                             \
         AT(at.depth),                                                                                        \
         .least = 0,                                                                                          \
         .most = NETWORK_MAX_DEPTH,                                                                           \
         .standard = depth_d,                                                                                 \
         .inherit = other "depth",                                                                            \
         .help = "Blocks, or hidden layers."},                                                                \
        {section "width",                                                                                     \
         KEY_INT,                                                                                             \
         AT(at.width),                                                                                        \
         .least = 1,                                                                                          \
         .most = 65536,                                                                                       \
         .standard = width_d,                                                                                 \
         .inherit = other "width",                                                                            \
         .help = "Channels, or units, of each."},                                                             \
        {section "norm",                                                                                      \
         KEY_CHOICE,                                                                                          \
         AT(at.norm),                                                                                         \
         .words = norms,                                                                                      \
         .standard = norm_d,                                                                                  \
         .inherit = other "norm",                                                                             \
         .help = "Normalisation of a convolution block."},                                                    \
        {section "groups",                                                                                    \
         KEY_INT,                                                                                             \
         AT(at.groups),                                                                                       \
         .least = 1,                                                                                          \
         .most = 65536,                                                                                       \
         .standard = groups_d,                                                                                \
         .inherit = other "groups",                                                                           \
         .help = "Groups of group norm; they must divide the width."},                                        \
        {section "activation",                                                                                \
         KEY_CHOICE,                                                                                          \
         AT(at.activation),                                                                                   \
         .words = activations,                                                                                \
         .standard = activation_d,                                                                            \
         .inherit = other "activation",                                                                       \
         .help = "Smooth ones make the meta-gradient smooth too."},                                           \
    {                                                                                                         \
        section "pool", KEY_CHOICE, AT(at.pool), .words = pools, .standard = pool_d, .inherit = other "pool", \
                                                 .help = "2 x 2 pooling at the end of a convolution block."   \
    }

static const struct schema_key keys[] = {
    {"data.kind", KEY_CHOICE, AT(data.kind), .words = data_kinds,
     .help = "Format of the images: idx (MNIST's), CIFAR's binary records, a folder per class, NumPy arrays."},
    {"data.path", KEY_PATH, AT(data.path), .help = "The folder or file, relative to this descriptor."},
    {"data.labels", KEY_PATH, AT(data.labels_path), .standard = "null",
     .help = "npy: the labels' file; null for members `images` and `labels` of one .npz."},
    {"data.classes", KEY_LIST, AT(data.classes), AT(data.class_count), .least = 0, .most = 1e6, .zero = "all",
     .standard = "all", .help = "The classes to keep, by number in the source, in this order."},
    {"data.normalise", KEY_CHOICE, AT(data.normalise), .words = normalisations, .standard = "mean_sd",
     .help = "From pixels to the space the networks train in: mean_sd per channel; zca as KIP, FRePo and the BPTT "
             "family whiten; zca_pixel as MTT does."},
    {"data.holdout", KEY_REAL, AT(data.holdout), .least = 0, .most = 1, .open = OPEN_MOST, .standard = "0",
     .help = "Fraction of train kept aside, on which the evaluation chooses instead of on the test set."},
    {"data.size", KEY_SIZE, AT(data.height), .least = 1, .most = 4096, .zero = "as_is", .standard = "as_is",
     .help = "folder: resize the shorter side and crop the centre to this."},
    {"data.grey", KEY_BOOL, AT(data.grey), .standard = "false", .help = "folder: one channel instead of three."},
    {"data.train_limit", KEY_LONG, AT(data.train_limit), .least = 1, .most = WHOLE, .zero = "all", .standard = "all",
     .help = "Read at most so many training images."},
    {"data.test_limit", KEY_LONG, AT(data.test_limit), .least = 1, .most = WHOLE, .zero = "all", .standard = "all",
     .help = "Read at most so many test images."},

    NETWORK(network, "network.", "convnet", "3", "128", "instance", "1", "relu", "average", ""),

    {"inner.optimizer", KEY_CHOICE, AT(inner.optimizer.kind), .words = optimizers, .standard = "adam",
     .help = "Of the training run that is differentiated."},
    {"inner.lr", KEY_REAL, AT(inner.optimizer.lr), .least = 0, .most = UNBOUNDED, .open = OPEN_LEAST,
     .standard = "1e-3", .help = "Its learning rate."},
    {"inner.betas", KEY_REALS, AT(inner.optimizer.beta1), .items = 2, .least = 0, .most = 1, .open = OPEN_MOST,
     .standard = "[0.9, 0.999]", .help = "adam: decay of the first and second moment."},
    {"inner.eps", KEY_REAL, AT(inner.optimizer.eps), .least = FLT_MIN, .most = UNBOUNDED, .standard = "1e-8",
     .help = "adam: added to the root of the second moment."},
    {"inner.momentum", KEY_REAL, AT(inner.optimizer.momentum), .least = 0, .most = 1, .open = OPEN_MOST,
     .standard = "0", .help = "sgd: momentum."},
    {"inner.weight_decay", KEY_REAL, AT(inner.optimizer.weight_decay), .least = 0, .most = UNBOUNDED, .standard = "0",
     .help = "Coupled L2 decay: g + weight_decay theta."},
    {"inner.batch.per_class", KEY_INT, AT(inner.batch_per_class), .least = 1, .most = WHOLE, .zero = "all",
     .standard = "all", .help = "Synthetic images of a class in one inner step."},
    {"inner.batch.classes", KEY_INT, AT(inner.batch_classes), .least = 1, .most = WHOLE, .zero = "all",
     .standard = "all", .help = "Classes in one inner step."},
    {"inner.learn_lr", KEY_BOOL, AT(inner.learn_lr), .standard = "false",
     .help = "Learn the inner learning rate along with the images."},

    {"set.ipc", KEY_INT, AT(set.ipc), .least = 1, .most = 100000, .standard = "1",
     .help = "Synthetic images per class."},
    {"set.init", KEY_CHOICE, AT(set.init), .words = inits, .standard = "noise",
     .help = "Start from noise of unit norm per image, or from random real images."},
    {"set.labels", KEY_CHOICE, AT(set.labels), .words = labels, .standard = "hard",
     .help = "Fixed labels, or learned positive values started one-hot."},

    {"method.name", KEY_CHOICE, offsetof(struct values, method_name), .words = methods, .standard = "bptt",
     .help = "Truncated back-propagation through the inner training run."},
    {"method.steps", KEY_INT, AT(method.steps), .least = 1, .most = 1e6, .standard = "200",
     .help = "T: inner steps of a whole run."},
    {"method.window", KEY_INT, AT(method.window), .least = 1, .most = 1e6, .standard = "40",
     .help = "W: back-propagated steps."},
    {"method.truncation", KEY_CHOICE, AT(method.truncation), .words = truncations, .standard = "dynamic",
     .help = "Where the window lies: at the end, moving forward, at random (RaT-BPTT), or dynamic (AT-BPTT)."},
    {"method.patience", KEY_INT, AT(method.patience), .least = 1, .most = WHOLE, .standard = "60",
     .help = "forward: outer steps without a better loss before the window moves on."},
    {"method.reading", KEY_CHOICE, AT(method.reading), .words = readings, .standard = "standardised",
     .help = "dynamic: the paper's formulas to the letter, as its released code computes them, or standardised."},
    {"method.range", KEY_INT, AT(method.range), .least = 0, .most = 1e6, .standard = "10",
     .help = "dynamic, d: the window is between W - d and W + d."},
    {"method.temperature", KEY_REAL, AT(method.temperature), .least = 0, .most = UNBOUNDED, .open = OPEN_LEAST,
     .standard = "1", .help = "dynamic, tau: of the softmax over gradient norms."},
    {"method.probe_every", KEY_INT, AT(method.probe_every), .least = 1, .most = WHOLE, .standard = "1",
     .help = "dynamic: outer steps between probes of the gradient norms."},
    {"method.stage_period", KEY_INT, AT(method.stage_period), .least = 1, .most = WHOLE, .zero = "auto",
     .standard = "auto",
     .help = "dynamic: outer steps that make an epoch; auto: one pass over the data, at most outer.steps / 50."},
    {"method.stage.M", KEY_REAL, AT(method.stage_m), .least = -100, .most = 100, .standard = "1.5",
     .help = "An epoch counts towards the middle stage when accuracy gained less than M points (Eq. 8)."},
    {"method.stage.X", KEY_REAL, AT(method.stage_x), .least = 0, .most = 1, .standard = "0.05",
     .help = "The middle stage begins after X of all epochs counted."},
    {"method.stage.N", KEY_REAL, AT(method.stage_n), .least = -100, .most = 100, .standard = "1.0",
     .help = "An epoch counts towards the late stage when accuracy gained less than N points."},
    {"method.stage.Y", KEY_REAL, AT(method.stage_y), .least = 0, .most = 1, .standard = "0.04",
     .help = "The late stage begins after Y of all epochs counted."},
    {"method.stage.smoothing", KEY_REAL, AT(method.accuracy_smoothing), .least = 0, .most = 1, .open = OPEN_MOST,
     .standard = "0", .help = "Weight of the past in the running training accuracy that the stages watch."},
    {"method.weight_by_probability", KEY_BOOL, AT(method.weight_by_probability), .standard = "false",
     .help = "dynamic: weigh the steps of the window by their probability (Eq. 13)."},
    {"method.hessian", KEY_CHOICE, AT(method.hessian), .words = hessians, .standard = "exact",
     .help = "Exact Hessian-vector products, or a low-rank approximation by Lanczos."},
    {"method.rank", KEY_INT, AT(method.rank), .least = 1, .most = UNROLL_MAX_RANK, .standard = "16",
     .help = "lanczos: rank of the approximation."},
    {"method.refresh", KEY_INT, AT(method.refresh), .least = 1, .most = WHOLE, .standard = "20",
     .help = "lanczos: outer steps between refreshes."},

    {"outer.steps", KEY_INT, AT(outer.steps), .least = 1, .most = WHOLE,
     .help = "Updates of the synthetic set: some hundreds for a first look, tens of thousands in the papers."},
    {"outer.lr", KEY_REAL, AT(outer.lr), .least = 0, .most = UNBOUNDED, .open = OPEN_LEAST, .standard = "1e-3",
     .help = "Learning rate of Adam on the synthetic set."},
    {"outer.real_batch", KEY_INT, AT(outer.real_batch), .least = 1, .most = WHOLE, .standard = "1000",
     .help = "Real images in the meta-loss."},
    {"outer.clip", KEY_BOOL, AT(outer.clip), .standard = "true",
     .help = "Clip the image gradient to twice the running mean of its norm."},
    {"outer.augment.flip", KEY_BOOL, AT(outer.augment.flip), .standard = "true",
     .help = "Mirror synthetic and real images left-right at random."},
    {"outer.augment.rotate", KEY_BOOL, AT(outer.augment.rotate), .standard = "true",
     .help = "Rotate synthetic and real images at random."},
    {"outer.augment.degrees", KEY_REAL, AT(outer.augment.degrees), .least = 0, .most = 180, .standard = "15",
     .help = "The largest rotation, either way."},
    {"outer.augment.compose", KEY_BOOL, AT(outer.augment.compose), .standard = "false",
     .help = "Flip and rotate at once; otherwise each batch gets one of them."},

    {"evaluate.protocol", KEY_CHOICE, AT(evaluate.protocol), .words = protocols, .standard = "bptt",
     .help = "bptt: the inner optimiser, tested at several steps; dc: SGD with the schedule of DC, DSA, DM and MTT."},
    {"evaluate.networks", KEY_INT, AT(evaluate.networks), .least = 1, .most = 10000, .standard = "8",
     .help = "Fresh networks to train and test."},
    {"evaluate.steps", KEY_INTS, AT(evaluate.steps), AT(evaluate.step_count), .least = 1, .most = 1e8,
     .items = EVALUATE_MAX_CHECKPOINTS, .standard = "[300, 600, 1000, 3000]",
     .help = "bptt: training steps after which to test, rising."},
    {"evaluate.epochs", KEY_INT, AT(evaluate.dc_epochs), .least = 1, .most = 1e6, .zero = "auto", .standard = "auto",
     .help = "dc: E of its schedule; auto: 1000 with augmentation, 300 without."},
    {"evaluate.augment", KEY_BOOL, AT(evaluate.dc_augment), .standard = "true",
     .help = "dc: train with the DSA augmentation."},
    {"evaluate.flip", KEY_BOOL, AT(evaluate.dc_flip), .standard = "true",
     .help = "dc: flips are part of it; turn them off for digits."},
    {"evaluate.full_data", KEY_BOOL, AT(evaluate.full_data), .standard = "false",
     .help = "Also train on all of train, as a reference row."},
    NETWORK(evaluate_network, "evaluate.network.", NULL, NULL, NULL, NULL, NULL, NULL, NULL, "network."),

    {"seed", KEY_LONG, AT(seed), .least = 0, .most = 0x1p53, .standard = "0",
     .help = "Of every random choice: one seed, one device, one result."},
    {"memory", KEY_BYTES, AT(memory), .zero = "none", .standard = "none",
     .help = "Ceiling over all device memory of the run. Distillation uses the room below it to keep results of "
             "convolutions for the backward pass, which is faster; with none it computes them again, in little "
             "memory."},
    {"device.select", KEY_TEXT, AT(device.select), .standard = "\"\"",
     .help = "Index of `retort devices`, or words found in platform, name and type; empty: RETORT_DEVICE, else the "
             "first."},
    {"device.family", KEY_CHOICE, AT(device.family), .words = families, .standard = "auto",
     .help = "Kernels for this kind of device; auto: by its type."},
};
static const struct schema schema = {keys, sizeof keys / sizeof *keys};

/* --- checks that concern several keys --- */
/* Raises with the place of a key in front. */
#define REFUSE(path, ...)                                            \
    do {                                                             \
        char where_[512];                                            \
        schema_where(&schema, origins, path, where_, sizeof where_); \
        status = error_set(RETORT_EINVAL, __VA_ARGS__);              \
        error_context("%s", where_);                                 \
        goto done;                                                   \
    } while (0)

static int check_data(const struct data_spec *data, const struct schema_origins *origins) {
    int status = RETORT_OK;
    if (!data->path) REFUSE("data.path", "found nothing, expected a path");
    if (data->labels_path && data->kind != DATA_NPY)
        REFUSE("data.labels", "only data.kind npy has a file of labels, not %s; leave it out", data_kinds[data->kind]);
    if (data->height && data->kind != DATA_FOLDER)
        REFUSE("data.size", "only data.kind folder resizes images, not %s; leave it out", data_kinds[data->kind]);
    if (data->grey && data->kind != DATA_FOLDER)
        REFUSE("data.grey", "only data.kind folder makes images grey, not %s; leave it out", data_kinds[data->kind]);
    if (data->class_count == 1) REFUSE("data.classes", "one class leaves nothing to tell apart; keep two or more");
    for (int i = 0; i < data->class_count; i++)
        for (int j = 0; j < i; j++)
            if (data->classes[i] == data->classes[j])
                REFUSE("data.classes", "class %d is listed twice; keep one", data->classes[i]);
done:
    return status;
}

static int check_network(const struct network_spec *network, const char *section,
                         const struct schema_origins *origins) {
    int status = RETORT_OK;
    char path[64];
    if (network->kind == NETWORK_CONVNET && network->norm == NORM_GROUP && network->width % network->groups != 0) {
        snprintf(path, sizeof path, "%sgroups", section);
        REFUSE(path, "%d groups do not divide %swidth %d; take a divisor", network->groups, section, network->width);
    }
    if (network->kind == NETWORK_CONVNET && network->depth == 0) {
        snprintf(path, sizeof path, "%sdepth", section);
        REFUSE(path, "a convnet has at least one block; for a linear model take %skind mlp", section);
    }
done:
    return status;
}

static int check_method(const struct descriptor *d, const struct schema_origins *origins) {
    int status = RETORT_OK;
    const struct method_spec *method = &d->method;
    int reach = method->truncation == TRUNCATION_DYNAMIC ? method->range : 0;
    if (method->window > method->steps)
        REFUSE("method.window", "a window of %d does not fit into method.steps %d; make it at most that",
               method->window, method->steps);
    if (reach >= method->window)
        REFUSE("method.range", "windows reach down to method.window - range = %d - %d, below 1; make range smaller",
               method->window, reach);
    if (method->window + reach > method->steps)
        REFUSE("method.range",
               "windows reach up to method.window + range = %d + %d, past method.steps %d; make one of them smaller",
               method->window, reach, method->steps);
done:
    return status;
}

static int check(const struct descriptor *d, const struct schema_origins *origins) {
    int status = RETORT_OK;
    TRY(check_data(&d->data, origins));
    TRY(check_network(&d->network, "network.", origins));
    TRY(check_network(&d->evaluate_network, "evaluate.network.", origins));
    if (d->inner.optimizer.kind == OPTIMIZER_ADAM && d->inner.optimizer.momentum != 0)
        REFUSE("inner.momentum", "adam has betas instead of momentum; leave it out, or take inner.optimizer sgd");
    if (d->inner.batch_per_class > d->set.ipc)
        REFUSE("inner.batch.per_class", "%d images of a class do not exist with set.ipc %d; make it at most that",
               d->inner.batch_per_class, d->set.ipc);
    if (d->data.class_count && d->inner.batch_classes > d->data.class_count)
        REFUSE("inner.batch.classes", "%d classes do not exist, data.classes keeps %d; make it at most that",
               d->inner.batch_classes, d->data.class_count);
    TRY(check_method(d, origins));
    for (int i = 1; i < d->evaluate.step_count; i++)
        if (d->evaluate.steps[i] <= d->evaluate.steps[i - 1])
            REFUSE("evaluate.steps", "%d comes after %d; list rising numbers", d->evaluate.steps[i],
                   d->evaluate.steps[i - 1]);
done:
    return status;
}

/* --- reading and writing --- */
static void take_name(const char *path, char name[64]) {
    const char *slash = strrchr(path, '/');
    snprintf(name, 64, "%s", slash ? slash + 1 : path);
    char *dot = strrchr(name, '.');
    if (dot && dot != name) *dot = '\0';
    if (!*name) snprintf(name, 64, "run");
}

int descriptor_parse(const char *name, const char *folder, const char *text, size_t size,
                     const struct schema_override *overrides, size_t count, struct descriptor *descriptor) {
    int status = RETORT_OK;
    struct values values = {0};
    struct schema_origins origins;
    TRY(schema_read(&schema, name, folder, text, size, overrides, count, &values.descriptor.arena, &values, &origins));
    TRY(check(&values.descriptor, &origins));
    take_name(name, values.descriptor.name);
    *descriptor = values.descriptor;
    values.descriptor.arena = (struct arena){0};
done:
    arena_finish(&values.descriptor.arena);
    return status;
}

int descriptor_read(const char *path, const struct schema_override *overrides, size_t count,
                    struct descriptor *descriptor) {
    int status = RETORT_OK;
    unsigned char *text = NULL;
    size_t size;
    char folder[FILE_PATH_MAX], *real = NULL;
    TRY(file_read(path, 1 << 20, &text, &size));
    /* Absolute, so that the copy in the run folder means the same files. */
    real = realpath(path, NULL);
    if (!real || snprintf(folder, sizeof folder, "%s", real) >= (int)sizeof folder)
        RAISE(RETORT_EIO, "cannot find the folder of %s", path);
    char *slash = strrchr(folder, '/');
    slash[slash == folder] = '\0';
    TRY(descriptor_parse(path, folder, (const char *)text, size, overrides, count, descriptor));
done:
    free(real);
    free(text);
    return status;
}

void descriptor_finish(struct descriptor *descriptor) {
    if (!descriptor) return;
    arena_finish(&descriptor->arena);
    *descriptor = (struct descriptor){0};
}

void descriptor_write(const struct descriptor *descriptor, struct text *text) {
    struct values values = {.descriptor = *descriptor};
    schema_write(&schema, &values, text);
}

json_t *descriptor_json(const struct descriptor *descriptor) {
    struct values values = {.descriptor = *descriptor};
    return schema_json(&schema, &values);
}

const char *descriptor_difference(const struct descriptor *a, const struct descriptor *b, struct text *mine,
                                  struct text *theirs) {
    struct values x = {.descriptor = *a}, y = {.descriptor = *b};
    return schema_difference(&schema, &x, &y, mine, theirs);
}

void descriptor_reference(struct text *text) {
    text_append(
        text, "# Descriptor keys\n\n"
              "A descriptor is a YAML file. `retort run --set KEY=VALUE` overrides a key; dots stand for the levels.\n"
              "Relative paths start at the descriptor's folder. Printed by `retort run --help-keys`.\n\n");
    schema_reference(&schema, text);
}

const char *descriptor_truncation_name(enum truncation truncation) {
    return truncations[truncation];
}

const char *descriptor_protocol_name(enum protocol protocol) {
    return protocols[protocol];
}
