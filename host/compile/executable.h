/* A graph compiled for a device: a fixed list of kernel launches over planned device memory, to be replayed.
 *
 *     executable_create  (plans, writes kernel text; nothing is built yet)
 *     library_build      (all kernels of all executables of the library, in one program)
 *     library_rehearse   (each of them launched once, where the first launch shall be as fast as the others)
 *     executable_bind... (which buffers the inputs and outputs are)
 *     executable_enqueue (launches; allocates nothing, waits for nothing)
 */
#ifndef RETORT_COMPILE_EXECUTABLE_H
#define RETORT_COMPILE_EXECUTABLE_H

#include "device/device.h"
#include "graph/graph.h"

enum family { FAMILY_AUTO, FAMILY_CPU, FAMILY_GPU }; /* auto: by the device's type */

/* The kernels and the scratch memory that executables on one device share. Executables of a library run one after
 * another on one queue, so one scratch arena, as large as the most demanding needs, serves all. It goes with the last
 * executable; kernels stay, for executables to come. */
struct library;
int library_create(struct device *device, enum family family, struct library **library); /* with the user's wisdom */
struct wisdom;
/* The wisdom (compile/wisdom.h) is borrowed for the life of the library, whose self-test enters what is bad; NULL:
 * none.
 */
int library_create_with(struct device *device, enum family family, struct wisdom *wisdom, struct library **library);
struct kernel_target;
/* For a target (compile/kernels.h) that the caller describes: another device in place of this one, for tests. Its
 * traits and wisdom are borrowed. */
int library_create_for(struct device *device, const struct kernel_target *target, struct library **library);
void library_destroy(struct library *library); /* NULL-safe; its executables must be gone */
/* Builds every kernel not built yet as one program and (re)allocates the arena. Call after creating executables. */
int library_build(struct library *library);
/* Launches every kernel that has not been launched yet, on zeros, because many drivers build kernels to their end only
 * then: of each executable that has such a kernel all launches, in their order. Call after library_build and before
 * anything is bound, while there is still room for two buffers, one as large as the largest input, one as large as the
 * results of an executable together; where there is none nothing is launched. A progress line tells how many are done.
 */
int library_rehearse(struct library *library);
/* Tests the kernels by which executables of this library, those destroyed too, compute convolutions and, but on CPU
 * devices, matrix products, each once (compile/self_test.h). *refused says how many failed: then executables must be
 * made anew, which takes others. RETORT_EDEVICE where the device computes one by no kernel rightly; RETORT_ELIMIT where
 * there is no memory for it, of which a few dozen megabytes are enough; `skip`: what there is no memory for goes
 * untested. */
int library_self_test(struct library *library, bool skip, int *refused);
/* Writes the text of the program that library_build would build now. */
int library_write_program(struct library *library, FILE *stream);
struct device *library_device(struct library *library);
size_t library_scratch_bytes(const struct library *library); /* allocated now */
/* Who computes matrix products: "own" kernels, "clblast", or "auto": each class who the wisdom says, CLBlast some. */
const char *library_gemm(const struct library *library);

struct executable;
/* `label` is for messages and profiles ("inner step"). The graph is read during the call only. */
int executable_create(struct library *library, const struct graph *graph, const char *label,
                      struct executable **executable);
void executable_destroy(struct executable *executable); /* NULL-safe */

/* Inputs and outputs by name; RETORT_EINVAL names the unknown one. Offsets in bytes, multiples of 4. An output must not
 * overlap an input. A binding stays until changed; bind anew, before the next run, what has been destroyed. Data
 * layout: dense row-major, float32 or int32; of opaque ones (graph_output_opaque) the library's own, larger perhaps. */
int executable_bind(struct executable *executable, const char *name, struct device_buffer *buffer, size_t offset);
/* The same by slot, for loops: slots are found once. */
int executable_slot(const struct executable *executable, const char *name); /* or -1 */
int executable_bind_slot(struct executable *executable, int slot, struct device_buffer *buffer, size_t offset);
size_t executable_slot_bytes(const struct executable *executable, int slot); /* that a binding must hold; 0: no slot */

int executable_enqueue(struct executable *executable);

/* Figures for plans and reports. Scratch memory: what the library allocates for this executable, with the most that
 * calls of other libraries need in any of its executables. */
size_t executable_arena_bytes(const struct executable *executable);
int executable_launch_count(const struct executable *executable);
double executable_flops(const struct executable *executable);
/* Prints the figures above in one line and, where `launches` is set, every launch with the places of its operands. */
void executable_print(const struct executable *executable, bool launches, FILE *stream);

#endif
