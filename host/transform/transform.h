/* Derivatives of graphs, as graphs. Rules build ordinary nodes, so any order of derivative comes from one table. */
#ifndef RETORT_TRANSFORM_TRANSFORM_H
#define RETORT_TRANSFORM_TRANSFORM_H

#include "graph/graph.h"

/* Reverse mode. gradients[i] = d <cotangent, output> / d wrt[i]; zeros where output does not depend on it. `cotangent`
 * NULL: 1, and output must then have one element. A rule that is missing is an error that names the operation. */
int transform_vjp(struct node *output, struct node *cotangent, struct node *const *wrt, int count,
                  struct node **gradients);

/* Forward mode. out_tangents[i] = the directional derivative of outputs[i] when inputs[j] moves along tangents[j];
 * zeros where it does not depend on them. */
int transform_jvp(struct node *const *outputs, int output_count, struct node *const *inputs,
                  struct node *const *tangents, int input_count, struct node **out_tangents);

/* A new graph with the live part of `graph` only: what its outputs need, rebuilt through the builders, which fold
 * identities and share equal nodes. Inputs that are no longer needed are kept (they are part of the interface). */
int transform_simplify(const struct graph *graph, struct graph **simplified);

/* One graph that computes `copies` times what `graph` computes, each time from inputs of its own but for those that
 * `is_shared` names; what follows from shared inputs alone is computed once. Inputs and results of copy k are called
 * "NAME #k", those of copy 0 as they were. RETORT_EUNSUPPORTED where an input is opaque. */
int transform_repeat(const struct graph *graph, int copies, bool (*is_shared)(const char *input),
                     struct graph **repeated);
/* The name in copy k; at most 63 characters. Returns `text`. */
enum { TRANSFORM_NAME = 64 };
const char *transform_copy_name(const char *name, int copy, char text[TRANSFORM_NAME]);

/* Spares `consumer` what `producer` has computed before it: nodes that both have (equal operations on equal operands,
 * down to inputs of equal names), that the consumer's results still need, and that are worth it. The producer gets them
 * as opaque results "kept 0", "kept 1", ... (in *keeping), the consumer reads opaque inputs of these names in their
 * place (in *reading). Numbered by the consumer's nodes, so producers that agree on these fit the same consumer. */
int transform_keep(const struct graph *producer, const struct graph *consumer, bool (*is_worth)(const struct node *),
                   struct graph **keeping, struct graph **reading);

#endif
