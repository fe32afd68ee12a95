#include <stdio.h>

int main(void) {
    puts("retort " RETORT_VERSION);
    return 0;
}
