#include "run/nearest.h"

#include <ctype.h>
#include <limits.h>
#include <string.h>

#define LONGEST 63

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Optimal string alignment, three rows of the table at a time. */
int word_distance(const char *a, const char *b) {
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST) return INT_MAX;
    int rows[3][LONGEST + 1];
    for (size_t j = 0; j <= m; j++) rows[0][j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int *now = rows[i % 3], *before = rows[(i + 2) % 3], *earlier = rows[(i + 1) % 3];
        now[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int x = tolower((unsigned char)a[i - 1]), y = tolower((unsigned char)b[j - 1]);
            now[j] = least(before[j - 1] + (x != y), least(before[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && x != y && x == tolower((unsigned char)b[j - 2])
                && tolower((unsigned char)a[i - 2]) == y)
                now[j] = least(now[j], earlier[j - 2] + 1);
        }
    }
    return rows[n % 3][m];
}

int word_is_close(const char *word, int distance) {
    size_t length = strlen(word);
    return distance <= (length < 3 ? 1 : length < 7 ? 2 : 3);
}

const char *word_nearest(const char *word, const char *const *known) {
    const char *best = NULL;
    int distance = INT_MAX;
    for (; *known; known++) {
        int d = word_distance(word, *known);
        /* What was begun rightly was meant, however much is missing. */
        if (strlen(word) >= 3 && strncasecmp(word, *known, strlen(word)) == 0) d = least(d, 1);
        if (d < distance) {
            distance = d;
            best = *known;
        }
    }
    return best && word_is_close(word, distance) ? best : NULL;
}
