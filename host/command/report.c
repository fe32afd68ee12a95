#include "command/report.h"

#include <stdio.h>
#include <string.h>

void report_accuracy(const char *protocol, const json_t *accuracy) {
    const char *name;
    json_t *row;
    if (json_object_size(accuracy) == 0) return;
    printf("protocol   %s\n", protocol);
    json_object_foreach((json_t *)accuracy, name, row) {
        const json_t *sd = json_object_get(row, "sd");
        size_t networks = json_array_size(json_object_get(row, "runs"));
        const char *chosen_on = json_string_value(json_object_get(row, "chosen_on"));
        printf("%-10s %.2f", name, json_number_value(json_object_get(row, "mean")));
        if (json_is_number(sd)) printf(" +- %.2f", json_number_value(sd));
        printf(" %%  (%zu network%s, step %lld", networks, networks == 1 ? "" : "s",
               (long long)json_integer_value(json_object_get(row, "step")));
        if (chosen_on && strcmp(chosen_on, "test") == 0)
            printf(", the best on the test set");
        else if (chosen_on && strcmp(chosen_on, "holdout") == 0)
            printf(", the best on the held-out split");
        printf(")\n");
    }
}
