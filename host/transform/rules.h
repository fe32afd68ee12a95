/* One rule for each operation: its derivative in both modes. NULL stands for a symbolic zero throughout. */
#ifndef RETORT_TRANSFORM_RULES_H
#define RETORT_TRANSFORM_RULES_H

#include "graph/graph.h"

struct rule {
    bool constant; /* the result is piecewise constant, or is meant to be taken as a constant: derivative zero */
    /* The adjoint of one operand from the adjoint of the result. */
    struct node *(*vjp)(struct node *node, struct node *cotangent, int operand);
    /* The tangent of the result from those of the operands, of which at least one is not NULL. The list is the rule's
     * to overwrite. */
    struct node *(*jvp)(struct node *node, struct node **tangents);
};

/* Where neither is set and the rule is not `constant`, there is no derivative. */
const struct rule *rule_of(enum op op);

struct node *zeros_like(struct node *x);
struct node *sum_or_either(struct node *a, struct node *b); /* a + b, where either may be NULL */

#endif
