#include "unroll/check.h"

#include "base/error.h"
#include "unroll/meta.h"
#include "unroll/unroll.h"

#include <stdlib.h>
#include <string.h>

/* Eigenvalues at theta0, by an unroll of its own whose batch is the whole set. */
static int check_eigenvalues(struct library *library, const struct check_case *problem, double *eigenvalues) {
    int status = RETORT_OK;
    struct unroll *unroll = NULL;
    int64_t n = problem->synthetic_count, p = problem->network.theta_count;
    int k = problem->eigenvalue_count;
    float *values = NULL;
    int32_t *rows = malloc((size_t)n * sizeof *rows);
    /* The extreme eigenvalues settle first: a few times as many steps as values wanted. */
    struct unroll_spec spec = {.network = &problem->network,
                               .optimizer = problem->optimizer,
                               .set_count = n,
                               .batch = n,
                               .soft_labels = problem->soft_labels != NULL};
    spec.rank = 6 * k + 40 < LANCZOS_MAX_RANK ? 6 * k + 40 : LANCZOS_MAX_RANK;
    if (spec.rank > p - 1) spec.rank = (int)p - 1;
    if (k > spec.rank) RAISE(RETORT_EINVAL, "%d eigenvalues wanted: at most %d", k, spec.rank);
    values = malloc((size_t)spec.rank * sizeof *values);
    if (!rows || !values) RAISE(RETORT_ENOMEM, "out of memory for a check");
    for (int64_t i = 0; i < n; i++) rows[i] = (int32_t)i;
    TRY(unroll_create(library, &spec, &unroll));
    TRY(unroll_set(unroll, 0, problem->synthetic_images, problem->soft_labels, problem->hard_labels));
    TRY(unroll_upload_steps(unroll, &(struct unroll_steps){.first = 1, .count = 1, .rows = rows}));
    TRY(unroll_begin_from(unroll, problem->theta0));
    TRY(unroll_lanczos(unroll, 0, 1));
    TRY(unroll_read_eigenvalues(unroll, values));
    for (int i = 0; i < k; i++) eigenvalues[i] = values[i];
done:
    unroll_destroy(unroll);
    free(rows);
    free(values);
    return status;
}

int check_case(struct library *library, const struct check_case *problem, struct check_result *result) {
    int status = RETORT_OK;
    const struct network *net = &problem->network;
    struct unroll *unroll = NULL;
    struct check_result fresh = {0};
    size_t n = (size_t)problem->synthetic_count,
           image = (size_t)net->channels * (size_t)net->height * (size_t)net->width;
    size_t steps = (size_t)problem->steps;
    const struct meta_spec meta_spec = {.network = net, .batch = problem->real_count};
    const struct pass_spec pass = meta_pass(&meta_spec);
    struct unroll_spec spec = {.network = net,
                               .optimizer = problem->optimizer,
                               .set_count = problem->synthetic_count,
                               .batch = problem->batch_count,
                               .soft_labels = problem->soft_labels != NULL,
                               .max_window = problem->window,
                               .team = problem->team,
                               .shares = problem->shares,
                               .passes = &pass,
                               .pass_count = 1};
    fresh.inner_loss = calloc(steps, sizeof(double));
    fresh.grad_norm = calloc(steps, sizeof(double));
    fresh.theta_end = calloc((size_t)net->theta_count, sizeof(float));
    fresh.dsyn_x = calloc(n * image, sizeof(float));
    fresh.dsyn_y = spec.soft_labels ? calloc(n * (size_t)net->classes, sizeof(float)) : NULL;
    fresh.eigenvalues = calloc((size_t)problem->eigenvalue_count + 1, sizeof(double));
    if (!fresh.inner_loss || !fresh.grad_norm || !fresh.theta_end || !fresh.dsyn_x || !fresh.eigenvalues
        || (spec.soft_labels && !fresh.dsyn_y))
        RAISE(RETORT_ENOMEM, "out of memory for a check");
    TRY(unroll_create(library, &spec, &unroll));
    TRY(unroll_set(unroll, 0, problem->synthetic_images, problem->soft_labels, problem->hard_labels));
    TRY(unroll_upload_steps(unroll,
                            &(struct unroll_steps){.first = 1, .count = problem->steps, .rows = problem->batches}));
    TRY(unroll_begin_from(unroll, problem->theta0));
    struct pass *meta = unroll_pass(unroll, 0);
    int prefix = problem->steps - problem->window;
    struct unroll_gradient gradient = {.images = fresh.dsyn_x, .labels = fresh.dsyn_y};
    double accuracy;
    TRY(meta_upload(meta, problem->real_images, problem->real_labels, NULL));
    TRY(unroll_train(unroll, 0, prefix, true));
    TRY(unroll_window(unroll, prefix, problem->window, true));
    TRY(meta_run(meta));
    TRY(unroll_backward(unroll, meta_lambda(meta), HESSIAN_EXACT, &gradient));
    TRY(meta_read(meta, &fresh.outer_loss, &accuracy));
    TRY(unroll_read_probe(unroll, problem->steps, fresh.inner_loss, fresh.grad_norm));
    TRY(unroll_read_theta(unroll, fresh.theta_end));
    unroll_destroy(unroll);
    unroll = NULL;
    if (problem->eigenvalue_count) TRY(check_eigenvalues(library, problem, fresh.eigenvalues));
    *result = fresh;
    memset(&fresh, 0, sizeof fresh);
done:
    unroll_destroy(unroll);
    check_result_finish(&fresh);
    return status;
}

void check_result_finish(struct check_result *result) {
    if (!result) return;
    free(result->inner_loss);
    free(result->grad_norm);
    free(result->theta_end);
    free(result->dsyn_x);
    free(result->dsyn_y);
    free(result->eigenvalues);
    *result = (struct check_result){0};
}
