#include "distill/outer.h"

#include "base/error.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

int outer_variable_init(struct outer_variable *variable, const char *name, float *values, int64_t count, double lr,
                        enum optimizer_kind kind) {
    struct outer_variable fresh = {
        .name = name, .count = count, .values = values, .lr = lr, .least = -INFINITY, .most = INFINITY};
    size_t room = (size_t)count + 1;
    bool adam = kind == OPTIMIZER_ADAM;
    fresh.gradient = calloc(room, sizeof *fresh.gradient);
    fresh.m = calloc(room, sizeof *fresh.m);
    fresh.v = adam ? calloc(room, sizeof *fresh.v) : NULL;
    if (fresh.gradient && fresh.m && (fresh.v || !adam)) {
        *variable = fresh;
        return RETORT_OK;
    }
    outer_variable_finish(&fresh);
    return error_set(RETORT_ENOMEM, "out of memory for the outer optimiser");
}

void outer_variable_finish(struct outer_variable *variable) {
    if (!variable) return;
    free(variable->gradient);
    free(variable->m);
    free(variable->v);
    *variable = (struct outer_variable){0};
}

static void adam(struct outer_variable *variable, int t) {
    const double b1 = 0.9, b2 = 0.999, eps = 1e-8;
    double c1 = 1 - pow(b1, t), c2 = 1 - pow(b2, t);
    for (int64_t i = 0; i < variable->count; i++) {
        double g = variable->gradient[i];
        double m = b1 * variable->m[i] + (1 - b1) * g, v = b2 * variable->v[i] + (1 - b2) * g * g;
        variable->m[i] = (float)m;
        variable->v[i] = (float)v;
        variable->values[i] -= (float)(variable->lr * (m / c1) / (sqrt(v / c2) + eps));
    }
}

static void sgd(struct outer_variable *variable, double momentum) {
    for (int64_t i = 0; i < variable->count; i++) {
        double m = momentum * variable->m[i] + variable->gradient[i];
        variable->m[i] = (float)m;
        variable->values[i] -= (float)(variable->lr * m);
    }
}

void outer_update(struct outer_variable *variable, enum optimizer_kind kind, double momentum, int t) {
    if (kind == OPTIMIZER_ADAM)
        adam(variable, t);
    else
        sgd(variable, momentum);
    const float least = (float)variable->least, most = (float)variable->most;
    for (int64_t i = 0; (isfinite(least) || isfinite(most)) && i < variable->count; i++)
        variable->values[i] = fminf(fmaxf(variable->values[i], least), most);
}

double outer_clip(double *mean, double norm) {
    *mean = isnan(*mean) ? norm : 0.9 * *mean + 0.1 * norm;
    return norm > 2 * *mean ? 2 * *mean / norm : 1;
}
