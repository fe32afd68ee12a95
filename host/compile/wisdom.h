/* Wisdom: kernel choices that measuring has found better than the built-in ones, kept in a file between runs.
 *
 * A text file, a line a decision, each for one device (name, driver version, lanes of a vector, compute units) and one
 * class of convolutions or matrix products; devices share the file. Nothing in it can make a result wrong: a choice
 * that the kernels do not allow is ignored, as is a line that cannot be read, with one warning that names file and
 * line. Kernels differ in the order of their sums, so other wisdom means other last digits.
 *
 * Beside choices it holds *bad* ones, which are never taken: a device computed them wrongly, or crashed or hung in
 * them. Whether a choice is bad does not depend on the number of images; and a library that is bad for one product is
 * asked for none. And it holds a mark that a device was tuned,
 * for where nothing better was found. */
#ifndef RETORT_COMPILE_WISDOM_H
#define RETORT_COMPILE_WISDOM_H

#include "base/file.h"
#include "compile/kernels.h"

/* Where the user's wisdom is: RETORT_WISDOM, or XDG_CACHE_HOME/retort/wisdom, or ~/.cache/retort/wisdom. "" where there
 * is none: RETORT_WISDOM=off, or no such folder. */
void wisdom_path(char path[FILE_PATH_MAX]);

/* oh and ow follow from the rest. */
bool kernel_class_equal(const struct kernel_class *a, const struct kernel_class *b);

/* A class, and how many launches, or parts of merged ones, compute it. */
struct kernel_demand {
    struct kernel_class class;
    int launches;
};
/* The convolutions and matrix products that the executables of a library launch, each executable taken once. The array
 * is the caller's to free(). RETORT_ENOMEM. */
int library_classes(const struct library *library, struct kernel_demand **list, size_t *count);

struct wisdom;
/* What a file knows about a device; nothing where it does not exist, cannot be read, or `path` is "". RETORT_ENOMEM. */
int wisdom_load(const char *path, const struct kernel_target *target, struct wisdom **wisdom);
/* A single decision, whatever the files say: to measure it. RETORT_ENOMEM. */
int wisdom_of_one(const struct kernel_class *class, const struct kernel_choice *choice, struct wisdom **wisdom);
void wisdom_destroy(struct wisdom *wisdom); /* NULL-safe */
/* Enters a choice as bad, for as long as the wisdom is there, and in what wisdom_save writes. RETORT_ENOMEM. */
int wisdom_refuse(struct wisdom *wisdom, const struct kernel_target *target, const struct kernel_class *class,
                  const struct kernel_choice *choice);
/* Whether a choice is bad for a class; and for any launch of several terms of these sizes. */
bool wisdom_refuses(const struct wisdom *wisdom, const struct kernel_class *class, const struct kernel_choice *choice);
bool wisdom_refuses_joined(const struct wisdom *wisdom, enum conv_pass pass, const struct conv_sizes *sizes,
                           const struct kernel_choice *choice);
/* For how many classes a library is the choice, 0 where it is known to be bad; and whether it is. */
int wisdom_library_classes(const struct wisdom *wisdom);
bool wisdom_refuses_library(const struct wisdom *wisdom);
/* Whether the device was tuned: there are choices, or the mark. */
bool wisdom_is_tuned(const struct wisdom *wisdom);
/* NULL where nothing is known. The choice is as the file has it: kernels_fits tells whether it may be used. */
const struct kernel_choice *wisdom_find(const struct wisdom *wisdom, const struct kernel_class *class);

/* A class and a choice as text of one line, as the file has them; and back, where the text is changed. False: it is
 * none. */
void wisdom_write_task(struct text *text, const struct kernel_class *class, const struct kernel_choice *choice);
bool wisdom_read_task(char *text, struct kernel_class *class, struct kernel_choice *choice);

/* "none", or 16 hexadecimal digits over all choices and bad ones, in whichever order they stand. NULL: none. */
void wisdom_name(const struct wisdom *wisdom, char name[17]);
/* Its choices and bad ones as lines of a file. NULL: none. */
void wisdom_lines(const struct wisdom *wisdom, struct text *text);
/* Writes a file of these alone, and of the lines of other devices' wisdom. NULL: of none. */
int wisdom_save(const struct wisdom *wisdom, const char *others, const char *path);
/* Enters a decision for the target's device into a file, which is made where it is missing; all others stay. `choice`
 * NULL: the class is forgotten. The file is replaced as a whole or not at all; several processes may do so at once, by
 * way of a lock on the file PATH.lock beside it. */
int wisdom_remember(const char *path, const struct kernel_target *target, const struct kernel_class *class,
                    const struct kernel_choice *choice);
/* Likewise that a choice is bad, and that the device was tuned. */
int wisdom_remember_bad(const char *path, const struct kernel_target *target, const struct kernel_class *class,
                        const struct kernel_choice *choice);
int wisdom_remember_tuned(const char *path, const struct kernel_target *target);

#endif
