/* README.md of an export: what the set is, how it was made and is to be used, and code that loads it. The code is run
 * against the real libraries by bench/export_check.py, block by block. */
#include "run/export.h"

#include <stdio.h>
#include <string.h>

/* --- what set.json says --- */
static const json_t *find(const struct export *export, const char *section, const char *key) {
    const json_t *recipe = json_object_get(export->set.about, "recipe");
    return json_object_get(json_object_get(recipe, section), key);
}

static const char *word(const struct export *export, const char *section, const char *key) {
    const char *found = json_string_value(find(export, section, key));
    return found ? found : "";
}

static double number(const struct export *export, const char *section, const char *key) {
    return json_number_value(find(export, section, key));
}

static bool yes(const struct export *export, const char *section, const char *key) {
    return json_is_true(find(export, section, key));
}

static const char *top_word(const struct export *export, const char *key) {
    const char *found = json_string_value(json_object_get(export->set.about, key));
    return found ? found : "unknown";
}

static bool soft(const struct export *export) {
    return export->set.labels.rank == 2;
}

/* The rate that networks were trained at: the learned one where it is, which is what set.json has. */
static double rate(const struct export *export) {
    double learned = json_number_value(json_object_get(export->set.about, "inner_lr"));
    return learned > 0 ? learned : number(export, "inner", "lr");
}

/* Whether networks are trained by the protocol of DC, DSA, DM and MTT, which has an optimiser of its own. */
static bool dc(const struct export *export) {
    return strcmp(word(export, "evaluate", "protocol"), "dc") == 0;
}

static bool adam(const struct export *export) {
    return strcmp(word(export, "inner", "optimizer"), "sgd") != 0;
}

/* A word that may be anything, for a cell of a table. */
static void write_cell(struct text *text, const char *words) {
    for (; *words; words++) text_printf(text, *words == '|' ? "\\|" : "%c", (unsigned char)*words < 32 ? ' ' : *words);
}

/* --- the table --- */
static void write_labels(const struct export *export, struct text *text) {
    if (soft(export))
        text_printf(text,
                    "`labels`, float32 [%lld,%d]: learned weights of the classes, which need not sum to 1; the loss is "
                    "`-(labels * log_softmax(logits)).sum(1).mean()`",
                    (long long)export->set.labels.size[0], export->classes);
    else
        text_printf(text, "`labels`, int32 [%lld]: numbers of classes, from 0", (long long)export->set.labels.size[0]);
}

static void write_dc_training(const struct export *export, struct text *text) {
    const json_t *epochs = find(export, "evaluate", "epochs");
    text_printf(text,
                "SGD, learning rate 0.01, a tenth of that after half of the epochs, momentum 0.9, weight decay 0.0005; "
                "batches of at most 256; %lld epochs (the protocol of DC, DSA, DM and MTT)",
                json_is_integer(epochs)              ? (long long)json_integer_value(epochs)
                : yes(export, "evaluate", "augment") ? 1000LL
                                                     : 300LL);
}

static void write_training(const struct export *export, struct text *text) {
    const json_t *batch = find(export, "inner", "batch");
    const json_t *per_class = json_object_get(batch, "per_class"), *classes = json_object_get(batch, "classes");
    bool whole = !json_is_integer(per_class) && !json_is_integer(classes);
    double momentum = number(export, "inner", "momentum"), decay = number(export, "inner", "weight_decay");
    text_printf(text, "%s, learning rate %.6g (%s), the same in all steps", adam(export) ? "Adam" : "SGD", rate(export),
                yes(export, "inner", "learn_lr") ? "learned with the images" : "as the recipe says");
    if (!adam(export) && momentum > 0) text_printf(text, ", momentum %g", momentum);
    if (decay > 0) text_printf(text, ", weight decay %g", decay);
    if (whole) text_append(text, "; each batch is the whole set");
    if (!whole && json_is_integer(per_class))
        text_printf(text, "; batches of %lld images of each class", (long long)json_integer_value(per_class));
    if (!whole && json_is_integer(classes))
        text_printf(text, "%s of %lld classes", json_is_integer(per_class) ? "," : "; batches of all images",
                    (long long)json_integer_value(classes));
    text_printf(text, "; distilled for runs of %.0f steps", number(export, "inner", "steps"));
}

static void write_augmentation(const struct export *export, struct text *text) {
    const json_t *augment = find(export, "outer", "augment");
    bool flip = json_is_true(json_object_get(augment, "flip")),
         rotate = json_is_true(json_object_get(augment, "rotate"));
    bool compose = json_is_true(json_object_get(augment, "compose"));
    if (dc(export))
        text_append(text, yes(export, "evaluate", "augment")
                              ? "the DSA augmentation (colour, crop, cutout, flip, scale, rotate), see the recipe"
                              : "none");
    else if (!flip && !rotate)
        text_append(text, "none");
    else
        text_printf(text, "%s%s%s", flip ? "each image mirrored left-right with probability 1/2" : "",
                    !flip || !rotate ? ""
                    : compose        ? ", and "
                                     : ", or (by turns, a batch) ",
                    rotate ? "rotated at random" : "");
    if (rotate && !dc(export))
        text_printf(text, " by up to %g degrees either way", json_number_value(json_object_get(augment, "degrees")));
}

static void write_result(const struct export *export, struct text *text) {
    const char *rows[] = {"distilled", "random"};
    const json_t *result = json_object_get(export->set.about, "result"),
                 *accuracy = json_object_get(result, "accuracy");
    if (!result) return;
    text_append(text, "| accuracy |");
    for (int i = 0; i < 2; i++) {
        const json_t *row = json_object_get(accuracy, rows[i]), *sd = json_object_get(row, "sd");
        if (!row) continue;
        text_printf(text, "%s %.2f", i ? "; as many random real images:" : "",
                    json_number_value(json_object_get(row, "mean")));
        if (json_is_number(sd)) text_printf(text, " +- %.2f", json_number_value(sd));
        text_append(text, " %");
    }
    text_append(text, " (protocol ");
    const char *protocol = json_string_value(json_object_get(result, "protocol"));
    write_cell(text, protocol ? protocol : "");
    text_append(text, ") |\n");
}

static void write_normalisation(const struct export *export, struct text *text) {
    switch (export->normalisation.kind) {
    case NORMALISE_NONE:
        text_append(text, "none: images are pixels, 0 black to 1 white");
        break;
    case NORMALISE_MEAN_SD:
        text_append(text, "mean_sd: pixels in [0,1], minus the channel's mean, over its standard deviation");
        break;
    case NORMALISE_ZCA_PIXEL:
        text_append(text, "zca_pixel: pixels in [0,1], minus the mean image, times a whitening matrix");
        break;
    case NORMALISE_ZCA_KIP:
        text_append(text, "zca: pixels minus the image's own mean, over its own norm, times a whitening matrix; the "
                          "first step cannot be undone");
        break;
    }
}

static void write_table(const struct export *export, struct text *text) {
    const struct npy *images = &export->set.images;
    text_printf(text, "| | |\n|---|---|\n| images | `images`, float32 [%lld,%lld,%lld,%lld] as [N,C,H,W], ",
                (long long)images->size[0], (long long)images->size[1], (long long)images->size[2],
                (long long)images->size[3]);
    if (export->ipc) text_printf(text, "%d of each class in turn, ", export->ipc);
    text_append(text, "normalised: as networks take them |\n| labels | ");
    write_labels(export, text);
    text_append(text, " |\n| classes | ");
    for (int i = 0; i < export->classes && i < 100; i++) {
        char number[16];
        snprintf(number, sizeof number, "%d", i);
        bool named = strcmp(export_class_name(export, i), number) != 0;
        text_printf(text, "%s%d%s", i ? ", " : "", i, named ? " " : "");
        if (named) write_cell(text, export_class_name(export, i));
    }
    if (export->classes > 100) text_append(text, ", ...: `about[\"class_names\"]` has all");
    text_append(text, " |\n| normalisation | ");
    write_normalisation(export, text);
    text_append(text, " |\n| train by | ");
    if (dc(export))
        write_dc_training(export, text);
    else
        write_training(export, text);
    text_append(text, " |\n| augmentation | ");
    write_augmentation(export, text);
    text_printf(text, " |\n| network | %s, depth %.0f, width %.0f", word(export, "network", "kind"),
                number(export, "network", "depth"), number(export, "network", "width"));
    if (strcmp(word(export, "network", "kind"), "convnet") == 0)
        text_printf(text, ", %s norm, %s, %s pooling", word(export, "network", "norm"),
                    word(export, "network", "activation"), word(export, "network", "pool"));
    text_append(text, " |\n");
    write_result(export, text);
    text_printf(text, "| distilled by | Retort %s, method %s, %.0f outer steps, seed %lld |\n",
                top_word(export, "retort"), word(export, "method", "name"), number(export, "outer", "steps"),
                (long long)json_integer_value(json_object_get(export->set.about, "seed")));
    text_append(text, "| on | ");
    write_cell(text, top_word(export, "device"));
    text_append(text, ", ");
    write_cell(text, top_word(export, "platform"));
    text_printf(text, " |\n| set_sha256 | `%s` |\n\n", export->sha256);
}

/* --- code --- */
static const char *file_name(const struct export *export) {
    return export->format == EXPORT_SAFETENSORS ? EXPORT_SAFETENSORS_FILE : EXPORT_NPZ_FILE;
}

/* Leaves `data`, arrays by name, and `about`. `imports`: a line more. */
static void write_loading(const struct export *export, const char *imports, struct text *text) {
    text_printf(text, "```python\nimport json\nimport numpy as np\n%s", imports);
    if (export->format == EXPORT_SAFETENSORS)
        text_append(text, "from safetensors import safe_open\n\n"
                          "with safe_open(\"" EXPORT_SAFETENSORS_FILE "\", framework=\"np\") as file:\n"
                          "    data = {name: file.get_tensor(name) for name in file.keys()}\n"
                          "    about = json.loads(file.metadata()[\"about\"])\n");
    else
        text_append(text, "\ndata = np.load(\"" EXPORT_NPZ_FILE "\")\n"
                          "about = json.loads(data[\"about\"].tobytes())\n");
}

static void write_pytorch(const struct export *export, struct text *text) {
    text_append(text, "## PyTorch\n\n");
    write_loading(export, "import torch\n", text);
    text_printf(text,
                "images = torch.from_numpy(data[\"images\"])\n"
                "labels = torch.from_numpy(data[\"labels\"])%s\n\n"
                "model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(images[0].numel(), "
                "about[\"classes\"]))  # yours\n",
                soft(export) ? "" : ".long()");
    if (dc(export))
        text_append(text,
                    "optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)\n");
    else if (adam(export))
        text_printf(text, "optimizer = torch.optim.Adam(model.parameters(), lr=%.9g, weight_decay=%g)\n", rate(export),
                    number(export, "inner", "weight_decay"));
    else
        text_printf(text, "optimizer = torch.optim.SGD(model.parameters(), lr=%.9g, momentum=%g, weight_decay=%g)\n",
                    rate(export), number(export, "inner", "momentum"), number(export, "inner", "weight_decay"));
    text_append(text, "for step in range(100):\n"
                      "    loss = torch.nn.functional.cross_entropy(model(images), labels)\n"
                      "    optimizer.zero_grad()\n"
                      "    loss.backward()\n"
                      "    optimizer.step()\n"
                      "```\n\n");
}

static void write_jax(const struct export *export, struct text *text) {
    text_append(text, "## JAX\n\n");
    write_loading(export, "import jax\nimport jax.numpy as jnp\n", text);
    text_printf(text,
                "images = jnp.asarray(data[\"images\"])\n"
                "labels = %s\n\n",
                soft(export) ? "jnp.asarray(data[\"labels\"])"
                             : "jax.nn.one_hot(data[\"labels\"], about[\"classes\"])");
    text_append(text, "def loss(weights):\n"
                      "    logits = images.reshape(len(images), -1) @ weights[\"w\"] + weights[\"b\"]  # yours\n"
                      "    return -(labels * jax.nn.log_softmax(logits)).sum(1).mean()\n\n"
                      "@jax.jit\n"
                      "def step(weights):\n"
                      "    gradient = jax.grad(loss)(weights)\n"
                      "    return {name: weights[name] - 0.001 * gradient[name] for name in weights}\n\n"
                      "weights = {\"w\": jnp.zeros((images[0].size, about[\"classes\"])), "
                      "\"b\": jnp.zeros(about[\"classes\"])}\n"
                      "for _ in range(100):\n"
                      "    weights = step(weights)\n"
                      "```\n\n");
}

static void write_scikit_learn(const struct export *export, struct text *text) {
    text_append(text, "## scikit-learn\n\n");
    write_loading(export, "from sklearn.linear_model import LogisticRegression\n", text);
    text_printf(text,
                "images = data[\"images\"].reshape(about[\"count\"], -1)\n"
                "labels = data[\"labels\"]%s\n"
                "model = LogisticRegression(max_iter=1000).fit(images, labels)\n"
                "```\n\n",
                soft(export) ? ".argmax(1)  # this library takes no soft labels" : "");
}

/* Both ways between pixels and what networks take, as functions of arrays [N,C,H,W]. */
static void write_pixels(const struct export *export, struct text *text) {
    static const char *const code[] = {
        [NORMALISE_NONE] = "def normalise(pixels):\n"
                           "    return pixels.astype(np.float32)\n\n"
                           "def undo(images):\n"
                           "    return images\n",
        [NORMALISE_MEAN_SD] = "mean = data[\"normalisation.mean\"].reshape(-1, 1, 1)\n"
                              "sd = data[\"normalisation.sd\"].reshape(-1, 1, 1)\n\n"
                              "def normalise(pixels):\n"
                              "    return ((pixels - mean) / sd).astype(np.float32)\n\n"
                              "def undo(images):\n"
                              "    return images * sd + mean\n",
        [NORMALISE_ZCA_KIP] = "whiten, unwhiten = data[\"normalisation.whiten\"], data[\"normalisation.unwhiten\"]\n\n"
                              "def normalise(pixels):\n"
                              "    rows = pixels.reshape(len(pixels), -1).astype(np.float64)\n"
                              "    rows = rows - rows.mean(1, keepdims=True)\n"
                              "    norm = np.linalg.norm(rows, axis=1, keepdims=True)\n"
                              "    rows = np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0)\n"
                              "    return (rows @ whiten).astype(np.float32).reshape(pixels.shape)\n\n"
                              "def undo(images):  # up to each image's brightness and contrast, which are lost\n"
                              "    return (images.reshape(len(images), -1) @ unwhiten).reshape(images.shape)\n",
        [NORMALISE_ZCA_PIXEL] =
            "whiten, unwhiten = data[\"normalisation.whiten\"], data[\"normalisation.unwhiten\"]\n"
            "mean = data[\"normalisation.mean\"]\n\n"
            "def normalise(pixels):\n"
            "    rows = pixels.reshape(len(pixels), -1) - mean\n"
            "    return (rows @ whiten).astype(np.float32).reshape(pixels.shape)\n\n"
            "def undo(images):\n"
            "    return (images.reshape(len(images), -1) @ unwhiten + mean).reshape(images.shape)\n",
    };
    text_append(text, "## Pixels, and your test images\n\n"
                      "Networks that are trained on this set must be given real images that are normalised in the same "
                      "way: `normalise(pixels)`, of pixels [N,C,H,W] in [0,1]. `undo` is the way back, for looking at "
                      "them.\n\n");
    write_loading(export, "", text);
    text_printf(text, "\n%s\npixels = undo(data[\"images\"])\n```\n\n", code[export->normalisation.kind]);
}

static void write_pictures(const struct export *export, struct text *text) {
    const struct quantisation *q = &export->quantisation;
    text_printf(
        text,
        "## The pictures\n\n"
        "`images/` has a folder per class (in front of its name stands its number, so that sorting by name keeps "
        "the order) and %lld pictures of 8 bits. They are for eyes, and for programs that take nothing else. ",
        (long long)q->pictures);
    if (q->scaled)
        text_append(text, "Since the normalisation cannot be undone, each is scaled to its own darkest and lightest "
                          "value; networks cannot be trained on them as on the set. ");
    text_printf(
        text,
        "Rounding to 8 bits has changed no value by more than %.3f of 255 levels; %lld of %lld values (%.2f %%) "
        "lay outside of black and white and were clipped, the farthest by %.2f levels. So train on `" EXPORT_NPZ_FILE
        "`, which has the values unchanged.\n\n",
        q->rounding, (long long)q->clipped, (long long)q->values, 100.0 * (double)q->clipped / (double)q->values,
        q->clipping);
    text_printf(text,
                "```python\nimport pathlib\nimport numpy as np\nfrom PIL import Image\n\n"
                "paths = sorted(pathlib.Path(\"images\").glob(\"*/*.png\"))\n"
                "pixels = np.stack([np.asarray(Image.open(path)) for path in paths]) / 255\n"
                "pixels = %s  # [N,C,H,W]\n"
                "labels = np.array([int(path.parent.name.split(\"-\")[0]) for path in paths])\n"
                "```\n\n",
                export->normalisation.channels == 1 ? "pixels[:, None]" : "pixels.transpose(0, 3, 1, 2)");
}

void export_readme(const struct export *export, struct text *text) {
    text_printf(
        text,
        "# A distilled data set: %lld images of %d classes\n\n"
        "A network that is trained on these synthetic images recognises real ones nearly as if it had been trained "
        "on far more of those. `%s` holds them with all that belongs to them: `about` is the text of a JSON object "
        "with class names, the complete recipe, seed and hashes.\n\n",
        (long long)export->set.images.size[0], export->classes, file_name(export));
    write_table(export, text);
    if (export->format == EXPORT_PNG) write_pictures(export, text);
    write_pytorch(export, text);
    write_jax(export, text);
    write_scikit_learn(export, text);
    write_pixels(export, text);
    text_printf(
        text,
        "## Back in Retort\n\n"
        "    retort eval %s                              trains and tests fresh networks on it\n"
        "    retort eval %s --set data.path=FOLDER       where the real data lie elsewhere than they did\n\n"
        "It reads the set bit for bit: `retort eval --json` tells `set_sha256`, the SHA-256 of images and labels "
        "as NumPy saves them.\n",
        file_name(export), file_name(export));
}
