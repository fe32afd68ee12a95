/* What is seen of a run while it goes on: letters, pictures, event files. tests/test_tensorboard.py reads such files
 * with TensorBoard's own reader; here it is done by hand. */
#include "test.h"

#include "base/file.h"
#include "run/font.h"
#include "run/preview.h"
#include "run/tensorboard.h"

#include <dirent.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <string.h>

static char folder[] = "/tmp/retort-watch-XXXXXX";

static int prepare(void **state) {
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int clean(void **state) {
    (void)state;
    return folder_remove(folder);
}

static char *path_in(const char *name, char path[FILE_PATH_MAX]) {
    assert_ok(path_join(folder, name, path));
    return path;
}

/* --- letters --- */
static int count_ink(const char *text, int index) {
    int ink = 0;
    for (int y = 0; y < FONT_HEIGHT; y++)
        for (int x = 0; x < FONT_WIDTH; x++) ink += font_ink(text, index, x, y);
    return ink;
}

static void test_font(void **state) {
    (void)state;
    assert_int_equal(font_length("Ankle boot"), 10);
    assert_int_equal(font_length("Zebra \xc3\xa9t\xc3\xa9"), 9);
    /* Every letter but the blank has ink, and no two have the same. */
    char all[96] = "";
    for (int i = 0; i < 95; i++) all[i] = (char)(' ' + i);
    assert_int_equal(count_ink(all, 0), 0);
    for (int i = 1; i < 95; i++) {
        assert_true(count_ink(all, i) > 0);
        for (int k = 0; k < i; k++) {
            bool same = true;
            for (int y = 0; y < FONT_HEIGHT; y++)
                for (int x = 0; x < FONT_WIDTH; x++) same &= font_ink(all, i, x, y) == font_ink(all, k, x, y);
            assert_false(same);
        }
    }
    /* A T: all of the first row, the middle of the others. */
    for (int x = 0; x < FONT_WIDTH; x++) {
        assert_true(font_ink("AT", 1, x, 0));
        assert_int_equal(font_ink("AT", 1, x, 6), x == 2);
    }
    /* What is not ASCII is a question mark; past the end there is nothing. */
    for (int y = 0; y < FONT_HEIGHT; y++)
        for (int x = 0; x < FONT_WIDTH; x++) assert_int_equal(font_ink("a\xc3\xa9", 1, x, y), font_ink("?", 0, x, y));
    assert_int_equal(count_ink("ab", 2), 0);
}

/* --- pictures --- */
struct picture {
    png_image png;
    unsigned char *bytes; /* a byte a pixel */
};

static void read_picture(const char *name, struct picture *picture) {
    char path[FILE_PATH_MAX];
    *picture = (struct picture){.png = {.version = PNG_IMAGE_VERSION}};
    assert_true(png_image_begin_read_from_file(&picture->png, path_in(name, path)) != 0);
    picture->png.format = PNG_FORMAT_GRAY;
    picture->bytes = malloc(PNG_IMAGE_SIZE(picture->png));
    assert_true(png_image_finish_read(&picture->png, NULL, picture->bytes, 0, NULL) != 0);
}

static int grey(const struct picture *picture, unsigned x, unsigned y) {
    assert_true(x < picture->png.width && y < picture->png.height);
    return picture->bytes[y * picture->png.width + x];
}

/* A set whose image i is of one grey, i / count; the last pixel of each is white. */
static void make_set(int classes, int ipc, int side, struct distilled_set *set) {
    int64_t pixels = (int64_t)side * side;
    *set = (struct distilled_set){
        .count = (int64_t)classes * ipc, .channels = 1, .height = side, .width = side, .classes = classes, .ipc = ipc};
    set->images = malloc((size_t)(set->count * pixels) * sizeof(float));
    for (int64_t i = 0; i < set->count; i++)
        for (int64_t p = 0; p < pixels; p++)
            set->images[i * pixels + p] = p == pixels - 1 ? 1 : (float)i / (float)set->count;
}

static void draw(int classes, int ipc, int side, const char *const *names, struct picture *picture) {
    char path[FILE_PATH_MAX];
    struct distilled_set set;
    const struct normalisation plain = {.kind = NORMALISE_NONE};
    make_set(classes, ipc, side, &set);
    assert_ok(preview_write(path_in("picture.png", path), &set, &plain, names));
    read_picture("picture.png", picture);
    distilled_set_finish(&set);
}

static bool has_ink(const struct picture *picture, unsigned left, unsigned top, unsigned width, unsigned height) {
    for (unsigned y = top; y < top + height; y++)
        for (unsigned x = left; x < left + width; x++)
            if (grey(picture, x, y) != 255) return true;
    return false;
}

static void test_preview(void **state) {
    (void)state;
    static const char *names[2000] = {"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
                                      "Sandal",      "Shirt",   "Sneaker",  "Bag",   "Ankle boot"};
    struct picture picture;
    /* Ten images of 28 x 28, five times as large, five beside each other, each with its name in large letters above. */
    draw(10, 1, 28, names, &picture);
    assert_int_equal(picture.png.width, 2 * 2 + 5 * (140 + 8) - 8);
    unsigned label = 2 * FONT_HEIGHT + 2, column = 148, row = label + 140 + 8;
    assert_int_equal(picture.png.height, 2 + 2 * row - 8 + 2);
    for (unsigned i = 0; i < 10; i++) {
        unsigned left = 2 + i % 5 * column, top = 2 + i / 5 * row;
        assert_true(has_ink(&picture, left, top, 20, 2 * FONT_HEIGHT));
        double expected = 255 * (double)i / 10;
        assert_true(fabs(grey(&picture, left, top + label) - expected) <= 1);
        assert_true(fabs(grey(&picture, left + 139, top + label + 134) - expected) <= 1);
        assert_int_equal(grey(&picture, left + 139, top + label + 139), 255); /* the last pixel, five by five */
        assert_int_equal(grey(&picture, left + 135, top + label + 135), 255);
    }
    free(picture.bytes);
    /* The same for pages: no names, no enlargement. */
    draw(10, 1, 28, NULL, &picture);
    assert_int_equal(picture.png.width, 2 * 2 + 5 * (28 + 8) - 8);
    assert_int_equal(grey(&picture, 2 + 36, 2), 26);
    free(picture.bytes);
    /* Fifty images of a class take more lines, a thousand classes more pictures than there is room for. */
    draw(10, 50, 32, names, &picture);
    assert_in_range(picture.png.width, 1000, 1600);
    assert_in_range(picture.png.height, 1000, 4096);
    free(picture.bytes);
    for (int c = 10; c < 2000; c++) names[c] = "a name that is too long for the picture below it";
    draw(2000, 2, 64, names, &picture);
    assert_in_range(picture.png.width, 1000, 1600);
    assert_in_range(picture.png.height, 3000, 4200);
    assert_true(has_ink(&picture, 2, picture.png.height - 2 - FONT_HEIGHT, 100, FONT_HEIGHT)); /* "the first ..." */
    free(picture.bytes);
}

static void test_kept(void **state) {
    (void)state;
    static const int totals[] = {1, 2, 8, 200, 60000};
    for (int t = 0; t < 5; t++) {
        int kept = 0;
        for (int step = 0; step <= totals[t]; step++) kept += preview_is_kept(step, totals[t]);
        assert_in_range(kept, 2, 12);
        assert_true(preview_is_kept(0, totals[t]) && preview_is_kept(totals[t], totals[t]));
    }
    assert_true(preview_is_kept(2, 200) && preview_is_kept(165, 200) && !preview_is_kept(100, 200));
}

/* --- event files --- */
static void test_crc(void **state) {
    (void)state;
    unsigned char bytes[32] = {0};
    assert_int_equal(crc32c("123456789", 9), 0xe3069283u);
    assert_int_equal(crc32c(bytes, 32), 0x8a9136aau); /* RFC 3720, B.4 */
    for (int i = 0; i < 32; i++) bytes[i] = (unsigned char)i;
    assert_int_equal(crc32c(bytes, 32), 0x46dd794eu);
}

static uint64_t whole(const unsigned char *bytes, int count) {
    uint64_t value = 0;
    for (int i = count - 1; i >= 0; i--) value = value << 8 | bytes[i];
    return value;
}

static uint32_t masked(const unsigned char *bytes, size_t size) {
    uint32_t crc = crc32c(bytes, size);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int is_event_file(const struct dirent *entry) {
    return strncmp(entry->d_name, "events.out.tfevents.", 20) == 0;
}

/* How often a text occurs in all event files of a folder, whose checksums are looked at. */
static int count_text(const char *where, const char *text, int *files) {
    struct dirent **list;
    int count = 0;
    *files = scandir(where, &list, is_event_file, by_name);
    assert_true(*files >= 0);
    for (int f = 0; f < *files; f++) {
        char path[FILE_PATH_MAX];
        unsigned char *data;
        size_t size, at = 0;
        assert_ok(path_join(where, list[f]->d_name, path));
        assert_ok(file_read(path, 0, &data, &size));
        while (size - at >= 12) {
            size_t length = whole(data + at, 8);
            assert_int_equal(whole(data + at + 8, 4), masked(data + at, 8));
            if (length > size - at - 16) break; /* torn */
            assert_int_equal(whole(data + at + 12 + length, 4), masked(data + at + 12, length));
            for (size_t i = 0; i + strlen(text) <= length; i++)
                count += memcmp(data + at + 12 + i, text, strlen(text)) == 0;
            at += length + 16;
        }
        free(data);
        free(list[f]);
    }
    free(list);
    return count;
}

static void write_row(struct tensorboard *board, int step) {
    json_t *row = json_pack("{s:i, s:f, s:n, s:s, s:{s:i}}", "outer_step", step, "loss", 1.0 / step, "cosine", "stage",
                            "early", "stages", "early", step);
    assert_ok(tensorboard_scalars(board, row));
    json_decref(row);
}

/* A second sitting that begins before the end of the first repeats nothing, also where the first file is torn. */
static void test_events(void **state) {
    (void)state;
    char where[FILE_PATH_MAX], path[FILE_PATH_MAX];
    struct tensorboard *board;
    struct dirent **list;
    int files;
    assert_ok(tensorboard_open(path_in("board", where), &board));
    for (int step = 1; step <= 5; step++) write_row(board, step);
    tensorboard_close(board);
    assert_int_equal(count_text(where, "brain.Event:2", &files), 1);
    assert_int_equal(files, 1);
    assert_int_equal(count_text(where, "loss", &files), 5);
    assert_int_equal(count_text(where, "stages/early", &files), 5);
    assert_int_equal(count_text(where, "cosine", &files), 0);
    /* \x0a\x04loss\x15 and the float 0.5 */
    assert_int_equal(count_text(where, "\n\x04loss\x15", &files), 5);
    assert_int_equal(count_text(where, "loss\x15\xcd\xcc\x4c\x3e", &files), 1); /* 0.2f */
    /* The fifth record loses its last byte. */
    assert_int_equal(scandir(where, &list, is_event_file, by_name), 1);
    assert_ok(path_join(where, list[0]->d_name, path));
    free(list[0]);
    free(list);
    unsigned char *data;
    size_t size;
    assert_ok(file_read(path, 0, &data, &size));
    assert_ok(file_write(path, data, size - 1));
    free(data);
    /* metrics.jsonl has what was lost, and two steps of which there was no event. */
    static const char metrics[] = "{\"outer_step\":4,\"loss\":9}\n{\"outer_step\":5,\"loss\":0.2}\n"
                                  "{\"outer_step\":6,\"loss\":0.1}\n{\"outer_step\":7,\"loss\":0.05}\n";
    char kept[FILE_PATH_MAX];
    assert_ok(file_write(path_in("metrics.jsonl", kept), metrics, strlen(metrics)));
    assert_ok(tensorboard_open(where, &board));
    assert_ok(tensorboard_catch_up(board, kept, 3));
    for (int step = 5; step <= 8; step++) write_row(board, step);
    tensorboard_close(board);
    assert_int_equal(count_text(where, "loss\x15", &files), 8);
    assert_int_equal(files, 2);
}

static void test_event_picture(void **state) {
    (void)state;
    char where[FILE_PATH_MAX], path[FILE_PATH_MAX];
    struct tensorboard *board;
    struct picture picture;
    int files;
    static const char *names[] = {"a", "b"};
    draw(2, 1, 8, names, &picture);
    free(picture.bytes);
    assert_ok(tensorboard_open(path_in("pictures", where), &board));
    assert_ok(tensorboard_picture(board, "set", 3, path_in("picture.png", path)));
    assert_ok(tensorboard_picture(board, "set", 3, path));
    assert_int_equal(tensorboard_picture(board, "set", 4, path_in("none.png", path)), RETORT_EIO);
    tensorboard_close(board);
    assert_int_equal(count_text(where, "\x89PNG", &files), 1);
    assert_int_equal(files, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_font), cmocka_unit_test(test_preview), cmocka_unit_test(test_kept),
        cmocka_unit_test(test_crc),  cmocka_unit_test(test_events),  cmocka_unit_test(test_event_picture),
    };
    return cmocka_run_group_tests_name("watch", tests, prepare, clean);
}
