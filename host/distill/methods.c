/* The table of methods: a new one is declared and listed here. */
#include "distill/method.h"

extern const struct method method_bptt, method_dm, method_idc, method_match, method_trajectory;

/* The first is the default of method.name. */
static const struct method *const table[] = {&method_bptt, &method_dm, &method_match, &method_idc, &method_trajectory};

const struct method *method_at(int index) {
    return index >= 0 && (size_t)index < sizeof table / sizeof *table ? table[index] : NULL;
}
