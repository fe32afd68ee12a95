#include "run/descriptor.h"

#include "base/error.h"
#include "base/file.h"
#include "distill/method.h"
#include "run/words.h"

#include <float.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- the words of the enums that only this table has --- */
static const char *const data_kinds[] = {[DATA_IDX] = "idx",
                                         [DATA_CIFAR10] = "cifar10",
                                         [DATA_CIFAR100] = "cifar100",
                                         [DATA_FOLDER] = "folder",
                                         [DATA_NPY] = "npy",
                                         [DATA_CSV] = "csv",
                                         NULL};
static const char *const inits[] = {
    [SET_NOISE] = "noise", [SET_REAL] = "real", [SET_INDICES] = "indices", [SET_MIX] = "mix", NULL};
static const char *const protocols[] = {[PROTOCOL_BPTT] = "bptt", [PROTOCOL_DC] = "dc", NULL};

static const char *const gemms[] = {[GEMM_AUTO] = "auto", [GEMM_CLBLAST] = "clblast", [GEMM_OWN] = "own", NULL};
static const char *const merges[] = {[MERGE_AUTO] = "auto", [MERGE_OFF] = "off", NULL};

#define METHOD_NAME "method.name"
#define AT(member)  offsetof(struct descriptor, member)
#define NETWORK(at, section, kind_d, depth_d, width_d, norm_d, groups_d, activation_d, pool_d, other)              \
    {section "kind",                                                                                               \
     KEY_CHOICE,                                                                                                   \
     AT(at.kind),                                                                                                  \
     .words = words_network_kind,                                                                                  \
     .standard = kind_d,                                                                                           \
     .inherit = other "kind",                                                                                      \
     .help = "Convolution blocks and a linear head, or fully connected layers."},                                  \
        {section "depth",                                                                                          \
         KEY_INT,                                                                                                  \
         AT(at.depth),                                                                                             \
         .least = 0,                                                                                               \
         .most = NETWORK_MAX_DEPTH,                                                                                \
         .standard = depth_d,                                                                                      \
         .inherit = other "depth",                                                                                 \
         .help = "Blocks, or hidden layers."},                                                                     \
        {section "width",                                                                                          \
         KEY_INT,                                                                                                  \
         AT(at.width),                                                                                             \
         .least = 1,                                                                                               \
         .most = 65536,                                                                                            \
         .standard = width_d,                                                                                      \
         .inherit = other "width",                                                                                 \
         .help = "Channels, or units, of each."},                                                                  \
        {section "norm",                                                                                           \
         KEY_CHOICE,                                                                                               \
         AT(at.norm),                                                                                              \
         .words = words_norm,                                                                                      \
         .standard = norm_d,                                                                                       \
         .inherit = other "norm",                                                                                  \
         .help = "Normalisation of a convolution block."},                                                         \
        {section "groups",                                                                                         \
         KEY_INT,                                                                                                  \
         AT(at.groups),                                                                                            \
         .least = 1,                                                                                               \
         .most = 65536,                                                                                            \
         .standard = groups_d,                                                                                     \
         .inherit = other "groups",                                                                                \
         .help = "Groups of group norm; they must divide the width."},                                             \
        {section "activation",                                                                                     \
         KEY_CHOICE,                                                                                               \
         AT(at.activation),                                                                                        \
         .words = words_activation,                                                                                \
         .standard = activation_d,                                                                                 \
         .inherit = other "activation",                                                                            \
         .help = "Smooth ones make the meta-gradient smooth too."},                                                \
    {                                                                                                              \
        section "pool", KEY_CHOICE, AT(at.pool), .words = words_pool, .standard = pool_d, .inherit = other "pool", \
                                                 .help = "2 x 2 pooling at the end of a convolution block."        \
    }

static const struct schema_key keys[] = {
    {"data.kind", KEY_CHOICE, AT(data.kind), .words = data_kinds,
     .help = "Format of the images: idx (MNIST's), CIFAR's binary records, a folder per class, NumPy arrays, a list of "
             "paths and labels."},
    {"data.path", KEY_PATH, AT(data.path), .help = "The folder or file, relative to this descriptor."},
    {"data.labels", KEY_PATH, AT(data.labels_path), .standard = "null",
     .help = "npy: the labels' file; null for members `images` and `labels` of one .npz."},
    {"data.classes", KEY_LIST, AT(data.classes), AT(data.class_count), .least = 0, .most = 1e6, .zero = "all",
     .standard = "all", .help = "The classes to keep, by number in the source, in this order."},
    {"data.class_names", KEY_NAMES, AT(data.class_names), AT(data.class_name_count), .zero = "as_found",
     .standard = "as_found",
     .help =
         "Names of the kept classes, in their order, for pictures and tables; as_found: those of folders and files, "
         "those a well-known set is known by, else numbers."},
    {"data.normalise", KEY_CHOICE, AT(data.normalise), .words = normalise_words, .standard = "mean_sd",
     .help = "From pixels to the space the networks train in: mean_sd per channel; zca as KIP, FRePo and the BPTT "
             "family whiten; zca_pixel as MTT does."},
    {"data.holdout", KEY_REAL, AT(data.holdout), .least = 0, .most = 1, .open = OPEN_MOST, .standard = "0",
     .help = "Fraction of train kept aside, on which the evaluation chooses instead of on the test set."},
    {"data.test", KEY_REAL, AT(data.test), .least = 0, .most = 1, .open = OPEN_MOST, .before = "0", .standard = "0.2",
     .help = "Fraction of each class of train kept for testing, where the data has no test part of its own: the same "
             "images whatever the seed. 0: none, and no evaluation."},
    {"data.size", KEY_SIZE, AT(data.height), .least = 1, .most = 4096, .zero = "as_is", .standard = "as_is",
     .help = "folder, csv: scale so that the picture just covers this, and cut out the centre."},
    {"data.grey", KEY_BOOL, AT(data.grey), .standard = "false", .help = "folder, csv: one channel instead of three."},
    {"data.skip_corrupt", KEY_BOOL, AT(data.skip_corrupt), .standard = "false",
     .help = "folder, csv: go without pictures that cannot be read, and list them in a warning, instead of ending."},
    {"data.train_limit", KEY_LONG, AT(data.train_limit), .least = 1, .most = KEY_WHOLE, .zero = "all",
     .standard = "all", .help = "Read at most so many training images."},
    {"data.test_limit", KEY_LONG, AT(data.test_limit), .least = 1, .most = KEY_WHOLE, .zero = "all", .standard = "all",
     .help = "Read at most so many test images."},

    NETWORK(network, "network.", "convnet", "3", "128", "instance", "1", "relu", "average", ""),

    {"inner.steps", KEY_INT, AT(inner.steps), .least = 1, .most = 1e6, .standard = "200", .was = "method.steps",
     .help = "T: steps of a whole inner training run."},
    {"inner.optimizer", KEY_CHOICE, AT(inner.optimizer.kind), .words = words_optimizer, .standard = "adam",
     .help = "Of the training run that is differentiated."},
    {"inner.lr", KEY_REAL, AT(inner.optimizer.lr), .least = 0, .most = KEY_UNBOUNDED, .open = OPEN_LEAST,
     .standard = "1e-3", .help = "Its learning rate."},
    {"inner.betas", KEY_REALS, AT(inner.optimizer.beta1), .items = 2, .least = 0, .most = 1, .open = OPEN_MOST,
     .standard = "[0.9, 0.999]", .help = "adam: decay of the first and second moment."},
    {"inner.eps", KEY_REAL, AT(inner.optimizer.eps), .least = FLT_MIN, .most = KEY_UNBOUNDED, .standard = "1e-8",
     .help = "adam: added to the root of the second moment."},
    {"inner.momentum", KEY_REAL, AT(inner.optimizer.momentum), .least = 0, .most = 1, .open = OPEN_MOST,
     .standard = "0", .help = "sgd: momentum."},
    {"inner.weight_decay", KEY_REAL, AT(inner.optimizer.weight_decay), .least = 0, .most = KEY_UNBOUNDED,
     .standard = "0", .help = "Coupled L2 decay: g + weight_decay theta."},
    {"inner.batch.per_class", KEY_INT, AT(inner.batch_per_class), .least = 1, .most = KEY_WHOLE, .zero = "all",
     .standard = "all", .help = "Synthetic images of a class in one inner step."},
    {"inner.batch.classes", KEY_INT, AT(inner.batch_classes), .least = 1, .most = KEY_WHOLE, .zero = "all",
     .standard = "all", .help = "Classes in one inner step."},
    {"inner.learn_lr", KEY_BOOL, AT(inner.learn_lr), .standard = "false",
     .help = "Learn the inner learning rate along with the images."},

    {"set.ipc", KEY_INT, AT(set.ipc_key), .least = 1, .most = 100000, .standard = "1",
     .help = "Synthetic images per class; tiles: stored ones, each of which becomes factor x factor."},
    {"set.parameters.kind", KEY_CHOICE, AT(set.parameters), .words = words_parameters, .standard = "pixels",
     .help =
         "What is stored and learned: the images; frequency: of their two-dimensional DCT those coefficients that vary "
         "most among the real images of the class (FreD); tiles: pixels in [0, 1] of images each of which is cut into "
         "several, that are enlarged (IDC)."},
    {"set.parameters.budget", KEY_INT, AT(set.budget), .least = 1, .most = 100000, .zero = "auto", .standard = "auto",
     .help = "frequency: floats stored of a class, counted in images: 1 with set.ipc 16 holds 16 images in the room of "
             "one, each as a sixteenth of its coefficients. auto: as many as set.ipc, for pixels."},
    {"set.parameters.factor", KEY_INT, AT(set.factor), .least = 1, .most = 64, .zero = "auto", .standard = "auto",
     .help = "tiles: along each side of a stored image: 2 makes four images of the set of it. auto: none, for pixels."},
    {"set.init", KEY_CHOICE, AT(set.init), .words = inits, .standard = "noise",
     .help = "Start from noise of unit norm per image (tiles: uniform), from random real images, or from those of a "
             "list; mix, for tiles: a random real image shrunk into each."},
    {"set.indices", KEY_PATH, AT(set.indices), .standard = "null",
     .help =
         "indices: the list, a text file of whole numbers or a .npy: rows of the training data as it is read (after "
         "data.classes, data.train_limit and data.holdout), from 0, set.ipc of each class in any order."},
    {"set.labels", KEY_CHOICE, AT(set.labels), .words = words_labels, .standard = "hard",
     .help = "Fixed labels, or learned positive values started one-hot."},

    {METHOD_NAME, KEY_CHOICE, AT(method), .standard = "bptt", .help = "How gradients for the set are found."},

    {"outer.steps", KEY_INT, AT(outer.steps), .least = 1, .most = KEY_WHOLE,
     .help = "Updates of the synthetic set: some hundreds for a first look, tens of thousands in the papers."},
    {"outer.optimizer", KEY_CHOICE, AT(outer.optimizer), .words = words_optimizer, .standard = "adam",
     .help = "Of the synthetic set; adam with betas 0.9 and 0.999."},
    {"outer.momentum", KEY_REAL, AT(outer.momentum), .least = 0, .most = 1, .open = OPEN_MOST, .standard = "0",
     .help = "sgd: momentum."},
    {"outer.lr", KEY_REAL, AT(outer.lr), .least = 0, .most = KEY_UNBOUNDED, .open = OPEN_LEAST, .standard = "1e-3",
     .help = "Its learning rate."},
    {"outer.lr_labels", KEY_REAL, AT(outer.lr_labels), .least = 0, .most = KEY_UNBOUNDED, .open = OPEN_LEAST,
     .inherit = "outer.lr", .help = "set.labels soft: that of the labels."},
    {"outer.lr_inner", KEY_REAL, AT(outer.lr_inner), .least = 0, .most = KEY_UNBOUNDED, .open = OPEN_LEAST,
     .inherit = "outer.lr", .help = "inner.learn_lr: that of the inner learning rate's logarithm."},
    {"outer.real_batch", KEY_INT, AT(outer.real_batch), .least = 1, .most = KEY_WHOLE, .standard = "1000",
     .help = "Real images in the meta-loss."},
    {"outer.meta_batch", KEY_INT, AT(outer.meta_batch), .least = 1, .most = 1e6, .standard = "1",
     .help =
         "Trajectories that an outer step averages over: networks, each with weights, batches and window of its own. "
         "More make the gradient less noisy and the step as many times as long; several devices divide them."},
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
    {"evaluate.at_once", KEY_INT, AT(evaluate.at_once), .least = 1, .most = UNROLL_MOST_NETWORKS, .zero = "auto",
     .standard = "auto",
     .help = "Networks trained at once, as one batch; auto: as many as the device has room for. Results stay the same, "
             "each network being computed as it is alone."},
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
    {"device.select", KEY_TEXT, AT(device.select), .items = DEVICES_MOST, .standard = "\"\"",
     .help = "Index of `retort devices`, or words found in platform, name and type; empty: RETORT_DEVICE, else the "
             "first. Several with commas between, or a list of them, divide one run among them."},
    {"device.divide", KEY_CHOICE, AT(device.divide), .words = words_divide, .standard = "auto",
     .help =
         "What several devices divide: the trajectories of an outer step, each computed by one of them, or the rows "
         "of every batch, whose sums they exchange in each inner step. auto: trajectories where outer.meta_batch has "
         "one for each device. The networks of the evaluation are divided in any case."},
    {"device.shares", KEY_LIST, AT(device.shares), AT(device.share_count), .least = 1, .most = 1e6, .zero = "measured",
     .standard = "measured",
     .help = "How much of it each of the devices gets, in the order of their naming: [2, 1] gives the first twice as "
             "much. measured: by their speed when the run begins. Either way the run's plan keeps it."},
    {"device.family", KEY_CHOICE, AT(device.family), .words = words_family, .standard = "auto",
     .help = "Kernels for this kind of device; auto: by its type."},
    {"device.gemm", KEY_CHOICE, AT(device.gemm), .words = gemms, .standard = "auto",
     .help =
         "Who computes matrix products. clblast: the library of that name, where the build has it and it passes a test "
         "on the device, else own kernels, with a warning; auto: that library for the products that `retort tune` "
         "found it to be faster for on this device, own kernels for others. A run that is resumed keeps what it began "
         "with."},
    {"device.dct", KEY_CHOICE, AT(device.dct), .words = words_dct, .before = "matrix", .standard = "auto",
     .help = "Who makes images of coefficients (set.parameters). matrix: matrix products; clfft: the library of that "
             "name, where the build has it, it transforms these sides, and what it computes on the device agrees with "
             "the products, else those, with a warning; auto: from 128 x 128 on which of the two is measured to be "
             "faster when the run begins, matrix products below. A run that is resumed keeps what it began with."},
    {"device.merge", KEY_CHOICE, AT(device.merge), .words = merges, .standard = "auto",
     .help = "Whether small launches that do not wait for each other become one, which takes less time. off: for a "
             "driver that such kernels are too much for. With auto a GPU is tested for that when a run begins, which "
             "goes on without where they are wrong, also when it is resumed."},
};
enum { KEYS = sizeof keys / sizeof *keys };

/* --- the table for one method --- */
/* Copies the rows of a method, which are `owner`'s. */
static size_t add_rows(const struct method *method, const char *owner, struct schema_key *rows, size_t count) {
    for (size_t i = 0; i < method->key_count; i++) {
        rows[count] = method->keys[i];
        rows[count++].owner = owner;
    }
    return count;
}

/* Everybody's keys, with the method's defaults and its own keys behind method.name; those of all methods where `method`
 * is NULL, as the reference prints them. The rest are others'. */
static int make_schema(const struct method *method, struct arena *arena, struct schema *schema) {
    size_t methods = 0, owned = 0, others = 0, count = 0;
    for (; method_at((int)methods); methods++) owned += method_at((int)methods)->key_count;
    struct schema_key *rows = arena_array(arena, KEYS + owned, sizeof *rows);
    struct schema_key *foreign = arena_array(arena, owned, sizeof *foreign);
    const char **names = arena_array(arena, methods + 1, sizeof *names);
    if (!rows || !foreign || !names) return error_set(RETORT_ENOMEM, "out of memory for the table of keys");
    for (size_t i = 0; i < methods; i++) names[i] = method_at((int)i)->name;
    for (size_t i = 0; i < KEYS; i++) {
        struct schema_key *row = &rows[count++];
        *row = keys[i];
        for (size_t k = 0; method && k < method->default_count; k++)
            if (strcmp(method->defaults[k].path, row->path) == 0) row->standard = method->defaults[k].standard;
        if (strcmp(row->path, METHOD_NAME) != 0) continue;
        row->words = names;
        for (size_t m = 0; m < methods; m++) {
            const struct method *other = method_at((int)m);
            if (!method || method == other)
                count = add_rows(other, other->name, rows, count);
            else
                others = add_rows(other, arena_printf(arena, "method %s", other->name), foreign, others);
        }
    }
    *schema = (struct schema){.keys = rows,
                              .count = count,
                              .block = offsetof(struct descriptor, method_spec),
                              .others = foreign,
                              .other_count = others,
                              .owner = method ? method->name : NULL};
    return arena->failed ? error_set(RETORT_ENOMEM, "out of memory for the table of keys") : RETORT_OK;
}

/* --- checks that concern several keys --- */
struct context {
    struct schema schema;
    struct schema_origins origins;
};

/* Raises with the place of a key in front. */
#define REFUSE(path, ...)                               \
    do {                                                \
        status = error_set(RETORT_EINVAL, __VA_ARGS__); \
        say_where(context, path);                       \
        goto done;                                      \
    } while (0)

static void say_where(const struct context *context, const char *path) {
    char where[512];
    schema_where(&context->schema, &context->origins, path, where, sizeof where);
    error_context("%s", where);
}

static int check_data(const struct data_spec *data, const struct context *context) {
    int status = RETORT_OK;
    if (!data->path) REFUSE("data.path", "found nothing, expected a path");
    if (data->labels_path && data->kind != DATA_NPY)
        REFUSE("data.labels", "only data.kind npy has a file of labels, not %s; leave it out", data_kinds[data->kind]);
    bool pictures = data->kind == DATA_FOLDER || data->kind == DATA_CSV;
    if (data->height && !pictures)
        REFUSE("data.size", "only data.kind folder and csv resize images, not %s; leave it out",
               data_kinds[data->kind]);
    if (data->grey && !pictures)
        REFUSE("data.grey", "only data.kind folder and csv make images grey, not %s; leave it out",
               data_kinds[data->kind]);
    if (data->skip_corrupt && !pictures)
        REFUSE("data.skip_corrupt", "only data.kind folder and csv have pictures to skip, not %s; leave it out",
               data_kinds[data->kind]);
    if (data->class_count == 1) REFUSE("data.classes", "one class leaves nothing to tell apart; keep two or more");
    for (int i = 0; i < data->class_count; i++)
        for (int j = 0; j < i; j++)
            if (data->classes[i] == data->classes[j])
                REFUSE("data.classes", "class %d is listed twice; keep one", data->classes[i]);
    if (data->class_count && data->class_names && data->class_name_count != data->class_count)
        REFUSE("data.class_names", "%d names of %d classes in data.classes; name each kept class",
               data->class_name_count, data->class_count);
    for (int i = 0; i < data->class_name_count; i++)
        for (int j = 0; j < i; j++)
            if (strcmp(data->class_names[i], data->class_names[j]) == 0)
                REFUSE("data.class_names", "the name '%s' is listed twice; give each class its own",
                       data->class_names[i]);
done:
    return status;
}

static int check_network(const struct network_spec *network, const char *section, const struct context *context) {
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

static int check_method(const struct descriptor *d, const struct context *context) {
    const struct normalisation normalisation = {.kind = d->data.normalise};
    const struct distill_problem settings = {.normalisation = &normalisation,
                                             .inner = d->inner,
                                             .set = d->set,
                                             .outer = d->outer,
                                             .method = descriptor_method(d),
                                             .method_spec = d->method_spec};
    const char *key = NULL;
    int status = distill_check(&settings, &key);
    if (status < 0) say_where(context, key);
    return status;
}

static int check(const struct descriptor *d, const struct context *context) {
    int status = RETORT_OK;
    TRY(check_data(&d->data, context));
    TRY(check_network(&d->network, "network.", context));
    TRY(check_network(&d->evaluate_network, "evaluate.network.", context));
    if (d->inner.optimizer.kind == OPTIMIZER_ADAM && d->inner.optimizer.momentum != 0)
        REFUSE("inner.momentum", "adam has betas instead of momentum; leave it out, or take inner.optimizer sgd");
    if (d->inner.batch_per_class > d->set.ipc)
        REFUSE("inner.batch.per_class", "%d images of a class do not exist, the set has %d; make it at most that",
               d->inner.batch_per_class, d->set.ipc);
    if (d->data.class_count && d->inner.batch_classes > d->data.class_count)
        REFUSE("inner.batch.classes", "%d classes do not exist, data.classes keeps %d; make it at most that",
               d->inner.batch_classes, d->data.class_count);
    if (d->set.init == SET_INDICES && !d->set.indices)
        REFUSE("set.indices", "found nothing, expected the file that lists the rows to start from");
    if (d->set.init != SET_INDICES && d->set.indices)
        REFUSE("set.indices", "only set.init indices takes a list, not %s; leave it out", inits[d->set.init]);
    TRY(check_method(d, context));
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

const struct method *descriptor_method(const struct descriptor *descriptor) {
    return method_at(descriptor->method);
}

static int parse(const char *name, const char *folder, const char *text, size_t size, bool copy,
                 const struct schema_override *overrides, size_t count, struct descriptor *descriptor) {
    int status = RETORT_OK;
    struct descriptor fresh = {0};
    struct context context = {0};
    /* The method decides which keys there are, wherever in the file its name stands. */
    TRY(make_schema(NULL, &fresh.arena, &context.schema));
    TRY(schema_read_choice(&context.schema, METHOD_NAME, name, text, size, overrides, count, &fresh.arena,
                           &fresh.method));
    const struct method *method = descriptor_method(&fresh);
    fresh.method_spec = arena_alloc(&fresh.arena, method->spec_size);
    if (!fresh.method_spec) RAISE(RETORT_ENOMEM, "out of memory reading %s", name);
    TRY(make_schema(method, &fresh.arena, &context.schema));
    context.schema.copy = copy;
    TRY(schema_read(&context.schema, name, folder, text, size, overrides, count, &fresh.arena, &fresh,
                    &context.origins));
    fresh.set.ipc = set_ipc_of(&fresh.set);
    TRY(check(&fresh, &context));
    take_name(name, fresh.name);
    *descriptor = fresh;
    fresh.arena = (struct arena){0};
done:
    arena_finish(&fresh.arena);
    return status;
}

int descriptor_parse(const char *name, const char *folder, const char *text, size_t size,
                     const struct schema_override *overrides, size_t count, struct descriptor *descriptor) {
    return parse(name, folder, text, size, false, overrides, count, descriptor);
}

int descriptor_parse_copy(const char *name, const char *folder, const char *text, size_t size,
                          const struct schema_override *overrides, size_t count, struct descriptor *descriptor) {
    return parse(name, folder, text, size, true, overrides, count, descriptor);
}

static int read_file(const char *path, bool copy, const struct schema_override *overrides, size_t count,
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
    TRY(parse(path, folder, (const char *)text, size, copy, overrides, count, descriptor));
done:
    free(real);
    free(text);
    return status;
}

int descriptor_read(const char *path, const struct schema_override *overrides, size_t count,
                    struct descriptor *descriptor) {
    return read_file(path, false, overrides, count, descriptor);
}

int descriptor_read_copy(const char *path, const struct schema_override *overrides, size_t count,
                         struct descriptor *descriptor) {
    return read_file(path, true, overrides, count, descriptor);
}

void descriptor_finish(struct descriptor *descriptor) {
    if (!descriptor) return;
    arena_finish(&descriptor->arena);
    *descriptor = (struct descriptor){0};
}

void descriptor_write(const struct descriptor *descriptor, struct text *text) {
    struct arena arena;
    struct schema schema;
    arena_init(&arena);
    if (make_schema(descriptor_method(descriptor), &arena, &schema) == RETORT_OK)
        schema_write(&schema, descriptor, text);
    else
        text->failed = true;
    arena_finish(&arena);
}

json_t *descriptor_json(const struct descriptor *descriptor) {
    struct arena arena;
    struct schema schema;
    json_t *json = NULL;
    arena_init(&arena);
    if (make_schema(descriptor_method(descriptor), &arena, &schema) == RETORT_OK)
        json = schema_json(&schema, descriptor);
    arena_finish(&arena);
    return json;
}

const char *descriptor_difference(const struct descriptor *a, const struct descriptor *b, struct text *mine,
                                  struct text *theirs) {
    struct arena arena;
    struct schema schema;
    const char *path = METHOD_NAME;
    if (a->method != b->method) {
        /* First, since the other keys follow from it. */
        text_append(mine, descriptor_method(a)->name);
        text_append(theirs, descriptor_method(b)->name);
        return path;
    }
    arena_init(&arena);
    if (make_schema(descriptor_method(a), &arena, &schema) == RETORT_OK)
        path = schema_difference(&schema, a, b, mine, theirs);
    else
        mine->failed = true;
    arena_finish(&arena);
    return path;
}

void descriptor_reference(struct text *text) {
    struct arena arena;
    struct schema schema;
    arena_init(&arena);
    text_append(
        text, "# Descriptor keys\n\n"
              "A descriptor is a YAML file. `retort run --set KEY=VALUE` overrides a key; dots stand for the levels.\n"
              "Relative paths start at the descriptor's folder. A key with a method's name behind it belongs to that\n"
              "method. Printed by `retort run --help-keys`.\n\n");
    if (make_schema(NULL, &arena, &schema) == RETORT_OK)
        schema_reference(&schema, text);
    else
        text->failed = true;
    text_append(text, "\n## Methods\n\n");
    for (int i = 0; method_at(i); i++) {
        const struct method *method = method_at(i);
        text_printf(text, "- `%s`: %s", method->name, method->summary);
        for (size_t k = 0; k < method->default_count; k++)
            text_printf(text, "%s `%s: %s`", k ? "," : " Its own defaults:", method->defaults[k].path,
                        method->defaults[k].standard);
        text_append(text, method->default_count ? ".\n" : "\n");
    }
    arena_finish(&arena);
}

const char *descriptor_protocol_name(enum protocol protocol) {
    return protocols[protocol];
}

const char *descriptor_gemm_name(enum gemm_choice gemm) {
    return gemms[gemm];
}

static const char *listed_devices(const struct descriptor *descriptor) {
    const char *list = descriptor->device.select;
    if (!*list) list = getenv("RETORT_DEVICE");
    return list ? list : "";
}

int descriptor_devices(const struct descriptor *descriptor) {
    int count = 1;
    for (const char *at = listed_devices(descriptor); (at = strchr(at, ',')); at++) count++;
    return count < DEVICES_MOST ? count : DEVICES_MOST;
}

void descriptor_device(const struct descriptor *descriptor, int index, char spec[DEVICE_SPEC]) {
    const char *at = listed_devices(descriptor);
    index %= descriptor_devices(descriptor);
    /* What device_open says of a single device tells whether the words are RETORT_DEVICE's. */
    if (descriptor_devices(descriptor) == 1) at = descriptor->device.select;
    for (; index > 0; index--) at = strchr(at, ',') + 1;
    at += strspn(at, " \t");
    snprintf(spec, DEVICE_SPEC, "%.*s", (int)strcspn(at, ","), at);
}

int descriptor_shares(const struct descriptor *descriptor, int devices, int *shares, bool *given) {
    int status = RETORT_OK;
    const struct device_choice *choice = &descriptor->device;
    if (choice->shares && choice->share_count != devices)
        RAISE(RETORT_EINVAL, "device.shares: found %d, but there are %d devices", choice->share_count, devices);
    for (int i = 0; i < devices; i++) shares[i] = choice->shares ? choice->shares[i] : 1;
    *given = choice->shares != NULL;
done:
    return status;
}

struct kernel_target descriptor_target(const struct descriptor *descriptor, const struct device_traits *traits) {
    struct kernel_target target = kernels_target(traits, descriptor->device.family);
    target.single |= descriptor->device.merge == MERGE_OFF;
    if (!target.gemm) target.gemm = descriptor_gemm_name(descriptor->device.gemm);
    return target;
}
