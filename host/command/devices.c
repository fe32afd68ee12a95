/* `retort devices`: what is there, what it can do, whether it computes rightly. */
#include "base/error.h"
#include "command/options.h"
#include "compile/wisdom.h"
#include "device/device.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static const char help[] =
    "usage: retort devices [--json] [--no-test]\n\n"
    "Lists every OpenCL device and runs a short self-test on each: arithmetic, vectors, loops, local memory. Tells "
    "who\n"
    "computes matrix products there: own kernels, or CLBlast where RETORT_GEMM=clblast is set, which is tested too.\n"
    "The first column is the index that `--device` takes; words from the other columns do as well, and from the\n"
    "versions that --json shows:\n\n"
    "  retort run configs/quickstart.yaml --device 1\n"
    "  retort run configs/quickstart.yaml --device \"intel gpu\"\n"
    "  RETORT_DEVICE=pocl retort run configs/quickstart.yaml\n\n"
    "  --json      for programs\n"
    "  --no-test   only list\n\n"
    "Exit status: 0 where a device can be used, 1 where none can.\n";

/* What is found out about a device by opening it, in words; "" where there is nothing to say. */
struct findings {
    char problem[512];     /* with which the self-test failed */
    char gemm[GEMM_WORDS]; /* who computes matrix products */
};

static int test_device(const struct device_traits *traits, struct findings *findings) {
    int status = RETORT_OK;
    struct device *device = NULL;
    struct kernel_target target = kernels_target(traits, FAMILY_AUTO);
    char spec[16], path[FILE_PATH_MAX];
    if (!traits->available) RAISE(RETORT_EDEVICE, "not available");
    snprintf(spec, sizeof spec, "%d", traits->index);
    TRY(device_open(spec, &device));
    TRY(device_self_test(device));
    wisdom_path(path);
    TRY(wisdom_load(path, &target, &target.wisdom));
    if (kernels_settle_gemm(&target, device, findings->gemm) < 0)
        snprintf(findings->gemm, sizeof findings->gemm, "%s", retort_error_message());
done:
    wisdom_destroy(target.wisdom);
    device_close(device);
    if (status < 0) snprintf(findings->problem, sizeof findings->problem, "%s", retort_error_message());
    return status;
}

static json_t *describe(const struct device_traits *traits, bool tested, const struct findings *findings) {
    const char *problem = findings->problem, *gemm = findings->gemm;
    return json_pack(
        "{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:I, s:I, s:I, s:b, s:b, s:o, s:o, s:o}",
        "index", traits->index, "kind", device_kind_name(traits->kind), "name", traits->name, "platform",
        traits->platform, "vendor", traits->vendor, "version", traits->version, "driver", traits->driver,
        "compute_units", (int)traits->compute_units, "lanes", (int)traits->lanes, "wave", (int)traits->wave,
        "sub_groups", (int)traits->sub_groups, "vector_width", (int)traits->vector_width, "max_clock_mhz",
        (int)traits->max_clock_mhz, "global_memory", (json_int_t)traits->global_memory, "max_allocation",
        (json_int_t)traits->max_allocation, "local_memory", (json_int_t)traits->local_memory, "fma", traits->fma,
        "fp64", traits->fp64, "self_test", tested ? json_string(*problem ? "failed" : "ok") : json_null(), "problem",
        *problem ? json_string(problem) : json_null(), "matrix_products", *gemm ? json_string(gemm) : json_null());
}

int command_devices(int argc, char **argv) {
    int exit_status = EXIT_DONE, usable = 0;
    struct options options;
    struct device_traits *list = NULL;
    size_t count = 0;
    json_t *rows = NULL;
    if (!options_parse("devices", help, OPTION_BIT(OPTION_JSON) | OPTION_BIT(OPTION_NO_TEST), argc, argv, &options,
                       &exit_status))
        goto leave;
    if (options.operand_count) {
        exit_status = usage_error("devices", "takes no operand, found %s", options.operands[0]);
        goto leave;
    }
    int status = device_list(&list, &count);
    if (status < 0) {
        exit_status = report_failure("devices", status);
        goto leave;
    }
    bool tested = !options.given[OPTION_NO_TEST], json = options.given[OPTION_JSON];
    rows = json_array();
    if (!json && count)
        printf("%-5s %-5s %-6s %-6s %-10s %-9s %s\n", "index", "kind", "units", "lanes", "memory", "self-test",
               "name / platform");
    for (size_t i = 0; i < count; i++) {
        const struct device_traits *traits = &list[i];
        struct findings findings = {0};
        bool works = tested ? test_device(traits, &findings) == RETORT_OK : traits->available;
        usable += works;
        if (json)
            json_array_append_new(rows, describe(traits, tested, &findings));
        else {
            printf("%-5d %-5s %-6u %-6u %6.1f GiB %-9s %s / %s\n", traits->index, device_kind_name(traits->kind),
                   traits->compute_units, traits->lanes, (double)traits->global_memory / 0x1p30,
                   tested ? works ? "ok" : "FAILED" : "-", traits->name, traits->platform);
            if (*findings.problem) printf("      %s\n", findings.problem);
            if (*findings.gemm) printf("      matrix products: %s\n", findings.gemm);
            fflush(stdout);
        }
    }
    if (json) {
        json_dumpf(rows, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    if (count == 0) report_failure("devices", device_none());
    if (!usable) exit_status = EXIT_FAILED;
leave:
    json_decref(rows);
    free(list);
    options_finish(&options);
    return exit_status;
}
