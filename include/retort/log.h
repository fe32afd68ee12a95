/* How much the library says on standard error. */
#ifndef RETORT_LOG_H
#define RETORT_LOG_H

/* 0 nothing, 1 warnings, 2 what it is doing and a progress line (the default), 3 details for developers. */
void retort_log_verbosity(int level);

#endif
