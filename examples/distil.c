/* Distils a small data set of its own through the library: cc distil.c $(pkg-config --cflags --libs retort) && ./a.out
 * The images have a bright bar on noise, whose place is the class. Ctrl-C stops; a second call goes on from there. */
#include <retort/retort.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { CLASSES = 3, TRAIN = 300, TEST = 90, SIDE = 8 };

static const char recipe[] = "data: {kind: npy, path: bars.npz}\n" /* a path from the folder given below */
                             "network: {depth: 2, width: 8}\n"     /* two convolution blocks of 8 channels */
                             "inner: {steps: 20, lr: 0.02}\n"      /* training steps on the set */
                             "set: {ipc: 1, init: real}\n"         /* one image a class, from a real one */
                             "method: {window: 10, range: 2}\n"    /* of which so many are differentiated */
                             "outer: {steps: 60, lr: 0.03, real_batch: 60}\n"
                             "evaluate: {networks: 3, steps: [60]}\n";

static volatile int stop;

static void on_signal(int number) {
    (void)number;
    stop = 1;
}

static void on_progress(void *user, const struct retort_progress *progress) {
    (void)user;
    printf("step %d of %d: loss %.3f\n", progress->outer_step, progress->outer_steps, progress->loss);
}

static int fail(void) {
    fprintf(stderr, "%s\n", retort_error_message());
    return EXIT_FAILURE;
}

int main(int argc, char **argv) {
    static float pixels[TRAIN + TEST][SIDE][SIDE];
    static int32_t labels[TRAIN + TEST];
    for (int i = 0; i < TRAIN + TEST; i++)
        for (int at = labels[i] = i % CLASSES, y = 0; y < SIDE; y++)
            for (int x = 0; x < SIDE; x++)
                pixels[i][y][x] = (float)rand() / RAND_MAX * 0.75f + (y == 1 + 2 * at ? 0.25f : 0.0f);
    const struct retort_images train = {TRAIN, 1, SIDE, SIDE, &pixels[0][0][0], labels};
    const struct retort_images test = {TEST, 1, SIDE, SIDE, &pixels[TRAIN][0][0], labels + TRAIN};

    struct retort_run *run = NULL;
    struct retort_set *set = NULL;
    struct retort_run_options options = {.out = argc > 1 ? argv[1] : "bars-run", .interrupt = &stop, .resume = 1};
    options.progress = on_progress;
    signal(SIGINT, on_signal);
    retort_log_verbosity(1); /* warnings alone */
    if (retort_data_write("bars.npz", &train, &test) < 0) return fail();
    if (retort_run_create_text("bars", ".", recipe, &options, &run) < 0) return fail();
    if (retort_run_execute(run) < 0 || retort_set_read(retort_run_folder(run), &set) < 0) return fail();

    const struct retort_set_shape *shape = retort_set_shape(set);
    const float *images = retort_set_images(set); /* [count, channels, height, width], as networks train on them */
    printf("%lld images, the first begins with %.3f\n", (long long)shape->count, (double)images[0]);

    struct retort_evaluation *evaluation = NULL;
    if (retort_evaluate(retort_run_folder(run), NULL, &evaluation) < 0) return fail();
    printf("accuracy %.1f %%, of random images %.1f %%\n",
           retort_evaluation_accuracy(evaluation, RETORT_DISTILLED)->mean,
           retort_evaluation_accuracy(evaluation, RETORT_RANDOM)->mean);
    retort_evaluation_destroy(evaluation);
    retort_set_destroy(set);
    retort_run_destroy(run);
}
