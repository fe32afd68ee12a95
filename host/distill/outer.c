#include "distill/outer.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>

int outer_variable_init(struct outer_variable *variable, float *values, int64_t count) {
    *variable = (struct outer_variable){.count = count, .values = values};
    variable->m = calloc((size_t)count + 1, sizeof *variable->m);
    variable->v = calloc((size_t)count + 1, sizeof *variable->v);
    if (variable->m && variable->v) return RETORT_OK;
    outer_variable_finish(variable);
    return error_set(RETORT_ENOMEM, "out of memory for the outer optimiser");
}

void outer_variable_finish(struct outer_variable *variable) {
    if (!variable) return;
    free(variable->m);
    free(variable->v);
    *variable = (struct outer_variable){0};
}

void outer_adam(struct outer_variable *variable, const float *gradient, double lr, int t) {
    const double b1 = 0.9, b2 = 0.999, eps = 1e-8;
    double c1 = 1 - pow(b1, t), c2 = 1 - pow(b2, t);
    for (int64_t i = 0; i < variable->count; i++) {
        double g = gradient[i];
        double m = b1 * variable->m[i] + (1 - b1) * g, v = b2 * variable->v[i] + (1 - b2) * g * g;
        variable->m[i] = (float)m;
        variable->v[i] = (float)v;
        variable->values[i] -= (float)(lr * (m / c1) / (sqrt(v / c2) + eps));
    }
}

double outer_clip(double *mean, double norm) {
    *mean = isnan(*mean) ? norm : 0.9 * *mean + 0.1 * norm;
    return norm > 2 * *mean ? 2 * *mean / norm : 1;
}
