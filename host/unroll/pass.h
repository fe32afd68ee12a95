/* A pass: a graph with its buffers as one small object. A method hands rows of them to unroll_create, which splits
 * their batches together with its own and counts their memory; the method then uploads, runs and reads:
 *
 *     pass_upload(pass, IMAGES, images);      what the host knows
 *     pass_begin(pass);                       sums to zero
 *     pass_run(pass);                         adds the whole batch's, part by part, at the weights as they are now;
 *                                             of a batch that is divided, all members' shares
 *     pass_read(pass, LOSS, &loss);           or pass_result(...), to stay on the device
 *
 * meta.c is one that is used. */
#ifndef RETORT_UNROLL_PASS_H
#define RETORT_UNROLL_PASS_H

#include "graph/graph.h"
#include "unroll/memory.h"

/* Where an input of the graph comes from, or where a result goes. */
enum pass_source {
    PASS_THETA,      /* the weights [p] as they are now */
    PASS_STATS,      /* and batch norm's running statistics [q] */
    PASS_SET_IMAGES, /* the set [n,C,H,W] as it lies on the device */
    PASS_SET_LABELS, /* its labels, [n] or [n,K] */
    PASS_UPLOAD,     /* a buffer of the pass, filled by pass_upload */
    PASS_BOUND,      /* where pass_bind says, of input or result: another pass's result, part of a set, ... */
    PASS_SUM,        /* the input NAME is what came so far, the result "out NAME" is that and this part's share */
    PASS_RESULT,     /* a buffer of the pass, written anew by each part */
};

/* A value of a pass, of the type and size that the graph gives it. `rows`: it has a row for each of the batch, of which
 * a part takes its own; otherwise every part takes all of it. */
struct pass_value {
    const char *name;
    enum pass_source source;
    bool rows;
    int32_t missing; /* PASS_UPLOAD: what the last part's missing rows hold: 0, or -1 for labels that name no class */
};

enum { PASS_MAX_VALUES = 16 };
/* What a pass is made of. What it points to is borrowed for the life of the unroll. */
struct pass_spec {
    const char *label; /* "meta-loss" */
    /* The graph for parts of `count` rows; NULL after a failure, the message then being set. Inputs and results that
     * are not among the values are an error. */
    struct graph *(*build)(const void *context, int64_t count);
    const void *context;
    int64_t batch; /* rows of the whole batch. Parts are of equal size, the last one's missing rows are filled; so are
                      those of a member's rows where a team divides them. */
    const struct pass_value *values; /* [value_count] */
    int value_count;
};

struct pass;
int64_t pass_part_rows(const struct pass *pass); /* rows of a part, as was planned */
const struct pass_spec *pass_spec_of(const struct pass *pass);

/* The whole of a PASS_UPLOAD value: batch rows, of which a member of a team takes its own, or all its elements. */
int pass_upload(struct pass *pass, int value, const void *data);
/* The same for targets [batch, classes] of loss_soft, whose loss is the mean over a part's rows: one-hot labels
 * [counted] of the batch's first rows, weighed so that all parts together give the mean over these; the other rows,
 * which repeat or fill, get zeros. */
int pass_upload_targets(struct pass *pass, int value, const int32_t *labels, int64_t counted, int64_t classes);
/* Where a PASS_BOUND value lies, until it is bound anew. With rows, there must be as many as all parts together have.
 */
int pass_bind(struct pass *pass, int value, struct place place);
int pass_begin(struct pass *pass); /* zeroes all sums */
/* Launches the whole batch, part by part. RETORT_EINTERRUPTED between parts where the unroll's `interrupt` is set. */
int pass_run(struct pass *pass);
/* Where a sum or result lies now, and its elements on the host. */
struct place pass_result(const struct pass *pass, int value);
int pass_read(struct pass *pass, int value, void *data);

#endif
