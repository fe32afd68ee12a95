/* Wisdom: the file and back, what is damaged or for others, and that nothing in it can spoil a kernel. */
#include "test.h"

#include "base/log.h"
#include "compile/wisdom.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/retort-wisdom-XXXXXX", path[FILE_PATH_MAX];
static const struct device_traits traits = {.kind = DEVICE_CPU,
                                            .name = "a\tdevice",
                                            .driver = "1.0 test",
                                            .compute_units = 2,
                                            .vector_width = 16,
                                            .max_work_group = 64};
static const struct device_traits other_driver = {
    .kind = DEVICE_CPU, .name = "a\tdevice", .driver = "1.1 test", .compute_units = 2, .vector_width = 16};

static const struct kernel_class forward = {CONV_FORWARD, {10, 40, 9, 9, 64, 3, 3, 9, 9, 1, 1}, CONV_SINGLE};
static const struct kernel_class data = {CONV_BACKWARD_DATA, {10, 40, 9, 9, 64, 3, 3, 9, 9, 1, 1}, CONV_SINGLE};
static const struct kernel_class weight = {CONV_BACKWARD_WEIGHT, {10, 40, 9, 9, 64, 3, 3, 9, 9, 1, 1}, CONV_SINGLE};
static const struct kernel_class joined = {CONV_FORWARD, {10, 40, 9, 9, 64, 3, 3, 9, 9, 1, 1}, {2, 2, 2, 97}};
static const struct kernel_class joined_weight = {
    CONV_BACKWARD_WEIGHT, {10, 40, 9, 9, 64, 3, 3, 9, 9, 1, 1}, {1, 2, 2, 0}};

/* Standard error of a call, as the log writes it. */
static char said[4096];
static struct wisdom *load(const struct device_traits *of) {
    const struct kernel_target target = kernels_target(of, FAMILY_AUTO);
    struct wisdom *wisdom;
    FILE *capture = tmpfile();
    assert_non_null(capture);
    fflush(stderr);
    int kept = dup(STDERR_FILENO);
    dup2(fileno(capture), STDERR_FILENO);
    int status = wisdom_load(path, &target, &wisdom);
    fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    rewind(capture);
    said[fread(said, 1, sizeof said - 1, capture)] = '\0';
    fclose(capture);
    assert_ok(status);
    return wisdom;
}

static int lines_said(void) {
    int lines = 0;
    for (const char *c = said; *c; c++) lines += *c == '\n';
    return lines;
}

static void assert_known(const struct wisdom *wisdom, const struct kernel_class *class,
                         const struct kernel_choice *right) {
    const struct kernel_choice *found = wisdom_find(wisdom, class);
    if (!right) {
        assert_null(found);
        return;
    }
    assert_non_null(found);
    assert_string_equal(found->variant, right->variant);
    assert_memory_equal(found->parameters, right->parameters, sizeof right->parameters);
}

static void write_text(const char *text) {
    assert_ok(file_write(path, text, strlen(text)));
}

static void test_round_trip(void **state) {
    (void)state;
    const struct kernel_target target = kernels_target(&traits, FAMILY_AUTO),
                               others = kernels_target(&other_driver, FAMILY_AUTO);
    const struct kernel_choice winograd = {"winograd4", {16, 8, 2, 1, 1, 1}}, direct = {"direct", {2, 4, 2}},
                               own = {"winograd2", {0}}, groups = {"winograd4", {2, 4, 2, 2, 33, 1}};
    char name[17], again[17];
    assert_int_equal(file_exists(path), 0);
    struct wisdom *wisdom = load(&traits);
    wisdom_name(wisdom, name);
    assert_string_equal(name, "none");
    wisdom_destroy(wisdom);
    wisdom_name(NULL, name);
    assert_string_equal(name, "none");

    assert_ok(wisdom_remember(path, &target, &forward, &winograd));
    assert_ok(wisdom_remember(path, &target, &data, &direct));
    assert_ok(wisdom_remember(path, &target, &weight, &groups));
    assert_ok(wisdom_remember(path, &others, &forward, &direct));
    assert_ok(wisdom_remember(path, &target, &joined, &own));
    wisdom = load(&traits);
    assert_string_equal(said, "");
    assert_known(wisdom, &forward, &winograd);
    assert_known(wisdom, &data, &direct);
    assert_known(wisdom, &weight, &groups);
    assert_known(wisdom, &joined, &own);
    assert_known(wisdom, &joined_weight, NULL);
    wisdom_name(wisdom, name);
    assert_int_equal(strlen(name), 16);

    /* A copy of these decisions alone has the same hash, and holds nothing of other devices. */
    char copy[FILE_PATH_MAX];
    assert_ok(path_join(folder, "copy", copy));
    assert_ok(wisdom_save(wisdom, NULL, copy));
    wisdom_destroy(wisdom);
    struct wisdom *copied;
    assert_ok(wisdom_load(copy, &target, &copied));
    wisdom_name(copied, again);
    assert_string_equal(name, again);
    wisdom_destroy(copied);
    assert_ok(wisdom_load(copy, &others, &copied));
    assert_known(copied, &forward, NULL);
    wisdom_destroy(copied);

    /* Changed in place, and forgotten; another device's stays. */
    assert_ok(wisdom_remember(path, &target, &forward, &own));
    assert_ok(wisdom_remember(path, &target, &data, NULL));
    assert_ok(wisdom_remember(path, &target, &joined_weight, NULL));
    wisdom = load(&traits);
    assert_known(wisdom, &forward, &own);
    assert_known(wisdom, &data, NULL);
    wisdom_name(wisdom, again);
    assert_string_not_equal(name, again);
    wisdom_destroy(wisdom);
    wisdom = load(&other_driver);
    assert_known(wisdom, &forward, &direct);
    wisdom_destroy(wisdom);
}

#define DEVICE  "conv\ta device\t1.0 test\t16 2\t"
#define CLASS   "forward 10 40 9 9 64 3 3 1 1\t1 1 1 1\t"
#define GEMM    "gemm\ta device\t1.0 test\t16 2\t"
#define PRODUCT "product 1 100 256 784\t0 1\t"

static void test_damaged(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",
        "conv",
        "\t\t\t\t\t\t",
        "tuned\ta device\t1.0 test\t16 2\tx",
        "tuned\ta device\t1.0 test",
        "bad\ta device\t1.0 test\t16 2\t" CLASS "nothing 1",
        "gemm\ta device\t1.0 test\t16 2\t" CLASS "4 16 8 2",
        "conv\ta device\t1.0 test\t16 2\t" PRODUCT "clblast",
        "bad\ta device\t1.0 test\t16 2\t" PRODUCT "direct 0 0 0",
        "bad\ta device\t1.0 test\t16 2\t" CLASS "own",
        DEVICE CLASS "clblast",
        GEMM PRODUCT "winograd4 16 8 2",
        DEVICE CLASS "winograd4 16 8",
        DEVICE CLASS "winograd4 16 8 2 1 1 1 1",
        DEVICE CLASS "direct 2 4",
        GEMM PRODUCT "clblast 1",
        GEMM PRODUCT "own 4 4 4 4 4 4 1 1", /* of the other family */
        GEMM PRODUCT "cublas",
        GEMM PRODUCT,
        GEMM "product 0 100 256 784\t0 1\tclblast",
        GEMM "product 1 0 256 784\t0 1\tclblast",
        GEMM "product 1 100 256\t0 1\tclblast",
        GEMM "product 1 100 256 784\t0 2\tclblast",
        GEMM "product 1 2147483647 2147483647 784\t0 1\tclblast",
        DEVICE CLASS,
        DEVICE CLASS "4 16 8",
        DEVICE CLASS "4 16 8 2 1 1 1 1",
        DEVICE CLASS "4 16 8 two",
        DEVICE CLASS "4 16 8 99999999999999999999",
        DEVICE CLASS "4 16 8 -2",
        DEVICE CLASS " 4 16 8 2",
        DEVICE "sideways 10 40 9 9 64 3 3 1 1\t1 1 1 1\t4 16 8 2",
        DEVICE "forward 10 40 9 9 64 3 3 0 1\t1 1 1 1\t4 16 8 2",
        DEVICE "forward 0 40 9 9 64 3 3 1 1\t1 1 1 1\t4 16 8 2",
        DEVICE "forward\t1 1 1 1\t4 16 8 2",
        DEVICE "forward 10 40 9 9 64 30 30 1 1\t1 1 1 1\t0 1 1 1",
        DEVICE "forward 2147483647 2147483647 9 9 64 3 3 1 1\t1 1 1 1\t0 1 1 1",
        DEVICE "forward 10 40 9 9 64 3 3 1 1\t3 1 1 1\t4 16 8 2",
        DEVICE "forward 10 40 9 9 64 3 3 1 1\t1 1 1 2\t4 16 8 2",
        /* beyond what kernels allow */
        DEVICE CLASS "3 16 8 2",
        DEVICE CLASS "4 17 8 2",
        DEVICE CLASS "4 16 0 2",
        DEVICE CLASS "4 16 8 9",
        DEVICE CLASS "4 2147483647 2147483647 2147483647",
        DEVICE CLASS "0 4 20 3",
        DEVICE CLASS "0 1 1 5",
        DEVICE CLASS "0 0 4 1",
        DEVICE CLASS "4 48 12 2147483647",
        DEVICE "backward-weight 10 40 9 9 64 3 3 1 1\t1 1 1 1\t4 9 3 2",
        DEVICE "backward-weight 10 40 9 9 64 3 3 1 1\t1 1 1 1\t0 1 1 1",
        DEVICE "backward-weight 10 40 9 9 64 3 3 1 1\t1 1 1 1\t4 64 2 2",
        DEVICE "forward 10 40 9 9 64 5 5 1 2\t1 1 1 1\t4 0 0 0",
        DEVICE "forward 10 3 9 9 64 3 3 1 1\t1 1 1 1\t4 0 0 0",
        DEVICE "forward 10 40 9 9 64 3 3 1 1\t2 2 2 97\t0 0 0 0",
    };
    const struct kernel_choice right = {"winograd4", {16, 8, 2, 1, 1, 1}};
    char text[4096];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "retort wisdom 1\n%s%s\n%s4 16 8 2\n", i % 2 ? DEVICE CLASS "2 0 0 0\n" : "",
                 bad[i], DEVICE CLASS);
        write_text(text);
        struct wisdom *wisdom = load(&traits);
        assert_known(wisdom, &forward, &right);
        char where[FILE_PATH_MAX + 8];
        snprintf(where, sizeof where, "%s:%d:", path, i % 2 ? 3 : 2);
        if (!strstr(said, where) || lines_said() != 1) fail_msg("line '%s': said '%s'", bad[i], said);
        wisdom_destroy(wisdom);
    }
    /* Many: one warning. The last line may lack its end. */
    write_text("retort wisdom 1\nx\ny\n\nz\n" DEVICE CLASS "4 16 8 2");
    struct wisdom *wisdom = load(&traits);
    assert_known(wisdom, &forward, &right);
    assert_int_equal(lines_said(), 1);
    assert_non_null(strstr(said, "with others below"));
    wisdom_destroy(wisdom);
    /* A zero byte in the middle. */
    static const char zero[] = "retort wisdom 1\n" DEVICE CLASS "4 16 8 2\0 2\n" DEVICE CLASS "2 0 0 0\n";
    assert_ok(file_write(path, zero, sizeof zero - 1));
    wisdom = load(&traits);
    assert_known(wisdom, &forward, &(struct kernel_choice){.variant = "winograd2"});
    assert_int_equal(lines_said(), 1);
    wisdom_destroy(wisdom);
}

static void test_foreign_file(void **state) {
    (void)state;
    const struct kernel_target target = kernels_target(&traits, FAMILY_AUTO);
    const struct kernel_choice choice = {"winograd4", {16, 8, 2, 1, 1, 1}};
    static const char letter[] = "Dear reader,\n" DEVICE CLASS "4 16 8 2\n";
    write_text(letter);
    struct wisdom *wisdom = load(&traits);
    assert_known(wisdom, &forward, NULL);
    assert_int_equal(lines_said(), 1);
    wisdom_destroy(wisdom);
    /* A file that is no wisdom is not overwritten. */
    assert_int_equal(wisdom_remember(path, &target, &forward, &choice), RETORT_EFORMAT);
    unsigned char *kept;
    size_t size;
    assert_ok(file_read(path, 0, &kept, &size));
    assert_string_equal((char *)kept, letter);
    free(kept);
    /* A folder in its place. */
    assert_ok(path_join(folder, "", path));
    wisdom = load(&traits);
    assert_int_equal(lines_said(), 1);
    wisdom_destroy(wisdom);
    assert_true(wisdom_remember(path, &target, &forward, &choice) < 0);
    assert_ok(path_join(folder, "wisdom", path));
}

/* Choices for matrix products stand beside those of convolutions, in lines of their own. A library that is bad for one
 * product is bad for all. */
static void test_products(void **state) {
    (void)state;
    const struct kernel_target file_target = kernels_target(&traits, FAMILY_AUTO);
    struct kernel_target target = file_target;
    const struct kernel_class product = class_of_product(&(struct matmul_sizes){1, 100, 256, 784, false, true}),
                              other = class_of_product(&(struct matmul_sizes){1, 100, 256, 784, true, false}),
                              batch = class_of_product(&(struct matmul_sizes){5, 100, 256, 784, false, true});
    const struct kernel_choice called = {.variant = "clblast"}, own = {.variant = "own"},
                               winograd = {"winograd4", {16, 8, 2, 1, 1, 1}};
    char before[17], name[17], again[17];
    write_text("retort wisdom 2\n" DEVICE CLASS "winograd4 16 8 2\n");
    struct wisdom *wisdom = load(&traits);
    wisdom_name(wisdom, before);
    wisdom_destroy(wisdom);
    assert_ok(wisdom_remember(path, &file_target, &product, &called));
    unsigned char *text;
    size_t size;
    assert_ok(file_read(path, 1 << 16, &text, &size));
    assert_non_null(strstr((const char *)text, "\n" DEVICE CLASS "winograd4 16 8 2\n" GEMM PRODUCT "clblast\n"));
    free(text);
    wisdom = load(&traits);
    assert_string_equal(said, "");
    assert_known(wisdom, &product, &called);
    assert_known(wisdom, &other, NULL);
    assert_known(wisdom, &batch, NULL);
    assert_known(wisdom, &forward, &winograd);
    assert_int_equal(wisdom_library_classes(wisdom), 1);
    assert_false(wisdom_refuses_library(wisdom));
    wisdom_name(wisdom, name);
    assert_string_not_equal(name, before);
    assert_ok(wisdom_save(wisdom, NULL, path)); /* as a run's folder keeps it */
    wisdom_destroy(wisdom);
    wisdom = load(&traits);
    assert_known(wisdom, &product, &called);
    wisdom_name(wisdom, again);
    assert_string_equal(name, again);

    /* It is taken where the library has passed its test, and then for that class alone. */
    target.wisdom = wisdom;
    assert_string_equal(kernels_choice(&target, &product).variant, "own");
    target.calls = (struct device *)&traits; /* not looked at */
    assert_string_equal(kernels_choice(&target, &product).variant, "clblast");
    assert_string_equal(kernels_choice(&target, &other).variant, "own");
    assert_string_equal(kernels_choice(&target, &forward).variant, "winograd4");
    target.gemm = "own";
    assert_string_equal(kernels_choice(&target, &product).variant, "own");
    target.gemm = "clblast";
    assert_string_equal(kernels_choice(&target, &other).variant, "clblast");
    assert_ok(wisdom_refuse(wisdom, &target, &batch, &called));
    assert_string_equal(kernels_choice(&target, &other).variant, "own");
    assert_true(wisdom_refuses_library(wisdom));
    assert_true(wisdom_refuses(wisdom, &other, &called));
    assert_false(wisdom_refuses(wisdom, &other, &own));
    wisdom_destroy(wisdom);

    assert_ok(wisdom_remember_bad(path, &file_target, &other, &called));
    assert_ok(wisdom_remember_bad(path, &file_target, &product, &called));
    assert_ok(wisdom_remember(path, &file_target, &product, NULL));
    wisdom = load(&traits);
    assert_string_equal(said, "");
    assert_known(wisdom, &product, NULL);
    assert_true(wisdom_refuses_library(wisdom));
    wisdom_destroy(wisdom);
    assert_ok(file_read(path, 1 << 16, &text, &size));
    assert_string_equal((const char *)text, "retort wisdom 2\n" DEVICE CLASS "winograd4 16 8 2\n"
                                            "bad\ta device\t1.0 test\t16 2\tproduct 1 100 256 784\t1 0\tclblast\n");
    free(text);
}

/* A file of the first version, in which ways had numbers, says the same as one of today, and its decisions keep their
 * name; entering a decision brings it up to date. */
static void test_first_version(void **state) {
    (void)state;
    const struct kernel_target target = kernels_target(&traits, FAMILY_AUTO);
    const struct kernel_choice winograd = {"winograd4", {16, 8, 2, 1, 1, 1}}, own = {"direct", {0}};
    char old[17], new[17];
    write_text("retort wisdom 1\n" DEVICE CLASS "4 16 8 2\n" DEVICE
               "backward-data 10 40 9 9 64 3 3 1 1\t1 1 1 1\t0 0 0 0\n");
    struct wisdom *wisdom = load(&traits);
    assert_string_equal(said, "");
    assert_known(wisdom, &forward, &winograd);
    assert_known(wisdom, &data, &own);
    wisdom_name(wisdom, old);
    wisdom_destroy(wisdom);
    write_text("retort wisdom 2\n" DEVICE CLASS "winograd4 16 8 2\n" DEVICE
               "backward-data 10 40 9 9 64 3 3 1 1\t1 1 1 1\tdirect 0 0 0\n");
    wisdom = load(&traits);
    assert_string_equal(said, "");
    wisdom_name(wisdom, new);
    assert_string_equal(old, new);
    wisdom_destroy(wisdom);
    write_text("retort wisdom 1\n" DEVICE CLASS "4 16 8 2\n");
    assert_ok(wisdom_remember(path, &target, &data, &own));
    wisdom = load(&traits);
    assert_known(wisdom, &forward, &winograd);
    wisdom_name(wisdom, new);
    assert_string_equal(old, new);
    wisdom_destroy(wisdom);
    unsigned char *text;
    size_t size;
    assert_ok(file_read(path, 1 << 16, &text, &size));
    assert_int_equal(strncmp((const char *)text, "retort wisdom 2\n", 16), 0);
    free(text);
}

/* Bad choices are never taken, whatever the batch; the mark of a tuned device changes no kernel, and no name. */
static void test_bad_choices(void **state) {
    (void)state;
    const struct kernel_target file_target = kernels_target(&traits, FAMILY_AUTO);
    struct kernel_target target = file_target;
    const struct kernel_choice tuned = {"winograd4", {16, 8, 2, 1, 1, 1}}, own = {.variant = "winograd4"},
                               next = {.variant = "winograd2"};
    struct kernel_class larger = forward;
    char name[17], again[17];
    larger.sizes.n = 50;
    write_text("retort wisdom 2\n" DEVICE CLASS "winograd4 16 8 2\n");
    struct wisdom *wisdom = load(&traits);
    wisdom_name(wisdom, name);
    wisdom_destroy(wisdom);
    assert_ok(wisdom_remember_tuned(path, &file_target));
    wisdom = load(&traits);
    assert_string_equal(said, "");
    assert_true(wisdom_is_tuned(wisdom));
    wisdom_name(wisdom, again);
    assert_string_equal(name, again);
    target.wisdom = wisdom;
    assert_string_equal(kernels_choice(&target, &forward).variant, "winograd4");
    assert_int_equal(kernels_choice(&target, &forward).parameters[0], 16);
    /* the tuned choice, then the row's own, then the next row's, at last the plainest, at last nothing */
    assert_ok(wisdom_refuse(wisdom, &target, &larger, &tuned));
    assert_string_equal(kernels_choice(&target, &forward).variant, "winograd4");
    assert_int_equal(kernels_choice(&target, &forward).parameters[0], 0);
    assert_ok(wisdom_refuse(wisdom, &target, &forward, &own));
    for (int i = 0; i < 2; i++) {
        const struct kernel_choice choice = kernels_choice(&target, i == 1 ? &larger : &forward);
        assert_string_equal(choice.variant, "direct"); /* winograd2 does not apply by itself */
        assert_ok(wisdom_refuse(wisdom, &target, &forward, &choice));
    }
    assert_null(kernels_choice(&target, &forward).variant);
    static struct kernel_plan plan;
    assert_int_equal(kernels_plan(&target, &forward, &plan), RETORT_EDEVICE);
    assert_string_equal(kernels_choice(&target, &data).variant, "winograd4");
    /* they are kept by a copy, which the mark is not */
    wisdom_name(wisdom, again);
    assert_string_not_equal(name, again);
    assert_ok(wisdom_save(wisdom, NULL, path));
    wisdom_destroy(wisdom);
    wisdom = load(&traits);
    wisdom_name(wisdom, name);
    assert_string_equal(name, again);
    target.wisdom = wisdom;
    assert_null(kernels_choice(&target, &forward).variant);
    wisdom_destroy(wisdom);
    /* a launch of several terms that is bad is one launch a convolution */
    write_text("retort wisdom 2\n");
    assert_ok(wisdom_remember_bad(path, &file_target, &joined, &own));
    assert_ok(wisdom_remember_bad(path, &file_target, &joined, &own));
    wisdom = load(&traits);
    assert_string_equal(said, "");
    target.wisdom = wisdom;
    assert_false(wisdom_is_tuned(wisdom));
    assert_false(kernels_conv_joins(&target, CONV_FORWARD, &forward.sizes));
    assert_true(kernels_conv_joins(&target, CONV_BACKWARD_DATA, &forward.sizes));
    assert_string_equal(kernels_choice(&target, &forward).variant, "winograd4");
    assert_false(wisdom_refuses(wisdom, &joined, &next));
    wisdom_destroy(wisdom);
    wisdom = load(&other_driver);
    assert_false(wisdom_refuses(wisdom, &joined, &own));
    wisdom_destroy(wisdom);
}

static const char *parameters_of_main(const struct kernel_plan *plan) {
    for (int i = 0; i < plan->launch_count; i++)
        if (plan->launches[i].share == 1) return plan_use(plan, &plan->launches[i])->parameters;
    return "";
}

/* What is asked for is what is chosen; what does not fit is as if nothing was known. */
static void test_choice(void **state) {
    (void)state;
    struct kernel_target target = kernels_target(&traits, FAMILY_AUTO);
    static struct kernel_plan built_in, plan;
    struct wisdom *wisdom;
    assert_ok(kernels_plan(&target, &forward, &built_in));
    assert_string_equal(kernels_choice(&target, &forward).variant, "winograd4");
    assert_ok(wisdom_of_one(&forward, &(struct kernel_choice){"direct", {2, 4, 3}}, &wisdom));
    target.wisdom = wisdom;
    assert_ok(kernels_plan(&target, &forward, &plan));
    assert_string_equal(plan_use(&plan, &plan.launches[plan.launch_count - 1])->file, "conv_cpu.cl");
    assert_non_null(strstr(parameters_of_main(&plan), "TILE_COLUMNS 4\n"));
    assert_false(kernels_conv_joins(&target, CONV_FORWARD, &forward.sizes));
    assert_true(kernels_conv_joins(&target, CONV_BACKWARD_DATA, &forward.sizes));
    wisdom_destroy(wisdom);

    assert_ok(wisdom_of_one(&joined, &(struct kernel_choice){"winograd2", {0, 0, 0}}, &wisdom));
    target.wisdom = wisdom;
    assert_true(kernels_conv_joins(&target, CONV_FORWARD, &forward.sizes));
    assert_ok(kernels_plan(&target, &joined, &plan));
    assert_non_null(strstr(parameters_of_main(&plan), "OUT_TILE 2\n"));
    assert_ok(kernels_plan(&target, &forward, &plan));
    assert_string_equal(parameters_of_main(&plan), parameters_of_main(&built_in));
    wisdom_destroy(wisdom);

    assert_ok(wisdom_of_one(&forward, &(struct kernel_choice){"winograd4", {4096, 1, 1}}, &wisdom));
    target.wisdom = wisdom;
    assert_ok(kernels_plan(&target, &forward, &plan));
    assert_string_equal(parameters_of_main(&plan), parameters_of_main(&built_in));
    wisdom_destroy(wisdom);
}

/* The GPU family's tiles: a tile of its table is taken, one that is not in it is as if nothing was known. */
static void test_choice_of_tiles(void **state) {
    (void)state;
    struct device_traits gpu = traits;
    gpu.kind = DEVICE_GPU;
    gpu.max_work_group = 256;
    gpu.local_memory = 32768;
    struct kernel_target target = kernels_target(&gpu, FAMILY_AUTO);
    static struct kernel_plan built_in, plan;
    struct kernel_choice list[CANDIDATES];
    struct wisdom *wisdom;
    assert_ok(kernels_plan(&target, &forward, &built_in));
    int count = kernels_candidates(&target, &forward, kernels_variant("product"), list), others = 0;
    assert_true(count > 4);
    assert_false(kernels_fits(&target, &forward, &(struct kernel_choice){.variant = "winograd4"}));
    for (int i = 1; i < count; i++) {
        assert_ok(wisdom_of_one(&forward, &list[i], &wisdom));
        target.wisdom = wisdom;
        assert_ok(kernels_plan(&target, &forward, &plan));
        others += strcmp(parameters_of_main(&plan), parameters_of_main(&built_in)) != 0;
        wisdom_destroy(wisdom);
        target.wisdom = NULL;
    }
    assert_true(others >= count - 2);
    list[1].parameters[0]++;
    assert_false(kernels_fits(&target, &forward, &list[1]));
}

/* Own products have tiles too, in whichever way a run is bound to own products. A line without them, as files had, is
 * their own rules and keeps its name; the last resort is the smallest tile. */
static void test_tiles_of_products(void **state) {
    (void)state;
    struct device_traits gpu = traits;
    gpu.kind = DEVICE_GPU;
    gpu.max_work_group = 256;
    gpu.local_memory = 32768;
    struct kernel_target target = kernels_target(&gpu, FAMILY_AUTO);
    const struct kernel_class product = class_of_product(&(struct matmul_sizes){1, 100, 256, 784, false, true});
    const struct kernel_choice own = {.variant = "own"};
    static struct kernel_plan built_in, plan;
    struct kernel_choice list[CANDIDATES];
    char name[17], text[256];
    int count = kernels_candidates(&target, &product, kernels_variant("own"), list);
    assert_true(count > 4);
    assert_ok(kernels_plan(&target, &product, &built_in));
    struct kernel_choice tiled = kernels_explicit(&target, &product, &own);
    for (int i = count - 2; i > 0; i--)
        if (memcmp(list[i].parameters, tiled.parameters, sizeof tiled.parameters) != 0) tiled = list[i];
    write_text("retort wisdom 2\n");
    assert_ok(wisdom_remember(path, &target, &product, &tiled));
    struct wisdom *wisdom = load(&gpu);
    assert_string_equal(said, "");
    assert_known(wisdom, &product, &tiled);
    static const char *const asked[] = {NULL, "auto", "own"};
    target.wisdom = wisdom;
    for (int i = 0; i < 3; i++) {
        target.gemm = asked[i];
        assert_ok(kernels_plan(&target, &product, &plan));
        snprintf(text, sizeof text, "TILE_M %d\n", tiled.parameters[0]);
        assert_non_null(strstr(parameters_of_main(&plan), text));
        assert_string_not_equal(parameters_of_main(&plan), parameters_of_main(&built_in));
    }
    target.gemm = NULL;
    assert_ok(wisdom_refuse(wisdom, &target, &product, &tiled));
    assert_ok(wisdom_refuse(wisdom, &target, &product, &own));
    assert_memory_equal(kernels_choice(&target, &product).parameters, list[count - 1].parameters,
                        sizeof own.parameters);
    wisdom_destroy(wisdom);
    target.wisdom = NULL;

    static const char line[] = "retort wisdom 2\ngemm\ta device\t1.0 test\t1 2\t" PRODUCT "own\n";
    write_text(line);
    wisdom = load(&gpu);
    assert_string_equal(said, "");
    assert_known(wisdom, &product, &own);
    wisdom_name(wisdom, name);
    assert_string_equal(name, "d3d3da021f7e51b5");
    assert_ok(wisdom_save(wisdom, NULL, path));
    wisdom_destroy(wisdom);
    unsigned char *kept;
    size_t size;
    assert_ok(file_read(path, 1 << 16, &kept, &size));
    assert_string_equal((const char *)kept, line);
    free(kept);
}

static void test_path(void **state) {
    (void)state;
    char found[FILE_PATH_MAX];
    setenv("RETORT_WISDOM", "off", 1);
    wisdom_path(found);
    assert_string_equal(found, "");
    setenv("RETORT_WISDOM", "some/where", 1);
    wisdom_path(found);
    assert_string_equal(found, "some/where");
    unsetenv("RETORT_WISDOM");
    setenv("XDG_CACHE_HOME", "/x", 1);
    wisdom_path(found);
    assert_string_equal(found, "/x/retort/wisdom");
    unsetenv("XDG_CACHE_HOME");
    setenv("HOME", "/y", 1);
    wisdom_path(found);
    assert_string_equal(found, "/y/.cache/retort/wisdom");
    unsetenv("HOME");
    wisdom_path(found);
    assert_string_equal(found, "");
}

/* Several processes that enter decisions at once lose none of them. */
static void test_at_once(void **state) {
    (void)state;
    enum { PROCESSES = 4, EACH = 12 };
    const struct kernel_target target = kernels_target(&traits, FAMILY_AUTO);
    const struct kernel_choice direct = {"direct", {1, 1, 1}};
    assert_ok(path_join(folder, "at once", path));
    pid_t children[PROCESSES];
    for (int p = 0; p < PROCESSES; p++) {
        children[p] = fork();
        if (children[p] != 0) continue;
        struct kernel_class class = forward;
        int status = RETORT_OK;
        for (int i = 0; i < EACH && status == RETORT_OK; i++) {
            class.sizes.n = 1 + p * EACH + i;
            status = wisdom_remember(path, &target, &class, &direct);
        }
        _exit(status == RETORT_OK ? 0 : 1);
    }
    for (int p = 0; p < PROCESSES; p++) {
        int status = -1;
        assert_int_equal(waitpid(children[p], &status, 0), children[p]);
        assert_int_equal(status, 0);
    }
    struct wisdom *wisdom = load(&traits);
    struct kernel_class class = forward;
    for (class.sizes.n = 1; class.sizes.n <= PROCESSES * EACH; class.sizes.n++) assert_known(wisdom, &class, &direct);
    wisdom_destroy(wisdom);
    assert_ok(path_join(folder, "wisdom", path));
}

static int prepare(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    return path_join(folder, "wisdom", path);
}

static int clean(void **state) {
    (void)state;
    return folder_remove(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_foreign_file),
        cmocka_unit_test(test_first_version),
        cmocka_unit_test(test_products),
        cmocka_unit_test(test_choice),
        cmocka_unit_test(test_choice_of_tiles),
        cmocka_unit_test(test_bad_choices),
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_at_once),
        cmocka_unit_test(test_tiles_of_products),
    };
    return cmocka_run_group_tests_name("wisdom", tests, prepare, clean);
}
