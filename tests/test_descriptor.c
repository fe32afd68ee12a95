/* Descriptors: defaults, reading, writing, overrides, and the words of every refusal. */
#include "test.h"

#include "base/file.h"
#include "base/log.h"
#include "distill/bptt.h"
#include "distill/method.h"
#include "run/descriptor.h"
#include "run/nearest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEAST "data: {kind: idx, path: images}\nouter: {steps: 10}\n"

static int parse(const char *text, const struct schema_override *overrides, size_t count,
                 struct descriptor *descriptor) {
    return descriptor_parse("d.yaml", "/home/me", text, strlen(text), overrides, count, descriptor);
}

/* The text is refused, and the message holds all the words (separated by '|'). */
static void refused(const char *text, const char *option, const char *assignment, const char *words) {
    struct descriptor descriptor;
    struct schema_override override = {option, assignment};
    int status = parse(text, &override, option ? 1 : 0, &descriptor);
    if (status == RETORT_OK) fail_msg("accepted: %s %s", text, option ? option : "");
    assert_int_equal(status, RETORT_EINVAL);
    char wanted[512];
    snprintf(wanted, sizeof wanted, "%s", words);
    for (char *word = strtok(wanted, "|"); word; word = strtok(NULL, "|"))
        if (!strstr(retort_error_message(), word))
            fail_msg("no '%s' in: %s (from: %s)", word, retort_error_message(), text);
}

static struct bptt_spec *bptt(const struct descriptor *descriptor) {
    return descriptor->method_spec;
}

static void test_defaults(void **state) {
    (void)state;
    struct descriptor d;
    assert_ok(parse(LEAST, NULL, 0, &d));
    assert_string_equal(d.name, "d");
    assert_int_equal(d.data.kind, DATA_IDX);
    assert_string_equal(d.data.path, "/home/me/images");
    assert_null(d.data.labels_path);
    assert_int_equal(d.data.normalise, NORMALISE_MEAN_SD);
    assert_int_equal(d.network.depth, 3);
    assert_int_equal(d.network.width, 128);
    assert_int_equal(d.network.norm, NORM_INSTANCE);
    assert_int_equal(d.inner.optimizer.kind, OPTIMIZER_ADAM);
    assert_true(d.inner.optimizer.lr == 1e-3 && d.inner.optimizer.beta1 == 0.9 && d.inner.optimizer.beta2 == 0.999);
    assert_true(d.inner.optimizer.eps == 1e-8 && d.inner.optimizer.weight_decay == 0);
    assert_int_equal(d.inner.steps, 200);
    assert_string_equal(descriptor_method(&d)->name, "bptt");
    assert_int_equal(bptt(&d)->window, 40);
    assert_int_equal(bptt(&d)->range, 10);
    assert_int_equal(bptt(&d)->truncation, TRUNCATION_DYNAMIC);
    assert_int_equal(bptt(&d)->reading, READING_STANDARDISED);
    assert_true(bptt(&d)->temperature == 1 && bptt(&d)->stage_m == 1.5 && bptt(&d)->stage_x == 0.05);
    assert_true(bptt(&d)->stage_n == 1.0 && bptt(&d)->stage_y == 0.04);
    assert_int_equal(bptt(&d)->hessian, HESSIAN_EXACT);
    assert_int_equal(d.outer.steps, 10);
    assert_int_equal(d.outer.optimizer, OPTIMIZER_ADAM);
    assert_true(d.outer.lr == 0.001 && d.outer.lr_labels == 0.001 && d.outer.lr_inner == 0.001);
    assert_true(d.outer.clip && d.outer.augment.flip && d.outer.augment.rotate);
    assert_true(d.outer.augment.degrees == 15 && !d.outer.augment.compose);
    assert_int_equal(d.outer.real_batch, 1000);
    assert_int_equal(d.evaluate.networks, 8);
    assert_int_equal(d.evaluate.step_count, 4);
    assert_int_equal(d.evaluate.steps[3], 3000);
    assert_memory_equal(&d.evaluate_network, &d.network, sizeof d.network);
    assert_int_equal(d.memory, 0);
    assert_int_equal(d.seed, 0);
    descriptor_finish(&d);
}

static void test_values(void **state) {
    (void)state;
    struct descriptor d;
    const struct schema_override overrides[] = {{"--set outer.lr=1e-2", "outer.lr=1e-2"},
                                                {"--set method={window: 7, range: 2}", "method={window: 7, range: 2}"},
                                                {"--set data.classes=[3, 1]", "data.classes=[3, 1]"}};
    assert_ok(parse("# a comment\n"
                    "data: {kind: folder, path: /a/b, size: [32, 48], grey: on, train_limit: 1e3}\n"
                    "network: {width: 32, norm: group, groups: 4, activation: swish}\n"
                    "inner: {optimizer: sgd, lr: .5, momentum: 0.9, batch: {per_class: 2, classes: 1}}\n"
                    "set: {ipc: 3, labels: soft}\n"
                    "outer: {steps: 300, augment: {flip: no}}\n"
                    "evaluate: {network: {depth: 2}, steps: [5]}\n"
                    "memory: 512 MiB\nseed: 9007199254740992\n"
                    "device: {select: pocl cpu, family: gpu, gemm: clblast, dct: clfft, merge: off}\n",
                    overrides, 3, &d));
    assert_string_equal(d.data.path, "/a/b");
    assert_int_equal(d.data.height, 32);
    assert_int_equal(d.data.width, 48);
    assert_true(d.data.grey);
    assert_int_equal(d.data.train_limit, 1000);
    assert_int_equal(d.data.class_count, 2);
    assert_int_equal(d.data.classes[0], 3);
    assert_true(d.outer.lr == 0.01);
    assert_true(d.inner.optimizer.lr == 0.5);
    assert_int_equal(bptt(&d)->window, 7);
    assert_int_equal(bptt(&d)->range, 2);
    assert_false(d.outer.augment.flip);
    assert_int_equal(d.evaluate_network.depth, 2);
    assert_int_equal(d.evaluate_network.width, 32);
    assert_int_equal(d.evaluate_network.activation, ACTIVATION_SWISH);
    assert_int_equal(d.memory, 512 << 20);
    assert_true(d.seed == UINT64_C(9007199254740992));
    assert_string_equal(d.device.select, "pocl cpu");
    assert_int_equal(d.device.family, FAMILY_GPU);
    assert_int_equal(d.device.gemm, GEMM_CLBLAST);
    assert_int_equal(d.device.dct, DCT_CLFFT);
    assert_int_equal(d.device.merge, MERGE_OFF);
    assert_true(descriptor_target(&d, &(struct device_traits){.kind = DEVICE_GPU}).single);

    /* Written, read and written again: the same bytes; so is the JSON, which is YAML too. */
    struct text first, second, third;
    text_init(&first);
    text_init(&second);
    text_init(&third);
    descriptor_write(&d, &first);
    struct descriptor again;
    assert_ok(parse(text_get(&first), NULL, 0, &again));
    descriptor_write(&again, &second);
    assert_string_equal(text_get(&first), text_get(&second));
    assert_null(descriptor_difference(&d, &again, &second, &third));
    descriptor_finish(&again);
    json_t *json = descriptor_json(&d);
    assert_non_null(json);
    char *dumped = json_dumps(json, 0);
    json_decref(json);
    assert_ok(parse(dumped, NULL, 0, &again));
    free(dumped);
    descriptor_write(&again, &third);
    assert_string_equal(text_get(&first), text_get(&third));
    bptt(&again)->window++;
    text_finish(&second);
    text_finish(&third);
    assert_string_equal(descriptor_difference(&d, &again, &second, &third), "method.window");
    assert_string_equal(text_get(&second), "7");
    assert_string_equal(text_get(&third), "8");
    descriptor_finish(&again);
    descriptor_finish(&d);
    text_finish(&first);
    text_finish(&second);
    text_finish(&third);
}

static void test_odd_numbers_survive(void **state) {
    (void)state;
    static const char *const numbers[] = {
        "0.1", "1e-300", "3.0000000000000004", "1.7976931348623157e308", "123456789", "0.30000000000000004"};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        char text[256];
        struct descriptor d, again;
        struct text written;
        text_init(&written);
        snprintf(text, sizeof text, LEAST "inner: {weight_decay: %s}\n", numbers[i]);
        int status = parse(text, NULL, 0, &d);
        if (strtod(numbers[i], NULL) > 1e300) {
            assert_int_equal(status, RETORT_EINVAL);
            continue;
        }
        assert_ok(status);
        descriptor_write(&d, &written);
        assert_ok(parse(text_get(&written), NULL, 0, &again));
        assert_true(again.inner.optimizer.weight_decay == strtod(numbers[i], NULL));
        descriptor_finish(&d);
        descriptor_finish(&again);
        text_finish(&written);
    }
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        /* missing */
        {"", "d.yaml|data.kind|data.path|outer.steps"},
        {"# nothing\n", "missing"},
        {"data: {kind: idx, path: x}\n", "missing outer.steps"},
        {"data:\nouter:\n  steps:\n", "d.yaml:3: outer.steps|found nothing|whole number"},
        {"data: {kind: idx, path: }\nouter: {steps: 1}\n", "d.yaml:1: data.path|nothing"},
        /* unknown keys, with the nearest */
        {LEAST "inner:\n  lrr: 1\n", "d.yaml:4: inner.lrr: unknown key|did you mean inner.lr?"},
        {LEAST "methd: {steps: 3}\n", "d.yaml:3: methd|did you mean method?"},
        {LEAST "window: 3\n", "d.yaml:3: window|did you mean method.window?"},
        {LEAST "network: {colour: 3}\n", "network.colour|known here: kind, depth, width"},
        {LEAST "method.window: 3\n", "unknown key"},
        {LEAST "method: {stage: {m: 3}}\n", "did you mean method.stage.M?"},
        {LEAST "? [a, b]\n: 3\n", "d.yaml:3|where a key's name belongs"},
        {LEAST "<<: {seed: 1}\n", "unknown key"},
        /* twice */
        {LEAST "seed: 1\nseed: 2\n", "d.yaml:4: seed: given twice, first in line 3"},
        {LEAST "inner: {lr: 1, lr: 2}\n", "inner.lr: given twice"},
        /* wrong kinds */
        {LEAST "inner: {lr: [1]}\n", "d.yaml:3: inner.lr: found a list, expected a number above 0"},
        {LEAST "inner: 3\n", "inner: found '3', expected a section"},
        {LEAST "inner: [1]\n", "inner: found a list, expected a section"},
        {LEAST "inner: {lr: {a: 1}}\n", "found a section"},
        {LEAST "inner: {lr: \"1\"}\n", "the quoted text '1'"},
        {LEAST "inner: {lr: 1e-3x}\n", "found '1e-3x'"},
        {LEAST "inner: {lr: 1 2}\n", "found '1 2'"},
        {LEAST "inner: {lr: 0x10}\n", "found '0x10'"},
        {LEAST "inner: {lr: nan}\n", "found 'nan'"},
        {LEAST "inner: {lr: .inf}\n", "found '.inf'"},
        {LEAST "inner: {lr: 1e999}\n", "found '1e999'"},
        {LEAST "inner: {lr: fast}\n", "found 'fast'"},
        {LEAST "inner: {lr: 0}\n", "above 0"},
        {LEAST "inner: {lr: -1}\n", "above 0"},
        {LEAST "inner: {betas: 0.9}\n", "a list of 2 numbers from 0 to below 1"},
        {LEAST "inner: {betas: [0.9]}\n", "1 items"},
        {LEAST "inner: {betas: [0.9, 1.0]}\n", "found '1.0'"},
        {LEAST "inner: {betas: []}\n", "an empty one"},
        {LEAST "inner: {eps: 1e-50}\n", "inner.eps: found '1e-50', expected a number of at least 1.175494350822"},
        {LEAST "method: {rank: 129}\n", "method.rank: found '129', expected a whole number from 1 to 128"},
        {LEAST "network: {depth: 2.5}\n", "found '2.5', expected a whole number from 0 to 12"},
        {LEAST "network: {depth: 13}\n", "found '13'"},
        {LEAST "network: {depth: 99999999999999999999}\n", "found '99999999999999999999'"},
        {LEAST "network: {norm: instnce}\n", "one of none, instance|did you mean instance?"},
        {LEAST "network: {norm: [none]}\n", "found a list"},
        {LEAST "outer: {clip: maybe}\n", "d.yaml:3: outer: given twice"},
        {"data: {kind: idx, path: x}\nouter: {steps: 1, clip: maybe}\n", "outer.clip: found 'maybe'|true or false"},
        {"data: {kind: idx, path: x}\nouter: {steps: 1, clip: 1}\n", "true or false"},
        {"data: {kind: idx, path: [x]}\nouter: {steps: 1}\n", "data.path: found a list, expected a path"},
        {"data: {kind: idx, path: x, classes: 3}\nouter: {steps: 1}\n", "a list of whole numbers|or all"},
        {"data: {kind: idx, path: x, classes: [1, two]}\nouter: {steps: 1}\n", "found 'two'"},
        {"data: {kind: folder, path: x, size: [1, 2, 3]}\nouter: {steps: 1}\n", "not of two items"},
        {LEAST "memory: 12 parsecs\n", "memory: found '12 parsecs'|512 MiB"},
        {LEAST "memory: -1\n", "found '-1'"},
        {LEAST "memory: 1e30 TiB\n", "memory"},
        {LEAST "seed: -1\n", "seed: found '-1'"},
        {LEAST "evaluate: {steps: [1,2,3,4,5,6,7,8,9]}\n", "9 items"},
        {LEAST "device: {select: [a, [b]]}\n", "device.select: found a list, expected text, or a list of texts"},
        {LEAST "device: {select: {a: b}}\n", "expected text, or a list of texts"},
        {LEAST "device: {select: \"a\\0b\"}\n", "zero byte"},
        /* not YAML at all */
        {"data: {kind: idx\n", "d.yaml:|not YAML"},
        {"\tdata: 1\n", "d.yaml:1:|not YAML"},
        {"data: \xff\xfe\n", "not UTF-8"},
        {"- a\n- b\n", "found a list"},
        {"just words\n", "found 'just words'"},
        {LEAST "---\nseed: 2\n", "more than one YAML document"},
        {"data: *x\n", "not YAML"},
        {"&a data: *a\n", "data: found"},
        {"data: &a\n  data: *a\n", "data.data: unknown key"},
        /* values that do not go together */
        {LEAST "method: {window: 300, range: 0}\n", "d.yaml:3: method.window|inner.steps 200"},
        {LEAST "inner: {steps: 45}\n", "method.range (by default)|past inner.steps 45"},
        {LEAST "set: {init: indices}\n", "set.indices (by default)|expected the file"},
        {LEAST "set: {indices: x.txt}\n", "d.yaml:3: set.indices: only set.init indices"},
        {LEAST "set: {ipc: 16, parameters: {kind: frequency}}\n",
         "set.parameters.budget (by default)|found nothing, expected the storage of a class"},
        {LEAST "set: {parameters: {budget: 2, kind: frequency}}\n",
         "d.yaml:3: set.parameters.budget: room for 2 images of a class, but set.ipc is only 1"},
        {LEAST "set: {parameters: {budget: 1}}\n",
         "d.yaml:3: set.parameters.budget: only set.parameters.kind frequency"},
        {LEAST "set: {parameters: {kind: wavelets}}\n", "found 'wavelets', expected one of pixels, frequency"},
        {LEAST "set: {parameters: {kind: tiles}}\n",
         "set.parameters.factor (by default)|found nothing, expected the tiles along a side"},
        {LEAST "set: {parameters: {factor: 2}}\n", "d.yaml:3: set.parameters.factor: only set.parameters.kind tiles"},
        {LEAST "set: {init: mix}\n", "d.yaml:3: set.init: only set.parameters.kind tiles"},
        {"data: {kind: idx, path: x, normalise: zca}\nset: {parameters: {kind: tiles, factor: 2}}\nouter: {steps: 1}\n",
         "d.yaml:1: data.normalise: tiles store pixels of each channel"},
        /* a key that moved */
        {LEAST "method: {steps: 0}\n", "d.yaml:3: inner.steps: found '0'"},
        {LEAST "method: {steps: 50}\ninner: {steps: 50}\n",
         "d.yaml:4: inner.steps: method.steps is the former name of inner.steps, and both are given"},
        {LEAST "method: {window: 10}\n", "below 1"},
        {LEAST "network: {norm: group, groups: 3}\n", "d.yaml:3: network.groups: 3 groups do not divide"},
        {LEAST "network: {depth: 0}\n", "at least one block"},
        {LEAST "inner: {momentum: 0.9}\n", "inner.momentum: adam has betas"},
        {LEAST "inner: {batch: {per_class: 2}}\n", "inner.batch.per_class: 2|the set has 1"},
        {LEAST "evaluate: {steps: [10, 10]}\n", "evaluate.steps: 10 comes after 10"},
        {"data: {kind: idx, path: x, labels: y}\nouter: {steps: 1}\n", "d.yaml:1: data.labels: only data.kind npy"},
        {"data: {kind: idx, path: x, size: 8}\nouter: {steps: 1}\n", "data.size: only data.kind folder"},
        {"data: {kind: idx, path: x, grey: yes}\nouter: {steps: 1}\n", "data.grey: only data.kind folder"},
        {"data: {kind: idx, path: x, classes: [1, 1]}\nouter: {steps: 1}\n", "class 1 is listed twice"},
        {"data: {kind: idx, path: x, classes: [1]}\nouter: {steps: 1}\n", "one class"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) refused(cases[i].text, NULL, NULL, cases[i].words);
}

/* set.ipc of tiles counts what is stored, and is written as it was given. */
static void test_tiles(void **state) {
    (void)state;
    struct descriptor d, again;
    struct text written;
    assert_ok(parse(LEAST "set: {ipc: 3, parameters: {kind: tiles, factor: 2}}\n"
                          "inner: {batch: {per_class: 12}}\n",
                    NULL, 0, &d));
    assert_int_equal(d.set.ipc, 12);
    text_init(&written);
    descriptor_write(&d, &written);
    assert_ok(parse(text_get(&written), NULL, 0, &again));
    assert_int_equal(again.set.ipc, 12);
    assert_int_equal(again.set.ipc_key, 3);
    text_finish(&written);
    descriptor_finish(&d);
    descriptor_finish(&again);
}

static void test_refused_options(void **state) {
    (void)state;
    static const struct {
        const char *assignment, *words;
    } cases[] = {
        {"outer.lr=abc", "--set X: outer.lr: found 'abc', expected a number above 0"},
        {"outer.lr=", "found nothing after ="},
        {"outer.lr", "expected KEY=VALUE"},
        {"=3", "expected KEY=VALUE"},
        {"outer.lrr=3", "--set X: outer.lrr: unknown key (did you mean outer.lr?)"},
        {"outer=3", "outer is a section"},
        {"outer={lrr: 3}", "outer.lrr: unknown key"},
        {"outer.lr=[", "--set X|not YAML"},
        {"method.window=500", "--set X: method.window: a window of 500"},
        {".=3", "unknown key"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(LEAST, "--set X", cases[i].assignment, cases[i].words);
}

/* The former name of a key is read, also beside an option of the new one, and never written. */
static void test_moved(void **state) {
    (void)state;
    struct descriptor d;
    struct text written;
    static const struct schema_override overrides[][2] = {
        {{"--set method.steps=70", "method.steps=70"}, {"--set inner.steps=80", "inner.steps=80"}},
        {{"--set inner.steps=80", "inner.steps=80"}, {"--set method.steps=70", "method.steps=70"}}};
    text_init(&written);
    log_set_level(LOG_QUIET);
    assert_ok(parse(LEAST "method: {steps: 60}\n", NULL, 0, &d));
    assert_int_equal(d.inner.steps, 60);
    descriptor_write(&d, &written);
    assert_non_null(strstr(text_get(&written), "inner:\n  steps: 60\n"));
    assert_null(strstr(strstr(text_get(&written), "method:"), "steps: 60"));
    descriptor_finish(&d);
    assert_ok(parse(LEAST "method: {steps: 60}\n", overrides[0], 2, &d));
    assert_int_equal(d.inner.steps, 80);
    descriptor_finish(&d);
    assert_ok(parse(LEAST "inner: {steps: 60}\n", overrides[1], 2, &d));
    assert_int_equal(d.inner.steps, 70);
    descriptor_finish(&d);
    log_set_level(LOG_INFO);
    text_finish(&written);
}

/* --- tables of other files --- */
struct widget {
    int size;
    void *block;
};
struct part {
    int window, depth;
};

static int read_widget(const struct schema *table, const char *text, struct arena *arena, struct widget *widget) {
    return schema_read(table, "w.yaml", "/", text, strlen(text), NULL, 0, arena, widget, NULL);
}

/* A key belongs to all or to one owner, into whose struct it goes. */
static void test_owners(void **state) {
    (void)state;
    static const struct schema_key ours[] = {
        {"size", KEY_INT, offsetof(struct widget, size), .standard = "3"},
        {"part.window", KEY_INT, offsetof(struct part, window), .standard = "4", .owner = "dm"},
        {"part.depth", KEY_INT, offsetof(struct part, depth), .inherit = "size", .owner = "dm"}};
    static const struct schema_key theirs[] = {{"part.window", KEY_INT, .owner = "method bptt"},
                                               {"part.stage.M", KEY_INT, .owner = "method bptt"}};
    const struct schema table = {.keys = ours,
                                 .count = 3,
                                 .block = offsetof(struct widget, block),
                                 .others = theirs,
                                 .other_count = 2,
                                 .owner = "dm"};
    struct part part = {0};
    struct widget widget = {.block = &part};
    struct arena arena;
    struct text text;
    arena_init(&arena);
    text_init(&text);
    assert_ok(read_widget(&table, "size: 7\npart: {window: 9}\n", &arena, &widget));
    assert_int_equal(widget.size, 7);
    assert_int_equal(part.window, 9);
    assert_int_equal(part.depth, 7);
    schema_write(&table, &widget, &text);
    assert_string_equal(text_get(&text), "size: 7\npart:\n  window: 9\n  depth: 7\n");
    assert_int_equal(read_widget(&table, "size: 7\npart:\n  stage: {M: 3}\n", &arena, &widget), RETORT_EINVAL);
    assert_string_equal(retort_error_message(),
                        "w.yaml:3: part.stage belongs to method bptt, this is dm; leave it out");
    const struct schema without = {.keys = ours, .count = 1, .others = theirs, .other_count = 2, .owner = "dm"};
    assert_int_equal(read_widget(&without, "part: {window: 3}\n", &arena, &widget), RETORT_EINVAL);
    text_finish(&text);
    arena_finish(&arena);
}

/* As many keys as one likes. */
static void test_many_keys(void **state) {
    (void)state;
    enum { MANY = 1000 };
    static struct schema_key rows[MANY];
    static int values[MANY];
    struct arena arena;
    struct schema_origins origins;
    arena_init(&arena);
    for (int i = 0; i < MANY; i++)
        rows[i] =
            (struct schema_key){arena_printf(&arena, "k%d", i), KEY_INT, (size_t)i * sizeof(int), .standard = "5"};
    const struct schema table = {rows, MANY};
    assert_ok(schema_read(&table, "m.yaml", "/", "k999: 8\n", 8, NULL, 0, &arena, values, &origins));
    assert_int_equal(values[998], 5);
    assert_int_equal(values[999], 8);
    assert_int_equal(origins.line[999], 1);
    arena_finish(&arena);
}

static void test_files(void **state) {
    (void)state;
    char folder[] = "/tmp/retort-descriptor-XXXXXX", path[FILE_PATH_MAX], data[FILE_PATH_MAX];
    assert_non_null(mkdtemp(folder));
    assert_ok(path_join(folder, "first.look.yaml", path));
    struct descriptor d;
    assert_int_equal(descriptor_read(path, NULL, 0, &d), RETORT_EIO);
    assert_non_null(strstr(retort_error_message(), path));
    const char *text = "data: {kind: npy, path: ./x.npz}\nouter: {steps: 1}\n";
    assert_ok(file_write(path, text, strlen(text)));
    char before[FILE_PATH_MAX];
    assert_non_null(getcwd(before, sizeof before));
    assert_int_equal(chdir(folder), 0);
    assert_ok(descriptor_read("first.look.yaml", NULL, 0, &d));
    assert_int_equal(chdir(before), 0);
    assert_ok(path_join(folder, "x.npz", data));
    assert_string_equal(d.data.path, data);
    assert_string_equal(d.name, "first.look");
    descriptor_finish(&d);
    assert_ok(folder_remove(folder));
}

/* A descriptor of random bytes is refused or read, never a crash: cheap fuzzing with the sanitizers on. */
static void test_damaged(void **state) {
    (void)state;
    struct text whole;
    text_init(&whole);
    struct descriptor d;
    assert_ok(parse(LEAST, NULL, 0, &d));
    descriptor_write(&d, &whole);
    descriptor_finish(&d);
    uint32_t x = 12345;
    int refusals = 0;
    for (int i = 0; i < 2000; i++) {
        char *copy = strdup(text_get(&whole));
        assert_non_null(copy);
        for (int j = 0; j < 3; j++) {
            x = x * 1664525u + 1013904223u;
            copy[(x >> 8) % whole.length] = "\n:{}[],&*?\"'#-x0 \xc3"[(x >> 3) % 18];
        }
        size_t size = i % 2 ? (x >> 5) % whole.length : whole.length;
        int status = descriptor_parse("d.yaml", "/", copy, size, NULL, 0, &d);
        if (status == RETORT_OK)
            descriptor_finish(&d);
        else {
            refusals++;
            assert_int_equal(status, RETORT_EINVAL);
            assert_non_null(strstr(retort_error_message(), "d.yaml"));
        }
        free(copy);
    }
    assert_true(refusals > 1000);
    text_finish(&whole);
}

static void test_reference(void **state) {
    (void)state;
    const char *source = getenv("RETORT_SOURCE");
    if (!source) skip();
    char path[FILE_PATH_MAX];
    unsigned char *page;
    size_t size;
    assert_ok(path_join(source, "docs/descriptor.md", path));
    assert_ok(file_read(path, 0, &page, &size));
    struct text printed;
    text_init(&printed);
    descriptor_reference(&printed);
    if (strcmp((const char *)page, text_get(&printed)) != 0)
        fail_msg("docs/descriptor.md is out of date: retort run --help-keys > docs/descriptor.md");
    free(page);
    text_finish(&printed);
}

static void test_class_names(void **state) {
    (void)state;
    static const char text[] = "data: {kind: idx, path: i, classes: [2, 0], class_names: [\"a \\\"b\\\"\", 7]}\n"
                               "outer: {steps: 10}\n";
    struct descriptor d, again;
    struct text written;
    text_init(&written);
    assert_ok(parse(text, NULL, 0, &d));
    assert_int_equal(d.data.class_name_count, 2);
    assert_string_equal(d.data.class_names[0], "a \"b\"");
    assert_string_equal(d.data.class_names[1], "7");
    descriptor_write(&d, &written);
    assert_ok(parse(text_get(&written), NULL, 0, &again));
    assert_string_equal(again.data.class_names[0], "a \"b\"");
    json_t *json = descriptor_json(&d);
    assert_string_equal(
        json_string_value(json_array_get(json_object_get(json_object_get(json, "data"), "class_names"), 1)), "7");
    json_decref(json);
    text_finish(&written);
    descriptor_finish(&d);
    descriptor_finish(&again);
    assert_ok(parse(LEAST, NULL, 0, &d));
    assert_null(d.data.class_names);
    descriptor_finish(&d);
    refused(LEAST, "--set", "data.skip_corrupt=true", "data.skip_corrupt|folder and csv|not idx");
    refused(LEAST, "--set", "data.class_names=[]", "data.class_names|an empty one");
    refused(LEAST, "--set", "data.class_names=cat", "found 'cat'|a list of names, or as_found");
    refused(LEAST, "--set", "data.class_names=[a, [b]]", "found a list|a list of names");
    refused(LEAST, "--set", "data.class_names=[a, a]", "'a' is listed twice");
    refused(text, "--set", "data.class_names=[a, b, c]", "3 names of 2 classes");
}

/* Keys that a run's copy of its descriptor lacks, since an earlier version wrote it, mean what was done then. */
static void test_copies(void **state) {
    (void)state;
    struct descriptor d;
    assert_ok(parse(LEAST, NULL, 0, &d));
    assert_true(d.data.test == 0.2);
    descriptor_finish(&d);
    assert_ok(descriptor_parse_copy("d.yaml", "/", LEAST, strlen(LEAST), NULL, 0, &d));
    assert_true(d.data.test == 0);
    assert_int_equal(d.inner.steps, 200);
    descriptor_finish(&d);
    const struct schema_override asked = {"--set", "data.test=0.3"};
    assert_ok(descriptor_parse_copy("d.yaml", "/", LEAST, strlen(LEAST), &asked, 1, &d));
    assert_true(d.data.test == 0.3);
    descriptor_finish(&d);
}

static void test_nearest(void **state) {
    (void)state;
    static const char *const words[] = {"run", "eval", "devices", "check", NULL};
    assert_string_equal(word_nearest("rnu", words), "run");
    assert_string_equal(word_nearest("device", words), "devices");
    assert_string_equal(word_nearest("EVAL", words), "eval");
    assert_string_equal(word_nearest("chekc", words), "check");
    assert_null(word_nearest("frobnicate", words));
    assert_int_equal(word_distance("kitten", "sitting"), 3);
    assert_int_equal(word_distance("ab", "ba"), 1);
    assert_int_equal(word_distance("", "abc"), 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_odd_numbers_survive),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_refused_options),
        cmocka_unit_test(test_tiles),
        cmocka_unit_test(test_moved),
        cmocka_unit_test(test_owners),
        cmocka_unit_test(test_many_keys),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_class_names),
        cmocka_unit_test(test_copies),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_nearest),
    };
    return cmocka_run_group_tests_name("descriptor", tests, NULL, NULL);
}
