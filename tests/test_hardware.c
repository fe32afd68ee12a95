/* Devices compared: results of others are read or refused with the key that is wrong, the page and the Markdown say
 * what they hold and nothing more, meters of energy are read as the system has them, and loads are what they are
 * called. */
#include "test.h"

#include "base/file.h"
#include "base/memory.h"
#include "bench/energy.h"
#include "bench/load.h"
#include "report/hardware.h"
#include "report/plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* --- results --- */
#define ROW(name, seconds, joules, flops, bytes, parts, problem)                                   \
    "{\"load\": \"" name "\", \"seconds\": " seconds ", \"joules\": " joules ", \"flops\": " flops \
    ", \"bytes\": " bytes ", \"device_bytes\": 1048576, \"build_seconds\": 2.5, " parts            \
    ", \"way\": \"winograd4\", \"problem\": " problem "}"
#define PARTS(arithmetic, memory) "\"arithmetic_seconds\": " arithmetic ", \"memory_seconds\": " memory
#define DEVICE(name, platform, energy)                                                                       \
    "{\"device\": {\"name\": \"" name "\", \"platform\": \"" platform                                        \
    "\", \"vendor\": \"v\", \"version\": \"OpenCL 3.0\", \"driver\": \"22.1\", \"kind\": \"gpu\", "          \
    "\"compute_units\": 4, \"lanes\": 64, \"global_memory\": 1073741824}, \"family\": \"gpu\", "             \
    "\"wisdom\": \"none\", \"products\": null, \"energy\": " energy                                          \
    ", \"problem\": null, \"peaks\": {\"flops\": [9e10, 1e11], \"bytes\": [1e10, 8e9], \"problem\": null}, " \
    "\"loads\": ["
#define HEAD                                                                                                         \
    "{\"benchmark\": \"hardware\", \"format\": 1, \"retort\": \"0.1.0\", \"measured\": \"2026-11-27T04:40:00Z\", "   \
    "\"quick\": false, \"limit_seconds\": 60, \"machine\": {\"processor\": \"a processor\", \"system\": \"Linux\", " \
    "\"cores\": 2, \"memory_bytes\": null}, \"build\": {\"compiler\": \"gcc 12\", \"options\": \"release\", "        \
    "\"clblast\": null}, \"note\": \"keys that nobody knows are passed over\", \"results\": ["

static const char sound[] = HEAD DEVICE("one", "First", "\"hwmon, energy\"")
    ROW("outer-32-1", "[0.3, 0.1, 0.2]", "0.25", "1e9", "1e8", PARTS("0.03", "0.15"),
        "null") ", " ROW("conv-wide-forward", "[0.05]", "null", "4e9", "1e8", PARTS("null", "null"),
                         "null") "]}, " DEVICE("two", "Second", "null")
        ROW("outer-32-1", "[0.01, 0.02]", "null", "1e9", "1e8", PARTS("0.001", "0.002"), "null") ", " ROW(
            "outer-128-1", "[]", "null", "null", "null", PARTS("null", "null"), "\"not done in 60 s\"") "]}]}";

static json_t *parse(const char *text) {
    json_error_t error;
    json_t *json = json_loads(text, 0, &error);
    if (!json) fail_msg("%s: %s", error.text, error.source);
    return json;
}

/* Puts a value (text of JSON in brackets; NULL: takes away what is there) at a path such as "results[0].loads[1].load".
 */
static void change(json_t *json, const char *path, const char *text) {
    json_t *list = text ? parse(text) : NULL, *value = json_array_get(list, 0);
    char key[64];
    for (;;) {
        size_t length = strcspn(path, ".[]");
        snprintf(key, sizeof key, "%.*s", (int)length, path);
        path += length + strspn(path + length, ".]");
        const bool number = key[strspn(key, "0123456789")] == '\0';
        if (*path == '[') path++;
        if (*path) {
            json = number ? json_array_get(json, strtoul(key, NULL, 10)) : json_object_get(json, key);
            assert_non_null(json);
            continue;
        }
        if (number)
            json_array_set(json, strtoul(key, NULL, 10), value);
        else if (value)
            json_object_set(json, key, value);
        else
            assert_int_equal(json_object_del(json, key), 0);
        break;
    }
    json_decref(list);
}

static void read_sound(struct hardware_file *file) {
    json_t *json = parse(sound);
    assert_ok(hardware_check("mine.json", json, file));
    json_decref(json);
}

static void test_read(void **state) {
    (void)state;
    struct hardware_file file;
    read_sound(&file);
    assert_int_equal(file.device_count, 2);
    assert_string_equal(file.compiler, "gcc 12");
    assert_true(isnan(file.memory_bytes));
    const struct hardware_row *row = &file.devices[0].rows[load_find("outer-32-1") - loads];
    assert_true(row->there);
    assert_int_equal(row->seconds.count, 3);
    assert_true(row->seconds.values[0] == 0.3); /* in their order */
    assert_true(row->seconds.least == 0.1 && row->seconds.median == 0.2 && row->seconds.largest == 0.3);
    assert_true(fabs(row->seconds.spread - 1) < 1e-12);
    assert_true(row->joules == 0.25 && row->build_seconds == 2.5);
    row = &file.devices[1].rows[load_find("outer-32-1") - loads];
    assert_true(fabs(row->seconds.median - 0.015) < 1e-12);
    assert_true(isnan(row->joules));
    row = &file.devices[1].rows[load_find("outer-128-1") - loads];
    assert_int_equal(row->seconds.count, 0);
    assert_string_equal(row->problem, "not done in 60 s");
    assert_false(file.devices[1].rows[load_find("rows") - loads].there);
    assert_true(file.devices[0].peak_flops.largest == 1e11);
    hardware_finish(&file);
}

/* Each change of what is sound, and the words that refuse it. */
static void test_refused(void **state) {
    (void)state;
    static const char *const changes[][3] = {
        {"benchmark", NULL, "benchmark: found nothing, expected \"hardware\", as `retort bench --all-devices` writes"},
        {"benchmark", "[\"step\"]", "benchmark: found \"step\", expected \"hardware\""},
        {"format", "[2]", "format: found 2, which a later version of Retort wrote; this one reads 1"},
        {"format", "[\"1\"]", "format: found \"1\", expected 1"},
        {"format", NULL, "format: found nothing, expected 1"},
        {"quick", "[3]", "quick: found 3, expected true or false"},
        {"limit_seconds", "[0]", "limit_seconds: found 0, expected a number above 0"},
        {"machine", "[[1]]", "machine: found a list, expected an object"},
        {"machine.cores", "[-2]", "machine.cores: found -2, expected a number above 0"},
        {"machine.processor", "[null]", "machine.processor: found null, expected words"},
        {"build.clblast", "[true]", "build.clblast: found true, expected words or null"},
        {"results", "[{}]", "results: found an object, expected a list of 1 to 64 devices"},
        {"results", "[[]]", "results: found an empty list, expected a list of 1 to 64 devices"},
        {"results[1]", "[5]", "results[1]: found 5, expected an object"},
        {"results[1].device", NULL, "results[1].device: found nothing, expected an object"},
        {"results[1].device.name", NULL, "results[1].device.name: found nothing, expected words"},
        {"results[0].peaks.flops[1]", "[-1]", "results[0].peaks.flops[1]: found -1, expected a number above 0"},
        {"results[0].peaks.bytes", "[[]]",
         "results[0].peaks.bytes: found an empty list, expected a number for each turn, or a problem"},
        {"results[0].loads", NULL, "results[0].loads: found nothing, expected a list of loads"},
        {"results[0].loads[1]", "[\"x\"]", "results[0].loads[1]: found \"x\", expected an object"},
        {"results[0].loads[1].load", "[\"outer-33-1\"]",
         "results[0].loads[1].load: found \"outer-33-1\", expected a load of this format, such as"},
        {"results[0].loads[1].load", "[\"outer-32-1\"]",
         "results[0].loads[1].load: found \"outer-32-1\" for the second time"},
        {"results[1].loads[0].seconds", "[\"x\"]",
         "results[1].loads[0].seconds: found \"x\", expected a list of numbers"},
        {"results[1].loads[0].seconds[1]", "[\"x\"]",
         "results[1].loads[0].seconds[1]: found \"x\", expected a number above 0"},
        {"results[1].loads[0].seconds[1]", "[0]", "results[1].loads[0].seconds[1]: found 0, expected a number above 0"},
        {"results[1].loads[0].seconds[0]", "[1e40]", "results[1].loads[0].seconds[0]: found 1e+40, expected a number"},
        {"results[1].loads[1].problem", "[null]",
         "results[1].loads[1].seconds: found an empty list, expected a number for each turn, or a problem"},
        {"results[0].loads[0].joules", "[-3]",
         "results[0].loads[0].joules: found -3, expected a number above 0 or null"},
        {"results[0].loads[0].flops", NULL,
         "results[0].loads[0].flops: found nothing, expected a number above 0 or null"},
        {"results[0].loads[0].memory_seconds", "[-1]",
         "results[0].loads[0].memory_seconds: found -1, expected a number of at least 0 or null"},
        {"results[0].loads[0].seconds",
         "[[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,"
         "1,1,1,1,1,1,1,1,1,1,1,1,1]]",
         "results[0].loads[0].seconds: found 65 turns, expected 64 at most"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct hardware_file file;
        json_t *json = parse(sound);
        char expected[256];
        change(json, changes[i][0], changes[i][1]);
        snprintf(expected, sizeof expected, "mine.json: %s", changes[i][2]);
        int status = hardware_check("mine.json", json, &file);
        if (status != RETORT_EFORMAT || !strstr(retort_error_message(), expected))
            fail_msg("%s: status %d, \"%s\", expected \"%s\"", changes[i][0], status,
                     status < 0 ? retort_error_message() : "", expected);
        json_decref(json);
    }
}

static char root[FILE_PATH_MAX];

static const char *in_root(const char *name, char path[FILE_PATH_MAX]) {
    assert_ok(path_join(root, name, path));
    return path;
}

static void write_file(const char *name, const char *words) {
    char path[FILE_PATH_MAX], folder[FILE_PATH_MAX];
    in_root(name, path);
    strcpy(folder, path);
    *strrchr(folder, '/') = '\0';
    assert_ok(folder_create(folder));
    assert_ok(file_write(path, words, strlen(words)));
}

static void test_files(void **state) {
    (void)state;
    char path[FILE_PATH_MAX];
    struct hardware_file file;
    write_file("broken.json", "{\"benchmark\": \n\"hard");
    assert_int_equal(hardware_read(in_root("broken.json", path), &file), RETORT_EFORMAT);
    assert_non_null(strstr(retort_error_message(), "broken.json:2: not JSON"));
    write_file("sound.json", sound);
    assert_ok(hardware_read(in_root("sound.json", path), &file));
    hardware_finish(&file);
    assert_int_equal(hardware_read(in_root("none.json", path), &file), RETORT_EIO);
}

/* --- what is shown --- */
static void assert_has(const char *page, const char *words) {
    if (!strstr(page, words)) fail_msg("the page lacks: %s\n%s", words, page);
}

static void test_page(void **state) {
    (void)state;
    char path[FILE_PATH_MAX];
    struct hardware_file file;
    struct text page;
    read_sound(&file);
    text_init(&page);
    hardware_page(&page, &file, 1);
    assert_false(page.failed);
    assert_has(text_get(&page), "id=\"outer-steps\"");
    assert_has(text_get(&page), "<td class=\"number\" data-head=\"least\">100 ms</td>");
    assert_has(text_get(&page), "<td class=\"number\" data-head=\"median\">200 ms</td>");
    assert_has(text_get(&page), "<td class=\"number\" data-head=\"spread\">100 % of 3</td>");
    assert_has(text_get(&page), "<td class=\"number\" data-head=\"a second and watt\">4</td>"); /* a quarter joule */
    assert_has(text_get(&page), "<td class=\"number\" data-head=\"a second and watt\">not told</td>");
    /* 1e9 operations in 0.1 s, of 100 GFLOP/s. */
    assert_has(text_get(&page), "<td class=\"number\" data-head=\"of peak\">10 %</td>");
    assert_has(text_get(&page), "First: convolution 128 &gt; 128");
    assert_has(text_get(&page), "not done in 60 s");
    assert_null(strstr(text_get(&page), "nan"));
    text_finish(&page);
    /* Nothing of somebody's is written over, and an earlier page is. */
    write_file("taken.html", "mine");
    assert_int_equal(hardware_write_page(in_root("taken.html", path), &file, 1), RETORT_EINVAL);
    for (int i = 0; i < 2; i++) assert_ok(hardware_write_page(in_root("page.html", path), &file, 1));
    hardware_finish(&file);
}

static void test_markdown(void **state) {
    (void)state;
    struct hardware_file file;
    struct text page;
    json_t *json = parse(sound);
    change(json, "results[0].device.name", "[\"a|b <i>_c_\"]");
    change(json, "results[0].device.platform", "[\"Second\"]");
    assert_ok(hardware_check("mine.json", json, &file));
    text_init(&page);
    hardware_markdown(&page, &file, 1);
    assert_false(page.failed);
    /* Two devices of one platform are told apart by their names. */
    assert_has(text_get(&page), "| outer step, width 32, 1 per class | a\\|b &lt;i>\\_c\\_ | 100 ms | 200 ms |");
    /* 0.03 s and 0.15 s of 0.2 s; 0.001 s and 0.002 s of 0.015 s. */
    assert_has(text_get(&page), "| 15 % | 75 % | 10 % | memory |");
    assert_has(text_get(&page), "| 6.7 % | 13 % | 80 % | launches and the host |");
    assert_null(strstr(text_get(&page), "<svg"));
    assert_null(strstr(text_get(&page), "nan"));
    text_finish(&page);
    hardware_finish(&file);
    json_decref(json);
}

/* A roof's corners where logarithms put them, and no point that cannot be drawn. */
static void test_rooflines(void **state) {
    (void)state;
    const struct plot_point points[] = {
        {10, 1e11, 0, "at the ridge"}, {NAN, 1e11, 1, "nowhere"}, {5, 0, 2, "nor here"}};
    const struct plot_roof roof = {1e11, 1e10, points, 3, 0};
    struct text page;
    text_init(&page);
    plot_rooflines(&page, "roofs", &roof, 1);
    assert_has(text_get(&page), "points=\"48.0,300.0 227.0,162.0 406.0,162.0\"");
    assert_has(text_get(&page), "d=\"M223.0 162.0a4 4");
    assert_null(strstr(text_get(&page), "nowhere"));
    assert_null(strstr(text_get(&page), "nor here"));
    text_finish(&page);
    const struct plot_roof unknown = {NAN, NAN, NULL, 0, 0};
    text_init(&page);
    plot_rooflines(&page, "roofs", &unknown, 1);
    assert_string_equal(text_get(&page), "");
    text_finish(&page);
}

/* --- energy --- */
static void test_energy_of_processors(void **state) {
    (void)state;
    struct energy energy;
    struct energy_reading before, after;
    write_file("sys/class/powercap/intel-rapl/name", "no zone");
    write_file("sys/class/powercap/intel-rapl:0/name", "package-0\n");
    write_file("sys/class/powercap/intel-rapl:0/energy_uj", "1000000\n");
    write_file("sys/class/powercap/intel-rapl:0/max_energy_range_uj", "9000000\n");
    write_file("sys/class/powercap/intel-rapl:0:0/name", "core\n"); /* of which the package counts all */
    write_file("sys/class/powercap/intel-rapl:0:0/energy_uj", "7\n");
    write_file("sys/class/powercap/intel-rapl:1/name", "package-1\n");
    write_file("sys/class/powercap/intel-rapl:1/energy_uj", "8000000\n");
    write_file("sys/class/powercap/intel-rapl:1/max_energy_range_uj", "9000000\n");
    write_file("sys/class/powercap/intel-rapl:2/name", "psys\n");
    write_file("sys/class/powercap/intel-rapl:2/energy_uj", "1\n");
    char path[FILE_PATH_MAX];
    energy_find(in_root("sys", path), DEVICE_CPU, &energy);
    assert_int_equal(energy.count, 2);
    assert_string_equal(energy.source, "powercap, 2 packages");
    energy_read(&energy, &before);
    write_file("sys/class/powercap/intel-rapl:0/energy_uj", "1500000\n");
    write_file("sys/class/powercap/intel-rapl:1/energy_uj", "250000\n"); /* past its end */
    energy_read(&energy, &after);
    assert_true(fabs(energy_between(&energy, &before, &after) - (0.5 + 1.25)) < 1e-9);
}

static void test_energy_of_cards(void **state) {
    (void)state;
    struct energy energy;
    struct energy_reading before, after;
    char path[FILE_PATH_MAX];
    in_root("cards", path);
    energy_find(path, DEVICE_GPU, &energy);
    assert_int_equal(energy.count, 0);
    assert_string_equal(energy.source, "the system tells nothing of the card's energy");
    assert_true(isnan(energy_between(&energy, &before, &after)));
    write_file("cards/class/hwmon/hwmon0/name", "k10temp\n");
    write_file("cards/class/hwmon/hwmon0/power1_input", "5\n");
    write_file("cards/class/hwmon/hwmon1/name", "amdgpu\n");
    write_file("cards/class/hwmon/hwmon1/power1_average", "30000000\n"); /* 30 W */
    energy_find(path, DEVICE_GPU, &energy);
    assert_int_equal(energy.count, 1);
    assert_string_equal(energy.source, "hwmon, power");
    energy_read(&energy, &before);
    write_file("cards/class/hwmon/hwmon1/power1_average", "50000000\n");
    energy_read(&energy, &after);
    after.seconds = before.seconds + 2;
    assert_true(fabs(energy_between(&energy, &before, &after) - 80) < 1e-6);
    write_file("cards/class/hwmon/hwmon2/name", "xe\n");
    write_file("cards/class/hwmon/hwmon2/energy1_input", "1\n");
    energy_find(path, DEVICE_GPU, &energy);
    assert_int_equal(energy.count, 0);
    assert_string_equal(energy.source, "2 cards tell, and which of them this is nothing does");
}

/* --- loads --- */
static void test_loads(void **state) {
    (void)state;
    struct device *device = NULL;
    struct load_bench *bench = NULL;
    struct load_facts facts;
    double build, seconds;
    int count;
    for (size_t i = 0; i < LOADS; i++) {
        assert_non_null(loads[i].name);
        assert_ptr_equal(load_find(loads[i].name), &loads[i]);                            /* each name once */
        if (loads[i].kind == LOAD_INNER) assert_int_equal(loads[i - 1].kind, LOAD_OUTER); /* whose kernels it takes */
    }
    assert_null(load_find("outer-33-1"));
    if (device_open(TEST_DEVICE, &device) < 0) skip();
    assert_ok(load_bench_create(device, FAMILY_AUTO, true, &bench));
    assert_int_equal(load_turn(bench, &seconds, &count), RETORT_EINVAL); /* of nothing */
    static const char *const names[] = {"conv-wide-to-weights", "product-square", "launch-waited"};
    static const double flops[] = {2.0 * 2 * 8 * 8 * 8 * 8 * 9, 2.0 * 64 * 64 * 64, NAN};
    for (size_t i = 0; i < 3; i++) {
        assert_ok(load_begin(bench, load_find(names[i]), &build));
        assert_true(isnan(build));
        assert_ok(load_turn(bench, &seconds, &count));
        assert_true(seconds > 0);
        assert_int_equal(count, 0);
        assert_ok(load_end(bench, NULL, &facts));
        assert_true(facts.flops == flops[i] || (isnan(facts.flops) && isnan(flops[i])));
        assert_true(isnan(facts.device_bytes));
    }
    load_bench_destroy(bench);
    device_close(device);
}

static int make_root(void **state) {
    (void)state;
    const char *place = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/retort-hardware-XXXXXX", place ? place : "/tmp");
    return mkdtemp(root) ? 0 : -1;
}

static int remove_root(void **state) {
    (void)state;
    return folder_remove(root);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_page),
        cmocka_unit_test(test_markdown),
        cmocka_unit_test(test_rooflines),
        cmocka_unit_test(test_energy_of_processors),
        cmocka_unit_test(test_energy_of_cards),
        cmocka_unit_test(test_loads),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
