/* How one operation is computed by hand-written kernels: its launches in order, apart from where its operands lie.
 *
 * A kernel is a template: a file of cl/ holding one kernel called NAME, its parameters being macros. The program's text
 * repeats, for each use, `#define NAME k7`, the parameters, the file, and the `#undef`s (which the file's last lines
 * do). Every buffer argument is a pair (global pointer, ulong offset in elements); outputs come first. */
#ifndef RETORT_COMPILE_PLAN_H
#define RETORT_COMPILE_PLAN_H

#include "base/memory.h"
#include "device/gemm.h"

#include <stddef.h>
#include <stdint.h>

struct kernel_use {
    const char *file;           /* "conv_cpu.cl"; NULL: no kernel needed */
    char parameters[1024];      /* lines "#define KEY value\n" */
    size_t global[3], local[3]; /* local[0] = 0: the driver chooses */
};

enum operand_kind { OPERAND_RESULT, OPERAND_INPUT, OPERAND_SCRATCH };
struct plan_operand {
    enum operand_kind kind;
    int number;
    size_t offset, floats; /* the part of it that the launch takes, in elements; floats 0: all of it */
};
#define PLAN_RESULT(n)  ((struct plan_operand){.kind = OPERAND_RESULT, .number = (n)})
#define PLAN_INPUT(n)   ((struct plan_operand){.kind = OPERAND_INPUT, .number = (n)})
#define PLAN_SCRATCH(n) ((struct plan_operand){.kind = OPERAND_SCRATCH, .number = (n)})

/* What an operand stands for, of whatever holds results, inputs and scratch memory. */
#define PLAN_PICK(operand, results, inputs, scratch)                   \
    ((operand)->kind == OPERAND_RESULT  ? (results)[(operand)->number] \
     : (operand)->kind == OPERAND_INPUT ? (inputs)[(operand)->number]  \
                                        : (scratch)[(operand)->number])

enum { PLAN_CALL = -1, PLAN_USES = 12, PLAN_LAUNCHES = 64, PLAN_OPERANDS = 8, PLAN_SCRATCHES = 8, PLAN_RESULTS = 2 };
struct plan_launch {
    int use;          /* its number in the plan: launches on parts of a batch have the same kernel. PLAN_CALL: none */
    struct gemm call; /* what a library computes instead, on c, a, b */
    struct plan_operand operands[PLAN_OPERANDS]; /* outputs first */
    int outputs, count;
    bool packs;   /* brings its input into another form, which later operations may share */
    double share; /* of the operation's arithmetic; all shares are 1 together */
};

struct kernel_plan {
    struct kernel_use uses[PLAN_USES];
    struct plan_launch launches[PLAN_LAUNCHES];
    size_t scratch[PLAN_SCRATCHES]; /* elements of 4 bytes */
    int use_count, launch_count, scratch_count;
    /* Of each result. Whoever reads one with parts can add them up instead: see value.parts. */
    struct plan_split {
        int parts;   /* > 1: launch number `launch` adds the result up from so many parts of its size, which lie one
                        after another in scratch memory */
        int scratch; /* its number */
        int launch;
    } splits[PLAN_RESULTS];
};

/* Memory between two launches; its number. Plans have a fixed number of scratches, uses and launches, which assertions
 * check. */
int plan_scratch(struct kernel_plan *plan, size_t elements);
/* Adds a launch of a kernel on these operands. Equal kernels are one use. */
struct plan_launch *plan_launch(struct kernel_plan *plan, const struct kernel_use *use, int outputs, int count,
                                const struct plan_operand *operands);
/* Adds a launch that packs `count` inputs from this one on into new scratch memory, and returns what holds it. */
struct plan_operand plan_pack(struct kernel_plan *plan, const struct kernel_use *use, size_t elements, int input,
                              int count);
/* Adds a call of a library: a matrix product of two inputs, which is result 0. */
struct plan_launch *plan_call(struct kernel_plan *plan, const struct gemm *gemm);
/* The use of a launch; NULL: it is a call. */
const struct kernel_use *plan_use(const struct kernel_plan *plan, const struct plan_launch *launch);

/* Begins a use: names the template and empties the parameters. */
void kernel_use_begin(struct kernel_use *use, const char *file);
/* Appends `#define NAME value`. Every template has a fixed number of parameters with bounded values, and `parameters`
 * is large enough for all of them; an assertion checks it. */
void kernel_use_define(struct kernel_use *use, const char *name, int64_t value);
void kernel_use_launch(struct kernel_use *use, size_t x, size_t y, size_t z, size_t local_x, size_t local_y,
                       size_t local_z);

/* The text of a file of cl/ by name, embedded in the library; NULL where there is none. */
const char *kernels_text(const char *file);
/* Appends what stands first in every program: the definition of V, cl/preamble.cl, cl/winograd.cl and cl/fused.cl, and
 * in the GPU family cl/rows_gpu.cl. */
void kernels_preamble(struct text *text, int lanes);
/* Appends a kernel of that name to a program. */
void kernels_append(struct text *text, const char *name, const struct kernel_use *use);

#endif
