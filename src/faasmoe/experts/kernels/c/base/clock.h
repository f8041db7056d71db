/* The clock of all durations. Who includes it defines _POSIX_C_SOURCE or _GNU_SOURCE first. */
#pragma once

#include <time.h>

#include "base/kernels.h"

#define SECOND_NS INT64_C(1000000000)

/* Nanoseconds, as Python's time.monotonic_ns has them. */
INLINE int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}
