/* `retort kernels`: what a device would be given to compile and to launch, whether or not it is present. */
#include "base/error.h"
#include "base/file.h"
#include "bench/bench.h"
#include "command/options.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char help[] =
    "usage: retort kernels [--as DEVICE | --device SPEC] [OPTIONS]\n\n"
    "Writes the OpenCL program of an outer step (as `retort bench step` runs it) and the list of its launches, as the\n"
    "device would get them without wisdom. Nothing is built, allocated or run, so that the device need not be there:\n"
    "what compilers for it make of the program can be read anywhere.\n\n"
    "  retort kernels --list\n"
    "  retort kernels --as \"rtx 3060\"            the launches, on standard output\n"
    "  retort kernels --as a770 --image 3,32,32 --width 128 --ipc 10 --out a770\n"
    "  retort kernels --as a770 --channels 64 --side 16 --batch 100\n\n"
    "  --as DEVICE     words that name one of the known devices\n"
    "  --list          the known devices\n"
    "  --device SPEC   a device that is there: index or words of `retort devices`\n"
    "  --out DIR       writes DIR/program.cl and DIR/launches.txt\n"
    "  --family cpu|gpu  kernels for CPUs (cpu) or for GPUs (gpu), instead of those for the device's type\n"
    "Of an outer step:\n"
    "  --image C,H,W   channels, height, width of an image (1,28,28)\n"
    "  --ipc N         images per class (1); an inner step trains on all of them\n"
    "  --prefix P      plain inner steps (20)\n"
    "  --window W      inner steps differentiated (20)\n"
    "  --real B        real images of the meta-loss (256)\n"
    "  --width C       channels of the network (32)\n"
    "  --memory SIZE   ceiling over device memory, such as 512MiB (none)\n"
    "Or, where one of these is given, of a 3x3 convolution and its derivatives:\n"
    "  --channels C    in and out (128)\n"
    "  --side S        height and width (16)\n"
    "  --batch N       images (10)\n\n"
    "Exit status: 0 done, 1 failed, 2 wrong usage.\n";

static void list_devices(void) {
    size_t count;
    const struct device_traits *list = device_descriptions(&count);
    printf("%-5s %-6s %-6s %-10s %s\n", "kind", "units", "lanes", "memory", "name / platform");
    for (size_t i = 0; i < count; i++)
        printf("%-5s %-6u %-6u %6.1f GiB %s / %s\n", device_kind_name(list[i].kind), list[i].compute_units,
               list[i].lanes, (double)list[i].global_memory / 0x1p30, list[i].name, list[i].platform);
}

static int open_file(const char *folder, const char *name, FILE **stream) {
    int status = RETORT_OK;
    char path[FILE_PATH_MAX];
    TRY(path_join(folder, name, path));
    *stream = fopen(path, "w");
    if (!*stream) RAISE(RETORT_EIO, "cannot write %s: %s", path, strerror(errno));
done:
    return status;
}

static int close_file(const char *folder, const char *name, FILE *stream) {
    bool failed = ferror(stream);
    if ((fclose(stream) != 0) | failed) return error_set(RETORT_EIO, "cannot write %s/%s", folder, name);
    return RETORT_OK;
}

/* `conv` NULL: of an outer step. */
static int write_kernels(const struct options *options, const struct bench_step_spec *step,
                         const struct bench_conv_spec *conv) {
    static const char program_name[] = "program.cl", launches_name[] = "launches.txt";
    int status = RETORT_OK;
    const char *folder = options->value[OPTION_OUT];
    struct device *device = NULL;
    FILE *program = NULL, *launches = NULL;
    TRY(options->given[OPTION_AS] ? device_open_described(options->value[OPTION_AS], &device)
                                  : device_open(options->value[OPTION_DEVICE], &device));
    if (folder) {
        TRY(folder_create(folder));
        TRY(open_file(folder, program_name, &program));
        TRY(open_file(folder, launches_name, &launches));
    }
    FILE *list = folder ? launches : stdout;
    TRY(conv ? bench_conv_kernels(device, step->family, conv, program, list)
             : bench_step_kernels(device, step, program, list));
done:
    if (program && close_file(folder, program_name, program) < 0 && status == RETORT_OK) status = RETORT_EIO;
    if (launches && close_file(folder, launches_name, launches) < 0 && status == RETORT_OK) status = RETORT_EIO;
    device_close(device);
    if (folder && status == RETORT_OK) printf("%s/%s\n%s/%s\n", folder, program_name, folder, launches_name);
    return status;
}

static const enum option_name of_step[] = {OPTION_IMAGE, OPTION_IPC,   OPTION_PREFIX, OPTION_WINDOW,
                                           OPTION_REAL,  OPTION_WIDTH, OPTION_MEMORY};
static const enum option_name of_conv[] = {OPTION_CHANNELS, OPTION_SIDE, OPTION_BATCH};
#define COUNT(names) (sizeof(names) / sizeof *(names))

static const char *first_given(const struct options *options, const enum option_name *names, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (options->given[names[i]]) return options_name(names[i]);
    return NULL;
}

static int run_kernels(const struct options *options) {
    struct bench_step_spec step = {
        .image = {1, 28, 28}, .ipc = 1, .prefix = 20, .window = 20, .real = 256, .width = 32};
    int channels = 128, side = 16, batch = 10;
    const char *step_option = first_given(options, of_step, COUNT(of_step));
    const char *conv_option = first_given(options, of_conv, COUNT(of_conv));
    if (options->operand_count) return usage_error("kernels", "takes no operand, found %s", options->operands[0]);
    if (options->given[OPTION_AS] && options->given[OPTION_DEVICE])
        return usage_error("kernels", "--as names a known device, --device one that is there: give one of them");
    if (step_option && conv_option)
        return usage_error("kernels", "--%s is for an outer step, --%s for a convolution: give one of them",
                           step_option, conv_option);
    if (!options_step("kernels", options, &step)
        || !options_int("kernels", options, OPTION_CHANNELS, 1, 65536, &channels)
        || !options_int("kernels", options, OPTION_SIDE, 1, 4096, &side)
        || !options_int("kernels", options, OPTION_BATCH, 1, 1000000, &batch))
        return EXIT_USAGE;
    const struct bench_conv_spec conv = {BENCH_FORWARD, batch, channels, channels, side};
    if (!options->given[OPTION_LIST])
        return report_failure("kernels", write_kernels(options, &step, conv_option ? &conv : NULL));
    list_devices();
    return EXIT_DONE;
}

int command_kernels(int argc, char **argv) {
    unsigned long allowed = OPTION_BIT(OPTION_AS) | OPTION_BIT(OPTION_LIST) | OPTION_BIT(OPTION_DEVICE)
                            | OPTION_BIT(OPTION_OUT) | OPTION_BIT(OPTION_FAMILY);
    int exit_status = EXIT_DONE;
    struct options options;
    for (size_t i = 0; i < COUNT(of_step); i++) allowed |= OPTION_BIT(of_step[i]);
    for (size_t i = 0; i < COUNT(of_conv); i++) allowed |= OPTION_BIT(of_conv[i]);
    if (options_parse("kernels", help, allowed, argc, argv, &options, &exit_status))
        exit_status = run_kernels(&options);
    options_finish(&options);
    return exit_status;
}
