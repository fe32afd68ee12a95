/* The choice of the window: when it asks for a probe, and that it stays inside the inner run. */
#include "test.h"

#include "distill/truncation.h"

#include <math.h>
#include <string.h>

static const struct bptt_spec dynamic = {.window = 10,
                                         .truncation = TRUNCATION_DYNAMIC,
                                         .range = 5,
                                         .temperature = 1,
                                         .patience = 3,
                                         .probe_every = 4,
                                         .stage_m = 1e6, /* no gain is ever enough: a stage lasts its share */
                                         .stage_x = 0.3,
                                         .stage_n = 1e6,
                                         .stage_y = 0.3};

/* Walks through a whole run of 20 steps, an epoch each, and writes for each step its stage and whether a probe is
 * taken: "e" or "E" early, "m" or "M" in the middle, "l" or "L" late, capitals with a probe. */
static void walk(const struct bptt_spec *method, char *line) {
    struct truncation_state state;
    truncation_begin(&state);
    for (int step = 1; step <= 20; step++) {
        bool probe = truncation_needs_probe(method, &state, step);
        *line++ = (probe ? "EML" : "eml")[state.stage];
        truncation_advance(method, 40, &state, 1, 50, 1, 20);
    }
    *line = 0;
}

static void test_probes(void **state) {
    (void)state;
    struct bptt_spec method = dynamic;
    char line[32];
    method.reading = READING_LITERAL;
    walk(&method, line);
    assert_string_equal(line, "EeeeEeemMmmmMlllLlll");
    /* The middle stage needs no norms; the late one does not begin with those of the early one. */
    method.reading = READING_RELEASED;
    walk(&method, line);
    assert_string_equal(line, "EeeeEeemmmmmmLllLlll");
    method.probe_every = 1000;
    walk(&method, line);
    assert_string_equal(line, "EeeeeeemmmmmmLllllll");
    method.truncation = TRUNCATION_RANDOM;
    walk(&method, line);
    assert_string_equal(line, "eeeeeeeeeeeeeeeeeeee");
}

/* Every truncation, reading and stage, with windows up to the whole run. */
static void test_windows(void **state) {
    (void)state;
    enum { STEPS = 12 };
    struct bptt_spec method = dynamic;
    double norms[STEPS], probability[STEPS], scratch[2 * STEPS];
    struct random random = random_begin(1, RANDOM_TEST, 0);
    for (int i = 0; i < 4000; i++) {
        struct truncation_state now;
        truncation_begin(&now);
        method.truncation = (enum truncation)(i % 4);
        method.reading = (enum reading)(i / 4 % 3);
        now.stage = i / 12 % 3;
        method.window = 1 + (int)random_below(&random, STEPS);
        /* As a descriptor may have them: windows reach from 1 to all steps. */
        int reach = method.window - 1 < STEPS - method.window ? method.window - 1 : STEPS - method.window;
        method.range = (int)random_below(&random, (uint32_t)reach + 1);
        for (int t = 0; t < STEPS; t++) norms[t] = i % 5 ? fabs(random_normal(&random)) : 1;
        bool needed = truncation_needs_norms(&method, &now);
        struct window_choice choice =
            truncation_choose(&method, STEPS, &now, &random, needed ? norms : NULL, probability, scratch);
        assert_in_range(choice.end, 1, STEPS);
        assert_in_range(choice.window, 1, choice.end);
        double sum = 0;
        for (int t = 0; t < STEPS; t++) {
            assert_true(probability[t] >= 0);
            sum += probability[t];
        }
        assert_float_equal(sum, 1, 1e-9);
        if (method.truncation == TRUNCATION_FIXED) assert_int_equal(choice.end, STEPS);
        if (method.truncation != TRUNCATION_DYNAMIC) assert_int_equal(choice.window, method.window);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_probes), cmocka_unit_test(test_windows)};
    return cmocka_run_group_tests_name("truncation", tests, NULL, NULL);
}
