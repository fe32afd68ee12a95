/* What every test file includes: cmocka with what it wants included before it. */
#ifndef RETORT_TESTS_TEST_H
#define RETORT_TESTS_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/error.h"

/* For device_open: the device that RETORT_DEVICE names, else the CPU even where there is a GPU. */
#define TEST_DEVICE (getenv("RETORT_DEVICE") ? NULL : "cpu")

/* Whether sizes should be small and what takes billions of steps be left out: tests/conformance.sh asks for it where
 * every work-item is interpreted, or kernels are compiled for minutes. Every kernel is still run, and every branch of
 * it. */
#define TEST_SMALL (getenv("RETORT_TEST_SMALL") != NULL)

/* Fails with the library's own words where a call does not succeed. */
#define assert_ok(call)                                                                 \
    do {                                                                                \
        int status_ = (call);                                                           \
        if (status_ < 0) fail_msg("%s: %d %s", #call, status_, retort_error_message()); \
    } while (0)

#endif
