/* Operations that hand-written kernels compute: which sizes the kernel choice is asked for. */
#include "compile/operation.h"

#include "base/error.h"
#include "compile/convolution.h"

struct matmul_sizes matmul_sizes_of(const struct node *node) {
    const struct attributes *attributes = &node->attributes;
    const int64_t *size = node->shape.size, *a = node->inputs[0]->shape.size;
    int r = node->shape.rank;
    return (struct matmul_sizes){.batch = r == 3 ? size[0] : 1,
                                 .m = size[r - 2],
                                 .n = size[r - 1],
                                 .k = a[attributes->transpose_a ? r - 2 : r - 1],
                                 .transpose_a = attributes->transpose_a,
                                 .transpose_b = attributes->transpose_b};
}

static int plan_matmul(const struct kernel_target *target, const struct node *node, struct kernel_plan *plan) {
    const struct matmul_sizes sizes = matmul_sizes_of(node);
    return kernels_matmul(target, &sizes, plan);
}

static int plan_scatter_rows(const struct kernel_target *target, const struct node *node, struct kernel_plan *plan) {
    const struct shape *values = &node->inputs[0]->shape;
    int64_t rows = values->size[0], width = rows ? shape_count(*values) / rows : 0;
    return kernels_scatter_rows(target, rows, width, node->shape.size[0], plan);
}

static int plan_sample(const struct kernel_target *target, const struct node *node, struct kernel_plan *plan) {
    const int64_t *size = node->shape.size;
    return kernels_sample(target, size[0], size[1], size[2], size[3], node->op == OP_SAMPLE_TRANSPOSE, plan);
}

static int plan_eigh(const struct kernel_target *target, const struct node *node, struct kernel_plan *plan) {
    return kernels_eigh(target, node->shape.size[1], plan);
}

_Static_assert(OP_COUNT == 43, "a new operation: if hand-written kernels compute it, it needs a row below");
/* A row an operation that hand-written kernels compute. Convolutions, of which a plan may take several nodes, have
 * none.
 */
static int (*const operations[OP_COUNT])(const struct kernel_target *, const struct node *, struct kernel_plan *) = {
    [OP_MATMUL] = plan_matmul, [OP_SCATTER_ROWS] = plan_scatter_rows,
    [OP_SAMPLE] = plan_sample, [OP_SAMPLE_TRANSPOSE] = plan_sample,
    [OP_EIGH] = plan_eigh,
};

int operation_plan(const struct grouping *grouping, const struct group *group, struct kernel_plan *plan) {
    int status = RETORT_OK;
    const struct node *node = group->members.items[0];
    if (is_convolution(grouping, node)) {
        struct joined joined;
        TRY(convolution_join(grouping, group, &joined));
        TRY(kernels_plan(&grouping->target, &joined.class, plan));
        goto done;
    }
    if (!operations[node->op]) RAISE(RETORT_EUNSUPPORTED, "cannot compile: no kernel for %s", op_info(node->op)->name);
    TRY(operations[node->op](&grouping->target, node, plan));
done:
    return status;
}
