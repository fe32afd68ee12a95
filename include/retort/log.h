/** @file
 * How much the library says on standard error. */
#ifndef RETORT_LOG_H
#define RETORT_LOG_H

#ifdef __cplusplus
extern "C" {
#endif

/** 0 nothing, 1 warnings, 2 what it is doing and a progress line (the default), 3 details for developers. One level
 * for all threads: set it before they start. */
void retort_log_verbosity(int level);

#ifdef __cplusplus
}
#endif

#endif
