/* Values in memory and the launches that compute them: what the passes after grouping make, and what an executable
 * keeps. */
#ifndef RETORT_COMPILE_LAUNCH_H
#define RETORT_COMPILE_LAUNCH_H

#include "base/memory.h"
#include "compile/group.h"
#include "compile/kernels.h"

struct value {
    const struct node *node; /* NULL: scratch. Gone once the executable is made */
    enum layout layout;
    size_t floats;
    int parts; /* > 1: what it holds is the sum of so many arrays one after another, added by whoever reads it */
    int slot;  /* >= 0: external; the binding's number */
    struct value *parent; /* storage inside another value */
    size_t offset;        /* in elements: inside the parent, or of the arena (memory.c) */
    int first, last;      /* launches that write and read it */
    bool is_int;
    bool input; /* external and read-only */
};

/* The launch of a kernel, or a call of a library that launches what it likes. */
struct launch {
    const char *text;        /* kernel text with NAME for its name; a call has none, "" */
    const struct gemm *call; /* the matrix product of a call; NULL: it is a kernel */
    size_t global[3], local[3];
    struct value **buffers; /* argument order: outputs, then inputs */
    int buffer_count, output_count;
    const char *what; /* for prints: "fused 12 nodes", "conv_cpu.cl" */
    bool packs;       /* brings an input into another form */
    double flops;
    int kernel; /* number in the library; -1: none */
    struct device_kernel *handle;
};

struct slot {
    const char *name;
    bool output;
    struct value *value;
    struct device_buffer *buffer;
    size_t offset; /* in bytes */
};

struct launch_list {
    struct arena arena; /* of the values, launches, texts and names */
    ARRAY(struct value *) values;
    ARRAY(struct launch *) launches;
    ARRAY(struct kernel_class) classes; /* of the convolutions and matrix products among them, merged ones too */
    ARRAY(struct slot) slots;
    size_t arena_floats;
    double flops; /* of the graph, each operation once */
};

/* Bytes of memory beside the arena that the largest call needs; 0: there is none. */
size_t launch_list_call_bytes(const struct launch_list *list);
void launch_list_finish(struct launch_list *list);
/* RETORT_EUNSUPPORTED where a launch reads what none before it has written, or has no work. */
int launch_list_check(const struct launch_list *list);
void launch_list_print(const struct launch_list *list, FILE *stream);

/* New memory, for a node or (NULL) for use inside a kernel or between two. NULL when out of memory. */
struct value *value_create(struct launch_list *list, const struct node *node, enum layout layout, size_t floats);
/* The value whose storage a value lies in, itself maybe, and where in it, in elements. */
struct value *value_root(const struct value *value, size_t *offset);
/* Whether two values share an element of memory. */
bool values_overlap(const struct value *a, const struct value *b);

/* A copy of the launch, with its text or call, name and buffers, at the end of the list. NULL when out of memory. */
struct launch *launch_add(struct launch_list *list, const struct launch *launch);
/* The launches of a plan, with the values of its results and inputs; packing that an earlier launch has done already is
 * not done again, and parts of a result are not added up where its value takes them. Scratch becomes values.
 * RETORT_ENOMEM. */
int launch_plan(struct launch_list *list, const struct kernel_plan *plan, struct value *const *results,
                struct value *const *inputs, double flops);
/* Appends the arguments of a kernel with these buffers, b0, o0 and so on: outputs first, then inputs. `word` stands
 * before each pointer's name: "restrict " where no two share memory, else "". */
void launch_arguments(struct text *text, struct value *const *buffers, int count, int outputs, const char *word);
/* What a launch must move at least: each of its buffers once. */
double launch_bytes(const struct launch *launch);

/* --- merge.c: makes one launch of small ones that do not wait for each other --- */
int merge_launches(struct launch_list *list, const struct kernel_target *target);

/* --- memory.c: places in the arena. Two values that live at the same time never overlap. --- */
int memory_plan(struct launch_list *list);
int memory_check(const struct launch_list *list); /* RETORT_EUNSUPPORTED where two do */

#endif
