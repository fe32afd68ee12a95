/* Names of classes that the files of well-known sets do not hold themselves. */
#include "data/readers.h"

#include "base/error.h"
#include "base/file.h"

#include <stdlib.h>
#include <string.h>

static const char *const cifar10[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                      "dog",      "frog",       "horse", "ship", "truck"};
static const char *const cifar100[] = {
    "apple",      "aquarium_fish", "baby",         "bear",       "beaver",      "bed",         "bee",
    "beetle",     "bicycle",       "bottle",       "bowl",       "boy",         "bridge",      "bus",
    "butterfly",  "camel",         "can",          "castle",     "caterpillar", "cattle",      "chair",
    "chimpanzee", "clock",         "cloud",        "cockroach",  "couch",       "crab",        "crocodile",
    "cup",        "dinosaur",      "dolphin",      "elephant",   "flatfish",    "forest",      "fox",
    "girl",       "hamster",       "house",        "kangaroo",   "keyboard",    "lamp",        "lawn_mower",
    "leopard",    "lion",          "lizard",       "lobster",    "man",         "maple_tree",  "motorcycle",
    "mountain",   "mouse",         "mushroom",     "oak_tree",   "orange",      "orchid",      "otter",
    "palm_tree",  "pear",          "pickup_truck", "pine_tree",  "plain",       "plate",       "poppy",
    "porcupine",  "possum",        "rabbit",       "raccoon",    "ray",         "road",        "rocket",
    "rose",       "sea",           "seal",         "shark",      "shrew",       "skunk",       "skyscraper",
    "snail",      "snake",         "spider",       "squirrel",   "streetcar",   "sunflower",   "sweet_pepper",
    "table",      "tank",          "telephone",    "television", "tiger",       "tractor",     "train",
    "trout",      "tulip",         "turtle",       "wardrobe",   "whale",       "willow_tree", "wolf",
    "woman",      "worm"};
static const char *const fashion[] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                      "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};

/* IDX files hold numbers alone, whichever set they are of; the labels in their order tell a set from all others. */
#define FASHION_LABELS 0xfe953e8cea118440ull

int source_name_known(enum data_kind kind, struct source *source) {
    int status = RETORT_OK;
    const char *const *known = NULL;
    char **names = NULL;
    const struct part *train = &source->train;
    if (kind == DATA_CIFAR10) known = cifar10;
    if (kind == DATA_CIFAR100) known = cifar100;
    if (kind == DATA_IDX && source->classes == 10 && train->count == 60000
        && hash_fast(train->labels, (size_t)train->count * sizeof *train->labels, 0) == FASHION_LABELS)
        known = fashion;
    if (!known || source->class_names) goto done;
    names = calloc((size_t)source->classes, sizeof *names);
    if (!names) RAISE(RETORT_ENOMEM, "out of memory for the names of classes");
    for (int c = 0; c < source->classes; c++)
        if (!(names[c] = strdup(known[c]))) RAISE(RETORT_ENOMEM, "out of memory for the names of classes");
    source->class_names = names;
    names = NULL;
done:
    for (int c = 0; names && c < source->classes; c++) free(names[c]);
    free(names);
    return status;
}
