#include "test.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Known answers of the Random123 distribution (kat_vectors, philox4x32 10). */
static void test_philox(void **state) {
    (void)state;
    uint32_t out[4];
    philox4x32((uint32_t[4]){0}, (uint32_t[2]){0}, out);
    assert_memory_equal(out, ((uint32_t[4]){0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}), sizeof out);
    philox4x32((uint32_t[4]){~0u, ~0u, ~0u, ~0u}, (uint32_t[2]){~0u, ~0u}, out);
    assert_memory_equal(out, ((uint32_t[4]){0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}), sizeof out);
    philox4x32((uint32_t[4]){0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, (uint32_t[2]){0xa4093822, 0x299f31d0},
               out);
    assert_memory_equal(out, ((uint32_t[4]){0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}), sizeof out);
}

static void test_choose(void **state) {
    (void)state;
    struct random random = random_begin(7, RANDOM_TEST, 0);
    uint32_t chosen[100];
    random_choose(&random, 100, 100, chosen);
    bool seen[100] = {false};
    for (int i = 0; i < 100; i++) {
        assert_true(chosen[i] < 100 && !seen[chosen[i]]);
        seen[chosen[i]] = true;
    }
    double sum = 0, squares = 0;
    for (int i = 0; i < 20000; i++) {
        double x = random_normal(&random);
        sum += x;
        squares += x * x;
    }
    assert_true(sum / 20000 < 0.03 && sum / 20000 > -0.03);
    assert_true(squares / 20000 < 1.05 && squares / 20000 > 0.95);
}

static int fails(void) {
    int status = RETORT_OK;
    RAISE(RETORT_EIO, "the cause %d", 3);
done:
    error_context("the deed");
    return status;
}

static void test_errors(void **state) {
    (void)state;
    assert_int_equal(fails(), RETORT_EIO);
    assert_string_equal(retort_error_message(), "the deed: the cause 3");
    error_clear();
    assert_string_equal(retort_error_message(), "");
}

static void test_memory(void **state) {
    (void)state;
    struct arena arena;
    arena_init(&arena);
    for (int i = 0; i < 1000; i++) {
        unsigned char *block = arena_alloc(&arena, (size_t)i * 37);
        assert_non_null(block);
        for (int j = 0; j < i * 37; j++) assert_int_equal(block[j], 0);
        memset(block, 255, (size_t)i * 37);
    }
    assert_null(arena_array(&arena, SIZE_MAX / 4, 16));
    assert_true(arena.failed);
    arena_finish(&arena);
    ARRAY(int) numbers = {0};
    for (int i = 0; i < 100; i++) assert_true(array_push(&numbers, i));
    for (int i = 0; i < 100; i++) assert_int_equal(numbers.items[i], i);
    array_finish(&numbers);
    struct text text;
    text_init(&text);
    for (int i = 0; i < 100; i++) text_printf(&text, "%d,", i);
    assert_int_equal(strlen(text_get(&text)), 290);
    text_finish(&text);
}

static void test_files(void **state) {
    (void)state;
    char folder[] = "/tmp/retort-base-XXXXXX";
    assert_non_null(mkdtemp(folder));
    char deep[FILE_PATH_MAX], path[FILE_PATH_MAX];
    assert_ok(path_join(folder, "a/b/c", deep));
    assert_ok(folder_create(deep));
    assert_ok(folder_create(deep));
    assert_true(folder_empty(deep));
    assert_ok(path_join(deep, "x", path));
    assert_ok(file_write(path, "hello", 5));
    assert_false(folder_empty(deep));
    unsigned char *data;
    size_t size;
    assert_ok(file_read(path, 0, &data, &size));
    assert_int_equal(size, 5);
    assert_string_equal((char *)data, "hello");
    free(data);
    assert_int_equal(file_read(path, 4, &data, &size), RETORT_EFORMAT);
    assert_int_equal(file_read(deep, 0, &data, &size), RETORT_EIO);
    assert_int_equal(file_write("/nowhere/at/all", "x", 1), RETORT_EIO);
    assert_ok(folder_remove(folder));
    assert_false(file_exists(folder));
    struct hash *hash = hash_create();
    hash_update(hash, "abc", 3);
    char hex[65];
    hash_finish(hash, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/* What a killed writer leaves behind, and nothing else. */
static void test_temporaries(void **state) {
    (void)state;
    static const char *const left[] = {"plan.json.4711.part", "000003.npz.4711.part", "000003.npz.4711.part.AbC123"};
    static const char *const kept[] = {"plan.json",        "part",  "images.part", "a.1.part.x",
                                       "a.1.part.png.old", ".part", "a.1.parted"};
    char path[FILE_PATH_MAX];
    for (size_t i = 0; i < sizeof left / sizeof *left; i++) assert_true(file_is_temporary(left[i]));
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) assert_false(file_is_temporary(kept[i]));
    assert_ok(file_write_begin("plan.json", path));
    assert_true(file_is_temporary(path));
}

/* A first step of 15 seconds is forgotten 20 seconds later, and however often is looked the rate is that of the last 20
 * seconds. */
static void test_pace(void **state) {
    (void)state;
    struct pace pace;
    pace_begin(&pace, 100, 5);
    assert_true(pace_rate(&pace) == 0);
    pace_look(&pace, 115, 6);
    assert_float_equal(pace_rate(&pace), 1 / 15.0, 1e-12);
    for (int i = 1; i <= 210; i++) pace_look(&pace, 115 + 0.1 * i, 6 + i);
    assert_float_equal(pace_rate(&pace), 10, 1e-6);
    /* It slows down to a step in two seconds. */
    for (int i = 1; i <= 11; i++) pace_look(&pace, 136 + 2 * i, 216 + i);
    assert_float_equal(pace_rate(&pace), 0.5, 0.02);
    /* Steps that take longer than all that is looked back at. */
    pace_look(&pace, 258, 228);
    assert_float_equal(pace_rate(&pace), 1 / 100.0, 1e-12);
    pace_look(&pace, 358, 229);
    assert_float_equal(pace_rate(&pace), 1 / 100.0, 1e-12);
    char words[24];
    seconds_words(3599.6, words, sizeof words);
    assert_string_equal(words, "1h00m");
    seconds_words(125, words, sizeof words);
    assert_string_equal(words, "2m05s");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pace),        cmocka_unit_test(test_philox), cmocka_unit_test(test_choose),
        cmocka_unit_test(test_errors),      cmocka_unit_test(test_memory), cmocka_unit_test(test_files),
        cmocka_unit_test(test_temporaries),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
