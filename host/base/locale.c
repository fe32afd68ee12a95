#include "base/locale.h"

locale_t locale_enter_c(void) {
    /* The C libraries of GNU/Linux have one such object, which nobody has to free. Without it all stays as it is. */
    locale_t c = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    return uselocale(c);
}
