#include "bench/measure.h"

#include "base/error.h"

int bench_conv(struct device *device, const struct kernel_target *target, const struct bench_conv_spec *spec,
               struct bench_kernel_result *result) {
    int status = RETORT_OK;
    const int64_t side = spec->side;
    static const enum conv_pass passes[] = {CONV_FORWARD, CONV_BACKWARD_DATA, CONV_BACKWARD_WEIGHT};
    const struct kernel_class class = {
        passes[spec->pass],
        {spec->batch, spec->channels, side, side, spec->outputs, 3, 3, side, side, .stride = 1, .padding = 1},
        CONV_SINGLE};
    const struct trial_limits limits = {.seconds = BENCH_SECONDS, .spill = true};
    struct trial *trial = NULL;
    struct trial_result tried;
    TRY(trial_create(target, &class, &trial));
    TRY(trial_run(trial, device, target, &limits, &tried));
    if (tried.fault)
        RAISE(RETORT_EDEVICE, "%s: %s (off by %.1e of the largest value)", kernels_choice(target, &class).variant,
              tried.fault, tried.error);
    *result = (struct bench_kernel_result){.file = plan_main_file(trial_planned(trial)),
                                           .way = kernels_choice(target, &class).variant,
                                           .seconds = tried.seconds,
                                           .flops = kernel_class_flops(&class),
                                           .error = tried.error};
done:
    trial_destroy(trial);
    return status;
}

static int compile_pass(struct library *library, const struct bench_conv_spec *spec, enum bench_conv_pass pass,
                        struct executable **executable) {
    int status = RETORT_OK;
    static const char *const labels[] = {"convolution", "convolution to data", "convolution to weights"};
    const int64_t side = spec->side;
    struct graph *graph = NULL;
    TRY(graph_create(&graph));
    struct node *x = graph_input(graph, "x", FLOAT32, SHAPE(spec->batch, spec->channels, side, side));
    struct node *w = graph_input(graph, "w", FLOAT32, SHAPE(spec->outputs, spec->channels, 3, 3));
    struct node *y = graph_input(graph, "y", FLOAT32, SHAPE(spec->batch, spec->outputs, side, side));
    graph_output(graph, "result",
                 pass == BENCH_FORWARD         ? node_conv(x, w, 1, 1)
                 : pass == BENCH_BACKWARD_DATA ? node_conv_backward_data(y, w, 1, 1, side, side)
                                               : node_conv_backward_weight(x, y, 1, 1, 3, 3));
    TRY(graph_status(graph));
    TRY(executable_create(library, graph, labels[pass], executable));
done:
    graph_destroy(graph);
    return status;
}

int bench_conv_kernels(struct device *device, enum family family, const struct bench_conv_spec *spec, FILE *program,
                       FILE *launches) {
    int status = RETORT_OK;
    struct library *library = NULL;
    struct executable *executables[BENCH_BACKWARD_WEIGHT + 1] = {NULL};
    TRY(library_create_with(device, family, NULL, &library));
    for (enum bench_conv_pass pass = BENCH_FORWARD; pass <= BENCH_BACKWARD_WEIGHT; pass++) {
        TRY(compile_pass(library, spec, pass, &executables[pass]));
        executable_print(executables[pass], true, launches);
    }
    if (program) TRY(library_write_program(library, program));
done:
    for (int i = 0; i <= BENCH_BACKWARD_WEIGHT; i++) executable_destroy(executables[i]);
    library_destroy(library);
    return status;
}
