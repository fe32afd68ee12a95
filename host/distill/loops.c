#include "distill/loops.h"

#include "base/error.h"

#include <stddef.h>

enum { MOST_EPOCHS = 50 };

int loops_settle(enum adaptive adaptive, int outer, int inner, int ipc, struct loops *loops) {
    static const int table[][3] = {{1, 1, 1}, {10, 10, 50}, {20, 20, 25}, {30, 30, 20}, {40, 40, 15}, {50, 50, 10}};
    if (adaptive != ADAPTIVE_NONE && !inner) inner = MOST_EPOCHS;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i][0] != ipc) continue;
        if (!outer) outer = table[i][1];
        if (!inner) inner = table[i][2];
    }
    *loops = (struct loops){adaptive, outer, inner};
    if (outer && inner) return RETORT_OK;
    return error_set(RETORT_EINVAL,
                     "auto is known for set.ipc 1, 10, 20, 30, 40 and 50 (outer, inner: 1, 1; 10, 50; 20, 25; 30, 20; "
                     "40, 15; 50, 10), not for %d; give %s",
                     ipc,
                     outer   ? "method.inner"
                     : inner ? "method.outer"
                             : "method.outer and method.inner");
}

int loops_epochs(const struct loops *loops, int match) {
    static const int table[] = {0, 50, 40, 30, 20};
    if (match == 0) return 0;
    if (loops->adaptive != ADAPTIVE_TABLE) return loops->inner;
    return match <= 4 ? table[match] : match <= 10 ? 10 : 5;
}

int loops_most(const struct loops *loops) {
    return loops->outer > 1 ? loops_epochs(loops, 1) : 0;
}

double loops_mean(const struct loops *loops) {
    double sum = 0;
    for (int match = 0; match < loops->outer; match++) sum += loops_epochs(loops, match);
    return sum / loops->outer;
}
