/* The words that descriptors and cases have for the enums of the floors below: one place for each. NULL-terminated, in
 * the order of the enum. Words of a single file's enums stand in that file. */
#ifndef RETORT_RUN_WORDS_H
#define RETORT_RUN_WORDS_H

extern const char *const words_network_kind[];
extern const char *const words_norm[];
extern const char *const words_activation[];
extern const char *const words_pool[];
extern const char *const words_optimizer[];
extern const char *const words_labels[];
extern const char *const words_parameters[];
extern const char *const words_dct[];
extern const char *const words_family[];
extern const char *const words_divide[];

#endif
