/* The descriptors of configs/: each loads, its networks fit its images, it says what it costs, and its distillation can
 * be planned for a large GPU, which need not be there. */
#include "test.h"

#include "base/file.h"
#include "distill/distill.h"
#include "run/descriptor.h"
#include "unroll/unroll.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The size of the images that a recipe is for, and the number of classes. */
static void recipe_image(const char *path, const struct descriptor *d, int image[3], int *classes) {
    bool pictures = d->data.kind == DATA_FOLDER || d->data.kind == DATA_CSV;
    int side = d->data.kind == DATA_IDX || d->data.kind == DATA_NPY ? 28 : 32;
    if (pictures) side = d->data.height ? d->data.height : 64; /* Tiny-ImageNet's as they are */
    image[0] = d->data.kind == DATA_IDX || d->data.grey ? 1 : 3;
    image[1] = image[2] = side;
    *classes = d->data.class_count             ? d->data.class_count
               : strstr(path, "imagenet-1k")   ? 1000
               : strstr(path, "tiny-imagenet") ? 200
               : d->data.kind == DATA_CIFAR100 ? 100
                                               : 10;
}

/* Data of that size, black and just large enough for the recipe's batches, or what its networks learn from. */
static void dataset_begin(const struct descriptor *d, const int image[3], int classes, struct dataset *data) {
    enum { LEARNT = 2048 };
    int64_t per_class = d->set.ipc + (d->outer.real_batch + LEARNT) / classes + 1,
            pixels = (int64_t)image[0] * image[1] * image[2];
    *data = (struct dataset){
        .count = per_class * classes, .channels = image[0], .height = image[1], .width = image[2], .classes = classes};
    data->images = calloc((size_t)(data->count * pixels), sizeof *data->images);
    data->labels = calloc((size_t)data->count, sizeof *data->labels);
    data->class_names = calloc((size_t)classes, sizeof *data->class_names);
    data->class_rows = calloc((size_t)data->count, sizeof *data->class_rows);
    data->class_begin = calloc((size_t)classes + 1, sizeof *data->class_begin);
    assert_true(data->images && data->labels && data->class_names && data->class_rows && data->class_begin);
    for (int64_t i = 0; i < data->count; i++) {
        data->class_rows[i] = i;
        data->labels[i] = (int32_t)(i / per_class);
    }
    for (int c = 0; c <= classes; c++) data->class_begin[c] = c * per_class;
}

/* On a described GPU of 80 GB. */
static void plan(const char *path, const struct descriptor *d, const struct dataset *data,
                 const struct network *network) {
    struct device *gpu;
    struct library *library;
    struct distill *distill;
    char text[300];
    assert_ok(device_open_described("h100", &gpu));
    device_set_ceiling(gpu, d->memory);
    assert_ok(library_create_with(gpu, FAMILY_AUTO, NULL, &library));
    const struct distill_problem problem = {.library = library,
                                            .train = data,
                                            .network = network,
                                            .inner = d->inner,
                                            .set = d->set,
                                            .outer = d->outer,
                                            .method = descriptor_method(d),
                                            .method_spec = d->method_spec,
                                            .plan_only = true};
    int status = distill_create(&problem, &distill);
    if (status < 0) fail_msg("%s: %s", path, retort_error_message());
    unroll_describe(distill_unroll(distill), text, sizeof text);
    print_message("# %s: %s\n", strrchr(path, '/') + 1, text);
    assert_in_range(unroll_bytes(distill_unroll(distill)), 1,
                    d->memory ? d->memory : device_traits(gpu)->global_memory);
    distill_destroy(distill);
    library_destroy(library);
    device_close(gpu);
}

static void tells_its_cost(const char *path) {
    static const char *const costs[] = {"measured", "minute", "as long", "seconds"};
    unsigned char *text;
    size_t size;
    bool told = false;
    assert_ok(file_read(path, 0, &text, &size));
    for (size_t k = 0; k < sizeof costs / sizeof *costs; k++) told |= strstr((char *)text, costs[k]) != NULL;
    if (!told) fail_msg("%s does not say what it costs", path);
    free(text);
}

static void check(const char *path) {
    struct descriptor d;
    struct network network, evaluated;
    struct dataset data;
    int image[3], classes;
    assert_ok(descriptor_read(path, NULL, 0, &d));
    recipe_image(path, &d, image, &classes);
    assert_ok(network_describe(&d.network, image[0], image[1], image[2], classes, &network));
    assert_ok(network_describe(&d.evaluate_network, image[0], image[1], image[2], classes, &evaluated));
    assert_true(d.inner.batch_classes <= classes);
    if (d.data.class_names && d.data.class_name_count != classes) fail_msg("%s: class_names", path);
    if (d.data.normalise == NORMALISE_ZCA_KIP) assert_true(image[0] * image[1] * image[2] <= 16384);
    tells_its_cost(path);
    dataset_begin(&d, image, classes, &data);
    plan(path, &d, &data, &network);
    dataset_finish(&data);
    descriptor_finish(&d);
}

static void check_all(const char *folder, size_t least) {
    const char *source = getenv("RETORT_SOURCE");
    char pattern[FILE_PATH_MAX];
    glob_t found;
    if (!source) skip();
    assert_ok(path_join(source, folder, pattern));
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    assert_true(found.gl_pathc >= least);
    for (size_t i = 0; i < found.gl_pathc; i++) check(found.gl_pathv[i]);
    globfree(&found);
}

static void test_recipes(void **state) {
    (void)state;
    check_all("configs/*.yaml", 30);
}

static void test_features(void **state) {
    (void)state;
    check_all("configs/features/*.yaml", 15);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_recipes), cmocka_unit_test(test_features)};
    return cmocka_run_group_tests_name("recipes", tests, NULL, NULL);
}
