/* Inside the merging of launches: merge.c chooses which become one and writes the kernels of CPUs, merge_gpu.c those of
 * GPUs. */
#ifndef RETORT_COMPILE_MERGE_H
#define RETORT_COMPILE_MERGE_H

#include "compile/launch.h"

#define KERNEL_BEGIN "kernel void NAME("

/* Whether the two differ in nothing but their arguments. */
bool is_same_launch(const struct launch *a, const struct launch *b);
size_t launch_items(const struct launch *launch);
/* A launch without a text, with all buffers of the parts, outputs first; of the list's arena. NULL: out of memory. */
struct launch *merge_begin(struct launch_list *list, struct launch *const *parts, size_t count);
/* The launches that are the same as the k-th, itself first; how many. 0 where they belong to an earlier part. */
size_t collect_same(struct launch *const *parts, size_t count, size_t k, struct launch **same);
enum { PART_NAME = 32 };
void part_name(const struct launch *part, char name[PART_NAME]); /* of the function that a part's text becomes */
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
