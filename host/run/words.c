#include "run/words.h"

#include "compile/executable.h"
#include "distill/division.h"
#include "distill/set.h"
#include "nn/nn.h"
#include "optimizer/optimizer.h"

#include <stddef.h>

const char *const words_network_kind[] = {[NETWORK_CONVNET] = "convnet", [NETWORK_MLP] = "mlp", NULL};
const char *const words_norm[] = {[NORM_NONE] = "none",   [NORM_INSTANCE] = "instance", [NORM_GROUP] = "group",
                                  [NORM_BATCH] = "batch", [NORM_LAYER] = "layer",       NULL};
const char *const words_activation[] = {
    [ACTIVATION_RELU] = "relu", [ACTIVATION_LEAKY_RELU] = "leaky_relu", [ACTIVATION_SIGMOID] = "sigmoid",
    [ACTIVATION_GELU] = "gelu", [ACTIVATION_SWISH] = "swish",           NULL};
const char *const words_pool[] = {[POOL_AVERAGE] = "average", [POOL_MAX] = "max", [POOL_NONE] = "none", NULL};
const char *const words_optimizer[] = {[OPTIMIZER_SGD] = "sgd", [OPTIMIZER_ADAM] = "adam", NULL};
const char *const words_labels[] = {[LABELS_HARD] = "hard", [LABELS_SOFT] = "soft", NULL};
const char *const words_family[] = {[FAMILY_AUTO] = "auto", [FAMILY_CPU] = "cpu", [FAMILY_GPU] = "gpu", NULL};
const char *const words_divide[] = {
    [DIVIDE_AUTO] = "auto", [DIVIDE_TRAJECTORIES] = "trajectories", [DIVIDE_ROWS] = "rows", NULL};
const char *const words_parameters[] = {
    [PARAMETERS_PIXELS] = "pixels", [PARAMETERS_FREQUENCY] = "frequency", [PARAMETERS_TILES] = "tiles", NULL};
const char *const words_dct[] = {[DCT_AUTO] = "auto", [DCT_CLFFT] = "clfft", [DCT_MATRIX] = "matrix", NULL};
