#include "run/prepare.h"

#include "base/error.h"
#include "base/log.h"
#include "run/expert_store.h"
#include "run/index_list.h"
#include "run/score.h"

#include <stdlib.h>

static struct distill_problem problem_of(const struct descriptor *d, const struct session *session) {
    return (struct distill_problem){.library = session->library,
                                    .train = &session->data.train,
                                    .normalisation = &session->data.normalisation,
                                    .network = &session->network,
                                    .inner = d->inner,
                                    .set = d->set,
                                    .outer = d->outer,
                                    .method = descriptor_method(d),
                                    .method_spec = d->method_spec,
                                    .dct = d->device.dct,
                                    .experts = session->experts ? &session->experts->source : NULL,
                                    .seed = d->seed,
                                    .division = session->division};
}

/* `plan`: NULL or one that is not frozen: all is to be planned. */
static int make_distill(const struct descriptor *d, const struct session *session, const struct run_plan *plan,
                        const volatile int *interrupt, struct distill **distill) {
    int status = RETORT_OK;
    int32_t *rows = NULL;
    struct distill_problem problem = problem_of(d, session);
    if (plan && plan->frozen) {
        problem.frozen = &plan->distil;
        /* Folders of before there was a choice do not tell: it was made so. */
        problem.dct = plan->dct == DCT_AUTO ? DCT_MATRIX : plan->dct;
    }
    problem.interrupt = interrupt;
    if (d->set.init == SET_INDICES) TRY(index_list_read(d->set.indices, &rows, &problem.row_count));
    problem.rows = rows;
    TRY(distill_create(&problem, distill));
done:
    free(rows);
    return status;
}

/* Before kernels are built, which may take a minute. */
int prepare_check(const struct descriptor *d, const struct session *session) {
    const struct distill_problem problem = problem_of(d, session);
    const char *key;
    int status = distill_check(&problem, &key);
    if (status < 0) error_context("%s", key);
    return status;
}

static int plan_all(const struct descriptor *d, struct session *session, struct run_plan *plan,
                    const volatile int *interrupt, struct distill **distill) {
    int status = RETORT_OK;
    TRY(prepare_check(d, session));
    TRY(scores_plan(d, session, NULL, plan->frozen ? &plan->evaluate : NULL, &plan->evaluate));
    TRY(make_distill(d, session, plan, interrupt, distill));
done:
    return status;
}

int prepare_run(const struct descriptor *descriptor, struct session *session, struct run_plan *plan,
                const volatile int *interrupt, struct distill **distill) {
    int status = RETORT_OK, refused = 0;
    struct distill *fresh = NULL;
    for (;;) {
        int planned = plan_all(descriptor, session, plan, interrupt, &fresh);
        status = session_test_kernels(session, planned, false, &refused);
        if (status == RETORT_OK && !refused) break;
        distill_destroy(fresh);
        fresh = NULL;
        /* The run may take all memory there is. Without it there is room to test in. */
        if (planned == RETORT_OK && status == RETORT_ELIMIT)
            status = session_test_kernels(session, RETORT_OK, true, &refused);
        TRY(status);
    }
    if (!plan->frozen)
        distill_plan(fresh, &plan->distil);
    else if (plan->dct == DCT_CLFFT && distill_dct(fresh) == DCT_MATRIX)
        log_warning("the run was begun with images of coefficients by clfft, now they are by matrix products: the "
                    "numbers may differ in their last digits");
    plan->dct = distill_dct(fresh);
    *distill = fresh;
    fresh = NULL;
done:
    distill_destroy(fresh);
    return status;
}

int prepare_classes(const struct descriptor *descriptor, const struct session *session, struct kernel_demand **list,
                    size_t *count) {
    int status = RETORT_OK;
    struct distill *distill = NULL;
    TRY(make_distill(descriptor, session, NULL, NULL, &distill));
    TRY(library_classes(session->library, list, count));
done:
    distill_destroy(distill);
    return status;
}
