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

/* The means of a run that is played through. */
static void test_foresee(void **state) {
    (void)state;
    enum { STEPS = 40, OUTER = 600, PERIOD = 12 };
    struct bptt_spec method = dynamic;
    double norms[STEPS], probability[STEPS], scratch[2 * STEPS];
    for (int t = 0; t < STEPS; t++) norms[t] = 1.0 / (1 + t); /* large at first, as in real runs */
    method.stage_m = method.stage_n = 1;
    method.stage_x = method.stage_y = 0.04; /* two epochs of little gain each */
#define FORESEE() truncation_foresee(&method, STEPS, OUTER, PERIOD, 7, norms, probability, scratch)
    method.truncation = TRUNCATION_FIXED;
    struct truncation_outlook fixed = FORESEE();
    assert_true(fixed.end == STEPS && fixed.window == 10 && fixed.probes == 0);
    method.truncation = TRUNCATION_RANDOM;
    struct truncation_outlook random = FORESEE();
    assert_true(fabs(random.end - 25) < 1 && random.window == 10 && random.probes == 0); /* uniform in 10 .. 40 */
    method.truncation = TRUNCATION_FORWARD;
    struct truncation_outlook forward = FORESEE(); /* three steps without a record soon pass: most at the end */
    assert_true(forward.end > 36 && forward.end < 40 && forward.window == 10);
    method.truncation = TRUNCATION_DYNAMIC;
    method.reading = READING_STANDARDISED;
    struct truncation_outlook late = FORESEE();
    assert_true(fabs(late.probes - 0.25) < 1e-9); /* every fourth step */
    method.stage_x = 1;                           /* early to the end, where norms are large at the beginning */
    struct truncation_outlook early = FORESEE();
    assert_true(early.end + 3 < late.end);
    assert_true(early.window >= 1 && early.window <= 15 && late.window >= 4 && late.window <= 15);
    /* A late stage of short windows, a middle one without probes. */
    method.reading = READING_RELEASED;
    method.stage_x = 0.1;
    method.stage_y = 0.1;
    struct truncation_outlook released = FORESEE();
    assert_true(released.probes < 0.25 && released.window > 5 && released.window < 10);
#undef FORESEE
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_probes), cmocka_unit_test(test_windows),
                                       cmocka_unit_test(test_foresee)};
    return cmocka_run_group_tests_name("truncation", tests, NULL, NULL);
}
