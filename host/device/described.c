/* Devices that need not be present: traits without a driver. Kernels are chosen, written and counted for them as for
 * any other; nothing can be allocated, built or launched. */
#include "device/internal.h"

#include "base/memory.h"

#include <stdlib.h>

/* What drivers answer, as far as kernels depend on it; clocks and memory are the models' usual ones. Units are the
 * driver's own, each with so many lanes: multiprocessors of NVIDIA, compute units of AMD's GCN and CDNA but pairs of
 * them on RDNA, execution units of Intel. In brackets stands what compilers call the architecture. */
#define MIB ((uint64_t)1 << 20)
#define GPU .kind = DEVICE_GPU, .vector_width = 4, .fma = true, .available = true
#define AMD(model, units, unit_lanes, in_step, mhz, memory, allocation)                                            \
    {                                                                                                              \
        GPU, .platform = "AMD Accelerated Parallel Processing", .vendor = "Advanced Micro Devices, Inc.",          \
             .name = model, .compute_units = units, .lanes = (units) * (unit_lanes), .wave = in_step,              \
             .max_clock_mhz = mhz, .max_work_group = 256, .local_memory = 64 << 10, .global_memory = (memory)*MIB, \
             .max_allocation = (allocation)*MIB, .cache = 16 << 10, .fp64 = true                                   \
    }
#define NVIDIA(model, units, unit_lanes, mhz, memory, l1)                                                      \
    {                                                                                                          \
        GPU, .platform = "NVIDIA CUDA", .vendor = "NVIDIA Corporation", .name = model, .compute_units = units, \
             .lanes = (units) * (unit_lanes), .wave = 32, .max_clock_mhz = mhz, .max_work_group = 1024,        \
             .local_memory = 48 << 10, .global_memory = (memory)*MIB, .max_allocation = (memory) / 4 * MIB,    \
             .cache = (uint64_t)(units) * (l1) << 10, .fp64 = true                                             \
    }
#define INTEL(model, units, unit_lanes, sizes, mhz, group, local, memory, allocation, last_cache, doubles)       \
    {                                                                                                            \
        GPU, .platform = "Intel(R) OpenCL HD Graphics", .vendor = "Intel(R) Corporation", .name = model,         \
             .compute_units = units, .lanes = (units) * (unit_lanes), .sub_groups = sizes, .max_clock_mhz = mhz, \
             .max_work_group = group, .local_memory = (local) << 10, .global_memory = (memory)*MIB,              \
             .max_allocation = (allocation)*MIB, .cache = (uint64_t)(last_cache) << 10, .fp64 = doubles          \
    }
static const struct device_traits descriptions[] = {
    AMD("Radeon VII (gfx906)", 60, 64, 64, 1801, 16368, 13912),
    AMD("Instinct MI210 (gfx90a)", 104, 64, 64, 1700, 65520, 55692),
    AMD("Radeon RX 6900 XT (gfx1030)", 40, 128, 32, 2660, 16368, 13912),
    AMD("Radeon RX 6600 XT (gfx1032)", 16, 128, 32, 2900, 8176, 6949),
    AMD("Radeon RX 7900 XTX (gfx1100)", 48, 128, 32, 2526, 24560, 20876),
    NVIDIA("GeForce GTX 1060 (sm_61)", 10, 128, 1708, 6075, 48),
    NVIDIA("Tesla V100 (sm_70)", 80, 64, 1530, 16160, 32),
    NVIDIA("GeForce RTX 2060 (sm_75)", 30, 64, 1680, 5934, 32),
    NVIDIA("GeForce RTX 3060 (sm_86)", 28, 128, 1777, 12043, 28),
    NVIDIA("H100 (sm_90)", 132, 128, 1980, 81079, 32),
    INTEL("Iris Xe Graphics (tgllp)", 96, 8, 8 + 16 + 32, 1300, 512, 64, 12626, 4095, 1920, false),
    INTEL("Arc A770 Graphics (acm-g10)", 512, 8, 8 + 16 + 32, 2400, 1024, 64, 15473, 4095, 16384, false),
    INTEL("Data Center GPU Max 1100 (pvc)", 448, 16, 16 + 32, 1550, 1024, 128, 46679, 46679, 110592, true),
};

const struct device_traits *device_descriptions(size_t *count) {
    *count = sizeof descriptions / sizeof *descriptions;
    return descriptions;
}

int device_describe(const struct device_traits *traits, struct device **device) {
    int status = RETORT_OK;
    struct device *described = calloc(1, sizeof *described);
    if (!described) RAISE(RETORT_ENOMEM, "out of memory describing %s", traits->name);
    pthread_mutex_init(&described->lock, NULL);
    described->traits = *traits;
    described->own_units = traits->compute_units;
    *device = described;
done:
    return status;
}

int device_open_described(const char *words, struct device **device) {
    int status = RETORT_OK;
    const struct device_traits *match = NULL;
    size_t count, matching = 0;
    const struct device_traits *list = device_descriptions(&count);
    struct text text;
    text_init(&text);
    for (size_t i = 0; i < count; i++)
        if (device_matches(&list[i], words)) {
            match = &list[i];
            matching++;
        }
    if (matching != 1) {
        if (matching)
            text_printf(&text, "%zu described devices match \"%.100s\"", matching, words);
        else
            text_printf(&text, "no described device matches \"%.100s\"", words);
        text_printf(&text, "; name one by words of its line:");
        for (size_t i = 0; i < count; i++) text_printf(&text, "\n  %s, %s", list[i].name, list[i].platform);
        RAISE(RETORT_EDEVICE, "%s", text_get(&text));
    }
    TRY(device_describe(match, device));
done:
    text_finish(&text);
    return status;
}

int device_check_present(const struct device *device, const char *what) {
    if (device->id) return RETORT_OK;
    return error_set(RETORT_EUNSUPPORTED, "%s: %s is described, not present: kernels can be written for it, no more",
                     what, device->traits.name);
}
