/* The parts of include/retort/ that need no more than a few lines. */
#include "base/error.h"
#include "base/locale.h"
#include "base/log.h"
#include "device/device.h"
#include "retort/device.h"
#include "retort/log.h"

#include <stdlib.h>
#include <string.h>

int retort_device_list(struct retort_device **devices, size_t *count) {
    int status = RETORT_OK;
    locale_t before = locale_enter_c();
    struct device_traits *traits = NULL;
    size_t found;
    TRY(device_list(&traits, &found));
    struct retort_device *rows = calloc(found ? found : 1, sizeof *rows);
    if (!rows) RAISE(RETORT_ENOMEM, "out of memory listing devices");
    for (size_t i = 0; i < found; i++) {
        rows[i] = (struct retort_device){.index = traits[i].index,
                                         .is_gpu = traits[i].kind == DEVICE_GPU,
                                         .compute_units = traits[i].compute_units,
                                         .global_memory = traits[i].global_memory,
                                         .max_allocation = traits[i].max_allocation};
        memcpy(rows[i].platform, traits[i].platform, sizeof rows[i].platform);
        memcpy(rows[i].name, traits[i].name, sizeof rows[i].name);
        memcpy(rows[i].driver, traits[i].driver, sizeof rows[i].driver);
    }
    *devices = rows;
    *count = found;
done:
    free(traits);
    uselocale(before);
    return status;
}

void retort_device_list_free(struct retort_device *devices) {
    free(devices);
}

void retort_log_verbosity(int level) {
    log_set_level(level < LOG_QUIET ? LOG_QUIET : level > LOG_DEBUG ? LOG_DEBUG : (enum log_level)level);
}
