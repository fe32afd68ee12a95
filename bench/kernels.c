/* Speed of the hand-written kernels at the shapes distillation uses, beside the peak of fused multiply-adds measured in
 * the same run: kernels [-l LANES] [-f gpu] [WORDS...], where a line is run if its name holds one of the words. */
#include "compile/kernels.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum kind { PEAK, CONV, CONV_DATA, CONV_WEIGHT, MATMUL };

static const char *const kind_name[] = {"peak", "conv", "conv-data", "conv-weight", "matmul"};

/* One line of the report. Convolutions are 3x3, stride 1, padding 1. */
struct line {
    enum kind kind;
    int64_t n, c, side, o;
    struct matmul_sizes product;
    char name[64];
    size_t elements[3]; /* of result, first and second operand */
    double flops;
    struct conv_use use;
    struct device_kernel *pack, *main, *finish;
};

static const char peak_text[] =
    "__attribute__((reqd_work_group_size(1, 1, 1))) kernel void peak(global float *y, ulong y_offset) {\n"
    "    floatv sum[16];\n"
    "    UNROLL for (int i = 0; i < 16; i++) sum[i] = i;\n"
    "    const floatv a = y[y_offset], b = y[y_offset + 1];\n"
    "    for (int k = 0; k < 20000; k++) {\n"
    "        UNROLL for (int i = 0; i < 16; i++) sum[i] = FMA(sum[i], a, b);\n"
    "    }\n"
    "    floatv total = 0;\n"
    "    UNROLL for (int i = 0; i < 16; i++) total += sum[i];\n"
    "    y[y_offset + 2 + get_global_id(0)] = LANE_SUM(total);\n"
    "}\n";

enum { PEAK_ITEMS = 32 };

static void add_text(struct text *text, const struct kernel_use *use, const char *name) {
    if (!use->file) return;
    text_printf(text, "#define NAME %s\n%s", name, use->parameters);
    text_append(text, kernels_text(use->file));
}

static void name_line(struct line *line) {
    const struct matmul_sizes *s = &line->product;
    if (line->kind == PEAK)
        snprintf(line->name, sizeof line->name, "peak");
    else if (line->kind == MATMUL)
        snprintf(line->name, sizeof line->name, "matmul %s%s %" PRId64 "x%" PRId64 "x%" PRId64 " *%" PRId64,
                 s->transpose_a ? "T" : "N", s->transpose_b ? "T" : "N", s->m, s->k, s->n, s->batch);
    else
        snprintf(line->name, sizeof line->name, "%s %" PRId64 ", %" PRId64 ">%" PRId64 ", %" PRId64,
                 kind_name[line->kind], line->n, line->c, line->o, line->side);
}

static int plan_line(const struct kernel_target *target, struct line *line) {
    int status = RETORT_OK;
    if (line->kind == PEAK) {
        line->flops = 2.0 * 16 * 20000 * PEAK_ITEMS * target->lanes;
        line->elements[0] = PEAK_ITEMS + 2;
        return RETORT_OK;
    }
    if (line->kind == MATMUL) {
        struct matmul_sizes s = line->product;
        struct matmul_use use;
        TRY(kernels_matmul(target, &s, &use));
        line->use = (struct conv_use){.packed_floats = use.packed_floats, .pack = use.pack, .main = use.main};
        line->flops = 2.0 * (double)s.batch * (double)s.m * (double)s.n * (double)s.k;
        line->elements[0] = (size_t)(s.batch * s.m * s.n);
        line->elements[1] = (size_t)(s.batch * s.m * s.k);
        line->elements[2] = (size_t)(s.batch * s.k * s.n);
        return RETORT_OK;
    }
    struct conv_sizes s = {.n = line->n,
                           .c = line->c,
                           .h = line->side,
                           .w = line->side,
                           .o = line->o,
                           .kh = 3,
                           .kw = 3,
                           .oh = line->side,
                           .ow = line->side,
                           .stride = 1,
                           .padding = 1};
    enum layout x = kernels_conv_layout(target, s.c), y = kernels_conv_layout(target, s.o);
    int64_t v = target->lanes, pixels = s.n * s.h * s.w;
    size_t x_elements = (size_t)(pixels * (x == LAYOUT_BLOCKED ? (s.c + v - 1) / v * v : s.c));
    size_t y_elements = (size_t)(pixels * (y == LAYOUT_BLOCKED ? (s.o + v - 1) / v * v : s.o));
    size_t w_elements = (size_t)(s.o * s.c * 9);
    switch (line->kind) {
    case CONV:
        TRY(kernels_conv(target, &s, x, y, &line->use));
        memcpy(line->elements, (size_t[]){y_elements, x_elements, w_elements}, sizeof line->elements);
        break;
    case CONV_DATA:
        TRY(kernels_conv_backward_data(target, &s, x, y, &line->use));
        memcpy(line->elements, (size_t[]){x_elements, y_elements, w_elements}, sizeof line->elements);
        break;
    default:
        TRY(kernels_conv_backward_weight(target, &s, x, y, &line->use));
        memcpy(line->elements, (size_t[]){w_elements, x_elements, y_elements}, sizeof line->elements);
    }
    line->flops = 2.0 * (double)pixels * (double)s.c * (double)s.o * 9;
done:
    return status;
}

/* Seconds of one launch: the best of several rounds, each long enough for the clock. */
static int measure(struct device *device, struct device_kernel *kernel, const struct kernel_use *use, double *seconds) {
    int status = RETORT_OK;
    double best = INFINITY, begun = clock_seconds();
    int repeat = 1;
    for (int round = 0; round < 40 && (round < 5 || clock_seconds() - begun < 0.25); round++) {
        double start = clock_seconds();
        for (int i = 0; i < repeat; i++) TRY(device_launch(device, kernel, use->global, use->local));
        TRY(device_finish(device));
        double taken = (clock_seconds() - start) / repeat;
        if (round > 0 && taken < best) best = taken;
        if (taken * repeat < 0.002 && repeat < 1000) repeat *= 4, round = 0;
    }
    *seconds = best;
done:
    return status;
}

static int run_line(struct device *device, struct line *line, double *peak) {
    int status = RETORT_OK;
    struct device_buffer *operand[3] = {NULL}, *packed = NULL, *work = NULL;
    for (int i = 0; i < 3; i++) {
        size_t bytes = (line->elements[i] + 1) * sizeof(float);
        TRY(device_buffer_create(device, bytes, "operand", &operand[i]));
        float *values = calloc(1, bytes);
        if (!values) RAISE(RETORT_ENOMEM, "%zu bytes", bytes);
        for (size_t k = 0; k < line->elements[i]; k++) values[k] = (float)(k * 2654435761u % 1000) / 1000 - 0.5f;
        status = device_write(device, operand[i], 0, bytes, values);
        free(values);
        TRY(status);
    }
    TRY(device_buffer_create(device, line->use.packed_floats * sizeof(float), "packed", &packed));
    TRY(device_buffer_create(device, line->use.work_floats * sizeof(float), "work", &work));
    double main_seconds = 0, side_seconds = 0;
    struct kernel_use main_use = line->use.main;
    if (line->kind == PEAK) main_use = (struct kernel_use){.global = {PEAK_ITEMS, 1, 1}, .local = {1, 1, 1}};
    struct device_buffer *second = line->use.packed_floats ? packed : operand[2];
    if (line->pack) {
        TRY(device_kernel_set_buffer(line->pack, 0, packed, 0));
        TRY(device_kernel_set_buffer(line->pack, 1, operand[2], 0));
        TRY(measure(device, line->pack, &line->use.pack, &side_seconds));
    }
    TRY(device_kernel_set_buffer(line->main, 0, line->finish ? work : operand[0], 0));
    if (line->kind != PEAK) {
        TRY(device_kernel_set_buffer(line->main, 1, operand[1], 0));
        TRY(device_kernel_set_buffer(line->main, 2, second, 0));
    }
    TRY(measure(device, line->main, &main_use, &main_seconds));
    if (line->finish) {
        TRY(device_kernel_set_buffer(line->finish, 0, operand[0], 0));
        TRY(device_kernel_set_buffer(line->finish, 1, work, 0));
        TRY(measure(device, line->finish, &line->use.finish, &side_seconds));
    }
    double speed = line->flops / main_seconds * 1e-9, total = line->flops / (main_seconds + side_seconds) * 1e-9;
    if (line->kind == PEAK) *peak = fmax(*peak, speed);
    printf("%-32s %9.4f ms %8.1f GFLOP/s %5.1f %%   pack or finish %7.4f ms, together %5.1f %%\n", line->name,
           main_seconds * 1e3, speed, 100 * speed / *peak, side_seconds * 1e3, 100 * total / *peak);
done:
    for (int i = 0; i < 3; i++) device_buffer_destroy(operand[i]);
    device_buffer_destroy(packed);
    device_buffer_destroy(work);
    return status;
}

static int run_all(struct kernel_target target, struct device *device, struct line *lines, int count) {
    int status = RETORT_OK;
    struct text text;
    struct device_program *program = NULL;
    double peak = 0;
    text_init(&text);
    kernels_preamble(&text, target.lanes);
    text_append(&text, peak_text);
    for (int i = 0; i < count; i++) {
        char name[32];
        struct line *line = &lines[i];
        TRY(plan_line(&target, line));
        snprintf(name, sizeof name, "pack_%d", i);
        add_text(&text, &line->use.pack, name);
        snprintf(name, sizeof name, "main_%d", i);
        add_text(&text, &line->use.main, name);
        snprintf(name, sizeof name, "finish_%d", i);
        add_text(&text, &line->use.finish, name);
    }
    double start = clock_seconds();
    TRY(device_program_create(device, text_get(&text), "-cl-std=CL1.2", &program));
    printf("%d lanes, program built in %.2f s\n", target.lanes, clock_seconds() - start);
    for (int i = 0; i < count; i++) {
        char name[32];
        struct line *line = &lines[i];
        snprintf(name, sizeof name, "pack_%d", i);
        if (line->use.pack.file) TRY(device_kernel_create(program, name, &line->pack));
        snprintf(name, sizeof name, "main_%d", i);
        TRY(device_kernel_create(program, line->kind == PEAK ? "peak" : name, &line->main));
        snprintf(name, sizeof name, "finish_%d", i);
        if (line->use.finish.file) TRY(device_kernel_create(program, name, &line->finish));
        TRY(run_line(device, line, &peak));
    }
done:
    for (int i = 0; i < count; i++) {
        device_kernel_destroy(lines[i].pack);
        device_kernel_destroy(lines[i].main);
        device_kernel_destroy(lines[i].finish);
    }
    device_program_destroy(program);
    text_finish(&text);
    return status;
}

static const int64_t conv_shapes[][4] = {
    /* n, c, side, o */
    {10, 1, 28, 32},     {10, 32, 14, 32},   {10, 32, 7, 32},    {256, 1, 28, 32},    {256, 32, 14, 32},
    {256, 32, 7, 32},    {10, 3, 32, 128},   {10, 128, 16, 128}, {10, 128, 8, 128},   {100, 3, 32, 128},
    {100, 128, 16, 128}, {100, 128, 8, 128}, {256, 3, 32, 128},  {256, 128, 16, 128}, {256, 128, 8, 128},
    {10, 128, 4, 128},   {10, 64, 32, 64},
};
static const struct matmul_sizes products[] = {
    {1, 10, 10, 288, false, true},      {1, 256, 10, 288, false, true},   {1, 256, 288, 10, false, false},
    {1, 10, 288, 256, true, false},     {1, 100, 10, 2048, false, true},  {1, 100, 2048, 10, false, false},
    {1, 10, 2048, 100, true, false},    {1, 100, 100, 784, false, true},  {1, 784, 100, 100, true, false},
    {1, 128, 1152, 3072, false, false}, {1, 512, 512, 512, false, false}, {100, 28, 28, 28, false, false},
    {300, 32, 32, 32, false, true},
};

int main(int argc, char **argv) {
    int status = RETORT_OK, option;
    struct device *device = NULL;
    struct kernel_target target = {.family = FAMILY_CPU};
    static struct line lines[128];
    int count = 0;
    while ((option = getopt(argc, argv, "l:f:")) != -1)
        if (option == 'l')
            target.lanes = atoi(optarg);
        else if (option == 'f' && strcmp(optarg, "gpu") == 0)
            target.family = FAMILY_GPU;
        else
            return 2;
    TRY(device_open(NULL, &device));
    target.traits = device_traits(device);
    if (!target.lanes) target.lanes = target.family == FAMILY_GPU ? 1 : (int)target.traits->vector_width;
    lines[count++].kind = PEAK;
    for (size_t i = 0; i < sizeof conv_shapes / sizeof *conv_shapes; i++)
        for (enum kind kind = CONV; kind <= CONV_WEIGHT; kind++)
            lines[count++] = (struct line){.kind = kind,
                                           .n = conv_shapes[i][0],
                                           .c = conv_shapes[i][1],
                                           .side = conv_shapes[i][2],
                                           .o = conv_shapes[i][3]};
    for (size_t i = 0; i < sizeof products / sizeof *products; i++)
        lines[count++] = (struct line){.kind = MATMUL, .product = products[i]};
    lines[count++].kind = PEAK;
    int kept = 0;
    for (int i = 0; i < count; i++) {
        name_line(&lines[i]);
        bool keep = lines[i].kind == PEAK || optind == argc;
        for (int a = optind; a < argc && !keep; a++) keep = strstr(lines[i].name, argv[a]) != NULL;
        if (keep) lines[kept++] = lines[i];
    }
    TRY(run_all(target, device, lines, kept));
done:
    if (status < 0) fprintf(stderr, "kernels: %s\n", retort_error_message());
    device_close(device);
    return status < 0;
}
