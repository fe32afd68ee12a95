/* Inside the merging of launches: merge.c chooses which become one and writes the kernels of CPUs, merge_gpu.c those of
 * GPUs. */
#ifndef RETORT_COMPILE_MERGE_H
#define RETORT_COMPILE_MERGE_H

#include "compile/launch.h"

#define KERNEL_BEGIN "kernel void NAME("

/* Whether the two differ in nothing but their arguments. */
bool is_same_launch(const struct launch *a, const struct launch *b);
size_t launch_items(const struct launch *launch);
int argument_number(struct value *const *buffers, int count, const struct value *value);
/* A launch without a text, with all buffers of the parts, outputs first; of the list's arena. NULL: out of memory. */
struct launch *merge_begin(struct launch_list *list, struct launch *const *parts, size_t count);
/* The arguments of a merged kernel, without `restrict`: parts may share them. */
void append_arguments(struct text *text, const struct launch *launch);
/* The arguments of a call for launch number `which` of those with the same kernel, each after a comma. */
void append_choice(struct text *text, struct launch *const *launches, size_t count, struct value *const *buffers,
                   int buffer_count);

/* --- merge_gpu.c --- */
/* Whether a kernel's text can become a function. */
bool can_merge_gpu(const struct launch *launch);
/* The work-items of a launch's work-groups; 0 where its kernel asks for nothing but the global place. */
size_t fixed_group(const struct launch *launch);
struct launch *merged_gpu(struct launch_list *list, const struct kernel_target *target, struct launch *const *parts,
                          size_t count);

#endif
